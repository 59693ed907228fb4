//! Twins of [`Files`], [`Clock`](crate::seams::Clock) and [`Random`](crate::seams::Random) in memory, deterministic, with the faults
//! of real disks. For tests and the simulator: behind the feature `simulation`.
//!
//! The fault model. Data written through [`OpenMode::Create`] is volatile until `sync`, which covers the writes that had completed
//! when it was asked for; through [`OpenMode::Log`] it is durable when the write completes, within the file's durable size. At a
//! crash every write that is not yet durable, in flight ones included, is kept, lost or torn at sectors of 512 bytes, each for
//! itself, and overlapping ones in any order. Creations, renames and removals are volatile until `sync_folder`; at a crash each is
//! kept or lost whole, whatever becomes of the others. A failed write leaves any mixture of old and new sectors, or, if
//! [`MemoryFiles::fail_writes_late`] says so, reaches the disk later, at the end of the process at the latest. A failed sync makes
//! some of what it covered never durable, even if a later sync succeeds (as Linux does).
//!
//! What destroys stored bytes is done from outside: [`MemoryFiles::flip_bit`], [`MemoryFiles::break_range`], and
//! [`MemoryFiles::overwrite`] for a write that went to a wrong place.
//!
//! Operations complete at once, or, in queued mode, when [`MemoryFiles::release`] lets them, in any order; one whose future was
//! dropped happens all the same.
//!
//! Must not do: use real time, threads or randomness that is not seeded.

mod clock;
mod disk;
mod executor;
mod faults;
mod pages;
mod storage;

use std::{
    cell::RefCell,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

pub use clock::{MemoryClock, MemoryRandom};
pub use executor::{block_on, block_on_releasing};
pub use faults::{FaultCounts, OperationKind};

use crate::seams::{AlignedBuffer, File, FileError, Files, OpenMode, PAGE_BYTES};
use disk::{Answer, Disk, Operation, Success};
use storage::InodeId;

/// A folder in memory. Cloning gives another handle on the same folder.
#[derive(Clone)]
pub struct MemoryFiles {
    disk: Rc<RefCell<Disk>>,
}

/// An open file of a [`MemoryFiles`].
pub struct MemoryFile {
    disk: Rc<RefCell<Disk>>,
    inode: InodeId,
    name: String,
    mode: OpenMode,
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
        Self::over(Disk::new(seed))
    }

    /// From now on, whether operations wait for [`MemoryFiles::release`] instead of completing at once.
    pub fn set_queued(&self, queued: bool) {
        self.disk.borrow_mut().queued = queued;
    }

    /// The operations that wait, in the order of submission.
    #[must_use]
    pub fn pending(&self) -> Vec<Pending> {
        self.disk.borrow().pending()
    }

    /// The operations that wait and were submitted after another, in order: [`MemoryFiles::pending`] for who asks often.
    #[must_use]
    pub fn submitted_after(&self, seen: Option<Ticket>) -> Vec<(Ticket, OperationKind)> {
        self.disk.borrow().submitted_after(seen).collect()
    }

    /// Whether no operation waits.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.disk.borrow().is_idle()
    }

    /// Carries out an operation that waits, and wakes who waits for it. `false` if there is none of that number.
    pub fn release(&self, ticket: Ticket) -> bool {
        let (found, waker) = self.disk.borrow_mut().release(ticket);
        // Woken outside of the borrow: a waker may run anything.
        if let Some(waker) = waker {
            waker.wake();
        }
        found
    }

    /// From now on the `nth` operation of this kind, counted from 1 as they are submitted, fails once.
    pub fn fail_nth(&self, kind: OperationKind, nth: u64) {
        self.disk.borrow_mut().faults.fail_nth(kind, nth);
    }

    /// From now on each operation of this kind fails with this probability.
    pub fn fail_randomly(&self, kind: OperationKind, per_million: u32) {
        self.disk.borrow_mut().faults.fail_randomly(kind, per_million);
    }

    /// From now on so many of the writes that fail reach the disk later: after some other operation, when the process is killed, or
    /// perhaps when the power fails.
    pub fn fail_writes_late(&self, per_million: u32) {
        self.disk.borrow_mut().faults.late_per_million = per_million;
    }

    /// Puts other bytes over a file's, durably at once and without making it longer: what a write that went to a wrong place does.
    /// `false` if there is no such file.
    pub fn overwrite(&self, name: &str, offset: u64, bytes: &[u8]) -> bool {
        self.disk.borrow_mut().storage.overwrite(name, offset, bytes)
    }

    /// Reads of these bytes of a file fail from now on, until all of them are written again. `false` if there is no such file.
    pub fn break_range(&self, name: &str, offset: u64, length: u64) -> bool {
        self.disk.borrow_mut().storage.break_range(name, offset, length)
    }

    /// The sum of file sizes beyond which writes are refused; `None` for no bound.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.disk.borrow_mut().faults.capacity_bytes = bytes;
    }

    /// Flips one stored bit of a file. `false` if there is no such byte.
    pub fn flip_bit(&self, name: &str, offset: u64, bit: u8) -> bool {
        self.disk.borrow_mut().flip_bit(name, offset, bit)
    }

    /// The power fails: this folder's handles give errors from now on, operations that wait included. What survived is chosen by
    /// `seed`; see [`MemoryFiles::reopen`].
    pub fn crash(&self, seed: u64) {
        let wakers = self.disk.borrow_mut().crash(seed);
        wakers.into_iter().for_each(std::task::Waker::wake);
    }

    /// The process is killed, but the machine goes on: as a crash, but whatever was completed is there, volatile where it was.
    /// An operation in flight happens or not.
    pub fn kill(&self, seed: u64) {
        let wakers = self.disk.borrow_mut().kill(seed);
        wakers.into_iter().for_each(std::task::Waker::wake);
    }

    /// What is there after a crash or a kill, as a new folder: its operations complete at once, no faults are planned, the capacity
    /// stands, and the counts go on.
    ///
    /// # Panics
    /// If there was neither.
    #[must_use]
    pub fn reopen(&self) -> Self {
        Self::over(self.disk.borrow().reopen())
    }

    /// What [`MemoryFiles::crash`] with this seed would leave, as a folder of its own; this one goes on.
    #[must_use]
    pub fn crash_image(&self, seed: u64) -> Self {
        Self::over(self.disk.borrow().crash_image(seed))
    }

    /// Faults injected so far.
    #[must_use]
    pub fn counts(&self) -> FaultCounts {
        *self.disk.borrow().counts.borrow()
    }

    /// A file's bytes as readers see them now.
    #[must_use]
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        self.disk.borrow().storage.contents(name).map(pages::Pages::to_vec)
    }

    /// Some of a file's bytes as readers see them now, zeros beyond its end.
    #[must_use]
    pub fn peek(&self, name: &str, offset: u64, length: usize) -> Option<Vec<u8>> {
        self.disk.borrow().storage.peek(name, offset, length)
    }

    /// A file's size, by name.
    #[must_use]
    pub fn size_of(&self, name: &str) -> Option<u64> {
        let disk = self.disk.borrow();
        disk.storage.find(name).map(|inode| disk.storage.size_bytes(inode))
    }

    /// Puts a file there, durable at once; for tests that prepare a folder.
    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        self.disk.borrow_mut().storage.put(name, &bytes);
    }

    /// Takes a file away, durably at once; for tests that prepare a folder.
    pub fn take_away(&self, name: &str) {
        self.disk.borrow_mut().storage.take_away(name);
    }

    /// All names, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.disk.borrow().storage.names()
    }

    /// Operations submitted so far, in the order of [`OperationKind::ALL`].
    #[must_use]
    pub fn operations(&self) -> [u64; OperationKind::ALL.len()] {
        self.disk.borrow().operations
    }

    fn over(disk: Disk) -> Self {
        Self { disk: Rc::new(RefCell::new(disk)) }
    }

    async fn run(&self, operation: Operation) -> Result<Success, FileError> {
        run(&self.disk, operation).await.result
    }
}

impl Files for MemoryFiles {
    type File = MemoryFile;

    async fn open(&self, name: &str, mode: OpenMode) -> Result<MemoryFile, FileError> {
        match self.run(Operation::Open { name: name.to_owned(), mode }).await? {
            Success::Opened(inode) => {
                Ok(MemoryFile { disk: Rc::clone(&self.disk), inode, name: name.to_owned(), mode })
            }
            _ => unreachable!("an open gives a file"),
        }
    }

    async fn list(&self) -> Result<Vec<String>, FileError> {
        match self.run(Operation::List).await? {
            Success::Names(names) => Ok(names),
            _ => unreachable!("a listing gives names"),
        }
    }

    async fn rename(&self, from: &str, to: &str) -> Result<(), FileError> {
        self.run(Operation::Rename { from: from.to_owned(), to: to.to_owned() }).await.map(drop)
    }

    async fn remove(&self, name: &str) -> Result<(), FileError> {
        self.run(Operation::Remove { name: name.to_owned() }).await.map(drop)
    }

    async fn share(&self, name: &str, to: &Self) -> Result<(), FileError> {
        let missing = FileError::NotFound { name: name.to_owned() };
        // Whoever shares what was not synced shares what a crash may leave of it.
        let bytes = self.disk.borrow().storage.durable_contents(name).cloned().ok_or(missing)?;
        to.run(Operation::Share { name: name.to_owned(), bytes }).await.map(drop)
    }

    async fn sync_folder(&self) -> Result<(), FileError> {
        let changes = self.disk.borrow().storage.change_count();
        self.run(Operation::SyncFolder { changes }).await.map(drop)
    }
}

impl File for MemoryFile {
    async fn read_at(&self, offset: u64, length: usize) -> Result<AlignedBuffer, FileError> {
        assert_aligned(offset, length);
        let operation = Operation::Read { inode: self.inode, name: self.name.clone(), offset, length };
        match run(&self.disk, operation).await.result? {
            Success::Bytes(buffer) => Ok(buffer),
            _ => unreachable!("a read gives bytes"),
        }
    }

    async fn write_at(&self, offset: u64, buffer: AlignedBuffer) -> (AlignedBuffer, Result<(), FileError>) {
        assert_aligned(offset, buffer.len());
        assert!(self.mode != OpenMode::Read, "{}: opened for reading", self.name);
        let log = self.mode == OpenMode::Log;
        let operation = Operation::Write { inode: self.inode, name: self.name.clone(), log, offset, buffer };
        let answer = run(&self.disk, operation).await;
        (answer.buffer.unwrap_or_else(|| AlignedBuffer::zeroed(0)), answer.result.map(drop))
    }

    async fn sync(&self) -> Result<(), FileError> {
        let writes = self.disk.borrow().storage.write_count();
        let operation = Operation::Sync { inode: self.inode, name: self.name.clone(), writes };
        run(&self.disk, operation).await.result.map(drop)
    }

    fn size_bytes(&self) -> u64 {
        self.disk.borrow().storage.size_bytes(self.inode)
    }
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        self.disk.borrow_mut().storage.close(self.inode);
    }
}

/// Direct I/O would refuse these, so a caller that passes them is wrong.
fn assert_aligned(offset: u64, length: usize) {
    assert!(offset.is_multiple_of(PAGE_BYTES as u64), "offset {offset} is not at a page");
    assert!(length.is_multiple_of(PAGE_BYTES), "length {length} is not whole pages");
}

async fn run(disk: &Rc<RefCell<Disk>>, operation: Operation) -> Answer {
    let ticket = disk.borrow_mut().submit(operation);
    Wait { disk: Rc::clone(disk), ticket }.await
}

/// Waits for an operation's answer. Dropped early, the operation goes on and its answer is thrown away.
struct Wait {
    disk: Rc<RefCell<Disk>>,
    ticket: Ticket,
}

impl Future for Wait {
    type Output = Answer;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answer> {
        match self.disk.borrow_mut().take_answer(self.ticket, context.waker()) {
            Some(answer) => Poll::Ready(answer),
            None => Poll::Pending,
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let opened = self.disk.borrow_mut().abandon(self.ticket);
        if let Some(inode) = opened {
            self.disk.borrow_mut().storage.close(inode);
        }
    }
}

#[cfg(test)]
mod tests;
