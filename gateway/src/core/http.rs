//! The HTTP/1.1 upgrade to a WebSocket (RFC 6455 §4.2), and a right answer to every request that is not one.
//!
//! Invariants:
//! - The outcome is decided by the request's head alone and stays the same when more bytes follow it; at most
//!   [`HEAD_BYTES_MAX`] bytes are ever looked at, so the caller's buffer is bounded by it.
//! - Nothing that the client sent is repeated in an answer, beside what it must contain: the accept key.
//! - A token is taken from `Authorization` or from a cookie, never from the URL, which ends up in logs and histories.
//! - A cookie is sent by a browser whoever's page asks for the connection; it counts only if the page's origin is known.

mod answer;
pub mod client;
pub mod forwarded;
mod headers;

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD};
use sha1::{Digest as _, Sha1};

use self::answer::Answer;
use self::headers::Headers;
pub use self::headers::Token;
use super::websocket::extension::{self, Agreed, ExtensionOffer};

/// Longest request head, request line and headers together: the longest that common servers and proxies let through by
/// default, and it bounds what a connection may hold before it has shown who it is.
pub const HEAD_BYTES_MAX: usize = 8 * 1024;

/// Most header lines. Browsers behind two proxies send about 30.
pub const HEADERS_MAX: usize = 64;

/// The cookie that carries a token.
pub const TOKEN_COOKIE: &str = "antiphon_token";

/// What is accepted. Names are compared byte by byte.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Paths that can be upgraded, such as `/ws`.
    pub paths: Vec<String>,
    /// Subprotocols spoken, in our order of preference. Empty: subprotocols are ignored, as an echo server does.
    pub subprotocols: Vec<String>,
    /// The subprotocol for a client that offers none; `None` refuses it.
    pub subprotocol_default: Option<String>,
    /// Origins allowed, as browsers send them (`https://chat.example`); `None` allows any. A request without an origin does
    /// not come from a browser and is allowed.
    pub origins: Option<Vec<String>>,
    /// Whether permessage-deflate is accepted.
    pub deflate: bool,
}

/// What the bytes received so far amount to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Not a whole head yet: come back with more bytes behind these.
    NeedMore,
    /// Send `bytes`, then close the connection.
    Respond {
        /// For counters and logs.
        status: u16,
        /// The whole answer.
        bytes: Vec<u8>,
    },
    /// A WebSocket from here on.
    Upgrade(Upgrade),
}

/// An accepted upgrade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// Send this first.
    pub response: Vec<u8>,
    /// The subprotocol to speak: chosen, or the default.
    pub subprotocol: Option<String>,
    /// What permessage-deflate was accepted with, if it was.
    pub deflate: Option<Agreed>,
    /// Length of the head; the bytes behind it are WebSocket frames already.
    pub consumed_bytes: usize,
    /// What the request said.
    pub request: RequestInfo,
}

/// What the session wants to know of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestInfo {
    /// The path, without the query.
    pub path: String,
    /// The page's origin, if a browser sent one.
    pub origin: Option<String>,
    /// A token to authenticate with; not verified.
    pub token: Option<Token>,
    /// Extensions offered.
    pub extensions: Vec<ExtensionOffer>,
}

/// Looks at the bytes received on a fresh connection.
#[must_use]
pub fn upgrade(bytes: &[u8], rules: &Rules) -> Outcome {
    // Never further, so that the outcome does not depend on how many bytes happened to arrive at once.
    let head = bytes.get(..HEAD_BYTES_MAX).unwrap_or(bytes);
    // TLS records of a handshake begin with this byte, HTTP never does.
    if head.first() == Some(&0x16) {
        return Answer::bad_request("This port speaks plain HTTP and WebSocket, not TLS: use http:// or ws://.").into();
    }
    let mut lines = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut lines);
    let consumed_bytes = match request.parse(head) {
        Ok(httparse::Status::Complete(consumed_bytes)) => consumed_bytes,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_BYTES_MAX => return Outcome::NeedMore,
        Ok(httparse::Status::Partial) => {
            let in_request_line = request.method.is_some() && request.version.is_none();
            return (if in_request_line { Answer::uri_too_long() } else { Answer::head_too_large() }).into();
        }
        Err(httparse::Error::TooManyHeaders) => return Answer::head_too_large().into(),
        Err(httparse::Error::Version) => return Answer::version_not_supported().into(),
        Err(_) => return Answer::bad_request("This is not an HTTP/1.1 request.").into(),
    };
    match examine(&request, rules) {
        Ok(accepted) => Outcome::Upgrade(Upgrade {
            response: switching_protocols(&accepted),
            subprotocol: accepted.subprotocol.map(str::to_owned),
            deflate: accepted.deflate.as_ref().map(|(agreed, _)| *agreed),
            consumed_bytes,
            request: accepted.request,
        }),
        Err(answer) if request.method == Some("HEAD") => answer.without_body().into(),
        Err(answer) => answer.into(),
    }
}

/// The answer to a connection that is not taken now: a `503`, or a `429` if it is about the client's address, that says when to come
/// back. The caller spreads `retry_after_seconds`, so that not all come back at once.
#[must_use]
pub fn come_back_later(status: u16, retry_after_seconds: u32) -> Vec<u8> {
    Answer::come_back_later(status, retry_after_seconds).into_bytes()
}

/// The `Sec-WebSocket-Accept` for a `Sec-WebSocket-Key`: the key and a constant string put together, hashed with SHA-1, in
/// base64 (RFC 6455 §4.2.2).
#[must_use]
pub fn accept_key(key: &str) -> String {
    let mut hash = Sha1::new();
    hash.update(key.as_bytes());
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(hash.finalize())
}

struct Accepted<'h> {
    key: &'h str,
    /// What to speak.
    subprotocol: Option<&'h str>,
    /// Whether the client offered it: only then may the answer name it.
    subprotocol_offered: bool,
    /// What was agreed on, and the answer's header for it.
    deflate: Option<(Agreed, String)>,
    request: RequestInfo,
}

/// A whole head: an upgrade, or the answer that says why not. The order decides which of several faults is told.
fn examine<'h>(request: &'h httparse::Request<'_, '_>, rules: &'h Rules) -> Result<Accepted<'h>, Answer> {
    // "The handshake consists of an HTTP/1.1 or higher GET" (RFC 6455 §4.2.1).
    if request.version != Some(1) {
        return Err(Answer::version_not_supported());
    }
    let path = path_of(request.path.unwrap_or_default())?;
    let upgradable = rules.paths.iter().any(|allowed| allowed == path);
    if !upgradable && path != "/" {
        return Err(Answer::not_found(rules));
    }
    if request.method != Some("GET") {
        return Err(Answer::method_not_allowed());
    }
    let headers = Headers(request.headers);
    // "A server MUST respond with a 400 (Bad Request) status code to any HTTP/1.1 request message that lacks a Host header
    // field and to any request message that contains more than one" (RFC 9112 §3.2).
    let host = headers.single("host")?.ok_or_else(|| Answer::bad_request("The Host header is missing."))?;
    if headers.single("content-length")?.is_some_and(|length| length != "0") || headers.has("transfer-encoding") {
        return Err(Answer::bad_request("An upgrade has no body."));
    }

    if !headers.lists("upgrade", "websocket") || !headers.lists("connection", "upgrade") {
        return Err(if path == "/" { Answer::hint(rules) } else { Answer::upgrade_required(rules) });
    }
    if !upgradable {
        return Err(Answer::not_found(rules));
    }
    // "If this version does not match a version understood by the server, the server MUST [...] send an appropriate HTTP error
    // code (such as 426 Upgrade Required) and a |Sec-WebSocket-Version| header field" (RFC 6455 §4.2.2).
    if headers.single("sec-websocket-version")? != Some("13") {
        return Err(Answer::upgrade_required(rules));
    }
    let key = headers.single("sec-websocket-key")?.filter(|key| is_key(key));
    let key = key.ok_or_else(|| Answer::bad_request("Sec-WebSocket-Key is not 16 bytes in base64."))?;

    let origin = headers.single("origin")?;
    if let (Some(allowed), Some(origin)) = (&rules.origins, origin)
        && !allowed.iter().any(|allowed| allowed == origin)
    {
        return Err(Answer::origin_forbidden());
    }
    let (subprotocol, subprotocol_offered) = choose_subprotocol(&headers, rules)?;
    let mut extensions = Vec::new();
    for line in headers.all("sec-websocket-extensions") {
        extension::parse_offers(line?, &mut extensions)
            .map_err(|_| Answer::bad_request("Sec-WebSocket-Extensions is malformed."))?;
    }
    let deflate = if rules.deflate { extension::negotiate(&extensions) } else { None };
    let cookie_counts = origin.is_none_or(|origin| rules.origins.is_some() || is_same_host(origin, host));
    let token = match headers.bearer()? {
        None if cookie_counts => headers.cookie(TOKEN_COOKIE)?,
        token => token,
    };
    let request = RequestInfo { path: path.to_owned(), origin: origin.map(str::to_owned), token, extensions };
    Ok(Accepted { key, subprotocol, subprotocol_offered, deflate, request })
}

/// The path of a request target: `/path?query`, or `http://host/path?query`, for "a server MUST accept the absolute-form in
/// requests" (RFC 9112 §3.2.2).
fn path_of(target: &str) -> Result<&str, Answer> {
    let target = match target.split_once("://") {
        Some((scheme, rest))
            if ["http", "https", "ws", "wss"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) =>
        {
            rest.find(['/', '?']).and_then(|start| rest.get(start..)).unwrap_or("/")
        }
        _ => target,
    };
    let path = target.split('?').next().unwrap_or_default();
    match path {
        "" if target.starts_with('?') => Ok("/"),
        path if path.starts_with('/') => Ok(path),
        _ => Err(Answer::bad_request("The request target is not a path.")),
    }
}

/// "A base64-encoded [...] value that, when decoded, is 16 bytes in length" (RFC 6455 §4.2.1). The two last bits of its last
/// character carry nothing, and are let be.
fn is_key(key: &str) -> bool {
    const CONFIG: GeneralPurposeConfig = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical);
    const LENIENT: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::STANDARD, CONFIG);
    let mut decoded = [0; 18];
    key.len() == 24 && LENIENT.decode_slice(key, &mut decoded) == Ok(16)
}

/// The subprotocol to speak, and whether the client offered it.
fn choose_subprotocol<'h>(headers: &Headers<'h>, rules: &'h Rules) -> Result<(Option<&'h str>, bool), Answer> {
    if rules.subprotocols.is_empty() {
        return Ok((None, false));
    }
    let mut offered = Vec::new();
    for line in headers.all("sec-websocket-protocol") {
        offered.extend(headers::elements(line?));
    }
    if offered.is_empty() {
        let default = rules.subprotocol_default.as_deref();
        return default.map(|name| (Some(name), false)).ok_or_else(|| Answer::subprotocol_unknown(rules));
    }
    let chosen = rules.subprotocols.iter().find(|spoken| offered.contains(&spoken.as_str()));
    chosen.map(|name| (Some(name.as_str()), true)).ok_or_else(|| Answer::subprotocol_unknown(rules))
}

/// Whether the page came from the very host and port that it connects to.
fn is_same_host(origin: &str, host: &str) -> bool {
    origin.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host))
}

fn switching_protocols(accepted: &Accepted<'_>) -> Vec<u8> {
    let mut response = String::from(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ",
    );
    response.push_str(&accept_key(accepted.key));
    // "The value chosen MUST be derived from the client's handshake [...] If the client's handshake did not contain such a
    // header field [...] the only acceptable value is null." (RFC 6455 §4.2.2)
    if let (Some(name), true) = (accepted.subprotocol, accepted.subprotocol_offered) {
        response.push_str("\r\nSec-WebSocket-Protocol: ");
        response.push_str(name);
    }
    if let Some((_, extensions)) = &accepted.deflate {
        response.push_str("\r\nSec-WebSocket-Extensions: ");
        response.push_str(extensions);
    }
    response.push_str("\r\n\r\n");
    response.into_bytes()
}

#[cfg(test)]
mod tests;
