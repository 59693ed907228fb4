//! The engine's files with a count of what is written and read, by who did it: the log, flushes, merges, and the rest.
//!
//! The engine has flushes and merges done by [`Files::elsewhere`], each with its own urgency, so whoever writes is
//! known exactly and no byte is attributed by guessing. Changes nothing of what is done.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use antiphon_engine::seams::{AlignedBuffer, File, FileError, Files, OpenMode, Urgency};

/// On whose behalf a file was touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// The lane's appends.
    Log,
    /// The first writing of a log file, and naming it in the manifest; reads of the log at opening.
    Upkeep,
    /// Memtables that became segments, with the manifest after each.
    Flush,
    /// Segments that became others.
    Merge,
    /// Pages and look-ups.
    Read,
}

impl By {
    /// All that write.
    pub(crate) const WRITERS: [Self; 4] = [Self::Log, Self::Flush, Self::Merge, Self::Upkeep];
}

/// Bytes and calls so far.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    written: [AtomicU64; 5],
    read: [AtomicU64; 5],
    reads: [AtomicU64; 5],
}

impl Traffic {
    /// Bytes that were written for somebody.
    pub(crate) fn written_by(&self, by: By) -> u64 {
        self.written[by as usize].load(Ordering::Relaxed)
    }

    /// All bytes that were written.
    pub(crate) fn written_bytes(&self) -> u64 {
        self.written.iter().map(|bytes| bytes.load(Ordering::Relaxed)).sum()
    }

    /// Reads for somebody, and their bytes.
    pub(crate) fn read_by(&self, by: By) -> (u64, u64) {
        (self.reads[by as usize].load(Ordering::Relaxed), self.read[by as usize].load(Ordering::Relaxed))
    }
}

/// A folder.
#[derive(Clone)]
pub(crate) struct Counted<F> {
    inner: F,
    traffic: Arc<Traffic>,
    /// Who works with this handle; `None` is the lane itself, which is told apart by files' names.
    by: Option<By>,
}

impl<F> Counted<F> {
    pub(crate) fn new(inner: F, traffic: Arc<Traffic>) -> Self {
        Self { inner, traffic, by: None }
    }
}

/// A file of it.
pub(crate) struct CountedFile<D> {
    inner: D,
    traffic: Arc<Traffic>,
    writes: By,
    reads: By,
}

/// On whose behalf the lane itself opens a file.
fn of_name(name: &str, mode: OpenMode) -> (By, By) {
    match mode {
        OpenMode::Log => (By::Log, By::Upkeep),
        OpenMode::Create => (By::Upkeep, By::Upkeep),
        OpenMode::Read if name.starts_with("segment-") => (By::Upkeep, By::Read),
        OpenMode::Read => (By::Upkeep, By::Upkeep),
    }
}

impl<F: Files> Files for Counted<F> {
    type File = CountedFile<F::File>;

    async fn open(&self, name: &str, mode: OpenMode) -> Result<Self::File, FileError> {
        let inner = self.inner.open(name, mode).await?;
        let (writes, reads) = self.by.map_or_else(|| of_name(name, mode), |by| (by, by));
        Ok(CountedFile { inner, traffic: Arc::clone(&self.traffic), writes, reads })
    }

    fn list(&self) -> impl Future<Output = Result<Vec<String>, FileError>> {
        self.inner.list()
    }

    fn rename(&self, from: &str, to: &str) -> impl Future<Output = Result<(), FileError>> {
        self.inner.rename(from, to)
    }

    fn remove(&self, name: &str) -> impl Future<Output = Result<(), FileError>> {
        self.inner.remove(name)
    }

    fn sync_folder(&self) -> impl Future<Output = Result<(), FileError>> {
        self.inner.sync_folder()
    }

    fn share(&self, name: &str, to: &Self) -> impl Future<Output = Result<(), FileError>> {
        self.inner.share(name, &to.inner)
    }

    fn elsewhere<T: Send + 'static>(
        &self,
        urgency: Urgency,
        job: impl AsyncFnOnce(Self) -> T + Send + 'static,
    ) -> impl Future<Output = Option<T>> {
        let traffic = Arc::clone(&self.traffic);
        let by = match urgency {
            Urgency::Soon => By::Flush,
            Urgency::Whenever => By::Merge,
        };
        self.inner.elsewhere(urgency, async move |inner| job(Self { inner, traffic, by: Some(by) }).await)
    }
}

impl<D: File> File for CountedFile<D> {
    async fn read_at(&self, offset: u64, length: usize) -> Result<AlignedBuffer, FileError> {
        self.traffic.reads[self.reads as usize].fetch_add(1, Ordering::Relaxed);
        self.traffic.read[self.reads as usize].fetch_add(length as u64, Ordering::Relaxed);
        self.inner.read_at(offset, length).await
    }

    fn write_at(
        &self,
        offset: u64,
        buffer: AlignedBuffer,
    ) -> impl Future<Output = (AlignedBuffer, Result<(), FileError>)> {
        self.traffic.written[self.writes as usize].fetch_add(buffer.len() as u64, Ordering::Relaxed);
        self.inner.write_at(offset, buffer)
    }

    fn sync(&self) -> impl Future<Output = Result<(), FileError>> {
        self.inner.sync()
    }

    fn size_bytes(&self) -> u64 {
        self.inner.size_bytes()
    }
}
