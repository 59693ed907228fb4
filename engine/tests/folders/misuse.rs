//! Folders copied in part, mixed with others, or with foreign files; options that contradict; a clock that was set
//! back. Each gets an error of its own with the file, nothing is written, and nothing is lost: what was taken away is
//! brought back, and all is there.

use antiphon_engine::{
    EngineError, EngineOptions,
    error::StoreError,
    memory_files::{MemoryClock, MemoryFiles, MemoryRandom, OperationKind},
};

use crate::{
    golden::{flush, newest, open, options},
    support::{Lane, entry, small_options},
};

const PAGE: usize = 4096;

/// A year.
const YEAR_MS: u64 = 365 * 24 * 60 * 60 * 1000;

fn image(files: &MemoryFiles) -> Vec<(String, Vec<u8>)> {
    files.names().into_iter().map(|name| (name.clone(), files.contents(&name).unwrap())).collect()
}

fn name_of(files: &MemoryFiles, start: &str) -> String {
    files.names().into_iter().find(|name| name.starts_with(start)).unwrap()
}

/// Opens a folder that is refused; nothing may be written, not even leftovers removed.
fn refused(what: &str, files: &MemoryFiles) -> EngineError {
    for leftover in ["segment-00000000000000ff", "manifest.new", "log-00000009.new"] {
        files.put(leftover, vec![1; PAGE]);
    }
    let before = image(files);
    let error = open(files).err().unwrap_or_else(|| panic!("{what}: it was opened"));
    assert!(image(files) == before, "{what}: something was changed");
    for kind in [OperationKind::Write, OperationKind::Rename, OperationKind::Remove] {
        assert_eq!(files.operations()[kind as usize], 0, "{what}: {kind:?}");
    }
    error
}

/// Another store's lane, with a segment and a log.
fn other_store(lane: u16) -> MemoryFiles {
    let mut other = Lane::with_options(99, EngineOptions { lane, ..options() });
    let conversation = other.create_direct("eve", "bob");
    other.sent("eve", conversation, 1, "elsewhere");
    flush(&mut other);
    other.sent("eve", conversation, 2, "elsewhere, later");
    other.close().unwrap();
    other.files.crash_image(1)
}

#[test]
fn a_folder_that_was_copied_in_part_is_refused_by_name() {
    let whole = newest();
    let log = name_of(&whole, "log-");
    for segment in whole.names().into_iter().filter(|name| name.starts_with("segment-")) {
        let files = newest();
        files.take_away(&segment);
        let error = refused("a segment less", &files);
        assert_eq!(error, EngineError::Store(StoreError::SegmentMissing { file: segment.clone() }));
    }
    let files = newest();
    files.take_away("manifest");
    assert_eq!(refused("no manifest", &files), EngineError::ManifestLost { file: log.clone() });
    files.take_away(&log);
    let found = refused("segments alone", &files);
    assert!(
        matches!(found, EngineError::ManifestLost { file } if file.starts_with("segment-")),
        "neither log nor manifest"
    );
    let files = newest();
    files.take_away(&log);
    assert_eq!(refused("no log", &files), EngineError::LogMissing { first: 1, last: 2 });
    for length in [0, 1, 23, 100, whole.contents("manifest").unwrap().len().min(150)] {
        let files = newest();
        let mut bytes = files.contents("manifest").unwrap();
        bytes.truncate(length);
        files.put("manifest", bytes);
        let error = refused("half a manifest", &files);
        assert!(
            matches!(&error, EngineError::Store(StoreError::Damaged { file, .. }) if file == "manifest"),
            "{error}"
        );
    }
}

/// The log's newest file came into use after the last flush: no segment depends on it, and the manifest names it all
/// the same.
#[test]
fn the_newest_log_file_is_missed_before_anything_of_it_is_flushed() {
    let mut lane = Lane::with_options(1, EngineOptions { memtable_age_ms_max: u64::MAX, ..options() });
    let conversation = lane.create_direct("ann", "bob");
    // A file holds 128 batches of a page.
    for number in 0..140 {
        lane.sent("ann", conversation, number, "one page of the log");
    }
    assert_eq!(lane.engine.status().flushed_position.0, 0);
    let files = lane.files.crash_image(1);
    let logs: Vec<String> = files.names().into_iter().filter(|name| name.starts_with("log-")).collect();
    let generation = |name: &String| files.contents(name).unwrap()[32];
    let newest = logs.iter().max_by_key(|name| generation(name)).unwrap().clone();
    assert_eq!(generation(&newest), 2);
    let bytes = files.contents(&newest).unwrap();
    files.take_away(&newest);
    assert_eq!(refused("no newest log file", &files), EngineError::LogMissing { first: 2, last: 2 });
    files.put(&newest, bytes);
    let mut lane = open(&files).unwrap();
    assert_eq!(lane.whole_history("bob", conversation).len(), 141);
}

#[test]
fn files_of_another_store_or_lane_are_refused_by_name() {
    let (log, segment) = (name_of(&newest(), "log-"), name_of(&newest(), "segment-"));
    for other in [other_store(0), other_store(3)] {
        for (mine, start) in [(&log, "log-"), (&segment, "segment-")] {
            let files = newest();
            files.put(mine, other.contents(&name_of(&other, start)).unwrap());
            let error = refused("a file of another store", &files);
            assert!(
                matches!(&error, EngineError::Store(StoreError::ForeignStore { file, .. }) if file == mine),
                "{mine}: {error}"
            );
        }
        // A log of another store beside ours, under a name of its own.
        let files = newest();
        files.put("log-00000077", other.contents(&name_of(&other, "log-")).unwrap());
        let error = refused("a log of another store", &files);
        assert!(matches!(&error, EngineError::Store(StoreError::ForeignStore { file, .. }) if file == "log-00000077"));
    }
    let error = refused("another lane's folder", &other_store(3));
    assert_eq!(error, EngineError::OtherLane { found: 3, expected: 0 });
    // The manifest alone of another store.
    let files = newest();
    files.put("manifest", other_store(0).contents("manifest").unwrap());
    let error = refused("another store's manifest", &files);
    assert!(matches!(error, EngineError::Store(StoreError::ForeignStore { .. } | StoreError::SegmentMissing { .. })));
}

/// A manifest that was copied before the rest: later segments are not named by it, and are all that is left of what
/// the log does not hold any more.
#[test]
fn an_older_manifest_loses_nothing() {
    let mut lane = Lane::with_options(1, EngineOptions { log_files_max: 3, ..options() });
    let conversation = lane.create_direct("ann", "bob");
    lane.sent("ann", conversation, 0, "before the manifest was copied");
    flush(&mut lane);
    let older = lane.files.contents("manifest").unwrap();
    // The log goes round: 128 batches a file.
    for number in 1..500 {
        lane.sent("ann", conversation, number, "one page of the log");
        if number % 100 == 0 {
            flush(&mut lane);
        }
    }
    lane.close().unwrap();
    let files = lane.files.crash_image(1);
    let manifest = files.contents("manifest").unwrap();
    files.put("manifest", older);
    let before = image(&files);
    let error = match open(&files) {
        Ok(mut lane) => {
            assert!(lane.report.read_only, "{:?}", lane.report);
            lane.engine.tick();
            lane.close().unwrap();
            String::new()
        }
        Err(error) => error.to_string(),
    };
    assert!(image(&files) == before, "something was changed: {error}");
    files.put("manifest", manifest);
    assert_eq!(open(&files).unwrap().whole_history("bob", conversation).len(), 501);
}

#[test]
fn foreign_files_are_left_alone() {
    let files = newest();
    let foreign = [
        "notes.txt",
        "manifest~",
        "manifest.bak",
        "log-1",
        "log-00000001.bak",
        "segment-1",
        "segment-00000000000000FF",
        "LOCK",
    ];
    foreign.iter().for_each(|name| files.put(name, vec![7; 10]));
    let mut lane = open(&files).unwrap();
    assert!(lane.report.damage.is_empty() && lane.report.leftovers_removed.is_empty(), "{:?}", lane.report);
    flush(&mut lane);
    lane.reopen();
    lane.close().unwrap();
    assert!(foreign.iter().all(|name| files.contents(name) == Some(vec![7; 10])), "{:?}", files.names());
}

#[test]
fn options_that_contradict_each_other_are_refused_by_name() {
    let good = small_options();
    let cases: [(&str, EngineOptions); 9] = [
        ("log_file_bytes", EngineOptions { log_file_bytes: 1024 * 1024 + 1, ..good.clone() }),
        ("log_file_bytes", EngineOptions { log_file_bytes: 256 * 1024, ..good.clone() }),
        ("batch_bytes_max", EngineOptions { batch_bytes_max: 256 * 1024 + 1, ..good.clone() }),
        ("batch_bytes_max", EngineOptions { batch_bytes_max: 128 * 1024, ..good.clone() }),
        ("batch_bytes_max", EngineOptions { batch_bytes_max: 8 << 20, log_file_bytes: 64 << 20, ..good.clone() }),
        ("log_files_max", EngineOptions { log_files_max: 2, ..good.clone() }),
        ("memtable_bytes", EngineOptions { memtable_bytes: 0, ..good.clone() }),
        ("reads_in_flight_max", EngineOptions { reads_in_flight_max: 0, ..good.clone() }),
        ("commands_waiting_max", EngineOptions { commands_waiting_max: 0, ..good }),
    ];
    for (expected, options) in cases {
        let files = newest();
        let before = image(&files);
        let opened = Lane::open(files.clone(), MemoryClock::new(0), MemoryRandom::new(1), options);
        match opened.err() {
            Some(EngineError::Options { option, what }) => {
                assert_eq!(option, expected);
                assert!(what.starts_with("must"), "it says what to do: {what}");
            }
            other => panic!("{expected}: {other:?}"),
        }
        assert!(image(&files) == before && files.operations().iter().sum::<u64>() == 0, "{expected}");
    }
}

#[test]
fn a_clock_set_back_by_a_year_between_starts_turns_nothing_back() {
    let now = 3 * YEAR_MS;
    let mut lane = Lane::open(MemoryFiles::new(1), MemoryClock::new(now), MemoryRandom::new(1), options()).unwrap();
    let conversation = lane.create_direct("ann", "bob");
    for number in 0..5 {
        lane.sent("ann", conversation, number, "before");
    }
    flush(&mut lane);
    lane.sent("ann", conversation, 5, "before, in the log");
    for start in 0..3 {
        lane.close().unwrap();
        let clock = MemoryClock::new(now - YEAR_MS + start);
        lane = Lane::open(lane.files.clone(), clock, MemoryRandom::new(start), options()).unwrap();
        assert!(lane.report.damage.is_empty() && !lane.report.read_only, "{:?}", lane.report);
        lane.sent("bob", conversation, 10 + start, "after");
        // Flushes by age go on by the clock as it is now.
        flush(&mut lane);
    }
    let history = lane.whole_history("ann", conversation);
    assert_eq!(history.len(), 10);
    assert!(history.is_sorted_by_key(|entry| entry.time_ms), "times do not go back");
    assert!(history.iter().all(|entry| entry.time_ms.0 >= now));
    let missed = lane.catch_up("bob", 3, &[]).unwrap();
    assert_eq!(missed.entries.len(), 7, "{:?}", missed.entries.iter().map(|of| entry(of).sequence).collect::<Vec<_>>());
}
