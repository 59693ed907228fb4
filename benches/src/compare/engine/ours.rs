//! Our engine as one of those compared: a log lane on a shard of its own, with the node's files, clock and options.
//!
//! The shard carries out all batches or questions that it is given, one after the other: what is timed lies between a
//! command's submission and its last answer, on the shard, as a node's own handler would see it. What other threads ask
//! of it is not.
//!
//! Each conversation is a direct one of two users, made before anything is measured.

use std::{
    cell::RefCell,
    collections::VecDeque,
    path::Path,
    rc::Rc,
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use antiphon_bench_store::{Ask, Data, Message, Page, Row, Store};
use antiphon_engine::{
    Engine, EngineOptions,
    door::{Command, Done, HistoryPage, HistoryRange, Output, Refusal, Token},
};
use antiphon_gateway::{
    core::io::{self, ConnectionKey, Handler, Origin, Turn},
    uring::{
        NodeFiles, OsRandom, Queue, ShardConfig, ShardContext, ShardCounters, ShardError, Spawner, SystemClock, Waker,
        Worker, spawn_shard,
    },
};
use antiphon_wire::{
    codes::ErrorCode,
    frame::{Content, ContentView, EntryKind, view_content, view_entry},
    ids::{ClientMessageId, ConversationId, Sequence, UserId},
};
use anyhow::{Context, bail};

type NodeEngine = Engine<NodeFiles, SystemClock, OsRandom>;

/// How often a shard gives its engine the time.
const TICK_MS: u64 = 1_000;

/// Conversations that are made in one turn: an engine refuses what it cannot queue.
const CREATE_A_TURN: u32 = 64;

/// What the process's main thread has the shard do.
enum Work {
    Append(Vec<Vec<Message>>, mpsc::Sender<anyhow::Result<Vec<Duration>>>),
    Read(Vec<Ask>, mpsc::Sender<anyhow::Result<Vec<Page>>>),
    LogBytes(mpsc::Sender<u64>),
    Close(mpsc::Sender<anyhow::Result<()>>),
}

/// The engine, seen from the process's main thread.
pub(crate) struct Ours {
    work: mpsc::Sender<Work>,
    waker: Waker,
    thread: JoinHandle<Result<(), ShardError>>,
    worker: Worker,
}

impl Ours {
    fn ask<T>(&self, work: impl FnOnce(mpsc::Sender<T>) -> Work) -> anyhow::Result<T> {
        let (reply, replied) = mpsc::channel();
        self.work.send(work(reply)).ok().context("the shard has ended")?;
        self.waker.wake();
        replied.recv().context("the shard ended over its work")
    }
}

impl Store for Ours {
    fn open(folder: &Path, data: &Data) -> anyhow::Result<Self> {
        let (work, todo) = mpsc::channel();
        let (ready, opened) = mpsc::channel();
        let waker = Waker::new()?;
        let (folder, data) = (folder.to_owned(), data.clone());
        let worker = Worker::start("engine-work", |error| eprintln!("{error}"))?;
        let desk = worker.desk();
        let make = move |context: &ShardContext| {
            let slot = Rc::new(RefCell::new(None));
            let spawner = context.spawner().clone();
            let files = context.files_of_lane(&folder, desk);
            spawner.spawn(Queue::Latency, open(context, files, Rc::clone(&slot), ready.clone()));
            Driver::new(slot, spawner, todo, ready, data)
        };
        let counters = Arc::new(ShardCounters::default());
        let thread = spawn_shard(ShardConfig::new("engine", None), waker.clone(), counters, make)?;
        opened.recv().context("the shard ended before its engine was open")??;
        Ok(Self { work, waker, thread, worker })
    }

    fn append(&mut self, batches: &[Vec<Message>]) -> anyhow::Result<Vec<Duration>> {
        self.ask(|reply| Work::Append(batches.to_vec(), reply))?
    }

    fn read(&mut self, asks: &[Ask]) -> anyhow::Result<Vec<Page>> {
        self.ask(|reply| Work::Read(asks.to_vec(), reply))?
    }

    fn log_bytes(&self) -> Option<u64> {
        self.ask(Work::LogBytes).ok()
    }

    fn is_log(name: &str) -> bool {
        name.starts_with("log-")
    }

    fn close(self) -> anyhow::Result<()> {
        self.ask(Work::Close)??;
        self.waker.stop();
        self.thread.join().map_err(|_| anyhow::anyhow!("the shard panicked"))??;
        Ok(self.worker.stop()?)
    }
}

/// The messages of a page; a conversation's first entry is none.
fn rows(page: &HistoryPage) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for archive in &page.entries {
        let entry = view_entry(archive)?;
        if EntryKind::from(&entry.kind) != EntryKind::Message {
            continue;
        }
        let ContentView::Text(text) = view_content(&entry.body)?;
        rows.push(Row { ordinal: entry.ordinal.0.to_native(), id: entry.client_message_id.0, text: text.to_owned() });
    }
    Ok(rows)
}

/// Opens the engine and starts its two futures. Whoever waits is told by the driver, when a store that was just made
/// has its conversations; here only of a failure.
fn open(
    context: &ShardContext,
    files: std::io::Result<NodeFiles>,
    slot: Rc<RefCell<Option<Opened>>>,
    ready: mpsc::Sender<anyhow::Result<()>>,
) -> impl Future<Output = ()> + 'static {
    let (spawner, waker) = (context.spawner().clone(), context.waker().clone());
    async move {
        let opened = match files {
            Ok(files) => Engine::open(files, SystemClock, OsRandom, EngineOptions::new(0)).await.map_err(Into::into),
            Err(error) => Err(anyhow::Error::from(error)),
        };
        match opened {
            Ok((engine, report)) => {
                let (commits, maintenance) = (engine.clone(), engine.clone());
                spawner.spawn(Queue::Latency, async move { commits.run_commits().await });
                spawner.spawn(Queue::Background, async move { maintenance.run_maintenance().await });
                slot.replace(Some(Opened { engine, created: report.created }));
            }
            // Who waits may be gone.
            Err(error) => drop(ready.send(Err(error))),
        }
        waker.wake();
    }
}

struct Opened {
    engine: NodeEngine,
    created: bool,
}

/// What is under way.
enum Running {
    Nothing,
    Append(Append),
    Read(Read),
}

struct Append {
    batches: VecDeque<Vec<Message>>,
    /// The batch that is not wholly answered; tokens are places in it.
    batch: Vec<Message>,
    unanswered: usize,
    /// Places of messages that were refused because flushes are behind, to be sent again. The time is the engine's.
    refused: Vec<usize>,
    begin: Instant,
    took: Vec<Duration>,
    reply: mpsc::Sender<anyhow::Result<Vec<Duration>>>,
}

struct Read {
    asks: VecDeque<Ask>,
    waiting: bool,
    begin: Instant,
    pages: Vec<Page>,
    reply: mpsc::Sender<anyhow::Result<Vec<Page>>>,
}

/// The shard's handler.
struct Driver {
    slot: Rc<RefCell<Option<Opened>>>,
    spawner: Spawner,
    todo: mpsc::Receiver<Work>,
    ready: Option<mpsc::Sender<anyhow::Result<()>>>,
    data: Data,
    /// Conversations that were asked for and are not durable, of a new store.
    creating: u32,
    created: u32,
    /// Users and conversations by number, as far as they were needed.
    targets: Vec<Option<Target>>,
    running: Running,
    tick_at_ms: u64,
}

#[derive(Clone)]
struct Target {
    members: [UserId; 2],
    conversation: ConversationId,
}

impl Driver {
    fn new(
        slot: Rc<RefCell<Option<Opened>>>,
        spawner: Spawner,
        todo: mpsc::Receiver<Work>,
        ready: mpsc::Sender<anyhow::Result<()>>,
        data: Data,
    ) -> Self {
        let targets = vec![None; data.conversations as usize];
        let ready = Some(ready);
        let running = Running::Nothing;
        Self { slot, spawner, todo, ready, data, creating: 0, created: 0, targets, running, tick_at_ms: 0 }
    }

    /// Whether the store has its conversations. Makes some of those that it has not.
    fn has_conversations(&mut self, engine: &NodeEngine, new: bool) -> bool {
        if new && self.created < self.data.conversations {
            let end = self.data.conversations.min(self.created + CREATE_A_TURN);
            for number in self.created..end {
                let [user, peer] = target(&mut self.targets, number).members.clone();
                engine.submit(Token(0), Command::CreateDirect { user, peer });
                self.creating += 1;
            }
            self.created = end;
            return false;
        }
        self.creating == 0
    }

    fn begin(&mut self, engine: &NodeEngine, work: Work) {
        match work {
            Work::Append(batches, reply) => {
                let took = Vec::with_capacity(batches.len());
                let (batch, unanswered, refused, begin) = (Vec::new(), 0, Vec::new(), Instant::now());
                let batches = batches.into();
                self.running = Running::Append(Append { batches, batch, unanswered, refused, begin, took, reply });
            }
            Work::Read(asks, reply) => {
                let (asks, pages) = (asks.into(), Vec::new());
                self.running = Running::Read(Read { asks, waiting: false, begin: Instant::now(), pages, reply });
            }
            // Who asked may be gone.
            Work::LogBytes(reply) => drop(reply.send(engine.status().batch_bytes)),
            Work::Close(reply) => {
                let engine = engine.clone();
                self.spawner.spawn(Queue::Latency, async move {
                    drop(reply.send(engine.close().await.map_err(Into::into)));
                });
            }
        }
    }

    /// Submits what is next, if it is time for it.
    fn step(&mut self, engine: &NodeEngine) -> Step {
        match &mut self.running {
            Running::Nothing => Step::Wait,
            Running::Append(append) => append.step(engine, &mut self.targets),
            Running::Read(read) => read.step(engine, &mut self.targets),
        }
    }

    fn answered(&mut self, token: Token, result: Result<Done, Refusal>) {
        let fault = match &mut self.running {
            Running::Nothing => {
                self.creating -= 1;
                if !matches!(result, Ok(Done::Created { .. }))
                    && let Some(ready) = self.ready.take()
                {
                    drop(ready.send(Err(unexpected(&result))));
                }
                return;
            }
            Running::Append(append) => append.answered(token, result).err(),
            Running::Read(read) => read.answered(result).err(),
        };
        let Some(fault) = fault else { return };
        match std::mem::replace(&mut self.running, Running::Nothing) {
            Running::Nothing => {}
            Running::Append(append) => drop(append.reply.send(Err(fault))),
            Running::Read(read) => drop(read.reply.send(Err(fault))),
        }
    }

    /// Hands over what is done.
    fn finish(&mut self) {
        match std::mem::replace(&mut self.running, Running::Nothing) {
            Running::Nothing => {}
            Running::Append(append) => drop(append.reply.send(Ok(append.took))),
            Running::Read(read) => drop(read.reply.send(Ok(read.pages))),
        }
    }
}

/// What came of a step.
enum Step {
    /// A command was submitted, and may have been answered at once.
    Submitted,
    /// Nothing to do before an answer comes.
    Wait,
    /// Nothing to do before the engine has flushed, which nobody tells.
    Look,
    /// All was done.
    Done,
}

impl Append {
    fn step(&mut self, engine: &NodeEngine, targets: &mut [Option<Target>]) -> Step {
        if !self.refused.is_empty() {
            if engine.status().memtable_sealed_bytes > 0 {
                return Step::Look;
            }
            for place in std::mem::take(&mut self.refused) {
                send(engine, targets, place, &self.batch[place]);
            }
            return Step::Submitted;
        }
        if self.unanswered > 0 {
            return Step::Wait;
        }
        let Some(batch) = self.batches.pop_front() else { return Step::Done };
        (self.batch, self.begin) = (batch, Instant::now());
        self.unanswered = self.batch.len();
        for (place, message) in self.batch.iter().enumerate() {
            send(engine, targets, place, message);
        }
        Step::Submitted
    }

    fn answered(&mut self, token: Token, result: Result<Done, Refusal>) -> anyhow::Result<()> {
        match result {
            Ok(Done::Sent { duplicate: false, .. }) => self.unanswered -= 1,
            Err(refusal) if refusal.code == ErrorCode::Overloaded => self.refused.push(token.0 as usize),
            other => bail!(unexpected(&other)),
        }
        if self.unanswered == 0 {
            self.took.push(self.begin.elapsed());
        }
        Ok(())
    }
}

impl Read {
    fn step(&mut self, engine: &NodeEngine, targets: &mut [Option<Target>]) -> Step {
        if self.waiting {
            return Step::Wait;
        }
        let Some(ask) = self.asks.pop_front() else { return Step::Done };
        let target = target(targets, ask.conversation);
        let (user, conversation) = (target.members[0].clone(), target.conversation);
        self.begin = Instant::now();
        self.waiting = true;
        // The first entry of a conversation is no message, so sequences are ordinals and one.
        let range = ask.before.map_or(HistoryRange::Latest, |before| HistoryRange::Before(Sequence(before + 1)));
        engine.submit(Token(0), Command::History { user, conversation, range, limit: ask.limit });
        Step::Submitted
    }

    fn answered(&mut self, result: Result<Done, Refusal>) -> anyhow::Result<()> {
        let Ok(Done::History(page)) = result else { bail!(unexpected(&result)) };
        let took = self.begin.elapsed();
        self.pages.push(Page { took, rows: rows(&page)? });
        self.waiting = false;
        Ok(())
    }
}

fn unexpected(result: &Result<Done, Refusal>) -> anyhow::Error {
    anyhow::anyhow!("a command was answered with {result:?}")
}

fn target(targets: &mut [Option<Target>], number: u32) -> &Target {
    targets[number as usize].get_or_insert_with(|| {
        let user = |side: &str| UserId::new(&format!("{side}-{number}")).expect("a short plain name");
        let members = [user("from"), user("to")];
        Target { conversation: ConversationId::direct(&members[0], &members[1]), members }
    })
}

/// The token is the message's place in its batch.
fn send(engine: &NodeEngine, targets: &mut [Option<Target>], place: usize, message: &Message) {
    let target = target(targets, message.conversation);
    let command = Command::Send {
        user: target.members[message.sender as usize].clone(),
        conversation: target.conversation,
        client_message_id: ClientMessageId(message.id),
        body: Content::text(&message.text).0,
    };
    engine.submit(Token(place as u64), command);
}

impl Handler for Driver {
    fn accepted(&mut self, _: ConnectionKey, _: Origin) {}

    fn received(&mut self, _: ConnectionKey, _: &mut [u8]) {}

    fn sent(&mut self, _: ConnectionKey) {}

    fn closed(&mut self, _: ConnectionKey) {}

    fn turn(&mut self, now_ms: u64) -> Turn {
        let opened = self.slot.borrow().as_ref().map(|opened| (opened.engine.clone(), opened.created));
        let Some((engine, new)) = opened else { return Turn { more: false, wake_at_ms: None } };
        if now_ms >= self.tick_at_ms {
            engine.tick();
            self.tick_at_ms = now_ms + TICK_MS;
        }
        let mut more = false;
        loop {
            while let Some(output) = engine.poll() {
                if let Output::Answer { token, result } = output {
                    self.answered(token, result);
                }
            }
            if self.ready.is_some() {
                if self.has_conversations(&engine, new) {
                    // Whoever opened it waits for this alone.
                    if let Some(ready) = self.ready.take() {
                        drop(ready.send(Ok(())));
                    }
                } else {
                    more = self.created < self.data.conversations;
                    break;
                }
            }
            if matches!(self.running, Running::Nothing)
                && let Ok(work) = self.todo.try_recv()
            {
                self.begin(&engine, work);
            }
            match self.step(&engine) {
                Step::Submitted => {}
                Step::Done => self.finish(),
                Step::Wait => break,
                Step::Look => {
                    more = true;
                    break;
                }
            }
        }
        Turn { more, wake_at_ms: Some(self.tick_at_ms) }
    }

    fn poll_command(&mut self) -> Option<io::Command> {
        None
    }
}
