//! Log records: what a batch holds. Each record takes one position of the lane.
//!
//! ```text
//! length u32 (of the payload) · kind u8 · payload
//! 1 entry   the entry's archive
//! 2 mark    conversation[16] · read u64 · read ordinal u64 · delivered u64 · user UTF-8 …
//! 3 change  archive length u32 · the entry's archive · the rows that it brings beside its own, each
//!           suffix length u16 · tag u32 (0 for a row that goes, otherwise the value's length + 1) · suffix · value
//! ```
//! Records are logical and absolute: applying one needs nothing but the record. Checksums are the batch's.

use std::sync::Arc;

use antiphon_wire::{
    frame::{
        AccountChange, ArchivedEntry, ArchivedEntryKind, Bans, ConversationStart, EntryKind, InviteChange, Joined,
        MembershipChange, Settings, roles_from_body, view_change, view_entry,
    },
    ids::{ConversationId, Ordinal, Sequence, UserId},
};

use crate::{
    account::ItemRow,
    bytes::Reader,
    changes::{ChangedRow, RetentionRow, StateRow, decode_pins, decode_reactor},
    group::{InviteRow, decode_ban, decode_role},
    keys::{self, Key},
    rows::{MemberRow, PointerRow, decode_entry},
};

/// Bytes of a record before its payload.
pub(crate) const RECORD_HEADER_BYTES: usize = 5;
const ENTRY: u8 = 1;
const MARK: u8 = 2;
const CHANGE: u8 = 3;
/// Bytes of a row of a change before its suffix.
const ROW_HEADER_BYTES: usize = 6;
const MARK_FIXED_BYTES: usize = 40;

/// No count reaches this, so that adding to one never overflows.
pub(crate) const COUNT_MAX: u64 = 1 << 62;

/// A record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record {
    /// An entry's archive, validated.
    Entry(Arc<[u8]>),
    /// A member's pointers, as they are from now on.
    Mark(Mark),
    /// An entry that changes what is stored of others.
    Change(Change),
    /// One of this conversation that is sealed, and not opened: its key was destroyed, or is not at hand. Never written.
    Closed(ConversationId),
}

/// A record as it is read: whoever takes it in need not check again what was checked then.
pub(crate) enum Seen<'a> {
    /// An entry, in the bytes that it was read from.
    Entry {
        /// Of its form.
        entry: &'a ArchivedEntry,
        /// Validated.
        archive: &'a [u8],
    },
    /// Another record.
    Other(Record),
}

impl<'a> Seen<'a> {
    /// Reads the next record; `None` if the bytes are not one.
    pub(crate) fn decode(reader: &mut Reader<'a>) -> Option<Self> {
        let length = reader.u32()? as usize;
        let kind = reader.u8()?;
        Self::of_kind(kind, reader.take(length)?)
    }

    /// The record of this kind and payload; `None` if the bytes are not one.
    pub(crate) fn of_kind(kind: u8, payload: &'a [u8]) -> Option<Self> {
        match kind {
            ENTRY => check_entry(payload).map(|entry| Self::Entry { entry, archive: payload }),
            MARK => decode_mark(payload).map(|mark| Self::Other(Record::Mark(mark))),
            CHANGE => Change::decode(payload).map(|change| Self::Other(Record::Change(change))),
            _ => None,
        }
    }

    /// The conversation that it is of.
    pub(crate) fn conversation(&self) -> Option<ConversationId> {
        match self {
            Self::Entry { entry, .. } => Some(ConversationId(entry.conversation.0)),
            Self::Other(record) => record.conversation(),
        }
    }

    /// The record.
    pub(crate) fn into_record(self) -> Record {
        match self {
            Self::Entry { archive, .. } => Record::Entry(Arc::from(archive)),
            Self::Other(record) => record,
        }
    }
}

/// An entry, and the rows of its conversation that it brings beside its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    /// Validated.
    pub(crate) archive: Arc<[u8]>,
    pub(crate) rows: Vec<ChangedRow>,
}

/// A member's pointers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) conversation: ConversationId,
    pub(crate) user: UserId,
    pub(crate) pointer: PointerRow,
}

impl Record {
    /// The entry's archive, if it is one.
    pub(crate) fn archive(&self) -> Option<&Arc<[u8]>> {
        match self {
            Self::Entry(archive) => Some(archive),
            Self::Change(change) => Some(&change.archive),
            Self::Mark(_) | Self::Closed(_) => None,
        }
    }

    /// Bytes in the log.
    pub(crate) fn length(&self) -> usize {
        RECORD_HEADER_BYTES
            + match self {
                Self::Entry(archive) => archive.len(),
                Self::Mark(mark) => MARK_FIXED_BYTES + mark.user.as_str().len(),
                Self::Change(change) => {
                    let value = |row: &ChangedRow| row.value.as_ref().map_or(0, |value| value.len());
                    let rows = change.rows.iter().map(|row| ROW_HEADER_BYTES + row.suffix.len() + value(row));
                    4 + change.archive.len() + rows.sum::<usize>()
                }
                Self::Closed(_) => 0,
            }
    }

    /// Writes it at the beginning of `target`, which has room for it.
    pub(crate) fn encode(&self, target: &mut [u8]) {
        let (header, payload) = target[..self.length()].split_at_mut(RECORD_HEADER_BYTES);
        header[..4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        match self {
            Self::Entry(archive) => {
                header[4] = ENTRY;
                payload.copy_from_slice(archive);
            }
            Self::Mark(mark) => {
                header[4] = MARK;
                let (fixed, user) = payload.split_at_mut(MARK_FIXED_BYTES);
                fixed[..16].copy_from_slice(&mark.conversation.0);
                fixed[16..24].copy_from_slice(&mark.pointer.read.0.to_le_bytes());
                fixed[24..32].copy_from_slice(&mark.pointer.ordinal.0.to_le_bytes());
                fixed[32..40].copy_from_slice(&mark.pointer.delivered.0.to_le_bytes());
                user.copy_from_slice(mark.user.as_str().as_bytes());
            }
            Self::Change(change) => {
                header[4] = CHANGE;
                change.encode(payload);
            }
            Self::Closed(_) => unreachable!("what is not opened is not written"),
        }
    }

    /// The conversation that it is of; none if its archive is no entry.
    pub(crate) fn conversation(&self) -> Option<ConversationId> {
        match self {
            Self::Mark(mark) => Some(mark.conversation),
            Self::Closed(of) => Some(*of),
            Self::Entry(archive) | Self::Change(Change { archive, .. }) => {
                view_entry(archive).ok().map(|entry| ConversationId(entry.conversation.0))
            }
        }
    }
}

/// Whether the bytes are an entry that can be applied: archive, sender and body are all of their form.
pub(crate) fn is_entry(archive: &[u8]) -> bool {
    check_entry(archive).is_some()
}

/// The entry, if [`is_entry`].
fn check_entry(archive: &[u8]) -> Option<&ArchivedEntry> {
    let entry = view_entry(archive).ok()?;
    let body: &[u8] = &entry.body;
    let body_fits = match entry.kind {
        ArchivedEntryKind::Message => true,
        ArchivedEntryKind::Membership => MembershipChange::from_body(body).is_ok(),
        ArchivedEntryKind::Title => std::str::from_utf8(body).is_ok(),
        ArchivedEntryKind::Created => ConversationStart::from_body(body).is_ok(),
        ArchivedEntryKind::Roles => roles_from_body(body).is_ok(),
        ArchivedEntryKind::Settings => Settings::from_body(body).is_ok(),
        ArchivedEntryKind::Bans => Bans::from_body(body).is_ok(),
        ArchivedEntryKind::Invite => InviteChange::from_body(body).is_ok(),
        ArchivedEntryKind::Joined => Joined::from_body(body).is_ok(),
        ArchivedEntryKind::AccountData => AccountChange::from_body(body).is_ok(),
        ref kind => view_change(EntryKind::from(kind), body).is_ok(),
    };
    let (sequence, ordinal) = (entry.sequence.0.to_native(), entry.ordinal.0.to_native());
    let counts_fit = (1..COUNT_MAX).contains(&sequence) && ordinal <= sequence;
    (body_fits && counts_fit && UserId::new(entry.sender.as_str()).is_ok()).then_some(entry)
}

impl Change {
    fn encode(&self, payload: &mut [u8]) {
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            payload[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(&(self.archive.len() as u32).to_le_bytes());
        put(&self.archive);
        for ChangedRow { suffix, value } in &self.rows {
            put(&(suffix.len() as u16).to_le_bytes());
            put(&value.as_ref().map_or(0, |value| value.len() as u32 + 1).to_le_bytes());
            put(suffix);
            put(value.as_deref().unwrap_or_default());
        }
    }

    fn decode(payload: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(payload);
        let length = reader.u32()? as usize;
        let archive = reader.take(length)?;
        let entry = check_entry(archive)?;
        let (conversation, own) = (entry.conversation.0, Sequence(entry.sequence.0.to_native()));
        let mut rows = Vec::new();
        while !reader.rest().is_empty() {
            let (suffix, tag) = (usize::from(reader.u16()?), reader.u32()?);
            let suffix = reader.take(suffix)?.to_vec();
            let value = match tag.checked_sub(1) {
                Some(length) => Some(reader.take(length as usize)?),
                None => None,
            };
            is_row(conversation, own, &suffix, value).then_some(())?;
            rows.push(ChangedRow { suffix, value: value.map(Arc::from) });
        }
        Some(Self { archive: Arc::from(archive), rows })
    }
}

/// Whether a row can be one that an entry brings beside its own: of entries before it.
fn is_row(conversation: [u8; 16], own: Sequence, suffix: &[u8], value: Option<&[u8]>) -> bool {
    let Some(key) = keys::parse_suffix(suffix) else { return false };
    if let Key::Entry(of) | Key::State(of) | Key::Reactor(of, _) = &key
        && !(Sequence(1)..own).contains(of)
    {
        return false;
    }
    // An entry makes one invite: its own.
    if let Key::Invite(of) = &key
        && !(Sequence(1)..=own).contains(of)
    {
        return false;
    }
    let Some(value) = value else {
        return matches!(key, Key::Reactor(..) | Key::Role(_) | Key::Ban(_) | Key::Invite(_) | Key::Account(_));
    };
    match key {
        Key::Entry(sequence) => decode_entry(value).is_some_and(|(_, archive)| {
            let of_key = |entry: &antiphon_wire::frame::ArchivedEntry| {
                entry.conversation.0 == conversation && entry.sequence.0.to_native() == sequence.0
            };
            check_entry(archive).is_some_and(of_key)
        }),
        Key::State(_) => StateRow::decode(value).is_some(),
        Key::Reactor(..) => decode_reactor(value).is_some(),
        Key::Pins => decode_pins(value).is_some(),
        Key::Retention => RetentionRow::decode(value).is_some(),
        Key::Settings => Settings::from_body(value).is_ok(),
        Key::Role(_) => decode_role(value).is_some(),
        Key::Ban(_) => decode_ban(value).is_some(),
        Key::Invite(_) => InviteRow::decode(value).is_some(),
        Key::Account(_) => ItemRow::decode(value).is_some_and(|row| row.sequence == own),
        Key::Member(_) => MemberRow::decode(value).is_some(),
        _ => false,
    }
}

fn decode_mark(payload: &[u8]) -> Option<Mark> {
    let mut reader = Reader::new(payload);
    let conversation = ConversationId(reader.array()?);
    let pointer = PointerRow {
        read: Sequence(reader.u64()?),
        ordinal: Ordinal(reader.u64()?),
        delivered: Sequence(reader.u64()?),
    };
    let user = UserId::new(std::str::from_utf8(reader.rest()).ok()?).ok()?;
    if pointer.read.0.max(pointer.delivered.0) >= COUNT_MAX || pointer.ordinal.0 > pointer.read.0 {
        return None;
    }
    Some(Mark { conversation, user, pointer })
}

#[cfg(test)]
mod tests {
    use antiphon_wire::{
        frame::Entry,
        ids::{ClientMessageId, Epoch, LanePosition, TimestampMs},
    };

    use super::*;

    fn entry(kind: EntryKind, sequence: u64, body: &[u8]) -> Arc<[u8]> {
        let entry = Entry {
            conversation: ConversationId([7; 16]),
            epoch: Epoch(1),
            sequence: Sequence(sequence),
            ordinal: Ordinal(1),
            time_ms: TimestampMs(9),
            kind,
            client_message_id: ClientMessageId([8; 16]),
            sender: UserId::new("ann").unwrap(),
            body: body.to_vec(),
        };
        Arc::from(entry.to_archive().as_slice())
    }

    fn change() -> Change {
        let archive = entry(EntryKind::Deletion, 5, &2_u64.to_le_bytes());
        let left = entry(EntryKind::Message, 2, &[]);
        let state = StateRow { deleted: true, ..StateRow::default() };
        let user = UserId::new("b").unwrap();
        let rows = vec![
            ChangedRow::new(keys::state_suffix(Sequence(2)), state.encode()),
            ChangedRow::entry(Sequence(2), LanePosition(3), &left),
            ChangedRow { suffix: keys::reactor_suffix(Sequence(2), &user), value: None },
        ];
        Change { archive, rows }
    }

    fn decode(bytes: &[u8]) -> Option<Record> {
        Seen::decode(&mut Reader::new(bytes)).map(Seen::into_record)
    }

    fn bytes(record: &Record) -> Vec<u8> {
        let mut bytes = vec![0xff; record.length()];
        record.encode(&mut bytes);
        bytes
    }

    #[test]
    fn a_change_has_these_bytes_and_comes_back() {
        let change = change();
        let record = Record::Change(change.clone());
        let bytes = bytes(&record);
        assert_eq!(decode(&bytes), Some(record));
        let (archive, left) = (&change.archive, entry(EntryKind::Message, 2, &[]));
        let expected = [
            &((bytes.len() - 5) as u32).to_le_bytes()[..],
            &[3],
            &(archive.len() as u32).to_le_bytes(),
            archive,
            b"\x0a\0\x12\0\0\0\x07\0\0\0\0\0\0\0\x02\x01\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
            b"\x09\0",
            &(left.len() as u32 + 9).to_le_bytes(),
            b"\x07\0\0\0\0\0\0\0\x02\x03\0\0\0\0\0\0\0",
            &left,
            b"\x0b\0\0\0\0\0\x07\0\0\0\0\0\0\0\x02\x02b",
        ];
        assert_eq!(bytes, expected.concat());
    }

    #[test]
    fn a_change_that_does_not_have_its_form_is_refused() {
        let with = |row: ChangedRow| {
            let record = Record::Change(Change { rows: vec![row], ..change() });
            decode(&bytes(&record))
        };
        let target = Sequence(2);
        let row = |suffix: &[u8], value: &[u8]| ChangedRow::new(suffix, value.to_vec());
        let goes = |suffix: Vec<u8>| ChangedRow { suffix, value: None };
        let of_other = ChangedRow::entry(Sequence(3), LanePosition(3), &entry(EntryKind::Message, 2, &[]));
        for (what, row) in [
            ("a suffix of nothing", row(&[9], &[])),
            ("a tail", row(&[3], &[0; 32])),
            ("a user's pointer", row(b"\x05ann", &[0; 24])),
            ("a state that is none", row(&keys::state_suffix(target), &[0; 16])),
            ("a state that goes", goes(keys::state_suffix(target))),
            ("pins that go", goes(keys::PINS.to_vec())),
            ("pins that are none", row(&keys::PINS, &[0; 7])),
            ("an entry that is none", row(&keys::entry_suffix(target), &[0; 40])),
            ("another entry", of_other),
            ("a later entry", row(&keys::state_suffix(Sequence(5)), &StateRow::default().encode())),
            ("no entry", row(&keys::state_suffix(Sequence(0)), &StateRow::default().encode())),
            ("reactions that are none", row(&keys::reactor_suffix(target, &UserId::new("b").unwrap()), b"\x02x")),
        ] {
            assert_eq!(with(row), None, "{what}");
        }
        let whole = bytes(&Record::Change(change()));
        for cut in 5..whole.len() {
            let mut bytes = whole[..cut].to_vec();
            bytes[..4].copy_from_slice(&((cut - 5) as u32).to_le_bytes());
            // Where a row ends, what is left is a change, too.
            let read = decode(&bytes);
            assert!(read.is_none_or(|read| read.length() == cut), "{cut}");
        }
    }
}
