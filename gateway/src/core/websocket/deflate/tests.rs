//! The examples of RFC 7692, round trips in every window, limits that hold while inflating, streams of peers that mean no good,
//! and compressed messages through the decoder, cut everywhere.

use proptest::prelude::*;

use super::super::{Accepted, Decoder, Event, Limits, MessageKind, Opcode, encode_message};
use super::*;
use crate::core::fuzzing::{Decoded, OwnedEvent, decode_inflating, encode_compressed, fuzz_websocket};
use ProtocolError as E;

const KEY: Option<[u8; 4]> = Some([0x37, 0xfa, 0x21, 0x3d]);

fn agreed(bits: u8) -> Agreed {
    Agreed::new(bits).expect("a window that we compress with")
}

fn inflate(payload: &[u8], bytes_max: usize) -> Result<Vec<u8>, ProtocolError> {
    let mut inflater = Inflater::default();
    inflater.inflate(payload, bytes_max)?;
    Ok(inflater.output().to_vec())
}

/// Compressed, whatever its length.
fn compressed(payload: &[u8]) -> Vec<u8> {
    let mut deflater = Deflater::new(0);
    deflater.payload(agreed(15), payload).expect("it gets shorter").to_vec()
}

fn frame(opcode: Opcode, fin: bool, rsv1: bool, payload: &[u8]) -> Vec<u8> {
    [encode_header(opcode, fin, rsv1, payload.len() as u64, None).as_slice(), payload].concat()
}

/// Decodes whole, byte by byte, and cut once at every place.
fn check(stream: &[u8], limits: &Limits, events: &[OwnedEvent], error: Option<E>) {
    let expected: Decoded = (events.to_vec(), error);
    let decode = |piece: &mut dyn FnMut(usize) -> usize| decode_inflating(stream, Role::Client, limits, piece);
    assert_eq!(decode(&mut |left| left), expected, "whole: {stream:02x?}");
    assert_eq!(decode(&mut |_| 1), expected, "byte by byte: {stream:02x?}");
    for cut in 1..stream.len() {
        let mut first = true;
        let mut pieces = |left| if std::mem::take(&mut first) { cut } else { left };
        assert_eq!(decode(&mut pieces), expected, "cut at {cut}: {stream:02x?}");
    }
}

fn text(payload: &str) -> OwnedEvent {
    OwnedEvent::Message(MessageKind::Text, payload.as_bytes().to_vec())
}

#[test]
fn the_examples_of_rfc_7692_section_7_2_3() {
    let table: &[(&[u8], &[u8])] = &[
        // A message compressed using one compressed DEFLATE block.
        (&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00], b"Hello"),
        // Using a DEFLATE block with no compression.
        (&[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00], b"Hello"),
        // Using a DEFLATE block with BFINAL set to 1.
        (&[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00], b"Hello"),
        // Two DEFLATE blocks in one message.
        (&[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00], b"Hello"),
        // An empty message.
        (&[0x00], b""),
    ];
    for (payload, expected) in table {
        assert_eq!(inflate(payload, 100).as_deref(), Ok(*expected), "{payload:02x?}");
    }
    // §7.2.3.3, sharing the window over messages, is what no context takeover rules out: it refers back to nothing.
    assert_eq!(inflate(&[0xf2, 0x00, 0x11, 0x00, 0x00], 100), Err(E::DeflateInvalid));
    let events = [text("Hello")];
    check(&[0xc1, 0x07, 0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00], &Limits::default(), &events, None);
    let fragmented = [0x41, 0x03, 0xf2, 0x48, 0xcd, 0x80, 0x04, 0xc9, 0xc9, 0x07, 0x00];
    check(&fragmented, &Limits::default(), &events, None);
}

#[test]
fn what_does_not_inflate_or_is_cut_short_is_told() {
    let hello: &[u8] = &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    for length in 0..hello.len() {
        assert_eq!(inflate(&hello[..length], 100), Err(E::DeflateInvalid), "{length} bytes");
    }
    for payload in
        [&[0xff; 8][..], &[0x07], &[0x05, 0xc0], &[0x01, 1, 0, 1, 0], &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]]
    {
        assert_eq!(inflate(payload, 100), Err(E::DeflateInvalid), "{payload:02x?}");
    }
    assert_eq!(E::DeflateInvalid.close_code().get(), 1007);
    // An inflater that has failed inflates the next message.
    let mut inflater = Inflater::default();
    assert_eq!(inflater.inflate(&[0xff; 8], 100), Err(E::DeflateInvalid));
    assert_eq!((inflater.inflate(hello, 100), inflater.output()), (Ok(()), &b"Hello"[..]));
}

#[test]
fn a_bomb_ends_at_the_limit() {
    let bomb = compressed(&vec![b'a'; 16 << 20]);
    assert!(bomb.len() < 200_000, "{} bytes", bomb.len());
    let mut inflater = Inflater::default();
    for bytes_max in [0, 1, 1_000, 65_536] {
        assert_eq!(inflater.inflate(&bomb, bytes_max), Err(E::MessageTooLong));
        assert!(inflater.output.capacity() <= 4 * bytes_max.max(65_536), "{} bytes", inflater.output.capacity());
    }
    for length in [0, 1, 999, 1_000, 1_001, 1_023, 1_024, 1_025, 5_000] {
        let payload = vec![b'a'; length];
        let short = if length > 10 { compressed(&payload) } else { stored(&payload) };
        let expected = if length <= 1_000 { Ok(payload) } else { Err(E::MessageTooLong) };
        assert_eq!(inflate(&short, 1_000), expected, "{length} bytes");
    }
    let limits = Limits { message_bytes_max: 1_000, ..Limits::default() };
    let frames = |length| frame(Opcode::Text, true, true, &compressed(&vec![b'a'; length]));
    check(&frames(1_000), &limits, &[text(&"a".repeat(1_000))], None);
    check(&frames(1_001), &limits, &[], Some(E::MessageTooLong));
    assert_eq!(E::MessageTooLong.close_code().get(), 1009);
}

/// A payload in blocks without compression.
fn stored(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in payload.chunks(60_000) {
        out.push(0);
        out.extend((part.len() as u16).to_le_bytes());
        out.extend((!(part.len() as u16)).to_le_bytes());
        out.extend_from_slice(part);
    }
    out.push(0);
    out
}

#[test]
fn streams_within_a_message_are_counted() {
    let empty = [0x03, 0x00];
    let message = |count: usize| [empty.repeat(count).as_slice(), &[0x00]].concat();
    assert_eq!(inflate(&message(STREAMS_MAX as usize - 1), 100).as_deref(), Ok(&b""[..]));
    assert_eq!(inflate(&message(STREAMS_MAX as usize), 100), Err(E::DeflateInvalid));
    // What follows a last block is a stream of its own: it does not refer back beyond it.
    assert_eq!(
        inflate(&[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00], 100).as_deref(),
        Ok(&b"HelloHello"[..])
    );
}

#[test]
fn short_and_incompressible_payloads_stay_as_they_are() {
    let mut deflater = Deflater::default();
    let letters = vec![b'a'; DEFLATE_BYTES_MIN];
    assert!(deflater.payload(agreed(15), &letters[1..]).is_none());
    assert!(deflater.payload(agreed(15), &letters).is_some_and(|short| short.len() < 20));
    let noise: Vec<u8> = (0..4_096_u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
    let mut random = 1_u64;
    let noise: Vec<u8> = noise
        .iter()
        .map(|byte| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            byte ^ (random >> 33) as u8
        })
        .collect();
    assert!(deflater.payload(agreed(15), &noise).is_none());
    assert!(Deflater::new(0).payload(agreed(9), b"").is_none());
    let plain = encode_message(MessageKind::Text, &letters, None);
    let short = deflater.frame(agreed(15), &plain).expect("it gets shorter");
    assert_eq!((plain[0], short[0]), (0x81, 0xc1));
    assert!(deflater.frame(agreed(15), &encode_message(MessageKind::Binary, &noise, None)).is_none());
    check(&short, &Limits::default(), &[text(&"a".repeat(DEFLATE_BYTES_MIN))], None);
}

#[test]
fn noise_of_any_length_leaves_the_compressor_fit_for_what_follows() {
    let mut random = 1_u64;
    let mut noise = |length: usize| -> Vec<u8> {
        let mut step = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) as u8
        };
        (0..length).map(|_| step()).collect()
    };
    let (mut deflater, mut inflater) = (Deflater::new(0), Inflater::default());
    for length in [1, 10, 1_000, 16_384, 65_536, 131_072, 300_000] {
        for bits in [9, 12, 15] {
            // High bytes take nine bits each in the fixed code: the worst there is.
            for payload in [noise(length), noise(length).iter().map(|byte| byte | 0x90).collect()] {
                if let Some(short) = deflater.payload(agreed(bits), &payload) {
                    assert_eq!(inflater.inflate(short, length), Ok(()));
                    assert_eq!(inflater.output(), payload);
                }
                let index = usize::from(bits - WINDOW_BITS_MIN);
                assert!(deflater.compressors[index].is_some(), "{length} bytes of noise did not fit");
            }
            let text: Vec<u8> = b"words and more words, ".iter().copied().cycle().take(length.max(40)).collect();
            let short = deflater.payload(agreed(bits), &text).expect("it gets shorter");
            assert_eq!(inflater.inflate(short, text.len()), Ok(()));
            assert_eq!(inflater.output(), text);
        }
    }
}

#[test]
fn a_large_message_does_not_leave_its_buffer_behind() {
    let (mut deflater, mut inflater) = (Deflater::default(), Inflater::default());
    let mut large = deflater.payload(agreed(15), &vec![b'a'; 4 << 20]).expect("shorter").to_vec();
    assert_eq!(inflater.inflate(&large, 8 << 20), Ok(()));
    large = deflater.payload(agreed(15), &[b'a'; 1_000]).expect("shorter").to_vec();
    assert_eq!(inflater.inflate(&large, 8 << 20), Ok(()));
    assert!(deflater.output.capacity() <= BUFFER_BYTES_KEPT_MAX && inflater.output.capacity() <= BUFFER_BYTES_KEPT_MAX);
}

#[test]
fn rsv1_fragments_and_control_frames_between_them() {
    use Opcode::{Binary, Continuation, Ping, Pong, Text};
    let limits = Limits::default();
    let payload = compressed("Grüße, Grüße, Grüße, Grüße".as_bytes());
    let (first, rest) = payload.split_at(5);
    let join = |frames: &[Vec<u8>]| frames.concat();
    let greeting = text("Grüße, Grüße, Grüße, Grüße");
    let ping = OwnedEvent::Ping(b"p".to_vec());
    check(
        &join(&[
            frame(Text, false, true, first),
            frame(Ping, true, false, b"p"),
            frame(Continuation, false, false, b""),
            frame(Pong, true, false, b""),
            frame(Continuation, true, false, rest),
            frame(Text, true, false, b"plain"),
            frame(Text, true, true, &payload),
        ]),
        &limits,
        &[ping.clone(), OwnedEvent::Pong(vec![]), greeting.clone(), text("plain"), greeting],
        None,
    );
    // On another frame than the first, on a control frame, and where nothing was agreed on.
    let wrong = join(&[frame(Text, false, true, first), frame(Continuation, true, true, rest)]);
    check(&wrong, &limits, &[], Some(E::ReservedBit));
    let wrong = join(&[frame(Text, false, false, b"a"), frame(Continuation, true, true, rest)]);
    check(&wrong, &limits, &[], Some(E::ReservedBit));
    check(&[0xc9, 0x01, b'p'], &limits, &[], Some(E::ReservedBit));
    let mut stream = frame(Text, true, true, &payload);
    assert_eq!(Decoder::new(Role::Client).poll(&mut stream.as_mut_slice(), &limits), Err(E::ReservedBit));
    // A message is text or not after inflating, whatever its compressed bytes look like.
    let mut deflater = Deflater::new(0);
    let noise = [0xff; 50];
    let noise = deflater.payload(agreed(15), &noise).expect("shorter").to_vec();
    check(&frame(Text, true, true, &noise), &limits, &[], Some(E::TextNotUtf8));
    check(
        &frame(Binary, true, true, &noise),
        &limits,
        &[OwnedEvent::Message(MessageKind::Binary, vec![0xff; 50])],
        None,
    );
    check(
        &join(&[frame(Text, false, true, &noise), frame(Continuation, true, false, b"")]),
        &limits,
        &[],
        Some(E::TextNotUtf8),
    );
    let only_binary = Limits { accepted: Accepted::Binary, ..limits };
    check(&frame(Text, true, true, &payload), &only_binary, &[], Some(E::KindNotAccepted));
}

#[test]
fn a_connection_holds_what_arrived_of_a_compressed_message_and_nothing_afterwards() {
    let limits = Limits::default();
    let mut inflater = Inflater::default();
    let mut decoder = Decoder::new(Role::Server);
    let payload = vec![b'a'; 50_000];
    let short = compressed(&payload);
    let mut stream = encode_compressed(MessageKind::Text, &short, KEY);
    let (mut first, mut second) = stream.split_at_mut(20);
    assert_eq!(decoder.poll_inflating(&mut first, &limits, Some(&mut inflater)), Ok(None));
    assert!(decoder.heap_bytes() < 256, "{} bytes", decoder.heap_bytes());
    let event = decoder.poll_inflating(&mut second, &limits, Some(&mut inflater));
    assert_eq!(event, Ok(Some(Event::Message { kind: MessageKind::Text, payload: &payload })));
    assert_eq!(decoder.poll_inflating(&mut second, &limits, Some(&mut inflater)), Ok(None));
    assert!(decoder.is_idle() && decoder.heap_bytes() == 0);
    // Whole in the input: not even for a moment.
    let mut stream = encode_compressed(MessageKind::Text, &short, KEY);
    let mut input = stream.as_mut_slice();
    assert!(decoder.poll_inflating(&mut input, &limits, Some(&mut inflater)).is_ok_and(|event| event.is_some()));
    assert!(decoder.is_idle());
}

proptest! {
    #[test]
    fn every_payload_survives_in_every_window(
        words in prop::collection::vec(".{0,12}", 1..8),
        picks in prop::collection::vec(any::<prop::sample::Index>(), 0..400),
    ) {
        let payload: String = picks.iter().map(|pick| words[pick.index(words.len())].as_str()).collect();
        let mut deflater = Deflater::new(0);
        let mut inflater = Inflater::default();
        for bits in WINDOW_BITS_MIN..=WINDOW_BITS_MAX {
            let Some(short) = deflater.payload(agreed(bits), payload.as_bytes()) else { continue };
            let short = short.to_vec();
            prop_assert!(short.len() < payload.len());
            // A peer with a window no larger than it asked for inflates it.
            let mut small = Inflate::new(false, bits);
            let mut output = vec![0; payload.len()];
            let whole = [short.as_slice(), &TAIL].concat();
            prop_assert!(small.decompress(&whole, &mut output, InflateFlush::SyncFlush).is_ok());
            prop_assert_eq!(&output, payload.as_bytes());
            prop_assert_eq!(inflater.inflate(&short, payload.len()), Ok(()));
            prop_assert_eq!(inflater.output(), payload.as_bytes());
            prop_assert_eq!(inflater.inflate(&short, payload.len() - 1), Err(E::MessageTooLong));
            // The same message gives the same bytes, whatever was compressed before.
            deflater.payload(agreed(bits), &payload.as_bytes()[1..]);
            prop_assert_eq!(deflater.payload(agreed(bits), payload.as_bytes()), Some(short.as_slice()));
        }
    }

    #[test]
    fn any_payload_inflates_or_is_refused_within_the_limit(
        payload in prop::collection::vec(any::<u8>(), 0..300),
        bytes_max in 0_usize..2_000,
    ) {
        let mut inflater = Inflater::default();
        match inflater.inflate(&payload, bytes_max) {
            Ok(()) => prop_assert!(inflater.output().len() <= bytes_max),
            Err(error) => prop_assert!(matches!(error, E::DeflateInvalid | E::MessageTooLong), "{error}"),
        }
    }

    #[test]
    fn compressed_streams_with_a_changed_byte_decode_the_same_however_they_are_cut(
        texts in prop::collection::vec("(ab|cd|é){0,80}", 1..4),
        at in any::<prop::sample::Index>(),
        change in any::<u8>(),
    ) {
        for mask in [None, KEY] {
            let mut deflater = Deflater::new(0);
            let mut stream = Vec::new();
            for text in &texts {
                match deflater.payload(agreed(15), text.as_bytes()) {
                    Some(short) => stream.extend(encode_compressed(MessageKind::Text, short, mask)),
                    None => stream.extend(encode_message(MessageKind::Text, text.as_bytes(), mask)),
                }
            }
            let at = at.index(stream.len());
            stream[at] ^= change;
            fuzz_websocket(&stream);
        }
    }
}
