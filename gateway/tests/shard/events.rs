//! Events through a whole shard: who hears of them, and who may tell.

use crate::groups::{choir, request};

#[test]
fn the_others_hear_of_it_at_once_and_nobody_later() {
    let (mut shard, id) = choir();
    shard.open(4);
    shard.say_connect(4, "bob", "desk");
    let before = [1, 2, 3, 4].map(|slot| shard.text(slot).len());
    let fields = r#","event":"typing","data":{"on":true}"#;
    let answer = shard.told(2, &request("event", &id, fields));
    assert!(answer.contains(r#"{"id":7,"event":{}}"#), "{answer}");
    let pushed =
        format!(r#"{{"happened":{{"conversation":"{id}","user":"bob","event":"typing","data":{{"on":true}}}}}}"#);
    for (slot, hears) in [(1, true), (2, false), (3, true), (4, false)] {
        let said = shard.text(slot)[before[slot as usize - 1]..].to_owned();
        assert_eq!(said.contains(&pushed), hears, "{slot}: {said}");
    }
    let history = shard.told(1, &request("history", &id, r#","after":0"#));
    assert!(history.contains(r#""last":1"#) && !history.contains("typing"), "{history}");
    // Without an id nothing is answered.
    let before = shard.text(3).len();
    shard.write_text(3, &request("event", &id, r#","event":"x""#).replace(r#""id":7,"#, ""));
    assert_eq!(shard.text(3).len(), before);
    assert!(shard.text(1).contains(r#""user":"cid","event":"x"}"#));
}

#[test]
fn wrong_events_are_told_apart() {
    let (mut shard, id) = choir();
    let long = format!(r#","event":"x","data":"{}""#, "y".repeat(1023));
    shard.told(1, &request("roles", &id, r#","set":[{"user":"cid","role":"reader"}]"#));
    for (slot, fields, code) in [
        (1, r#","event":"""#, "invalid"),
        (1, r#","event":"two words""#, "invalid"),
        (1, r#","event":7"#, "malformed"),
        (1, "", "malformed"),
        (1, &long, "too_large"),
        (3, r#","event":"typing""#, "forbidden"),
    ] {
        let answer = shard.told(slot, &request("event", &id, fields));
        assert!(answer.contains(&format!(r#""code":"{code}""#)), "{fields}: {answer}");
    }
    shard.connect(5, "zoe");
    assert!(shard.told(5, &request("event", &id, r#","event":"typing""#)).contains(r#""code":"not_found""#));
}

#[test]
fn who_comes_and_goes_hears_of_what_happens_while_there() {
    let (mut shard, id) = choir();
    let told = |shard: &mut crate::common::Shard, slot: u32, heard: &str| {
        let before = shard.text(slot).len();
        shard.told(2, &request("event", &id, &format!(r#","event":"{heard}""#)));
        shard.text(slot)[before..].contains(heard)
    };
    assert!(told(&mut shard, 3, "first"));
    shard.hang_up(3);
    assert!(!told(&mut shard, 3, "second"));
    shard.connect(5, "cid");
    assert!(told(&mut shard, 5, "third"), "who comes back");
    shard.connect(6, "dan");
    assert!(!told(&mut shard, 6, "fourth"), "who is no member");
    shard.told(1, &request("members", &id, r#","add":["dan"]"#));
    assert!(told(&mut shard, 6, "fifth"), "who has become one");
    shard.told(1, &request("members", &id, r#","remove":["dan"]"#));
    assert!(!told(&mut shard, 6, "sixth"), "who was removed");
}
