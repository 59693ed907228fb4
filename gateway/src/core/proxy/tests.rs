//! Headers good and bad, however they are cut, and what is behind the adapter sees of them.

use proptest::prelude::*;

use super::*;

/// A header with a command, a family and what follows.
fn header(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = SIGNATURE.to_vec();
    bytes.extend([0x20 | command, family]);
    bytes.extend((body.len() as u16).to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

const V4: [u8; 12] = [192, 0, 2, 7, 10, 0, 0, 1, 0x30, 0x39, 0, 80];

fn v6() -> Vec<u8> {
    let mut body: Vec<u8> = "2001:db8::7".parse::<Ipv6Addr>().unwrap().octets().to_vec();
    body.extend("2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
    body.extend([0x30, 0x39, 0, 80]);
    body
}

#[test]
fn headers_tell_the_client() {
    let mapped = {
        let mut body = v6();
        body[..16].copy_from_slice(&Ipv4Addr::new(192, 0, 2, 7).to_ipv6_mapped().octets());
        body
    };
    let with_fields = [&V4[..], &[4, 0, 3, 0, 0, 0], &[1, 0, 2], b"h2"].concat();
    for (bytes, client) in [
        (header(1, 0x11, &V4), Some("192.0.2.7:12345")),
        (header(1, 0x11, &with_fields), Some("192.0.2.7:12345")),
        (header(1, 0x21, &v6()), Some("[2001:db8::7]:12345")),
        (header(1, 0x21, &mapped), Some("192.0.2.7:12345")),
        (header(0, 0, &[]), None),
        (header(0, 0x11, &V4), None),
        (header(0, 0xff, b"what comes is passed over"), None),
    ] {
        let client = client.map(|client| client.parse().unwrap());
        assert_eq!(parse(&bytes), Ok(Parsed::Header { client, bytes: bytes.len() }));
        for length in 0..bytes.len() {
            assert_eq!(parse(&bytes[..length]), Ok(Parsed::NeedMore), "{length}");
        }
    }
}

#[test]
fn what_is_no_header_is_refused_as_soon_as_it_shows() {
    let version_1 = b"PROXY TCP4 192.0.2.7 10.0.0.1 12345 80\r\n".to_vec();
    let mut version_3 = header(1, 0x11, &V4);
    version_3[12] = 0x31;
    let reaching = [&V4[..], &[4, 0, 9, 0]].concat();
    let cut = [&V4[..], &[4, 0]].concat();
    for (bytes, error, shows_at) in [
        (version_1, HeaderError::NotAHeader, 1),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), HeaderError::NotAHeader, 1),
        (b"\r\n\r\n\0\r\nQUIT\r".to_vec(), HeaderError::NotAHeader, 12),
        (version_3, HeaderError::NotAHeader, 13),
        (header(2, 0x11, &V4), HeaderError::Command, 13),
        (header(1, 0x12, &V4), HeaderError::Family, 14),
        (header(1, 0x31, &[0; 216]), HeaderError::Family, 14),
        (header(1, 0, &V4), HeaderError::Family, 14),
        (header(1, 0x11, &V4[..11]), HeaderError::Truncated, 16),
        (header(1, 0x21, &V4), HeaderError::Truncated, 16),
        (header(1, 0x11, &reaching), HeaderError::Truncated, 32),
        (header(1, 0x11, &cut), HeaderError::Truncated, 30),
        (header(0, 0, &[0; HEADER_BYTES_MAX - FIXED_BYTES + 1]), HeaderError::TooLong, 16),
    ] {
        assert_eq!(parse(&bytes[..shows_at - 1]), Ok(Parsed::NeedMore), "{error}");
        assert_eq!(parse(&bytes[..shows_at]), Err(error));
        assert_eq!(parse(&bytes), Err(error));
    }
    let longest = header(0, 0, &[0; HEADER_BYTES_MAX - FIXED_BYTES]);
    assert_eq!(parse(&longest), Ok(Parsed::Header { client: None, bytes: HEADER_BYTES_MAX }));
}

/// Writes down what it is told.
#[derive(Debug, Default)]
struct Told {
    calls: Vec<String>,
    bytes: Vec<u8>,
}

impl Handler for Told {
    fn accepted(&mut self, _: ConnectionKey, origin: Origin) {
        self.calls.push(format!("accepted {} {}", origin.listener, origin.peer));
    }
    fn received(&mut self, _: ConnectionKey, bytes: &mut [u8]) {
        self.bytes.extend_from_slice(bytes);
    }
    fn sent(&mut self, _: ConnectionKey) {
        self.calls.push("sent".into());
    }
    fn closed(&mut self, _: ConnectionKey) {
        self.calls.push("closed".into());
    }
    fn turn(&mut self, _: u64) -> Turn {
        Turn { more: false, wake_at_ms: None }
    }
    fn poll_command(&mut self) -> Option<Command> {
        None
    }
}

const KEY: ConnectionKey = ConnectionKey { slot: 3, generation: 1 };

fn proxy() -> Proxy<Told> {
    let from = ["10.0.0.0/8".parse().unwrap()].into_iter().collect();
    Proxy::new(Told::default(), ProxyRules { from, timeout_ms: 5_000 }, Rc::default())
}

fn accept(proxy: &mut Proxy<Told>, peer: &str) {
    proxy.accepted(KEY, Origin { listener: 2, peer: peer.parse().unwrap() });
}

fn is_closed(proxy: &mut Proxy<Told>) -> bool {
    match proxy.poll_command() {
        Some(Command::Close { connection }) => connection == KEY,
        other => {
            assert!(other.is_none(), "{other:?}");
            false
        }
    }
}

proptest! {
    #[test]
    fn however_it_is_cut_the_client_and_the_rest_arrive(
        local in any::<bool>(),
        fields in 0_usize..40,
        rest in proptest::collection::vec(any::<u8>(), 0..100),
        cuts in proptest::collection::vec(1_usize..30, 1..50),
    ) {
        let body = [&V4[..], &[4, 0, fields as u8], &vec![0; fields]].concat();
        let mut stream = [header(u8::from(!local), 0x11, &body), rest.clone()].concat();
        let mut proxy = proxy();
        accept(&mut proxy, "10.0.0.9:999");
        let (mut left, mut cuts) = (stream.as_mut_slice(), cuts.into_iter().cycle());
        while !left.is_empty() {
            let (front, behind) = left.split_at_mut(cuts.next().unwrap().min(left.len()));
            proxy.received(KEY, front);
            left = behind;
        }
        let client = if local { "10.0.0.9:999" } else { "192.0.2.7:12345" };
        prop_assert_eq!(&proxy.inner.calls, &[format!("accepted 2 {client}")]);
        prop_assert_eq!(&proxy.inner.bytes, &rest);
        prop_assert!(!is_closed(&mut proxy) && proxy.waiting.is_empty());
    }

    #[test]
    fn any_bytes_are_taken_or_refused_alike_however_they_are_cut(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..60),
        keep in 0_usize..20,
        cut in 1_usize..20,
    ) {
        let good = header(1, 0x11, &V4);
        let keep = keep.min(bytes.len());
        bytes[..keep].copy_from_slice(&good[..keep]);
        let run = |cut: usize| {
            let mut proxy = proxy();
            accept(&mut proxy, "10.0.0.9:999");
            let mut bytes = bytes.clone();
            for piece in bytes.chunks_mut(cut) {
                proxy.received(KEY, piece);
                if is_closed(&mut proxy) {
                    return (true, Vec::new(), Vec::new());
                }
            }
            (false, proxy.inner.calls, proxy.inner.bytes)
        };
        prop_assert_eq!(run(cut), run(60));
    }
}

#[test]
fn nobody_else_is_asked_for_a_header() {
    let mut proxy = proxy();
    accept(&mut proxy, "192.0.2.1:5");
    let mut bytes = header(1, 0x11, &V4);
    proxy.received(KEY, &mut bytes);
    proxy.sent(KEY);
    proxy.closed(KEY);
    assert_eq!(proxy.inner.calls, ["accepted 2 192.0.2.1:5", "sent", "closed"]);
    assert_eq!(proxy.inner.bytes, bytes, "it goes on as it is, and is no HTTP");
}

#[test]
fn a_header_must_come_in_time() {
    let mut proxy = proxy();
    assert_eq!(proxy.turn(1_000).wake_at_ms, None);
    accept(&mut proxy, "10.0.0.9:999");
    assert_eq!(proxy.turn(2_000).wake_at_ms, Some(7_000));
    let mut bytes = header(1, 0x11, &V4);
    let end = bytes.len() - 1;
    proxy.received(KEY, &mut bytes[..end]);
    assert_eq!(proxy.turn(6_999).wake_at_ms, Some(7_000));
    assert!(!is_closed(&mut proxy));
    assert_eq!(proxy.turn(7_000).wake_at_ms, None);
    assert!(is_closed(&mut proxy));
    assert_eq!((proxy.counters.timed_out.get(), proxy.counters.taken.get()), (1, 0));
    assert_eq!(proxy.inner.calls, [""; 0]);
}

#[test]
fn what_is_behind_never_hears_of_one_that_was_refused_or_went_away() {
    let mut proxy = proxy();
    accept(&mut proxy, "10.0.0.9:999");
    proxy.received(KEY, &mut b"GET / HTTP/1.1".to_vec());
    assert!(is_closed(&mut proxy));
    assert_eq!(proxy.counters.refused.get(), 1);
    accept(&mut proxy, "10.0.0.9:999");
    proxy.closed(KEY);
    assert_eq!(proxy.turn(1).wake_at_ms, None);
    assert_eq!(proxy.inner.calls, [""; 0]);
}
