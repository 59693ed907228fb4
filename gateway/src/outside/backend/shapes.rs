//! Which fields a body has, so that one that is not known is refused: the protocol passes such fields over, for clients of later versions, but
//! here it is a mistake that its author wants to hear of.
//!
//! Must not do: look at values; the protocol's own reading does.

use serde_json::Value;

/// What stands at a place of a body.
#[derive(Debug)]
pub(super) enum Shape {
    /// Whatever the protocol takes there.
    Value,
    /// An object with no other fields than these.
    Object(&'static [(&'static str, Shape)]),
    /// A list of these.
    List(&'static Shape),
}

use Shape::{List, Object, Value as Any};

/// Of what a message says.
macro_rules! content {
    ($($name:literal)*) => {
        Object(&[
            $(($name, Any),)*
            ("text", Any),
            ("content_type", Any),
            ("data", Any),
            ("json", Any),
            ("mentions", List(&Any)),
            ("everybody", Any),
            ("reply_to", Any),
            ("thread", Any),
            ("forwarded", Object(&[("conversation", Any), ("sequence", Any)])),
        ])
    };
}

pub(super) const TOKEN: Shape = Object(&[("user", Any), ("device", Any), ("life_ms", Any)]);
pub(super) const CREATE: Shape =
    Object(&[("direct", Any), ("group", Object(&[("key", Any), ("title", Any), ("members", List(&Any))]))]);
pub(super) const TITLE: Shape = Object(&[("title", Any)]);
pub(super) const SEND: Shape = content!("client_message_id");
pub(super) const EDIT: Shape = content!("client_message_id");
pub(super) const ADD: Shape = Object(&[("add", List(&Any))]);
pub(super) const ROLES: Shape = Object(&[("set", List(&Object(&[("user", Any), ("role", Any)])))]);
pub(super) const REACT: Shape = Object(&[("client_message_id", Any), ("reaction", Any), ("on", Any)]);
pub(super) const PIN: Shape = Object(&[("client_message_id", Any), ("on", Any)]);
pub(super) const READ: Shape = Object(&[("sequence", Any)]);
pub(super) const INVITE: Shape = Object(&[("expires_in_s", Any), ("uses", Any)]);
pub(super) const ACCOUNT: Shape = Object(&[("key", Any), ("value", Any), ("if_sequence", Any)]);
pub(super) const SETTINGS: Shape = Object(&[
    ("description", Any),
    ("picture", Any),
    ("history", Any),
    ("send", Any),
    ("add", Any),
    ("remove", Any),
    ("info", Any),
    ("pin", Any),
    ("everybody", Any),
]);

impl Shape {
    /// Whether a body has this shape; if not, what about it has not.
    pub(super) fn check(&self, value: &Value) -> Result<(), String> {
        match (self, value) {
            (Object(fields), Value::Object(object)) => {
                object.iter().try_for_each(|(name, value)| match fields.iter().find(|(known, _)| known == name) {
                    Some((_, shape)) => shape.check(value),
                    None => {
                        let known = fields.iter().map(|(known, _)| *known).collect::<Vec<_>>().join(", ");
                        let name: String = name.chars().take(40).collect();
                        Err(format!("unknown field {name:?}; there are {known}"))
                    }
                })
            }
            (Object(_), Value::Array(_)) => Err("a list stands where an object belongs".to_owned()),
            (List(shape), Value::Array(items)) => items.iter().try_for_each(|item| shape.check(item)),
            // The protocol's own reading knows what belongs there, and what null means.
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_known_is_refused_at_every_level() {
        for (shape, good) in [
            (&CREATE, json!({"group": {"key": "k", "title": "t", "members": ["a"]}})),
            (&CREATE, json!({"direct": "bob", "group": null})),
            (
                &SEND,
                json!({"text": "hi", "json": {"anything": [{}]}, "forwarded": {"conversation": "c", "sequence": 1}}),
            ),
            (&ROLES, json!({"set": [{"user": "a", "role": "admin"}]})),
            (&TITLE, json!({"title": 7})),
        ] {
            assert_eq!(shape.check(&good), Ok(()), "{good}");
        }
        for (shape, bad) in [
            (&CREATE, json!({"group": {"key": "k", "titel": "t"}})),
            (&CREATE, json!({"group": ["k", "t", []]})),
            (&SEND, json!({"clientMessageId": "x"})),
            (&SEND, json!({"forwarded": {"conversation": "c", "sequence": 1, "x": 1}})),
            (&ROLES, json!({"set": [{"user": "a", "role": "admin", "x": 1}]})),
            (&ROLES, json!({"set": [["a", "admin"]]})),
            (&TITLE, json!(["title"])),
        ] {
            assert!(shape.check(&bad).is_err(), "{bad}");
        }
    }
}
