//! The Antiphon node.

pub mod announce;
pub mod config;
pub mod core;
pub mod metrics;
pub mod node;
pub mod outside;
pub mod store_folder;
