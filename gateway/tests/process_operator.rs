//! The operator's page against a whole node: keys, the busiest conversation, a client that does not read, a user's devices and trace.

mod process_common;

use std::{fs, net::SocketAddr, path::Path};

use antiphon_gateway::outside::backend::keys::{Key, Scope, new_secret};
use process_common::{Folder, Node, client::Client, exchange, http_get, status_of, until, uuid};
use serde_json::{Value, json};

/// An operator.
struct Operator {
    console: SocketAddr,
    key: String,
}

impl Operator {
    /// With the key that a development node made.
    fn of(node: &Node, data: &Path) -> Self {
        let key = fs::read_to_string(data.join("dev-operator.key")).unwrap().trim().to_owned();
        Self { console: node.console, key }
    }

    /// A status and a body.
    fn call(&self, method: &str, path: &str) -> (u16, Value) {
        let Self { console, key } = self;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {console}\r\nAuthorization: Bearer {key}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        let answer = exchange(*console, request.as_bytes());
        let text = String::from_utf8_lossy(&answer).into_owned();
        let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        (status_of(&answer), serde_json::from_str(body).unwrap_or_default())
    }

    fn get(&self, path: &str) -> Value {
        let (status, body) = self.call("GET", path);
        assert_eq!(status, 200, "{path}: {body}");
        body
    }
}

/// A group's id.
fn group(client: &mut Client, key: u128, members: &[&str]) -> String {
    let created = client.must("create", json!({"group": {"key": uuid(key), "title": "hidden", "members": members}}));
    created["conversation"].as_str().unwrap().to_owned()
}

fn say(client: &mut Client, conversation: &str, id: u128, text: &str) {
    client.must("send", json!({"conversation": conversation, "client_message_id": uuid(id), "text": text}));
}

#[test]
fn the_busiest_is_first_who_does_not_read_is_slow_and_a_user_is_looked_at() {
    let folder = Folder::new("operator");
    // One lane, and connections on shards without one.
    let settings = ["node.shards=4", "node.lanes=1", "limits.outbound_bytes_max=67108864"];
    let node = Node::start_with(&folder.data(), &settings);
    let operator = Operator::of(&node, &folder.data());
    let mut alice = Client::fresh(node.listen, "alice");
    let deaf: Vec<Client> = (0..8).map(|number| Client::fresh(node.listen, &format!("deaf-{number}"))).collect();
    let (calm, busy) = (group(&mut alice, 1, &["bob"]), group(&mut alice, 2, &["bob", "deaf-3"]));
    say(&mut alice, &calm, 10, "hidden");
    let text = "hidden ".repeat(2_000);
    // What the kernel takes for a peer that reads nothing comes before what waits here.
    let mut number = 100;
    let slow = until("one is slow", || {
        for _ in 0..50 {
            say(&mut alice, &busy, number, &text);
            number += 1;
        }
        let found = operator.get("/operator/connections");
        (!found["connections"].as_array().unwrap().is_empty()).then_some(found)
    });
    let one = &slow["connections"][0];
    assert_eq!((&one["user"], &one["device"], &slow["count"]), (&json!("deaf-3"), &json!("device"), &json!(1)));
    assert!(one["bytes"].as_u64().unwrap() >= 16 * 1024, "{slow}");
    let conversations = operator.get("/operator/conversations");
    assert_eq!(conversations["conversations"][0]["conversation"], busy, "{conversations}");
    assert_eq!(conversations["conversations"][1]["conversation"], calm, "{conversations}");

    let figures = operator.get("/operator/figures");
    let connections = figures["shards"].as_array().unwrap().iter().map(|shard| shard["antiphon_connections"].as_u64());
    assert_eq!((figures["shards"].as_array().unwrap().len(), &figures["ready"]), (4, &json!(true)));
    assert!(connections.map(Option::unwrap).sum::<u64>() <= 9);

    let (status, _) = operator.call("POST", "/operator/users/alice/trace");
    assert_eq!(status, 201);
    say(&mut alice, &calm, 11, "hidden");
    let (mut desk, _) = Client::login(node.listen, "alice", "desk", None).unwrap();
    say(&mut desk, &calm, 12, "hidden");
    let of_alice = operator.get("/operator/users/alice");
    let devices: Vec<&Value> = of_alice["devices"].as_array().unwrap().iter().map(|device| &device["device"]).collect();
    assert_eq!(devices, ["desk", "device"], "{of_alice}");
    assert!(of_alice["devices"][0]["heard_ms_ago"].as_u64().unwrap() < 30_000, "{of_alice}");
    let seen = operator.get("/operator/users/alice/trace?since=1");
    let events = seen["events"].as_array().unwrap();
    let of = |device: &str, direction: &str, kind: &str| {
        let is_it =
            |event: &&Value| event["device"] == device && event["direction"] == direction && event["kind"] == kind;
        events.iter().filter(is_it).count()
    };
    // Each device is given what the other says, and what it says itself.
    let counts = [of("device", "in", "send"), of("desk", "in", "send"), of("desk", "session", "began")];
    assert_eq!((counts, of("device", "out", "message")), ([1, 1, 1], 2), "{seen}");
    assert!(
        events
            .iter()
            .all(|event| event["conversation"].as_str().is_none_or(|id| calm.starts_with(id) && id.len() == 8))
    );
    for body in [&seen, &of_alice, &figures, &conversations, &slow] {
        assert!(!body.to_string().contains("hidden") && !body.to_string().contains("dev:"), "{body}");
    }
    assert_eq!(operator.call("DELETE", "/operator/users/alice/trace").0, 200);
    assert_eq!(operator.call("GET", "/operator/users/alice/trace").0, 404);
    drop(deaf);
    until("nobody is slow", || (operator.get("/operator/connections")["count"] == 0).then_some(()));
    // The key is nowhere in the log.
    let log = fs::read_to_string(process_common::log_of(&folder.data())).unwrap();
    assert!(!log.contains(&operator.key));
    // Who traces whom is.
    assert!(
        log.lines()
            .any(|line| line.contains("a user is traced") && line.contains("development") && line.contains("alice"))
    );
}

#[test]
fn lanes_on_several_shards_are_asked_together() {
    let folder = Folder::new("operator-lanes");
    let node = Node::start_with(&folder.data(), &["node.shards=4", "node.lanes=2"]);
    let operator = Operator::of(&node, &folder.data());
    let mut clients: Vec<Client> =
        (0..12).map(|number| Client::fresh(node.listen, &format!("user-{number}"))).collect();
    for (number, client) in (1_u128..).zip(&mut clients) {
        let id = group(client, number, &["bob"]);
        say(client, &id, 100 + number, "x");
    }
    let conversations = operator.get("/operator/conversations");
    let mut lanes: Vec<u64> =
        conversations["conversations"].as_array().unwrap().iter().map(|busy| busy["lane"].as_u64().unwrap()).collect();
    lanes.sort_unstable();
    lanes.dedup();
    assert_eq!(lanes, [0, 1], "{conversations}");
    // Users' homes are on both, too.
    for number in 0..12 {
        let of = operator.get(&format!("/operator/users/user-{number}"));
        assert_eq!(of["devices"].as_array().unwrap().len(), 1, "{of}");
    }
}

#[test]
fn keys_of_the_page_are_read_again_and_are_not_those_of_the_api() {
    let folder = Folder::new("operator-keys");
    let (operates, reads) = (new_secret(), new_secret());
    let entry = |name: &str, secret: &str, scope| Key::of_secret(name, secret, &[scope]).unwrap().entry();
    let file = folder.0.join("keys.toml");
    fs::write(&file, entry("reads", &reads, Scope::Read)).unwrap();
    let setting = format!("operator.keys_file={}", file.display());
    let node = Node::start_with(&folder.data(), &[&setting]);
    let with = |key: &str| Operator { console: node.console, key: key.to_owned() }.call("GET", "/operator/figures").0;
    assert_eq!((with(&operates), with(&reads), with("")), (401, 403, 401));
    // The key of the API is for everything there is; here it is none.
    let of_api = fs::read_to_string(folder.data().join("dev-api.key")).unwrap();
    assert_eq!(with(of_api.trim()), 401);
    fs::write(&file, entry("ops", &operates, Scope::Operate)).unwrap();
    node.signal("HUP");
    until("the keys are others", || (with(&operates) == 200).then_some(()));
    assert_eq!(with(&reads), 401);
    assert_eq!(with(&Operator::of(&node, &folder.data()).key), 200, "the development key stays");
    // A key of the page opens nothing at the API.
    let request = format!(
        "GET /v1/users/alice/conversations HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {operates}\r\nConnection: close\r\n\r\n"
    );
    assert_eq!(status_of(&exchange(node.api, request.as_bytes())), 401);
    let (status, page) = http_get(node.console, "/operator");
    assert!(status == 200 && page.contains("operator/app.js"), "{page}");
}
