//! Invites through a whole shard, as clients that speak JSON see them.

use crate::{
    common::Shard,
    groups::{choir, request},
};

/// A code as it was answered.
fn code(answer: &str) -> &str {
    let (_, rest) = answer.split_once(r#""code":""#).unwrap_or_else(|| panic!("no code: {answer}"));
    &rest[..43]
}

fn join(shard: &mut Shard, slot: u32, code: &str, fields: &str) -> String {
    shard.told(slot, &format!(r#"{{"id":9,"join":{{"code":"{code}"{fields}}}}}"#))
}

#[test]
fn a_code_is_made_looked_at_and_used() {
    let (mut shard, id) = choir();
    shard.connect(4, "zoe");
    let made = shard.told(1, &request("invites", &id, r#","make":{"uses":1,"expires_in_s":60}"#));
    let code = code(&made).to_owned();
    assert!(made.contains(r#"{"id":7,"invites":{"sequence":2,"code":"#), "{made}");
    let pushed = shard.text(2);
    assert!(pushed.contains(r#""kind":"invite","change":{"made":{"hash":"#) && !pushed.contains(&code), "{pushed}");
    let looked = join(&mut shard, 4, &code, r#","look":true"#);
    let told = r#""epoch":1,"title":"Choir","members":3}"#;
    assert!(looked.contains(told), "{looked}");
    let before = [2, 4].map(|slot| shard.text(slot).len());
    let joined = join(&mut shard, 4, &code, "");
    assert!(joined.contains(r#""members":4,"sequence":3}"#), "{joined}");
    for (slot, before) in [2, 4].into_iter().zip(before) {
        let pushed = shard.text(slot)[before..].to_owned();
        assert!(pushed.contains(r#""kind":"joined","invite":2,"added":["zoe"]"#), "{slot}: {pushed}");
    }
    let list = shard.told(2, &request("invites", &id, r#","list":{}"#));
    assert!(list.contains(r#"{"id":7,"invites":{"invites":[]}}"#), "it is used up: {list}");
    shard.connect(5, "gus");
    assert!(join(&mut shard, 5, &code, "").contains(r#""code":"not_found""#));
    let send = request("send", &id, r#","client_message_id":"45c48cce-2e2d-4fb0-9a1d-2c1f0e5b7a01","text":"hi""#);
    assert!(shard.told(4, &send).contains(r#""sequence":4"#));
}

#[test]
fn invites_are_listed_in_pages_and_revoked() {
    let (mut shard, id) = choir();
    let codes: Vec<String> =
        (0..3).map(|_| code(&shard.told(2, &request("invites", &id, r#","make":{}"#))).to_owned()).collect();
    let first = shard.told(1, &request("invites", &id, r#","list":{"limit":2}"#));
    let two = r#"{"invites":[{"invite":2,"user":"bob"},{"invite":3,"user":"bob"}],"next":3}"#;
    assert!(first.contains(two), "{first}");
    let rest = shard.told(1, &request("invites", &id, r#","list":{"after":3}"#));
    assert!(rest.contains(r#"{"invites":[{"invite":4,"user":"bob"}]}"#), "{rest}");
    let revoked = shard.told(1, &request("invites", &id, r#","revoke":[3,2,3]"#));
    assert!(revoked.contains(r#"{"id":7,"invites":{"sequence":5}}"#), "{revoked}");
    assert!(shard.text(3).contains(r#""change":{"revoked":[2,3]}"#));
    shard.connect(4, "zoe");
    assert!(join(&mut shard, 4, &codes[0], "").contains(r#""code":"not_found""#));
    assert!(join(&mut shard, 4, &codes[2], "").contains(r#""sequence":6"#));
}

#[test]
fn wrong_requests_are_told_apart() {
    let (mut shard, id) = choir();
    shard.told(1, &request("roles", &id, r#","set":[{"user":"cid","role":"reader"}]"#));
    for (slot, fields, code) in [
        (1, "", "malformed"),
        (1, r#","make":{},"list":{}"#, "malformed"),
        (1, r#","make":{"uses":"many"}"#, "malformed"),
        (1, r#","make":{"uses":0}"#, "invalid"),
        (1, r#","make":{"expires_in_s":0}"#, "invalid"),
        (1, r#","make":{"expires_in_s":31622401}"#, "too_large"),
        (1, r#","revoke":[]"#, "invalid"),
        (1, r#","revoke":[0]"#, "invalid"),
        (1, r#","list":{"limit":0}"#, "invalid"),
        (1, r#","list":{"after":9007199254740992}"#, "invalid"),
        (3, r#","make":{}"#, "forbidden"),
        (3, r#","list":{}"#, "forbidden"),
        (3, r#","revoke":[2]"#, "forbidden"),
    ] {
        let answer = shard.told(slot, &request("invites", &id, fields));
        assert!(answer.contains(&format!(r#""code":"{code}""#)), "{fields}: {answer}");
    }
    shard.connect(4, "zoe");
    assert!(shard.told(4, &request("invites", &id, r#","make":{}"#)).contains(r#""code":"not_found""#));
    for (code, error) in [("", "malformed"), ("short", "malformed"), (&"A".repeat(43), "not_found")] {
        let answer = join(&mut shard, 4, code, "");
        assert!(answer.contains(&format!(r#""code":"{error}""#)), "{code}: {answer}");
    }
}
