//! A conversation's state in memory: what commands are judged by.
//!
//! It runs ahead of the disk: a command changes it when its record is staged, so that the next one sees it. Positions tell how far
//! ahead: what reads show of it is settled once the lane is durable up to there. Made from rows by [`Loading`], and changed exactly
//! as those rows would be.
//!
//! Must not do: I/O, or decide what a command may do (that is [`crate::engine`]'s).

use std::{collections::BTreeMap, rc::Rc, sync::Arc};

use antiphon_wire::{
    frame::{Role, Settings},
    ids::{ConversationId, Epoch, LanePosition, Ordinal, Sequence, TimestampMs, UserId},
};

use crate::{
    account::{AccountData, ItemRow},
    changes::{RetentionRow, decode_pins},
    group::{Group, InviteRow, decode_ban, decode_role},
    keys::{self, Key},
    memtable::Tail,
    rows::{MemberRow, PointerRow, StartRow, TailRow},
};

/// What a conversation and a member cost in memory, roughly, for the bound of what is loaded.
const CONVERSATION_BYTES: usize = 400;
const MEMBER_BYTES: usize = 140;

/// A conversation, with all its members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Conversation {
    pub(crate) id: ConversationId,
    pub(crate) start: StartRow,
    pub(crate) title: Arc<str>,
    /// The last entry staged.
    pub(crate) last: TailRow,
    /// The last record staged, entries and marks.
    pub(crate) record: LanePosition,
    /// The last record staged that changed more than pointers and the tail.
    pub(crate) change: LanePosition,
    /// Pinned messages, in the order in which they were pinned.
    pub(crate) pins: Vec<Sequence>,
    /// Before which entry it is gone.
    pub(crate) retention: RetentionRow,
    pub(crate) group: Group,
    /// What is set, if this is its creator's account.
    pub(crate) account: Option<Box<AccountData>>,
    /// Sorted by user.
    members: Vec<MemberState>,
    recipients: Rc<[UserId]>,
}

/// A member as commands see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MemberState {
    pub(crate) user: UserId,
    pub(crate) visible_from: Sequence,
    /// Never before the entry that added the member.
    pub(crate) pointer: PointerRow,
}

impl Conversation {
    /// A new one, without members; the entry that creates it is applied next.
    pub(crate) fn new(id: ConversationId, start: StartRow, title: Arc<str>) -> Self {
        let is_account = !start.direct && id == ConversationId::account(&start.creator);
        Self {
            account: is_account.then(Box::default),
            id,
            start,
            title,
            last: TailRow::default(),
            record: LanePosition(0),
            change: LanePosition(0),
            pins: Vec::new(),
            retention: RetentionRow::default(),
            group: Group::default(),
            members: Vec::new(),
            recipients: Rc::from([]),
        }
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.start.epoch
    }

    pub(crate) fn members(&self) -> &[MemberState] {
        &self.members
    }

    /// All members, shared.
    pub(crate) fn recipients(&self) -> Rc<[UserId]> {
        self.recipients.clone()
    }

    pub(crate) fn member(&self, user: &UserId) -> Option<&MemberState> {
        self.index(user).map(|index| &self.members[index])
    }

    /// Where a member stands among the members.
    pub(crate) fn index(&self, user: &UserId) -> Option<usize> {
        self.members.binary_search_by(|member| member.user.cmp(user)).ok()
    }

    /// Messages of which the member has not read.
    pub(crate) fn unread(&self, member: &MemberState) -> u64 {
        self.unread_after(member.pointer.ordinal)
    }

    /// Messages that come after so many; those that are gone do not count.
    pub(crate) fn unread_after(&self, read: Ordinal) -> u64 {
        self.last.ordinal.0.saturating_sub(read.max(self.retention.messages).0)
    }

    /// The first entry that a member sees.
    pub(crate) fn first_seen(&self, member: &MemberState) -> Sequence {
        member.visible_from.max(self.retention.before)
    }

    /// The other one of two; `None` in a group.
    pub(crate) fn peer(&self, user: &UserId) -> Option<UserId> {
        let other = self.members.iter().find(|member| member.user != *user);
        other.filter(|_| self.start.direct).map(|member| member.user.clone())
    }

    /// Bytes in memory, roughly.
    pub(crate) fn bytes(&self) -> usize {
        let group = &self.group;
        let named = self.members.len() + group.roles().len() + group.bans().len() + group.invites().len();
        let account = self.account.as_ref().map_or(0, |account| account.memory_bytes());
        CONVERSATION_BYTES + named * MEMBER_BYTES + self.pins.len() * size_of::<Sequence>() + account
    }

    /// Takes in the next entry's place: of a message, if `message`.
    pub(crate) fn advance(&mut self, position: LanePosition, message: bool, time: TimestampMs) {
        self.last = TailRow {
            position,
            sequence: self.last.sequence.next(),
            ordinal: Ordinal(self.last.ordinal.0 + u64::from(message)),
            time,
        };
        self.record = position;
        if !message {
            self.change = position;
        }
    }

    /// Takes in the pointers of the sender of the last entry, a message: of the member at this index.
    pub(crate) fn sent(&mut self, index: usize) {
        let last = self.last;
        self.members[index].pointer =
            PointerRow { read: last.sequence, ordinal: last.ordinal, delivered: last.sequence };
    }

    /// Takes in moved pointers.
    pub(crate) fn marked(&mut self, position: LanePosition, user: &UserId, pointer: PointerRow) {
        self.record = position;
        if let Some(index) = self.index(user) {
            self.members[index].pointer = pointer;
        }
    }

    /// Takes in who came and went by the last entry.
    pub(crate) fn changed(&mut self, added: &[UserId], removed: &[UserId]) {
        // A group may be large: each of them is looked up, and the others are moved once.
        let mut gone: Vec<usize> = removed.iter().filter_map(|user| self.index(user)).collect();
        gone.sort_unstable();
        let (mut gone, mut index) = (gone.into_iter().peekable(), 0);
        if gone.peek().is_some() {
            self.members.retain(|_| {
                index += 1;
                gone.next_if_eq(&(index - 1)).is_none()
            });
        }
        let row = self.group.joined(self.last.sequence, self.last.ordinal);
        let before = self.members.len();
        for user in added {
            let state = MemberState::new(user.clone(), row, None);
            match self.members[..before].binary_search_by(|member| member.user.cmp(user)) {
                Ok(index) => self.members[index] = state,
                Err(_) => self.members.push(state),
            }
        }
        if self.members.len() > before {
            // Two runs, of which the former is in order: merged rather than sorted.
            self.members.sort_by(|one, other| one.user.cmp(&other.user));
        }
        self.share();
    }

    fn share(&mut self) {
        self.recipients = self.members.iter().map(|member| member.user.clone()).collect();
    }
}

impl MemberState {
    fn new(user: UserId, row: MemberRow, pointer: Option<PointerRow>) -> Self {
        // Pointers from before the member was (last) added count for nothing.
        let before = Sequence(row.visible_from.0.saturating_sub(1));
        let fresh = PointerRow { read: before, ordinal: row.ordinal, delivered: before };
        let mut pointer = pointer.unwrap_or(fresh);
        if pointer.read <= before {
            pointer = PointerRow { delivered: pointer.delivered.max(before), ..fresh };
        }
        Self { user, visible_from: row.visible_from, pointer }
    }
}

/// A conversation being put together from rows: the oldest source first, each newer one over it.
#[derive(Debug, Default)]
pub(crate) struct Loading {
    start: Option<StartRow>,
    title: Option<Arc<str>>,
    last: Option<TailRow>,
    members: BTreeMap<UserId, Option<MemberRow>>,
    pointers: BTreeMap<UserId, PointerRow>,
    pins: Vec<Sequence>,
    retention: RetentionRow,
    settings: Settings,
    roles: BTreeMap<UserId, Option<Role>>,
    bans: BTreeMap<UserId, bool>,
    invites: BTreeMap<Sequence, Option<InviteRow>>,
    account: AccountData,
}

impl Loading {
    /// Takes in a row of a segment; `None` if it does not have its form.
    pub(crate) fn row(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        match keys::parse(key)? {
            Key::Start => self.start = Some(StartRow::decode(value)?),
            Key::Title => self.title = Some(std::str::from_utf8(value).ok()?.into()),
            Key::Tail => self.last = Some(TailRow::decode(value)?),
            Key::Member(user) => drop(self.members.insert(user, Some(MemberRow::decode(value)?))),
            Key::Pointer(user) => drop(self.pointers.insert(user, PointerRow::decode(value)?)),
            Key::Pins => self.pins = decode_pins(value)?,
            Key::Retention => self.retention = RetentionRow::decode(value)?,
            Key::Settings => self.settings = Settings::from_body(value).ok()?,
            Key::Role(user) => drop(self.roles.insert(user, Some(decode_role(value)?))),
            Key::Ban(user) => drop(self.bans.insert(user, decode_ban(value).map(|_| true)?)),
            Key::Invite(at) => drop(self.invites.insert(at, Some(InviteRow::decode(value)?))),
            Key::Account(key) => self.account.load(key, ItemRow::decode(value)?),
            Key::Lost(_)
            | Key::OldMessageId(_)
            | Key::Entry(_)
            | Key::State(_)
            | Key::Reactor(..)
            | Key::User(_)
            | Key::MessageId(..) => return None,
        }
        Some(())
    }

    /// Takes in a memtable's part.
    pub(crate) fn tail(&mut self, tail: &Tail) {
        self.start = tail.start.clone().or(self.start.take());
        self.title = tail.title.clone().or(self.title.take());
        self.last = tail.last.or(self.last);
        self.members.extend(tail.members.iter().map(|(user, row)| (user.clone(), *row)));
        self.pointers.extend(tail.pointers.iter().cloned());
        if let Some(Some(pins)) = tail.changed(&keys::PINS) {
            self.pins = decode_pins(pins).unwrap_or_default();
        }
        if let Some(Some(retention)) = tail.changed(&keys::RETENTION) {
            self.retention = RetentionRow::decode(retention).unwrap_or_default();
        }
        for (suffix, value) in tail.changes.iter().flat_map(|changes| changes.iter()) {
            match (keys::parse_suffix(suffix), value) {
                (Some(Key::Settings), Some(body)) => self.settings = Settings::from_body(body).unwrap_or_default(),
                (Some(Key::Role(user)), role) => drop(self.roles.insert(user, role.as_deref().and_then(decode_role))),
                (Some(Key::Ban(user)), ban) => drop(self.bans.insert(user, ban.is_some())),
                (Some(Key::Invite(at)), row) => {
                    drop(self.invites.insert(at, row.as_deref().and_then(InviteRow::decode)));
                }
                (Some(Key::Account(key)), row) => match row.as_deref().and_then(ItemRow::decode) {
                    Some(row) => self.account.load(key, row),
                    None => self.account.unset(&key),
                },
                _ => {}
            }
        }
    }

    /// The conversation, if there is one.
    pub(crate) fn finish(mut self, id: ConversationId) -> Option<Conversation> {
        let mut conversation = Conversation::new(id, self.start?, self.title.unwrap_or_default());
        conversation.last = self.last?;
        (conversation.pins, conversation.retention) = (self.pins, self.retention);
        conversation.group.settings = self.settings;
        for (user, role) in self.roles {
            role.into_iter().for_each(|role| conversation.group.load_role(user.clone(), role));
        }
        for (user, _) in self.bans.into_iter().filter(|(_, is_on)| *is_on) {
            conversation.group.load_ban(user);
        }
        for (at, row) in self.invites {
            row.into_iter().for_each(|row| conversation.group.load_invite(at, row));
        }
        if let Some(account) = &mut conversation.account {
            **account = self.account;
        }
        for (user, row) in self.members {
            if let Some(row) = row {
                let pointer = self.pointers.remove(&user);
                conversation.members.push(MemberState::new(user, row, pointer));
            }
        }
        conversation.share();
        Some(conversation)
    }
}
