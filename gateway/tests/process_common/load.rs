//! Clients under load that come back when they are sent away, and what they saw: nothing lost, doubled or out of order.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    DEADLINE,
    client::{Client, Gone},
    uuid,
};

/// Requests of a writer under way: some are, whenever the node ends.
const UNDER_WAY: usize = 4;

/// Between two turns of a writer: a steady load that a busy machine carries.
const PAUSE: Duration = Duration::from_millis(2);

/// How a client fared.
#[derive(Debug, Default)]
pub(crate) struct Fared {
    /// Sessions after the first.
    pub(crate) reconnects: usize,
    /// Attempts that failed.
    pub(crate) failed_attempts: usize,
    /// Ends of sessions without a goodbye.
    pub(crate) without_goodbye: usize,
    /// Longest time between two answers that a return lies between, with what the node asked to wait.
    pub(crate) gap_ms_max: u128,
    /// The same without a return.
    pub(crate) stall_ms_max: u128,
    /// Requests that a session's end left without any answer.
    pub(crate) unanswered: usize,
}

impl Fared {
    /// Waits as the goodbye says and connects again, until that succeeds.
    fn come_back(&mut self, client: &mut Client, login: impl Fn() -> Result<(Client, Value), Gone>) -> Value {
        let goodbye = client.pushes.iter().find_map(|push| push.get("goodbye"));
        let wait_ms = goodbye.and_then(|goodbye| goodbye["reconnect_after_ms"].as_u64());
        self.without_goodbye += usize::from(goodbye.is_none());
        thread::sleep(Duration::from_millis(wait_ms.unwrap_or(100)));
        let end = Instant::now() + DEADLINE;
        loop {
            match login() {
                Ok((back, welcome)) => {
                    *client = back;
                    self.reconnects += 1;
                    return welcome;
                }
                Err(gone) => {
                    assert!(Instant::now() < end, "not back in {DEADLINE:?}: {gone}");
                    self.failed_attempts += 1;
                    thread::sleep(Duration::from_millis(20));
                }
            }
        }
    }
}

/// The id of a writer's message.
pub(crate) fn message_id(writer: u128, number: u128) -> String {
    uuid((writer + 1) << 64 | number)
}

/// Sends numbered messages until told to stop and all are acknowledged; the number and how it fared.
pub(crate) fn write(address: SocketAddr, writer: u128, choir: &str, stop: &AtomicBool) -> (u128, Fared) {
    let user = format!("writer-{writer}");
    let login = || Client::login(address, &user, "device", None);
    let (mut client, mut fared, mut sent) = (login().unwrap().0, Fared::default(), 0);
    // By number: the request that carries it, if one does.
    let mut open: BTreeMap<u128, Option<u64>> = BTreeMap::new();
    let (mut answered_at, mut is_back) = (Instant::now(), false);
    let post = |client: &mut Client, number| {
        let send =
            json!({"conversation": choir, "client_message_id": message_id(writer, number), "text": number.to_string()});
        client.post(json!({ "send": send }))
    };
    loop {
        while open.len() < UNDER_WAY && !stop.load(Ordering::Acquire) {
            sent += 1;
            open.insert(sent, post(&mut client, sent).ok());
        }
        if open.is_empty() {
            return (sent, fared);
        }
        let pumped = client.pump(Duration::from_millis(20));
        for (id, answer) in client.take_answers() {
            let Some(number) = open.iter().find(|(_, request)| **request == Some(id)).map(|(number, _)| *number) else {
                panic!("an answer to nothing: {answer}");
            };
            if answer.get("send").is_some() {
                open.remove(&number);
                let silence_ms = answered_at.elapsed().as_millis();
                let longest =
                    if std::mem::take(&mut is_back) { &mut fared.gap_ms_max } else { &mut fared.stall_ms_max };
                *longest = silence_ms.max(*longest);
                answered_at = Instant::now();
            } else {
                assert_eq!(answer["error"]["code"], "shutting_down", "{answer}");
                open.insert(number, None);
            }
        }
        if pumped.is_err() {
            fared.unanswered += open.values().flatten().count();
            fared.come_back(&mut client, login);
            is_back = true;
            for (number, request) in &mut open {
                *request = post(&mut client, *number).ok();
            }
        }
        thread::sleep(PAUSE);
    }
}

/// Reads until told to stop and the given sequence was seen: every sequence once and in order, over sessions.
pub(crate) fn read(address: SocketAddr, user: &str, choir: &str, until: &dyn Fn() -> Option<u64>) -> Fared {
    let (mut client, _) = Client::login(address, user, "device", None).unwrap();
    let mut fared = Fared::default();
    let mut position = client.push("caught_up").unwrap()["position"].clone();
    let end = Instant::now() + 4 * DEADLINE;
    // What was there before is not pushed, and what is pushed before the answer is in it.
    let mut last = client.must("history", json!({"conversation": choir}))["last"].as_u64().unwrap();
    client.pushes.retain(|push| push["message"]["sequence"].as_u64().is_none_or(|sequence| sequence > last));
    while until().is_none_or(|until| last < until) {
        assert!(Instant::now() < end, "{user} has seen {last} and waits for {:?}", until());
        let pumped = client.pump(Duration::from_millis(20));
        take(&mut client, choir, &mut last, &mut position);
        if pumped.is_err() {
            let known = json!([{"conversation": choir, "epoch": 1, "sequence": last}]);
            let resume = json!({"position": position, "known": known});
            let welcome = fared.come_back(&mut client, || Client::login(address, user, "device", Some(&resume)));
            assert_eq!(welcome["resume"], "resuming");
        }
    }
    fared
}

fn take(client: &mut Client, choir: &str, last: &mut u64, position: &mut Value) {
    while let Some(push) = client.pushes.front() {
        if push.get("goodbye").is_some() {
            return;
        }
        let push = client.pushes.pop_front().unwrap();
        if let Some(caught_up) = push.get("caught_up") {
            *position = caught_up["position"].clone();
        } else if let Some(too_far) = push.get("too_far") {
            let until = too_far["last"].as_u64().unwrap();
            while *last < until {
                let page = client.must("history", json!({"conversation": choir, "after": *last, "limit": 200}));
                for entry in page["entries"].as_array().unwrap() {
                    let sequence = entry["sequence"].as_u64().unwrap();
                    assert_eq!(sequence, *last + 1, "a page has a gap");
                    *last = sequence.min(until);
                    if sequence == until {
                        break;
                    }
                }
            }
        } else if let Some(message) = push.get("message") {
            let sequence = message["sequence"].as_u64().unwrap();
            assert_eq!(sequence, *last + 1, "lost, doubled or out of order: {push}");
            *last = sequence;
        }
    }
}

/// Checks that a history has each writer's messages once, in their order, and nothing else.
pub(crate) fn check_history(history: &[Value], sent: &[u128]) {
    let mut next = vec![1; sent.len()];
    let messages = history.iter().filter(|entry| entry["kind"] == "message");
    for entry in messages {
        let sender = entry["sender"].as_str().unwrap();
        let writer: usize = sender.strip_prefix("writer-").unwrap().parse().unwrap();
        assert_eq!(entry["client_message_id"], message_id(writer as u128, next[writer]), "{entry}");
        next[writer] += 1;
    }
    assert_eq!(next.iter().map(|next| next - 1).collect::<Vec<_>>(), sent);
}
