//! A checkpoint of a store that nobody runs: its segments shared, and two more of what the log holds beyond them.
//!
//! Nothing is written where the store is. The same makes a copy of a checkpoint.

use crate::{
    checkpoint::{self, Checkpointed, OF_LOG, OF_LOG_IDS},
    engine::{EngineError, open::Blob},
    layout::add_segments,
    offline::{
        access::Access,
        opened::Opened,
        read_only::{Progress, ReadOnly},
    },
    seams::Files,
    segment::SegmentId,
};

/// Makes a checkpoint of a lane's store in `target`, an empty folder. `progress` is called after every read of a file's ends or of the log;
/// what is shared is not counted. A folder that this leaves without a manifest is no checkpoint.
///
/// # Errors
/// As [`dump`](super::dump()): a checkpoint is whole or it is none. Damage in a segment's rows is not looked for.
pub async fn checkpoint<F: Files>(
    files: F,
    target: F,
    access: impl Into<Access>,
    progress: impl Fn(Progress) + 'static,
) -> Result<Checkpointed, EngineError> {
    let access = access.into();
    let opened = Opened::open(ReadOnly::new(files.clone(), progress), &access).await?;
    let logged = opened.read_log().await?;
    opened.require_whole(&logged)?;
    let (mut manifest, mut written) = (opened.manifest.clone(), Vec::new());
    if logged.position.0 > manifest.flushed_position {
        // What is in the log is opened and sealed again as rows.
        opened.require_key()?;
        let (horizon, has_changes) =
            (opened.horizon(&logged), opened.blob.has_changes || logged.memtable.has_changes());
        manifest.blob = Blob { time: logged.time, horizon, has_changes, ..opened.blob }.encode();
        let ids = [OF_LOG, OF_LOG | OF_LOG_IDS].map(|of| SegmentId(of | logged.position.0));
        if !logged.memtable.is_empty() {
            written = add_segments(&target, &mut manifest, ids, &logged.memtable, opened.seal()).await?;
        }
        manifest.flushed_position = logged.position.0;
    }
    let keys = opened.found.as_ref().map(|found| (found.header, found.entries.clone()));
    Ok(checkpoint::write(&files, &target, manifest, &written, keys).await?)
}
