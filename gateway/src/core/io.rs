//! Where logic and driver meet: what a driver tells a [`Handler`] and what a handler asks of the driver.
//!
//! The driver has no policy, the handler does no I/O. A driver calls `accepted`, `received`, `sent`, `closed` as completions come,
//! then `turn` once, then carries out every [`Command`] of `poll_command`; that is one turn of a shard's loop.

use std::{net::SocketAddr, rc::Rc};

/// A connection of one shard. A slot is used again with another generation, so a stale key never names a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionKey {
    /// Index in the shard's table of direct descriptors.
    pub slot: u32,
    /// How often the slot had been taken before.
    pub generation: u32,
}

/// Where a connection came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// Which of the shard's listeners took it, in the order of its configuration.
    pub listener: u8,
    /// The other end, as the network shows it.
    pub peer: SocketAddr,
}

/// What a handler asks of the driver.
#[derive(Debug)]
pub enum Command {
    /// Send all buffers, in order, as one vectored send. The next one follows only after `sent`; at most one is in flight.
    Send {
        /// Where to.
        connection: ConnectionKey,
        /// Shared by all connections that get the same bytes. Not empty.
        buffers: Vec<Rc<[u8]>>,
        /// Whether something is to be done as soon as they have left: more is to be sent, or the connection to be closed. Otherwise the
        /// driver may say `sent` as late as before the handler's next turn, and saves itself a wake-up.
        awaited: bool,
    },
    /// Close now, whatever is in flight. `closed` is not called for it; no later call names this key.
    Close {
        /// Which.
        connection: ConnectionKey,
    },
}

/// What is to be done after a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// There is work left that needs no completion: take the next turn at once.
    pub more: bool,
    /// Monotonic time, in milliseconds, at which a turn is wanted though nothing happens. `None`: never.
    pub wake_at_ms: Option<u64>,
}

/// The logic that a driver drives.
pub trait Handler {
    /// A connection was accepted.
    fn accepted(&mut self, connection: ConnectionKey, origin: Origin);

    /// Bytes came. They are the handler's to change (WebSocket masks are taken off in place) until it returns.
    fn received(&mut self, connection: ConnectionKey, bytes: &mut [u8]);

    /// The last [`Command::Send`] left whole; the connection can take another. Told before the next `turn`, if it has left by then.
    fn sent(&mut self, connection: ConnectionKey);

    /// The connection is gone: the peer closed it or an operation failed. No later call names this key.
    fn closed(&mut self, connection: ConnectionKey);

    /// Once after a batch of the above, and whenever the driver was woken. `now_ms` is monotonic.
    fn turn(&mut self, now_ms: u64) -> Turn;

    /// The next command, until `None`.
    fn poll_command(&mut self) -> Option<Command>;
}
