//! `antiphon store checkpoint` and `restore`: a node under load is copied while it runs, and what was acknowledged before is in the copy;
//! restored, it is the same messages, and to clients another store.

mod process_common;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use process_common::{
    Folder, Node, antiphon,
    client::{Client, group, whole_history},
    load, uuid,
};
use serde_json::{Value, json};

fn store(arguments: &[&str]) -> Output {
    let mut command = antiphon();
    command.arg("store").args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

fn well(arguments: &[&str]) -> Output {
    let output = store(arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", said(&output));
    output
}

/// What is refused, with its exit code.
fn refused(arguments: &[&str], code: i32) -> String {
    let output = store(arguments);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", said(&output));
    said(&output)
}

/// A checkpoint: what it says of itself.
fn checkpoint(data: &Path, to: &Path, more: &[&str]) -> Value {
    let arguments = [&["checkpoint", "--json", "--data", text(data), "--to", text(to)], more].concat();
    serde_json::from_slice(&well(&arguments).stdout).unwrap()
}

fn folder_of(made: &Value) -> PathBuf {
    PathBuf::from(made["folder"].as_str().unwrap())
}

/// Lines of a store, the lanes' own left out: they tell the store's identity.
fn dump(data: &Path) -> Vec<String> {
    let output = well(&["dump", "--data", text(data)]);
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().filter(|line| !line.starts_with(r#"{"lane":"#)).map(str::to_owned).collect()
}

/// The entries of each conversation.
fn entries(lines: &[String]) -> BTreeMap<String, Vec<&str>> {
    let mut found: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for line in lines.iter().filter(|line| line.starts_with(r#"{"entry":"#)) {
        let value: Value = serde_json::from_str(line).unwrap();
        found.entry(value["entry"]["conversation"].as_str().unwrap().to_owned()).or_default().push(line);
    }
    found
}

/// Each conversation of one begins as it does in the other.
fn assert_begins(copy: &[String], all: &[String]) {
    let (copy, all) = (entries(copy), entries(all));
    for (id, entries) in copy {
        let whole = &all[&id];
        assert!(whole.len() >= entries.len() && whole[..entries.len()] == entries[..], "{id} differs");
    }
}

#[test]
fn a_node_under_load_is_copied_and_restored() {
    let folder = Folder::new("backup");
    let (data, backups, copies) = (folder.data(), folder.0.join("backups"), folder.0.join("copies"));
    let mut node = Node::start_with(&data, &["store.memtable_bytes=1048576", "node.lanes=2"]);
    let mut alice = Client::fresh(node.listen, "alice");
    let groups: Vec<String> =
        (0..6).map(|key| group(&mut alice, key, &["bob", "writer-0", "writer-1", "writer-2"])).collect();
    let stop = AtomicBool::new(false);
    let mark = |alice: &mut Client, number: u128| {
        for (index, group) in groups.iter().enumerate() {
            let id = uuid((9 << 64) + number * 100 + index as u128);
            let words = format!("marker {number}");
            alice.must("send", json!({"conversation": group, "client_message_id": id, "text": words}));
        }
    };
    let (first, second, unshared) = thread::scope(|scope| {
        let _stop = Stop(&stop);
        for writer in 0..3_u128 {
            let (choir, stop, listen) = (&groups[writer as usize], &stop, node.listen);
            scope.spawn(move || load::write(listen, writer, choir, stop));
        }
        mark(&mut alice, 1);
        let first = checkpoint(&data, &backups, &[]);
        mark(&mut alice, 2);
        let second = checkpoint(&data, &backups, &[]);
        // Without a file of the node's own: the second shares with the first.
        let unshared = [checkpoint(&data, &copies, &["--copy"]), checkpoint(&data, &copies, &["--copy"])];
        (first, second, unshared)
    });
    let position = alice.must("ping", json!({}))["position"].clone();
    assert_eq!(
        (folder_of(&first), folder_of(&second)),
        (backups.join("checkpoint-00000001"), backups.join("checkpoint-00000002"))
    );
    let number = |made: &Value, of: &str| made[of].as_u64().unwrap();
    assert!(number(&first, "linked_bytes") > 0 && number(&first, "copied_bytes") == 0, "{first}");
    assert_eq!(number(&first, "written_bytes"), 0, "a node that runs has flushed: {first}");
    assert!(number(&unshared[0], "copied_bytes") > 0 && number(&unshared[0], "linked_bytes") == 0, "{unshared:?}");
    assert!(number(&unshared[1], "reused_bytes") > 0 && number(&unshared[1], "linked_bytes") == 0, "{unshared:?}");
    for lane in ["lane-00", "lane-01"] {
        assert!(!data.join(lane).join("checkpoint").exists(), "nothing is left in the node's folder");
    }
    node.terminate();
    assert_eq!(node.wait().code(), Some(0));

    let (all, one, two) = (dump(&data), dump(&folder_of(&first)), dump(&folder_of(&second)));
    assert_begins(&one, &two);
    assert_begins(&two, &all);
    for (copy, markers) in [(&one, 1), (&two, 2)] {
        for number in 1..=markers {
            let words = format!(r#""text":"marker {number}""#);
            assert_eq!(copy.iter().filter(|line| line.contains(&words)).count(), groups.len(), "{number} of {markers}");
        }
    }
    for made in [&first, &second, &unshared[0], &unshared[1]] {
        well(&["verify", "--data", text(&folder_of(made))]);
    }

    let new = folder.0.join("new");
    well(&["restore", "--from", text(&folder_of(&second)), "--data", text(&new)]);
    well(&["verify", "--data", text(&new)]);
    assert!(dump(&new) == two, "the restored store differs");
    goes_on(&new, &groups, &two, &json!({"position": position}));
}

/// A node runs on a restored folder: all is there and messages go on, but nobody resumes there.
fn goes_on(data: &Path, groups: &[String], lines: &[String], resume: &Value) {
    let node = Node::start_with(data, &["node.lanes=2"]);
    let (mut alice, welcome) = Client::login(node.listen, "alice", "device", Some(resume)).unwrap();
    assert_eq!(welcome["resume"], "reset", "what a client had of the other store is void");
    for group in groups {
        let history = whole_history(&mut alice, group);
        assert_eq!(history.len(), entries(lines)[group].len());
        let last = history.last().unwrap()["sequence"].as_u64().unwrap();
        let sent = alice.must("send", json!({"conversation": group, "client_message_id": uuid(77), "text": "goes on"}));
        assert_eq!(sent["sequence"].as_u64().unwrap(), last + 1);
    }
}

/// Ends the writers however a test ends.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// A folder at rest with two groups and a message of each of so many times.
fn at_rest(folder: &Folder) -> Vec<(u64, String)> {
    let data = folder.data();
    let mut node = Node::start_with(&data, &["node.lanes=1"]);
    let mut alice = Client::fresh(node.listen, "alice");
    let choir = group(&mut alice, 1, &["bob"]);
    let mut sent = Vec::new();
    for number in 0..4_u128 {
        let words = format!("number {number}");
        let message = json!({"conversation": choir, "client_message_id": uuid(number), "text": words});
        let answer = alice.must("send", message);
        sent.push((answer["time_ms"].as_u64().unwrap(), words));
        let time = sent.last().unwrap().0;
        // The next one is of another millisecond.
        process_common::until("time passes", || {
            (alice.must("ping", json!({}))["time_ms"].as_u64().unwrap() > time).then_some(())
        });
    }
    node.terminate();
    assert_eq!(node.wait().code(), Some(0));
    sent
}

#[test]
fn a_folder_at_rest_is_copied_and_restored_to_a_point() {
    let folder = Folder::new("backup-rest");
    let sent = at_rest(&folder);
    let (data, backups) = (folder.data(), folder.0.join("backups"));
    let before = fs::read_dir(data.join("lane-00")).unwrap().count();
    let told = checkpoint(&data, &backups, &[]);
    // All that the node has stored was in its log only: there is no segment to share or copy, and some are written.
    let bytes = |of: &str| told[of].as_u64().unwrap();
    assert!(bytes("written_bytes") > 0, "{told}");
    let shared = bytes("linked_bytes") + bytes("reused_bytes") + bytes("copied_bytes");
    assert_eq!(shared + bytes("written_bytes"), told["lanes"][0]["segment_bytes"].as_u64().unwrap(), "{told}");
    let made = folder_of(&told);
    let plain = well(&["checkpoint", "--data", text(&data), "--to", text(&folder.0.join("plain"))]);
    let line = said(&plain);
    assert!(line.contains("0 B copied, ") && !line.contains(" 0 B written of the log"), "{line}");
    assert_eq!(fs::read_dir(data.join("lane-00")).unwrap().count(), before, "nothing is written there");
    assert!(!data.join("checkpoint.lock").exists());
    let whole = dump(&made);
    assert!(dump(&data) == whole);
    let (time, _) = &sent[1];
    let by_time = folder.0.join("by-time");
    well(&["restore", "--from", text(&made), "--data", text(&by_time), "--until-time", &time.to_string()]);
    let by_position = folder.0.join("by-position");
    // The group and two messages.
    well(&["restore", "--from", text(&made), "--data", text(&by_position), "--until-position", "0:3"]);
    for restored in [&by_time, &by_position] {
        well(&["verify", "--data", text(restored)]);
        let lines = dump(restored);
        let there = |words: &str| lines.iter().any(|line| line.contains(words));
        assert_eq!(sent.iter().map(|(_, words)| there(words)).collect::<Vec<_>>(), [true, true, false, false]);
    }
    // Of the folder itself, too.
    let of_data = folder.0.join("of-data");
    well(&["restore", "--from", text(&data), "--data", text(&of_data)]);
    assert!(dump(&of_data) == whole);
}

#[test]
fn what_cannot_be_done_is_told_and_leaves_nothing() {
    let folder = Folder::new("backup-refused");
    at_rest(&folder);
    let (data, backups, new) = (folder.data(), folder.0.join("backups"), folder.0.join("new"));
    let made = folder_of(&checkpoint(&data, &backups, &[]));
    let restore = |from: &Path, more: &[&str], code| {
        let arguments = [&["restore", "--from", text(from), "--data", text(&new)], more].concat();
        let said = refused(&arguments, code);
        let left = fs::read_dir(&new)
            .map_or(0, |names| names.filter(|name| name.as_ref().unwrap().file_name() != "LOCK").count());
        assert_eq!(left, 0, "{said}");
        said
    };
    let is_told = |said: &str, part: &str| assert!(said.contains(part), "{said}");
    is_told(&restore(&backups, &[], 2), "checkpoint-00000001");
    is_told(&restore(&folder.0.join("none"), &[], 2), "there is no such folder");
    is_told(&restore(&made, &["--until-position", "3:1"], 2), "lane 3 is none of the 1 that there are");
    is_told(&restore(&made, &["--until-position", "0:1,0:2"], 2), "named twice");
    is_told(&restore(&made, &["--until-position", "0:99"], 2), "is beyond the copy's end");
    is_told(&restore(&made, &["--until-position", "0"], 2), "LANE:POSITION");
    is_told(&restore(&made, &["--until-time", "1", "--until-position", "0:1"], 2), "cannot be used with");
    let full = [&["restore", "--from", text(&made), "--data", text(&data)][..]].concat();
    is_told(&refused(&full, 2), "is not empty");
    // No node starts on a checkpoint, nor beside a lane that is not finished.
    let serve = |data: &Path| {
        let output = process_common::command(data, &["node.lanes=1"]).output().unwrap();
        assert_ne!(output.status.code(), Some(0));
        said(&output)
    };
    is_told(&serve(&made), "is a checkpoint");
    let unfinished = folder.0.join("unfinished");
    fs::create_dir_all(unfinished.join("making-00")).unwrap();
    is_told(&serve(&unfinished), "was interrupted");
    // A data folder is no place for checkpoints.
    is_told(&refused(&["checkpoint", "--data", text(&data), "--to", text(&data)], 2), "is no folder of checkpoints");

    // Damage, and files of two checkpoints.
    let segment = fs::read_dir(made.join("lane-00")).unwrap().map(|entry| entry.unwrap().path());
    let segment = segment.into_iter().find(|path| path.to_string_lossy().contains("segment-")).unwrap();
    let whole = fs::read(&segment).unwrap();
    let mut bytes = whole.clone();
    bytes[4_130] ^= 1;
    // Not in place: the store has the same file.
    fs::remove_file(&segment).unwrap();
    fs::write(&segment, &bytes).unwrap();
    is_told(&restore(&made, &[], 1), "the copy is damaged");
    fs::write(&segment, &whole).unwrap();
    let described = made.join("checkpoint.json");
    let was = fs::read_to_string(&described).unwrap();
    for (from, to, part, code) in [
        (r#""position": "#, r#""position": 1"#, "is not of this checkpoint", 1),
        (r#""version": 1"#, r#""version": 2"#, "is of version 2", 1),
        ("{", "", "checkpoint.json", 1),
    ] {
        fs::write(&described, was.replacen(from, to, 1)).unwrap();
        is_told(&restore(&made, &[], code), part);
    }
    let mut two: Value = serde_json::from_str(&was).unwrap();
    let mut second = two["checkpoint"]["lanes"][0].clone();
    second["lane"] = json!(1);
    two["checkpoint"]["lanes"].as_array_mut().unwrap().push(second);
    fs::write(&described, two.to_string()).unwrap();
    is_told(&restore(&made, &[], 2), "there is no lane-01");
    fs::write(&described, was).unwrap();
    well(&["restore", "--from", text(&made), "--data", text(&new)]);
}
