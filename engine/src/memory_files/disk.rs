//! The disk's queue: operations are submitted, wait or not, fail or not, and are answered.
//!
//! Invariants: whether an operation fails is settled when it is submitted, so that the order of release does not change it; an
//! operation has its effect at release, all at once.

use std::{cell::RefCell, collections::BTreeMap, ops::Bound, rc::Rc, task::Waker};

use super::{
    FaultCounts, OperationKind, Pending, Ticket,
    faults::Faults,
    pages::Pages,
    storage::{InodeId, NameChange, Storage, VolatileWrite},
};
use crate::{
    memory_files::MemoryRandom,
    seams::{AlignedBuffer, FileError, OpenMode, Random},
};

pub(super) enum Operation {
    Open {
        name: String,
        mode: OpenMode,
    },
    List,
    Rename {
        from: String,
        to: String,
    },
    Remove {
        name: String,
    },
    SyncFolder {
        changes: u64,
    },
    Read {
        inode: InodeId,
        name: String,
        offset: u64,
        length: usize,
    },
    Write {
        inode: InodeId,
        name: String,
        log: bool,
        offset: u64,
        buffer: AlignedBuffer,
    },
    Sync {
        inode: InodeId,
        name: String,
        writes: u64,
    },
    /// Takes in another folder's file.
    Share {
        name: String,
        bytes: Pages,
    },
}

pub(super) enum Success {
    Opened(InodeId),
    Names(Vec<String>),
    Bytes(AlignedBuffer),
    Done,
}

pub(super) struct Answer {
    pub(super) result: Result<Success, FileError>,
    pub(super) buffer: Option<AlignedBuffer>,
}

struct Waiting {
    operation: Operation,
    fails: bool,
}

#[derive(Default)]
struct Slot {
    answer: Option<Answer>,
    waker: Option<Waker>,
}

pub(super) struct Disk {
    pub(super) storage: Storage,
    pub(super) faults: Faults,
    pub(super) counts: Rc<RefCell<FaultCounts>>,
    pub(super) queued: bool,
    pub(super) operations: [u64; OperationKind::ALL.len()],
    waiting: BTreeMap<Ticket, Waiting>,
    slots: BTreeMap<Ticket, Slot>,
    tickets: u64,
    survivor: Option<Storage>,
    /// Writes that were said to have failed and are still on their way.
    late: Vec<LateWrite>,
}

struct LateWrite {
    inode: InodeId,
    log: bool,
    offset: u64,
    bytes: Vec<u8>,
}

impl Disk {
    pub(super) fn new(seed: u64) -> Self {
        Self::over(Storage::default(), Faults::new(seed), Rc::default())
    }

    pub(super) fn submit(&mut self, operation: Operation) -> Ticket {
        let ticket = Ticket(self.tickets);
        self.tickets += 1;
        let kind = operation.kind();
        self.operations[kind as usize] += 1;
        self.slots.insert(ticket, Slot::default());
        if self.survivor.is_some() {
            self.answer(ticket, operation.dead());
            return ticket;
        }
        let fails = self.faults.submitted(kind);
        self.waiting.insert(ticket, Waiting { operation, fails });
        if !self.queued {
            self.release(ticket);
        }
        ticket
    }

    pub(super) fn pending(&self) -> Vec<Pending> {
        let pending = self.waiting.iter().map(|(ticket, waiting)| Pending {
            ticket: *ticket,
            kind: waiting.operation.kind(),
            name: waiting.operation.name().to_owned(),
        });
        pending.collect()
    }

    /// Those of the waiting operations that were submitted after another.
    pub(super) fn submitted_after(&self, seen: Option<Ticket>) -> impl Iterator<Item = (Ticket, OperationKind)> {
        let after = (seen.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        self.waiting.range(after).map(|(ticket, waiting)| (*ticket, waiting.operation.kind()))
    }

    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether there was such an operation, and who is to be woken.
    pub(super) fn release(&mut self, ticket: Ticket) -> (bool, Option<Waker>) {
        let Some(Waiting { operation, fails }) = self.waiting.remove(&ticket) else { return (false, None) };
        if !self.late.is_empty() && self.faults.random.below(4) == 0 {
            self.arrive_late();
        }
        let answer = if fails { self.fail(operation) } else { self.carry_out(operation) };
        (true, self.answer(ticket, answer))
    }

    pub(super) fn take_answer(&mut self, ticket: Ticket, waker: &Waker) -> Option<Answer> {
        let slot = self.slots.get_mut(&ticket)?;
        if slot.answer.is_none() {
            slot.waker = Some(waker.clone());
        }
        slot.answer.take()
    }

    /// Nobody waits any more. Gives the file that an answer has opened, to be closed.
    pub(super) fn abandon(&mut self, ticket: Ticket) -> Option<InodeId> {
        match self.slots.remove(&ticket)?.answer?.result {
            Ok(Success::Opened(inode)) => Some(inode),
            _ => None,
        }
    }

    pub(super) fn flip_bit(&mut self, name: &str, offset: u64, bit: u8) -> bool {
        let flipped = self.storage.flip_bit(name, offset, bit);
        self.counts.borrow_mut().bits_flipped += u64::from(flipped);
        flipped
    }

    pub(super) fn crash(&mut self, seed: u64) -> Vec<Waker> {
        let mut counts = self.counts.borrow_mut();
        counts.crashes += 1;
        counts.writes_late += self.late.len() as u64;
        let survivor = self.storage.after_crash(seed, self.writes_in_flight(), self.changes_in_flight(), &mut counts);
        drop(counts);
        self.survivor = Some(survivor);
        self.answer_all()
    }

    pub(super) fn kill(&mut self, seed: u64) -> Vec<Waker> {
        self.counts.borrow_mut().kills += 1;
        let random = MemoryRandom::new(seed);
        let tickets: Vec<Ticket> = self.waiting.keys().copied().collect();
        let mut wakers = Vec::new();
        for ticket in tickets {
            if random.below(2) == 0 {
                wakers.extend(self.release(ticket).1);
            }
        }
        while !self.late.is_empty() {
            self.arrive_late();
        }
        self.survivor = Some(self.storage.after_kill());
        wakers.extend(self.answer_all());
        wakers
    }

    pub(super) fn reopen(&self) -> Self {
        let storage = self.survivor.clone().expect("only after a crash or a kill");
        Self::over(storage, self.faults.without_plan(), Rc::clone(&self.counts))
    }

    pub(super) fn crash_image(&self, seed: u64) -> Self {
        // Counted apart: an image is not a fault of this disk.
        let mut counts = FaultCounts::default();
        let storage = self.storage.after_crash(seed, self.writes_in_flight(), self.changes_in_flight(), &mut counts);
        Self::over(storage, self.faults.without_plan(), Rc::new(RefCell::new(counts)))
    }

    fn over(storage: Storage, faults: Faults, counts: Rc<RefCell<FaultCounts>>) -> Self {
        Self {
            storage,
            faults,
            counts,
            queued: false,
            operations: [0; OperationKind::ALL.len()],
            waiting: BTreeMap::new(),
            slots: BTreeMap::new(),
            tickets: 0,
            survivor: None,
            late: Vec::new(),
        }
    }

    fn writes_in_flight(&self) -> Vec<(InodeId, VolatileWrite)> {
        let writes = self.waiting.values().filter_map(|waiting| match &waiting.operation {
            Operation::Write { inode, offset, buffer, .. } => Some((*inode, VolatileWrite::in_flight(*offset, buffer))),
            _ => None,
        });
        let late = self.late.iter().map(|write| (write.inode, VolatileWrite::in_flight(write.offset, &write.bytes)));
        writes.chain(late).collect()
    }

    /// The oldest of the late writes is there.
    fn arrive_late(&mut self) {
        let LateWrite { inode, log, offset, bytes } = self.late.remove(0);
        self.counts.borrow_mut().writes_late += 1;
        self.storage.write(inode, offset, &bytes, log);
    }

    fn changes_in_flight(&self) -> Vec<NameChange> {
        let changes = self.waiting.values().filter_map(|waiting| match &waiting.operation {
            Operation::Rename { from, to } => {
                let inode = self.storage.find(from)?;
                Some(NameChange::Rename { from: from.clone(), to: to.clone(), inode })
            }
            Operation::Remove { name } => {
                let inode = self.storage.find(name)?;
                Some(NameChange::Remove { name: name.clone(), inode })
            }
            _ => None,
        });
        changes.collect()
    }

    fn answer(&mut self, ticket: Ticket, answer: Answer) -> Option<Waker> {
        match self.slots.get_mut(&ticket) {
            Some(slot) => {
                slot.answer = Some(answer);
                slot.waker.take()
            }
            None => {
                if let Ok(Success::Opened(inode)) = answer.result {
                    self.storage.close(inode);
                }
                None
            }
        }
    }

    /// Answers everything that waits with an error: the disk is gone.
    fn answer_all(&mut self) -> Vec<Waker> {
        let waiting = std::mem::take(&mut self.waiting);
        waiting.into_iter().filter_map(|(ticket, waiting)| self.answer(ticket, waiting.operation.dead())).collect()
    }

    fn fail(&mut self, operation: Operation) -> Answer {
        let kind = operation.kind();
        self.counts.borrow_mut().errors[kind as usize] += 1;
        let random = self.faults.random.clone();
        match &operation {
            Operation::Write { inode, log, offset, buffer, .. } if self.faults.is_late() => {
                let (inode, log, offset, bytes) = (*inode, *log, *offset, buffer.to_vec());
                self.late.push(LateWrite { inode, log, offset, bytes });
            }
            Operation::Write { inode, log, offset, buffer, .. } => {
                self.storage.write_some(*inode, *offset, buffer, *log, &random);
            }
            Operation::Sync { inode, writes, .. } => {
                self.counts.borrow_mut().writes_doomed += self.storage.doom(*inode, *writes, &random);
            }
            // A change of names that failed may have happened all the same.
            Operation::Rename { .. } | Operation::Remove { .. } if random.next().is_multiple_of(2) => {
                let error = operation.error("injected I/O error");
                drop(self.carry_out(operation));
                return Answer { result: Err(error), buffer: None };
            }
            _ => {}
        }
        let error = operation.error("injected I/O error");
        Answer { result: Err(error), buffer: operation.into_buffer() }
    }

    fn carry_out(&mut self, operation: Operation) -> Answer {
        let result = match &operation {
            Operation::Open { name, mode } => self.open(name, *mode),
            Operation::List => Ok(Success::Names(self.storage.names())),
            Operation::Rename { from, to } => self.find(from).map(|inode| {
                self.storage.change(NameChange::Rename { from: from.clone(), to: to.clone(), inode });
                Success::Done
            }),
            Operation::Remove { name } => self.find(name).map(|inode| {
                self.storage.change(NameChange::Remove { name: name.clone(), inode });
                Success::Done
            }),
            Operation::SyncFolder { changes } => {
                self.storage.sync_folder(*changes);
                Ok(Success::Done)
            }
            Operation::Read { inode, offset, length, .. } => {
                let read = self.storage.read(*inode, *offset, *length);
                read.map(Success::Bytes).ok_or_else(|| {
                    self.counts.borrow_mut().errors[OperationKind::Read as usize] += 1;
                    operation.error("unreadable sector")
                })
            }
            Operation::Write { inode, name, log, offset, buffer } => {
                self.write(*inode, name, *log, *offset, buffer).map(|()| Success::Done)
            }
            Operation::Sync { inode, writes, .. } => {
                self.storage.sync(*inode, *writes);
                Ok(Success::Done)
            }
            Operation::Share { name, bytes } => self.share(name, bytes).map(|()| Success::Done),
        };
        Answer { result, buffer: operation.into_buffer() }
    }

    fn open(&mut self, name: &str, mode: OpenMode) -> Result<Success, FileError> {
        let inode = match (mode, self.storage.find(name)) {
            (OpenMode::Create, Some(_)) => {
                return Err(FileError::Io { name: name.to_owned(), text: "file exists".to_owned() });
            }
            (OpenMode::Create, None) => self.storage.create(name),
            (OpenMode::Read | OpenMode::Log, Some(inode)) => inode,
            (OpenMode::Read | OpenMode::Log, None) => return Err(FileError::NotFound { name: name.to_owned() }),
        };
        self.storage.open(inode);
        Ok(Success::Opened(inode))
    }

    /// As a link on a real disk: the bytes are durable, the name is not yet.
    fn share(&mut self, name: &str, bytes: &Pages) -> Result<(), FileError> {
        if self.storage.find(name).is_some() {
            return Err(FileError::Io { name: name.to_owned(), text: "file exists".to_owned() });
        }
        let capacity = self.faults.capacity_bytes.unwrap_or(u64::MAX);
        if self.storage.bytes().saturating_add(bytes.len() as u64) > capacity {
            self.counts.borrow_mut().full += 1;
            return Err(FileError::Full { name: name.to_owned() });
        }
        self.storage.create_durable(name, bytes.clone());
        Ok(())
    }

    fn find(&self, name: &str) -> Result<InodeId, FileError> {
        self.storage.find(name).ok_or_else(|| FileError::NotFound { name: name.to_owned() })
    }

    fn write(&mut self, inode: InodeId, name: &str, log: bool, offset: u64, bytes: &[u8]) -> Result<(), FileError> {
        let growth = (offset + bytes.len() as u64).saturating_sub(self.storage.size_bytes(inode));
        let capacity = self.faults.capacity_bytes.unwrap_or(u64::MAX);
        if growth > 0 && self.storage.bytes().saturating_add(growth) > capacity {
            self.counts.borrow_mut().full += 1;
            return Err(FileError::Full { name: name.to_owned() });
        }
        self.storage.write(inode, offset, bytes, log);
        Ok(())
    }
}

impl Operation {
    const fn kind(&self) -> OperationKind {
        match self {
            Self::Open { .. } => OperationKind::Open,
            Self::List => OperationKind::List,
            Self::Rename { .. } => OperationKind::Rename,
            Self::Remove { .. } => OperationKind::Remove,
            Self::SyncFolder { .. } => OperationKind::SyncFolder,
            Self::Read { .. } => OperationKind::Read,
            Self::Write { .. } => OperationKind::Write,
            Self::Sync { .. } => OperationKind::Sync,
            Self::Share { .. } => OperationKind::Share,
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::List | Self::SyncFolder { .. } => "",
            Self::Rename { from: name, .. }
            | Self::Open { name, .. }
            | Self::Remove { name }
            | Self::Read { name, .. }
            | Self::Write { name, .. }
            | Self::Sync { name, .. }
            | Self::Share { name, .. } => name,
        }
    }

    fn error(&self, text: &str) -> FileError {
        FileError::Io { name: self.name().to_owned(), text: text.to_owned() }
    }

    fn dead(self) -> Answer {
        Answer { result: Err(self.error("the machine is down")), buffer: self.into_buffer() }
    }

    fn into_buffer(self) -> Option<AlignedBuffer> {
        match self {
            Self::Write { buffer, .. } => Some(buffer),
            _ => None,
        }
    }
}
