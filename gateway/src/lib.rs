//! The Antiphon node.

pub mod core;
