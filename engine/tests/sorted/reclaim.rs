//! What is erased goes from the disk within steps that are counted, whatever segment it lies in, and costs nothing where nothing is erased.

use antiphon_engine::{
    compaction::{self, NEVER_EXPIRED, YieldNow},
    memory_files::{MemoryFiles, MemoryRandom, block_on},
    row::Change,
    segment::SegmentSettings,
    sorted::{FlushMark, Sorted, SortedSettings},
};

use crate::support::{self, Model, Rows, STORE, check};

/// Delete markers erase, blocks are stored as they are, and segments of this size are never merged again.
fn settings(final_bytes: u64) -> SortedSettings {
    let of_tests = support::settings();
    SortedSettings {
        segment: SegmentSettings {
            erases: |_, change| matches!(change, Change::Delete),
            compression_level: 0,
            ..of_tests.segment
        },
        compaction: compaction::Settings { final_bytes, ..of_tests.compaction },
        ..of_tests
    }
}

fn key(number: u32) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

/// A value that is found in a file if it is there.
fn secret(number: u32) -> Vec<u8> {
    format!("<secret {number}>").into_bytes()
}

async fn flush(sorted: &Sorted<MemoryFiles>, model: &mut Model, rows: Rows, time: u64) {
    let changes = rows.iter().map(|(key, value)| (key, value.as_deref().map_or(Change::Delete, Change::Put)));
    sorted.flush(changes, FlushMark { times: Some((time, time)), ..FlushMark::default() }).await.unwrap();
    model.extend(rows);
}

/// Whether any file has the value of a number.
fn is_on_disk(files: &MemoryFiles, number: u32) -> bool {
    let secret = secret(number);
    let has = |name: &String| files.contents(name).unwrap().windows(secret.len()).any(|bytes| bytes == secret);
    files.names().iter().any(has)
}

/// Segments of rows, the third time over a part of the first's, and then markers for some.
async fn begun(files: &MemoryFiles, erased: &[u32]) -> (Sorted<MemoryFiles>, Model) {
    let sorted = Sorted::create(files.clone(), settings(1), STORE, 3, Vec::new()).await.unwrap();
    let mut model = Model::new();
    for (time, numbers) in [(1, 0..200), (2, 200..400), (3, 100..150), (4, 400..500)] {
        let rows = numbers.map(|number| (key(number), Some(secret(number))));
        flush(&sorted, &mut model, rows.collect(), time).await;
    }
    flush(&sorted, &mut model, erased.iter().map(|number| (key(*number), None)).collect(), 10).await;
    (sorted, model)
}

#[test]
fn what_is_erased_goes_from_segments_that_no_merge_would_touch() {
    block_on(async {
        let files = MemoryFiles::new(0);
        let erased = [3, 120, 450];
        let (sorted, model) = begun(&files, &erased).await;
        assert!(sorted.choose().is_none() && !sorted.can_reclaim(10) && sorted.can_reclaim(11));
        assert!(sorted.reclaim(10, YieldNow, NEVER_EXPIRED).await.unwrap().is_none(), "its time has not come");
        assert!(erased.iter().all(|number| is_on_disk(&files, *number)));
        let before: Vec<_> = sorted.manifest().segments.iter().map(|segment| segment.id).collect();
        let mut steps = 0;
        while sorted.reclaim(11, YieldNow, NEVER_EXPIRED).await.unwrap().is_some() {
            check(&sorted, &model).await;
            steps += 1;
        }
        // 120 lies in two of them; the fifth is that of the markers, and nothing is left of it.
        assert_eq!(steps, 4);
        assert!(!erased.iter().any(|number| is_on_disk(&files, *number)));
        let after = sorted.manifest();
        let kept: Vec<_> = after.segments.iter().filter(|segment| before.contains(&segment.id)).collect();
        assert_eq!((after.segments.len(), kept.len()), (4, 1), "the one that knows none of them stays as it is");
        assert!(after.segments.iter().all(|segment| segment.deletes == 0));
        assert!(!sorted.can_reclaim(u64::MAX));
        let (again, _) = Sorted::open(files.clone(), settings(1)).await.unwrap();
        check(&again, &model).await;
    });
}

/// Rows come and go by chance, merged and reclaimed by chance: a map does the same, and in the end nothing erased is anywhere.
#[test]
fn reclaiming_by_chance_changes_nothing_that_is_shown() {
    for seed in 0..40 {
        let random = MemoryRandom::new(seed);
        let files = MemoryFiles::new(seed);
        block_on(async {
            let final_bytes = [1, 16_000, 1 << 30][random.below(3) as usize];
            let mut sorted = Sorted::create(files.clone(), settings(final_bytes), STORE, 3, Vec::new()).await.unwrap();
            let mut model = Model::new();
            for time in 1..60 {
                let rows = (0..random.below(40)).map(|_| {
                    let number = random.below(150) as u32;
                    (key(number), (random.below(3) > 0).then(|| secret(number)))
                });
                let rows: Rows = rows.collect();
                if !rows.is_empty() {
                    flush(&sorted, &mut model, rows, time).await;
                }
                match random.below(4) {
                    0 => drop(sorted.compact(YieldNow, NEVER_EXPIRED).await.unwrap()),
                    1 => drop(sorted.reclaim(random.below(time + 1), YieldNow, NEVER_EXPIRED).await.unwrap()),
                    2 => sorted = Sorted::open(files.clone(), settings(final_bytes)).await.unwrap().0,
                    _ => {}
                }
            }
            check(&sorted, &model).await;
            let mut steps = 0;
            while sorted.reclaim(u64::MAX, YieldNow, NEVER_EXPIRED).await.unwrap().is_some() {
                steps += 1;
                assert!(steps < 1_000, "seed {seed}: it does not end");
            }
            check(&sorted, &model).await;
            for (name, value) in &model {
                let number = u32::from_be_bytes(name.as_slice().try_into().unwrap());
                assert!(value.is_some() || !is_on_disk(&files, number), "seed {seed}: {number}");
            }
            assert!(sorted.manifest().segments.iter().all(|segment| segment.deletes == 0), "seed {seed}");
        });
    }
}

#[test]
fn a_crash_costs_the_step_that_was_under_way() {
    for crash in 0..400 {
        let files = MemoryFiles::new(crash);
        let (sorted, model) = block_on(begun(&files, &[3, 120, 450]));
        files.set_queued(true);
        let mut operations = 0;
        let mut future =
            std::pin::pin!(async { while sorted.reclaim(11, YieldNow, NEVER_EXPIRED).await.unwrap().is_some() {} });
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let mut has_ended = false;
        while operations < crash && !has_ended {
            has_ended = future.as_mut().poll(&mut context).is_ready();
            if let Some(first) = files.pending().first() {
                files.release(first.ticket);
                operations += 1;
            }
        }
        files.crash(crash);
        let files = files.reopen();
        block_on(async {
            let (sorted, report) = Sorted::open(files.clone(), settings(1)).await.unwrap();
            assert!(report.damaged.is_empty(), "{report:?}");
            check(&sorted, &model).await;
            while sorted.reclaim(11, YieldNow, NEVER_EXPIRED).await.unwrap().is_some() {}
            check(&sorted, &model).await;
            assert!(![3, 120, 450].iter().any(|number| is_on_disk(&files, *number)), "crash {crash}");
        });
        if has_ended {
            assert!(crash > 30, "{crash}");
            return;
        }
    }
    panic!("it does not end");
}

/// What a repair may bring back of a damaged segment stays hidden by its marker.
#[test]
fn markers_stay_above_a_segment_that_cannot_be_read() {
    block_on(async {
        let files = MemoryFiles::new(0);
        let (sorted, _) = begun(&files, &[3, 120, 450]).await;
        let oldest = sorted.manifest().segments.last().unwrap().id.file_name();
        drop(sorted);
        assert!(files.flip_bit(&oldest, 3, 1));
        let (sorted, report) = Sorted::open(files.clone(), settings(1)).await.unwrap();
        assert_eq!(report.damaged.len(), 1);
        let mut steps = 0;
        while sorted.reclaim(11, YieldNow, NEVER_EXPIRED).await.unwrap().is_some() {
            steps += 1;
        }
        assert_eq!(steps, 2, "those that can be read");
        assert!(!is_on_disk(&files, 450));
        assert!(sorted.can_reclaim(11) && sorted.manifest().segments[0].deletes == 3);
    });
}
