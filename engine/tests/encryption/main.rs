//! Encryption at rest: nothing that somebody wrote is in a file, no key is lost, and a key that was destroyed takes its conversation along.

mod copies;
mod crash;
mod erased;
mod keys;
mod plain_text;
#[path = "../support/mod.rs"]
mod support;
mod world;
