//! How one would lay conversations out in an engine that knows only sorted rows, and a [`Store`] made of that.
//!
//! One row a message, nothing else:
//!
//! ```text
//! key    conversation, 16 bytes (a UUID) | ordinal, 8 bytes, big-endian: the order of bytes is the order of messages
//! value  time, 8 bytes | the sender's name for the message, 16 bytes | sender, 8 bytes | text
//! ```
//!
//! The latest page is a walk backwards from the end of the conversation's range. This favours the others: ours keeps
//! members, read pointers, the index that makes repeated sends harmless and the last position of each conversation in
//! the same commit, which here would be two or three rows more a message.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};

use crate::{Ask, Data, Message, Page, Row, Store};

/// A key.
pub type Key = [u8; 24];

/// Bytes of a value before the text.
const HEAD_BYTES: usize = 32;

/// Bytes of a message's row, key and value.
#[must_use]
pub fn row_bytes(text_bytes: usize) -> usize {
    size_of::<Key>() + HEAD_BYTES + text_bytes
}

/// An engine of sorted rows.
pub trait Rows: Sized {
    /// Opens what a folder holds, or makes it.
    ///
    /// # Errors
    /// The engine's own.
    fn open(folder: &Path) -> anyhow::Result<Self>;

    /// Stores all rows or none; they are durable when it returns.
    ///
    /// # Errors
    /// The engine's own.
    fn commit(&mut self, rows: Vec<(Key, Vec<u8>)>) -> anyhow::Result<()>;

    /// The last `limit` rows from `from` on and below `below`, copied, in descending order.
    ///
    /// # Errors
    /// The engine's own.
    fn last(&mut self, from: &Key, below: &Key, limit: usize) -> anyhow::Result<Vec<(Vec<u8>, Vec<u8>)>>;

    /// Whether a file, by its name, is a log.
    fn is_log(name: &str) -> bool;

    /// Ends in order.
    ///
    /// # Errors
    /// The engine's own.
    fn close(self) -> anyhow::Result<()> {
        Ok(())
    }
}

/// Conversations in an engine of rows.
#[derive(Debug)]
pub struct General<R> {
    rows: R,
    data: Data,
}

impl<R: Rows> Store for General<R> {
    fn open(folder: &Path, data: &Data) -> anyhow::Result<Self> {
        Ok(Self { rows: R::open(folder)?, data: data.clone() })
    }

    fn append(&mut self, batches: &[Vec<Message>]) -> anyhow::Result<Vec<Duration>> {
        let mut took = Vec::with_capacity(batches.len());
        for batch in batches {
            let begin = Instant::now();
            let rows =
                batch.iter().map(|message| (key(&self.data, message.conversation, message.ordinal), value(message)));
            self.rows.commit(rows.collect())?;
            took.push(begin.elapsed());
        }
        Ok(took)
    }

    fn read(&mut self, asks: &[Ask]) -> anyhow::Result<Vec<Page>> {
        let page = |ask: &Ask| {
            let begin = Instant::now();
            let from = key(&self.data, ask.conversation, 0);
            let below = key(&self.data, ask.conversation, ask.before.unwrap_or(u64::MAX));
            let found = self.rows.last(&from, &below, ask.limit as usize)?;
            let took = begin.elapsed();
            let rows = found.iter().rev().map(|(key, value)| row(key, value)).collect::<anyhow::Result<_>>()?;
            Ok(Page { took, rows })
        };
        asks.iter().map(page).collect()
    }

    fn is_log(name: &str) -> bool {
        R::is_log(name)
    }

    fn close(self) -> anyhow::Result<()> {
        self.rows.close()
    }
}

fn key(data: &Data, conversation: u32, ordinal: u64) -> Key {
    let mut key = [0; 24];
    key[..16].copy_from_slice(&data.conversation_id(conversation));
    key[16..].copy_from_slice(&ordinal.to_be_bytes());
    key
}

fn value(message: &Message) -> Vec<u8> {
    let mut value = Vec::with_capacity(HEAD_BYTES + message.text.len());
    value.extend(message.time_ms.to_le_bytes());
    value.extend(message.id);
    value.extend(message.sender.to_le_bytes());
    value.extend(message.text.as_bytes());
    value
}

fn row(key: &[u8], value: &[u8]) -> anyhow::Result<Row> {
    ensure!(key.len() == size_of::<Key>() && value.len() >= HEAD_BYTES, "a row that was never written");
    let ordinal = u64::from_be_bytes(key[16..].try_into().context("eight bytes")?);
    let id = value[8..24].try_into().context("sixteen bytes")?;
    let text = std::str::from_utf8(&value[HEAD_BYTES..]).context("a text")?;
    Ok(Row { ordinal, id, text: text.to_owned() })
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Rows in memory.
    #[derive(Debug, Default)]
    pub(crate) struct Memory(pub(crate) BTreeMap<Vec<u8>, Vec<u8>>);

    impl Rows for Memory {
        fn open(_: &Path) -> anyhow::Result<Self> {
            Ok(Self::default())
        }

        fn commit(&mut self, rows: Vec<(Key, Vec<u8>)>) -> anyhow::Result<()> {
            self.0.extend(rows.into_iter().map(|(key, value)| (key.to_vec(), value)));
            Ok(())
        }

        fn last(&mut self, from: &Key, below: &Key, limit: usize) -> anyhow::Result<Vec<(Vec<u8>, Vec<u8>)>> {
            let range = self.0.range(from.to_vec()..below.to_vec()).rev().take(limit);
            Ok(range.map(|(key, value)| (key.clone(), value.clone())).collect())
        }

        fn is_log(_: &str) -> bool {
            false
        }
    }

    #[test]
    fn pages_are_the_last_messages_below_an_ordinal() {
        let data = Data { seed: 1, conversations: 3, text_bytes: 20 };
        let mut store = General { rows: Memory::default(), data: data.clone() };
        let messages: Vec<Message> = data.stream().take(300).collect();
        store.append(std::slice::from_ref(&messages)).unwrap();
        assert!(store.rows.0.iter().all(|(key, value)| key.len() + value.len() == row_bytes(20)));
        let last = messages.iter().filter(|message| message.conversation == 1).map(|message| message.ordinal).max();
        let ordinals = |before, limit| -> Vec<u64> {
            let asks = [Ask { conversation: 1, before, limit }];
            let mut store = General { rows: Memory(store.rows.0.clone()), data: data.clone() };
            store.read(&asks).unwrap().remove(0).rows.iter().map(|row| row.ordinal).collect()
        };
        let last = last.unwrap();
        assert_eq!(ordinals(None, 3), [last - 2, last - 1, last]);
        assert_eq!(ordinals(Some(10), 3), [7, 8, 9]);
        assert_eq!(ordinals(Some(3), 5), [1, 2]);
    }
}
