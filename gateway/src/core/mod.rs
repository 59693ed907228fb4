//! The node's logic, sans-IO: no clock, file, socket, thread or OS randomness in here; a test holds it to that.
//!
//! Start at [`shard`]: bytes come in there, and everything else is called from there.

pub mod address;
pub mod admission;
pub mod busiest;
pub mod connection;
pub mod enquiry;
pub mod fanout;
#[doc(hidden)]
pub mod fuzzing;
pub(crate) mod gather;
pub(crate) mod hints;
pub mod http;
pub mod io;
pub mod issuer;
pub mod lane;
pub mod mesh;
pub mod outbound;
pub mod placement;
#[cfg(feature = "planted")]
pub mod planted;
pub mod presence;
pub mod pressure;
pub mod privacy;
pub mod proxy;
pub mod rate;
pub mod registry;
mod requests;
pub mod session;
pub mod shard;
pub mod timers;
pub mod token;
pub(crate) mod views;
pub mod websocket;
