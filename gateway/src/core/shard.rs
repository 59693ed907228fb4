//! A shard's logic: its connections, the lanes that live on it, and what it has to say to other shards.
//!
//! Call order, as [`io::Handler`](super::io::Handler) has it: bytes and completions first, frames of other shards next, then [`ShardCore::turn`],
//! then the commands and mesh frames that came of it. Everything that waits is bounded: connections by slots, their queues by bytes,
//! requests towards a lane by [`MESH_BACKLOG_MAX`] (beyond, clients hear `overloaded`), deliveries because a shard stops taking
//! requests, and outputs of its engines, while too many deliveries wait ([`ShardCore::may_take_requests`]).

mod counters;
mod deadlines;
mod deliveries;
mod drain;
mod enquiries;
mod later;
mod newcomers;
mod opening;
mod outgoing;
mod slow;
mod traces;
mod turned_away;

use std::{collections::VecDeque, rc::Rc};

use antiphon_engine::seams::{Clock, Files, Random};
use antiphon_wire::{
    binary,
    codec::Encoding,
    codes::CloseCode,
    frame::ServerFrame,
    ids::{LanePosition, TimestampMs},
};

pub use self::{counters::ShardCounters, outgoing::MeshOut};
use self::{
    later::Later,
    newcomers::Newcomers,
    outgoing::{MESH_BACKLOG_MAX, Outgoing},
    slow::{SLOW_BYTES_MIN, Slow},
    traces::{Seen, Traces},
    turned_away::TurnedAway,
};
use super::{
    admission::{self, Admission},
    connection::{Connection, Rendered, Stage},
    enquiry::Direction,
    fanout, http,
    io::{Command, ConnectionKey, Turn},
    lane::Lane,
    mesh::{ConnectionFrame, LaneFrame, LaneId, MeshMessage, ShardId},
    placement::Placement,
    pressure::Pressure,
    rate::SmallRate,
    session::{Action, Authenticate, Environment, Session},
    timers::TimerWheel,
    websocket::{self, Deflater, Event, Inflater},
};

/// Engine outputs handled in one turn: a turn stays within about a millisecond.
const OUTPUTS_PER_TURN_MAX: usize = 1_024;

/// Answers may wait to so many times what pushes may: a client that asks for many pages at once gets them, though they come in one burst.
/// Beyond half the bound for pushes further requests are answered with `overloaded`; ended is only who does not read at all.
const ANSWERS_FACTOR: usize = 4;

/// How much more slowly those who watch users, or do not look at a large conversation, are told while an engine's outputs fill every turn.
const SLICES_SLOWER: u64 = 4;

/// And while many deliveries wait.
const SLICES_SLOWEST: u64 = 16;
const SOME_DELIVERIES: usize = MESH_BACKLOG_MAX / 8;

/// With so many they are told nothing.
const MANY_DELIVERIES: usize = MESH_BACKLOG_MAX / 2;

/// When a client may come back that was closed for its own excess.
const EXCESS_RECONNECT_MS: u32 = 1_000;

/// How long a peer may take to answer a close frame, or to take what is left for it.
const CLOSE_TIMEOUT_MS: u64 = 5_000;

/// What a shard is told at its start.
pub struct ShardConfig {
    /// Its number.
    pub id: ShardId,
    /// The node's layout.
    pub placement: Placement,
    /// What upgrades are accepted.
    pub http: http::Rules,
    /// What messages are accepted.
    pub websocket: websocket::Limits,
    /// Checks tokens.
    pub authenticate: Box<dyn Authenticate + Send>,
    /// Requests a second that a session may make for long.
    pub requests_per_second_max: u32,
    /// Requests that it may make at once.
    pub requests_burst_max: u32,
    /// Whom it takes.
    pub admission: admission::Rules,
    /// WebSocket frames of any kind a second that a connection may send for long.
    pub frames_per_second_max: u32,
    /// Frames that it may send at once.
    pub frames_burst_max: u32,
    /// How long a connection may take until its request's head is whole.
    pub head_timeout_ms: u64,
    /// How long it may take until `connect` succeeded, from the same start.
    pub connect_timeout_ms: u64,
    /// Silence that ends a session.
    pub silence_ms_max: u64,
    /// Bytes that may wait for one connection.
    pub outbound_bytes_max: usize,
    /// Connections that this shard may hold.
    pub connections_max: usize,
    /// How messages are given to many.
    pub fanout: fanout::Rules,
    /// Devices of a user that may be connected at a time.
    pub devices_per_user: u32,
}

/// What sessions see of their shard.
struct View {
    config: ShardConfig,
    /// The store's identity; known once all lanes are open, and no connection is accepted before.
    store: u64,
    /// By lane: everything up to here has been handed to this shard's sessions.
    positions: Vec<LanePosition>,
    sessions_numbered: u64,
}

impl View {
    fn environment(
        &self,
        key: ConnectionKey,
        now: TimestampMs,
        monotonic_ms: u64,
        lanes_are_busy: bool,
    ) -> Environment<'_> {
        Environment {
            now,
            monotonic_ms,
            placement: self.config.placement,
            store: self.store,
            lanes_are_busy,
            positions: &self.positions,
            authenticate: self.config.authenticate.as_ref(),
            requests_per_second_max: self.config.requests_per_second_max,
            requests_burst_max: self.config.requests_burst_max,
            connection: key.into(),
            session_number: (u64::from(self.config.id.0) << 48) | self.sessions_numbered,
        }
    }
}

/// One shard.
pub struct ShardCore<F: Files, C: Clock, R: Random> {
    view: View,
    clock: C,
    now_us: u64,
    now_ms: u64,
    connections: Vec<Option<Box<Connection>>>,
    dirty: Vec<ConnectionKey>,
    commands: VecDeque<Command>,
    lanes: Vec<Lane<F, C, R>>,
    outgoing: Outgoing,
    later: Later,
    admission: Admission,
    pressure: Pressure,
    newcomers: Newcomers,
    frame_rate: SmallRate,
    turned_away: TurnedAway,
    timers: TimerWheel,
    /// Connections that are closing, in the order of their deadlines.
    closing: VecDeque<(u64, ConnectionKey)>,
    due: Vec<ConnectionKey>,
    slow: Slow,
    traces: Traces,
    actions: Vec<Action>,
    draining: Option<drain::Drain>,
    jitter: u64,
    deflater: Deflater,
    inflater: Inflater,
    counters: ShardCounters,
}

impl<F: Files, C: Clock, R: Random> ShardCore<F, C, R> {
    /// A shard without connections and, for now, without lanes.
    pub fn new(config: ShardConfig, clock: C, now_us: u64) -> Self {
        let now_ms = now_us / 1_000;
        let lanes = usize::from(config.placement.lanes);
        Self {
            jitter: now_us ^ u64::from(config.id.0),
            outgoing: Outgoing::new(config.id),
            later: Later::default(),
            admission: Admission::new(config.admission.clone()),
            pressure: Pressure::None,
            newcomers: Newcomers::new(config.placement.shards),
            frame_rate: SmallRate::new(config.frames_per_second_max, config.frames_burst_max),
            turned_away: TurnedAway::default(),
            view: View { config, store: 0, positions: vec![LanePosition(0); lanes], sessions_numbered: 0 },
            clock,
            now_us,
            now_ms,
            connections: Vec::new(),
            dirty: Vec::new(),
            commands: VecDeque::new(),
            lanes: Vec::new(),
            timers: TimerWheel::new(now_ms),
            closing: VecDeque::new(),
            due: Vec::new(),
            slow: Slow::default(),
            traces: Traces::default(),
            actions: Vec::new(),
            draining: None,
            deflater: Deflater::default(),
            inflater: Inflater::default(),
            counters: ShardCounters::default(),
        }
    }

    /// How near the node is to its memory limit; newcomers are judged by the last word.
    pub fn set_pressure(&mut self, pressure: Pressure) {
        self.pressure = pressure;
    }

    /// A lane of this shard is open.
    pub fn add_lane(&mut self, mut lane: Lane<F, C, R>) {
        lane.set_rules(self.view.config.fanout);
        lane.set_devices_max(self.view.config.devices_per_user);
        self.lanes.push(lane);
    }

    /// The node's layout.
    #[must_use]
    pub fn placement(&self) -> Placement {
        self.view.config.placement
    }

    /// The lanes that live here.
    #[must_use]
    pub fn lanes(&self) -> &[Lane<F, C, R>] {
        &self.lanes
    }

    /// The lanes that live here, for their samples.
    pub fn lanes_mut(&mut self) -> &mut [Lane<F, C, R>] {
        &mut self.lanes
    }

    /// What it has done.
    #[must_use]
    pub fn counters(&self) -> ShardCounters {
        ShardCounters {
            mesh_backlog: self.outgoing.backlog() as u64,
            addresses_untracked: self.admission.untracked(),
            ..self.counters
        }
    }

    /// The store's identity, for clients' positions: to be told before the first connection is accepted.
    pub fn set_store(&mut self, store: u64) {
        self.view.store = store;
        self.jitter ^= store;
    }

    /// Monotonic time goes on: to be called before anything else that time matters for.
    pub fn set_now(&mut self, now_us: u64) {
        self.now_us = self.now_us.max(now_us);
        self.now_ms = self.now_us / 1_000;
    }

    /// Bytes came.
    pub fn received(&mut self, key: ConnectionKey, bytes: &mut [u8]) {
        self.counters.bytes_in += bytes.len() as u64;
        let Some(connection) = self.connections.get_mut(key.slot as usize).and_then(Option::as_deref_mut) else {
            return self.heard_turned_away(key);
        };
        if connection.generation != key.generation {
            return;
        }
        match &mut connection.stage {
            Stage::Handshake { .. } => self.handshake(key, bytes),
            Stage::Open { .. } => self.frames(key, bytes),
            Stage::Closing { decoder } => {
                let limits = websocket::Limits::default();
                let mut input = bytes;
                let Some(decoder) = decoder else { return };
                loop {
                    let inflater = connection.deflate.map(|_| &mut self.inflater);
                    match decoder.poll_inflating(&mut input, &limits, inflater) {
                        Ok(Some(Event::Close { .. })) | Err(_) => break,
                        Ok(Some(_)) => {}
                        Ok(None) => return,
                    }
                }
                connection.stage = Stage::Closing { decoder: None };
            }
        }
        self.settle(key);
    }

    /// The last send left.
    pub fn sent(&mut self, key: ConnectionKey) {
        if let Some(connection) = self.connection(key) {
            connection.outbound.sent();
            if connection.is_slow && connection.outbound.bytes() < SLOW_BYTES_MIN {
                self.is_slow_no_more(key);
            }
            self.settle(key);
        } else {
            self.answered_turned_away(key);
        }
    }

    /// The connection is gone.
    pub fn closed(&mut self, key: ConnectionKey) {
        if self.connection(key).is_some() {
            self.forget(key);
        } else {
            self.turned_away.forget(key);
        }
    }

    /// A frame came from a lane of another shard.
    pub fn delivery(&mut self, message: &MeshMessage) {
        self.deliver(message.lane, ConnectionFrame::from_bytes(&message.bytes));
    }

    /// A frame came from another shard for a lane of this one. Only while [`Self::may_take_requests`].
    pub fn request(&mut self, message: &MeshMessage) {
        self.lane_request(message.from, message.lane, LaneFrame::from_bytes(&message.bytes));
    }

    /// Whether frames for lanes may be handed in now.
    #[must_use]
    pub fn may_take_requests(&self) -> bool {
        let expected = self
            .view
            .config
            .placement
            .lanes()
            .filter(|lane| self.view.config.placement.shard_of(*lane) == self.view.config.id)
            .count();
        self.lanes.len() == expected && self.outgoing.backlog() < MESH_BACKLOG_MAX
    }

    /// All that time and engines have brought; queues what is to be sent.
    pub fn turn(&mut self) -> Turn {
        self.run_timers();
        while self.may_take_requests() {
            let Some((lane, frame)) = self.outgoing.requests.pop_front() else { break };
            self.lane_request(self.view.config.id, lane, frame);
        }
        let mut more = false;
        let mut handled = 0;
        for lane in &mut self.lanes {
            lane.set_now(self.clock.now());
            lane.catch_up();
            let (outgoing, id) = (&mut self.outgoing, lane.id());
            while handled < OUTPUTS_PER_TURN_MAX && outgoing.backlog() < MESH_BACKLOG_MAX {
                if !lane.poll(self.now_us, &mut |to, frame| outgoing.delivery(to, id, frame)) {
                    break;
                }
                handled += 1;
            }
            more |= lane.has_catch_ups();
        }
        more |= handled == OUTPUTS_PER_TURN_MAX;
        more |= self.tell_slices(handled == OUTPUTS_PER_TURN_MAX);
        while let Some((lane, frame)) = self.outgoing.deliveries.pop_front() {
            self.deliver(lane, frame);
        }
        more |= self.give_later();
        more |= !self.outgoing.requests.is_empty() && self.may_take_requests();
        more |= self.say_goodbyes();
        self.flush();
        if !more {
            self.outgoing.give_back_room();
        }
        Turn { more, wake_at_ms: self.wake_at_ms() }
    }

    /// Lets the lanes tell who has come and gone, and where something is new: the more there is to do, the seldomer. Messages go first.
    fn tell_slices(&mut self, is_busy: bool) -> bool {
        let (outgoing, mut more) = (&mut self.outgoing, false);
        let slower = match outgoing.backlog() {
            MANY_DELIVERIES.. => return false,
            SOME_DELIVERIES.. => SLICES_SLOWEST,
            _ if is_busy => SLICES_SLOWER,
            _ => 1,
        };
        for lane in &mut self.lanes {
            let id = lane.id();
            let mut send = |to, frame| outgoing.delivery(to, id, frame);
            more |= lane.tell_presence(self.now_ms, slower, &mut send);
            lane.tell_hints(self.now_ms, slower, &mut send);
        }
        more
    }

    /// The next command for the driver.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// The next frame for another shard.
    pub fn poll_mesh(&mut self) -> Option<MeshOut> {
        self.outgoing.remote.pop_front()
    }

    /// So many frames that [`Self::poll_mesh`] gave could not be handed over yet.
    pub fn set_mesh_kept(&mut self, frames: usize) {
        self.outgoing.kept = frames;
    }

    fn connection(&mut self, key: ConnectionKey) -> Option<&mut Connection> {
        let connection = self.connections.get_mut(key.slot as usize)?.as_deref_mut()?;
        (connection.generation == key.generation).then_some(connection)
    }

    /// For whatever queues a message, which may be compressed.
    fn connection_and_deflater(&mut self, key: ConnectionKey) -> Option<(&mut Connection, &mut Deflater)> {
        let connection = self.connections.get_mut(key.slot as usize)?.as_deref_mut()?;
        (connection.generation == key.generation).then_some((connection, &mut self.deflater))
    }

    /// SplitMix64: spreads hints over clients, decides nothing that matters.
    fn random(&mut self) -> u64 {
        self.jitter = self.jitter.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.jitter;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    /// Whether a connection sends, or lets wait, so much more than it may that it is closed, and with which code.
    fn excess(&mut self, key: ConnectionKey) -> Option<CloseCode> {
        let (frame_rate, now_us) = (self.frame_rate, self.now_us);
        let connection = self.connection(key)?;
        let Stage::Open { decoder, .. } = &mut connection.stage else { return None };
        let frames = decoder.take_frames();
        if frames > 0 && !frame_rate.spend(&mut connection.frames_full_at, now_us, u32::from(frames)) {
            self.counters.frames_limited += 1;
            self.failed(key);
            return Some(CloseCode::RateLimited);
        }
        if self.waits_too_much(key) {
            self.counters.slow_consumers += 1;
            return Some(CloseCode::SlowConsumer);
        }
        None
    }

    /// Whether more waits for a connection than even answers may: it asks and does not read.
    fn waits_too_much(&mut self, key: ConnectionKey) -> bool {
        let limit = self.view.config.outbound_bytes_max.saturating_mul(ANSWERS_FACTOR);
        self.connection(key).is_some_and(|connection| connection.outbound.bytes() > limit)
    }

    fn frames(&mut self, key: ConnectionKey, bytes: &mut [u8]) {
        let mut input = bytes;
        let mut actions = std::mem::take(&mut self.actions);
        loop {
            let (now, now_ms) = (self.clock.now(), self.now_ms);
            if let Some(code) = self.excess(key) {
                // What is left of the bytes is not looked at: it is not a client that plays by the rules.
                self.end(key, code, Some(EXCESS_RECONNECT_MS), code == CloseCode::SlowConsumer);
                break;
            }
            let Some(connection) = self.connections[key.slot as usize].as_deref_mut() else { break };
            let waits_much = connection.outbound.bytes() > self.view.config.outbound_bytes_max / 2;
            let Stage::Open { decoder, session, opening } = &mut connection.stage else { break };
            let accepted = match session.encoding() {
                Encoding::Json => websocket::Accepted::Text,
                Encoding::Rkyv => websocket::Accepted::Binary,
            };
            let limits = websocket::Limits { accepted, ..self.view.config.websocket };
            let inflater = connection.deflate.map(|_| &mut self.inflater);
            match decoder.poll_inflating(&mut input, &limits, inflater) {
                Ok(None) => break,
                Ok(Some(Event::Message { payload, .. })) => {
                    self.counters.frames_in += 1;
                    if session.user().is_some() {
                        connection.heard_at_ms = now_ms;
                    }
                    let is_busy = self.outgoing.lanes_are_busy() || waits_much;
                    let environment = self.view.environment(key, now, now_ms, is_busy);
                    let token = opening.as_ref().and_then(|opening| opening.token.as_deref());
                    let seen =
                        connection.is_traced.then(|| (Seen::request(session.encoding(), payload), payload.len()));
                    session.receive(payload, token, &environment, &mut actions);
                    if let Some((seen, bytes)) = seen {
                        self.note(key, Direction::In, seen, bytes);
                    }
                }
                Ok(Some(Event::Ping(payload))) => {
                    let pong = websocket::encode_pong(payload, None);
                    if session.user().is_some() {
                        connection.heard_at_ms = now_ms;
                    }
                    connection.outbound.push(Rc::from(pong), 0);
                }
                Ok(Some(Event::Pong(_))) => {
                    if session.user().is_some() {
                        connection.heard_at_ms = now_ms;
                    }
                }
                Ok(Some(Event::Close { code, .. })) => {
                    self.detach(key);
                    if let Some(connection) = self.connection(key) {
                        connection.close(code.and_then(websocket::CloseCode::new), "");
                        connection.stage = Stage::Closing { decoder: None };
                    }
                    break;
                }
                Err(error) => {
                    self.counters.protocol_errors += 1;
                    self.failed(key);
                    self.detach(key);
                    let reason = error.to_string();
                    if let Some(connection) = self.connection(key) {
                        connection.close(Some(error.close_code()), clip(&reason));
                        connection.stage = Stage::Closing { decoder: None };
                    }
                    break;
                }
            }
            self.act(key, &mut actions);
        }
        actions.clear();
        self.actions = actions;
    }

    /// Carries out what a session wants.
    fn act(&mut self, key: ConnectionKey, actions: &mut Vec<Action>) {
        for action in actions.drain(..) {
            match action {
                Action::Begin => self.begin(key),
                Action::Send { id, frame } => {
                    if let ServerFrame::Error(error) = &frame {
                        self.counters.errors[error.code as usize] += 1;
                    }
                    self.counters.frames_out += 1;
                    self.tell(key, id, &frame);
                }
                Action::SendBinary { frame } => {
                    // What a lane refuses.
                    if binary::is_error(&frame)
                        && let Ok((_, ServerFrame::Error(error))) = binary::decode_server(&frame)
                    {
                        self.counters.errors[error.code as usize] += 1;
                    }
                    self.counters.frames_out += 1;
                    self.tell_binary(key, &frame);
                }
                Action::ToLane { lane, frame } => {
                    let to = self.view.config.placement.shard_of(lane);
                    self.outgoing.request(to, lane, frame);
                }
                Action::End { code } => {
                    if matches!(code, CloseCode::Unauthenticated | CloseCode::TokenExpired) {
                        self.counters.tokens_refused += 1;
                        self.failed(key);
                    }
                    self.end(key, code, None, false);
                }
            }
        }
        self.mark_dirty(key);
    }

    /// A session begins.
    fn begin(&mut self, key: ConnectionKey) {
        self.view.sessions_numbered += 1;
        self.counters.sessions_started += 1;
        self.counters.sessions += 1;
        self.counters.attaching += 1;
        let now_ms = self.now_ms;
        if let Some(connection) = self.connection(key) {
            let accepted_ms = std::mem::replace(&mut connection.heard_at_ms, now_ms);
            if let Stage::Open { opening, .. } = &mut connection.stage {
                *opening = None;
            }
            self.newcomers.welcomed(accepted_ms, now_ms);
        }
        if !self.traces.are_none() {
            self.trace_newcomer(key);
        }
    }

    fn environment(&self, key: ConnectionKey) -> Environment<'_> {
        self.view.environment(key, self.clock.now(), self.now_ms, self.outgoing.lanes_are_busy())
    }

    /// Whether those who come now are to wait outside, because the lanes are behind with those who came.
    pub fn holds_newcomers(&mut self) -> bool {
        self.newcomers.are_held(self.counters.attaching, self.now_ms)
    }

    fn lane_request(&mut self, from: ShardId, id: LaneId, frame: LaneFrame) {
        let lane = self.lanes.iter_mut().find(|lane| lane.id() == id).expect("a frame goes to its lane's shard");
        let outgoing = &mut self.outgoing;
        lane.set_now(self.clock.now());
        lane.receive(from, frame, self.now_us, &mut |to, frame| outgoing.delivery(to, id, frame));
    }

    fn with_session(
        &mut self,
        key: ConnectionKey,
        then: impl FnOnce(&mut Session, &Environment<'_>, &mut Vec<Action>),
    ) {
        let mut actions = std::mem::take(&mut self.actions);
        let (now, now_ms) = (self.clock.now(), self.now_ms);
        let environment = self.view.environment(key, now, now_ms, self.outgoing.lanes_are_busy());
        let slot = self.connections.get_mut(key.slot as usize).and_then(Option::as_deref_mut);
        let connection = slot.filter(|connection| connection.generation == key.generation);
        if let Some(session) = connection.and_then(Connection::session) {
            then(session, &environment, &mut actions);
            self.act(key, &mut actions);
        }
        self.actions = actions;
        self.settle(key);
    }

    /// Tells the lanes that a session is over.
    fn detach(&mut self, key: ConnectionKey) {
        if self.connection(key).is_some_and(|connection| connection.is_traced) {
            self.note_end(key, None);
        }
        let (now, now_ms) = (self.clock.now(), self.now_ms);
        let environment = self.view.environment(key, now, now_ms, self.outgoing.lanes_are_busy());
        let slot = self.connections.get_mut(key.slot as usize).and_then(Option::as_deref_mut);
        let Some(session) = slot.and_then(Connection::session) else { return };
        let mut actions = Vec::new();
        if session.user().is_some() {
            self.counters.sessions -= 1;
            self.counters.attaching -= u64::from(session.is_attaching(&environment));
        }
        session.detach(&environment, &mut actions);
        for action in actions {
            if let Action::ToLane { lane, frame } = action {
                self.outgoing.request(self.view.config.placement.shard_of(lane), lane, frame);
            }
        }
    }

    fn end(&mut self, key: ConnectionKey, code: CloseCode, reconnect_after_ms: Option<u32>, drop_queue: bool) {
        match self.connection(key) {
            None => return,
            Some(connection) if connection.is_traced => self.note_end(key, Some(code)),
            Some(_) => {}
        }
        self.detach(key);
        if let Some((connection, deflater)) = self.connection_and_deflater(key) {
            match connection.stage {
                Stage::Handshake { .. } => connection.stage = Stage::Closing { decoder: None },
                Stage::Open { .. } => connection.end(code, reconnect_after_ms, drop_queue, deflater),
                Stage::Closing { .. } => {}
            }
        }
        self.settle(key);
    }

    fn forget(&mut self, key: ConnectionKey) {
        self.detach(key);
        if let Some(connection) = self.connections[key.slot as usize].take() {
            if connection.is_slow {
                self.is_slow_no_more(key);
            }
            self.admission.left(connection.place);
            self.counters.connections -= 1;
        }
    }

    fn mark_dirty(&mut self, key: ConnectionKey) {
        if let Some(connection) = self.connection(key)
            && !connection.dirty
            && !connection.outbound.is_empty()
        {
            connection.dirty = true;
            self.dirty.push(key);
        }
    }

    /// Looks at a connection after something happened to it: closes it if it is done, notes it if it has something to send.
    fn settle(&mut self, key: ConnectionKey) {
        let now_ms = self.now_ms;
        let Some(connection) = self.connection(key) else { return };
        if let Stage::Closing { decoder } = &connection.stage {
            if decoder.is_none() && connection.outbound.is_empty() {
                self.commands.push_back(Command::Close { connection: key });
                return self.forget(key);
            }
            if !std::mem::replace(&mut connection.has_deadline, true) {
                self.closing.push_back((now_ms + CLOSE_TIMEOUT_MS, key));
            }
        }
        self.mark_dirty(key);
    }

    fn flush(&mut self) {
        let dirty = std::mem::take(&mut self.dirty);
        for &key in &dirty {
            let Some(connection) = self.connection(key) else { continue };
            connection.dirty = false;
            let lags = connection.outbound.bytes() >= SLOW_BYTES_MIN && !connection.is_slow;
            if let Some(buffers) = connection.outbound.take() {
                let awaited = connection.outbound.has_waiting() || matches!(connection.stage, Stage::Closing { .. });
                self.counters.bytes_out += buffers.iter().map(|buffer| buffer.len() as u64).sum::<u64>();
                self.commands.push_back(Command::Send { connection: key, buffers, awaited });
            }
            if lags {
                self.is_slow_now(key);
            }
        }
        self.dirty = dirty;
        self.dirty.clear();
    }
}

/// A close frame's reason has at most 123 bytes.
fn clip(reason: &str) -> &str {
    let mut end = reason.len().min(websocket::CLOSE_REASON_BYTES_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    &reason[..end]
}
