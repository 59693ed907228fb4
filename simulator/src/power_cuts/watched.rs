//! The node's files, telling what the engine does on them: what was under way at a cut is learnt from what the writer
//! said last.
//!
//! Every operation is the node's own, unchanged; this only looks at names. A segment is put down to a flush if a
//! memtable waits for one and has none yet, else to a compaction. Must not do: any I/O of its own but to say it.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    fs::File as StdFile,
    io::{BufWriter, Write},
    rc::Rc,
};

use antiphon_engine::seams::{AlignedBuffer, File, FileError, Files, OpenMode};
use antiphon_gateway::uring::{NodeFile, NodeFiles};

use super::protocol::{Frame, Work};

/// Says frames to the judge.
#[derive(Clone)]
pub(crate) struct Reporter {
    to: Rc<RefCell<BufWriter<StdFile>>>,
}

impl Reporter {
    pub(crate) fn new(to: StdFile) -> Self {
        Self { to: Rc::new(RefCell::new(BufWriter::with_capacity(64 << 10, to))) }
    }

    /// Says something, at the latest with the next [`Reporter::flush`].
    pub(crate) fn say(&self, frame: &Frame) {
        frame.write(&mut *self.to.borrow_mut()).expect("the judge listens");
    }

    /// What was said is in the pipe, where it outlives us.
    pub(crate) fn flush(&self) {
        self.to.borrow_mut().flush().expect("the judge listens");
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
    watch: Rc<Watch>,
}

/// How far a new segment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Written,
    Synced,
    /// The manifest that names it is under way.
    Named,
}

pub(crate) struct Watch {
    reporter: Reporter,
    /// Whether a memtable waits for its flush; asked of the engine once there is one.
    has_sealed: RefCell<Option<Box<dyn Fn() -> bool>>>,
    /// Segments that no manifest names yet.
    segments: RefCell<BTreeMap<String, (Work, Stage)>>,
    /// Log files that were written from their beginning.
    used: RefCell<BTreeSet<String>>,
    /// A new manifest has its name, but the folder is not synced.
    is_manifest_renamed: Cell<bool>,
}

impl Watch {
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

    /// Asks `has_sealed` from now on.
    pub(crate) fn ask(&self, has_sealed: impl Fn() -> bool + 'static) {
        *self.has_sealed.borrow_mut() = Some(Box::new(has_sealed));
    }

    fn created(&self, name: &str) {
        if name.starts_with("segment-") {
            let sealed = self.has_sealed.borrow().as_ref().is_some_and(|asked| asked());
            let mut segments = self.segments.borrow_mut();
            let flushes = segments.values().any(|(work, _)| *work == Work::Flush);
            let work = if sealed && !flushes { Work::Flush } else { Work::Compaction };
            segments.insert(name.to_owned(), (work, Stage::Written));
            self.begin(work);
        } else if name.starts_with("log-") {
            self.begin(Work::Prepare);
        } else if name.starts_with("manifest") {
            let mut segments = self.segments.borrow_mut();
            let synced = segments.values_mut().filter(|(_, stage)| *stage == Stage::Synced);
            synced.for_each(|(_, stage)| *stage = Stage::Named);
            self.begin(Work::Manifest);
        }
    }
}

impl WatchedFiles {
    pub(crate) fn new(files: NodeFiles, reporter: Reporter) -> Self {
        let watch = Watch {
            reporter,
            has_sealed: RefCell::default(),
            segments: RefCell::default(),
            used: RefCell::default(),
            is_manifest_renamed: Cell::new(false),
        };
        Self { files, watch: Rc::new(watch) }
    }

    pub(crate) fn watch(&self) -> &Rc<Watch> {
        &self.watch
    }
}

impl Files for WatchedFiles {
    type File = WatchedFile;

    async fn open(&self, name: &str, mode: OpenMode) -> Result<WatchedFile, FileError> {
        if mode == OpenMode::Create {
            self.watch.created(name);
        }
        let file = self.watch.checked(self.files.open(name, mode).await)?;
        let is_watched = mode == OpenMode::Log || (mode == OpenMode::Create && name.starts_with("segment-"));
        let name = is_watched.then(|| name.to_owned());
        Ok(WatchedFile { file, watch: Rc::clone(&self.watch), name, is_log: mode == OpenMode::Log })
    }

    async fn list(&self) -> Result<Vec<String>, FileError> {
        let names = self.watch.checked(self.files.list().await)?;
        // Whoever lists them opens what there is: those were used, or made ready, before.
        self.watch.used.borrow_mut().extend(names.iter().filter(|name| name.starts_with("log-")).cloned());
        Ok(names)
    }

    async fn rename(&self, from: &str, to: &str) -> Result<(), FileError> {
        self.watch.checked(self.files.rename(from, to).await)?;
        if to.starts_with("manifest") {
            self.watch.is_manifest_renamed.set(true);
        } else if to.starts_with("log-") {
            self.watch.end(Work::Prepare);
        }
        Ok(())
    }

    async fn remove(&self, name: &str) -> Result<(), FileError> {
        if let Some((work, _)) = self.watch.segments.borrow_mut().remove(name) {
            self.watch.end(work);
        }
        self.watch.checked(self.files.remove(name).await)
    }

    async fn sync_folder(&self) -> Result<(), FileError> {
        let renamed = self.watch.is_manifest_renamed.get();
        self.watch.checked(self.files.sync_folder().await)?;
        if renamed && self.watch.is_manifest_renamed.replace(false) {
            self.watch.end(Work::Manifest);
            let mut segments = self.watch.segments.borrow_mut();
            let named = segments.values().filter(|(_, stage)| *stage == Stage::Named);
            named.for_each(|(work, _)| self.watch.end(*work));
            segments.retain(|_, (_, stage)| *stage != Stage::Named);
        }
        Ok(())
    }
}

/// A file, watched.
pub(crate) struct WatchedFile {
    file: NodeFile,
    watch: Rc<Watch>,
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
            let first = offset == 0 && !self.watch.used.borrow_mut().insert(name.clone());
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
        let mut segments = self.watch.segments.borrow_mut();
        if let Some((_, stage)) = self.name.as_ref().and_then(|name| segments.get_mut(name)) {
            *stage = Stage::Synced;
        }
        Ok(())
    }

    fn size_bytes(&self) -> u64 {
        self.file.size_bytes()
    }
}
