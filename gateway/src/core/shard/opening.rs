//! A connection's way until it is open: taken or not, its request's head, its upgrade.

use std::rc::Rc;

use antiphon_engine::seams::{Clock, Files, Random};
use antiphon_wire::codec::Encoding;

use super::{
    super::{
        admission::{Payer, Place, Refusal, Refused},
        connection::{Connection, Opening, Stage},
        http::{
            self,
            forwarded::{Forwarded, forwarded},
        },
        io::{Command, ConnectionKey, Origin},
        pressure::Pressure,
        session::Session,
        websocket::{Decoder, Role},
    },
    ShardCore, TurnedAway,
};

impl<F: Files, C: Clock, R: Random> ShardCore<F, C, R> {
    /// A connection was accepted.
    pub fn accepted(&mut self, key: ConnectionKey, origin: Origin) {
        self.counters.accepted += 1;
        let (payer, place) = match self.admit(origin) {
            Ok(admitted) => admitted,
            Err(refused) => return self.turn_away(key, refused),
        };
        let slot = key.slot as usize;
        if self.connections.len() <= slot {
            self.connections.resize_with(slot + 1, || None);
        }
        assert!(self.connections[slot].is_none(), "a slot is taken once");
        let frames_full_at = self.frame_rate.full(self.now_us);
        let connection = Connection::new(key.generation, self.now_ms, payer, place, frames_full_at);
        self.connections[slot] = Some(Box::new(connection));
        self.counters.connections += 1;
        self.newcomers.came(self.now_ms);
        self.timers.set(key, self.now_ms + self.view.config.head_timeout_ms);
    }

    /// From what costs least to know to what costs most.
    fn admit(&mut self, origin: Origin) -> Result<(Payer, Option<Place>), Refused> {
        let now_ns = self.now_ns();
        let why = if self.draining.is_some() {
            Refusal::Draining
        } else if self.counters.connections as usize >= self.view.config.connections_max {
            Refusal::Full
        } else if self.pressure != Pressure::None {
            Refusal::Memory
        } else {
            return self.admission.accepted(origin.peer.ip(), now_ns);
        };
        Err(Refused { why, after_seconds: 0 })
    }

    fn turn_away(&mut self, key: ConnectionKey, refused: Refused) {
        self.counters.refused[refused.why.index()] += 1;
        let seconds = TurnedAway::retry_after_seconds(refused.after_seconds, self.random());
        match self.turned_away.begin(key, refused.why.status(), seconds, self.now_ms) {
            Some(answer) => {
                self.counters.bytes_out += answer.len() as u64;
                self.commands.push_back(Command::Send { connection: key, buffers: vec![answer], awaited: true });
            }
            None => {
                self.counters.refused_unanswered += 1;
                self.commands.push_back(Command::Close { connection: key });
            }
        }
    }

    /// Bytes of a connection that was not taken.
    pub(super) fn heard_turned_away(&mut self, key: ConnectionKey) {
        if self.turned_away.heard(key) {
            self.commands.push_back(Command::Close { connection: key });
        }
    }

    /// The answer to a connection that was not taken has left.
    pub(super) fn answered_turned_away(&mut self, key: ConnectionKey) {
        if self.turned_away.answered(key) {
            self.commands.push_back(Command::Close { connection: key });
        }
    }

    pub(super) fn handshake(&mut self, key: ConnectionKey, bytes: &mut [u8]) {
        let Some(connection) = self.connections[key.slot as usize].as_deref_mut() else { return };
        let Stage::Handshake { head, .. } = &mut connection.stage else { return };
        head.extend_from_slice(bytes);
        let outcome = http::upgrade(head, &self.view.config.http);
        if outcome == http::Outcome::NeedMore || !self.charge_forwarded(key) {
            return;
        }
        let Some(connection) = self.connections[key.slot as usize].as_deref_mut() else { return };
        let Stage::Handshake { head, payer } = &mut connection.stage else { return };
        match outcome {
            http::Outcome::NeedMore => {}
            http::Outcome::Respond { bytes, status } => {
                self.counters.http_refused += 1;
                // A health check that asks for `/` has done nothing wrong.
                if status >= 400 {
                    self.admission.failed(*payer, self.now_us.saturating_mul(1_000));
                }
                connection.outbound.push(Rc::from(bytes), 0);
                connection.stage = Stage::Closing { decoder: None };
            }
            http::Outcome::Upgrade(_) if self.draining.is_some() => {
                let retry_after_seconds = 1 + (self.random() % 8) as u32;
                self.refuse_upgrade(key, retry_after_seconds);
            }
            http::Outcome::Upgrade(upgrade) => {
                let encoding =
                    upgrade.subprotocol.as_deref().and_then(Encoding::from_subprotocol).unwrap_or(Encoding::Json);
                let mut rest = head.split_off(upgrade.consumed_bytes);
                let payer = *payer;
                connection.outbound.push(Rc::from(upgrade.response), 0);
                let token: Option<Box<str>> = upgrade.request.token.map(|token| token.expose().into());
                let opening = Some(Box::new(Opening { token, payer }));
                let session = Session::new(encoding, &self.environment(key));
                if let Some(connection) = self.connection(key) {
                    connection.deflate = upgrade.deflate;
                    connection.stage = Stage::Open { decoder: Decoder::new(Role::Server), session, opening };
                }
                if !rest.is_empty() {
                    self.frames(key, &mut rest);
                }
            }
        }
    }

    /// A whole head is there: if a proxy sent it, its client pays now. `false`: the client is not taken, and has its answer.
    fn charge_forwarded(&mut self, key: ConnectionKey) -> bool {
        let now_ns = self.now_ns();
        let Some(connection) = self.connections[key.slot as usize].as_deref_mut() else { return false };
        let Stage::Handshake { head, payer } = &mut connection.stage else { return false };
        if *payer != Payer::Forwarded {
            return true;
        }
        let rules = self.admission.rules();
        let client = match forwarded(head, rules.forwarded_header, &rules.forwarded_from) {
            Forwarded::Client(client) => client,
            Forwarded::Nobody => return true,
            Forwarded::Malformed => {
                self.counters.forwarded_malformed += 1;
                return true;
            }
        };
        let refused = match self.admission.forwarded(client, now_ns) {
            Ok((charged, place)) => {
                *payer = charged;
                connection.place = place;
                return true;
            }
            Err(refused) => refused,
        };
        self.counters.refused[refused.why.index()] += 1;
        connection.stage = Stage::Closing { decoder: None };
        let seconds = TurnedAway::retry_after_seconds(refused.after_seconds, self.random());
        if let Some(connection) = self.connection(key) {
            connection.outbound.push(Rc::from(http::come_back_later(refused.why.status(), seconds)), 0);
        }
        false
    }

    /// A connection came to nothing: until `connect` succeeded, somebody answers for it.
    pub(super) fn failed(&mut self, key: ConnectionKey) {
        let now_ns = self.now_ns();
        let payer = self.connection(key).and_then(|connection| match &connection.stage {
            Stage::Handshake { payer, .. } => Some(*payer),
            Stage::Open { opening, .. } => opening.as_ref().map(|opening| opening.payer),
            Stage::Closing { .. } => None,
        });
        if let Some(payer) = payer {
            self.admission.failed(payer, now_ns);
        }
    }

    fn now_ns(&self) -> u64 {
        self.now_us.saturating_mul(1_000)
    }
}
