//! TLS between a driver and a handler: ciphertext on the driver's side, plaintext on the handler's, by rustls.
//!
//! [`Tls`] is itself a [`Handler`]. Connections of listeners that do not speak TLS pass through untouched. Invariants:
//!
//! - The handler hears of a connection when it is accepted, so that its time limits and admission hold for the handshake too. What it
//!   wants to send before the handshake is over cannot be said in secret, so the connection is closed instead.
//! - An idle session keeps no buffer: what waits here is the part of a record that has not come whole, and ciphertext behind a send
//!   in flight. Both are bounded: a record, and a message of a handshake over several, by the protocol (80 KiB), the latter by the one send that a handler may have in flight
//!   and [`NOTICES_BYTES_MAX`].
//! - Handshakes wait in a queue of which a turn takes at most [`HANDSHAKES_PER_TURN_MAX`] steps, so that a storm of them does not keep
//!   open sessions waiting. A connection stands in it once.
//!
//! Here and not in `core`, since rustls takes time and randomness by itself.

mod certificate;
mod raw_keys;
mod session;
mod settings;

use std::{cell::Cell, collections::VecDeque, rc::Rc, sync::Arc};

use rustls::{Error, ServerConfig};

pub use self::certificate::make_certificate;
use self::session::{Session, State, Step};
pub use self::settings::{Chain, OldestVersion, Settings, TlsError};
use crate::core::io::{Command, ConnectionKey, Handler, Origin, Turn};

/// Steps of handshakes in a turn. The dearest, key exchange and signature, takes about 100 µs.
const HANDSHAKES_PER_TURN_MAX: usize = 8;

/// Bytes that a handshake may have waiting for its turn: a client's whole part takes a tenth of it.
const HANDSHAKE_BYTES_MAX: usize = 16 << 10;

/// Alerts, tickets and key updates that may wait behind a send in flight. A peer that asks for more without reading is cut off.
const NOTICES_BYTES_MAX: usize = 64 << 10;

/// How long a last notice may take to leave.
const CLOSE_TIMEOUT_MS: u64 = 5_000;

/// What TLS has done on a shard, for metrics. Only ever added to, but for the gauge.
#[derive(Debug, Default)]
pub struct TlsCounters {
    /// Handshakes with a signature.
    pub full: Cell<u64>,
    /// Handshakes by a ticket.
    pub resumed: Cell<u64>,
    /// Handshakes that failed by something wrong in them: garbage, no common version or suite, an alert of the client.
    pub failed: Cell<u64>,
    /// Handshakes that were cut off: refused by admission, out of time, or the client went away.
    pub abandoned: Cell<u64>,
    /// Open sessions that broke: a record that cannot be decrypted, a violation of the protocol.
    pub broken: Cell<u64>,
    /// Now: handshakes that wait for their turn.
    pub waiting: Cell<u64>,
}

fn count(counter: &Cell<u64>) {
    counter.set(counter.get() + 1);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Handshaking,
    Open,
    /// The handler has forgotten it; a last notice is on its way.
    Ending,
}

/// One connection.
struct Link {
    generation: u32,
    stage: Stage,
    /// Whether it stands in the queue of handshakes.
    is_waiting: bool,
    /// A send is with the driver.
    in_flight: bool,
    /// The handler waits for `sent`.
    handler_waits: bool,
    session: Session,
    /// Ciphertext that came, as far as it was no use yet.
    received: Vec<u8>,
    /// Ciphertext that waits for the send in flight.
    waiting: Vec<u8>,
}

/// See the module.
pub struct Tls<H> {
    handler: H,
    settings: Option<Arc<Settings>>,
    /// The first listener that speaks TLS; those behind it do too.
    first_listener: u8,
    config: Option<(u64, Arc<ServerConfig>)>,
    /// By slot.
    links: Vec<Option<Box<Link>>>,
    handshakes: VecDeque<ConnectionKey>,
    /// Links that are ending, in the order of their deadlines.
    ending: VecDeque<(u64, ConnectionKey)>,
    commands: VecDeque<Command>,
    counters: Rc<TlsCounters>,
    now_ms: u64,
    plain: Vec<u8>,
    out: Vec<u8>,
}

impl<H: Handler> Tls<H> {
    /// In front of `handler`; with settings, listeners from `first_listener` on speak TLS.
    pub fn new(handler: H, settings: Option<Arc<Settings>>, first_listener: u8, counters: Rc<TlsCounters>) -> Self {
        Self {
            handler,
            settings,
            first_listener,
            config: None,
            links: Vec::new(),
            handshakes: VecDeque::new(),
            ending: VecDeque::new(),
            commands: VecDeque::new(),
            counters,
            now_ms: 0,
            plain: Vec::new(),
            out: Vec::new(),
        }
    }

    /// What is behind TLS.
    pub fn handler(&self) -> &H {
        &self.handler
    }

    /// What is behind TLS.
    pub fn handler_mut(&mut self) -> &mut H {
        &mut self.handler
    }

    fn link(&mut self, key: ConnectionKey) -> Option<&mut Link> {
        let link = self.links.get_mut(key.slot as usize)?.as_deref_mut()?;
        (link.generation == key.generation).then_some(link)
    }

    fn forget(&mut self, key: ConnectionKey) {
        if let Some(link) = self.link(key) {
            if link.stage == Stage::Handshaking {
                count(&self.counters.abandoned);
            }
            self.links[key.slot as usize] = None;
        }
    }

    fn config(&mut self, settings: &Settings) -> Arc<ServerConfig> {
        let generation = settings.generation();
        match &self.config {
            Some((known, config)) if *known == generation => Arc::clone(config),
            _ => {
                let config = settings.current();
                self.config = Some((generation, Arc::clone(&config)));
                config
            }
        }
    }

    /// Runs what came through the session, from `bytes` or, if there are none, from what was kept; hands on what it says.
    fn process(&mut self, key: ConnectionKey, bytes: &mut [u8]) {
        let (mut plain, mut out) = (std::mem::take(&mut self.plain), std::mem::take(&mut self.out));
        plain.clear();
        out.clear();
        let link = self.link(key).expect("the caller has looked");
        let was_open = link.stage == Stage::Open;
        let state = if link.received.is_empty() {
            let Step { consumed_bytes, state } = link.session.process(bytes, &mut plain, &mut out);
            link.received.extend_from_slice(&bytes[consumed_bytes..]);
            state
        } else {
            let mut received = std::mem::take(&mut link.received);
            received.extend_from_slice(bytes);
            let Step { consumed_bytes, state } = link.session.process(&mut received, &mut plain, &mut out);
            received.drain(..consumed_bytes);
            if !received.is_empty() {
                link.received = received;
            }
            state
        };
        if !was_open && matches!(state, State::Open | State::Ended) {
            link.stage = Stage::Open;
            let kind = if link.session.is_resumed() { &self.counters.resumed } else { &self.counters.full };
            count(kind);
        }
        self.send(key, &out, true);
        if !plain.is_empty() {
            self.handler.received(key, &mut plain);
        }
        match state {
            State::Handshaking | State::Open => {}
            State::Ended => self.end(key),
            State::Failed(error) => self.fail(key, &error, was_open),
        }
        out.shrink_to(SCRATCH_BYTES_MAX);
        plain.shrink_to(SCRATCH_BYTES_MAX);
        (self.plain, self.out) = (plain, out);
    }

    /// The peer will send no more: as a driver says of a plain connection that its peer has ended.
    fn end(&mut self, key: ConnectionKey) {
        if self.link(key).is_some() {
            self.handler.closed(key);
            self.close(key);
        }
    }

    fn fail(&mut self, key: ConnectionKey, error: &Error, was_open: bool) {
        tracing::debug!(%error, was_open, "TLS failed");
        count(if was_open { &self.counters.broken } else { &self.counters.failed });
        let Some(link) = self.link(key) else { return };
        link.stage = Stage::Ending;
        let has_alert = link.in_flight;
        self.handler.closed(key);
        if has_alert {
            self.ending.push_back((self.now_ms + CLOSE_TIMEOUT_MS, key));
        } else {
            self.commands.push_back(Command::Close { connection: key });
            self.forget(key);
        }
    }

    /// Sends ciphertext, now or behind what is in flight. `awaited` as in [`Command::Send`].
    fn send(&mut self, key: ConnectionKey, bytes: &[u8], awaited: bool) {
        let Some(link) = self.link(key).filter(|_| !bytes.is_empty()) else { return };
        if !link.in_flight {
            link.in_flight = true;
            self.commands.push_back(Command::Send { connection: key, buffers: vec![Rc::from(bytes)], awaited });
            return;
        }
        link.waiting.extend_from_slice(bytes);
        if !link.handler_waits && link.waiting.len() > NOTICES_BYTES_MAX {
            self.cut(key);
        }
    }

    /// Encrypts what the handler sends, as few records as it fits in.
    fn encrypt(&mut self, key: ConnectionKey, buffers: Vec<Rc<[u8]>>, awaited: bool) {
        let (mut plain, mut out) = (std::mem::take(&mut self.plain), std::mem::take(&mut self.out));
        plain.clear();
        out.clear();
        let link = self.link(key).expect("the caller has looked");
        let result = match buffers.as_slice() {
            [one] => link.session.encrypt(&mut link.received, one, &mut out),
            many => {
                many.iter().for_each(|buffer| plain.extend_from_slice(buffer));
                link.session.encrypt(&mut link.received, &plain, &mut out)
            }
        };
        match result {
            Ok(()) => {
                link.handler_waits = true;
                self.send(key, &out, awaited);
            }
            Err(error) => {
                tracing::debug!(%error, "a TLS session can take no more");
                count(&self.counters.broken);
                self.cut(key);
            }
        }
        out.shrink_to(SCRATCH_BYTES_MAX);
        plain.shrink_to(SCRATCH_BYTES_MAX);
        (self.plain, self.out) = (plain, out);
    }

    /// Ends a connection that the handler still knows, without another word.
    fn cut(&mut self, key: ConnectionKey) {
        self.commands.push_back(Command::Close { connection: key });
        self.forget(key);
        self.handler.closed(key);
    }

    /// The handler has done with it: a notice that it was meant so (RFC 8446 §6.1) leaves first, unless the handler cuts a send off.
    fn close(&mut self, key: ConnectionKey) {
        let mut out = std::mem::take(&mut self.out);
        out.clear();
        let link = self.link(key).expect("the caller has looked");
        let is_orderly = link.stage == Stage::Open && !link.handler_waits;
        if is_orderly && link.session.close_notify(&mut link.received, &mut out).is_ok() {
            link.stage = Stage::Ending;
            self.send(key, &out, true);
            self.ending.push_back((self.now_ms + CLOSE_TIMEOUT_MS, key));
        } else {
            self.commands.push_back(Command::Close { connection: key });
            self.forget(key);
        }
        self.out = out;
    }

    fn run_handshakes(&mut self) {
        let mut steps = 0;
        while steps < HANDSHAKES_PER_TURN_MAX {
            let Some(key) = self.handshakes.pop_front() else { break };
            // One that was closed while it waited takes no step.
            let Some(link) = self.link(key).filter(|link| link.stage == Stage::Handshaking) else { continue };
            link.is_waiting = false;
            steps += 1;
            self.process(key, &mut []);
        }
        self.counters.waiting.set(self.handshakes.len() as u64);
    }

    fn run_timers(&mut self) {
        while let Some((_, key)) = self.ending.pop_front_if(|(deadline, _)| *deadline <= self.now_ms) {
            if self.link(key).is_some() {
                self.commands.push_back(Command::Close { connection: key });
                self.forget(key);
            }
        }
    }
}

/// Room that the shard's scratch buffers keep: a record.
const SCRATCH_BYTES_MAX: usize = 32 << 10;

impl<H: Handler> Handler for Tls<H> {
    fn accepted(&mut self, key: ConnectionKey, origin: Origin) {
        if let Some(settings) = self.settings.clone().filter(|_| origin.listener >= self.first_listener) {
            let config = self.config(&settings);
            let slot = key.slot as usize;
            if self.links.len() <= slot {
                self.links.resize_with(slot + 1, || None);
            }
            match Session::new(config) {
                Ok(session) => {
                    self.links[slot] = Some(Box::new(Link {
                        generation: key.generation,
                        stage: Stage::Handshaking,
                        is_waiting: false,
                        in_flight: false,
                        handler_waits: false,
                        session,
                        received: Vec::new(),
                        waiting: Vec::new(),
                    }));
                }
                Err(error) => {
                    tracing::error!(%error, "cannot begin a TLS session");
                    self.commands.push_back(Command::Close { connection: key });
                    return;
                }
            }
        }
        self.handler.accepted(key, origin);
    }

    fn received(&mut self, key: ConnectionKey, bytes: &mut [u8]) {
        let Some(link) = self.links.get_mut(key.slot as usize).and_then(Option::as_deref_mut) else {
            return self.handler.received(key, bytes);
        };
        match link.stage {
            _ if link.generation != key.generation => {}
            Stage::Ending => {}
            Stage::Open => self.process(key, bytes),
            Stage::Handshaking => {
                link.received.extend_from_slice(bytes);
                let is_too_long = link.received.len() > HANDSHAKE_BYTES_MAX;
                if !std::mem::replace(&mut link.is_waiting, true) {
                    self.handshakes.push_back(key);
                }
                if is_too_long {
                    self.cut(key);
                }
            }
        }
    }

    fn sent(&mut self, key: ConnectionKey) {
        let Some(link) = self.links.get_mut(key.slot as usize).and_then(Option::as_deref_mut) else {
            return self.handler.sent(key);
        };
        if link.generation != key.generation {
            return;
        }
        link.in_flight = false;
        if !link.waiting.is_empty() {
            let waiting = std::mem::take(&mut link.waiting);
            return self.send(key, &waiting, true);
        }
        if link.stage == Stage::Ending {
            self.commands.push_back(Command::Close { connection: key });
            self.forget(key);
        } else if std::mem::take(&mut link.handler_waits) {
            self.handler.sent(key);
        }
    }

    fn closed(&mut self, key: ConnectionKey) {
        match self.links.get(key.slot as usize).and_then(Option::as_deref) {
            None => self.handler.closed(key),
            Some(link) if link.generation == key.generation => {
                let is_known = link.stage != Stage::Ending;
                self.forget(key);
                if is_known {
                    self.handler.closed(key);
                }
            }
            Some(_) => {}
        }
    }

    fn turn(&mut self, now_ms: u64) -> Turn {
        self.now_ms = now_ms;
        self.run_timers();
        self.run_handshakes();
        let mut turn = self.handler.turn(now_ms);
        turn.more |= !self.handshakes.is_empty();
        turn.wake_at_ms = self.ending.front().map(|(deadline, _)| *deadline).into_iter().chain(turn.wake_at_ms).min();
        turn
    }

    fn poll_command(&mut self) -> Option<Command> {
        loop {
            if let Some(command) = self.commands.pop_front() {
                return Some(command);
            }
            match self.handler.poll_command()? {
                Command::Send { connection, buffers, awaited } => match self.link(connection).map(|link| link.stage) {
                    None => return Some(Command::Send { connection, buffers, awaited }),
                    Some(Stage::Open) => self.encrypt(connection, buffers, awaited),
                    Some(Stage::Handshaking) => self.cut(connection),
                    Some(Stage::Ending) => {}
                },
                Command::Close { connection } => match self.link(connection) {
                    None => return Some(Command::Close { connection }),
                    Some(_) => self.close(connection),
                },
            }
        }
    }
}
