//! What can happen in the world, and in which order.

use antiphon_engine::memory_files::Ticket;
use antiphon_gateway::core::io::ConnectionKey;

use crate::{network::LinkId, plan::Fault};

/// Something that happens.
#[derive(Debug)]
pub enum Event {
    /// A shard's turn.
    Shard {
        /// Of the node's life, since a dead one's events mean nothing.
        incarnation: u64,
        /// Which shard.
        shard: usize,
    },
    /// A disk operation completes.
    Disk {
        /// Of the node's life.
        incarnation: u64,
        /// Whose disk.
        lane: usize,
        /// Which operation.
        ticket: Ticket,
    },
    /// A disk operation in the folder of a checkpoint completes.
    CopyDisk {
        /// Of the node's life.
        incarnation: u64,
        /// Whose disk.
        lane: usize,
        /// Which checkpoint.
        number: u64,
        /// Which operation.
        ticket: Ticket,
    },
    /// A connection arrives at its shard.
    Accept(LinkId),
    /// Bytes arrive at the server.
    Up(LinkId, Vec<u8>),
    /// The server sees the end of a connection.
    UpEnd(LinkId),
    /// Bytes arrive at the client.
    Down(LinkId, Vec<u8>),
    /// The client sees the end of a connection.
    DownEnd(LinkId),
    /// A send has left.
    Sent {
        /// Of the node's life.
        incarnation: u64,
        /// Whose connection.
        shard: usize,
        /// Which connection.
        key: ConnectionKey,
        /// Whether the shard turns because of it.
        wakes: bool,
    },
    /// A client's timer.
    Client(usize),
    /// A client's process starts again.
    ClientStart(usize),
    /// The next action or fault.
    Step,
    /// The node starts again.
    NodeStart,
    /// The node dies again, soon after it started.
    Crash {
        /// Whether what was not synced is lost too.
        power: bool,
    },
    /// A lane's disk has room again.
    Room(usize),
    /// A lane's disk fails no more.
    Heal(usize, Fault),
    /// The wall clock does not stand any more.
    ClockGoes {
        /// It shows the time, and not that at which it stood.
        catches_up: bool,
    },
    /// The end of the run is looked at.
    Finish,
}

/// An event with its time.
pub(crate) struct Planned {
    pub(crate) at_us: u64,
    /// Events at the same time happen in this order.
    pub(crate) number: u64,
    pub(crate) event: Event,
}

impl PartialEq for Planned {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Planned {}

impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Planned {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_us, self.number).cmp(&(other.at_us, other.number))
    }
}
