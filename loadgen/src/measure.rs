//! What a client thread measures: histograms over the run, and a sample for each second.
//!
//! All latencies are in microseconds, at three significant digits (HdrHistogram), up to ten minutes; what takes longer counts as
//! ten minutes. The samples of a second have two digits and are merged and dropped as soon as the second is over.

use hdrhistogram::Histogram;

use crate::clock::Nanoseconds;

/// Ten minutes.
const LATENCY_US_MAX: u64 = 600_000_000;

/// Latencies over the whole run.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Latencies {
    /// From a message's intended time to its acknowledgement.
    #[serde(with = "crate::histogram_text")]
    pub send_to_ack: Histogram<u64>,
    /// From a message's intended time to its arrival at each member but its sender.
    #[serde(with = "crate::histogram_text")]
    pub send_to_deliver: Histogram<u64>,
    /// From the start of the first attempt to connect to `welcome`.
    #[serde(with = "crate::histogram_text")]
    pub connect: Histogram<u64>,
    /// From the loss of a connection to `caught_up` on the next one.
    #[serde(with = "crate::histogram_text")]
    pub resume: Histogram<u64>,
    /// From when somebody has come or gone to when a connection that watches them was told.
    #[serde(with = "crate::histogram_text")]
    pub presence: Histogram<u64>,
    /// From a message's intended time to when the generator handed it to the kernel.
    #[serde(with = "crate::histogram_text")]
    pub late: Histogram<u64>,
    /// How much later than it wanted a client thread was back at work.
    #[serde(with = "crate::histogram_text")]
    pub lag: Histogram<u64>,
    /// From TCP to TLS, for connections with it.
    #[serde(with = "crate::histogram_text")]
    pub handshake: Histogram<u64>,
    /// How long a step of a handshake waited for the generator itself.
    #[serde(with = "crate::histogram_text")]
    pub handshake_wait: Histogram<u64>,
    /// Of each named part of the load: of connections that stood, and read, all the while.
    pub parts: Vec<PartLatencies>,
    /// Of the large group, which is in none of the others.
    #[serde(default)]
    pub large: Option<Box<LargeLatencies>>,
}

/// Latencies of the large group's messages.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct LargeLatencies {
    /// From a message's intended time to its acknowledgement.
    #[serde(with = "crate::histogram_text")]
    pub send_to_ack: Histogram<u64>,
    /// From a message's intended time to its arrival at each member but its sender who is given it.
    #[serde(with = "crate::histogram_text")]
    pub send_to_deliver: Histogram<u64>,
    /// From the intended time of the oldest message that a hint newly tells of to that hint.
    #[serde(with = "crate::histogram_text")]
    pub send_to_hint: Histogram<u64>,
    /// Hints of a member in one burst; no latency, but a number.
    #[serde(with = "crate::histogram_text")]
    pub hints_per_burst: Histogram<u64>,
}

impl LargeLatencies {
    fn new() -> Self {
        let histogram = || histogram(3);
        Self {
            send_to_ack: histogram(),
            send_to_deliver: histogram(),
            send_to_hint: histogram(),
            hints_per_burst: histogram(),
        }
    }

    fn add(&mut self, other: &Self) {
        for (mine, theirs) in [
            (&mut self.send_to_ack, &other.send_to_ack),
            (&mut self.send_to_deliver, &other.send_to_deliver),
            (&mut self.send_to_hint, &other.send_to_hint),
            (&mut self.hints_per_burst, &other.hints_per_burst),
        ] {
            mine.add(theirs).expect("all have the same bounds");
        }
    }
}

/// Latencies of a named part of the load.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct PartLatencies {
    /// Messages intended for it.
    pub offered: u64,
    /// From a message's intended time to its acknowledgement.
    #[serde(with = "crate::histogram_text")]
    pub send_to_ack: Histogram<u64>,
    /// From a message's intended time to its arrival.
    #[serde(with = "crate::histogram_text")]
    pub send_to_deliver: Histogram<u64>,
}

impl PartLatencies {
    fn new() -> Self {
        Self { offered: 0, send_to_ack: histogram(3), send_to_deliver: histogram(3) }
    }
}

impl Latencies {
    /// Empty ones.
    #[must_use]
    pub fn new(parts: usize) -> Self {
        let histogram = || histogram(3);
        Self {
            send_to_ack: histogram(),
            send_to_deliver: histogram(),
            connect: histogram(),
            resume: histogram(),
            presence: histogram(),
            late: histogram(),
            lag: histogram(),
            handshake: histogram(),
            handshake_wait: histogram(),
            parts: std::iter::repeat_with(PartLatencies::new).take(parts).collect(),
            large: None,
        }
    }

    /// Empty ones, with those of a large group.
    #[must_use]
    pub fn with_large(parts: usize) -> Self {
        Self { large: Some(Box::new(LargeLatencies::new())), ..Self::new(parts) }
    }

    /// Adds another thread's, exactly.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in [
            (&mut self.send_to_ack, &other.send_to_ack),
            (&mut self.send_to_deliver, &other.send_to_deliver),
            (&mut self.connect, &other.connect),
            (&mut self.resume, &other.resume),
            (&mut self.presence, &other.presence),
            (&mut self.late, &other.late),
            (&mut self.lag, &other.lag),
            (&mut self.handshake, &other.handshake),
            (&mut self.handshake_wait, &other.handshake_wait),
        ] {
            mine.add(theirs).expect("all have the same bounds");
        }
        for (mine, theirs) in self.parts.iter_mut().zip(&other.parts) {
            mine.offered += theirs.offered;
            mine.send_to_ack.add(&theirs.send_to_ack).expect("all have the same bounds");
            mine.send_to_deliver.add(&theirs.send_to_deliver).expect("all have the same bounds");
        }
        match (&mut self.large, &other.large) {
            (Some(mine), Some(theirs)) => mine.add(theirs),
            (mine @ None, Some(theirs)) => *mine = Some(theirs.clone()),
            (_, None) => {}
        }
    }
}

/// What happened in one second (one row, where rows are longer) of the load phase, counted from its start.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Second {
    /// 0 for the first second, with the warm-up.
    pub index: u64,
    /// Messages intended for this second.
    pub offered: u64,
    /// Acknowledgements that came.
    pub acked: u64,
    /// Deliveries that came.
    pub delivered: u64,
    /// Latency of these acknowledgements.
    #[serde(with = "crate::histogram_text")]
    pub send_to_ack: Histogram<u64>,
    /// Latency of these deliveries.
    #[serde(with = "crate::histogram_text")]
    pub send_to_deliver: Histogram<u64>,
}

impl Second {
    /// An empty one.
    #[must_use]
    pub fn new(index: u64) -> Self {
        Self { index, offered: 0, acked: 0, delivered: 0, send_to_ack: histogram(2), send_to_deliver: histogram(2) }
    }

    /// Adds another thread's sample of the same second.
    pub fn add(&mut self, other: &Self) {
        self.offered += other.offered;
        self.acked += other.acked;
        self.delivered += other.delivered;
        self.send_to_ack.add(&other.send_to_ack).expect("all have the same bounds");
        self.send_to_deliver.add(&other.send_to_deliver).expect("all have the same bounds");
    }

    /// Whether nothing happened.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.offered + self.acked + self.delivered == 0
    }
}

/// Records a span of the run's clock.
pub fn record(histogram: &mut Histogram<u64>, from_ns: Nanoseconds, to_ns: Nanoseconds) {
    histogram.saturating_record((to_ns.saturating_sub(from_ns) / 1_000).max(1));
}

/// An empty one.
pub(crate) fn histogram(digits: u8) -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_US_MAX, digits).expect("the bounds are valid")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_microseconds_and_never_zero_or_beyond_the_bounds() {
        let mut histogram = histogram(3);
        record(&mut histogram, 5_000_000, 7_500_000);
        record(&mut histogram, 9, 3);
        record(&mut histogram, 0, u64::MAX);
        assert_eq!((histogram.len(), histogram.min()), (3, 1));
        assert!((2_498..=2_502).contains(&histogram.value_at_quantile(0.5)));
        assert!(histogram.max() >= LATENCY_US_MAX);
    }

    #[test]
    fn threads_merge_exactly() {
        let (mut one, mut other) = (Latencies::new(1), Latencies::new(1));
        record(&mut one.late, 0, 1_000_000);
        record(&mut other.late, 0, 2_000_000);
        record(&mut other.parts[0].send_to_ack, 0, 3_000_000);
        one.add(&other);
        assert_eq!((one.late.len(), one.parts[0].send_to_ack.len()), (2, 1));
    }
}
