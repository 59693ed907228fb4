//! Tokens that are bad, borrowed or over, and clocks that jump.

use antiphon_gateway::core::{
    admission::{Refusal, Rules},
    rate::Rate,
};

use crate::common::{START_MS, Shard};

const HOUR_MS: u64 = 3_600_000;

#[test]
fn refused_tokens_are_counted_and_cost_their_address() {
    let mut shard =
        Shard::new(|config| config.admission = Rules { address: Rate::share(1, 30, 1), ..Rules::default() });
    for (slot, token, code) in [(0, "forged", 4500), (1, "alice/5", 4501), (2, "forged", 4500)] {
        shard.open(slot);
        shard.say_connect(slot, token, "phone");
        assert_eq!(shard.close_code(slot), Some(code));
    }
    assert_eq!(shard.counters().tokens_refused, 3);
    shard.accept(3);
    assert_eq!(shard.counters().refused[Refusal::AddressRate.index()], 1);
    // Good ones cost one connection each.
    for slot in 10..30 {
        shard.accept_from(slot, "192.0.2.2:1");
        shard.write(slot, &crate::common::head(""));
        shard.say_connect(slot, &format!("user{slot}"), "phone");
        assert!(shard.text(slot).contains("caught_up"), "{slot}");
    }
}

#[test]
fn a_token_of_another_device_is_refused_and_of_the_same_one_takes_its_place() {
    let mut shard = Shard::new(|_| ());
    shard.open(0);
    shard.say_connect(0, "alice@phone", "phone");
    assert!(shard.text(0).contains("caught_up"));
    // Stolen and used by a device of another name: the claim does not fit.
    shard.open(1);
    shard.say_connect(1, "alice@phone", "thief");
    assert_eq!((shard.close_code(1), shard.counters().tokens_refused), (Some(4500), 1));
    assert_eq!(shard.close_code(0), None);
    // Under the device's own name a bearer token is good, and its owner sees it by being replaced.
    shard.open(2);
    shard.say_connect(2, "alice@phone", "phone");
    assert!(shard.text(2).contains("caught_up"));
    assert_eq!((shard.close_code(0), shard.counters().replaced), (Some(4502), 1));
}

/// So many seconds of a client that pings every ten.
fn live(shard: &mut Shard, slot: u32, seconds: u64) {
    for _ in 0..seconds / 10 {
        shard.write_text(slot, r#"{"ping":{}}"#);
        shard.pass(10_000);
    }
}

#[test]
fn a_clock_that_jumps_moves_no_timer() {
    for jump_ms in [START_MS - HOUR_MS, START_MS + HOUR_MS] {
        let mut shard = Shard::new(|_| ());
        shard.connect(0, "alice");
        shard.open(1);
        shard.accept(2);
        shard.wall.set(jump_ms);
        shard.pass(3_000);
        assert_eq!((shard.close_code(0), shard.close_code(1), shard.is_closed(2)), (None, None, false));
        shard.pass(4_000);
        assert!(shard.is_closed(2), "the head's timeout is monotonic");
        live(&mut shard, 0, 120);
        assert_eq!((shard.close_code(0), shard.close_code(1)), (None, Some(4004)));
        // Ten seconds after its last ping.
        shard.pass(49_000);
        assert_eq!(shard.close_code(0), None);
        shard.pass(5_000);
        assert_eq!(shard.close_code(0), Some(4002));
    }
}

#[test]
fn a_token_ends_by_the_wall_clock_wherever_it_jumps() {
    let token = format!("alice/{}", START_MS + HOUR_MS / 2);
    // Forward: over at once, seen within the silence that ends a session.
    let mut shard = Shard::new(|_| ());
    shard.connect(0, &token);
    shard.wall.set(START_MS + HOUR_MS);
    live(&mut shard, 0, 70);
    assert_eq!(shard.close_code(0), Some(4501));
    // Back: as much longer as the clock says, and no longer.
    let mut shard = Shard::new(|_| ());
    shard.connect(0, &token);
    shard.wall.set(START_MS - HOUR_MS);
    live(&mut shard, 0, 85 * 60);
    assert_eq!(shard.close_code(0), None);
    live(&mut shard, 0, 7 * 60);
    assert_eq!(shard.close_code(0), Some(4501));
}
