//! `cargo xtask compare engine`: the log engine beside fjall, redb, LMDB and RocksDB.
//!
//! Every engine is a process of its own that is given the same messages and asked the same (`antiphon-bench-store`).
//! Within a round the engines take turns, in an order that moves by one, so that noise of the machine hits all of them;
//! ratios are made within a round. Every process reads back what it wrote and compares; what is not equal is a failure
//! and no result.

mod bare;
mod ours;
mod programs;
mod table;

use std::{fs, path::PathBuf, time::Instant};

use antiphon_bench_store::{
    Job, Report,
    counters::is_device_shared,
    job::{self, Work},
    rows::row_bytes,
};
use antiphon_engine::seams::PAGE_BYTES;
use anyhow::{Context, ensure};
use serde::Serialize;

use super::{DOCUMENT, peers::Places, table::splice};
use crate::facts::{date, file_system, load_average, revision};
use programs::{Contender, Program};

/// Of the JSON's form.
const VERSION: u32 = 1;

/// Messages of an acknowledged batch while a store is filled.
const LOAD_BATCH: usize = 512;

/// Of what is stored before the pause, this share comes after it, so that there is something in the log when the
/// process is killed.
const TAIL_DIVISOR: u64 = 50;

/// Least and most batches of an append: fewer tell nothing of a percentile, more take long where a disk is slow.
const BATCHES: (usize, usize) = (200, 4_000);

/// Longest text: a page of the check is 200 of them, and our engine's pages end at 256 KiB.
const TEXT_BYTES_MAX: usize = 1_000;

/// Options of `compare engine`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct EngineOptions {
    /// Messages that stores are filled with, for all but appends
    #[arg(long, default_value_t = 1_000_000)]
    messages: u64,
    /// Messages of an append, as far as that makes 200 to 4,000 batches
    #[arg(long, default_value_t = 100_000)]
    append_messages: usize,
    /// Conversations that the messages go to
    #[arg(long, default_value_t = 10_000)]
    conversations: u32,
    /// Bytes of a message's text
    #[arg(long, default_value_t = 200)]
    text_bytes: usize,
    /// Messages in a batch of an append, with commas between
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 64, 512])]
    batch: Vec<usize>,
    /// Pages that are read
    #[arg(long, default_value_t = 2_000)]
    pages: u32,
    /// Rounds; in each, every engine is measured once
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// What is compared, with commas between (without it: all)
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// Which engines, with commas between (without it: all)
    #[arg(long, value_enum, value_delimiter = ',')]
    engines: Vec<Contender>,
    /// Without RocksDB, whose build takes long and needs libclang
    #[arg(long)]
    no_rocksdb: bool,
    /// Where stores are made and removed again; a real disk. on one that nothing else uses, the disk's own count of
    /// writes is right
    #[arg(long, default_value = "target/compare/engine")]
    folder: PathBuf,
    /// Has the kernel drop all its caches before cold pages, not only those of the engine's files. For root; it slows
    /// the whole machine
    #[arg(long)]
    drop_caches: bool,
    /// Decides messages and questions
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// One round with few messages, to see that everything runs; writes no table
    #[arg(long)]
    quick: bool,
    /// Leaves the document as it is
    #[arg(long)]
    no_write: bool,
}

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
enum Part {
    /// Durable batches.
    Append,
    /// The latest page of a conversation, and one from anywhere.
    Read,
    /// Bytes written, space taken.
    Space,
    /// Opening after a kill.
    Reopen,
}

/// The work of one process within a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "step", content = "batch")]
enum Step {
    Append(usize),
    Load,
    Reopen,
    Latest,
    History,
}

/// One engine at one step in one round.
#[derive(Debug, Clone, Serialize)]
struct Sample {
    round: usize,
    engine: Contender,
    #[serde(flatten)]
    step: Step,
    /// None if it failed.
    report: Option<Report>,
    failure: Option<String>,
}

/// What a reader has to know of the figures.
#[derive(Debug, Clone, Serialize)]
struct Header {
    machine: antiphon_tuning::Machine,
    /// Type, device and options of the file system.
    file_system: String,
    /// The root file system lies there, too: others' writes are in the disk's figures.
    device_shared: bool,
    revision: String,
    date: String,
    seed: u64,
    rounds: usize,
    messages: u64,
    conversations: u32,
    text_bytes: usize,
    /// Of a message's row in an engine of rows, key and value.
    row_bytes: usize,
    pages: u32,
    load_average_before: String,
    load_average_after: String,
    engines: Vec<String>,
}

/// Everything, as it is kept beside the tables.
#[derive(Debug, Serialize)]
struct Results {
    version: u32,
    header: Header,
    parts: Vec<Part>,
    samples: Vec<Sample>,
}

/// Options of one engine's process.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct StoreOptions {
    /// `antiphon` or `bare`
    engine: String,
    /// What to do, as JSON
    job: String,
}

/// Is one engine's process.
pub(crate) fn run_store(options: &StoreOptions) -> anyhow::Result<()> {
    match options.engine.as_str() {
        "bare" => bare::run(&serde_json::from_str(&options.job)?),
        _ => antiphon_bench_store::run::<ours::Ours>(&options.job),
    }
}

impl EngineOptions {
    fn has(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    fn contenders(&self) -> Vec<Contender> {
        let chosen = |contender: &Contender| match contender {
            Contender::Bare => self.has(Part::Append) || self.has(Part::Read),
            Contender::Rocksdb if self.no_rocksdb => false,
            contender => self.engines.is_empty() || self.engines.contains(contender),
        };
        Contender::ALL.into_iter().filter(chosen).collect()
    }

    fn steps(&self) -> Vec<Vec<Step>> {
        let mut steps = Vec::new();
        if self.has(Part::Append) {
            steps.extend(self.batch.iter().map(|&batch| vec![Step::Append(batch)]));
        }
        let mut filled = vec![Step::Load];
        if self.has(Part::Reopen) || self.has(Part::Read) {
            filled.push(Step::Reopen);
        }
        if self.has(Part::Read) {
            filled.extend([Step::Latest, Step::History]);
        }
        if filled.len() > 1 || self.has(Part::Space) {
            steps.push(filled);
        }
        steps
    }

    fn batches(&self, batch: usize) -> usize {
        (self.append_messages / batch).clamp(BATCHES.0, BATCHES.1)
    }

    fn check(&self) -> anyhow::Result<()> {
        ensure!(self.rounds > 0 && self.messages > 0 && self.conversations > 0, "there is nothing to measure");
        ensure!(self.batch.iter().all(|&batch| (1..=4_096).contains(&batch)), "a batch has 1 to 4,096 messages");
        ensure!((1..=TEXT_BYTES_MAX).contains(&self.text_bytes), "a text has 1 to {TEXT_BYTES_MAX} bytes");
        ensure!(self.messages <= u64::from(u32::MAX / 2), "a comparison stops at two thousand million messages");
        Ok(())
    }
}

/// Compares, prints the tables, and writes them.
pub(crate) fn compare(mut options: EngineOptions) -> anyhow::Result<()> {
    if options.quick {
        (options.rounds, options.messages, options.append_messages) = (1, 50_000, 2_000);
        (options.conversations, options.pages, options.no_write) = (1_000, 200, true);
    }
    options.check()?;
    let places = Places::new()?;
    options.folder = places.root().join(&options.folder);
    fs::create_dir_all(&options.folder)?;
    let mut programs = Vec::new();
    for contender in options.contenders() {
        programs.push(contender.prepare(&places).with_context(|| contender.name())?);
    }
    let mut header = header(&options, &programs)?;
    println!("seed      {}\nrevision  {}\ndate      {}", header.seed, header.revision, header.date);
    println!("files     {}\nengines   {}", header.file_system, header.engines.join(", "));
    println!("load      {} before\n", header.load_average_before);
    let samples = measure_all(&options, &programs);
    header.load_average_after = load_average()?;
    let parts = [Part::Append, Part::Read, Part::Space, Part::Reopen].into_iter().filter(|&part| options.has(part));
    let results = Results { version: VERSION, header, parts: parts.collect(), samples };
    let text = table::markdown(&results);
    println!("\n{text}");
    let json = places.target().join("engine.json");
    fs::write(&json, serde_json::to_string_pretty(&results)?)?;
    println!("every round: {}", json.display());
    if !options.no_write {
        let path = places.root().join(DOCUMENT);
        let document = fs::read_to_string(&path).with_context(|| DOCUMENT)?;
        fs::write(&path, splice(&document, "engine", &text)?)?;
        println!("written to {DOCUMENT}");
    }
    let failed = results.samples.iter().filter(|sample| sample.report.is_none()).count();
    ensure!(failed == 0, "{failed} measurements failed; the tables say which");
    Ok(())
}

fn header(options: &EngineOptions, programs: &[Program]) -> anyhow::Result<Header> {
    let engines = programs.iter().filter(|program| program.contender != Contender::Bare);
    Ok(Header {
        machine: antiphon_tuning::machine(),
        device_shared: is_device_shared(&options.folder)?,
        file_system: file_system(&options.folder)?,
        revision: revision()?,
        date: date()?,
        seed: options.seed,
        rounds: options.rounds,
        messages: options.messages,
        conversations: options.conversations,
        text_bytes: options.text_bytes,
        row_bytes: row_bytes(options.text_bytes),
        pages: options.pages,
        load_average_before: load_average()?,
        load_average_after: String::new(),
        engines: engines.map(|program| format!("{} {}", program.contender.name(), program.version)).collect(),
    })
}

fn measure_all(options: &EngineOptions, programs: &[Program]) -> Vec<Sample> {
    let mut runs = Vec::new();
    for round in 0..options.rounds {
        for steps in options.steps() {
            let able: Vec<(Vec<Step>, &Program)> = programs
                .iter()
                .map(|program| (program.contender.able(&steps), program))
                .filter(|(steps, _)| !steps.is_empty())
                .collect();
            let order = (0..able.len()).map(|place| &able[(place + round) % able.len()]);
            runs.extend(order.map(|(steps, program)| (round, steps.clone(), *program)));
        }
    }
    let (start, count) = (Instant::now(), runs.len());
    let mut samples: Vec<Sample> = Vec::new();
    for (index, (round, steps, program)) in runs.into_iter().enumerate() {
        let made = measure(options, program, &steps, round, &samples);
        let told: Vec<String> = made.iter().map(tell).collect();
        let left = start.elapsed().mul_f64((count - index - 1) as f64 / (index + 1) as f64);
        println!(
            "[{:>3}/{count}] round {}/{} {}: {}; {:.0} min left",
            index + 1,
            round + 1,
            options.rounds,
            program.contender.name(),
            told.join(", "),
            left.as_secs_f64() / 60.0,
        );
        samples.extend(made);
    }
    samples
}

/// One engine through steps that share a store. What comes after a failure is not tried.
fn measure(options: &EngineOptions, program: &Program, steps: &[Step], round: usize, before: &[Sample]) -> Vec<Sample> {
    let folder = options.folder.join(program.contender.name().replace(' ', "-"));
    let clear = || if folder.exists() { fs::remove_dir_all(&folder) } else { Ok(()) };
    let mut samples = Vec::new();
    let mut failure = clear().err().map(anyhow::Error::from);
    for &step in steps {
        let report = match failure.take() {
            Some(error) => Err(error),
            None => {
                let job = job(options, folder.clone(), step, before);
                if step == Step::Load { program.ask_and_kill(&job) } else { program.ask(&job) }
            }
        };
        let failed = report.as_ref().err().map(|error| format!("{error:#}"));
        failure = failed.as_ref().map(|_| anyhow::anyhow!("an earlier step failed"));
        samples.push(Sample { round, engine: program.contender, step, report: report.ok(), failure: failed });
    }
    // A folder that stays is in the way of the next round, which will say so.
    let _ = clear();
    samples
}

fn job(options: &EngineOptions, folder: PathBuf, step: Step, before: &[Sample]) -> Job {
    let tail = (options.messages / TAIL_DIVISOR).next_multiple_of(LOAD_BATCH as u64);
    let acknowledged = options.messages + tail;
    // Opening after the kill stores one more.
    let read = |latest| Work::Read {
        messages: acknowledged + 1,
        pages: options.pages,
        latest,
        drop_caches: options.drop_caches,
    };
    let work = match step {
        Step::Append(batch) => {
            let write_bytes = write_bytes(before, batch).unwrap_or(batch * row_bytes(options.text_bytes));
            Work::Append { batch, batches: options.batches(batch), write_bytes: whole_pages(write_bytes) }
        }
        Step::Load => Work::Load { messages: options.messages, tail, batch: LOAD_BATCH },
        Step::Reopen => Work::Reopen { messages: acknowledged },
        Step::Latest => read(true),
        Step::History => read(false),
    };
    let (seed, conversations, text_bytes) = (options.seed, options.conversations, options.text_bytes);
    Job { folder, seed, conversations, text_bytes, work }
}

/// The nearest number of whole pages: the average of batches, which are whole pages themselves, lies between two.
fn whole_pages(bytes: usize) -> usize {
    ((bytes + PAGE_BYTES / 2) / PAGE_BYTES).max(1) * PAGE_BYTES
}

/// What our log took for a batch the last time: the bare loop writes as much. In the first round it comes after us.
fn write_bytes(before: &[Sample], batch: usize) -> Option<usize> {
    let ours = |sample: &&Sample| sample.engine == Contender::Antiphon && sample.step == Step::Append(batch);
    match before.iter().rev().find(ours)?.report.as_ref()? {
        Report::Append(append) => Some((append.log_bytes? / append.latencies.count.max(1)) as usize),
        _ => None,
    }
}

/// A sample in a few words.
fn tell(sample: &Sample) -> String {
    let per_second = |messages: u64, latencies: &job::Latencies| messages as f64 / latencies.sum_ns as f64 * 1e9;
    let millis = |ns: u64| ns as f64 / 1e6;
    match (&sample.report, &sample.failure) {
        (Some(Report::Append(append)), _) => {
            let Step::Append(batch) = sample.step else { return String::new() };
            format!("{:.0} messages/s by {batch}", per_second(append.messages, &append.latencies))
        }
        (Some(Report::Load(load)), _) => {
            format!("filled at {:.0} messages/s", per_second(load.messages, &load.latencies))
        }
        (Some(Report::Reopen(reopen)), _) => format!("open after {:.0} ms", millis(reopen.open_ns)),
        (Some(Report::Read(read)), _) => {
            let what = if sample.step == Step::Latest { "latest" } else { "history" };
            format!("{what} {:.3} ms cold, {:.3} ms warm", millis(read.cold.p50_ns), millis(read.warm.p50_ns))
        }
        (None, failure) => format!("FAILED: {}", failure.as_deref().unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Arguments {
        #[command(flatten)]
        engine: EngineOptions,
    }

    fn options(arguments: &str) -> EngineOptions {
        Arguments::try_parse_from(std::iter::once("engine").chain(arguments.split_whitespace())).unwrap().engine
    }

    #[test]
    fn parts_decide_steps() {
        let check = |arguments: &str, expect: &[&[Step]]| assert_eq!(options(arguments).steps(), expect, "{arguments}");
        check("--only append --batch 1,64", &[&[Step::Append(1)], &[Step::Append(64)]]);
        check("--only space", &[&[Step::Load]]);
        check("--only reopen", &[&[Step::Load, Step::Reopen]]);
        let filled = [Step::Load, Step::Reopen, Step::Latest, Step::History];
        check("--only read,space", &[&filled]);
        check("--batch 8", &[&[Step::Append(8)], &filled]);
    }

    #[test]
    fn the_bare_loop_does_what_it_can() {
        let check = |steps: &[Step], expect: &[Step]| {
            assert_eq!(Contender::Bare.able(steps), expect);
            assert_eq!(Contender::Fjall.able(steps), steps);
        };
        check(&[Step::Append(8)], &[Step::Append(8)]);
        check(&[Step::Load, Step::Reopen, Step::Latest, Step::History], &[Step::Latest]);
        check(&[Step::Load, Step::Reopen], &[]);
    }

    #[test]
    fn engines_are_chosen() {
        let check =
            |arguments: &str, expect: &[Contender]| assert_eq!(options(arguments).contenders(), expect, "{arguments}");
        check("", &Contender::ALL);
        check("--engines antiphon,lmdb", &[Contender::Antiphon, Contender::Lmdb, Contender::Bare]);
        check("--engines antiphon,rocksdb --no-rocksdb --only read", &[Contender::Antiphon, Contender::Bare]);
        check("--engines antiphon --only space,reopen", &[Contender::Antiphon]);
        assert!(Arguments::try_parse_from(["engine", "--engines", "bare"]).is_err(), "it is no engine");
    }

    #[test]
    fn options_that_make_no_sense_are_refused() {
        assert!(options("").check().is_ok());
        for bad in ["--rounds 0", "--messages 0", "--batch 0", "--batch 5000", "--text-bytes 5000", "--text-bytes 0"] {
            assert!(options(bad).check().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_bare_loop_writes_what_our_log_did() {
        let latencies = job::Latencies { count: 10, ..job::Latencies::default() };
        let usage = job::Usage::default();
        let append = job::Append { messages: 640, latencies, usage, log_bytes: Some(204_800), checked: 704 };
        let sample = |engine, batch| Sample {
            round: 0,
            engine,
            step: Step::Append(batch),
            report: Some(Report::Append(append.clone())),
            failure: None,
        };
        let samples = [sample(Contender::Antiphon, 64), sample(Contender::Fjall, 64), sample(Contender::Antiphon, 8)];
        assert_eq!(write_bytes(&samples, 64), Some(20_480));
        assert_eq!(write_bytes(&samples, 512), None);
        let job = job(&options(""), "x".into(), Step::Append(512), &samples);
        let Work::Append { write_bytes, batches, .. } = job.work else { panic!("{job:?}") };
        assert_eq!((write_bytes, batches), (512 * 256, 200));
        assert_eq!([1, 4_096, 20_500, 22_600].map(whole_pages), [4_096, 4_096, 20_480, 24_576]);
    }
}
