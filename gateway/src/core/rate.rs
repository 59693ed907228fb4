//! Token buckets, each kept as one number: the time at which it would be full again (the generic cell rate algorithm, ITU-T I.371).
//!
//! A full bucket says nothing, so it needs no memory: that is what makes a bounded table of them possible. Time comes from the caller and
//! never goes back.

/// Rate and burst of one kind of bucket. Buckets are the caller's: nanoseconds at which each is full again; 0 for a new one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rate {
    /// What a token takes to grow; 0 if there is no limit.
    interval_ns: u64,
    /// What all tokens of a full bucket took to grow.
    capacity_ns: u64,
}

impl Rate {
    /// No limit.
    pub const NONE: Self = Self { interval_ns: 0, capacity_ns: 0 };

    /// One shard's share of a node's limit; a rate of 0 is none.
    ///
    /// The kernel spreads connections over the listeners of a port by a hash of both ends' addresses and ports, so of `n` connections a
    /// shard gets `n / shards`, give or take the square root of that. The rate is divided, which is right over time. The burst is
    /// divided and four such deviations added: a shard gets more than that of a full burst by chance three times in a hundred thousand,
    /// and an address that is spread evenly gets no more than that on top.
    #[must_use]
    pub fn share(per_second: u32, burst: u32, shards: u16) -> Self {
        if per_second == 0 {
            return Self::NONE;
        }
        let shards = shards.max(1);
        let interval_ns = 1_000_000_000 * u64::from(shards) / u64::from(per_second);
        let mean = f64::from(burst.max(1)) / f64::from(shards);
        let tokens = if shards == 1 { mean } else { (mean + 4.0 * mean.sqrt()).min(f64::from(burst.max(1))) };
        Self { interval_ns, capacity_ns: interval_ns * (tokens.ceil() as u64).max(1) }
    }

    /// Whether there is a limit.
    #[must_use]
    pub const fn is_limited(self) -> bool {
        self.interval_ns > 0
    }

    /// Takes one token, or says in how many nanoseconds there will be one.
    pub const fn spend(self, full_at_ns: &mut u64, now_ns: u64) -> Result<(), u64> {
        let debt_ns = full_at_ns.saturating_sub(now_ns) + self.interval_ns;
        if self.is_limited() && debt_ns > self.capacity_ns {
            return Err(debt_ns - self.capacity_ns);
        }
        *full_at_ns = now_ns + debt_ns;
        Ok(())
    }

    /// Takes tokens whether there are any or not, down to a second bucket's worth below empty.
    pub fn fine(self, full_at_ns: &mut u64, now_ns: u64, tokens: u32) {
        let debt_ns = full_at_ns.saturating_sub(now_ns) + self.interval_ns * u64::from(tokens);
        *full_at_ns = now_ns + debt_ns.min(2 * self.capacity_ns);
    }

    /// Whether the bucket is at least half empty: its owner is being limited, or will be soon.
    pub(super) const fn is_low(self, full_at_ns: u64, now_ns: u64) -> bool {
        full_at_ns.saturating_sub(now_ns) > self.capacity_ns / 2
    }
}

/// A rate for very many small buckets of four bytes each, in units of its own: a bucket that is full holds any time that is past, and one
/// that was not touched for so long that the clock's low half has come round is taken for full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SmallRate {
    unit_us: u64,
    interval: u64,
    capacity: u32,
}

impl SmallRate {
    /// Tokens a second, and at once. Rates above a million a second are a million.
    ///
    /// A bucket may rest for 67 minutes, or longer where an empty one takes more than four to fill, before its time is ambiguous; every
    /// connection says something within 61, or is closed.
    #[must_use]
    pub fn new(per_second: u32, burst: u32) -> Self {
        let interval_us = 1_000_000 / u64::from(per_second.clamp(1, 1_000_000));
        let capacity_us = interval_us * u64::from(burst.max(1));
        // At most 2^28 of the clock's 2^32 units.
        let unit_us = (capacity_us >> 28) + 1;
        let interval = (interval_us / unit_us).max(1);
        Self { unit_us, interval, capacity: (interval * u64::from(burst.max(1))).min(u64::from(u32::MAX / 16)) as u32 }
    }

    /// A bucket that is full.
    #[must_use]
    pub const fn full(self, now_us: u64) -> u32 {
        (now_us / self.unit_us) as u32
    }

    /// Takes tokens; `false` if there are not so many.
    pub fn spend(self, full_at: &mut u32, now_us: u64, tokens: u32) -> bool {
        let now = self.full(now_us);
        let debt = Some(full_at.wrapping_sub(now)).filter(|debt| *debt <= self.capacity).unwrap_or(0);
        let debt = u64::from(debt) + self.interval * u64::from(tokens);
        if debt > u64::from(self.capacity) {
            return false;
        }
        *full_at = now.wrapping_add(debt as u32);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    fn taken(rate: Rate, full_at_ns: &mut u64, now_ns: u64) -> usize {
        (0..100_000).take_while(|_| rate.spend(full_at_ns, now_ns).is_ok()).count()
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let rate = Rate::share(10, 30, 1);
        let (mut bucket, mut now) = (0, 5 * SECOND_NS);
        assert_eq!(taken(rate, &mut bucket, now), 30);
        assert_eq!(rate.spend(&mut bucket, now), Err(SECOND_NS / 10));
        now += SECOND_NS;
        assert_eq!(taken(rate, &mut bucket, now), 10);
        now += 3_600 * SECOND_NS;
        assert_eq!(taken(rate, &mut bucket, now), 30);
        assert_eq!(taken(Rate::NONE, &mut 0, now), 100_000);
    }

    #[test]
    fn a_fine_keeps_the_bucket_empty_for_so_much_longer_and_no_longer_than_twice_its_filling() {
        let rate = Rate::share(10, 30, 1);
        let mut bucket = 0;
        taken(rate, &mut bucket, SECOND_NS);
        rate.fine(&mut bucket, SECOND_NS, 10);
        assert_eq!(rate.spend(&mut bucket, SECOND_NS), Err(SECOND_NS + SECOND_NS / 10));
        rate.fine(&mut bucket, SECOND_NS, 1_000_000);
        assert_eq!(bucket, SECOND_NS + 6 * SECOND_NS);
    }

    #[test]
    fn shares_of_shards_are_the_whole_again_and_some_for_chance() {
        for (per_second, burst, shards) in [(1_000, 30_000, 60), (10, 20, 2), (3, 1, 16), (1_000, 1_000, 1)] {
            let rate = Rate::share(per_second, burst, shards);
            let mut bucket = 0;
            let at_once = taken(rate, &mut bucket, SECOND_NS) as f64;
            let mean = f64::from(burst) / f64::from(shards);
            assert!(at_once >= mean && at_once <= mean + 4.0 * mean.sqrt() + 1.0, "{at_once} of {burst} in {shards}");
            let minute = taken(rate, &mut bucket, 61 * SECOND_NS) as f64;
            let fair = f64::from(per_second) * 60.0 / f64::from(shards);
            assert!(minute <= fair + 1.0 && minute >= fair.min(at_once) - 1.0, "{minute} of {fair}");
        }
    }

    #[test]
    fn a_small_bucket_gives_its_burst_and_then_its_rate_over_any_round_of_its_clock() {
        for (per_second, burst) in [(200, 800), (1, 1_000_000), (1_000_000, 10), (4_000_000, 4_000_000), (50, 1)] {
            let rate = SmallRate::new(per_second, burst);
            // Just before the 32 bits come round, for units of a microsecond.
            for start_us in [0, u64::from(u32::MAX) - 500_000, 1 << 40] {
                let mut bucket = rate.full(start_us);
                let all = (0..).take_while(|_| rate.spend(&mut bucket, start_us, 1)).count() as u64;
                assert_eq!(all, u64::from(burst), "{per_second} {burst}");
                let seconds = u64::from(burst) / u64::from(per_second.min(1_000_000)) + 1;
                let half_us = start_us + seconds * 500_000;
                let half = (0..).take_while(|_| rate.spend(&mut bucket, half_us, 1)).count() as u64;
                let fair = (seconds * u64::from(per_second)).div_ceil(2);
                assert!(half <= fair + fair / 100 + 1 && half > 0, "{half} of {burst}");
                // An hour's rest fills it, though the clock has nearly come round.
                assert!(rate.spend(&mut bucket, half_us + 3_600_000_000, 1), "{per_second} {burst}");
            }
        }
        let rate = SmallRate::new(200, 800);
        assert!(!rate.spend(&mut rate.full(0), 0, 801));
    }
}
