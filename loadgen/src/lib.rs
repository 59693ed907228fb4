//! Antiphon's load generator: an open loop of messages over any number of connections, every one checked while it is measured.
//!
//! Read top-down: [`run`] takes the options through the phases of a run; client threads ([`workload`]) each drive their
//! connections over a ring ([`driver`]), plan their sends ([`arrivals`]), check what arrives ([`checker`]) and measure it
//! ([`measure`]); [`report`] tells the outcome. [`trials`] repeats a run, [`soak`] looks for drifts in it, [`agent`] makes it on
//! several machines. [`transport`] is where
//! [`tls`] goes in between, if the target is `wss://`. Only [`driver`] holds `unsafe` code.

pub mod agent;
pub mod arrivals;
pub mod checker;
pub mod clock;
pub mod driver;
pub mod histogram_text;
pub mod law;
pub mod layout;
pub mod machine;
pub mod measure;
pub mod options;
pub mod process;
pub mod progress;
pub mod random;
pub mod report;
pub mod run;
pub mod soak;
pub mod tls;
pub mod token;
pub mod transport;
pub mod trend;
pub mod trials;
pub mod websocket;
pub mod workload;
