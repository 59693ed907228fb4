//! Account data through a whole shard, as clients that speak JSON see it.

use crate::common::Shard;

/// Two devices of ann, and bob.
fn devices() -> Shard {
    let mut shard = Shard::new(|_| {});
    shard.run_engine();
    for (slot, name, device) in [(1, "ann", "phone"), (2, "ann", "tab"), (3, "bob", "tab")] {
        shard.open(slot);
        shard.say_connect(slot, name, device);
    }
    shard
}

fn ask(shard: &mut Shard, slot: u32, fields: &str) -> String {
    shard.told(slot, &format!(r#"{{"id":7,"account":{{{fields}}}}}"#))
}

#[test]
fn what_is_set_is_pushed_to_ones_devices_and_listed() {
    let mut shard = devices();
    let nothing = ask(&mut shard, 1, r#""list":{}"#);
    assert!(nothing.contains(r#""epoch":1,"sequence":0,"items":[]}"#), "{nothing}");
    let set = r#""set":{"key":"draft:x","value":{"text": "Hi", "n": [1]}}"#;
    let before = [2, 3].map(|slot| shard.text(slot).len());
    let answer = ask(&mut shard, 1, set);
    assert!(answer.contains(r#""epoch":1,"sequence":2}}"#), "{answer}");
    // Value for value and byte for byte.
    let pushed = shard.text(2)[before[0]..].to_owned();
    assert!(pushed.contains(r#""kind":"account_data","key":"draft:x","value":{"text": "Hi", "n": [1]}}"#), "{pushed}");
    assert_eq!(shard.text(3).len(), before[1], "nobody else hears of it");
    let again = ask(&mut shard, 2, r#""set":{"key":"draft:x","value":"short","if_sequence":2}"#);
    assert!(again.contains(r#""sequence":3,"replaced":2}}"#), "{again}");
    ask(&mut shard, 2, r#""set":{"key":"theme","value":true}"#);
    let first = ask(&mut shard, 1, r#""list":{"limit":1}"#);
    let item = r#""sequence":4,"items":[{"key":"draft:x","value":"short","sequence":3,"time_ms":"#;
    assert!(first.contains(item) && first.contains(r#"],"next":"draft:x"}"#), "{first}");
    let rest = ask(&mut shard, 1, r#""list":{"after":"draft:x"}"#);
    assert!(rest.contains(r#""items":[{"key":"theme","value":true,"#) && !rest.contains("next"), "{rest}");
    for gone in [r#""set":{"key":"theme"}"#, r#""set":{"key":"draft:x","value":null}"#] {
        assert!(ask(&mut shard, 1, gone).contains(r#""replaced":"#));
    }
    assert!(ask(&mut shard, 2, r#""list":{}"#).contains(r#""sequence":6,"items":[]}"#));
    let list = shard.told(1, r#"{"id":8,"conversations":{}}"#);
    assert!(list.contains(r#"{"conversations":[]}"#), "{list}");
    assert!(ask(&mut shard, 3, r#""list":{}"#).contains(r#""sequence":0,"items":[]}"#), "bob has one of his own");
}

#[test]
fn wrong_requests_are_told_apart() {
    let mut shard = devices();
    let (long_key, long) = ("k".repeat(129), "x".repeat(24 * 1024));
    ask(&mut shard, 1, r#""set":{"key":"a","value":1}"#);
    for (fields, code) in [
        ("".to_owned(), "malformed"),
        (r#""set":{"key":"a","value":1},"list":{}"#.to_owned(), "malformed"),
        (r#""set":{"value":1}"#.to_owned(), "malformed"),
        (r#""set":{"key":7,"value":1}"#.to_owned(), "malformed"),
        (r#""set":{"key":"a","value":{]}"#.to_owned(), "malformed"),
        (r#""set":{"key":"a","if_sequence":-1}"#.to_owned(), "malformed"),
        (r#""set":{"key":"","value":1}"#.to_owned(), "invalid"),
        (r#""set":{"key":"a b","value":1}"#.to_owned(), "invalid"),
        (r#""set":{"key":"ü","value":1}"#.to_owned(), "invalid"),
        (format!(r#""set":{{"key":"{long_key}","value":1}}"#), "invalid"),
        (format!(r#""set":{{"key":"a","value":"{long}"}}"#), "too_large"),
        (r#""list":{"limit":0}"#.to_owned(), "invalid"),
        (format!(r#""list":{{"after":"{long_key}"}}"#), "too_large"),
        (r#""set":{"key":"a","value":2,"if_sequence":0}"#.to_owned(), "conflict"),
        (r#""set":{"key":"a","if_sequence":9}"#.to_owned(), "conflict"),
        (r#""set":{"key":"b","value":2,"if_sequence":2}"#.to_owned(), "conflict"),
    ] {
        let answer = ask(&mut shard, 1, &fields);
        assert!(answer.contains(&format!(r#""code":"{code}""#)), "{}: {answer}", &fields[..fields.len().min(80)]);
    }
    // Nothing of all that was done.
    assert!(ask(&mut shard, 1, r#""list":{}"#).contains(r#""sequence":2,"items":[{"key":"a","value":1,"sequence":2,"#));
}
