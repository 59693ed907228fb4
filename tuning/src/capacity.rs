//! Predicts what a node needs: memory, processor, disk and network. Pure.
//!
//! The model is linear: how often something is there, or happens, times what one costs. What one costs is data
//! ([`Coefficients`], data/coefficients.toml), each figure with its source and whether it was measured, computed or assumed. It says
//! nothing about latency, and nothing about bursts: leave room.

use serde::{Deserialize, Serialize};

/// The version of the coefficients' form.
pub const FORMAT: &str = "antiphon-coefficients/1";

/// How often a client that has nothing else to say pings: wire's `HEARTBEAT_INTERVAL_MS`.
const HEARTBEAT_INTERVAL_S: f64 = 30.0;

const SECONDS_PER_DAY: f64 = 86_400.0;

/// How far a figure can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Provenance {
    /// By a run on the machine that the file names.
    Measured,
    /// From sizes in the sources.
    Computed,
    /// By nobody yet.
    Assumed,
}

/// What one of everything costs.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Coefficients {
    format: String,
    /// What they were measured on.
    pub machine: String,
    memory: Vec<Memory>,
    processor: Vec<Processor>,
    disk: Disk,
    network: Network,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Memory {
    name: String,
    space: Space,
    per: Thing,
    bytes: u64,
    provenance: Provenance,
    source: String,
}

/// Where bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Space {
    /// The node's own memory.
    User,
    /// The kernel's, for the node.
    Kernel,
    /// The disk, from the start.
    Log,
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Thing {
    /// Live connections.
    Connection,
    /// Shards.
    Shard,
    /// Log lanes.
    Lane,
    /// One.
    Node,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Processor {
    name: String,
    per: Event,
    microseconds: f64,
    provenance: Provenance,
    source: String,
}

/// What happens so many times a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A client sends a message.
    Message,
    /// A member gets one.
    Delivery,
    /// A client pings.
    Heartbeat,
    /// The log is written.
    Commit,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Disk {
    record_overhead_bytes: Figure,
    page_bytes: Figure,
    commits_per_second_max: Figure,
    compression_ratio: Figure,
    segment_write_amplification: Figure,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Network {
    frame_overhead_bytes: Figure,
    packet_overhead_bytes: Figure,
    heartbeat_bytes: Figure,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Figure {
    value: f64,
    provenance: Provenance,
    source: String,
}

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
    /// Both multiplied: bytes, or cores.
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
    /// Bytes written to the disk, a second: log, segments and compaction.
    pub disk_write_bytes_per_second: f64,
    /// Bytes that history grows by, a day.
    pub history_bytes_per_day: f64,
    /// Deliveries, a second.
    pub deliveries_per_second: f64,
    /// Bytes a second to the node.
    pub network_in_bytes_per_second: f64,
    /// Bytes a second from the node.
    pub network_out_bytes_per_second: f64,
    /// What part of it rests on assumptions.
    pub assumed: Vec<String>,
}

/// Why coefficients were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {message}")]
pub struct CoefficientsError {
    file: String,
    line: usize,
    message: String,
}

impl Coefficients {
    /// Those that come with the crate.
    ///
    /// # Errors
    /// Never; a test reads them.
    pub fn built_in() -> Result<Self, CoefficientsError> {
        Self::from_toml("coefficients.toml", include_str!("../data/coefficients.toml"))
    }

    /// Reads a file of coefficients; `file` is for messages.
    ///
    /// # Errors
    /// It is not one; the error names file and line.
    pub fn from_toml(file: &str, text: &str) -> Result<Self, CoefficientsError> {
        let wrong = |at: usize, message: String| {
            let line = text.get(..at).unwrap_or(text).matches('\n').count() + 1;
            CoefficientsError { file: file.to_owned(), line, message }
        };
        let read: Self = toml::from_str(text)
            .map_err(|error| wrong(error.span().map_or(0, |span| span.start), error.message().to_owned()))?;
        if read.format != FORMAT {
            return Err(wrong(0, format!("its format is {}, not {FORMAT}", read.format)));
        }
        let figures = [
            &read.disk.record_overhead_bytes,
            &read.disk.page_bytes,
            &read.disk.commits_per_second_max,
            &read.disk.compression_ratio,
            &read.disk.segment_write_amplification,
            &read.network.frame_overhead_bytes,
            &read.network.packet_overhead_bytes,
            &read.network.heartbeat_bytes,
        ];
        let costs = read.processor.iter().map(|cost| (cost.microseconds, &cost.source));
        let figures = figures.into_iter().map(|figure| (figure.value, &figure.source)).chain(costs);
        for (value, source) in figures.chain(read.memory.iter().map(|memory| (memory.bytes as f64, &memory.source))) {
            if !value.is_finite() || value <= 0.0 || source.trim().is_empty() {
                return Err(wrong(0, "each figure is above 0 and has a source".to_owned()));
            }
        }
        Ok(read)
    }

    /// Predicts a workload.
    #[must_use]
    pub fn predict(&self, load: Workload) -> Prediction {
        let memory = self.memory.iter().map(|memory| {
            let count = match memory.per {
                Thing::Connection => load.connections,
                Thing::Shard => load.shards,
                Thing::Lane => load.lanes,
                Thing::Node => 1,
            };
            let (count, each) = (count as f64, memory.bytes as f64);
            let space = Some(memory.space);
            let (provenance, source) = (memory.provenance, memory.source.clone());
            Item { name: memory.name.clone(), count, each, total: count * each, space, provenance, source }
        });
        let memory: Vec<Item> = memory.collect();
        let rates = self.rates(load);
        let processor = self.processor.iter().map(|cost| {
            let (count, each) = (rates.of(cost.per), cost.microseconds);
            let (provenance, source) = (cost.provenance, cost.source.clone());
            Item { name: cost.name.clone(), count, each, total: count * each / 1e6, space: None, provenance, source }
        });
        let processor: Vec<Item> = processor.collect();
        let bytes = |space| memory.iter().filter(|item| item.space == Some(space)).map(|item| item.total).sum::<f64>();
        let record = load.text_bytes as f64 + self.disk.record_overhead_bytes.value;
        let stored = load.messages_per_second * record / self.disk.compression_ratio.value;
        let packet =
            load.text_bytes as f64 + self.network.frame_overhead_bytes.value + self.network.packet_overhead_bytes.value;
        let heartbeats = rates.heartbeats * self.network.heartbeat_bytes.value / 2.0;
        Prediction {
            user_bytes: bytes(Space::User) as u64,
            kernel_bytes: bytes(Space::Kernel) as u64,
            log_bytes: bytes(Space::Log) as u64,
            cores: processor.iter().map(|item| item.total).sum(),
            commits_per_second: rates.commits,
            disk_write_bytes_per_second: self.log_bytes_per_second(load, rates.commits, record)
                + stored * self.disk.segment_write_amplification.value,
            history_bytes_per_day: stored * SECONDS_PER_DAY,
            deliveries_per_second: rates.deliveries,
            network_in_bytes_per_second: load.messages_per_second * packet + heartbeats,
            network_out_bytes_per_second: (load.messages_per_second + rates.deliveries) * packet + heartbeats,
            assumed: self.assumed(),
            memory,
            processor,
        }
    }

    fn rates(&self, load: Workload) -> Rates {
        // A commit takes what has come meanwhile: at low rates each message has its own, at high ones the disk's pace bounds them.
        let commits = load.messages_per_second.min(self.disk.commits_per_second_max.value * load.lanes as f64);
        Rates {
            messages: load.messages_per_second,
            // All members but the sender; without groups a message goes to one other.
            deliveries: load.messages_per_second * load.group_members.max(2).saturating_sub(1) as f64,
            heartbeats: load.connections as f64 / HEARTBEAT_INTERVAL_S,
            commits,
        }
    }

    /// Each commit is a whole number of pages.
    fn log_bytes_per_second(&self, load: Workload, commits: f64, record: f64) -> f64 {
        if commits <= 0.0 {
            return 0.0;
        }
        let page = self.disk.page_bytes.value;
        let batch = load.messages_per_second / commits * record;
        commits * (batch / page).ceil() * page
    }

    fn assumed(&self) -> Vec<String> {
        let memory = self.memory.iter().map(|memory| (memory.provenance, memory.name.as_str()));
        let processor = self.processor.iter().map(|cost| (cost.provenance, cost.name.as_str()));
        let figures = [
            (self.disk.record_overhead_bytes.provenance, "record_overhead_bytes"),
            (self.disk.page_bytes.provenance, "page_bytes"),
            (self.disk.segment_write_amplification.provenance, "segment_write_amplification"),
            (self.disk.compression_ratio.provenance, "compression_ratio"),
            (self.disk.commits_per_second_max.provenance, "commits_per_second_max"),
            (self.network.frame_overhead_bytes.provenance, "frame_overhead_bytes"),
            (self.network.packet_overhead_bytes.provenance, "packet_overhead_bytes"),
            (self.network.heartbeat_bytes.provenance, "heartbeat_bytes"),
        ];
        let all = memory.chain(processor).chain(figures);
        all.filter(|(provenance, _)| *provenance == Provenance::Assumed).map(|(_, name)| name.to_owned()).collect()
    }
}

struct Rates {
    messages: f64,
    deliveries: f64,
    heartbeats: f64,
    commits: f64,
}

impl Rates {
    fn of(&self, event: Event) -> f64 {
        match event {
            Event::Message => self.messages,
            Event::Delivery => self.deliveries,
            Event::Heartbeat => self.heartbeats,
            Event::Commit => self.commits,
        }
    }
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
    };

    fn predict(load: Workload) -> Prediction {
        Coefficients::built_in().unwrap().predict(load)
    }

    #[test]
    fn half_a_million_connections_are_predicted() {
        let prediction = predict(LOAD);
        let connections: f64 =
            prediction.memory.iter().filter(|item| item.count == 500_000.0).map(|item| item.total).sum();
        assert_eq!(connections as u64, 500_000 * (570 + 4_287), "both measured figures, and nothing twice");
        assert_eq!(prediction.deliveries_per_second as u64, 19_000);
        let heartbeats = prediction.processor.iter().find(|item| item.name == "heartbeat").unwrap();
        assert_eq!(heartbeats.count as u64, 16_666);
        assert!((0.9..1.1).contains(&(prediction.cores / 0.616)), "{}", prediction.cores);
        assert_eq!(prediction.commits_per_second as u64, 1_000);
        assert!(prediction.disk_write_bytes_per_second > 4096.0 * 1_000.0);
        assert!(prediction.assumed.contains(&"segment_write_amplification".to_owned()));
    }

    #[test]
    fn the_log_writes_at_the_pace_of_the_disk() {
        let prediction = predict(Workload { messages_per_second: 100_000.0, ..LOAD });
        assert_eq!(prediction.commits_per_second as u64, 8_000);
        let idle = predict(Workload { messages_per_second: 0.0, ..LOAD });
        assert_eq!(idle.disk_write_bytes_per_second, 0.0);
        assert!(idle.cores > 0.0, "heartbeats go on");
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let prediction = predict(LOAD);
        assert!(prediction.does_not_fit(Some(24 << 30), Some(4)).is_empty());
        assert!(prediction.does_not_fit(None, None).is_empty());
        let lines = predict(Workload { messages_per_second: 10_000.0, ..LOAD }).does_not_fit(Some(1 << 30), Some(2));
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
        }
    }

    #[test]
    fn wrong_coefficients_are_refused_with_file_and_line() {
        let good = include_str!("../data/coefficients.toml");
        let cases = [
            (good.replace("bytes = 570", "bites = 779"), "own.toml:13: unknown field `bites`"),
            (good.replace("bytes = 570", "bytes = 0"), "above 0"),
            (good.replace("coefficients/1", "coefficients/2"), "its format is"),
            (good.replacen("\"measured\"", "\"guessed\"", 1), "own.toml:14: unknown variant `guessed`"),
        ];
        for (text, expected) in cases {
            let error = Coefficients::from_toml("own.toml", &text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
