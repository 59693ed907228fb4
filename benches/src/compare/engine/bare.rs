//! The bare loop as one of those compared: what the disk gives. It keeps nothing that could be read.
//!
//! - *Append*: as many bytes as our engine's log takes for a batch, padded to whole pages, written one after the other
//!   to a pre-written file opened `O_DIRECT | O_DSYNC`.
//! - *Read*: blocks of our engine's size from anywhere in a file, one after the other, past the page cache.

use std::{
    fs,
    os::unix::fs::{FileExt, OpenOptionsExt},
    time::Instant,
};

use antiphon_bench_store::{
    Job, Report,
    counters::{Meter, forget, resident_peak_bytes},
    job::{Append, Latencies, Read, Work},
    summary,
};
use antiphon_engine::seams::AlignedBuffer;
use antiphon_loadgen::random::Random;
use anyhow::{Context, bail, ensure};

use crate::append::Prewritten;

/// Bytes of a read: a block of our engine's segments, which a page of history is one of.
const BLOCK_BYTES: usize = 16 << 10;

/// Bytes of the file that is read, for each message of a store: about what ours takes.
const MESSAGE_BYTES: u64 = 128;

/// The least and the most of it: beyond that a disk behaves no differently.
const READ_FILE_BYTES: (u64, u64) = (64 << 20, 512 << 20);

/// Bytes of the file, which is written again and again: a log file's of our engine.
const FILE_BYTES: u64 = 64 << 20;

/// Carries out one of the two jobs that it can.
pub(super) fn run(job: &Job) -> anyhow::Result<()> {
    fs::create_dir_all(&job.folder)?;
    match job.work {
        Work::Append { batch, batches, write_bytes } => append(job, batch, batches, write_bytes),
        Work::Read { messages, pages, .. } => read(job, messages, pages),
        _ => bail!("a bare loop only appends and reads"),
    }
}

/// Blocks at places by chance; then the same ones again, as others do, though nothing keeps them here.
fn read(job: &Job, messages: u64, pages: u32) -> anyhow::Result<()> {
    let path = job.folder.join("bare");
    let bytes = (messages * MESSAGE_BYTES).clamp(READ_FILE_BYTES.0, READ_FILE_BYTES.1);
    // No zeros: a virtual disk may keep those by not keeping them.
    fs::write(&path, vec![0x5a; bytes as usize])?;
    let file = fs::File::open(&path)?;
    file.sync_all()?;
    forget(&job.folder, false)?;
    let file = fs::OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(&path).context("O_DIRECT")?;
    let pass = || {
        let mut random = Random::new(job.seed, 0);
        let mut buffer = AlignedBuffer::zeroed(BLOCK_BYTES);
        let mut took = Vec::with_capacity(pages as usize);
        let meter = Meter::start(&job.folder)?;
        for _ in 0..pages {
            let offset = random.below(bytes / BLOCK_BYTES as u64) * BLOCK_BYTES as u64;
            let begin = Instant::now();
            file.read_exact_at(&mut buffer, offset)?;
            took.push(begin.elapsed());
            ensure!(buffer.iter().all(|byte| *byte == 0x5a), "what was read is not what was written");
        }
        Ok::<_, anyhow::Error>((summary(&mut took), meter.usage()?))
    };
    let (cold, cold_usage) = pass()?;
    let (warm, warm_usage) = pass()?;
    let (checked, resident_peak_bytes) = (0, resident_peak_bytes()?);
    antiphon_bench_store::report(&Report::Read(Read {
        cold,
        cold_usage,
        warm,
        warm_usage,
        checked,
        resident_peak_bytes,
    }))
}

fn append(job: &Job, batch: usize, batches: usize, write_bytes: usize) -> anyhow::Result<()> {
    let file = Prewritten::new(&job.folder.join("bare"), FILE_BYTES)?;
    file.round(write_bytes, batches / 10)?;
    let meter = Meter::start(&job.folder)?;
    let round = file.round(write_bytes, batches)?;
    let usage = meter.usage()?;
    let microseconds = |quantile| round.latencies_us.value_at_quantile(quantile) * 1_000;
    let latencies = Latencies {
        count: batches as u64,
        sum_ns: u64::try_from(round.elapsed.as_nanos())?,
        p50_ns: microseconds(0.5),
        p99_ns: microseconds(0.99),
        max_ns: microseconds(1.0),
    };
    let log_bytes = Some(round.log_bytes);
    antiphon_bench_store::report(&Report::Append(Append {
        messages: (batch * batches) as u64,
        latencies,
        usage,
        log_bytes,
        checked: 0,
    }))
}
