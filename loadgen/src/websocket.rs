//! The client's side of WebSocket (RFC 6455), as far as the node speaks it: an upgrade request and its answer, masked frames
//! out, unmasked frames in. Strict: whatever the RFC forbids a server is an error here, and so are fragments, which the node
//! never sends. Pure: bytes in, bytes out.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha1::{Digest, Sha1};

/// RFC 6455 §1.3.
const ACCEPT_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Longest answer to the upgrade that is waited for.
const ANSWER_BYTES_MAX: usize = 8 * 1024;

/// RFC 6455 §5.5: "All control frames MUST have a payload length of 125 bytes or less".
const CONTROL_BYTES_MAX: u64 = 125;

/// Why the server's bytes are not acceptable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WebSocketError {
    /// The answer to the upgrade is a TLS record.
    #[error("the server answered by TLS: a target with TLS begins with wss://")]
    Tls,
    /// The answer to the upgrade is not HTTP or too long.
    #[error("the answer to the upgrade can't be read")]
    Answer,
    /// The server did not switch protocols; the status line says why.
    #[error("the server refused the upgrade: {0}")]
    Refused(String),
    /// `Sec-WebSocket-Accept` is missing or does not fit the key.
    #[error("Sec-WebSocket-Accept does not fit the key")]
    Accept,
    /// `Sec-WebSocket-Protocol` is not the one that was asked for.
    #[error("the server did not choose the subprotocol that was offered")]
    Subprotocol,
    /// A frame breaks RFC 6455.
    #[error("the server broke RFC 6455: {0}")]
    Frame(&'static str),
}

/// A frame's meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// A whole text message.
    Text,
    /// A whole binary message.
    Binary,
    /// The close handshake.
    Close,
    /// Wants a pong with the same payload.
    Ping,
    /// Answers a ping.
    Pong,
}

/// A whole frame of the server, in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What it is.
    pub opcode: Opcode,
    /// What it carries.
    pub payload: &'a [u8],
    /// Bytes of the input that it takes.
    pub bytes: usize,
}

/// The value of `Sec-WebSocket-Key` for 16 bytes.
#[must_use]
pub fn key(nonce: [u8; 16]) -> String {
    STANDARD.encode(nonce)
}

/// Appends the upgrade request.
pub fn write_upgrade(out: &mut Vec<u8>, host: &str, path: &str, key: &str, subprotocol: Option<&str>) {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: {key}\r\n"
    );
    out.extend(request.as_bytes());
    if let Some(subprotocol) = subprotocol {
        out.extend(format!("Sec-WebSocket-Protocol: {subprotocol}\r\n").as_bytes());
    }
    out.extend(b"\r\n");
}

/// Reads the answer to the upgrade. `None`: more bytes are needed. `Some(n)`: the connection is a WebSocket and its first frame
/// begins at byte `n`.
pub fn read_upgrade(input: &[u8], key: &str, subprotocol: Option<&str>) -> Result<Option<usize>, WebSocketError> {
    // RFC 8446 §5.1: the types of records and the version that all of them have.
    if let [20..=23, 3, ..] = input {
        return Err(WebSocketError::Tls);
    }
    let Some(end) = input.windows(4).position(|window| window == b"\r\n\r\n") else {
        return if input.len() > ANSWER_BYTES_MAX { Err(WebSocketError::Answer) } else { Ok(None) };
    };
    let head = std::str::from_utf8(&input[..end]).map_err(|_| WebSocketError::Answer)?;
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    if !status.starts_with("HTTP/1.1 ") {
        return Err(WebSocketError::Answer);
    }
    if !status.starts_with("HTTP/1.1 101") {
        return Err(WebSocketError::Refused(status.to_owned()));
    }
    let (mut accept, mut protocol) = (None, None);
    for line in lines {
        let (name, value) = line.split_once(':').ok_or(WebSocketError::Answer)?;
        if name.eq_ignore_ascii_case("sec-websocket-accept") {
            accept = Some(value.trim());
        } else if name.eq_ignore_ascii_case("sec-websocket-protocol") {
            protocol = Some(value.trim());
        }
    }
    if accept != Some(accept_for(key).as_str()) {
        return Err(WebSocketError::Accept);
    }
    if protocol != subprotocol {
        return Err(WebSocketError::Subprotocol);
    }
    Ok(Some(end + 4))
}

/// The `Sec-WebSocket-Accept` that answers a key (RFC 6455 §4.2.2).
#[must_use]
pub fn accept_for(key: &str) -> String {
    STANDARD.encode(Sha1::new().chain_update(key).chain_update(ACCEPT_GUID).finalize())
}

/// Appends a whole, masked frame.
pub fn write_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], mask: [u8; 4]) {
    out.push(
        0x80 | match opcode {
            Opcode::Text => 1,
            Opcode::Binary => 2,
            Opcode::Close => 8,
            Opcode::Ping => 9,
            Opcode::Pong => 10,
        },
    );
    match payload.len() {
        length @ 0..=125 => out.push(0x80 | length as u8),
        length @ 126..=0xFFFF => {
            out.push(0x80 | 126);
            out.extend((length as u16).to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend((length as u64).to_be_bytes());
        }
    }
    out.extend(mask);
    let start = out.len();
    out.extend(payload);
    let masked = &mut out[start..];
    let mut words = masked.chunks_exact_mut(4);
    for word in &mut words {
        for (byte, mask) in word.iter_mut().zip(mask) {
            *byte ^= mask;
        }
    }
    for (byte, mask) in words.into_remainder().iter_mut().zip(mask) {
        *byte ^= mask;
    }
}

/// Reads one frame of the server from the start of `input`. `None`: more bytes are needed.
pub fn read_frame(input: &[u8], payload_bytes_max: usize) -> Result<Option<Frame<'_>>, WebSocketError> {
    let [first, second, rest @ ..] = input else {
        return Ok(None);
    };
    if first & 0x70 != 0 {
        return Err(WebSocketError::Frame("a reserved bit is set"));
    }
    if second & 0x80 != 0 {
        return Err(WebSocketError::Frame("a server's frame is masked"));
    }
    let opcode = match first & 0x0F {
        1 => Opcode::Text,
        2 => Opcode::Binary,
        8 => Opcode::Close,
        9 => Opcode::Ping,
        10 => Opcode::Pong,
        0 => {
            return Err(WebSocketError::Frame("a continuation, though the node sends whole messages"));
        }
        _ => return Err(WebSocketError::Frame("an unknown opcode")),
    };
    if first & 0x80 == 0 {
        return Err(WebSocketError::Frame("a fragment, though the node sends whole messages"));
    }
    let (length, header_bytes) = match (second, rest) {
        (127, [a, b, c, d, e, f, g, h, ..]) => (u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]), 10),
        (126, [a, b, ..]) => (u64::from(u16::from_be_bytes([*a, *b])), 4),
        (126 | 127, _) => return Ok(None),
        (length, _) => (u64::from(*length), 2),
    };
    let minimal = match second {
        127 => length > 0xFFFF,
        126 => length > 125,
        _ => true,
    };
    if !minimal {
        return Err(WebSocketError::Frame("a length is not in its shortest form"));
    }
    if first & 0x08 != 0 && length > CONTROL_BYTES_MAX {
        return Err(WebSocketError::Frame("a control frame is longer than 125 bytes"));
    }
    if length > payload_bytes_max as u64 {
        return Err(WebSocketError::Frame("a frame is longer than the protocol allows"));
    }
    let bytes = header_bytes + length as usize;
    Ok(input.get(header_bytes..bytes).map(|payload| Frame { opcode, payload, bytes }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    const ANSWER: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\r\n";

    #[test]
    fn the_example_of_the_rfc_is_accepted_and_every_prefix_waits() {
        assert_eq!(read_upgrade(ANSWER.as_bytes(), KEY, Some("chat")), Ok(Some(ANSWER.len())));
        for end in 0..ANSWER.len() {
            assert_eq!(read_upgrade(&ANSWER.as_bytes()[..end], KEY, Some("chat")), Ok(None));
        }
        let more = [ANSWER.as_bytes(), &[0x81, 0]].concat();
        assert_eq!(read_upgrade(&more, KEY, Some("chat")), Ok(Some(ANSWER.len())));
    }

    #[test]
    fn what_was_not_offered_must_not_be_chosen() {
        let mut request = Vec::new();
        write_upgrade(&mut request, "h", "/", KEY, None);
        assert!(!String::from_utf8(request).unwrap().contains("Protocol"));
        assert_eq!(read_upgrade(ANSWER.as_bytes(), KEY, None), Err(WebSocketError::Subprotocol));
        let plain = ANSWER.replace("Sec-WebSocket-Protocol: chat\r\n", "");
        assert_eq!(read_upgrade(plain.as_bytes(), KEY, None), Ok(Some(plain.len())));
    }

    #[test]
    fn wrong_answers_are_told_apart() {
        let check = |answer: &str, expect| {
            assert_eq!(read_upgrade(answer.as_bytes(), KEY, Some("chat")), Err(expect), "{answer}")
        };
        check(&ANSWER.replace("s3pP", "s3pQ"), WebSocketError::Accept);
        check(&ANSWER.replace("sec-websocket-accept", "x"), WebSocketError::Accept);
        check(&ANSWER.replace("chat", "other"), WebSocketError::Subprotocol);
        check("HTTP/1.1 503 Full\r\n\r\n", WebSocketError::Refused("HTTP/1.1 503 Full".into()));
        check("SSH-2.0\r\n\r\n", WebSocketError::Answer);
        check("\u{15}\u{3}\u{1}\0\u{2}\u{2}\u{46}", WebSocketError::Tls);
        check(&"x".repeat(ANSWER_BYTES_MAX + 1), WebSocketError::Answer);
    }

    #[test]
    fn a_written_frame_unmasks_to_its_payload() {
        for length in [0, 1, 5, 125, 126, 65_535, 65_536] {
            let payload: Vec<u8> = (0..length).map(|index| index as u8).collect();
            let mask = [1, 2, 3, 250];
            let mut out = Vec::new();
            write_frame(&mut out, Opcode::Binary, &payload, mask);
            let header = out.len() - length;
            assert_eq!((out[0], out[1] & 0x80, &out[header - 4..header]), (0x82, 0x80, &mask[..]));
            let unmasked: Vec<u8> =
                out[header..].iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
            assert_eq!(unmasked, payload);
        }
    }

    #[test]
    fn frames_are_read_whole_and_prefixes_wait() {
        for (length, header) in
            [(5, vec![0x81, 5]), (126, vec![0x82, 126, 0, 126]), (65_536, vec![0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0])]
        {
            let frame = [header.clone(), vec![7; length], vec![0x89]].concat();
            let read = read_frame(&frame, 1 << 20).unwrap().unwrap();
            assert_eq!((read.payload.len(), read.bytes), (length, header.len() + length));
            for end in [0, 1, header.len() - 1, header.len(), header.len() + length - 1] {
                assert_eq!(read_frame(&frame[..end], 1 << 20), Ok(None));
            }
        }
    }

    #[test]
    fn what_the_rfc_forbids_is_refused() {
        for bytes in [
            &[0xC1, 0][..],
            &[0x81, 0x80, 0, 0, 0, 0],
            &[0x01, 0],
            &[0x80, 0],
            &[0x83, 0],
            &[0x81, 126, 0, 125],
            &[0x81, 127, 0, 0, 0, 0, 0, 0, 255, 255],
            &[0x89, 126, 0, 126],
            &[0x82, 127, 255, 255, 255, 255, 255, 255, 255, 255],
        ] {
            assert!(matches!(read_frame(bytes, 1 << 20), Err(WebSocketError::Frame(_))), "{bytes:?}");
        }
    }
}
