//! Runs one future on the spot, without threads or time: enough for tests over memory files.

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use super::{MemoryFiles, MemoryRandom};

/// Polls a future until it is ready.
///
/// # Panics
/// If it waits and nothing has woken it: a deadlock.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    drive(future, || false)
}

/// As [`block_on`], but whenever the future waits, releases one of the operations of `files` that wait, chosen by `seed`.
///
/// # Panics
/// If it waits and no operation does.
pub fn block_on_releasing<T>(files: &MemoryFiles, seed: u64, future: impl Future<Output = T>) -> T {
    let random = MemoryRandom::new(seed);
    drive(future, || {
        let pending = files.pending();
        let chosen = pending.get(random.below(pending.len() as u64) as usize);
        chosen.is_some_and(|operation| files.release(operation.ticket))
    })
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// `unblock` lets something happen; `false` if nothing can.
fn drive<T>(future: impl Future<Output = T>, unblock: impl Fn() -> bool) -> T {
    let flag = Arc::new(Flag(AtomicBool::new(false)));
    let waker = Waker::from(Arc::clone(&flag));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
        while !flag.0.swap(false, Ordering::Relaxed) {
            assert!(unblock(), "deadlock: the future waits and nothing can wake it");
        }
    }
}
