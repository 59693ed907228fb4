//! Tells the program which revision it was built from, for its reports. A build without a repository says so.

use std::process::Command;

fn main() {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
    };
    let revision = git(&["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]);
    println!("cargo::rustc-env=LOADGEN_REVISION={}", revision.as_deref().unwrap_or("unknown"));
    // The reflog changes with every commit and checkout; the sources are watched as without a script.
    if let Some(log) = git(&["rev-parse", "--path-format=absolute", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
    for watched in ["src", "build.rs", "Cargo.toml"] {
        println!("cargo::rerun-if-changed={watched}");
    }
}
