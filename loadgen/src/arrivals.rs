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

/// A stretch of time over which the rate changes evenly.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Segment {
    /// Where it begins.
    pub from_ns: Nanoseconds,
    /// Before which it ends.
    pub to_ns: Nanoseconds,
    /// Arrivals a second at its beginning.
    pub rate_from: f64,
    /// Arrivals a second at its end.
    pub rate_to: f64,
}

impl Segment {
    /// When `count` more arrivals are due after `at_ns`; or how many of them are left for the next segment.
    fn after(&self, at_ns: f64, count: f64) -> Result<f64, f64> {
        let at_ns = at_ns.max(self.from_ns as f64);
        let seconds = (self.to_ns as f64 - at_ns) / SECOND_NS as f64;
        if seconds <= 0.0 {
            return Err(count);
        }
        let whole = (self.to_ns - self.from_ns) as f64 / SECOND_NS as f64;
        let slope = (self.rate_to - self.rate_from) / whole;
        let rate = self.rate_from + slope * (whole - seconds);
        let left = (rate + self.rate_to) / 2.0 * seconds;
        if count >= left {
            return Err(count - left);
        }
        // The smaller root of slope t²/2 + rate t = count, in the form that divides by no small number.
        let root = (rate * rate + 2.0 * slope * count).max(0.0).sqrt();
        Ok(at_ns + 2.0 * count / (rate + root) * SECOND_NS as f64)
    }
}

/// The plan of one client thread.
#[derive(Debug, Clone)]
pub struct Arrivals {
    spread: Spread,
    segments: Vec<Segment>,
    segment: usize,
    // Kept as a fraction so that rounding does not add up over a long run.
    next_ns: f64,
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
        let segment =
            Segment { from_ns: start_ns, to_ns: end_ns, rate_from: rate_per_second, rate_to: rate_per_second };
        Self::shaped(spread, vec![segment], random)
    }

    /// Arrivals whose rate changes; segments follow each other.
    #[must_use]
    pub fn shaped(spread: Spread, segments: Vec<Segment>, mut random: Random) -> Self {
        let first = match spread {
            Spread::Poisson => -random.unit().ln(),
            // Threads with the same rate must not all send in the same instant.
            Spread::Fixed => random.unit(),
        };
        let mut arrivals = Self { spread, segments, segment: 0, next_ns: 0.0, random };
        arrivals.advance(first);
        arrivals
    }

    /// The next planned time, if there is one.
    #[must_use]
    pub fn peek_ns(&self) -> Option<Nanoseconds> {
        self.next_ns.is_finite().then_some(self.next_ns as Nanoseconds)
    }

    /// Takes the next planned time if it has come.
    pub fn take_due(&mut self, now_ns: Nanoseconds) -> Option<Nanoseconds> {
        let due_ns = self.peek_ns().filter(|&due_ns| due_ns <= now_ns)?;
        let count = match self.spread {
            Spread::Poisson => -self.random.unit().ln(),
            Spread::Fixed => 1.0,
        };
        self.advance(count);
        Some(due_ns)
    }

    /// Goes on by an expected number of arrivals: gaps are drawn at a rate of one, and stretched to the rate of the moment.
    fn advance(&mut self, mut count: f64) {
        while let Some(segment) = self.segments.get(self.segment) {
            match segment.after(self.next_ns, count) {
                Ok(next_ns) => {
                    self.next_ns = next_ns;
                    return;
                }
                Err(left) => {
                    count = left;
                    self.segment += 1;
                }
            }
        }
        self.next_ns = f64::INFINITY;
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

    #[test]
    fn ramps_have_the_area_of_their_rates() {
        let segment = |from: u64, to: u64, rate_from, rate_to| Segment {
            from_ns: from * SECOND_NS,
            to_ns: to * SECOND_NS,
            rate_from,
            rate_to,
        };
        let segments = vec![
            segment(0, 10, 0.0, 1_000.0),
            segment(10, 20, 1_000.0, 1_000.0),
            segment(20, 30, 1_000.0, 0.0),
            segment(30, 40, 0.0, 0.0),
            segment(40, 50, 100.0, 100.0),
        ];
        for spread in [Spread::Poisson, Spread::Fixed] {
            let mut arrivals = Arrivals::shaped(spread, segments.clone(), Random::new(1, 1));
            let all: Vec<_> = std::iter::from_fn(|| arrivals.take_due(Nanoseconds::MAX)).collect();
            let within = |from: u64, to: u64| {
                all.iter().filter(|&&at| (from * SECOND_NS..to * SECOND_NS).contains(&at)).count() as f64
            };
            for (from, to, expect) in
                [(0, 5, 1_250.0), (5, 10, 3_750.0), (10, 20, 10_000.0), (20, 30, 5_000.0), (40, 50, 1_000.0)]
            {
                let got = within(from, to);
                assert!((got - expect).abs() < 5.0 * f64::sqrt(expect), "{spread:?} {from}..{to}: {got}");
            }
            assert_eq!(within(30, 40), 0.0);
        }
    }
}
