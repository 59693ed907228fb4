//! The offline tools over stores that the engine made, and over stores that no engine would make.

mod checkpoint;
mod flips;
mod inspect;
mod planted;
mod repair;
mod restore;
mod round_trip;
mod sound;
#[path = "../support/mod.rs"]
mod support;
mod tools;
