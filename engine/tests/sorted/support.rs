//! What these tests share: small settings, and a model to hold a store against.

use std::collections::BTreeMap;

use antiphon_engine::{
    cache::Cache,
    compaction,
    memory_files::MemoryFiles,
    row::{Change, Direction, KeyRange, SharedBytes},
    runs::{Runs, Step},
    segment::{KeyFilter, SegmentSettings},
    sorted::{FlushMark, Sorted, SortedSettings},
};

/// What should be there: `None` for a key that a delete marker may still stand for.
pub(crate) type Model = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Rows of one flush.
pub(crate) type Rows = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Whole keys, and the first two bytes as a range's common piece.
pub(crate) const FILTER: KeyFilter = KeyFilter::new(9, |key, piece| {
    piece(key);
    piece(key.get(..2).unwrap_or(key));
});

/// Blocks of a few rows and a cache of a few blocks, so that little data has many edges.
pub(crate) fn settings() -> SortedSettings {
    SortedSettings {
        segment: SegmentSettings { filter: FILTER, block_bytes: 256, ..SegmentSettings::default() },
        compaction: compaction::Settings { growth: 2, inputs_min: 2, inputs_max: 8, final_bytes: 1 << 30, runs_max: 8 },
        cache: Cache::new(12_000),
        apart: None,
    }
}

pub(crate) const STORE: u64 = 77;

pub(crate) async fn create(files: &MemoryFiles) -> Sorted<MemoryFiles> {
    Sorted::create(files.clone(), settings(), STORE, 3, b"blob".to_vec()).await.unwrap()
}

pub(crate) fn changes(rows: &Rows) -> impl Iterator<Item = (&[u8], Change<&[u8]>)> {
    rows.iter().map(|(key, value)| (key.as_slice(), value.as_deref().map_or(Change::Delete, Change::Put)))
}

pub(crate) fn mark(flushed_position: u64) -> FlushMark {
    FlushMark { flushed_position, ..FlushMark::default() }
}

/// A conversation's worth of rows, `count` of them.
pub(crate) fn rows(group: u16, from: u32, count: u32, salt: u8) -> Rows {
    let row = |number: u32| {
        let key = [&group.to_be_bytes()[..], &number.to_be_bytes()].concat();
        let value = vec![salt ^ number as u8; 5 + number as usize % 40];
        (key, Some(value))
    };
    (from..from + count).map(row).collect()
}

pub(crate) fn expected(model: &Model, range: &KeyRange, direction: Direction) -> Vec<(Vec<u8>, Vec<u8>)> {
    let rows = model.iter().filter(|(key, _)| range.contains(key));
    let mut rows: Vec<_> = rows.filter_map(|(key, value)| Some((key.clone(), value.clone()?))).collect();
    if direction == Direction::Backward {
        rows.reverse();
    }
    rows
}

/// All rows of a scan; the odd steps are tried without waiting first.
pub(crate) async fn scan(
    runs: &Runs<MemoryFiles>,
    range: &KeyRange,
    direction: Direction,
    piece: Option<&[u8]>,
    memory: &Rows,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    let inside = memory.iter().filter(|(key, _)| range.contains(key));
    let mut inside: Vec<_> = inside.map(|(key, value)| (key.clone(), shared(value.as_deref()))).collect();
    if direction == Direction::Backward {
        inside.reverse();
    }
    let mut scan = runs.scan(range, direction, piece).with_newer(inside.into_iter());
    let mut found = Vec::new();
    loop {
        if found.len() % 2 == 1 {
            match scan.next_cached().unwrap() {
                Step::Row(row) => {
                    found.push((row.key.to_vec(), row.value.to_vec()));
                    continue;
                }
                Step::End => break,
                Step::NotCached => {}
            }
        }
        let Some(row) = scan.next().await.unwrap() else { break };
        found.push((row.key.to_vec(), row.value.to_vec()));
    }
    found
}

pub(crate) fn shared(value: Option<&[u8]>) -> Change<SharedBytes> {
    value.map_or(Change::Delete, |value| Change::Put(SharedBytes::from(value)))
}

/// Holds everything in a store against the model.
pub(crate) async fn check(sorted: &Sorted<MemoryFiles>, model: &Model) {
    let runs = sorted.runs();
    for direction in [Direction::Forward, Direction::Backward] {
        let found = scan(&runs, &KeyRange::all(), direction, None, &Rows::new()).await;
        assert_eq!(found, expected(model, &KeyRange::all(), direction));
    }
}
