//! A shard sends its clients away: in bounded turns, after what was under way is answered, and with a time to come back.

use std::{
    collections::HashMap,
    future::Future,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use antiphon_engine::{
    Engine, EngineOptions,
    memory_files::{MemoryClock, MemoryFiles, MemoryRandom},
};
use antiphon_gateway::core::{
    admission, fanout,
    http::{self, client},
    io::{Command, ConnectionKey, Origin},
    lane::Lane,
    mesh::{LaneId, ShardId},
    placement::Placement,
    session::{Authenticate, Identity},
    shard::{ShardConfig, ShardCore},
    websocket::{self, Decoder, Event, Limits, MessageKind, Role},
};
use antiphon_wire::{
    codec::Encoding,
    codes::ErrorCode,
    ids::{ConversationId, TimestampMs, UserId},
};
use serde_json::Value;

const ORIGIN: Origin = Origin { listener: 0, peer: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 7) };

/// The most goodbyes of a turn, as the shard has it.
const GOODBYES_PER_TURN_MAX: usize = 128;

struct Anyone;

impl Authenticate for Anyone {
    fn authenticate(&self, token: &str, _: TimestampMs) -> Result<Identity, (ErrorCode, String)> {
        let user = UserId::new(token).map_err(|_| (ErrorCode::Unauthenticated, String::new()))?;
        Ok(Identity { user, device: None, expires: TimestampMs(u64::MAX / 4), issued: TimestampMs(0) })
    }
}

/// A shard with one lane, and what its clients got.
struct Shard {
    core: ShardCore<MemoryFiles, MemoryClock, MemoryRandom>,
    commits: Pin<Box<dyn Future<Output = ()>>>,
    /// Whether writes of the log come to an end.
    commits_run: bool,
    got: HashMap<u32, Vec<u8>>,
    closed: Vec<u32>,
    sends_in_a_turn_max: usize,
}

impl Shard {
    fn new() -> Self {
        let placement = Placement { shards: 1, lanes: 1 };
        let config = ShardConfig {
            id: ShardId(0),
            placement,
            http: http::Rules {
                paths: vec!["/".to_owned()],
                subprotocols: vec![Encoding::Json.subprotocol().to_owned()],
                subprotocol_default: None,
                origins: None,
                deflate: false,
            },
            websocket: Limits::default(),
            authenticate: Box::new(Anyone),
            requests_per_second_max: 100,
            requests_burst_max: 100,
            admission: admission::Rules::default(),
            frames_per_second_max: 400,
            frames_burst_max: 2_000,
            head_timeout_ms: 5_000,
            connect_timeout_ms: 10_000,
            silence_ms_max: 60_000,
            outbound_bytes_max: 1 << 20,
            connections_max: 1 << 20,
            fanout: fanout::Rules::default(),
            devices_per_user: 10,
        };
        let (clock, random) = (MemoryClock::new(1_000_000), MemoryRandom::new(1));
        let options = EngineOptions { log_file_bytes: 2 << 20, ..EngineOptions::new(0) };
        let mut opening = pin!(Engine::open(MemoryFiles::new(1), clock.clone(), random, options));
        let engine = loop {
            if let Poll::Ready(opened) = opening.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                break opened.expect("it opens").0;
            }
        };
        let of_commits = engine.clone();
        let commits = Box::pin(async move { of_commits.run_commits().await });
        let mut core = ShardCore::new(config, clock, 0);
        core.set_store(1);
        core.add_lane(Lane::new(LaneId(0), placement, engine));
        Self { core, commits, commits_run: true, got: HashMap::new(), closed: vec![], sends_in_a_turn_max: 0 }
    }

    /// Carries out what the shard wants until it wants nothing.
    fn settle(&mut self) {
        let mut quiet = 0;
        loop {
            let turn = self.core.turn();
            let mut sent = Vec::new();
            while let Some(command) = self.core.poll_command() {
                match command {
                    Command::Send { connection, buffers, .. } => {
                        let got = self.got.entry(connection.slot).or_default();
                        buffers.iter().for_each(|buffer| got.extend_from_slice(buffer));
                        sent.push(connection);
                    }
                    Command::Close { connection } => self.closed.push(connection.slot),
                }
            }
            self.sends_in_a_turn_max = self.sends_in_a_turn_max.max(sent.len());
            if self.commits_run {
                // Twice: one poll begins a write in memory, the next finds it done.
                for _ in 0..2 {
                    let _ = self.commits.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                }
            }
            // What the log has written comes out a turn later.
            quiet = if sent.is_empty() && !turn.more { quiet + 1 } else { 0 };
            if quiet > 4 {
                return;
            }
            sent.into_iter().for_each(|key| self.core.sent(key));
        }
    }

    fn open(&mut self, slot: u32) {
        self.core.accepted(key(slot), ORIGIN);
        let mut request = upgrade();
        self.core.received(key(slot), &mut request);
    }

    fn say(&mut self, slot: u32, text: &str) {
        self.core.received(key(slot), &mut websocket::encode_message(MessageKind::Text, text.as_bytes(), Some([7; 4])));
    }

    fn connect(&mut self, slot: u32) {
        self.open(slot);
        self.say(slot, &format!(r#"{{"id":1,"connect":{{"token":"user-{slot}","device":"d"}}}}"#));
        self.settle();
        self.got.remove(&slot);
    }

    /// Frames that a client got since, and the code of the close frame behind them.
    fn frames(&mut self, slot: u32) -> (Vec<Value>, Option<u16>) {
        let mut bytes = self.got.remove(&slot).unwrap_or_default();
        let (mut decoder, mut frames, mut input) = (Decoder::new(Role::Client), Vec::new(), &mut bytes[..]);
        while let Some(event) = decoder.poll(&mut input, &Limits::default()).unwrap() {
            match event {
                Event::Message { payload, .. } => frames.push(serde_json::from_slice(payload).unwrap()),
                Event::Close { code, .. } => return (frames, code),
                Event::Ping(_) | Event::Pong(_) => {}
            }
        }
        (frames, None)
    }

    fn check_goodbye(&mut self, slot: u32) {
        let (frames, code) = self.frames(slot);
        let after_ms = frames.last().unwrap()["goodbye"]["reconnect_after_ms"].as_u64();
        assert!(after_ms.is_some_and(|after_ms| (500..900).contains(&after_ms)), "{slot}: {frames:?}");
        assert_eq!(code, Some(4000));
    }
}

fn key(slot: u32) -> ConnectionKey {
    ConnectionKey { slot, generation: 1 }
}

fn upgrade() -> Vec<u8> {
    let subprotocols = [Encoding::Json.subprotocol()];
    let request = client::Request { host: "node", path: "/", subprotocols: &subprotocols, token: None, nonce: [7; 16] };
    client::encode_request(&request)
}

/// A request that a lane answers when its log has been written.
fn create() -> String {
    r#"{"id":2,"create":{"direct":"somebody"}}"#.to_owned()
}

#[test]
fn goodbyes_are_said_in_bounded_turns_and_in_their_range() {
    const SESSIONS: u32 = 1_000;
    let mut shard = Shard::new();
    (0..SESSIONS).for_each(|slot| shard.connect(slot));
    shard.sends_in_a_turn_max = 0;
    shard.core.drain(500..900);
    assert!(!shard.core.is_told(), "nobody has been told");
    shard.settle();
    assert!(shard.core.is_told() && !shard.core.is_drained());
    assert_eq!(shard.sends_in_a_turn_max, GOODBYES_PER_TURN_MAX);
    (0..SESSIONS).for_each(|slot| shard.check_goodbye(slot));
    // They answer the close, and are gone.
    for slot in 0..SESSIONS {
        shard.core.received(key(slot), &mut websocket::encode_close(None, "", Some([7; 4])));
    }
    shard.settle();
    assert!(shard.core.is_drained() && shard.closed.len() == SESSIONS as usize);
}

#[test]
fn what_was_under_way_is_answered_before_the_goodbye() {
    let mut shard = Shard::new();
    shard.connect(0);
    shard.connect(1);
    shard.commits_run = false;
    shard.say(0, &create());
    shard.settle();
    shard.core.drain(500..900);
    shard.settle();
    shard.check_goodbye(1);
    assert!(!shard.core.is_told(), "one waits for its answer");
    shard.say(0, r#"{"id":3,"create":{"direct":"another"}}"#);
    shard.settle();
    let (frames, code) = shard.frames(0);
    assert_eq!((frames[0]["id"].as_u64(), &frames[0]["error"]["code"]), (Some(3), &"shutting_down".into()));
    assert_eq!((frames.len(), code), (1, None), "{frames:?}");
    shard.commits_run = true;
    shard.settle();
    let (frames, code) = shard.frames(0);
    let users = [UserId::new("user-0").unwrap(), UserId::new("somebody").unwrap()];
    let made = ConversationId::direct(&users[0], &users[1]).to_string();
    let answer = frames.iter().position(|frame| frame["create"]["conversation"] == made.as_str()).unwrap();
    assert!(frames[answer]["id"] == 2 && frames.last().unwrap().get("goodbye").is_some(), "{frames:?}");
    assert!(answer < frames.len() - 1 && code == Some(4000), "{frames:?}");
    assert!(shard.core.is_told());
}

#[test]
fn nobody_waits_for_an_answer_for_ever_or_when_told_to_hurry() {
    for hurries in [false, true] {
        let mut shard = Shard::new();
        shard.connect(0);
        shard.commits_run = false;
        shard.say(0, &create());
        shard.settle();
        shard.core.drain(500..900);
        shard.settle();
        assert!(!shard.core.is_told());
        if hurries {
            shard.core.hurry();
        } else {
            let wakes_at_ms = shard.core.turn().wake_at_ms.unwrap();
            assert!(wakes_at_ms <= 2_000, "{wakes_at_ms}");
            shard.core.set_now(2_000_000);
        }
        shard.settle();
        shard.check_goodbye(0);
        assert!(shard.core.is_told());
    }
}

#[test]
fn who_comes_during_a_drain_hears_when_to_come_back() {
    let mut shard = Shard::new();
    // One has said half of its request, one nothing.
    let request = upgrade();
    shard.core.accepted(key(0), ORIGIN);
    shard.core.received(key(0), &mut request[..20].to_vec());
    shard.core.accepted(key(1), ORIGIN);
    shard.core.drain(500..900);
    shard.settle();
    assert!(shard.core.is_told() && shard.closed.is_empty(), "{:?}", shard.closed);
    shard.core.received(key(0), &mut request[20..].to_vec());
    shard.open(2);
    shard.settle();
    assert_eq!(shard.closed, [2, 0]);
    shard.core.set_now(2_000_000);
    shard.settle();
    // One that says nothing is not waited for.
    shard.core.accepted(key(0), ORIGIN);
    shard.settle();
    shard.core.set_now(3_500_000);
    shard.settle();
    assert_eq!(shard.closed, [2, 0, 1, 0]);
    for slot in 0..3 {
        let text = String::from_utf8(shard.got.remove(&slot).unwrap()).unwrap();
        assert!(text.starts_with("HTTP/1.1 503 ") && text.to_ascii_lowercase().contains("\r\nretry-after: "), "{text}");
    }
    assert!(shard.core.is_drained());
}
