//! Antiphon's load generator: an open loop of messages over any number of connections, every one checked while it is measured.
//!
//! Read top-down: [`run`] takes the options through the phases of a run; client threads ([`workload`]) each drive their
//! connections over a ring ([`driver`]), plan their sends ([`arrivals`]), check what arrives ([`checker`]) and measure it
//! ([`measure`]); [`report`] tells the outcome. Only [`driver`] holds `unsafe` code.

pub mod arrivals;
pub mod checker;
pub mod clock;
pub mod driver;
pub mod machine;
pub mod measure;
pub mod options;
pub mod process;
pub mod progress;
pub mod random;
pub mod report;
pub mod run;
pub mod token;
pub mod websocket;
pub mod workload;
