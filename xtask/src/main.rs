//! The one door for people and CI: `cargo xtask test | lint | sim | power-cuts | mutants | fuzz | conformance | bench |
//! compare | provision`.

mod conformance;
mod dependencies;
mod fuzz;
mod http_api;
mod links;
mod lint;
mod mutants;
mod power_cuts;
mod process;
mod provision;
mod stages;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Tests, checks and measures Antiphon.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Installs what the tests need, then runs them all.
    Test {
        /// Only these stages; `--list` names them.
        stages: Vec<String>,
        /// Names the stages.
        #[arg(long)]
        list: bool,
        /// Seeds of the simulator.
        #[arg(long, default_value_t = 2_000)]
        seeds: u64,
        /// All of Autobahn's cases with compression, not only those with short messages.
        #[arg(long)]
        autobahn_whole: bool,
    },
    /// Formatting, clippy, documentation, dependencies, links.
    Lint,
    /// Runs the simulator: `--seeds N`, `--seed S --trace`, `--minutes M`, `--plants`; `--help` has all.
    Sim {
        /// Handed on.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Plants bugs, one at a time, in a copy of the tree: each must be found by the tests or the simulator.
    Mutants(mutants::Options),
    /// Cuts the power of a real file system under the engine: `--file-system ext4|xfs`, `--cuts N`, `--seed S`; wants root; `--help`
    /// has all.
    PowerCuts {
        /// Handed on.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Holds clients to what the protocol asks of them: our own, or, `ws://… --token-command C --client C`, any on any node; `--help` has all.
    Conformance {
        /// Handed on.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Fuzzes one target, or all in turn.
    Fuzz {
        /// Which; all if none is named.
        target: Option<String>,
        /// How long each.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// Runs the benchmarks.
    Bench {
        /// Handed on.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Compares with others within one run: `net` with WebSocket servers, `engine` with storage engines; `net --help` has all.
    Compare {
        /// Handed on.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Installs what the tests need.
    Provision,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Test { list: true, .. } => {
            test::list();
            Ok(())
        }
        Command::Test { stages, seeds, autobahn_whole, .. } => test::run(&stages, seeds, autobahn_whole),
        Command::Lint => lint::run(),
        Command::Sim { arguments } => test::simulate(&arguments),
        Command::Mutants(options) => mutants::run(&options),
        Command::PowerCuts { arguments } => match power_cuts::run(&arguments) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        Command::Conformance { arguments } => conformance::run(&arguments),
        Command::Fuzz { target, seconds } => fuzz::run(target.as_deref(), seconds),
        Command::Bench { arguments } => benches(&[], &arguments),
        Command::Compare { arguments } => benches(&["compare"], &arguments),
        Command::Provision => provision::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `before`: what the program of the benchmarks is told first; its benchmarks themselves have no word in common.
fn benches(before: &[&str], arguments: &[String]) -> anyhow::Result<()> {
    // It runs both as programs of their own.
    if before.is_empty() && arguments.first().is_some_and(|bench| bench == "capacity" || bench == "large") {
        let programs = ["--package", "antiphon-gateway", "--package", "antiphon-loadgen"];
        process::run(process::cargo(["build", "--release"]).args(programs))?;
    }
    let mut command = process::cargo(["run", "--release", "--package", "antiphon-benches", "--"]);
    process::run(command.args(before).args(arguments))
}
