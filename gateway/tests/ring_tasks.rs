//! A shard's tasks: queues, fairness and what becomes of them at the end.

mod ring_common;

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::Poll,
    time::{Duration, Instant},
};

use antiphon_gateway::uring::Queue;
use ring_common::{RawEcho, Running, eventually, round_trip};

/// Yields once, as an engine does that knows no runtime.
async fn yield_once() {
    let mut yielded = false;
    poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[test]
fn busy_background_work_leaves_the_loop_its_latency() {
    let slices = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&slices);
    let shard = Running::start(
        |_| {},
        move |context| {
            context.spawner().spawn(Queue::Background, async move {
                loop {
                    let begin = Instant::now();
                    while begin.elapsed() < Duration::from_micros(100) {}
                    counted.fetch_add(1, Ordering::Relaxed);
                    yield_once().await;
                }
            });
            RawEcho::default()
        },
    );
    let mut stream = shard.connect();
    let mut times: Vec<Duration> = (0..1000)
        .map(|_| {
            let begin = Instant::now();
            round_trip(&mut stream, b"quick");
            begin.elapsed()
        })
        .collect();
    times.sort();
    assert!(slices.load(Ordering::Relaxed) > 100, "the background runs");
    assert!(times[500] < Duration::from_millis(3), "and the loop too: median {:?}", times[500]);
}

#[test]
fn a_task_that_never_waits_starves_neither_sockets_nor_other_tasks() {
    let (latency, background) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let counted = [(Queue::Latency, Arc::clone(&latency)), (Queue::Background, Arc::clone(&background))];
    let shard = Running::start(
        |_| {},
        move |context| {
            for (queue, count) in counted {
                context.spawner().spawn(queue, async move {
                    loop {
                        count.fetch_add(1, Ordering::Relaxed);
                        yield_once().await;
                    }
                });
            }
            RawEcho::default()
        },
    );
    let mut stream = shard.connect();
    for _ in 0..500 {
        round_trip(&mut stream, b"still there?");
    }
    eventually("both run", || latency.load(Ordering::Relaxed) > 1000 && background.load(Ordering::Relaxed) > 1000);
}

#[test]
fn tasks_end_or_are_dropped_where_they_wait() {
    struct Count(Arc<AtomicUsize>);
    impl Drop for Count {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let dropped = Arc::new(AtomicUsize::new(0));
    let theirs = Arc::clone(&dropped);
    let shard = Running::start(
        |_| {},
        move |context| {
            for index in 0..300 {
                let count = Count(Arc::clone(&theirs));
                let queue = if index % 2 == 0 { Queue::Latency } else { Queue::Background };
                context.spawner().spawn(queue, async move {
                    let _count = count;
                    yield_once().await;
                    if index % 3 != 0 {
                        std::future::pending::<()>().await;
                    }
                });
            }
            RawEcho::default()
        },
    );
    eventually("a third has ended", || dropped.load(Ordering::SeqCst) == 100);
    eventually("the others wait", || shard.counters.tasks.get() == 200);
    shard.stop();
    assert_eq!(dropped.load(Ordering::SeqCst), 300);
}
