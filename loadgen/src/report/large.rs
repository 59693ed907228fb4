//! Figures of `large`: one very large group, and the ordinary chat beside it in quiet and in burst parts.

use std::fmt::Write as _;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{
    Quantiles,
    html::grouped,
    summary::{duration, mebibytes, quantiles},
};
use crate::{
    clock::{Nanoseconds, SECOND_NS},
    measure::PartLatencies,
    process::Usage,
    run::outcome::{Outcome, Sample},
    workload::large::plan::{LargePlan, is_burst},
};

/// What became of the large group.
#[derive(Debug, Clone, Default, Serialize)]
pub struct LargeFigures {
    /// All of them.
    pub members: u32,
    /// Of these, those with a connection.
    pub online: u32,
    /// Connected members who had it open.
    pub viewers: u32,
    /// It was large enough that the others were told by hints; else all who were connected were given everything.
    pub hinted: bool,
    /// Until it had its members; of a group that was there already, until that was known.
    pub fill_seconds: f64,
    /// Requests by which members were added: 0 if it was there already.
    pub fill_requests: u64,
    /// How many bursts.
    pub bursts: u32,
    /// Messages of all bursts whose time came.
    pub offered: u64,
    /// Of these, those that were acknowledged.
    pub acked: u64,
    /// Arrivals at others than the sender.
    pub delivered: u64,
    /// Hints that came.
    pub hints: u64,
    /// Of these, those that said what their member knew already.
    pub hints_again: u64,
    /// Of these, those that came in a quiet part.
    pub hints_in_quiet: u64,
    /// Intended time to acknowledgement, in microseconds.
    pub send_to_ack_us: Quantiles,
    /// Intended time to arrival at each of those who are given everything, but the sender.
    pub send_to_deliver_us: Quantiles,
    /// Intended time of the oldest message that a hint newly tells of to that hint.
    pub send_to_hint_us: Quantiles,
    /// Hints of a member in a burst: a number.
    pub hints_per_burst: Quantiles,
    /// The chat beside it.
    pub chat: ChatFigures,
    /// What the node used for it, if it was found on this machine.
    pub server: Option<LargeServerFigures>,
}

/// The ordinary chat, in quiet and in burst parts.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ChatFigures {
    /// Intended time to acknowledgement, of messages of the quiet parts.
    pub quiet_send_to_ack_us: Quantiles,
    /// The same, of the burst parts.
    pub burst_send_to_ack_us: Quantiles,
    /// Intended time to arrival, of messages of the quiet parts.
    pub quiet_send_to_deliver_us: Quantiles,
    /// The same, of the burst parts.
    pub burst_send_to_deliver_us: Quantiles,
    /// p99 in burst parts over that in quiet ones. `None`: there is no chat.
    pub ack_p99_factor: Option<f64>,
    /// The same of arrivals.
    pub deliver_p99_factor: Option<f64>,
}

/// What the node used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct LargeServerFigures {
    /// In quiet parts: the chat, and whatever rests.
    pub quiet_cpu_cores: f64,
    /// In burst parts.
    pub burst_cpu_cores: f64,
    /// What the burst parts took beyond what the quiet ones would have taken in that time, by message of the bursts.
    pub cpu_seconds_per_message: f64,
    /// Resident memory before the group was filled.
    pub rss_bytes_empty: u64,
    /// With the group, before the first connection.
    pub rss_bytes_filled: u64,
    /// With all connections, before the load.
    pub rss_bytes_connected: u64,
    /// At the end of the load.
    pub rss_bytes_end: u64,
}

impl LargeFigures {
    /// Of an outcome.
    #[must_use]
    pub fn of(plan: &LargePlan, outcome: &Outcome) -> Self {
        let (counts, milestones) = (&outcome.counts, &outcome.milestones);
        let of = |histogram: Option<&Histogram<u64>>| histogram.map(Quantiles::of).unwrap_or_default();
        let latencies = outcome.latencies.large.as_deref();
        Self {
            members: plan.members,
            online: plan.connected,
            viewers: plan.viewers,
            hinted: plan.hinted,
            fill_seconds: round(milestones.fill_ns as f64 / SECOND_NS as f64, 100.0),
            fill_requests: counts.fill_added,
            bursts: plan.bursts,
            offered: counts.large_offered,
            acked: counts.large_acked,
            delivered: counts.large_delivered,
            hints: counts.hints,
            hints_again: counts.hints_again,
            hints_in_quiet: counts.hints_in_quiet,
            send_to_ack_us: of(latencies.map(|latencies| &latencies.send_to_ack)),
            send_to_deliver_us: of(latencies.map(|latencies| &latencies.send_to_deliver)),
            send_to_hint_us: of(latencies.map(|latencies| &latencies.send_to_hint)),
            hints_per_burst: of(latencies.map(|latencies| &latencies.hints_per_burst)),
            chat: ChatFigures::of(&outcome.latencies.parts),
            server: server(outcome),
        }
    }

    /// Why its figures can't be believed.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let text = format!("{} hints came in quiet parts: --tail-seconds is too short", self.hints_in_quiet);
        if self.hints_in_quiet > 0 { vec![text] } else { Vec::new() }
    }

    /// What it was made for and did not come to pass.
    #[must_use]
    pub fn failures(&self) -> Vec<String> {
        let text = format!("{} of the large group's messages were not acknowledged", self.offered - self.acked);
        if self.acked < self.offered { vec![text] } else { Vec::new() }
    }

    /// Those that trials are compared by.
    #[must_use]
    pub fn figures(&self) -> Vec<(&'static str, f64)> {
        let latencies = [
            ("large.send_to_ack.p99", self.send_to_ack_us),
            ("large.send_to_deliver.p99", self.send_to_deliver_us),
            ("large.send_to_hint.p99", self.send_to_hint_us),
        ];
        let there = latencies.into_iter().filter(|(_, values)| values.count > 0);
        let mut figures: Vec<_> = there.map(|(name, values)| (name, values.p99 as f64)).collect();
        figures.extend(self.chat.deliver_p99_factor.map(|factor| ("large.chat_deliver_p99_factor", factor)));
        figures.extend(self.server.map(|server| ("large.cpu_seconds_per_message", server.cpu_seconds_per_message)));
        figures
    }
}

fn ack(part: &PartLatencies) -> &Histogram<u64> {
    &part.send_to_ack
}

fn deliver(part: &PartLatencies) -> &Histogram<u64> {
    &part.send_to_deliver
}

impl ChatFigures {
    fn of(parts: &[PartLatencies]) -> Self {
        let of = |burst: bool, which: fn(&PartLatencies) -> &Histogram<u64>| {
            let mut parts = parts.iter().enumerate().filter(|(index, _)| is_burst(*index) == burst);
            let Some((_, first)) = parts.next() else { return Quantiles::default() };
            let mut all = which(first).clone();
            parts.for_each(|(_, part)| all.add(which(part)).expect("all have the same bounds"));
            Quantiles::of(&all)
        };
        let (quiet_ack, burst_ack) = (of(false, ack), of(true, ack));
        let (quiet_deliver, burst_deliver) = (of(false, deliver), of(true, deliver));
        let factor = |burst: &Quantiles, quiet: &Quantiles| {
            (quiet.count > 0).then(|| round(burst.p99 as f64 / quiet.p99.max(1) as f64, 100.0))
        };
        Self {
            ack_p99_factor: factor(&burst_ack, &quiet_ack),
            deliver_p99_factor: factor(&burst_deliver, &quiet_deliver),
            quiet_send_to_ack_us: quiet_ack,
            burst_send_to_ack_us: burst_ack,
            quiet_send_to_deliver_us: quiet_deliver,
            burst_send_to_deliver_us: burst_deliver,
        }
    }
}

fn server(outcome: &Outcome) -> Option<LargeServerFigures> {
    let milestones = &outcome.milestones;
    let rss = |sample: &Sample| sample.server.map(|server| server.rss_bytes);
    let [quiet, burst] = cpu(&outcome.part_samples)?;
    let beyond = burst.seconds_of_cpu - quiet.cores() * burst.seconds;
    Some(LargeServerFigures {
        quiet_cpu_cores: round(quiet.cores(), 1_000.0),
        burst_cpu_cores: round(burst.cores(), 1_000.0),
        cpu_seconds_per_message: round(beyond / outcome.counts.large_acked.max(1) as f64, 1e6),
        rss_bytes_empty: rss(&milestones.empty)?,
        rss_bytes_filled: rss(&milestones.before)?,
        rss_bytes_connected: rss(&milestones.established)?,
        rss_bytes_end: rss(&milestones.measured_to)?,
    })
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Used {
    seconds: f64,
    seconds_of_cpu: f64,
}

impl Used {
    fn cores(self) -> f64 {
        self.seconds_of_cpu / self.seconds.max(1e-3)
    }
}

/// What the node used in all quiet parts, and in all burst parts: from the samples at their beginnings, and the one at the end.
fn cpu(samples: &[(Nanoseconds, Sample)]) -> Option<[Used; 2]> {
    let mut used = [Used::default(); 2];
    for (index, pair) in samples.windows(2).enumerate() {
        let [(from_ns, from), (to_ns, to)] = pair else { continue };
        let (from, to): (Usage, Usage) = (from.server?, to.server?);
        let part = &mut used[usize::from(is_burst(index))];
        part.seconds += to_ns.saturating_sub(*from_ns) as f64 / SECOND_NS as f64;
        part.seconds_of_cpu += to.cpu_seconds - from.cpu_seconds;
    }
    Some(used)
}

/// In a few lines.
pub(super) fn write(out: &mut String, large: &LargeFigures) -> std::fmt::Result {
    let told = if large.hinted { "the others by hints" } else { "all of them everything" };
    writeln!(
        out,
        "large group   {} members, {} connected, {} of them have it open, {told}; filled in {:.1} s by {} requests",
        large.members, large.online, large.viewers, large.fill_seconds, large.fill_requests
    )?;
    writeln!(
        out,
        "              {} bursts, {} messages, {} acked, {} arrivals, {} hints ({} said what was known)",
        large.bursts, large.offered, large.acked, large.delivered, large.hints, large.hints_again
    )?;
    writeln!(out, "large ack     {}", quantiles(&large.send_to_ack_us))?;
    writeln!(out, "large deliver {}", quantiles(&large.send_to_deliver_us))?;
    if large.send_to_hint_us.count > 0 {
        writeln!(out, "large hint    {}", quantiles(&large.send_to_hint_us))?;
        let hints = &large.hints_per_burst;
        writeln!(out, "large hints   {:.1} a member and burst, {} at most", hints.mean, hints.max)?;
    }
    let chat = &large.chat;
    let factor = |factor: Option<f64>| factor.map_or_else(String::new, |factor| format!("  p99 × {factor:.2}"));
    if chat.quiet_send_to_ack_us.count > 0 {
        writeln!(out, "chat ack      quiet {}", quantiles(&chat.quiet_send_to_ack_us))?;
        writeln!(out, "              burst {}{}", quantiles(&chat.burst_send_to_ack_us), factor(chat.ack_p99_factor))?;
        writeln!(out, "chat deliver  quiet {}", quantiles(&chat.quiet_send_to_deliver_us))?;
        writeln!(
            out,
            "              burst {}{}",
            quantiles(&chat.burst_send_to_deliver_us),
            factor(chat.deliver_p99_factor)
        )?;
    }
    if let Some(server) = &large.server {
        writeln!(
            out,
            "node          {:.3} cores quiet, {:.3} in bursts: {:.2} ms of CPU a message; memory empty {}, filled {}, connected \
             {}, end {}",
            server.quiet_cpu_cores,
            server.burst_cpu_cores,
            server.cpu_seconds_per_message * 1e3,
            mebibytes(server.rss_bytes_empty),
            mebibytes(server.rss_bytes_filled),
            mebibytes(server.rss_bytes_connected),
            mebibytes(server.rss_bytes_end),
        )?;
    }
    Ok(())
}

/// As a part of the page.
pub(super) fn section(out: &mut String, large: &LargeFigures) -> std::fmt::Result {
    writeln!(
        out,
        "<section><h2>The large group</h2><p>{} members, filled in {:.1} s by {} requests; {} connected, {} of them have it open. {} \
         bursts of {} messages in all; {} arrivals, {} hints, {:.1} a member and burst.</p>",
        grouped(large.members.into()),
        large.fill_seconds,
        grouped(large.fill_requests),
        grouped(large.online.into()),
        grouped(large.viewers.into()),
        large.bursts,
        grouped(large.offered),
        grouped(large.delivered),
        grouped(large.hints),
        large.hints_per_burst.mean,
    )?;
    writeln!(out, "<div class=\"wide\"><table><thead><tr><th>latency<th>count<th>p50<th>p99<th>p99.9<th>max<tbody>")?;
    let chat = &large.chat;
    for (name, values) in [
        ("send → ack", &large.send_to_ack_us),
        ("send → deliver", &large.send_to_deliver_us),
        ("send → hint", &large.send_to_hint_us),
        ("chat: send → ack, quiet", &chat.quiet_send_to_ack_us),
        ("chat: send → ack, bursts", &chat.burst_send_to_ack_us),
        ("chat: send → deliver, quiet", &chat.quiet_send_to_deliver_us),
        ("chat: send → deliver, bursts", &chat.burst_send_to_deliver_us),
    ] {
        if values.count > 0 {
            writeln!(
                out,
                "<tr><th scope=\"row\">{name}<td>{}<td>{}<td>{}<td>{}<td>{}",
                grouped(values.count),
                duration(values.p50),
                duration(values.p99),
                duration(values.p999),
                duration(values.max)
            )?;
        }
    }
    writeln!(out, "</table></div>")?;
    if let (Some(ack), Some(deliver)) = (chat.ack_p99_factor, chat.deliver_p99_factor) {
        writeln!(
            out,
            "<p>The chat's p99 in bursts over that in quiet: {ack:.2} of acks, {deliver:.2} of deliveries.</p>"
        )?;
    }
    if let Some(server) = &large.server {
        writeln!(
            out,
            "<p>The node took {:.2} ms of CPU a message of a burst: {:.3} cores in bursts, {:.3} in quiet. Its memory: {} empty, {} with \
             the group, {} with all connections, {} at the end.</p>",
            server.cpu_seconds_per_message * 1e3,
            server.burst_cpu_cores,
            server.quiet_cpu_cores,
            mebibytes(server.rss_bytes_empty),
            mebibytes(server.rss_bytes_filled),
            mebibytes(server.rss_bytes_connected),
            mebibytes(server.rss_bytes_end),
        )?;
    }
    writeln!(out, "</section>")
}

fn round(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::{Latencies, record};

    fn sample(cpu_seconds: f64) -> Sample {
        Sample { server: Some(Usage { rss_bytes: 1, cpu_seconds }), ..Sample::default() }
    }

    #[test]
    fn what_bursts_take_is_told_from_what_is_always_there() {
        let s = SECOND_NS;
        let samples = [(0, sample(1.0)), (10 * s, sample(2.0)), (14 * s, sample(4.4)), (24 * s, sample(5.4))];
        let [quiet, burst] = cpu(&samples).unwrap();
        assert!((quiet.cores() - 0.1).abs() < 1e-9 && (burst.cores() - 0.6).abs() < 1e-9, "{quiet:?} {burst:?}");
        assert_eq!(cpu(&[(0, sample(1.0)), (s, Sample::default())]), None, "it ended");
    }

    #[test]
    fn the_chat_is_compared_with_itself() {
        let mut latencies = Latencies::new(5);
        for (part, milliseconds) in latencies.parts.iter_mut().zip([1, 4, 2, 8, 2]) {
            record(&mut part.send_to_ack, 0, milliseconds * 1_000_000);
        }
        let chat = ChatFigures::of(&latencies.parts);
        assert_eq!((chat.quiet_send_to_ack_us.count, chat.burst_send_to_ack_us.count), (3, 2));
        assert_eq!((chat.ack_p99_factor, chat.deliver_p99_factor), (Some(4.0), None));
    }

    #[test]
    fn hints_in_quiet_parts_and_lost_messages_are_told() {
        let good = LargeFigures { offered: 300, acked: 300, ..LargeFigures::default() };
        assert!(good.problems().is_empty() && good.failures().is_empty());
        let bad = LargeFigures { acked: 298, hints_in_quiet: 7, ..good };
        assert!(bad.problems()[0].starts_with("7 hints") && bad.failures()[0].starts_with("2 of"));
        let (mut text, mut page) = (String::new(), String::new());
        write(&mut text, &bad).unwrap();
        section(&mut page, &bad).unwrap();
        assert!(text.contains("300 messages, 298 acked") && page.contains("The large group"), "{text}{page}");
    }
}
