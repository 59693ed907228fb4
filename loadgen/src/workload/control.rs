//! What the run tells its client threads, and what they tell it while they work. Plain numbers that may be a moment old; results
//! come at the end, whole.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
};

use super::{large::board::LargeBoard, plan::PARTS_MAX, presence::Board};
use crate::clock::Nanoseconds;

/// What client threads are to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// Wait: others are not ready.
    Hold,
    /// Fill the large group, if there is one.
    Fill,
    /// Establish all connections.
    Connect,
    /// Make the groups.
    Groups,
    /// Send as planned, from the announced time on. Without groups: be idle.
    Load,
    /// Send nothing new; wait for what is on its way.
    Drain,
    /// Read the histories, to compare them with what was acknowledged.
    Verify,
    /// End.
    Stop,
}

/// From the run to its threads.
#[derive(Debug)]
pub struct Control {
    phase: AtomicU8,
    load_start_ns: AtomicU64,
    /// When each part begins; `u64::MAX`: not yet.
    part_starts_ns: [AtomicU64; PARTS_MAX],
    slow: AtomicBool,
    failure: Mutex<Option<String>>,
    /// Who is there.
    pub(super) board: Board,
    /// What is known of the large group.
    pub(super) large: Option<LargeBoard>,
}

impl Control {
    /// For a run with so many users who watch one another, 0 if nobody does; and with a large group of so many messages.
    #[must_use]
    pub fn new(watched_users: u32, large_messages: Option<u32>) -> Self {
        Self {
            phase: AtomicU8::new(Phase::Hold as u8),
            load_start_ns: AtomicU64::new(0),
            part_starts_ns: [const { AtomicU64::new(u64::MAX) }; PARTS_MAX],
            slow: AtomicBool::new(false),
            failure: Mutex::new(None),
            board: Board::new(watched_users),
            large: large_messages.map(LargeBoard::new),
        }
    }

    /// The present phase.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Hold,
            1 => Phase::Fill,
            2 => Phase::Connect,
            3 => Phase::Groups,
            4 => Phase::Load,
            5 => Phase::Drain,
            6 => Phase::Verify,
            _ => Phase::Stop,
        }
    }

    /// Goes on to a phase.
    pub fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// Goes on to the load, which begins at a time in the near future.
    pub fn start_load(&self, start_ns: Nanoseconds) {
        self.load_start_ns.store(start_ns, Ordering::Relaxed);
        self.set_phase(Phase::Load);
    }

    /// When the load begins.
    #[must_use]
    pub fn load_start_ns(&self) -> Nanoseconds {
        self.load_start_ns.load(Ordering::Relaxed)
    }

    /// A part of the load begins.
    pub fn start_part(&self, part: usize, start_ns: Nanoseconds) {
        self.part_starts_ns[part].store(start_ns, Ordering::Relaxed);
    }

    /// The part, among the first `count`, that a time belongs to.
    #[must_use]
    pub fn part_of(&self, count: usize, at_ns: Nanoseconds) -> Option<usize> {
        self.part_starts_ns[..count].iter().rposition(|start_ns| start_ns.load(Ordering::Relaxed) <= at_ns)
    }

    /// Slow connections are to stop reading, or to go on.
    pub fn set_slow(&self, slow: bool) {
        self.slow.store(slow, Ordering::Relaxed);
    }

    /// Whether slow connections read nothing.
    #[must_use]
    pub fn slow(&self) -> bool {
        self.slow.load(Ordering::Relaxed)
    }

    /// Something that makes the run pointless; the first one counts.
    pub fn fail(&self, text: String) {
        self.failure.lock().expect("nobody panics while holding it").get_or_insert(text);
    }

    /// What made the run pointless.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().expect("nobody panics while holding it").clone()
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// One thread's counts, written by it alone.
        #[derive(Debug, Default)]
        pub struct Counters { $($(#[$doc])* pub $name: Counter,)* }

        /// Counts of one moment, of one thread or all.
        #[derive(Debug, Clone, Copy, Default, serde::Serialize, serde::Deserialize)]
        #[serde(default)]
        pub struct Counts { $($(#[$doc])* pub $name: u64,)* }

        impl Counters {
            /// The present values.
            #[must_use]
            pub fn read(&self) -> Counts {
                Counts { $($name: self.$name.get(),)* }
            }
        }

        impl Counts {
            /// Adds another thread's.
            pub fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }
        }
    };
}

counters! {
    /// 1 as soon as the thread has made its ring.
    ready,
    /// Connections that were welcomed at least once.
    established,
    /// Connections that are welcome now.
    up,
    /// Of these, connections that have been given everything that they missed.
    live,
    /// Connections that read nothing now.
    paused,
    /// Connections that the generator ended on purpose.
    left,
    /// Established connections that ended, for whatever reason.
    lost,
    /// Sessions that came back after a loss.
    resumed,
    /// Attempts that did not lead to a welcome.
    failed_attempts,
    /// TLS handshakes that were made in full.
    tls_full,
    /// TLS handshakes that used a ticket.
    tls_resumed,
    /// Of the full ones, those in which the server asked for another key share first.
    tls_retried,
    /// TLS handshakes that failed.
    tls_failed,
    /// Connections that the server ended without ending TLS first.
    tls_unannounced,
    /// Resumes that the server answered by `reset`.
    resets,
    /// Conversations that the server left to be paged.
    too_far,
    /// Conversations that there are to be.
    conversations,
    /// Conversations that are ready.
    groups,
    /// Members that the large group has.
    filled,
    /// Requests by which members were added to it.
    fill_added,
    /// Messages of the large group whose time has come; no other count has them.
    large_offered,
    /// Of these, those that were acknowledged.
    large_acked,
    /// Their deliveries to others than the sender.
    large_delivered,
    /// Hints that came during the load.
    hints,
    /// Of these, those that said what was known.
    hints_again,
    /// Of these, those that came when nothing should have been going on.
    hints_in_quiet,
    /// Messages whose time has come.
    offered,
    /// Messages acknowledged.
    acked,
    /// Acknowledgements that say that it was a retry.
    acked_again,
    /// Messages that were not sent because too many were on their way.
    skipped,
    /// Answers of people of a mix that were not planned because too many were.
    replies_skipped,
    /// Conversations whose history was read.
    verified,
    /// Messages found there.
    found,
    /// Messages that the server refused for good.
    rejected,
    /// Sends repeated, or only then possible, after a reconnect or a temporary refusal.
    retried,
    /// Deliveries to others than the sender.
    delivered,
    /// Deliveries back to the sender.
    returned,
    /// Messages on their way to their acknowledgement.
    unacked,
    /// Deliveries of acknowledged messages on their way.
    undelivered,
    /// Violations so far, without gaps and losses.
    violations,
    /// Changes of somebody's presence that connections were told.
    presence_told,
    /// At the end: users who are there, and of whom a connection that watches them was not told so.
    presence_missing,
    /// Frames that could not be read, or that did not belong there.
    protocol_errors,
    /// Messages intended for the measured part.
    measured_offered,
    /// Acknowledgements that came in the measured part.
    measured_acked,
    /// Deliveries that came in the measured part.
    measured_delivered,
}

/// A number that one thread writes and others read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds.
    pub fn add(&self, amount: u64) {
        // One writer: no read-modify-write is needed.
        self.0.store(self.get().wrapping_add(amount), Ordering::Relaxed);
    }

    /// Takes one away.
    pub fn decrement(&self) {
        self.0.store(self.get().saturating_sub(1), Ordering::Relaxed);
    }

    /// Replaces.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Reads.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
