//! Durable append: messages through the engine on the node's own ring, against a bare loop that writes as many bytes to a pre-written
//! file opened `O_DIRECT | O_DSYNC`, one write after the other. They take turns round by round. The engine is measured in two modes:
//!
//! - *alone*: a batch is submitted when the one before it is answered, so the engine's work and the disk's never overlap;
//! - *overlapped*: the next batch is submitted while one is being written, at most two unanswered, as a node does that goes on
//!   receiving. It is never submitted before the write has begun, so batches stay as large as the bare loop's.
//!
//! CPU is that of the one thread that does everything: commands, writes, flushes and compactions; or the bare loop's.
//!
//! A message that is refused because flushes are behind is sent again when they are not; the time goes on.
//!
//! The engine's side checks itself: every answer must be a fresh acknowledgement, and the log's position must have moved by exactly
//! as many records as were sent.

use std::{
    cell::RefCell,
    collections::VecDeque,
    fs::{self, OpenOptions},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    rc::Rc,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use antiphon_engine::{
    Engine, EngineOptions,
    door::{Command, Done, Output, Token},
    seams::AlignedBuffer,
};
use antiphon_gateway::{
    core::io::{self, ConnectionKey, Handler, Origin, Turn},
    uring::{
        NodeFiles, OsRandom, Queue, ShardConfig, ShardContext, ShardCounters, SystemClock, Waker, Worker, spawn_shard,
    },
};
use antiphon_wire::{
    codes::ErrorCode,
    frame::Content,
    ids::{ClientMessageId, ConversationId, UserId},
};
use anyhow::{Context, ensure};
use hdrhistogram::Histogram;

use crate::lane::now;

type NodeEngine = Engine<NodeFiles, SystemClock, OsRandom>;

/// What is measured.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) folder: PathBuf,
    pub(crate) batches: usize,
    pub(crate) rounds: usize,
    pub(crate) text_bytes: usize,
    pub(crate) conversations: usize,
}

/// How many batches may be unanswered, and what the mode is called.
const MODES: [(usize, &str); 2] = [(1, "alone"), (2, "overlapped")];

/// One round's result.
#[derive(Debug)]
pub(crate) struct Round {
    pub(crate) elapsed: Duration,
    cpu: Duration,
    pub(crate) latencies_us: Histogram<u64>,
    pub(crate) log_bytes: u64,
    log_writes: u64,
    /// Messages that had to be sent again.
    refusals: u64,
}

/// All rounds of one side.
#[derive(Default)]
struct Rounds(Vec<Round>);

impl Rounds {
    /// Messages a second: median, least, most.
    fn rates(&self, messages: usize) -> (f64, String) {
        let mut rates: Vec<_> = self.0.iter().map(|round| messages as f64 / round.elapsed.as_secs_f64()).collect();
        rates.sort_by(f64::total_cmp);
        let median = rates[rates.len() / 2];
        (median, format!("{median:.0} ({:.0}-{:.0})", rates[0], rates[rates.len() - 1]))
    }

    fn percentiles(&self) -> String {
        let mut all = Histogram::<u64>::new(3).expect("three digits are allowed");
        self.0.iter().for_each(|round| all.add(&round.latencies_us).expect("the same precision"));
        format!("{} / {}", all.value_at_quantile(0.5), all.value_at_quantile(0.99))
    }

    /// Microseconds of CPU for each message.
    fn cpu_us(&self, messages: usize) -> f64 {
        self.0.iter().map(|round| round.cpu.as_secs_f64()).sum::<f64>() * 1e6 / (messages * self.0.len()) as f64
    }

    fn sum(&self, of: impl Fn(&Round) -> u64) -> u64 {
        self.0.iter().map(of).sum()
    }
}

/// Runs all batch sizes and prints a table.
pub(crate) fn run(plan: &Plan, batch_sizes: &[usize]) -> anyhow::Result<()> {
    fs::create_dir_all(&plan.folder)?;
    println!(
        "append    {} rounds of {} batches, texts of {} bytes, {} conversations",
        plan.rounds, plan.batches, plan.text_bytes, plan.conversations
    );
    println!("alone: a batch is submitted when the one before it is answered");
    println!("overlapped: the next batch is submitted while one is being written, at most two unanswered");
    println!(
        "batch | mode | bare msg/s (min-max) | engine msg/s (min-max) | ratio | bare p50/p99 us | engine p50/p99 us | bare CPU us a \
         message | engine CPU us a message | log bytes a message | writes a batch | \
         refused"
    );
    for &batch in batch_sizes {
        compare(plan, batch)?;
    }
    Ok(())
}

/// Bytes of the log for a message beside its text, in batches so large that their padding to whole pages is 8 of them at most.
pub(crate) fn record_overhead_bytes(folder: &Path) -> anyhow::Result<f64> {
    let (batch, batches, text_bytes) = (512, 40, 100);
    let plan = Plan { folder: folder.to_owned(), batches, rounds: 1, text_bytes, conversations: 1_000 };
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    let bench = EngineBench::start(folder, &plan)?;
    // The first round makes the conversations.
    bench.round(batch, 1, 1)?;
    let round = bench.round(batch, batches, 1)?;
    bench.stop()?;
    fs::remove_dir_all(folder)?;
    Ok(round.log_bytes as f64 / (batch * batches) as f64 - text_bytes as f64)
}

fn compare(plan: &Plan, batch: usize) -> anyhow::Result<()> {
    let folder = plan.folder.join(format!("lane-{batch}"));
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    let bench = EngineBench::start(&folder, plan)?;
    // The first round warms both sides and tells how many bytes a batch is in the log.
    let warm = bench.round(batch, plan.batches / 4 + 1, 1)?;
    let write_bytes = (warm.log_bytes / warm.log_writes.max(1)) as usize;
    let file = Prewritten::new(&plan.folder.join("bare"), 64 << 20)?;
    let (mut bare, mut engine) = (Rounds::default(), MODES.map(|_| Rounds::default()));
    for _ in 0..plan.rounds {
        bare.0.push(file.round(write_bytes, plan.batches)?);
        for (rounds, (in_flight, _)) in engine.iter_mut().zip(MODES) {
            rounds.0.push(bench.round(batch, plan.batches, in_flight)?);
        }
    }
    bench.stop()?;
    fs::remove_dir_all(&folder)?;
    fs::remove_file(plan.folder.join("bare"))?;
    for (rounds, (_, mode)) in engine.iter().zip(MODES) {
        print(plan, batch, mode, &bare, rounds);
    }
    Ok(())
}

fn print(plan: &Plan, batch: usize, mode: &str, bare: &Rounds, engine: &Rounds) {
    let messages = batch * plan.batches;
    let ((bare_rate, bare_rates), (engine_rate, engine_rates)) = (bare.rates(messages), engine.rates(messages));
    println!(
        "{batch} | {mode} | {bare_rates} | {engine_rates} | {:.2} | {} | {} | {:.2} | {:.2} | {} | {:.3} | {:.3} %",
        engine_rate / bare_rate,
        bare.percentiles(),
        engine.percentiles(),
        bare.cpu_us(messages),
        engine.cpu_us(messages),
        engine.sum(|round| round.log_bytes) / (plan.rounds * messages) as u64,
        engine.sum(|round| round.log_writes) as f64 / (plan.rounds * plan.batches) as f64,
        engine.sum(|round| round.refusals) as f64 * 100.0 / (plan.rounds * messages) as f64,
    );
}

/// CPU time of all threads so far, nanoseconds from the first number that the kernel shows of each: flushes and merges have one of their own.
fn cpu() -> Duration {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let nanoseconds = tasks.filter_map(|task| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_ascii_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanoseconds.sum())
}

/// A file whose blocks exist, for the bare loop.
pub(crate) struct Prewritten {
    file: fs::File,
    bytes: u64,
}

impl Prewritten {
    /// Makes it durable.
    pub(crate) fn new(path: &Path, bytes: u64) -> anyhow::Result<Self> {
        fs::write(path, vec![0; bytes as usize])?;
        fs::File::open(path)?.sync_all()?;
        let flags = libc::O_DIRECT | libc::O_DSYNC;
        let file = OpenOptions::new().write(true).custom_flags(flags).open(path).context("open with O_DIRECT")?;
        Ok(Self { file, bytes })
    }

    /// Writes one after the other, each durable before the next, and begins again at the file's end.
    pub(crate) fn round(&self, write_bytes: usize, batches: usize) -> anyhow::Result<Round> {
        let buffer = AlignedBuffer::zeroed(write_bytes);
        let mut latencies_us = Histogram::new(3)?;
        let mut offset = 0;
        let (begin, cpu_before) = (Instant::now(), cpu());
        for _ in 0..batches {
            if offset + buffer.len() as u64 > self.bytes {
                offset = 0;
            }
            let start = Instant::now();
            self.file.write_all_at(&buffer, offset)?;
            latencies_us.record(start.elapsed().as_micros() as u64)?;
            offset += buffer.len() as u64;
        }
        let (log_bytes, log_writes) = ((buffer.len() * batches) as u64, batches as u64);
        let (elapsed, cpu) = (begin.elapsed(), cpu() - cpu_before);
        Ok(Round { elapsed, cpu, latencies_us, log_bytes, log_writes, refusals: 0 })
    }
}

/// What the bench's thread asks of the shard's.
struct Ask {
    batch: usize,
    batches: usize,
    /// Most batches unanswered.
    in_flight: usize,
    reply: mpsc::Sender<anyhow::Result<Round>>,
}

/// An engine on a shard of its own.
struct EngineBench {
    ask: mpsc::Sender<Ask>,
    waker: Waker,
    thread: std::thread::JoinHandle<Result<(), antiphon_gateway::uring::ShardError>>,
    worker: Worker,
}

impl EngineBench {
    fn start(folder: &Path, plan: &Plan) -> anyhow::Result<Self> {
        let (ask, asked) = mpsc::channel();
        let (ready, opened) = mpsc::channel::<anyhow::Result<()>>();
        let waker = Waker::new()?;
        let (folder, conversations, text_bytes) = (folder.to_owned(), plan.conversations, plan.text_bytes);
        let worker = Worker::start("append-work", |error| eprintln!("{error}"))?;
        let desk = worker.desk();
        let make = move |context: &ShardContext| {
            let engine = Rc::new(RefCell::new(None));
            let files = context.files_of_lane(&folder, desk);
            let (spawner, slot) = (context.spawner().clone(), Rc::clone(&engine));
            let waker = context.waker().clone();
            context.spawner().spawn(Queue::Latency, async move {
                let opened = match files {
                    Ok(files) => {
                        Engine::open(files, SystemClock, OsRandom, EngineOptions::new(0)).await.map_err(Into::into)
                    }
                    Err(error) => Err(anyhow::Error::from(error)),
                };
                match opened {
                    Ok((opened, _)) => {
                        let (commits, maintenance) = (opened.clone(), opened.clone());
                        spawner.spawn(Queue::Latency, async move { commits.run_commits().await });
                        spawner.spawn(Queue::Background, async move { maintenance.run_maintenance().await });
                        slot.replace(Some(opened));
                    }
                    Err(error) => drop(ready.send(Err(error))),
                }
                waker.wake();
            });
            Appender::new(engine, asked, conversations, text_bytes)
        };
        let counters = Arc::new(ShardCounters::default());
        let thread = spawn_shard(ShardConfig::new("append", None), waker.clone(), counters, make)?;
        if let Ok(Err(error)) = opened.recv_timeout(Duration::from_millis(200)) {
            return Err(error);
        }
        Ok(Self { ask, waker, thread, worker })
    }

    fn round(&self, batch: usize, batches: usize, in_flight: usize) -> anyhow::Result<Round> {
        let (reply, replied) = mpsc::channel();
        self.ask.send(Ask { batch, batches, in_flight, reply })?;
        self.waker.wake();
        replied.recv()?
    }

    fn stop(self) -> anyhow::Result<()> {
        self.waker.stop();
        self.thread.join().map_err(|_| anyhow::anyhow!("the shard panicked"))??;
        Ok(self.worker.stop()?)
    }
}

/// A round under way.
struct Running {
    ask: Ask,
    /// Batches to be sent.
    left: usize,
    /// Batches that are not wholly answered, oldest first.
    sent: VecDeque<SentBatch>,
    /// Messages that were refused because flushes are behind, to be sent again: time that counts as the engine's.
    refused: Vec<u64>,
    refusals: u64,
    begin: Instant,
    cpu_before: Duration,
    latencies_us: Histogram<u64>,
    records_before: u64,
    bytes_before: u64,
    writes_before: u64,
}

struct SentBatch {
    first: Token,
    unanswered: usize,
    begin: Instant,
}

/// Sends batch after batch as the shard's handler.
struct Appender {
    engine: Rc<RefCell<Option<NodeEngine>>>,
    asked: mpsc::Receiver<Ask>,
    targets: Vec<(UserId, ConversationId)>,
    to_create: VecDeque<(UserId, UserId)>,
    /// Conversations that are not durable yet: no round begins before.
    uncreated: usize,
    body: Vec<u8>,
    running: Option<Running>,
    sent: u64,
}

impl Appender {
    fn new(
        engine: Rc<RefCell<Option<NodeEngine>>>,
        asked: mpsc::Receiver<Ask>,
        conversations: usize,
        text_bytes: usize,
    ) -> Self {
        let user = |name: String| UserId::new(&name).expect("a short plain name");
        let pairs = (0..conversations).map(|index| (user(format!("from-{index}")), user(format!("to-{index}"))));
        let body = Content::text(&"x".repeat(text_bytes)).0;
        Self {
            engine,
            asked,
            targets: Vec::new(),
            to_create: pairs.collect(),
            uncreated: conversations,
            body,
            running: None,
            sent: 0,
        }
    }

    fn begin(&mut self, engine: &NodeEngine, ask: Ask) {
        let status = engine.status();
        self.running = Some(Running {
            left: ask.batches,
            ask,
            sent: VecDeque::new(),
            refused: Vec::new(),
            refusals: 0,
            begin: Instant::now(),
            cpu_before: cpu(),
            latencies_us: Histogram::new(3).expect("three digits are allowed"),
            records_before: status.records,
            bytes_before: status.batch_bytes,
            writes_before: status.batches,
        });
    }

    /// Sends a batch if it is time for one; whether it will be, as soon as the engine has had its turn.
    fn next_batch(&mut self, engine: &NodeEngine) -> bool {
        let Some(running) = &mut self.running else { return false };
        if !running.refused.is_empty() {
            if engine.status().memtable_sealed_bytes > 0 {
                return true;
            }
            for number in std::mem::take(&mut running.refused) {
                submit(engine, &self.targets, &self.body, number);
            }
        }
        let Some(running) = &mut self.running else { return false };
        if running.left == 0 || running.sent.len() >= running.ask.in_flight {
            return false;
        }
        // A second batch goes in behind a write, not into it.
        if !running.sent.is_empty() && !engine.status().write_in_flight {
            return true;
        }
        running.left -= 1;
        let (first, unanswered) = (Token(self.sent + 1), running.ask.batch);
        running.sent.push_back(SentBatch { first, unanswered, begin: Instant::now() });
        for _ in 0..running.ask.batch {
            self.sent += 1;
            submit(engine, &self.targets, &self.body, self.sent);
        }
        running.ask.in_flight > 1
    }

    fn answered(&mut self, engine: &NodeEngine, token: Token, result: Result<Done, antiphon_engine::door::Refusal>) {
        let Some(running) = &mut self.running else { return };
        if result.as_ref().is_err_and(|refusal| refusal.code == ErrorCode::Overloaded) {
            running.refused.push(token.0);
            running.refusals += 1;
            return;
        }
        if !matches!(result, Ok(Done::Sent { duplicate: false, .. })) {
            let _ = running.ask.reply.send(Err(anyhow::anyhow!("a send was answered with {result:?}")));
            self.running = None;
            return;
        }
        let oldest = running.sent[0].first.0;
        running.sent[(token.0 - oldest) as usize / running.ask.batch].unanswered -= 1;
        while let Some(batch) = running.sent.pop_front_if(|batch| batch.unanswered == 0) {
            running.latencies_us.record(batch.begin.elapsed().as_micros() as u64).expect("less than hours");
        }
        if running.left > 0 || !running.sent.is_empty() {
            return;
        }
        let Some(done) = self.running.take() else { return };
        let status = engine.status();
        let records = status.records - done.records_before;
        let expected = (done.ask.batch * done.ask.batches) as u64;
        let round = Round {
            elapsed: done.begin.elapsed(),
            cpu: cpu() - done.cpu_before,
            latencies_us: done.latencies_us,
            refusals: done.refusals,
            log_bytes: status.batch_bytes - done.bytes_before,
            log_writes: status.batches - done.writes_before,
        };
        let checked = || {
            ensure!(records == expected, "{records} records became durable, {expected} were sent");
            Ok(round)
        };
        let _ = done.ask.reply.send(checked());
    }
}

/// Sends a message; its number names it.
fn submit(engine: &NodeEngine, targets: &[(UserId, ConversationId)], body: &[u8], number: u64) {
    let (user, conversation) = &targets[number as usize % targets.len()];
    let command = Command::Send {
        user: user.clone(),
        conversation: *conversation,
        client_message_id: ClientMessageId::timed(now(), number.into()),
        body: body.to_vec(),
    };
    engine.submit(Token(number), command);
}

impl Handler for Appender {
    fn accepted(&mut self, _: ConnectionKey, _: Origin) {}

    fn received(&mut self, _: ConnectionKey, _: &mut [u8]) {}

    fn sent(&mut self, _: ConnectionKey) {}

    fn closed(&mut self, _: ConnectionKey) {}

    fn turn(&mut self, _: u64) -> Turn {
        let quiet = Turn { more: false, wake_at_ms: None };
        let Some(engine) = self.engine.borrow().clone() else { return quiet };
        // A few at a time: an engine refuses what it cannot queue.
        for (user, peer) in self.to_create.drain(..self.to_create.len().min(64)) {
            self.targets.push((user.clone(), ConversationId::direct(&user, &peer)));
            engine.submit(Token(0), Command::CreateDirect { user, peer });
        }
        while let Some(output) = engine.poll() {
            match output {
                Output::Answer { token: Token(0), result } => {
                    result.expect("a conversation is made");
                    self.uncreated -= 1;
                }
                Output::Answer { token, result } => self.answered(&engine, token, result),
                _ => {}
            }
        }
        if self.running.is_none()
            && self.uncreated == 0
            && let Ok(ask) = self.asked.try_recv()
        {
            self.begin(&engine, ask);
        }
        let more = self.next_batch(&engine);
        Turn { more: more || !self.to_create.is_empty(), ..quiet }
    }

    fn poll_command(&mut self) -> Option<io::Command> {
        None
    }
}
