//! Makes a lane's store out of records, by the engine's own memtable and segment writer: every row that follows from an entry is made by the
//! one function that makes it when a node runs. Of a conversation that has lost entries, those that are left do not say everything: what is
//! known besides is told ([`Maker::tell`]), and goes before what they say.
//!
//! Memory: one memtable of [`SEGMENT_BYTES`], and as many bytes of what was told. The folder is a whole store only after
//! [`Maker::finish`]: until then the caller keeps it under another name.

use std::{collections::BTreeMap, sync::Arc};

use antiphon_wire::{
    frame::Settings,
    ids::{ClientMessageId, ConversationId, LanePosition, Sequence, TimestampMs, UserId},
};

use crate::{
    account::ItemRow,
    cache::Cache,
    changes::{RetentionRow, StateRow, decode_pins, decode_reactor},
    encryption::{
        Vault,
        file::{self, KeysFile},
    },
    engine::{EngineError, open::Blob},
    error::StoreError,
    flush::FlushTimes,
    group::{InviteRow, decode_ban, decode_role},
    hash::IdHash,
    keys::{self, Family, Key},
    lane::record::Record,
    layout,
    manifest::SEGMENTS_MAX,
    memtable::{LOST_ENTRIES_MAX, Memtable},
    offline::{
        access::{Sealing, Use},
        replay::Replay,
    },
    row::Change,
    rows::{MemberRow, PointerRow, StartRow, TailRow, UserRow, put_sequence},
    seams::Files,
    sorted::{FlushMark, Sorted},
};

/// Memory of what becomes one segment: large enough that few segments come of it, small beside a machine's memory.
const SEGMENT_BYTES: usize = 64 * 1024 * 1024;

/// Blocks kept for looking up message ids in what was written already.
const CACHE_BYTES: usize = 16 * 1024 * 1024;

/// And parts of their filters.
const FILTERS_BYTES: usize = 32 * 1024 * 1024;

/// What a row that was told costs beyond its own bytes.
const ROW_BYTES: usize = 96;

/// Most lost entries that a memtable holds places for.
const LEAP_MAX: u64 = 1 << 16;
const _: () = assert!(LEAP_MAX < LOST_ENTRIES_MAX);

/// Why a store cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum MakeError {
    /// It would have more segments than a manifest can name.
    #[error("the lane is larger than a store can take in at once")]
    TooLarge,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<MakeError> for EngineError {
    fn from(error: MakeError) -> Self {
        match error {
            MakeError::TooLarge => Self::Options { option: "segments", what: error.to_string() },
            MakeError::Store(error) => Self::Store(error),
        }
    }
}

/// What is known of a conversation that has lost entries.
pub(super) struct Told {
    pub(super) start: StartRow,
    pub(super) title: String,
    /// Of the last entry, lost or not.
    pub(super) tail: TailRow,
    pub(super) members: BTreeMap<UserId, MemberRow>,
    pub(super) pointers: Vec<(UserId, PointerRow)>,
    /// Rows of what became of messages and of the group, by the suffixes of their keys.
    pub(super) changes: Vec<(Vec<u8>, Vec<u8>)>,
    /// Suffixes of such rows that the entries make, but that are not there: what is lost undid them.
    pub(super) undone: Vec<Vec<u8>>,
    /// First and last of each stretch of lost entries.
    pub(super) lost: Vec<(Sequence, Sequence)>,
}

/// The suffix of a row of what became of messages or of the group, if the key is of one and the value has its form.
pub(super) fn changed_row(key: &Key, value: &[u8]) -> Option<Vec<u8>> {
    let (suffix, is_formed) = match key {
        Key::State(sequence) => (keys::state_suffix(*sequence), StateRow::decode(value).is_some()),
        Key::Reactor(sequence, user) => (keys::reactor_suffix(*sequence, user), decode_reactor(value).is_some()),
        Key::Pins => (keys::PINS.to_vec(), decode_pins(value).is_some()),
        Key::Retention => (keys::RETENTION.to_vec(), RetentionRow::decode(value).is_some()),
        Key::Settings => (keys::SETTINGS.to_vec(), Settings::from_body(value).is_ok()),
        Key::Role(user) => (keys::role_suffix(user), decode_role(value).is_some()),
        Key::Ban(user) => (keys::ban_suffix(user), decode_ban(value).is_some()),
        Key::Invite(at) => (keys::invite_suffix(*at), InviteRow::decode(value).is_some()),
        Key::Account(key) => (keys::account_suffix(key), ItemRow::decode(value).is_some()),
        _ => return None,
    };
    is_formed.then_some(suffix)
}

/// A store that is being made.
pub(super) struct Maker<F: Files> {
    sorted: Sorted<F>,
    hash: IdHash,
    blob: Blob,
    memtable: Memtable,
    /// Of an encrypted store.
    keys: Option<(Arc<Vault>, KeysFile<F::File>)>,
    /// Rows that go before those of the memtable, and how many bytes they have.
    told: BTreeMap<Vec<u8>, Change<Vec<u8>>>,
    told_bytes: usize,
    segment_bytes: usize,
    segments_max: usize,
}

impl<F: Files> Maker<F> {
    /// Begins in an empty folder, under this identity; encrypted, if a key is given.
    pub(super) async fn create(
        files: F,
        store: u64,
        lane: u16,
        blob: Blob,
        key: Option<&Sealing>,
    ) -> Result<Self, MakeError> {
        let settings = layout::sorted_settings(Cache::new(CACHE_BYTES), Cache::new(FILTERS_BYTES));
        let hash = IdHash(blob.salt);
        let mut keys = None;
        if let Some(key) = key {
            let vault = Vault::new(key.node.clone(), store, key.nonces(Use::Making));
            file::replace(&files, vault.header(), &[]).await.map_err(StoreError::from)?;
            let found = file::read(&files, store, vault.anchor()).await?;
            let keys_file = KeysFile::open(&files, &found).await.map_err(StoreError::from)?;
            keys = Some((Arc::new(vault), keys_file));
        }
        let blob = Blob { keys: keys.as_ref().map(|(vault, _)| vault.anchor()), ..blob };
        let sorted = Sorted::create(files, settings, store, u32::from(lane), blob.encode()).await?;
        if let Some((vault, _)) = &keys {
            sorted.set_vault(Arc::clone(vault));
        }
        let memtable = Memtable::new(hash);
        let (segment_bytes, segments_max) = (SEGMENT_BYTES, SEGMENTS_MAX);
        let (told, told_bytes) = (BTreeMap::new(), 0);
        Ok(Self { sorted, hash, blob, memtable, keys, told, told_bytes, segment_bytes, segments_max })
    }

    /// Makes smaller segments, and fewer, for tests.
    pub(super) fn set_limits(&mut self, segment_bytes: usize, segments_max: usize) {
        (self.segment_bytes, self.segments_max) = (segment_bytes, segments_max);
    }

    /// Takes in a record. Those of one conversation come in its order.
    pub(super) async fn apply(&mut self, position: LanePosition, record: &Record) -> Result<(), MakeError> {
        if let (Some((vault, _)), Some(id)) = (&self.keys, record.conversation()) {
            vault.make(id);
        }
        self.memtable.apply(position, record);
        self.blob.has_changes |= self.memtable.has_changes();
        if self.memtable.bytes() >= self.segment_bytes {
            self.flush(0, None).await?;
        }
        Ok(())
    }

    /// So many entries of the conversation at hand are lost before the next one.
    pub(super) async fn leap(&mut self, entries: u64) -> Result<(), MakeError> {
        // A memtable holds a place for each, up to a number of them.
        if entries >= LEAP_MAX { self.flush(0, None).await } else { Ok(()) }
    }

    /// Tells what is known of a conversation whose entries that are left were all taken in; `replay` is what those say.
    pub(super) async fn tell(&mut self, id: ConversationId, told: &Told, replay: &Replay) -> Result<(), MakeError> {
        if let Some((vault, _)) = &self.keys {
            vault.make(id);
        }
        for (first, last) in &told.lost {
            let mut value = Vec::new();
            put_sequence(*last, &mut value);
            self.put(keys::lost(id, *first), value);
        }
        self.put(keys::single(id, Family::Start), told.start.encode());
        self.put(keys::single(id, Family::Title), told.title.as_bytes().to_vec());
        self.put(keys::single(id, Family::Tail), told.tail.encode());
        for (user, state) in &replay.users {
            if state.member.is_some() && !told.members.contains_key(user) {
                self.row(keys::of_user(id, Family::Member, user), Change::Delete);
                self.row(keys::user_conversation(user, id), Change::Delete);
            }
        }
        for (user, member) in &told.members {
            self.put(keys::of_user(id, Family::Member, user), member.encode());
            let said = replay.users.get(user).filter(|said| said.member == Some(*member));
            // Which record added the user is not known where that is lost: no client holds a position of this store yet.
            let (sequence, position) = (member.visible_from, told.tail.position);
            let row = said.map_or(UserRow { joined: true, sequence, position }, |said| said.row);
            self.put(keys::user_conversation(user, id), row.encode());
        }
        for (user, pointer) in &told.pointers {
            self.put(keys::of_user(id, Family::Pointer, user), pointer.encode());
        }
        for suffix in &told.undone {
            self.row(keys::within(id, suffix), Change::Delete);
        }
        for (suffix, value) in &told.changes {
            self.put(keys::within(id, suffix), value.clone());
            self.blob.has_changes = true;
        }
        if self.told_bytes >= self.segment_bytes { self.flush(0, None).await } else { Ok(()) }
    }

    fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.row(key, Change::Put(value));
    }

    fn row(&mut self, key: Vec<u8>, change: Change<Vec<u8>>) {
        self.told_bytes += key.len() + change.as_ref().value().map_or(0, Vec::len) + ROW_BYTES;
        self.told.insert(key, change);
    }

    /// Whether the conversation has a message of this id already.
    pub(super) async fn is_known(&self, id: ConversationId, message: ClientMessageId) -> Result<bool, StoreError> {
        if self.memtable.message(id, message).is_some() {
            return Ok(true);
        }
        let key = keys::message_id(id, message);
        let runs = self.sorted.runs();
        if !runs.may_contain(&key) {
            return Ok(false);
        }
        Ok(runs.get(&key).await?.and_then(Change::value).is_some())
    }

    /// Everything was taken in: the lane ends at `position`, its last entry has this time.
    pub(super) async fn finish(mut self, position: LanePosition, time: TimestampMs) -> Result<(), MakeError> {
        let blob = Blob { time, ..self.blob };
        self.flush(position.0, Some(blob)).await
    }

    /// Writes what is in memory as a segment, and what was told as one before it.
    async fn flush(&mut self, flushed_position: u64, blob: Option<Blob>) -> Result<(), MakeError> {
        let memtable = &self.memtable;
        // Message ids have a segment of their own.
        let parts = [!memtable.is_empty(), memtable.has_messages(), !self.told.is_empty()];
        let parts = parts.into_iter().filter(|is_there| *is_there).count();
        if self.sorted.manifest().segments.len() + parts > self.segments_max {
            return Err(MakeError::TooLarge);
        }
        if let Some((vault, keys_file)) = &mut self.keys {
            let fresh = vault.fresh();
            keys_file.append(&fresh).await.map_err(StoreError::from)?;
            vault.stored(fresh.len());
            self.blob.keys = Some(vault.anchor());
        }
        let full = std::mem::replace(&mut self.memtable, Memtable::new(self.hash));
        let told = std::mem::take(&mut self.told);
        self.told_bytes = 0;
        // The position counts when everything before it is there.
        let early = if told.is_empty() { flushed_position } else { self.sorted.manifest().flushed_position };
        let blob = blob.map(|blob| Blob { keys: self.blob.keys, ..blob }.encode());
        let FlushTimes { rows: times, erasing_since } = full.flush_times();
        let mark = FlushMark { flushed_position: early, blob: blob.clone(), times, erasing_since };
        self.sorted.flush_from(&mut full.rows_without_lost(), mark).await?;
        if !told.is_empty() {
            self.sorted.flush(told, FlushMark { flushed_position, blob, ..FlushMark::default() }).await?;
        }
        Ok(())
    }
}
