//! The `tune` command line. Exit codes of `tune check`: 0 all as wanted, 1 something advised is short, 2 something required is,
//! 3 it failed.

use std::{fs, path::PathBuf, process::ExitCode};

use antiphon_tuning::{
    check::{check, exit_status, table},
    facts, machine,
    profile::Profile,
};
use anyhow::Context;
use clap::{Parser, Subcommand};

/// Checks a machine for Antiphon.
#[derive(Debug, Parser)]
#[command(name = "tune", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Holds this machine against a profile.
    Check {
        /// Connections that the node is to hold.
        #[arg(long, default_value_t = 10_000)]
        connections: u64,
        /// A profile in TOML instead of the one for a chat node.
        #[arg(long)]
        profile: Option<PathBuf>,
        /// For machines.
        #[arg(long)]
        json: bool,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("tune: {error:#}");
            ExitCode::from(3)
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<u8> {
    let Command::Check { connections, profile, json } = arguments.command;
    let profile = match profile {
        None => Profile::chat_node(),
        Some(path) => {
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            Profile::from_toml(&text).with_context(|| path.display().to_string())?
        }
    };
    let rows = check(&profile, &facts::read(), connections);
    let machine = machine();
    if json {
        let report = serde_json::json!({
            "profile": profile.name, "connections": connections, "machine": machine, "tuners": rows,
        });
        println!("{report}");
    } else {
        println!("{} for {connections} connections on {machine}\n\n{}", profile.name, table(&rows));
    }
    Ok(exit_status(&rows))
}
