//! Who is there, and who is told of it: presence of the users whose home a lane is.
//!
//! A connection asks about users that it is looking at ([`Presence::watch`]); from then on it hears of their coming and going, once a tick
//! and only what differs from what it saw at the last one. What it sees of a user is a matter of that user's [`Rule`] alone: whom a rule leaves
//! out sees what one sees of a user who is not there, last seen when last seen by them.
//!
//! A user whom nobody watches costs nothing: who is there is the registry's to know, and a rule is looked up when somebody watches. What is kept
//! beside that is of those who went last, and of those who changed their rule while they were there, who must look alike.
//!
//! Invariants: a user's rule is known before anybody sees anything of the user; a change that somebody may not see makes no frame for them, and
//! no frame of theirs comes earlier or later for it. A subscription is two links of eight bytes, each of which names the place of the other.
//! Must not do: I/O, or read a clock.

mod links;
mod rule;

use std::{
    collections::{HashMap, VecDeque},
    rc::Rc,
};

use antiphon_wire::{
    frame::UserPresence,
    ids::{TimestampMs, UserId},
};

use self::links::Links;
pub use self::rule::Rule;
use super::mesh::{MeshConnection, ShardId};

/// Users of whom it is remembered when they were last seen. Beyond, the one who went, or hid, first is forgotten: 100,000 take some 20 MB.
const KEPT_MAX: usize = 100_000;

/// Pairs of a user and a watcher that one turn looks at: a third of a millisecond.
const PAIRS_A_TURN: usize = 4_096;

/// Rules of a user that are remembered: who was left out by the last of so many has seen the user when the one before counted.
const RULES_MAX: usize = 8;

/// A connection that is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Watcher {
    pub(crate) shard: ShardId,
    pub(crate) connection: MeshConnection,
}

/// What one sees of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct View {
    online: bool,
    last_seen: Option<TimestampMs>,
}

/// What one sees of a user of whom nothing is to be seen.
const NOTHING: View = View { online: false, last_seen: None };

/// A rule, and when the user was last there while it counted, or before as far as that is known.
#[derive(Debug, Clone)]
struct Ruled {
    rule: Rc<Rule>,
    last_seen: Option<TimestampMs>,
}

/// What is known of a user that follows from coming, going and rules.
#[derive(Debug, Clone, Default)]
struct Standing {
    is_there: bool,
    /// The rules that counted, the last one last; none as long as the rule is not known.
    rules: Vec<Ruled>,
    /// When the user went, if the rule was not known then.
    went: Option<TimestampMs>,
}

impl Standing {
    /// What everybody sees, if all see the same.
    fn seen_by_all(&self) -> Option<View> {
        self.rules.last().filter(|newest| newest.rule.is_open()).map(|newest| self.seen_whole(newest.last_seen))
    }

    fn seen_whole(&self, last_seen: Option<TimestampMs>) -> View {
        View { online: self.is_there, last_seen: last_seen.filter(|_| !self.is_there) }
    }

    fn seen_by(&self, user: &UserId, observer: &UserId) -> View {
        let mut newest_first = self.rules.iter().rev();
        let newest = newest_first.next();
        if newest.is_some_and(|newest| newest.rule.allows(observer)) || observer == user {
            return self.seen_whole(newest.map_or(self.went, |newest| newest.last_seen));
        }
        let before = newest_first.find(|before| before.rule.allows(observer));
        before.map_or(NOTHING, |before| View { online: false, last_seen: before.last_seen })
    }
}

/// What was told of a user before a change that a tick is to look at.
#[derive(Debug)]
struct Before {
    standing: Standing,
    /// What observers were told since the change; the others know the user as the standing was.
    since: HashMap<u32, View>,
}

#[derive(Debug)]
struct Observed {
    user: UserId,
    standing: Standing,
    /// What was told, if it has changed since.
    told: Option<Box<Before>>,
    /// Its place among those who are remembered; 0: it is none of them.
    kept: u32,
    /// The rule may have changed since it was looked up.
    is_unsure: bool,
    /// The rule is being looked up.
    is_asked: bool,
    /// Requests to change the rule that are under way.
    changing: u32,
}

impl Observed {
    /// What an observer, of that number and name, is shown now.
    fn show(&mut self, number: u32, observer: &UserId) -> View {
        let view = self.standing.seen_by(&self.user, observer);
        if let Some(before) = &mut self.told {
            before.since.insert(number, view);
        }
        view
    }

    /// Whether the rule is to be looked up now, for those who watch.
    fn asks(&mut self) -> bool {
        let Standing { is_there, rules, went } = &self.standing;
        let matters = *is_there || went.is_some() || !rules.is_empty();
        let asks = matters && (self.is_unsure || rules.is_empty()) && !self.is_asked;
        self.is_asked |= asks;
        asks
    }
}

#[derive(Debug)]
struct Observer {
    watcher: Watcher,
    user: UserId,
    /// Users who look otherwise since the last tick, which the connection is to be told.
    due: Vec<u32>,
}

/// What became of a request to watch.
#[derive(Debug, PartialEq)]
pub(crate) struct Watched {
    /// What is seen of the users.
    pub(crate) users: Vec<UserPresence>,
    /// How many the connection watches.
    pub(crate) watching: u32,
    /// Whose rules are to be looked up.
    pub(crate) asks: Vec<UserId>,
}

/// What watchers on one shard are to be told.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Told {
    /// Each once, for all who see the same.
    pub(crate) users: Vec<UserPresence>,
    /// Connections, and which of the users each is told of.
    pub(crate) connections: Vec<(MeshConnection, Vec<u32>)>,
}

/// How far telling is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ticked {
    /// Who is to be told is still being looked up.
    Marking,
    /// Some are told, others are to be.
    Telling,
    /// All are.
    Done,
}

/// What watchers on one shard are to be told, as it is put together.
#[derive(Default)]
struct Telling {
    told: Told,
    /// Where users are in it, as they are seen by some.
    places: HashMap<(u32, View), u32>,
}

/// The users of a lane, and who watches them.
#[derive(Debug)]
pub(crate) struct Presence {
    /// The rule of most users: everybody sees them.
    open: Rc<Rule>,
    users: HashMap<UserId, u32>,
    observed: Vec<Option<Observed>>,
    observed_free: Vec<u32>,
    watchers: HashMap<Watcher, u32>,
    observers: Vec<Option<Observer>>,
    observers_free: Vec<u32>,
    links: Links,
    /// Users whose standing is another than what was told.
    changed: VecDeque<u32>,
    /// How many of them this tick still looks at.
    marking: usize,
    /// Connections that this tick is still to tell.
    due: VecDeque<u32>,
    /// Users who are remembered, in the order in which they went or hid, with the place of each; of one who did so again the last place counts.
    kept: VecDeque<(u32, u32)>,
    last_kept: u32,
}

impl Default for Presence {
    fn default() -> Self {
        Self {
            open: Rc::new(Rule::of(&[])),
            users: HashMap::new(),
            observed: Vec::new(),
            observed_free: Vec::new(),
            watchers: HashMap::new(),
            observers: Vec::new(),
            observers_free: Vec::new(),
            links: Links::default(),
            changed: VecDeque::new(),
            marking: 0,
            due: VecDeque::new(),
            kept: VecDeque::new(),
            last_kept: 0,
        }
    }
}

impl Presence {
    /// A user's first session is there. Whether the rule is to be looked up, until when nobody sees it.
    pub(crate) fn came(&mut self, user: &UserId) -> bool {
        let Some(&number) = self.users.get(user) else { return false };
        self.change(number, |standing| standing.is_there = true);
        self.is_watched(number) && self.at(number).asks()
    }

    /// A user's last session has gone.
    pub(crate) fn went(&mut self, user: &UserId, now: TimestampMs) {
        let number = self.observed(user, true);
        self.change(number, |standing| {
            standing.is_there = false;
            match standing.rules.last_mut() {
                Some(newest) => newest.last_seen = Some(now),
                None => standing.went = Some(now),
            }
        });
        self.keep(number);
    }

    /// A user who is there, or has gone lately, is about to change the rule: the one of before must be known, so that whoever is left out from
    /// then on sees what one sees of a user who has gone. Whether it is to be looked up.
    pub(crate) fn will_change(&mut self, user: &UserId, is_there: bool) -> bool {
        if !is_there && !self.users.contains_key(user) {
            return false;
        }
        let number = self.observed(user, is_there);
        let observed = self.at(number);
        observed.changing += 1;
        observed.asks()
    }

    /// The change is over, and what the rule is now was told, or that nobody knows.
    pub(crate) fn has_changed(&mut self, user: &UserId) {
        if let Some(&number) = self.users.get(user) {
            let observed = self.at(number);
            observed.changing = observed.changing.saturating_sub(1);
            self.drop_if_nothing(number);
        }
    }

    /// Whether anything is known of a user that a rule matters for.
    pub(crate) fn knows(&self, user: &UserId) -> bool {
        self.users.contains_key(user)
    }

    /// The user's rule may have changed, and nobody knows to what: until that is known nobody sees the user.
    pub(crate) fn unsure(&mut self, user: &UserId, now: TimestampMs) {
        let Some(&number) = self.users.get(user) else { return };
        if !self.at(number).standing.rules.is_empty() {
            self.put_rule(number, Rule::nobody(), now);
        }
        let observed = self.at(number);
        (observed.is_unsure, observed.is_asked) = (true, false);
        self.drop_if_nothing(number);
    }

    /// From now on this is the user's rule.
    pub(crate) fn ruled(&mut self, user: &UserId, rule: Rule, now: TimestampMs) {
        let Some(&number) = self.users.get(user) else { return };
        self.put_rule(number, rule, now);
        let observed = self.at(number);
        (observed.is_unsure, observed.is_asked) = (false, false);
        self.drop_if_nothing(number);
    }

    fn put_rule(&mut self, number: u32, rule: Rule, now: TimestampMs) {
        let rule = if rule.is_open() { self.open.clone() } else { Rc::new(rule) };
        let rules = &self.at(number).standing.rules;
        let (is_first, is_same) = (rules.is_empty(), rules.last().is_some_and(|newest| newest.rule == rule));
        if is_same {
            return;
        }
        self.change(number, |standing| {
            let Standing { is_there, rules, went } = standing;
            let last_seen = match rules.last_mut() {
                None => went.take(),
                Some(before) => {
                    let last_seen = before.last_seen;
                    if *is_there {
                        // Whoever is left out from now on has seen the user until now.
                        before.last_seen = Some(now);
                    }
                    last_seen
                }
            };
            rules.reserve_exact(1);
            rules.push(Ruled { rule, last_seen });
            if rules.len() > RULES_MAX {
                rules.remove(0);
            }
        });
        if !is_first {
            self.keep(number);
        }
    }

    /// A connection of `observer` is told of these users from now on. What it sees of each now, how many it watches, and whose rules are to be
    /// looked up; `is_there` tells of those of whom nothing is known.
    pub(crate) fn watch(
        &mut self,
        watcher: Watcher,
        observer: &UserId,
        users: &[UserId],
        is_there: impl Fn(&UserId) -> bool,
    ) -> Watched {
        let number = self.observer(watcher, observer);
        let mut seen = Vec::with_capacity(users.len());
        let mut asks = Vec::new();
        for user in users {
            let observed = self.observed(user, is_there(user));
            self.links.add(number, observed);
            let observed = self.at(observed);
            seen.push(presence(user, observed.show(number, observer)));
            if observed.asks() {
                asks.push(user.clone());
            }
        }
        let watching = self.links.watched(number);
        if watching == 0 {
            self.forget(watcher);
        }
        Watched { users: seen, watching, asks }
    }

    /// It is told of these no more. How many it watches.
    pub(crate) fn unwatch(&mut self, watcher: Watcher, users: &[UserId]) -> u32 {
        let Some(&number) = self.watchers.get(&watcher) else { return 0 };
        for user in users {
            if let Some(&observed) = self.users.get(user)
                && self.links.remove(number, observed)
            {
                if let Some(observer) = &mut self.observers[number as usize] {
                    observer.due.retain(|due| *due != observed);
                }
                self.drop_if_nothing(observed);
            }
        }
        let watched = self.links.watched(number);
        if watched == 0 {
            self.forget(watcher);
        }
        watched
    }

    /// The connection is gone.
    pub(crate) fn forget(&mut self, watcher: Watcher) {
        let Some(number) = self.watchers.remove(&watcher) else { return };
        while let Some(observed) = self.links.remove_last(number) {
            self.drop_if_nothing(observed);
        }
        self.observers[number as usize] = None;
        self.observers_free.push(number);
    }

    /// Whether a tick has something to look at, or to tell.
    pub(crate) fn has_changes(&self) -> bool {
        !self.changed.is_empty() || !self.due.is_empty()
    }

    /// Whether a tick has begun and is not done.
    pub(crate) fn is_ticking(&self) -> bool {
        self.marking > 0 || !self.due.is_empty()
    }

    /// Goes on with a tick, or begins one: what so many watchers are to be told, by shard. What is told is what is so now.
    pub(crate) fn tick(&mut self, watchers_max: usize, shards: u16) -> (Vec<Told>, Ticked) {
        if !self.is_ticking() {
            self.marking = self.changed.len();
        }
        if !self.mark() {
            return (Vec::new(), Ticked::Marking);
        }
        let mut by_shard: Vec<Telling> = (0..shards).map(|_| Telling::default()).collect();
        for _ in 0..watchers_max {
            let Some(number) = self.due.pop_front() else { break };
            // It may have gone, and another have its number.
            let Some(observer) = &mut self.observers[number as usize] else { continue };
            let due = std::mem::take(&mut observer.due);
            if due.is_empty() {
                continue;
            }
            let Observer { watcher, user, .. } = &*observer;
            let Telling { told, places } = &mut by_shard[usize::from(watcher.shard.0)];
            let place = |of: u32| {
                let observed = self.observed[of as usize].as_mut().expect("whom somebody watches is known");
                let view = observed.show(number, user);
                *places.entry((of, view)).or_insert_with(|| {
                    told.users.push(presence(&observed.user, view));
                    told.users.len() as u32 - 1
                })
            };
            let of = due.into_iter().map(place).collect();
            told.connections.push((watcher.connection, of));
        }
        let ticked = if self.due.is_empty() { Ticked::Done } else { Ticked::Telling };
        (by_shard.into_iter().map(|telling| telling.told).collect(), ticked)
    }

    /// Looks up who is to be told of whom. Whether that is done.
    fn mark(&mut self) -> bool {
        let mut looked_at = 0;
        while self.marking > 0 {
            if looked_at >= PAIRS_A_TURN {
                return false;
            }
            self.marking -= 1;
            let number = self.changed.pop_front().expect("so many have changed");
            let before = self.at(number).told.take().expect("it has changed");
            let observed = self.observed[number as usize].as_ref().expect("it is known");
            looked_at += 1;
            let (by_all_now, by_all_before) = (observed.standing.seen_by_all(), before.standing.seen_by_all());
            for watching in self.links.watchers(number) {
                looked_at += 1;
                let observer = self.observers[watching as usize].as_mut().expect("it watches");
                let seen = |standing: &Standing| standing.seen_by(&observed.user, &observer.user);
                let was = before.since.get(&watching).copied().or(by_all_before);
                let was = was.unwrap_or_else(|| seen(&before.standing));
                let now = by_all_now.unwrap_or_else(|| seen(&observed.standing));
                if now == was {
                    continue;
                }
                if observer.due.is_empty() {
                    self.due.push_back(watching);
                }
                observer.due.push(number);
            }
            self.drop_if_nothing(number);
        }
        true
    }

    /// Bytes of memory that subscriptions take, beside what each user and each connection takes.
    #[cfg(test)]
    fn subscription_bytes(&self) -> usize {
        self.links.bytes()
    }

    /// Subscriptions there are.
    #[must_use]
    pub(crate) fn subscriptions(&self) -> u64 {
        self.links.count()
    }

    fn is_watched(&self, number: u32) -> bool {
        self.links.watchers(number).next().is_some()
    }

    /// Remembers when a user was last seen; others may be forgotten for it.
    fn keep(&mut self, number: u32) {
        self.last_kept = self.last_kept.wrapping_add(1).max(1);
        self.at(number).kept = self.last_kept;
        self.kept.push_back((number, self.last_kept));
        while self.kept.len() > KEPT_MAX {
            let Some((first, place)) = self.kept.pop_front() else { break };
            let observed = self.observed[first as usize].as_mut().filter(|observed| observed.kept == place);
            if let Some(observed) = observed {
                observed.kept = 0;
                self.drop_if_nothing(first);
            }
        }
    }

    fn at(&mut self, number: u32) -> &mut Observed {
        self.observed[number as usize].as_mut().expect("whoever has the number knows the user")
    }

    /// The user's number; new if nothing was known but whether the user is there.
    fn observed(&mut self, user: &UserId, is_there: bool) -> u32 {
        if let Some(number) = self.users.get(user) {
            return *number;
        }
        let standing = Standing { is_there, ..Standing::default() };
        let told = None;
        let new =
            Observed { user: user.clone(), standing, told, kept: 0, is_unsure: false, is_asked: false, changing: 0 };
        let number = put(&mut self.observed, &mut self.observed_free, new);
        self.users.insert(user.clone(), number);
        number
    }

    fn observer(&mut self, watcher: Watcher, user: &UserId) -> u32 {
        if let Some(number) = self.watchers.get(&watcher) {
            return *number;
        }
        let new = Observer { watcher, user: user.clone(), due: Vec::new() };
        let number = put(&mut self.observers, &mut self.observers_free, new);
        self.watchers.insert(watcher, number);
        number
    }

    fn change(&mut self, number: u32, change: impl FnOnce(&mut Standing)) {
        let observed = self.at(number);
        if observed.told.is_none() {
            observed.told = Some(Box::new(Before { standing: observed.standing.clone(), since: HashMap::new() }));
            change(&mut observed.standing);
            self.changed.push_back(number);
        } else {
            change(&mut observed.standing);
        }
    }

    /// Forgets a user whom nobody watches, and who has not gone or hidden lately.
    fn drop_if_nothing(&mut self, number: u32) {
        let Some(Observed { told: None, kept: 0, is_asked: false, changing: 0, .. }) = &self.observed[number as usize]
        else {
            return;
        };
        if self.is_watched(number) {
            return;
        }
        if let Some(observed) = self.observed[number as usize].take() {
            self.users.remove(&observed.user);
            self.observed_free.push(number);
        }
    }
}

fn presence(user: &UserId, view: View) -> UserPresence {
    UserPresence { user: user.clone(), online: view.online, last_seen_ms: view.last_seen }
}

/// Puts something where nothing is; where that is.
fn put<T>(places: &mut Vec<Option<T>>, free: &mut Vec<u32>, what: T) -> u32 {
    match free.pop() {
        Some(number) => {
            places[number as usize] = Some(what);
            number
        }
        None => {
            places.push(Some(what));
            places.len() as u32 - 1
        }
    }
}

#[cfg(test)]
mod tests;
