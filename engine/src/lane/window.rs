//! A log file as it is read after a start: forwards, with several reads under way, batch by batch or page by page.
//!
//! Invariants: what is in memory follows each other in the file, and is at most the pieces under way and a batch more. It reads ahead only
//! up to where it was told, and beyond that what a batch claims to be.

use std::{collections::VecDeque, pin::Pin};

use futures_util::{StreamExt, stream::FuturesOrdered};

use crate::{
    lane::{
        format::{BATCH_BYTES_LIMIT, Batch, Fault, Header},
        log::LogFile,
    },
    seams::{AlignedBuffer, File, FileError, PAGE_BYTES},
};

/// What is read at once: enough for the disk's full speed, and little enough that a piece's memory serves for the next again. Memory that
/// is fresh for each piece costs as much time as all else that is done for a read.
const PIECE_BYTES: u64 = 256 * 1024;

/// Reads under way at most: while one piece is looked at others come.
const READS_MAX: usize = 8;

type Read<'a> = Pin<Box<dyn Future<Output = Result<AlignedBuffer, FileError>> + 'a>>;

/// The header and sizes of a batch that was checked.
#[derive(Clone, Copy)]
pub(super) struct Checked {
    pub(super) header: Header,
    pub(super) padded: u64,
    pub(super) end: u64,
}

impl Checked {
    pub(super) fn of(batch: &Batch<'_>) -> Self {
        Self { header: batch.header, padded: batch.padded(), end: batch.end() }
    }
}

/// What of a file is in memory, and on its way there.
pub(super) struct Window<'a, F> {
    log_file: &'a LogFile<F>,
    /// One after the other, from `start` to `end`.
    pieces: VecDeque<AlignedBuffer>,
    start: u64,
    end: u64,
    /// Behind `end`, one after the other, up to `next`.
    under_way: FuturesOrdered<Read<'a>>,
    next: u64,
    /// Reads ahead up to here.
    until: u64,
    /// Bytes that lie in several pieces.
    joined: Vec<u8>,
    pub(super) bytes_read: u64,
}

impl<'a, F: File> Window<'a, F> {
    /// Reads from `start` on, and ahead up to `until`.
    pub(super) fn new(log_file: &'a LogFile<F>, start: u64, until: u64) -> Self {
        Self {
            log_file,
            pieces: VecDeque::new(),
            start,
            end: start,
            under_way: FuturesOrdered::new(),
            next: start,
            until,
            joined: Vec::new(),
            bytes_read: 0,
        }
    }

    pub(super) fn file_bytes(&self) -> u64 {
        self.log_file.bytes
    }

    /// Reads ahead up to `until` from now on.
    pub(super) fn read_ahead(&mut self, until: u64) {
        self.until = until;
    }

    /// Checks the batch at `offset`, which is not before any that was asked for.
    pub(super) async fn batch(&mut self, offset: u64) -> Result<Result<Batch<'_>, Fault>, FileError> {
        if offset >= self.log_file.bytes {
            return Ok(Err(Fault::None));
        }
        self.hold(offset, PAGE_BYTES as u64).await?;
        let mut length = PAGE_BYTES as u64;
        if let Some(claimed) = Batch::claimed_length(self.bytes(offset, length)) {
            // Not beyond what a batch can be, nor the file.
            length = (claimed as u64).min(BATCH_BYTES_LIMIT as u64).min(self.log_file.bytes - offset);
            self.hold(offset, length).await?;
        }
        Ok(Batch::check(self.bytes(offset, length)))
    }

    /// The generation that a broken batch at `offset` claims, if its salt is this one.
    pub(super) async fn generation_claimed(&mut self, offset: u64, salt: u64) -> Result<Option<u64>, FileError> {
        if offset >= self.log_file.bytes {
            return Ok(None);
        }
        self.hold(offset, PAGE_BYTES as u64).await?;
        let page = self.bytes(offset, PAGE_BYTES as u64);
        let header = page.get(24..32).and_then(|salt| Some((salt, page.get(32..40)?)));
        let claimed = header.filter(|(of, _)| *of == salt.to_le_bytes());
        Ok(claimed.and_then(|(_, generation)| Some(u64::from_le_bytes(generation.try_into().ok()?))))
    }

    /// Has so many bytes from `offset` on in memory, as far as the file has them, and forgets those before.
    async fn hold(&mut self, offset: u64, length: u64) -> Result<(), FileError> {
        while let Some(piece) = self.pieces.front().filter(|piece| self.start + piece.len() as u64 <= offset) {
            self.start += piece.len() as u64;
            self.pieces.pop_front();
        }
        let wanted = (offset + length).min(self.log_file.bytes);
        while self.end < wanted {
            while self.under_way.len() < READS_MAX && self.next < self.until.min(self.log_file.bytes) {
                self.read(PIECE_BYTES.min(self.until - self.next));
            }
            if self.under_way.is_empty() {
                self.read(wanted - self.next);
            }
            let piece = self.under_way.next().await.expect("a read is under way")?;
            self.end += piece.len() as u64;
            if self.end <= offset {
                // What nobody asks for.
                self.start = self.end;
            } else {
                self.pieces.push_back(piece);
            }
        }
        Ok(())
    }

    fn read(&mut self, length: u64) {
        let length = length.next_multiple_of(PAGE_BYTES as u64).min(self.log_file.bytes - self.next);
        let file: &'a F = &self.log_file.file;
        let read = file.read_at(self.next, length as usize);
        self.under_way.push_back(Box::pin(read));
        self.next += length;
        self.bytes_read += length;
    }

    /// Bytes that are held; fewer if the file ends before.
    fn bytes(&mut self, offset: u64, length: u64) -> &[u8] {
        let Some(mut from) = offset.checked_sub(self.start).map(|from| from as usize) else { return &[] };
        let length = length.min(self.end.saturating_sub(offset)) as usize;
        if self.pieces.front().is_some_and(|first| from + length <= first.len()) {
            return self.pieces.front().and_then(|first| first.get(from..from + length)).unwrap_or_default();
        }
        self.joined.clear();
        for piece in &self.pieces {
            let left = length - self.joined.len();
            let rest = piece.get(from..).unwrap_or_default();
            from = from.saturating_sub(piece.len());
            self.joined.extend_from_slice(&rest[..left.min(rest.len())]);
        }
        &self.joined
    }
}
