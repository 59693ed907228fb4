//! What keeps a browser honest: headers on every answer, and who may ask for a development token.
//!
//! A development node signs tokens for anybody who can reach it, so the question is who can: only this machine (loopback), and of its
//! web pages only ours. A foreign page is kept out twice: its requests carry another `Origin`, and a name that it made resolve to
//! 127.0.0.1 (DNS rebinding) stands in `Host`.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

/// The headers of every answer, for a page that connects to `websocket_url`.
pub(super) fn headers(websocket_url: &str) -> Vec<(HeaderName, HeaderValue)> {
    // A source of a policy has no path that matters to us: scheme, host and port.
    let (scheme, rest) = websocket_url.split_once("://").unwrap_or(("ws", websocket_url));
    let host = rest.split('/').next().unwrap_or_default();
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; manifest-src 'self'; \
         connect-src 'self' {scheme}://{host}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let policy = HeaderValue::try_from(policy).expect("the configuration refuses URLs that are no header text");
    vec![
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
        (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
        (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
    ]
}

/// Whether the request names this machine by a name that nobody else can give to it.
pub(super) fn host_is_loopback(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next().and_then(|host| host.to_str().ok()), hosts.next()) {
        (Some(host), None) => is_loopback_authority(host),
        _ => false,
    }
}

/// Whether a request for a token comes from our own page or from no page at all. Expects [`host_is_loopback`].
pub(super) fn may_ask_for_a_token(headers: &HeaderMap) -> bool {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("invalid"));
    let host = text(header::HOST).unwrap_or_default();
    let from_our_page = match text(header::ORIGIN) {
        Some(origin) => origin.strip_prefix("http://").is_some_and(|from| from.eq_ignore_ascii_case(host)),
        // Browsers send an Origin with every POST; scripts send none.
        None => true,
    };
    let site = text(HeaderName::from_static("sec-fetch-site"));
    let same_site = site.is_none_or(|site| site == "same-origin" || site == "none");
    // A form can't send this type, so a foreign page would have to ask first, and is not answered.
    let is_json = text(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json"));
    from_our_page && same_site && is_json
}

/// `localhost`, `127.0.0.1` or `[::1]`, with or without a port.
fn is_loopback_authority(authority: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    if host.eq_ignore_ascii_case("localhost") {
        return true;
    }
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    address.parse().is_ok_and(crate::config::is_loopback)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_loopback_are_loopback() {
        for good in ["localhost", "LOCALHOST:1", "127.0.0.1", "127.0.0.1:8081", "127.3.2.1:1", "[::1]:8081", "[::1]"] {
            assert!(is_loopback_authority(good), "{good}");
        }
        for bad in [
            "",
            "evil.example",
            "localhost.evil.example:8081",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "0.0.0.0:1",
            "localhost:",
            "localhost:1:2",
            "user@localhost",
            "[::2]:1",
            "2130706433",
            "[::1",
            "::1:80x",
        ] {
            assert!(!is_loopback_authority(bad), "{bad}");
        }
    }
}
