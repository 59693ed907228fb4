//! `cargo xtask fuzz`, and the replay of the committed corpora.

use std::{fs, path::PathBuf};

use anyhow::{Context, bail};

use crate::process::{self, cargo, is_installed, program, root};

/// Runs one target, or all in turn.
pub(crate) fn run(target: Option<&str>, seconds: u64) -> anyhow::Result<()> {
    let known = targets()?;
    let chosen: Vec<&String> = match target {
        None => known.iter().collect(),
        Some(name) => vec![
            known
                .iter()
                .find(|known| *known == name)
                .with_context(|| format!("no target {name}; there are {}", known.join(", ")))?,
        ],
    };
    let tool = cargo_fuzz()?;
    for name in chosen {
        println!("fuzzing {name} for {seconds} s");
        // cargo fuzz needs unstable flags of the compiler; the variable allows them on the stable one. What is found goes to a folder
        // that is not committed; the corpus that is gives the start.
        let found = root().join("target/fuzz-found").join(name);
        fs::create_dir_all(&found)?;
        let mut command = program(&tool);
        // As `cargo fuzz` would call it.
        command.args(["fuzz", "run", name]).arg(&found).arg(root().join("fuzz/corpus").join(name));
        command.args(["--", &format!("-max_total_time={seconds}"), "-timeout=10", "-rss_limit_mb=4096"]);
        process::run(command.env("RUSTC_BOOTSTRAP", "1"))?;
    }
    Ok(())
}

/// Feeds every file of `fuzz/corpus` to its target once, without a fuzzer.
pub(crate) fn replay() -> anyhow::Result<()> {
    targets()?;
    // The workspace's own folder: most of what the replay links was built there for the tests.
    let arguments =
        ["run", "--manifest-path", "fuzz/Cargo.toml", "--bin", "replay", "--locked", "--target-dir", "target"];
    process::run(&mut cargo(arguments))
}

/// The names of the files in `fuzz/fuzz_targets`.
fn targets() -> anyhow::Result<Vec<String>> {
    let folder = root().join("fuzz/fuzz_targets");
    let mut names: Vec<String> = fs::read_dir(&folder)
        .with_context(|| folder.display().to_string())?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok()?.strip_suffix(".rs").map(str::to_owned))
        .collect();
    names.sort_unstable();
    if names.is_empty() { bail!("no target in {}", folder.display()) } else { Ok(names) }
}

fn cargo_fuzz() -> anyhow::Result<PathBuf> {
    if is_installed("cargo-fuzz") {
        return Ok("cargo-fuzz".into());
    }
    let folder = root().join("target/tools");
    let tool = folder.join("bin/cargo-fuzz");
    if !tool.is_file() {
        process::run(cargo(["install", "--locked", "cargo-fuzz", "--version", "^0.13", "--root"]).arg(&folder))?;
    }
    Ok(tool)
}
