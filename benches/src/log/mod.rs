//! The benchmarks of the log engine: `cargo xtask bench steady | mixed | open | conversations | reopen`.
//!
//! All drive a lane as a node has it ([`crate::lane`]) with messages whose number tells what they are ([`messages`]),
//! by loads that are closed or open ([`load`]), and read back everything at the end ([`verify`]): what is not there as
//! it was sent is a failure and no result.

mod appends;
mod arriving;
mod bare;
pub(crate) mod conversations;
mod load;
mod messages;
pub(crate) mod mixed;
pub(crate) mod open;
pub(crate) mod phases;
mod record;
pub(crate) mod reopen;
pub(crate) mod steady;
mod verify;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use antiphon_loadgen::report::plots::{self, Colour, Line, Panel};
use anyhow::{Context, ensure};
use serde::Serialize;

use crate::{
    compare::table::{grouped, time},
    facts::{Header, free_bytes},
    lane::LaneOptions,
};
use record::Summary;

/// What all of them are told.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Common {
    /// Where stores are made and removed again; a real disk
    #[arg(long, default_value = "target/bench/log")]
    folder: PathBuf,
    /// Decides messages, arrivals and questions
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where results go as JSON; `target/bench/NAME.json` without it
    #[arg(long)]
    json: Option<PathBuf>,
    /// A few seconds with little data, to see that everything runs; its figures mean nothing
    #[arg(long)]
    quick: bool,
}

/// The longest that a lane may take to come to rest.
const SETTLE_MAX: Duration = Duration::from_secs(600);

/// The disk keeps at least this much for others: a load that has a time ends before it, any other fails.
const SPARE_BYTES: u64 = 2 << 30;

impl Common {
    /// An empty folder for one store.
    fn store(&self, name: &str) -> anyhow::Result<PathBuf> {
        let folder = std::path::absolute(&self.folder)?.join(name);
        remove(&folder)?;
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// How a lane is opened. Quick ones are so small that they flush and merge all the same.
    fn lane(&self, conversations: u32) -> LaneOptions {
        let mut options = LaneOptions::new(conversations);
        if self.quick {
            (options.engine.log_file_bytes, options.engine.memtable_bytes) = (4 << 20, 256 << 10);
        }
        options
    }

    /// How long nothing may happen until a lane is at rest.
    fn quiet(&self) -> Duration {
        if self.quick { Duration::from_millis(200) } else { Duration::from_secs(3) }
    }

    fn header(&self, bench: &'static str) -> anyhow::Result<Header> {
        let folder = std::path::absolute(&self.folder)?;
        fs::create_dir_all(&folder)?;
        Header::new(bench, &folder, self.seed)
    }

    /// Writes results as JSON, and a picture beside them.
    fn write(&self, bench: &str, results: &impl Serialize, picture: Option<String>) -> anyhow::Result<()> {
        let usual = || crate::facts::root().join("target/bench").join(format!("{bench}.json"));
        let json = self.json.clone().unwrap_or_else(usual);
        if let Some(folder) = json.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&json, serde_json::to_string_pretty(results)?).with_context(|| json.display().to_string())?;
        println!("\neverything: {}", json.display());
        if let Some(picture) = picture {
            let svg = json.with_extension("svg");
            fs::write(&svg, picture)?;
            println!("picture:    {}", svg.display());
        }
        Ok(())
    }

    /// Refuses what would fill the disk.
    fn ensure_room(&self, bytes: u64) -> anyhow::Result<()> {
        let free = free_bytes(&std::path::absolute(&self.folder)?)?;
        ensure!(
            bytes + SPARE_BYTES < free,
            "this takes up to {}, and {} are free at {}: fewer messages or seconds, or --folder",
            gibibytes(bytes),
            gibibytes(free),
            self.folder.display()
        );
        Ok(())
    }
}

/// Removes a store, if it is there.
fn remove(folder: &Path) -> anyhow::Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    Ok(())
}

fn gibibytes(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / (1_u64 << 30) as f64)
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// A disk's bytes for so many messages, with what a merge makes beside its inputs, and the log: about. Texts compress
/// to half.
fn store_bytes(messages: u64, text_bytes: usize) -> u64 {
    let message_bytes = text_bytes as u64 / 2 + 40;
    messages * message_bytes + (messages * message_bytes).min(2 << 30) + (512 << 20)
}

/// The head of [`row`]s.
const COLUMNS: &str = "| | answered | a second | p50 | p99 | p99.9 | longest | longest pause | refused |\n\
                       |---|---:|---:|---:|---:|---:|---:|---:|---:|";

/// What was measured of a kind of commands.
fn row(name: &str, summary: &Summary, elapsed: Duration) -> String {
    format!(
        "| {name} | {} | {} | {} | {} | {} | {} | {} | {} |",
        grouped(summary.count as f64),
        grouped(summary.count as f64 / elapsed.as_secs_f64()),
        time(summary.p50_ns as f64),
        time(summary.p99_ns as f64),
        time(summary.p999_ns as f64),
        time(summary.max_ns as f64),
        time(summary.pause_ns as f64),
        grouped(summary.refusals as f64),
    )
}

/// Latencies and the rate of a kind, second by second.
fn panels(name: &str, summary: &Summary) -> anyhow::Result<Vec<Panel>> {
    let line = |name, colour, of: fn(&record::Second) -> f64| Line {
        name,
        colour,
        points: summary.seconds.iter().map(|second| (second.second as f64, of(second))).collect(),
    };
    let latencies = [
        line("p50", Colour::First, |second| second.p50_ns as f64 / 1e3),
        line("p99", Colour::Second, |second| second.p99_ns as f64 / 1e3),
        line("longest", Colour::Third, |second| second.max_ns as f64 / 1e3),
    ];
    let rate = [line("answered", Colour::First, |second| second.count as f64)];
    let legend = |lines: &[Line]| lines.iter().map(|line| (line.name, line.colour)).collect();
    Ok(vec![
        Panel {
            caption: format!("{name}: latency"),
            legend: legend(&latencies),
            svg: plots::latency_timeline(&latencies)?,
        },
        Panel { caption: format!("{name}: a second"), legend: legend(&rate), svg: plots::rate_timeline(&rate)? },
    ])
}
