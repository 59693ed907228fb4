//! Log records: what a batch holds. Each record takes one position of the lane.
//!
//! ```text
//! length u32 (of the payload) · kind u8 · payload
//! 1 entry   the entry's archive
//! 2 mark    conversation[16] · read u64 · read ordinal u64 · delivered u64 · user UTF-8 …
//! ```
//! Records are logical and absolute: applying one needs nothing but the record. Checksums are the batch's.

use std::sync::Arc;

use antiphon_wire::{
    frame::{ArchivedEntryKind, ConversationStart, MembershipChange, view_entry},
    ids::{ConversationId, Ordinal, Sequence, UserId},
};

use crate::{bytes::Reader, rows::PointerRow};

/// Bytes of a record before its payload.
pub(crate) const RECORD_HEADER_BYTES: usize = 5;
const ENTRY: u8 = 1;
const MARK: u8 = 2;
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
}

/// A member's pointers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) conversation: ConversationId,
    pub(crate) user: UserId,
    pub(crate) pointer: PointerRow,
}

impl Record {
    /// Bytes in the log.
    pub(crate) fn length(&self) -> usize {
        RECORD_HEADER_BYTES
            + match self {
                Self::Entry(archive) => archive.len(),
                Self::Mark(mark) => MARK_FIXED_BYTES + mark.user.as_str().len(),
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
        }
    }

    /// Reads the next record; `None` if the bytes are not one.
    pub(crate) fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let length = reader.u32()? as usize;
        let kind = reader.u8()?;
        let payload = reader.take(length)?;
        match kind {
            ENTRY => is_entry(payload).then(|| Self::Entry(Arc::from(payload))),
            MARK => decode_mark(payload).map(Self::Mark),
            _ => None,
        }
    }
}

/// Whether the bytes are an entry that can be applied: archive, sender and body are all of their form.
pub(crate) fn is_entry(archive: &[u8]) -> bool {
    let Ok(entry) = view_entry(archive) else { return false };
    let body: &[u8] = &entry.body;
    let body_fits = match entry.kind {
        ArchivedEntryKind::Message => true,
        ArchivedEntryKind::Membership => MembershipChange::from_body(body).is_ok(),
        ArchivedEntryKind::Title => std::str::from_utf8(body).is_ok(),
        ArchivedEntryKind::Created => ConversationStart::from_body(body).is_ok(),
    };
    let (sequence, ordinal) = (entry.sequence.0.to_native(), entry.ordinal.0.to_native());
    let counts_fit = (1..COUNT_MAX).contains(&sequence) && ordinal <= sequence;
    body_fits && counts_fit && UserId::new(entry.sender.as_str()).is_ok()
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
