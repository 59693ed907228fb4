//! A memtable as rows, in ascending order of keys.
//!
//! Message ids and entries, of which there are many, are put together in buffers that serve for all of them; the few rows beside them are
//! made a conversation or a user at a time. Message ids come last and in the order of their time, so they are sorted when everything
//! else was given: 56 bytes for each, some megabytes of a full memtable.

use std::{
    collections::{BTreeMap, btree_map},
    sync::Arc,
};

use antiphon_wire::{
    frame::view_entry,
    ids::{ConversationId, Sequence, TimestampMs, UserId},
};

use super::{Memtable, Tail, erases};
use crate::{
    keys::{self, ENTRY_SUFFIX_BYTES, Family, MessageIdKey},
    row::{Change, RowSource},
    rows::{self, UserRow},
};

/// Rows that changes brought, by the suffixes of their keys.
type ChangeRows<'a> = btree_map::Range<'a, Vec<u8>, Option<Arc<[u8]>>>;
type ChangeRow<'a> = (&'a Vec<u8>, &'a Option<Arc<[u8]>>);

/// All rows of a memtable.
pub(crate) struct MemtableRows<'a> {
    memtable: &'a Memtable,
    /// Conversations of the bucket at hand that are still to come, the next one last.
    bucket: Vec<ConversationId>,
    next_bucket: usize,
    users: btree_map::Iter<'a, UserId, BTreeMap<ConversationId, UserRow>>,
    /// Rows of a conversation before its entries, or of a user, in reverse order. The last one may be lent.
    few: Vec<(Vec<u8>, Change<Vec<u8>>)>,
    few_lent: bool,
    /// Made when all other rows were given; the next one last.
    message_ids: Option<Vec<MessageIdRow>>,
    tail: Option<(ConversationId, &'a Tail)>,
    next_entry: usize,
    /// Rows of changes among the entries' that are still to come.
    changes: Option<ChangeRows<'a>>,
    next_change: Option<ChangeRow<'a>>,
    /// Entries that are lost are no rows.
    without_lost: bool,
    key: Vec<u8>,
    value: Vec<u8>,
}

/// A message id's key, entry, and when that was stored.
type MessageIdRow = (MessageIdKey, Sequence, TimestampMs);

impl<'a> MemtableRows<'a> {
    pub(super) fn new(memtable: &'a Memtable, without_lost: bool) -> Self {
        Self {
            memtable,
            bucket: Vec::new(),
            next_bucket: 0,
            users: memtable.users.iter(),
            few: Vec::new(),
            few_lent: false,
            message_ids: None,
            tail: None,
            next_entry: 0,
            changes: None,
            next_change: None,
            without_lost,
            key: Vec::new(),
            value: Vec::new(),
        }
    }

    /// Goes on to the next conversation, or user; whether there is one.
    fn next_range(&mut self) -> bool {
        while self.bucket.is_empty() && self.next_bucket < self.memtable.order.len() {
            self.bucket.clone_from(&self.memtable.order[self.next_bucket]);
            self.bucket.sort_unstable_by(|one, other| other.cmp(one));
            self.next_bucket += 1;
        }
        if let Some(id) = self.bucket.pop() {
            let tail = &self.memtable.conversations[&id];
            few_rows(id, tail, &mut self.few);
            (self.tail, self.next_entry) = (Some((id, tail)), 0);
            self.changes = tail.changes.as_ref().map(|changes| changes.range(vec![Family::Entry as u8]..));
            self.next_change = self.changes.as_mut().and_then(Iterator::next);
        } else {
            self.tail = None;
            let Some((user, conversations)) = self.users.next() else { return false };
            let row = |(id, row): (&ConversationId, &UserRow)| {
                (keys::user_conversation(user, *id), Change::Put(row.encode()))
            };
            self.few.extend(conversations.iter().map(row));
        }
        self.few.reverse();
        true
    }

    /// Puts the next entry, or what is stored among entries, into the buffers; whether there is one, and what is said of it.
    fn next_of_conversation(&mut self) -> Option<Change<()>> {
        let (id, tail) = self.tail?;
        let is_lost = |at: usize| tail.entries.get(at).is_some_and(|(_, archive)| archive.is_empty());
        while self.without_lost && is_lost(self.next_entry) {
            self.next_entry += 1;
        }
        self.key.clear();
        self.value.clear();
        if let Some((suffix, value)) = self.next_change.filter(|(suffix, _)| self.is_next(tail, suffix)) {
            self.next_change = self.changes.as_mut().and_then(Iterator::next);
            self.key.extend_from_slice(&keys::within(id, suffix));
            let Some(value) = value else { return Some(Change::Delete) };
            if suffix.len() == ENTRY_SUFFIX_BYTES && suffix[0] == Family::Entry as u8 && takes_away(value) {
                // What stood there is in an older segment.
                rows::put_replacing(value, &mut self.value);
            } else {
                self.value.extend_from_slice(value);
            }
            return Some(Change::Put(()));
        }
        let (position, archive) = tail.entries.get(self.next_entry)?;
        let sequence = Sequence(tail.first().unwrap_or_default().0 + self.next_entry as u64);
        self.next_entry += 1;
        self.key.extend_from_slice(&keys::entry(id, sequence));
        rows::put_entry(*position, archive, &mut self.value);
        Some(Change::Put(()))
    }

    /// Whether a row of a change comes before the next entry.
    fn is_next(&self, tail: &Tail, suffix: &[u8]) -> bool {
        let next = Sequence(tail.first().unwrap_or_default().0 + self.next_entry as u64);
        self.next_entry >= tail.entries.len() || suffix < keys::entry_suffix(next).as_slice()
    }

    /// Puts the next message id into the buffers; whether there is one.
    fn next_message_id(&mut self) -> bool {
        let memtable = self.memtable;
        let left = self.message_ids.get_or_insert_with(|| message_ids(memtable));
        let Some((key, sequence, stored)) = left.pop() else { return false };
        self.key.clear();
        self.value.clear();
        self.key.extend_from_slice(&key);
        rows::put_message_id(sequence, Some(stored).filter(|_| !key.is_timed()), &mut self.value);
        true
    }
}

/// Whether an entry's row took away what an older one says.
fn takes_away(value: &[u8]) -> bool {
    rows::decode_entry(value).and_then(|(_, archive)| view_entry(archive).ok()).is_none_or(erases)
}

/// All message ids, in the reverse order of keys.
fn message_ids(memtable: &Memtable) -> Vec<MessageIdRow> {
    let of = |id: &ConversationId| (*id, &memtable.conversations[id].messages);
    let conversations = memtable.order.iter().flatten().map(of);
    let mut ids: Vec<MessageIdRow> = conversations
        .flat_map(|(id, messages)| {
            messages.iter().map(move |(message, sequence, stored)| (keys::message_id(id, *message), *sequence, *stored))
        })
        .collect();
    ids.sort_unstable_by(|one, other| other.cmp(one));
    // Of an id that was forgotten between two messages the later counts, and that comes first here.
    ids.dedup_by_key(|(key, ..)| *key);
    ids
}

impl RowSource for MemtableRows<'_> {
    fn next(&mut self) -> Option<(&[u8], Change<&[u8]>)> {
        if std::mem::take(&mut self.few_lent) {
            self.few.pop();
        }
        while self.few.is_empty() {
            if let Some(change) = self.next_of_conversation() {
                return Some((&self.key, change.map(|()| self.value.as_slice())));
            }
            if !self.next_range() {
                return if self.next_message_id() { Some((&self.key, Change::Put(&self.value))) } else { None };
            }
        }
        self.few_lent = true;
        self.few.last().map(|(key, change)| (key.as_slice(), change.as_ref().map(Vec::as_slice)))
    }
}

/// A conversation's rows before its entries.
fn few_rows(id: ConversationId, tail: &Tail, few: &mut Vec<(Vec<u8>, Change<Vec<u8>>)>) {
    let single = |family: Family, value: Vec<u8>| (keys::single(id, family), Change::Put(value));
    few.extend(tail.start.iter().map(|row| single(Family::Start, row.encode())));
    few.extend(tail.title.iter().map(|title| single(Family::Title, title.as_bytes().to_vec())));
    few.extend(tail.last.iter().map(|row| single(Family::Tail, row.encode())));
    let changes = tail.changes.iter().flat_map(|changes| changes.range(..vec![Family::Entry as u8]));
    few.extend(changes.map(|(suffix, value)| {
        (keys::within(id, suffix), value.as_ref().map_or(Change::Delete, |value| Change::Put(value.to_vec())))
    }));
    few.extend(tail.members.iter().map(|(user, row)| {
        let change = row.map_or(Change::Delete, |row| Change::Put(row.encode()));
        (keys::of_user(id, Family::Member, user), change)
    }));
    let pointer = |(user, row): &(UserId, rows::PointerRow)| {
        (keys::of_user(id, Family::Pointer, user), Change::Put(row.encode()))
    };
    few.extend(tail.pointers.iter().map(pointer));
}
