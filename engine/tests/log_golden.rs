//! Logs with every kind of record, byte for byte: what versions 1 to 3 wrote is what is read and written now.
//!
//! With `ANTIPHON_BLESS` set in the environment the files under fuzz/corpus/log are written anew: for a new format version only.

mod support;

use std::path::PathBuf;

use antiphon_engine::{EngineOptions, door::Command, encryption::NodeKey};
use antiphon_wire::{
    frame::{Change, Content},
    ids::Sequence,
};
use support::{Lane, small_options, user};

const LOG: &str = "log-00000000";
const PAGE: usize = 4096;

/// The beginning of a log with every kind of record.
fn log() -> Vec<u8> {
    log_of(small_options())
}

/// The same, encrypted, as version 3 has it.
fn sealed() -> Vec<u8> {
    log_of(EngineOptions { encryption: Some(NodeKey::new([0x60; 32])), ..small_options() })
}

fn log_of(options: EngineOptions) -> Vec<u8> {
    let mut lane = Lane::with_options(0x1064, options);
    let group = lane.create_group("ann", 1, &["bob"]);
    lane.sent("ann", group, 1, "hello");
    let ann = || user("ann");
    let members = vec![user("cid")];
    lane.ask(Command::AddMembers { user: ann(), conversation: group, members }).unwrap();
    lane.ask(Command::RemoveMembers { user: ann(), conversation: group, members: vec![user("bob")] }).unwrap();
    lane.ask(Command::SetTitle { user: ann(), conversation: group, title: "title".into() }).unwrap();
    let (read, delivered) = (Some(Sequence(3)), Some(Sequence(5)));
    lane.ask(Command::Mark { user: user("cid"), conversation: group, read, delivered }).unwrap();
    lane.create_direct("bob", "ann");
    let mut bytes = lane.files.contents(LOG).unwrap();
    bytes.truncate(9 * PAGE);
    bytes
}

/// The beginning of a log with every kind of change of a message, as version 2 has them.
fn changes() -> Vec<u8> {
    let mut lane = Lane::new(0x1065);
    let group = lane.create_group("ann", 1, &["bob"]);
    let target = lane.sent("ann", group, 1, "hello");
    lane.changed("ann", group, 2, Change::Edit { target, content: Content::text("edited") });
    lane.changed("ann", group, 3, Change::Edit { target, content: Content::text("edited again") });
    lane.changed("bob", group, 4, Change::React { target, text: "👍".into(), on: true });
    lane.changed("bob", group, 5, Change::React { target, text: "👍".into(), on: false });
    lane.changed("bob", group, 6, Change::Pin { target, on: true });
    lane.changed("ann", group, 7, Change::Delete { target });
    lane.changed("ann", group, 8, Change::Retain { before: Sequence(4) });
    let mut bytes = lane.files.contents(LOG).unwrap();
    bytes.truncate(10 * PAGE);
    bytes
}

/// The whole log, and what may become of it.
fn corpus() -> Vec<(&'static str, Vec<u8>)> {
    let whole = log();
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = whole.clone();
        change(&mut bytes);
        bytes
    };
    vec![
        ("whole", whole.clone()),
        ("torn", changed(&|bytes| bytes[6 * PAGE + 70..7 * PAGE].fill(0))),
        ("hole", changed(&|bytes| bytes[3 * PAGE..4 * PAGE].fill(0))),
        ("no-beginning", changed(&|bytes| bytes[..PAGE].fill(0xff))),
        ("newer", changed(&|bytes| bytes[2 * PAGE + 8] = 2)),
        ("two-generations", changed(&|bytes| (4..7).for_each(|page| bytes[page * PAGE + 32] = 9))),
        ("long-sequence", changed(&|bytes| bytes[PAGE + 64 + 25 + 5 + 28] = 0xff)),
        ("cut", whole[..5 * PAGE + 70].to_vec()),
        ("changes", changes()),
        ("sealed", sealed()),
    ]
}

#[test]
fn the_log_has_these_bytes() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/log");
    for (name, bytes) in corpus() {
        if std::env::var_os("ANTIPHON_BLESS").is_some() {
            std::fs::write(folder.join(name), &bytes).unwrap();
        }
        let stored = std::fs::read(folder.join(name)).unwrap();
        assert!(stored == bytes, "{name} has changed");
    }
}
