//! `cargo xtask bench reopen`: how long a node's lane takes from the start of its process until it accepts, after `kill
//! -9`.
//!
//! A store is filled to each size; then, round by round, a process opens it, stores a message, says so, goes on storing
//! as much as goes, and is killed at a moment by chance. What counts is the time from before the process is started
//! until the first message is durable. At the end every message that was acknowledged before any of the kills is read
//! back.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use antiphon_bench_store::counters::forget;
use antiphon_engine::door::{Command, Done};
use antiphon_loadgen::{progress::Progress, random::Random};
use anyhow::{bail, ensure};
use serde::{Deserialize, Serialize};

use super::{
    Common,
    appends::Appends,
    load::{self, Told, Until, Workload},
    mebibytes,
    messages::{Messages, STREAM},
    phases::{self, Phase, Running},
    remove, store_bytes,
    verify::{self, Expected},
};
use crate::{
    compare::{
        figures::Figure,
        table::{grouped, time},
    },
    facts::Header,
    lane::{By, Lane, LaneOptions, People},
};

/// Options of `bench reopen`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    common: Common,
    /// Messages that the store is filled to, ascending, with commas between
    #[arg(long, value_delimiter = ',', default_values_t = [4_000_000, 40_000_000])]
    messages: Vec<u64>,
    /// Times that it is killed and opened at each
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Longest time that a process goes on until it is killed
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Conversations that the messages go to
    #[arg(long, default_value_t = 10_000)]
    conversations: u32,
    /// Bytes of a message's text
    #[arg(long, default_value_t = 200)]
    text_bytes: usize,
}

/// Messages unanswered.
const IN_FLIGHT: usize = 512;

/// What a process says of the messages that are acknowledged comes this often at most.
const SAY_EVERY: u64 = 256;

/// Which store, and what is in it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) folder: PathBuf,
    pub(crate) seed: u64,
    pub(crate) conversations: u32,
    pub(crate) text_bytes: usize,
    pub(crate) quick: bool,
}

impl Place {
    pub(crate) fn messages(&self) -> Arc<Messages> {
        Arc::new(Messages::new(self.seed, self.conversations, self.text_bytes))
    }

    pub(crate) fn lane(&self) -> LaneOptions {
        let mut options = LaneOptions::new(self.conversations);
        if self.quick {
            (options.engine.log_file_bytes, options.engine.memtable_bytes) = (4 << 20, 256 << 10);
        }
        options
    }
}

/// A store is filled from one number to another.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Fill {
    pub(crate) place: Place,
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// Bytes of conversations that may be in memory meanwhile, instead of what a lane has: with fewer than all of them
    /// take, most messages load one.
    pub(crate) conversations_bytes_max: Option<usize>,
    /// It comes to rest within so long and is closed in order; otherwise the process waits to be killed.
    pub(crate) close: Option<Duration>,
}

/// A store is opened and stored to until the process is killed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Serve {
    place: Place,
    stream: u64,
    /// The text of its first message: what a node's clients bring, it need not make.
    text: String,
}

/// Everything is read back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Whole {
    pub(crate) place: Place,
    pub(crate) streams: Vec<u64>,
    pub(crate) others: bool,
}

/// What a process says when it accepts.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Accepting {
    /// From the call that opens to its end.
    open_ns: u64,
    /// From that call until a message is durable.
    durable_ns: u64,
    log_bytes_read: u64,
    records_replayed: u64,
    /// All reads of the folder.
    reads: u64,
    read_bytes: u64,
    position: u64,
}

/// What a process says.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Said {
    Accepting(Accepting),
    /// So many of the stream, from its first on, are acknowledged.
    Acknowledged(u64),
}

/// A round.
#[derive(Debug, Clone, Copy, Serialize)]
struct Sample {
    messages: u64,
    round: usize,
    /// From before the process was started until it said that a message is durable.
    accept_ns: u64,
    #[serde(flatten)]
    accepting: Accepting,
}

#[derive(Debug, Serialize)]
struct Results {
    version: u32,
    header: Header,
    rounds: usize,
    conversations: u32,
    text_bytes: usize,
    samples: Vec<Sample>,
    verified: verify::Verified,
}

/// Measures, and prints.
pub(crate) fn run(mut options: Options) -> anyhow::Result<()> {
    if options.common.quick {
        (options.messages, options.rounds, options.seconds) = (vec![2_000, 4_000], 2, 0.1);
        options.conversations = 200;
    }
    ensure!(options.rounds > 0 && !options.messages.is_empty(), "there is nothing to measure");
    ensure!(options.messages.is_sorted() && options.messages[0] > 0, "--messages ascend");
    let header = options.common.header("reopen")?;
    let most = options.messages.last().copied().unwrap_or_default();
    options.common.ensure_room(store_bytes(most, options.text_bytes))?;
    let place = Place {
        folder: options.common.store("reopen")?,
        seed: options.common.seed,
        conversations: options.conversations,
        text_bytes: options.text_bytes,
        quick: options.common.quick,
    };
    let mut random = Random::new(options.common.seed, 0x6b69_6c6c);
    let known = place.messages();
    let (mut samples, mut streams, mut from) = (Vec::new(), vec![0], 0);
    for &messages in &options.messages {
        let fill = Fill { place: place.clone(), from, to: messages, conversations_bytes_max: None, close: None };
        let filling = Running::start(&Phase::Fill(fill))?;
        let filled: u64 = filling.line()?;
        filling.kill::<u64>()?;
        ensure!(filled == messages, "{filled} messages were filled in instead of {messages}");
        (from, streams[0]) = (messages, messages);
        for round in 0..options.rounds {
            let lasting = Duration::from_secs_f64(options.seconds * random.unit());
            let stream = streams.len() as u64;
            let serve = Serve { place: place.clone(), stream, text: known.text(stream * STREAM).to_owned() };
            let (sample, acknowledged) = one(serve, (messages, round), lasting)?;
            println!("  {}", line(&sample));
            samples.push(sample);
            streams.push(acknowledged);
        }
    }
    let whole = Whole { place: place.clone(), streams, others: true };
    let verified = Running::start(&Phase::Verify(whole))?.end()?;
    remove(&place.folder)?;
    let results = Results {
        version: 1,
        header: header.ended()?,
        rounds: options.rounds,
        conversations: options.conversations,
        text_bytes: options.text_bytes,
        samples,
        verified,
    };
    print(&results);
    options.common.write("reopen", &results, None)
}

/// Opens the killed store, and kills the process after a while; what was measured, and what it had acknowledged by
/// then.
fn one(serve: Serve, (messages, round): (u64, usize), lasting: Duration) -> anyhow::Result<(Sample, u64)> {
    forget(&serve.place.folder, false)?;
    let phase = Phase::Serve(serve);
    let begin = Instant::now();
    let serving = Running::start(&phase)?;
    let Said::Accepting(accepting) = serving.line()? else { bail!("it acknowledged before it accepted") };
    let accept_ns = u64::try_from(begin.elapsed().as_nanos())?;
    let end = Instant::now() + lasting;
    let mut acknowledged = 0;
    let mut hear = |said: Said| {
        if let Said::Acknowledged(count) = said {
            acknowledged = acknowledged.max(count);
        }
    };
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        if let Some(said) = serving.line_within(left)? {
            hear(said);
        }
    }
    serving.kill()?.into_iter().for_each(&mut hear);
    Ok((Sample { messages, round, accept_ns, accepting }, acknowledged))
}

fn line(sample: &Sample) -> String {
    let of = &sample.accepting;
    format!(
        "{} messages, round {}: accepts after {}; opened in {}, durable after {}; read {} of log and {} in all by \
         {} reads, {} records replayed",
        grouped(sample.messages as f64),
        sample.round + 1,
        time(sample.accept_ns as f64),
        time(of.open_ns as f64),
        time(of.durable_ns as f64),
        mebibytes(of.log_bytes_read),
        mebibytes(of.read_bytes),
        of.reads,
        grouped(of.records_replayed as f64),
    )
}

fn print(results: &Results) {
    println!(
        "\n| messages | accepts after (least–most) | longest | open alone | log read | records replayed |\n\
         |---:|---|---:|---:|---:|---:|"
    );
    let mut sizes: Vec<u64> = results.samples.iter().map(|sample| sample.messages).collect();
    sizes.dedup();
    for size in sizes {
        let of = |figure: fn(&Sample) -> f64| {
            Figure::of(results.samples.iter().filter(|sample| sample.messages == size).map(figure))
        };
        let (Some(accept), Some(open)) =
            (of(|sample| sample.accept_ns as f64), of(|sample| sample.accepting.open_ns as f64))
        else {
            continue;
        };
        let middle = |figure| of(figure).map_or(0.0, |figure: Figure| figure.median);
        println!(
            "| {} | {} ({}–{}) | {} | {} | {} | {} |",
            grouped(size as f64),
            time(accept.median),
            time(accept.least),
            time(accept.most),
            time(accept.most),
            time(open.median),
            mebibytes(middle(|sample| sample.accepting.log_bytes_read as f64) as u64),
            grouped(middle(|sample| sample.accepting.records_replayed as f64)),
        );
    }
    println!(
        "\nread back: {} acknowledged messages, each once and as it was sent, and {} that were under way when a \
         process was killed",
        grouped(results.verified.messages as f64),
        grouped(results.verified.others as f64),
    );
}

/// The phase that fills.
pub(crate) fn fill(fill: &Fill) -> anyhow::Result<()> {
    let place = &fill.place;
    let mut options = place.lane();
    if let Some(bytes) = fill.conversations_bytes_max {
        options.engine.conversations_bytes_max = bytes;
    }
    let lane = Lane::open(&place.folder, &options)?;
    let workload = Appends { messages: place.messages(), next: fill.from };
    let mut progress = Progress::new();
    let text = format!("filling to {} messages", grouped(fill.to as f64));
    let told = Told::new(&mut progress, &text);
    let until = Until::Answered(fill.to - fill.from);
    load::closed(&lane, &place.folder, workload, "append", IN_FLIGHT, until, told)?;
    progress.finish();
    let Some(rest_max) = fill.close else {
        phases::say(&fill.to)?;
        return phases::wait_for_the_end();
    };
    lane.settle(Duration::from_secs(1), rest_max)?;
    lane.close()?;
    phases::say(&fill.to)
}

/// The phase that is killed.
pub(crate) fn serve(serve: &Serve) -> anyhow::Result<()> {
    let place = &serve.place;
    let first = (serve.stream * STREAM, serve.text.clone());
    let messages = Arc::new(Messages::with_first(place.seed, place.conversations, place.text_bytes, first));
    let begin = Instant::now();
    let lane = Lane::open(&place.folder, &place.lane())?;
    let open_ns = u64::try_from(begin.elapsed().as_nanos())?;
    let workload =
        Acknowledging { appends: Appends { messages, next: serve.stream * STREAM }, done: BTreeSet::new(), low: 0 };
    let one = load::closed(&lane, &place.folder, workload, "append", 1, Until::Answered(1), None)?;
    let durable_ns = u64::try_from(begin.elapsed().as_nanos())?;
    let report = lane.report();
    let by = [By::Log, By::Upkeep, By::Flush, By::Merge, By::Read].map(|by| lane.traffic().read_by(by));
    phases::say(&Said::Accepting(Accepting {
        open_ns,
        durable_ns,
        log_bytes_read: report.log_bytes_read,
        records_replayed: report.records,
        reads: by.iter().map(|(reads, _)| reads).sum(),
        read_bytes: by.iter().map(|(_, bytes)| bytes).sum(),
        position: report.position.0,
    }))?;
    phases::say(&Said::Acknowledged(1))?;
    // Longer than it will live.
    let until = Until::Elapsed(Duration::from_secs(86_400));
    load::closed(&lane, &place.folder, one.workload, "append", IN_FLIGHT, until, None)?;
    bail!("it was not killed")
}

/// The phase that reads everything back.
pub(crate) fn read_back(whole: &Whole) -> anyhow::Result<()> {
    let place = &whole.place;
    let lane = Lane::open(&place.folder, &place.lane())?;
    let expected = Expected { messages: place.messages(), streams: whole.streams.clone(), others: whole.others };
    let mut progress = Progress::new();
    let verified = verify::verify(&lane, &expected, &mut progress)?;
    progress.finish();
    lane.close()?;
    phases::say(&verified)
}

/// Messages of a stream that says what is acknowledged.
struct Acknowledging {
    appends: Appends,
    /// Acknowledged beyond `low`: as many as are in flight at most.
    done: BTreeSet<u64>,
    /// All below are acknowledged.
    low: u64,
}

impl Workload for Acknowledging {
    type Order = u64;

    fn order(&mut self, kind: usize) -> u64 {
        self.appends.order(kind)
    }

    fn command(&self, number: &u64, people: &mut People) -> Command {
        self.appends.command(number, people)
    }

    fn done(&mut self, number: u64, done: Done) -> anyhow::Result<()> {
        self.appends.done(number, done)?;
        self.done.insert(number % STREAM);
        let before = self.low;
        while self.done.remove(&self.low) {
            self.low += 1;
        }
        if before / SAY_EVERY != self.low / SAY_EVERY {
            phases::say(&Said::Acknowledged(self.low))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_what_is_acknowledged_without_a_gap() {
        let messages = Arc::new(Messages::new(1, 4, 40));
        let appends = Appends { messages, next: 3 * STREAM };
        let mut workload = Acknowledging { appends, done: BTreeSet::new(), low: 0 };
        let numbers: Vec<u64> = (0..4).map(|_| workload.order(0)).collect();
        let sent = || Done::Sent {
            sequence: antiphon_wire::ids::Sequence(2),
            ordinal: antiphon_wire::ids::Ordinal(1),
            time: antiphon_wire::ids::TimestampMs(1),
            duplicate: false,
        };
        for (place, low) in [(1, 0), (0, 2), (3, 2), (2, 4)] {
            workload.done(numbers[place], sent()).unwrap();
            assert_eq!(workload.low, low);
        }
    }
}
