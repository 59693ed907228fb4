//! Frames about the session itself: `connect`, `ping`, errors, resume's end, `goodbye`.

use rkyv::{Archive, Deserialize, Serialize};

use crate::{
    codes::ErrorCode,
    ids::{ConversationId, DeviceId, Epoch, IdError, Sequence, TimestampMs, UserId},
};

/// `connect`: who is there, and what the client has already.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct Connect {
    /// A JWT. May be left out if a cookie or header of the upgrade carried one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The device. May be left out if the token names it; the token's word counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceId>,
    /// What the client has. Left out by a client that starts afresh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<Resume>,
    /// The client's name and version, for the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<ClientInfo>,
}

/// What a client has when it comes back.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct Resume {
    /// The last position it was given, unread.
    pub position: PositionBytes,
    /// Conversations of which it received entries after that position, so that they are not sent twice. May be short or empty.
    #[serde(default, deserialize_with = "crate::json::absent_if_null", skip_serializing_if = "Vec::is_empty")]
    pub known: Vec<Known>,
}

/// A [`crate::position::Position`] in its encoded form: bytes here, base64url text in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct PositionBytes(pub Vec<u8>);

impl serde::Serialize for PositionBytes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
        serializer.serialize_str(&URL_SAFE_NO_PAD.encode(&self.0))
    }
}

impl<'de> serde::Deserialize<'de> for PositionBytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        URL_SAFE_NO_PAD.decode(text.as_bytes()).map(Self).map_err(|_| serde::de::Error::custom(IdError::Position))
    }
}

/// How much of one conversation a client has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct Known {
    /// Which conversation.
    pub conversation: ConversationId,
    /// Of which incarnation.
    pub epoch: Epoch,
    /// Everything up to here, as far as the client may see it.
    pub sequence: Sequence,
}

/// A client's name and version.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct ClientInfo {
    /// Such as `antiphon-web`.
    pub name: String,
    /// Such as `1.4.0`.
    #[serde(default, deserialize_with = "crate::json::absent_if_null")]
    pub version: String,
}

/// Answers `connect`.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct Welcome {
    /// Who the token says you are.
    pub user: UserId,
    /// The device of this session.
    pub device: DeviceId,
    /// The session's number, for logs.
    pub session: String,
    /// The server's clock.
    pub time_ms: TimestampMs,
    /// Ping when nothing was sent for so long.
    pub heartbeat_interval_ms: u32,
    /// What happens to `resume`.
    pub resume: ResumeOutcome,
    /// What this server accepts.
    pub limits: Limits,
}

/// What a server does with `resume`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum ResumeOutcome {
    /// None was asked for: `caught_up` follows at once.
    Fresh = 0,
    /// What is missing follows, then `caught_up`.
    Resuming = 1,
    /// The position is of another store or of the future: forget all conversations and list them again.
    Reset = 2,
}

/// What a server accepts.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct Limits {
    /// Longest frame from a client.
    pub frame_bytes_max: u32,
    /// Longest text of a message.
    pub text_bytes_max: u32,
    /// Most users in one `create` or `members`.
    pub members_per_request_max: u32,
    /// Most members of a group.
    pub group_members_max: u32,
    /// Longest page.
    pub page_items_max: u32,
    /// Sustained requests per second of a connection.
    pub requests_per_second_max: u32,
}

/// `ping`: a heartbeat. Any frame counts as one; this one also fetches a position.
#[derive(
    Debug, Clone, Default, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize,
)]
pub struct Ping {}

/// Answers `ping`.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct Pong {
    /// The server's clock.
    pub time_ms: TimestampMs,
    /// Everything up to here was sent before this frame. Absent until `caught_up`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<PositionBytes>,
}

/// `refresh`: another token for the session, before the one that it has is over.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct Refresh {
    /// A JWT for the session's user, and for its device if it names one.
    pub token: String,
}

/// Answers `refresh`: until when the session has a token.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct Refreshed {
    /// By the server's clock; absent if tokens do not end here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<TimestampMs>,
}

/// The session's token is about to be over.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct Expiring {
    /// When the session ends, by the server's clock, if no `refresh` comes before.
    pub expires_ms: TimestampMs,
}

/// All that was missing has been sent.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct CaughtUp {
    /// Everything up to here was sent before this frame.
    pub position: PositionBytes,
}

/// A request failed, or (without an id) the connection did.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ErrorFrame {
    /// What kind of failure.
    pub code: ErrorCode,
    /// What exactly, for a developer.
    pub text: String,
    /// When the same request may succeed, if that is known.
    pub retry_after_ms: Option<u32>,
}

/// The last frame before the server closes.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct Goodbye {
    /// The close code that follows: [`crate::codes::CloseCode`].
    pub code: u16,
    /// The code's name.
    pub reason: String,
    /// When to come back, if at all; already spread over clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reconnect_after_ms: Option<u32>,
}
