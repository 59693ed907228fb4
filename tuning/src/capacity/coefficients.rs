//! What one of everything costs, as data: the file's form, reading, and changing single figures for writing it anew.
//! Pure.
//!
//! Invariant: each figure is finite, not below 0 and has a source; those that are divided by are above 0. Must not do:
//! predict.

use serde::{Deserialize, Serialize};

/// The version of the coefficients' form.
pub const FORMAT: &str = "antiphon-coefficients/2";

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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Coefficients {
    pub(super) format: String,
    /// What they were measured on.
    pub measured_on: MeasuredOn,
    pub(super) disk: Disk,
    pub(super) network: Network,
    pub(super) calibration: Calibration,
    pub(super) memory: Vec<Memory>,
    pub(super) processor: Vec<Processor>,
}

/// The measurements' circumstances, in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasuredOn {
    /// Cores, memory, disk.
    pub machine: String,
    /// The processor's name.
    pub cpu: String,
    /// The kernel's release.
    pub kernel: String,
    /// Of the measurements, as year-month-day.
    pub date: String,
    /// Of the sources.
    pub revision: String,
}

impl std::fmt::Display for MeasuredOn {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { machine, cpu, kernel, date, revision } = self;
        write!(formatter, "{machine}, {cpu}, Linux {kernel}, on {date}, at revision {revision}")
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Memory {
    pub(super) name: String,
    pub(super) space: Space,
    pub(super) per: Thing,
    pub(super) bytes: f64,
    /// The text of a message comes on top.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) with_text: bool,
    /// What it never grows beyond, a lane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) bytes_max_per_lane: Option<f64>,
    pub(super) provenance: Provenance,
    pub(super) source: String,
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
    /// Live connections with TLS: what they take beside that of a connection.
    TlsConnection,
    /// Shards.
    Shard,
    /// One, as soon as there are connections.
    ConnectedNode,
    /// Shards, as soon as there are connections.
    ConnectedShard,
    /// One, as soon as messages flow.
    MessagingNode,
    /// Shards, as soon as messages flow.
    MessagingShard,
    /// Shards that compress.
    DeflateShard,
    /// Log lanes.
    Lane,
    /// One.
    Node,
    /// Groups; without groups, two users each are a conversation.
    Group,
    /// Members of groups who are connected, each in each of their groups.
    Member,
    /// The same on a fresh node, which still has them in its memtables.
    FreshMember,
    /// Messages stored since the start.
    Message,
    /// History that clients read: none in the first seconds, all that there is room for in the long run.
    History,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Processor {
    pub(super) name: String,
    pub(super) per: Event,
    pub(super) microseconds: f64,
    pub(super) provenance: Provenance,
    pub(super) source: String,
}

/// What happens so many times a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A client sends a message.
    Message,
    /// A connection gets one: of each member, the sender's own too.
    Delivery,
    /// A client pings.
    Heartbeat,
    /// The log is written.
    Commit,
    /// One shard hands another something of a message: the send, its answer, what the members there get.
    Handover,
    /// A frame is encrypted or decrypted.
    TlsFrame,
    /// A frame of 512 bytes or more is compressed: once a shard that has members.
    CompressedFrame,
    /// A frame of 512 bytes or more is inflated.
    InflatedFrame,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Disk {
    pub(super) record_overhead_bytes: Figure,
    pub(super) page_bytes: Figure,
    pub(super) commits_per_second_max: Figure,
    pub(super) memtable_bytes: Figure,
    pub(super) compression_ratio: Figure,
    pub(super) segment_write_amplification: Figure,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Network {
    pub(super) send_overhead_bytes: Figure,
    pub(super) ack_bytes: Figure,
    pub(super) delivery_overhead_bytes: Figure,
    pub(super) heartbeat_in_bytes: Figure,
    pub(super) heartbeat_out_bytes: Figure,
    pub(super) packet_overhead_bytes: Figure,
    pub(super) tls_overhead_bytes: Figure,
    pub(super) deflate_ratio: Figure,
}

#[derive(Deserialize)]
struct Form {
    format: String,
}

/// Not the node's, but needed to measure it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Calibration {
    /// Kernel memory of the load generator's end of a connection.
    pub(super) generator_connection_bytes: Figure,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Figure {
    pub(super) value: f64,
    pub(super) provenance: Provenance,
    pub(super) source: String,
}

/// Why coefficients were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CoefficientsError {
    /// Change the file at this line.
    #[error("{file}:{line}: {message}")]
    File {
        /// Which.
        file: String,
        /// From 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// Use a name that is in the file.
    #[error("there is no figure {0}")]
    Unknown(String),
    /// A measurement came to nothing that a cost can be: measure again.
    #[error("{name} can't be {value}")]
    Value {
        /// Of which figure.
        name: String,
        /// What it was to be.
        value: String,
    },
}

impl Coefficients {
    /// Those that come with the crate.
    ///
    /// # Errors
    /// Never; a test reads them.
    pub fn built_in() -> Result<Self, CoefficientsError> {
        Self::from_toml("coefficients.toml", include_str!("../../data/coefficients.toml"))
    }

    /// Reads a file of coefficients; `file` is for messages.
    ///
    /// # Errors
    /// It is not one; the error names file and line.
    pub fn from_toml(file: &str, text: &str) -> Result<Self, CoefficientsError> {
        let wrong = |at: usize, message: String| {
            let line = text.get(..at).unwrap_or(text).matches('\n').count() + 1;
            CoefficientsError::File { file: file.to_owned(), line, message }
        };
        let of_error =
            |error: toml::de::Error| wrong(error.span().map_or(0, |span| span.start), error.message().to_owned());
        // The form first: a file of another has other fields, and a complaint about one of them would say nothing.
        let Form { format } = toml::from_str(text).map_err(of_error)?;
        if format != FORMAT {
            return Err(wrong(0, format!("its format is {format}, not {FORMAT}")));
        }
        let read: Self = toml::from_str(text).map_err(of_error)?;
        for (name, value, _, source) in read.all() {
            if !may_be(name, value) || source.trim().is_empty() {
                return Err(wrong(0, format!("{name}: a figure is not below 0, and has a source")));
            }
        }
        Ok(read)
    }

    /// The file's text.
    ///
    /// # Errors
    /// Never with what was read.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }

    /// A figure's value, by its name: bytes, microseconds, or what the name says.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<f64> {
        self.all().into_iter().find(|(known, ..)| *known == name).map(|(_, value, ..)| value)
    }

    /// Puts a measured figure in place of the one that is there.
    ///
    /// # Errors
    /// There is no such figure, or it can't have this value.
    pub fn measured(&mut self, name: &str, value: f64, source: String) -> Result<(), CoefficientsError> {
        if !may_be(name, value) {
            return Err(CoefficientsError::Value { name: name.to_owned(), value: value.to_string() });
        }
        // Four digits are more than any of these measurements has.
        let value = if value == 0.0 { 0.0 } else { rounded(value, 4) };
        let measured = Provenance::Measured;
        if let Some(memory) = self.memory.iter_mut().find(|memory| memory.name == name) {
            (memory.bytes, memory.provenance, memory.source) = (value, measured, source);
        } else if let Some(cost) = self.processor.iter_mut().find(|cost| cost.name == name) {
            (cost.microseconds, cost.provenance, cost.source) = (value, measured, source);
        } else {
            let figures = self.figures_mut().into_iter().find(|(known, _)| *known == name);
            let (_, figure) = figures.ok_or_else(|| CoefficientsError::Unknown(name.to_owned()))?;
            *figure = Figure { value, provenance: measured, source };
        }
        Ok(())
    }

    /// Names of what nobody has measured.
    pub(super) fn assumed(&self) -> Vec<String> {
        let assumed = self.all().into_iter().filter(|(_, _, provenance, _)| *provenance == Provenance::Assumed);
        assumed.map(|(name, ..)| name.to_owned()).collect()
    }

    fn all(&self) -> Vec<(&str, f64, Provenance, &str)> {
        let memory = self.memory.iter().map(|it| (it.name.as_str(), it.bytes, it.provenance, it.source.as_str()));
        let costs =
            self.processor.iter().map(|it| (it.name.as_str(), it.microseconds, it.provenance, it.source.as_str()));
        let Self { disk, network, calibration, .. } = self;
        let figures = [
            ("record_overhead_bytes", &disk.record_overhead_bytes),
            ("page_bytes", &disk.page_bytes),
            ("commits_per_second_max", &disk.commits_per_second_max),
            ("memtable_bytes", &disk.memtable_bytes),
            ("compression_ratio", &disk.compression_ratio),
            ("segment_write_amplification", &disk.segment_write_amplification),
            ("send_overhead_bytes", &network.send_overhead_bytes),
            ("ack_bytes", &network.ack_bytes),
            ("delivery_overhead_bytes", &network.delivery_overhead_bytes),
            ("heartbeat_in_bytes", &network.heartbeat_in_bytes),
            ("heartbeat_out_bytes", &network.heartbeat_out_bytes),
            ("packet_overhead_bytes", &network.packet_overhead_bytes),
            ("tls_overhead_bytes", &network.tls_overhead_bytes),
            ("deflate_ratio", &network.deflate_ratio),
            ("generator_connection_bytes", &calibration.generator_connection_bytes),
        ];
        let figures = figures.into_iter().map(|(name, it)| (name, it.value, it.provenance, it.source.as_str()));
        memory.chain(costs).chain(figures).collect()
    }

    /// Those that a bench may measure.
    fn figures_mut(&mut self) -> [(&'static str, &mut Figure); 8] {
        let Self { disk, network, calibration, .. } = self;
        [
            ("record_overhead_bytes", &mut disk.record_overhead_bytes),
            ("commits_per_second_max", &mut disk.commits_per_second_max),
            ("send_overhead_bytes", &mut network.send_overhead_bytes),
            ("ack_bytes", &mut network.ack_bytes),
            ("delivery_overhead_bytes", &mut network.delivery_overhead_bytes),
            ("heartbeat_in_bytes", &mut network.heartbeat_in_bytes),
            ("heartbeat_out_bytes", &mut network.heartbeat_out_bytes),
            ("generator_connection_bytes", &mut calibration.generator_connection_bytes),
        ]
    }
}

/// Whether a figure may have a value. A cost that is lost in the noise is 0; what is divided by is not.
fn may_be(name: &str, value: f64) -> bool {
    let divides = ["page_bytes", "commits_per_second_max", "compression_ratio"];
    value.is_finite() && value >= 0.0 && (value > 0.0 || !divides.contains(&name))
}

fn rounded(value: f64, digits: i32) -> f64 {
    let factor = 10_f64.powi(digits - 1 - value.abs().log10().floor() as i32);
    (value * factor).round() / factor
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = include_str!("../../data/coefficients.toml");

    #[test]
    fn wrong_coefficients_are_refused_with_file_and_line() {
        let line = |text: &str| GOOD.lines().position(|line| line.starts_with(text)).unwrap() + 1;
        let (bytes, provenance) = (line("bytes = "), line("provenance = "));
        let cases = [
            (GOOD.replacen("\nbytes = ", "\nbites = ", 1), format!("own.toml:{bytes}: unknown field `bites`")),
            (GOOD.replacen("\nbytes = ", "\nbytes = -", 1), "not below 0".to_owned()),
            (GOOD.replacen("value = 4096.0", "value = 0.0", 1), "page_bytes".to_owned()),
            (GOOD.replace("coefficients/2", "coefficients/1"), "own.toml:1: its format is".to_owned()),
            (
                GOOD.replacen("\nprovenance = \"measured\"", "\nprovenance = \"guessed\"", 1),
                format!("own.toml:{provenance}: unknown variant `guessed`"),
            ),
        ];
        for (text, expected) in cases {
            let error = Coefficients::from_toml("own.toml", &text).unwrap_err().to_string();
            assert!(error.contains(&expected), "{error}, not {expected}");
        }
    }

    #[test]
    fn measured_figures_replace_others_and_survive_the_file() {
        let mut coefficients = Coefficients::built_in().unwrap();
        for (name, value) in [("node_connection", 612.345_678), ("delivery", 4.25), ("ack_bytes", 41.0)] {
            coefficients.measured(name, value, "run 7".to_owned()).unwrap();
        }
        let read = Coefficients::from_toml("own.toml", &coefficients.to_toml().unwrap()).unwrap();
        assert_eq!(read, coefficients);
        assert_eq!(read.value("node_connection"), Some(612.3));
        assert_eq!((read.value("delivery"), read.value("ack_bytes")), (Some(4.25), Some(41.0)));
        let count = read.all().iter().filter(|(.., source)| *source == "run 7").count();
        assert_eq!(count, 3, "the others are as they were");
    }

    #[test]
    fn what_can_be_no_figure_is_not_taken() {
        let mut coefficients = Coefficients::built_in().unwrap();
        let mut put = |name: &str, value| coefficients.measured(name, value, "a run".to_owned());
        assert!(matches!(put("nothing", 1.0), Err(CoefficientsError::Unknown(_))));
        assert!(matches!(put("delivery", f64::NAN), Err(CoefficientsError::Value { .. })));
        assert!(matches!(put("delivery", -1.0), Err(CoefficientsError::Value { .. })));
        assert!(matches!(put("commits_per_second_max", 0.0), Err(CoefficientsError::Value { .. })));
        put("handover", 0.0).expect("a cost may be lost in the noise");
    }
}
