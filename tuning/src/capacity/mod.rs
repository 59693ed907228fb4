//! Predicts what a node needs: memory, processor, disk and network. Pure.
//!
//! The model is linear but for two things: how often something is there, or happens, times what one costs. What one
//! costs is data ([`Coefficients`], data/coefficients.toml), each figure with its source and whether it was measured,
//! computed or assumed. Not linear are caches, which fill until their limit, and commits, which gather what comes while
//! one is being written. It says nothing about latency, and nothing about bursts: leave room.

mod coefficients;

use serde::Serialize;

pub use coefficients::{Coefficients, CoefficientsError, Event, FORMAT, MeasuredOn, Provenance, Space, Thing};

/// How often the shipped client pings if it has nothing else to say: wire's `HEARTBEAT_INTERVAL_MS`.
pub const HEARTBEAT_INTERVAL_S: f64 = 30.0;

const SECONDS_PER_DAY: f64 = 86_400.0;

/// Shorter frames are not compressed: docs/protocol.md.
const DEFLATE_BYTES_MIN: f64 = 512.0;

/// What the node is to do.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Workload {
    /// Live connections.
    pub connections: u64,
    /// Groups that exist.
    pub groups: u64,
    /// Members of a group that are connected.
    pub group_members: u64,
    /// Messages that clients send, a second.
    pub messages_per_second: f64,
    /// Bytes of a message's text.
    pub text_bytes: u64,
    /// Shards.
    pub shards: u64,
    /// Log lanes.
    pub lanes: u64,
    /// Which part of the connections speaks TLS, 0 to 1.
    pub tls_share: f64,
    /// Whether all clients agree on permessage-deflate; off by default in the node.
    pub deflate: bool,
    /// How often a client pings, in seconds.
    pub heartbeat_interval_s: f64,
    /// How long the load has run on a fresh node; without it all caches are full.
    pub running_seconds: Option<f64>,
}

/// One part of a prediction.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Item {
    /// Of which coefficient.
    pub name: String,
    /// How many there are, or how often it happens in a second.
    pub count: f64,
    /// What one costs: bytes, or microseconds of a core.
    pub each: f64,
    /// Both multiplied, or the limit if that is less: bytes, or cores.
    pub total: f64,
    /// Where the bytes are; for memory only.
    pub space: Option<Space>,
    /// How far the figure can be trusted.
    pub provenance: Provenance,
    /// Where it comes from.
    pub source: String,
}

/// What a node needs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prediction {
    /// Bytes of memory, by structure.
    pub memory: Vec<Item>,
    /// Cores that are busy, by kind of work.
    pub processor: Vec<Item>,
    /// Bytes of the node's own memory.
    pub user_bytes: u64,
    /// Bytes of the kernel's memory for it.
    pub kernel_bytes: u64,
    /// Cores that are busy.
    pub cores: f64,
    /// Bytes of log on disk from the start.
    pub log_bytes: u64,
    /// Writes of the log, a second, over all lanes.
    pub commits_per_second: f64,
    /// Bytes written to the log, a second, padding included.
    pub log_write_bytes_per_second: f64,
    /// Bytes written to the disk, a second: log, segments and compaction.
    pub disk_write_bytes_per_second: f64,
    /// Bytes that history grows by, a day.
    pub history_bytes_per_day: f64,
    /// Deliveries, a second: to each connected member, the sender's own connection too.
    pub deliveries_per_second: f64,
    /// Bytes a second that the node reads from its connections.
    pub socket_in_bytes_per_second: f64,
    /// Bytes a second that the node writes to its connections.
    pub socket_out_bytes_per_second: f64,
    /// Bytes a second to the node, with the headers of packets.
    pub network_in_bytes_per_second: f64,
    /// Bytes a second from the node, with the headers of packets.
    pub network_out_bytes_per_second: f64,
    /// What part of it rests on assumptions.
    pub assumed: Vec<String>,
}

/// How often everything happens, a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    messages: f64,
    deliveries: f64,
    heartbeats: f64,
    /// Writes of the log over all lanes.
    pub commits: f64,
    handovers: f64,
    tls_frames: f64,
    compressed: f64,
    inflated: f64,
}

impl Rates {
    /// How often one thing happens.
    #[must_use]
    pub fn of(&self, event: Event) -> f64 {
        match event {
            Event::Message => self.messages,
            Event::Delivery => self.deliveries,
            Event::Heartbeat => self.heartbeats,
            Event::Commit => self.commits,
            Event::Handover => self.handovers,
            Event::TlsFrame => self.tls_frames,
            Event::CompressedFrame => self.compressed,
            Event::InflatedFrame => self.inflated,
        }
    }
}

/// Writes of one lane's log a second. A write begins when there is something to write and none is under way, and takes
/// all that has come meanwhile: it lasts 1 / `commits_per_second_max`, and after it the lane waits for the next message
/// if none came while it lasted.
#[must_use]
pub fn commits_per_second(messages_per_second: f64, commits_per_second_max: f64) -> f64 {
    if messages_per_second <= 0.0 {
        return 0.0;
    }
    let write_s = 1.0 / commits_per_second_max;
    1.0 / (write_s + (-messages_per_second * write_s).exp() / messages_per_second)
}

impl Coefficients {
    /// Predicts a workload.
    #[must_use]
    pub fn predict(&self, load: Workload) -> Prediction {
        let rates = self.rates(load);
        let memory: Vec<Item> = self.memory.iter().map(|memory| memory_item(memory, load)).collect();
        let processor = self.processor.iter().map(|cost| {
            let (count, each) = (rates.of(cost.per), cost.microseconds);
            let (provenance, source) = (cost.provenance, cost.source.clone());
            Item { name: cost.name.clone(), count, each, total: count * each / 1e6, space: None, provenance, source }
        });
        let processor: Vec<Item> = processor.collect();
        let bytes = |space| memory.iter().filter(|item| item.space == Some(space)).map(|item| item.total).sum::<f64>();
        let record = load.text_bytes as f64 + self.disk.record_overhead_bytes.value;
        let stored = load.messages_per_second * record / self.disk.compression_ratio.value;
        // Nothing leaves the memtable before it is full.
        let flushed = load.running_seconds.is_none_or(|seconds| {
            load.messages_per_second * seconds * record > self.disk.memtable_bytes.value * load.lanes as f64
        });
        let segments = if flushed { stored * self.disk.segment_write_amplification.value } else { 0.0 };
        let log = self.log_bytes_per_second(load, rates.commits, record);
        let (socket_in, socket_out) = self.socket_bytes(load, &rates);
        let packet = self.network.packet_overhead_bytes.value;
        Prediction {
            user_bytes: bytes(Space::User) as u64,
            kernel_bytes: bytes(Space::Kernel) as u64,
            log_bytes: bytes(Space::Log) as u64,
            cores: processor.iter().map(|item| item.total).sum(),
            commits_per_second: rates.commits,
            log_write_bytes_per_second: log,
            disk_write_bytes_per_second: log + segments,
            history_bytes_per_day: stored * SECONDS_PER_DAY,
            deliveries_per_second: rates.deliveries,
            socket_in_bytes_per_second: socket_in,
            socket_out_bytes_per_second: socket_out,
            // A packet each: what shares one costs less.
            network_in_bytes_per_second: socket_in + (rates.messages + rates.heartbeats) * packet,
            network_out_bytes_per_second: socket_out + (rates.messages + rates.deliveries + rates.heartbeats) * packet,
            assumed: self.assumed(),
            memory,
            processor,
        }
    }

    /// How often everything happens under a workload.
    #[must_use]
    pub fn rates(&self, load: Workload) -> Rates {
        let (messages, lanes) = (load.messages_per_second, load.lanes.max(1) as f64);
        // The sender's own connection too; without groups a message goes to one other.
        let receivers = load.group_members.max(2) as f64;
        let (deliveries, heartbeats) = (messages * receivers, load.connections as f64 / load.heartbeat_interval_s);
        let shards = load.shards.max(1) as f64;
        // Of shards with members, if these are anywhere.
        let reached = |shards: f64| shards * (1.0 - (1.0 - 1.0 / shards).powf(receivers));
        let other = 1.0 - 1.0 / shards;
        // The send to the lane's shard, its answer back, and one frame for each other shard with members.
        let handovers = messages * (2.0 * other + other * reached(shards));
        let frames = 2.0 * messages + deliveries + 2.0 * heartbeats;
        let long = load.deflate && load.text_bytes as f64 >= DEFLATE_BYTES_MIN;
        let if_long = |rate: f64| if long { rate } else { 0.0 };
        Rates {
            messages,
            deliveries,
            heartbeats,
            commits: lanes * commits_per_second(messages / lanes, self.disk.commits_per_second_max.value),
            handovers,
            tls_frames: frames * load.tls_share.clamp(0.0, 1.0),
            compressed: if_long(messages * reached(shards)),
            inflated: if_long(messages),
        }
    }

    /// Bytes a second on the node's connections, in and out.
    fn socket_bytes(&self, load: Workload, rates: &Rates) -> (f64, f64) {
        let network = &self.network;
        let ratio = if rates.inflated > 0.0 { network.deflate_ratio.value } else { 1.0 };
        let (text, tls) = (load.text_bytes as f64, network.tls_overhead_bytes.value * load.tls_share.clamp(0.0, 1.0));
        let send = (text + network.send_overhead_bytes.value) * ratio + tls;
        let delivery = (text + network.delivery_overhead_bytes.value) * ratio + tls;
        let heartbeat = |figure: f64| rates.heartbeats * (figure + tls);
        (
            rates.messages * send + heartbeat(network.heartbeat_in_bytes.value),
            rates.messages * (network.ack_bytes.value + tls)
                + rates.deliveries * delivery
                + heartbeat(network.heartbeat_out_bytes.value),
        )
    }

    /// Each commit is a whole number of pages: one at least, and half of one is padding where there are more.
    fn log_bytes_per_second(&self, load: Workload, commits: f64, record: f64) -> f64 {
        if commits <= 0.0 {
            return 0.0;
        }
        let page = self.disk.page_bytes.value;
        let batch = load.messages_per_second / commits * record;
        commits * (batch / page + 0.5).max(1.0) * page
    }
}

/// One row of memory.
fn memory_item(memory: &coefficients::Memory, load: Workload) -> Item {
    let shards = load.shards as f64;
    let if_so = |is_so: bool, count: f64| if is_so { count } else { 0.0 };
    let members =
        if load.groups == 0 { load.connections } else { load.groups.saturating_mul(load.group_members) } as f64;
    let count = match memory.per {
        Thing::Connection => load.connections as f64,
        Thing::TlsConnection => load.connections as f64 * load.tls_share.clamp(0.0, 1.0),
        Thing::Shard => shards,
        Thing::ConnectedNode => if_so(load.connections > 0, 1.0),
        Thing::ConnectedShard => if_so(load.connections > 0, shards),
        Thing::MessagingNode => if_so(load.messages_per_second > 0.0, 1.0),
        Thing::MessagingShard => if_so(load.messages_per_second > 0.0, shards),
        Thing::DeflateShard => if_so(load.deflate, shards),
        Thing::Lane => load.lanes as f64,
        Thing::Node => 1.0,
        Thing::Member => members,
        Thing::FreshMember => if_so(load.running_seconds.is_some(), members),
        Thing::Group if load.groups == 0 => load.connections as f64 / 2.0,
        Thing::Group => load.groups as f64,
        Thing::Message => load.messages_per_second * load.running_seconds.unwrap_or(SECONDS_PER_DAY),
        Thing::History => if_so(load.running_seconds.is_none(), 1.0),
    };
    let each = memory.bytes + if memory.with_text { load.text_bytes as f64 } else { 0.0 };
    let total = match memory.bytes_max_per_lane.map(|max| max * load.lanes as f64) {
        // In the long run a cache is as full as it may be, whatever fills it.
        Some(max) if load.running_seconds.is_none() && memory.per != Thing::FreshMember => max,
        Some(max) => max.min(count * each),
        None => count * each,
    };
    let (provenance, source) = (memory.provenance, memory.source.clone());
    Item { name: memory.name.clone(), count, each, total, space: Some(memory.space), provenance, source }
}

impl Prediction {
    /// What does not fit a machine, a line each; a machine that doesn't tell is not judged.
    #[must_use]
    pub fn does_not_fit(&self, memory_bytes: Option<u64>, cores: Option<u64>) -> Vec<String> {
        let mut lines = Vec::new();
        let needed = self.user_bytes.saturating_add(self.kernel_bytes);
        if let Some(there) = memory_bytes.filter(|there| needed > *there) {
            let (needed, there) = (crate::text::bytes(needed), crate::text::bytes(there));
            lines.push(format!("memory: {needed} are needed, {there} are there"));
        }
        if let Some(there) = cores.filter(|there| self.cores > *there as f64) {
            lines.push(format!("processor: {:.1} cores are needed, {there} are there", self.cores));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOAD: Workload = Workload {
        connections: 500_000,
        groups: 25_000,
        group_members: 20,
        messages_per_second: 1_000.0,
        text_bytes: 100,
        shards: 4,
        lanes: 1,
        tls_share: 0.0,
        deflate: false,
        heartbeat_interval_s: HEARTBEAT_INTERVAL_S,
        running_seconds: None,
    };

    fn predict(load: Workload) -> Prediction {
        Coefficients::built_in().unwrap().predict(load)
    }

    fn item<'a>(items: &'a [Item], name: &str) -> &'a Item {
        items.iter().find(|item| item.name == name).unwrap()
    }

    #[test]
    fn half_a_million_connections_are_predicted() {
        let (coefficients, prediction) = (Coefficients::built_in().unwrap(), predict(LOAD));
        let all = prediction.memory.iter().filter(|item| item.count == 500_000.0);
        let of = ["node_connection", "kernel_connection", "members"];
        let each: f64 = of.iter().map(|name| coefficients.value(name).unwrap()).sum();
        assert_eq!(all.map(|item| item.total).sum::<f64>(), 500_000.0 * each, "each figure, and nothing twice");
        assert_eq!(prediction.deliveries_per_second as u64, 20_000);
        assert_eq!(item(&prediction.processor, "heartbeat").count as u64, 16_666);
        let sum: f64 = prediction.processor.iter().map(|item| item.count * item.each / 1e6).sum();
        assert!((prediction.cores - sum).abs() < 1e-9 && prediction.cores > 0.1, "{}", prediction.cores);
        assert!(prediction.disk_write_bytes_per_second > prediction.log_write_bytes_per_second);
        assert!(prediction.assumed.contains(&"segment_write_amplification".to_owned()));
    }

    #[test]
    fn commits_gather_what_comes_while_one_is_written() {
        for (messages, least, most) in [(10.0, 9.98, 10.0), (1_000.0, 980.0, 1_000.0), (1e6, 7_999.0, 8_000.0)] {
            let commits = commits_per_second(messages, 8_000.0);
            assert!((least..=most).contains(&commits), "{messages} a second: {commits}");
        }
        assert_eq!(commits_per_second(0.0, 8_000.0), 0.0);
        let idle = predict(Workload { messages_per_second: 0.0, ..LOAD });
        assert_eq!(idle.disk_write_bytes_per_second, 0.0);
        assert!(idle.cores > 0.0, "heartbeats go on");
    }

    #[test]
    fn caches_fill_with_what_is_stored_and_no_further() {
        let memtables =
            |seconds| item(&predict(Workload { running_seconds: seconds, ..LOAD }).memory, "memtables").total;
        let max = memtables(None);
        assert_eq!(memtables(Some(1e9)), max);
        assert!(memtables(Some(20.0)) > 2_000_000.0 && memtables(Some(20.0)) < max / 4.0);
        let fresh = predict(Workload { running_seconds: Some(20.0), ..LOAD });
        assert_eq!(item(&fresh.memory, "block_cache").total, 0.0);
        assert_eq!(fresh.disk_write_bytes_per_second, fresh.log_write_bytes_per_second, "nothing was flushed yet");
        assert!(predict(LOAD).user_bytes > fresh.user_bytes + 200_000_000);
    }

    #[test]
    fn shards_tls_and_deflate_cost() {
        let plain = predict(LOAD);
        let one = predict(Workload { shards: 1, ..LOAD });
        assert_eq!(item(&one.processor, "handover").count, 0.0, "there is nobody to hand anything to");
        let many = predict(Workload { shards: 1_000_000, ..LOAD });
        let handovers = item(&many.processor, "handover").count / 1_000.0;
        assert!((21.99..22.0).contains(&handovers), "the send, its answer, and each of 20 members: {handovers}");
        assert!(one.user_bytes < plain.user_bytes && plain.user_bytes < many.user_bytes);

        let half = predict(Workload { tls_share: 0.5, ..LOAD });
        assert_eq!(item(&half.memory, "tls_session").count, 250_000.0);
        assert!(half.cores > plain.cores && half.socket_out_bytes_per_second > plain.socket_out_bytes_per_second);

        let short = predict(Workload { deflate: true, ..LOAD });
        assert_eq!(short.cores, plain.cores, "short frames are not compressed");
        let long = Workload { text_bytes: 2_000, ..LOAD };
        let (sent_plain, compressed) = (predict(long), predict(Workload { deflate: true, ..long }));
        assert!(compressed.cores > sent_plain.cores && compressed.user_bytes > sent_plain.user_bytes);
        assert!(compressed.socket_out_bytes_per_second < sent_plain.socket_out_bytes_per_second);
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let prediction = predict(LOAD);
        assert!(prediction.does_not_fit(Some(24 << 30), Some(4)).is_empty());
        assert!(prediction.does_not_fit(None, None).is_empty());
        let lines = predict(Workload { messages_per_second: 50_000.0, ..LOAD }).does_not_fit(Some(1 << 30), Some(2));
        assert!(
            lines.len() == 2 && lines[0].starts_with("memory: ") && lines[1].starts_with("processor: "),
            "{lines:?}"
        );
    }

    #[test]
    fn extreme_workloads_are_finite() {
        for count in [0, 1, u64::MAX] {
            let load = Workload {
                connections: count,
                groups: count,
                group_members: count,
                text_bytes: count,
                shards: count,
                lanes: count,
                ..LOAD
            };
            let prediction = predict(load);
            assert!(prediction.cores.is_finite() && prediction.network_out_bytes_per_second.is_finite());
            assert!(prediction.log_write_bytes_per_second.is_finite());
        }
    }
}
