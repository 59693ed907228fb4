//! A shard that has nothing to do uses no CPU. One test, alone in its process.

mod ring_common;

use std::{fs, thread, time::Duration};

use antiphon_gateway::uring::Queue;
use ring_common::{RawEcho, Running, round_trip};

/// CPU time of all threads of this process, as the scheduler has measured it.
fn cpu() -> Duration {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let nanoseconds = tasks.map(|task| {
        let text = fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap_or_default();
        text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0)
    });
    Duration::from_nanos(nanoseconds.sum())
}

#[test]
fn an_idle_shard_uses_no_cpu() {
    let shard = Running::start(
        |_| {},
        |context| {
            for queue in [Queue::Latency, Queue::Background] {
                context.spawner().spawn(queue, std::future::pending());
            }
            RawEcho::default()
        },
    );
    let mut streams: Vec<_> = (0..500).map(|_| shard.connect()).collect();
    for stream in &mut streams {
        round_trip(stream, b"awake");
    }
    thread::sleep(Duration::from_millis(100));
    let before = (cpu(), shard.counters.turns.get());
    thread::sleep(Duration::from_secs(1));
    let (used, turns) = (cpu() - before.0, shard.counters.turns.get() - before.1);
    println!("CPU in a second: {used:?}, turns: {turns}");
    assert!(used < Duration::from_millis(5), "{used:?} in a second of idleness");
    assert!(turns < 5, "{turns} turns in a second of idleness");
}
