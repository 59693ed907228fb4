//! Those who take their time: each is ended by a limit of time or of bytes, and costs no more than that meanwhile.

use antiphon_gateway::core::{admission::Rules, http::HEAD_BYTES_MAX, rate::Rate, websocket::Opcode};

use crate::common::{Shard, head};

#[test]
fn half_open_ends_at_the_heads_timeout() {
    let mut shard = Shard::new(|_| ());
    shard.accept(0);
    shard.pass(4_900);
    assert!(!shard.is_closed(0));
    shard.pass(2_000);
    assert!(shard.is_closed(0) && shard.text(0).is_empty());
    assert_eq!((shard.counters().heads_timed_out, shard.counters().connections), (1, 0));
}

#[test]
fn a_header_byte_a_second_ends_at_the_heads_timeout_all_the_same() {
    let mut shard = Shard::new(|_| ());
    shard.accept(0);
    for byte in head("").chunks(1).take(20) {
        shard.write(0, byte);
        shard.pass(1_000);
    }
    assert!(shard.is_closed(0));
    assert_eq!(shard.counters().heads_timed_out, 1);
}

#[test]
fn a_head_in_time_leaves_the_rest_of_the_connects_timeout() {
    let mut shard = Shard::new(|_| ());
    shard.accept(0);
    shard.pass(4_000);
    shard.write(0, &head(""));
    shard.pass(5_500);
    assert_eq!(shard.close_code(0), None);
    shard.pass(2_000);
    assert_eq!(shard.close_code(0), Some(4004));
    assert_eq!((shard.counters().heads_timed_out, shard.counters().connects_timed_out), (0, 1));
    // It does not answer the close frame either.
    shard.pass(5_000);
    assert!(shard.is_closed(0));
}

#[test]
fn timeouts_cost_their_address_dearly() {
    let mut shard =
        Shard::new(|config| config.admission = Rules { address: Rate::share(1, 30, 1), ..Rules::default() });
    (0..6).for_each(|slot| shard.accept(slot));
    shard.pass(7_000);
    assert_eq!(shard.counters().heads_timed_out, 6);
    shard.accept(7);
    assert!(shard.text(7).starts_with("HTTP/1.1 429 "));
}

#[test]
fn a_head_beyond_its_bound_is_refused_however_slowly_it_grows() {
    let mut shard = Shard::new(|_| ());
    shard.accept(0);
    let long = [b"GET /ws HTTP/1.1\r\nHost: x\r\nX: ".to_vec(), vec![b'a'; HEAD_BYTES_MAX]].concat();
    for piece in long.chunks(1_000) {
        shard.write(0, piece);
    }
    assert!(shard.text(0).starts_with("HTTP/1.1 431 ") && shard.is_closed(0));
    assert_eq!(shard.counters().http_refused, 1);
}

#[test]
fn a_byte_a_second_after_the_upgrade_is_no_sign_of_life() {
    let mut shard = Shard::new(|_| ());
    shard.open(0);
    shard.connect(1, "alice");
    // The beginning of one long text.
    for slot in [0, 1] {
        shard.write(slot, &[0x81, 0xfe, 0x10, 0, 1, 2, 3, 4]);
    }
    for second in 0..70 {
        shard.pass(1_000);
        shard.write(0, b"a");
        shard.write(1, b"a");
        if second == 15 {
            assert_eq!((shard.close_code(0), shard.close_code(1)), (Some(4004), None));
        }
    }
    assert_eq!(shard.close_code(1), Some(4002));
    assert_eq!((shard.counters().connects_timed_out, shard.counters().silent), (1, 1));
}

#[test]
fn a_client_that_asks_and_never_reads_holds_so_much_and_is_ended() {
    let limit = 100_000;
    let mut shard = Shard::new(|config| {
        config.outbound_bytes_max = limit;
        config.requests_per_second_max = 1_000_000;
        config.requests_burst_max = 1_000_000;
        config.frames_per_second_max = 1_000_000;
        config.frames_burst_max = 1_000_000;
    });
    shard.connect(0, "alice");
    shard.unread.insert(0);
    let mut asked = 0;
    while shard.counters().slow_consumers == 0 {
        shard.write_text(0, &format!(r#"{{"id":{},"ping":{{}}}}"#, asked + 1));
        asked += 1;
        assert!(asked < 20_000, "nothing ends it");
    }
    // Four times the bound for pushes, of answers that take some 80 bytes each.
    assert!((4 * limit / 120..4 * limit / 60).contains(&asked), "{asked} pings");
    shard.pass(6_000);
    assert!(shard.is_closed(0));
}

#[test]
fn half_of_what_may_wait_makes_requests_wait_at_the_client() {
    let mut shard = Shard::new(|config| {
        config.outbound_bytes_max = 20_000;
        config.requests_burst_max = 1_000;
    });
    shard.connect(0, "alice");
    let before = shard.text(0).len();
    shard.unread.insert(0);
    for _ in 0..95 {
        shard.write_frame(0, Opcode::Ping, true, &[0; 125]);
    }
    shard.write_text(0, r#"{"id":2,"conversations":{}}"#);
    shard.unread.clear();
    shard.pass(10);
    assert_eq!(shard.counters().errors[antiphon_wire::codes::ErrorCode::Overloaded as usize], 1);
    assert!(shard.text(0).len() > before && shard.close_code(0).is_none());
}
