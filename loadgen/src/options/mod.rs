//! The command line.

mod large;
mod mix;
mod planning;

use std::{net::SocketAddr, path::PathBuf};

use antiphon_wire::codec::Encoding;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{arrivals::Spread, law::Law, tls::TlsVersion};

pub use large::LargeOptions;
pub use mix::Mix;
pub use planning::Slice;

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
#[derive(Debug, Clone, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one of them in a program")]
pub enum Command {
    /// Put load on a node.
    #[command(flatten)]
    Load(Load),
    /// Outcomes of earlier runs, side by side
    Report(ReportOptions),
    /// Wait for a `loadgen run` on another machine, and be a part of it
    Agent(AgentOptions),
    /// A run that several agents make together
    Run(RunOptions),
}

/// The kinds of load.
#[derive(Debug, Clone, Subcommand)]
pub enum Load {
    /// Users who are connected and do nothing but heartbeats
    Idle(IdleOptions),
    /// Plain WebSocket echoes, against `antiphon echo` or any other echo server
    Echo(EchoOptions),
    /// Users in groups who send messages at a given rate
    Chat(ChatOptions),
    /// Large groups with one sender each
    Broadcast(BroadcastOptions),
    /// Sessions whose node goes away: all come back and resume
    Storm(StormOptions),
    /// A share of the connections stops reading
    Slow(SlowOptions),
    /// A day in the life of a chat, from a file
    Mix(MixOptions),
    /// One very large group beside ordinary chat
    Large(LargeOptions),
    /// The same load for hours: fails if memory or latency drifts upwards
    Soak(SoakOptions),
}

/// Options of all loads.
#[derive(Debug, Clone, Args)]
pub struct CommonOptions {
    /// The node, as ws://HOST:PORT[/PATH] or, with TLS, wss://HOST:PORT[/PATH]
    #[arg(long, default_value = "ws://127.0.0.1:8080")]
    pub target: String,
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
    /// How often to make the run; the report has the median and the spread
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=99))]
    pub trials: u32,
    /// Sign tokens with the HS256 secret in this file (without it: `dev:USER`, as a node in development mode takes)
    #[arg(long)]
    pub token_key: Option<PathBuf>,
    /// The audience of these tokens
    #[arg(long, default_value = "antiphon")]
    pub token_audience: String,
    /// How TLS is spoken.
    #[command(flatten)]
    pub tls: TlsOptions,
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

/// Of what only `wss://` has.
const TLS_HEADING: &str = "TLS (wss://)";

/// TLS, for a target that begins with wss://.
#[derive(Debug, Clone, Args)]
pub struct TlsOptions {
    /// Trust certificates by the roots in this PEM file
    #[arg(help_heading = TLS_HEADING, long, value_name = "FILE", conflicts_with = "tls_insecure")]
    pub tls_ca: Option<PathBuf>,
    /// Trust any certificate; the report says so
    #[arg(help_heading = TLS_HEADING, long)]
    pub tls_insecure: bool,
    /// The name that is asked for (SNI) and that the certificate must have (without it: the target's host)
    #[arg(help_heading = TLS_HEADING, long, value_name = "NAME")]
    pub tls_server_name: Option<String>,
    /// Which versions are offered
    #[arg(help_heading = TLS_HEADING, long, value_enum, value_name = "VERSION", default_value_t = TlsVersion::Any)]
    pub tls_version: TlsVersion,
    /// Use session tickets: connections that come back resume their TLS (without it: each handshake is a full one)
    #[arg(help_heading = TLS_HEADING, long)]
    pub tls_resume: bool,
}

/// How many connections.
#[derive(Debug, Clone, Copy, Args)]
pub struct SizeOptions {
    /// How many connections, each a user of its own
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=16_000_000))]
    pub connections: u32,
}

/// What is sent.
#[derive(Debug, Clone, Copy, Args)]
pub struct TrafficOptions {
    /// Length of a message's text: N, MIN..MAX, lognormal:MEDIAN:SIGMA:MAX or zipf:MIN..MAX:EXPONENT
    #[arg(long, default_value = "100")]
    pub text_bytes: Law,
    /// How sends are spread
    #[arg(long, value_enum, default_value_t = Spread::Poisson)]
    pub arrivals: Spread,
    /// The rate rises from nothing for so long, at the beginning
    #[arg(long, default_value_t = 0.0)]
    pub ramp_seconds: f64,
    /// Load that is checked but not measured, before the rest (without it: 2; of a soak a minute, or a tenth of it if that is less)
    #[arg(long)]
    pub warmup_seconds: Option<f64>,
    /// How long to wait at the end for what is on its way
    #[arg(long, default_value_t = 10.0)]
    pub drain_seconds: f64,
}

/// `loadgen idle`.
#[derive(Debug, Clone, Args)]
pub struct IdleOptions {
    /// What all loads have.
    #[command(flatten)]
    pub common: CommonOptions,
    /// How many.
    #[command(flatten)]
    pub size: SizeOptions,
    /// How long to measure
    #[arg(long)]
    pub seconds: f64,
}

/// `loadgen echo`.
#[derive(Debug, Clone, Args)]
#[command(group(clap::ArgGroup::new("pace").required(true).args(["rate", "in_flight"])))]
pub struct EchoOptions {
    /// What all loads have.
    #[command(flatten)]
    pub common: CommonOptions,
    /// How many.
    #[command(flatten)]
    pub size: SizeOptions,
    /// How long to measure
    #[arg(long)]
    pub seconds: f64,
    /// Messages a second, over all connections: an open loop
    #[arg(long)]
    pub rate: Option<f64>,
    /// Messages of each connection that are under way at once, always: a closed loop that saturates
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub in_flight: Option<u32>,
    /// Length of a payload, 16 bytes at least: N, MIN..MAX, lognormal:MEDIAN:SIGMA:MAX or zipf:MIN..MAX:EXPONENT
    #[arg(long, default_value = "64")]
    pub payload_bytes: Law,
    /// How sends of an open loop are spread
    #[arg(long, value_enum, default_value_t = Spread::Poisson)]
    pub arrivals: Spread,
    /// The rate of an open loop rises from nothing for so long, at the beginning
    #[arg(long, default_value_t = 0.0)]
    pub ramp_seconds: f64,
    /// Load that is checked but not measured, before the rest
    #[arg(long, default_value_t = 1.0)]
    pub warmup_seconds: f64,
    /// How long to wait at the end for what is on its way
    #[arg(long, default_value_t = 5.0)]
    pub drain_seconds: f64,
}

/// `loadgen chat`.
#[derive(Debug, Clone, Args)]
pub struct ChatOptions {
    /// What all loads have.
    #[command(flatten)]
    pub common: CommonOptions,
    /// How many.
    #[command(flatten)]
    pub size: SizeOptions,
    /// How long to measure
    #[arg(long)]
    pub seconds: f64,
    /// Messages a second, over all connections
    #[arg(long)]
    pub rate: f64,
    /// Members of a group, 2 to 1000; each user is in one: N, MIN..MAX or zipf:MIN..MAX:EXPONENT
    #[arg(long, default_value = "20")]
    pub group_size: Law,
    /// What is sent.
    #[command(flatten)]
    pub traffic: TrafficOptions,
    /// Read all histories at the end, and compare them with what was acknowledged
    #[arg(long)]
    pub verify_history: bool,
}

/// `loadgen broadcast`.
#[derive(Debug, Clone, Args)]
pub struct BroadcastOptions {
    /// What all loads have.
    #[command(flatten)]
    pub common: CommonOptions,
    /// How many.
    #[command(flatten)]
    pub size: SizeOptions,
    /// How long to measure
    #[arg(long)]
    pub seconds: f64,
    /// Messages a second, over all groups
    #[arg(long)]
    pub rate: f64,
    /// Members of a group, 2 to 1000; the first one sends: N, MIN..MAX or zipf:MIN..MAX:EXPONENT
    #[arg(long, default_value = "1000")]
    pub group_size: Law,
    /// What is sent.
    #[command(flatten)]
    pub traffic: TrafficOptions,
}

/// `loadgen storm`.
#[derive(Debug, Clone, Args)]
pub struct StormOptions {
    /// What all loads have.
    #[command(flatten)]
    pub common: CommonOptions,
    /// How many.
    #[command(flatten)]
    pub size: SizeOptions,
    /// Messages a second, over all connections, all the while
    #[arg(long, default_value_t = 100.0)]
    pub rate: f64,
    /// Members of a group, 2 to 1000: N, MIN..MAX or zipf:MIN..MAX:EXPONENT
    #[arg(long, default_value = "20")]
    pub group_size: Law,
    /// What is sent.
    #[command(flatten)]
    pub traffic: TrafficOptions,
    /// Kill this process (without it: the caller does, and the run waits for that)
    #[arg(long, group = "stops")]
    pub kill_pid: Option<u32>,
    /// With this signal; after any but KILL a restart waits until the process has ended
    #[arg(long, default_value = "KILL", requires = "kill_pid")]
    pub kill_signal: String,
    /// Make the node go by this, in a shell that is not waited for, such as a takeover (instead of a kill)
    #[arg(long, group = "stops")]
    pub stop_command: Option<String>,
    /// Start the node again with this, by a shell (without it: the caller does)
    #[arg(long, visible_alias = "start-command", requires = "stops")]
    pub restart_command: Option<String>,
    /// Sessions a second that try to come back, steadily, whatever back-off and goodbyes say: what a node can take
    #[arg(long)]
    pub return_rate: Option<f64>,
    /// Between the kill and the restart
    #[arg(long, default_value_t = 1.0)]
    pub down_seconds: f64,
    /// Measured before the kill
    #[arg(long, default_value_t = 5.0)]
    pub before_seconds: f64,
    /// Measured after the last session has resumed
    #[arg(long, default_value_t = 5.0)]
    pub after_seconds: f64,
    /// Longest wait for the node to go, and then for all to resume
    #[arg(long, default_value_t = 300.0)]
    pub limit_seconds: f64,
}

/// `loadgen slow`.
#[derive(Debug, Clone, Args)]
pub struct SlowOptions {
    /// What all loads have.
    #[command(flatten)]
    pub common: CommonOptions,
    /// How many.
    #[command(flatten)]
    pub size: SizeOptions,
    /// Messages a second, over all connections
    #[arg(long)]
    pub rate: f64,
    /// Members of a group, 2 to 1000: N, MIN..MAX or zipf:MIN..MAX:EXPONENT
    #[arg(long, default_value = "20")]
    pub group_size: Law,
    /// What is sent.
    #[command(flatten)]
    pub traffic: TrafficOptions,
    /// The share of connections that stop reading
    #[arg(long, default_value_t = 0.1)]
    pub share: f64,
    /// SO_RCVBUF of these: the smaller, the sooner the node feels it
    #[arg(long, default_value_t = 4_096)]
    pub receive_bytes: u32,
    /// Measured before
    #[arg(long, default_value_t = 10.0)]
    pub quiet_seconds: f64,
    /// How long they do not read
    #[arg(long, default_value_t = 20.0)]
    pub slow_seconds: f64,
    /// Measured after they read again
    #[arg(long, default_value_t = 5.0)]
    pub recovery_seconds: f64,
    /// Fail if the others' p99 of deliveries grows by more than this factor
    #[arg(long)]
    pub p99_factor_max: Option<f64>,
}

/// `loadgen mix`.
#[derive(Debug, Clone, Args)]
pub struct MixOptions {
    /// What all loads have.
    #[command(flatten)]
    pub common: CommonOptions,
    /// The day
    pub file: PathBuf,
}

/// `loadgen soak`.
#[derive(Debug, Clone, Args)]
pub struct SoakOptions {
    /// What all loads have.
    #[command(flatten)]
    pub common: CommonOptions,
    /// How many.
    #[command(flatten)]
    pub size: SizeOptions,
    /// How long
    #[arg(long)]
    pub hours: f64,
    /// Messages a second, over all connections
    #[arg(long)]
    pub rate: f64,
    /// Members of a group, 2 to 1000: N, MIN..MAX or zipf:MIN..MAX:EXPONENT
    #[arg(long, default_value = "20")]
    pub group_size: Law,
    /// What is sent.
    #[command(flatten)]
    pub traffic: TrafficOptions,
    /// Connections that go away a second, over all users, and come back
    #[arg(long, default_value_t = 0.0)]
    pub reconnects_per_second: f64,
    /// For how long, in milliseconds: a law, as --group-size
    #[arg(long, default_value = "lognormal:2000:1.0:60000")]
    pub away_ms: Law,
    /// Growth of the node's resident memory, over the run, that is no failure: 0.1 is 10 %
    #[arg(long, default_value_t = 0.1)]
    pub memory_growth_max: f64,
    /// Growth of the p99 of deliveries, over the run, that is no failure
    #[arg(long, default_value_t = 0.5)]
    pub latency_growth_max: f64,
}

/// `loadgen report`.
#[derive(Debug, Clone, Args)]
pub struct ReportOptions {
    /// JSON reports; the first is what the others are compared with
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// Write the comparison as a page
    #[arg(long)]
    pub html: Option<PathBuf>,
}

/// `loadgen agent`.
#[derive(Debug, Clone, Args)]
pub struct AgentOptions {
    /// Where to wait. Other addresses than loopback need --secret-file: an agent loads whatever target it is told to
    #[arg(long)]
    pub listen: SocketAddr,
    /// A file with what runs must know, 16 bytes at least (`openssl rand -hex 32 >FILE`); the same for all agents of a run
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// End after so many runs (without it: never)
    #[arg(long)]
    pub runs: Option<u32>,
}

/// `loadgen run`.
#[derive(Debug, Clone, Args)]
pub struct RunOptions {
    /// Their addresses, with commas between
    #[arg(long, required = true, value_delimiter = ',')]
    pub agents: Vec<String>,
    /// The file with the secret that the agents were started with
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// The load, as on a command line of its own: `-- chat --connections 2000 …`
    #[arg(last = true, required = true)]
    pub load: Vec<String>,
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

impl Load {
    /// The options that all loads have.
    #[must_use]
    pub fn common(&self) -> &CommonOptions {
        match self {
            Self::Idle(options) => &options.common,
            Self::Echo(options) => &options.common,
            Self::Chat(options) => &options.common,
            Self::Broadcast(options) => &options.common,
            Self::Storm(options) => &options.common,
            Self::Slow(options) => &options.common,
            Self::Mix(options) => &options.common,
            Self::Large(options) => &options.common,
            Self::Soak(options) => &options.common,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Idle(_) => "idle",
            Self::Echo(_) => "echo",
            Self::Chat(_) => "chat",
            Self::Broadcast(_) => "broadcast",
            Self::Storm(_) => "storm",
            Self::Slow(_) => "slow",
            Self::Mix(_) => "mix",
            Self::Large(_) => "large",
            Self::Soak(_) => "soak",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{planning::Slice, *};
    use crate::workload::plan::Plan;

    fn parse(arguments: &str) -> anyhow::Result<CommandLine> {
        Ok(CommandLine::try_parse_from(std::iter::once("loadgen").chain(arguments.split_whitespace()))?)
    }

    fn load(arguments: &str) -> anyhow::Result<Load> {
        match parse(arguments)?.command {
            Command::Load(load) => Ok(load),
            other => anyhow::bail!("{other:?}"),
        }
    }

    fn plan(arguments: &str) -> anyhow::Result<Plan> {
        load(arguments)?.plan(Slice::WHOLE)
    }

    #[test]
    fn the_interface_of_scripts_is_understood() {
        let chat = "chat --target ws://127.0.0.1:18080 --connections 2000 --rate 5000 --seconds 20 --json f";
        let made = plan(chat).unwrap();
        assert_eq!((made.connections, made.unit, made.rate_per_second), (2_000, 20, 5_000.0));
        assert_eq!((made.target.port(), made.host.as_str(), made.path.as_str()), (18_080, "127.0.0.1:18080", "/ws"));
        let idle = "idle --target ws://127.0.0.1:18080/x --connections 100000 --seconds 20 --json f";
        let made = plan(idle).unwrap();
        assert_eq!((load(idle).unwrap().threads(&made), made.path.as_str(), made.layers.len()), (6, "/x", 0));
    }

    #[test]
    fn every_load_has_a_plan() {
        for arguments in [
            "echo --connections 10 --seconds 1 --rate 100 --payload-bytes 16..4096",
            "echo --connections 10 --seconds 1 --in-flight 4",
            "chat --connections 100 --seconds 1 --rate 1 --group-size zipf:2..50:1.2 --text-bytes lognormal:80:1:4000",
            "broadcast --connections 1000 --seconds 1 --rate 10",
            "storm --connections 100 --kill-pid 7 --restart-command x",
            "storm --connections 100 --kill-pid 7 --kill-signal TERM --start-command x --return-rate 1000",
            "storm --connections 100 --stop-command x",
            "slow --connections 100 --rate 10 --share 0.2",
            "large",
            "large --members 1000 --online 1000 --viewers 0 --chat-connections 0",
            "large --members 200000 --online 0 --viewers 0 --senders 3",
            "soak --connections 100 --rate 10 --hours 0.5 --reconnects-per-second 2 --away-ms 500",
        ] {
            let load = load(arguments).unwrap();
            let made = load.plan(Slice::WHOLE).unwrap_or_else(|error| panic!("{arguments}: {error:#}"));
            assert!(made.connections >= 10 && load.threads(&made) >= 1, "{arguments}");
        }
    }

    #[test]
    fn a_soak_warms_up_for_longer() {
        let warmup = |arguments: &str| plan(arguments).unwrap().warmup_ns as f64 / 1e9;
        assert_eq!(warmup("chat --connections 10 --rate 1 --seconds 1"), 2.0);
        assert_eq!(warmup("soak --connections 10 --rate 1 --hours 8"), 60.0);
        assert!((warmup("soak --connections 10 --rate 1 --hours 0.01") - 3.6).abs() < 1e-6);
        assert_eq!(warmup("soak --connections 10 --rate 1 --hours 8 --warmup-seconds 3"), 3.0);
    }

    #[test]
    fn a_large_group_has_its_connections_beside_the_chat() {
        let made = plan("large --online 3000 --viewers 100 --chat-connections 200").unwrap();
        let large = made.large.as_ref().unwrap();
        assert_eq!((made.connections, large.connected, large.first, large.hinted), (3_200, 3_000, 200, true));
        assert_eq!((made.parts.len(), made.measured_ns), (7, made.parts.iter().map(|part| part.length_ns).sum()));
        // Only those who send; and a group that is told everything.
        let made = plan("large --members 10000 --online 0 --viewers 0").unwrap();
        let large = made.large.as_ref().unwrap();
        assert_eq!((large.connected, large.hinted, large.is_given_all(0)), (10, false, true));
        let load = load("large --online 100000").unwrap();
        assert_eq!(load.threads(&load.plan(Slice::WHOLE).unwrap()), 7);
        assert!(load.plan(Slice { index: 0, count: 2 }).is_err(), "its members are in one group");
    }

    #[test]
    fn processes_share_a_run_in_whole_groups() {
        let load = load("chat --connections 101 --rate 100 --seconds 1 --group-size 20").unwrap();
        let plans: Vec<Plan> = (0..3).map(|index| load.plan(Slice { index, count: 3 }).unwrap()).collect();
        let parts: Vec<_> = plans.iter().map(|plan| (plan.first_user, plan.connections)).collect();
        assert_eq!(parts, [(0, 40), (40, 40), (80, 21)]);
        assert!((plans.iter().map(|plan| plan.rate_per_second).sum::<f64>() - 100.0).abs() < 1e-9);
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
            "chat --connections 10 --rate 1 --seconds 1 --group-size 2..2000",
            "chat --connections 10 --rate 1 --seconds 1 --text-bytes 20000",
            "echo --connections 10 --seconds 1",
            "echo --connections 10 --seconds 1 --rate 1 --in-flight 1",
            "storm --connections 10 --restart-command x",
            "storm --connections 10 --kill-signal TERM",
            "storm --connections 10 --kill-pid 7 --kill-signal -9;x",
            "storm --connections 10 --kill-pid 7 --stop-command x",
            "storm --connections 10 --return-rate 0",
            "slow --connections 10 --rate 1 --share 1.5",
            "large --members 100 --online 101",
            "large --online 10 --viewers 11",
            "large --bursts 8",
            "large --burst 100000 --bursts 6",
            "large --burst-rate 0",
            "large --quiet-seconds 0",
            "large --chat-connections 1",
            "soak --connections 10 --rate 1 --hours 0",
            "soak --connections 10 --rate 1 --hours 1 --reconnects-per-second -1",
        ] {
            assert!(plan(arguments).is_err(), "{arguments}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        CommandLine::command().debug_assert();
    }
}
