//! Messages for more connections than get theirs in one turn: what others wait for goes on between, and nothing is out of order.

use crate::{
    common::Shard,
    groups::{choir, position_in, request, say},
};

/// The choir, and three more; a shard gives a message to two connections in a turn.
fn choir_of_six() -> (Shard, String) {
    let (mut shard, id) = choir();
    for (slot, name) in [(4, "dan"), (5, "eve"), (6, "fay")] {
        shard.connect(slot, name);
    }
    shard.told(1, &request("members", &id, r#","add":["dan","eve","fay"]"#));
    (shard, id)
}

fn have(shard: &Shard, text: &str) -> Vec<u32> {
    (1..=6).filter(|slot| shard.text(*slot).contains(&format!(r#""text":"{text}""#))).collect()
}

/// The position that a client is told last.
fn position(shard: &mut Shard, slot: u32) -> String {
    let before = shard.text(slot).len();
    shard.hand_in(slot, r#"{"id":90,"ping":{}}"#);
    shard.step();
    let said = shard.text(slot)[before..].to_owned();
    position_in(&said)
}

#[test]
fn an_answer_does_not_wait_for_those_who_are_told_later() {
    let (mut shard, id) = choir_of_six();
    let at_first = position(&mut shard, 3);
    shard.hand_in(1, &say(&id, 11, r#""text":"to many""#));
    while !shard.text(1).contains(r#""id":11"#) {
        assert!(shard.step(), "it is acknowledged");
    }
    let told = have(&shard, "to many").len();
    assert!(told <= 2, "{told} of six are told by then");
    // Another one, and something that only one is told, come behind it.
    shard.hand_in(2, &say(&id, 12, r#""text":"right behind""#));
    shard.hand_in(1, &request("members", &id, r#","remove":["fay"]"#));
    let (mut told_before, mut looked) = (told, 0);
    while shard.step() {
        let told = have(&shard, "to many").len();
        assert!(told <= told_before + 2, "two a turn");
        told_before = told;
        assert!(have(&shard, "right behind").is_empty() || told == 6, "in order");
        if told < 6 {
            assert_eq!(position(&mut shard, 3), at_first, "what is not handed on yet is not behind anybody");
            (told_before, looked) = (have(&shard, "to many").len(), looked + 1);
        }
        assert!(told == 6 || !shard.text(6).contains(r#"{"left":"#), "in order");
    }
    assert!(looked > 0 && shard.text(6).contains(r#"{"left":"#), "{looked}");
    for text in ["to many", "right behind"] {
        assert_eq!(have(&shard, text), [1, 2, 3, 4, 5, 6]);
        assert_eq!(shard.text(5).matches(&format!(r#""text":"{text}""#)).count(), 1);
    }
    assert_ne!(position(&mut shard, 3), at_first);
}

#[test]
fn who_goes_or_comes_meanwhile_is_told_nothing_twice() {
    let (mut shard, id) = choir_of_six();
    shard.hand_in(1, &say(&id, 11, r#""text":"to many""#));
    while !shard.text(1).contains(r#""id":11"#) {
        assert!(shard.step());
    }
    shard.hang_up(6);
    shard.open(7);
    let resume = r#"{"id":1,"connect":{"token":"fay","device":"phone"}}"#;
    shard.write_text(7, resume);
    assert_eq!(have(&shard, "to many"), [1, 2, 3, 4, 5]);
    // A new session asks for what there is; nothing that was under way for the one before comes to it.
    assert!(!shard.text(7).contains("to many"));
    let history = shard.told(7, &request("history", &id, r#","after":0"#));
    assert!(history.contains("to many"), "{history}");
}
