//! The engine's files: one flat folder, all of whose operations run on the net ring.
//!
//! Reads, writes, syncs, opens, renames and removals are ring operations, so that a shard has one place to sleep in and no byte is
//! copied on its way. glommio's `DmaFile` was the alternative for segments; it copies into buffers of its own, has the shard wait
//! in two rings while it is busy, and panics where `/sys` does not look as it expects (it takes minor number zero of a device's
//! major for the disk, which on NVMe may be anybody's partition). Only listing a folder, which has no ring operation, takes a
//! thread for a moment.
//!
//! Must not know what files hold.

use std::{
    ffi::CString,
    fs::File as StdFile,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    rc::Rc,
};

use antiphon_engine::seams::{AlignedBuffer, File, FileError, Files, OpenMode, PAGE_BYTES, Urgency};

use super::{
    lane::{Finished, Lane, OpenFile, Request},
    tasks::Spawner,
    worker::Desk,
};

/// A folder on this shard's ring.
#[derive(Clone)]
pub struct NodeFiles {
    inner: Rc<Folder>,
}

struct Folder {
    lane: Rc<Lane>,
    spawner: Spawner,
    path: PathBuf,
    descriptor: Rc<OpenFile>,
    /// Where long jobs are done.
    desk: Option<Desk>,
}

impl NodeFiles {
    /// Opens a folder that exists. Blocks for an `open`.
    pub(super) fn new(lane: Rc<Lane>, spawner: Spawner, path: &Path, desk: Option<Desk>) -> io::Result<Self> {
        let folder = StdFile::open(path)?;
        if !folder.metadata()?.is_dir() {
            return Err(io::Error::from_raw_os_error(libc::ENOTDIR));
        }
        let descriptor = OpenFile::new(OwnedFd::from(folder), 0, false);
        Ok(Self { inner: Rc::new(Folder { lane, spawner, path: path.to_owned(), descriptor, desk }) })
    }

    /// Runs a request on the folder until it is not interrupted. The error is the system's number.
    async fn run(&self, mut request: Request) -> Result<Finished, i32> {
        loop {
            let finished = self.inner.lane.start(&self.inner.descriptor, request).await;
            if finished.result >= 0 {
                return Ok(finished);
            }
            if !is_interruption(finished.result) {
                return Err(-finished.result);
            }
            request = finished.request;
        }
    }

    async fn open_with(&self, name: CString, flags: i32) -> Result<OwnedFd, i32> {
        let flags = flags | libc::O_CLOEXEC | libc::O_NOFOLLOW;
        let finished = self.run(Request::Open { name, flags }).await?;
        Ok(finished.opened.expect("a successful open yields a descriptor"))
    }

    /// Opens past the page cache where the file system can, and through it where it cannot: `O_DSYNC` holds in both.
    async fn open_direct(&self, name: CString, flags: i32) -> Result<OwnedFd, i32> {
        match self.open_with(name.clone(), flags | libc::O_DIRECT).await {
            Err(libc::EINVAL) => {
                if flags & libc::O_CREAT != 0 {
                    // It was created before it was refused.
                    let _ = self.run(Request::Remove { name: name.clone() }).await;
                }
                tracing::debug!(?name, "no direct I/O here; using the page cache");
                self.open_with(name, flags).await
            }
            result => result,
        }
    }
}

impl Files for NodeFiles {
    type File = NodeFile;

    async fn open(&self, name: &str, mode: OpenMode) -> Result<NodeFile, FileError> {
        let flags = match mode {
            OpenMode::Read => libc::O_RDONLY,
            OpenMode::Create => libc::O_RDWR | libc::O_CREAT | libc::O_EXCL,
            OpenMode::Log => libc::O_RDWR | libc::O_DSYNC,
        };
        #[cfg(feature = "planted")]
        let flags = super::planted::open_flags(flags);
        let opened = self.open_direct(path_name(name)?, flags).await.map_err(|number| error(name, number))?;
        let file = StdFile::from(opened);
        // A stat of an open file is answered from memory.
        let metadata = file.metadata().map_err(|source| error(name, source.raw_os_error().unwrap_or(libc::EIO)))?;
        let open = OpenFile::new(OwnedFd::from(file), metadata.len(), mode == OpenMode::Log);
        Ok(NodeFile { lane: Rc::clone(&self.inner.lane), open, name: name.into() })
    }

    async fn list(&self) -> Result<Vec<String>, FileError> {
        let path = self.inner.path.clone();
        let work = self.inner.spawner.blocking(move || {
            let mut names = Vec::new();
            for entry in std::fs::read_dir(path)? {
                // A name that is not UTF-8 is none of the engine's.
                if let Ok(name) = entry?.file_name().into_string() {
                    names.push(name);
                }
            }
            Ok::<_, io::Error>(names)
        });
        let result = work.await.unwrap_or_else(|| Err(io::Error::from_raw_os_error(libc::EAGAIN)));
        result.map_err(|source| error(&self.inner.path.to_string_lossy(), source.raw_os_error().unwrap_or(libc::EIO)))
    }

    async fn rename(&self, from: &str, to: &str) -> Result<(), FileError> {
        let request = Request::Rename { from: path_name(from)?, to: path_name(to)? };
        self.run(request).await.map(drop).map_err(|number| error(from, number))
    }

    async fn remove(&self, name: &str) -> Result<(), FileError> {
        let request = Request::Remove { name: path_name(name)? };
        self.run(request).await.map(drop).map_err(|number| error(name, number))
    }

    async fn sync_folder(&self) -> Result<(), FileError> {
        #[cfg(feature = "planted")]
        if super::planted::skips_syncs() {
            return Ok(());
        }
        let result = self.run(Request::SyncAll).await;
        result.map(drop).map_err(|number| error(&self.inner.path.to_string_lossy(), number))
    }

    async fn share(&self, name: &str, to: &Self) -> Result<(), FileError> {
        path_name(name)?;
        let (from, to) = (self.inner.path.join(name), to.inner.path.join(name));
        // Rare, and answered from memory: not worth an operation of the ring.
        let linked = self.inner.spawner.blocking(move || std::fs::hard_link(from, to)).await;
        let linked = linked.unwrap_or_else(|| Err(io::Error::from_raw_os_error(libc::EAGAIN)));
        linked.map_err(|source| error(name, source.raw_os_error().unwrap_or(libc::EIO)))
    }

    async fn elsewhere<T: Send + 'static>(
        &self,
        urgency: Urgency,
        job: impl AsyncFnOnce(Self) -> T + Send + 'static,
    ) -> Option<T> {
        match &self.inner.desk {
            Some(desk) => desk.run(urgency, self.inner.path.clone(), job).await,
            None => Some(job(self.clone()).await),
        }
    }
}

/// An open file on this shard's ring.
pub struct NodeFile {
    lane: Rc<Lane>,
    open: Rc<OpenFile>,
    name: Box<str>,
}

impl File for NodeFile {
    async fn read_at(&self, offset: u64, length: usize) -> Result<AlignedBuffer, FileError> {
        let mut buffer = AlignedBuffer::zeroed(length);
        let length = buffer.len();
        let mut done = 0;
        while done < length {
            let request = Request::Read { buffer, range: done..length, offset: offset + done as u64 };
            let Finished { result, request, .. } = self.lane.start(&self.open, request).await;
            let Request::Read { buffer: returned, .. } = request else {
                unreachable!("a request comes back as it went")
            };
            buffer = returned;
            match usize::try_from(result) {
                // The end, at or between pages. The kernel may have written whole blocks: what is beyond the end is zero for us.
                Ok(count) if count == 0 || count % PAGE_BYTES != 0 => {
                    buffer[done + count..].fill(0);
                    break;
                }
                Ok(count) => done += count,
                Err(_) if is_interruption(result) => {}
                Err(_) => return Err(error(&self.name, -result)),
            }
        }
        Ok(buffer)
    }

    async fn write_at(&self, offset: u64, mut buffer: AlignedBuffer) -> (AlignedBuffer, Result<(), FileError>) {
        let length = buffer.len();
        let mut done = 0;
        while done < length {
            let request = Request::Write { buffer, range: done..length, offset: offset + done as u64 };
            let Finished { result, request, .. } = self.lane.start(&self.open, request).await;
            let Request::Write { buffer: returned, .. } = request else {
                unreachable!("a request comes back as it went")
            };
            buffer = returned;
            match usize::try_from(result) {
                // A write that stops within a page goes on at the page's start, as direct I/O must.
                Ok(count) if count >= PAGE_BYTES => done += count - count % PAGE_BYTES,
                // Less than a page: the disk is full, or as good as full.
                Ok(_) => return (buffer, Err(error(&self.name, libc::ENOSPC))),
                Err(_) if is_interruption(result) => {}
                Err(_) => return (buffer, Err(error(&self.name, -result))),
            }
        }
        (buffer, Ok(()))
    }

    async fn sync(&self) -> Result<(), FileError> {
        #[cfg(feature = "planted")]
        if super::planted::skips_syncs() {
            return Ok(());
        }
        loop {
            let result = self.lane.start(&self.open, Request::SyncData).await.result;
            if result >= 0 {
                return Ok(());
            }
            if !is_interruption(result) {
                return Err(error(&self.name, -result));
            }
        }
    }

    fn size_bytes(&self) -> u64 {
        self.open.size_bytes()
    }
}

fn is_interruption(result: i32) -> bool {
    result == -libc::EINTR || result == -libc::EAGAIN
}

/// A name as the kernel wants it, and as [`Files`] promises: one component of a path.
fn path_name(name: &str) -> Result<CString, FileError> {
    match CString::new(name) {
        Ok(path) if !name.is_empty() && !name.contains('/') && name != "." && name != ".." => Ok(path),
        _ => Err(error(name, libc::EINVAL)),
    }
}

fn error(name: &str, number: i32) -> FileError {
    let name = name.to_owned();
    match number {
        libc::ENOENT => FileError::NotFound { name },
        libc::ENOSPC | libc::EDQUOT => FileError::Full { name },
        _ => FileError::Io { name, text: io::Error::from_raw_os_error(number).to_string() },
    }
}
