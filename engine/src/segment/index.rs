//! Where each data block is, and which keys it can hold.
//!
//! On disk the index is a row per data block, from its last key to its stored length, in blocks of the same form as data; blocks
//! are packed, so lengths give offsets. In memory it is the keys in one array, and two arrays of where each key and each block ends: 12 bytes
//! and a key for each block, since this stays for as long as the segment is open. The index of a paged filter is the same, over the filter's
//! parts.
//!
//! Invariants: last keys ascend strictly; the blocks cover their part of the file exactly.

use std::rc::Rc;

use super::{
    block::{BlockBuilder, GroupRows, RowBlock},
    codec::{BlockEncoder, OwnedBlock},
    format::{BLOCK_HEADER_BYTES, BLOCK_RAW_BYTES_MAX, BlockKind},
};
use crate::row::Change;

/// Collects the index while data blocks are written.
pub(super) struct IndexBuilder {
    kind: BlockKind,
    rows: BlockBuilder,
    finished: Vec<OwnedBlock>,
}

impl IndexBuilder {
    pub(super) fn new(kind: BlockKind) -> Self {
        Self { kind, rows: BlockBuilder::default(), finished: Vec::new() }
    }

    /// A data block of `length` bytes, header included, that ends with `last_key`.
    pub(super) fn add(&mut self, last_key: &[u8], length: usize, block_bytes: usize, encoder: &mut BlockEncoder) {
        let length = u32::try_from(length).expect("blocks are far smaller").to_le_bytes();
        self.rows.add(last_key, Change::Put(&length));
        if self.rows.raw_length() >= block_bytes {
            self.close(encoder);
        }
    }

    pub(super) fn finish(mut self, encoder: &mut BlockEncoder) -> Vec<OwnedBlock> {
        if !self.rows.is_empty() {
            self.close(encoder);
        }
        self.finished
    }

    fn close(&mut self, encoder: &mut BlockEncoder) {
        let raw = self.rows.finish();
        self.finished.push(encoder.prepare(self.kind, raw).to_owned());
        self.rows.clear();
    }
}

/// The index in memory.
pub(super) struct Index {
    /// Where the first block begins.
    start: u64,
    /// The blocks' last keys, one after the other.
    keys: Vec<u8>,
    /// Where each of them ends.
    key_ends: Vec<u32>,
    /// Where each block ends, in the file.
    block_ends: Vec<u64>,
}

/// Where a data block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IndexedBlock {
    /// Where its header begins.
    pub(super) offset: u64,
    /// Its bytes, header included.
    pub(super) length: u32,
}

impl Index {
    /// An index of blocks that begin here.
    pub(super) const fn new(start: u64) -> Self {
        Self { start, keys: Vec::new(), key_ends: Vec::new(), block_ends: Vec::new() }
    }

    /// Adds the rows of an index block; `None` if they do not fit.
    pub(super) fn extend(&mut self, raw: Rc<[u8]>, data_end: u64, blocks_max: u32) -> Option<()> {
        let block = RowBlock::new(raw)?;
        let mut rows = GroupRows::default();
        for group in 0..block.groups() {
            block.decode_group(group, &mut rows)?;
            for index in 0..rows.len() {
                let (key, change) = rows.row(index)?;
                let length = change.as_ref().value()?.first_chunk::<4>().copied().map(u32::from_le_bytes)?;
                self.push(key, length, data_end, blocks_max)?;
            }
        }
        Some(())
    }

    /// It with no more memory than it needs, if the blocks cover their part of the file and end with `last_key`.
    pub(super) fn completed(mut self, data_end: u64, blocks: u32, last_key: &[u8]) -> Option<Self> {
        let is_complete = blocks > 0
            && self.len() == blocks
            && self.data_end() == data_end
            && self.last_key(blocks - 1) == Some(last_key);
        is_complete.then_some(())?;
        self.keys.shrink_to_fit();
        self.key_ends.shrink_to_fit();
        self.block_ends.shrink_to_fit();
        Some(self)
    }

    /// Bytes of memory that it takes.
    pub(super) const fn bytes(&self) -> usize {
        self.keys.capacity() + 4 * self.key_ends.capacity() + 8 * self.block_ends.capacity()
    }

    pub(super) const fn len(&self) -> u32 {
        self.block_ends.len() as u32
    }

    pub(super) fn block(&self, number: u32) -> Option<IndexedBlock> {
        let end = *self.block_ends.get(number as usize)?;
        let offset = (number as usize).checked_sub(1).map_or(self.start, |before| self.block_ends[before]);
        Some(IndexedBlock { offset, length: (end - offset) as u32 })
    }

    /// The last key of a block.
    pub(super) fn last_key(&self, number: u32) -> Option<&[u8]> {
        let end = *self.key_ends.get(number as usize)?;
        let start = (number as usize).checked_sub(1).map_or(0, |before| self.key_ends[before]);
        self.keys.get(start as usize..end as usize)
    }

    /// The only block that can hold `key`: the first whose last key is not smaller. `None` if all keys are smaller.
    pub(super) fn find(&self, key: &[u8]) -> Option<u32> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.last_key(middle)? < key {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        (low < self.len()).then_some(low)
    }

    fn push(&mut self, key: &[u8], length: u32, data_end: u64, blocks_max: u32) -> Option<()> {
        let end = self.data_end() + u64::from(length);
        let fits = self.len() < blocks_max
            && length as usize > BLOCK_HEADER_BYTES
            && length as usize <= BLOCK_HEADER_BYTES + BLOCK_RAW_BYTES_MAX
            && end <= data_end
            && self.len().checked_sub(1).and_then(|last| self.last_key(last)).is_none_or(|last| last < key);
        fits.then_some(())?;
        let key_end = u32::try_from(self.keys.len() + key.len()).ok()?;
        self.keys.extend_from_slice(key);
        self.key_ends.push(key_end);
        self.block_ends.push(end);
        Some(())
    }

    fn data_end(&self) -> u64 {
        self.block_ends.last().copied().unwrap_or(self.start)
    }
}
