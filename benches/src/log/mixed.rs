//! `cargo xtask bench mixed`: open loads of messages, pages of history and read pointers on one lane at the same time.
//!
//! A pointer moves to a message that was acknowledged just before, for the member who did not send it, so that each is
//! news. Pages are looked at whole when they come; at the end all messages and all pointers are read back.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use antiphon_engine::door::{Command, Done, HistoryPage, HistoryRange};
use antiphon_loadgen::{progress::Progress, random::Random, report::plots};
use antiphon_wire::{
    frame::{EntryKind, view_entry},
    ids::{Sequence, UserId},
    limits::PAGE_ITEMS_DEFAULT,
};
use anyhow::{bail, ensure};
use serde::Serialize;

use super::{
    COLUMNS, Common, SETTLE_MAX,
    load::{self, Told, Until, Workload},
    messages::Messages,
    panels,
    record::Summary,
    remove, row, store_bytes,
    verify::{Expected, Verified, verify},
};
use crate::{
    compare::table::grouped,
    facts::Header,
    lane::{By, Lane, People, now},
};

/// Options of `bench mixed`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// How long the loads go on
    #[arg(long, default_value_t = 60.0)]
    seconds: f64,
    /// How long the same loads go on before, uncounted, so that the cache has what a node's has
    #[arg(long, default_value_t = 10.0)]
    warm_up: f64,
    /// Messages a second
    #[arg(long, default_value_t = 20_000.0)]
    appends: f64,
    /// Pages a second: half of them the latest, half from anywhere
    #[arg(long, default_value_t = 5_000.0)]
    pages: f64,
    /// Read pointers a second
    #[arg(long, default_value_t = 20_000.0)]
    pointers: f64,
    /// Messages that are there before
    #[arg(long, default_value_t = 2_000_000)]
    messages: u64,
    /// Conversations that they go to
    #[arg(long, default_value_t = 10_000)]
    conversations: u32,
    /// Bytes of a message's text
    #[arg(long, default_value_t = 200)]
    text_bytes: usize,
}

/// Names of the kinds, by their numbers.
const KINDS: [&str; 4] = ["append", "latest page", "page from anywhere", "read pointer"];

const APPEND: usize = 0;
const LATEST: usize = 1;
const ANYWHERE: usize = 2;

/// Messages that a pointer may still move to: a second of them.
const UNREAD_MAX: usize = 20_000;

/// Messages in flight before the loads begin.
const FILL_IN_FLIGHT: usize = 512;

#[derive(Debug, Serialize)]
struct Results {
    version: u32,
    header: Header,
    rates: Vec<(&'static str, f64)>,
    seconds: f64,
    warm_up_s: f64,
    messages_before: u64,
    conversations: u32,
    text_bytes: usize,
    elapsed_s: f64,
    kinds: Vec<Summary>,
    cpu_cores: f64,
    waited_share: f64,
    /// From the disk, for each page.
    reads_a_page: f64,
    read_bytes_a_page: f64,
    flushes: u64,
    merges: u64,
    moved_pointers: u64,
    verified: Verified,
    verified_pointers: u64,
}

/// Measures, and prints.
pub(crate) fn run(mut options: Options) -> anyhow::Result<()> {
    if options.common.quick {
        (options.seconds, options.warm_up, options.messages, options.conversations) = (1.0, 0.2, 4_000, 200);
        (options.appends, options.pages, options.pointers) = (400.0, 100.0, 400.0);
    }
    ensure!(options.conversations > 0 && options.seconds > 0.0, "there is nothing to measure");
    let header = options.common.header("mixed")?;
    let most = options.messages + (options.appends * (options.warm_up + options.seconds)) as u64;
    options.common.ensure_room(store_bytes(most, options.text_bytes))?;
    let messages = Arc::new(Messages::new(options.common.seed, options.conversations, options.text_bytes));
    let mut progress = Progress::new();
    let folder = options.common.store("mixed")?;
    let lane = Lane::open(&folder, &options.common.lane(options.conversations))?;
    let workload = Mixed::new(Arc::clone(&messages), options.common.seed);
    let told = Told::new(&mut progress, "filling");
    let fill = Until::Answered(options.messages);
    let filled = load::closed(&lane, &folder, workload, KINDS[APPEND], FILL_IN_FLIGHT, fill, told)?;
    lane.settle(options.common.quiet(), SETTLE_MAX)?;
    let half = options.pages / 2.0;
    let rates: Vec<(&'static str, f64)> =
        KINDS.into_iter().zip([options.appends, half, half, options.pointers]).collect();
    let mut workload = filled.workload;
    if options.warm_up > 0.0 {
        let told = Told::new(&mut progress, "warming up");
        let seed = options.common.seed + 1;
        workload = load::open(&lane, &folder, workload, &rates, options.warm_up, seed, told)?.workload;
    }
    let (before, read_before) = (lane.status()?, lane.traffic().read_by(By::Read));
    let moved_before = workload.moved;
    let told = Told::new(&mut progress, "mixed load");
    let outcome = load::open(&lane, &folder, workload, &rates, options.seconds, options.common.seed, told)?;
    let (reads, read_bytes) = lane.traffic().read_by(By::Read);
    let pages = (outcome.kinds[LATEST].count + outcome.kinds[ANYWHERE].count).max(1) as f64;
    let workload = outcome.workload;
    let expected = Expected { messages, streams: vec![workload.next], others: false };
    let verified = verify(&lane, &expected, &mut progress)?;
    let (moved, all) = (workload.moved, options.conversations);
    let pointers = Pointers { expected: workload.pointers, next: 0, checked: 0 };
    let told = Told::new(&mut progress, "reading pointers back");
    let checked = load::closed(&lane, &folder, pointers, "members", 16, Until::Answered(all.into()), told)?;
    progress.finish();
    lane.close()?;
    remove(&folder)?;
    let results = Results {
        version: 1,
        header: header.ended()?,
        rates,
        seconds: options.seconds,
        warm_up_s: options.warm_up,
        messages_before: options.messages,
        conversations: options.conversations,
        text_bytes: options.text_bytes,
        elapsed_s: outcome.elapsed.as_secs_f64(),
        cpu_cores: outcome.usage.cpu_ns as f64 / outcome.elapsed.as_nanos() as f64,
        waited_share: outcome.usage.waited_ns as f64 / outcome.elapsed.as_nanos() as f64,
        kinds: outcome.kinds,
        reads_a_page: (reads - read_before.0) as f64 / pages,
        read_bytes_a_page: (read_bytes - read_before.1) as f64 / pages,
        flushes: outcome.status.flushes - before.flushes,
        merges: outcome.status.compactions - before.compactions,
        moved_pointers: moved - moved_before,
        verified,
        verified_pointers: checked.workload.checked,
    };
    print(&results);
    let mut all = Vec::new();
    for kind in &results.kinds {
        all.extend(panels(kind.kind, kind)?);
    }
    options.common.write("mixed", &results, Some(plots::picture("Messages, pages and pointers at once", &all)))
}

fn print(results: &Results) {
    println!(
        "{} messages of {} bytes in {} conversations before\n\n{COLUMNS}",
        grouped(results.messages_before as f64),
        results.text_bytes,
        grouped(f64::from(results.conversations))
    );
    let elapsed = std::time::Duration::from_secs_f64(results.elapsed_s);
    for kind in &results.kinds {
        println!("{}", row(kind.kind, kind, elapsed));
    }
    println!(
        "\nCPU {:.2} cores; threads waited for a core {:.0} % of the time; {:.2} reads and {} bytes from the \
         disk a page; {} flushes, {} merges; \
         {} pointers were news\nread back: {} messages, each once and as it was sent, and {} pointers",
        results.cpu_cores,
        results.waited_share * 100.0,
        results.reads_a_page,
        grouped(results.read_bytes_a_page),
        results.flushes,
        results.merges,
        grouped(results.moved_pointers as f64),
        grouped(results.verified.messages as f64),
        grouped(results.verified_pointers as f64),
    );
}

/// A command that is not answered.
#[derive(Debug, Clone, Copy)]
enum Order {
    Append(u64),
    /// A page, and what was acknowledged before it was asked for.
    Page {
        conversation: u32,
        before: Option<u64>,
        acknowledged: u64,
    },
    Mark {
        conversation: u32,
        member: usize,
        sequence: u64,
    },
}

/// The workload.
struct Mixed {
    messages: Arc<Messages>,
    next: u64,
    random: Random,
    /// The highest acknowledged sequence of each conversation.
    acknowledged: Vec<u64>,
    /// What each member has read, as far as it was acknowledged.
    pointers: Vec<[u64; 2]>,
    /// Acknowledged messages that their other member has not read, oldest first.
    unread: VecDeque<(u32, usize, u64)>,
    /// Pointers that moved.
    moved: u64,
}

impl Mixed {
    fn new(messages: Arc<Messages>, seed: u64) -> Self {
        let conversations = messages.conversations() as usize;
        Self {
            messages,
            next: 0,
            random: Random::new(seed, 0x006d_6978),
            acknowledged: vec![1; conversations],
            pointers: vec![[0; 2]; conversations],
            unread: VecDeque::new(),
            moved: 0,
        }
    }

    fn check(
        &self,
        conversation: u32,
        before: Option<u64>,
        acknowledged: u64,
        page: &HistoryPage,
    ) -> anyhow::Result<()> {
        ensure!(
            page.last.0 >= acknowledged,
            "a page does not know message {acknowledged} of conversation {conversation}"
        );
        let end = before.unwrap_or(page.last.0 + 1);
        let count = (end - page.first.0).min(PAGE_ITEMS_DEFAULT.into());
        let found = page.entries.len() as u64;
        ensure!(found == count, "a page of conversation {conversation} has {found} entries instead of {count}");
        for (archive, sequence) in page.entries.iter().zip(end - count..) {
            let entry = view_entry(archive)?;
            let is = entry.sequence.0.to_native();
            ensure!(is == sequence, "a page of conversation {conversation} has {is} where {sequence} is due");
            if EntryKind::from(&entry.kind) == EntryKind::Message {
                self.messages.number_of(conversation, entry)?;
            }
        }
        Ok(())
    }

    /// The message that was acknowledged last, of those that their other member has not read.
    fn next_unread(&mut self) -> Option<(u32, usize, u64)> {
        loop {
            let (conversation, member, sequence) = self.unread.pop_back()?;
            if self.pointers[conversation as usize][member] < sequence {
                return Some((conversation, member, sequence));
            }
        }
    }

    fn sent(&mut self, number: u64, sequence: u64) {
        let (conversation, sender) = (self.messages.conversation(number), self.messages.sender(number));
        let place = conversation as usize;
        self.acknowledged[place] = self.acknowledged[place].max(sequence);
        // One's own messages are read.
        self.pointers[place][sender] = self.pointers[place][sender].max(sequence);
        self.unread.push_back((conversation, 1 - sender, sequence));
        if self.unread.len() > UNREAD_MAX {
            self.unread.pop_front();
        }
    }
}

impl Workload for Mixed {
    type Order = Order;

    fn order(&mut self, kind: usize) -> Order {
        if kind == APPEND {
            self.next += 1;
            return Order::Append(self.next - 1);
        }
        let conversation = self.random.below(self.acknowledged.len() as u64) as u32;
        let acknowledged = self.acknowledged[conversation as usize];
        match kind {
            LATEST => Order::Page { conversation, before: None, acknowledged },
            ANYWHERE => {
                let before = Some(2 + self.random.below(acknowledged));
                Order::Page { conversation, before, acknowledged }
            }
            _ => {
                let news = self.next_unread().unwrap_or((conversation, (acknowledged % 2) as usize, acknowledged));
                let (conversation, member, sequence) = news;
                Order::Mark { conversation, member, sequence }
            }
        }
    }

    fn only_reads(&self, kind: usize) -> bool {
        kind == LATEST || kind == ANYWHERE
    }

    fn command(&self, order: &Order, people: &mut People) -> Command {
        match *order {
            Order::Append(number) => self.messages.send(number, now(), people),
            Order::Page { conversation, before, .. } => {
                let target = people.of(conversation);
                let [user, _] = target.members;
                let range = before.map_or(HistoryRange::Latest, |before| HistoryRange::Before(Sequence(before)));
                Command::History { user, conversation: target.conversation, range, limit: PAGE_ITEMS_DEFAULT }
            }
            Order::Mark { conversation, member, sequence } => {
                let target = people.of(conversation);
                let [from, to] = target.members;
                let user = if member == 0 { from } else { to };
                let read = Some(Sequence(sequence));
                Command::Mark { user, conversation: target.conversation, read, delivered: None }
            }
        }
    }

    fn done(&mut self, order: Order, done: Done) -> anyhow::Result<()> {
        match (order, done) {
            (Order::Append(number), Done::Sent { duplicate: false, sequence, .. }) => self.sent(number, sequence.0),
            (Order::Page { conversation, before, acknowledged }, Done::History(page)) => {
                self.check(conversation, before, acknowledged, &page)?;
            }
            (Order::Mark { conversation, member, sequence }, Done::Marked { read, .. }) if read.0 >= sequence => {
                let pointer = &mut self.pointers[conversation as usize][member];
                self.moved += u64::from(*pointer < sequence);
                *pointer = (*pointer).max(sequence);
            }
            (order, done) => bail!("{order:?} was answered with {done:?}"),
        }
        Ok(())
    }
}

/// Reads all pointers back.
struct Pointers {
    expected: Vec<[u64; 2]>,
    next: u32,
    checked: u64,
}

impl Workload for Pointers {
    type Order = u32;

    fn order(&mut self, _: usize) -> u32 {
        self.next += 1;
        self.next - 1
    }

    fn command(&self, conversation: &u32, people: &mut People) -> Command {
        let target = people.of(*conversation);
        let [user, _] = target.members;
        Command::Members { user, conversation: target.conversation, after: None, limit: 2 }
    }

    fn done(&mut self, conversation: u32, done: Done) -> anyhow::Result<()> {
        let Done::Members { members, .. } = done else { bail!("members were answered with {done:?}") };
        let read: HashMap<UserId, u64> = members.into_iter().map(|member| (member.user, member.read.0)).collect();
        let target = People::new(0).of(conversation);
        for (member, expected) in target.members.iter().zip(self.expected[conversation as usize]) {
            let found = read.get(member).copied();
            ensure!(found == Some(expected), "{member:?} has read up to {found:?}, and {expected} was acknowledged");
            self.checked += 1;
        }
        Ok(())
    }
}
