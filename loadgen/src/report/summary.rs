//! The outcome in a few lines, for a person at a terminal.

use std::fmt::Write as _;

use super::{Quantiles, Report};

/// The summary.
#[must_use]
pub fn text(report: &Report) -> String {
    let mut out = String::new();
    write(&mut out, report).expect("writing to memory does not fail");
    out
}

fn write(out: &mut String, report: &Report) -> std::fmt::Result {
    let connections = &report.connections;
    writeln!(out)?;
    writeln!(
        out,
        "connections   {} of {} established in {:.1} s ({:.0}/s), {} lost, {} resumed",
        connections.established,
        connections.requested,
        connections.establish_seconds,
        connections.established_per_second,
        connections.lost,
        connections.resumed,
    )?;
    if report.command == "chat" {
        write_chat(out, report)?;
    }
    writeln!(out, "connect       {}", quantiles(&report.latency_us.connect))?;
    if report.latency_us.resume.count > 0 {
        writeln!(out, "resume        {}", quantiles(&report.latency_us.resume))?;
    }
    if let Some(server) = &report.server {
        writeln!(
            out,
            "node          {:.2} cores, {} resident; {:.0} bytes a connection",
            server.cpu_cores,
            mebibytes(server.rss_bytes),
            server.bytes_per_connection,
        )?;
    }
    writeln!(
        out,
        "kernel        {:.0} bytes of slab a connection, both ends",
        report.kernel.slab_bytes_per_connection
    )?;
    let generator = &report.generator;
    writeln!(
        out,
        "generator     {:.2} cores on {} threads, {} resident, {:.0} bytes a connection",
        generator.cpu_cores,
        generator.threads,
        mebibytes(generator.rss_bytes),
        generator.bytes_per_connection,
    )?;
    for (error, count) in &report.errors {
        writeln!(out, "error         {count} × {error}")?;
    }
    for reason in &report.invalid_because {
        writeln!(out, "NOT VALID     {reason}")?;
    }
    let violations = &report.violations;
    writeln!(
        out,
        "violations    order {}, gap {}, duplicate {}, lost {}, mismatch {}, foreign {}",
        violations.order,
        violations.gap,
        violations.duplicate,
        violations.lost,
        violations.mismatch,
        violations.foreign,
    )?;
    writeln!(out, "{}", if report.passed() { "passed" } else { "FAILED" })
}

fn write_chat(out: &mut String, report: &Report) -> std::fmt::Result {
    let (throughput, messages) = (&report.throughput, &report.messages);
    writeln!(
        out,
        "messages      {:.0}/s offered, {:.0}/s acked, {:.0}/s delivered; {} unacked, {} rejected, {} retried",
        throughput.offered_per_second,
        throughput.acked_per_second,
        throughput.delivered_per_second,
        messages.unacked,
        messages.rejected,
        messages.retried,
    )?;
    writeln!(out, "send→ack      {}", quantiles(&report.latency_us.send_to_ack))?;
    writeln!(out, "send→deliver  {}", quantiles(&report.latency_us.send_to_deliver))?;
    writeln!(out, "lateness      {}", quantiles(&report.generator.late_us))
}

fn quantiles(values: &Quantiles) -> String {
    let parts = [("p50", values.p50), ("p99", values.p99), ("p99.9", values.p999), ("max", values.max)];
    parts.map(|(name, microseconds)| format!("{name} {:>9}", duration(microseconds))).join("  ")
}

/// Microseconds in the unit that reads best.
pub(super) fn duration(microseconds: u64) -> String {
    match microseconds {
        0..=999 => format!("{microseconds} µs"),
        1_000..=999_999 => format!("{:.2} ms", microseconds as f64 / 1e3),
        _ => format!("{:.2} s", microseconds as f64 / 1e6),
    }
}

/// Bytes as MiB.
pub(super) fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_names_the_verdict_and_the_figures() {
        let mut report = super::super::tests::sample();
        let good = text(&report);
        assert!(
            good.ends_with("passed\n") && good.contains("send→deliver  p50") && !good.contains("NOT VALID"),
            "{good}"
        );
        report.violations.gap = 3;
        report.invalid_because.push("late".to_owned());
        let bad = text(&report);
        assert!(bad.ends_with("FAILED\n") && bad.contains("gap 3") && bad.contains("NOT VALID     late"), "{bad}");
    }

    #[test]
    fn durations_read_well() {
        assert_eq!([7, 1_500, 2_000_000].map(duration), ["7 µs", "1.50 ms", "2.00 s"]);
    }
}
