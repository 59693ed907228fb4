//! Receipts through a whole shard: who is told how far others have read, and that nobody is who may not see it.

use crate::{
    common::Shard,
    groups::{choir, request, say},
};

fn set(key: &str, value: &str) -> String {
    format!(r#"{{"id":6,"account":{{"set":{{"key":"antiphon.{key}","value":{value}}}}}}}"#)
}

fn unset(key: &str) -> String {
    format!(r#"{{"id":6,"account":{{"set":{{"key":"antiphon.{key}"}}}}}}"#)
}

/// A choir in which ann has said three things.
fn choir_with_messages() -> (Shard, String) {
    let (mut shard, id) = choir();
    for number in 10..13 {
        shard.told(1, &say(&id, number, r#""text":"la""#));
    }
    (shard, id)
}

fn read(id: &str, sequence: u64) -> String {
    request("read", id, &format!(r#","sequence":{sequence}"#))
}

/// Whether each of these slots is given a receipt of bob's when he reads so far.
fn given<const SLOTS: usize>(shard: &mut Shard, id: &str, sequence: u64, slots: [u32; SLOTS]) -> [bool; SLOTS] {
    let before = slots.map(|slot| shard.text(slot).len());
    let answer = shard.told(2, &read(id, sequence));
    assert!(answer.contains(r#"{"id":7,"read":{"#), "{answer}");
    let mut before = before.into_iter();
    slots.map(|slot| {
        let said = &shard.text(slot)[before.next().expect("as many")..];
        assert_eq!(said.matches(r#""receipt":{"#).count(), said.matches(&format!(r#""read":{sequence}"#)).count());
        said.contains(r#""user":"bob""#)
    })
}

/// How far bob has read, as this slot is told by a list of members.
fn listed(shard: &mut Shard, id: &str, slot: u32, of: &str) -> (u64, u64) {
    let answer = shard.told(slot, &request("members", id, r#","list":{}"#));
    let (_, rest) = answer.split_once(&format!(r#"{{"user":"{of}","role":""#)).unwrap_or_else(|| panic!("{answer}"));
    let number = |name: &str| {
        let (_, digits) = rest.split_once(&format!(r#""{name}":"#)).expect("it is told");
        digits.split(['}', ',']).next().and_then(|digits| digits.parse().ok()).expect("a number")
    };
    (number("read"), number("delivered"))
}

#[test]
fn how_far_one_has_read_is_told_to_those_who_may_see_that_one_is_there() {
    let (mut shard, id) = choir_with_messages();
    assert_eq!(given(&mut shard, &id, 2, [1, 3]), [true, true], "at first everybody is told");
    assert_eq!(listed(&mut shard, &id, 1, "bob"), (2, 2));
    shard.told(2, &set("presence", r#"{"to":"nobody","allow":["cid"]}"#));
    assert_eq!(given(&mut shard, &id, 3, [1, 3]), [false, true]);
    assert_eq!((listed(&mut shard, &id, 1, "bob"), listed(&mut shard, &id, 3, "bob")), ((0, 0), (3, 3)));
    assert_eq!(listed(&mut shard, &id, 2, "bob"), (3, 3), "oneself sees all of oneself");
    assert_eq!(listed(&mut shard, &id, 2, "ann"), (4, 4), "and who hides is not kept from others");
    // It counts for a session that reads as the first thing that it does, and while nobody of his is connected.
    shard.hang_up(2);
    assert_eq!((listed(&mut shard, &id, 1, "bob"), listed(&mut shard, &id, 3, "bob")), ((0, 0), (3, 3)));
    shard.connect(2, "bob");
    assert_eq!(given(&mut shard, &id, 4, [1, 3]), [false, true]);
    shard.told(2, &unset("presence"));
    shard.told(1, &say(&id, 20, r#""text":"la""#));
    assert_eq!(given(&mut shard, &id, 5, [1, 3]), [true, true]);
    assert_eq!(listed(&mut shard, &id, 1, "bob"), (5, 5));
}

#[test]
fn who_gives_no_receipts_is_given_none() {
    let (mut shard, id) = choir_with_messages();
    shard.open(4);
    shard.say_connect(4, "bob", "desk");
    assert!(shard.told(2, &set("receipts", r#"{"on":false}"#)).contains(r#""account":{"#));
    assert_eq!(given(&mut shard, &id, 2, [1, 3, 4]), [false, false, true], "one's own devices agree all the same");
    let before = [2, 3, 4].map(|slot| shard.text(slot).len());
    shard.told(1, &request("delivered", &id, r#","sequence":4"#));
    shard.told(3, &read(&id, 3));
    let receipts = |slot: u32, before: usize| shard.text(slot)[before..].matches(r#""receipt":{"#).count();
    assert_eq!([receipts(2, before[0]), receipts(4, before[2])], [0, 0]);
    assert_eq!(shard.told(1, &request("members", &id, r#","list":{"limit":1}"#)).matches(r#""user":"ann""#).count(), 1);
    assert_eq!((listed(&mut shard, &id, 2, "cid"), listed(&mut shard, &id, 4, "ann")), ((0, 0), (0, 0)));
    assert_eq!((listed(&mut shard, &id, 1, "cid"), listed(&mut shard, &id, 1, "bob")), ((3, 3), (0, 0)));
    assert_eq!(listed(&mut shard, &id, 2, "bob"), (2, 2));
    // A session that comes later, and the others' after it, know it as well.
    shard.open(5);
    shard.say_connect(5, "bob", "tablet");
    assert_eq!(listed(&mut shard, &id, 5, "cid"), (0, 0));
    shard.told(4, &set("receipts", r#"{"on":true}"#));
    assert_eq!(given(&mut shard, &id, 4, [1, 3, 4]), [true, true, true]);
    assert_eq!(listed(&mut shard, &id, 2, "cid"), (3, 3));
    let before = shard.text(2).len();
    shard.told(3, &read(&id, 4));
    assert!(shard.text(2)[before..].contains(r#""receipt":{"#));
    for wrong in ["false", "{}", r#"{"on":1}"#, r#"{"on":true,"to":"nobody"}"#] {
        let answer = shard.told(2, &set("receipts", wrong));
        assert!(answer.contains(r#""code":"invalid""#) && answer.contains("antiphon.receipts"), "{wrong}: {answer}");
    }
}

/// What ann is told in the choir, of which bob has set a key and gone, while he does something in each step.
fn seen_by_ann(key: &str, value: &str, does: impl Fn(&mut Shard, &str, u32)) -> String {
    let (mut shard, id) = choir_with_messages();
    shard.told(2, &set(key, value));
    shard.hang_up(2);
    shard.pass(10_000);
    let before = shard.text(1).len();
    for step in 0..6 {
        does(&mut shard, &id, step);
        shard.told(1, &request("members", &id, r#","list":{}"#));
        shard.told(1, r#"{"id":8,"conversations":{}}"#);
        shard.told(1, &say(&id, 30 + step as u8, r#""text":"la""#));
    }
    shard.text(1)[before..].to_owned()
}

#[test]
fn who_hides_and_reads_looks_frame_for_frame_as_one_who_is_not_there() {
    let reads = |shard: &mut Shard, id: &str, step: u32| match step {
        0 => shard.connect(2, "bob"),
        1 => drop(shard.told(2, &request("delivered", id, r#","sequence":4"#))),
        2 => drop(shard.told(2, &read(id, 3))),
        3 => drop(shard.told(2, &request("event", id, r#","event":"typing""#))),
        4 => drop(shard.told(2, &read(id, 4))),
        _ => shard.hang_up(2),
    };
    for (key, value, open) in [
        ("presence", r#"{"to":"nobody"}"#, r#"{"to":"nobody","allow":["ann"]}"#),
        ("presence", r#"{"to":"everyone","deny":["ann"]}"#, r#"{"to":"everyone"}"#),
        ("presence", r#"{"to":"contacts"}"#, r#"{"to":"contacts","allow":["ann"]}"#),
    ] {
        let absent = seen_by_ann(key, value, |_, _, _| {});
        assert_eq!(seen_by_ann(key, value, reads), absent, "{value}");
        // The comparison can fail.
        assert_ne!(seen_by_ann(key, open, reads), seen_by_ann(key, open, |_, _, _| {}), "{open}");
    }
    // With receipts alone off, one is seen to be there and to type, and not to read.
    let of_reading = |shard: &mut Shard, id: &str, step: u32| {
        if step != 3 {
            reads(shard, id, step)
        }
    };
    let off = r#"{"on":false}"#;
    assert_eq!(seen_by_ann("receipts", off, of_reading), seen_by_ann("receipts", off, |_, _, _| {}));
    assert_ne!(seen_by_ann("receipts", off, reads), seen_by_ann("receipts", off, of_reading));
}

#[test]
fn who_reads_and_goes_at_once_is_told_of_as_before() {
    for (value, told) in [(r#"{"to":"everyone"}"#, true), (r#"{"to":"nobody"}"#, false)] {
        let (mut shard, id) = choir_with_messages();
        shard.told(2, &set("presence", value));
        let before = shard.text(1).len();
        shard.tell_and_hang_up(2, &read(&id, 3));
        let said = shard.text(1)[before..].to_owned();
        assert_eq!(said.contains(r#""receipt":{"#), told, "{value}: {said}");
        assert_eq!(listed(&mut shard, &id, 1, "bob").0, if told { 3 } else { 0 });
    }
}

#[test]
fn a_list_of_members_fails_as_a_list_does() {
    let (mut shard, _) = choir();
    let nowhere = "00000000-0000-8000-8000-000000000000";
    let answer = shard.told(1, &request("members", nowhere, r#","list":{}"#));
    assert!(answer.contains(r#"{"id":7,"error":{"code":"not_found""#), "{answer}");
    // Without an id nobody waits for it, and an error is told.
    let before = shard.text(1).len();
    shard.told(1, &request("members", nowhere, r#","list":{}"#).replace(r#""id":7,"#, ""));
    assert!(shard.text(1)[before..].contains(r#"{"error":{"code":"not_found""#));
}
