//! The HTTP API as an application's backend meets it: beside clients, over restarts, while the node ends or gives way.

mod process_common;

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use process_common::{
    Folder, Node,
    client::{Client, JSON, whole_history},
    exchange, status_of, until, uuid,
};
use serde_json::{Value, json};

/// A status, the head of the answer and its body.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}\n{}", self.head, self.body))
    }

    fn must(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.json()
    }

    /// Its status and code, as `404 not_found`.
    fn problem(&self) -> String {
        assert!(self.head.contains("content-type: application/problem+json"), "{}\n{}", self.head, self.body);
        let body = self.json();
        assert_eq!(body["status"], self.status, "{body}");
        format!("{} {}", self.status, body["code"].as_str().unwrap())
    }

    fn has(&self, header: &str) -> bool {
        self.head.lines().any(|line| line.starts_with(header))
    }
}

/// Who calls, and where.
#[derive(Clone)]
struct Caller {
    address: SocketAddr,
    secret: String,
}

impl Caller {
    /// With the key that a development node made.
    fn of(node: &Node, data: &Path) -> Self {
        let secret = fs::read_to_string(data.join("dev-api.key")).unwrap().trim().to_owned();
        Self { address: node.api, secret }
    }

    fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let body = body.map(Value::to_string).unwrap_or_default();
        self.call_with(method, path, "Content-Type: application/json\r\n", &body)
    }

    fn call_with(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let (address, secret, length) = (self.address, &self.secret, body.len());
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {secret}\r\n{headers}Content-Length: {length}\r\n\
             Connection: close\r\n\r\n{body}"
        );
        answer_in(&exchange(address, request.as_bytes()))
    }

    fn get(&self, path: &str) -> Answer {
        self.call("GET", path, None)
    }

    fn post(&self, path: &str, body: &Value) -> Answer {
        self.call("POST", path, Some(body))
    }

    /// A group of alice's with others: its path, and its id.
    fn group(&self, key: u128, members: &[&str]) -> (String, String) {
        let body = json!({"group": {"key": uuid(key), "title": "choir", "members": members}});
        let created = self.post("/v1/users/alice/conversations", &body).must(201);
        let id = created["conversation"].as_str().unwrap().to_owned();
        (format!("/v1/users/alice/conversations/{id}"), id)
    }
}

fn answer_in(bytes: &[u8]) -> Answer {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text.as_str(), ""));
    Answer { status: status_of(bytes), head: head.to_owned(), body: body.to_owned() }
}

fn message(id: u128, text: &str) -> Value {
    json!({"client_message_id": uuid(id), "text": text})
}

fn react(id: u128, on: bool) -> Value {
    json!({"client_message_id": uuid(id), "reaction": "👍", "on": on})
}

#[test]
fn what_the_api_does_clients_see_and_what_clients_do_it_sees() {
    let folder = Folder::new("api");
    let node = Node::start(&folder.data());
    let api = Caller::of(&node, &folder.data());
    let token = api.post("/v1/tokens", &json!({"user": "bob", "device": "phone"})).must(200);
    let mut bob = Client::open(node.listen, JSON).unwrap();
    let welcome = bob.must("connect", json!({"token": token["token"]}));
    assert_eq!((&welcome["user"], &welcome["device"]), (&json!("bob"), &json!("phone")));

    let (path, id) = api.group(1, &["bob"]);
    assert_eq!(bob.push("message").unwrap()["kind"], "created");
    let sent = api.post(&format!("{path}/messages"), &message(1, "from the shop")).must(201);
    let pushed = bob.push("message").unwrap();
    assert_eq!((&pushed["sequence"], &pushed["conversation"]), (&sent["sequence"], &json!(id)));
    assert_eq!((&pushed["sender"], &pushed["text"]), (&json!("alice"), &json!("from the shop")));
    assert_eq!(pushed["client_message_id"], uuid(1));

    let mine = bob.must("send", json!({"conversation": id, "client_message_id": uuid(2), "text": "to the shop"}));
    let edit = json!({"client_message_id": uuid(3), "text": "from the shop, mended"});
    let edited = api.call("PATCH", &format!("{path}/messages/{}", sent["sequence"]), Some(&edit)).must(200);
    let page = api.get(&format!("{path}/messages?after=1&limit=10")).must(200);
    let texts: Vec<&Value> = page["entries"].as_array().unwrap().iter().map(|entry| &entry["text"]).collect();
    assert_eq!(texts, ["from the shop, mended", "to the shop", "from the shop, mended"]);
    assert_eq!(page["entries"][1]["sequence"], mine["sequence"]);
    assert_eq!(page["states"][0]["edited"]["sequence"], edited["sequence"]);
    assert_eq!((&page["first"], &page["last"], &page["as_of"]), (&json!(1), &json!(4), &json!(4)));

    let gone = format!("{path}/messages/{}?client_message_id={}", sent["sequence"], uuid(4));
    api.call("DELETE", &gone, None).must(200);
    assert_eq!(
        api.call("PATCH", &format!("{path}/messages/{}", sent["sequence"]), Some(&message(5, "x"))).problem(),
        "410 deleted"
    );
    let reply = json!({"client_message_id": uuid(6), "text": "x", "reply_to": 99});
    assert_eq!(api.post(&format!("{path}/messages"), &reply).problem(), "409 no_message");

    api.call("PATCH", &path, Some(&json!({"title": "quartet"}))).must(200);
    api.post(&format!("{path}/members"), &json!({"add": ["carol"]})).must(200);
    api.call("PATCH", &format!("{path}/roles"), Some(&json!({"set": [{"user": "carol", "role": "admin"}]}))).must(200);
    let roles = api.get(&format!("{path}/roles")).must(200);
    assert_eq!(roles["roles"][1], json!({"user": "carol", "role": "admin"}));
    api.call("PATCH", &format!("{path}/settings"), Some(&json!({"send": "admins"}))).must(200);
    assert_eq!(api.get(&format!("{path}/settings")).must(200)["settings"]["send"], "admins");
    assert_eq!(api.get(&path).must(200)["title"], "quartet");
    let of_bob = path.replace("alice", "bob");
    assert_eq!(api.post(&format!("{of_bob}/messages"), &message(7, "x")).problem(), "403 forbidden");
    api.call("DELETE", &format!("{path}/members/bob"), None).must(200);
    assert_eq!(bob.push("left").unwrap()["conversation"], json!(id));
    let members = api.get(&format!("{path}/members?limit=1")).must(200);
    assert_eq!((&members["members"][0]["user"], &members["next"]), (&json!("alice"), &json!("alice")));
    let members = api.get(&format!("{path}/members?after=alice")).must(200);
    assert_eq!((&members["members"][0]["user"], members.get("next")), (&json!("carol"), None));
}

#[test]
fn reactions_pins_and_marks_are_everybodys() {
    let folder = Folder::new("api-marks");
    let node = Node::start(&folder.data());
    let api = Caller::of(&node, &folder.data());
    let (path, id) = api.group(1, &["bob"]);
    let place = json!({"conversation": id});
    let sequence = api.post(&format!("{path}/messages"), &message(1, "hi")).must(201)["sequence"].clone();
    let mut bob = Client::fresh(node.listen, "bob");

    let message = format!("{path}/messages/{sequence}");
    let reacted = api.post(&format!("{message}/reactions"), &react(2, true)).must(200);
    let pushed = bob.push("message").unwrap();
    assert_eq!((&pushed["kind"], &pushed["sequence"]), (&json!("reaction"), &reacted["sequence"]));
    assert_eq!(api.post(&format!("{message}/reactions"), &react(2, true)).must(200)["duplicate"], true);
    assert_eq!(api.post(&format!("{message}/reactions"), &react(2, false)).problem(), "409 conflict");
    let listed = api.get(&format!("{message}/reactions?limit=1")).must(200);
    assert_eq!(listed, json!({"reactions": [{"user": "alice", "reactions": ["👍"]}]}));
    let of_both =
        json!({"conversation": id, "client_message_id": uuid(3), "target": sequence, "reaction": "🎶", "on": true});
    bob.must("react", of_both);
    let listed = api.get(&format!("{message}/reactions?after=alice")).must(200);
    assert_eq!(listed, json!({"reactions": [{"user": "bob", "reactions": ["🎶"]}]}));

    let pin = |id, on: bool| {
        api.call("PUT", &format!("{message}/pin"), Some(&json!({"client_message_id": uuid(id), "on": on})))
    };
    pin(4, true).must(200);
    assert_eq!(api.get(&format!("{path}/pins")).must(200), json!({"pins": [sequence]}));
    assert_eq!(bob.must("pins", place.clone()), json!({"pins": [sequence]}));
    pin(5, false).must(200);
    assert_eq!(api.get(&format!("{path}/pins")).must(200), json!({"pins": []}));

    let of_bob = path.replace("alice", "bob");
    assert_eq!(api.get(&of_bob).must(200)["unread"], 1);
    let mut alice = Client::fresh(node.listen, "alice");
    let marked = api.call("PUT", &format!("{of_bob}/read"), Some(&json!({"sequence": sequence}))).must(200);
    assert_eq!(marked, json!({"read": sequence, "delivered": sequence, "unread": 0}));
    let receipt = alice.push("receipt").unwrap();
    assert_eq!((&receipt["user"], &receipt["read"]), (&json!("bob"), &sequence));
    assert_eq!(api.call("PUT", &format!("{of_bob}/read"), Some(&json!({"sequence": 99}))).problem(), "400 invalid");
    // Whom bob shows nothing hears nothing of it; it is what the backend sees all the same.
    let hidden = json!({"key": "antiphon.receipts", "value": {"on": false}});
    api.call("PATCH", "/v1/users/bob/account", Some(&hidden)).must(200);
    let pinned = api.get(&path).must(200)["last_sequence"].clone();
    api.call("PUT", &format!("{of_bob}/read"), Some(&json!({"sequence": pinned}))).must(200);
    let shown = json!({"key": "antiphon.receipts"});
    api.call("PATCH", "/v1/users/bob/account", Some(&shown)).must(200);
    let sent = json!({"client_message_id": uuid(9), "text": "la"});
    let last = api.post(&format!("{path}/messages"), &sent).must(201)["sequence"].clone();
    api.call("PUT", &format!("{of_bob}/read"), Some(&json!({"sequence": last}))).must(200);
    let receipt = alice.push("receipt").unwrap();
    assert_eq!((&receipt["user"], &receipt["read"]), (&json!("bob"), &last), "not {pinned}");
    assert_eq!(api.post(&format!("{path}/messages/1/reactions"), &react(6, true)).problem(), "404 no_message");
}

#[test]
fn who_is_kept_out_and_who_is_invited() {
    let folder = Folder::new("api-doors");
    let node = Node::start(&folder.data());
    let api = Caller::of(&node, &folder.data());
    let (path, id) = api.group(1, &["bob"]);
    let (mut bob, mut carol) = (Client::fresh(node.listen, "bob"), Client::fresh(node.listen, "carol"));

    api.post(&format!("{path}/bans"), &json!({"add": ["bob", "mallory"]})).must(200);
    assert_eq!(bob.push("left").unwrap()["conversation"], json!(id));
    assert_eq!(api.post(&format!("{path}/members"), &json!({"add": ["bob"]})).problem(), "403 forbidden");
    let page = api.get(&format!("{path}/bans?limit=1")).must(200);
    assert_eq!(page, json!({"users": ["bob"], "next": "bob"}));
    api.call("DELETE", &format!("{path}/bans/bob"), None).must(200);
    api.post(&format!("{path}/members"), &json!({"add": ["bob"]})).must(200);
    assert_eq!(api.get(&format!("{path}/bans")).must(200), json!({"users": ["mallory"]}));
    assert_eq!(api.post(&format!("{path}/bans"), &json!({"add": ["alice"]})).problem(), "400 invalid");
    let of_bob = path.replace("alice", "bob");
    assert_eq!(api.post(&format!("{of_bob}/bans"), &json!({"add": ["alice"]})).problem(), "403 forbidden");

    let made = api.post(&format!("{path}/invites"), &json!({"uses": 1})).must(201);
    let list = api.get(&format!("{path}/invites")).must(200);
    assert_eq!(list["invites"], json!([{"invite": made["sequence"], "user": "alice", "uses": 1}]));
    assert_eq!(carol.must("join", json!({"code": made["code"]}))["conversation"], json!(id));
    assert_eq!(api.get(&format!("{path}/invites")).must(200)["invites"], json!([]));
    let made = api.post(&format!("{path}/invites"), &json!({})).must(201);
    let revoked = api.call("DELETE", &format!("{path}/invites/{}", made["sequence"]), None).must(200);
    assert_eq!(revoked.get("code"), None);
    let join = json!({"id": 9, "join": {"code": made["code"]}});
    let refused = Client::fresh(node.listen, "dave").ask(join).unwrap();
    assert_eq!(refused["error"]["code"], "not_found", "{refused}");
}

#[test]
fn account_data_is_one_on_devices_and_in_the_api() {
    let folder = Folder::new("api-account");
    let node = Node::start(&folder.data());
    let api = Caller::of(&node, &folder.data());
    let mut alice = Client::fresh(node.listen, "alice");
    let account = "/v1/users/alice/account";
    let set = |body: Value| api.call("PATCH", account, Some(&body));
    let first = set(json!({"key": "theme", "value": {"dark": true}})).must(200);
    assert_eq!(alice.push("message").unwrap()["kind"], "created");
    let pushed = alice.push("message").unwrap();
    assert_eq!(
        (&pushed["kind"], &pushed["key"], &pushed["value"]),
        (&json!("account_data"), &json!("theme"), &json!({"dark": true}))
    );
    let replaced = alice.must("account", json!({"set": {"key": "theme", "value": "light"}}));
    assert_eq!(replaced["replaced"], first["sequence"]);
    let late = set(json!({"key": "theme", "value": "x", "if_sequence": first["sequence"]}));
    assert_eq!(late.problem(), "409 conflict");
    set(json!({"key": "zoom", "value": 2, "if_sequence": 0})).must(200);
    let page = api.get(&format!("{account}?limit=1")).must(200);
    assert_eq!((&page["items"][0]["value"], &page["next"]), (&json!("light"), &json!("theme")));
    let page = api.get(&format!("{account}?after=theme")).must(200);
    assert_eq!((&page["items"][0]["key"], page.get("next")), (&json!("zoom"), None));
    set(json!({"key": "zoom"})).must(200);
    let page = api.get(account).must(200);
    assert_eq!(page["items"].as_array().unwrap().len(), 1, "{page}");
    assert_eq!(api.get("/v1/users/bob/account").must(200)["items"], json!([]));
    assert_eq!(set(json!({"key": "a b", "value": 1})).problem(), "400 invalid");
}

/// What a device connects with.
fn login(api: &Caller, user: &str, device: &str) -> Value {
    let issued = api.post("/v1/tokens", &json!({"user": user, "device": device})).must(200);
    json!({"token": issued["token"], "device": device})
}

fn connected(node: &Node, login: &Value) -> Client {
    let mut client = Client::open(node.listen, JSON).unwrap();
    client.must("connect", login.clone());
    client
}

/// What is said to one whose token counts no more, and what the connection is closed with.
fn refused(node: &Node, login: &Value) -> (Value, Option<u16>) {
    let mut client = Client::open(node.listen, JSON).unwrap();
    let answer = client.ask(json!({ "connect": login })).unwrap();
    (answer["error"]["code"].clone(), client.close_code())
}

#[test]
fn who_is_logged_out_is_gone_and_comes_again_by_a_new_token_alone() {
    let folder = Folder::new("api-devices");
    let settings = ["node.shards=2", "node.lanes=2"];
    let node = Node::start_with(&folder.data(), &settings);
    let api = Caller::of(&node, &folder.data());
    let devices = "/v1/users/alice/devices";
    let (of_phone, of_laptop) = (login(&api, "alice", "phone"), login(&api, "alice", "laptop"));
    let (mut phone, mut laptop) = (connected(&node, &of_phone), connected(&node, &of_laptop));
    phone.must("devices", json!({"name": "Alice's phone"}));
    let list = api.get(devices).must(200);
    let since_ms = &list["devices"][1]["since_ms"];
    assert!(since_ms.as_u64().is_some(), "{list}");
    let named = json!({"device": "phone", "name": "Alice's phone", "since_ms": since_ms, "online": true});
    assert_eq!(list["devices"], json!([{"device": "laptop", "online": true}, named]));
    let log_out = |path: &str| api.call("DELETE", path, None).must(200)["sequence"].as_u64().unwrap();

    let first = log_out(&format!("{devices}/phone"));
    let over = (json!("revoked"), Some(4504));
    assert_eq!(phone.close_code(), Some(4504));
    assert_eq!(refused(&node, &of_phone), over);
    assert_eq!(api.get(devices).must(200)["devices"], json!([{"device": "laptop", "online": true}]));
    // It is told on all others, which stay.
    let pushed = laptop.push("message").unwrap();
    assert_eq!(pushed["kind"], "created");
    until("the laptop hears of it", || {
        let pushed = laptop.push("message").unwrap();
        assert_eq!(pushed["key"], "antiphon.devices");
        (pushed["sequence"] == first).then_some(())
    });
    // One that is issued at once is good.
    let of_phone_again = login(&api, "alice", "phone");
    let mut phone = connected(&node, &of_phone_again);
    phone.must("ping", json!({}));
    // Where a token is good for any device, that device is logged out, and no other.
    let issued = api.post("/v1/tokens", &json!({"user": "alice"})).must(200);
    let of_any = json!({"token": issued["token"], "device": "any"});
    let mut any = connected(&node, &of_any);
    assert!(log_out(&format!("{devices}/any")) > first);
    assert_eq!((any.close_code(), refused(&node, &of_any)), (Some(4504), over.clone()));

    // Everywhere: those that are there, one that is not, and of a user whom nobody has seen.
    let (of_tablet, of_bob) = (login(&api, "alice", "tablet"), login(&api, "bob", "phone"));
    log_out(devices);
    log_out("/v1/users/bob/devices");
    assert_eq!((phone.close_code(), laptop.close_code()), (Some(4504), Some(4504)));
    assert_eq!(api.get(devices).must(200), json!({"devices": []}));
    let old = [of_phone, of_phone_again, of_laptop, of_any, of_tablet, of_bob];
    let are_refused = |node: &Node| old.iter().for_each(|login| assert_eq!(refused(node, login), over, "{login}"));
    are_refused(&node);
    let new = [login(&api, "alice", "phone"), login(&api, "bob", "phone")];
    new.iter().for_each(|login| drop(connected(&node, login)));

    node.kill();
    let node = Node::start_with(&folder.data(), &settings);
    are_refused(&node);
    new.iter().for_each(|login| drop(connected(&node, login)));
    let api = Caller::of(&node, &folder.data());
    let wrong = |path: &str| api.call("DELETE", path, None).problem();
    assert_eq!(wrong(&format!("{devices}/")), "400 invalid");
    assert_eq!(wrong(&format!("{devices}?but_this=true")), "400 invalid");
}

#[test]
fn a_list_over_lanes_is_paged_as_a_clients_is() {
    let folder = Folder::new("api-list");
    let node = Node::start_with(&folder.data(), &["node.shards=2", "node.lanes=2"]);
    let api = Caller::of(&node, &folder.data());
    let mut made: Vec<String> = (0..40).map(|key| api.group(key, &[]).1).collect();
    made.sort_unstable();
    let mut alice = Client::fresh(node.listen, "alice");
    let (mut listed, mut after) = (Vec::new(), String::new());
    loop {
        let page = api.get(&format!("/v1/users/alice/conversations?limit=7{after}")).must(200);
        let mut asked = json!({"limit": 7});
        if let Some(last) = listed.last() {
            asked["after"] = json!(last);
        }
        assert_eq!(page, alice.must("conversations", asked));
        let conversations = page["conversations"].as_array().unwrap().iter();
        listed.extend(conversations.map(|summary| summary["conversation"].as_str().unwrap().to_owned()));
        match page.get("next") {
            Some(next) => after = format!("&after={}", next.as_str().unwrap()),
            None => break,
        }
    }
    assert_eq!(listed, made);
}

/// Every call about a conversation, with a body that is right.
fn calls(path: &str) -> Vec<(&'static str, String, Option<Value>)> {
    let id = uuid(79);
    vec![
        ("GET", path.to_owned(), None),
        ("PATCH", path.to_owned(), Some(json!({"title": "x"}))),
        ("GET", format!("{path}/messages"), None),
        ("POST", format!("{path}/messages"), Some(message(77, "x"))),
        ("PATCH", format!("{path}/messages/2"), Some(message(78, "x"))),
        ("POST", format!("{path}/messages/2/reactions"), Some(react(80, true))),
        ("GET", format!("{path}/messages/2/reactions"), None),
        ("PUT", format!("{path}/messages/2/pin"), Some(json!({"client_message_id": uuid(81), "on": true}))),
        ("GET", format!("{path}/pins"), None),
        ("PUT", format!("{path}/read"), Some(json!({"sequence": 2}))),
        ("DELETE", format!("{path}/messages/2?client_message_id={id}"), None),
        ("GET", format!("{path}/members"), None),
        ("POST", format!("{path}/members"), Some(json!({"add": ["x"]}))),
        ("DELETE", format!("{path}/members/bob"), None),
        ("GET", format!("{path}/roles"), None),
        ("PATCH", format!("{path}/roles"), Some(json!({"set": [{"user": "bob", "role": "admin"}]}))),
        ("POST", format!("{path}/bans"), Some(json!({"add": ["y"]}))),
        ("GET", format!("{path}/bans"), None),
        ("DELETE", format!("{path}/bans/y"), None),
        ("POST", format!("{path}/invites"), Some(json!({}))),
        ("GET", format!("{path}/invites"), None),
        ("DELETE", format!("{path}/invites/9"), None),
        ("GET", format!("{path}/settings"), None),
        ("PATCH", format!("{path}/settings"), Some(json!({"description": "x"}))),
    ]
}

#[test]
fn a_stranger_and_nothing_look_the_same() {
    let folder = Folder::new("api-stranger");
    let node = Node::start(&folder.data());
    let api = Caller::of(&node, &folder.data());
    let (path, id) = api.group(1, &["bob"]);
    api.post(&format!("{path}/messages"), &message(1, "secret")).must(201);
    let stranger = calls(&path.replace("alice", "mallory"));
    let nothing =
        calls(&path.replace("alice", "mallory").replace(&id, &uuid(0x8000_0000_0000_8000_8000_0000_0000_0001)));
    for ((method, path, body), (_, other, _)) in stranger.into_iter().zip(nothing) {
        let (one, two) = (api.call(method, &path, body.as_ref()), api.call(method, &other, body.as_ref()));
        assert_eq!(one.problem(), "404 not_found", "{method} {path}");
        assert_eq!(one.body, two.body, "{method} {path}");
        let without_date = |answer: &Answer| {
            answer.head.lines().filter(|line| !line.starts_with("date:")).collect::<Vec<_>>().join("\n")
        };
        assert_eq!(without_date(&one), without_date(&two), "{method} {path}");
    }
}

/// A file of keys with one for each scope, and their secrets by scope.
fn keys_file(folder: &Path) -> (String, BTreeMap<&'static str, String>) {
    let (mut text, mut secrets) = (String::new(), BTreeMap::new());
    for scope in ["tokens", "read", "write", "groups", "devices"] {
        let made = process_common::antiphon().args(["api-key", scope, "--scope", scope]).output().unwrap();
        assert!(made.status.success());
        text.push_str(&String::from_utf8(made.stdout).unwrap());
        let told = String::from_utf8(made.stderr).unwrap();
        let secret = told.split_whitespace().find(|word| word.starts_with("antiphon_api_")).unwrap();
        secrets.insert(scope, secret.to_owned());
    }
    let file = folder.join("keys.toml");
    fs::write(&file, text).unwrap();
    (format!("api.keys_file={}", file.display()), secrets)
}

#[test]
fn a_key_does_what_it_is_for_and_no_more() {
    let folder = Folder::new("api-keys");
    let (setting, secrets) = keys_file(&folder.0);
    let node = Node::start_with(&folder.data(), &[&setting]);
    let api = Caller::of(&node, &folder.data());
    let (path, _) = api.group(1, &["bob"]);
    api.post(&format!("{path}/messages"), &message(1, "hi")).must(201);
    let user = "/v1/users/alice/conversations";
    let mut calls = calls(&path);
    calls.push(("POST", "/v1/tokens".to_owned(), Some(json!({"user": "alice"}))));
    calls.push(("GET", "/v1/users/alice/account".to_owned(), None));
    calls.push(("PATCH", "/v1/users/alice/account".to_owned(), Some(json!({"key": "theme", "value": "dark"}))));
    calls.push(("GET", "/v1/users/alice/devices".to_owned(), None));
    calls.push(("DELETE", "/v1/users/alice/devices/phone".to_owned(), None));
    calls.push(("DELETE", "/v1/users/alice/devices".to_owned(), None));
    calls.push(("GET", user.to_owned(), None));
    calls.push(("POST", user.to_owned(), Some(json!({"direct": "bob"}))));
    for (method, path, body) in calls {
        let needed = match (method, path.as_str()) {
            ("GET", _) => "read",
            (_, "/v1/tokens") => "tokens",
            (_, path) if path.contains("/devices") => "devices",
            (_, path) if ["/messages", "/read", "/account"].iter().any(|part| path.contains(part)) => "write",
            _ => "groups",
        };
        for (scope, secret) in &secrets {
            let answer = Caller { secret: secret.clone(), ..api.clone() }.call(method, &path, body.as_ref());
            if *scope == needed {
                assert!(answer.status < 300, "{scope}: {method} {path}: {}", answer.body);
            } else {
                assert_eq!(answer.problem(), "403 missing_scope", "{scope}: {method} {path}");
            }
        }
        for wrong in ["", "x", &secrets["read"][1..], &format!("{}x", secrets["read"])] {
            let answer = Caller { secret: wrong.to_owned(), ..api.clone() }.call(method, &path, body.as_ref());
            assert_eq!(answer.problem(), "401 unauthenticated", "{wrong}: {method} {path}");
            assert!(answer.has("www-authenticate: Bearer"), "{}", answer.head);
        }
    }
    // What there is may be known to everybody.
    let request = format!("GET /openapi.json HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", api.address);
    let description = answer_in(&exchange(api.address, request.as_bytes())).must(200);
    assert_eq!(description["openapi"], "3.1.0");
    let log = fs::read_to_string(process_common::log_of(&folder.data())).unwrap();
    assert!(secrets.values().all(|secret| !log.contains(secret)) && !log.contains(&api.secret));
}

#[test]
fn keys_come_and_go_while_it_runs() {
    let folder = Folder::new("api-reload");
    let (setting, secrets) = keys_file(&folder.0);
    let node = Node::start_with(&folder.data(), &[&setting]);
    let of_dev = Caller::of(&node, &folder.data());
    let file = folder.0.join("keys.toml");
    let whole = fs::read_to_string(&file).unwrap();
    let entry = |scope: &str| {
        let of_scope = |entry: &&str| entry.contains(&format!("\"{scope}\"]"));
        format!("[[key]]{}", whole.split("[[key]]").find(of_scope).unwrap())
    };
    let list = |scope: &str| {
        let caller = Caller { secret: secrets[scope].clone(), ..of_dev.clone() };
        caller.get("/v1/users/alice/conversations").status
    };
    assert_eq!((list("read"), list("write")), (200, 403));

    // The key for reading is gone, and the one for writing is for reading now.
    fs::write(&file, entry("write").replace("\"write\"]", "\"read\"]")).unwrap();
    assert_eq!((list("read"), list("write")), (200, 403), "nobody told it to read the file");
    node.signal("HUP");
    until("the keys are others", || (list("write") == 200).then_some(()));
    assert_eq!((list("read"), list("groups")), (401, 401));

    // What is wrong changes nothing, and is told.
    fs::write(&file, format!("{}\nscope = 7\n", entry("read"))).unwrap();
    node.signal("HUP");
    let log = process_common::log_of(&folder.data());
    let says = "the keys of the HTTP API stay as they were";
    until("the log says it", || fs::read_to_string(&log).unwrap().contains(says).then_some(()));
    assert_eq!((list("read"), list("write")), (401, 200));
    assert_eq!(of_dev.get("/v1/users/alice/conversations").status, 200);
}

#[test]
fn a_retry_over_a_kill_is_told_the_first_answer() {
    let folder = Folder::new("api-retry");
    let node = Node::start(&folder.data());
    let api = Caller::of(&node, &folder.data());
    let (path, id) = api.group(1, &["bob"]);
    let messages = format!("{path}/messages");
    let first = api.post(&messages, &message(1, "once")).must(201);
    node.kill();
    let node = Node::start(&folder.data());
    let api = Caller::of(&node, &folder.data());
    let again = api.post(&messages, &message(1, "once")).must(200);
    assert_eq!((&again["sequence"], &again["time_ms"]), (&first["sequence"], &first["time_ms"]));
    assert_eq!((first.get("duplicate"), &again["duplicate"]), (None, &json!(true)));
    assert_eq!(api.post(&messages, &message(1, "twice")).problem(), "409 conflict");
    let group = json!({"group": {"key": uuid(1), "title": "choir", "members": ["bob"]}});
    let found = api.post("/v1/users/alice/conversations", &group).must(200);
    assert_eq!((&found["conversation"], &found["existing"]), (&json!(id), &json!(true)));
    let history = whole_history(&mut Client::fresh(node.listen, "bob"), &id);
    assert_eq!(history.iter().filter(|entry| entry["kind"] == "message").count(), 1, "{history:?}");
}

#[test]
fn what_makes_no_sense_is_told_and_breaks_nothing() {
    let folder = Folder::new("api-misuse");
    let node = Node::start(&folder.data());
    let api = Caller::of(&node, &folder.data());
    let (path, _) = api.group(1, &["bob"]);
    let messages = format!("{path}/messages");
    let json_type = "Content-Type: application/json\r\n";
    let long = json!({"client_message_id": uuid(1), "text": "x".repeat(16 * 1024 + 1)}).to_string();
    let longer = format!("{{\"text\":\"{}\"}}", "x".repeat(200 * 1024));
    let good = message(1, "hi").to_string();
    for (method, path, headers, body, expected) in [
        ("POST", messages.as_str(), json_type, "{", "400 malformed"),
        ("POST", &messages, json_type, "", "400 malformed"),
        ("POST", &messages, json_type, "[]", "400 malformed"),
        ("POST", &messages, json_type, "\"hi\"", "400 malformed"),
        ("POST", &messages, json_type, r#"{"client_message_id":"x","text":"hi"}"#, "400 invalid"),
        ("POST", &messages, json_type, r#"{"text":"hi"}"#, "400 malformed"),
        ("POST", &messages, json_type, r#"{"client_message_id":7,"text":"hi"}"#, "400 malformed"),
        ("POST", &messages, json_type, &good.replace("text", "txet"), "400 malformed"),
        ("POST", &messages, json_type, &good.replace("\"hi\"", "\"\\ud800\""), "400 malformed"),
        ("POST", &messages, json_type, &format!("{}{}", "[".repeat(500), "]".repeat(500)), "400 malformed"),
        ("POST", &messages, json_type, &long, "413 too_large"),
        ("POST", &messages, json_type, &longer, "413 too_large"),
        ("POST", &messages, "Content-Type: text/plain\r\n", &good, "415 unsupported_media_type"),
        ("POST", &messages, "", &good, "415 unsupported_media_type"),
        ("POST", &format!("{messages}?x=1"), json_type, &good, "400 invalid"),
        ("PUT", &messages, json_type, &good, "405 method_not_allowed"),
        ("GET", "/v1/users/alice", "", "", "404 no_such_path"),
        ("GET", "/v2/tokens", "", "", "404 no_such_path"),
        ("GET", "/v1/users/a%20b/conversations", "", "", "400 invalid"),
        ("GET", "/v1/users/alice/conversations/7", "", "", "400 invalid"),
        ("GET", &format!("{messages}?limit=0"), "", "", "400 invalid"),
        ("GET", &format!("{messages}?before=3&after=1"), "", "", "400 invalid"),
        ("POST", "/v1/users/alice/conversations", json_type, r#"{"direct":"alice"}"#, "400 invalid"),
        ("POST", "/v1/tokens", json_type, r#"{"user":"alice","life_ms":1}"#, "400 invalid"),
        ("POST", "/v1/tokens", json_type, r#"{"user":["alice"]}"#, "400 malformed"),
        ("POST", "/v1/tokens", json_type, r#"{"user":"alice","user":"bob"}"#, "400 malformed"),
        ("POST", &messages, json_type, &good.replace('}', ",\"text\":\"ho\"}"), "400 malformed"),
    ] {
        let answer = api.call_with(method, path, headers, body);
        assert_eq!(answer.problem(), expected, "{method} {path} {}", &body[..body.len().min(80)]);
    }
    assert!(api.call("PUT", &messages, None).has("allow: GET, POST"));
    // The last of it is as good as the first.
    api.post(&messages, &message(1, "hi")).must(201);
}

#[test]
fn a_key_is_held_to_its_rate() {
    let folder = Folder::new("api-rate");
    let node = Node::start_with(&folder.data(), &["api.requests_per_second_max=5"]);
    let api = Caller::of(&node, &folder.data());
    let answers: Vec<Answer> = (0..40).map(|_| api.get("/v1/users/alice/conversations")).collect();
    let limited: Vec<&Answer> = answers.iter().filter(|answer| answer.status == 429).collect();
    assert!(answers[..5].iter().all(|answer| answer.status == 200) && !limited.is_empty());
    for answer in limited {
        assert_eq!(answer.problem(), "429 rate_limited");
        assert!(answer.has("retry-after: 1") && answer.json()["retry_after_ms"].as_u64().unwrap() <= 200);
    }
    until("the key may call again", || (api.get("/v1/users/alice/conversations").status == 200).then_some(()));
}

#[test]
fn many_callers_at_once_are_all_answered() {
    let folder = Folder::new("api-many");
    let node = Node::start_with(&folder.data(), &["api.requests_per_second_max=0"]);
    let api = Caller::of(&node, &folder.data());
    let (path, id) = api.group(1, &["bob"]);
    thread::scope(|scope| {
        for caller in 0..32 {
            let (api, path) = (api.clone(), &path);
            scope.spawn(move || {
                for number in 0..20 {
                    let body = message(1 + caller * 100 + number, "hi");
                    api.post(&format!("{path}/messages"), &body).must(201);
                }
            });
        }
    });
    assert_eq!(node.metric("antiphon_api_answers_total{status=\"2xx\"}"), f64::from(1 + 32 * 20));
    let history = whole_history(&mut Client::fresh(node.listen, "bob"), &id);
    let sequences: Vec<u64> = history.iter().map(|entry| entry["sequence"].as_u64().unwrap()).collect();
    assert_eq!(sequences, (1..=1 + 32 * 20).collect::<Vec<u64>>());
}

#[test]
fn a_node_that_ends_says_so_and_answers_what_it_took() {
    let folder = Folder::new("api-drain");
    let mut node = Node::start(&folder.data());
    let api = Caller::of(&node, &folder.data());
    let (path, id) = api.group(1, &["bob"]);
    // A client that does not go keeps the node for the whole of its window.
    let mut stays = TcpStream::connect(node.listen).unwrap();
    stays.write_all(b"GET /ws HTTP/1.1\r\n").unwrap();
    let (ends, mut stored) = (AtomicBool::new(false), Vec::new());
    let refused = thread::scope(|scope| {
        let caller = scope.spawn(|| {
            for number in 1_u128.. {
                let answer = api.post(&format!("{path}/messages"), &message(number, "hi"));
                match answer.status {
                    201 => stored.push(answer.json()["sequence"].as_u64().unwrap()),
                    503 => return answer,
                    _ => panic!("{} {}", answer.status, answer.body),
                }
                ends.store(true, Ordering::Relaxed);
            }
            unreachable!("it ends")
        });
        until("a message is stored", || ends.load(Ordering::Relaxed).then_some(()));
        node.terminate();
        caller.join().unwrap()
    });
    assert_eq!(refused.problem(), "503 shutting_down");
    assert!(refused.has("retry-after: "), "{}", refused.head);
    drop(stays);
    assert_eq!(node.wait().code(), Some(0));
    let node = Node::start(&folder.data());
    let history = whole_history(&mut Client::fresh(node.listen, "bob"), &id);
    let messages = history.iter().filter(|entry| entry["kind"] == "message");
    assert_eq!(messages.map(|entry| entry["sequence"].as_u64().unwrap()).collect::<Vec<_>>(), stored);
}

/// A port of loopback that was free a moment ago.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn a_process_that_takes_over_takes_the_api_too() {
    let folder = Folder::new("api-handover");
    let address = free_address();
    let setting = format!("api.listen={address}");
    let mut before = Node::start_with(&folder.data(), &[&setting]);
    let api = Caller::of(&before, &folder.data());
    assert_eq!(api.address, address);
    let (path, id) = api.group(1, &["bob"]);
    let (goes_on, told) = (AtomicBool::new(true), AtomicBool::new(false));
    let after = thread::scope(|scope| {
        let caller = scope.spawn(|| {
            let mut sent = 0;
            while goes_on.load(Ordering::Relaxed) {
                sent += 1;
                let body = message(sent, "hi");
                // As a backend does: the same call again until it is answered.
                until("the message is stored", || {
                    let taken = TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok();
                    let answer = taken.then(|| api.post(&format!("{path}/messages"), &body))?;
                    assert!([0, 200, 201, 503].contains(&answer.status), "{} {}", answer.status, answer.body);
                    (answer.status == 200 || answer.status == 201).then_some(())
                });
                told.store(true, Ordering::Relaxed);
            }
            sent
        });
        until("a message is stored", || told.load(Ordering::Relaxed).then_some(()));
        let (listen, console) = (before.listen, before.console);
        let after = Node::start_at(&folder.data(), listen, console, &[&setting, "node.takeover=true"]);
        assert_eq!(before.wait().code(), Some(0));
        told.store(false, Ordering::Relaxed);
        until("a message is stored", || told.load(Ordering::Relaxed).then_some(()));
        goes_on.store(false, Ordering::Relaxed);
        (after, caller.join().unwrap())
    });
    let history = whole_history(&mut Client::fresh(after.0.listen, "bob"), &id);
    let ids: Vec<&str> = history.iter().filter_map(|entry| entry["client_message_id"].as_str()).collect();
    assert_eq!(ids, (1..=after.1).map(uuid).collect::<Vec<_>>());
}
