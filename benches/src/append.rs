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
    collections::VecDeque,
    fs::{self, OpenOptions},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use antiphon_engine::{
    Status,
    door::{Command, Done, Refusal, Token},
    seams::AlignedBuffer,
};
use antiphon_wire::{codes::ErrorCode, frame::Content, ids::ClientMessageId};
use anyhow::{Context, ensure};
use hdrhistogram::Histogram;

use crate::lane::{Lane, LaneOptions, NodeEngine, People, Reply, Step, Task, now, unexpected};

/// What is measured.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) folder: PathBuf,
    pub(crate) batches: usize,
    pub(crate) rounds: usize,
    pub(crate) text_bytes: usize,
    pub(crate) conversations: u32,
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
    let mut bench = EngineBench::start(folder, &plan)?;
    // The first round goes to a store that holds nothing but conversations.
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
    let mut bench = EngineBench::start(&folder, plan)?;
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

/// An engine that is given batches.
struct EngineBench {
    lane: Lane,
    body: Arc<[u8]>,
    /// Messages sent so far.
    sent: u64,
}

impl EngineBench {
    fn start(folder: &Path, plan: &Plan) -> anyhow::Result<Self> {
        let lane = Lane::open(folder, &LaneOptions::new(plan.conversations))?;
        let body = Content::text(&"x".repeat(plan.text_bytes)).0.into();
        Ok(Self { lane, body, sent: 0 })
    }

    /// So many batches, of which so many may be unanswered.
    fn round(&mut self, batch: usize, batches: usize, in_flight: usize) -> anyhow::Result<Round> {
        let (body, sent) = (Arc::clone(&self.body), self.sent);
        self.sent += (batch * batches) as u64;
        self.lane.run(|reply| {
            Box::new(Batches {
                batch,
                left: batches,
                in_flight,
                body,
                sent,
                unanswered: VecDeque::new(),
                refused: Vec::new(),
                begun: None,
                round: None,
                reply,
            })
        })
    }

    fn stop(self) -> anyhow::Result<()> {
        self.lane.close()
    }
}

/// A round under way: sends batch after batch.
struct Batches {
    batch: usize,
    /// Batches to be sent.
    left: usize,
    /// Most batches unanswered.
    in_flight: usize,
    body: Arc<[u8]>,
    /// The number of the last message that was sent: each has one of its own.
    sent: u64,
    /// Batches that are not wholly answered, oldest first.
    unanswered: VecDeque<SentBatch>,
    /// Messages that were refused because flushes are behind, to be sent again: time that counts as the engine's.
    refused: Vec<u64>,
    begun: Option<Begun>,
    /// What came of it, when the last message was answered.
    round: Option<Round>,
    reply: Reply<Round>,
}

struct SentBatch {
    first: u64,
    unanswered: usize,
    begin: Instant,
}

/// How it was at the beginning, and what was counted since.
struct Begun {
    at: Instant,
    cpu: Duration,
    status: Status,
    messages: u64,
    refusals: u64,
    latencies_us: Histogram<u64>,
}

impl Batches {
    /// Sends a message; its number names it.
    fn submit(&self, engine: &NodeEngine, people: &mut People, number: u64) {
        let target = people.of((number % u64::from(people.conversations())) as u32);
        let [user, _] = target.members;
        let command = Command::Send {
            user,
            conversation: target.conversation,
            client_message_id: ClientMessageId::timed(now(), number.into()),
            body: self.body.to_vec(),
        };
        engine.submit(Token(number), command);
    }

    /// The last message was answered.
    fn end(&mut self, engine: &NodeEngine) -> anyhow::Result<()> {
        let Some(begun) = self.begun.take() else { return Ok(()) };
        let (elapsed, cpu, status) = (begun.at.elapsed(), cpu() - begun.cpu, engine.status());
        let (records, expected) = (status.records - begun.status.records, begun.messages);
        ensure!(records == expected, "{records} records became durable, {expected} were sent");
        self.round = Some(Round {
            elapsed,
            cpu,
            latencies_us: begun.latencies_us,
            refusals: begun.refusals,
            log_bytes: status.batch_bytes - begun.status.batch_bytes,
            log_writes: status.batches - begun.status.batches,
        });
        Ok(())
    }
}

impl Task for Batches {
    fn step(&mut self, engine: &NodeEngine, people: &mut People) -> anyhow::Result<Step> {
        if self.round.is_some() {
            return Ok(Step::Done);
        }
        if self.begun.is_none() {
            self.begun = Some(Begun {
                at: Instant::now(),
                cpu: cpu(),
                status: engine.status(),
                messages: (self.batch * self.left) as u64,
                refusals: 0,
                latencies_us: Histogram::new(3)?,
            });
        }
        if !self.refused.is_empty() {
            if engine.status().memtable_sealed_bytes > 0 {
                return Ok(Step::Look);
            }
            for number in std::mem::take(&mut self.refused) {
                self.submit(engine, people, number);
            }
        }
        if self.left == 0 || self.unanswered.len() >= self.in_flight {
            return Ok(Step::Wait);
        }
        // A second batch goes in behind a write, not into it.
        if !self.unanswered.is_empty() && !engine.status().write_in_flight {
            return Ok(Step::Look);
        }
        self.left -= 1;
        let (first, unanswered) = (self.sent + 1, self.batch);
        self.unanswered.push_back(SentBatch { first, unanswered, begin: Instant::now() });
        for _ in 0..self.batch {
            self.sent += 1;
            self.submit(engine, people, self.sent);
        }
        // The ring has its turn before the next.
        Ok(if self.in_flight > 1 { Step::Look } else { Step::Turn })
    }

    fn answered(&mut self, engine: &NodeEngine, token: Token, result: Result<Done, Refusal>) -> anyhow::Result<()> {
        let Some(begun) = &mut self.begun else { return Ok(()) };
        if result.as_ref().is_err_and(|refusal| refusal.code == ErrorCode::Overloaded) {
            self.refused.push(token.0);
            begun.refusals += 1;
            return Ok(());
        }
        if !matches!(result, Ok(Done::Sent { duplicate: false, .. })) {
            return Err(unexpected(&result));
        }
        let oldest = self.unanswered.front().context("a message was answered that was not sent")?.first;
        let batch = self.unanswered.get_mut((token.0 - oldest) as usize / self.batch);
        batch.context("a message was answered that was not sent")?.unanswered -= 1;
        while let Some(batch) = self.unanswered.pop_front_if(|batch| batch.unanswered == 0) {
            begun.latencies_us.record(batch.begin.elapsed().as_micros() as u64)?;
        }
        if self.left == 0 && self.unanswered.is_empty() { self.end(engine) } else { Ok(()) }
    }

    fn finish(self: Box<Self>, _: &NodeEngine, outcome: anyhow::Result<()>) {
        let Self { round, reply, .. } = *self;
        // Who waits may be gone.
        drop(reply.send(outcome.and_then(|()| round.context("it ended before its last answer"))));
    }
}
