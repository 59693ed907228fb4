//! Values of the ordered keyspace: fixed little-endian fields, then at most one piece of variable length.
//!
//! ```text
//! lost         sequence u64                                                of the last of these entries
//! start        time u64 · epoch u32 · flags u8 (1 direct) · creator …
//! title        UTF-8 …
//! tail         position u64 · sequence u64 · ordinal u64 · time u64        of the last entry
//! member       visible_from u64 · ordinal u64                              of the entry that added the member
//! pointer      read u64 · read ordinal u64 · delivered u64
//! old id       sequence u64                                                of the entry that holds sender and content
//! message id   sequence u64 · time u64                                     of that entry; the time only if the id has none of its own
//! entry        position u64 · entry archive …                              the position's highest bit if an older row is replaced
//! user         kind u8 (1 joined, 2 left) · sequence u64 · position u64    of the entry that did it
//! ```
//! Every row can be written without reading an older one: that is why recovery reads nothing but the log. A form never changes; a
//! new form is a new family of keys. Bytes that do not fit give `None`, which the reader reports as damage.

use antiphon_wire::ids::{ClientMessageId, Epoch, LanePosition, Ordinal, Sequence, TimestampMs, UserId};

use crate::{bytes::Reader, keys, row::Change};

const DIRECT: u8 = 1;
const JOINED: u8 = 1;
const LEFT: u8 = 2;

/// What never changes about a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StartRow {
    pub(crate) time: TimestampMs,
    pub(crate) epoch: Epoch,
    pub(crate) direct: bool,
    pub(crate) creator: UserId,
}

/// A conversation's last entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct TailRow {
    pub(crate) position: LanePosition,
    pub(crate) sequence: Sequence,
    pub(crate) ordinal: Ordinal,
    pub(crate) time: TimestampMs,
}

/// A member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MemberRow {
    /// Sees entries from here on: the entry that added it.
    pub(crate) visible_from: Sequence,
    /// Messages before that.
    pub(crate) ordinal: Ordinal,
}

/// A member's pointers. Absent until they first move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct PointerRow {
    pub(crate) read: Sequence,
    /// Messages up to and with `read`.
    pub(crate) ordinal: Ordinal,
    pub(crate) delivered: Sequence,
}

/// A user's relation to a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UserRow {
    pub(crate) joined: bool,
    /// The entry that added or removed the user.
    pub(crate) sequence: Sequence,
    pub(crate) position: LanePosition,
}

impl StartRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(13 + self.creator.as_str().len());
        bytes.extend(self.time.0.to_le_bytes());
        bytes.extend(self.epoch.0.to_le_bytes());
        bytes.push(if self.direct { DIRECT } else { 0 });
        bytes.extend(self.creator.as_str().as_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let time = TimestampMs(reader.u64()?);
        let epoch = Epoch(reader.u32()?);
        let flags = reader.u8()?;
        let creator = UserId::new(std::str::from_utf8(reader.rest()).ok()?).ok()?;
        (flags & !DIRECT == 0).then_some(Self { time, epoch, direct: flags & DIRECT != 0, creator })
    }
}

/// Numbers, one after the other.
fn numbers<const COUNT: usize>(numbers: [u64; COUNT]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

fn read_numbers<const COUNT: usize>(bytes: &[u8]) -> Option<[u64; COUNT]> {
    if bytes.len() != 8 * COUNT {
        return None;
    }
    let mut reader = Reader::new(bytes);
    let mut numbers = [0; COUNT];
    for number in &mut numbers {
        *number = reader.u64()?;
    }
    Some(numbers)
}

impl TailRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        numbers([self.position.0, self.sequence.0, self.ordinal.0, self.time.0])
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let [position, sequence, ordinal, time] = read_numbers(bytes)?;
        Some(Self {
            position: LanePosition(position),
            sequence: Sequence(sequence),
            ordinal: Ordinal(ordinal),
            time: TimestampMs(time),
        })
    }
}

impl MemberRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        numbers([self.visible_from.0, self.ordinal.0])
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let [visible_from, ordinal] = read_numbers(bytes)?;
        Some(Self { visible_from: Sequence(visible_from), ordinal: Ordinal(ordinal) })
    }
}

impl PointerRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        numbers([self.read.0, self.ordinal.0, self.delivered.0])
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let [read, ordinal, delivered] = read_numbers(bytes)?;
        Some(Self { read: Sequence(read), ordinal: Ordinal(ordinal), delivered: Sequence(delivered) })
    }
}

impl UserRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(17);
        bytes.push(if self.joined { JOINED } else { LEFT });
        bytes.extend(self.sequence.0.to_le_bytes());
        bytes.extend(self.position.0.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        let [sequence, position] = read_numbers(rest)?;
        let joined = match *kind {
            JOINED => true,
            LEFT => false,
            _ => return None,
        };
        Some(Self { joined, sequence: Sequence(sequence), position: LanePosition(position) })
    }
}

/// Appends the value of a row of lost entries.
pub(crate) fn put_sequence(sequence: Sequence, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(&sequence.0.to_le_bytes());
}

/// Reads a row of lost entries, or of a message id in the old form.
pub(crate) fn decode_sequence(bytes: &[u8]) -> Option<Sequence> {
    read_numbers(bytes).map(|[sequence]| Sequence(sequence))
}

/// Appends the value of a message id's row: `stored` is the entry's time, for an id that has no time of its own.
pub(crate) fn put_message_id(sequence: Sequence, stored: Option<TimestampMs>, bytes: &mut Vec<u8>) {
    put_sequence(sequence, bytes);
    bytes.extend(stored.iter().flat_map(|time| time.0.to_le_bytes()));
}

/// Reads a message id's row: the entry, and for an id without a time when that was stored.
pub(crate) fn decode_message_id(id: ClientMessageId, bytes: &[u8]) -> Option<(Sequence, Option<TimestampMs>)> {
    if id.made().is_some() {
        return decode_sequence(bytes).map(|sequence| (sequence, None));
    }
    read_numbers(bytes).map(|[sequence, time]| (Sequence(sequence), Some(TimestampMs(time))))
}

/// Set in the position of an entry's row that took the place of an older one, of which content went. Positions are smaller.
const REPLACES: u64 = 1 << 63;

/// Appends the value of an entry row that takes the place of one in older segments: `value` is that of the row alone.
pub(crate) fn put_replacing(value: &[u8], bytes: &mut Vec<u8>) {
    let at = bytes.len();
    bytes.extend_from_slice(value);
    if let Some(position) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<8>) {
        *position = (u64::from_le_bytes(*position) | REPLACES).to_le_bytes();
    }
}

/// Whether a row is there to erase what older rows of its key say, so that it goes from the disk as well: an entry's, if it took the place
/// of one that said more or something else, or deletes it. Members who went, and other rows that a newer one replaces, are no secret from
/// who has the disk, and go when merges come to them.
pub(crate) fn erases(key: &[u8], change: Change<&[u8]>) -> bool {
    let takes_away = match change {
        Change::Put(value) => is_replacing(value),
        Change::Delete => true,
    };
    takes_away && keys::is_entry(key)
}

/// Appends the value of an entry row.
pub(crate) fn put_entry(position: LanePosition, archive: &[u8], bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(&position.0.to_le_bytes());
    bytes.extend_from_slice(archive);
}

/// Whether an entry row took the place of an older one, of which content went.
pub(crate) fn is_replacing(value: &[u8]) -> bool {
    value.get(7).is_some_and(|last| last & (REPLACES >> 56) as u8 != 0)
}

/// Reads an entry row.
pub(crate) fn decode_entry(bytes: &[u8]) -> Option<(LanePosition, &[u8])> {
    let (position, archive) = bytes.split_first_chunk::<8>()?;
    Some((LanePosition(u64::from_le_bytes(*position) & !REPLACES), archive))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_round_trip_and_their_bytes_stand() {
        let start =
            StartRow { time: TimestampMs(0x0102), epoch: Epoch(3), direct: true, creator: UserId::new("ann").unwrap() };
        assert_eq!(start.encode(), *b"\x02\x01\0\0\0\0\0\0\x03\0\0\0\x01ann");
        assert_eq!(StartRow::decode(&start.encode()), Some(start));
        let user = UserRow { joined: false, sequence: Sequence(5), position: LanePosition(6) };
        assert_eq!(user.encode(), *b"\x02\x05\0\0\0\0\0\0\0\x06\0\0\0\0\0\0\0");
        assert_eq!(UserRow::decode(&user.encode()), Some(user));
        let pointer = PointerRow { read: Sequence(1), ordinal: Ordinal(2), delivered: Sequence(3) };
        assert_eq!(PointerRow::decode(&pointer.encode()), Some(pointer));
        let member = MemberRow { visible_from: Sequence(1), ordinal: Ordinal(2) };
        assert_eq!(MemberRow::decode(&member.encode()), Some(member));
        let tail =
            TailRow { position: LanePosition(1), sequence: Sequence(2), ordinal: Ordinal(3), time: TimestampMs(4) };
        assert_eq!(TailRow::decode(&tail.encode()), Some(tail));
        let mut bytes = Vec::new();
        put_sequence(Sequence(9), &mut bytes);
        assert_eq!(decode_sequence(&bytes), Some(Sequence(9)));
        let (timed, untimed) = (ClientMessageId::timed(TimestampMs(7), 0), ClientMessageId([4; 16]));
        assert_eq!(decode_message_id(timed, &bytes), Some((Sequence(9), None)));
        bytes.clear();
        put_message_id(Sequence(9), Some(TimestampMs(7)), &mut bytes);
        assert_eq!(bytes, *b"\x09\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0");
        assert_eq!(decode_message_id(untimed, &bytes), Some((Sequence(9), Some(TimestampMs(7)))));
        assert_eq!(decode_message_id(timed, &bytes), None, "a time that the id itself has");
        bytes.clear();
        put_entry(LanePosition(9), b"x", &mut bytes);
        assert_eq!(decode_entry(&bytes), Some((LanePosition(9), &b"x"[..])));
    }

    #[test]
    fn bytes_that_do_not_fit_are_refused() {
        for length in [0, 1, 15, 17, 23, 25, 31, 33] {
            let bytes = vec![9; length];
            assert_eq!(TailRow::decode(&bytes), None);
            assert_eq!(PointerRow::decode(&bytes), None);
            assert_eq!(MemberRow::decode(&bytes), None);
            assert_eq!(UserRow::decode(&bytes), None);
            assert_eq!(decode_sequence(&bytes), None);
            assert_eq!(decode_message_id(ClientMessageId::timed(TimestampMs(7), 0), &bytes), None);
            assert_eq!(decode_message_id(ClientMessageId([4; 16]), &bytes), None);
            assert_eq!(StartRow::decode(&bytes), None);
        }
    }
}
