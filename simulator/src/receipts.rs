//! Receipts: clients that say whether they give any, and what the oracle holds that to.
//!
//! Nobody is told how far somebody has read who may not see it by any rules that can have counted then. At the end, when all is known, everybody
//! who may see it is told the same, and everybody else nothing.

use antiphon_wire::{
    frame::{JsonText, Member, PRESENCE_KEY, RECEIPTS_KEY, ReceiptsRule, SetAccount},
    ids::{ConversationId, UserId},
};

use crate::{
    coverage::{Count, Coverage},
    dice::Dice,
    model::Model,
    presences::allows,
};

/// Whether a value of the key lets receipts be given and taken.
fn are_on(value: Option<&str>) -> bool {
    value.is_none_or(|value| {
        serde_json::from_str::<ReceiptsRule>(value).expect("clients set rules that are understood").on
    })
}

/// Sometimes a user says whether receipts are given.
pub fn choose(dice: &Dice) -> SetAccount {
    let values = [None, Some(r#"{"on":true}"#), Some(r#"{"on":false}"#), Some(r#"{"on":false}"#)];
    let value = values[dice.index(values.len())].map(|value| JsonText(value.to_owned()));
    SetAccount { key: RECEIPTS_KEY.to_owned(), value, if_sequence: None }
}

impl Model {
    /// Whether somebody is shown how far a user has read: by all rules that can count for who asked at that time, and by some of them.
    fn shows_receipts(&self, observer: &UserId, of: &UserId, at: u64) -> (bool, bool) {
        if observer == of {
            return (true, true);
        }
        // Of a rule that was destroyed or erased nobody knows anything.
        if self.rot || [observer, of].iter().any(|user| self.is_erased(ConversationId::account(user))) {
            return (false, true);
        }
        let values = |user: &UserId, key: &str| match self.account(user) {
            Some(keys) => keys.values_since(key, at),
            None => vec![None],
        };
        let on = |user: &UserId| values(user, RECEIPTS_KEY).into_iter().map(|value| are_on(value.as_deref())).collect();
        let rules = values(of, PRESENCE_KEY);
        let allowed = rules.iter().map(|rule| allows(rule.as_deref(), observer)).collect();
        let all: [Vec<bool>; 3] = [on(of), on(observer), allowed];
        (all.iter().flatten().all(|yes| *yes), all.iter().all(|some| some.contains(&true)))
    }

    /// Somebody is told how far a user has read, who asked, or was connected, at that time.
    pub fn told_receipt(&mut self, observer: &UserId, of: &UserId, at: u64, coverage: &mut Coverage) {
        let (_, perhaps) = self.shows_receipts(observer, of, at);
        coverage.add(Count::ReceiptsOfOthers, u64::from(observer != of));
        self.check(perhaps, || format!("{observer} is told how far {of} has read, and may not see it"));
    }

    /// Somebody is given a list of members, who asked at that time.
    pub fn listed(&mut self, observer: &UserId, members: &[Member], at: u64, coverage: &mut Coverage) {
        for member in members.iter().filter(|member| !is_blank(member)) {
            self.told_receipt(observer, &member.user, at, coverage);
        }
        let hidden = members.iter().filter(|member| !self.shows_receipts(observer, &member.user, at).1);
        coverage.add(Count::ReceiptsHidden, hidden.count() as u64);
    }

    /// At the end: whether a list may say nothing of how far a member has read, and whether it has to.
    pub fn may_be_blank(&self, observer: &UserId, of: &UserId) -> (bool, bool) {
        let (surely, perhaps) = self.shows_receipts(observer, of, u64::MAX);
        (!surely, !perhaps)
    }
}

/// Whether nothing is told of how far a member has read.
pub fn is_blank(member: &Member) -> bool {
    member.read.0 == 0 && member.delivered.0 == 0
}
