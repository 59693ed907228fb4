//! The Antiphon node.
//!
//! [`node`] starts everything; [`shard`] is one shard put together; [`core`] is the logic, [`uring`] the driver, [`mesh`] the queues between
//! shards, [`outside`] HTTP for operators and for an application's backend.

pub mod announce;
mod api_keys;
pub mod config;
pub mod core;
pub mod echo;
mod encryption;
pub mod enquiries;
pub mod handover;
mod lane_switch;
mod life;
pub mod mesh;
pub mod metrics;
pub mod node;
pub mod outside;
pub mod shard;
pub mod store;
pub mod store_folder;
pub mod tls;
pub mod uring;
