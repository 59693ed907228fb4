//! What a machine allows and what Antiphon wants of it: facts, profiles as data, checks, changes that can be undone, predictions.
//!
//! Invariants: reading facts changes nothing and needs no rights; a fact that can't be read is absent, never guessed; nothing is changed
//! before what stood there is on stable storage. All I/O goes through [`system::System`]. Must not do: decide for the operator; a profile
//! is data, and `apply` runs only when somebody says so.
//!
//! `antiphon serve` uses [`start::would_stop`]; reports of measurements use [`machine()`].

pub mod capacity;
pub mod catalogue;
pub mod check;
pub mod facts;
pub mod journal;
mod machine;
#[cfg(test)]
mod memory_system;
pub mod persist;
pub mod plan;
pub mod profile;
pub mod start;
pub mod system;
pub mod text;
pub mod value;

pub use machine::{Machine, machine};
