//! What these tests share: an encrypted lane, what is said in it, and what its files are searched for.

use std::{
    collections::BTreeSet,
    task::{Context, Poll, Waker},
};

use antiphon_engine::{
    EngineOptions,
    encryption::NodeKey,
    memory_files::{MemoryFiles, MemoryRandom},
    offline::{self, Access, VerifyReport},
    stored_rows::stored_rows,
};
use antiphon_wire::{
    frame::{Change, Content},
    ids::{ConversationId, Sequence},
};

use crate::support::{Lane, block_on, small_options};

/// In everything that somebody writes here.
pub(crate) const MARKER: &str = "Xylophonmarker";

pub(crate) fn node_key() -> NodeKey {
    NodeKey::new([0x5a; 32])
}

pub(crate) fn options() -> EngineOptions {
    EngineOptions { encryption: Some(node_key()), ..small_options() }
}

pub(crate) fn access() -> Access {
    Access::with_key(0, node_key(), &MemoryRandom::new(404))
}

/// Runs work on files that queue up to one of their operations, counted from 0, and gives it up there unless it has ended before.
pub(crate) fn run_until_operation<T>(files: &MemoryFiles, work: impl Future<Output = T>, operation: u64) -> Option<T> {
    let (mut work, mut context) = (Box::pin(work), Context::from_waker(Waker::noop()));
    for _ in 0..operation {
        if let Poll::Ready(done) = work.as_mut().poll(&mut context) {
            return Some(done);
        }
        let next = files.pending().first().map(|next| next.ticket)?;
        files.release(next);
    }
    None
}

/// A title, messages, edits, deletions, reactions and pointers: of every kind that is stored.
pub(crate) fn talk(lane: &mut Lane, round: u64, messages: u64) -> Vec<ConversationId> {
    let group = titled(lane, round as u8);
    let direct = lane.create_direct(&format!("ann{round}"), "bob");
    for number in 0..messages {
        let key = round * 10_000 + number * 10;
        let text = format!("{MARKER} {round} {number} {}", "and more of it ".repeat(number as usize % 20));
        let sequence = lane.sent("ann", group, key, &text);
        lane.sent("bob", direct, key + 1, &text);
        let target = Sequence(sequence.0);
        match number % 5 {
            1 => {
                let content = Content::text(&format!("{MARKER} edited {number}"));
                lane.changed("ann", group, key + 2, Change::Edit { target, content });
            }
            2 => {
                lane.changed("bob", group, key + 2, Change::React { target, text: MARKER.into(), on: true });
            }
            3 => {
                lane.changed("bob", group, key + 2, Change::Pin { target, on: true });
            }
            4 => {
                lane.changed("ann", group, key + 2, Change::Delete { target });
            }
            _ => {}
        }
    }
    vec![group, direct]
}

fn titled(lane: &mut Lane, key: u8) -> ConversationId {
    use antiphon_engine::door::Command;
    let group = lane.create_group("ann", key, &["bob", "cid"]);
    let title = format!("{MARKER} title {key}");
    lane.ask(Command::SetTitle { user: crate::support::user("ann"), conversation: group, title }).unwrap();
    group
}

/// Files in which the marker stands in the clear.
pub(crate) fn with_marker(files: &MemoryFiles) -> Vec<String> {
    let rows = block_on(stored_rows(files)).unwrap();
    let in_rows: BTreeSet<String> =
        rows.iter().filter(|row| row.holds(MARKER.as_bytes())).map(|row| row.segment.file_name()).collect();
    let mut names = files.names();
    names.retain(|name| {
        let bytes = files.contents(name).unwrap();
        in_rows.contains(name) || bytes.windows(MARKER.len()).any(|window| window == MARKER.as_bytes())
    });
    names
}

pub(crate) fn verify(files: &MemoryFiles) -> VerifyReport {
    block_on(offline::verify(files.clone(), access(), |_| ())).unwrap()
}

pub(crate) fn findings(report: &VerifyReport) -> Vec<String> {
    report.findings.iter().map(ToString::to_string).collect()
}

pub(crate) fn assert_sound(files: &MemoryFiles) {
    assert_eq!(findings(&verify(files)), [""; 0]);
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
