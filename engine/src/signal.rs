//! Wake-ups between the engine's futures, without a runtime.
//!
//! A [`Signal`] remembers that it was raised until somebody has waited for it, so that a wake-up between a look and a wait is not
//! lost. A waiter looks, waits, and looks again: being woken means only that something may have changed.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    task::{Context, Poll, Waker},
};

/// Raised by one side, waited for by the other. All that wait are woken.
#[derive(Default)]
pub(crate) struct Signal {
    raised: Cell<bool>,
    wakers: RefCell<Vec<Waker>>,
}

impl Signal {
    /// Wakes who waits, or lets the next wait return at once.
    pub(crate) fn raise(&self) {
        self.raised.set(true);
        for waker in self.wakers.borrow_mut().drain(..) {
            waker.wake();
        }
    }

    /// Takes the mark off, or registers the waker.
    pub(crate) fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.raised.replace(false) {
            return Poll::Ready(());
        }
        let mut wakers = self.wakers.borrow_mut();
        if !wakers.iter().any(|waker| waker.will_wake(context.waker())) {
            wakers.push(context.waker().clone());
        }
        Poll::Pending
    }

    /// Waits until it is raised; returns at once if it was since the last wait.
    pub(crate) async fn wait(&self) {
        poll_fn(|context| self.poll(context)).await;
    }
}
