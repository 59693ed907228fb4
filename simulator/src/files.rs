//! The files that an engine is given: [`MemoryFiles`] with what a disk does to bytes behind everybody's back, and with the planted lies.
//!
//! A write to a file that is being made may go astray: it is said to be done, but its bytes stand somewhere else, or in nobody's file. A
//! read of a segment or a manifest may give what stands somewhere else. Both are armed from outside, and happen to the next operation.
//! Reads of the log never go astray here: the log is read once, at opening, and the end of it where nothing follows can't be told from
//! a write that was torn (docs/format.md). Writes of the log go astray in [`crate::disk::LaneDisk`], afterwards, for the same reason.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    future::Future,
    pin::pin,
    rc::Rc,
    task::Poll,
};

use antiphon_engine::{
    memory_files::{MemoryFile, MemoryFiles},
    seams::{AlignedBuffer, File, FileError, Files, OpenMode, PAGE_BYTES},
};

use crate::{
    coverage::{Count, Coverage},
    dice::Dice,
    plant::Plant,
};

/// The files that an engine is given.
#[derive(Clone)]
pub struct SimFiles {
    /// The disk.
    pub inner: MemoryFiles,
    /// What outlasts crashes, and is shared by all handles.
    pub state: Rc<State>,
}

/// What is known of a lane's disk beyond its bytes.
pub struct State {
    /// Where the log was written.
    pub log_writes: RefCell<LogWrites>,
    /// What was met.
    pub coverage: RefCell<Coverage>,
    /// So many of the next reads go astray.
    pub reads_astray: Cell<u32>,
    /// So many of the next writes go astray.
    pub writes_astray: Cell<u32>,
    /// What stood where the log is written is kept, so that a write can be taken back.
    keeps_before: bool,
    dice: Dice,
    plant: Option<Plant>,
    segments_written: Cell<usize>,
    segments_of_all_lanes: Rc<Cell<usize>>,
}

/// Which bytes of the log hold what: completed writes by file, in their order, and the newest two of all.
#[derive(Default)]
pub struct LogWrites {
    files: BTreeMap<String, Vec<LogWrite>>,
    made: u64,
    newest: VecDeque<(String, u64, usize)>,
}

/// A completed write of the log.
#[derive(Clone)]
pub struct LogWrite {
    /// Where.
    pub offset: u64,
    /// So many bytes.
    pub length: usize,
    /// What stood there before, if that is kept.
    pub before: Vec<u8>,
    /// Its number among all writes of the log.
    pub number: u64,
}

/// An open file of [`SimFiles`].
pub struct SimFile {
    inner: MemoryFile,
    name: String,
    mode: OpenMode,
    files: SimFiles,
}

/// What a file is, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A log file.
    Log,
    /// A log file that is being made.
    LogMade,
    /// A segment.
    Segment,
    /// The manifest.
    Manifest,
    /// A manifest that is being made.
    ManifestMade,
    /// The data keys.
    Keys,
    /// Data keys that are being written anew.
    KeysMade,
}

impl Class {
    /// Of a name.
    #[must_use]
    pub fn of(name: &str) -> Self {
        match (name.starts_with("log-"), name.starts_with("segment-"), name.ends_with(".new")) {
            (true, _, false) => Self::Log,
            (true, _, true) => Self::LogMade,
            (_, true, _) => Self::Segment,
            (.., false) if name == "keys" => Self::Keys,
            (.., true) if name == "keys.new" => Self::KeysMade,
            (_, _, false) => Self::Manifest,
            (_, _, true) => Self::ManifestMade,
        }
    }
}

impl LogWrites {
    /// A completed write of a file, any but the newest two of all: rot of the last batch, with the one after it torn or not begun, can't
    /// be told from a write that was torn.
    #[must_use]
    pub fn earlier(&self, name: &str, dice: &Dice) -> Option<LogWrite> {
        let of_file = self.files.get(name)?;
        let earlier: Vec<&LogWrite> =
            of_file.iter().filter(|write| !self.is_newest(name, write.offset, write.length)).collect();
        earlier.get(dice.index(earlier.len().max(1))).map(|write| (*write).clone())
    }

    /// Whether some of these bytes belong to one of the newest two writes.
    #[must_use]
    pub fn is_newest(&self, name: &str, offset: u64, length: usize) -> bool {
        let meets = |(file, at, bytes): &(String, u64, usize)| {
            file == name && *at < offset + length as u64 && offset < *at + *bytes as u64
        };
        self.newest.iter().any(meets)
    }

    /// Whether some of these bytes were written after that write, so that it can't have gone over them.
    #[must_use]
    pub fn is_newer(&self, name: &str, offset: u64, length: usize, number: u64) -> bool {
        let meets =
            |write: &LogWrite| write.offset < offset + length as u64 && offset < write.offset + write.length as u64;
        self.files.get(name).is_some_and(|of_file| of_file.iter().any(|write| write.number > number && meets(write)))
    }

    /// A write is not where it was.
    pub fn forget(&mut self, name: &str, offset: u64) {
        if let Some(of_file) = self.files.get_mut(name) {
            of_file.retain(|write| write.offset != offset);
        }
    }

    fn wrote(&mut self, name: &str, mut write: LogWrite) {
        let (offset, length) = (write.offset, write.length);
        self.made += 1;
        write.number = self.made;
        self.newest.push_back((name.to_owned(), offset, length));
        if self.newest.len() > 2 {
            self.newest.pop_front();
        }
        let of_file = self.files.entry(name.to_owned()).or_default();
        // A write over an earlier one takes its place: a file that is used again begins anew.
        of_file.retain(|other| other.offset + other.length as u64 <= offset || other.offset >= offset + length as u64);
        of_file.push(write);
    }
}

impl State {
    /// Of a disk on which nothing has happened yet. `segments_of_all_lanes` counts the segments that are being written.
    #[must_use]
    pub fn new(seed: u64, keeps_before: bool, plant: Option<Plant>, segments_of_all_lanes: &Rc<Cell<usize>>) -> Self {
        Self {
            log_writes: RefCell::default(),
            coverage: RefCell::default(),
            reads_astray: Cell::new(0),
            writes_astray: Cell::new(0),
            keeps_before,
            dice: Dice::new(seed, "astray"),
            plant,
            segments_written: Cell::new(0),
            segments_of_all_lanes: Rc::clone(segments_of_all_lanes),
        }
    }

    fn count(&self, kind: Count) {
        self.coverage.borrow_mut().one(kind);
    }

    /// Whether an operation goes astray, of so many that are to.
    fn takes(left: &Cell<u32>) -> bool {
        let astray = left.get() > 0;
        left.set(left.get().saturating_sub(1));
        astray
    }
}

impl SimFiles {
    /// Bytes that went to a wrong place land there: in some file of the folder or in nobody's. `number` is that of a write of the log.
    pub fn land(&self, bytes: &[u8], number: u64, dice: &Dice) {
        let names = self.inner.names();
        let name = names.get(dice.index(names.len() + names.len() / 2 + 1));
        let Some((name, size)) = name.and_then(|name| Some((name, self.inner.size_of(name)?))) else {
            return self.state.count(Count::WritesAstrayElsewhere);
        };
        let page = PAGE_BYTES as u64;
        let offset = dice.below(size / page + 1) * page;
        // Of a long write only a piece may be astray.
        let length = bytes.len().min(dice.pick(&[1, 4, 1_000]) * PAGE_BYTES).min((size - offset.min(size)) as usize);
        let writes = self.state.log_writes.borrow();
        if length == 0 || writes.is_newest(name, offset, length) || writes.is_newer(name, offset, length, number) {
            return self.state.count(Count::WritesAstrayElsewhere);
        }
        self.inner.overwrite(name, offset, &bytes[..length]);
        self.state.count(match Class::of(name) {
            Class::Log | Class::LogMade => Count::WritesAstrayLog,
            Class::Segment => Count::WritesAstraySegment,
            Class::Manifest | Class::ManifestMade => Count::WritesAstrayManifest,
            Class::Keys | Class::KeysMade => Count::WritesAstrayKeys,
        });
    }

    /// What stands somewhere else, as long as what was asked for.
    fn elsewhere(&self, name: &str, offset: u64, length: usize) -> Option<Vec<u8>> {
        let dice = &self.state.dice;
        let names = self.inner.names();
        let other = names.get(dice.index(names.len().max(1)))?;
        let page = PAGE_BYTES as u64;
        // Often what stands at the same place of another file, which is what looks most like the right bytes.
        let at = if dice.chance(400) { offset } else { dice.below(self.inner.size_of(other)? / page + 1) * page };
        self.inner.peek(other, at, length).filter(|_| (other.as_str(), at) != (name, offset))
    }
}

impl Files for SimFiles {
    type File = SimFile;

    async fn open(&self, name: &str, mode: OpenMode) -> Result<SimFile, FileError> {
        let inner = self.inner.open(name, mode).await?;
        if (Class::of(name), mode) == (Class::Segment, OpenMode::Create) {
            let (own, all) = (&self.state.segments_written, &self.state.segments_of_all_lanes);
            own.set(own.get() + 1);
            all.set(all.get() + 1);
            if own.get() > 1 {
                self.state.count(Count::FlushesBesideMerges);
            }
            if all.get() > own.get() {
                self.state.count(Count::SegmentsOfLanesAtOnce);
            }
        }
        Ok(SimFile { inner, name: name.to_owned(), mode, files: self.clone() })
    }

    async fn list(&self) -> Result<Vec<String>, FileError> {
        self.inner.list().await
    }

    async fn rename(&self, from: &str, to: &str) -> Result<(), FileError> {
        self.inner.rename(from, to).await?;
        let mut writes = self.state.log_writes.borrow_mut();
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

impl SimFile {
    fn state(&self) -> &State {
        &self.files.state
    }

    fn peek(&self, offset: u64, length: usize) -> Vec<u8> {
        self.files.inner.peek(&self.name, offset, length).unwrap_or_default()
    }

    async fn write_log(&self, offset: u64, buffer: AlignedBuffer) -> (AlignedBuffer, Result<(), FileError>) {
        let length = buffer.len();
        let before = if self.state().keeps_before { self.peek(offset, length) } else { Vec::new() };
        let (buffer, mut result) = self.inner.write_at(offset, buffer).await;
        if self.state().plant == Some(Plant::FailedWriteAcknowledged) {
            result = Ok(());
        }
        // Data keys are written in the same way, and are found damaged by what stands there or by the log that needs them.
        if result.is_ok() && Class::of(&self.name) != Class::Keys {
            self.state().log_writes.borrow_mut().wrote(&self.name, LogWrite { offset, length, before, number: 0 });
        }
        (buffer, result)
    }

    /// Planted: the write is on its way, and that is said to be enough.
    async fn write_log_carelessly(&self, offset: u64, buffer: AlignedBuffer) -> (AlignedBuffer, Result<(), FileError>) {
        let mut on_its_way = AlignedBuffer::zeroed(buffer.len());
        on_its_way.copy_from_slice(&buffer);
        let mut write = pin!(self.inner.write_at(offset, on_its_way));
        let written = std::future::poll_fn(|context| match write.as_mut().poll(context) {
            Poll::Ready((_, result)) => Poll::Ready(result),
            Poll::Pending => Poll::Ready(Ok(())),
        });
        let result = written.await;
        (buffer, result)
    }

    /// The bytes are said to be there, but stand somewhere else; what stood here stays.
    async fn write_astray(&self, offset: u64, buffer: AlignedBuffer) -> (AlignedBuffer, Result<(), FileError>) {
        let mut unchanged = AlignedBuffer::zeroed(buffer.len());
        let there = self.peek(offset, buffer.len());
        unchanged[..there.len()].copy_from_slice(&there);
        let (_, result) = self.inner.write_at(offset, unchanged).await;
        if result.is_ok() {
            self.state().count(Count::WritesSentAstray);
            self.files.land(&buffer, u64::MAX, &self.state().dice);
        }
        (buffer, result)
    }
}

impl File for SimFile {
    async fn read_at(&self, offset: u64, length: usize) -> Result<AlignedBuffer, FileError> {
        let astray = self.mode != OpenMode::Log && State::takes(&self.state().reads_astray);
        let mut buffer = self.inner.read_at(offset, length).await?;
        if astray
            && let Some(other) = self.files.elsewhere(&self.name, offset, length)
            && other[..] != buffer[..length]
        {
            buffer[..length].copy_from_slice(&other);
            self.state().count(match Class::of(&self.name) {
                Class::Segment => Count::ReadsAstraySegment,
                Class::Keys | Class::KeysMade => Count::ReadsAstrayKeys,
                _ => Count::ReadsAstrayManifest,
            });
            if self.state().plant == Some(Plant::MisreadsStay) {
                self.files.inner.overwrite(&self.name, offset, &other);
            }
        }
        Ok(buffer)
    }

    async fn write_at(&self, offset: u64, buffer: AlignedBuffer) -> (AlignedBuffer, Result<(), FileError>) {
        match self.mode {
            OpenMode::Log if self.state().plant == Some(Plant::AckBeforeSync) => {
                self.write_log_carelessly(offset, buffer).await
            }
            OpenMode::Log => self.write_log(offset, buffer).await,
            _ if State::takes(&self.state().writes_astray) => self.write_astray(offset, buffer).await,
            _ => self.inner.write_at(offset, buffer).await,
        }
    }

    async fn sync(&self) -> Result<(), FileError> {
        self.inner.sync().await
    }

    fn size_bytes(&self) -> u64 {
        self.inner.size_bytes()
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        if (Class::of(&self.name), self.mode) == (Class::Segment, OpenMode::Create) {
            let (own, all) = (&self.state().segments_written, &self.state().segments_of_all_lanes);
            own.set(own.get() - 1);
            all.set(all.get() - 1);
        }
    }
}
