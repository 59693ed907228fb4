//! `cargo xtask bench steady`: minutes of appends while flushes and merges go on.
//!
//! First a closed load, as much as goes; then, on a new store, an open one at a share of what the first made. For each:
//! the rate by minute against the first, percentiles, the longest pause, what was written by whom, and what the
//! messages take on the disk beyond their texts compressed alone. At the end everything is read back.

use std::{sync::Arc, time::Duration};

use antiphon_bench_store::{counters::space as folder_space, rows::row_bytes};
use antiphon_loadgen::{progress::Progress, report::plots};
use anyhow::ensure;
use serde::Serialize;

use super::{
    COLUMNS, Common, SETTLE_MAX,
    appends::Appends,
    load::{self, Outcome, Told, Until},
    mebibytes,
    messages::Messages,
    panels,
    record::Summary,
    remove, row,
    verify::{Expected, Verified, verify},
};
use crate::{
    compare::table::grouped,
    facts::Header,
    lane::{By, Lane},
};

/// Options of `bench steady`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// How long each load goes on
    #[arg(long, default_value_t = 600.0)]
    seconds: f64,
    /// Which loads, with commas between (without it: both)
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Kind>,
    /// Messages unanswered in the closed load
    #[arg(long, default_value_t = 128)]
    in_flight: usize,
    /// Of what the closed load made, the open one gives this share
    #[arg(long, default_value_t = 0.7)]
    share: f64,
    /// Messages a second of the open load instead
    #[arg(long)]
    rate: Option<f64>,
    /// Conversations that the messages go to
    #[arg(long, default_value_t = 10_000)]
    conversations: u32,
    /// Bytes of a message's text
    #[arg(long, default_value_t = 200)]
    text_bytes: usize,
}

/// A load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
enum Kind {
    /// The next message with an answer.
    Closed,
    /// Messages at their times.
    Open,
}

/// How long the closed load goes on if it is only to tell the most that goes.
const PROBE_SECONDS: f64 = 20.0;

/// Conversations whose texts are compressed alone.
const SAMPLE: u32 = 64;

/// Bytes of a block, as the engine's.
const BLOCK_BYTES: usize = 16 * 1024;

/// What was written, in bytes for each message.
#[derive(Debug, Clone, Copy, Serialize)]
struct Written {
    log: f64,
    flush: f64,
    merge: f64,
    /// First writings of log files, which are bounded whatever is stored, and the manifest.
    upkeep: f64,
    /// By the kernel's count of the process.
    process: f64,
}

impl Written {
    fn all(self) -> f64 {
        self.log + self.flush + self.merge + self.upkeep
    }
}

/// What the messages take at the end.
#[derive(Debug, Clone, Copy, Serialize)]
struct Space {
    /// Bytes of segments for each message in them.
    segments: f64,
    /// Of a text compressed with its neighbours alone.
    compressed_text: f64,
    log_bytes: u64,
    flushes: u64,
    merges: u64,
    segments_count: usize,
}

/// One load's result.
#[derive(Debug, Clone, Serialize)]
struct Phase {
    kind: Kind,
    rate_offered: Option<f64>,
    elapsed_s: f64,
    /// It ended before its time, because the disk was nearly full.
    cut_short: bool,
    appends: Summary,
    minutes: Vec<f64>,
    cpu_us_a_message: f64,
    waited_share: f64,
    written: Written,
    space: Space,
    settled_after_s: f64,
    verified: Verified,
}

#[derive(Debug, Serialize)]
struct Results {
    version: u32,
    header: Header,
    conversations: u32,
    text_bytes: usize,
    row_bytes: usize,
    in_flight: usize,
    phases: Vec<Phase>,
}

/// Measures, and prints.
pub(crate) fn run(mut options: Options) -> anyhow::Result<()> {
    if options.common.quick {
        (options.seconds, options.conversations, options.in_flight) = (1.0, 200, 64);
    }
    ensure!(options.seconds > 0.0 && options.in_flight > 0 && options.conversations > 0, "there is nothing to measure");
    ensure!((0.01..=1.0).contains(&options.share), "--share is a part of what goes");
    let header = options.common.header("steady")?;
    let mut bench = Bench {
        messages: Arc::new(Messages::new(options.common.seed, options.conversations, options.text_bytes)),
        options,
        progress: Progress::new(),
    };
    let mut phases = Vec::new();
    if bench.has(Kind::Closed) {
        phases.push(bench.closed(bench.options.seconds)?);
    }
    if bench.has(Kind::Open) {
        let rate = match (bench.options.rate, phases.first()) {
            (Some(rate), _) => rate,
            (None, Some(closed)) => bench.options.share * closed.appends.count as f64 / closed.elapsed_s,
            (None, None) => {
                let probe = bench.closed(PROBE_SECONDS.min(bench.options.seconds))?;
                bench.options.share * probe.appends.count as f64 / probe.elapsed_s
            }
        };
        phases.push(bench.open(rate)?);
    }
    bench.progress.finish();
    let Bench { options, .. } = bench;
    let results = Results {
        version: 1,
        header: header.ended()?,
        conversations: options.conversations,
        text_bytes: options.text_bytes,
        row_bytes: row_bytes(options.text_bytes),
        in_flight: options.in_flight,
        phases,
    };
    print(&results);
    let mut all = Vec::new();
    for phase in &results.phases {
        all.extend(panels(name(phase.kind), &phase.appends)?);
    }
    options.common.write("steady", &results, Some(plots::picture("Appends while merges run", &all)))
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Closed => "closed",
        Kind::Open => "open",
    }
}

struct Bench {
    options: Options,
    messages: Arc<Messages>,
    progress: Progress,
}

impl Bench {
    fn has(&self, kind: Kind) -> bool {
        self.options.only.is_empty() || self.options.only.contains(&kind)
    }

    fn closed(&mut self, seconds: f64) -> anyhow::Result<Phase> {
        self.phase(Kind::Closed, None, seconds)
    }

    fn open(&mut self, rate: f64) -> anyhow::Result<Phase> {
        self.phase(Kind::Open, Some(rate), self.options.seconds)
    }

    fn phase(&mut self, kind: Kind, rate: Option<f64>, seconds: f64) -> anyhow::Result<Phase> {
        let folder = self.options.common.store(name(kind))?;
        let lane = Lane::open(&folder, &self.options.common.lane(self.options.conversations))?;
        let before = lane.status()?.records;
        let workload = Appends { messages: Arc::clone(&self.messages), next: 0 };
        let text = match rate {
            None => format!("closed load, {} in flight, {seconds} s", self.options.in_flight),
            Some(rate) => format!("open load, {rate:.0} a second, {seconds} s"),
        };
        let told = Told::new(&mut self.progress, &text);
        let mut outcome = match rate {
            None => {
                let until = Until::Elapsed(Duration::from_secs_f64(seconds));
                load::closed(&lane, &folder, workload, "append", self.options.in_flight, until, told)?
            }
            Some(rate) => {
                load::open(&lane, &folder, workload, &[("append", rate)], seconds, self.options.common.seed, told)?
            }
        };
        let count = outcome.workload.next;
        ensure!(
            count > 0 && outcome.status.records - before == count,
            "{count} messages made other than so many records"
        );
        self.progress.phase("until flushes and merges are done");
        let settled = lane.settle(self.options.common.quiet(), SETTLE_MAX)?;
        let written = written(&lane, &outcome, count);
        let space = space(&lane, &folder, &self.messages, count)?;
        let expected = Expected { messages: Arc::clone(&self.messages), streams: vec![count], others: false };
        let verified = verify(&lane, &expected, &mut self.progress)?;
        lane.close()?;
        remove(&folder)?;
        let appends = outcome.kinds.remove(0);
        Ok(Phase {
            kind,
            rate_offered: rate,
            elapsed_s: outcome.elapsed.as_secs_f64(),
            cut_short: outcome.cut_short,
            minutes: appends.minutes(),
            appends,
            cpu_us_a_message: outcome.usage.cpu_ns as f64 / count as f64 / 1e3,
            waited_share: outcome.usage.waited_ns as f64 / outcome.elapsed.as_nanos() as f64,
            written,
            space,
            settled_after_s: settled.as_secs_f64(),
            verified,
        })
    }
}

/// By the engine's own files, when it has come to rest.
fn written(lane: &Lane, outcome: &Outcome<Appends>, count: u64) -> Written {
    let [log, flush, merge, upkeep] = By::WRITERS.map(|by| lane.traffic().written_by(by) as f64 / count as f64);
    Written { log, flush, merge, upkeep, process: outcome.usage.write_bytes as f64 / count as f64 }
}

fn space(lane: &Lane, folder: &std::path::Path, messages: &Messages, count: u64) -> anyhow::Result<Space> {
    let status = lane.status()?;
    let files = folder_space(folder, |name| name.starts_with("log-"))?;
    // Positions count records: what is not a message are the conversations' first entries, which are small and few.
    let in_segments = status.flushed_position.0.saturating_sub(messages.conversations().into());
    Ok(Space {
        segments: if in_segments == 0 { 0.0 } else { status.segment_bytes as f64 / in_segments as f64 },
        compressed_text: compressed_text(messages, count)?,
        log_bytes: files.log_bytes,
        flushes: status.flushes,
        merges: status.compactions,
        segments_count: status.segments,
    })
}

/// Bytes of a text when those of a conversation are compressed with each other and nothing else, in blocks and at the
/// level that the engine has.
fn compressed_text(messages: &Messages, count: u64) -> anyhow::Result<f64> {
    let mut texts = vec![Vec::new(); SAMPLE.min(messages.conversations()) as usize];
    let mut texts_count = 0_u64;
    for number in 0..count {
        if let Some(text) = texts.get_mut(messages.conversation(number) as usize) {
            text.extend_from_slice(messages.text(number).as_bytes());
            texts_count += 1;
        }
    }
    let mut bytes = 0;
    for block in texts.iter().flat_map(|text| text.chunks(BLOCK_BYTES)) {
        bytes += zstd::bulk::compress(block, 1)?.len();
    }
    Ok(bytes as f64 / texts_count.max(1) as f64)
}

fn print(results: &Results) {
    println!(
        "{} conversations, texts of {} bytes, {} in flight in the closed load\n\n{COLUMNS}",
        grouped(f64::from(results.conversations)),
        results.text_bytes,
        results.in_flight
    );
    for phase in &results.phases {
        println!("{}", row(name(phase.kind), &phase.appends, Duration::from_secs_f64(phase.elapsed_s)));
    }
    for phase in &results.phases {
        let minutes: Vec<String> = phase.minutes.iter().map(|rate| grouped(*rate)).collect();
        let first = phase.minutes.first().copied().unwrap_or_default().max(1.0);
        let least = phase.minutes.iter().copied().fold(f64::INFINITY, f64::min);
        let (written, space, row) = (phase.written, phase.space, results.row_bytes as f64);
        println!(
            "\n{}{}\n  by minute           {} a second\n  to the first        last {:.3}, least {:.3}\n  \
             CPU                 {:.2} µs a message; threads waited for a core {:.0} % of the time\n  \
             written a message   log {:.0} B, flush {:.0} B, merge {:.0} B, the rest {:.0} B; \
             by the kernel while loaded {:.0} B\n  \
             to a row of {} B    {:.2} × in all, {:.2} × beyond the log\n  \
             on the disk         {:.1} B a message in segments, {:.1} B of them beyond its text compressed alone \
             ({:.1} B); log {}\n  \
             flushes, merges     {}, {}; {} segments; at rest {:.1} s later\n  \
             read back           {} messages, each once and as it was sent",
            name(phase.kind),
            if phase.cut_short { ", ended before its time: the disk is nearly full" } else { "" },
            minutes.join(", "),
            phase.minutes.last().copied().unwrap_or_default() / first,
            least / first,
            phase.cpu_us_a_message,
            phase.waited_share * 100.0,
            written.log,
            written.flush,
            written.merge,
            written.upkeep,
            written.process,
            row,
            written.all() / row,
            (written.all() - written.log) / row,
            space.segments,
            space.segments - space.compressed_text,
            space.compressed_text,
            mebibytes(space.log_bytes),
            space.flushes,
            space.merges,
            space.segments_count,
            phase.settled_after_s,
            grouped(phase.verified.messages as f64),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_a_conversation_compress_with_each_other() {
        let messages = Messages::new(1, 4, 200);
        let bytes = compressed_text(&messages, 2_000).unwrap();
        assert!((50.0..150.0).contains(&bytes), "{bytes}");
    }
}
