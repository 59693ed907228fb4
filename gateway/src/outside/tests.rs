//! Drives the console over real loopback connections.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::atomic::Ordering::Relaxed,
    time::Duration,
};

use antiphon_wire::ids::TimestampMs;
use serde_json::Value;

use super::*;
use crate::{core::token::TokenVerifier, metrics::Phase};

const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";

fn start(dev: bool) -> (Outside, Arc<Metrics>) {
    let config = OutsideConfig {
        console: "127.0.0.1:0".parse().unwrap(),
        websocket_url: "ws://127.0.0.1:8080/".to_owned(),
        dev_key: dev.then(|| KEY.to_vec()),
        operator: None,
    };
    let metrics = Metrics::new(1, 1);
    (Outside::start(config, Arc::clone(&metrics), || (), || ()).unwrap(), metrics)
}

fn ask(outside: &Outside, request: &str) -> String {
    let mut stream = TcpStream::connect(outside.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn get(outside: &Outside, path: &str) -> String {
    ask(outside, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
}

fn post(outside: &Outside, headers: &str, body: &str) -> String {
    let length = body.len();
    ask(
        outside,
        &format!("POST /dev/token HTTP/1.1\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"),
    )
}

fn status(answer: &str) -> &str {
    answer.get(9..12).unwrap_or(answer)
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap().1
}

#[test]
fn an_operator_sees_health_readiness_and_figures() {
    let (outside, metrics) = start(false);
    assert_eq!(status(&get(&outside, "/healthz")), "200");
    let answer = get(&outside, "/readyz");
    assert_eq!((status(&answer), body(&answer)), ("503", r#"{"ready":false,"reasons":["starting"]}"#));
    metrics.set_phase(Phase::Serving);
    metrics.lane(0).recovered.store(true, Relaxed);
    assert_eq!(status(&get(&outside, "/readyz")), "200");
    metrics.lane(0).fenced.store(true, Relaxed);
    assert_eq!(status(&get(&outside, "/readyz")), "503");
    assert!(get(&outside, "/metrics").contains("antiphon_lane_fenced{lane=\"0\"} 1"));
    assert_eq!(status(&ask(&outside, "nonsense\r\n\r\n")), "400");
    // No development node: no tokens, and any Host, since a proxy may stand before it.
    assert_eq!(status(&post(&outside, "Host: localhost\r\n", "{}")), "405");
    assert_eq!(
        status(&ask(&outside, "GET /healthz HTTP/1.1\r\nHost: ops.example\r\nConnection: close\r\n\r\n")),
        "200"
    );
}

#[test]
fn the_page_is_served_with_strict_headers() {
    let (outside, _) = start(true);
    let answer = get(&outside, "/");
    assert_eq!(status(&answer), "200");
    let lower = answer.to_ascii_lowercase();
    for header in [
        "content-type: text/html",
        "connect-src 'self' ws://127.0.0.1:8080;",
        "frame-ancestors 'none'",
        "x-content-type-options: nosniff",
        "referrer-policy: no-referrer",
    ] {
        assert!(lower.contains(header), "{header}: {answer}");
    }
    let tag = answer.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap();
    let again = format!("GET / HTTP/1.1\r\nHost: localhost\r\nIf-None-Match: {tag}\r\nConnection: close\r\n\r\n");
    assert_eq!(status(&ask(&outside, &again)), "304");
    assert_eq!(status(&get(&outside, "/../Cargo.toml")), "404");
    assert_eq!(status(&get(&outside, "/none.js")), "404");
    assert!(get(&outside, "/none.js").contains("nosniff"));
    let config: Value = serde_json::from_str(body(&get(&outside, "/config.json"))).unwrap();
    assert_eq!((&config["websocket_url"], &config["dev"]), (&"ws://127.0.0.1:8080/".into(), &true.into()));
}

#[test]
fn a_development_token_is_for_our_page_and_scripts_only() {
    let (outside, _) = start(true);
    let port = outside.address().port();
    let json = "Content-Type: application/json\r\n";
    let good = r#"{"user":"alice","device":"tab-1"}"#;
    let from = |headers: &str| format!("Host: 127.0.0.1:{port}\r\n{json}{headers}");
    for headers in [
        from(""),
        from(&format!("Origin: http://127.0.0.1:{port}\r\nSec-Fetch-Site: same-origin\r\n")),
        format!("Host: LOCALHOST:{port}\r\nContent-Type: application/json; charset=utf-8\r\n"),
    ] {
        let answer = post(&outside, &headers, good);
        assert_eq!(status(&answer), "200", "{answer}");
        let answer: Value = serde_json::from_str(body(&answer)).unwrap();
        let verifier = TokenVerifier::for_dev(KEY).unwrap();
        let now = TimestampMs(answer["expires_ms"].as_u64().unwrap() - 1);
        let claims = verifier.verify(answer["token"].as_str().unwrap(), now).unwrap();
        assert_eq!((claims.user.as_str(), claims.device.unwrap().as_str()), ("alice", "tab-1"));
    }
    for (headers, body, expected) in [
        (from("Origin: http://evil.example\r\n"), good, "403"),
        (from("Origin: null\r\n"), good, "403"),
        (from(&format!("Origin: https://127.0.0.1:{port}\r\n")), good, "403"),
        (from("Origin: http://127.0.0.1:1\r\n"), good, "403"),
        (from("Sec-Fetch-Site: cross-site\r\n"), good, "403"),
        (format!("Host: 127.0.0.1:{port}\r\nContent-Type: text/plain\r\n"), good, "403"),
        (format!("Host: 127.0.0.1:{port}\r\n"), good, "403"),
        (format!("Host: rebound.example:{port}\r\n{json}"), good, "421"),
        (format!("Host: rebound.example:{port}\r\nOrigin: http://rebound.example:{port}\r\n{json}"), good, "421"),
        (json.to_owned(), good, "421"),
        (from(""), "{", "400"),
        (from(""), "{}", "400"),
        (from(""), r#"{"user":7}"#, "400"),
        (from(""), r#"{"user":"a b"}"#, "400"),
        (from(""), r#"{"user":"a","device":7}"#, "400"),
        (from(""), r#"{"user":"a","device":""}"#, "400"),
        (from(""), &"x".repeat(5000), "413"),
    ] {
        let answer = post(&outside, &headers, body);
        assert_eq!(status(&answer), expected, "{headers}{body}: {answer}");
        assert!(!answer.contains("access-control"), "{answer}");
    }
    assert_eq!(status(&get(&outside, "/dev/token")), "405");
}

#[test]
fn a_taken_address_is_an_error_at_the_start() {
    let (outside, metrics) = start(false);
    let config =
        OutsideConfig { console: outside.address(), websocket_url: "ws://x".to_owned(), dev_key: None, operator: None };
    assert_eq!(Outside::start(config, metrics, || (), || ()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
}

#[test]
fn idle_connections_beyond_the_cap_wait() {
    let (outside, _) = start(false);
    let idle: Vec<_> = (0..listener::CONNECTIONS_MAX).map(|_| TcpStream::connect(outside.address()).unwrap()).collect();
    let mut late = TcpStream::connect(outside.address()).unwrap();
    late.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    late.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(late.read(&mut [0; 16]).is_err());
    drop(idle);
    late.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut answer = String::new();
    late.read_to_string(&mut answer).unwrap();
    assert_eq!(status(&answer), "200");
}
