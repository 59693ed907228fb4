//! `antiphon store` on the folder of a node that ran: sound when it has ended, and a flipped byte is put down to its
//! messages.

mod process_common;

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use process_common::{
    Folder, Node, antiphon,
    client::{Client, group, whole_history},
    uuid,
};
use serde_json::{Value, json};

const PAGE: usize = 4096;
const MESSAGES: u128 = 150;

fn store(arguments: &[&str], data: &Path, input: Option<&[u8]>) -> Output {
    let mut command = antiphon();
    command.arg("store").args(arguments).arg("--data").arg(data);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let input = input.unwrap_or_default().to_vec();
    // Beside the reading: neither side may wait for the other.
    let writing = std::thread::spawn(move || drop(pipe.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writing.join().unwrap();
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn dump_to(data: &Path, output: impl Into<Stdio>) -> Output {
    let mut command = antiphon();
    command.args(["store", "dump", "--data"]).arg(data);
    command.stdin(Stdio::null()).stdout(output).stderr(Stdio::piped()).output().unwrap()
}

/// What `verify` says, and its exit code.
fn verify(data: &Path) -> (String, Option<i32>) {
    let output = store(&["verify"], data, None);
    // On a slow machine the latter also tells how far it is.
    (text(&output.stderr) + &text(&output.stdout), output.status.code())
}

/// A node that took long messages in one group until some of them were in a segment, and ended; gives the group and the
/// segment.
fn filled(folder: &Folder) -> (String, PathBuf) {
    let data = folder.data();
    let mut node = Node::start_with(&data, &["store.memtable_bytes=1048576", "node.lanes=1"]);
    let mut alice = Client::fresh(node.listen, "alice");
    let choir = group(&mut alice, 1, &["bob"]);
    for id in 1..=MESSAGES {
        let words = format!("{id} {}", "la ".repeat(4_000));
        alice.must("send", json!({"conversation": choir, "client_message_id": uuid(id), "text": words}));
    }
    let lane = data.join("lane-00");
    let segment = process_common::until("a segment", || {
        let names = fs::read_dir(&lane).unwrap().map(|entry| entry.unwrap().path());
        let mut segments: Vec<PathBuf> =
            names.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("segment-")).collect();
        segments.sort();
        // It is whole when the manifest names it.
        let listed = text(&store(&["inspect", "--json"], &data, None).stdout);
        segments.into_iter().find(|path| listed.contains(&*path.file_name().unwrap().to_string_lossy()))
    });
    node.terminate();
    assert_eq!(node.wait().code(), Some(0));
    (choir, segment)
}

#[test]
fn a_flipped_byte_is_named_with_file_offset_conversation_and_entries() {
    let folder = Folder::new("store-verify");
    let (choir, segment) = filled(&folder);
    let data = folder.data();
    let (said, code) = verify(&data);
    assert_eq!(code, Some(0), "{said}");
    let last = said.lines().last().unwrap();
    assert!(last.starts_with("verified: 1 lane, ") && last.ends_with(": no damage"), "{said}");
    let entries = format!(" 1 conversation, {} entries,", MESSAGES + 1);
    assert!(last.contains(&entries), "{said}");

    let mut bytes = fs::read(&segment).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 4;
    fs::write(&segment, &bytes).unwrap();
    let (said, code) = verify(&data);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.lines().last().unwrap().ends_with(" finding"), "{said}");
    let name = segment.file_name().unwrap().to_string_lossy();
    let line = said.lines().find(|line| line.starts_with(&format!("lane-00/{name}: byte "))).unwrap();
    let offset: usize = line.split(": byte ").nth(1).unwrap().split(':').next().unwrap().parse().unwrap();
    assert!(offset >= PAGE && offset <= at && at - offset < 8 * PAGE, "{line}");
    assert!(line.contains(&format!(": conversation {choir}: entr")), "{line}");
    let range = line.split(": entr").nth(1).unwrap();
    let numbers: Vec<u64> = range.split([' ', ':']).filter_map(|word| word.parse().ok()).collect();
    assert!(!numbers.is_empty() && numbers.iter().all(|number| (2..=MESSAGES as u64 + 1).contains(number)), "{line}");
    let report: Value = serde_json::from_slice(&store(&["verify", "--json"], &data, None).stdout).unwrap();
    assert_eq!((&report["sound"], &report["lanes"][0]["findings"][0]["offset"]), (&json!(false), &json!(offset)));
    assert_eq!(store(&["dump"], &data, None).status.code(), Some(1), "a dump is whole or none");
}

#[test]
fn a_repair_keeps_the_rest_and_says_exactly_what_is_lost() {
    let folder = Folder::new("store-repair");
    let (choir, segment) = filled(&folder);
    let (data, new) = (folder.data(), folder.0.join("new"));
    let whole = text(&store(&["dump"], &data, None).stdout);
    let mut bytes = fs::read(&segment).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 4;
    fs::write(&segment, &bytes).unwrap();
    let (verified, _) = verify(&data);
    let lost = verified.lines().find(|line| line.contains(": lost: ")).unwrap();
    let repaired = store(&["repair", "--to", new.to_str().unwrap()], &data, None);
    let said = text(&repaired.stdout);
    assert_eq!(repaired.status.code(), Some(1), "{said}{}", text(&repaired.stderr));
    assert!(said.lines().any(|line| line == lost), "{lost} is not in {said}");
    let range = lost.split(": entr").nth(1).unwrap();
    let range: Vec<u64> = range.split([' ', ':']).filter_map(|word| word.parse().ok()).collect();
    let (first, last) = (range[0], range[range.len() - 1]);
    let count = last - first + 1;
    let kept = MESSAGES as u64 + 1 - count;
    let noun = if count == 1 { "entry of them is" } else { "entries of them are" };
    let summary =
        format!("repaired: 1 lane, 1 conversation, {kept} entries: {count} {noun} lost, 0 conversations are left out");
    assert_eq!(said.lines().last(), Some(summary.as_str()), "{said}");
    // The damaged folder stays as it is.
    assert_eq!(fs::read(&segment).unwrap(), bytes);
    let (said, code) = verify(&new);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains(&format!("conversation {choir}: ")) && said.contains("lost, as a repair has found"),
        "{said}"
    );
    let dumped = text(&store(&["dump"], &new, None).stdout);
    let (entries, others): (Vec<&str>, Vec<&str>) = dumped.lines().partition(|line| line.starts_with("{\"entry\""));
    assert_eq!(entries.len() as u64, kept);
    assert!(entries.iter().all(|line| whole.contains(line)), "an entry that nobody wrote");
    assert!(
        others.contains(&format!(r#"{{"lost":{{"conversation":"{choir}","first":{first},"last":{last}}}}}"#).as_str())
    );
    assert_eq!(store(&["load"], &folder.0.join("loaded"), Some(dumped.as_bytes())).status.code(), Some(0));

    let node = Node::start_with(&new, &["node.lanes=1"]);
    let mut bob = Client::fresh(node.listen, "bob");
    let page = |after: u64| json!({"history": {"conversation": choir, "after": after, "limit": 1}});
    let answer = bob.ask(page(first - 1)).unwrap();
    assert_eq!(answer["error"]["code"], "damaged", "{answer}");
    for (after, next) in [(first - 2, first - 1), (last, last + 1)] {
        let answer = bob.ask(page(after)).unwrap();
        assert_eq!(answer["history"]["entries"][0]["sequence"], json!(next), "{answer}");
    }
    let sent = bob.must("send", json!({"conversation": choir, "client_message_id": uuid(900), "text": "on"}));
    assert_eq!(sent["sequence"], json!(MESSAGES as u64 + 2));
}

#[test]
fn a_dump_makes_the_same_store_and_a_node_runs_on_it() {
    let folder = Folder::new("store-dump");
    let (choir, _) = filled(&folder);
    let dumped = store(&["dump"], &folder.data(), None);
    assert_eq!(dumped.status.code(), Some(0), "{}", text(&dumped.stderr));
    let copy = folder.0.join("copy");
    let loaded = store(&["load"], &copy, Some(&dumped.stdout));
    let said = text(&loaded.stdout);
    assert_eq!(loaded.status.code(), Some(0), "{said}{}", text(&loaded.stderr));
    assert_eq!(said, format!("loaded: 1 lane, 1 conversation, {} entries\n", MESSAGES + 1));
    assert!(store(&["dump"], &copy, None).stdout == dumped.stdout, "the dumps differ");
    // A dump that cannot be written is none; a reader that has enough of it may go.
    let full = dump_to(&copy, fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    assert_eq!(full.status.code(), Some(2));
    assert!(text(&full.stderr).contains("standard output: No space left"), "{}", text(&full.stderr));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let left = dump_to(&copy, writer);
    assert_eq!(left.status.code(), Some(0), "{}", text(&left.stderr));
    assert_eq!(verify(&copy).1, Some(0));
    // A folder that is not empty is left alone, and so is one that a dump cannot be read into.
    assert_eq!(store(&["load"], &copy, Some(&dumped.stdout)).status.code(), Some(2));
    let cut = folder.0.join("cut");
    let half = &dumped.stdout[..dumped.stdout.len() / 2];
    assert_eq!(store(&["load"], &cut, Some(half)).status.code(), Some(1));
    assert_eq!(fs::read_dir(&cut).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>(), ["LOCK"]);

    let node = Node::start_with(&copy, &["node.lanes=1"]);
    let history = whole_history(&mut Client::fresh(node.listen, "bob"), &choir);
    assert_eq!(history.len() as u128, MESSAGES + 1);
}

#[test]
fn a_running_nodes_folder_is_inspected_and_nothing_else() {
    let folder = Folder::new("store-running");
    let data = folder.data();
    let node = Node::start(&data);
    for command in ["verify", "dump"] {
        let refused = store(&[command], &data, None);
        let said = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{said}");
        assert!(said.contains(&format!("process {}", node.pid())), "{said}");
    }
    let shown = store(&["inspect"], &data, None);
    assert_eq!(shown.status.code(), Some(0), "{}", text(&shown.stderr));
    assert!(text(&shown.stdout).starts_with("lane-00: store "), "{}", text(&shown.stdout));
    Client::fresh(node.listen, "alice").must("ping", json!({}));
}

#[test]
fn what_is_no_store_is_told_with_what_to_do() {
    let folder = Folder::new("store-none");
    let none = folder.0.join("none");
    let (said, code) = verify(&none);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("there is no such folder") && !none.exists(), "{said}");
    let (said, code) = verify(&folder.0);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("there is no lane-00 in it"), "{said}");
    fs::create_dir(folder.0.join("lane-00")).unwrap();
    let (said, code) = verify(&folder.0);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("manifest: there is none") && said.contains("give the data folder"), "{said}");
    assert_eq!(store(&["verify", "--lane", "3"], &folder.0, None).status.code(), Some(2));
}
