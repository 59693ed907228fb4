//! A shard's futures: polled when woken, in an order that the dice decide.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Wake, Waker},
};

use crate::dice::Dice;

/// Futures of one shard. Dropping it drops them where they wait.
#[derive(Default)]
pub struct Tasks {
    tasks: Vec<Task>,
}

struct Task {
    future: Pin<Box<dyn Future<Output = ()>>>,
    flag: Arc<Flag>,
    waker: Waker,
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Tasks {
    /// Adds a future; it is polled with the others.
    pub fn spawn(&mut self, future: impl Future<Output = ()> + 'static) {
        let flag = Arc::new(Flag(AtomicBool::new(true)));
        let waker = Waker::from(Arc::clone(&flag));
        self.tasks.push(Task { future: Box::pin(future), flag, waker });
    }

    /// Whether any wants to be polled.
    #[must_use]
    pub fn woken(&self) -> bool {
        self.tasks.iter().any(|task| task.flag.0.load(Ordering::Relaxed))
    }

    /// Polls one of the woken, whichever the dice say; false if there was none.
    pub fn poll_one(&mut self, dice: &Dice) -> bool {
        let woken: Vec<usize> =
            (0..self.tasks.len()).filter(|index| self.tasks[*index].flag.0.load(Ordering::Relaxed)).collect();
        if woken.is_empty() {
            return false;
        }
        let index = woken[dice.index(woken.len())];
        let task = &mut self.tasks[index];
        task.flag.0.store(false, Ordering::Relaxed);
        if task.future.as_mut().poll(&mut Context::from_waker(&task.waker)).is_ready() {
            drop(self.tasks.swap_remove(index));
        }
        true
    }
}
