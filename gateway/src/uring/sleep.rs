//! Where a shard waits when it has nothing to do: in the net ring, or in glommio while glommio has something in flight.
//!
//! Waiting in the net ring is one `enter` with a minimum of one completion: whatever can wake the shard is a completion of that
//! ring (sockets, files, and the poll on the eventfd of [`super::wake`]), so nothing is missed, and what came before is found.
//!
//! Waiting in glommio needs the ring to tell glommio: an eventfd that the kernel writes when the ring has something to do, and
//! that glommio reads. The order is what makes it safe: notifications on; enter once more, which runs whatever the kernel
//! deferred before they were on, so that the next deferred thing is a first one and writes; look at everything once more; wait.
//! This costs about twice as much as the first way, and happens only while a task is in [`super::Spawner::in_glommio`].

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    io,
    os::fd::{FromRawFd, IntoRawFd},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use glommio::{io::BufferedFile, timer::Timer};

use super::{ring::Ring, tasks::Tasks, wake};

/// A read of the eventfd that glommio has in flight. It stays in flight between waits: notifications are off, so it stays quiet.
type EventRead = Pin<Box<dyn Future<Output = BufferedFile>>>;

/// A shard's bed.
pub(super) struct Sleep {
    ring: Rc<RefCell<Ring>>,
    /// Made when it is first needed: most shards never wait in glommio.
    event: Option<EventRead>,
}

impl Sleep {
    pub(super) fn new(ring: Rc<RefCell<Ring>>) -> Self {
        Self { ring, event: None }
    }

    /// Waits in the net ring, at most until `deadline`. Blocks the thread; glommio has nothing in flight and nothing to run.
    pub(super) fn in_ring(&self, deadline: Option<Instant>) -> io::Result<()> {
        let timeout = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if timeout == Some(Duration::ZERO) {
            return Ok(());
        }
        self.ring.borrow_mut().wait(timeout)
    }

    /// Waits in glommio for the net ring, a poll of any task, or `deadline`. `seen` is how many polls the loop has seen.
    pub(super) async fn in_glommio(&mut self, tasks: &Tasks, seen: u64, deadline: Option<Instant>) -> io::Result<()> {
        if self.event.is_none() {
            self.event = Some(self.register()?);
        }
        let quiet = {
            let mut ring = self.ring.borrow_mut();
            ring.notify(true);
            ring.enter()?;
            !ring.has_completions()
        };
        if quiet && !tasks.is_runnable() && tasks.polls() == seen {
            let mut timer = deadline.map(|deadline| Timer::new(deadline.saturating_duration_since(Instant::now())));
            poll_fn(|context| self.poll_event(tasks, seen, timer.as_mut(), context)).await;
            tasks.unpark();
        }
        self.ring.borrow_mut().notify(false);
        Ok(())
    }

    fn poll_event(
        &mut self,
        tasks: &Tasks,
        seen: u64,
        timer: Option<&mut Timer>,
        context: &mut Context<'_>,
    ) -> Poll<()> {
        if let Some(event) = &mut self.event
            && let Poll::Ready(file) = event.as_mut().poll(context)
        {
            self.event = Some(read(file));
            return Poll::Ready(());
        }
        if let Some(timer) = timer
            && Pin::new(timer).poll(context).is_ready()
        {
            return Poll::Ready(());
        }
        if tasks.polls() != seen {
            return Poll::Ready(());
        }
        tasks.park(context.waker());
        Poll::Pending
    }

    fn register(&self) -> io::Result<EventRead> {
        let eventfd = wake::eventfd()?;
        // The ring keeps a reference of its own to what the descriptor names.
        use std::os::fd::AsRawFd;
        self.ring.borrow_mut().register_eventfd(eventfd.as_raw_fd())?;
        // SAFETY: the descriptor is open and ours, and given up here.
        Ok(read(unsafe { BufferedFile::from_raw_fd(eventfd.into_raw_fd()) }))
    }
}

fn read(file: BufferedFile) -> EventRead {
    Box::pin(async move {
        // What it says does not matter, only that it returned.
        let _ = file.read_at(0, 8).await;
        file
    })
}
