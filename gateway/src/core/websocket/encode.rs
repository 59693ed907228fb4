//! Whole frames, header and payload in one contiguous buffer.
//!
//! A server's frame is unmasked, so one buffer, encoded once, goes to every recipient of a broadcast. A client gives a mask
//! key that its peer cannot foresee; where it gets one is its business.

use super::close::{CloseCode, close_payload};
use super::frame::{HEADER_BYTES_MAX, Opcode, encode_header};
use super::mask::apply_mask;
use super::message::MessageKind;

/// One frame. `mask` is `None` on a server.
///
/// # Panics
/// As [`encode_header`] does.
#[must_use]
pub fn encode_frame(opcode: Opcode, fin: bool, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEADER_BYTES_MAX + payload.len());
    encode_frame_into(&mut frame, opcode, fin, payload, mask);
    frame
}

/// Appends one frame to `out`.
///
/// # Panics
/// As [`encode_header`] does.
pub fn encode_frame_into(out: &mut Vec<u8>, opcode: Opcode, fin: bool, payload: &[u8], mask: Option<[u8; 4]>) {
    out.extend_from_slice(encode_header(opcode, fin, false, payload.len() as u64, mask).as_slice());
    let start = out.len();
    out.extend_from_slice(payload);
    if let (Some(mask), Some(payload)) = (mask, out.get_mut(start..)) {
        apply_mask(payload, mask, 0);
    }
}

/// A whole message as one frame. Text must be UTF-8: it is not checked again.
#[must_use]
pub fn encode_message(kind: MessageKind, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    encode_frame(kind.opcode(), true, payload, mask)
}

/// A ping.
///
/// # Panics
/// If the payload is longer than [`super::CONTROL_PAYLOAD_BYTES_MAX`].
#[must_use]
pub fn encode_ping(payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    encode_frame(Opcode::Ping, true, payload, mask)
}

/// A pong: "A Pong frame sent in response to a Ping frame must have identical "Application data" as found in the message body
/// of the Ping frame being replied to." (RFC 6455 §5.5.3)
///
/// # Panics
/// If the payload is longer than [`super::CONTROL_PAYLOAD_BYTES_MAX`], which a received ping's never is.
#[must_use]
pub fn encode_pong(payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    encode_frame(Opcode::Pong, true, payload, mask)
}

/// A close frame; a reason that does not fit is cut.
#[must_use]
pub fn encode_close(code: Option<CloseCode>, reason: &str, mask: Option<[u8; 4]>) -> Vec<u8> {
    encode_frame(Opcode::Close, true, &close_payload(code, reason), mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of RFC 6455 §5.7.
    #[test]
    fn the_examples_of_the_rfc() {
        let key = Some([0x37, 0xfa, 0x21, 0x3d]);
        assert_eq!(encode_message(MessageKind::Text, b"Hello", None), b"\x81\x05Hello");
        assert_eq!(
            encode_message(MessageKind::Text, b"Hello", key),
            [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]
        );
        assert_eq!(encode_frame(Opcode::Text, false, b"Hel", None), b"\x01\x03Hel");
        assert_eq!(encode_frame(Opcode::Continuation, true, b"lo", None), b"\x80\x02lo");
        assert_eq!(encode_ping(b"Hello", None), b"\x89\x05Hello");
        assert_eq!(encode_pong(b"Hello", key), [0x8a, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]);
        assert_eq!(encode_message(MessageKind::Binary, &[7; 256], None)[..5], [0x82, 0x7e, 0x01, 0x00, 7]);
        assert_eq!(
            encode_message(MessageKind::Binary, &[7; 65_536], None)[..11],
            [0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0, 7]
        );
    }

    #[test]
    fn close_frames() {
        assert_eq!(encode_close(Some(CloseCode::NORMAL), "bye", None), b"\x88\x05\x03\xe8bye");
        assert_eq!(encode_close(None, "", None), b"\x88\x00");
        assert_eq!(encode_close(Some(CloseCode::NORMAL), &"x".repeat(500), None).len(), 2 + 125);
    }

    #[test]
    fn frames_are_appended() {
        let mut out = encode_ping(b"", None);
        encode_frame_into(&mut out, Opcode::Text, true, b"a", Some([1, 2, 3, 4]));
        assert_eq!(out, [0x89, 0, 0x81, 0x81, 1, 2, 3, 4, b'a' ^ 1]);
    }
}
