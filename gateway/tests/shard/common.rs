//! A shard with one lane in memory, a network that takes everything at once or nothing, and clients that write whatever bytes they like.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Waker},
};

use antiphon_engine::{
    Engine, EngineOptions,
    memory_files::{MemoryClock, MemoryFiles, MemoryRandom, block_on},
};
use antiphon_gateway::core::{
    admission::Rules,
    fanout,
    http::{self, client},
    io::{Command, ConnectionKey, Origin},
    lane::Lane,
    mesh::{LaneId, ShardId},
    placement::Placement,
    session::{Authenticate, Identity},
    shard::{ShardConfig, ShardCore, ShardCounters},
    websocket::{self, Decoder, Event, Limits, MessageKind, Opcode, Role, encode_frame, encode_message},
};
use antiphon_wire::{
    codec::Encoding,
    codes::ErrorCode,
    ids::{DeviceId, TimestampMs, UserId},
};

/// Where nobody says otherwise.
pub(crate) const PEER: &str = "192.0.2.1:4711";

/// Not random: masks protect middleboxes, and there are none here.
const MASK: Option<[u8; 4]> = Some([1, 2, 3, 4]);

/// The wall clock at the start.
pub(crate) const START_MS: u64 = 1_000_000_000;

/// Tokens are `user`, `user@device`, `user/ms` or `user^ms`: a device that the token is bound to, the time at which it ends, or the one at which
/// it was issued, otherwise now.
struct Names;

impl Authenticate for Names {
    fn authenticate(&self, token: &str, now: TimestampMs) -> Result<Identity, (ErrorCode, String)> {
        if token == "forged" {
            return Err((ErrorCode::Unauthenticated, "it is".into()));
        }
        let (token, issued) = match token.split_once('^') {
            Some((token, issued)) => (token, issued.parse().expect("a time")),
            None => (token, now.0),
        };
        let (token, expires) = match token.split_once('/') {
            Some((token, end)) => (token, end.parse().expect("a time")),
            None => (token, u64::MAX),
        };
        if expires <= now.0 {
            return Err((ErrorCode::TokenExpired, "it has".into()));
        }
        let (user, device) = match token.split_once('@') {
            Some((user, device)) => (user, Some(DeviceId::new(device).expect("a device"))),
            None => (token, None),
        };
        let (expires, issued) = (TimestampMs(expires), TimestampMs(issued));
        Ok(Identity { user: UserId::new(user).expect("a user"), device, expires, issued })
    }
}

/// The shard and what its clients got.
pub(crate) struct Shard {
    pub(crate) core: ShardCore<MemoryFiles, MemoryClock, MemoryRandom>,
    /// The wall clock. Monotonic time is moved by [`Shard::pass`] and moves it, too.
    pub(crate) wall: MemoryClock,
    now_us: u64,
    files: MemoryFiles,
    engine: Engine<MemoryFiles, MemoryClock, MemoryRandom>,
    /// The engine's future that answers commands, once a test wants that.
    commits: Option<Pin<Box<dyn Future<Output = ()>>>>,
    /// Everything that was sent to a slot.
    sent: BTreeMap<u32, Vec<u8>>,
    closed: BTreeSet<u32>,
    /// Slots whose peers read nothing.
    pub(crate) unread: BTreeSet<u32>,
}

fn config(placement: Placement) -> ShardConfig {
    ShardConfig {
        id: ShardId(0),
        placement,
        http: http::Rules {
            paths: vec!["/".to_owned(), "/ws".to_owned()],
            subprotocols: Encoding::ALL.map(|encoding| encoding.subprotocol().to_owned()).to_vec(),
            subprotocol_default: None,
            origins: None,
            deflate: false,
        },
        websocket: websocket::Limits::default(),
        authenticate: Box::new(Names),
        admission: Rules::default(),
        requests_per_second_max: 50,
        requests_burst_max: 200,
        frames_per_second_max: 200,
        frames_burst_max: 800,
        head_timeout_ms: 5_000,
        connect_timeout_ms: 10_000,
        silence_ms_max: 60_000,
        outbound_bytes_max: 1 << 20,
        connections_max: 100,
        fanout: fanout::Rules { large_members: 2, at_a_time: 2, ..fanout::Rules::default() },
        devices_per_user: 3,
    }
}

impl Shard {
    pub(crate) fn new(change: impl FnOnce(&mut ShardConfig)) -> Self {
        Self::over(MemoryFiles::new(1), change)
    }

    /// The node is killed and started again over what it has stored, and carries out commands.
    pub(crate) fn restarted(self) -> Self {
        let mut shard = Self::over(self.files.clone(), |_| {});
        shard.run_engine();
        shard
    }

    fn over(files: MemoryFiles, change: impl FnOnce(&mut ShardConfig)) -> Self {
        let placement = Placement { shards: 1, lanes: 1 };
        let mut config = config(placement);
        change(&mut config);
        let (wall, random) = (MemoryClock::new(START_MS), MemoryRandom::new(1));
        let options = EngineOptions { log_file_bytes: 2 << 20, ..EngineOptions::new(0) };
        let engine = block_on(Engine::open(files.clone(), wall.clone(), random, options));
        let mut core = ShardCore::new(config, wall.clone(), 1_000_000);
        core.set_store(1);
        let engine = engine.expect("it opens").0;
        core.add_lane(Lane::new(LaneId(0), placement, engine.clone()));
        let (sent, closed, unread) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        Self { core, wall, now_us: 1_000_000, files, engine, commits: None, sent, closed, unread }
    }

    /// From now on commands are carried out.
    pub(crate) fn run_engine(&mut self) {
        let engine = self.engine.clone();
        self.commits = Some(Box::pin(async move { engine.run_commits().await }));
    }

    pub(crate) fn counters(&self) -> ShardCounters {
        self.core.counters()
    }

    /// Time passes, second by second, with a turn in each.
    pub(crate) fn pass(&mut self, mut ms: u64) {
        while ms > 0 {
            let step = ms.min(1_000);
            ms -= step;
            self.now_us += step * 1_000;
            self.wall.advance(step);
            self.core.set_now(self.now_us);
            self.turn();
        }
    }

    /// A client at [`PEER`].
    pub(crate) fn accept(&mut self, slot: u32) {
        self.accept_from(slot, PEER);
    }

    pub(crate) fn accept_from(&mut self, slot: u32, peer: &str) {
        let peer: SocketAddr = peer.parse().expect("an address");
        self.closed.remove(&slot);
        self.sent.remove(&slot);
        self.core.accepted(key(slot), Origin { listener: 0, peer });
        self.turn();
    }

    /// A client writes bytes; as the driver does it, nothing is handed on of one that is closed.
    pub(crate) fn write(&mut self, slot: u32, bytes: &[u8]) {
        if !self.closed.contains(&slot) {
            self.core.received(key(slot), &mut bytes.to_vec());
            self.turn();
        }
    }

    /// The peer reads what was sent to it, and goes on reading.
    pub(crate) fn read(&mut self, slot: u32) {
        self.unread.remove(&slot);
        self.core.sent(key(slot));
        self.turn();
    }

    /// The client's end goes away.
    pub(crate) fn hang_up(&mut self, slot: u32) {
        if self.closed.insert(slot) {
            self.core.closed(key(slot));
        }
    }

    /// A client writes a message and is gone before anything comes of it.
    pub(crate) fn tell_and_hang_up(&mut self, slot: u32, text: &str) {
        self.core.received(key(slot), &mut encode_message(MessageKind::Text, text.as_bytes(), MASK));
        self.hang_up(slot);
        self.turn();
    }

    pub(crate) fn write_text(&mut self, slot: u32, text: &str) {
        self.write(slot, &encode_message(MessageKind::Text, text.as_bytes(), MASK));
    }

    /// What a client is sent by what it writes.
    pub(crate) fn told(&mut self, slot: u32, text: &str) -> String {
        let before = self.text(slot).len();
        self.write_text(slot, text);
        self.text(slot)[before..].to_owned()
    }

    pub(crate) fn write_frame(&mut self, slot: u32, opcode: Opcode, fin: bool, payload: &[u8]) {
        self.write(slot, &encode_frame(opcode, fin, payload, MASK));
    }

    /// Accepts and upgrades.
    pub(crate) fn open(&mut self, slot: u32) {
        self.accept(slot);
        self.write(slot, &head(""));
        assert!(self.text(slot).starts_with("HTTP/1.1 101 "), "{}", self.text(slot));
    }

    /// Accepts, upgrades and connects.
    pub(crate) fn connect(&mut self, slot: u32, token: &str) {
        self.open(slot);
        self.say_connect(slot, token, "phone");
        assert!(self.text(slot).contains("caught_up"), "{}", self.text(slot));
    }

    pub(crate) fn say_connect(&mut self, slot: u32, token: &str, device: &str) {
        self.write_text(slot, &format!(r#"{{"id":1,"connect":{{"token":"{token}","device":"{device}"}}}}"#));
    }

    /// Everything that a slot's client was sent, as text.
    pub(crate) fn text(&self, slot: u32) -> String {
        String::from_utf8_lossy(self.sent.get(&slot).map_or(&[], Vec::as_slice)).into_owned()
    }

    pub(crate) fn is_closed(&self, slot: u32) -> bool {
        self.closed.contains(&slot)
    }

    /// The code of the close frame that a client was sent behind its upgrade.
    pub(crate) fn close_code(&self, slot: u32) -> Option<u16> {
        let mut bytes = self.sent.get(&slot)?.clone();
        let head = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        let (mut input, mut decoder) = (&mut bytes[head..], Decoder::new(Role::Client));
        let limits = Limits { message_bytes_max: 1 << 24, frame_bytes_max: 1 << 24, ..Limits::default() };
        while let Some(event) = decoder.poll(&mut input, &limits).expect("the server speaks WebSocket") {
            if let Event::Close { code, .. } = event {
                return code;
            }
        }
        None
    }

    /// A client writes, and the shard has no turn for it yet.
    pub(crate) fn hand_in(&mut self, slot: u32, text: &str) {
        self.core.received(key(slot), &mut encode_message(MessageKind::Text, text.as_bytes(), MASK));
    }

    /// Turns until there is nothing to do.
    fn turn(&mut self) {
        while self.step() {}
    }

    /// A turn, and what it asks of the network; what a peer reads has left at once. Whether there is more to do.
    pub(crate) fn step(&mut self) -> bool {
        let mut more = self.core.turn().more;
        if let Some(commits) = &mut self.commits {
            let waiting = self.engine.status().outputs_waiting;
            let _ = commits.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            more |= self.engine.status().outputs_waiting > waiting;
        }
        let mut left = Vec::new();
        while let Some(command) = self.core.poll_command() {
            match command {
                Command::Send { connection, buffers, .. } => {
                    assert!(!self.closed.contains(&connection.slot), "a send to a closed connection");
                    let all = self.sent.entry(connection.slot).or_default();
                    buffers.iter().for_each(|buffer| all.extend_from_slice(buffer));
                    if !self.unread.contains(&connection.slot) {
                        left.push(connection);
                    }
                }
                Command::Close { connection } => {
                    assert!(self.closed.insert(connection.slot), "a connection is closed once");
                    left.retain(|key| *key != connection);
                }
            }
        }
        let is_done = left.is_empty() && !more;
        left.into_iter().for_each(|key| self.core.sent(key));
        !is_done
    }
}

fn key(slot: u32) -> ConnectionKey {
    ConnectionKey { slot, generation: 0 }
}

/// An upgrade request with more lines.
pub(crate) fn head(lines: &str) -> Vec<u8> {
    let subprotocols = [Encoding::Json.subprotocol()];
    let request =
        client::Request { host: "node", path: "/ws", subprotocols: &subprotocols, token: None, nonce: [7; 16] };
    let text = String::from_utf8(client::encode_request(&request)).expect("it is text");
    format!("{}\r\n{lines}\r\n", text.trim_end_matches("\r\n")).into_bytes()
}
