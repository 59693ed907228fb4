//! Connections that are not taken: an answer, a moment for the peer to read it, the end.
//!
//! Refusing must cost little, so such a connection has no [`Connection`](super::super::connection::Connection), no timer of its own, and
//! shares its answer. It is not closed the moment its answer has left: closing a socket with unread bytes makes the kernel reset the
//! connection, and a reset overtakes the answer. So the peer's request is waited for, for [`LINGER_MS`].

use std::{
    collections::{BTreeMap, VecDeque},
    rc::Rc,
};

use super::super::{http, io::ConnectionKey};

/// Connections that get an answer at a time; the others are closed without. With [`LINGER_MS`] it is also about the number of answers a
/// second of a shard: more is a flood, whose makers read no answers.
const ANSWERED_MAX: usize = 1_024;

/// How long a request may follow its answer: a round trip over most of the world.
const LINGER_MS: u64 = 1_000;

/// Longest `Retry-After`: a bucket that takes longer to fill belongs to a limit that somebody chose to be strict.
const RETRY_AFTER_SECONDS_MAX: u32 = 60;

/// Window over which `Retry-After` spreads those who were refused together.
const RETRY_AFTER_WINDOW_SECONDS: u32 = 8;

#[derive(Debug, Clone, Copy, Default)]
struct State {
    heard: bool,
    answered: bool,
}

/// The connections that are being turned away.
#[derive(Debug, Default)]
pub(super) struct TurnedAway {
    connections: BTreeMap<ConnectionKey, State>,
    /// In the order of their deadlines; some may be gone already.
    deadlines: VecDeque<(u64, ConnectionKey)>,
    /// By status and seconds: the answers, made once.
    answers: BTreeMap<(u16, u32), Rc<[u8]>>,
}

impl TurnedAway {
    /// The seconds to tell, from the earliest that make sense and any random number.
    pub(super) fn retry_after_seconds(earliest: u32, random: u64) -> u32 {
        let spread = (random % u64::from(RETRY_AFTER_WINDOW_SECONDS)) as u32;
        earliest.min(RETRY_AFTER_SECONDS_MAX) + 1 + spread
    }

    /// Begins to turn a connection away: what it is to be sent; `None` if it is to be closed at once.
    pub(super) fn begin(
        &mut self,
        key: ConnectionKey,
        status: u16,
        retry_after_seconds: u32,
        now_ms: u64,
    ) -> Option<Rc<[u8]>> {
        if self.deadlines.len() >= ANSWERED_MAX {
            return None;
        }
        self.deadlines.push_back((now_ms + LINGER_MS, key));
        self.connections.insert(key, State::default());
        let answer = || Rc::from(http::come_back_later(status, retry_after_seconds));
        Some(Rc::clone(self.answers.entry((status, retry_after_seconds)).or_insert_with(answer)))
    }

    /// Bytes came from a connection, which are of no interest; whether it is over now.
    pub(super) fn heard(&mut self, key: ConnectionKey) -> bool {
        self.note(key, |state| state.heard = true)
    }

    /// The answer has left; whether the connection is over now.
    pub(super) fn answered(&mut self, key: ConnectionKey) -> bool {
        self.note(key, |state| state.answered = true)
    }

    /// The connection is gone.
    pub(super) fn forget(&mut self, key: ConnectionKey) {
        self.connections.remove(&key);
    }

    /// The next connection whose moment is over.
    pub(super) fn expire(&mut self, now_ms: u64) -> Option<ConnectionKey> {
        while let Some((_, key)) = self.deadlines.pop_front_if(|(deadline_ms, _)| *deadline_ms <= now_ms) {
            if self.connections.remove(&key).is_some() {
                return Some(key);
            }
        }
        None
    }

    /// Whether nobody is being turned away.
    pub(super) fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// When to ask for the next.
    pub(super) fn wake_at_ms(&self) -> Option<u64> {
        self.deadlines.front().map(|(deadline_ms, _)| *deadline_ms)
    }

    fn note(&mut self, key: ConnectionKey, note: impl FnOnce(&mut State)) -> bool {
        let Some(state) = self.connections.get_mut(&key) else { return false };
        note(state);
        let is_over = state.heard && state.answered;
        if is_over {
            self.connections.remove(&key);
        }
        is_over
    }
}
