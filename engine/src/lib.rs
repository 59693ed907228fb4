//! Antiphon's log engine: conversations as durable, gap-free logs.
//!
//! Logic without IO: files, clock and randomness come in through [`seams`]. Single-threaded and async; it never spawns and never
//! blocks. Start at [`door`] for what it does, at [`seams`] for what it needs.

pub mod door;
pub mod seams;
