//! The bare loop as one of those compared: as many bytes as our engine's log takes for a batch, padded to whole pages,
//! written one after the other to a pre-written file opened `O_DIRECT | O_DSYNC`. It is what the disk gives; it keeps
//! nothing that could be read.

use antiphon_bench_store::{
    Job, Report,
    counters::Meter,
    job::{Append, Latencies, Work},
};
use anyhow::bail;

use crate::append::Prewritten;

/// Bytes of the file, which is written again and again: a log file's of our engine.
const FILE_BYTES: u64 = 64 << 20;

/// Carries out the only job that it can.
pub(super) fn run(job: &Job) -> anyhow::Result<()> {
    let Work::Append { batch, batches, write_bytes } = job.work else { bail!("a bare loop only appends") };
    std::fs::create_dir_all(&job.folder)?;
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
