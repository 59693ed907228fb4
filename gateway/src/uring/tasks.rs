//! A shard's tasks on glommio's queues, and what the loop must know of them before it sleeps.
//!
//! glommio does not tell whether anything is runnable or in flight. So every task is wrapped: its waker counts it runnable, its
//! poll counts it done. Invariants: `runnable` is above zero whenever a task was woken and not polled since; `in_glommio` is above
//! zero whenever a task waits for something that only glommio's reactor brings. A task woken by another thread wakes the shard too.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{self, Context, Poll, Wake},
    thread::{self, ThreadId},
};

use glommio::TaskQueueHandle;

use super::{counters::ShardCounters, wake::Waker};

/// Which of a shard's two queues a task runs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queue {
    /// Shares the queue of the loop itself: what a client waits for.
    Latency,
    /// A queue of few shares: flush, compaction, cold reads.
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
    latency: TaskQueueHandle,
    background: TaskQueueHandle,
    live: RefCell<Vec<Rc<Task>>>,
    in_glommio: Cell<usize>,
    /// Polls so far: whether anything happened.
    polls: Cell<u64>,
    /// The loop, while it waits in glommio.
    parked: RefCell<Option<task::Waker>>,
    counters: Arc<ShardCounters>,
}

/// What wakers on other threads touch.
struct Shared {
    runnable_latency: AtomicUsize,
    runnable_background: AtomicUsize,
    /// Tasks woken by other threads, for the loop to wake: glommio's own way for that ends in a ring that the shard does not sleep
    /// in. Bounded by the tasks: one is in it at most once.
    foreign: Mutex<Vec<Arc<TaskWake>>>,
    home: ThreadId,
    shard: Waker,
}

impl Shared {
    fn runnable(&self, queue: Queue) -> &AtomicUsize {
        match queue {
            Queue::Latency => &self.runnable_latency,
            Queue::Background => &self.runnable_background,
        }
    }
}

struct Task {
    future: RefCell<Option<LocalFuture>>,
    wake: Arc<TaskWake>,
    /// `wake` as the future sees it; made once.
    waker: task::Waker,
    /// Where in `live` the task is.
    position: Cell<usize>,
}

struct TaskWake {
    shared: Arc<Shared>,
    queue: Queue,
    /// Counted in `runnable`. Stays set when the task has finished.
    woken: AtomicBool,
    /// glommio's waker of the task: the same for all of its life.
    inner: OnceLock<task::Waker>,
}

impl TaskWake {
    fn wake_inner(&self) {
        // Before its first poll the task is in glommio's queue anyway.
        if let Some(inner) = self.inner.get() {
            inner.wake_by_ref();
        }
    }

    /// The task is polled: wake-ups from here on are for the next poll.
    fn begin(&self) {
        if self.woken.swap(false, Ordering::AcqRel) {
            self.shared.runnable(self.queue).fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// The task has finished. No later wake-up counts it runnable; one that came while it ran is taken back.
    fn finish(&self) {
        if self.woken.swap(true, Ordering::AcqRel) {
            self.shared.runnable(self.queue).fetch_sub(1, Ordering::AcqRel);
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
        self.shared.runnable(self.queue).fetch_add(1, Ordering::AcqRel);
        if thread::current().id() == self.shared.home {
            self.wake_inner();
        } else {
            self.shared.foreign.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(self));
            self.shared.shard.wake();
        }
    }
}

impl Spawner {
    /// Starts a task. It runs until it finishes or the shard stops; then it is dropped where it waits.
    pub fn spawn(&self, queue: Queue, future: impl Future<Output = ()> + 'static) {
        let shared = Arc::clone(&self.tasks.shared);
        shared.runnable(queue).fetch_add(1, Ordering::AcqRel);
        let wake = Arc::new(TaskWake { shared, queue, woken: AtomicBool::new(true), inner: OnceLock::new() });
        let task = Rc::new(Task {
            future: RefCell::new(Some(Box::pin(future))),
            waker: task::Waker::from(Arc::clone(&wake)),
            wake,
            position: Cell::new(0),
        });
        self.tasks.add(&task);
        let tracked = Tracked { tasks: Rc::clone(&self.tasks), task };
        let handle = match queue {
            Queue::Latency => self.tasks.latency,
            Queue::Background => self.tasks.background,
        };
        // Into a queue, never `spawn_local`: that polls the task at once, inside whatever the caller is in the middle of.
        glommio::spawn_local_into(tracked, handle).expect("the queues live as long as the shard").detach();
    }

    /// Awaits something that glommio's reactor brings: a timer, its files, its thread for blocking calls. Nothing else may be
    /// awaited without this wrapper, for the shard would not know to look into that reactor.
    pub async fn in_glommio<T>(&self, future: impl Future<Output = T>) -> T {
        struct Count<'a>(&'a Cell<usize>);
        impl Drop for Count<'_> {
            fn drop(&mut self) {
                self.0.set(self.0.get() - 1);
            }
        }
        self.tasks.in_glommio.set(self.tasks.in_glommio.get() + 1);
        let _count = Count(&self.tasks.in_glommio);
        future.await
    }

    pub(super) fn tasks(&self) -> &Tasks {
        &self.tasks
    }
}

impl Tasks {
    /// Inside the executor. The current queue is the one of latency.
    pub(super) fn new(background: TaskQueueHandle, shard: Waker, counters: Arc<ShardCounters>) -> Spawner {
        let shared = Arc::new(Shared {
            runnable_latency: AtomicUsize::new(0),
            runnable_background: AtomicUsize::new(0),
            foreign: Mutex::default(),
            home: thread::current().id(),
            shard,
        });
        let tasks = Rc::new(Self {
            shared,
            latency: glommio::executor().current_task_queue(),
            background,
            live: RefCell::default(),
            in_glommio: Cell::new(0),
            polls: Cell::new(0),
            parked: RefCell::new(None),
            counters,
        });
        Spawner { tasks }
    }

    /// Whether a task was woken and not polled since.
    pub(super) fn is_runnable(&self) -> bool {
        self.is_queue_runnable(Queue::Latency) || self.is_queue_runnable(Queue::Background)
    }

    pub(super) fn is_queue_runnable(&self, queue: Queue) -> bool {
        self.shared.runnable(queue).load(Ordering::Acquire) > 0
    }

    /// How many tasks wait for glommio's reactor.
    pub(super) fn in_glommio(&self) -> usize {
        self.in_glommio.get()
    }

    /// Grows whenever a task was polled.
    pub(super) fn polls(&self) -> u64 {
        self.polls.get()
    }

    /// Whom to wake when a task was polled; the loop, before it waits in glommio.
    pub(super) fn park(&self, waker: &task::Waker) {
        *self.parked.borrow_mut() = Some(waker.clone());
    }

    pub(super) fn unpark(&self) {
        self.parked.borrow_mut().take();
    }

    /// Lets tasks run that can: one round of the latency queue, or a share of the background queue, or glommio's reactor if its
    /// time has come.
    pub(super) async fn run(&self) {
        if self.is_runnable() {
            let foreign = std::mem::take(&mut *self.shared.foreign.lock().unwrap_or_else(PoisonError::into_inner));
            for wake in foreign {
                wake.wake_inner();
            }
        }
        if self.is_queue_runnable(Queue::Latency) {
            // The loop goes to the end of its own queue: all tasks woken before run first.
            glommio::executor().yield_now().await;
        } else if self.is_queue_runnable(Queue::Background) {
            glommio::executor().yield_task_queue_now().await;
        } else if self.in_glommio() > 0 {
            glommio::yield_if_needed().await;
        }
    }

    /// Drops all futures where they wait, and has glommio forget their tasks.
    pub(super) async fn drop_all(&self) {
        // A future that is dropped may spawn: until there is none.
        while let Some(task) = self.last() {
            let future = task.future.borrow_mut().take();
            self.remove(&task);
            drop(future);
            // glommio polls it once more, finds it ready, and frees it.
            task.waker.wake_by_ref();
        }
        while self.is_runnable() {
            self.run().await;
        }
    }

    fn last(&self) -> Option<Rc<Task>> {
        self.live.borrow().last().cloned()
    }

    fn add(&self, task: &Rc<Task>) {
        let mut live = self.live.borrow_mut();
        task.position.set(live.len());
        live.push(Rc::clone(task));
        self.counters.tasks.set(live.len() as u64);
    }

    fn remove(&self, task: &Task) {
        let mut live = self.live.borrow_mut();
        let position = task.position.get();
        let removed = live.swap_remove(position);
        if let Some(moved) = live.get(position) {
            moved.position.set(position);
        }
        self.counters.tasks.set(live.len() as u64);
        drop(live);
        drop(removed);
    }
}

/// A task as glommio sees it.
struct Tracked {
    tasks: Rc<Tasks>,
    task: Rc<Task>,
}

impl Future for Tracked {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let task = &self.task;
        task.wake.inner.get_or_init(|| context.waker().clone());
        task.wake.begin();
        self.tasks.polls.set(self.tasks.polls.get() + 1);
        if let Some(parked) = self.tasks.parked.borrow_mut().take() {
            parked.wake();
        }
        // The future is out of its cell while it runs: it may itself end the shard's tasks.
        let Some(mut future) = task.future.borrow_mut().take() else {
            task.wake.finish();
            return Poll::Ready(());
        };
        if future.as_mut().poll(&mut Context::from_waker(&task.waker)).is_pending() {
            *task.future.borrow_mut() = Some(future);
            return Poll::Pending;
        }
        drop(future);
        task.wake.finish();
        self.tasks.remove(task);
        Poll::Ready(())
    }
}
