//! Seeded randomness of a run. Every part of the world has dice of its own, so that a fault left out does not change the rest more
//! than it must.

use antiphon_engine::{memory_files::MemoryRandom, seams::Random};

/// A sequence of random numbers that repeats by seed.
#[derive(Debug, Clone)]
pub struct Dice {
    random: MemoryRandom,
}

impl Dice {
    /// The dice of one purpose in the run of one seed.
    #[must_use]
    pub fn new(seed: u64, purpose: &str) -> Self {
        let mut mixed = seed ^ 0x5851_f42d_4c95_7f2d;
        for byte in purpose.bytes() {
            mixed = (mixed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
        }
        Self { random: MemoryRandom::new(mixed) }
    }

    /// Any number.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.random.next()
    }

    /// A number below `bound`; 0 if the bound is 0.
    #[must_use]
    pub fn below(&self, bound: u64) -> u64 {
        self.random.below(bound)
    }

    /// An index below `length`, which is not 0.
    #[must_use]
    pub fn index(&self, length: usize) -> usize {
        self.below(length as u64) as usize
    }

    /// A number from `least` to `most`, both included.
    #[must_use]
    pub fn between(&self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    /// True so many times in a thousand.
    #[must_use]
    pub fn chance(&self, per_thousand: u64) -> bool {
        self.below(1_000) < per_thousand
    }

    /// One of several.
    #[must_use]
    pub fn pick<T: Copy>(&self, of: &[T]) -> T {
        of[self.index(of.len())]
    }

    /// A duration: mostly near the middle of its range, now and then ten times as long.
    #[must_use]
    pub fn delay_us(&self, most_us: u64) -> u64 {
        let usual = self.below(most_us.max(1)) + 1;
        if self.chance(30) { usual * 10 } else { usual }
    }
}
