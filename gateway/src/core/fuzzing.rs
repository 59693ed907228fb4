//! Entry points for fuzzers: plain functions over bytes that assert what must hold for any input.
//!
//! Not part of the API. Each is deterministic in its input, so a failing input is its own reproduction.

use super::address::Blocks;
use super::admission::ForwardedHeader;
use super::http::{self, Outcome, Rules, forwarded::forwarded};
use super::proxy::{self, HEADER_BYTES_MAX, Parsed};
use super::websocket::{
    Accepted, CloseCode, Decoder, Deflater, Event, Inflater, Limits, MessageKind, ProtocolError, Role, apply_mask,
    encode_close, encode_header, encode_message, encode_ping, encode_pong, extension::Agreed,
};

/// What a decoder may hold beside a message: its own state and a control frame.
const HEAP_OVERHEAD_BYTES_MAX: usize = 512;

/// Any bytes as a request head, and as an answer to a client. The outcome is that of every longer input, and nothing panics.
pub fn fuzz_http(data: &[u8]) {
    let strict = Rules {
        paths: vec!["/ws".to_owned(), "/chat".to_owned()],
        subprotocols: vec!["antiphon.v1.rkyv".to_owned(), "antiphon.v1.json".to_owned()],
        subprotocol_default: None,
        origins: Some(vec!["https://chat.example".to_owned()]),
        deflate: false,
    };
    let open = Rules {
        paths: vec!["/".to_owned(), "/ws".to_owned()],
        subprotocol_default: Some("antiphon.v1.json".to_owned()),
        origins: None,
        deflate: true,
        ..strict.clone()
    };
    let request = http::client::Request {
        host: "chat.example",
        path: "/ws",
        subprotocols: &["antiphon.v1.json"],
        token: None,
        nonce: *b"the sample nonce",
    };
    for rules in [&strict, &open] {
        let whole = http::upgrade(data, rules);
        check_outcome(&whole, data, rules);
        for length in prefixes(data) {
            let outcome = http::upgrade(&data[..length], rules);
            assert!(
                outcome == Outcome::NeedMore || outcome == whole,
                "after {length} bytes {outcome:?}, in the end {whole:?}"
            );
        }
    }
    for header in [ForwardedHeader::XForwardedFor, ForwardedHeader::Forwarded] {
        let _ = forwarded(data, header, &Blocks::default());
    }
    let whole = http::client::parse_response(data, &request);
    for length in prefixes(data) {
        let outcome = http::client::parse_response(&data[..length], &request);
        assert!(outcome == http::client::Outcome::NeedMore || outcome == whole, "{outcome:?}, in the end {whole:?}");
    }
}

/// Any bytes as a header of the PROXY protocol. What is judged stays so however many bytes follow, and nothing is waited for beyond the
/// longest header.
pub fn fuzz_proxy(data: &[u8]) {
    let whole = proxy::parse(data);
    match whole {
        Ok(Parsed::NeedMore) => assert!(data.len() < HEADER_BYTES_MAX, "more is wanted of a header that is too long"),
        Ok(Parsed::Header { bytes, client }) => {
            assert!(bytes <= data.len().min(HEADER_BYTES_MAX), "more is taken than there is");
            assert_eq!(proxy::parse(&data[..bytes]), Ok(Parsed::Header { bytes, client }));
            assert!(
                client.is_none_or(|client| client.ip() == client.ip().to_canonical()),
                "two spellings of one client"
            );
        }
        Err(_) => {}
    }
    for length in prefixes(data) {
        let outcome = proxy::parse(&data[..length]);
        assert!(
            outcome == Ok(Parsed::NeedMore) || outcome == whole,
            "after {length} bytes {outcome:?}, in the end {whole:?}"
        );
    }
}

/// Any bytes as a stream of frames, to both ends, without and with permessage-deflate. However it is cut, it gives the same events
/// and error within the same memory; the events, encoded anew, decode to themselves.
pub fn fuzz_websocket(data: &[u8]) {
    let limits = Limits { frame_bytes_max: 2_048, message_bytes_max: 4_096, fragments_max: 8, accepted: Accepted::Any };
    for (role, deflate) in [(Role::Server, false), (Role::Server, true), (Role::Client, false), (Role::Client, true)] {
        let decode = if deflate { decode_inflating } else { decode };
        let whole = decode(data, role, &limits, &mut |left| left);
        assert_eq!(decode(data, role, &limits, &mut |_| 1), whole, "byte by byte, {role:?}");
        let mut random = seed(data);
        let mut pieces = |left: usize| {
            random = scramble(random);
            // Pieces of up to 23 bytes cut headers, of up to 279 payloads.
            let length = if random & 64 == 0 { random % 23 } else { random % 279 };
            1 + length.min(left as u64 - 1) as usize
        };
        assert_eq!(decode(data, role, &limits, &mut pieces), whole, "in pieces, {role:?}");

        let mut encoded = Vec::new();
        let mask = (role == Role::Server).then_some([0x37, 0xfa, 0x21, 0x3d]);
        // The window, too, comes from the input.
        let agreed = Agreed::new(9 + (random % 7) as u8).filter(|_| deflate);
        let mut deflater = Deflater::new(0);
        for event in &whole.0 {
            encoded.extend(event.encode(mask, agreed, &mut deflater));
        }
        // What came in fragments is one frame now.
        let limits = Limits { frame_bytes_max: limits.message_bytes_max, ..limits };
        assert_eq!(decode(&encoded, role, &limits, &mut |left| left), (whole.0, None), "encoded anew, {role:?}");
    }
}

/// An [`Event`] that owns its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum OwnedEvent {
    Message(MessageKind, Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
}

impl OwnedEvent {
    /// A message is compressed if something was agreed on and it gets shorter.
    fn encode(&self, mask: Option<[u8; 4]>, agreed: Option<Agreed>, deflater: &mut Deflater) -> Vec<u8> {
        match self {
            Self::Message(kind, payload) => match agreed.and_then(|agreed| deflater.payload(agreed, payload)) {
                Some(compressed) => encode_compressed(*kind, compressed, mask),
                None => encode_message(*kind, payload, mask),
            },
            Self::Ping(payload) => encode_ping(payload, mask),
            Self::Pong(payload) => encode_pong(payload, mask),
            Self::Close(code, reason) => {
                let valid = code.map(|code| CloseCode::new(code).expect("only codes of the wire are delivered"));
                encode_close(valid, reason, mask)
            }
        }
    }
}

impl From<Event<'_>> for OwnedEvent {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Message { kind, payload } => Self::Message(kind, payload.to_vec()),
            Event::Ping(payload) => Self::Ping(payload.to_vec()),
            Event::Pong(payload) => Self::Pong(payload.to_vec()),
            Event::Close { code, reason } => Self::Close(code, reason.to_owned()),
        }
    }
}

/// One frame with a compressed message.
pub(super) fn encode_compressed(kind: MessageKind, compressed: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let mut frame = encode_header(kind.opcode(), true, true, compressed.len() as u64, mask).as_slice().to_vec();
    let start = frame.len();
    frame.extend_from_slice(compressed);
    if let Some(mask) = mask {
        apply_mask(&mut frame[start..], mask, 0);
    }
    frame
}

/// What a stream decodes to.
pub(super) type Decoded = (Vec<OwnedEvent>, Option<ProtocolError>);

/// Decodes `data` in pieces whose lengths `piece` chooses, given how much is left, and checks what must hold meanwhile.
pub(super) fn decode(data: &[u8], role: Role, limits: &Limits, piece: &mut dyn FnMut(usize) -> usize) -> Decoded {
    decode_with(data, role, limits, piece, None)
}

/// The same where permessage-deflate was agreed on.
pub(super) fn decode_inflating(
    data: &[u8],
    role: Role,
    limits: &Limits,
    piece: &mut dyn FnMut(usize) -> usize,
) -> Decoded {
    decode_with(data, role, limits, piece, Some(&mut Inflater::default()))
}

fn decode_with(
    data: &[u8],
    role: Role,
    limits: &Limits,
    piece: &mut dyn FnMut(usize) -> usize,
    mut inflater: Option<&mut Inflater>,
) -> Decoded {
    let mut bytes = data.to_vec();
    let mut left = bytes.as_mut_slice();
    let mut decoder = Decoder::new(role);
    let mut events = Vec::new();
    while !left.is_empty() {
        let (front, rest) = left.split_at_mut(piece(left.len()));
        left = rest;
        let mut front = front;
        loop {
            match decoder.poll_inflating(&mut front, limits, inflater.as_deref_mut()) {
                Ok(Some(event)) => {
                    let closed = matches!(events.last(), Some(OwnedEvent::Close(..)));
                    assert!(!closed, "an event after the close frame: {event:?}");
                    if let Event::Message { kind, payload } = event {
                        let valid = kind == MessageKind::Binary || std::str::from_utf8(payload).is_ok();
                        assert!(valid, "text that is not UTF-8");
                        assert!(payload.len() <= limits.message_bytes_max, "a message of {} bytes", payload.len());
                    }
                    events.push(OwnedEvent::from(event));
                }
                Ok(None) => {
                    assert!(front.is_empty(), "bytes are left over");
                    assert_eq!(decoder.is_idle(), decoder.heap_bytes() == 0, "an idle decoder owns memory");
                    break;
                }
                Err(error) => {
                    let again = decoder.poll_inflating(&mut front, limits, inflater.as_deref_mut());
                    assert_eq!(again, Err(error), "an error is latched");
                    assert_eq!(decoder.heap_bytes(), 0, "a failed decoder owns memory");
                    return (events, Some(error));
                }
            }
            let heap_bytes = decoder.heap_bytes();
            assert!(heap_bytes <= limits.message_bytes_max + HEAP_OVERHEAD_BYTES_MAX, "{heap_bytes} bytes are held");
        }
        let heap_bytes = decoder.heap_bytes();
        assert!(heap_bytes <= limits.message_bytes_max + HEAP_OVERHEAD_BYTES_MAX, "{heap_bytes} bytes are held");
    }
    (events, None)
}

fn check_outcome(outcome: &Outcome, data: &[u8], rules: &Rules) {
    match outcome {
        Outcome::NeedMore => assert!(data.len() < http::HEAD_BYTES_MAX, "more is wanted of a head that is too long"),
        Outcome::Respond { status, bytes } => {
            let start = format!("HTTP/1.1 {status} ");
            assert!(bytes.starts_with(start.as_bytes()) && bytes.len() < 1_024, "an odd answer");
        }
        Outcome::Upgrade(upgrade) => {
            assert!(upgrade.consumed_bytes <= data.len().min(http::HEAD_BYTES_MAX), "more is consumed than there is");
            assert!(rules.paths.contains(&upgrade.request.path), "a path that is not allowed");
            let spoken = upgrade.subprotocol.as_ref().is_some_and(|name| rules.subprotocols.contains(name));
            assert!(spoken, "a subprotocol that is not spoken");
            assert!(upgrade.response.starts_with(b"HTTP/1.1 101 ") && upgrade.response.ends_with(b"\r\n\r\n"));
        }
    }
}

/// Every length of a short input, a bounded number of lengths of a long one.
fn prefixes(data: &[u8]) -> impl Iterator<Item = usize> + use<> {
    (0..data.len()).step_by(1 + data.len() / 512)
}

/// FNV-1a: any function of the input will do, as long as it is one.
fn seed(data: &[u8]) -> u64 {
    data.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A step of a linear congruential generator, its better half in front.
const fn scramble(state: u64) -> u64 {
    state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407).rotate_left(32)
}

#[cfg(test)]
mod tests;
