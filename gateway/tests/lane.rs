//! A lane's side of sessions that go before they were attached.

use std::time::{Duration, Instant};

use antiphon_engine::{
    Engine, EngineOptions,
    memory_files::{MemoryClock, MemoryFiles, MemoryRandom, block_on},
};
use antiphon_gateway::core::{
    lane::Lane,
    mesh::{ConnectionFrame, LaneFrame, LaneId, MeshConnection, ShardId},
    placement::Placement,
};
use antiphon_wire::ids::{DeviceId, TimestampMs, UserId};

/// Many more than the engine is asked for at a time.
const SESSIONS: u32 = 16_000;

/// A look at all that waits, for each that goes, takes 20 s; a look at one that goes, 0.1 s.
const TIME_MAX: Duration = Duration::from_secs(4);

fn connection(slot: u32) -> MeshConnection {
    MeshConnection { slot, generation: 1 }
}

#[test]
fn sessions_that_go_in_a_storm_cost_the_lane_nothing_and_hear_nothing() {
    let options = EngineOptions { log_file_bytes: 2 << 20, ..EngineOptions::new(0) };
    let engine = Engine::open(MemoryFiles::new(1), MemoryClock::new(1_000_000), MemoryRandom::new(1), options);
    let placement = Placement { shards: 2, lanes: 1 };
    let mut lane = Lane::new(LaneId(0), placement, block_on(engine).expect("it opens").0);
    let user = |slot: u32| UserId::new(&format!("user-{slot}")).expect("a user");
    let mut told = Vec::new();
    let mut send = |_: ShardId, frame: ConnectionFrame| told.push(frame);
    for slot in 0..SESSIONS {
        let device = DeviceId::new("d").expect("a device");
        let attach = LaneFrame::Attach {
            user: user(slot),
            device,
            issued: TimestampMs(1_000_000),
            connection: connection(slot),
            since: None,
            known: Vec::new(),
            privacy: None,
        };
        lane.receive(ShardId(1), attach, 0, &mut send);
    }
    assert_eq!(lane.pending(), SESSIONS as usize);
    lane.catch_up();
    assert!(!lane.has_catch_ups(), "the engine has as many as it takes");
    let begun = Instant::now();
    // Many more that were attached before the storm began, then all but one of those that wait.
    for slot in (SESSIONS..5 * SESSIONS).chain(1..SESSIONS) {
        let detach = LaneFrame::Detach { user: user(slot), connection: connection(slot) };
        lane.receive(ShardId(1), detach, 0, &mut send);
    }
    assert!(begun.elapsed() < TIME_MAX, "{:?}", begun.elapsed());
    // Those that had been asked for are answered still, to nobody.
    while lane.pending() > 0 {
        lane.catch_up();
        while lane.poll(0, &mut send) {}
    }
    assert_eq!(lane.sessions(), 1, "the first has stayed");
    let caught_up: Vec<_> = told
        .iter()
        .filter_map(|frame| match frame {
            ConnectionFrame::CaughtUp { connection, .. } => Some(*connection),
            _ => None,
        })
        .collect();
    assert_eq!(caught_up, [connection(0)]);
}
