//! The real clock and the real random source, behind the engine's seams, and the monotonic time of the shards.

use std::{
    sync::OnceLock,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use antiphon_engine::seams::{Clock, Random};
use antiphon_wire::ids::TimestampMs;

/// The system's wall clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> TimestampMs {
        // A clock set before 1970 is as good as one set to 1970.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        TimestampMs(since.as_millis() as u64)
    }
}

/// The kernel's random numbers.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsRandom;

impl Random for OsRandom {
    fn next(&self) -> u64 {
        let mut bytes = [0; 8];
        loop {
            // SAFETY: the pointer and the length are those of `bytes`.
            let count = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
            if count == bytes.len() as isize {
                return u64::from_ne_bytes(bytes);
            }
            let error = std::io::Error::last_os_error();
            assert!(error.kind() == std::io::ErrorKind::Interrupted, "the kernel has no random numbers: {error}");
        }
    }
}

/// Milliseconds since the process first asked: the `now_ms` of every shard's turns.
#[must_use]
pub fn monotonic_ms() -> u64 {
    start().elapsed().as_millis() as u64
}

/// The same clock in microseconds.
#[must_use]
pub fn monotonic_us() -> u64 {
    start().elapsed().as_micros() as u64
}

/// The instant at which [`monotonic_ms`] becomes `ms`; `None` beyond the end of time.
pub(super) fn instant_of(ms: u64) -> Option<Instant> {
    start().checked_add(Duration::from_millis(ms))
}

fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now)
}
