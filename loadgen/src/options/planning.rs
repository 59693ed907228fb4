//! From options to a plan: everything is checked here, once, and whatever was left out is filled in.

use std::net::{SocketAddr, ToSocketAddrs};

use anyhow::{Context as _, bail, ensure};

use super::{CommonOptions, Load, Mix, SizeOptions, TlsOptions, TrafficOptions};
use crate::{
    arrivals::Spread,
    clock::{Nanoseconds, SECOND_NS},
    law::{Law, Sampler},
    layout::Layer,
    tls::{TlsClient, TlsVersion, Trust},
    token::Tokens,
    transport::{Scheme, Transport},
    workload::{
        echo::ECHO_BYTES_MIN,
        plan::{Echo, Habits, OPEN_END_NS, Part, Plan, Senders, threads_for},
    },
};

/// Where a node takes WebSockets, if the target names no path.
const PATH_DEFAULT: &str = "/ws";

/// Rows of a timeline: longer runs have longer rows.
const ROWS_MAX: u64 = 3_600;

/// The limits of the protocol.
const GROUP_MEMBERS: (u32, u32) = (2, 1_000);
const TEXT_BYTES: (u32, u32) = (1, 16_384);

/// Load before what is measured, if nothing is said.
const WARMUP_SECONDS: f64 = 2.0;

/// The same of a soak, as a part of its length and at most: caches fill, the first segments are merged.
const SOAK_WARMUP_PART: f64 = 0.1;
const SOAK_WARMUP_SECONDS_MAX: u64 = 60;

/// Longest echo.
const ECHO_BYTES_MAX: u32 = 1 << 20;

/// Which part of a run a process makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    /// Which one.
    pub index: u32,
    /// Of how many.
    pub count: u32,
}

impl Slice {
    /// All of it.
    pub const WHOLE: Self = Self { index: 0, count: 1 };
}

impl Load {
    /// Checks everything and makes the plan of a slice of the run.
    pub fn plan(&self, slice: Slice) -> anyhow::Result<Plan> {
        let mut plan = self.whole_plan()?;
        let whole_ns = plan.warmup_ns.saturating_add(plan.measured_ns);
        if plan.measured_ns < OPEN_END_NS {
            plan.row_ns = whole_ns.div_ceil(SECOND_NS).div_ceil(ROWS_MAX).max(1) * SECOND_NS;
        }
        ensure!(plan.large.is_none() || slice == Slice::WHOLE, "a large group's load is made by one process");
        take(&mut plan, slice);
        ensure!(plan.connections > 0, "fewer groups than agents");
        Ok(plan)
    }

    fn whole_plan(&self) -> anyhow::Result<Plan> {
        let common = self.common();
        let plan = |size: &SizeOptions| base(common, size.connections);
        match self {
            Self::Idle(options) => {
                let mut plan = plan(&options.size)?;
                plan.measured_ns = positive(options.seconds, "--seconds")?;
                Ok(plan)
            }
            Self::Echo(options) => self.echo_plan(options),
            Self::Chat(options) => {
                let mut plan = plan(&options.size)?;
                groups(&mut plan, options.group_size)?;
                traffic(&mut plan, &options.traffic, options.rate)?;
                plan.measured_ns = positive(options.seconds, "--seconds")?;
                plan.verifies = options.verify_history;
                Ok(plan)
            }
            Self::Broadcast(options) => {
                let mut plan = plan(&options.size)?;
                groups(&mut plan, options.group_size)?;
                traffic(&mut plan, &options.traffic, options.rate)?;
                plan.measured_ns = positive(options.seconds, "--seconds")?;
                plan.senders = Senders::First;
                Ok(plan)
            }
            Self::Storm(options) => {
                let mut plan = plan(&options.size)?;
                groups(&mut plan, options.group_size)?;
                traffic(&mut plan, &options.traffic, options.rate)?;
                positive(options.limit_seconds, "--limit-seconds")?;
                for seconds in [options.before_seconds, options.after_seconds, options.down_seconds] {
                    not_negative(seconds)?;
                }
                options.return_rate.map_or(Ok(0), |rate| positive(rate, "--return-rate"))?;
                ensure!(
                    options.kill_signal.bytes().all(|byte| byte.is_ascii_alphanumeric()),
                    "--kill-signal is a name or number, such as TERM"
                );
                plan.returns_per_second = options.return_rate;
                plan.measured_ns = OPEN_END_NS;
                plan.parts = ["before", "storm", "after"].map(|name| part(name, 0)).into();
                (plan.limits_attempts, plan.verifies) = (false, true);
                Ok(plan)
            }
            Self::Slow(options) => {
                let mut plan = plan(&options.size)?;
                groups(&mut plan, options.group_size)?;
                traffic(&mut plan, &options.traffic, options.rate)?;
                ensure!((0.0..=0.9).contains(&options.share), "--share must be 0 to 0.9");
                (plan.slow_share, plan.slow_receive_bytes) = (options.share, Some(options.receive_bytes));
                plan.parts = vec![
                    part("quiet", positive(options.quiet_seconds, "--quiet-seconds")?),
                    part("slow", positive(options.slow_seconds, "--slow-seconds")?),
                    part("recovery", not_negative(options.recovery_seconds)?),
                ];
                plan.measured_ns = plan.parts.iter().map(|part| part.length_ns).sum();
                plan.verifies = true;
                Ok(plan)
            }
            Self::Large(options) => options.plan(),
            Self::Mix(options) => mix_plan(common, &Mix::from_file(&options.file)?),
            Self::Soak(options) => {
                let mut plan = plan(&options.size)?;
                groups(&mut plan, options.group_size)?;
                traffic(&mut plan, &options.traffic, options.rate)?;
                plan.measured_ns = positive(options.hours * 3_600.0, "--hours")?;
                if options.traffic.warmup_seconds.is_none() {
                    let part = (plan.measured_ns as f64 * SOAK_WARMUP_PART) as Nanoseconds;
                    plan.warmup_ns = part.min(SOAK_WARMUP_SECONDS_MAX * SECOND_NS);
                }
                plan.verifies = true;
                plan.habits.reconnects_per_second = reconnects(options.reconnects_per_second)?;
                plan.habits.away_ms = Sampler::new(options.away_ms);
                Ok(plan)
            }
        }
    }

    fn echo_plan(&self, options: &super::EchoOptions) -> anyhow::Result<Plan> {
        let mut plan = base(&options.common, options.size.connections)?;
        let (min, max) = options.payload_bytes.bounds();
        ensure!((ECHO_BYTES_MIN..=ECHO_BYTES_MAX).contains(&max), "--payload-bytes: 16 to {ECHO_BYTES_MAX}");
        ensure!(
            !matches!(options.payload_bytes, Law::Fixed(_)) || min >= ECHO_BYTES_MIN,
            "--payload-bytes: 16 at least"
        );
        plan.echo = Some(Echo { in_flight: options.in_flight });
        plan.text_bytes = Sampler::new(options.payload_bytes);
        plan.rate_per_second = rate(options.rate.unwrap_or(0.0))?;
        plan.spread = options.arrivals;
        plan.ramp_ns = not_negative(options.ramp_seconds)?;
        plan.warmup_ns = not_negative(options.warmup_seconds)?;
        plan.measured_ns = positive(options.seconds, "--seconds")?;
        not_negative(options.drain_seconds)?;
        Ok(plan)
    }

    /// How many client threads.
    #[must_use]
    pub fn threads(&self, plan: &Plan) -> u32 {
        let needed = match &plan.large {
            Some(large) => threads_for(large.first) + threads_for(large.connected),
            None => threads_for(plan.connections),
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from) as u32;
        self.common().threads.unwrap_or(cores / 4).max(needed).max(1)
    }

    /// How long to wait at the end.
    pub fn drain_ns(&self) -> anyhow::Result<Nanoseconds> {
        not_negative(match self {
            Self::Idle(_) => 0.0,
            Self::Echo(options) => options.drain_seconds,
            Self::Chat(options) => options.traffic.drain_seconds,
            Self::Broadcast(options) => options.traffic.drain_seconds,
            Self::Storm(options) => options.traffic.drain_seconds,
            Self::Slow(options) => options.traffic.drain_seconds,
            Self::Mix(options) => Mix::from_file(&options.file)?.drain_seconds,
            Self::Large(options) => options.traffic.drain_seconds,
            Self::Soak(options) => options.traffic.drain_seconds,
        })
    }
}

fn mix_plan(common: &CommonOptions, mix: &Mix) -> anyhow::Result<Plan> {
    let mut plan = base(common, mix.connections)?;
    within(mix.conversations.group_size.0, GROUP_MEMBERS, "group_size")?;
    within(mix.text_bytes.0, TEXT_BYTES, "text_bytes")?;
    plan.layers = mix.layers();
    plan.unit = 2;
    plan.text_bytes = Sampler::new(mix.text_bytes.0);
    plan.spread = Spread::Poisson;
    plan.parts = mix.parts();
    plan.measured_ns = plan.parts.iter().map(|part| part.length_ns).sum();
    plan.habits = mix.habits();
    let highest = |part: &Part| part.rates.map_or(0.0, |(from, to)| from.max(to));
    plan.rate_per_second = plan.parts.iter().map(highest).fold(0.0, f64::max);
    plan.verifies = true;
    Ok(plan)
}

/// A plan without any traffic.
pub(super) fn base(common: &CommonOptions, connections: u32) -> anyhow::Result<Plan> {
    common.connect_rate.map_or(Ok(0), |rate| positive(rate, "--connect-rate"))?;
    let (scheme, host, target, path) = parse_target(&common.target)?;
    let transport = transport(&common.tls, scheme, &host)?;
    let tokens = match &common.token_key {
        Some(file) => Tokens::from_key_file(file, &common.token_audience)?,
        None => Tokens::Development,
    };
    let drawn = random_u64();
    let never = || Sampler::new(Law::Fixed(0));
    Ok(Plan {
        target,
        host,
        path,
        transport,
        encoding: common.encoding.encoding(),
        tokens,
        // Drawn seeds fit a number of any language's JSON.
        seed: common.seed.unwrap_or(drawn >> 32),
        nonce: drawn as u32,
        connections,
        first_user: 0,
        echo: None,
        large: None,
        layers: Vec::new(),
        unit: 1,
        senders: Senders::Anyone,
        text_bytes: never(),
        rate_per_second: 0.0,
        spread: Spread::Fixed,
        ramp_ns: 0,
        warmup_ns: 0,
        measured_ns: 0,
        parts: Vec::new(),
        connects_per_second: common.connect_rate,
        limits_attempts: true,
        returns_per_second: None,
        verifies: false,
        slow_share: 0.0,
        slow_receive_bytes: None,
        habits: Habits {
            active_share: 1.0,
            direct_share: 0.0,
            reply_share: 0.0,
            think_ms: never(),
            reconnects_per_second: 0.0,
            away_ms: never(),
            watch: 0,
        },
        row_ns: SECOND_NS,
    })
}

/// Reconnects a second.
pub(super) fn reconnects(per_second: f64) -> anyhow::Result<f64> {
    ensure!((0.0..1e6).contains(&per_second), "reconnects per second: 0 to a million");
    Ok(per_second)
}

pub(super) fn groups(plan: &mut Plan, size: Law) -> anyhow::Result<()> {
    ensure!(plan.connections >= 2, "a chat needs two connections at least");
    within(size, GROUP_MEMBERS, "--group-size")?;
    let size = match size {
        Law::Fixed(size) => Law::Fixed(size.min(plan.connections)),
        other => other,
    };
    plan.unit = size.fixed().unwrap_or(1);
    plan.layers = vec![Layer::Groups(Sampler::new(size))];
    Ok(())
}

pub(super) fn traffic(plan: &mut Plan, options: &TrafficOptions, messages_per_second: f64) -> anyhow::Result<()> {
    within(options.text_bytes, TEXT_BYTES, "--text-bytes")?;
    plan.text_bytes = Sampler::new(options.text_bytes);
    plan.rate_per_second = rate(messages_per_second)?;
    plan.spread = options.arrivals;
    plan.ramp_ns = not_negative(options.ramp_seconds)?;
    plan.warmup_ns = not_negative(options.warmup_seconds.unwrap_or(WARMUP_SECONDS))?;
    not_negative(options.drain_seconds)?;
    Ok(())
}

/// Cuts a process's slice out of the plan, in whole groups.
fn take(plan: &mut Plan, slice: Slice) {
    let units = plan.connections.div_ceil(plan.unit.max(1));
    let bound = |index: u32| {
        let unit = (u64::from(units) * u64::from(index)).div_ceil(u64::from(slice.count)) as u32;
        (unit * plan.unit.max(1)).min(plan.connections)
    };
    let (first, end) = (bound(slice.index), bound(slice.index + 1));
    let part = f64::from(end - first) / f64::from(plan.connections);
    (plan.first_user, plan.connections) = (first, end - first);
    // Names of groups and messages must differ between processes.
    plan.nonce = plan.nonce.wrapping_add(slice.index);
    plan.rate_per_second *= part;
    plan.connects_per_second = plan.connects_per_second.map(|rate| rate * part);
    plan.habits.reconnects_per_second *= part;
    for phase in &mut plan.parts {
        phase.rates = phase.rates.map(|(from, to)| (from * part, to * part));
    }
}

fn part(name: &str, length_ns: Nanoseconds) -> Part {
    Part { name: name.to_owned(), length_ns, rates: None }
}

fn within(law: Law, (lowest, highest): (u32, u32), name: &str) -> anyhow::Result<()> {
    let (min, max) = law.bounds();
    // What a log-normal law has below is raised when it is drawn.
    let min = if matches!(law, Law::LogNormal { .. }) { lowest } else { min };
    ensure!(min >= lowest && max <= highest, "{name} must be {lowest} to {highest}: {law}");
    Ok(())
}

fn rate(rate: f64) -> anyhow::Result<f64> {
    ensure!(rate >= 0.0 && rate.is_finite(), "--rate must not be negative");
    Ok(rate)
}

fn nanoseconds(seconds: f64) -> Nanoseconds {
    (seconds * SECOND_NS as f64) as Nanoseconds
}

pub(super) fn not_negative(seconds: f64) -> anyhow::Result<Nanoseconds> {
    ensure!(seconds >= 0.0 && seconds.is_finite(), "a time must not be negative");
    Ok(nanoseconds(seconds))
}

pub(super) fn positive(value: f64, name: &str) -> anyhow::Result<Nanoseconds> {
    ensure!(value > 0.0 && value.is_finite(), "{name} must be more than 0");
    Ok(nanoseconds(value))
}

/// TLS, if the scheme says so; its options without it are a mistake.
fn transport(options: &TlsOptions, scheme: Scheme, host: &str) -> anyhow::Result<Transport> {
    let TlsOptions { tls_ca, tls_insecure, tls_server_name, tls_version, tls_resume } = options;
    if scheme == Scheme::Plain {
        let is_given = tls_ca.is_some() || *tls_insecure || tls_server_name.is_some() || *tls_resume;
        ensure!(
            !is_given && *tls_version == TlsVersion::Any,
            "--tls-… options need a --target that begins with wss://"
        );
        return Ok(Transport::Plain);
    }
    let trust = match (tls_ca, tls_insecure) {
        (Some(file), _) => Trust::Roots(file),
        (None, true) => Trust::Anybody,
        (None, false) => bail!(
            "wss:// needs to know whom to trust: --tls-ca FILE with the PEM certificate of the authority that signed the \
             node's, or --tls-insecure to trust any"
        ),
    };
    let name = tls_server_name.as_deref().unwrap_or_else(|| without_port(host));
    Ok(Transport::Tls(TlsClient::new(trust, name, *tls_version, *tls_resume)?.into()))
}

/// The host of HOST:PORT; an IPv6 address loses its brackets.
fn without_port(host: &str) -> &str {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name)
}

fn parse_target(target: &str) -> anyhow::Result<(Scheme, String, SocketAddr, String)> {
    let Some((scheme, rest)) = Scheme::of(target) else {
        bail!("--target must begin with ws:// or wss://: {target}");
    };
    let (host, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
    let path = if matches!(path, "" | "/") { PATH_DEFAULT } else { path };
    let mut addresses = host.to_socket_addrs().with_context(|| format!("--target names no HOST:PORT: {target}"))?;
    let address = addresses.next().with_context(|| format!("{host} has no address"))?;
    Ok((scheme, host.to_owned(), address, path.to_owned()))
}

/// A number from the operating system's randomness, by way of the standard library's hash keys.
fn random_u64() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(std::process::id())
}
