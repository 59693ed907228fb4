//! A lane's folder over the standard library: every operation is done when its future is made, so that nothing ever
//! waits.
//!
//! Log files are opened for reading only: nothing here writes a log.

use std::{
    cell::Cell,
    fs::{self, File as StdFile, OpenOptions},
    future::Future,
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    pin::pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use antiphon_engine::seams::{AlignedBuffer, File, FileError, Files, OpenMode};

/// Runs a future over such files to its end.
pub(super) fn now<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    loop {
        // It gives way now and then, but has nothing to wait for.
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return value;
        }
    }
}

/// A folder.
#[derive(Debug, Clone)]
pub(super) struct FolderFiles {
    path: Rc<Path>,
}

/// An open file.
#[derive(Debug)]
pub(super) struct FolderFile {
    file: StdFile,
    name: String,
    bytes: Cell<u64>,
}

impl FolderFiles {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.into() }
    }

    /// The path of a file, whose name is one component.
    fn path_of(&self, name: &str) -> Result<PathBuf, FileError> {
        if name.is_empty() || name.contains('/') || name == "." || name == ".." {
            return Err(FileError::Io { name: name.to_owned(), text: "is not the name of a file".to_owned() });
        }
        Ok(self.path.join(name))
    }
}

impl Files for FolderFiles {
    type File = FolderFile;

    async fn open(&self, name: &str, mode: OpenMode) -> Result<FolderFile, FileError> {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(libc::O_NOFOLLOW);
        if mode == OpenMode::Create {
            options.write(true).create_new(true).mode(0o600);
        }
        let opened = options.open(self.path_of(name)?);
        let opened = opened.and_then(|file| Ok((file.metadata()?.len(), file)));
        let (bytes, file) = opened.map_err(|source| error(name, &source))?;
        Ok(FolderFile { file, name: name.to_owned(), bytes: Cell::new(bytes) })
    }

    async fn list(&self) -> Result<Vec<String>, FileError> {
        let read = || {
            let mut names = Vec::new();
            for entry in fs::read_dir(&self.path)? {
                // A name that is not UTF-8 is none of the engine's.
                if let Ok(name) = entry?.file_name().into_string() {
                    names.push(name);
                }
            }
            Ok::<_, io::Error>(names)
        };
        read().map_err(|source| error(&self.path.to_string_lossy(), &source))
    }

    async fn rename(&self, from: &str, to: &str) -> Result<(), FileError> {
        fs::rename(self.path_of(from)?, self.path_of(to)?).map_err(|source| error(from, &source))
    }

    async fn remove(&self, name: &str) -> Result<(), FileError> {
        fs::remove_file(self.path_of(name)?).map_err(|source| error(name, &source))
    }

    async fn sync_folder(&self) -> Result<(), FileError> {
        let synced = StdFile::open(&self.path).and_then(|folder| folder.sync_all());
        synced.map_err(|source| error(&self.path.to_string_lossy(), &source))
    }
}

impl File for FolderFile {
    async fn read_at(&self, offset: u64, length: usize) -> Result<AlignedBuffer, FileError> {
        let mut buffer = AlignedBuffer::zeroed(length);
        let mut done = 0;
        while done < length {
            match self.file.read_at(&mut buffer[done..length], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(source) if source.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(error(&self.name, &source)),
            }
        }
        Ok(buffer)
    }

    async fn write_at(&self, offset: u64, buffer: AlignedBuffer) -> (AlignedBuffer, Result<(), FileError>) {
        let written = self.file.write_all_at(&buffer, offset).map_err(|source| error(&self.name, &source));
        if written.is_ok() {
            self.bytes.set(self.bytes.get().max(offset + buffer.len() as u64));
        }
        (buffer, written)
    }

    async fn sync(&self) -> Result<(), FileError> {
        self.file.sync_all().map_err(|source| error(&self.name, &source))
    }

    fn size_bytes(&self) -> u64 {
        self.bytes.get()
    }
}

fn error(name: &str, source: &io::Error) -> FileError {
    let name = name.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound => FileError::NotFound { name },
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => FileError::Full { name },
        _ => FileError::Io { name, text: source.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_folder_does_what_the_engine_asks() {
        let path = std::env::temp_dir().join(format!("antiphon-folder-files-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        let files = FolderFiles::new(&path);
        now(async {
            assert!(matches!(files.open("none", OpenMode::Read).await, Err(FileError::NotFound { .. })));
            for name in ["", ".", "..", "a/b"] {
                assert!(matches!(files.open(name, OpenMode::Read).await, Err(FileError::Io { .. })), "{name:?}");
            }
            let file = files.open("one", OpenMode::Create).await.unwrap();
            assert_eq!(fs::metadata(path.join("one")).unwrap().permissions().mode() & 0o777, 0o600);
            assert!(files.open("one", OpenMode::Create).await.is_err());
            let mut buffer = AlignedBuffer::zeroed(4096);
            buffer.fill(7);
            file.write_at(4096, buffer).await.1.unwrap();
            file.sync().await.unwrap();
            assert_eq!(file.size_bytes(), 8192);
            files.rename("one", "two").await.unwrap();
            files.sync_folder().await.unwrap();
            let log = files.open("two", OpenMode::Log).await.unwrap();
            let read = log.read_at(4096, 8192).await.unwrap();
            assert!(read[..4096].iter().all(|byte| *byte == 7) && read[4096..].iter().all(|byte| *byte == 0));
            assert!(log.write_at(0, AlignedBuffer::zeroed(4096)).await.1.is_err(), "a log is only read");
            assert_eq!(files.list().await.unwrap(), ["two"]);
            files.remove("two").await.unwrap();
        });
        fs::remove_dir_all(&path).unwrap();
    }
}
