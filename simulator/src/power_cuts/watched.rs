//! The node's files, telling what the engine does on them: what was under way at a cut is learnt from what the writer
//! said last.
//!
//! Every operation is the node's own, unchanged; this only looks at names. What the engine does elsewhere is watched
//! there, and tells flushes from compactions. Must not do: any I/O of its own but to say it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File as StdFile,
    io::{BufWriter, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use antiphon_engine::seams::{AlignedBuffer, File, FileError, Files, OpenMode, Urgency};
use antiphon_gateway::uring::{NodeFile, NodeFiles};

use super::{
    Lie,
    protocol::{Frame, Work},
};

/// Says frames to the judge, from any thread.
#[derive(Clone)]
pub(crate) struct Reporter {
    to: Arc<Mutex<BufWriter<StdFile>>>,
}

/// A panic under a lock ends the writer, which the judge tells.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Reporter {
    pub(crate) fn new(to: StdFile) -> Self {
        Self { to: Arc::new(Mutex::new(BufWriter::with_capacity(64 << 10, to))) }
    }

    /// Says something, at the latest with the next [`Reporter::flush`].
    pub(crate) fn say(&self, frame: &Frame) {
        frame.write(&mut *locked(&self.to)).expect("the judge listens");
    }

    /// What was said is in the pipe, where it outlives us.
    pub(crate) fn flush(&self) {
        locked(&self.to).flush().expect("the judge listens");
    }

    fn now(&self, frame: &Frame) {
        self.say(frame);
        self.flush();
    }
}

/// The files of a folder, watched.
#[derive(Clone)]
pub(crate) struct WatchedFiles {
    files: NodeFiles,
    watch: Arc<Watch>,
    /// What new segments are for.
    segments_of: Work,
    /// Told to each thread that the engine works on.
    lie: Option<Lie>,
}

/// How far a new segment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Written,
    Synced,
    /// The manifest that names it is under way.
    Named,
}

struct Watch {
    reporter: Reporter,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// Segments that no manifest names yet.
    segments: BTreeMap<String, (Work, Stage)>,
    /// Log files that were written from their beginning.
    used: BTreeSet<String>,
    /// A new manifest has its name, but the folder is not synced.
    is_manifest_renamed: bool,
}

impl Watch {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        locked(&self.seen)
    }

    fn begin(&self, work: Work) {
        self.reporter.now(&Frame::Begin(work));
    }

    fn end(&self, work: Work) {
        self.reporter.say(&Frame::End(work));
    }

    /// Tells of a failure, hands the result on. That a name is not there is an answer, no failure.
    fn checked<T>(&self, result: Result<T, FileError>) -> Result<T, FileError> {
        match &result {
            Ok(_) | Err(FileError::NotFound { .. }) => {}
            Err(error) => self.reporter.now(&Frame::Failed(error.to_string())),
        }
        result
    }

    fn created(&self, name: &str, segments_of: Work) {
        if name.starts_with("segment-") {
            self.seen().segments.insert(name.to_owned(), (segments_of, Stage::Written));
            self.begin(segments_of);
        } else if name.starts_with("log-") {
            self.begin(Work::Prepare);
        } else if name.starts_with("manifest") {
            for (_, stage) in self.seen().segments.values_mut().filter(|(_, stage)| *stage == Stage::Synced) {
                *stage = Stage::Named;
            }
            self.begin(Work::Manifest);
        }
    }
}

impl WatchedFiles {
    pub(crate) fn new(files: NodeFiles, reporter: Reporter, lie: Option<Lie>) -> Self {
        let watch = Watch { reporter, seen: Mutex::default() };
        Self { files, watch: Arc::new(watch), segments_of: Work::Compaction, lie }
    }
}

impl Files for WatchedFiles {
    type File = WatchedFile;

    async fn open(&self, name: &str, mode: OpenMode) -> Result<WatchedFile, FileError> {
        if mode == OpenMode::Create {
            self.watch.created(name, self.segments_of);
        }
        let file = self.watch.checked(self.files.open(name, mode).await)?;
        let is_watched = mode == OpenMode::Log || (mode == OpenMode::Create && name.starts_with("segment-"));
        let name = is_watched.then(|| name.to_owned());
        Ok(WatchedFile { file, watch: Arc::clone(&self.watch), name, is_log: mode == OpenMode::Log })
    }

    async fn list(&self) -> Result<Vec<String>, FileError> {
        let names = self.watch.checked(self.files.list().await)?;
        // Whoever lists them opens what there is: those were used, or made ready, before.
        self.watch.seen().used.extend(names.iter().filter(|name| name.starts_with("log-")).cloned());
        Ok(names)
    }

    async fn rename(&self, from: &str, to: &str) -> Result<(), FileError> {
        self.watch.checked(self.files.rename(from, to).await)?;
        if to.starts_with("manifest") {
            self.watch.seen().is_manifest_renamed = true;
        } else if to.starts_with("log-") {
            self.watch.end(Work::Prepare);
        }
        Ok(())
    }

    async fn remove(&self, name: &str) -> Result<(), FileError> {
        let given_up = self.watch.seen().segments.remove(name);
        if let Some((work, _)) = given_up {
            self.watch.end(work);
        }
        self.watch.checked(self.files.remove(name).await)
    }

    async fn sync_folder(&self) -> Result<(), FileError> {
        let renamed = self.watch.seen().is_manifest_renamed;
        self.watch.checked(self.files.sync_folder().await)?;
        let mut seen = self.watch.seen();
        if renamed && std::mem::take(&mut seen.is_manifest_renamed) {
            self.watch.end(Work::Manifest);
            seen.segments
                .values()
                .filter(|(_, stage)| *stage == Stage::Named)
                .for_each(|(work, _)| self.watch.end(*work));
            seen.segments.retain(|_, (_, stage)| *stage != Stage::Named);
        }
        Ok(())
    }

    async fn elsewhere<T: Send + 'static>(
        &self,
        urgency: Urgency,
        job: impl AsyncFnOnce(Self) -> T + Send + 'static,
    ) -> Option<T> {
        let (watch, lie) = (Arc::clone(&self.watch), self.lie);
        let segments_of = match urgency {
            Urgency::Soon => Work::Flush,
            Urgency::Whenever => Work::Compaction,
        };
        let there = async move |files: NodeFiles| {
            lie.into_iter().for_each(Lie::tell);
            job(Self { files, watch, segments_of, lie }).await
        };
        self.files.elsewhere(urgency, there).await
    }
}

/// A file, watched.
pub(crate) struct WatchedFile {
    file: NodeFile,
    watch: Arc<Watch>,
    /// Of a log file in use, and of a new segment.
    name: Option<String>,
    is_log: bool,
}

impl File for WatchedFile {
    async fn read_at(&self, offset: u64, length: usize) -> Result<AlignedBuffer, FileError> {
        self.watch.checked(self.file.read_at(offset, length).await)
    }

    async fn write_at(&self, offset: u64, buffer: AlignedBuffer) -> (AlignedBuffer, Result<(), FileError>) {
        let work = self.name.as_ref().filter(|_| self.is_log).map(|name| {
            let first = offset == 0 && !self.watch.seen().used.insert(name.clone());
            if first { Work::Recycle } else { Work::Commit }
        });
        if let Some(work) = work {
            self.watch.begin(work);
        }
        let (buffer, result) = self.file.write_at(offset, buffer).await;
        let result = self.watch.checked(result);
        if let Some(work) = work.filter(|_| result.is_ok()) {
            self.watch.end(work);
        }
        (buffer, result)
    }

    async fn sync(&self) -> Result<(), FileError> {
        self.watch.checked(self.file.sync().await)?;
        let mut seen = self.watch.seen();
        if let Some((_, stage)) = self.name.as_ref().and_then(|name| seen.segments.get_mut(name)) {
            *stage = Stage::Synced;
        }
        Ok(())
    }

    fn size_bytes(&self) -> u64 {
        self.file.size_bytes()
    }
}
