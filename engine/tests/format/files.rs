//! Whole files taken apart by the document: a log file into batches and records, a manifest, a segment into rows.
//!
//! What the document says in words (where batches begin, how blocks follow each other, what a group of rows is) is
//! here; what it says in tables is asked of [`Document`]. What is sealed is opened by the keys that the file of them gives
//! ([`crate::keys`]). Must not do: use the engine's decoders.

use crate::{
    keys::Keys,
    tables::{Document, Fault, Fields, Given, Letters, NOTHING, require},
};

pub(crate) const PAGE: usize = 4096;
/// Rows of a group.
const GROUP: usize = 16;

/// A key and its value; `None` for a delete marker.
pub(crate) type Row = (Vec<u8>, Option<Vec<u8>>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Batch {
    /// Where it begins, and where the next does.
    pub(crate) place: (usize, usize),
    pub(crate) lane: u64,
    pub(crate) checksum: u64,
    pub(crate) chain: u64,
    pub(crate) salt: u64,
    pub(crate) generation: u64,
    pub(crate) first_position: u64,
    pub(crate) records_before: u64,
    pub(crate) witness: Vec<Held>,
    pub(crate) records: Vec<Record>,
}

/// A row of a witness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Held {
    pub(crate) conversation: [u8; 16],
    pub(crate) last: u64,
    pub(crate) kinds: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record {
    Entry(Vec<u8>),
    Mark {
        conversation: [u8; 16],
        read: u64,
        messages: u64,
        delivered: u64,
        user: String,
    },
    /// An entry, and the rows that it brings by their suffixes, in order.
    Change {
        archive: Vec<u8>,
        brought: Vec<Row>,
    },
}

#[derive(Debug)]
pub(crate) struct Manifest {
    pub(crate) store: u64,
    pub(crate) lane: u64,
    pub(crate) edit: u64,
    pub(crate) next_segment: u64,
    pub(crate) flushed_position: u64,
    pub(crate) segments: Vec<Listed>,
    pub(crate) blob: Vec<u8>,
}

/// What a manifest says of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) id: u64,
    pub(crate) file_bytes: u64,
    pub(crate) rows: u64,
    pub(crate) deletes: u64,
    pub(crate) level: u64,
    pub(crate) first_key: Vec<u8>,
    pub(crate) last_key: Vec<u8>,
    pub(crate) adopted: Option<Adopted>,
}

/// Whose an adopted segment is; sets of partitions are bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Adopted {
    pub(crate) store: u64,
    pub(crate) id: u64,
    pub(crate) held: Vec<u8>,
    pub(crate) shown: Vec<u8>,
}

/// The engine's part of a manifest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Blob {
    pub(crate) salt: u64,
    pub(crate) time: u64,
    pub(crate) generation: u64,
    pub(crate) file_bytes: u64,
    pub(crate) horizons: [u64; 2],
    pub(crate) old_rows_until: u64,
    pub(crate) changes: u64,
    /// Of an encrypted store: generation and entries of its `keys`.
    pub(crate) keys: Option<(u64, u64)>,
    pub(crate) others_until: Option<u64>,
}

#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) store: u64,
    pub(crate) filter_id: u64,
    /// As the footer tells them; of level 0, which it does not know.
    pub(crate) listed: Listed,
    pub(crate) times: Option<(u64, u64)>,
    pub(crate) rows: Vec<Row>,
    pub(crate) blocks_compressed: usize,
    pub(crate) filter: Vec<FilterPart>,
    /// How many rows erase, and since when.
    pub(crate) erasing: (u64, u64),
}

#[derive(Debug)]
pub(crate) struct FilterPart {
    pub(crate) last_key: Vec<u8>,
    ends: Vec<usize>,
    low: Vec<u16>,
    high: Vec<u8>,
}

impl FilterPart {
    /// Whether it holds a piece.
    pub(crate) fn holds(&self, piece: &[u8]) -> bool {
        let hash = xxhash_rust::xxh3::xxh3_64(piece);
        let bucket = ((hash >> 32).wrapping_mul(self.ends.len() as u64) >> 32) as usize;
        let begin = bucket.checked_sub(1).map_or(0, |before| self.ends[before]);
        let fingerprint = ((hash & 0xffff) as u16, (hash >> 16 & 0xff) as u8);
        (begin..self.ends[bucket]).any(|at| (self.low[at], self.high[at]) == fingerprint)
    }

    pub(crate) fn pieces(&self) -> usize {
        self.high.len()
    }
}

/// The batches of a log file from its beginning: those of its generation. What is behind them was told by an older
/// one, or is zeros. With the data keys of an encrypted store every record must be sealed, otherwise none.
pub(crate) fn log(document: &Document, bytes: &[u8], keys: Option<&Keys>) -> Result<Vec<Batch>, Fault> {
    let mut batches: Vec<Batch> = Vec::new();
    let mut at = 0;
    while at < bytes.len() && bytes[at..].starts_with(b"ANTILOG\n") {
        let (batch, length) = batch(document, &bytes[at..], keys).map_err(|fault| format!("byte {at}: {fault}"))?;
        if batches.last().is_some_and(|last| last.generation != batch.generation) {
            break;
        }
        let next = (at + length).next_multiple_of(PAGE);
        require!(bytes[at + length..next].iter().all(|byte| *byte == 0), "byte {at}: the rest of the page is not zero");
        batches.push(Batch { place: (at, next), ..batch });
        at = next;
    }
    Ok(batches)
}

/// What a log file's last page says.
#[derive(Debug)]
pub(crate) struct Limit {
    pub(crate) lane: u64,
    pub(crate) salt: u64,
    pub(crate) generation: u64,
    pub(crate) limit: u64,
    /// Offsets and first positions.
    pub(crate) landmarks: Vec<(u64, u64)>,
}

/// The limit of a log file; none if its last page has none.
pub(crate) fn limit(document: &Document, bytes: &[u8]) -> Result<Option<Limit>, Fault> {
    let page = &bytes[bytes.len() - PAGE..];
    if !page.starts_with(b"ANTILIM\n") {
        return Ok(None);
    }
    let length = document.peek("Limit", "length", page)? as usize;
    let (whole, padding) = page.split_at_checked(length).ok_or_else(|| format!("a limit of {length} bytes"))?;
    require!(padding.iter().all(|byte| *byte == 0), "the rest of the page is not zero");
    let fields = document.decode("Limit", whole, NOTHING)?;
    let (version, beyond) = (fields.number("format version")?, fields.number("beyond")?);
    require!(matches!((version, beyond), (1, 0) | (2, 1..)), "a limit of version {version}, {beyond} beyond");
    let mut landmarks = Vec::new();
    let mut rest = fields.bytes("landmarks")?;
    while !rest.is_empty() {
        let landmark = document.decode("Landmark", rest, NOTHING)?;
        landmarks.push((landmark.number("begin")?, landmark.number("first position")?));
        rest = &rest[landmark.end..];
    }
    require!(fields.number("count")? == landmarks.len() as u64, "there are {} landmarks", landmarks.len());
    let (lane, salt, generation) = (fields.number("lane")?, fields.number("salt")?, fields.number("generation")?);
    Ok(Some(Limit { lane, salt, generation, limit: fields.number("limit")?, landmarks }))
}

/// What every file says of itself.
pub(crate) fn version_one(fields: &Fields<'_>) -> Result<(), Fault> {
    let (magic, version) = (fields.bytes("magic")?, fields.number("format version")?);
    require!(magic.len() == 8 && magic.starts_with(b"ANTI") && version == 1, "{magic:02x?} of version {version}");
    Ok(())
}

fn batch(document: &Document, bytes: &[u8], keys: Option<&Keys>) -> Result<(Batch, usize), Fault> {
    let length = document.peek("Batch", "length", bytes)? as usize;
    let whole = bytes.get(..length).ok_or_else(|| format!("a batch of {length} bytes is beyond the file"))?;
    require!((64..=4 << 20).contains(&length), "a batch of {length} bytes");
    let fields = document.decode("Batch", whole, NOTHING)?;
    let mut rest = fields.bytes("witness")?;
    let mut witness = Vec::new();
    while !rest.is_empty() {
        let held = document.decode("Witness", rest, NOTHING)?;
        let (last, kinds) = (held.number("last sequence")?, held.number("kinds")?);
        witness.push(Held { conversation: held.id("conversation")?, last, kinds });
        rest = &rest[held.end..];
    }
    require!(fields.number("conversations before")? == witness.len() as u64, "the witness has {} rows", witness.len());
    let first_position = fields.number("first position")?;
    require!(first_position < 1 << 62, "a first position of {first_position}");
    let (mut records, mut is_sealed) = (Vec::new(), false);
    let mut rest = fields.bytes("content")?;
    while !rest.is_empty() {
        let record = document.decode("Record", rest, NOTHING)?;
        let payload = record.bytes("payload")?;
        require!(record.number("length")? == payload.len() as u64, "a payload has {} bytes", payload.len());
        let kind = record.number("kind")?;
        records.push(match keys {
            Some(keys) => {
                require!(kind == 4, "a record of kind {kind} in an encrypted store");
                let position = first_position + records.len() as u64;
                let opened = keys.record(document, payload, fields.bytes("salt")?, position)?;
                require!(opened.len() + 44 == payload.len(), "sealing made {} of {}", payload.len(), opened.len());
                is_sealed = true;
                let inner = document.decode("What a sealed record holds", &opened, NOTHING)?;
                record_of(document, inner.number("kind")?, inner.bytes("payload")?)?
            }
            None => record_of(document, kind, payload)?,
        });
        rest = &rest[record.end..];
    }
    require!(fields.number("records")? == records.len() as u64, "there are {} records", records.len());
    let has_changes = records.iter().any(|record| matches!(record, Record::Change { .. }));
    let version = if is_sealed { 3 } else { 1 + u64::from(has_changes) };
    require!(fields.number("format version")? == version, "a batch is not of version {version}");
    let batch = Batch {
        place: (0, length),
        lane: fields.number("lane")?,
        checksum: fields.number("checksum")?,
        chain: fields.number("chain")?,
        salt: fields.number("salt")?,
        generation: fields.number("generation")?,
        first_position,
        records_before: fields.number("records before")?,
        witness,
        records,
    };
    Ok((batch, length))
}

fn record_of(document: &Document, kind: u64, payload: &[u8]) -> Result<Record, Fault> {
    match kind {
        1 => Ok(Record::Entry(payload.to_vec())),
        2 => mark(document, payload),
        3 => change(document, payload),
        kind => Err(format!("a record of kind {kind}")),
    }
}

fn change(document: &Document, payload: &[u8]) -> Result<Record, Fault> {
    let fields = document.decode("Change", payload, NOTHING)?;
    let (archive, mut rest) = (fields.bytes("archive")?, fields.bytes("brought")?);
    require!(fields.number("archive length")? == archive.len() as u64, "an archive has {} bytes", archive.len());
    let mut brought = Vec::new();
    while !rest.is_empty() {
        let row = document.decode("Brought row", rest, NOTHING)?;
        let (suffix, value, tag) = (row.bytes("suffix")?, row.bytes("value")?, row.number("tag")?);
        require!(row.number("suffix length")? == suffix.len() as u64, "a suffix has {} bytes", suffix.len());
        require!(tag == 0 || tag == value.len() as u64 + 1, "a value has {} bytes", value.len());
        brought.push((suffix.to_vec(), (tag > 0).then(|| value.to_vec())));
        rest = &rest[row.end..];
    }
    brought.sort();
    Ok(Record::Change { archive: archive.to_vec(), brought })
}

fn mark(document: &Document, payload: &[u8]) -> Result<Record, Fault> {
    let fields = document.decode("Mark", payload, NOTHING)?;
    let user = std::str::from_utf8(fields.bytes("user")?).map_err(|error| error.to_string())?;
    Ok(Record::Mark {
        conversation: fields.id("conversation")?,
        read: fields.number("read")?,
        messages: fields.number("messages")?,
        delivered: fields.number("delivered")?,
        user: user.to_owned(),
    })
}

/// What a manifest of version 2 says behind a segment, and how long it is.
fn adopted(document: &Document, bytes: &[u8]) -> Result<(Option<Adopted>, usize), Fault> {
    const TABLE: &str = "Whether it was adopted";
    match document.peek(TABLE, "adopted", bytes)? {
        0 => return Ok((None, 1)),
        adopted => require!(adopted == 1, "adopted is {adopted}"),
    }
    let fields = document.decode(TABLE, bytes, NOTHING)?;
    let adopted = Adopted {
        store: fields.number("origin store")?,
        id: fields.number("origin id")?,
        held: fields.bytes("held")?.to_vec(),
        shown: fields.bytes("shown")?.to_vec(),
    };
    Ok((Some(adopted), fields.end))
}

pub(crate) fn manifest(document: &Document, bytes: &[u8]) -> Result<Manifest, Fault> {
    let length = document.peek("Manifest", "length", bytes)? as usize;
    let whole = bytes.get(..length).ok_or_else(|| format!("a manifest of {length} bytes is beyond the file"))?;
    let fields = document.decode("Manifest", whole, NOTHING)?;
    let version = fields.number("format version")?;
    require!(fields.bytes("magic")? == b"ANTIMANI" && (1..=2).contains(&version), "a manifest of version {version}");
    let mut segments = Vec::new();
    let mut rest = fields.bytes("list")?;
    while !rest.is_empty() {
        let one = document.decode("One segment", rest, NOTHING)?;
        let (first, last) = (one.bytes("first key")?, one.bytes("last key")?);
        let lengths = (one.number("first key length")?, one.number("last key length")?);
        require!(lengths == (first.len() as u64, last.len() as u64), "keys of {lengths:?} bytes");
        segments.push(Listed {
            id: one.number("id")?,
            file_bytes: one.number("file bytes")?,
            rows: one.number("rows")?,
            deletes: one.number("deletes")?,
            level: one.number("level")?,
            first_key: first.to_vec(),
            last_key: last.to_vec(),
            adopted: None,
        });
        rest = &rest[one.end..];
        if version == 2 {
            let (adopted, length) = adopted(document, rest)?;
            segments.last_mut().expect("one was pushed").adopted = adopted;
            rest = &rest[length..];
        }
    }
    let is_second = segments.iter().any(|segment| segment.adopted.is_some());
    require!(is_second == (version == 2), "version {version}, and adopted is {is_second}");
    let blob = fields.bytes("blob")?.to_vec();
    require!(fields.number("segments")? == segments.len() as u64, "the manifest lists {} segments", segments.len());
    require!(fields.number("blob length")? == blob.len() as u64, "the blob has {} bytes", blob.len());
    Ok(Manifest {
        store: fields.number("store")?,
        lane: fields.number("lane")?,
        edit: fields.number("edit")?,
        next_segment: fields.number("next segment")?,
        flushed_position: fields.number("flushed position")?,
        segments,
        blob,
    })
}

pub(crate) fn blob(document: &Document, bytes: &[u8]) -> Result<Blob, Fault> {
    let fields = document.decode("Blob", bytes, NOTHING)?;
    let version = fields.number("version")?;
    require!((2..=3).contains(&version), "the blob's version is {version}");
    let mut rest = &bytes[fields.end..];
    let mut keys = None;
    if version == 3 {
        let told = document.decode("Data keys there", rest, NOTHING)?;
        keys = Some((told.number("generation")?, told.number("entries")?));
        rest = &rest[told.end..];
    }
    let mut others_until = None;
    if !rest.is_empty() {
        let told = document.decode("Lanes before", rest, NOTHING)?;
        others_until = Some(told.number("others until")?);
        rest = &rest[told.end..];
    }
    require!(rest.is_empty(), "{} bytes are left of the blob", rest.len());
    let (salt, time, generation) = (fields.number("salt")?, fields.number("time")?, fields.number("generation")?);
    let horizons = [fields.number("horizon of ids")?, fields.number("horizon of storing")?];
    let (file_bytes, old_rows_until) = (fields.number("file bytes")?, fields.number("old rows until")?);
    let changes = fields.number("changes")?;
    Ok(Blob { salt, time, generation, file_bytes, horizons, old_rows_until, changes, keys, others_until })
}

/// A block's raw bytes, where the next one begins, and whether it was compressed.
struct Block {
    raw: Vec<u8>,
    next: usize,
    compressed: bool,
}

fn block(document: &Document, file: &[u8], segment: u64, at: usize, kind: u64) -> Result<Block, Fault> {
    let place = [("segment id", segment), ("block's offset in the file", at as u64)];
    let bytes = file.get(at..).ok_or("a block beyond the file")?;
    let fields = document.decode("Block", bytes, Given { numbers: &place, ..NOTHING })?;
    require!(fields.number("kind")? == kind, "a block of kind {}, not {kind}", fields.number("kind")?);
    require!(kind < 5, "a block of kind {kind}");
    let (stored, raw_length) = (fields.bytes("stored bytes")?, fields.number("raw length")? as usize);
    require!(fields.number("stored length")? == stored.len() as u64, "{} bytes are stored", stored.len());
    require!(raw_length <= 1_315_840, "a raw length of {raw_length}");
    let compression = fields.number("compression")?;
    let raw = match compression {
        0 => stored.to_vec(),
        1 if kind != 3 => zstd::bulk::decompress(stored, raw_length).map_err(|error| error.to_string())?,
        other => return Err(format!("compression {other}")),
    };
    require!(raw.len() == raw_length, "{} raw bytes, not {raw_length}", raw.len());
    Ok(Block { raw, next: at + fields.end, compressed: compression == 1 })
}

/// The rows of a data or index block.
fn rows(document: &Document, raw: &[u8]) -> Result<Vec<Row>, Fault> {
    let fields = document.decode("Rows", raw, NOTHING)?;
    let (bytes, groups) = (fields.bytes("rows")?, fields.number("groups")? as usize);
    let (offsets, rest) = fields.bytes("offsets")?.as_chunks::<4>();
    require!(rest.is_empty() && offsets.len() == groups && groups > 0, "{groups} groups, {} offsets", offsets.len());
    let (mut at, mut found): (usize, Vec<Row>) = (0, Vec::new());
    while at < bytes.len() {
        let row = document.decode("One row", &bytes[at..], NOTHING)?;
        let (shared, tag) = (row.number("shared")? as usize, row.number("tag")?);
        let rest = row.bytes("rest")?;
        require!(row.number("rest length")? == rest.len() as u64, "{} bytes follow", rest.len());
        let before = found.last().map_or(&[][..], |(key, _)| key);
        let begun = before.get(..shared).ok_or_else(|| format!("{shared} bytes shared with {before:02x?}"))?;
        let key = [begun, rest].concat();
        if found.len() % GROUP == 0 {
            let offset = offsets.get(found.len() / GROUP).map(|offset| u32::from_le_bytes(*offset) as usize);
            require!((shared, offset) == (0, Some(at)), "a group's first row at {at}: {shared} shared, {offset:?}");
        } else {
            let most = before.iter().zip(&key).take_while(|(one, other)| one == other).count();
            require!(shared == most, "{shared} bytes shared, {most} could be");
        }
        require!(found.is_empty() || before < key.as_slice(), "keys do not ascend at {at}");
        let value = row.bytes("value")?;
        require!(tag == 0 || tag == value.len() as u64 + 1, "a value of {} bytes", value.len());
        found.push((key, (tag > 0).then(|| value.to_vec())));
        at += row.end;
    }
    require!(found.len().div_ceil(GROUP) == groups, "{} rows in {groups} groups", found.len());
    Ok(found)
}

/// A bucket for every 16 pieces or part of it, at least one.
fn buckets(letter: char, letters: &Letters) -> Option<u64> {
    let pieces = letters.get(&'p').filter(|_| letter == 'b')?;
    Some(pieces.div_ceil(16).max(1))
}

fn filter_part(document: &Document, raw: &[u8]) -> Result<FilterPart, Fault> {
    let fields = document.decode("Filter block", raw, Given { derived: buckets, ..NOTHING })?;
    require!(fields.end == raw.len(), "a filter's part has {} bytes, not {}", raw.len(), fields.end);
    let numbers = |field: &str| -> Result<Vec<u16>, Fault> {
        let (pairs, rest) = fields.bytes(field)?.as_chunks::<2>();
        require!(rest.is_empty(), "{field} are not pairs of bytes");
        Ok(pairs.iter().map(|pair| u16::from_le_bytes(*pair)).collect())
    };
    let ends: Vec<usize> = numbers("ends")?.into_iter().map(usize::from).collect();
    let (low, high, last_key) = (numbers("low")?, fields.bytes("high")?.to_vec(), fields.bytes("last key")?.to_vec());
    let pieces = fields.number("pieces")? as usize;
    require!(fields.number("last key length")? == last_key.len() as u64, "a last key of {} bytes", last_key.len());
    require!((low.len(), high.len()) == (pieces, pieces), "{pieces} pieces, {} and {}", low.len(), high.len());
    require!(ends.is_sorted() && ends.last() == Some(&pieces), "buckets end at {ends:?} of {pieces}");
    Ok(FilterPart { last_key, ends, low, high })
}

/// What the data blocks of a segment hold.
struct Data {
    rows: Vec<Row>,
    /// What the index has to say of them.
    index: Vec<Row>,
    raw_bytes: u64,
    compressed: usize,
}

fn data(document: &Document, file: &[u8], id: u64, end: usize) -> Result<Data, Fault> {
    let mut data = Data { rows: Vec::new(), index: Vec::new(), raw_bytes: 0, compressed: 0 };
    let mut at = PAGE;
    while at < end {
        let block = block(document, file, id, at, 1)?;
        let rows = rows(document, &block.raw)?;
        let last = rows.last().ok_or("a block without rows")?.0.clone();
        data.index.push((last, Some(((block.next - at) as u32).to_le_bytes().to_vec())));
        require!(data.rows.last().is_none_or(|(key, _)| *key < rows[0].0), "blocks do not ascend at {at}");
        data.rows.extend(rows);
        data.raw_bytes += block.raw.len() as u64;
        data.compressed += usize::from(block.compressed);
        at = block.next;
    }
    require!(at == end && !data.rows.is_empty(), "data blocks end at {at}, not {end}");
    Ok(data)
}

pub(crate) fn segment(document: &Document, file: &[u8]) -> Result<Segment, Fault> {
    let last_page = file.len().checked_sub(PAGE).ok_or("a segment of less than a page")?;
    let header = document.decode("Header", &file[..PAGE], NOTHING)?;
    let footer = document.decode("Footer", &file[last_page..], NOTHING)?;
    require!((header.end, footer.end) == (PAGE, PAGE), "the header ends at {}", header.end);
    let filter_index = footer.number("filter index offset")? as usize;
    version_one(&header)?;
    let (magic, version) = (footer.bytes("magic")?, footer.number("format version")?);
    let erasing = (footer.number("erasing rows")?, footer.number("erasing since")?);
    require!(erasing.0 > 0 || erasing.1 == 0, "rows that erase: {erasing:?}");
    let expected = 1 + u64::from(filter_index > 0 || erasing.0 > 0);
    require!(magic.starts_with(b"ANTISEGF") && version == expected, "{magic:02x?} of version {version}");
    let (id, store) = (header.number("segment id")?, header.number("store")?);
    require!((footer.number("segment id")?, footer.number("store")?) == (id, store), "header and footer differ");
    let [index, filter, end] = ["index offset", "filter offset", "end offset"].map(|field| footer.number(field));
    let (index, filter, end) = (index? as usize, filter? as usize, end? as usize);
    require!(end.next_multiple_of(PAGE) == last_page && index <= filter && filter <= end, "{index}, {filter}, {end}");
    require!(file[end..last_page].iter().all(|byte| *byte == 0), "what is between filter and footer is not zero");

    let data = data(document, file, id, index)?;
    let (mut at, mut indexed, mut parts) = (index, Vec::new(), Vec::new());
    while at < filter {
        let block = block(document, file, id, at, 2)?;
        indexed.extend(rows(document, &block.raw)?);
        at = block.next;
    }
    require!(at == filter && indexed == data.index, "the index is not that of the data blocks");
    let filter_end = if filter_index > 0 { filter_index } else { end };
    let (mut filter_places, mut filter_rows) = (Vec::new(), Vec::new());
    while at < filter_end {
        let block = block(document, file, id, at, 3)?;
        let part = filter_part(document, &block.raw)?;
        filter_places.push((part.last_key.clone(), Some(((block.next - at) as u32).to_le_bytes().to_vec())));
        parts.push(part);
        at = block.next;
    }
    require!(at == filter_end, "filter blocks end at {at}, not {filter_end}");
    while at < end {
        let block = block(document, file, id, at, 4)?;
        filter_rows.extend(rows(document, &block.raw)?);
        at = block.next;
    }
    require!(at == end && (filter_index == 0 || filter_rows == filter_places), "the index is not that of the filter");
    let listed = statistics(&footer, file, id, &data)?;
    let times = (footer.number("least time")?, footer.number("greatest time")?);
    let has_times = footer.number("has times")?;
    require!(has_times <= 1, "times are told: {has_times}");
    Ok(Segment {
        store,
        filter_id: footer.number("filter id")?,
        times: (has_times == 1).then_some(times),
        listed,
        rows: data.rows,
        blocks_compressed: data.compressed,
        filter: parts,
        erasing,
    })
}

/// What the rows come to, which the footer has to say.
fn statistics(footer: &Fields<'_>, file: &[u8], id: u64, data: &Data) -> Result<Listed, Fault> {
    let (first, last) = (&data.rows[0].0, &data.rows[data.rows.len() - 1].0);
    let deletes = data.rows.iter().filter(|(_, value)| value.is_none()).count() as u64;
    let live = data.rows.iter().filter_map(|(key, value)| Some(key.len() + value.as_ref()?.len())).sum::<usize>();
    for (field, expected) in [
        ("file bytes", file.len() as u64),
        ("rows", data.rows.len() as u64),
        ("deletes", deletes),
        ("live bytes", live as u64),
        ("raw bytes", data.raw_bytes),
        ("data blocks", data.index.len() as u64),
        ("first key length", first.len() as u64),
        ("last key length", last.len() as u64),
    ] {
        let number = footer.number(field)?;
        require!(number == expected, "the footer's {field}: {number}, not {expected}");
    }
    for (field, expected) in [("first key", first), ("last key", last)] {
        require!(footer.bytes(field)? == expected, "the footer's {field} is another");
    }
    Ok(Listed {
        id,
        file_bytes: file.len() as u64,
        rows: data.rows.len() as u64,
        deletes,
        level: 0,
        first_key: first.clone(),
        last_key: last.clone(),
        adopted: None,
    })
}
