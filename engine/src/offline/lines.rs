//! The lines of a dump, each a JSON object with one member that names its kind; docs/store.md shows them.
//!
//! An entry is written in its fields. Where these would not give its archive back byte for byte the archive is written
//! too, and counts.

use antiphon_wire::{
    frame::{
        AccountChange, Bans, Change, ChangeView, Content, ConversationStart, Entry, EntryKind, InviteChange, Joined,
        JsonText, MembershipChange, RoleOf, Settings, roles_from_body, roles_to_body, view_change, view_content,
        view_entry,
    },
    ids::{ClientMessageId, ConversationId, Epoch, LanePosition, Ordinal, Sequence, TimestampMs, UserId},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use crate::window::Horizon;

/// The version of the lines that is written, and the only one that is read.
pub(super) const VERSION: u32 = 1;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line {
    Lane(LaneLine),
    Conversation(ConversationLine),
    Lost(LostLine),
    Row(RowLine),
    Member(MemberLine),
    Pointer(PointerLine),
    Entry(Box<EntryLine>),
    End(EndLine),
}

/// A lane begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LaneLine {
    pub(super) version: u32,
    pub(super) lane: u16,
    /// Sixteen hexadecimal digits.
    pub(super) store: String,
    /// The last position that is stored.
    pub(super) position: LanePosition,
    /// Time of the last entry.
    pub(super) time_ms: TimestampMs,
    /// Message ids that were made before are forgotten; left out where none are.
    #[serde(default, skip_serializing_if = "is_never")]
    pub(super) ids_forgotten_until_ms: TimestampMs,
    /// Message ids that do not say when they were made are, if the message was stored before.
    #[serde(default, skip_serializing_if = "is_never")]
    pub(super) untimed_ids_forgotten_until_ms: TimestampMs,
}

impl LaneLine {
    pub(super) fn horizon(&self) -> Horizon {
        let (made, stored) = (self.ids_forgotten_until_ms, self.untimed_ids_forgotten_until_ms);
        Horizon { made, stored, ..Horizon::default() }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_never(time: &TimestampMs) -> bool {
    time.0 == 0
}

/// A conversation begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConversationLine {
    pub(super) conversation: ConversationId,
    pub(super) epoch: Epoch,
    pub(super) time_ms: TimestampMs,
    pub(super) direct: bool,
    pub(super) creator: UserId,
    pub(super) title: String,
    pub(super) last_sequence: Sequence,
    pub(super) last_ordinal: Ordinal,
    pub(super) last_position: LanePosition,
    pub(super) last_time_ms: TimestampMs,
    /// Entries are lost, and what all of them made of messages and of the group is told by lines of rows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) rows: bool,
}

/// Entries of the conversation at hand that are lost, as a repair has found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LostLine {
    pub(super) conversation: ConversationId,
    pub(super) first: Sequence,
    pub(super) last: Sequence,
}

/// A row of what became of messages or of the group at hand, as it is stored; only where entries are lost, which could say it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RowLine {
    pub(super) conversation: ConversationId,
    /// What is behind the conversation in the row's key, in Base64.
    suffix: String,
    /// In Base64.
    value: String,
}

impl RowLine {
    pub(super) fn new(conversation: ConversationId, suffix: &[u8], value: &[u8]) -> Self {
        Self { conversation, suffix: STANDARD.encode(suffix), value: STANDARD.encode(value) }
    }

    /// The key's suffix and the value.
    pub(super) fn parts(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        Some((STANDARD.decode(&self.suffix).ok()?, STANDARD.decode(&self.value).ok()?))
    }
}

/// A member of the conversation at hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MemberLine {
    pub(super) conversation: ConversationId,
    pub(super) user: UserId,
    pub(super) visible_from: Sequence,
    pub(super) ordinal: Ordinal,
}

/// The pointers of somebody who is or was a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PointerLine {
    pub(super) conversation: ConversationId,
    pub(super) user: UserId,
    pub(super) read: Sequence,
    pub(super) ordinal: Ordinal,
    pub(super) delivered: Sequence,
}

/// An entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EntryLine {
    pub(super) conversation: ConversationId,
    pub(super) sequence: Sequence,
    pub(super) ordinal: Ordinal,
    pub(super) position: LanePosition,
    epoch: Epoch,
    time_ms: TimestampMs,
    kind: Kind,
    sender: UserId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client_message_id: Option<ClientMessageId>,
    /// Of a message of plain text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// Of a message, or an edit of one, whose content was taken away: `true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    taken_away: Option<bool>,
    /// Of a title.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    title: Option<String>,
    /// Of a change of members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    members: Option<MembershipChange>,
    /// Of a first entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    start: Option<ConversationStart>,
    /// Of a change of a message: which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target: Option<Sequence>,
    /// Of a reaction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reaction: Option<String>,
    /// Of a reaction or a pin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    on: Option<bool>,
    /// Of a retention mark: the first entry that stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    before: Option<Sequence>,
    /// Of a retention mark: messages before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    messages: Option<Ordinal>,
    /// Of a change of roles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    roles: Option<Vec<RoleOf>>,
    /// Of a change of settings: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    settings: Option<Settings>,
    /// Of users who are kept out, or may come again (`on`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    users: Option<Vec<UserId>>,
    /// Those among them who were members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    removed: Option<Vec<UserId>>,
    /// What became of invites.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    invite: Option<InviteChange>,
    /// Who joined by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    joined: Option<Joined>,
    /// Of account data: of which key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// Of account data: as JSON text; left out where the key was taken away, or was set again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    /// The archive in base64, where the fields would not give it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    archive: Option<String>,
}

/// The lane ends: what there was of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EndLine {
    pub(super) lane: u16,
    pub(super) conversations: u64,
    pub(super) entries: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Message,
    Membership,
    Title,
    Created,
    Edit,
    Deletion,
    Reaction,
    Pin,
    Retention,
    Roles,
    Settings,
    Bans,
    Invite,
    Joined,
    AccountData,
}

impl Line {
    pub(super) fn to_text(&self) -> String {
        serde_json::to_string(self).expect("lines have nothing that JSON lacks")
    }

    pub(super) fn from_text(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }
}

impl EntryLine {
    /// The line of an entry's archive; `None` if it is not valid.
    pub(super) fn of(position: LanePosition, archive: &[u8]) -> Option<Self> {
        let view = view_entry(archive).ok()?;
        let entry = rkyv::deserialize::<Entry, rkyv::rancor::Error>(view).ok()?;
        let mut line = Self {
            conversation: entry.conversation,
            sequence: entry.sequence,
            ordinal: entry.ordinal,
            position,
            epoch: entry.epoch,
            time_ms: entry.time_ms,
            kind: Kind::of(entry.kind),
            sender: entry.sender,
            client_message_id: None,
            text: None,
            taken_away: None,
            title: None,
            members: None,
            start: None,
            target: None,
            reaction: None,
            on: None,
            before: None,
            messages: None,
            roles: None,
            settings: None,
            users: None,
            removed: None,
            invite: None,
            joined: None,
            key: None,
            value: None,
            archive: None,
        };
        match entry.kind {
            EntryKind::Message => {
                line.client_message_id = Some(entry.client_message_id);
                match view_content(&entry.body) {
                    _ if entry.body.is_empty() => line.taken_away = Some(true),
                    Ok(view) => line.text = view.text.map(str::to_owned),
                    Err(_) => {}
                }
            }
            EntryKind::Title => line.title = Some(String::from_utf8(entry.body).ok()?),
            EntryKind::Membership => line.members = Some(MembershipChange::from_body(&entry.body).ok()?),
            EntryKind::Created => line.start = Some(ConversationStart::from_body(&entry.body).ok()?),
            EntryKind::Roles => line.roles = Some(roles_from_body(&entry.body).ok()?),
            EntryKind::Settings => line.settings = Some(Settings::from_body(&entry.body).ok()?),
            EntryKind::Bans => {
                let bans = Bans::from_body(&entry.body).ok()?;
                line.on = Some(bans.on);
                line.removed = Some(bans.removed().cloned().collect()).filter(|removed: &Vec<_>| !removed.is_empty());
                line.users = Some(bans.users.into_iter().map(|(user, _)| user).collect());
            }
            EntryKind::Invite => line.invite = Some(InviteChange::from_body(&entry.body).ok()?),
            EntryKind::Joined => line.joined = Some(Joined::from_body(&entry.body).ok()?),
            EntryKind::AccountData => {
                let AccountChange { key, value } = AccountChange::from_body(&entry.body).ok()?;
                (line.key, line.value) = (Some(key), value.map(|value| value.0));
            }
            kind => {
                line.client_message_id = Some(entry.client_message_id);
                line.change(view_change(kind, &entry.body).ok()?);
            }
        }
        if line.encoded().is_none_or(|encoded| encoded != archive) {
            line.archive = Some(STANDARD.encode(archive));
        }
        Some(line)
    }

    /// Takes in what a change of a message says.
    fn change(&mut self, change: ChangeView<'_>) {
        match change {
            ChangeView::Edit { target, content } => {
                self.target = Some(target);
                match content.map(view_content) {
                    Some(Ok(view)) => self.text = view.text.map(str::to_owned),
                    Some(Err(_)) => {}
                    None => self.taken_away = Some(true),
                }
            }
            ChangeView::Delete { target } => self.target = Some(target),
            ChangeView::React { target, text, on } => {
                (self.target, self.reaction, self.on) = (Some(target), Some(text.to_owned()), Some(on));
            }
            ChangeView::Pin { target, on } => (self.target, self.on) = (Some(target), Some(on)),
            ChangeView::Retain { before, messages } => (self.before, self.messages) = (Some(before), Some(messages)),
        }
    }

    /// What a message or an edit says: nothing, if that was taken away.
    fn content(&self) -> Option<Content> {
        match (&self.text, self.taken_away) {
            (Some(text), None | Some(false)) => Some(Content::text(text)),
            (None, Some(true)) => Some(Content(Vec::new())),
            _ => None,
        }
    }

    /// The body of a change of a message.
    fn change_body(&self) -> Option<Vec<u8>> {
        let change = match self.kind {
            Kind::Edit => Change::Edit { target: self.target?, content: self.content()? },
            Kind::Deletion => Change::Delete { target: self.target? },
            Kind::Reaction => Change::React { target: self.target?, text: self.reaction.clone()?, on: self.on? },
            Kind::Pin => Change::Pin { target: self.target?, on: self.on? },
            Kind::Retention => Change::Retain { before: self.before? },
            Kind::Message
            | Kind::Membership
            | Kind::Title
            | Kind::Created
            | Kind::Roles
            | Kind::Settings
            | Kind::Bans
            | Kind::Invite
            | Kind::Joined
            | Kind::AccountData => return None,
        };
        Some(change.to_body(self.messages.unwrap_or_default()))
    }

    /// The archive that the line stands for.
    pub(super) fn to_archive(&self) -> Result<Vec<u8>, String> {
        match &self.archive {
            Some(text) => STANDARD.decode(text).map_err(|error| format!("archive: {error}")),
            None => self.encoded().ok_or_else(|| "an entry without what its kind consists of".to_owned()),
        }
    }

    /// The archive of the fields; `None` if they do not have what the kind needs.
    fn encoded(&self) -> Option<Vec<u8>> {
        let body = match self.kind {
            Kind::Message => self.content()?.0,
            Kind::Title => self.title.clone()?.into_bytes(),
            Kind::Membership => self.members.as_ref()?.to_body(),
            Kind::Created => self.start.as_ref()?.to_body(),
            Kind::Roles => roles_to_body(self.roles.as_deref()?),
            Kind::Settings => self.settings.as_ref()?.to_body(),
            Kind::Bans => {
                let was_member = |user: &UserId| self.removed.as_ref().is_some_and(|removed| removed.contains(user));
                let users = self.users.as_ref()?.iter().map(|user| (user.clone(), was_member(user)));
                Bans { on: self.on?, users: users.collect() }.to_body()
            }
            Kind::Invite => self.invite.as_ref()?.to_body(),
            Kind::Joined => self.joined.as_ref()?.to_body(),
            Kind::AccountData => {
                let (key, value) = (self.key.clone()?, self.value.clone().map(JsonText));
                AccountChange { key, value }.to_body()
            }
            _ => self.change_body()?,
        };
        let entry = Entry {
            conversation: self.conversation,
            epoch: self.epoch,
            sequence: self.sequence,
            ordinal: self.ordinal,
            time_ms: self.time_ms,
            kind: self.kind.entry(),
            client_message_id: self.client_message_id.unwrap_or(ClientMessageId([0; 16])),
            sender: self.sender.clone(),
            body,
        };
        Some(entry.to_archive().to_vec())
    }
}

impl Kind {
    const fn of(kind: EntryKind) -> Self {
        match kind {
            EntryKind::Message => Self::Message,
            EntryKind::Membership => Self::Membership,
            EntryKind::Title => Self::Title,
            EntryKind::Created => Self::Created,
            EntryKind::Edit => Self::Edit,
            EntryKind::Deletion => Self::Deletion,
            EntryKind::Reaction => Self::Reaction,
            EntryKind::Pin => Self::Pin,
            EntryKind::Retention => Self::Retention,
            EntryKind::Roles => Self::Roles,
            EntryKind::Settings => Self::Settings,
            EntryKind::Bans => Self::Bans,
            EntryKind::Invite => Self::Invite,
            EntryKind::Joined => Self::Joined,
            EntryKind::AccountData => Self::AccountData,
        }
    }

    const fn entry(self) -> EntryKind {
        match self {
            Self::Message => EntryKind::Message,
            Self::Membership => EntryKind::Membership,
            Self::Title => EntryKind::Title,
            Self::Created => EntryKind::Created,
            Self::Edit => EntryKind::Edit,
            Self::Deletion => EntryKind::Deletion,
            Self::Reaction => EntryKind::Reaction,
            Self::Pin => EntryKind::Pin,
            Self::Retention => EntryKind::Retention,
            Self::Roles => EntryKind::Roles,
            Self::Settings => EntryKind::Settings,
            Self::Bans => EntryKind::Bans,
            Self::Invite => EntryKind::Invite,
            Self::Joined => EntryKind::Joined,
            Self::AccountData => EntryKind::AccountData,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: EntryKind, body: Vec<u8>) -> Entry {
        Entry {
            conversation: ConversationId([7; 16]),
            epoch: Epoch(1),
            sequence: Sequence(3),
            ordinal: Ordinal(2),
            time_ms: TimestampMs(1_700_000_000_000),
            kind,
            client_message_id: ClientMessageId([if kind == EntryKind::Message { 9 } else { 0 }; 16]),
            sender: UserId::new("ann").unwrap(),
            body,
        }
    }

    fn lines(entry: &Entry) -> String {
        let archive = entry.to_archive();
        let line = Line::Entry(Box::new(EntryLine::of(LanePosition(5), &archive).unwrap()));
        let text = line.to_text();
        let Line::Entry(again) = Line::from_text(&text).unwrap() else { panic!("{text}") };
        assert_eq!(again.to_archive().unwrap(), archive.to_vec(), "{text}");
        text
    }

    #[test]
    fn an_entry_is_its_fields() {
        let text = lines(&entry(EntryKind::Message, Content::text("hello \"ann\"\n").0));
        let expected = concat!(
            r#"{"entry":{"conversation":"07070707-0707-0707-0707-070707070707","sequence":3,"ordinal":2,"position":5,"#,
            r#""epoch":1,"time_ms":1700000000000,"kind":"message","sender":"ann","#,
            r#""client_message_id":"09090909-0909-0909-0909-090909090909","text":"hello \"ann\"\n"}}"#
        );
        assert_eq!(text, expected);
        let change = MembershipChange { added: vec![UserId::new("bob").unwrap()], removed: Vec::new() };
        assert!(lines(&entry(EntryKind::Membership, change.to_body())).contains(r#""members":{"added":["bob"]}"#));
        assert!(lines(&entry(EntryKind::Title, b"t".to_vec())).contains(r#""title":"t""#));
        let target = Sequence(2);
        for (change, expected) in [
            (Change::Edit { target, content: Content::text("new") }, r#""text":"new","target":2}"#),
            (Change::Edit { target, content: Content(Vec::new()) }, r#""taken_away":true,"target":2}"#),
            (Change::Delete { target }, r#""kind":"deletion""#),
            (Change::React { target, text: "ok".into(), on: true }, r#""target":2,"reaction":"ok","on":true}"#),
            (Change::Pin { target, on: false }, r#""target":2,"on":false}"#),
            (Change::Retain { before: target }, r#""before":2,"messages":1}"#),
        ] {
            let mut changed = entry(change.kind(), change.to_body(Ordinal(1)));
            changed.client_message_id = ClientMessageId([9; 16]);
            let text = lines(&changed);
            assert!(text.contains(expected) && !text.contains("archive"), "{text}");
        }
        let text = lines(&entry(EntryKind::Message, Vec::new()));
        assert!(text.contains(r#""taken_away":true"#) && !text.contains("archive"), "{text}");
        let start = ConversationStart { direct: false, title: String::new(), members: vec![] };
        assert!(!lines(&entry(EntryKind::Created, start.to_body())).contains("archive"));
    }

    #[test]
    fn what_the_fields_do_not_say_is_kept_as_the_archive() {
        // A content of a kind that is not known here, and an id where none belongs.
        assert!(lines(&entry(EntryKind::Message, vec![99, 1])).contains(r#""archive":""#));
        let mut odd = entry(EntryKind::Title, b"t".to_vec());
        odd.client_message_id = ClientMessageId([1; 16]);
        assert!(lines(&odd).contains(r#""archive":""#));
    }

    #[test]
    fn lines_of_no_known_form_are_refused() {
        for text in
            ["", "{}", "[]", r#"{"nonsense":{}}"#, r#"{"end":{"lane":0,"conversations":1,"entries":2,"more":3}}"#]
        {
            assert!(Line::from_text(text).is_err(), "{text}");
        }
        let without = lines(&entry(EntryKind::Title, b"t".to_vec())).replace(r#","title":"t""#, "");
        let Line::Entry(line) = Line::from_text(&without).unwrap() else { panic!() };
        assert!(line.to_archive().is_err());
    }
}
