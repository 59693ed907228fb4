//! From an outcome to a report: counts become rates, histograms percentiles, samples differences. Pure but for the facts of the
//! machine.

use std::{collections::BTreeMap, time::SystemTime};

use super::outcome::{Milestones, Outcome};
use crate::{
    checker::MEMBER_BYTES,
    clock::{Nanoseconds, SECOND_NS},
    driver::LINK_BYTES,
    law::Law,
    machine::Machine,
    measure::Second,
    options::{Load, Mix, Slice},
    process::Process,
    report::{
        ConnectionFigures, GeneratorFigures, KernelFigures, LATE_US_MAX, Latency, MessageFigures, Percentiles,
        Quantiles, Report, Row, RunOptions, SCHEMA, ServerFigures, Throughput, TlsFigures, curve,
        large::LargeFigures,
        parts::{PartFigures, SlowFigures, StormFigures, VerifiedFigures},
    },
    soak,
    transport::{SLOT_BYTES, Transport},
    workload::{
        connections::CONNECTION_BYTES,
        control::Counts,
        plan::{OPEN_END_NS, Plan},
    },
};

/// The report of an outcome, of one process or of several merged.
pub fn report(load: &Load, started: SystemTime, outcome: Outcome) -> anyhow::Result<Report> {
    let plan = load.plan(Slice::WHOLE)?;
    let (counts, milestones) = (outcome.counts, outcome.milestones);
    let latencies = &outcome.latencies;
    let measured_seconds = (milestones.measured_ns as f64 / SECOND_NS as f64).max(0.001);
    let per_second = |count: u64| round(count as f64 / measured_seconds, 10.0);
    let timeline = timeline(&plan, &outcome)?;
    let parts = parts(&plan, &outcome);
    let problems = problems(&outcome);
    let mut report = Report {
        schema: SCHEMA,
        version: env!("CARGO_PKG_VERSION"),
        revision: env!("LOADGEN_REVISION"),
        command: load.name(),
        started_unix_ms: started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as u64,
        seed: outcome.seed,
        options: options(load, &plan, &outcome)?,
        machine: Machine::this(),
        valid: problems.is_empty(),
        invalid_because: problems,
        failed_because: outcome.failures.clone(),
        violations: outcome.violations,
        connections: connection_figures(outcome.requested, &counts, &milestones),
        messages: message_figures(&counts),
        throughput: Throughput {
            offered_per_second: per_second(counts.measured_offered),
            acked_per_second: per_second(counts.measured_acked),
            delivered_per_second: per_second(counts.measured_delivered),
        },
        latency_us: Latency {
            send_to_ack: Quantiles::of(&latencies.send_to_ack),
            send_to_deliver: Quantiles::of(&latencies.send_to_deliver),
            connect: Quantiles::of(&latencies.connect),
            resume: Quantiles::of(&latencies.resume),
            presence: Quantiles::of(&latencies.presence),
        },
        server: outcome
            .server_pid
            .and_then(|pid| server_figures(Process { pid }, &milestones, counts.established, measured_seconds)),
        tls: match &plan.transport {
            Transport::Plain => None,
            Transport::Tls(client) => Some(TlsFigures::of(client, &counts, latencies, &outcome.tls)),
        },
        kernel: kernel_figures(&milestones, counts.established),
        generator: generator_figures(&outcome, matches!(plan.transport, Transport::Tls(_)), measured_seconds),
        errors: outcome.errors.clone(),
        timeline,
        percentiles: Percentiles {
            send_to_ack: curve(&latencies.send_to_ack),
            send_to_deliver: curve(&latencies.send_to_deliver),
            connect: curve(&latencies.connect),
            resume: curve(&latencies.resume),
            presence: curve(&latencies.presence),
            late: curve(&latencies.late),
        },
        parts,
        verified: plan.verifies.then_some(VerifiedFigures {
            conversations: counts.verified,
            acked: counts.acked,
            found: counts.found,
            missing: outcome.violations.missing,
        }),
        storm: outcome
            .storm
            .as_ref()
            .map(|storm| StormFigures::of(storm, outcome.violations.missing, outcome.restarted_pid)),
        slow: None,
        large: plan.large.as_ref().map(|large| LargeFigures::of(large, &outcome)),
        soak: None,
        trials: None,
    };
    if let Some(large) = &report.large {
        report.invalid_because.extend(large.problems());
        report.failed_because.extend(large.failures());
        report.valid = report.invalid_because.is_empty();
    }
    judge(load, &plan, &mut report);
    Ok(report)
}

/// What some loads fail by, beside violations.
fn judge(load: &Load, plan: &Plan, report: &mut Report) {
    match load {
        Load::Slow(options) => {
            let slow = (0..plan.connections).filter(|&connection| plan.is_slow(connection)).count() as u64;
            report.slow = SlowFigures::of(slow, &report.parts, &report.timeline);
            if let (Some(slow), Some(factor_max)) = (&report.slow, options.p99_factor_max)
                && slow.p99_factor > factor_max
            {
                let text = format!("the others' p99 grew by {}, beyond {factor_max}", slow.p99_factor);
                report.failed_because.push(text);
            }
        }
        Load::Soak(options) => {
            let warmup_seconds = plan.warmup_ns / SECOND_NS;
            let (memory_max, latency_max) = (options.memory_growth_max, options.latency_growth_max);
            let (figures, failures) = soak::judge(&report.timeline, warmup_seconds, memory_max, latency_max);
            report.soak = Some(figures);
            report.failed_because.extend(failures);
        }
        _ => {}
    }
}

fn problems(outcome: &Outcome) -> Vec<String> {
    let mut problems = outcome.problems.clone();
    let late_us = outcome.latencies.late.value_at_quantile(0.99);
    if late_us > LATE_US_MAX {
        let late_ms = late_us as f64 / 1_000.0;
        problems.push(format!("the generator was late: p99 {late_ms:.1} ms, beyond {} ms", LATE_US_MAX / 1_000));
    }
    let counts = &outcome.counts;
    if counts.skipped + counts.replies_skipped > 0 {
        let skipped = counts.skipped + counts.replies_skipped;
        problems
            .push(format!("{skipped} messages were not sent: too many were under way, or their connection was not up"));
    }
    problems
}

fn timeline(plan: &Plan, outcome: &Outcome) -> anyhow::Result<Vec<Row>> {
    let mut seconds: BTreeMap<u64, Second> = BTreeMap::new();
    let mut rows: BTreeMap<u64, Row> = BTreeMap::new();
    let row_seconds = plan.row_ns / SECOND_NS;
    let end = match plan.measured_ns {
        OPEN_END_NS => outcome.load_end_ns,
        measured_ns => plan.warmup_ns + measured_ns,
    };
    let end = end.div_ceil(plan.row_ns);
    let sample = |row: u64| outcome.samples.iter().find(|sample| sample.row == row).copied().unwrap_or_default();
    for text in &outcome.rows {
        let second: Second = serde_json::from_str(text)?;
        match seconds.get_mut(&second.index) {
            // Another process's.
            Some(mine) => mine.add(&second),
            None => {
                seconds.insert(second.index, second);
            }
        }
    }
    for row in 0..end {
        let second = seconds.remove(&row).unwrap_or_else(|| Second::new(row));
        rows.insert(row, Row::of(&second, &sample(row), row_seconds));
    }
    Ok(rows.into_values().collect())
}

fn parts(plan: &Plan, outcome: &Outcome) -> Vec<PartFigures> {
    let seconds = |nanoseconds: Nanoseconds| nanoseconds as f64 / SECOND_NS as f64;
    let starts = &outcome.part_starts_ns;
    let begun = plan.parts.iter().zip(starts).zip(&outcome.latencies.parts).enumerate();
    let part = |(index, ((part, &from_ns), latencies)): (usize, ((&_, &Nanoseconds), &_))| {
        let (part, latencies): (&crate::workload::plan::Part, &crate::measure::PartLatencies) = (part, latencies);
        let end_ns = starts.get(index + 1).copied().unwrap_or(outcome.load_end_ns).max(from_ns);
        let length = seconds(end_ns - from_ns);
        PartFigures {
            name: part.name.clone(),
            from_second: round(seconds(from_ns), 100.0),
            seconds: round(length, 100.0),
            offered_per_second: round(latencies.offered as f64 / length.max(0.001), 10.0),
            send_to_ack: Quantiles::of(&latencies.send_to_ack),
            send_to_deliver: Quantiles::of(&latencies.send_to_deliver),
        }
    };
    begun.map(part).collect()
}

fn options(load: &Load, plan: &Plan, outcome: &Outcome) -> anyhow::Result<RunOptions> {
    let seconds = |nanoseconds: Nanoseconds| nanoseconds as f64 / SECOND_NS as f64;
    let (group_size, text_bytes) = match load {
        Load::Idle(_) => (Law::Fixed(0), Law::Fixed(0)),
        Load::Echo(options) => (Law::Fixed(0), options.payload_bytes),
        Load::Chat(options) => (options.group_size, options.traffic.text_bytes),
        Load::Broadcast(options) => (options.group_size, options.traffic.text_bytes),
        Load::Storm(options) => (options.group_size, options.traffic.text_bytes),
        Load::Slow(options) => (options.group_size, options.traffic.text_bytes),
        Load::Soak(options) => (options.group_size, options.traffic.text_bytes),
        Load::Large(options) => (options.chat_group_size, options.traffic.text_bytes),
        Load::Mix(options) => {
            let mix = Mix::from_file(&options.file)?;
            (mix.conversations.group_size.0, mix.text_bytes.0)
        }
    };
    Ok(RunOptions {
        target: load.common().target.clone(),
        connections: plan.connections,
        rate: plan.rate_per_second,
        seconds: round(seconds(outcome.milestones.measured_ns), 1_000.0),
        warmup_seconds: seconds(plan.warmup_ns),
        group_size: group_size.bounds().1.min(plan.connections),
        text_bytes: text_bytes.bounds().1 as usize,
        arrivals: plan.spread,
        encoding: load.common().encoding.name().to_owned(),
        threads: outcome.threads,
        processes: 1,
        in_flight: plan.echo.and_then(|echo| echo.in_flight),
        group_size_law: group_size.to_string(),
        text_bytes_law: text_bytes.to_string(),
        command_line: std::env::args().skip(1).collect(),
    })
}

fn connection_figures(requested: u64, counts: &Counts, milestones: &Milestones) -> ConnectionFigures {
    let establish_seconds = milestones.establish_ns as f64 / SECOND_NS as f64;
    ConnectionFigures {
        requested,
        established: counts.established,
        lost: counts.lost,
        resumed: counts.resumed,
        up_at_end: counts.up,
        left: counts.left,
        failed_attempts: counts.failed_attempts,
        resets: counts.resets,
        establish_seconds: round(establish_seconds, 100.0),
        established_per_second: round(counts.established as f64 / establish_seconds.max(0.001), 1.0),
    }
}

fn message_figures(counts: &Counts) -> MessageFigures {
    MessageFigures {
        offered: counts.offered,
        acked: counts.acked,
        unacked: counts.unacked,
        skipped: counts.skipped,
        rejected: counts.rejected,
        retried: counts.retried,
        acked_as_duplicate: counts.acked_again,
        delivered: counts.delivered,
        too_far: counts.too_far,
        protocol_errors: counts.protocol_errors,
    }
}

/// `None` if the process was not there all the time: figures of two processes make no sum.
fn server_figures(
    server: Process,
    milestones: &Milestones,
    established: u64,
    measured_seconds: f64,
) -> Option<ServerFigures> {
    let (before, after) = (milestones.before.server?, milestones.established.server?);
    let (from, to) = (milestones.measured_from.server?, milestones.measured_to.server?);
    let cpu_seconds = to.cpu_seconds - from.cpu_seconds;
    Some(ServerFigures {
        pid: server.pid,
        rss_bytes: to.rss_bytes,
        cpu_seconds: round(cpu_seconds, 100.0),
        cpu_cores: round(cpu_seconds / measured_seconds, 1_000.0),
        rss_bytes_before: before.rss_bytes,
        rss_bytes_after: after.rss_bytes,
        bytes_per_connection: per_connection(before.rss_bytes, after.rss_bytes, established),
        connect_cpu_seconds: round(after.cpu_seconds - before.cpu_seconds, 100.0),
    })
}

fn generator_figures(outcome: &Outcome, with_tls: bool, measured_seconds: f64) -> GeneratorFigures {
    let milestones = &outcome.milestones;
    let cpu_seconds = milestones.measured_to.own.cpu_seconds - milestones.measured_from.own.cpu_seconds;
    let (before, after) = (milestones.before.own, milestones.established.own);
    let tls_bytes = if with_tls { SLOT_BYTES } else { 0 };
    let structure_bytes = CONNECTION_BYTES + LINK_BYTES + tls_bytes + outcome.layers * MEMBER_BYTES;
    let grown = per_connection(before.rss_bytes, after.rss_bytes, outcome.counts.established);
    GeneratorFigures {
        threads: outcome.threads,
        cpu_seconds: round(cpu_seconds, 100.0),
        cpu_cores: round(cpu_seconds / measured_seconds, 1_000.0),
        rss_bytes: milestones.measured_to.own.rss_bytes,
        bytes_per_connection: structure_bytes as f64 + grown,
        bytes_per_connection_structures: structure_bytes,
        late_us: Quantiles::of(&outcome.latencies.late),
        lag_us: Quantiles::of(&outcome.latencies.lag),
    }
}

fn kernel_figures(milestones: &Milestones, established: u64) -> KernelFigures {
    let (before, after) = (milestones.before.slab_bytes, milestones.established.slab_bytes);
    KernelFigures {
        slab_bytes_before: before,
        slab_bytes_after: after,
        slab_bytes_per_connection: per_connection(before, after, established),
    }
}

fn per_connection(before_bytes: u64, after_bytes: u64, connections: u64) -> f64 {
    round((after_bytes as f64 - before_bytes as f64) / connections.max(1) as f64, 10.0)
}

/// Rounds to a fraction: figures in reports have no false digits.
fn round(value: f64, parts: f64) -> f64 {
    (value * parts).round() / parts
}
