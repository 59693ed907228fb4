//! What is measured of commands: percentiles by kind, each second apart, and the longest pause between two answers.
//! Pure.

use antiphon_loadgen::clock::{Nanoseconds, SECOND_NS};
use hdrhistogram::Histogram;
use serde::Serialize;

/// Ten minutes; what takes longer counts as that.
const LATENCY_NS_MAX: u64 = 600 * SECOND_NS;

/// Answers of one second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Second {
    /// From the beginning, from 0.
    pub(crate) second: u64,
    pub(crate) count: u64,
    pub(crate) p50_ns: u64,
    pub(crate) p99_ns: u64,
    pub(crate) max_ns: u64,
}

/// All answers of a kind.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Summary {
    pub(crate) kind: &'static str,
    pub(crate) count: u64,
    /// How often one was refused because flushes were behind, and sent again: its latency goes on.
    pub(crate) refusals: u64,
    pub(crate) p50_ns: u64,
    pub(crate) p99_ns: u64,
    pub(crate) p999_ns: u64,
    pub(crate) max_ns: u64,
    /// The longest time without an answer between two.
    pub(crate) pause_ns: u64,
    /// When that ended, from the beginning.
    pub(crate) pause_at_ns: u64,
    pub(crate) seconds: Vec<Second>,
}

impl Summary {
    /// Answers a second in each whole minute; a shorter rest is left out unless there is nothing else.
    pub(crate) fn minutes(&self) -> Vec<f64> {
        // The last second is seldom whole.
        let whole = &self.seconds[..self.seconds.len().saturating_sub(1)];
        let rate =
            |chunk: &[Second]| chunk.iter().map(|second| second.count).sum::<u64>() as f64 / chunk.len().max(1) as f64;
        let minutes: Vec<f64> = whole.chunks_exact(60).map(rate).collect();
        if minutes.is_empty() { vec![rate(if whole.is_empty() { &self.seconds } else { whole })] } else { minutes }
    }
}

/// One kind while it is measured.
#[derive(Debug)]
pub(crate) struct Recorder {
    kind: &'static str,
    begin_ns: Nanoseconds,
    all: Histogram<u64>,
    refusals: u64,
    second: u64,
    of_second: Histogram<u64>,
    seconds: Vec<Second>,
    last_ns: Option<Nanoseconds>,
    pause: (u64, u64),
}

fn histogram(digits: u8) -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, digits).expect("the bounds are valid")
}

impl Recorder {
    pub(crate) fn new(kind: &'static str, begin_ns: Nanoseconds) -> Self {
        Self {
            kind,
            begin_ns,
            all: histogram(3),
            refusals: 0,
            second: 0,
            of_second: histogram(2),
            seconds: Vec::new(),
            last_ns: None,
            pause: (0, 0),
        }
    }

    /// An answer to what was due since then.
    pub(crate) fn answered(&mut self, due_ns: Nanoseconds, now_ns: Nanoseconds) {
        let latency_ns = now_ns.saturating_sub(due_ns).max(1);
        let at_ns = now_ns.saturating_sub(self.begin_ns);
        while at_ns / SECOND_NS > self.second {
            self.end_second();
        }
        self.all.saturating_record(latency_ns);
        self.of_second.saturating_record(latency_ns);
        if let Some(last_ns) = self.last_ns.replace(now_ns) {
            self.pause = self.pause.max((now_ns.saturating_sub(last_ns), at_ns));
        }
    }

    /// One was refused and waits to be sent again.
    pub(crate) fn refused(&mut self) {
        self.refusals += 1;
    }

    fn end_second(&mut self) {
        let of = &self.of_second;
        self.seconds.push(Second {
            second: self.second,
            count: of.len(),
            p50_ns: of.value_at_quantile(0.5),
            p99_ns: of.value_at_quantile(0.99),
            max_ns: of.max(),
        });
        self.of_second.reset();
        self.second += 1;
    }

    pub(crate) fn summary(mut self) -> Summary {
        if !self.of_second.is_empty() {
            self.end_second();
        }
        let (pause_ns, pause_at_ns) = self.pause;
        Summary {
            kind: self.kind,
            count: self.all.len(),
            refusals: self.refusals,
            p50_ns: self.all.value_at_quantile(0.5),
            p99_ns: self.all.value_at_quantile(0.99),
            p999_ns: self.all.value_at_quantile(0.999),
            max_ns: self.all.max(),
            pause_ns,
            pause_at_ns,
            seconds: self.seconds,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn seconds_without_an_answer_and_pauses_are_seen() {
        let mut recorder = Recorder::new("append", 10 * SECOND_NS);
        for at_ms in [1, 2, 900, 3_100, 3_200] {
            let now_ns = 10 * SECOND_NS + at_ms * MS;
            recorder.answered(now_ns - MS, now_ns);
        }
        let summary = recorder.summary();
        let counts: Vec<(u64, u64)> = summary.seconds.iter().map(|second| (second.second, second.count)).collect();
        assert_eq!(counts, [(0, 3), (1, 0), (2, 0), (3, 2)]);
        assert_eq!((summary.pause_ns, summary.pause_at_ns), (2_200 * MS, 3_100 * MS));
        assert_eq!(summary.count, 5);
        assert!(summary.p50_ns.abs_diff(MS) < MS / 100, "{}", summary.p50_ns);
    }

    #[test]
    fn minutes_are_whole_unless_there_is_none() {
        let second = |second, count| Second { second, count, p50_ns: 1, p99_ns: 1, max_ns: 1 };
        let mut summary = Recorder::new("append", 0).summary();
        summary.seconds = (0..130).map(|number| second(number, if number < 60 { 10 } else { 20 })).collect();
        assert_eq!(summary.minutes(), [10.0, 20.0]);
        summary.seconds.truncate(3);
        assert_eq!(summary.minutes(), [10.0]);
        summary.seconds.clear();
        assert_eq!(summary.minutes(), [0.0]);
    }
}
