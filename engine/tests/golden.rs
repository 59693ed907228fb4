//! The bytes of each version, fixed. `tests/format` decodes them by the tables of the format's documentation, not by the engine.
//!
//! With `ANTIPHON_BLESS` set in the environment the files under tests/golden and fuzz/corpus are written anew: for a new format
//! version only.

use std::{fs, path::PathBuf};

use antiphon_engine::{
    cache::Cache,
    fuzzing::{SEGMENT, STORE, fuzz_manifest, fuzz_segment},
    manifest::{Manifest, SegmentEntry},
    memory_files::{MemoryFiles, MemoryRandom, block_on},
    partitions::{Adopted, Partitions},
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
    SegmentSettings {
        filter: KeyFilter::WHOLE_KEYS,
        block_bytes: 400,
        compression_level: 0,
        ..SegmentSettings::default()
    }
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
    assert_eq!(read(fixed, KeyFilter::new(99, |_, piece| piece(b"?"))), put_only(rows(40)));
}

#[test]
fn a_compressed_segment_of_version_1_is_read() {
    let fixed = golden("segment-v1-zstd", || write(&rows(200), compressed(), None));
    assert_eq!(read(fixed, KeyFilter::WHOLE_KEYS), put_only(rows(200)));
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
        adopted: None,
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

/// One that names a segment of another lane between two of its own.
fn adopting() -> Manifest {
    let mut manifest = manifest();
    let origin = manifest.segments[1].clone();
    let adopted = Adopted {
        store: STORE + 1,
        id: SegmentId(3),
        held: Partitions::of_lane(1, 2),
        shown: Partitions::of_lane(1, 2).and(&Partitions::of_lane(2, 3)),
    };
    manifest.segments.insert(1, SegmentEntry { id: SegmentId(8), adopted: Some(adopted), ..origin });
    manifest
}

#[test]
fn a_manifest_of_version_2() {
    let bytes = golden("manifest-v2", || adopting().encode());
    assert_eq!(adopting().encode(), bytes);
    assert_eq!(Manifest::decode(&bytes).unwrap(), adopting());
    for (what, shown) in [("what it does not hold", Partitions::of_lane(0, 1)), ("nothing", Partitions::default())] {
        let mut manifest = adopting();
        manifest.segments[1].adopted.as_mut().unwrap().shown = shown;
        assert!(Manifest::decode(&manifest.encode()).is_err(), "shows {what}");
    }
}

#[test]
fn a_manifest_of_version_1() {
    let bytes = golden("manifest-v1", || manifest().encode());
    assert_eq!(manifest().encode(), bytes);
    assert_eq!(Manifest::decode(&bytes).unwrap(), manifest());
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
        ("adopted", adopting().encode()),
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
