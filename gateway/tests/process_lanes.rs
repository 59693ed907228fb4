//! A node started with another number of lanes, and `antiphon store lanes`: nothing is lost, doubled or out of order, whenever the process
//! is killed; clients are told to begin anew.
//!
//! `ANTIPHON_KILLS` says how often a change is killed (12 if it does not), `ANTIPHON_SEED` repeats the moments.

mod process_common;

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
    thread,
    time::Duration,
};

use process_common::{
    Folder, Node, Random, antiphon,
    client::{Client, group, whole_history},
    command, number_from_environment, report, until, uuid,
};
use serde_json::{Value, json};

/// Groups, of which each lane gets some, however many there are.
const GROUPS: u8 = 12;

fn store(arguments: &[&str]) -> Output {
    let mut command = antiphon();
    command.arg("store").args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

fn well(arguments: &[&str]) -> String {
    let output = store(arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn refused(arguments: &[&str], code: i32, words: &[&str]) {
    let output = store(arguments);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", said(&output));
    for word in words {
        assert!(said(&output).contains(word), "{arguments:?}: {word:?} is not in {}", said(&output));
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn with_lanes(data: &Path, lanes: u64) -> Node {
    Node::start_with(data, &["node.shards=4", &format!("node.lanes={lanes}"), "store.memtable_bytes=1048576"])
}

fn end(mut node: Node) {
    node.terminate();
    assert_eq!(node.wait().code(), Some(0));
}

/// Sends the message of a number to a group: its sequence.
fn say(client: &mut Client, choir: &str, number: u64) -> u64 {
    let send =
        json!({"conversation": choir, "client_message_id": uuid(number.into()), "text": format!("message {number}")});
    client.must("send", send)["sequence"].as_u64().unwrap()
}

/// Entries other than times and the like: what a client shows.
fn shown(client: &mut Client, choir: &str) -> Vec<(u64, u64, String)> {
    let entries = whole_history(client, choir);
    let of = |entry: &Value| {
        let number = |name: &str| entry[name].as_u64().unwrap();
        (number("sequence"), number("ordinal"), entry["text"].as_str().unwrap_or_default().to_owned())
    };
    entries.iter().map(of).collect()
}

fn is_clean(data: &Path, lanes: usize) {
    let mut names: Vec<String> = fs::read_dir(data)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("lane"))
        .collect();
    names.sort();
    let expected: Vec<String> = (0..lanes).map(|lane| format!("lane-{lane:02}")).chain(["lanes".to_owned()]).collect();
    assert_eq!(names, expected);
    let recorded = fs::read_to_string(data.join("lanes")).unwrap();
    assert!(recorded.starts_with(&format!("{lanes} ")), "{recorded}");
}

#[test]
fn a_start_with_other_lanes_keeps_everything_and_has_clients_begin_anew() {
    let folder = Folder::new("lanes");
    let data = folder.data();
    let node = with_lanes(&data, 1);
    let mut alice = Client::fresh(node.listen, "alice");
    let groups: Vec<String> = (1..=GROUPS).map(|key| group(&mut alice, key.into(), &["bob"])).collect();
    let mut numbers = 0;
    let mut expected: Vec<Vec<(u64, u64, String)>> = Vec::new();
    let mut speak = |client: &mut Client, times: u64| {
        for _ in 0..times {
            for choir in &groups {
                numbers += 1;
                say(client, choir, numbers);
            }
        }
    };
    speak(&mut alice, 5);
    let mark = |sequence: u64| json!({"conversation": groups[0], "sequence": sequence});
    Client::fresh(node.listen, "bob").must("read", mark(4));
    let mut position = alice.must("ping", json!({}))["position"].clone();
    for choir in &groups {
        expected.push(shown(&mut alice, choir));
    }
    end(node);
    // By a start, by the tool and a start, and back; twice the same number in between.
    for (by_tool, lanes) in [(None, 2), (None, 2), (Some(3), 1), (Some(16), 2), (Some(1), 1)] {
        let before = fs::read_to_string(data.join("lanes")).unwrap();
        let mut changes = !before.starts_with(&format!("{lanes} "));
        if let Some(lanes) = by_tool {
            let told = well(&["lanes", &lanes.to_string(), "--data", text(&data)]);
            assert!(told.contains(&format!("became {lanes}")) && told.contains("0 B copied"), "{told}");
            is_clean(&data, lanes);
            well(&["verify", "--data", text(&data)]);
            changes = true;
        }
        let node = with_lanes(&data, lanes);
        is_clean(&data, lanes as usize);
        let (mut back, welcome) =
            Client::login(node.listen, "alice", "device", Some(&json!({"position": position, "known": []}))).unwrap();
        assert_eq!(welcome["resume"], if changes { "reset" } else { "resuming" }, "{by_tool:?}, {lanes} lanes");
        let listed = back.must("conversations", json!({"limit": 200}));
        assert_eq!(listed["conversations"].as_array().unwrap().len(), groups.len(), "{listed}");
        for (index, choir) in groups.iter().enumerate() {
            assert_eq!(shown(&mut back, choir), expected[index], "{by_tool:?}, {lanes} lanes: {choir}");
            // What was sent before is known.
            assert_eq!(say(&mut back, choir, index as u64 + 1), 2);
        }
        // Pointers never move back, so this asks for the one that there is.
        assert_eq!(Client::fresh(node.listen, "bob").must("read", mark(1))["read"], 4);
        speak(&mut back, 2);
        position = back.must("ping", json!({}))["position"].clone();
        for (index, choir) in groups.iter().enumerate() {
            expected[index] = shown(&mut back, choir);
        }
        end(node);
        let verified = well(&["verify", "--data", text(&data)]);
        assert!(verified.contains("no damage"), "{verified}");
    }
}

#[test]
fn a_change_that_is_killed_at_any_moment_is_undone_or_done() {
    let mut random = Random::from_environment();
    let kills = number_from_environment("ANTIPHON_KILLS").unwrap_or(12);
    let folder = Folder::new("lanes-kill");
    let data = folder.data();
    let node = with_lanes(&data, 1);
    let mut alice = Client::fresh(node.listen, "alice");
    let groups: Vec<String> = (1..=GROUPS).map(|key| group(&mut alice, key.into(), &["bob"])).collect();
    let mut expected = vec![1; groups.len()];
    let mut number = 0;
    end(node);
    let (mut unfinished, mut decided, mut changed) = (0, 0, 0);
    for kill in 0..kills {
        let was = fs::read_to_string(data.join("lanes")).unwrap();
        let lanes = if was.starts_with("1 ") { 2 } else { 1 };
        let settings = ["node.shards=4", &format!("node.lanes={lanes}"), "store.memtable_bytes=1048576"];
        let mut started = command(&data, &settings).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Some moment of the start, or one of the change itself. It is what chance decides: a wait for nothing is the point.
        if kill % 3 == 0 {
            thread::sleep(Duration::from_micros(random.within(0..100_000)));
        } else {
            until("the lanes are changed", || {
                let has_begun = data.join("changing-lanes").exists() || data.join("changed-lanes").exists();
                let is_done = || !fs::read_to_string(data.join("lanes")).unwrap_or_default().starts_with(&was[..2]);
                (has_begun || is_done()).then_some(())
            });
            thread::sleep(Duration::from_micros(random.within(0..20_000)));
        }
        started.kill().unwrap();
        started.wait().unwrap();
        unfinished += u32::from(data.join("changing-lanes").exists());
        decided += u32::from(data.join("changed-lanes").exists());
        changed += u32::from(fs::read_to_string(data.join("lanes")).unwrap_or_default() != was);
        if data.join("changed-lanes").exists() {
            refused(&["verify", "--data", text(&data)], 2, &["its number of lanes was being changed"]);
        }
        // The next one is let be ready, with either number, and killed in the middle of its work.
        let node = with_lanes(&data, 1 + random.within(0..2));
        let mut bob = Client::fresh(node.listen, "bob");
        for (index, choir) in groups.iter().enumerate() {
            let sequences: Vec<u64> = shown(&mut bob, choir).iter().map(|(sequence, ..)| *sequence).collect();
            assert_eq!(sequences, (1..=expected[index]).collect::<Vec<_>>(), "kill {kill}: {choir}");
            number += 1;
            expected[index] += 1;
            assert_eq!(say(&mut bob, choir, number), expected[index]);
        }
        node.kill();
    }
    report(&format!("of {kills} changes {unfinished} were left unfinished, {decided} decided, {changed} done"));
    let told = well(&["lanes", "5", "--data", text(&data)]);
    assert!(told.contains("became 5"), "{told}");
    is_clean(&data, 5);
    let verified = well(&["verify", "--data", text(&data)]);
    assert!(verified.contains("verified: 5 lanes") && verified.contains("no damage"), "{verified}");
}

#[test]
fn what_cannot_be_changed_is_refused_and_left_alone() {
    let folder = Folder::new("lanes-refused");
    let data = folder.data();
    refused(&["lanes", "2", "--data", text(&data)], 2, &["there is no such folder"]);
    assert!(!data.exists());
    fs::create_dir(&data).unwrap();
    refused(&["lanes", "2", "--data", text(&data)], 2, &["not a store's data folder"]);
    fs::remove_dir(&data).unwrap();
    let node = with_lanes(&data, 1);
    let mut alice = Client::fresh(node.listen, "alice");
    let choir = group(&mut alice, 1, &["bob"]);
    say(&mut alice, &choir, 1);
    for number in ["0", "17", "two"] {
        refused(&["lanes", number, "--data", text(&data)], 2, &["invalid value"]);
    }
    refused(&["lanes", "2", "--data", text(&data)], 2, &["in use by another node"]);
    let newcomer = command(&data, &["node.shards=4", "node.lanes=2", "node.takeover=true"]).output().unwrap();
    assert!(!newcomer.status.success());
    let words = said(&newcomer);
    assert!(words.contains("has 1 log lanes") && words.contains("use --lanes 1, or stop the running node"), "{words}");
    end(node);
    let told = well(&["lanes", "1", "--data", text(&data)]);
    assert_eq!(told, "there are 1 lane already\n");
    // A lane that cannot be read.
    let manifest = data.join("lane-00/manifest");
    let kept = fs::read(&manifest).unwrap();
    fs::write(&manifest, &kept[..60]).unwrap();
    let words = ["the number of lanes stays 1", "lane-00: manifest: damage", "`antiphon store verify`"];
    refused(&["lanes", "2", "--data", text(&data)], 1, &words);
    is_clean(&data, 1);
    fs::write(&manifest, &kept).unwrap();
    // Of another store.
    let recorded = fs::read_to_string(data.join("lanes")).unwrap();
    fs::write(data.join("lanes"), "1 0123456789abcdef\n").unwrap();
    refused(&["lanes", "2", "--data", text(&data)], 2, &["lanes of several stores were mixed"]);
    fs::write(data.join("lanes"), recorded).unwrap();
    let json: Value = serde_json::from_str(&well(&["lanes", "2", "--json", "--data", text(&data)])).unwrap();
    assert_eq!((&json["from"], &json["to"], &json["copied_bytes"]), (&json!(1), &json!(2), &json!(0)), "{json}");
    let node = with_lanes(&data, 2);
    assert_eq!(shown(&mut Client::fresh(node.listen, "bob"), &choir).len(), 2);
    end(node);
}

/// A file system of so many bytes, gone when it is dropped; `None` where this may not be.
struct Small(std::path::PathBuf);

impl Small {
    fn new(at: &Path, size: &str) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(at).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Self(at.to_owned()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_leaves_the_lanes_as_they_are() {
    let folder = Folder::new("lanes-full");
    let Some(disk) = Small::new(&folder.0.join("disk"), "96m") else {
        report("a_full_disk_leaves_the_lanes_as_they_are: not done, for want of the right to mount");
        return;
    };
    let data = disk.0.join("data");
    let node = with_lanes(&data, 1);
    let mut alice = Client::fresh(node.listen, "alice");
    let groups: Vec<String> = (1..=GROUPS).map(|key| group(&mut alice, key.into(), &["bob"])).collect();
    for (number, choir) in (1..).zip(&groups) {
        assert_eq!(say(&mut alice, choir, number), 2);
    }
    end(node);
    let before = well(&["dump", "--data", text(&data)]);
    // All that is left is taken.
    let filler = disk.0.join("filler");
    let mut file = fs::File::create(&filler).unwrap();
    while std::io::Write::write_all(&mut file, &[1; 4096]).is_ok() {}
    refused(&["lanes", "2", "--data", text(&data)], 2, &["space left on"]);
    is_clean(&data, 1);
    assert_eq!(well(&["dump", "--data", text(&data)]), before);
    drop(file);
    fs::remove_file(&filler).unwrap();
    well(&["lanes", "2", "--data", text(&data)]);
    let node = with_lanes(&data, 2);
    let mut bob = Client::fresh(node.listen, "bob");
    assert!(groups.iter().all(|choir| shown(&mut bob, choir).len() == 2));
    end(node);
}

/// The number of shards is nothing that is stored.
#[test]
fn the_number_of_shards_changes_freely() {
    let folder = Folder::new("shards");
    let data = folder.data();
    let start = |shards: u64| Node::start_with(&data, &[&format!("node.shards={shards}"), "node.lanes=1"]);
    let mut node = start(1);
    let mut alice = Client::fresh(node.listen, "alice");
    let choir = group(&mut alice, 1, &["bob"]);
    let mut position = Value::Null;
    for (number, shards) in (1..).zip([3, 2, 7, 1]) {
        assert_eq!(say(&mut alice, &choir, number), number + 1);
        position = alice.must("ping", json!({})).get("position").cloned().unwrap_or(position);
        end(node);
        node = start(shards);
        let (back, welcome) =
            Client::login(node.listen, "alice", "device", Some(&json!({"position": position, "known": []}))).unwrap();
        assert_eq!(welcome["resume"], "resuming", "{shards} shards");
        alice = back;
        assert_eq!(shown(&mut alice, &choir).len() as u64, number + 1);
    }
    end(node);
}
