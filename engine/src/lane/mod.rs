//! The log lane: where a record becomes durable.
//!
//! [`mod@format`], [`record`] and [`sealed`] are the bytes, [`log`] the files and the writing of one batch at a time, [`recovery`] the
//! reading after a start, [`witness`] what batches tell of each other for that, and [`prepare`] the making of new log files. docs/format.md
//! draws the layout.

pub(crate) mod format;
pub(crate) mod log;
pub(crate) mod prepare;
pub(crate) mod record;
pub(crate) mod recovery;
pub(crate) mod sealed;
pub(crate) mod witness;
