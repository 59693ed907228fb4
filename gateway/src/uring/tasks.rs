//! A shard's tasks: those that clients wait for, run by the loop itself, and those in the background, run by glommio.
//!
//! glommio does not tell whether anything is runnable, and it may park while something is (see [`super::sleep`]). So a task of the
//! latency queue is polled by the loop, in the order of wake-ups, and a background task is wrapped: its waker counts it runnable,
//! its poll counts it done. Invariants: a task that was woken and not polled since is in `ready` or counted in `runnable`; a task
//! woken by another thread wakes the shard.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{self, Context, Poll, Wake},
    thread::{self, ThreadId},
};

use glommio::TaskQueueHandle;

use super::{counters::ShardCounters, wake::Waker};

/// Who runs a task, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queue {
    /// The loop, in the round after a task was woken: what a client waits for. Every poll is short.
    Latency,
    /// glommio, with few shares and cut into slices: flush, compaction, cold reads. It comes to a slice's end when it awaits.
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
    background: TaskQueueHandle,
    slots: RefCell<Vec<Option<Slot>>>,
    free: RefCell<Vec<usize>>,
    /// The round's tasks; kept for its memory.
    round: Cell<Vec<Arc<TaskWake>>>,
    /// Polls of background tasks so far.
    background_polls: Cell<u64>,
    /// The loop, while it waits for a background task to be polled.
    parked: RefCell<Option<task::Waker>>,
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
    /// Tasks that the loop is to look at: woken latency tasks, and background tasks woken by other threads. Bounded by the
    /// number of tasks: one is in it at most once.
    ready: Mutex<Vec<Arc<TaskWake>>>,
    /// Background tasks that were woken and not polled since.
    runnable: AtomicUsize,
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
    /// In `ready` or counted in `runnable`. Stays set when the task has finished.
    woken: AtomicBool,
    /// glommio's waker of a background task: the same for all of its life.
    inner: OnceLock<task::Waker>,
}

impl TaskWake {
    /// The task is about to be polled: wake-ups from here on are for the next poll.
    fn begin(&self) {
        if self.woken.swap(false, Ordering::AcqRel) && self.queue == Queue::Background {
            self.shared.runnable.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// The task has finished. No later wake-up counts; one that came while it ran is taken back.
    fn finish(&self) {
        if self.woken.swap(true, Ordering::AcqRel) && self.queue == Queue::Background {
            self.shared.runnable.fetch_sub(1, Ordering::AcqRel);
        }
    }

    fn wake_inner(&self) {
        // Before its first poll the task is in glommio's queue anyway.
        if let Some(inner) = self.inner.get() {
            inner.wake_by_ref();
        }
    }
}

impl Wake for TaskWake {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.woken.swap(true, Ordering::AcqRel) {
            return;
        }
        let is_home = thread::current().id() == self.shared.home;
        if self.queue == Queue::Background {
            self.shared.runnable.fetch_add(1, Ordering::AcqRel);
            if is_home {
                return self.wake_inner();
            }
        }
        self.shared.ready().push(Arc::clone(self));
        if !is_home {
            self.shared.shard.wake();
        }
    }
}

impl Spawner {
    /// Starts a task; it is polled in a later round. It runs until it finishes or the shard stops; then it is dropped where it
    /// waits. It must not await glommio's timers, files or threads: the shard sleeps in the net ring, which does not bring them.
    pub fn spawn(&self, queue: Queue, future: impl Future<Output = ()> + 'static) {
        let wake = self.tasks.insert(queue, Box::pin(future));
        match queue {
            Queue::Latency => self.tasks.shared.ready().push(wake),
            Queue::Background => {
                self.tasks.shared.runnable.fetch_add(1, Ordering::AcqRel);
                let task = BackgroundTask { tasks: Rc::clone(&self.tasks), wake };
                let spawned = glommio::spawn_local_into(task, self.tasks.background);
                spawned.expect("the background queue lives as long as the shard").detach();
            }
        }
    }

    /// Runs something that blocks on a thread of its own. For what is rare and has no ring operation. `None`: there is no thread
    /// to be had.
    pub async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (send, receive) = tokio::sync::oneshot::channel();
        let run = move || drop(send.send(work()));
        thread::Builder::new().name("blocking".into()).spawn(run).ok()?;
        receive.await.ok()
    }

    pub(super) fn tasks(&self) -> &Tasks {
        &self.tasks
    }
}

impl Tasks {
    pub(super) fn new(background: TaskQueueHandle, shard: Waker, counters: Arc<ShardCounters>) -> Spawner {
        let shared = Arc::new(Shared {
            ready: Mutex::default(),
            runnable: AtomicUsize::new(0),
            home: thread::current().id(),
            shard,
        });
        let tasks = Rc::new(Self {
            shared,
            background,
            slots: RefCell::default(),
            free: RefCell::default(),
            round: Cell::default(),
            background_polls: Cell::new(0),
            parked: RefCell::new(None),
            counters,
        });
        Spawner { tasks }
    }

    /// Whether [`Tasks::run_round`] has something to do.
    pub(super) fn is_ready(&self) -> bool {
        !self.shared.ready().is_empty()
    }

    /// Whether glommio has a background task to run.
    pub(super) fn is_background_runnable(&self) -> bool {
        self.shared.runnable.load(Ordering::Acquire) > 0
    }

    /// Polls every latency task that was woken before the call, once.
    pub(super) fn run_round(&self) {
        let mut round = self.round.take();
        std::mem::swap(&mut round, &mut *self.shared.ready());
        for wake in round.drain(..) {
            match wake.queue {
                Queue::Latency => {
                    let _ = self.poll(&wake);
                }
                Queue::Background => wake.wake_inner(),
            }
        }
        self.round.set(round);
    }

    /// Ready when a background task has been polled since the count was `seen`.
    pub(super) fn poll_progress(&self, seen: u64, context: &Context<'_>) -> Poll<()> {
        if self.background_polls.get() != seen {
            return Poll::Ready(());
        }
        *self.parked.borrow_mut() = Some(context.waker().clone());
        Poll::Pending
    }

    /// Polls of background tasks so far.
    pub(super) fn background_polls(&self) -> u64 {
        self.background_polls.get()
    }

    /// Drops all futures where they wait. glommio frees the background tasks at their next poll.
    pub(super) fn drop_all(&self) {
        // A future that is dropped may spawn: until there is none.
        while let Some((future, waker)) = self.remove_any() {
            drop(future);
            waker.wake();
        }
    }

    /// Polls a task, unless it is gone.
    fn poll(&self, wake: &Arc<TaskWake>) -> Poll<()> {
        wake.begin();
        let taken = self.slots.borrow_mut().get_mut(wake.slot).and_then(Option::as_mut).and_then(|slot| {
            let is_same = Arc::ptr_eq(&slot.wake, wake);
            is_same.then(|| slot.future.take().map(|future| (future, slot.waker.clone()))).flatten()
        });
        let Some((mut future, waker)) = taken else {
            wake.finish();
            return Poll::Ready(());
        };
        // Nothing is borrowed here: the future may spawn, wake and use the ring.
        let poll = future.as_mut().poll(&mut Context::from_waker(&waker));
        if poll.is_pending() {
            if let Some(Some(slot)) = self.slots.borrow_mut().get_mut(wake.slot) {
                slot.future = Some(future);
            }
            return Poll::Pending;
        }
        drop(future);
        wake.finish();
        self.remove(wake.slot);
        Poll::Ready(())
    }

    fn insert(&self, queue: Queue, future: LocalFuture) -> Arc<TaskWake> {
        let mut slots = self.slots.borrow_mut();
        let slot = self.free.borrow_mut().pop().unwrap_or_else(|| {
            slots.push(None);
            slots.len() - 1
        });
        let shared = Arc::clone(&self.shared);
        let wake = Arc::new(TaskWake { shared, queue, slot, woken: AtomicBool::new(true), inner: OnceLock::new() });
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

    fn remove_any(&self) -> Option<(Option<LocalFuture>, task::Waker)> {
        let slot = self.slots.borrow().iter().position(Option::is_some)?;
        self.remove(slot).map(|slot| (slot.future, slot.waker))
    }
}

/// A background task as glommio sees it.
struct BackgroundTask {
    tasks: Rc<Tasks>,
    wake: Arc<TaskWake>,
}

impl Future for BackgroundTask {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.wake.inner.get_or_init(|| context.waker().clone());
        self.tasks.background_polls.set(self.tasks.background_polls.get().wrapping_add(1));
        if let Some(parked) = self.tasks.parked.borrow_mut().take() {
            parked.wake();
        }
        self.tasks.poll(&self.wake)
    }
}
