//! The fault model, held to what it says.

use futures_util::{FutureExt, future::join};

use super::*;

fn page(byte: u8) -> AlignedBuffer {
    let mut buffer = AlignedBuffer::zeroed(PAGE_BYTES);
    buffer.fill(byte);
    buffer
}

async fn create(files: &MemoryFiles, name: &str, byte: u8) -> MemoryFile {
    let file = files.open(name, OpenMode::Create).await.unwrap();
    file.write_at(0, page(byte)).await.1.unwrap();
    file
}

#[test]
fn what_is_synced_survives_every_crash_and_what_is_not_sometimes() {
    let (mut kept, mut lost, mut torn, mut nameless) = (0, 0, 0, 0);
    for seed in 0..400 {
        let files = MemoryFiles::new(0);
        block_on(async {
            create(&files, "synced", 1).await.sync().await.unwrap();
            files.sync_folder().await.unwrap();
            drop(create(&files, "volatile", 2).await);
        });
        files.crash(seed);
        assert!(files.list().now_or_never().unwrap().is_err());
        let after = files.reopen();
        assert_eq!(after.contents("synced").unwrap(), vec![1; PAGE_BYTES]);
        match after.contents("volatile") {
            None => nameless += 1,
            Some(bytes) if bytes == vec![2; PAGE_BYTES] => kept += 1,
            Some(bytes) if bytes.iter().all(|byte| *byte == 0) => lost += 1,
            Some(bytes) => {
                bytes.chunks(512).for_each(|sector| assert!(sector.iter().all(|byte| *byte == sector[0])));
                torn += 1;
            }
        }
    }
    assert!(kept > 20 && lost > 20 && torn > 20 && nameless > 20, "{kept} {lost} {torn} {nameless}");
}

#[test]
fn a_log_write_is_durable_when_it_completes_and_torn_at_most_before() {
    let mut torn = 0;
    for seed in 0..100 {
        let files = MemoryFiles::new(0);
        files.put("log", vec![0; 2 * PAGE_BYTES]);
        let log = block_on(files.open("log", OpenMode::Log)).unwrap();
        block_on(log.write_at(0, page(1))).1.unwrap();
        files.set_queued(true);
        let mut in_flight = Box::pin(log.write_at(PAGE_BYTES as u64, page(2)));
        assert!(in_flight.as_mut().now_or_never().is_none());
        files.crash(seed);
        assert!(in_flight.now_or_never().unwrap().1.is_err());
        let bytes = files.reopen().contents("log").unwrap();
        assert_eq!(bytes[..PAGE_BYTES], vec![1; PAGE_BYTES]);
        let sectors = bytes[PAGE_BYTES..].chunks(512).map(|sector| sector[0]);
        let written = sectors.filter(|byte| *byte == 2).count();
        torn += usize::from(written > 0 && written < 8);
    }
    assert!(torn > 10, "{torn}");
}

#[test]
fn a_rename_is_kept_or_lost_whole() {
    let mut outcomes = std::collections::BTreeSet::new();
    for seed in 0..100 {
        let files = MemoryFiles::new(0);
        files.put("name", vec![1; PAGE_BYTES]);
        block_on(async {
            create(&files, "name.new", 2).await.sync().await.unwrap();
            files.sync_folder().await.unwrap();
            files.rename("name.new", "name").await.unwrap();
        });
        files.crash(seed);
        let after = files.reopen();
        outcomes.insert((after.contents("name").unwrap()[0], after.names().len()));
    }
    assert_eq!(outcomes.into_iter().collect::<Vec<_>>(), [(1, 2), (2, 1)]);
}

#[test]
fn operations_wait_for_their_release_in_any_order() {
    let files = MemoryFiles::new(0);
    files.put("a", vec![1; PAGE_BYTES]);
    files.set_queued(true);
    let reads = join(files.open("a", OpenMode::Read), files.open("b", OpenMode::Read));
    let mut reads = Box::pin(reads);
    assert!(reads.as_mut().now_or_never().is_none());
    let pending = files.pending();
    assert_eq!(pending.iter().map(|pending| pending.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert!(files.release(pending[1].ticket) && !files.release(pending[1].ticket));
    assert!(reads.as_mut().now_or_never().is_none());
    assert!(files.release(pending[0].ticket));
    let (first, second) = reads.now_or_never().unwrap();
    assert!(first.is_ok() && second.is_err());
}

#[test]
fn faults_come_as_planned_and_are_counted() {
    let files = MemoryFiles::new(3);
    files.set_capacity(Some(2 * PAGE_BYTES as u64));
    files.fail_nth(OperationKind::Sync, 2);
    block_on(async {
        let file = create(&files, "a", 1).await;
        file.sync().await.unwrap();
        file.write_at(0, page(2)).await.1.unwrap();
        file.sync().await.unwrap_err();
        file.sync().await.unwrap();
        file.write_at(PAGE_BYTES as u64, page(3)).await.1.unwrap();
        let full = file.write_at(2 * PAGE_BYTES as u64, page(3)).await.1;
        assert!(matches!(full, Err(FileError::Full { .. })));
        assert!(files.break_range("a", 100, 1));
        file.read_at(0, PAGE_BYTES).await.unwrap_err();
        assert_eq!(file.read_at(PAGE_BYTES as u64, 2 * PAGE_BYTES).await.unwrap()[PAGE_BYTES], 0);
        file.write_at(0, page(5)).await.1.unwrap();
        assert!(files.flip_bit("a", 0, 0));
        assert_eq!(file.read_at(0, PAGE_BYTES).await.unwrap()[..2], [4, 5]);
    });
    let counts = files.counts();
    assert_eq!(counts.errors[OperationKind::Sync as usize], 1);
    assert_eq!(counts.errors[OperationKind::Read as usize], 1);
    assert_eq!((counts.full, counts.bits_flipped), (1, 1));
}

#[test]
fn a_kill_keeps_what_was_completed_until_the_power_fails() {
    let files = MemoryFiles::new(0);
    block_on(async { drop(create(&files, "a", 1).await) });
    files.kill(0);
    let after = files.reopen();
    assert_eq!(after.contents("a").unwrap(), vec![1; PAGE_BYTES]);
    assert!((0..50).any(|seed| after.crash_image(seed).contents("a").is_none()));
}

#[test]
fn a_write_that_failed_may_arrive_later_and_does_so_when_the_process_is_killed() {
    let (mut before, mut never) = (0, 0);
    for seed in 0..40 {
        let files = MemoryFiles::new(seed);
        files.put("log", vec![1; PAGE_BYTES]);
        files.put("other", vec![0; PAGE_BYTES]);
        files.fail_nth(OperationKind::Write, 1);
        files.fail_writes_late(1_000_000);
        let log = block_on(files.open("log", OpenMode::Log)).unwrap();
        block_on(log.write_at(0, page(2))).1.unwrap_err();
        assert_eq!(files.contents("log").unwrap(), vec![1; PAGE_BYTES], "not yet");
        block_on(files.open("other", OpenMode::Read)).unwrap();
        before += usize::from(files.contents("log").unwrap()[0] == 2);
        never += usize::from(files.crash_image(seed).contents("log").unwrap()[0] == 1);
        files.kill(seed);
        assert_eq!(files.reopen().contents("log").unwrap(), vec![2; PAGE_BYTES]);
        assert_eq!(files.counts().writes_late, 1);
    }
    assert!((1..40).contains(&before) && never > 0, "{before} {never}");
}

#[test]
fn what_goes_over_a_file_stays_whatever_becomes_of_the_writes_before() {
    let files = MemoryFiles::new(0);
    block_on(async {
        let file = create(&files, "a", 1).await;
        files.sync_folder().await.unwrap();
        file.sync().await.unwrap();
        file.write_at(0, page(2)).await.1.unwrap();
    });
    assert!(files.overwrite("a", 512, &[7; PAGE_BYTES]) && !files.overwrite("b", 0, &[7]));
    assert_eq!((files.size_of("a"), files.size_of("b")), (Some(PAGE_BYTES as u64), None));
    for seed in 0..50 {
        let bytes = files.crash_image(seed).contents("a").unwrap();
        assert!(matches!(bytes[0], 1 | 2) && bytes[512..].iter().all(|byte| *byte == 7), "seed {seed}");
    }
    assert_eq!(files.peek("a", PAGE_BYTES as u64 - 1, 3), Some(vec![7, 0, 0]));
}
