//! Entries: what a conversation's log is made of, and what a `message` frame carries.
//!
//! An entry's archive is made once, when the engine gives it its sequence, and stays the same bytes in the log, in segments and
//! in every recipient's frame. A message's content is the client's own bytes inside it.

use rkyv::{
    Archive, Deserialize, Portable, Serialize, api::high::HighValidator, bytecheck::CheckBytes,
    rancor::Error as RancorError, util::AlignedVec,
};

use super::Each;
use crate::{
    ids::{ClientMessageId, ConversationId, Epoch, Ordinal, Sequence, TimestampMs, UserId},
    limits::{CONTENT_TYPE_BYTES_MAX, DATA_BYTES_MAX, MENTIONS_PER_MESSAGE_MAX, REACTION_BYTES_MAX, TEXT_BYTES_MAX},
};

/// What an entry is. Numbers are for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Archive, Serialize, Deserialize)]
#[repr(u8)]
pub enum EntryKind {
    /// A message: the body is a [`Content`](super::Content), or empty if that was taken away.
    Message = 1,
    /// Members came or went: the body is a [`MembershipChange`] archive.
    Membership = 2,
    /// A new title: the body is its UTF-8.
    Title = 3,
    /// The first entry: the body is a [`ConversationStart`] archive.
    Created = 4,
    /// A message has another content; for this one and those below see [`super::view_change`].
    Edit = 5,
    /// A message's content is gone.
    Deletion = 6,
    /// A reaction to a message was added or removed.
    Reaction = 7,
    /// A message was pinned, or the pin taken off.
    Pin = 8,
    /// Entries before one are gone.
    Retention = 9,
    /// Members have other roles: for the body of this one and those below see [`super::groups`](super::Settings).
    Roles = 10,
    /// The group's settings.
    Settings = 11,
    /// Users are kept out, or may come again.
    Bans = 12,
    /// An invite was made, or some were revoked: the body is an [`InviteChange`](super::InviteChange).
    Invite = 13,
    /// Somebody became a member by an invite: the body is a [`Joined`](super::Joined).
    Joined = 14,
    /// Account data was set, or taken away: the body is an [`AccountChange`](super::AccountChange).
    AccountData = 15,
}

impl From<&ArchivedEntryKind> for EntryKind {
    fn from(kind: &ArchivedEntryKind) -> Self {
        match kind {
            ArchivedEntryKind::Message => Self::Message,
            ArchivedEntryKind::Membership => Self::Membership,
            ArchivedEntryKind::Title => Self::Title,
            ArchivedEntryKind::Created => Self::Created,
            ArchivedEntryKind::Edit => Self::Edit,
            ArchivedEntryKind::Deletion => Self::Deletion,
            ArchivedEntryKind::Reaction => Self::Reaction,
            ArchivedEntryKind::Pin => Self::Pin,
            ArchivedEntryKind::Retention => Self::Retention,
            ArchivedEntryKind::Roles => Self::Roles,
            ArchivedEntryKind::Settings => Self::Settings,
            ArchivedEntryKind::Bans => Self::Bans,
            ArchivedEntryKind::Invite => Self::Invite,
            ArchivedEntryKind::Joined => Self::Joined,
            ArchivedEntryKind::AccountData => Self::AccountData,
        }
    }
}

/// One entry of a conversation's log.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Entry {
    /// Where.
    pub conversation: ConversationId,
    /// The log's incarnation.
    pub epoch: Epoch,
    /// Its place: 1, 2, 3 …
    pub sequence: Sequence,
    /// Messages up to and including it.
    pub ordinal: Ordinal,
    /// When the server took it.
    pub time_ms: TimestampMs,
    /// What it is.
    pub kind: EntryKind,
    /// The sender's own name for a message or a change of one; zero for other kinds.
    pub client_message_id: ClientMessageId,
    /// Who did it.
    pub sender: UserId,
    /// By kind.
    pub body: Vec<u8>,
}

impl Entry {
    /// The entry's archive.
    #[must_use]
    pub fn to_archive(&self) -> AlignedVec {
        rkyv::to_bytes::<RancorError>(self).expect("an entry has no failing serializer")
    }
}

/// An entry's archive, as stored and sent: validate with [`EntryBytes::view`].
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct EntryBytes(pub Vec<u8>);

impl EntryBytes {
    /// Validates the bytes and looks at them in place.
    pub fn view(&self) -> Result<&ArchivedEntry, EntryError> {
        view_entry(&self.0)
    }
}

/// Validates an entry's archive and looks at it in place.
pub fn view_entry(bytes: &[u8]) -> Result<&ArchivedEntry, EntryError> {
    rkyv::access::<ArchivedEntry, RancorError>(bytes).map_err(|_| EntryError::Archive)
}

/// Why bytes are not an entry or a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Not a valid archive.
    #[error("not a valid archive")]
    Archive,
    /// Not a content that has its form.
    #[error("what the message says does not have its form")]
    Content,
    /// Data that says it is JSON.
    #[error("data of a JSON type is not one JSON value")]
    Json,
    /// More mentions than [`MENTIONS_PER_MESSAGE_MAX`].
    #[error("more than {MENTIONS_PER_MESSAGE_MAX} mentions")]
    TooManyMentions,
    /// A content of a kind that is not known here.
    #[error("a content of an unknown kind")]
    UnknownContent,
    /// Not UTF-8.
    #[error("text is not UTF-8")]
    Text,
    /// Nothing is said: no text, no data and nothing forwarded, or one of them without a byte.
    #[error("the message says nothing")]
    Empty,
    /// Text, data or their type beyond [`TEXT_BYTES_MAX`], [`DATA_BYTES_MAX`], [`CONTENT_TYPE_BYTES_MAX`].
    #[error(
        "text is longer than {TEXT_BYTES_MAX} bytes, data than {DATA_BYTES_MAX}, or its type than {CONTENT_TYPE_BYTES_MAX}"
    )]
    TooLong,
    /// A reaction beyond [`REACTION_BYTES_MAX`].
    #[error("a reaction is longer than {REACTION_BYTES_MAX} bytes")]
    ReactionTooLong,
    /// Not the body of an entry about a group.
    #[error("what it says of a group does not have its form")]
    Group,
    /// Not the body of a change of account data.
    #[error("what it says of account data does not have its form")]
    Account,
    /// Not the body of a change.
    #[error("a change of a message does not have its form")]
    Change,
}

/// The body of a [`EntryKind::Membership`] entry. No log has one of nobody: read from JSON, that is an entry of a kind that a later version
/// has, which counts in its conversation and says nothing here.
#[derive(
    Debug, Clone, Default, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize,
)]
pub struct MembershipChange {
    /// Who came.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[rkyv(with = Each)]
    pub added: Vec<UserId>,
    /// Who went.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[rkyv(with = Each)]
    pub removed: Vec<UserId>,
}

/// The body of a [`EntryKind::Created`] entry.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct ConversationStart {
    /// Whether it is the conversation of two.
    pub direct: bool,
    /// Empty for a direct conversation.
    pub title: String,
    /// All members, the creator with them.
    #[rkyv(with = Each)]
    pub members: Vec<UserId>,
}

/// Validates the body of a [`EntryKind::Membership`] or [`EntryKind::Created`] entry and looks at it in place.
pub fn view_body<T>(bytes: &[u8]) -> Result<&T, EntryError>
where
    T: Portable + for<'a> CheckBytes<HighValidator<'a, RancorError>>,
{
    rkyv::access::<T, RancorError>(bytes).map_err(|_| EntryError::Archive)
}

macro_rules! body {
    ($name:ident) => {
        impl $name {
            /// The body's bytes.
            #[must_use]
            pub fn to_body(&self) -> Vec<u8> {
                rkyv::to_bytes::<RancorError>(self).expect("a body has no failing serializer").to_vec()
            }

            /// Validates and reads a body.
            pub fn from_body(bytes: &[u8]) -> Result<Self, EntryError> {
                rkyv::from_bytes::<Self, RancorError>(bytes).map_err(|_| EntryError::Archive)
            }
        }
    };
}

impl MembershipChange {
    /// Whether nobody came or went.
    #[must_use]
    pub fn is_of_nobody(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty()
    }
}

body!(MembershipChange);
body!(ConversationStart);
