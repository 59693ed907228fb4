//! When messages are meant to be sent: planned ahead, whatever the server does with the earlier ones (an open loop). Latency is
//! counted from these times, so a stall of the server shows up in every message that it should have taken meanwhile.

use crate::{
    clock::{Nanoseconds, SECOND_NS},
    random::Random,
};

/// How arrivals are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Spread {
    /// Independent arrivals: exponential gaps. What many people together look like.
    Poisson,
    /// Equal gaps.
    Fixed,
}

/// The plan of one client thread.
#[derive(Debug, Clone)]
pub struct Arrivals {
    spread: Spread,
    rate_per_second: f64,
    // Kept as a fraction so that rounding does not add up over a long run.
    next_ns: f64,
    end_ns: Nanoseconds,
    random: Random,
}

impl Arrivals {
    /// Arrivals at `rate_per_second` from `start_ns` until before `end_ns`. A rate of 0 has none.
    #[must_use]
    pub fn new(
        spread: Spread,
        rate_per_second: f64,
        start_ns: Nanoseconds,
        end_ns: Nanoseconds,
        random: Random,
    ) -> Self {
        let mut arrivals = Self { spread, rate_per_second, next_ns: start_ns as f64, end_ns, random };
        match spread {
            Spread::Poisson => arrivals.advance(),
            // Threads with the same rate must not all send in the same instant.
            Spread::Fixed => arrivals.next_ns += arrivals.random.unit() * SECOND_NS as f64 / rate_per_second,
        }
        arrivals
    }

    /// The next planned time, if there is one.
    #[must_use]
    pub fn peek_ns(&self) -> Option<Nanoseconds> {
        // A rate of 0 makes the next time infinite.
        (self.next_ns < self.end_ns as f64).then_some(self.next_ns as Nanoseconds)
    }

    /// Takes the next planned time if it has come.
    pub fn take_due(&mut self, now_ns: Nanoseconds) -> Option<Nanoseconds> {
        let due_ns = self.peek_ns().filter(|&due_ns| due_ns <= now_ns)?;
        self.advance();
        Some(due_ns)
    }

    fn advance(&mut self) {
        let mean_ns = SECOND_NS as f64 / self.rate_per_second;
        self.next_ns += match self.spread {
            Spread::Poisson => -self.random.unit().ln() * mean_ns,
            Spread::Fixed => mean_ns,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gaps(spread: Spread, rate: f64) -> Vec<f64> {
        let mut arrivals = Arrivals::new(spread, rate, 0, 100 * SECOND_NS, Random::new(1, 1));
        let mut last = None;
        let mut gaps = Vec::new();
        while let Some(at) = arrivals.take_due(Nanoseconds::MAX) {
            if let Some(last) = last.replace(at) {
                gaps.push((at - last) as f64);
            }
        }
        gaps
    }

    #[test]
    fn both_spreads_hold_the_rate() {
        for spread in [Spread::Poisson, Spread::Fixed] {
            let count = gaps(spread, 1_000.0).len();
            assert!((99_000..101_000).contains(&count), "{spread:?}: {count}");
        }
    }

    #[test]
    fn poisson_gaps_vary_as_much_as_their_mean_and_fixed_ones_do_not() {
        let deviation_over_mean = |gaps: &[f64]| {
            let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
            let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
            variance.sqrt() / mean
        };
        assert!((deviation_over_mean(&gaps(Spread::Poisson, 1_000.0)) - 1.0).abs() < 0.02);
        assert!(deviation_over_mean(&gaps(Spread::Fixed, 1_000.0)) < 0.001);
    }

    #[test]
    fn the_plan_does_not_depend_on_when_it_is_asked() {
        let plan = || Arrivals::new(Spread::Poisson, 100.0, SECOND_NS, 3 * SECOND_NS, Random::new(9, 0));
        let (mut late, mut prompt) = (plan(), plan());
        let late: Vec<_> = std::iter::from_fn(|| late.take_due(10 * SECOND_NS)).collect();
        let prompt: Vec<_> = (0..4_000).filter_map(|ms| prompt.take_due(ms * 1_000_000)).collect();
        assert_eq!(late.len(), prompt.len());
        assert_eq!(late, prompt);
        assert!(late.iter().all(|&at| (SECOND_NS..3 * SECOND_NS).contains(&at)));
    }

    #[test]
    fn no_rate_no_arrival() {
        for spread in [Spread::Poisson, Spread::Fixed] {
            assert_eq!(Arrivals::new(spread, 0.0, 0, Nanoseconds::MAX, Random::new(1, 0)).peek_ns(), None);
        }
    }
}
