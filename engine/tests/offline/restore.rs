//! A restored store is what the checkpoint was, or what the store was at a point; and it is another store.

use antiphon_engine::{
    EngineError,
    error::StoreError,
    memory_files::{MemoryClock, MemoryFiles, MemoryRandom, OperationKind},
    offline::{self, RestoreError, Until},
    seams::FileError,
};
use antiphon_wire::ids::{LanePosition, TimestampMs};
use proptest::{collection::vec, prelude::*};

use crate::{
    support::{Lane, block_on, small_options},
    tools::{anonymous, assert_sound, checkpoint, dump, flush, group, lane, of_kind, restore, step, try_verify},
};

/// Lines of entries without what messages say.
fn without_texts(lines: &[String]) -> Vec<String> {
    let without = |line: &str| {
        let line = line.replace(",\"taken_away\":true", "");
        let Some((before, rest)) = line.split_once(",\"text\":\"") else { return line };
        let (_, after) = rest.split_once('"').expect("a text ends");
        format!("{before}{after}")
    };
    of_kind(lines, "entry").into_iter().map(without).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn what_was_kept_is_what_is_restored(steps in vec((any::<u8>(), any::<u64>()), 1..60)) {
        let mut lane = lane(3);
        let mut conversations = Vec::new();
        for (choice, number) in steps {
            step(&mut lane, &mut conversations, choice, number);
        }
        let before = dump(&lane.files);
        let copy = checkpoint(&lane.files).unwrap();
        // Of a checkpoint, and of a folder at rest with its log.
        for from in [copy, lane.files.crash_image(1)] {
            let (files, restored) = restore(&from, Until::End).unwrap();
            prop_assert_eq!(anonymous(&dump(&files)), anonymous(&before));
            prop_assert_eq!(restored.position, lane.engine.position());
            prop_assert_eq!(restored.entries, of_kind(&before, "entry").len() as u64);
            prop_assert_ne!(restored.store, format!("{:016x}", lane.engine.store_id()));
            assert_sound(&files);
        }
    }

    /// The store is looked at after every step: a restore to where it was then must be what it was then.
    #[test]
    fn at_every_point_it_is_what_was_there(steps in vec((any::<u8>(), any::<u64>()), 1..40)) {
        let mut lane = lane(3);
        let mut conversations = Vec::new();
        let mut points = Vec::new();
        for (choice, number) in steps {
            step(&mut lane, &mut conversations, choice, number);
            lane.clock.advance(1);
            points.push((lane.engine.position(), dump(&lane.files)));
        }
        let copy = checkpoint(&lane.files).unwrap();
        for (position, then) in points {
            let (files, restored) = restore(&copy, Until::Position(position)).unwrap();
            assert_sound(&files);
            let now = dump(&files);
            // Which pointers there were is not kept.
            // What an edit or a deletion has taken away since is not kept either.
            prop_assert_eq!(without_texts(&now), without_texts(&then));
            for kind in ["conversation", "member", "end"] {
                prop_assert_eq!(of_kind(&now, kind), of_kind(&then, kind));
            }
            prop_assert_eq!(restored.position, position);
            // Entries have times that go up with positions: up to the last one's is as far, or farther by those of the same time.
            let (by_time, _) = restore(&copy, Until::Time(restored.time_ms)).unwrap();
            let (of_time, of_position) = (dump(&by_time), now);
            let later = of_kind(&of_time, "entry").into_iter().filter(|line| !of_position.iter().any(|of| of == line));
            for line in later {
                let same = format!("\"time_ms\":{},", restored.time_ms.0);
                prop_assert!(line.contains(&same), "{line}");
            }
            prop_assert!(of_kind(&of_position, "entry").iter().all(|line| of_time.iter().any(|of| of == line)));
        }
    }
}

#[test]
fn it_goes_on_as_another_store() {
    let mut lane = lane(1);
    let id = group(&mut lane, 1);
    flush(&mut lane);
    lane.sent("ann", id, 50, "in the log");
    let history = lane.whole_history("ann", id);
    let (files, restored) = restore(&checkpoint(&lane.files).unwrap(), Until::End).unwrap();
    let mut again = Lane::open(files, MemoryClock::new(5), MemoryRandom::new(9), small_options()).unwrap();
    assert_ne!(again.engine.store_id(), lane.engine.store_id());
    assert_eq!(format!("{:016x}", again.engine.store_id()), restored.store);
    assert_eq!(again.whole_history("ann", id), history);
    assert!(matches!(
        again.send("ann", id, 50, "in the log"),
        Ok(antiphon_engine::door::Done::Sent { duplicate: true, .. })
    ));
    let next = again.sent("ann", id, 60, "more");
    assert_eq!(next.0, history.len() as u64 + 1);
    assert_sound(&again.files);
}

#[test]
fn a_pointer_is_not_beyond_the_point() {
    let mut lane = lane(1);
    group(&mut lane, 1);
    // After entry 3, a message of bob's.
    let (files, restored) = restore(&lane.files, Until::Position(LanePosition(3))).unwrap();
    let lines = dump(&files);
    assert_eq!((restored.entries, restored.position), (3, LanePosition(3)));
    assert_eq!(of_kind(&lines, "pointer").len(), 2, "dan is not there yet, and cid never read");
    assert!(
        of_kind(&lines, "pointer").iter().all(|line| line.contains(r#""read":3,"ordinal":2,"delivered":3"#)),
        "{lines:?}"
    );
    let (nothing, _) = restore(&lane.files, Until::Position(LanePosition(0))).unwrap();
    assert_eq!(assert_sound(&nothing).conversations, 0);
    let (nothing, _) = restore(&lane.files, Until::Time(TimestampMs(0))).unwrap();
    assert_eq!(assert_sound(&nothing).conversations, 0);
}

#[test]
fn what_is_damaged_or_too_short_is_not_restored() {
    let mut lane = lane(1);
    group(&mut lane, 1);
    let copy = checkpoint(&lane.files).unwrap();
    let end = lane.engine.position();
    let asked = LanePosition(end.0 + 1);
    assert_eq!(restore(&copy, Until::Position(asked)).map(drop), Err(RestoreError::Beyond { asked, end }));
    let name = copy.names().into_iter().find(|name| name.starts_with("segment-")).unwrap();
    for at in [100, 4_200] {
        assert!(copy.flip_bit(&name, at, 1));
        for until in [Until::End, Until::Position(LanePosition(1))] {
            let refused = restore(&copy, until).map(drop).unwrap_err();
            assert!(matches!(refused, RestoreError::Unsound(_)), "{refused}");
            assert!(refused.to_string().contains(&name), "{refused}");
        }
        assert!(copy.flip_bit(&name, at, 1));
    }
    copy.take_away(&name);
    assert!(matches!(restore(&copy, Until::End), Err(RestoreError::Unsound(_))));
    copy.take_away("manifest");
    let refused = restore(&copy, Until::End).map(drop).unwrap_err();
    assert!(matches!(refused, RestoreError::Engine(EngineError::ManifestLost { .. })), "{refused}");
    copy.names().into_iter().filter(|name| name.starts_with("segment-")).for_each(|name| copy.take_away(&name));
    let refused = restore(&copy, Until::End).map(drop).unwrap_err();
    assert_eq!(refused, RestoreError::Engine(EngineError::Store(StoreError::ManifestMissing)));
}

#[test]
fn what_was_interrupted_is_no_store_and_a_full_disk_is_told() {
    let mut lane = lane(1);
    group(&mut lane, 1);
    flush(&mut lane);
    group(&mut lane, 2);
    let before = dump(&lane.files);
    for until in [Until::End, Until::Position(LanePosition(lane.engine.position().0 - 1))] {
        for kind in [
            OperationKind::Open,
            OperationKind::Write,
            OperationKind::Sync,
            OperationKind::SyncFolder,
            OperationKind::Rename,
        ] {
            for nth in 1.. {
                let target = MemoryFiles::new(nth);
                target.fail_nth(kind, nth);
                let random = MemoryRandom::new(5);
                let restored =
                    block_on(offline::restore(lane.files.clone(), target.clone(), 0_u16, &random, until, |_| ()));
                if restored.is_ok() {
                    assert!(nth > 1, "{kind:?}");
                    break;
                }
                for seed in 0..4 {
                    // What there is of it is whole as far as it goes, or is no store; the caller throws it away.
                    if let Ok(report) = try_verify(&target.crash_image(seed)) {
                        assert!(report.findings.is_empty(), "{kind:?} {nth}: {:?}", report.findings);
                    }
                }
            }
        }
        let target = MemoryFiles::new(1);
        target.set_capacity(Some(10_000));
        let random = MemoryRandom::new(5);
        let full = block_on(offline::restore(lane.files.clone(), target, 0_u16, &random, until, |_| ()));
        let error = full.unwrap_err();
        assert!(
            matches!(error, RestoreError::Engine(EngineError::Store(StoreError::File(FileError::Full { .. })))),
            "{error}"
        );
    }
    assert_eq!(dump(&lane.files), before);
}
