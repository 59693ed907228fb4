//! Account data: what a user's applications keep for the user on all devices, by key: drafts, what is muted, settings.
//!
//! It is in a conversation of its own, the user's account ([`ConversationId::account`](crate::ids::ConversationId::account)), whose only member is
//! the user; so it is ordered, pushed and resumed as everything else. Body of its entries:
//!
//! ```text
//! account data   length u8 · key · value …     one JSON value but null; none: the key is not set any more
//! ```
//! Must not do: know what a key means.

use rkyv::{Archive, Deserialize, Serialize};

use super::{EachIfAny, EntryError, JsonText};
use crate::{
    ids::{ConversationId, Epoch, Sequence, TimestampMs},
    limits::{ACCOUNT_KEY_BYTES_MAX, ACCOUNT_VALUE_BYTES_MAX},
};

/// The body of an [`EntryKind::AccountData`](super::EntryKind::AccountData) entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountChange {
    /// Of what.
    pub key: String,
    /// What it is now; `None` if it is not set any more.
    pub value: Option<JsonText>,
}

impl AccountChange {
    /// The body's bytes.
    #[must_use]
    pub fn to_body(&self) -> Vec<u8> {
        let value = self.value.as_ref().map_or("", |value| &value.0);
        let mut body = Vec::with_capacity(1 + self.key.len() + value.len());
        body.push(self.key.len() as u8);
        body.extend(self.key.as_bytes());
        body.extend(value.as_bytes());
        body
    }

    /// Reads such a body.
    ///
    /// # Errors
    /// [`EntryError::Account`] if it does not have its form.
    pub fn from_body(body: &[u8]) -> Result<Self, EntryError> {
        let (length, rest) = body.split_first().ok_or(EntryError::Account)?;
        let (key, value) = rest.split_at_checked(usize::from(*length)).ok_or(EntryError::Account)?;
        let text = |bytes| std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| EntryError::Account);
        let (key, value) = (text(key)?, Some(JsonText(text(value)?)).filter(|value| !value.0.is_empty()));
        let is_value = |JsonText(text): &JsonText| text != "null" && text.len() <= ACCOUNT_VALUE_BYTES_MAX;
        let is_value = |value: &JsonText| is_value(value) && value.value().is_some();
        let fits = is_account_key(&key) && value.as_ref().is_none_or(is_value);
        if fits { Ok(Self { key, value }) } else { Err(EntryError::Account) }
    }
}

/// Whether a text can be a key of account data.
#[must_use]
pub fn is_account_key(key: &str) -> bool {
    (1..=ACCOUNT_KEY_BYTES_MAX).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic())
}

/// `account`: sets what is kept under a key, or lists what is kept.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "AccountFields")]
pub struct Account {
    /// Exactly one of these stands here in JSON.
    #[serde(flatten)]
    pub action: AccountAction,
}

/// What `account` does.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AccountAction {
    /// Sets a key, or takes it away.
    Set(SetAccount),
    /// Lists keys in their order.
    List(AccountPage),
}

/// What to set.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct SetAccount {
    /// Of what: 1 to 128 visible ASCII characters.
    pub key: String,
    /// From now on; left out or null, the key is not set any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<JsonText>,
    /// Only if the key was last set by the entry at this sequence, or, if 0, is not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_sequence: Option<Sequence>,
}

/// Which page of account data.
#[derive(
    Debug, Clone, Default, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize,
)]
pub struct AccountPage {
    /// Only keys after this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// At most so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// [`Account`] as JSON has it: two actions at once are refused, other fields ignored.
#[derive(serde::Deserialize)]
struct AccountFields {
    set: Option<SetAccount>,
    list: Option<AccountPage>,
}

impl TryFrom<AccountFields> for Account {
    type Error = &'static str;

    fn try_from(fields: AccountFields) -> Result<Self, Self::Error> {
        let action = match (fields.set, fields.list) {
            (Some(set), None) => AccountAction::Set(set),
            (None, Some(list)) => AccountAction::List(list),
            _ => return Err("account needs exactly one of set and list"),
        };
        Ok(Self { action })
    }
}

/// What is kept under a key.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct AccountItem {
    /// Of what.
    pub key: String,
    /// What it is.
    pub value: JsonText,
    /// The entry that set it.
    pub sequence: Sequence,
    /// When that was.
    pub time_ms: TimestampMs,
}

/// Answers `account`.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct AccountAnswer {
    /// The user's account: entries of this conversation are changes of account data.
    pub conversation: ConversationId,
    /// Its log's incarnation.
    pub epoch: Epoch,
    /// To `set`: of the change, or of the one that set the same value before. To `list`: of the last change that the page knows, 0 if
    /// there was none.
    pub sequence: Sequence,
    /// To `set`: the entry that set the key before; left out if it was not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced: Option<Sequence>,
    /// To `list`: the page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[rkyv(with = EachIfAny)]
    pub items: Option<Vec<AccountItem>>,
    /// To `list`: what to give as `after` for the next page, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_have_one_form() {
        let change = |key: &str, value: Option<&str>| AccountChange {
            key: key.to_owned(),
            value: value.map(|value| JsonText(value.to_owned())),
        };
        for one in [change("draft:x", Some(r#"{"text":"Hi"}"#)), change("k", Some("7")), change("k", None)] {
            assert_eq!(AccountChange::from_body(&one.to_body()), Ok(one));
        }
        let key = |length: usize| "k".repeat(length);
        let long = |length: usize| format!("\"{}\"", "x".repeat(length - 2));
        assert!(AccountChange::from_body(&change(&key(128), Some(&long(ACCOUNT_VALUE_BYTES_MAX))).to_body()).is_ok());
        for wrong in [
            Vec::new(),
            vec![3, b'k'],
            b"\x00{}".to_vec(),
            b"\x01k{".to_vec(),
            b"\x01k 1".to_vec(),
            b"\x01knull".to_vec(),
            b"\x01k\xff".to_vec(),
            "\x02ü1".as_bytes().to_vec(),
            change("a b", Some("1")).to_body(),
            change(&key(129), Some("1")).to_body(),
            change("k", Some(&long(ACCOUNT_VALUE_BYTES_MAX + 1))).to_body(),
        ] {
            assert_eq!(AccountChange::from_body(&wrong), Err(EntryError::Account), "{wrong:?}");
        }
    }
}
