//! The client against a server that does what each test says.

mod server;

use std::{sync::mpsc, time::Duration};

use antiphon_client::{
    Body, Client, Error, Event, Events, Message, Options, Stopped, TokenError,
    wire::{
        codec::Encoding,
        codes::ErrorCode,
        frame::{
            CaughtUp, Device, Devices, DevicesAction, DevicesAnswer, ErrorFrame, Expiring, Goodbye, HistoryAnswer,
            Known, ListDevices, Marked, PinsAnswer, PositionBytes, PresenceAnswer, Present, React, Refreshed, Request,
            ResumeOutcome, RevokeAll, ServerFrame, UserPresence, WatchPresence,
        },
        ids::{DeviceId, Epoch, RequestId, Sequence, TimestampMs},
    },
};
use server::{CHOIR, Peer, Server, ack, entry, user};
use tokio::{io::AsyncWriteExt as _, time::timeout};

const WAIT: Duration = Duration::from_secs(20);

fn options(server: &Server) -> Options {
    // Nobody waits for back-off here but where the test says so.
    Options::new(&server.url, "phone".parse().unwrap(), "T").session(|session| {
        session.backoff_base_ms = 1;
        session.reorder_wait_ms = 50;
    })
}

async fn next(events: &mut Events) -> Event {
    timeout(WAIT, events.next()).await.expect("an event comes in time").expect("the client is there")
}

/// Events up to one; the one is given.
async fn until(events: &mut Events, mut is_it: impl FnMut(&Event) -> bool) -> Event {
    loop {
        let event = next(events).await;
        if is_it(&event) {
            return event;
        }
    }
}

async fn numbers(events: &mut Events, count: usize) -> Vec<u64> {
    let mut numbers = Vec::new();
    while numbers.len() < count {
        if let Event::Entry(entry) = next(events).await {
            assert_eq!(entry.body, Body::Message(Some(Message::text(format!("number {}", entry.sequence)))));
            numbers.push(entry.sequence.0);
        }
    }
    numbers
}

fn refusal(code: ErrorCode, retry_after_ms: Option<u32>) -> ServerFrame {
    ServerFrame::Error(ErrorFrame { code, text: code.text().to_owned(), retry_after_ms })
}

fn in_background<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> tokio::task::JoinHandle<T> {
    tokio::spawn(future)
}

#[tokio::test]
async fn a_send_goes_again_under_its_name_until_it_is_durable() {
    for encoding in Encoding::ALL {
        let server = Server::new().await;
        let (client, mut events) = Client::start(options(&server).encoding(encoding)).unwrap();
        let sent = in_background({
            let client = client.clone();
            async move { client.send(CHOIR, "hello").await }
        });
        let (mut peer, connect) = server.open(ResumeOutcome::Fresh, 1).await;
        assert_eq!((connect.token.as_deref(), connect.resume), (Some("T"), None));
        let (_, Request::Send(first)) = peer.request().await else { panic!("a send") };
        assert!(first.client_message_id.made().is_some(), "its name says when it was made");
        drop(peer);
        let (mut peer, connect) = server.open(ResumeOutcome::Resuming, 2).await;
        assert_eq!(connect.resume.unwrap().position, PositionBytes(vec![1]));
        let (id, Request::Send(again)) = peer.request().await else { panic!("a send") };
        assert_eq!(again, first);
        peer.answer(id, ServerFrame::Ack(ack(5))).await;
        assert_eq!(sent.await.unwrap(), Ok(ack(5)));
        let name = first.client_message_id;
        until(&mut events, |event| *event == Event::Durable { client_message_id: name, ack: ack(5) }).await;
        assert_eq!(client.user(), Some(&user("alice")));
    }
}

#[tokio::test]
async fn entries_come_once_and_in_order_and_holes_are_filled() {
    let server = Server::new().await;
    let (client, mut events) = Client::start(options(&server)).unwrap();
    let (mut peer, _) = server.open(ResumeOutcome::Fresh, 1).await;
    until(&mut events, |event| *event == Event::CaughtUp).await;
    client.follow(CHOIR, Epoch(1), Sequence(3)).await.unwrap();
    // That it follows is known once it has asked something after it.
    let read = in_background({
        let client = client.clone();
        async move { client.read(CHOIR, Sequence(3)).await }
    });
    let (id, Request::Read(_)) = peer.request().await else { panic!("a read") };
    let marked = Marked { read: Sequence(3), delivered: Sequence(3), unread: 0 };
    peer.answer(id, ServerFrame::ReadAnswer(marked.clone())).await;
    assert_eq!(read.await.unwrap(), Ok(marked));
    for sequence in [5, 4, 4, 3, 8] {
        peer.entry(sequence).await;
    }
    assert_eq!(numbers(&mut events, 2).await, [4, 5]);
    let (id, Request::History(history)) = peer.request().await else { panic!("history") };
    assert_eq!(history.after, Some(Sequence(5)));
    let entries = vec![entry(6), entry(7)];
    let page = HistoryAnswer { conversation: CHOIR, epoch: Epoch(1), first: Sequence(1), last: Sequence(8), entries };
    peer.answer(id, ServerFrame::HistoryAnswer(page)).await;
    assert_eq!(numbers(&mut events, 3).await, [6, 7, 8]);
}

#[tokio::test]
async fn a_program_goes_on_from_the_progress_that_it_kept() {
    let server = Server::new().await;
    let (client, mut events) = Client::start(options(&server)).unwrap();
    let (mut peer, _) = server.welcome(ResumeOutcome::Fresh).await;
    peer.entry(4).await;
    peer.push(ServerFrame::CaughtUp(CaughtUp { position: PositionBytes(vec![1]) })).await;
    peer.entry(5).await;
    assert_eq!(numbers(&mut events, 1).await, [4]);
    let Event::Progress(mut progress) = until(&mut events, |event| matches!(event, Event::Progress(_))).await else {
        panic!("progress");
    };
    let known = |sequence| Known { conversation: CHOIR, epoch: Epoch(1), sequence: Sequence(sequence) };
    assert_eq!(
        (progress.position.clone(), progress.conversations.clone()),
        (Some(PositionBytes(vec![1])), vec![known(4)])
    );
    let Event::Entry(entry) = until(&mut events, |event| matches!(event, Event::Entry(_))).await else { panic!("5") };
    progress.note(&entry);
    drop(client);
    assert!(matches!(next(&mut events).await, Event::Stopped(Stopped::Asked)));
    assert_eq!(events.next().await, None, "nothing follows the end");
    drop(peer);

    let (_client, mut events) = Client::start(options(&server).go_on_from(progress)).unwrap();
    let (mut peer, connect) = server.welcome(ResumeOutcome::Resuming).await;
    let resume = connect.resume.unwrap();
    assert_eq!((resume.position, resume.known), (PositionBytes(vec![1]), vec![known(5)]));
    peer.entry(5).await;
    peer.entry(6).await;
    assert_eq!(numbers(&mut events, 1).await, [6], "what it has is not told again");
}

#[tokio::test]
async fn changes_go_one_by_one_and_again_under_their_names() {
    let server = Server::new().await;
    let (client, mut events) = Client::start(options(&server)).unwrap();
    let react = |reaction: &'static str| {
        let client = client.clone();
        async move { client.react(CHOIR, Sequence(3), reaction, true).await }
    };
    let (mut peer, _) = server.open(ResumeOutcome::Fresh, 1).await;
    until(&mut events, |event| *event == Event::CaughtUp).await;
    let heart = in_background(react("heart"));
    let (id, Request::React(first)) = peer.request().await else { panic!("a reaction") };
    let thumb = in_background(react("thumb"));
    // Refused for now: it is asked again, and what was asked after it waits.
    peer.answer(id, refusal(ErrorCode::Overloaded, Some(20))).await;
    let (_, Request::React(again)) = peer.request().await else { panic!("a reaction") };
    assert_eq!(again, first);
    drop(peer);
    let (mut peer, _) = server.open(ResumeOutcome::Resuming, 2).await;
    let (id, Request::React(again)) = peer.request().await else { panic!("a reaction") };
    assert_eq!(again, first);
    peer.answer(id, ServerFrame::ReactAnswer(ack(8))).await;
    assert_eq!(heart.await.unwrap(), Ok(ack(8)));
    let (id, Request::React(React { reaction, .. })) = peer.request().await else { panic!("a reaction") };
    assert_eq!(reaction, "thumb");
    peer.answer(id, refusal(ErrorCode::Deleted, None)).await;
    assert_eq!(thumb.await.unwrap().unwrap_err().code(), Some(ErrorCode::Deleted));
    let name = first.client_message_id;
    until(&mut events, |event| *event == Event::Durable { client_message_id: name, ack: ack(8) }).await;
    until(&mut events, |event| matches!(event, Event::Refused { error, .. } if error.code == ErrorCode::Deleted)).await;
}

#[tokio::test]
async fn a_refused_token_is_worth_one_other() {
    let server = Server::new().await;
    let (asked, tokens) = mpsc::channel();
    let give = move |renew| {
        asked.send(renew).unwrap();
        async move { Ok(if renew { "new" } else { "old" }.to_owned()) }
    };
    let options = Options::with_tokens(&server.url, "phone".parse().unwrap(), give);
    let (client, mut events) = Client::start(options.session(|session| session.backoff_base_ms = 1)).unwrap();
    let refuse = async |mut peer: Peer, token: &str| {
        let (id, Request::Connect(connect)) = peer.request().await else { panic!("connect") };
        assert_eq!(connect.token.as_deref(), Some(token));
        peer.answer(id, refusal(ErrorCode::TokenExpired, None)).await;
    };
    refuse(server.accept().await, "old").await;
    refuse(server.accept().await, "new").await;
    let stopped = until(&mut events, |event| matches!(event, Event::Stopped(_))).await;
    assert!(matches!(stopped, Event::Stopped(Stopped::Unauthenticated(_))));
    assert_eq!(tokens.try_iter().collect::<Vec<_>>(), [false, true]);
    client.resume().await.unwrap();
    let (mut peer, connect) = server.open(ResumeOutcome::Fresh, 1).await;
    assert_eq!(connect.token.as_deref(), Some("old"));
    peer.push(ServerFrame::Expiring(Expiring { expires_ms: TimestampMs(1_700_000_060_000) })).await;
    let (id, Request::Refresh(refresh)) = peer.request().await else { panic!("refresh") };
    assert_eq!(refresh.token, "new");
    peer.answer(id, ServerFrame::RefreshAnswer(Refreshed { expires_ms: None })).await;
    assert_eq!(tokens.try_iter().collect::<Vec<_>>(), [false, true]);
}

#[tokio::test]
async fn without_a_token_it_stops_or_tries_again() {
    let server = Server::new().await;
    let mut attempts = 0;
    let give = move |_| {
        attempts += 1;
        let is_permanent = attempts >= 3;
        async move { Err(TokenError { text: format!("no token, attempt {attempts}"), is_permanent }) }
    };
    let options = Options::with_tokens(&server.url, "phone".parse().unwrap(), give);
    let (client, mut events) = Client::start(options.session(|session| session.backoff_base_ms = 1)).unwrap();
    for attempt in 1..=2 {
        until(&mut events, |event| *event == Event::Trouble(format!("no token, attempt {attempt}"))).await;
        assert!(matches!(next(&mut events).await, Event::Disconnected { .. }));
    }
    let asked = in_background(async move { client.pins(CHOIR).await });
    // A token that is not to be had is asked for once more, as one that was refused.
    let stopped = until(&mut events, |event| matches!(event, Event::Stopped(_))).await;
    assert!(matches!(stopped, Event::Stopped(Stopped::Unauthenticated(text)) if text.starts_with("no token")));
    assert!(matches!(asked.await.unwrap(), Err(Error::Stopped)));
}

#[tokio::test]
async fn who_is_asked_about_is_told_of() {
    let server = Server::new().await;
    let (client, mut events) = Client::start(options(&server)).unwrap();
    let (mut peer, _) = server.open(ResumeOutcome::Fresh, 1).await;
    let seen = |online| UserPresence { user: user("bob"), online, last_seen_ms: None };
    let asking = client.clone();
    let asked = in_background(async move { asking.presence(vec![user("bob")], Vec::new()).await });
    let (id, request) = peer.request().await;
    let watch = vec![user("bob")];
    assert_eq!(request, Request::Presence(WatchPresence { watch, unwatch: Vec::new() }));
    let answer = PresenceAnswer { users: vec![seen(false)], watching: 1 };
    peer.answer(id, ServerFrame::PresenceAnswer(answer.clone())).await;
    peer.push(ServerFrame::Present(Present { users: vec![seen(true)] })).await;
    until(&mut events, |event| *event == Event::Present(vec![seen(false)])).await;
    until(&mut events, |event| *event == Event::Present(vec![seen(true)])).await;
    assert_eq!(asked.await.unwrap().unwrap(), answer);
}

#[tokio::test]
async fn devices_are_listed_named_and_logged_out() {
    let server = Server::new().await;
    let (client, mut events) = Client::start(options(&server)).unwrap();
    let (mut peer, _) = server.open(ResumeOutcome::Fresh, 1).await;
    let id = |name: &str| name.parse::<DeviceId>().unwrap();
    let phone = Device { device: id("phone"), name: None, since_ms: None, online: true, this: true };
    let asking = client.clone();
    let asked = in_background(async move {
        let listed = asking.devices().await;
        let changed = [
            asking.name_device("Alice's phone").await,
            asking.revoke_devices(vec![id("laptop"), id("tablet")]).await,
            asking.revoke_all_devices(true).await,
            asking.revoke_all_devices(false).await,
        ];
        (listed, changed)
    });
    let listed = DevicesAnswer { sequence: None, devices: Some(vec![phone.clone()]) };
    let changed = |sequence| DevicesAnswer { sequence: Some(Sequence(sequence)), devices: None };
    for (action, answer) in [
        (DevicesAction::List(ListDevices {}), listed),
        (DevicesAction::Name("Alice's phone".into()), changed(2)),
        (DevicesAction::Revoke(vec![id("laptop"), id("tablet")]), changed(3)),
        (DevicesAction::RevokeAll(RevokeAll { but_this: true }), changed(4)),
        (DevicesAction::RevokeAll(RevokeAll { but_this: false }), changed(5)),
    ] {
        let (id, request) = peer.request().await;
        assert_eq!(request, Request::Devices(Devices { action }));
        peer.answer(id, ServerFrame::DevicesAnswer(answer)).await;
    }
    // The last one logs it out itself.
    let goodbye = Goodbye { code: 4504, reason: "revoked".into(), reconnect_after_ms: None };
    peer.push(ServerFrame::Goodbye(goodbye)).await;
    assert_eq!(asked.await.unwrap(), (Ok(vec![phone]), [2, 3, 4, 5].map(|sequence| Ok(Sequence(sequence)))));
    until(&mut events, |event| *event == Event::Stopped(Stopped::LoggedOut)).await;
    client.resume().await.unwrap();
    for (code, expect) in [(ErrorCode::Revoked, Stopped::LoggedOut), (ErrorCode::LimitReached, Stopped::TooManyDevices)]
    {
        let mut peer = server.accept().await;
        let (id, Request::Connect(_)) = peer.request().await else { panic!("connect") };
        peer.answer(id, refusal(code, None)).await;
        until(&mut events, |event| *event == Event::Stopped(expect.clone())).await;
        client.resume().await.unwrap();
    }
}

#[tokio::test]
async fn it_comes_back_when_the_server_says_and_stays_away_when_it_says_so() {
    let server = Server::new().await;
    let (client, mut events) = Client::start(options(&server)).unwrap();
    let mut raw = server.accept_raw().await;
    raw.write_all(b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    let trouble = next(&mut events).await;
    assert!(matches!(&trouble, Event::Trouble(text) if text.contains("503")), "{trouble:?}");
    let Event::Disconnected { retry_in_ms } = next(&mut events).await else { panic!("not disconnected") };
    assert!((900..=1_000).contains(&retry_in_ms), "{retry_in_ms}");
    let (mut peer, _) = server.open(ResumeOutcome::Fresh, 1).await;
    let goodbye = Goodbye { code: 4000, reason: "restarting".into(), reconnect_after_ms: Some(700) };
    peer.push(ServerFrame::Goodbye(goodbye)).await;
    let gone = until(&mut events, |event| matches!(event, Event::Disconnected { .. })).await;
    assert!(matches!(gone, Event::Disconnected { retry_in_ms: 600..=700 }), "{gone:?}");
    for code in [4001, 4444, 1011] {
        let (peer, _) = server.open(ResumeOutcome::Resuming, 1).await;
        peer.close(code).await;
        until(&mut events, |event| matches!(event, Event::Disconnected { .. })).await;
    }
    for (code, expect) in [
        (4502, Stopped::Replaced),
        (4504, Stopped::LoggedOut),
        (4505, Stopped::TooManyDevices),
        (4999, Stopped::Closed(4999)),
    ] {
        let (peer, _) = server.open(ResumeOutcome::Resuming, 1).await;
        peer.close(code).await;
        let stopped = until(&mut events, |event| matches!(event, Event::Stopped(_))).await;
        assert_eq!(stopped, Event::Stopped(expect));
        client.resume().await.unwrap();
    }
    server.open(ResumeOutcome::Resuming, 1).await;
}

#[tokio::test]
async fn an_answer_behind_events_that_nobody_reads_is_not_waited_for_and_nothing_is_lost() {
    const COUNT: u64 = 500;
    let server = Server::new().await;
    let (client, mut events) = Client::start(options(&server).events_waiting_max(10)).unwrap();
    let (mut peer, _) = server.open(ResumeOutcome::Fresh, 1).await;
    for sequence in 1..=COUNT {
        peer.entry(sequence).await;
    }
    let sent = in_background({
        let client = client.clone();
        async move { client.send(CHOIR, "behind all of them").await }
    });
    let (id, Request::Send(send)) = peer.request().await else { panic!("a send") };
    peer.answer(id, ServerFrame::Ack(ack(COUNT + 1))).await;
    assert_eq!(timeout(WAIT, sent).await.unwrap().unwrap(), Err(Error::EventsUnread));
    assert_eq!(client.pins(CHOIR).await, Err(Error::EventsUnread));
    assert_eq!(numbers(&mut events, COUNT as usize).await, (1..=COUNT).collect::<Vec<_>>());
    let expect = Event::Durable { client_message_id: send.client_message_id, ack: ack(COUNT + 1) };
    until(&mut events, |event| *event == expect).await;
}

#[tokio::test]
async fn what_was_told_before_the_end_is_there_to_be_read() {
    const COUNT: u64 = 300;
    let server = Server::new().await;
    let (client, mut events) = Client::start(options(&server)).unwrap();
    let (mut peer, _) = server.open(ResumeOutcome::Fresh, 1).await;
    let asked = in_background({
        let client = client.clone();
        async move { client.pins(CHOIR).await }
    });
    let (id, Request::Pins(_)) = peer.request().await else { panic!("pins") };
    for sequence in 1..=COUNT {
        peer.entry(sequence).await;
    }
    peer.answer(id, ServerFrame::PinsAnswer(PinsAnswer { pins: Vec::new() })).await;
    assert_eq!(asked.await.unwrap(), Ok(Vec::new()));
    drop(client);
    assert_eq!(numbers(&mut events, COUNT as usize).await, (1..=COUNT).collect::<Vec<_>>());
    until(&mut events, |event| *event == Event::Stopped(Stopped::Asked)).await;
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_at_once_and_the_connection_stays() {
    let server = Server::new().await;
    let bad = |url: &str| Client::start(Options::new(url, "phone".parse().unwrap(), "T")).err();
    for url in ["http://127.0.0.1/ws", "127.0.0.1", "", "ws:///"] {
        assert!(matches!(bad(url), Some(Error::Invalid(_))), "{url}");
    }
    let (client, mut events) = Client::start(options(&server)).unwrap();
    let (mut peer, _) = server.open(ResumeOutcome::Fresh, 1).await;
    assert!(matches!(client.send(CHOIR, "").await, Err(Error::Invalid(_))));
    assert!(matches!(client.send(CHOIR, "x".repeat(20_000)).await, Err(Error::Invalid(_))));
    assert!(matches!(client.react(CHOIR, Sequence(1), "", true).await, Err(Error::Invalid(_))));
    let asked = in_background({
        let client = client.clone();
        async move { client.pins(CHOIR).await }
    });
    let (id, Request::Pins(_)) = peer.request().await else { panic!("pins") };
    // The answer to something else, and one to nothing.
    peer.answer(Some(RequestId(4_000)), ServerFrame::Ack(ack(1))).await;
    peer.answer(id, ServerFrame::Ack(ack(1))).await;
    assert_eq!(asked.await.unwrap(), Err(Error::Answer));
    let pinned = in_background({
        let client = client.clone();
        async move { client.pin(CHOIR, Sequence(1), true).await }
    });
    let (id, Request::Pin(_)) = peer.request().await else { panic!("a pin") };
    peer.answer(id, ServerFrame::Ack(ack(1))).await;
    assert_eq!(pinned.await.unwrap(), Err(Error::Answer));
    peer.entry(1).await;
    assert_eq!(numbers(&mut events, 1).await, [1]);
}
