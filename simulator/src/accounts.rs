//! Account data: clients that set and list it, and what the oracle holds that to.
//!
//! What a user was told to have set is set until it is set again; who lists it gets the last of what was answered before, or something that was
//! asked for since. Of a key that was set again no entry tells what it was. A condition holds or nothing changes, where that is sure.

use std::collections::BTreeMap;

use antiphon_wire::{
    codes::ErrorCode,
    frame::{
        Account, AccountAction, AccountAnswer, AccountChange, AccountPage, DEVICES_KEY, EntryKind, JsonText, Request,
        SetAccount,
    },
    ids::{ConversationId, Sequence, UserId},
    limits::PAGE_ITEMS_MAX,
};

use crate::{
    answers::AskedKind,
    coverage::{Count, Coverage},
    dice::Dice,
    finish::Reading,
    model::{Change, Model},
    world::World,
};

/// Keys that users set: few, so that they are set again.
const KEYS: [&str; 4] = ["draft:a", "draft:b", "theme", "muted:a"];

/// What is set: values, and the entries that set them, by key.
pub type Items = BTreeMap<String, (String, u64)>;

/// All that was tried with a user's keys.
#[derive(Debug, Default)]
pub struct Keys(BTreeMap<String, Vec<Tried>>);

/// A key that somebody asked to set, or to take away.
#[derive(Debug, Clone)]
struct Tried {
    /// When it was asked for, as the oracle counts time.
    at: u64,
    value: Option<String>,
    outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Nobody knows whether it was done.
    Unknown,
    /// It was not.
    Refused,
    /// It was, by the entry at this sequence, which was known at a time.
    Done { at: u64, sequence: u64 },
}

impl Tried {
    fn sequence(&self) -> Option<u64> {
        match self.outcome {
            Outcome::Done { sequence, .. } => Some(sequence),
            _ => None,
        }
    }

    /// Whether it was answered before that.
    fn was_done_before(&self, at: u64) -> bool {
        matches!(self.outcome, Outcome::Done { at: done, .. } if done < at)
    }
}

impl Keys {
    fn of(&self, key: &str) -> &[Tried] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    /// The entry that has set a key, 0 if it is not set: if that is sure for who asked at that time and was answered just now.
    fn sure(&self, key: &str, own: u64) -> Option<u64> {
        let others = || self.of(key).iter().filter(|tried| tried.at != own && tried.outcome != Outcome::Refused);
        if !others().all(|tried| tried.was_done_before(own)) {
            return None;
        }
        let last = others().max_by_key(|tried| tried.sequence())?;
        // One that changed nothing tells the entry before.
        Some(if last.value.is_some() { last.sequence()? } else { 0 })
    }

    /// What a key can be for who asked at a time, and was answered since: as the last one set it that was answered before, or any that was not.
    #[must_use]
    pub fn values_since(&self, key: &str, at: u64) -> Vec<Option<String>> {
        let tried = self.of(key).iter().filter(|of| of.outcome != Outcome::Refused);
        let (before, others): (Vec<&Tried>, Vec<&Tried>) = tried.partition(|of| of.was_done_before(at));
        let last = before.into_iter().max_by_key(|of| of.sequence());
        let last = last.and_then(|last| last.value.clone());
        std::iter::once(last).chain(others.into_iter().map(|of| of.value.clone())).collect()
    }

    /// What is wrong with an entry that says this of a key, told to who asked at a time; 0 if nobody did.
    #[must_use]
    pub fn wrong(&self, sequence: u64, change: &AccountChange, at: u64) -> Option<&'static str> {
        let tried = self.of(&change.key);
        let asked = tried.iter().filter(|of| of.outcome != Outcome::Refused);
        match &change.value {
            Some(value) => {
                let is_asked = asked.clone().any(|of| of.value.as_ref() == Some(&value.0));
                let is_over =
                    |of: &&Tried| of.was_done_before(at) && of.sequence().is_some_and(|later| later > sequence);
                if !is_asked {
                    return Some("nobody set the key so");
                }
                tried.iter().any(|of| is_over(&of)).then_some("what was set again is still told")
            }
            None => {
                let is_taken_away = asked.clone().any(|of| of.value.is_none());
                (!is_taken_away && asked.count() < 2).then_some("what was set once is not told")
            }
        }
    }

    /// What is wrong with all that is set, as it was told to who asked at a time.
    fn wrong_list(&self, items: &Items, at: u64) -> Option<String> {
        if let Some((key, (value, _))) = items.iter().find(|(key, (value, _))| {
            *key != DEVICES_KEY
                && !self.of(key).iter().any(|of| of.outcome != Outcome::Refused && of.value.as_deref() == Some(value))
        }) {
            return Some(format!("{key} is {value}, which nobody set"));
        }
        self.0.keys().find_map(|key| {
            let tried = self.of(key);
            let before = tried.iter().filter(|of| of.was_done_before(at)).max_by_key(|of| of.sequence())?;
            let (last, now) = (before.sequence()?, items.get(key));
            // Something that was asked for and was not answered by then may have come behind it.
            let others = tried.iter().filter(|of| of.outcome != Outcome::Refused && !of.was_done_before(at));
            let may_be = |value: Option<&str>| others.clone().any(|of| of.value.as_deref() == value);
            let is_last = now.map(|(value, _)| value.as_str()) == before.value.as_deref();
            let is_behind = now.is_none_or(|(_, sequence)| *sequence >= last || before.value.is_none());
            let fits = (is_last || may_be(now.map(|(value, _)| value.as_str()))) && is_behind;
            (!fits).then(|| format!("{key} is {now:?}, and {before:?} was answered before"))
        })
    }
}

impl Model {
    /// Conversations that people talk in.
    #[must_use]
    pub fn talked_in(&self) -> Vec<ConversationId> {
        self.conversations.iter().filter(|(_, of)| of.account.is_none()).map(|(id, _)| *id).collect()
    }

    /// All that was tried with a user's keys, if anything was.
    #[must_use]
    pub fn account(&self, user: &UserId) -> Option<&Keys> {
        let account = self.conversations.get(&ConversationId::account(user))?.account.as_ref();
        account.map(|(_, keys)| keys)
    }

    /// Somebody asks for something in the account.
    pub fn account_of(&mut self, user: &UserId) -> &mut Keys {
        let conversation = self.conversations.entry(ConversationId::account(user)).or_default();
        &mut conversation.account.get_or_insert_with(|| (user.clone(), Keys::default())).1
    }

    /// A user asks to set a key.
    pub fn account_asked(&mut self, user: &UserId, set: &SetAccount, at: u64) {
        let value = set.value.as_ref().map(|value| value.0.clone());
        let tried = Tried { at, value, outcome: Outcome::Unknown };
        self.account_of(user).0.entry(set.key.clone()).or_default().push(tried);
    }

    fn account_outcome(&mut self, user: &UserId, set: &SetAccount, at: u64, outcome: Outcome) {
        let tried = self.account_of(user).0.entry(set.key.clone()).or_default();
        if let Some(tried) = tried.iter_mut().find(|tried| tried.at == at) {
            tried.outcome = outcome;
        }
    }

    /// It was refused; whether it may have been.
    pub fn account_refused(&mut self, user: &UserId, set: &SetAccount, at: u64, code: ErrorCode) -> bool {
        let sure = self.account_of(user).sure(&set.key, at);
        // What failed to be stored may be there all the same.
        if code != ErrorCode::StorageFailed {
            self.account_outcome(user, set, at, Outcome::Refused);
        }
        match (code, set.if_sequence) {
            // What set the key may be destroyed.
            (ErrorCode::Conflict, Some(expected)) => self.rot || sure != Some(expected.0),
            _ => false,
        }
    }

    /// It was done.
    pub fn account_set(&mut self, user: &UserId, set: &SetAccount, at: u64, answer: &AccountAnswer) {
        let now = self.asking();
        let (sure, sequence) = (self.account_of(user).sure(&set.key, at), answer.sequence.0);
        self.account_outcome(user, set, at, Outcome::Done { at: now, sequence });
        let held = self.rot || set.if_sequence.is_none_or(|expected| sure.is_none_or(|sure| sure == expected.0));
        let replaced = answer.replaced.map_or(0, |of| of.0);
        let is_told = sure.is_none_or(|sure| replaced == sure || replaced == 0);
        let fits = replaced < sequence.max(1) && answer.conversation == ConversationId::account(user);
        self.check(held && is_told && fits, || format!("{user} set {set:?}, the key was {sure:?}: {answer:?}"));
    }

    /// All that is set was listed, to who asked at a time, when so much was durable.
    pub fn account_listed(&mut self, user: &UserId, items: &Items, at: u64) {
        let wrong = if self.rot { None } else { self.account_of(user).wrong_list(items, at) };
        self.check(wrong.is_none(), || format!("{user} was listed {items:?}: {}", wrong.unwrap_or_default()));
    }

    /// What is wrong with what an account's entry says.
    #[must_use]
    pub fn wrong_account(&self, id: ConversationId, sequence: u64, body: &[u8], at: u64) -> Option<&'static str> {
        let Some((_, keys)) = self.conversations.get(&id).and_then(|of| of.account.as_ref()) else {
            return Some("account data in no account");
        };
        let change = AccountChange::from_body(body).ok()?;
        // What the server keeps of devices nobody sets.
        if change.key == DEVICES_KEY { None } else { keys.wrong(sequence, &change, at) }
    }
}

/// What an answer lists.
#[must_use]
pub fn items_of(answer: &AccountAnswer) -> Items {
    let items = answer.items.iter().flatten();
    items.map(|item| (item.key.clone(), (item.value.0.clone(), item.sequence.0))).collect()
}

/// A user's last reading of the account: entries and list say the same.
pub fn judge(id: ConversationId, reading: &Reading, coverage: &mut Coverage, problems: &mut Vec<String>) {
    let (Some(Ok(log)), Some(Ok(items))) = (reading.logs.get(&id), &reading.account) else { return };
    if log.broken.is_some() {
        return;
    }
    let mut said = BTreeMap::new();
    for place in log.places.iter().skip(1) {
        let Some(Ok(change)) = reading.bodies.get(&(id, *place)).map(|body| AccountChange::from_body(body)) else {
            problems.push(format!("{id} #{place} says nothing of account data"));
            continue;
        };
        match change.value {
            Some(value) => drop(said.insert(change.key, (value.0, *place))),
            None => drop(said.remove(&change.key)),
        }
    }
    coverage.add(Count::AccountsRead, 1);
    if said != *items {
        problems.push(format!("{id} says {said:?}, but {items:?} is listed"));
    }
}

/// Whether an entry is the same but for a value that was set again.
#[must_use]
pub fn is_but_for_value(kind: EntryKind, before: &[u8], now: &[u8]) -> bool {
    let key = |body: &[u8]| AccountChange::from_body(body).map(|change| change.key);
    kind == EntryKind::AccountData && key(before) == key(now)
}

impl World {
    /// Sometimes somebody sets something for oneself, or lists it.
    pub fn keep(&mut self, step: u32) {
        let dice = Dice::new(self.plan.seed ^ (u64::from(step) << 40), "account");
        let client = dice.index(self.clients.len());
        if !dice.chance(self.plan.accounts_per_thousand) || !self.clients[client].running {
            return;
        }
        let user = self.clients[client].user.clone();
        let account = ConversationId::account(&user);
        for _ in 0..dice.pick(&[1, 1, 1, 4]) {
            if dice.chance(150) {
                let list = AccountPage { after: None, limit: Some(PAGE_ITEMS_MAX) };
                let request = Request::Account(Account { action: AccountAction::List(list) });
                self.model.account_of(&user);
                self.ask(client, request, Some(account), AskedKind::AccountList);
                continue;
            }
            let key = dice.pick(&KEYS);
            let number = self.model.asked;
            let value = (!dice.chance(250)).then(|| JsonText(format!("{{\"number\":{number}}}")));
            let known = self.model.account_of(&user).sure(key, u64::MAX).unwrap_or_default();
            let if_sequence = dice.pick(&[None, None, Some(known), Some(known + dice.below(3))]).map(Sequence);
            let set = SetAccount { key: key.to_owned(), value, if_sequence };
            let change = Change { add: vec![user.clone()], remove: Vec::new() };
            let request = Request::Account(Account { action: AccountAction::Set(set.clone()) });
            if self.ask(client, request, Some(account), AskedKind::SetAccount(change, set.clone())) {
                self.model.account_asked(&user, &set, self.model.asked);
            }
        }
        self.pump(client);
    }
}
