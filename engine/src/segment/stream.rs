//! Reading a segment from front to back in large pieces, past the cache: for opening, merging and verifying.

use super::{
    SegmentId, SegmentReader,
    block::{GroupRows, RowBlock},
    format::{BLOCK_HEADER_BYTES, BlockHeader},
};
use crate::{
    error::StoreError,
    merge::{Settled, Source},
    partitions::Adopted,
    row::{Change, SharedBytes},
    seams::{File, FileError, Files, PAGE_BYTES},
};

/// How much is read at a time.
const READ_BYTES: u64 = 256 * 1024;

/// The bytes of a part of a file, in order.
pub(super) struct ByteStream {
    buffer: Vec<u8>,
    at: usize,
    offset: u64,
    read_next: u64,
    end: u64,
}

impl ByteStream {
    /// The bytes `start .. end` of a file that is at least so long.
    pub(super) const fn new(start: u64, end: u64) -> Self {
        let page = PAGE_BYTES as u64;
        Self { buffer: Vec::new(), at: 0, offset: start, read_next: start / page * page, end }
    }

    /// Where the next byte is in the file.
    pub(super) const fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) const fn is_at_end(&self) -> bool {
        self.offset >= self.end
    }

    /// The next block, header included, of which nothing but the length has been looked at; `None` if that leads beyond the end.
    pub(super) async fn next_block(&mut self, file: &impl File) -> Result<Option<&[u8]>, FileError> {
        let Some(header) = self.peek(file, BLOCK_HEADER_BYTES).await? else { return Ok(None) };
        let Some(length) = BlockHeader::claimed_length(header) else { return Ok(None) };
        self.take(file, BLOCK_HEADER_BYTES + length).await
    }

    /// The next `length` bytes; `None` if there are fewer.
    pub(super) async fn take(&mut self, file: &impl File, length: usize) -> Result<Option<&[u8]>, FileError> {
        if self.peek(file, length).await?.is_none() {
            return Ok(None);
        }
        let from = self.at;
        self.at += length;
        self.offset += length as u64;
        Ok(self.buffer.get(from..self.at))
    }

    async fn peek(&mut self, file: &impl File, length: usize) -> Result<Option<&[u8]>, FileError> {
        if length as u64 > self.end.saturating_sub(self.offset) {
            return Ok(None);
        }
        while self.buffer.len() - self.at < length {
            self.buffer.drain(..self.at);
            self.at = 0;
            let last = self.end.next_multiple_of(PAGE_BYTES as u64);
            let piece = READ_BYTES.min(last - self.read_next) as usize;
            let bytes = file.read_at(self.read_next, piece).await?;
            let skipped = if self.buffer.is_empty() { (self.offset - self.read_next) as usize } else { 0 };
            self.buffer.extend_from_slice(bytes.get(skipped..piece).unwrap_or_default());
            self.read_next += piece as u64;
        }
        Ok(self.buffer.get(self.at..self.at + length))
    }
}

/// All rows of a segment that count, in ascending order, read in large pieces. A source of merges.
pub(crate) struct StreamCursor<F: Files> {
    reader: SegmentReader<F>,
    bytes: ByteStream,
    next_block: u32,
    block: Option<RowBlock>,
    group: usize,
    rows: GroupRows,
    row: usize,
    bytes_read: u64,
    /// Rows that do not count are given, too.
    gives_all: bool,
}

impl<F: Files> StreamCursor<F> {
    pub(crate) fn new(reader: &SegmentReader<F>) -> Self {
        let (start, end) = reader.data_range();
        Self {
            reader: reader.clone(),
            bytes: ByteStream::new(start, end),
            next_block: 0,
            block: None,
            group: 0,
            rows: GroupRows::default(),
            row: 0,
            bytes_read: 0,
            gives_all: reader.adopted().is_none_or(Adopted::is_whole),
        }
    }

    /// The same with rows that do not count.
    pub(super) fn of_file(reader: &SegmentReader<F>) -> Self {
        Self { gives_all: true, ..Self::new(reader) }
    }

    /// Stored bytes read since this was last asked.
    pub(crate) const fn take_bytes_read(&mut self) -> u64 {
        std::mem::replace(&mut self.bytes_read, 0)
    }

    /// The block that the row stands in.
    pub(super) const fn block_number(&self) -> u32 {
        self.next_block.saturating_sub(1)
    }

    /// Which segment.
    pub(crate) fn segment(&self) -> SegmentId {
        self.reader.id()
    }

    /// The file that the row stands in, and where its block begins there.
    pub(crate) fn place(&self) -> (String, u64) {
        let offset = self.reader.indexed_block(self.block_number()).map_or(0, |block| block.offset);
        (self.reader.id().file_name(), offset)
    }

    /// Whether all blocks were read or passed over.
    fn is_past_last_block(&self) -> bool {
        self.next_block >= self.reader.block_count()
    }
}

impl<F: Files> Source for StreamCursor<F> {
    fn settle(&mut self) -> Result<Settled, StoreError> {
        loop {
            while let Some((key, _)) = self.rows.row(self.row) {
                if self.gives_all || self.reader.shows(key) {
                    return Ok(Settled::Row);
                }
                self.row += 1;
            }
            let Some(block) = self.block.as_ref().filter(|block| self.group < block.groups()) else {
                return Ok(if self.is_past_last_block() { Settled::End } else { Settled::NeedsBlock });
            };
            self.row = 0;
            if block.decode_group(self.group, &mut self.rows).is_none() {
                self.rows.clear();
                self.block = None;
                return Err(self.reader.damaged_block(self.next_block - 1, "rows are malformed"));
            }
            self.group += 1;
        }
    }

    /// After damage the next call goes on with the next block.
    async fn load(&mut self) -> Result<(), StoreError> {
        let number = self.next_block;
        self.next_block += 1;
        self.block = None;
        let Some(place) = self.reader.indexed_block(number) else { return Ok(()) };
        let length = place.length as usize;
        let bytes = self.bytes.take(self.reader.file(), length).await?;
        self.bytes_read += length as u64;
        let bytes = bytes.unwrap_or_default();
        self.block = Some(self.reader.decode_rows(number, bytes)?);
        self.group = 0;
        Ok(())
    }

    fn row(&self) -> Option<(&[u8], &Change<SharedBytes>)> {
        self.rows.row(self.row)
    }

    fn advance(&mut self) {
        self.row += 1;
    }
}
