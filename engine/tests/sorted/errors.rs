//! Errors, full disks, foreign folders: typed, and everything as before.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use antiphon_engine::{
    compaction::{Choice, Expiry, NEVER_EXPIRED, Pace, YieldNow},
    error::StoreError,
    manifest,
    memory_files::{MemoryFiles, OperationKind, block_on},
    row::{Change, Direction, KeyRange},
    seams::FileError,
    segment::SegmentId,
    sorted::{FlushMark, Sorted},
};

use crate::support::{Model, Rows, changes, check, create, mark, rows, settings};

/// Rows of this number and higher ones have outlived their use.
#[derive(Clone, Copy)]
struct From(u8);

impl Expiry for From {
    fn is_expired(&self, key: &[u8], _value: &[u8]) -> bool {
        key[5] >= self.0
    }

    fn covers(&self, first_key: &[u8], last_key: &[u8], _times: Option<(u64, u64)>) -> bool {
        first_key[..5] == last_key[..5] && first_key[5] >= self.0
    }
}

#[test]
fn runs_of_which_nothing_is_left_go_without_being_read() {
    block_on(async {
        let files = MemoryFiles::new(0);
        let sorted = create(&files).await;
        for (from, count) in [(0, 10), (10, 10), (15, 5)] {
            sorted.flush(changes(&rows(1, from, count, 1)), mark(1)).await.unwrap();
        }
        assert!(!sorted.has_expired(NEVER_EXPIRED) && !sorted.has_expired(From(20)) && sorted.has_expired(From(10)));
        let reads = files.operations()[OperationKind::Read as usize];
        assert_eq!(sorted.drop_expired(From(10)).await.unwrap(), 2);
        assert_eq!(files.operations()[OperationKind::Read as usize], reads);
        assert_eq!((sorted.manifest().segments.len(), files.names().len()), (1, 2));
        let mut model = Model::new();
        model.extend(rows(1, 0, 10, 1));
        check(&sorted, &model).await;
        assert_eq!(sorted.drop_expired(From(10)).await.unwrap(), 0);
    });
}

/// Fails each operation of each kind in turn until the act succeeds without a fault; after every failure the store must be as
/// before, in memory and on disk, and a further try must succeed.
fn fail_everywhere(act: impl AsyncFn(&Sorted<MemoryFiles>) -> Result<(), StoreError>, after: &Model) {
    for kind in [OperationKind::Open, OperationKind::Rename, OperationKind::SyncFolder, OperationKind::Read]
        .into_iter()
        .chain([OperationKind::Write, OperationKind::Sync, OperationKind::Remove])
    {
        for nth in 1.. {
            let files = MemoryFiles::new(nth);
            let (sorted, before) = block_on(filled(&files));
            files.fail_nth(kind, nth);
            let result = block_on(act(&sorted));
            if files.counts().errors.iter().sum::<u64>() == 0 {
                assert!(result.is_ok() && nth > 1, "{kind:?}: no operation of this kind");
                break;
            }
            let expected = if result.is_ok() { after } else { &before };
            assert!(result.is_ok() || matches!(result, Err(StoreError::File(FileError::Io { .. }))), "{result:?}");
            block_on(check(&sorted, expected));
            // On disk it may be the state after, if the rename or the sync of the folder failed.
            for cut in 0..20 {
                let (reopened, report) = block_on(Sorted::open(files.crash_image(cut), settings())).unwrap();
                assert!(report.damaged.is_empty());
                let moved_on = reopened.manifest().edit > 5;
                block_on(check(&reopened, if moved_on { after } else { &before }));
            }
            block_on(act(&sorted)).unwrap();
            block_on(check(&sorted, after));
        }
    }
}

async fn filled(files: &MemoryFiles) -> (Sorted<MemoryFiles>, Model) {
    let sorted = create(files).await;
    let mut model = Model::new();
    for round in 0..4u8 {
        let added = rows(1, u32::from(round) * 10, 30, round);
        sorted.flush(changes(&added), mark(u64::from(round))).await.unwrap();
        model.extend(added);
    }
    (sorted, model)
}

#[test]
fn a_flush_that_fails_anywhere_changes_nothing() {
    let added = rows(2, 0, 30, 4);
    let (_, mut after) = block_on(filled(&MemoryFiles::new(0)));
    after.extend(added.clone());
    fail_everywhere(async |sorted| sorted.flush(changes(&added), mark(9)).await.map(drop), &after);
}

#[test]
fn a_merge_that_fails_anywhere_changes_nothing() {
    let (_, model) = block_on(filled(&MemoryFiles::new(0)));
    let merge = async |sorted: &Sorted<MemoryFiles>| {
        let choice = Choice { newest: 0, count: 3, reaches_oldest: false };
        // The second try finds the merge done if the first failed behind it.
        let runs = sorted.runs().newest_first().len();
        if runs < 3 { Ok(()) } else { sorted.merge(choice, YieldNow, NEVER_EXPIRED).await.map(drop) }
    };
    fail_everywhere(merge, &model);
}

#[test]
fn a_full_disk_gives_a_typed_error_and_loses_nothing() {
    block_on(async {
        let files = MemoryFiles::new(0);
        let (sorted, mut model) = filled(&files).await;
        let used: u64 = files.names().iter().map(|name| files.contents(name).unwrap().len() as u64).sum();
        let added = rows(2, 0, 300, 4);
        for spare in 0..4 {
            files.set_capacity(Some(used + spare * 4096));
            let result = sorted.flush(changes(&added), mark(9)).await;
            assert!(matches!(result, Err(StoreError::File(FileError::Full { .. }))), "{spare}: {result:?}");
            let result = sorted.compact(YieldNow, NEVER_EXPIRED).await;
            assert!(
                spare > 2 || matches!(result, Err(StoreError::File(FileError::Full { .. }))),
                "{spare}: {result:?}"
            );
            check(&sorted, &model).await;
        }
        assert!(files.counts().full > 5);
        files.set_capacity(None);
        sorted.flush(changes(&added), mark(9)).await.unwrap();
        model.extend(added);
        check(&sorted, &model).await;
    });
}

#[test]
fn deletes_stay_until_the_oldest_run_is_merged_and_expired_rows_go_at_once() {
    block_on(async {
        let files = MemoryFiles::new(0);
        let sorted = create(&files).await;
        let deletes: Rows = rows(1, 0, 10, 1).into_keys().map(|key| (key, None)).collect();
        sorted.flush(changes(&rows(1, 0, 20, 1)), mark(1)).await.unwrap();
        sorted.flush(changes(&deletes), mark(2)).await.unwrap();
        sorted.flush(changes(&rows(3, 0, 20, 2)), mark(3)).await.unwrap();
        let newest_two = Choice { newest: 0, count: 2, reaches_oldest: false };
        let merged = sorted.merge(newest_two, YieldNow, From(15)).await.unwrap().unwrap();
        assert_eq!((merged.inputs, merged.rows_dropped), (2, 5));
        assert_eq!(sorted.manifest().segments[0].deletes, 10);
        let all = Choice { newest: 0, count: 2, reaches_oldest: true };
        let merged = sorted.merge(all, YieldNow, NEVER_EXPIRED).await.unwrap().unwrap();
        assert_eq!(merged.rows_dropped, 20, "ten deletes and what they hid");
        assert_eq!((sorted.manifest().segments[0].deletes, sorted.manifest().segments[0].rows), (0, 25));
        let one = Choice { newest: 0, count: 1, reaches_oldest: true };
        assert_eq!(sorted.merge(one, YieldNow, From(0)).await.unwrap().unwrap().bytes_written, 0);
        assert!(sorted.manifest().segments.is_empty());
        assert_eq!(files.names(), [manifest::NAME]);
    });
}

#[test]
fn a_reader_keeps_replaced_segments_and_a_merge_gives_way() {
    struct Counting(Arc<AtomicU32>);
    impl Pace for Counting {
        async fn pause(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
            YieldNow.pause().await;
        }
    }
    block_on(async {
        let files = MemoryFiles::new(0);
        let sorted = create(&files).await;
        let (mut model, pauses) = (Model::new(), Arc::new(AtomicU32::new(0)));
        for round in 0..3 {
            let added = rows(round, 0, 6000, 1);
            sorted.flush(changes(&added), mark(u64::from(round))).await.unwrap();
            model.extend(added);
        }
        let before = sorted.runs();
        let mut scan = before.scan(&KeyRange::all(), Direction::Forward, None);
        drop(before);
        scan.next().await.unwrap().unwrap();
        let all = Choice { newest: 0, count: 3, reaches_oldest: true };
        sorted.merge(all, Counting(Arc::clone(&pauses)), NEVER_EXPIRED).await.unwrap().unwrap();
        let pauses = pauses.load(Ordering::Relaxed);
        assert!(pauses >= 4, "{pauses} pauses");
        assert_eq!(sorted.remove_unused().await, 3);
        let mut rows = 1;
        while scan.next().await.unwrap().is_some() {
            rows += 1;
        }
        assert_eq!(rows, model.len());
        drop(scan);
        assert_eq!(sorted.remove_unused().await, 0);
        assert_eq!(files.names().len(), 2);
        check(&sorted, &model).await;
    });
}

#[test]
fn folders_that_are_not_this_store_are_refused_and_left_alone() {
    block_on(async {
        let files = MemoryFiles::new(0);
        assert_eq!(Sorted::open(files.clone(), settings()).await.err(), Some(StoreError::ManifestMissing));
        let (sorted, model) = filled(&files).await;
        let again = Sorted::create(files.clone(), settings(), 1, 1, Vec::new()).await;
        assert_eq!(again.err(), Some(StoreError::ManifestExists));

        let foreign = MemoryFiles::new(0);
        let other = Sorted::create(foreign.clone(), settings(), 1234, 3, Vec::new()).await.unwrap();
        other.flush(changes(&model), mark(1)).await.unwrap();
        let name = SegmentId(1).file_name();
        let own = files.contents(&name).unwrap();
        files.put(&name, foreign.contents(&name).unwrap());
        files.put("segment-00000000000000ff", vec![0; 4096]);
        let names = files.names();
        let result = Sorted::open(files.clone(), settings()).await.err();
        assert!(matches!(result, Some(StoreError::ForeignStore { found: 1234, .. })), "{result:?}");
        files.take_away(&name);
        assert_eq!(
            Sorted::open(files.clone(), settings()).await.err(),
            Some(StoreError::SegmentMissing { file: name.clone() })
        );
        files.put(&name, own);
        assert_eq!(files.names(), names, "nothing was removed");

        for foreign in ["segment-1", "segment-00000000000000FF", "segment-00000000000000ff.bak", "notes.txt", "log-1"] {
            files.put(foreign, vec![1]);
        }
        files.put(manifest::TEMPORARY_NAME, vec![1]);
        let (opened, report) = Sorted::open(files.clone(), settings()).await.unwrap();
        assert_eq!(report.removed, ["manifest.new", "segment-00000000000000ff"]);
        assert_eq!(files.names().len(), 1 + sorted.manifest().segments.len() + 5);
        check(&opened, &model).await;
    });
}

#[test]
fn newer_formats_are_refused_by_name() {
    block_on(async {
        let files = MemoryFiles::new(0);
        let (sorted, _) = filled(&files).await;
        let mut newer = sorted.manifest().encode();
        newer[8] = 3;
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&newer[..16]), &newer[20..]);
        newer[16..20].copy_from_slice(&checksum.to_le_bytes());
        files.put(manifest::NAME, newer);
        let result = Sorted::open(files.clone(), settings()).await.err();
        let expected = StoreError::NewerVersion { file: "manifest".to_owned(), found: 3, supported: 2 };
        assert_eq!(result, Some(expected));

        files.put(manifest::NAME, sorted.manifest().encode());
        let name = SegmentId(2).file_name();
        let mut bytes = files.contents(&name).unwrap();
        let footer = bytes.len() - 4096;
        bytes[footer + 8] = 3;
        let end = bytes.len() - 4;
        let checksum = crc32c::crc32c(&bytes[footer..end]);
        bytes[end..].copy_from_slice(&checksum.to_le_bytes());
        files.put(&name, bytes);
        let result = Sorted::open(files.clone(), settings()).await.err();
        assert_eq!(result, Some(StoreError::NewerVersion { file: name, found: 3, supported: 2 }));
    });
}

#[test]
fn marks_without_rows_are_kept() {
    block_on(async {
        let files = MemoryFiles::new(0);
        let sorted = create(&files).await;
        let nothing: [(&[u8], Change<&[u8]>); 0] = [];
        let mark = FlushMark { flushed_position: 55, blob: Some(b"new".to_vec()), times: None, ..FlushMark::default() };
        assert_eq!(sorted.flush(nothing, mark).await, Ok(None));
        let (opened, _) = Sorted::open(files.crash_image(3), settings()).await.unwrap();
        assert_eq!((opened.manifest().flushed_position, &opened.manifest().blob[..]), (55, &b"new"[..]));
        assert_eq!((opened.manifest().lane, opened.manifest().edit), (3, 2));
    });
}
