//! Tables of streams and what they decode to, each at every cut; what is borrowed and what is held; a property over all.

use proptest::prelude::*;

use super::super::{CONTROL_PAYLOAD_BYTES_MAX, CloseCode, encode_close, encode_frame, encode_message, encode_ping};
use super::*;
use crate::core::fuzzing::{OwnedEvent, decode};
use crate::core::websocket::{Accepted, encode_pong};
use ProtocolError as E;

const KEY: Option<[u8; 4]> = Some([0x37, 0xfa, 0x21, 0x3d]);

fn text(payload: &str) -> OwnedEvent {
    OwnedEvent::Message(MessageKind::Text, payload.as_bytes().to_vec())
}

fn binary(payload: &[u8]) -> OwnedEvent {
    OwnedEvent::Message(MessageKind::Binary, payload.to_vec())
}

/// Decodes whole, byte by byte, and cut once at every place.
fn check_with(stream: &[u8], role: Role, limits: &Limits, events: &[OwnedEvent], error: Option<E>) {
    let expected = (events.to_vec(), error);
    assert_eq!(decode(stream, role, limits, &mut |left| left), expected, "whole: {stream:02x?}");
    assert_eq!(decode(stream, role, limits, &mut |_| 1), expected, "byte by byte: {stream:02x?}");
    for cut in 1..stream.len() {
        let mut first = true;
        let mut pieces = |left| if std::mem::take(&mut first) { cut } else { left };
        assert_eq!(decode(stream, role, limits, &mut pieces), expected, "cut at {cut}: {stream:02x?}");
    }
}

/// Checks the frames unmasked at a client and masked at a server.
fn check(frames: &[(Opcode, bool, &[u8])], events: &[OwnedEvent], error: Option<E>) {
    for (role, mask) in [(Role::Server, KEY), (Role::Client, None)] {
        let stream = frames.iter().flat_map(|(opcode, fin, payload)| encode_frame(*opcode, *fin, payload, mask));
        check_with(&stream.collect::<Vec<_>>(), role, &Limits::default(), events, error);
    }
}

#[test]
fn an_idle_decoder_is_small() {
    assert_eq!(size_of::<Decoder>(), 16);
    assert!(size_of::<Partial>() <= 128, "{}", size_of::<Partial>());
}

#[test]
fn the_examples_of_rfc_6455_section_5_7() {
    let limits = Limits::default();
    let table: &[(&[u8], Role, OwnedEvent)] = &[
        (b"\x81\x05Hello", Role::Client, text("Hello")),
        (b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", Role::Server, text("Hello")),
        (b"\x01\x03Hel\x80\x02lo", Role::Client, text("Hello")),
        (b"\x89\x05Hello", Role::Client, OwnedEvent::Ping(b"Hello".to_vec())),
        (b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", Role::Server, OwnedEvent::Pong(b"Hello".to_vec())),
    ];
    for (stream, role, event) in table {
        check_with(stream, *role, &limits, std::slice::from_ref(event), None);
    }
}

#[test]
fn messages_fragments_and_control_frames_between_them() {
    use Opcode::{Binary, Close, Continuation, Ping, Pong, Text};
    check(&[(Text, true, b"")], &[text("")], None);
    check(&[(Binary, true, b"\xff\x00")], &[binary(b"\xff\x00")], None);
    check(&[(Text, false, b""), (Continuation, false, b""), (Continuation, true, b"")], &[text("")], None);
    check(
        &[
            (Text, false, b"a"),
            (Ping, true, b"p"),
            (Continuation, false, b"b"),
            (Pong, true, b""),
            (Continuation, true, b"c"),
        ],
        &[OwnedEvent::Ping(b"p".to_vec()), OwnedEvent::Pong(vec![]), text("abc")],
        None,
    );
    check(&[(Text, true, b"1"), (Binary, true, b"2"), (Text, true, b"3")], &[text("1"), binary(b"2"), text("3")], None);
    // After a close frame nothing is delivered, not even an error.
    check(
        &[(Text, false, b"a"), (Close, true, b"\x03\xe8bye"), (Continuation, true, b"b"), (Text, true, b"\xff")],
        &[OwnedEvent::Close(Some(1000), "bye".to_owned())],
        None,
    );
    check(&[(Close, true, b""), (Ping, true, b"")], &[OwnedEvent::Close(None, String::new())], None);
}

#[test]
fn lengths_at_the_borders_of_the_header_forms() {
    for (length, role, mask) in
        [125, 126, 127, 128, 65_535, 65_536].into_iter().flat_map(|n| [(n, Role::Server, KEY), (n, Role::Client, None)])
    {
        let payload = vec![b'*'; length];
        let stream = encode_message(MessageKind::Text, &payload, mask);
        let expected = (vec![OwnedEvent::Message(MessageKind::Text, payload)], None);
        for piece in [1, 997, stream.len()] {
            let decoded = decode(&stream, role, &Limits::default(), &mut |left| piece.min(left));
            assert_eq!(decoded, expected, "{length} bytes in pieces of {piece}");
        }
    }
}

#[test]
fn wrong_orders_of_frames() {
    use Opcode::{Binary, Continuation, Ping, Text};
    check(&[(Continuation, true, b"x")], &[], Some(E::ContinuationUnexpected));
    check(&[(Continuation, false, b"x")], &[], Some(E::ContinuationUnexpected));
    check(&[(Text, true, b"x"), (Continuation, true, b"y")], &[text("x")], Some(E::ContinuationUnexpected));
    check(&[(Text, false, b"x"), (Text, true, b"y")], &[], Some(E::MessageInterrupted));
    check(
        &[(Text, false, b"x"), (Ping, true, b""), (Binary, false, b"y")],
        &[OwnedEvent::Ping(vec![])],
        Some(E::MessageInterrupted),
    );
}

#[test]
fn wrong_headers_end_the_stream_after_what_came_before() {
    let hello = encode_message(MessageKind::Text, b"Hello", KEY);
    let table: &[(&[u8], E)] = &[
        (&[0xc1, 0x80, 0, 0, 0, 0], E::ReservedBit),
        (&[0x85, 0x80, 0, 0, 0, 0], E::ReservedOpcode(5)),
        (&[0x09, 0x80, 0, 0, 0, 0], E::ControlFragmented),
        (&[0x89, 0xfe, 0, 126], E::ControlTooLong),
        (&[0x81, 0x05, b'H'], E::MaskMissing),
        (&[0x80, 0x05, b'H'], E::MaskMissing),
        (&[0x81, 0xfe, 0, 5, 0, 0, 0, 0], E::LengthNotMinimal),
        (&[0x82, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0], E::LengthOutOfRange),
        (&[0x82, 0xff, 0x7f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], E::FrameTooLong),
    ];
    for (bytes, error) in table {
        let stream = [hello.as_slice(), bytes].concat();
        check_with(&stream, Role::Server, &Limits::default(), &[text("Hello")], Some(*error));
    }
    check_with(&hello, Role::Client, &Limits::default(), &[], Some(E::MaskUnexpected));
}

#[test]
fn close_frames_of_every_code() {
    for code in 0..=5_100_u16 {
        let stream = encode_frame(Opcode::Close, true, &code.to_be_bytes(), None);
        let expected = match CloseCode::new(code) {
            Some(_) => (vec![OwnedEvent::Close(Some(code), String::new())], None),
            None => (vec![], Some(E::CloseCodeInvalid(code))),
        };
        assert_eq!(decode(&stream, Role::Client, &Limits::default(), &mut |left| left), expected);
        assert_eq!(decode(&stream, Role::Client, &Limits::default(), &mut |_| 1), expected);
    }
    let longest = "r".repeat(CONTROL_PAYLOAD_BYTES_MAX - 2);
    let stream = encode_close(Some(CloseCode::GOING_AWAY), &longest, KEY);
    check_with(&stream, Role::Server, &Limits::default(), &[OwnedEvent::Close(Some(1001), longest)], None);
    check(&[(Opcode::Close, true, b"\x03")], &[], Some(E::CloseTruncated));
    check(&[(Opcode::Close, true, b"\x03\xe8\xce\xba\xff")], &[], Some(E::CloseReasonNotUtf8));
}

#[test]
fn limits_on_frames_messages_fragments_and_kinds() {
    use Opcode::{Binary, Continuation, Ping, Text};
    let limits = Limits { frame_bytes_max: 8, message_bytes_max: 12, fragments_max: 3, accepted: Accepted::Any };
    let stream = |frames: &[(Opcode, bool, usize)]| -> Vec<u8> {
        let frames = frames.iter();
        frames.flat_map(|(opcode, fin, length)| encode_frame(*opcode, *fin, &vec![b'a'; *length], None)).collect()
    };
    let check = |frames: &[(Opcode, bool, usize)], limits: &Limits, events: &[OwnedEvent], error| {
        check_with(&stream(frames), Role::Client, limits, events, error);
    };
    check(&[(Text, true, 8)], &limits, &[text("aaaaaaaa")], None);
    check(&[(Text, true, 9)], &limits, &[], Some(E::FrameTooLong));
    check(&[(Text, false, 9)], &limits, &[], Some(E::FrameTooLong));
    check(&[(Text, false, 8), (Continuation, true, 4)], &limits, &[text("aaaaaaaaaaaa")], None);
    check(&[(Text, false, 8), (Continuation, true, 5)], &limits, &[], Some(E::MessageTooLong));
    check(&[(Text, false, 0), (Continuation, false, 0), (Continuation, true, 0)], &limits, &[text("")], None);
    check(
        &[(Text, false, 0), (Continuation, false, 0), (Continuation, false, 0), (Continuation, true, 0)],
        &limits,
        &[],
        Some(E::TooManyFragments),
    );
    // The limits are on data: a control frame may be longer than they allow.
    check(&[(Ping, true, 100)], &limits, &[OwnedEvent::Ping(vec![b'a'; 100])], None);
    let short = Limits { message_bytes_max: 4, ..limits };
    check(&[(Binary, true, 5)], &short, &[], Some(E::MessageTooLong));

    let only_text = Limits { accepted: Accepted::Text, ..limits };
    check(&[(Text, true, 1), (Binary, true, 1)], &only_text, &[text("a")], Some(E::KindNotAccepted));
    let only_binary = Limits { accepted: Accepted::Binary, ..limits };
    check(&[(Binary, true, 1), (Text, false, 1)], &only_binary, &[binary(b"a")], Some(E::KindNotAccepted));
}

#[test]
fn errors_say_which_code_to_close_with() {
    let table = [
        (E::ReservedBit, 1002),
        (E::MaskMissing, 1002),
        (E::CloseCodeInvalid(1005), 1002),
        (E::KindNotAccepted, 1003),
        (E::TextNotUtf8, 1007),
        (E::CloseReasonNotUtf8, 1007),
        (E::TooManyFragments, 1008),
        (E::FrameTooLong, 1009),
        (E::MessageTooLong, 1009),
    ];
    for (error, code) in table {
        assert_eq!(error.close_code().get(), code, "{error}");
    }
}

/// Texts with the index of the byte that makes them invalid (Autobahn's sections 6.3, 6.4 and more).
const INVALID_TEXTS: &[(&[u8], usize)] = &[
    (b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80\x65\x64\x69\x74\x65\x64", 12),
    (b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90\x80\x80\x65\x64\x69\x74\x65\x64", 12),
    (b"plain, then \xff and plain again, long enough for the vector path of the check, which takes 64", 12),
    (b"\xc0\xaf", 0),
    (b"\xe0\x80\xaf", 1),
    (b"\xf8\x88\x80\x80\x80", 0),
    (b"a\xe2\x82b", 3),
];

#[test]
fn text_fails_at_its_earliest_invalid_byte_in_a_frame_and_across_fragments() {
    let limits = Limits::default();
    for (payload, invalid_at) in INVALID_TEXTS {
        // One frame, byte by byte: with the invalid byte, not before and not later.
        for (role, mask) in [(Role::Server, KEY), (Role::Client, None)] {
            let mut stream = encode_frame(Opcode::Text, true, payload, mask);
            let header_bytes = stream.len() - payload.len();
            let mut decoder = Decoder::new(role);
            for (index, byte) in stream.iter_mut().enumerate() {
                let mut piece = std::slice::from_mut(byte);
                let result = decoder.poll(&mut piece, &limits);
                if index < header_bytes + invalid_at {
                    assert_eq!(result, Ok(None), "byte {index} of {payload:02x?}");
                } else {
                    assert_eq!(result, Err(E::TextNotUtf8), "byte {index} of {payload:02x?}");
                    break;
                }
            }
        }
        // Two fragments, cut everywhere: the second is not waited for when the first is invalid.
        for cut in 0..=payload.len() {
            let (first, second) = payload.split_at(cut);
            let mut stream = encode_frame(Opcode::Text, false, first, None);
            stream.extend(encode_frame(Opcode::Continuation, true, second, None));
            check_with(&stream, Role::Client, &limits, &[], Some(E::TextNotUtf8));
            if cut > *invalid_at {
                check_with(
                    &encode_frame(Opcode::Text, false, first, None),
                    Role::Client,
                    &limits,
                    &[],
                    Some(E::TextNotUtf8),
                );
            }
        }
    }
}

#[test]
fn text_cut_within_characters_is_valid_but_may_not_end_there() {
    let whole = "Hellö ✓ 😀";
    for cut in 0..=whole.len() {
        let (first, second) = whole.as_bytes().split_at(cut);
        check(&[(Opcode::Text, false, first), (Opcode::Continuation, true, second)], &[text(whole)], None);
        let error = (!whole.is_char_boundary(cut)).then_some(E::TextNotUtf8);
        let events = if error.is_none() { vec![text(&whole[..cut])] } else { vec![] };
        check(&[(Opcode::Text, true, first)], &events, error);
        check(&[(Opcode::Text, false, first), (Opcode::Continuation, true, b"")], &events, error);
    }
}

#[test]
fn whole_messages_borrow_from_the_input_and_hold_nothing() {
    let mut stream = encode_message(MessageKind::Text, b"one", KEY);
    stream.extend(encode_ping(b"two", KEY));
    stream.extend(encode_message(MessageKind::Binary, &[3; 300], KEY));
    let range = stream.as_ptr_range();
    let mut decoder = Decoder::new(Role::Server);
    let mut input = stream.as_mut_slice();
    let mut count = 0;
    while let Some(event) = decoder.poll(&mut input, &Limits::default()).expect("a valid stream") {
        let (Event::Message { payload, .. } | Event::Ping(payload)) = event else { panic!("{event:?}") };
        assert!(range.contains(&payload.as_ptr()), "copied: {event:?}");
        count += 1;
        assert!(decoder.is_idle() && decoder.heap_bytes() == 0);
    }
    assert_eq!(count, 3);
}

#[test]
fn memory_is_held_for_what_arrived_and_given_back() {
    let limits = Limits::default();
    let mut decoder = Decoder::new(Role::Client);
    let poll = |decoder: &mut Decoder, bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        let mut input = bytes.as_mut_slice();
        let mut events = 0;
        while decoder.poll(&mut input, &limits).expect("a valid stream").is_some() {
            events += 1;
        }
        events
    };
    // A header that announces 100,000 bytes, and one of them.
    let frame = encode_message(MessageKind::Binary, &[1; 100_000], None);
    assert_eq!(poll(&mut decoder, &frame[..11]), 0);
    assert!(decoder.heap_bytes() <= size_of::<Partial>() + 2, "{}", decoder.heap_bytes());
    assert_eq!(poll(&mut decoder, &frame[11..]), 1);
    assert!(decoder.is_idle());
    // Half a ping between fragments, then its rest: the message stays, the ping goes.
    assert_eq!(poll(&mut decoder, b"\x01\x01a\x89\x02p"), 0);
    assert_eq!(poll(&mut decoder, b"q"), 1);
    assert!(!decoder.is_idle());
    assert!(decoder.heap_bytes() < size_of::<Partial>() + 16);
    assert_eq!(poll(&mut decoder, b"\x80\x01b"), 1);
    assert!(decoder.is_idle());
    // A close frame in two pieces.
    assert_eq!(poll(&mut decoder, b"\x02\x01a\x88\x02\x03"), 0);
    assert_eq!(poll(&mut decoder, b"\xe8\x81\x01x"), 1);
    assert!(decoder.is_idle());
    assert_eq!(poll(&mut decoder, b"\x81\x01x"), 0);
}

/// One message in fragments, with control frames before each fragment.
#[derive(Clone, Debug)]
struct Sent {
    kind: MessageKind,
    payload: Vec<u8>,
    cuts: Vec<prop::sample::Index>,
    controls: Vec<(prop::sample::Index, bool, Vec<u8>)>,
}

fn sent() -> impl Strategy<Value = Sent> {
    let text = ".{0,80}".prop_map(|text| (MessageKind::Text, text.into_bytes()));
    let binary = prop::collection::vec(any::<u8>(), 0..400).prop_map(|bytes| (MessageKind::Binary, bytes));
    let cuts = prop::collection::vec(any::<prop::sample::Index>(), 0..5);
    let control = (any::<prop::sample::Index>(), any::<bool>(), prop::collection::vec(any::<u8>(), 0..=125));
    (prop_oneof![text, binary], cuts, prop::collection::vec(control, 0..3))
        .prop_map(|((kind, payload), cuts, controls)| Sent { kind, payload, cuts, controls })
}

impl Sent {
    fn encode(&self, mask: Option<[u8; 4]>, stream: &mut Vec<u8>, events: &mut Vec<OwnedEvent>) {
        let mut cuts: Vec<usize> = self.cuts.iter().map(|cut| cut.index(self.payload.len() + 1)).collect();
        cuts.extend([0, self.payload.len()]);
        cuts.sort_unstable();
        let fragments = cuts.len() - 1;
        for (index, ends) in cuts.windows(2).enumerate() {
            for (_, ping, payload) in self.controls.iter().filter(|(at, ..)| at.index(fragments) == index) {
                if *ping {
                    stream.extend(encode_ping(payload, mask));
                    events.push(OwnedEvent::Ping(payload.clone()));
                } else {
                    stream.extend(encode_pong(payload, mask));
                    events.push(OwnedEvent::Pong(payload.clone()));
                }
            }
            let opcode = if index == 0 { self.kind.opcode() } else { Opcode::Continuation };
            stream.extend(encode_frame(opcode, index + 1 == fragments, &self.payload[ends[0]..ends[1]], mask));
        }
        events.push(OwnedEvent::Message(self.kind, self.payload.clone()));
    }
}

proptest! {
    #[test]
    fn any_fragmentation_and_any_cut_decode_to_what_was_sent(
        messages in prop::collection::vec(sent(), 0..5),
        key in any::<[u8; 4]>(),
        closes in any::<bool>(),
        pieces in prop::collection::vec(1_usize..200, 1..20),
    ) {
        for (role, mask) in [(Role::Server, Some(key)), (Role::Client, None)] {
            let (mut stream, mut events) = (Vec::new(), Vec::new());
            for message in &messages {
                message.encode(mask, &mut stream, &mut events);
            }
            if closes {
                stream.extend(encode_close(Some(CloseCode::NORMAL), "done", mask));
                events.push(OwnedEvent::Close(Some(1000), "done".to_owned()));
            }
            let mut lengths = pieces.iter().cycle();
            let decoded = decode(&stream, role, &Limits::default(), &mut |left| {
                lengths.next().copied().unwrap_or(1).min(left)
            });
            prop_assert_eq!(decoded, (events, None));
        }
    }

    #[test]
    fn any_bytes_decode_the_same_however_they_are_cut(data in prop::collection::vec(any::<u8>(), 0..300)) {
        crate::core::fuzzing::fuzz_websocket(&data);
    }
}
