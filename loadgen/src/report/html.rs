//! The outcome as one self-contained page: no script, nothing loaded from elsewhere, light or dark as the reader likes it.

use std::fmt::Write as _;

use super::{
    Handshakes, Quantiles, Report, Row,
    plots::{self, Colour, Line},
    special,
    summary::{duration, mebibytes},
};

pub(super) const STYLE: &str = include_str!("page.css");

/// The page.
pub fn page(report: &Report) -> anyhow::Result<String> {
    let mut out = String::new();
    let title = format!("loadgen {} · {} connections", report.command, grouped(report.options.connections.into()));
    header(&mut out, report)?;
    tiles(&mut out, report)?;
    special::sections(&mut out, report)?;
    latencies(&mut out, report)?;
    if report.timeline.iter().any(|row| row.offered > 0) {
        timelines(&mut out, report)?;
    }
    resources(&mut out, report)?;
    facts(&mut out, report)?;
    Ok(frame(&title, &out))
}

fn header(out: &mut String, report: &Report) -> anyhow::Result<()> {
    let options = &report.options;
    let what = match report.command {
        "idle" => format!("connected and idle for {} s, with heartbeats", options.seconds),
        "echo" => match options.in_flight {
            Some(in_flight) => format!(
                "{in_flight} echoes of each under way, {} bytes, for {} s",
                options.text_bytes_law, options.seconds
            ),
            None => format!(
                "{} echoes a second, {} bytes, for {} s",
                grouped(options.rate as u64),
                options.text_bytes_law,
                options.seconds
            ),
        },
        _ => format!(
            "{} messages a second into groups of {}, {} bytes of text each, for {} s",
            grouped(options.rate as u64),
            options.group_size_law,
            options.text_bytes_law,
            options.seconds
        ),
    };
    let connections = grouped(options.connections.into());
    writeln!(
        out,
        "<header><h1>loadgen {}</h1><p>{connections} connections to {}: {what}.</p>",
        report.command,
        escape(&options.target)
    )?;
    let violations = report.violations.total();
    let (class, verdict) = match (report.passed(), report.valid) {
        (true, true) => ("good", "Passed: no promise was broken, and every connection was established.".to_owned()),
        (true, false) => ("warn", "No promise was broken, but the figures are not valid.".to_owned()),
        (false, _) if violations > 0 => ("bad", format!("Failed: {} violations.", grouped(violations))),
        (false, _) if report.connections.established < report.connections.requested => {
            ("bad", "Failed: not every connection was established.".to_owned())
        }
        (false, _) => ("bad", "Failed.".to_owned()),
    };
    write!(out, "<p class=\"verdict {class}\">{verdict}")?;
    for reason in report.failed_because.iter().chain(&report.invalid_because) {
        write!(out, "<br>{}", escape(reason))?;
    }
    writeln!(out, "</p></header>")?;
    Ok(())
}

fn tiles(out: &mut String, report: &Report) -> anyhow::Result<()> {
    let mut tiles = Vec::new();
    if report.command == "echo" {
        tiles.push(("round trip, p99", duration(report.latency_us.send_to_ack.p99)));
        tiles.push(("echoes", format!("{}/s", grouped(report.throughput.acked_per_second as u64))));
    } else if report.command != "idle" {
        let latency = &report.latency_us;
        tiles.push(("send → ack, p99", duration(latency.send_to_ack.p99)));
        tiles.push(("send → deliver, p99", duration(latency.send_to_deliver.p99)));
        tiles.push(("acknowledged", format!("{}/s", grouped(report.throughput.acked_per_second as u64))));
        tiles.push(("delivered", format!("{}/s", grouped(report.throughput.delivered_per_second as u64))));
    }
    tiles.push(("established", format!("{}/s", grouped(report.connections.established_per_second as u64))));
    if let Some(server) = &report.server {
        tiles.push(("node, a connection", format!("{:.0} B", server.bytes_per_connection)));
        tiles.push(("node, CPU", format!("{:.2} cores", server.cpu_cores)));
    }
    tiles.push(("violations", grouped(report.violations.total())));
    write!(out, "<section class=\"tiles\">")?;
    for (name, value) in tiles {
        write!(out, "<div><b>{value}</b><span>{name}</span></div>")?;
    }
    writeln!(out, "</section>")?;
    Ok(())
}

fn latencies(out: &mut String, report: &Report) -> anyhow::Result<()> {
    let latency = &report.latency_us;
    let mut rows = vec![
        (if report.command == "echo" { "round trip" } else { "send → ack" }, &latency.send_to_ack),
        ("send → deliver", &latency.send_to_deliver),
        ("connect → welcome", &latency.connect),
        ("loss → caught up", &latency.resume),
        ("came or went → told", &latency.presence),
        ("lateness of the generator", &report.generator.late_us),
        ("lag of its threads", &report.generator.lag_us),
    ];
    if let Some(tls) = &report.tls {
        rows.extend([("TCP → TLS", &tls.handshake_us), ("its waits for the generator", &tls.handshake_wait_us)]);
    }
    writeln!(out, "<section><h2>Latency</h2>")?;
    let curves = &report.percentiles;
    let line = |name, colour, points: &[(f64, u64)]| Line {
        name,
        colour,
        points: points.iter().map(|&(quantile, value)| (plots::nines(quantile), value as f64)).collect(),
    };
    let mut lines = vec![
        line("send → ack", Colour::First, &curves.send_to_ack),
        line("send → deliver", Colour::Second, &curves.send_to_deliver),
        line("lateness of the generator", Colour::Third, &curves.late),
    ];
    if report.command == "echo" {
        lines.remove(1);
    }
    if latency.resume.count > 0 {
        lines.push(line("loss → caught up", Colour::Fourth, &curves.resume));
    }
    if latency.presence.count > 0 {
        lines.push(line("came or went → told", Colour::Fifth, &curves.presence));
    }
    if report.command == "idle" {
        lines = vec![line("connect → welcome", Colour::First, &curves.connect)];
    }
    plot(out, "By percentile", &lines, &plots::percentiles(&lines)?)?;
    writeln!(out, "<div class=\"wide\"><table><thead><tr><th>from → to")?;
    for name in ["count", "mean", "p50", "p90", "p99", "p99.9", "p99.99", "max"] {
        write!(out, "<th>{name}")?;
    }
    writeln!(out, "<tbody>")?;
    for (name, quantiles) in rows.into_iter().filter(|(_, quantiles)| quantiles.count > 0) {
        quantile_row(out, name, quantiles)?;
    }
    writeln!(
        out,
        "</table></div><p class=\"note\">Counted from the time at which a message was meant to be sent, not from when it was.</p></section>"
    )?;
    Ok(())
}

fn quantile_row(out: &mut String, name: &str, quantiles: &Quantiles) -> std::fmt::Result {
    write!(out, "<tr><th scope=\"row\">{name}<td>{}<td>{}", grouped(quantiles.count), duration(quantiles.mean as u64))?;
    let Quantiles { p50, p90, p99, p999, p9999, max, .. } = *quantiles;
    for value in [p50, p90, p99, p999, p9999, max] {
        write!(out, "<td>{}", duration(value))?;
    }
    writeln!(out)
}

fn timelines(out: &mut String, report: &Report) -> anyhow::Result<()> {
    let line = |name, colour, value: fn(&Row) -> Option<f64>| special::row_line(report, name, colour, value);
    writeln!(out, "<section><h2>Over time</h2>")?;
    let warmup = report.options.warmup_seconds;
    if warmup > 0.0 {
        writeln!(out, "<p class=\"note\">The first {warmup} s are the warm-up: checked, but in no figure above.</p>")?;
    }
    let lines = [
        line("ack p50", Colour::First, |row| Some(row.send_to_ack_p50_us as f64)),
        line("ack p99", Colour::Third, |row| Some(row.send_to_ack_p99_us as f64)),
        line("deliver p50", Colour::Second, |row| Some(row.send_to_deliver_p50_us as f64)),
        line("deliver p99", Colour::Fourth, |row| Some(row.send_to_deliver_p99_us as f64)),
    ];
    plot(out, "Latency", &lines, &plots::latency_timeline(&lines)?)?;
    let lines = [
        line("offered", Colour::Second, |row| Some(row.offered as f64)),
        line("acknowledged", Colour::First, |row| Some(row.acked as f64)),
    ];
    plot(out, "Messages", &lines, &plots::rate_timeline(&lines)?)?;
    let lines = [line("delivered", Colour::First, |row| Some(row.delivered as f64))];
    plot(out, "Deliveries", &lines, &plots::rate_timeline(&lines)?)?;
    writeln!(out, "</section>")?;
    Ok(())
}

pub(super) fn plot(out: &mut String, title: &str, lines: &[Line], svg: &str) -> std::fmt::Result {
    write!(out, "<figure><figcaption><b>{title}</b>")?;
    for line in lines {
        write!(out, "<span><i style=\"background:{}\"></i>{}</span>", line.colour.variable(), line.name)?;
    }
    writeln!(out, "</figcaption>{svg}</figure>")
}

fn resources(out: &mut String, report: &Report) -> anyhow::Result<()> {
    writeln!(
        out,
        "<section><h2>Memory and CPU</h2><div class=\"wide\"><table><thead><tr><th>of<th>before<th>connected<th>at the end<th>a connection<th>CPU<tbody>"
    )?;
    if let Some(server) = &report.server {
        writeln!(
            out,
            "<tr><th scope=\"row\">node<td>{}<td>{}<td>{}<td>{:.0} B<td>{:.2} cores",
            mebibytes(server.rss_bytes_before),
            mebibytes(server.rss_bytes_after),
            mebibytes(server.rss_bytes),
            server.bytes_per_connection,
            server.cpu_cores
        )?;
    }
    let generator = &report.generator;
    writeln!(
        out,
        "<tr><th scope=\"row\">generator<td><td><td>{}<td>{:.0} B<td>{:.2} cores",
        mebibytes(generator.rss_bytes),
        generator.bytes_per_connection,
        generator.cpu_cores
    )?;
    let kernel = &report.kernel;
    writeln!(
        out,
        "<tr><th scope=\"row\">kernel slabs, both ends<td>{}<td>{}<td><td>{:.0} B<td>",
        mebibytes(kernel.slab_bytes_before),
        mebibytes(kernel.slab_bytes_after),
        kernel.slab_bytes_per_connection
    )?;
    writeln!(out, "</table></div>")?;
    special::resources_over_time(out, report)?;
    writeln!(out, "</section>")?;
    Ok(())
}

fn facts(out: &mut String, report: &Report) -> anyhow::Result<()> {
    let violations = &report.violations;
    let (machine, options, messages) = (&report.machine, &report.options, &report.messages);
    let connections = &report.connections;
    let rows = [
        (
            "violations",
            format!(
                "order {}, gap {}, duplicate {}, lost {}, mismatch {}, foreign {}, missing {}, presence {}, unheard {}, hint {}, body {}",
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
            ),
        ),
        (
            "connections",
            format!(
                "{} of {} established in {} s; {} lost, {} resumed, {} up at the end",
                connections.established,
                connections.requested,
                connections.establish_seconds,
                connections.lost,
                connections.resumed,
                connections.up_at_end
            ),
        ),
        (
            "messages",
            format!(
                "{} offered, {} acknowledged, {} not, {} refused, {} sent again; {} deliveries",
                messages.offered,
                messages.acked,
                messages.unacked,
                messages.rejected,
                messages.retried,
                messages.delivered
            ),
        ),
        (
            "run",
            format!(
                "{} threads, {:?} arrivals, {}, seed {}",
                options.threads, options.arrivals, options.encoding, report.seed
            ),
        ),
        ("machine", format!("{}, clock {}", machine.facts, machine.clock_source)),
        ("version", format!("{} · revision {} · {}", report.version, report.revision, report.schema)),
    ];
    writeln!(out, "<section><h2>The run</h2><dl>")?;
    for (name, value) in rows {
        writeln!(out, "<dt>{name}<dd>{}", escape(&value))?;
    }
    if let Some(tls) = &report.tls {
        let Handshakes { full, resumed, failed, .. } = tls.handshakes;
        let trust = if tls.verified { "" } else { "; certificates were not verified" };
        writeln!(out, "<dt>TLS<dd>{full} full handshakes, {resumed} resumed, {failed} failed{trust}")?;
        for (agreed, count) in &tls.agreed {
            writeln!(out, "<dt>TLS × {count}<dd>{}", escape(agreed))?;
        }
        for (failure, count) in &tls.failures {
            writeln!(out, "<dt>TLS failed × {count}<dd>{}", escape(failure))?;
        }
    }
    for (error, count) in &report.errors {
        writeln!(out, "<dt>error × {count}<dd>{}", escape(error))?;
    }
    writeln!(out, "</dl></section>")?;
    Ok(())
}

/// A number with its thousands apart.
pub(super) fn grouped(value: u64) -> String {
    let digits = value.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap_or_default()).collect();
    groups.join("\u{202F}")
}

/// A page around a body.
pub(super) fn frame(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>{title}</title>\n<meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\">\n<style>{STYLE}</style>\n<main>\n{body}</main>\n</html>\n"
    )
}

pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::{super::tests::sample, *};

    #[test]
    fn the_page_is_whole_and_loads_nothing() {
        let page = page(&sample()).unwrap();
        assert_eq!(page.matches("<svg").count(), 6);
        assert!(page.ends_with("</html>\n") && page.contains("Passed") && page.contains("too &lt;many&gt;"));
        for reference in ["src=", "href=", "<script", "url(", "@import"] {
            assert!(!page.contains(reference), "{reference}");
        }
    }

    #[test]
    fn failure_and_invalidity_are_said_first() {
        let mut report = sample();
        (report.valid, report.invalid_because) = (false, vec!["late".to_owned()]);
        assert!(page(&report).unwrap().contains("verdict warn"));
        report.violations.lost = 1;
        assert!(page(&report).unwrap().contains("Failed: 1 violations"));
    }

    #[test]
    fn thousands_stand_apart() {
        assert_eq!([7, 1_234, 12_345_678].map(grouped), ["7", "1\u{202F}234", "12\u{202F}345\u{202F}678"]);
    }
}
