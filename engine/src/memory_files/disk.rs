//! The disk.

/// The disk.
pub(super) struct Disk;

/// An open file.
pub(super) struct Handle;
