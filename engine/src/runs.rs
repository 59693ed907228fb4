//! One view over several sorted runs: the newest row of a key wins, and deleted keys are hidden.
//!
//! Invariants: runs stand newest first and never change; a view that someone holds keeps its files readable.
//! Must not do: write, or decide what is merged.

use crate::{
    error::StoreError,
    row::{Change, Direction, KeyRange, SharedBytes},
    seams::Files,
    segment::{SegmentReader, SegmentStatistics},
};

/// Sorted runs, newest first. Cloning copies one reference a run; hold it in an `Rc` to share it.
#[derive(Clone)]
pub struct Runs<F: Files> {
    newest_first: Vec<Run<F>>,
}

/// One run.
#[derive(Clone)]
pub enum Run<F: Files> {
    /// A segment that can be read.
    Segment(SegmentReader<F>),
    /// A segment whose footer, index or filter is damaged: every read that would need it gives the error.
    Damaged {
        /// What the manifest says of it.
        first_key: Vec<u8>,
        /// What the manifest says of it.
        last_key: Vec<u8>,
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

impl<F: Files> Runs<F> {
    /// A view over `newest_first`.
    #[must_use]
    pub const fn new(newest_first: Vec<Run<F>>) -> Self {
        Self { newest_first }
    }

    /// The runs, newest first.
    #[must_use]
    pub fn newest_first(&self) -> &[Run<F>] {
        &self.newest_first
    }

    /// Whether some run may hold a key with this filter piece. `false` is certain. Needs no read.
    #[must_use]
    pub fn may_contain_piece(&self, piece: &[u8]) -> bool {
        unimplemented!()
    }

    /// What the newest run that knows `key` says about it; `None` if none knows it.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Change<SharedBytes>>, StoreError> {
        unimplemented!()
    }

    /// As [`Runs::get`], but `None` if that would have to read a block, or is an error.
    #[must_use]
    pub fn get_cached(&self, key: &[u8]) -> Option<Option<Change<SharedBytes>>> {
        unimplemented!()
    }

    /// Starts a scan of these runs alone. `piece`, if given, is a filter piece that every key in the range has: runs whose filter
    /// does not hold it are left out.
    #[must_use]
    pub fn scan(&self, range: &KeyRange, direction: Direction, piece: Option<&[u8]>) -> Scan<'static, F> {
        unimplemented!()
    }
}

/// A merging scan. It holds its runs, so it goes on whatever is compacted meanwhile.
pub struct Scan<'a, F: Files> {
    inner: Vec<Run<F>>,
    newer: Vec<Box<dyn Iterator<Item = (SharedBytes, Change<SharedBytes>)> + 'a>>,
}

impl<'a, F: Files> Scan<'a, F> {
    /// Puts an in-memory source on top: newer than all runs and than every source put before it. Its rows must lie in the scan's
    /// range and come in the scan's direction, without repeats. Call it before the first step.
    #[must_use]
    pub fn with_newer<K: AsRef<[u8]> + 'a>(self, rows: impl Iterator<Item = (K, Change<SharedBytes>)> + 'a) -> Self {
        unimplemented!()
    }

    /// The next row, or `None` at the end. After an error the scan has ended.
    pub async fn next(&mut self) -> Result<Option<Row<'_>>, StoreError> {
        unimplemented!()
    }

    /// The next row if that needs no read. After [`Step::NotCached`], [`Scan::next`] goes on at the same place.
    pub fn next_cached(&mut self) -> Result<Step<'_>, StoreError> {
        unimplemented!()
    }
}
