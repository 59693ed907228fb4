//! `cargo xtask power-cuts`: builds the program that cuts the power of real file systems, and runs it. Installs
//! nothing.

use std::process::{Command, ExitCode};

use anyhow::{Context, bail};

use crate::process::{cargo, typed};

/// The program's exit code where power can't be cut: no root, no loop devices, no `mkfs`.
const IMPOSSIBLE: i32 = 2;

/// Cuts of the short stage: some seconds, and each kind of cut a few times.
const CUTS_OF_STAGE: &str = "20";

/// Runs it, with its own exit code as ours.
pub(crate) fn run(arguments: &[String]) -> anyhow::Result<ExitCode> {
    let code = exit_code(&mut command(arguments))?;
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
}

/// A few cuts on ext4, where power can be cut; elsewhere a line that says why not. The program's own tests are the workspace's.
pub(crate) fn stage() -> anyhow::Result<()> {
    let arguments = ["--cuts", CUTS_OF_STAGE].map(str::to_owned);
    match exit_code(&mut command(&arguments))? {
        0 => Ok(()),
        IMPOSSIBLE => {
            println!("skipped: see above; it takes root, loop devices and mkfs.ext4");
            Ok(())
        }
        code => bail!("power cuts: exit code {code}"),
    }
}

/// A promise of the file layer can be broken only where that is compiled in.
fn command(arguments: &[String]) -> Command {
    let lies = arguments.iter().any(|one| one == "--lie" || one.starts_with("--lie="));
    let features = if lies { "power-cuts,planted" } else { "power-cuts" };
    let mut command = cargo(["run", "--profile", "simulation", "--locked", "--package", "antiphon-simulator"]);
    command.args(["--features", features, "--bin", "antiphon-power-cuts", "--"]).args(arguments);
    command
}

fn exit_code(command: &mut Command) -> anyhow::Result<i32> {
    println!("$ {}", typed(command));
    let status = command.status().with_context(|| typed(command))?;
    status.code().with_context(|| format!("`{}` was killed: {status}", typed(command)))
}
