//! One view over several sorted runs: the newest row of a key wins, and deleted keys are hidden.
//!
//! Invariants: runs stand newest first and never change; a view that someone holds keeps its files readable.
//! Must not do: write, or decide what is merged.

use std::{rc::Rc, sync::Arc};

use futures_util::stream::{self, StreamExt as _};

use crate::{
    encryption::Vault,
    error::{DamagedKeys, StoreError},
    keys,
    manifest::SegmentEntry,
    merge::{Merge, Settled, Source},
    row::{Change, Direction, KeyRange, SharedBytes},
    seams::Files,
    segment::{SegmentCursor, SegmentId, SegmentReader},
};

/// How many runs one lookup reads at once: each may take a part of a filter, and many lookups are under way at a time.
const READS_AT_ONCE: usize = 4;

/// Sorted runs of one store, newest first.
pub struct Runs<F: Files> {
    newest_first: Vec<Run<F>>,
    /// For each run, what its first and its last key begin with: most runs are passed over by a look at these alone.
    bounds: Vec<(u64, u64)>,
    /// Of their indexes, and of what is held of their filters.
    resident_bytes: (usize, usize),
    /// What values are opened with, in an encrypted store.
    vault: Option<Arc<Vault>>,
}

/// One run. Cloning gives another handle on the same.
#[expect(clippy::large_enum_variant, reason = "there are some tens of runs, and hardly ever a damaged one")]
pub enum Run<F: Files> {
    /// A segment that can be read.
    Segment(SegmentReader<F>),
    /// A segment whose footer, index or filter is damaged: a read that would need it gives the error.
    Damaged {
        /// What the manifest says of it.
        entry: SegmentEntry,
        /// What is wrong.
        error: StoreError,
    },
}

/// A row of a scan; it lives until the scan goes on. Deleted keys do not appear.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// The key.
    pub key: &'a [u8],
    /// Its value; clone it to keep it.
    pub value: &'a SharedBytes,
}

/// What a step without waiting gave.
#[derive(Debug, Clone, Copy)]
pub enum Step<'a> {
    /// The next row.
    Row(Row<'a>),
    /// There are no more.
    End,
    /// A block has to be read first: call [`Scan::next`].
    NotCached,
}

impl<F: Files> Clone for Run<F> {
    fn clone(&self) -> Self {
        match self {
            Self::Segment(reader) => Self::Segment(reader.clone()),
            Self::Damaged { entry, error } => Self::Damaged { entry: entry.clone(), error: error.clone() },
        }
    }
}

impl<F: Files> Runs<F> {
    /// A view over `newest_first`.
    #[must_use]
    pub fn new(newest_first: Vec<Run<F>>) -> Self {
        let bounds = newest_first.iter().map(|run| {
            let (first, last) = run.bounds();
            (key_head(first), key_head(last))
        });
        let resident = newest_first.iter().filter_map(|run| match run {
            Run::Segment(reader) => Some(reader.resident_bytes()),
            Run::Damaged { .. } => None,
        });
        let resident_bytes = resident.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        Self { bounds: bounds.collect(), newest_first, resident_bytes, vault: None }
    }

    /// The same, of an encrypted store.
    pub(crate) fn with_vault(self, vault: Option<Arc<Vault>>) -> Self {
        Self { vault, ..self }
    }

    /// What values are opened with.
    pub(crate) fn vault(&self) -> Option<&Arc<Vault>> {
        self.vault.as_ref()
    }

    /// What a run says of a key, opened; `None` if it is of a conversation that was erased.
    fn opened(
        &self,
        run: &Run<F>,
        key: &[u8],
        found: Change<SharedBytes>,
    ) -> Result<Option<Change<SharedBytes>>, StoreError> {
        let Some(vault) = &self.vault else { return Ok(Some(found)) };
        let (Change::Put(value), Some(sealed)) = (&found, keys::sealed(key)) else { return Ok(Some(found)) };
        let opened = vault.open_row(key, sealed, value).map_err(|what| not_opened(run.id(), key, what))?;
        Ok(opened.map(Change::Put))
    }

    /// The runs, newest first.
    #[must_use]
    pub fn newest_first(&self) -> &[Run<F>] {
        &self.newest_first
    }

    /// Bytes of memory that the runs' indexes take, and those of what is held of their filters.
    #[must_use]
    pub const fn resident_bytes(&self) -> (usize, usize) {
        self.resident_bytes
    }

    /// Whether some run may hold a row in `range` whose key has this filter piece; without a piece, whether one may hold a row in the
    /// range. `false` is certain. Needs no read.
    #[must_use]
    pub fn may_overlap(&self, range: &KeyRange, piece: Option<&[u8]>) -> bool {
        self.newest_first.iter().any(|run| run.may_overlap(range, piece))
    }

    /// Whether some run may know `key`. `false` is certain. Needs no read.
    #[must_use]
    pub fn may_contain(&self, key: &[u8]) -> bool {
        let (head, mut hashes) = (key_head(key), None);
        self.newest_first.iter().zip(&self.bounds).any(|(run, (first, last))| {
            *first <= head
                && head <= *last
                && match run {
                    Run::Segment(reader) => reader.may_contain_hashed(key, &mut hashes),
                    Run::Damaged { .. } => run.may_contain(key),
                }
        })
    }

    /// As [`Runs::get`], looking into several runs at once: for a key that is mostly in none, while filters may have to be read.
    ///
    /// # Errors
    /// As [`Runs::get`].
    pub async fn get_at_once(&self, key: &[u8]) -> Result<Option<Change<SharedBytes>>, StoreError> {
        let asked = self.newest_first.iter().filter(|run| run.may_contain(key)).map(|run| async move {
            match run {
                Run::Segment(reader) => Ok(reader.get(key).await?.map(|found| (run, found))),
                Run::Damaged { error, .. } => Err(error.clone()),
            }
        });
        let mut found = Box::pin(stream::iter(asked).buffered(READS_AT_ONCE));
        while let Some(found) = found.next().await {
            if let Some((run, found)) = found? {
                return self.opened(run, key, found);
            }
        }
        Ok(None)
    }

    /// What the newest run that knows `key` says about it; `None` if none knows it.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if a block that may hold the key is, unless a newer run knows the key; and whatever the files say.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Change<SharedBytes>>, StoreError> {
        for run in &self.newest_first {
            let found = match run {
                Run::Segment(reader) => reader.get(key).await?,
                Run::Damaged { error, .. } if run.may_contain(key) => return Err(error.clone()),
                Run::Damaged { .. } => None,
            };
            if let Some(found) = found {
                return self.opened(run, key, found);
            }
        }
        Ok(None)
    }

    /// As [`Runs::get`], but `None` if a block would have to be read, or is damaged.
    #[must_use]
    pub fn get_cached(&self, key: &[u8]) -> Option<Option<Change<SharedBytes>>> {
        for run in &self.newest_first {
            let found = match run {
                Run::Segment(reader) => reader.get_cached(key)?,
                Run::Damaged { .. } if run.may_contain(key) => return None,
                Run::Damaged { .. } => None,
            };
            if let Some(found) = found {
                return self.opened(run, key, found).ok();
            }
        }
        Some(None)
    }

    /// Starts a scan of these runs. `piece`, if given, is a filter piece that every key in the range has: runs whose filter
    /// does not hold it are left out. See [`Scan::with_newer`] for rows that are in memory.
    #[must_use]
    pub fn scan<'a>(&self, range: &KeyRange, direction: Direction, piece: Option<&[u8]>) -> Scan<'a, F> {
        let runs = self.newest_first.iter().filter(|run| run.may_overlap(range, piece));
        self.scan_of(runs, range, direction)
    }

    /// As [`Runs::scan`] of the newest `count` runs that may hold rows; and which are left out.
    pub(crate) fn scan_newest<'a>(
        &self,
        range: &KeyRange,
        direction: Direction,
        piece: Option<&[u8]>,
        count: usize,
    ) -> (Scan<'a, F>, Older) {
        let (runs, older) = self.newest_of(0, range, piece, count);
        (self.scan_of(runs.into_iter(), range, direction), older)
    }

    /// Takes `count` more runs into a scan that was made by [`Runs::scan_newest`], in the part of its range that is still to come: nothing of that
    /// may have been passed but the row that the scan stands on, which comes again.
    pub(crate) fn take_older(
        &self,
        scan: &mut Scan<'_, F>,
        older: Older,
        range: &KeyRange,
        piece: Option<&[u8]>,
        count: usize,
    ) -> Older {
        let (runs, older) = self.newest_of(older.first, range, piece, count);
        let direction = scan.merge.direction();
        scan.merge.push_oldest(sources_of(runs.into_iter(), range, direction));
        scan.ended = false;
        older
    }

    /// The newest `count` runs from one on that may hold rows, and which are older than those.
    fn newest_of(&self, from: usize, range: &KeyRange, piece: Option<&[u8]>, count: usize) -> (Vec<&Run<F>>, Older) {
        let runs = self.newest_first.iter().enumerate().skip(from);
        let mut overlapping = runs.filter(|(_, run)| run.may_overlap(range, piece));
        let taken = overlapping.by_ref().take(count).map(|(_, run)| run).collect();
        let first = overlapping.next().map(|(place, _)| place);
        (taken, Older { first: first.unwrap_or(self.newest_first.len()), any: first.is_some() })
    }

    fn scan_of<'a, 'b>(
        &self,
        runs: impl Iterator<Item = &'b Run<F>>,
        range: &KeyRange,
        direction: Direction,
    ) -> Scan<'a, F>
    where
        F: 'b,
    {
        let sources = sources_of(runs, range, direction).collect();
        let merge = Merge::new(sources, direction);
        Scan { merge, ended: false, passed: false, vault: self.vault.clone(), opened: None }
    }
}

/// Which runs a scan of the newest ones does without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Older {
    /// All are before this one, newest first, that it has or that hold nothing.
    first: usize,
    /// There are some that may hold rows.
    pub(crate) any: bool,
}

fn sources_of<'a, 'b, F: Files + 'b>(
    runs: impl Iterator<Item = &'b Run<F>>,
    range: &KeyRange,
    direction: Direction,
) -> impl Iterator<Item = ScanSource<'a, F>> {
    let range = Rc::new(range.clone());
    runs.map(move |run| match run {
        Run::Segment(reader) => ScanSource::Segment(SegmentCursor::new(reader, Rc::clone(&range), direction)),
        Run::Damaged { error, .. } => ScanSource::Damaged(error.clone()),
    })
}

/// What a key begins with, as a number that orders as keys do, as far as it goes.
fn key_head(key: &[u8]) -> u64 {
    let mut head = [0; 8];
    let length = key.len().min(8);
    head[..length].copy_from_slice(&key[..length]);
    u64::from_be_bytes(head)
}

impl<F: Files> Run<F> {
    /// Which segment.
    pub(crate) fn id(&self) -> SegmentId {
        match self {
            Self::Segment(reader) => reader.id(),
            Self::Damaged { entry, .. } => entry.id,
        }
    }

    /// The first and the last key.
    pub(crate) fn bounds(&self) -> (&[u8], &[u8]) {
        match self {
            Self::Segment(reader) => (&reader.statistics().first_key, &reader.statistics().last_key),
            Self::Damaged { entry, .. } => (&entry.first_key, &entry.last_key),
        }
    }

    fn may_contain(&self, key: &[u8]) -> bool {
        match self {
            Self::Segment(reader) => reader.may_contain(key),
            Self::Damaged { entry, .. } => {
                key >= entry.first_key.as_slice() && key <= entry.last_key.as_slice() && entry.shows(key)
            }
        }
    }

    fn may_overlap(&self, range: &KeyRange, piece: Option<&[u8]>) -> bool {
        match self {
            Self::Segment(reader) => reader.may_overlap(range, piece),
            Self::Damaged { entry, .. } => range.overlaps(&entry.first_key, &entry.last_key),
        }
    }
}

/// A merging scan. It holds its runs, so it goes on whatever is compacted meanwhile.
pub struct Scan<'a, F: Files> {
    merge: Merge<ScanSource<'a, F>>,
    ended: bool,
    /// A key that is deleted was passed: see [`Scan::take_passed`].
    passed: bool,
    vault: Option<Arc<Vault>>,
    /// The value of the row it stands on, if that was sealed.
    opened: Option<SharedBytes>,
}

impl<'a, F: Files> Scan<'a, F> {
    /// Puts an in-memory source on top: newer than all runs and than every source put before it. Its rows must lie in the scan's
    /// range and come in the scan's direction, without repeats; it is asked for rows one by one. Call it before the first step.
    #[must_use]
    pub fn with_newer<K: AsRef<[u8]> + 'a>(
        mut self,
        rows: impl Iterator<Item = (K, Change<SharedBytes>)> + 'a,
    ) -> Self {
        self.merge.push_newest(ScanSource::Memory(Box::new(Peeked { rows, row: None })));
        self
    }

    /// The next row, or `None` at the end.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] at a damaged block, and whatever the files say. The scan has ended then; a new one may start behind
    /// the damaged keys.
    pub async fn next(&mut self) -> Result<Option<Row<'_>>, StoreError> {
        loop {
            match self.step()? {
                Settled::Row => break,
                Settled::End => return Ok(None),
                Settled::NeedsBlock => {
                    let loaded = self.merge.load().await;
                    self.ended |= loaded.is_err();
                    loaded?;
                }
            }
        }
        Ok(self.row())
    }

    /// The next row if that needs no read. After [`Step::NotCached`], [`Scan::next`] goes on at the same place.
    ///
    /// # Errors
    /// As [`Scan::next`].
    pub fn next_cached(&mut self) -> Result<Step<'_>, StoreError> {
        Ok(match self.step()? {
            Settled::Row => self.row().map_or(Step::End, Step::Row),
            Settled::End => Step::End,
            Settled::NeedsBlock => Step::NotCached,
        })
    }

    /// Whether a key that is deleted was passed since this was asked last. Its older rows would be shown by runs that are taken in later.
    pub(crate) const fn take_passed(&mut self) -> bool {
        std::mem::replace(&mut self.passed, false)
    }

    /// Moves to the next key that is not deleted.
    fn step(&mut self) -> Result<Settled, StoreError> {
        while !self.ended {
            let step = self.merge.step();
            match step {
                Ok(Settled::Row) if self.row().is_none() => self.passed = true,
                Ok(Settled::Row) if self.vault.is_some() => match self.open() {
                    Ok(false) => self.passed = true,
                    Ok(true) => return step,
                    Err(error) => {
                        self.ended = true;
                        return Err(error);
                    }
                },
                Ok(Settled::Row | Settled::NeedsBlock) => return step,
                Ok(Settled::End) | Err(_) => {
                    self.ended = true;
                    return step;
                }
            }
        }
        Ok(Settled::End)
    }

    /// Opens the value of the row that it came to; `false` if its conversation was erased.
    fn open(&mut self) -> Result<bool, StoreError> {
        self.opened = None;
        let (Some(vault), Some(ScanSource::Segment(cursor))) = (&self.vault, self.merge.source()) else {
            return Ok(true);
        };
        let Some((key, Change::Put(value))) = cursor.row() else { return Ok(true) };
        let Some(sealed) = keys::sealed(key) else { return Ok(true) };
        self.opened = vault.open_row(key, sealed, value).map_err(|what| not_opened(cursor.segment(), key, what))?;
        Ok(self.opened.is_some())
    }

    fn row(&self) -> Option<Row<'_>> {
        let (key, change) = self.merge.row()?;
        let value = change.as_ref().value()?;
        Some(Row { key, value: self.opened.as_ref().unwrap_or(value) })
    }
}

/// A value that was not sealed for where it stands.
pub(crate) fn not_opened(segment: SegmentId, key: &[u8], what: &'static str) -> StoreError {
    StoreError::Damaged { file: segment.file_name(), offset: 0, what, keys: DamagedKeys::between(key, key) }
}

enum ScanSource<'a, F: Files> {
    Memory(Box<dyn MemorySource + 'a>),
    Segment(SegmentCursor<F>),
    Damaged(StoreError),
}

impl<F: Files> Source for ScanSource<'_, F> {
    fn settle(&mut self) -> Result<Settled, StoreError> {
        match self {
            Self::Memory(rows) => Ok(if rows.fill() { Settled::Row } else { Settled::End }),
            Self::Segment(cursor) => cursor.settle(),
            Self::Damaged(error) => Err(error.clone()),
        }
    }

    async fn load(&mut self) -> Result<(), StoreError> {
        match self {
            Self::Segment(cursor) => cursor.load().await,
            Self::Memory(_) | Self::Damaged(_) => Ok(()),
        }
    }

    fn row(&self) -> Option<(&[u8], &Change<SharedBytes>)> {
        match self {
            Self::Memory(rows) => rows.row(),
            Self::Segment(cursor) => cursor.row(),
            Self::Damaged(_) => None,
        }
    }

    fn advance(&mut self) {
        match self {
            Self::Memory(rows) => rows.take(),
            Self::Segment(cursor) => cursor.advance(),
            Self::Damaged(_) => {}
        }
    }
}

/// An iterator over rows in memory, whatever its type.
trait MemorySource {
    /// Fetches a row if none is held; whether one is held now.
    fn fill(&mut self) -> bool;
    fn row(&self) -> Option<(&[u8], &Change<SharedBytes>)>;
    fn take(&mut self);
}

struct Peeked<I, K> {
    rows: I,
    row: Option<(K, Change<SharedBytes>)>,
}

impl<K: AsRef<[u8]>, I: Iterator<Item = (K, Change<SharedBytes>)>> MemorySource for Peeked<I, K> {
    fn fill(&mut self) -> bool {
        if self.row.is_none() {
            self.row = self.rows.next();
        }
        self.row.is_some()
    }

    fn row(&self) -> Option<(&[u8], &Change<SharedBytes>)> {
        self.row.as_ref().map(|(key, change)| (key.as_ref(), change))
    }

    fn take(&mut self) {
        self.row = None;
    }
}
