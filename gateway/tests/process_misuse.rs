//! Bad input of every kind, and a full disk: each gets its own answer, and nobody else notices.

mod process_common;

use std::{
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use antiphon_gateway::core::websocket::{MessageKind, Opcode, encode_frame, encode_message};
use antiphon_wire::{binary, frame::ServerFrame};
use process_common::{
    Folder, Node,
    client::{Client, JSON, MASK, RKYV, group, whole_history},
    exchange, report, status_of, until, uuid,
};
use serde_json::{Value, json};

/// Somebody else on the node, who must never notice anything.
struct Bystander(Client);

impl Bystander {
    fn new(node: &Node) -> Self {
        Self(Client::fresh(node.listen, "bystander"))
    }

    fn is_well(&mut self, after: &str) {
        let answer = self.0.ask(json!({"ping": {}})).unwrap_or_else(|gone| panic!("after {after}: {gone}"));
        assert!(answer["ping"]["time_ms"].is_u64(), "after {after}: {answer}");
    }
}

const UPGRADE: &str = "Host: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";
const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const VERSION: &str = "Sec-WebSocket-Version: 13\r\n";

#[test]
fn malformed_http_gets_its_status() {
    let folder = Folder::new("http");
    let node = Node::start(&folder.data());
    let mut bystander = Bystander::new(&node);
    let good = format!("{UPGRADE}{VERSION}{KEY}");
    let many: String = (0..100).map(|index| format!("X-{index}: y\r\n")).collect();
    let table = [
        ("\u{16}\u{3}\u{1}\u{2}\u{0}".to_owned(), 400),
        ("nonsense\r\n\r\n".to_owned(), 400),
        ("GET /ws HTTP/1.1\r\nbad header\r\n\r\n".to_owned(), 400),
        (format!("GET /ws HTTP/1.0\r\n{good}\r\n"), 505),
        (format!("GET /ws HTTP/7.3\r\n{good}\r\n"), 505),
        (format!("POST /ws HTTP/1.1\r\n{good}\r\n"), 405),
        (format!("GET /elsewhere HTTP/1.1\r\n{good}\r\n"), 404),
        ("GET /ws HTTP/1.1\r\n\r\n".to_owned(), 400),
        (format!("GET /ws HTTP/1.1\r\n{good}Host: y\r\n\r\n"), 400),
        (format!("GET /ws HTTP/1.1\r\n{good}Content-Length: 5\r\n\r\nhello"), 400),
        ("GET /ws HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), 426),
        (format!("GET /ws HTTP/1.1\r\n{UPGRADE}{KEY}Sec-WebSocket-Version: 12\r\n\r\n"), 426),
        (format!("GET /ws HTTP/1.1\r\n{UPGRADE}{VERSION}Sec-WebSocket-Key: short\r\n\r\n"), 400),
        (format!("GET /ws HTTP/1.1\r\n{UPGRADE}{VERSION}\r\n"), 400),
        (format!("GET /ws HTTP/1.1\r\n{good}Sec-WebSocket-Protocol: antiphon.v9.json\r\n\r\n"), 400),
        (format!("GET /ws HTTP/1.1\r\n{good}Origin: https://evil.example\r\n\r\n"), 403),
        (format!("GET /{} HTTP/1.1\r\n{good}\r\n", "a".repeat(9_000)), 414),
        (format!("GET /ws HTTP/1.1\r\n{good}X-Long: {}\r\n\r\n", "a".repeat(9_000)), 431),
        (format!("GET /ws HTTP/1.1\r\n{good}{many}\r\n"), 431),
    ];
    for (request, status) in table {
        let shown: String = request.chars().take(120).collect();
        let answer = exchange(node.listen, request.as_bytes());
        assert_eq!(status_of(&answer), status, "{shown:?}: {}", String::from_utf8_lossy(&answer));
        bystander.is_well(&shown);
    }
}

#[test]
fn broken_frames_get_their_close_code() {
    let folder = Folder::new("frames");
    let node = Node::start(&folder.data());
    let mut bystander = Bystander::new(&node);
    let frame = |opcode, fin, payload: &[u8]| encode_frame(opcode, fin, payload, MASK);
    let raw = |bytes: &[u8]| [bytes, &[0; 4]].concat();
    let ping = br#"{"id":1,"ping":{}}"#;
    let too_long = vec![b' '; 200_000];
    let half = vec![b' '; 100_000];
    let pieces = [frame(Opcode::Text, false, &half), frame(Opcode::Continuation, true, &half)].concat();
    let table = [
        ("no mask", encode_message(MessageKind::Text, ping, None), 1002),
        ("a reserved opcode", raw(&[0x83, 0x80]), 1002),
        ("a reserved control opcode", raw(&[0x8b, 0x80]), 1002),
        ("a reserved bit", raw(&[0xc1, 0x80]), 1002),
        ("a ping in pieces", raw(&[0x09, 0x80]), 1002),
        ("a long ping", raw(&[0x89, 0xfe, 0, 126]), 1002),
        ("a continuation of nothing", frame(Opcode::Continuation, true, b"a"), 1002),
        ("a message in a message", [frame(Opcode::Text, false, b"a"), frame(Opcode::Text, true, b"b")].concat(), 1002),
        ("a length in too many bytes", raw(&[0x81, 0xfe, 0, 5]), 1002),
        ("half a close code", frame(Opcode::Close, true, &[3]), 1002),
        ("a close code for inside only", frame(Opcode::Close, true, &1005_u16.to_be_bytes()), 1002),
        ("a close reason that is not UTF-8", frame(Opcode::Close, true, &[3, 0xe8, 0xff]), 1007),
        ("text that is not UTF-8", frame(Opcode::Text, true, &[b'"', 0xff, b'"']), 1007),
        ("binary where text is spoken", frame(Opcode::Binary, true, b"a"), 1003),
        ("a long message", frame(Opcode::Text, true, &too_long), 1009),
        ("a long message in pieces", pieces, 1009),
        ("the promise of an exabyte", raw(&[0x81, 0xff, 0x0f, 0, 0, 0, 0, 0, 0, 0]), 1009),
    ];
    for (name, bytes, code) in table {
        let mut client = Client::fresh(node.listen, "mallory");
        client.send_bytes(&bytes).unwrap();
        assert_eq!(client.close_code(), Some(code), "{name}");
        bystander.is_well(name);
    }
    let mut client = Client::open(node.listen, RKYV).unwrap();
    client.send_text("{}").unwrap();
    assert_eq!(client.close_code(), Some(1003), "text where binary is spoken");
    bystander.is_well("text where binary is spoken");
}

/// What a request's text is answered with: the error's code.
fn error_of(client: &mut Client, text: &str) -> String {
    client.last_text.clear();
    client.send_text(text).unwrap();
    let shown: String = text.chars().take(120).collect();
    until(&shown, || {
        client.pump(Duration::from_millis(20)).unwrap_or_else(|gone| panic!("{shown}: {gone}"));
        let frame: Value = serde_json::from_str(&client.last_text).ok()?;
        assert!(frame.get("error").is_some(), "{shown}: {frame}");
        frame["error"]["code"].as_str().map(str::to_owned)
    })
}

#[test]
fn bad_json_gets_its_error_and_the_connection_stays() {
    let folder = Folder::new("json");
    let node = Node::start(&folder.data());
    let mut bystander = Bystander::new(&node);
    let mut client = Client::fresh(node.listen, "mallory");
    client.push("caught_up").unwrap();
    let choir = group(&mut client, 1, &["bob"]);
    client.push("message").unwrap();
    let (known, other) = (uuid(5), uuid(6));
    let send = |text: &str| json!({"id": 9, "send": {"conversation": choir, "client_message_id": known, "text": text}});
    let in_choir = |kind: &str, mut body: Value| {
        body["conversation"] = json!(choir);
        json!({"id": 9, kind: body}).to_string()
    };
    let names: Vec<String> = (0..101).map(|index| format!("user-{index}")).collect();
    client.must("send", send("first")["send"].clone());
    client.push("message").unwrap();
    let table = [
        ("{".to_owned(), "malformed"),
        ("[]".to_owned(), "malformed"),
        ("\"ping\"".to_owned(), "malformed"),
        (r#"{"id":0,"ping":{}}"#.to_owned(), "malformed"),
        (r#"{"id":4294967296,"ping":{}}"#.to_owned(), "malformed"),
        (r#"{"id":1,"ping":{},"history":{}}"#.to_owned(), "malformed"),
        (r#"{"id":1,"id":2,"ping":{}}"#.to_owned(), "malformed"),
        (r#"{"id":1,"ping":7}"#.to_owned(), "malformed"),
        (r#"{"id":1,"history":{"conversation":7}}"#.to_owned(), "malformed"),
        (r#"{"id":1,"history":{"conversation":"x"}}"#.to_owned(), "invalid"),
        (format!("{}{}", "[".repeat(50_000), "]".repeat(50_000)), "malformed"),
        (r#"{"id":1,"frobnicate":{}}"#.to_owned(), "unknown_frame"),
        (r#"{"id":1,"connect":{"token":"dev:mallory","device":"b"}}"#.to_owned(), "already_connected"),
        (r#"{"id":1,"create":{"direct":"mallory"}}"#.to_owned(), "invalid"),
        (r#"{"id":1,"create":{"direct":"a b"}}"#.to_owned(), "invalid"),
        (send("").to_string(), "invalid"),
        (send(&"x".repeat(16_385)).to_string(), "too_large"),
        (send("second").to_string(), "conflict"),
        (in_choir("title", json!({"title": "x".repeat(257)})), "too_large"),
        (in_choir("members", json!({"add": names})), "too_large"),
        (in_choir("members", json!({"add": []})), "invalid"),
        (in_choir("members", json!({})), "malformed"),
        (in_choir("history", json!({"before": 3, "after": 1})), "invalid"),
        (in_choir("read", json!({"sequence": 1_000})), "invalid"),
        (in_choir("delivered", json!({"sequence": 1_000})), "invalid"),
        (json!({"id": 9, "history": {"conversation": other}}).to_string(), "not_found"),
    ];
    let mut wrong = Vec::new();
    for (text, code) in table {
        let shown: String = text.chars().take(120).collect();
        let found = error_of(&mut client, &text);
        if found != code {
            wrong.push(format!("{shown}: {found}, not {code}"));
        }
        bystander.is_well(&shown);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    client.must("ping", json!({}));
}

#[test]
fn wrong_tokens_are_refused() {
    let folder = Folder::new("tokens");
    let node = Node::start(&folder.data());
    let mut bystander = Bystander::new(&node);
    let unsigned = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSJ9.";
    let wrong = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSIsImV4cCI6OTk5OTk5OTk5OX0.AAAA";
    for token in
        [Some("nonsense"), Some("a.b.c"), Some(""), Some("dev:"), Some("dev:a b"), Some(unsigned), Some(wrong), None]
    {
        let mut client = Client::open(node.listen, JSON).unwrap();
        let answer = client.ask(json!({"connect": {"token": token, "device": "d"}})).unwrap();
        assert_eq!(answer["error"]["code"], "unauthenticated", "{token:?}: {answer}");
        assert_eq!(client.close_code(), Some(4500), "{token:?}");
        bystander.is_well(token.unwrap_or("no token"));
    }
    let mut client = Client::open(node.listen, JSON).unwrap();
    assert_eq!(error_of(&mut client, r#"{"id":1,"ping":{}}"#), "not_connected");
    let long = json!({"id": 2, "connect": {"token": "x".repeat(8_193), "device": "d"}});
    assert_eq!(error_of(&mut client, &long.to_string()), "too_large");
    bystander.is_well("a long token");
}

#[test]
fn bad_archives_get_their_error() {
    let folder = Folder::new("archives");
    let node = Node::start(&folder.data());
    let mut bystander = Bystander::new(&node);
    let mut client = Client::open(node.listen, RKYV).unwrap();
    let junk = [0xff; 64];
    let table: [(&str, Vec<u8>, &str); 6] = [
        ("nothing", vec![], "malformed"),
        ("half a header", vec![2, 0, 0], "malformed"),
        ("reserved bytes", vec![2, 1, 0, 0, 1, 0, 0, 0], "malformed"),
        ("a kind that is none", vec![99, 0, 0, 0, 1, 0, 0, 0], "unknown_frame"),
        ("junk for connect", [&[1, 0, 0, 0, 1, 0, 0, 0], &junk[..]].concat(), "malformed"),
        ("junk for send", [&[7, 0, 0, 0, 1, 0, 0, 0], &junk[..]].concat(), "malformed"),
    ];
    for (name, bytes, code) in table {
        client.send_bytes(&encode_message(MessageKind::Binary, &bytes, MASK)).unwrap();
        let answer = until(name, || {
            client.pump(Duration::from_millis(20)).unwrap();
            client.binary.pop_front()
        });
        let Ok((_, ServerFrame::Error(error))) = binary::decode_server(&answer) else { panic!("{name}: {answer:?}") };
        assert_eq!(error.code.name(), code, "{name}: {}", error.text);
        bystander.is_well(name);
    }
}

#[test]
fn a_conversation_of_others_does_not_exist() {
    let folder = Folder::new("privacy");
    let node = Node::start(&folder.data());
    let mut alice = Client::fresh(node.listen, "alice");
    let choir = group(&mut alice, 1, &["bob"]);
    alice.must("send", json!({"conversation": choir, "client_message_id": uuid(1), "text": "secret"}));
    let direct = alice.must("create", json!({"direct": "bob"}))["conversation"].as_str().unwrap().to_owned();
    let mut mallory = Client::fresh(node.listen, "mallory");
    mallory.push("caught_up").unwrap();
    let requests = [
        ("members", json!({"add": ["mallory"]})),
        ("members", json!({"remove": ["alice"]})),
        ("members", json!({"remove": ["mallory"]})),
        ("members", json!({"list": {}})),
        ("title", json!({"title": "mine"})),
        ("send", json!({"client_message_id": uuid(1), "text": "secret"})),
        ("send", json!({"client_message_id": uuid(2), "text": "let me in"})),
        ("history", json!({})),
        ("history", json!({"after": 0, "limit": 1})),
        ("history", json!({"around": 1_000_000})),
        ("read", json!({"sequence": 1})),
        ("read", json!({"sequence": 1_000_000})),
        ("delivered", json!({"sequence": 1})),
        ("delivered", json!({"sequence": 1_000_000})),
    ];
    for (kind, body) in requests {
        let mut answer_about = |conversation: &str| {
            let mut body = body.clone();
            body["conversation"] = json!(conversation);
            let id = mallory.post(json!({ kind: body })).unwrap();
            let answer = mallory.answer(id).unwrap();
            assert_eq!(answer["error"]["code"], "not_found", "{kind} {body}: {answer}");
            mallory.last_text.replacen(&format!("\"id\":{id}"), "\"id\":0", 1)
        };
        let nowhere = answer_about(&uuid(0xdead_beef));
        for existing in [&choir, &direct] {
            assert_eq!(answer_about(existing), nowhere, "{kind} {body}");
        }
    }
    assert!(mallory.pushes.iter().all(|push| push.get("message").is_none()), "{:?}", mallory.pushes);
    let listed = alice.must("members", json!({"conversation": choir, "list": {}}));
    assert_eq!(listed["members"].as_array().map(Vec::len), Some(2), "{listed}");
}

/// A small file system of its own, gone when it is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Result<Self, String> {
        std::fs::create_dir_all(at).map_err(|error| error.to_string())?;
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=200m", "tmpfs"]).arg(at).output();
        match mount {
            Ok(output) if output.status.success() => Ok(Self(at.to_owned())),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Takes all room that is left.
    fn fill(&self) {
        let mut filler = File::create(self.filler()).unwrap();
        let mut piece = vec![1; 1 << 20];
        while !piece.is_empty() {
            if filler.write_all(&piece).is_err() {
                piece.truncate(piece.len() / 2);
            }
        }
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

#[test]
fn a_full_disk_is_told_and_loses_nothing() {
    let folder = Folder::new("full");
    let disk = match SmallDisk::mount(&folder.0.join("disk")) {
        Ok(disk) => disk,
        Err(why) if is_root() => panic!("no tmpfs could be mounted: {why}"),
        Err(_) => {
            return report("a_full_disk_is_told_and_loses_nothing needs root, to mount a small file system: not run");
        }
    };
    let data = disk.0.join("data");
    let settings = ["store.log_file_bytes=4194304", "store.memtable_bytes=2097152", "store.log_files_max=3"];
    let node = Node::start_with(&data, &settings);
    let mut alice = Client::fresh(node.listen, "alice");
    let mut bystander = Bystander::new(&node);
    let choir = group(&mut alice, 1, &["bob"]);
    let text = "z".repeat(16_000);
    let send = |id: u128| json!({"send": {"conversation": choir, "client_message_id": uuid(id), "text": text}});
    let mut acked: Vec<(u64, String)> = Vec::new();
    let mut id = 0;
    disk.fill();
    let error = loop {
        id += 1;
        assert!(id < 20_000, "still not full");
        let answer = alice.ask(send(id)).unwrap();
        alice.pushes.clear();
        match answer["send"]["sequence"].as_u64() {
            Some(sequence) => acked.push((sequence, uuid(id))),
            None if answer["error"]["code"] == "overloaded" => id -= 1,
            None => break answer["error"].clone(),
        }
    };
    assert_eq!(error["code"], "storage_full", "after {} messages: {error}", acked.len());
    assert_eq!(error["temporary"], true, "{error}");
    bystander.is_well("a full disk");
    // A backend hears the same.
    let secret = std::fs::read_to_string(data.join("dev-api.key")).unwrap();
    let body = json!({"client_message_id": uuid(id), "text": text}).to_string();
    let call = format!(
        "POST /v1/users/alice/conversations/{choir}/messages HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        node.api,
        secret.trim(),
        body.len()
    );
    let answer = String::from_utf8(exchange(node.api, call.as_bytes())).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\"code\":\"storage_full\""), "{answer}");
    let check = |client: &mut Client, acked: &[(u64, String)]| {
        let history = whole_history(client, &choir);
        let messages = history.iter().filter(|entry| entry["kind"] == "message");
        let of = |entry: &Value| {
            (entry["sequence"].as_u64().unwrap(), entry["client_message_id"].as_str().unwrap().to_owned())
        };
        assert_eq!(messages.map(of).collect::<Vec<_>>(), acked);
    };
    check(&mut Client::fresh(node.listen, "bob"), &acked);
    let full_after = acked.len();
    std::fs::remove_file(disk.filler()).unwrap();
    let sequence = until("sends work again", || alice.ask(send(id)).unwrap()["send"]["sequence"].as_u64());
    acked.push((sequence, uuid(id)));
    check(&mut Client::fresh(node.listen, "bob"), &acked);
    node.kill();
    let node = Node::start_with(&data, &settings);
    check(&mut Client::fresh(node.listen, "bob"), &acked);
    report(&format!("full after {full_after} messages, all of them there; went on by itself"));
}
