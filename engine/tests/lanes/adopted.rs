//! The tools on lanes that have adopted segments: what they say is of the lane's own conversations, and what they make is, too.

use antiphon_engine::{
    EngineError,
    error::StoreError,
    manifest::Manifest,
    memory_files::{MemoryFiles, MemoryRandom, block_on},
    offline::{self, RestoreError, Until},
    partitions::lane_of,
};

use antiphon_wire::ids::LanePosition;

use crate::world::{World, assert_sound, dump, dump_all, manifest, spread, verify};

/// Two lanes of one, none of which was merged since.
fn adopted() -> Vec<MemoryFiles> {
    let mut world = World::new(11, 1);
    for _ in 0..200 {
        world.step();
    }
    world.flush(0);
    world.speak_everywhere();
    let old = world.folders();
    let (new, made) = spread(&old, 2, 3);
    made.unwrap();
    for files in &new {
        let segments = manifest(files).segments;
        assert!(segments.iter().any(|of| of.adopted.is_some_and(|of| !of.is_whole())), "{segments:?}");
        assert!(segments.iter().any(|of| of.adopted.is_none()), "the log's part: {segments:?}");
    }
    assert_eq!(dump_all(&new), dump_all(&old));
    new
}

#[test]
fn checkpoints_restores_and_loads_are_of_the_lanes_own() {
    for (lane, files) in (0..).zip(adopted()) {
        let before = dump(lane, &files);
        let copy = MemoryFiles::new(1);
        block_on(offline::checkpoint(files.clone(), copy.clone(), lane, |_| ())).unwrap();
        assert_sound(lane, &copy);
        assert_eq!(dump(lane, &copy), before);
        let restored = MemoryFiles::new(2);
        let random = MemoryRandom::new(5);
        block_on(offline::restore(copy, restored.clone(), lane, &random, Until::End, |_| ())).unwrap();
        assert_sound(lane, &restored);
        assert_eq!(dump(lane, &restored), before);
        assert!(manifest(&restored).segments.iter().any(|of| of.adopted.is_some()), "it was copied as it is");
        let repaired = MemoryFiles::new(3);
        let report = block_on(offline::repair(files.clone(), repaired.clone(), lane, &random, |_| ())).unwrap();
        assert!(report.is_whole(), "{report:?}");
        assert_sound(lane, &repaired);
        let content = |lines: &[String]| {
            lines.iter().filter(|line| !line.starts_with("{\"conversation\"")).cloned().collect::<Vec<_>>()
        };
        assert_eq!(content(&dump(lane, &repaired)), content(&before));
        // Lanes made of what was restored.
        let (one, made) = spread(&[restored], 1, 9);
        assert!(lane != 0 || made.is_ok(), "{made:?}");
        if lane == 0 {
            // A lane alone is not all: it is taken for the only one.
            assert_eq!(dump(0, &one[0]), before);
        }
    }
}

#[test]
fn damage_is_told_of_the_lanes_own_conversations() {
    for (lane, files) in (0_u16..).zip(adopted()) {
        let before = assert_sound(lane, &files);
        let entry =
            manifest(&files).segments.into_iter().rfind(|of| of.adopted.is_some_and(|of| !of.is_whole())).unwrap();
        let name = entry.id.file_name();
        let mut told = 0;
        for offset in (4096..entry.file_bytes - 4096).step_by(331) {
            let damaged = files.crash_image(1);
            assert!(damaged.flip_bit(&name, offset, 3));
            let report = verify(lane, &damaged).unwrap();
            for id in report.findings.iter().filter_map(|finding| finding.conversation) {
                assert_eq!(lane_of(id, 2), lane, "{:?}", report.findings);
            }
            told += u64::from(!report.is_sound());
        }
        assert!(told > 5, "{told}");
        // Whose ends cannot be read is read block by block, and nothing is lost.
        for offset in [30, entry.file_bytes - 4000] {
            let damaged = files.crash_image(1);
            assert!(damaged.flip_bit(&name, offset, 3));
            let repaired = MemoryFiles::new(3);
            let random = MemoryRandom::new(5);
            let report = block_on(offline::repair(damaged, repaired.clone(), lane, &random, |_| ())).unwrap();
            assert!(report.is_whole(), "byte {offset}: {report:?}");
            let after = assert_sound(lane, &repaired);
            assert_eq!((after.conversations, after.entries), (before.conversations, before.entries));
        }
    }
}

#[test]
fn a_file_that_is_not_the_one_that_was_adopted_is_refused() {
    let files = adopted().remove(0);
    let adopted: Vec<_> = manifest(&files).segments.into_iter().filter(|of| of.adopted.is_some()).collect();
    let name = adopted[0].id.file_name();
    // Another store's under the same name.
    let mut other = manifest(&files);
    for of in &mut other.segments {
        if let Some(adopted) = &mut of.adopted {
            adopted.store ^= 1;
        }
    }
    files.put("manifest", padded(&other));
    let report = verify(0, &files).unwrap();
    let said = report.findings.first().unwrap().to_string();
    assert!(said.contains("belongs to another store"), "{said}");
    // And one that is not there.
    files.take_away(&name);
    let opened = block_on(antiphon_engine::Engine::open(
        files.clone(),
        antiphon_engine::memory_files::MemoryClock::new(1),
        MemoryRandom::new(1),
        antiphon_engine::EngineOptions::development(0),
    ));
    let error = opened.map(|_| ()).unwrap_err();
    assert!(
        matches!(error, EngineError::Store(StoreError::SegmentMissing { .. } | StoreError::ForeignStore { .. })),
        "{error}"
    );
}

fn padded(manifest: &Manifest) -> Vec<u8> {
    let mut bytes = manifest.encode();
    bytes.resize(bytes.len().next_multiple_of(4096), 0);
    bytes
}

#[test]
fn a_point_from_before_the_lanes_were_others_is_refused() {
    let mut world = World::new(12, 2);
    for _ in 0..150 {
        world.step();
    }
    world.change_lanes(3);
    let since = LanePosition(world.base);
    for _ in 0..150 {
        world.step();
    }
    // Nothing that was adopted is left: it is remembered all the same.
    (0..3).for_each(|lane| world.flush(lane));
    world.merge_all();
    for (lane, files) in (0..).zip(world.folders()) {
        assert!(manifest(&files).segments.iter().all(|of| of.adopted.is_none()));
        let copy = MemoryFiles::new(1);
        block_on(offline::checkpoint(files.clone(), copy.clone(), lane, |_| ())).unwrap();
        let random = MemoryRandom::new(5);
        let restore = |from: &MemoryFiles, until: Until| {
            let to = MemoryFiles::new(2);
            let restored = block_on(offline::restore(from.clone(), to.clone(), lane, &random, until, |_| ()));
            restored.map(|_| to)
        };
        let end = verify(lane, &files).unwrap().position;
        assert!(end > since);
        for from in [&files, &copy, &restore(&copy, Until::End).unwrap()] {
            let asked = LanePosition(since.0 - 1);
            let refused = restore(from, Until::Position(asked)).map(drop);
            assert_eq!(refused, Err(RestoreError::OtherLanes { asked, since }));
            for point in [since, end] {
                assert_sound(lane, &restore(from, Until::Position(point)).unwrap());
            }
        }
    }
    // One whose lanes were never others has no such point.
    let mut world = World::new(13, 1);
    for _ in 0..50 {
        world.step();
    }
    let until = Until::Position(LanePosition(1));
    let (from, random) = (world.folders().remove(0), MemoryRandom::new(5));
    block_on(offline::restore(from, MemoryFiles::new(2), 0, &random, until, |_| ())).unwrap();
}
