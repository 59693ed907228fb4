//! Message ids held against messages and changes of such: each that is not forgotten has its id's row, and no row names anything else.
//!
//! Rows of ids lie apart from conversations, in the order of their time, so the two are compared by sums over the whole lane. Only where
//! those differ is every one of them looked at, and named.

use std::collections::BTreeSet;

use antiphon_wire::{
    frame::{EntryKind, view_entry},
    ids::{ClientMessageId, ConversationId, Sequence, TimestampMs},
};
use xxhash_rust::xxh3::xxh3_128;

use crate::{
    engine::EngineError,
    error::StoreError,
    keys::{self, Key, Owner},
    offline::{
        opened::{Logged, Opened},
        report::Finding,
        walk::Walk,
    },
    row::Change,
    rows::{decode_entry, decode_message_id, decode_sequence},
    seams::Files,
    segment::SegmentId,
};

/// How many, and their hashes added up: the same for the same ones in any order.
#[derive(Default, Clone, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) count: u64,
    hashes: u128,
}

impl Sum {
    /// `stored` is the message's time if its row has it.
    pub(super) fn add(
        &mut self,
        conversation: ConversationId,
        id: ClientMessageId,
        sequence: Sequence,
        stored: Option<TimestampMs>,
    ) {
        let mut bytes = [0; 48];
        bytes[..16].copy_from_slice(&conversation.0);
        bytes[16..32].copy_from_slice(&id.0);
        bytes[32..40].copy_from_slice(&sequence.0.to_le_bytes());
        bytes[40..].copy_from_slice(&stored.unwrap_or_default().0.to_le_bytes());
        self.count += 1;
        self.hashes = self.hashes.wrapping_add(xxh3_128(&bytes));
    }

    fn add_all(&mut self, others: &Self) {
        self.count += others.count;
        self.hashes = self.hashes.wrapping_add(others.hashes);
    }
}

/// The two sides of the comparison.
#[derive(Default)]
pub(super) struct IdCheck {
    messages: Sum,
    rows: Sum,
    /// Conversations of which something is lost, or not compared: neither side counts them.
    left_out: BTreeSet<ConversationId>,
}

impl IdCheck {
    /// All rows of a conversation have passed by: `messages` are those that are to have rows of ids.
    pub(super) fn conversation(&mut self, messages: &Sum) {
        self.messages.add_all(messages);
    }

    /// A conversation is not compared.
    pub(super) fn leave_out(&mut self, id: ConversationId) {
        self.left_out.insert(id);
    }

    /// A row passes by, behind all conversations.
    pub(super) fn row(
        &mut self,
        conversation: ConversationId,
        id: ClientMessageId,
        sequence: Sequence,
        stored: Option<TimestampMs>,
    ) {
        if !self.left_out.contains(&conversation) {
            self.rows.add(conversation, id, sequence, stored);
        }
    }

    pub(super) fn differs(&self) -> bool {
        self.messages != self.rows
    }

    /// Names what differs.
    pub(super) async fn name<F: Files>(
        &self,
        opened: &Opened<F>,
        logged: &Logged,
        unreadable: &[SegmentId],
        find: &mut dyn FnMut(Finding),
    ) -> Result<(), EngineError> {
        let horizon = opened.horizon(logged);
        let mut walk = Walk::new(&opened.runs, &logged.memtable, unreadable, true);
        while walk.next().await? {
            let Some((key, value)) = walk.row() else { continue };
            let (of, sequence, what) = match (keys::owner(key), keys::parse(key)) {
                (Some(Owner::Conversation(of)), Some(Key::Entry(sequence))) => {
                    let Some((id, time)) = decode_entry(value).and_then(|(_, archive)| message_of(archive)) else {
                        continue;
                    };
                    let is_forgotten = horizon.forgets(id, Some(time), false);
                    if is_forgotten || remembered(opened, logged, of, id).await?.is_none_or(|of| of == sequence) {
                        continue;
                    }
                    (of, sequence, format!("no row remembers the id of this message, {id}"))
                }
                (_, Some(Key::MessageId(conversation, id))) => {
                    let Some((sequence, stored)) = decode_message_id(id, value) else { continue };
                    let entry = opened.entry(logged, conversation, sequence).await.ok().flatten();
                    let named = entry.and_then(|(_, archive)| message_of(&archive));
                    let is_it = named.is_some_and(|(of, time)| of == id && stored.is_none_or(|stored| stored == time));
                    if is_it || horizon.forgets(id, stored, false) {
                        continue;
                    }
                    let what = format!("a row says that this entry is message {id}, but it is not");
                    (conversation, sequence, what)
                }
                _ => continue,
            };
            if !self.left_out.contains(&of) {
                let (first, last) = (Some(sequence), Some(sequence));
                find(Finding { conversation: Some(of), first, last, what, ..Finding::default() });
            }
        }
        Ok(())
    }
}

/// Which entry a row of an id names; 0 if there is none. `None` if that cannot be read.
async fn remembered<F: Files>(
    opened: &Opened<F>,
    logged: &Logged,
    conversation: ConversationId,
    id: ClientMessageId,
) -> Result<Option<Sequence>, EngineError> {
    if logged.memtable.message(conversation, id).is_some() {
        return Ok(None);
    }
    let key = keys::message_id(conversation, id);
    let found = match opened.runs.get_at_once(&key).await {
        Ok(found) => found.and_then(Change::value),
        Err(StoreError::Damaged { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let named = found.map(|value| decode_message_id(id, &value).map(|(sequence, _)| sequence));
    if let Some(sequence) = named {
        return Ok(Some(sequence.unwrap_or_default()));
    }
    let found = match opened.runs.get(&keys::old_message_id(conversation, id)).await {
        Ok(found) => found.and_then(Change::value),
        Err(StoreError::Damaged { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    Ok(Some(found.and_then(|value| decode_sequence(&value)).unwrap_or_default()))
}

/// Id and time of a message, or of a change of one.
fn message_of(archive: &[u8]) -> Option<(ClientMessageId, TimestampMs)> {
    let entry = view_entry(archive).ok()?;
    let kind = EntryKind::from(&entry.kind);
    let has_id = kind == EntryKind::Message || kind.is_change();
    has_id.then(|| (ClientMessageId(entry.client_message_id.0), TimestampMs(entry.time_ms.0.to_native())))
}
