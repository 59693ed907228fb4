//! `--trials N`: the same run several times. One run is an anecdote; the report is the one in the middle, with the spread of all.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{checker::Violations, report::Report, trend::median};

/// All trials.
#[derive(Debug, Clone, Serialize)]
pub struct Trials {
    /// Each of them, in order; those that failed or were not valid, too.
    pub list: Vec<Trial>,
    /// Which one the rest of the report is of, counted from 0.
    pub reported: usize,
    /// Lowest, median and highest of each figure.
    pub spread: BTreeMap<&'static str, Spread>,
}

/// One trial.
#[derive(Debug, Clone, Serialize)]
pub struct Trial {
    /// Whether it kept every promise.
    pub passed: bool,
    /// Whether its figures can be believed.
    pub valid: bool,
    /// What broke.
    pub violations: Violations,
    /// Why it failed beside that, or is not valid.
    pub because: Vec<String>,
    /// Its seed.
    pub seed: u64,
    /// Its figures, by their place in the report.
    pub figures: BTreeMap<&'static str, f64>,
}

/// One figure over all trials.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The lowest.
    pub min: f64,
    /// Half are at or below.
    pub median: f64,
    /// The highest.
    pub max: f64,
}

/// The figure that says which trial is in the middle, by kind of load.
fn deciding(command: &str) -> &'static str {
    match command {
        "idle" => "connections.established_per_second",
        "echo" => "latency_us.send_to_ack.p99",
        "large" => "large.send_to_ack.p99",
        "storm" => "storm.resumed_100_seconds",
        _ => "latency_us.send_to_deliver.p99",
    }
}

/// The figures of a report that are compared between runs, by their place in it. Absent where the load has none.
#[must_use]
pub fn figures(report: &Report) -> BTreeMap<&'static str, f64> {
    let (latency, rates) = (&report.latency_us, &report.throughput);
    let mut figures = BTreeMap::from([
        ("connections.established_per_second", report.connections.established_per_second),
        ("generator.cpu_cores", report.generator.cpu_cores),
        ("generator.late_us.p99", report.generator.late_us.p99 as f64),
        ("generator.bytes_per_connection", report.generator.bytes_per_connection),
        ("kernel.slab_bytes_per_connection", report.kernel.slab_bytes_per_connection),
    ]);
    if latency.send_to_ack.count > 0 {
        figures.extend([
            ("throughput.acked_per_second", rates.acked_per_second),
            ("latency_us.send_to_ack.p50", latency.send_to_ack.p50 as f64),
            ("latency_us.send_to_ack.p99", latency.send_to_ack.p99 as f64),
            ("latency_us.send_to_ack.p999", latency.send_to_ack.p999 as f64),
        ]);
    }
    if latency.send_to_deliver.count > 0 {
        figures.extend([
            ("throughput.delivered_per_second", rates.delivered_per_second),
            ("latency_us.send_to_deliver.p50", latency.send_to_deliver.p50 as f64),
            ("latency_us.send_to_deliver.p99", latency.send_to_deliver.p99 as f64),
            ("latency_us.send_to_deliver.p999", latency.send_to_deliver.p999 as f64),
        ]);
    }
    if let Some(server) = &report.server {
        figures.extend([
            ("server.cpu_cores", server.cpu_cores),
            ("server.rss_bytes", server.rss_bytes as f64),
            ("server.bytes_per_connection", server.bytes_per_connection),
        ]);
    }
    if let Some(storm) = &report.storm {
        let seconds = [
            ("storm.resumed_50_seconds", storm.resumed_50_seconds),
            ("storm.resumed_100_seconds", storm.resumed_100_seconds),
        ];
        figures.extend(seconds.into_iter().filter_map(|(name, seconds)| Some((name, seconds?))));
    }
    if let Some(large) = &report.large {
        figures.extend(large.figures());
    }
    if let Some(slow) = &report.slow {
        figures.insert("slow.p99_factor", slow.p99_factor);
    }
    figures
}

/// Puts trials together; there is at least one. Violations are those of all; valid and passed are only all together.
#[must_use]
pub fn together(reports: Vec<Report>) -> Option<Report> {
    let list: Vec<Trial> = reports.iter().map(trial).collect();
    let mut spread = BTreeMap::new();
    for name in list.iter().flat_map(|trial| trial.figures.keys()) {
        let mut values: Vec<f64> = list.iter().filter_map(|trial| trial.figures.get(name).copied()).collect();
        let median = median(&mut values);
        if let (Some(&min), Some(&max)) = (values.first(), values.last()) {
            spread.insert(*name, Spread { min, median, max });
        }
    }
    let reported = middle(&list, deciding(reports.first()?.command));
    let (mut violations, mut because, mut invalid) = (Violations::default(), Vec::new(), Vec::new());
    for (index, report) in reports.iter().enumerate() {
        violations.add(&report.violations);
        let tell = |reason: &String| format!("trial {}: {reason}", index + 1);
        because.extend(report.failed_because.iter().map(tell));
        invalid.extend(report.invalid_because.iter().map(tell));
        if report.connections.established < report.connections.requested {
            because.push(tell(&"not every connection was established".to_owned()));
        }
    }
    let mut report = reports.into_iter().nth(reported)?;
    (report.violations, report.failed_because) = (violations, because);
    (report.valid, report.invalid_because) = (invalid.is_empty(), invalid);
    report.trials = Some(Trials { list, reported, spread });
    Some(report)
}

fn trial(report: &Report) -> Trial {
    let because = report.failed_because.iter().chain(&report.invalid_because).cloned();
    Trial {
        passed: report.passed(),
        valid: report.valid,
        violations: report.violations,
        because: because.collect(),
        seed: report.seed,
        figures: figures(report),
    }
}

/// The trial whose figure is the (lower) median.
fn middle(list: &[Trial], name: &str) -> usize {
    let mut order: Vec<usize> = (0..list.len()).collect();
    let figure = |index: usize| list[index].figures.get(name).copied().unwrap_or(f64::INFINITY);
    order.sort_by(|&one, &other| figure(one).total_cmp(&figure(other)));
    order.get(order.len().saturating_sub(1) / 2).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::sample;

    fn with(p99: u64) -> Report {
        let mut report = sample();
        report.latency_us.send_to_deliver.p99 = p99;
        report
    }

    #[test]
    fn the_middle_one_is_reported_with_the_spread() {
        let report = together(vec![with(900), with(100), with(500)]).unwrap();
        let trials = report.trials.as_ref().unwrap();
        assert_eq!((report.latency_us.send_to_deliver.p99, trials.reported, trials.list.len()), (500, 2, 3));
        let spread = trials.spread["latency_us.send_to_deliver.p99"];
        assert_eq!(spread, Spread { min: 100.0, median: 500.0, max: 900.0 });
        assert!(report.passed() && report.valid);
    }

    #[test]
    fn one_bad_trial_fails_all_and_is_told() {
        let mut bad = with(100);
        bad.violations.lost = 2;
        (bad.valid, bad.invalid_because) = (false, vec!["late".to_owned()]);
        let report = together(vec![with(900), bad, with(500)]).unwrap();
        assert!(!report.passed() && !report.valid);
        assert_eq!((report.violations.lost, report.invalid_because[0].as_str()), (2, "trial 2: late"));
        assert!(!report.trials.unwrap().list[1].passed);
        let mut short = with(1);
        short.connections.established = 1;
        assert!(!together(vec![with(2), short, with(3)]).unwrap().passed());
        assert!(together(Vec::new()).is_none());
    }
}
