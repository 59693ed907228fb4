//! The outcome of a run, for machines: [`Report`] is what `--json` writes. [`summary`] and [`html`] tell it to people.
//!
//! Fields are added, never renamed; [`SCHEMA`] changes when a field's meaning does. docs/loadgen.md has the table.

pub mod compare;
pub mod html;
pub mod large;
pub mod parts;
pub mod plots;
mod special;
pub mod summary;
mod tls;

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::{
    arrivals::Spread, checker::Violations, machine::Machine, measure::Second, run::outcome::RowSample,
    soak::SoakFigures, trials::Trials,
};
use large::LargeFigures;
use parts::{PartFigures, SlowFigures, StormFigures, VerifiedFigures};
pub use tls::{Handshakes, TlsFigures};

/// The form of the JSON report.
pub const SCHEMA: &str = "antiphon-loadgen/1";

/// Lateness at p99 beyond which a run says more about the generator than about the node.
pub const LATE_US_MAX: u64 = 10_000;

/// A run's outcome.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// Of the generator.
    pub version: &'static str,
    /// The revision that it was built from.
    pub revision: &'static str,
    /// `chat`, `idle`, …
    pub command: &'static str,
    /// When it began, in milliseconds since the Unix epoch.
    pub started_unix_ms: u64,
    /// Decides names and arrivals.
    pub seed: u64,
    /// What was asked for.
    pub options: RunOptions,
    /// Where it ran.
    pub machine: Machine,
    /// Whether the figures can be believed; the invariants can be in any case.
    pub valid: bool,
    /// Why not.
    pub invalid_because: Vec<String>,
    /// What the run was made for and did not come to pass, beside violations.
    pub failed_because: Vec<String>,
    /// What broke.
    pub violations: Violations,
    /// What was held.
    pub connections: ConnectionFigures,
    /// What was sent.
    pub messages: MessageFigures,
    /// Rates in the measured part.
    pub throughput: Throughput,
    /// Latencies, in microseconds.
    pub latency_us: Latency,
    /// With `wss://`: what the handshakes came to.
    pub tls: Option<TlsFigures>,
    /// What the node used, if it was found on this machine.
    pub server: Option<ServerFigures>,
    /// Kernel memory of the connections, both ends.
    pub kernel: KernelFigures,
    /// What the generator itself used, and how late it was.
    pub generator: GeneratorFigures,
    /// Errors, with how often they came.
    pub errors: BTreeMap<String, u64>,
    /// Second by second, the warm-up with it.
    pub timeline: Vec<Row>,
    /// Curves for the plots: quantile and microseconds.
    pub percentiles: Percentiles,
    /// Named stretches of the load: of `slow`, `storm`, `mix` and `large`.
    pub parts: Vec<PartFigures>,
    /// What the histories had, if they were read.
    pub verified: Option<VerifiedFigures>,
    /// `storm`: how the sessions came back.
    pub storm: Option<StormFigures>,
    /// `slow`: what it did to the others.
    pub slow: Option<SlowFigures>,
    /// `large`: what became of the group, and of the chat beside it.
    pub large: Option<LargeFigures>,
    /// `soak`: what drifted.
    pub soak: Option<SoakFigures>,
    /// With `--trials`: each of them, and the spread. The rest of the report is of the trial in the middle.
    pub trials: Option<Trials>,
}

/// What was asked for.
#[derive(Debug, Clone, Serialize)]
pub struct RunOptions {
    /// The node.
    pub target: String,
    /// How many connections.
    pub connections: u32,
    /// Messages a second.
    pub rate: f64,
    /// The measured part.
    pub seconds: f64,
    /// Before it.
    pub warmup_seconds: f64,
    /// Members of a group.
    pub group_size: u32,
    /// Length of a text.
    pub text_bytes: usize,
    /// How arrivals are spread.
    pub arrivals: Spread,
    /// How frames are encoded.
    pub encoding: String,
    /// Client threads.
    pub threads: u32,
    /// Processes that made the run together.
    pub processes: u32,
    /// `echo`: messages of a connection under way at once, in a closed loop.
    pub in_flight: Option<u32>,
    /// The law of group sizes.
    pub group_size_law: String,
    /// The law of lengths.
    pub text_bytes_law: String,
    /// All of it, as it was given.
    pub command_line: Vec<String>,
}

/// What was held.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ConnectionFigures {
    /// Asked for.
    pub requested: u64,
    /// Welcomed at least once.
    pub established: u64,
    /// Established ones that ended before the end of the run.
    pub lost: u64,
    /// Came back and were given what was missing.
    pub resumed: u64,
    /// Up at the end.
    pub up_at_end: u64,
    /// Ended by the generator, as a mix says.
    pub left: u64,
    /// Attempts without a welcome.
    pub failed_attempts: u64,
    /// Resumes that the server could not do.
    pub resets: u64,
    /// From the first attempt to the last establishment.
    pub establish_seconds: f64,
    /// Established a second meanwhile.
    pub established_per_second: f64,
}

/// What was sent, the warm-up with it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct MessageFigures {
    /// Whose time came.
    pub offered: u64,
    /// Acknowledged.
    pub acked: u64,
    /// Never acknowledged by the end of the drain.
    pub unacked: u64,
    /// Not sent, as too many were under way.
    pub skipped: u64,
    /// Refused for good.
    pub rejected: u64,
    /// Sends repeated, or only then possible, after a reconnect or a temporary refusal.
    pub retried: u64,
    /// Acknowledgements that say that it was a retry.
    pub acked_as_duplicate: u64,
    /// Arrivals at others than the sender.
    pub delivered: u64,
    /// Conversations that had to be paged after a resume.
    pub too_far: u64,
    /// Frames that could not be read or did not belong there.
    pub protocol_errors: u64,
}

/// Rates in the measured part.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Throughput {
    /// Messages whose time came.
    pub offered_per_second: f64,
    /// Acknowledgements that came.
    pub acked_per_second: f64,
    /// Arrivals at others than the sender.
    pub delivered_per_second: f64,
}

/// Percentiles of one latency.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Quantiles {
    /// How many.
    pub count: u64,
    /// The mean.
    pub mean: f64,
    /// Half are at or below.
    pub p50: u64,
    /// 90 % are at or below.
    pub p90: u64,
    /// 99 % are at or below.
    pub p99: u64,
    /// 99.9 % are at or below.
    pub p999: u64,
    /// 99.99 % are at or below.
    pub p9999: u64,
    /// The highest.
    pub max: u64,
}

impl Quantiles {
    /// Of a histogram.
    #[must_use]
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile);
        let mean = (histogram.mean() * 10.0).round() / 10.0;
        let (p50, p90, p99, p999, p9999) = (at(0.5), at(0.9), at(0.99), at(0.999), at(0.9999));
        Self { count: histogram.len(), mean, p50, p90, p99, p999, p9999, max: histogram.max() }
    }
}

/// All latencies.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Latency {
    /// Intended time to acknowledgement.
    pub send_to_ack: Quantiles,
    /// Intended time to arrival, at each member but the sender.
    pub send_to_deliver: Quantiles,
    /// First attempt to welcome.
    pub connect: Quantiles,
    /// Loss to caught up.
    pub resume: Quantiles,
    /// Somebody's coming or going to being told of it.
    pub presence: Quantiles,
}

/// What the node used.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ServerFigures {
    /// Its process.
    pub pid: u32,
    /// Resident memory at the end of the load.
    pub rss_bytes: u64,
    /// User and system time over the load (`idle`: over the idle part).
    pub cpu_seconds: f64,
    /// That over the load's length: 1.0 is one core.
    pub cpu_cores: f64,
    /// Before the first connection.
    pub rss_bytes_before: u64,
    /// With all connections, before the load.
    pub rss_bytes_after: u64,
    /// The difference by connection.
    pub bytes_per_connection: f64,
    /// User and system time while connections were established.
    pub connect_cpu_seconds: f64,
}

/// Kernel memory: slabs.
#[derive(Debug, Clone, Default, Serialize)]
pub struct KernelFigures {
    /// Before the first connection.
    pub slab_bytes_before: u64,
    /// With all connections.
    pub slab_bytes_after: u64,
    /// The difference by connection; both of its ends, if both are here, and whatever else happened.
    pub slab_bytes_per_connection: f64,
}

/// The generator about itself.
#[derive(Debug, Clone, Default, Serialize)]
pub struct GeneratorFigures {
    /// Client threads.
    pub threads: u32,
    /// User and system time over the load.
    pub cpu_seconds: f64,
    /// That over the load's length.
    pub cpu_cores: f64,
    /// Resident memory at the end.
    pub rss_bytes: u64,
    /// The structures of a connection, which stand before the first one, and the growth of resident memory while connections
    /// were established, by connection.
    pub bytes_per_connection: f64,
    /// Of these, the sizes of the structures.
    pub bytes_per_connection_structures: usize,
    /// How much later than intended messages were handed to the kernel.
    pub late_us: Quantiles,
    /// How much later than it wanted a client thread was back at work.
    pub lag_us: Quantiles,
}

/// One second of the load.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Row {
    /// From the start of the load, the warm-up with it. In runs of more than an hour rows are some seconds apart.
    pub second: u64,
    /// Messages whose time came.
    pub offered: u64,
    /// Acknowledgements that came.
    pub acked: u64,
    /// Arrivals at others than the sender.
    pub delivered: u64,
    /// Of these acknowledgements.
    pub send_to_ack_p50_us: u64,
    /// Of these acknowledgements.
    pub send_to_ack_p99_us: u64,
    /// Of these arrivals.
    pub send_to_deliver_p50_us: u64,
    /// Of these arrivals.
    pub send_to_deliver_p99_us: u64,
    /// Sessions that are welcome.
    pub up: u64,
    /// Of these, those that have been given everything that they missed.
    pub live: u64,
    /// Resident memory of the node.
    pub server_rss_bytes: Option<u64>,
    /// CPU of the node since the row before.
    pub server_cpu_cores: Option<f64>,
    /// CPU of the generator since the row before.
    pub generator_cpu_cores: f64,
}

impl Row {
    /// Of a row's samples; rows are `row_seconds` long.
    #[must_use]
    pub fn of(second: &Second, sample: &RowSample, row_seconds: u64) -> Self {
        let row_seconds = row_seconds.max(1);
        let cores = |cores: f64| (cores * 1_000.0).round() / 1_000.0;
        Self {
            second: second.index * row_seconds,
            offered: second.offered / row_seconds,
            acked: second.acked / row_seconds,
            delivered: second.delivered / row_seconds,
            up: sample.up,
            live: sample.live,
            server_rss_bytes: sample.server_rss_bytes,
            server_cpu_cores: sample.server_cpu_cores.map(cores),
            generator_cpu_cores: cores(sample.generator_cpu_cores),
            send_to_ack_p50_us: second.send_to_ack.value_at_quantile(0.5),
            send_to_ack_p99_us: second.send_to_ack.value_at_quantile(0.99),
            send_to_deliver_p50_us: second.send_to_deliver.value_at_quantile(0.5),
            send_to_deliver_p99_us: second.send_to_deliver.value_at_quantile(0.99),
        }
    }
}

/// Curves: (quantile, microseconds), dense towards 1.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Percentiles {
    /// Intended time to acknowledgement.
    pub send_to_ack: Vec<(f64, u64)>,
    /// Intended time to arrival.
    pub send_to_deliver: Vec<(f64, u64)>,
    /// First attempt to welcome.
    pub connect: Vec<(f64, u64)>,
    /// Loss to caught up.
    pub resume: Vec<(f64, u64)>,
    /// Somebody's coming or going to being told of it.
    pub presence: Vec<(f64, u64)>,
    /// How late the generator was.
    pub late: Vec<(f64, u64)>,
}

/// A curve of a histogram.
#[must_use]
pub fn curve(histogram: &Histogram<u64>) -> Vec<(f64, u64)> {
    // Eight steps for each halving of what is left, as HdrHistogram's own percentile files have it.
    let points = histogram.iter_quantiles(8).map(|value| (value.quantile_iterated_to(), value.value_iterated_to()));
    // What is beyond the last single value is no measurement.
    let quantile_max = 1.0 - 1.0 / histogram.len().max(1) as f64;
    points.take_while(|&(quantile, _)| quantile <= quantile_max).collect()
}

impl Report {
    /// Whether the exit code is 0: no violation, all connections were there, and what the run was made for came to pass.
    #[must_use]
    pub fn passed(&self) -> bool {
        let is_whole = self.connections.established >= self.connections.requested;
        self.violations.total() == 0 && is_whole && self.failed_because.is_empty()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::measure::{Latencies, record};

    /// A report with something in every figure.
    pub(crate) fn sample() -> Report {
        let mut latencies = Latencies::new(0);
        for step in 1..20_000_u64 {
            let microseconds = 300 + (step * 7919) % 900 + if step % 500 == 0 { 20_000 + step } else { 0 };
            record(&mut latencies.send_to_ack, 0, microseconds * 1_000);
            record(&mut latencies.send_to_deliver, 0, microseconds * 1_300);
            record(&mut latencies.late, 0, (step % 90) * 1_000);
            record(&mut latencies.connect, 0, microseconds * 9_000);
        }
        let rows = (0..22).map(|second| Row {
            second,
            offered: 5_000 + second * 7 % 90,
            acked: 4_990 + second * 11 % 120,
            delivered: 95_000 + second * 131 % 900,
            send_to_ack_p50_us: 600 + second * 13 % 50,
            send_to_ack_p99_us: 1_800 + second * 717 % 3_000,
            send_to_deliver_p50_us: 800 + second * 17 % 50,
            send_to_deliver_p99_us: 2_500 + second * 917 % 4_000,
            up: 2_000,
            live: 2_000,
            server_rss_bytes: Some(60_000_000 + second * 1_000),
            server_cpu_cores: Some(0.6),
            generator_cpu_cores: 0.4,
        });
        Report {
            schema: SCHEMA,
            version: "0.1.0",
            revision: "0123456789ab",
            command: "chat",
            started_unix_ms: 1_790_000_000_000,
            seed: 7,
            options: RunOptions {
                target: "ws://127.0.0.1:18080".into(),
                connections: 2_000,
                rate: 5_000.0,
                seconds: 20.0,
                warmup_seconds: 2.0,
                group_size: 20,
                text_bytes: 100,
                arrivals: Spread::Poisson,
                encoding: "rkyv".into(),
                threads: 1,
                processes: 1,
                in_flight: None,
                group_size_law: "20".into(),
                text_bytes_law: "100".into(),
                command_line: Vec::new(),
            },
            machine: Machine::this(),
            valid: true,
            invalid_because: Vec::new(),
            failed_because: Vec::new(),
            violations: Violations::default(),
            connections: ConnectionFigures {
                requested: 2_000,
                established: 2_000,
                up_at_end: 2_000,
                ..Default::default()
            },
            messages: MessageFigures { offered: 110_000, acked: 110_000, delivered: 2_090_000, ..Default::default() },
            throughput: Throughput {
                offered_per_second: 5_001.2,
                acked_per_second: 5_000.9,
                delivered_per_second: 95_017.1,
            },
            latency_us: Latency {
                send_to_ack: Quantiles::of(&latencies.send_to_ack),
                send_to_deliver: Quantiles::of(&latencies.send_to_deliver),
                connect: Quantiles::of(&latencies.connect),
                resume: Quantiles::default(),
                presence: Quantiles::default(),
            },
            tls: None,
            server: Some(ServerFigures {
                pid: 1,
                rss_bytes: 60_000_000,
                cpu_seconds: 12.0,
                cpu_cores: 0.6,
                ..Default::default()
            }),
            kernel: KernelFigures::default(),
            generator: GeneratorFigures { threads: 1, late_us: Quantiles::of(&latencies.late), ..Default::default() },
            errors: BTreeMap::from([("rate_limited: too <many>".to_owned(), 3)]),
            timeline: rows.collect(),
            percentiles: Percentiles {
                send_to_ack: curve(&latencies.send_to_ack),
                send_to_deliver: curve(&latencies.send_to_deliver),
                connect: curve(&latencies.connect),
                resume: Vec::new(),
                presence: Vec::new(),
                late: curve(&latencies.late),
            },
            parts: Vec::new(),
            verified: None,
            storm: None,
            slow: None,
            large: None,
            soak: None,
            trials: None,
        }
    }

    #[test]
    fn the_fields_that_scripts_rely_on_are_there() {
        let json = serde_json::to_value(sample()).unwrap();
        for (group, names) in [
            ("/violations", "order gap duplicate lost"),
            ("/latency_us/send_to_ack", "p50 p99 p999 max"),
            ("/latency_us/send_to_deliver", "p50 p99 p999 max"),
            ("/throughput", "offered_per_second acked_per_second delivered_per_second"),
            ("/connections", "requested established lost"),
            ("/server", "rss_bytes cpu_seconds rss_bytes_before rss_bytes_after bytes_per_connection"),
            ("/generator/late_us", "p99"),
            ("", "machine seed version schema valid"),
        ] {
            let group = json.pointer(group).unwrap();
            names.split(' ').for_each(|name| assert!(group.get(name).is_some(), "{name}"));
        }
    }

    #[test]
    fn any_violation_or_missing_connection_fails_the_run() {
        assert!(sample().passed());
        let mut report = sample();
        report.connections.established -= 1;
        assert!(!report.passed());
        for set in [
            |violations: &mut Violations| violations.order = 1,
            |violations: &mut Violations| violations.gap = 1,
            |violations: &mut Violations| violations.duplicate = 1,
            |violations: &mut Violations| violations.lost = 1,
            |violations: &mut Violations| violations.mismatch = 1,
            |violations: &mut Violations| violations.foreign = 1,
            |violations: &mut Violations| violations.missing = 1,
            |violations: &mut Violations| violations.presence = 1,
        ] {
            let mut report = sample();
            set(&mut report.violations);
            assert!(!report.passed());
        }
        let mut report = sample();
        report.failed_because.push("a trend".to_owned());
        assert!(!report.passed());
    }
}
