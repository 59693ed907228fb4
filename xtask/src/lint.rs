//! `cargo xtask lint`.

use crate::{
    dependencies, links,
    process::{self, cargo},
    stages::{Stage, run_all},
};

fn run_clippy() -> anyhow::Result<()> {
    process::run(&mut cargo(["clippy", "--workspace", "--all-targets", "--locked", "--", "--deny", "warnings"]))
}

pub(crate) fn run() -> anyhow::Result<()> {
    run_all(vec![
        Stage::new("format", || process::run(&mut cargo(["fmt", "--all", "--check"]))),
        Stage::new("clippy", run_clippy),
        Stage::new("documentation", || {
            let mut command = cargo(["doc", "--workspace", "--no-deps", "--locked", "--document-private-items"]);
            process::run(command.env("RUSTDOCFLAGS", "--deny warnings --allow rustdoc::private_intra_doc_links"))
        }),
        Stage::new("dependencies", dependencies::check),
        Stage::new("links", links::check),
    ])
}
