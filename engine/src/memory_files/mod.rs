//! Twins of [`Files`], [`Clock`] and [`Random`] in memory, deterministic, with the faults of real disks. For tests and the
//! simulator: behind the feature `simulation`.
//!
//! The fault model. Data written through [`OpenMode::Create`] is volatile until `sync`; through [`OpenMode::Log`] it is durable when
//! the write completes, within the file's durable size. At a crash every write that is not yet durable, in flight ones included, is
//! kept, lost or torn at sectors of 512 bytes, each for itself, and overlapping ones in any order. Creations, renames and removals
//! are volatile until `sync_folder`; at a crash each is kept or lost whole, whatever becomes of the others. A failed write leaves
//! any mixture of old and new sectors. A failed sync makes some of what it covered never durable, even if a later sync succeeds
//! (as Linux does). No operation is retried.
//!
//! Must not do: use real time, threads or randomness that is not seeded.

mod clock;
mod disk;
mod executor;
mod faults;

use std::{cell::RefCell, rc::Rc};

pub use clock::{MemoryClock, MemoryRandom};
pub use executor::{block_on, block_on_releasing};
pub use faults::{FaultCounts, OperationKind};

use crate::seams::{AlignedBuffer, File, FileError, Files, OpenMode};

/// A folder in memory. Cloning gives another handle on the same folder.
#[derive(Clone)]
pub struct MemoryFiles {
    disk: Rc<RefCell<disk::Disk>>,
}

/// An open file of a [`MemoryFiles`].
pub struct MemoryFile {
    disk: Rc<RefCell<disk::Disk>>,
    handle: disk::Handle,
}

/// An operation's number: they count up from 0 in the order of submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// An operation that waits for [`MemoryFiles::release`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// Its number.
    pub ticket: Ticket,
    /// What it is.
    pub kind: OperationKind,
    /// The file it is about; empty for the folder.
    pub name: String,
}

impl MemoryFiles {
    /// An empty folder whose operations complete at once. `seed` decides what faults do.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        unimplemented!()
    }

    /// From now on, whether operations wait for [`MemoryFiles::release`] instead of completing at once.
    pub fn set_queued(&self, queued: bool) {
        unimplemented!()
    }

    /// The operations that wait, in the order of submission.
    #[must_use]
    pub fn pending(&self) -> Vec<Pending> {
        unimplemented!()
    }

    /// Carries out an operation that waits, and wakes who waits for it. `false` if there is none of that number.
    pub fn release(&self, ticket: Ticket) -> bool {
        unimplemented!()
    }

    /// From now on the `nth` operation of this kind, counted from 1, fails once.
    pub fn fail_nth(&self, kind: OperationKind, nth: u64) {
        unimplemented!()
    }

    /// From now on each operation of this kind fails with this probability.
    pub fn fail_randomly(&self, kind: OperationKind, per_million: u32) {
        unimplemented!()
    }

    /// Reads of these bytes of a file fail from now on, until they are written again.
    pub fn break_range(&self, name: &str, offset: u64, length: u64) {
        unimplemented!()
    }

    /// The sum of file sizes beyond which writes are refused; `None` for no bound.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        unimplemented!()
    }

    /// Flips one stored bit of a file.
    pub fn flip_bit(&self, name: &str, offset: u64, bit: u8) {
        unimplemented!()
    }

    /// The power fails: this folder's handles give errors from now on, operations that wait included. What survived is chosen by
    /// `seed`; see [`MemoryFiles::reopen`].
    pub fn crash(&self, seed: u64) {
        unimplemented!()
    }

    /// The process is killed, but the machine goes on: as a crash, but every completed operation survives.
    pub fn kill(&self, seed: u64) {
        unimplemented!()
    }

    /// What is on the disk after a crash or a kill, as a new folder: durable, without faults planned, its counts going on.
    ///
    /// # Panics
    /// If there was neither.
    #[must_use]
    pub fn reopen(&self) -> Self {
        unimplemented!()
    }

    /// What [`MemoryFiles::crash`] with this seed would leave, as a folder of its own; this one goes on.
    #[must_use]
    pub fn crash_image(&self, seed: u64) -> Self {
        unimplemented!()
    }

    /// Faults injected so far.
    #[must_use]
    pub fn counts(&self) -> FaultCounts {
        unimplemented!()
    }

    /// A file's bytes as readers see them now.
    #[must_use]
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        unimplemented!()
    }

    /// Puts a file there, durable at once; for tests that prepare a folder.
    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        unimplemented!()
    }

    /// All names, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        unimplemented!()
    }

    /// Operations submitted so far, by kind in the order of [`OperationKind::ALL`].
    #[must_use]
    pub fn operations(&self) -> [u64; OperationKind::ALL.len()] {
        unimplemented!()
    }
}

impl Files for MemoryFiles {
    type File = MemoryFile;

    async fn open(&self, _name: &str, _mode: OpenMode) -> Result<MemoryFile, FileError> {
        unimplemented!()
    }

    async fn list(&self) -> Result<Vec<String>, FileError> {
        unimplemented!()
    }

    async fn rename(&self, _from: &str, _to: &str) -> Result<(), FileError> {
        unimplemented!()
    }

    async fn remove(&self, _name: &str) -> Result<(), FileError> {
        unimplemented!()
    }

    async fn sync_folder(&self) -> Result<(), FileError> {
        unimplemented!()
    }
}

impl File for MemoryFile {
    async fn read_at(&self, _offset: u64, _length: usize) -> Result<AlignedBuffer, FileError> {
        unimplemented!()
    }

    async fn write_at(&self, _offset: u64, _buffer: AlignedBuffer) -> (AlignedBuffer, Result<(), FileError>) {
        unimplemented!()
    }

    async fn sync(&self) -> Result<(), FileError> {
        unimplemented!()
    }

    fn size_bytes(&self) -> u64 {
        unimplemented!()
    }
}
