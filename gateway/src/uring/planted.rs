//! Bugs for tests of power cuts to find, compiled only with the feature `planted` and off until a test switches one
//! on for its thread.

use std::cell::Cell;

/// Which promise of the file layer is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// Log files are opened without `O_DSYNC`: a completed write may still be in the disk's own memory.
    WritesNotSynchronous,
    /// Files and folders are not synced: what names and sizes they have is up to the file system's journal.
    SyncsSkipped,
}

thread_local! {
    static LIE: Cell<Option<Lie>> = const { Cell::new(None) };
}

/// From now on, files of this thread lie.
pub fn lie(lie: Lie) {
    LIE.set(Some(lie));
}

pub(super) fn open_flags(flags: i32) -> i32 {
    if LIE.get() == Some(Lie::WritesNotSynchronous) { flags & !libc::O_DSYNC } else { flags }
}

pub(super) fn skips_syncs() -> bool {
    LIE.get() == Some(Lie::SyncsSkipped)
}
