//! `loadgen soak`: whether the node's memory or the latency of deliveries drifts upwards over a long run. Pure: the timeline in, a
//! verdict out.

use serde::Serialize;

use crate::{
    report::Row,
    trend::{POINTS_MIN, Trend, trend},
};

/// The part of a run's beginning that is not looked at: caches fill, logs are preallocated, memory finds its level.
const SETTLING_PART: f64 = 0.2;

/// What drifted.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct SoakFigures {
    /// The node's resident memory; `None` if its process was not found.
    pub memory: Option<Trend>,
    /// The p99 of deliveries.
    pub latency: Trend,
}

/// Looks at a timeline.
#[must_use]
pub fn judge(rows: &[Row], warmup_seconds: u64, memory_max: f64, latency_max: f64) -> (SoakFigures, Vec<String>) {
    let load: Vec<&Row> = rows.iter().filter(|row| row.second >= warmup_seconds).collect();
    let settled = &load[(load.len() as f64 * SETTLING_PART) as usize..];
    let memory: Vec<f64> = settled.iter().filter_map(|row| row.server_rss_bytes).map(|bytes| bytes as f64).collect();
    let latency: Vec<f64> =
        settled.iter().filter(|row| row.delivered > 0).map(|row| row.send_to_deliver_p99_us as f64).collect();
    let figures = SoakFigures {
        memory: (!memory.is_empty()).then(|| trend(&memory, memory_max)),
        latency: trend(&latency, latency_max),
    };
    let mut failures = Vec::new();
    let mut look = |found: Trend, name: &str, growth_max: f64| {
        if found.rises {
            let (growth, allowed) = (found.growth * 100.0, growth_max * 100.0);
            failures.push(format!("{name} rises: {growth:.1} % over the run, beyond {allowed:.1} %; z {:.1}", found.z));
        } else if found.points < POINTS_MIN {
            failures.push(format!("{name}: {} points show no trend; soak for longer", found.points));
        }
    };
    if let Some(memory) = figures.memory {
        look(memory, "the node's memory", memory_max);
    }
    look(figures.latency, "the p99 of deliveries", latency_max);
    (figures, failures)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rss: impl Fn(u64) -> u64, p99: impl Fn(u64) -> u64) -> Vec<Row> {
        let row = |second| Row {
            second,
            delivered: 9,
            server_rss_bytes: Some(rss(second)),
            send_to_deliver_p99_us: p99(second),
            ..Row::default()
        };
        (0..1_000).map(row).collect()
    }

    /// Something irregular below 100.
    fn noise(second: u64) -> u64 {
        crate::random::mix(second) % 100
    }

    #[test]
    fn a_level_run_passes_though_its_memory_grew_at_first() {
        let rows = rows(|second| 1_000_000 + 5_000 * second.min(200) + noise(second), |second| 900 + noise(second));
        let (figures, failures) = judge(&rows, 2, 0.1, 0.5);
        assert!(failures.is_empty() && figures.memory.is_some(), "{failures:?}");
    }

    #[test]
    fn a_leak_and_a_slow_down_are_found() {
        let leak = rows(|second| 1_000_000 + 500 * second, |second| 900 + noise(second));
        assert!(judge(&leak, 2, 0.1, 0.5).1[0].contains("memory rises"));
        let slower = rows(|_| 1_000_000, |second| 900 + 2 * second + noise(second));
        assert!(judge(&slower, 2, 0.1, 0.5).1[0].contains("p99 of deliveries rises"));
    }

    #[test]
    fn a_run_too_short_to_tell_does_not_pass() {
        assert_eq!(judge(&rows(|_| 1, |_| 1)[..5], 0, 0.1, 0.5).1.len(), 2);
        assert_eq!(judge(&[], 0, 0.1, 0.5).1.len(), 1);
    }
}
