//! What `antiphon store` says, as text for people.

use std::collections::BTreeMap;

use antiphon_engine::offline::{Inspection, LogFileFacts, Neighbours, SegmentFacts, Totals, VerifyReport};

/// A number with its thousands apart.
pub(super) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count with its noun.
pub(super) fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", number(count), if count == 1 { one } else { many })
}

/// Bytes in the unit that suits them.
pub(super) fn bytes(bytes: u64) -> String {
    let mut amount = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if amount < 1024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{amount:.1} {unit}") };
        }
        amount /= 1024.0;
    }
    format!("{amount:.1} TiB")
}

/// The last line of a verification.
pub(super) fn summary(reports: &[VerifyReport]) -> String {
    let sum = |of: fn(&VerifyReport) -> u64| reports.iter().map(of).sum::<u64>();
    let found = sum(|report| report.findings.len() as u64 + report.findings_left_out);
    let verdict = if found == 0 { "no damage".to_owned() } else { counted(found, "finding", "findings") };
    let parts = [
        counted(reports.len() as u64, "lane", "lanes"),
        counted(sum(|report| report.segments), "segment", "segments"),
        counted(sum(|report| report.blocks), "block", "blocks"),
        counted(sum(|report| report.rows), "row", "rows"),
        counted(sum(|report| report.conversations), "conversation", "conversations"),
        counted(sum(|report| report.entries), "entry", "entries"),
        counted(sum(|report| report.log_files), "log file", "log files"),
        counted(sum(|report| report.batches), "batch", "batches"),
    ];
    format!("verified: {}: {verdict}", parts.join(", "))
}

/// A lane, what is where in it, and what it holds.
pub(super) fn inspection(of: &Inspection) -> String {
    let mut lines = vec![format!(
        "lane-{:02}: store {}, manifest {}, records up to {} in segments",
        of.lane,
        of.store,
        number(of.manifest_edit),
        number(of.flushed_position.0)
    )];
    lines.push(format!("  {}, {}", counted(of.segments.len() as u64, "segment", "segments"), bytes(of.segment_bytes)));
    lines.extend(of.segments.iter().map(segment));
    lines.push(format!("  {}, {}", counted(of.log_files.len() as u64, "log file", "log files"), bytes(of.log_bytes)));
    lines.extend(of.log_files.iter().map(log_file));
    if !of.leftovers.is_empty() {
        lines.push(format!("  leftovers that the next start removes: {}", of.leftovers.join(", ")));
    }
    if let Some(totals) = &of.totals {
        lines.extend(totals_lines(totals, of.segment_bytes));
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn segment(of: &SegmentFacts) -> String {
    let (first, last) = (owner(&of.range.0), owner(&of.range.1));
    let mut text = format!(
        "    {}  level {}  {} ({})  {}",
        of.file,
        of.level,
        counted(of.rows, "row", "rows"),
        counted(of.deletes, "delete", "deletes"),
        bytes(of.bytes)
    );
    if let Some(adopted) = &of.adopted {
        text.push_str(&format!("  adopted from {} of store {}", adopted.file, adopted.store));
        if adopted.shown < adopted.held {
            text.push_str(&format!(", {} of {} partitions", number(adopted.shown.into()), number(adopted.held.into())));
        }
    }
    match &of.damage {
        Some(damage) => text.push_str(&format!("  CANNOT BE READ: {damage}")),
        None => text.push_str(&format!(
            "  {}, {} stored as {}",
            counted(u64::from(of.blocks), "block", "blocks"),
            bytes(of.raw_bytes),
            bytes(of.stored_bytes)
        )),
    }
    if let (Some(live), Some(dead)) = (of.live_bytes, of.dead_bytes) {
        text.push_str(&format!("  {} live, {} dead", bytes(live), bytes(dead)));
    }
    if let Some(since) = of.erasing_since {
        text.push_str(&format!("  {} since {since} ms", counted(of.erasing, "row erases", "rows erase")));
    }
    text.push_str(&format!("  {first} to {last}"));
    if let Some((least, most)) = of.times {
        text.push_str(&format!("  times {least} to {most} ms"));
    }
    text
}

/// Bytes of the segments of all lanes, each file once, however many lanes have adopted it.
pub(super) fn all_segment_bytes(lanes: &[Inspection]) -> u64 {
    let mut shared = BTreeMap::new();
    let mut sum = 0;
    for of in lanes.iter().flat_map(|lane| &lane.segments) {
        match &of.adopted {
            Some(adopted) => drop(shared.insert((&adopted.store, &adopted.file), of.bytes)),
            None => sum += of.bytes,
        }
    }
    sum + shared.values().sum::<u64>()
}

fn owner(of: &Neighbours) -> String {
    match of {
        Neighbours::Conversation(id) => format!("conversation {id}"),
        Neighbours::User(user) => format!("user {user}"),
        Neighbours::MessageIds => "message ids".to_owned(),
        Neighbours::Unknown(key) => format!("key {key}"),
    }
}

fn log_file(of: &LogFileFacts) -> String {
    if of.generation == 0 {
        return format!("    {}  never used  {}", of.file, bytes(of.bytes));
    }
    format!(
        "    {}  generation {}  {}, {}  {} of {}  positions {} to {}  {}",
        of.file,
        of.generation,
        counted(of.batches, "batch", "batches"),
        counted(of.records, "record", "records"),
        bytes(of.used_bytes),
        bytes(of.bytes),
        of.first,
        of.last,
        if of.flushed { "flushed" } else { "in use" }
    )
}

fn totals_lines(of: &Totals, segment_bytes: u64) -> Vec<String> {
    let amplification = of.amplification_percent as f64 / 100.0;
    let mut lines = vec![
        format!(
            "  {} ({} direct), {}, {} ({}), {} up to position {}",
            counted(of.conversations, "conversation", "conversations"),
            number(of.direct),
            counted(of.members, "member", "members"),
            counted(of.entries, "entry", "entries"),
            counted(of.messages, "message", "messages"),
            counted(of.rows, "row", "rows"),
            number(of.position.0)
        ),
        format!(
            "  archives {}, of which bodies {}; all rows {}",
            bytes(of.archive_bytes),
            bytes(of.body_bytes),
            bytes(of.row_bytes)
        ),
        format!(
            "  space amplification {amplification:.2}: segments {} and unflushed log {} for archives of {}",
            bytes(segment_bytes),
            bytes(of.unflushed_bytes),
            bytes(of.archive_bytes)
        ),
    ];
    if of.damaged > 0 {
        let parts = counted(of.damaged, "damaged part", "damaged parts");
        lines.push(format!("  NOT COUNTED: what {parts} held; `antiphon store verify` names them"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        for (value, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567"), (100_000, "100,000")]
        {
            assert_eq!(number(value), text);
        }
        assert_eq!(counted(1, "entry", "entries"), "1 entry");
        assert_eq!([bytes(1023), bytes(1536), bytes(5 << 40)], ["1023 B", "1.5 KiB", "5.0 TiB"]);
    }

    #[test]
    fn the_summary_counts_what_was_checked() {
        let report =
            VerifyReport { segments: 12, rows: 1_234_567, entries: 1, batches: 456, ..VerifyReport::default() };
        let text = summary(&[report]);
        let expected = "verified: 1 lane, 12 segments, 0 blocks, 1,234,567 rows, 0 conversations, 1 entry, \
                        0 log files, 456 batches: no damage";
        assert_eq!(text, expected);
    }
}
