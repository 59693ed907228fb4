//! Whom a proxy speaks for: the client's address in `X-Forwarded-For` or `Forwarded` (RFC 7239).
//!
//! Every proxy appends the peer that it saw, so the list is to be believed from the right, as far as those who appended are known: the
//! right-most address that is none of ours is the client's. What stands left of it the client may have written itself.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::{
    super::{address::Blocks, admission::ForwardedHeader},
    HEAD_BYTES_MAX, HEADERS_MAX,
    headers::{Headers, elements},
};

/// What a head says of its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarded {
    /// Nothing, or only of our own proxies.
    Nobody,
    /// The client.
    Client(IpAddr),
    /// Something that is no list of addresses, up to the client's.
    Malformed,
}

/// The client behind `trusted` proxies, by a whole request head.
#[must_use]
pub fn forwarded(head: &[u8], header: ForwardedHeader, trusted: &Blocks) -> Forwarded {
    let head = head.get(..HEAD_BYTES_MAX).unwrap_or(head);
    let mut lines = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut lines);
    if !matches!(request.parse(head), Ok(httparse::Status::Complete(_))) {
        return Forwarded::Nobody;
    }
    let name = match header {
        ForwardedHeader::XForwardedFor => "x-forwarded-for",
        ForwardedHeader::Forwarded => "forwarded",
    };
    let headers = Headers(request.headers);
    // Several lines are one list, in their order (RFC 9110 §5.3).
    let mut hops = Vec::new();
    for line in headers.all(name) {
        let Ok(line) = line else { return Forwarded::Malformed };
        hops.extend(elements(line));
    }
    for hop in hops.into_iter().rev() {
        let address = match header {
            ForwardedHeader::XForwardedFor => node(hop),
            ForwardedHeader::Forwarded => for_parameter(hop).and_then(node),
        };
        match address {
            None => return Forwarded::Malformed,
            Some(address) if trusted.contain(address) => {}
            Some(address) => return Forwarded::Client(address.to_canonical()),
        }
    }
    Forwarded::Nobody
}

/// The value of `for` in one element of `Forwarded`: pairs separated by semicolons, names without regard to case, values perhaps quoted. An
/// address needs no escapes in its quotes, and no comma or semicolon, so none are looked for.
fn for_parameter(element: &str) -> Option<&str> {
    let mut found = None;
    for pair in element.split(';') {
        let (name, value) = pair.split_once('=')?;
        if name.trim_matches([' ', '\t']).eq_ignore_ascii_case("for") {
            if found.is_some() {
                return None;
            }
            let value = value.trim_matches([' ', '\t']);
            found = Some(value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value));
        }
    }
    found
}

/// An address, perhaps with a port; one of IPv6 then in brackets.
fn node(text: &str) -> Option<IpAddr> {
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok();
    let address = text.parse::<IpAddr>().ok();
    address.or_else(|| bracketed().map(IpAddr::V6)).or_else(|| text.parse::<SocketAddr>().ok().map(|node| node.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(header: ForwardedHeader, lines: &str, expected: Forwarded) {
        let trusted: Blocks = ["10.0.0.0/8", "2001:db8:1::/48"].iter().map(|block| block.parse().unwrap()).collect();
        let head = format!("GET /ws HTTP/1.1\r\nHost: x\r\n{lines}\r\n\r\n");
        assert_eq!(forwarded(head.as_bytes(), header, &trusted), expected, "{lines}");
    }

    fn client(text: &str) -> Forwarded {
        Forwarded::Client(text.parse().unwrap())
    }

    #[test]
    fn the_right_most_that_is_not_ours_is_the_client() {
        for (lines, expected) in [
            ("X-Forwarded-For: 192.0.2.1", client("192.0.2.1")),
            ("x-forwarded-for: 203.0.113.5, 192.0.2.1 ,10.0.0.7", client("192.0.2.1")),
            ("X-Forwarded-For: 203.0.113.5\r\nX-Forwarded-For: 192.0.2.1, 10.0.0.7", client("192.0.2.1")),
            ("X-Forwarded-For: 192.0.2.1:4711, 2001:db8:1::9", client("192.0.2.1")),
            ("X-Forwarded-For: [2001:db8::5]:4711", client("2001:db8::5")),
            ("X-Forwarded-For: [2001:db8::5]", client("2001:db8::5")),
            ("X-Forwarded-For: ::ffff:192.0.2.1", client("192.0.2.1")),
            ("X-Forwarded-For: nonsense, 192.0.2.1", client("192.0.2.1")),
            ("X-Forwarded-For: 192.0.2.1, nonsense", Forwarded::Malformed),
            ("X-Forwarded-For: unknown", Forwarded::Malformed),
            ("X-Forwarded-For: 192.0.2.1, 10.0.0.7, 10.0.0.300", Forwarded::Malformed),
            ("X-Forwarded-For: 10.0.0.7", Forwarded::Nobody),
            ("X-Forwarded-For: ", Forwarded::Nobody),
            ("Forwarded: for=192.0.2.1", Forwarded::Nobody),
            ("Other: 1", Forwarded::Nobody),
        ] {
            check(ForwardedHeader::XForwardedFor, lines, expected);
        }
    }

    #[test]
    fn forwarded_is_read_as_its_rfc_writes_it() {
        for (lines, expected) in [
            ("Forwarded: for=192.0.2.1;proto=http;by=203.0.113.43", client("192.0.2.1")),
            ("Forwarded: For=\"[2001:db8:cafe::17]:4711\"", client("2001:db8:cafe::17")),
            ("Forwarded: for=203.0.113.5, for=192.0.2.1; proto=https, for=10.0.0.7", client("192.0.2.1")),
            ("Forwarded: for=\"192.0.2.1:47011\"", client("192.0.2.1")),
            ("Forwarded: for=_hidden, for=10.0.0.7", Forwarded::Malformed),
            ("Forwarded: for=unknown", Forwarded::Malformed),
            ("Forwarded: proto=http", Forwarded::Malformed),
            ("Forwarded: for=192.0.2.1;for=192.0.2.2", Forwarded::Malformed),
            ("Forwarded: for", Forwarded::Malformed),
            ("X-Forwarded-For: 192.0.2.1", Forwarded::Nobody),
        ] {
            check(ForwardedHeader::Forwarded, lines, expected);
        }
    }
}
