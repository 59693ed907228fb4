//! Who of a large conversation's members is there, so that what a message costs follows them and not all members.
//!
//! For each large conversation that something happens in, the members who have a session are kept. Who comes and goes is noted once, whatever the
//! number of conversations, and brought in where one is looked at; members are looked at one by one when a conversation is looked at anew.
//!
//! Invariant: what [`Fanout::there`] gives are exactly the members who have a route in the registry.
//! Must not do: I/O, or read a clock.

use std::{
    collections::{HashMap, VecDeque},
    rc::Rc,
};

use antiphon_wire::ids::{ConversationId, UserId};

use super::registry::Registry;

/// How messages are given to many.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// A conversation with more members is a large one, and it is kept who of them is there.
    pub large_members: usize,
    /// In one with more, only who looks at it is given what happens; the others hear how far it is.
    pub bodies_members: usize,
    /// Between two times that they hear of one conversation, at least.
    pub hint_ms: u64,
    /// Connections of a shard that are given theirs in one turn.
    pub at_a_time: usize,
}

impl Default for Rules {
    /// A hundred members are looked up in a hundredth of a millisecond; 256 connections take about two; what is said to 10,000 takes a
    /// tenth of a second of a core.
    fn default() -> Self {
        Self { large_members: 100, bodies_members: 10_000, hint_ms: 1_000, at_a_time: 256 }
    }
}

/// Users in the lists that are kept, 16 bytes each; beyond, the list that was looked at longest ago is not. By users and not by lists: the
/// list of a group of 200,000 takes tens of milliseconds to make, and many small ones must not drive it out.
const KEPT_USERS_MAX: usize = 1_000_000;

/// What a list counts for itself, beside the users in it.
const KEPT_USERS_A_LIST: usize = 16;

/// Users who came or went that are noted; one that was looked at before the oldest of them is looked at anew.
const NOTED_MAX: usize = 65_536;

#[derive(Debug, Default)]
struct Large {
    /// Those who are there, in order.
    there: Vec<UserId>,
    /// Comings and goings up to here are in it; `None` if it was never looked at.
    noted: Option<u64>,
    used: u64,
}

/// All large conversations that are kept.
#[derive(Debug)]
pub(crate) struct Fanout {
    large: HashMap<ConversationId, Large>,
    /// Users in all lists, with what lists count for themselves.
    kept: usize,
    kept_max: usize,
    uses: u64,
    /// Users who came or went, the last one last.
    noted: VecDeque<UserId>,
    /// How many were noted before the first of them.
    noted_before: u64,
}

impl Default for Fanout {
    fn default() -> Self {
        let (large, noted) = (HashMap::new(), VecDeque::new());
        Self { large, kept: 0, kept_max: KEPT_USERS_MAX, uses: 0, noted, noted_before: 0 }
    }
}

impl Fanout {
    /// The members of a conversation who are there.
    pub(crate) fn there(
        &mut self,
        conversation: ConversationId,
        members: &Rc<[UserId]>,
        registry: &Registry,
    ) -> &[UserId] {
        self.uses += 1;
        let noted = self.noted_before + self.noted.len() as u64;
        let large = self.large.entry(conversation).or_default();
        self.kept -= large.counts();
        large.used = self.uses;
        let seen = large.noted.and_then(|seen| seen.checked_sub(self.noted_before));
        let since = seen.map(|seen| self.noted.iter().skip(seen as usize));
        match since.filter(|since| since.len() < members.len()) {
            Some(since) => since.for_each(|user| large.look_at(user, members, registry)),
            None => large.there = members.iter().filter(|user| registry.has(user)).cloned().collect(),
        }
        large.noted = Some(noted);
        self.kept += large.counts();
        self.make_room();
        &self.large[&conversation].there
    }

    /// Members of a conversation have come and gone; `members` are all of them now.
    pub(crate) fn changed<'a>(
        &mut self,
        conversation: ConversationId,
        users: impl Iterator<Item = &'a UserId>,
        members: &[UserId],
        registry: &Registry,
    ) {
        if let Some(large) = self.large.get_mut(&conversation) {
            self.kept -= large.counts();
            users.for_each(|user| large.look_at(user, members, registry));
            self.kept += large.counts();
        }
    }

    /// A user's first session is there, or the last one has gone.
    pub(crate) fn note(&mut self, user: &UserId) {
        if self.large.is_empty() {
            return;
        }
        self.noted.push_back(user.clone());
        if self.noted.len() > NOTED_MAX {
            self.noted.pop_front();
            self.noted_before += 1;
        }
    }

    /// The one that was looked at last stays, however long it is.
    fn make_room(&mut self) {
        while self.kept > self.kept_max && self.large.len() > 1 {
            let oldest = self.large.iter().min_by_key(|(_, large)| large.used).map(|(id, _)| *id);
            let gone = self.large.remove(&oldest.expect("there are two"));
            self.kept -= gone.map_or(0, |large| large.counts());
        }
    }
}

impl Large {
    /// What it counts among those that are kept; nothing before it was looked at.
    fn counts(&self) -> usize {
        self.noted.map_or(0, |_| self.there.len() + KEPT_USERS_A_LIST)
    }

    /// A user has come or gone, or has become a member or is none any more.
    fn look_at(&mut self, user: &UserId, members: &[UserId], registry: &Registry) {
        let is_there = registry.has(user) && members.binary_search(user).is_ok();
        match self.there.binary_search(user) {
            Ok(place) if !is_there => drop(self.there.remove(place)),
            Err(place) if is_there => self.there.insert(place, user.clone()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use antiphon_wire::ids::DeviceId;
    use proptest::prelude::*;

    use super::*;
    use crate::core::{
        mesh::{MeshConnection, ShardId},
        registry::Route,
    };

    fn user(number: u32) -> UserId {
        UserId::new(&format!("u{number}")).unwrap()
    }

    fn members(of: &std::collections::BTreeSet<u32>) -> Rc<[UserId]> {
        let mut users: Vec<UserId> = of.iter().map(|number| user(*number)).collect();
        users.sort();
        users.into()
    }

    proptest! {
        #[test]
        fn those_who_are_there_are_the_members_with_a_session(
            steps in proptest::collection::vec((0..4_u8, 0..20_u32, 0..3_u8), 1..200),
        ) {
            let (mut fanout, mut registry) = (Fanout::default(), Registry::default());
            let mut groups = [const { std::collections::BTreeSet::new() }; 3];
            let mut lists: [Rc<[UserId]>; 3] = std::array::from_fn(|_| Rc::from([]));
            for (what, number, group) in steps {
                let (of, connection) = (user(number), MeshConnection { slot: number, generation: 0 });
                match what {
                    0 if !registry.has(&of) => {
                        let route = Route { device: DeviceId::new("d").unwrap(), shard: ShardId(0), connection };
                        registry.attach(of.clone(), route, false);
                        fanout.note(&of);
                    }
                    1 if registry.has(&of) => {
                        registry.detach(&of, ShardId(0), connection);
                        fanout.note(&of);
                    }
                    2 => {
                        let group = usize::from(group);
                        if !groups[group].remove(&number) {
                            groups[group].insert(number);
                        }
                        lists[group] = members(&groups[group]);
                        fanout.changed(ConversationId([group as u8; 16]), [&of].into_iter(), &lists[group], &registry);
                    }
                    _ => {
                        let list = &lists[usize::from(group)];
                        let there = fanout.there(ConversationId([group; 16]), list, &registry);
                        let expected: Vec<UserId> = list.iter().filter(|of| registry.has(of)).cloned().collect();
                        prop_assert_eq!(there, expected);
                    }
                }
            }
        }
    }

    #[test]
    fn so_many_users_are_kept_and_the_lists_looked_at_last() {
        let mut registry = Registry::default();
        for number in 0..100 {
            let connection = MeshConnection { slot: number, generation: 0 };
            let route = Route { device: DeviceId::new("d").unwrap(), shard: ShardId(0), connection };
            registry.attach(user(number), route, false);
        }
        let list = |of: std::ops::Range<u32>| members(&of.collect());
        let id = |number: u8| ConversationId([number; 16]);
        let kept = |fanout: &Fanout| {
            let mut kept: Vec<u8> = fanout.large.keys().map(|id| id.0[0]).collect();
            kept.sort_unstable();
            assert_eq!(fanout.kept, fanout.large.values().map(Large::counts).sum::<usize>());
            kept
        };
        let mut fanout = Fanout { kept_max: 100, ..Fanout::default() };
        for number in 0..5 {
            fanout.there(id(number), &list(0..9), &registry);
            fanout.there(id(0), &list(0..9), &registry);
        }
        assert_eq!(kept(&fanout), [0, 2, 3, 4], "each counts 25, and there is room for a hundred");
        // Who goes, or is no member any more, makes room.
        for number in [0, 2, 3, 4] {
            fanout.changed(id(number), list(2..9).iter(), &list(0..2), &registry);
        }
        fanout.there(id(5), &list(0..9), &registry);
        assert_eq!(kept(&fanout), [0, 2, 3, 4, 5]);
        // One that alone is too long is kept for as long as it is the last one.
        fanout.there(id(6), &list(0..100), &registry);
        assert_eq!(kept(&fanout), [6]);
        fanout.there(id(7), &list(0..9), &registry);
        assert_eq!(kept(&fanout), [7]);
    }
}
