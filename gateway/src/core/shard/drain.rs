//! How a shard sends everybody away: who is told when, and what is answered first.
//!
//! ```text
//! first pass, as fast as bounded turns allow
//!     session without open requests     goodbye, close
//!     session that waits for answers    takes no more requests; goodbye, close with the last answer
//!     unfinished upgrade                stays, and hears 503 when its request is complete
//! after ANSWER_WAIT_MS, or when told to hurry: second pass over whoever is left
//!     session                           goodbye, close
//!     unfinished upgrade                503, close
//! ```
//!
//! Goodbyes are not spread over the window, the returns are: a client that knows when to come back gains nothing by being told late,
//! while the log can be closed, and the next process begin, only after the last one was told. Invariants: everything that waits for a
//! client leaves before its goodbye; a turn says a bounded number of goodbyes. Must not do: wait for a client.

use std::{ops::Range, rc::Rc};

use antiphon_engine::seams::{Clock, Files, Random};
use antiphon_wire::codes::CloseCode;

use super::{MESH_BACKLOG_MAX, ShardCore};
use crate::core::{
    connection::{Connection, Stage},
    http,
    io::ConnectionKey,
};

/// Goodbyes in one turn: each is two frames, a send and a frame to every lane, so that a turn is to stay within some milliseconds.
const GOODBYES_PER_TURN_MAX: usize = 128;

/// Slots looked at in one turn, with or without a connection.
const SLOTS_PER_TURN_MAX: usize = 8_192;

/// How long a request may keep its session: many times what a durable write takes, short against a restart. What is not answered by then
/// is sent again by its client, under its id.
const ANSWER_WAIT_MS: u64 = 2_000;

/// A drain under way.
pub(super) struct Drain {
    /// From which to which time clients are told to come back.
    reconnect_after_ms: Range<u32>,
    /// The next slot to look at.
    next_slot: usize,
    /// Whether nobody is waited for any more.
    is_second_pass: bool,
    /// When the second pass begins.
    answers_until_ms: u64,
}

impl<F: Files, C: Clock, R: Random> ShardCore<F, C, R> {
    /// Begins to say goodbye to everybody, with times to come back spread over a range; takes no new sessions any more. The turns that
    /// follow carry it out.
    pub fn drain(&mut self, reconnect_after_ms: Range<u32>) {
        let answers_until_ms = self.now_ms + ANSWER_WAIT_MS;
        self.draining = Some(Drain { reconnect_after_ms, next_slot: 0, is_second_pass: false, answers_until_ms });
    }

    /// Waits for no answers any more.
    pub fn hurry(&mut self) {
        if let Some(drain) = &mut self.draining {
            drain.answers_until_ms = self.now_ms;
        }
    }

    /// Whether every session has been told, so that the engines have no clients left.
    #[must_use]
    pub fn is_told(&self) -> bool {
        self.first_pass_is_over() && self.counters.sessions == 0
    }

    /// Whether the last connection is gone.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.draining.is_some() && self.counters.connections == 0 && self.turned_away.is_empty()
    }

    /// When the drain wants a turn though nothing happens.
    pub(super) fn drain_wakes_at_ms(&self) -> Option<u64> {
        let waits = self.draining.as_ref().filter(|drain| !drain.is_second_pass)?;
        self.pass_is_over().then_some(waits.answers_until_ms)
    }

    fn pass_is_over(&self) -> bool {
        self.draining.as_ref().is_some_and(|drain| drain.next_slot >= self.connections.len())
    }

    fn first_pass_is_over(&self) -> bool {
        self.pass_is_over() || self.draining.as_ref().is_some_and(|drain| drain.is_second_pass)
    }

    /// A turn's worth of goodbyes; whether there are more to say at once.
    pub(super) fn say_goodbyes(&mut self) -> bool {
        let over = self.pass_is_over();
        let Some(drain) = &mut self.draining else { return false };
        if !drain.is_second_pass && (over || drain.answers_until_ms <= self.now_ms) {
            if drain.answers_until_ms > self.now_ms {
                return false;
            }
            (drain.is_second_pass, drain.next_slot) = (true, 0);
        }
        let (is_second_pass, first) = (drain.is_second_pass, drain.next_slot);
        let end = self.connections.len().min(first + SLOTS_PER_TURN_MAX);
        let mut said = 0;
        let mut slot = first;
        while slot < end && said < GOODBYES_PER_TURN_MAX && self.outgoing.requests_waiting() < MESH_BACKLOG_MAX {
            if let Some(connection) = &self.connections[slot] {
                let key = ConnectionKey { slot: slot as u32, generation: connection.generation };
                said += usize::from(self.send_away(key, is_second_pass));
            }
            slot += 1;
        }
        if let Some(drain) = &mut self.draining {
            drain.next_slot = slot;
        }
        // A lane that lags is waited for, not asked again and again.
        slot < self.connections.len() && self.outgoing.requests_waiting() < MESH_BACKLOG_MAX
    }

    /// Ends a session that only waited for the answer that it just got.
    pub(super) fn answered_while_draining(&mut self, key: ConnectionKey) {
        if self.connection(key).and_then(Connection::session).is_some_and(|session| session.is_stopping()) {
            self.send_away(key, false);
        }
    }

    /// Says goodbye to one connection, or has it wait for what is under way, unless that is over; whether anything was said.
    fn send_away(&mut self, key: ConnectionKey, at_once: bool) -> bool {
        let Some(range) = self.draining.as_ref().map(|drain| drain.reconnect_after_ms.clone()) else { return false };
        let after_ms = range.start + (self.random() % u64::from(range.len().max(1) as u32)) as u32;
        let retry_seconds = after_ms.div_ceil(1_000).max(1);
        let Some(connection) = self.connection(key) else { return false };
        match &mut connection.stage {
            Stage::Closing { .. } => false,
            Stage::Handshake { .. } if !at_once => false,
            Stage::Handshake { .. } => {
                self.refuse_upgrade(key, retry_seconds);
                self.settle(key);
                true
            }
            Stage::Open { session, .. } => {
                if !at_once && !session.is_answered() {
                    session.stop();
                    return false;
                }
                self.end(key, CloseCode::Restarting, Some(after_ms), false);
                true
            }
        }
    }

    /// Answers an upgrade, complete or not, with 503.
    pub(super) fn refuse_upgrade(&mut self, key: ConnectionKey, retry_after_seconds: u32) {
        self.counters.http_refused += 1;
        if let Some(connection) = self.connection(key) {
            connection.outbound.push(Rc::from(http::come_back_later(503, retry_after_seconds)), 0);
            connection.stage = Stage::Closing { decoder: None };
        }
    }
}
