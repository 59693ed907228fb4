//! The session, step by step: inputs by hand, outputs as lines of text.

use std::sync::Arc;

use super::*;
use crate::{
    codes::{CloseCode, ErrorCode},
    frame::{
        Advanced, CaughtUp, Conversations, Entry, EntryKind, Goodbye, HistoryAnswer, Limits, Pong, PositionBytes,
        Refresh, Request, ResumeOutcome, TooFar, ViewAnswer,
    },
    ids::{DeviceId, Ordinal, TimestampMs, UserId},
};

const HALL: ConversationId = ConversationId([0xaa; 16]);
const ROOM: ConversationId = ConversationId([0xbb; 16]);

/// A session, its clock, and what it says.
struct Bench {
    session: Session,
    now_ms: u64,
}

impl Bench {
    fn new(change: impl FnOnce(&mut SessionConfig)) -> Self {
        let mut config = SessionConfig::new(Encoding::Json);
        change(&mut config);
        let device = DeviceId::new("phone").unwrap();
        Self { session: Session::new(Arc::new(config), Some("T".to_owned()), Some(device), 1), now_ms: 0 }
    }

    /// A session that is open, with everything said so far taken.
    fn open(change: impl FnOnce(&mut SessionConfig)) -> Self {
        let mut bench = Self::new(change);
        bench.session.start(0);
        bench.connect(ResumeOutcome::Fresh);
        bench.caught_up(1);
        bench.said();
        bench
    }

    fn connect(&mut self, resume: ResumeOutcome) {
        self.session.connected(self.now_ms);
        self.welcome(self.session.last_request(), resume);
    }

    fn welcome(&mut self, id: u32, resume: ResumeOutcome) -> Vec<String> {
        let welcome = Welcome {
            user: UserId::new("me").unwrap(),
            device: DeviceId::new("phone").unwrap(),
            session: "s".to_owned(),
            time_ms: TimestampMs(0),
            heartbeat_interval_ms: 30_000,
            resume,
            limits: Limits {
                frame_bytes_max: 1,
                text_bytes_max: 1,
                members_per_request_max: 1,
                group_members_max: 1,
                page_items_max: 1,
                requests_per_second_max: 1,
            },
        };
        self.answer(id, ServerFrame::Welcome(welcome))
    }

    fn caught_up(&mut self, position: u8) -> Vec<String> {
        self.push(ServerFrame::CaughtUp(CaughtUp { position: PositionBytes(vec![position]) }))
    }

    fn message(&mut self, conversation: ConversationId, sequence: u64) -> Vec<String> {
        self.push(ServerFrame::Message(entry(conversation, 1, sequence, "bob", 0)))
    }

    fn push(&mut self, frame: ServerFrame) -> Vec<String> {
        self.session.frame(self.now_ms, &Encoding::Json.encode_server(None, &frame));
        self.said()
    }

    fn answer(&mut self, id: u32, frame: ServerFrame) -> Vec<String> {
        self.session.frame(self.now_ms, &Encoding::Json.encode_server(Some(RequestId(id)), &frame));
        self.said()
    }

    fn refuse(&mut self, id: u32, code: ErrorCode, retry_after_ms: Option<u32>) -> Vec<String> {
        self.answer(id, ServerFrame::Error(ErrorFrame { code, text: String::new(), retry_after_ms }))
    }

    fn page(&mut self, id: u32, first: u64, last: u64, sequences: impl IntoIterator<Item = u64>) -> Vec<String> {
        let entries = sequences.into_iter().map(|sequence| entry(HALL, 1, sequence, "bob", 0)).collect();
        let (first, last) = (Sequence(first), Sequence(last));
        self.answer(
            id,
            ServerFrame::HistoryAnswer(HistoryAnswer { conversation: HALL, epoch: Epoch(1), first, last, entries }),
        )
    }

    fn send(&mut self, number: u8) -> Vec<String> {
        self.session.send(self.now_ms, HALL, Content::text("hi"), ClientMessageId([number; 16])).unwrap();
        self.said()
    }

    fn at(&mut self, now_ms: u64) -> Vec<String> {
        self.now_ms = now_ms;
        self.session.tick(now_ms);
        self.said()
    }

    /// Goes to where the session wants to be woken.
    fn wake(&mut self) -> Vec<String> {
        let at_ms = self.session.next_wake_ms().unwrap();
        self.at(at_ms)
    }

    fn said(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.session.poll_output()).map(|output| line(&output)).collect()
    }
}

fn entry(conversation: ConversationId, epoch: u32, sequence: u64, sender: &str, name: u8) -> EntryBytes {
    let entry = Entry {
        conversation,
        epoch: Epoch(epoch),
        sequence: Sequence(sequence),
        ordinal: Ordinal(sequence),
        time_ms: TimestampMs(1),
        kind: EntryKind::Message,
        client_message_id: ClientMessageId([name; 16]),
        sender: UserId::new(sender).unwrap(),
        body: Content::text("hi").0,
    };
    EntryBytes(entry.to_archive().to_vec())
}

fn place(conversation: ConversationId) -> &'static str {
    if conversation == HALL { "hall" } else { "room" }
}

fn line(output: &Output) -> String {
    match output {
        Output::Connect => "open a transport".to_owned(),
        Output::Close => "close".to_owned(),
        Output::Transmit(bytes) => {
            let text = std::str::from_utf8(bytes).unwrap();
            text.replace(&HALL.to_string(), "hall").replace(&ROOM.to_string(), "room").replace('"', "")
        }
        Output::Deliver(event) => match event {
            Event::Connected(_) => "connected".to_owned(),
            Event::CaughtUp => "caught up".to_owned(),
            Event::Disconnected { .. } => "disconnected".to_owned(),
            Event::Entry { conversation, sequence, .. } => format!("{} {sequence}", place(*conversation)),
            Event::Acked { client_message_id, ack, .. } => {
                format!("acked {} as {}", client_message_id.0[0], ack.sequence)
            }
            Event::SendFailed { client_message_id, error, .. } => {
                format!("send {} failed: {}", client_message_id.0[0], error.code.name())
            }
            Event::Answer { id, answer: Ok(_) } => format!("answer {id}"),
            Event::Answer { id, answer: Err(RequestError::Disconnected) } => format!("answer {id}: disconnected"),
            Event::Answer { id, answer: Err(RequestError::Refused(error)) } => {
                format!("answer {id}: {}", error.code.name())
            }
            Event::Left(left) => format!("left {}", place(left.conversation)),
            Event::Advanced(advanced) => format!("{} went on to {}", place(advanced.conversation), advanced.sequence),
            Event::Mentioned { conversation, sequence, .. } => format!("meant in {} {sequence}", place(*conversation)),
            Event::Skipped { conversation, from, to } => format!("skipped {} {from} to {to}", place(*conversation)),
            Event::ConversationReset { conversation, epoch } => format!("reset {} to {epoch}", place(*conversation)),
            Event::Undecodable(error) => format!("undecodable: {}", error.text),
            Event::Trouble(error) => format!("trouble: {}", error.code.name()),
            other => format!("{other:?}"),
        },
    }
}

#[track_caller]
fn check(got: Vec<String>, expect: &[&str]) {
    assert_eq!(got, expect);
}

#[test]
fn phases_change_along_one_table() {
    let phases =
        [Phase::Idle, Phase::Waiting, Phase::Connecting, Phase::Greeting, Phase::Resuming, Phase::Open, Phase::Stopped];
    let row = |from: Phase| {
        let to = phases.iter().filter(|to| Phase::CHANGES.contains(&(from, **to)));
        format!("{from:?} -> {}", to.map(|to| format!("{to:?}")).collect::<Vec<_>>().join(" "))
    };
    let expect = [
        "Idle -> Connecting Stopped",
        "Waiting -> Connecting Stopped",
        "Connecting -> Waiting Greeting Stopped",
        "Greeting -> Waiting Resuming Stopped",
        "Resuming -> Waiting Open Stopped",
        "Open -> Waiting Stopped",
        "Stopped -> Connecting",
    ];
    assert_eq!(phases.map(row), expect);
}

#[test]
fn a_session_says_who_it_is_and_pings_when_idle() {
    let mut bench = Bench::new(|_| {});
    bench.session.start(0);
    check(bench.said(), &["open a transport"]);
    bench.session.connected(0);
    check(bench.said(), &["{id:1,connect:{token:T,device:phone}}"]);
    let mut bench = Bench::open(|_| {});
    assert_eq!((bench.session.phase(), bench.session.next_wake_ms()), (Phase::Open, Some(30_000)));
    check(bench.at(29_999), &[]);
    check(bench.at(30_000), &["{id:2,ping:{}}"]);
    let pong = Pong { time_ms: TimestampMs(1), position: Some(PositionBytes(vec![2])) };
    bench.answer(2, ServerFrame::Pong(pong));
    assert_eq!(bench.session.position().unwrap().position, PositionBytes(vec![2]));
    // What is sent counts as a heartbeat.
    bench.now_ms = 50_000;
    bench.session.request(50_000, Request::Conversations(Conversations::default())).unwrap();
    check(
        bench.answer(
            3,
            ServerFrame::ConversationsAnswer(crate::frame::ConversationsAnswer { conversations: vec![], next: None }),
        ),
        &["{id:3,conversations:{}}", "answer 3"],
    );
    assert_eq!(bench.session.next_wake_ms(), Some(80_000));
    // An entry makes a new position worth a ping even while other things are sent.
    bench.message(HALL, 1);
    assert_eq!(bench.session.next_wake_ms(), Some(60_000));
}

#[test]
fn silence_ends_a_connection() {
    let mut bench = Bench::open(|_| {});
    check(bench.at(30_000), &["{id:2,ping:{}}"]);
    check(bench.at(59_999), &[]);
    check(bench.at(60_000), &["close", "disconnected"]);
    check(bench.wake(), &["open a transport"]);
    // So does a transport that does not open, or no welcome.
    check(bench.wake(), &["close", "disconnected"]);
    check(bench.wake(), &["open a transport"]);
    bench.session.connected(bench.now_ms);
    check(bench.said(), &["{id:3,connect:{token:T,device:phone,resume:{position:AQ}}}"]);
    check(bench.wake(), &["close", "disconnected"]);
}

#[test]
fn close_codes_and_hints_decide_about_coming_back() {
    let mut bench = Bench::open(|_| {});
    bench.session.disconnected(0, Some(CloseCode::Replaced.number()));
    check(bench.said(), &["Stopped(Closed(4502))"]);
    assert_eq!(bench.session.next_wake_ms(), None);

    let goodbye = |code: CloseCode, reconnect_after_ms| {
        let reason = code.name().to_owned();
        ServerFrame::Goodbye(Goodbye { code: code.number(), reason, reconnect_after_ms })
    };
    for code in [CloseCode::Revoked, CloseCode::TooManyDevices] {
        let stopped = format!("Stopped(Closed({}))", code.number());
        let mut bench = Bench::open(|_| {});
        bench.session.disconnected(0, Some(code.number()));
        check(bench.said(), &[&stopped]);
        assert_eq!(bench.session.next_wake_ms(), None);
        // A goodbye says it as well, whatever the connection ends with.
        let mut bench = Bench::open(|_| {});
        check(bench.push(goodbye(code, None)), &["close", &stopped]);
        bench.session.disconnected(0, Some(CloseCode::Restarting.number()));
        check(bench.said(), &[]);
        assert_eq!(bench.session.next_wake_ms(), None);
    }
    let mut bench = Bench::open(|_| {});
    check(bench.push(goodbye(CloseCode::TokenExpired, None)), &["close", "Stopped(Closed(4501))"]);
    bench.session.set_token("U".to_owned());
    bench.session.start(5);
    bench.session.connected(5);
    check(bench.said(), &["open a transport", "{id:2,connect:{token:U,device:phone,resume:{position:AQ}}}"]);

    // A token that was given to a live session is the next one's, too.
    let mut bench = Bench::open(|_| {});
    let expiring = ServerFrame::Expiring(Expiring { expires_ms: TimestampMs(7) });
    check(bench.push(expiring), &["Expiring(Expiring { expires_ms: TimestampMs(7) })"]);
    bench.session.request(0, Request::Refresh(Refresh { token: "U".to_owned() })).unwrap();
    check(bench.said(), &["{id:2,refresh:{token:U}}"]);
    let lost = ["close", "answer 2: disconnected", "disconnected"];
    check(bench.push(goodbye(CloseCode::Restarting, Some(5))), &lost);
    bench.wake();
    bench.session.connected(5);
    check(bench.said(), &["{id:3,connect:{token:U,device:phone,resume:{position:AQ}}}"]);

    let mut bench = Bench::open(|_| {});
    check(bench.push(goodbye(CloseCode::Restarting, Some(1_234))), &["close", "disconnected"]);
    assert_eq!(bench.session.next_wake_ms(), Some(1_234));
    // The hint was for once.
    bench.wake();
    bench.session.disconnected(1_234, None);
    assert!(bench.session.next_wake_ms().unwrap() <= 1_234 + 1_000);

    // A connect that is refused for now waits at least as long as told; one that is refused for good stops.
    let mut bench = Bench::new(|_| {});
    bench.session.start(0);
    bench.session.connected(0);
    bench.said();
    check(bench.refuse(1, ErrorCode::Overloaded, Some(7_000)), &["trouble: overloaded", "close", "disconnected"]);
    assert!((7_000..=7_500).contains(&bench.session.next_wake_ms().unwrap()));
    bench.wake();
    bench.session.connected(bench.now_ms);
    bench.said();
    let stopped = bench.refuse(2, ErrorCode::Unauthenticated, None);
    assert!(stopped[0] == "close" && stopped[1].starts_with("Stopped(Refused("), "{stopped:?}");
}

#[test]
fn backoff_begins_anew_only_after_a_stable_session() {
    let waits = |lasted_ms: u64| {
        let mut longest = 0;
        for seed in 0..200 {
            let config = SessionConfig::new(Encoding::Json);
            let session = Session::new(Arc::new(config), None, None, seed);
            let mut bench = Bench { session, now_ms: 0 };
            bench.session.start(0);
            for _ in 0..4 {
                bench.connect(ResumeOutcome::Fresh);
                bench.said();
                bench.now_ms += lasted_ms;
                bench.session.disconnected(bench.now_ms, None);
                longest = longest.max(bench.session.next_wake_ms().unwrap() - bench.now_ms);
                bench.wake();
            }
        }
        longest
    };
    assert!(waits(30_000) <= 500);
    assert!((3_500..=4_000).contains(&waits(29_999)));
}

#[test]
fn entries_come_once_and_in_order() {
    let mut bench = Bench::open(|config| config.reorder_wait_ms = 2_000);
    check(bench.message(HALL, 7), &["hall 7"]);
    check(bench.message(HALL, 7), &[]);
    check(bench.message(HALL, 6), &[]);
    check(bench.message(HALL, 9), &[]);
    check(bench.message(ROOM, 1), &["room 1"]);
    check(bench.message(HALL, 10), &[]);
    assert_eq!(bench.session.next_wake_ms(), Some(2_000));
    check(bench.message(HALL, 8), &["hall 8", "hall 9", "hall 10"]);
    assert!(bench.session.work.is_none());
    bench.session.open(HALL, Epoch(1), Sequence(20));
    check(bench.message(HALL, 11), &["hall 11"]);
    bench.session.forget(HALL);
    bench.session.open(HALL, Epoch(1), Sequence(20));
    check(bench.message(HALL, 20), &[]);
    check(bench.message(HALL, 21), &["hall 21"]);
}

#[test]
fn a_gap_is_filled_by_history() {
    let mut bench = Bench::open(|_| {});
    bench.message(HALL, 1);
    bench.message(HALL, 4);
    check(bench.at(1_999), &[]);
    check(bench.at(2_000), &["{id:2,history:{conversation:hall,after:1,limit:200}}"]);
    check(bench.message(HALL, 5), &[]);
    check(bench.page(2, 1, 5, 2..=4), &["hall 2", "hall 3", "hall 4", "hall 5"]);
    assert!(bench.session.work.is_none());

    // A page that brings too little is followed by another, a refusal is waited for.
    bench.message(HALL, 9);
    check(bench.at(4_000), &["{id:3,history:{conversation:hall,after:5,limit:200}}"]);
    check(bench.page(3, 1, 9, 6..=6), &["hall 6", "{id:4,history:{conversation:hall,after:6,limit:200}}"]);
    check(bench.refuse(4, ErrorCode::RateLimited, Some(300)), &[]);
    check(bench.at(4_300), &["{id:5,history:{conversation:hall,after:6,limit:200}}"]);
    // What is gone for good is skipped.
    check(bench.refuse(5, ErrorCode::Damaged, None), &["skipped hall 7 to 8", "hall 9"]);
    bench.message(HALL, 12);
    check(bench.at(6_300), &["{id:6,history:{conversation:hall,after:9,limit:200}}"]);
    check(bench.page(6, 11, 12, 11..=12), &["skipped hall 10 to 10", "hall 11", "hall 12"]);
    bench.message(HALL, 14);
    check(bench.at(8_300), &["{id:7,history:{conversation:hall,after:12,limit:200}}"]);
    check(bench.refuse(7, ErrorCode::NotFound, None), &["left hall"]);
    assert!(bench.session.work.is_none());
}

#[test]
fn too_far_is_paged_while_live_entries_wait() {
    let mut bench = Bench::open(|config| config.reorder_items_max = 2);
    bench.message(HALL, 1);
    let too_far = TooFar { conversation: HALL, epoch: Epoch(1), first: Sequence(3), last: Sequence(5) };
    check(
        bench.push(ServerFrame::TooFar(too_far)),
        &["skipped hall 2 to 2", "{id:2,history:{conversation:hall,after:2,limit:200}}"],
    );
    for sequence in 6..=9 {
        check(bench.message(HALL, sequence), &[]);
    }
    // A position does not count while a gap is open.
    bench.push(ServerFrame::CaughtUp(CaughtUp { position: PositionBytes(vec![9]) }));
    assert_eq!(bench.session.position().unwrap().position, PositionBytes(vec![1]));
    // Six and seven waited; eight and nine had no room.
    check(
        bench.page(2, 1, 9, 3..=5),
        &["hall 3", "hall 4", "hall 5", "hall 6", "hall 7", "{id:3,history:{conversation:hall,after:7,limit:200}}"],
    );
    check(bench.page(3, 1, 9, 8..=9), &["hall 8", "hall 9"]);
    assert_eq!(bench.session.position().unwrap().position, PositionBytes(vec![9]));
}

#[test]
fn a_log_created_anew_is_told() {
    let mut bench = Bench::open(|_| {});
    bench.message(HALL, 5);
    check(bench.push(ServerFrame::Message(entry(HALL, 2, 3, "bob", 0))), &["reset hall to 2", "hall 3"]);
    let left = Left { conversation: HALL, sequence: Sequence(4) };
    check(bench.push(ServerFrame::Left(left)), &["left hall"]);
    check(bench.push(ServerFrame::Message(entry(HALL, 2, 9, "bob", 0))), &["hall 9"]);
    bench.session.disconnected(0, None);
    bench.wake();
    bench.connect(ResumeOutcome::Reset);
    assert_eq!(bench.session.conversations().count(), 0);
    assert!(bench.session.position().is_none());
}

#[test]
fn sends_are_retried_and_acknowledged_once() {
    let mut bench = Bench::new(|_| {});
    check(bench.send(1), &[]);
    let twice = bench.session.send(0, HALL, Content::text("hi"), ClientMessageId([1; 16]));
    assert_eq!(twice, Err(SessionError::AlreadyQueued));
    bench.session.start(0);
    bench.connect(ResumeOutcome::Fresh);
    let name = |number: u8| ClientMessageId([number; 16]);
    let sent = |id: u32, number: u8| {
        format!("{{id:{id},send:{{conversation:hall,client_message_id:{},text:hi}}}}", name(number))
    };
    assert_eq!(bench.send(2), [sent(3, 2)]);
    check(bench.send(3), &[&sent(4, 3)]);
    let ack = |sequence| {
        let sequence = Sequence(sequence);
        ServerFrame::Ack(Ack { sequence, ordinal: Ordinal(1), time_ms: TimestampMs(1), duplicate: false })
    };
    check(bench.answer(2, ack(1)), &["acked 1 as 1"]);
    check(bench.push(ServerFrame::Message(entry(HALL, 1, 1, "me", 1))), &["hall 1"]);
    // Another user's message under the same name is not ours.
    check(bench.push(ServerFrame::Message(entry(HALL, 1, 2, "bob", 2))), &["hall 2"]);
    check(bench.push(ServerFrame::Message(entry(HALL, 1, 3, "me", 2))), &["acked 2 as 3", "hall 3"]);
    check(bench.answer(3, ack(3)), &[]);
    bench.send(4);
    bench.session.disconnected(0, None);
    bench.said();
    bench.wake();
    bench.connect(ResumeOutcome::Fresh);
    let names: Vec<_> = bench.session.pending_sends().map(|send| send.client_message_id).collect();
    assert_eq!(names, [name(3), name(4)]);
}

#[test]
fn a_refused_send_is_held_or_given_up() {
    let mut bench = Bench::open(|_| {});
    bench.send(1);
    bench.send(2);
    check(bench.refuse(2, ErrorCode::Overloaded, Some(400)), &[]);
    check(bench.refuse(3, ErrorCode::Conflict, None), &["send 2 failed: conflict"]);
    check(bench.send(3), &[]);
    assert_eq!(bench.session.next_wake_ms(), Some(400));
    assert_eq!(bench.wake().len(), 2);

    let mut bench = Bench::open(|config| (config.outbox_items_max, config.outbox_bytes_max) = (2, 5));
    bench.send(1);
    let send =
        |bench: &mut Bench, text: &str| bench.session.send(0, HALL, Content::text(text), ClientMessageId([9; 16]));
    assert_eq!(send(&mut bench, "hi"), Err(SessionError::OutboxFull(2)));
    assert_eq!(send(&mut bench, ""), Err(SessionError::Content(EntryError::Empty)));
}

#[test]
fn requests_are_answered_or_fail_with_the_connection() {
    let mut bench = Bench::new(|config| config.requests_in_flight_max = 1);
    let list = || Request::Conversations(Conversations::default());
    assert_eq!(bench.session.request(0, list()), Err(SessionError::NotConnected));
    bench.session.start(0);
    bench.connect(ResumeOutcome::Fresh);
    assert_eq!(bench.session.request(0, list()), Ok(RequestId(2)));
    assert_eq!(bench.session.request(0, list()), Err(SessionError::TooManyRequests(1)));
    check(bench.refuse(2, ErrorCode::RateLimited, None), &["{id:2,conversations:{}}", "answer 2: rate_limited"]);
    bench.session.request(0, list()).unwrap();
    bench.said();
    bench.session.disconnected(0, None);
    check(bench.said(), &["answer 3: disconnected", "disconnected"]);
    bench.wake();
    bench.connect(ResumeOutcome::Fresh);
    let ping = Request::Ping(crate::frame::Ping {});
    assert_eq!(bench.session.request(0, ping), Err(SessionError::NotForApplication));
    let wrong = Request::Conversations(Conversations { after: None, limit: Some(0) });
    assert!(matches!(bench.session.request(0, wrong), Err(SessionError::Invalid(_))));
}

#[test]
fn the_delivered_pointer_follows_at_its_pace() {
    let mut bench = Bench::open(|config| config.delivered_after_ms = Some(500));
    bench.message(HALL, 1);
    bench.now_ms = 400;
    bench.message(HALL, 2);
    check(bench.push(ServerFrame::Message(entry(ROOM, 1, 1, "me", 1))), &["room 1"]);
    check(bench.wake(), &["{delivered:{conversation:hall,sequence:2}}"]);
    assert_eq!(bench.now_ms, 500);
    assert!(bench.session.work.is_none());
}

#[test]
fn without_a_position_history_tells_what_came_meanwhile() {
    let mut bench = Bench::new(|_| {});
    bench.session.open(HALL, Epoch(1), Sequence(3));
    bench.session.start(0);
    bench.connect(ResumeOutcome::Fresh);
    check(bench.caught_up(1), &["caught up"]);
    assert!(bench.session.position().is_none());
    check(bench.page(2, 1, 5, [4]), &["hall 4", "{id:3,history:{conversation:hall,after:4,limit:200}}"]);
    assert!(bench.session.position().is_none());
    check(bench.page(3, 1, 5, [5]), &["hall 5"]);
    assert_eq!(bench.session.position().unwrap().position, PositionBytes(vec![1]));
}

#[test]
fn a_refusal_of_what_came_meanwhile_skips_nothing() {
    let mut bench = Bench::new(|_| {});
    bench.session.open(HALL, Epoch(1), Sequence(3));
    bench.session.start(0);
    bench.connect(ResumeOutcome::Fresh);
    check(bench.refuse(2, ErrorCode::Damaged, None), &[]);
    check(bench.message(HALL, 4), &["hall 4"]);
    assert!(bench.session.work.is_none());
}

#[test]
fn nonsense_is_told_and_left_out() {
    let mut bench = Bench::open(|_| {});
    let expect = "undecodable: expected ident at line 1 column 2";
    bench.session.frame(0, b"nonsense");
    check(bench.said(), &[expect]);
    let pong = Pong { time_ms: TimestampMs(1), position: None };
    check(bench.push(ServerFrame::Pong(pong.clone())), &["undecodable: an answer without an id"]);
    check(bench.answer(99, ServerFrame::Pong(pong.clone())), &[]);
    bench.send(1);
    check(
        bench.answer(2, ServerFrame::Pong(pong)),
        &["undecodable: an answer that does not fit its request", "send 1 failed: malformed"],
    );
}

#[test]
fn an_idle_session_is_small() {
    let bench = Bench::open(|_| {});
    assert!(bench.session.work.is_none());
    println!("Session {} bytes, Work {}", size_of::<Session>(), size_of::<super::machine::Work>());
    assert!(size_of::<Session>() <= 200, "{}", size_of::<Session>());
    assert!(size_of::<Output>() <= 96, "{}", size_of::<Output>());
}

fn advanced(sequence: u64) -> ServerFrame {
    ServerFrame::Advanced(Advanced {
        conversation: HALL,
        epoch: Epoch(1),
        sequence: Sequence(sequence),
        ordinal: Ordinal(sequence),
        time_ms: TimestampMs(1),
    })
}

/// A lazy session that is live and has the hall up to 7.
fn lazy() -> Bench {
    let mut bench = Bench::open(|config| config.lazy = true);
    assert_eq!(bench.message(HALL, 7), ["hall 7"]);
    bench
}

#[test]
fn what_is_not_viewed_stays_with_the_server_until_it_is() {
    let mut bench = lazy();
    assert_eq!(bench.push(advanced(9)), ["hall went on to 9"]);
    assert_eq!(bench.push(advanced(12)), ["hall went on to 12"]);
    // A resume may stream some of it: they are no gap to be filled.
    assert_eq!(bench.message(HALL, 14), ["hall went on to 14"]);
    assert!(!bench.session.position().unwrap().known.is_empty());
    let mention = ServerFrame::Mentioned(entry(HALL, 1, 11, "bob", 0));
    assert_eq!(bench.push(mention), ["meant in hall 11"]);
    assert_eq!(bench.at(20_000), [] as [&str; 0], "nothing is fetched");
    assert_eq!(bench.caught_up(2), [] as [&str; 0]);
    assert_eq!(bench.session.position_bytes(), Some(&[2][..]), "the position does not wait for it");

    bench.session.view(bench.now_ms, HALL, true);
    assert_eq!(bench.said(), ["{id:2,view:{conversation:hall,open:true}}"]);
    // What comes from now on waits for what is fetched.
    assert_eq!(bench.message(HALL, 15), [] as [&str; 0]);
    let asks = bench.answer(2, ServerFrame::ViewAnswer(ViewAnswer { sequence: Some(Sequence(13)) }));
    assert_eq!(asks, ["{id:3,history:{conversation:hall,after:7,limit:200}}"]);
    let all: Vec<String> = (8..=15).map(|sequence| format!("hall {sequence}")).collect();
    assert_eq!(bench.page(3, 1, 14, 8..=14), all);
    assert_eq!(bench.message(HALL, 16), ["hall 16"]);

    bench.session.view(bench.now_ms, HALL, false);
    assert_eq!(bench.said(), ["{view:{conversation:hall,open:false}}"]);
    assert_eq!(bench.push(advanced(17)), ["hall went on to 17"]);
}

#[test]
fn what_is_viewed_is_viewed_on_the_next_connection_too() {
    let mut bench = lazy();
    bench.session.view(bench.now_ms, HALL, true);
    assert_eq!(bench.said(), ["{id:2,view:{conversation:hall,open:true}}"]);
    let later = bench.refuse(2, ErrorCode::Overloaded, Some(500));
    assert_eq!(later, [] as [&str; 0]);
    assert_eq!(bench.wake(), ["{id:3,view:{conversation:hall,open:true}}"]);
    bench.answer(3, ServerFrame::ViewAnswer(ViewAnswer { sequence: Some(Sequence(7)) }));
    bench.session.disconnected(bench.now_ms, None);
    bench.wake();
    bench.session.connected(bench.now_ms);
    let id = bench.session.last_request();
    bench.said();
    let connected = bench.welcome(id, ResumeOutcome::Resuming);
    assert_eq!(connected, ["connected".to_owned(), format!("{{id:{},view:{{conversation:hall,open:true}}}}", id + 1)]);
    // One that the user is not in any more is not asked for again.
    assert_eq!(bench.refuse(id + 1, ErrorCode::NotFound, None), [] as [&str; 0]);
    assert_eq!(bench.push(advanced(9)), ["hall went on to 9"]);
    bench.session.disconnected(bench.now_ms, None);
    bench.wake();
    bench.session.connected(bench.now_ms);
    bench.said();
    let id = bench.session.last_request();
    // Without a position nothing is streamed, so history tells how far each one is.
    let connected = bench.welcome(id, ResumeOutcome::Fresh);
    let history = format!("{{id:{},history:{{conversation:hall,after:7,limit:200}}}}", id + 1);
    assert_eq!(connected, ["connected".to_owned(), history]);
}

#[test]
fn a_session_that_is_not_lazy_fetches_what_is_new() {
    let mut bench = Bench::open(|_| {});
    assert_eq!(bench.push(advanced(4)), ["hall went on to 4", "{id:2,history:{conversation:hall,after:3,limit:200}}"]);
    assert_eq!(bench.page(2, 1, 5, 4..=5), ["hall 4", "hall 5"]);
    assert_eq!(bench.push(advanced(5)), ["hall went on to 5"]);
    assert_eq!(bench.push(advanced(6)), ["hall went on to 6", "{id:3,history:{conversation:hall,after:5,limit:200}}"]);
}
