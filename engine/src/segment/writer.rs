//! Writes a segment: rows in, a file out.
//!
//! Memory is one write buffer, one block, and what the index and the filter take. Writes are of [`WRITE_BYTES`], the last excepted.
//! The file is no segment before [`SegmentWriter::finish`] has synced it, and nobody knows of it before the manifest names it.

use super::{
    SegmentContext, SegmentId, SegmentStatistics,
    block::BlockBuilder,
    codec::{BlockEncoder, OwnedBlock, PreparedBlock},
    filter::FilterBuilder,
    format::{self, BLOCK_BYTES_MAX, BlockKind, BlockPlace, Footer},
    index::IndexBuilder,
};
use crate::{
    row::{Change, KEY_BYTES_MAX, VALUE_BYTES_MAX},
    seams::{AlignedBuffer, File, FileError, Files, OpenMode, PAGE_BYTES},
};

/// How much is written at a time.
const WRITE_BYTES: usize = 256 * 1024;

/// A segment that is being written. Dropped before the end it leaves a file that the next opening of the store removes;
/// [`SegmentWriter::abandon`] removes it at once.
pub struct SegmentWriter<F: Files> {
    context: SegmentContext<F>,
    output: Output<F>,
    encoder: BlockEncoder,
    block: BlockBuilder,
    index: IndexBuilder,
    filter: FilterBuilder,
    statistics: SegmentStatistics,
}

impl<F: Files> SegmentWriter<F> {
    /// Creates the file.
    ///
    /// # Errors
    /// Whatever the files say.
    ///
    /// # Panics
    /// If the settings ask for blocks beyond [`BLOCK_BYTES_MAX`].
    pub async fn create(context: &SegmentContext<F>, id: SegmentId) -> Result<Self, FileError> {
        let settings = &context.settings;
        assert!(settings.block_bytes <= BLOCK_BYTES_MAX, "blocks of {} bytes", settings.block_bytes);
        let file = context.files.open(&id.file_name(), OpenMode::Create).await?;
        let mut output = Output { file, buffer: AlignedBuffer::zeroed(WRITE_BYTES), filled: 0, written: 0 };
        format::encode_header(id, context.store, &mut output.buffer[..PAGE_BYTES]);
        output.filled = PAGE_BYTES;
        Ok(Self {
            context: context.clone(),
            output,
            encoder: BlockEncoder::new(settings.compression_level),
            block: BlockBuilder::default(),
            index: IndexBuilder::new(BlockKind::Index),
            filter: FilterBuilder::new(settings.filter, settings.paged_filter),
            statistics: SegmentStatistics {
                id,
                rows: 0,
                deletes: 0,
                live_bytes: 0,
                erasing: 0,
                erasing_since: None,
                raw_bytes: 0,
                stored_bytes: 0,
                file_bytes: 0,
                blocks: 0,
                times: None,
                first_key: Vec::new(),
                last_key: Vec::new(),
            },
        })
    }

    /// The segment's number.
    #[must_use]
    pub const fn id(&self) -> SegmentId {
        self.statistics.id
    }

    /// Rows added so far.
    #[must_use]
    pub const fn rows(&self) -> u64 {
        self.statistics.rows
    }

    /// Adds a row.
    ///
    /// # Errors
    /// Whatever the files say; abandon the writer then.
    ///
    /// # Panics
    /// If the key does not ascend, or key or value is longer than allowed.
    pub async fn push(&mut self, key: &[u8], change: Change<&[u8]>) -> Result<(), FileError> {
        let value_length = change.value().map_or(0, <[u8]>::len);
        assert!(key.len() <= KEY_BYTES_MAX, "a key of {} bytes", key.len());
        assert!(value_length <= VALUE_BYTES_MAX, "a value of {value_length} bytes");
        let statistics = &mut self.statistics;
        if statistics.rows == 0 {
            statistics.first_key.extend_from_slice(key);
        } else {
            assert!(statistics.last_key.as_slice() < key, "keys must ascend");
        }
        statistics.last_key.clear();
        statistics.last_key.extend_from_slice(key);
        statistics.rows += 1;
        match change {
            Change::Put(_) => statistics.live_bytes += (key.len() + value_length) as u64,
            Change::Delete => statistics.deletes += 1,
        }
        statistics.erasing += u64::from((self.context.settings.erases)(key, change));
        self.block.add(key, change);
        self.filter.add(key, &mut self.encoder);
        if self.block.raw_length() >= self.context.settings.block_bytes {
            self.close_block().await?;
        }
        Ok(())
    }

    /// Widens the times that the segment's statistics tell.
    pub fn note_times(&mut self, times: (u64, u64)) {
        let (min, max) = self.statistics.times.unwrap_or(times);
        self.statistics.times = Some((min.min(times.0), max.max(times.1)));
    }

    /// Says that a row which erases may have been written as early as this. Without effect if there is none.
    pub fn note_erasing_since(&mut self, time: u64) {
        let since = &mut self.statistics.erasing_since;
        *since = Some(since.map_or(time, |since| since.min(time)));
    }

    /// Writes what is left, with index, filter and footer, and syncs the file. Its name is durable after a sync of the folder.
    ///
    /// # Errors
    /// Whatever the files say; the file is of no use then, see [`SegmentId::file_name`].
    ///
    /// # Panics
    /// If there were no rows.
    pub async fn finish(mut self) -> Result<SegmentStatistics, FileError> {
        assert!(self.statistics.rows > 0, "an empty segment");
        if !self.block.is_empty() {
            self.close_block().await?;
        }
        let Self { context, mut output, mut encoder, index, filter, mut statistics, .. } = self;
        let index_offset = output.offset();
        output.put_blocks(statistics.id, &index.finish(&mut encoder)).await?;
        let filter_offset = output.offset();
        let mut filter_index = IndexBuilder::new(BlockKind::FilterIndex);
        for (last_key, part) in filter.finish(&statistics.last_key, &mut encoder) {
            let length = output.put_block(statistics.id, &part.as_prepared()).await?;
            filter_index.add(&last_key, length, context.settings.block_bytes, &mut encoder);
        }
        let filter_index_offset = context.settings.has_filter_index().then(|| output.offset());
        if filter_index_offset.is_some() {
            output.put_blocks(statistics.id, &filter_index.finish(&mut encoder)).await?;
        }
        let end_offset = output.offset();
        output.pad_to_page().await?;
        statistics.stored_bytes = index_offset - format::DATA_START;
        statistics.file_bytes = output.offset() + PAGE_BYTES as u64;
        statistics.erasing_since = statistics.erasing_since.filter(|_| statistics.erasing > 0);
        let filter_id = context.settings.filter.id;
        let store = context.store;
        let footer =
            Footer { store, filter_id, index_offset, filter_offset, end_offset, filter_index_offset, statistics };
        let mut page = [0; PAGE_BYTES];
        footer.encode(&mut page);
        output.put(&page).await?;
        output.write_out().await?;
        output.file.sync().await?;
        Ok(footer.statistics)
    }

    /// Gives up and removes the file.
    ///
    /// # Errors
    /// Whatever the files say; the next opening of the store removes the file.
    pub async fn abandon(self) -> Result<(), FileError> {
        let Self { context, output, statistics, .. } = self;
        drop(output);
        context.files.remove(&statistics.id.file_name()).await
    }

    async fn close_block(&mut self) -> Result<(), FileError> {
        let raw = self.block.finish();
        self.statistics.raw_bytes += raw.len() as u64;
        self.statistics.blocks += 1;
        let prepared = self.encoder.prepare(BlockKind::Data, raw);
        let length = self.output.put_block(self.statistics.id, &prepared).await?;
        let block_bytes = self.context.settings.block_bytes;
        self.index.add(self.block.last_key(), length, block_bytes, &mut self.encoder);
        self.block.clear();
        Ok(())
    }
}

/// The file and the buffer before it.
struct Output<F: Files> {
    file: F::File,
    buffer: AlignedBuffer,
    filled: usize,
    written: u64,
}

impl<F: Files> Output<F> {
    const fn offset(&self) -> u64 {
        self.written + self.filled as u64
    }

    async fn put_blocks(&mut self, segment: SegmentId, blocks: &[OwnedBlock]) -> Result<(), FileError> {
        for block in blocks {
            self.put_block(segment, &block.as_prepared()).await?;
        }
        Ok(())
    }

    /// Gives the block's length, header included.
    async fn put_block(&mut self, segment: SegmentId, block: &PreparedBlock<'_>) -> Result<usize, FileError> {
        let (header, stored) = block.at(BlockPlace { segment, offset: self.offset() });
        self.put(&header).await?;
        self.put(stored).await?;
        Ok(header.len() + stored.len())
    }

    async fn put(&mut self, mut bytes: &[u8]) -> Result<(), FileError> {
        while !bytes.is_empty() {
            let room = self.buffer.len() - self.filled;
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.buffer[self.filled..self.filled + now.len()].copy_from_slice(now);
            self.filled += now.len();
            bytes = later;
            if self.filled == self.buffer.len() {
                self.write_out().await?;
            }
        }
        Ok(())
    }

    async fn pad_to_page(&mut self) -> Result<(), FileError> {
        const ZEROS: [u8; PAGE_BYTES] = [0; PAGE_BYTES];
        let padding = self.filled.next_multiple_of(PAGE_BYTES) - self.filled;
        self.put(&ZEROS[..padding]).await
    }

    /// Writes what is buffered, whole pages.
    async fn write_out(&mut self) -> Result<(), FileError> {
        if self.filled == 0 {
            return Ok(());
        }
        assert!(self.filled.is_multiple_of(PAGE_BYTES), "only whole pages are written");
        let buffer = if self.filled == self.buffer.len() {
            std::mem::replace(&mut self.buffer, AlignedBuffer::zeroed(0))
        } else {
            let mut last = AlignedBuffer::zeroed(self.filled);
            last.copy_from_slice(&self.buffer[..self.filled]);
            last
        };
        let (buffer, result) = self.file.write_at(self.written, buffer).await;
        self.written += self.filled as u64;
        self.filled = 0;
        if self.buffer.is_empty() {
            self.buffer = buffer;
        }
        result
    }
}
