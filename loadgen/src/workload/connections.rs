//! How a thread's connections come to be, stay and come back: paced attempts, heartbeats, back-off with full jitter.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
};

use antiphon_wire::{
    codec::Encoding,
    frame::{ClientInfo, Connect, Known, Ping, PositionBytes, Request, Resume},
    ids::{DeviceId, Epoch, Sequence},
    session::{Backoff, Hint, SessionConfig},
};

use super::{
    control::Phase,
    pending,
    plan::{Plan, Share},
    worker::{Worker, request},
};
use crate::{
    clock::{MILLISECOND_NS, Nanoseconds, SECOND_NS},
    driver::Links,
    measure::record,
    token::DEVICE,
    websocket,
};

/// Attempts of all threads that are under way at once: below a usual listen backlog of 4,096.
const CONNECTING_MAX: f64 = 2_048.0;

/// An attempt that leads to no welcome for so long is given up.
const ATTEMPT_NS_MAX: Nanoseconds = 30 * SECOND_NS;

/// Pings of a connection follow each other by this part of the server's heartbeat interval, so that jitter does not end it.
const HEARTBEAT_PART: f64 = 0.8;

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Not under way.
    Down,
    /// TCP, and TLS if there is any.
    Connecting,
    /// The upgrade is asked for.
    Upgrading,
    /// `connect` is sent.
    Greeting,
    /// Welcome.
    Up,
}

/// One simulated user's connection. Small: there may be half a million.
#[derive(Debug)]
pub(super) struct Connection {
    /// The bytes of a frame that is not whole yet; boxed, as most connections have none at most times.
    #[expect(clippy::box_collection, reason = "eight bytes a connection instead of 24")]
    pub(super) partial: Option<Box<Vec<u8>>>,
    pub(super) position: Option<Box<[u8]>>,
    /// Start of the first attempt or of the outage.
    pub(super) since_ns: Nanoseconds,
    /// Start of the present attempt; from when it has led to a live session, since when that is live.
    pub(super) attempt_ns: Nanoseconds,
    /// The newest message that waits for its acknowledgement.
    pub(super) pending: u32,
    /// Waits for an attempt since the last session that was stable.
    pub(super) attempts: u16,
    pub(super) state: State,
    pub(super) established: bool,
    pub(super) resuming: bool,
    /// Welcome, and everything that was missed has come.
    pub(super) live: bool,
    pub(super) paused: bool,
}

/// Bytes of user space that a connection takes here, without its position (about 32 bytes on the heap).
pub const CONNECTION_BYTES: usize = size_of::<Connection>();

/// All connections of a thread.
#[derive(Debug)]
pub(super) struct Connections {
    pub(super) list: Vec<Connection>,
    /// The epoch of each group's log, learnt from its first entry.
    pub(super) epochs: HashMap<u32, Epoch>,
    /// When servers want their clients back.
    pub(super) hints: HashMap<u32, Hint>,
    pub(super) heartbeat_ns: Nanoseconds,
    connecting: u32,
    connecting_max: u32,
    unstarted: u32,
    /// So many are to be begun for now.
    limit: u32,
    queue: VecDeque<u32>,
    later: BinaryHeap<Reverse<(Nanoseconds, u32)>>,
    pace_ns: Nanoseconds,
    /// Between two attempts of those who were lost, if these are paced.
    return_pace_ns: Option<Nanoseconds>,
    next_start_ns: Nanoseconds,
    beat_next: u32,
    beat_from_ns: Nanoseconds,
    /// Slow connections were told to stop reading.
    slow: bool,
    backoff: SessionConfig,
}

impl Connections {
    pub(super) fn new(plan: &Plan, share: Share) -> Self {
        let connection = || Connection {
            partial: None,
            position: None,
            since_ns: 0,
            attempt_ns: 0,
            pending: pending::NONE,
            attempts: 0,
            state: State::Down,
            established: false,
            resuming: false,
            live: false,
            paused: false,
        };
        let connecting_max = (CONNECTING_MAX * share.part).ceil().max(16.0) as u32;
        let pace = |rate: f64| (SECOND_NS as f64 / (rate * share.part)) as Nanoseconds;
        Self {
            list: std::iter::repeat_with(connection).take(share.count as usize).collect(),
            epochs: HashMap::new(),
            hints: HashMap::new(),
            heartbeat_ns: 24 * SECOND_NS,
            connecting: 0,
            connecting_max,
            unstarted: 0,
            limit: share.count,
            queue: VecDeque::new(),
            later: BinaryHeap::new(),
            pace_ns: plan.connects_per_second.map_or(0, pace),
            return_pace_ns: plan.returns_per_second.map(pace),
            next_start_ns: 0,
            beat_next: 0,
            beat_from_ns: 0,
            slow: false,
            backoff: SessionConfig::new(Encoding::Rkyv),
        }
    }

    /// No more than so many are to be begun for now.
    pub(super) fn limit(&mut self, connections: u32) {
        self.limit = connections;
    }

    pub(super) fn next_wake_ns(&self, now_ns: Nanoseconds) -> Nanoseconds {
        let waiting = !self.queue.is_empty() || self.unstarted < self.limit;
        let start_ns =
            if waiting && self.connecting < self.connecting_max { self.next_start_ns.max(now_ns) } else { u64::MAX };
        self.later.peek().map_or(u64::MAX, |Reverse((due_ns, _))| *due_ns).min(start_ns)
    }

    fn next_to_start(&mut self, now_ns: Nanoseconds) -> Option<u32> {
        if self.connecting >= self.connecting_max || self.next_start_ns > now_ns {
            return None;
        }
        let slot = self.queue.pop_front().or_else(|| {
            let slot = self.unstarted;
            (slot < self.limit).then(|| {
                self.unstarted += 1;
                slot
            })
        })?;
        // A thread that was late starts what it missed, but at most what it missed in the last tenth of a second.
        self.next_start_ns = self.next_start_ns.max(now_ns.saturating_sub(100 * MILLISECOND_NS)) + self.pace_ns;
        Some(slot)
    }
}

impl Worker {
    /// Begins the attempts whose time has come.
    pub(super) fn connect_due(&mut self, links: &mut Links, now_ns: Nanoseconds) {
        // A run that watches how all come back must not hold any of them up.
        if !self.plan.limits_attempts && self.phase == Phase::Load {
            self.connections.connecting_max = u32::MAX;
            self.connections.pace_ns = self.connections.return_pace_ns.unwrap_or(self.connections.pace_ns);
        }
        while let Some(&Reverse((due_ns, slot))) = self.connections.later.peek() {
            // What is not begun in time counts as late: with too little processor for handshakes, a run is not valid.
            if due_ns > now_ns || self.has_too_many_handshakes() {
                break;
            }
            self.connections.later.pop();
            if self.phase == Phase::Load {
                record(&mut self.latencies.late, due_ns, self.clock.now_ns());
            }
            self.connections.queue.push_back(slot);
        }
        while !self.has_too_many_handshakes()
            && let Some(slot) = self.connections.next_to_start(now_ns)
        {
            let connection = &mut self.connections.list[slot as usize];
            connection.state = State::Connecting;
            connection.attempt_ns = now_ns;
            if connection.since_ns == 0 {
                connection.since_ns = now_ns;
            }
            self.connections.connecting += 1;
            links.connect(slot, self.plan.is_slow(self.share.first + slot));
        }
    }

    /// The load is over: whoever is away comes back now, so that what they missed is no loss.
    pub(super) fn call_back(&mut self, now_ns: Nanoseconds) {
        let away = std::mem::take(&mut self.connections.later);
        for Reverse((due_ns, slot)) in away {
            let soon_ns = now_ns + self.random.below(SECOND_NS);
            self.connections.later.push(Reverse((due_ns.min(soon_ns), slot)));
        }
    }

    /// Takes up a new word on whether slow connections read.
    pub(super) fn follow_slow(&mut self, links: &mut Links) {
        let slow = self.control.slow();
        if slow == self.connections.slow {
            return;
        }
        self.connections.slow = slow;
        for slot in 0..self.share.count {
            if !self.plan.is_slow(self.share.first + slot) {
                continue;
            }
            if slow {
                self.pause_if_slow(links, slot);
            } else if std::mem::take(&mut self.connections.list[slot as usize].paused) {
                self.counters.paused.decrement();
                links.unpause(slot);
            }
        }
    }

    /// A slow connection that is live stops reading, if that is the word.
    pub(super) fn pause_if_slow(&mut self, links: &mut Links, slot: u32) {
        let is_slow = self.connections.slow && self.plan.is_slow(self.share.first + slot);
        let connection = &mut self.connections.list[slot as usize];
        if is_slow && connection.live && !connection.paused {
            connection.paused = true;
            self.counters.paused.add(1);
            links.pause(slot);
        }
    }

    /// Ends the connections whose users go away for a while.
    pub(super) fn departures_due(&mut self, links: &mut Links, now_ns: Nanoseconds) {
        while self.departures.as_mut().and_then(|departures| departures.take_due(now_ns)).is_some() {
            let slot = self.random.below(u64::from(self.share.count)) as u32;
            if self.connections.list[slot as usize].live {
                let away_ms = self.plan.habits.away_ms.draw(&mut self.random);
                self.connections.hints.insert(slot, Hint::Spread(away_ms));
                self.counters.left.add(1);
                self.end(links, slot);
            }
        }
    }

    /// Pings connection after connection, each once an interval; gives up attempts that lead nowhere.
    pub(super) fn heartbeat_due(&mut self, links: &mut Links, now_ns: Nanoseconds) {
        let count = self.connections.list.len() as u64;
        let elapsed_ns = now_ns - self.connections.beat_from_ns.min(now_ns);
        let due = u128::from(elapsed_ns) * u128::from(count) / u128::from(self.connections.heartbeat_ns);
        let due = due.min(u128::from(count)) as u64;
        if due == 0 {
            return;
        }
        self.connections.beat_from_ns += due * self.connections.heartbeat_ns / count;
        for _ in 0..due {
            let slot = self.connections.beat_next;
            self.connections.beat_next = (slot + 1) % count as u32;
            let connection = &self.connections.list[slot as usize];
            match connection.state {
                State::Up if self.plan.echo.is_some() => {}
                State::Up => self.write(links, slot, request::PING, &Request::Ping(Ping {})),
                State::Down => {}
                // A handshake's first step may have begun the attempt anew, just now.
                _ if now_ns.saturating_sub(connection.attempt_ns) > ATTEMPT_NS_MAX => {
                    self.note_error("no welcome in time".to_owned());
                    self.end(links, slot);
                }
                _ => {}
            }
        }
    }

    /// The TCP connection stands, and TLS if there is any: asks for the upgrade.
    pub(super) fn upgrade(&mut self, links: &mut Links, slot: u32) {
        self.connections.list[slot as usize].state = State::Upgrading;
        let key = self.upgrade_key(slot);
        let subprotocol = self.subprotocol();
        let plan = self.plan.clone();
        self.append(links, slot, |out| websocket::write_upgrade(out, &plan.host, &plan.path, &key, subprotocol));
    }

    /// What is offered; a plain echo speaks none.
    pub(super) fn subprotocol(&self) -> Option<&'static str> {
        self.plan.echo.is_none().then(|| self.plan.encoding.subprotocol())
    }

    pub(super) fn upgrade_key(&self, slot: u32) -> String {
        let attempt = u32::from(self.connections.list[slot as usize].attempts);
        websocket::key(self.plan.upgrade_nonce(self.share.first + slot, attempt))
    }

    /// The WebSocket stands: says who is there, and what it has already.
    pub(super) fn greet(&mut self, links: &mut Links, slot: u32) {
        let user = self.plan.user(self.share.first + slot);
        let token = match self.plan.tokens.token(&user) {
            Ok(token) => token,
            Err(error) => return self.control.fail(format!("can't sign a token: {error:#}")),
        };
        let connect = Connect {
            token: Some(token),
            device: Some(DeviceId::new(DEVICE).expect("a plain word")),
            resume: self.resume(slot),
            client: Some(ClientInfo { name: "loadgen".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() }),
        };
        let connection = &mut self.connections.list[slot as usize];
        connection.state = State::Greeting;
        connection.resuming = connect.resume.is_some();
        self.write(links, slot, request::CONNECT, &Request::Connect(connect));
    }

    fn resume(&mut self, slot: u32) -> Option<Resume> {
        // A resume streams what members of the large group do not want.
        let position = self.connections.list[slot as usize].position.as_ref().filter(|_| self.large.is_none())?;
        let mut known = Vec::new();
        for member in (0..self.layout.layers()).map(|layer| self.layout.member(layer, slot)) {
            self.checker.resuming(member);
            let (group, sequence) = (self.layout.conversation_of(member), self.checker.contiguous(member));
            if let Some(&epoch) = self.connections.epochs.get(&group).filter(|_| sequence > 0) {
                let conversation = self.conversations[group as usize];
                known.push(Known { conversation, epoch, sequence: Sequence(sequence) });
            }
        }
        Some(Resume { position: PositionBytes(position.to_vec()), known })
    }

    /// The connection is welcome.
    pub(super) fn welcomed(&mut self, slot: u32, heartbeat_interval_ms: u32, now_ns: Nanoseconds) {
        let interval_ns = f64::from(heartbeat_interval_ms.max(1_000)) * HEARTBEAT_PART * MILLISECOND_NS as f64;
        self.connections.heartbeat_ns = interval_ns as Nanoseconds;
        self.connections.connecting -= 1;
        self.counters.up.add(1);
        let connection = &mut self.connections.list[slot as usize];
        connection.state = State::Up;
        if !connection.established {
            connection.established = true;
            self.counters.established.add(1);
            record(&mut self.latencies.connect, connection.since_ns, now_ns);
        }
    }

    /// Everything that the connection missed has come.
    pub(super) fn now_live(&mut self, links: &mut Links, slot: u32, now_ns: Nanoseconds) {
        let connection = &mut self.connections.list[slot as usize];
        if !std::mem::replace(&mut connection.live, true) {
            connection.attempt_ns = now_ns;
            self.counters.live.add(1);
            self.presence_came(links, slot, now_ns);
            self.large_live(links, slot);
            self.pause_if_slow(links, slot);
        }
    }

    /// Whether a connection has stood, and read, since before a time.
    pub(super) fn stood_since(&self, slot: u32, at_ns: Nanoseconds) -> bool {
        let connection = &self.connections.list[slot as usize];
        connection.live && connection.attempt_ns <= at_ns && !self.plan.is_slow(self.share.first + slot)
    }

    /// The connection is gone: plans the next attempt, as the shipped client does.
    pub(super) fn disconnected(&mut self, slot: u32, now_ns: Nanoseconds) {
        let connection = &mut self.connections.list[slot as usize];
        let state = std::mem::replace(&mut connection.state, State::Down);
        connection.partial = None;
        let was_live = std::mem::take(&mut connection.live);
        if was_live {
            self.counters.live.decrement();
            self.control.board.set(self.share.first + slot, now_ns, false);
        }
        if std::mem::take(&mut connection.paused) {
            self.counters.paused.decrement();
        }
        if state == State::Up {
            let stable_ns = u64::from(self.connections.backoff.stable_after_ms) * MILLISECOND_NS;
            if was_live && now_ns.saturating_sub(connection.attempt_ns) >= stable_ns {
                connection.attempts = 0;
            }
            connection.since_ns = now_ns;
            self.counters.up.decrement();
            self.counters.lost.add(1);
        } else {
            self.connections.connecting -= 1;
            self.counters.failed_attempts.add(1);
        }
        if self.phase == Phase::Stop {
            return;
        }
        if self.connections.return_pace_ns.is_some() {
            // In its turn, and again at the end of the queue if that fails.
            self.connections.hints.remove(&slot);
            return self.connections.queue.push_back(slot);
        }
        let backoff = &self.connections.backoff;
        // Nobody stays away by a mix's will once the load is over.
        let stays_away = self.phase < Phase::Drain || self.departures.is_none();
        let hint = self.connections.hints.remove(&slot).filter(|_| stays_away).unwrap_or(Hint::None);
        let wait_ms = Backoff::after(self.random.next_u64(), u32::from(connection.attempts)).next_wait_ms(
            backoff.backoff_base_ms,
            backoff.backoff_cap_ms,
            hint,
        );
        connection.attempts = connection.attempts.saturating_add(1);
        self.connections.later.push(Reverse((now_ns + wait_ms * MILLISECOND_NS, slot)));
    }
}
