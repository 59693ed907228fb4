//! The data keys of a lane: wrapped ones in memory, a few of them open.
//!
//! Shared with the thread that flushes, so behind a lock: held for a look into a map, never while something is sealed. About 100 bytes for
//! each conversation; an open key is a kilobyte, and there are [`OPEN_MAX`] of them at most.
//!
//! Must not do: I/O.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use antiphon_wire::ids::ConversationId;

use crate::{
    encryption::{
        DataKey, NONCE_BYTES, NodeKey, Nonces, SEAL_BYTES,
        cipher::wipe,
        file::{Anchor, Entry, Found, Header, Stored},
    },
    engine::EngineError,
    error::{DamagedKeys, StoreError},
    hash::IdHash,
    keys::{self, Sealed},
    row::{Change, SharedBytes},
};

/// Open keys kept: of so many conversations what is said costs no unwrapping.
const OPEN_MAX: usize = 1_024;

/// Begins what a data key is wrapped for.
const OF_KEY: u8 = 1;
/// Begins what a record is sealed for.
const OF_RECORD: u8 = 2;
/// Begins what a row's value is sealed for.
const OF_ROW: u8 = 3;

/// Why there is no key for a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyFault {
    /// It was destroyed.
    Erased,
    /// It was never there, or is lost.
    Missing,
    /// It is there and does not open.
    Damaged,
}

impl KeyFault {
    /// In words.
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Erased => "the conversation was erased",
            Self::Missing => "the conversation's data key is missing",
            Self::Damaged => "the conversation's data key does not open",
        }
    }
}

/// The keys of a lane.
pub(crate) struct Vault {
    node: NodeKey,
    header: Header,
    state: Mutex<State>,
}

struct State {
    stored: HashMap<ConversationId, Stored, IdHash>,
    /// Conversations in the order of the file.
    order: Vec<ConversationId>,
    /// How many of them are durable.
    durable: usize,
    /// Conversations whose key was destroyed, ascending.
    erased: Arc<[ConversationId]>,
    open: HashMap<ConversationId, Arc<DataKey>, IdHash>,
    oldest: VecDeque<ConversationId>,
    nonces: Nonces,
}

impl fmt::Debug for Vault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Vault({:?})", self.node)
    }
}

impl Vault {
    /// What a new store has.
    pub(crate) fn new(node: NodeKey, store: u64, nonces: Nonces) -> Self {
        let header = Header { store, origin: store, generation: 1, node: node.id() };
        Self::with(node, header, &[], nonces)
    }

    /// What was found in a store's file.
    ///
    /// # Errors
    /// [`EngineError::OtherKey`].
    pub(crate) fn found(node: NodeKey, found: &Found, nonces: Nonces) -> Result<Self, EngineError> {
        if node.id() != found.header.node {
            return Err(EngineError::OtherKey { found: node.id(), expected: found.header.node });
        }
        Ok(Self::with(node, found.header, &found.entries, nonces))
    }

    fn with(node: NodeKey, header: Header, entries: &[Entry], nonces: Nonces) -> Self {
        // Ids are hashes, so whose lookups are slow is nobody's choice; the store's number is as good a seed as its salt.
        let hash = IdHash(header.store);
        let erased = entries.iter().filter(|(_, stored)| *stored == Stored::Erased).map(|(id, _)| *id);
        let mut erased: Vec<ConversationId> = erased.collect();
        erased.sort_unstable();
        let mut stored = HashMap::with_capacity_and_hasher(entries.len(), hash);
        stored.extend(entries.iter().copied());
        let order: Vec<_> = entries.iter().map(|(id, _)| *id).collect();
        let open = HashMap::with_hasher(hash);
        let (durable, oldest) = (order.len(), VecDeque::new());
        let state = State { stored, order, durable, erased: erased.into(), open, oldest, nonces };
        Self { node, header, state: Mutex::new(state) }
    }

    /// Whose the keys are.
    pub(crate) const fn header(&self) -> Header {
        self.header
    }

    /// What the manifest is to say.
    pub(crate) fn anchor(&self) -> Anchor {
        Anchor { generation: self.header.generation, entries: self.state().durable as u64 }
    }

    /// Everything that is durable, in the order of the file.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        let state = self.state();
        let durable = state.order.get(..state.durable).unwrap_or_default();
        durable.iter().filter_map(|id| Some((*id, *state.stored.get(id)?))).collect()
    }

    /// Keys that are not durable yet, in the order in which they were made.
    pub(crate) fn fresh(&self) -> Vec<Entry> {
        let state = self.state();
        let fresh = state.order.get(state.durable..).unwrap_or_default();
        fresh.iter().filter_map(|id| Some((*id, *state.stored.get(id)?))).collect()
    }

    /// So many of the fresh ones are durable now.
    pub(crate) fn stored(&self, count: usize) {
        self.state().durable += count;
    }

    /// Whether the conversation's key was destroyed.
    pub(crate) fn is_erased(&self, id: ConversationId) -> bool {
        let state = self.state();
        !state.erased.is_empty() && state.stored.get(&id) == Some(&Stored::Erased)
    }

    /// Whether any conversation was erased.
    pub(crate) fn has_erased(&self) -> bool {
        !self.state().erased.is_empty()
    }

    /// The conversations that were erased, ascending.
    pub(crate) fn erased(&self) -> Arc<[ConversationId]> {
        Arc::clone(&self.state().erased)
    }

    /// Makes a key for a conversation that has none, not durable yet.
    pub(crate) fn make(&self, id: ConversationId) {
        let mut state = self.state();
        if state.stored.contains_key(&id) {
            return;
        }
        let (mut key, nonce) = (state.nonces.bytes(), state.nonces.nonce());
        let wrapped = self.node.wrap(nonce, &of_key(self.header.origin, id), &key);
        let open = Arc::new(DataKey::new(&key));
        wipe(&mut key);
        state.stored.insert(id, Stored::Wrapped(nonce, wrapped));
        state.order.push(id);
        state.keep(id, open);
    }

    /// A conversation's key, from those that are open if it is one of them.
    pub(crate) fn key(&self, id: ConversationId) -> Result<Arc<DataKey>, KeyFault> {
        if let Some(open) = self.state().open.get(&id) {
            return Ok(Arc::clone(open));
        }
        let open = Arc::new(self.unwrapped(id)?);
        self.state().keep(id, Arc::clone(&open));
        Ok(open)
    }

    /// A conversation's key, opened for the caller alone.
    fn unwrapped(&self, id: ConversationId) -> Result<DataKey, KeyFault> {
        let mut key = self.key_bytes(id)?;
        let open = DataKey::new(&key);
        wipe(&mut key);
        Ok(open)
    }

    fn key_bytes(&self, id: ConversationId) -> Result<[u8; 32], KeyFault> {
        let stored = self.state().stored.get(&id).copied();
        match stored {
            None => Err(KeyFault::Missing),
            Some(Stored::Erased) => Err(KeyFault::Erased),
            Some(Stored::Wrapped(nonce, wrapped)) => {
                let context = of_key(self.header.origin, id);
                self.node.unwrap(nonce, &context, &wrapped).ok_or(KeyFault::Damaged)
            }
        }
    }

    /// The entry of a conversation wrapped anew: by another key, or for another store. Errors are as the key's.
    pub(crate) fn wrapped_for(&self, id: ConversationId, node: &NodeKey, origin: u64) -> Result<Entry, KeyFault> {
        let mut key = match self.key_bytes(id) {
            Err(KeyFault::Erased) => return Ok((id, Stored::Erased)),
            other => other?,
        };
        let nonce = self.state().nonces.nonce();
        let wrapped = node.wrap(nonce, &of_key(origin, id), &key);
        wipe(&mut key);
        Ok((id, Stored::Wrapped(nonce, wrapped)))
    }

    /// A nonce.
    pub(crate) fn nonce(&self) -> [u8; NONCE_BYTES] {
        self.state().nonces.nonce()
    }

    /// What a flush seals its rows with.
    pub(crate) fn seal(self: &Arc<Self>) -> Seal {
        let nonces = self.state().nonces.fork();
        Seal { vault: Arc::clone(self), nonces, current: None, value: Vec::new() }
    }

    /// What is sealed of a row, opened: the whole value. `None` if the conversation was erased.
    pub(crate) fn open_row(
        &self,
        key: &[u8],
        sealed: Sealed,
        value: &[u8],
    ) -> Result<Option<SharedBytes>, &'static str> {
        let data_key = match self.key(sealed.conversation) {
            Ok(key) => key,
            Err(KeyFault::Erased) => return Ok(None),
            Err(fault) => return Err(fault.text()),
        };
        let opened = (|| {
            let (clear, rest) = value.split_at_checked(sealed.clear_bytes)?;
            let (nonce, rest) = rest.split_first_chunk::<NONCE_BYTES>()?;
            let mut bytes = Vec::with_capacity(clear.len() + rest.len());
            bytes.extend_from_slice(clear);
            bytes.extend_from_slice(rest);
            let length = data_key.open(*nonce, &of_row(key, clear), bytes.get_mut(clear.len()..)?)?;
            bytes.truncate(clear.len() + length);
            Some(SharedBytes::from(bytes))
        })();
        opened.map(Some).ok_or("a sealed value does not open")
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves whole maps: nothing is changed in more than one step that could be missed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn keep(&mut self, id: ConversationId, key: Arc<DataKey>) {
        if self.open.insert(id, key).is_none() {
            self.oldest.push_back(id);
        }
        if self.oldest.len() > OPEN_MAX
            && let Some(oldest) = self.oldest.pop_front()
        {
            self.open.remove(&oldest);
        }
    }
}

/// Seals the values of rows that are written, in the order of their keys.
pub(crate) struct Seal {
    vault: Arc<Vault>,
    nonces: Nonces,
    /// The conversation at hand, and its key if it has one.
    current: Option<(ConversationId, Result<DataKey, KeyFault>)>,
    value: Vec<u8>,
}

impl Seal {
    /// A row as it is stored; `None` if it is of a conversation that was erased.
    pub(crate) fn row<'a>(
        &'a mut self,
        key: &[u8],
        change: Change<&'a [u8]>,
    ) -> Result<Option<Change<&'a [u8]>>, StoreError> {
        let (Change::Put(value), Some(sealed)) = (change, keys::sealed(key)) else { return Ok(Some(change)) };
        if self.current.as_ref().is_none_or(|(id, _)| *id != sealed.conversation) {
            self.current = Some((sealed.conversation, self.vault.unwrapped(sealed.conversation)));
        }
        let data_key = match self.current.as_ref().map(|(_, key)| key.as_ref()) {
            Some(Ok(key)) => key,
            Some(Err(KeyFault::Erased)) => return Ok(None),
            Some(Err(fault)) => return Err(without_key(key, fault.text())),
            None => return Err(without_key(key, KeyFault::Missing.text())),
        };
        let nonce = self.nonces.nonce();
        let (clear, content) = value.split_at(sealed.clear_bytes.min(value.len()));
        self.value.clear();
        self.value.reserve(value.len() + SEAL_BYTES);
        self.value.extend_from_slice(clear);
        self.value.extend_from_slice(&nonce);
        let from = self.value.len();
        self.value.extend_from_slice(content);
        self.value.resize(value.len() + SEAL_BYTES, 0);
        data_key.seal(nonce, &of_row(key, clear), &mut self.value[from..]);
        Ok(Some(Change::Put(&self.value)))
    }
}

/// What cannot be read or written of a conversation whose key is not there.
pub(crate) fn without_key(key: &[u8], what: &'static str) -> StoreError {
    StoreError::Damaged { file: super::file::NAME.into(), offset: 0, what, keys: DamagedKeys::between(key, key) }
}

/// What a data key is wrapped for: the store that made it, and the conversation.
fn of_key(origin: u64, id: ConversationId) -> [u8; 25] {
    let mut context = [OF_KEY; 25];
    context[1..9].copy_from_slice(&origin.to_le_bytes());
    context[9..].copy_from_slice(&id.0);
    context
}

/// What a record is sealed for: the log, its place there, and the conversation.
pub(crate) fn of_record(salt: u64, position: u64, id: ConversationId) -> [u8; 33] {
    let mut context = [OF_RECORD; 33];
    context[1..9].copy_from_slice(&salt.to_le_bytes());
    context[9..17].copy_from_slice(&position.to_le_bytes());
    context[17..].copy_from_slice(&id.0);
    context
}

/// What a row's value is sealed for: its key, and what of the value is not sealed. The store is in the data key: no other has it.
fn of_row(key: &[u8], clear: &[u8]) -> Vec<u8> {
    let mut context = Vec::with_capacity(1 + key.len() + clear.len());
    context.push(OF_ROW);
    context.extend_from_slice(key);
    context.extend_from_slice(clear);
    context
}

#[cfg(test)]
mod tests {
    use antiphon_wire::ids::Sequence;

    use super::*;

    fn vault(ids: &[ConversationId]) -> Arc<Vault> {
        let vault = Vault::new(NodeKey::new([9; 32]), 77, Nonces::new([3; 32]));
        ids.iter().for_each(|id| vault.make(*id));
        Arc::new(vault)
    }

    fn id(number: u8) -> ConversationId {
        ConversationId([number; 16])
    }

    #[test]
    fn a_value_opens_under_its_own_key_and_with_what_is_not_sealed_of_it_only() {
        let vault = vault(&[id(1), id(2)]);
        let row = keys::entry(id(1), Sequence(5));
        let value = [&7_u64.to_le_bytes()[..], b"what somebody wrote"].concat();
        let mut seal = vault.seal();
        let sealed = seal.row(&row, Change::Put(&value)).unwrap().and_then(Change::value).unwrap().to_vec();
        let open = |key: &[u8], value: &[u8]| vault.open_row(key, keys::sealed(key).unwrap(), value);
        assert_eq!(open(&row, &sealed).unwrap().as_deref(), Some(&value[..]));
        for (what, elsewhere) in [
            ("another sequence", keys::entry(id(1), Sequence(6))),
            ("another conversation", keys::entry(id(2), Sequence(5))),
            ("another kind of row", keys::single(id(1), keys::Family::Title)),
        ] {
            assert!(open(&elsewhere, &sealed).is_err(), "{what}");
        }
        for at in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[at] ^= 1;
            assert!(open(&row, &bad).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_wrapped_key_is_of_its_conversation_and_store() {
        let made = vault(&[id(1), id(2)]);
        made.stored(2);
        let [(one, key_of_one), (two, key_of_two)] = made.entries()[..] else { unreachable!() };
        let with = |origin: u64, entries: &[Entry]| {
            let header = Header { origin, ..made.header() };
            Vault::with(NodeKey::new([9; 32]), header, entries, Nonces::new([4; 32]))
        };
        assert!(with(77, &[(one, key_of_one)]).key(one).is_ok());
        let swapped = with(77, &[(one, key_of_two), (two, key_of_one)]);
        assert_eq!(swapped.key(one).err(), Some(KeyFault::Damaged));
        assert_eq!(with(78, &[(one, key_of_one)]).key(one).err(), Some(KeyFault::Damaged));
    }
}
