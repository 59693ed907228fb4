//! What these tests share: a workload, and the tools called over memory files.

use antiphon_engine::{
    EngineError, EngineOptions,
    door::Command,
    manifest::SEGMENTS_MAX,
    memory_files::{MemoryFiles, MemoryRandom},
    offline::{self, Dumped, LoadError, Loader, Repaired, RestoreError, Restored, Until, VerifyReport},
};
use antiphon_wire::{
    frame::{Change, Content},
    ids::{ConversationId, Sequence},
};

use crate::support::{Lane, block_on, change, send, small_options, user};

pub(crate) const LOG: &str = "log-00000000";

pub(crate) const USERS: [&str; 5] = ["ann", "bob", "cid", "dan", "eve"];

pub(crate) fn try_verify(files: &MemoryFiles) -> Result<VerifyReport, EngineError> {
    block_on(offline::verify(files.clone(), 0_u16, |_| ()))
}

pub(crate) fn verify(files: &MemoryFiles) -> VerifyReport {
    try_verify(files).unwrap()
}

pub(crate) fn findings(report: &VerifyReport) -> Vec<String> {
    report.findings.iter().map(ToString::to_string).collect()
}

pub(crate) fn assert_sound(files: &MemoryFiles) -> VerifyReport {
    let report = verify(files);
    assert_eq!(findings(&report), [""; 0]);
    report
}

pub(crate) fn try_dump(files: &MemoryFiles) -> Result<Vec<String>, EngineError> {
    let mut lines = Vec::new();
    let mut sink = |line: &str| {
        lines.push(line.to_owned());
        true
    };
    block_on(offline::dump(files.clone(), 0_u16, |_| (), &mut sink))?;
    Ok(lines)
}

pub(crate) fn dump(files: &MemoryFiles) -> Vec<String> {
    try_dump(files).unwrap()
}

/// Loads a dump into a new folder, in segments of about so many bytes.
pub(crate) fn load(lines: &[String], segment_bytes: usize) -> Result<(MemoryFiles, Dumped), LoadError> {
    load_limited(lines, segment_bytes, SEGMENTS_MAX)
}

/// As [`load`], in at most so many segments.
pub(crate) fn load_limited(
    lines: &[String],
    segment_bytes: usize,
    segments_max: usize,
) -> Result<(MemoryFiles, Dumped), LoadError> {
    let files = MemoryFiles::new(0);
    let loaded = block_on(async {
        let mut loader = Loader::create(files.clone(), &MemoryRandom::new(5), &lines[0]).await?;
        loader.set_limits(segment_bytes, segments_max);
        let mut loaded = None;
        for line in &lines[1..] {
            loaded = loader.push(line).await?;
        }
        Ok::<_, LoadError>(loaded.expect("a dump has an end"))
    })?;
    Ok((files, loaded))
}

/// Makes a checkpoint of a folder that nobody runs.
pub(crate) fn checkpoint(files: &MemoryFiles) -> Result<MemoryFiles, EngineError> {
    let target = MemoryFiles::new(0);
    block_on(offline::checkpoint(files.clone(), target.clone(), 0_u16, |_| ()))?;
    Ok(target)
}

/// Restores into a new folder.
pub(crate) fn restore(files: &MemoryFiles, until: Until) -> Result<(MemoryFiles, Restored), RestoreError> {
    let target = MemoryFiles::new(0);
    let random = MemoryRandom::new(77);
    let restored = block_on(offline::restore(files.clone(), target.clone(), 0_u16, &random, until, |_| ()))?;
    Ok((target, restored))
}

/// Repairs into a new folder.
pub(crate) fn repair(files: &MemoryFiles) -> Result<(MemoryFiles, Repaired), EngineError> {
    let target = MemoryFiles::new(0);
    let repaired = block_on(offline::repair(files.clone(), target.clone(), 0_u16, &MemoryRandom::new(78), |_| ()))?;
    Ok((target, repaired))
}

/// A dump's lines of one kind.
pub(crate) fn of_kind<'a>(lines: &'a [String], kind: &str) -> Vec<&'a str> {
    let begins = format!("{{\"{kind}\":");
    lines.iter().map(String::as_str).filter(|line| line.starts_with(&begins)).collect()
}

/// A dump without the line that tells the store's identity.
pub(crate) fn anonymous(lines: &[String]) -> Vec<String> {
    assert!(lines[0].starts_with("{\"lane\":"));
    lines[1..].to_vec()
}

/// A folder's files.
pub(crate) fn image(files: &MemoryFiles) -> Vec<(String, Vec<u8>)> {
    files.names().into_iter().map(|name| (name.clone(), files.contents(&name).unwrap())).collect()
}

/// A lane whose memtable is flushed by [`flush`].
pub(crate) fn lane(seed: u64) -> Lane {
    Lane::with_options(seed, EngineOptions { memtable_age_ms_max: 1, memtable_bytes: 4 << 20, ..small_options() })
}

/// Everything so far becomes a segment.
pub(crate) fn flush(lane: &mut Lane) {
    lane.clock.advance(1_000);
    lane.engine.tick();
    lane.settle_queued();
    assert_eq!(lane.engine.status().memtable_bytes, 0);
}

/// A group with everything that can happen in one: entries 1 to 8, of which 2, 3, 7 and 8 are messages; cid left by
/// entry 4, dan came by entry 5; bob has read up to 3.
pub(crate) fn group(lane: &mut Lane, key: u8) -> ConversationId {
    let group = lane.create_group("ann", key, &["bob", "cid"]);
    lane.sent("ann", group, 1, "one");
    lane.sent("bob", group, 2, "two");
    let ann = || user("ann");
    lane.ask(Command::RemoveMembers { user: ann(), conversation: group, members: vec![user("cid")] }).unwrap();
    lane.ask(Command::AddMembers { user: ann(), conversation: group, members: vec![user("dan")] }).unwrap();
    lane.ask(Command::SetTitle { user: ann(), conversation: group, title: "title".into() }).unwrap();
    lane.sent("dan", group, 3, "three");
    lane.sent("ann", group, 4, "four");
    let (read, delivered) = (Some(Sequence(3)), Some(Sequence(7)));
    lane.ask(Command::Mark { user: user("bob"), conversation: group, read, delivered }).unwrap();
    group
}

/// What a random number has a lane do.
pub(crate) fn step(lane: &mut Lane, conversations: &mut Vec<ConversationId>, choice: u8, number: u64) {
    let name = |shift: u32| USERS[(number >> shift) as usize % USERS.len()];
    let (one, other) = (name(0), name(8));
    let pick = conversations.get((number >> 16) as usize % conversations.len().max(1)).copied();
    let conversation = pick.unwrap_or(ConversationId([1; 16]));
    let command = match choice % 100 {
        0..6 => {
            if one != other {
                conversations.push(lane.create_direct(one, other));
            }
            return;
        }
        6..14 => {
            let command = Command::CreateGroup {
                user: user(one),
                key: antiphon_wire::ids::ClientMessageId([(number >> 24) as u8 % 3; 16]),
                title: "t".repeat((number >> 32) as usize % 3),
                members: vec![user(other)],
            };
            if let Ok(antiphon_engine::door::Done::Created { conversation, .. }) = lane.ask(command) {
                conversations.push(conversation);
            }
            return;
        }
        14..26 => {
            flush(lane);
            return;
        }
        26..28 => {
            lane.reopen();
            return;
        }
        28..44 => {
            let target = Sequence((number >> 24) % 14);
            let on = number & 1 << 32 == 0;
            let what = match (number >> 36) % 10 {
                0..3 => Change::Edit { target, content: Content::text(&"e".repeat(1 + (number >> 44) as usize % 300)) },
                3 => Change::Delete { target },
                4..7 => Change::React { target, text: ["a", "b"][(number >> 33) as usize % 2].into(), on },
                7..9 => Change::Pin { target, on },
                _ => Change::Retain { before: target },
            };
            change(one, conversation, 100 + (number >> 40) % 60, what)
        }
        44..70 => send(one, conversation, (number >> 40) % 60, &"x".repeat(1 + (number >> 32) as usize % 700)),
        70..78 => Command::AddMembers { user: user(one), conversation, members: vec![user(other), user(name(24))] },
        78..84 => Command::RemoveMembers { user: user(one), conversation, members: vec![user(other)] },
        84..88 => Command::SetTitle { user: user(one), conversation, title: format!("{}", number % 7) },
        _ => {
            let pointer = |shift: u32| Some(Sequence((number >> shift) % 12)).filter(|read| read.0 > 0);
            Command::Mark { user: user(one), conversation, read: pointer(24), delivered: pointer(32) }
        }
    };
    // Many are refused: of strangers, of direct conversations, beyond the end.
    let _ = lane.ask(command);
}
