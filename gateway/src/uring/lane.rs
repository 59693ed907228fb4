//! File operations on the net ring: above all the log's writes, one on every commit.
//!
//! Owns what operations point to (buffers, names, the open file) from submission to completion, whether or not anybody still
//! waits: dropping an [`Operation`] leaves it running. Must not know what is written.

use std::{
    cell::{Cell, RefCell},
    ffi::CString,
    future::Future,
    ops::Range,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use antiphon_engine::seams::AlignedBuffer;
use io_uring::{opcode, squeue, types};

use super::{
    counters::ShardCounters,
    ring::{Completion, Ring},
    token::{Kind, Token},
};

/// The kernel transfers at most 2 GiB less a page at once; half of that keeps lengths in 32 bits and at page's edges.
const TRANSFER_MAX: usize = 1 << 30;

/// An open file or folder.
pub(super) struct OpenFile {
    descriptor: OwnedFd,
    size_bytes: Cell<u64>,
    is_log: bool,
}

impl OpenFile {
    pub(super) fn new(descriptor: OwnedFd, size_bytes: u64, is_log: bool) -> Rc<Self> {
        Rc::new(Self { descriptor, size_bytes: Cell::new(size_bytes), is_log })
    }

    pub(super) fn size_bytes(&self) -> u64 {
        self.size_bytes.get()
    }

    fn fd(&self) -> types::Fd {
        types::Fd(self.descriptor.as_raw_fd())
    }
}

/// What is asked of a file, with all the memory that it takes. Comes back with the result.
pub(super) enum Request {
    /// Reads into a range of the buffer.
    Read { buffer: AlignedBuffer, range: Range<usize>, offset: u64 },
    /// Writes a range of the buffer.
    Write { buffer: AlignedBuffer, range: Range<usize>, offset: u64 },
    /// Makes data and size durable (`fdatasync`).
    SyncData,
    /// Makes everything durable (`fsync`); the one that counts for a folder.
    SyncAll,
    /// Opens a name in the folder; the result is a descriptor.
    Open { name: CString, flags: i32 },
    /// Renames within the folder.
    Rename { from: CString, to: CString },
    /// Removes a name from the folder.
    Remove { name: CString },
}

/// Permissions of new files: chats are nobody else's business.
const MODE: libc::mode_t = 0o600;

impl Request {
    /// The operation. Its pointers are true as long as `self` is neither changed nor dropped; moving it does not matter, since
    /// buffers and names are on the heap.
    fn entry(&mut self, file: &OpenFile) -> squeue::Entry {
        match self {
            Self::Read { buffer, range, offset } => {
                let bytes = &mut buffer[range.clone()];
                let length = bytes.len().min(TRANSFER_MAX) as u32;
                opcode::Read::new(file.fd(), bytes.as_mut_ptr(), length).offset(*offset).build()
            }
            Self::Write { buffer, range, offset } => {
                let bytes = &buffer[range.clone()];
                let length = bytes.len().min(TRANSFER_MAX) as u32;
                opcode::Write::new(file.fd(), bytes.as_ptr(), length).offset(*offset).build()
            }
            Self::SyncData => opcode::Fsync::new(file.fd()).flags(types::FsyncFlags::DATASYNC).build(),
            Self::SyncAll => opcode::Fsync::new(file.fd()).build(),
            Self::Open { name, flags } => {
                opcode::OpenAt::new(file.fd(), name.as_ptr()).flags(*flags).mode(MODE).build()
            }
            Self::Rename { from, to } => {
                opcode::RenameAt::new(file.fd(), from.as_ptr(), file.fd(), to.as_ptr()).build()
            }
            Self::Remove { name } => opcode::UnlinkAt::new(file.fd(), name.as_ptr()).build(),
        }
    }
}

enum State {
    Free,
    Running { waker: Option<Waker>, abandoned: bool },
    Done(i32),
}

struct Entry {
    generation: u32,
    state: State,
    work: Option<(Rc<OpenFile>, Request)>,
}

/// The file operations of a shard. Bounded by what its tasks do at a time: each task waits for its operation.
pub(super) struct Lane {
    ring: Rc<RefCell<Ring>>,
    entries: RefCell<Vec<Entry>>,
    free: RefCell<Vec<u32>>,
    running: Cell<usize>,
    counters: Arc<ShardCounters>,
}

impl Lane {
    pub(super) fn new(ring: Rc<RefCell<Ring>>, counters: Arc<ShardCounters>) -> Rc<Self> {
        Rc::new(Self { ring, entries: RefCell::default(), free: RefCell::default(), running: Cell::new(0), counters })
    }

    /// Submits a request. The result is what the kernel says, with the request.
    pub(super) fn start(self: &Rc<Self>, file: &Rc<OpenFile>, mut request: Request) -> Operation {
        if file.is_log && matches!(request, Request::Write { .. }) {
            self.counters.log_writes.add(1);
        }
        let entry = request.entry(file);
        let index = self.insert(Rc::clone(file), request);
        let generation = self.entries.borrow()[index as usize].generation;
        let token = Token::new(Kind::File, index, generation);
        // SAFETY: the entry points to heap memory of the request, which the slab now owns, unchanged, until `complete` has seen
        // the one completion; so does the open descriptor. Nobody else has a reference to either.
        unsafe { self.ring.borrow_mut().push(entry.user_data(token.pack())) };
        Operation { lane: Rc::clone(self), index }
    }

    /// Takes a completion; wakes the task that waits for it.
    pub(super) fn complete(&self, completion: Completion) {
        self.set_running(self.running.get() - 1);
        let waker = {
            let mut entries = self.entries.borrow_mut();
            let entry = &mut entries[completion.token.index as usize];
            assert!(completion.token.is_of(entry.generation), "an entry is freed after its completion");
            let State::Running { waker, abandoned } =
                std::mem::replace(&mut entry.state, State::Done(completion.result))
            else {
                panic!("a file operation completes once");
            };
            if let Some((file, Request::Write { offset, .. })) = &entry.work
                && completion.result > 0
            {
                let end = offset + completion.result as u64;
                file.size_bytes.set(file.size_bytes.get().max(end));
            }
            if abandoned {
                drop(entries);
                drop(self.take(completion.token.index));
            }
            waker
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// How many are with the kernel.
    pub(super) fn running(&self) -> usize {
        self.running.get()
    }

    fn insert(&self, file: Rc<OpenFile>, request: Request) -> u32 {
        self.set_running(self.running.get() + 1);
        let mut entries = self.entries.borrow_mut();
        let index = self.free.borrow_mut().pop().unwrap_or_else(|| {
            entries.push(Entry { generation: 0, state: State::Free, work: None });
            entries.len() as u32 - 1
        });
        let entry = &mut entries[index as usize];
        entry.generation = entry.generation.wrapping_add(1);
        entry.state = State::Running { waker: None, abandoned: false };
        entry.work = Some((file, request));
        index
    }

    /// Takes a finished entry out.
    fn take(&self, index: u32) -> Finished {
        let mut entries = self.entries.borrow_mut();
        let entry = &mut entries[index as usize];
        let State::Done(result) = std::mem::replace(&mut entry.state, State::Free) else {
            panic!("only a finished operation is taken out");
        };
        let (file, request) = entry.work.take().expect("a finished operation has its request");
        self.free.borrow_mut().push(index);
        drop(entries);
        // An opened file that nobody takes is closed again.
        let opened = match request {
            // SAFETY: the kernel just made this descriptor for us, and nobody else knows it.
            Request::Open { .. } if result >= 0 => Some(unsafe { OwnedFd::from_raw_fd(result) }),
            _ => None,
        };
        Finished { result, request, opened, _file: file }
    }

    fn set_running(&self, running: usize) {
        self.running.set(running);
        self.counters.file_operations.set(running as u64);
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        if self.running.get() > 0 {
            // The kernel may still use the memory: better lost than overwritten.
            std::mem::forget(std::mem::take(&mut *self.entries.borrow_mut()));
        }
    }
}

/// What became of a request.
pub(super) struct Finished {
    /// The kernel's result, or an error number below zero.
    pub(super) result: i32,
    pub(super) request: Request,
    /// The descriptor, if the request was to open one and did.
    pub(super) opened: Option<OwnedFd>,
    /// Released last: the file may be closed by it.
    _file: Rc<OpenFile>,
}

/// A file operation that is running. Dropping it leaves the operation running.
pub(super) struct Operation {
    lane: Rc<Lane>,
    index: u32,
}

/// The index of an operation whose result was taken.
const TAKEN: u32 = u32::MAX;

impl Future for Operation {
    type Output = Finished;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Finished> {
        assert!(self.index != TAKEN, "a future is not polled after it was ready");
        {
            let mut entries = self.lane.entries.borrow_mut();
            if let State::Running { waker, .. } = &mut entries[self.index as usize].state {
                match waker {
                    Some(waker) => waker.clone_from(context.waker()),
                    None => *waker = Some(context.waker().clone()),
                }
                return Poll::Pending;
            }
        }
        let finished = self.lane.take(self.index);
        self.index = TAKEN;
        Poll::Ready(finished)
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        if self.index == TAKEN {
            return;
        }
        let done = {
            let mut entries = self.lane.entries.borrow_mut();
            match &mut entries[self.index as usize].state {
                State::Running { waker, abandoned } => {
                    *waker = None;
                    *abandoned = true;
                    false
                }
                State::Done(_) => true,
                State::Free => unreachable!("an entry lives as long as its operation"),
            }
        };
        if done {
            drop(self.lane.take(self.index));
        }
    }
}
