//! What an operator is told of a shard: the busiest conversation, who does not keep up, a user's sessions, and what these send and are sent.

use antiphon_gateway::core::enquiry::{Answer, Direction, Question, SlowConnections, TRACE_MS_MAX, TraceEvent, Traced};
use antiphon_wire::{codes::ErrorCode, ids::UserId};

use crate::{
    common::Shard,
    groups::{choir, request, say},
};

fn user(name: &str) -> UserId {
    UserId::new(name).expect("a user")
}

fn slow(shard: &mut Shard) -> SlowConnections {
    match shard.core.enquire(Question::Slow) {
        Answer::Slow(slow) => slow,
        other => panic!("{other:?}"),
    }
}

fn sessions(shard: &mut Shard, name: &str) -> Vec<antiphon_gateway::core::mesh::MeshConnection> {
    match shard.core.enquire(Question::Sessions(user(name))) {
        Answer::Sessions(sessions) => sessions.into_iter().map(|session| session.connection).collect(),
        other => panic!("{other:?}"),
    }
}

fn traced(shard: &mut Shard, number: u64) -> Option<Traced> {
    match shard.core.enquire(Question::TakeTrace(number)) {
        Answer::TakeTrace(traced) => traced,
        other => panic!("{other:?}"),
    }
}

fn trace(shard: &mut Shard, number: u64, name: &str) -> bool {
    let connections = sessions(shard, name);
    shard.core.enquire(Question::Trace { number, user: user(name), connections }) == Answer::Trace(true)
}

#[test]
fn the_conversation_that_is_said_most_in_is_named_first() {
    let (mut shard, id) = choir();
    let answer = shard.told(1, r#"{"id":3,"create":{"direct":"bob"}}"#);
    let direct = answer.split_once(r#""conversation":""#).expect("it is made").1[..36].to_owned();
    shard.told(1, &say(&direct, 10, r#""text":"x""#));
    for number in 11..31 {
        shard.told(1, &say(&id, number, r#""text":"x""#));
    }
    let Answer::Busiest(lanes) = shard.core.enquire(Question::Busiest) else { panic!("another answer") };
    let busy = &lanes[0].1;
    assert_eq!(busy[0].conversation.to_string(), id);
    // Twenty messages and the group's beginning, for three; nothing was a second ago, and rates are of a second at least.
    assert_eq!((busy[0].messages_per_second, busy[1].messages_per_second), (21.0, 2.0));
    assert!(busy[0].pushes_per_second >= 60.0, "{busy:?}");
}

#[test]
fn errors_are_counted_whoever_says_them() {
    let (mut shard, id) = choir();
    let count = |shard: &Shard, code: ErrorCode| shard.counters().errors[code as usize];
    // A lane does, of what a stranger asks.
    shard.connect(4, "zoe");
    assert!(shard.told(4, &request("history", &id, r#","after":0"#)).contains("not_found"));
    assert!(shard.told(4, &request("history", &id, r#","after":0"#)).contains("not_found"));
    // A session does, of what is no request.
    assert!(shard.told(4, r#"{"id":9,"history":7}"#).contains("malformed"));
    assert_eq!((count(&shard, ErrorCode::NotFound), count(&shard, ErrorCode::Malformed)), (2, 1));
}

#[test]
fn who_does_not_read_is_slow_until_all_is_read() {
    let (mut shard, id) = choir();
    shard.unread.insert(2);
    let text = format!(r#""text":"{}""#, "x".repeat(2_000));
    for number in 10..30 {
        shard.told(1, &say(&id, number, &text));
    }
    shard.pass(3_000);
    let found = slow(&mut shard);
    let [one] = found.connections.as_slice() else { panic!("{found:?}") };
    let (of, device) = one.session.clone().expect("a session");
    assert_eq!((of.as_str(), device.as_str(), found.count, found.uncounted), ("bob", "phone", 1, 0));
    assert!((40_000..60_000).contains(&one.bytes) && (2_000..=3_000).contains(&one.for_ms), "{one:?}");
    let Answer::Waiting(waiting) = shard.core.enquire(Question::Waiting(vec![one.connection])) else {
        panic!("no answer")
    };
    assert_eq!(waiting[0].expect("it is there").bytes, one.bytes);
    // The peer reads: what was in flight has left, and then the rest does.
    shard.unread.clear();
    shard.read(2);
    assert_eq!(slow(&mut shard), SlowConnections::default());
}

#[test]
fn a_slow_one_that_goes_is_listed_no_more() {
    let (mut shard, id) = choir();
    shard.unread.insert(2);
    let text = format!(r#""text":"{}""#, "x".repeat(2_000));
    (10..30).for_each(|number| drop(shard.told(1, &say(&id, number, &text))));
    assert_eq!(slow(&mut shard).count, 1);
    shard.hang_up(2);
    assert_eq!(slow(&mut shard), SlowConnections::default());
}

#[test]
fn a_trace_shows_frames_and_not_what_they_say() {
    let (mut shard, id) = choir();
    assert!(trace(&mut shard, 1, "bob"));
    shard.told(2, &say(&id, 10, r#""text":"a secret""#));
    shard.told(1, &say(&id, 11, r#""text":"another secret""#));
    shard.told(2, "{\"id\":9,\"secret\":{}}");
    // Of another user nothing is noted.
    shard.told(3, &request("history", &id, r#","after":0"#));
    let seen = traced(&mut shard, 1).expect("it goes on");
    assert!(!format!("{seen:?}").contains("secret"), "{seen:?}");
    let brief = |event: &TraceEvent| (event.direction, event.kind.clone(), event.request);
    let all: Vec<_> = seen.events.iter().map(brief).collect();
    for expected in [
        (Direction::In, "send".to_owned(), Some(10)),
        (Direction::Out, "send".to_owned(), Some(10)),
        (Direction::Out, "message".to_owned(), None),
        (Direction::In, "no_frame".to_owned(), Some(9)),
        (Direction::Out, "error".to_owned(), Some(9)),
    ] {
        assert!(all.contains(&expected), "{expected:?} is not in {all:?}");
    }
    let sent = &seen.events[0];
    let conversation = sent.conversation.expect("it has one").to_string();
    assert_eq!((conversation, sent.device.as_str(), seen.dropped), (id.clone(), "phone", 0));
    assert!(sent.bytes > 100 && seen.events.iter().all(|event| event.bytes > 0), "{seen:?}");
    // What was taken is not told again.
    assert_eq!(traced(&mut shard, 1), Some(Traced::default()));
}

#[test]
fn a_trace_knows_who_comes_and_goes_and_ends_by_itself() {
    let (mut shard, id) = choir();
    assert!(trace(&mut shard, 1, "bob"));
    shard.hang_up(2);
    shard.open(4);
    shard.say_connect(4, "bob", "desk");
    let kinds: Vec<_> =
        traced(&mut shard, 1).expect("it goes on").events.into_iter().map(|event| (event.device, event.kind)).collect();
    let of = |device: &str, kind: &str| (antiphon_wire::ids::DeviceId::new(device).expect("a device"), kind.to_owned());
    assert_eq!(kinds[..2], [of("phone", "ended"), of("desk", "began")]);
    assert!(kinds.contains(&of("desk", "connect")), "{kinds:?}");
    shard.pass(TRACE_MS_MAX);
    assert_eq!(traced(&mut shard, 1), None);
    // Sessions that still have their flag lose it, and places are free again.
    shard.told(1, &say(&id, 12, r#""text":"x""#));
    for number in 2..6 {
        assert!(trace(&mut shard, number, "bob"));
    }
    assert!(!trace(&mut shard, 6, "bob") && trace(&mut shard, 5, "bob"));
    assert_eq!(shard.core.enquire(Question::EndTrace(3)), Answer::EndTrace);
    assert!(traced(&mut shard, 3).is_none() && trace(&mut shard, 6, "cid"));
}

#[test]
fn a_trace_that_nobody_reads_drops_the_oldest() {
    let (mut shard, _) = choir();
    assert!(trace(&mut shard, 1, "ann"));
    for number in 0..1_200_u64 {
        if number % 40 == 0 {
            shard.pass(1_000);
        }
        shard.write_text(1, &format!(r#"{{"id":{},"ping":{{}}}}"#, number + 100));
    }
    let seen = traced(&mut shard, 1).expect("it goes on");
    assert_eq!((seen.events.len(), seen.events.len() as u64 + seen.dropped), (1_000, 2_400));
    assert_eq!(seen.events[999].request, Some(1_299));
}
