//! Random loads over random numbers of lanes, against a model that knows of no lanes. A failure names its seed; `check(seed)` repeats it.

use antiphon_engine::{door::Command, memory_files::MemoryRandom, partitions::lane_of};
use antiphon_wire::ids::ClientMessageId;

use crate::{
    support::{noise, send, user},
    world::{USERS, World, assert_sound, manifest},
};

const SEEDS: u64 = 20;
const CHANGES: u64 = 6;

#[test]
fn whatever_the_number_of_lanes_the_answers_are_the_same() {
    for seed in 0..SEEDS {
        let named = std::panic::catch_unwind(|| check(seed));
        if let Err(panic) = named {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

fn check(seed: u64) {
    let random = MemoryRandom::new(seed ^ 0x1a9e5);
    let mut world = World::new(seed, 1 + random.below(4) as u16);
    for _ in 0..CHANGES {
        for _ in 0..random.below(60) {
            world.step();
        }
        if random.below(3) == 0 {
            world.merge_all();
        }
        world.check();
        let most = if random.below(8) == 0 { 16 } else { 5 };
        for _ in 0..=random.below(3) {
            world.change_lanes(1 + random.below(most) as u16);
        }
        if random.below(2) == 0 {
            world.check_unmerged();
        }
        world.check();
    }
    world.merge_all();
    world.check();
    for (lane, files) in (0..).zip(world.folders()) {
        assert_sound(lane, &files);
    }
}

/// A store with messages in groups of every lane, however many there are.
fn filled(world: &mut World) {
    let members = || USERS.iter().map(|name| user(name)).collect::<Vec<_>>();
    for key in 0..40 {
        let (user, key) = (user("ann"), ClientMessageId([key; 16]));
        world.change(Command::CreateGroup { user, key, title: "choir".into(), members: members() });
    }
    let ids: Vec<_> = world.model.conversations.keys().copied().collect();
    for (number, id) in (0..).zip(ids.iter().cycle().take(200)) {
        world.change(send("bob", *id, 1_000 + number, &noise(number, 100)));
        if number % 20 == 0 {
            (0..world.lanes.len()).for_each(|lane| world.flush(lane));
        }
    }
    for lanes in 1..=5 {
        assert!((0..lanes).all(|lane| ids.iter().any(|id| lane_of(*id, lanes) == lane)));
    }
}

#[test]
fn rows_of_others_go_at_merges_and_room_comes_back() {
    let mut world = World::new(7, 1);
    filled(&mut world);
    world.merge_all();
    let rows = |world: &World| -> u64 {
        (0..).zip(world.folders()).map(|(lane, files)| assert_sound(lane, &files).rows).sum()
    };
    let bytes = |world: &World| -> u64 {
        let files = world.folders();
        files.iter().flat_map(|files| manifest(files).segments).map(|segment| segment.file_bytes).sum()
    };
    // Where all is merged into one, a row is there once.
    let least = |world: &World| {
        world
            .folders()
            .iter()
            .map(|files| {
                antiphon_engine::memory_files::block_on(antiphon_engine::offline::inspect(
                    files.clone(),
                    manifest(files).lane as u16,
                    true,
                    |_| (),
                ))
                .unwrap()
                .totals
                .unwrap()
                .rows
            })
            .sum::<u64>()
    };
    let (rows_before, bytes_before, least_before) = (rows(&world), bytes(&world), least(&world));
    for lanes in [2, 3, 1, 4, 1] {
        world.change_lanes(lanes);
        assert_eq!(least(&world), least_before, "a row counts on one lane");
        world.merge_all();
        for files in world.folders() {
            let others: Vec<_> =
                manifest(&files).segments.into_iter().filter_map(|of| of.adopted).filter(|of| !of.is_whole()).collect();
            assert!(others.is_empty(), "{lanes} lanes: rows of others are left: {others:?}");
            let named = manifest(&files).segments.len();
            let there = files.names().iter().filter(|name| name.starts_with("segment-")).count();
            assert_eq!(there, named, "{lanes} lanes: files are left");
        }
        assert!(rows(&world) <= rows_before, "{lanes} lanes: {} of {rows_before} rows", rows(&world));
        // Of small segments ends, index and filter take most: four pages each.
        let segments: usize = world.folders().iter().map(|files| manifest(files).segments.len()).sum();
        let most = bytes_before + 4 * 4096 * segments as u64;
        assert!(bytes(&world) <= most, "{lanes} lanes: {} of {bytes_before} bytes", bytes(&world));
        world.check();
    }
}

#[test]
fn without_merges_files_stay_as_many_as_they_are() {
    let mut world = World::new(8, 1);
    filled(&mut world);
    world.merge_all();
    let segments = |world: &World| world.folders().iter().map(|files| manifest(files).segments.len()).max().unwrap();
    let before = segments(&world);
    // Nothing is polled in between, so nothing is merged.
    world.closes = false;
    for lanes in [2, 1, 3, 1, 2, 4, 1] {
        world.change_lanes(lanes);
    }
    assert_eq!(segments(&world), before, "what was shared is one again");
    let whole =
        manifest(&world.folders()[0]).segments.iter().filter(|of| of.adopted.is_some_and(|of| of.is_whole())).count();
    assert_eq!(whole, before);
    world.check();
}
