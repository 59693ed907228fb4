//! A shard's tasks: those that clients wait for, run by the loop itself, and those in the background, run by glommio in slices.
//!
//! Whoever wakes a task puts it into `ready`. A round of the loop polls the latency tasks in it, in order, and moves the background
//! tasks to `waiting`; a slice, which is a task of glommio's background queue, polls those until its time is over. So glommio holds
//! no task of ours but the slice that was granted, and the loop knows what can run without asking it.
//!
//! Invariants: a task that was woken and not polled since is in `ready` or in `waiting`, once. A task woken by another thread wakes
//! the shard.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{self, Context, Wake},
    thread::{self, ThreadId},
    time::{Duration, Instant},
};

use super::{counters::ShardCounters, wake::Waker};

/// Who runs a task, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queue {
    /// The loop, in the round after the task was woken: what a client waits for. Its polls are short.
    Latency,
    /// glommio, with few shares: flush, compaction, cold reads. Each poll keeps the shard from everything else, so a long one comes
    /// to an `await` every few hundred microseconds.
    Background,
}

type LocalFuture = Pin<Box<dyn Future<Output = ()>>>;

/// Starts tasks on a shard. Cheap to clone; stays on its shard.
#[derive(Clone)]
pub struct Spawner {
    tasks: Rc<Tasks>,
}

/// All tasks of a shard.
pub(super) struct Tasks {
    shared: Arc<Shared>,
    slots: RefCell<Vec<Option<Slot>>>,
    free: RefCell<Vec<usize>>,
    /// The round's tasks; kept for its memory.
    round: Cell<Vec<Arc<TaskWake>>>,
    /// Background tasks that can run. Bounded by the number of tasks.
    waiting: RefCell<VecDeque<Arc<TaskWake>>>,
    counters: Arc<ShardCounters>,
}

struct Slot {
    wake: Arc<TaskWake>,
    /// `wake` as the future sees it; made once.
    waker: task::Waker,
    /// Out of its slot while it is polled.
    future: Option<LocalFuture>,
}

/// What wakers on other threads touch.
struct Shared {
    /// Woken tasks that the loop has not looked at. Bounded by the number of tasks.
    ready: Mutex<Vec<Arc<TaskWake>>>,
    home: ThreadId,
    shard: Waker,
}

impl Shared {
    fn ready(&self) -> MutexGuard<'_, Vec<Arc<TaskWake>>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct TaskWake {
    shared: Arc<Shared>,
    queue: Queue,
    slot: usize,
    /// Woken and not polled since.
    woken: AtomicBool,
}

impl Wake for TaskWake {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.woken.swap(true, Ordering::AcqRel) {
            return;
        }
        self.shared.ready().push(Arc::clone(self));
        if thread::current().id() != self.shared.home {
            self.shared.shard.wake();
        }
    }
}

impl Spawner {
    /// Starts a task; its first poll comes in a later round. It runs until it finishes or the shard stops; then it is dropped where
    /// it waits. It must not await glommio's own timers, files or threads: while the shard sleeps, nobody looks for those.
    pub fn spawn(&self, queue: Queue, future: impl Future<Output = ()> + 'static) {
        let wake = self.tasks.insert(queue, Box::pin(future));
        self.tasks.shared.ready().push(wake);
    }

    /// Runs something that blocks on a thread of its own. For what is rare and has no ring operation. `None`: there is no thread
    /// to be had.
    pub async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (send, receive) = tokio::sync::oneshot::channel();
        let run = move || drop(send.send(work()));
        thread::Builder::new().name("blocking".into()).spawn(run).ok()?;
        receive.await.ok()
    }

    /// On the shard's thread.
    pub(super) fn new(shard: Waker, counters: Arc<ShardCounters>) -> Self {
        let tasks = Rc::new(Tasks {
            shared: Arc::new(Shared { ready: Mutex::default(), home: thread::current().id(), shard }),
            slots: RefCell::default(),
            free: RefCell::default(),
            round: Cell::default(),
            waiting: RefCell::default(),
            counters,
        });
        Self { tasks }
    }

    pub(super) fn tasks(&self) -> &Rc<Tasks> {
        &self.tasks
    }
}

impl Tasks {
    /// Whether [`Tasks::run_round`] has something to do.
    pub(super) fn is_ready(&self) -> bool {
        !self.shared.ready().is_empty()
    }

    /// Whether [`Tasks::run_slice`] has something to do.
    pub(super) fn has_background(&self) -> bool {
        !self.waiting.borrow().is_empty()
    }

    /// Polls every latency task that was woken before the call, once.
    pub(super) fn run_round(&self) {
        let mut round = self.round.take();
        std::mem::swap(&mut round, &mut *self.shared.ready());
        for wake in round.drain(..) {
            match wake.queue {
                Queue::Latency => self.poll(&wake),
                Queue::Background => self.waiting.borrow_mut().push_back(wake),
            }
        }
        self.round.set(round);
    }

    /// Polls background tasks that can run, each at most once, until the time is over.
    pub(super) fn run_slice(&self, time: Duration) {
        let begin = Instant::now();
        // A task that is woken meanwhile goes to `ready`, so this ends with those that are waiting now.
        while let Some(wake) = self.next_waiting() {
            self.poll(&wake);
            if begin.elapsed() >= time {
                break;
            }
        }
    }

    /// Drops all futures where they wait.
    pub(super) fn drop_all(&self) {
        // A future that is dropped may spawn: until there is none.
        while let Some(future) = self.remove_any() {
            drop(future);
        }
        self.shared.ready().clear();
        self.waiting.borrow_mut().clear();
    }

    fn next_waiting(&self) -> Option<Arc<TaskWake>> {
        self.waiting.borrow_mut().pop_front()
    }

    /// Polls a task, unless it is gone.
    fn poll(&self, wake: &Arc<TaskWake>) {
        // Wake-ups from here on are for the next poll.
        wake.woken.store(false, Ordering::Release);
        let Some((mut future, waker)) = self.take_future(wake) else {
            return;
        };
        // Nothing is borrowed here: the future may spawn, wake and use the ring.
        if future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            if let Some(Some(slot)) = self.slots.borrow_mut().get_mut(wake.slot) {
                slot.future = Some(future);
            }
        } else {
            drop(future);
            self.remove(wake.slot);
        }
    }

    fn take_future(&self, wake: &Arc<TaskWake>) -> Option<(LocalFuture, task::Waker)> {
        let mut slots = self.slots.borrow_mut();
        // Another task may be in the slot of one that has finished.
        let slot = slots.get_mut(wake.slot)?.as_mut().filter(|slot| Arc::ptr_eq(&slot.wake, wake))?;
        let future = slot.future.take()?;
        Some((future, slot.waker.clone()))
    }

    fn insert(&self, queue: Queue, future: LocalFuture) -> Arc<TaskWake> {
        let mut slots = self.slots.borrow_mut();
        let slot = self.free.borrow_mut().pop().unwrap_or_else(|| {
            slots.push(None);
            slots.len() - 1
        });
        let wake = Arc::new(TaskWake { shared: Arc::clone(&self.shared), queue, slot, woken: AtomicBool::new(true) });
        let waker = task::Waker::from(Arc::clone(&wake));
        slots[slot] = Some(Slot { wake: Arc::clone(&wake), waker, future: Some(future) });
        self.counters.tasks.set((slots.len() - self.free.borrow().len()) as u64);
        wake
    }

    fn remove(&self, slot: usize) -> Option<Slot> {
        let mut slots = self.slots.borrow_mut();
        let removed = slots[slot].take();
        let mut free = self.free.borrow_mut();
        free.push(slot);
        self.counters.tasks.set((slots.len() - free.len()) as u64);
        removed
    }

    fn remove_any(&self) -> Option<Slot> {
        let slot = self.slots.borrow().iter().position(Option::is_some)?;
        self.remove(slot)
    }
}
