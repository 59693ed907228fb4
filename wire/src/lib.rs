//! Antiphon's protocol: ids, limits, codes and frames, in two encodings of the same types, and the client's session state
//! machine. Nothing here does I/O, reads a clock or draws randomness.

pub mod binary;
pub mod codec;
pub mod codes;
pub mod frame;
pub mod ids;
pub mod json;
pub mod limits;
pub mod position;
pub mod session;
mod validate;
