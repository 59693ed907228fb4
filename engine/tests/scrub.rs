//! Reading what is stored in the background: whatever byte of a segment rots while a lane runs, the next round tells it; and it tells
//! nothing else: no read that failed once, no file that a merge has removed.

mod support;

use antiphon_engine::{
    EngineOptions,
    door::HistoryRange,
    memory_files::{MemoryFiles, OperationKind},
    offline::{self, Finding},
};
use antiphon_wire::{codes::ErrorCode, ids::ConversationId};
use support::{Lane, block_on, noise, small_options};

const PAGE: usize = 4096;

fn options() -> EngineOptions {
    EngineOptions {
        memtable_age_ms_max: 1_000,
        scrub_bytes_per_second: 64 << 20,
        scrub_round_ms_min: 1_000,
        ..small_options()
    }
}

fn segments(files: &MemoryFiles) -> Vec<String> {
    files.names().into_iter().filter(|name| name.starts_with("segment-")).collect()
}

/// A second passes.
fn pass(lane: &mut Lane) {
    lane.clock.advance(1_000);
    lane.engine.tick();
    lane.settle_queued();
}

/// A lane with segments, and one of its conversations. `merged`: some of them were compressed by a merge.
fn filled(merged: bool) -> (Lane, ConversationId) {
    let mut lane = Lane::with_options(3, EngineOptions { scrub_bytes_per_second: 0, ..options() });
    let conversation = lane.create_group("ann", 1, &["bob"]);
    for number in 0..if merged { 160 } else { 60 } {
        lane.sent("ann", conversation, number, &noise(number, 10 + number as usize * 5 % 200));
        if merged && number % 8 == 7 {
            pass(&mut lane);
        }
    }
    pass(&mut lane);
    assert_eq!(lane.engine.status().compactions > 0, merged);
    assert_eq!((lane.engine.status().scrub_bytes, lane.engine.scrubs()), (0, None), "it is off");
    (lane, conversation)
}

/// A lane that reads its segments, on a copy of another one's files.
fn reading(lane: &Lane) -> Lane {
    let files = lane.files.crash_image(1);
    Lane::open(files, lane.clock.clone(), lane.random.clone(), options()).unwrap()
}

/// One whole reading, and what it tells.
fn round(lane: &mut Lane) -> Vec<Finding> {
    // What another one has begun is none.
    for _ in 0..2 {
        let before = lane.engine.status().scrub_rounds;
        drop(lane.engine.take_scrub_findings());
        for _ in 0..20 {
            pass(lane);
            if lane.engine.status().scrub_rounds > before {
                break;
            }
        }
        assert!(lane.engine.status().scrub_rounds > before, "a round ends");
    }
    lane.engine.take_scrub_findings()
}

/// Where the footer is, and where what is before it ends: in between there is nothing that is ever looked at.
fn unused(bytes: &[u8]) -> std::ops::Range<usize> {
    let footer = bytes.len() - PAGE;
    let number = |at: usize| u64::from_le_bytes(bytes[footer + at..footer + at + 8].try_into().unwrap());
    number(48) as usize..footer
}

#[test]
fn a_sound_store_is_read_whole_and_nothing_is_told() {
    for merged in [false, true] {
        let mut lane = reading(&filled(merged).0);
        assert_eq!(round(&mut lane), []);
        let status = lane.engine.status();
        assert!(status.scrub_bytes > 0 && status.scrub_damaged == 0, "{status:?}");
        assert_eq!((status.blocks_damaged, status.cache_misses), (0, 0), "it goes past the cache");
        // Each round reads each byte that is used, and the ends' pages whole.
        let used: usize = segments(&lane.files)
            .iter()
            .map(|name| lane.files.contents(name).unwrap())
            .map(|bytes| bytes.len() - unused(&bytes).len())
            .sum();
        let (bytes, rounds) = (status.scrub_bytes, status.scrub_rounds);
        round(&mut lane);
        let status = lane.engine.status();
        assert_eq!(status.scrub_bytes - bytes, (status.scrub_rounds - rounds) * used as u64);
    }
}

#[test]
fn any_byte_that_flips_is_told_by_the_next_round_and_by_verify_at_the_same_place() {
    for merged in [false, true] {
        let (lane, _) = filled(merged);
        let mut told = 0;
        for name in segments(&lane.files) {
            let bytes = lane.files.contents(&name).unwrap();
            let unused = unused(&bytes);
            for at in (0..bytes.len()).step_by((bytes.len() / 60) | 1).filter(|at| !unused.contains(at)) {
                let mut lane = reading(&lane);
                assert!(lane.files.flip_bit(&name, at as u64, at as u8 % 8));
                let found = round(&mut lane);
                let [finding] = found.as_slice() else { panic!("{name} at {at}: {found:?}") };
                let offset = finding.offset.expect("a place") as usize;
                assert!(finding.file.as_deref() == Some(&*name) && offset <= at, "{name} at {at}: {finding}");
                let damaged = lane.engine.status();
                assert_eq!(damaged.scrub_damaged_last_round, 1, "{name} at {at}");
                let report = block_on(offline::verify(lane.files.clone(), 0, |_| ())).unwrap();
                let same = |of: &Finding| of.file == finding.file && of.offset == finding.offset;
                assert!(report.findings.iter().any(same), "{name} at {at}: {finding}, but {:?}", report.findings);
                told += 1;
            }
        }
        assert!(told > 60, "{told}");
    }
}

#[test]
fn what_a_finding_says_is_what_readers_meet() {
    let (lane, conversation) = filled(false);
    let mut lane = reading(&lane);
    let name = segments(&lane.files).remove(0);
    assert!(lane.files.flip_bit(&name, PAGE as u64 + 30, 1), "in the first block");
    let found = round(&mut lane);
    assert_eq!(found[0].to_string().split(": ").last(), Some("checksum does not match"));
    let refused = lane.history("ann", conversation, HistoryRange::Latest, 50).expect_err("it cannot be read");
    assert_eq!(refused.code, ErrorCode::Damaged);
    // It is told again with each round: a log that was not read is no reason to forget it.
    assert_eq!(round(&mut lane), found);
}

#[test]
fn a_sector_that_cannot_be_read_is_told_and_the_rest_is_read() {
    // Of the first block and others: more than the page of the sector.
    let (lane, _) = filled(false);
    let mut lane = reading(&lane);
    let largest = segments(&lane.files).into_iter().max_by_key(|name| lane.files.size_of(name)).unwrap();
    let end = unused(&lane.files.contents(&largest).unwrap()).start as u64;
    assert!(lane.files.break_range(&largest, PAGE as u64, 512));
    assert!(lane.files.flip_bit(&largest, end - 1, 0), "in the last block of all");
    let found = round(&mut lane);
    let Some((flipped, unreadable)) = found.split_last() else { panic!("{found:?}") };
    assert!(!unreadable.is_empty() && flipped.what == "checksum does not match", "{found:?}");
    // Blocks that have a part of the sector, and no others.
    for finding in unreadable {
        assert!(finding.what == "unreadable sector" && finding.offset < Some(PAGE as u64 + 512), "{finding}");
    }
}

#[test]
fn a_read_that_fails_once_is_no_damage() {
    let (lane, _) = filled(true);
    for nth in 1..12 {
        let mut lane = reading(&lane);
        round(&mut lane);
        lane.files.fail_nth(OperationKind::Read, nth);
        let errors = lane.files.counts().errors[OperationKind::Read as usize];
        assert_eq!(round(&mut lane), [], "read {nth}");
        assert_eq!(lane.files.counts().errors[OperationKind::Read as usize], errors + 1, "read {nth} was made");
    }
}

#[test]
fn a_segment_that_a_merge_removes_meanwhile_is_not_told_and_not_kept() {
    let mut removed = 0;
    for held in 0..12 {
        let (lane, conversation) = filled(false);
        let mut lane = reading(&lane);
        lane.reads_last = true;
        let names = segments(&lane.files);
        for name in &names {
            assert!(lane.files.flip_bit(name, PAGE as u64 + 40, 1));
        }
        // From here on time counts.
        pass(&mut lane);
        assert_eq!(lane.engine.status().scrub_bytes, 0);
        // A read of the round is under way: it waits while the store goes on, the segments are merged, and are gone.
        lane.files.set_queued(true);
        lane.clock.advance(1_000);
        lane.engine.tick();
        lane.settle();
        for _ in 0..held {
            let Some(read) = lane.files.pending().into_iter().find(|of| of.kind == OperationKind::Read) else { break };
            lane.files.release(read.ticket);
            lane.settle();
        }
        let pending = lane.files.pending();
        let Some(read) = pending.iter().find(|of| of.kind == OperationKind::Read && names.contains(&of.name)) else {
            continue;
        };
        // Merging damaged segments fails, so these are given back what they held.
        for name in &names {
            assert!(lane.files.flip_bit(name, PAGE as u64 + 40, 1));
        }
        let ticket = read.ticket;
        let name = read.name.clone();
        for number in 1_000..1_100 {
            let token = lane.submit(support::send("ann", conversation, number, "more"));
            settle_but(&mut lane, ticket);
            assert!(matches!(lane.answer(token), Some(Ok(_))));
            lane.clock.advance(1_000);
            lane.engine.tick();
            settle_but(&mut lane, ticket);
        }
        assert!(lane.engine.status().compactions > 0);
        if lane.files.contents(&name).is_some() {
            assert!(lane.files.flip_bit(&name, PAGE as u64 + 40, 1));
        }
        drop(lane.engine.take_scrub_findings());
        let named = block_on(antiphon_engine::manifest::read(&reading_files(&lane))).unwrap();
        let is_gone = named.segments.iter().all(|segment| segment.id.file_name() != name);
        lane.settle_queued();
        lane.files.set_queued(false);
        if is_gone {
            removed += 1;
            assert_eq!(lane.engine.take_scrub_findings(), [], "{name} was removed");
            assert!(lane.files.contents(&name).is_none(), "{name} is not kept");
        }
    }
    assert!(removed > 0, "no segment was removed under a read");
}

/// The files as they are, where everything completes at once.
fn reading_files(lane: &Lane) -> MemoryFiles {
    let files = lane.files.crash_image(1);
    files.set_queued(false);
    files
}

/// Carries out all operations but one.
fn settle_but(lane: &mut Lane, held: antiphon_engine::memory_files::Ticket) {
    lane.settle();
    while let Some(other) = lane.files.pending().into_iter().find(|operation| operation.ticket != held) {
        lane.files.release(other.ticket);
        lane.settle();
    }
}
