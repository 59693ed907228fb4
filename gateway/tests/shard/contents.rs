//! What messages say beside text, through a whole shard, as clients that speak JSON see it.

use crate::{
    common::Shard,
    groups::{choir, request},
};

fn send(number: u8, conversation: &str, fields: &str) -> String {
    let id = format!("45c48cce-2e2d-4fb0-9a1d-2c1f0e5b7b{number:02}");
    request("send", conversation, &format!(r#","client_message_id":"{id}",{fields}"#))
}

fn states(shard: &mut Shard, slot: u32, conversation: &str) -> String {
    let before = shard.text(slot).len();
    shard.told(slot, &request("history", conversation, r#","after":0"#));
    shard.text(slot)[before..].to_owned()
}

#[test]
fn what_is_sent_beside_text_comes_to_everybody_and_is_read_again() {
    let (mut shard, id) = choir();
    shard.told(1, &send(1, &id, r#""text":"who comes?""#));
    let place = format!(r#""forwarded":{{"conversation":"{id}","sequence":2}}"#);
    let fields = format!(
        r#""text":"all of us","content_type":"application/vnd.choir+json","json":{{"b":[1, 2],"a":null}},"reply_to":2,"thread":2,{place},"mentions":["ann","bob"],"everybody":true"#
    );
    let before = shard.text(3).len();
    assert!(shard.told(2, &send(2, &id, &fields)).contains(r#""code":"forbidden""#), "bob may not mean everybody");
    let answer = shard.told(1, &send(2, &id, &fields));
    assert!(answer.contains(r#"{"id":7,"send":{"sequence":3,"ordinal":2"#), "{answer}");
    let pushed = shard.text(3)[before..].to_owned();
    assert!(pushed.contains(&fields), "{pushed}");
    let again = shard.told(1, &send(2, &id, &fields));
    assert!(again.contains(r#""sequence":3"#) && again.contains(r#""duplicate":true"#), "{again}");
    let data = r#""content_type":"image/webp","data":"AP8Q""#;
    shard.told(2, &send(3, &id, data));
    let read = states(&mut shard, 3, &id);
    assert!(read.contains(&fields) && read.contains(data), "{read}");
    assert!(read.contains(r#""states":[{"sequence":2,"replies":1}]"#), "{read}");
}

#[test]
fn an_edit_keeps_what_the_message_answers_and_a_deletion_takes_all() {
    let (mut shard, id) = choir();
    shard.told(1, &send(1, &id, r#""text":"root""#));
    shard.told(2, &send(2, &id, r#""text":"reply","reply_to":2,"thread":2,"mentions":["cid"]"#));
    let edit = |fields: &str| {
        let own = r#","client_message_id":"45c48cce-2e2d-4fb0-9a1d-2c1f0e5b7b50","target":3"#;
        request("edit", &id, &format!("{own},{fields}"))
    };
    let answer = shard.told(2, &edit(r#""text":"other","thread":2"#));
    assert!(answer.contains(r#""code":"invalid""#), "{answer}");
    let before = shard.text(3).len();
    shard.told(2, &edit(r#""text":"other""#));
    let pushed = shard.text(3)[before..].to_owned();
    assert!(pushed.contains(r#""kind":"edit""#), "{pushed}");
    assert!(pushed.contains(r#""target":3,"text":"other","reply_to":2,"thread":2}"#), "{pushed}");
    let read = states(&mut shard, 3, &id);
    assert!(read.contains(r#""text":"other","reply_to":2,"thread":2}"#) && !read.contains("mentions"), "{read}");
    let delete = r#","client_message_id":"45c48cce-2e2d-4fb0-9a1d-2c1f0e5b7b51","target":3"#;
    shard.told(2, &request("delete", &id, delete));
    let read = states(&mut shard, 3, &id);
    assert!(!read.contains("thread") && !read.contains("replies"), "{read}");
}

#[test]
fn what_a_message_cannot_refer_to_is_told_apart() {
    let (mut shard, id) = choir();
    shard.told(1, &send(1, &id, r#""text":"root""#));
    shard.told(1, &send(2, &id, r#""text":"reply","thread":2"#));
    shard.told(1, &send(3, &id, r#""text":"gone""#));
    let delete = r#","client_message_id":"45c48cce-2e2d-4fb0-9a1d-2c1f0e5b7b51","target":4"#;
    shard.told(1, &request("delete", &id, delete));
    for (number, fields, code) in [
        (10, r#""text":"a","thread":3"#, "invalid"),
        (11, r#""text":"a","thread":4"#, "deleted"),
        (12, r#""text":"a","thread":1"#, "no_message"),
        (13, r#""text":"a","thread":99"#, "no_message"),
        (14, r#""text":"a","reply_to":99"#, "no_message"),
        (15, r#""reply_to":2"#, "invalid"),
        (16, r#""data":"AP8Q""#, "malformed"),
        (17, r#""text":"a","mentions":["a b"]"#, "invalid"),
        (18, r#""text":"a","thread":-1"#, "malformed"),
    ] {
        let answer = shard.told(2, &send(number, &id, fields));
        assert!(answer.contains(&format!(r#""code":"{code}""#)), "{fields}: {answer}");
    }
    let stranger = r#""text":"a","thread":2"#;
    shard.connect(4, "zoe");
    assert!(shard.told(4, &send(20, &id, stranger)).contains(r#""code":"not_found""#));
}
