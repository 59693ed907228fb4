//! When to come back: exponential backoff with full jitter, so that clients that lost a node together do not return together
//! ("Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
//!
//! Invariants: a server's hint is never undercut; the wait grows until a session was stable. Randomness is splitmix64 (Steele,
//! Lea, Flood 2014) from the caller's seed: enough to spread clients, useless for secrets.

/// Longest hint that is believed: beyond an hour a person looks first.
const HINT_MS_MAX: u32 = 3_600_000;

/// What a server said about coming back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hint {
    /// Nothing.
    None,
    /// This client's own time, spread over clients by the server.
    Spread(u32),
    /// The same time for everybody.
    AtLeast(u32),
}

/// The waits of one client.
#[derive(Debug)]
pub struct Backoff {
    random: u64,
    attempts: u32,
}

impl Backoff {
    /// No attempt has failed yet.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::after(seed, 0)
    }

    /// Some attempts have failed since the last stable session. For programs that hold very many clients and keep no more than
    /// this count for each.
    #[must_use]
    pub fn after(seed: u64, attempts: u32) -> Self {
        Self { random: seed, attempts }
    }

    /// A session was stable: the next wait is a first one.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }

    /// How long to wait before the next attempt.
    pub fn next_wait_ms(&mut self, base_ms: u32, cap_ms: u32, hint: Hint) -> u64 {
        // 2^20 times any base is beyond any cap.
        let ceiling = (u64::from(base_ms) << self.attempts.min(20)).min(u64::from(cap_ms));
        self.attempts = self.attempts.saturating_add(1);
        let jitter = self.next_random() % (ceiling + 1);
        match hint {
            Hint::None => jitter,
            Hint::Spread(hint_ms) => u64::from(hint_ms.min(HINT_MS_MAX)),
            Hint::AtLeast(hint_ms) => u64::from(hint_ms.min(HINT_MS_MAX)) + jitter,
        }
    }

    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitmix_is_the_published_one() {
        let mut backoff = Backoff::new(1_234_567);
        let got: Vec<u64> = (0..3).map(|_| backoff.next_random()).collect();
        assert_eq!(got, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn waits_grow_to_the_cap_and_start_again_after_a_reset() {
        let ceiling = |attempt: u32| (500_u64 << attempt).min(30_000);
        let mut highest = [0; 12];
        for seed in 0..500 {
            let mut backoff = Backoff::new(seed);
            for (attempt, highest) in (0..).zip(&mut highest) {
                let wait = backoff.next_wait_ms(500, 30_000, Hint::None);
                assert!(wait <= ceiling(attempt), "seed {seed}, attempt {attempt}: {wait}");
                *highest = wait.max(*highest);
            }
            backoff.reset();
            assert!(backoff.next_wait_ms(500, 30_000, Hint::None) <= 500, "seed {seed}");
        }
        for (attempt, highest) in (0..).zip(highest) {
            assert!(highest > ceiling(attempt) * 9 / 10, "attempt {attempt} is not spread: {highest}");
        }
    }

    #[test]
    fn hints_are_honoured() {
        let mut backoff = Backoff::new(7);
        assert_eq!(backoff.next_wait_ms(500, 30_000, Hint::Spread(1_234)), 1_234);
        assert_eq!(backoff.next_wait_ms(500, 30_000, Hint::Spread(u32::MAX)), 3_600_000);
        assert!((5_000..=7_000).contains(&backoff.next_wait_ms(500, 30_000, Hint::AtLeast(5_000))));
        assert_eq!(Backoff { random: 0, attempts: u32::MAX }.next_wait_ms(0, 0, Hint::None), 0);
    }
}
