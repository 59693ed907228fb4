//! What happened, in order: as a hash, to tell whether two runs are the same, and as text for people when asked for.

use std::collections::VecDeque;

/// Lines kept for a failure's report.
const TAIL_LINES_MAX: usize = 120;

/// How much of a run is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// The hash only.
    Hash,
    /// The last lines too.
    Tail,
    /// Everything, to standard output as it happens.
    Print,
}

/// The trace of one run.
#[derive(Debug)]
pub struct Trace {
    detail: Detail,
    hash: u64,
    events: u64,
    tail: VecDeque<String>,
}

impl Trace {
    /// An empty trace.
    #[must_use]
    pub fn new(detail: Detail) -> Self {
        Self { detail, hash: 0xcbf2_9ce4_8422_2325, events: 0, tail: VecDeque::new() }
    }

    /// Takes down one event; `text` is made only if somebody wants it.
    pub fn note(&mut self, now_us: u64, numbers: &[u64], text: impl FnOnce() -> String) {
        self.events += 1;
        self.mix(now_us);
        numbers.iter().for_each(|number| self.mix(*number));
        if self.detail != Detail::Hash {
            let line = format!("{:>10}.{:03} ms  {}", now_us / 1_000, now_us % 1_000, text());
            self.keep(line);
        }
    }

    /// Takes down bytes that crossed the world.
    pub fn bytes(&mut self, bytes: &[u8]) {
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            self.mix(u64::from_le_bytes(chunk.try_into().expect("eight bytes")));
        }
        let mut last = [0; 8];
        last[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
        self.mix(u64::from_le_bytes(last) ^ bytes.len() as u64);
    }

    /// The hash of all that happened.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// How many events there were.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The last lines.
    #[must_use]
    pub fn tail(&self) -> Vec<String> {
        self.tail.iter().cloned().collect()
    }

    fn keep(&mut self, line: String) {
        if self.detail == Detail::Print {
            println!("{line}");
        }
        if self.tail.len() == TAIL_LINES_MAX {
            self.tail.pop_front();
        }
        self.tail.push_back(line);
    }

    fn mix(&mut self, number: u64) {
        self.hash = (self.hash ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
}
