//! A node's life as its clients see it: who owns a data folder, how it ends in order, what a resume brings, who is sent away.

mod process_common;

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use process_common::{
    Folder, Node, Random,
    client::{Client, Gone, group, whole_history},
    command, until, uuid,
};
use serde_json::{Value, json};

/// No sequences.
const NOTHING: [u64; 0] = [];

fn send(client: &mut Client, conversation: &str, id: u128, text: &str) -> u64 {
    let body = json!({"conversation": conversation, "client_message_id": uuid(id), "text": text});
    client.must("send", body)["sequence"].as_u64().unwrap()
}

#[test]
fn a_second_node_on_the_same_data_is_refused() {
    let folder = Folder::new("owner");
    let node = Node::start(&folder.data());
    let refused = command(&folder.data(), &[]).output().unwrap();
    let text = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{text}");
    assert!(text.contains(&format!("process {}", node.pid())), "the owner is {}: {text}", node.pid());
    Client::fresh(node.listen, "alice").must("ping", json!({}));
    // However the owner ends, the folder is free then.
    node.kill();
    drop(Node::start(&folder.data()));
}

/// One of ten starts or so hung here while a shard could miss a step of its life.
#[test]
fn every_start_comes_about_on_a_busy_machine() {
    const STARTS: usize = 40;
    let busy = AtomicBool::new(true);
    let cores = thread::available_parallelism().unwrap().get();
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while busy.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        // Also when a start fails, or the scope would wait for ever.
        let started = std::panic::catch_unwind(|| {
            let folder = Folder::new("starts");
            (0..STARTS).for_each(|_| Node::start(&folder.data()).kill());
        });
        busy.store(false, Ordering::Relaxed);
        started.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

#[test]
fn sigterm_says_goodbye_and_keeps_all() {
    let folder = Folder::new("sigterm");
    let mut node = Node::start(&folder.data());
    let mut alice = Client::fresh(node.listen, "alice");
    let mut bob = Client::fresh(node.listen, "bob");
    let choir = group(&mut alice, 1, &["bob"]);
    let sequences: Vec<u64> = (1..=50).map(|id| send(&mut alice, &choir, id, "hi")).collect();
    node.terminate();
    for client in [&mut alice, &mut bob] {
        let goodbye = client.push("goodbye").unwrap();
        assert_eq!((&goodbye["code"], &goodbye["reason"]), (&json!(4000), &json!("restarting")), "{goodbye}");
        assert!(goodbye["reconnect_after_ms"].as_u64().unwrap() <= 3_000, "{goodbye}");
        assert_eq!(client.close_code(), Some(4000));
    }
    assert_eq!(node.wait().code(), Some(0));
    let node = Node::start(&folder.data());
    let history = whole_history(&mut Client::fresh(node.listen, "bob"), &choir);
    let messages = history.iter().filter(|entry| entry["kind"] == "message");
    let stored: Vec<u64> = messages.map(|entry| entry["sequence"].as_u64().unwrap()).collect();
    assert_eq!(stored, sequences);
}

/// What a client keeps between connections, of one conversation.
#[derive(Clone)]
struct Kept {
    position: Value,
    known: Value,
}

/// Connects with what was kept and reads until caught up: the sequences that came, and the position.
fn resume(address: SocketAddr, kept: &Kept) -> Result<(Client, Vec<u64>, Value), Gone> {
    let resume = json!({"position": kept.position, "known": kept.known});
    let (mut client, welcome) = Client::login(address, "reader", "device", Some(&resume))?;
    assert_eq!(welcome["resume"], "resuming");
    let mut sequences = Vec::new();
    loop {
        while let Some(push) = client.pushes.pop_front() {
            if let Some(caught_up) = push.get("caught_up") {
                return Ok((client, sequences, caught_up["position"].clone()));
            }
            let sequence = push["message"]["sequence"].as_u64();
            sequences.push(sequence.unwrap_or_else(|| panic!("not a message: {push}")));
        }
        client.pump(std::time::Duration::from_millis(100))?;
    }
}

fn missed(address: SocketAddr, kept: &Kept) -> (Vec<u64>, Kept) {
    let (_, sequences, position) = resume(address, kept).unwrap();
    (sequences, Kept { position, known: json!([]) })
}

#[test]
fn resume_brings_what_is_missing_and_nothing_else() {
    let folder = Folder::new("resume");
    let node = Node::start(&folder.data());
    let mut writer = Client::fresh(node.listen, "writer");
    let choir = group(&mut writer, 1, &["reader"]);
    let mut reader = Client::fresh(node.listen, "reader");
    let start = Kept { position: reader.push("caught_up").unwrap()["position"].clone(), known: json!([]) };
    drop(reader);
    // After no events, and twice in a row.
    let (none, again) = missed(node.listen, &start);
    assert!(none.is_empty(), "{none:?}");
    assert_eq!(missed(node.listen, &again).0, NOTHING);
    // After some, twice from the same position, and with some known.
    let first: Vec<u64> = (1..=5).map(|id| send(&mut writer, &choir, id, "one")).collect();
    assert_eq!(missed(node.listen, &again).0, first);
    let (same, caught) = missed(node.listen, &again);
    assert_eq!(same, first);
    assert_eq!(missed(node.listen, &caught).0, NOTHING);
    let known = json!([{"conversation": choir, "epoch": 1, "sequence": first[2]}]);
    assert_eq!(missed(node.listen, &Kept { known, ..again.clone() }).0, first[3..]);
    // After a restart, whether in order or not.
    node.kill();
    let mut node = Node::start(&folder.data());
    assert_eq!(missed(node.listen, &again).0, first);
    assert_eq!(missed(node.listen, &caught).0, NOTHING);
    let second = [send(&mut Client::fresh(node.listen, "writer"), &choir, 6, "two")];
    node.terminate();
    assert_eq!(node.wait().code(), Some(0));
    let node = Node::start(&folder.data());
    assert_eq!(missed(node.listen, &caught).0, second);
    assert_eq!(missed(node.listen, &again).0, [&first[..], &second].concat());
}

#[test]
fn resume_during_traffic_loses_and_repeats_nothing() {
    const MESSAGES: u128 = 400;
    let mut random = Random::from_environment();
    let folder = Folder::new("traffic");
    let node = Node::start(&folder.data());
    let mut writer = Client::fresh(node.listen, "writer");
    let choir = group(&mut writer, 1, &["reader"]);
    let mut reader = Client::fresh(node.listen, "reader");
    let mut kept = Kept { position: reader.push("caught_up").unwrap()["position"].clone(), known: json!([]) };
    drop(reader);
    let (seen, connections) = thread::scope(|scope| {
        let choir = &choir;
        let writing = scope.spawn(move || (1..=MESSAGES).map(|id| send(&mut writer, choir, id, "x")).max().unwrap());
        let mut seen: Vec<u64> = Vec::new();
        let mut connections = 0;
        // The creation is the first entry, seen before the first position.
        while seen.len() < MESSAGES as usize {
            let (mut client, sequences, position) = resume(node.listen, &kept).unwrap();
            connections += 1;
            seen.extend(sequences);
            let mut live = random.within(0..8);
            while live > 0 && seen.len() < MESSAGES as usize {
                seen.push(client.push("message").unwrap()["sequence"].as_u64().unwrap());
                live -= 1;
            }
            let last = seen.last().copied().unwrap_or(1);
            kept = Kept { position, known: json!([{"conversation": choir, "epoch": 1, "sequence": last}]) };
        }
        assert_eq!(writing.join().unwrap(), MESSAGES as u64 + 1);
        (seen, connections)
    });
    assert_eq!(seen, (2..=MESSAGES as u64 + 1).collect::<Vec<_>>());
    assert!(connections > 10, "{connections} connections are too few to tell");
    assert_eq!(missed(node.listen, &kept).0, NOTHING);
}

#[test]
fn the_same_device_replaces_itself() {
    let folder = Folder::new("replaced");
    let node = Node::start(&folder.data());
    let mut first = Client::fresh(node.listen, "alice");
    let mut other = Client::login(node.listen, "alice", "another", None).unwrap().0;
    let mut second = Client::fresh(node.listen, "alice");
    assert_eq!(first.push("goodbye").unwrap()["reason"], "replaced");
    assert_eq!(first.close_code(), Some(4502));
    second.must("ping", json!({}));
    other.must("ping", json!({}));
}

#[test]
fn a_slow_reader_is_closed_and_holds_up_nobody() {
    let folder = Folder::new("slow");
    let node = Node::start_with(&folder.data(), &["limits.outbound_bytes_max=1310720"]);
    let mut writer = Client::fresh(node.listen, "writer");
    let mut quick = Client::fresh(node.listen, "quick");
    let mut slow = Client::fresh(node.listen, "slow");
    let choir = group(&mut writer, 1, &["quick", "slow"]);
    let text = "y".repeat(16_000);
    let mut id = 0;
    // The kernel's buffers come first: some ten megabytes.
    while node.metric("antiphon_slow_consumers") < 1.0 {
        assert!(id < 5_000, "still not closed after {id} messages");
        for _ in 0..50 {
            id += 1;
            send(&mut writer, &choir, id, &text);
            writer.pushes.clear();
            while quick.pump(std::time::Duration::from_millis(1)).unwrap() {}
        }
    }
    let last = send(&mut writer, &choir, id + 1, "last");
    let mut seen = Vec::new();
    until("the quick one has all", || {
        while quick.pump(std::time::Duration::from_millis(1)).unwrap() {}
        seen.extend(quick.pushes.drain(..).filter_map(|push| push["message"]["sequence"].as_u64()));
        (seen.last() == Some(&last)).then_some(())
    });
    assert_eq!(seen, (seen[0]..=last).collect::<Vec<_>>());
    assert_eq!(slow.close_code(), Some(4001));
    // It has lost nothing: it comes back and reads.
    let history = whole_history(&mut Client::fresh(node.listen, "slow"), &choir);
    assert_eq!(history.len() as u64, last);
}
