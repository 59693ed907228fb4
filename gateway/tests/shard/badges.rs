//! What one device reads is read on all of the user's devices: on those that are there at once, on those that are not when they come back.

use crate::common::Shard;

fn connect(shard: &mut Shard, slot: u32, name: &str, device: &str) {
    shard.open(slot);
    shard.say_connect(slot, name, device);
}

/// The last position that a slot was given.
fn position(shard: &Shard, slot: u32) -> String {
    let text = shard.text(slot);
    let (_, rest) = text.rsplit_once(r#""position":""#).expect("a position");
    rest.split('"').next().expect("its end").to_owned()
}

#[test]
fn reading_elsewhere_clears_the_badge_of_three_devices_of_which_one_is_offline() {
    let mut shard = Shard::new(|_| {});
    shard.run_engine();
    connect(&mut shard, 1, "ann", "phone");
    for (slot, device) in [(2, "phone"), (3, "tab"), (4, "tablet")] {
        connect(&mut shard, slot, "bob", device);
    }
    let made = shard.told(1, r#"{"id":2,"create":{"direct":"bob"}}"#);
    let (_, rest) = made.split_once(r#""create":{"conversation":""#).expect("it is made");
    let id = rest[..36].to_owned();
    shard.told(4, r#"{"id":2,"ping":{}}"#);
    let before = position(&shard, 4);
    shard.hang_up(4);
    for number in 1..=3 {
        let name = format!("45c48cce-2e2d-4fb0-9a1d-2c1f0e5b7a0{number}");
        shard.told(
            1,
            &format!(r#"{{"id":3,"send":{{"conversation":"{id}","client_message_id":"{name}","text":"hi"}}}}"#),
        );
    }
    let unread = |shard: &mut Shard, slot: u32| shard.told(slot, r#"{"id":4,"conversations":{}}"#);
    assert!(unread(&mut shard, 3).contains(r#""unread":3"#));
    let told = shard.text(3).len();
    let answer = shard.told(2, &format!(r#"{{"id":5,"read":{{"conversation":"{id}","sequence":4}}}}"#));
    assert!(answer.contains(r#""unread":0"#), "{answer}");
    let receipt = format!(r#"{{"receipt":{{"conversation":"{id}","user":"bob","read":4,"delivered":4}}}}"#);
    assert!(shard.text(3)[told..].contains(&receipt), "the other that is there hears of it at once");
    shard.open(5);
    let resume =
        format!(r#"{{"id":1,"connect":{{"token":"bob","device":"tablet","resume":{{"position":"{before}"}}}}}}"#);
    shard.write_text(5, &resume);
    let resumed = shard.text(5);
    let (missed, rest) = resumed.split_once(&receipt).expect("what was read meanwhile is told");
    assert_eq!(missed.matches(r#""kind":"message""#).count(), 3, "with the messages: {missed}");
    assert!(rest.contains("caught_up"), "before all is said to be there");
    assert!(unread(&mut shard, 5).contains(r#""unread":0"#));
    // Once more, and nothing has moved.
    let after = position(&shard, 5);
    shard.hang_up(5);
    shard.open(6);
    shard.write_text(6, &resume.replace(&before, &after));
    let resumed = shard.text(6);
    assert!(resumed.contains("caught_up") && !resumed.contains("receipt"), "{resumed}");
}
