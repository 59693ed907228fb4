//! A log lane on a shard of its own, with the node's ring, files, clock and allocator: what benchmarks of the engine
//! drive.
//!
//! A [`Task`] is carried out on the shard, as a node's own handler would be: what it times lies between a command's
//! submission and its answer there, without a change of threads. One task at a time. Each conversation is a direct one
//! of two users ([`People`]), made when the store is.

mod counted;
mod people;

use std::{
    cell::RefCell,
    path::Path,
    rc::Rc,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use antiphon_engine::{
    Engine, EngineOptions, OpenReport, Status,
    door::{Command, Done, Output, Refusal, Token},
    seams::Clock as _,
};
use antiphon_gateway::{
    core::io::{self, ConnectionKey, Handler, Origin, Turn},
    uring::{
        NodeFiles, OsRandom, Queue, ShardConfig, ShardContext, ShardCounters, ShardError, Spawner, SystemClock, Waker,
        Worker, spawn_shard,
    },
};
use antiphon_wire::{codes::ErrorCode, ids::TimestampMs};
use anyhow::Context;

pub(crate) use counted::{By, Counted, Traffic};
pub(crate) use people::People;

/// The engine as it is measured.
pub(crate) type NodeEngine = Engine<Counted<NodeFiles>, SystemClock, OsRandom>;

/// How often a shard gives its engine the time.
const TICK_MS: u64 = 1_000;

/// Conversations that are made in one turn: an engine refuses what it cannot queue.
const CREATE_A_TURN: u32 = 64;

/// How often whoever waits for a task may look at how far it is.
const WATCH_EVERY: Duration = Duration::from_millis(100);

/// How often a lane that settles is looked at.
const SETTLE_LOOK: Duration = Duration::from_millis(20);

/// What time a client has that names a message now.
pub(crate) fn now() -> TimestampMs {
    SystemClock.now()
}

/// What is to be done on the shard.
pub(crate) trait Task: Send {
    /// Does what is next, if it is time for it. A lane without a task asks often; an error ends the task.
    fn step(&mut self, engine: &NodeEngine, people: &mut People) -> anyhow::Result<Step>;

    /// An answer to a command that it submitted.
    fn answered(&mut self, engine: &NodeEngine, token: Token, result: Result<Done, Refusal>) -> anyhow::Result<()>;

    /// It is done, or has failed.
    fn finish(self: Box<Self>, engine: &NodeEngine, outcome: anyhow::Result<()>);
}

/// What came of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// A command was submitted, and may have been answered at once.
    Submitted,
    /// The same, and the ring is to have its turn before the next: a task that could go on for ever would keep it from
    /// writing.
    Turn,
    /// Nothing to do before an answer comes, or somebody wakes the lane.
    Wait,
    /// Nothing to do before something has changed that nobody tells.
    Look,
    /// All was done.
    Done,
}

/// Where a task's result goes.
pub(crate) type Reply<T> = mpsc::Sender<anyhow::Result<T>>;

/// What the process's main thread has the shard do.
enum Ask {
    Task(Box<dyn Task>),
    Status(mpsc::Sender<Status>),
    Close(Reply<()>),
}

/// The lane, seen from the process's main thread.
pub(crate) struct Lane {
    asks: mpsc::Sender<Ask>,
    waker: Waker,
    thread: JoinHandle<Result<(), ShardError>>,
    worker: Worker,
    report: OpenReport,
    traffic: Arc<Traffic>,
    engine: EngineOptions,
}

/// How a lane is opened.
#[derive(Debug, Clone)]
pub(crate) struct LaneOptions {
    pub(crate) engine: EngineOptions,
    /// Conversations that a new store gets.
    pub(crate) conversations: u32,
}

impl LaneOptions {
    /// A node's defaults.
    pub(crate) fn new(conversations: u32) -> Self {
        Self { engine: EngineOptions::new(0), conversations }
    }
}

impl Lane {
    /// Opens what a folder that exists holds, or makes a store with its conversations in it.
    pub(crate) fn open(folder: &Path, options: &LaneOptions) -> anyhow::Result<Self> {
        let (asks, asked) = mpsc::channel();
        let (ready, opened) = mpsc::channel();
        let waker = Waker::new()?;
        let worker = Worker::start("engine-work", |error| eprintln!("{error}"))?;
        let desk = worker.desk();
        let traffic = Arc::new(Traffic::default());
        let engine = options.engine.clone();
        let (folder, options, counted) = (folder.to_owned(), options.clone(), Arc::clone(&traffic));
        let make = move |context: &ShardContext| {
            let slot = Rc::new(RefCell::new(None));
            let spawner = context.spawner().clone();
            let files = context.files_of_lane(&folder, desk).map(|files| Counted::new(files, counted));
            spawner.spawn(Queue::Latency, open(context, files, options.engine, Rc::clone(&slot), ready.clone()));
            let people = People::new(options.conversations);
            Driver {
                slot,
                spawner,
                asked,
                ready: Some(ready),
                people,
                creating: 0,
                again: Vec::new(),
                created: 0,
                task: None,
                tick_at_ms: 0,
            }
        };
        let counters = Arc::new(ShardCounters::default());
        let thread = spawn_shard(ShardConfig::new("engine", None), waker.clone(), counters, make)?;
        let report = opened.recv().context("the shard ended before its engine was open")??;
        Ok(Self { asks, waker, thread, worker, report, traffic, engine })
    }

    /// What opening found.
    pub(crate) fn report(&self) -> &OpenReport {
        &self.report
    }

    /// What the engine was told.
    pub(crate) fn engine(&self) -> &EngineOptions {
        &self.engine
    }

    /// What has been written and read so far, by whom.
    pub(crate) fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// For a thread that wakes the lane.
    pub(crate) fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// Carries out a task that sends its result to the sender that it is made with.
    pub(crate) fn run<T>(&self, make: impl FnOnce(Reply<T>) -> Box<dyn Task>) -> anyhow::Result<T> {
        self.run_watched(make, || Ok(()))
    }

    /// The same, and calls `watch` now and then until it is done; an error of it ends the waiting.
    pub(crate) fn run_watched<T>(
        &self,
        make: impl FnOnce(Reply<T>) -> Box<dyn Task>,
        mut watch: impl FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<T> {
        let (reply, replied) = mpsc::channel();
        self.ask(Ask::Task(make(reply)))?;
        loop {
            match replied.recv_timeout(WATCH_EVERY) {
                Ok(result) => return result,
                Err(mpsc::RecvTimeoutError::Timeout) => watch()?,
                Err(mpsc::RecvTimeoutError::Disconnected) => anyhow::bail!("the shard ended over its work"),
            }
        }
    }

    /// The engine's own figures.
    pub(crate) fn status(&self) -> anyhow::Result<Status> {
        let (reply, replied) = mpsc::channel();
        self.ask(Ask::Status(reply))?;
        replied.recv().context("the shard has ended")
    }

    /// Waits until nothing has been flushed, merged or written for as long as `quiet`; how long that took, without it.
    pub(crate) fn settle(&self, quiet: Duration, most: Duration) -> anyhow::Result<Duration> {
        let look = || {
            let status = self.status()?;
            let busy = status.memtable_sealed_bytes > 0 || status.write_in_flight;
            Ok::<_, anyhow::Error>((status.flushes, status.compactions, self.traffic.written_bytes(), busy))
        };
        let begin = Instant::now();
        let (mut before, mut since) = (look()?, Instant::now());
        while since.elapsed() < quiet || before.3 {
            anyhow::ensure!(begin.elapsed() < most, "the engine has not come to rest after {most:?}");
            thread::sleep(SETTLE_LOOK);
            let now = look()?;
            if now != before {
                (before, since) = (now, Instant::now());
            }
        }
        Ok(since.duration_since(begin))
    }

    fn ask(&self, ask: Ask) -> anyhow::Result<()> {
        self.asks.send(ask).ok().context("the shard has ended")?;
        self.waker.wake();
        Ok(())
    }

    /// Ends in order.
    pub(crate) fn close(self) -> anyhow::Result<()> {
        let (reply, replied) = mpsc::channel();
        self.ask(Ask::Close(reply))?;
        replied.recv().context("the shard ended over its work")??;
        self.waker.stop();
        self.thread.join().map_err(|_| anyhow::anyhow!("the shard panicked"))??;
        Ok(self.worker.stop()?)
    }
}

/// An answer that nobody expects.
pub(crate) fn unexpected(result: &Result<Done, Refusal>) -> anyhow::Error {
    anyhow::anyhow!("a command was answered with {result:?}")
}

/// Opens the engine and starts its two futures. Whoever waits is told by the driver, when a store that was just made
/// has its conversations; here only of a failure.
fn open(
    context: &ShardContext,
    files: std::io::Result<Counted<NodeFiles>>,
    options: EngineOptions,
    slot: Rc<RefCell<Option<Opened>>>,
    ready: Reply<OpenReport>,
) -> impl Future<Output = ()> + 'static {
    let (spawner, waker) = (context.spawner().clone(), context.waker().clone());
    async move {
        let opened = match files {
            Ok(files) => Engine::open(files, SystemClock, OsRandom, options).await.map_err(Into::into),
            Err(error) => Err(anyhow::Error::from(error)),
        };
        match opened {
            Ok((engine, report)) => {
                let (commits, maintenance) = (engine.clone(), engine.clone());
                spawner.spawn(Queue::Latency, async move { commits.run_commits().await });
                spawner.spawn(Queue::Background, async move { maintenance.run_maintenance().await });
                slot.replace(Some(Opened { engine, report }));
            }
            // Who waits may be gone.
            Err(error) => drop(ready.send(Err(error))),
        }
        waker.wake();
    }
}

struct Opened {
    engine: NodeEngine,
    report: OpenReport,
}

/// The shard's handler.
struct Driver {
    slot: Rc<RefCell<Option<Opened>>>,
    spawner: Spawner,
    asked: mpsc::Receiver<Ask>,
    ready: Option<Reply<OpenReport>>,
    people: People,
    /// Conversations that were asked for and are not durable, of a new store.
    creating: u32,
    created: u32,
    /// Those that were refused for now: they are asked for at the next tick.
    again: Vec<u32>,
    task: Option<Box<dyn Task>>,
    tick_at_ms: u64,
}

impl Driver {
    /// Whether the store has its conversations. Makes some of those that it has not.
    fn has_conversations(&mut self, engine: &NodeEngine, new: bool) -> bool {
        if new && self.again.is_empty() && self.created < self.people.conversations() {
            let end = self.people.conversations().min(self.created + CREATE_A_TURN);
            for number in self.created..end {
                self.create(engine, number);
            }
            self.created = end;
            return false;
        }
        self.creating == 0 && self.again.is_empty()
    }

    fn create(&mut self, engine: &NodeEngine, number: u32) {
        let [user, peer] = self.people.of(number).members;
        engine.submit(Token(number.into()), Command::CreateDirect { user, peer });
        self.creating += 1;
    }

    fn begin(&mut self, engine: &NodeEngine, ask: Ask) {
        match ask {
            Ask::Task(task) => self.task = Some(task),
            // Who asked may be gone.
            Ask::Status(reply) => drop(reply.send(engine.status())),
            Ask::Close(reply) => {
                let engine = engine.clone();
                self.spawner.spawn(Queue::Latency, async move {
                    drop(reply.send(engine.close().await.map_err(Into::into)));
                });
            }
        }
    }

    fn answered(&mut self, engine: &NodeEngine, token: Token, result: Result<Done, Refusal>) {
        if self.ready.is_some() {
            self.made(token, &result);
            return;
        }
        let Some(task) = &mut self.task else { return };
        if let Err(fault) = task.answered(engine, token, result) {
            self.end(engine, Err(fault));
        }
    }

    /// A conversation of a new store was made, or will be when flushes have come after.
    fn made(&mut self, token: Token, result: &Result<Done, Refusal>) {
        self.creating -= 1;
        match result {
            Ok(Done::Created { .. }) => {}
            Err(refusal) if refusal.code == ErrorCode::Overloaded => self.again.push(token.0 as u32),
            _ => {
                if let Some(ready) = self.ready.take() {
                    drop(ready.send(Err(unexpected(result))));
                }
            }
        }
    }

    fn end(&mut self, engine: &NodeEngine, outcome: anyhow::Result<()>) {
        if let Some(task) = self.task.take() {
            task.finish(engine, outcome);
        }
    }

    fn take_answers(&mut self, engine: &NodeEngine) {
        while let Some(output) = engine.poll() {
            if let Output::Answer { token, result } = output {
                self.answered(engine, token, result);
            }
        }
    }

    /// Steps until there is nothing to do; whether to look again at once.
    fn go_on(&mut self, engine: &NodeEngine, new: bool) -> bool {
        loop {
            self.take_answers(engine);
            if self.ready.is_some() {
                if !self.has_conversations(engine, new) {
                    return self.again.is_empty() && self.created < self.people.conversations();
                }
                let report = self.slot.borrow().as_ref().map(|opened| opened.report.clone());
                // Whoever opened it waits for this alone.
                if let (Some(ready), Some(report)) = (self.ready.take(), report) {
                    drop(ready.send(Ok(report)));
                }
            }
            while let Ok(ask) = self.asked.try_recv() {
                self.begin(engine, ask);
            }
            let Some(task) = &mut self.task else { return false };
            match task.step(engine, &mut self.people) {
                Ok(Step::Submitted) => {}
                Ok(Step::Turn) => {
                    self.take_answers(engine);
                    return false;
                }
                Ok(Step::Wait) => return false,
                Ok(Step::Look) => return true,
                Ok(Step::Done) => self.end(engine, Ok(())),
                Err(fault) => self.end(engine, Err(fault)),
            }
        }
    }
}

impl Handler for Driver {
    fn accepted(&mut self, _: ConnectionKey, _: Origin) {}

    fn received(&mut self, _: ConnectionKey, _: &mut [u8]) {}

    fn sent(&mut self, _: ConnectionKey) {}

    fn closed(&mut self, _: ConnectionKey) {}

    fn turn(&mut self, now_ms: u64) -> Turn {
        let opened = self.slot.borrow().as_ref().map(|opened| (opened.engine.clone(), opened.report.created));
        let Some((engine, new)) = opened else { return Turn { more: false, wake_at_ms: None } };
        if now_ms >= self.tick_at_ms {
            engine.tick();
            self.tick_at_ms = now_ms + TICK_MS;
            for number in std::mem::take(&mut self.again) {
                self.create(&engine, number);
            }
        }
        let more = self.go_on(&engine, new);
        Turn { more, wake_at_ms: Some(self.tick_at_ms) }
    }

    fn poll_command(&mut self) -> Option<io::Command> {
        None
    }
}
