//! `cargo xtask lint`.

use crate::{
    dependencies, links,
    process::{self, cargo},
    stages::{Stage, run_all},
};

/// The fuzz targets are a workspace of their own.
const FUZZ: [&str; 2] = ["--manifest-path", "fuzz/Cargo.toml"];

/// So are the servers and engines that we compare ourselves with; they are formatted, and built only for a comparison.
const FOREIGN: [&str; 2] = ["--manifest-path", "benches/foreign/Cargo.toml"];

fn check_format() -> anyhow::Result<()> {
    process::run(&mut cargo(["fmt", "--all", "--check"]))?;
    process::run(cargo(["fmt", "--check"]).args(FUZZ))?;
    process::run(cargo(["fmt", "--all", "--check"]).args(FOREIGN))
}

fn run_clippy() -> anyhow::Result<()> {
    let deny = ["--", "--deny", "warnings"];
    process::run(cargo(["clippy", "--workspace", "--all-targets", "--locked"]).args(deny))?;
    // What is compiled for tests of faults only.
    let faults = ["--package", "antiphon-simulator", "--features", "planted,power-cuts"];
    process::run(cargo(["clippy", "--all-targets", "--locked"]).args(faults).args(deny))?;
    let without_tls = ["--package", "antiphon-client", "--no-default-features"];
    process::run(cargo(["clippy", "--locked"]).args(without_tls).args(deny))?;
    process::run(cargo(["clippy", "--locked", "--target-dir", "target"]).args(FUZZ).args(deny))
}

pub(crate) fn run() -> anyhow::Result<()> {
    run_all(vec![
        Stage::new("format", check_format),
        Stage::new("clippy", run_clippy),
        Stage::new("documentation", || {
            let mut command = cargo(["doc", "--workspace", "--no-deps", "--locked", "--document-private-items"]);
            process::run(command.env("RUSTDOCFLAGS", "--deny warnings --allow rustdoc::private_intra_doc_links"))
        }),
        Stage::new("dependencies", dependencies::check),
        Stage::new("links", links::check),
    ])
}
