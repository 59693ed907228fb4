//! Carries out a job on an engine, measures, and checks what came of it. What is timed is the engine's calls alone:
//! messages are made before and answers compared after.

use std::{
    fs,
    io::{self, Read as _, Write},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};

use crate::{
    Ask, Store,
    counters::{Meter, forget, resident_peak_bytes, settle, space},
    data::{Contents, Data, Message, Stream},
    job::{Append, Job, Load, Read, Reopen, Report, Usage, Work},
    latencies::{nanoseconds, summary},
};

/// Entries of a page: what a client asks for by default.
pub const PAGE_ITEMS: u32 = 50;

/// Messages that are made ahead of the engine: 4 MB of them, so that what has to be written is in the processor's cache
/// for none.
const MESSAGES_AHEAD: usize = 16_384;

/// Pages that are read before they are compared.
const PAGES_AHEAD: usize = 500;

/// Entries of a page when all are compared: the most that our engine gives.
const CHECK_ITEMS: u32 = 200;

pub(crate) fn run<S: Store>(job: &Job) -> anyhow::Result<()> {
    let data = Data { seed: job.seed, conversations: job.conversations, text_bytes: job.text_bytes };
    match job.work {
        Work::Append { batch, batches, .. } => {
            report(&Report::Append(append::<S>(&job.folder, &data, batch, batches)?))
        }
        Work::Load { messages, tail, batch } => load::<S>(&job.folder, &data, messages, tail, batch),
        Work::Reopen { messages } => report(&Report::Reopen(reopen::<S>(&job.folder, &data, messages)?)),
        Work::Read { messages, pages, latest, drop_caches } => {
            let asks = Contents::new(&data, messages).asks(pages, PAGE_ITEMS, latest);
            report(&Report::Read(read::<S>(&job.folder, &data, messages, &asks, drop_caches)?))
        }
    }
}

/// Prints one line.
///
/// # Errors
/// Nobody reads it.
pub fn report(report: &Report) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(report)?);
    Ok(io::stdout().flush()?)
}

/// An engine that is being filled.
struct Filling<S> {
    store: S,
    stream: Stream,
    took: Vec<Duration>,
}

impl<S: Store> Filling<S> {
    fn new(folder: &Path, data: &Data) -> anyhow::Result<Self> {
        fs::create_dir_all(folder)?;
        ensure!(fs::read_dir(folder)?.next().is_none(), "{} is not empty", folder.display());
        Ok(Self { store: S::open(folder, data)?, stream: data.stream(), took: Vec::new() })
    }

    /// Appends so many messages more; the result is what the process used while the engine was at it. What an engine
    /// does beside that, it does as well while messages are made, so that share is small and nobody's.
    fn append(&mut self, folder: &Path, messages: u64, batch: usize) -> anyhow::Result<Usage> {
        let mut used = Usage::default();
        let mut left = usize::try_from(messages)?;
        while left > 0 {
            let count = left.min(MESSAGES_AHEAD.next_multiple_of(batch));
            let made: Vec<Message> = self.stream.by_ref().take(count).collect();
            let batches: Vec<Vec<Message>> = made.chunks(batch).map(<[Message]>::to_vec).collect();
            let meter = Meter::start(folder)?;
            self.took.extend(self.store.append(&batches)?);
            used = sum(used, meter.usage()?);
            left -= count;
        }
        Ok(used)
    }
}

fn sum(one: Usage, other: Usage) -> Usage {
    Usage {
        cpu_ns: one.cpu_ns + other.cpu_ns,
        waited_ns: one.waited_ns + other.waited_ns,
        read_bytes: one.read_bytes + other.read_bytes,
        write_call_bytes: one.write_call_bytes + other.write_call_bytes,
        write_bytes: one.write_bytes + other.write_bytes,
        device_write_bytes: other.device_write_bytes.map(|bytes| bytes + one.device_write_bytes.unwrap_or(0)),
    }
}

fn append<S: Store>(folder: &Path, data: &Data, batch: usize, batches: usize) -> anyhow::Result<Append> {
    let mut filling = Filling::<S>::new(folder, data)?;
    let (warm, messages) = ((batches / 10 * batch) as u64, (batches * batch) as u64);
    filling.append(folder, warm, batch)?;
    filling.took.clear();
    let log_bytes_before = filling.store.log_bytes();
    let usage = filling.append(folder, messages, batch)?;
    let log_bytes = filling.store.log_bytes().zip(log_bytes_before).map(|(after, before)| after - before);
    let latencies = summary(&mut filling.took);
    let checked = check_all(&mut filling.store, &Contents::new(data, warm + messages))?;
    filling.store.close()?;
    Ok(Append { messages, latencies, usage, log_bytes, checked })
}

fn load<S: Store>(folder: &Path, data: &Data, messages: u64, tail: u64, batch: usize) -> anyhow::Result<()> {
    let mut filling = Filling::<S>::new(folder, data)?;
    // What is written meanwhile by an engine's other threads counts, so this meter runs all the time.
    let whole = Meter::start(folder)?;
    let used = filling.append(folder, messages, batch)?;
    let usage = Usage { cpu_ns: used.cpu_ns, waited_ns: used.waited_ns, ..whole.usage()? };
    let latencies = summary(&mut filling.took);
    let loaded = space(folder, S::is_log)?;
    let begin = Instant::now();
    let settled = settle()?;
    let loaded = Load {
        messages,
        latencies,
        usage,
        space: loaded,
        settled_usage: whole.usage()?,
        settled_space: space(folder, S::is_log)?,
        settle_ns: nanoseconds(&begin.elapsed()),
        settled,
        resident_peak_bytes: resident_peak_bytes()?,
    };
    filling.append(folder, tail, batch)?;
    report(&Report::Load(loaded))?;
    // Nobody writes there: this ends by a kill, or when who asked is gone.
    io::stdin().read_to_end(&mut Vec::new())?;
    bail!("it was not killed")
}

fn reopen<S: Store>(folder: &Path, data: &Data, messages: u64) -> anyhow::Result<Reopen> {
    forget(folder, false)?;
    let contents = Contents::new(data, messages);
    let ask = contents.asks(1, PAGE_ITEMS, true).pop().context("there is nothing to read")?;
    let one_more: Vec<Message> = data.stream().skip(usize::try_from(messages)?).take(1).collect();
    let meter = Meter::start(folder)?;
    let begin = Instant::now();
    let mut store = S::open(folder, data)?;
    let open_ns = nanoseconds(&begin.elapsed());
    let page = store.read(&[ask])?;
    let first_read_ns = nanoseconds(&begin.elapsed());
    store.append(&[one_more])?;
    let first_write_ns = nanoseconds(&begin.elapsed());
    let usage = meter.usage()?;
    let resident_peak_bytes = resident_peak_bytes()?;
    ensure_right(&contents, &ask, &page[0].rows)?;
    let checked = check_all(&mut store, &Contents::new(data, messages + 1))?;
    store.close()?;
    Ok(Reopen { open_ns, first_read_ns, first_write_ns, usage, checked, resident_peak_bytes })
}

fn read<S: Store>(folder: &Path, data: &Data, messages: u64, asks: &[Ask], drop_all: bool) -> anyhow::Result<Read> {
    let contents = Contents::new(data, messages);
    let mut store = S::open(folder, data)?;
    // What is left to compact would be measured, and would fill the page cache.
    ensure!(settle()?, "it does not come to rest after it was opened");
    forget(folder, drop_all)?;
    let mut checked = 0;
    let mut pass = || {
        let (mut took, mut used) = (Vec::new(), Usage::default());
        for asks in asks.chunks(PAGES_AHEAD) {
            let meter = Meter::start(folder)?;
            let pages = store.read(asks)?;
            used = sum(used, meter.usage()?);
            ensure!(pages.len() == asks.len(), "a question was not answered");
            for (ask, page) in asks.iter().zip(pages) {
                ensure_right(&contents, ask, &page.rows)?;
                checked += page.rows.len() as u64;
                took.push(page.took);
            }
        }
        Ok::<_, anyhow::Error>((summary(&mut took), used))
    };
    let (cold, cold_usage) = pass()?;
    let (warm, warm_usage) = pass()?;
    let resident_peak_bytes = resident_peak_bytes()?;
    store.close()?;
    Ok(Read { cold, cold_usage, warm, warm_usage, checked, resident_peak_bytes })
}

/// Reads every message of every conversation; how many there are.
fn check_all<S: Store>(store: &mut S, contents: &Contents) -> anyhow::Result<u64> {
    let mut asks = Vec::new();
    for conversation in 0..contents.conversations() {
        // From the end back to the first one. An empty conversation is asked for, too: there must be nothing.
        let (mut before, mut left) = (None, contents.count(conversation));
        loop {
            asks.push(Ask { conversation, before, limit: CHECK_ITEMS });
            if left <= u64::from(CHECK_ITEMS) {
                break;
            }
            left -= u64::from(CHECK_ITEMS);
            before = Some(left + 1);
        }
    }
    let mut checked = 0;
    for asks in asks.chunks(PAGES_AHEAD) {
        let pages = store.read(asks)?;
        ensure!(pages.len() == asks.len(), "a question was not answered");
        for (ask, page) in asks.iter().zip(pages) {
            ensure_right(contents, ask, &page.rows)?;
            checked += page.rows.len() as u64;
        }
    }
    ensure!(checked == contents.total(), "{checked} messages were read back, {} were stored", contents.total());
    Ok(checked)
}

fn ensure_right(contents: &Contents, ask: &Ask, rows: &[crate::Row]) -> anyhow::Result<()> {
    match contents.fault(ask, rows) {
        None => Ok(()),
        Some(fault) => bail!("what was read is not what was written: {fault}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{General, rows::tests::Memory};

    const DATA: Data = Data { seed: 3, conversations: 4, text_bytes: 30 };

    fn filled() -> General<Memory> {
        let mut store = General::<Memory>::open(Path::new(""), &DATA).unwrap();
        store.append(&[DATA.stream().take(2_000).collect()]).unwrap();
        store
    }

    #[test]
    fn every_message_is_looked_at() {
        assert_eq!(check_all(&mut filled(), &Contents::new(&DATA, 2_000)).unwrap(), 2_000);
    }

    #[test]
    fn conversations_without_a_message_are_no_fault() {
        let data = Data { conversations: 1_000, ..DATA };
        let mut store = General::<Memory>::open(Path::new(""), &data).unwrap();
        store.append(&[data.stream().take(100).collect()]).unwrap();
        assert_eq!(check_all(&mut store, &Contents::new(&data, 100)).unwrap(), 100);
    }

    #[test]
    fn a_message_too_many_or_too_few_is_found() {
        assert!(check_all(&mut filled(), &Contents::new(&DATA, 2_001)).is_err());
        assert!(check_all(&mut filled(), &Contents::new(&DATA, 1_999)).is_err());
    }

    #[test]
    fn durable_batches_are_counted_and_read_back() {
        let folder = std::env::temp_dir().join(format!("antiphon-append-{}", std::process::id()));
        let report = append::<General<Memory>>(&folder, &DATA, 8, 20).unwrap();
        assert_eq!((report.messages, report.latencies.count, report.checked), (160, 20, 176));
        fs::remove_dir_all(folder).unwrap();
    }
}
