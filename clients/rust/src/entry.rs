//! Entries of a conversation's log, read out of their archives.

use antiphon_wire::{
    frame::{
        AccountChange, Bans, ChangeView, ConversationStart, EntryBytes, EntryError, EntryKind, HistoryAnswer,
        InviteChange, Joined, MembershipChange, RoleOf, Settings, roles_from_body, view_change,
    },
    ids::{ClientMessageId, ConversationId, Epoch, Ordinal, Sequence, TimestampMs, UserId},
};

use crate::message::Message;

/// One entry of a conversation's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Of which conversation.
    pub conversation: ConversationId,
    /// The log's incarnation.
    pub epoch: Epoch,
    /// Its place: 1, 2, 3 …
    pub sequence: Sequence,
    /// Messages up to and including it.
    pub ordinal: Ordinal,
    /// When the server took it.
    pub time_ms: TimestampMs,
    /// Who did it.
    pub sender: UserId,
    /// The sender's own name for it: messages and changes of messages have one.
    pub client_message_id: Option<ClientMessageId>,
    /// What it says.
    pub body: Body,
}

/// What an entry says. More kinds may come.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Body {
    /// A message, as it is now; `None` where it was deleted.
    Message(Option<Message>),
    /// The first entry.
    Created(ConversationStart),
    /// Members came or went.
    Membership(MembershipChange),
    /// Another title.
    Title(String),
    /// A message says something else.
    Edit {
        /// Which message.
        target: Sequence,
        /// What it says from now on; `None` where a later edit or a deletion took that away.
        message: Option<Message>,
    },
    /// A message was deleted for everybody.
    Deletion {
        /// Which message.
        target: Sequence,
    },
    /// A reaction was added or taken back.
    Reaction {
        /// To which message.
        target: Sequence,
        /// Which.
        reaction: String,
        /// Added.
        on: bool,
    },
    /// A message was pinned, or the pin taken off.
    Pin {
        /// Which message.
        target: Sequence,
        /// Pinned.
        on: bool,
    },
    /// Entries before one are gone.
    Retention {
        /// The first that is left.
        before: Sequence,
        /// Messages that there were before it.
        messages: Ordinal,
    },
    /// Members have other roles.
    Roles(Vec<RoleOf>),
    /// All of the group's settings, as they are from now on.
    Settings(Settings),
    /// Users are kept out, or may come again.
    Bans(Bans),
    /// An invite was made, or some were revoked.
    Invite(InviteChange),
    /// Somebody became a member by an invite.
    Joined(Joined),
    /// Account data was set, or taken away: in one's own account.
    AccountData(AccountChange),
    /// Of a kind that this version does not know: it counts, and says nothing.
    Unknown,
}

/// A page of history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The log's incarnation.
    pub epoch: Epoch,
    /// The first entry that the user may see.
    pub first: Sequence,
    /// The conversation's last one.
    pub last: Sequence,
    /// In order of their sequences.
    pub entries: Vec<Entry>,
}

impl Entry {
    pub(crate) fn read(bytes: &EntryBytes) -> Result<Self, EntryError> {
        let view = bytes.view()?;
        let kind = EntryKind::from(&view.kind);
        let is_named = kind == EntryKind::Message || kind.is_change();
        Ok(Self {
            conversation: ConversationId(view.conversation.0),
            epoch: Epoch(view.epoch.0.to_native()),
            sequence: Sequence(view.sequence.0.to_native()),
            ordinal: Ordinal(view.ordinal.0.to_native()),
            time_ms: TimestampMs(view.time_ms.0.to_native()),
            sender: UserId::new(view.sender.as_str()).map_err(|_| EntryError::Archive)?,
            client_message_id: is_named.then_some(ClientMessageId(view.client_message_id.0)),
            body: Body::read(kind, &view.body)?,
        })
    }
}

impl Body {
    fn read(kind: EntryKind, body: &[u8]) -> Result<Self, EntryError> {
        Ok(match kind {
            EntryKind::Message if body.is_empty() => Self::Message(None),
            EntryKind::Message => Self::Message(Some(Message::read(body)?)),
            EntryKind::Created => Self::Created(ConversationStart::from_body(body)?),
            EntryKind::Membership => {
                let change = MembershipChange::from_body(body)?;
                if change.is_of_nobody() { Self::Unknown } else { Self::Membership(change) }
            }
            EntryKind::Title => Self::Title(std::str::from_utf8(body).map_err(|_| EntryError::Text)?.to_owned()),
            EntryKind::Roles => Self::Roles(roles_from_body(body)?),
            EntryKind::Settings => Self::Settings(Settings::from_body(body)?),
            EntryKind::Bans => Self::Bans(Bans::from_body(body)?),
            EntryKind::Invite => Self::Invite(InviteChange::from_body(body)?),
            EntryKind::Joined => Self::Joined(Joined::from_body(body)?),
            EntryKind::AccountData => Self::AccountData(AccountChange::from_body(body)?),
            EntryKind::Edit | EntryKind::Deletion | EntryKind::Reaction | EntryKind::Pin | EntryKind::Retention => {
                Self::change(view_change(kind, body)?)?
            }
        })
    }

    fn change(view: ChangeView<'_>) -> Result<Self, EntryError> {
        Ok(match view {
            ChangeView::Edit { target, content } => {
                Self::Edit { target, message: content.map(Message::read).transpose()? }
            }
            ChangeView::Delete { target } => Self::Deletion { target },
            ChangeView::React { target, text, on } => Self::Reaction { target, reaction: text.to_owned(), on },
            ChangeView::Pin { target, on } => Self::Pin { target, on },
            ChangeView::Retain { before, messages } => Self::Retention { before, messages },
        })
    }
}

impl Page {
    pub(crate) fn read(answer: &HistoryAnswer) -> Result<Self, EntryError> {
        let HistoryAnswer { epoch, first, last, entries, .. } = answer;
        let entries = entries.iter().map(Entry::read).collect::<Result<_, _>>()?;
        Ok(Self { epoch: *epoch, first: *first, last: *last, entries })
    }
}

#[cfg(test)]
mod tests {
    use antiphon_wire::frame::{Change, Content, Entry as Written};

    use super::*;

    fn read(kind: EntryKind, body: Vec<u8>) -> Result<Entry, EntryError> {
        let entry = Written {
            conversation: ConversationId([1; 16]),
            epoch: Epoch(1),
            sequence: Sequence(9),
            ordinal: Ordinal(4),
            time_ms: TimestampMs(1_700_000_000_000),
            kind,
            client_message_id: ClientMessageId([2; 16]),
            sender: "ann".parse().unwrap(),
            body,
        };
        Entry::read(&EntryBytes(entry.to_archive().to_vec()))
    }

    #[test]
    fn entries_say_what_they_say() {
        let bob: UserId = "bob".parse().unwrap();
        let target = Sequence(3);
        let content = Message::text("hi").to_content().0;
        let change = |change: Change| (change.kind(), change.to_body(Ordinal(2)));
        let kept_out = Bans { on: true, users: vec![(bob.clone(), true)] };
        for ((kind, body), expect) in [
            ((EntryKind::Message, content), Body::Message(Some(Message::text("hi")))),
            ((EntryKind::Message, Vec::new()), Body::Message(None)),
            ((EntryKind::Membership, MembershipChange::default().to_body()), Body::Unknown),
            ((EntryKind::Title, b"Choir".to_vec()), Body::Title("Choir".to_owned())),
            ((EntryKind::Settings, Settings::default().to_body()), Body::Settings(Settings::default())),
            ((EntryKind::Bans, kept_out.to_body()), Body::Bans(kept_out)),
            (
                change(Change::Edit { target, content: Content::text("ho") }),
                Body::Edit { target, message: Some(Message::text("ho")) },
            ),
            (
                change(Change::React { target, text: "👍".to_owned(), on: true }),
                Body::Reaction { target, reaction: "👍".to_owned(), on: true },
            ),
            (change(Change::Pin { target, on: false }), Body::Pin { target, on: false }),
            (change(Change::Delete { target }), Body::Deletion { target }),
            (change(Change::Retain { before: target }), Body::Retention { before: target, messages: Ordinal(2) }),
        ] {
            let is_named = kind == EntryKind::Message || kind.is_change();
            let entry = read(kind, body).unwrap();
            assert_eq!(entry.body, expect);
            assert_eq!(entry.client_message_id.is_some(), is_named, "{kind:?}");
        }
        assert_eq!(read(EntryKind::Title, vec![0xff]), Err(EntryError::Text));
        assert!(Entry::read(&EntryBytes(vec![1, 2, 3])).is_err());
    }
}
