//! Copies of an encrypted store take its data keys along: checkpoints, restored, repaired, loaded and spread stores.

use antiphon_engine::{
    EngineError,
    memory_files::{MemoryFiles, MemoryRandom},
    offline::{self, Loader, Until},
};

use crate::{
    support::{Lane, block_on},
    world::{access, assert_sound, dump, node_key, options, talk, with_marker},
};

fn world() -> (Lane, Vec<String>) {
    let mut lane = Lane::with_options(1, options());
    for round in 1..6 {
        talk(&mut lane, round, 30);
    }
    lane.close().unwrap();
    let lines = dump(&lane.files, access());
    (lane, lines)
}

/// Sound, without a word in the clear, and with what the lines say.
fn check(files: &MemoryFiles, lines: &[String]) {
    assert_eq!(with_marker(files), [""; 0]);
    assert_sound(files);
    assert_eq!(dump(files, access())[1..], lines[1..]);
}

#[test]
fn a_checkpoint_of_a_store_at_rest_and_one_of_a_lane_that_runs() {
    let (mut lane, lines) = world();
    let target = MemoryFiles::new(2);
    let refused = block_on(offline::checkpoint(lane.files.clone(), MemoryFiles::new(3), 0_u16, |_| ()));
    assert_eq!(refused, Err(EngineError::KeyNeeded), "the log is not empty");
    block_on(offline::checkpoint(lane.files.clone(), target.clone(), access(), |_| ())).unwrap();
    check(&target, &lines);
    // A copy of a copy needs no key: it has no log.
    let second = MemoryFiles::new(4);
    block_on(offline::checkpoint(target, second.clone(), 0_u16, |_| ())).unwrap();
    check(&second, &lines);
    lane = lane.opened_again(lane.files.clone()).unwrap();
    let running = MemoryFiles::new(5);
    lane.checkpoint(&running).unwrap();
    check(&running, &lines);
    // What comes later is none of its business.
    talk(&mut lane, 9, 10);
    check(&running, &lines);
}

#[test]
fn a_restored_store_whole_or_up_to_a_point() {
    let (lane, lines) = world();
    let random = MemoryRandom::new(7);
    let whole = MemoryFiles::new(2);
    block_on(offline::restore(lane.files.clone(), whole.clone(), access(), &random, Until::End, |_| ())).unwrap();
    check(&whole, &lines);
    // It goes on as an encrypted one.
    let mut again = lane.opened_again(whole).unwrap();
    talk(&mut again, 8, 20);
    again.close().unwrap();
    assert_eq!(with_marker(&again.files), [""; 0]);
    assert_sound(&again.files);
    // Without the key a copy can be restored that has no log.
    let (copy, to) = (MemoryFiles::new(3), MemoryFiles::new(4));
    block_on(offline::checkpoint(lane.files.clone(), copy.clone(), access(), |_| ())).unwrap();
    block_on(offline::restore(copy, to.clone(), 0_u16, &random, Until::End, |_| ())).unwrap();
    check(&to, &lines);
    let part = MemoryFiles::new(5);
    let until = Until::Position(antiphon_wire::ids::LanePosition(100));
    block_on(offline::restore(lane.files.clone(), part.clone(), access(), &random, until, |_| ())).unwrap();
    assert_eq!(with_marker(&part), [""; 0]);
    assert_sound(&part);
    assert!(dump(&part, access()).len() < lines.len());
}

#[test]
fn a_repaired_store_and_a_loaded_one() {
    let (lane, lines) = world();
    let repaired = MemoryFiles::new(2);
    let random = MemoryRandom::new(7);
    block_on(offline::repair(lane.files.clone(), repaired.clone(), access(), &random, |_| ())).unwrap();
    check(&repaired, &lines);
    let loaded = MemoryFiles::new(3);
    block_on(async {
        let mut loader = Loader::create_encrypted(loaded.clone(), &random, &lines[0], Some(node_key())).await.unwrap();
        for line in &lines[1..] {
            loader.push(line).await.unwrap();
        }
    });
    check(&loaded, &lines);
}

#[test]
fn other_lanes_have_the_keys_of_their_conversations() {
    let (lane, lines) = world();
    let mut folders = vec![lane.files.clone()];
    for (round, count) in [3_usize, 2, 1].into_iter().enumerate() {
        let new: Vec<_> = (0..count).map(|at| MemoryFiles::new(at as u64)).collect();
        let random = MemoryRandom::new(round as u64);
        let refused = block_on(offline::spread(&folders, &new, &random, |_| ()));
        assert!(refused.is_err(), "without the key");
        let new: Vec<_> = (0..count).map(|at| MemoryFiles::new(at as u64)).collect();
        block_on(offline::spread_encrypted(&folders, &new, Some(&node_key()), &random, |_| ())).unwrap();
        let mut all = 0;
        for (number, files) in new.iter().enumerate() {
            assert_eq!(with_marker(files), [""; 0]);
            let access = offline::Access::with_key(number as u16, node_key(), &random);
            let report = block_on(offline::verify(files.clone(), access.clone(), |_| ())).unwrap();
            assert_eq!(crate::world::findings(&report), [""; 0]);
            all += dump(files, access.clone()).len() - 2;
            let shown = block_on(offline::inspect(files.clone(), access, false, |_| ())).unwrap();
            assert_eq!(shown.data_keys, Some(report.conversations));
            // It takes more, and merges what it adopted.
            let options = antiphon_engine::EngineOptions { lane: number as u16, ..options() };
            let mut again = Lane::open(files.clone(), lane.clock.clone(), MemoryRandom::new(50), options).unwrap();
            again.engine.tick();
            again.settle_queued();
            again.close().unwrap();
        }
        assert_eq!(all, lines.len() - 2);
        folders = new;
    }
}
