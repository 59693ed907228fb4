//! Decompressed blocks in memory, under a byte limit.
//!
//! The algorithm is S3-FIFO (Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023): a block enters a small
//! queue and reaches the large one only if it is asked for again before it would leave, or soon after; so a scan over cold history
//! passes through a tenth of the cache and leaves the rest alone.
//!
//! Invariants: the bytes counted are those of the blocks held, and never more than the limit. No clock and no random hashing: the
//! same calls give the same evictions.

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet, VecDeque},
    hash::{BuildHasherDefault, Hasher},
    rc::Rc,
};

use crate::segment::SegmentId;

/// What each cached block costs beyond its bytes, roughly: its entries in the map and in a queue.
const BLOCK_OVERHEAD_BYTES: usize = 96;

/// Share of the limit that new blocks live in until they are asked for again.
const SMALL_SHARE: usize = 10;

/// How often a use is counted; more makes eviction slower, not better (section 4.1 of the paper).
const USES_MAX: u8 = 3;

/// A cache of decompressed blocks. Cloning gives another handle on the same cache; one serves all segments of a shard.
#[derive(Clone)]
pub struct Cache {
    inner: Rc<RefCell<Inner>>,
}

/// What a cache did and holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheStatistics {
    /// Blocks asked for and found.
    pub hits: u64,
    /// Blocks asked for and not found.
    pub misses: u64,
    /// Blocks put in.
    pub insertions: u64,
    /// Blocks pushed out by others.
    pub evictions: u64,
    /// Blocks held.
    pub blocks: usize,
    /// Bytes held, overhead included.
    pub bytes: usize,
    /// The limit.
    pub bytes_max: usize,
}

impl Cache {
    /// An empty cache that holds at most `bytes_max`.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        let inner = Inner { bytes_max, ..Inner::default() };
        Self { inner: Rc::new(RefCell::new(inner)) }
    }

    /// The block, if it is held; counts a hit or a miss.
    #[must_use]
    pub fn get(&self, segment: SegmentId, block: u32) -> Option<Rc<[u8]>> {
        self.inner.borrow_mut().get(BlockKey { segment, block })
    }

    /// Puts a block in, and others out to stay under the limit. A block larger than the small queue is not taken.
    pub fn insert(&self, segment: SegmentId, block: u32, bytes: &Rc<[u8]>) {
        self.inner.borrow_mut().insert(BlockKey { segment, block }, Rc::clone(bytes));
    }

    /// Drops all blocks of a segment that is gone.
    pub fn forget(&self, segment: SegmentId) {
        self.inner.borrow_mut().forget(segment);
    }

    /// What the cache did and holds.
    #[must_use]
    pub fn statistics(&self) -> CacheStatistics {
        let inner = self.inner.borrow();
        CacheStatistics {
            blocks: inner.held.len(),
            bytes: inner.small.bytes + inner.main.bytes,
            bytes_max: inner.bytes_max,
            ..inner.counts
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct BlockKey {
    segment: SegmentId,
    block: u32,
}

/// Multiplies and folds, enough for ids that we number ourselves; and the same in every run, unlike the standard hasher.
#[derive(Default)]
struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        let product = u128::from(self.0 ^ number ^ 0x243f_6a88_85a3_08d3) * 0x9e37_79b9_7f4a_7c15;
        self.0 = (product >> 64) as u64 ^ product as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

type NumberHash = BuildHasherDefault<NumberHasher>;

struct Held {
    bytes: Rc<[u8]>,
    uses: u8,
    in_main: bool,
}

/// A queue's keys may name blocks that were forgotten meanwhile; they are skipped when their turn comes.
#[derive(Default)]
struct Queue {
    keys: VecDeque<BlockKey>,
    bytes: usize,
}

#[derive(Default)]
struct Inner {
    bytes_max: usize,
    held: HashMap<BlockKey, Held, NumberHash>,
    small: Queue,
    main: Queue,
    /// Keys that lately left the small queue unused; who is asked for again from here goes to the main queue at once.
    ghosts: VecDeque<BlockKey>,
    ghost_set: HashSet<BlockKey, NumberHash>,
    counts: CacheStatistics,
}

impl Inner {
    fn get(&mut self, key: BlockKey) -> Option<Rc<[u8]>> {
        match self.held.get_mut(&key) {
            Some(held) => {
                held.uses = (held.uses + 1).min(USES_MAX);
                self.counts.hits += 1;
                Some(Rc::clone(&held.bytes))
            }
            None => {
                self.counts.misses += 1;
                None
            }
        }
    }

    fn insert(&mut self, key: BlockKey, bytes: Rc<[u8]>) {
        let cost = cost(&bytes);
        if cost > self.small_bytes_max() || self.held.contains_key(&key) {
            return;
        }
        while self.small.bytes + self.main.bytes + cost > self.bytes_max {
            self.evict();
        }
        let in_main = self.ghost_set.remove(&key);
        let queue = if in_main { &mut self.main } else { &mut self.small };
        queue.keys.push_back(key);
        queue.bytes += cost;
        self.held.insert(key, Held { bytes, uses: 0, in_main });
        self.counts.insertions += 1;
    }

    fn small_bytes_max(&self) -> usize {
        self.bytes_max / SMALL_SHARE
    }

    /// Moves one block on or out. Terminates, as each call takes a key from a queue or a use from a block.
    fn evict(&mut self) {
        if self.small.bytes > self.small_bytes_max() || self.main.keys.is_empty() {
            self.evict_from_small();
        } else {
            self.evict_from_main();
        }
    }

    fn evict_from_small(&mut self) {
        let Some(key) = self.small.keys.pop_front() else { return };
        let Some(held) = self.held.get_mut(&key).filter(|held| !held.in_main) else { return };
        let cost = cost(&held.bytes);
        self.small.bytes -= cost;
        if held.uses > 0 {
            held.uses = 0;
            held.in_main = true;
            self.main.keys.push_back(key);
            self.main.bytes += cost;
            return;
        }
        self.held.remove(&key);
        self.counts.evictions += 1;
        if self.ghost_set.insert(key) {
            self.ghosts.push_back(key);
        }
        // As many ghosts as there are blocks: what the paper found to be enough.
        while self.ghosts.len() > self.held.len() + 1 {
            if let Some(ghost) = self.ghosts.pop_front() {
                self.ghost_set.remove(&ghost);
            }
        }
    }

    fn evict_from_main(&mut self) {
        let Some(key) = self.main.keys.pop_front() else { return };
        let Some(held) = self.held.get_mut(&key).filter(|held| held.in_main) else { return };
        if held.uses > 0 {
            held.uses -= 1;
            self.main.keys.push_back(key);
            return;
        }
        self.main.bytes -= cost(&held.bytes);
        self.held.remove(&key);
        self.counts.evictions += 1;
    }

    fn forget(&mut self, segment: SegmentId) {
        let (small, main) = (&mut self.small, &mut self.main);
        self.held.retain(|key, held| {
            if key.segment != segment {
                return true;
            }
            let queue = if held.in_main { &mut *main } else { &mut *small };
            queue.bytes -= cost(&held.bytes);
            false
        });
        self.small.keys.retain(|key| key.segment != segment);
        self.main.keys.retain(|key| key.segment != segment);
        self.ghosts.retain(|key| key.segment != segment);
        self.ghost_set.retain(|key| key.segment != segment);
    }
}

fn cost(bytes: &Rc<[u8]>) -> usize {
    bytes.len() + BLOCK_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: usize = 1000 - BLOCK_OVERHEAD_BYTES;

    fn block() -> Rc<[u8]> {
        Rc::from(vec![7; BLOCK])
    }

    fn read(cache: &Cache, segment: u64, number: u32) -> bool {
        let found = cache.get(SegmentId(segment), number).is_some();
        if !found {
            cache.insert(SegmentId(segment), number, &block());
        }
        found
    }

    fn read_all(cache: &Cache, numbers: std::ops::Range<u32>, segment: impl Fn(u32) -> u64) {
        for number in numbers {
            read(cache, segment(number), number);
        }
    }

    #[test]
    fn a_scan_leaves_what_is_used_in_place() {
        let cache = Cache::new(100_000);
        for _ in 0..3 {
            read_all(&cache, 0..50, |_| 1);
        }
        read_all(&cache, 0..10_000, |_| 2);
        let kept = (0..50).filter(|number| read(&cache, 1, *number)).count();
        assert!(kept >= 45, "{kept} of 50 kept");
        assert!(cache.statistics().bytes <= 100_000);
        assert_eq!(cache.statistics().bytes, cache.statistics().blocks * 1000);
    }

    #[test]
    fn a_forgotten_segment_holds_no_bytes() {
        let cache = Cache::new(100_000);
        read_all(&cache, 0..80, |number| u64::from(number % 2));
        read_all(&cache, 0..80, |number| u64::from(number % 2));
        cache.forget(SegmentId(0));
        cache.forget(SegmentId(1));
        assert_eq!(cache.statistics().bytes, 0);
        assert_eq!(cache.statistics().blocks, 0);
        read_all(&cache, 0..500, |_| 3);
        assert!(cache.statistics().bytes <= 100_000);
    }

    #[test]
    fn a_block_beyond_the_small_queue_is_not_taken() {
        let cache = Cache::new(5_000);
        cache.insert(SegmentId(1), 0, &block());
        assert_eq!(cache.statistics().blocks, 0);
    }
}
