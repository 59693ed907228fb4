//! What a shard's driver counts. Written by the shard alone, read by any thread.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number with one writer: no locked instruction on the shard's side.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// The number now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Only the shard's own thread calls this, so that a load and a store are enough.
    pub(super) fn add(&self, count: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    pub(super) fn lower(&self, value: u64) {
        if value < self.get() {
            self.set(value);
        }
    }

    pub(super) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// Counts and levels of one shard.
#[derive(Debug, Default)]
pub struct ShardCounters {
    /// Calls of `io_uring_enter` on the net ring.
    pub enters: Counter,
    /// Completions taken from it.
    pub completions: Counter,
    /// Operations submitted to it.
    pub submissions: Counter,
    /// Times that the kernel had more completions than its queue holds. None is lost; the queue is too small for the load.
    pub completion_overflows: Counter,
    /// Turns of the loop.
    pub turns: Counter,
    /// Connections accepted since the start.
    pub accepts: Counter,
    /// Accepts that failed, a full table included.
    pub accept_errors: Counter,
    /// Level: connections in the table now, those being closed included.
    pub connections: Counter,
    /// Level: quiet connections, watched by a poll.
    pub quiet: Counter,
    /// Times that accepting stopped because the table of direct descriptors was full.
    pub table_full: Counter,
    /// Bytes received.
    pub bytes_in: Counter,
    /// Bytes sent.
    pub bytes_out: Counter,
    /// Receives that found no free buffer.
    pub buffers_exhausted: Counter,
    /// The fewest buffers that were free at once, since the start: what is left over for a larger burst.
    pub buffers_free_min: Counter,
    /// Sends that the kernel took in part.
    pub short_sends: Counter,
    /// Level: sends in flight.
    pub sends_in_flight: Counter,
    /// Level: file operations in flight.
    pub file_operations: Counter,
    /// Writes to log files.
    pub log_writes: Counter,
    /// Times that the shard slept.
    pub sleeps: Counter,
    /// Slices that background tasks got while nothing else was to be done.
    pub background_slices: Counter,
    /// Wake-ups by other threads that found the shard asleep.
    pub wakes: Counter,
    /// Level: tasks that were spawned and have not finished.
    pub tasks: Counter,
}
