//! AES-256-GCM by aws-lc-rs, and where its keys and nonces come from.
//!
//! Nonces are random: 96 bits of a generator that is seeded from the [`Random`] seam at each opening and for each flush. A key that seals
//! 2³² values has two with one nonce with a probability of 2⁻³³; no conversation has so many, and no node so many conversations.
//!
//! Must not do: know what is sealed.

use std::{fmt, hint::black_box, sync::Arc};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use sha2::{Digest, Sha256};

use crate::seams::Random;

/// Bytes of a key.
pub(crate) const KEY_BYTES: usize = 32;

/// Bytes of a nonce.
pub(crate) const NONCE_BYTES: usize = 12;

/// Bytes that a sealed piece has behind it.
pub(crate) const TAG_BYTES: usize = 16;

/// What sealing adds to a value.
pub(crate) const SEAL_BYTES: usize = NONCE_BYTES + TAG_BYTES;

/// What a wrapped data key has beside its nonce.
pub(crate) const WRAPPED_BYTES: usize = KEY_BYTES + TAG_BYTES;

/// The node's key, which wraps the data keys of a store. Cloning shares it; what it is is shown nowhere.
#[derive(Clone)]
pub struct NodeKey {
    cipher: Arc<DataKey>,
    id: u64,
}

impl NodeKey {
    /// Bytes of a key.
    pub const BYTES: usize = KEY_BYTES;

    /// Takes a key's bytes; they are wiped here.
    #[must_use]
    pub fn new(mut bytes: [u8; Self::BYTES]) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"antiphon node key\0");
        hash.update(bytes);
        let digest: [u8; 32] = hash.finalize().into();
        let id = digest.first_chunk().map_or(0, |first| u64::from_be_bytes(*first));
        let cipher = Arc::new(DataKey::new(&bytes));
        wipe(&mut bytes);
        Self { cipher, id }
    }

    /// What tells it from other keys, and nothing else of it: stored beside what it wraps.
    #[must_use]
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// Wraps a data key: `context` says whose it is.
    pub(crate) fn wrap(&self, nonce: [u8; NONCE_BYTES], context: &[u8], key: &[u8; KEY_BYTES]) -> [u8; WRAPPED_BYTES] {
        let mut wrapped = [0; WRAPPED_BYTES];
        wrapped[..KEY_BYTES].copy_from_slice(key);
        self.cipher.seal(nonce, context, &mut wrapped);
        wrapped
    }

    /// Gives the data key's bytes; `None` if they were not wrapped by this key for this context. The caller wipes them.
    pub(crate) fn unwrap(
        &self,
        nonce: [u8; NONCE_BYTES],
        context: &[u8],
        wrapped: &[u8; WRAPPED_BYTES],
    ) -> Option<[u8; KEY_BYTES]> {
        let mut bytes = *wrapped;
        self.cipher.open(nonce, context, &mut bytes)?;
        bytes.first_chunk().copied()
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "NodeKey({:016x})", self.id)
    }
}

impl PartialEq for NodeKey {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for NodeKey {}

/// A key, expanded. aws-lc wipes it when it goes.
pub(crate) struct DataKey(LessSafeKey);

impl DataKey {
    pub(crate) fn new(bytes: &[u8; KEY_BYTES]) -> Self {
        Self(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, bytes).expect("a key of its length")))
    }

    /// Seals `bytes` in place: all but the last [`TAG_BYTES`] of them, into which the tag goes. `context` is not stored, and must be the same
    /// when they are opened.
    pub(crate) fn seal(&self, nonce: [u8; NONCE_BYTES], context: &[u8], bytes: &mut [u8]) {
        let (plain, place) = bytes.split_at_mut(bytes.len() - TAG_BYTES);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.0.seal_in_place_separate_tag(nonce, Aad::from(context), plain).expect("far below the limit");
        place.copy_from_slice(tag.as_ref());
    }

    /// Opens `bytes` in place; how many of them are plain text then. `None` if they are not what was sealed.
    pub(crate) fn open(&self, nonce: [u8; NONCE_BYTES], context: &[u8], bytes: &mut [u8]) -> Option<usize> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.0.open_in_place(nonce, Aad::from(context), bytes).ok().map(|plain| plain.len())
    }
}

/// Gives nonces and data keys: SHA-256 of a secret seed and a counter.
pub(crate) struct Nonces {
    seed: [u8; 32],
    counter: u64,
    spare: Option<[u8; NONCE_BYTES]>,
}

impl Nonces {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self { seed, counter: 0, spare: None }
    }

    /// Seeded with 256 bits.
    pub(crate) fn from_random(random: &impl Random) -> Self {
        let mut seed = [0; 32];
        seed.as_chunks_mut::<8>().0.iter_mut().for_each(|chunk| *chunk = random.next().to_le_bytes());
        Self::new(seed)
    }

    /// Thirty-two random bytes.
    pub(crate) fn bytes(&mut self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(self.seed);
        hash.update(self.counter.to_le_bytes());
        self.counter += 1;
        hash.finalize().into()
    }

    /// Another one, for somebody else.
    pub(crate) fn fork(&mut self) -> Self {
        Self::new(self.bytes())
    }

    /// A nonce.
    pub(crate) fn nonce(&mut self) -> [u8; NONCE_BYTES] {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let bytes = self.bytes();
        let (mut nonce, mut spare) = ([0; NONCE_BYTES], [0; NONCE_BYTES]);
        nonce.copy_from_slice(&bytes[..NONCE_BYTES]);
        spare.copy_from_slice(&bytes[NONCE_BYTES..2 * NONCE_BYTES]);
        self.spare = Some(spare);
        nonce
    }
}

impl Drop for Nonces {
    fn drop(&mut self) {
        wipe(&mut self.seed);
    }
}

/// Zeros that the compiler does not leave out.
pub(crate) fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    black_box(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_opens_with_its_key_nonce_and_context_only() {
        let (key, other) = (DataKey::new(&[1; 32]), DataKey::new(&[2; 32]));
        let mut sealed = *b"content and sixteen more bytes..";
        key.seal([3; 12], b"whose", &mut sealed);
        assert!(!sealed.starts_with(b"content"));
        let open = |key: &DataKey, nonce, context: &[u8]| {
            let mut bytes = sealed;
            key.open(nonce, context, &mut bytes).map(|length| bytes[..length].to_vec())
        };
        assert_eq!(open(&key, [3; 12], b"whose").as_deref(), Some(&b"content and sixt"[..]));
        assert_eq!(open(&other, [3; 12], b"whose"), None);
        assert_eq!(open(&key, [4; 12], b"whose"), None);
        assert_eq!(open(&key, [3; 12], b"other"), None);
        for bit in 0..sealed.len() * 8 {
            let mut bad = sealed;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(key.open([3; 12], b"whose", &mut bad), None, "bit {bit}");
        }
        assert_eq!(key.open([3; 12], b"whose", &mut [0; 15]), None, "too short");
    }

    #[test]
    fn a_node_key_shows_nothing_of_itself() {
        let key = NodeKey::new([7; 32]);
        assert_eq!(format!("{key:?}"), format!("NodeKey({:016x})", key.id()));
        assert_ne!(key, NodeKey::new([8; 32]));
        let wrapped = key.wrap([1; 12], b"a", &[9; 32]);
        assert_eq!(key.unwrap([1; 12], b"a", &wrapped), Some([9; 32]));
        assert_eq!(key.unwrap([1; 12], b"b", &wrapped), None);
        assert_eq!(NodeKey::new([8; 32]).unwrap([1; 12], b"a", &wrapped), None);
    }

    #[test]
    fn nonces_do_not_repeat() {
        let mut nonces = Nonces::new([5; 32]);
        let mut fork = nonces.fork();
        let mut all: Vec<_> = (0..10_000).flat_map(|_| [nonces.nonce(), fork.nonce()]).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 20_000);
    }
}
