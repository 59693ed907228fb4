//! Those who have come and are not attached to their lanes yet, and whether more may come.
//!
//! When all of a node's clients come back at once, its lanes are behind, and whoever is accepted then only waits inside, between the
//! lanes and the messages of those who are back. So no more are accepted than the lanes keep up with; the others wait in the listeners'
//! backlogs, where they cost nothing. Invariants: nobody is held while the lanes are not behind; one who says nothing counts for five
//! seconds at most, and holds nobody up while the lanes keep up.

/// Sessions of a shard that wait for a lane, from which on its lanes are behind.
const BEHIND_AT: u64 = 2;

/// Newcomers of a node, shared by its shards: what a lane attaches in 80 ms, at the 13,000 a second that were measured.
const NEWCOMERS_MAX: u64 = 1_024;

/// Bounds of a shard's part: enough to keep its lanes busy; and a few milliseconds of a core's work.
const SHARD_NEWCOMERS_MIN: u64 = 64;
const SHARD_NEWCOMERS_MAX: u64 = 256;

/// Those who came in one are counted together, until the next is over: longer than an opening takes on a busy machine.
const PERIOD_MS: u64 = 2_500;

/// A shard's newcomers.
#[derive(Debug)]
pub(super) struct Newcomers {
    max: u64,
    period: u64,
    /// Accepted in this period and the one before, by its last bit, and not welcomed. Those who went are among them.
    unwelcomed: [u64; 2],
    holds: bool,
}

impl Newcomers {
    pub(super) fn new(shards: u16) -> Self {
        let max = (NEWCOMERS_MAX / u64::from(shards.max(1))).clamp(SHARD_NEWCOMERS_MIN, SHARD_NEWCOMERS_MAX);
        Self { max, period: 0, unwelcomed: [0; 2], holds: false }
    }

    /// One was accepted.
    pub(super) fn came(&mut self, now_ms: u64) {
        self.proceed(now_ms);
        self.unwelcomed[place(self.period)] += 1;
    }

    /// One that was accepted then has its session.
    pub(super) fn welcomed(&mut self, accepted_ms: u64, now_ms: u64) {
        self.proceed(now_ms);
        let period = accepted_ms / PERIOD_MS;
        if period + 1 >= self.period {
            let unwelcomed = &mut self.unwelcomed[place(period)];
            *unwelcomed = unwelcomed.saturating_sub(1);
        }
    }

    /// Whether those who come now are to wait outside: from the bound on, until half of it is left. `attaching` wait for a lane.
    pub(super) fn are_held(&mut self, attaching: u64, now_ms: u64) -> bool {
        self.proceed(now_ms);
        let newcomers = attaching + self.unwelcomed.iter().sum::<u64>();
        let bound = if self.holds { self.max / 2 } else { self.max };
        self.holds = attaching >= BEHIND_AT && newcomers >= bound;
        self.holds
    }

    fn proceed(&mut self, now_ms: u64) {
        let period = now_ms / PERIOD_MS;
        if period == self.period + 1 {
            self.unwelcomed[place(period)] = 0;
        } else if period > self.period {
            self.unwelcomed = [0; 2];
        }
        self.period = period;
    }
}

const fn place(period: u64) -> usize {
    (period & 1) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard_of_many() -> Newcomers {
        let mut newcomers = Newcomers::new(100);
        newcomers.proceed(10_000);
        newcomers
    }

    #[test]
    fn they_are_held_while_the_lanes_are_behind_until_half_are_in() {
        let mut newcomers = shard_of_many();
        (0..64).for_each(|_| newcomers.came(10_000));
        assert!(!newcomers.are_held(BEHIND_AT - 1, 10_000), "the lanes keep up");
        (0..20).for_each(|_| newcomers.welcomed(10_000, 10_010));
        assert!(newcomers.are_held(20, 10_010), "44 come, 20 wait for a lane");
        assert!(newcomers.are_held(8, 10_020), "52 are more than half");
        assert!(!newcomers.are_held(BEHIND_AT - 1, 10_020), "the lanes keep up again");
        assert!(!newcomers.are_held(8, 10_020), "52 are fewer than the bound");
        assert!(newcomers.are_held(20, 10_020));
        (0..20).for_each(|_| newcomers.welcomed(10_000, 10_030));
        assert!(!newcomers.are_held(7, 10_030), "31 are fewer than half");
        assert!(!newcomers.are_held(30, 10_040), "54 are fewer than the bound");
        assert!(newcomers.are_held(40, 10_040));
    }

    #[test]
    fn the_silent_count_for_two_periods_at_most() {
        let mut newcomers = shard_of_many();
        (0..1_000).for_each(|_| newcomers.came(12_400));
        assert!(newcomers.are_held(BEHIND_AT, 14_900));
        assert!(!newcomers.are_held(BEHIND_AT, 15_000));
        // One that comes to itself later takes nobody else's place.
        newcomers.came(15_000);
        newcomers.welcomed(12_400, 15_001);
        assert_eq!(newcomers.unwelcomed.iter().sum::<u64>(), 1);
        (0..1_000).for_each(|_| newcomers.came(15_002));
        assert!(!newcomers.are_held(BEHIND_AT, 60_000), "after a long pause nobody is left");
    }

    #[test]
    fn fewer_shards_have_more_each() {
        assert_eq!([1, 8, 15, 100].map(|shards| Newcomers::new(shards).max), [256, 128, 68, 64]);
    }
}
