//! Stores of older versions are read and written on; of newer ones nothing is touched.

use antiphon_engine::{
    EngineError,
    door::{Command, Done, HistoryRange},
    encryption::NodeKey,
    error::StoreError,
    memory_files::{MemoryFiles, OperationKind},
    offline,
};
use antiphon_wire::{
    frame::Content,
    ids::{ConversationId, Sequence},
};

use crate::{
    golden::{Golden, all, dump, encrypted, flush, newest, node_key, open, open_with, with_key},
    support::{Lane, block_on, entry, user},
};

const PAGE: usize = 4096;

fn conversations(lane: &mut Lane, name: &str) -> Vec<ConversationId> {
    match lane.ask(Command::Conversations { user: user(name), after: None, limit: 50 }) {
        Ok(Done::Conversations { conversations, more: false }) => {
            conversations.iter().map(|summary| summary.conversation).collect()
        }
        other => panic!("{other:?}"),
    }
}

/// How many entries a user sees.
fn seen(lane: &mut Lane, name: &str, ids: &[ConversationId]) -> usize {
    ids.iter().map(|id| lane.whole_history(name, *id).len()).sum()
}

#[test]
fn a_store_of_every_version_is_read_and_written_on() {
    for Golden { version, files, dump: expected } in all() {
        let files = files.crash_image(1);
        assert!(dump(&files, 0_u16) == expected, "version {version}: what is dumped is not what was written");
        let report = block_on(offline::verify(files.clone(), 0_u16, |_| ())).unwrap();
        assert!(report.is_sound() && report.torn_tail.is_none(), "version {version}: {:?}", report.findings);

        let mut lane = open(&files).unwrap();
        let report = &lane.report;
        assert!(report.damage.is_empty() && report.segments_damaged.is_empty() && !report.read_only, "{report:?}");
        let ids = conversations(&mut lane, "ann");
        let before = seen(&mut lane, "ann", &ids);
        // Of version 2 two are before a retention mark.
        let hidden = if version == 1 { 0 } else { 2 };
        assert!(
            (before + hidden, ids.len()) == (expected.iter().filter(|line| line.starts_with("{\"entry\"")).count(), 3)
        );
        // A retry of a message that is stored, and new ones, over a flush and restarts.
        let duplicate = lane.send("ann", ids[0], 3, "message 3").unwrap();
        assert!(matches!(duplicate, Done::Sent { duplicate: true, .. }), "{duplicate:?}");
        for (number, id) in ids.iter().enumerate() {
            lane.sent("ann", *id, 200 + number as u64, "by the next version");
            flush(&mut lane);
            lane.reopen();
        }
        lane.sent("ann", ids[0], 300, "and in its log");
        lane.crash(version.into());
        assert_eq!(seen(&mut lane, "ann", &ids), before + 4, "version {version}");
        let report = block_on(offline::verify(lane.files.clone(), 0_u16, |_| ())).unwrap();
        assert!(report.is_sound(), "version {version}: {:?}", report.findings);
        let after = dump(&lane.files, 0_u16);
        let missing = expected.iter().find(|line| line.starts_with("{\"entry\"") && !after.contains(line));
        assert_eq!(missing, None, "version {version}: an entry is another now");
    }
}

fn image(files: &MemoryFiles) -> Vec<(String, Option<Vec<u8>>)> {
    files.names().into_iter().map(|name| (name.clone(), files.contents(&name))).collect()
}

#[test]
fn an_encrypted_store_is_read_and_written_on_with_its_key_and_with_no_other() {
    let Golden { files, dump: expected, .. } = encrypted();
    let other = NodeKey::new([0x61; 32]);
    let before = image(&files);
    for (what, key, refusal) in [
        ("no key", None, EngineError::KeyNeeded),
        ("another", Some(other.clone()), EngineError::OtherKey { found: other.id(), expected: node_key().id() }),
    ] {
        assert_eq!(open_with(&files, key.clone()).err(), Some(refusal.clone()), "{what}");
        let access = key.map_or_else(|| 0_u16.into(), with_key);
        let dumped = block_on(offline::dump(files.clone(), access, |_| (), &mut |_| true));
        assert_eq!(dumped.err(), Some(refusal), "{what}");
        assert!(image(&files) == before, "{what}: something was changed");
    }
    assert!(dump(&files, with_key(node_key())) == expected, "what is dumped is not what was written");
    let is_sound = |files: &MemoryFiles| {
        let report = block_on(offline::verify(files.clone(), with_key(node_key()), |_| ())).unwrap();
        assert!(report.is_sound() && report.torn_tail.is_none(), "{:?}", report.findings);
    };
    is_sound(&files);
    for (name, bytes) in before.iter().filter_map(|(name, bytes)| Some((name, bytes.as_ref()?))) {
        for word in ["message 3", "only in the log", "edited again", "sung", "to be erased"] {
            assert!(!bytes.windows(word.len()).any(|window| window == word.as_bytes()), "{name} has {word:?}");
        }
    }
    let mut lane = open_with(&files, Some(node_key())).unwrap();
    let report = &lane.report;
    assert!(report.damage.is_empty() && report.segments_damaged.is_empty() && !report.read_only, "{report:?}");
    let ids = conversations(&mut lane, "ann");
    let entries = |lines: &[String]| lines.iter().filter(|line| line.starts_with("{\"entry\"")).count();
    // Two are before a retention mark, and what was erased is not there.
    assert_eq!((seen(&mut lane, "ann", &ids) + 2, ids.len()), (entries(&expected), 3));
    for (number, id) in ids.iter().enumerate() {
        lane.sent("ann", *id, 200 + number as u64, "by the next version");
        flush(&mut lane);
        lane.reopen();
    }
    // A conversation that it has no key of yet.
    let new = lane.create_direct("ann", "eve");
    lane.sent("ann", new, 300, "and in its log");
    lane.crash(3);
    assert_eq!(lane.whole_history("eve", new).len(), 2);
    is_sound(&lane.files);
    let after = dump(&lane.files, with_key(node_key()));
    assert_eq!(expected.iter().find(|line| line.starts_with("{\"entry\"") && !after.contains(line)), None);
    assert_eq!(entries(&after), entries(&expected) + 5);
}

/// Changes a file of the newest version.
fn changed(name: &str, change: impl FnOnce(&mut Vec<u8>)) -> MemoryFiles {
    let files = newest();
    let mut bytes = files.contents(name).unwrap();
    change(&mut bytes);
    files.put(name, bytes);
    files
}

fn seal_page(page: &mut [u8]) {
    let checksum = crc32c::crc32c(&page[..PAGE - 4]);
    page[PAGE - 4..].copy_from_slice(&checksum.to_le_bytes());
}

/// Gives a manifest or a batch, whose length and checksum have the same places, the checksum it must have.
fn seal_length(bytes: &mut [u8], zeros: &[u8]) {
    let length = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&bytes[..16]), zeros);
    let checksum = crc32c::crc32c_append(checksum, &bytes[20..length]);
    bytes[16..20].copy_from_slice(&checksum.to_le_bytes());
}

#[test]
fn a_newer_version_is_refused_by_name_and_nothing_is_touched() {
    let names = newest().names();
    let segments: Vec<&String> = names.iter().filter(|name| name.starts_with("segment-")).collect();
    let log = names.iter().find(|name| name.starts_with("log-")).unwrap();
    let batch = |page: usize| {
        changed(log, |bytes| {
            bytes[page * PAGE + 8] = 4;
            seal_length(&mut bytes[page * PAGE..], &[0; 4]);
        })
    };
    let last = newest().contents(log).unwrap().len() / PAGE - 1;
    // With the version that is met: the one before is the newest that is read.
    let mut cases: Vec<(&str, &str, u32, MemoryFiles)> = vec![
        (
            "manifest",
            "manifest",
            3,
            changed("manifest", |bytes| {
                bytes[8] = 3;
                seal_length(bytes, &[]);
            }),
        ),
        (
            "the engine's part of the manifest",
            "manifest",
            4,
            changed("manifest", |bytes| {
                let blob = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize - 58;
                assert_eq!(bytes[blob], 2);
                bytes[blob] = 4;
                seal_length(bytes, &[]);
            }),
        ),
        ("the log's first batch", log, 4, batch(0)),
        ("a batch behind others", log, 4, batch(last / 2)),
        ("the log's last batch", log, 4, batch(last)),
    ];
    for segment in segments {
        for (what, from_end) in [("a segment's header", false), ("a segment's footer", true)] {
            let files = changed(segment, |bytes| {
                let at = if from_end { bytes.len() - PAGE } else { 0 };
                bytes[at + 8] = 3;
                seal_page(&mut bytes[at..at + PAGE]);
            });
            cases.push((what, segment, 3, files));
        }
    }
    for (what, name, newer, files) in cases {
        // What an interrupted flush leaves is removed at opening; not here.
        for leftover in ["segment-00000000000000ff", "manifest.new", "log-00000009.new"] {
            files.put(leftover, vec![1; PAGE]);
        }
        let before = image(&files);
        let error = open(&files).err().unwrap_or_else(|| panic!("{what} of a newer version was opened"));
        let EngineError::Store(StoreError::NewerVersion { file, found, supported }) = &error else {
            panic!("{what}: {error}")
        };
        assert_eq!((file.as_str(), *found, *supported), (name, newer, newer - 1), "{what}");
        assert!(image(&files) == before, "{what}: something was changed");
        let counts = files.operations();
        for kind in [OperationKind::Write, OperationKind::Rename, OperationKind::Remove, OperationKind::Sync] {
            assert_eq!(counts[kind as usize], 0, "{what}: {kind:?}");
        }
        // Looking at it offline says the same.
        let looked = block_on(offline::verify(files.clone(), 0_u16, |_| ())).err();
        assert_eq!(looked, Some(error), "{what}");
    }
}

#[test]
fn what_became_of_messages_is_as_version_two_wrote_it() {
    let mut lane = open(&newest()).unwrap();
    let page = |lane: &mut Lane, id| lane.history("bob", id, HistoryRange::After(Sequence(0)), 200).unwrap();
    let ids = conversations(&mut lane, "bob");
    let choir = ids.iter().copied().find(|id| lane.whole_history("bob", *id).len() > 12).unwrap();
    for _ in 0..2 {
        let page = page(&mut lane, choir);
        let edited = page.states.iter().find(|state| state.sequence == Sequence(2)).unwrap();
        let reactions: Vec<_> = edited.reactions.iter().map(|of| (of.reaction.as_str(), of.count, of.mine)).collect();
        assert!(edited.pinned && edited.edited.is_some() && !edited.deleted);
        assert_eq!(reactions, [("👍", 1, false)]);
        assert_eq!(entry(&page.entries[1]).body, Content::text("edited again").0);
        let deleted = page.states.iter().find(|state| state.sequence == Sequence(3)).unwrap();
        assert!(deleted.deleted && entry(&page.entries[2]).body.is_empty());
        flush(&mut lane);
        lane.reopen();
    }
}
