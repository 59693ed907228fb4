//! Antiphon's log engine: conversations as durable, gap-free logs.
//!
//! Logic without IO: files, clock and randomness come in through [`seams`]. Single-threaded and async; it never spawns and never
//! blocks. Start at [`door`] for what it does, at [`Engine`] for how to run it, at [`seams`] for what it needs.

pub mod door;
mod engine;
mod error;
mod options;
mod report;
pub mod seams;

pub use engine::Engine;
pub use error::EngineError;
pub use options::EngineOptions;
pub use report::{LogDamage, LostRange, OpenReport, Status, TornTail};
