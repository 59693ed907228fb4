//! Erasing conversations of an encrypted store that nobody runs, by destroying their data keys; and wrapping all keys by another node key.
//!
//! Both write the data keys' file anew, beside the old one, and rename it: a crash leaves one or the other, whole. The old one's bytes are then
//! written over with zeros, as far as the file system writes where they are. The manifest names the new file at last, so that an older one
//! is not taken for it.

use antiphon_wire::ids::ConversationId;
use serde::Serialize;

use crate::{
    encryption::{
        NodeKey,
        file::{self, Anchor, Entry, Header, Stored},
        without_key,
    },
    engine::{EngineError, open::Blob},
    error::StoreError,
    keys,
    manifest::{self, Manifest, ReplaceError},
    offline::{access::Access, opened::Opened, read_only::ReadOnly},
    seams::{AlignedBuffer, File, FileError, Files, OpenMode, PAGE_BYTES, Random},
};

/// What is written over at once.
const PIECE_BYTES: u64 = 256 * 1024;

/// What became of conversations that were to be erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Erased {
    /// Whose key was destroyed.
    pub erased: u64,
    /// Who were erased before.
    pub before: u64,
    /// Of which the lane has no key, and so nothing that was written.
    pub unknown: u64,
}

/// Destroys the data keys of conversations: from here on nobody reads what they said, in this store and in every copy that is made of it.
/// Copies that were made before have their own keys. Needs no key.
///
/// # Errors
/// If the store is not encrypted, or its files cannot be read or written.
pub async fn erase<F: Files>(files: F, lane: u16, conversations: &[ConversationId]) -> Result<Erased, EngineError> {
    let opened = Opened::open(ReadOnly::new(files.clone(), |_| ()), &lane.into()).await?;
    let (manifest, header, mut entries) = keys_of(opened)?;
    let mut erased = Erased { unknown: conversations.len() as u64, ..Erased::default() };
    for (_, stored) in entries.iter_mut().filter(|(id, _)| conversations.contains(id)) {
        erased.unknown -= 1;
        match stored {
            Stored::Erased => erased.before += 1,
            Stored::Wrapped(..) => {
                erased.erased += 1;
                *stored = Stored::Erased;
            }
        }
    }
    if erased.erased > 0 {
        replace(&files, manifest, header, &entries).await?;
    }
    Ok(erased)
}

/// Wraps all data keys of a lane by another node key; whether they were not yet. `access` has the one that they are wrapped by.
///
/// # Errors
/// As [`erase`], and if the key is another or a data key does not open with it.
pub async fn rewrap<F: Files>(
    files: F,
    access: impl Into<Access>,
    node: &NodeKey,
    random: &impl Random,
) -> Result<bool, EngineError> {
    let access = access.into();
    let by_new = Access::with_key(access.lane, node.clone(), random);
    match Opened::open(ReadOnly::new(files.clone(), |_| ()), &by_new).await {
        Err(EngineError::OtherKey { .. }) => {}
        // One that an earlier attempt came to.
        other => return keys_of(other?).map(|_| false),
    }
    let opened = Opened::open(ReadOnly::new(files.clone(), |_| ()), &access).await?;
    opened.require_key()?;
    let vault = opened.vault.clone().ok_or(EngineError::KeyNeeded)?;
    let (manifest, header, mut entries) = keys_of(opened)?;
    for entry in &mut entries {
        let wrapped = vault.wrapped_for(entry.0, node, header.origin);
        *entry = wrapped.map_err(|fault| without_key(&keys::conversation(entry.0), fault.text()))?;
    }
    replace(&files, manifest, Header { node: node.id(), ..header }, &entries).await?;
    Ok(true)
}

/// The manifest and the data keys of an encrypted store that are whole.
fn keys_of<F: Files>(opened: Opened<F>) -> Result<(Manifest, Header, Vec<Entry>), EngineError> {
    if let Some(error) = opened.keys_damage {
        return Err(error.into());
    }
    let what = "the store is not encrypted: there are no data keys".to_owned();
    let found = opened.found.ok_or(EngineError::Options { option: "encryption", what })?;
    Ok((opened.manifest, found.header, found.entries))
}

async fn replace<F: Files>(
    files: &F,
    mut manifest: Manifest,
    header: Header,
    entries: &[Entry],
) -> Result<(), EngineError> {
    let header = Header { generation: header.generation + 1, ..header };
    let old = files.open(file::NAME, OpenMode::Log).await?;
    file::replace(files, header, entries).await?;
    let blob = Blob::decode(&manifest.blob)?;
    let keys = Some(Anchor { generation: header.generation, entries: entries.len() as u64 });
    manifest.blob = Blob { keys, ..blob }.encode();
    manifest.edit += 1;
    let named = manifest::replace(files, &manifest).await.map_err(ReplaceError::into_file_error);
    named.map_err(StoreError::from)?;
    write_over(&old).await?;
    Ok(())
}

async fn write_over(old: &impl File) -> Result<(), FileError> {
    let (mut offset, bytes) = (0, old.size_bytes().next_multiple_of(PAGE_BYTES as u64));
    while offset < bytes {
        let length = (bytes - offset).min(PIECE_BYTES);
        old.write_at(offset, AlignedBuffer::zeroed(length as usize)).await.1?;
        offset += length;
    }
    old.sync().await
}
