//! What happens for a moment and is never stored: that somebody types, and whatever else an application wants those to know who are there.

use rkyv::{Archive, Deserialize, Serialize};
use serde::de::Error as _;
use serde_json::value::RawValue;

use crate::ids::{ConversationId, UserId};

/// `event`: tells the other members of a conversation who are online.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct SendEvent {
    /// Where.
    pub conversation: ConversationId,
    /// Its name, such as `typing`: 1 to 32 visible ASCII characters.
    pub event: String,
    /// What it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<JsonText>,
}

/// Answers `event`: it is on its way to whoever is there.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct EventSent {}

/// An event of another member.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct Event {
    /// Where.
    pub conversation: ConversationId,
    /// Whose.
    pub user: UserId,
    /// Its name.
    pub event: String,
    /// What it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<JsonText>,
}

/// One JSON value as text, without white space around it.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct JsonText(pub String);

impl JsonText {
    /// The value, if it is one.
    #[must_use]
    pub fn value(&self) -> Option<&RawValue> {
        let value: &RawValue = serde_json::from_str(&self.0).ok()?;
        (value.get().len() == self.0.len()).then_some(value)
    }
}

impl serde::Serialize for JsonText {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let value = self.value().ok_or_else(|| serde::ser::Error::custom("the data is not one JSON value"))?;
        value.serialize(serializer)
    }
}

impl<'de> serde::Deserialize<'de> for JsonText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Box::<RawValue>::deserialize(deserializer).map_err(D::Error::custom)?;
        Ok(Self(String::from(Box::<str>::from(value))))
    }
}

/// Whether a name can be an event's.
#[must_use]
pub fn is_event_name(name: &str) -> bool {
    (1..=crate::limits::EVENT_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_one_value_as_it_was_written() {
        let text = |text: &str| JsonText(text.to_owned());
        for one in ["null", "7", "{\"a\": [1, 2]}", "\"x\""] {
            let read: JsonText = serde_json::from_str(&format!("  {one}\n")).unwrap();
            assert_eq!((read.clone(), serde_json::to_string(&read).unwrap()), (text(one), one.to_owned()));
        }
        for none in ["", "1 2", " 1", "1 ", "{", "nul"] {
            assert_eq!(text(none).value().map(RawValue::get), None, "{none:?}");
        }
    }

    #[test]
    fn names_are_short_and_visible() {
        assert!(["typing", "x", "cursor.moved", &"x".repeat(32)].iter().all(|name| is_event_name(name)));
        assert!(["", "a b", "ü", "a\n", &"x".repeat(33)].iter().all(|name| !is_event_name(name)));
    }
}
