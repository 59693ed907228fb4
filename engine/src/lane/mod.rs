//! The log lane: where a record becomes durable.
//!
//! [`mod@format`], [`record`] and [`sealed`] are the bytes, [`log`] the files and the writing of one batch at a time, [`recovery`] the
//! reading after a start, [`found`] and [`window`] the looking at files and pages for it, [`witness`] what batches tell of each other and
//! [`limit`] what a file tells of its end for that, and [`prepare`] the making of new log files. docs/format.md draws the layout.

pub(crate) mod format;
pub(crate) mod found;
pub(crate) mod limit;
pub(crate) mod log;
pub(crate) mod prepare;
pub(crate) mod record;
pub(crate) mod recovery;
pub(crate) mod sealed;
pub(crate) mod window;
pub(crate) mod witness;
