//! One frame's header, parsed and encoded (RFC 6455 §5.2).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-------+-+-------------+-------------------------------+
//! |F|R|R|R| opcode|M| length (7)  | extended length (16 or 64)    |
//! |I|S|S|S|  (4)  |A|             | if length is 126 or 127       |
//! |N|V|V|V|       |S|             |                               |
//! | |1|2|3|       |K|             |                               |
//! +-+-+-+-+-------+-+-------------+-------------------------------+
//! | masking key (32), if MASK                                     |
//! +---------------------------------------------------------------+
//! ```
//!
//! Invariant: the checks run in the order of the bytes, so the same header gives the same error however it is cut into
//! pieces, and gives it as soon as the byte that decides has arrived. What a header means within its connection (a
//! continuation of what?) is the decoder's business.

use super::error::ProtocolError;

/// Longest header: two bytes, a 64-bit length, a masking key.
pub const HEADER_BYTES_MAX: usize = 14;

/// "All control frames MUST have a payload length of 125 bytes or less" (RFC 6455 §5.5).
pub const CONTROL_PAYLOAD_BYTES_MAX: usize = 125;

/// Which end of the connection this is. It decides who masks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Receives masked frames, sends unmasked ones.
    Server,
    /// Receives unmasked frames, sends masked ones.
    Client,
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// Another fragment of the message that is open.
    Continuation = 0x0,
    /// A text message, or its first fragment.
    Text = 0x1,
    /// A binary message, or its first fragment.
    Binary = 0x2,
    /// The closing handshake.
    Close = 0x8,
    /// Asks for a pong with the same payload.
    Ping = 0x9,
    /// Answers a ping, or says unasked that the peer is alive.
    Pong = 0xa,
}

impl Opcode {
    /// Close, ping and pong: short, never fragmented, allowed between the fragments of a message.
    #[must_use]
    pub const fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }

    /// "If an unknown opcode is received, the receiving endpoint MUST _Fail the WebSocket Connection_" (RFC 6455 §5.2).
    const fn from_bits(bits: u8) -> Result<Self, ProtocolError> {
        match bits {
            0x0 => Ok(Self::Continuation),
            0x1 => Ok(Self::Text),
            0x2 => Ok(Self::Binary),
            0x8 => Ok(Self::Close),
            0x9 => Ok(Self::Ping),
            0xa => Ok(Self::Pong),
            reserved => Err(ProtocolError::ReservedOpcode(reserved)),
        }
    }
}

/// One frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// The last fragment of its message.
    pub fin: bool,
    /// RSV1: the first frame of a compressed message.
    pub compressed: bool,
    /// What the frame is.
    pub opcode: Opcode,
    /// The masking key, if masked.
    pub mask: Option<[u8; 4]>,
    /// Bytes of payload that follow the header; below 2^63.
    pub payload_bytes: u64,
}

/// Parses the header at the beginning of `bytes` as the end `role` receives it; `deflate` if permessage-deflate was agreed on.
/// `Ok(None)`: more bytes are needed. Otherwise the header and its own length in bytes.
pub fn parse_header(bytes: &[u8], role: Role, deflate: bool) -> Result<Option<(FrameHeader, usize)>, ProtocolError> {
    let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
    // RSV1-3 "MUST be 0 unless an extension is negotiated that defines meanings for non-zero values. If a nonzero value is
    // received and none of the negotiated extensions defines the meaning of such a nonzero value, the receiving endpoint
    // MUST _Fail the WebSocket Connection_" (RFC 6455 §5.2). permessage-deflate defines RSV1, and "MUST NOT set the "Per-Message
    // Compressed" bit of control frames and non-first fragments of a data message" (RFC 7692 §6.1).
    let compressed = deflate && matches!(first & 0x4f, 0x41 | 0x42);
    if first & 0x30 != 0 || (first & 0x40 != 0 && !compressed) {
        return Err(ProtocolError::ReservedBit);
    }
    let fin = first & 0x80 != 0;
    let opcode = Opcode::from_bits(first & 0x0f)?;
    // "All control frames [...] MUST NOT be fragmented" (RFC 6455 §5.5).
    if opcode.is_control() && !fin {
        return Err(ProtocolError::ControlFragmented);
    }

    let Some((&second, rest)) = rest.split_first() else { return Ok(None) };
    match (role, second & 0x80 != 0) {
        // "The server MUST close the connection upon receiving a frame that is not masked." (RFC 6455 §5.1)
        (Role::Server, false) => return Err(ProtocolError::MaskMissing),
        // "A client MUST close a connection if it detects a masked frame." (RFC 6455 §5.1)
        (Role::Client, true) => return Err(ProtocolError::MaskUnexpected),
        (Role::Server, true) | (Role::Client, false) => {}
    }
    let short = second & 0x7f;
    if opcode.is_control() && usize::from(short) > CONTROL_PAYLOAD_BYTES_MAX {
        return Err(ProtocolError::ControlTooLong);
    }

    let Some((payload_bytes, rest)) = parse_length(short, rest)? else { return Ok(None) };
    let (mask, rest) = match role {
        Role::Client => (None, rest),
        Role::Server => {
            let Some((mask, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
            (Some(*mask), rest)
        }
    };
    let header = FrameHeader { fin, compressed, opcode, mask, payload_bytes };
    Ok(Some((header, bytes.len() - rest.len())))
}

/// A header's bytes, inline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodedHeader {
    bytes: [u8; HEADER_BYTES_MAX],
    length: u8,
}

impl EncodedHeader {
    /// The bytes to put on the wire.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }

    fn push(&mut self, bytes: &[u8]) {
        let start = usize::from(self.length);
        self.bytes[start..start + bytes.len()].copy_from_slice(bytes);
        // At most HEADER_BYTES_MAX, or the line above has panicked; no length comes from outside here.
        self.length += bytes.len() as u8;
    }
}

/// Encodes a header. `rsv1` is for permessage-deflate; a client gives a mask, a server none.
///
/// # Panics
/// If a control frame is to be fragmented or longer than [`CONTROL_PAYLOAD_BYTES_MAX`], or a length is 2^63 or more: faults of ours.
#[must_use]
pub fn encode_header(
    opcode: Opcode,
    fin: bool,
    rsv1: bool,
    payload_bytes: u64,
    mask: Option<[u8; 4]>,
) -> EncodedHeader {
    if opcode.is_control() {
        assert!(fin, "a control frame is never fragmented");
        assert!(payload_bytes <= CONTROL_PAYLOAD_BYTES_MAX as u64, "a control frame is short");
    }
    assert!(payload_bytes >> 63 == 0, "a frame is shorter than 2^63 bytes");
    let mut header = EncodedHeader { bytes: [0; HEADER_BYTES_MAX], length: 0 };
    header.push(&[(u8::from(fin) << 7) | (u8::from(rsv1) << 6) | opcode as u8]);
    let mask_bit = if mask.is_some() { 0x80 } else { 0 };
    match (u8::try_from(payload_bytes), u16::try_from(payload_bytes)) {
        (Ok(short @ 0..=125), _) => header.push(&[mask_bit | short]),
        (_, Ok(medium)) => {
            header.push(&[mask_bit | 126]);
            header.push(&medium.to_be_bytes());
        }
        _ => {
            header.push(&[mask_bit | 127]);
            header.push(&payload_bytes.to_be_bytes());
        }
    }
    if let Some(mask) = mask {
        header.push(&mask);
    }
    header
}

/// The payload's length, given its seven bits and what follows them.
fn parse_length(short: u8, rest: &[u8]) -> Result<Option<(u64, &[u8])>, ProtocolError> {
    let (length, shortest, rest) = match short {
        126 => {
            let Some((length, rest)) = rest.split_first_chunk::<2>() else { return Ok(None) };
            (u64::from(u16::from_be_bytes(*length)), 126, rest)
        }
        127 => {
            let Some((length, rest)) = rest.split_first_chunk::<8>() else { return Ok(None) };
            (u64::from_be_bytes(*length), 1 << 16, rest)
        }
        short => (u64::from(short), 0, rest),
    };
    // "the most significant bit MUST be 0" (RFC 6455 §5.2).
    if length >> 63 != 0 {
        return Err(ProtocolError::LengthOutOfRange);
    }
    // "in all cases, the minimal number of bytes MUST be used to encode the length" (RFC 6455 §5.2).
    if length < shortest {
        return Err(ProtocolError::LengthNotMinimal);
    }
    Ok(Some((length, rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

    #[test]
    fn every_header_survives_a_round_trip_and_needs_all_its_bytes() {
        let opcodes = [Opcode::Continuation, Opcode::Text, Opcode::Binary, Opcode::Close, Opcode::Ping, Opcode::Pong];
        let lengths = [0, 1, 125, 126, 127, 255, 256, 65_535, 65_536, 65_537, (1 << 63) - 1];
        for (role, mask) in [(Role::Server, Some(KEY)), (Role::Client, None)] {
            for opcode in opcodes {
                for (fin, payload_bytes) in lengths.into_iter().flat_map(|length| [(true, length), (false, length)]) {
                    if opcode.is_control() && (!fin || payload_bytes > 125) {
                        continue;
                    }
                    let encoded = encode_header(opcode, fin, false, payload_bytes, mask);
                    let bytes = encoded.as_slice();
                    let header = FrameHeader { fin, compressed: false, opcode, mask, payload_bytes };
                    for deflate in [false, true] {
                        assert_eq!(parse_header(bytes, role, deflate), Ok(Some((header, bytes.len()))));
                        for shorter in 0..bytes.len() {
                            assert_eq!(parse_header(&bytes[..shorter], role, deflate), Ok(None), "{bytes:02x?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn wrong_headers() {
        use ProtocolError as E;
        let table: &[(&[u8], Role, ProtocolError)] = &[
            (&[0xc1], Role::Server, E::ReservedBit),
            (&[0xa1], Role::Server, E::ReservedBit),
            (&[0x91], Role::Server, E::ReservedBit),
            (&[0x83], Role::Server, E::ReservedOpcode(3)),
            (&[0x8b], Role::Client, E::ReservedOpcode(11)),
            (&[0x8f], Role::Client, E::ReservedOpcode(15)),
            (&[0x09], Role::Client, E::ControlFragmented),
            (&[0x08], Role::Client, E::ControlFragmented),
            (&[0x81, 0x05], Role::Server, E::MaskMissing),
            (&[0x81, 0x85], Role::Client, E::MaskUnexpected),
            (&[0x89, 0xfe], Role::Server, E::ControlTooLong),
            (&[0x88, 0x7f], Role::Client, E::ControlTooLong),
            (&[0x82, 126, 0, 125], Role::Client, E::LengthNotMinimal),
            (&[0x82, 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff], Role::Client, E::LengthNotMinimal),
            (&[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0], Role::Client, E::LengthOutOfRange),
        ];
        for (bytes, role, expected) in table {
            assert_eq!(parse_header(bytes, *role, false), Err(*expected), "{bytes:02x?}");
            // Not a byte earlier than the one that decides, and whatever follows it.
            assert_eq!(parse_header(&bytes[..bytes.len() - 1], *role, false), Ok(None), "{bytes:02x?}");
            let longer = [bytes, [0xff; 16].as_slice()].concat();
            assert_eq!(parse_header(&longer, *role, false), Err(*expected), "{bytes:02x?}");
        }
    }

    #[test]
    fn rsv1_stands_in_the_first_frame_of_a_message_alone_and_only_if_agreed_on() {
        use Opcode::{Binary, Close, Continuation, Ping, Pong, Text};
        for opcode in [Continuation, Text, Binary, Close, Ping, Pong] {
            for fin in [true, false] {
                let allowed = matches!(opcode, Text | Binary);
                let first = (u8::from(fin) << 7) | 0x40 | opcode as u8;
                let parsed = parse_header(&[first, 5], Role::Client, true);
                let header = FrameHeader { fin, compressed: true, opcode, mask: None, payload_bytes: 5 };
                let expected = if allowed { Ok(Some((header, 2))) } else { Err(ProtocolError::ReservedBit) };
                assert_eq!(parsed, expected, "{first:02x}");
                assert_eq!(parse_header(&[first], Role::Client, false), Err(ProtocolError::ReservedBit));
                for more in [0x10, 0x20, 0x30] {
                    assert_eq!(parse_header(&[first | more], Role::Client, true), Err(ProtocolError::ReservedBit));
                }
            }
        }
    }

    #[test]
    fn rsv1_is_encoded_for_compression() {
        assert_eq!(encode_header(Opcode::Text, true, true, 5, None).as_slice(), [0xc1, 5]);
        assert!(size_of::<EncodedHeader>() <= 16);
    }

    #[test]
    #[should_panic(expected = "a control frame is short")]
    fn a_long_control_frame_is_our_fault() {
        let _ = encode_header(Opcode::Ping, true, false, 126, None);
    }
}
