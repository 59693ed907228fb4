//! Hashing of ids that clients choose: xxh3 under a seed that is the store's secret, so that nobody outside can make ids collide.
//!
//! Must not do: decide an order. Nothing iterates over a map of these hashes where the order could be seen.

use std::hash::{BuildHasher, Hasher};

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Makes [`IdHasher`]s of one seed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IdHash(pub(crate) u64);

impl BuildHasher for IdHash {
    type Hasher = IdHasher;
    fn build_hasher(&self) -> IdHasher {
        IdHasher(self.0)
    }
}

/// Chains xxh3 over what is written.
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    fn write_u8(&mut self, number: u8) {
        self.0 = self.0.rotate_left(8) ^ u64::from(number);
    }

    /// Lengths of arrays and slices: constant for the ids here, so they add nothing.
    fn write_usize(&mut self, number: usize) {
        self.0 = self.0.rotate_left(8) ^ number as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
