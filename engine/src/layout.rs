//! How the engine's rows are laid out in segments: message ids apart from everything else.
//!
//! A message id is written once, is asked for in the minutes after, and goes when it is forgotten; a message stays. So ids have segments
//! of their own, merged without copying a message and dropped whole when they are old, and filters of their own, of which only those
//! parts are in memory that are asked for.

use crate::{
    cache::Cache,
    compaction,
    encryption::Seal,
    engine::EngineError,
    flush::{FlushOutputs, FlushTimes, write_flush},
    keys::{self, FILTER, ID_FILTER},
    manifest::{Manifest, SEGMENTS_MAX, SegmentEntry},
    memtable::Memtable,
    row::RowSource,
    rows,
    seams::Files,
    segment::{SegmentContext, SegmentId, SegmentSettings},
    sorted::{Apart, Holds, SortedSettings},
};

/// Blocks of message ids: some 1,500 rows each, so that the index, which is held, takes a fortieth of a byte for each.
const ID_BLOCK_BYTES: usize = 64 * 1024;

/// Segments of message ids are done at this size: some nine million ids, whose filter takes 28 MB while it is written. Smaller ones would be
/// more to look through, larger ones would keep old ids for longer.
const ID_FINAL_BYTES: u64 = 256 * 1024 * 1024;

/// How segments are written and merged.
pub(crate) fn sorted_settings(cache: Cache, filters: Cache) -> SortedSettings {
    SortedSettings {
        segment: segment_settings(),
        compaction: compaction::Settings::default(),
        cache,
        apart: Some(Apart {
            holds: keys::is_apart,
            segment: id_segment_settings(),
            compaction: compaction::Settings { final_bytes: ID_FINAL_BYTES, ..compaction::Settings::default() },
            filters,
        }),
    }
}

/// Of all rows but message ids.
pub(crate) fn segment_settings() -> SegmentSettings {
    SegmentSettings { filter: FILTER, erases: rows::erases, ..SegmentSettings::default() }
}

fn id_segment_settings() -> SegmentSettings {
    SegmentSettings { filter: ID_FILTER, block_bytes: ID_BLOCK_BYTES, paged_filter: true, ..segment_settings() }
}

/// Writes a memtable as the newest segments of a store whose manifest follows: `ids` are the numbers of the one with everything but message
/// ids, and of theirs. Gives those that were written.
pub(crate) async fn add_segments<F: Files>(
    files: &F,
    manifest: &mut Manifest,
    ids: [SegmentId; 2],
    memtable: &Memtable,
    seal: Option<Seal>,
) -> Result<Vec<SegmentId>, EngineError> {
    if manifest.segments.len() + 2 > SEGMENTS_MAX {
        let what = format!("{SEGMENTS_MAX} segments are there already; let the node merge some first");
        return Err(EngineError::Options { option: "segments", what });
    }
    let store = manifest.store;
    let entries = write_rows(files, store, ids, &mut memtable.rows(), memtable.flush_times(), seal).await?;
    let written = entries.iter().map(|entry| entry.id).collect();
    manifest.segments.splice(0..0, entries);
    Ok(written)
}

/// Writes rows as segments of a store that is being made, numbered as for [`add_segments`]. Gives those that were written.
pub(crate) async fn write_rows<F: Files>(
    files: &F,
    store: u64,
    ids: [SegmentId; 2],
    rows: &mut impl RowSource,
    times: FlushTimes,
    seal: Option<Seal>,
) -> Result<Vec<SegmentEntry>, EngineError> {
    let context = |settings| SegmentContext::new(files.clone(), Cache::new(0), store, settings);
    let outputs = FlushOutputs {
        id: ids[0],
        target: context(segment_settings()),
        apart: Some((keys::is_apart as Holds, context(id_segment_settings()), ids[1])),
    };
    let written = write_flush(&outputs, rows, times, seal).await.map_err(EngineError::from)?;
    Ok(written.iter().map(|statistics| SegmentEntry::new(statistics, 0)).collect())
}
