//! What a node tells about itself: counters that shards raise and `/metrics` reads.
//!
//! Invariants: each [`ShardMetrics`] is written by its own shard only, so a counter is raised by a plain load and store without a
//! locked instruction, and lies on cache lines of its own, so that shards don't disturb each other. Readers see values that are
//! each right, but not all of one moment. Must not do: allocate or lock on a shard's path.

mod figures;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed},
    },
};

use antiphon_wire::codes::ErrorCode;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet, text::encode},
    metrics::MetricType,
    registry::{Registry, Unit},
};

use crate::core::pressure::Pressure;

/// A number that only rises. One writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Raises it.
    pub fn add(&self, count: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(count), Relaxed);
    }

    /// Puts it where its owner's own count is.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// Where it is.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that rises and falls. One writer.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Puts it to a value.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// Where it is.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Upper bounds of a [`LatencyHistogram`]'s buckets, in microseconds: a flush takes some 50 µs on a good disk, seconds on a sick one.
pub const LATENCY_BOUNDS_US: [u64; 18] = [
    50, 100, 150, 200, 300, 500, 750, 1_000, 1_500, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000,
    5_000_000,
];

/// How often something took how long. One writer.
#[derive(Debug, Default)]
pub struct LatencyHistogram {
    buckets: [Counter; LATENCY_BOUNDS_US.len() + 1],
    sum_us: Counter,
}

impl LatencyHistogram {
    /// Counts `times` events that took `latency_us` each.
    pub fn observe(&self, latency_us: u64, times: u64) {
        self.buckets[LATENCY_BOUNDS_US.partition_point(|bound| *bound < latency_us)].add(times);
        self.sum_us.add(latency_us.saturating_mul(times));
    }

    /// How many events were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(Counter::get).sum()
    }
}

/// The number of counters for [`ErrorCode`]s: an error is counted at the index of its number; 0 stays unused.
const ERROR_SLOTS: usize = ErrorCode::ALL.len() + 1;

macro_rules! shard_metrics {
    (
        counters { $($(#[doc = $counter_doc:literal])* $counter:ident,)* }
        gauges { $($(#[doc = $gauge_doc:literal])* $gauge:ident,)* }
        histograms { $($(#[doc = $histogram_doc:literal])* $histogram:ident,)* }
    ) => {
        /// One shard's figures. Only that shard writes them.
        // Two cache lines: processors prefetch them in pairs.
        #[repr(align(128))]
        #[derive(Debug, Default)]
        pub struct ShardMetrics {
            $($(#[doc = $counter_doc])* pub $counter: Counter,)*
            $($(#[doc = $gauge_doc])* pub $gauge: Gauge,)*
            $($(#[doc = $histogram_doc])* pub $histogram: LatencyHistogram,)*
            errors: [Counter; ERROR_SLOTS],
        }

        /// Name, help, and where in a shard's figures.
        type Row<T> = (&'static str, &'static str, fn(&ShardMetrics) -> &T);
        const COUNTERS: &[Row<Counter>] =
            &[$((stringify!($counter), concat!($($counter_doc),*), |shard| &shard.$counter),)*];
        const GAUGES: &[Row<Gauge>] =
            &[$((stringify!($gauge), concat!($($gauge_doc),*), |shard| &shard.$gauge),)*];
        const HISTOGRAMS: &[Row<LatencyHistogram>] =
            &[$((stringify!($histogram), concat!($($histogram_doc),*), |shard| &shard.$histogram),)*];
    };
}

shard_metrics! {
    counters {
        /// Connections accepted
        connections_accepted,
        /// Connections refused, for whatever reason
        connections_refused,
        /// Connections refused because the shard holds as many as it may
        refused_full,
        /// Connections refused because the node is going away
        refused_draining,
        /// Connections refused because the node is near its memory limit
        refused_memory,
        /// Connections refused by the node's rate
        refused_node_rate,
        /// Connections refused by their address's rate
        refused_address_rate,
        /// Connections refused because their address holds as many as it may
        refused_address_connections,
        /// Refused connections that were closed without an answer, because too many were being answered
        refused_unanswered,
        /// Connections of addresses that shared a bucket, for want of a place
        addresses_untracked,
        /// Words of trusted proxies on their clients that made no sense
        forwarded_malformed,
        /// Headers of the PROXY protocol that were taken
        proxy_headers,
        /// Connections closed for what came in place of a header of the PROXY protocol
        proxy_headers_refused,
        /// Connections closed because no header of the PROXY protocol came in time
        proxy_headers_timed_out,
        /// HTTP requests that were not a good upgrade
        upgrades_refused,
        /// Connections closed because their request's head was not whole in time
        heads_timed_out,
        /// Connections closed because connect did not succeed in time
        connects_timed_out,
        /// Connections closed for more frames a second than they may send
        frames_limited,
        /// WebSocket protocol violations
        protocol_errors,
        /// TLS handshakes with a signature
        tls_handshakes_full,
        /// TLS handshakes by a ticket
        tls_handshakes_resumed,
        /// TLS handshakes that failed: garbage, no common version or cipher suite, an alert of the client
        tls_handshakes_failed,
        /// TLS handshakes cut off: refused by admission, out of time, or the client went away
        tls_handshakes_abandoned,
        /// Open TLS sessions that broke: a record that cannot be decrypted, a violation of the protocol
        tls_sessions_broken,
        /// Sessions that ended because nothing was heard of them
        sessions_silent,
        /// Sessions replaced by a second connection of the same device
        sessions_replaced,
        /// Sessions ended, or not let in, because their device was logged out
        sessions_revoked,
        /// Sessions not let in because as many devices of their user were connected as may be
        sessions_beyond_devices,
        /// Tokens that were not accepted
        tokens_refused,
        /// Connections closed because the client read too slowly
        slow_consumers,
        /// Client frames read
        frames_in,
        /// Server frames handed to the kernel
        frames_out,
        /// Bytes read from connections
        bytes_in,
        /// Bytes handed to the kernel for connections
        bytes_out,
        /// Sends acknowledged as durable
        acks,
        /// Sends answered as a repetition
        duplicates,
        /// Messages queued to a recipient's connection
        deliveries,
        /// Frames handed to other shards
        mesh_frames,
        /// Times that a full mesh queue made this shard wait
        mesh_waits,
        /// Times that the ring was entered
        ring_enters,
        /// Completions that the ring gave
        ring_completions,
        /// Receives that found no free buffer and were armed again
        ring_buffers_exhausted,
        /// Log writes that became durable
        commits,
        /// Records in them
        commit_records,
        /// Bytes in them, padding included
        commit_bytes,
        /// Blocks found in the cache
        cache_hits,
        /// Blocks that had to be read
        cache_misses,
        /// Compactions ended
        compactions,
        /// Damaged blocks of segments that reads met, each as often as it was met
        blocks_damaged,
        /// Whole readings of all segments for their checksums alone
        scrub_rounds,
        /// Bytes read for that
        scrub_bytes,
        /// Damaged places that they found, each again with each reading
        scrub_damaged,
        /// Bytes that flushes and compactions wrote
        compaction_bytes,
    }
    gauges {
        /// Open connections
        connections,
        /// TLS handshakes that wait for their turn
        tls_handshakes_waiting,
        /// Sessions that have connected
        sessions,
        /// Sessions that wait for a lane's catch-up
        sessions_attaching,
        /// Frames waiting in the mesh queues to this shard
        mesh_queue_frames,
        /// Bytes waiting to be sent to clients
        outbound_queue_bytes,
        /// Users that connections watch, each as often as it is watched
        presence_subscriptions,
        /// Engine requests without an answer yet
        engine_pending,
        /// Quiet connections, watched by a poll
        quiet_connections,
        /// Receive buffers that the kernel holds free
        ring_buffers_free,
        /// Bytes in the memtables
        memtable_bytes,
        /// Bytes in the block cache
        cache_bytes,
        /// Sorted segments
        segments,
        /// Bytes in them
        segment_bytes,
        /// Bytes of memory that their indexes take
        segment_index_bytes,
        /// Bytes of memory that is held of their filters
        segment_filter_bytes,
        /// Bytes of the log that a restart would replay
        log_bytes,
        /// Sorted segments that the last start found damaged as a whole
        segments_damaged,
        /// Damaged stretches of the log that the last start found
        log_damaged,
        /// Damaged places that the last whole reading of all segments found
        scrub_damaged_last_round,
    }
    histograms {
        /// From a record's joining the batch to its being durable, in microseconds
        commit_latency_us,
    }
}

impl ShardMetrics {
    /// Puts the number of errors of a code that clients were told to where the shard's own count is.
    pub fn set_errors(&self, code: ErrorCode, count: u64) {
        self.errors[code as usize % ERROR_SLOTS].set(count);
    }

    /// How often clients were told this error.
    #[must_use]
    pub fn errors(&self, code: ErrorCode) -> u64 {
        self.errors[code as usize % ERROR_SLOTS].get()
    }
}

/// A log lane's state. Its shard writes it.
#[derive(Debug, Default)]
pub struct LaneStatus {
    /// The lane has recovered and takes writes.
    pub recovered: AtomicBool,
    /// The lane's log failed: nothing more is acknowledged on it until the node restarts.
    pub fenced: AtomicBool,
    /// The lane's disk is full: senders are told so, and it goes on by itself when there is room.
    pub storage_full: AtomicBool,
}

/// Where a node is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Recovering; nothing is accepted yet.
    Starting = 0,
    /// Serving.
    Serving = 1,
    /// Sending clients away before it ends.
    Draining = 2,
}

/// Everything a node tells about itself, shared by its shards and the outside thread.
#[derive(Debug)]
pub struct Metrics {
    shards: Box<[ShardMetrics]>,
    lanes: Box<[LaneStatus]>,
    phase: AtomicU8,
    memory_used_bytes: Gauge,
    memory_limit_bytes: Gauge,
    memory_pressure: Gauge,
    /// Answers of the HTTP API by [`API_STATUSES`]. The outside thread writes them.
    api_answers: [Counter; API_STATUSES.len()],
}

/// Classes of statuses that the HTTP API answers with.
const API_STATUSES: [&str; 3] = ["2xx", "4xx", "5xx"];

impl Metrics {
    /// All zero, starting.
    #[must_use]
    pub fn new(shards: usize, lanes: usize) -> Arc<Self> {
        Arc::new(Self {
            shards: (0..shards).map(|_| ShardMetrics::default()).collect(),
            lanes: (0..lanes).map(|_| LaneStatus::default()).collect(),
            phase: AtomicU8::new(Phase::Starting as u8),
            memory_used_bytes: Gauge::default(),
            memory_limit_bytes: Gauge::default(),
            memory_pressure: Gauge::default(),
            api_answers: Default::default(),
        })
    }

    /// A shard's figures, for that shard to write. Panics if there is no such shard.
    #[must_use]
    pub fn shard(&self, index: usize) -> &ShardMetrics {
        &self.shards[index]
    }

    /// All shards' figures.
    #[must_use]
    pub fn shards(&self) -> &[ShardMetrics] {
        &self.shards
    }

    /// A lane's state, for its shard to write. Panics if there is no such lane.
    #[must_use]
    pub fn lane(&self, index: usize) -> &LaneStatus {
        &self.lanes[index]
    }

    /// The HTTP API answered with this status. Only the outside thread says so.
    pub(crate) fn api_answered(&self, status: u16) {
        let class = match status {
            ..400 => 0,
            400..500 => 1,
            500.. => 2,
        };
        self.api_answers[class].add(1);
    }

    /// Moves the node on in its life.
    pub fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Relaxed);
    }

    /// What was measured of the node's memory. The outside thread writes it.
    pub fn set_memory(&self, used_bytes: u64, limit_bytes: u64, pressure: Pressure) {
        self.memory_used_bytes.set(used_bytes);
        self.memory_limit_bytes.set(limit_bytes);
        self.memory_pressure.set(pressure as u64);
    }

    /// Where the node is in its life.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.phase.load(Relaxed) {
            0 => Phase::Starting,
            1 => Phase::Serving,
            _ => Phase::Draining,
        }
    }

    /// Why the node should get no new clients now; empty if it should.
    #[must_use]
    pub fn not_ready_reasons(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        match self.phase() {
            Phase::Starting => reasons.push("starting".to_owned()),
            Phase::Draining => reasons.push("draining".to_owned()),
            Phase::Serving => {}
        }
        if self.memory_pressure.get() != Pressure::None as u64 {
            reasons.push("memory: near its limit; newcomers are turned away".to_owned());
        }
        for (index, lane) in self.lanes.iter().enumerate() {
            if lane.fenced.load(Relaxed) {
                reasons.push(format!("lane {index}: its log failed; restart the node"));
            } else if lane.storage_full.load(Relaxed) {
                reasons.push(format!("lane {index}: the disk is full"));
            } else if self.phase() == Phase::Serving && !lane.recovered.load(Relaxed) {
                reasons.push(format!("lane {index}: recovering"));
            }
        }
        reasons
    }

    /// All figures in the OpenMetrics text format.
    #[must_use]
    pub fn render(self: &Arc<Self>) -> String {
        let mut registry = Registry::with_prefix("antiphon");
        registry.register_collector(Box::new(Report(Arc::clone(self))));
        let mut text = String::new();
        encode(&mut text, &registry).expect("writing to a string does not fail");
        text
    }
}

#[derive(Debug)]
struct Report(Arc<Metrics>);

impl Report {
    fn per_shard(
        &self,
        mut encoder: MetricEncoder<'_>,
        mut one: impl FnMut(&ShardMetrics, MetricEncoder<'_>) -> fmt::Result,
    ) -> fmt::Result {
        for (index, shard) in self.0.shards.iter().enumerate() {
            one(shard, encoder.encode_family(&[("shard", index.to_string())])?)?;
        }
        Ok(())
    }
}

impl Collector for Report {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (name, help, pick) in COUNTERS {
            let metric = encoder.encode_descriptor(name, help.trim(), None, MetricType::Counter)?;
            self.per_shard(metric, |shard, mut encoder| {
                encoder.encode_counter::<NoLabelSet, _, u64>(&pick(shard).get(), None)
            })?;
        }
        for (name, help, pick) in GAUGES {
            let metric = encoder.encode_descriptor(name, help.trim(), None, MetricType::Gauge)?;
            self.per_shard(metric, |shard, mut encoder| encoder.encode_gauge(&pick(shard).get()))?;
        }
        for (name, help, pick) in HISTOGRAMS {
            let base = name.trim_end_matches("_us");
            let help = help.trim().replace(", in microseconds", "");
            let metric = encoder.encode_descriptor(base, &help, Some(&Unit::Seconds), MetricType::Histogram)?;
            self.per_shard(metric, |shard, mut encoder| encode_histogram(pick(shard), &mut encoder))?;
        }
        let mut errors = encoder.encode_descriptor("errors", "Errors told to clients", None, MetricType::Counter)?;
        for (index, shard) in self.0.shards.iter().enumerate() {
            for code in ErrorCode::ALL {
                let labels = [("shard", index.to_string()), ("code", code.name().to_owned())];
                errors.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&shard.errors(*code), None)?;
            }
        }
        let mut answers =
            encoder.encode_descriptor("api_answers", "Answers of the HTTP API", None, MetricType::Counter)?;
        for (class, count) in API_STATUSES.iter().zip(&self.0.api_answers) {
            let labels = [("status", *class)];
            answers.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count.get(), None)?;
        }
        type Flag = fn(&LaneStatus) -> &AtomicBool;
        let flags: [(&str, &str, Flag); 3] = [
            ("lane_recovered", "The lane takes writes", |lane| &lane.recovered),
            ("lane_fenced", "The lane's log failed; nothing more is acknowledged", |lane| &lane.fenced),
            ("lane_storage_full", "The lane's disk is full", |lane| &lane.storage_full),
        ];
        for (name, help, pick) in flags {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (index, lane) in self.0.lanes.iter().enumerate() {
                let value = u64::from(pick(lane).load(Relaxed));
                metric.encode_family(&[("lane", index.to_string())])?.encode_gauge(&value)?;
            }
        }
        let gauges = [
            (
                "memory_used_bytes",
                "Memory that the node takes, its sockets' in the kernel included",
                &self.0.memory_used_bytes,
            ),
            ("memory_limit_bytes", "Memory that the node may take", &self.0.memory_limit_bytes),
            ("memory_pressure", "Newcomers: 0 taken, 1 refused, 2 left waiting", &self.0.memory_pressure),
        ];
        for (name, help, gauge) in gauges {
            encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&gauge.get())?;
        }
        let ready =
            prometheus_client::metrics::gauge::ConstGauge::new(u64::from(self.0.not_ready_reasons().is_empty()));
        ready.encode(encoder.encode_descriptor("ready", "The node takes new clients", None, MetricType::Gauge)?)
    }
}

fn encode_histogram(histogram: &LatencyHistogram, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
    let seconds = |micros: u64| micros as f64 / 1e6;
    let bounds = LATENCY_BOUNDS_US.iter().map(|bound| seconds(*bound)).chain([f64::INFINITY]);
    let buckets: Vec<(f64, u64)> = bounds.zip(histogram.buckets.iter().map(Counter::get)).collect();
    let count = buckets.iter().map(|(_, count)| count).sum();
    encoder.encode_histogram::<NoLabelSet>(seconds(histogram.sum_us.get()), count, &buckets, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_that_documents_name_are_there() {
        let text = Metrics::new(1, 1).render();
        let document = include_str!("../../docs/admission.md");
        let is_name = |character: char| character.is_ascii_alphanumeric() || character == '_';
        let names = document.split('`').filter(|name| name.starts_with("antiphon_") && name.chars().all(is_name));
        let mut count = 0;
        for name in names {
            let line = |line: &str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']));
            assert!(text.lines().any(line), "{name}");
            count += 1;
        }
        assert!(count > 20, "{count}");
    }

    #[test]
    fn figures_are_rendered_per_shard() {
        let metrics = Metrics::new(2, 1);
        metrics.shard(0).frames_in.add(3);
        metrics.shard(1).frames_in.add(4);
        metrics.shard(1).connections.set(7);
        metrics.shard(1).set_errors(ErrorCode::NotFound, 1);
        metrics.shard(0).blocks_damaged.set(5);
        metrics.shard(0).segments_damaged.set(1);
        metrics.shard(1).log_damaged.set(2);
        metrics.shard(0).scrub_rounds.set(3);
        metrics.shard(0).scrub_damaged_last_round.set(4);
        metrics.shard(0).commit_latency_us.observe(120, 2);
        metrics.shard(0).commit_latency_us.observe(9_000_000, 1);
        metrics.lane(0).fenced.store(true, Relaxed);
        let text = metrics.render();
        for line in [
            "antiphon_frames_in_total{shard=\"0\"} 3",
            "antiphon_frames_in_total{shard=\"1\"} 4",
            "antiphon_connections{shard=\"1\"} 7",
            "antiphon_errors_total{shard=\"1\",code=\"not_found\"} 1",
            "antiphon_errors_total{shard=\"0\",code=\"not_found\"} 0",
            "antiphon_commit_latency_seconds_bucket{le=\"0.0001\",shard=\"0\"} 0",
            "antiphon_commit_latency_seconds_bucket{le=\"0.00015\",shard=\"0\"} 2",
            "antiphon_commit_latency_seconds_bucket{le=\"+Inf\",shard=\"0\"} 3",
            "antiphon_commit_latency_seconds_count{shard=\"0\"} 3",
            "antiphon_blocks_damaged_total{shard=\"0\"} 5",
            "antiphon_segments_damaged{shard=\"0\"} 1",
            "antiphon_log_damaged{shard=\"1\"} 2",
            "antiphon_scrub_rounds_total{shard=\"0\"} 3",
            "antiphon_scrub_damaged_last_round{shard=\"0\"} 4",
            "antiphon_lane_fenced{lane=\"0\"} 1",
            "antiphon_ready 0",
            "# HELP antiphon_frames_in Client frames read",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn buckets_hold_their_upper_bound() {
        let histogram = LatencyHistogram::default();
        for latency_us in [0, 50, 51, 5_000_000, 5_000_001, u64::MAX] {
            histogram.observe(latency_us, 1);
        }
        let counts: Vec<u64> = histogram.buckets.iter().map(Counter::get).collect();
        assert_eq!((counts[0], counts[1], counts[17], counts[18]), (2, 1, 1, 2));
        assert_eq!(histogram.count(), 6);
    }

    #[test]
    fn a_node_is_ready_when_it_serves_and_every_lane_writes() {
        let metrics = Metrics::new(1, 2);
        assert_eq!(metrics.not_ready_reasons(), ["starting"]);
        metrics.lane(0).recovered.store(true, Relaxed);
        metrics.set_phase(Phase::Serving);
        assert_eq!(metrics.not_ready_reasons(), ["lane 1: recovering"]);
        metrics.lane(1).recovered.store(true, Relaxed);
        assert!(metrics.not_ready_reasons().is_empty());
        metrics.set_memory(95, 100, Pressure::Refuse);
        assert_eq!(metrics.not_ready_reasons(), ["memory: near its limit; newcomers are turned away"]);
        metrics.set_memory(80, 100, Pressure::None);
        metrics.lane(1).storage_full.store(true, Relaxed);
        assert_eq!(metrics.not_ready_reasons(), ["lane 1: the disk is full"]);
        metrics.lane(1).fenced.store(true, Relaxed);
        assert_eq!(metrics.not_ready_reasons(), ["lane 1: its log failed; restart the node"]);
        metrics.set_phase(Phase::Draining);
        assert_eq!(metrics.not_ready_reasons()[0], "draining");
    }

    #[test]
    fn shards_do_not_share_cache_lines() {
        assert_eq!(align_of::<ShardMetrics>(), 128);
        assert_eq!(size_of::<ShardMetrics>() % 128, 0);
        // Every code has a counter of its own.
        let mut slots: Vec<usize> = ErrorCode::ALL.iter().map(|code| *code as usize).collect();
        slots.sort_unstable();
        slots.dedup();
        assert_eq!(slots.len(), ErrorCode::ALL.len());
        assert!(slots.iter().all(|slot| (1..ERROR_SLOTS).contains(slot)));
    }
}
