//! The `loadgen` command: options in, a run, reports out. See the library for everything else.

use std::process::ExitCode;

use antiphon_loadgen::{
    options::{CommandLine, CommonOptions},
    report::{Report, html, summary},
    run,
};
use anyhow::Context as _;
use clap::Parser as _;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let command = CommandLine::parse().command;
    let outcome = run::run(&command).and_then(|report| {
        print!("{}", summary::text(&report));
        write_reports(command.common(), &report)?;
        Ok(report.passed())
    });
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("loadgen: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn write_reports(options: &CommonOptions, report: &Report) -> anyhow::Result<()> {
    if let Some(file) = &options.json {
        let json = serde_json::to_vec_pretty(report)?;
        std::fs::write(file, json).with_context(|| format!("can't write {}", file.display()))?;
    }
    if let Some(file) = &options.html {
        std::fs::write(file, html::page(report)?).with_context(|| format!("can't write {}", file.display()))?;
    }
    Ok(())
}
