//! Carries out a choice: reads the inputs side by side in large pieces, writes one segment, gives way now and then.
//!
//! Memory: a read buffer and a block for each input, and the writer's. Must not do: touch the manifest or the inputs' files.

use super::{Compacted, Expiry, Pace};
use crate::{
    error::StoreError,
    merge::{Merge, Settled},
    row::{Change, Direction},
    seams::Files,
    segment::{SegmentContext, SegmentId, SegmentReader, SegmentStatistics, SegmentWriter, StreamCursor},
};

/// The job gives way after so many stored bytes of input: one read, and a few milliseconds of work.
const BYTES_BETWEEN_PAUSES: u64 = 256 * 1024;

/// And after so many rows, as rows that compress well are many.
const ROWS_BETWEEN_PAUSES: u64 = 4096;

/// What is to be merged, and how.
pub(crate) struct Job<'a, F: Files, E> {
    pub(crate) context: &'a SegmentContext<F>,
    pub(crate) newest_first: &'a [SegmentReader<F>],
    pub(crate) output: SegmentId,
    /// Nothing is older than the inputs, so that delete markers hide nothing.
    pub(crate) drops_deletes: bool,
    pub(crate) expiry: E,
}

impl<F: Files, E: Expiry> Job<'_, F, E> {
    /// Merges; the output is synced and of no use before the manifest names it. `None` if no row was left. After an error there is
    /// no output.
    pub(crate) async fn run(&self, pace: &impl Pace) -> Result<(Option<SegmentStatistics>, Compacted), StoreError> {
        let mut writer = SegmentWriter::create(self.context, self.output).await?;
        let merged = self.copy_rows(&mut writer, pace).await;
        let rows_read: u64 = self.newest_first.iter().map(|input| input.statistics().rows).sum();
        let mut compacted = Compacted {
            inputs: self.newest_first.len(),
            bytes_read: self.newest_first.iter().map(|input| input.statistics().file_bytes).sum(),
            bytes_written: 0,
            rows_dropped: rows_read.saturating_sub(writer.rows()),
        };
        if merged.is_err() || writer.rows() == 0 {
            // Should the removal fail, the next opening of the store does it.
            writer.abandon().await.ok();
            return merged.map(|()| (None, compacted));
        }
        for statistics in self.newest_first.iter().map(SegmentReader::statistics) {
            statistics.times.into_iter().for_each(|times| writer.note_times(times));
            // Where nothing is older, what is erased is gone with this merge.
            let since = statistics.erasing_since.filter(|_| !self.drops_deletes && !self.expiry.settles());
            since.into_iter().for_each(|since| writer.note_erasing_since(since));
        }
        match writer.finish().await {
            Ok(statistics) => {
                compacted.bytes_written = statistics.file_bytes;
                Ok((Some(statistics), compacted))
            }
            Err(error) => {
                self.context.files.remove(&self.output.file_name()).await.ok();
                Err(error.into())
            }
        }
    }

    async fn copy_rows(&self, writer: &mut SegmentWriter<F>, pace: &impl Pace) -> Result<(), StoreError> {
        let sources = self.newest_first.iter().map(StreamCursor::new).collect();
        let mut merge = Merge::new(sources, Direction::Forward);
        let (mut bytes, mut rows) = (0, 0);
        loop {
            match merge.step()? {
                Settled::End => return Ok(()),
                Settled::NeedsBlock => {
                    merge.load().await?;
                    bytes += merge.sources_mut().iter_mut().map(StreamCursor::take_bytes_read).sum::<u64>();
                }
                Settled::Row => {
                    rows += 1;
                    if let Some((key, change)) = merge.row().filter(|(key, change)| self.keeps(key, change.as_ref())) {
                        writer.push(key, change.as_ref().map(|value| &**value)).await?;
                    }
                }
            }
            if bytes >= BYTES_BETWEEN_PAUSES || rows >= ROWS_BETWEEN_PAUSES {
                (bytes, rows) = (0, 0);
                pace.pause().await;
            }
        }
    }

    fn keeps(&self, key: &[u8], change: Change<&crate::row::SharedBytes>) -> bool {
        match change {
            Change::Put(value) => !self.expiry.is_expired(key, value),
            Change::Delete => !self.drops_deletes && !self.expiry.hides_nothing(key),
        }
    }
}
