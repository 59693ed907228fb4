//! What a comparison asks of an engine's process and what it is told. Both are JSON, one line each. Times are
//! nanoseconds.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// The engine's folder.
    pub folder: PathBuf,
    /// Decides all messages and questions.
    pub seed: u64,
    /// How many conversations the messages go to.
    pub conversations: u32,
    /// Bytes of a message's text.
    pub text_bytes: usize,
    /// Which work.
    pub work: Work,
}

/// One kind of work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// Batches into an empty store.
    Append {
        /// Messages in each.
        batch: usize,
        /// How many are measured; a tenth as many come before.
        batches: usize,
        /// Bytes that the bare loop writes for each.
        write_bytes: usize,
    },
    /// Messages into an empty store, a pause until it has settled, a few more messages; then the process waits to be
    /// killed.
    Load {
        /// How many before the pause.
        messages: u64,
        /// How many after it.
        tail: u64,
        /// Messages in a batch.
        batch: usize,
    },
    /// Opens what was killed, and looks at every message.
    Reopen {
        /// How many were acknowledged.
        messages: u64,
    },
    /// Pages, none of which is in a cache; then the same ones again.
    Read {
        /// How many are stored.
        messages: u64,
        /// How many pages.
        pages: u32,
        /// The latest page of a conversation, or one from anywhere in it.
        latest: bool,
        /// Has the kernel drop all its caches, beside those of the engine's files. For root; it slows the whole
        /// machine.
        drop_caches: bool,
    },
}

/// What came of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// Of [`Work::Append`].
    Append(Append),
    /// Of [`Work::Load`], before the process waits to be killed.
    Load(Load),
    /// Of [`Work::Reopen`].
    Reopen(Reopen),
    /// Of [`Work::Read`].
    Read(Read),
}

/// How operations were spread.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latencies {
    /// How many.
    pub count: u64,
    /// Their sum: they came one after the other.
    pub sum_ns: u64,
    /// Half took no longer.
    pub p50_ns: u64,
    /// 99 of 100 took no longer.
    pub p99_ns: u64,
    /// The longest.
    pub max_ns: u64,
}

/// What the process used meanwhile.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// On a core, all threads.
    pub cpu_ns: u64,
    /// Runnable without a core, all threads: time that something else on the machine took.
    pub waited_ns: u64,
    /// Fetched from the disk, by `/proc/self/io`.
    pub read_bytes: u64,
    /// Given to system calls that write (`wchar` of `/proc/self/io`), which rings and memory maps are not. An engine that
    /// goes through the page cache and syncs has at least as much written.
    pub write_call_bytes: u64,
    /// Given to the disk (`write_bytes` of `/proc/self/io`). Exact for direct writes. What goes through the page cache
    /// counts when it is made dirty, by whole folios, of which less may be written: then no more than this is.
    pub write_bytes: u64,
    /// Written by the disk, by `/sys/block`, with what others wrote to it meanwhile. None where the disk is not known.
    pub device_write_bytes: Option<u64>,
}

/// Durable batches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Append {
    /// Messages that were measured.
    pub messages: u64,
    /// Of batches.
    pub latencies: Latencies,
    /// Over the batches.
    pub usage: Usage,
    /// Bytes of log writes, where the engine counts them.
    pub log_bytes: Option<u64>,
    /// Messages that were read back and equal.
    pub checked: u64,
}

/// Space in a folder.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Space {
    /// Blocks of all files.
    pub bytes: u64,
    /// Of which are logs.
    pub log_bytes: u64,
}

/// A store that was filled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// Messages before the pause.
    pub messages: u64,
    /// Of batches.
    pub latencies: Latencies,
    /// From the empty store to the last acknowledgement.
    pub usage: Usage,
    /// Then.
    pub space: Space,
    /// From the empty store until it had settled.
    pub settled_usage: Usage,
    /// Then.
    pub settled_space: Space,
    /// How long that took after the last acknowledgement.
    pub settle_ns: u64,
    /// Whether it did settle.
    pub settled: bool,
    /// Most resident memory so far.
    pub resident_peak_bytes: u64,
}

/// A store that was opened after a kill.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reopen {
    /// Until the engine said that it is open.
    pub open_ns: u64,
    /// From the beginning until the latest page of a conversation was read.
    pub first_read_ns: u64,
    /// From the beginning until one more message was durable.
    pub first_write_ns: u64,
    /// Over all that.
    pub usage: Usage,
    /// Messages that were read back and equal: all.
    pub checked: u64,
    /// Most resident memory, before they were read back.
    pub resident_peak_bytes: u64,
}

/// Pages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Read {
    /// The first time.
    pub cold: Latencies,
    /// Over it.
    pub cold_usage: Usage,
    /// The second time.
    pub warm: Latencies,
    /// Over it.
    pub warm_usage: Usage,
    /// Rows that were equal to what was written, of both.
    pub checked: u64,
    /// Most resident memory. What an engine leaves to the page cache is not part of it, what it has mapped is.
    pub resident_peak_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_survives_its_line() {
        let job = Job {
            folder: "target/x".into(),
            seed: 7,
            conversations: 3,
            text_bytes: 200,
            work: Work::Read { messages: 9, pages: 2, latest: true, drop_caches: false },
        };
        let line = serde_json::to_string(&job).unwrap();
        assert!(!line.contains('\n'));
        assert_eq!(serde_json::from_str::<Job>(&line).unwrap(), job);
    }
}
