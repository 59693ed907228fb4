//! What those hear of a large conversation who are there and do not look at it: that it has gone on, and how far.
//!
//! Each conversation that something happens in goes through its members who are there, some at a time, and tells each of them how far it is at
//! that moment. What happens meanwhile makes one more round, however much it is.
//!
//! Invariants: whoever was there when something happened, and still is, hears of it or of something later; between two rounds of one
//! conversation lies a set time. Up to [`Hints::floor`] everybody has heard of everything, so a position up to there stands for all of it.
//! Must not do: I/O, or read a clock.

use std::{
    collections::{BTreeSet, HashMap, hash_map::Entry},
    rc::Rc,
};

use antiphon_wire::{
    frame::Advanced,
    ids::{ConversationId, LanePosition, Sequence, UserId},
};

use super::{fanout::Fanout, registry::Registry};

/// A conversation that has gone on.
#[derive(Debug)]
struct News {
    members: Rc<[UserId]>,
    last: Advanced,
    /// Everybody has heard of this one.
    told: Sequence,
    /// Up to here in the lane they have heard of everything; `None` if of all there is.
    floor: Option<LanePosition>,
    /// The same once the round is over.
    floor_then: Option<LanePosition>,
    /// While they are told: how far the conversation was when that began, and who was the last one so far.
    round: Option<(Sequence, Option<UserId>)>,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Hints {
    news: HashMap<ConversationId, News>,
    /// Each once, by when it is looked at: one that is being told comes before all that begin later.
    due: BTreeSet<(u64, ConversationId)>,
}

impl Hints {
    /// A conversation has gone on, by an entry that comes after `before` in the lane; `members` are all of them now.
    pub(crate) fn note(&mut self, members: Rc<[UserId]>, last: Advanced, before: LanePosition, now_ms: u64) {
        match self.news.entry(last.conversation) {
            Entry::Occupied(known) => {
                let news = known.into_mut();
                (news.members, news.last) = (members, last);
                let floor = if news.round.is_some() { &mut news.floor_then } else { &mut news.floor };
                floor.get_or_insert(before);
            }
            Entry::Vacant(vacant) => {
                self.due.insert((now_ms, last.conversation));
                let (told, floor) = (Sequence(0), Some(before));
                vacant.insert(News { members, last, told, floor, floor_then: None, round: None });
            }
        }
    }

    /// These are all members from now on, whether or not the entry that says so is told by a hint.
    pub(crate) fn changed(&mut self, conversation: ConversationId, members: &Rc<[UserId]>) {
        if let Some(news) = self.news.get_mut(&conversation) {
            news.members = members.clone();
        }
    }

    /// Up to where in the lane all have heard of everything; `None` if of all there is.
    pub(crate) fn floor(&self) -> Option<LanePosition> {
        self.news.values().filter_map(|news| news.floor).min()
    }

    /// When there is something to do.
    pub(crate) fn due_ms(&self) -> Option<u64> {
        self.due.first().map(|(due_ms, _)| *due_ms)
    }

    /// The next some users to be told, and what. A conversation's next round begins `apart_ms` after the end of the one before.
    pub(crate) fn slice(
        &mut self,
        now_ms: u64,
        users_max: usize,
        apart_ms: u64,
        fanout: &mut Fanout,
        registry: &Registry,
    ) -> Option<(Advanced, Vec<UserId>)> {
        loop {
            let (due_ms, conversation) = self.due.first().copied().filter(|(due_ms, _)| *due_ms <= now_ms)?;
            let news = self.news.get_mut(&conversation).expect("what is due has news");
            if news.round.is_none() && news.told == news.last.sequence {
                self.due.pop_first();
                self.news.remove(&conversation);
                continue;
            }
            let there = fanout.there(conversation, &news.members, registry);
            let (begun, after) = news.round.get_or_insert((news.last.sequence, None));
            let from = after.as_ref().map_or(0, |after| there.partition_point(|user| user <= after));
            let users: Vec<UserId> = there[from..].iter().take(users_max).cloned().collect();
            if from + users.len() < there.len() {
                *after = users.last().cloned();
            } else {
                (news.told, news.round, news.floor) = (*begun, None, news.floor_then.take());
                self.due.remove(&(due_ms, conversation));
                self.due.insert((now_ms + apart_ms, conversation));
            }
            return Some((news.last.clone(), users));
        }
    }
}

#[cfg(test)]
mod tests {
    use antiphon_wire::ids::{DeviceId, Epoch, Ordinal, TimestampMs};

    use super::*;
    use crate::core::{
        mesh::{MeshConnection, ShardId},
        registry::Route,
    };

    struct Bench {
        hints: Hints,
        fanout: Fanout,
        registry: Registry,
        members: Rc<[UserId]>,
    }

    impl Bench {
        /// So many members; those with an even number are there.
        fn new(members: u32) -> Self {
            let mut bench = Self {
                hints: Hints::default(),
                fanout: Fanout::default(),
                registry: Registry::default(),
                members: (0..members).map(user).collect(),
            };
            (0..members).step_by(2).for_each(|number| bench.comes(number));
            bench
        }

        fn comes(&mut self, number: u32) {
            let connection = MeshConnection { slot: number, generation: 0 };
            let route = Route { device: DeviceId::new("d").unwrap(), shard: ShardId(0), connection };
            self.registry.attach(user(number), route, false);
            self.fanout.note(&user(number));
        }

        fn note(&mut self, conversation: u8, sequence: u64, now_ms: u64) {
            let last = Advanced {
                conversation: ConversationId([conversation; 16]),
                epoch: Epoch(1),
                sequence: Sequence(sequence),
                ordinal: Ordinal(sequence),
                time_ms: TimestampMs(now_ms),
            };
            // In the lane it stands where its sequence says.
            self.hints.note(self.members.clone(), last, LanePosition(sequence - 1), now_ms);
        }

        /// Up to three users, with a second between rounds: which conversation, how far, and who.
        fn slice(&mut self, now_ms: u64) -> Option<(u8, u64, Vec<String>)> {
            let (last, users) = self.hints.slice(now_ms, 3, 1_000, &mut self.fanout, &self.registry)?;
            Some((last.conversation.0[0], last.sequence.0, users.iter().map(ToString::to_string).collect()))
        }
    }

    fn user(number: u32) -> UserId {
        UserId::new(&format!("u{number:02}")).unwrap()
    }

    fn said(conversation: u8, sequence: u64, users: &[&str]) -> Option<(u8, u64, Vec<String>)> {
        Some((conversation, sequence, users.iter().map(|user| (*user).to_owned()).collect()))
    }

    #[test]
    fn each_is_told_how_far_it_is_and_what_came_meanwhile_makes_one_more_round() {
        let mut bench = Bench::new(10);
        bench.note(1, 5, 100);
        assert_eq!(bench.slice(100), said(1, 5, &["u00", "u02", "u04"]));
        (6..=50).for_each(|sequence| bench.note(1, sequence, 105));
        // One who comes behind those who were told needs no word; one before is in the rest.
        bench.comes(1);
        bench.comes(7);
        assert_eq!(bench.slice(110), said(1, 50, &["u06", "u07", "u08"]));
        assert_eq!((bench.slice(111), bench.hints.due_ms()), (None, Some(1_110)));
        assert_eq!(bench.hints.floor(), Some(LanePosition(5)), "some have not heard of 6");
        assert_eq!(bench.slice(1_110), said(1, 50, &["u00", "u01", "u02"]));
        assert_eq!(bench.slice(1_111), said(1, 50, &["u04", "u06", "u07"]));
        assert_eq!(bench.slice(1_112), said(1, 50, &["u08"]));
        assert_eq!(bench.hints.floor(), None);
        // So soon after it not even the first one makes a round at once.
        bench.note(1, 51, 1_200);
        assert_eq!((bench.slice(1_200), bench.hints.due_ms()), (None, Some(2_112)));
        assert_eq!(bench.slice(2_112), said(1, 51, &["u00", "u01", "u02"]));
        assert_eq!(bench.slice(2_112), said(1, 51, &["u04", "u06", "u07"]));
        assert_eq!(bench.slice(2_112), said(1, 51, &["u08"]));
        assert_eq!(bench.slice(9_000), None);
        assert!(bench.hints.news.is_empty() && bench.hints.due_ms().is_none());
    }

    #[test]
    fn conversations_take_turns() {
        let mut bench = Bench::new(8);
        bench.note(1, 5, 100);
        bench.note(2, 9, 101);
        assert_eq!(bench.slice(101), said(1, 5, &["u00", "u02", "u04"]));
        bench.note(1, 6, 102);
        assert_eq!(bench.hints.floor(), Some(LanePosition(4)));
        assert_eq!(bench.slice(102), said(1, 6, &["u06"]));
        assert_eq!(bench.hints.floor(), Some(LanePosition(5)));
        assert_eq!(bench.slice(103), said(2, 9, &["u00", "u02", "u04"]));
        assert_eq!(bench.slice(103), said(2, 9, &["u06"]));
        assert_eq!(bench.slice(103), None);
        assert_eq!(bench.slice(1_102), said(1, 6, &["u00", "u02", "u04"]));
    }

    #[test]
    fn where_nobody_is_there_nobody_is_told() {
        let mut bench = Bench::new(1);
        bench.registry.detach(&user(0), ShardId(0), MeshConnection { slot: 0, generation: 0 });
        bench.fanout.note(&user(0));
        bench.note(1, 5, 100);
        assert_eq!(bench.slice(100), said(1, 5, &[]));
        assert_eq!(bench.slice(1_100), None);
        assert!(bench.hints.news.is_empty());
    }
}
