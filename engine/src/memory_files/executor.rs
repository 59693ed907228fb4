//! Runs a future on the spot.

use std::future::Future;

use super::MemoryFiles;

/// Polls a future until it is ready.
///
/// # Panics
/// If it waits and nothing has woken it: a deadlock.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let _ = future;
    unimplemented!()
}

/// As [`block_on`], but whenever the future waits, releases one of the operations of `files` that wait, chosen by `seed`.
///
/// # Panics
/// If it waits and no operation does.
pub fn block_on_releasing<T>(files: &MemoryFiles, seed: u64, future: impl Future<Output = T>) -> T {
    let _ = (files, seed, future);
    unimplemented!()
}
