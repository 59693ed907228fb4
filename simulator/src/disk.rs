//! A lane's disk: [`MemoryFiles`] whose operations complete when the world says so, with the faults of the plan.

use std::{cell::Cell, rc::Rc};

use antiphon_engine::memory_files::{MemoryFiles, OperationKind, Ticket};

use crate::{
    coverage::{Count, Coverage},
    dice::Dice,
    files::{Class, LogWrite, SimFiles, State},
    plan::{Fault, Plan},
    plant::Plant,
};

/// What a sector is: the least that a disk fails to read.
const SECTOR_BYTES: u64 = 512;

/// Before a batch's witness, and a row of that.
const BATCH_HEADER_BYTES: u64 = 64;
const WITNESS_ROW_BYTES: u64 = 25;

/// One lane's folder, over all crashes.
pub struct LaneDisk {
    files: SimFiles,
    /// Operations up to here have been given their time of completion.
    seen: Option<Ticket>,
    capacity_bytes: Option<u64>,
}

impl LaneDisk {
    /// An empty folder. `segments` counts the segments that all lanes are writing.
    #[must_use]
    pub fn new(seed: u64, plan: &Plan, plant: Option<Plant>, segments: &Rc<Cell<usize>>) -> Self {
        let inner = MemoryFiles::new(seed);
        inner.set_queued(true);
        let keeps_before = plan.rate(Fault::MisdirectWrite) > 0;
        let state = Rc::new(State::new(seed, keeps_before, plant, segments));
        Self { files: SimFiles { inner, state }, seen: None, capacity_bytes: None }
    }

    /// A folder with these files, on which nothing has happened yet.
    #[must_use]
    pub fn holding(
        inner: MemoryFiles,
        seed: u64,
        plan: &Plan,
        plant: Option<Plant>,
        segments: &Rc<Cell<usize>>,
    ) -> Self {
        inner.set_queued(true);
        let of_new = Self::new(seed, plan, plant, segments);
        Self { files: SimFiles { inner, state: of_new.files.state }, ..of_new }
    }

    /// The folder as nobody but an operator sees it: operations complete at once, and there is room. For a disk that no node has.
    #[must_use]
    pub fn at_rest(&self) -> MemoryFiles {
        self.files.inner.set_queued(false);
        self.files.inner.set_capacity(None);
        self.files.inner.clone()
    }

    /// What the power would leave of it if it failed now; this one goes on.
    #[must_use]
    pub fn image(&self, seed: u64) -> MemoryFiles {
        self.files.inner.crash_image(seed)
    }

    /// For an engine.
    #[must_use]
    pub fn files(&self) -> SimFiles {
        self.files.clone()
    }

    /// Operations that were submitted since this was last called.
    pub fn submitted(&mut self) -> Vec<(Ticket, OperationKind)> {
        let fresh = self.files.inner.submitted_after(self.seen);
        if let Some((last, _)) = fresh.last() {
            self.seen = Some(*last);
        }
        fresh
    }

    /// Nothing is under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.files.inner.is_idle()
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
        self.files = SimFiles { inner, state: Rc::clone(&self.files.state) };
        self.seen = None;
    }

    /// There is room for so much more, or without an end.
    pub fn set_room(&mut self, bytes: Option<u64>) {
        let inner = &self.files.inner;
        let used: u64 = inner.names().iter().filter_map(|name| inner.size_of(name)).sum();
        self.capacity_bytes = bytes.map(|room| used + room);
        inner.set_capacity(self.capacity_bytes);
    }

    /// From now on operations fail with these chances, in a million, by kind.
    pub fn set_errors(&self, fault: Fault, per_million: u32) {
        if fault == Fault::LateWrite {
            self.files.inner.fail_writes_late(if per_million > 0 { 1_000_000 } else { 0 });
        }
        for kind in OperationKind::ALL {
            let concerned = match fault {
                Fault::ReadError => kind == OperationKind::Read,
                Fault::WriteError | Fault::LateWrite => kind == OperationKind::Write,
                Fault::SyncError => matches!(kind, OperationKind::Sync | OperationKind::SyncFolder),
                _ => matches!(
                    kind,
                    OperationKind::Open
                        | OperationKind::List
                        | OperationKind::Rename
                        | OperationKind::Remove
                        | OperationKind::Share
                ),
            };
            if concerned {
                self.files.inner.fail_randomly(kind, per_million);
            }
        }
    }

    /// So many of the next reads go astray.
    pub fn misdirect_reads(&self, reads: u32) {
        self.files.state.reads_astray.set(reads);
    }

    /// So many of the next writes to files that are being made go astray.
    pub fn misdirect_writes(&self, writes: u32) {
        self.files.state.writes_astray.set(writes);
    }

    /// A write of the log went astray some time ago: what stood there before stands there, and its bytes somewhere else.
    pub fn misdirect_log_write(&self, dice: &Dice) -> Option<String> {
        let (name, write) = self.earlier_log_write(dice)?;
        let inner = &self.files.inner;
        let bytes = inner.peek(&name, write.offset, write.length)?;
        inner.overwrite(&name, write.offset, &write.before);
        self.files.state.log_writes.borrow_mut().forget(&name, write.offset);
        self.count(Count::LogWritesAstray);
        self.files.land(&bytes, write.number, dice);
        Some(format!("{name} at {}", write.offset))
    }

    fn earlier_log_write(&self, dice: &Dice) -> Option<(String, LogWrite)> {
        let name = self.some_name(dice, |class| class == Class::Log)?;
        let write = self.files.state.log_writes.borrow().earlier(&name, dice)?;
        Some((name, write))
    }

    fn some_name(&self, dice: &Dice, wanted: impl Fn(Class) -> bool) -> Option<String> {
        let mut names = self.files.inner.names();
        names.retain(|name| wanted(Class::of(name)));
        (!names.is_empty()).then(|| names.swap_remove(dice.index(names.len())))
    }

    /// Rot: whether there was anything to destroy, and what it was.
    pub fn destroy(&self, fault: Fault, dice: &Dice) -> Option<String> {
        let name = self.some_name(dice, |class| match fault {
            Fault::FlipLog | Fault::FlipBatch | Fault::BreakLog => matches!(class, Class::Log | Class::LogMade),
            Fault::FlipSegment | Fault::BreakRange => class == Class::Segment,
            _ => matches!(class, Class::Manifest | Class::ManifestMade),
        })?;
        let inner = &self.files.inner;
        let length = inner.size_of(&name)?;
        let offset = match fault {
            Fault::FlipLog | Fault::FlipBatch => {
                let write = self.files.state.log_writes.borrow().earlier(&name, dice)?;
                let parts = self.batch(&name, &write);
                let within = match fault {
                    Fault::FlipBatch => {
                        let ends = [0, parts.header, parts.witness, parts.records];
                        let part = dice.index(3);
                        ends[part] + dice.below(ends[part + 1] - ends[part])
                    }
                    _ => dice.below(write.length as u64),
                };
                self.count(parts.holding(within));
                write.offset + within
            }
            _ => dice.below(length),
        };
        let done = match fault {
            Fault::BreakRange | Fault::BreakLog => {
                inner.break_range(&name, offset / SECTOR_BYTES * SECTOR_BYTES, SECTOR_BYTES)
            }
            _ => inner.flip_bit(&name, offset, dice.below(8) as u8),
        };
        if done && fault == Fault::FlipSegment {
            self.count(self.part_of_segment(&name, offset, length));
        }
        done.then(|| format!("{name} at {offset}"))
    }

    /// The parts of a batch; docs/format.md has the fields. What another fault has destroyed has none but a header.
    fn batch(&self, name: &str, write: &LogWrite) -> BatchParts {
        let bytes = self.files.inner.peek(name, write.offset, BATCH_HEADER_BYTES as usize).unwrap_or_default();
        let field =
            |at: usize| bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes);
        let header = BATCH_HEADER_BYTES;
        let records = u64::from(field(12)).clamp(header, write.length as u64);
        let witness = (header + WITNESS_ROW_BYTES * u64::from(field(56))).min(records);
        BatchParts { header, witness, records }
    }

    fn part_of_segment(&self, name: &str, offset: u64, length: u64) -> Count {
        let footer = length.saturating_sub(4096);
        let index = self.files.inner.peek(name, footer + 32, 8).and_then(|bytes| bytes.try_into().ok());
        match offset {
            0..4096 => Count::FlipsSegmentEnds,
            offset if offset >= footer => Count::FlipsSegmentEnds,
            offset if offset < index.map_or(0, u64::from_le_bytes) => Count::FlipsSegmentData,
            _ => Count::FlipsSegmentIndex,
        }
    }

    fn count(&self, kind: Count) {
        self.files.state.coverage.borrow_mut().one(kind);
    }

    /// Counts what is under way now, as the awaits that a crash cuts short.
    pub fn count_awaits(&self, coverage: &mut Coverage) {
        let pending = self.files.inner.pending();
        if pending.is_empty() {
            coverage.one(Count::CutNothing);
        }
        for operation in pending {
            coverage.one(cut(operation.kind, &operation.name));
        }
    }

    /// Adds this disk's faults to the report.
    pub fn report(&self, coverage: &mut Coverage) {
        let counts = self.files.inner.counts();
        let errors = |kind: OperationKind| counts.errors[kind as usize];
        let names = [
            OperationKind::Open,
            OperationKind::List,
            OperationKind::Rename,
            OperationKind::Remove,
            OperationKind::Share,
        ];
        coverage.join(&self.files.state.coverage.borrow());
        coverage.add(Count::WritesLost, counts.writes_lost);
        coverage.add(Count::WritesTorn, counts.writes_torn);
        coverage.add(Count::WritesKept, counts.writes_kept);
        coverage.add(Count::NamesLost, counts.names_lost);
        coverage.add(Count::ReadErrors, errors(OperationKind::Read));
        coverage.add(Count::WriteErrors, errors(OperationKind::Write));
        coverage.add(Count::SyncErrors, errors(OperationKind::Sync) + errors(OperationKind::SyncFolder));
        coverage.add(Count::NameErrors, names.into_iter().map(errors).sum());
        coverage.add(Count::WritesDoomed, counts.writes_doomed);
        coverage.add(Count::WritesLate, counts.writes_late);
        coverage.add(Count::Full, counts.full);
    }
}

/// Where the parts of a batch end, from its beginning.
struct BatchParts {
    header: u64,
    witness: u64,
    records: u64,
}

impl BatchParts {
    /// The part that a byte belongs to.
    fn holding(&self, within: u64) -> Count {
        match within {
            within if within < self.header => Count::FlipsLogHeader,
            within if within < self.witness => Count::FlipsLogWitness,
            within if within < self.records => Count::FlipsLogRecords,
            _ => Count::FlipsLogPadding,
        }
    }
}

/// The await that a crash cuts short: an operation on a kind of file.
fn cut(kind: OperationKind, name: &str) -> Count {
    match (kind, Class::of(name)) {
        (OperationKind::List, _) => Count::CutList,
        (OperationKind::SyncFolder, _) => Count::CutSyncFolder,
        (OperationKind::Remove, _) => Count::CutRemove,
        (OperationKind::Open, Class::Log) => Count::CutLogOpen,
        (OperationKind::Open, Class::LogMade) => Count::CutLogMake,
        (OperationKind::Open, Class::Segment) => Count::CutSegmentOpen,
        (OperationKind::Open, Class::Manifest | Class::ManifestMade) => Count::CutManifestOpen,
        (OperationKind::Read, Class::Log | Class::LogMade) => Count::CutLogRead,
        (OperationKind::Read, Class::Segment) => Count::CutSegmentRead,
        (OperationKind::Read, Class::Manifest | Class::ManifestMade) => Count::CutManifestRead,
        (OperationKind::Write, Class::Log) => Count::CutLogWrite,
        (OperationKind::Write, Class::LogMade) => Count::CutLogFill,
        (OperationKind::Write, Class::Segment) => Count::CutSegmentWrite,
        (OperationKind::Write, Class::Manifest | Class::ManifestMade) => Count::CutManifestWrite,
        (OperationKind::Sync, Class::Log | Class::LogMade) => Count::CutLogSync,
        (OperationKind::Sync, Class::Segment) => Count::CutSegmentSync,
        (OperationKind::Sync, Class::Manifest | Class::ManifestMade) => Count::CutManifestSync,
        (OperationKind::Rename, Class::Log | Class::LogMade) => Count::CutLogRename,
        (OperationKind::Rename, _) => Count::CutManifestRename,
        (OperationKind::Share, _) => Count::CutShare,
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
