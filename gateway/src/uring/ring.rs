//! The net ring: one io_uring of a shard, with its submission backlog and its statistics.
//!
//! Owns the ring and nothing that operations point to. Invariants: an entry that was pushed is submitted in order and exactly
//! once, however full the queue is; a completion is handed out exactly once; only the thread that made the ring touches it
//! (`SINGLE_ISSUER`). Must not interpret completions.

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use io_uring::{EnterFlags, IoUring, squeue, types};

use super::{counters::ShardCounters, token::Token};

/// Completions handed out at once: enough to amortise the borrow, little enough to stay in the first-level cache.
pub(super) const REAP_MAX: usize = 256;

/// How often one [`Ring::enter`] has the kernel run what has become ready: it runs 20 operations at a time (since 6.13), first come, first
/// served. With one round a turn, the end of a log write waited for seconds behind those of thousands of sockets.
const ROUNDS_MAX: usize = 16;

/// A completion, taken out of the queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Completion {
    pub(super) token: Token,
    /// The result, or an error number below zero.
    pub(super) result: i32,
    flags: u32,
}

impl Completion {
    /// The operation goes on: more completions follow.
    pub(super) fn more(self) -> bool {
        io_uring::cqueue::more(self.flags)
    }

    /// The provided buffer that holds what was received.
    pub(super) fn buffer(self) -> Option<u16> {
        io_uring::cqueue::buffer_select(self.flags)
    }
}

/// One io_uring.
pub(super) struct Ring {
    ring: IoUring,
    /// Entries that found the submission queue full and the kernel unable to take any. Bounded by what may be in flight: four
    /// operations a connection and the file operations.
    backlog: VecDeque<squeue::Entry>,
    counters: Arc<ShardCounters>,
    overflows: u32,
}

impl Ring {
    /// Makes a ring for the calling thread alone.
    ///
    /// # Errors
    /// What the kernel says: too old (6.1 is needed), out of memory, or forbidden by a policy.
    pub(super) fn new(submissions: u32, completions: u32, counters: Arc<ShardCounters>) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_coop_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_clamp()
            .setup_cqsize(completions.max(submissions))
            .build(submissions)?;
        Ok(Self { ring, backlog: VecDeque::new(), counters, overflows: 0 })
    }

    pub(super) fn submitter(&self) -> io_uring::Submitter<'_> {
        self.ring.submitter()
    }

    /// Queues an operation. It is submitted with the next enter, at the latest before the shard sleeps.
    ///
    /// # Safety
    /// All memory that the entry names stays where it is, and nobody else uses it, until the operation's last completion was
    /// handed out. Descriptors that it names stay open until it was submitted.
    pub(super) unsafe fn push(&mut self, entry: squeue::Entry) {
        self.counters.submissions.add(1);
        if self.backlog.is_empty() {
            // SAFETY: the caller's promise is that of `push`.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return;
            }
            // The queue is full. What fails here fails again at the next enter, which reports it.
            let _ = self.submit_only();
        }
        self.backlog.push_back(entry);
        self.drain_backlog();
    }

    /// Submits what is queued and runs what the kernel has deferred, at most [`ROUNDS_MAX`] times what it runs at once; does not wait. No
    /// system call if there is neither.
    pub(super) fn enter(&mut self) -> io::Result<()> {
        for round in 1.. {
            let (queued, deferred) = {
                let queue = self.ring.submission();
                (queue.len(), queue.taskrun() || queue.cq_overflow())
            };
            if queued == 0 && !deferred {
                break;
            }
            self.counters.enters.add(1);
            // SAFETY: no argument is passed; the entries were pushed under the promise of `push`.
            let result = unsafe {
                self.ring.submitter().enter::<libc::sigset_t>(queued as u32, 0, EnterFlags::GETEVENTS.bits(), None)
            };
            tolerate(result)?;
            let moved = self.drain_backlog();
            if moved == 0 && (round == ROUNDS_MAX || !self.ring.submission().taskrun()) {
                break;
            }
        }
        Ok(())
    }

    /// Submits what is queued and waits for a completion, at most for `timeout`; `None` waits for ever.
    pub(super) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        if !self.backlog.is_empty() {
            return self.enter();
        }
        self.counters.enters.add(1);
        let result = match timeout {
            Some(timeout) => {
                let time = types::Timespec::from(timeout);
                self.ring.submitter().submit_with_args(1, &types::SubmitArgs::new().timespec(&time))
            }
            None => self.ring.submitter().submit_and_wait(1),
        };
        tolerate(result)
    }

    /// Appends at most [`REAP_MAX`] completions.
    pub(super) fn reap(&mut self, into: &mut Vec<Completion>) {
        let mut queue = self.ring.completion();
        let overflows = queue.overflow();
        let before = into.len();
        for entry in queue.by_ref().take(REAP_MAX) {
            let token = Token::unpack(entry.user_data());
            let token = token.expect("a completion names an operation that was pushed");
            into.push(Completion { token, result: entry.result(), flags: entry.flags() });
        }
        drop(queue);
        self.counters.completions.add((into.len() - before) as u64);
        if overflows != self.overflows {
            self.counters.completion_overflows.add(u64::from(overflows.wrapping_sub(self.overflows)));
            self.overflows = overflows;
        }
    }

    /// Whether there is a completion to take, or the kernel holds some back for want of room.
    pub(super) fn has_completions(&mut self) -> bool {
        if !self.ring.completion().is_empty() {
            return true;
        }
        let queue = self.ring.submission();
        queue.taskrun() || queue.cq_overflow()
    }

    /// Whether the kernel has taken all that was pushed, and holds no completion back for want of room: what failed at once is among
    /// those that can be reaped.
    pub(super) fn is_settled(&mut self) -> bool {
        let queue = self.ring.submission();
        self.backlog.is_empty() && queue.is_empty() && !queue.cq_overflow()
    }

    fn submit_only(&mut self) -> io::Result<()> {
        self.counters.enters.add(1);
        let queued = self.ring.submission().len();
        // SAFETY: no argument is passed; the entries were pushed under the promise of `push`. No events are asked for, so that
        // this may be called while completions are being handled.
        let result = unsafe { self.ring.submitter().enter::<libc::sigset_t>(queued as u32, 0, 0, None) };
        tolerate(result)
    }

    /// Moves entries from the backlog to the queue; returns how many.
    fn drain_backlog(&mut self) -> usize {
        let mut moved = 0;
        let mut queue = self.ring.submission();
        while let Some(entry) = self.backlog.front() {
            // SAFETY: the entry came through `push`, whose promise holds until its completion.
            if unsafe { queue.push(entry) }.is_err() {
                break;
            }
            self.backlog.pop_front();
            moved += 1;
        }
        moved
    }
}

/// Results of an enter that say "later" rather than "broken": a signal, the time is over, completions must be taken first, or no
/// memory for a request just now. Everything queued stays queued.
fn tolerate(result: io::Result<usize>) -> io::Result<()> {
    match result {
        Ok(_) => Ok(()),
        Err(error) => match error.raw_os_error() {
            Some(libc::EINTR | libc::ETIME | libc::EBUSY) => Ok(()),
            Some(libc::EAGAIN) => {
                // Memory is short. A millisecond keeps the loop from spinning at it.
                std::thread::sleep(Duration::from_millis(1));
                Ok(())
            }
            _ => Err(error),
        },
    }
}
