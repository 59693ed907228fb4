//! What verifying says: what was looked at, and what is wrong.

use std::fmt;

use antiphon_wire::ids::{ConversationId, LanePosition, Sequence, UserId};
use serde::Serialize;

/// Most findings that are kept; the rest is counted. More than a person reads, and few enough for memory.
pub(super) const FINDINGS_MAX: usize = 10_000;

/// Something that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Finding {
    /// The file, where one is to blame. `log` stands for what the log's files hold beyond the segments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Where in it: the beginning of the block or batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// Whose entries or rows are concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conversation: Option<ConversationId>,
    /// Whose membership or pointers are concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<UserId>,
    /// The first entry concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<Sequence>,
    /// The last one; missing after a `first` where the end is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<Sequence>,
    /// What is wrong.
    pub what: String,
    /// Nothing is lost by it: what is damaged is stored elsewhere too.
    pub harmless: bool,
}

impl fmt::Display for Finding {
    /// One line, from the file to what is wrong, as far as it is known.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(formatter, "{file}: ")?;
        }
        if let Some(offset) = self.offset {
            write!(formatter, "byte {offset}: ")?;
        }
        if let Some(conversation) = self.conversation {
            write!(formatter, "conversation {conversation}: ")?;
        }
        if let Some(user) = &self.user {
            write!(formatter, "user {user}: ")?;
        }
        match (self.first, self.last) {
            (Some(first), Some(last)) if first == last => write!(formatter, "entry {first}: ")?,
            (Some(first), Some(last)) => write!(formatter, "entries {first} to {last}: ")?,
            (Some(first), None) => write!(formatter, "entries from {first} on: ")?,
            (None, _) => {}
        }
        formatter.write_str(&self.what)?;
        if self.harmless { formatter.write_str(" (nothing is lost)") } else { Ok(()) }
    }
}

/// What [`verify`](super::verify()) looked at and found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct VerifyReport {
    /// Which lane.
    pub lane: u16,
    /// The last position that is stored.
    pub position: LanePosition,
    /// Segments.
    pub segments: u64,
    /// Their data blocks.
    pub blocks: u64,
    /// Rows of all segments, hidden and deleted ones too.
    pub rows: u64,
    /// Conversations of the merged view.
    pub conversations: u64,
    /// Their entries.
    pub entries: u64,
    /// Users' rows.
    pub user_rows: u64,
    /// Log files.
    pub log_files: u64,
    /// Batches that were replayed.
    pub batches: u64,
    /// Records that segments do not hold yet.
    pub records: u64,
    /// Bytes read.
    pub bytes_read: u64,
    /// The store is encrypted, and its key was not given: checksums and order were checked, and nothing that is sealed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub not_opened: bool,
    /// A last write that never completed, and was never acknowledged: the next start cuts it off. No damage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub torn_tail: Option<String>,
    /// Files of an interrupted flush or merge, which the next start removes. No damage.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub leftovers: Vec<String>,
    /// Entries that a repair has found lost, and told in the store. No damage.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub losses: Vec<Finding>,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// Findings beyond those that are kept.
    pub findings_left_out: u64,
}

impl VerifyReport {
    /// Whether everything is as it must be.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty() && self.findings_left_out == 0
    }

    /// Takes in what a repair has told; beyond what is kept it is left out.
    pub(super) fn lose(&mut self, loss: Finding) {
        if self.losses.len() < FINDINGS_MAX {
            self.losses.push(loss);
        }
    }

    pub(super) fn find(&mut self, finding: Finding) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        } else {
            self.findings_left_out += 1;
        }
    }
}
