//! The manifest: which segments make up the store, newest first, and how far the log is in them. One small file, replaced whole.
//!
//! docs/format.md draws the bytes. A new manifest is written under [`TEMPORARY_NAME`], synced, and renamed over [`NAME`]; so a crash
//! leaves the old one or the new one.
//!
//! Invariants: what [`Manifest::decode`] accepts, [`Manifest::encode`] gives back byte for byte; nothing from disk is used before the
//! checksum holds. The first 24 bytes keep their meaning in every version, so that a newer manifest is told from a damaged one.
//!
//! Must not do: open segments, or decide what belongs into them.

use crate::{
    bytes::Reader,
    error::{DamagedKeys, StoreError},
    partitions::{Adopted, Partitions, SET_BYTES},
    row::KEY_BYTES_MAX,
    seams::{AlignedBuffer, File, FileError, Files, OpenMode, PAGE_BYTES},
    segment::{SegmentId, SegmentStatistics},
};

/// The manifest's file name.
pub const NAME: &str = "manifest";

/// The name under which a new manifest is written.
pub const TEMPORARY_NAME: &str = "manifest.new";

/// The newest format version.
pub const VERSION: u32 = 2;

/// The version that is written where no segment was adopted: a program from before lanes could change reads it.
const VERSION_OF_OWN: u32 = 1;

/// Most segments of a store. A choice of compaction keeps them to some tens for a terabyte.
pub const SEGMENTS_MAX: usize = 16 * 1024;

/// Longest blob of the caller.
pub const BLOB_BYTES_MAX: usize = 64 * 1024;

/// Largest manifest: every segment with two keys of the greatest length.
const MANIFEST_BYTES_MAX: u64 =
    (HEADER_BYTES + SEGMENTS_MAX * (SEGMENT_BYTES_MIN + 2 * KEY_BYTES_MAX + ADOPTED_BYTES_MAX) + BLOB_BYTES_MAX) as u64;

const MAGIC: [u8; 8] = *b"ANTIMANI";
const HEADER_BYTES: usize = 72;
const SEGMENT_BYTES_MIN: usize = 36;
/// In version 2, whether a segment was adopted; and if so store, number and two sets of partitions.
const ADOPTED_BYTES_MAX: usize = 1 + 16 + 2 * SET_BYTES;

/// A store's manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The store's identity; every segment repeats it.
    pub store: u64,
    /// Which log lane of the store.
    pub lane: u32,
    /// Counts the manifests of this store, from 1.
    pub edit: u64,
    /// The number of the next segment. Numbers below it may be taken by files that nothing names.
    pub next_segment: u64,
    /// Log records up to this position are in segments.
    pub flushed_position: u64,
    /// The segments, newest first.
    pub segments: Vec<SegmentEntry>,
    /// The caller's own; at most [`BLOB_BYTES_MAX`] bytes.
    pub blob: Vec<u8>,
}

/// What the manifest says of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentEntry {
    /// The segment.
    pub id: SegmentId,
    /// How many merges its rows went through at most; 0 for a flush.
    pub level: u32,
    /// Bytes of its file.
    pub file_bytes: u64,
    /// Its rows, delete markers among them.
    pub rows: u64,
    /// Its delete markers.
    pub deletes: u64,
    /// Its first key.
    pub first_key: Vec<u8>,
    /// Its last key.
    pub last_key: Vec<u8>,
    /// Set if a lane before this one wrote it; what is above is of the whole file then.
    pub adopted: Option<Adopted>,
}

impl SegmentEntry {
    /// The entry of a segment that was just written.
    #[must_use]
    pub fn new(statistics: &SegmentStatistics, level: u32) -> Self {
        Self {
            id: statistics.id,
            level,
            file_bytes: statistics.file_bytes,
            rows: statistics.rows,
            deletes: statistics.deletes,
            first_key: statistics.first_key.clone(),
            last_key: statistics.last_key.clone(),
            adopted: None,
        }
    }

    /// Bytes of its file, or, if it was adopted, about as much of them as is of this lane.
    #[must_use]
    pub fn own_bytes(&self) -> u64 {
        self.adopted.as_ref().map_or(self.file_bytes, |adopted| adopted.share_of(self.file_bytes))
    }

    /// Whether a row of it with this key counts.
    pub(crate) fn shows(&self, key: &[u8]) -> bool {
        self.adopted.as_ref().is_none_or(|adopted| adopted.shows(key))
    }

    /// Whether the file is the one that is meant, as far as its footer tells beside its identity.
    pub(crate) fn is_of(&self, statistics: &SegmentStatistics) -> bool {
        *self == Self { id: self.id, adopted: self.adopted, ..Self::new(statistics, self.level) }
    }

    /// The number by which the file itself goes, and its store, where a store's own segments have `store`.
    #[must_use]
    pub fn origin(&self, store: u64) -> (SegmentId, u64) {
        self.adopted.map_or((self.id, store), |adopted| (adopted.id, adopted.store))
    }
}

impl Manifest {
    /// The bytes of the file, without padding to whole pages.
    ///
    /// # Panics
    /// If there are more segments than [`SEGMENTS_MAX`] or the blob is longer than [`BLOB_BYTES_MAX`].
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        assert!(self.segments.len() <= SEGMENTS_MAX, "too many segments");
        assert!(self.blob.len() <= BLOB_BYTES_MAX, "the blob is too long");
        let mut bytes = Vec::with_capacity(HEADER_BYTES + self.segments.len() * 96 + self.blob.len());
        bytes.extend(MAGIC);
        let has_adopted = self.segments.iter().any(|segment| segment.adopted.is_some());
        let version = if has_adopted { VERSION } else { VERSION_OF_OWN };
        bytes.extend(version.to_le_bytes());
        bytes.extend([0; 12]); // length, checksum and a reserved word: filled in below
        bytes.extend(self.store.to_le_bytes());
        bytes.extend(self.lane.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(self.edit.to_le_bytes());
        bytes.extend(self.next_segment.to_le_bytes());
        bytes.extend(self.flushed_position.to_le_bytes());
        bytes.extend((self.segments.len() as u32).to_le_bytes());
        bytes.extend((self.blob.len() as u32).to_le_bytes());
        debug_assert_eq!(bytes.len(), HEADER_BYTES);
        for segment in &self.segments {
            encode_segment(segment, version, &mut bytes);
        }
        bytes.extend(&self.blob);
        let length = u32::try_from(bytes.len()).expect("bounded by the limits above");
        bytes[12..16].copy_from_slice(&length.to_le_bytes());
        let checksum = checksum(&bytes);
        bytes[16..20].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads the bytes of a file, with or without its padding.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] or [`StoreError::NewerVersion`].
    pub fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let (version, content) = checked_content(bytes)?;
        decode_content(version, content).ok_or_else(|| damaged("fields do not fit together"))
    }
}

/// Reads the manifest of a folder.
///
/// # Errors
/// [`StoreError::ManifestMissing`], those of [`Manifest::decode`], and whatever the files say.
pub async fn read<F: Files>(files: &F) -> Result<Manifest, StoreError> {
    let file = match files.open(NAME, OpenMode::Read).await {
        Err(FileError::NotFound { .. }) => return Err(StoreError::ManifestMissing),
        other => other?,
    };
    let size = file.size_bytes();
    if size > MANIFEST_BYTES_MAX.next_multiple_of(PAGE_BYTES as u64) {
        return Err(damaged("larger than a manifest can be"));
    }
    let length = (size as usize).next_multiple_of(PAGE_BYTES);
    let buffer = file.read_at(0, length).await?;
    Manifest::decode(buffer.get(..size as usize).unwrap_or_default())
}

/// Replaces the manifest of a folder, durably.
///
/// # Errors
/// Whatever the files say. After [`ReplaceError::Before`] the old manifest stands, after [`ReplaceError::Unknown`] either may.
pub async fn replace<F: Files>(files: &F, manifest: &Manifest) -> Result<(), ReplaceError> {
    write_temporary(files, manifest).await.map_err(ReplaceError::Before)?;
    files.rename(TEMPORARY_NAME, NAME).await.map_err(ReplaceError::Unknown)?;
    files.sync_folder().await.map_err(ReplaceError::Unknown)
}

/// How far a failed replacement came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplaceError {
    /// The old manifest stands.
    Before(FileError),
    /// The old or the new manifest stands: files that either names must be kept.
    Unknown(FileError),
}

impl ReplaceError {
    /// The cause.
    #[must_use]
    pub fn into_file_error(self) -> FileError {
        match self {
            Self::Before(error) | Self::Unknown(error) => error,
        }
    }
}

async fn write_temporary<F: Files>(files: &F, manifest: &Manifest) -> Result<(), FileError> {
    // One may be left from an edit that failed.
    match files.remove(TEMPORARY_NAME).await {
        Ok(()) | Err(FileError::NotFound { .. }) => {}
        Err(error) => return Err(error),
    }
    let bytes = manifest.encode();
    let mut buffer = AlignedBuffer::zeroed(bytes.len());
    buffer[..bytes.len()].copy_from_slice(&bytes);
    let file = files.open(TEMPORARY_NAME, OpenMode::Create).await?;
    file.write_at(0, buffer).await.1?;
    file.sync().await
}

fn encode_segment(segment: &SegmentEntry, version: u32, bytes: &mut Vec<u8>) {
    bytes.extend(segment.id.0.to_le_bytes());
    bytes.extend(segment.file_bytes.to_le_bytes());
    bytes.extend(segment.rows.to_le_bytes());
    bytes.extend(segment.deletes.to_le_bytes());
    bytes.extend(segment.level.to_le_bytes());
    for key in [&segment.first_key, &segment.last_key] {
        assert!(key.len() <= KEY_BYTES_MAX, "a key is too long");
        bytes.extend((key.len() as u16).to_le_bytes());
        bytes.extend(key);
    }
    if version == VERSION_OF_OWN {
        return;
    }
    bytes.push(u8::from(segment.adopted.is_some()));
    if let Some(adopted) = segment.adopted {
        bytes.extend(adopted.store.to_le_bytes());
        bytes.extend(adopted.id.0.to_le_bytes());
        bytes.extend(adopted.held.to_bytes());
        bytes.extend(adopted.shown.to_bytes());
    }
}

/// The version, and the bytes after the fixed part, once length and checksum hold.
fn checked_content(bytes: &[u8]) -> Result<(u32, &[u8]), StoreError> {
    let mut head = Reader::new(bytes);
    let fixed = (|| Some((head.array::<8>()?, head.u32()?, head.u32()?, head.u32()?, head.u32()?)))();
    let Some((magic, version, length, stored, reserved)) = fixed else { return Err(damaged("too short")) };
    if magic != MAGIC {
        return Err(damaged("does not begin as a manifest"));
    }
    let Some(content) = bytes.get(..length as usize).filter(|content| content.len() >= HEADER_BYTES) else {
        return Err(damaged("cut short"));
    };
    if checksum(content) != stored {
        return Err(damaged("checksum does not match"));
    }
    if version > VERSION {
        return Err(StoreError::NewerVersion { file: NAME.to_owned(), found: version, supported: VERSION });
    }
    let is_known = (VERSION_OF_OWN..=VERSION).contains(&version) && reserved == 0;
    let rest = content.get(24..).filter(|_| is_known).ok_or_else(|| damaged("unknown version"))?;
    Ok((version, rest))
}

fn decode_content(version: u32, content: &[u8]) -> Option<Manifest> {
    let mut reader = Reader::new(content);
    let store = reader.u64()?;
    let lane = reader.u32()?;
    let reserved = reader.u32()?;
    let edit = reader.u64()?;
    let next_segment = reader.u64()?;
    let flushed_position = reader.u64()?;
    (reserved == 0).then_some(())?;
    let segment_count = reader.u32()? as usize;
    let blob_length = reader.u32()? as usize;
    // Each takes its share of the bytes, so what is there bounds what is allocated.
    if segment_count > SEGMENTS_MAX || segment_count > reader.rest().len() / SEGMENT_BYTES_MIN {
        return None;
    }
    let mut segments = Vec::with_capacity(segment_count);
    for _ in 0..segment_count {
        segments.push(decode_segment(version, &mut reader)?);
    }
    // One form for each manifest: what has nothing adopted is of the version before.
    (version == VERSION_OF_OWN || segments.iter().any(|segment| segment.adopted.is_some())).then_some(())?;
    let blob = reader.take(blob_length).filter(|blob| blob.len() <= BLOB_BYTES_MAX)?.to_vec();
    reader.rest().is_empty().then_some(())?;
    Some(Manifest { store, lane, edit, next_segment, flushed_position, segments, blob })
}

fn decode_segment(version: u32, reader: &mut Reader<'_>) -> Option<SegmentEntry> {
    let id = SegmentId(reader.u64()?);
    let file_bytes = reader.u64()?;
    let rows = reader.u64()?;
    let deletes = reader.u64()?;
    let level = reader.u32()?;
    let first_key = decode_key(reader)?;
    let last_key = decode_key(reader)?;
    (first_key <= last_key).then_some(())?;
    let adopted = match version {
        VERSION_OF_OWN => None,
        _ => decode_adopted(reader)?,
    };
    Some(SegmentEntry { id, level, file_bytes, rows, deletes, first_key, last_key, adopted })
}

/// What says whose an adopted segment is; the outer `None` if it does not have its form.
fn decode_adopted(reader: &mut Reader<'_>) -> Option<Option<Adopted>> {
    match reader.u8()? {
        0 => Some(None),
        1 => {
            let (store, id) = (reader.u64()?, SegmentId(reader.u64()?));
            let (held, shown) = (Partitions::from_bytes(&reader.array()?), Partitions::from_bytes(&reader.array()?));
            let is_part = !shown.is_empty() && held.and(&shown) == shown;
            is_part.then_some(Some(Adopted { store, id, held, shown }))
        }
        _ => None,
    }
}

fn decode_key(reader: &mut Reader<'_>) -> Option<Vec<u8>> {
    let length = usize::from(reader.u16()?);
    let key = reader.take(length)?;
    (length <= KEY_BYTES_MAX).then(|| key.to_vec())
}

/// Gives the checksum the value it must have, if the length allows: so that fuzzing gets behind it.
pub(crate) fn mend(bytes: &mut [u8]) {
    let length = Reader::new(bytes.get(12..).unwrap_or_default()).u32().unwrap_or(0) as usize;
    if let Some(content) = bytes.get_mut(..length).filter(|content| content.len() >= HEADER_BYTES) {
        let checksum = checksum(content);
        content[16..20].copy_from_slice(&checksum.to_le_bytes());
    }
}

/// Over everything but the checksum itself.
fn checksum(content: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&content[..16]), &content[20..])
}

fn damaged(what: &'static str) -> StoreError {
    StoreError::Damaged { file: NAME.to_owned(), offset: 0, what, keys: DamagedKeys::all() }
}
