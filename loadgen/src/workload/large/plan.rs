//! One very large group, as it is planned: who of its members is connected, who looks at it, who sends, and when. All of it follows from numbers,
//! so every thread knows it without asking another.
//!
//! The load is a row of parts: quiet, burst, quiet, burst, …, quiet. A burst's part is longer than its messages are sent: what they cause
//! afterwards (hints go to thousands of members, some at a time) belongs to it, and the quiet part after it has nothing of it.

use super::super::plan::Part;
use crate::clock::{Nanoseconds, SECOND_NS};

/// What a run does with its large group.
#[derive(Debug, Clone)]
pub struct LargePlan {
    /// All of them.
    pub members: u32,
    /// Of these, the ones with a connection: the first.
    pub connected: u32,
    /// Connected members who have it open.
    pub viewers: u32,
    /// It is larger than what is given whole to everybody, so that all others are told by hints.
    pub hinted: bool,
    /// The connection of the first member, counted over all threads.
    pub first: u32,
    /// Messages of a burst.
    pub burst: u32,
    /// Between two of them.
    pub apart_ns: Nanoseconds,
    /// How many bursts.
    pub bursts: u32,
    /// Before, between and after them.
    pub quiet_ns: Nanoseconds,
    /// After a burst's last message, before the quiet part.
    pub tail_ns: Nanoseconds,
    /// Who sends, in turn.
    senders: Vec<u32>,
}

impl LargePlan {
    /// Chooses who sends: half of them look at the group, half do not, as far as there are such.
    pub fn choose_senders(&mut self, count: u32) {
        let plan = &*self;
        let of = |looks: bool| (0..plan.connected).filter(move |&member| plan.looks(member) == looks);
        let lookers = (count / 2).min(self.viewers).max(count.saturating_sub(self.connected - self.viewers));
        let (looking, others) = (of(true).take(lookers as usize), of(false).take((count - lookers) as usize));
        self.senders = looking.chain(others).collect();
    }

    /// How many messages, over all bursts.
    #[must_use]
    pub fn messages(&self) -> u32 {
        self.burst * self.bursts
    }

    /// Whether a connected member has the group open. They are spread evenly over all connected ones.
    #[must_use]
    pub fn looks(&self, member: u32) -> bool {
        self.lookers_before(member + 1) > self.lookers_before(member)
    }

    fn lookers_before(&self, member: u32) -> u32 {
        part_of(self.viewers, member, self.connected)
    }

    /// Whether a connected member is to be given every entry.
    #[must_use]
    pub fn is_given_all(&self, member: u32) -> bool {
        !self.hinted || self.looks(member)
    }

    /// How many of the members before this one are given every entry.
    #[must_use]
    pub fn given_all_before(&self, member: u32) -> u32 {
        if self.hinted { self.lookers_before(member) } else { member }
    }

    /// Who sends a message.
    #[must_use]
    pub fn sender(&self, number: u32) -> u32 {
        self.senders[number as usize % self.senders.len()]
    }

    /// When a message is meant to be sent, from the beginning of the first quiet part.
    #[must_use]
    pub fn intended_ns(&self, number: u32) -> Nanoseconds {
        let (burst, place) = (number / self.burst, number % self.burst);
        self.burst_from_ns(burst) + u64::from(place) * self.apart_ns
    }

    /// When a burst begins.
    #[must_use]
    pub fn burst_from_ns(&self, burst: u32) -> Nanoseconds {
        self.quiet_ns + u64::from(burst) * (self.burst_ns() + self.quiet_ns)
    }

    /// When the quiet part behind a burst ends.
    #[must_use]
    pub fn quiet_to_ns(&self, burst: u32) -> Nanoseconds {
        self.burst_from_ns(burst) + self.burst_ns() + self.quiet_ns
    }

    /// The whole part of a burst.
    fn burst_ns(&self) -> Nanoseconds {
        u64::from(self.burst) * self.apart_ns + self.tail_ns
    }

    /// Whether nothing of a burst should be going on at a time.
    #[must_use]
    pub fn is_quiet(&self, at_ns: Nanoseconds) -> bool {
        at_ns % (self.quiet_ns + self.burst_ns()) < self.quiet_ns
    }

    /// The named parts of the load. Those with an odd number are bursts.
    #[must_use]
    pub fn parts(&self) -> Vec<Part> {
        let part = |index: u32| {
            let (name, length_ns) =
                if is_burst(index as usize) { ("burst", self.burst_ns()) } else { ("quiet", self.quiet_ns) };
            Part { name: format!("{name} {}", index / 2 + 1), length_ns, rates: None }
        };
        (0..=2 * self.bursts).map(part).collect()
    }

    /// A plan without senders.
    #[must_use]
    pub fn new(members: u32, connected: u32, viewers: u32, burst: u32, bursts: u32) -> Self {
        Self {
            members,
            connected,
            viewers,
            hinted: true,
            first: 0,
            burst,
            apart_ns: SECOND_NS / 50,
            bursts,
            quiet_ns: SECOND_NS,
            tail_ns: SECOND_NS,
            senders: Vec::new(),
        }
    }
}

/// Whether a part of [`LargePlan::parts`] is a burst.
#[must_use]
pub fn is_burst(part: usize) -> bool {
    part % 2 == 1
}

fn part_of(count: u32, place: u32, of: u32) -> u32 {
    (u64::from(count) * u64::from(place) / u64::from(of.max(1))) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_look_are_spread_and_counted() {
        for (connected, viewers) in [(10, 0), (10, 10), (1_000, 200), (100_000, 777), (7, 3), (1, 1)] {
            let plan = LargePlan::new(200_000, connected, viewers, 1, 1);
            assert_eq!((0..connected).filter(|&member| plan.looks(member)).count() as u32, viewers);
            assert_eq!(plan.given_all_before(connected), viewers);
            let mut before = 0;
            for member in 0..connected {
                assert_eq!(plan.given_all_before(member), before);
                before += u32::from(plan.is_given_all(member));
            }
            let half = plan.given_all_before(connected / 2);
            assert!(half.abs_diff(viewers / 2) <= 1, "{connected} {viewers}: {half}");
        }
        let mut small = LargePlan::new(1_000, 100, 20, 1, 1);
        small.hinted = false;
        assert!((0..100).all(|member| small.is_given_all(member)) && small.given_all_before(100) == 100);
    }

    #[test]
    fn senders_are_half_of_those_who_look_as_far_as_there_are_such() {
        for (connected, viewers, count, looking) in
            [(2_000, 200, 10, 5), (10, 0, 10, 0), (10, 10, 10, 10), (10, 2, 10, 2), (10, 9, 10, 9), (50, 25, 1, 0)]
        {
            let mut plan = LargePlan::new(200_000, connected, viewers, 30, 2);
            plan.choose_senders(count);
            let senders: std::collections::BTreeSet<u32> =
                (0..plan.messages()).map(|number| plan.sender(number)).collect();
            assert_eq!(senders.len() as u32, count, "{connected} {viewers}");
            assert_eq!(senders.iter().filter(|&&member| plan.looks(member)).count(), looking, "{connected} {viewers}");
        }
    }

    #[test]
    fn parts_take_turns_and_messages_are_in_their_bursts() {
        let mut plan = LargePlan::new(200_000, 100, 10, 100, 3);
        plan.quiet_ns = 10 * SECOND_NS;
        let parts = plan.parts();
        let names: Vec<&str> = parts.iter().map(|part| part.name.as_str()).collect();
        assert_eq!(names, ["quiet 1", "burst 1", "quiet 2", "burst 2", "quiet 3", "burst 3", "quiet 4"]);
        let mut from_ns = 0;
        let mut number = 0;
        for (index, part) in parts.iter().enumerate() {
            let to_ns = from_ns + part.length_ns;
            if is_burst(index) {
                let burst = index as u32 / 2;
                assert_eq!((plan.burst_from_ns(burst), plan.quiet_to_ns(burst)), (from_ns, to_ns + plan.quiet_ns));
                assert!(!plan.is_quiet(from_ns) && !plan.is_quiet(to_ns - 1));
                for _ in 0..plan.burst {
                    assert!((from_ns..to_ns - plan.tail_ns).contains(&plan.intended_ns(number)), "{number}");
                    number += 1;
                }
            } else {
                assert!(plan.is_quiet(from_ns) && plan.is_quiet(to_ns - 1));
            }
            from_ns = to_ns;
        }
        assert_eq!(number, plan.messages());
    }
}
