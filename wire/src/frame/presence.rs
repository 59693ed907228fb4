//! Who is there. A client asks about the users that it is looking at, and hears of their coming and going for as long as it is connected.
//!
//! Who may see that is the user's own to say, by a key of account data, [`PRESENCE_KEY`]. A user who may not be seen looks as one does who is
//! not there.

use rkyv::{Archive, Deserialize, Serialize};

use super::{DEVICES_KEY, Each, JsonText};
use crate::ids::{TimestampMs, UserId};

/// What keys of account data begin with whose meaning the server knows: they are set by clients as all others are, and hold what is named here.
pub const SERVER_KEYS: &str = "antiphon.";

/// The key of account data that says who may see whether the user is there: a [`PresenceRule`].
pub const PRESENCE_KEY: &str = "antiphon.presence";

/// The key of account data that says who the user's contacts are: [`Contacts`].
pub const CONTACTS_KEY: &str = "antiphon.contacts";

/// Key of account data that says whether a user gives receipts, and is given others'.
pub const RECEIPTS_KEY: &str = "antiphon.receipts";

/// All keys of account data that have a meaning for the server, in order.
pub const SERVER_KEYS_KNOWN: [&str; 4] = [CONTACTS_KEY, DEVICES_KEY, PRESENCE_KEY, RECEIPTS_KEY];

/// `presence`: begins to tell of some users, and stops to tell of others.
#[derive(
    Debug, Clone, Default, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize,
)]
pub struct WatchPresence {
    /// From now on.
    #[serde(default, deserialize_with = "crate::json::absent_if_null", skip_serializing_if = "Vec::is_empty")]
    #[rkyv(with = Each)]
    pub watch: Vec<UserId>,
    /// Not any more.
    #[serde(default, deserialize_with = "crate::json::absent_if_null", skip_serializing_if = "Vec::is_empty")]
    #[rkyv(with = Each)]
    pub unwatch: Vec<UserId>,
}

/// Answers `presence`.
#[derive(
    Debug, Clone, Default, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize,
)]
pub struct PresenceAnswer {
    /// Those in `watch`, as they are now.
    #[rkyv(with = Each)]
    pub users: Vec<UserPresence>,
    /// How many users this connection is told of now.
    pub watching: u32,
}

/// Users have come or gone.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct Present {
    /// Those that it is about, as they are now.
    #[rkyv(with = Each)]
    pub users: Vec<UserPresence>,
}

/// Whether a user is there, as far as the one may see who is told.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct UserPresence {
    /// Who.
    pub user: UserId,
    /// Whether a device of theirs is connected.
    pub online: bool,
    /// If not, when the last one went; left out if that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen_ms: Option<TimestampMs>,
}

/// Who may see whether a user is there: the value of [`PRESENCE_KEY`]. Without one everybody may.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PresenceRule {
    /// To whom it is shown.
    pub to: Audience,
    /// And to these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<UserId>,
    /// But to none of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<UserId>,
}

/// Whether a user gives receipts: the value of [`RECEIPTS_KEY`]. Without one they are on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptsRule {
    /// If not, nobody else is told how far the user has read, and the user is not told of others.
    pub on: bool,
}

/// A number of people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Audience {
    /// All of them.
    Everyone,
    /// The user's [`Contacts`].
    Contacts,
    /// None.
    Nobody,
}

/// Who a user's contacts are: the value of [`CONTACTS_KEY`].
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contacts {
    /// All of them.
    pub users: Vec<UserId>,
}

/// What is wrong with a value for a key of the server's; `None` if nothing is, or the key is not one of those.
#[must_use]
pub fn misfit(key: &str, value: Option<&JsonText>) -> Option<String> {
    key.starts_with(SERVER_KEYS).then_some(())?;
    if key == DEVICES_KEY {
        return Some(format!("{key} is changed by devices alone"));
    }
    let JsonText(value) = value?;
    let fits = match key {
        PRESENCE_KEY => serde_json::from_str::<PresenceRule>(value).map(drop),
        CONTACTS_KEY => serde_json::from_str::<Contacts>(value).map(drop),
        RECEIPTS_KEY => serde_json::from_str::<ReceiptsRule>(value).map(drop),
        _ => return Some(format!("keys that begin with {SERVER_KEYS} are the server's, and {key} is none of them")),
    };
    fits.err().map(|error| format!("value of {key}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_knows_what_its_keys_hold() {
        let wrong = |key: &str, value: &str| misfit(key, Some(&JsonText(value.to_owned())));
        for (key, value) in [
            (PRESENCE_KEY, r#"{"to":"everyone"}"#),
            (PRESENCE_KEY, r#"{"to":"contacts","allow":["bob"],"deny":["carol"]}"#),
            (CONTACTS_KEY, r#"{"users":[]}"#),
            (RECEIPTS_KEY, r#"{"on":false}"#),
            ("antiphonal", "1"),
            ("draft:x", "[]"),
        ] {
            assert_eq!(wrong(key, value), None, "{key} {value}");
        }
        for (key, value) in [
            (PRESENCE_KEY, "1"),
            (PRESENCE_KEY, "{}"),
            (PRESENCE_KEY, r#"{"to":"some"}"#),
            (PRESENCE_KEY, r#"{"to":"nobody","but":["bob"]}"#),
            (PRESENCE_KEY, r#"{"to":"nobody","allow":["b b"]}"#),
            (CONTACTS_KEY, r#"{"users":"bob"}"#),
            (RECEIPTS_KEY, "false"),
            ("antiphon.other", "1"),
        ] {
            assert!(wrong(key, value).is_some(), "{key} {value}");
        }
        let mut known = SERVER_KEYS_KNOWN;
        known.sort_unstable();
        assert_eq!(known, SERVER_KEYS_KNOWN, "in the order in which they are kept");
        for key in known {
            let is_known = wrong(key, "1").is_some_and(|text| !text.contains("none of them"));
            assert!(is_known && key.starts_with(SERVER_KEYS), "{key}");
        }
        assert_eq!(misfit(PRESENCE_KEY, None), None, "it can be taken away");
        assert!(misfit(DEVICES_KEY, None).is_some(), "who is logged out is not logged in by that");
    }
}
