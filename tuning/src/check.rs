//! Holds a profile against facts. Pure: it takes both and returns rows.

use serde::Serialize;

use crate::{
    facts::{FactName, Facts},
    profile::{Profile, Severity, Want},
};

/// What became of one tuner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As wanted.
    Good,
    /// Less than is advised.
    Advised,
    /// The node won't hold what was asked.
    Required,
    /// This machine doesn't tell.
    Unknown,
    /// The profile doesn't look at it.
    Disabled,
}

/// One tuner against this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The tuner's name.
    pub tuner: String,
    /// Of which fact; its unit is that of the figures.
    pub fact: FactName,
    /// Whether the profile looks at it.
    pub enabled: bool,
    /// Whether this machine tells the fact.
    pub supported: bool,
    /// The fact.
    pub current: Option<u64>,
    /// Where it was read.
    pub source: Option<String>,
    /// The bound's side.
    pub want: Want,
    /// The bound.
    pub wanted: u64,
    /// What became of it.
    pub verdict: Verdict,
    /// Why it is wanted.
    pub reason: String,
}

/// Checks every tuner for a node with so many connections.
#[must_use]
pub fn check(profile: &Profile, facts: &Facts, connections: u64) -> Vec<Row> {
    let rows = profile.tuners.iter().map(|tuner| {
        let fact = facts.get(&tuner.fact);
        let wanted = tuner.bound(connections);
        let verdict = match fact {
            _ if !tuner.enabled => Verdict::Disabled,
            None => Verdict::Unknown,
            Some(fact) => {
                let holds = match tuner.want {
                    Want::AtLeast => fact.value >= wanted,
                    Want::AtMost => fact.value <= wanted,
                };
                match (holds, tuner.severity) {
                    (true, _) => Verdict::Good,
                    (false, Severity::Advised) => Verdict::Advised,
                    (false, Severity::Required) => Verdict::Required,
                }
            }
        };
        Row {
            tuner: tuner.name.clone(),
            fact: tuner.fact,
            enabled: tuner.enabled,
            supported: fact.is_some(),
            current: fact.map(|fact| fact.value),
            source: fact.map(|fact| fact.source.display().to_string()),
            want: tuner.want,
            wanted,
            verdict,
            reason: tuner.reason.clone(),
        }
    });
    rows.collect()
}

/// The exit status of `tune check`: 0 all as wanted, 1 something advised is short, 2 something required is.
#[must_use]
pub fn exit_status(rows: &[Row]) -> u8 {
    let has = |verdict| rows.iter().any(|row| row.verdict == verdict);
    match (has(Verdict::Required), has(Verdict::Advised)) {
        (true, _) => 2,
        (false, true) => 1,
        (false, false) => 0,
    }
}

/// A figure as a person reads it.
fn readable(fact: FactName, value: u64) -> String {
    let bytes = match fact {
        FactName::MemoryBytes | FactName::LockedMemoryMaxBytes => Some(value),
        FactName::TcpMemoryPressurePages | FactName::TcpMemoryMaxPages => value.checked_mul(4096),
        _ => None,
    };
    match bytes {
        _ if value == u64::MAX => "unlimited".to_owned(),
        Some(bytes) if bytes >= 10 << 30 => format!("{} GiB", bytes >> 30),
        Some(bytes) => format!("{} MiB", bytes >> 20),
        None => value.to_string(),
    }
}

/// The rows as a table for a terminal.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let yes = |value: bool| if value { "yes" } else { "no" };
    let head = ["tuner", "enabled", "supported", "current", "wanted", "reason"].map(str::to_owned);
    let body = rows.iter().map(|row| {
        let current = match row.current {
            None => "-".to_owned(),
            Some(value) => readable(row.fact, value),
        };
        let sign = match row.want {
            Want::AtLeast => "≥",
            Want::AtMost => "≤",
        };
        let reason = match row.verdict {
            Verdict::Good => "ok".to_owned(),
            Verdict::Disabled => "not looked at".to_owned(),
            Verdict::Unknown => "this machine doesn't tell".to_owned(),
            Verdict::Advised => format!("advised: {}", row.reason),
            Verdict::Required => format!("REQUIRED: {}", row.reason),
        };
        [
            row.tuner.clone(),
            yes(row.enabled).to_owned(),
            yes(row.supported).to_owned(),
            current,
            format!("{sign} {}", readable(row.fact, row.wanted)),
            reason,
        ]
    });
    let lines: Vec<[String; 6]> = std::iter::once(head).chain(body).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 6] = std::array::from_fn(width);
    let mut text = String::new();
    for line in &lines {
        let cells: Vec<String> = line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::facts::Fact;

    fn facts(values: &[(FactName, u64)]) -> Facts {
        values.iter().map(|(name, value)| (*name, Fact { value: *value, source: PathBuf::from("/x") })).collect()
    }

    #[test]
    fn the_chat_profile_judges_machines() {
        let profile = Profile::chat_node();
        let big = facts(&[
            (FactName::OpenFilesMax, 2_000_000),
            (FactName::MemoryBytes, 64 << 30),
            (FactName::IoUringDisabled, 0),
            (FactName::SomaxconnMax, 65_535),
            (FactName::TcpMemoryPressurePages, 10_000_000),
            (FactName::Cores, 16),
            (FactName::LocalPorts, 64_000),
        ]);
        assert_eq!(exit_status(&check(&profile, &big, 1_000_000)), 0);
        let with = |name, value| {
            let mut facts = big.clone();
            facts.insert(name, Fact { value, source: PathBuf::from("/x") });
            exit_status(&check(&profile, &facts, 1_000_000))
        };
        assert_eq!(with(FactName::OpenFilesMax, 20_000), 1);
        assert_eq!(with(FactName::IoUringDisabled, 2), 2);
        assert_eq!(with(FactName::MemoryBytes, 4 << 30), 2);
        let unknown = check(&profile, &Facts::new(), 1);
        assert!(unknown.iter().all(|row| row.verdict == Verdict::Unknown && !row.supported));
        assert_eq!(exit_status(&unknown), 0);
    }

    #[test]
    fn the_table_names_every_tuner_and_its_reason() {
        let rows = check(&Profile::chat_node(), &facts(&[(FactName::OpenFilesMax, 20_000)]), 500_000);
        let table = table(&rows);
        assert!(table.starts_with("tuner"), "{table}");
        let line = table.lines().find(|line| line.starts_with("open_files")).unwrap();
        assert!(line.contains("20000") && line.contains("≥ 504096") && line.contains("advised: caps"), "{line}");
        assert_eq!(table.lines().count(), rows.len() + 1);
    }

    #[test]
    fn figures_are_told_in_units_that_people_use() {
        assert_eq!(readable(FactName::MemoryBytes, 24 << 30), "24 GiB");
        assert_eq!(readable(FactName::MemoryBytes, 3 << 29), "1536 MiB");
        assert_eq!(readable(FactName::TcpMemoryPressurePages, 256), "1 MiB");
        assert_eq!(readable(FactName::LockedMemoryMaxBytes, u64::MAX), "unlimited");
        assert_eq!(readable(FactName::OpenFilesMax, 20_000), "20000");
    }

    #[test]
    fn a_wrong_profile_is_refused() {
        assert!(Profile::from_toml("name = \"x\"\ndescription = \"y\"\nunknown = 1\n").is_err());
    }
}
