//! What the engine needs from the world, as traits: files, a clock, randomness. The node implements them over io_uring and
//! glommio, the simulator over memory with faults.
//!
//! Everything is single-threaded: an engine, its files and its futures live on one shard. Nothing here blocks.

use std::{fmt, future::Future};

use antiphon_wire::ids::TimestampMs;

/// Unit of direct I/O: offsets, lengths and addresses are multiples of it.
pub const PAGE_BYTES: usize = 4096;

/// Bytes at a page-aligned address whose length is a multiple of [`PAGE_BYTES`], as direct I/O wants them.
///
/// Safe code throughout: the allocation is one page longer than needed and the window inside it starts at a page's edge.
pub struct AlignedBuffer {
    storage: Vec<u8>,
    start: usize,
    length: usize,
}

impl AlignedBuffer {
    /// `length` zero bytes, rounded up to whole pages.
    #[must_use]
    pub fn zeroed(length: usize) -> Self {
        let length = length.next_multiple_of(PAGE_BYTES);
        let storage = vec![0; length + PAGE_BYTES];
        let start = storage.as_ptr().align_offset(PAGE_BYTES);
        Self { storage, start, length }
    }

    /// Makes it `length` bytes long, rounded up to whole pages, without allocating; the bytes stay as they were. For buffers
    /// that are filled anew, and written as far as they are filled.
    ///
    /// # Panics
    /// If it was made shorter than that.
    pub fn resize(&mut self, length: usize) {
        let length = length.next_multiple_of(PAGE_BYTES);
        assert!(length + PAGE_BYTES <= self.storage.len(), "a buffer does not grow beyond what it was made for");
        self.length = length;
    }
}

impl std::ops::Deref for AlignedBuffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.storage[self.start..self.start + self.length]
    }
}

impl std::ops::DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.storage[self.start..self.start + self.length]
    }
}

impl fmt::Debug for AlignedBuffer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "AlignedBuffer({} bytes)", self.length)
    }
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// For reading only. The file exists.
    Read,
    /// A new file, read and write; it must not exist yet. Written data is durable after [`File::sync`].
    Create,
    /// An existing log file, read and write. A completed write is durable by itself (`O_DIRECT | O_DSYNC`), provided that it
    /// lies within the file's size, which was made durable before.
    Log,
}

/// Why a file operation failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// No file of that name.
    #[error("{name}: no such file")]
    NotFound {
        /// The file's name.
        name: String,
    },
    /// No room on the disk. What was there before is untouched.
    #[error("{name}: no space left on the disk")]
    Full {
        /// The file's name.
        name: String,
    },
    /// Anything else that the operating system says. The bytes concerned are in an unknown state.
    #[error("{name}: {text}")]
    Io {
        /// The file's name.
        name: String,
        /// The operating system's words.
        text: String,
    },
}

/// A flat folder of files, the engine's own. Names have no slash.
pub trait Files: Clone + 'static {
    /// An open file.
    type File: File;

    /// Opens or creates a file.
    fn open(&self, name: &str, mode: OpenMode) -> impl Future<Output = Result<Self::File, FileError>>;

    /// All names in the folder, in no particular order.
    fn list(&self) -> impl Future<Output = Result<Vec<String>, FileError>>;

    /// Renames, replacing what had the new name, atomically. Durable after [`Files::sync_folder`].
    fn rename(&self, from: &str, to: &str) -> impl Future<Output = Result<(), FileError>>;

    /// Removes a file. Durable after [`Files::sync_folder`].
    fn remove(&self, name: &str) -> impl Future<Output = Result<(), FileError>>;

    /// Makes creations, renames and removals durable.
    fn sync_folder(&self) -> impl Future<Output = Result<(), FileError>>;

    /// Puts a file that is durable and never changes into another folder too, under the same name: by a second name where the file system
    /// can, else by a copy that is durable itself. Nothing of that name may be there. Durable after `to`'s [`Files::sync_folder`]. Folders
    /// that are never checkpointed need not have it: they say so.
    fn share(&self, name: &str, _to: &Self) -> impl Future<Output = Result<(), FileError>> {
        let text = "files of this folder are not shared with another".to_owned();
        let refused = FileError::Io { name: name.to_owned(), text };
        async move { Err(refused) }
    }

    /// Runs a job that computes for long, with a handle on the same folder, where it keeps nobody else waiting; here, if there is no such
    /// place. Dropping the future ends the job wherever it waits. `None`: it was given up, and what it has begun is as after a crash.
    fn elsewhere<T: Send + 'static>(
        &self,
        _urgency: Urgency,
        job: impl AsyncFnOnce(Self) -> T + Send + 'static,
    ) -> impl Future<Output = Option<T>> {
        async move { Some(job(self.clone()).await) }
    }
}

/// What a job goes before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// All others: somebody may come to wait for it.
    Soon,
    /// Nothing.
    Whenever,
}

/// An open file. Offsets and lengths are multiples of [`PAGE_BYTES`]. Dropping it closes it. Dropping a future of an
/// operation leaves the operation running; its effect is then unknown.
pub trait File: 'static {
    /// Reads `length` bytes from `offset`; beyond the end the buffer holds zeros.
    fn read_at(&self, offset: u64, length: usize) -> impl Future<Output = Result<AlignedBuffer, FileError>>;

    /// Writes the whole buffer at `offset` and gives it back for reuse. The file grows as needed.
    fn write_at(
        &self,
        offset: u64,
        buffer: AlignedBuffer,
    ) -> impl Future<Output = (AlignedBuffer, Result<(), FileError>)>;

    /// Makes all completed writes, and the size, durable.
    fn sync(&self) -> impl Future<Output = Result<(), FileError>>;

    /// The file's size in bytes.
    fn size_bytes(&self) -> u64;
}

/// Wall-clock time. It may jump.
pub trait Clock: Clone + 'static {
    /// The time now.
    fn now(&self) -> TimestampMs;
}

/// Randomness for names that must not repeat (a store's identity); never for anything that a test must repeat.
pub trait Random: Clone + 'static {
    /// Sixty-four random bits.
    fn next(&self) -> u64;
}
