//! What each batch tells of the batch before it, so that damage can be put down to conversations.
//!
//! ```text
//! conversation[16] · last sequence u64 · kinds u8 (1: who sees what of the conversation changed)
//! ```
//! One for each conversation that has entries in the batch before, sorted by conversation. Pointers are not told of: losing one takes
//! nothing from anybody. A batch without records passes on what it was told, so that a seal hides nothing.
//!
//! Must not do: I/O.

use antiphon_wire::{
    frame::{ArchivedEntry, EntryKind, view_entry},
    ids::{ConversationId, Sequence},
};

use crate::{
    bytes::Reader,
    lane::record::{COUNT_MAX, Seen},
};

/// Bytes of one conversation's part.
pub(crate) const WITNESS_BYTES: usize = 25;
const MEMBERS_CHANGED: u8 = 1;

/// What a batch holds of one conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Held {
    pub(crate) conversation: ConversationId,
    /// The last entry's.
    pub(crate) last: Sequence,
    /// Somebody came or went, or something was taken away.
    pub(crate) members_changed: bool,
}

impl Held {
    /// What a record as it was read is of a conversation, if it is an entry.
    pub(crate) fn of(seen: &Seen<'_>) -> Option<Self> {
        match seen {
            Seen::Entry { entry, .. } => Some(Self::of_entry(entry)),
            Seen::Other(record) => view_entry(record.archive()?).ok().map(Self::of_entry),
        }
    }

    fn of_entry(entry: &ArchivedEntry) -> Self {
        Self {
            conversation: ConversationId(entry.conversation.0),
            last: Sequence(entry.sequence.0.to_native()),
            members_changed: changes_who_sees(EntryKind::from(&entry.kind)),
        }
    }
}

/// Whether losing an entry of this kind could show somebody what may not be seen: who came and went, and what was taken away, by an edit too.
pub(crate) fn changes_who_sees(kind: EntryKind) -> bool {
    use EntryKind::{
        AccountData, Bans, Created, Deletion, Edit, Invite, Joined, Membership, Retention, Roles, Settings,
    };
    matches!(
        kind,
        AccountData | Created | Membership | Edit | Deletion | Retention | Roles | Settings | Bans | Invite | Joined
    )
}

/// What a batch holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Witness {
    /// Records of the batch, of all kinds.
    pub(crate) records: u32,
    /// Sorted by conversation, one each.
    pub(crate) held: Vec<Held>,
}

impl Witness {
    /// Forgets the batch, for the next one.
    pub(crate) fn clear(&mut self) {
        self.records = 0;
        self.held.clear();
    }

    /// Takes in the next record: what it holds, if it is an entry. [`Witness::settle`] must follow the last one.
    pub(crate) fn add(&mut self, held: Option<Held>) {
        self.records += 1;
        self.held.extend(held);
    }

    /// Makes one of each conversation's entries.
    pub(crate) fn settle(&mut self) {
        self.held.sort_unstable();
        self.held.dedup_by(|later, kept| {
            let same = later.conversation == kept.conversation;
            if same {
                kept.last = later.last;
                kept.members_changed |= later.members_changed;
            }
            same
        });
    }

    /// Bytes in a batch.
    pub(crate) fn length(&self) -> usize {
        self.held.len() * WITNESS_BYTES
    }

    /// Writes it at the beginning of `target`, which has room for it.
    pub(crate) fn encode(&self, target: &mut [u8]) {
        for (held, bytes) in self.held.iter().zip(target.chunks_exact_mut(WITNESS_BYTES)) {
            bytes[..16].copy_from_slice(&held.conversation.0);
            bytes[16..24].copy_from_slice(&held.last.0.to_le_bytes());
            bytes[24] = if held.members_changed { MEMBERS_CHANGED } else { 0 };
        }
    }

    /// Reads it; `None` if it does not have its form.
    pub(crate) fn decode(records: u32, bytes: &[u8]) -> Option<Self> {
        let (chunks, rest) = bytes.as_chunks::<WITNESS_BYTES>();
        if !rest.is_empty() {
            return None;
        }
        let mut held: Vec<Held> = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            let mut reader = Reader::new(chunk);
            let conversation = ConversationId(reader.array()?);
            let last = Sequence(reader.u64()?);
            let kinds = reader.u8()?;
            let sorted = held.last().is_none_or(|before| before.conversation < conversation);
            if !sorted || !(1..COUNT_MAX).contains(&last.0) || kinds > MEMBERS_CHANGED {
                return None;
            }
            held.push(Held { conversation, last, members_changed: kinds == MEMBERS_CHANGED });
        }
        Some(Self { records, held })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(conversation: u8, last: u64, members_changed: bool) -> Held {
        Held { conversation: ConversationId([conversation; 16]), last: Sequence(last), members_changed }
    }

    #[test]
    fn one_is_left_of_each_conversation() {
        let mut witness = Witness { records: 5, held: vec![held(2, 7, false), held(1, 3, true), held(2, 6, true)] };
        witness.settle();
        assert_eq!(witness.held, [held(1, 3, true), held(2, 7, true)]);
        let mut bytes = vec![0xff; witness.length()];
        witness.encode(&mut bytes);
        assert_eq!(Witness::decode(5, &bytes), Some(witness));
    }

    #[test]
    fn what_does_not_have_its_form_is_refused() {
        let whole = Witness { records: 2, held: vec![held(1, 3, true), held(2, 7, false)] };
        let mut bytes = vec![0; whole.length()];
        whole.encode(&mut bytes);
        for (what, change) in [
            ("a kind that is not known", Box::new(|bytes: &mut Vec<u8>| bytes[24] = 2) as Box<dyn Fn(&mut Vec<u8>)>),
            ("no sequence", Box::new(|bytes| bytes[16..24].fill(0))),
            ("a sequence too high", Box::new(|bytes| bytes[16..24].fill(0xff))),
            ("not sorted", Box::new(|bytes| bytes[..16].fill(9))),
            ("cut", Box::new(|bytes| bytes.truncate(30))),
        ] {
            let mut changed = bytes.clone();
            change(&mut changed);
            assert_eq!(Witness::decode(2, &changed), None, "{what}");
        }
    }
}
