//! Who may ask what, over real loopback connections; a thread stands in for the shards.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use antiphon_wire::ids::{ConversationId, DeviceId, TimestampMs};
use serde_json::Value;

use super::*;
use crate::{
    core::{
        busiest::Busy,
        enquiry::{Direction, SlowConnection, SlowConnections, TraceEvent, Traced, Waiting},
        mesh::LaneId,
    },
    outside::{
        Outside, OutsideConfig,
        backend::keys::{Key, Keys, new_secret},
    },
    uring::Waker,
};

const PLACEMENT: Placement = Placement { shards: 2, lanes: 1 };

/// A console, and a thread that answers for its shards until this is dropped.
struct Console {
    outside: Outside,
    operates: String,
    reads: String,
    ends: Arc<AtomicBool>,
    shards: Option<thread::JoinHandle<()>>,
}

/// What both shards answer.
fn answer_of(shard: ShardId, question: Question) -> Answer {
    let (user, device) = (UserId::new("alice").unwrap(), DeviceId::new("phone").unwrap());
    let connection = MeshConnection { slot: 7, generation: 2 };
    let bytes = 20_000 + u64::from(shard.0);
    match question {
        Question::Busiest if shard == ShardId(0) => {
            let busy = |number, pushes_per_second| Busy {
                conversation: ConversationId([number; 16]),
                messages_per_second: 1.234_5,
                pushes_per_second,
            };
            Answer::Busiest(vec![(LaneId(0), vec![busy(1, 5.0), busy(2, 50.0)])])
        }
        Question::Busiest => Answer::Busiest(Vec::new()),
        Question::Slow => {
            let slow = SlowConnection { connection, session: Some((user, device)), bytes, for_ms: 1_500 };
            Answer::Slow(SlowConnections { connections: vec![slow], count: 1, uncounted: 0 })
        }
        Question::Sessions(asked) if asked == user => {
            Answer::Sessions(vec![SessionAt { device, shard: ShardId(1), connection }])
        }
        Question::Sessions(_) => Answer::Sessions(Vec::new()),
        Question::Waiting(of) => {
            assert_eq!((shard, of), (ShardId(1), vec![connection]));
            Answer::Waiting(vec![Some(Waiting { bytes: 9, heard_ms_ago: 100 })])
        }
        Question::Trace { user: of, connections, .. } => {
            assert!(connections.is_empty() || (shard, &connections) == (ShardId(1), &vec![connection]));
            Answer::Trace(of == user)
        }
        Question::TakeTrace(_) => {
            let event = TraceEvent {
                time: TimestampMs(5 - u64::from(shard.0)),
                device,
                direction: Direction::Out,
                kind: "message".to_owned(),
                request: None,
                conversation: Some(ConversationId([0xab; 16])),
                bytes: 300,
                waiting_bytes: 600,
            };
            Answer::TakeTrace(Some(Traced { events: vec![event], dropped: 0 }))
        }
        Question::EndTrace(_) => Answer::EndTrace,
    }
}

impl Console {
    fn start() -> Self {
        let (operates, reads) = (new_secret(), new_secret());
        let mut keys = Keys::default();
        keys.add(Key::of_secret("operates", &operates, &[Scope::Operate]).unwrap()).unwrap();
        keys.add(Key::of_secret("reads", &reads, &[Scope::Read]).unwrap()).unwrap();
        let enquiries = Enquiries::new((0..PLACEMENT.shards).map(|_| Waker::new().unwrap()).collect());
        let operator = Operator { keys: KeyRing::new(keys), enquiries: Arc::clone(&enquiries), placement: PLACEMENT };
        let config = OutsideConfig {
            console: "127.0.0.1:0".parse().unwrap(),
            websocket_url: "ws://127.0.0.1:8080/".to_owned(),
            dev_key: None,
            operator: Some(operator),
        };
        let outside = Outside::start(config, Metrics::new(2, 1), || (), || ()).unwrap();
        let ends = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&ends);
        let shards = thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                for shard in (0..PLACEMENT.shards).map(ShardId) {
                    enquiries.answer(shard, |question| answer_of(shard, question));
                }
                thread::sleep(Duration::from_millis(1));
            }
        });
        Self { outside, operates, reads, ends, shards: Some(shards) }
    }

    /// Method and path, with headers; the whole answer.
    fn ask(&self, call: &str, headers: &str) -> String {
        let mut stream = TcpStream::connect(self.outside.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let request =
            format!("{call} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: 0\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// With the good key: status and body.
    fn call(&self, call: &str) -> (String, Value) {
        let answer = self.ask(call, &format!("Authorization: Bearer {}\r\n", self.operates));
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("cache-control: no-store"), "{head}");
        (head[9..12].to_owned(), serde_json::from_str(body).unwrap_or_default())
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        let shards = self.shards.take().map(thread::JoinHandle::join);
        assert!(thread::panicking() || shards.is_some_and(|ended| ended.is_ok()));
    }
}

const CALLS: [&str; 7] = [
    "GET /operator/figures",
    "GET /operator/conversations",
    "GET /operator/connections",
    "GET /operator/users/alice",
    "POST /operator/users/alice/trace",
    "GET /operator/users/alice/trace",
    "DELETE /operator/users/alice/trace",
];

#[test]
fn nothing_is_answered_without_a_key_for_it() {
    let console = Console::start();
    let bearer = |secret: &str| format!("Authorization: Bearer {secret}\r\n");
    for call in CALLS {
        for (headers, status, code) in [
            (String::new(), "401", "unauthenticated"),
            (bearer("wrong"), "401", "unauthenticated"),
            (bearer(&console.operates[1..]), "401", "unauthenticated"),
            (format!("Authorization: Basic {}\r\n", console.operates), "401", "unauthenticated"),
            (format!("{0}{0}", bearer(&console.operates)), "401", "unauthenticated"),
            (bearer(&console.reads), "403", "missing_scope"),
        ] {
            let answer = console.ask(call, &headers);
            assert_eq!(&answer[9..12], status, "{call}: {answer}");
            assert!(answer.contains(&format!("\"code\":\"{code}\"")), "{call}: {answer}");
            for header in ["content-type: application/problem+json", "cache-control: no-store", "nosniff"] {
                assert!(answer.contains(header), "{call}: {answer}");
            }
            assert_eq!(answer.contains("www-authenticate: Bearer"), status == "401", "{call}: {answer}");
        }
        let (status, _) = console.call(call);
        assert!(["200", "201"].contains(&status.as_str()), "{call}: {status}");
    }
}

#[test]
fn the_page_needs_no_key_and_is_there_only_with_the_routes() {
    let console = Console::start();
    let answer = console.ask("GET /operator", "");
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("content-type: text/html"), "{answer}");
    assert!(answer.contains("script-src 'self'; style-src 'self';"), "{answer}");
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    assert!(!body.contains("<style") && !body.contains(" style=") && !body.contains("<script>"), "{body}");
    let config = OutsideConfig {
        console: "127.0.0.1:0".parse().unwrap(),
        websocket_url: "ws://127.0.0.1:8080/".to_owned(),
        dev_key: None,
        operator: None,
    };
    let bare = Outside::start(config, Metrics::new(1, 1), || (), || ()).unwrap();
    for path in ["/operator", "/operator/", "/operator/index.html", "/operator/figures", "/operator/users/alice"] {
        let mut stream = TcpStream::connect(bare.address()).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 404 "), "{path}: {answer}");
    }
}

#[test]
fn figures_name_the_node_and_where_its_lanes_are() {
    let console = Console::start();
    let (status, figures) = console.call("GET /operator/figures");
    assert_eq!((status.as_str(), &figures["ready"]), ("200", &json!(false)));
    assert_eq!(figures["reasons"], json!(["starting"]));
    assert_eq!(figures["version"], env!("CARGO_PKG_VERSION"));
    assert!(figures["time_ms"].as_u64().unwrap() > 0 && figures["uptime_ms"].is_u64());
    assert_eq!(figures["shards"].as_array().unwrap().len(), 2);
    assert_eq!((&figures["lanes"][0]["lane"], &figures["lanes"][0]["shard"]), (&json!(0), &json!(0)));
}

#[test]
fn what_shards_say_is_put_together() {
    let console = Console::start();
    let (_, busy) = console.call("GET /operator/conversations");
    let rates: Vec<&Value> =
        busy["conversations"].as_array().unwrap().iter().map(|busy| &busy["pushes_per_second"]).collect();
    assert_eq!(rates, [50.0, 5.0]);
    assert_eq!(busy["conversations"][0]["messages_per_second"], 1.23);
    let (_, slow) = console.call("GET /operator/connections");
    assert_eq!((&slow["count"], &slow["connections"][0]["shard"]), (&json!(2), &json!(1)));
    let expected = json!({
        "shard": 0, "connection": "7.2", "user": "alice", "device": "phone", "bytes": 20_000, "for_ms": 1_500,
    });
    assert_eq!(slow["connections"][1], expected);
    let (_, alice) = console.call("GET /operator/users/alice");
    let device = json!({
        "device": "phone", "shard": 1, "connection": "7.2", "waiting_bytes": 9, "heard_ms_ago": 100,
    });
    assert_eq!((&alice["devices"], &alice["trace"]), (&json!([device]), &Value::Null));
    let (status, nobody) = console.call("GET /operator/users/nobody");
    assert_eq!((status.as_str(), &nobody["devices"]), ("200", &json!([])));
    assert_eq!(console.call("GET /operator/users/a%20b").0, "400");
}

#[test]
fn a_trace_is_begun_read_and_ended() {
    let console = Console::start();
    let of = |user: &str| format!("/operator/users/{user}/trace");
    assert_eq!(console.call(&format!("GET {}", of("alice"))).1["code"], "not_found");
    let (status, begun) = console.call(&format!("POST {}", of("alice")));
    assert_eq!((status.as_str(), &begun["user"]), ("201", &json!("alice")));
    assert!((290_000..=300_000).contains(&begun["ends_in_ms"].as_u64().unwrap()), "{begun}");
    assert_eq!(console.call(&format!("POST {}", of("alice"))).0, "200");
    assert!(console.call("GET /operator/users/alice").1["trace"]["ends_in_ms"].is_u64());
    let (_, seen) = console.call(&format!("GET {}?since=0", of("alice")));
    let events = seen["events"].as_array().unwrap();
    let order: Vec<(&Value, &Value)> = events.iter().map(|event| (&event["number"], &event["time_ms"])).collect();
    assert_eq!(order, [(&json!(1), &json!(4)), (&json!(2), &json!(5))]);
    assert_eq!((&events[0]["conversation"], &events[0]["direction"]), (&json!("abababab"), &json!("out")));
    let (_, whole) = console.call(&format!("GET {}?since=3&redact=false", of("alice")));
    assert_eq!(whole["events"][0]["conversation"], "abababab-abab-abab-abab-abababababab");
    assert_eq!(console.call(&format!("GET {}?since=x", of("alice"))).1["code"], "invalid");
    // The stand-in has room for alice only; nothing is left of what a shard refuses.
    assert_eq!(console.call(&format!("POST {}", of("nobody"))).1["code"], "limit_reached");
    assert_eq!(console.call(&format!("GET {}", of("nobody"))).1["code"], "not_found");
    assert_eq!(console.call(&format!("DELETE {}", of("alice"))).0, "200");
    assert_eq!(console.call(&format!("DELETE {}", of("alice"))).1["code"], "not_found");
}
