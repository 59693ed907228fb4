//! Reading the log after a start: replays what segments do not hold, and tells a torn tail from damage.
//!
//! A batch is taken if its checksum holds, its salt and lane are ours, its generation is its file's, its first position follows the
//! last batch's and its chain is that batch's checksum. Where that fails, what follows is searched page by page, up to the file's limit.
//! If no later batch exists the write there never completed and was never acknowledged: the log ends before it. If one exists, what lies
//! between was acknowledged and is damaged: it is reported, harmless only if segments hold all of it. What was lost the batch behind the
//! damage tells; conversations that may have lost a change of members are hidden, since nobody knows who may see them.
//!
//! What segments hold is not read, as far as landmarks tell where it ends. Bounded by the log's files, whatever they contain: every page is
//! looked at once beyond what tells a file's generation, memory is a [`Window`].

use std::collections::VecDeque;

use antiphon_wire::ids::{LanePosition, TimestampMs};

use crate::{
    error::{DamagedKeys, StoreError},
    hash::IdHash,
    lane::{
        format::{BATCH_BYTES_LIMIT, Batch, Fault, Header},
        found::{Found, look_at, newer},
        limit::Landmark,
        log::{Log, LogFile, UsedFile, number_of},
        sealed::Opener,
        window::{Checked, Window},
        witness::{Held, Witness},
    },
    memtable::Memtable,
    report::{LogDamage, OpenReport, TornTail},
    seams::{Files, PAGE_BYTES},
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
    /// All is looked at, also what no record can depend on.
    pub(crate) whole: bool,
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
    let next_name = names.iter().filter_map(|name| number_of(name)).max().map_or(0, |number| number + 1);
    let (found, bytes_read) = look_at(files, names, &settings).await?;
    let mut replay = Replay::new(settings, next_name);
    replay.report.log_bytes_read = bytes_read;
    for of in &found {
        let next_first = found.iter().find(|next| next.generation > of.generation).map(|next| next.first);
        replay.file(of, next_first).await?;
    }
    Ok(replay.finish(found))
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
    /// Of the last batch with records; settled at the end.
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
        let bytes = found.log_file.bytes;
        let limit = found.limit().filter(|_| !self.settings.whole);
        // What segments hold need not be looked at: what they lack begins behind a batch of which they hold something.
        let flushed = self.settings.flushed;
        let begin = limit.filter(|_| self.last.is_none()).and_then(|limit| limit.begin(flushed));
        let begin = begin.unwrap_or(Landmark { offset: 0, first: found.first });
        let told_end = limit.map_or(bytes, |limit| limit.end);
        // Where nothing fits any more, nothing that was acknowledged is behind this.
        let mut search_end = limit.map_or(bytes, |limit| limit.reach(bytes));
        let mut window = Window::new(&found.log_file, begin.offset, search_end);
        let (mut offset, mut end, mut last) = (begin.offset, begin.offset, begin.first.saturating_sub(1));
        let (mut is_taken, mut is_searching) = (false, false);
        while offset < if is_searching { search_end } else { bytes } {
            match window.batch(offset).await? {
                Ok(batch) if self.is_ours(&batch.header, found) && self.follows(&batch.header, found, offset) => {
                    let checked = Checked::of(&batch);
                    self.take(&batch).map_err(|what| {
                        let (file, keys) = (found.log_file.name.clone(), DamagedKeys::all());
                        StoreError::Damaged { file, offset, what, keys }
                    })?;
                    offset += checked.padded;
                    (end, last) = (offset, checked.end.saturating_sub(1));
                    (is_taken, is_searching) = (true, false);
                    if end > told_end {
                        // It was on its way with the limit that allows it, so more may be.
                        search_end = bytes;
                        window.read_ahead(bytes);
                    }
                }
                Err(Fault::Newer { version, salt }) if salt == self.settings.salt => {
                    return Err(newer(&found.log_file.name, version));
                }
                checked => {
                    let fault = checked.err().unwrap_or(Fault::None);
                    is_searching = true;
                    if self.stop.is_none() {
                        let claimed = window.generation_claimed(offset, self.settings.salt).await?;
                        let file = found.log_file.name.clone();
                        self.stop = Some(Stop { file, offset, fault, claimed: claimed == Some(found.generation) });
                    }
                    offset += PAGE_BYTES as u64;
                }
            }
        }
        self.report.log_bytes_read += window.bytes_read;
        let log_file = found.log_file.clone();
        if !is_taken && self.used.iter().any(|used| used.generation == found.generation) {
            // It only seemed to be of this generation, and must not be gone on with.
            self.free.push(log_file);
            return Ok(());
        }
        let limit = found.limit().cloned().unwrap_or_default().gone_on_with(end);
        self.used.push(UsedFile { log_file, generation: found.generation, offset: end, last, limit });
        Ok(())
    }

    fn is_ours(&self, header: &Header, found: &Found<F::File>) -> bool {
        header.salt == self.settings.salt && header.lane == self.settings.lane && header.generation == found.generation
    }

    /// Whether a batch goes on where the last one ended, or after a hole, which is reported.
    fn follows(&mut self, header: &Header, found: &Found<F::File>, offset: u64) -> bool {
        let (first, file) = (header.first, &found.log_file.name);
        let flushed = self.settings.flushed;
        // The oldest file that is read may begin anywhere in what segments hold.
        let (chained, next) = match self.last {
            Some((checksum, next)) => (checksum == header.chain && first == next, next),
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
        let stop = self.stop.take().unwrap_or(Stop { file: file.clone(), offset, fault: Fault::None, claimed: false });
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

    /// Takes in a batch; or says what is wrong with it, though its checksum holds.
    fn take(&mut self, batch: &Batch<'_>) -> Result<(), &'static str> {
        let before = batch.witness()?;
        self.put_down(batch.header.first, &before);
        self.witness.clear();
        let Self { settings, memtable, report, witness, .. } = self;
        batch.records(settings.opener, |position, seen| {
            witness.add(Held::of(&seen));
            if position <= settings.flushed {
                return Ok(());
            }
            let applied = memtable.replay(LanePosition(position), seen).ok_or("an entry comes twice")?;
            report.records += 1;
            if let (Some(lost), Some(damage)) = (applied.lost, report.damage.last_mut()) {
                damage.conversations.push(lost);
            }
            Ok(())
        })?;
        self.report.batches += 1;
        self.last = Some((batch.checksum, batch.end()));
        self.sealed = batch.header.records == 0;
        if self.sealed {
            self.witness = before;
        }
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
        self.witness.settle();
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
            batch_bytes_max: BATCH_BYTES_LIMIT as u64,
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
