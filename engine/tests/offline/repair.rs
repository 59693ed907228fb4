//! A repair keeps what verifies, tells exactly what is lost, and shows nobody what they may not see.

use std::collections::{BTreeMap, BTreeSet};

use antiphon_engine::{
    EngineError,
    door::{Command, Done, HistoryRange},
    error::StoreError,
    memory_files::{MemoryClock, MemoryFiles, MemoryRandom},
    offline::{Repaired, Until},
};
use antiphon_wire::{
    codes::ErrorCode,
    frame::{Change, Content, Role, RoleOf},
    ids::{ConversationId, LanePosition, Sequence},
};
use proptest::{collection::vec, prelude::*};
use serde_json::Value;

use crate::{
    support::{Lane, noise, small_options, user},
    tools::{
        LOG, anonymous, assert_sound, checkpoint, dump, findings, flush, group, lane, load, of_kind, repair, restore,
        step, try_dump, verify,
    },
};

const PAGE: usize = 4096;

/// Lines of a kind, by conversation.
fn by_conversation(lines: &[String], kind: &str) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in of_kind(lines, kind) {
        let value: Value = serde_json::from_str(line).unwrap();
        let id = value[kind]["conversation"].as_str().unwrap().to_owned();
        found.entry(id).or_default().push(line.to_owned());
    }
    found
}

/// The sequences that lines of lost entries name.
fn told(lines: &[String]) -> BTreeMap<String, BTreeSet<u64>> {
    let mut found: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    for (id, lines) in by_conversation(lines, "lost") {
        for line in lines {
            let value: Value = serde_json::from_str(&line).unwrap();
            let of = |name: &str| value["lost"][name].as_u64().unwrap();
            found.entry(id.clone()).or_default().extend(of("first")..=of("last"));
        }
    }
    found
}

/// What must hold of whatever a repair made of a damaged store: every line is the whole store's; of a conversation that was kept the members
/// are the same, and what is not there of its entries up to the last one known is told, in the store and in the report.
fn check(whole: &[String], files: &MemoryFiles, repaired: &Repaired, place: &str) {
    let report = verify(files);
    assert_eq!(findings(&report), [""; 0], "{place}");
    let lines = dump(files);
    let (members, entries) = (by_conversation(whole, "member"), by_conversation(whole, "entry"));
    let (kept_members, kept_entries) = (by_conversation(&lines, "member"), by_conversation(&lines, "entry"));
    let (told, conversations) = (told(&lines), by_conversation(&lines, "conversation"));
    let mut lost = 0;
    for (id, line) in &conversations {
        assert_eq!(kept_members.get(id), members.get(id), "{place}: {:?}", repaired.findings);
        let all = &entries[id];
        let kept = &kept_entries[id];
        assert!(kept.iter().all(|line| all.contains(line)), "{place}: an entry that nobody wrote");
        let value: Value = serde_json::from_str(&line[0]).unwrap();
        let end = value["conversation"]["last_sequence"].as_u64().unwrap();
        let sequence = |line: &String| {
            let value: Value = serde_json::from_str(line).unwrap();
            value["entry"]["sequence"].as_u64().unwrap()
        };
        let there: BTreeSet<u64> = kept.iter().map(sequence).collect();
        let not_there: BTreeSet<u64> = (1..=end).filter(|sequence| !there.contains(sequence)).collect();
        assert_eq!(&not_there, told.get(id).unwrap_or(&BTreeSet::new()), "{place}");
        lost += not_there.len() as u64;
        let in_report = |sequence: u64| {
            repaired.findings.iter().any(|of| {
                of.conversation.is_some_and(|of| of.to_string() == *id)
                    && of.first.is_some_and(|first| first.0 <= sequence)
                    && of.last.is_none_or(|last| last.0 >= sequence)
            })
        };
        let missing = all.iter().map(sequence).filter(|sequence| !there.contains(sequence));
        missing.for_each(|sequence| assert!(in_report(sequence), "{place}: {id} {sequence}: {:?}", repaired.findings));
    }
    assert_eq!((repaired.conversations, repaired.entries_lost), (conversations.len() as u64, lost), "{place}");
    // What is gone altogether is named, too, or is between the ends of what is.
    let gone = entries.keys().any(|id| !conversations.contains_key(id));
    assert!(!gone || !repaired.is_whole(), "{place}");
    // The repaired store is as good as any other.
    let (again, repaired_again) = repair(files).unwrap();
    assert!(repaired_again.is_whole(), "{place}: {:?}", repaired_again.findings);
    assert_eq!(anonymous(&dump(&again)), anonymous(&lines), "{place}");
    let (loaded, _) = load(&lines, 1 << 20).unwrap();
    assert_eq!(dump(&loaded), lines, "{place}");
    let (restored, _) = restore(files, Until::End).unwrap();
    assert_eq!(anonymous(&dump(&restored)), anonymous(&lines), "{place}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn of_a_sound_store_all_is_kept(steps in vec((any::<u8>(), any::<u64>()), 1..60)) {
        let mut lane = lane(3);
        let mut conversations = Vec::new();
        for (choice, number) in steps {
            step(&mut lane, &mut conversations, choice, number);
        }
        let before = dump(&lane.files);
        let (files, repaired) = repair(&lane.files.crash_image(1)).unwrap();
        prop_assert!(repaired.is_whole() && repaired.left_out == 0, "{:?}", repaired.findings);
        prop_assert_eq!(anonymous(&dump(&files)), anonymous(&before));
        assert_sound(&files);
    }

    /// Bytes anywhere, in segments and in the log.
    #[test]
    fn whatever_is_damaged_nothing_is_invented(
        steps in vec((any::<u8>(), any::<u64>()), 20..60),
        hits in vec((any::<u16>(), any::<u32>()), 1..4),
    ) {
        let mut lane = lane(3);
        let mut conversations = Vec::new();
        for (choice, number) in steps {
            step(&mut lane, &mut conversations, choice, number);
        }
        let _ = lane.close();
        let files = lane.files.crash_image(1);
        let whole = dump(&files);
        let names: Vec<String> = files.names().into_iter().filter(|name| name.as_str() != "manifest").collect();
        let mut places = Vec::new();
        for (which, at) in hits {
            let name = &names[usize::from(which) % names.len()];
            let bytes = files.contents(name).unwrap();
            // Where something is.
            let used = bytes.iter().rposition(|byte| *byte != 0).map_or(1, |last| last + 1);
            let at = at as usize % used;
            files.flip_bit(name, at as u64, (at % 8) as u8);
            places.push(format!("{name}: byte {at}"));
        }
        let place = places.join(", ");
        // A last write that seems not to have completed is none of the damage.
        let torn = verify(&files).torn_tail.is_some();
        match repair(&files) {
            Ok((made, repaired)) if !torn => check(&whole, &made, &repaired, &place),
            Ok((made, _)) => drop(assert_sound(&made)),
            Err(EngineError::Store(StoreError::NewerVersion { .. } | StoreError::ForeignStore { .. })) => {}
            Err(error) => panic!("{place}: {error}"),
        }
    }
}

/// A lane with two groups of long messages in one segment of many blocks, and a word after that in its log.
fn long() -> (Lane, [ConversationId; 2], String) {
    let mut lane = lane(1);
    let groups = [group(&mut lane, 1), group(&mut lane, 2)];
    for number in 10..60 {
        for group in groups {
            lane.sent("ann", group, number, &noise(number, 1_000));
        }
    }
    flush(&mut lane);
    let name = lane.files.names().into_iter().find(|name| name.starts_with("segment-")).unwrap();
    for group in groups {
        lane.sent("bob", group, 60, "the last word");
    }
    (lane, groups, name)
}

#[test]
fn a_damaged_block_takes_its_entries_and_no_others() {
    let (lane, groups, name) = long();
    let whole = dump(&lane.files);
    let blocks = verify(&lane.files).blocks;
    let end = lane.files.contents(&name).unwrap().len();
    let mut gaps = 0;
    for at in (PAGE + 20..end - 3 * PAGE).step_by(3_000) {
        let files = lane.files.crash_image(1);
        assert!(files.flip_bit(&name, at as u64, 3));
        let found = verify(&files);
        let (made, repaired) = repair(&files).unwrap();
        assert!(!repaired.is_whole());
        check(&whole, &made, &repaired, &format!("byte {at}"));
        let lost: Vec<_> = repaired.findings.iter().filter(|of| of.what.starts_with("lost")).collect();
        let verified: Vec<_> = found.findings.iter().filter(|of| of.what.starts_with("lost")).collect();
        assert_eq!(lost, verified, "byte {at}: it is what verify says");
        if repaired.left_out > 0 {
            continue;
        }
        gaps += 1;
        let noted: u64 = verify(&made).losses.iter().map(|of| of.last.unwrap().0 - of.first.unwrap().0 + 1).sum();
        assert_eq!((repaired.entries_lost, repaired.conversations), (noted, 2), "byte {at}");
        // A node runs on it: what is lost says so for ever, the rest is there, and messages go on.
        let first = repaired.findings.iter().find_map(|of| of.first).unwrap();
        let last = repaired.findings.iter().filter_map(|of| of.last).max().unwrap();
        let id = repaired.findings.iter().find_map(|of| of.conversation).unwrap();
        let mut again = Lane::open(made, MemoryClock::new(5), MemoryRandom::new(9), small_options()).unwrap();
        assert!(!again.report.read_only);
        for _ in 0..2 {
            let lost = again.history("ann", id, HistoryRange::After(Sequence(first.0 - 1)), 50);
            assert_eq!(lost.unwrap_err().code, ErrorCode::Damaged, "byte {at}");
            let behind = again.history("ann", id, HistoryRange::After(last), 200).unwrap();
            assert_eq!(behind.entries.len() as u64, behind.last.0 - last.0, "byte {at}");
            let other = groups.into_iter().find(|group| *group != id).unwrap();
            let sequence = again.sent("ann", other, 900, "goes on");
            assert_eq!(sequence.0, 60, "byte {at}");
            again.files.set_queued(false);
            again.reopen();
        }
    }
    assert!(gaps as u64 > blocks / 2, "{gaps} of {blocks}");
}

/// What the last entries did is known by rows alone where those are lost: who left, and with which role; what was unpinned, and which
/// reaction was taken back.
#[test]
fn what_lost_entries_at_the_end_undid_stays_undone() {
    let mut lane = lane(1);
    let group = lane.create_group("ann", 1, &["bob", "cid", "dan"]);
    let roles = vec![RoleOf { user: user("bob"), role: Role::Admin }, RoleOf { user: user("cid"), role: Role::Admin }];
    lane.ask(Command::SetRoles { user: user("ann"), conversation: group, roles }).unwrap();
    let ban = |on| Command::Ban { user: user("ann"), conversation: group, users: vec![user("eve")], on };
    lane.ask(ban(true)).unwrap();
    let first = lane.sent("ann", group, 1, "first");
    let react = |on| Change::React { target: first, text: "+1".into(), on };
    let pin = |on| Change::Pin { target: first, on };
    lane.changed("cid", group, 2, react(true));
    lane.changed("ann", group, 3, pin(true));
    for number in 10..60 {
        lane.sent("ann", group, number, &noise(number, 1_000));
    }
    lane.changed("cid", group, 4, react(false));
    lane.changed("ann", group, 5, pin(false));
    lane.ask(ban(false)).unwrap();
    for leaving in ["bob", "ann"] {
        let members = vec![user(leaving)];
        lane.ask(Command::RemoveMembers { user: user(leaving), conversation: group, members }).unwrap();
    }
    flush(&mut lane);
    let whole = dump(&lane.files);
    let name = lane.files.names().into_iter().find(|name| name.starts_with("segment-")).unwrap();
    let index = u64::from_le_bytes({
        let bytes = lane.files.contents(&name).unwrap();
        bytes[bytes.len() - PAGE + 32..][..8].try_into().unwrap()
    });
    let files = lane.files.crash_image(1);
    assert!(files.flip_bit(&name, index - 20, 3));
    let (made, repaired) = repair(&files).unwrap();
    assert_eq!((repaired.left_out, repaired.conversations), (0, 1), "{:?}", repaired.findings);
    assert!(repaired.entries_lost >= 6, "{:?}", repaired.findings);
    check(&whole, &made, &repaired, "the last block");
    // Who comes again is a member like others, and nothing is pinned.
    let (loaded, _) = load(&dump(&made), 1 << 20).unwrap();
    for files in [made, loaded] {
        let mut again = Lane::open(files, MemoryClock::new(5), MemoryRandom::new(9), small_options()).unwrap();
        let add =
            Command::AddMembers { user: user("cid"), conversation: group, members: vec![user("bob"), user("eve")] };
        again.ask(add).unwrap();
        let members = Command::Members { user: user("cid"), conversation: group, after: None, limit: 10 };
        let Ok(Done::Members { members, .. }) = again.ask(members) else { panic!("cid is a member") };
        let roles: Vec<_> = members.iter().map(|member| (member.user.as_str(), member.role)).collect();
        let (member, owner) = (Role::Member, Role::Owner);
        assert_eq!(roles, [("bob", member), ("cid", owner), ("dan", member), ("eve", member)]);
        let state = again.history("cid", group, HistoryRange::After(Sequence(first.0 - 1)), 1).unwrap();
        assert!(state.states.iter().all(|state| state.reactions.is_empty() && !state.pinned), "{:?}", state.states);
    }
}

#[test]
fn where_members_may_be_lost_nobody_is_shown_anything() {
    let mut lane = lane(1);
    // What lies between the first and the last key of what is lost may be lost, too.
    let mut both = [lane.create_group("ann", 1, &["bob"]), lane.create_group("ann", 2, &["bob"])];
    both.sort_unstable();
    let [other, group] = both;
    lane.sent("ann", group, 1, "for bob's eyes");
    flush(&mut lane);
    let remove = Command::RemoveMembers { user: user("ann"), conversation: group, members: vec![user("bob")] };
    lane.ask(remove).unwrap();
    lane.sent("ann", group, 2, "not for bob's");
    flush(&mut lane);
    lane.sent("ann", group, 3, "nor this");
    lane.sent("ann", other, 4, "elsewhere");
    flush(&mut lane);
    // The block of the segment that knows of the removal.
    let names = lane.files.names();
    let segments: Vec<&String> = names.iter().filter(|name| name.starts_with("segment-")).collect();
    assert_eq!(segments.len(), 6, "not merged yet");
    let files = lane.files.crash_image(1);
    assert!(files.flip_bit(segments[2], PAGE as u64 + 40, 1));
    let (made, repaired) = repair(&files).unwrap();
    assert_eq!((repaired.left_out, repaired.conversations), (1, 1));
    let said: Vec<String> = repaired.findings.iter().map(ToString::to_string).collect();
    assert!(
        said.iter().any(|line| line.contains(&format!("conversation {group}: entries 1 to 5: left out"))),
        "{said:?}"
    );
    let lines = dump(&made);
    assert!(!lines.iter().any(|line| line.contains("eyes")) && lines.iter().any(|line| line.contains("elsewhere")));
    let mut again = Lane::open(made, MemoryClock::new(5), MemoryRandom::new(9), small_options()).unwrap();
    for name in ["ann", "bob"] {
        let refused = again.history(name, group, HistoryRange::Latest, 5).unwrap_err();
        assert_eq!(refused.code, ErrorCode::NotFound);
        assert!(again.history(name, other, HistoryRange::Latest, 5).is_ok());
    }
}

/// A group so large that blocks hold nothing but members. Where one of them is lost together with the entry that removed somebody, neither says
/// who may see the group any more.
#[test]
fn where_members_and_their_removal_are_lost_nobody_is_shown_anything() {
    const MEMBERS: u64 = 600;
    let mut lane = lane(1);
    let group = lane.create_group("ann", 1, &[]);
    // Names that hardly compress.
    let name_of = |number: u64| user(&noise(number, 30).bytes().map(|byte| format!("{byte:02x}")).collect::<String>());
    let members: Vec<_> = (0..MEMBERS).map(name_of).collect();
    for members in members.chunks(100) {
        let add = Command::AddMembers { user: user("ann"), conversation: group, members: members.to_vec() };
        lane.ask(add).unwrap();
    }
    for (number, member) in (10..).zip(members.iter().step_by(20)) {
        lane.sent("ann", group, number, &noise(number, 2_000));
        let remove = Command::RemoveMembers { user: user("ann"), conversation: group, members: vec![member.clone()] };
        lane.ask(remove).unwrap();
    }
    flush(&mut lane);
    let whole = dump(&lane.files);
    let name = lane.files.names().into_iter().find(|name| name.starts_with("segment-")).unwrap();
    let end = lane.files.contents(&name).unwrap().len() - 3 * PAGE;
    // What is lost with a block: entries, or only rows that entries tell as well.
    let (mut with_rows, mut with_entries) = (Vec::new(), Vec::new());
    for at in (PAGE + 20..end).step_by(3_000) {
        let files = lane.files.crash_image(1);
        files.flip_bit(&name, at as u64, 3);
        let (_, repaired) = repair(&files).unwrap();
        match (repaired.left_out, repaired.entries_lost, repaired.findings.is_empty()) {
            (0, 0, false) => with_rows.push(at),
            (0, 1.., _) => with_entries.push(at),
            _ => {}
        }
    }
    assert!(!with_rows.is_empty() && with_entries.len() > 5, "{with_rows:?} {with_entries:?}");
    let mut left_out = 0;
    for rows in with_rows.iter().step_by(3) {
        for entries in with_entries.iter().step_by(3) {
            let files = lane.files.crash_image(1);
            assert!(files.flip_bit(&name, *rows as u64, 3) && files.flip_bit(&name, *entries as u64, 3));
            let (made, repaired) = repair(&files).unwrap();
            check(&whole, &made, &repaired, &format!("bytes {rows} and {entries}"));
            left_out += repaired.left_out;
        }
    }
    assert!(left_out > 0, "members and entries were lost together");
}

/// An older segment has a message as it was. Where the newer row and the deletion are both lost, it is not told.
#[test]
fn what_a_lost_deletion_took_away_is_not_kept() {
    let mut lane = lane(1);
    let group = group(&mut lane, 1);
    let sent: Vec<Sequence> = (10..40).map(|number| lane.sent("ann", group, number, &noise(number, 1_000))).collect();
    let deleted = lane.sent("ann", group, 40, "for nobody's eyes");
    flush(&mut lane);
    let before = lane.files.names();
    // So that the block with the new row of the message holds nothing of members.
    for (number, target) in (100..).zip(&sent) {
        let content = Content::text(&noise(number, 1_000));
        lane.changed("ann", group, number, Change::Edit { target: *target, content });
    }
    lane.changed("ann", group, 200, Change::Delete { target: deleted });
    flush(&mut lane);
    let whole = dump(&lane.files);
    let names = lane.files.names();
    let new = names.iter().filter(|name| name.starts_with("segment-") && !before.contains(name));
    let name = new.max_by_key(|name| lane.files.size_of(name)).unwrap();
    let end = lane.files.contents(name).unwrap().len() - 3 * PAGE;
    let places: Vec<usize> = (PAGE + 20..end).step_by(3_000).collect();
    let mut kept = 0;
    for row in &places {
        for deletion in places.iter().rev().take(3) {
            let files = lane.files.crash_image(1);
            files.flip_bit(name, *row as u64, 3);
            files.flip_bit(name, *deletion as u64, 5);
            let (made, repaired) = repair(&files).unwrap();
            check(&whole, &made, &repaired, &format!("bytes {row} and {deletion}"));
            assert!(!dump(&made).iter().any(|line| line.contains("nobody's eyes")), "bytes {row} and {deletion}");
            kept += repaired.conversations;
        }
    }
    assert!(kept > 10, "{kept}");
}

#[test]
fn a_segment_is_read_past_its_damaged_ends_and_index() {
    let (lane, _, name) = long();
    let whole = dump(&lane.files);
    let end = lane.files.contents(&name).unwrap().len();
    let footer = lane.files.contents(&name).unwrap()[end - PAGE..].to_vec();
    let number = |at: usize| u64::from_le_bytes(footer[at..at + 8].try_into().unwrap());
    let (index, filter) = (number(32), number(40));
    for at in [20, index + 20, filter + 20, (end - PAGE) as u64 + 60] {
        let files = lane.files.crash_image(1);
        assert!(files.flip_bit(&name, at, 3));
        assert!(!verify(&files).is_sound());
        let (made, repaired) = repair(&files).unwrap();
        assert!(repaired.is_whole() && !repaired.findings.is_empty(), "byte {at}: {:?}", repaired.findings);
        assert_eq!(anonymous(&dump(&made)), anonymous(&whole), "byte {at}");
        assert_sound(&made);
        let segments = made.names().into_iter().filter(|name| name.starts_with("segment-8")).count();
        assert_eq!(segments, 0, "what was read from is not of the store");
        // A block of data besides: a gap, and no more.
        assert!(files.flip_bit(&name, index / 4, 3));
        let (made, repaired) = repair(&files).unwrap();
        check(&whole, &made, &repaired, &format!("byte {at} and another"));
        assert_eq!((repaired.conversations, repaired.left_out), (2, 0), "byte {at}: {:?}", repaired.findings);
        assert!((1..20).contains(&repaired.entries_lost), "byte {at}: {:?}", repaired.findings);
    }
    // Where nothing says that it is the segment, it is not read; nor is another store's.
    let both = lane.files.crash_image(1);
    assert!(both.flip_bit(&name, 20, 3) && both.flip_bit(&name, (end - PAGE) as u64 + 60, 3));
    let (made, repaired) = repair(&both).unwrap();
    assert_eq!((repaired.conversations, repaired.left_out), (0, 2), "{:?}", repaired.findings);
    assert_sound(&made);
}

/// Where the log's batches begin.
fn batches(files: &MemoryFiles) -> Vec<u64> {
    let log = files.contents(LOG).unwrap();
    let begins = |page: &usize| log[page * PAGE..].starts_with(b"ANTILOG\n");
    (0..log.len() / PAGE).filter(begins).map(|page| (page * PAGE) as u64).collect()
}

#[test]
fn rot_of_the_log_is_a_gap_or_leaves_out_whose_members_changed() {
    let mut lane = lane(1);
    let group = lane.create_group("ann", 1, &["bob"]);
    lane.sent("ann", group, 1, "one");
    let message = *batches(&lane.files).last().unwrap();
    lane.sent("ann", group, 2, "two");
    let add = Command::AddMembers { user: user("ann"), conversation: group, members: vec![user("cid")] };
    lane.ask(add).unwrap();
    let addition = *batches(&lane.files).last().unwrap();
    lane.sent("ann", group, 3, "three");
    let whole = dump(&lane.files);
    let files = lane.files.crash_image(1);
    assert!(files.flip_bit(LOG, message + 70, 2));
    let (made, repaired) = repair(&files).unwrap();
    check(&whole, &made, &repaired, "a message");
    assert_eq!((repaired.conversations, repaired.entries, repaired.entries_lost, repaired.left_out), (1, 4, 1, 0));
    assert_eq!(repaired.findings[0].first, Some(Sequence(2)));
    assert!(files.flip_bit(LOG, message + 70, 2) && files.flip_bit(LOG, addition + 70, 2));
    let (made, repaired) = repair(&files).unwrap();
    assert_eq!((repaired.conversations, repaired.left_out), (0, 1), "{:?}", repaired.findings);
    assert_eq!(assert_sound(&made).conversations, 0);
}

#[test]
fn without_manifest_or_log_nothing_can_be_told() {
    let mut lane = lane(1);
    group(&mut lane, 1);
    flush(&mut lane);
    group(&mut lane, 2);
    flush(&mut lane);
    let files = lane.files.crash_image(1);
    assert!(files.flip_bit("manifest", 30, 1));
    assert!(matches!(repair(&files), Err(EngineError::Store(StoreError::Damaged { .. }))));
    let files = lane.files.crash_image(1);
    let logs: Vec<String> = files.names().into_iter().filter(|name| name.starts_with("log-")).collect();
    logs.iter().for_each(|name| files.take_away(name));
    assert!(matches!(repair(&files), Err(EngineError::LogMissing { .. })));
}

#[test]
fn a_point_before_the_end_leaves_out_what_was_repaired() {
    let (lane, _, name) = long();
    let files = lane.files.crash_image(1);
    let end = files.contents(&name).unwrap().len();
    assert!(files.flip_bit(&name, (end / 3) as u64, 3));
    assert!(try_dump(&files).is_err() && checkpoint(&files).is_ok(), "rows are not looked at");
    let (made, repaired) = repair(&files).unwrap();
    assert_eq!((repaired.left_out, repaired.conversations), (0, 2));
    let with_gaps: BTreeSet<String> = told(&dump(&made)).into_keys().collect();
    assert!(!with_gaps.is_empty());
    let (cut, restored) = restore(&made, Until::Position(LanePosition(repaired.position.0 - 1))).unwrap();
    assert_sound(&cut);
    assert_eq!(restored.left_out.iter().map(ToString::to_string).collect::<BTreeSet<_>>(), with_gaps);
    assert_eq!(restored.conversations, 2 - with_gaps.len() as u64);
}
