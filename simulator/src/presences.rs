//! Presence: clients that watch one another and say who may see them, and what the oracle holds that to.
//!
//! Nobody is told that somebody is there who may not see it by any rule that can have counted then: the last one that was answered before
//! it was asked, or one that was asked for since. At the end, when all is known, everybody who may see somebody sees what is so.

use antiphon_wire::{
    frame::{
        Account, AccountAction, Audience, JsonText, PRESENCE_KEY, PresenceAnswer, PresenceRule, Request, SetAccount,
        UserPresence, WatchPresence,
    },
    ids::{ConversationId, UserId},
};

use crate::{
    answers::AskedKind,
    clients::user,
    coverage::{Count, Coverage},
    dice::Dice,
    model::{Change, Model},
    receipts,
    world::World,
};

/// Whether a value of the key lets somebody else see the user. Contacts are never set here.
pub fn allows(value: Option<&str>, observer: &UserId) -> bool {
    let Some(value) = value else { return true };
    let rule: PresenceRule = serde_json::from_str(value).expect("clients set rules that are understood");
    !rule.deny.contains(observer) && (rule.to == Audience::Everyone || rule.allow.contains(observer))
}

impl Model {
    /// Whether somebody may see a user: by all rules that can count for who asked at that time, by some of them, or by none.
    fn may_see(&self, observer: &UserId, of: &UserId, at: u64) -> (bool, bool) {
        if observer == of {
            return (true, true);
        }
        let rules = self.account(of).map(|keys| keys.values_since(PRESENCE_KEY, at)).unwrap_or_else(|| vec![None]);
        let allowed = || rules.iter().map(|rule| allows(rule.as_deref(), observer));
        (allowed().all(|allows| allows), allowed().any(|allows| allows))
    }

    /// Somebody is told of users, who asked, or was connected, at that time.
    pub fn seen(&mut self, observer: &UserId, users: &[UserPresence], at: u64, coverage: &mut Coverage) {
        for seen in users {
            let (surely, perhaps) = self.may_see(observer, &seen.user, at);
            let is_hidden = !surely && !perhaps;
            let account = ConversationId::account(&seen.user);
            // Of a rule that was destroyed or erased nobody knows anything.
            let is_known = !self.rot && !self.is_erased(account);
            coverage.add(Count::PresenceSeen, u64::from(seen.online));
            coverage.add(Count::PresenceHidden, u64::from(is_hidden));
            self.check(!(is_hidden && seen.online && is_known), || {
                format!("{observer} sees that {} is there, and may not", seen.user)
            });
            self.check(!(seen.online && seen.last_seen_ms.is_some()), || format!("there and gone: {seen:?}"));
        }
    }

    /// At the end: what somebody was told of a user is what is so.
    fn seen_at_end(&mut self, observer: &UserId, of: &UserId, told: bool, is_there: bool) {
        let (surely, perhaps) = self.may_see(observer, of, u64::MAX);
        if self.rot || self.is_erased(ConversationId::account(of)) || surely != perhaps {
            return;
        }
        let expected = is_there && surely;
        self.check(told == expected, || {
            format!("at the end {observer} is told {told} of {of}, who is there: {expected}, as far as may be seen")
        });
    }
}

/// Holds an answer to what is known.
pub fn answered(
    user: &UserId,
    watch: &[UserId],
    answer: &PresenceAnswer,
    at: u64,
    model: &mut Model,
    coverage: &mut Coverage,
) {
    coverage.one(Count::PresenceAsked);
    let mut asked: Vec<&UserId> = watch.iter().collect();
    let mut told: Vec<&UserId> = answer.users.iter().map(|seen| &seen.user).collect();
    asked.sort_unstable();
    told.sort_unstable();
    model.check(asked == told, || format!("{user} asked about {asked:?} and was told of {told:?}"));
    model.seen(user, &answer.users, at, coverage);
}

impl World {
    /// Sometimes somebody looks at others, or says who may look.
    pub fn look_around(&mut self, step: u32) {
        let dice = Dice::new(self.plan.seed ^ (u64::from(step) << 40), "presence");
        let client = dice.index(self.clients.len());
        if !dice.chance(self.plan.presence_per_thousand) || !self.clients[client].running {
            return;
        }
        if dice.chance(350) {
            self.set_rule(client, &dice);
        } else {
            let users: Vec<UserId> = (0..self.plan.users).map(user).filter(|_| dice.chance(600)).collect();
            let unwatch = (0..self.plan.users).map(user).filter(|_| dice.chance(100)).collect();
            let watch = WatchPresence { watch: users, unwatch };
            self.ask(client, Request::Presence(watch.clone()), None, AskedKind::Presence(watch));
        }
        self.pump(client);
    }

    fn set_rule(&mut self, client: usize, dice: &Dice) {
        let of = self.clients[client].user.clone();
        let other = user(dice.index(self.plan.users));
        let values = [
            None,
            Some(r#"{"to":"everyone"}"#.to_owned()),
            Some(r#"{"to":"nobody"}"#.to_owned()),
            Some(r#"{"to":"contacts"}"#.to_owned()),
            Some(format!(r#"{{"to":"nobody","allow":["{other}"]}}"#)),
            Some(format!(r#"{{"to":"everyone","deny":["{other}"]}}"#)),
        ];
        let value = values[dice.index(values.len())].clone();
        let value = value.map(JsonText);
        let of_presence = SetAccount { key: PRESENCE_KEY.to_owned(), value, if_sequence: None };
        let set = if dice.chance(400) { receipts::choose(dice) } else { of_presence };
        let change = Change { add: vec![of.clone()], remove: Vec::new() };
        let request = Request::Account(Account { action: AccountAction::Set(set.clone()) });
        let account = ConversationId::account(&of);
        self.model.account_of(&of);
        if self.ask(client, request, Some(account), AskedKind::SetAccount(change, set.clone())) {
            self.model.account_asked(&of, &set, self.model.asked);
        }
    }

    /// When all is at rest: some look at everybody. Others have what they were told, and must be told the rest.
    pub fn look_at_everybody(&mut self) {
        if self.plan.presence_per_thousand == 0 {
            return;
        }
        let users: Vec<UserId> = (0..self.plan.users).map(user).collect();
        let dice = Dice::new(self.plan.seed, "look at everybody");
        for client in 0..self.clients.len() {
            if dice.chance(500) && self.clients[client].wanted {
                let watch = WatchPresence { watch: users.clone(), unwatch: Vec::new() };
                self.ask(client, Request::Presence(watch.clone()), None, AskedKind::Presence(watch));
                self.pump(client);
            }
        }
    }

    /// What everybody was told since then.
    pub fn check_presence(&mut self) {
        let is_there = |of: &UserId| self.clients.iter().any(|client| client.wanted && client.user == *of);
        // What a twin had sent may arrive after all, and replace its user's client: then there is a connection that nobody holds any more.
        let has_ghost =
            |of: &UserId| self.clients.iter().any(|client| !client.plan.twin && !client.wanted && client.user == *of);
        let mut told = Vec::new();
        for client in self.clients.iter().filter(|client| client.wanted) {
            let of_client = client.app.presence.iter().filter(|(of, _)| !has_ghost(of));
            told.extend(of_client.map(|(of, online)| (client.user.clone(), of.clone(), *online, is_there(of))));
        }
        for (observer, of, online, is_there) in told {
            self.coverage.one(Count::PresenceAtEnd);
            self.model.seen_at_end(&observer, &of, online, is_there);
        }
    }
}
