//! `loadgen report A.json B.json`: outcomes of earlier runs side by side, each figure with its ratio to the first run's.

use std::{fmt::Write as _, path::Path};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::{SCHEMA, html, summary};

/// How a figure is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Plain,
    PerSecond,
    Microseconds,
    Bytes,
    Mebibytes,
    Cores,
    Seconds,
}

/// What is compared: a name, the place in the report and its unit.
const FIGURES: &[(&str, &str, Unit)] = &[
    ("violations: order", "/violations/order", Unit::Plain),
    ("violations: gap", "/violations/gap", Unit::Plain),
    ("violations: duplicate", "/violations/duplicate", Unit::Plain),
    ("violations: lost", "/violations/lost", Unit::Plain),
    ("violations: mismatch", "/violations/mismatch", Unit::Plain),
    ("violations: foreign", "/violations/foreign", Unit::Plain),
    ("violations: missing", "/violations/missing", Unit::Plain),
    ("violations: presence", "/violations/presence", Unit::Plain),
    ("violations: unheard", "/violations/unheard", Unit::Plain),
    ("violations: hint", "/violations/hint", Unit::Plain),
    ("violations: body", "/violations/body", Unit::Plain),
    ("connections established", "/connections/established", Unit::Plain),
    ("established a second", "/connections/established_per_second", Unit::PerSecond),
    ("acknowledged", "/throughput/acked_per_second", Unit::PerSecond),
    ("delivered", "/throughput/delivered_per_second", Unit::PerSecond),
    ("send → ack p50", "/latency_us/send_to_ack/p50", Unit::Microseconds),
    ("send → ack p99", "/latency_us/send_to_ack/p99", Unit::Microseconds),
    ("send → ack p99.9", "/latency_us/send_to_ack/p999", Unit::Microseconds),
    ("send → ack max", "/latency_us/send_to_ack/max", Unit::Microseconds),
    ("send → deliver p50", "/latency_us/send_to_deliver/p50", Unit::Microseconds),
    ("send → deliver p99", "/latency_us/send_to_deliver/p99", Unit::Microseconds),
    ("send → deliver p99.9", "/latency_us/send_to_deliver/p999", Unit::Microseconds),
    ("send → deliver max", "/latency_us/send_to_deliver/max", Unit::Microseconds),
    ("connect p99", "/latency_us/connect/p99", Unit::Microseconds),
    ("TLS handshake p99", "/tls/handshake_us/p99", Unit::Microseconds),
    ("resume p99", "/latency_us/resume/p99", Unit::Microseconds),
    ("presence p50", "/latency_us/presence/p50", Unit::Microseconds),
    ("presence p99", "/latency_us/presence/p99", Unit::Microseconds),
    ("half resumed after", "/storm/resumed_50_seconds", Unit::Seconds),
    ("all resumed after", "/storm/resumed_100_seconds", Unit::Seconds),
    ("p99 with slow connections / without", "/slow/p99_factor", Unit::Plain),
    ("node, CPU", "/server/cpu_cores", Unit::Cores),
    ("node, memory", "/server/rss_bytes", Unit::Mebibytes),
    ("node, a connection", "/server/bytes_per_connection", Unit::Bytes),
    ("kernel, a connection", "/kernel/slab_bytes_per_connection", Unit::Bytes),
    ("generator, CPU", "/generator/cpu_cores", Unit::Cores),
    ("generator, lateness p99", "/generator/late_us/p99", Unit::Microseconds),
    ("generator, a connection", "/generator/bytes_per_connection", Unit::Bytes),
];

/// What has to be the same for a comparison to mean anything.
const SAME: &[(&str, &str)] = &[
    ("command", "/command"),
    ("connections", "/options/connections"),
    ("rate", "/options/rate"),
    ("group size", "/options/group_size_law"),
    ("text bytes", "/options/text_bytes_law"),
    ("encoding", "/options/encoding"),
    ("cpu", "/machine/cpu"),
    ("kernel", "/machine/kernel"),
];

/// A run's value of a figure, as text and as number, if it has one.
type Cell = Option<(String, f64)>;

/// Runs, side by side.
#[derive(Debug)]
pub struct Comparison {
    names: Vec<String>,
    /// Verdict, revision, seed of each.
    heads: Vec<String>,
    rows: Vec<(&'static str, Vec<Cell>)>,
    /// What differs that should not.
    warnings: Vec<String>,
}

impl Comparison {
    /// Reads reports.
    pub fn of_files(files: &[std::path::PathBuf]) -> anyhow::Result<Self> {
        let read = |file: &std::path::PathBuf| {
            let text = std::fs::read(file).with_context(|| format!("can't read {}", file.display()))?;
            let report: Value = serde_json::from_slice(&text).with_context(|| file.display().to_string())?;
            Ok((short_name(file), report))
        };
        Self::new(&files.iter().map(read).collect::<anyhow::Result<Vec<_>>>()?)
    }

    /// Compares; there is at least one.
    pub fn new(reports: &[(String, Value)]) -> anyhow::Result<Self> {
        for (name, report) in reports {
            let schema = report.pointer("/schema").and_then(Value::as_str).unwrap_or_default();
            ensure!(schema == SCHEMA, "{name} is of schema {schema:?}, not {SCHEMA}");
        }
        let rows = FIGURES.iter().filter_map(|&(title, place, unit)| {
            let value = |(_, report): &(String, Value)| report.pointer(place).and_then(Value::as_f64);
            let values: Vec<Option<f64>> = reports.iter().map(value).collect();
            let is_interesting = values.iter().flatten().any(|&value| value != 0.0);
            let show = |value: Option<f64>| value.map(|value| (show(value, unit), value));
            is_interesting.then(|| (title, values.into_iter().map(show).collect()))
        });
        let mut warnings = Vec::new();
        for (title, place) in SAME {
            let mut values: Vec<String> =
                reports.iter().filter_map(|(_, report)| report.pointer(place)).map(Value::to_string).collect();
            values.dedup();
            if values.len() > 1 {
                warnings.push(format!("{title} differs: {}", values.join(", ")));
            }
        }
        Ok(Self {
            names: reports.iter().map(|(name, _)| name.clone()).collect(),
            heads: reports.iter().map(|(_, report)| head(report)).collect(),
            rows: rows.collect(),
            warnings,
        })
    }

    /// For a terminal.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        let width = self.names.iter().chain(&self.heads).map(|name| name.chars().count()).max().unwrap_or(0).max(20);
        let mut line = |title: &str, cells: &[String]| {
            let cells: Vec<String> = cells.iter().map(|cell| format!("{cell:>width$}")).collect();
            writeln!(out, "{title:<36}{}", cells.join("  ")).expect("writing to memory does not fail");
        };
        line("", &self.names);
        line("", &self.heads);
        for (title, values) in &self.rows {
            line(title, &cells(values));
        }
        self.warnings.iter().for_each(|warning| line(&format!("NOTE  {warning}"), &[]));
        out
    }

    /// As a page.
    #[must_use]
    pub fn page(&self) -> String {
        let escape = html::escape;
        let mut body = String::from("<h1>loadgen report</h1><div class=\"wide\"><table><thead><tr><th>");
        self.names.iter().zip(&self.heads).for_each(|(name, head)| {
            body.push_str(&format!("<th>{}<br>{}", escape(name), escape(head)));
        });
        body.push_str("<tbody>");
        for (title, values) in &self.rows {
            body.push_str(&format!("<tr><th scope=\"row\">{title}"));
            cells(values).iter().for_each(|cell| body.push_str(&format!("<td>{}", escape(cell))));
        }
        body.push_str("</table></div>");
        self.warnings.iter().for_each(|warning| body.push_str(&format!("<p class=\"note\">{}</p>", escape(warning))));
        html::frame("loadgen report", &body)
    }
}

fn short_name(file: &Path) -> String {
    file.file_stem().map_or_else(|| file.display().to_string(), |stem| stem.to_string_lossy().into_owned())
}

fn head(report: &Value) -> String {
    let is = |place: &str| report.pointer(place).and_then(Value::as_bool).unwrap_or(true);
    let violations = report.pointer("/violations").and_then(Value::as_object);
    let broken = violations.is_some_and(|all| all.values().any(|count| count.as_u64() != Some(0)));
    let failed = report.pointer("/failed_because").and_then(Value::as_array).is_some_and(|all| !all.is_empty());
    let short = report.pointer("/connections/established").and_then(Value::as_u64)
        < report.pointer("/connections/requested").and_then(Value::as_u64);
    let verdict = match (broken || failed || short, is("/valid")) {
        (true, _) => "FAILED",
        (false, false) => "not valid",
        (false, true) => "passed",
    };
    let revision = report.pointer("/revision").and_then(Value::as_str).unwrap_or("?");
    format!("{verdict}, {revision}")
}

fn cells(values: &[Cell]) -> Vec<String> {
    let first = values.first().and_then(Option::as_ref).map(|&(_, value)| value).filter(|&value| value > 0.0);
    let cell = |(index, value): (usize, &Cell)| match (value, first) {
        (Some((text, value)), Some(first)) if index > 0 => format!("{text} ({:.2} ×)", value / first),
        (Some((text, _)), _) => text.clone(),
        (None, _) => "–".to_owned(),
    };
    values.iter().enumerate().map(cell).collect()
}

fn show(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Plain if value.fract() == 0.0 => format!("{value:.0}"),
        Unit::Plain => format!("{value:.2}"),
        Unit::PerSecond => format!("{value:.0}/s"),
        Unit::Microseconds => summary::duration(value as u64),
        Unit::Bytes => format!("{value:.0} B"),
        Unit::Mebibytes => summary::mebibytes(value as u64),
        Unit::Cores => format!("{value:.2} cores"),
        Unit::Seconds => format!("{value:.2} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::sample, *};

    fn report(change: impl FnOnce(&mut super::super::Report)) -> Value {
        let mut report = sample();
        change(&mut report);
        serde_json::to_value(report).unwrap()
    }

    #[test]
    fn runs_stand_side_by_side_with_ratios_and_verdicts() {
        let one = report(|report| report.latency_us.send_to_ack.p99 = 1_000);
        let two = report(|report| {
            report.latency_us.send_to_ack.p99 = 1_500;
            report.violations.lost = 3;
            report.options.rate = 9.0;
        });
        let comparison = Comparison::new(&[("one".into(), one), ("two<".into(), two)]).unwrap();
        let text = comparison.text();
        assert!(text.contains("1.50 ms (1.50 ×)") && text.contains("FAILED, 0123456789ab"), "{text}");
        assert!(text.contains("violations: lost") && text.contains("rate differs: 5000.0, 9.0"), "{text}");
        assert!(!text.contains("violations: gap"), "what is 0 everywhere is left out: {text}");
        let page = comparison.page();
        assert!(page.contains("two&lt;") && page.ends_with("</html>\n"));
    }

    #[test]
    fn another_schema_is_refused() {
        assert!(Comparison::new(&[("x".into(), serde_json::json!({"schema": "other/1"}))]).is_err());
    }
}
