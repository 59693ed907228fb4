//! What can go wrong with stored data: one error for the whole engine, every variant with what a reader of it can do.

use std::fmt;

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
    #[error("{file}: format version {found} is newer than {supported}, the newest that this program reads")]
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

/// The keys that a damaged block can have held: after `after`, without it, up to `last`, with it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DamagedKeys {
    /// The last key before the block; `None` if nothing comes before it.
    pub after: Option<Vec<u8>>,
    /// The block's last key; `None` if the damage may concern everything after `after`.
    pub last: Option<Vec<u8>>,
}

impl DamagedKeys {
    /// Damage that may concern any key.
    #[must_use]
    pub const fn all() -> Self {
        Self { after: None, last: None }
    }

    /// Whether the block can have held `key`.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        self.after.as_ref().is_none_or(|after| key > after.as_slice())
            && self.last.as_ref().is_none_or(|last| key <= last.as_slice())
    }
}

impl fmt::Display for DamagedKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("after ")?;
        write_key(formatter, self.after.as_deref(), "the beginning")?;
        formatter.write_str(" up to ")?;
        write_key(formatter, self.last.as_deref(), "the end")
    }
}

fn write_key(formatter: &mut fmt::Formatter<'_>, key: Option<&[u8]>, none: &str) -> fmt::Result {
    let Some(key) = key else { return formatter.write_str(none) };
    key.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
}
