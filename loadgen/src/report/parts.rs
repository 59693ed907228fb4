//! Figures that only some loads have: named parts, what histories had, how a storm went, what slow connections did.

use serde::Serialize;

use super::{Quantiles, Row};
use crate::{
    clock::{Nanoseconds, SECOND_NS},
    run::script::StormOutcome,
};

/// Over which the highest rate of a return is told.
const PEAK_NS: Nanoseconds = SECOND_NS;

/// A named stretch of the load.
#[derive(Debug, Clone, Serialize)]
pub struct PartFigures {
    /// Its name.
    pub name: String,
    /// When it began, from the start of the load.
    pub from_second: f64,
    /// How long it was.
    pub seconds: f64,
    /// Messages whose time came, a second.
    pub offered_per_second: f64,
    /// Of connections that stood, and read, since before the message's time.
    pub send_to_ack: Quantiles,
    /// Of connections that stood, and read, since before the message's time.
    pub send_to_deliver: Quantiles,
}

/// What the histories had.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct VerifiedFigures {
    /// Conversations whose history was read.
    pub conversations: u64,
    /// Messages that were acknowledged.
    pub acked: u64,
    /// Messages that were found.
    pub found: u64,
    /// Acknowledged messages that were not.
    pub missing: u64,
}

/// How the sessions came back.
#[derive(Debug, Clone, Default, Serialize)]
pub struct StormFigures {
    /// Sessions that were live when the node went.
    pub sessions: u64,
    /// Seconds from there until the first one had resumed.
    pub first_seconds: Option<f64>,
    /// Until half had.
    pub resumed_50_seconds: Option<f64>,
    /// Until 90 % had.
    pub resumed_90_seconds: Option<f64>,
    /// Until 99 % had.
    pub resumed_99_seconds: Option<f64>,
    /// Until all had.
    pub resumed_100_seconds: Option<f64>,
    /// Sessions a second, from the first to the last.
    pub resumed_per_second: f64,
    /// The most within a second.
    pub resumed_per_second_peak: f64,
    /// Messages that were acknowledged before the node went.
    pub acked_before: u64,
    /// Of these, those that were there afterwards.
    pub acked_before_verified: u64,
    /// The node's process after the restart, if the run made it or found it.
    pub restarted_pid: Option<u32>,
    /// Live sessions: seconds since the node went, sessions.
    pub curve: Vec<(f64, u64)>,
}

impl StormFigures {
    /// Of an outcome; `missing` of what was acknowledged was not found.
    #[must_use]
    pub fn of(outcome: &StormOutcome, missing: u64, restarted_pid: Option<u32>) -> Self {
        let seconds = |nanoseconds: Nanoseconds| (nanoseconds as f64 / SECOND_NS as f64 * 100.0).round() / 100.0;
        let [half, nine_tenths, most, all] = outcome.shares_ns.map(|share_ns| share_ns.map(seconds));
        let first_ns = outcome.first_ns.unwrap_or(0);
        let span_ns = outcome.shares_ns[3].map_or(0, |all_ns| all_ns.saturating_sub(first_ns)).max(20_000_000);
        let resumed = if outcome.shares_ns[3].is_some() { outcome.sessions } else { 0 };
        Self {
            sessions: outcome.sessions,
            first_seconds: outcome.first_ns.map(seconds),
            resumed_50_seconds: half,
            resumed_90_seconds: nine_tenths,
            resumed_99_seconds: most,
            resumed_100_seconds: all,
            resumed_per_second: (resumed as f64 / (span_ns as f64 / SECOND_NS as f64)).round(),
            resumed_per_second_peak: peak(outcome),
            acked_before: outcome.acked_before,
            acked_before_verified: outcome.acked_before.saturating_sub(missing),
            restarted_pid,
            curve: outcome.curve.iter().map(|&(at_ns, live)| (seconds(at_ns), live)).collect(),
        }
    }
}

fn peak(outcome: &StormOutcome) -> f64 {
    let rise = |(index, &(at_ns, live)): (usize, &(Nanoseconds, u64))| {
        let earlier = outcome.curve[..index].iter().rev().find(|&&(then_ns, _)| then_ns + PEAK_NS <= at_ns);
        let (then_ns, then) = *earlier.or(outcome.curve.first())?;
        let seconds = (at_ns - then_ns) as f64 / SECOND_NS as f64;
        (live > then && seconds > 0.0).then(|| (live - then) as f64 / seconds.max(PEAK_NS as f64 / SECOND_NS as f64))
    };
    outcome.curve.iter().enumerate().filter_map(rise).fold(0.0, f64::max).round()
}

/// What slow connections did to the others.
#[derive(Debug, Clone, Default, Serialize)]
pub struct SlowFigures {
    /// Connections that stopped reading.
    pub connections: u64,
    /// p99 of deliveries to the others, before.
    pub quiet_p99_us: u64,
    /// The same meanwhile.
    pub slow_p99_us: u64,
    /// The one over the other.
    pub p99_factor: f64,
    /// Most resident memory of the node, before.
    pub quiet_rss_bytes_max: Option<u64>,
    /// The same meanwhile.
    pub slow_rss_bytes_max: Option<u64>,
}

impl SlowFigures {
    /// From the parts and the timeline.
    #[must_use]
    pub fn of(connections: u64, parts: &[PartFigures], rows: &[Row]) -> Option<Self> {
        let [quiet, slow, ..] = parts else { return None };
        let most = |part: &PartFigures| {
            let within = part.from_second..part.from_second + part.seconds;
            rows.iter().filter(|row| within.contains(&(row.second as f64))).filter_map(|row| row.server_rss_bytes).max()
        };
        let (quiet_p99_us, slow_p99_us) = (quiet.send_to_deliver.p99, slow.send_to_deliver.p99);
        Some(Self {
            connections,
            quiet_p99_us,
            slow_p99_us,
            p99_factor: (slow_p99_us as f64 / quiet_p99_us.max(1) as f64 * 100.0).round() / 100.0,
            quiet_rss_bytes_max: most(quiet),
            slow_rss_bytes_max: most(slow),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_tells_its_rates() {
        let tenth = SECOND_NS / 10;
        // Nobody until 2 s, then 50 a tenth of a second.
        let curve = (0..41).map(|step| (step * tenth, step.saturating_sub(20) * 50)).collect();
        let outcome = StormOutcome {
            sessions: 1_000,
            acked_before: 10,
            outage_ns: 0,
            first_ns: Some(21 * tenth),
            shares_ns: [Some(30 * tenth), Some(38 * tenth), Some(40 * tenth), Some(40 * tenth)],
            curve,
        };
        let figures = StormFigures::of(&outcome, 3, Some(7));
        assert_eq!((figures.resumed_50_seconds, figures.resumed_100_seconds), (Some(3.0), Some(4.0)));
        assert_eq!((figures.resumed_per_second_peak, figures.acked_before_verified), (500.0, 7));
        assert_eq!(figures.resumed_per_second, 526.0);
    }

    #[test]
    fn slow_connections_are_compared_with_before() {
        let part = |name: &str, from_second, p99| PartFigures {
            name: name.into(),
            from_second,
            seconds: 2.0,
            offered_per_second: 0.0,
            send_to_ack: Quantiles::default(),
            send_to_deliver: Quantiles { p99, ..Quantiles::default() },
        };
        let row = |second, rss| Row { second, server_rss_bytes: Some(rss), ..Row::default() };
        let rows = [row(0, 10), row(1, 11), row(2, 30), row(3, 20), row(4, 99)];
        let figures = SlowFigures::of(5, &[part("quiet", 0.0, 1_000), part("slow", 2.0, 1_500)], &rows).unwrap();
        assert_eq!((figures.quiet_rss_bytes_max, figures.slow_rss_bytes_max), (Some(11), Some(30)));
        assert!((figures.p99_factor - 1.5).abs() < 1e-9);
    }
}
