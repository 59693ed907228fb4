//! The sorted part of a store, whole: a manifest, its segments, and the edits that keep the two in step.
//!
//! This is what the rest of the engine uses. An edit happens in this order, and a crash between any two steps leaves the old state
//! or the new one: segment written and synced · folder synced · manifest written under a temporary name and synced · renamed ·
//! folder synced · memory switched · old files removed once no reader holds them.
//!
//! Invariants: one edit at a time (others wait their turn); what readers see changes only after the manifest is durable; a failed
//! edit leaves everything as before. Futures of edits must be polled to their end: one that is dropped half way leaves the disk in
//! an unknown state, so every later edit is refused with [`StoreError::EditAbandoned`].

use std::rc::Rc;

use crate::{
    cache::Cache,
    compaction::{self, Compacted, Pace},
    error::StoreError,
    manifest::Manifest,
    row::Change,
    runs::Runs,
    seams::Files,
    segment::{SegmentId, SegmentSettings},
};

/// How the sorted part works.
#[derive(Clone)]
pub struct SortedSettings {
    /// How segments are written.
    pub segment: SegmentSettings,
    /// When and what to merge.
    pub compaction: compaction::Settings,
    /// Where blocks are kept; one cache may serve several stores only if their segment ids differ, so give each lane its own.
    pub cache: Cache,
}

/// Handle on the sorted part of one lane's store. Cloning gives another handle on the same.
#[derive(Clone)]
pub struct Sorted<F: Files> {
    inner: Rc<F>,
}

/// What opening found.
#[derive(Debug, Clone, Default)]
pub struct OpenReport {
    /// Leftovers of interrupted edits that were removed: temporary manifests, and segments that no manifest names.
    pub removed: Vec<String>,
    /// One error for each segment that cannot be read at all; keys in its range cannot be read, others can.
    pub damaged: Vec<StoreError>,
}

/// What a flush is to say beside its rows.
#[derive(Debug, Clone, Default)]
pub struct FlushMark {
    /// Log records up to this position are in segments once the flush is done. Never goes back.
    pub flushed_position: u64,
    /// The caller's new blob, if it changes.
    pub blob: Option<Vec<u8>>,
    /// Least and greatest time of the rows, for the segment's statistics.
    pub times: Option<(u64, u64)>,
}

impl<F: Files> Sorted<F> {
    /// Makes the manifest of a new store in a folder that has none. `blob` is the caller's own, stored and replaced with the
    /// manifest; at most [`BLOB_BYTES_MAX`](crate::manifest::BLOB_BYTES_MAX) bytes.
    ///
    /// # Errors
    /// [`StoreError::ManifestExists`], and whatever the files say.
    pub async fn create(
        files: F,
        settings: SortedSettings,
        store: u64,
        lane: u32,
        blob: Vec<u8>,
    ) -> Result<Self, StoreError> {
        unimplemented!()
    }

    /// Opens what the manifest names, and removes leftovers of interrupted edits.
    ///
    /// # Errors
    /// [`StoreError::ManifestMissing`] in a new folder, [`StoreError::Damaged`] or [`StoreError::NewerVersion`] if the manifest
    /// cannot be used, [`StoreError::SegmentMissing`], [`StoreError::ForeignStore`]. Nothing was changed then. A segment with a
    /// damaged footer or index does not fail the opening: see [`OpenReport::damaged`].
    pub async fn open(files: F, settings: SortedSettings) -> Result<(Self, OpenReport), StoreError> {
        unimplemented!()
    }

    /// The manifest as it is on disk.
    #[must_use]
    pub fn manifest(&self) -> Rc<Manifest> {
        unimplemented!()
    }

    /// The runs as they are now. Hold the view for as long as a read lasts, not longer: it keeps replaced files on disk.
    #[must_use]
    pub fn runs(&self) -> Rc<Runs<F>> {
        unimplemented!()
    }

    /// Writes `rows`, in strictly ascending order of keys, as the newest run, and `mark` with it in one step. With no rows only
    /// the mark is written. The rows are taken lazily, so that a large memtable is not copied.
    ///
    /// # Errors
    /// Whatever the files say; nothing has changed then and the rows' log records must be kept.
    ///
    /// # Panics
    /// If keys do not ascend, or a key or value is beyond its limit, or `flushed_position` goes back.
    pub async fn flush<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        rows: impl IntoIterator<Item = (K, Change<V>)>,
        mark: FlushMark,
    ) -> Result<Option<SegmentId>, StoreError> {
        unimplemented!()
    }

    /// What [`Sorted::compact`] would merge now.
    #[must_use]
    pub fn choose(&self) -> Option<compaction::Choice> {
        unimplemented!()
    }

    /// Merges what [`compaction::choose`] chooses; `Ok(None)` if it chooses nothing. One at a time: a second call while one runs
    /// gives `Ok(None)`. Flushes go on beside it.
    ///
    /// # Errors
    /// Whatever the files say, or damage in an input; everything is as before then, and the half-written output is removed.
    pub async fn compact(
        &self,
        pace: &impl Pace,
        expired: compaction::Expired<'_>,
    ) -> Result<Option<Compacted>, StoreError> {
        unimplemented!()
    }

    /// Removes the files of replaced segments that no reader holds any more; also done after each edit. Gives the number that are
    /// still held.
    pub async fn remove_unused(&self) -> usize {
        unimplemented!()
    }
}
