//! The fixed parts of a segment file: header page, block header, footer page. docs/format.md draws them.
//!
//! Invariants: encoding then decoding gives the same; decoding accepts nothing that does not fit together.

use super::{SegmentId, SegmentStatistics};
use crate::{
    bytes::Reader,
    row::{KEY_BYTES_MAX, VALUE_BYTES_MAX},
    seams::PAGE_BYTES,
};

/// The newest format version: that of the footer of a segment whose filter has an index, or that has rows which erase.
pub const VERSION: u32 = 2;

/// The version of all other footers, which readers from before the index know, and of headers.
const PLAIN_VERSION: u32 = 1;

/// Data blocks begin after the header page.
pub(super) const DATA_START: u64 = PAGE_BYTES as u64;

/// Bytes before each block.
pub(super) const BLOCK_HEADER_BYTES: usize = 16;

/// Most bytes of a block before compression: one row of the greatest size on top of a block that was about to be closed.
pub(super) const BLOCK_RAW_BYTES_MAX: usize = VALUE_BYTES_MAX + KEY_BYTES_MAX + BLOCK_BYTES_MAX + 4096;

/// Largest block that may be asked for in [`SegmentSettings`](super::SegmentSettings).
pub const BLOCK_BYTES_MAX: usize = 256 * 1024;

const HEADER_MAGIC: [u8; 8] = *b"ANTISEGM";
const FOOTER_MAGIC: [u8; 8] = *b"ANTISEGF";
const FOOTER_FIXED_BYTES: usize = 128;
const CHECKSUM_AT: usize = PAGE_BYTES - 4;

/// What a block holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum BlockKind {
    /// Rows.
    Data = 1,
    /// The last key and the stored length of each data block, as rows.
    Index = 2,
    /// A part of the filter.
    Filter = 3,
    /// The last key and the stored length of each part of the filter, as rows.
    FilterIndex = 4,
}

/// How a block's bytes are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Compression {
    /// As they are.
    None = 0,
    /// One zstd frame.
    Zstd = 1,
}

/// The header before a block's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BlockHeader {
    pub(super) stored_length: u32,
    pub(super) raw_length: u32,
    pub(super) kind: BlockKind,
    pub(super) compression: Compression,
}

/// Where a block is meant to be. Its checksum begins with this, so that a block at a wrong place is damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BlockPlace {
    pub(super) segment: SegmentId,
    pub(super) offset: u64,
}

/// The last page of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Footer {
    pub(super) store: u64,
    pub(super) filter_id: u32,
    /// Where data blocks end and index blocks begin.
    pub(super) index_offset: u64,
    /// Where index blocks end and filter blocks begin.
    pub(super) filter_offset: u64,
    /// Where the last block ends.
    pub(super) end_offset: u64,
    /// Where filter blocks end and the filter's index begins, if it has one.
    pub(super) filter_index_offset: Option<u64>,
    pub(super) statistics: SegmentStatistics,
}

/// What a page of this program's says of itself before its other fields are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PageError {
    /// Not what was written.
    Damaged(&'static str),
    /// Of another format version.
    Version(u32),
}

/// The first page.
pub(super) fn encode_header(segment: SegmentId, store: u64, page: &mut [u8]) {
    let mut fields = Vec::with_capacity(32);
    fields.extend(HEADER_MAGIC);
    fields.extend(PLAIN_VERSION.to_le_bytes());
    fields.extend([0; 4]);
    fields.extend(segment.0.to_le_bytes());
    fields.extend(store.to_le_bytes());
    seal_page(&fields, page);
}

/// The segment and store that the first page names.
pub(super) fn decode_header(page: &[u8]) -> Result<(SegmentId, u64), PageError> {
    let (mut reader, _) = open_page(page, HEADER_MAGIC)?;
    let fields = (|| {
        let _reserved = reader.u32()?;
        Some((SegmentId(reader.u64()?), reader.u64()?))
    })();
    fields.ok_or(PageError::Damaged("header too short"))
}

impl Footer {
    pub(super) fn encode(&self, page: &mut [u8]) {
        let statistics = &self.statistics;
        let mut fields = Vec::with_capacity(FOOTER_FIXED_BYTES + 2 * KEY_BYTES_MAX);
        fields.extend(FOOTER_MAGIC);
        let is_plain = self.filter_index_offset.is_none() && statistics.erasing == 0;
        let version = if is_plain { PLAIN_VERSION } else { VERSION };
        fields.extend(version.to_le_bytes());
        fields.extend(self.filter_id.to_le_bytes());
        fields.extend(statistics.id.0.to_le_bytes());
        fields.extend(self.store.to_le_bytes());
        fields.extend(self.index_offset.to_le_bytes());
        fields.extend(self.filter_offset.to_le_bytes());
        fields.extend(self.end_offset.to_le_bytes());
        fields.extend(statistics.file_bytes.to_le_bytes());
        fields.extend(statistics.rows.to_le_bytes());
        fields.extend(statistics.deletes.to_le_bytes());
        fields.extend(statistics.live_bytes.to_le_bytes());
        fields.extend(statistics.raw_bytes.to_le_bytes());
        let (time_min, time_max) = statistics.times.unwrap_or_default();
        fields.extend(time_min.to_le_bytes());
        fields.extend(time_max.to_le_bytes());
        fields.extend(u32::from(statistics.times.is_some()).to_le_bytes());
        fields.extend(statistics.blocks.to_le_bytes());
        fields.extend((statistics.first_key.len() as u32).to_le_bytes());
        fields.extend((statistics.last_key.len() as u32).to_le_bytes());
        debug_assert_eq!(fields.len(), FOOTER_FIXED_BYTES);
        fields.extend(&statistics.first_key);
        fields.extend(&statistics.last_key);
        if version >= VERSION {
            let since = statistics.erasing_since.unwrap_or(0);
            for number in [self.filter_index_offset.unwrap_or(0), statistics.erasing, since] {
                fields.extend(number.to_le_bytes());
            }
        }
        seal_page(&fields, page);
    }

    /// Reads the last page of a file of `file_bytes`.
    pub(super) fn decode(page: &[u8], file_bytes: u64) -> Result<Self, PageError> {
        let (reader, version) = open_page(page, FOOTER_MAGIC)?;
        let footer =
            Self::decode_fields(reader, version).ok_or(PageError::Damaged("footer's fields are out of bounds"))?;
        if footer.fits(file_bytes) {
            Ok(footer)
        } else {
            Err(PageError::Damaged("footer's fields do not fit together"))
        }
    }

    fn decode_fields(mut reader: Reader<'_>, version: u32) -> Option<Self> {
        let filter_id = reader.u32()?;
        let id = SegmentId(reader.u64()?);
        let store = reader.u64()?;
        let index_offset = reader.u64()?;
        let filter_offset = reader.u64()?;
        let end_offset = reader.u64()?;
        let file_bytes = reader.u64()?;
        let rows = reader.u64()?;
        let deletes = reader.u64()?;
        let live_bytes = reader.u64()?;
        let raw_bytes = reader.u64()?;
        let times = (reader.u64()?, reader.u64()?);
        let has_times = reader.u32()?;
        let blocks = reader.u32()?;
        let (first_length, last_length) = (reader.u32()? as usize, reader.u32()? as usize);
        if first_length > KEY_BYTES_MAX || last_length > KEY_BYTES_MAX || has_times > 1 {
            return None;
        }
        let first_key = reader.take(first_length)?.to_vec();
        let last_key = reader.take(last_length)?.to_vec();
        let (mut filter_index_offset, mut erasing, mut erasing_since) = (None, 0, None);
        if version >= VERSION {
            filter_index_offset = Some(reader.u64()?).filter(|offset| *offset > 0);
            erasing = reader.u64()?;
            erasing_since = Some(reader.u64()?).filter(|since| *since > 0);
        }
        let statistics = SegmentStatistics {
            id,
            rows,
            deletes,
            live_bytes,
            erasing,
            erasing_since,
            raw_bytes,
            stored_bytes: index_offset.checked_sub(DATA_START)?,
            file_bytes,
            blocks,
            times: (has_times == 1).then_some(times),
            first_key,
            last_key,
        };
        Some(Self { store, filter_id, index_offset, filter_offset, end_offset, filter_index_offset, statistics })
    }

    fn fits(&self, file_bytes: u64) -> bool {
        let statistics = &self.statistics;
        let Some(footer_offset) = file_bytes.checked_sub(PAGE_BYTES as u64) else { return false };
        // A block takes its header and at least one byte, a row at least three.
        statistics.file_bytes == file_bytes
            && self.index_offset <= self.filter_offset
            && self.filter_offset <= self.end_offset
            && self.filter_index_offset.is_none_or(|at| (self.filter_offset..=self.end_offset).contains(&at))
            && self.end_offset.checked_next_multiple_of(PAGE_BYTES as u64) == Some(footer_offset)
            && statistics.blocks > 0
            && u64::from(statistics.blocks) * (BLOCK_HEADER_BYTES as u64 + 1) <= statistics.stored_bytes
            && statistics.rows >= u64::from(statistics.blocks)
            && statistics.deletes <= statistics.rows
            && statistics.erasing <= statistics.rows
            && statistics.first_key <= statistics.last_key
    }
}

impl BlockHeader {
    /// The header's bytes, its checksum over the block at `place` included.
    pub(super) fn encode(&self, place: BlockPlace, stored: &[u8]) -> [u8; BLOCK_HEADER_BYTES] {
        let mut bytes = [0; BLOCK_HEADER_BYTES];
        bytes[4..8].copy_from_slice(&self.stored_length.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.raw_length.to_le_bytes());
        bytes[12] = self.kind as u8;
        bytes[13] = self.compression as u8;
        let checksum = place.checksum(&bytes[4..], stored);
        bytes[..4].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Checks a whole block, header and stored bytes, against its place; gives the header and the stored bytes.
    pub(super) fn check(block: &[u8], place: BlockPlace) -> Result<(Self, &[u8]), &'static str> {
        let (header, stored) = block.split_at_checked(BLOCK_HEADER_BYTES).ok_or("block too short")?;
        let (checksum, rest) = header.split_first_chunk::<4>().ok_or("block too short")?;
        let sound = u32::from_le_bytes(*checksum) == place.checksum(rest, stored);
        #[cfg(feature = "planted")]
        let sound = sound || crate::planted::ignores_checksums();
        if !sound {
            return Err("checksum does not match");
        }
        let header = Self::decode(rest).ok_or("block header is not of this version")?;
        if header.stored_length as usize != stored.len() {
            return Err("block length does not match");
        }
        Ok((header, stored))
    }

    /// The stored length that a header claims, before its checksum could be looked at; bounded, so that it can be read for.
    pub(super) fn claimed_length(header: &[u8]) -> Option<usize> {
        let length = Reader::new(header.get(4..)?).u32()? as usize;
        (length > 0 && length <= BLOCK_RAW_BYTES_MAX).then_some(length)
    }

    fn decode(rest: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(rest);
        let stored_length = reader.u32()?;
        let raw_length = reader.u32()?;
        let kind = match reader.u8()? {
            1 => BlockKind::Data,
            2 => BlockKind::Index,
            3 => BlockKind::Filter,
            4 => BlockKind::FilterIndex,
            _ => return None,
        };
        let compression = match reader.u8()? {
            0 => Compression::None,
            1 => Compression::Zstd,
            _ => return None,
        };
        let reserved = reader.u16()?;
        (reserved == 0 && raw_length as usize <= BLOCK_RAW_BYTES_MAX).then_some(())?;
        Some(Self { stored_length, raw_length, kind, compression })
    }
}

impl BlockPlace {
    fn checksum(&self, header: &[u8], stored: &[u8]) -> u32 {
        let mut place = [0; 16];
        place[..8].copy_from_slice(&self.segment.0.to_le_bytes());
        place[8..].copy_from_slice(&self.offset.to_le_bytes());
        crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(&place), header), stored)
    }
}

/// Gives every checksum of a file the value it must have, as far as lengths lead: so that fuzzing gets behind the checksums.
pub(crate) fn mend(segment: SegmentId, bytes: &mut [u8]) {
    let Some(last_page) = bytes.len().checked_sub(PAGE_BYTES).filter(|start| start.is_multiple_of(PAGE_BYTES)) else {
        return;
    };
    for start in [0, last_page] {
        let checksum = crc32c::crc32c(&bytes[start..start + CHECKSUM_AT]);
        bytes[start + CHECKSUM_AT..start + PAGE_BYTES].copy_from_slice(&checksum.to_le_bytes());
    }
    let mut start = DATA_START as usize;
    while let Some(length) = bytes.get(start..last_page).and_then(BlockHeader::claimed_length) {
        let end = start + BLOCK_HEADER_BYTES + length;
        let Some(block) = bytes.get_mut(start..end).filter(|_| end <= last_page) else { return };
        let (header, stored) = block.split_at_mut(BLOCK_HEADER_BYTES);
        let checksum = BlockPlace { segment, offset: start as u64 }.checksum(&header[4..], stored);
        header[..4].copy_from_slice(&checksum.to_le_bytes());
        start = end;
    }
}

/// Fills a page: fields, zeros, and at its end the checksum of all before.
fn seal_page(fields: &[u8], page: &mut [u8]) {
    assert!(page.len() == PAGE_BYTES && fields.len() <= CHECKSUM_AT);
    page.fill(0);
    page[..fields.len()].copy_from_slice(fields);
    let checksum = crc32c::crc32c(&page[..CHECKSUM_AT]);
    page[CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
}

/// The fields of a page after magic and version, and the version. The checksum's place is the same in every version, so that another version is told
/// from damage.
fn open_page(page: &[u8], magic: [u8; 8]) -> Result<(Reader<'_>, u32), PageError> {
    let (content, checksum) = page.split_last_chunk::<4>().ok_or(PageError::Damaged("page too short"))?;
    if !content.starts_with(&magic) {
        return Err(PageError::Damaged("page does not begin as it must"));
    }
    if crc32c::crc32c(content) != u32::from_le_bytes(*checksum) {
        return Err(PageError::Damaged("checksum does not match"));
    }
    let mut reader = Reader::new(content);
    let version = reader.array::<8>().and_then(|_| reader.u32());
    match version {
        Some(version @ PLAIN_VERSION..=VERSION) => Ok((reader, version)),
        Some(other) => Err(PageError::Version(other)),
        None => Err(PageError::Damaged("page too short")),
    }
}
