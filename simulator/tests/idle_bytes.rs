//! What an idle session costs on the heap, counted: a shard's logic with one lane, thousands of clients that connected and fell silent.
//! The driver's slot and the kernel's memory come on top (docs/benchmarks.md has the whole table).
//!
//! With `ANTIPHON_HEAP_PROFILE` set in the environment a profile of every allocation is written to `dhat-heap.json`.

use std::{
    future::Future,
    pin::pin,
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
    rate::Rate,
    session::{Authenticate, Identity},
    shard::{ShardConfig, ShardCore},
    websocket::{self, MessageKind},
};
use antiphon_wire::{
    codec::Encoding,
    codes::ErrorCode,
    ids::{TimestampMs, UserId},
};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// Not a power of two, and more than one: what tables have spare must show.
const SESSIONS: u32 = 9_000;

/// The goal for a connection is 512 bytes in all; the driver's slot takes 12 of them, the allocator's rounding and spare pages the rest.
const BYTES_MAX: u64 = 400;

/// Users whom each session watches then, and the goal for each of them, with what users and watchers take themselves.
const WATCHED: u32 = 63;
const SUBSCRIPTION_BYTES_MAX: f64 = 32.0;

struct Anyone;

impl Authenticate for Anyone {
    fn authenticate(&self, token: &str, _: TimestampMs) -> Result<Identity, (ErrorCode, String)> {
        let user = UserId::new(token).map_err(|_| (ErrorCode::Unauthenticated, String::new()))?;
        Ok(Identity { user, device: None, expires: TimestampMs(u64::MAX / 4), issued: TimestampMs(0) })
    }
}

type Core = ShardCore<MemoryFiles, MemoryClock, MemoryRandom>;

/// Files in memory answer at once; a future that is not ready only lets others have their turn.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return output;
        }
    }
}

fn shard() -> Core {
    let placement = Placement { shards: 1, lanes: 1 };
    let config = ShardConfig {
        id: ShardId(0),
        placement,
        http: http::Rules {
            paths: vec!["/".to_owned()],
            subprotocols: Encoding::ALL.map(|encoding| encoding.subprotocol().to_owned()).to_vec(),
            subprotocol_default: None,
            origins: None,
            deflate: false,
        },
        websocket: websocket::Limits::default(),
        authenticate: Box::new(Anyone),
        requests_per_second_max: 100,
        requests_burst_max: 100,
        admission: admission::Rules {
            address: Rate::share(1_000_000, 1_000_000, 1),
            connections_per_address_max: 1_000_000,
            ..admission::Rules::default()
        },
        frames_per_second_max: 400,
        frames_burst_max: 400,
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
    let (engine, _) = block_on(Engine::open(MemoryFiles::new(1), clock.clone(), random, options)).expect("it opens");
    let mut core = ShardCore::new(config, clock, 0);
    core.set_store(1);
    core.add_lane(Lane::new(LaneId(0), placement, engine));
    core
}

/// Carries out what the shard wants until it wants nothing; what it sends arrives nowhere.
fn settle(core: &mut Core) {
    loop {
        let more = core.turn().more;
        let mut sent = Vec::new();
        while let Some(command) = core.poll_command() {
            match command {
                Command::Send { connection, .. } => sent.push(connection),
                Command::Close { connection } => panic!("{connection:?} was closed"),
            }
        }
        if sent.is_empty() && !more {
            break;
        }
        sent.into_iter().for_each(|key| core.sent(key));
    }
}

fn masked(kind: MessageKind, payload: &[u8]) -> Vec<u8> {
    websocket::encode_message(kind, payload, Some([1, 2, 3, 4]))
}

fn connect(core: &mut Core, slot: u32) {
    let key = ConnectionKey { slot, generation: 1 };
    core.accepted(key, Origin { listener: 0, peer: "192.0.2.1:7".parse().expect("an address") });
    let subprotocols = [Encoding::Json.subprotocol()];
    let request = client::Request { host: "node", path: "/", subprotocols: &subprotocols, token: None, nonce: [7; 16] };
    core.received(key, &mut client::encode_request(&request));
    let text = format!(r#"{{"id":1,"connect":{{"token":"user-{slot:07}","device":"device-1"}}}}"#);
    core.received(key, &mut masked(MessageKind::Text, text.as_bytes()));
}

/// Everybody watches those who came next. What that takes for each.
fn watch(core: &mut Core) -> f64 {
    let before = dhat::HeapStats::get().curr_bytes;
    for slot in 0..=SESSIONS {
        let names: Vec<String> =
            (1..=WATCHED).map(|next| format!(r#""user-{:07}""#, (slot + next) % (SESSIONS + 1))).collect();
        let text = format!(r#"{{"id":2,"presence":{{"watch":[{}]}}}}"#, names.join(","));
        core.received(ConnectionKey { slot, generation: 1 }, &mut masked(MessageKind::Text, text.as_bytes()));
        if slot % 500 == 0 {
            settle(core);
        }
    }
    // Until all are told of those who were watched before their rules were known.
    for step in 0..200_u64 {
        core.set_now(71_000_000 + step * 10_000);
        settle(core);
    }
    let count = u64::from(SESSIONS + 1) * u64::from(WATCHED);
    assert_eq!(core.lanes()[0].presence_subscriptions(), count);
    (dhat::HeapStats::get().curr_bytes - before) as f64 / count as f64
}

#[test]
fn an_idle_session_costs_so_many_bytes() {
    let profile = std::env::var_os("ANTIPHON_HEAP_PROFILE").is_some();
    let profiler = if profile { dhat::Profiler::new_heap() } else { dhat::Profiler::builder().testing().build() };
    let mut core = shard();
    // One pays for what the first costs.
    connect(&mut core, 0);
    settle(&mut core);
    let before = dhat::HeapStats::get().curr_bytes as u64;
    for slot in 1..=SESSIONS {
        connect(&mut core, slot);
        if slot % 500 == 0 {
            settle(&mut core);
        }
    }
    settle(&mut core);
    assert_eq!(core.counters().sessions, u64::from(SESSIONS) + 1);
    // Heartbeats go on while the time of the storm passes.
    for second in 1..=70_u64 {
        core.set_now(second * 1_000_000);
        for slot in 0..=SESSIONS {
            if u64::from(slot) % 30 == second % 30 {
                let key = ConnectionKey { slot, generation: 1 };
                core.received(key, &mut masked(MessageKind::Text, br#"{"ping":{}}"#));
            }
        }
        settle(&mut core);
    }
    assert_eq!(core.counters().sessions, u64::from(SESSIONS) + 1);
    let bytes = (dhat::HeapStats::get().curr_bytes as u64 - before) / u64::from(SESSIONS);
    println!("{bytes} bytes of heap an idle session");
    assert!(bytes <= BYTES_MAX, "{bytes} bytes of heap an idle session, at most {BYTES_MAX} wanted");
    let bytes = watch(&mut core);
    println!("{bytes:.1} bytes of heap a subscription to presence");
    assert!(bytes <= SUBSCRIPTION_BYTES_MAX, "{bytes:.1} bytes of heap a subscription to presence");
    drop(profiler);
}
