//! Which faults are planned, and how many were injected.

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
}

impl OperationKind {
    /// Every kind.
    pub const ALL: [Self; 8] =
        [Self::Open, Self::List, Self::Rename, Self::Remove, Self::SyncFolder, Self::Read, Self::Write, Self::Sync];
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
}
