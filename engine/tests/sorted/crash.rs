//! Power cuts at every operation of flushes and merges: what was there before or what is there after, never anything else.

use antiphon_engine::{
    compaction::{Choice, NEVER_EXPIRED, YieldNow},
    error::StoreError,
    memory_files::{MemoryFiles, MemoryRandom, block_on},
    sorted::{FlushMark, Sorted},
};
use futures_util::FutureExt;

use crate::support::{Model, changes, check, create, mark, rows, settings};

const SEEDS_PER_POINT: u64 = 6;

/// Drives `future` operation by operation; before each one the disk is cut in several ways and each image is held against `check`.
fn cut_everywhere<T>(
    files: &MemoryFiles,
    future: impl Future<Output = T>,
    seed: u64,
    check: impl Fn(MemoryFiles),
) -> T {
    files.set_queued(true);
    let random = MemoryRandom::new(seed);
    let mut future = Box::pin(future);
    let mut point = 0;
    let value = loop {
        if let Some(value) = future.as_mut().now_or_never() {
            break value;
        }
        for cut in 0..SEEDS_PER_POINT {
            check(files.crash_image(seed ^ (point * 1000 + cut)));
        }
        let pending = files.pending();
        if !pending.is_empty() {
            let chosen = random.below(pending.len() as u64) as usize;
            assert!(files.release(pending[chosen].ticket));
        }
        point += 1;
    };
    files.set_queued(false);
    value
}

/// Opens an image: it must be one of these stores, exactly, and work.
fn check_image(image: MemoryFiles, stores: &[(u64, &Model)]) {
    block_on(async {
        let (sorted, report) = Sorted::open(image.clone(), settings()).await.unwrap();
        assert!(report.damaged.is_empty(), "{report:?}");
        let position = sorted.manifest().flushed_position;
        let (_, model) = stores.iter().find(|(at, _)| *at == position).expect("one of the states");
        check(&sorted, model).await;
        assert_eq!(image.names().len(), 1 + sorted.manifest().segments.len(), "leftovers are gone");
        let more = rows(9, 0, 3, 1);
        sorted.flush(changes(&more), mark(position + 100)).await.unwrap();
        let mut model = Model::clone(model);
        model.extend(more);
        check(&sorted, &model).await;
    });
}

#[test]
fn a_flush_is_there_whole_or_not_at_all() {
    for seed in 0..10 {
        let files = MemoryFiles::new(seed);
        let before: Model = rows(1, 0, 40, 1);
        let sorted = block_on(create(&files));
        block_on(sorted.flush(changes(&before), mark(1))).unwrap();
        let added = rows(1, 30, 40, 2);
        let mut after = before.clone();
        after.extend(added.clone());
        let mark = FlushMark { flushed_position: 2, blob: Some(vec![9]), times: Some((5, 6)), ..FlushMark::default() };
        let flush = sorted.flush(changes(&added), mark);
        cut_everywhere(&files, flush, seed, |image| check_image(image, &[(1, &before), (2, &after)])).unwrap();
        // Acknowledged is durable.
        (0..50).for_each(|cut| check_image(files.crash_image(cut), &[(2, &after)]));
    }
}

#[test]
fn a_merge_changes_nothing_that_can_be_read() {
    for seed in 0..10 {
        let files = MemoryFiles::new(seed);
        let sorted = block_on(create(&files));
        let mut model = Model::new();
        for round in 0..4u8 {
            let mut added = rows(u16::from(round % 2), u32::from(round) * 10, 30, round);
            added.insert(vec![0, 0, 0, 0, 0, round], None);
            block_on(sorted.flush(changes(&added), mark(u64::from(round)))).unwrap();
            model.extend(added);
        }
        let choice = Choice { newest: 1, count: 3, reaches_oldest: true };
        let merge = sorted.merge(choice, YieldNow, NEVER_EXPIRED);
        cut_everywhere(&files, merge, seed, |image| check_image(image, &[(3, &model)])).unwrap().unwrap();
        (0..50).for_each(|cut| check_image(files.crash_image(cut), &[(3, &model)]));
        assert_eq!(sorted.runs().newest_first().len(), 2);
    }
}

#[test]
fn the_first_manifest_is_there_or_not() {
    for seed in 0..10 {
        let files = MemoryFiles::new(seed);
        let creation = Sorted::create(files.clone(), settings(), 5, 1, Vec::new());
        let check_new = |image: MemoryFiles| match block_on(Sorted::open(image, settings())) {
            Ok((sorted, _)) => assert_eq!(sorted.manifest().store, 5),
            Err(error) => assert_eq!(error, StoreError::ManifestMissing),
        };
        cut_everywhere(&files, creation, seed, check_new).unwrap();
        for cut in 0..50 {
            assert!(block_on(Sorted::open(files.crash_image(cut), settings())).is_ok());
        }
    }
}

#[test]
fn an_edit_whose_future_is_dropped_refuses_later_ones() {
    let files = MemoryFiles::new(0);
    let sorted = block_on(create(&files));
    files.set_queued(true);
    let added = rows(1, 0, 4, 1);
    let mut flush = Box::pin(sorted.flush(changes(&added), mark(1)));
    while !files.pending().iter().any(|pending| pending.name == "manifest.new") {
        assert!(flush.as_mut().now_or_never().is_none());
        files
            .pending()
            .iter()
            .for_each(|pending| assert!(pending.name == "manifest.new" || files.release(pending.ticket)));
    }
    drop(flush);
    files.set_queued(false);
    files.pending().iter().for_each(|pending| assert!(files.release(pending.ticket)));
    let result = block_on(sorted.flush(changes(&added), mark(1)));
    assert_eq!(result, Err(StoreError::EditAbandoned));
    check_image(files.crash_image(1), &[(0, &Model::new()), (1, &added)]);
}
