//! All rows of the merged view in order: the log's over the segments', newest first, deleted keys left out.
//!
//! Segments are read in large pieces past the cache. A damaged block may be passed over; the next one is read then.

use crate::{
    error::StoreError,
    memtable::{Memtable, MemtableRows},
    merge::{Merge, Settled, Source},
    row::{Change, Direction, RowSource as _, SharedBytes},
    runs::{Run, Runs},
    seams::Files,
    segment::{SegmentId, StreamCursor},
};

/// The file that stands for rows which only the log has.
pub(super) const LOG: &str = "log";

/// Goes through the rows.
pub(super) struct Walk<'a, F: Files> {
    merge: Merge<Layer<'a, F>>,
    past_damage: bool,
    /// Damaged blocks that were passed over.
    pub(super) passed: u64,
}

enum Layer<'a, F: Files> {
    Log(Box<LogRows<'a>>),
    Segment(Box<StreamCursor<F>>),
}

/// A memtable's rows, each copied: only what the log holds beyond the segments is.
struct LogRows<'a> {
    rows: MemtableRows<'a>,
    row: Option<(Vec<u8>, Change<SharedBytes>)>,
}

impl<'a, F: Files> Walk<'a, F> {
    /// Begins at the first row. With `past_damage` blocks that cannot be read are passed over, otherwise they are
    /// errors. Damaged runs, and those of `unreadable`, are left out.
    pub(super) fn new(runs: &Runs<F>, memtable: &'a Memtable, unreadable: &[SegmentId], past_damage: bool) -> Self {
        let mut layers = vec![Layer::Log(Box::new(LogRows { rows: memtable.rows(), row: None }))];
        for run in runs.newest_first() {
            if let Run::Segment(reader) = run
                && !unreadable.contains(&reader.id())
            {
                layers.push(Layer::Segment(Box::new(StreamCursor::new(reader))));
            }
        }
        Self { merge: Merge::new(layers, Direction::Forward), past_damage, passed: 0 }
    }

    /// Moves to the next row; whether there is one.
    pub(super) async fn next(&mut self) -> Result<bool, StoreError> {
        loop {
            let step = match self.merge.step() {
                Ok(Settled::NeedsBlock) => self.merge.load_in_turn().await.map(|()| Settled::NeedsBlock),
                other => other,
            };
            match step {
                Ok(Settled::End) => return Ok(false),
                Ok(Settled::Row) if self.row().is_some() => return Ok(true),
                Ok(Settled::Row | Settled::NeedsBlock) => {}
                // The cursor goes on with its next block.
                Err(StoreError::Damaged { .. }) if self.past_damage => self.passed += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// The row it stands on.
    pub(super) fn row(&self) -> Option<(&[u8], &SharedBytes)> {
        let (key, change) = self.merge.row()?;
        Some((key, change.as_ref().value()?))
    }

    /// The segment that the row is in; `None` for the log.
    pub(super) fn segment(&self) -> Option<SegmentId> {
        match self.merge.source() {
            Some(Layer::Segment(cursor)) => Some(cursor.segment()),
            _ => None,
        }
    }

    /// The file that the row is in, and where its block begins.
    pub(super) fn place(&self) -> (String, Option<u64>) {
        match self.merge.source() {
            Some(Layer::Segment(cursor)) => {
                let (file, offset) = cursor.place();
                (file, Some(offset))
            }
            _ => (LOG.to_owned(), None),
        }
    }
}

impl<F: Files> Source for Layer<'_, F> {
    fn settle(&mut self) -> Result<Settled, StoreError> {
        match self {
            Self::Log(log) => {
                if log.row.is_none() {
                    let next = log.rows.next();
                    log.row = next.map(|(key, change)| (key.to_vec(), change.map(SharedBytes::from)));
                }
                Ok(if log.row.is_some() { Settled::Row } else { Settled::End })
            }
            Self::Segment(cursor) => cursor.settle(),
        }
    }

    async fn load(&mut self) -> Result<(), StoreError> {
        match self {
            Self::Log(_) => Ok(()),
            Self::Segment(cursor) => cursor.load().await,
        }
    }

    fn row(&self) -> Option<(&[u8], &Change<SharedBytes>)> {
        match self {
            Self::Log(log) => log.row.as_ref().map(|(key, change)| (key.as_slice(), change)),
            Self::Segment(cursor) => cursor.row(),
        }
    }

    fn advance(&mut self) {
        match self {
            Self::Log(log) => log.row = None,
            Self::Segment(cursor) => cursor.advance(),
        }
    }
}
