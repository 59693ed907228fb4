//! A process that is killed leaves names that no sync has covered; what the next one builds on them must
//! survive a power cut all the same.

mod support;

use std::task::{Context, Waker};

use antiphon_engine::{
    Engine, EngineOptions,
    memory_files::{MemoryClock, MemoryFiles, MemoryRandom},
};
use support::{block_on, small_options};

/// Rounds of operations in which a store is made.
const ROUNDS_MAX: usize = 14;

/// Ways in which operations under way are carried out or not when the process dies.
const KILLS: usize = 6;

fn options() -> EngineOptions {
    EngineOptions { log_file_bytes: 512 * 1024, ..small_options() }
}

/// What is left of a folder when a node that opens it is killed after so many rounds of operations.
fn killed_after(rounds: usize, seed: u64, files: MemoryFiles) -> MemoryFiles {
    files.set_queued(true);
    let mut open = Box::pin(Engine::open(files.clone(), MemoryClock::new(1), MemoryRandom::new(9), options()));
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..rounds {
        if open.as_mut().poll(&mut context).is_ready() {
            break;
        }
        for pending in files.pending() {
            files.release(pending.ticket);
        }
    }
    files.kill(seed);
    files.reopen()
}

#[test]
fn what_killed_processes_left_is_durable_once_it_is_open() {
    let cases = (0..ROUNDS_MAX * ROUNDS_MAX * KILLS).map(|case| {
        let (rounds, kill) = (case / KILLS, (case % KILLS) as u64);
        (rounds / ROUNDS_MAX, rounds % ROUNDS_MAX, kill)
    });
    for (first, second, kill) in cases {
        let left = killed_after(second, kill >> 1, killed_after(first, kill, MemoryFiles::new(3)));
        left.set_queued(false);
        let open = |files| block_on(Engine::open(files, MemoryClock::new(2), MemoryRandom::new(9), options()));
        // From here on the node would acknowledge.
        let (_engine, _) = open(left.clone()).unwrap();
        for seed in 0..4 {
            let (_engine, report) = open(left.crash_image(seed)).unwrap();
            let context = format!("killed after {first} and {second} rounds ({kill}), power cut {seed}: {report:?}");
            assert!(!report.created && report.damage.is_empty(), "{context}");
        }
    }
}
