//! Why an engine cannot be opened. Refusals of commands are [`crate::door::Refusal`], not these.

use crate::{error::StoreError, seams::FileError};

/// Why an engine cannot be opened or closed. Nothing was lost.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The store cannot be read or written: the error says what to do.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The folder holds another lane: the node's folders were mixed up.
    #[error("the folder holds lane {found}, not lane {expected}")]
    OtherLane {
        /// The lane in the manifest.
        found: u32,
        /// The lane of the options.
        expected: u16,
    },
    /// There are log files or segments but no manifest: the folder was copied in part. Restore the rest.
    #[error("{file}: there is no manifest beside it: the folder was copied in part")]
    ManifestLost {
        /// One of them.
        file: String,
    },
    /// Log files that came into use are missing: the folder was copied in part. Restore the rest.
    #[error("log: the files of generation {first} to {last} are missing: the folder was copied in part")]
    LogMissing {
        /// First missing generation.
        first: u64,
        /// Last missing generation.
        last: u64,
    },
    /// Options that contradict each other or the store.
    #[error("{option}: {what}")]
    Options {
        /// The option's name.
        option: &'static str,
        /// What is wrong with it.
        what: String,
    },
    /// The store is encrypted, and no key was given: give the node's.
    #[error("the store is encrypted: its key is needed")]
    KeyNeeded,
    /// A key was given for a store that is not encrypted: a store is encrypted from its making, or not at all. Dump it and load it into a
    /// new one.
    #[error("a key is given, but the store is not encrypted")]
    NotEncrypted,
    /// Another key was given than the one that the store's data keys are wrapped with.
    #[error("the store's key is {expected:016x}, not {found:016x}")]
    OtherKey {
        /// Which key was given, by its id.
        found: u64,
        /// Which one is needed.
        expected: u64,
    },
    /// The log failed: what was not answered before is not stored.
    #[error("{0}")]
    Fenced(String),
    /// A checkpoint is being made already: wait for that one.
    #[error("another checkpoint is being made")]
    CheckpointBusy,
    /// What a checkpoint needs on disk could not be written there: see to the disk; it is tried again.
    #[error("the log could not be brought into a segment: {0}")]
    FlushFailed(String),
    /// The engine was closed meanwhile.
    #[error("the engine was closed")]
    Closed,
}

impl From<FileError> for EngineError {
    fn from(error: FileError) -> Self {
        Self::Store(error.into())
    }
}
