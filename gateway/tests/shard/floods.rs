//! Those who send too much of anything.

use antiphon_gateway::core::{admission::Rules, rate::Rate, websocket::Opcode};

use crate::common::Shard;

/// Sends until the connection is closing; how often.
fn until_closed(shard: &mut Shard, slot: u32, mut send: impl FnMut(&mut Shard)) -> usize {
    let mut sent = 0;
    while shard.close_code(slot).is_none() {
        send(shard);
        sent += 1;
        assert!(sent < 5_000, "nothing ends it");
    }
    sent
}

#[test]
fn garbage_after_the_upgrade_is_a_protocol_error_and_costs_its_address() {
    let mut shard =
        Shard::new(|config| config.admission = Rules { address: Rate::share(1, 20, 1), ..Rules::default() });
    for slot in 0..2 {
        shard.open(slot);
        shard.write(slot, b"\xff\xffgarbage, and no frame");
        assert_eq!(shard.close_code(slot), Some(1002));
        assert!(shard.is_closed(slot));
    }
    assert_eq!(shard.counters().protocol_errors, 2);
    shard.accept(3);
    assert!(shard.text(3).starts_with("HTTP/1.1 429 "));
}

#[test]
fn floods_of_any_frame_end_with_rate_limited() {
    let kinds: [(&str, Opcode, bool, &[u8]); 5] = [
        ("pings", Opcode::Ping, true, b"ping"),
        ("pongs", Opcode::Pong, true, b""),
        ("empty pings", Opcode::Ping, true, b""),
        ("empty texts", Opcode::Text, true, b""),
        ("receipts", Opcode::Text, true, br#"{"delivered":{"conversation":"x"}}"#),
    ];
    for (name, opcode, fin, payload) in kinds {
        let mut shard = Shard::new(|_| ());
        shard.connect(0, "alice");
        let sent = until_closed(&mut shard, 0, |shard| shard.write_frame(0, opcode, fin, payload));
        assert!((795..=805).contains(&sent), "{sent} {name}");
        assert_eq!((shard.close_code(0), shard.counters().frames_limited), (Some(4005), 1), "{name}");
        assert!(shard.text(0).contains(r#""reason":"rate_limited","reconnect_after_ms":1000"#), "{name}");
        assert_eq!(shard.counters().sessions, 0, "{name}");
        shard.pass(6_000);
        assert!(shard.is_closed(0), "{name}");
    }
}

#[test]
fn a_flood_in_one_piece_is_one_too() {
    let mut shard = Shard::new(|_| ());
    shard.connect(0, "alice");
    shard.write(0, &[0x8a, 0x80, 1, 2, 3, 4].repeat(900));
    assert_eq!((shard.close_code(0), shard.counters().frames_limited), (Some(4005), 1));
}

#[test]
fn fragments_count_as_frames() {
    let mut shard = Shard::new(|_| ());
    shard.connect(0, "alice");
    shard.write_frame(0, Opcode::Text, false, b"");
    let sent = until_closed(&mut shard, 0, |shard| shard.write_frame(0, Opcode::Continuation, false, b""));
    assert!((795..=805).contains(&sent), "{sent} fragments");
    assert_eq!(shard.close_code(0), Some(4005));
}

#[test]
fn what_stays_below_the_rate_goes_on() {
    let mut shard = Shard::new(|_| ());
    shard.connect(0, "alice");
    for _ in 0..20 {
        for _ in 0..190 {
            shard.write_frame(0, Opcode::Ping, true, b"");
        }
        shard.pass(1_000);
    }
    assert_eq!((shard.close_code(0), shard.counters().frames_limited), (None, 0));
}
