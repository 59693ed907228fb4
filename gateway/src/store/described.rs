//! What a checkpoint says of itself, in `checkpoint.json`: docs/format.md shows it. It is written last, so a folder without it is none.

use std::{fs, io, path::Path};

use antiphon_engine::{Checkpointed, manifest::Manifest};
use serde::{Deserialize, Serialize};

use super::{error::ToolError, lane_name};
use crate::store_folder::CHECKPOINT_FILE;

/// The version that is written and read.
const VERSION: u32 = 1;

/// Longest text of a checkpoint: 16 lanes take some kilobytes.
const BYTES_MAX: u64 = 64 << 10;

/// A checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Described {
    checkpoint: Fields,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Fields {
    version: u32,
    /// When it was asked for, by the clock of the one who did.
    taken_ms: u64,
    /// All lanes, in order.
    lanes: Vec<Lane>,
}

/// A lane of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lane {
    lane: u16,
    store: String,
    position: u64,
    time_ms: u64,
    segments: u64,
    segment_bytes: u64,
}

impl Described {
    pub(super) fn new(taken_ms: u64, lanes: &[Checkpointed]) -> Self {
        let lanes = lanes.iter().map(|of| Lane {
            lane: of.lane,
            store: of.store.clone(),
            position: of.position.0,
            time_ms: of.time_ms.0,
            segments: of.segments,
            segment_bytes: of.segment_bytes,
        });
        Self { checkpoint: Fields { version: VERSION, taken_ms, lanes: lanes.collect() } }
    }

    pub(super) fn to_text(&self) -> String {
        serde_json::to_string_pretty(self).expect("numbers and texts are JSON") + "\n"
    }

    /// What a folder says of itself; `None` if it is no checkpoint.
    pub(super) fn read(folder: &Path) -> Result<Option<Self>, ToolError> {
        let path = folder.join(CHECKPOINT_FILE);
        let wrong = |what: String| ToolError::Checkpoint { path: path.clone(), what };
        let bytes = match fs::metadata(&path) {
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            found => found.map_err(|source| ToolError::Io { path: path.clone(), source })?.len(),
        };
        if bytes > BYTES_MAX {
            return Err(wrong(format!("has {bytes} bytes, which is more than it can have")));
        }
        let text = fs::read_to_string(&path).map_err(|source| ToolError::Io { path: path.clone(), source })?;
        Self::parse(&text).map(Some).map_err(wrong)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let value: serde_json::Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        // Asked first, so that a newer one is told from a broken one.
        let version = value.pointer("/checkpoint/version").and_then(serde_json::Value::as_u64);
        match version {
            Some(version) if version == u64::from(VERSION) => {}
            Some(version) => return Err(format!("is of version {version}; {VERSION} is the one that is read")),
            None => return Err("does not say what it is".to_owned()),
        }
        let described: Self = serde_json::from_value(value).map_err(|error| error.to_string())?;
        let lanes = &described.checkpoint.lanes;
        if lanes.is_empty() || lanes.iter().zip(0..).any(|(of, number)| of.lane != number) {
            return Err("does not name its lanes in order".to_owned());
        }
        Ok(described)
    }

    /// How many lanes it has.
    pub(super) fn lanes(&self) -> usize {
        self.checkpoint.lanes.len()
    }

    /// Holds a lane's manifest against what is said of it: files of two checkpoints may have been mixed.
    pub(super) fn check(&self, folder: &Path, manifest: &Manifest) -> Result<(), ToolError> {
        let of = usize::try_from(manifest.lane).ok().and_then(|lane| self.checkpoint.lanes.get(lane));
        let told = of.map(|of| (of.store.clone(), of.position, of.segments));
        let found = (format!("{:016x}", manifest.store), manifest.flushed_position, manifest.segments.len() as u64);
        if told.as_ref() == Some(&found) {
            return Ok(());
        }
        let lane = lane_name("lane", manifest.lane as u16);
        let what = format!("{lane} is not of this checkpoint: files of several were mixed");
        Err(ToolError::Checkpoint { path: folder.join(CHECKPOINT_FILE), what })
    }
}

#[cfg(test)]
mod tests {
    use antiphon_wire::ids::{LanePosition, TimestampMs};

    use super::*;

    fn described() -> Described {
        let lane = Checkpointed {
            lane: 0,
            store: "0123456789abcdef".to_owned(),
            position: LanePosition(42),
            time_ms: TimestampMs(1_700_000_000_000),
            segments: 2,
            segment_bytes: 81_920,
            written_bytes: 0,
        };
        Described::new(1_700_000_001_000, &[lane])
    }

    #[test]
    fn version_one_has_this_text() {
        let text = r#"{
  "checkpoint": {
    "version": 1,
    "taken_ms": 1700000001000,
    "lanes": [
      {
        "lane": 0,
        "store": "0123456789abcdef",
        "position": 42,
        "time_ms": 1700000000000,
        "segments": 2,
        "segment_bytes": 81920
      }
    ]
  }
}
"#;
        assert_eq!(described().to_text(), text);
        assert_eq!(Described::parse(text), Ok(described()));
    }

    #[test]
    fn what_is_none_is_refused_and_a_newer_one_by_name() {
        let text = described().to_text();
        for (from, to, part) in [
            ("\"version\": 1", "\"version\": 2", "is of version 2"),
            ("\"version\": 1,", "", "does not say what it is"),
            ("\"lane\": 0", "\"lane\": 1", "does not name its lanes in order"),
            ("\"position\": 42,", "", "position"),
            ("{", "", "trailing characters"),
        ] {
            let error = Described::parse(&text.replacen(from, to, 1)).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        assert!(Described::parse("{\"checkpoint\":{\"version\":1,\"taken_ms\":0,\"lanes\":[]}}").is_err());
    }

    #[test]
    fn a_lane_of_another_checkpoint_is_told() {
        let (store, lane, edit, next_segment) = (0x0123_4567_89ab_cdef, 0, 7, 3);
        let segment = |id| antiphon_engine::manifest::SegmentEntry {
            id: antiphon_engine::segment::SegmentId(id),
            level: 0,
            file_bytes: 40_960,
            rows: 1,
            deletes: 0,
            first_key: vec![1],
            last_key: vec![1],
            adopted: None,
        };
        let segments = vec![segment(2), segment(1)];
        let manifest = Manifest { store, lane, edit, next_segment, flushed_position: 42, segments, blob: Vec::new() };
        let folder = Path::new("copy");
        described().check(folder, &manifest).unwrap();
        for other in [
            Manifest { store: 1, ..manifest.clone() },
            Manifest { lane: 1, ..manifest.clone() },
            Manifest { flushed_position: 43, ..manifest.clone() },
        ] {
            let error = described().check(folder, &other).unwrap_err().to_string();
            assert!(error.contains("is not of this checkpoint"), "{error}");
        }
    }
}
