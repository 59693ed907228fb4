//! Antiphon's benchmarks: what `cargo xtask bench` and `cargo xtask compare` run. Each prints its seed, machine and kernel, checks its own
//! result, and compares within one run.

mod append;
mod capacity;
mod compare;
mod deflate;
mod facts;
mod lane;
mod large;
mod log;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// The node's own allocator, so that what is measured is what runs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
#[command(name = "antiphon-benches", version, about = "Antiphon's benchmarks")]
struct Arguments {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// Durable append through the engine, against a bare loop of the same writes.
    Append {
        /// Where to write. It must be a real disk.
        #[arg(long, default_value = "target/bench")]
        folder: PathBuf,
        /// Messages in a batch; may be repeated.
        #[arg(long, default_values_t = [1, 8, 64, 512])]
        batch: Vec<usize>,
        /// Batches in a round.
        #[arg(long, default_value_t = 2_000)]
        batches: usize,
        /// Rounds of each kind, in turn.
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Bytes of a message's text.
        #[arg(long, default_value_t = 100)]
        text_bytes: usize,
        /// Conversations that the messages go to.
        #[arg(long, default_value_t = 1_000)]
        conversations: u32,
    },
    /// What one of everything costs a node on this machine, for `tune capacity`; with --check, whether its predictions hold.
    Capacity(capacity::Options),
    /// One very large group beside ordinary chat: CPU a message and latency over its members, and over those who are connected.
    Large(large::Options),
    /// CPU of permessage-deflate, compressed and inflated, by size and level.
    Deflate {
        /// Messages of a round, of 1 KiB; fewer of larger ones.
        #[arg(long, default_value_t = 40_000)]
        messages: usize,
        /// Rounds; their median counts.
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Of the texts.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Minutes of appends while merges run: closed, then open at 70 % of that. Rate by minute, pauses, bytes written and kept.
    Steady(log::steady::Options),
    /// Messages, pages of history and read pointers on one lane at once, each at its own rate.
    Mixed(log::mixed::Options),
    /// An open load on one lane, against the same arrivals on a bare one.
    Open(log::open::Options),
    /// Memory of conversations that nobody uses.
    Conversations(log::conversations::Options),
    /// From the start of a process until it accepts, after a kill.
    Reopen(log::reopen::Options),
    /// A part of a benchmark as a process of its own.
    #[command(hide = true)]
    Phase(log::phases::Options),
    /// Side by side with others.
    Compare {
        #[command(subcommand)]
        with: Comparison,
    },
    /// The driver of a comparison, on a core of its own.
    #[command(hide = true)]
    Drive(compare::DriveOptions),
    /// One engine of a comparison, as a process of its own.
    #[command(hide = true)]
    Store(compare::StoreOptions),
}

#[derive(Debug, Subcommand)]
enum Comparison {
    /// The net plane beside other WebSocket servers: CPU of an echo and of a delivery, latency, memory.
    Net(compare::NetOptions),
    /// The log engine beside other storage engines: durable appends, pages, bytes written, space, opening after a kill.
    Engine(compare::EngineOptions),
}

fn main() -> anyhow::Result<()> {
    let Arguments { bench } = Arguments::parse();
    // As the node does.
    antiphon_gateway::uring::refuse_huge_pages()?;
    // What a driver, a store and a phase print is read by a program.
    let machine = antiphon_tuning::machine();
    if !matches!(bench, Bench::Drive(_) | Bench::Store(_) | Bench::Phase(_)) {
        println!("machine   {machine:?}");
    }
    match bench {
        Bench::Append { folder, batch, batches, rounds, text_bytes, conversations } => {
            append::run(&append::Plan { folder, batches, rounds, text_bytes, conversations }, &batch)
        }
        Bench::Capacity(options) => capacity::run(&options, &machine),
        Bench::Large(options) => large::run(&options, &machine),
        Bench::Deflate { messages, rounds, seed } => deflate::run(&deflate::Plan { messages, rounds, seed }),
        Bench::Steady(options) => log::steady::run(options),
        Bench::Mixed(options) => log::mixed::run(options),
        Bench::Open(options) => log::open::run(options),
        Bench::Conversations(options) => log::conversations::run(options),
        Bench::Reopen(options) => log::reopen::run(options),
        Bench::Phase(options) => log::phases::run(&options),
        Bench::Compare { with: Comparison::Net(options) } => compare::net(options),
        Bench::Compare { with: Comparison::Engine(options) } => compare::engine(options),
        Bench::Drive(options) => compare::drive(&options),
        Bench::Store(options) => compare::run_store(&options),
    }
}
