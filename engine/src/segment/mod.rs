//! Segments: immutable sorted runs of rows, one file each.
//!
//! A file is written once by a [`SegmentWriter`] and never changed after; a [`SegmentReader`] holds its footer, index and filter
//! in memory and reads data blocks through the cache; parts of a filter that is paged, too. docs/format.md draws the bytes.
//!
//! Invariants: keys ascend strictly within a segment; every byte that is used is covered by a checksum that is checked first; every
//! length and offset from disk is checked before use, so that arbitrary bytes give [`StoreError::Damaged`](crate::error::StoreError)
//! and never a panic or an allocation beyond the file's own size and one block.
//!
//! Must not do: know what keys and values mean, or which segments exist.

mod block;
mod codec;
mod copy;
mod cursor;
mod filter;
mod format;
mod index;
mod paged;
mod reader;
mod salvage;
mod scrub;
mod stream;
mod writer;

use std::{
    cell::{Cell, RefCell},
    fmt,
    rc::Rc,
};

use crate::{
    cache::Cache,
    row::{Change, KeyRange},
    seams::Files,
};

pub use format::{BLOCK_BYTES_MAX, VERSION};
pub use reader::{SegmentReader, Verified};
pub use writer::SegmentWriter;

pub(crate) use copy::copy_segment;
pub(crate) use cursor::SegmentCursor;
pub(crate) use format::mend;
pub(crate) use salvage::{Salvaged, salvage};
pub(crate) use scrub::{ScrubDamage, ScrubPlace};
pub(crate) use stream::StreamCursor;

/// A segment's number in its store; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(pub u64);

impl SegmentId {
    /// The name of its file, such as `segment-000000000000002a`.
    #[must_use]
    pub fn file_name(self) -> String {
        format!("segment-{:016x}", self.0)
    }

    /// The id that a file name stands for; `None` for any name that [`SegmentId::file_name`] would not give.
    #[must_use]
    pub fn from_file_name(name: &str) -> Option<Self> {
        let id = Self(u64::from_str_radix(name.strip_prefix("segment-")?, 16).ok()?);
        (id.file_name() == name).then_some(id)
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}", self.0)
    }
}

/// What goes into a segment's filter, so that a reader learns without a disk read that a segment cannot hold something.
///
/// A filter holds *pieces* of keys, whichever the caller picks: the whole key for rows that are looked up singly and are mostly
/// absent, a common prefix (a conversation's id) to tell that a whole range has no rows here, both, or none. Repeats of the last
/// piece of the same length cost nothing.
#[derive(Debug, Clone, Copy)]
pub struct KeyFilter {
    /// Names this choice of pieces. It is stored in the segment, and a reader with another id does without the segment's filter:
    /// change it whenever `pieces` changes. 0 means no filter.
    pub id: u32,
    /// Calls back with each piece of a key, at most [`PIECES_MAX`] of them.
    pub pieces: Pieces,
    /// Calls back with pieces of which every row in a range has one, if they are few: without any it may hold all there are.
    pub pieces_within: PiecesWithin,
    /// The choice before this one: segments that were written with it are read with it.
    pub former: Option<&'static KeyFilter>,
}

/// Calls back with each piece of a key.
pub type Pieces = fn(key: &[u8], piece: &mut dyn FnMut(&[u8]));

/// Calls back with pieces of which every row in a range has one.
pub type PiecesWithin = fn(range: &KeyRange, piece: &mut dyn FnMut(&[u8]));

/// Most pieces of one key in a filter.
pub const PIECES_MAX: usize = 4;

impl KeyFilter {
    /// No filter at all.
    pub const NONE: Self = Self::new(0, |_, _| {});

    /// Every whole key.
    pub const WHOLE_KEYS: Self = Self::new(1, |key, piece| piece(key));

    /// A choice of pieces that says nothing of ranges.
    #[must_use]
    pub const fn new(id: u32, pieces: Pieces) -> Self {
        Self { id, pieces, pieces_within: |_, _| {}, former: None }
    }

    /// This choice or a former one, by its id.
    pub(crate) fn of_id(&self, id: u32) -> Option<&Self> {
        if self.id == id { Some(self) } else { self.former?.of_id(id) }
    }
}

/// How segments are written.
#[derive(Debug, Clone, Copy)]
pub struct SegmentSettings {
    /// What goes into filters.
    pub filter: KeyFilter,
    /// A block is closed when its uncompressed rows reach this.
    pub block_bytes: usize,
    /// zstd's level, or 0 to store blocks as they are.
    pub compression_level: i32,
    /// Whether the filter is read in parts, as they are asked for, and kept in the cache of filters: for a filter that grows with what is
    /// stored. Otherwise a reader holds all of it.
    pub paged_filter: bool,
    /// Which rows are there to erase: what older segments say of the same key is to go from the disk, not only from sight.
    pub erases: Erases,
}

/// Whether a row is there to erase what older segments say of its key.
pub type Erases = fn(key: &[u8], change: Change<&[u8]>) -> bool;

impl SegmentSettings {
    /// Whether a segment gets an index of its filter's parts.
    const fn has_filter_index(&self) -> bool {
        self.paged_filter && self.filter.id != 0
    }
}

impl Default for SegmentSettings {
    /// 16 KiB blocks at level 1, as facts.md measured: one block is one cheap read, higher levels gain nothing on such blocks.
    fn default() -> Self {
        Self {
            filter: KeyFilter::NONE,
            block_bytes: 16 * 1024,
            compression_level: 1,
            paged_filter: false,
            erases: |_, _| false,
        }
    }
}

/// What a segment holds, as its footer says and the manifest repeats in part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentStatistics {
    /// The segment.
    pub id: SegmentId,
    /// Rows, delete markers among them. Never 0: an empty segment is not written.
    pub rows: u64,
    /// Delete markers.
    pub deletes: u64,
    /// Bytes of keys and values of rows that are not delete markers.
    pub live_bytes: u64,
    /// Rows that are there to erase what older segments say of their keys.
    pub erasing: u64,
    /// The time that the first of those was written at, or an earlier one; `None` without any, and where it is not known.
    pub erasing_since: Option<u64>,
    /// Bytes of all data blocks before compression.
    pub raw_bytes: u64,
    /// Bytes of all data blocks as stored.
    pub stored_bytes: u64,
    /// Bytes of the whole file.
    pub file_bytes: u64,
    /// Data blocks.
    pub blocks: u32,
    /// The least and greatest time that the writer was told, if it was told any.
    pub times: Option<(u64, u64)>,
    /// The first key, at most [`KEY_BYTES_MAX`](crate::row::KEY_BYTES_MAX) bytes.
    pub first_key: Vec<u8>,
    /// The last key.
    pub last_key: Vec<u8>,
}

/// What all segments of a store have in common. Cloning gives another handle on the same.
#[derive(Clone)]
pub struct SegmentContext<F: Files> {
    pub(crate) files: F,
    pub(crate) cache: Cache,
    /// Of parts of filters.
    pub(crate) filters: Cache,
    pub(crate) store: u64,
    pub(crate) settings: SegmentSettings,
    decoder: Rc<RefCell<codec::BlockDecoder>>,
    /// Damaged data blocks that reads met, each as often as it was met.
    pub(crate) damaged_blocks: Rc<Cell<u64>>,
}

impl<F: Files> SegmentContext<F> {
    /// Segments in the folder `files` that belong to `store`, read through `cache`.
    #[must_use]
    pub fn new(files: F, cache: Cache, store: u64, settings: SegmentSettings) -> Self {
        let filters = Cache::new(0);
        Self { files, cache, filters, store, settings, decoder: Rc::default(), damaged_blocks: Rc::default() }
    }

    /// The same, with parts of filters kept in `filters`: in no other context's cache of blocks, as the numbers are the same.
    #[must_use]
    pub fn with_filters(self, filters: Cache) -> Self {
        Self { filters, ..self }
    }
}
