//! Sections of the page that only some loads have, and what is used over time.

use std::fmt::Write as _;

use super::{
    Report, Row,
    html::{escape, grouped, plot},
    large,
    parts::{SlowFigures, StormFigures},
    plots::{self, Colour, Line},
    summary::{duration, mebibytes},
};
use crate::trials::Trials;

const MEBIBYTE: f64 = (1 << 20) as f64;

/// A line over the timeline.
pub(super) fn row_line(
    report: &Report,
    name: &'static str,
    colour: Colour,
    value: impl Fn(&Row) -> Option<f64>,
) -> Line {
    let points = report.timeline.iter().filter_map(|row| Some((row.second as f64, value(row)?))).collect();
    Line { name, colour, points }
}

/// What comes before the latencies.
pub(super) fn sections(out: &mut String, report: &Report) -> anyhow::Result<()> {
    if let Some(trials) = &report.trials {
        trials_table(out, trials)?;
    }
    if let Some(storm) = &report.storm {
        storm_section(out, storm)?;
    }
    if let Some(slow) = &report.slow {
        slow_section(out, slow)?;
    }
    if let Some(large) = &report.large {
        large::section(out, large)?;
    }
    if !report.parts.is_empty() {
        parts_table(out, report)?;
    }
    if let Some(verified) = &report.verified {
        writeln!(
            out,
            "<p class=\"note\">Histories of {} conversations were read at the end: {} of {} acknowledged messages found, {} \
             missing.</p>",
            grouped(verified.conversations),
            grouped(verified.found),
            grouped(verified.acked),
            grouped(verified.missing)
        )?;
    }
    Ok(())
}

fn trials_table(out: &mut String, trials: &Trials) -> std::fmt::Result {
    writeln!(
        out,
        "<section><h2>Trials</h2><div class=\"wide\"><table><thead><tr><th>figure<th>lowest<th>median<th>highest"
    )?;
    for number in 1..=trials.list.len() {
        write!(out, "<th>trial {number}")?;
    }
    write!(out, "<tbody><tr><th scope=\"row\">verdict<td><td><td>")?;
    for trial in &trials.list {
        let verdict = if trial.passed { "passed" } else { "failed" };
        write!(out, "<td>{verdict}{}", if trial.valid { "" } else { ", not valid" })?;
    }
    for (name, spread) in &trials.spread {
        write!(out, "<tr><th scope=\"row\">{name}<td>{:.1}<td>{:.1}<td>{:.1}", spread.min, spread.median, spread.max)?;
        for trial in &trials.list {
            match trial.figures.get(name) {
                Some(value) => write!(out, "<td>{value:.1}")?,
                None => write!(out, "<td>")?,
            }
        }
    }
    writeln!(
        out,
        "</table></div><p class=\"note\">The rest of this page is of trial {}.</p></section>",
        trials.reported + 1
    )
}

fn storm_section(out: &mut String, storm: &StormFigures) -> anyhow::Result<()> {
    let seconds =
        |seconds: Option<f64>| seconds.map_or_else(|| "never".to_owned(), |seconds| format!("{seconds:.2} s"));
    writeln!(out, "<section><h2>The return of {} sessions</h2>", grouped(storm.sessions))?;
    let lines = [Line {
        name: "live sessions",
        colour: Colour::First,
        points: storm.curve.iter().map(|&(second, live)| (second, live as f64)).collect(),
    }];
    plot(out, "Since the node went", &lines, &plots::timeline(&lines, "")?)?;
    writeln!(
        out,
        "<p>The first was back after {}, half after {}, 90 % after {}, 99 % after {}, all after {}: {} a second, {} at most. Of {} \
         messages acknowledged before, {} were there afterwards.</p></section>",
        seconds(storm.first_seconds),
        seconds(storm.resumed_50_seconds),
        seconds(storm.resumed_90_seconds),
        seconds(storm.resumed_99_seconds),
        seconds(storm.resumed_100_seconds),
        grouped(storm.resumed_per_second as u64),
        grouped(storm.resumed_per_second_peak as u64),
        grouped(storm.acked_before),
        grouped(storm.acked_before_verified),
    )?;
    Ok(())
}

fn slow_section(out: &mut String, slow: &SlowFigures) -> std::fmt::Result {
    let memory = |bytes: Option<u64>| bytes.map_or_else(|| "?".to_owned(), mebibytes);
    writeln!(
        out,
        "<section><h2>Slow connections</h2><p>While {} connections did not read, the others' p99 of deliveries went from {} to {} \
         ({:.2} ×), and the node's memory from at most {} to at most {}.</p></section>",
        grouped(slow.connections),
        duration(slow.quiet_p99_us),
        duration(slow.slow_p99_us),
        slow.p99_factor,
        memory(slow.quiet_rss_bytes_max),
        memory(slow.slow_rss_bytes_max),
    )
}

fn parts_table(out: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(
        out,
        "<section><h2>Parts</h2><div class=\"wide\"><table><thead><tr><th>part<th>from<th>length<th>offered<th>ack p50<th>ack \
         p99<th>deliver p50<th>deliver p99<th>deliver p99.9<tbody>"
    )?;
    for part in &report.parts {
        let (ack, deliver) = (&part.send_to_ack, &part.send_to_deliver);
        writeln!(
            out,
            "<tr><th scope=\"row\">{}<td>{} s<td>{} s<td>{}/s<td>{}<td>{}<td>{}<td>{}<td>{}",
            escape(&part.name),
            part.from_second,
            part.seconds,
            grouped(part.offered_per_second as u64),
            duration(ack.p50),
            duration(ack.p99),
            duration(deliver.p50),
            duration(deliver.p99),
            duration(deliver.p999),
        )?;
    }
    writeln!(
        out,
        "</table></div><p class=\"note\">Of connections that stood, and read, since before a message's time.</p></section>"
    )
}

/// Memory and CPU over time; memory for each connection, too.
pub(super) fn resources_over_time(out: &mut String, report: &Report) -> anyhow::Result<()> {
    let rss = |row: &Row| row.server_rss_bytes.map(|bytes| bytes as f64 / MEBIBYTE);
    let memory = [row_line(report, "node", Colour::First, rss)];
    if !memory[0].points.is_empty() {
        let title = match &report.server {
            Some(server) => format!("Resident memory of the node ({:.0} B a connection)", server.bytes_per_connection),
            None => "Resident memory of the node".to_owned(),
        };
        plot(out, &title, &memory, &plots::timeline(&memory, "MiB")?)?;
    }
    let cpu = [
        row_line(report, "node", Colour::First, |row| row.server_cpu_cores),
        row_line(report, "generator", Colour::Second, |row| Some(row.generator_cpu_cores)),
    ];
    if !report.timeline.is_empty() {
        plot(out, "CPU", &cpu, &plots::timeline(&cpu, "cores")?)?;
    }
    if report.timeline.iter().any(|row| row.live < report.connections.established && row.up > 0) {
        let sessions = [
            row_line(report, "welcome", Colour::Third, |row| Some(row.up as f64)),
            row_line(report, "caught up", Colour::First, |row| Some(row.live as f64)),
        ];
        plot(out, "Sessions", &sessions, &plots::timeline(&sessions, "")?)?;
    }
    Ok(())
}
