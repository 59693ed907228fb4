//! What happens to messages after they were sent: edits, deletions, reactions, pins, and the mark before which a conversation is gone.
//!
//! Each is an entry of its own. Bodies are a few fixed bytes, little endian, and then at most one piece of variable length:
//!
//! ```text
//! edit       target u64 · content …          the content is a message's; it is taken away when a later edit or a deletion replaces it
//! deletion   target u64
//! reaction   target u64 · on u8 · UTF-8 …
//! pin        target u64 · on u8
//! retention  before u64 · messages u64       messages before that entry, so that counts go on without them
//! ```
//! Invariant: of bytes that [`view_change`] let pass a later fold needs no check. Must not do: know who may do what.

use rkyv::{Archive, Deserialize, Serialize};

use super::{Content, Each, EntryError, EntryKind, view_content};
use crate::{
    ids::{ClientMessageId, ConversationId, Epoch, Ordinal, Sequence, TimestampMs, UserId},
    limits::{JSON_INTEGER_MAX, REACTION_BYTES_MAX},
};

/// A change of a message, or of what is left of a conversation, as a client asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The message has another content from now on.
    Edit {
        /// Which message.
        target: Sequence,
        /// Its content.
        content: Content,
    },
    /// The message's content is gone, for everybody.
    Delete {
        /// Which message.
        target: Sequence,
    },
    /// The sender's reaction is there from now on, or is not.
    React {
        /// To which message.
        target: Sequence,
        /// The reaction: short text, mostly one emoji.
        text: String,
        /// Whether it is added or removed.
        on: bool,
    },
    /// The message is pinned from now on, or is not.
    Pin {
        /// Which message.
        target: Sequence,
        /// Whether it is pinned.
        on: bool,
    },
    /// Entries before one are gone.
    Retain {
        /// The first entry that stays.
        before: Sequence,
    },
}

impl Change {
    /// The kind of its entry.
    #[must_use]
    pub fn kind(&self) -> EntryKind {
        match self {
            Self::Edit { .. } => EntryKind::Edit,
            Self::Delete { .. } => EntryKind::Deletion,
            Self::React { .. } => EntryKind::Reaction,
            Self::Pin { .. } => EntryKind::Pin,
            Self::Retain { .. } => EntryKind::Retention,
        }
    }

    /// The message that it changes; `None` for a retention mark.
    #[must_use]
    pub fn target(&self) -> Option<Sequence> {
        match self {
            Self::Edit { target, .. }
            | Self::Delete { target }
            | Self::React { target, .. }
            | Self::Pin { target, .. } => Some(*target),
            Self::Retain { .. } => None,
        }
    }

    /// The body of its entry. `messages` is how many there are before a retention mark, and of no use to the others.
    #[must_use]
    pub fn to_body(&self, messages: Ordinal) -> Vec<u8> {
        let first = match self {
            Self::Retain { before } => *before,
            _ => self.target().unwrap_or_default(),
        };
        let mut body = first.0.to_le_bytes().to_vec();
        match self {
            Self::Edit { content, .. } => body.extend_from_slice(&content.0),
            Self::Delete { .. } => {}
            Self::React { text, on, .. } => {
                body.push(u8::from(*on));
                body.extend_from_slice(text.as_bytes());
            }
            Self::Pin { on, .. } => body.push(u8::from(*on)),
            Self::Retain { .. } => body.extend_from_slice(&messages.0.to_le_bytes()),
        }
        body
    }
}

/// A change's body, in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeView<'a> {
    /// Of an edit.
    Edit {
        /// Which message.
        target: Sequence,
        /// Its new content; `None` if that was taken away since.
        content: Option<&'a [u8]>,
    },
    /// Of a deletion.
    Delete {
        /// Which message.
        target: Sequence,
    },
    /// Of a reaction.
    React {
        /// To which message.
        target: Sequence,
        /// The reaction.
        text: &'a str,
        /// Whether it was added or removed.
        on: bool,
    },
    /// Of a pin.
    Pin {
        /// Which message.
        target: Sequence,
        /// Whether it was pinned.
        on: bool,
    },
    /// Of a retention mark.
    Retain {
        /// The first entry that stays.
        before: Sequence,
        /// Messages before it.
        messages: Ordinal,
    },
}

impl EntryKind {
    /// Whether its entries change messages: those have a body for [`view_change`], and a client message id.
    #[must_use]
    pub fn is_change(self) -> bool {
        matches!(self, Self::Edit | Self::Deletion | Self::Reaction | Self::Pin | Self::Retention)
    }
}

/// Validates the body of an entry that changes a message and looks at it in place.
///
/// # Errors
/// [`EntryError::Change`] if the body, or the kind, is not one of these.
pub fn view_change(kind: EntryKind, body: &[u8]) -> Result<ChangeView<'_>, EntryError> {
    let (first, rest) = body.split_first_chunk::<8>().ok_or(EntryError::Change)?;
    let target = Sequence(u64::from_le_bytes(*first));
    if !(1..=JSON_INTEGER_MAX).contains(&target.0) {
        return Err(EntryError::Change);
    }
    Ok(match (kind, rest) {
        (EntryKind::Edit, []) => ChangeView::Edit { target, content: None },
        (EntryKind::Edit, content) => {
            view_content(content)?;
            ChangeView::Edit { target, content: Some(content) }
        }
        (EntryKind::Deletion, []) => ChangeView::Delete { target },
        (EntryKind::Reaction, [on @ (0 | 1), text @ ..]) => {
            let text = std::str::from_utf8(text).map_err(|_| EntryError::Text)?;
            check_reaction(text)?;
            ChangeView::React { target, text, on: *on == 1 }
        }
        (EntryKind::Pin, [on @ (0 | 1)]) => ChangeView::Pin { target, on: *on == 1 },
        (EntryKind::Retention, rest) => {
            let messages = u64::from_le_bytes(rest.try_into().map_err(|_| EntryError::Change)?);
            if messages >= target.0 {
                return Err(EntryError::Change);
            }
            ChangeView::Retain { before: target, messages: Ordinal(messages) }
        }
        _ => return Err(EntryError::Change),
    })
}

/// Whether text can be a reaction: 1 to [`REACTION_BYTES_MAX`] bytes.
pub(crate) fn check_reaction(text: &str) -> Result<(), EntryError> {
    match text.len() {
        0 => Err(EntryError::Empty),
        length if length > REACTION_BYTES_MAX => Err(EntryError::ReactionTooLong),
        _ => Ok(()),
    }
}

/// `edit`: gives an own message another content. In JSON the content's field stands beside the ids.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Edit {
    /// Where.
    pub conversation: ConversationId,
    /// The client's own name for the change, kept through retries.
    pub client_message_id: ClientMessageId,
    /// Which message.
    pub target: Sequence,
    /// What it says from now on.
    pub content: Content,
}

/// `delete`: takes an own message's content away from everybody.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct Delete {
    /// Where.
    pub conversation: ConversationId,
    /// The client's own name for the change, kept through retries.
    pub client_message_id: ClientMessageId,
    /// Which message.
    pub target: Sequence,
}

/// `react`: adds or removes a reaction of one's own.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct React {
    /// Where.
    pub conversation: ConversationId,
    /// The client's own name for the change, kept through retries.
    pub client_message_id: ClientMessageId,
    /// To which message.
    pub target: Sequence,
    /// Short text, mostly one emoji.
    pub reaction: String,
    /// Whether it is there from now on.
    pub on: bool,
}

/// `pin`: pins a message, or takes the pin off.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct Pin {
    /// Where.
    pub conversation: ConversationId,
    /// The client's own name for the change, kept through retries.
    pub client_message_id: ClientMessageId,
    /// Which message.
    pub target: Sequence,
    /// Whether it is pinned from now on.
    pub on: bool,
}

/// `retain`: entries before one are gone.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct Retain {
    /// Where.
    pub conversation: ConversationId,
    /// The client's own name for the change, kept through retries.
    pub client_message_id: ClientMessageId,
    /// The first entry that stays.
    pub before: Sequence,
}

/// `reactions`: lists who reacted to a message, in order of their ids.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct Reactions {
    /// Where.
    pub conversation: ConversationId,
    /// To which message.
    pub target: Sequence,
    /// Only users after this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<UserId>,
    /// At most so many users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// Answers `reactions`.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct ReactionsAnswer {
    /// The page.
    #[rkyv(with = Each)]
    pub reactions: Vec<Reactor>,
    /// What to give as `after` for the next page, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<UserId>,
}

/// A user and the user's reactions to a message.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct Reactor {
    /// Who.
    pub user: UserId,
    /// In the order in which they were added.
    pub reactions: Vec<String>,
}

/// `pins`: lists the pinned messages.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct Pins {
    /// Where.
    pub conversation: ConversationId,
}

/// Answers `pins`.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct PinsAnswer {
    /// Sequences of the messages, in the order in which they were pinned; those that the user may see.
    pub pins: Vec<Sequence>,
}

/// What became of messages that the server gives by `history` or a resume; comes right before the answer or `caught_up`.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct States {
    /// Where.
    pub conversation: ConversationId,
    /// The log's incarnation.
    pub epoch: Epoch,
    /// All entries up to here are in it: those after it come on top.
    pub as_of: Sequence,
    /// In ascending order; a message that nothing happened to is not among them.
    #[rkyv(with = Each)]
    pub states: Vec<MessageState>,
}

/// What became of a message since it was sent.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct MessageState {
    /// Which message.
    pub sequence: Sequence,
    /// The last edit; what the message says now stands in the message itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edited: Option<Edited>,
    /// Its content is gone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
    /// It is pinned.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pinned: bool,
    /// Messages in the thread that it began; those that were deleted do not count.
    #[serde(default, skip_serializing_if = "is_none")]
    pub replies: u32,
    /// In the order in which each was first there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reactions: Vec<ReactionCount>,
}

fn is_none(count: &u32) -> bool {
    *count == 0
}

/// The last edit of a message.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct Edited {
    /// The edit's own sequence.
    pub sequence: Sequence,
    /// When the server took it.
    pub time_ms: TimestampMs,
}

/// How many users have a reaction to a message.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct ReactionCount {
    /// The reaction.
    pub reaction: String,
    /// How many users.
    pub count: u32,
    /// Whether the asking user is among them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub mine: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_what_its_body_says() {
        let target = Sequence(7);
        let text = Content::text("hi");
        for (change, expected) in [
            (
                Change::Edit { target, content: text.clone() },
                ChangeView::Edit { target, content: Some(text.0.as_slice()) },
            ),
            (Change::Delete { target }, ChangeView::Delete { target }),
            (Change::React { target, text: "👍".into(), on: true }, ChangeView::React { target, text: "👍", on: true }),
            (Change::Pin { target, on: false }, ChangeView::Pin { target, on: false }),
            (Change::Retain { before: target }, ChangeView::Retain { before: target, messages: Ordinal(5) }),
        ] {
            assert!(change.kind().is_change());
            assert_eq!(view_change(change.kind(), &change.to_body(Ordinal(5))), Ok(expected));
        }
        let taken_away = &Change::Delete { target }.to_body(Ordinal(0));
        assert_eq!(view_change(EntryKind::Edit, taken_away), Ok(ChangeView::Edit { target, content: None }));
    }

    #[test]
    fn bodies_of_no_known_form_are_refused() {
        let body = |target: u64, rest: &[u8]| [&target.to_le_bytes(), rest].concat();
        for (kind, body, error) in [
            (EntryKind::Deletion, vec![1; 7], EntryError::Change),
            (EntryKind::Deletion, body(0, &[]), EntryError::Change),
            (EntryKind::Deletion, body(1 << 60, &[]), EntryError::Change),
            (EntryKind::Deletion, body(1, &[0]), EntryError::Change),
            (EntryKind::Edit, body(1, &[9]), EntryError::UnknownContent),
            (EntryKind::Edit, body(1, &[1]), EntryError::Empty),
            (EntryKind::Reaction, body(1, &[]), EntryError::Change),
            (EntryKind::Reaction, body(1, &[2, b'x']), EntryError::Change),
            (EntryKind::Reaction, body(1, &[1]), EntryError::Empty),
            (EntryKind::Reaction, body(1, &[1, 0xff]), EntryError::Text),
            (EntryKind::Reaction, body(1, &[[1].as_slice(), &[b'x'; 33]].concat()), EntryError::ReactionTooLong),
            (EntryKind::Pin, body(1, &[]), EntryError::Change),
            (EntryKind::Pin, body(1, &[1, 1]), EntryError::Change),
            (EntryKind::Retention, body(9, &[0; 7]), EntryError::Change),
            (EntryKind::Retention, body(9, &9_u64.to_le_bytes()), EntryError::Change),
            (EntryKind::Message, body(1, &[]), EntryError::Change),
        ] {
            assert_eq!(view_change(kind, &body), Err(error), "{kind:?} {body:?}");
        }
    }
}
