//! Entries as they are read: each with what later ones made of it, from segments and from memory.
//!
//! In segments a message's state and the rows of who reacted stand right behind the entry, so that one scan reads all of it; where more
//! reacted than a page wants to pass by, the scan begins anew behind them. What memory says is newer and goes over it, at the moment at
//! which the answer is put together: an entry whose content was taken away meanwhile is given without.
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
    runs::{Runs, Scan},
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
    /// Forward: the entry whose rows are being read.
    held: Option<Stored>,
    /// Backward: what was read of rows behind an entry that is still to come.
    behind: Behind,
    failed: Option<StoreError>,
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
    Entry(Stored),
    Other,
    /// Too many who reacted to this message.
    Crowd(Sequence),
}

impl<'a, F: Files> StoredScan<'a, F> {
    /// Entries from `first` to `last`, both with them; `user` is who asks.
    pub(super) fn new(
        runs: &'a Runs<F>,
        id: ConversationId,
        user: &'a UserId,
        (first, last): (Sequence, Sequence),
        direction: Direction,
    ) -> Self {
        let scan = Self::scan(runs, id, &keys::entry_range(id, first, last), direction);
        let (held, behind, failed) = (None, Behind::default(), None);
        Self { runs, id, user, direction, range: (first, last), scan, held, behind, failed }
    }

    fn scan(runs: &'a Runs<F>, id: ConversationId, range: &KeyRange, direction: Direction) -> Scan<'a, F> {
        runs.scan(range, direction, Some(&keys::conversation(id)))
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
                Ok(None) => return Ok(self.held.take()),
                Err(error) => {
                    // What an entry says stands in its own row; what is behind it cannot be told.
                    let Some(held) = self.held.take() else { return Err(error) };
                    self.failed = Some(error);
                    return Ok(Some(held));
                }
            };
            match met {
                Met::Other => {}
                Met::Crowd(sequence) => self.pass_by(sequence).await?,
                Met::Entry(stored) if self.direction == Direction::Forward => {
                    if let Some(before) = self.held.replace(stored) {
                        return Ok(Some(before));
                    }
                }
                Met::Entry(mut stored) => {
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
                return Ok(Some(Met::Entry(Stored::new(sequence, position, Arc::from(archive)))));
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
        Ok(Some(if crowd { Met::Crowd(sequence) } else { Met::Other }))
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
        self.scan = Self::scan(self.runs, self.id, &range, self.direction);
        Ok(())
    }
}
