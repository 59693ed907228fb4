//! Batches: the unit of writing and of checking.
//!
//! ```text
//! offset  size  field
//!      0     8  magic "ANTILOG\n"
//!      8     2  format version
//!     10     2  lane
//!     12     4  length in bytes, header and records, without padding
//!     16     4  CRC-32C over `length` bytes, this field taken as zero
//!     20     4  chain: the CRC of the batch before it; 0 before the first
//!     24     8  salt: the store's secret
//!     32     8  generation of the file, from 1; 0 marks a file that was prepared and never used
//!     40     8  position of the first record
//!     48     4  records; 0 is a seal: it says that the batch before it was whole
//!     52     4  records of the batch before it, seals not counted
//!     56     4  conversations that the witness names
//!     60     4  zero
//!     64     …  the witness of the batch before it, records, then zeros to the end of the page
//! ```
//! The first 32 bytes keep their meaning in every version. A batch begins at a page. The salt is never shown to clients, so
//! no message can contain bytes that pass for a batch.
//!
//! Must not do: I/O.

use antiphon_wire::ids::ConversationId;

use crate::{
    bytes::Reader,
    encryption::Vault,
    lane::{
        record::{COUNT_MAX, Record, Seen},
        sealed::{self, Opener, SEALED_MORE_BYTES},
        witness::{Held, WITNESS_BYTES, Witness},
    },
    seams::{AlignedBuffer, PAGE_BYTES},
};

/// The newest format version: a batch with sealed records. One with records of kind 3 is written as version 2, one without either as version 1,
/// which older readers know.
pub(crate) const VERSION: u16 = 3;
const VERSION_WITH_CHANGES: u16 = 2;
const VERSION_WITHOUT_CHANGES: u16 = 1;
/// Bytes before the witness.
pub(crate) const HEADER_BYTES: usize = 64;
/// Largest batch of any setting: recovery reads in pieces of this size.
pub(crate) const BATCH_BYTES_LIMIT: usize = 4 * 1024 * 1024;

const MAGIC: [u8; 8] = *b"ANTILOG\n";
const MALFORMED: &str = "records do not have their form though the checksum holds";

/// What a batch says of itself beyond its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) lane: u16,
    pub(crate) chain: u32,
    pub(crate) salt: u64,
    pub(crate) generation: u64,
    pub(crate) first: u64,
    pub(crate) records: u32,
}

/// A batch whose checksum holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Batch<'a> {
    pub(crate) header: Header,
    /// Bytes without padding.
    pub(crate) length: usize,
    /// The next batch's chain.
    pub(crate) checksum: u32,
    /// Records and conversations of the batch before it.
    before: (u32, u32),
    /// The witness, then the records.
    content: &'a [u8],
}

/// Why bytes are not a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// There is no batch's beginning.
    None,
    /// A beginning, but the length is not possible or beyond the file.
    Length,
    /// A beginning, but the checksum does not hold.
    Checksum,
    /// A whole batch of a newer version.
    Newer {
        /// The version.
        version: u16,
        /// The store that wrote it.
        salt: u64,
    },
}

impl Fault {
    /// The fault in words.
    pub(crate) fn text(self) -> String {
        match self {
            Self::None => "no batch begins here".into(),
            Self::Length => "a batch of an impossible length".into(),
            Self::Checksum => "a batch whose checksum does not hold".into(),
            Self::Newer { version, .. } => format!("a batch of format version {version}"),
        }
    }
}

impl<'a> Batch<'a> {
    /// The length that what begins with `bytes` says of itself, if it begins like a batch.
    pub(crate) fn claimed_length(bytes: &[u8]) -> Option<usize> {
        let length = bytes.get(12..16).filter(|_| bytes.starts_with(&MAGIC))?;
        Some(u32::from_le_bytes(length.try_into().ok()?) as usize)
    }

    /// Checks the batch that begins with `bytes`, which may go on behind it.
    pub(crate) fn check(bytes: &'a [u8]) -> Result<Self, Fault> {
        let mut reader = Reader::new(bytes);
        if reader.array() != Some(MAGIC) {
            return Err(Fault::None);
        }
        let mut header = || {
            let version = reader.u16()?;
            let lane = reader.u16()?;
            let length = reader.u32()? as usize;
            let checksum = reader.u32()?;
            let chain = reader.u32()?;
            let (salt, generation, first) = (reader.u64()?, reader.u64()?, reader.u64()?);
            let records = reader.u32()?;
            let before = (reader.u32()?, reader.u32()?);
            let zero = reader.u32()?;
            let header = Header { lane, chain, salt, generation, first, records };
            Some((version, length, checksum, before, zero, header))
        };
        let (version, length, checksum, before, zero, header) = header().ok_or(Fault::Length)?;
        let whole = bytes.get(..length).filter(|_| (HEADER_BYTES..=BATCH_BYTES_LIMIT).contains(&length));
        let whole = whole.ok_or(Fault::Length)?;
        if checksum_of(whole) != checksum || (version <= VERSION && zero != 0) {
            return Err(Fault::Checksum);
        }
        if version <= VERSION && header.first >= COUNT_MAX {
            return Err(Fault::Length);
        }
        if version > VERSION {
            return Err(Fault::Newer { version, salt: header.salt });
        }
        Ok(Self { header, length, checksum, before, content: &whole[HEADER_BYTES..] })
    }

    /// Gives the records to `take`, one after the other with their positions, up to the first that does not have its form or does not
    /// open, or that `take` refuses. That they have their form, a right checksum leaves to the writer.
    pub(crate) fn records(
        &self,
        opener: Opener<'_>,
        mut take: impl FnMut(u64, Seen<'_>) -> Result<(), &'static str>,
    ) -> Result<(), &'static str> {
        let content = self.content.get(self.witness_bytes()..).ok_or(MALFORMED)?;
        let mut reader = Reader::new(content);
        for index in 0..u64::from(self.header.records) {
            let position = self.header.first.saturating_add(index);
            sealed::decode(&mut reader, opener, self.header.salt, position, |seen| take(position, seen))?;
        }
        if reader.rest().is_empty() { Ok(()) } else { Err(MALFORMED) }
    }

    /// What it tells of the batch before it; or that this does not have its form.
    pub(crate) fn witness(&self) -> Result<Witness, &'static str> {
        let bytes = self.content.get(..self.witness_bytes()).ok_or(MALFORMED)?;
        Witness::decode(self.before.0, bytes).ok_or(MALFORMED)
    }

    fn witness_bytes(&self) -> usize {
        (self.before.1 as usize).saturating_mul(WITNESS_BYTES)
    }

    /// Bytes with padding.
    pub(crate) fn padded(&self) -> u64 {
        self.length.next_multiple_of(PAGE_BYTES) as u64
    }

    /// The position after its last record.
    pub(crate) fn end(&self) -> u64 {
        self.header.first.saturating_add(u64::from(self.header.records))
    }
}

/// Gives everything that begins like a batch this salt and a right checksum, so that a fuzzer gets behind them.
pub(crate) fn mend(bytes: &mut [u8], salt: u64) {
    for start in (0..bytes.len()).step_by(PAGE_BYTES) {
        let batch = &mut bytes[start..];
        let Some(length) = batch.get(12..16).and_then(|field| field.try_into().ok()).map(u32::from_le_bytes) else {
            return;
        };
        let length = length as usize;
        if batch[..8] == MAGIC && length >= HEADER_BYTES && length <= batch.len() {
            batch[24..32].copy_from_slice(&salt.to_le_bytes());
            let checksum = checksum_of(&batch[..length]);
            batch[16..20].copy_from_slice(&checksum.to_le_bytes());
        }
    }
}

fn checksum_of(batch: &[u8]) -> u32 {
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&batch[..16]), &[0; 4]);
    crc32c::crc32c_append(checksum, &batch[20..])
}

/// A batch that is being filled, in a buffer that is used again and again.
#[derive(Debug)]
pub(crate) struct Builder {
    buffer: AlignedBuffer,
    capacity: usize,
    length: usize,
    before: Witness,
    holds: Witness,
    version: u16,
}

impl Builder {
    /// An empty one that holds at most `capacity` bytes, whole pages, and follows a batch of which `before` tells.
    pub(crate) fn new(capacity: usize, before: Witness) -> Self {
        Self::reuse(AlignedBuffer::zeroed(capacity), capacity, before)
    }

    /// An empty one over a buffer that [`Builder::finish`] gave out.
    pub(crate) fn reuse(mut buffer: AlignedBuffer, capacity: usize, before: Witness) -> Self {
        buffer.resize(capacity);
        before.encode(&mut buffer[HEADER_BYTES..]);
        Self {
            buffer,
            capacity,
            length: HEADER_BYTES + before.length(),
            before,
            holds: Witness::default(),
            version: VERSION_WITHOUT_CHANGES,
        }
    }

    /// What the next batch tells of this one, as it is now.
    pub(crate) fn witness(&mut self) -> Witness {
        if self.holds.records == 0 {
            return self.before.clone();
        }
        self.holds.settle();
        self.holds.clone()
    }

    pub(crate) fn records(&self) -> u32 {
        self.holds.records
    }

    /// Bytes of records.
    pub(crate) fn record_bytes(&self) -> usize {
        self.length - HEADER_BYTES - self.before.length()
    }

    /// Bytes that the batch will take in the file.
    pub(crate) fn padded(&self) -> usize {
        self.length.next_multiple_of(PAGE_BYTES)
    }

    /// Whether a record of `bytes`, its header included, has room, sealed or not.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        self.length + bytes + SEALED_MORE_BYTES <= self.capacity
    }

    /// Adds a record; `held` is what it is of a conversation, if it is an entry.
    ///
    /// # Panics
    /// If it has no room.
    pub(crate) fn push(&mut self, record: &Record, held: Option<Held>) {
        let length = record.length();
        assert!(self.has_room(length), "the caller asks for room first");
        record.encode(&mut self.buffer[self.length..]);
        self.length += length;
        self.holds.add(held);
        if let Record::Change(_) = record {
            self.version = VERSION_WITH_CHANGES;
        }
    }

    /// As [`Builder::push`], of an encrypted store: `position` is the record's.
    ///
    /// # Panics
    /// If it has no room, or its conversation no key.
    pub(crate) fn push_sealed(
        &mut self,
        record: &Record,
        held: Option<Held>,
        keys: (&Vault, u64),
        position: u64,
        conversation: ConversationId,
    ) {
        let length = record.length() + SEALED_MORE_BYTES;
        assert!(self.has_room(record.length()), "the caller asks for room first");
        sealed::encode_sealed(record, keys, position, conversation, &mut self.buffer[self.length..]);
        self.length += length;
        self.holds.add(held);
        self.version = VERSION;
    }

    /// The bytes to write, and their checksum.
    pub(crate) fn finish(mut self, header: &Header) -> (AlignedBuffer, u32) {
        let padded = self.padded();
        self.buffer.resize(padded);
        self.buffer[self.length..].fill(0);
        let bytes = &mut self.buffer[..self.length];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&self.version.to_le_bytes());
        bytes[10..12].copy_from_slice(&header.lane.to_le_bytes());
        bytes[12..16].copy_from_slice(&(self.length as u32).to_le_bytes());
        bytes[16..20].fill(0);
        bytes[20..24].copy_from_slice(&header.chain.to_le_bytes());
        bytes[24..32].copy_from_slice(&header.salt.to_le_bytes());
        bytes[32..40].copy_from_slice(&header.generation.to_le_bytes());
        bytes[40..48].copy_from_slice(&header.first.to_le_bytes());
        bytes[48..52].copy_from_slice(&self.holds.records.to_le_bytes());
        bytes[52..56].copy_from_slice(&self.before.records.to_le_bytes());
        bytes[56..60].copy_from_slice(&(self.before.held.len() as u32).to_le_bytes());
        bytes[60..64].fill(0);
        let checksum = checksum_of(bytes);
        bytes[16..20].copy_from_slice(&checksum.to_le_bytes());
        (self.buffer, checksum)
    }
}

#[cfg(test)]
mod tests {
    use antiphon_wire::ids::{ConversationId, Ordinal, Sequence, UserId};

    use super::*;
    use crate::{lane::record::Mark, rows::PointerRow};

    fn mark() -> Record {
        let pointer = PointerRow { read: Sequence(2), ordinal: Ordinal(1), delivered: Sequence(3) };
        Record::Mark(Mark { conversation: ConversationId([7; 16]), user: UserId::new("ann").unwrap(), pointer })
    }

    fn header() -> Header {
        Header { lane: 1, chain: 0xaabb_ccdd, salt: 5, generation: 6, first: 9, records: 1 }
    }

    fn before() -> Witness {
        let held = Held { conversation: ConversationId([3; 16]), last: Sequence(4), members_changed: true };
        Witness { records: 2, held: vec![held] }
    }

    fn golden() -> AlignedBuffer {
        let mut builder = Builder::new(PAGE_BYTES, before());
        builder.push(&mark(), None);
        builder.finish(&header()).0
    }

    #[test]
    fn version_one_has_these_bytes() {
        let bytes = golden();
        let text: String = bytes[..LENGTH].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(text, GOLDEN);
        assert_eq!(bytes.len(), PAGE_BYTES);
        assert!(bytes[LENGTH..].iter().all(|byte| *byte == 0));
        let batch = Batch::check(&bytes).unwrap();
        assert_eq!(batch.header, header());
        let mut records = Vec::new();
        let take = |position, seen: Seen<'_>| {
            records.push((position, seen.into_record()));
            Ok(())
        };
        assert_eq!(batch.records(Opener::Plain, take), Ok(()));
        assert_eq!(records, [(header().first, mark())]);
        assert_eq!(batch.records(Opener::Plain, |_, _| Err("refused")), Err("refused"));
        assert_eq!(batch.witness().unwrap(), before());
    }

    const GOLDEN: &str = concat!(
        "414e54494c4f470a0100010089000000",
        "8b0e0d53ddccbbaa0500000000000000",
        "060000000000000009000000000000000100000002000000",
        "0100000000000000",
        "03030303030303030303030303030303040000000000000001",
        "2b00000002",
        "07070707070707070707070707070707",
        "020000000000000001000000000000000300000000000000",
        "616e6e",
    );

    #[test]
    fn every_flipped_bit_is_found() {
        let bytes = golden();
        for bit in 0..LENGTH * 8 {
            let mut bad = bytes.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Batch::check(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let mut bytes = golden().to_vec();
        bytes[8] = 4;
        assert_eq!(Batch::check(&bytes).unwrap_err(), Fault::Checksum);
        let checksum = checksum_of(&bytes[..LENGTH]);
        bytes[16..20].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(Batch::check(&bytes).unwrap_err(), Fault::Newer { version: 4, salt: 5 });
    }

    const LENGTH: usize = HEADER_BYTES + WITNESS_BYTES + 5 + 40 + 3;
}
