//! The Antiphon node.

pub mod core;
pub mod uring;
