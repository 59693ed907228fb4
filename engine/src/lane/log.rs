//! The log's files while the lane runs: where the next batch goes, which files are free, which wait for a flush.
//!
//! A file is ready (prepared, or all its records are in segments), current, or full. It goes round: ready → current → full → ready.
//! Becoming ready again costs no write: a batch of a newer generation over its beginning makes it new. Each file that becomes
//! current takes the next generation, so recovery finds their order.
//!
//! Must not do: I/O; the caller writes where [`Log::place`] says and tells [`Log::wrote`].

use std::{collections::VecDeque, rc::Rc};

use crate::{
    lane::{
        format::Header,
        limit::{Landmark, Limit, step_bytes},
    },
    seams::{AlignedBuffer, PAGE_BYTES},
};

/// An open log file.
pub(crate) struct LogFile<F> {
    pub(crate) name: String,
    pub(crate) file: Rc<F>,
    pub(crate) bytes: u64,
}

impl<F> LogFile<F> {
    /// Where batches end at the latest: the last page has the limit.
    pub(crate) fn room(&self) -> u64 {
        self.bytes.saturating_sub(PAGE_BYTES as u64)
    }
}

impl<F> Clone for LogFile<F> {
    fn clone(&self) -> Self {
        Self { name: self.name.clone(), file: self.file.clone(), bytes: self.bytes }
    }
}

/// A file with batches.
pub(crate) struct UsedFile<F> {
    pub(crate) log_file: LogFile<F>,
    pub(crate) generation: u64,
    /// Where the next batch goes.
    pub(crate) offset: u64,
    /// Position of its last record.
    pub(crate) last: u64,
    /// What its last page says.
    pub(crate) limit: Limit,
}

/// Where to write a batch.
pub(crate) struct Place<F> {
    pub(crate) log_file: LogFile<F>,
    pub(crate) offset: u64,
    pub(crate) header: Header,
    /// The file's last page as it is to be written beside the batch: without both the batch is not to be acknowledged.
    /// Most batches have none, so it takes little room.
    pub(crate) limit: Option<Box<AlignedBuffer>>,
}

/// All files of a lane's log.
pub(crate) struct Log<F> {
    pub(crate) lane: u16,
    pub(crate) salt: u64,
    /// Checksum of the last batch.
    pub(crate) chain: u32,
    /// Highest generation in use.
    pub(crate) generation: u64,
    pub(crate) current: Option<UsedFile<F>>,
    /// Oldest first.
    pub(crate) full: VecDeque<UsedFile<F>>,
    pub(crate) ready: VecDeque<LogFile<F>>,
    /// Free files of another size than wanted, to be removed.
    pub(crate) unwanted: Vec<LogFile<F>>,
    /// Number for the next new file's name.
    pub(crate) next_name: u64,
    /// No batch is longer.
    pub(crate) batch_bytes_max: u64,
}

/// The name of a log file. Numbers are not used twice; the order of files is told by generations, not by names.
pub(crate) fn file_name(number: u64) -> String {
    format!("log-{number:08x}")
}

/// The number in a log file's name.
pub(crate) fn number_of(name: &str) -> Option<u64> {
    let number = u64::from_str_radix(name.strip_prefix("log-")?, 16).ok()?;
    (file_name(number) == name).then_some(number)
}

impl<F> Log<F> {
    /// Whether a batch of `bytes` has a place.
    pub(crate) fn has_place(&self, bytes: u64) -> bool {
        self.fits_current(bytes) || !self.ready.is_empty()
    }

    fn fits_current(&self, bytes: u64) -> bool {
        self.current.as_ref().is_some_and(|used| used.offset + bytes <= used.log_file.room())
    }

    /// Where to write a batch of `bytes` whose first record has the position `first`. `None` if no file is free.
    pub(crate) fn place(&mut self, bytes: u64, first: u64, records: u32) -> Option<Place<F>> {
        if !self.fits_current(bytes) {
            let log_file = self.ready.pop_front()?;
            assert!(bytes <= log_file.room(), "a log file holds at least two batches, the second but for a page");
            self.generation += 1;
            self.full.extend(self.current.take());
            let last = first.saturating_sub(1);
            let (generation, limit) = (self.generation, Limit::default());
            self.current = Some(UsedFile { log_file, generation, offset: 0, last, limit });
        }
        let used = self.current.as_mut()?;
        let header =
            Header { lane: self.lane, chain: self.chain, salt: self.salt, generation: used.generation, first, records };
        let end = used.offset + bytes;
        let limit = (end > used.limit.end).then(|| {
            let at = Landmark { offset: used.offset, first };
            let step = step_bytes(used.log_file.bytes);
            used.limit.extend(at, end, used.log_file.room(), step, self.batch_bytes_max.max(bytes));
            Box::new(used.limit.encode(&header))
        });
        Some(Place { log_file: used.log_file.clone(), offset: used.offset, header, limit })
    }

    /// The batch that [`Log::place`] placed is durable; `last` is the position of its last record.
    pub(crate) fn wrote(&mut self, bytes: u64, last: u64, checksum: u32) {
        let used = self.current.as_mut().expect("a batch was placed");
        used.offset += bytes;
        used.last = last;
        self.chain = checksum;
    }

    /// The newest generation of which there is a durable batch, and the size of its file, 0 if it is not known any more. A file that
    /// was begun may hold nothing.
    pub(crate) fn written(&self) -> (u64, u64) {
        let bytes = |used: Option<&UsedFile<F>>| used.map_or(0, |used| used.log_file.bytes);
        match &self.current {
            Some(used) if used.offset == 0 => (self.generation - 1, bytes(self.full.back())),
            current => (self.generation, bytes(current.as_ref())),
        }
    }

    /// Records up to `flushed` are in segments: files with no others are free. Says whether any became so.
    pub(crate) fn flushed(&mut self, flushed: u64, file_bytes: u64) -> bool {
        let before = self.full.len();
        while self.full.front().is_some_and(|used| used.last <= flushed) {
            if let Some(used) = self.full.pop_front() {
                self.free(used.log_file, file_bytes);
            }
        }
        self.full.len() < before
    }

    /// Takes a free file for later use, or for removal.
    pub(crate) fn free(&mut self, file: LogFile<F>, file_bytes: u64) {
        if file.bytes == file_bytes {
            self.ready.push_back(file);
        } else {
            self.unwanted.push(file);
        }
    }

    /// Files that exist, those to be removed not counted.
    pub(crate) fn files(&self) -> usize {
        self.ready.len() + self.full.len() + usize::from(self.current.is_some())
    }

    /// Bytes that a restart would read and replay.
    pub(crate) fn unflushed_bytes(&self, flushed: u64) -> u64 {
        let used = self.full.iter().chain(&self.current);
        used.filter(|used| used.last > flushed).map(|used| used.offset).sum()
    }
}
