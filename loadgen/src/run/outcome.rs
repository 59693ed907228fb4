//! What one process found in its slice of a run, whole enough to be merged with others' exactly: histograms, not percentiles.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::script::{SHARES_PERCENT, StormOutcome};
use crate::{
    checker::Violations, clock::Nanoseconds, measure::Latencies, process::Usage, transport::TlsOutcome,
    workload::control::Counts,
};

/// What was used at one moment.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Sample {
    /// `None`: not found, or gone meanwhile.
    pub server: Option<Usage>,
    /// The generator's own.
    pub own: Usage,
    /// All slabs of the machine.
    pub slab_bytes: u64,
}

/// Samples at the run's milestones.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Milestones {
    /// The large group is not filled yet.
    #[serde(default)]
    pub empty: Sample,
    /// From there until it was.
    #[serde(default)]
    pub fill_ns: Nanoseconds,
    /// No connection yet.
    pub before: Sample,
    /// All connections, and all conversations.
    pub established: Sample,
    /// The measured part begins.
    pub measured_from: Sample,
    /// It ends.
    pub measured_to: Sample,
    /// From the first attempt to the last establishment.
    pub establish_ns: Nanoseconds,
    /// Length of the measured part.
    pub measured_ns: Nanoseconds,
}

/// What was used during one row of the timeline.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct RowSample {
    /// Which row.
    pub row: u64,
    /// Resident memory of the node at its beginning.
    pub server_rss_bytes: Option<u64>,
    /// CPU of the node since the row before.
    pub server_cpu_cores: Option<f64>,
    /// CPU of the generator since the row before.
    pub generator_cpu_cores: f64,
    /// Connections that are welcome.
    pub up: u64,
    /// Of these, those that have been given everything.
    pub live: u64,
}

impl RowSample {
    /// From a sample and the one before, with the seconds between them.
    #[must_use]
    pub fn between(row: u64, since: Option<(f64, Sample)>, sample: &Sample, counts: &Counts) -> Self {
        let cores = |now: Usage, then: Usage, seconds: f64| (now.cpu_seconds - then.cpu_seconds).max(0.0) / seconds;
        Self {
            row,
            server_rss_bytes: sample.server.map(|server| server.rss_bytes),
            server_cpu_cores: since
                .and_then(|(seconds, then)| Some(cores(sample.server?, then.server?, seconds.max(1e-3)))),
            generator_cpu_cores: since.map_or(0.0, |(seconds, then)| cores(sample.own, then.own, seconds.max(1e-3))),
            up: counts.up,
            live: counts.live,
        }
    }
}

/// What one process found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    /// Decided names and arrivals.
    pub seed: u64,
    /// Client threads.
    pub threads: u32,
    /// Connections asked for.
    pub requested: u64,
    /// Counts of the whole run.
    pub counts: Counts,
    /// Latencies of the measured part.
    pub latencies: Latencies,
    /// What broke.
    pub violations: Violations,
    /// Errors, with how often they came.
    pub errors: BTreeMap<String, u64>,
    /// What TLS handshakes came to.
    #[serde(default)]
    pub tls: TlsOutcome,
    /// The timeline: each row's samples as JSON.
    pub rows: Vec<String>,
    /// What was used meanwhile.
    pub samples: Vec<RowSample>,
    /// Samples at the milestones.
    pub milestones: Milestones,
    /// When the named parts began, from the start of the load.
    pub part_starts_ns: Vec<Nanoseconds>,
    /// What was used when they began, and at the end: when that was, from the start of the load.
    #[serde(default)]
    pub part_samples: Vec<(Nanoseconds, Sample)>,
    /// When the load ended, from its start.
    pub load_end_ns: Nanoseconds,
    /// Conversations that a user is in.
    pub layers: usize,
    /// Why the figures can't be believed.
    pub problems: Vec<String>,
    /// What the run was made for and did not come to pass.
    pub failures: Vec<String>,
    /// What a storm found.
    pub storm: Option<StormOutcome>,
    /// The node's process, if it was found.
    pub server_pid: Option<u32>,
    /// The node's process after a restart.
    pub restarted_pid: Option<u32>,
}

impl Outcome {
    /// Adds another process's slice of the same run.
    pub fn add(&mut self, other: Self) {
        self.threads += other.threads;
        self.requested += other.requested;
        self.counts.add(&other.counts);
        self.latencies.add(&other.latencies);
        self.violations.add(&other.violations);
        for (error, count) in other.errors {
            *self.errors.entry(error).or_insert(0) += count;
        }
        self.tls.add(other.tls);
        self.rows.extend(other.rows);
        self.add_samples(&other.samples);
        self.milestones.add(&other.milestones);
        self.load_end_ns = self.load_end_ns.max(other.load_end_ns);
        self.problems.extend(other.problems);
        self.failures.extend(other.failures);
        self.storm = match (self.storm.take(), other.storm) {
            (Some(mine), Some(theirs)) => Some(mine.merged(&theirs)),
            (mine, theirs) => mine.or(theirs),
        };
        self.server_pid = self.server_pid.or(other.server_pid);
        self.restarted_pid = self.restarted_pid.or(other.restarted_pid);
    }

    fn add_samples(&mut self, others: &[RowSample]) {
        for other in others {
            match self.samples.iter_mut().find(|mine| mine.row == other.row) {
                Some(mine) => {
                    mine.generator_cpu_cores += other.generator_cpu_cores;
                    mine.up += other.up;
                    mine.live += other.live;
                    mine.server_rss_bytes = mine.server_rss_bytes.or(other.server_rss_bytes);
                    mine.server_cpu_cores = mine.server_cpu_cores.or(other.server_cpu_cores);
                }
                None => self.samples.push(*other),
            }
        }
    }
}

impl Milestones {
    fn add(&mut self, other: &Self) {
        for (mine, theirs) in [
            (&mut self.before, &other.before),
            (&mut self.established, &other.established),
            (&mut self.measured_from, &other.measured_from),
            (&mut self.measured_to, &other.measured_to),
        ] {
            mine.own.rss_bytes += theirs.own.rss_bytes;
            mine.own.cpu_seconds += theirs.own.cpu_seconds;
            // The node runs beside one of them at most; slabs of several machines are told of the first.
            mine.server = mine.server.or(theirs.server);
        }
        self.establish_ns = self.establish_ns.max(other.establish_ns);
        self.measured_ns = self.measured_ns.max(other.measured_ns);
    }
}

impl StormOutcome {
    /// Two processes' curves are added point by point, so shares are as exact as points are dense: a tenth of a second.
    fn merged(&self, other: &Self) -> Self {
        let at = |curve: &[(Nanoseconds, u64)], at_ns: Nanoseconds| {
            let before = curve.partition_point(|&(point_ns, _)| point_ns <= at_ns);
            before.checked_sub(1).map_or(0, |index| curve[index].1)
        };
        let mut times: Vec<Nanoseconds> = self.curve.iter().chain(&other.curve).map(|&(at_ns, _)| at_ns).collect();
        times.sort_unstable();
        times.dedup();
        let point = |at_ns: Nanoseconds| (at_ns, at(&self.curve, at_ns) + at(&other.curve, at_ns));
        let sessions = self.sessions + other.sessions;
        let whole_ns = self.shares_ns[3].zip(other.shares_ns[3]).map(|(mine_ns, theirs_ns)| mine_ns.max(theirs_ns));
        // Before the bottom, live sessions are those that were not lost yet.
        let curve: Vec<(Nanoseconds, u64)> = times.into_iter().map(point).collect();
        let lowest = curve.iter().enumerate().min_by_key(|(_, point)| point.1).map_or(0, |(index, _)| index);
        let reached = |percent: u64| {
            let mut back = curve[lowest.min(curve.len())..].iter();
            back.find(|&&(_, live)| live * 100 >= sessions * percent).map(|&(at_ns, _)| at_ns)
        };
        let mut shares_ns = SHARES_PERCENT.map(reached);
        shares_ns[3] = whole_ns;
        Self {
            sessions,
            acked_before: self.acked_before + other.acked_before,
            outage_ns: self.outage_ns,
            first_ns: self.first_ns.into_iter().chain(other.first_ns).min(),
            shares_ns,
            curve,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_of_processes_add_up() {
        let outcome = |curve: &[(u64, u64)], shares_ns| StormOutcome {
            sessions: 10,
            acked_before: 5,
            outage_ns: 1,
            first_ns: Some(2),
            shares_ns,
            curve: curve.to_vec(),
        };
        let one = outcome(&[(1, 10), (2, 0), (3, 5), (5, 10)], [Some(3), Some(5), Some(5), Some(5)]);
        let two = outcome(&[(1, 8), (2, 0), (4, 9), (6, 10)], [Some(4), Some(4), Some(6), Some(6)]);
        let merged = one.merged(&two);
        assert_eq!((merged.sessions, merged.acked_before), (20, 10));
        assert_eq!(merged.curve, [(1, 18), (2, 0), (3, 5), (4, 14), (5, 19), (6, 20)]);
        assert_eq!(merged.shares_ns, [Some(4), Some(5), Some(6), Some(6)]);
    }
}
