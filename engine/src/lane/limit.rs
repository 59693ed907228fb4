//! The last page of a log file: how far its generation may have been written, and where some of its batches begin.
//!
//! No batch is acknowledged that ends beyond the limit which this page gives durably for its generation. The page is written beside the batch
//! that goes beyond the old limit, and gives a new one some way ahead: one page for [`step_bytes`] of batches. What recovery finds behind the
//! limit was never acknowledged, unless the page's last write never arrived; so it looks as far as that could have allowed
//! ([`Limit::reach`]), and no further. Each time the place of that batch is kept as a landmark, so that
//! recovery can begin where what segments hold ends, not at the file's beginning.
//!
//! Whoever finds no page, a broken one or another generation's knows nothing: then all of the file is read, as before there were limits.
//!
//! Must not do: I/O.

use crate::{
    bytes::Reader,
    lane::format::{BATCH_BYTES_LIMIT, Header},
    seams::{AlignedBuffer, PAGE_BYTES},
};

const MAGIC: [u8; 8] = *b"ANTILIM\n";
/// Version 1 does not say how far the next limit may go.
const VERSION: u16 = 2;
/// Bytes before the landmarks.
const HEADER_BYTES: usize = 56;
const LANDMARK_BYTES: usize = 16;

/// Most landmarks: a file takes about [`STEPS`] of them and one for each start, and what has no landmark is read from the one before.
pub(crate) const LANDMARKS_MAX: usize = 128;

/// Steps that a file is written in.
const STEPS: u64 = 64;

/// Longest step: what recovery reads for nothing grows with it, and a page for so many bytes costs no throughput.
const STEP_BYTES_MAX: u64 = 1024 * 1024;

/// How far the next limit could go beyond one of version 1: a batch of any length, and a step as long as they were then.
const BEYOND_OF_VERSION_1: u64 = BATCH_BYTES_LIMIT as u64 + 4 * 1024 * 1024;

/// How far a new limit is ahead of the batch that needed it, in a file of `file_bytes`.
pub(crate) fn step_bytes(file_bytes: u64) -> u64 {
    let page = PAGE_BYTES as u64;
    ((file_bytes / STEPS).min(STEP_BYTES_MAX) / page * page).max(page)
}

/// Where a batch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Landmark {
    pub(crate) offset: u64,
    /// Position of its first record.
    pub(crate) first: u64,
}

/// What a file's last page says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Limit {
    /// No batch that was acknowledged ends beyond this offset; 0 if nothing was said yet.
    pub(crate) end: u64,
    /// How far behind it the next one may be: a batch that goes beyond this one, and a step.
    pub(crate) beyond: u64,
    /// Ascending by offset.
    pub(crate) landmarks: Vec<Landmark>,
}

impl Limit {
    /// Moves it, for a batch from `at` to `end` in a file that has room for batches up to `room`; none is longer than `batch_bytes_max`.
    pub(crate) fn extend(&mut self, at: Landmark, end: u64, room: u64, step: u64, batch_bytes_max: u64) {
        self.end = end.saturating_add(step).min(room);
        self.beyond = batch_bytes_max.saturating_add(step);
        if self.landmarks.len() < LANDMARKS_MAX && self.landmarks.last().is_none_or(|last| last.offset < at.offset) {
            self.landmarks.push(at);
        }
    }

    /// Where nothing acknowledged can be any more in a file of `file_bytes`, though the page may be one write old.
    pub(crate) fn reach(&self, file_bytes: u64) -> u64 {
        let next = self.end.saturating_add(self.beyond);
        next.min(file_bytes)
    }

    /// The last batch with a landmark of which segments hold something, so that it was durable once; they hold records up to `flushed`.
    pub(crate) fn begin(&self, flushed: u64) -> Option<Landmark> {
        self.landmarks.iter().rev().find(|landmark| landmark.first <= flushed).copied()
    }

    /// What is known of it when the file is gone on with at `offset`: where batches begin, but no limit, since the page that was read
    /// may not be durable.
    pub(crate) fn gone_on_with(mut self, offset: u64) -> Self {
        self.landmarks.retain(|landmark| landmark.offset < offset);
        (self.end, self.beyond) = (0, 0);
        self
    }

    /// The page that says so, of the file which a batch of this header goes to.
    pub(crate) fn encode(&self, header: &Header) -> AlignedBuffer {
        let mut page = AlignedBuffer::zeroed(PAGE_BYTES);
        let length = HEADER_BYTES + self.landmarks.len() * LANDMARK_BYTES;
        page[..8].copy_from_slice(&MAGIC);
        page[8..10].copy_from_slice(&VERSION.to_le_bytes());
        page[10..12].copy_from_slice(&header.lane.to_le_bytes());
        page[12..16].copy_from_slice(&(length as u32).to_le_bytes());
        page[20..24].copy_from_slice(&u32::try_from(self.beyond).unwrap_or(u32::MAX).to_le_bytes());
        page[24..32].copy_from_slice(&header.salt.to_le_bytes());
        page[32..40].copy_from_slice(&header.generation.to_le_bytes());
        page[40..48].copy_from_slice(&self.end.to_le_bytes());
        page[48..52].copy_from_slice(&(self.landmarks.len() as u32).to_le_bytes());
        for (place, landmark) in page[HEADER_BYTES..].chunks_exact_mut(LANDMARK_BYTES).zip(&self.landmarks) {
            place[..8].copy_from_slice(&landmark.offset.to_le_bytes());
            place[8..].copy_from_slice(&landmark.first.to_le_bytes());
        }
        let checksum = checksum_of(&page[..length]);
        page[16..20].copy_from_slice(&checksum.to_le_bytes());
        page
    }

    /// What a page says, and of which generation, if it is one of this lane's.
    pub(crate) fn decode(page: &[u8], lane: u16, salt: u64) -> Option<(u64, Self)> {
        let mut reader = Reader::new(page);
        let is_limit = reader.array() == Some(MAGIC);
        let version = reader.u16().filter(|version| is_limit && (1..=VERSION).contains(version))?;
        let length = reader.u16().filter(|of| *of == lane).and_then(|_| reader.u32())? as usize;
        let checksum = reader.u32()?;
        let whole = page.get(..length).filter(|whole| whole.len() >= HEADER_BYTES)?;
        let beyond = u64::from(reader.u32()?);
        if checksum_of(whole) != checksum || reader.u64()? != salt || (version == 1 && beyond != 0) {
            return None;
        }
        let beyond = if version == 1 { BEYOND_OF_VERSION_1 } else { beyond };
        let (generation, end, count) = (reader.u64()?, reader.u64()?, reader.u32()? as usize);
        if reader.u32()? != 0 || count > LANDMARKS_MAX || length != HEADER_BYTES + count * LANDMARK_BYTES {
            return None;
        }
        let mut landmarks = Vec::with_capacity(count);
        for _ in 0..count {
            landmarks.push(Landmark { offset: reader.u64()?, first: reader.u64()? });
        }
        let page_bytes = PAGE_BYTES as u64;
        let ascends = landmarks.is_sorted_by(|one, next| one.offset < next.offset && one.first <= next.first);
        let fits = landmarks.iter().all(|of| of.offset.is_multiple_of(page_bytes) && of.offset < end);
        (ascends && fits && end.is_multiple_of(page_bytes)).then_some((generation, Self { end, beyond, landmarks }))
    }
}

fn checksum_of(page: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&page[..16]), &page[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: usize = HEADER_BYTES + 2 * LANDMARK_BYTES;

    fn limit() -> Limit {
        let landmarks = vec![Landmark { offset: 0, first: 9 }, Landmark { offset: 0x3000, first: 12 }];
        Limit { end: 0x8000, beyond: 0x0050_6000, landmarks }
    }

    fn golden() -> AlignedBuffer {
        limit().encode(&Header { lane: 1, chain: 0xaabb_ccdd, salt: 5, generation: 6, first: 9, records: 1 })
    }

    #[test]
    fn version_one_is_read_and_goes_as_far_as_it_may_have() {
        let mut page = golden();
        page[8] = 1;
        page[20..24].fill(0);
        page[16..20].copy_from_slice(&0x26f4_8f56_u32.to_le_bytes());
        let (generation, read) = Limit::decode(&page, 1, 5).unwrap();
        assert_eq!((generation, read.end, read.beyond), (6, 0x8000, 8 << 20));
        assert_eq!(read.landmarks, limit().landmarks);
    }

    #[test]
    fn version_two_has_these_bytes() {
        let page = golden();
        let text: String = page[..LENGTH].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(text, GOLDEN);
        assert!(page.len() == PAGE_BYTES && page[LENGTH..].iter().all(|byte| *byte == 0));
        assert_eq!(Limit::decode(&page, 1, 5), Some((6, limit())));
    }

    const GOLDEN: &str = concat!(
        "414e54494c494d0a0200010058000000",
        "91ad7350006050000500000000000000",
        "060000000000000000800000000000000200000000000000",
        "00000000000000000900000000000000",
        "00300000000000000c00000000000000",
    );

    #[test]
    fn a_page_that_is_not_as_it_was_written_says_nothing() {
        let page = golden();
        for bit in 0..LENGTH * 8 {
            let mut bad = page.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Limit::decode(&bad, 1, 5), None, "bit {bit}");
        }
        assert_eq!(Limit::decode(&page, 2, 5), None, "another lane's");
        assert_eq!(Limit::decode(&page, 1, 6), None, "another store's");
        assert_eq!(Limit::decode(&page[..LENGTH - 1], 1, 5), None);
    }

    #[test]
    fn the_limit_is_ahead_and_within_the_file() {
        let mut limit = Limit::default();
        let step = step_bytes(1 << 20);
        limit.extend(Landmark { offset: 0, first: 1 }, 0x2000, 0xff000, step, 0x10000);
        assert_eq!(limit.end, 0x2000 + (1 << 14));
        assert_eq!(limit.reach(64 << 20), 0x2000 + 2 * (1 << 14) + 0x10000, "a batch and a step");
        assert_eq!(limit.reach(1 << 15), 1 << 15);
        limit.extend(Landmark { offset: 0xf0000, first: 7 }, 0xfc000, 0xff000, step, 0x10000);
        assert_eq!(limit.end, 0xff000);
        assert_eq!(limit.begin(6), Some(Landmark { offset: 0, first: 1 }));
        assert_eq!(limit.begin(7), Some(Landmark { offset: 0xf0000, first: 7 }));
        assert_eq!(limit.begin(0), None);
        limit.extend(Landmark { offset: 0xf8000, first: 8 }, 0xff000, 0xff000, step, 0x10000);
        assert_eq!(limit.landmarks.len(), 3);
        // Neither the batch there, which is another now, nor any behind it.
        assert_eq!(
            limit.gone_on_with(0xf0000),
            Limit { landmarks: vec![Landmark { offset: 0, first: 1 }], ..Limit::default() }
        );
        assert_eq!((step_bytes(64 << 20), step_bytes(1 << 30), step_bytes(0)), (1 << 20, 1 << 20, 4096));
    }
}
