//! Why `antiphon store` cannot do what it is asked for, and what to do about it.

use std::{io, path::PathBuf};

use antiphon_engine::{
    EngineError,
    error::StoreError,
    offline::{LoadError, RestoreError},
};

use super::lanes::ChangeError;
use crate::{encryption::KeyError, handover::HandoverError, store_folder::StoreFolderError};

/// Every variant says what to do, here or by its hint.
#[derive(Debug, thiserror::Error)]
pub(super) enum ToolError {
    /// Give another path.
    #[error("{folder}: there is no such folder")]
    NoFolder {
        /// Which.
        folder: PathBuf,
    },
    /// Give the folder that holds `lane-00`.
    #[error("{folder}: not a store's data folder: there is no lane-00 in it")]
    NoLanes {
        /// Which.
        folder: PathBuf,
    },
    /// Restore it, or ask for the others one by one.
    #[error("{folder}: there is no lane-{lane:02}: the folder was copied in part, or another lane was meant")]
    NoLane {
        /// Which.
        folder: PathBuf,
        /// The one that is missing.
        lane: u16,
    },
    /// Stop the node, or take a copy.
    #[error(
        "the data folder {folder} is in use by a node (process {owner}); stop it first, or use a `store checkpoint` of it"
    )]
    InUse {
        /// Which.
        folder: PathBuf,
        /// The node's process id.
        owner: String,
    },
    /// Give one of the checkpoints in it.
    #[error("{folder}: holds checkpoints, the newest is {newest}")]
    OfCheckpoints {
        /// Which.
        folder: PathBuf,
        /// The newest of them.
        newest: PathBuf,
    },
    /// Give a folder of its own.
    #[error("{folder}: is no folder of checkpoints: there is {name} in it")]
    NoShelf {
        /// Which.
        folder: PathBuf,
        /// What tells so.
        name: String,
    },
    /// Wait for the other.
    #[error("{folder}: another checkpoint is being made there")]
    Busy {
        /// Which.
        folder: PathBuf,
    },
    /// See to what the node says, or stop it.
    #[error("{folder}: {source}")]
    Refused {
        /// The data folder.
        folder: PathBuf,
        /// What the node said.
        source: HandoverError,
    },
    /// Take another checkpoint.
    #[error("{path}: {what}")]
    Checkpoint {
        /// What tells of it.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Name each lane of the store once.
    #[error("--until-position: lane {lane} {what}")]
    UntilLane {
        /// Which.
        lane: u16,
        /// What is wrong with it.
        what: String,
    },
    /// The lane cannot be restored.
    #[error("lane-{lane:02}: {source}")]
    Restore {
        /// Which lane.
        lane: u16,
        /// Why.
        source: RestoreError,
    },
    /// Give another folder, or empty this one.
    #[error("{folder}: is not empty; a store is made in a new folder only")]
    NotEmpty {
        /// Which.
        folder: PathBuf,
    },
    /// The lane's store cannot be used.
    #[error("lane-{lane:02}: {source}")]
    Lane {
        /// Which lane.
        lane: u16,
        /// Why.
        source: EngineError,
    },
    /// The dump cannot be loaded.
    #[error("lane-{lane:02}: {source}")]
    Load {
        /// Which lane.
        lane: u16,
        /// Why.
        source: LoadError,
    },
    /// The dump is not one, or not whole.
    #[error("the dump's line {line}: {what}")]
    Dump {
        /// Counted from 1.
        line: u64,
        /// What is wrong with it.
        what: String,
    },
    /// The system refuses.
    #[error("{path}: {source}")]
    Io {
        /// Which path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The new folder cannot be made, or is in use.
    #[error(transparent)]
    Folder(#[from] StoreFolderError),
    /// The number of lanes stays as it is.
    #[error(transparent)]
    Lanes(#[from] ChangeError),
    /// See to the key.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl ToolError {
    pub(super) const fn lane(lane: u16, source: EngineError) -> Self {
        Self::Lane { lane, source }
    }

    /// The process's exit code.
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::Lane {
                source: EngineError::Store(StoreError::Damaged { .. }) | EngineError::LogMissing { .. },
                ..
            }
            | Self::Load { source: LoadError::Line { .. }, .. }
            | Self::Restore { source: RestoreError::Unsound(_), .. }
            | Self::Restore {
                source:
                    RestoreError::Engine(EngineError::Store(StoreError::Damaged { .. }) | EngineError::LogMissing { .. }),
                ..
            }
            | Self::Checkpoint { .. }
            | Self::Dump { .. } => 1,
            Self::Lanes(error) if error.is_damage() => 1,
            _ => 2,
        }
    }

    /// What to do.
    pub(super) fn hint(&self) -> Option<&'static str> {
        let error = match self {
            Self::Lane { source, .. }
            | Self::Load { source: LoadError::Engine(source), .. }
            | Self::Restore { source: RestoreError::Engine(source), .. } => source,
            Self::Restore { source: RestoreError::Unsound(_), .. } | Self::Checkpoint { .. } => {
                return Some(
                    "Restore another checkpoint, or `antiphon store repair` this one into a new folder; nothing was kept.",
                );
            }
            Self::Restore { source: RestoreError::Beyond { .. }, .. } => {
                return Some("Take a later checkpoint, or an earlier point; nothing was kept.");
            }
            Self::Restore { source: RestoreError::OtherLanes { .. }, .. } => {
                return Some(
                    "Say a time (--until-time), or take a checkpoint from before the change; nothing was kept.",
                );
            }
            Self::OfCheckpoints { .. } => return Some("Give the one that you mean."),
            Self::NoShelf { .. } => return Some("Give a folder that holds nothing but checkpoints, or a new one."),
            Self::Refused { .. } => {
                return Some("Nothing was made. Try again, or stop the node and make it of the folder at rest.");
            }
            Self::Load { .. } | Self::Dump { .. } => return Some("Make the dump anew; nothing of it was kept."),
            _ => return None,
        };
        hint(error)
    }
}

/// What to do about a lane that cannot be opened.
pub(crate) fn hint(error: &EngineError) -> Option<&'static str> {
    match error {
        EngineError::Store(StoreError::NewerVersion { .. }) => {
            Some("A newer version of antiphon has written it: use that one.")
        }
        EngineError::Store(StoreError::ManifestMissing) => {
            Some("This is no lane of a store: give the data folder that holds lane-00, or restore the lane.")
        }
        EngineError::ManifestLost { .. }
        | EngineError::LogMissing { .. }
        | EngineError::Store(StoreError::SegmentMissing { .. }) => Some("Restore the folder from a whole copy."),
        EngineError::Store(StoreError::ForeignStore { .. }) | EngineError::OtherLane { .. } => {
            Some("Files or folders of several stores or lanes were mixed: restore each from its own copy.")
        }
        EngineError::KeyNeeded => {
            Some("Give it: --encryption-key-file or --encryption-key-command, of a node encryption.key_file.")
        }
        EngineError::NotEncrypted => Some(
            "A store is encrypted from its making or not at all: dump it, and load it into a new folder with the key.",
        ),
        EngineError::OtherKey { .. } => Some("Give the key that the store was made or last rewrapped with."),
        EngineError::Store(StoreError::File(_)) => Some("See to the disk and to the permissions of the folder."),
        EngineError::Store(StoreError::Damaged { .. }) => {
            Some("`antiphon store verify` tells all that is damaged, and whose it is.")
        }
        _ => None,
    }
}
