//! The one clock of a run: monotonic nanoseconds since the process began to measure. All clients share it, so a time written
//! into a message by its sender can be compared by every recipient.

use std::time::Instant;

/// Nanoseconds of a [`Clock`].
pub type Nanoseconds = u64;

/// One second.
pub const SECOND_NS: Nanoseconds = 1_000_000_000;

/// One millisecond.
pub const MILLISECOND_NS: Nanoseconds = 1_000_000;

/// `CLOCK_MONOTONIC` from an origin.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// Starts at 0 now.
    #[must_use]
    pub fn start() -> Self {
        Self { origin: Instant::now() }
    }

    /// Nanoseconds since the start.
    #[must_use]
    pub fn now_ns(&self) -> Nanoseconds {
        self.origin.elapsed().as_nanos() as Nanoseconds
    }
}
