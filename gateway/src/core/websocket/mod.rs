//! RFC 6455 without IO: one concept a file, for the server's and for the client's side.
//!
//! Bytes from a peer go through [`Decoder::poll`], which returns [`Event`]s that borrow from those bytes wherever a whole
//! message lies in them. Frames to a peer are made by [`encode_frame`] and its kin; a server's frames are unmasked, so one
//! encoding serves every recipient. Who answers a ping, when a connection is closed and how long anybody waits is the
//! session's business, not ours.

mod close;
mod decoder;
mod deflate;
mod encode;
mod error;
pub mod extension;
mod frame;
mod mask;
mod message;
mod utf8;

pub use close::{CLOSE_REASON_BYTES_MAX, CloseCode, CloseState, CloseStep, close_payload, parse_close_payload};
pub use decoder::Decoder;
pub use deflate::{DEFLATE_BYTES_MIN, Deflater, Inflater};
pub use encode::{encode_close, encode_frame, encode_frame_into, encode_message, encode_ping, encode_pong};
pub use error::ProtocolError;
pub use frame::{
    CONTROL_PAYLOAD_BYTES_MAX, EncodedHeader, FrameHeader, HEADER_BYTES_MAX, Opcode, Role, encode_header, parse_header,
};
pub use mask::apply_mask;
pub use message::{Accepted, Event, Limits, MessageKind};
