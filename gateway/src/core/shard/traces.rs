//! What an operator is shown of one user's sessions while it happens: which frames, not what they say.
//!
//! Invariants: only a connection whose flag is set costs anything; so many users are traced at most, each for a bounded time and into a
//! bounded buffer, and what is dropped is counted. Nothing that is noted holds content, a title or a token: a frame is reduced to its name,
//! its request's id, its conversation and its length before it is kept. Must not do: change what a session does.

use std::collections::VecDeque;

use antiphon_engine::seams::{Clock, Files, Random};
use antiphon_wire::{
    binary,
    codec::Encoding,
    codes::CloseCode,
    frame::ServerFrame,
    ids::{ConversationId, RequestId, UserId},
};
use serde_json::Value;

use super::{
    super::{
        connection::Connection,
        enquiry::{Direction, TRACE_EVENTS_MAX, TRACE_MS_MAX, TRACES_MAX, TraceEvent, Traced},
        io::ConnectionKey,
        mesh::MeshConnection,
    },
    ShardCore,
};

/// The name under which bytes are noted that are no frame.
const NO_FRAME: &str = "no_frame";

/// A frame without what it says.
pub(super) struct Seen {
    kind: String,
    request: Option<u64>,
    conversation: Option<ConversationId>,
}

impl Seen {
    /// A client's.
    pub(super) fn request(encoding: Encoding, bytes: &[u8]) -> Self {
        match encoding.decode_request(bytes) {
            Ok((id, request)) => Self::of_json(&Encoding::Json.encode_request(id, &request)),
            Err(error) => {
                Self { kind: NO_FRAME.to_owned(), request: error.id.map(|id| u64::from(id.0)), conversation: None }
            }
        }
    }

    /// The node's.
    pub(super) fn server(id: Option<RequestId>, frame: &ServerFrame) -> Self {
        Self::of_json(&Encoding::Json.encode_server(id, frame))
    }

    /// The node's, in its binary form.
    pub(super) fn binary(frame: &[u8]) -> Self {
        match binary::message_archive(frame) {
            Some(archive) => Self::of_json(&Encoding::Json.encode_message(archive)),
            None => match binary::decode_server(frame) {
                Ok((id, frame)) => Self::server(id, &frame),
                Err(_) => Self::named(NO_FRAME),
            },
        }
    }

    fn named(kind: &str) -> Self {
        Self { kind: kind.to_owned(), request: None, conversation: None }
    }

    /// A frame's JSON is an object with an id and one member that is named after the frame.
    fn of_json(bytes: &[u8]) -> Self {
        let Ok(Value::Object(frame)) = serde_json::from_slice(bytes) else { return Self::named(NO_FRAME) };
        let request = frame.get("id").and_then(Value::as_u64);
        let Some((kind, body)) = frame.into_iter().find(|(name, _)| name != "id") else { return Self::named(NO_FRAME) };
        let conversation = body.get("conversation").and_then(Value::as_str).and_then(|text| text.parse().ok());
        Self { kind, request, conversation }
    }
}

struct Trace {
    number: u64,
    user: UserId,
    until_ms: u64,
    events: VecDeque<TraceEvent>,
    dropped: u64,
}

/// The users who are traced, at most [`TRACES_MAX`].
#[derive(Default)]
pub(super) struct Traces(Vec<Trace>);

impl Traces {
    pub(super) fn are_none(&self) -> bool {
        self.0.is_empty()
    }

    fn of(&mut self, user: &UserId, now_ms: u64) -> Option<&mut Trace> {
        self.0.iter_mut().find(|trace| trace.user == *user && now_ms < trace.until_ms)
    }

    pub(super) fn take(&mut self, number: u64, now_ms: u64) -> Option<Traced> {
        let trace = self.0.iter_mut().find(|trace| trace.number == number && now_ms < trace.until_ms)?;
        let (events, dropped) = (std::mem::take(&mut trace.events), std::mem::take(&mut trace.dropped));
        Some(Traced { events: events.into(), dropped })
    }

    /// Those of its sessions that still have their flag lose it when something happens to them next.
    pub(super) fn end(&mut self, number: u64) {
        self.0.retain(|trace| trace.number != number);
    }
}

impl<F: Files, C: Clock, R: Random> ShardCore<F, C, R> {
    /// Begins to note what a user's sessions send and are sent, or goes on with more of them; whether there is room for that.
    pub(super) fn trace(&mut self, number: u64, user: UserId, connections: Vec<MeshConnection>) -> bool {
        let now_ms = self.now_ms;
        self.traces.0.retain(|trace| now_ms < trace.until_ms);
        if !self.traces.0.iter().any(|trace| trace.number == number) {
            if self.traces.0.len() == TRACES_MAX {
                return false;
            }
            let until_ms = now_ms + TRACE_MS_MAX;
            self.traces.0.push(Trace { number, user, until_ms, events: VecDeque::new(), dropped: 0 });
        }
        connections.into_iter().for_each(|connection| self.trace_if_asked(connection.into()));
        true
    }

    /// Sets the flag of a connection whose user is traced.
    pub(super) fn trace_if_asked(&mut self, key: ConnectionKey) {
        let now_ms = self.now_ms;
        let slot = self.connections.get_mut(key.slot as usize).and_then(Option::as_deref_mut);
        let Some(connection) = slot.filter(|connection| connection.generation == key.generation) else { return };
        let user = connection.session().and_then(|session| session.user());
        connection.is_traced = user.is_some_and(|user| self.traces.of(user, now_ms).is_some());
    }

    /// A session whose user may be traced has begun.
    pub(super) fn trace_newcomer(&mut self, key: ConnectionKey) {
        self.trace_if_asked(key);
        if self.connection(key).is_some_and(|connection| connection.is_traced) {
            self.note(key, Direction::Session, Seen::named("began"), 0);
        }
    }

    /// A traced session is over, with this code if the node ended it; nothing of its connection is noted any more.
    #[cold]
    pub(super) fn note_end(&mut self, key: ConnectionKey, code: Option<CloseCode>) {
        let kind = code.map_or_else(|| "ended".to_owned(), |code| format!("ended: {}", code.name()));
        self.note(key, Direction::Session, Seen::named(&kind), 0);
        if let Some(connection) = self.connection(key) {
            connection.is_traced = false;
        }
    }

    /// Notes something of a connection whose flag is set.
    #[cold]
    pub(super) fn note(&mut self, key: ConnectionKey, direction: Direction, seen: Seen, bytes: usize) {
        let (now_ms, time) = (self.now_ms, self.clock.now());
        let slot = self.connections.get_mut(key.slot as usize).and_then(Option::as_deref_mut);
        let Some(connection) = slot.filter(|connection| connection.generation == key.generation) else { return };
        let waiting_bytes = connection.outbound.bytes() as u64;
        let identity = connection.session().and_then(|session| session.identity());
        let trace = identity.and_then(|(user, device)| Some((self.traces.of(user, now_ms)?, device)));
        let Some((trace, device)) = trace else {
            connection.is_traced = false;
            return;
        };
        if trace.events.len() == TRACE_EVENTS_MAX {
            trace.events.pop_front();
            trace.dropped += 1;
        }
        let Seen { kind, request, conversation } = seen;
        let (device, bytes) = (device.clone(), bytes as u64);
        trace.events.push_back(TraceEvent {
            time,
            device,
            direction,
            kind,
            request,
            conversation,
            bytes,
            waiting_bytes,
        });
    }

    /// Queues a frame for a session, and notes it if the session is traced.
    pub(super) fn tell(&mut self, key: ConnectionKey, id: Option<RequestId>, frame: &ServerFrame) {
        let Some((connection, deflater)) = self.connection_and_deflater(key) else { return };
        let before = connection.is_traced.then(|| connection.outbound.bytes());
        connection.send_frame(id, frame, deflater);
        if let Some(before) = before {
            let bytes = queued_since(connection, before);
            self.note(key, Direction::Out, Seen::server(id, frame), bytes);
        }
    }

    /// The same for a frame in its binary form.
    pub(super) fn tell_binary(&mut self, key: ConnectionKey, frame: &[u8]) {
        let Some((connection, deflater)) = self.connection_and_deflater(key) else { return };
        let before = connection.is_traced.then(|| connection.outbound.bytes());
        connection.send_binary(frame, deflater);
        if let Some(before) = before {
            let bytes = queued_since(connection, before);
            self.note(key, Direction::Out, Seen::binary(frame), bytes);
        }
    }
}

fn queued_since(connection: &Connection, before: usize) -> usize {
    connection.outbound.bytes().saturating_sub(before)
}
