//! What an engine tells about itself: what it found when it opened, and figures while it runs.

use antiphon_wire::ids::{ConversationId, LanePosition, Sequence};

use crate::error::StoreError;

/// What opening found and did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OpenReport {
    /// The folder was empty and a store was made.
    pub created: bool,
    /// The lane's last durable position.
    pub position: LanePosition,
    /// Positions up to here are in segments; the log was replayed from there.
    pub flushed_position: LanePosition,
    /// Bytes of log files that were read.
    pub log_bytes_read: u64,
    /// Batches replayed.
    pub batches: u64,
    /// Records replayed.
    pub records: u64,
    /// The last write had not completed when the node stopped: it was never acknowledged and is cut off.
    pub torn_tail: Option<TornTail>,
    /// Damage in the log. Any that is not harmless opens the lane for reading only.
    pub damage: Vec<LogDamage>,
    /// The lane takes no commands that store anything: see `damage`.
    pub read_only: bool,
    /// One error for each segment that cannot be read at all, because its header, footer, index or filter is damaged: keys in its range
    /// answer `damaged`, all others can be read. Damage in data is met when it is read: see [`Status::blocks_damaged`].
    pub segments_damaged: Vec<StoreError>,
    /// Files that an interrupted flush or compaction had left, and that were removed.
    pub leftovers_removed: Vec<String>,
}

/// An unfinished write at the log's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    /// The log file.
    pub file: String,
    /// Where the log now ends in it.
    pub offset: u64,
    /// What was wrong there.
    pub what: String,
}

/// A stretch of the log that cannot be read though valid batches follow it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogDamage {
    /// The log file.
    pub file: String,
    /// Where the damaged stretch begins.
    pub offset: u64,
    /// What is wrong there.
    pub what: String,
    /// First position in it.
    pub first: LanePosition,
    /// Last position in it.
    pub last: LanePosition,
    /// All of it is in segments already: nothing is lost.
    pub harmless: bool,
    /// `conversations` names every conversation concerned. Otherwise more than one batch was lost in a row: any conversation of the
    /// lane may be concerned, and none is shown, since who may see it is not known.
    pub all_known: bool,
    /// The entries that are lost.
    pub conversations: Vec<LostRange>,
}

/// Entries of one conversation that are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LostRange {
    /// Which.
    pub conversation: ConversationId,
    /// First lost sequence.
    pub first: Sequence,
    /// Last lost sequence.
    pub last: Sequence,
}

/// Figures of a running engine. Counters count from opening and only grow; the rest are states.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Durable up to here.
    pub position: LanePosition,
    /// In segments up to here.
    pub flushed_position: LanePosition,
    /// Why the lane stores nothing any more, if so.
    pub fenced: Option<String>,
    /// The disk is full: commands that store something are refused until there is room.
    pub storage_full: bool,
    /// Counter: records made durable.
    pub records: u64,
    /// Counter: batches written.
    pub batches: u64,
    /// Counter: bytes of batches written, with padding.
    pub batch_bytes: u64,
    /// Counter: bytes of records in those batches.
    pub record_bytes: u64,
    /// Counter: commands submitted.
    pub commands: u64,
    /// Counter: commands refused as `overloaded`.
    pub overloaded: u64,
    /// Counter: sends answered as duplicates.
    pub duplicates: u64,
    /// Counter: conversations loaded from memtable and segments.
    pub loads: u64,
    /// Counter: lookups of message ids for which a segment had to be looked into, or a part of its filter had to be read.
    pub idempotency_reads: u64,
    /// Counter: sends refused because their id is older than ids are remembered.
    pub too_old: u64,
    /// Ids that were made before this time are forgotten, in milliseconds since 1970; 0 if none are yet.
    pub ids_forgotten_until_ms: u64,
    /// Ids that do not say when they were made are, if their message was stored before this time.
    pub untimed_ids_forgotten_until_ms: u64,
    /// Bytes of filters of message ids in memory.
    pub message_id_filter_bytes: usize,
    /// Counter: segments that were dropped whole because everything in them was forgotten.
    pub segments_expired: u64,
    /// Counter: memtables flushed.
    pub flushes: u64,
    /// Counter: compactions done.
    pub compactions: u64,
    /// Counter: segments written anew because something in them was erased, or had erased something.
    pub segments_reclaimed: u64,
    /// Counter: maintenance work that failed (a full disk, an error) and is tried again.
    pub maintenance_failures: u64,
    /// The last such failure's words.
    pub maintenance_failure: Option<String>,
    /// A batch is being written.
    pub write_in_flight: bool,
    /// Bytes of records that wait for the next batch.
    pub batch_waiting_bytes: usize,
    /// Commands that wait for a read or behind one that does.
    pub commands_waiting: usize,
    /// Reads under way.
    pub reads_in_flight: usize,
    /// Outputs that wait to be polled.
    pub outputs_waiting: usize,
    /// Bytes in the active memtable.
    pub memtable_bytes: usize,
    /// Bytes in the sealed memtable, if there is one.
    pub memtable_sealed_bytes: usize,
    /// Conversations whose state is in memory.
    pub conversations_loaded: usize,
    /// Log files that exist.
    pub log_files: usize,
    /// Bytes of log that are not in segments yet: what a restart would replay.
    pub log_bytes_unflushed: u64,
    /// Damaged stretches of the log that opening found.
    pub log_damaged: usize,
    /// Segments that opening found damaged as a whole.
    pub segments_damaged: usize,
    /// Counter: damaged blocks of segments that reads and compactions met; one that is met again counts again.
    pub blocks_damaged: u64,
    /// Counter: whole readings of all segments for their checksums alone.
    pub scrub_rounds: u64,
    /// Counter: bytes read for that.
    pub scrub_bytes: u64,
    /// Counter: damaged places that it found, each again with each round.
    pub scrub_damaged: u64,
    /// Damaged places that the last whole round found.
    pub scrub_damaged_last_round: u64,
    /// Segments.
    pub segments: usize,
    /// Their bytes; of adopted ones this lane's part.
    pub segment_bytes: u64,
    /// Bytes of memory that their indexes take.
    pub segment_index_bytes: usize,
    /// Bytes of memory that is held of their filters; parts that are read as they are asked for are in the cache of filters.
    pub segment_filter_bytes: usize,
    /// Bytes in the block cache.
    pub cache_bytes: usize,
    /// Counter: blocks found in the cache.
    pub cache_hits: u64,
    /// Counter: blocks read from disk.
    pub cache_misses: u64,
}
