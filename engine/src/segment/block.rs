//! Rows in a block: encoding, decoding, search.
//!
//! Keys share prefixes with the row before; every [`GROUP_ROWS`] rows a *group* begins with a whole key, and the offsets of groups
//! stand at the end, so that a search looks at a few whole keys and then decodes one group.
//!
//! ```text
//! rows:    varint shared · varint unshared · varint (0 = delete, else value length + 1) · unshared key bytes · value
//! end:     u32 offset of each group · u32 number of groups
//! ```
//!
//! Invariants: keys ascend strictly within a block. Decoding trusts nothing: bytes that do not fit give `None`.

use std::{ops::Range, rc::Rc};

use crate::{
    bytes::{Reader, put_varint},
    row::{Change, KEY_BYTES_MAX, SharedBytes},
};

/// Rows in a group.
pub(super) const GROUP_ROWS: usize = 16;

/// As long as most keys at most: what is made room for.
const KEY_BYTES_MOSTLY: usize = 32;

/// Rows on their way into a block.
#[derive(Default)]
pub(super) struct BlockBuilder {
    bytes: Vec<u8>,
    groups: Vec<u32>,
    rows_in_group: usize,
    rows: u32,
    last_key: Vec<u8>,
}

impl BlockBuilder {
    pub(super) const fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Bytes so far, the offsets at the end included.
    pub(super) fn raw_length(&self) -> usize {
        self.bytes.len() + 4 * (self.groups.len() + 1)
    }

    /// The last key added.
    pub(super) fn last_key(&self) -> &[u8] {
        &self.last_key
    }

    /// Adds a row. The caller has checked that its key is greater than the last.
    pub(super) fn add(&mut self, key: &[u8], change: Change<&[u8]>) {
        let shared = if self.rows == 0 || self.rows_in_group == GROUP_ROWS {
            self.groups.push(self.bytes.len() as u32);
            self.rows_in_group = 0;
            0
        } else {
            shared_prefix(&self.last_key, key)
        };
        put_varint(shared as u32, &mut self.bytes);
        put_varint((key.len() - shared) as u32, &mut self.bytes);
        put_varint(change.value().map_or(0, |value| value.len() as u32 + 1), &mut self.bytes);
        self.bytes.extend_from_slice(&key[shared..]);
        self.bytes.extend_from_slice(change.value().unwrap_or_default());
        self.last_key.truncate(shared);
        self.last_key.extend_from_slice(&key[shared..]);
        self.rows_in_group += 1;
        self.rows += 1;
    }

    /// The finished block's bytes; call [`BlockBuilder::clear`] before the next row.
    pub(super) fn finish(&mut self) -> &[u8] {
        for offset in &self.groups {
            self.bytes.extend_from_slice(&offset.to_le_bytes());
        }
        self.bytes.extend_from_slice(&(self.groups.len() as u32).to_le_bytes());
        &self.bytes
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.groups.clear();
        self.rows_in_group = 0;
        self.rows = 0;
        self.last_key.clear();
    }
}

/// A decompressed block, in memory. Cloning shares it.
#[derive(Clone)]
pub(super) struct RowBlock {
    bytes: Rc<[u8]>,
    rows_end: usize,
    groups: usize,
}

impl RowBlock {
    /// Takes a block's bytes; `None` if their end does not fit.
    pub(super) fn new(bytes: Rc<[u8]>) -> Option<Self> {
        let (rest, count) = bytes.split_last_chunk::<4>()?;
        let groups = u32::from_le_bytes(*count) as usize;
        let rows_end = rest.len().checked_sub(groups.checked_mul(4)?)?;
        (groups > 0).then_some(Self { bytes, rows_end, groups })
    }

    pub(super) const fn groups(&self) -> usize {
        self.groups
    }

    /// What the block says about `key`: `Some(None)` if nothing, `None` if it is malformed.
    pub(super) fn get(&self, key: &[u8]) -> Option<Option<Change<SharedBytes>>> {
        let (mut rows, end) = self.group_rows(self.group_of(key)?)?;
        // Both are prefixes in common with the key before: comparing them spares building keys and most comparisons.
        let mut matched = 0;
        while !rows.rest().is_empty() {
            let row = RawRow::read(&mut rows)?;
            if row.shared > matched {
                continue; // as the row before, still smaller than the key at `matched`
            }
            let tail = key.get(row.shared..)?;
            if row.shared < matched {
                return Some(None); // greater: it left the common prefix upwards
            }
            let common = shared_prefix(row.suffix, tail);
            matched = row.shared + common;
            match (row.suffix.get(common), tail.get(common)) {
                (None, None) => return Some(Some(self.change(row.value, end - rows.rest().len())?)),
                (Some(here), Some(wanted)) if here > wanted => return Some(None),
                (Some(_), None) => return Some(None),
                _ => {}
            }
        }
        Some(None)
    }

    /// The last group whose first key is not greater than `key`, or the first group.
    pub(super) fn group_of(&self, key: &[u8]) -> Option<usize> {
        let (mut low, mut high) = (0, self.groups);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            let first = RawRow::read(&mut self.group_rows(middle)?.0)?;
            if first.suffix <= key {
                low = middle;
            } else {
                high = middle;
            }
        }
        Some(low)
    }

    /// Decodes a group into `rows`, replacing what was there; `None` if it is malformed.
    pub(super) fn decode_group(&self, group: usize, rows: &mut GroupRows) -> Option<()> {
        self.decode_group_before(group, None, rows)
    }

    /// As [`RowBlock::decode_group`], of a group's rows before `end` only, if that is given.
    pub(super) fn decode_group_before(&self, group: usize, end: Option<&[u8]>, rows: &mut GroupRows) -> Option<()> {
        rows.clear();
        let (mut reader, group_end) = self.group_rows(group)?;
        rows.reserve(GROUP_ROWS, reader.rest().len());
        while !reader.rest().is_empty() {
            let row = RawRow::read(&mut reader)?;
            let start = rows.keys.len();
            let before = rows.rows.last().map_or(0..0, |row| row.key.clone());
            // More rows than a group has could share so much that their keys take far more memory than the block.
            if row.shared > before.len() || rows.rows.len() == GROUP_ROWS {
                return None;
            }
            rows.keys.extend_from_within(before.start..before.start + row.shared);
            rows.keys.extend_from_slice(row.suffix);
            if rows.keys.len() - start > KEY_BYTES_MAX {
                return None;
            }
            if end.is_some_and(|end| &rows.keys[start..] >= end) {
                rows.keys.truncate(start);
                return Some(());
            }
            let change = self.change(row.value, group_end - reader.rest().len())?;
            rows.rows.push(GroupRow { key: start..rows.keys.len(), change });
        }
        (!rows.rows.is_empty()).then_some(())
    }

    /// A group's rows, and where they end in the block.
    fn group_rows(&self, group: usize) -> Option<(Reader<'_>, usize)> {
        let start = self.group_offset(group)?;
        let end = if group + 1 < self.groups { self.group_offset(group + 1)? } else { self.rows_end };
        (end <= self.rows_end).then_some(())?;
        Some((Reader::new(self.bytes.get(start..end)?), end))
    }

    fn group_offset(&self, group: usize) -> Option<usize> {
        let at = self.rows_end.checked_add(group.checked_mul(4)?)?;
        Reader::new(self.bytes.get(at..)?).u32().map(|offset| offset as usize)
    }

    /// A row's change, from its value's length and where that ends in the block.
    fn change(&self, value_length: Option<usize>, end: usize) -> Option<Change<SharedBytes>> {
        let Some(length) = value_length else { return Some(Change::Delete) };
        SharedBytes::window(&self.bytes, end.checked_sub(length)?, length).map(Change::Put)
    }
}

/// The rows of one decoded group; buffers are reused from group to group.
#[derive(Default)]
pub(super) struct GroupRows {
    keys: Vec<u8>,
    rows: Vec<GroupRow>,
}

struct GroupRow {
    key: Range<usize>,
    change: Change<SharedBytes>,
}

impl GroupRows {
    pub(super) fn clear(&mut self) {
        self.keys.clear();
        self.rows.clear();
    }

    /// Makes room for the rows of a group of so many bytes at once, instead of by doubling: most keys share more than half.
    fn reserve(&mut self, rows: usize, bytes: usize) {
        self.rows.reserve(rows);
        self.keys.reserve((rows * KEY_BYTES_MOSTLY).min(bytes));
    }

    pub(super) const fn len(&self) -> usize {
        self.rows.len()
    }

    /// The key of a row; `None` beyond the end.
    pub(super) fn key(&self, index: usize) -> Option<&[u8]> {
        self.keys.get(self.rows.get(index)?.key.clone())
    }

    /// A row's key and change; `None` beyond the end.
    pub(super) fn row(&self, index: usize) -> Option<(&[u8], &Change<SharedBytes>)> {
        let row = self.rows.get(index)?;
        Some((self.keys.get(row.key.clone())?, &row.change))
    }

    /// How many rows have keys smaller than `key`.
    pub(super) fn smaller_than(&self, key: &[u8]) -> usize {
        self.rows.partition_point(|row| self.keys.get(row.key.clone()).is_some_and(|here| here < key))
    }
}

struct RawRow<'a> {
    shared: usize,
    suffix: &'a [u8],
    /// The value's length, which ends where the reader now stands; `None` for a delete marker.
    value: Option<usize>,
}

impl<'a> RawRow<'a> {
    #[inline]
    fn read(reader: &mut Reader<'a>) -> Option<Self> {
        let shared = reader.varint()? as usize;
        let unshared = reader.varint()? as usize;
        let tag = reader.varint()? as usize;
        let suffix = reader.take(unshared)?;
        let value = match tag.checked_sub(1) {
            Some(length) => Some(reader.take(length)?.len()),
            None => None,
        };
        Some(Self { shared, suffix, value })
    }
}

/// How many bytes are alike from the beginning; eight at a time, as most keys share more than that.
#[inline]
fn shared_prefix(left: &[u8], right: &[u8]) -> usize {
    let (left_words, right_words) = (left.as_chunks::<8>().0, right.as_chunks::<8>().0);
    for (index, (one, other)) in left_words.iter().zip(right_words).enumerate() {
        let differing = u64::from_le_bytes(*one) ^ u64::from_le_bytes(*other);
        if differing != 0 {
            return index * 8 + differing.trailing_zeros() as usize / 8;
        }
    }
    let words = left_words.len().min(right_words.len()) * 8;
    let rest = left[words..].iter().zip(&right[words..]);
    words + rest.take_while(|(left, right)| left == right).count()
}
