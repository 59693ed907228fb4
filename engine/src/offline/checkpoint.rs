//! A checkpoint of a store that nobody runs: its segments shared, and one more of what the log holds beyond them.
//!
//! Nothing is written where the store is. The same makes a copy of a checkpoint.

use crate::{
    cache::Cache,
    checkpoint::{self, Checkpointed, OF_LOG},
    engine::{EngineError, open::Blob},
    keys::FILTER,
    manifest::{Manifest, SEGMENTS_MAX, SegmentEntry},
    memtable::Memtable,
    offline::{
        opened::Opened,
        read_only::{Progress, ReadOnly},
    },
    seams::Files,
    segment::{SegmentContext, SegmentId, SegmentSettings},
    sorted::write_flush,
};

/// Makes a checkpoint of a lane's store in `target`, an empty folder. `progress` is called after every read of a file's ends or of the log;
/// what is shared is not counted. A folder that this leaves without a manifest is no checkpoint.
///
/// # Errors
/// As [`dump`](super::dump()): a checkpoint is whole or it is none. Damage in a segment's rows is not looked for.
pub async fn checkpoint<F: Files>(
    files: F,
    target: F,
    lane: u16,
    progress: impl Fn(Progress) + 'static,
) -> Result<Checkpointed, EngineError> {
    let opened = Opened::open(ReadOnly::new(files.clone(), progress), lane).await?;
    let logged = opened.read_log().await?;
    opened.require_whole(&logged)?;
    let (mut manifest, mut written) = (opened.manifest.clone(), None);
    if logged.position.0 > manifest.flushed_position {
        let has_changes = opened.blob.has_changes || logged.memtable.has_changes();
        manifest.blob = Blob { has_changes, time: logged.time, ..opened.blob }.encode();
        let id = SegmentId(OF_LOG | logged.position.0);
        written = Some(id).filter(|_| !logged.memtable.is_empty());
        if written.is_some() {
            add_segment(&target, &mut manifest, id, &logged.memtable).await?;
        }
        manifest.flushed_position = logged.position.0;
    }
    Ok(checkpoint::write(&files, &target, manifest, written).await?)
}

/// Writes a memtable as the newest segment of a store whose manifest follows.
pub(super) async fn add_segment<F: Files>(
    files: &F,
    manifest: &mut Manifest,
    id: SegmentId,
    memtable: &Memtable,
) -> Result<(), EngineError> {
    if manifest.segments.len() >= SEGMENTS_MAX {
        let what = format!("{SEGMENTS_MAX} segments are there already; let the node merge some first");
        return Err(EngineError::Options { option: "segments", what });
    }
    let settings = SegmentSettings { filter: FILTER, ..SegmentSettings::default() };
    let context = SegmentContext::new(files.clone(), Cache::new(0), manifest.store, settings);
    let statistics = write_flush(&context, id, &mut memtable.rows(), memtable.times()).await?;
    manifest.segments.splice(0..0, statistics.map(|statistics| SegmentEntry::new(&statistics, 0)));
    Ok(())
}
