//! `cargo xtask bench conversations`: what a lane keeps in memory of conversations that nobody uses.
//!
//! A store is filled and closed. Then processes open it anew, with small caches, and tell their resident memory: after
//! opening, and after the latest page of every conversation was read, so that each was in memory and has left it. What
//! one does with an empty store is subtracted. Everything is read back.

use std::{fs, time::Duration};

use antiphon_engine::door::{Command, Done, HistoryRange};
use antiphon_loadgen::{process::Process, progress::Progress};
use antiphon_wire::limits::PAGE_ITEMS_DEFAULT;
use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};

use super::{
    Common,
    load::{self, Told, Until, Workload},
    mebibytes,
    phases::{self, Phase, Running},
    remove,
    reopen::{Fill, Place},
    store_bytes,
    verify::{self, Expected},
};
use crate::{
    compare::table::grouped,
    facts::Header,
    lane::{Lane, People},
};

/// Options of `bench conversations`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// Conversations
    #[arg(long, default_value_t = 1_000_000)]
    conversations: u32,
    /// Messages of each, on average
    #[arg(long, default_value_t = 100)]
    messages_each: u64,
    /// Bytes of a message's text
    #[arg(long, default_value_t = 40)]
    text_bytes: usize,
    /// Bytes of blocks, and as many of conversations in use and of filters of message ids, that the opened store may
    /// keep: little, so that what is left is what grows
    #[arg(long, default_value_t = 1 << 20)]
    cache_bytes: usize,
}

/// Bytes of conversations that may be in memory while the store is filled: a million of them, so that no message has to
/// load its conversation first.
const FILL_CONVERSATIONS_BYTES_MAX: usize = 12 << 30;

/// How long merges may take until nothing is left to merge: of a store that was filled as fast as goes, all of it is.
const MERGES_MAX: Duration = Duration::from_secs(7_000);

/// Pages that are read at a time.
const PAGES_IN_FLIGHT: usize = 16;

/// A store is opened, and told what memory that takes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Memory {
    place: Place,
    cache_bytes: usize,
    messages: u64,
}

/// Memory at a moment: the process's, and what the engine says of itself.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Account {
    resident_bytes: u64,
    memtable_bytes: u64,
    cache_bytes: u64,
    message_id_filter_bytes: u64,
    segment_index_bytes: u64,
    segment_filter_bytes: u64,
    conversations_loaded: u64,
    segments: u64,
    segment_bytes: u64,
    loads: u64,
}

/// What a process says.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Said {
    opened: Account,
    /// After each conversation was used.
    used: Account,
    verified: verify::Verified,
}

#[derive(Debug, Serialize)]
struct Results {
    version: u32,
    header: Header,
    conversations: u32,
    messages: u64,
    text_bytes: usize,
    cache_bytes: usize,
    /// With a store that holds nothing.
    empty: Said,
    full: Said,
}

/// Measures, and prints.
pub(crate) fn run(mut options: Options) -> anyhow::Result<()> {
    if options.common.quick {
        (options.conversations, options.messages_each) = (options.conversations.min(400), 10);
        options.cache_bytes = 16 << 10;
    }
    ensure!(options.conversations > 0 && options.messages_each > 0, "there is nothing to measure");
    let header = options.common.header("conversations")?;
    let messages = u64::from(options.conversations) * options.messages_each;
    options.common.ensure_room(store_bytes(messages, options.text_bytes))?;
    let place = |name: &str, conversations| {
        anyhow::Ok(Place {
            folder: options.common.store(name)?,
            seed: options.common.seed,
            conversations,
            text_bytes: options.text_bytes,
            quick: options.common.quick,
        })
    };
    let measured = |place: &Place, messages| -> anyhow::Result<Said> {
        let memory = Memory { place: place.clone(), cache_bytes: options.cache_bytes, messages };
        let said = Running::start(&Phase::Memory(memory))?.end()?;
        remove(&place.folder)?;
        Ok(said)
    };
    // One conversation: no workload has none to choose from.
    let empty_place = place("conversations-empty", 1)?;
    let empty = measured(&empty_place, 0)?;
    let full_place = place("conversations", options.conversations)?;
    let fill = Fill {
        place: full_place.clone(),
        from: 0,
        to: messages,
        conversations_bytes_max: Some(FILL_CONVERSATIONS_BYTES_MAX),
        close: Some(MERGES_MAX),
    };
    let filled: u64 = Running::start(&Phase::Fill(fill))?.end()?;
    ensure!(filled == messages, "{filled} messages were filled in instead of {messages}");
    let full = measured(&full_place, messages)?;
    let results = Results {
        version: 1,
        header: header.ended()?,
        conversations: options.conversations,
        messages,
        text_bytes: options.text_bytes,
        cache_bytes: options.cache_bytes,
        empty,
        full,
    };
    print(&results);
    options.common.write("conversations", &results, None)
}

fn print(results: &Results) {
    println!(
        "{} conversations, {} messages with texts of {} bytes; caches of {}\n\n\
         | | resident | beyond an empty store | a conversation | engine: memtable | cached: blocks, filters of ids \
         | indexes of segments | their filters | conversations in memory | segments |\n\
         |---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
        grouped(f64::from(results.conversations)),
        grouped(results.messages as f64),
        results.text_bytes,
        mebibytes(results.cache_bytes as u64),
    );
    let count = f64::from(results.conversations);
    for (name, empty, full) in [
        ("opened", results.empty.opened, results.full.opened),
        ("after each was used", results.empty.used, results.full.used),
    ] {
        let beyond = full.resident_bytes.saturating_sub(empty.resident_bytes);
        println!(
            "| {name} | {} | {} | {:.1} B | {} | {}, {} | {} | {} | {} | {} of {} |",
            mebibytes(full.resident_bytes),
            mebibytes(beyond),
            beyond as f64 / count,
            mebibytes(full.memtable_bytes),
            mebibytes(full.cache_bytes),
            mebibytes(full.message_id_filter_bytes),
            mebibytes(full.segment_index_bytes),
            mebibytes(full.segment_filter_bytes),
            grouped(full.conversations_loaded as f64),
            full.segments,
            mebibytes(full.segment_bytes),
        );
    }
    let used = results.full.used;
    let cold = count - used.conversations_loaded as f64;
    // What has a bound of its own whatever the number of conversations, by the engine's account.
    let bounded = used.memtable_bytes + used.cache_bytes + used.message_id_filter_bytes;
    let beyond = used.resident_bytes.saturating_sub(results.empty.used.resident_bytes);
    if cold < 1.0 {
        println!("\nno conversation has left memory: more --conversations, or fewer --cache-bytes");
    } else {
        println!(
            "\na cold conversation: {:.1} B of {} cold ones, without memtable and caches by the engine's account",
            beyond.saturating_sub(bounded) as f64 / cold,
            grouped(cold),
        );
    }
    println!("read back: {} messages, each once and as it was sent", grouped(results.full.verified.messages as f64));
}

/// The phase that measures.
pub(crate) fn measure(memory: &Memory) -> anyhow::Result<()> {
    let place = &memory.place;
    fs::create_dir_all(&place.folder)?;
    let mut options = place.lane();
    let engine = &mut options.engine;
    (engine.cache_bytes, engine.conversations_bytes_max) = (memory.cache_bytes, memory.cache_bytes);
    engine.message_id_filter_bytes = memory.cache_bytes;
    let lane = Lane::open(&place.folder, &options)?;
    let quiet = Duration::from_millis(if place.quick { 200 } else { 3_000 });
    lane.settle(quiet, MERGES_MAX)?;
    let opened = account(&lane)?;
    let mut progress = Progress::new();
    let told = Told::new(&mut progress, "using each conversation");
    let until = Until::Answered(place.conversations.into());
    load::closed(&lane, &place.folder, Touch { next: 0 }, "page", PAGES_IN_FLIGHT, until, told)?;
    lane.settle(quiet, MERGES_MAX)?;
    let used = account(&lane)?;
    let expected = Expected { messages: place.messages(), streams: vec![memory.messages], others: false };
    let verified = verify::verify(&lane, &expected, &mut progress)?;
    progress.finish();
    lane.close()?;
    phases::say(&Said { opened, used, verified })
}

fn account(lane: &Lane) -> anyhow::Result<Account> {
    let status = lane.status()?;
    let usage = Process::own().usage().context("the kernel shows no memory of this process")?;
    Ok(Account {
        resident_bytes: usage.rss_bytes,
        memtable_bytes: (status.memtable_bytes + status.memtable_sealed_bytes) as u64,
        cache_bytes: status.cache_bytes as u64,
        message_id_filter_bytes: status.message_id_filter_bytes as u64,
        segment_index_bytes: status.segment_index_bytes as u64,
        segment_filter_bytes: status.segment_filter_bytes as u64,
        conversations_loaded: status.conversations_loaded as u64,
        segments: status.segments as u64,
        segment_bytes: status.segment_bytes,
        loads: status.loads,
    })
}

/// Asks for the latest page of one conversation after the other.
struct Touch {
    next: u32,
}

impl Workload for Touch {
    type Order = u32;

    fn order(&mut self, _: usize) -> u32 {
        self.next += 1;
        self.next - 1
    }

    fn command(&self, conversation: &u32, people: &mut People) -> Command {
        let target = people.of(*conversation);
        let [user, _] = target.members;
        let (range, limit) = (HistoryRange::Latest, PAGE_ITEMS_DEFAULT);
        Command::History { user, conversation: target.conversation, range, limit }
    }

    fn done(&mut self, conversation: u32, done: Done) -> anyhow::Result<()> {
        match done {
            Done::History(page) if !page.entries.is_empty() => Ok(()),
            other => bail!("a page of conversation {conversation} was answered with {other:?}"),
        }
    }
}
