//! One storage engine as a process of its own that is measured: a [`Job`] comes as its only argument, one [`Report`] a
//! line goes out.
//!
//! `benches` (our engine) and `benches/foreign/engines` (the others) share this, so that all are given the same
//! messages, asked the same, timed by the same clock and checked by the same code. An engine brings a [`Store`]; one
//! that knows only rows brings [`Rows`].
//!
//! Must not know any engine.

pub mod counters;
pub mod data;
pub mod job;
mod latencies;
pub mod rows;
mod work;

use std::{path::Path, time::Duration};

use anyhow::Context;

pub use data::{Data, Message};
pub use job::{Job, Report};
pub use latencies::summary;
pub use rows::{General, Rows};
pub use work::{PAGE_ITEMS, report};

/// What an engine may keep of its files in memory, for those that can be told: as much as ours has by default.
pub const CACHE_BYTES: usize = 64 << 20;

/// What an engine may collect in memory before it writes it out in order, for those that do: as much as ours has by
/// default.
pub const MEMTABLE_BYTES: usize = 32 << 20;

/// A page that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// Which conversation, by its number.
    pub conversation: u32,
    /// Only messages below this ordinal; `None` is the end of the conversation.
    pub before: Option<u64>,
    /// At most so many, the last ones.
    pub limit: u32,
}

/// A message as an engine gives it back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its place among the conversation's messages, from 1.
    pub ordinal: u64,
    /// Its sender's name for it.
    pub id: [u8; 16],
    /// Its text.
    pub text: String,
}

/// A page and how long it took.
#[derive(Debug)]
pub struct Page {
    /// From the question until the bytes were there, not until they were taken apart.
    pub took: Duration,
    /// In ascending order.
    pub rows: Vec<Row>,
}

/// An engine that keeps conversations. It takes many batches or questions at once, so that one whose own thread does
/// the work is not measured with a change of threads for each; it carries them out one after the other.
pub trait Store: Sized {
    /// Opens what a folder holds, or makes it.
    ///
    /// # Errors
    /// The engine's own.
    fn open(folder: &Path, data: &Data) -> anyhow::Result<Self>;

    /// Stores batches in turn, each durable before the next is begun; the result is how long each took.
    ///
    /// # Errors
    /// The engine's own. All of a batch was stored or it fails.
    fn append(&mut self, batches: &[Vec<Message>]) -> anyhow::Result<Vec<Duration>>;

    /// Answers in turn.
    ///
    /// # Errors
    /// The engine's own, and what cannot be taken apart.
    fn read(&mut self, asks: &[Ask]) -> anyhow::Result<Vec<Page>>;

    /// Bytes of writes to the log so far, where the engine counts them.
    fn log_bytes(&self) -> Option<u64> {
        None
    }

    /// Whether a file, by its name, is a log: what is written twice, and bounded.
    fn is_log(name: &str) -> bool;

    /// Ends in order.
    ///
    /// # Errors
    /// The engine's own.
    fn close(self) -> anyhow::Result<()>;
}

/// Carries out the job that the process was given as its only argument, on `S`.
///
/// # Errors
/// No job, or one that failed.
pub fn main<S: Store>() -> anyhow::Result<()> {
    let job = std::env::args().nth(1).context("a job as JSON is the only argument; a comparison gives it")?;
    run::<S>(&job)
}

/// Carries out a job.
///
/// # Errors
/// One that cannot be read, or failed.
pub fn run<S: Store>(job: &str) -> anyhow::Result<()> {
    let job: Job = serde_json::from_str(job).context("the job")?;
    work::run::<S>(&job)
}
