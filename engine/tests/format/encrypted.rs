//! Encrypted stores of which the keys are known: with one that was erased, a restored one, and one of other lanes.

use std::fs;

use antiphon_engine::{
    EngineOptions,
    encryption::NodeKey,
    memory_files::{MemoryFiles, MemoryRandom},
    offline::{self, Access, Until},
    partitions::lane_of,
};
use antiphon_wire::ids::ConversationId;
use sha2::{Digest as _, Sha256};

use crate::{
    files,
    keys::{Key, Keys},
    support::{Lane, block_on, small_options},
    tables::{Document, Fault, require},
};

/// The node's key of all of them.
pub(crate) const NODE: Key = [0x5a; 32];

/// Of the fixed store, which `engine/tests/folders` made.
const GOLDEN_NODE: Key = [0x60; 32];

pub(crate) struct Encrypted {
    /// Keys were added since the last manifest.
    added: MemoryFiles,
    restored: MemoryFiles,
    spread: [MemoryFiles; 2],
    /// In the order in which they were made, and which one was erased.
    conversations: Vec<ConversationId>,
    erased: ConversationId,
    position: u64,
}

fn access() -> Access {
    Access::with_key(0, NodeKey::new(NODE), &MemoryRandom::new(9))
}

/// More conversations than a page has entries.
pub(crate) fn encrypted() -> Encrypted {
    let options = EngineOptions { encryption: Some(NodeKey::new(NODE)), ..small_options() };
    let mut lane = Lane::with_options(7, options);
    let mut conversations: Vec<_> = (0..60).map(|number| lane.create_direct("ann", &format!("user{number}"))).collect();
    lane.close().unwrap();
    let erased = conversations[40];
    assert_eq!(block_on(offline::erase(lane.files.clone(), 0, &[erased])).unwrap().erased, 1);
    lane = lane.opened_again(lane.files.clone()).unwrap();
    // One batch, and so one page, each: then both pages of a pair are whole.
    conversations.extend((60..63).map(|number| lane.create_direct("ann", &format!("user{number}"))));
    let position = lane.engine.position().0;
    lane.close().unwrap();
    let (restored, spread) = (MemoryFiles::new(1), [MemoryFiles::new(2), MemoryFiles::new(3)]);
    let random = MemoryRandom::new(8);
    block_on(async {
        let from = lane.files.clone();
        offline::restore(from, restored.clone(), access(), &random, Until::End, |_| ()).await.unwrap();
        let old = [lane.files.clone()];
        offline::spread_encrypted(&old, &spread, Some(&NodeKey::new(NODE)), &random, |_| ()).await.unwrap();
    });
    Encrypted { added: lane.files, restored, spread, conversations, erased, position }
}

fn node_id(node: &Key) -> u64 {
    let digest = Sha256::new().chain_update(b"antiphon node key\0").chain_update(node).finalize();
    u64::from_be_bytes(digest[..8].try_into().unwrap())
}

/// A store's number, its keys, and what its manifest says of keys and lanes.
fn keys_of(document: &Document, files: &MemoryFiles) -> Result<(u64, Keys, files::Blob), Fault> {
    let manifest = files::manifest(document, &files.contents("manifest").unwrap())?;
    let blob = files::blob(document, &manifest.blob)?;
    let keys = Keys::read(document, &files.contents("keys").unwrap(), &NODE)?;
    require!((keys.store, keys.node) == (manifest.store, node_id(&NODE)), "{:x} of {:x}", keys.store, keys.node);
    require!(blob.keys.is_some_and(|(generation, _)| generation == keys.generation), "{blob:?}");
    Ok((manifest.store, keys, blob))
}

pub(crate) fn compare_encrypted(document: &Document, expected: &Encrypted) -> Result<(), Fault> {
    let (store, added, blob) = keys_of(document, &expected.added)?;
    require!((added.origin, added.generation, blob.others_until) == (store, 2, None), "{:x} {blob:?}", added.origin);
    require!(blob.keys == Some((2, 60)), "{:?} when the manifest was written", blob.keys);
    let ids = added.entries.iter().map(|(id, _)| ConversationId(*id));
    require!(ids.eq(expected.conversations.iter().copied()), "keys of others, or in another order");
    for (id, key) in &added.entries {
        require!(key.is_none() == (*id == expected.erased.0), "{id:02x?}: erased, or not");
    }
    let (_, restored, blob) = keys_of(document, &expected.restored)?;
    require!(restored.store != store && restored.origin == store, "{:x} is of {:x}", restored.store, restored.origin);
    require!((blob.keys, blob.others_until) == (Some((2, 63)), None), "{blob:?}");
    require!(restored.entries == added.entries, "a restored store has other keys");
    for (lane, files) in (0..).zip(&expected.spread) {
        let (store, keys, blob) = keys_of(document, files)?;
        require!((keys.origin, blob.others_until) == (store, Some(expected.position)), "lane {lane}: {blob:?}");
        let entries = added.entries.iter().filter(|(id, _)| lane_of(ConversationId(*id), 2) == lane);
        let (mut all, mut found): (Vec<_>, _) = (entries.copied().collect(), keys.entries);
        all.sort_unstable();
        found.sort_unstable();
        require!(all == found && blob.keys == Some((1, all.len() as u64)), "lane {lane} has other keys: {blob:?}");
    }
    golden(document)
}

/// All of the fixed encrypted store opens.
fn golden(document: &Document) -> Result<(), Fault> {
    let place = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/store-v2-encrypted");
    let read = |name: &str| fs::read(format!("{place}/{name}")).unwrap();
    let keys = Keys::read(document, &read("keys"), &GOLDEN_NODE)?;
    require!(keys.node == node_id(&GOLDEN_NODE), "by another node's key");
    require!(keys.entries.iter().filter(|(_, key)| key.is_none()).count() == 1, "one was erased");
    let manifest = files::manifest(document, &read("manifest"))?;
    let blob = files::blob(document, &manifest.blob)?;
    require!(blob.keys == Some((keys.generation, keys.entries.len() as u64)), "{blob:?}");
    let (mut opened, mut erased) = (0, 0);
    for listed in &manifest.segments {
        for row in files::segment(document, &read(&format!("segment-{:016x}", listed.id)))?.rows {
            let is_sealed = document.sealing(&document.row(&row.0, None)?.0).is_some();
            match keys.row(document, row)? {
                Some((key, value)) => drop(document.row(&key, value.as_deref())?),
                None => erased += 1,
            }
            opened += u32::from(is_sealed);
        }
    }
    require!(opened > 40 && erased > 0, "{opened} rows were sealed, {erased} of them of what was erased");
    let log = fs::read_dir(place).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let log = log.filter(|name| name.starts_with("log-")).max().unwrap();
    let batches = files::log(document, &read(&log), Some(&keys))?;
    let records: usize = batches.iter().map(|batch| batch.records.len()).sum();
    require!(records > 10 && batches.iter().all(|batch| batch.salt == blob.salt), "{records} records");
    Ok(())
}
