//! Exact percentiles of the durations of one job: some ten thousand numbers at most.

use std::time::Duration;

use crate::job::Latencies;

/// Sorts them.
#[must_use]
pub fn summary(durations: &mut [Duration]) -> Latencies {
    durations.sort_unstable();
    // The least that at least this share does not exceed.
    let quantile = |share: f64| {
        let place = (durations.len() as f64 * share).ceil() as usize;
        durations.get(place.saturating_sub(1)).map_or(0, nanoseconds)
    };
    Latencies {
        count: durations.len() as u64,
        sum_ns: durations.iter().map(nanoseconds).sum(),
        p50_ns: quantile(0.5),
        p99_ns: quantile(0.99),
        max_ns: quantile(1.0),
    }
}

pub(crate) fn nanoseconds(duration: &Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_the_least_that_do() {
        let mut durations: Vec<_> = (1..=100).rev().map(Duration::from_nanos).collect();
        let expect = Latencies { count: 100, sum_ns: 5_050, p50_ns: 50, p99_ns: 99, max_ns: 100 };
        assert_eq!(summary(&mut durations), expect);
        let one = Latencies { count: 1, sum_ns: 7, p50_ns: 7, p99_ns: 7, max_ns: 7 };
        assert_eq!(summary(&mut [Duration::from_nanos(7)]), one);
        assert_eq!(summary(&mut []), Latencies::default());
    }
}
