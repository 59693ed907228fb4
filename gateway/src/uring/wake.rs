//! Waking a shard from another thread.
//!
//! A shard is awake, notified (a wake-up has come that it has not seen) or asleep. A wake-up makes it notified; only the wake-up
//! that finds it asleep writes to the eventfd, on which the net ring has a poll. The shard falls asleep by an exchange that fails
//! if it was notified meanwhile, and it takes a turn after every exchange that finds it notified: no wake-up is lost.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
};

const AWAKE: u8 = 0;
const NOTIFIED: u8 = 1;
const ASLEEP: u8 = 2;

/// Wakes one shard. Cheap to clone, callable from anywhere.
#[derive(Debug, Clone)]
pub struct Waker {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: AtomicU8,
    stopping: AtomicBool,
    eventfd: File,
}

impl Waker {
    /// A waker for a shard that is to be started with it.
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        let eventfd = File::from(eventfd()?);
        let inner = Inner { state: AtomicU8::new(AWAKE), stopping: AtomicBool::new(false), eventfd };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Has the shard take a turn, and see in it everything that was written before this call. A system call only if it sleeps.
    pub fn wake(&self) {
        if self.inner.state.swap(NOTIFIED, Ordering::SeqCst) == ASLEEP {
            // It cannot fail: the counter would overflow after 2⁶⁴ wake-ups that found the shard asleep.
            let _ = (&self.inner.eventfd).write(&1u64.to_ne_bytes());
        }
    }

    /// Has the shard close everything and return.
    pub fn stop(&self) {
        self.inner.stopping.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Whether [`Waker::stop`] was called.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.inner.stopping.load(Ordering::Acquire)
    }

    /// The shard is up: wake-ups from here on are for a later turn.
    pub(super) fn set_awake(&self) -> bool {
        self.inner.state.swap(AWAKE, Ordering::SeqCst) == NOTIFIED
    }

    /// The shard goes to sleep, unless it was notified. Whether it may.
    pub(super) fn set_asleep(&self) -> bool {
        self.inner.state.compare_exchange(AWAKE, ASLEEP, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    pub(super) fn descriptor(&self) -> RawFd {
        self.inner.eventfd.as_raw_fd()
    }
}

/// An eventfd that counts from zero; a read of zero blocks (a ring's read waits).
pub(super) fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: takes no pointer.
    let descriptor = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}
