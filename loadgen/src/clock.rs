//! The one clock of a run: monotonic nanoseconds since the process began to measure. All clients share it, so a time written
//! into a message by its sender can be compared by every recipient.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use antiphon_wire::ids::TimestampMs;

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
    /// What the wall clock showed then, in milliseconds since 1970.
    origin_ms: u64,
}

impl Clock {
    /// Starts at 0 now.
    #[must_use]
    pub fn start() -> Self {
        let origin_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        Self { origin: Instant::now(), origin_ms }
    }

    /// What a wall clock shows at a time of this one, if nobody sets it meanwhile.
    #[must_use]
    pub fn timestamp(&self, at_ns: Nanoseconds) -> TimestampMs {
        TimestampMs(self.origin_ms + at_ns / MILLISECOND_NS)
    }

    /// Nanoseconds since the start.
    #[must_use]
    pub fn now_ns(&self) -> Nanoseconds {
        self.origin.elapsed().as_nanos() as Nanoseconds
    }
}
