//! The node's logic, sans-IO: no clock, file, socket, thread or OS randomness in here; a test holds it to that.

pub mod io;
pub mod token;
