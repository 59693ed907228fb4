//! Reading what a segment stores for its checksums alone, a piece at a time: data blocks, then the ends of the file, then index and
//! filter. Past the cache, and without decompressing anything: a block's checksum is over its stored bytes.
//!
//! A piece that is damaged is read a second time before it is told, so that a read that went astray once is not taken for damage.

use super::{
    SegmentReader,
    format::{BLOCK_HEADER_BYTES, BlockHeader, BlockKind, BlockPlace, Footer},
    reader::read_ends,
    stream::ByteStream,
};
use crate::{
    error::{DamagedKeys, StoreError},
    seams::{FileError, Files, PAGE_BYTES},
};

/// Bytes of a piece: what is read from a file at a time, less what a block may stand away from a page's beginning.
const PIECE_BYTES: u64 = 256 * 1024 - PAGE_BYTES as u64;

/// How far the reading of a segment has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ScrubPlace {
    /// This data block is next.
    Data(u32),
    /// Header and footer are.
    Ends,
    /// The block of index or filter is that begins here; they end there.
    Rest(u64, u64),
}

impl ScrubPlace {
    /// Where every segment begins.
    pub(crate) const FIRST: Self = Self::Data(0);
}

/// Something stored that is not as it was written, or cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ScrubDamage {
    /// Where the block begins.
    pub(crate) offset: u64,
    /// What does not hold.
    pub(crate) what: String,
    /// Whose rows are concerned.
    pub(crate) keys: DamagedKeys,
}

/// A piece that was read.
#[derive(Debug, Default)]
pub(crate) struct ScrubPiece {
    /// Bytes read.
    pub(crate) bytes: u64,
    /// What goes on next; `None` at the segment's end.
    pub(crate) next: Option<ScrubPlace>,
    /// What is wrong in it.
    pub(crate) damaged: Vec<ScrubDamage>,
}

impl<F: Files> SegmentReader<F> {
    /// Reads a piece of the segment, some hundred KiB. Errors of the files are damage here: a sector that cannot be read is told, and what
    /// is behind it is read.
    pub(crate) async fn scrub(&self, at: ScrubPlace) -> ScrubPiece {
        match at {
            ScrubPlace::Data(first) => self.scrub_data(first).await,
            ScrubPlace::Ends => self.scrub_ends().await,
            ScrubPlace::Rest(at, end) => self.scrub_rest(at, end).await,
        }
    }

    async fn scrub_data(&self, first: u32) -> ScrubPiece {
        let mut piece = ScrubPiece { next: Some(ScrubPlace::Ends), ..ScrubPiece::default() };
        let Some(begin) = self.indexed_block(first) else { return piece };
        let mut stream = ByteStream::new(begin.offset, self.data_range().1);
        let mut number = first;
        while let Some(block) = self.indexed_block(number) {
            let length = u64::from(block.length);
            if piece.bytes > 0 && piece.bytes + length > PIECE_BYTES {
                piece.next = Some(ScrubPlace::Data(number));
                return piece;
            }
            piece.bytes += length;
            let read = stream.take(self.file(), block.length as usize).await;
            let found =
                read.map(|bytes| self.check_block(bytes.unwrap_or_default(), block.offset, Some(BlockKind::Data)));
            let has_failed = found.is_err();
            if !matches!(found, Ok(None)) {
                piece.bytes += length;
                let again = self.read_block(block).await;
                let again = again.map(|bytes| self.check_block(&bytes, block.offset, Some(BlockKind::Data)));
                if let Some(what) = words(again) {
                    let keys = self.keys_of_block(number);
                    piece.damaged.push(ScrubDamage { offset: block.offset, what, keys });
                }
            }
            number += 1;
            if has_failed {
                // What the stream reads at once may fail for another block's sector: the next piece begins behind this block.
                piece.next = Some(ScrubPlace::Data(number));
                return piece;
            }
        }
        piece
    }

    async fn scrub_ends(&self) -> ScrubPiece {
        let mut piece = ScrubPiece { bytes: 2 * PAGE_BYTES as u64, ..ScrubPiece::default() };
        let mut ends = self.read_ends_again().await;
        if ends.is_err() {
            piece.bytes *= 2;
            ends = self.read_ends_again().await;
        }
        match ends {
            Ok(footer) if footer.index_offset < footer.end_offset => {
                piece.next = Some(ScrubPlace::Rest(footer.index_offset, footer.end_offset));
            }
            Ok(_) => {}
            Err((offset, what)) => piece.damaged.push(self.damage_at(offset, what)),
        }
        piece
    }

    /// The footer, if both ends are those that were read when the segment was opened.
    async fn read_ends_again(&self) -> Result<Footer, (u64, String)> {
        let statistics = self.statistics();
        match read_ends(self.file(), self.id(), self.identity()).await {
            Ok(mut footer) => {
                footer.statistics.id = statistics.id;
                let is_same = footer.statistics == *statistics;
                if is_same { Ok(footer) } else { Err((0, "belongs to another segment".to_owned())) }
            }
            Err(StoreError::Damaged { offset, what, .. }) => Err((offset, what.to_owned())),
            Err(StoreError::File(error)) => Err((0, text(error))),
            Err(error) => Err((0, error.to_string())),
        }
    }

    async fn scrub_rest(&self, at: u64, end: u64) -> ScrubPiece {
        let mut piece = ScrubPiece::default();
        let mut stream = ByteStream::new(at, end);
        while !stream.is_at_end() {
            if piece.bytes >= PIECE_BYTES {
                piece.next = Some(ScrubPlace::Rest(stream.offset(), end));
                return piece;
            }
            let offset = stream.offset();
            let mut read = self.scrub_block(&mut stream).await;
            if !matches!(read, Ok((_, None))) {
                stream = ByteStream::new(offset, end);
                read = self.scrub_block(&mut stream).await;
            }
            match read {
                Ok((length, found)) => {
                    piece.bytes += length;
                    piece.damaged.extend(found.map(|what| self.damage_at(offset, what.to_owned())));
                    if length == 0 {
                        // Where the next one begins is not known.
                        return piece;
                    }
                }
                Err(error) => {
                    piece.damaged.push(self.damage_at(offset, text(error)));
                    return piece;
                }
            }
        }
        piece
    }

    /// The next block's length, 0 if it has none, and what is wrong with it.
    async fn scrub_block(&self, stream: &mut ByteStream) -> Result<(u64, Option<&'static str>), FileError> {
        let offset = stream.offset();
        let Some(block) = stream.next_block(self.file()).await? else {
            return Ok((0, Some("block length leads outside")));
        };
        debug_assert!(block.len() > BLOCK_HEADER_BYTES);
        Ok((block.len() as u64, self.check_block(block, offset, None)))
    }

    /// What is wrong with a block's stored bytes, header included.
    fn check_block(&self, block: &[u8], offset: u64, kind: Option<BlockKind>) -> Option<&'static str> {
        let place = BlockPlace { segment: self.number_in_file(), offset };
        match BlockHeader::check(block, place) {
            Err(what) => Some(what),
            Ok((header, _)) if kind.is_some_and(|kind| header.kind != kind) => {
                Some("another kind of block was expected")
            }
            Ok(_) => None,
        }
    }

    /// Damage that leaves the whole segment unreadable for whoever opens it next.
    fn damage_at(&self, offset: u64, what: String) -> ScrubDamage {
        let statistics = self.statistics();
        ScrubDamage { offset, what, keys: DamagedKeys::between(&statistics.first_key, &statistics.last_key) }
    }
}

/// What a second reading has found, if anything.
fn words(found: Result<Option<&'static str>, FileError>) -> Option<String> {
    match found {
        Ok(what) => what.map(str::to_owned),
        Err(error) => Some(text(error)),
    }
}

/// A finding names the file by itself.
fn text(error: FileError) -> String {
    match error {
        FileError::Io { text, .. } => text,
        error => error.to_string(),
    }
}
