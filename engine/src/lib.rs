//! Antiphon's log engine: conversations as durable, gap-free logs.
//!
//! Logic without IO: files, clock and randomness come in through [`seams`]. Single-threaded and async; it never spawns and never
//! blocks. Start at [`door`] for what it does, at [`Engine`] for how to run it, at [`seams`] for what it needs.

mod account;
mod bytes;
pub mod cache;
mod changes;
mod checkpoint;
pub mod compaction;
mod conversation;
pub mod door;
pub mod encryption;
mod engine;
pub mod error;
mod flush;
#[doc(hidden)]
pub mod fuzzing;
mod group;
mod hash;
mod keys;
mod lane;
mod layout;
pub mod manifest;
#[cfg(any(test, feature = "simulation"))]
pub mod memory_files;
mod memtable;
mod merge;
mod newest_ids;
pub mod offline;
mod options;
pub mod partitions;
#[cfg(feature = "planted")]
pub mod planted;
mod report;
pub mod row;
mod rows;
pub mod runs;
mod scrub;
pub mod seams;
pub mod segment;
mod signal;
pub mod sorted;
#[cfg(any(test, feature = "simulation"))]
pub mod stored_rows;
mod window;

pub use checkpoint::Checkpointed;
pub use engine::{Engine, EngineError};
pub use options::EngineOptions;
pub use report::{LogDamage, LostRange, OpenReport, Status, TornTail};
