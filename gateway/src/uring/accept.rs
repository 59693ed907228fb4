//! Accepting on one listener: single accepts with room for the peer's address, several of them in flight.
//!
//! A multishot accept would need one submission for all, but tells no address, and admission goes by address. Invariants:
//!
//! - The doors of a shard never have more accepts in flight than the table has free slots: an accept that finds the table full has
//!   already taken a connection off the backlog, and drops it.
//! - An address box belongs to the kernel from the submission of its accept to its completion, so boxes and listener are dropped
//!   only at rest.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener},
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use io_uring::{opcode, squeue, types};

use super::{
    sockets::Admission,
    token::{Kind, Token},
};

/// Accepts in flight on a listener: what one turn takes of a burst. Few, so that a shard that is short of CPU, whose turns are long, takes
/// fewer newcomers a second and those who are there go on (with 64, the p99 of sends in a storm of 250,000 was three times as long); at a
/// turn a millisecond, 16,000 a second.
const ACCEPTS_MAX: usize = 16;

/// How long accepting rests after an error of the system (no descriptors, no memory): long enough not to spin, short enough not to
/// be noticed by a client that connects.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Rounds of accepts before a listener closes: a whole backlog of 16,384, after which those who still come are turned away.
const LAST_ROUNDS_MAX: u16 = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Armed,
    /// Armed, and being taken back.
    Cancelled,
}

/// Where the kernel writes a peer's address. `sockaddr_in6` is the longest that TCP has.
#[repr(C)]
struct Address {
    bytes: libc::sockaddr_in6,
    length: libc::socklen_t,
}

struct Accept {
    address: Box<Address>,
    state: State,
}

/// One listener.
pub(super) struct Door {
    listener: Option<TcpListener>,
    accepts: Vec<Accept>,
    paused_until: Option<Instant>,
    /// The last [`Door::admit`] found no free slot.
    was_full: bool,
    /// Something was accepted since the last [`Door::admit`].
    was_used: bool,
    /// Rounds left before it closes; `None` until that is wanted.
    rounds_left: Option<u16>,
}

/// Door and accept that an accept's token names.
pub(super) const fn place(index: u32) -> (u8, u8) {
    ((index >> 8) as u8, index as u8)
}

const fn token(kind: Kind, door: u8, accept: usize) -> Token {
    Token::new(kind, (door as u32) << 8 | accept as u32, 0)
}

impl Door {
    pub(super) fn new(listener: TcpListener) -> Self {
        Self {
            listener: Some(listener),
            accepts: Vec::new(),
            paused_until: None,
            was_full: false,
            was_used: false,
            rounds_left: None,
        }
    }

    /// Whether it closes when its backlog is empty, and another round of accepts is to tell.
    pub(super) fn looks_again(&self) -> bool {
        self.listener.is_some() && self.rounds_left.is_some_and(|rounds| rounds > 0)
    }

    /// The accepts that were with the kernel all the while found nothing, so the backlog was empty. Where nothing can be accepted,
    /// nothing more is waited for.
    fn last_look(&mut self, free: u32) -> Admission {
        let rounds = self.rounds_left.unwrap_or(LAST_ROUNDS_MAX);
        let is_empty = !self.was_used && self.armed() > 0;
        let is_over = rounds == 0 || is_empty || self.paused_until.is_some() || (free == 0 && self.armed() == 0);
        self.rounds_left = Some(if is_over { 0 } else { rounds - 1 });
        if is_over { Admission::Closed } else { Admission::Open }
    }

    /// Accepts with the kernel.
    pub(super) fn armed(&self) -> u32 {
        self.accepts.iter().filter(|accept| accept.state != State::Idle).count() as u32
    }

    /// Whether the listener is closed.
    pub(super) fn is_closed(&self) -> bool {
        self.listener.is_none()
    }

    /// Whether the kernel holds nothing of this door.
    pub(super) fn is_at_rest(&self) -> bool {
        self.armed() == 0
    }

    /// When accepting goes on, if it rests.
    pub(super) fn paused_until(&self) -> Option<Instant> {
        self.paused_until
    }

    /// The system is short of something.
    pub(super) fn pause(&mut self, now: Instant) {
        self.paused_until = Some(now + ACCEPT_PAUSE);
    }

    /// Whether the door just found the table full: once for each time that it fills.
    pub(super) fn wants_more(&mut self) -> bool {
        let is_full = self.listener.is_some() && self.is_at_rest() && self.paused_until.is_none();
        is_full && !std::mem::replace(&mut self.was_full, is_full)
    }

    /// Arms what may be armed, or takes back what may not; the result is how many of the `free` slots are now spoken for.
    pub(super) fn admit(
        &mut self,
        door: u8,
        admission: Admission,
        free: u32,
        now: Instant,
        push: &mut impl FnMut(squeue::Entry, Token),
    ) -> u32 {
        self.paused_until = self.paused_until.filter(|until| *until > now);
        let admission = if admission == Admission::Last { self.last_look(free) } else { admission };
        self.was_used = false;
        if admission != Admission::Open {
            for (index, accept) in self.accepts.iter_mut().enumerate().filter(|(_, one)| one.state == State::Armed) {
                let entry = opcode::AsyncCancel::new(token(Kind::Accept, door, index).pack()).build();
                push(entry, token(Kind::CancelOther, door, index));
                accept.state = State::Cancelled;
            }
            if admission == Admission::Closed && self.is_at_rest() {
                self.listener = None;
            }
            return 0;
        }
        let Some(listener) = self.listener.as_ref().filter(|_| self.paused_until.is_none() && free > 0) else {
            return 0;
        };
        let descriptor = types::Fd(listener.as_raw_fd());
        self.was_full = false;
        if self.accepts.is_empty() {
            self.accepts.resize_with(ACCEPTS_MAX, Accept::default);
        }
        let mut spoken_for = 0;
        let idle = self.accepts.iter_mut().enumerate().filter(|(_, accept)| accept.state == State::Idle);
        for (index, accept) in idle.take(free as usize) {
            accept.state = State::Armed;
            accept.address.length = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
            let entry =
                opcode::Accept::new(descriptor, (&raw mut accept.address.bytes).cast(), &raw mut accept.address.length)
                    .file_index(Some(types::DestinationSlot::auto_target()))
                    .build();
            push(entry, token(Kind::Accept, door, index));
            spoken_for += 1;
        }
        spoken_for
    }

    /// An accept has completed: its peer, if it was a success.
    pub(super) fn completed(&mut self, accept: u8) -> SocketAddr {
        let accept = &mut self.accepts[usize::from(accept)];
        assert!(accept.state != State::Idle, "an accept completes once");
        accept.state = State::Idle;
        self.was_used = true;
        accept.address.read()
    }
}

impl Default for Accept {
    fn default() -> Self {
        // SAFETY: all-zero bytes are a valid `sockaddr_in6`: it is integers throughout.
        let address = Address { bytes: unsafe { std::mem::zeroed() }, length: 0 };
        Self { address: Box::new(address), state: State::Idle }
    }
}

impl Address {
    /// What the kernel wrote; an IPv4 peer of an IPv6 listener comes as what it is.
    fn read(&self) -> SocketAddr {
        let port = u16::from_be(self.bytes.sin6_port);
        if i32::from(self.bytes.sin6_family) == libc::AF_INET {
            // `sockaddr_in` has its address where `sockaddr_in6` has the flow.
            return SocketAddr::from((Ipv4Addr::from(self.bytes.sin6_flowinfo.to_ne_bytes()), port));
        }
        let ip = Ipv6Addr::from(self.bytes.sin6_addr.s6_addr);
        match ip.to_ipv4_mapped() {
            Some(ip) => SocketAddr::from((ip, port)),
            None => SocketAddr::V6(SocketAddrV6::new(ip, port, 0, self.bytes.sin6_scope_id)),
        }
    }
}
