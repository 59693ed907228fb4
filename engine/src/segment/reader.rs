//! Reads a segment: footer, index and filter at opening, blocks as they are asked for.

use std::{ops::Bound, rc::Rc};

use futures_util::future::join;

use super::{
    KeyFilter, SegmentContext, SegmentId, SegmentStatistics,
    block::RowBlock,
    filter::{Filter, KeyHashes, part_may_hold},
    format::{BlockKind, BlockPlace, DATA_START, Footer, PageError, VERSION, decode_header},
    index::{Index, IndexedBlock},
    paged::PartCheck,
    stream::{ByteStream, StreamCursor},
};
use crate::{
    error::{DamagedKeys, StoreError},
    merge::{Settled, Source},
    partitions::Adopted,
    row::{Change, KeyRange, SharedBytes},
    seams::{File, FileError, Files, OpenMode, PAGE_BYTES},
};

/// An open segment. Cloning gives another handle; the file may be removed when the last is dropped.
pub struct SegmentReader<F: Files> {
    pub(super) inner: Rc<Inner<F>>,
}

impl<F: Files> Clone for SegmentReader<F> {
    fn clone(&self) -> Self {
        Self { inner: Rc::clone(&self.inner) }
    }
}

pub(super) struct Inner<F: Files> {
    pub(super) context: SegmentContext<F>,
    file: F::File,
    statistics: SegmentStatistics,
    index: Index,
    pub(super) filter: SegmentFilter,
    /// What goes into it.
    pieces: KeyFilter,
    /// Set if another lane wrote it; some of its rows may not count then.
    adopted: Option<Adopted>,
}

/// The filter as a reader has it.
pub(super) enum SegmentFilter {
    /// The segment has none that answers this program's questions.
    None,
    /// In memory.
    Held(Filter),
    /// Read in parts; this says where they are.
    Paged(Index),
}

/// What a filter says of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// It is not there.
    No,
    /// It may be.
    Maybe,
    /// This part would have to be read.
    Unread(u32),
}

/// What [`SegmentReader::verify`] found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verified {
    /// Blocks read.
    pub blocks: u64,
    /// Rows that are as they should be.
    pub rows: u64,
    /// Stored bytes read.
    pub bytes: u64,
    /// What is damaged, in order of keys.
    pub damaged: Vec<StoreError>,
}

impl<F: Files> SegmentReader<F> {
    /// Opens a segment and reads all but its data.
    ///
    /// # Errors
    /// [`StoreError::SegmentMissing`], [`StoreError::Damaged`], [`StoreError::NewerVersion`], [`StoreError::ForeignStore`], and
    /// whatever the files say.
    pub async fn open(context: &SegmentContext<F>, id: SegmentId) -> Result<Self, StoreError> {
        Self::open_adopted(context, id, None).await
    }

    /// As [`SegmentReader::open`], of a segment that another lane wrote, if that is told: it has a name by `id` here. Rows that do not
    /// count are passed over by all but [`SegmentReader::verify`].
    ///
    /// # Errors
    /// As [`SegmentReader::open`].
    pub async fn open_adopted(
        context: &SegmentContext<F>,
        id: SegmentId,
        adopted: Option<Adopted>,
    ) -> Result<Self, StoreError> {
        let name = id.file_name();
        let file = match context.files.open(&name, OpenMode::Read).await {
            Err(FileError::NotFound { .. }) => return Err(StoreError::SegmentMissing { file: name }),
            other => other?,
        };
        let identity = adopted.map_or((id, context.store), |adopted| (adopted.id, adopted.store));
        let mut footer = read_ends(&file, id, identity).await?;
        footer.statistics.id = id;
        let opening = Opening { context, file: &file, id, place: identity.0, footer: &footer };
        let (index, filter) = join(opening.read_index(), opening.read_filter()).await;
        let (index, filter, pieces) = (index?, filter?, *opening.pieces().unwrap_or(&context.settings.filter));
        let context = context.clone();
        let inner = Inner { context, file, statistics: footer.statistics, index, filter, pieces, adopted };
        Ok(Self { inner: Rc::new(inner) })
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> SegmentId {
        self.inner.statistics.id
    }

    /// What it holds.
    #[must_use]
    pub fn statistics(&self) -> &SegmentStatistics {
        &self.inner.statistics
    }

    /// The number that it was written under, which block checksums begin with.
    pub(super) fn number_in_file(&self) -> SegmentId {
        self.inner.adopted.as_ref().map_or(self.id(), |adopted| adopted.id)
    }

    /// What its first and last page name: number and store.
    pub(super) fn identity(&self) -> (SegmentId, u64) {
        let own = (self.id(), self.inner.context.store);
        self.inner.adopted.map_or(own, |adopted| (adopted.id, adopted.store))
    }

    /// Set if another lane wrote it.
    pub(crate) fn adopted(&self) -> Option<&Adopted> {
        self.inner.adopted.as_ref()
    }

    /// Whether a row of it with this key counts.
    pub(crate) fn shows(&self, key: &[u8]) -> bool {
        self.inner.adopted.as_ref().is_none_or(|adopted| adopted.shows(key))
    }

    /// Whether it may hold a row with this key. `false` is certain. Needs no read.
    #[must_use]
    pub fn may_contain(&self, key: &[u8]) -> bool {
        self.may_contain_hashed(key, &mut None)
    }

    fn hashes(&self, key: &[u8]) -> KeyHashes {
        KeyHashes::new(key, &self.inner.pieces)
    }

    /// As [`SegmentReader::may_contain`], for a key that many segments are asked about: `hashes` is what the one before left there.
    pub(crate) fn may_contain_hashed(&self, key: &[u8], hashes: &mut Option<KeyHashes>) -> bool {
        let hashes = match hashes {
            Some(hashes) if hashes.filter() == self.inner.pieces.id => hashes,
            other => other.insert(self.hashes(key)),
        };
        self.ask(key, hashes) != Answer::No
    }

    /// What is known of a row that counts.
    fn ask(&self, key: &[u8], hashes: &KeyHashes) -> Answer {
        if self.shows(key) { self.ask_file(key, hashes) } else { Answer::No }
    }

    /// The same, whether the row counts or not.
    fn ask_file(&self, key: &[u8], hashes: &KeyHashes) -> Answer {
        let statistics = &self.inner.statistics;
        let is_within = || key >= statistics.first_key.as_slice() && key <= statistics.last_key.as_slice();
        let may_hold = match &self.inner.filter {
            SegmentFilter::None => is_within(),
            SegmentFilter::Held(filter) => filter.may_contain_key(key, hashes),
            SegmentFilter::Paged(parts) => {
                let Some(number) = parts.find(key).filter(|_| is_within()) else { return Answer::No };
                match self.inner.context.filters.get(self.id(), number) {
                    Some(part) => part_may_hold(&part, hashes),
                    None => return Answer::Unread(number),
                }
            }
        };
        if may_hold { Answer::Maybe } else { Answer::No }
    }

    /// Whether it may hold a row in `range` whose key has this filter piece; without a piece, whether it may hold a row in the range.
    /// `false` is certain. Needs no read.
    #[must_use]
    pub fn may_overlap(&self, range: &KeyRange, piece: Option<&[u8]>) -> bool {
        let statistics = &self.inner.statistics;
        range.overlaps(&statistics.first_key, &statistics.last_key)
            && match (&self.inner.filter, piece) {
                (SegmentFilter::Held(filter), Some(piece)) => {
                    filter.may_contain_piece(range, piece) && self.may_hold_within(filter, range)
                }
                _ => true,
            }
    }

    /// Whether the filter has one of the pieces of which every row in the range has one.
    fn may_hold_within(&self, filter: &Filter, range: &KeyRange) -> bool {
        let (mut asked, mut held) = (false, false);
        (self.inner.pieces.pieces_within)(range, &mut |piece| {
            asked = true;
            held |= filter.may_contain_piece(range, piece);
        });
        held || !asked
    }

    /// What the segment says about `key`; `None` if nothing.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if the block that can hold the key is, and whatever the files say.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Change<SharedBytes>>, StoreError> {
        let hashes = self.hashes(key);
        match self.ask(key, &hashes) {
            Answer::No => return Ok(None),
            // A filter only spares reads: without the part the block tells.
            Answer::Unread(number) => match self.load_part(number).await {
                Ok(part) if !part_may_hold(&part, &hashes) => return Ok(None),
                Ok(_) | Err(_) => {}
            },
            Answer::Maybe => {}
        }
        let Some(number) = self.block_of(key) else { return Ok(None) };
        let block = match self.cached_rows(number)? {
            Some(block) => block,
            None => self.read_rows(number).await?,
        };
        block.get(key).ok_or_else(|| self.damaged_block(number, "rows are malformed"))
    }

    /// As [`SegmentReader::get`], but `None` if a block would have to be read, or is damaged.
    #[must_use]
    pub fn get_cached(&self, key: &[u8]) -> Option<Option<Change<SharedBytes>>> {
        match self.ask(key, &self.hashes(key)) {
            Answer::No => return Some(None),
            Answer::Unread(_) => return None,
            Answer::Maybe => {}
        }
        let Some(number) = self.block_of(key) else { return Some(None) };
        self.cached_rows(number).ok()??.get(key)
    }

    /// Reads every block and checks checksums, order, index, filter and statistics against each other, of rows that do not count, too.
    /// Reads past the cache; goes on behind damage.
    ///
    /// # Errors
    /// Whatever the files say; damage is in the answer.
    pub async fn verify(&self) -> Result<Verified, StoreError> {
        let mut verified = Verified::default();
        let mut check =
            RowCheck { reader: self, last_key: Vec::new(), rows: 0, deletes: 0, parts: PartCheck::default() };
        let mut cursor = StreamCursor::of_file(self);
        loop {
            let settled = match cursor.settle() {
                Ok(Settled::NeedsBlock) => {
                    verified.blocks += 1;
                    cursor.load().await.map(|()| None)
                }
                Ok(Settled::Row) => {
                    if let Some((key, _)) = cursor.row() {
                        check.parts.turn_to(self, key).await?;
                    }
                    let checked =
                        cursor.row().map_or(Ok(()), |(key, change)| check.row(cursor.block_number(), key, change));
                    cursor.advance();
                    checked.map(|()| None)
                }
                Ok(Settled::End) => Ok(Some(())),
                Err(error) => Err(error),
            };
            verified.bytes += cursor.take_bytes_read();
            match settled {
                Ok(None) => {}
                Ok(Some(())) => break,
                Err(damage @ StoreError::Damaged { .. }) => {
                    if verified.damaged.last() != Some(&damage) {
                        verified.damaged.push(damage);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        verified.damaged.append(&mut check.parts.damaged);
        verified.rows = check.rows;
        if verified.damaged.is_empty() && !check.matches_statistics() {
            verified.damaged.push(self.damaged_whole("statistics do not match the rows"));
        }
        Ok(verified)
    }

    /// Whether other handles on this segment are in use.
    pub(crate) fn is_shared(&self) -> bool {
        Rc::strong_count(&self.inner) > 1
    }

    /// Bytes of memory that the index takes, and those of what is held of the filter, beside the caches.
    #[must_use]
    pub fn resident_bytes(&self) -> (usize, usize) {
        let filter = match &self.inner.filter {
            SegmentFilter::None => 0,
            SegmentFilter::Held(filter) => filter.bytes(),
            SegmentFilter::Paged(parts) => parts.bytes(),
        };
        (self.inner.index.bytes(), filter)
    }

    pub(super) fn file(&self) -> &F::File {
        &self.inner.file
    }

    /// Where the data blocks are.
    pub(super) fn data_range(&self) -> (u64, u64) {
        (DATA_START, DATA_START + self.inner.statistics.stored_bytes)
    }

    pub(super) fn block_count(&self) -> u32 {
        self.inner.index.len()
    }

    pub(super) fn indexed_block(&self, number: u32) -> Option<IndexedBlock> {
        self.inner.index.block(number)
    }

    pub(super) fn block_of(&self, key: &[u8]) -> Option<u32> {
        self.inner.index.find(key)
    }

    pub(super) fn last_key_of(&self, number: u32) -> Option<&[u8]> {
        self.inner.index.last_key(number)
    }

    /// A data block that is in the cache.
    pub(super) fn cached_rows(&self, number: u32) -> Result<Option<RowBlock>, StoreError> {
        match self.inner.context.cache.get(self.id(), number) {
            Some(bytes) => self.rows_of(number, bytes).map(Some),
            None => Ok(None),
        }
    }

    /// Reads a data block and puts it in the cache.
    pub(super) async fn read_rows(&self, number: u32) -> Result<RowBlock, StoreError> {
        let Some(place) = self.indexed_block(number) else {
            return Err(self.damaged_whole("the index has no such block"));
        };
        let raw = self.decode(number, &self.read_block(place).await?)?;
        self.inner.context.cache.insert(self.id(), number, &raw);
        self.rows_of(number, raw)
    }

    /// Reads the pages of a block: its bytes, header included, of which nothing was looked at.
    pub(super) async fn read_block(&self, place: IndexedBlock) -> Result<Vec<u8>, FileError> {
        let page = PAGE_BYTES as u64;
        let first = place.offset / page * page;
        let end = (place.offset + u64::from(place.length)).next_multiple_of(page);
        let pages = self.inner.file.read_at(first, (end - first) as usize).await?;
        let start = (place.offset - first) as usize;
        Ok(pages.get(start..start + place.length as usize).unwrap_or_default().to_vec())
    }

    /// Checks and decompresses a data block that was read elsewhere.
    pub(super) fn decode_rows(&self, number: u32, block: &[u8]) -> Result<RowBlock, StoreError> {
        self.rows_of(number, self.decode(number, block)?)
    }

    /// The keys that a data block can hold.
    pub(super) fn keys_of_block(&self, number: u32) -> DamagedKeys {
        let statistics = &self.inner.statistics;
        DamagedKeys {
            start: match number.checked_sub(1).and_then(|before| self.last_key_of(before)) {
                Some(before) => Bound::Excluded(before.to_vec()),
                None => Bound::Included(statistics.first_key.clone()),
            },
            end: Bound::Included(self.last_key_of(number).unwrap_or(&statistics.last_key).to_vec()),
        }
    }

    /// Damage to a data block that a read has met, with the keys that it can have held.
    pub(super) fn damaged_block(&self, number: u32, what: &'static str) -> StoreError {
        let keys = self.keys_of_block(number);
        let offset = self.indexed_block(number).map_or(0, |block| block.offset);
        let met = &self.inner.context.damaged_blocks;
        met.set(met.get() + 1);
        StoreError::Damaged { file: self.id().file_name(), offset, what, keys }
    }

    /// Damage to no single block.
    pub(crate) fn damaged_whole(&self, what: &'static str) -> StoreError {
        let statistics = &self.inner.statistics;
        let keys = DamagedKeys::between(&statistics.first_key, &statistics.last_key);
        StoreError::Damaged { file: self.id().file_name(), offset: 0, what, keys }
    }

    fn decode(&self, number: u32, block: &[u8]) -> Result<Rc<[u8]>, StoreError> {
        let offset = self.indexed_block(number).map_or(0, |block| block.offset);
        let place = BlockPlace { segment: self.number_in_file(), offset };
        let decoded = self.inner.context.decoder.borrow_mut().decode(block, place, BlockKind::Data);
        decoded.map_err(|what| self.damaged_block(number, what))
    }

    fn rows_of(&self, number: u32, raw: Rc<[u8]>) -> Result<RowBlock, StoreError> {
        RowBlock::new(raw).ok_or_else(|| self.damaged_block(number, "rows are malformed"))
    }
}

/// Reads and checks the first and the last page of the file that goes by `id`, and must name the identity: number and store.
pub(super) async fn read_ends(
    file: &impl File,
    id: SegmentId,
    (named, store): (SegmentId, u64),
) -> Result<Footer, StoreError> {
    let size = file.size_bytes();
    let page = PAGE_BYTES as u64;
    if !size.is_multiple_of(page) || size < 3 * page {
        return Err(damaged_file(id, size, "cut short"));
    }
    let (last, first) = join(file.read_at(size - page, PAGE_BYTES), file.read_at(0, PAGE_BYTES)).await;
    let footer = Footer::decode(&last?, size).map_err(|error| page_error(id, size - page, error))?;
    let first = first?;
    let (header_id, header_store) = decode_header(&first).map_err(|error| page_error(id, 0, error))?;
    if header_store != store {
        return Err(StoreError::ForeignStore { file: id.file_name(), found: header_store, expected: store });
    }
    if header_id != named || footer.statistics.id != named || footer.store != store {
        return Err(damaged_file(id, 0, "belongs to another segment"));
    }
    Ok(footer)
}

/// What reading index and filter needs.
struct Opening<'a, F: Files> {
    context: &'a SegmentContext<F>,
    file: &'a F::File,
    id: SegmentId,
    /// The number that block checksums begin with.
    place: SegmentId,
    footer: &'a Footer,
}

impl<F: Files> Opening<'_, F> {
    async fn read_index(&self) -> Result<Index, StoreError> {
        let footer = self.footer;
        let mut index = Index::new(DATA_START);
        let (data_end, blocks) = (footer.index_offset, footer.statistics.blocks);
        let fits = |raw: Rc<[u8]>| index.extend(raw, data_end, blocks);
        self.read_blocks(footer.index_offset, footer.filter_offset, BlockKind::Index, fits).await?;
        index
            .completed(data_end, blocks, &footer.statistics.last_key)
            .ok_or_else(|| damaged_file(self.id, footer.index_offset, "the index does not cover the data"))
    }

    /// What goes into the filter, if this program knows it.
    fn pieces(&self) -> Option<&KeyFilter> {
        self.context.settings.filter.of_id(self.footer.filter_id)
    }

    /// The filter, if there is one whose choice of pieces this program knows.
    async fn read_filter(&self) -> Result<SegmentFilter, StoreError> {
        let footer = self.footer;
        if footer.filter_id == 0 || self.pieces().is_none() {
            return Ok(SegmentFilter::None);
        }
        let damaged = || damaged_file(self.id, footer.filter_offset, "the filter does not cover the data");
        if let Some(parts_end) = footer.filter_index_offset {
            let mut parts = Index::new(footer.filter_offset);
            // Each part has a row, and the last key of the segment bounds them.
            let fits = |raw: Rc<[u8]>| parts.extend(raw, parts_end, u32::MAX);
            self.read_blocks(parts_end, footer.end_offset, BlockKind::FilterIndex, fits).await?;
            let count = parts.len();
            let completed = parts.completed(parts_end, count, &footer.statistics.last_key);
            return completed.map(SegmentFilter::Paged).ok_or_else(damaged);
        }
        let mut filter = Filter::default();
        let fits = |raw: Rc<[u8]>| filter.extend(&raw);
        self.read_blocks(footer.filter_offset, footer.end_offset, BlockKind::Filter, fits).await?;
        if filter.is_complete(&footer.statistics.last_key) { Ok(SegmentFilter::Held(filter)) } else { Err(damaged()) }
    }

    async fn read_blocks(
        &self,
        start: u64,
        end: u64,
        kind: BlockKind,
        mut fits: impl FnMut(Rc<[u8]>) -> Option<()>,
    ) -> Result<(), StoreError> {
        let mut stream = ByteStream::new(start, end);
        while !stream.is_at_end() {
            let offset = stream.offset();
            let damaged = |what| damaged_file(self.id, offset, what);
            let block = stream.next_block(self.file).await?.ok_or_else(|| damaged("block length leads outside"))?;
            let place = BlockPlace { segment: self.place, offset };
            let raw = self.context.decoder.borrow_mut().decode(block, place, kind).map_err(damaged)?;
            fits(raw).ok_or_else(|| damaged("block does not fit the footer"))?;
        }
        Ok(())
    }
}

/// Checks rows as they pass by.
struct RowCheck<'a, F: Files> {
    reader: &'a SegmentReader<F>,
    last_key: Vec<u8>,
    rows: u64,
    deletes: u64,
    /// Of a paged filter.
    parts: PartCheck,
}

impl<F: Files> RowCheck<'_, F> {
    fn row(&mut self, block: u32, key: &[u8], change: &Change<SharedBytes>) -> Result<(), StoreError> {
        let first = self.rows == 0;
        let ascends = first || self.last_key.as_slice() < key;
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
        self.rows += 1;
        self.deletes += u64::from(matches!(change, Change::Delete));
        if !ascends {
            return Err(self.reader.damaged_whole("keys do not ascend"));
        }
        if self.reader.block_of(key) != Some(block) {
            return Err(self.reader.damaged_whole("the index leads to another block"));
        }
        let hashes = self.reader.hashes(key);
        if self.reader.ask_file(key, &hashes) == Answer::No || self.parts.denies(&hashes) {
            return Err(self.reader.damaged_whole("the filter denies a row"));
        }
        Ok(())
    }

    fn matches_statistics(&self) -> bool {
        let statistics = self.reader.statistics();
        (self.rows, self.deletes) == (statistics.rows, statistics.deletes) && self.last_key == statistics.last_key
    }
}

fn page_error(id: SegmentId, offset: u64, error: PageError) -> StoreError {
    match error {
        PageError::Damaged(what) => damaged_file(id, offset, what),
        PageError::Version(found) if found > VERSION => {
            StoreError::NewerVersion { file: id.file_name(), found, supported: VERSION }
        }
        PageError::Version(_) => damaged_file(id, offset, "unknown version"),
    }
}

fn damaged_file(id: SegmentId, offset: u64, what: &'static str) -> StoreError {
    StoreError::Damaged { file: id.file_name(), offset, what, keys: DamagedKeys::all() }
}
