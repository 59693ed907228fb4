//! A store of each format version, fixed: what that version's program wrote, and what it meant by it. The newest is there encrypted, too.
//!
//! With `ANTIPHON_BLESS` set in the environment, the files of the newest version are written anew: for a new format
//! version only.

use std::{fs, path::PathBuf};

use antiphon_engine::{
    EngineError, EngineOptions,
    door::{Command, Done},
    encryption::NodeKey,
    memory_files::{MemoryClock, MemoryFiles, MemoryRandom},
    offline::{self, Access},
};
use antiphon_wire::{
    frame::{Change, Content},
    ids::{ConversationId, Sequence},
};

use crate::support::{Lane, block_on, name_log_bytes, send, small_options, user};

const PAGE: usize = 4096;

/// The newest format version.
const NEWEST: u32 = 2;

/// A fixed store.
pub(crate) struct Golden {
    pub(crate) version: u32,
    pub(crate) files: MemoryFiles,
    /// Its dump's lines.
    pub(crate) dump: Vec<String>,
}

pub(crate) fn options() -> EngineOptions {
    EngineOptions { log_file_bytes: 512 * 1024, memtable_bytes: 4 << 20, memtable_age_ms_max: 1, ..small_options() }
}

/// The key of the encrypted store.
pub(crate) fn node_key() -> NodeKey {
    NodeKey::new([0x60; 32])
}

/// With the encrypted store's key, or that of another.
pub(crate) fn with_key(node: NodeKey) -> Access {
    Access::with_key(0, node, &MemoryRandom::new(11))
}

fn place(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/store-v{name}"))
}

/// Stores of all versions.
pub(crate) fn all() -> Vec<Golden> {
    if is_blessing() {
        bless(&NEWEST.to_string(), &write(None), 0_u16);
    }
    (1..=NEWEST).map(|version| read(version, &version.to_string())).collect()
}

/// The store of the newest version, whole.
pub(crate) fn newest() -> MemoryFiles {
    read(NEWEST, &NEWEST.to_string()).files
}

/// The same, encrypted, with a conversation that was erased.
pub(crate) fn encrypted() -> Golden {
    let name = format!("{NEWEST}-encrypted");
    if is_blessing() {
        bless(&name, &write(Some(node_key())), with_key(node_key()));
    }
    read(NEWEST, &name)
}

fn is_blessing() -> bool {
    std::env::var_os("ANTIPHON_BLESS").is_some()
}

fn read(version: u32, name: &str) -> Golden {
    let files = MemoryFiles::new(0);
    for entry in fs::read_dir(place(name)).unwrap() {
        let path = entry.unwrap().path();
        files.put(path.file_name().unwrap().to_str().unwrap(), fs::read(&path).unwrap());
    }
    let dump = fs::read_to_string(place(name).with_extension("jsonl")).unwrap();
    Golden { version, files, dump: dump.lines().map(str::to_owned).collect() }
}

fn bless(name: &str, files: &MemoryFiles, access: impl Into<Access>) {
    let place = place(name);
    let _ = fs::remove_dir_all(&place);
    fs::create_dir_all(&place).unwrap();
    files.names().iter().for_each(|name| fs::write(place.join(name), files.contents(name).unwrap()).unwrap());
    fs::write(place.with_extension("jsonl"), dump(files, access).join("\n") + "\n").unwrap();
}

pub(crate) fn dump(files: &MemoryFiles, access: impl Into<Access>) -> Vec<String> {
    let mut lines = Vec::new();
    let mut sink = |line: &str| {
        lines.push(line.to_owned());
        true
    };
    block_on(offline::dump(files.clone(), access, |_| (), &mut sink)).unwrap();
    lines
}

/// Opens files as a program does that starts today.
pub(crate) fn open(files: &MemoryFiles) -> Result<Lane, EngineError> {
    open_with(files, None)
}

/// The same, with a key.
pub(crate) fn open_with(files: &MemoryFiles, encryption: Option<NodeKey>) -> Result<Lane, EngineError> {
    let options = EngineOptions { encryption, ..options() };
    Lane::open(files.clone(), MemoryClock::new(60_000_000), MemoryRandom::new(7), options)
}

/// Everything so far becomes a segment.
pub(crate) fn flush(lane: &mut Lane) {
    lane.clock.advance(1_000);
    lane.engine.tick();
    lane.settle();
    assert_eq!(lane.engine.status().memtable_bytes, 0);
}

/// The files, log files cut behind what is used of them, and data keys behind the last; without log files never used.
fn cut(files: &MemoryFiles, access: impl Into<Access>) -> MemoryFiles {
    let shown = block_on(offline::inspect(files.clone(), access, false, |_| ())).unwrap();
    let (kept, mut log_bytes) = (MemoryFiles::new(0), 0);
    for name in files.names() {
        let mut bytes = files.contents(&name).unwrap();
        match shown.log_files.iter().find(|of| of.file == name) {
            Some(of) if of.generation == 0 => continue,
            Some(of) => {
                bytes.truncate(of.used_bytes as usize);
                log_bytes = of.used_bytes;
            }
            None if name == "keys" => {
                let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
                bytes.truncate(used.next_multiple_of(PAGE));
            }
            None => {}
        }
        kept.put(&name, bytes);
    }
    let mut manifest = kept.contents("manifest").unwrap();
    name_log_bytes(&mut manifest, log_bytes);
    kept.put("manifest", manifest);
    kept
}

/// A batch of a message to each conversation.
fn batch(lane: &mut Lane, conversations: &[ConversationId], key: u64) {
    let tokens: Vec<_> =
        conversations.iter().map(|id| lane.submit(send("ann", *id, key, &format!("message {key}")))).collect();
    lane.settle();
    for token in tokens {
        assert!(matches!(lane.answer(token), Some(Ok(Done::Sent { duplicate: false, .. }))));
    }
}

/// A small store with everything: changes of messages, segments of two levels, stored as they are and compressed, delete markers, a log
/// with every kind of record, a seal, and a witness. If it is encrypted, with a conversation that was erased.
fn write(encryption: Option<NodeKey>) -> MemoryFiles {
    let access = || encryption.clone().map_or_else(|| 0_u16.into(), with_key);
    let mut lane = Lane::with_options(0x1064, EngineOptions { encryption: encryption.clone(), ..options() });
    let ann = || user("ann");
    let erased = encryption.as_ref().map(|_| lane.create_group("ann", 9, &["bob"]));
    if let Some(id) = erased {
        lane.sent("ann", id, 90, "to be erased");
    }
    let choir = lane.create_group("ann", 1, &["bob", "cid"]);
    let band = lane.create_group("ann", 2, &["dan"]);
    let pair = lane.create_direct("ann", "bob");
    let all = [choir, band, pair];
    let mut key = 0;
    while lane.engine.status().compactions == 0 {
        batch(&mut lane, &all, key);
        flush(&mut lane);
        key += 1;
    }
    lane.ask(Command::RemoveMembers { user: ann(), conversation: choir, members: vec![user("cid")] }).unwrap();
    lane.close().unwrap();
    // The next batch begins another file, and the first is removed when its records are in segments.
    let mut lane = lane.opened_again(cut(&lane.files, access())).unwrap();
    batch(&mut lane, &all, 100);
    flush(&mut lane);
    assert!(lane.engine.status().segments > 1 && !lane.files.names().contains(&"log-00000000".to_owned()));
    // Version 2 has changes of messages: in a segment, and in the log.
    for (key, name, what) in [
        (110, "ann", Change::Edit { target: Sequence(2), content: Content::text("edited") }),
        (111, "ann", Change::Edit { target: Sequence(2), content: Content::text("edited again") }),
        (112, "bob", Change::React { target: Sequence(2), text: "👍".into(), on: true }),
        (113, "bob", Change::Pin { target: Sequence(2), on: true }),
        (114, "ann", Change::Delete { target: Sequence(3) }),
    ] {
        lane.changed(name, choir, key, what);
    }
    lane.changed("ann", band, 115, Change::Retain { before: Sequence(3) });
    flush(&mut lane);
    lane.changed("ann", choir, 116, Change::React { target: Sequence(2), text: "👍".into(), on: true });
    lane.changed("bob", choir, 117, Change::React { target: Sequence(2), text: "👍".into(), on: false });
    lane.changed("ann", pair, 118, Change::Delete { target: Sequence(2) });
    lane.sent("bob", choir, 101, "only in the log");
    lane.ask(Command::AddMembers { user: ann(), conversation: band, members: vec![user("eve")] }).unwrap();
    lane.ask(Command::RemoveMembers { user: ann(), conversation: band, members: vec![user("dan")] }).unwrap();
    lane.ask(Command::SetTitle { user: ann(), conversation: choir, title: "sung".into() }).unwrap();
    let (read, delivered) = (Some(Sequence(5)), Some(Sequence(9)));
    lane.ask(Command::Mark { user: user("bob"), conversation: pair, read, delivered }).unwrap();
    batch(&mut lane, &all, 102);
    lane.close().unwrap();
    if let Some(erased) = erased {
        assert_eq!(block_on(offline::erase(lane.files.clone(), 0, &[erased])).unwrap().erased, 1);
    }
    let files = cut(&lane.files, access());
    assert!(files.names().iter().all(|name| files.contents(name).unwrap().len() <= 24 * PAGE), "small enough to keep");
    files
}
