//! What lanes say to this shard's connections: answers, pushes and positions, each to the sessions that it is for.

use std::{collections::BTreeMap, ops::Range};

use antiphon_engine::seams::{Clock, Files, Random};
use antiphon_wire::{
    binary,
    codes::CloseCode,
    frame::{Present, ServerFrame, UserPresence},
    ids::LanePosition,
};

use super::{
    super::{
        connection::{Connection, Rendered},
        enquiry::Direction,
        io::ConnectionKey,
        mesh::{Barred, ConnectionFrame, LaneId, MeshConnection},
        session::{LaneCaughtUp, Session},
    },
    EXCESS_RECONNECT_MS, ShardCore,
    later::Push,
    traces::Seen,
};

/// When one comes back whom a lane could not take. It happens when all of a node's clients come at once: those who are told the same
/// time come at once again, and attempts that fail leave the lane less to work with.
const OVERLOADED_RETURN_MS: Range<u32> = 2_000..20_000;

impl<F: Files, C: Clock, R: Random> ShardCore<F, C, R> {
    pub(super) fn deliver(&mut self, lane: LaneId, frame: ConnectionFrame) {
        match frame {
            ConnectionFrame::Push { conversation, connections, conflation_key, frame } => {
                let push = Push { conversation, connections, conflation_key, frame };
                if self.later.is_for(&push, self.view.config.fanout.at_a_time) {
                    return self.later.push(lane, push);
                }
                let mut rendered = Rendered::new(&push.frame);
                for connection in push.connections {
                    self.push(connection.into(), lane, conflation_key, &mut rendered);
                }
            }
            ConnectionFrame::Reply { connection, gather, frame } => {
                let key = connection.into();
                self.with_session(key, |session, environment, actions| {
                    session.reply(gather, frame, environment, actions);
                });
                if self.waits_too_much(key) {
                    self.counters.slow_consumers += 1;
                    self.end(key, CloseCode::SlowConsumer, Some(EXCESS_RECONNECT_MS), true);
                } else if self.draining.is_some() {
                    self.answered_while_draining(key);
                }
            }
            ConnectionFrame::Privacy { connection, privacy } => {
                self.with_session(connection.into(), |session, environment, actions| {
                    session.private(privacy.as_ref(), environment, actions);
                });
            }
            ConnectionFrame::Receipts { connection, gather, hidden } => {
                let key = connection.into();
                self.with_session(key, |session, _, actions| session.receipts(gather, hidden.as_deref(), actions));
                if self.draining.is_some() {
                    self.answered_while_draining(key);
                }
            }
            ConnectionFrame::Watched { connection, gather, users, watching } => {
                let key = connection.into();
                self.with_session(key, |session, _, actions| {
                    session.watched(lane, gather, users, watching, actions);
                });
                if self.draining.is_some() {
                    self.answered_while_draining(key);
                }
            }
            ConnectionFrame::Present { users, connections } => self.present(&users, connections),
            ConnectionFrame::Beside { connection, frame } => {
                self.with_session(connection.into(), |session, _, actions| session.beside(frame, actions));
            }
            ConnectionFrame::CaughtUp { connection, position, reset, entries, states, too_far, pointers, left } => {
                self.position(lane, position);
                let caught_up = LaneCaughtUp { reset, entries, states, too_far, pointers, left };
                let mut is_attached = false;
                self.with_session(connection.into(), |session, environment, actions| {
                    let was_attaching = session.is_attaching(environment);
                    session.caught_up(lane, caught_up, environment, actions);
                    is_attached = was_attaching && !session.is_attaching(environment);
                });
                self.counters.attaching -= u64::from(is_attached);
                // It may have been on its way in when its user began to be traced.
                if is_attached && !self.traces.are_none() {
                    self.trace_if_asked(connection.into());
                }
            }
            ConnectionFrame::Position { position } => self.position(lane, position),
            ConnectionFrame::AttachFailed { connection } => {
                let spread_ms = u64::from(OVERLOADED_RETURN_MS.end - OVERLOADED_RETURN_MS.start);
                let after_ms = OVERLOADED_RETURN_MS.start + (self.random() % spread_ms) as u32;
                self.end(connection.into(), CloseCode::Overloaded, Some(after_ms), false);
            }
            ConnectionFrame::Entered { connection, refused_until, privacy } => {
                self.with_session(connection.into(), |session, environment, actions| {
                    session.entered(lane, refused_until, privacy.as_ref(), environment, actions);
                });
            }
            ConnectionFrame::Barred { connection, why } => {
                match why {
                    Barred::Revoked => self.counters.revoked += 1,
                    Barred::TooManyDevices { .. } => self.counters.too_many_devices += 1,
                }
                self.with_session(connection.into(), |session, _, actions| session.barred(why, actions));
            }
            ConnectionFrame::Replaced { connection } => {
                self.counters.replaced += 1;
                self.end(connection.into(), CloseCode::Replaced, None, false);
            }
        }
    }

    /// A lane is so far: it counts behind all pushes of it.
    fn position(&mut self, lane: LaneId, position: LanePosition) {
        if let Some(position) = self.later.position(lane, position) {
            self.advance(lane, position);
        }
    }

    pub(super) fn advance(&mut self, lane: LaneId, position: LanePosition) {
        let known = &mut self.view.positions[usize::from(lane.0)];
        *known = position.max(*known);
    }

    /// Tells connections of the users whom each watches and who have come or gone; many of the same ones.
    fn present(&mut self, users: &[UserPresence], connections: Vec<(MeshConnection, Vec<u32>)>) {
        let mut frames: BTreeMap<Vec<u32>, Vec<MeshConnection>> = BTreeMap::new();
        for (connection, of) in connections {
            if let Some(session) = self.connection(connection.into()).and_then(Connection::session) {
                session.presents(of.iter().map(|user| &users[*user as usize]));
            }
            frames.entry(of).or_default().push(connection);
        }
        for (of, connections) in frames {
            let users = of.iter().map(|user| users[*user as usize].clone()).collect();
            let frame = binary::encode_server(None, &ServerFrame::Present(Present { users }));
            let mut rendered = Rendered::new(&frame);
            for connection in connections {
                self.push_to(connection.into(), None, 0, &mut rendered);
            }
        }
    }

    pub(super) fn push(&mut self, key: ConnectionKey, lane: LaneId, conflation_key: u64, rendered: &mut Rendered<'_>) {
        self.push_to(key, Some(lane), conflation_key, rendered);
    }

    /// Pushes to a session; of a lane only if that has caught it up.
    fn push_to(&mut self, key: ConnectionKey, lane: Option<LaneId>, conflation_key: u64, rendered: &mut Rendered<'_>) {
        let limit = self.view.config.outbound_bytes_max;
        let Some((connection, deflater)) = self.connection_and_deflater(key) else { return };
        let is_due = |session: &&mut Session| lane.is_none_or(|lane| session.is_live(lane));
        let Some(session) = connection.session().filter(is_due) else { return };
        let encoding = session.encoding();
        let bytes = rendered.form(encoding, connection.deflate, deflater);
        if connection.outbound.bytes() + bytes.len() > limit {
            self.counters.slow_consumers += 1;
            return self.end(key, CloseCode::SlowConsumer, Some(1_000), true);
        }
        let (length, is_traced) = (bytes.len(), connection.is_traced);
        connection.outbound.push(bytes, conflation_key);
        if is_traced {
            self.note(key, Direction::Out, Seen::binary(rendered.frame()), length);
        }
        self.counters.frames_out += 1;
        self.counters.deliveries += 1;
        self.mark_dirty(key);
    }
}
