//! Reading the log after a start: replays what segments do not hold, and tells a torn tail from damage.
//!
//! A batch is taken if its checksum holds, its salt and lane are ours, its generation is its file's, its first position follows the
//! last batch's and its chain is that batch's checksum. Where that fails, the rest of the log is searched page by page. If no later
//! batch exists the write there never completed and was never acknowledged: the log ends before it. If one exists, what lies between was
//! acknowledged and is damaged: it is reported, harmless only if segments hold all of it. What was lost the batch behind the damage
//! tells; conversations that may have lost a change of members are hidden, since nobody knows who may see them.
//!
//! Bounded by the log's files, whatever they contain: every page is looked at once, memory is one piece of
//! [`BATCH_BYTES_LIMIT`].

use std::{collections::VecDeque, rc::Rc};

use antiphon_wire::ids::{LanePosition, TimestampMs};

use crate::{
    error::{DamagedKeys, StoreError},
    hash::IdHash,
    lane::{
        format::{BATCH_BYTES_LIMIT, Batch, Fault, Header, VERSION},
        log::{Log, LogFile, UsedFile, number_of},
        record::Record,
        sealed::Opener,
        witness::Witness,
    },
    memtable::Memtable,
    report::{LogDamage, OpenReport, TornTail},
    seams::{AlignedBuffer, File, FileError, Files, OpenMode, PAGE_BYTES},
};

/// Which log is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings<'a> {
    pub(crate) lane: u16,
    pub(crate) salt: u64,
    /// Records up to here are in segments.
    pub(crate) flushed: u64,
    /// Free files of another size are not used again.
    pub(crate) file_bytes: u64,
    pub(crate) hash: IdHash,
    /// How its records are read.
    pub(crate) opener: Opener<'a>,
}

/// What the log held.
pub(crate) struct Recovered<F: Files> {
    pub(crate) log: Log<F::File>,
    pub(crate) memtable: Memtable,
    /// Position of the last record.
    pub(crate) position: u64,
    /// Time of the last entry replayed.
    pub(crate) time: TimestampMs,
    pub(crate) report: OpenReport,
    /// What the last batch with records held.
    pub(crate) witness: Witness,
    /// The last batch is an empty one, or there is none.
    pub(crate) sealed: bool,
}

/// Reads all log files among `names`.
pub(crate) async fn recover<F: Files>(
    files: &F,
    names: &[String],
    settings: Settings<'_>,
) -> Result<Recovered<F>, StoreError> {
    let mut found = Vec::new();
    let mut next_name = 0;
    let mut names: Vec<_> = names.iter().filter_map(|name| Some((number_of(name)?, name))).collect();
    names.sort_unstable();
    let mut bytes_read = 0;
    for (number, name) in names {
        next_name = next_name.max(number + 1);
        let file = Rc::new(files.open(name, OpenMode::Log).await?);
        let bytes = file.size_bytes() / PAGE_BYTES as u64 * PAGE_BYTES as u64;
        let log_file = LogFile { name: name.clone(), file, bytes };
        found.push(Found::identify(log_file, &settings, &mut bytes_read).await?);
    }
    // Two of one generation are possible if a batch was written to the beginning of a wrong file: then the one that begins earlier is it.
    found.sort_by_key(|found| (found.generation, found.first));
    let mut replay = Replay::new(settings, next_name);
    replay.report.log_bytes_read = bytes_read;
    for of in &found {
        let next_first = found.iter().find(|next| next.generation > of.generation).map(|next| next.first);
        replay.file(of, next_first).await?;
    }
    Ok(replay.finish(found))
}

/// A log file and the newest generation that it holds.
struct Found<F> {
    log_file: LogFile<F>,
    /// 0 if it holds no batch.
    generation: u64,
    /// First position of its first batch of that generation.
    first: u64,
    /// The beginning, if it is not a batch but looks like one of ours.
    torn: Option<(Fault, u64)>,
}

impl<F: File> Found<F> {
    async fn identify(log_file: LogFile<F>, settings: &Settings<'_>, bytes_read: &mut u64) -> Result<Self, StoreError> {
        let mut window = Window::new(&log_file, PAGE_BYTES);
        let name = &log_file.name;
        let (generation, first, torn) = match window.check(0).await? {
            Ok(Checked { header, .. }) => {
                if header.salt != settings.salt || header.lane != settings.lane {
                    return Err(foreign(name, header.salt, settings));
                }
                // Where the first batch of a newer generation never arrived, an older one is left. The second begins within the largest.
                let newest = window.newest(settings, BATCH_BYTES_LIMIT as u64).await?;
                let header = newest.filter(|newest| newest.generation > header.generation).unwrap_or(header);
                (header.generation, header.first, None)
            }
            Err(Fault::Newer { version, salt }) if salt == settings.salt => return Err(newer(name, version)),
            Err(Fault::Newer { salt, .. }) => return Err(foreign(name, salt, settings)),
            Err(fault) => {
                // A new generation's first write that did not complete, over an old generation or nothing; or damage.
                let torn = window.generation_claimed(0, settings).await?.map(|generation| (fault, generation));
                let newest = window.newest(settings, u64::MAX).await?;
                let (generation, first) = newest.map_or((0, 0), |header| (header.generation, header.first));
                (generation, first, torn)
            }
        };
        *bytes_read += window.bytes_read;
        Ok(Self { log_file, generation, first, torn })
    }
}

/// A log file as its batches tell, without replaying them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Surveyed {
    pub(crate) name: String,
    pub(crate) bytes: u64,
    /// 0 if it was never used.
    pub(crate) generation: u64,
    /// From its beginning to the first that does not fit.
    pub(crate) batches: u64,
    pub(crate) records: u64,
    /// Bytes of those batches, with padding.
    pub(crate) used: u64,
    /// Position of the first record.
    pub(crate) first: u64,
    /// Position of the last one; the one before `first` if there is none.
    pub(crate) last: u64,
}

/// Looks at all log files among `names`, the oldest generation first.
pub(crate) async fn survey<F: Files>(
    files: &F,
    names: &[String],
    settings: &Settings<'_>,
) -> Result<Vec<Surveyed>, StoreError> {
    let mut surveyed = Vec::new();
    for name in names.iter().filter(|name| number_of(name).is_some()) {
        let file = Rc::new(files.open(name, OpenMode::Log).await?);
        let bytes = file.size_bytes() / PAGE_BYTES as u64 * PAGE_BYTES as u64;
        let log_file = LogFile { name: name.clone(), file, bytes };
        let found = Found::identify(log_file, settings, &mut 0).await?;
        let (generation, first) = (found.generation, found.first);
        let last = first.saturating_sub(1);
        let mut of = Surveyed { name: name.clone(), bytes, generation, batches: 0, records: 0, used: 0, first, last };
        let mut window = Window::new(&found.log_file, BATCH_BYTES_LIMIT);
        while generation > 0 && of.used < bytes {
            let Ok(batch) = window.check(of.used).await? else { break };
            if batch.header.salt != settings.salt || batch.header.generation != generation {
                break;
            }
            of.batches += 1;
            of.records += u64::from(batch.header.records);
            of.used += batch.padded;
            of.last = batch.end.saturating_sub(1);
        }
        surveyed.push(of);
    }
    surveyed.sort_by(|one, other| (one.generation, &one.name).cmp(&(other.generation, &other.name)));
    Ok(surveyed)
}

fn foreign(file: &str, found: u64, settings: &Settings<'_>) -> StoreError {
    StoreError::ForeignStore { file: file.into(), found, expected: settings.salt }
}

fn newer(file: &str, version: u16) -> StoreError {
    StoreError::NewerVersion { file: file.into(), found: u32::from(version), supported: u32::from(VERSION) }
}

/// The header and sizes of a batch that was checked.
#[derive(Clone, Copy)]
struct Checked {
    header: Header,
    padded: u64,
    end: u64,
    checksum: u32,
}

/// A piece of a file in memory that moves forward.
struct Window<'a, F> {
    log_file: &'a LogFile<F>,
    bytes: AlignedBuffer,
    start: u64,
    /// What is read at once when the window moves on.
    piece: usize,
    bytes_read: u64,
}

impl<'a, F: File> Window<'a, F> {
    fn new(log_file: &'a LogFile<F>, piece: usize) -> Self {
        Self { log_file, bytes: AlignedBuffer::zeroed(0), start: 0, piece, bytes_read: 0 }
    }

    async fn load(&mut self, offset: u64, length: usize) -> Result<(), FileError> {
        let length = (self.log_file.bytes - offset).min(length as u64) as usize;
        self.bytes = self.log_file.file.read_at(offset, length).await?;
        self.bytes_read += length as u64;
        self.start = offset;
        Ok(())
    }

    fn from(&self, offset: u64) -> Option<&[u8]> {
        let skipped = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        self.bytes.get(skipped..).filter(|rest| !rest.is_empty())
    }

    /// Checks the batch at `offset`, which lies in the file.
    async fn batch(&mut self, offset: u64) -> Result<Result<Batch<'_>, Fault>, FileError> {
        if offset >= self.log_file.bytes {
            return Ok(Err(Fault::None));
        }
        if self.from(offset).is_none() {
            self.load(offset, self.piece).await?;
        }
        let cut = matches!(self.from(offset).map(Batch::check), Some(Err(Fault::Length)));
        if cut && self.start + (self.bytes.len() as u64) < self.log_file.bytes {
            // The batch may reach beyond the window.
            self.load(offset, BATCH_BYTES_LIMIT).await?;
        }
        Ok(self.from(offset).map_or(Err(Fault::None), Batch::check))
    }

    async fn check(&mut self, offset: u64) -> Result<Result<Checked, Fault>, FileError> {
        let batch = self.batch(offset).await?;
        Ok(batch.map(|batch| Checked {
            header: batch.header,
            padded: batch.padded(),
            end: batch.end(),
            checksum: batch.checksum,
        }))
    }

    /// The generation that a broken batch at `offset` claims, if its salt is ours.
    async fn generation_claimed(&mut self, offset: u64, settings: &Settings<'_>) -> Result<Option<u64>, FileError> {
        if offset >= self.log_file.bytes {
            return Ok(None);
        }
        if self.from(offset).is_none() {
            self.load(offset, self.piece).await?;
        }
        let header = self.from(offset).and_then(|bytes| Some((bytes.get(24..32)?, bytes.get(32..40)?)));
        let claimed = header.filter(|(salt, _)| *salt == settings.salt.to_le_bytes());
        Ok(claimed.and_then(|(_, generation)| Some(u64::from_le_bytes(generation.try_into().ok()?))))
    }

    /// Looks for the first batch of the newest generation among those that begin in the file's first `bytes` or right behind.
    async fn newest(&mut self, settings: &Settings<'_>, bytes: u64) -> Result<Option<Header>, FileError> {
        self.piece = BATCH_BYTES_LIMIT;
        let mut newest: Option<Header> = None;
        let mut offset = 0;
        while offset < self.log_file.bytes && offset <= bytes {
            match self.check(offset).await? {
                Ok(batch) if batch.header.salt == settings.salt && batch.header.lane == settings.lane => {
                    if newest.is_none_or(|newest| newest.generation < batch.header.generation) {
                        newest = Some(batch.header);
                    }
                    offset += batch.padded;
                }
                _ => offset += PAGE_BYTES as u64,
            }
        }
        Ok(newest)
    }
}

/// Where reading stopped.
struct Stop {
    file: String,
    offset: u64,
    fault: Fault,
    /// It looks like a batch that was being written.
    claimed: bool,
}

struct Replay<'a, F: Files> {
    settings: Settings<'a>,
    report: OpenReport,
    memtable: Memtable,
    time: TimestampMs,
    /// The last batch: its checksum, and the position after it.
    last: Option<(u32, u64)>,
    witness: Witness,
    sealed: bool,
    stop: Option<Stop>,
    /// Used files, with where each ends.
    used: Vec<UsedFile<F::File>>,
    free: Vec<LogFile<F::File>>,
    next_name: u64,
}

impl<'a, F: Files> Replay<'a, F> {
    fn new(settings: Settings<'a>, next_name: u64) -> Self {
        Self {
            report: OpenReport::default(),
            memtable: Memtable::new(settings.hash),
            time: TimestampMs(0),
            last: None,
            witness: Witness::default(),
            sealed: true,
            stop: None,
            used: Vec::new(),
            free: Vec::new(),
            next_name,
            settings,
        }
    }

    /// Reads a file; `next_first` is the first position of the next generation.
    async fn file(&mut self, found: &Found<F::File>, next_first: Option<u64>) -> Result<(), StoreError> {
        let in_segments = next_first.is_some_and(|first| first <= self.settings.flushed.saturating_add(1));
        if found.generation == 0 || in_segments {
            self.free.push(found.log_file.clone());
            return Ok(());
        }
        let (mut end, mut last) = (0, found.first.saturating_sub(1));
        let mut window = Window::new(&found.log_file, BATCH_BYTES_LIMIT);
        let mut offset = 0;
        while offset < found.log_file.bytes {
            let checked = window.check(offset).await?;
            let ours = checked.as_ref().is_ok_and(|batch| {
                let header = &batch.header;
                header.salt == self.settings.salt
                    && header.lane == self.settings.lane
                    && header.generation == found.generation
            });
            match checked {
                Ok(batch) if ours && self.follows(&batch, &found.log_file.name, offset) => {
                    let content = window.batch(offset).await?.map_err(|_| "it reads differently a second time");
                    let content = content.and_then(|batch| batch.content(self.settings.opener));
                    self.take(&batch, content, &found.log_file.name, offset)?;
                    offset += batch.padded;
                    (end, last) = (offset, batch.end.saturating_sub(1));
                }
                Err(Fault::Newer { version, salt }) if salt == self.settings.salt => {
                    return Err(newer(&found.log_file.name, version));
                }
                checked => {
                    if self.stop.is_none() {
                        let claimed = window.generation_claimed(offset, &self.settings).await?;
                        let file = found.log_file.name.clone();
                        let fault = checked.err().unwrap_or(Fault::None);
                        self.stop = Some(Stop { file, offset, fault, claimed: claimed == Some(found.generation) });
                    }
                    offset += PAGE_BYTES as u64;
                }
            }
        }
        self.report.log_bytes_read += window.bytes_read;
        let log_file = found.log_file.clone();
        if end == 0 && self.used.iter().any(|used| used.generation == found.generation) {
            // It only seemed to be of this generation, and must not be gone on with.
            self.free.push(log_file);
            return Ok(());
        }
        self.used.push(UsedFile { log_file, generation: found.generation, offset: end, last });
        Ok(())
    }

    /// Whether a batch goes on where the last one ended, or after a hole, which is reported.
    fn follows(&mut self, batch: &Checked, file: &str, offset: u64) -> bool {
        let first = batch.header.first;
        let flushed = self.settings.flushed;
        // The oldest file that is read may begin anywhere in what segments hold.
        let (chained, next) = match self.last {
            Some((checksum, next)) => (checksum == batch.header.chain && first == next, next),
            None => (first <= flushed.saturating_add(1), flushed.saturating_add(1)),
        };
        if chained {
            self.stop = None;
            return true;
        }
        if first < next {
            // Not a continuation: something older.
            return false;
        }
        let stop = self.stop.take().unwrap_or(Stop { file: file.into(), offset, fault: Fault::None, claimed: false });
        let last = first - 1;
        let what = if stop.fault == Fault::None { "batches are missing".into() } else { stop.fault.text() };
        self.report.damage.push(LogDamage {
            file: stop.file,
            offset: stop.offset,
            what,
            first: LanePosition(next),
            last: LanePosition(last),
            harmless: last <= flushed || last < next,
            all_known: true,
            conversations: Vec::new(),
        });
        true
    }

    fn take(
        &mut self,
        batch: &Checked,
        content: Result<(Witness, Vec<Record>), &'static str>,
        file: &str,
        offset: u64,
    ) -> Result<(), StoreError> {
        let damaged = |what| StoreError::Damaged { file: file.into(), offset, what, keys: DamagedKeys::all() };
        let (before, records) = content.map_err(damaged)?;
        self.put_down(batch.header.first, &before);
        for (position, record) in (batch.header.first..).zip(&records) {
            if position <= self.settings.flushed {
                continue;
            }
            if !self.memtable.accepts(record) {
                return Err(damaged("an entry comes twice"));
            }
            let lost = self.memtable.apply(LanePosition(position), record).lost;
            self.report.records += 1;
            if let (Some(lost), Some(damage)) = (lost, self.report.damage.last_mut()) {
                damage.conversations.push(lost);
            }
        }
        self.report.batches += 1;
        self.last = Some((batch.checksum, batch.end));
        self.sealed = records.is_empty();
        self.witness = if self.sealed { before } else { Witness::of(&records) };
        Ok(())
    }

    /// Puts the damage that ends right before the record at `first`, if there is any, down to conversations.
    fn put_down(&mut self, first: u64, before: &Witness) {
        let Some(damage) = self.report.damage.last_mut() else { return };
        if damage.harmless
            || damage.last.0.checked_add(1) != Some(first)
            || self.last.is_some_and(|(_, next)| next == first)
        {
            return;
        }
        for held in &before.held {
            damage.conversations.extend(self.memtable.lose(damage.last, held));
        }
        damage.all_known = damage.last.0 - damage.first.0 < u64::from(before.records);
        if !damage.all_known {
            self.memtable.lose_unknown();
        }
    }

    fn finish(mut self, found: Vec<Found<F::File>>) -> Recovered<F> {
        let newest = found.last().map_or(0, |found| found.generation);
        let torn_start = found.iter().find_map(|found| {
            let (fault, claimed) = found.torn?;
            (claimed > newest).then(|| (found.log_file.name.clone(), 0, fault))
        });
        let torn = self.stop.take().filter(|stop| stop.claimed).map(|stop| (stop.file, stop.offset, stop.fault));
        self.report.torn_tail =
            torn.or(torn_start).map(|(file, offset, fault)| TornTail { file, offset, what: fault.text() });
        self.report.read_only = self.report.damage.iter().any(|damage| !damage.harmless);
        let mut log = Log {
            lane: self.settings.lane,
            salt: self.settings.salt,
            chain: self.last.map_or(0, |(checksum, _)| checksum),
            generation: newest,
            current: self.used.pop(),
            full: VecDeque::from(self.used),
            ready: VecDeque::new(),
            unwanted: Vec::new(),
            next_name: self.next_name,
        };
        for file in self.free {
            log.free(file, self.settings.file_bytes);
        }
        if let Some((_, most)) = self.memtable.times() {
            self.time = TimestampMs(most);
        }
        let position = self.last.map_or(0, |(_, next)| next.saturating_sub(1)).max(self.settings.flushed);
        let Self { memtable, time, report, witness, sealed, .. } = self;
        Recovered { log, memtable, position, time, report, witness, sealed }
    }
}
