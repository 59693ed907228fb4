//! Who is taken, who is turned away with which answer, and what a refusal leaves behind.

use antiphon_gateway::core::{
    address::Block,
    admission::{Refusal, Rules},
    pressure::Pressure,
    rate::Rate,
    shard::ShardConfig,
};

use crate::common::{Shard, head};

fn limited(per_second: u32, burst: u32) -> impl FnOnce(&mut ShardConfig) {
    move |config| config.admission = Rules { address: Rate::share(per_second, burst, 1), ..Rules::default() }
}

fn refused(shard: &Shard, why: Refusal) -> u64 {
    shard.counters().refused[why.index()]
}

/// The `Retry-After` of an answer.
fn retry_after(answer: &str) -> u32 {
    let line = answer.lines().find_map(|line| line.strip_prefix("Retry-After: "));
    line.and_then(|seconds| seconds.parse().ok()).unwrap_or_else(|| panic!("{answer}"))
}

#[test]
fn beyond_its_rate_an_address_gets_429_and_others_get_in() {
    let mut shard = Shard::new(limited(1, 3));
    (0..3).for_each(|slot| shard.open(slot));
    shard.accept(3);
    let answer = shard.text(3);
    assert!(answer.starts_with("HTTP/1.1 429 Too Many Requests\r\n"), "{answer}");
    assert!((1..=9).contains(&retry_after(&answer)));
    assert_eq!((refused(&shard, Refusal::AddressRate), shard.counters().connections), (1, 3));
    shard.accept_from(4, "192.0.2.2:1");
    shard.write(4, &head(""));
    assert!(shard.text(4).starts_with("HTTP/1.1 101 "));
    shard.pass(2_000);
    shard.open(5);
}

#[test]
fn a_full_a_pressed_and_a_leaving_shard_say_503_each_for_its_reason() {
    let mut shard = Shard::new(|config| config.connections_max = 2);
    shard.connect(0, "alice");
    shard.core.set_pressure(Pressure::Refuse);
    shard.accept(1);
    shard.core.set_pressure(Pressure::Hold);
    shard.accept(2);
    shard.core.set_pressure(Pressure::None);
    shard.open(3);
    shard.accept(4);
    for slot in [1, 2, 4] {
        assert!(shard.text(slot).starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{slot}");
    }
    assert_eq!((refused(&shard, Refusal::Memory), refused(&shard, Refusal::Full)), (2, 1));
    // Whoever is there goes on.
    shard.write_text(0, r#"{"id":9,"ping":{}}"#);
    assert!(shard.text(0).contains(r#""id":9"#));
    shard.core.drain(0..1_000);
    shard.accept(5);
    assert_eq!(refused(&shard, Refusal::Draining), 1);
}

#[test]
fn those_refused_together_are_told_different_times() {
    let mut shard = Shard::new(|config| config.connections_max = 0);
    let mut seen = std::collections::BTreeSet::new();
    for slot in 0..100 {
        shard.accept(slot);
        seen.insert(retry_after(&shard.text(slot)));
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), (1..=8).collect::<Vec<_>>());
}

#[test]
fn an_answer_is_closed_when_the_request_came_or_a_second_passed_and_holds_no_connection() {
    let mut shard = Shard::new(|config| config.connections_max = 0);
    (0..3).for_each(|slot| shard.accept(slot));
    assert_eq!(shard.counters().connections, 0);
    assert!((0..3).all(|slot| !shard.is_closed(slot)), "a reset would overtake the answer");
    shard.write(0, &head(""));
    assert!(shard.is_closed(0));
    shard.hang_up(1);
    shard.pass(1_000);
    assert!(shard.is_closed(2));
    // A slot is free for another, and one that reads nothing is closed, too.
    shard.unread.insert(2);
    shard.accept(2);
    shard.write(2, &head(""));
    assert!(!shard.is_closed(2));
    shard.pass(1_000);
    assert!(shard.is_closed(2));
}

#[test]
fn a_flood_of_refusals_is_closed_without_answers_beyond_a_thousand_a_second() {
    let mut shard = Shard::new(|config| config.connections_max = 0);
    (0..2_000).for_each(|slot| shard.accept(slot));
    let counters = shard.counters();
    assert_eq!((counters.refused[Refusal::Full.index()], counters.refused_unanswered), (2_000, 2_000 - 1_024));
    assert!(shard.is_closed(1_999) && shard.text(1_999).is_empty());
    shard.pass(1_000);
    shard.accept(3_000);
    assert!(!shard.text(3_000).is_empty());
}

#[test]
fn connections_of_an_address_are_bounded_and_forgotten_when_they_end() {
    let mut shard =
        Shard::new(|config| config.admission = Rules { connections_per_address_max: 2, ..Rules::default() });
    shard.connect(0, "alice");
    shard.open(1);
    shard.accept(2);
    assert!(shard.text(2).starts_with("HTTP/1.1 429 "));
    assert_eq!(refused(&shard, Refusal::AddressConnections), 1);
    shard.hang_up(0);
    shard.open(3);
    shard.accept(4);
    assert!(shard.text(4).starts_with("HTTP/1.1 429 "));
}

fn behind_a_proxy(config: &mut ShardConfig) {
    let proxy: Block = "10.0.0.0/8".parse().expect("a block");
    config.admission = Rules {
        address: Rate::share(1, 2, 1),
        connections_per_address_max: 50,
        forwarded_from: [proxy].into_iter().collect(),
        ..Rules::default()
    };
}

#[test]
fn a_proxys_client_pays_when_its_head_is_there() {
    let mut shard = Shard::new(behind_a_proxy);
    let through = |shard: &mut Shard, slot: u32, lines: &str| {
        shard.accept_from(slot, "10.0.0.1:5");
        shard.write(slot, &head(lines));
        shard.text(slot).split(' ').nth(1).unwrap_or_default().to_owned()
    };
    let client = "X-Forwarded-For: 203.0.113.9, 192.0.2.7\r\n";
    assert_eq!(through(&mut shard, 0, client), "101");
    assert_eq!(through(&mut shard, 1, client), "101");
    assert_eq!(through(&mut shard, 2, client), "429");
    assert!(shard.is_closed(2) && refused(&shard, Refusal::AddressRate) == 1);
    // What the client wrote itself is not believed, and the proxy itself is exempt.
    assert_eq!(through(&mut shard, 3, "X-Forwarded-For: 198.51.100.1, 192.0.2.7\r\n"), "429");
    assert_eq!(through(&mut shard, 4, "X-Forwarded-For: 198.51.100.1\r\n"), "101");
    for slot in 10..20 {
        assert_eq!(through(&mut shard, slot, ""), "101");
    }
    assert_eq!(through(&mut shard, 20, "X-Forwarded-For: nobody\r\n"), "101");
    assert_eq!(shard.counters().forwarded_malformed, 1);
    // From anybody else the header is only a header.
    for slot in 21..23 {
        shard.accept_from(slot, "192.0.2.8:1");
        shard.write(slot, &head("X-Forwarded-For: 198.51.100.77\r\n"));
    }
    shard.accept_from(23, "192.0.2.8:1");
    assert!(shard.text(23).starts_with("HTTP/1.1 429 "));
}

#[test]
fn a_bad_request_costs_its_address_ten_connections_and_a_health_check_one() {
    let mut shard = Shard::new(limited(1, 30));
    for slot in 0..3 {
        shard.accept(slot);
        shard.write(slot, b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(shard.text(slot).starts_with("HTTP/1.1 404 ") && shard.is_closed(slot));
    }
    shard.accept(4);
    assert!(shard.text(4).starts_with("HTTP/1.1 429 "));
    for slot in 10..40 {
        shard.accept_from(slot, "192.0.2.2:1");
        shard.write(slot, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(shard.text(slot).starts_with("HTTP/1.1 200 "), "{slot}");
    }
}
