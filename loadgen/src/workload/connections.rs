//! How a thread's connections come to be, stay and come back: paced attempts, heartbeats, back-off with full jitter.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
};

use antiphon_wire::{
    frame::{ClientInfo, Connect, Known, Ping, PositionBytes, Request, Resume},
    ids::{DeviceId, Epoch, Sequence},
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
    token::DEVICE,
    websocket,
};

/// Attempts of all threads that are under way at once: below a usual listen backlog of 4,096.
const CONNECTING_MAX: f64 = 2_048.0;

/// An attempt that leads to no welcome for so long is given up.
const ATTEMPT_NS_MAX: Nanoseconds = 30 * SECOND_NS;

/// Longest wait before the first retry; doubled with every further one.
const BACKOFF_BASE_MS: u64 = 200;

/// Longest wait before any retry.
const BACKOFF_MS_MAX: u64 = 10_000;

/// Pings of a connection follow each other by this part of the server's heartbeat interval, so that jitter does not end it.
const HEARTBEAT_PART: f64 = 0.8;

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Not under way.
    Down,
    /// TCP.
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
    pub(super) attempt_ns: Nanoseconds,
    /// The newest message that waits for its acknowledgement.
    pub(super) pending: u32,
    pub(super) attempts: u16,
    pub(super) state: State,
    pub(super) established: bool,
    pub(super) resuming: bool,
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
    pub(super) hints_ms: HashMap<u32, u32>,
    pub(super) heartbeat_ns: Nanoseconds,
    connecting: u32,
    connecting_max: u32,
    unstarted: u32,
    queue: VecDeque<u32>,
    later: BinaryHeap<Reverse<(Nanoseconds, u32)>>,
    pace_ns: Nanoseconds,
    next_start_ns: Nanoseconds,
    beat_next: u32,
    beat_from_ns: Nanoseconds,
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
        };
        let pace = |rate: f64| (SECOND_NS as f64 / (rate * share.part)) as Nanoseconds;
        Self {
            list: std::iter::repeat_with(connection).take(share.count as usize).collect(),
            epochs: HashMap::new(),
            hints_ms: HashMap::new(),
            heartbeat_ns: 24 * SECOND_NS,
            connecting: 0,
            connecting_max: (CONNECTING_MAX * share.part).ceil().max(16.0) as u32,
            unstarted: 0,
            queue: VecDeque::new(),
            later: BinaryHeap::new(),
            pace_ns: plan.connects_per_second.map_or(0, pace),
            next_start_ns: 0,
            beat_next: 0,
            beat_from_ns: 0,
        }
    }

    pub(super) fn next_wake_ns(&self, now_ns: Nanoseconds) -> Nanoseconds {
        let waiting = !self.queue.is_empty() || (self.unstarted as usize) < self.list.len();
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
            ((slot as usize) < self.list.len()).then(|| {
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
        while let Some(&Reverse((due_ns, slot))) = self.connections.later.peek() {
            if due_ns > now_ns {
                break;
            }
            self.connections.later.pop();
            self.connections.queue.push_back(slot);
        }
        while let Some(slot) = self.connections.next_to_start(now_ns) {
            let connection = &mut self.connections.list[slot as usize];
            connection.state = State::Connecting;
            connection.attempt_ns = now_ns;
            if connection.since_ns == 0 {
                connection.since_ns = now_ns;
            }
            connection.attempts = connection.attempts.saturating_add(1);
            self.connections.connecting += 1;
            links.connect(slot);
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
                State::Up => self.write(links, slot, request::PING, &Request::Ping(Ping {})),
                State::Down => {}
                _ if now_ns - connection.attempt_ns > ATTEMPT_NS_MAX => {
                    self.note_error("no welcome in time".to_owned());
                    links.close(slot);
                }
                _ => {}
            }
        }
    }

    /// The TCP connection stands: asks for the upgrade.
    pub(super) fn upgrade(&mut self, links: &mut Links, slot: u32) {
        self.connections.list[slot as usize].state = State::Upgrading;
        let key = self.upgrade_key(slot);
        let subprotocol = self.plan.encoding.subprotocol();
        websocket::write_upgrade(links.write(slot), &self.plan.host, &self.plan.path, &key, subprotocol);
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

    fn resume(&self, slot: u32) -> Option<Resume> {
        let position = self.connections.list[slot as usize].position.as_ref()?;
        let sequence = self.checker.contiguous(slot);
        let group = self.checker.conversation_of(slot);
        let known = match (self.conversations.get(group as usize), self.connections.epochs.get(&group)) {
            (Some(&conversation), Some(&epoch)) if sequence > 0 => {
                vec![Known { conversation, epoch, sequence: Sequence(sequence) }]
            }
            _ => Vec::new(),
        };
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
        connection.attempts = 0;
        if !connection.established {
            connection.established = true;
            self.counters.established.add(1);
            crate::measure::record(&mut self.latencies.connect, connection.since_ns, now_ns);
        }
    }

    /// The connection is gone: plans the next attempt.
    pub(super) fn disconnected(&mut self, slot: u32, now_ns: Nanoseconds) {
        let connection = &mut self.connections.list[slot as usize];
        let state = std::mem::replace(&mut connection.state, State::Down);
        connection.partial = None;
        if state == State::Up {
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
        let ceiling_ms = (BACKOFF_BASE_MS << connection.attempts.min(10)).min(BACKOFF_MS_MAX);
        let wait_ms = match self.connections.hints_ms.remove(&slot) {
            Some(hint_ms) => u64::from(hint_ms),
            None => self.random.below(ceiling_ms + 1),
        };
        self.connections.later.push(Reverse((now_ns + wait_ms * MILLISECOND_NS, slot)));
    }
}
