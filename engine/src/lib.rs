//! Antiphon's log engine: conversations as durable, gap-free logs.
//!
//! Logic without IO: files, clock and randomness come in through [`seams`]. Single-threaded and async; it never spawns and never
//! blocks. Start at [`door`] for what it does, at [`seams`] for what it needs.

mod bytes;
pub mod cache;
pub mod compaction;
pub mod door;
pub mod error;
#[doc(hidden)]
pub mod fuzzing;
pub mod manifest;
#[cfg(any(test, feature = "simulation"))]
pub mod memory_files;
mod merge;
pub mod row;
pub mod runs;
pub mod seams;
pub mod segment;
pub mod sorted;
