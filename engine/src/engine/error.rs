//! Why an engine cannot be opened, or a part of it cannot be read. Refusals of commands are [`crate::door::Refusal`], not these.

use crate::seams::FileError;

/// Why an engine cannot be opened. Nothing was written unless the text says so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The operating system said no. Look at the file and the disk; opening again is safe.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file of a newer format: open it with the version of the program that wrote it, or a later one.
    #[error("{file}: format version {found}, this program knows up to {known}")]
    NewerVersion {
        /// The file's name.
        file: String,
        /// What it says.
        found: u16,
        /// The newest that is known here.
        known: u16,
    },
    /// A file whose bytes contradict their checksum or their form, and that cannot be done without. Restore it from a backup.
    #[error("{file}: damaged at byte {offset}: {what}")]
    Damaged {
        /// The file's name.
        file: String,
        /// Where in the file.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// A file of another store or another lane: the folder was mixed up.
    #[error("{file}: {what}")]
    Foreign {
        /// The file's name.
        file: String,
        /// What tells so.
        what: String,
    },
    /// A file that the others speak of is missing: the folder was copied in part.
    #[error("{file}: missing, but {why}")]
    Missing {
        /// The file's name.
        file: String,
        /// Who speaks of it.
        why: String,
    },
    /// Options that contradict each other or the store.
    #[error("{option}: {what}")]
    Options {
        /// The option's name.
        option: &'static str,
        /// What is wrong with it.
        what: String,
    },
}
