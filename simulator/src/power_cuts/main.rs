//! The engine on a real file system whose power is cut, thousands of times: `cargo xtask power-cuts`.
//!
//! Two processes. The judge (this one) owns the file systems ([`rig`]), decides when to cut ([`run`]) and what must
//! then hold ([`model`]). The writer ([`writer`]) is started by it, and is what a node is below its sessions: a shard
//! with its ring, the node's own files, and an engine. They speak over pipes ([`protocol`]); what the writer has said
//! survives it.
//!
//! Exit codes: 0 all held, 1 a promise was broken, 2 it can't be done here.

mod model;
mod names;
mod protocol;
mod rig;
mod rigs;
mod run;
mod tally;
mod watched;
mod writer;

use std::{
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Command, ExitCode},
};

use clap::{Parser, Subcommand};

use crate::{
    rig::{FileSystem, Rig, RigError},
    run::RunError,
    writer::WriterArguments,
};

/// Cuts the power of a file system that the engine writes to, and checks what is left.
#[derive(Debug, Parser)]
#[command(name = "antiphon-power-cuts", version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,
    #[command(flatten)]
    run: RunArguments,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// The process that is cut.
    #[command(hide = true)]
    Writer(WriterArguments),
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct RunArguments {
    /// What the engine's folder is on.
    #[arg(long, value_enum, default_value_t = FileSystem::Ext4)]
    file_system: FileSystem,
    /// How often.
    #[arg(long, default_value_t = 500)]
    cuts: u64,
    /// Ends after so many minutes, however many cuts that makes; `--cuts` is the most.
    #[arg(long)]
    minutes: Option<f64>,
    /// Repeats what is written and which moments are aimed at; when they come is up to the machine.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// So many rigs side by side, each with images, mounts and a seed of its own: a cut mostly waits for the kernel.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    rigs: u16,
    /// Writes all figures to this file, too.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Where the images are made: some hundred MiB a rig. A folder in memory is faster than one on a disk.
    #[arg(long, default_value = "/dev/shm")]
    images: PathBuf,
    /// Breaks a promise of the file layer, which must be found. Wants the feature `planted`.
    #[arg(long, value_enum)]
    lie: Option<Lie>,
    /// Mounts are in a namespace of our own already.
    #[arg(long, hide = true)]
    isolated: bool,
}

/// A promise of the node's files that can be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Lie {
    /// Log files are opened without `O_DSYNC`.
    WritesNotSynchronous,
    /// Files and folders are not synced.
    SyncsSkipped,
}

impl Lie {
    /// From now on, files of this thread lie.
    fn tell(self) {
        #[cfg(feature = "planted")]
        antiphon_gateway::uring::planted::lie(match self {
            Self::WritesNotSynchronous => antiphon_gateway::uring::planted::Lie::WritesNotSynchronous,
            Self::SyncsSkipped => antiphon_gateway::uring::planted::Lie::SyncsSkipped,
        });
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(Part::Writer(arguments)) = arguments.part {
        return match writer::run(&arguments) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("writer: {error:#}");
                ExitCode::FAILURE
            }
        };
    }
    if arguments.run.lie.is_some() && !cfg!(feature = "planted") {
        eprintln!("a lie wants a build with --features planted");
        return ExitCode::from(2);
    }
    let result = Rig::check(arguments.run.file_system).map_err(RunError::from);
    match result.and_then(|()| if arguments.run.isolated { cut(arguments.run) } else { isolate() }) {
        Ok(code) => code,
        Err(RunError::Violation(_)) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("no power can be cut here: {error}");
            ExitCode::from(2)
        }
    }
}

/// Becomes ourselves again in a namespace of mounts that ends with us, however we end. Comes back only if that fails.
fn isolate() -> Result<ExitCode, RunError> {
    let own = std::env::current_exe().map_err(RunError::Writer)?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]).arg(own).arg("--isolated").args(std::env::args_os().skip(1));
    Err(RunError::Writer(command.exec()))
}

fn cut(arguments: RunArguments) -> Result<ExitCode, RunError> {
    let folder = arguments.images.join(format!("antiphon-power-cuts-{}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(|source| RigError::Io { path: folder.clone(), source })?;
    let (seed, rigs) = (arguments.seed, usize::from(arguments.rigs));
    println!("seed {seed}, {} cuts, {rigs} rigs, images in {}", arguments.cuts, folder.display());
    let (tally, result) = rigs::run(&arguments, &folder);
    // Gone, but for the images of a rig that broke a promise.
    let _ = std::fs::remove_dir(&folder);
    print!("{tally}");
    let violations = u64::from(matches!(result, Err(RunError::Violation(_))));
    println!(
        "power cuts: {} cuts, {} messages acknowledged, {violations} violations, {:.0} s",
        tally.cuts(),
        tally.acknowledged,
        tally.started.elapsed().as_secs_f64()
    );
    if let Some(path) = arguments.json {
        let text = format!("{:#}\n", tally.to_json(seed, rigs, violations));
        std::fs::write(&path, text).map_err(|source| RigError::Io { path, source })?;
    }
    result.map(|()| ExitCode::SUCCESS)
}
