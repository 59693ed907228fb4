//! Durable append: messages through the engine on the node's own ring, against a bare loop that writes as many bytes to a pre-written
//! file opened `O_DIRECT | O_DSYNC`. Both wait for one batch before they begin the next, and take turns round by round.
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
    core::io::{self, ConnectionKey, Handler, Turn},
    uring::{NodeFiles, OsRandom, Queue, ShardConfig, ShardContext, ShardCounters, SystemClock, Waker, spawn_shard},
};
use antiphon_wire::{
    frame::Content,
    ids::{ClientMessageId, ConversationId, UserId},
};
use anyhow::{Context, ensure};
use hdrhistogram::Histogram;

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

/// One round's result.
#[derive(Debug)]
struct Round {
    elapsed: Duration,
    latencies_us: Histogram<u64>,
    log_bytes: u64,
    log_writes: u64,
}

/// Runs all batch sizes and prints a table.
pub(crate) fn run(plan: &Plan, batch_sizes: &[usize]) -> anyhow::Result<()> {
    fs::create_dir_all(&plan.folder)?;
    println!(
        "append    {} rounds of {} batches, texts of {} bytes, {} conversations",
        plan.rounds, plan.batches, plan.text_bytes, plan.conversations
    );
    println!(
        "batch | bare msg/s (min-max) | engine msg/s (min-max) | ratio | bare p50/p99 us | engine p50/p99 us | log bytes a message"
    );
    for &batch in batch_sizes {
        compare(plan, batch)?;
    }
    Ok(())
}

fn compare(plan: &Plan, batch: usize) -> anyhow::Result<()> {
    let folder = plan.folder.join(format!("lane-{batch}"));
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    let bench = EngineBench::start(&folder, plan)?;
    // The first round warms both sides and tells how many bytes a batch is in the log.
    let warm = bench.round(batch, plan.batches / 4 + 1)?;
    let write_bytes = (warm.log_bytes / warm.log_writes.max(1)) as usize;
    let file = Prewritten::new(&plan.folder.join("bare"), 64 << 20)?;
    let (mut bare, mut engine) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        bare.push(file.round(write_bytes, plan.batches)?);
        engine.push(bench.round(batch, plan.batches)?);
    }
    bench.stop()?;
    fs::remove_dir_all(&folder)?;
    fs::remove_file(plan.folder.join("bare"))?;
    let rate = |round: &Round| (batch * plan.batches) as f64 / round.elapsed.as_secs_f64();
    let (bare_rates, engine_rates) = (sorted(bare.iter().map(rate)), sorted(engine.iter().map(rate)));
    let median = |rates: &[f64]| rates[rates.len() / 2];
    let percentiles = |rounds: &[Round]| {
        let mut all = Histogram::<u64>::new(3).expect("three digits are allowed");
        rounds.iter().for_each(|round| all.add(&round.latencies_us).expect("the same precision"));
        format!("{} / {}", all.value_at_quantile(0.5), all.value_at_quantile(0.99))
    };
    let log_bytes: u64 = engine.iter().map(|round| round.log_bytes).sum();
    println!(
        "{batch} | {:.0} ({:.0}-{:.0}) | {:.0} ({:.0}-{:.0}) | {:.2} | {} | {} | {}",
        median(&bare_rates),
        bare_rates[0],
        bare_rates[plan.rounds - 1],
        median(&engine_rates),
        engine_rates[0],
        engine_rates[plan.rounds - 1],
        median(&engine_rates) / median(&bare_rates),
        percentiles(&bare),
        percentiles(&engine),
        log_bytes / (plan.rounds * plan.batches * batch) as u64,
    );
    Ok(())
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// A file whose blocks exist, for the bare loop.
struct Prewritten {
    file: fs::File,
    bytes: u64,
}

impl Prewritten {
    fn new(path: &Path, bytes: u64) -> anyhow::Result<Self> {
        fs::write(path, vec![0; bytes as usize])?;
        fs::File::open(path)?.sync_all()?;
        let flags = libc::O_DIRECT | libc::O_DSYNC;
        let file = OpenOptions::new().write(true).custom_flags(flags).open(path).context("open with O_DIRECT")?;
        Ok(Self { file, bytes })
    }

    fn round(&self, write_bytes: usize, batches: usize) -> anyhow::Result<Round> {
        let buffer = AlignedBuffer::zeroed(write_bytes);
        let mut latencies_us = Histogram::new(3)?;
        let mut offset = 0;
        let begin = Instant::now();
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
        Ok(Round { elapsed: begin.elapsed(), latencies_us, log_bytes, log_writes })
    }
}

/// What the bench's thread asks of the shard's.
struct Ask {
    batch: usize,
    batches: usize,
    reply: mpsc::Sender<anyhow::Result<Round>>,
}

/// An engine on a shard of its own.
struct EngineBench {
    ask: mpsc::Sender<Ask>,
    waker: Waker,
    thread: std::thread::JoinHandle<Result<(), antiphon_gateway::uring::ShardError>>,
}

impl EngineBench {
    fn start(folder: &Path, plan: &Plan) -> anyhow::Result<Self> {
        let (ask, asked) = mpsc::channel();
        let (ready, opened) = mpsc::channel::<anyhow::Result<()>>();
        let waker = Waker::new()?;
        let (folder, conversations, text_bytes) = (folder.to_owned(), plan.conversations, plan.text_bytes);
        let make = move |context: &ShardContext| {
            let engine = Rc::new(RefCell::new(None));
            let (spawner, slot, files) = (context.spawner().clone(), Rc::clone(&engine), context.files(&folder));
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
        Ok(Self { ask, waker, thread })
    }

    fn round(&self, batch: usize, batches: usize) -> anyhow::Result<Round> {
        let (reply, replied) = mpsc::channel();
        self.ask.send(Ask { batch, batches, reply })?;
        self.waker.wake();
        replied.recv()?
    }

    fn stop(self) -> anyhow::Result<()> {
        self.waker.stop();
        Ok(self.thread.join().map_err(|_| anyhow::anyhow!("the shard panicked"))??)
    }
}

/// A round under way.
struct Running {
    ask: Ask,
    left: usize,
    unanswered: usize,
    begin: Instant,
    batch_begin: Instant,
    latencies_us: Histogram<u64>,
    records_before: u64,
    bytes_before: u64,
    writes_before: u64,
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
            unanswered: 0,
            begin: Instant::now(),
            batch_begin: Instant::now(),
            latencies_us: Histogram::new(3).expect("three digits are allowed"),
            records_before: status.records,
            bytes_before: status.batch_bytes,
            writes_before: status.batches,
        });
        self.next_batch(engine);
    }

    fn next_batch(&mut self, engine: &NodeEngine) {
        let Some(running) = &mut self.running else { return };
        running.batch_begin = Instant::now();
        running.left -= 1;
        running.unanswered = running.ask.batch;
        for _ in 0..running.ask.batch {
            let (user, conversation) = &self.targets[self.sent as usize % self.targets.len()];
            let mut id = [0; 16];
            id[..8].copy_from_slice(&self.sent.to_le_bytes());
            self.sent += 1;
            let command = Command::Send {
                user: user.clone(),
                conversation: *conversation,
                client_message_id: ClientMessageId(id),
                body: self.body.clone(),
            };
            engine.submit(Token(self.sent), command);
        }
    }

    fn answered(&mut self, engine: &NodeEngine, result: Result<Done, antiphon_engine::door::Refusal>) {
        let Some(running) = &mut self.running else { return };
        if !matches!(result, Ok(Done::Sent { duplicate: false, .. })) {
            let _ = running.ask.reply.send(Err(anyhow::anyhow!("a send was answered with {result:?}")));
            self.running = None;
            return;
        }
        running.unanswered -= 1;
        if running.unanswered > 0 {
            return;
        }
        running.latencies_us.record(running.batch_begin.elapsed().as_micros() as u64).expect("less than hours");
        if running.left > 0 {
            return self.next_batch(engine);
        }
        let Some(done) = self.running.take() else { return };
        let status = engine.status();
        let records = status.records - done.records_before;
        let expected = (done.ask.batch * done.ask.batches) as u64;
        let round = Round {
            elapsed: done.begin.elapsed(),
            latencies_us: done.latencies_us,
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

impl Handler for Appender {
    fn accepted(&mut self, _: ConnectionKey) {}

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
                Output::Answer { result, .. } => self.answered(&engine, result),
                _ => {}
            }
        }
        if self.running.is_none()
            && self.uncreated == 0
            && let Ok(ask) = self.asked.try_recv()
        {
            self.begin(&engine, ask);
        }
        Turn { more: !self.to_create.is_empty(), ..quiet }
    }

    fn poll_command(&mut self) -> Option<io::Command> {
        None
    }
}
