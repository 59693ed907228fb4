//! A lane's shard side: requests become engine commands, engine outputs become answers and pushes.
//!
//! Invariants: outputs are handled in the order in which the engine gives them, and a session's route is added in the very step that
//! hands on its catch-up; so what is pushed to it later is exactly what the catch-up does not hold. One push frame per shard that has
//! recipients, however many they are.

use std::collections::{HashMap, VecDeque};

use antiphon_engine::{
    Engine,
    door::{self, Command, Done, Output, Refusal, Token},
    seams::{Clock, Files, Random},
};
use antiphon_wire::{
    binary,
    codes::ErrorCode,
    frame::{Event, JsonText, Left, MessageState, Receipt, ServerFrame, States},
    ids::{ConversationId, DeviceId, Epoch, LanePosition, RequestId, Sequence, UserId},
};

use super::{
    mesh::{ConnectionFrame, LaneFrame, LaneId, MeshConnection, ShardId},
    placement::Placement,
    registry::{Registry, Route, home_lane},
    requests::{RequestKind, answer_frame, command, error_frame},
};

/// How long a shard without recipients may hold an old position: it costs nothing but a longer look back at a resume.
const POSITION_INTERVAL_MS: u64 = 1_000;

/// Latencies kept between two readings of the metrics.
const LATENCY_SAMPLES_MAX: usize = 16_384;

/// Sessions whose catch-up the engine has at a time. When all of a node's clients come back at once, a message finds no more than these
/// before it. With far fewer, those that wait for the disk keep the others waiting (256: a third of the sessions a second).
const CATCH_UPS_MAX: usize = 4_096;

/// Sessions that wait for theirs: what a lane catches up in the ten seconds that a client waits for its welcome; those beyond are told to
/// come back. Turning away costs more than waiting, so not less (16,384: half a million attempts, and four times as long).
const ATTACHES_WAITING_MAX: usize = 65_536;

/// What a command was for.
enum Pending {
    Request(Asked),
    Attach(Attach),
}

struct Asked {
    shard: ShardId,
    connection: MeshConnection,
    gather: u32,
    id: Option<RequestId>,
    kind: RequestKind,
    at_us: u64,
}

struct Attach {
    user: UserId,
    device: DeviceId,
    shard: ShardId,
    connection: MeshConnection,
    /// The position given was refused; this catch-up starts afresh.
    reset: bool,
}

/// A session that waits to be attached.
struct Waiting {
    attach: Attach,
    since: Option<LanePosition>,
    known: Vec<(ConversationId, Epoch, Sequence)>,
}

/// How far a session is that is not attached yet.
enum Attaching {
    /// Among those that wait.
    Waits,
    /// The engine has its catch-up.
    Asked(Token),
}

/// Bytes of states in one frame, about: what becomes of a full page's messages then fits in a few, each far below a frame's limit with every
/// byte escaped.
const STATES_BYTES_MAX: usize = 128 * 1024;

/// What a lane has done, for metrics.
#[derive(Debug, Clone, Copy, Default)]
pub struct LaneCounters {
    /// Commands handed to the engine.
    pub commands: u64,
    /// Messages acknowledged, duplicates too.
    pub acks: u64,
    /// Those among them that repeated an earlier send.
    pub duplicates: u64,
    /// Push frames made, one a shard.
    pub push_frames: u64,
    /// Recipients in them.
    pub push_recipients: u64,
}

/// One lane on its shard.
pub struct Lane<F: Files, C: Clock, R: Random> {
    id: LaneId,
    placement: Placement,
    engine: Engine<F, C, R>,
    registry: Registry,
    pending: HashMap<Token, Pending>,
    /// Sessions that are being attached: one that goes meanwhile is found without a look at all that waits.
    attaching: HashMap<(ShardId, MeshConnection), Attaching>,
    /// Those whose catch-up the engine has not been asked for, with some that have gone. Bounded by [`ATTACHES_WAITING_MAX`].
    waiting: VecDeque<Waiting>,
    /// Catch-ups that the engine has not answered, for sessions that have gone, too.
    catch_ups: usize,
    next_token: u64,
    /// Recipients of the push at hand, by shard; kept for its memory.
    recipients: Vec<Vec<MeshConnection>>,
    /// Shards that were sent something since they last heard the position.
    touched: Vec<bool>,
    position: LanePosition,
    position_told_at_ms: u64,
    fenced: Option<String>,
    counters: LaneCounters,
    commit_latencies_us: Vec<u32>,
}

impl<F: Files, C: Clock, R: Random> Lane<F, C, R> {
    /// Takes an open engine.
    pub fn new(id: LaneId, placement: Placement, engine: Engine<F, C, R>) -> Self {
        let shards = usize::from(placement.shards);
        Self {
            id,
            placement,
            engine,
            registry: Registry::default(),
            pending: HashMap::new(),
            attaching: HashMap::new(),
            waiting: VecDeque::new(),
            catch_ups: 0,
            next_token: 0,
            recipients: vec![Vec::new(); shards],
            touched: vec![false; shards],
            position: LanePosition(0),
            position_told_at_ms: 0,
            fenced: None,
            counters: LaneCounters::default(),
            commit_latencies_us: Vec::new(),
        }
    }

    /// How long sends took from their arrival at the lane to their durable answer, since this was last asked; a sample when there
    /// are very many.
    pub fn take_commit_latencies_us(&mut self, mut take: impl FnMut(u32)) {
        self.commit_latencies_us.drain(..).for_each(&mut take);
    }

    /// Commands without an answer yet, and sessions that wait for theirs.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pending.len() + self.waiting.len()
    }

    /// Has the engine catch up those who wait, as many as it takes at a time. Once a turn, after the requests that came.
    pub fn catch_up(&mut self) {
        while self.has_catch_ups() {
            let Some(Waiting { attach, since, known }) = self.waiting.pop_front() else { break };
            // One that is not there has gone.
            if self.attaching.contains_key(&(attach.shard, attach.connection)) {
                let user = attach.user.clone();
                self.submit(Pending::Attach(attach), Command::CatchUp { user, since, known });
            }
        }
    }

    /// Whether [`Self::catch_up`] has something to do.
    #[must_use]
    pub fn has_catch_ups(&self) -> bool {
        self.catch_ups < CATCH_UPS_MAX && !self.waiting.is_empty()
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> LaneId {
        self.id
    }

    /// Its engine.
    #[must_use]
    pub fn engine(&self) -> &Engine<F, C, R> {
        &self.engine
    }

    /// What it has done.
    #[must_use]
    pub fn counters(&self) -> LaneCounters {
        self.counters
    }

    /// Why nothing is stored any more, if so.
    #[must_use]
    pub fn fenced(&self) -> Option<&str> {
        self.fenced.as_deref()
    }

    /// Sessions that it delivers to.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.registry.sessions()
    }

    /// Takes a frame from a connection's shard.
    pub fn receive(
        &mut self,
        from: ShardId,
        frame: LaneFrame,
        now_us: u64,
        send: &mut impl FnMut(ShardId, ConnectionFrame),
    ) {
        match frame {
            LaneFrame::Attach { user, device, connection, since, known } => {
                let known = known.iter().map(|known| (known.conversation, known.epoch, known.sequence)).collect();
                if self.waiting.len() == ATTACHES_WAITING_MAX {
                    return send(from, ConnectionFrame::AttachFailed { connection });
                }
                let attach = Attach { user, device, shard: from, connection, reset: false };
                self.attaching.insert((from, connection), Attaching::Waits);
                self.waiting.push_back(Waiting { attach, since, known });
            }
            LaneFrame::Detach { user, connection } => {
                self.registry.detach(&user, from, connection);
                if let Some(Attaching::Asked(token)) = self.attaching.remove(&(from, connection)) {
                    self.pending.remove(&token);
                }
            }
            LaneFrame::Request { user, connection, gather, frame } => {
                match binary::decode_request(&frame) {
                    Ok((id, request)) => {
                        let (kind, command) = command(user, request);
                        let asked = Asked { shard: from, connection, gather, id, kind, at_us: now_us };
                        self.submit(Pending::Request(asked), command);
                    }
                    // A session decoded the same bytes before it sent them on.
                    Err(error) => {
                        let refusal = Refusal { code: error.code, text: error.text };
                        let frame = binary::encode_server(error.id, &error_frame(refusal));
                        send(from, ConnectionFrame::Reply { connection, gather, frame });
                    }
                }
            }
        }
    }

    fn submit(&mut self, pending: Pending, command: Command) {
        let token = Token(self.next_token);
        self.next_token += 1;
        self.counters.commands += 1;
        if let Pending::Attach(Attach { shard, connection, .. }) = &pending {
            self.attaching.insert((*shard, *connection), Attaching::Asked(token));
            self.catch_ups += 1;
        }
        self.pending.insert(token, pending);
        self.engine.submit(token, command);
    }

    /// Handles one output of the engine; false if there is none.
    pub fn poll(&mut self, now_us: u64, send: &mut impl FnMut(ShardId, ConnectionFrame)) -> bool {
        let Some(output) = self.engine.poll() else {
            self.tell_position(now_us / 1_000, send);
            return false;
        };
        match output {
            Output::Answer { token, mut result } => match self.pending.remove(&token) {
                Some(Pending::Request(Asked { shard, connection, gather, id, kind, at_us })) => {
                    if let (RequestKind::Send, &Ok(Done::Sent { duplicate, .. })) = (&kind, &result) {
                        self.counters.acks += 1;
                        self.counters.duplicates += u64::from(duplicate);
                        if self.commit_latencies_us.len() < LATENCY_SAMPLES_MAX {
                            self.commit_latencies_us.push(now_us.saturating_sub(at_us) as u32);
                        }
                    }
                    // A request without an id hears of its failure only.
                    if let (RequestKind::History(conversation), Ok(Done::History(page)), Some(_)) =
                        (&kind, &mut result, id)
                    {
                        let states = States {
                            conversation: *conversation,
                            epoch: page.epoch,
                            as_of: page.as_of,
                            states: std::mem::take(&mut page.states),
                        };
                        for frame in states_frames(states) {
                            send(shard, ConnectionFrame::Beside { connection, frame });
                        }
                    }
                    let frame = match result {
                        Ok(done) => answer_frame(&kind, done),
                        Err(refusal) => error_frame(refusal),
                    };
                    let frame = binary::encode_server(id, &frame);
                    send(shard, ConnectionFrame::Reply { connection, gather, frame });
                }
                Some(Pending::Attach(attach)) => {
                    self.catch_ups -= 1;
                    self.attaching.remove(&(attach.shard, attach.connection));
                    self.attached(attach, result, send);
                }
                // The session that asked to be attached has gone meanwhile.
                None => self.catch_ups -= 1,
            },
            Output::Entry { conversation, sequence, archive, recipients, removed, partly } => {
                #[cfg(feature = "planted")]
                let recipients = super::planted::recipients(recipients, &self.registry);
                let recipients = match &partly {
                    None => recipients,
                    Some(partly) => {
                        self.push(partly.recipients.iter(), 0, || binary::encode_message(&partly.archive), send);
                        // Both are in order.
                        let sees_all = |user: &&UserId| partly.recipients.binary_search(user).is_err();
                        recipients.iter().filter(sees_all).cloned().collect()
                    }
                };
                self.push(recipients.iter(), 0, || binary::encode_message(&archive), send);
                if !removed.is_empty() {
                    let left = ServerFrame::Left(Left { conversation, sequence });
                    self.push(removed.iter(), 0, || binary::encode_server(None, &left), send);
                }
            }
            Output::Receipt { conversation, user, read, delivered, recipients } => {
                let key = conflation_key(conversation, &user, "");
                let receipt = ServerFrame::Receipt(Receipt { conversation, user, read, delivered });
                self.push(recipients.iter(), key, || binary::encode_server(None, &receipt), send);
            }
            Output::Told { conversation, user, event, data, recipients } => {
                let key = conflation_key(conversation, &user, &event);
                let others = recipients.iter().filter(|recipient| **recipient != user);
                let frame = || {
                    let (user, data) = (user.clone(), data.map(JsonText));
                    binary::encode_server(None, &ServerFrame::Event(Event { conversation, user, event, data }))
                };
                self.push(others, key, frame, send);
            }
            Output::Committed { position } => {
                self.position = position;
                for shard in 0..self.placement.shards {
                    if std::mem::take(&mut self.touched[usize::from(shard)]) {
                        send(ShardId(shard), ConnectionFrame::Position { position });
                    }
                }
            }
            Output::Fenced { text } => self.fenced = Some(text),
        }
        true
    }

    /// Once in a while, all shards hear how far the lane is.
    fn tell_position(&mut self, now_ms: u64, send: &mut impl FnMut(ShardId, ConnectionFrame)) {
        if now_ms < self.position_told_at_ms + POSITION_INTERVAL_MS || self.position == LanePosition(0) {
            return;
        }
        self.position_told_at_ms = now_ms;
        for shard in 0..self.placement.shards {
            send(ShardId(shard), ConnectionFrame::Position { position: self.position });
        }
    }

    fn attached(
        &mut self,
        attach: Attach,
        result: Result<Done, Refusal>,
        send: &mut impl FnMut(ShardId, ConnectionFrame),
    ) {
        let caught_up = match result {
            Ok(Done::CaughtUp(caught_up)) => caught_up,
            Ok(other) => unreachable!("the engine answers a catch-up with a catch-up, not {other:?}"),
            Err(Refusal { code: ErrorCode::Invalid, .. }) if !attach.reset => {
                let command = Command::CatchUp { user: attach.user.clone(), since: None, known: Vec::new() };
                return self.submit(Pending::Attach(Attach { reset: true, ..attach }), command);
            }
            // The session stays without this lane's pushes: it is ended, and its client comes back.
            Err(_) => {
                return send(attach.shard, ConnectionFrame::AttachFailed { connection: attach.connection });
            }
        };
        let Attach { user, device, shard, connection, reset } = attach;
        let home = home_lane(&user, self.placement.lanes) == self.id;
        if let Some(replaced) = self.registry.attach(user, Route { device, shard, connection }, home) {
            send(replaced.shard, ConnectionFrame::Replaced { connection: replaced.connection });
        }
        let door::CaughtUp { position, entries, states, too_far, pointers, left } = *caught_up;
        self.touched[usize::from(shard.0)] = true;
        let frame = ConnectionFrame::CaughtUp {
            connection,
            position,
            reset,
            entries: entries.iter().map(|archive| archive.to_vec()).collect(),
            states: states.into_iter().flat_map(states_frames).collect(),
            too_far: too_far.into_iter().map(|far| (far.conversation, far.epoch, far.first, far.last)).collect(),
            pointers,
            left,
        };
        send(shard, frame);
    }

    /// Pushes one frame to all sessions of all recipients: one mesh frame a shard. The frame is made only if there is anyone.
    fn push<'a>(
        &mut self,
        recipients: impl IntoIterator<Item = &'a UserId>,
        conflation_key: u64,
        frame: impl FnOnce() -> Vec<u8>,
        send: &mut impl FnMut(ShardId, ConnectionFrame),
    ) {
        let mut found = 0_u64;
        for user in recipients {
            for route in self.registry.routes(user) {
                self.recipients[usize::from(route.shard.0)].push(route.connection);
                found += 1;
            }
        }
        if found == 0 {
            return;
        }
        self.counters.push_recipients += found;
        let frame = frame();
        for shard in 0..self.placement.shards {
            let index = usize::from(shard);
            if self.recipients[index].is_empty() {
                continue;
            }
            self.touched[index] = true;
            self.counters.push_frames += 1;
            let connections = std::mem::take(&mut self.recipients[index]);
            send(ShardId(shard), ConnectionFrame::Push { connections, conflation_key, frame: frame.clone() });
        }
    }
}

/// Of two receipts of one user in one conversation the later one says all, and so does it of two events of one name.
fn conflation_key(conversation: ConversationId, user: &UserId, event: &str) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in conversation.0.iter().copied().chain(user.as_str().bytes()).chain([0]).chain(event.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash.max(1)
}

/// Frames that tell all these states, none of them long.
fn states_frames(states: States) -> Vec<Vec<u8>> {
    let States { conversation, epoch, as_of, states } = states;
    let (mut frames, mut part, mut bytes) = (Vec::new(), Vec::new(), 0);
    let mut push = |part: &mut Vec<MessageState>| {
        let states = std::mem::take(part);
        if !states.is_empty() {
            let states = ServerFrame::States(States { conversation, epoch, as_of, states });
            frames.push(binary::encode_server(None, &states));
        }
    };
    for state in states {
        bytes += size_of::<MessageState>();
        bytes += state.reactions.iter().map(|of| size_of_val(of) + of.reaction.len()).sum::<usize>();
        part.push(state);
        if bytes >= STATES_BYTES_MAX {
            bytes = 0;
            push(&mut part);
        }
    }
    push(&mut part);
    frames
}
