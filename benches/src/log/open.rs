//! `cargo xtask bench open`: an open load on one lane, beside the same arrivals on a bare lane ([`super::bare`]). They
//! take turns, in an order that changes with the round; ratios are made within a round.

use std::{sync::Arc, time::Duration};

use antiphon_bench_store::job::Usage;
use antiphon_loadgen::{progress::Progress, report::plots};
use anyhow::ensure;
use serde::Serialize;

use super::{
    COLUMNS, Common, SETTLE_MAX,
    appends::Appends,
    bare,
    load::{self, Told, Until},
    messages::Messages,
    panels,
    record::Summary,
    remove, row, store_bytes,
    verify::{Expected, Verified, verify},
};
use crate::{
    compare::{
        figures::Figure,
        table::{grouped, spread, time},
    },
    facts::Header,
    lane::Lane,
};

/// Options of `bench open`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// Records a second
    #[arg(long, default_value_t = 100_000.0)]
    rate: f64,
    /// How long each side of a round goes on
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Rounds; in each, both sides are measured once
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Conversations that the messages go to
    #[arg(long, default_value_t = 10_000)]
    conversations: u32,
    /// Bytes of a message's text
    #[arg(long, default_value_t = 200)]
    text_bytes: usize,
}

/// Messages before the first round: they bring conversations into memory, and tell how large a record is.
const WARM: u64 = 20_000;

/// One side of a round.
#[derive(Debug, Clone, Serialize)]
struct Sample {
    round: usize,
    side: &'static str,
    elapsed_s: f64,
    appends: Summary,
    usage: Usage,
}

impl Sample {
    fn cpu_us(&self) -> f64 {
        self.usage.cpu_ns as f64 / self.appends.count.max(1) as f64 / 1e3
    }
}

#[derive(Debug, Serialize)]
struct Results {
    version: u32,
    header: Header,
    rate: f64,
    seconds: f64,
    rounds: usize,
    conversations: u32,
    text_bytes: usize,
    record_bytes: usize,
    samples: Vec<Sample>,
    verified: Verified,
}

const SIDES: [&str; 2] = ["engine", "bare lane"];

/// Measures, and prints.
pub(crate) fn run(mut options: Options) -> anyhow::Result<()> {
    if options.common.quick {
        (options.rate, options.seconds, options.rounds, options.conversations) = (20_000.0, 0.5, 2, 200);
    }
    ensure!(options.rounds > 0 && options.rate > 0.0 && options.seconds > 0.0, "there is nothing to measure");
    let header = options.common.header("open")?;
    let most = (options.rate * options.seconds * options.rounds as f64) as u64 + WARM;
    options.common.ensure_room(store_bytes(most, options.text_bytes))?;
    let (record_bytes, samples, verified) = measure(&options)?;
    let results = Results {
        version: 1,
        header: header.ended()?,
        rate: options.rate,
        seconds: options.seconds,
        rounds: options.rounds,
        conversations: options.conversations,
        text_bytes: options.text_bytes,
        record_bytes,
        samples,
        verified,
    };
    print(&results);
    let mut all = Vec::new();
    for side in SIDES {
        if let Some(sample) = results.samples.iter().find(|sample| sample.side == side) {
            all.extend(panels(side, &sample.appends)?);
        }
    }
    options.common.write("open", &results, Some(plots::picture("Open load on one lane, first round", &all)))
}

/// All rounds; how large a record is, what was measured, and what was read back.
fn measure(options: &Options) -> anyhow::Result<(usize, Vec<Sample>, Verified)> {
    let messages = Arc::new(Messages::new(options.common.seed, options.conversations, options.text_bytes));
    let mut progress = Progress::new();
    let (folder, bare_folder) = (options.common.store("open")?, options.common.store("bare")?);
    let lane = Lane::open(&folder, &options.common.lane(options.conversations))?;
    let warm = if options.common.quick { WARM / 20 } else { WARM };
    let before = lane.status()?;
    let mut workload = Appends { messages: Arc::clone(&messages), next: 0 };
    let told = Told::new(&mut progress, "warming up");
    let outcome = load::closed(&lane, &folder, workload, "append", 64, Until::Answered(warm), told)?;
    workload = outcome.workload;
    let records = outcome.status.records - before.records;
    let record_bytes = (outcome.status.record_bytes - before.record_bytes).div_ceil(records.max(1)) as usize;
    let mut samples = Vec::new();
    for round in 0..options.rounds {
        // Both sides of a round have the same arrivals.
        let seed = options.common.seed.wrapping_add(round as u64);
        for place in 0..SIDES.len() {
            lane.settle(options.common.quiet(), SETTLE_MAX)?;
            let side = SIDES[(place + round) % SIDES.len()];
            let text = format!("round {} of {}, {side}", round + 1, options.rounds);
            let (elapsed, appends, usage) = if side == SIDES[0] {
                let told = Told::new(&mut progress, &text);
                let rates = [("append", options.rate)];
                let mut outcome = load::open(&lane, &folder, workload, &rates, options.seconds, seed, told)?;
                workload = outcome.workload;
                (outcome.elapsed, outcome.kinds.remove(0), outcome.usage)
            } else {
                progress.phase(&text);
                let (appends, usage) = bare::run(&bare_folder, options.rate, options.seconds, seed, record_bytes)?;
                (Duration::from_secs_f64(options.seconds), appends, usage)
            };
            samples.push(Sample { round, side, elapsed_s: elapsed.as_secs_f64(), appends, usage });
        }
    }
    let count = workload.next;
    let expected = Expected { messages, streams: vec![count], others: false };
    let verified = verify(&lane, &expected, &mut progress)?;
    progress.finish();
    lane.close()?;
    remove(&folder)?;
    remove(&bare_folder)?;
    for pair in samples.chunks_exact(2) {
        let (one, other) = (pair[0].appends.count, pair[1].appends.count);
        ensure!(one == other, "the sides of a round had {one} and {other} of the same arrivals");
    }
    Ok((record_bytes, samples, verified))
}

fn print(results: &Results) {
    println!(
        "{} records a second for {} s, {} rounds; records of {} bytes\n\n{COLUMNS}",
        grouped(results.rate),
        results.seconds,
        results.rounds,
        results.record_bytes
    );
    for sample in &results.samples {
        let name = format!("{}, round {}", sample.side, sample.round + 1);
        println!("{}", row(&name, &sample.appends, Duration::from_secs_f64(sample.elapsed_s)));
    }
    println!("\n| medians over rounds | bare lane | engine | engine to bare lane |\n|---|---:|---:|---|");
    let figure = |name: &str, of: &dyn Fn(&Sample) -> f64, form: &dyn Fn(f64) -> String| {
        let values = |side: &str| -> Vec<Option<f64>> {
            let mut values = vec![None; results.rounds];
            for sample in results.samples.iter().filter(|sample| sample.side == side) {
                values[sample.round] = Some(of(sample));
            }
            values
        };
        let (engine, bare) = (values(SIDES[0]), values(SIDES[1]));
        let middle = |values: &[Option<f64>]| {
            Figure::of(values.iter().flatten().copied()).map_or_else(String::new, |figure| form(figure.median))
        };
        let ratio = Figure::ratio(&engine, &bare).map_or_else(String::new, |ratio| spread(ratio, 2, " ×"));
        println!("| {name} | {} | {} | {ratio} |", middle(&bare), middle(&engine));
    };
    figure("p50", &|sample| sample.appends.p50_ns as f64, &time);
    figure("p99", &|sample| sample.appends.p99_ns as f64, &time);
    figure("p99.9", &|sample| sample.appends.p999_ns as f64, &time);
    figure("CPU a record, with flushes and merges", &Sample::cpu_us, &|us| format!("{us:.2} µs"));
    figure(
        "waited for a core, of the time",
        &|sample| sample.usage.waited_ns as f64 / sample.elapsed_s / 1e9,
        &|share| format!("{:.0} %", share * 100.0),
    );
    println!("\nread back: {} messages, each once and as it was sent", grouped(results.verified.messages as f64));
}
