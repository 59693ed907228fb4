//! From outcomes of rounds to figures: medians, spreads, ratios.
//!
//! Peers take turns within a round, so a ratio is made of two outcomes of the same round, which the same noise has hit,
//! and the median is taken of the ratios. Pure.

use super::drive::Outcome;

/// Middle, least and most of some rounds.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub(crate) struct Figure {
    /// The middle one, or between the two in the middle.
    pub(crate) median: f64,
    /// The least.
    pub(crate) least: f64,
    /// The most.
    pub(crate) most: f64,
}

impl Figure {
    /// `None` of nothing.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) {
            f64::midpoint(values[middle - 1], values[middle])
        } else {
            values[middle]
        };
        Some(Self { median, least, most })
    }

    /// The rounds that both have, one divided by the other.
    pub(crate) fn ratio(ours: &[Option<f64>], theirs: &[Option<f64>]) -> Option<Self> {
        let pairs = ours.iter().zip(theirs);
        Self::of(pairs.filter_map(|(ours, theirs)| Some((*ours)? / (*theirs)?)))
    }
}

/// Microseconds of the server's CPU for one echo or delivery.
pub(super) fn cpu_us(outcome: &Outcome) -> f64 {
    outcome.server_cpu_ns as f64 / outcome.received as f64 / 1_000.0
}

/// Echoes or deliveries a second.
pub(super) fn per_second(outcome: &Outcome) -> f64 {
    outcome.received as f64 / outcome.window_ns as f64 * 1e9
}

/// The share of the window that the server or the driver, whichever fared worse, waited for its core. Who waits finds
/// more to do at once when it has the core again, and does it at less cost a message, so such a round tells of the
/// machine, not of the server.
pub(super) fn waited(outcome: &Outcome) -> f64 {
    outcome.server_waited_ns.max(outcome.driver_waited_ns) as f64 / outcome.window_ns as f64
}

/// The share of its core that the driver used. Close to 1, it measured itself.
pub(super) fn driver_cores(outcome: &Outcome) -> f64 {
    outcome.driver_cpu_ns as f64 / outcome.window_ns as f64
}

/// Growth of the server's resident memory over its connections.
pub(super) fn resident_bytes(outcome: &Outcome, connections: u32) -> f64 {
    outcome.resident_after_bytes.saturating_sub(outcome.resident_before_bytes) as f64 / f64::from(connections.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_the_middle_and_both_ends() {
        let check = |values: &[f64], expect: Option<(f64, f64, f64)>| {
            let figure = Figure::of(values.iter().copied());
            assert_eq!(figure.map(|figure| (figure.median, figure.least, figure.most)), expect, "{values:?}");
        };
        check(&[], None);
        check(&[3.0], Some((3.0, 3.0, 3.0)));
        check(&[5.0, 1.0, 2.0], Some((2.0, 1.0, 5.0)));
        check(&[4.0, 1.0, 2.0, 9.0], Some((3.0, 1.0, 9.0)));
    }

    #[test]
    fn ratios_are_made_within_a_round() {
        // Noise that doubles a round for both leaves the ratio alone; of the medians it would not be.
        let ours = [Some(1.0), Some(8.0), None, Some(3.0)];
        let theirs = [Some(2.0), Some(16.0), Some(1.0), Some(4.0)];
        let ratio = Figure::ratio(&ours, &theirs).unwrap();
        assert_eq!((ratio.median, ratio.least, ratio.most), (0.5, 0.5, 0.75));
        assert_eq!(Figure::ratio(&[None], &[Some(1.0)]), None);
    }

    #[test]
    fn an_outcome_gives_its_figures() {
        let outcome = Outcome {
            received: 1_000,
            server_cpu_ns: 5_000_000,
            server_waited_ns: 50_000_000,
            window_ns: 500_000_000,
            driver_cpu_ns: 250_000_000,
            driver_waited_ns: 25_000_000,
            p50_ns: 1,
            p99_ns: 2,
            late_p99_ns: 1,
            resident_before_bytes: 1_000,
            resident_after_bytes: 3_000,
        };
        assert_eq!((cpu_us(&outcome), per_second(&outcome), driver_cores(&outcome)), (5.0, 2_000.0, 0.5));
        assert_eq!(waited(&outcome), 0.1);
        assert_eq!((resident_bytes(&outcome, 10), resident_bytes(&outcome, 0)), (200.0, 2_000.0));
    }
}
