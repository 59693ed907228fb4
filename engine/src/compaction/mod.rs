//! Compaction: which neighbouring runs are worth merging, and the job that merges them.
//!
//! The choice is a pure function of sizes; the job reads, merges, writes and yields. [`Sorted`](crate::sorted::Sorted) makes the
//! result visible.

mod choice;
mod job;

use std::{
    future::{Future, poll_fn},
    task::Poll,
};

pub use choice::{Choice, ErasingInfo, RunInfo, Settings, choose, choose_reclaim, choose_rewrite};
pub(crate) use job::Job;

/// Which rows have outlived their use: they are left out of what a merge writes. A reader must treat them as absent by itself, since it
/// may meet them, or an older row that one of them hid, before the merge does. A value, so that it carries what it goes by (a time).
pub trait Expiry: Clone + Send + 'static {
    /// Whether this row has.
    fn is_expired(&self, key: &[u8], value: &[u8]) -> bool;

    /// Whether every row of a segment has, as far as its first and last key and its times tell: then it goes without being read.
    fn covers(&self, first_key: &[u8], last_key: &[u8], times: Option<(u64, u64)>) -> bool;

    /// Whether a delete marker of this key hides nothing any more, though older segments than those merged are left.
    fn hides_nothing(&self, _key: &[u8]) -> bool {
        false
    }

    /// Whether no segment that is older than those merged knows a key of theirs that was erased.
    fn settles(&self) -> bool {
        false
    }
}

/// [`Expiry`] for rows that live for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeverExpires;

/// Rows live for ever.
pub const NEVER_EXPIRED: NeverExpires = NeverExpires;

impl Expiry for NeverExpires {
    fn is_expired(&self, _key: &[u8], _value: &[u8]) -> bool {
        false
    }

    fn covers(&self, _first_key: &[u8], _last_key: &[u8], _times: Option<(u64, u64)>) -> bool {
        false
    }
}

/// Where a long job gives way to others.
pub trait Pace {
    /// Called after about every 256 KiB of input; the job goes on when the future is ready.
    fn pause(&self) -> impl Future<Output = ()>;
}

/// What a compaction did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compacted {
    /// Runs merged.
    pub inputs: usize,
    /// Bytes of their files.
    pub bytes_read: u64,
    /// Bytes of the new file; 0 if no row was left.
    pub bytes_written: u64,
    /// Rows left out: hidden by newer ones, deleted or expired.
    pub rows_dropped: u64,
}

/// Gives way to whatever else is ready to run on the same executor, once for each call.
#[derive(Debug, Clone, Copy, Default)]
pub struct YieldNow;

impl Pace for YieldNow {
    async fn pause(&self) {
        let mut yielded = false;
        poll_fn(|context| {
            if std::mem::replace(&mut yielded, true) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
}
