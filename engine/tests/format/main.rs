//! docs/format.md held against the bytes: what its tables say is all that these tests know of the layouts.

mod compare;
mod encrypted;
mod files;
mod groups;
mod keys;
mod sealed;
#[path = "../support/mod.rs"]
mod support;
mod tables;
mod world;

use std::{fs, path::PathBuf};

use antiphon_engine::{EngineOptions, encryption::NodeKey};
use compare::{compare, compare_golden, compare_lost};
use encrypted::{Encrypted, compare_encrypted, encrypted};
use support::small_options;
use tables::Document;
use world::{Mended, Sample, mended, sample};

fn document() -> String {
    fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/format.md")).unwrap()
}

/// A lane that keeps all in its log.
fn unflushed(lane: u16) -> EngineOptions {
    EngineOptions { log_files_max: 64, memtable_bytes: 64 << 20, ..flushing(lane) }
}

/// A lane whose log goes round and whose segments are merged.
fn flushing(lane: u16) -> EngineOptions {
    EngineOptions { lane, message_ids_window_ms: 60_000, ..small_options() }
}

/// As [`flushing`], encrypted.
fn sealing(lane: u16) -> EngineOptions {
    EngineOptions { encryption: Some(NodeKey::new(encrypted::NODE)), ..flushing(lane) }
}

fn check(text: &str, samples: &[Sample], mended: &Mended, encrypted: &Encrypted) -> Result<(), String> {
    let document = Document::parse(text)?;
    compare_golden(&document)?;
    compare_lost(&document, mended)?;
    compare_encrypted(&document, encrypted)?;
    samples.iter().try_for_each(|sample| compare(&document, sample))
}

#[test]
fn the_documents_tables_decode_what_the_engine_writes() {
    let samples = [sample(1, 1_500, unflushed(0)), sample(2, 4_600, flushing(3)), sample(5, 1_500, sealing(1))];
    let [logged, merged, sealed] = &samples;
    assert!(sealed.inspection.segments.len() > 2, "some is in segments, some in the log");
    assert!(logged.position > 1_000 && merged.position > 3_000, "{} and {}", logged.position, merged.position);
    assert!(logged.inspection.log_files.len() > 2 && logged.inspection.segments.is_empty(), "all is in the log");
    let levels: Vec<u32> = merged.inspection.segments.iter().map(|segment| segment.level).collect();
    assert!(levels.contains(&0) && levels.iter().any(|level| *level > 1), "{levels:?}");
    let generations = merged.inspection.log_files.iter().map(|file| file.generation).max().unwrap();
    assert!(generations as usize > merged.inspection.log_files.len(), "the log went round");
    check(&document(), &samples, &mended(), &encrypted()).unwrap_or_else(|fault| panic!("{fault}"));
}

/// What becomes of a table's line, one way after the other.
fn altered(line: &str, next: &str) -> Vec<(&'static str, Vec<String>)> {
    let cells: Vec<&str> = line.split('|').collect();
    let with = |index: usize, cell: String| {
        let mut cells: Vec<String> = cells.iter().map(|cell| (*cell).to_owned()).collect();
        cells[index] = format!(" {cell} ");
        cells.join("|")
    };
    let mut found = vec![("removed", vec![next.to_owned()])];
    let one = |line: String| vec![line, next.to_owned()];
    for (index, cell) in cells.iter().enumerate() {
        let cell = cell.trim();
        if let Ok(number) = cell.parse::<u64>() {
            found.push(("a number higher", one(with(index, (number + 1).to_string()))));
        } else if let Some(rest) = cell.strip_prefix("`1`") {
            found.push(("another version", one(with(index, format!("`2`{rest}")))));
        } else if let Some(rest) = cell.strip_prefix("`ANTI") {
            found.push(("another magic", one(with(index, format!("`ANTE{rest}")))));
        } else if cell.starts_with('`') {
            if let Some((first, rest)) = cell.split_once(" · ") {
                let swapped = rest.trim_end_matches('`').split(" · ").chain([first.trim_start_matches('`')]);
                found.push(("turned", one(with(index, format!("`{}`", swapped.collect::<Vec<_>>().join(" · "))))));
            }
            found.push(("a part more", one(with(index, cell.replacen('`', "`01 · ", 1)))));
        } else if cell.starts_with("of bytes") {
            found.push(("less checked", one(with(index, cell.replacen("0..", "1..", 1)))));
        } else if cell.starts_with("of the segment id") {
            found.push(("less checked", one(with(index, cell.replacen("4..", "5..", 1)))));
        } else if let Some(rest) = cell.strip_prefix('*') {
            found.push(("no letter", one(with(index, rest[2..].to_owned()))));
        }
    }
    // Names of two lines that follow each other.
    let others: Vec<&str> = next.split('|').collect();
    let field = cells.len() - 3;
    if others.len() == cells.len() && !line.contains(" · ") && cells[field] != others[field] {
        let mut swapped = (cells.clone(), others.clone());
        std::mem::swap(&mut swapped.0[field], &mut swapped.1[field]);
        found.push(("names swapped", vec![swapped.0.join("|"), swapped.1.join("|")]));
    }
    found
}

/// Whatever is wrong or missing in a table is found: each of its lines is removed, and altered in many ways.
#[test]
fn a_wrong_or_missing_field_of_the_document_is_found() {
    let samples = [sample(3, 30, unflushed(0)), sample(4, 160, flushing(3)), sample(9, 320, sealing(1))];
    let (mended, encrypted, text) = (mended(), encrypted(), document());
    check(&text, &samples, &mended, &encrypted).unwrap_or_else(|fault| panic!("{fault}"));
    assert_eq!(Document::parse(&text).unwrap().tables(), 27, "every table is known to these tests");
    let lines: Vec<&str> = text.lines().collect();
    let (mut tried, mut survivors, mut layout) = (0, Vec::new(), false);
    for index in 0..lines.len() - 1 {
        let line = lines[index];
        let heads = ["| offset |", "| size |", "| row |", "| sealed |"].iter().any(|head| line.starts_with(head));
        layout = heads || (layout && line.starts_with('|'));
        if !layout || heads || !line.starts_with("| ") {
            continue;
        }
        for (what, replaced) in altered(line, lines[index + 1]) {
            let replaced = replaced.iter().map(String::as_str);
            let altered: Vec<&str> =
                lines[..index].iter().copied().chain(replaced).chain(lines[index + 2..].iter().copied()).collect();
            tried += 1;
            if check(&altered.join("\n"), &samples, &mended, &encrypted).is_ok() {
                survivors.push(format!("{what}: {line}"));
            }
        }
    }
    assert!(survivors.is_empty(), "{} of {tried} went unnoticed:\n{}", survivors.len(), survivors.join("\n"));
    assert!(tried > 600, "{tried}");
}
