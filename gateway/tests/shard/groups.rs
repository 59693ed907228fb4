//! Groups through a whole shard, as clients that speak JSON see them: roles, settings and bans, what is pushed of them and what is listed.

use crate::common::Shard;

/// A group that ann made, of bob and cid; and a connection of each.
pub(crate) fn choir() -> (Shard, String) {
    let mut shard = Shard::new(|_| {});
    shard.run_engine();
    for (slot, name) in [(1, "ann"), (2, "bob"), (3, "cid")] {
        shard.connect(slot, name);
    }
    let group = r#"{"key":"45c48cce-2e2d-4fb0-9a1d-2c1f0e5b7a00","title":"Choir","members":["bob","cid"]}"#;
    let answer = shard.told(1, &format!(r#"{{"id":2,"create":{{"group":{group}}}}}"#));
    let (_, rest) = answer.split_once(r#""create":{"conversation":""#).expect("it is made");
    let id = rest[..36].to_owned();
    (shard, id)
}

/// A request about the conversation.
pub(crate) fn request(kind: &str, conversation: &str, fields: &str) -> String {
    format!(r#"{{"id":7,"{kind}":{{"conversation":"{conversation}"{fields}}}}}"#)
}

/// A message of these fields; its number is the request's id and names it.
pub(crate) fn say(conversation: &str, number: u8, fields: &str) -> String {
    let name = format!("00000000-0000-4000-8000-0000000000{number:02}");
    format!(r#"{{"id":{number},"send":{{"conversation":"{conversation}","client_message_id":"{name}",{fields}}}}}"#)
}

/// The position in an answer to `ping`.
pub(crate) fn position_in(said: &str) -> String {
    let from = said.split(r#""position":""#).nth(1).unwrap_or_else(|| panic!("{said}"));
    from.split('"').next().expect("it ends").to_owned()
}

#[test]
fn roles_are_given_pushed_and_listed() {
    let (mut shard, id) = choir();
    let set = request("roles", &id, r#","set":[{"user":"bob","role":"admin"},{"user":"cid","role":"reader"}]"#);
    let before = shard.text(3).len();
    assert!(shard.told(2, &set).contains(r#""code":"forbidden""#));
    let answer = shard.told(1, &set);
    assert!(answer.contains(r#"{"id":7,"roles":{"sequence":2}}"#), "{answer}");
    let pushed = shard.text(3)[before..].to_owned();
    let entry = r#""kind":"roles","roles":[{"user":"bob","role":"admin"},{"user":"cid","role":"reader"}]"#;
    assert!(pushed.contains(entry), "{pushed}");
    let first = shard.told(3, &request("roles", &id, r#","list":{"limit":2}"#));
    let roles = r#"{"roles":[{"user":"ann","role":"owner"},{"user":"bob","role":"admin"}],"next":"bob"}"#;
    assert!(first.contains(roles), "{first}");
    let rest = shard.told(3, &request("roles", &id, r#","list":{"limit":2,"after":"bob"}"#));
    assert!(rest.contains(r#"{"roles":[{"user":"cid","role":"reader"}]}"#), "{rest}");
    let members = shard.told(3, &request("members", &id, r#","list":{}"#));
    assert!(members.contains(r#"{"user":"cid","role":"reader""#), "{members}");
    let send = request("send", &id, r#","client_message_id":"45c48cce-2e2d-4fb0-9a1d-2c1f0e5b7a01","text":"hi""#);
    assert!(shard.told(3, &send).contains(r#""code":"forbidden""#));
    let list = shard.told(3, r#"{"id":8,"conversations":{}}"#);
    assert!(list.contains(r#""role":"reader""#), "{list}");
}

#[test]
fn settings_are_told_changed_and_pushed() {
    let (mut shard, id) = choir();
    let told_first = shard.told(2, &request("settings", &id, ""));
    let first = r#""settings":{"description":"","picture":"","history":"joining","send":"members""#;
    assert!(told_first.contains(first) && told_first.contains(r#""role":"member""#), "{told_first}");
    let before = shard.text(3).len();
    let set = request("settings", &id, r#","set":{"picture":"choir.png","send":"admins"}"#);
    assert!(shard.told(2, &set).contains(r#""code":"forbidden""#), "members change what is seen, not rights");
    let answer = shard.told(1, &set);
    assert!(answer.contains(r#"{"id":7,"settings":{"sequence":2,"#), "{answer}");
    let pushed = shard.text(3)[before..].to_owned();
    assert!(pushed.contains(r#""kind":"settings""#) && pushed.contains(r#""send":"admins""#), "{pushed}");
    let list = shard.told(3, r#"{"id":8,"conversations":{}}"#);
    assert!(list.contains(r#""picture":"choir.png""#), "{list}");
    for (fields, code) in [
        (r#","set":{"send":"nobody"}"#, "malformed"),
        (r#","set":{"description":7}"#, "malformed"),
        (&format!(r#","set":{{"picture":"{}"}}"#, "x".repeat(513)), "too_large"),
    ] {
        let answer = shard.told(1, &request("settings", &id, fields));
        assert!(answer.contains(&format!(r#""code":"{code}""#)), "{fields}: {answer}");
    }
}

#[test]
fn who_is_kept_out_is_told_that_it_left_and_finds_nothing() {
    let (mut shard, id) = choir();
    let before = (shard.text(2).len(), shard.text(3).len());
    let ban = request("bans", &id, r#","add":["cid","mallory"]"#);
    let answer = shard.told(1, &ban);
    assert!(answer.contains(r#"{"id":7,"bans":{"sequence":2}}"#), "{answer}");
    let (seen, left) = (shard.text(2)[before.0..].to_owned(), shard.text(3)[before.1..].to_owned());
    assert!(seen.contains(r#""kind":"bans","banned":["cid","mallory"],"removed":["cid"]"#), "{seen}");
    assert!(left.contains(r#""left":{"#) && !left.contains("banned"), "{left}");
    for kind in ["settings", "members", "roles", "bans"] {
        let fields = if kind == "settings" { "" } else { r#","list":{}"# };
        let answer = shard.told(3, &request(kind, &id, fields));
        assert!(answer.contains(r#""code":"not_found""#), "{kind}: {answer}");
    }
    assert!(shard.told(2, &request("members", &id, r#","add":["cid"]"#)).contains(r#""code":"forbidden""#));
    assert!(shard.told(2, &request("bans", &id, r#","list":{}"#)).contains(r#""code":"forbidden""#));
    let list = shard.told(1, &request("bans", &id, r#","list":{"limit":1}"#));
    assert!(list.contains(r#"{"users":["cid"],"next":"cid"}"#), "{list}");
    let lifted = shard.told(1, &request("bans", &id, r#","remove":["cid"]"#));
    assert!(lifted.contains(r#""unbanned":["cid"]"#) || lifted.contains(r#""sequence":3"#), "{lifted}");
    assert!(shard.told(2, &request("members", &id, r#","add":["cid"]"#)).contains(r#""sequence":4"#));
}

#[test]
fn two_admins_who_remove_each_other_at_once_are_not_both_gone() {
    let (mut shard, id) = choir();
    let admins = r#","set":[{"user":"bob","role":"admin"},{"user":"cid","role":"admin"}]"#;
    assert!(shard.told(1, &request("roles", &id, admins)).contains(r#""sequence":2"#));
    let removed = shard.told(2, &request("members", &id, r#","remove":["cid"]"#));
    assert!(removed.contains(r#""sequence":3"#), "{removed}");
    let late = shard.told(3, &request("members", &id, r#","remove":["bob"]"#));
    assert!(late.contains(r#""code":"not_found""#), "{late}");
}
