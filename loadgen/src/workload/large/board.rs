//! What all threads know of the large group while it goes on. Its members are on many threads, and a hint names a sequence without saying what is
//! under it: when that was meant to be sent, the thread that sent it knows, or one that was given it whole.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::Nanoseconds;

/// Sequences beyond one a message that are kept: a message that is stored twice has two.
const SPARE: usize = 1_024;

/// Written by any thread, read by all. What is not known yet is 0.
#[derive(Debug)]
pub struct LargeBoard {
    baseline: AtomicU64,
    last: AtomicU64,
    intended: Box<[AtomicU64]>,
    acked: Box<[AtomicU64]>,
}

impl LargeBoard {
    /// For so many messages.
    #[must_use]
    pub fn new(messages: u32) -> Self {
        let zeros = |count: usize| std::iter::repeat_with(AtomicU64::default).take(count).collect();
        Self {
            baseline: AtomicU64::new(0),
            last: AtomicU64::new(0),
            intended: zeros(messages as usize + SPARE),
            acked: zeros(messages as usize),
        }
    }

    /// The group has all of its members, the last of them by this entry.
    pub fn set_baseline(&self, sequence: u64) {
        self.baseline.store(sequence, Ordering::Release);
        self.last.fetch_max(sequence, Ordering::Release);
    }

    /// The last entry before the load.
    #[must_use]
    pub fn baseline(&self) -> u64 {
        self.baseline.load(Ordering::Acquire)
    }

    /// The last entry that is known to exist.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.last.load(Ordering::Acquire)
    }

    /// A message was acknowledged, or arrived: it exists, under this sequence.
    pub fn exists(&self, sequence: u64, intended_ns: Nanoseconds) {
        if let Some(place) = self.place(sequence) {
            self.intended[place].store(intended_ns, Ordering::Relaxed);
        }
        self.last.fetch_max(sequence, Ordering::Release);
    }

    /// When what is under a sequence was meant to be sent.
    #[must_use]
    pub fn intended_ns(&self, sequence: u64) -> Option<Nanoseconds> {
        let intended_ns = self.intended[self.place(sequence)?].load(Ordering::Relaxed);
        (intended_ns > 0).then_some(intended_ns)
    }

    /// A message was acknowledged.
    pub fn acked(&self, number: u32, sequence: u64) {
        self.acked[number as usize].store(sequence, Ordering::Relaxed);
    }

    /// Under which sequence a message was acknowledged.
    #[must_use]
    pub fn sequence_of(&self, number: u32) -> Option<u64> {
        let sequence = self.acked[number as usize].load(Ordering::Relaxed);
        (sequence > 0).then_some(sequence)
    }

    fn place(&self, sequence: u64) -> Option<usize> {
        let place = sequence.checked_sub(self.baseline() + 1)? as usize;
        (place < self.intended.len()).then_some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_found_by_sequence_and_by_number() {
        let board = LargeBoard::new(10);
        board.set_baseline(2_001);
        assert_eq!((board.baseline(), board.last(), board.intended_ns(2_002)), (2_001, 2_001, None));
        board.exists(2_003, 77);
        board.exists(2_002, 66);
        board.acked(1, 2_003);
        assert_eq!((board.intended_ns(2_002), board.intended_ns(2_003), board.last()), (Some(66), Some(77), 2_003));
        assert_eq!((board.sequence_of(0), board.sequence_of(1)), (None, Some(2_003)));
        // Neither what was before nor what nobody can have sent has a place.
        board.exists(2_001, 5);
        board.exists(900_000, 5);
        assert_eq!((board.intended_ns(2_001), board.intended_ns(900_000), board.last()), (None, None, 900_000));
    }
}
