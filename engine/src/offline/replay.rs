//! What a conversation's entries say when they are taken one after the other: the state that its other rows must agree
//! with.
//!
//! Memory is that of everybody who was ever a member, and of the messages that something happened to. Pure: entries in, faults out.

use std::{collections::BTreeMap, sync::Arc};

use antiphon_wire::{
    frame::{
        AccountChange, ArchivedEntry, ArchivedEntryKind, ConversationStart, EntryKind, MembershipChange, Settings,
        members_changed, view_change, view_content, view_entry,
    },
    ids::{ClientMessageId, ConversationId, Epoch, LanePosition, Sequence, UserId},
};

use crate::{
    account::AccountData,
    changes::{ChangedRow, Fold, Full, RetentionRow},
    group::Group,
    keys,
    lane::record::{Change, Record, is_entry},
    memtable::tail_row,
    rows::{MemberRow, StartRow, TailRow, UserRow},
};

const GROUP: &str = "what it says of the group is not valid";

/// A conversation as its entries make it.
#[derive(Debug, Default)]
pub(super) struct Replay {
    pub(super) start: Option<StartRow>,
    pub(super) title: Option<String>,
    pub(super) last: Option<TailRow>,
    /// Everybody who was ever a member.
    pub(super) users: BTreeMap<UserId, UserState>,
    /// What became of messages.
    pub(super) changes: Fold,
    pub(super) group: Group,
    pub(super) account: AccountData,
    /// Some entries are missing, so that members and title may not be those that the rows tell of.
    pub(super) gap: bool,
}

/// How a user stands to a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct UserState {
    /// `None` for somebody who left.
    pub(super) member: Option<MemberRow>,
    pub(super) row: UserRow,
}

/// What taking an entry came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    /// Entries between the one before and this one that are not there.
    pub(super) missing: Option<(Sequence, Sequence)>,
    /// What does not fit the entries before.
    pub(super) wrong: Vec<&'static str>,
    /// Of a message, and of a change of one.
    pub(super) message: Option<ClientMessageId>,
    /// The rows that the entry brings beside its own, but for those of entries: of these only what is left is known.
    pub(super) rows: Vec<ChangedRow>,
}

impl Taken {
    /// The record of the entry that was taken.
    pub(super) fn record(self, archive: &[u8]) -> Record {
        let archive: Arc<[u8]> = Arc::from(archive);
        if self.rows.is_empty() { Record::Entry(archive) } else { Record::Change(Change { archive, rows: self.rows }) }
    }
}

impl Replay {
    /// Takes the next entry, which is stored under `sequence` of `id`.
    ///
    /// # Errors
    /// What is wrong with bytes that are no entry, or not this one; they are passed over then.
    pub(super) fn take(
        &mut self,
        id: ConversationId,
        sequence: Sequence,
        position: LanePosition,
        archive: &[u8],
    ) -> Result<Taken, &'static str> {
        if !is_entry(archive) {
            return Err("the entry's archive is not valid");
        }
        let entry = view_entry(archive).map_err(|_| "the entry's archive is not valid")?;
        if entry.conversation.0 != id.0 {
            return Err("the entry is of another conversation than its key");
        }
        if entry.sequence.0.to_native() != sequence.0 {
            return Err("the entry has another sequence than its key");
        }
        let last = tail_row(position, entry);
        let is_message = matches!(entry.kind, ArchivedEntryKind::Message);
        let mut taken = Taken { missing: self.missing_before(sequence), ..Taken::default() };
        self.gap |= taken.missing.is_some();
        let kind = EntryKind::from(&entry.kind);
        if is_message || kind.is_change() {
            taken.message = Some(ClientMessageId(entry.client_message_id.0));
        }
        if is_message && entry.body.is_empty() {
            taken.rows.push(self.changes.taken_away(sequence));
        } else if is_message && let Some(root) = view_content(&entry.body).ok().and_then(|content| content.thread) {
            if root >= sequence {
                taken.wrong.push("the message is in a thread that a later one begins");
            } else {
                taken.rows.extend(self.changes.replied(root));
            }
        }
        if kind.is_change() {
            match self.change_message(entry, kind, &last)? {
                Ok(rows) => taken.rows = rows,
                Err(_) => taken.wrong.push("the change goes beyond what a message or a conversation can have"),
            }
        }
        if kind == EntryKind::AccountData {
            taken.wrong.extend(self.odd_account_data(id, entry));
        }
        taken.wrong.extend(self.compare(&last, is_message, Epoch(entry.epoch.0.to_native())));
        if matches!(entry.kind, ArchivedEntryKind::Created) != (sequence == Sequence(1)) {
            taken.wrong.push("the first entry, and no other, begins a conversation");
        }
        taken.rows.extend(self.apply(entry, &last)?);
        self.last = Some(last);
        Ok(taken)
    }

    /// Takes in that an entry is known to be lost: gives all that are, from the one after the last.
    pub(super) fn skip(&mut self, sequence: Sequence, position: LanePosition) -> (Sequence, Sequence) {
        let first = self.missing_before(sequence).map_or(sequence, |(first, _)| first);
        let before = self.last.unwrap_or_default();
        self.last = Some(TailRow { position, sequence, ..before });
        self.gap = true;
        (first, sequence)
    }

    /// Suffixes of all rows of messages and of the group that the entries make.
    pub(super) fn changed_rows(&self) -> impl Iterator<Item = Vec<u8>> {
        let is = |is: bool, suffix: &[u8]| is.then(|| suffix.to_vec());
        let pins = is(!self.changes.pins.is_empty(), &keys::PINS);
        let retention = is(self.changes.retention != RetentionRow::default(), &keys::RETENTION);
        let settings = is(self.group.settings != Settings::default(), &keys::SETTINGS);
        let states = self.changes.states.keys().map(|sequence| keys::state_suffix(*sequence));
        let reactors = self.changes.reactors.keys().map(|(sequence, user)| keys::reactor_suffix(*sequence, user));
        let roles = self.group.roles().keys().map(keys::role_suffix);
        let bans = self.group.bans().iter().map(keys::ban_suffix);
        let invites = self.group.invites().keys().map(|at| keys::invite_suffix(*at));
        let account = self.account.keys().map(keys::account_suffix);
        let of_group = roles.chain(bans).chain(invites).chain(account);
        [pins, retention, settings].into_iter().flatten().chain(states).chain(reactors).chain(of_group)
    }

    /// What does not fit of an entry that says something of account data.
    fn odd_account_data(&self, id: ConversationId, entry: &ArchivedEntry) -> Option<&'static str> {
        let AccountChange { key, .. } = AccountChange::from_body(&entry.body).ok()?;
        let is_own = UserId::new(entry.sender.as_str()).is_ok_and(|user| id == ConversationId::account(&user));
        match self.account.get(&key) {
            _ if !is_own => Some("account data is set in another conversation than its user's account"),
            // An entry says so only while it is the last of its key.
            Some(_) => Some("what was set under the key is still said by the entry before"),
            None => None,
        }
    }

    fn missing_before(&self, sequence: Sequence) -> Option<(Sequence, Sequence)> {
        let expected = self.last.map_or(Sequence(1), |last| last.sequence.next());
        (expected < sequence).then(|| (expected, Sequence(sequence.0 - 1)))
    }

    /// Holds an entry against the one before.
    fn compare(&self, last: &TailRow, is_message: bool, epoch: Epoch) -> Vec<&'static str> {
        let before = self.last.unwrap_or_default();
        let mut wrong = Vec::new();
        let least = before.ordinal.0 + u64::from(is_message);
        if last.ordinal.0 < least || (!self.gap && last.ordinal.0 != least) {
            wrong.push("the entry's ordinal does not follow the one before");
        }
        if last.time < before.time {
            wrong.push("the entry's time is before that of the one before");
        }
        if last.position <= before.position {
            wrong.push("the entry's position does not follow the one before");
        }
        if self.start.as_ref().is_some_and(|start| start.epoch != epoch) {
            wrong.push("the entry's epoch is not the conversation's");
        }
        wrong
    }

    /// Takes in what an entry says that changes no message, and gives the rows that follow from it.
    fn apply(&mut self, entry: &ArchivedEntry, last: &TailRow) -> Result<Vec<ChangedRow>, &'static str> {
        let body: &[u8] = &entry.body;
        match entry.kind {
            ArchivedEntryKind::Title => {
                let title = std::str::from_utf8(body).map_err(|_| "the title is not UTF-8")?;
                self.title = Some(title.to_owned());
            }
            ArchivedEntryKind::Membership => {
                let change = MembershipChange::from_body(body).map_err(|_| "the change of members is not valid")?;
                let creator = self.creator();
                let mut rows = self.group.removed(&change.removed, &creator);
                rows.extend(self.group.member_rows(last.sequence, last.ordinal, &change.added));
                self.change(&change, last);
                return Ok(rows);
            }
            ArchivedEntryKind::Roles | ArchivedEntryKind::Settings | ArchivedEntryKind::Invite => {
                return self.change_group(entry, last);
            }
            ref kind @ (ArchivedEntryKind::Bans | ArchivedEntryKind::Joined) => {
                let mut rows = self.change_group(entry, last)?;
                let change = members_changed(EntryKind::from(kind), body).map_err(|_| GROUP)?;
                rows.extend(self.group.member_rows(last.sequence, last.ordinal, &change.added));
                self.change(&change, last);
                return Ok(rows);
            }
            ArchivedEntryKind::AccountData => {
                let change = AccountChange::from_body(body).map_err(|_| "what it says of account data is not valid")?;
                return Ok(vec![self.account.take(change, last)]);
            }
            ArchivedEntryKind::Created => {
                let start = ConversationStart::from_body(body).map_err(|_| "the beginning is not valid")?;
                let creator = UserId::new(entry.sender.as_str()).map_err(|_| "the sender is no user")?;
                let epoch = Epoch(entry.epoch.0.to_native());
                self.start = Some(StartRow { time: last.time, epoch, direct: start.direct, creator });
                self.title = Some(start.title);
                self.change(&MembershipChange { added: start.members, removed: Vec::new() }, last);
            }
            _ => {}
        }
        Ok(Vec::new())
    }

    fn change_group(&mut self, entry: &ArchivedEntry, last: &TailRow) -> Result<Vec<ChangedRow>, &'static str> {
        let (kind, creator) = (EntryKind::from(&entry.kind), self.creator());
        let sender = UserId::new(entry.sender.as_str()).map_err(|_| "the sender is no user")?;
        self.group.take(kind, last.sequence, &sender, &entry.body, &creator).map_err(|_| GROUP)
    }

    /// Who made the conversation; somebody who cannot be a member, where the entry that says it is missing.
    fn creator(&self) -> UserId {
        self.start.as_ref().map_or_else(|| UserId::new("?").expect("a user id"), |start| start.creator.clone())
    }

    fn change_message(
        &mut self,
        entry: &ArchivedEntry,
        kind: EntryKind,
        last: &TailRow,
    ) -> Result<Result<Vec<ChangedRow>, Full>, &'static str> {
        let change = view_change(kind, &entry.body).map_err(|_| "the change of a message is not valid")?;
        let user = UserId::new(entry.sender.as_str()).map_err(|_| "the sender is no user")?;
        Ok(self.changes.take(&change, last.sequence, last.time, &user))
    }

    fn change(&mut self, change: &MembershipChange, last: &TailRow) {
        let row = |joined| UserRow { joined, sequence: last.sequence, position: last.position };
        for user in &change.removed {
            self.users.insert(user.clone(), UserState { member: None, row: row(false) });
        }
        let member = self.group.joined(last.sequence, last.ordinal);
        for user in &change.added {
            self.users.insert(user.clone(), UserState { member: Some(member), row: row(true) });
        }
    }
}

/// Whether an entry adds the user, or removes it.
pub(super) fn changes_user(archive: &[u8], user: &UserId, joined: bool) -> bool {
    let Ok(entry) = view_entry(archive) else { return false };
    let change = members_changed(EntryKind::from(&entry.kind), &entry.body);
    change.is_ok_and(|change| if joined { change.added.contains(user) } else { change.removed.contains(user) })
}
