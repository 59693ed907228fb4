//! All rows of the merged view in order: the log's over the segments', newest first, deleted keys left out.
//!
//! Segments are read in large pieces past the cache. A damaged block may be passed over; the next one is read then.

use std::{collections::BTreeMap, sync::Arc};

use antiphon_wire::ids::ConversationId;

use crate::{
    encryption::Vault,
    error::{DamagedKeys, StoreError},
    keys,
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
    /// Damaged blocks, and values that do not open, that were passed over.
    pub(super) passed: u64,
    vault: Option<Arc<Vault>>,
    /// The value of the row it stands on, if that was sealed.
    opened: Option<SharedBytes>,
    /// Conversations of which values do not open, and why: so many of them at most as are told.
    pub(super) closed: BTreeMap<ConversationId, String>,
}

/// Most conversations that are named for values that do not open.
const CLOSED_MAX: usize = 10_000;

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
        let merge = Merge::new(layers, Direction::Forward);
        let (vault, opened, closed) = (runs.vault().cloned(), None, BTreeMap::new());
        Self { merge, past_damage, passed: 0, vault, opened, closed }
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
                Ok(Settled::Row) if self.row().is_some() => {
                    if self.open()? {
                        return Ok(true);
                    }
                }
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
        let value = change.as_ref().value()?;
        Some((key, self.opened.as_ref().unwrap_or(value)))
    }

    /// Bytes of the row's value where it is stored.
    pub(super) fn stored_bytes(&self) -> usize {
        self.merge.row().and_then(|(_, change)| change.as_ref().value()).map_or(0, |value| value.len())
    }

    /// Opens the value of the row that it came to; `false` if it is passed over: its conversation was erased, or it does not open.
    fn open(&mut self) -> Result<bool, StoreError> {
        self.opened = None;
        let Some(vault) = &self.vault else { return Ok(true) };
        let Some((key, change)) = self.merge.row() else { return Ok(true) };
        // Nothing is left of it for anybody, whatever rows are still there.
        if vault.has_erased() && keys::conversation_of(key).is_some_and(|id| vault.is_erased(id)) {
            return Ok(false);
        }
        let (Some(Layer::Segment(cursor)), Change::Put(value)) = (self.merge.source(), change) else { return Ok(true) };
        let Some(sealed) = keys::sealed(key) else { return Ok(true) };
        match vault.open_row(key, sealed, value) {
            Ok(opened) => {
                self.opened = opened;
                Ok(self.opened.is_some())
            }
            Err(what) if self.past_damage => {
                self.passed += 1;
                if self.closed.len() < CLOSED_MAX {
                    self.closed.entry(sealed.conversation).or_insert_with(|| what.to_owned());
                }
                Ok(false)
            }
            Err(what) => {
                let (file, offset) = cursor.place();
                Err(StoreError::Damaged { file, offset, what, keys: DamagedKeys::between(key, key) })
            }
        }
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
