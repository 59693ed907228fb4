//! Presence through a whole shard: who is told of whose coming and going, and that nobody is who may not see it.

use antiphon_wire::limits::{PRESENCE_PER_REQUEST_MAX, PRESENCE_WATCHED_MAX};

use crate::{
    common::{START_MS, Shard},
    groups::{choir, request},
};

/// What a tick lasts at most.
const TICK_MS: u64 = 250;

fn shard() -> Shard {
    let mut shard = Shard::new(|config| {
        (config.requests_per_second_max, config.requests_burst_max) = (1_000, 1_000);
    });
    shard.run_engine();
    shard
}

fn watch(names: &[&str]) -> String {
    format!(r#"{{"id":5,"presence":{{"watch":["{}"]}}}}"#, names.join(r#"",""#))
}

fn rule(value: &str) -> String {
    format!(r#"{{"id":6,"account":{{"set":{{"key":"antiphon.presence","value":{value}}}}}}}"#)
}

/// What a slot is told while something happens and for a tick after it.
fn told(shard: &mut Shard, slot: u32, happens: impl FnOnce(&mut Shard)) -> String {
    let before = shard.text(slot).len();
    happens(shard);
    shard.pass(TICK_MS);
    shard.text(slot)[before..].to_owned()
}

#[test]
fn who_watches_is_told_of_coming_and_going() {
    let mut shard = shard();
    shard.connect(1, "bob");
    let answer = shard.told(1, &watch(&["ann", "bob"]));
    assert!(
        answer.contains(
            r#"{"id":5,"presence":{"users":[{"user":"ann","online":false},{"user":"bob","online":true}],"watching":2}}"#
        ),
        "{answer}"
    );
    let said = told(&mut shard, 1, |shard| shard.connect(2, "ann"));
    assert!(said.contains(r#"{"present":{"users":[{"user":"ann","online":true}]}}"#), "{said}");
    // A second device changes nothing, nor does the first's going.
    let said = told(&mut shard, 1, |shard| {
        shard.open(3);
        shard.say_connect(3, "ann", "desk");
    });
    assert!(!said.contains("present"), "{said}");
    assert!(!told(&mut shard, 1, |shard| shard.hang_up(2)).contains("present"));
    let said = told(&mut shard, 1, |shard| shard.hang_up(3));
    // A lane hears of it in the next turn.
    let at = START_MS + 4 * TICK_MS;
    let expected = format!(r#"{{"present":{{"users":[{{"user":"ann","online":false,"last_seen_ms":{at}}}]}}}}"#);
    assert!(said.contains(&expected), "{said}");
    // Gone and back within a tick is nothing.
    let said = told(&mut shard, 1, |shard| {
        shard.connect(2, "ann");
        shard.hang_up(2);
        shard.connect(2, "ann");
    });
    assert_eq!(said.matches("present").count(), 1, "{said}");
    let answer = shard.told(1, r#"{"id":7,"presence":{"unwatch":["ann"]}}"#);
    assert!(answer.contains(r#"{"id":7,"presence":{"users":[],"watching":1}}"#), "{answer}");
    assert!(!told(&mut shard, 1, |shard| shard.hang_up(2)).contains("present"));
    // Whoever is gone is told nothing, and what it watched is forgotten.
    shard.told(1, &watch(&["ann"]));
    assert_eq!(shard.core.lanes()[0].presence_subscriptions(), 2);
    shard.hang_up(1);
    shard.pass(TICK_MS);
    assert_eq!(shard.core.lanes()[0].presence_subscriptions(), 0);
}

#[test]
fn there_are_so_many_users_that_one_watches() {
    let mut shard = shard();
    shard.connect(1, "bob");
    let names: Vec<String> = (0..=PRESENCE_WATCHED_MAX).map(|number| format!("u{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let too_many = shard.told(1, &watch(&names[..=PRESENCE_PER_REQUEST_MAX]));
    assert!(too_many.contains(r#""code":"too_large""#), "{too_many}");
    for part in names[..PRESENCE_WATCHED_MAX as usize].chunks(PRESENCE_PER_REQUEST_MAX) {
        assert!(shard.told(1, &watch(part)).contains(r#""presence""#));
    }
    let answer = shard.told(1, &watch(&names[names.len() - 1..]));
    assert!(answer.contains(r#""code":"limit_reached""#), "{answer}");
    let answer = shard.told(1, r#"{"id":7,"presence":{"unwatch":["u0","u1","nobody"]}}"#);
    assert!(answer.contains(r#""watching":998"#), "{answer}");
    assert!(shard.told(1, &watch(&names[names.len() - 1..])).contains(r#""watching":999"#));
    assert!(shard.told(1, &watch(&["u5"])).contains(r#""watching":999"#), "twice is once");
    for (request, code) in [
        (r#"{"id":8,"presence":{"watch":"ann"}}"#, "malformed"),
        (r#"{"id":8,"presence":{"watch":["a b"]}}"#, "invalid"),
        (r#"{"id":8,"presence":7}"#, "malformed"),
    ] {
        let answer = shard.told(1, request);
        assert!(answer.contains(&format!(r#""code":"{code}""#)), "{request}: {answer}");
    }
    assert!(shard.told(1, r#"{"id":9,"presence":{}}"#).contains(r#"{"id":9,"presence":{"users":[],"watching":999}}"#));
}

#[test]
fn a_rule_of_who_may_see_is_understood_or_refused() {
    let mut shard = shard();
    shard.connect(1, "ann");
    for wrong in [r#"{"to":"some"}"#, "1", r#"{"to":"nobody","but":["bob"]}"#] {
        let answer = shard.told(1, &rule(wrong));
        assert!(answer.contains(r#""code":"invalid""#) && answer.contains("antiphon.presence"), "{wrong}: {answer}");
    }
    let other = shard.told(1, &rule("{}").replace("antiphon.presence", "antiphon.other"));
    assert!(other.contains(r#""code":"invalid""#), "{other}");
    assert!(shard.told(1, &rule(r#"{"to":"contacts","allow":["bob"]}"#)).contains(r#""account":{"#));
    assert!(shard.told(1, r#"{"id":6,"account":{"set":{"key":"antiphon.presence"}}}"#).contains(r#""account":{"#));
}

/// What bob is told of ann, who has set a rule and gone, while she does something in each step.
fn seen_by_bob(before: &str, does: impl Fn(&mut Shard, u32)) -> String {
    let mut shard = shard();
    shard.connect(1, "bob");
    shard.connect(9, "ann");
    shard.told(9, &rule(before));
    shard.hang_up(9);
    shard.pass(10_000);
    shard.told(1, &watch(&["ann"]));
    let before = shard.text(1).len();
    for step in 0..8 {
        does(&mut shard, step);
        shard.pass(TICK_MS);
        shard.told(1, r#"{"id":7,"presence":{"unwatch":["ann"]}}"#);
        shard.told(1, &watch(&["ann", "cat"]));
    }
    shard.text(1)[before..].to_owned()
}

#[test]
fn who_may_not_be_seen_looks_frame_for_frame_as_one_who_is_not_there() {
    let comes_and_goes = |later: &'static str| {
        move |shard: &mut Shard, step: u32| match step {
            0 | 2 => shard.connect(2 + step, "ann"),
            1 | 3 => shard.hang_up(1 + step),
            4 => shard.connect(6, "ann"),
            5 => drop(shard.told(6, &rule(later))),
            6 => {
                let contacts = r#"{"id":6,"account":{"set":{"key":"antiphon.contacts","value":{"users":["cat"]}}}}"#;
                shard.told(6, contacts);
            }
            _ => shard.hang_up(6),
        }
    };
    for (before, later) in [
        (r#"{"to":"nobody"}"#, r#"{"to":"contacts"}"#),
        (r#"{"to":"everyone","deny":["bob"]}"#, r#"{"to":"nobody","allow":["cat"]}"#),
        (r#"{"to":"contacts"}"#, r#"{"to":"contacts","allow":["bob"],"deny":["bob"]}"#),
    ] {
        let absent = seen_by_bob(before, |_, _| {});
        assert_eq!(seen_by_bob(before, comes_and_goes(later)), absent, "{before} {later}");
        // The comparison can fail.
        let shown = seen_by_bob(before, comes_and_goes(r#"{"to":"nobody","allow":["bob"]}"#));
        assert_ne!(shown, absent);
    }
}

#[test]
fn a_rule_counts_once_it_is_answered() {
    let mut shard = shard();
    shard.connect(1, "bob");
    shard.told(1, &watch(&["ann"]));
    let said = told(&mut shard, 1, |shard| shard.connect(2, "ann"));
    assert!(said.contains(r#""online":true"#), "{said}");
    shard.pass(10_000);
    assert!(shard.told(2, &rule(r#"{"to":"nobody"}"#)).contains(r#""account""#));
    let now = shard.told(1, &watch(&["ann"]));
    let at = START_MS + TICK_MS + 10_000;
    assert!(now.contains(&format!(r#"{{"user":"ann","online":false,"last_seen_ms":{at}}}"#)), "{now}");
    shard.pass(60_000 - 20_000);
    shard.hang_up(2);
    shard.pass(TICK_MS);
    assert!(shard.told(1, &watch(&["ann"])).contains(&format!(r#""last_seen_ms":{at}"#)), "nothing later shows");
}

#[test]
fn who_types_shows_it_to_those_alone_who_may_see_that_they_are_there() {
    let (mut shard, id) = choir();
    let types = |shard: &mut Shard| {
        let before = [1, 3].map(|slot| shard.text(slot).len());
        let answer = shard.told(2, &request("event", &id, r#","event":"typing""#));
        assert!(answer.contains(r#"{"id":7,"event":{}}"#), "{answer}");
        let said = |slot: u32, at: usize| shard.text(slot)[at..].contains(r#""user":"bob","event":"typing""#);
        [said(1, before[0]), said(3, before[1])]
    };
    assert_eq!(types(&mut shard), [true, true], "at first everybody hears of it");
    shard.told(2, &rule(r#"{"to":"nobody","allow":["cid"]}"#));
    assert_eq!(types(&mut shard), [false, true]);
    shard.told(2, r#"{"id":6,"account":{"set":{"key":"antiphon.presence"}}}"#);
    assert_eq!(types(&mut shard), [true, true]);
    // A rule of before counts for a session that types as the first thing that it does.
    shard.told(2, &rule(r#"{"to":"everyone","deny":["ann","cid"]}"#));
    shard.hang_up(2);
    shard.connect(2, "bob");
    assert_eq!(types(&mut shard), [false, false]);
    // Another device of his has the rule as well, as soon as it counts.
    shard.open(4);
    shard.say_connect(4, "bob", "desk");
    let before = shard.text(1).len();
    shard.told(4, &request("event", &id, r#","event":"typing""#));
    shard.told(2, &rule(r#"{"to":"everyone"}"#));
    assert_eq!(shard.text(1).len(), before);
    shard.told(4, &request("event", &id, r#","event":"typing""#));
    assert!(shard.text(1).len() > before);
}

#[test]
fn rules_of_before_a_restart_hold_for_who_comes_after_it() {
    let mut shard = shard();
    shard.connect(1, "ann");
    shard.told(1, &rule(r#"{"to":"nobody","allow":["cat"]}"#));
    shard.hang_up(1);
    let mut shard = shard.restarted();
    for (slot, name) in [(1, "bob"), (2, "cat")] {
        shard.connect(slot, name);
        shard.told(slot, &watch(&["ann"]));
    }
    shard.connect(3, "ann");
    shard.pass(TICK_MS);
    assert!(!shard.text(1).contains(r#""online":true"#));
    assert!(shard.text(2).contains(r#"{"present":{"users":[{"user":"ann","online":true}]}}"#));
}
