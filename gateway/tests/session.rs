//! A session driven without any transport and without lanes: what it says, and what it asks of lanes.

use antiphon_gateway::core::{
    mesh::{Barred, LaneFrame, LaneId, MeshConnection},
    placement::Placement,
    privacy::Privacy,
    session::{Action, Authenticate, Environment, Identity, LaneCaughtUp, Session},
};
use antiphon_wire::{
    binary,
    codec::Encoding,
    codes::{CloseCode, ErrorCode},
    frame::{
        AccountItem, Connect, Content, Conversations, ConversationsAnswer, Entry, EntryBytes, EntryKind, ErrorFrame,
        JsonText, Member, MembersAnswer, Pong, PresenceAnswer, RECEIPTS_KEY, Request, ResumeOutcome, Role, ServerFrame,
        Summary, UserPresence, Welcome,
    },
    ids::{
        ClientMessageId, ConversationId, DeviceId, Epoch, LanePosition, Ordinal, RequestId, Sequence, TimestampMs,
        UserId,
    },
    limits,
    position::Position,
};

struct Names;

impl Authenticate for Names {
    fn authenticate(&self, token: &str, _: TimestampMs) -> Result<Identity, (ErrorCode, String)> {
        match token {
            "expired" => Err((ErrorCode::TokenExpired, "it has".into())),
            "forged" => Err((ErrorCode::Unauthenticated, "it is".into())),
            user => Ok(Identity {
                user: UserId::new(user).expect("a user id"),
                device: None,
                expires: TimestampMs(u64::MAX),
                issued: TimestampMs(if user == "alice" { 900_000 } else { 0 }),
            }),
        }
    }
}

fn environment(lanes: u8, positions: &[LanePosition], monotonic_ms: u64) -> Environment<'_> {
    Environment {
        now: TimestampMs(1_000_000),
        monotonic_ms,
        placement: Placement { shards: 16, lanes },
        store: 77,
        lanes_are_busy: false,
        positions,
        authenticate: &Names,
        requests_per_second_max: 10,
        requests_burst_max: 5,
        connection: MeshConnection { slot: 3, generation: 1 },
        session_number: 1,
    }
}

fn receive(session: &mut Session, json: &str, environment: &Environment<'_>) -> Vec<Action> {
    let mut actions = Vec::new();
    session.receive(json.as_bytes(), None, environment, &mut actions);
    actions
}

fn error_code(actions: &[Action]) -> Option<ErrorCode> {
    actions.iter().find_map(|action| match action {
        Action::Send { frame: ServerFrame::Error(error), .. } => Some(error.code),
        _ => None,
    })
}

fn nothing_missed() -> LaneCaughtUp {
    LaneCaughtUp {
        reset: false,
        entries: Vec::new(),
        states: Vec::new(),
        too_far: Vec::new(),
        pointers: Vec::new(),
        left: Vec::new(),
    }
}

fn connected(lanes: u8, positions: &[LanePosition]) -> Session {
    let environment = environment(lanes, positions, 0);
    let mut session = Session::new(Encoding::Json, &environment);
    receive(&mut session, r#"{"id":1,"connect":{"token":"alice","device":"phone"}}"#, &environment);
    let home = environment.placement.home_of(session.user().expect("the token is good"));
    session.entered(home, TimestampMs(0), None, &environment, &mut Vec::new());
    for lane in 0..lanes {
        session.caught_up(LaneId(lane), nothing_missed(), &environment, &mut Vec::new());
    }
    session
}

#[test]
fn before_connect_nothing_but_errors_is_said() {
    let environment = environment(1, &[LanePosition(0)], 0);
    for (json, code) in [
        (r#"{"id":1,"ping":{}}"#, ErrorCode::NotConnected),
        (r#"{"id":1,"dance":{}}"#, ErrorCode::UnknownFrame),
        (r#"{"id":1,"#, ErrorCode::Malformed),
        (r#"{"id":1,"connect":{"device":"phone"}}"#, ErrorCode::Unauthenticated),
        (r#"{"id":1,"connect":{"token":"forged","device":"phone"}}"#, ErrorCode::Unauthenticated),
        (r#"{"id":1,"connect":{"token":"expired","device":"phone"}}"#, ErrorCode::TokenExpired),
        (r#"{"id":1,"connect":{"token":"alice"}}"#, ErrorCode::Invalid),
    ] {
        let mut session = Session::new(Encoding::Json, &environment);
        let actions = receive(&mut session, json, &environment);
        assert_eq!(error_code(&actions), Some(code), "{json}");
        assert_eq!(session.user(), None, "{json}");
        assert!(!actions.iter().any(|action| matches!(action, Action::ToLane { .. })), "{json}");
        let ended = actions.iter().any(|action| matches!(action, Action::End { .. }));
        assert_eq!(ended, matches!(code, ErrorCode::Unauthenticated | ErrorCode::TokenExpired), "{json}");
    }
}

#[test]
fn an_expired_token_is_told_from_a_bad_one_by_the_close_code() {
    let environment = environment(1, &[LanePosition(0)], 0);
    let mut session = Session::new(Encoding::Json, &environment);
    let actions = receive(&mut session, r#"{"id":1,"connect":{"token":"expired","device":"d"}}"#, &environment);
    assert_eq!(actions.last(), Some(&Action::End { code: CloseCode::TokenExpired }));
}

fn home_of(user: &str, environment: &Environment<'_>) -> LaneId {
    environment.placement.home_of(&UserId::new(user).expect("a user id"))
}

fn welcome_of(action: &Action) -> Option<&Welcome> {
    match action {
        Action::Send { id: Some(RequestId(7)), frame: ServerFrame::Welcome(welcome) } => Some(welcome),
        _ => None,
    }
}

/// Two lanes, and a session that waits for the word of its home.
fn entering<'a>(environment: &Environment<'a>) -> Session {
    let mut session = Session::new(Encoding::Json, environment);
    receive(&mut session, r#"{"id":7,"connect":{"token":"alice","device":"phone"}}"#, environment);
    session
}

#[test]
fn what_comes_right_behind_connect_waits_until_the_session_is_let_in() {
    let positions = [LanePosition(5), LanePosition(9)];
    let environment = Environment { requests_burst_max: 100, ..environment(2, &positions, 0) };
    let mut session = entering(&environment);
    let ping = r#"{"id":8,"ping":{}}"#;
    let list = r#"{"id":9,"devices":{"list":{}}}"#;
    for json in [ping, list] {
        assert_eq!(receive(&mut session, json, &environment), [], "{json}");
    }
    let again = receive(&mut session, r#"{"id":10,"connect":{"token":"alice","device":"phone"}}"#, &environment);
    assert_eq!(error_code(&again), Some(ErrorCode::AlreadyConnected));
    let mut actions = Vec::new();
    session.entered(home_of("alice", &environment), TimestampMs(0), None, &environment, &mut actions);
    let kind = |action: &Action| match action {
        Action::Send { frame: ServerFrame::Welcome(_), .. } => "welcome",
        Action::Send { id: Some(RequestId(8)), frame: ServerFrame::Pong(_) } => "pong",
        Action::ToLane { frame: LaneFrame::Attach { .. }, .. } => "attach",
        Action::ToLane { frame: LaneFrame::Request { .. }, .. } => "request",
        other => panic!("{other:?}"),
    };
    assert_eq!(actions.iter().map(kind).collect::<Vec<_>>(), ["attach", "welcome", "pong", "request"]);
    assert!(!session.is_answered());
    // Nothing is done twice, and what comes now is done at once.
    actions.clear();
    session.entered(home_of("alice", &environment), TimestampMs(0), None, &environment, &mut actions);
    assert_eq!(actions, []);
    assert_eq!(receive(&mut session, ping, &environment).len(), 1);
}

#[test]
fn so_much_waits_for_the_answer_to_connect() {
    let environment = Environment { requests_burst_max: 1_000, ..environment(1, &[LanePosition(0)], 0) };
    let mut session = entering(&environment);
    for number in 0..64 {
        assert_eq!(receive(&mut session, r#"{"id":8,"ping":{}}"#, &environment), [], "{number}");
    }
    assert_eq!(error_code(&receive(&mut session, r#"{"id":8,"ping":{}}"#, &environment)), Some(ErrorCode::Overloaded));
    let mut session = entering(&environment);
    let long = format!(r#"{{"id":8,"ping":{{"pad":"{}"}}}}"#, "x".repeat(40_000));
    assert_eq!(receive(&mut session, &long, &environment), []);
    assert_eq!(error_code(&receive(&mut session, &long, &environment)), Some(ErrorCode::Overloaded));
}

#[test]
fn who_is_not_let_in_is_told_why_and_nothing_else() {
    let environment = environment(2, &[LanePosition(0), LanePosition(0)], 0);
    for (why, code, close) in [
        (Barred::Revoked, ErrorCode::Revoked, CloseCode::Revoked),
        (Barred::TooManyDevices { most: 10 }, ErrorCode::LimitReached, CloseCode::TooManyDevices),
    ] {
        let mut session = entering(&environment);
        receive(&mut session, r#"{"id":8,"ping":{}}"#, &environment);
        let mut actions = Vec::new();
        session.barred(why, &mut actions);
        let [Action::Send { id: Some(RequestId(7)), frame: ServerFrame::Error(error) }, Action::End { code: ended }] =
            actions.as_slice()
        else {
            panic!("{actions:?}")
        };
        assert_eq!((error.code, *ended), (code, close));
        // One that was in is ended, and was answered long ago.
        let mut actions = Vec::new();
        connected(2, &[LanePosition(0), LanePosition(0)]).barred(why, &mut actions);
        assert_eq!(actions, [Action::End { code: close }]);
    }
}

#[test]
fn a_token_of_before_the_device_was_logged_out_refreshes_nothing() {
    let environment = environment(1, &[LanePosition(0)], 0);
    let refresh = r#"{"id":9,"refresh":{"token":"alice"}}"#;
    for (refused_until, code) in [(899_999, None), (900_000, Some(ErrorCode::Revoked))] {
        let mut session = entering(&environment);
        session.entered(LaneId(0), TimestampMs(refused_until), None, &environment, &mut Vec::new());
        assert_eq!(error_code(&receive(&mut session, refresh, &environment)), code, "{refused_until}");
    }
}

#[test]
fn connect_welcomes_and_attaches_to_every_lane() {
    let positions = [LanePosition(5), LanePosition(9)];
    let environment = environment(2, &positions, 0);
    let mut session = Session::new(Encoding::Json, &environment);
    let home = home_of("alice", &environment);
    let actions = receive(&mut session, r#"{"id":7,"connect":{"token":"alice","device":"phone"}}"#, &environment);
    assert!(matches!(actions[0], Action::Begin), "{actions:?}");
    let attached = |action: &Action| match action {
        Action::ToLane { lane, frame: LaneFrame::Attach { since: None, issued: TimestampMs(900_000), .. } } => {
            Some(*lane)
        }
        _ => None,
    };
    assert_eq!(actions.iter().filter_map(attached).collect::<Vec<_>>(), [home]);
    let mut actions = Vec::new();
    session.entered(home, TimestampMs(0), None, &environment, &mut actions);
    let welcome = actions.iter().find_map(welcome_of).expect("it is let in");
    assert_eq!((welcome.user.as_str(), welcome.resume), ("alice", ResumeOutcome::Fresh));
    assert_eq!(actions.iter().filter_map(attached).collect::<Vec<_>>(), [LaneId(1 - home.0)]);
    actions.clear();
    session.caught_up(LaneId(1), nothing_missed(), &environment, &mut actions);
    assert_eq!(actions, [], "half of it is not all of it");
    assert!(session.is_live(LaneId(1)) && !session.is_live(LaneId(0)));
    session.caught_up(LaneId(0), nothing_missed(), &environment, &mut actions);
    let [Action::Send { id: None, frame: ServerFrame::CaughtUp(caught_up) }] = actions.as_slice() else {
        panic!("{actions:?}");
    };
    let position = Position::from_bytes(&caught_up.position.0).expect("a position");
    assert_eq!(position, Position { store: 77, lanes: positions.to_vec() });
}

#[test]
fn a_resume_goes_to_the_lanes_and_a_foreign_position_resets() {
    let positions = [LanePosition(5), LanePosition(9)];
    let environment = environment(2, &positions, 0);
    let text =
        |store, lanes: &[u64]| Position { store, lanes: lanes.iter().copied().map(LanePosition).collect() }.to_text();
    for (position, outcome, since) in [
        (text(77, &[3, 4]), ResumeOutcome::Resuming, Some([3, 4])),
        (text(78, &[3, 4]), ResumeOutcome::Reset, None),
        (text(77, &[3]), ResumeOutcome::Reset, None),
        ("AAAA".into(), ResumeOutcome::Reset, None),
    ] {
        let mut session = Session::new(Encoding::Json, &environment);
        let json = format!(r#"{{"id":7,"connect":{{"token":"a","device":"d","resume":{{"position":"{position}"}}}}}}"#);
        let mut actions = receive(&mut session, &json, &environment);
        session.entered(home_of("a", &environment), TimestampMs(0), None, &environment, &mut actions);
        assert_eq!(actions.iter().find_map(welcome_of).map(|welcome| welcome.resume), Some(outcome), "{position}");
        let since_of = |action: &Action| match action {
            Action::ToLane { lane, frame: LaneFrame::Attach { since, .. } } => {
                Some((lane.0, since.map(|since| since.0)))
            }
            _ => None,
        };
        let mut asked: Vec<_> = actions.iter().filter_map(since_of).collect();
        asked.sort_unstable();
        assert_eq!(asked, [0, 1].map(|lane| (lane, since.map(|since| since[usize::from(lane)]))), "{position}");
    }
}

#[test]
fn a_ping_has_a_position_once_all_lanes_are_live() {
    let positions = [LanePosition(5)];
    let environment = environment(1, &positions, 0);
    let mut session = connected(1, &positions);
    let actions = receive(&mut session, r#"{"id":2,"ping":{}}"#, &environment);
    let [Action::Send { frame: ServerFrame::Pong(Pong { position: Some(_), .. }), .. }] = actions.as_slice() else {
        panic!("{actions:?}");
    };
    assert_eq!(receive(&mut session, r#"{"ping":{}}"#, &environment), [], "without an id there is no answer");
    // Half of it is not all of it: a position now would cover what the other lane has not given yet.
    let positions = [LanePosition(5), LanePosition(9)];
    let environment = self::environment(2, &positions, 0);
    let mut session = Session::new(Encoding::Json, &environment);
    receive(&mut session, r#"{"id":1,"connect":{"token":"alice","device":"phone"}}"#, &environment);
    session.entered(home_of("alice", &environment), TimestampMs(0), None, &environment, &mut Vec::new());
    session.caught_up(LaneId(1), nothing_missed(), &environment, &mut Vec::new());
    let actions = receive(&mut session, r#"{"id":2,"ping":{}}"#, &environment);
    let [Action::Send { frame: ServerFrame::Pong(Pong { position: None, .. }), .. }] = actions.as_slice() else {
        panic!("{actions:?}");
    };
}

#[test]
fn the_token_bucket_refuses_and_refills() {
    let positions = [LanePosition(0)];
    let mut session = connected(1, &positions);
    let now = environment(1, &positions, 0);
    // The burst is five, and connect took one of them.
    for _ in 0..4 {
        assert_eq!(error_code(&receive(&mut session, r#"{"id":2,"ping":{}}"#, &now)), None);
    }
    let actions = receive(&mut session, r#"{"id":3,"ping":{}}"#, &now);
    let [Action::Send { id: Some(RequestId(3)), frame: ServerFrame::Error(error) }] = actions.as_slice() else {
        panic!("{actions:?}");
    };
    assert_eq!((error.code, error.retry_after_ms), (ErrorCode::RateLimited, Some(100)));
    let later = environment(1, &positions, 100);
    assert_eq!(error_code(&receive(&mut session, r#"{"id":4,"ping":{}}"#, &later)), None);
    assert_eq!(error_code(&receive(&mut session, r#"{"id":5,"ping":{}}"#, &later)), Some(ErrorCode::RateLimited));
}

#[test]
fn a_request_goes_to_its_conversations_lane_in_its_binary_form() {
    let positions = [LanePosition(0); 4];
    let environment = environment(4, &positions, 0);
    let mut session = connected(4, &positions);
    let (alice, bob) = (UserId::new("alice").expect("an id"), UserId::new("bob").expect("an id"));
    let lane_expected = environment.placement.lane_of(ConversationId::direct(&alice, &bob));
    let actions = receive(&mut session, r#"{"id":2,"create":{"direct":"bob"}}"#, &environment);
    let [Action::ToLane { lane, frame: LaneFrame::Request { gather: 0, frame, user, .. } }] = actions.as_slice() else {
        panic!("{actions:?}");
    };
    assert_eq!((*lane, user), (lane_expected, &alice));
    assert!(matches!(binary::decode_request(frame), Ok((Some(RequestId(2)), Request::Create(_)))));
    let actions = receive(&mut session, r#"{"id":3,"create":{"direct":"alice"}}"#, &environment);
    assert_eq!(error_code(&actions), Some(ErrorCode::Invalid), "nobody talks to themselves");
}

#[test]
fn a_request_without_an_id_hears_of_its_failure_only() {
    let positions = [LanePosition(0)];
    let environment = environment(1, &positions, 0);
    let mut session = connected(1, &positions);
    let mut actions = Vec::new();
    let pong = ServerFrame::Pong(Pong { time_ms: TimestampMs(1), position: None });
    session.reply(0, binary::encode_server(None, &pong), &environment, &mut actions);
    assert_eq!(actions, []);
    session.reply(0, binary::encode_server(Some(RequestId(1)), &pong), &environment, &mut actions);
    assert_eq!(actions.len(), 1);
    let error = ErrorFrame { code: ErrorCode::NotFound, text: "no".into(), retry_after_ms: None };
    session.reply(0, binary::encode_server(None, &ServerFrame::Error(error)), &environment, &mut actions);
    assert_eq!(actions.len(), 2, "the failure of a request without an id is told");
}

#[test]
fn a_list_is_gathered_from_all_lanes_in_order() {
    let positions = [LanePosition(0); 2];
    let environment = environment(2, &positions, 0);
    let mut session = connected(2, &positions);
    let actions = receive(&mut session, r#"{"id":9,"conversations":{"limit":3}}"#, &environment);
    let gather_of = |action: &Action| match action {
        Action::ToLane { frame: LaneFrame::Request { gather, frame, .. }, .. } => {
            let (_, request) = binary::decode_request(frame).expect("a request");
            assert_eq!(request, Request::Conversations(Conversations { after: None, limit: Some(3) }));
            *gather
        }
        other => panic!("{other:?}"),
    };
    let gathers: Vec<_> = actions.iter().map(gather_of).collect();
    assert_eq!(gathers.len(), 2);
    let part = |ids: &[u8]| {
        let conversations = ids.iter().map(|id| summary(*id)).collect();
        let answer = ConversationsAnswer { conversations, next: None };
        binary::encode_server(Some(RequestId(1)), &ServerFrame::ConversationsAnswer(answer))
    };
    let mut actions = Vec::new();
    session.reply(gathers[0], part(&[1, 4, 6]), &environment, &mut actions);
    assert_eq!(actions, []);
    session.reply(gathers[1], part(&[2, 3]), &environment, &mut actions);
    let [Action::Send { id: Some(RequestId(9)), frame: ServerFrame::ConversationsAnswer(page) }] = actions.as_slice()
    else {
        panic!("{actions:?}");
    };
    let ids: Vec<_> = page.conversations.iter().map(|summary| summary.conversation.0[0]).collect();
    assert_eq!((ids, page.next), (vec![1, 2, 3], Some(ConversationId([3; 16]))));
}

/// A list over lanes that each end their parts by bytes: page by page, and nothing is left out.
#[test]
fn a_gathered_list_ends_by_bytes_and_leaves_nothing_out() {
    let all: Vec<u8> = (1..=60).collect();
    // By lane: every third conversation, or all but the last few in one.
    for lane_of in [(|id| id % 3) as fn(u8) -> u8, |id| u8::from(id > 52), |_| 2] {
        for bytes in [1, 10_000, limits::TEXT_BYTES_MAX] {
            let (listed, pages) = pages_of(&all, lane_of, bytes);
            assert_eq!(listed, all, "{bytes} bytes each");
            let least = (all.len() * entry(1, bytes).len()).div_ceil(limits::PAGE_BYTES_MAX);
            assert!(pages >= least && pages <= 3 * least + 1, "{pages} pages of {bytes} bytes each");
        }
    }
}

fn pages_of(all: &[u8], lane_of: fn(u8) -> u8, bytes: usize) -> (Vec<u8>, usize) {
    let positions = [LanePosition(0); 3];
    let environment = Environment { requests_burst_max: 1_000, ..environment(3, &positions, 0) };
    let mut session = Session::new(Encoding::Rkyv, &environment);
    let receive = |session: &mut Session, request: Request| {
        let mut actions = Vec::new();
        session.receive(&binary::encode_request(Some(RequestId(9)), &request), None, &environment, &mut actions);
        actions
    };
    let connect = Connect {
        token: Some("alice".into()),
        device: Some(DeviceId::new("phone").expect("an id")),
        client: None,
        resume: None,
    };
    receive(&mut session, Request::Connect(connect));
    session.entered(home_of("alice", &environment), TimestampMs(0), None, &environment, &mut Vec::new());
    let (mut listed, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let mut page = Vec::new();
        for action in receive(&mut session, Request::Conversations(Conversations { after, limit: Some(200) })) {
            let Action::ToLane { lane, frame: LaneFrame::Request { gather, .. } } = action else {
                panic!("{action:?}")
            };
            let rest = all.iter().copied().filter(|id| lane_of(*id) == lane.0);
            let rest: Vec<u8> = rest.filter(|id| after.is_none_or(|after| ConversationId([*id; 16]) > after)).collect();
            let fits = limits::PAGE_BYTES_MAX / entry(1, bytes).len();
            let part =
                rest.iter().take(fits).map(|id| Summary { last: Some(EntryBytes(entry(*id, bytes))), ..summary(*id) });
            let conversations: Vec<_> = part.collect();
            let next = conversations.last().filter(|_| rest.len() > fits).map(|last| last.conversation);
            let answer = ServerFrame::ConversationsAnswer(ConversationsAnswer { conversations, next });
            session.reply(gather, binary::encode_server(Some(RequestId(1)), &answer), &environment, &mut page);
        }
        let Some(Action::Send { frame: ServerFrame::ConversationsAnswer(answer), .. }) = page.pop() else { panic!() };
        let sum: usize = answer.conversations.iter().filter_map(|summary| Some(summary.last.as_ref()?.0.len())).sum();
        assert!(sum <= limits::PAGE_BYTES_MAX || answer.conversations.len() == 1, "{sum} bytes");
        let json = Encoding::Json.encode_server(None, &ServerFrame::ConversationsAnswer(answer.clone()));
        assert!(json.len() <= limits::SERVER_FRAME_BYTES_MAX, "{} bytes of JSON", json.len());
        listed.extend(answer.conversations.iter().map(|summary| summary.conversation.0[0]));
        (after, pages) = (answer.next, pages + 1);
        if after.is_none() {
            return (listed, pages);
        }
    }
}

/// The archive of a message with so many bytes of text.
fn entry(id: u8, bytes: usize) -> Vec<u8> {
    let entry = Entry {
        conversation: ConversationId([id; 16]),
        epoch: Epoch(1),
        sequence: Sequence(1),
        ordinal: Ordinal(1),
        time_ms: TimestampMs(1),
        kind: EntryKind::Message,
        client_message_id: ClientMessageId([id; 16]),
        sender: UserId::new("alice").expect("an id"),
        // Every byte is written as six in JSON.
        body: Content::text(&"\u{1}".repeat(bytes)).0,
    };
    entry.to_archive().to_vec()
}

#[test]
fn a_closed_session_detaches_from_every_lane_once() {
    let positions = [LanePosition(0); 2];
    let environment = environment(2, &positions, 0);
    let mut session = connected(2, &positions);
    let mut actions = Vec::new();
    session.detach(&environment, &mut actions);
    session.detach(&environment, &mut actions);
    assert_eq!(actions.len(), 2);
    assert!(actions.iter().all(|action| matches!(action, Action::ToLane { frame: LaneFrame::Detach { .. }, .. })));
}

fn summary(id: u8) -> Summary {
    Summary {
        role: Role::Member,
        picture: String::new(),
        conversation: ConversationId([id; 16]),
        epoch: Epoch(1),
        direct: None,
        title: String::new(),
        last_sequence: Sequence(1),
        last_time_ms: TimestampMs(1),
        members: 2,
        read: Sequence(0),
        unread: 0,
        last: None,
    }
}

/// Users of two lanes, one of each.
fn two_homes(environment: &Environment<'_>) -> [(UserId, LaneId); 2] {
    let home = |name: String| {
        let user = UserId::new(&name).unwrap();
        (user.clone(), environment.placement.home_of(&user))
    };
    let mut users = (0..).map(|number| home(format!("u{number}")));
    let first = users.next().unwrap();
    let second = users.find(|(_, lane)| *lane != first.1).unwrap();
    [first, second]
}

#[test]
fn what_is_pushed_while_presence_is_gathered_is_not_answered_older() {
    let positions = [LanePosition(0); 2];
    let environment = environment(2, &positions, 0);
    let mut session = connected(2, &positions);
    let [(ann, ann_lane), (bob, bob_lane)] = two_homes(&environment);
    let online = |user: &UserId, online| UserPresence { user: user.clone(), online, last_seen_ms: None };
    let actions =
        receive(&mut session, &format!(r#"{{"id":2,"presence":{{"watch":["{ann}","{bob}"]}}}}"#), &environment);
    let asked = |action: &Action| match action {
        Action::ToLane { lane, frame: LaneFrame::Watch { gather, watch, .. } } => (*lane, *gather, watch.clone()),
        other => panic!("{other:?}"),
    };
    let mut asked: Vec<_> = actions.iter().map(asked).collect();
    asked.sort_by_key(|(lane, ..)| *lane == bob_lane);
    let gather = asked[0].1;
    assert_eq!(asked, [(ann_lane, gather, vec![ann.clone()]), (bob_lane, gather, vec![bob.clone()])]);

    let mut actions = Vec::new();
    session.watched(ann_lane, gather, vec![online(&ann, false)], 1, &mut actions);
    assert_eq!(actions, []);
    session.presents([online(&ann, true)].iter());
    // What a lane has said before its part is not newer than that.
    session.presents([online(&bob, false)].iter());
    session.watched(bob_lane, gather, vec![online(&bob, true)], 1, &mut actions);
    let users = vec![online(&ann, true), online(&bob, true)];
    let frame = ServerFrame::PresenceAnswer(PresenceAnswer { users, watching: 2 });
    assert_eq!(actions, [Action::Send { id: Some(RequestId(2)), frame }]);
    assert!(session.is_answered());
}

#[test]
fn what_is_answered_meanwhile_is_not_answered_older_by_what_was_asked_before() {
    let positions = [LanePosition(0); 2];
    let environment = environment(2, &positions, 0);
    let mut session = connected(2, &positions);
    let [(ann, ann_lane), (bob, bob_lane)] = two_homes(&environment);
    let online = |user: &UserId, online| UserPresence { user: user.clone(), online, last_seen_ms: None };
    let answer = |id, users, watching| Action::Send {
        id: Some(RequestId(id)),
        frame: ServerFrame::PresenceAnswer(PresenceAnswer { users, watching }),
    };
    receive(&mut session, &format!(r#"{{"id":2,"presence":{{"watch":["{ann}","{bob}"]}}}}"#), &environment);
    receive(&mut session, &format!(r#"{{"id":3,"presence":{{"watch":["{ann}"]}}}}"#), &environment);
    let mut actions = Vec::new();
    session.watched(ann_lane, 1, vec![online(&ann, false)], 1, &mut actions);
    session.watched(ann_lane, 2, vec![online(&ann, true)], 1, &mut actions);
    assert_eq!(actions, [answer(3, vec![online(&ann, true)], 3)]);
    actions.clear();
    session.watched(bob_lane, 1, vec![online(&bob, true)], 1, &mut actions);
    assert_eq!(actions, [answer(2, vec![online(&ann, true), online(&bob, true)], 2)]);
}

#[test]
fn a_list_of_members_shows_what_their_home_lanes_say() {
    let positions = [LanePosition(0); 2];
    let environment = environment(2, &positions, 0);
    let user = |name: &str| UserId::new(name).expect("a user id");
    let names: Vec<String> = (0..8).map(|number| format!("m{number}")).chain(["alice".to_owned()]).collect();
    let homes: Vec<LaneId> = names.iter().map(|name| home_of(name, &environment)).collect();
    assert!(homes[..8].contains(&LaneId(0)) && homes[..8].contains(&LaneId(1)), "both are asked");
    let member =
        |name: &String| Member { user: user(name), role: Role::Member, read: Sequence(3), delivered: Sequence(5) };
    let members = || MembersAnswer { sequence: None, members: Some(names.iter().map(member).collect()), next: None };
    let list = r#"{"id":9,"members":{"conversation":"62b9f96c-c27c-897b-9241-8e0c10f381d5","list":{}}}"#;
    let mut session = connected(2, &positions);
    let begin = |session: &mut Session| {
        let actions = receive(session, list, &environment);
        let [Action::ToLane { frame: LaneFrame::Request { gather, .. }, .. }] = actions[..] else {
            panic!("{actions:?}")
        };
        let mut actions = Vec::new();
        let listed = binary::encode_server(Some(RequestId(1)), &ServerFrame::MembersAnswer(members()));
        session.reply(gather, listed, &environment, &mut actions);
        (gather, actions)
    };
    let shown = |actions: &[Action]| match actions {
        [Action::Send { id: Some(RequestId(9)), frame: ServerFrame::MembersAnswer(answer) }] => {
            let members = answer.members.iter().flatten().filter(|member| member.read > Sequence(0));
            members.map(|member| member.user.as_str().to_owned()).collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    };
    let (gather, asked) = begin(&mut session);
    for action in &asked {
        let Action::ToLane { lane, frame: LaneFrame::AskReceipts { user: asks, of, .. } } = action else { panic!() };
        assert_eq!(asks, &user("alice"));
        assert!(of.iter().all(|of| home_of(of.as_str(), &environment) == *lane && of.as_str() != "alice"), "{of:?}");
    }
    assert_eq!(asked.len(), 2);
    let mut actions = Vec::new();
    session.receipts(gather, Some(&[user("m3")]), &mut actions);
    assert_eq!((actions.len(), session.is_answered()), (0, false), "one has not answered");
    session.receipts(gather, Some(&[user("m5"), user("m6")]), &mut actions);
    assert_eq!(shown(&actions), ["m0", "m1", "m2", "m4", "m7", "alice"]);
    assert!(session.is_answered());
    // What could not be looked up is not shown as if it were.
    let (gather, _) = begin(&mut session);
    actions.clear();
    session.receipts(gather, None, &mut actions);
    session.receipts(gather, Some(&[]), &mut actions);
    assert_eq!(error_code(&actions), Some(ErrorCode::Overloaded));
}

#[test]
fn lanes_are_told_what_a_user_shows_before_anything_that_is_asked() {
    let positions = [LanePosition(0); 2];
    let environment = environment(2, &positions, 0);
    let item = AccountItem {
        key: RECEIPTS_KEY.to_owned(),
        value: JsonText(r#"{"on":false}"#.to_owned()),
        sequence: Sequence(1),
        time_ms: TimestampMs(1),
    };
    let hides = Privacy::of(&[item]);
    assert!(hides.is_some());
    let mut session = entering(&environment);
    let mut actions = Vec::new();
    session.entered(home_of("alice", &environment), TimestampMs(0), hides.as_ref(), &environment, &mut actions);
    let [Action::ToLane { frame: LaneFrame::Attach { privacy, .. }, .. }, _] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert_eq!(privacy, &hides);
    for changed in [None, hides] {
        actions.clear();
        session.private(changed.as_ref(), &environment, &mut actions);
        let told = actions.iter().map(|action| match action {
            Action::ToLane { lane, frame: LaneFrame::Privacy { privacy, .. } } if *privacy == changed => lane.0,
            other => panic!("{other:?}"),
        });
        assert_eq!(told.collect::<Vec<_>>(), [0, 1]);
    }
}
