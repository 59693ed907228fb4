//! What a user shows others of what they do: whether they are there, and how far they have read.
#![allow(missing_docs, reason = "rkyv's derive makes undocumented twins of fields")]

use antiphon_wire::{
    frame::{AccountItem, RECEIPTS_KEY, ReceiptsRule},
    ids::UserId,
};
use rkyv::{Archive, Deserialize, Serialize};

use super::presence::Rule;

/// What a user shows who does not show everything to everybody.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Privacy {
    /// Who may see whether the user is there.
    rule: Rule,
    /// Whether receipts are given and taken.
    receipts: bool,
}

impl Privacy {
    /// What account data says; `None`: everything is shown to everybody.
    #[must_use]
    pub fn of(items: &[AccountItem]) -> Option<Self> {
        let receipts = items.iter().find(|item| item.key == RECEIPTS_KEY).is_none_or(|item| {
            // What this program does not understand shows nothing.
            serde_json::from_str::<ReceiptsRule>(&item.value.0).is_ok_and(|rule| rule.on)
        });
        let rule = Rule::of(items);
        (!rule.is_open() || !receipts).then_some(Self { rule, receipts })
    }

    /// Nothing is shown to anybody: of a user of whom it is not known.
    pub(crate) const fn nothing() -> Self {
        Self { rule: Rule::nobody(), receipts: false }
    }

    /// Whether somebody else may see that the user is there.
    pub(crate) fn shows_presence_to(&self, other: &UserId) -> bool {
        self.rule.allows(other)
    }

    /// Whether somebody else may see how far the user has read.
    pub(crate) fn shows_receipts_to(&self, other: &UserId) -> bool {
        self.receipts && self.rule.allows(other)
    }

    /// Whether the user gives receipts, and is given others'.
    pub(crate) const fn has_receipts(&self) -> bool {
        self.receipts
    }
}

#[cfg(test)]
mod tests {
    use antiphon_wire::{
        frame::{JsonText, PRESENCE_KEY},
        ids::{Sequence, TimestampMs},
    };

    use super::*;

    #[test]
    fn receipts_go_to_those_who_may_see_the_user_unless_they_are_off() {
        let item = |&(key, value): &(&str, &str)| AccountItem {
            key: key.to_owned(),
            value: JsonText(value.to_owned()),
            sequence: Sequence(1),
            time_ms: TimestampMs(1),
        };
        let of = |items: &[(&str, &str)]| Privacy::of(&items.iter().map(item).collect::<Vec<_>>());
        let shown = |items| {
            let privacy: Option<Privacy> = of(items);
            ["ann", "bob"].map(|name| {
                let other = UserId::new(name).expect("a user id");
                privacy.as_ref().map_or((true, true), |privacy| {
                    (privacy.shows_presence_to(&other), privacy.shows_receipts_to(&other))
                })
            })
        };
        let only_bob = (PRESENCE_KEY, r#"{"to":"nobody","allow":["bob"]}"#);
        for (items, expected) in [
            (&[][..], [(true, true), (true, true)]),
            (&[(RECEIPTS_KEY, r#"{"on":true}"#)], [(true, true), (true, true)]),
            (&[(RECEIPTS_KEY, r#"{"on":false}"#)], [(true, false), (true, false)]),
            (&[(RECEIPTS_KEY, r#"{"on":"later"}"#)], [(true, false), (true, false)]),
            (&[only_bob], [(false, false), (true, true)]),
            (&[only_bob, (RECEIPTS_KEY, r#"{"on":false}"#)], [(false, false), (true, false)]),
        ] {
            assert_eq!(shown(items), expected, "{items:?}");
        }
        assert_eq!(of(&[(RECEIPTS_KEY, r#"{"on":true}"#)]), None, "who shows everything takes no room");
        assert_eq!(of(&[only_bob]).map(|privacy| privacy.has_receipts()), Some(true));
    }
}
