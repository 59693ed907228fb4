//! The bytes of version 1, fixed; decoded here by the tables of the format's documentation, not by the engine.
//!
//! With `ANTIPHON_BLESS` set in the environment the files under tests/golden and fuzz/corpus are written anew: for a new format
//! version only.

use std::{fs, path::PathBuf};

use antiphon_engine::{
    cache::Cache,
    fuzzing::{SEGMENT, STORE, fuzz_manifest, fuzz_segment},
    manifest::{Manifest, SegmentEntry},
    memory_files::{MemoryFiles, MemoryRandom, block_on},
    row::{Change, Direction, KeyRange},
    runs::{Run, Runs},
    segment::{KeyFilter, SegmentContext, SegmentId, SegmentReader, SegmentSettings, SegmentWriter},
};

const PAGE: usize = 4096;

type Row = (Vec<u8>, Option<Vec<u8>>);

fn here(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn blessing() -> bool {
    std::env::var_os("ANTIPHON_BLESS").is_some()
}

fn golden(name: &str, bytes: impl FnOnce() -> Vec<u8>) -> Vec<u8> {
    let path = here("tests/golden").join(name);
    if blessing() {
        fs::write(&path, bytes()).unwrap();
    }
    fs::read(&path).unwrap()
}

fn rows(count: u32) -> Vec<Row> {
    let row = |number: u32| {
        let key = [&b"room"[..], &number.to_be_bytes()].concat();
        let value = (number % 7 != 3).then(|| format!("message {number}").into_bytes());
        (key, value)
    };
    (1..=count).map(row).collect()
}

fn context(files: &MemoryFiles, settings: SegmentSettings) -> SegmentContext<MemoryFiles> {
    SegmentContext::new(files.clone(), Cache::new(1 << 20), STORE, settings)
}

fn write(rows: &[Row], settings: SegmentSettings, times: Option<(u64, u64)>) -> Vec<u8> {
    let files = MemoryFiles::new(0);
    block_on(async {
        let mut writer = SegmentWriter::create(&context(&files, settings), SEGMENT).await.unwrap();
        for (key, value) in rows {
            writer.push(key, value.as_deref().map_or(Change::Delete, Change::Put)).await.unwrap();
        }
        times.into_iter().for_each(|times| writer.note_times(times));
        writer.finish().await.unwrap();
    });
    files.contents(&SEGMENT.file_name()).unwrap()
}

fn read(bytes: Vec<u8>, filter: KeyFilter) -> Vec<Row> {
    let files = MemoryFiles::new(0);
    files.put(&SEGMENT.file_name(), bytes);
    block_on(async {
        let settings = SegmentSettings { filter, ..SegmentSettings::default() };
        let reader = SegmentReader::open(&context(&files, settings), SEGMENT).await.unwrap();
        assert_eq!(reader.verify().await.unwrap().damaged, []);
        let mut scan = Runs::new(vec![Run::Segment(reader)]).scan(&KeyRange::all(), Direction::Forward, None);
        let mut found = Vec::new();
        while let Some(row) = scan.next().await.unwrap() {
            found.push((row.key.to_vec(), Some(row.value.to_vec())));
        }
        found
    })
}

fn plain() -> SegmentSettings {
    SegmentSettings { filter: KeyFilter::WHOLE_KEYS, block_bytes: 400, compression_level: 0 }
}

fn compressed() -> SegmentSettings {
    SegmentSettings { compression_level: 1, ..plain() }
}

fn put_only(rows: Vec<Row>) -> Vec<Row> {
    rows.into_iter().filter(|(_, value)| value.is_some()).collect()
}

#[test]
fn a_segment_of_version_1() {
    let written = write(&rows(40), plain(), Some((1_700, 1_800)));
    let fixed = golden("segment-v1", || written.clone());
    assert!(written == fixed, "what is written is not what version 1 says");
    assert_eq!(read(fixed.clone(), KeyFilter::WHOLE_KEYS), put_only(rows(40)));
    // A program that picks other pieces does without the filter.
    assert_eq!(read(fixed, KeyFilter { id: 99, pieces: |_, piece| piece(b"?") }), put_only(rows(40)));
}

#[test]
fn a_compressed_segment_of_version_1_is_read() {
    let fixed = golden("segment-v1-zstd", || write(&rows(200), compressed(), None));
    assert_eq!(read(fixed, KeyFilter::WHOLE_KEYS), put_only(rows(200)));
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// A block by the table "Block": its bytes, and where the next begins.
fn block_at(bytes: &[u8], at: usize, kind: u8) -> (&[u8], usize) {
    let length = u32_at(bytes, at + 4);
    let stored = &bytes[at + 16..at + 16 + length];
    let place = [SEGMENT.0.to_le_bytes(), (at as u64).to_le_bytes()].concat();
    let covered = [&place[..], &bytes[at + 4..at + 16], stored].concat();
    assert_eq!(u32_at(bytes, at), crc32c::crc32c(&covered) as usize);
    assert_eq!(u32_at(bytes, at + 8), length, "not compressed");
    assert_eq!(bytes[at + 12..at + 16], [kind, 0, 0, 0]);
    (stored, at + 16 + length)
}

/// The rows of a block by the table "Rows"; all numbers in the golden file are below 128.
fn rows_of(block: &[u8]) -> Vec<Row> {
    let groups = u32_at(block, block.len() - 4);
    let end = block.len() - 4 - 4 * groups;
    let (mut at, mut key, mut rows) = (0, Vec::new(), Vec::new());
    while at < end {
        let [shared, unshared, tag] = [block[at], block[at + 1], block[at + 2]].map(usize::from);
        assert_eq!(rows.len() % 16 == 0, shared == 0);
        if shared == 0 {
            assert_eq!(u32_at(block, end + rows.len() / 16 * 4), at);
        }
        at += 3;
        key.truncate(shared);
        key.extend(&block[at..at + unshared]);
        at += unshared;
        rows.push((key.clone(), (tag > 0).then(|| block[at..at + tag - 1].to_vec())));
        at += tag.saturating_sub(1);
    }
    rows
}

#[test]
fn the_tables_decode_the_golden_segment() {
    let bytes = fs::read(here("tests/golden/segment-v1")).unwrap();
    let footer = &bytes[bytes.len() - PAGE..];
    for (page, magic) in [(&bytes[..PAGE], b"ANTISEGM"), (footer, b"ANTISEGF")] {
        assert_eq!(&page[..8], magic);
        assert_eq!(u32_at(page, 8), 1);
        assert_eq!(u32_at(page, PAGE - 4), crc32c::crc32c(&page[..PAGE - 4]) as usize);
    }
    assert_eq!((u64_at(&bytes, 16), u64_at(&bytes, 24)), (SEGMENT.0, STORE));
    assert_eq!((u32_at(footer, 12), u64_at(footer, 16), u64_at(footer, 24)), (1, SEGMENT.0, STORE));
    let [index, filter, end] = [32, 40, 48].map(|at| u64_at(footer, at) as usize);
    assert_eq!(u64_at(footer, 56), bytes.len() as u64);
    assert_eq!((u64_at(footer, 64), u64_at(footer, 72)), (40, 6));
    assert_eq!((u64_at(footer, 96), u64_at(footer, 104), u32_at(footer, 112)), (1_700, 1_800, 1));
    let (first, last) = (u32_at(footer, 120), u32_at(footer, 124));
    assert_eq!(footer[128..128 + first], rows(40)[0].0);
    assert_eq!(footer[128 + first..128 + first + last], rows(40)[39].0);

    let (mut at, mut found, mut indexed, mut raw) = (PAGE, Vec::new(), Vec::new(), 0);
    while at < index {
        let (block, next) = block_at(&bytes, at, 1);
        found.extend(rows_of(block));
        indexed.push((found.last().unwrap().0.clone(), Some(((next - at) as u32).to_le_bytes().to_vec())));
        raw += block.len();
        at = next;
    }
    assert_eq!(found, rows(40));
    assert_eq!((u64_at(footer, 88), u32_at(footer, 116)), (raw as u64, indexed.len()));
    let (block, next) = block_at(&bytes, index, 2);
    assert_eq!((rows_of(block), next), (indexed, filter));
    let (block, next) = block_at(&bytes, filter, 3);
    assert_eq!((usize::from(block[0]), next), (last, end));
    assert_eq!(block[2..2 + last], rows(40)[39].0);
    let table = &block[2 + last..];
    let u16_at = |at: usize| usize::from(u16::from_le_bytes(table[at..at + 2].try_into().unwrap()));
    assert_eq!((u32_at(table, 0), table.len()), (40, 4 + 2 * 3 + 3 * 40));
    assert_eq!(u16_at(4 + 2 * 2), 40);
    for (key, _) in rows(40) {
        let hash = xxhash_rust::xxh3::xxh3_64(&key);
        let bucket = (((hash >> 32) * 3) >> 32) as usize;
        let begin = if bucket == 0 { 0 } else { u16_at(4 + 2 * (bucket - 1)) };
        let fingerprint = |at: usize| (u16_at(10 + 2 * at), table[10 + 2 * 40 + at]);
        let expected = ((hash & 0xffff) as usize, (hash >> 16) as u8);
        assert!((begin..u16_at(4 + 2 * bucket)).any(|at| fingerprint(at) == expected));
    }
    assert!(bytes[end..bytes.len() - PAGE].iter().all(|byte| *byte == 0));
}

fn manifest() -> Manifest {
    let segment = |id: u64, level: u32| SegmentEntry {
        id: SegmentId(id),
        level,
        file_bytes: id * 4096,
        rows: id * 100,
        deletes: id,
        first_key: vec![id as u8; 3],
        last_key: vec![0xff; 5],
    };
    Manifest {
        store: STORE,
        lane: 2,
        edit: 11,
        next_segment: 10,
        flushed_position: 123_456,
        segments: vec![segment(9, 0), segment(4, 1)],
        blob: b"the caller's".to_vec(),
    }
}

#[test]
fn a_manifest_of_version_1_and_its_tables() {
    let bytes = golden("manifest-v1", || manifest().encode());
    assert_eq!(manifest().encode(), bytes);
    assert_eq!(Manifest::decode(&bytes).unwrap(), manifest());
    assert_eq!(&bytes[..8], b"ANTIMANI");
    assert_eq!((u32_at(&bytes, 8), u32_at(&bytes, 12), u32_at(&bytes, 20)), (1, bytes.len(), 0));
    let covered = [&bytes[..16], &bytes[20..]].concat();
    assert_eq!(u32_at(&bytes, 16), crc32c::crc32c(&covered) as usize);
    assert_eq!((u64_at(&bytes, 24), u32_at(&bytes, 32), u32_at(&bytes, 36)), (STORE, 2, 0));
    assert_eq!((u64_at(&bytes, 40), u64_at(&bytes, 48), u64_at(&bytes, 56)), (11, 10, 123_456));
    assert_eq!((u32_at(&bytes, 64), u32_at(&bytes, 68)), (2, 12));
    assert_eq!((u64_at(&bytes, 72), u64_at(&bytes, 80), u64_at(&bytes, 88)), (9, 9 * 4096, 900));
    assert_eq!((u64_at(&bytes, 96), u32_at(&bytes, 104)), (9, 0));
    assert_eq!(bytes[108..120], [3, 0, 9, 9, 9, 5, 0, 0xff, 0xff, 0xff, 0xff, 0xff]);
    assert_eq!(u64_at(&bytes, 120), 4);
    assert_eq!(&bytes[bytes.len() - 12..], b"the caller's");
}

/// Small valid files, and what a mutation of each kind makes of them.
fn segments() -> Vec<(&'static str, Vec<u8>)> {
    let no_filter = SegmentSettings { filter: KeyFilter::NONE, ..plain() };
    let large = vec![(b"large".to_vec(), Some(vec![b'x'; 9000])), (b"last".to_vec(), Some(Vec::new()))];
    let base = write(&rows(40), plain(), Some((1, 2)));
    let change = |at: usize, byte: u8| {
        let mut bytes = base.clone();
        bytes[at] = byte;
        bytes
    };
    let footer = base.len() - PAGE;
    vec![
        ("plain", base.clone()),
        ("compressed", write(&rows(200), compressed(), None)),
        ("no-filter", write(&rows(20), no_filter, None)),
        ("one-row", write(&rows(1), plain(), None)),
        ("large-value", write(&large, compressed(), None)),
        ("empty-key", write(&[(Vec::new(), Some(b"v".to_vec()))], plain(), None)),
        ("deletes", write(&[(b"a".to_vec(), None), (b"b".to_vec(), None)], plain(), None)),
        ("row-count-of-a-group", change(PAGE + 16 + 1, 0x7f)),
        ("stored-length", change(PAGE + 4, 0xff)),
        ("raw-length", change(PAGE + 10, 0xff)),
        ("compression", change(PAGE + 13, 1)),
        ("index-offset", change(footer + 33, 0xff)),
        ("block-count", change(footer + 116, 0xff)),
        ("key-length", change(footer + 121, 0xff)),
        ("cut", base[..2 * PAGE].to_vec()),
        ("empty", Vec::new()),
    ]
}

fn manifests() -> Vec<(&'static str, Vec<u8>)> {
    let base = manifest().encode();
    let change = |at: usize, byte: u8| {
        let mut bytes = base.clone();
        bytes[at] = byte;
        bytes
    };
    let none = Manifest { segments: Vec::new(), blob: Vec::new(), ..manifest() };
    let padded = [&base[..], &[0; 100]].concat();
    vec![
        ("two-segments", base.clone()),
        ("no-segments", none.encode()),
        ("padded", padded),
        ("version", change(8, 9)),
        ("length", change(13, 0x7f)),
        ("checksum", change(17, 0)),
        ("segment-count", change(66, 0xff)),
        ("blob-length", change(68, 0xff)),
        ("key-length", change(108, 0xff)),
        ("keys-out-of-order", change(110, 0xff)),
        ("cut", base[..100].to_vec()),
        ("empty", Vec::new()),
    ]
}

#[test]
fn the_corpora_and_their_mutations_break_nothing() {
    for (target, files, fuzz) in
        [("segment", segments(), fuzz_segment as fn(&[u8])), ("manifest", manifests(), fuzz_manifest as fn(&[u8]))]
    {
        let folder = here("../fuzz/corpus").join(target);
        if blessing() {
            fs::create_dir_all(&folder).unwrap();
            files.iter().for_each(|(name, bytes)| fs::write(folder.join(name), bytes).unwrap());
        }
        let mut names: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        assert!(names.len() >= 10);
        let random = MemoryRandom::new(5);
        for name in names {
            let bytes = fs::read(&name).unwrap();
            fuzz(&bytes);
            (0..150).for_each(|_| fuzz(&mutated(&bytes, &random)));
        }
    }
}

/// A few bytes changed, mostly where something is said: segments are mostly padding.
fn mutated(bytes: &[u8], random: &MemoryRandom) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let used: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
    for _ in 0..=random.below(3) {
        let Some(near) = used.get(random.below(used.len() as u64) as usize) else { break };
        let at = near + random.below(3) as usize;
        let byte = [0, 1, 0x7f, 0x80, 0xff, random.below(256) as u8][random.below(6) as usize];
        bytes.get_mut(at).into_iter().for_each(|old| *old = byte);
    }
    bytes
}
