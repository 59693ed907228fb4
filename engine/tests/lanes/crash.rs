//! New lanes are whole or none, wherever their making ends; the old ones stay as they are.

use std::{
    pin::pin,
    task::{Context, Poll, Waker},
};

use antiphon_engine::{
    EngineError,
    error::StoreError,
    memory_files::{MemoryFiles, MemoryRandom},
    offline::{self, LanesError},
    seams::FileError,
};

use crate::world::{World, assert_sound, dump, dump_all, image, manifest, spread, verify};

fn world(seed: u64, lanes: u16) -> World {
    let mut world = World::new(seed, lanes);
    for _ in 0..150 {
        world.step();
    }
    // Something is in a segment of each lane, and something in its log.
    (0..usize::from(lanes)).for_each(|lane| world.flush(lane));
    for _ in 0..20 {
        world.step();
    }
    world
}

#[test]
fn a_crash_at_any_operation_leaves_the_old_lanes_and_whole_new_ones_or_none() {
    for (from, to) in [(1, 2), (2, 1), (2, 3)] {
        let old = world(5, from).folders();
        let images: Vec<_> = old.iter().map(image).collect();
        let whole = spread(&old, to, 1).0;
        let expected: Vec<Vec<String>> = (0..).zip(&whole).map(|(lane, files)| dump(lane, files)).collect();
        let (mut complete, mut none) = (0, 0);
        for stop in 0.. {
            let new: Vec<MemoryFiles> = (0..to).map(|lane| MemoryFiles::new(u64::from(lane))).collect();
            new.iter().for_each(|files| files.set_queued(true));
            let random = MemoryRandom::new(stop);
            let mut making = pin!(offline::spread(&old, &new, &random, |_| ()));
            let mut operations = 0;
            let is_over = loop {
                if let Poll::Ready(made) = making.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                    made.unwrap();
                    break true;
                }
                if operations == stop {
                    break false;
                }
                let pending: Vec<_> =
                    new.iter().flat_map(|files| files.pending().into_iter().map(move |of| (files, of))).collect();
                let (files, operation) = &pending[random.below(pending.len() as u64) as usize];
                files.release(operation.ticket);
                operations += 1;
            };
            assert!(old.iter().map(image).eq(images.iter().cloned()), "{from} to {to}, operation {stop}");
            for seed in 0..4 {
                for (lane, files) in (0..).zip(&new) {
                    let found = files.crash_image(seed);
                    match verify(lane, &found) {
                        Ok(report) => {
                            assert!(
                                report.is_sound(),
                                "{from} to {to}, operation {stop}, seed {seed}: {:?}",
                                report.findings
                            );
                            assert_eq!(dump(lane, &found), expected[usize::from(lane)]);
                            complete += 1;
                        }
                        Err(EngineError::Store(StoreError::ManifestMissing) | EngineError::ManifestLost { .. })
                            if !is_over =>
                        {
                            none += 1
                        }
                        Err(error) => panic!("{from} to {to}, operation {stop}, seed {seed}: {error}"),
                    }
                }
            }
            if is_over {
                break;
            }
        }
        assert!(complete > 4 && none > 40, "{from} to {to}: {complete} and {none}");
    }
}

#[test]
fn a_full_disk_ends_it_and_nothing_else() {
    let old = world(6, 2).folders();
    let (images, before) = (old.iter().map(image).collect::<Vec<_>>(), dump_all(&old));
    let mut failures = 0;
    for pages in 0.. {
        let new: Vec<MemoryFiles> = (0..3).map(MemoryFiles::new).collect();
        new[1].set_capacity(Some(pages * 4096));
        let made = antiphon_engine::memory_files::block_on(offline::spread(&old, &new, &MemoryRandom::new(3), |_| ()));
        assert!(old.iter().map(image).eq(images.iter().cloned()), "{pages} pages");
        match made {
            Err(LanesError::New { lane: 1, source: EngineError::Store(StoreError::File(FileError::Full { .. })) }) => {
                failures += 1
            }
            Err(error) => panic!("{pages} pages: {error}"),
            Ok(_) => {
                assert_eq!(dump_all(&new), before);
                break;
            }
        }
    }
    assert!(failures > 3, "{failures}");
}

/// What is wrong, and what makes it so.
type Damage = (&'static str, fn(&MemoryFiles));

#[test]
fn what_is_not_whole_is_not_spread() {
    let world = world(7, 2);
    let old = world.folders();
    // A segment that cannot be opened, one that is missing, a log that has lost something, a manifest that is none.
    let damages: [Damage; 4] = [
        ("a segment's header", |files| {
            let name = manifest(files).segments[0].id.file_name();
            assert!(files.flip_bit(&name, 30, 1));
        }),
        ("a missing segment", |files| {
            let name = manifest(files).segments[0].id.file_name();
            files.take_away(&name);
        }),
        ("the log", |files| {
            let names: Vec<String> = files.names().into_iter().filter(|name| name.starts_with("log-")).collect();
            names.iter().for_each(|name| files.take_away(name));
        }),
        ("the manifest", |files| assert!(files.flip_bit("manifest", 30, 1))),
    ];
    for (what, damage) in damages {
        let damaged: Vec<MemoryFiles> = old.iter().map(|files| files.crash_image(1)).collect();
        damage(&damaged[1]);
        let images: Vec<_> = damaged.iter().map(image).collect();
        let (new, made) = spread(&damaged, 3, 1);
        let error = made.unwrap_err();
        assert!(matches!(error, LanesError::Old { lane: 1, .. }), "{what}: {error}");
        assert!(damaged.iter().map(image).eq(images), "{what}: nothing was changed");
        for (lane, files) in (0..).zip(&new) {
            assert!(verify(lane, files).is_err(), "{what}: a lane was made");
        }
    }
    // Lanes that were exchanged.
    let (_, made) = spread(&[old[1].clone(), old[0].clone()], 1, 1);
    assert!(matches!(made, Err(LanesError::Old { source: EngineError::OtherLane { .. }, .. })), "{made:?}");
    // A lane that a first start never came to is one without anything.
    let (new, made) = spread(&[old[0].clone(), MemoryFiles::new(1)], 1, 1);
    assert_eq!(made.unwrap().len(), 1);
    assert_sound(0, &new[0]);
}
