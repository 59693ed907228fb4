//! A lane's disk: [`MemoryFiles`] whose operations complete when the world says so, with the faults of the plan.
//!
//! [`SimFiles`] stands between engine and disk to see where the log was written, and to tell the planted lie that a log write is durable.

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    future::Future,
    pin::pin,
    rc::Rc,
    task::Poll,
};

use antiphon_engine::{
    memory_files::{MemoryFile, MemoryFiles, OperationKind, Ticket},
    seams::{AlignedBuffer, File, FileError, Files, OpenMode},
};

use crate::{
    coverage::{Count, Coverage},
    dice::Dice,
    plan::{Fault, Plan},
};

/// One lane's folder, over all crashes.
pub struct LaneDisk {
    files: SimFiles,
    /// Operations up to here have been given their time of completion.
    seen: Option<Ticket>,
    capacity_bytes: Option<u64>,
}

/// Which bytes of the log hold what: completed writes by file, in their order, and the newest two of all.
#[derive(Default)]
struct LogWrites {
    files: BTreeMap<String, Vec<(u64, usize)>>,
    newest: VecDeque<(String, u64)>,
}

/// The files that an engine is given.
#[derive(Clone)]
pub struct SimFiles {
    inner: MemoryFiles,
    log_writes: Rc<RefCell<LogWrites>>,
    lies: bool,
}

/// An open file of [`SimFiles`].
pub struct SimFile {
    inner: MemoryFile,
    name: String,
    log: bool,
    files: SimFiles,
}

impl LaneDisk {
    /// An empty folder. `lies`: it says that log writes are durable as soon as they are submitted.
    #[must_use]
    pub fn new(seed: u64, lies: bool) -> Self {
        let inner = MemoryFiles::new(seed);
        inner.set_queued(true);
        Self { files: SimFiles { inner, log_writes: Rc::default(), lies }, seen: None, capacity_bytes: None }
    }

    /// For an engine.
    #[must_use]
    pub fn files(&self) -> SimFiles {
        self.files.clone()
    }

    /// Operations that were submitted since this was last called.
    pub fn submitted(&mut self) -> Vec<(Ticket, OperationKind)> {
        let pending = self.files.inner.pending();
        let fresh: Vec<_> = pending
            .into_iter()
            .filter(|pending| self.seen.is_none_or(|seen| pending.ticket > seen))
            .map(|pending| (pending.ticket, pending.kind))
            .collect();
        if let Some((last, _)) = fresh.last() {
            self.seen = Some(*last);
        }
        fresh
    }

    /// Lets an operation complete.
    pub fn release(&self, ticket: Ticket) {
        self.files.inner.release(ticket);
    }

    /// The power fails, or only the process is killed; what is left is there for the next start.
    pub fn crash(&mut self, power: bool, seed: u64) {
        if power {
            self.files.inner.crash(seed);
        } else {
            self.files.inner.kill(seed);
        }
        let inner = self.files.inner.reopen();
        inner.set_queued(true);
        inner.set_capacity(self.capacity_bytes);
        self.files = SimFiles { inner, log_writes: Rc::clone(&self.files.log_writes), lies: self.files.lies };
        self.seen = None;
    }

    /// There is room for so much more, or without an end.
    pub fn set_room(&mut self, bytes: Option<u64>) {
        let used: usize = self
            .files
            .inner
            .names()
            .iter()
            .filter_map(|name| self.files.inner.contents(name))
            .map(|file| file.len())
            .sum();
        self.capacity_bytes = bytes.map(|room| used as u64 + room);
        self.files.inner.set_capacity(self.capacity_bytes);
    }

    /// From now on operations fail with these chances, in a million, by kind.
    pub fn set_errors(&self, fault: Fault, per_million: u32) {
        for kind in OperationKind::ALL {
            let concerned = match fault {
                Fault::ReadError => kind == OperationKind::Read,
                Fault::WriteError => kind == OperationKind::Write,
                Fault::SyncError => matches!(kind, OperationKind::Sync | OperationKind::SyncFolder),
                _ => matches!(
                    kind,
                    OperationKind::Open | OperationKind::List | OperationKind::Rename | OperationKind::Remove
                ),
            };
            if concerned {
                self.files.inner.fail_randomly(kind, per_million);
            }
        }
    }

    /// Rot: whether there was anything to destroy, and what it was.
    pub fn destroy(&self, fault: Fault, dice: &Dice) -> Option<String> {
        let names = self.files.inner.names();
        let is_log = |name: &String| name.contains("log");
        let is_segment = |name: &String| name.contains("seg");
        let wanted: Vec<&String> = match fault {
            Fault::FlipLog => names.iter().filter(|name| is_log(name)).collect(),
            Fault::FlipSegment | Fault::BreakRange => names.iter().filter(|name| is_segment(name)).collect(),
            _ => names.iter().filter(|name| !is_log(name) && !is_segment(name)).collect(),
        };
        if wanted.is_empty() {
            return None;
        }
        let name = wanted[dice.index(wanted.len())];
        let length = self.files.inner.contents(name)?.len() as u64;
        let offset = match fault {
            // Rot of the last batch, with the one after it torn or not begun, can't be told from a write that was torn.
            Fault::FlipLog => {
                let writes = self.files.log_writes.borrow();
                let is_newest = |offset| writes.newest.iter().any(|(file, at)| (file, *at) == (name, offset));
                let earlier: Vec<_> =
                    writes.files.get(name)?.iter().filter(|(offset, _)| !is_newest(*offset)).collect();
                let (offset, bytes) = **earlier.get(dice.index(earlier.len().max(1)))?;
                offset + dice.below(bytes as u64)
            }
            _ => dice.below(length),
        };
        let done = match fault {
            Fault::BreakRange => self.files.inner.break_range(name, offset / 512 * 512, 512),
            _ => self.files.inner.flip_bit(name, offset, dice.below(8) as u8),
        };
        done.then(|| format!("{name} at {offset}"))
    }

    /// Adds this disk's faults to the report.
    pub fn report(&self, coverage: &mut Coverage) {
        let counts = self.files.inner.counts();
        let errors = |kind: OperationKind| counts.errors[kind as usize];
        let names = [OperationKind::Open, OperationKind::List, OperationKind::Rename, OperationKind::Remove];
        coverage.add(Count::WritesLost, counts.writes_lost);
        coverage.add(Count::WritesTorn, counts.writes_torn);
        coverage.add(Count::WritesKept, counts.writes_kept);
        coverage.add(Count::NamesLost, counts.names_lost);
        coverage.add(Count::ReadErrors, errors(OperationKind::Read));
        coverage.add(Count::WriteErrors, errors(OperationKind::Write));
        coverage.add(Count::SyncErrors, errors(OperationKind::Sync) + errors(OperationKind::SyncFolder));
        coverage.add(Count::NameErrors, names.into_iter().map(errors).sum());
        coverage.add(Count::WritesDoomed, counts.writes_doomed);
        coverage.add(Count::Full, counts.full);
    }
}

/// How long an operation takes.
#[must_use]
pub fn duration_us(plan: &Plan, kind: OperationKind, dice: &Dice) -> u64 {
    match kind {
        OperationKind::Sync | OperationKind::SyncFolder => dice.delay_us(2 * plan.disk_us_max),
        _ => dice.delay_us(plan.disk_us_max),
    }
}

impl SimFiles {
    fn wrote(&self, name: &str, offset: u64, length: usize) {
        let mut writes = self.log_writes.borrow_mut();
        writes.newest.push_back((name.to_owned(), offset));
        if writes.newest.len() > 2 {
            writes.newest.pop_front();
        }
        let of_file = writes.files.entry(name.to_owned()).or_default();
        // A write over an earlier one takes its place: a file that is used again begins anew.
        of_file
            .retain(|(other, other_length)| other + *other_length as u64 <= offset || *other >= offset + length as u64);
        of_file.push((offset, length));
    }
}

impl Files for SimFiles {
    type File = SimFile;

    async fn open(&self, name: &str, mode: OpenMode) -> Result<SimFile, FileError> {
        let inner = self.inner.open(name, mode).await?;
        Ok(SimFile { inner, name: name.to_owned(), log: mode == OpenMode::Log, files: self.clone() })
    }

    async fn list(&self) -> Result<Vec<String>, FileError> {
        self.inner.list().await
    }

    async fn rename(&self, from: &str, to: &str) -> Result<(), FileError> {
        self.inner.rename(from, to).await?;
        let mut writes = self.log_writes.borrow_mut();
        if let Some(moved) = writes.files.remove(from) {
            writes.files.insert(to.to_owned(), moved);
        }
        Ok(())
    }

    async fn remove(&self, name: &str) -> Result<(), FileError> {
        self.inner.remove(name).await
    }

    async fn sync_folder(&self) -> Result<(), FileError> {
        self.inner.sync_folder().await
    }

    async fn share(&self, name: &str, to: &Self) -> Result<(), FileError> {
        self.inner.share(name, &to.inner).await
    }
}

impl File for SimFile {
    async fn read_at(&self, offset: u64, length: usize) -> Result<AlignedBuffer, FileError> {
        self.inner.read_at(offset, length).await
    }

    async fn write_at(&self, offset: u64, buffer: AlignedBuffer) -> (AlignedBuffer, Result<(), FileError>) {
        let length = buffer.len();
        if !self.log {
            return self.inner.write_at(offset, buffer).await;
        }
        if !self.files.lies {
            let (buffer, result) = self.inner.write_at(offset, buffer).await;
            if result.is_ok() {
                self.files.wrote(&self.name, offset, length);
            }
            return (buffer, result);
        }
        // Planted: the write is on its way, and that is said to be enough.
        let mut on_its_way = AlignedBuffer::zeroed(length);
        on_its_way.copy_from_slice(&buffer);
        let mut write = pin!(self.inner.write_at(offset, on_its_way));
        let written = std::future::poll_fn(|context| match write.as_mut().poll(context) {
            Poll::Ready((_, result)) => Poll::Ready(result),
            Poll::Pending => Poll::Ready(Ok(())),
        });
        let result = written.await;
        (buffer, result)
    }

    async fn sync(&self) -> Result<(), FileError> {
        self.inner.sync().await
    }

    fn size_bytes(&self) -> u64 {
        self.inner.size_bytes()
    }
}
