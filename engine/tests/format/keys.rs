//! The file of an encrypted store's data keys, taken apart by the document, and what opens by them.
//!
//! Must not do: use the engine's decoders.

use std::collections::BTreeMap;

use crate::{
    files::{PAGE, Row, version_one},
    tables::{Document, Fault, NOTHING, require},
};

/// A node's key.
pub(crate) type Key = [u8; 32];

/// Entries of a full page.
const PAGE_ENTRIES: usize = 50;

#[derive(Debug)]
pub(crate) struct Keys {
    pub(crate) store: u64,
    pub(crate) origin: u64,
    pub(crate) generation: u64,
    /// The node key's id.
    pub(crate) node: u64,
    /// Data keys in the order of the file; none of a conversation that was erased.
    pub(crate) entries: Vec<([u8; 16], Option<Key>)>,
    by_conversation: BTreeMap<[u8; 16], Key>,
}

impl Keys {
    pub(crate) fn read(document: &Document, file: &[u8], node: &Key) -> Result<Self, Fault> {
        let first = document.decode("First page", file.get(..PAGE).unwrap_or_default(), NOTHING)?;
        version_one(&first)?;
        require!(first.bytes("magic")?.ends_with(b"KEYS") && first.end == PAGE, "a first page of {}", first.end);
        let generation = first.number("generation")?;
        let (mut entries, mut before, mut has_ended) = (Vec::new(), 0, false);
        for (number, pair) in (0..).zip(file[PAGE..].chunks(2 * PAGE)) {
            let mut counts: Option<Page> = None;
            for page in pair.chunks(PAGE).filter(|page| page.iter().any(|byte| *byte != 0)) {
                require!(!has_ended, "pair {number} is behind the end");
                let page = Page::read(document, page)?;
                let place = (page.pair, page.generation, page.before);
                require!(place == (number, generation, before), "{place:?} of pair {number}");
                if counts.as_ref().is_none_or(|other| other.entries.len() < page.entries.len()) {
                    counts = Some(page);
                }
            }
            let is_full = counts.as_ref().is_some_and(|page| page.entries.len() == PAGE_ENTRIES);
            has_ended |= !is_full;
            if let Some(page) = counts {
                before = page.checksum;
                entries.extend(page.entries);
            }
        }
        let origin = first.bytes("origin")?;
        let mut by_conversation = BTreeMap::new();
        let mut opened = Vec::with_capacity(entries.len());
        for (conversation, content) in entries {
            let mut key = None;
            if let Some(content) = content {
                let given = [("origin", origin), ("conversation", &conversation[..])];
                let bytes = open(document, "data key", ("the node's key", node), &content, &given)?;
                let bytes: Key = bytes.try_into().map_err(|_| "a data key has not 32 bytes")?;
                require!(by_conversation.insert(conversation, bytes).is_none(), "two keys of {conversation:02x?}");
                key = Some(bytes);
            }
            opened.push((conversation, key));
        }
        Ok(Self {
            store: first.number("store")?,
            origin: first.number("origin")?,
            generation,
            node: first.number("node key")?,
            entries: opened,
            by_conversation,
        })
    }

    fn of(&self, conversation: &[u8; 16]) -> Result<&Key, Fault> {
        self.by_conversation.get(conversation).ok_or_else(|| format!("no key of {conversation:02x?}"))
    }

    /// A sealed record's payload, opened.
    pub(crate) fn record(
        &self,
        document: &Document,
        payload: &[u8],
        salt: &[u8],
        position: u64,
    ) -> Result<Vec<u8>, Fault> {
        let fields = document.decode("Sealed", payload, NOTHING)?;
        let conversation = fields.id("conversation")?;
        let position = position.to_le_bytes();
        let given = [("salt", salt), ("position", &position[..]), ("conversation", &conversation[..])];
        let key = ("the conversation's key", self.of(&conversation)?);
        open(document, "record", key, fields.bytes("content")?, &given)
    }

    /// A segment's row, opened if rows of its kind are sealed; `None` for one of a conversation that was erased.
    pub(crate) fn row(&self, document: &Document, (key, value): Row) -> Result<Option<Row>, Fault> {
        let (name, fields, _) = document.row(&key, None)?;
        let (Some(stored), true) = (&value, document.sealing(&name).is_some()) else { return Ok(Some((key, value))) };
        let conversation = fields.get("conversation").and_then(|id| <[u8; 16]>::try_from(id.as_slice()).ok());
        let conversation = conversation.ok_or_else(|| format!("{name}: of no conversation"))?;
        if self.entries.contains(&(conversation, None)) {
            return Ok(None);
        }
        let by = ("the conversation's key", self.of(&conversation)?);
        let value = open(document, &name, by, stored, &[("key", &key)])?;
        Ok(Some((key, Some(value))))
    }
}

fn open(
    document: &Document,
    what: &str,
    key: (&str, &Key),
    stored: &[u8],
    given: &[(&str, &[u8])],
) -> Result<Vec<u8>, Fault> {
    let sealing = document.sealing(what).ok_or_else(|| format!("nobody knows how a {what} is sealed"))?;
    sealing.open(key, stored, given).map_err(|fault| format!("{what}: {fault}"))
}

/// One page of a pair.
struct Page {
    pair: u64,
    generation: u64,
    before: u64,
    checksum: u64,
    /// With their content; none of what was erased.
    entries: Vec<([u8; 16], Option<Vec<u8>>)>,
}

impl Page {
    fn read(document: &Document, page: &[u8]) -> Result<Self, Fault> {
        let fields = document.decode("A page of a pair", page, NOTHING)?;
        require!(fields.bytes("magic")? == b"ANTIKEYP" && fields.end == PAGE, "no page of keys");
        let mut entries = Vec::new();
        let mut rest = fields.bytes("entries")?;
        while !rest.is_empty() {
            let one = document.decode("One key", rest, NOTHING)?;
            let content = one.bytes("content")?;
            let content = match one.number("kind")? {
                1 => Some(content.to_vec()),
                2 if content.iter().all(|byte| *byte == 0) => None,
                kind => return Err(format!("a key of kind {kind}: {content:02x?}")),
            };
            entries.push((one.id("conversation")?, content));
            rest = &rest[one.end..];
        }
        require!(fields.number("count")? == entries.len() as u64, "a page has {} entries", entries.len());
        require!((1..=PAGE_ENTRIES).contains(&entries.len()), "a page of {} entries", entries.len());
        Ok(Self {
            pair: fields.number("pair")?,
            generation: fields.number("generation")?,
            before: fields.number("before")?,
            checksum: fields.number("checksum")?,
            entries,
        })
    }
}
