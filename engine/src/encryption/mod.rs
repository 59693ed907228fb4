//! Encryption at rest: a data key for each conversation, wrapped by the node's key, so that destroying a key erases a conversation.
//!
//! A store is encrypted from its making or not at all; the manifest says which. What is sealed is what a conversation's records say in the
//! log, and the values of its rows that hold what somebody wrote ([`keys::sealed`](crate::keys::sealed)): titles, entries, reactions. Keys
//! of rows, sizes, times and counts are not. The file `keys` holds the wrapped data keys ([`mod@file`]); a key is durable there before the
//! first record that needs it is acknowledged.
//!
//! Memory holds plain text: memtables, pages, answers. Segments' blocks, in memory too, are as on disk; a value is opened when it is read
//! ([`crate::runs`]), merges copy it as it is. A flush seals where it computes. An erased conversation's key is nowhere; its mark stays in
//! `keys` for ever, so that it is told from one whose key was lost, which is damage. Merges leave out whatever rows it has
//! (`engine::useless`).
//!
//! Must not do: let a key into a message, an error or a log line.

mod cipher;
pub(crate) mod file;
mod vault;

pub use cipher::NodeKey;
pub(crate) use cipher::{DataKey, NONCE_BYTES, Nonces, SEAL_BYTES, TAG_BYTES};
pub(crate) use vault::{KeyFault, Seal, Vault, of_record, without_key};
