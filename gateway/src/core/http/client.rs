//! The client's half of the upgrade (RFC 6455 §4.1), for the load generator, the simulator and tests.
//!
//! The nonce comes from the caller: there is no randomness here.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::headers::{Headers, elements};
use super::{HEAD_BYTES_MAX, HEADERS_MAX, accept_key};

/// What to ask for. The strings go into headers as they are: they must hold no line ends.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request<'a> {
    /// Host and port.
    pub host: &'a str,
    /// The path, such as `/ws`.
    pub path: &'a str,
    /// Subprotocols offered, the preferred one first.
    pub subprotocols: &'a [&'a str],
    /// A token for `Authorization: Bearer`.
    pub token: Option<&'a str>,
    /// 16 bytes, different for each connection.
    pub nonce: [u8; 16],
}

/// What the bytes received so far amount to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Not a whole answer yet.
    NeedMore,
    /// A WebSocket from here on.
    Connected {
        /// What the server chose.
        subprotocol: Option<String>,
        /// Length of the answer; the bytes behind it are WebSocket frames already.
        consumed_bytes: usize,
    },
    /// The server says no.
    Refused {
        /// HTTP's status.
        status: u16,
        /// When to come back, if the server says so in seconds.
        retry_after_seconds: Option<u32>,
    },
    /// This is no answer to our request: close the connection.
    Invalid(InvalidResponse),
}

/// What is wrong with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidResponse {
    /// Not HTTP, or too long.
    #[error("the answer is not HTTP/1.1")]
    NotHttp,
    /// `Upgrade` or `Connection` is missing or says something else.
    #[error("the answer does not upgrade to a WebSocket")]
    NotUpgraded,
    /// `Sec-WebSocket-Accept` does not fit the nonce.
    #[error("the answer belongs to another request")]
    WrongAccept,
    /// A subprotocol that was not offered.
    #[error("the answer names a subprotocol that was not offered")]
    SubprotocolNotOffered,
    /// An extension, while none was offered.
    #[error("the answer names an extension that was not offered")]
    ExtensionNotOffered,
}

/// The bytes to send.
#[must_use]
pub fn encode_request(request: &Request<'_>) -> Vec<u8> {
    let mut text = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: {}\r\n",
        request.path,
        request.host,
        STANDARD.encode(request.nonce),
    );
    if !request.subprotocols.is_empty() {
        text.push_str("Sec-WebSocket-Protocol: ");
        text.push_str(&request.subprotocols.join(", "));
        text.push_str("\r\n");
    }
    if let Some(token) = request.token {
        text.push_str("Authorization: Bearer ");
        text.push_str(token);
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    text.into_bytes()
}

/// Looks at the bytes received in answer to `request`.
#[must_use]
pub fn parse_response(bytes: &[u8], request: &Request<'_>) -> Outcome {
    let head = bytes.get(..HEAD_BYTES_MAX).unwrap_or(bytes);
    let mut lines = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut lines);
    let consumed_bytes = match response.parse(head) {
        Ok(httparse::Status::Complete(consumed_bytes)) => consumed_bytes,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_BYTES_MAX => return Outcome::NeedMore,
        Ok(httparse::Status::Partial) | Err(_) => return Outcome::Invalid(InvalidResponse::NotHttp),
    };
    let headers = Headers(response.headers);
    let status = response.code.unwrap_or_default();
    if status != 101 {
        let retry_after = headers.single("retry-after").ok().flatten();
        return Outcome::Refused { status, retry_after_seconds: retry_after.and_then(|text| text.parse().ok()) };
    }
    match check_upgrade(&headers, request) {
        Ok(subprotocol) => Outcome::Connected { subprotocol: subprotocol.map(str::to_owned), consumed_bytes },
        Err(invalid) => Outcome::Invalid(invalid),
    }
}

/// The checks of RFC 6455 §4.1, "the client MUST validate the server's response", in its order.
fn check_upgrade<'h>(headers: &Headers<'h>, request: &Request<'_>) -> Result<Option<&'h str>, InvalidResponse> {
    if !headers.lists("upgrade", "websocket") || !headers.lists("connection", "upgrade") {
        return Err(InvalidResponse::NotUpgraded);
    }
    let accept = headers.single("sec-websocket-accept").map_err(|_| InvalidResponse::WrongAccept)?;
    if accept != Some(accept_key(&STANDARD.encode(request.nonce)).as_str()) {
        return Err(InvalidResponse::WrongAccept);
    }
    if headers.all("sec-websocket-extensions").filter_map(Result::ok).flat_map(elements).next().is_some() {
        return Err(InvalidResponse::ExtensionNotOffered);
    }
    match headers.single("sec-websocket-protocol") {
        Ok(None) => Ok(None),
        Ok(Some(name)) if request.subprotocols.contains(&name) => Ok(Some(name)),
        Ok(Some(_)) | Err(_) => Err(InvalidResponse::SubprotocolNotOffered),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{self as server, Rules};
    use super::*;

    const REQUEST: Request<'static> = Request {
        host: "chat.example:8080",
        path: "/ws",
        subprotocols: &["antiphon.v2.json", "antiphon.v1.json"],
        token: Some("a.b.c"),
        nonce: *b"the sample nonce",
    };

    #[test]
    fn both_halves_understand_each_other() {
        let rules = Rules {
            paths: vec!["/ws".to_owned()],
            subprotocols: vec!["antiphon.v1.rkyv".to_owned(), "antiphon.v1.json".to_owned()],
            ..Rules::default()
        };
        let sent = encode_request(&REQUEST);
        let server::Outcome::Upgrade(upgrade) = server::upgrade(&sent, &rules) else { panic!("refused") };
        assert_eq!(upgrade.consumed_bytes, sent.len());
        assert_eq!(upgrade.request.token.as_ref().map(server::Token::expose), Some("a.b.c"));
        assert_eq!(
            upgrade.response,
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
              Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: antiphon.v1.json\r\n\r\n"
        );
        let connected = Outcome::Connected {
            subprotocol: Some("antiphon.v1.json".to_owned()),
            consumed_bytes: upgrade.response.len(),
        };
        for length in 0..upgrade.response.len() {
            assert_eq!(parse_response(&upgrade.response[..length], &REQUEST), Outcome::NeedMore);
        }
        let followed = [upgrade.response.as_slice(), b"\x81\x00"].concat();
        assert_eq!(parse_response(&followed, &REQUEST), connected);
    }

    #[test]
    fn refusals_and_nonsense() {
        let retry = server::come_back_later(503, 7);
        assert_eq!(parse_response(&retry, &REQUEST), Outcome::Refused { status: 503, retry_after_seconds: Some(7) });
        let upgrade = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n";
        let accept = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
        let table = [
            ("\u{1}\u{2}".to_owned(), InvalidResponse::NotHttp),
            ("x".repeat(HEAD_BYTES_MAX), InvalidResponse::NotHttp),
            ("HTTP/1.1 101 Go\r\n\r\n".to_owned(), InvalidResponse::NotUpgraded),
            (format!("{upgrade}\r\n"), InvalidResponse::WrongAccept),
            (format!("{upgrade}Sec-WebSocket-Accept: AAAA\r\n\r\n"), InvalidResponse::WrongAccept),
            (format!("{upgrade}{accept}{accept}\r\n"), InvalidResponse::WrongAccept),
            (format!("{upgrade}{accept}Sec-WebSocket-Protocol: other\r\n\r\n"), InvalidResponse::SubprotocolNotOffered),
            (
                format!("{upgrade}{accept}Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"),
                InvalidResponse::ExtensionNotOffered,
            ),
        ];
        for (text, expected) in table {
            assert_eq!(parse_response(text.as_bytes(), &REQUEST), Outcome::Invalid(expected), "{text:?}");
        }
    }
}
