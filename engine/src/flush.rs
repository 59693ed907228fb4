//! What a flush writes: a segment of the rows, and another of those that lie apart.
//!
//! Must not do: make the segments known.

use crate::{
    encryption::Seal,
    error::StoreError,
    row::RowSource,
    seams::{FileError, Files},
    segment::{SegmentContext, SegmentId, SegmentStatistics, SegmentWriter},
    sorted::Holds,
};

/// What is known of the times of rows.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct FlushTimes {
    /// The least and the greatest.
    pub(crate) rows: Option<(u64, u64)>,
    /// When the first row was written that erases what older segments say.
    pub(crate) erasing_since: Option<u64>,
}

/// What a flush writes its rows to: numbers, and contexts or what makes them.
pub(crate) struct FlushOutputs<T> {
    pub(crate) id: SegmentId,
    pub(crate) target: T,
    /// Where the rows go that are apart.
    pub(crate) apart: Option<(Holds, T, SegmentId)>,
}

impl<T> FlushOutputs<T> {
    pub(crate) fn map<U>(self, change: impl Fn(T) -> U) -> FlushOutputs<U> {
        let apart = self.apart.map(|(holds, target, id)| (holds, change(target), id));
        FlushOutputs { id: self.id, target: change(self.target), apart }
    }
}

/// Writes a flush's segments, those of which there are rows, sealed if the store is encrypted. After an error there are none.
pub(crate) async fn write_flush<F: Files>(
    outputs: &FlushOutputs<SegmentContext<F>>,
    rows: &mut impl RowSource,
    times: FlushTimes,
    seal: Option<Seal>,
) -> Result<Vec<SegmentStatistics>, StoreError> {
    let written = write_rows(outputs, rows, times, seal).await;
    if written.is_err() {
        for id in [Some(outputs.id), outputs.apart.as_ref().map(|(.., id)| *id)].into_iter().flatten() {
            // Should the removal fail, the next opening of the store does it.
            outputs.target.files.remove(&id.file_name()).await.ok();
        }
    }
    written
}

async fn write_rows<F: Files>(
    outputs: &FlushOutputs<SegmentContext<F>>,
    rows: &mut impl RowSource,
    times: FlushTimes,
    mut seal: Option<Seal>,
) -> Result<Vec<SegmentStatistics>, StoreError> {
    let mut written = Vec::new();
    let mut apart = outputs.apart.as_ref();
    let (mut context, mut id) = (&outputs.target, outputs.id);
    let mut begun: Option<SegmentWriter<F>> = None;
    while let Some((key, change)) = rows.next() {
        // From the first of them on, all are.
        if let Some((_, target, of_apart)) = apart.take_if(|(holds, ..)| holds(key)) {
            (context, id) = (target, *of_apart);
            if let Some(writer) = begun.take() {
                written.push(finish_writer(writer, times).await?);
            }
        }
        let writer = match &mut begun {
            Some(writer) => writer,
            none => none.insert(SegmentWriter::create(context, id).await?),
        };
        let change = match &mut seal {
            None => Some(change),
            Some(seal) => seal.row(key, change)?,
        };
        if let Some(change) = change {
            writer.push(key, change).await?;
        }
    }
    if let Some(writer) = begun {
        written.push(finish_writer(writer, times).await?);
    }
    Ok(written)
}

async fn finish_writer<F: Files>(
    mut writer: SegmentWriter<F>,
    times: FlushTimes,
) -> Result<SegmentStatistics, FileError> {
    times.rows.into_iter().for_each(|rows| writer.note_times(rows));
    times.erasing_since.into_iter().for_each(|since| writer.note_erasing_since(since));
    writer.finish().await
}
