//! Bytes of every file of a small store, flipped one at a time: it is told, or it means nothing.

use antiphon_engine::memory_files::MemoryFiles;

use crate::{
    support::{name_log_bytes, send},
    tools::{LOG, dump, findings, flush, lane, try_dump, try_verify},
};

const PAGE: usize = 4096;

/// A closed store with a segment, and a log of five batches: two that are in the segment, a seal, one of two records
/// that is only here, and the last seal. It is as small as that can be, and log files are cut behind what is used of
/// them: there is a test run for every byte.
fn store() -> MemoryFiles {
    let mut lane = lane(1);
    let conversation = lane.create_direct("ann", "bob");
    lane.sent("ann", conversation, 1, "in a segment");
    flush(&mut lane);
    for key in 2..4 {
        lane.submit(send("bob", conversation, key, "in the log"));
    }
    lane.settle();
    lane.close().unwrap();
    let files = MemoryFiles::new(0);
    let mut log_bytes = 0;
    for name in lane.files.names() {
        let mut bytes = lane.files.contents(&name).unwrap();
        if name.starts_with("log-") {
            // The last page has the limit.
            bytes.truncate(bytes.len() - PAGE);
            let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            bytes.truncate(used.next_multiple_of(PAGE));
            log_bytes = log_bytes.max(bytes.len());
        }
        files.put(&name, bytes);
    }
    let mut manifest = files.contents("manifest").unwrap();
    name_log_bytes(&mut manifest, log_bytes as u64);
    files.put("manifest", manifest);
    files
}

/// What became of a flip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Lost,
    /// Damage of what is stored elsewhere too.
    Harmless,
    /// Taken for a write that never completed.
    Torn,
    Silent,
}

/// Flips a bit, looks, and flips it back. Whatever was hit, a finding names the file, and a dump is the whole one or none.
fn flip(files: &MemoryFiles, name: &str, at: usize, whole: &[String]) -> Fate {
    let (place, bit) = (format!("{name}: byte {at}"), (at % 8) as u8);
    assert!(files.flip_bit(name, at as u64, bit));
    let report = try_verify(files).unwrap_or_else(|error| panic!("{place}: {error}"));
    let dumped = try_dump(files);
    assert!(files.flip_bit(name, at as u64, bit));
    let fate = if report.findings.iter().any(|finding| !finding.harmless) {
        Fate::Lost
    } else if !report.findings.is_empty() {
        Fate::Harmless
    } else if report.torn_tail.is_some() {
        Fate::Torn
    } else {
        Fate::Silent
    };
    let names_file = report.findings.iter().any(|finding| finding.file.as_deref() == Some(name));
    assert_eq!(names_file, !report.findings.is_empty(), "{place}: {:?}", findings(&report));
    match dumped {
        Ok(lines) => assert_eq!(lines, whole, "{place}: {fate:?}"),
        Err(error) => assert_eq!(fate, Fate::Lost, "{place}: {error}"),
    }
    fate
}

/// How many flips in the files of a kind are told, and how many are not.
fn flip_all(kind: &str) -> (usize, usize) {
    let files = store();
    let whole = dump(&files);
    let (mut told, mut silent) = (0, 0);
    for name in files.names().into_iter().filter(|name| name.starts_with(kind)) {
        let bytes = files.contents(&name).unwrap();
        for at in 0..bytes.len() {
            match flip(&files, &name, at, &whole) {
                Fate::Lost => told += 1,
                Fate::Silent if bytes[at..(at + 1).next_multiple_of(PAGE)].iter().all(|byte| *byte == 0) => silent += 1,
                other => panic!("{name}: byte {at}: {other:?}"),
            }
        }
    }
    (told, silent)
}

#[test]
fn every_flipped_byte_of_manifest_and_segment_is_told_or_is_padding() {
    let (told, silent) = flip_all("manifest");
    // Its length; the rest of the page is padding.
    assert_eq!((told, silent), (315, PAGE - 315));
    let (told, silent) = flip_all("segment");
    // The checksums of the first and the last page cover all of them; between them is what one page holds. There are two segments.
    let used = told.checked_sub(2 * 2 * PAGE).unwrap();
    assert!(used > 0 && silent == 2 * PAGE - used, "{told} and {silent}");
}

#[test]
fn every_flipped_byte_of_the_log_is_told_or_means_nothing() {
    let files = store();
    let whole = dump(&files);
    let (salt, generation) = (24..32, 32..40);
    let mut batches = 0;
    for name in files.names().into_iter().filter(|name| name.starts_with("log-")) {
        for (page, bytes) in files.contents(&name).unwrap().chunks(PAGE).enumerate() {
            let length = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
            assert!(bytes.starts_with(b"ANTILOG\n") && length <= PAGE, "a batch a page");
            batches += 1;
            // Padding is not looked at: some of it will do.
            for at in (0..length).chain((length..PAGE).step_by(61)) {
                let expected = match (name.as_str(), page) {
                    _ if at >= length => Fate::Silent,
                    (LOG, 1 | 2) => Fate::Harmless,
                    (LOG, 3) => Fate::Lost,
                    // A seal holds nothing. Without our salt and its file's generation it is something older.
                    (LOG, 4) if salt.contains(&at) || generation.contains(&at) => Fate::Silent,
                    (LOG, 4) => Fate::Torn,
                    // Left are the log's first batch (the log may begin anywhere in what the segment holds) and a file
                    // that was never used. A later generation than the log's looks like the first write of a file that
                    // is used again; in the first byte a flip makes none of generations 0 and 1.
                    _ if generation.contains(&at) && at > generation.start => Fate::Torn,
                    _ => Fate::Silent,
                };
                assert_eq!(flip(&files, &name, page * PAGE + at, &whole), expected, "{name}: page {page}, byte {at}");
            }
        }
    }
    assert!(batches > 5, "{batches}");
}
