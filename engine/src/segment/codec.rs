//! Blocks between memory and their stored form: compression, checksum, lengths.

use std::rc::Rc;

use zstd::bulk::{Compressor, Decompressor};

use super::format::{BLOCK_HEADER_BYTES, BlockHeader, BlockKind, BlockPlace, Compression};

/// Makes stored blocks. Keeps its context and buffer from block to block.
pub(super) struct BlockEncoder {
    compressor: Option<Compressor<'static>>,
    compressed: Vec<u8>,
}

/// A stored block that has no place yet: its checksum is made when it gets one.
pub(super) struct PreparedBlock<'a> {
    header: BlockHeader,
    stored: &'a [u8],
}

/// The same, kept for later.
pub(super) struct OwnedBlock {
    header: BlockHeader,
    stored: Vec<u8>,
}

impl BlockEncoder {
    /// `level` 0 stores blocks as they are.
    pub(super) fn new(level: i32) -> Self {
        #[cfg(feature = "planted")]
        let level = if crate::planted::ignores_checksums() { 0 } else { level };
        let compressor = (level != 0).then(|| Compressor::new(level).expect("zstd has room for a context"));
        Self { compressor, compressed: Vec::new() }
    }

    /// Compresses a block if that makes it smaller.
    pub(super) fn prepare<'a>(&'a mut self, kind: BlockKind, raw: &'a [u8]) -> PreparedBlock<'a> {
        // A filter's bits do not compress, and so that they take no more memory than file, they never are.
        let compressed = kind != BlockKind::Filter && self.compress(raw).is_some_and(|length| length < raw.len());
        let (stored, compression) =
            if compressed { (self.compressed.as_slice(), Compression::Zstd) } else { (raw, Compression::None) };
        let header =
            BlockHeader { stored_length: stored.len() as u32, raw_length: raw.len() as u32, kind, compression };
        PreparedBlock { header, stored }
    }

    fn compress(&mut self, raw: &[u8]) -> Option<usize> {
        let compressor = self.compressor.as_mut()?;
        self.compressed.clear();
        self.compressed.reserve(zstd::zstd_safe::compress_bound(raw.len()));
        compressor.compress_to_buffer(raw, &mut self.compressed).ok()
    }
}

impl<'a> PreparedBlock<'a> {
    /// Header and stored bytes for this place.
    pub(super) fn at(&self, place: BlockPlace) -> ([u8; BLOCK_HEADER_BYTES], &'a [u8]) {
        (self.header.encode(place, self.stored), self.stored)
    }

    pub(super) fn to_owned(&self) -> OwnedBlock {
        OwnedBlock { header: self.header, stored: self.stored.to_vec() }
    }
}

impl OwnedBlock {
    pub(super) fn as_prepared(&self) -> PreparedBlock<'_> {
        PreparedBlock { header: self.header, stored: &self.stored }
    }
}

/// Reads stored blocks. Keeps its context and buffer from block to block.
#[derive(Default)]
pub(super) struct BlockDecoder {
    decompressor: Option<Decompressor<'static>>,
    raw: Vec<u8>,
}

impl BlockDecoder {
    /// Checks a stored block, header included, and gives its bytes before compression. The checksum is checked first, and no more
    /// is allocated than the largest block needs.
    pub(super) fn decode(
        &mut self,
        block: &[u8],
        place: BlockPlace,
        kind: BlockKind,
    ) -> Result<Rc<[u8]>, &'static str> {
        let (header, stored) = BlockHeader::check(block, place)?;
        if header.kind != kind {
            return Err("another kind of block was expected");
        }
        if header.kind == BlockKind::Filter && header.compression != Compression::None {
            return Err("a filter is not compressed");
        }
        let raw_length = header.raw_length as usize;
        if header.compression == Compression::None {
            return if stored.len() == raw_length { Ok(Rc::from(stored)) } else { Err("block length does not match") };
        }
        self.raw.clear();
        self.raw.reserve(raw_length);
        let decompressor = match &mut self.decompressor {
            Some(decompressor) => decompressor,
            none => none.insert(Decompressor::new().map_err(|_| "zstd has no room for a context")?),
        };
        match decompressor.decompress_to_buffer(stored, &mut self.raw) {
            Ok(length) if length == raw_length => Ok(Rc::from(self.raw.as_slice())),
            Ok(_) => Err("decompressed length does not match"),
            Err(_) => Err("not a zstd frame"),
        }
    }
}
