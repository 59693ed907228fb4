//! Which faults are planned, and how many were injected.

use super::MemoryRandom;

/// A kind of operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OperationKind {
    /// [`Files::open`](crate::seams::Files::open).
    Open,
    /// [`Files::list`](crate::seams::Files::list).
    List,
    /// [`Files::rename`](crate::seams::Files::rename).
    Rename,
    /// [`Files::remove`](crate::seams::Files::remove).
    Remove,
    /// [`Files::sync_folder`](crate::seams::Files::sync_folder).
    SyncFolder,
    /// [`File::read_at`](crate::seams::File::read_at).
    Read,
    /// [`File::write_at`](crate::seams::File::write_at).
    Write,
    /// [`File::sync`](crate::seams::File::sync).
    Sync,
    /// [`Files::share`](crate::seams::Files::share), counted by the folder that the file is put into.
    Share,
}

impl OperationKind {
    /// Every kind.
    pub const ALL: [Self; 9] = [
        Self::Open,
        Self::List,
        Self::Rename,
        Self::Remove,
        Self::SyncFolder,
        Self::Read,
        Self::Write,
        Self::Sync,
        Self::Share,
    ];
}

/// Faults injected so far, by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FaultCounts {
    /// Operations that failed with an I/O error, in the order of [`OperationKind::ALL`].
    pub errors: [u64; OperationKind::ALL.len()],
    /// Operations refused for want of room.
    pub full: u64,
    /// Bits flipped.
    pub bits_flipped: u64,
    /// Crashes.
    pub crashes: u64,
    /// Kills.
    pub kills: u64,
    /// Volatile writes that a crash kept, lost and tore.
    pub writes_kept: u64,
    /// See `writes_kept`.
    pub writes_lost: u64,
    /// See `writes_kept`.
    pub writes_torn: u64,
    /// Writes that were still in flight at a crash; they are counted above too.
    pub writes_in_flight: u64,
    /// Volatile changes of names that a crash kept and lost.
    pub names_kept: u64,
    /// See `names_kept`.
    pub names_lost: u64,
    /// Writes that a failed sync made never durable.
    pub writes_doomed: u64,
    /// Writes that were said to have failed and reached the disk later.
    pub writes_late: u64,
}

/// What is to fail.
pub(super) struct Faults {
    pub(super) random: MemoryRandom,
    pub(super) capacity_bytes: Option<u64>,
    once: Vec<(OperationKind, u64)>,
    per_million: [u32; OperationKind::ALL.len()],
    /// So many of the writes that fail reach the disk later.
    pub(super) late_per_million: u32,
}

impl Faults {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            random: MemoryRandom::new(seed),
            capacity_bytes: None,
            once: Vec::new(),
            per_million: [0; OperationKind::ALL.len()],
            late_per_million: 0,
        }
    }

    pub(super) fn without_plan(&self) -> Self {
        Self { capacity_bytes: self.capacity_bytes, ..Self::new(self.random.clone().peek()) }
    }

    pub(super) fn fail_nth(&mut self, kind: OperationKind, nth: u64) {
        self.once.push((kind, nth.max(1)));
    }

    pub(super) fn fail_randomly(&mut self, kind: OperationKind, per_million: u32) {
        self.per_million[kind as usize] = per_million;
    }

    /// Whether a write that fails reaches the disk later.
    pub(super) fn is_late(&self) -> bool {
        self.late_per_million > 0 && self.random.below(1_000_000) < u64::from(self.late_per_million)
    }

    /// Counts an operation; whether it is to fail.
    pub(super) fn submitted(&mut self, kind: OperationKind) -> bool {
        let mut fails = false;
        self.once.retain_mut(|(of, left)| {
            if *of != kind {
                return true;
            }
            *left -= 1;
            fails |= *left == 0;
            *left > 0
        });
        let chance = u64::from(self.per_million[kind as usize]);
        fails || (chance > 0 && self.random.below(1_000_000) < chance)
    }
}
