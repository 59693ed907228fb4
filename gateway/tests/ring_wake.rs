//! Waking a shard: from other threads, by its own alarm, by tasks; asleep, and beside background tasks.

mod ring_common;

use std::{
    future::poll_fn,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    task::{Poll, Waker as TaskWaker},
    thread,
    time::{Duration, Instant},
};

use antiphon_gateway::{
    core::io::{Command, ConnectionKey, Handler, Origin, Turn},
    uring::{Queue, Spawner},
};
use crossbeam::queue::ArrayQueue;
use ring_common::{PATIENCE, RawEcho, Running, eventually};

/// Counts what comes through a queue.
struct Counting {
    queue: Arc<ArrayQueue<u64>>,
    seen: Arc<AtomicU64>,
}

impl Handler for Counting {
    fn accepted(&mut self, _: ConnectionKey, _: Origin) {}
    fn received(&mut self, _: ConnectionKey, _: &mut [u8]) {}
    fn sent(&mut self, _: ConnectionKey) {}
    fn closed(&mut self, _: ConnectionKey) {}
    fn turn(&mut self, _: u64) -> Turn {
        while let Some(value) = self.queue.pop() {
            self.seen.fetch_add(value, Ordering::SeqCst);
        }
        Turn { more: false, wake_at_ms: None }
    }
    fn poll_command(&mut self) -> Option<Command> {
        None
    }
}

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

/// A background task that always can run, so that the shard gives control to glommio between all rounds.
fn never_rest(spawner: &Spawner) {
    spawner.spawn(Queue::Background, async {
        loop {
            yield_once().await;
        }
    });
}

/// 100,000 wake-ups in bursts of one to nine, by one thread and now and then by two; each burst must be seen before the next.
/// Beside background tasks, where a wake-up waits for a slice, fewer.
fn no_wake_up_is_lost(background: bool) {
    let queue = Arc::new(ArrayQueue::new(16));
    let seen = Arc::new(AtomicU64::new(0));
    let (theirs, counted) = (Arc::clone(&queue), Arc::clone(&seen));
    let shard = Running::start(
        |_| {},
        move |context| {
            if background {
                never_rest(context.spawner());
            }
            Counting { queue: theirs, seen: counted }
        },
    );
    let wake_with = |value| {
        queue.push(value).expect("the shard has emptied the queue");
        shard.waker.wake();
    };
    let wake_ups = if background { 3_000 } else { 100_000 };
    let mut sent = 0;
    for round in 0.. {
        if sent >= wake_ups {
            break;
        }
        let burst = round % 9 + 1;
        thread::scope(|scope| {
            if round % 1000 == 0 {
                scope.spawn(|| wake_with(0));
            }
            (0..burst).for_each(|_| wake_with(1));
        });
        sent += burst;
        let end = Instant::now() + PATIENCE;
        while seen.load(Ordering::SeqCst) < sent {
            assert!(Instant::now() < end, "a wake-up of the {sent} so far was lost");
            thread::yield_now();
        }
        if round % 64 == 0 {
            // Now and then let it fall fast asleep.
            thread::sleep(Duration::from_micros(100));
        }
    }
    let (sleeps, slices) = (shard.counters.sleeps.get(), shard.counters.background_slices.get());
    if background {
        assert!(slices > 300 && sleeps == 0, "the test means never to sleep: {sleeps} {slices}");
    } else {
        // It has over 300 pauses to fall asleep in; on a busy machine it sleeps through some of them without having been awake between.
        assert!(sleeps > 100 && slices == 0, "the test means to sleep: {sleeps} {slices}");
    }
}

#[test]
fn no_wake_up_is_lost_asleep() {
    no_wake_up_is_lost(false);
}

#[test]
fn no_wake_up_is_lost_beside_background_tasks() {
    no_wake_up_is_lost(true);
}

/// Wants a turn at a time, and notes when it got it.
struct Alarm {
    at_ms: Option<u64>,
    in_ms: u64,
    heard: mpsc::Sender<(u64, u64)>,
}

impl Handler for Alarm {
    fn accepted(&mut self, _: ConnectionKey, _: Origin) {}
    fn received(&mut self, _: ConnectionKey, _: &mut [u8]) {}
    fn sent(&mut self, _: ConnectionKey) {}
    fn closed(&mut self, _: ConnectionKey) {}
    fn turn(&mut self, now_ms: u64) -> Turn {
        if let Some(at_ms) = self.at_ms.filter(|at_ms| *at_ms <= now_ms) {
            self.heard.send((at_ms, now_ms)).unwrap();
            self.at_ms = None;
        }
        let at_ms = *self.at_ms.get_or_insert(now_ms + self.in_ms);
        Turn { more: false, wake_at_ms: Some(at_ms) }
    }
    fn poll_command(&mut self) -> Option<Command> {
        None
    }
}

#[test]
fn a_handler_is_woken_when_it_wants() {
    for background in [false, true] {
        let (heard, hear) = mpsc::channel();
        let shard = Running::start(
            |_| {},
            move |context| {
                if background {
                    never_rest(context.spawner());
                }
                Alarm { at_ms: None, in_ms: 20, heard }
            },
        );
        let begin = Instant::now();
        let mut late = 0;
        for _ in 0..20 {
            let (at_ms, now_ms) = hear.recv_timeout(PATIENCE).unwrap();
            assert!(now_ms >= at_ms);
            late += now_ms - at_ms;
        }
        assert!(begin.elapsed() >= Duration::from_millis(380), "not before its time");
        assert!(late < 2000, "and not much later: {late} ms in 20 alarms");
        assert!(background || shard.counters.turns.get() < 100, "without spinning: {}", shard.counters.turns.get());
        shard.stop();
    }
}

#[test]
fn a_task_that_another_thread_wakes_runs() {
    for background in [false, true] {
        let slot: Arc<Mutex<Option<TaskWaker>>> = Arc::default();
        let ready = Arc::new(AtomicBool::new(false));
        let done = Arc::new(AtomicU64::new(0));
        let (theirs, flag, count) = (Arc::clone(&slot), Arc::clone(&ready), Arc::clone(&done));
        let shard = Running::start(
            |_| {},
            move |context| {
                if background {
                    never_rest(context.spawner());
                }
                context.spawner().spawn(Queue::Latency, async move {
                    loop {
                        poll_fn(|context| {
                            *theirs.lock().unwrap() = Some(context.waker().clone());
                            if flag.swap(false, Ordering::SeqCst) { Poll::Ready(()) } else { Poll::Pending }
                        })
                        .await;
                        count.fetch_add(1, Ordering::SeqCst);
                    }
                });
                RawEcho::default()
            },
        );
        eventually("the task waits", || slot.lock().unwrap().is_some());
        for round in 1..=500 {
            ready.store(true, Ordering::SeqCst);
            let waker = slot.lock().unwrap().clone().unwrap();
            waker.wake();
            let end = Instant::now() + PATIENCE;
            while done.load(Ordering::SeqCst) < round {
                assert!(Instant::now() < end, "wake-up {round} was lost");
                thread::yield_now();
            }
        }
        shard.stop();
    }
}

#[test]
fn a_shard_stops_whenever_it_is_told() {
    for round in 0..1000_u64 {
        let shard = Running::start(|_| {}, |_| RawEcho::default());
        // From before its first turn until long after it has fallen asleep.
        thread::sleep(Duration::from_micros(round * 37 % 3000));
        // In the midst of the round that another wake-up has begun.
        shard.waker.wake();
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_nanos(round % 100 * 400) {}
        shard.stop();
    }
}
