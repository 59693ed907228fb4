//! Folders that are not what a node left there a moment ago: of another version, copied in part, mixed with others.

mod golden;
mod misuse;
#[path = "../support/mod.rs"]
mod support;
mod upgrade;
