//! What a machine allows and what Antiphon wants of it: facts, profiles as data, checks.
//!
//! Invariants: reading facts changes nothing and needs no rights; a fact that can't be read is absent, never guessed. Must not do:
//! change a machine; that is a later issue's `plan`, `apply` and `undo`.

pub mod check;
pub mod facts;
mod machine;
pub mod profile;

pub use machine::{Machine, machine};
