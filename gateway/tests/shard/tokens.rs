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

#[test]
fn a_session_is_told_before_its_token_is_over_and_takes_another() {
    let until = |seconds: u64| START_MS + seconds * 1_000;
    let expiring = |seconds| format!(r#"{{"expiring":{{"expires_ms":{}}}}}"#, until(seconds));
    let mut shard = Shard::new(|_| ());
    for (slot, end) in [(0, 600), (1, 600), (2, 30)] {
        shard.open(slot);
        shard.say_connect(slot, &format!("alice/{}", until(end)), &format!("device-{slot}"));
    }
    let refresh = |token: &str| format!(r#"{{"id":7,"refresh":{{"token":"{token}"}}}}"#);
    for (token, code) in [
        ("forged", "unauthenticated"),
        ("alice/5", "token_expired"),
        ("bob", "unauthenticated"),
        ("alice@device-1", "unauthenticated"),
    ] {
        let answer = shard.told(0, &refresh(token));
        assert!(answer.contains(&format!(r#""code":"{code}""#)), "{token}: {answer}");
    }
    let long = shard.told(0, &refresh(&"x".repeat(8_193)));
    assert!(long.contains(r#""code":"too_large""#), "{long}");
    let times = |shard: &Shard, slot, seconds| shard.text(slot).matches(&expiring(seconds)).count();
    pass_with_pings(&mut shard, &[0, 1], 500);
    // The other one is so quiet that it is looked at twice in the last minute.
    pass_with_pings(&mut shard, &[0], 30);
    assert_eq!([0, 1, 2].map(|slot| times(&shard, slot, if slot == 2 { 30 } else { 600 })), [0, 0, 1]);
    assert_eq!((shard.close_code(0), shard.close_code(2)), (None, Some(4501)));
    shard.pass(15_000);
    assert_eq!([0, 1].map(|slot| times(&shard, slot, 600)), [1, 1]);
    pass_with_pings(&mut shard, &[0, 1], 20);
    assert_eq!([0, 1].map(|slot| times(&shard, slot, 600)), [1, 1]);
    // A sooner end changes nothing, a later one counts from now on.
    for (token, end) in [(until(590), 600), (until(900), 900), (until(800), 900)] {
        let answer = shard.told(0, &refresh(&format!("alice@device-0/{token}")));
        assert!(answer.contains(&format!(r#"{{"id":7,"refresh":{{"expires_ms":{}}}}}"#, until(end))), "{answer}");
    }
    pass_with_pings(&mut shard, &[0, 1], 100);
    assert_eq!((shard.close_code(0), shard.close_code(1)), (None, Some(4501)));
    assert_eq!((times(&shard, 0, 600), times(&shard, 0, 900)), (1, 0));
    pass_with_pings(&mut shard, &[0], 200);
    assert_eq!(times(&shard, 0, 900), 1);
    let answer = shard.told(0, &refresh("alice"));
    assert!(answer.contains(r#"{"id":7,"refresh":{}}"#), "{answer}");
    pass_with_pings(&mut shard, &[0], 300);
    assert_eq!(shard.close_code(0), None);
}

fn pass_with_pings(shard: &mut Shard, slots: &[u32], seconds: u64) {
    for _ in 0..seconds / 10 {
        slots.iter().for_each(|slot| shard.write_text(*slot, r#"{"ping":{}}"#));
        shard.pass(10_000);
    }
}

/// So many seconds of a client that pings every ten.
fn live(shard: &mut Shard, slot: u32, seconds: u64) {
    pass_with_pings(shard, &[slot], seconds);
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
