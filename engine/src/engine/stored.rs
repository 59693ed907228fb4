//! Entries as they are read: each with what later ones made of it, from segments and from memory.
//!
//! In segments a message's state and the rows of who reacted stand right behind the entry, so that one scan reads all of it; where more
//! reacted than a page wants to pass by, the scan begins anew behind them.
//!
//! From the end down, older runs are left alone as long as newer ones give one entry after the other: an entry that took no other's place
//! was first written in the run that gives it, so whatever became of it stands there or in a newer one. So the latest page is mostly
//! one read, however many runs know the conversation.
//!
//! What memory says is newer and goes over it, at the moment at which the answer is put together: an entry whose content was taken away
//! meanwhile is given without.
//!
//! Must not do: judge who sees what; callers do.

use std::sync::Arc;

use antiphon_wire::{
    frame::{ChangeView, EntryKind, MessageState, view_change, view_entry},
    ids::{ConversationId, LanePosition, Sequence, UserId},
};

use crate::{
    changes::{RetentionRow, StateRow, decode_reactor, without_content},
    engine::{reads::malformed, state::Memory},
    error::StoreError,
    keys::{self, Key},
    row::{Direction, KeyRange},
    rows,
    runs::{Older, Runs, Scan},
    seams::Files,
};

/// Rows of who reacted that a scan passes by before it begins anew behind them: about what one more read costs.
const REACTORS_PASSED_MAX: usize = 64;

/// An entry, and what later ones made of it.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) sequence: Sequence,
    pub(super) position: LanePosition,
    /// Empty for one that the log has lost.
    pub(super) archive: Arc<[u8]>,
    pub(super) state: Option<StateRow>,
    /// The asking user's reactions.
    pub(super) mine: Vec<String>,
}

impl Stored {
    pub(super) fn new(sequence: Sequence, position: LanePosition, archive: Arc<[u8]>) -> Self {
        Self { sequence, position, archive, state: None, mine: Vec::new() }
    }

    /// What users are told of it beside the entry, if there is anything.
    pub(super) fn told(&self) -> Option<MessageState> {
        let state = self.state.as_ref().filter(|state| !state.is_plain())?;
        Some(state.told(self.sequence, &self.mine))
    }

    /// The archive for one who sees entries from `first` on: what a message before that says now is not shown.
    pub(super) fn archive_for(&self, first: Sequence) -> Arc<[u8]> {
        visible_part(&self.archive, first)
    }
}

/// An entry's archive for one who sees entries from `first` on.
pub(super) fn visible_part(archive: &Arc<[u8]>, first: Sequence) -> Arc<[u8]> {
    let Ok(entry) = view_entry(archive) else { return archive.clone() };
    let kind = EntryKind::from(&entry.kind);
    if kind != EntryKind::Edit {
        return archive.clone();
    }
    match view_change(kind, &entry.body) {
        Ok(ChangeView::Edit { target, content: Some(_) }) if target < first => {
            without_content(archive).unwrap_or_else(|| Arc::from([]))
        }
        _ => archive.clone(),
    }
}

impl Memory {
    /// Whether changes of the conversation's messages are in memory.
    pub(super) fn has_changes(&self, id: ConversationId) -> bool {
        self.oldest_first()
            .any(|memtable| memtable.has_changes() && memtable.tail(id).is_some_and(|tail| tail.changes.is_some()))
    }

    /// What memory says of a row that a change brought, by its suffix, if anything.
    pub(super) fn changed(&self, id: ConversationId, suffix: &[u8]) -> Option<Option<&Arc<[u8]>>> {
        let newest_first = [&self.active].into_iter().chain(self.sealed.as_deref());
        newest_first.filter(|memtable| memtable.has_changes()).find_map(|memtable| memtable.tail(id)?.changed(suffix))
    }

    /// A message's state as memory knows it, if it knows any.
    pub(super) fn state_row(&self, id: ConversationId, sequence: Sequence) -> Option<StateRow> {
        let value = self.changed(id, &keys::state_suffix(sequence))?;
        Some(value.and_then(|value| StateRow::decode(value)).unwrap_or_default())
    }

    /// A user's reactions to a message as memory knows them, if it knows any.
    pub(super) fn reactor_row(&self, id: ConversationId, sequence: Sequence, user: &UserId) -> Option<Vec<String>> {
        let value = self.changed(id, &keys::reactor_suffix(sequence, user))?;
        Some(value.and_then(|value| decode_reactor(value)).unwrap_or_default())
    }

    /// An entry as it is now, if memory knows: one that is in memory, or one of which a change in memory says what is left.
    pub(super) fn entry_now(&self, id: ConversationId, sequence: Sequence) -> Option<(LanePosition, Arc<[u8]>)> {
        self.entry(id, sequence).or_else(|| self.replaced(id, sequence))
    }

    /// What a change in memory has left of an entry that is not in the same memtable.
    pub(super) fn replaced(&self, id: ConversationId, sequence: Sequence) -> Option<(LanePosition, Arc<[u8]>)> {
        let value = self.changed(id, &keys::entry_suffix(sequence))??;
        rows::decode_entry(value).map(|(position, archive)| (position, Arc::from(archive)))
    }

    /// Whether what a message in memory said first is not known any more.
    pub(super) fn is_changed(&self, id: ConversationId, archive: &[u8]) -> bool {
        let Ok(entry) = view_entry(archive) else { return false };
        let state = self.state_row(id, Sequence(entry.sequence.0.to_native()));
        state.is_some_and(|state| state.edited.is_some() || state.deleted)
    }

    /// The first entry that stays, as far as memory knows of a retention mark.
    pub(super) fn retained_from(&self, id: ConversationId) -> Sequence {
        let row = self.changed(id, &keys::RETENTION).flatten().and_then(|value| RetentionRow::decode(value));
        row.unwrap_or_default().before
    }

    /// Puts what memory says now over what was read before. `user` is who asks.
    pub(super) fn overlay(&self, id: ConversationId, user: &UserId, entries: &mut [Stored]) {
        if !self.has_changes(id) {
            return;
        }
        for stored in entries {
            if let Some((position, archive)) = self.entry_now(id, stored.sequence) {
                (stored.position, stored.archive) = (position, archive);
            }
            if let Some(state) = self.state_row(id, stored.sequence) {
                stored.state = Some(state);
            }
            if let Some(mine) = self.reactor_row(id, stored.sequence, user) {
                stored.mine = mine;
            }
        }
    }
}

/// The entries of a range in segments, one by one.
pub(super) struct StoredScan<'a, F: Files> {
    runs: &'a Runs<F>,
    id: ConversationId,
    user: &'a UserId,
    direction: Direction,
    /// First and last sequence.
    range: (Sequence, Sequence),
    scan: Scan<'a, F>,
    /// Backward: how it goes through older and older runs.
    descent: Descent,
    /// Forward: the entry whose rows are being read.
    held: Option<Stored>,
    /// Backward: what was read of rows behind an entry that is still to come.
    behind: Behind,
    failed: Option<StoreError>,
}

/// A scan from the end down that takes to older runs when it has to.
struct Descent {
    /// The entry that comes next, if none is missing.
    expected: Sequence,
    /// So many of the newest runs are scanned, or as many more as cannot be left out.
    runs: usize,
    older: Older,
    /// There are older ones.
    left_out: bool,
    /// Rows behind the expected entry were read: what older runs say of the same is not to be taken for newer. As for rows that are deleted, see
    /// [`Scan::take_passed`].
    passed_rows: bool,
    /// Entries that are probably wanted, and that were given.
    wanted: usize,
    given: usize,
}

impl Descent {
    /// How many runs are probably needed for what is wanted still: at least one more, and at most three times as many.
    fn more_runs(&self) -> usize {
        let wanted = self.wanted.saturating_sub(self.given);
        let needed = (wanted * self.runs).div_ceil(self.given.max(1));
        self.runs + needed.clamp(1, 2 * self.runs)
    }
}

/// Rows behind an entry.
#[derive(Default)]
struct Behind {
    of: Sequence,
    state: Option<StateRow>,
    mine: Vec<String>,
    passed: usize,
}

/// What a row was.
enum Met {
    /// An entry, and whether it took the place of an older one.
    Entry(Stored, bool),
    /// What became of this message.
    Other(Sequence),
    /// Too many who reacted to this message.
    Crowd(Sequence),
}

impl<'a, F: Files> StoredScan<'a, F> {
    /// Entries from `first` to `last`, both with them; `user` is who asks, and probably for `wanted` of them.
    pub(super) fn new(
        runs: &'a Runs<F>,
        id: ConversationId,
        user: &'a UserId,
        (first, last): (Sequence, Sequence),
        direction: Direction,
        wanted: usize,
    ) -> Self {
        let newest = if direction == Direction::Backward { 1 } else { usize::MAX };
        let (scan, older) = Self::scan(runs, id, &keys::entry_range(id, first, last), direction, newest);
        let left_out = older.any;
        let descent = Descent { expected: last, runs: newest, older, left_out, passed_rows: false, wanted, given: 0 };
        let (held, behind, failed) = (None, Behind::default(), None);
        Self { runs, id, user, direction, range: (first, last), scan, descent, held, behind, failed }
    }

    fn scan(
        runs: &'a Runs<F>,
        id: ConversationId,
        range: &KeyRange,
        direction: Direction,
        newest: usize,
    ) -> (Scan<'a, F>, Older) {
        runs.scan_newest(range, direction, Some(&keys::conversation(id)), newest)
    }

    /// Takes older runs in, at the entry that comes next.
    fn descend(&mut self, runs: usize) {
        let range = keys::entry_range(self.id, self.range.0, self.descent.expected);
        let (before, older) = (self.descent.runs, self.descent.older);
        self.behind = Behind::default();
        self.descent.runs = runs;
        if self.scan.take_passed() || self.descent.passed_rows {
            self.begin(&range);
            return;
        }
        let piece = keys::conversation(self.id);
        let older = self.runs.take_older(&mut self.scan, older, &range, Some(&piece), runs.saturating_sub(before));
        (self.descent.older, self.descent.left_out) = (older, older.any);
    }

    /// Begins a scan anew, of as many runs.
    fn begin(&mut self, range: &KeyRange) {
        let (scan, older) = Self::scan(self.runs, self.id, range, self.direction, self.descent.runs);
        self.scan = scan;
        self.descent.passed_rows = false;
        (self.descent.older, self.descent.left_out) = (older, older.any);
    }

    /// The next entry.
    ///
    /// # Errors
    /// As a scan's. What was read of the entry before is given first.
    pub(super) async fn next(&mut self) -> Result<Option<Stored>, StoreError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        loop {
            let met = match self.step().await {
                Ok(Some(met)) => met,
                Ok(None) if self.descent.left_out && self.descent.expected >= self.range.0 => {
                    self.descend(self.descent.more_runs());
                    continue;
                }
                Ok(None) => return Ok(self.held.take()),
                Err(error) => {
                    // What an entry says stands in its own row; what is behind it cannot be told.
                    let Some(held) = self.held.take() else { return Err(error) };
                    self.failed = Some(error);
                    return Ok(Some(held));
                }
            };
            match met {
                Met::Other(sequence) if self.descent.left_out && sequence < self.descent.expected => {
                    self.descend(self.descent.more_runs());
                }
                Met::Other(_) => self.descent.passed_rows = true,
                Met::Crowd(sequence) => self.pass_by(sequence).await?,
                Met::Entry(stored, _) if self.direction == Direction::Forward => {
                    if let Some(before) = self.held.replace(stored) {
                        return Ok(Some(before));
                    }
                }
                Met::Entry(_, true) if self.descent.left_out => self.descend(usize::MAX),
                Met::Entry(stored, _) if self.descent.left_out && stored.sequence != self.descent.expected => {
                    self.descend(self.descent.more_runs());
                }
                Met::Entry(mut stored, _) => {
                    self.descent.expected = Sequence(stored.sequence.0.saturating_sub(1));
                    self.descent.given += 1;
                    self.descent.passed_rows = false;
                    self.scan.take_passed();
                    let behind = std::mem::take(&mut self.behind);
                    if behind.of == stored.sequence {
                        (stored.state, stored.mine) = (behind.state, behind.mine);
                    }
                    return Ok(Some(stored));
                }
            }
        }
    }

    async fn step(&mut self) -> Result<Option<Met>, StoreError> {
        let Some(row) = self.scan.next().await? else { return Ok(None) };
        let key = keys::parse(row.key).ok_or_else(malformed)?;
        let (sequence, state, mine) = match key {
            Key::Entry(sequence) => {
                let (position, archive) = rows::decode_entry(row.value).ok_or_else(malformed)?;
                let stored = Stored::new(sequence, position, Arc::from(archive));
                return Ok(Some(Met::Entry(stored, rows::is_replacing(row.value))));
            }
            Key::State(sequence) => (sequence, Some(StateRow::decode(row.value).ok_or_else(malformed)?), None),
            Key::Reactor(sequence, user) => {
                let mine =
                    if user == *self.user { Some(decode_reactor(row.value).ok_or_else(malformed)?) } else { None };
                (sequence, None, mine)
            }
            _ => return Err(malformed()),
        };
        if self.behind.of != sequence {
            self.behind = Behind { of: sequence, ..Behind::default() };
        }
        self.behind.passed += usize::from(state.is_none());
        let crowd = self.behind.passed > REACTORS_PASSED_MAX;
        match self.held.as_mut().filter(|held| held.sequence == sequence) {
            Some(held) => {
                held.state = state.or(held.state.take());
                held.mine = mine.unwrap_or_else(|| std::mem::take(&mut held.mine));
            }
            None => {
                self.behind.state = state.or(self.behind.state.take());
                self.behind.mine = mine.unwrap_or_else(|| std::mem::take(&mut self.behind.mine));
            }
        }
        Ok(Some(if crowd { Met::Crowd(sequence) } else { Met::Other(sequence) }))
    }

    /// Goes on behind those who reacted to a message, with what the asking user's own row says.
    async fn pass_by(&mut self, sequence: Sequence) -> Result<(), StoreError> {
        let key = keys::within(self.id, &keys::reactor_suffix(sequence, self.user));
        let row = self.runs.get(&key).await?.and_then(|row| row.value());
        let mine = match row {
            Some(value) => decode_reactor(&value).ok_or_else(malformed)?,
            None => Vec::new(),
        };
        let range = match self.direction {
            Direction::Forward => keys::entry_range(self.id, sequence.next(), self.range.1),
            Direction::Backward => keys::entries_but_last_reactors(self.id, self.range.0, sequence),
        };
        match self.held.as_mut().filter(|held| held.sequence == sequence) {
            Some(held) => held.mine = mine,
            None => self.behind.mine = mine,
        }
        // The next row is not one of them.
        self.behind.passed = 0;
        self.begin(&range);
        self.descent.passed_rows = true;
        Ok(())
    }
}
