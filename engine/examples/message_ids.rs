//! What remembering message ids costs: writes many, in the order of their time as ten thousand sends a second make them, and shows memory,
//! bytes and reads on the way. Ids and their segments are laid out as the engine lays them out; messages are left away.
//!
//! `cargo run --release -p antiphon-engine --example message_ids FOLDER [millions of ids] [of 100 that have a time] [filter MiB] [hours]`.
//! FOLDER must not exist; it is removed at the end. The last number is the window. It checks what it is told: every id within the window is
//! found, every fresh one is not.

#![expect(
    clippy::disallowed_methods,
    reason = "a measurement reads the clock and the disk; what it measures gets both from here"
)]

use std::{
    cell::Cell,
    collections::BTreeMap,
    fs,
    os::unix::fs::FileExt as _,
    path::PathBuf,
    pin::pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Instant,
};

use antiphon_engine::{
    cache::Cache,
    compaction::{self, Expiry, YieldNow},
    row::Change,
    seams::{AlignedBuffer, File, FileError, Files, OpenMode, PAGE_BYTES},
    segment::{KeyFilter, SegmentSettings},
    sorted::{Apart, FlushMark, Sorted, SortedSettings},
};

const IDS_PER_FLUSH: u64 = 100_000;
const IDS_PER_SECOND: u64 = 10_000;
const CONVERSATIONS: u64 = 1_000_000;
const START_MS: u64 = 1_700_000_000_000;
const UNTIMED: u8 = 3;
const TIMED: u8 = 4;

/// A folder, with its reads and writes counted.
#[derive(Clone)]
struct Disk {
    folder: Rc<PathBuf>,
    counts: Rc<Counts>,
}

#[derive(Default)]
struct Counts {
    reads: Cell<u64>,
    read_bytes: Cell<u64>,
    written_bytes: Cell<u64>,
}

struct DiskFile {
    file: fs::File,
    name: String,
    counts: Rc<Counts>,
}

fn failed(name: &str, error: &std::io::Error) -> FileError {
    match error.kind() {
        std::io::ErrorKind::NotFound => FileError::NotFound { name: name.to_owned() },
        _ => FileError::Io { name: name.to_owned(), text: error.to_string() },
    }
}

fn add(count: &Cell<u64>, number: usize) {
    count.set(count.get() + number as u64);
}

impl Files for Disk {
    type File = DiskFile;

    async fn open(&self, name: &str, mode: OpenMode) -> Result<DiskFile, FileError> {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(mode != OpenMode::Read).create_new(mode == OpenMode::Create);
        let file = options.open(self.folder.join(name)).map_err(|error| failed(name, &error))?;
        Ok(DiskFile { file, name: name.to_owned(), counts: Rc::clone(&self.counts) })
    }

    async fn list(&self) -> Result<Vec<String>, FileError> {
        let entries = fs::read_dir(&*self.folder).map_err(|error| failed(".", &error))?;
        Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
    }

    async fn rename(&self, from: &str, to: &str) -> Result<(), FileError> {
        fs::rename(self.folder.join(from), self.folder.join(to)).map_err(|error| failed(from, &error))
    }

    async fn remove(&self, name: &str) -> Result<(), FileError> {
        fs::remove_file(self.folder.join(name)).map_err(|error| failed(name, &error))
    }

    /// What is measured does not depend on when the disk has it.
    async fn sync_folder(&self) -> Result<(), FileError> {
        Ok(())
    }
}

impl File for DiskFile {
    async fn read_at(&self, offset: u64, length: usize) -> Result<AlignedBuffer, FileError> {
        let mut buffer = AlignedBuffer::zeroed(length);
        let mut filled = 0;
        while filled < length {
            match self.file.read_at(&mut buffer[filled..length], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) => return Err(failed(&self.name, &error)),
            }
        }
        add(&self.counts.reads, 1);
        add(&self.counts.read_bytes, length);
        Ok(buffer)
    }

    async fn write_at(&self, offset: u64, buffer: AlignedBuffer) -> (AlignedBuffer, Result<(), FileError>) {
        let written = self.file.write_all_at(&buffer, offset).map_err(|error| failed(&self.name, &error));
        add(&self.counts.written_bytes, buffer.len());
        (buffer, written)
    }

    async fn sync(&self) -> Result<(), FileError> {
        Ok(())
    }

    fn size_bytes(&self) -> u64 {
        self.file.metadata().map_or(0, |metadata| metadata.len().next_multiple_of(PAGE_BYTES as u64))
    }
}

/// As the engine's horizon: ids from before this minute, or stored before it.
#[derive(Clone, Copy)]
struct Before(u32);

impl Expiry for Before {
    fn is_expired(&self, key: &[u8], value: &[u8]) -> bool {
        let word = |bytes: &[u8]| bytes.first_chunk::<4>().map(|chunk| u32::from_be_bytes(*chunk));
        match key.first() {
            Some(&TIMED) => word(&key[1..]).is_some_and(|minute| minute < self.0),
            _ => value.last_chunk::<8>().is_some_and(|time| u64::from_le_bytes(*time) / 60_000 < u64::from(self.0)),
        }
    }

    fn covers(&self, first_key: &[u8], last_key: &[u8], times: Option<(u64, u64)>) -> bool {
        let bound = [&[TIMED][..], &self.0.to_be_bytes()].concat();
        let untimed = first_key < &[TIMED][..];
        last_key < bound.as_slice() && (!untimed || times.is_some_and(|(_, most)| most / 60_000 < u64::from(self.0)))
    }
}

/// SplitMix64.
fn mix(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

fn time_of(number: u64) -> u64 {
    START_MS + number * 1_000 / IDS_PER_SECOND
}

/// The row of an id: the one with this number, or a fresh one that was made at the same time.
fn row(number: u64, timed_percent: u64, is_fresh: bool) -> (Vec<u8>, Vec<u8>) {
    let random = mix(number * 2 + u64::from(is_fresh));
    let conversation = mix(random % CONVERSATIONS) as u128 * 0x9e37_79b9_7f4a_7c15;
    let (time, is_timed) = (time_of(number), mix(number) % 100 < timed_percent);
    let mut id = [&mix(random).to_be_bytes()[..], &mix(!random).to_be_bytes()].concat();
    let mut value = number.to_le_bytes().to_vec();
    if is_timed {
        id[..6].copy_from_slice(&time.to_be_bytes()[2..]);
        let minute = ((time / 60_000) as u32).to_be_bytes();
        return ([&[TIMED][..], &minute, &conversation.to_be_bytes(), &id].concat(), value);
    }
    value.extend(time.to_le_bytes());
    ([&[UNTIMED][..], &conversation.to_be_bytes(), &id].concat(), value)
}

fn settings(filters: &Cache) -> SortedSettings {
    let segment = SegmentSettings { filter: KeyFilter::WHOLE_KEYS, ..SegmentSettings::default() };
    SortedSettings {
        segment,
        compaction: compaction::Settings::default(),
        cache: Cache::new(64 << 20),
        apart: Some(Apart {
            holds: |key| key.first().is_some_and(|range| *range >= UNTIMED),
            segment: SegmentSettings { block_bytes: 64 * 1024, paged_filter: true, ..segment },
            compaction: compaction::Settings { final_bytes: 256 << 20, ..compaction::Settings::default() },
            filters: filters.clone(),
        }),
    }
}

/// Files that do their work at once leave nothing to wait for but a pause.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
    }
}

/// Kilobytes that the process holds now, and the most that it held.
fn memory() -> (u64, u64) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
    };
    (of("VmRSS"), of("VmHWM"))
}

struct Bench {
    sorted: Sorted<Disk>,
    counts: Rc<Counts>,
    filters: Cache,
    timed_percent: u64,
}

impl Bench {
    fn resident_bytes(&self) -> usize {
        let (indexes, filters) = self.sorted.runs().resident_bytes();
        indexes + filters
    }

    /// Looks ids up as a send does: without a read where that is enough. Gives how many had to read, reads, and nanoseconds for each.
    fn look_up(&self, numbers: impl Iterator<Item = u64>, is_fresh: bool) -> (u64, u64, f64) {
        let (before, begun) = (self.counts.reads.get(), Instant::now());
        let (mut read, mut count) = (0, 0);
        for number in numbers {
            let (key, value) = row(number, self.timed_percent, is_fresh);
            let runs = self.sorted.runs();
            count += 1;
            if !runs.may_contain(&key) {
                assert!(is_fresh, "id {number} is not known");
                continue;
            }
            read += 1;
            let found = block_on(runs.get_at_once(&key)).expect("the disk reads").and_then(Change::value);
            assert_eq!(found.as_deref(), Some(value.as_slice()).filter(|_| !is_fresh), "id {number}");
        }
        let nanoseconds = begun.elapsed().as_nanos() as f64 / f64::from(count);
        (read, self.counts.reads.get() - before, nanoseconds)
    }
}

fn main() {
    let argument = |index: usize, default: u64| {
        std::env::args().nth(index).map_or(default, |text| text.parse().expect("a number"))
    };
    let folder = PathBuf::from(std::env::args().nth(1).expect("a folder that does not exist"));
    let (ids, timed_percent) = (argument(2, 50) * 1_000_000, argument(3, 100));
    let (filter_bytes, window_ms) = (argument(4, 32) << 20, argument(5, 168) * 3_600_000);
    fs::create_dir(&folder).expect("a folder that does not exist");
    let counts = Rc::new(Counts::default());
    let disk = Disk { folder: Rc::new(folder.clone()), counts: Rc::clone(&counts) };
    let filters = Cache::new(filter_bytes as usize);
    let sorted = block_on(Sorted::create(disk, settings(&filters), 1, 0, Vec::new())).expect("a new folder");
    let bench = Bench { sorted, counts: Rc::clone(&counts), filters, timed_percent };
    println!("ids, of which {timed_percent} of 100 with a time; a window of {} hours", window_ms / 3_600_000);
    println!(
        "million | segments | bytes an id | written × | index MiB | filters MiB | RSS MiB | fresh: reading, reads, ns"
    );
    let (mut flushed_bytes, mut number) = (0u64, 0u64);
    while number < ids {
        let rows: BTreeMap<Vec<u8>, Vec<u8>> =
            (number..number + IDS_PER_FLUSH).map(|number| row(number, timed_percent, false)).collect();
        let mark =
            FlushMark { times: Some((time_of(number), time_of(number + IDS_PER_FLUSH))), ..FlushMark::default() };
        let before = counts.written_bytes.get();
        let rows = rows.iter().map(|(key, value)| (key, Change::Put(value)));
        block_on(bench.sorted.flush(rows, mark)).expect("the disk writes");
        flushed_bytes += counts.written_bytes.get() - before;
        number += IDS_PER_FLUSH;
        let horizon = Before((time_of(number).saturating_sub(window_ms) / 60_000) as u32);
        block_on(bench.sorted.drop_expired(horizon)).expect("the disk writes");
        while block_on(bench.sorted.compact(YieldNow, horizon)).expect("the disk works").is_some() {}
        if number.is_multiple_of((ids / 10).max(IDS_PER_FLUSH)) {
            let (read, reads, nanoseconds) = bench.look_up(number..number + 10_000, true);
            let shown = bench.sorted.manifest();
            let bytes: u64 = shown.segments.iter().map(|segment| segment.file_bytes).sum();
            let rows: u64 = shown.segments.iter().map(|segment| segment.rows).sum();
            println!(
                "{:7.1} | {:8} | {:11.1} | {:9.2} | {:9.1} | {:11.1} | {:7} | {read}, {reads}, {nanoseconds:.0}",
                number as f64 / 1e6,
                shown.segments.len(),
                bytes as f64 / rows as f64,
                counts.written_bytes.get() as f64 / flushed_bytes as f64,
                bench.resident_bytes() as f64 / f64::from(1 << 20),
                bench.filters.statistics().bytes as f64 / f64::from(1 << 20),
                memory().0 / 1024,
            );
        }
    }
    let oldest = ids.saturating_sub(window_ms.saturating_sub(3_600_000) / 1_000 * IDS_PER_SECOND);
    let old = |seed: u64| (0..2_000).map(move |at| oldest + mix(at ^ seed << 32) % (ids - oldest));
    for (what, is_fresh) in [("retries of any age", false), ("fresh ids of any age", true)] {
        let (read, reads, nanoseconds) = bench.look_up(old(7), is_fresh);
        println!("2000 {what}: {read} read, {reads} reads, {:.1} µs each", nanoseconds / 1e3);
    }
    println!("most memory: {} MiB", memory().1 / 1024);
    fs::remove_dir_all(&folder).expect("the folder goes");
}
