//! A user's devices through a whole shard: who is listed, who may be, and who is logged out.

use crate::common::{START_MS, Shard};

/// Alice's phone, laptop and tablet, and bob.
fn devices_of_alice() -> Shard {
    let mut shard = Shard::new(|_| {});
    shard.run_engine();
    for (slot, device) in [(1, "phone"), (2, "laptop"), (3, "tablet")] {
        connect(&mut shard, slot, "alice", device);
        assert!(shard.text(slot).contains("caught_up"), "{}", shard.text(slot));
    }
    shard.connect(9, "bob");
    shard
}

fn connect(shard: &mut Shard, slot: u32, token: &str, device: &str) {
    shard.open(slot);
    shard.say_connect(slot, token, device);
}

fn ask(shard: &mut Shard, slot: u32, fields: &str) -> String {
    shard.told(slot, &format!(r#"{{"id":7,"devices":{{{fields}}}}}"#))
}

const LIST: &str = r#""list":{}"#;

#[test]
fn devices_are_listed_and_name_themselves() {
    let mut shard = devices_of_alice();
    let answer = ask(&mut shard, 1, LIST);
    let all = r#"{"id":7,"devices":{"devices":[{"device":"laptop","online":true},{"device":"phone","online":true,"this":true},{"device":"tablet","online":true}]}}"#;
    assert!(answer.contains(all), "{answer}");
    let before = shard.text(2).len();
    let named = ask(&mut shard, 1, r#""name":"Alice's \"phone\"""#);
    assert!(named.contains(r#"{"id":7,"devices":{"sequence":2}}"#), "{named}");
    // All devices hear of it, by the account.
    let heard = shard.text(2)[before..].to_owned();
    assert!(
        heard.contains(r#""kind":"account_data","key":"antiphon.devices","value":{"named":[{"device":"phone","#),
        "{heard}"
    );
    shard.hang_up(1);
    let away = ask(&mut shard, 2, LIST);
    let phone = format!(r#"{{"device":"phone","name":"Alice's \"phone\"","since_ms":{START_MS},"online":false}}"#);
    assert!(away.contains(&phone), "{away}");
    // It keeps the time of its first name, and is nobody any more without one.
    connect(&mut shard, 4, "alice", "phone");
    shard.pass(1_000);
    ask(&mut shard, 4, r#""name":"Phone""#);
    let again = ask(&mut shard, 2, LIST);
    assert!(again.contains(&format!(r#""name":"Phone","since_ms":{START_MS},"online":true"#)), "{again}");
    ask(&mut shard, 4, r#""name":"""#);
    shard.hang_up(4);
    let gone = ask(&mut shard, 2, LIST);
    assert!(!gone.contains("phone"), "{gone}");
    let of_bob = ask(&mut shard, 9, LIST);
    assert!(of_bob.contains(r#"{"devices":[{"device":"phone","online":true,"this":true}]}"#), "{of_bob}");
}

#[test]
fn of_more_names_than_devices_the_first_that_is_away_is_forgotten() {
    let mut shard = devices_of_alice();
    for (slot, name) in [(1, "One"), (2, "Two"), (3, "Three")] {
        shard.pass(10);
        ask(&mut shard, slot, &format!(r#""name":"{name}""#));
    }
    shard.hang_up(2);
    shard.hang_up(3);
    connect(&mut shard, 4, "alice", "watch");
    ask(&mut shard, 4, r#""name":"Four""#);
    let list = ask(&mut shard, 4, LIST);
    for (name, is_there) in [("One", true), ("Two", false), ("Three", true), ("Four", true)] {
        assert_eq!(list.contains(&format!(r#""name":"{name}""#)), is_there, "{name}: {list}");
    }
}

#[test]
fn who_is_logged_out_is_closed_at_once_and_its_token_is_refused_for_good() {
    let mut shard = devices_of_alice();
    ask(&mut shard, 2, r#""name":"Laptop""#);
    shard.pass(1_000);
    let answer = ask(&mut shard, 1, r#""revoke":["laptop","never-seen"]"#);
    assert!(answer.contains(r#""devices":{"sequence":3}"#), "{answer}");
    assert_eq!([1, 2, 3].map(|slot| shard.close_code(slot)), [None, Some(4504), None]);
    assert!(shard.text(2).contains(r#""goodbye":{"code":4504,"reason":"revoked""#), "{}", shard.text(2));
    let list = ask(&mut shard, 1, LIST);
    assert!(!list.contains("laptop") && !list.contains("Laptop"), "{list}");
    let refused_at = START_MS + 1_000;
    for restarted in [false, true] {
        if restarted {
            shard = shard.restarted();
        }
        for (slot, device, issued, is_let_in) in [
            (11, "laptop", refused_at - 1, false),
            (12, "laptop", refused_at, false),
            (13, "never-seen", 0, false),
            (14, "phone", 0, true),
            (15, "laptop", refused_at + 1, true),
        ] {
            connect(&mut shard, slot, &format!("alice^{issued}"), device);
            let said = shard.text(slot);
            assert_eq!(said.contains("caught_up"), is_let_in, "{device} {issued}: {said}");
            let error = r#"{"id":1,"error":{"code":"revoked","text":"the device was logged out"#;
            assert_eq!(said.contains(error), !is_let_in, "{said}");
            assert!(is_let_in || !said.contains(r#""connect""#), "nothing else is told: {said}");
            assert_eq!(shard.close_code(slot), (!is_let_in).then_some(4504));
            shard.hang_up(slot);
        }
    }
    assert_eq!(shard.counters().revoked, 3);
}

#[test]
fn all_are_logged_out_or_all_but_one() {
    let mut shard = devices_of_alice();
    shard.pass(1_000);
    ask(&mut shard, 1, r#""revoke_all":{"but_this":true}"#);
    assert_eq!([1, 2, 3, 9].map(|slot| shard.close_code(slot)), [None, Some(4504), Some(4504), None]);
    // Of the one that stays the token is as good as before.
    connect(&mut shard, 4, &format!("alice^{START_MS}"), "phone");
    assert!(shard.text(4).contains("caught_up"), "{}", shard.text(4));
    connect(&mut shard, 5, &format!("alice^{START_MS}"), "laptop");
    assert_eq!((shard.close_code(1), shard.close_code(5)), (Some(4502), Some(4504)));
    // Whoever logs oneself out hears that it is done.
    let answer = ask(&mut shard, 4, r#""revoke_all":{}"#);
    let (done, goodbye) =
        (answer.find(r#""devices":{"sequence":"#), answer.find(r#""goodbye":{"code":4504,"reason":"revoked""#));
    assert!(done.is_some() && done < goodbye, "{answer}");
    for device in ["phone", "laptop", "watch"] {
        connect(&mut shard, 6, &format!("alice^{START_MS}"), device);
        assert_eq!(shard.close_code(6), Some(4504), "{device}");
        shard.hang_up(6);
    }
    connect(&mut shard, 7, "bob^0", "laptop");
    assert!(shard.text(7).contains("caught_up"), "{}", shard.text(7));
}

#[test]
fn who_logs_all_others_out_and_goes_at_once_stays_logged_in() {
    let mut shard = devices_of_alice();
    shard.pass(1_000);
    shard.hand_in(1, r#"{"id":7,"devices":{"revoke_all":{"but_this":true}}}"#);
    shard.hang_up(1);
    // It is back before that is done.
    connect(&mut shard, 4, &format!("alice^{START_MS}"), "phone");
    while shard.step() {}
    assert!(shard.text(4).contains("caught_up"), "{}", shard.text(4));
    assert_eq!([2, 3, 4].map(|slot| shard.close_code(slot)), [Some(4504), Some(4504), None]);
    connect(&mut shard, 5, &format!("alice^{START_MS}"), "phone");
    assert_eq!((shard.close_code(4), shard.close_code(5)), (Some(4502), None));
}

#[test]
fn a_clock_that_is_set_back_lets_nobody_in() {
    let mut shard = devices_of_alice();
    shard.pass(2_000);
    ask(&mut shard, 1, r#""revoke":["laptop"]"#);
    shard.wall.set(START_MS + 1_000);
    ask(&mut shard, 1, r#""revoke_all":{"but_this":true}"#);
    for device in ["laptop", "watch"] {
        connect(&mut shard, 4, &format!("alice^{}", START_MS + 1_500), device);
        assert_eq!(shard.close_code(4), Some(4504), "{device}");
        shard.hang_up(4);
    }
}

#[test]
fn so_many_devices_are_connected_at_a_time() {
    let mut shard = devices_of_alice();
    connect(&mut shard, 4, "alice", "watch");
    let said = shard.text(4);
    let error =
        r#"{"id":1,"error":{"code":"limit_reached","text":"at most 3 devices of a user are connected at a time""#;
    assert!(said.contains(error) && !said.contains(r#""connect""#), "{said}");
    assert_eq!((shard.close_code(4), shard.counters().too_many_devices), (Some(4505), 1));
    // One of them may come back, and another may come when one has gone.
    connect(&mut shard, 5, "alice", "tablet");
    assert_eq!((shard.close_code(3), shard.close_code(5)), (Some(4502), None));
    shard.hang_up(2);
    connect(&mut shard, 6, "alice", "watch");
    assert!(shard.text(6).contains("caught_up"), "{}", shard.text(6));
}

#[test]
fn wrong_requests_are_told_apart() {
    let mut shard = devices_of_alice();
    for (fields, code) in [
        ("", "malformed"),
        (r#""list":{},"name":"x""#, "malformed"),
        (r#""name":7"#, "malformed"),
        (r#""revoke":["a b"]"#, "invalid"),
        (r#""name":"a\nb""#, "invalid"),
        (r#""revoke":[]"#, "invalid"),
        (&format!(r#""name":"{}""#, "x".repeat(65)), "too_large"),
        (&format!(r#""revoke":[{}]"#, vec![r#""d""#; 51].join(",")), "too_large"),
    ] {
        let answer = ask(&mut shard, 1, fields);
        assert!(answer.contains(&format!(r#""code":"{code}""#)), "{fields}: {answer}");
    }
    // What is kept of devices is changed by this request alone: one that was logged out does not log itself in.
    for value in [r#","value":{"revoked_all_ms":0}"#, ""] {
        let set = format!(r#"{{"id":7,"account":{{"set":{{"key":"antiphon.devices"{value}}}}}}}"#);
        let answer = shard.told(1, &set);
        assert!(answer.contains(r#""code":"invalid""#), "{answer}");
    }
    let many = |from: usize| (from..from + 50).map(|number| format!(r#""d{number}""#)).collect::<Vec<_>>().join(",");
    for from in [0, 50] {
        let answer = ask(&mut shard, 1, &format!(r#""revoke":[{}]"#, many(from)));
        assert!(answer.contains(r#""sequence""#), "{answer}");
    }
    let answer = ask(&mut shard, 1, r#""revoke":["one-more"]"#);
    assert!(answer.contains(r#""code":"limit_reached""#), "{answer}");
    assert!(ask(&mut shard, 1, r#""revoke":["d7"]"#).contains(r#""sequence""#), "that is one of them");
    assert!(ask(&mut shard, 1, r#""revoke_all":{"but_this":true}"#).contains(r#""sequence""#));
    assert!(ask(&mut shard, 1, r#""revoke":["one-more"]"#).contains(r#""sequence""#), "there is room again");
}

#[test]
fn changes_at_once_are_all_done() {
    let mut shard = devices_of_alice();
    for (slot, fields) in [
        (1, r#""name":"Phone""#),
        (2, r#""name":"Laptop""#),
        (3, r#""name":"Tablet""#),
        (1, r#""revoke":["lost"]"#),
        (2, r#""revoke":["stolen"]"#),
    ] {
        shard.hand_in(slot, &format!(r#"{{"id":7,"devices":{{{fields}}}}}"#));
    }
    while shard.step() {}
    let list = ask(&mut shard, 1, LIST);
    for name in ["Phone", "Laptop", "Tablet"] {
        assert!(list.contains(&format!(r#""name":"{name}""#)), "{list}");
    }
    shard.hang_up(3);
    for device in ["lost", "stolen"] {
        connect(&mut shard, 4, "alice^0", device);
        assert_eq!(shard.close_code(4), Some(4504), "{device}");
        shard.hang_up(4);
    }
}
