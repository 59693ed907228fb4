//! Frames about messages: `send`, `history`, pointers and their pushes.

use rkyv::{Archive, Deserialize, Serialize};

use super::{Content, EntryBytes};
use crate::ids::{ClientMessageId, ConversationId, Epoch, Ordinal, Sequence, TimestampMs, UserId};

/// `send`: a message. In JSON the content's field stands beside the ids: `"text":"hi"`.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Send {
    /// Where to.
    pub conversation: ConversationId,
    /// The client's own name for the message, kept through retries.
    pub client_message_id: ClientMessageId,
    /// What. These bytes are what is stored and delivered.
    pub content: Content,
}

/// Answers `send`. The message is durable.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct Ack {
    /// Its sequence.
    pub sequence: Sequence,
    /// Its ordinal.
    pub ordinal: Ordinal,
    /// When the server took it, the first time.
    pub time_ms: TimestampMs,
    /// Whether this is a retry of a message that was stored before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub duplicate: bool,
}

/// `history`: a page of entries. At most one of `before`, `after`, `around`; none means the latest.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct History {
    /// Of what.
    pub conversation: ConversationId,
    /// The last entries before this sequence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Sequence>,
    /// The first entries after this sequence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Sequence>,
    /// Half of the page up to and with this sequence, half after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub around: Option<Sequence>,
    /// At most so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// Answers `history`: entries in ascending order, without a gap.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct HistoryAnswer {
    /// Of what.
    pub conversation: ConversationId,
    /// The log's incarnation.
    pub epoch: Epoch,
    /// The first sequence that the user may see.
    pub first: Sequence,
    /// The conversation's last sequence.
    pub last: Sequence,
    /// The page.
    pub entries: Vec<EntryBytes>,
}

/// `read`: the user has read everything up to a sequence.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct Read {
    /// Where.
    pub conversation: ConversationId,
    /// Up to here.
    pub sequence: Sequence,
}

/// `delivered`: a device of the user has everything up to a sequence.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct Delivered {
    /// Where.
    pub conversation: ConversationId,
    /// Up to here.
    pub sequence: Sequence,
}

/// Answers `read` and `delivered`: where the pointers are now.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct Marked {
    /// Read up to here.
    pub read: Sequence,
    /// Delivered up to here.
    pub delivered: Sequence,
    /// Messages after the read pointer.
    pub unread: u64,
}

/// A member's pointers moved.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct Receipt {
    /// Where.
    pub conversation: ConversationId,
    /// Whose.
    pub user: UserId,
    /// Read up to here.
    pub read: Sequence,
    /// Delivered up to here.
    pub delivered: Sequence,
}

/// More of a conversation is missing than a resume streams.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct TooFar {
    /// Which.
    pub conversation: ConversationId,
    /// The log's incarnation.
    pub epoch: Epoch,
    /// History can be read from here on.
    pub first: Sequence,
    /// Up to here; pushes go on after it.
    pub last: Sequence,
}
