//! Every byte flipped, every length cut: found or harmless, never a wrong value.

use antiphon_engine::{
    cache::Cache,
    error::StoreError,
    manifest,
    memory_files::{MemoryFiles, block_on},
    row::{Direction, KeyRange},
    runs::{Run, Runs},
    seams::PAGE_BYTES,
    segment::{SegmentContext, SegmentId, SegmentReader, SegmentSettings, SegmentWriter},
    sorted::Sorted,
};

use crate::support::{FILTER, Model, Rows, STORE, changes, create, mark, rows, settings};

fn context(files: &MemoryFiles) -> SegmentContext<MemoryFiles> {
    let settings = SegmentSettings { filter: FILTER, block_bytes: 512, ..SegmentSettings::default() };
    SegmentContext::new(files.clone(), Cache::new(0), STORE, settings)
}

fn segment(rows: &Rows) -> Vec<u8> {
    let files = MemoryFiles::new(0);
    block_on(async {
        let mut writer = SegmentWriter::create(&context(&files), SegmentId(1)).await.unwrap();
        for (key, change) in changes(rows) {
            writer.push(key, change).await.unwrap();
        }
        writer.finish().await.unwrap();
    });
    files.contents(&SegmentId(1).file_name()).unwrap()
}

/// What a segment of these bytes does, held against the rows that were written: the number of damages that verification reports, or
/// the error of opening.
async fn check_against(bytes: Vec<u8>, model: &Model) -> Result<usize, StoreError> {
    let files = MemoryFiles::new(0);
    files.put(&SegmentId(1).file_name(), bytes);
    let reader = SegmentReader::open(&context(&files), SegmentId(1)).await?;
    let damaged = reader.verify().await?.damaged;
    let concerns = |key: &[u8]| {
        damaged.iter().any(|error| match error {
            StoreError::Damaged { keys, .. } => keys.contains(key),
            _ => false,
        })
    };
    for (key, value) in model {
        match reader.get(key).await {
            Ok(found) => {
                let value_found = found.and_then(|change| change.value().map(|value| value.to_vec()));
                assert_eq!(value_found, *value);
            }
            Err(StoreError::Damaged { keys, .. }) => assert!(keys.contains(key) && concerns(key)),
            Err(error) => panic!("{error}"),
        }
    }
    for direction in [Direction::Forward, Direction::Backward] {
        scan_against(&reader, direction, model, damaged.is_empty()).await;
    }
    Ok(damaged.len())
}

/// A scan gives a beginning of what is expected, and all of it if nothing is damaged.
async fn scan_against(reader: &SegmentReader<MemoryFiles>, direction: Direction, model: &Model, intact: bool) {
    let mut scan = Runs::new(vec![Run::Segment(reader.clone())]).scan(&KeyRange::all(), direction, None);
    let mut expected: Vec<_> = model.iter().filter_map(|(key, value)| Some((key, value.as_ref()?))).collect();
    if direction == Direction::Backward {
        expected.reverse();
    }
    for (key, value) in expected {
        match scan.next().await {
            Ok(row) => {
                let row = row.expect("no row is missing without an error");
                assert_eq!((row.key, &**row.value), (key.as_slice(), value.as_slice()));
            }
            Err(StoreError::Damaged { keys, .. }) => {
                assert!(!intact && keys.contains(key));
                assert!(matches!(scan.next().await, Ok(None)), "after an error a scan has ended");
                return;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(matches!(scan.next().await, Ok(None)));
}

fn sample() -> Rows {
    let mut all = rows(1, 0, 40, 3);
    all.extend(rows(2, 10, 40, 9));
    all.extend((0..10).map(|number| (vec![1, number, number], None)));
    all
}

#[test]
fn every_flipped_bit_of_a_segment_is_found_or_harmless() {
    let model = sample();
    let bytes = segment(&model);
    assert!(bytes.len() > 3 * PAGE_BYTES - 1, "header, data and footer");
    assert_eq!(block_on(check_against(bytes.clone(), &model)), Ok(0));
    let (mut refused, mut reported, mut harmless) = (0, 0, 0);
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        match block_on(check_against(flipped, &model)) {
            Ok(0) => harmless += 1,
            Ok(_) => reported += 1,
            Err(StoreError::Damaged { .. }) => refused += 1,
            Err(error) => panic!("byte {at}: {error}"),
        }
    }
    // Header and footer pages are checked to the last byte; the rest is blocks, but for the padding.
    assert!(refused >= 2 * PAGE_BYTES, "{refused} {reported} {harmless}");
    assert!(reported > 500 && harmless < PAGE_BYTES, "{refused} {reported} {harmless}");
}

#[test]
fn every_cut_of_a_segment_is_found() {
    let model = sample();
    let bytes = segment(&model);
    for length in 0..bytes.len() {
        let result = block_on(check_against(bytes[..length].to_vec(), &model));
        assert!(matches!(result, Err(StoreError::Damaged { .. })), "{length} bytes: {result:?}");
    }
    let mut longer = bytes;
    longer.extend([0; PAGE_BYTES]);
    assert!(block_on(check_against(longer, &model)).is_err());
}

#[test]
fn a_block_in_the_place_of_another_is_damage() {
    let model = rows(1, 0, 2000, 3);
    let bytes = segment(&model);
    let page = PAGE_BYTES;
    let mut misplaced = bytes.clone();
    misplaced.copy_within(2 * page..3 * page, page);
    assert!(block_on(check_against(misplaced, &model)).unwrap() > 1);
}

#[test]
fn a_damaged_block_harms_its_own_keys_only() {
    block_on(async {
        let files = MemoryFiles::new(0);
        let sorted = create(&files).await;
        sorted.flush(changes(&rows(1, 0, 500, 1)), mark(1)).await.unwrap();
        assert!(files.flip_bit(&SegmentId(1).file_name(), PAGE_BYTES as u64 + 700, 3));
        let (mut read, mut damaged) = (0, 0);
        for (key, value) in rows(1, 0, 500, 1) {
            match sorted.runs().get(&key).await {
                Ok(found) => {
                    assert_eq!(found.and_then(|change| change.value()).as_deref(), value.as_deref());
                    read += 1;
                }
                Err(StoreError::Damaged { file, offset, keys, .. }) => {
                    assert_eq!(file, SegmentId(1).file_name());
                    assert!(offset >= PAGE_BYTES as u64 && keys.contains(&key));
                    damaged += 1;
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert!(damaged > 0 && damaged < 20 && read > 400, "{damaged} {read}");
        // A scan goes on behind the damage.
        let mut scan = sorted.runs().scan(&KeyRange::all(), Direction::Forward, None);
        let keys = loop {
            match scan.next().await {
                Ok(row) => assert!(row.is_some()),
                Err(StoreError::Damaged { keys, .. }) => break keys,
                Err(error) => panic!("{error}"),
            }
        };
        let std::ops::Bound::Included(last) = keys.end else { panic!("a block ends with a key") };
        let rest = KeyRange { start: [&last[..], &[0]].concat(), end: None };
        let mut scan = sorted.runs().scan(&rest, Direction::Forward, None);
        let mut rows = 0;
        while scan.next().await.unwrap().is_some() {
            rows += 1;
        }
        assert!(rows > 300);
    });
}

#[test]
fn a_segment_with_a_damaged_footer_leaves_the_others_readable() {
    block_on(async {
        let files = MemoryFiles::new(0);
        let sorted = create(&files).await;
        sorted.flush(changes(&rows(1, 0, 50, 1)), mark(1)).await.unwrap();
        sorted.flush(changes(&rows(2, 0, 50, 2)), mark(2)).await.unwrap();
        sorted.flush(changes(&rows(1, 20, 10, 3)), mark(3)).await.unwrap();
        let name = SegmentId(1).file_name();
        let size = files.contents(&name).unwrap().len() as u64;
        assert!(files.flip_bit(&name, size - 100, 0));
        let (sorted, report) = Sorted::open(files.clone(), settings()).await.unwrap();
        assert!(matches!(&report.damaged[..], [StoreError::Damaged { file, .. }] if *file == name));
        let runs = sorted.runs();
        let key = |group: u16, number: u32| [&group.to_be_bytes()[..], &number.to_be_bytes()].concat();
        assert!(runs.get(&key(2, 5)).await.unwrap().is_some());
        assert!(runs.get(&key(1, 25)).await.unwrap().is_some(), "a newer run knows it");
        assert!(runs.get(&key(1, 5)).await.is_err() && runs.get_cached(&key(1, 5)).is_none());
        let mut whole = runs.scan(&KeyRange::prefix(1u16.to_be_bytes()), Direction::Forward, None);
        assert!(whole.next().await.is_err());
        let mut other = runs.scan(&KeyRange::prefix(2u16.to_be_bytes()), Direction::Forward, None);
        assert!(other.next().await.unwrap().is_some());
        let choice = sorted.choose().expect("the two that are whole");
        assert!((choice.newest, choice.count, choice.reaches_oldest) == (0, 2, false), "a damaged run is left alone");
    });
}

#[test]
fn every_flipped_bit_and_every_cut_of_a_manifest_is_found() {
    block_on(async {
        let files = MemoryFiles::new(0);
        let sorted = create(&files).await;
        sorted.flush(changes(&rows(1, 0, 50, 1)), mark(1)).await.unwrap();
        sorted.flush(changes(&rows(1, 20, 50, 1)), mark(2)).await.unwrap();
        let bytes = files.contents(manifest::NAME).unwrap();
        let content = sorted.manifest().encode().len();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                let decoded = manifest::Manifest::decode(&flipped);
                match decoded {
                    Ok(decoded) => assert!(at >= content && decoded == *sorted.manifest(), "byte {at}"),
                    Err(error) => assert!(at < content && matches!(error, StoreError::Damaged { .. }), "byte {at}"),
                }
            }
        }
        for length in 0..content {
            assert!(manifest::Manifest::decode(&bytes[..length]).is_err(), "{length} bytes");
        }
    });
}
