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
    /// So many of the newest runs are scanned.
    runs: usize,
    older: Older,
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
        let descent = Descent { expected: last, runs: newest, older, passed_rows: false, wanted, given: 0 };
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
        let more = runs.saturating_sub(before);
        self.descent.older = self.runs.take_older(&mut self.scan, older, &range, Some(&piece), more);
    }

    /// Begins a scan anew, of as many runs.
    fn begin(&mut self, range: &KeyRange) {
        (self.scan, self.descent.older) = Self::scan(self.runs, self.id, range, self.direction, self.descent.runs);
        self.descent.passed_rows = false;
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
                Ok(None) if self.descent.older.any && self.descent.expected >= self.range.0 => {
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
                Met::Other(sequence) if self.descent.older.any && sequence < self.descent.expected => {
                    self.descend(self.descent.more_runs());
                }
                Met::Other(_) => self.descent.passed_rows = true,
                Met::Crowd(sequence) => self.pass_by(sequence).await?,
                Met::Entry(stored, _) if self.direction == Direction::Forward => {
                    if let Some(before) = self.held.replace(stored) {
                        return Ok(Some(before));
                    }
                }
                Met::Entry(_, true) if self.descent.older.any => self.descend(usize::MAX),
                Met::Entry(stored, _) if self.descent.older.any && stored.sequence != self.descent.expected => {
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        cache::Cache,
        changes::encode_reactor,
        memory_files::{MemoryFiles, MemoryRandom, OperationKind, block_on},
        row::Change,
        runs::Run,
        segment::{SegmentContext, SegmentId, SegmentReader, SegmentSettings, SegmentWriter},
    };

    const ID: ConversationId = ConversationId([7; 16]);

    /// Twenty, in two stretches of a filter.
    const ENTRIES: std::ops::RangeInclusive<u64> = 22..=41;

    /// Rows of one run; `None` for one that is deleted.
    type Rows = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

    fn runs(files: &MemoryFiles, newest_first: &[Rows]) -> Runs<MemoryFiles> {
        // Blocks are not kept, so that each use of one is a read.
        let settings = SegmentSettings { filter: keys::FILTER, compression_level: 0, ..SegmentSettings::default() };
        let context = SegmentContext::new(files.clone(), Cache::new(0), 1, settings);
        let written = newest_first.iter().zip(1..).filter(|(rows, _)| !rows.is_empty()).map(|(rows, number)| {
            block_on(async {
                let mut writer = SegmentWriter::create(&context, SegmentId(number)).await.unwrap();
                for (key, value) in rows {
                    let change = value.as_ref().map_or(Change::Delete, |value| Change::Put(value.as_slice()));
                    writer.push(key, change).await.unwrap();
                }
                writer.finish().await.unwrap();
                Run::Segment(SegmentReader::open(&context, SegmentId(number)).await.unwrap())
            })
        });
        Runs::new(written.collect())
    }

    /// An entry's row, with what tells it from others of its key.
    fn entry_row(sequence: u64, said: u64, replaces: bool) -> (Vec<u8>, Vec<u8>) {
        let (mut value, mut bytes) = (Vec::new(), Vec::new());
        rows::put_entry(LanePosition(sequence), &said.to_le_bytes(), &mut value);
        if replaces {
            rows::put_replacing(&value, &mut bytes)
        } else {
            bytes = value
        }
        (keys::entry(ID, Sequence(sequence)), bytes)
    }

    fn state_row(sequence: u64, count: u32) -> (Vec<u8>, Vec<u8>) {
        let state = StateRow { reactions: vec![("ok".to_owned(), count)], ..StateRow::default() };
        (keys::within(ID, &keys::state_suffix(Sequence(sequence))), state.encode())
    }

    fn reactor_row(sequence: u64, user: &str, text: &str) -> (Vec<u8>, Vec<u8>) {
        let suffix = keys::reactor_suffix(Sequence(sequence), &UserId::new(user).unwrap());
        (keys::within(ID, &suffix), encode_reactor(&[text.to_owned()]))
    }

    fn some(rows: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>) -> impl Iterator<Item = (Vec<u8>, Option<Vec<u8>>)> {
        rows.into_iter().map(|(key, value)| (key, Some(value)))
    }

    /// The first `limit` entries of a range, from its end down.
    fn page(runs: &Runs<MemoryFiles>, first: u64, last: u64, limit: usize) -> Vec<Stored> {
        let user = UserId::new("ann").unwrap();
        let range = (Sequence(first), Sequence(last));
        block_on(async {
            let mut scan = StoredScan::new(runs, ID, &user, range, Direction::Backward, limit);
            let mut found = Vec::new();
            while found.len() < limit
                && let Some(stored) = scan.next().await.unwrap()
            {
                found.push(stored);
            }
            found
        })
    }

    fn reads(files: &MemoryFiles) -> u64 {
        files.operations()[OperationKind::Read as usize]
    }

    /// Some runs: each entry was written first in any of them, and what became of it stands there or in newer ones.
    fn any_runs(random: &MemoryRandom) -> Vec<Rows> {
        let mut newest_first = vec![Rows::new(); 2 + random.below(4) as usize];
        let (mut home, mut said) = (newest_first.len() as u64 - 1, 0);
        for sequence in ENTRIES {
            match random.below(8) {
                0 => continue,
                1 => home = random.below(newest_first.len() as u64),
                2 => home = home.saturating_sub(1),
                _ => {}
            }
            let mut put = |run: u64, (key, value)| drop(newest_first[run as usize].insert(key, Some(value)));
            let mut another = || {
                said += 1;
                said
            };
            put(home, entry_row(sequence, another(), false));
            for _ in 0..random.below(3) {
                put(random.below(home + 1), state_row(sequence, another() as u32));
            }
            for _ in 0..random.below(3) {
                put(random.below(home + 1), reactor_row(sequence, "ann", &another().to_string()));
            }
            for user in 0..if random.below(20) == 0 { 70 } else { random.below(2) } {
                put(random.below(home + 1), reactor_row(sequence, &format!("user{user}"), "ok"));
            }
            if home > 0 && random.below(6) == 0 {
                put(random.below(home), entry_row(sequence, another(), true));
            }
            if home > 0 && random.below(4) == 0 {
                // Taken back, which older runs do not know.
                newest_first[random.below(home) as usize].insert(reactor_row(sequence, "ann", "").0, None);
            }
        }
        newest_first
    }

    #[test]
    fn a_page_from_the_end_down_is_what_all_runs_say_of_it() {
        for seed in 0..600 {
            let random = MemoryRandom::new(seed);
            let newest_first = any_runs(&random);
            let mut all = Rows::new();
            newest_first.iter().rev().for_each(|rows| all.extend(rows.clone()));
            let runs = runs(&MemoryFiles::new(0), &newest_first);
            for _ in 0..4 {
                let any = || ENTRIES.start() + random.below(20);
                let (first, last) = (any(), any());
                let limit = 1 + random.below(20) as usize;
                let there = |(key, _): &(Vec<u8>, Vec<u8>)| all.get(key)?.as_ref();
                let expected = (first..=last).rev().filter_map(|sequence| {
                    let value = there(&entry_row(sequence, 0, false))?;
                    let state = there(&state_row(sequence, 0)).map(|value| StateRow::decode(value).unwrap());
                    let mine = there(&reactor_row(sequence, "ann", "")).map(|value| decode_reactor(value).unwrap());
                    Some((sequence, rows::decode_entry(value).unwrap().1.to_vec(), state, mine.unwrap_or_default()))
                });
                let expected: Vec<_> = expected.take(limit).collect();
                let found = page(&runs, first, last, limit).into_iter();
                let found: Vec<_> = found.map(|of| (of.sequence.0, of.archive.to_vec(), of.state, of.mine)).collect();
                assert_eq!(found, expected, "seed {seed}: {first} to {last}, {limit}");
            }
        }
    }

    #[test]
    fn a_page_reads_no_rows_of_messages_that_are_further_down() {
        // Everybody reacted to everything, later.
        let (mut newer, mut older) = (Rows::new(), Rows::new());
        for sequence in 1..=3_000 {
            older.extend(some([entry_row(sequence, 1, false)]));
            newer.extend(some([state_row(sequence, 1), reactor_row(sequence, "bob", &"ok".repeat(60))]));
        }
        newer.extend(some([entry_row(3_001, 1, false)]));
        let files = MemoryFiles::new(0);
        let runs = runs(&files, &[newer, older]);
        let before = reads(&files);
        assert_eq!(page(&runs, 1, 3_000, 10).len(), 10);
        assert!(reads(&files) - before <= 6, "{} reads", reads(&files) - before);
    }

    #[test]
    fn the_latest_page_of_a_conversation_that_is_all_of_its_runs_is_one_read() {
        let of =
            |range: std::ops::Range<u64>| some(range.map(|sequence| entry_row(sequence, 1, false))).collect::<Rows>();
        let files = MemoryFiles::new(0);
        let runs = runs(&files, &[of(41..61), of(21..41), of(1..21)]);
        let before = reads(&files);
        assert_eq!(page(&runs, 1, 60, 20).len(), 20);
        assert_eq!(reads(&files) - before, 1);
    }

    #[test]
    fn a_page_of_old_entries_leaves_newer_runs_alone_that_have_none_of_them() {
        let of = |entries: std::ops::Range<u64>, states: &[u64]| {
            let states = states.iter().map(|sequence| state_row(*sequence, 1));
            some(entries.map(|sequence| entry_row(sequence, 1, false)).chain(states)).collect::<Rows>()
        };
        let files = MemoryFiles::new(0);
        // The second newest one has what became of an entry of the third stretch.
        let runs = runs(&files, &[of(220..240, &[]), of(160..220, &[70]), of(128..160, &[]), of(1..128, &[])]);
        for (first, last, told, expected) in [(1, 50, 0, 1), (65, 90, 1, 2), (33, 40, 0, 1), (100, 127, 0, 1)] {
            let before = reads(&files);
            let found = page(&runs, first, last, 50);
            assert_eq!(found.len() as u64, last - first + 1);
            assert_eq!(found.iter().filter(|stored| stored.state.is_some()).count(), told, "{first} to {last}");
            assert_eq!(reads(&files) - before, expected, "{first} to {last}");
        }
    }
}
