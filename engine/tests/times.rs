//! Times of a lane's entries never go back, wherever the clock jumps: clients sort lists by them.

mod support;

use support::Lane;

#[test]
fn times_never_go_back_wherever_the_clock_jumps() {
    let mut lane = Lane::new(1);
    let conversation = lane.create_direct("ann", "bob");
    let mut key = 0;
    let mut send_at = |lane: &mut Lane, clock: u64| {
        lane.clock.set(clock);
        key += 1;
        lane.sent("ann", conversation, key, "hello");
    };
    for clock in [1_002_000, 900_000, 1_001_999, 1_003_000, 1] {
        send_at(&mut lane, clock);
    }
    // The last time is in the log alone.
    lane.reopen();
    send_at(&mut lane, 1);
    // And in segments alone.
    lane.clock.set(4_000_000);
    lane.engine.tick();
    lane.settle();
    assert_eq!(lane.engine.status().flushed_position, lane.engine.position());
    lane.reopen();
    send_at(&mut lane, 2);
    let times: Vec<u64> = lane.whole_history("bob", conversation).iter().map(|entry| entry.time_ms.0).collect();
    assert!(times.is_sorted(), "{times:?}");
    assert_eq!((times.len(), times.last()), (8, Some(&1_003_000)));
}
