//! The `loadgen` command: options in, runs made, reports out. See the library for everything else.

use std::process::ExitCode;

use antiphon_loadgen::{
    agent,
    options::{Command, CommandLine, CommonOptions, Load, ReportOptions},
    report::{Report, compare::Comparison, html, summary},
    run, trials,
};
use anyhow::Context as _;
use clap::Parser as _;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match execute(CommandLine::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("loadgen: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn execute(command: Command) -> anyhow::Result<bool> {
    match command {
        Command::Load(mut load) => {
            let count = load.common().trials;
            let report = repeat(count, || {
                let report = run::run(&load)?;
                follow_restart(&mut load, &report);
                Ok(report)
            })?;
            tell(load.common(), &report)
        }
        Command::Run(options) => {
            let mut common = None;
            let mut lead = || {
                let (load, report) = agent::lead(&options)?;
                common = Some(load.common().clone());
                Ok::<_, anyhow::Error>(report)
            };
            let first = lead()?;
            let count = common.as_ref().map_or(1, |common| common.trials);
            tell(
                &common.context("a run has options")?,
                &more_of(first, count, || agent::lead(&options).map(|led| led.1))?,
            )
        }
        Command::Agent(options) => agent::serve(&options).map(|()| true),
        Command::Report(options) => side_by_side(&options).map(|()| true),
    }
}

fn repeat(count: u32, mut make: impl FnMut() -> anyhow::Result<Report>) -> anyhow::Result<Report> {
    let first = make()?;
    more_of(first, count, make)
}

fn more_of(first: Report, count: u32, mut make: impl FnMut() -> anyhow::Result<Report>) -> anyhow::Result<Report> {
    if count == 1 {
        return Ok(first);
    }
    let mut reports = vec![first];
    while reports.len() < count as usize {
        eprintln!("trial {} of {count}", reports.len() + 1);
        reports.push(make()?);
    }
    trials::together(reports).context("there is at least one trial")
}

/// The node that the next trial of a storm kills is the one that this trial started.
fn follow_restart(load: &mut Load, report: &Report) {
    if let (Load::Storm(options), Some(storm)) = (load, &report.storm)
        && options.kill_pid.is_some()
    {
        options.kill_pid = storm.restarted_pid.or(options.kill_pid);
    }
}

/// Tells a person and writes the files.
fn tell(options: &CommonOptions, report: &Report) -> anyhow::Result<bool> {
    print!("{}", summary::text(report));
    if let Some(file) = &options.json {
        let json = serde_json::to_vec_pretty(report)?;
        std::fs::write(file, json).with_context(|| format!("can't write {}", file.display()))?;
    }
    if let Some(file) = &options.html {
        std::fs::write(file, html::page(report)?).with_context(|| format!("can't write {}", file.display()))?;
    }
    Ok(report.passed())
}

fn side_by_side(options: &ReportOptions) -> anyhow::Result<()> {
    let comparison = Comparison::of_files(&options.files)?;
    print!("{}", comparison.text());
    if let Some(file) = &options.html {
        std::fs::write(file, comparison.page()).with_context(|| format!("can't write {}", file.display()))?;
    }
    Ok(())
}
