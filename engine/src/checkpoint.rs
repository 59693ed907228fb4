//! A checkpoint: a lane's store as it was at one position, in a folder of its own.
//!
//! It has segments and a manifest, and no log: what the log held beyond the segments is in a segment too. Segments never change and
//! their numbers are never used twice in a store, so those of the store itself are shared with it ([`Files::share`]). The manifest is
//! written last, when every name before it is durable: a folder without one is no checkpoint.
//!
//! A running engine makes one by [`Engine::checkpoint`](crate::Engine::checkpoint), which flushes first;
//! [`offline::checkpoint`](crate::offline::checkpoint()) makes one of a store that nobody runs, and changes nothing there.

use antiphon_wire::ids::{LanePosition, TimestampMs};
use serde::Serialize;

use crate::{
    encryption::file::{self, Anchor, Entry, Header},
    engine::open::Blob,
    error::StoreError,
    manifest::{self, Manifest, ReplaceError},
    seams::Files,
    segment::SegmentId,
};

/// Segments that a checkpoint of a store at rest makes of its log have this bit in their number: the store's own numbers never have it, so
/// that a number stands for the same bytes in all checkpoints of a store.
pub(crate) const OF_LOG: u64 = 1 << 63;

/// And this one, too, if it is the segment of message ids. Positions, which the rest of the number is, are smaller.
pub(crate) const OF_LOG_IDS: u64 = 1 << 62;

/// What a checkpoint holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Checkpointed {
    /// Which lane.
    pub lane: u16,
    /// The store's identity, sixteen hexadecimal digits.
    pub store: String,
    /// Everything up to here is in it, and nothing after.
    pub position: LanePosition,
    /// No entry of it is later.
    pub time_ms: TimestampMs,
    /// Segments.
    pub segments: u64,
    /// Their bytes.
    pub segment_bytes: u64,
    /// Of these, bytes of segments that were written for the checkpoint, of what only the log held: the store has no segment of them.
    pub written_bytes: u64,
}

impl Checkpointed {
    fn of(manifest: &Manifest, written: &[SegmentId], time: TimestampMs) -> Self {
        let bytes_of = |wanted: &dyn Fn(SegmentId) -> bool| {
            let segments = manifest.segments.iter().filter(|segment| wanted(segment.id));
            segments.fold(0, |sum: u64, segment| sum.saturating_add(segment.file_bytes))
        };
        Self {
            lane: manifest.lane as u16,
            store: format!("{:016x}", manifest.store),
            position: LanePosition(manifest.flushed_position),
            time_ms: time,
            segments: manifest.segments.len() as u64,
            segment_bytes: bytes_of(&|_| true),
            written_bytes: bytes_of(&|id| written.contains(&id)),
        }
    }
}

/// Shares with `target` the segments that `manifest` names but for `written`, which are there already, and makes the manifest known
/// there, with a copy of the data keys if the store is encrypted. The caller keeps the segments from being removed meanwhile.
pub(crate) async fn write<F: Files>(
    files: &F,
    target: &F,
    mut manifest: Manifest,
    written: &[SegmentId],
    keys: Option<(Header, Vec<Entry>)>,
) -> Result<Checkpointed, StoreError> {
    let blob = Blob::decode(&manifest.blob)?;
    let mut anchor = blob.keys;
    if let Some((header, entries)) = keys {
        // A copy: the store's own goes on changing.
        file::replace(target, header, &entries).await?;
        anchor = Some(Anchor { generation: header.generation, entries: entries.len() as u64 });
    }
    // There is no log: its next file begins anew.
    manifest.blob = Blob { generation: 0, keys: anchor, ..blob }.encode();
    for segment in manifest.segments.iter().filter(|segment| !written.contains(&segment.id)) {
        files.share(&segment.id.file_name(), target).await?;
    }
    target.sync_folder().await?;
    manifest::replace(target, &manifest).await.map_err(ReplaceError::into_file_error)?;
    Ok(Checkpointed::of(&manifest, written, blob.time))
}
