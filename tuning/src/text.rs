//! Rows, plans and figures as a person reads them. Pure.

use crate::{
    catalogue::Unit,
    check::{Limit, Remedy, Row, Verdict},
    profile::{Asked, Severity, Want},
    value::Value,
};

/// Who can change what, as the beginning of a sentence.
const REMEDIES: &[(Remedy, &str)] = &[
    (Remedy::Apply, "`tune apply` changes"),
    (Remedy::ApplyAsRoot, "`tune apply`, as root, changes"),
    (Remedy::Persist, "`tune persist`, and the node started again, changes"),
    (Remedy::Runtime, "Only whoever starts the container (--ulimit, --sysctl, --memory) changes"),
    (Remedy::Host, "Only root of the host changes"),
    (Remedy::Start, "Only a new start of the machine, or a new network namespace, changes"),
    (Remedy::Machine, "Only another machine changes"),
];

/// A whole number with its thousands apart.
#[must_use]
pub fn grouped(number: u64) -> String {
    if number == u64::MAX {
        return "unlimited".to_owned();
    }
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes in the unit that people use for so many.
#[must_use]
pub fn bytes(bytes: u64) -> String {
    match bytes {
        u64::MAX => "unlimited".to_owned(),
        _ if bytes >= 10 << 30 => format!("{} GiB", bytes >> 30),
        _ if bytes >= 1 << 30 => format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
        _ if bytes >= 10 << 20 => format!("{} MiB", bytes >> 20),
        _ if bytes >= 1 << 20 => format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20)),
        _ if bytes >= 10 << 10 => format!("{} KiB", bytes >> 10),
        _ => format!("{bytes} B"),
    }
}

/// A value of a setting. Figures that an operator types into a file stay as they are typed.
fn value(value: &Value, unit: Unit) -> String {
    match (value, unit) {
        (Value::Number(number), Unit::Bytes) => bytes(*number),
        (value, _) if *value == Value::Number(i64::MAX as u64) => "unlimited".to_owned(),
        (Value::Number(number), Unit::Microseconds) => format!("{number} µs"),
        (value, _) => value.to_string(),
    }
}

fn wanted(row: &Row) -> String {
    let words: Vec<String> = row.wanted.iter().map(|wanted| value(wanted, row.unit)).collect();
    match row.want {
        Want::Note => "-".to_owned(),
        Want::AtLeast => format!("≥ {}", words.join(" ")),
        Want::AtMost => format!("≤ {}", words.join(" ")),
        Want::Exactly => words.join(" "),
        // The whole list is in the JSON and in docs/tuning.md; here it would push the reasons off the screen.
        Want::OneOf if words.len() > 3 => format!("{} or {} others", words[0], words.len() - 1),
        Want::OneOf => words.join(" or "),
    }
}

/// The rows as a table for a terminal.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let yes = |value: bool| if value { "yes" } else { "no" }.to_owned();
    let head = ["tuner", "enabled", "supported", "current", "wanted", "reason"].map(str::to_owned);
    let body = rows.iter().map(|row| {
        let reason = match row.verdict {
            Verdict::Good => "ok".to_owned(),
            Verdict::Disabled => "not looked at".to_owned(),
            Verdict::Unknown | Verdict::Note => row.reason.clone(),
            Verdict::Advised => format!("advised: {}", row.reason),
            Verdict::Required => format!("REQUIRED: {}", row.reason),
        };
        let current = row.current.as_ref().map_or("-".to_owned(), |current| value(current, row.unit));
        [row.tuner.to_owned(), yes(row.enabled), yes(row.supported), current, wanted(row), reason]
    });
    columns(&std::iter::once(head).chain(body).collect::<Vec<_>>())
}

/// What is short, in one line: figure, wanted figure, reason and remedy.
pub(crate) fn short(row: &Row) -> String {
    let current = row.current.as_ref().map_or("unknown".to_owned(), |current| value(current, row.unit));
    let remedy = row.remedy.map_or("Nobody changes", remedy);
    let it = with_how("it", row.how.as_deref());
    format!("{} is {current}, wanted {}: {}. {remedy} {it}", row.tuner, wanted(row), row.reason)
}

/// Lines whose cells stand below each other.
pub(crate) fn columns<const N: usize>(lines: &[[String; N]]) -> String {
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for line in lines {
        let cells: Vec<String> = line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// What the machine would hold and what limits it.
#[must_use]
pub fn holds(limits: &[Limit], asked: Asked, shards_wanted: Option<u64>) -> String {
    let shards = if asked.shards == 1 { "1 shard".to_owned() } else { format!("{} shards", asked.shards) };
    let Some(first) = limits.iter().find(|limit| limit.severity == Severity::Required) else {
        return "What this machine would hold can't be told: it shows none of the limits.\n".to_owned();
    };
    let mut text = match first.connections {
        0 => format!("This machine would hold no connections: {} stops it.\n", first.tuner),
        u64::MAX => "Nothing that was looked at limits the number of connections.\n".to_owned(),
        most => {
            format!("This machine would hold {} connections in {shards}; {} limits it.\n", grouped(most), first.tuner)
        }
    };
    let all = limits.iter().filter(|limit| limit.connections < u64::MAX);
    let all: Vec<String> = all.map(|limit| format!("{} {}", limit.tuner, grouped(limit.connections))).collect();
    text.push_str(&format!("Enough for, by tuner: {}.\n", all.join(", ")));
    if let Some(shards) = shards_wanted {
        text.push_str(&format!(
            "{} connections fit the limits of a shard with --shards {shards}.\n",
            grouped(asked.connections)
        ));
    }
    text
}

/// Who can change something, as the beginning of a sentence.
#[must_use]
pub fn remedy(remedy: Remedy) -> &'static str {
    REMEDIES.iter().find(|(other, _)| remedy == *other).map_or("Nobody changes", |(_, words)| words)
}

/// A tuner's name, and what has to be done if the remedy alone does not say it.
#[must_use]
pub fn with_how(tuner: &str, how: Option<&str>) -> String {
    how.map_or_else(|| tuner.to_owned(), |how| format!("{tuner} ({how})"))
}

/// Who can change what is short.
#[must_use]
pub fn remedies(rows: &[Row]) -> String {
    let mut text = String::new();
    for (remedy, words) in REMEDIES {
        let short = rows.iter().filter(|row| row.remedy == Some(*remedy));
        let names: Vec<String> = short.map(|row| with_how(row.tuner, row.how.as_deref())).collect();
        if !names.is_empty() {
            text.push_str(&format!("{words}: {}.\n", names.join(", ")));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        check::{check, limits},
        facts::{Facts, tests::server},
        profile::Profile,
    };

    #[test]
    fn figures_are_told_in_units_that_people_use() {
        assert_eq!(bytes(24 << 30), "24 GiB");
        assert_eq!(bytes(3 << 29), "1.5 GiB");
        assert_eq!(bytes(8192), "8192 B");
        assert_eq!(bytes(u64::MAX), "unlimited");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped(12), "12");
    }

    #[test]
    fn the_table_names_every_tuner_and_its_reason() {
        let (profile, facts) = (Profile::built_in("chat-500k").unwrap(), Facts::read(&server()));
        let asked = Asked { connections: 500_000, shards: 2, memory_bytes: None };
        let rows = check(&profile, &facts, asked);
        let table = table(&rows);
        assert!(table.starts_with("tuner"), "{table}");
        let line = table.lines().find(|line| line.starts_with("open_files ")).unwrap();
        assert!(line.contains("1024") && line.contains("≥ 262756") && line.contains("REQUIRED: "), "{line}");
        assert_eq!(table.lines().count(), rows.len() + 1);
        let holds = holds(&limits(&profile, &facts, asked), asked, Some(31));
        assert!(holds.contains("open_files limits it") && holds.contains("--shards 31"), "{holds}");
        assert!(remedies(&rows).contains("`tune persist`, and the node started again, changes: open_files"));
    }
}
