//! A node's life from its shards' start to its end: what is waited for, in which order, and for how long.
//!
//! ```text
//! shards ready → (take over: ask, wait for the lock) → lanes open → accepting → ready
//!   → a signal                                            → a request to hand over
//!     no more clients                                       new clients go to the other process
//!     goodbye to all ─────────────────────────────────────── goodbye to all; no more clients
//!     engines close                                         engines close; console, door and lock are given up
//!     the last clients go, or the time is up ─────────────── the last clients go
//! ```
//!
//! Must not do: touch a connection or an engine; it tells the shards, which do.

use std::{
    net::TcpListener,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use anyhow::bail;

use crate::{
    core::placement::Placement,
    handover::{CHECKPOINT_MAX, Door, Offer},
    metrics::{Metrics, Phase},
    outside::Outside,
    shard::{Control, Event},
    store_folder::{StoreFolder, StoreFolderError},
    uring::{self, Waker},
};

/// How long the engines may take to flush and close at the end. The log is replayed at the next start otherwise; nothing is lost.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(30);

/// From the second signal on, how long goodbyes may take to leave.
const HURRY: Duration = Duration::from_secs(1);

/// Between the moment from which new clients go to the next process and the first goodbye: handshakes that had begun end here. A round trip
/// of a slow network; those that take longer are reset, unless `net.ipv4.tcp_migrate_req` moves them.
const SETTLE: Duration = Duration::from_millis(250);

/// How long a node that has handed over waits for its last clients to answer its close: as long as a shard waits for each.
const LINGER: Duration = Duration::from_secs(6);

/// How often a long start or drain says how far it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// Goodbyes a second that are expected of a shard: an estimate, which moves the first returns by no more than it is wrong by.
const GOODBYES_PER_SECOND: u64 = 50_000;

/// From an end to the next start's first accept, without the goodbyes: a supervisor's pause and a recovery; or, with a successor that waits
/// already, closing and opening the log.
const RESTART_MS: u64 = 1_000;
const HANDOVER_MS: u64 = 250;

/// How often who waits for a checkpoint looks whether the node ends.
const CHECKPOINT_LOOK: Duration = Duration::from_millis(100);

/// What a node gives up as it ends, besides its folder.
pub(crate) struct Possessions {
    /// Where it is asked to hand over.
    pub(crate) door: Door,
    /// Its console.
    pub(crate) outside: Outside,
    /// Second handles of its listeners, for each address: the listeners stay open until these are closed, too.
    pub(crate) listeners: Vec<Vec<TcpListener>>,
}

/// The node's own thread.
pub(crate) struct Life<'a> {
    pub(crate) placement: Placement,
    /// Over which clients come back, and the longest wait for them.
    pub(crate) window_ms: u64,
    pub(crate) metrics: &'a Metrics,
    pub(crate) control: &'a Control,
    pub(crate) wakers: &'a [Waker],
    pub(crate) events: mpsc::Receiver<Event>,
    pub(crate) tally: Tally,
}

/// What has come of each kind.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    ready: usize,
    open: usize,
    accepting: usize,
    told: usize,
    drained: usize,
    refusing: usize,
    closed: usize,
    ended: usize,
    signals: usize,
    /// The listeners of the process that takes over, if one does.
    successor: Option<u32>,
}

impl Life<'_> {
    /// Until every shard has its memory and its ring.
    pub(crate) fn shards_ready(&mut self) -> anyhow::Result<()> {
        let shards = self.shards();
        self.wait(None, |tally| tally.ready == shards).map(drop)
    }

    /// Opens the lanes, and accepts if `check` agrees to the identity of their stores together.
    pub(crate) fn begin(&mut self, check: impl FnOnce(u64) -> Result<(), StoreFolderError>) -> anyhow::Result<()> {
        let (shards, lanes) = (self.shards(), usize::from(self.placement.lanes));
        self.control.open();
        self.wake_all();
        let started = Instant::now();
        self.opening(lanes, PROGRESS_EVERY, |open| {
            let after_s = started.elapsed().as_secs();
            tracing::info!(open, of = lanes, after_s, "lanes are opening: their logs are read");
        })?;
        if self.tally.open < lanes {
            bail!("told to end twice while the lanes were opening");
        }
        check(self.control.store())?;
        self.control.serve();
        self.wake_all();
        self.wait(None, |tally| tally.accepting == shards)?;
        self.metrics.set_phase(Phase::Serving);
        Ok(())
    }

    /// Until the lanes are open, or it is told to end twice; says each time after `every` how many are.
    fn opening(&mut self, lanes: usize, every: Duration, mut say: impl FnMut(usize)) -> anyhow::Result<()> {
        while !self.wait(Some(Instant::now() + every), |tally| tally.open == lanes || tally.signals > 1)? {
            say(self.tally.open);
        }
        Ok(())
    }

    /// Until it is told to end, and through that. Who gives up the `folder` here hands it over; else it is the caller's still.
    pub(crate) fn serve(&mut self, possessions: Possessions, folder: &mut Option<StoreFolder>) -> anyhow::Result<()> {
        self.wait(None, |tally| tally.signals > 0 || tally.successor.is_some())?;
        self.metrics.set_phase(Phase::Draining);
        let started = Instant::now();
        match self.tally.successor {
            Some(listeners) => self.hand_over(possessions, folder, listeners, started),
            None => self.end(possessions, started),
        }
    }

    /// Ends without a successor.
    fn end(&mut self, possessions: Possessions, started: Instant) -> anyhow::Result<()> {
        // The console tells how it goes, and signals come through it, until the end.
        let Possessions { door, outside: _outside, listeners } = possessions;
        drop((door, listeners));
        self.control.refuse();
        self.send_away(RESTART_MS)?;
        self.close_engines()?;
        let shards = self.shards();
        let window = Duration::from_millis(self.window_ms);
        let mut is_drained = self.watch("clients to go", started + window, |tally| tally.drained == shards)?;
        if self.tally.signals > 1 {
            is_drained = self.wait(Some(Instant::now() + HURRY), |tally| tally.drained == shards)?;
        }
        if !is_drained {
            tracing::warn!(clients = self.connections(), "some clients did not take their goodbye");
        }
        tracing::info!(after_ms = started.elapsed().as_millis() as u64, "ending");
        Ok(())
    }

    /// Ends for a process that listens beside this one and waits for the folder's lock.
    fn hand_over(
        &mut self,
        possessions: Possessions,
        folder: &mut Option<StoreFolder>,
        successor: u32,
        started: Instant,
    ) -> anyhow::Result<()> {
        let Possessions { door, outside, mut listeners } = possessions;
        // Who has begun to connect here is still served here.
        self.wait(Some(started + SETTLE), |tally| tally.signals > 0)?;
        self.send_away(HANDOVER_MS)?;
        self.control.refuse();
        self.close_engines()?;
        let (lanes, shards) = (usize::from(self.placement.lanes), self.shards());
        let lingers_until = Instant::now() + LINGER;
        // Ours are the last handles then, so the kernel's list changes as they are closed.
        self.wait(Some(lingers_until), |tally| tally.refusing == shards)?;
        listeners.iter_mut().for_each(|listeners| close_beside(listeners, successor));
        // A merge may go on after its log was closed, and a shard's end ends it.
        self.wait(Some(lingers_until), |tally| tally.ended == lanes || tally.drained == shards)?;
        drop((door, outside));
        if self.tally.ended == lanes {
            *folder = None;
            tracing::info!(after_ms = started.elapsed().as_millis() as u64, "handed over");
            self.wait(Some(lingers_until), |tally| tally.drained == shards)?;
        }
        tracing::info!(clients = self.connections(), "ending");
        Ok(())
    }

    /// Says goodbye to all sessions; they come back over the window, but not before the next process is expected.
    fn send_away(&mut self, gap_ms: u64) -> anyhow::Result<()> {
        let shards = self.shards();
        let reconnect_after_ms = reconnect_range(self.window_ms, gap_ms, self.connections(), shards as u64);
        tracing::info!(clients = self.connections(), ?reconnect_after_ms, "sending clients away");
        self.control.drain(reconnect_after_ms);
        self.wake_all();
        let deadline = Instant::now() + Duration::from_millis(self.window_ms);
        if !self.watch("clients to be told", deadline, |tally| tally.told == shards)? {
            self.control.hurry();
            self.wake_all();
            self.wait(Some(Instant::now() + HURRY), |tally| tally.told == shards)?;
        }
        Ok(())
    }

    fn close_engines(&mut self) -> anyhow::Result<()> {
        let lanes = usize::from(self.placement.lanes);
        self.control.close();
        self.wake_all();
        if !self.wait(Some(Instant::now() + CLOSE_TIMEOUT), |tally| tally.closed == lanes)? {
            tracing::warn!("a lane did not close in {CLOSE_TIMEOUT:?}; its log is replayed at the next start");
        }
        Ok(())
    }

    /// Waits until `done`, saying how far it is now and then; ends early when told to hurry.
    fn watch(&mut self, what: &str, deadline: Instant, done: impl Fn(&Tally) -> bool) -> anyhow::Result<bool> {
        let total = self.connections();
        loop {
            let next = (Instant::now() + PROGRESS_EVERY).min(deadline);
            self.wait(Some(next), |tally| done(tally) || tally.signals > 1)?;
            let is_hurried = self.tally.signals > 1;
            if done(&self.tally) || is_hurried || Instant::now() >= deadline {
                return Ok(done(&self.tally));
            }
            tracing::info!(left = self.connections(), of = total, "waiting for {what}");
        }
    }

    /// Takes events until `done`, or until the deadline; whether it is done. A failure ends the wait.
    fn wait(&mut self, deadline: Option<Instant>, done: impl Fn(&Tally) -> bool) -> anyhow::Result<bool> {
        while !done(&self.tally) {
            let event = match deadline {
                None => self.events.recv()?,
                Some(deadline) => match self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                    Ok(event) => event,
                    Err(_) => return Ok(false),
                },
            };
            self.tally.take(event)?;
        }
        Ok(true)
    }

    fn shards(&self) -> usize {
        usize::from(self.placement.shards)
    }

    fn connections(&self) -> u64 {
        self.metrics.shards().iter().map(|shard| shard.connections.get()).sum()
    }

    fn wake_all(&self) {
        self.wakers.iter().for_each(Waker::wake);
    }
}

impl Tally {
    fn take(&mut self, event: Event) -> anyhow::Result<()> {
        match event {
            Event::Ready(_) => self.ready += 1,
            Event::LaneOpen(lane, report) => {
                self.open += 1;
                say_what_was_found(lane.0, report);
            }
            Event::Accepting(_) => self.accepting += 1,
            Event::Told(_) => self.told += 1,
            Event::Drained(_) => self.drained += 1,
            Event::Refusing(_) => self.refusing += 1,
            Event::LaneClosed(lane, result) => {
                self.closed += 1;
                if let Err(text) = result {
                    tracing::error!(lane = lane.0, "not closed in order: {text}");
                }
            }
            Event::LaneEnded(_) => self.ended += 1,
            Event::Signal => self.signals += 1,
            Event::HandOver(listeners) => self.successor = Some(listeners),
            Event::LaneFailed(lane, text) => bail!("lane {}: {text}", lane.0),
            Event::ShardFailed(shard, text) => bail!("shard {}: {text}", shard.0),
        }
        Ok(())
    }
}

fn say_what_was_found(lane: u8, report: antiphon_engine::OpenReport) {
    tracing::info!(
        lane,
        created = report.created,
        position = report.position.0,
        records = report.records,
        log_bytes = report.log_bytes_read,
        "lane open"
    );
    if let Some(torn) = report.torn_tail {
        tracing::info!(lane, file = torn.file, offset = torn.offset, "cut off an unfinished write");
    }
    for damage in report.damage {
        tracing::error!(lane, ?damage, "the log is damaged");
    }
    for damage in report.segments_damaged {
        tracing::error!(lane, %damage, "a segment can't be read; restore it from a backup");
    }
    for file in report.leftovers_removed {
        tracing::info!(lane, file, "removed what an interrupted flush had left");
    }
}

/// When clients are told to come back: not before the next process is expected, but for at least half of the window, so that they do not
/// all come at once.
fn reconnect_range(window_ms: u64, gap_ms: u64, connections: u64, shards: u64) -> Range<u32> {
    let goodbyes_ms = connections * 1_000 / (GOODBYES_PER_SECOND * shards.max(1));
    let floor_ms = (gap_ms + goodbyes_ms).min(window_ms / 2);
    let of = |ms: u64| u32::try_from(ms).unwrap_or(u32::MAX);
    of(floor_ms)..of(window_ms.max(floor_ms + 1))
}

/// Closes listeners that share their address with `successor` younger ones. A close moves the last listener of the kernel's list into the
/// gap, so the oldest go last and clients are steered, before each, to numbers that stay the successor's after it.
fn close_beside(listeners: &mut Vec<TcpListener>, successor: u32) {
    while let Some(last) = listeners.pop() {
        let first = listeners.len() as u32 + 1;
        if let Err(error) = uring::steer(&last, first..first + successor.saturating_sub(1).max(1)) {
            tracing::warn!(%error, "new clients can't be steered past a listener that closes; some may be reset");
        }
    }
}

/// What the door asks of the node's own thread.
pub(crate) struct DoorKeeper {
    pub(crate) offer: Offer,
    /// One of each address's.
    pub(crate) addresses: Vec<TcpListener>,
    /// How many each address has.
    pub(crate) listeners: u32,
    pub(crate) control: Arc<Control>,
    pub(crate) longest: Duration,
    /// How many log lanes there are, and who has to look up when a checkpoint is asked for.
    pub(crate) lanes: usize,
    pub(crate) wakers: Arc<[Waker]>,
    /// A newcomer was told that it begins: no other may be, nor may clients come back to these listeners.
    pub(crate) has_begun: bool,
}

impl DoorKeeper {
    fn steer(&self, numbers: Range<u32>) -> std::io::Result<()> {
        self.addresses.iter().try_for_each(|address| uring::steer(address, numbers.clone()))
    }
}

impl crate::handover::Owner for DoorKeeper {
    fn asked(&mut self, offer: &Offer) -> Result<(), String> {
        if self.has_begun {
            return Err("it hands over to another already".to_owned());
        }
        if *offer != self.offer {
            return Err(format!("it has {}, not {offer}", self.offer));
        }
        self.steer(0..self.listeners).map_err(|error| format!("it can't keep new clients to itself: {error}"))
    }

    fn abandoned(&mut self) {
        if let Err(error) = self.addresses.iter().try_for_each(uring::steer_no_more) {
            tracing::warn!(%error, "new clients are still given to listeners by chance");
        }
    }

    fn begin(&mut self, listeners: u32) -> Duration {
        self.has_begun = true;
        tracing::info!("another process takes over");
        if let Err(error) = self.steer(self.listeners..self.listeners.saturating_add(listeners)) {
            tracing::warn!(%error, "new clients can't be steered to the next process; some may be reset");
        }
        self.control.tell(Event::HandOver(listeners));
        self.longest
    }

    fn checkpoint(&mut self, stop: &AtomicBool) -> Result<u64, String> {
        let since = Instant::now();
        let answers = self.control.checkpoint();
        self.wakers.iter().for_each(Waker::wake);
        let mut made = 0;
        while made < self.lanes {
            match answers.recv_timeout(CHECKPOINT_LOOK) {
                Ok((_, Ok(()))) => made += 1,
                Ok((lane, Err(text))) => {
                    tracing::warn!(lane = lane.0, "no checkpoint: {text}");
                    return Err(format!("lane {}: {text}", lane.0));
                }
                Err(_) if stop.load(Ordering::Acquire) => return Err("it is ending".to_owned()),
                Err(_) if since.elapsed() >= CHECKPOINT_MAX => {
                    return Err(format!("it could not flush its logs in {CHECKPOINT_MAX:?}"));
                }
                Err(_) => {}
            }
        }
        tracing::info!(after_ms = since.elapsed().as_millis() as u64, "made a checkpoint");
        Ok(made as u64)
    }
}

/// The longest time from a request to hand over to the lock.
pub(crate) fn longest_handover(window_ms: u64) -> Duration {
    SETTLE + Duration::from_millis(window_ms) + HURRY + CLOSE_TIMEOUT + LINGER + Duration::from_secs(10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::mesh::LaneId;

    #[test]
    fn a_start_that_takes_long_says_how_far_it_is() {
        let (control, events) = Control::new();
        let metrics = Metrics::new(1, 2);
        let placement = Placement { shards: 1, lanes: 2 };
        let mut life = Life {
            placement,
            window_ms: 0,
            metrics: &metrics,
            control: &control,
            wakers: &[],
            events,
            tally: Tally::default(),
        };
        let open = |lane| control.tell(Event::LaneOpen(LaneId(lane), antiphon_engine::OpenReport::default()));
        let mut said = Vec::new();
        open(0);
        life.opening(2, Duration::from_millis(1), |open_lanes| {
            said.push(open_lanes);
            if said.len() == 2 {
                open(1);
            }
        })
        .unwrap();
        assert!(said.len() >= 2 && said.iter().all(|open| *open == 1), "{said:?}");
        said.clear();
        life.opening(2, Duration::from_secs(60), |open_lanes| said.push(open_lanes)).unwrap();
        assert!(said.is_empty(), "a short one says nothing: {said:?}");
    }

    #[test]
    fn clients_come_back_after_the_gap_and_within_the_window() {
        assert_eq!(reconnect_range(10_000, 250, 0, 2), 250..10_000);
        assert_eq!(reconnect_range(10_000, 250, 250_000, 2), 2_750..10_000);
        assert_eq!(reconnect_range(10_000, 1_000, 2_000_000, 1), 5_000..10_000);
        assert_eq!(reconnect_range(0, 1_000, 9, 1), 0..1);
        assert_eq!(reconnect_range(u64::MAX / 4, 0, 0, 1), 0..u32::MAX);
    }
}
