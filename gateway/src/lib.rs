//! The Antiphon node.

pub mod core;
pub mod echo;
pub mod mesh;
pub mod uring;
