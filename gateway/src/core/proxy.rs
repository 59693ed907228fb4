//! The PROXY protocol, version 2: who is behind a load balancer that passes bytes on as they are.
//!
//! An adapter, outermost between driver and logic. From the addresses that are configured every connection must begin with a header; it
//! is taken off, and what is behind sees the client's own address, as if it had connected itself. From all others nothing is expected:
//! a header from them is no HTTP and no TLS, and is refused as such.
//!
//! Invariants: what is behind hears of a connection only once its header is whole, so nothing of it can be spent or said before. A header
//! is bounded ([`HEADER_BYTES_MAX`]) and so is the time for it; connections that wait for one are bounded by the driver's table. Version 1
//! is refused: it is text that could also be a client's. The end of a header is the header's own word, so the outcome does not depend on
//! how the bytes were cut. Source: HAProxy's "The PROXY protocol, versions 1 & 2", §2.2.

use std::{
    cell::Cell,
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    rc::Rc,
};

use super::{
    address::Blocks,
    io::{Command, ConnectionKey, Handler, Origin, Turn},
};

/// What every header begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Signature, version and command, family, length.
const FIXED_BYTES: usize = 16;

/// Longest header: a proxy that adds the client's certificate name, its cloud's ids and padding stays below 1 KiB. (The protocol asks for
/// 536 bytes at least.)
pub const HEADER_BYTES_MAX: usize = 2_048;

/// What bytes amount to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// Not a whole header yet.
    NeedMore,
    /// A header.
    Header {
        /// The client; `None` if the proxy speaks for itself (a health check).
        client: Option<SocketAddr>,
        /// Its length.
        bytes: usize,
    },
}

/// Why bytes are no header that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Version 1, or no header at all: configure the proxy for version 2, or take it off the list.
    #[error("not a header of the PROXY protocol, version 2")]
    NotAHeader,
    /// Neither PROXY nor LOCAL.
    #[error("an unknown command")]
    Command,
    /// Not TCP over IPv4 or IPv6.
    #[error("an address family that is not taken")]
    Family,
    /// Longer than [`HEADER_BYTES_MAX`].
    #[error("a header that is too long")]
    TooLong,
    /// Shorter than its addresses, or with a field that reaches beyond its end.
    #[error("a header that contradicts its length")]
    Truncated,
}

/// Looks at the first bytes of a connection.
pub fn parse(bytes: &[u8]) -> Result<Parsed, HeaderError> {
    let begun = bytes.len().min(SIGNATURE.len());
    if bytes[..begun] != SIGNATURE[..begun] {
        return Err(HeaderError::NotAHeader);
    }
    // Each byte is judged as soon as it is there, so that nobody waits for what cannot become right.
    let is_local = match bytes.get(12) {
        None => return Ok(Parsed::NeedMore),
        Some(0x20) => true,
        Some(0x21) => false,
        Some(version) if version >> 4 != 2 => return Err(HeaderError::NotAHeader),
        Some(_) => return Err(HeaderError::Command),
    };
    let Some(family) = bytes.get(13) else { return Ok(Parsed::NeedMore) };
    let address_bytes = match (is_local, family) {
        // "The receiver must [...] discard the protocol block including the family which is ignored."
        (true, _) => 0,
        (false, 0x11) => 12,
        (false, 0x21) => 36,
        (false, _) => return Err(HeaderError::Family),
    };
    let Some(length) = bytes.get(14..FIXED_BYTES) else { return Ok(Parsed::NeedMore) };
    let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
    if FIXED_BYTES + length > HEADER_BYTES_MAX {
        return Err(HeaderError::TooLong);
    }
    if length < address_bytes {
        return Err(HeaderError::Truncated);
    }
    let Some(body) = bytes.get(FIXED_BYTES..FIXED_BYTES + length) else { return Ok(Parsed::NeedMore) };
    let (addresses, fields) = body.split_at(address_bytes);
    if !is_local && !are_fields(fields) {
        return Err(HeaderError::Truncated);
    }
    Ok(Parsed::Header { client: client(addresses), bytes: FIXED_BYTES + length })
}

/// Source address, destination address, source port, destination port.
fn client(addresses: &[u8]) -> Option<SocketAddr> {
    let port = |at: usize| Some(u16::from_be_bytes(addresses.get(at..at + 2)?.try_into().ok()?));
    match addresses.len() {
        12 => {
            let octets: [u8; 4] = addresses.get(..4)?.try_into().ok()?;
            Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::from(octets)), port(8)?))
        }
        36 => {
            let octets: [u8; 16] = addresses.get(..16)?.try_into().ok()?;
            Some(SocketAddr::new(IpAddr::V6(Ipv6Addr::from(octets)).to_canonical(), port(32)?))
        }
        _ => None,
    }
}

/// Whether bytes are whole fields of type, length and value. What they say is not looked at.
fn are_fields(mut bytes: &[u8]) -> bool {
    while let [_, high, low, rest @ ..] = bytes {
        let Some(rest) = rest.get(usize::from(u16::from_be_bytes([*high, *low]))..) else { return false };
        bytes = rest;
    }
    bytes.is_empty()
}

/// From whom a header is required, and how long it may take.
#[derive(Debug, Clone, Default)]
pub struct ProxyRules {
    /// The proxies.
    pub from: Blocks,
    /// From the connection's start to the header's last byte.
    pub timeout_ms: u64,
}

/// What the adapter has done, for metrics. Shared within a thread.
#[derive(Debug, Default)]
pub struct ProxyCounters {
    /// Headers taken.
    pub taken: Cell<u64>,
    /// Connections closed for what came in a header's place.
    pub refused: Cell<u64>,
    /// Connections closed because no header came in time.
    pub timed_out: Cell<u64>,
}

fn raise(counter: &Cell<u64>) {
    counter.set(counter.get() + 1);
}

#[derive(Debug)]
struct Waiting {
    origin: Origin,
    /// What there is of the header.
    bytes: Vec<u8>,
}

/// The adapter.
#[derive(Debug)]
pub struct Proxy<H> {
    inner: H,
    rules: ProxyRules,
    counters: Rc<ProxyCounters>,
    waiting: BTreeMap<ConnectionKey, Waiting>,
    /// Accepted since the last turn, which knows the time.
    fresh: Vec<ConnectionKey>,
    /// In the order of their deadlines. At most those that were accepted within one timeout.
    deadlines: VecDeque<(u64, ConnectionKey)>,
    commands: VecDeque<Command>,
}

impl<H: Handler> Proxy<H> {
    /// An adapter before `inner`. Without any proxies it passes everything on.
    #[must_use]
    pub fn new(inner: H, rules: ProxyRules, counters: Rc<ProxyCounters>) -> Self {
        Self {
            inner,
            rules,
            counters,
            waiting: BTreeMap::new(),
            fresh: Vec::new(),
            deadlines: VecDeque::new(),
            commands: VecDeque::new(),
        }
    }

    fn refuse(&mut self, key: ConnectionKey) {
        self.waiting.remove(&key);
        self.commands.push_back(Command::Close { connection: key });
    }

    fn header(&mut self, key: ConnectionKey, bytes: &mut [u8]) {
        let Some(waiting) = self.waiting.get_mut(&key) else { return };
        let kept = waiting.bytes.len();
        // No more than the longest header is ever copied, and nothing of one that comes whole.
        let begin = &bytes[..bytes.len().min(HEADER_BYTES_MAX - kept)];
        let parsed = if kept == 0 {
            parse(begin)
        } else {
            waiting.bytes.extend_from_slice(begin);
            parse(&waiting.bytes)
        };
        match parsed {
            Ok(Parsed::NeedMore) if kept == 0 => waiting.bytes.extend_from_slice(begin),
            Ok(Parsed::NeedMore) => {}
            Ok(Parsed::Header { client, bytes: header_bytes }) => {
                raise(&self.counters.taken);
                let origin = waiting.origin;
                let origin = Origin { peer: client.unwrap_or(origin.peer), ..origin };
                self.waiting.remove(&key);
                self.inner.accepted(key, origin);
                // A whole header was not there before these bytes, so it ends within them.
                let rest = &mut bytes[header_bytes - kept..];
                if !rest.is_empty() {
                    self.inner.received(key, rest);
                }
            }
            Err(_) => {
                raise(&self.counters.refused);
                self.refuse(key);
            }
        }
    }
}

impl<H: Handler> Handler for Proxy<H> {
    fn accepted(&mut self, connection: ConnectionKey, origin: Origin) {
        if self.rules.from.contain(origin.peer.ip()) {
            self.waiting.insert(connection, Waiting { origin, bytes: Vec::new() });
            self.fresh.push(connection);
        } else {
            self.inner.accepted(connection, origin);
        }
    }

    fn received(&mut self, connection: ConnectionKey, bytes: &mut [u8]) {
        if !self.waiting.is_empty() && self.waiting.contains_key(&connection) {
            self.header(connection, bytes);
        } else {
            self.inner.received(connection, bytes);
        }
    }

    fn sent(&mut self, connection: ConnectionKey) {
        self.inner.sent(connection);
    }

    fn closed(&mut self, connection: ConnectionKey) {
        if self.waiting.is_empty() || self.waiting.remove(&connection).is_none() {
            self.inner.closed(connection);
        }
    }

    fn turn(&mut self, now_ms: u64) -> Turn {
        self.deadlines.extend(self.fresh.drain(..).map(|key| (now_ms + self.rules.timeout_ms, key)));
        while let Some((deadline_ms, key)) = self.deadlines.front().copied() {
            let waits = self.waiting.contains_key(&key);
            if waits && deadline_ms > now_ms {
                break;
            }
            // One whose header came is forgotten as soon as it is the first, not at its deadline.
            self.deadlines.pop_front();
            if waits {
                raise(&self.counters.timed_out);
                self.refuse(key);
            }
        }
        let mut turn = self.inner.turn(now_ms);
        let deadline_ms = self.deadlines.front().map(|(deadline_ms, _)| *deadline_ms);
        turn.wake_at_ms = turn.wake_at_ms.into_iter().chain(deadline_ms).min();
        turn
    }

    fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front().or_else(|| self.inner.poll_command())
    }
}

#[cfg(test)]
mod tests;
