//! A load on a lane: commands of some kinds, closed (so many unanswered, the next with an answer) or open
//! ([`Arriving`]), every answer checked and timed.
//!
//! A command that is refused because flushes are behind is given again when they are not; its time goes on. One that only reads, and is
//! refused because too many wait for the disk, holds up others like it and no more.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use antiphon_bench_store::{
    counters::{Meter, Times},
    job::Usage,
};
use antiphon_engine::{
    Status,
    door::{Command, Done, Refusal, Token},
};
use antiphon_loadgen::{
    clock::{Clock, MILLISECOND_NS, Nanoseconds, SECOND_NS},
    progress::Progress,
};
use antiphon_wire::codes::ErrorCode;
use anyhow::ensure;

use super::{
    SPARE_BYTES,
    arriving::{Arriving, Metronome},
    record::{Recorder, Summary},
};
use crate::facts::free_bytes;
use crate::lane::{Lane, NodeEngine, People, Reply, Step, Task, unexpected};

/// Commands of an open load that may be unanswered: many seconds of all that is measured. What is due beyond it is given
/// when it can be, and its time goes on.
const UNANSWERED_MAX: usize = 1 << 18;

/// Commands of an open load that are given in one turn of the lane: some milliseconds of all that is measured. The ring has its turn
/// between, and what is refused is given again at once.
const GIVEN_A_TURN: u64 = 1_024;

/// Reads that were refused are given again so many in a turn.
const READ_AGAIN_A_TURN: usize = 64;

/// While so many bytes wait for the next batch, what was refused waits as well: half of what the engine lets wait.
const BATCH_BYTES_MAX: usize = 512 << 10;

/// How often the disk is looked at.
const ROOM_LOOK: Duration = Duration::from_secs(5);

/// From the plan to the first arrival: the thread that wakes the lane is up by then.
const AHEAD_NS: u64 = 20 * MILLISECOND_NS;

/// What is sent.
pub(crate) trait Workload: Send + 'static {
    /// What is remembered of a command until its answer.
    type Order: Send;

    /// The next of a kind.
    fn order(&mut self, kind: usize) -> Self::Order;

    /// Whether commands of a kind only read.
    fn only_reads(&self, _kind: usize) -> bool {
        false
    }

    /// Its command; the same again if it is asked for again.
    fn command(&self, order: &Self::Order, people: &mut People) -> Command;

    /// Its success.
    ///
    /// # Errors
    /// It is not what it must be.
    fn done(&mut self, order: Self::Order, done: Done) -> anyhow::Result<()>;
}

/// When a load ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Until {
    /// So many commands were answered.
    Answered(u64),
    /// So long after the beginning no more are given.
    Elapsed(Duration),
}

/// What came of a load.
pub(crate) struct Outcome<W> {
    pub(crate) workload: W,
    pub(crate) kinds: Vec<Summary>,
    /// From the beginning to the last answer.
    pub(crate) elapsed: Duration,
    /// Of all threads but the one that makes arrivals, from the beginning to the last answer.
    pub(crate) usage: Usage,
    /// Right after the last answer.
    pub(crate) status: Status,
    /// It ended before its time, because the disk was nearly full.
    pub(crate) cut_short: bool,
}

/// Names what is loaded, for the line that shows how far it is.
pub(crate) struct Told<'a> {
    pub(crate) progress: &'a mut Progress,
    pub(crate) text: &'a str,
}

impl<'a> Told<'a> {
    /// Of a load.
    pub(crate) fn new(progress: &'a mut Progress, text: &'a str) -> Option<Self> {
        Some(Self { progress, text })
    }
}

/// Gives commands of one kind, so many unanswered at a time.
pub(crate) fn closed<W: Workload>(
    lane: &Lane,
    folder: &std::path::Path,
    workload: W,
    kind: &'static str,
    in_flight: usize,
    until: Until,
    told: Option<Told<'_>>,
) -> anyhow::Result<Outcome<W>> {
    let clock = Clock::start();
    let pace = Pace::Closed { clock, in_flight, until };
    run(lane, folder, workload, &[kind], pace, clock.now_ns(), told, None)
}

/// Gives commands of each kind at its rate for a while.
pub(crate) fn open<W: Workload>(
    lane: &Lane,
    folder: &std::path::Path,
    workload: W,
    rates: &[(&'static str, f64)],
    seconds: f64,
    seed: u64,
    told: Option<Told<'_>>,
) -> anyhow::Result<Outcome<W>> {
    let clock = Clock::start();
    let start_ns = clock.now_ns() + AHEAD_NS;
    let numbers: Vec<f64> = rates.iter().map(|(_, rate)| *rate).collect();
    let kinds: Vec<&'static str> = rates.iter().map(|(kind, _)| *kind).collect();
    let arriving = Arriving::new(clock, &numbers, start_ns, seconds, seed);
    let metronome = Metronome::start(arriving.clone(), lane.waker())?;
    let outcome = run(lane, folder, workload, &kinds, Pace::Open(arriving), start_ns, told, Some(&metronome));
    metronome.stop()?;
    outcome
}

#[expect(clippy::too_many_arguments, reason = "the two ways to call it name them")]
fn run<W: Workload>(
    lane: &Lane,
    folder: &std::path::Path,
    workload: W,
    kinds: &[&'static str],
    pace: Pace,
    begin_ns: Nanoseconds,
    mut told: Option<Told<'_>>,
    metronome: Option<&Metronome>,
) -> anyhow::Result<Outcome<W>> {
    let answered = Arc::new(AtomicU64::new(0));
    let enough = Arc::new(AtomicBool::new(false));
    let (counter, is_enough) = (Arc::clone(&answered), Arc::clone(&enough));
    let must_finish = matches!(&pace, Pace::Closed { until: Until::Answered(_), .. });
    let (goal, in_seconds) = match &pace {
        Pace::Closed { until: Until::Answered(count), .. } => (*count, false),
        Pace::Closed { until: Until::Elapsed(time), .. } => (time.as_secs(), true),
        Pace::Open(arriving) => (arriving.last_ns().saturating_sub(begin_ns) / SECOND_NS, true),
    };
    if let Some(Told { progress, text }) = &mut told {
        progress.phase(text);
        progress.goal(goal);
    }
    let arrivals = || metronome.map_or(Ok(Times::default()), Metronome::times);
    let (meter, before) = (Meter::start(folder)?, arrivals()?);
    let clock = pace.clock();
    let (memtable_bytes_max, commands_waiting_max) = (lane.engine().memtable_bytes, lane.engine().commands_waiting_max);
    let task = move |reply| -> Box<dyn Task> {
        let recorders = kinds.iter().map(|kind| Recorder::new(kind, begin_ns)).collect();
        let (pending, free, refused, held_reads) = (Vec::new(), Vec::new(), VecDeque::new(), VecDeque::new());
        let (fresh, answered, enough) = (0, counter, is_enough);
        Box::new(Load {
            workload,
            pace,
            begin_ns,
            recorders,
            pending,
            free,
            refused,
            held_reads,
            fresh,
            answered,
            memtable_bytes_max,
            commands_waiting_max,
            enough,
            reply,
        })
    };

    let (mut last, mut looked) = (0, Instant::now());
    let done: Finished<W> = lane.run_watched(task, || {
        if looked.elapsed() >= ROOM_LOOK {
            looked = Instant::now();
            if free_bytes(folder)? < SPARE_BYTES {
                ensure!(!must_finish, "the disk of {} is nearly full", folder.display());
                enough.store(true, Ordering::Relaxed);
            }
        }
        let Some(Told { progress, text }) = &mut told else { return Ok(()) };
        let count = answered.load(Ordering::Relaxed);
        let second = clock.now_ns().saturating_sub(begin_ns) / SECOND_NS;
        progress.show_at(if in_seconds { second } else { count }, || {
            let gained = count - std::mem::replace(&mut last, count);
            format!("{text}: {count} answered, {gained} since the last line, {second} s")
        });
        Ok(())
    })?;
    let mut usage = meter.usage()?;
    let theirs = arrivals()?.since(before);
    usage.cpu_ns = usage.cpu_ns.saturating_sub(theirs.run_ns);
    usage.waited_ns = usage.waited_ns.saturating_sub(theirs.waited_ns);
    if let Some(told) = told {
        told.progress.no_goal();
    }
    let Finished { workload, kinds, elapsed, status } = done;
    let cut_short = enough.load(Ordering::Relaxed);
    Ok(Outcome { workload, kinds, elapsed, usage, status, cut_short })
}

/// What the task sends back.
struct Finished<W> {
    workload: W,
    kinds: Vec<Summary>,
    elapsed: Duration,
    status: Status,
}

enum Pace {
    Closed { clock: Clock, in_flight: usize, until: Until },
    Open(Arriving),
}

impl Pace {
    fn clock(&self) -> Clock {
        match self {
            Self::Closed { clock, .. } => *clock,
            Self::Open(arriving) => arriving.clock(),
        }
    }
}

/// A command that is not answered.
struct Pending<O> {
    kind: usize,
    due_ns: Nanoseconds,
    order: O,
}

struct Load<W: Workload> {
    workload: W,
    pace: Pace,
    begin_ns: Nanoseconds,
    recorders: Vec<Recorder>,
    /// By token.
    pending: Vec<Option<Pending<W::Order>>>,
    free: Vec<usize>,
    /// Tokens of those that wait to be given again.
    refused: VecDeque<usize>,
    /// Those that only read.
    held_reads: VecDeque<usize>,
    /// Commands given, without repeats.
    fresh: u64,
    answered: Arc<AtomicU64>,
    /// While one memtable is flushed and the other is as large as this, the engine refuses.
    memtable_bytes_max: usize,
    /// While so many commands wait for reads, the engine refuses more.
    commands_waiting_max: usize,
    /// Nothing more is to be given: the disk is nearly full.
    enough: Arc<AtomicBool>,
    reply: Reply<Finished<W>>,
}

impl<W: Workload> Load<W> {
    fn unanswered(&self) -> usize {
        self.pending.len() - self.free.len()
    }

    fn give(&mut self, engine: &NodeEngine, people: &mut People, kind: usize, due_ns: Nanoseconds) {
        let order = self.workload.order(kind);
        let command = self.workload.command(&order, people);
        let pending = Some(Pending { kind, due_ns, order });
        let place = match self.free.pop() {
            Some(place) => {
                self.pending[place] = pending;
                place
            }
            None => {
                self.pending.push(pending);
                self.pending.len() - 1
            }
        };
        self.fresh += 1;
        if !self.held_reads.is_empty() && self.workload.only_reads(kind) {
            self.held_reads.push_back(place);
        } else {
            engine.submit(Token(place as u64), command);
        }
    }

    /// Gives reads that were refused again, as far as there is room; whether any was given.
    fn read_again(&mut self, engine: &NodeEngine, people: &mut People) -> bool {
        if self.held_reads.is_empty() {
            return false;
        }
        let room = (self.commands_waiting_max / 2).saturating_sub(engine.status().commands_waiting);
        let given = room.min(self.held_reads.len()).min(READ_AGAIN_A_TURN);
        for place in self.held_reads.drain(..given).collect::<Vec<_>>() {
            if let Some(pending) = &self.pending[place] {
                engine.submit(Token(place as u64), self.workload.command(&pending.order, people));
            }
        }
        given > 0
    }

    /// Gives what was refused again, as soon as there is room; what was refused is a turn's at most, since nothing else is given
    /// meanwhile.
    fn give_again(&mut self, engine: &NodeEngine, people: &mut People) -> Step {
        let status = engine.status();
        if status.memtable_sealed_bytes > 0 && status.memtable_bytes >= self.memtable_bytes_max {
            // A flush's end is told to nobody.
            return Step::Look;
        }
        if status.batch_waiting_bytes >= BATCH_BYTES_MAX || status.commands_waiting >= self.commands_waiting_max / 2 {
            // The end of the write before it is, and so is that of a read.
            return Step::Wait;
        }
        for place in std::mem::take(&mut self.refused) {
            if let Some(pending) = &self.pending[place] {
                engine.submit(Token(place as u64), self.workload.command(&pending.order, people));
            }
        }
        Step::Turn
    }

    /// Gives what is next; whether nothing more will come.
    fn give_next(&mut self, engine: &NodeEngine, people: &mut People) -> bool {
        if self.enough.load(Ordering::Relaxed) {
            return true;
        }
        match &mut self.pace {
            Pace::Closed { clock, in_flight, until } => {
                let now_ns = clock.now_ns();
                let (in_flight, until) = (*in_flight, *until);
                let is_over = |load: &Self| match until {
                    Until::Answered(count) => load.fresh >= count,
                    Until::Elapsed(time) => now_ns.saturating_sub(load.begin_ns) >= time.as_nanos() as u64,
                };
                while self.unanswered() < in_flight && !is_over(self) {
                    self.give(engine, people, 0, now_ns);
                }
                is_over(self)
            }
            Pace::Open(arriving) => {
                let now_ns = arriving.now_ns();
                let room = UNANSWERED_MAX.saturating_sub(self.pending.len() - self.free.len());
                let most = room.min(GIVEN_A_TURN as usize);
                let due: Vec<_> = std::iter::from_fn(|| arriving.take_due(now_ns)).take(most).collect();
                let is_over = arriving.is_over();
                for (kind, due_ns) in due {
                    self.give(engine, people, kind, due_ns);
                }
                is_over
            }
        }
    }
}

impl<W: Workload> Task for Load<W> {
    fn step(&mut self, engine: &NodeEngine, people: &mut People) -> anyhow::Result<Step> {
        if !self.refused.is_empty() {
            return Ok(self.give_again(engine, people));
        }
        let read = self.read_again(engine, people);
        let before = self.fresh;
        let is_over = self.give_next(engine, people);
        let gave = self.fresh - before;
        Ok(match &self.pace {
            // As much again may be due.
            Pace::Open(_) if gave >= GIVEN_A_TURN => Step::Look,
            Pace::Open(_) if gave > 0 && !is_over => Step::Turn,
            _ if gave > 0 || read => Step::Submitted,
            _ if is_over && self.unanswered() == 0 => Step::Done,
            _ => Step::Wait,
        })
    }

    fn answered(&mut self, _: &NodeEngine, token: Token, result: Result<Done, Refusal>) -> anyhow::Result<()> {
        let place = token.0 as usize;
        let Some(pending) = self.pending[place].take() else { anyhow::bail!("command {place} was answered twice") };
        let done = match result {
            Ok(done) => done,
            Err(refusal) if refusal.code == ErrorCode::Overloaded => {
                self.recorders[pending.kind].refused();
                let held =
                    if self.workload.only_reads(pending.kind) { &mut self.held_reads } else { &mut self.refused };
                held.push_back(place);
                self.pending[place] = Some(pending);
                return Ok(());
            }
            Err(refusal) => return Err(unexpected(&Err(refusal))),
        };
        let now_ns = self.pace.clock().now_ns();
        self.recorders[pending.kind].answered(pending.due_ns, now_ns);
        self.free.push(place);
        self.answered.fetch_add(1, Ordering::Relaxed);
        self.workload.done(pending.order, done)
    }

    fn finish(self: Box<Self>, engine: &NodeEngine, outcome: anyhow::Result<()>) {
        let Self { workload, pace, begin_ns, recorders, reply, .. } = *self;
        let elapsed = Duration::from_nanos(pace.clock().now_ns().saturating_sub(begin_ns));
        let kinds = recorders.into_iter().map(Recorder::summary).collect();
        // Who asked may be gone.
        let _ = reply.send(outcome.map(|()| Finished { workload, kinds, elapsed, status: engine.status() }));
    }
}
