//! The outcome in a few lines, for a person at a terminal.

use std::fmt::Write as _;

use super::{Quantiles, Report, TlsFigures, large, parts::StormFigures};
use crate::{soak::SoakFigures, trend::Trend, trials::Trials};

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
    match report.command {
        "idle" => {}
        "echo" => write_echo(out, report)?,
        _ => write_chat(out, report)?,
    }
    write_special(out, report)?;
    writeln!(out, "connect       {}", quantiles(&report.latency_us.connect))?;
    report.tls.as_ref().map_or(Ok(()), |tls| write_tls(out, tls))?;
    if report.latency_us.resume.count > 0 {
        writeln!(out, "resume        {}", quantiles(&report.latency_us.resume))?;
    }
    if report.latency_us.presence.count > 0 {
        writeln!(out, "presence      {}", quantiles(&report.latency_us.presence))?;
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
    if let Some(trials) = &report.trials {
        write_trials(out, trials)?;
    }
    for reason in &report.invalid_because {
        writeln!(out, "NOT VALID     {reason}")?;
    }
    for reason in &report.failed_because {
        writeln!(out, "FAILED        {reason}")?;
    }
    let violations = &report.violations;
    writeln!(
        out,
        "violations    order {}, gap {}, duplicate {}, lost {}, mismatch {}, foreign {}, missing {}, presence {}, unheard {}, hint {}, body {}",
        violations.order,
        violations.gap,
        violations.duplicate,
        violations.lost,
        violations.mismatch,
        violations.foreign,
        violations.missing,
        violations.presence,
        violations.unheard,
        violations.hint,
        violations.body,
    )?;
    writeln!(out, "{}", if report.passed() { "passed" } else { "FAILED" })
}

fn write_tls(out: &mut String, tls: &TlsFigures) -> std::fmt::Result {
    let handshakes = &tls.handshakes;
    let trust = if tls.verified { "" } else { "; CERTIFICATES WERE NOT VERIFIED" };
    writeln!(
        out,
        "TLS           {} full handshakes, {} resumed, {} failed{trust}",
        handshakes.full, handshakes.resumed, handshakes.failed
    )?;
    for (agreed, count) in &tls.agreed {
        writeln!(out, "              {count} × {agreed}")?;
    }
    writeln!(out, "handshake     {}", quantiles(&tls.handshake_us))?;
    writeln!(out, "  its waits   {}  for this generator's processor", quantiles(&tls.handshake_wait_us))?;
    if tls.unannounced_ends > 0 {
        writeln!(out, "              {} connections ended without close_notify", tls.unannounced_ends)?;
    }
    for (failure, count) in &tls.failures {
        writeln!(out, "TLS failed    {count} × {failure}")?;
    }
    Ok(())
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

fn write_echo(out: &mut String, report: &Report) -> std::fmt::Result {
    let (throughput, messages) = (&report.throughput, &report.messages);
    let pace = match report.options.in_flight {
        Some(in_flight) => format!("closed loop, {in_flight} under way on each connection"),
        None => format!("{:.0}/s offered", throughput.offered_per_second),
    };
    writeln!(
        out,
        "echoes        {pace}; {:.0}/s came back; {} did not",
        throughput.acked_per_second, messages.unacked
    )?;
    writeln!(out, "round trip    {}", quantiles(&report.latency_us.send_to_ack))?;
    if report.generator.late_us.count > 0 {
        writeln!(out, "lateness      {}", quantiles(&report.generator.late_us))?;
    }
    Ok(())
}

/// What only some loads have.
fn write_special(out: &mut String, report: &Report) -> std::fmt::Result {
    for part in &report.parts {
        writeln!(
            out,
            "part          {:<10} {:>6.1} s  {:>7.0}/s  ack p50 {} p99 {}  deliver p50 {} p99 {}",
            part.name,
            part.seconds,
            part.offered_per_second,
            duration(part.send_to_ack.p50),
            duration(part.send_to_ack.p99),
            duration(part.send_to_deliver.p50),
            duration(part.send_to_deliver.p99),
        )?;
    }
    if let Some(verified) = &report.verified {
        writeln!(
            out,
            "histories     {} read: {} of {} acknowledged messages found, {} missing",
            verified.conversations, verified.found, verified.acked, verified.missing
        )?;
    }
    if let Some(storm) = &report.storm {
        write_storm(out, storm)?;
    }
    if let Some(slow) = &report.slow {
        let memory = |bytes: Option<u64>| bytes.map_or_else(|| "?".to_owned(), mebibytes);
        writeln!(
            out,
            "slow          {} connections did not read: the others' p99 {} → {} ({:.2} ×); node at most {} → {}",
            slow.connections,
            duration(slow.quiet_p99_us),
            duration(slow.slow_p99_us),
            slow.p99_factor,
            memory(slow.quiet_rss_bytes_max),
            memory(slow.slow_rss_bytes_max),
        )?;
    }
    report.large.as_ref().map_or(Ok(()), |large| large::write(out, large))?;
    report.soak.as_ref().map_or(Ok(()), |soak| write_soak(out, soak))
}

fn write_storm(out: &mut String, storm: &StormFigures) -> std::fmt::Result {
    let seconds =
        |seconds: Option<f64>| seconds.map_or_else(|| "never".to_owned(), |seconds| format!("{seconds:.2} s"));
    writeln!(
        out,
        "storm         {} sessions; first back after {}, 50 % {}, 90 % {}, 99 % {}, all {}",
        storm.sessions,
        seconds(storm.first_seconds),
        seconds(storm.resumed_50_seconds),
        seconds(storm.resumed_90_seconds),
        seconds(storm.resumed_99_seconds),
        seconds(storm.resumed_100_seconds),
    )?;
    writeln!(
        out,
        "              {:.0} resumed a second, {:.0} at most; {} sends acknowledged before, {} of them there afterwards",
        storm.resumed_per_second, storm.resumed_per_second_peak, storm.acked_before, storm.acked_before_verified,
    )
}

fn write_soak(out: &mut String, soak: &SoakFigures) -> std::fmt::Result {
    let tell = |trend: &Trend| {
        let verdict = if trend.rises { "RISES" } else { "level" };
        format!("{verdict}, {:+.1} % over the run, z {:.1}, {} points", trend.growth * 100.0, trend.z, trend.points)
    };
    if let Some(memory) = &soak.memory {
        writeln!(out, "drift         memory of the node: {}", tell(memory))?;
    }
    writeln!(out, "drift         p99 of deliveries: {}", tell(&soak.latency))
}

fn write_trials(out: &mut String, trials: &Trials) -> std::fmt::Result {
    for (number, trial) in (1..).zip(&trials.list) {
        let verdict = match (trial.passed, trial.valid) {
            (false, _) => "FAILED",
            (true, false) => "not valid",
            (true, true) => "passed",
        };
        let shown = if number == trials.reported + 1 { "  (shown above)" } else { "" };
        writeln!(out, "trial {number:<8}{verdict}  seed {}{shown}", trial.seed)?;
    }
    for (name, spread) in &trials.spread {
        writeln!(out, "spread        {name:<38} {:.1} … median {:.1} … {:.1}", spread.min, spread.median, spread.max)?;
    }
    Ok(())
}

pub(super) fn quantiles(values: &Quantiles) -> String {
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
    fn what_only_some_loads_have_is_told() {
        let mut report = super::super::tests::sample();
        report.command = "storm";
        report.storm = Some(StormFigures { sessions: 77, resumed_50_seconds: Some(1.5), ..StormFigures::default() });
        report.failed_because.push("70 of 77 sessions were back".to_owned());
        let text = text(&report);
        assert!(text.contains("77 sessions; first back after never, 50 % 1.50 s"), "{text}");
        assert!(text.contains("FAILED        70 of 77") && text.ends_with("FAILED\n"), "{text}");
        let trials = crate::trials::together(vec![super::super::tests::sample(), report]).unwrap();
        let text = super::text(&trials);
        assert!(
            text.contains("trial 2       FAILED") && text.contains("spread        latency_us.send_to_ack.p99"),
            "{text}"
        );
    }

    #[test]
    fn durations_read_well() {
        assert_eq!([7, 1_500, 2_000_000].map(duration), ["7 µs", "1.50 ms", "2.00 s"]);
    }
}
