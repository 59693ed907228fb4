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
    /// Connections of a shard that are given theirs in one turn.
    pub at_a_time: usize,
}

impl Default for Rules {
    /// A hundred members are looked up in a hundredth of a millisecond; 256 connections take about two.
    fn default() -> Self {
        Self { large_members: 100, at_a_time: 256 }
    }
}

/// Large conversations that are kept; beyond, the one that was looked at longest ago is not.
const KEPT_MAX: usize = 64;

/// Users who came or went that are noted; one that was looked at before the oldest of them is looked at anew.
const NOTED_MAX: usize = 4_096;

#[derive(Debug)]
struct Large {
    /// As they were last told, in order.
    members: Rc<[UserId]>,
    /// Those who are there, in order.
    there: Vec<UserId>,
    /// Comings and goings up to here are in it.
    noted: u64,
    used: u64,
}

/// All large conversations that are kept.
#[derive(Debug, Default)]
pub(crate) struct Fanout {
    large: HashMap<ConversationId, Large>,
    uses: u64,
    /// Users who came or went, the last one last.
    noted: VecDeque<UserId>,
    /// How many were noted before the first of them.
    noted_before: u64,
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
        if !self.large.contains_key(&conversation) {
            self.make_room();
        }
        let large = self.large.entry(conversation).or_insert_with(|| Large {
            members: Rc::from([]),
            there: Vec::new(),
            noted,
            used: 0,
        });
        large.used = self.uses;
        let since = large.noted.checked_sub(self.noted_before).map(|seen| self.noted.iter().skip(seen as usize));
        match since.filter(|since| since.len() < members.len()) {
            Some(since) => {
                since.for_each(|user| large.look_at(user, registry));
                if !Rc::ptr_eq(&large.members, members) {
                    large.change(members, registry);
                }
            }
            None => {
                large.there = members.iter().filter(|user| registry.has(user)).cloned().collect();
                large.members = members.clone();
            }
        }
        large.noted = noted;
        &large.there
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

    fn make_room(&mut self) {
        if self.large.len() < KEPT_MAX {
            return;
        }
        let oldest = self.large.iter().min_by_key(|(_, large)| large.used).map(|(id, _)| *id);
        self.large.remove(&oldest.expect("there are many"));
    }
}

impl Large {
    /// A user who may be a member has come or gone.
    fn look_at(&mut self, user: &UserId, registry: &Registry) {
        let is_there = registry.has(user) && self.members.binary_search(user).is_ok();
        match self.there.binary_search(user) {
            Ok(place) if !is_there => drop(self.there.remove(place)),
            Err(place) if is_there => self.there.insert(place, user.clone()),
            _ => {}
        }
    }

    /// Members have come and gone: both lists are in order, and mostly the same.
    fn change(&mut self, members: &Rc<[UserId]>, registry: &Registry) {
        let (mut before, mut now) = (self.members.iter().peekable(), members.iter().peekable());
        let (mut added, mut removed) = (Vec::new(), Vec::new());
        loop {
            match (before.peek(), now.peek()) {
                (Some(one), Some(other)) if one == other => drop((before.next(), now.next())),
                (Some(one), Some(other)) if one < other => removed.extend(before.next()),
                (Some(_), None) => removed.extend(before.next()),
                (_, Some(_)) => added.extend(now.next().filter(|user| registry.has(user))),
                (None, None) => break,
            }
        }
        for user in removed {
            if let Ok(place) = self.there.binary_search(user) {
                self.there.remove(place);
            }
        }
        for user in added {
            if let Err(place) = self.there.binary_search(user) {
                self.there.insert(place, user.clone());
            }
        }
        self.members = members.clone();
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
    fn so_many_are_kept_and_those_looked_at_last() {
        let (mut fanout, registry) = (Fanout::default(), Registry::default());
        let list = members(&[1, 2].into());
        for number in 0..=u8::try_from(KEPT_MAX).unwrap() {
            fanout.there(ConversationId([number; 16]), &list, &registry);
            fanout.there(ConversationId([0; 16]), &list, &registry);
        }
        assert_eq!(fanout.large.len(), KEPT_MAX);
        assert!(fanout.large.contains_key(&ConversationId([0; 16])));
        assert!(!fanout.large.contains_key(&ConversationId([1; 16])));
    }
}
