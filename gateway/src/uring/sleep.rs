//! What a shard does when it has nothing to do: sleeps in the net ring, or, while background tasks can run, gives them a slice.
//!
//! Sleeping is one `enter` with a minimum of one completion: whatever can wake the shard is a completion of the net ring (sockets,
//! files, and the poll on the eventfd of [`super::wake`]), so nothing is missed, and what came before is found. glommio has nothing
//! in flight then, ever: files are the net ring's, and tasks await neither its timers nor its threads.
//!
//! Control goes to glommio only with a slice to run, and it must not park meanwhile. It would, if its preemption timer were short:
//! when that fires after it was armed and before glommio has looked at its queues (a thread that loses its core there is enough),
//! "time is over" is taken for "nothing to do", and it sleeps over runnable tasks until something else happens (glommio 0.9,
//! `LocalExecutor::run` after `run_task_queues`). glommio alone, with one task that reads an eventfd, which another thread writes
//! 50,000 times, stopped for good in five of six runs with timers of 100 and 500 µs on a busy machine, and in none of six with
//! 100 ms or an hour. So the timer is [`NEVER`], and slices end by themselves.

use std::{
    cell::Cell,
    io,
    rc::Rc,
    time::{Duration, Instant},
};

use glommio::{Latency, Shares, TaskQueueHandle};
use io_uring::{opcode, types};

use super::{
    ring::Ring,
    tasks::Tasks,
    token::{Kind, Token},
};

/// glommio's preemption timer: longer than any slice, even on a thread that has no core for long.
pub(super) const NEVER: Duration = Duration::from_secs(3600);

/// Shares of the background queue, against 1,000 of the loop's: a twentieth while both are busy.
const BACKGROUND_SHARES: usize = 50;

/// How far ahead the alarm is set at most: deadlines before it have a timeout of their own, so it must not stay far off for long.
const ALARM_AHEAD_MAX: Duration = Duration::from_secs(1);

/// A timeout that stays with the kernel while the shard sleeps and wakes, so that a sleep does not have to set and clear one of its own
/// (a twentieth of the CPU of an echo on a quiet shard). There is one at most; it is never taken back.
#[derive(Default)]
pub(super) struct Alarm {
    at: Option<Instant>,
    /// Read by the kernel when the timeout is submitted.
    time: Box<types::Timespec>,
}

impl Alarm {
    /// Its time has come, and it must be set again.
    pub(super) fn rang(&mut self) {
        self.at = None;
    }

    /// Sleeps in the net ring, at most until `deadline`, perhaps less long. Blocks the thread.
    pub(super) fn sleep(&mut self, ring: &mut Ring, deadline: Option<Instant>) -> io::Result<()> {
        let Some(deadline) = deadline else {
            return ring.wait(None);
        };
        if self.at.is_some_and(|at| at <= deadline) {
            return ring.wait(None);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        if self.at.is_some() {
            return ring.wait(Some(left));
        }
        self.set(ring, left.min(ALARM_AHEAD_MAX));
        ring.wait(None)
    }

    fn set(&mut self, ring: &mut Ring, ahead: Duration) {
        *self.time = types::Timespec::from(ahead);
        self.at = Some(Instant::now() + ahead);
        let entry = opcode::Timeout::new(&raw const *self.time).build();
        // SAFETY: the operation names the box, which lives as long as the shard and changes only after the completion.
        unsafe { ring.push(entry.user_data(Token::new(Kind::Alarm, 0, 0).pack())) };
    }
}

/// Background tasks' turn.
pub(super) struct Slices {
    tasks: Rc<Tasks>,
    queue: TaskQueueHandle,
    time: Duration,
    /// The slice that was granted and has not run.
    granted: Option<glommio::Task<()>>,
    over: Rc<Cell<bool>>,
}

impl Slices {
    /// Inside of the executor.
    pub(super) fn new(tasks: Rc<Tasks>, time: Duration) -> Self {
        let shares = Shares::Static(BACKGROUND_SHARES);
        let queue = glommio::executor().create_task_queue(shares, Latency::NotImportant, "background");
        Self { tasks, queue, time, granted: None, over: Rc::default() }
    }

    /// Whether there is something to run.
    pub(super) fn is_wanted(&self) -> bool {
        self.granted.is_some() || self.tasks.has_background()
    }

    /// Runs a slice. The loop has nothing to do but to wait for it, so it does not compete.
    pub(super) async fn run(&mut self) {
        let slice = self.granted.take().unwrap_or_else(|| self.grant());
        slice.await;
    }

    /// Grants a slice beside a busy loop; glommio decides, by what both have used of their shares, whether it runs now.
    pub(super) async fn offer(&mut self) {
        let slice = self.granted.take().unwrap_or_else(|| self.grant());
        glommio::executor().yield_task_queue_now().await;
        if !self.over.get() {
            self.granted = Some(slice);
        }
    }

    fn grant(&self) -> glommio::Task<()> {
        self.over.set(false);
        let (tasks, time, over) = (Rc::clone(&self.tasks), self.time, Rc::clone(&self.over));
        let slice = async move {
            tasks.run_slice(time);
            over.set(true);
        };
        glommio::spawn_local_into(slice, self.queue).expect("the queue lives as long as the shard")
    }
}
