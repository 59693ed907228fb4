//! An open load: commands are due at Poisson times that do not depend on how the lane fares, and latency counts from
//! then.
//!
//! The lane takes what is due whenever it has a turn. So that it has one, a thread of its own wakes it at each of these
//! times, as a node is woken by its sockets: it has the same plan, and passes nothing on. What that thread costs is not
//! the lane's.

use std::{
    fs,
    path::PathBuf,
    sync::mpsc,
    thread::{self, JoinHandle},
    time::Duration,
};

use antiphon_bench_store::counters::Times;
use antiphon_gateway::uring::Waker;
use antiphon_loadgen::{
    arrivals::{Arrivals, Spread},
    clock::{Clock, Nanoseconds, SECOND_NS},
    random::Random,
};
use anyhow::Context;

/// The longest that the thread sleeps, so that it ends soon after it is told to.
const SLEEP_MAX: Duration = Duration::from_millis(50);

/// The plan: one stream of arrivals for each kind of command.
#[derive(Debug, Clone)]
pub(crate) struct Arriving {
    clock: Clock,
    streams: Vec<Arrivals>,
    end_ns: Nanoseconds,
}

impl Arriving {
    /// So many of each kind a second, from `start_ns` of the clock for a while.
    pub(crate) fn new(clock: Clock, rates: &[f64], start_ns: Nanoseconds, seconds: f64, seed: u64) -> Self {
        let end_ns = start_ns + (seconds * SECOND_NS as f64) as u64;
        let stream = |(kind, &rate): (usize, &f64)| {
            Arrivals::new(Spread::Poisson, rate, start_ns, end_ns, Random::new(seed, kind as u64))
        };
        Self { clock, streams: rates.iter().enumerate().map(stream).collect(), end_ns }
    }

    pub(crate) fn clock(&self) -> Clock {
        self.clock
    }

    /// Nothing is due from here on.
    pub(crate) fn last_ns(&self) -> Nanoseconds {
        self.end_ns
    }

    pub(crate) fn now_ns(&self) -> Nanoseconds {
        self.clock.now_ns()
    }

    fn next(&self) -> Option<(Nanoseconds, usize)> {
        let streams = self.streams.iter().enumerate();
        streams.filter_map(|(kind, stream)| Some((stream.peek_ns()?, kind))).min()
    }

    /// Whether nothing will be due any more.
    pub(crate) fn is_over(&self) -> bool {
        self.next().is_none()
    }

    /// The next that is due by now: of which kind, and since when.
    pub(crate) fn take_due(&mut self, now_ns: Nanoseconds) -> Option<(usize, Nanoseconds)> {
        let (_, kind) = self.next()?;
        Some((kind, self.streams[kind].take_due(now_ns)?))
    }
}

/// The thread that wakes a lane when something is due.
pub(crate) struct Metronome {
    thread: JoinHandle<()>,
    stop: mpsc::Sender<()>,
    schedstat: PathBuf,
}

impl Metronome {
    /// Starts it on the same plan.
    pub(crate) fn start(arriving: Arriving, waker: Waker) -> anyhow::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let (tell, told) = mpsc::channel();
        let run = move || {
            // Who waits for it may be gone; then it ends at once.
            let _ = tell.send(fs::read_link("/proc/thread-self"));
            beat(arriving, &waker, &stopped);
        };
        let thread = thread::Builder::new().name("arrivals".to_owned()).spawn(run)?;
        let own = told.recv().context("the thread of arrivals has ended")??;
        let schedstat = PathBuf::from("/proc").join(own).join("schedstat");
        Ok(Self { thread, stop, schedstat })
    }

    /// What it has used so far.
    pub(crate) fn times(&self) -> anyhow::Result<Times> {
        Times::of_file(&self.schedstat)
    }

    /// Ends it.
    pub(crate) fn stop(self) -> anyhow::Result<()> {
        drop(self.stop);
        self.thread.join().map_err(|_| anyhow::anyhow!("the thread of arrivals panicked"))
    }
}

fn beat(mut arriving: Arriving, waker: &Waker, stopped: &mpsc::Receiver<()>) {
    sharpen();
    let is_stopped = || matches!(stopped.try_recv(), Err(mpsc::TryRecvError::Disconnected));
    while let Some((next_ns, _)) = arriving.next() {
        let now_ns = arriving.now_ns();
        if next_ns > now_ns {
            thread::sleep(Duration::from_nanos(next_ns - now_ns).min(SLEEP_MAX));
        }
        let now_ns = arriving.now_ns();
        let mut is_due = false;
        while arriving.take_due(now_ns).is_some() {
            is_due = true;
        }
        if is_due {
            waker.wake();
        }
        if is_stopped() {
            return;
        }
    }
    // Its times are asked for as long as it is there.
    let _ = stopped.recv();
}

/// Has the kernel end this thread's sleeps on time: by default it may be 50 µs late, which is a third of a commit.
/// Without it the measurement is coarser, for both sides alike.
fn sharpen() {
    let Ok(own) = fs::read_link("/proc/thread-self") else { return };
    if let Some(id) = own.file_name() {
        let _ = fs::write(PathBuf::from("/proc").join(id).join("timerslack_ns"), "1000");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_come_in_the_order_in_which_they_are_due_at_their_rates() {
        let mut arriving = Arriving::new(Clock::start(), &[1_000.0, 0.0, 3_000.0], 0, 10.0, 1);
        let mut counts = [0; 3];
        let mut last = 0;
        while let Some((kind, due)) = arriving.take_due(Nanoseconds::MAX) {
            assert!(due >= last);
            last = due;
            counts[kind] += 1;
        }
        assert!(arriving.is_over());
        assert!((9_500..10_500).contains(&counts[0]) && counts[1] == 0 && (29_000..31_000).contains(&counts[2]));
        assert!(last < 10 * SECOND_NS);
    }

    #[test]
    fn nothing_is_due_before_its_time() {
        let mut arriving = Arriving::new(Clock::start(), &[100.0], SECOND_NS, 1.0, 1);
        assert_eq!(arriving.take_due(SECOND_NS), None);
        assert!(arriving.take_due(3 * SECOND_NS).is_some());
    }

    #[test]
    fn its_thread_ends_when_it_is_told_to() {
        let arriving = Arriving::new(Clock::start(), &[1.0], 3_600 * SECOND_NS, 1.0, 1);
        let metronome = Metronome::start(arriving, Waker::new().unwrap()).unwrap();
        metronome.times().unwrap();
        metronome.stop().unwrap();
    }
}
