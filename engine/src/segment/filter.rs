//! A filter tells without a disk read that a segment cannot hold something.
//!
//! It is a split block Bloom filter as Parquet specifies it (Apache Parquet format, "Bloom Filter"; Putze, Sanders and Singler,
//! "Cache-, hash- and space-efficient Bloom filters", 2007): a piece sets one bit in each of eight words of one 32-byte line, so a
//! test touches one cache line. With ten bits a piece about one test in a hundred is a false "maybe". Hashes are XXH3-64.
//!
//! A filter is cut into parts by key, each with its own bits, so that a writer needs memory for one part's hashes only, whatever
//! the segment's size. Invariants: a key's pieces are all in the part that the key falls into; `false` is certain.

use xxhash_rust::xxh3::xxh3_64;

use super::{
    KeyFilter, PIECES_MAX,
    codec::{BlockEncoder, OwnedBlock},
    format::BlockKind,
};
use crate::{
    bytes::Reader,
    row::{KEY_BYTES_MAX, KeyRange},
};

/// Bits for each piece.
const BITS_PER_PIECE: usize = 10;

/// A part is closed when it has so many pieces: 80 KiB of bits, 512 KiB of hashes while it is made.
const PART_PIECES: usize = 1 << 16;

const LINE_BYTES: usize = 32;

/// Parquet's salts: one odd multiplier a word.
const SALTS: [u32; 8] =
    [0x47b6_137b, 0x4497_4d91, 0x8824_ad5b, 0xa2b7_289d, 0x7054_95c7, 0x2df1_424b, 0x9efc_4947, 0x5c6b_fb31];

/// Collects the filter while rows are written.
pub(super) struct FilterBuilder {
    filter: KeyFilter,
    hashes: Vec<u64>,
    last_hashes: [Option<u64>; PIECES_MAX],
    finished: Vec<OwnedBlock>,
}

impl FilterBuilder {
    pub(super) const fn new(filter: KeyFilter) -> Self {
        Self { filter, hashes: Vec::new(), last_hashes: [None; PIECES_MAX], finished: Vec::new() }
    }

    /// Adds a row's key; keys come in ascending order.
    pub(super) fn add(&mut self, key: &[u8], encoder: &mut BlockEncoder) {
        if self.filter.id == 0 {
            return;
        }
        let (hashes, last_hashes) = (&mut self.hashes, &mut self.last_hashes);
        let mut piece_number = 0;
        (self.filter.pieces)(key, &mut |piece| {
            assert!(piece_number < PIECES_MAX, "a key has too many pieces");
            let hash = xxh3_64(piece);
            // Pieces that repeat from row to row (a conversation's id) are kept once.
            if last_hashes[piece_number] != Some(hash) {
                last_hashes[piece_number] = Some(hash);
                hashes.push(hash);
            }
            piece_number += 1;
        });
        if self.hashes.len() >= PART_PIECES {
            self.close(key, encoder);
        }
    }

    pub(super) fn finish(mut self, last_key: &[u8], encoder: &mut BlockEncoder) -> Vec<OwnedBlock> {
        // The last part must reach to the last key, or keys after the part before would count as absent; even with no pieces.
        if self.filter.id != 0 {
            self.close(last_key, encoder);
        }
        self.finished
    }

    fn close(&mut self, last_key: &[u8], encoder: &mut BlockEncoder) {
        let lines = (self.hashes.len() * BITS_PER_PIECE).div_ceil(LINE_BYTES * 8).max(1);
        let mut raw = Vec::with_capacity(2 + last_key.len() + lines * LINE_BYTES);
        raw.extend((last_key.len() as u16).to_le_bytes());
        raw.extend(last_key);
        let bits_at = raw.len();
        raw.resize(bits_at + lines * LINE_BYTES, 0);
        self.hashes.drain(..).for_each(|hash| set(&mut raw[bits_at..], hash));
        self.finished.push(encoder.prepare(BlockKind::Filter, &raw).to_owned());
        self.last_hashes = [None; PIECES_MAX];
    }
}

/// The filter in memory.
#[derive(Default)]
pub(super) struct Filter {
    parts: Vec<Part>,
}

struct Part {
    last_key: Box<[u8]>,
    bits: Box<[u8]>,
}

impl Filter {
    /// Adds a part from its block's bytes; `None` if they do not fit.
    pub(super) fn extend(&mut self, raw: &[u8]) -> Option<()> {
        let mut reader = Reader::new(raw);
        let length = usize::from(reader.u16()?);
        let last_key = reader.take(length).filter(|key| key.len() <= KEY_BYTES_MAX)?;
        let bits = reader.rest();
        let ascends = self.parts.last().is_none_or(|part| *part.last_key <= *last_key);
        (ascends && !bits.is_empty() && bits.len().is_multiple_of(LINE_BYTES)).then_some(())?;
        self.parts.push(Part { last_key: last_key.into(), bits: bits.into() });
        Some(())
    }

    /// Whether the filter reaches to the segment's last key.
    pub(super) fn is_complete(&self, last_key: &[u8]) -> bool {
        self.parts.last().is_some_and(|part| *part.last_key == *last_key)
    }

    /// Whether the segment may hold a row with this key.
    pub(super) fn may_contain_key(&self, key: &[u8], filter: &KeyFilter) -> bool {
        let Some(part) = self.parts.get(self.part_of(key)) else { return false };
        let mut may_contain = true;
        (filter.pieces)(key, &mut |piece| may_contain = may_contain && test(&part.bits, xxh3_64(piece)));
        may_contain
    }

    /// Whether the segment may hold a row with this piece and a key in the range.
    pub(super) fn may_contain_piece(&self, range: &KeyRange, piece: &[u8]) -> bool {
        let hash = xxh3_64(piece);
        let from = self.part_of(&range.start);
        let to = range.end.as_ref().map_or(self.parts.len(), |end| self.part_of(end) + 1).min(self.parts.len());
        self.parts.get(from..to).unwrap_or_default().iter().any(|part| test(&part.bits, hash))
    }

    fn part_of(&self, key: &[u8]) -> usize {
        self.parts.partition_point(|part| *part.last_key < *key)
    }
}

/// Where a hash's line begins. The high half picks the line, the low half the bits in it.
fn line_at(bits: &[u8], hash: u64) -> usize {
    let lines = (bits.len() / LINE_BYTES) as u64;
    (((hash >> 32) * lines) >> 32) as usize * LINE_BYTES
}

fn word_mask(hash: u64, salt: u32) -> u32 {
    1 << ((hash as u32).wrapping_mul(salt) >> 27)
}

fn set(bits: &mut [u8], hash: u64) {
    let at = line_at(bits, hash);
    for (word, salt) in bits[at..at + LINE_BYTES].chunks_exact_mut(4).zip(SALTS) {
        word.iter_mut().zip(word_mask(hash, salt).to_le_bytes()).for_each(|(byte, mask)| *byte |= mask);
    }
}

fn test(bits: &[u8], hash: u64) -> bool {
    let at = line_at(bits, hash);
    let Some(line) = bits.get(at..at + LINE_BYTES) else { return true };
    let (words, _) = line.as_chunks::<4>();
    words.iter().zip(SALTS).all(|(word, salt)| u32::from_le_bytes(*word) & word_mask(hash, salt) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(filter: KeyFilter, keys: impl Iterator<Item = Vec<u8>>) -> Filter {
        let mut encoder = BlockEncoder::new(0);
        let mut builder = FilterBuilder::new(filter);
        let mut last = Vec::new();
        for key in keys {
            builder.add(&key, &mut encoder);
            last = key;
        }
        let mut built = Filter::default();
        for block in builder.finish(&last, &mut encoder) {
            let place = super::super::format::BlockPlace { segment: super::super::SegmentId(0), offset: 0 };
            built.extend(block.as_prepared().at(place).1).unwrap();
        }
        assert!(built.is_complete(&last));
        built
    }

    #[test]
    fn what_is_there_is_never_denied_and_what_is_not_mostly() {
        let filter = KeyFilter::WHOLE_KEYS;
        let built = build(filter, (0..200_000u32).map(|number| (number * 2).to_be_bytes().to_vec()));
        assert!(built.parts.len() > 2);
        assert!((0..200_000u32).all(|number| built.may_contain_key(&(number * 2).to_be_bytes(), &filter)));
        let false_maybes =
            (0..200_000u32).filter(|number| built.may_contain_key(&(number * 2 + 1).to_be_bytes(), &filter)).count();
        assert!(false_maybes < 4_000, "{false_maybes} of 200000");
    }

    #[test]
    fn a_common_prefix_is_one_piece_and_tells_of_its_range() {
        let filter = KeyFilter { id: 7, pieces: |key, piece| piece(&key[..4]) };
        let keys =
            (0..1000u32).flat_map(|group| (0..100u8).map(move |row| [&(group * 2).to_be_bytes()[..], &[row]].concat()));
        let built = build(filter, keys);
        assert_eq!(built.parts.len(), 1);
        assert!(built.parts[0].bits.len() < 1000 * 2);
        let known = |group: u32| built.may_contain_piece(&KeyRange::prefix(group.to_be_bytes()), &group.to_be_bytes());
        assert!((0..1000).all(|group| known(group * 2)));
        assert!((0..1000).filter(|group| known(group * 2 + 1)).count() < 40);
    }
}
