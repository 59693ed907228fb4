//! What a run did and which faults it met, counted by kind; a kind that stays at nought over many seeds is a hole.

macro_rules! counts {
    ($($(#[$doc:meta])* $variant:ident $name:literal;)*) => {
        /// What is counted.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Count { $($(#[$doc])* $variant,)* }

        impl Count {
            /// All kinds, in the order of the report.
            pub const ALL: &'static [(Self, &'static str)] = &[$((Self::$variant, $name),)*];
        }
    };
}

counts! {
    /// Entries that applications were given.
    Entries "entries delivered";
    /// Sends that applications made.
    Sends "sends";
    /// Sends acknowledged.
    Acks "acknowledged";
    /// Of these, known before.
    Duplicates "duplicates";
    /// Sends refused because their id was used for another body.
    Conflicts "conflicts";
    /// Sends and requests refused because the user is not a member.
    NotFound "not found";
    /// Creations and additions refused because somebody had enough conversations.
    LimitReached "limit reached";
    /// Refused for another reason.
    Refused "other refusals";
    /// Pages of history read.
    HistoryPages "history pages";
    /// Groups and direct conversations made.
    Conversations "conversations made";
    /// Members added and removed, titles set.
    Changes "membership and titles";
    /// Pointers moved.
    Marks "pointers moved";
    /// Receipts seen.
    Receipts "receipts";
    /// Sessions that resumed by a position.
    Resumed "sessions resumed";
    /// Sessions without a position.
    Fresh "sessions fresh";
    /// Conversations of which a resume streamed nothing.
    Skipped "entries skipped after joining again";
    /// Times a user was told that it left.
    Left "left";
    /// Entries checked by the last reading of everything.
    Audited "entries audited";
    /// Deliveries whose right could not be judged, for want of the log's beginning.
    Unjudged "deliveries not judged";
    /// Memtables flushed.
    Flushes "flushes";
    /// Compactions.
    Compactions "compactions";
    /// Log batches replayed.
    Replayed "batches replayed";
    /// Torn tails cut.
    TornTails "torn tails cut";
    /// Log files that were made or used again.
    LogBytes "log bytes written";
    /// Reads of segments.
    CacheMisses "segment blocks read";
    /// Mesh frames that found a full queue.
    MeshFull "fault: mesh queue full";
    /// Connections cut, both sides told.
    Cuts "fault: connection cut";
    /// Connections that went silent.
    Silences "fault: connection silent";
    /// Clients that stopped reading for a while.
    Stalls "fault: client stalled";
    /// Clients that restarted with all they had.
    RestartsKept "fault: client restart, state kept";
    /// Clients that restarted from an older state.
    RestartsBack "fault: client restart, older state";
    /// Clients that restarted with nothing.
    RestartsLost "fault: client restart, state lost";
    /// A second connection of the same device.
    Replaced "fault: device connected twice";
    /// The power failed.
    Crashes "fault: power lost";
    /// The process was killed.
    Kills "fault: process killed";
    /// The power failed or the process was killed while opening.
    CrashesOpening "fault: crash while opening";
    /// The node was restarted in order.
    Drains "fault: graceful restart";
    /// The wall clock jumped.
    ClockJumps "fault: clock jump";
    /// Volatile writes that a crash lost.
    WritesLost "fault: unsynced writes lost";
    /// Volatile writes that a crash tore.
    WritesTorn "fault: unsynced writes torn";
    /// Volatile writes that a crash kept, perhaps in another order.
    WritesKept "fault: unsynced writes kept";
    /// Names that a crash lost.
    NamesLost "fault: unsynced names lost";
    /// Failed reads.
    ReadErrors "fault: EIO on read";
    /// Failed writes.
    WriteErrors "fault: EIO on write";
    /// Failed syncs.
    SyncErrors "fault: EIO on sync";
    /// Failed operations on names.
    NameErrors "fault: EIO on names";
    /// Writes that a failed sync made never durable.
    WritesDoomed "fault: writes doomed by a failed sync";
    /// Writes refused for want of room.
    Full "fault: disk full";
    /// Bits flipped in segments.
    FlipsSegment "fault: bit flipped in a segment";
    /// Bits flipped in the log.
    FlipsLog "fault: bit flipped in the log";
    /// Bits flipped elsewhere.
    FlipsOther "fault: bit flipped elsewhere";
    /// Sectors that can't be read any more.
    BrokenRanges "fault: unreadable sectors";
    /// Lanes that latched an error.
    Fenced "lanes fenced";
    /// Lanes opened for reading only.
    ReadOnly "lanes opened read-only";
    /// Lanes that could not be opened.
    OpenRefused "lanes not opened";
    /// Answers that said `damaged`.
    DamageTold "damage told";
    /// Answers that said `storage_full`.
    FullTold "storage full told";
    /// Answers that said `storage_failed`.
    FailureTold "storage failure told";
    /// Sessions closed as slow consumers.
    SlowConsumers "slow consumers closed";
    /// Sessions closed because they were silent.
    Silent "silent sessions closed";
}

/// Counts by kind.
#[derive(Debug, Clone)]
pub struct Coverage([u64; Count::ALL.len()]);

impl Default for Coverage {
    fn default() -> Self {
        Self([0; Count::ALL.len()])
    }
}

impl Coverage {
    /// Counts some.
    pub fn add(&mut self, kind: Count, by: u64) {
        self.0[kind as usize] += by;
    }

    /// Counts one.
    pub fn one(&mut self, kind: Count) {
        self.add(kind, 1);
    }

    /// How many.
    #[must_use]
    pub fn get(&self, kind: Count) -> u64 {
        self.0[kind as usize]
    }

    /// Adds another run's.
    pub fn join(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(mine, theirs)| *mine += theirs);
    }
}
