//! The driver's logic: opens connections, says what is to be said, and checks what comes back. The same for every
//! server.
//!
//! A payload names its message; nothing is kept of it but the numbers of the next one to send and the next one to come:
//!
//! ```text
//!  0       4       8              16
//! +-------+-------+---------------+---------
//! | number| slot  | intended, ns  | filler …
//! +-------+-------+---------------+---------
//! ```
//!
//! An echo comes back on the connection that it left from. A broadcast leaves from slot 0 and comes to all others.
//! Either way a connection's numbers come in order, none twice and none left out; anything else is a [`Fault`], and the
//! first one ends the run.

use std::ops::Range;

use antiphon_loadgen::{
    clock::{Clock, Nanoseconds, SECOND_NS},
    driver::{Handler, Links},
    random::Random,
    websocket::{self, Opcode, WebSocketError},
};
use hdrhistogram::Histogram;

use super::nats::{self, Event, NatsError};

/// Bytes of a payload.
pub(super) const PAYLOAD_BYTES: usize = 64;

/// The rest of a payload.
const FILLER: u8 = b'~';

/// The slot that broadcasts.
const PUBLISHER: u32 = 0;

/// Handshakes under way at once: less than the smallest backlog of the servers, 512, so that none waits for a SYN to be
/// sent again.
const HANDSHAKES_MAX: u32 = 200;

/// Longest answer to an upgrade, or frame, that is waited for.
const WAITING_BYTES_MAX: usize = 64 * 1024;

/// Latencies beyond count as this long: no load is waited for longer.
const LATENCY_NS_MAX: u64 = 120 * SECOND_NS;

/// What servers do, and how they are spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// What a connection sends comes back.
    Echo,
    /// What slot 0 sends comes to all others.
    Broadcast,
    /// The same, in NATS' protocol.
    NatsBroadcast,
}

impl Kind {
    fn is_broadcast(self) -> bool {
        self != Self::Echo
    }
}

/// What broke.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// A message came twice or in another's place.
    #[error("connection {slot} got message {got} where {expected} was due")]
    Order {
        /// On which connection.
        slot: u32,
        /// Its number.
        got: u32,
        /// What should have come.
        expected: u32,
    },
    /// Bytes that nobody sent.
    #[error("connection {0} got a payload that nobody sent")]
    Payload(u32),
    /// A connection ended, or never stood.
    #[error("connection {0} ended, errno {1}")]
    Ended(u32, i32),
    /// The server's WebSocket is not in order.
    #[error("connection {0}: {1}")]
    WebSocket(u32, WebSocketError),
    /// The server's NATS is not in order.
    #[error("connection {0}: {1}")]
    Nats(u32, NatsError),
    /// A frame or an answer does not end.
    #[error("connection {0} got a frame that is too long")]
    TooLong(u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    Upgrading,
    /// NATS: the server has not answered the greeting.
    Greeting,
    Open,
}

struct Slot {
    state: State,
    /// An answer or a frame that has not come whole.
    partial: Vec<u8>,
    /// NATS: a message that has not come whole.
    text: Vec<u8>,
    sent: u32,
    received: u32,
}

/// What was counted since [`Client::measure`].
pub(super) struct Counts {
    /// Messages that were sent.
    pub(super) sent: u64,
    /// Echoes or deliveries that came.
    pub(super) received: u64,
    /// From the intended time to the arrival, of messages intended within the window.
    pub(super) latency: Histogram<u64>,
    /// From the intended time to the sending.
    pub(super) late: Histogram<u64>,
}

impl Counts {
    fn new() -> Self {
        let histogram = || Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("good bounds");
        Self { sent: 0, received: 0, latency: histogram(), late: histogram() }
    }
}

/// All connections.
pub(super) struct Client {
    kind: Kind,
    clock: Clock,
    random: Random,
    host: String,
    key: String,
    slots: Vec<Slot>,
    next_to_connect: u32,
    open: u32,
    /// Messages, echoes or deliveries that are still to come.
    pub(super) under_way: u64,
    window: Range<Nanoseconds>,
    /// Of the window.
    pub(super) counts: Counts,
    /// A closed loop sends again what came back, until then.
    refill_until: Nanoseconds,
    /// The first thing that broke.
    pub(super) fault: Option<Fault>,
}

impl Client {
    /// `count` connections that are not open; a broadcast has one more, which publishes.
    pub(super) fn new(kind: Kind, count: u32, host: String, clock: Clock, mut random: Random) -> Self {
        let slot = || Slot { state: State::Closed, partial: Vec::new(), text: Vec::new(), sent: 0, received: 0 };
        let nonce = u128::from(random.next_u64()).to_le_bytes();
        Self {
            kind,
            clock,
            random,
            host,
            key: websocket::key(nonce),
            slots: std::iter::repeat_with(slot).take(Self::slots_for(kind, count) as usize).collect(),
            next_to_connect: 0,
            open: 0,
            under_way: 0,
            window: 0..0,
            counts: Counts::new(),
            refill_until: 0,
            fault: None,
        }
    }

    /// Connections of the driver for so many that are to be measured.
    pub(super) fn slots_for(kind: Kind, count: u32) -> u32 {
        count + u32::from(kind.is_broadcast())
    }

    /// Opens more, unless enough are being opened.
    pub(super) fn connect_more(&mut self, links: &mut Links) {
        while (self.next_to_connect as usize) < self.slots.len() && self.next_to_connect < self.open + HANDSHAKES_MAX {
            links.connect(self.next_to_connect, false);
            self.next_to_connect += 1;
        }
    }

    /// Whether every connection can be used.
    pub(super) fn all_open(&self) -> bool {
        self.open as usize == self.slots.len()
    }

    /// Counts from nothing, for messages intended within the window.
    pub(super) fn measure(&mut self, window: Range<Nanoseconds>) {
        self.window = window;
        self.counts = Counts::new();
    }

    /// Sends a message of an open loop: from any connection, or to all.
    pub(super) fn send_due(&mut self, links: &mut Links, intended_ns: Nanoseconds) {
        let slot = if self.kind.is_broadcast() { PUBLISHER } else { self.random.below(self.slots.len() as u64) as u32 };
        self.send(links, slot, intended_ns);
    }

    /// Keeps one message of each connection under way until then.
    pub(super) fn close_loop(&mut self, links: &mut Links, until_ns: Nanoseconds) {
        self.refill_until = until_ns;
        for slot in 0..self.slots.len() as u32 {
            self.send(links, slot, self.clock.now_ns());
        }
    }

    fn send(&mut self, links: &mut Links, slot: u32, intended_ns: Nanoseconds) {
        let number = self.slots[slot as usize].sent;
        self.slots[slot as usize].sent = number.wrapping_add(1);
        let mut payload = [FILLER; PAYLOAD_BYTES];
        payload[..4].copy_from_slice(&number.to_le_bytes());
        payload[4..8].copy_from_slice(&slot.to_le_bytes());
        payload[8..16].copy_from_slice(&intended_ns.to_le_bytes());
        if self.kind == Kind::NatsBroadcast {
            self.write(links, slot, &nats::publish(&payload));
        } else {
            self.write(links, slot, &payload);
        }
        self.under_way += if self.kind.is_broadcast() { self.slots.len() as u64 - 1 } else { 1 };
        if self.window.contains(&intended_ns) {
            self.counts.sent += 1;
            self.counts.late.saturating_record(self.clock.now_ns().saturating_sub(intended_ns).max(1));
        }
    }

    fn write(&mut self, links: &mut Links, slot: u32, payload: &[u8]) {
        let mask = (self.random.next_u64() as u32).to_le_bytes();
        websocket::write_frame(links.write(slot), Opcode::Binary, payload, mask);
    }

    fn opened(&mut self, slot: u32) {
        self.slots[slot as usize].state = State::Open;
        self.open += 1;
    }

    /// Takes bytes off the front of `input` until more are needed.
    fn take(&mut self, links: &mut Links, slot: u32, mut input: &[u8]) -> Result<usize, Fault> {
        let whole = input.len();
        if self.slots[slot as usize].state == State::Upgrading {
            let answer = websocket::read_upgrade(input, &self.key, None);
            let Some(consumed) = answer.map_err(|error| Fault::WebSocket(slot, error))? else {
                return Ok(0);
            };
            input = &input[consumed..];
            if self.kind == Kind::NatsBroadcast {
                self.slots[slot as usize].state = State::Greeting;
                self.write(links, slot, &nats::greeting(slot != PUBLISHER));
            } else {
                self.opened(slot);
            }
        }
        loop {
            let frame = websocket::read_frame(input, WAITING_BYTES_MAX);
            let Some(frame) = frame.map_err(|error| Fault::WebSocket(slot, error))? else {
                return Ok(whole - input.len());
            };
            match frame.opcode {
                Opcode::Binary | Opcode::Text if self.kind == Kind::NatsBroadcast => {
                    self.nats(links, slot, frame.payload)?;
                }
                Opcode::Binary => self.came(links, slot, frame.payload)?,
                Opcode::Close => return Err(Fault::Ended(slot, 0)),
                // Nobody here is asked for a pong, and none is wanted.
                Opcode::Text | Opcode::Ping | Opcode::Pong => {}
            }
            input = &input[frame.bytes..];
        }
    }

    fn nats(&mut self, links: &mut Links, slot: u32, bytes: &[u8]) -> Result<(), Fault> {
        let mut text = std::mem::take(&mut self.slots[slot as usize].text);
        let joined;
        let mut input = if text.is_empty() {
            bytes
        } else {
            text.extend(bytes);
            joined = std::mem::take(&mut text);
            joined.as_slice()
        };
        while let Some(event) = nats::next(&mut input).map_err(|error| Fault::Nats(slot, error))? {
            match event {
                Event::Ping => self.write(links, slot, nats::PONG),
                Event::Pong if self.slots[slot as usize].state == State::Greeting => self.opened(slot),
                Event::Message(payload) => self.came(links, slot, payload)?,
                Event::Pong | Event::Other => {}
            }
        }
        self.slots[slot as usize].text = input.to_vec();
        Ok(())
    }

    /// A payload came.
    fn came(&mut self, links: &mut Links, slot: u32, payload: &[u8]) -> Result<(), Fault> {
        let sender = if self.kind.is_broadcast() { PUBLISHER } else { slot };
        let Some((number, intended_ns)) = parse(payload, sender) else {
            return Err(Fault::Payload(slot));
        };
        let sent = self.slots[sender as usize].sent;
        let state = &mut self.slots[slot as usize];
        let is_publisher = self.kind.is_broadcast() && slot == PUBLISHER;
        if number != state.received || number == sent || is_publisher {
            return Err(Fault::Order { slot, got: number, expected: state.received });
        }
        state.received = number.wrapping_add(1);
        self.under_way -= 1;
        let now_ns = self.clock.now_ns();
        if self.window.contains(&now_ns) {
            self.counts.received += 1;
        }
        if self.window.contains(&intended_ns) {
            self.counts.latency.saturating_record(now_ns.saturating_sub(intended_ns).max(1));
        }
        if now_ns < self.refill_until {
            self.send(links, slot, now_ns);
        }
        Ok(())
    }
}

/// Number and intended time of a payload, if it is one of this sender's.
fn parse(payload: &[u8], sender: u32) -> Option<(u32, Nanoseconds)> {
    let (number, rest) = payload.split_first_chunk::<4>()?;
    let (slot, rest) = rest.split_first_chunk::<4>()?;
    let (intended_ns, filler) = rest.split_first_chunk::<8>()?;
    let good = u32::from_le_bytes(*slot) == sender
        && payload.len() == PAYLOAD_BYTES
        && filler.iter().all(|&byte| byte == FILLER);
    good.then(|| (u32::from_le_bytes(*number), u64::from_le_bytes(*intended_ns)))
}

impl Handler for Client {
    fn connected(&mut self, links: &mut Links, slot: u32) {
        self.slots[slot as usize].state = State::Upgrading;
        websocket::write_upgrade(links.write(slot), &self.host, "/", &self.key, None);
    }

    fn received(&mut self, links: &mut Links, slot: u32, bytes: &[u8]) {
        if self.fault.is_some() {
            return;
        }
        let mut partial = std::mem::take(&mut self.slots[slot as usize].partial);
        let input = if partial.is_empty() {
            bytes
        } else {
            partial.extend(bytes);
            &partial
        };
        match self.take(links, slot, input) {
            Ok(consumed) => {
                let rest = input[consumed..].to_vec();
                if rest.len() > WAITING_BYTES_MAX {
                    self.fault = Some(Fault::TooLong(slot));
                }
                self.slots[slot as usize].partial = rest;
            }
            Err(fault) => self.fault = Some(fault),
        }
    }

    fn closed(&mut self, _: &mut Links, slot: u32, errno: i32) {
        self.fault.get_or_insert(Fault::Ended(slot, errno));
    }
}

#[cfg(test)]
mod tests {
    use antiphon_loadgen::driver::{Driver, DriverOptions};

    use super::*;

    fn payload(number: u32, slot: u32, intended_ns: u64) -> Vec<u8> {
        let mut payload = [number.to_le_bytes(), slot.to_le_bytes()].concat();
        payload.extend(intended_ns.to_le_bytes());
        payload.resize(PAYLOAD_BYTES, FILLER);
        payload
    }

    #[test]
    fn a_payload_is_its_senders_or_nothing() {
        assert_eq!(parse(&payload(7, 3, 9), 3), Some((7, 9)));
        assert_eq!(parse(&payload(7, 3, 9), 4), None);
        assert_eq!(parse(&payload(7, 3, 9)[..63], 3), None);
        let mut changed = payload(7, 3, 9);
        changed[40] = 0;
        assert_eq!(parse(&changed, 3), None);
    }

    /// A client whose connections all stand, and a ring that sends nothing anywhere.
    fn client(kind: Kind, count: u32) -> (Client, Driver) {
        let options = DriverOptions {
            target: "127.0.0.1:9".parse().unwrap(),
            slots: Client::slots_for(kind, count),
            first: 0,
            buffers: 8,
            small_receive_bytes: None,
        };
        let mut client = Client::new(kind, count, "h".into(), Clock::start(), Random::new(1, 0));
        client.slots.iter_mut().for_each(|slot| slot.state = State::Open);
        client.measure(0..u64::MAX);
        (client, Driver::new(&options).unwrap())
    }

    fn frame(payload: &[u8]) -> Vec<u8> {
        [&[0x82, payload.len() as u8][..], payload].concat()
    }

    #[test]
    fn echoes_come_once_and_in_order_in_whatever_pieces() {
        let (mut client, mut driver) = client(Kind::Echo, 2);
        let links = driver.links();
        client.send(links, 1, 5);
        client.send(links, 1, 6);
        let bytes = [frame(&payload(0, 1, 5)), frame(&payload(1, 1, 6))].concat();
        for byte in &bytes[..70] {
            client.received(links, 1, &[*byte]);
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
        client.received(links, 1, &bytes[70..]);
        assert!(client.counts.latency.max() >= 1_000_000, "from the intended time");
        assert_eq!((client.fault.clone(), client.under_way), (None, 0));
        assert_eq!((client.counts.sent, client.counts.received, client.counts.latency.len()), (2, 2, 2));
        client.received(links, 1, &frame(&payload(1, 1, 6)));
        assert_eq!(client.fault, Some(Fault::Order { slot: 1, got: 1, expected: 2 }));
    }

    #[test]
    fn what_is_lost_doubled_or_strange_is_a_fault() {
        let check = |kind, slot, bytes: Vec<u8>, expect| {
            let (mut client, mut driver) = client(kind, 2);
            (0..2).for_each(|_| client.send(driver.links(), 0, 5));
            client.received(driver.links(), slot, &bytes);
            assert_eq!(client.fault, expect);
        };
        let echo = |number| frame(&payload(number, 0, 5));
        check(Kind::Echo, 0, echo(0), None);
        check(Kind::Echo, 0, echo(1), Some(Fault::Order { slot: 0, got: 1, expected: 0 }));
        check(Kind::Echo, 0, [echo(0), echo(0)].concat(), Some(Fault::Order { slot: 0, got: 0, expected: 1 }));
        check(Kind::Echo, 0, frame(&payload(0, 1, 5)), Some(Fault::Payload(0)));
        check(Kind::Echo, 1, frame(&payload(0, 1, 5)), Some(Fault::Order { slot: 1, got: 0, expected: 0 }));
        check(Kind::Echo, 0, vec![0x88, 0], Some(Fault::Ended(0, 0)));
        check(Kind::Broadcast, 2, [echo(0), echo(1)].concat(), None);
        check(Kind::Broadcast, 0, echo(0), Some(Fault::Order { slot: 0, got: 0, expected: 0 }));
        let nats = |text: &[u8]| frame(&[b"MSG all 1 64\r\n", text, b"\r\n"].concat());
        check(Kind::NatsBroadcast, 1, nats(&payload(0, 0, 5)), None);
        check(Kind::NatsBroadcast, 1, nats(&payload(1, 0, 5)), Some(Fault::Order { slot: 1, got: 1, expected: 0 }));
        check(Kind::NatsBroadcast, 1, frame(b"-ERR no\r\n"), Some(Fault::Nats(1, NatsError::Refused("no".into()))));
    }

    #[test]
    fn a_broadcast_is_under_way_until_the_last_has_it() {
        let (mut client, mut driver) = client(Kind::Broadcast, 3);
        client.send_due(driver.links(), 5);
        assert_eq!(client.under_way, 3);
        for slot in 1..4 {
            client.received(driver.links(), slot, &frame(&payload(0, 0, 5)));
        }
        assert_eq!((client.under_way, client.counts.received, client.fault.clone()), (0, 3, None));
    }

    #[test]
    fn a_closed_loop_sends_again_what_came_back() {
        let (mut client, mut driver) = client(Kind::Echo, 2);
        client.close_loop(driver.links(), u64::MAX);
        assert_eq!(client.under_way, 2);
        client.received(driver.links(), 1, &frame(&payload(0, 1, 0)));
        assert_eq!((client.under_way, client.slots[1].sent), (2, 2));
        client.refill_until = 0;
        client.received(driver.links(), 1, &frame(&payload(1, 1, 0)));
        assert_eq!((client.under_way, client.slots[1].sent), (1, 2));
    }

    #[test]
    fn nats_is_greeted_before_it_counts_as_open() {
        let (mut client, mut driver) = client(Kind::NatsBroadcast, 1);
        client.slots[1].state = State::Upgrading;
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {}\r\n\r\n",
            websocket::accept_for(&client.key)
        );
        let bytes = [answer.as_bytes(), &frame(b"INFO {}\r\nPI"), &frame(b"NG\r\n")].concat();
        client.received(driver.links(), 1, &bytes);
        assert_eq!((client.open, client.slots[1].state), (0, State::Greeting));
        client.received(driver.links(), 1, &frame(b"PONG\r\n"));
        assert_eq!((client.open, client.slots[1].state, client.fault.clone()), (1, State::Open, None));
    }
}
