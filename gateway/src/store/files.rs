//! A lane's folder over the standard library: every operation is done when its future is made, so that nothing ever
//! waits.
//!
//! Log files are opened for reading only: nothing here writes a log.

use std::{
    cell::Cell,
    fs::{self, File as StdFile, OpenOptions},
    future::Future,
    io::{self, Read, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    pin::pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use antiphon_engine::seams::{AlignedBuffer, File, FileError, Files, OpenMode, PAGE_BYTES};

use super::progress::Shown;

/// How much is copied at a time.
const COPY_BYTES: usize = 1024 * 1024;

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
#[derive(Clone)]
pub(super) struct FolderFiles {
    path: Rc<Path>,
    sharing: Option<Rc<Sharing>>,
}

/// How files of other folders are put into this one, and how many were.
pub(super) struct Sharing {
    /// The same folder of an earlier checkpoint of the same store.
    pub(super) earlier: Option<PathBuf>,
    /// Whether a file may be the same as the store's, and not only as an earlier checkpoint's.
    pub(super) may_link: bool,
    pub(super) shown: Shown,
    pub(super) shared: Cell<Shared>,
}

/// How many bytes took no room, being the store's or an earlier checkpoint's, and how many were copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Shared {
    pub(super) linked: u64,
    pub(super) reused: u64,
    pub(super) copied: u64,
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
        Self { path: path.into(), sharing: None }
    }

    /// One that files of others are put into.
    pub(super) fn receiving(path: &Path, sharing: Rc<Sharing>) -> Self {
        Self { path: path.into(), sharing: Some(sharing) }
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
        options.read(true);
        match mode {
            OpenMode::Read => options.custom_flags(libc::O_NOFOLLOW),
            OpenMode::Create => options.custom_flags(libc::O_NOFOLLOW).write(true).create_new(true).mode(0o600),
            // What looks only asks for reading: see the engine's folder that is only read.
            OpenMode::Log => options.custom_flags(libc::O_NOFOLLOW | libc::O_DSYNC).write(true),
        };
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

    async fn share(&self, name: &str, to: &Self) -> Result<(), FileError> {
        let (from, target) = (self.path_of(name)?, to.path_of(name)?);
        let Some(sharing) = &to.sharing else {
            return Err(FileError::Io { name: name.to_owned(), text: "is not to be shared".to_owned() });
        };
        sharing.share(&from, &target, name).map_err(|source| error(name, &source))
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

impl Sharing {
    /// A name for the same bytes if that is possible, else a copy.
    fn share(&self, from: &Path, target: &Path, name: &str) -> io::Result<()> {
        let bytes = fs::metadata(from)?.len();
        let mut shared = self.shared.get();
        if self.may_link && link(from, target)? {
            shared.linked += bytes;
        } else if let Some(earlier) = self.earlier.as_ref().map(|earlier| earlier.join(name))
            && is_same_segment(from, &earlier)?
            && link(&earlier, target)?
        {
            shared.reused += bytes;
        } else {
            self.copy(from, target)?;
            shared.copied += bytes;
        }
        self.shared.set(shared);
        Ok(())
    }

    fn copy(&self, from: &Path, target: &Path) -> io::Result<()> {
        let (mut from, mut buffer) = (StdFile::open(from)?, vec![0; COPY_BYTES]);
        let mut to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(target)?;
        let (mut done, of) = (0, from.metadata()?.len());
        loop {
            match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    to.write_all(&buffer[..count])?;
                    done += count as u64;
                    self.shown.show(done, Some(of));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        to.sync_all()
    }
}

/// Gives a file another name; `false` if the file system has none for it.
fn link(from: &Path, target: &Path) -> io::Result<bool> {
    match fs::hard_link(from, target) {
        Ok(()) => Ok(true),
        // Another file system; one without second names, or not for us; too many of them.
        Err(error)
            if matches!(error.raw_os_error(), Some(libc::EXDEV | libc::EPERM | libc::EOPNOTSUPP | libc::EMLINK)) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Whether a segment of a checkpoint is the store's segment of that name. A number is used once in a store, and what has it never
/// changes; that they are of one store, and were written at once, is told by length, header and footer, which have checksums.
fn is_same_segment(segment: &Path, earlier: &Path) -> io::Result<bool> {
    let ends = |path: &Path| {
        let file = StdFile::open(path)?;
        let length = file.metadata()?.len();
        let mut ends = vec![0; 2 * PAGE_BYTES];
        if length >= 2 * PAGE_BYTES as u64 {
            let (first, last) = ends.split_at_mut(PAGE_BYTES);
            file.read_exact_at(first, 0)?;
            file.read_exact_at(last, length - PAGE_BYTES as u64)?;
        }
        Ok::<_, io::Error>((length, ends))
    };
    match ends(earlier) {
        Ok(of_earlier) => Ok(ends(segment)? == of_earlier),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
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

    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("antiphon-folder-files-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn a_file_is_shared_by_a_name_or_as_an_earlier_one_or_by_a_copy() {
        let path = folder("share");
        for name in ["store", "earlier", "target"] {
            fs::create_dir(path.join(name)).unwrap();
        }
        let segment = |byte: u8, middle: u8| {
            let mut bytes = vec![byte; 3 * PAGE_BYTES];
            bytes[PAGE_BYTES + 1] = middle;
            bytes
        };
        for (name, byte) in [("a", 1), ("b", 2), ("c", 3)] {
            fs::write(path.join("store").join(name), segment(byte, byte)).unwrap();
        }
        // The same, one whose ends differ, and one that is not there.
        fs::write(path.join("earlier/a"), segment(1, 1)).unwrap();
        fs::write(path.join("earlier/b"), segment(9, 2)).unwrap();
        let store = FolderFiles::new(&path.join("store"));
        let share = |may_link: bool, names: &[&str]| {
            let earlier = Some(path.join("earlier"));
            let shown = Shown::new("test".to_owned());
            let sharing = Rc::new(Sharing { earlier, may_link, shown, shared: Cell::default() });
            let target = FolderFiles::receiving(&path.join("target"), Rc::clone(&sharing));
            for name in names {
                now(store.share(name, &target)).unwrap();
                assert_eq!(
                    fs::read(path.join("target").join(name)).unwrap(),
                    fs::read(path.join("store").join(name)).unwrap()
                );
                assert!(now(store.share(name, &target)).is_err(), "nothing is replaced");
                fs::remove_file(path.join("target").join(name)).unwrap();
            }
            sharing.shared.get()
        };
        let size = 3 * PAGE_BYTES as u64;
        assert_eq!(share(true, &["a", "b"]), Shared { linked: 2 * size, ..Shared::default() });
        assert_eq!(share(false, &["a", "b", "c"]), Shared { reused: size, copied: 2 * size, linked: 0 });
        assert!(now(store.share("a", &FolderFiles::new(&path.join("target")))).is_err());
        fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn a_folder_does_what_the_engine_asks() {
        let path = folder("asked");
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
            log.write_at(0, AlignedBuffer::zeroed(4096)).await.1.unwrap();
            let read = files.open("two", OpenMode::Read).await.unwrap();
            assert!(read.write_at(0, AlignedBuffer::zeroed(4096)).await.1.is_err(), "what is read is only read");
            assert_eq!(files.list().await.unwrap(), ["two"]);
            files.remove("two").await.unwrap();
        });
        fs::remove_dir_all(&path).unwrap();
    }
}
