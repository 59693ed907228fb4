//! What stands between a connection's WebSocket bytes and its socket: nothing for `ws://`, a TLS session for `wss://`.
//!
//! [`Secure`] holds the sessions of one thread beside its slots; only a `wss://` run has one. A handshake is expensive, a
//! millisecond for a handful of them, so its steps wait in a queue: whoever drives a thread takes a few between two looks at what
//! else is due, and the open loop keeps its times. Application data never waits.
//!
//! No clock: times come from the caller.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use crate::{
    clock::Nanoseconds,
    tls::{
        TlsClient, TlsError, TlsThread,
        session::{Agreed, Session},
    },
};

/// How bytes travel.
#[derive(Debug, Clone)]
pub enum Transport {
    /// As they are: `ws://`.
    Plain,
    /// Through TLS: `wss://`.
    Tls(Arc<TlsClient>),
}

/// A scheme of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// `ws://`.
    Plain,
    /// `wss://`.
    Tls,
}

impl Scheme {
    /// Takes the scheme off a target; `None` if it is not spoken.
    #[must_use]
    pub fn of(target: &str) -> Option<(Self, &str)> {
        let tls = target.strip_prefix("wss://").map(|rest| (Self::Tls, rest));
        tls.or_else(|| target.strip_prefix("ws://").map(|rest| (Self::Plain, rest)))
    }
}

/// Handshake steps that may wait before no new connection is begun: a tenth of a second of work or so.
const WAITING_MAX: usize = 512;

/// Different texts that are kept for the report.
const TEXTS_MAX: usize = 32;

/// A slot's session.
#[derive(Debug)]
struct Secured {
    /// `None`: TCP stands, and the first step is still to be made.
    session: Option<Session>,
    /// Since when TCP stands.
    since_ns: Nanoseconds,
    /// Since when the next step waits, if it does.
    waits_since_ns: Option<Nanoseconds>,
    /// The end is ours.
    is_left: bool,
}

/// Bytes of user space that a slot takes here, without its session.
pub const SLOT_BYTES: usize = size_of::<Option<Box<Secured>>>();

/// Size of a session's structure, which is allocated when its connection stands. What rustls and its ciphers have on the heap comes
/// on top.
pub const SESSION_BYTES: usize = size_of::<Secured>();

/// What a handshake, or its end, has to tell.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// It needs more of the server's bytes.
    Waits,
    /// The session stands. Plaintext may have come with it.
    Opened(Agreed),
}

/// What a thread's handshakes came to.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct TlsOutcome {
    /// Version, cipher suite and key exchange → how many handshakes agreed on them.
    pub agreed: BTreeMap<String, u64>,
    /// Why handshakes failed → how many.
    pub failures: BTreeMap<String, u64>,
}

impl TlsOutcome {
    /// Adds another thread's.
    pub fn add(&mut self, other: Self) {
        for (mine, theirs) in [(&mut self.agreed, other.agreed), (&mut self.failures, other.failures)] {
            theirs.into_iter().for_each(|(text, count)| count_text(mine, text, count));
        }
    }
}

/// Counts a text, among so many different ones at most.
fn count_text(texts: &mut BTreeMap<String, u64>, text: String, count: u64) {
    if texts.len() < TEXTS_MAX || texts.contains_key(&text) {
        *texts.entry(text).or_insert(0) += count;
    }
}

/// The TLS sessions of one thread.
#[derive(Debug)]
pub struct Secure {
    client: Arc<TlsClient>,
    thread: TlsThread,
    slots: Vec<Option<Box<Secured>>>,
    /// Slots whose handshake can go on. One that was closed and opened again may stand here twice.
    waiting: VecDeque<u32>,
    scratch: Vec<u8>,
    outgoing: Vec<u8>,
    outcome: TlsOutcome,
}

impl Secure {
    /// For so many slots.
    #[must_use]
    pub fn new(client: Arc<TlsClient>, slots: u32) -> Self {
        Self {
            thread: client.thread(slots),
            client,
            slots: std::iter::repeat_with(|| None).take(slots as usize).collect(),
            waiting: VecDeque::new(),
            scratch: Vec::new(),
            outgoing: Vec::new(),
            outcome: TlsOutcome::default(),
        }
    }

    /// What the handshakes came to.
    pub fn take_outcome(&mut self) -> TlsOutcome {
        std::mem::take(&mut self.outcome)
    }

    /// Whether steps of handshakes wait for [`Self::next_waiting`].
    #[must_use]
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether so many wait that nobody should begin another connection.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.waiting.len() >= WAITING_MAX
    }

    /// TCP stands: the handshake is to begin.
    pub fn connected(&mut self, slot: u32, now_ns: Nanoseconds) {
        let waits_since_ns = Some(now_ns);
        let secured = Secured { session: None, since_ns: now_ns, waits_since_ns, is_left: false };
        self.slots[slot as usize] = Some(Box::new(secured));
        self.waiting.push_back(slot);
    }

    /// The next slot whose handshake can go on, and since when it could.
    pub fn next_waiting(&mut self) -> Option<(u32, Nanoseconds)> {
        while let Some(slot) = self.waiting.pop_front() {
            let secured = self.slots[slot as usize].as_mut();
            if let Some(since_ns) = secured.and_then(|secured| secured.waits_since_ns.take()) {
                return Some((slot, since_ns));
            }
        }
        None
    }

    /// Makes the next step of a slot's handshake. Plaintext that came with its end is appended to `plain`.
    pub fn step(&mut self, slot: u32, plain: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<Step, TlsError> {
        let Some(secured) = self.slots[slot as usize].as_mut() else { return Ok(Step::Waits) };
        let config = self.thread.turn_to(slot);
        let Some(session) = secured.session.as_mut() else {
            secured.session = Some(Session::begin(config.clone(), self.client.name().clone(), out)?);
            return Ok(Step::Waits);
        };
        session.receive(&[], &mut self.scratch, plain, out)?;
        if session.is_handshaking() {
            return Ok(Step::Waits);
        }
        let agreed = session.agreed();
        count_text(&mut self.outcome.agreed, agreed.text.clone(), 1);
        Ok(Step::Opened(agreed))
    }

    /// Since when the slot's TCP connection stands.
    #[must_use]
    pub fn since_ns(&self, slot: u32) -> Option<Nanoseconds> {
        self.slots[slot as usize].as_ref().map(|secured| secured.since_ns)
    }

    /// Bytes came. Plaintext is appended to `plain`; what belongs to a handshake waits for its turn.
    pub fn received(
        &mut self,
        slot: u32,
        bytes: &[u8],
        now_ns: Nanoseconds,
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<(), TlsError> {
        let Some(secured) = self.slots[slot as usize].as_mut() else { return Ok(()) };
        let config = self.thread.turn_to(slot);
        // A server that speaks before it was spoken to speaks something else: the first step finds out what.
        if secured.session.is_none() {
            let mut session = Session::begin(config.clone(), self.client.name().clone(), out)?;
            session.keep(bytes)?;
            secured.session = Some(session);
            return Ok(());
        }
        let Some(session) = secured.session.as_mut() else { return Ok(()) };
        if !session.is_handshaking() {
            return session.receive(bytes, &mut self.scratch, plain, out);
        }
        session.keep(bytes)?;
        if secured.waits_since_ns.is_none() {
            secured.waits_since_ns = Some(now_ns);
            self.waiting.push_back(slot);
        }
        Ok(())
    }

    /// Whether the server said that nothing more follows.
    #[must_use]
    pub fn is_ended_by_server(&self, slot: u32) -> bool {
        let session = self.slots[slot as usize].as_ref().and_then(|secured| secured.session.as_ref());
        session.is_some_and(Session::is_ended_by_server)
    }

    /// Appends what `write` writes, as records, to `out`. It is thrown away if we have ended the connection, as the driver does.
    pub fn write(&mut self, slot: u32, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), TlsError> {
        self.outgoing.clear();
        write(&mut self.outgoing);
        let Some(secured) = self.slots[slot as usize].as_mut().filter(|secured| !secured.is_left) else {
            return Ok(());
        };
        secured.session.as_mut().ok_or(TlsError::CannotSend)?.write(&self.outgoing, out)
    }

    /// We end the connection.
    pub fn close(&mut self, slot: u32, out: &mut Vec<u8>) {
        if let Some(secured) = self.slots[slot as usize].as_mut() {
            secured.is_left = true;
            secured.waits_since_ns = None;
            if let Some(session) = secured.session.as_mut() {
                session.close(out);
            }
        }
    }

    /// The connection is gone.
    pub fn closed(&mut self, slot: u32) -> End {
        let Some(mut secured) = self.slots[slot as usize].take() else { return End::Known };
        if secured.is_left {
            return End::Known;
        }
        let Some(session) = secured.session.as_mut() else { return End::InHandshake(TlsError::EndedInHandshake) };
        if session.is_handshaking() {
            // The reason may lie in what waits to be looked at.
            self.thread.turn_to(slot);
            let looked = session.receive(&[], &mut self.scratch, &mut Vec::new(), &mut Vec::new());
            return End::InHandshake(looked.err().unwrap_or(TlsError::EndedInHandshake));
        }
        if session.is_open() { End::Unannounced } else { End::Known }
    }

    /// A handshake failed.
    pub fn failed(&mut self, error: &TlsError) {
        count_text(&mut self.outcome.failures, error.to_string(), 1);
    }
}

/// How a connection with TLS ended.
#[derive(Debug, PartialEq)]
pub enum End {
    /// By us, or as the server had announced, or for a reason that is told already.
    Known,
    /// The handshake was not over.
    InHandshake(TlsError),
    /// The server ended TCP and had not ended TLS: what it sent last may be missing.
    Unannounced,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::{TlsVersion, Trust};

    fn secure(slots: u32) -> Secure {
        let client = TlsClient::new(Trust::Anybody, "localhost", TlsVersion::Any, false).unwrap();
        Secure::new(client.into(), slots)
    }

    #[test]
    fn steps_wait_in_order_and_a_slot_that_came_back_has_one_turn() {
        let mut secure = secure(3);
        let (mut plain, mut out) = (Vec::new(), Vec::new());
        (0..3).for_each(|slot| secure.connected(slot, u64::from(slot)));
        secure.close(1, &mut out);
        assert_eq!((secure.closed(1), out.is_empty()), (End::Known, true));
        secure.connected(1, 7);
        let order: Vec<_> = std::iter::from_fn(|| secure.next_waiting()).collect();
        assert_eq!(order, [(0, 0), (1, 7), (2, 2)]);
        assert_eq!(secure.step(0, &mut plain, &mut out), Ok(Step::Waits));
        assert!(out.starts_with(&[22, 3, 1]), "a ClientHello");
        assert!(!secure.has_waiting(), "until the server says something");
        secure.received(0, &[22], 9, &mut plain, &mut out).unwrap();
        secure.received(0, &[3], 10, &mut plain, &mut out).unwrap();
        assert_eq!((secure.next_waiting(), secure.next_waiting()), (Some((0, 9)), None));
    }

    #[test]
    fn the_reason_of_an_end_is_found_in_what_was_not_looked_at_yet() {
        let mut secure = secure(2);
        let (mut plain, mut out) = (Vec::new(), Vec::new());
        secure.connected(0, 0);
        assert_eq!(secure.closed(0), End::InHandshake(TlsError::EndedInHandshake));
        secure.connected(1, 0);
        secure.step(1, &mut plain, &mut out).unwrap();
        secure.received(1, &[21, 3, 3, 0, 2, 2, 40], 1, &mut plain, &mut out).unwrap();
        let alert = TlsError::Alert(rustls::AlertDescription::HandshakeFailure);
        assert_eq!(secure.closed(1), End::InHandshake(alert));
    }

    #[test]
    fn what_is_written_after_our_end_is_thrown_away() {
        let mut secure = secure(1);
        let mut out = Vec::new();
        secure.connected(0, 0);
        secure.close(0, &mut out);
        assert_eq!(secure.write(0, &mut out, |out| out.push(1)), Ok(()));
        secure.closed(0);
        assert_eq!(secure.write(0, &mut out, |out| out.push(1)), Ok(()));
        assert!(out.is_empty());
    }

    #[test]
    fn texts_are_counted_and_so_many_kept() {
        let mut outcome = TlsOutcome::default();
        (0..2 * TEXTS_MAX).for_each(|number| count_text(&mut outcome.failures, (number % 40).to_string(), 1));
        outcome.add(outcome.clone());
        assert_eq!((outcome.failures.len(), outcome.failures["0"]), (TEXTS_MAX, 4));
    }
}
