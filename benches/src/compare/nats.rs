//! As much of NATS' client protocol as a broadcast needs: lines of text, and payloads of a stated length, in one stream
//! of bytes.
//!
//! Pure: bytes in, bytes out. What the server sends is not trusted to end where a WebSocket frame ends; a caller keeps
//! what [`next`] leaves and offers it again with more.

/// Longest line that is waited for: the server's `INFO` takes half a kilobyte.
const LINE_BYTES_MAX: usize = 8 * 1024;

/// Longest payload that is waited for.
const PAYLOAD_BYTES_MAX: usize = 1 << 20;

/// Where everything is published.
const SUBJECT: &str = "all";

/// What the server says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event<'a> {
    /// Wants a pong.
    Ping,
    /// Answers a ping: everything that was said before it has been taken.
    Pong,
    /// A message to a subscription.
    Message(&'a [u8]),
    /// Something that needs no answer.
    Other,
}

/// Why the server's bytes are not acceptable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NatsError {
    /// It refused something.
    #[error("the server said {0}")]
    Refused(String),
    /// They are not the protocol.
    #[error("the server's bytes are not NATS' protocol: {0}")]
    Protocol(&'static str),
}

/// Takes the next whole thing off the front of `input`; `None` if more bytes are needed.
pub(super) fn next<'a>(input: &mut &'a [u8]) -> Result<Option<Event<'a>>, NatsError> {
    let bytes = *input;
    let Some(end) = bytes.windows(2).position(|window| window == b"\r\n") else {
        return if bytes.len() > LINE_BYTES_MAX { Err(NatsError::Protocol("a line is too long")) } else { Ok(None) };
    };
    let (line, rest) = (&bytes[..end], &bytes[end + 2..]);
    let line = std::str::from_utf8(line).map_err(|_| NatsError::Protocol("a line is not text"))?;
    let (word, arguments) = line.split_once(' ').unwrap_or((line, ""));
    let (event, rest) = match word {
        "PING" => (Event::Ping, rest),
        "PONG" => (Event::Pong, rest),
        "INFO" | "+OK" => (Event::Other, rest),
        "-ERR" => return Err(NatsError::Refused(arguments.to_owned())),
        "MSG" => {
            let length: usize = arguments
                .rsplit(' ')
                .next()
                .and_then(|length| length.parse().ok())
                .filter(|&length| length <= PAYLOAD_BYTES_MAX)
                .ok_or(NatsError::Protocol("MSG has no good length"))?;
            let Some((payload, rest)) = rest.split_at_checked(length) else {
                return Ok(None);
            };
            match rest.split_at_checked(2) {
                None => return Ok(None),
                Some((b"\r\n", rest)) => (Event::Message(payload), rest),
                Some(_) => return Err(NatsError::Protocol("a payload does not end where it should")),
            }
        }
        _ => return Err(NatsError::Protocol("an unknown word")),
    };
    *input = rest;
    Ok(Some(event))
}

/// What a client says first; a pong follows when the server has taken it all.
pub(super) fn greeting(subscribes: bool) -> Vec<u8> {
    let subscription = if subscribes { format!("SUB {SUBJECT} 1\r\n") } else { String::new() };
    format!("CONNECT {{\"verbose\":false,\"pedantic\":false,\"echo\":false}}\r\n{subscription}PING\r\n").into_bytes()
}

/// A message to all who subscribe.
pub(super) fn publish(payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("PUB {SUBJECT} {}\r\n", payload.len()).into_bytes();
    bytes.extend(payload);
    bytes.extend(b"\r\n");
    bytes
}

/// Answers a ping.
pub(super) const PONG: &[u8] = b"PONG\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] = b"INFO {\"a\":1}\r\nPING\r\n+OK\r\nMSG all 1 4\r\na\r\nb\r\nMSG all 1 0\r\n\r\nPONG\r\n";

    #[test]
    fn a_stream_is_read_and_every_prefix_waits() {
        let mut input = STREAM;
        let mut events = Vec::new();
        while let Some(event) = next(&mut input).unwrap() {
            events.push(event);
        }
        let whole =
            [Event::Other, Event::Ping, Event::Other, Event::Message(b"a\r\nb"), Event::Message(b""), Event::Pong];
        assert_eq!((events.as_slice(), input), (whole.as_slice(), &b""[..]));
        for cut in 0..STREAM.len() {
            // What a prefix leaves, and the rest, give the same in two pieces.
            let (mut first, mut count) = (&STREAM[..cut], 0);
            while next(&mut first).unwrap().is_some() {
                count += 1;
            }
            let joined = [first, &STREAM[cut..]].concat();
            let mut second = joined.as_slice();
            while let Some(event) = next(&mut second).unwrap() {
                assert_eq!(event, whole[count], "cut at {cut}");
                count += 1;
            }
            assert_eq!(count, whole.len(), "cut at {cut}");
        }
    }

    #[test]
    fn what_is_not_the_protocol_is_named() {
        let check = |bytes: &[u8], expect: NatsError| assert_eq!(next(&mut { bytes }), Err(expect), "{bytes:?}");
        check(b"-ERR 'Unknown'\r\n", NatsError::Refused("'Unknown'".into()));
        check(b"HELLO\r\n", NatsError::Protocol("an unknown word"));
        check(b"MSG all 1 x\r\n", NatsError::Protocol("MSG has no good length"));
        check(b"MSG all 1 99999999999\r\n", NatsError::Protocol("MSG has no good length"));
        check(b"MSG all 1 1\r\nab\r\n", NatsError::Protocol("a payload does not end where it should"));
        check(&[b'a'; LINE_BYTES_MAX + 1], NatsError::Protocol("a line is too long"));
        check(b"\xff\r\n", NatsError::Protocol("a line is not text"));
    }

    #[test]
    fn what_is_published_is_what_the_protocol_says() {
        assert_eq!(publish(b"ab"), b"PUB all 2\r\nab\r\n");
        assert!(greeting(true).ends_with(b"\r\nSUB all 1\r\nPING\r\n"));
        assert!(!greeting(false).windows(3).any(|window| window == b"SUB"));
    }
}
