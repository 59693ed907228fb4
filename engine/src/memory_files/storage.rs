//! What a disk holds: bytes and names, each as seen now and as durable, and what a crash makes of the difference.
//!
//! Invariants: `names` is `durable_names` with `changes` applied; an inode's `current` bytes are what reads give, its `durable` bytes
//! what no crash takes away.

use std::{collections::BTreeMap, ops::Range};

use super::{FaultCounts, MemoryRandom, pages::Pages};
use crate::seams::AlignedBuffer;

/// A crash tears writes at this size: what disks promise to write whole.
const SECTOR_BYTES: usize = 512;

/// A file's identity beneath its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct InodeId(u64);

#[derive(Clone, Default)]
pub(super) struct Storage {
    inodes: BTreeMap<InodeId, Inode>,
    names: BTreeMap<String, InodeId>,
    durable_names: BTreeMap<String, InodeId>,
    changes: Vec<(u64, NameChange)>,
    changes_made: u64,
    writes_made: u64,
    inodes_made: u64,
}

#[derive(Clone, Default)]
struct Inode {
    durable: Pages,
    current: Pages,
    volatile: Vec<VolatileWrite>,
    broken: Vec<Range<u64>>,
    handles: usize,
}

#[derive(Clone)]
pub(super) struct VolatileWrite {
    /// Its number among all writes, so that a sync can name those that it covers.
    number: u64,
    offset: usize,
    bytes: Pages,
}

impl VolatileWrite {
    /// A write in flight, which no sync covers.
    pub(super) fn in_flight(offset: u64, bytes: &[u8]) -> Self {
        Self { number: u64::MAX, offset: offset as usize, bytes: Pages::of(bytes) }
    }
}

#[derive(Clone)]
pub(super) enum NameChange {
    Create { name: String, inode: InodeId },
    Rename { from: String, to: String, inode: InodeId },
    Remove { name: String, inode: InodeId },
}

/// How a crash treats what is volatile. One crash loses nearly all, another nearly nothing: both find bugs that an even mix hides.
struct Fates {
    random: MemoryRandom,
    kept_per_million: u64,
    torn_per_million: u64,
}

impl Storage {
    pub(super) fn find(&self, name: &str) -> Option<InodeId> {
        self.names.get(name).copied()
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.names.keys().cloned().collect()
    }

    pub(super) fn contents(&self, name: &str) -> Option<&Pages> {
        Some(&self.inodes.get(&self.find(name)?)?.current)
    }

    /// What a crash would leave of a file for certain.
    pub(super) fn durable_contents(&self, name: &str) -> Option<&Pages> {
        Some(&self.inodes.get(&self.find(name)?)?.durable)
    }

    /// A file's bytes from `offset`, zeros beyond its end.
    pub(super) fn peek(&self, name: &str, offset: u64, length: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.contents(name)?.read(offset as usize, &mut bytes);
        Some(bytes)
    }

    pub(super) fn size_bytes(&self, inode: InodeId) -> u64 {
        self.inodes.get(&inode).map_or(0, |inode| inode.current.len() as u64)
    }

    /// The sum of the sizes of all files that have a name.
    pub(super) fn bytes(&self) -> u64 {
        self.names.values().map(|inode| self.size_bytes(*inode)).sum()
    }

    /// Name changes made so far: a folder sync covers those before it was asked for.
    pub(super) const fn change_count(&self) -> u64 {
        self.changes_made
    }

    /// Writes made so far: a sync covers those before it was asked for.
    pub(super) const fn write_count(&self) -> u64 {
        self.writes_made
    }

    pub(super) fn open(&mut self, inode: InodeId) {
        if let Some(inode) = self.inodes.get_mut(&inode) {
            inode.handles += 1;
        }
    }

    pub(super) fn close(&mut self, inode: InodeId) {
        if let Some(inode) = self.inodes.get_mut(&inode) {
            inode.handles = inode.handles.saturating_sub(1);
        }
    }

    pub(super) fn create(&mut self, name: &str) -> InodeId {
        let inode = self.new_inode(Inode::default());
        self.change(NameChange::Create { name: name.to_owned(), inode });
        inode
    }

    /// A file whose bytes no crash takes away, under a name that one may.
    pub(super) fn create_durable(&mut self, name: &str, bytes: Pages) {
        let inode = self.new_inode(Inode { durable: bytes.clone(), current: bytes, ..Inode::default() });
        self.change(NameChange::Create { name: name.to_owned(), inode });
    }

    /// Makes a change of names visible, and durable at the next folder sync.
    pub(super) fn change(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.changes.push((self.changes_made, change));
        self.changes_made += 1;
    }

    pub(super) fn sync_folder(&mut self, changes_before: u64) {
        let (durable, rest) = std::mem::take(&mut self.changes).into_iter().partition(|(n, _)| *n < changes_before);
        self.changes = rest;
        let durable: Vec<(u64, NameChange)> = durable;
        durable.iter().for_each(|(_, change)| change.apply(&mut self.durable_names));
        self.drop_unreachable();
    }

    /// The bytes from `offset`, zeros beyond the end; `None` where a read fails.
    pub(super) fn read(&self, inode: InodeId, offset: u64, length: usize) -> Option<AlignedBuffer> {
        let mut buffer = AlignedBuffer::zeroed(length);
        let Some(inode) = self.inodes.get(&inode) else { return Some(buffer) };
        let end = offset + length as u64;
        if inode.broken.iter().any(|range| range.start < end && offset < range.end) {
            return None;
        }
        inode.current.read(offset as usize, &mut buffer);
        Some(buffer)
    }

    /// Makes a write visible; durable at once if `durable_at_once` and it lies within the durable size.
    pub(super) fn write(&mut self, inode: InodeId, offset: u64, bytes: &[u8], durable_at_once: bool) {
        let number = self.writes_made;
        self.writes_made += 1;
        let Some(inode) = self.inodes.get_mut(&inode) else { return };
        let start = offset as usize;
        let end = start + bytes.len();
        let bytes = Pages::of(bytes);
        inode.current.overlay(start, &bytes);
        inode.broken.retain(|range| range.start < start as u64 || range.end > end as u64);
        if durable_at_once && end <= inode.durable.len() {
            inode.durable.overlay(start, &bytes);
        } else {
            inode.volatile.push(VolatileWrite { number, offset: start, bytes });
        }
    }

    /// A write that failed: some of its sectors are there, some are not.
    pub(super) fn write_some(&mut self, inode: InodeId, offset: u64, bytes: &[u8], log: bool, random: &MemoryRandom) {
        for (index, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
            if random.below(2) == 0 {
                self.write(inode, offset + (index * SECTOR_BYTES) as u64, sector, log);
            }
        }
    }

    pub(super) fn sync(&mut self, inode: InodeId, writes_before: u64) {
        let Some(inode) = self.inodes.get_mut(&inode) else { return };
        for write in inode.volatile.iter().filter(|write| write.number < writes_before) {
            inode.durable.overlay(write.offset, &write.bytes);
        }
        inode.volatile.retain(|write| write.number >= writes_before);
    }

    /// A sync that failed: some writes that it covered will never be durable. Gives their number.
    pub(super) fn doom(&mut self, inode: InodeId, writes_before: u64, random: &MemoryRandom) -> u64 {
        let Some(inode) = self.inodes.get_mut(&inode) else { return 0 };
        let before = inode.volatile.len();
        inode.volatile.retain(|write| write.number >= writes_before || random.below(2) == 0);
        (before - inode.volatile.len()) as u64
    }

    pub(super) fn flip_bit(&mut self, name: &str, offset: u64, bit: u8) -> bool {
        let Some(inode) = self.find(name).and_then(|inode| self.inodes.get_mut(&inode)) else { return false };
        let mask = 1 << (bit % 8);
        let offset = offset as usize;
        if !inode.current.flip(offset, mask) {
            return false;
        }
        inode.durable.flip(offset, mask);
        for write in inode.volatile.iter_mut().filter(|write| write.offset <= offset) {
            write.bytes.flip(offset - write.offset, mask);
        }
        true
    }

    /// Other bytes stand there from now on, durably, as far as the file reaches.
    pub(super) fn overwrite(&mut self, name: &str, offset: u64, bytes: &[u8]) -> bool {
        let Some(inode) = self.find(name).and_then(|inode| self.inodes.get_mut(&inode)) else { return false };
        let start = offset as usize;
        inode.current.replace(start, bytes);
        inode.durable.replace(start, bytes);
        for write in &mut inode.volatile {
            match start.checked_sub(write.offset) {
                Some(skipped) => write.bytes.replace(skipped, bytes),
                None => write.bytes.replace(0, bytes.get(write.offset - start..).unwrap_or_default()),
            }
        }
        inode.broken.retain(|range| range.start < offset || range.end > offset + bytes.len() as u64);
        true
    }

    pub(super) fn break_range(&mut self, name: &str, offset: u64, length: u64) -> bool {
        let Some(inode) = self.find(name).and_then(|inode| self.inodes.get_mut(&inode)) else { return false };
        inode.broken.push(offset..offset + length);
        true
    }

    pub(super) fn put(&mut self, name: &str, bytes: &[u8]) {
        let bytes = Pages::of(bytes);
        let inode = self.new_inode(Inode { durable: bytes.clone(), current: bytes, ..Inode::default() });
        self.names.insert(name.to_owned(), inode);
        self.durable_names.insert(name.to_owned(), inode);
    }

    pub(super) fn take_away(&mut self, name: &str) {
        self.names.remove(name);
        self.durable_names.remove(name);
        self.drop_unreachable();
    }

    /// What the power failing now leaves. `writes` and `changes` are in flight.
    pub(super) fn after_crash(
        &self,
        seed: u64,
        writes: Vec<(InodeId, VolatileWrite)>,
        changes: Vec<NameChange>,
        counts: &mut FaultCounts,
    ) -> Self {
        let fates = Fates::new(seed);
        let mut names = self.durable_names.clone();
        let made = self.changes.iter().map(|(_, change)| change).chain(&changes);
        for change in made {
            if fates.keeps() {
                change.apply(&mut names);
                counts.names_kept += 1;
            } else {
                counts.names_lost += 1;
            }
        }
        counts.writes_in_flight += writes.len() as u64;
        let mut storage =
            Self { durable_names: names.clone(), names, inodes_made: self.inodes_made, ..Self::default() };
        for (id, inode) in &self.inodes {
            let in_flight = writes.iter().filter(|(of, _)| of == id).map(|(_, write)| write);
            let volatile: Vec<&VolatileWrite> = inode.volatile.iter().chain(in_flight).collect();
            let bytes = fates.settle(inode.durable.clone(), volatile, counts);
            let inode =
                Inode { current: bytes.clone(), durable: bytes, broken: inode.broken.clone(), ..Inode::default() };
            storage.inodes.insert(*id, inode);
        }
        storage.drop_unreachable();
        storage
    }

    /// As it is, without open handles: what another process would find.
    pub(super) fn after_kill(&self) -> Self {
        let mut storage = self.clone();
        storage.inodes.values_mut().for_each(|inode| inode.handles = 0);
        storage
    }

    fn new_inode(&mut self, inode: Inode) -> InodeId {
        let id = InodeId(self.inodes_made);
        self.inodes_made += 1;
        self.inodes.insert(id, inode);
        id
    }

    /// Frees what no name and no handle leads to any more, now or after any crash.
    fn drop_unreachable(&mut self) {
        let changed = self.changes.iter().map(|(_, change)| change.inode());
        let named: Vec<InodeId> =
            self.names.values().chain(self.durable_names.values()).copied().chain(changed).collect();
        self.inodes.retain(|id, inode| inode.handles > 0 || named.contains(id));
    }
}

impl NameChange {
    const fn inode(&self) -> InodeId {
        match self {
            Self::Create { inode, .. } | Self::Rename { inode, .. } | Self::Remove { inode, .. } => *inode,
        }
    }

    /// Each change speaks of an inode, so that it means the same whichever others came before it.
    fn apply(&self, names: &mut BTreeMap<String, InodeId>) {
        match self {
            Self::Create { name, inode } => {
                names.insert(name.clone(), *inode);
            }
            Self::Rename { from, to, inode } => {
                if names.get(from) == Some(inode) {
                    names.remove(from);
                }
                names.insert(to.clone(), *inode);
            }
            Self::Remove { name, inode } => {
                if names.get(name) == Some(inode) {
                    names.remove(name);
                }
            }
        }
    }
}

impl Fates {
    fn new(seed: u64) -> Self {
        let random = MemoryRandom::new(seed);
        let kept_per_million = [50_000, 330_000, 500_000, 900_000][random.below(4) as usize];
        let torn_per_million = (1_000_000 - kept_per_million) / 2;
        Self { random, kept_per_million, torn_per_million }
    }

    fn keeps(&self) -> bool {
        self.random.below(1_000_000) < self.kept_per_million
    }

    fn settle(&self, mut bytes: Pages, mut writes: Vec<&VolatileWrite>, counts: &mut FaultCounts) -> Pages {
        if self.random.below(2) == 0 {
            for last in (1..writes.len()).rev() {
                writes.swap(last, self.random.below(last as u64 + 1) as usize);
            }
        }
        for write in writes {
            let fate = self.random.below(1_000_000);
            if fate < self.kept_per_million {
                bytes.overlay(write.offset, &write.bytes);
                counts.writes_kept += 1;
            } else if fate < self.kept_per_million + self.torn_per_million {
                self.tear(&mut bytes, write);
                counts.writes_torn += 1;
            } else {
                // The size may have grown although the data is lost.
                if self.random.below(4) == 0 {
                    bytes.grow(write.offset + write.bytes.len());
                }
                counts.writes_lost += 1;
            }
        }
        bytes
    }

    fn tear(&self, bytes: &mut Pages, write: &VolatileWrite) {
        for from in (0..write.bytes.len()).step_by(SECTOR_BYTES) {
            if self.random.below(2) == 0 {
                let length = SECTOR_BYTES.min(write.bytes.len() - from);
                bytes.overlay_part(write.offset, &write.bytes, from, length);
            }
        }
    }
}
