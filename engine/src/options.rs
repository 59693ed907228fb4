//! What an engine may be told, with defaults and their reasons, and the rules between the options.

use antiphon_wire::limits::CONVERSATIONS_PER_USER_MAX;

use crate::{encryption::NodeKey, engine::EngineError, lane::format::BATCH_BYTES_LIMIT, seams::PAGE_BYTES};

/// Largest record: a group's first entry with all its members' names, with room to spare.
pub(crate) const RECORD_BYTES_MAX: usize = 128 * 1024;

/// Options of [`crate::Engine::open`]. All but `lane` may differ from one opening to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineOptions {
    /// Which log lane of the node this is. Stored; opening the folder as another lane is refused.
    pub lane: u16,
    /// The node's key, of a store that is encrypted; a new one is encrypted if it is given. Which of the two a store is never changes.
    pub encryption: Option<NodeKey>,
    /// Size of a log file. 64 MiB: a file lasts for seconds at the highest rates measured, so that files change seldom, and the
    /// first writing of one takes a fraction of a second. Development uses 16 MiB. Files of another size are still read, and
    /// replaced when they are free.
    pub log_file_bytes: u64,
    /// Most log files, and with `log_file_bytes` the bound of recovery. 5: one that is written, one ready, and
    /// three whose records wait for the flush.
    pub log_files_max: u32,
    /// Size at which the memtable is sealed and flushed. 32 MiB: segments large enough that compaction has little to do. At most
    /// one sealed and one active exist.
    pub memtable_bytes: usize,
    /// Age at which the memtable is flushed though it is small: ten minutes. It bounds what a restart replays on a quiet node.
    pub memtable_age_ms_max: u64,
    /// Bytes of segment blocks kept in memory: 256 MiB, the latest pages of some ten thousand conversations.
    pub cache_bytes: usize,
    /// How long a client message id is remembered, in milliseconds: a retry within that time is answered as the first send was. A week: a
    /// device that was without a network for a holiday still knows whether its message was stored. From a minute to ten years.
    pub message_ids_window_ms: u64,
    /// Within how long the bytes of what was erased are gone from the disk, in milliseconds, whatever segment they lie in: a day. Each
    /// segment that knows something erased is written anew once in half that time. At least a minute.
    pub reclaim_ms_max: u64,
    /// Bytes a second that are read of segments for their checksums alone, so that damage is found before somebody needs what is damaged; 0:
    /// none. Off by default here: a node says 4 MiB, which is a thirtieth of a slow disk, and a terabyte in three days.
    pub scrub_bytes_per_second: u64,
    /// So long after a reading of all segments has begun the next one begins, at the soonest: an hour. What is stored rots in years.
    pub scrub_round_ms_min: u64,
    /// Bytes of filters of message ids kept in memory: 32 MiB, ten million ids, which is what a thousand fresh sends a second need to be
    /// told from retries without a read for the ids of the last hours, and far more than ids that say their time need.
    pub message_id_filter_bytes: usize,
    /// Bytes of conversations' state (members, pointers) kept in memory: 64 MiB, about 100,000 groups of ten.
    pub conversations_bytes_max: usize,
    /// Conversations whose last position is remembered for resumes after they left memory: 65 bytes each, 450,000 make 30 MB.
    /// One that is not remembered costs a resume from before the last flush one small read.
    pub tails_max: usize,
    /// Most conversations of this lane that a user may be a member of: the protocol's limit.
    pub conversations_per_user_max: usize,
    /// Users of whom the number of conversations is remembered: about 150 bytes each, 65,536 make 10 MB. One who is not costs the
    /// next joining one look at all of the user's conversations.
    pub user_counts_max: usize,
    /// Largest batch, and the bound of what waits while a batch is being written: 1 MiB, about a millisecond of the disk.
    pub batch_bytes_max: usize,
    /// Most reads from segments under way at once: 16. With more a disk gives little more, and a write of the log takes longer for each of them:
    /// 1.0 ms beside 16, 3.8 ms beside 64 on the measured one.
    pub reads_in_flight_max: usize,
    /// Most commands that wait for a read, over all conversations: 16,384, of up to 17 KiB each, mostly far smaller. Those that only read
    /// find room in three quarters of it.
    pub commands_waiting_max: usize,
    /// Most commands that wait on one conversation: 1,024, a second of the busiest group.
    pub commands_waiting_per_conversation_max: usize,
}

impl EngineOptions {
    /// The defaults, for a lane.
    #[must_use]
    pub fn new(lane: u16) -> Self {
        Self {
            lane,
            encryption: None,
            log_file_bytes: 64 * 1024 * 1024,
            log_files_max: 5,
            memtable_bytes: 32 * 1024 * 1024,
            memtable_age_ms_max: 10 * 60 * 1000,
            cache_bytes: 256 * 1024 * 1024,
            message_ids_window_ms: 7 * 24 * 60 * 60 * 1000,
            reclaim_ms_max: 24 * 60 * 60 * 1000,
            scrub_bytes_per_second: 0,
            scrub_round_ms_min: 60 * 60 * 1000,
            message_id_filter_bytes: 32 * 1024 * 1024,
            conversations_bytes_max: 64 * 1024 * 1024,
            tails_max: 450_000,
            conversations_per_user_max: CONVERSATIONS_PER_USER_MAX,
            user_counts_max: 65_536,
            batch_bytes_max: 1024 * 1024,
            reads_in_flight_max: 16,
            commands_waiting_max: 16_384,
            commands_waiting_per_conversation_max: 1_024,
        }
    }

    /// Defaults for development: small log files, little memory.
    #[must_use]
    pub fn development(lane: u16) -> Self {
        Self {
            log_file_bytes: 16 * 1024 * 1024,
            memtable_bytes: 8 * 1024 * 1024,
            cache_bytes: 16 * 1024 * 1024,
            message_id_filter_bytes: 8 * 1024 * 1024,
            conversations_bytes_max: 16 * 1024 * 1024,
            tails_max: 100_000,
            ..Self::new(lane)
        }
    }

    /// Log bytes that one memtable may cover: half of what is there beyond the file being written, so that a sealed and an
    /// active one fit at once.
    pub(crate) fn log_bytes_per_memtable(&self) -> u64 {
        (u64::from(self.log_files_max) - 1) * self.log_file_bytes / 2
    }

    /// Checks the options against each other.
    pub(crate) fn check(&self) -> Result<(), EngineError> {
        let refuse = |option, what: String| Err(EngineError::Options { option, what });
        if !self.log_file_bytes.is_multiple_of(PAGE_BYTES as u64) {
            return refuse("log_file_bytes", format!("must be a multiple of {PAGE_BYTES}"));
        }
        let (least, most) = (2 * RECORD_BYTES_MAX, BATCH_BYTES_LIMIT);
        if !self.batch_bytes_max.is_multiple_of(PAGE_BYTES) || !(least..=most).contains(&self.batch_bytes_max) {
            // What recovery reads at once bounds it from above.
            let what = format!("must be a multiple of {PAGE_BYTES}, at least {least} and at most {most}");
            return refuse("batch_bytes_max", what);
        }
        if self.log_file_bytes < 2 * self.batch_bytes_max as u64 {
            return refuse("log_file_bytes", "must hold at least two batches of batch_bytes_max".into());
        }
        if self.log_files_max < 3 {
            return refuse("log_files_max", "must be at least 3: one written, one ready, one being flushed".into());
        }
        if !(60_000..=10 * 366 * 24 * 60 * 60 * 1000).contains(&self.message_ids_window_ms) {
            return refuse("message_ids_window_ms", "must be at least a minute and at most ten years".into());
        }
        if self.reclaim_ms_max < 60_000 {
            return refuse("reclaim_ms_max", "must be at least a minute".into());
        }
        for (option, value) in [
            ("memtable_bytes", self.memtable_bytes),
            ("reads_in_flight_max", self.reads_in_flight_max),
            ("commands_waiting_max", self.commands_waiting_max),
            ("commands_waiting_per_conversation_max", self.commands_waiting_per_conversation_max),
        ] {
            if value == 0 {
                return refuse(option, "must not be 0".into());
            }
        }
        Ok(())
    }
}
