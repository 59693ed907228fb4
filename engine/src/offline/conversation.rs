//! One conversation's rows held against each other as they pass by in the order of keys: what its entries say,
//! replayed, must be what all other rows say.
//!
//! Must not do: I/O. A user's own rows are not here: they lie in another range of keys.

use std::collections::BTreeMap;

use antiphon_wire::{
    frame::{Settings, view_entry},
    ids::{ClientMessageId, ConversationId, LanePosition, Ordinal, Sequence, UserId},
};

use crate::{
    account::{AccountData, ItemRow},
    changes::{Fold, RetentionRow, StateRow, decode_pins, decode_reactor},
    group::{Group, InviteRow, decode_ban, decode_role},
    keys::Key,
    lane::record::COUNT_MAX,
    offline::{
        damage::without,
        ids::Sum,
        replay::{Replay, Taken},
        report::{FINDINGS_MAX, Finding},
    },
    rows::{MemberRow, PointerRow, StartRow, TailRow, decode_entry, decode_sequence},
    window::Horizon,
};

/// Message ids of one conversation that are held to be compared one by one: 32 MiB. Of those beyond only a sum is kept,
/// so that a difference is found, but not whose.
pub(super) const IDS_HELD_MAX: usize = 1 << 20;

/// Most stretches of missing entries that are told of one conversation; the rest is counted.
const MISSING_MAX: usize = 1_000;

/// Most stretches of lost entries that a repair tells of one conversation; one with more is left out.
pub(super) const LOST_MAX: usize = 1 << 16;

const FORM: &str = "a row does not have its form";

/// Entries that are not there: first and last, the last one if it is known.
pub(super) type Missing = (Sequence, Option<Sequence>);

/// A conversation being read.
pub(super) struct Conversation {
    pub(super) id: ConversationId,
    pub(super) replay: Replay,
    start: Option<StartRow>,
    title: Option<String>,
    pub(super) tail: Option<TailRow>,
    members: BTreeMap<UserId, MemberRow>,
    pointers: BTreeMap<UserId, PointerRow>,
    /// The least and the greatest ordinal that a pointer to an entry has.
    ordinals: BTreeMap<Sequence, (Ordinal, Ordinal)>,
    horizon: Horizon,
    ids: Ids,
    /// Messages and changes of such, whose ids are to have rows of their own, behind all conversations.
    pub(super) messages: Sum,
    /// There are more rows of the old form than are held.
    pub(super) has_many_old_ids: bool,
    /// What rows say became of messages.
    changes: Fold,
    /// What they say of the group.
    group: Group,
    /// What they say of a user's account.
    account: AccountData,
    /// The last entry, if it is a message that says something.
    says_something: Option<Sequence>,
    pub(super) entries: u64,
    pub(super) missing: Vec<Missing>,
    /// Stretches of entries that a repair has told to be lost.
    pub(super) lost: Vec<(Sequence, Sequence)>,
    pub(super) findings: Vec<Finding>,
    /// Stretches of missing entries beyond those that are kept, and findings.
    pub(super) missing_left_out: u64,
    pub(super) findings_left_out: u64,
}

/// What rows of message ids in the old form say, which come in the order of ids and before the entries.
#[derive(Default)]
struct Ids {
    held: Vec<HeldId>,
    rows_beyond: Sum,
    entries_beyond: Sum,
}

struct HeldId {
    id: ClientMessageId,
    sequence: Sequence,
    seen: bool,
}

impl Conversation {
    pub(super) fn new(id: ConversationId, horizon: Horizon) -> Self {
        Self {
            id,
            horizon,
            messages: Sum::default(),
            has_many_old_ids: false,
            replay: Replay::default(),
            start: None,
            title: None,
            tail: None,
            members: BTreeMap::new(),
            pointers: BTreeMap::new(),
            ordinals: BTreeMap::new(),
            ids: Ids::default(),
            changes: Fold::default(),
            group: Group::default(),
            account: AccountData::default(),
            says_something: None,
            entries: 0,
            missing: Vec::new(),
            lost: Vec::new(),
            findings: Vec::new(),
            missing_left_out: 0,
            findings_left_out: 0,
        }
    }

    /// Takes the next row; `place` tells where it is stored. Rows come in the order of keys.
    pub(super) fn row(&mut self, key: Key, value: &[u8], place: impl Fn() -> (String, Option<u64>)) {
        let before = self.findings.len();
        match key {
            Key::Lost(first) => match decode_sequence(value).filter(|last| *last >= first) {
                Some(last) if self.lost.len() < LOST_MAX => self.lost.push((first, last)),
                Some(_) => {}
                None => self.find(Some(first), FORM),
            },
            Key::Start => self.start = self.formed(StartRow::decode(value)),
            Key::Title => self.title = self.formed(std::str::from_utf8(value).ok().map(str::to_owned)),
            Key::Tail => self.tail = self.formed(TailRow::decode(value)),
            Key::Member(user) => match MemberRow::decode(value) {
                Some(row) => drop(self.members.insert(user, row)),
                None => self.of_user(&user, FORM),
            },
            Key::Pointer(user) => match PointerRow::decode(value) {
                Some(row) => self.pointer(user, row),
                None => self.of_user(&user, FORM),
            },
            // One that is forgotten may be gone tomorrow.
            Key::OldMessageId(id) if self.horizon.forgets(id, None, true) => {}
            Key::OldMessageId(id) => match decode_sequence(value) {
                Some(sequence) => self.ids.row(self.id, id, sequence),
                None => self.find(None, &format!("the row of message id {id} does not have its form")),
            },
            Key::Entry(sequence) => self.entry(sequence, value),
            Key::State(sequence) => self.state(sequence, value),
            Key::Reactor(sequence, user) => match decode_reactor(value) {
                Some(texts) => drop(self.changes.reactors.insert((sequence, user), texts)),
                None => self.find(Some(sequence), FORM),
            },
            Key::Pins => self.changes.pins = self.formed(decode_pins(value)).unwrap_or_default(),
            Key::Retention => self.changes.retention = self.formed(RetentionRow::decode(value)).unwrap_or_default(),
            Key::Settings => {
                self.group.settings = self.formed(Settings::from_body(value).ok()).unwrap_or_default();
            }
            Key::Role(user) => match decode_role(value) {
                Some(role) => self.group.load_role(user, role),
                None => self.of_user(&user, FORM),
            },
            Key::Ban(user) => match decode_ban(value) {
                Some(_) => self.group.load_ban(user),
                None => self.of_user(&user, FORM),
            },
            Key::Invite(at) => match InviteRow::decode(value) {
                Some(row) => self.group.load_invite(at, row),
                None => self.find(Some(at), FORM),
            },
            Key::Account(key) => match ItemRow::decode(value) {
                Some(row) => self.account.load(key, row),
                None => self.find(None, FORM),
            },
            Key::User(_) | Key::MessageId(..) => {}
        }
        if self.findings.len() > before {
            let (file, offset) = place();
            for finding in &mut self.findings[before..] {
                (finding.file, finding.offset) = (Some(file.clone()), offset);
            }
        }
    }

    /// Holds the rows against what the entries say, when all rows were taken. `end` is the lane's last position.
    pub(super) fn finish(&mut self, end: LanePosition) {
        self.finish_rows(end);
        for (first, last) in &self.lost {
            let known = (*first, Some(*last));
            self.missing = std::mem::take(&mut self.missing).into_iter().flat_map(|of| without(of, known)).collect();
        }
    }

    fn finish_rows(&mut self, end: LanePosition) {
        let Some(last) = self.replay.last else {
            match self.tail {
                Some(tail) if tail.sequence > Sequence(0) => self.miss(Sequence(1), Some(tail.sequence)),
                _ => self.find(None, "there are rows, but no entry"),
            }
            return;
        };
        self.finish_tail(&last, end);
        match &self.start {
            None => self.find(None, "there is no start row"),
            Some(start) if self.replay.start.as_ref().is_some_and(|of| of != start) => {
                self.find(Some(Sequence(1)), "the start row is not what the first entry says");
            }
            Some(_) => {}
        }
        if !self.replay.gap {
            match &self.title {
                None => self.find(None, "there is no title row"),
                title if *title != self.replay.title => self.find(None, "the title row is not what the entries say"),
                Some(_) => {}
            }
            self.finish_members();
            self.finish_changes();
            self.finish_group();
        }
        self.finish_pointers(&last);
        self.finish_ids();
    }

    fn finish_tail(&mut self, last: &TailRow, end: LanePosition) {
        match self.tail {
            None => self.find(None, "there is no tail row"),
            Some(tail) if tail.sequence > last.sequence => {
                self.replay.gap = true;
                self.miss(last.sequence.next(), Some(tail.sequence));
            }
            Some(tail) if tail.sequence < last.sequence => {
                self.find(Some(last.sequence), &format!("the tail row says that entry {} is the last", tail.sequence));
            }
            Some(tail) if tail != *last && !self.replay.gap => {
                self.find(Some(last.sequence), "the tail row is not what the last entry says");
            }
            Some(_) => {}
        }
        if last.position > end {
            self.find(Some(last.sequence), "the entry's position is beyond the end of the lane");
        }
    }

    fn finish_members(&mut self) {
        let rows = std::mem::take(&mut self.members);
        let users = std::mem::take(&mut self.replay.users);
        for (user, state) in &users {
            match (state.member, rows.get(user)) {
                (Some(said), Some(row)) if said == *row => {}
                (Some(said), Some(row)) => {
                    let what = format!(
                        "the member row begins at entry {}, but {} added it",
                        row.visible_from, said.visible_from
                    );
                    self.of_user(user, &what);
                }
                (Some(said), None) => {
                    self.of_user(user, &format!("added by entry {}, but there is no member row", said.visible_from));
                }
                (None, Some(_)) => {
                    let what = format!("removed by entry {}, but there is a member row", state.row.sequence);
                    self.of_user(user, &what);
                }
                (None, None) => {}
            }
        }
        for user in rows.keys().filter(|user| !users.contains_key(*user)) {
            self.of_user(user, "a member row, but no entry added the member");
        }
        self.replay.users = users;
    }

    fn finish_pointers(&mut self, last: &TailRow) {
        let end = self.tail.map_or(*last, |tail| if tail.sequence > last.sequence { tail } else { *last });
        for (user, row) in std::mem::take(&mut self.pointers) {
            if row.read > end.sequence || row.delivered > end.sequence || row.ordinal > end.ordinal {
                self.of_user(&user, "the pointers are beyond the last entry");
            }
            if row.delivered < row.read {
                self.of_user(&user, "the delivered pointer is before the read pointer");
            }
            if !self.replay.gap && !self.replay.users.contains_key(&user) {
                self.of_user(&user, "pointers of somebody who was never a member");
            }
        }
    }

    fn finish_ids(&mut self) {
        if self.replay.gap {
            return;
        }
        let Ids { held, rows_beyond, entries_beyond } = std::mem::take(&mut self.ids);
        for held in held.iter().filter(|held| !held.seen) {
            let what = format!("a row says that this entry is message {}, but it is not", held.id);
            self.find(Some(held.sequence), &what);
        }
        // Messages of a store that has a window have rows elsewhere, and nothing tells them from those beyond.
        self.has_many_old_ids = rows_beyond.count > 0;
        if rows_beyond.count > entries_beyond.count {
            let what = format!("{} rows of message ids, but {} messages", rows_beyond.count, entries_beyond.count);
            self.find(None, &what);
        }
    }

    /// Holds what rows say became of messages against what the entries say.
    fn finish_changes(&mut self) {
        let (mut rows, mut said) = (std::mem::take(&mut self.changes), std::mem::take(&mut self.replay.changes));
        // Of a message of which every reply was deleted the entries say nothing any more.
        for of in [&mut rows, &mut said] {
            of.states.retain(|_, state| !state.is_plain());
        }
        if rows.pins != said.pins {
            self.find(None, "the pinned messages are not those that the entries say");
        }
        if rows.retention != said.retention {
            self.find(None, "the retention mark is not what the entries say");
        }
        for (sequence, of) in differences(&rows.states, &said.states) {
            self.find(Some(sequence), &format!("the state row {of}"));
        }
        for ((sequence, user), of) in differences(&rows.reactors, &said.reactors) {
            self.find(Some(sequence), &format!("the row of the reactions of {user} {of}"));
        }
        self.replay.changes = said;
    }

    /// Holds what rows say of the group against what the entries say.
    fn finish_group(&mut self) {
        let rows = std::mem::take(&mut self.group);
        if rows.settings != self.replay.group.settings {
            self.find(None, "the settings are not what the entries say");
        }
        let said = std::mem::take(&mut self.replay.group);
        for (user, of) in differences(rows.roles(), said.roles()) {
            self.of_user(&user, &format!("the row of the role {of}"));
        }
        for user in rows.bans().symmetric_difference(said.bans()) {
            self.of_user(user, "whether the user is kept out is not what the entries say");
        }
        for (at, of) in differences(rows.invites(), said.invites()) {
            self.find(Some(at), &format!("the row of the invite {of}"));
        }
        self.replay.group = said;
        if self.account != self.replay.account {
            self.find(None, "what is set in the account is not what the entries say");
        }
    }

    fn state(&mut self, sequence: Sequence, value: &[u8]) {
        let Some(state) = StateRow::decode(value) else { return self.find(Some(sequence), FORM) };
        if state.deleted && self.says_something == Some(sequence) {
            self.find(Some(sequence), "the message was deleted, but its row says what it said");
        }
        self.changes.states.insert(sequence, state);
    }

    fn formed<T>(&mut self, row: Option<T>) -> Option<T> {
        if row.is_none() {
            self.find(None, FORM);
        }
        row
    }

    fn pointer(&mut self, user: UserId, row: PointerRow) {
        let ordinals = self.ordinals.entry(row.read).or_insert((row.ordinal, row.ordinal));
        *ordinals = (ordinals.0.min(row.ordinal), ordinals.1.max(row.ordinal));
        self.pointers.insert(user, row);
    }

    fn entry(&mut self, sequence: Sequence, value: &[u8]) {
        if !(1..COUNT_MAX).contains(&sequence.0) {
            self.find(Some(sequence), "no entry can have this sequence");
            return;
        }
        self.entries += 1;
        let Some((position, archive)) = decode_entry(value) else {
            self.find(Some(sequence), FORM);
            return;
        };
        if archive.is_empty() {
            // The log's own mark for an entry that it has lost.
            self.entries -= 1;
            let (first, last) = self.replay.skip(sequence, position);
            self.miss(first, Some(last));
            return;
        }
        match self.replay.take(self.id, sequence, position, archive) {
            Err(what) => {
                self.find(Some(sequence), what);
                // What it would have said is not known.
                self.replay.skip(sequence, position);
            }
            Ok(Taken { missing, wrong, message, .. }) => {
                if let Some((first, last)) = missing {
                    self.miss(first, Some(last));
                }
                for what in wrong {
                    self.find(Some(sequence), what);
                }
                let time = self.replay.last.unwrap_or_default().time;
                if let Some(id) = message
                    && !self.ids.entry(self.id, id, sequence)
                    && !self.horizon.forgets(id, Some(time), false)
                {
                    let stored = Some(time).filter(|_| id.made().is_none());
                    self.messages.add(self.id, id, sequence, stored);
                }
                let says = view_entry(archive).is_ok_and(|entry| !entry.body.is_empty());
                self.says_something = Some(sequence).filter(|_| says);
                self.ordinal_of_pointers(sequence);
            }
        }
    }

    fn ordinal_of_pointers(&mut self, sequence: Sequence) {
        let Some(last) = self.replay.last else { return };
        if self.ordinals.get(&sequence).is_some_and(|(least, most)| *least != last.ordinal || *most != last.ordinal) {
            self.find(Some(sequence), "a read pointer to this entry has another ordinal than the entry");
        }
    }

    fn miss(&mut self, first: Sequence, last: Option<Sequence>) {
        // A tail row may say anything.
        let last = last.map(|last| last.min(Sequence(COUNT_MAX)));
        // Lost entries of the log come one by one.
        if let Some((_, Some(before))) = self.missing.last_mut()
            && before.next() == first
            && let Some(last) = last
        {
            *before = last;
        } else if self.missing.len() < MISSING_MAX {
            self.missing.push((first, last));
        } else {
            self.missing_left_out += 1;
        }
    }

    fn find(&mut self, sequence: Option<Sequence>, what: &str) {
        let conversation = Some(self.id);
        let (first, last) = (sequence, sequence);
        self.keep(Finding { conversation, first, last, what: what.to_owned(), ..Finding::default() });
    }

    fn of_user(&mut self, user: &UserId, what: &str) {
        let (conversation, user) = (Some(self.id), Some(user.clone()));
        self.keep(Finding { conversation, user, what: what.to_owned(), ..Finding::default() });
    }

    fn keep(&mut self, finding: Finding) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        } else {
            self.findings_left_out += 1;
        }
    }
}

/// What two maps do not agree on: keys, and what is wrong with the first's rows.
fn differences<K: Ord + Clone, V: PartialEq>(rows: &BTreeMap<K, V>, said: &BTreeMap<K, V>) -> Vec<(K, &'static str)> {
    let of_row = |(key, row): (&K, &V)| match said.get(key) {
        Some(of) if of == row => None,
        Some(_) => Some((key.clone(), "is not what the entries say")),
        None => Some((key.clone(), "is there, but no entry says anything")),
    };
    let missing = |key: &&K| !rows.contains_key(*key);
    let mut differences: Vec<_> = rows.iter().filter_map(of_row).collect();
    differences.extend(said.keys().filter(missing).map(|key| (key.clone(), "is missing")));
    differences.truncate(FINDINGS_MAX);
    differences
}

impl Ids {
    fn row(&mut self, conversation: ConversationId, id: ClientMessageId, sequence: Sequence) {
        if self.held.len() < IDS_HELD_MAX {
            self.held.push(HeldId { id, sequence, seen: false });
        } else {
            self.rows_beyond.add(conversation, id, sequence, None);
        }
    }

    /// Whether a row of the old form remembers a message's id, as far as can be told.
    fn entry(&mut self, conversation: ConversationId, id: ClientMessageId, sequence: Sequence) -> bool {
        match self.held.binary_search_by(|held| held.id.cmp(&id)) {
            Ok(index) => {
                let held = &mut self.held[index];
                held.seen |= held.sequence == sequence;
                held.sequence == sequence
            }
            Err(index) if index == self.held.len() && index == IDS_HELD_MAX => {
                self.entries_beyond.add(conversation, id, sequence, None);
                true
            }
            Err(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF: ConversationId = ConversationId([1; 16]);

    fn id(number: u64) -> ClientMessageId {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        ClientMessageId(bytes)
    }

    #[test]
    fn ids_beyond_those_that_are_held_are_compared_by_their_sum() {
        let count = IDS_HELD_MAX as u64 + 3;
        let mut ids = Ids::default();
        (0..count).for_each(|number| ids.row(OF, id(number), Sequence(number + 2)));
        let beyond: Vec<u64> = (0..count).rev().take(3).collect();
        assert!(beyond.iter().all(|number| ids.entry(OF, id(*number), Sequence(*number + 2))));
        assert!(ids.rows_beyond == ids.entries_beyond);
        assert!(ids.entry(OF, id(7), Sequence(9)));
        assert!(!ids.entry(OF, id(8), Sequence(9)), "another entry's");
        assert!(ids.entry(OF, id(count), Sequence(9)), "only the sum can tell");
        assert!(ids.rows_beyond != ids.entries_beyond);
    }
}
