//! Account data of a user: what is set by which entry, as rows, and as entries make it.
//!
//! ```text
//! account   sequence u64 · position u64 · time u64 · value …     of the entry that set the key; the value is JSON
//! ```
//! The place of that entry stands in the row, so that what takes its place when the key is set anew can be written without reading it.
//! [`AccountData::take`] is the one function that says what an entry does: to the state that commands are judged by, and to what stores are
//! made and verified by. Must not do: judge what may be set.

use std::{collections::BTreeMap, sync::Arc};

use antiphon_wire::{
    frame::{AccountChange, AccountItem, Entry, EntryKind, JsonText, is_account_key},
    ids::{ClientMessageId, ConversationId, Epoch, LanePosition, Ordinal, Sequence, TimestampMs, UserId},
    limits::ACCOUNT_VALUE_BYTES_MAX,
};

use crate::{bytes::Reader, changes::ChangedRow, keys, rows::TailRow};

/// What a key costs in memory beside its own bytes and the value's, roughly.
const ITEM_BYTES: usize = 120;

/// What is set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct AccountData {
    items: BTreeMap<Arc<str>, ItemRow>,
    /// Of keys and values.
    bytes: usize,
}

/// What is set under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ItemRow {
    /// The entry that set it, and where that stands.
    pub(crate) sequence: Sequence,
    pub(crate) position: LanePosition,
    pub(crate) time: TimestampMs,
    pub(crate) value: Arc<str>,
}

impl ItemRow {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(24 + self.value.len());
        bytes.extend(self.sequence.0.to_le_bytes());
        bytes.extend(self.position.0.to_le_bytes());
        bytes.extend(self.time.0.to_le_bytes());
        bytes.extend(self.value.as_bytes());
        bytes
    }

    /// Reads the row of a key.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let (sequence, position, time) =
            (Sequence(reader.u64()?), LanePosition(reader.u64()?), TimestampMs(reader.u64()?));
        let value = JsonText(std::str::from_utf8(reader.rest()).ok()?.to_owned());
        let is_value = value.0.len() <= ACCOUNT_VALUE_BYTES_MAX && value.0 != "null" && value.value().is_some();
        (is_value && sequence.0 > 0).then(|| Self { sequence, position, time, value: value.0.into() })
    }

    /// The row of the entry that set the key, when that is set no more: the entry says then that the key was taken away, since what it was is
    /// nobody's business any more and would be kept for nothing.
    pub(crate) fn superseded(&self, key: &str, of: (ConversationId, Epoch), user: &UserId) -> ChangedRow {
        let entry = Entry {
            conversation: of.0,
            epoch: of.1,
            sequence: self.sequence,
            ordinal: Ordinal(0),
            time_ms: self.time,
            kind: EntryKind::AccountData,
            client_message_id: ClientMessageId([0; 16]),
            sender: user.clone(),
            body: AccountChange { key: key.to_owned(), value: None }.to_body(),
        };
        ChangedRow::entry(self.sequence, self.position, &entry.to_archive())
    }
}

impl AccountData {
    pub(crate) fn get(&self, key: &str) -> Option<&ItemRow> {
        self.items.get(key)
    }

    /// How many keys are set.
    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    /// Of keys and values.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// In memory, roughly.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.bytes + self.items.len() * ITEM_BYTES
    }

    /// All keys, in their order.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.items.keys().map(|key| &**key)
    }

    /// What is set under keys after this one, in their order.
    pub(crate) fn after(&self, after: Option<&str>) -> impl Iterator<Item = AccountItem> {
        let is_after = move |(key, _): &(&Arc<str>, &ItemRow)| after.is_none_or(|after| &***key > after);
        self.items.iter().filter(is_after).map(|(key, row)| AccountItem {
            key: key.to_string(),
            value: JsonText(row.value.to_string()),
            sequence: row.sequence,
            time_ms: row.time,
        })
    }

    /// Does what an entry at `at` does, and gives the row that follows from it.
    pub(crate) fn take(&mut self, change: AccountChange, at: &TailRow) -> ChangedRow {
        let AccountChange { key, value } = change;
        let suffix = keys::account_suffix(&key);
        let Some(value) = value else {
            self.unset(&key);
            return ChangedRow { suffix, value: None };
        };
        let row = ItemRow { sequence: at.sequence, position: at.position, time: at.time, value: value.0.into() };
        let bytes = row.encode();
        self.load(key, row);
        ChangedRow::new(suffix, bytes)
    }

    /// Takes in a row by which the state is loaded.
    pub(crate) fn load(&mut self, key: String, row: ItemRow) {
        self.unset(&key);
        self.bytes += key.len() + row.value.len();
        self.items.insert(key.into(), row);
    }

    /// Takes in that there is no row.
    pub(crate) fn unset(&mut self, key: &str) {
        if let Some(row) = self.items.remove(key) {
            self.bytes -= key.len() + row.value.len();
        }
    }
}

/// The key of a row, if it can be one.
pub(crate) fn key_of(bytes: &[u8]) -> Option<String> {
    let key = std::str::from_utf8(bytes).ok()?;
    is_account_key(key).then(|| key.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(sequence: u64) -> TailRow {
        let (position, time) = (LanePosition(100 + sequence), TimestampMs(9));
        TailRow { position, sequence: Sequence(sequence), ordinal: Ordinal(0), time }
    }

    fn change(key: &str, value: Option<&str>) -> AccountChange {
        AccountChange { key: key.to_owned(), value: value.map(|value| JsonText(value.to_owned())) }
    }

    #[test]
    fn keys_are_rows_while_they_are_set() {
        let mut data = AccountData::default();
        let suffix = b"\x03\x07theme".to_vec();
        let row = data.take(change("theme", Some("\"dark\"")), &at(2));
        let value = b"\x02\0\0\0\0\0\0\0\x66\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0\"dark\"".to_vec();
        assert_eq!(row, ChangedRow::new(suffix.clone(), value.clone()));
        assert_eq!(ItemRow::decode(&value).as_ref(), data.get("theme"));
        assert_eq!((data.len(), data.bytes()), (1, 11));
        data.take(change("theme", Some("1")), &at(3));
        data.take(change("a", Some("2")), &at(4));
        assert_eq!((data.len(), data.bytes()), (2, 8));
        let items: Vec<_> = data.after(Some("a")).map(|item| (item.key, item.value.0, item.sequence.0)).collect();
        assert_eq!(items, [("theme".to_owned(), "1".to_owned(), 3)]);
        assert_eq!(data.take(change("theme", None), &at(5)), ChangedRow { suffix, value: None });
        data.take(change("a", None), &at(6));
        assert_eq!(data, AccountData::default());
    }

    #[test]
    fn bytes_that_are_no_row_are_refused() {
        let row = |value: &str| [&[1, 0, 0, 0, 0, 0, 0, 0][..], &[0; 16], value.as_bytes()].concat();
        assert!(ItemRow::decode(&row("7")).is_some());
        for wrong in [row(""), row("{"), row("null"), row(" 7"), row("7")[1..].to_vec(), [&[0; 24][..], b"7"].concat()]
        {
            assert_eq!(ItemRow::decode(&wrong), None, "{wrong:?}");
        }
        assert_eq!(key_of(b"draft:x").as_deref(), Some("draft:x"));
        assert!(key_of(b"").is_none() && key_of(b"a b").is_none() && key_of(&[b'x'; 129]).is_none());
    }
}
