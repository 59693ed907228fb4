//! The command line.

use std::{
    net::{SocketAddr, ToSocketAddrs},
    path::PathBuf,
};

use antiphon_wire::codec::Encoding;
use anyhow::{Context as _, bail, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{
    arrivals::Spread,
    clock::SECOND_NS,
    token::Tokens,
    workload::plan::{CONNECTIONS_PER_THREAD_MAX, Plan},
};

/// Where a node takes WebSockets, if the target names no path.
const PATH_DEFAULT: &str = "/ws";

/// Antiphon's load generator.
///
/// An open loop: messages are planned ahead and latency counts from the intended time. Every message that arrives is checked.
/// The exit code is 0 if no promise was broken and all connections were established, 1 if not, 2 if the run could not be made.
#[derive(Debug, Parser)]
#[command(name = "loadgen", version, max_term_width = 110)]
pub struct CommandLine {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Users in groups who send messages at a given rate
    Chat(ChatOptions),
    /// Users who are connected and do nothing but heartbeats
    Idle(IdleOptions),
}

/// Options of all commands.
#[derive(Debug, Clone, Args)]
pub struct CommonOptions {
    /// The node, as ws://HOST:PORT[/PATH]
    #[arg(long, default_value = "ws://127.0.0.1:8080")]
    pub target: String,
    /// How many connections, each a user of its own
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=16_000_000))]
    pub connections: u32,
    /// How long to measure
    #[arg(long)]
    pub seconds: f64,
    /// New connections a second (without it: as fast as the node answers)
    #[arg(long)]
    pub connect_rate: Option<f64>,
    /// How frames are encoded
    #[arg(long, value_enum, default_value_t = EncodingOption::Rkyv)]
    pub encoding: EncodingOption,
    /// Client threads (without it: one for each 18,000 connections, at least one for each 4 cores)
    #[arg(long)]
    pub threads: Option<u32>,
    /// Decides names and arrivals (without it: drawn anew)
    #[arg(long)]
    pub seed: Option<u64>,
    /// Sign tokens with the HS256 secret in this file (without it: `dev:USER`, as a node in development mode takes)
    #[arg(long)]
    pub token_key: Option<PathBuf>,
    /// The audience of these tokens
    #[arg(long, default_value = "antiphon")]
    pub token_audience: String,
    /// The node's process, for its memory and CPU (without it: whoever listens on the target's port here)
    #[arg(long)]
    pub server_pid: Option<u32>,
    /// Write the outcome for machines
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Write the outcome as a page with plots
    #[arg(long)]
    pub html: Option<PathBuf>,
}

/// `loadgen chat`.
#[derive(Debug, Clone, Args)]
pub struct ChatOptions {
    /// What all commands have.
    #[command(flatten)]
    pub common: CommonOptions,
    /// Messages a second, over all connections
    #[arg(long)]
    pub rate: f64,
    /// Members of a group; each user is in one
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(2..=1_000))]
    pub group_size: u32,
    /// Length of a message's text
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=16_384))]
    pub text_bytes: u64,
    /// How sends are spread
    #[arg(long, value_enum, default_value_t = Spread::Poisson)]
    pub arrivals: Spread,
    /// Load that is checked but not measured, before the rest
    #[arg(long, default_value_t = 2.0)]
    pub warmup_seconds: f64,
    /// How long to wait at the end for what is on its way
    #[arg(long, default_value_t = 10.0)]
    pub drain_seconds: f64,
}

/// `loadgen idle`.
#[derive(Debug, Clone, Args)]
pub struct IdleOptions {
    /// What all commands have.
    #[command(flatten)]
    pub common: CommonOptions,
}

/// How frames are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EncodingOption {
    /// Binary.
    Rkyv,
    /// Text.
    Json,
}

impl EncodingOption {
    /// Its name on the command line and in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rkyv => "rkyv",
            Self::Json => "json",
        }
    }

    fn encoding(self) -> Encoding {
        match self {
            Self::Rkyv => Encoding::Rkyv,
            Self::Json => Encoding::Json,
        }
    }
}

impl Command {
    /// The options that all commands have.
    #[must_use]
    pub fn common(&self) -> &CommonOptions {
        match self {
            Self::Chat(chat) => &chat.common,
            Self::Idle(idle) => &idle.common,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Chat(_) => "chat",
            Self::Idle(_) => "idle",
        }
    }

    /// Checks everything and makes the plan of the run.
    pub fn plan(&self) -> anyhow::Result<Plan> {
        let common = self.common();
        positive(common.seconds, "--seconds")?;
        common.connect_rate.map_or(Ok(()), |rate| positive(rate, "--connect-rate"))?;
        let (host, target, path) = parse_target(&common.target)?;
        let tokens = match &common.token_key {
            Some(file) => Tokens::from_key_file(file, &common.token_audience)?,
            None => Tokens::Development,
        };
        let drawn = random_u64();
        let mut plan = Plan {
            target,
            host,
            path,
            encoding: common.encoding.encoding(),
            tokens,
            // Drawn seeds fit a number of any language's JSON.
            seed: common.seed.unwrap_or(drawn >> 32),
            nonce: drawn as u32,
            connections: common.connections,
            group_size: 0,
            text_bytes: 0,
            rate_per_second: 0.0,
            spread: Spread::Fixed,
            warmup_ns: 0,
            measured_ns: nanoseconds(common.seconds),
            connects_per_second: common.connect_rate,
        };
        if let Self::Chat(chat) = self {
            ensure!(chat.rate >= 0.0 && chat.rate.is_finite(), "--rate must not be negative");
            ensure!(chat.warmup_seconds >= 0.0 && chat.drain_seconds >= 0.0, "a time must not be negative");
            ensure!(common.connections >= 2, "a chat needs two connections at least");
            plan.group_size = chat.group_size.min(common.connections);
            plan.text_bytes = chat.text_bytes as usize;
            plan.rate_per_second = chat.rate;
            plan.spread = chat.arrivals;
            plan.warmup_ns = nanoseconds(chat.warmup_seconds);
        }
        Ok(plan)
    }

    /// How many client threads.
    #[must_use]
    pub fn threads(&self) -> u32 {
        let common = self.common();
        let needed = common.connections.div_ceil(CONNECTIONS_PER_THREAD_MAX);
        let cores = std::thread::available_parallelism().map_or(1, usize::from) as u32;
        common.threads.unwrap_or(cores / 4).max(needed).max(1)
    }

    /// How long to wait at the end.
    #[must_use]
    pub fn drain_ns(&self) -> u64 {
        match self {
            Self::Chat(chat) => nanoseconds(chat.drain_seconds),
            Self::Idle(_) => 0,
        }
    }
}

fn nanoseconds(seconds: f64) -> u64 {
    (seconds * SECOND_NS as f64) as u64
}

fn positive(value: f64, name: &str) -> anyhow::Result<()> {
    ensure!(value > 0.0 && value.is_finite(), "{name} must be more than 0");
    Ok(())
}

fn parse_target(target: &str) -> anyhow::Result<(String, SocketAddr, String)> {
    let Some(rest) = target.strip_prefix("ws://") else {
        bail!("--target must begin with ws:// (TLS is not spoken yet): {target}");
    };
    let (host, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
    let path = if matches!(path, "" | "/") { PATH_DEFAULT } else { path };
    let mut addresses = host.to_socket_addrs().with_context(|| format!("--target names no HOST:PORT: {target}"))?;
    let address = addresses.next().with_context(|| format!("{host} has no address"))?;
    Ok((host.to_owned(), address, path.to_owned()))
}

/// A number from the operating system's randomness, by way of the standard library's hash keys.
fn random_u64() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &str) -> anyhow::Result<CommandLine> {
        Ok(CommandLine::try_parse_from(std::iter::once("loadgen").chain(arguments.split_whitespace()))?)
    }

    #[test]
    fn the_interface_of_scripts_is_understood() {
        let chat = "chat --target ws://127.0.0.1:18080 --connections 2000 --rate 5000 --seconds 20 --json f";
        let plan = parse(chat).unwrap().command.plan().unwrap();
        assert_eq!((plan.connections, plan.group_size, plan.rate_per_second), (2_000, 20, 5_000.0));
        assert_eq!((plan.target.port(), plan.host.as_str(), plan.path.as_str()), (18_080, "127.0.0.1:18080", "/ws"));
        let idle =
            parse("idle --target ws://127.0.0.1:18080/x --connections 100000 --seconds 20 --json f").unwrap().command;
        assert_eq!((idle.threads(), idle.plan().unwrap().path.as_str(), idle.plan().unwrap().group_size), (6, "/x", 0));
    }

    #[test]
    fn nonsense_is_refused() {
        for arguments in [
            "chat --connections 10 --seconds 1",
            "chat --connections 0 --rate 1 --seconds 1",
            "chat --connections 1 --rate 1 --seconds 1",
            "chat --connections 10 --rate -1 --seconds 1",
            "chat --connections 10 --rate NaN --seconds 1",
            "chat --connections 10 --rate 1 --seconds 1 --group-size 1",
            "idle --connections 10 --seconds 0",
            "idle --connections 10 --seconds 1 --target wss://x:1",
            "idle --connections 10 --seconds 1 --target ws://127.0.0.1",
            "idle --connections 10 --seconds 1 --connect-rate 0",
        ] {
            assert!(parse(arguments).and_then(|line| line.command.plan()).is_err(), "{arguments}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        CommandLine::command().debug_assert();
    }
}
