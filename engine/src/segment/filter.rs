//! A filter tells without a disk read that a segment cannot hold something.
//!
//! It is a table of fingerprints, 24 bits of each piece's hash, in buckets that the hash picks, about [`BUCKET_PIECES`] each: a false
//! "maybe" for one test in a million, at 25 bits a piece. That seldom, because a message whose id *may* be known waits for a disk read
//! in every run that says so, and takes its conversation out of the batch; a Bloom filter of the same size errs seventy times as often.
//! A test reads one bucket's end and the bucket, two cache lines. Hashes are XXH3-64.
//!
//! Of a filter that is in memory as a whole, 16 bits of each fingerprint are: those are of conversations and users, which are asked once a page
//! or a load, and a false "maybe" for one test in four thousand costs one read. It is most of what a cold conversation takes in memory, in each
//! segment that knows it.
//!
//! A filter is cut into parts by key, each with its own table, so that a writer needs memory for one part's hashes only, whatever
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

/// Pieces in a bucket, on average: the low halves of their fingerprints are half a cache line.
const BUCKET_PIECES: usize = 16;

/// A part is closed when it has so many pieces; ends of buckets have two bytes. 190 KiB, and 480 KiB of hashes while it is made.
const PART_PIECES: usize = 60_000;

/// The same for a filter that is read in parts: 62 KiB, a cheap read where a part is not in memory.
const PAGED_PART_PIECES: usize = 20_000;

/// Hashes of a key's pieces, made once for all segments that are asked.
#[derive(Default)]
pub(crate) struct KeyHashes {
    hashes: [u64; PIECES_MAX],
    count: usize,
    /// By which choice of pieces.
    filter: u32,
}

impl KeyHashes {
    pub(super) fn new(key: &[u8], filter: &KeyFilter) -> Self {
        let mut new = Self { filter: filter.id, ..Self::default() };
        (filter.pieces)(key, &mut |piece| {
            assert!(new.count < PIECES_MAX, "a key has too many pieces");
            new.hashes[new.count] = xxh3_64(piece);
            new.count += 1;
        });
        new
    }

    fn as_slice(&self) -> &[u64] {
        &self.hashes[..self.count]
    }

    /// By which choice of pieces they were made.
    pub(super) fn filter(&self) -> u32 {
        self.filter
    }
}

/// Collects the filter while rows are written.
pub(super) struct FilterBuilder {
    filter: KeyFilter,
    part_pieces: usize,
    hashes: Vec<u64>,
    last_hashes: [Option<u64>; PIECES_MAX],
    table: Table,
    finished: Vec<(Vec<u8>, OwnedBlock)>,
}

impl FilterBuilder {
    pub(super) fn new(filter: KeyFilter, is_paged: bool) -> Self {
        let (hashes, table) = (Vec::new(), Table::default());
        let part_pieces = if is_paged { PAGED_PART_PIECES } else { PART_PIECES };
        Self { filter, part_pieces, hashes, last_hashes: [None; PIECES_MAX], table, finished: Vec::new() }
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
        if self.hashes.len() >= self.part_pieces {
            self.close(key, encoder);
        }
    }

    /// The parts, each with its last key.
    pub(super) fn finish(mut self, last_key: &[u8], encoder: &mut BlockEncoder) -> Vec<(Vec<u8>, OwnedBlock)> {
        // The last part must reach to the last key, or keys after the part before would count as absent; even with no pieces.
        let is_reached = self.finished.last().is_some_and(|(key, _)| key == last_key);
        if self.filter.id != 0 && !is_reached {
            self.close(last_key, encoder);
        }
        self.finished
    }

    fn close(&mut self, last_key: &[u8], encoder: &mut BlockEncoder) {
        self.table.fill(&self.hashes);
        self.hashes.clear();
        let table = &self.table;
        let mut raw = Vec::with_capacity(6 + last_key.len() + 2 * table.ends.len() + 3 * table.low.len());
        raw.extend((last_key.len() as u16).to_le_bytes());
        raw.extend(last_key);
        raw.extend((table.low.len() as u32).to_le_bytes());
        raw.extend(table.ends.iter().flat_map(|end| end.to_le_bytes()));
        raw.extend(table.low.iter().flat_map(|low| low.to_le_bytes()));
        raw.extend(&table.high);
        self.finished.push((last_key.to_vec(), encoder.prepare(BlockKind::Filter, &raw).to_owned()));
        self.last_hashes = [None; PIECES_MAX];
    }
}

/// The filter in memory.
#[derive(Default)]
pub(super) struct Filter {
    /// The first bytes of the parts' last keys, see [`key_head`]: a search among many parts stays in a few cache lines.
    heads: Vec<u128>,
    parts: Vec<Part>,
}

struct Part {
    last_key: Box<[u8]>,
    ends: Box<[u16]>,
    low: Box<[u16]>,
}

impl Part {
    fn may_hold(&self, hash: u64) -> bool {
        let bucket = bucket_of(hash, self.ends.len());
        let begin = bucket.checked_sub(1).map_or(0, |before| usize::from(self.ends[before]));
        let low = &self.low[begin..usize::from(self.ends[bucket])];
        // Told from all at once: most often none is alike, and a loop without an exit is a few vector instructions.
        low.iter().fold(false, |alike, low| alike | (*low == hash as u16))
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + self.last_key.len() + 2 * (self.ends.len() + self.low.len())
    }
}

impl Filter {
    /// Adds a part from its block's bytes; `None` if they do not fit.
    pub(super) fn extend(&mut self, raw: &[u8]) -> Option<()> {
        let (last_key, mut reader) = split_part(raw)?;
        let Table { ends, low, .. } = Table::decode(&mut reader)?;
        self.parts.last().is_none_or(|part| *part.last_key <= *last_key).then_some(())?;
        self.heads.push(key_head(last_key));
        self.parts.push(Part { last_key: last_key.into(), ends: ends.into(), low: low.into() });
        Some(())
    }

    /// Bytes of memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        self.parts.iter().map(|part| size_of::<u128>() + part.bytes()).sum()
    }

    /// Whether the filter reaches to the segment's last key.
    pub(super) fn is_complete(&self, last_key: &[u8]) -> bool {
        self.parts.last().is_some_and(|part| *part.last_key == *last_key)
    }

    /// Whether the segment may hold a row with this key, whose pieces have these hashes.
    pub(super) fn may_contain_key(&self, key: &[u8], hashes: &KeyHashes) -> bool {
        let Some(part) = self.parts.get(self.part_of(key)) else { return false };
        // The last piece is the most telling one: a conversation is in most segments, a message in one.
        hashes.as_slice().iter().rev().all(|hash| part.may_hold(*hash))
    }

    /// Whether the segment may hold a row with this piece and a key in the range.
    pub(super) fn may_contain_piece(&self, range: &KeyRange, piece: &[u8]) -> bool {
        let hash = xxh3_64(piece);
        let from = self.part_of(&range.start);
        let to = range.end.as_ref().map_or(self.parts.len(), |end| self.part_of(end) + 1).min(self.parts.len());
        self.parts.get(from..to).unwrap_or_default().iter().any(|part| part.may_hold(hash))
    }

    fn part_of(&self, key: &[u8]) -> usize {
        let head = key_head(key);
        let first = self.heads.partition_point(|other| *other < head);
        let alike = self.heads[first..].iter().take_while(|other| **other == head).count();
        first + self.parts[first..first + alike].partition_point(|part| *part.last_key < *key)
    }
}

/// A part's last key, and what follows it.
fn split_part(raw: &[u8]) -> Option<(&[u8], Reader<'_>)> {
    let mut reader = Reader::new(raw);
    let length = usize::from(reader.u16()?);
    let last_key = reader.take(length).filter(|key| key.len() <= KEY_BYTES_MAX)?;
    Some((last_key, reader))
}

/// Checks a part of a paged filter as a whole, once, before [`part_may_hold`] is asked; `None` if it does not have its form or ends with
/// another key.
pub(super) fn check_part(raw: &[u8], last_key: &[u8]) -> Option<()> {
    let (key, mut reader) = split_part(raw)?;
    (key == last_key).then_some(())?;
    Table::decode(&mut reader).map(drop)
}

/// Whether a part, as it is stored, may hold a key whose pieces have these hashes. `true` for bytes that are not a part.
pub(super) fn part_may_hold(raw: &[u8], hashes: &KeyHashes) -> bool {
    let Some((pieces, content)) =
        split_part(raw).and_then(|(_, mut reader)| Some((reader.u32()? as usize, reader.rest())))
    else {
        return true;
    };
    let buckets = bucket_count(pieces);
    let hold = |hash: u64| -> Option<bool> {
        let (ends, fingerprints) = content.as_chunks::<2>().0.split_at_checked(buckets)?;
        let end_of = |bucket: usize| Some(usize::from(u16::from_le_bytes(*ends.get(bucket)?)));
        let bucket = bucket_of(hash, buckets);
        let (begin, end) = (bucket.checked_sub(1).map_or(Some(0), end_of)?, end_of(bucket)?);
        let high = content.get(2 * (buckets + pieces)..)?;
        let low = fingerprints.get(begin..end)?.iter().map(|low| u16::from_le_bytes(*low));
        Some(low.zip(high.get(begin..end)?).any(|(low, high)| low == hash as u16 && *high == (hash >> 16) as u8))
    };
    hashes.as_slice().iter().rev().all(|hash| hold(*hash).unwrap_or(true))
}

/// The first 16 bytes of a key as a number that orders as the key does, as far as it goes.
fn key_head(key: &[u8]) -> u128 {
    let mut head = [0; 16];
    let length = key.len().min(16);
    head[..length].copy_from_slice(&key[..length]);
    u128::from_be_bytes(head)
}

/// The fingerprints of a part. The high half of a hash picks the bucket, its low 24 bits are the fingerprint.
#[derive(Default)]
struct Table {
    /// Where each bucket ends; it begins where the one before ends.
    ends: Vec<u16>,
    /// The low 16 bits of fingerprints, bucket by bucket.
    low: Vec<u16>,
    /// The high 8 bits, in the same order.
    high: Vec<u8>,
}

impl Table {
    /// Takes these hashes in, and nothing else.
    fn fill(&mut self, hashes: &[u64]) {
        let buckets = bucket_count(hashes.len());
        self.ends.clear();
        self.ends.resize(buckets, 0);
        self.low.resize(hashes.len(), 0);
        self.high.resize(hashes.len(), 0);
        for hash in hashes {
            self.ends[bucket_of(*hash, buckets)] += 1;
        }
        let mut end = 0;
        for bucket in &mut self.ends {
            // The beginning for now: it moves to the end while the bucket is filled.
            end += std::mem::replace(bucket, end);
        }
        for hash in hashes {
            let place = &mut self.ends[bucket_of(*hash, buckets)];
            self.low[usize::from(*place)] = *hash as u16;
            self.high[usize::from(*place)] = (*hash >> 16) as u8;
            *place += 1;
        }
    }

    /// Takes all that is left to read; `None` if it does not fit.
    fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let pieces = reader.u32()? as usize;
        (pieces <= usize::from(u16::MAX)).then_some(())?;
        let mut numbers = |count: usize| {
            let (bytes, _) = reader.take(2 * count)?.as_chunks::<2>();
            Some(bytes.iter().map(|bytes| u16::from_le_bytes(*bytes)).collect::<Vec<_>>())
        };
        let (ends, low) = (numbers(bucket_count(pieces))?, numbers(pieces)?);
        let high = reader.take(pieces)?.to_vec();
        let fits =
            reader.rest().is_empty() && ends.is_sorted() && ends.last().copied().map(usize::from) == Some(pieces);
        fits.then_some(Self { ends, low, high })
    }
}

fn bucket_count(pieces: usize) -> usize {
    pieces.div_ceil(BUCKET_PIECES).max(1)
}

fn bucket_of(hash: u64, buckets: usize) -> usize {
    (((hash >> 32) * buckets as u64) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(filter: KeyFilter, keys: impl Iterator<Item = Vec<u8>>) -> Filter {
        let mut encoder = BlockEncoder::new(0);
        let mut builder = FilterBuilder::new(filter, false);
        let mut last = Vec::new();
        for key in keys {
            builder.add(&key, &mut encoder);
            last = key;
        }
        let mut built = Filter::default();
        for (_, block) in builder.finish(&last, &mut encoder) {
            let place = super::super::format::BlockPlace { segment: super::super::SegmentId(0), offset: 0 };
            built.extend(block.as_prepared().at(place).1).unwrap();
        }
        assert!(built.is_complete(&last));
        built
    }

    #[test]
    fn what_is_there_is_never_denied_and_what_is_not_mostly() {
        let filter = KeyFilter::WHOLE_KEYS;
        let holds = |built: &Filter, number: u32| {
            let key = number.to_be_bytes();
            built.may_contain_key(&key, &KeyHashes::new(&key, &filter))
        };
        let built = build(filter, (0..200_000u32).map(|number| (number * 2).to_be_bytes().to_vec()));
        assert!(built.parts.len() > 2);
        assert!((0..200_000u32).all(|number| holds(&built, number * 2)));
        let false_maybes = (0..1_000_000u32).filter(|number| holds(&built, number * 2 + 1)).count();
        assert!((1..200).contains(&false_maybes), "{false_maybes} of 1000000");
    }

    #[test]
    fn a_part_as_it_is_stored_answers_as_one_that_is_held() {
        let filter = KeyFilter::WHOLE_KEYS;
        let mut encoder = BlockEncoder::new(0);
        let mut builder = FilterBuilder::new(filter, true);
        let keys = (0..50_000u32).map(|number| (number * 2).to_be_bytes());
        keys.clone().for_each(|key| builder.add(&key, &mut encoder));
        let last = 99_998u32.to_be_bytes();
        let place = super::super::format::BlockPlace { segment: super::super::SegmentId(0), offset: 0 };
        let mut begin = 0;
        let parts = builder.finish(&last, &mut encoder);
        assert_eq!(parts.len(), 3);
        for (last_key, block) in parts {
            let raw = block.as_prepared().at(place).1.to_vec();
            assert_eq!(check_part(&raw, &last_key), Some(()));
            assert_eq!(check_part(&raw, b"other"), None);
            assert_eq!(check_part(&raw[..raw.len() - 1], &last_key), None);
            let end = u32::from_be_bytes(last_key.try_into().unwrap());
            let holds = |number: u32| part_may_hold(&raw, &KeyHashes::new(&number.to_be_bytes(), &filter));
            assert!((begin..=end).step_by(2).all(holds));
            assert!((begin + 1..end).step_by(2).filter(|number| holds(*number)).count() < 3);
            for cut in 0..raw.len() {
                // Arbitrary bytes may be believed to hold anything, and never fail.
                part_may_hold(&raw[..cut], &KeyHashes::new(&begin.to_be_bytes(), &filter));
            }
            begin = end + 2;
        }
    }

    #[test]
    fn a_common_prefix_is_one_piece_and_tells_of_its_range() {
        let filter = KeyFilter::new(7, |key, piece| piece(&key[..4]));
        let keys =
            (0..1000u32).flat_map(|group| (0..100u8).map(move |row| [&(group * 2).to_be_bytes()[..], &[row]].concat()));
        let built = build(filter, keys);
        assert_eq!(built.parts.len(), 1);
        assert_eq!(built.parts[0].low.len(), 1000);
        let known = |group: u32| built.may_contain_piece(&KeyRange::prefix(group.to_be_bytes()), &group.to_be_bytes());
        assert!((0..1000).all(|group| known(group * 2)));
        assert!((0..1000).filter(|group| known(group * 2 + 1)).count() < 2);
    }

    #[test]
    fn a_piece_whose_rows_lie_in_two_parts_is_in_both() {
        let pieces = |key: &[u8], piece: &mut dyn FnMut(&[u8])| {
            piece(key);
            piece(&key[..1]);
        };
        let built =
            build(KeyFilter::new(7, pieces), (0..100_000u32).map(|row| [&[5][..], &row.to_be_bytes()].concat()));
        assert_eq!(built.parts.len(), 2);
        let from = |row: u32| [&[5][..], &row.to_be_bytes()].concat();
        assert!(built.may_contain_piece(&KeyRange::new(from(0), from(10)), &[5]));
        assert!(built.may_contain_piece(&KeyRange::new(from(90_000), from(90_010)), &[5]));
    }
}
