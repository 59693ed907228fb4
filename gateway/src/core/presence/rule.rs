//! Who may see whether a user is there, as the user's account says.
#![allow(missing_docs, reason = "rkyv's derive makes undocumented twins of fields")]

use antiphon_wire::{
    frame::{AccountItem, Audience, CONTACTS_KEY, Contacts, PRESENCE_KEY, PresenceRule},
    ids::UserId,
};
use rkyv::{Archive, Deserialize, Serialize};

/// A user's rule, with the contacts that it speaks of.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Rule {
    /// To everybody but those who are denied; otherwise to those who are allowed, but for these.
    everyone: bool,
    /// Users in order, of whom some may be denied: contacts, and those allowed by name.
    allow: Vec<UserId>,
    deny: Vec<UserId>,
}

impl Rule {
    /// Nobody may see the user.
    pub(crate) const fn nobody() -> Self {
        Self { everyone: false, allow: Vec::new(), deny: Vec::new() }
    }

    /// Whether everybody may see the user.
    pub(crate) fn is_open(&self) -> bool {
        self.everyone && self.deny.is_empty()
    }

    /// What account data says. Without a rule everybody may see the user; nobody may if there is one that this program does not understand.
    pub(crate) fn of(items: &[AccountItem]) -> Self {
        let value = |key: &str| items.iter().find(|item| item.key == key).map(|item| item.value.0.as_str());
        let of = |to| PresenceRule { to, allow: Vec::new(), deny: Vec::new() };
        let understood = |value| serde_json::from_str(value).unwrap_or_else(|_| of(Audience::Nobody));
        let PresenceRule { to, mut allow, mut deny } =
            value(PRESENCE_KEY).map_or_else(|| of(Audience::Everyone), understood);
        if to == Audience::Contacts {
            let contacts = value(CONTACTS_KEY).and_then(|value| serde_json::from_str::<Contacts>(value).ok());
            allow.extend(contacts.unwrap_or_default().users);
        }
        for users in [&mut allow, &mut deny] {
            users.sort_unstable();
            users.dedup();
        }
        let everyone = to == Audience::Everyone;
        if everyone {
            allow.clear();
        }
        Self { everyone, allow, deny }
    }

    /// Whether somebody else may see the user.
    pub(crate) fn allows(&self, observer: &UserId) -> bool {
        let is_named = |users: &[UserId]| users.binary_search(observer).is_ok();
        !is_named(&self.deny) && (self.everyone || is_named(&self.allow))
    }
}

#[cfg(test)]
mod tests {
    use antiphon_wire::{
        frame::JsonText,
        ids::{Sequence, TimestampMs},
    };

    use super::*;

    fn rule(items: &[(&str, &str)]) -> Rule {
        let item = |(key, value): &(&str, &str)| AccountItem {
            key: (*key).to_owned(),
            value: JsonText((*value).to_owned()),
            sequence: Sequence(1),
            time_ms: TimestampMs(1),
        };
        Rule::of(&items.iter().map(item).collect::<Vec<_>>())
    }

    fn allowed(rule: &Rule) -> String {
        ["ann", "bob", "cat"]
            .into_iter()
            .filter(|name| rule.allows(&UserId::new(name).unwrap()))
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn a_rule_allows_whom_it_names() {
        let contacts = (CONTACTS_KEY, r#"{"users":["cat","ann"]}"#);
        for (items, expected) in [
            (&[][..], "ann bob cat"),
            (&[contacts], "ann bob cat"),
            (&[(PRESENCE_KEY, r#"{"to":"everyone","deny":["bob"]}"#)], "ann cat"),
            (&[(PRESENCE_KEY, r#"{"to":"nobody"}"#), contacts], ""),
            (&[(PRESENCE_KEY, r#"{"to":"nobody","allow":["bob"]}"#)], "bob"),
            (&[(PRESENCE_KEY, r#"{"to":"contacts"}"#)], ""),
            (&[(PRESENCE_KEY, r#"{"to":"contacts"}"#), contacts], "ann cat"),
            (&[(PRESENCE_KEY, r#"{"to":"contacts","allow":["bob"],"deny":["cat","bob"]}"#), contacts], "ann"),
            (&[(PRESENCE_KEY, r#"{"to":"friends of friends"}"#), contacts], ""),
        ] {
            assert_eq!(allowed(&rule(items)), expected, "{items:?}");
        }
    }
}
