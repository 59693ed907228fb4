//! Files on the net ring: what the engine's seam promises, and log writes beside sockets.

mod ring_common;

use std::{
    fs,
    future::{Future, pending, poll_fn},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    task::Poll,
    thread,
    time::Duration,
};

use antiphon_engine::seams::{AlignedBuffer, File, FileError, Files, OpenMode, PAGE_BYTES, Urgency};
use antiphon_gateway::uring::{Desk, NodeFiles, Queue, Worker};
use futures_util::future::{Either, select};
use ring_common::{PATIENCE, RawEcho, Running, pattern, round_trip};

/// A folder that is removed with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("ring-files-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs a task with the files of a folder on a shard of its own, to its end.
fn with_files<F>(folder: &Path, work: impl FnOnce(NodeFiles) -> F + Send + 'static)
where
    F: Future<Output = ()> + 'static,
{
    with_files_and(folder, None, work);
}

/// The same; long jobs go to the desk.
fn with_files_and<F>(folder: &Path, desk: Option<Desk>, work: impl FnOnce(NodeFiles) -> F + Send + 'static)
where
    F: Future<Output = ()> + 'static,
{
    let (done, wait) = mpsc::channel();
    let path = folder.to_owned();
    let shard = Running::start(
        |_| {},
        move |context| {
            let files = match desk {
                Some(desk) => context.files_of_lane(&path, desk),
                None => context.files(&path),
            };
            let task = work(files.unwrap());
            context.spawner().spawn(Queue::Background, async move {
                task.await;
                done.send(()).unwrap();
            });
            RawEcho::default()
        },
    );
    wait.recv_timeout(PATIENCE).expect("the task came to its end");
    shard.stop();
}

fn filled(seed: usize, pages: usize) -> AlignedBuffer {
    let mut buffer = AlignedBuffer::zeroed(pages * PAGE_BYTES);
    buffer.copy_from_slice(&pattern(seed, pages * PAGE_BYTES));
    buffer
}

#[test]
fn files_keep_what_the_seam_promises() {
    let folder = Folder::new("seam");
    let path = folder.0.clone();
    with_files(&folder.0, move |files| async move {
        let file = files.open("one", OpenMode::Create).await.unwrap();
        assert_eq!(file.size_bytes(), 0);
        let (buffer, result) = file.write_at(0, filled(1, 3)).await;
        result.unwrap();
        assert_eq!(&*buffer, pattern(1, 3 * PAGE_BYTES), "the buffer comes back as it went");
        file.write_at(5 * PAGE_BYTES as u64, filled(2, 1)).await.1.unwrap();
        assert_eq!(file.size_bytes(), 6 * PAGE_BYTES as u64);
        file.sync().await.unwrap();
        files.sync_folder().await.unwrap();

        let read = file.read_at(PAGE_BYTES as u64, 8 * PAGE_BYTES).await.unwrap();
        assert_eq!(&read[..2 * PAGE_BYTES], &pattern(1, 3 * PAGE_BYTES)[PAGE_BYTES..]);
        assert!(read[2 * PAGE_BYTES..4 * PAGE_BYTES].iter().all(|byte| *byte == 0), "a hole is zero");
        assert_eq!(&read[4 * PAGE_BYTES..5 * PAGE_BYTES], pattern(2, PAGE_BYTES));
        assert!(read[5 * PAGE_BYTES..].iter().all(|byte| *byte == 0), "beyond the end is zero");
        let beyond = file.read_at(1 << 40, PAGE_BYTES).await.unwrap();
        assert!(beyond.iter().all(|byte| *byte == 0));

        assert!(matches!(files.open("one", OpenMode::Create).await.err(), Some(FileError::Io { .. })), "it exists");
        assert_eq!(files.open("two", OpenMode::Read).await.err(), Some(FileError::NotFound { name: "two".into() }));
        assert_eq!(files.remove("two").await, Err(FileError::NotFound { name: "two".into() }));
        assert_eq!(files.rename("two", "three").await, Err(FileError::NotFound { name: "two".into() }));
        for name in ["", ".", "..", "a/b", "/etc/passwd", "a\0b"] {
            assert!(matches!(files.open(name, OpenMode::Create).await.err(), Some(FileError::Io { .. })), "{name:?}");
            assert!(files.remove(name).await.is_err());
        }

        files.open("two", OpenMode::Create).await.unwrap();
        files.rename("one", "two").await.unwrap();
        assert_eq!(files.list().await.unwrap(), ["two"]);
        let two = files.open("two", OpenMode::Read).await.unwrap();
        assert_eq!(two.size_bytes(), 6 * PAGE_BYTES as u64);
        assert!(two.write_at(0, filled(1, 1)).await.1.is_err(), "open for reading only");
        files.remove("two").await.unwrap();
        assert!(files.list().await.unwrap().is_empty());
        let still = two.read_at(0, PAGE_BYTES).await.unwrap();
        assert_eq!(&*still, &pattern(1, 3 * PAGE_BYTES)[..PAGE_BYTES], "an open file outlives its name");

        // A file whose size is not a whole number of pages.
        fs::write(path.join("odd"), pattern(7, PAGE_BYTES + 100)).unwrap();
        let odd = files.open("odd", OpenMode::Read).await.unwrap();
        assert_eq!(odd.size_bytes(), PAGE_BYTES as u64 + 100);
        let read = odd.read_at(0, 3 * PAGE_BYTES).await.unwrap();
        assert_eq!(&read[..PAGE_BYTES + 100], pattern(7, PAGE_BYTES + 100));
        assert!(read[PAGE_BYTES + 100..].iter().all(|byte| *byte == 0));
    });
}

#[test]
fn a_full_disk_is_told_as_such() {
    // The device that is always full; it also has no direct I/O.
    with_files(Path::new("/dev"), |files| async move {
        let full = files.open("full", OpenMode::Log).await.unwrap();
        let (buffer, result) = full.write_at(0, filled(1, 2)).await;
        assert_eq!(result, Err(FileError::Full { name: "full".into() }));
        assert_eq!(&*buffer, pattern(1, 2 * PAGE_BYTES));
    });
}

#[test]
fn a_folder_that_is_none_is_refused() {
    with_files(Path::new("/"), |_| async {});
    let (said, hear) = mpsc::channel();
    let shard = Running::start(
        |_| {},
        move |context| {
            for path in ["/nowhere/at/all", "/dev/null"] {
                said.send(context.files(Path::new(path)).err().map(|error| error.kind())).unwrap();
            }
            RawEcho::default()
        },
    );
    assert_eq!(hear.recv_timeout(PATIENCE).unwrap(), Some(std::io::ErrorKind::NotFound));
    assert_eq!(hear.recv_timeout(PATIENCE).unwrap(), Some(std::io::ErrorKind::NotADirectory));
    shard.stop();
}

#[test]
fn a_dropped_operation_keeps_its_memory_until_it_is_done() {
    let folder = Folder::new("dropped");
    with_files(&folder.0, |files| async move {
        let file = files.open("file", OpenMode::Create).await.unwrap();
        for round in 0..200 {
            // Started, not finished, and forgotten.
            let mut write = Box::pin(file.write_at(round * 64 * PAGE_BYTES as u64, filled(round as usize, 64)));
            poll_fn(|context| {
                let _ = write.as_mut().poll(context);
                Poll::Ready(())
            })
            .await;
            drop(write);
            let mut open = Box::pin(files.open("file", OpenMode::Read));
            poll_fn(|context| {
                let _ = open.as_mut().poll(context);
                Poll::Ready(())
            })
            .await;
            drop(open);
            // Memory that is handed out again at once, were it free.
            drop(filled(0xFF, 64));
        }
        // Behind all of them: nothing says when an abandoned write is done, so read until it is.
        for round in 0..200_usize {
            loop {
                let read = file.read_at((round * 64 * PAGE_BYTES) as u64, 64 * PAGE_BYTES).await.unwrap();
                if *read == *pattern(round, 64 * PAGE_BYTES) {
                    break;
                }
            }
        }
        let open = fs::read_dir("/proc/self/fd").unwrap().count();
        assert!(open < 200, "descriptors of dropped opens are closed: {open}");
    });
}

#[test]
fn operations_in_flight_are_waited_for_at_the_end() {
    let folder = Folder::new("stop");
    let path = folder.0.clone();
    let (started, wait) = mpsc::channel();
    let shard = Running::start(
        |_| {},
        move |context| {
            let files = context.files(&path).unwrap();
            context.spawner().spawn(Queue::Latency, async move {
                let file = files.open("file", OpenMode::Create).await.unwrap();
                started.send(()).unwrap();
                let mut offset = 0;
                loop {
                    file.write_at(offset, filled(5, 256)).await.1.unwrap();
                    offset = (offset + 256 * PAGE_BYTES as u64) % (64 << 20);
                }
            });
            RawEcho::default()
        },
    );
    wait.recv_timeout(PATIENCE).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let counters = Arc::clone(&shard.counters);
    shard.stop();
    assert_eq!(counters.file_operations.get(), 0);
}

#[test]
fn log_writes_go_on_beside_sockets() {
    let folder = Folder::new("log");
    let writes = Arc::new(AtomicU64::new(0));
    let (path, counted) = (folder.0.clone(), Arc::clone(&writes));
    let (ready, wait) = mpsc::channel();
    let shard = Running::start(
        |_| {},
        move |context| {
            let files = context.files(&path).unwrap();
            context.spawner().spawn(Queue::Latency, async move {
                let file = files.open("log", OpenMode::Create).await.unwrap();
                file.write_at(0, AlignedBuffer::zeroed(256 * PAGE_BYTES)).await.1.unwrap();
                file.sync().await.unwrap();
                drop(file);
                let log = files.open("log", OpenMode::Log).await.unwrap();
                ready.send(()).unwrap();
                let mut buffer = filled(0, 1);
                for page in 0.. {
                    buffer[..8].copy_from_slice(&u64::to_le_bytes(page));
                    let result;
                    (buffer, result) = log.write_at(page % 256 * PAGE_BYTES as u64, buffer).await;
                    result.unwrap();
                    assert_eq!(log.size_bytes(), 256 * PAGE_BYTES as u64);
                    counted.store(page + 1, Ordering::SeqCst);
                }
            });
            RawEcho::default()
        },
    );
    wait.recv_timeout(PATIENCE).unwrap();
    std::thread::scope(|scope| {
        for index in 0..8 {
            let mut stream = shard.connect();
            scope.spawn(move || {
                for round in 0..300 {
                    round_trip(&mut stream, &pattern(index, 100 + round));
                }
            });
        }
    });
    ring_common::eventually("the log went on", || writes.load(Ordering::SeqCst) > 512);
    assert!(shard.counters.log_writes.get() >= 512);
    shard.stop();
    // Another reader, past the ring: every page is there, with the number of its last write.
    let last = writes.load(Ordering::SeqCst);
    let bytes = fs::read(folder.0.join("log")).unwrap();
    for (page, bytes) in bytes.chunks(PAGE_BYTES).enumerate() {
        let number = u64::from_le_bytes(bytes[..8].try_into().unwrap());
        assert_eq!(number as usize % 256, page);
        assert!(number + 257 >= last && number <= last, "page {page} holds write {number} of {last}");
        assert_eq!(&bytes[8..], &pattern(0, PAGE_BYTES)[8..]);
    }
}

/// Tells when it goes.
struct Told(mpsc::Sender<&'static str>);

impl Drop for Told {
    fn drop(&mut self) {
        let _ = self.0.send("gone");
    }
}

#[test]
fn long_jobs_are_done_on_another_thread_until_nobody_wants_them() {
    let folder = Folder::new("worker");
    let worker = Worker::start("worker", |error| panic!("{error}")).unwrap();
    let (tell, told) = mpsc::channel();
    with_files_and(&folder.0, Some(worker.desk()), move |files| async move {
        let here = thread::current().id();
        let write = async move |files: NodeFiles| {
            let file = files.open("made", OpenMode::Create).await.unwrap();
            file.write_at(0, filled(1, 3)).await.1.unwrap();
            thread::current().id()
        };
        let there = files.elsewhere(Urgency::Soon, write).await;
        assert!(there.is_some_and(|there| there != here), "{there:?}");
        let file = files.open("made", OpenMode::Read).await.unwrap();
        assert_eq!(*file.read_at(0, 3 * PAGE_BYTES).await.unwrap(), pattern(1, 3 * PAGE_BYTES));
        // One that would wait for ever ends with the future of whoever asked; others are not kept waiting by it.
        let wait = async move |_: NodeFiles| {
            let told = Told(tell);
            told.0.send("begun").unwrap();
            pending::<()>().await;
        };
        let asked = Box::pin(files.elsewhere(Urgency::Whenever, wait));
        let quick = Box::pin(files.elsewhere(Urgency::Soon, async |_| 7));
        match select(asked, quick).await {
            Either::Right((Some(7), asked)) => drop(asked),
            _ => panic!("the quick one is done first"),
        }
        // The worker's own turn drops it.
        assert_eq!(files.elsewhere(Urgency::Soon, async |_| 8).await, Some(8));
    });
    assert_eq!(told.recv_timeout(PATIENCE), Ok("begun"));
    assert_eq!(told.recv_timeout(PATIENCE), Ok("gone"));
    let desk = worker.desk();
    worker.stop().unwrap();
    with_files_and(&folder.0, Some(desk), |files| async move {
        assert_eq!(files.elsewhere(Urgency::Soon, async |_| 9).await, None, "the thread has ended");
    });
}
