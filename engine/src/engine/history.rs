//! A page of a conversation's entries: from the memtables at once where it can be, from segments where it must.
//!
//! A page never has a gap. Where an entry on its way is damaged it ends before it; only if nothing is left the answer says so.

use std::sync::Arc;

use antiphon_wire::{
    codes::ErrorCode,
    ids::{ConversationId, Epoch, Sequence},
    limits::{PAGE_BYTES_MAX, PAGE_ITEMS_MAX},
};

use crate::{
    door::{Done, HistoryPage, HistoryRange, Refusal},
    engine::{
        refusal::{refuse, unreadable},
        state::{Answer, Memory},
    },
    error::StoreError,
    keys::{self, Key},
    row::Direction,
    rows,
    runs::{Row, Runs},
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
    behind: Vec<Arc<[u8]>>,
    damage: Option<Refusal>,
}

#[derive(Debug)]
struct Half {
    /// The next entry to take.
    next: u64,
    items: usize,
    bytes: usize,
    entries: Vec<Arc<[u8]>>,
}

impl Half {
    fn new(next: u64, items: u32, bytes: usize) -> Self {
        Self { next, items: items as usize, bytes, entries: Vec::new() }
    }

    /// Takes an entry, unless the page ends before it.
    fn push(&mut self, archive: Arc<[u8]>) -> bool {
        if self.items == 0 || (archive.len() > self.bytes && !self.entries.is_empty()) {
            self.items = 0;
            return false;
        }
        self.items -= 1;
        self.bytes = self.bytes.saturating_sub(archive.len());
        self.entries.push(archive);
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
        Self { epoch, first, last, below, above, above_end: 0, behind: Vec::new(), damage: None }
    }

    /// Takes what the memtables hold.
    pub(crate) fn collect_from_memory(&mut self, id: ConversationId, memory: &Memory) {
        let memory_first = memory.first(id).map_or(u64::MAX, |sequence| sequence.0);
        let archive = |sequence: u64| memory.entry(id, Sequence(sequence)).map(|(_, archive)| archive);
        while self.below.items > 0 && self.below.next >= self.first.0.max(memory_first) {
            let Some(archive) = archive(self.below.next).filter(|archive| !archive.is_empty()) else {
                self.damaged(refuse(ErrorCode::Damaged));
                return;
            };
            if self.below.push(archive) {
                self.below.next -= 1;
            }
        }
        let from = self.above.next.max(memory_first);
        self.above_end = self.last.0.min(memory_first - 1);
        for sequence in from..=self.last.0.min(from.saturating_add(self.above.items as u64)) {
            match archive(sequence) {
                Some(archive) if !archive.is_empty() => self.behind.push(archive),
                _ if sequence == self.above.next && self.above.items > 0 => {
                    self.damaged(refuse(ErrorCode::Damaged));
                    return;
                }
                _ => break,
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
    pub(crate) async fn read_segments<F: Files>(&mut self, id: ConversationId, runs: &Runs<F>) {
        if self.wants_below() {
            let range = keys::entry_range(id, self.first, Sequence(self.below.next));
            let mut scan = runs.scan(&range, Direction::Backward, Some(&keys::conversation(id)));
            while self.wants_below() {
                let row = scan.next().await;
                match entry_row(row, self.below.next) {
                    Ok(archive) => {
                        if self.below.push(archive) {
                            self.below.next -= 1;
                        }
                    }
                    Err(refusal) => self.damaged(refusal),
                }
            }
        }
        if self.wants_above() {
            let range = keys::entry_range(id, Sequence(self.above.next), Sequence(self.above_end));
            let mut scan = runs.scan(&range, Direction::Forward, Some(&keys::conversation(id)));
            while self.wants_above() {
                let row = scan.next().await;
                match entry_row(row, self.above.next) {
                    Ok(archive) => {
                        if self.above.push(archive) {
                            self.above.next += 1;
                        }
                    }
                    Err(refusal) => self.damaged(refusal),
                }
            }
        }
    }

    fn damaged(&mut self, refusal: Refusal) {
        self.damage = Some(refusal);
        self.below.items = 0;
        self.above.items = 0;
        self.behind.clear();
    }

    /// The answer.
    pub(crate) fn finish(mut self) -> Answer {
        for archive in std::mem::take(&mut self.behind) {
            if !self.above.push(archive) {
                break;
            }
        }
        let mut entries = self.below.entries;
        entries.reverse();
        entries.append(&mut self.above.entries);
        match self.damage {
            Some(refusal) if entries.is_empty() => Err(refusal),
            _ => {
                let (epoch, first, last) = (self.epoch, self.first, self.last);
                Ok(Done::History(HistoryPage { epoch, first, last, entries }))
            }
        }
    }
}

/// An entry's archive out of a row, if it is the entry that has to come next.
fn entry_row(row: Result<Option<Row<'_>>, StoreError>, expected: u64) -> Result<Arc<[u8]>, Refusal> {
    let row = row.map_err(|error| unreadable(&error))?;
    row.and_then(|row| {
        (keys::parse(row.key)? == Key::Entry(Sequence(expected))).then_some(())?;
        Some(Arc::from(rows::decode_entry(row.value)?.1))
    })
    .ok_or_else(|| refuse(ErrorCode::Damaged))
}
