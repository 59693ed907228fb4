//! The file `keys` of a lane: the wrapped data keys of its conversations.
//!
//! docs/format.md draws the bytes. A first page says whose it is; then come pairs of pages, each with up to [`ENTRIES_PER_PAGE`] entries. A
//! pair that is not full is added to by writing all of it, and what is new, into its other page: so what was durable is never written
//! over, and what a torn write leaves is nothing. A page that follows a full pair names that one's checksum.
//!
//! Reading goes on to the first pair that has no whole page, or one that is not full. What is behind is of a write that never completed, or
//! is damage; which one, the manifest tells for what was there when it was written, and the log, whose records need their keys, for the
//! rest.
//!
//! Must not do: open a key.

use std::collections::VecDeque;

use antiphon_wire::ids::ConversationId;
use futures_util::future::join_all;

use crate::{
    bytes::{Reader, is_blank},
    encryption::cipher::{NONCE_BYTES, WRAPPED_BYTES},
    error::{DamagedKeys, StoreError},
    seams::{AlignedBuffer, File, FileError, Files, OpenMode, PAGE_BYTES},
};

/// The file's name.
pub(crate) const NAME: &str = "keys";

/// The name under which another one is written.
pub(crate) const TEMPORARY_NAME: &str = "keys.new";

const MAGIC: [u8; 8] = *b"ANTIKEYS";
const PAGE_MAGIC: [u8; 8] = *b"ANTIKEYP";
const VERSION: u32 = 1;
const CHECKSUM_AT: usize = 12;
const PAGE_HEADER_BYTES: usize = 40;
const ENTRY_BYTES: usize = 80;
const KEY: u32 = 1;
const ERASED: u32 = 2;

/// Entries of a full page.
pub(crate) const ENTRIES_PER_PAGE: usize = (PAGE_BYTES - PAGE_HEADER_BYTES) / ENTRY_BYTES;

/// A file grows by so many pairs, 1 MiB, so that most keys are written where there is room already.
const PAIRS_AT_ONCE: u64 = 128;

/// What is read or written at once.
const PIECE_BYTES: usize = 256 * 1024;

const PAGE: u64 = PAGE_BYTES as u64;
const PAIR: u64 = 2 * PAGE;

/// What is known of a conversation's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stored {
    /// It is here, wrapped.
    Wrapped([u8; NONCE_BYTES], [u8; WRAPPED_BYTES]),
    /// It was destroyed.
    Erased,
}

/// A conversation's entry.
pub(crate) type Entry = (ConversationId, Stored);

/// Whose a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// The store's identity.
    pub(crate) store: u64,
    /// Identity of the store that the keys were wrapped in: part of what a key is wrapped for, and the same in its copies.
    pub(crate) origin: u64,
    /// Counts how often the file was made anew, from 1.
    pub(crate) generation: u64,
    /// Of the key that the data keys are wrapped with.
    pub(crate) node: u64,
}

/// What the manifest says of the file: there was that much when it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Anchor {
    pub(crate) generation: u64,
    pub(crate) entries: u64,
}

/// A file as it was read.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) header: Header,
    pub(crate) entries: Vec<Entry>,
    /// Where pages are that are neither whole nor empty nor what a later page of their pair stands for.
    pub(crate) broken: Vec<u64>,
    end: End,
    bytes: u64,
}

impl Found {
    /// How many conversations were erased.
    pub(crate) fn erased(&self) -> u64 {
        self.entries.iter().filter(|(_, stored)| *stored == Stored::Erased).count() as u64
    }
}

/// Where the next entries go.
#[derive(Debug, Clone, PartialEq, Eq)]
struct End {
    /// The pair at hand, from 0.
    pair: u64,
    /// The page of the pair that does not hold what counts.
    slot: u64,
    /// Entries of that pair.
    tail: Vec<Entry>,
    /// Checksum of the last page of the pair before.
    before: u32,
}

impl End {
    fn new() -> Self {
        Self { pair: 0, slot: 0, tail: Vec::new(), before: 0 }
    }

    fn offset(&self) -> u64 {
        PAGE + self.pair * PAIR + self.slot * PAGE
    }

    /// Takes in entries; the pages to write, and where.
    fn extend(&mut self, generation: u64, entries: &[Entry]) -> Vec<(u64, AlignedBuffer)> {
        let mut rest: VecDeque<Entry> = entries.iter().copied().collect();
        let mut pages = Vec::new();
        while !rest.is_empty() {
            let room = ENTRIES_PER_PAGE - self.tail.len();
            self.tail.extend(rest.drain(..room.min(rest.len())));
            let (page, checksum) = encode_page(self.pair, generation, self.before, &self.tail);
            pages.push((self.offset(), page));
            if self.tail.len() == ENTRIES_PER_PAGE {
                *self = Self { pair: self.pair + 1, slot: 0, tail: Vec::new(), before: checksum };
            } else {
                self.slot = 1 - self.slot;
            }
        }
        pages
    }
}

/// The file while a lane runs: takes in keys.
pub(crate) struct KeysFile<D> {
    file: D,
    generation: u64,
    end: End,
    bytes: u64,
}

impl<D: File> KeysFile<D> {
    /// Opens the file to add to what was found in it.
    pub(crate) async fn open<F: Files<File = D>>(files: &F, found: &Found) -> Result<Self, FileError> {
        let file = files.open(NAME, OpenMode::Log).await?;
        Ok(Self { file, generation: found.header.generation, end: found.end.clone(), bytes: found.bytes })
    }

    /// Adds entries: they are durable when this returns. After an error nothing is known of them, and nothing more may be added.
    pub(crate) async fn append(&mut self, entries: &[Entry]) -> Result<(), FileError> {
        let pages = self.end.extend(self.generation, entries);
        let needed = pages.iter().map(|(offset, _)| offset + PAGE).max().unwrap_or(0);
        if needed > self.bytes {
            let bytes = needed + PAIRS_AT_ONCE * PAIR;
            let room = AlignedBuffer::zeroed((bytes - self.bytes) as usize);
            self.file.write_at(self.bytes, room).await.1?;
            self.file.sync().await?;
            self.bytes = bytes;
        }
        let file = &self.file;
        let written = join_all(pages.into_iter().map(async |(offset, page)| file.write_at(offset, page).await.1)).await;
        written.into_iter().collect()
    }
}

/// Writes a whole file in the place of what there may be. Durable when it returns.
pub(crate) async fn replace<F: Files>(files: &F, header: Header, entries: &[Entry]) -> Result<(), FileError> {
    if files.list().await?.iter().any(|name| name == TEMPORARY_NAME) {
        files.remove(TEMPORARY_NAME).await?;
    }
    let file = files.open(TEMPORARY_NAME, OpenMode::Create).await?;
    file.write_at(0, encode_header(&header)).await.1?;
    let (mut end, mut offset) = (End::new(), PAGE);
    for piece in entries.chunks(ENTRIES_PER_PAGE * (PIECE_BYTES / PAIR as usize)) {
        let pages = end.extend(header.generation, piece);
        let mut buffer = AlignedBuffer::zeroed(pages.len() * PAIR as usize);
        for (at, (_, page)) in pages.iter().enumerate() {
            let at = at * PAIR as usize;
            buffer[at..at + PAGE_BYTES].copy_from_slice(page);
        }
        let length = buffer.len() as u64;
        file.write_at(offset, buffer).await.1?;
        offset += length;
    }
    file.write_at(offset, AlignedBuffer::zeroed((PAIRS_AT_ONCE * PAIR) as usize)).await.1?;
    file.sync().await?;
    drop(file);
    files.rename(TEMPORARY_NAME, NAME).await?;
    files.sync_folder().await
}

/// Reads the file of a store.
pub(crate) async fn read<F: Files>(files: &F, store: u64, anchor: Anchor) -> Result<Found, StoreError> {
    match read_what_is_there(files, store, anchor).await? {
        (found, None) => Ok(found),
        (_, Some(damage)) => Err(damage),
    }
}

/// As [`read`], but where keys are missing that the manifest tells of, with those that are there.
pub(crate) async fn read_what_is_there<F: Files>(
    files: &F,
    store: u64,
    anchor: Anchor,
) -> Result<(Found, Option<StoreError>), StoreError> {
    let file = match files.open(NAME, OpenMode::Read).await {
        Err(FileError::NotFound { .. }) => return Err(damaged(0, "the data keys' file is missing")),
        other => other?,
    };
    let bytes = file.size_bytes() / PAGE * PAGE;
    let first = file.read_at(0, PAGE_BYTES).await?;
    let header = decode_header(&first)?;
    if header.store != store {
        return Err(StoreError::ForeignStore { file: NAME.into(), found: header.store, expected: store });
    }
    if header.generation < anchor.generation {
        return Err(damaged(0, "older than the manifest beside it"));
    }
    let mut reading = Reading { header, entries: Vec::new(), broken: Vec::new(), end: End::new(), has_ended: false };
    let mut offset = PAGE;
    while offset < bytes {
        let length = (bytes - offset).min(PIECE_BYTES as u64);
        let piece = file.read_at(offset, length as usize).await?;
        for (at, pair) in piece.chunks(PAIR as usize).enumerate() {
            reading.pair(offset / PAIR + at as u64, pair);
        }
        offset += length;
    }
    let Reading { header, entries, broken, end, .. } = reading;
    // One that was made anew has as many at least: none goes.
    let damage = ((entries.len() as u64) < anchor.entries).then(|| {
        let at = broken.first().copied().unwrap_or(bytes);
        damaged(at, "data keys are missing")
    });
    Ok((Found { header, entries, broken, end, bytes }, damage))
}

/// Whether the file holds nothing: that of a store whose making did not end.
pub(crate) async fn is_new<F: Files>(files: &F) -> Result<bool, FileError> {
    let file = files.open(NAME, OpenMode::Read).await?;
    let (mut offset, bytes) = (PAGE, file.size_bytes() / PAGE * PAGE);
    while offset < bytes {
        let length = (bytes - offset).min(PIECE_BYTES as u64);
        if !is_blank(&file.read_at(offset, length as usize).await?) {
            return Ok(false);
        }
        offset += length;
    }
    Ok(true)
}

struct Reading {
    header: Header,
    entries: Vec<Entry>,
    broken: Vec<u64>,
    end: End,
    has_ended: bool,
}

impl Reading {
    fn pair(&mut self, number: u64, bytes: &[u8]) {
        let of = |slot: usize| bytes.get(slot * PAGE_BYTES..(slot + 1) * PAGE_BYTES).unwrap_or_default();
        let pages = [of(0), of(1)];
        let decoded = pages.map(|page| decode_page(page, number, self.header.generation, self.end.before));
        let best = if self.has_ended { None } else { newest(&decoded) };
        for (slot, page) in pages.iter().enumerate() {
            let is_whole = !self.has_ended && decoded[slot].is_some();
            if !is_whole && !is_blank(page) {
                self.broken.push(PAGE + number * PAIR + slot as u64 * PAGE);
            }
        }
        let Some((slot, (tail, checksum))) = best.and_then(|slot| Some((slot, decoded.get(slot)?.clone()?))) else {
            self.has_ended = true;
            return;
        };
        self.entries.extend(&tail);
        if tail.len() == ENTRIES_PER_PAGE {
            self.end = End { pair: number + 1, slot: 0, tail: Vec::new(), before: checksum };
        } else {
            self.end = End { pair: number, slot: 1 - slot as u64, tail, before: self.end.before };
            self.has_ended = true;
        }
    }
}

/// Which of a pair's pages counts: that with more entries.
fn newest(pages: &[Option<(Vec<Entry>, u32)>; 2]) -> Option<usize> {
    let count = |slot: usize| pages[slot].as_ref().map(|(entries, _)| entries.len());
    match (count(0), count(1)) {
        (None, None) => None,
        (Some(_), None) => Some(0),
        (None, Some(_)) => Some(1),
        (Some(first), Some(second)) => Some(usize::from(second > first)),
    }
}

fn encode_header(header: &Header) -> AlignedBuffer {
    let mut page = AlignedBuffer::zeroed(PAGE_BYTES);
    page[..8].copy_from_slice(&MAGIC);
    page[8..12].copy_from_slice(&VERSION.to_le_bytes());
    for (at, number) in [header.store, header.origin, header.generation, header.node].iter().enumerate() {
        page[16 + 8 * at..24 + 8 * at].copy_from_slice(&number.to_le_bytes());
    }
    let checksum = checksum(&page);
    page[CHECKSUM_AT..CHECKSUM_AT + 4].copy_from_slice(&checksum.to_le_bytes());
    page
}

fn decode_header(page: &[u8]) -> Result<Header, StoreError> {
    let mut reader = Reader::new(page);
    let fields = (|| Some((reader.array::<8>()?, reader.u32()?, reader.u32()?)))();
    let Some((magic, version, stored)) = fields else { return Err(damaged(0, "too short")) };
    if magic != MAGIC || checksum(page) != stored {
        return Err(damaged(0, "the first page of the data keys' file is damaged"));
    }
    if version != VERSION {
        return Err(StoreError::NewerVersion { file: NAME.into(), found: version, supported: VERSION });
    }
    let mut numbers = || Some((reader.u64()?, reader.u64()?, reader.u64()?, reader.u64()?));
    let (store, origin, generation, node) = numbers().ok_or_else(|| damaged(0, "too short"))?;
    Ok(Header { store, origin, generation, node })
}

/// A page's bytes, and their checksum.
fn encode_page(pair: u64, generation: u64, before: u32, entries: &[Entry]) -> (AlignedBuffer, u32) {
    let mut page = AlignedBuffer::zeroed(PAGE_BYTES);
    page[..8].copy_from_slice(&PAGE_MAGIC);
    page[8..12].copy_from_slice(&(entries.len() as u32).to_le_bytes());
    page[16..24].copy_from_slice(&pair.to_le_bytes());
    page[24..32].copy_from_slice(&generation.to_le_bytes());
    page[32..36].copy_from_slice(&before.to_le_bytes());
    for ((conversation, stored), place) in entries.iter().zip(page[PAGE_HEADER_BYTES..].chunks_exact_mut(ENTRY_BYTES)) {
        place[..16].copy_from_slice(&conversation.0);
        let kind = match stored {
            Stored::Wrapped(nonce, wrapped) => {
                place[20..20 + NONCE_BYTES].copy_from_slice(nonce);
                place[20 + NONCE_BYTES..].copy_from_slice(wrapped);
                KEY
            }
            Stored::Erased => ERASED,
        };
        place[16..20].copy_from_slice(&kind.to_le_bytes());
    }
    let checksum = checksum(&page);
    page[CHECKSUM_AT..CHECKSUM_AT + 4].copy_from_slice(&checksum.to_le_bytes());
    (page, checksum)
}

fn decode_page(page: &[u8], pair: u64, generation: u64, before: u32) -> Option<(Vec<Entry>, u32)> {
    let mut reader = Reader::new(page);
    let (magic, count, stored) = (reader.array::<8>()?, reader.u32()? as usize, reader.u32()?);
    let place = (reader.u64()?, reader.u64()?, reader.u32()?, reader.u32()?);
    let fits = magic == PAGE_MAGIC && place == (pair, generation, before, 0) && checksum(page) == stored;
    (fits && (1..=ENTRIES_PER_PAGE).contains(&count)).then_some(())?;
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let (conversation, kind) = (ConversationId(reader.array()?), reader.u32()?);
        let (nonce, wrapped) = (reader.array()?, reader.array()?);
        let stored = match kind {
            KEY => Stored::Wrapped(nonce, wrapped),
            ERASED => Stored::Erased,
            _ => return None,
        };
        entries.push((conversation, stored));
    }
    Some((entries, stored))
}

/// Of a page but for the checksum itself.
fn checksum(page: &[u8]) -> u32 {
    let (head, rest) = page.split_at(CHECKSUM_AT.min(page.len()));
    crc32c::crc32c_append(crc32c::crc32c(head), rest.get(4..).unwrap_or_default())
}

fn damaged(offset: u64, what: &'static str) -> StoreError {
    StoreError::Damaged { file: NAME.into(), offset, what, keys: DamagedKeys::all() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory_files::{MemoryFiles, block_on};

    const HEADER: Header = Header { store: 5, origin: 6, generation: 2, node: 7 };
    const NOTHING: Anchor = Anchor { generation: 0, entries: 0 };

    fn entry(number: u64) -> Entry {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&number.to_le_bytes());
        let stored = if number % 7 == 6 { Stored::Erased } else { Stored::Wrapped([number as u8; 12], [1; 48]) };
        (ConversationId(id), stored)
    }

    fn entries(count: u64) -> Vec<Entry> {
        (0..count).map(entry).collect()
    }

    /// Puts entries in by pieces of these sizes.
    fn filled(pieces: &[u64]) -> MemoryFiles {
        let files = MemoryFiles::new(1);
        block_on(replace(&files, HEADER, &[])).unwrap();
        let found = block_on(read(&files, 5, NOTHING)).unwrap();
        let mut keys = block_on(KeysFile::open(&files, &found)).unwrap();
        let mut next = 0;
        for piece in pieces {
            let added: Vec<_> = (next..next + piece).map(entry).collect();
            block_on(keys.append(&added)).unwrap();
            next += piece;
        }
        files
    }

    #[test]
    fn what_was_added_is_read() {
        for pieces in [&[][..], &[1], &[1, 1, 1], &[49, 1], &[50], &[51], &[30, 30, 30], &[700, 1, 1], &[1, 7_000, 3]] {
            let files = filled(pieces);
            let found = block_on(read(&files, 5, NOTHING)).unwrap();
            assert_eq!(found.header, HEADER);
            assert!(found.entries == entries(pieces.iter().sum()), "{pieces:?}");
            assert_eq!(found.broken, Vec::<u64>::new(), "{pieces:?}");
            // One that is made at once says the same, and is added to.
            let copy = MemoryFiles::new(2);
            block_on(replace(&copy, HEADER, &found.entries)).unwrap();
            let again = block_on(read(&copy, 5, NOTHING)).unwrap();
            assert!(again.entries == found.entries && again.broken.is_empty());
            let mut keys = block_on(KeysFile::open(&copy, &again)).unwrap();
            block_on(keys.append(&[entry(9_999)])).unwrap();
            let more = block_on(read(&copy, 5, NOTHING)).unwrap();
            assert_eq!(more.entries.len(), found.entries.len() + 1);
        }
    }

    #[test]
    fn a_page_has_these_bytes() {
        let (page, checksum) = encode_page(3, 4, 5, &[entry(1), entry(6)]);
        let text = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(
            text(&page[..PAGE_HEADER_BYTES + 40]),
            format!(
                "414e54494b455950{}{}03000000000000000400000000000000{}00000000{}",
                "02000000",
                text(&checksum.to_le_bytes()),
                "05000000",
                "0100000000000000000000000000000001000000010101010101010101010101010101010101010101".get(..80).unwrap()
            )
        );
        assert_eq!(decode_page(&page, 3, 4, 5), Some((vec![entry(1), entry(6)], checksum)));
        assert_eq!(decode_page(&page, 3, 4, 6), None);
        assert_eq!(decode_page(&page, 3, 5, 5), None);
        assert_eq!(decode_page(&page, 2, 4, 5), None);
        assert_eq!(ENTRIES_PER_PAGE, 50);
    }

    #[test]
    fn no_crash_takes_a_key_that_was_durable() {
        for seed in 0..300 {
            let files = MemoryFiles::new(seed);
            block_on(replace(&files, HEADER, &entries(seed % 130))).unwrap();
            let found = block_on(read(&files, 5, NOTHING)).unwrap();
            let mut keys = block_on(KeysFile::open(&files, &found)).unwrap();
            let mut durable = seed % 130;
            for step in 0..4 {
                let added: Vec<_> = (durable..durable + 1 + (seed * 31 + step * 17) % 60).map(entry).collect();
                files.set_queued(true);
                let mut adding = Box::pin(keys.append(&added));
                let waker = std::task::Waker::noop();
                let mut context = std::task::Context::from_waker(waker);
                let mut operations = 0;
                let ended = loop {
                    if std::future::Future::poll(adding.as_mut(), &mut context).is_ready() {
                        break true;
                    }
                    if step == 3 && operations == seed % 5 {
                        break false;
                    }
                    let pending = files.pending();
                    files.release(pending[(seed as usize) % pending.len()].ticket);
                    operations += 1;
                };
                drop(adding);
                files.set_queued(false);
                durable += if ended { added.len() as u64 } else { 0 };
            }
            files.crash(seed);
            let left = files.reopen();
            let found = block_on(read(&left, 5, Anchor { generation: 2, entries: durable })).unwrap();
            assert!(found.entries.len() as u64 >= durable && found.entries[..] == entries(found.entries.len() as u64));
            // It is added to, over what a torn write left, and read again.
            let mut keys = block_on(KeysFile::open(&left, &found)).unwrap();
            let more: Vec<_> = (10_000..10_070).map(entry).collect();
            block_on(keys.append(&more)).unwrap();
            let again = block_on(read(&left, 5, NOTHING)).unwrap();
            assert_eq!(again.entries, [found.entries, more].concat(), "seed {seed}");
        }
    }

    #[test]
    fn every_flipped_byte_is_told_or_takes_nothing() {
        let files = filled(&[60, 30, 1, 1]);
        let whole = files.contents(NAME).unwrap();
        let anchor = Anchor { generation: 2, entries: 92 };
        for at in (0..whole.len().min(8 * PAGE_BYTES)).step_by(5) {
            let mut bad = whole.clone();
            bad[at] ^= 1 << (at % 8);
            let files = MemoryFiles::new(1);
            files.put(NAME, bad);
            match block_on(read(&files, 5, anchor)) {
                Ok(found) => {
                    assert!(found.entries == entries(92), "byte {at}: taken as it was");
                    assert_eq!(found.broken, [at as u64 / PAGE * PAGE], "byte {at}");
                }
                Err(StoreError::Damaged { file, .. }) => assert_eq!(file, NAME),
                other => panic!("byte {at}: {other:?}"),
            }
        }
        files.take_away(NAME);
        assert!(matches!(block_on(read(&files, 5, anchor)), Err(StoreError::Damaged { .. })));
        let files = filled(&[3]);
        assert!(matches!(block_on(read(&files, 9, NOTHING)), Err(StoreError::ForeignStore { .. })));
        let newer = Anchor { generation: 3, entries: 0 };
        assert!(matches!(block_on(read(&files, 5, newer)), Err(StoreError::Damaged { .. })));
    }
}
