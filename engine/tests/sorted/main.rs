//! The sorted part of the engine through its public interface, over a disk in memory.

mod crash;
mod damage;
mod errors;
mod model;
mod reclaim;
mod support;
