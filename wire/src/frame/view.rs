//! What a client is looking at, and what it hears of large conversations that it is not looking at.

use rkyv::{Archive, Deserialize, Serialize};

use crate::ids::{ConversationId, Epoch, Ordinal, Sequence, TimestampMs};

/// `view`: the client shows a conversation from now on, or does not any more.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct View {
    /// Which.
    pub conversation: ConversationId,
    /// Whether it is shown.
    pub open: bool,
}

/// Answers `view`.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct ViewAnswer {
    /// Of one that is open now, its last entry: what comes after it is pushed, what came before is in history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<Sequence>,
}

/// A large conversation that is not open has new entries.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct Advanced {
    /// Which.
    pub conversation: ConversationId,
    /// The log's incarnation.
    pub epoch: Epoch,
    /// Its last entry.
    pub sequence: Sequence,
    /// Messages up to there.
    pub ordinal: Ordinal,
    /// When that entry came.
    pub time_ms: TimestampMs,
}
