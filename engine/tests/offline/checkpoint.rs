//! A checkpoint is the store as it was at one position, whole, whatever goes on meanwhile; or it is recognisably none.

use antiphon_engine::{
    EngineError,
    error::StoreError,
    manifest,
    memory_files::{MemoryFiles, MemoryRandom, OperationKind},
    seams::FileError,
};
use antiphon_wire::ids::LanePosition;
use proptest::{collection::vec, prelude::*};

use crate::{
    support::{Lane, block_on, send, user},
    tools::{assert_sound, checkpoint, dump, flush, group, image, lane, of_kind, step, try_verify},
};

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn it_is_the_store_as_it_was(steps in vec((any::<u8>(), any::<u64>()), 1..60)) {
        let mut lane = lane(3);
        let mut conversations = Vec::new();
        for (choice, number) in steps {
            step(&mut lane, &mut conversations, choice, number);
        }
        let before = dump(&lane.files);
        // At rest: from outside, and nothing is changed.
        let (at_rest, names) = (lane.files.crash_image(1), lane.files.names());
        let unchanged = image(&at_rest);
        let copied = checkpoint(&at_rest).unwrap();
        prop_assert!(image(&at_rest) == unchanged);
        prop_assert_eq!(dump(&copied), before.clone());
        assert_sound(&copied);
        prop_assert!(copied.names().iter().all(|name| !name.starts_with("log-")));
        // A checkpoint's own checkpoint is the same files.
        prop_assert!(image(&checkpoint(&copied).unwrap()) == image(&copied));
        // And while the engine runs.
        let target = MemoryFiles::new(0);
        let made = lane.checkpoint(&target).unwrap();
        prop_assert_eq!(dump(&target), before.clone());
        prop_assert_eq!(made.position, lane.engine.position());
        assert_sound(&target);
        prop_assert_eq!(dump(&lane.files), before);
        prop_assert!(names.iter().filter(|name| name.starts_with("log-")).all(|name| lane.files.names().contains(name)));
    }
}

/// Lets the lane go on by one operation, by chance; `false` when nothing waits.
fn go_on(lane: &mut Lane) -> bool {
    lane.settle();
    let pending = lane.files.pending();
    if pending.is_empty() {
        return false;
    }
    let chosen = lane.random.below(pending.len() as u64) as usize;
    lane.files.release(pending[chosen].ticket);
    lane.settle();
    true
}

#[test]
fn what_was_acknowledged_before_is_in_it_though_messages_go_on() {
    for seed in 0..40 {
        let mut lane = lane(seed);
        let id = group(&mut lane, 1);
        flush(&mut lane);
        lane.sent("ann", id, 50, "before");
        let position = lane.engine.position();
        let before = dump(&lane.files.crash_image(1));
        lane.files.set_queued(true);
        // Some are on their way already.
        for key in 60..63 {
            lane.submit(send("bob", id, key, "on its way"));
        }
        lane.settle();
        let target = MemoryFiles::new(0);
        let made = lane.start_checkpoint(&target);
        let mut key = 100;
        while go_on(&mut lane) {
            if made.borrow().is_none() && key < 120 {
                lane.submit(send("ann", id, key, "meanwhile"));
                key += 1;
            }
        }
        let made = made.take().expect("it ends").unwrap();
        assert!(made.position >= position && made.position <= lane.engine.position(), "{made:?}");
        lane.files.set_queued(false);
        let (copy, all) = (dump(&target), dump(&lane.files));
        let entries = |lines: &[String]| of_kind(lines, "entry").into_iter().map(str::to_owned).collect::<Vec<_>>();
        let (before, copy, all) = (entries(&before), entries(&copy), entries(&all));
        assert!(copy.len() >= before.len() && copy[..before.len()] == before[..], "seed {seed}");
        assert!(all.len() >= copy.len() && all[..copy.len()] == copy[..], "seed {seed}");
        assert_sound(&target);
        assert_sound(&lane.files.crash_image(seed));
    }
}

#[test]
fn a_crash_at_any_operation_leaves_the_store_sound_and_a_checkpoint_or_none() {
    let (mut whole, mut none) = (0, 0);
    for stop in 0.. {
        let mut lane = lane(stop);
        let id = group(&mut lane, 1);
        flush(&mut lane);
        lane.sent("ann", id, 50, "in the log");
        let before = dump(&lane.files.crash_image(1));
        let target = MemoryFiles::new(stop);
        lane.files.set_queued(true);
        target.set_queued(true);
        let made = lane.start_checkpoint(&target);
        let mut operations = 0;
        let is_over = loop {
            lane.settle();
            if operations == stop {
                break made.borrow().is_some();
            }
            let (of_lane, of_target) = (lane.files.pending(), target.pending());
            let chosen = lane.random.below((of_lane.len() + of_target.len()).max(1) as u64) as usize;
            match (of_lane.get(chosen), of_target.get(chosen.saturating_sub(of_lane.len()))) {
                (Some(operation), _) => lane.files.release(operation.ticket),
                (None, Some(operation)) => target.release(operation.ticket),
                (None, None) => break true,
            };
            operations += 1;
        };
        if is_over {
            assert!(made.borrow().as_ref().unwrap().is_ok());
        }
        for seed in 0..8 {
            let store = lane.files.crash_image(seed);
            assert_sound(&store);
            assert_eq!(dump(&store), before, "operation {stop}, seed {seed}");
            let copy = target.crash_image(seed);
            match try_verify(&copy) {
                Ok(report) => {
                    assert!(report.is_sound(), "operation {stop}, seed {seed}: {:?}", report.findings);
                    assert_eq!(dump(&copy), before);
                    whole += 1;
                }
                Err(EngineError::Store(StoreError::ManifestMissing) | EngineError::ManifestLost { .. }) if !is_over => {
                    none += 1;
                }
                Err(error) => panic!("operation {stop}, seed {seed}: {error}"),
            }
        }
        if is_over {
            break;
        }
    }
    assert!(whole > 8 && none > 40, "{whole} and {none}");
}

#[test]
fn segments_that_are_merged_meanwhile_stay_until_it_ends() {
    let mut lane = lane(1);
    let id = group(&mut lane, 1);
    flush(&mut lane);
    let before = dump(&lane.files);
    let target = MemoryFiles::new(0);
    target.set_queued(true);
    let made = lane.start_checkpoint(&target);
    lane.settle_queued();
    assert_eq!(target.pending()[0].kind, OperationKind::Share);
    for key in 100..120 {
        lane.sent("ann", id, key, "more");
        flush(&mut lane);
    }
    assert!(lane.engine.status().compactions > 0);
    let held = block_on(manifest::read(&lane.files)).unwrap();
    let segments = |files: &MemoryFiles| files.names().into_iter().filter(|name| name.starts_with("segment-")).count();
    assert!(segments(&lane.files) > held.segments.len(), "the first is not of the manifest any more, but it is there");
    while let Some(operation) = target.pending().first() {
        target.release(operation.ticket);
        lane.settle_queued();
    }
    made.take().expect("it ends").unwrap();
    target.set_queued(false);
    assert_eq!(dump(&target), before);
    let left = block_on(manifest::read(&lane.files)).unwrap();
    assert_eq!(segments(&lane.files), left.segments.len(), "nothing is kept for it any more");
}

#[test]
fn a_full_disk_ends_it_and_nothing_else() {
    let mut lane = lane(1);
    let id = group(&mut lane, 1);
    flush(&mut lane);
    lane.sent("ann", id, 50, "in the log");
    // Where the copy goes.
    let target = MemoryFiles::new(0);
    target.set_capacity(Some(8_192));
    let error = lane.checkpoint(&target).unwrap_err();
    assert!(matches!(error, EngineError::Store(StoreError::File(FileError::Full { .. }))), "{error}");
    assert!(matches!(try_verify(&target), Err(EngineError::Store(StoreError::ManifestMissing))));
    // Where the store is.
    lane.sent("ann", id, 51, "in the log, too");
    let before = dump(&lane.files);
    let size: usize = image(&lane.files).iter().map(|(_, bytes)| bytes.len()).sum();
    lane.files.set_capacity(Some(size as u64));
    let error = lane.checkpoint(&MemoryFiles::new(0)).unwrap_err();
    assert!(matches!(error, EngineError::FlushFailed(_)), "{error}");
    assert_eq!(dump(&lane.files), before);
    // There is room again.
    lane.files.set_capacity(None);
    lane.clock.advance(2_000);
    lane.engine.tick();
    lane.settle_queued();
    let target = MemoryFiles::new(0);
    lane.checkpoint(&target).unwrap();
    assert_eq!(dump(&target), before);
}

#[test]
fn a_segment_that_cannot_be_shared_ends_it() {
    let mut lane = lane(1);
    for key in 1..3 {
        group(&mut lane, key);
        flush(&mut lane);
    }
    let before = dump(&lane.files);
    let segments = lane.files.names().iter().filter(|name| name.starts_with("segment-")).count() as u64;
    assert!(segments > 1);
    for nth in 0..segments {
        let target = MemoryFiles::new(0);
        target.fail_nth(OperationKind::Share, nth + 1);
        let error = lane.checkpoint(&target).unwrap_err();
        assert!(matches!(error, EngineError::Store(StoreError::File(_))), "segment {nth}: {error}");
        assert!(!target.names().iter().any(|name| name == "manifest"), "segment {nth}");
    }
    let target = MemoryFiles::new(0);
    lane.checkpoint(&target).unwrap();
    assert_eq!(dump(&target), before);
}

#[test]
fn one_is_made_at_a_time_and_none_of_a_store_that_is_not_whole() {
    let mut lane = lane(1);
    let id = group(&mut lane, 1);
    let target = MemoryFiles::new(0);
    lane.files.set_queued(true);
    let made = lane.start_checkpoint(&target);
    lane.settle();
    let second = lane.start_checkpoint(&MemoryFiles::new(0));
    lane.settle();
    assert_eq!(second.take(), Some(Err(EngineError::CheckpointBusy)));
    // A close waits for it, or it for the close: both end.
    lane.files.set_queued(false);
    lane.settle_queued();
    assert!(made.take().unwrap().is_ok());
    lane.sent("ann", id, 70, "one more");
    lane.close().unwrap();
    assert_eq!(lane.checkpoint(&MemoryFiles::new(0)), Err(EngineError::Closed));
    let whole = lane.files.crash_image(1);
    let names = whole.names();
    let segment = names.iter().find(|name| name.starts_with("segment-")).unwrap();
    assert!(whole.flip_bit(segment, 30, 1), "its header");
    let mut lane = lane.opened_again(whole).unwrap();
    let error = lane.checkpoint(&MemoryFiles::new(0)).unwrap_err();
    assert!(matches!(error, EngineError::Store(StoreError::Damaged { .. })), "{error}");
    let error = checkpoint(&lane.files.crash_image(1)).map(drop).unwrap_err();
    assert!(matches!(error, EngineError::Store(StoreError::Damaged { .. })), "{error}");
}

#[test]
fn a_lane_whose_log_has_failed_makes_none() {
    let mut lane = lane(1);
    let id = group(&mut lane, 1);
    lane.files.fail_nth(OperationKind::Write, 1);
    assert!(lane.send("ann", id, 70, "lost").is_err());
    assert!(matches!(lane.checkpoint(&MemoryFiles::new(0)), Err(EngineError::Fenced(_))));
}

#[test]
fn a_store_of_nothing_has_one() {
    let mut lane = lane(1);
    let target = MemoryFiles::new(0);
    assert_eq!(lane.checkpoint(&target).unwrap().position, LanePosition(0));
    assert_sound(&target);
    let random = MemoryRandom::new(4);
    let mut again = Lane::open(target, lane.clock.clone(), random, lane.options.clone()).unwrap();
    assert!(!again.report.created);
    let id = again.create_direct("ann", "bob");
    again.sent("ann", id, 1, "goes on");
    assert_eq!(again.whole_history("bob", id).last().unwrap().sender, user("ann"));
}
