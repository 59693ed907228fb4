//! A lane's shard side: requests become engine commands, engine outputs become answers and pushes.
//!
//! Invariants: outputs are handled in the order in which the engine gives them, and a session's route is added in the very step that
//! hands on its catch-up; so what is pushed to it later is exactly what the catch-up does not hold. One push frame per shard that has
//! recipients, however many they are.

mod attaching;
mod devices;
mod large;
mod privacy;

use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    rc::Rc,
};

use antiphon_engine::{
    Engine,
    door::{Command, Done, Output, Refusal, Token},
    seams::{Clock, Files, Random},
};
use antiphon_wire::{
    binary,
    frame::{Devices, Event, JsonText, Left, MessageState, Receipt, Request, ServerFrame, States, view_entry},
    ids::{ConversationId, LanePosition, RequestId, TimestampMs, UserId},
};

use self::{
    attaching::{Attach, Attaching, Logins, Waiting},
    devices::AsksDevices,
    privacy::{AsksReceipts, Privacies, ruling_items},
};
use super::{
    busiest::{Busiest, Busy},
    fanout::{Fanout, Rules},
    hints::Hints,
    mesh::{ConnectionFrame, LaneFrame, LaneId, MeshConnection, ShardId},
    placement::Placement,
    presence::{Presence, Rule, Ticked, Told, Watched, Watcher},
    privacy::Privacy,
    registry::{Registry, Route},
    requests::{RequestKind, answer_frame, command, error_frame},
    views::Views,
};

/// How long a shard without recipients may hold an old position: it costs nothing but a longer look back at a resume.
const POSITION_INTERVAL_MS: u64 = 1_000;

/// Latencies kept between two readings of the metrics.
const LATENCY_SAMPLES_MAX: usize = 16_384;

/// Connections that are told of users at a time, and how long after that the next are: each takes some ten microseconds, most of them the
/// kernel's, so a lane spends a sixth of a core on it at most.
const WATCHERS_A_SLICE: usize = 160;
const SLICE_MS: u64 = 10;

/// From the beginning of a tick to that of the next one: what comes and goes meanwhile is told once.
const TICK_MS: u64 = 250;

/// Rules that are looked up again at a time, which could not be before, and how long after that.
const RULES_AT_A_TIME: usize = 256;
const RULES_AGAIN_MS: u64 = 5_000;

/// What a command was for.
enum Pending {
    Request(Asked),
    Attach(Attach),
    /// Boxed: it is seldom, and the others are many.
    Rule(Box<Ruling>),
    /// Whether a session may be that is to be attached.
    Enter(Box<Waiting>),
    Devices(Box<AsksDevices>),
    /// A user's receipts are looked up for another.
    Receipts(Box<(Rc<RefCell<AsksReceipts>>, UserId)>),
}

/// A user's rule is looked up.
struct Ruling {
    user: UserId,
    then: Then,
}

/// What is done when a rule is known.
enum Then {
    /// Those who watch are told.
    Nothing,
    /// The user's sessions are told, too.
    Tell,
    /// They are, and then the request is answered that has changed it: who hears the answer can count on it.
    Answer(ShardId, ConnectionFrame),
}

/// Where an answer goes.
struct Place {
    shard: ShardId,
    connection: MeshConnection,
    gather: u32,
}

struct Asked {
    shard: ShardId,
    connection: MeshConnection,
    gather: u32,
    id: Option<RequestId>,
    kind: RequestKind,
    at_us: u64,
    /// Of a request whose receipt others hear of: what its user showed others when it came.
    privacy: Option<Box<Privacy>>,
}

impl Pending {
    /// The session that is to be attached.
    fn attach(&self) -> Option<&Attach> {
        match self {
            Self::Attach(attach) => Some(attach),
            Self::Enter(waiting) => Some(&waiting.attach),
            Self::Request(_) | Self::Rule(_) | Self::Devices(_) | Self::Receipts(_) => None,
        }
    }
}

/// Requests and sessions under way that a lane keeps room for: more than a busy second has.
const ROOM_KEPT: usize = 1_024;

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
    /// Who is there of large conversations.
    fanout: Fanout,
    /// Who looks at what.
    views: Views,
    /// What those hear who do not.
    hints: Hints,
    hints_at_ms: u64,
    rules: Rules,
    logins: Logins,
    presence: Presence,
    /// When watchers may be told next, and when a tick may begin next.
    presence_at_ms: u64,
    presence_tick_ms: u64,
    /// Users who are there and whose rule could not be looked up.
    unruled: VecDeque<UserId>,
    rules_at_ms: u64,
    privacies: Privacies,
    /// What the user showed others of whom the next output may be a receipt.
    marking: Option<Option<Box<Privacy>>>,
    wall: TimestampMs,
    pending: HashMap<Token, Pending>,
    /// Sessions that are being attached: one that goes meanwhile is found without a look at all that waits.
    attaching: HashMap<(ShardId, MeshConnection), Attaching>,
    /// Those whose catch-up the engine has not been asked for, with some that have gone. Bounded by `attaching::ATTACHES_WAITING_MAX`.
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
    /// For operators. Boxed: it is four kilobytes.
    busiest: Box<Busiest>,
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
            fanout: Fanout::default(),
            views: Views::default(),
            hints: Hints::default(),
            hints_at_ms: 0,
            rules: Rules::default(),
            logins: Logins::default(),
            presence: Presence::default(),
            presence_at_ms: 0,
            presence_tick_ms: 0,
            unruled: VecDeque::new(),
            rules_at_ms: 0,
            privacies: Privacies::default(),
            marking: None,
            wall: TimestampMs(0),
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
            busiest: Box::default(),
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

    /// Gives what happens to those whom these rules say.
    pub fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// Wall-clock time goes on: to be called before anything else.
    pub fn set_now(&mut self, now: TimestampMs) {
        self.wall = now;
    }

    /// Tells watchers who has come and gone, if it is time for that, `slower` times as slowly as it would at rest. True if there is more to do
    /// now.
    pub fn tell_presence(&mut self, now_ms: u64, slower: u64, send: &mut impl FnMut(ShardId, ConnectionFrame)) -> bool {
        if !self.unruled.is_empty() && self.rules_at_ms <= now_ms {
            self.rules_at_ms = now_ms + RULES_AGAIN_MS;
            let some = self.unruled.len().min(RULES_AT_A_TIME);
            let users: Vec<UserId> = self.unruled.drain(..some).collect();
            users.into_iter().for_each(|user| self.look_up_rule(user, Then::Tell));
        }
        if !self.presence.has_changes() || self.presence_at_ms > now_ms {
            return false;
        }
        if !self.presence.is_ticking() {
            self.presence_tick_ms = now_ms + TICK_MS * slower;
        }
        let (told, ticked) = self.presence.tick(WATCHERS_A_SLICE, self.placement.shards);
        for (shard, Told { users, connections }) in told.into_iter().enumerate() {
            if !connections.is_empty() {
                send(ShardId(shard as u16), ConnectionFrame::Present { users, connections });
            }
        }
        self.presence_at_ms = match ticked {
            Ticked::Marking => return true,
            Ticked::Telling => now_ms + SLICE_MS * slower,
            Ticked::Done => self.presence_tick_ms.max(now_ms + SLICE_MS * slower),
        };
        false
    }

    /// When [`Self::tell_presence`] has something to do.
    #[must_use]
    pub fn presence_wakes_at_ms(&self) -> Option<u64> {
        let changes = self.presence.has_changes().then_some(self.presence_at_ms);
        let rules = (!self.unruled.is_empty()).then_some(self.rules_at_ms);
        changes.into_iter().chain(rules).min()
    }

    /// Subscriptions to presence that it keeps.
    #[must_use]
    pub fn presence_subscriptions(&self) -> u64 {
        self.presence.subscriptions()
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

    /// A user's sessions that it delivers to.
    #[must_use]
    pub fn routes(&self, user: &UserId) -> &[Route] {
        self.registry.routes(user)
    }

    /// Its busiest conversations lately.
    pub fn busiest(&mut self, now_ms: u64, most: usize) -> Vec<Busy> {
        self.busiest.list(now_ms, most)
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
            LaneFrame::Attach { user, device, issued, connection, since, known, privacy } => {
                let attach =
                    Attach { user, device, issued, shard: from, connection, entering: None, privacy, reset: false };
                self.attach(attach, since, &known, send);
            }
            LaneFrame::Detach { user, connection } => {
                self.presence.forget(Watcher { shard: from, connection });
                self.views.forget((from, connection));
                self.privacies.set(&user, (from, connection), None);
                let was_there = self.registry.detach(&user, from, connection);
                if was_there && !self.registry.has(&user) {
                    self.fanout.note(&user);
                    if self.is_home_of(&user) {
                        self.presence.went(&user, self.wall);
                    }
                }
                if let Some(Attaching::Asked(token)) = self.attaching.remove(&(from, connection)) {
                    self.pending.remove(&token);
                }
            }
            LaneFrame::Watch { user, connection, gather, watch, unwatch } => {
                let watcher = Watcher { shard: from, connection };
                self.presence.unwatch(watcher, &unwatch);
                let is_there = |user: &UserId| self.registry.has(user);
                let Watched { users, watching, asks } = self.presence.watch(watcher, &user, &watch, is_there);
                send(from, ConnectionFrame::Watched { connection, gather, users, watching });
                asks.into_iter().for_each(|user| self.look_up_rule(user, Then::Nothing));
            }
            LaneFrame::Privacy { user, connection, privacy } => {
                self.privacies.set(&user, (from, connection), privacy);
            }
            LaneFrame::AskReceipts { user, connection, gather, of } => {
                self.ask_receipts((from, connection), gather, user, of);
            }
            LaneFrame::Request { user, connection, gather, frame } => {
                let privacy = self.privacies.get(&user).cloned();
                let at = Place { shard: from, connection, gather };
                self.request(user, privacy, at, &frame, now_us, send);
            }
            LaneFrame::Call { user, connection, frame, privacy } => {
                let at = Place { shard: from, connection, gather: 0 };
                self.request(user, privacy, at, &frame, now_us, send);
            }
        }
    }

    /// Begins to do what a user asks, who shows others this.
    fn request(
        &mut self,
        user: UserId,
        privacy: Option<Privacy>,
        Place { shard, connection, gather }: Place,
        frame: &[u8],
        at_us: u64,
        send: &mut impl FnMut(ShardId, ConnectionFrame),
    ) {
        let (id, request) = match binary::decode_request(frame) {
            Ok(decoded) => decoded,
            // Whoever sent them on decoded the same bytes before.
            Err(error) => {
                let refusal = Refusal { code: error.code, text: error.text };
                let frame = binary::encode_server(error.id, &error_frame(refusal));
                return send(shard, ConnectionFrame::Reply { connection, gather, frame });
            }
        };
        let asked = |kind| Asked { shard, connection, gather, id, kind, at_us, privacy: None };
        match request {
            Request::View(view) => {
                let asked = asked(RequestKind::View(view.conversation));
                self.view(user, view, asked, send);
            }
            Request::Devices(Devices { action }) => self.ask_devices(asked(RequestKind::Devices), user, action),
            request => {
                let (kind, command) = command(user, request);
                if let RequestKind::Account(_, Some(user)) = &kind
                    && self.presence.will_change(user, self.registry.has(user))
                {
                    self.look_up_rule(user.clone(), Then::Nothing);
                }
                let is_marked = matches!(kind, RequestKind::Read | RequestKind::Delivered);
                let privacy = privacy.filter(|_| is_marked).map(Box::new);
                self.submit(Pending::Request(Asked { privacy, ..asked(kind) }), command);
            }
        }
    }

    fn is_home_of(&self, user: &UserId) -> bool {
        self.placement.home_of(user) == self.id
    }

    /// Learns from a user's account what the user shows others.
    fn look_up_rule(&mut self, user: UserId, then: Then) {
        self.look_up_account(&user.clone(), Pending::Rule(Box::new(Ruling { user, then })));
    }

    /// Whether a change of what a user shows others matters to anybody now.
    fn is_ruled(&self, user: &UserId) -> bool {
        self.presence.knows(user) || self.registry.has(user)
    }

    fn ruled(
        &mut self,
        Ruling { user, then }: Ruling,
        result: Result<Done, Refusal>,
        send: &mut impl FnMut(ShardId, ConnectionFrame),
    ) {
        let found = ruling_items(result);
        let privacy = match &found {
            Ok(items) => {
                self.presence.ruled(&user, Rule::of(items), self.wall);
                Privacy::of(items)
            }
            Err(_) => {
                self.presence.unsure(&user, self.wall);
                if self.registry.has(&user) && !self.unruled.contains(&user) {
                    self.unruled.push_back(user.clone());
                }
                Some(Privacy::nothing())
            }
        };
        let is_news = match then {
            Then::Nothing => false,
            // If not, sessions have what they were let in with, or hide everything until it is known.
            Then::Tell => found.is_ok(),
            Then::Answer(..) => true,
        };
        if is_news {
            for route in self.registry.routes(&user) {
                let (connection, privacy) = (route.connection, privacy.clone());
                send(route.shard, ConnectionFrame::Privacy { connection, privacy });
            }
        }
        if let Then::Answer(shard, frame) = then {
            self.logins.changes(&user);
            self.presence.has_changed(&user);
            send(shard, frame);
        }
    }

    fn submit(&mut self, pending: Pending, command: Command) {
        let token = Token(self.next_token);
        self.next_token += 1;
        self.counters.commands += 1;
        if let Some(Attach { shard, connection, .. }) = pending.attach() {
            self.attaching.insert((*shard, *connection), Attaching::Asked(token));
            self.catch_ups += 1;
        }
        self.pending.insert(token, pending);
        self.engine.submit(token, command);
    }

    /// Handles one output of the engine; false if there is none.
    pub fn poll(&mut self, now_us: u64, send: &mut impl FnMut(ShardId, ConnectionFrame)) -> bool {
        let Some(output) = self.engine.poll() else {
            self.give_back_room();
            self.tell_position(now_us / 1_000, send);
            return false;
        };
        let marking = self.marking.take();
        self.busiest.set_now(now_us / 1_000);
        match output {
            Output::Answer { token, mut result } => match self.pending.remove(&token) {
                Some(Pending::Request(Asked { shard, connection, gather, id, kind, at_us, privacy })) => {
                    if matches!(kind, RequestKind::Read | RequestKind::Delivered) {
                        self.marking = Some(privacy);
                    }
                    if let (RequestKind::Send, &Ok(Done::Sent { duplicate, .. })) = (&kind, &result) {
                        self.counters.acks += 1;
                        self.counters.duplicates += u64::from(duplicate);
                        if self.commit_latencies_us.len() < LATENCY_SAMPLES_MAX {
                            self.commit_latencies_us.push(now_us.saturating_sub(at_us) as u32);
                        }
                    }
                    self.viewed(&kind, &result, (shard, connection));
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
                    let reply = ConnectionFrame::Reply { connection, gather, frame };
                    match kind {
                        RequestKind::Account(_, Some(user)) if self.is_ruled(&user) => {
                            self.look_up_rule(user, Then::Answer(shard, reply));
                        }
                        RequestKind::Account(_, Some(user)) => {
                            self.logins.changes(&user);
                            send(shard, reply);
                        }
                        _ => send(shard, reply),
                    }
                }
                Some(Pending::Rule(ruling)) => self.ruled(*ruling, result, send),
                Some(Pending::Enter(waiting)) => {
                    self.catch_ups -= 1;
                    self.attaching.remove(&(waiting.attach.shard, waiting.attach.connection));
                    self.may_enter(*waiting, result, send);
                }
                Some(Pending::Devices(asks)) => self.devices(*asks, result, send),
                Some(Pending::Receipts(asks)) => {
                    let (asks, user) = *asks;
                    Self::receipts_are(asks, user, result, send);
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
                self.busiest.note_message(conversation);
                let entry = view_entry(&archive).expect("the engine gives entries that it has written");
                let added = self.changed_members(conversation, entry, &recipients);
                if self.is_hinted(&recipients) {
                    let now_ms = now_us / 1_000;
                    self.push_to_viewers(&recipients, &added, &archive, partly.as_deref(), now_ms, send);
                } else {
                    let recipients = self.who_is_there(conversation, recipients);
                    // Both are in order.
                    let sees_all = |user: &&UserId| {
                        partly.as_ref().is_none_or(|partly| partly.recipients.binary_search(user).is_err())
                    };
                    if let Some(partly) = &partly {
                        self.address_users(partly.recipients.iter());
                        self.give(conversation, 0, || binary::encode_message(&partly.archive), send);
                    }
                    self.address_users(recipients.iter().filter(sees_all));
                    self.give(conversation, 0, || binary::encode_message(&archive), send);
                }
                if !removed.is_empty() {
                    let left = ServerFrame::Left(Left { conversation, sequence });
                    self.address_users(removed.iter());
                    self.give(conversation, 0, || binary::encode_server(None, &left), send);
                }
            }
            Output::Receipt { conversation, user, read, delivered, recipients } => {
                let key = conflation_key(conversation, Some(&user), "");
                let privacy = marking.unwrap_or_else(|| self.shows(&user).map(Box::new));
                if self.is_hinted(&recipients) {
                    self.address_users([&user]);
                } else {
                    let recipients = self.who_is_there(conversation, recipients);
                    // By what was so when it was asked for, and by what is so now.
                    let showing = [privacy.as_deref(), self.privacies.get(&user)];
                    let lets =
                        |other: &UserId| showing.iter().all(|privacy| self.privacies.lets_receipt(*privacy, other));
                    let sees = |other: &&UserId| **other == user || lets(other);
                    address_users(&self.registry, &mut self.recipients, recipients.iter().filter(sees));
                }
                let receipt = || ServerFrame::Receipt(Receipt { conversation, user, read, delivered });
                self.give(conversation, key, || binary::encode_server(None, &receipt()), send);
            }
            Output::Told { conversation, user, event, data, recipients } => {
                let key = conflation_key(conversation, Some(&user), &event);
                // Who types is there.
                let privacy = self.shows(&user);
                let shows = |other: &UserId| privacy.as_ref().is_none_or(|privacy| privacy.shows_presence_to(other));
                let sees = |other: &UserId| *other != user && shows(other);
                if self.is_hinted(&recipients) {
                    self.address_viewers(conversation, sees);
                } else {
                    let recipients = self.who_is_there(conversation, recipients);
                    self.address_users(recipients.iter().filter(|other| sees(other)));
                }
                let frame = || {
                    let (user, data) = (user.clone(), data.map(JsonText));
                    binary::encode_server(None, &ServerFrame::Event(Event { conversation, user, event, data }))
                };
                self.give(conversation, key, frame, send);
            }
            Output::Committed { position } => {
                self.position = position;
                for shard in 0..self.placement.shards {
                    if std::mem::take(&mut self.touched[usize::from(shard)]) {
                        let position = self.told_position(position);
                        send(ShardId(shard), ConnectionFrame::Position { position });
                    }
                }
            }
            Output::Fenced { text } => self.fenced = Some(text),
        }
        true
    }

    /// What is under way has room for a storm of it no longer than that lasts.
    fn give_back_room(&mut self) {
        if self.pending.is_empty() && self.pending.capacity() > ROOM_KEPT {
            self.pending = HashMap::new();
        }
        if self.attaching.is_empty() && self.attaching.capacity() > ROOM_KEPT {
            self.attaching = HashMap::new();
        }
        if self.waiting.is_empty() && self.waiting.capacity() > ROOM_KEPT {
            self.waiting = VecDeque::new();
        }
    }

    /// Once in a while, all shards hear how far the lane is.
    fn tell_position(&mut self, now_ms: u64, send: &mut impl FnMut(ShardId, ConnectionFrame)) {
        if now_ms < self.position_told_at_ms + POSITION_INTERVAL_MS || self.position == LanePosition(0) {
            return;
        }
        self.tell_position_now(now_ms, send);
    }

    fn tell_position_now(&mut self, now_ms: u64, send: &mut impl FnMut(ShardId, ConnectionFrame)) {
        self.position_told_at_ms = now_ms;
        for shard in 0..self.placement.shards {
            send(ShardId(shard), ConnectionFrame::Position { position: self.told_position(self.position) });
        }
    }

    /// A position as sessions are told: not further than they have heard of everything.
    fn told_position(&self, position: LanePosition) -> LanePosition {
        self.hints.floor().map_or(position, |floor| floor.min(position))
    }

    /// Of many recipients those who are there; of few it is seen when they are given something.
    fn who_is_there(&mut self, conversation: ConversationId, recipients: Rc<[UserId]>) -> Rc<[UserId]> {
        if recipients.len() <= self.rules.large_members {
            return recipients;
        }
        Rc::from(self.fanout.there(conversation, &recipients, &self.registry))
    }

    /// What is given next is for all sessions of these users.
    fn address_users<'a>(&mut self, users: impl IntoIterator<Item = &'a UserId>) {
        address_users(&self.registry, &mut self.recipients, users);
    }

    /// Gives one frame to all that were addressed: one mesh frame a shard. The frame is made only if there is anyone.
    fn give(
        &mut self,
        conversation: ConversationId,
        conflation_key: u64,
        frame: impl FnOnce() -> Vec<u8>,
        send: &mut impl FnMut(ShardId, ConnectionFrame),
    ) {
        let found: usize = self.recipients.iter().map(Vec::len).sum();
        if found == 0 {
            return;
        }
        self.counters.push_recipients += found as u64;
        self.busiest.note_pushes(conversation, found as u64);
        let frame = frame();
        for shard in 0..self.placement.shards {
            let index = usize::from(shard);
            if self.recipients[index].is_empty() {
                continue;
            }
            self.touched[index] = true;
            self.counters.push_frames += 1;
            let connections = std::mem::take(&mut self.recipients[index]);
            send(
                ShardId(shard),
                ConnectionFrame::Push { conversation, connections, conflation_key, frame: frame.clone() },
            );
        }
    }
}

fn address_users<'a>(
    registry: &Registry,
    recipients: &mut [Vec<MeshConnection>],
    users: impl IntoIterator<Item = &'a UserId>,
) {
    for user in users {
        for route in registry.routes(user) {
            address(recipients, (route.shard, route.connection));
        }
    }
}

fn address(recipients: &mut [Vec<MeshConnection>], (shard, connection): (ShardId, MeshConnection)) {
    recipients[usize::from(shard.0)].push(connection);
}

/// Of two receipts of one user in one conversation the later one says all, and so does it of two events of one name. Without a user: of two
/// hints about the conversation.
fn conflation_key(conversation: ConversationId, user: Option<&UserId>, event: &str) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in conversation
        .0
        .iter()
        .copied()
        .chain(user.into_iter().flat_map(|user| user.as_str().bytes()))
        .chain([0])
        .chain(event.bytes())
    {
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
