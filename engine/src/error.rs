//! What can go wrong with stored data: one error for the whole engine, every variant with what a reader of it can do.

use std::{
    fmt,
    ops::{Bound, RangeBounds},
};

use crate::seams::FileError;

/// A failure of storage. It is logged where it is handled, once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused. [`FileError::Full`] passes when there is room again; anything else asks for the disk to be
    /// looked at.
    #[error(transparent)]
    File(#[from] FileError),
    /// Bytes on disk are not what was written. Keys outside of `keys` are not affected; those inside are to be quarantined, and
    /// restored from a copy.
    #[error("{file}: damage at byte {offset}: {what}; keys {keys}")]
    Damaged {
        /// The file's name.
        file: String,
        /// Where the damaged block begins.
        offset: u64,
        /// What does not hold.
        what: &'static str,
        /// Whose rows are concerned.
        keys: DamagedKeys,
    },
    /// Written by a newer version of this program: start that one.
    #[error(
        "{file}: format version {found} is newer than {supported}, the newest that this program reads; start the version \
         that wrote it"
    )]
    NewerVersion {
        /// The file's name.
        file: String,
        /// The version in the file.
        found: u32,
        /// The newest supported version.
        supported: u32,
    },
    /// The file belongs to another store: a folder was mixed or half copied.
    #[error("{file}: belongs to store {found:016x}, not to {expected:016x}")]
    ForeignStore {
        /// The file's name.
        file: String,
        /// The store named in the file.
        found: u64,
        /// The store that was opened.
        expected: u64,
    },
    /// The manifest names a segment file that is not there: the folder was half copied, or someone removed it.
    #[error("{file}: named by the manifest, but missing")]
    SegmentMissing {
        /// The file's name.
        file: String,
    },
    /// There is no manifest: the folder is new, or not a store.
    #[error("manifest: there is none")]
    ManifestMissing,
    /// A manifest exists where a new store was to be made.
    #[error("manifest: there is one already")]
    ManifestExists,
    /// The future of an earlier edit of the manifest was dropped half way, so what is on disk is unknown until the store is opened
    /// again.
    #[error("manifest: an edit was abandoned half way; open the store again")]
    EditAbandoned,
}

/// The keys that a damaged part of a file can have held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedKeys {
    /// The least of them.
    pub start: Bound<Vec<u8>>,
    /// The greatest of them.
    pub end: Bound<Vec<u8>>,
}

impl DamagedKeys {
    /// Damage that may concern any key.
    #[must_use]
    pub const fn all() -> Self {
        Self { start: Bound::Unbounded, end: Bound::Unbounded }
    }

    /// Damage that may concern the keys `first ..= last`.
    #[must_use]
    pub fn between(first: &[u8], last: &[u8]) -> Self {
        Self { start: Bound::Included(first.to_vec()), end: Bound::Included(last.to_vec()) }
    }

    /// Whether the damage may concern `key`.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        let (start, end) = (self.start.as_ref().map(Vec::as_slice), self.end.as_ref().map(Vec::as_slice));
        RangeBounds::<[u8]>::contains(&(start, end), key)
    }
}

impl fmt::Display for DamagedKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.start {
            Bound::Included(key) => write!(formatter, "from {}", Hex(key))?,
            Bound::Excluded(key) => write!(formatter, "after {}", Hex(key))?,
            Bound::Unbounded => formatter.write_str("from the beginning")?,
        }
        match &self.end {
            Bound::Included(key) => write!(formatter, " up to {}", Hex(key)),
            Bound::Excluded(key) => write!(formatter, " before {}", Hex(key)),
            Bound::Unbounded => formatter.write_str(" to the end"),
        }
    }
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}
