//! A conversation with more members than are given everything: who looks at it has all of it, the others hear that there is something.

use crate::{
    common::Shard,
    groups::{position_in, request, say},
};

/// A group of four, each with a connection, in which only who looks is given what happens; hints are a second apart.
fn hall() -> (Shard, String) {
    let mut shard = Shard::new(|config| config.fanout.bodies_members = 3);
    shard.run_engine();
    for (slot, name) in [(1, "ann"), (2, "bob"), (3, "cid"), (4, "dan")] {
        shard.connect(slot, name);
    }
    let group = r#"{"key":"45c48cce-2e2d-4fb0-9a1d-2c1f0e5b7a00","title":"Hall","members":["bob","cid","dan"]}"#;
    let answer = shard.told(1, &format!(r#"{{"id":2,"create":{{"group":{group}}}}}"#));
    let (_, rest) = answer.split_once(r#""create":{"conversation":""#).expect("it is made");
    let id = rest[..36].to_owned();
    for slot in 1..=4 {
        assert!(shard.text(slot).contains(r#""kind":"created""#), "whoever becomes a member is given that");
    }
    shard.pass(2_000);
    (shard, id)
}

/// What a slot was told since then: how many entries, mentions, and up to where it heard that there is something.
fn heard(shard: &Shard, slot: u32, from: usize) -> (usize, usize, Vec<u64>) {
    let text = shard.text(slot)[from..].to_owned();
    let sequences = text.split(r#"{"advanced":{"#).skip(1).map(|rest| {
        let (_, rest) = rest.split_once(r#""sequence":"#).expect("it says how far");
        rest[..rest.find(',').unwrap()].parse().unwrap()
    });
    (text.matches(r#"{"message":{"#).count(), text.matches(r#"{"mentioned":{"#).count(), sequences.collect())
}

fn lengths(shard: &Shard) -> [usize; 5] {
    std::array::from_fn(|slot| shard.text(slot as u32).len())
}

fn view(id: &str, open: bool) -> String {
    request("view", id, &format!(r#","open":{open}"#))
}

#[test]
fn who_looks_has_everything_and_the_others_hear_once_a_second_how_far_it_is() {
    let (mut shard, id) = hall();
    assert!(shard.told(2, &view(&id, true)).contains(r#"{"id":7,"view":{"sequence":1}}"#));
    let before = lengths(&shard);
    (11..=20).for_each(|number| shard.write_text(1, &say(&id, number, r#""text":"hi""#)));
    shard.pass(50);
    assert_eq!(heard(&shard, 2, before[2]), (10, 0, vec![]));
    for slot in [1, 3, 4] {
        let (entries, mentions, hints) = heard(&shard, slot, before[slot as usize]);
        assert_eq!((entries, mentions, hints.len()), (0, 0, 1), "{slot}: the first one at once, and no more");
    }
    shard.pass(2_000);
    for slot in [1, 3, 4] {
        let (_, _, hints) = heard(&shard, slot, before[slot as usize]);
        assert_eq!((hints.len(), hints[1]), (2, 11), "{slot}");
    }
    assert!(shard.told(2, &view(&id, false)).contains(r#"{"id":7,"view":{}}"#));
    let before = lengths(&shard);
    shard.write_text(1, &say(&id, 21, r#""text":"hi""#));
    shard.pass(2_000);
    assert_eq!(heard(&shard, 2, before[2]), (0, 0, vec![12]));
}

#[test]
fn who_is_meant_has_it_at_once() {
    let (mut shard, id) = hall();
    shard.told(2, &view(&id, true));
    let before = lengths(&shard);
    shard.write_text(1, &say(&id, 11, r#""text":"bob, cid, eve","mentions":["bob","cid","eve"]"#));
    assert_eq!(heard(&shard, 2, before[2]), (1, 0, vec![]), "as all else, where it is open");
    let (entries, mentions, _) = heard(&shard, 3, before[3]);
    assert_eq!((entries, mentions), (0, 1));
    assert_eq!(heard(&shard, 4, before[4]).1, 0);
    let before = lengths(&shard);
    shard.write_text(1, &say(&id, 12, r#""text":"all","everybody":true"#));
    let mentions: Vec<usize> = (1..=4).map(|slot| heard(&shard, slot, before[slot as usize]).1).collect();
    assert_eq!(mentions, [0, 0, 1, 1], "not who says it, and not twice");
}

#[test]
fn who_comes_goes_and_has_no_business_there() {
    let (mut shard, id) = hall();
    shard.connect(5, "eve");
    let refused = shard.told(5, &view(&id, true));
    assert!(refused.contains(r#""code":"not_found""#), "{refused}");
    let nowhere = shard.told(5, &view("00000000-0000-4000-8000-000000000000", true));
    assert_eq!(refused, nowhere, "whether there is one is not told");
    // Nor is anything given while it is being found out, to whom it is not, and to whom it is from the first moment on.
    let (eve, bob) = (shard.text(5).len(), shard.text(2).len());
    shard.hand_in(1, &say(&id, 31, r#""text":"stored already""#));
    shard.step();
    shard.hand_in(5, &view(&id, true));
    shard.hand_in(2, &view(&id, true));
    while shard.step() {}
    assert!(!shard.text(5)[eve..].contains("stored already"));
    assert!(shard.text(2)[bob..].contains("stored already"));
    shard.pass(3_000);
    let before = lengths(&shard);
    shard.told(3, &view(&id, true));
    shard.told(1, &request("members", &id, r#","add":["eve"]"#));
    shard.told(1, &request("members", &id, r#","remove":["cid"]"#));
    let seen = shard.text(5);
    assert_eq!(seen.matches(r#"{"message":{"#).count(), 1, "the entry that says so: {seen}");
    assert!(shard.text(3)[before[3]..].contains(r#"{"left":{"#));
    shard.pass(2_000);
    let (before, eve) = (lengths(&shard), shard.text(5).len());
    shard.write_text(1, &say(&id, 11, r#""text":"cid, eve","mentions":["cid","eve"]"#));
    shard.pass(2_000);
    assert_eq!(heard(&shard, 3, before[3]), (0, 0, vec![]), "who has left neither sees nor hears anything");
    assert_eq!(heard(&shard, 5, eve), (0, 1, vec![5]));
    // Whoever goes looks at nothing any more, and the next one at its place does not either.
    shard.told(4, &view(&id, true));
    shard.hang_up(4);
    shard.connect(6, "dan");
    let dan = shard.text(6).len();
    shard.write_text(1, &say(&id, 12, r#""text":"hi""#));
    shard.pass(2_000);
    assert_eq!(heard(&shard, 6, dan), (0, 0, vec![6]));
}

#[test]
fn who_is_removed_while_others_are_told_is_given_nothing_when_it_comes_back() {
    let (mut shard, id) = hall();
    shard.told(1, &say(&id, 11, r#""text":"hi""#));
    // This one waits for the next round; without dan there are so few that everybody is given everything.
    shard.told(1, &say(&id, 12, r#""text":"hi""#));
    assert!(shard.told(1, &request("members", &id, r#","remove":["dan"]"#)).contains(r#""members":{"#));
    shard.hang_up(4);
    shard.connect(4, "dan");
    let before = lengths(&shard);
    shard.pass(2_000);
    shard.told(1, &say(&id, 13, r#""text":"not for dan""#));
    shard.told(1, &request("members", &id, r#","add":["eve"]"#));
    shard.told(1, &say(&id, 14, r#""text":"hi""#));
    shard.pass(2_000);
    assert_eq!(heard(&shard, 4, before[4]), (0, 0, vec![]));
    let (entries, _, hints) = heard(&shard, 3, before[3]);
    assert!(entries == 1 && hints.last() == Some(&7), "the others hear of it all: {entries} {hints:?}");
}

#[test]
fn receipts_and_events_do_not_go_to_thousands() {
    let (mut shard, id) = hall();
    shard.told(2, &view(&id, true));
    shard.open(5);
    shard.say_connect(5, "ann", "laptop");
    let (before, laptop) = (lengths(&shard), shard.text(5).len());
    shard.told(1, &request("event", &id, r#","event":"typing""#));
    shard.told(1, &request("read", &id, r#","sequence":1"#));
    shard.told(3, &request("read", &id, r#","sequence":1"#));
    let said = |slot: u32, what: &str| shard.text(slot)[before[slot as usize]..].matches(what).count();
    assert_eq!([2, 3, 4].map(|slot| said(slot, r#"{"happened":{"#)), [1, 0, 0]);
    assert_eq!([2, 4].map(|slot| said(slot, r#"{"receipt":{"#)), [0, 0]);
    let told = shard.text(5)[laptop..].to_owned();
    assert_eq!(told.matches(r#"{"receipt":{"#).count(), 1, "one's own are told: {told}");
    // Who writes has read everything, on all devices.
    let laptop = shard.text(5).len();
    shard.write_text(1, &say(&id, 11, r#""text":"hi""#));
    let told = shard.text(5)[laptop..].to_owned();
    assert!(told.contains(r#""user":"ann","read":2,"delivered":2}"#), "{told}");
}

/// The position that a client is told last.
fn position(shard: &mut Shard, slot: u32) -> String {
    let said = shard.told(slot, r#"{"id":90,"ping":{}}"#);
    position_in(&said)
}

#[test]
fn a_position_stands_for_what_its_client_has_heard_of() {
    let (mut shard, id) = hall();
    let rested = position(&mut shard, 4);
    shard.write_text(1, &say(&id, 11, r#""text":"one""#));
    shard.write_text(1, &say(&id, 12, r#""text":"two""#));
    shard.pass(50);
    // Of the second one nobody has heard, so who comes back with this position is given it.
    let heard_one = position(&mut shard, 4);
    assert_ne!(heard_one, rested);
    let resume = |position: &str| {
        format!(r#"{{"id":1,"connect":{{"token":"dan","device":"x","resume":{{"position":"{position}"}}}}}}"#)
    };
    shard.open(7);
    shard.write_text(7, &resume(&heard_one));
    let text = shard.text(7);
    assert!(text.contains(r#""text":"two""#) && !text.contains(r#""text":"one""#), "{text}");
    shard.pass(3_000);
    let heard_all = position(&mut shard, 4);
    shard.open(8);
    shard.write_text(8, &resume(&heard_all).replace("\"x\"", "\"y\""));
    assert!(!shard.text(8).contains(r#""text":"#), "{}", shard.text(8));
}

#[test]
fn one_connection_looks_at_so_many() {
    let (mut shard, id) = hall();
    for number in 0..50 {
        let group = format!(r#"{{"key":"45c48cce-2e2d-4fb0-9a1d-2c1f0e5b7b{number:02}","title":"x","members":[]}}"#);
        let answer = shard.told(1, &format!(r#"{{"id":2,"create":{{"group":{group}}}}}"#));
        let (_, rest) = answer.split_once(r#""create":{"conversation":""#).expect("it is made");
        let other = rest[..36].to_owned();
        assert!(shard.told(1, &view(&other, true)).contains(r#""view":{"sequence":1}"#));
        shard.pass(1_000);
    }
    assert!(shard.told(1, &view(&id, true)).contains(r#""code":"limit_reached""#));
    assert!(shard.told(2, &view(&id, true)).contains(r#""view":{"sequence":1}"#));
}
