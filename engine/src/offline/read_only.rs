//! A folder for reading only, whatever folder it is: what writes is refused before it gets there. It also counts what
//! is read.

use std::{cell::Cell, rc::Rc};

use crate::seams::{AlignedBuffer, File, FileError, Files, OpenMode};

/// How far an offline reader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Bytes read so far.
    pub bytes_read: u64,
    /// About how many it will be.
    pub bytes_expected: u64,
}

/// The folder. Cloning gives another handle on the same.
pub(super) struct ReadOnly<F> {
    files: F,
    meter: Rc<Meter>,
}

/// One of its files.
pub(super) struct ReadOnlyFile<D> {
    file: D,
    name: String,
    meter: Rc<Meter>,
}

struct Meter {
    progress: Cell<Progress>,
    tell: Box<dyn Fn(Progress)>,
}

impl<F> ReadOnly<F> {
    /// `tell` is called after every read.
    pub(super) fn new(files: F, tell: impl Fn(Progress) + 'static) -> Self {
        let meter = Meter { progress: Cell::new(Progress::default()), tell: Box::new(tell) };
        Self { files, meter: Rc::new(meter) }
    }

    /// Another folder, read on the same count.
    pub(super) fn of(&self, files: F) -> Self {
        Self { files, meter: Rc::clone(&self.meter) }
    }

    /// So many more bytes are going to be read.
    pub(super) fn expect(&self, bytes: u64) {
        let mut progress = self.meter.progress.get();
        progress.bytes_expected = progress.bytes_expected.saturating_add(bytes);
        self.meter.progress.set(progress);
    }

    pub(super) fn bytes_read(&self) -> u64 {
        self.meter.progress.get().bytes_read
    }
}

impl Meter {
    fn read(&self, bytes: usize) {
        let mut progress = self.progress.get();
        progress.bytes_read += bytes as u64;
        progress.bytes_expected = progress.bytes_expected.max(progress.bytes_read);
        self.progress.set(progress);
        (self.tell)(progress);
    }
}

impl<F: Clone> Clone for ReadOnly<F> {
    fn clone(&self) -> Self {
        Self { files: self.files.clone(), meter: Rc::clone(&self.meter) }
    }
}

fn refused(name: &str) -> FileError {
    FileError::Io { name: name.to_owned(), text: "this folder is only read".to_owned() }
}

impl<F: Files> Files for ReadOnly<F> {
    type File = ReadOnlyFile<F::File>;

    async fn open(&self, name: &str, mode: OpenMode) -> Result<Self::File, FileError> {
        if mode == OpenMode::Create {
            return Err(refused(name));
        }
        let file = self.files.open(name, OpenMode::Read).await?;
        Ok(ReadOnlyFile { file, name: name.to_owned(), meter: Rc::clone(&self.meter) })
    }

    async fn list(&self) -> Result<Vec<String>, FileError> {
        self.files.list().await
    }

    async fn rename(&self, from: &str, _to: &str) -> Result<(), FileError> {
        Err(refused(from))
    }

    async fn remove(&self, name: &str) -> Result<(), FileError> {
        Err(refused(name))
    }

    async fn sync_folder(&self) -> Result<(), FileError> {
        Err(refused("the folder"))
    }
}

impl<D: File> File for ReadOnlyFile<D> {
    async fn read_at(&self, offset: u64, length: usize) -> Result<AlignedBuffer, FileError> {
        let buffer = self.file.read_at(offset, length).await?;
        self.meter.read(length);
        Ok(buffer)
    }

    async fn write_at(&self, _offset: u64, buffer: AlignedBuffer) -> (AlignedBuffer, Result<(), FileError>) {
        (buffer, Err(refused(&self.name)))
    }

    async fn sync(&self) -> Result<(), FileError> {
        Err(refused(&self.name))
    }

    fn size_bytes(&self) -> u64 {
        self.file.size_bytes()
    }
}
