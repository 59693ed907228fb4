//! Reading the rows of a segment whose header, footer, index or filter is damaged, or its data too: past the index, block by block, since
//! blocks follow each other without gaps and each has a checksum of its own.
//!
//! What is read, and counts, is written as a new segment, which is as good as any. A block that is damaged leaves a gap between its
//! neighbours' keys; behind one whose length cannot be believed nothing is found any more.

use std::ops::Bound;

use super::{
    SegmentContext, SegmentId, SegmentWriter,
    block::{GroupRows, RowBlock},
    codec::BlockDecoder,
    format::{BlockHeader, BlockKind, BlockPlace, DATA_START, Footer, decode_header},
    stream::ByteStream,
};
use crate::{
    error::{DamagedKeys, StoreError},
    manifest::SegmentEntry,
    seams::{File, FileError, Files, OpenMode, PAGE_BYTES},
};

/// What was read.
pub(crate) struct Salvaged {
    /// There are rows, and the new segment has them.
    pub(crate) is_written: bool,
    /// Where the rest is, and the keys that it may have had; none if every row was read.
    pub(crate) lost: Vec<(u64, DamagedKeys)>,
}

/// Writes what can be read of `entry`'s segment in `from` as the segment `id` of `to`. `None` if it is not sure to be that segment.
///
/// # Errors
/// Whatever the files say.
pub(crate) async fn salvage<S: Files, T: Files>(
    from: &S,
    store: u64,
    entry: &SegmentEntry,
    to: &SegmentContext<T>,
    id: SegmentId,
) -> Result<Option<Salvaged>, StoreError> {
    let file = match from.open(&entry.id.file_name(), OpenMode::Read).await {
        Err(FileError::NotFound { .. }) => return Ok(None),
        other => other?,
    };
    if !is_of(&file, store, entry).await? {
        return Ok(None);
    }
    let mut bytes = ByteStream::new(DATA_START, entry.file_bytes - PAGE_BYTES as u64);
    let mut rows = Rows { entry, writer: None, last: None, count: 0, gap: None, lost: Vec::new() };
    let mut decoder = BlockDecoder::default();
    loop {
        let place = BlockPlace { segment: entry.origin(store).0, offset: bytes.offset() };
        let Some(block) = bytes.next_block(&file).await? else { break };
        match BlockHeader::check(block, place) {
            // The index begins.
            Ok((header, _)) if header.kind != BlockKind::Data => break,
            Ok(_) => {}
            Err(_) => {
                rows.gap.get_or_insert(place.offset);
                continue;
            }
        }
        let decoded = decoder.decode(block, place, BlockKind::Data).ok().and_then(RowBlock::new);
        match decoded {
            Some(block) => rows.take(&block, place.offset, to, id).await?,
            None => drop(rows.gap.get_or_insert(place.offset)),
        }
    }
    let end = bytes.offset();
    rows.finish(end).await.map(Some)
}

/// Whether the file is the segment that the manifest means, as far as what is left of its two ends tells.
async fn is_of(file: &impl File, store: u64, entry: &SegmentEntry) -> Result<bool, StoreError> {
    let page = PAGE_BYTES as u64;
    if file.size_bytes() != entry.file_bytes || entry.file_bytes < 3 * page || !entry.file_bytes.is_multiple_of(page) {
        return Ok(false);
    }
    let first = file.read_at(0, PAGE_BYTES).await?;
    let last = file.read_at(entry.file_bytes - page, PAGE_BYTES).await?;
    let origin = entry.origin(store);
    let by_header = decode_header(&first).ok().map(|named| named == origin);
    let by_footer = Footer::decode(&last, entry.file_bytes)
        .ok()
        .map(|footer| (footer.statistics.id, footer.store) == origin && entry.is_of(&footer.statistics));
    Ok(by_header != Some(false) && by_footer != Some(false) && (by_header.is_some() || by_footer.is_some()))
}

/// Rows on their way into the new segment.
struct Rows<'a, T: Files> {
    entry: &'a SegmentEntry,
    writer: Option<SegmentWriter<T>>,
    last: Option<Vec<u8>>,
    count: u64,
    /// A block between the last row and the next could not be read: where it begins.
    gap: Option<u64>,
    lost: Vec<(u64, DamagedKeys)>,
}

impl<T: Files> Rows<'_, T> {
    async fn take(
        &mut self,
        block: &RowBlock,
        offset: u64,
        to: &SegmentContext<T>,
        id: SegmentId,
    ) -> Result<(), StoreError> {
        let mut rows = GroupRows::default();
        for group in 0..block.groups() {
            if block.decode_group(group, &mut rows).is_none() {
                self.gap.get_or_insert(offset);
                return Ok(());
            }
            for index in 0..rows.len() {
                let Some((key, change)) = rows.row(index) else { break };
                let least =
                    self.last.as_deref().map_or(Bound::Included(self.entry.first_key.as_slice()), Bound::Excluded);
                let fits = match least {
                    Bound::Included(least) => key >= least,
                    Bound::Excluded(least) => key > least,
                    Bound::Unbounded => true,
                };
                if !fits || key > self.entry.last_key.as_slice() {
                    self.gap.get_or_insert(offset);
                    continue;
                }
                self.close_gap(Bound::Excluded(key.to_vec()));
                if self.entry.shows(key) {
                    let writer = match &mut self.writer {
                        Some(writer) => writer,
                        none => none.insert(SegmentWriter::create(to, id).await?),
                    };
                    writer.push(key, change.as_ref().map(AsRef::as_ref)).await?;
                }
                self.last = Some(key.to_vec());
                self.count += 1;
            }
        }
        Ok(())
    }

    /// What could not be read lies between the last row and this.
    fn close_gap(&mut self, end: Bound<Vec<u8>>) {
        if let Some(offset) = self.gap.take() {
            let start = match &self.last {
                Some(last) => Bound::Excluded(last.clone()),
                None => Bound::Included(self.entry.first_key.clone()),
            };
            self.lost.push((offset, DamagedKeys { start, end }));
        }
    }

    /// Reading ended at `offset`.
    async fn finish(mut self, offset: u64) -> Result<Salvaged, StoreError> {
        let all = DamagedKeys::between(&self.entry.first_key, &self.entry.last_key);
        if self.last.as_ref() == Some(&self.entry.last_key) {
            // There are no keys behind it: what could not be read was no data.
            self.gap = None;
            if self.lost.is_empty() && self.count != self.entry.rows {
                self.lost.push((offset, all));
            }
        } else {
            self.gap.get_or_insert(offset);
            self.close_gap(all.end);
        }
        let is_written = self.writer.is_some();
        if let Some(writer) = self.writer {
            writer.finish().await?;
        }
        Ok(Salvaged { is_written, lost: self.lost })
    }
}
