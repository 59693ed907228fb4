//! A page of a conversation's entries: from the memtables at once where it can be, from segments where it must.
//!
//! A page never has a gap. Where an entry on its way is damaged it ends before it; only if nothing is left the answer says so.

use antiphon_wire::{
    codes::ErrorCode,
    ids::{ConversationId, Epoch, Sequence, UserId},
    limits::{PAGE_BYTES_MAX, PAGE_ITEMS_MAX},
};

use crate::{
    door::{Done, HistoryPage, HistoryRange, Refusal},
    engine::{
        refusal::{refuse, unreadable},
        state::{Answer, Memory},
        stored::{Stored, StoredScan},
    },
    error::StoreError,
    row::Direction,
    runs::Runs,
    seams::Files,
};

/// A page being put together.
#[derive(Debug)]
pub(crate) struct Page {
    epoch: Epoch,
    /// First sequence that the asking user sees.
    first: Sequence,
    /// Last durable one.
    last: Sequence,
    /// Entries before and with a sequence, nearest first.
    below: Half,
    /// Entries after it.
    above: Half,
    /// Last sequence of `above` that segments have to give; 0 if none.
    above_end: u64,
    /// What follows in memory behind it.
    behind: Vec<Stored>,
    damage: Option<Refusal>,
    /// How many memtables had become segments when memory was looked at.
    flushes: u64,
}

#[derive(Debug)]
struct Half {
    /// The next entry to take.
    next: u64,
    items: usize,
    bytes: usize,
    entries: Vec<Stored>,
}

impl Half {
    fn new(next: u64, items: u32, bytes: usize) -> Self {
        Self { next, items: items as usize, bytes, entries: Vec::new() }
    }

    /// Takes an entry, unless the page ends before it.
    fn push(&mut self, stored: Stored) -> bool {
        let bytes = stored.archive.len();
        if self.items == 0 || (bytes > self.bytes && !self.entries.is_empty()) {
            self.items = 0;
            return false;
        }
        self.items -= 1;
        self.bytes = self.bytes.saturating_sub(bytes);
        self.entries.push(stored);
        true
    }
}

impl Page {
    /// A page of what a member sees from `first` on, up to `last`.
    pub(crate) fn new(epoch: Epoch, first: Sequence, last: Sequence, range: HistoryRange, limit: u32) -> Self {
        let limit = limit.clamp(1, PAGE_ITEMS_MAX);
        let none = || Half::new(0, 0, 0);
        let up_to = |sequence: u64, items, bytes| Half::new(sequence.min(last.0), items, bytes);
        let after = |sequence: u64, items, bytes| Half::new(sequence.saturating_add(1).max(first.0), items, bytes);
        let (below, above) = match range {
            HistoryRange::Latest => (up_to(last.0, limit, PAGE_BYTES_MAX), none()),
            HistoryRange::Before(before) => (up_to(before.0.saturating_sub(1), limit, PAGE_BYTES_MAX), none()),
            HistoryRange::After(sequence) => (none(), after(sequence.0, limit, PAGE_BYTES_MAX)),
            HistoryRange::Around(middle) => {
                let half = limit / 2;
                let below = up_to(middle.0, limit - half, PAGE_BYTES_MAX / 2);
                (below, after(middle.0, half, PAGE_BYTES_MAX / 2))
            }
        };
        Self { epoch, first, last, below, above, above_end: 0, behind: Vec::new(), damage: None, flushes: 0 }
    }

    /// Takes what the memtables hold.
    pub(crate) fn collect_from_memory(&mut self, id: ConversationId, memory: &Memory) {
        self.flushes = memory.flushes;
        let memory_first = memory.first(id).map_or(u64::MAX, |sequence| sequence.0);
        let stored = |sequence: u64| {
            let (position, archive) =
                memory.entry(id, Sequence(sequence)).filter(|(_, archive)| !archive.is_empty())?;
            Some(Stored::new(Sequence(sequence), position, archive))
        };
        while self.below.items > 0 && self.below.next >= self.first.0.max(memory_first) {
            let Some(stored) = stored(self.below.next) else {
                self.damaged(refuse(ErrorCode::Damaged));
                return;
            };
            if self.below.push(stored) {
                self.below.next -= 1;
            }
        }
        let from = self.above.next.max(memory_first);
        self.above_end = self.last.0.min(memory_first - 1);
        for sequence in from..=self.last.0.min(from.saturating_add(self.above.items as u64)) {
            match stored(sequence) {
                Some(stored) => self.behind.push(stored),
                None if sequence == self.above.next && self.above.items > 0 => {
                    self.damaged(refuse(ErrorCode::Damaged));
                    return;
                }
                None => break,
            }
        }
    }

    /// Whether entries are wanted that only segments hold.
    pub(crate) fn needs_segments(&self) -> bool {
        self.wants_below() || self.wants_above()
    }

    fn wants_below(&self) -> bool {
        self.below.items > 0 && self.below.next >= self.first.0 && self.below.next > 0
    }

    fn wants_above(&self) -> bool {
        self.above.items > 0 && self.above.next <= self.above_end
    }

    /// Reads the rest from segments.
    pub(crate) async fn read_segments<F: Files>(&mut self, id: ConversationId, user: &UserId, runs: &Runs<F>) {
        if self.wants_below() {
            // What it may take, and no more: newer segments that have none of it are left alone.
            let first = self.below.next.saturating_sub(self.below.items as u64 - 1);
            let range = (self.first.max(Sequence(first)), Sequence(self.below.next));
            let mut scan = StoredScan::new(runs, id, user, range, Direction::Backward, self.below.items);
            while self.wants_below() {
                match expected(scan.next().await, self.below.next) {
                    Ok(stored) => {
                        if self.below.push(stored) {
                            self.below.next -= 1;
                        }
                    }
                    Err(refusal) => self.damaged(refusal),
                }
            }
        }
        if !self.wants_above() {
            return;
        }
        if self.above_end - self.above.next < self.above.items as u64 {
            self.read_to_the_end(id, user, runs).await;
        }
        self.read_forward(id, user, runs).await;
    }

    async fn read_forward<F: Files>(&mut self, id: ConversationId, user: &UserId, runs: &Runs<F>) {
        if self.wants_above() {
            let last = self.above.next.saturating_add(self.above.items as u64 - 1).min(self.above_end);
            let range = (Sequence(self.above.next), Sequence(last));
            let mut scan = StoredScan::new(runs, id, user, range, Direction::Forward, self.above.items);
            while self.wants_above() {
                match expected(scan.next().await, self.above.next) {
                    Ok(stored) => {
                        if self.above.push(stored) {
                            self.above.next += 1;
                        }
                    }
                    Err(refusal) => self.damaged(refusal),
                }
            }
        }
    }

    /// Reads all that segments have to give of `above`, from the end down: what is newest is mostly in few runs. Nothing, if anything of it
    /// cannot be read.
    async fn read_to_the_end<F: Files>(&mut self, id: ConversationId, user: &UserId, runs: &Runs<F>) {
        let (first, last) = (self.above.next, self.above_end);
        let range = (Sequence(first), Sequence(last));
        let mut scan = StoredScan::new(runs, id, user, range, Direction::Backward, self.above.items);
        let mut read = Vec::new();
        for sequence in (first..=last).rev() {
            let Ok(stored) = expected(scan.next().await, sequence) else { return };
            read.push(stored);
        }
        for stored in read.into_iter().rev() {
            if !self.above.push(stored) {
                break;
            }
            self.above.next += 1;
        }
    }

    fn damaged(&mut self, refusal: Refusal) {
        self.damage = Some(refusal);
        self.below.items = 0;
        self.above.items = 0;
        self.behind.clear();
    }

    /// Whether what became of the conversation since memory was looked at may not be seen in the page: then it is to be read anew.
    pub(crate) fn is_overtaken(&self, id: ConversationId, memory: &Memory) -> bool {
        // What became of entries has moved to where nobody looked; or none of the page's stays, while there are newer ones.
        self.flushes != memory.flushes || memory.retained_from(id) > self.last
    }

    /// The answer for the user who asks, with what memory says now: nothing may become a segment between the reading and this.
    pub(crate) fn finish(mut self, id: ConversationId, user: &UserId, memory: &Memory) -> Answer {
        for stored in std::mem::take(&mut self.behind) {
            if !self.above.push(stored) {
                break;
            }
        }
        let mut stored = self.below.entries;
        stored.reverse();
        stored.append(&mut self.above.entries);
        memory.overlay(id, user, &mut stored);
        match self.damage {
            Some(refusal) if stored.is_empty() => Err(refusal),
            _ => {
                let (epoch, first, last) = (self.epoch, self.first.max(memory.retained_from(id)), self.last);
                stored.retain(|stored| stored.sequence >= first);
                let entries = stored.iter().map(|stored| stored.archive_for(first)).collect();
                let states = stored.iter().filter_map(Stored::told).collect();
                let as_of = memory.last(id).map_or(last, |tail| tail.sequence.max(last));
                Ok(Done::History(Box::new(HistoryPage { epoch, first, last, entries, states, as_of })))
            }
        }
    }
}

/// What was read, if it is the entry that has to come next.
fn expected(read: Result<Option<Stored>, StoreError>, expected: u64) -> Result<Stored, Refusal> {
    let stored = read.map_err(|error| unreadable(&error))?;
    stored.filter(|stored| stored.sequence.0 == expected).ok_or_else(|| refuse(ErrorCode::Damaged))
}
