//! Edits, deletions, reactions and pins through a whole shard, as clients that speak JSON see them: answers, pushes, and states right before
//! what they belong to.

use crate::common::Shard;

const ID: &str = "45c48cce-2e2d-4fb0-9a1d-2c1f0e5b7a";

/// The direct conversation of ann and bob.
fn conversation(shard: &mut Shard) -> String {
    let answer = shard.told(1, r#"{"id":2,"create":{"direct":"bob"}}"#);
    let (_, rest) = answer.split_once(r#""create":{"conversation":""#).expect("it is made");
    rest[..36].to_owned()
}

/// A request about the conversation with a client message id that ends in a number.
fn request(kind: &str, conversation: &str, number: u32, fields: &str) -> String {
    format!(
        r#"{{"id":{number},"{kind}":{{"conversation":"{conversation}","client_message_id":"{ID}{number:02}",{fields}}}}}"#
    )
}

#[test]
fn what_becomes_of_a_message_is_told_before_the_page_that_has_it() {
    let mut shard = Shard::new(|_| {});
    shard.run_engine();
    shard.connect(1, "ann");
    shard.connect(2, "bob");
    let conversation = conversation(&mut shard);
    let of = |kind: &str, number: u32, fields: &str| request(kind, &conversation, number, fields);
    shard.told(1, &of("send", 10, r#""text":"old words""#));
    let history = format!(r#"{{"id":90,"history":{{"conversation":"{conversation}"}}}}"#);
    assert!(!shard.told(2, &history).contains("states"), "there is nothing to tell");
    let seen = shard.text(2).len();
    for (number, kind, fields) in [
        (11, "edit", r#""target":2,"text":"second""#),
        (12, "react", r#""target":2,"reaction":"👍","on":true"#),
        (13, "pin", r#""target":2,"on":true"#),
    ] {
        let answer = shard.told(1, &of(kind, number, fields));
        assert!(answer.contains(&format!(r#"{{"id":{number},"{kind}":{{"sequence":{}"#, number - 8)), "{answer}");
        let again = shard.told(1, &of(kind, number, fields));
        assert!(again.contains(&format!(r#""sequence":{}"#, number - 8)) && again.contains(r#""duplicate":true"#));
    }
    let pushed = shard.text(2)[seen..].to_owned();
    for part in [
        r#""kind":"edit""#,
        r#""text":"second""#,
        r#""kind":"reaction""#,
        r#""reaction":"👍","on":true"#,
        r#""kind":"pin""#,
    ] {
        assert!(pushed.contains(part), "{part} in {pushed}");
    }
    let page = shard.told(2, &history);
    let (states, page) = page.split_once(r#""history""#).expect("the answer follows");
    assert!(states.contains(r#""as_of":5"#) && states.contains(r#""pinned":true"#), "{states}");
    assert!(states.contains(r#""reactions":[{"reaction":"👍","count":1}]"#), "{states}");
    assert!(states.contains(r#""edited":{"sequence":3"#), "{states}");
    assert!(page.contains(r#""text":"second""#) && !page.contains("old words"), "{page}");
    let mine = shard.told(1, &history);
    assert!(mine.contains(r#""count":1,"mine":true"#), "{mine}");
    let silent = shard.told(1, &history.replace(r#""id":90,"#, ""));
    assert_eq!(silent, "", "who gives no id hears of failures only");
}

#[test]
fn what_was_deleted_is_in_no_answer_and_in_no_resume() {
    let mut shard = Shard::new(|_| {});
    shard.run_engine();
    shard.connect(1, "ann");
    let conversation = conversation(&mut shard);
    let of = |kind: &str, number: u32, fields: &str| request(kind, &conversation, number, fields);
    let ping = shard.told(1, r#"{"id":3,"ping":{}}"#);
    let position = ping.split_once(r#""position":""#).expect("it is told").1.split('"').next().unwrap().to_owned();
    shard.told(1, &of("send", 10, r#""text":"secret""#));
    shard.told(1, &of("send", 11, r#""text":"kept""#));
    shard.told(1, &of("delete", 12, r#""target":2"#));
    for (number, fields, code) in
        [(20, r#""target":2"#, "deleted"), (21, r#""target":99"#, "no_message"), (22, r#""target":1"#, "no_message")]
    {
        let answer = shard.told(1, &of("delete", number, fields));
        assert!(answer.contains(&format!(r#""code":"{code}""#)), "{fields}: {answer}");
    }
    shard.open(3);
    let before = shard.text(3).len();
    shard.write_text(
        3,
        &format!(r#"{{"id":1,"connect":{{"token":"bob","device":"d","resume":{{"position":"{position}"}}}}}}"#),
    );
    let resumed = shard.text(3)[before..].to_owned();
    let (missing, rest) = resumed.split_once("states").expect("they are told");
    assert!(missing.contains("kept") && missing.contains(r#""kind":"deletion""#), "{missing}");
    assert!(!resumed.contains("secret"), "{resumed}");
    let (states, _) = rest.split_once("caught_up").expect("it comes behind them");
    assert!(states.contains(r#"{"sequence":2,"deleted":true}"#), "{states}");
    let listed = shard.told(3, r#"{"id":4,"conversations":{}}"#);
    assert!(!listed.contains("secret"));
}

#[test]
fn who_reacted_and_what_is_pinned_is_listed() {
    let mut shard = Shard::new(|_| {});
    shard.run_engine();
    shard.connect(1, "ann");
    shard.connect(2, "bob");
    let conversation = conversation(&mut shard);
    let of = |kind: &str, number: u32, fields: &str| request(kind, &conversation, number, fields);
    shard.told(1, &of("send", 10, r#""text":"old words""#));
    shard.told(1, &of("react", 11, r#""target":2,"reaction":"a","on":true"#));
    shard.told(2, &of("react", 12, r#""target":2,"reaction":"b","on":true"#));
    shard.told(2, &of("pin", 13, r#""target":2,"on":true"#));
    let list = |after: &str| {
        format!(r#"{{"id":30,"reactions":{{"conversation":"{conversation}","target":2,"limit":1{after}}}}}"#)
    };
    let first = shard.told(1, &list(""));
    assert!(first.contains(r#"{"reactions":[{"user":"ann","reactions":["a"]}],"next":"ann"}"#), "{first}");
    let second = shard.told(1, &list(r#","after":"ann""#));
    assert!(second.contains(r#"{"reactions":[{"user":"bob","reactions":["b"]}]}"#), "{second}");
    let pins = shard.told(1, &format!(r#"{{"id":31,"pins":{{"conversation":"{conversation}"}}}}"#));
    assert!(pins.contains(r#"{"id":31,"pins":{"pins":[2]}}"#), "{pins}");
}
