//! Stores that the engine made are sound, and damage in their files is told by file, place, conversation and entries.

use antiphon_engine::{
    EngineError,
    error::StoreError,
    memory_files::{MemoryFiles, MemoryRandom, OperationKind},
    offline::{self, Finding, VerifyReport},
    seams::Random as _,
};
use antiphon_wire::ids::{ConversationId, Sequence};

use crate::{
    support::{Lane, block_on, noise, small_options},
    tools::{LOG, assert_sound, findings, flush, group, lane, step, try_dump, try_verify, verify},
};

const PAGE: usize = 4096;

#[test]
fn whatever_the_engine_makes_is_sound() {
    let (mut merges, mut leavings) = (0, 0);
    for seed in 0..12 {
        let random = MemoryRandom::new(seed);
        let mut lane = lane(seed);
        let mut conversations = Vec::new();
        for _ in 0..160 {
            step(&mut lane, &mut conversations, random.below(100) as u8, random.next());
        }
        let report = assert_sound(&lane.files);
        assert!(report.torn_tail.is_none() && report.leftovers.is_empty(), "{report:?}");
        let status = lane.engine.status();
        assert_eq!((report.segments, report.position), (status.segments as u64, status.position), "seed {seed}");
        let shown = block_on(offline::inspect(lane.files.clone(), 0_u16, false, |_| ())).unwrap();
        merges += shown.segments.iter().filter(|segment| segment.level > 0).count();
        leavings += report.user_rows;
        lane.crash(seed);
        assert_sound(&lane.files);
    }
    assert!(merges > 0 && leavings > 0, "{merges} merges");
}

#[test]
fn nothing_is_changed_by_looking() {
    let mut lane = lane(1);
    group(&mut lane, 1);
    flush(&mut lane);
    group(&mut lane, 2);
    let files = lane.files.crash_image(1);
    // What an interrupted flush leaves, and an unfinished write at the log's end.
    files.put("segment-00000000000000ff", vec![1; PAGE]);
    files.put("manifest.new", vec![2; PAGE]);
    files.put("log-00000009.new", vec![3; PAGE]);
    let image = |files: &MemoryFiles| -> Vec<_> {
        files.names().into_iter().map(|name| (files.contents(&name), name)).collect()
    };
    let before = image(&files);
    let report = assert_sound(&files);
    assert_eq!(report.leftovers, ["log-00000009.new", "manifest.new", "segment-00000000000000ff"]);
    try_dump(&files).unwrap();
    assert!(image(&files) == before);
    let counts = files.operations();
    for kind in OperationKind::ALL {
        let reads = matches!(kind, OperationKind::Open | OperationKind::List | OperationKind::Read);
        assert_eq!(counts[kind as usize] > 0, reads, "{kind:?}");
    }
}

/// A lane with two groups of long messages in one segment of many blocks.
fn long() -> (Lane, [ConversationId; 2], String) {
    let mut lane = lane(1);
    let groups = [group(&mut lane, 1), group(&mut lane, 2)];
    for number in 10..110 {
        for group in groups {
            lane.sent("ann", group, number, &noise(number, 1_000));
        }
    }
    flush(&mut lane);
    let name = lane.files.names().into_iter().find(|name| name.starts_with("segment-")).unwrap();
    (lane, groups, name)
}

/// How many entries findings say are lost.
fn lost(findings: &[Finding]) -> u64 {
    let count = |of: &Finding| Some(of.last?.0 - of.first?.0 + 1);
    findings.iter().filter_map(count).sum()
}

#[test]
fn a_damaged_block_is_put_down_to_the_entries_that_it_held() {
    let (lane, groups, name) = long();
    let whole = assert_sound(&lane.files);
    assert!(whole.blocks > 8, "{whole:?}");
    let end = lane.files.contents(&name).unwrap().len();
    let (mut exact, mut offsets) = (0, std::collections::BTreeSet::new());
    // Behind the data are the index and the filter, and then padding.
    for at in (PAGE + 20..end - 3 * PAGE).step_by(5_000) {
        let files = lane.files.crash_image(1);
        assert!(files.flip_bit(&name, at as u64, 3));
        let report = verify(&files);
        assert!(!report.findings.is_empty(), "byte {at}");
        assert!(try_dump(&files).is_err(), "byte {at}");
        for finding in &report.findings {
            assert_eq!(finding.file.as_deref(), Some(name.as_str()), "{finding}");
            assert!(finding.offset.is_some_and(|offset| offset <= at as u64), "{finding}");
            offsets.insert(finding.offset);
        }
        // Within a group's entries, what is there and what is lost is all that there was.
        if report.entries > 0 && report.findings.iter().all(|of| of.last.is_some() && of.first != Some(Sequence(1))) {
            assert!(report.findings.iter().all(|of| of.conversation.is_some_and(|id| groups.contains(&id))));
            assert_eq!(report.entries + lost(&report.findings), whole.entries, "{:?}", findings(&report));
            exact += 1;
        }
    }
    assert!(exact > 10, "{exact} flips were put down to entries");
    assert!(offsets.len() > 8, "{offsets:?}");
}

#[test]
fn each_of_two_damaged_blocks_in_a_row_is_told_with_its_own_entries() {
    let (lane, _, name) = long();
    let whole = assert_sound(&lane.files);
    let place = |report: &VerifyReport| report.findings[0].offset;
    let flipped = |places: &[usize]| {
        let files = lane.files.crash_image(1);
        places.iter().for_each(|at| assert!(files.flip_bit(&name, *at as u64, 3)));
        verify(&files)
    };
    let one = lane.files.contents(&name).unwrap().len() / 4;
    let first = flipped(&[one]);
    let other = (one..).step_by(1_000).find(|at| place(&flipped(&[*at])) != place(&first)).unwrap();
    let both = flipped(&[one, other]);
    let expected = [first.findings, flipped(&[other]).findings].concat();
    assert_eq!(both.findings, expected);
    assert_eq!((expected.len(), both.entries + lost(&expected)), (2, whole.entries), "{:?}", findings(&both));
}

#[test]
fn a_segment_that_is_gone_takes_its_entries_with_it() {
    let (lane, groups, name) = long();
    let files = lane.files.crash_image(1);
    files.take_away(&name);
    let texts = findings(&verify(&files));
    assert!(texts.iter().any(|text| text.contains(&format!("{name}: byte 0: conversation"))), "{texts:?}");
    assert!(texts.iter().all(|text| text.contains("missing")), "{texts:?}");
    // The one with the least id is named by the segment's first key, the other by nothing that is left.
    let first = groups.iter().min().unwrap();
    assert!(texts.iter().any(|text| text.contains(&first.to_string())), "{texts:?}");
}

#[test]
fn a_damaged_batch_is_put_down_to_its_entries_and_a_torn_one_is_no_damage() {
    let mut lane = lane(1);
    let conversation = lane.create_direct("ann", "bob");
    for number in 0..5 {
        lane.sent("ann", conversation, number, "0123456789");
    }
    let rotten = lane.files.crash_image(1);
    rotten.flip_bit(LOG, 2 * PAGE as u64 + 100, 1);
    let texts = findings(&verify(&rotten));
    let start = format!("{LOG}: byte {}: conversation {conversation}: entry 3: lost: ", 2 * PAGE);
    assert!(texts.len() == 1 && texts[0].starts_with(&start), "{texts:?}");
    assert!(try_dump(&rotten).is_err());
    let torn = lane.files.crash_image(1);
    torn.flip_bit(LOG, 5 * PAGE as u64 + 100, 1);
    let report = assert_sound(&torn);
    assert_eq!(report.entries, 5);
    assert!(report.torn_tail.unwrap().starts_with(&format!("{LOG}: byte {}: ", 5 * PAGE)));
    // Once it is sealed it is told from a torn one.
    lane.close().unwrap();
    let sealed = lane.files.crash_image(1);
    sealed.flip_bit(LOG, 5 * PAGE as u64 + 100, 1);
    assert_eq!(verify(&sealed).findings.len(), 1);
}

#[test]
fn two_batches_lost_in_a_row_may_be_anybodys() {
    let mut lane = lane(1);
    let conversation = lane.create_direct("ann", "bob");
    for number in 0..5 {
        lane.sent("ann", conversation, number, "0123456789");
    }
    for page in [2, 3] {
        lane.files.flip_bit(LOG, page * PAGE as u64 + 100, 1);
    }
    let texts = findings(&verify(&lane.files));
    assert!(texts.iter().any(|text| text.ends_with("any conversation of the lane may be concerned")), "{texts:?}");
    assert!(texts.iter().any(|text| text.contains(&format!("conversation {conversation}: entr"))), "{texts:?}");
}

#[test]
fn damage_in_what_segments_hold_as_well_is_told_to_be_harmless() {
    let mut lane = lane(1);
    group(&mut lane, 1);
    flush(&mut lane);
    group(&mut lane, 2);
    let before = try_dump(&lane.files).unwrap();
    lane.files.flip_bit(LOG, 2 * PAGE as u64 + 20, 1);
    let report = verify(&lane.files);
    assert!(report.findings.iter().all(|finding| finding.harmless), "{:?}", findings(&report));
    assert_eq!(report.findings.len(), 1);
    assert!(report.findings[0].to_string().ends_with("(nothing is lost)"));
    assert_eq!(try_dump(&lane.files).unwrap(), before);
}

#[test]
fn a_damaged_seal_is_told_to_hold_no_record() {
    let mut lane = lane(1);
    let conversation = lane.create_direct("ann", "bob");
    // A second without commands.
    flush(&mut lane);
    lane.sent("ann", conversation, 1, "behind the seal");
    lane.files.flip_bit(LOG, PAGE as u64 + 63, 1);
    let expected = format!("{LOG}: byte {PAGE}: a batch whose checksum does not hold: no record (nothing is lost)");
    assert_eq!(findings(&verify(&lane.files)), [expected]);
}

#[test]
fn a_segment_that_the_disk_cannot_read_is_told_and_the_rest_is_looked_at() {
    let (mut lane, _, name) = long();
    group(&mut lane, 3);
    flush(&mut lane);
    assert!(lane.files.break_range(&name, 5 * PAGE as u64, 512));
    let report = verify(&lane.files);
    assert!(report.conversations > 0 && report.entries >= 8, "{report:?}");
    let texts = findings(&report);
    assert!(texts.iter().any(|text| text.starts_with(&name) && text.contains("unreadable sector")), "{texts:?}");
}

#[test]
fn what_is_no_store_is_refused_by_name() {
    let refused = |files: &MemoryFiles| try_verify(files).unwrap_err();
    let empty = MemoryFiles::new(0);
    assert!(matches!(refused(&empty), EngineError::Store(StoreError::ManifestMissing)));
    let lane = Lane::with_options(1, small_options());
    let headless = lane.files.crash_image(1);
    headless.take_away("manifest");
    assert!(matches!(refused(&headless), EngineError::ManifestLost { file } if file == LOG));
    let other = Lane::with_options(1, antiphon_engine::EngineOptions { lane: 3, ..small_options() });
    assert!(matches!(refused(&other.files), EngineError::OtherLane { found: 3, expected: 0 }));
    let mixed = lane.files.crash_image(1);
    mixed.put(LOG, Lane::with_options(77, small_options()).files.contents(LOG).unwrap());
    assert!(matches!(refused(&mixed), EngineError::Store(StoreError::ForeignStore { .. })));
    // A newer manifest is no damage.
    let newer = lane.files.crash_image(1);
    let mut bytes = newer.contents("manifest").unwrap();
    bytes[8] = 3;
    let length = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&bytes[..16]), &bytes[20..length]);
    bytes[16..20].copy_from_slice(&checksum.to_le_bytes());
    newer.put("manifest", bytes);
    assert!(matches!(refused(&newer), EngineError::Store(StoreError::NewerVersion { found: 3, .. })));
}

#[test]
fn a_log_that_is_missing_is_told() {
    let mut lane = lane(1);
    group(&mut lane, 1);
    flush(&mut lane);
    let files = lane.files.crash_image(1);
    files.take_away(LOG);
    let texts = findings(&verify(&files));
    assert_eq!(texts, ["log: files of generation 1 to 1 are missing"]);
    assert!(matches!(try_dump(&files), Err(EngineError::LogMissing { first: 1, last: 1 })));
}
