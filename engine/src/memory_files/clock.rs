//! A clock and a random source that tests set.

use std::{cell::Cell, rc::Rc};

use antiphon_wire::ids::TimestampMs;

use crate::seams::{Clock, Random};

/// A clock that stands until it is moved. Cloning gives another handle on the same clock.
#[derive(Debug, Clone)]
pub struct MemoryClock {
    now: Rc<Cell<u64>>,
}

impl MemoryClock {
    /// A clock that shows `now_ms`.
    #[must_use]
    pub fn new(now_ms: u64) -> Self {
        Self { now: Rc::new(Cell::new(now_ms)) }
    }

    /// Sets the clock, forwards or back.
    pub fn set(&self, now_ms: u64) {
        self.now.set(now_ms);
    }

    /// Moves the clock forwards.
    pub fn advance(&self, by_ms: u64) {
        self.now.set(self.now.get().saturating_add(by_ms));
    }
}

impl Clock for MemoryClock {
    fn now(&self) -> TimestampMs {
        TimestampMs(self.now.get())
    }
}

/// Random numbers that repeat by seed (SplitMix64). Cloning gives another handle on the same sequence.
#[derive(Debug, Clone)]
pub struct MemoryRandom {
    state: Rc<Cell<u64>>,
}

impl MemoryRandom {
    /// The sequence of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: Rc::new(Cell::new(seed)) }
    }

    /// The seed from which the rest of the sequence goes on.
    #[must_use]
    pub fn peek(&self) -> u64 {
        self.state.get()
    }

    /// A number below `bound`; 0 if the bound is 0.
    #[must_use]
    pub fn below(&self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}

impl Random for MemoryRandom {
    fn next(&self) -> u64 {
        let state = self.state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.state.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
