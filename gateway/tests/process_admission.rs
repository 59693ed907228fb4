//! Admission over real sockets: refusals reach their clients, and a load balancer's header names them.

mod process_common;

use std::{
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use antiphon_gateway::core::http::client::{Request, encode_request};
use process_common::{
    DEADLINE, Folder, Node,
    client::{Client, JSON},
    exchange, status_of, until,
};

fn upgrade() -> Vec<u8> {
    encode_request(&Request { host: "node", path: "/ws", subprotocols: &[JSON], token: None, nonce: [3; 16] })
}

/// A header of the PROXY protocol for a client at 192.0.2.`host`.
fn proxy_header(host: u8) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend([192, 0, 2, host, 127, 0, 0, 1, 0x30, 0x39, 0, 80]);
    header
}

#[test]
fn a_refusal_is_read_by_its_client_and_counted() {
    let folder = Folder::new("admission");
    let node = Node::start_with(
        &folder.data(),
        &["node.shards=1", "admission.address_per_second_max=1", "admission.address_burst_max=3"],
    );
    let mut alice = Client::fresh(node.listen, "alice");
    let answers: Vec<Vec<u8>> = (0..20).map(|_| exchange(node.listen, &[&upgrade()[..], &[0; 500]].concat())).collect();
    let refused = answers.iter().filter(|answer| status_of(answer) == 429).count();
    assert!(refused >= 10, "{refused} of {} were refused", answers.len());
    for answer in answers.iter().filter(|answer| status_of(answer) == 429) {
        let text = String::from_utf8_lossy(answer);
        assert!(text.contains("\r\nRetry-After: ") && text.ends_with("address.\n"), "{text}");
    }
    until("the refusals are counted", || {
        (node.metric("antiphon_refused_address_rate_total") >= refused as f64).then_some(())
    });
    assert_eq!(node.metric("antiphon_refused_address_rate"), node.metric("antiphon_connections_refused_total"));
    assert!(node.metric("antiphon_memory_limit_bytes") > node.metric("antiphon_memory_used_bytes"));
    assert!(node.metric("antiphon_memory_used_bytes") > 0.0 && node.metric("antiphon_memory_pressure") == 0.0);
    alice.must("ping", serde_json::json!({}));
}

#[test]
fn a_load_balancers_header_is_required_taken_off_and_believed() {
    let folder = Folder::new("proxied");
    let node = Node::start_with(
        &folder.data(),
        &[
            "node.shards=1",
            "admission.proxy_protocol_from=127.0.0.0/8",
            "admission.address_per_second_max=1",
            "admission.address_burst_max=12",
            "timing.head_timeout_ms=1000",
        ],
    );
    let get = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec();
    let through = |host| status_of(&exchange(node.listen, &[proxy_header(host), get.clone()].concat()));
    assert_eq!(through(1), 200);
    // One client uses up what it has, another does not notice.
    until("the first is limited", || (through(1) == 429).then_some(()));
    assert_eq!(through(2), 200);
    assert_eq!(exchange(node.listen, &get), b"", "no header, no answer");
    let begun = Instant::now();
    assert_eq!(exchange(node.listen, &proxy_header(3)[..20]), b"", "half a header is waited for");
    assert!(begun.elapsed() < DEADLINE);
    until("both are counted", || {
        let counted = |name| node.metric(name) == 1.0;
        (counted("antiphon_proxy_headers_refused_total") && counted("antiphon_proxy_headers_timed_out_total"))
            .then_some(())
    });
}

/// Connections between two looks at the pressure: a megabyte of what the node counts, a sixtieth of the limit.
const STEP: usize = 250;

/// Longer than the node takes from one sample to the next.
const SAMPLE: Duration = Duration::from_millis(300);

/// Opens connections that say nothing until newcomers are refused, and ends some where it was so many that they wait: a node that
/// gets little of a busy machine accepts and measures late.
fn press(node: &Node) -> Vec<TcpStream> {
    let mut silent = Vec::new();
    let mut steady = 0;
    while steady < 3 {
        let pressure = node.metric("antiphon_memory_pressure");
        if pressure == 0.0 {
            assert!(silent.len() < 18_000, "{} bytes used", node.metric("antiphon_memory_used_bytes"));
            silent.extend((0..STEP).map(|_| TcpStream::connect(node.listen).unwrap()));
        } else if pressure == 2.0 {
            assert!(!silent.is_empty(), "{} bytes used", node.metric("antiphon_memory_used_bytes"));
            silent.truncate(silent.len().saturating_sub(STEP));
        }
        steady = if pressure == 1.0 { steady + 1 } else { 0 };
        thread::sleep(SAMPLE);
    }
    silent
}

#[test]
fn near_its_memory_limit_a_node_tells_newcomers_to_come_back() {
    let folder = Folder::new("memory");
    let node = Node::start_with(
        &folder.data(),
        &[
            "node.shards=2",
            "admission.exempt=127.0.0.0/8",
            "timing.head_timeout_ms=600000",
            "timing.connect_timeout_ms=600000",
            "limits.memory_bytes_max=67108864",
        ],
    );
    let silent = press(&node);
    let answer = exchange(node.listen, &upgrade());
    assert_eq!(status_of(&answer), 503);
    assert!(String::from_utf8_lossy(&answer).contains("\r\nRetry-After: "));
    until("the refusal is counted", || (node.metric("antiphon_refused_memory_total") >= 1.0).then_some(()));
    drop(silent);
    until("there is room again", || (node.metric("antiphon_memory_pressure") == 0.0).then_some(()));
    Client::fresh(node.listen, "alice").must("ping", serde_json::json!({}));
}
