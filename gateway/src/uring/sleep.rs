//! Where a shard waits when it has nothing to do: in the net ring, or, while background tasks can run, for a slice of theirs.
//!
//! Waiting in the net ring is one `enter` with a minimum of one completion: whatever can wake the shard is a completion of that
//! ring (sockets, files, and the poll on the eventfd of [`super::wake`]), so nothing is missed, and what came before is found.
//! glommio has nothing in flight then, ever: files are the net ring's, and tasks await neither its timers nor its threads.
//!
//! Control goes to glommio only while it has a task to run. Even then it may park: it arms its preemption timer, and if that fires
//! before it has looked at its queues (a thread that loses its core there is enough), it takes "time is over" for "nothing to do"
//! and sleeps, with runnable tasks, until something else happens (glommio 0.9, `LocalExecutor::run` after `run_task_queues`).
//! Measured here with a timer of 500 µs: once in some thousand sleeps. So every wait in glommio has timers of glommio's beside it,
//! which end such a sleep: a short one, and one so long that it cannot have been used up before.

use std::{
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    task::Poll,
    time::{Duration, Instant},
};

use glommio::timer::Timer;

use super::{ring::Ring, tasks::Tasks};

/// Ends a wrong sleep of glommio's soon.
const WATCH: Duration = Duration::from_millis(1);
/// Ends it for certain: it would take a thread without a core for so long to use it up.
const WATCH_LAST: Duration = Duration::from_secs(1);

/// Waits in the net ring, at most until `deadline`. Blocks the thread; glommio has nothing to run.
pub(super) fn in_ring(ring: &mut Ring, deadline: Option<Instant>) -> io::Result<()> {
    let timeout = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    if timeout == Some(Duration::ZERO) {
        return Ok(());
    }
    ring.wait(timeout)
}

/// Lets background tasks run for a slice: until one was polled and glommio's timer or their patience is over. The loop has nothing
/// to do, so it does not compete with them.
pub(super) async fn for_background(tasks: &Tasks) {
    let seen = tasks.background_polls();
    watched(poll_fn(|context| tasks.poll_progress(seen, context))).await;
}

/// Offers background tasks their share while the loop is busy; glommio decides by what both have used.
pub(super) async fn beside_background() {
    watched(glommio::executor().yield_task_queue_now()).await;
}

/// Ready when the future or a timer is.
async fn watched(future: impl Future<Output = ()>) {
    let mut future = pin!(future);
    let mut timers = [Timer::new(WATCH), Timer::new(WATCH_LAST)];
    poll_fn(|context| {
        let mut ready = future.as_mut().poll(context).is_ready();
        for timer in &mut timers {
            ready |= Pin::new(timer).poll(context).is_ready();
        }
        if ready { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}
