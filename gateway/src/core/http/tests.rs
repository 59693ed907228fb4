//! Requests and what they get, each also cut at every place.

use super::*;

const HOST: &str = "Host: chat.example\r\n";
const UPGRADE: &str = "Upgrade: websocket\r\nConnection: Upgrade\r\n";
const VERSION: &str = "Sec-WebSocket-Version: 13\r\n";
const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const JSON: &str = "Sec-WebSocket-Protocol: antiphon.v1.json\r\n";

fn rules() -> Rules {
    Rules {
        paths: vec!["/ws".to_owned()],
        subprotocols: vec!["antiphon.v1.rkyv".to_owned(), "antiphon.v1.json".to_owned()],
        subprotocol_default: None,
        origins: Some(vec!["https://chat.example".to_owned()]),
        deflate: false,
    }
}

/// A good request with more headers.
fn good(more: &str) -> String {
    format!("GET /ws HTTP/1.1\r\n{HOST}{UPGRADE}{VERSION}{KEY}{more}\r\n")
}

/// The outcome, after checking that no prefix has another one, and none is changed by what follows.
fn outcome(request: &[u8], rules: &Rules) -> Outcome {
    let whole = upgrade(request, rules);
    for length in 0..request.len() {
        let cut = upgrade(&request[..length], rules);
        assert!(cut == Outcome::NeedMore || cut == whole, "after {length} bytes: {cut:?}");
    }
    if whole != Outcome::NeedMore {
        assert_eq!(upgrade(&[request, b"\x81\x80\0\0\0\0 more".as_slice()].concat(), rules), whole);
    }
    whole
}

fn accepted(request: &str, rules: &Rules) -> Upgrade {
    match outcome(request.as_bytes(), rules) {
        Outcome::Upgrade(upgrade) => upgrade,
        other => panic!("{request:?}: {}", show(&other)),
    }
}

fn refused(request: &str, rules: &Rules) -> (u16, String) {
    match outcome(request.as_bytes(), rules) {
        Outcome::Respond { status, bytes } => {
            let text = String::from_utf8(bytes).expect("an answer is text");
            let (head, body) = text.split_once("\r\n\r\n").expect("an answer has a head");
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
            assert!(head.contains("\r\nX-Content-Type-Options: nosniff\r\n"), "{text}");
            assert!(head.ends_with("close"), "{text}");
            let length = format!("\r\nContent-Length: {}\r\n", body.len());
            assert!(head.contains(&length) || request.starts_with("HEAD"), "{text}");
            (status, text)
        }
        other => panic!("{request:?}: {}", show(&other)),
    }
}

fn show(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Respond { bytes, .. } => String::from_utf8_lossy(bytes).into_owned(),
        other => format!("{other:?}"),
    }
}

fn check(request: &str, status: u16) {
    assert_eq!(refused(request, &rules()).0, status, "{request:?}");
}

#[test]
fn the_accept_key_of_the_rfc() {
    assert_eq!(accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

#[test]
fn a_good_request_is_upgraded() {
    let request = good(&format!("{JSON}Origin: https://chat.example\r\nAuthorization: Bearer a.b-c_d\r\n"));
    let upgrade = accepted(&request, &rules());
    assert_eq!(
        String::from_utf8_lossy(&upgrade.response),
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: antiphon.v1.json\r\n\r\n"
    );
    assert_eq!(upgrade.consumed_bytes, request.len());
    assert_eq!(upgrade.subprotocol.as_deref(), Some("antiphon.v1.json"));
    assert_eq!(upgrade.request.path, "/ws");
    assert_eq!(upgrade.request.origin.as_deref(), Some("https://chat.example"));
    assert_eq!(upgrade.request.token.as_ref().map(Token::expose), Some("a.b-c_d"));
    assert_eq!(format!("{:?}", upgrade.request.token), "Some(Token(7 bytes))");
}

#[test]
fn headers_as_browsers_and_proxies_write_them() {
    for request in [
        format!(
            "GET /ws HTTP/1.1\r\nhost:chat.example\r\nUPGRADE: h2c , WebSocket\r\nconnection: keep-alive,  UPGRADE \r\n{VERSION}{KEY}{JSON}\r\n"
        ),
        format!(
            "GET /ws HTTP/1.1\r\n{HOST}Upgrade: websocket\r\nConnection: keep-alive\r\nConnection: Upgrade\r\n{VERSION}{KEY}{JSON}\r\n"
        ),
        format!("GET /ws?token=secret HTTP/1.1\r\n{HOST}{UPGRADE}{VERSION}{KEY}{JSON}\r\n"),
        format!("GET http://chat.example/ws?a=b HTTP/1.1\r\n{HOST}{UPGRADE}{VERSION}{KEY}{JSON}\r\n"),
        format!("\r\nGET /ws HTTP/1.1\r\n{HOST}{UPGRADE}{VERSION}{KEY}{JSON}\r\n"),
        format!("GET /ws HTTP/1.1\n{}\n", format!("{HOST}{UPGRADE}{VERSION}{KEY}{JSON}").replace('\r', "")),
        good(&format!("{JSON}Content-Length: 0\r\nX-Anything: at all\r\n")),
    ] {
        let upgrade = accepted(&request, &rules());
        assert_eq!(upgrade.request.path, "/ws");
        assert_eq!(upgrade.request.token, None, "never from a URL");
        assert_eq!(upgrade.request.origin, None);
    }
}

#[test]
fn wrong_requests_get_a_right_answer() {
    check("nonsense\r\n\r\n", 400);
    check("\x16\x03\x01\x02\x00\x01", 400);
    check("GET /ws HTTP/1.1\r\nno colon\r\n\r\n", 400);
    check(&format!("GET ws HTTP/1.1\r\n{HOST}\r\n"), 400);
    check(&format!("GET * HTTP/1.1\r\n{HOST}\r\n"), 400);
    check("GET /ws HTTP/1.1\r\n\r\n", 400);
    check(&format!("GET /ws HTTP/1.1\r\n{HOST}{HOST}\r\n"), 400);
    check(&good(&format!("{JSON}Content-Length: 5\r\n")), 400);
    check(&good(&format!("{JSON}Transfer-Encoding: chunked\r\n")), 400);
    check(&format!("GET /other HTTP/1.1\r\n{HOST}\r\n"), 404);
    check(&format!("POST /other HTTP/1.1\r\n{HOST}\r\n"), 404);
    check(&good(JSON).replace("/ws", "/"), 404);
    check(&good(JSON).replace("/ws", "/ws/"), 404);
    check(&good(JSON).replace("/ws", "/WS"), 404);
    check(&format!("GET /ws HTTP/1.0\r\n{HOST}{UPGRADE}{VERSION}{KEY}\r\n"), 505);
    check("GET /ws HTTP/2.0\r\n", 505);
    check("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505);

    for method in ["POST", "PUT", "OPTIONS", "CONNECT", "BREW"] {
        let (status, text) = refused(&good(JSON).replace("GET", method), &rules());
        assert_eq!(status, 405);
        assert!(text.contains("\r\nAllow: GET\r\n"), "{text}");
    }
}

#[test]
fn a_plain_get_learns_how_to_connect() {
    let (status, text) = refused(&format!("GET / HTTP/1.1\r\n{HOST}\r\n"), &rules());
    assert_eq!(status, 200);
    assert!(text.ends_with("to /ws, subprotocol antiphon.v1.rkyv or antiphon.v1.json.\n"), "{text}");
    for request in [
        format!("GET /ws HTTP/1.1\r\n{HOST}\r\n"),
        format!("GET /ws HTTP/1.1\r\n{HOST}Upgrade: websocket\r\n{VERSION}{KEY}\r\n"),
        format!("GET /ws HTTP/1.1\r\n{HOST}Upgrade: h2c\r\nConnection: Upgrade\r\n\r\n"),
        good(JSON).replace(": 13", ": 8"),
        good(JSON).replace(VERSION, ""),
    ] {
        let (status, text) = refused(&request, &rules());
        assert_eq!(status, 426, "{request:?}");
        assert!(text.contains("\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"), "{text}");
        assert!(text.contains("\r\nConnection: upgrade, close\r\n"), "{text}");
    }
    let (status, text) = refused(&format!("HEAD /other HTTP/1.1\r\n{HOST}\r\n"), &rules());
    assert_eq!(status, 404);
    assert!(text.ends_with("\r\n\r\n") && !text.contains("Content-Length: 0"), "{text}");
}

#[test]
fn keys_must_be_sixteen_bytes_and_stand_once() {
    for key in [
        "",
        "AAAA",
        "dGhlIHNhbXBsZSBub25jZQ",
        "dGhlIHNhbXBsZSBub25jZSE=",
        "dGhlIHNhbXBsZSBub25j!Q==",
        "dGhlIHNhbXBsZSBub25jZQ===",
    ] {
        check(&good(JSON).replace("dGhlIHNhbXBsZSBub25jZQ==", key), 400);
    }
    check(&good(JSON).replace(KEY, ""), 400);
    for twice in
        [KEY, VERSION, "Origin: https://chat.example\r\n", "Authorization: Bearer a\r\n", "Content-Length: 0\r\n"]
    {
        check(&good(&format!("{JSON}{twice}{twice}")), 400);
    }
    // The two bits that carry nothing.
    accepted(&good(JSON).replace("ZQ==", "ZR=="), &rules());
}

#[test]
fn subprotocols_are_chosen_in_our_order() {
    let chosen = |more: &str, rules: &Rules| accepted(&good(more), rules).subprotocol;
    let names = |upgrade: &Upgrade| String::from_utf8_lossy(&upgrade.response).contains("Sec-WebSocket-Protocol");
    let both = "Sec-WebSocket-Protocol: x, antiphon.v1.json , antiphon.v1.rkyv\r\n";
    assert_eq!(chosen(both, &rules()).as_deref(), Some("antiphon.v1.rkyv"));
    let lines = "Sec-WebSocket-Protocol: x\r\nSec-WebSocket-Protocol: antiphon.v1.json\r\n";
    assert_eq!(chosen(lines, &rules()).as_deref(), Some("antiphon.v1.json"));

    for unknown in ["Sec-WebSocket-Protocol: antiphon.v2.json\r\n", "Sec-WebSocket-Protocol: ANTIPHON.V1.JSON\r\n", ""]
    {
        let (status, text) = refused(&good(unknown), &rules());
        assert_eq!(status, 400);
        assert!(text.contains("\r\nSec-WebSocket-Protocol: antiphon.v1.rkyv, antiphon.v1.json\r\n"), "{text}");
        assert!(text.ends_with("Spoken: antiphon.v1.rkyv, antiphon.v1.json\n"), "{text}");
    }
    let lenient = Rules { subprotocol_default: Some("antiphon.v1.json".to_owned()), ..rules() };
    let upgrade = accepted(&good(""), &lenient);
    assert_eq!(upgrade.subprotocol.as_deref(), Some("antiphon.v1.json"));
    assert!(!names(&upgrade), "not offered, so not named");
    assert_eq!(refused(&good("Sec-WebSocket-Protocol: x\r\n"), &lenient).0, 400);

    let echo = Rules { subprotocols: vec![], ..rules() };
    for more in ["", "Sec-WebSocket-Protocol: x\r\n"] {
        let upgrade = accepted(&good(more), &echo);
        assert_eq!(upgrade.subprotocol, None);
        assert!(!names(&upgrade));
    }
}

#[test]
fn origins() {
    let any = Rules { origins: None, ..rules() };
    for (origin, allowed) in [
        ("", true),
        ("Origin: https://chat.example\r\n", true),
        ("Origin: http://chat.example\r\n", false),
        ("Origin: https://chat.example.evil\r\n", false),
        ("Origin: https://chat.example:8443\r\n", false),
        ("Origin: null\r\n", false),
    ] {
        let request = good(&format!("{JSON}{origin}"));
        accepted(&request, &any);
        if allowed {
            accepted(&request, &rules());
        } else {
            check(&request, 403);
        }
    }
}

#[test]
fn tokens() {
    let any = Rules { origins: None, ..rules() };
    let token = |more: &str, rules: &Rules| {
        accepted(&good(&format!("{JSON}{more}")), rules).request.token.map(|token| token.expose().to_owned())
    };
    for (more, expected) in [
        ("", None),
        ("Authorization: bearer  abc=\r\n", Some("abc=")),
        ("Authorization: Basic dTpw\r\n", None),
        ("Cookie: a=b; antiphon_token=xyz; c=d\r\n", Some("xyz")),
        ("Cookie: antiphon_token=\"xyz\"\r\n", Some("xyz")),
        ("Cookie: antiphon_token=\r\n", None),
        ("Cookie: xantiphon_token=xyz; nothing\r\n", None),
        ("Cookie: antiphon_token=xyz\r\nAuthorization: Bearer abc\r\n", Some("abc")),
        ("Cookie: antiphon_token=xyz; antiphon_token=xyz\r\n", Some("xyz")),
    ] {
        assert_eq!(token(more, &rules()).as_deref(), expected, "{more}");
    }
    for more in [
        "Authorization: Bearer\r\n",
        "Authorization: Bearer a b\r\n",
        "Authorization: Bearer \"a\"\r\n",
        "Cookie: antiphon_token=a b\r\n",
        "Cookie: antiphon_token=xyz; antiphon_token=other\r\n",
    ] {
        check(&good(&format!("{JSON}{more}")), 400);
    }
    // A cookie comes along whatever page connects: it counts from a listed origin, from our own host, or without a browser.
    let cookie = "Cookie: antiphon_token=xyz\r\n";
    let from = |origin: &str| format!("{cookie}Origin: {origin}\r\n");
    assert_eq!(token(&from("https://chat.example"), &rules()).as_deref(), Some("xyz"));
    assert_eq!(token(&from("http://chat.example"), &any).as_deref(), Some("xyz"));
    assert_eq!(token(&from("https://evil.example"), &any), None);
    assert_eq!(token(&from("null"), &any), None);
}

#[test]
fn extensions_are_read_and_accepted_if_the_rules_say_so() {
    let request = good(&format!("{JSON}Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"));
    let upgrade = accepted(&request, &rules());
    assert!(matches!(upgrade.request.extensions.as_slice(), [ExtensionOffer::PermessageDeflate(_)]));
    assert!(!String::from_utf8_lossy(&upgrade.response).contains("Extensions") && upgrade.deflate.is_none());
    let deflate = Rules { deflate: true, ..rules() };
    let upgrade = accepted(&request, &deflate);
    let end = "\r\nSec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n\r\n";
    assert!(upgrade.response.ends_with(end.as_bytes()), "{}", String::from_utf8_lossy(&upgrade.response));
    assert_eq!(upgrade.deflate, Agreed::new(15));
    // Two lines are one list.
    let two = "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=7\r\n\
               sec-websocket-extensions: permessage-deflate; server_max_window_bits=\"10\"\r\n";
    assert_eq!(accepted(&good(&format!("{JSON}{two}")), &deflate).deflate, Agreed::new(10));
    let declined = accepted(&good(&format!("{JSON}Sec-WebSocket-Extensions: permessage-deflate; x\r\n")), &deflate);
    assert!(!String::from_utf8_lossy(&declined.response).contains("Extensions") && declined.deflate.is_none());
    check(&good(&format!("{JSON}Sec-WebSocket-Extensions: permessage-deflate;;x\r\n")), 400);
    check(&good(&format!("{JSON}Sec-WebSocket-Extensions: a;;b\r\n")), 400);
}

#[test]
fn heads_are_bounded() {
    let filler = |length: usize| format!("X-Filler: {}\r\n", "a".repeat(length));
    let base = good(&format!("{JSON}{}", filler(0))).len();
    let fitting = good(&format!("{JSON}{}", filler(HEAD_BYTES_MAX - base)));
    assert_eq!(fitting.len(), HEAD_BYTES_MAX);
    assert_eq!(accepted(&fitting, &rules()).consumed_bytes, HEAD_BYTES_MAX);
    check(&good(&format!("{JSON}{}", filler(HEAD_BYTES_MAX - base + 1))), 431);
    check(&format!("GET /{} HTTP/1.1\r\n", "a".repeat(HEAD_BYTES_MAX)), 414);
    let lines = |count: usize| good(&format!("{JSON}{}", "X: y\r\n".repeat(count)));
    accepted(&lines(HEADERS_MAX - 6), &rules());
    check(&lines(HEADERS_MAX - 5), 431);
}

#[test]
fn a_busy_node_says_when_to_come_back() {
    let text = String::from_utf8(come_back_later(503, 17)).expect("text");
    assert!(text.starts_with("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 17\r\n"), "{text}");
    assert!(text.contains("\r\nConnection: close\r\n"), "{text}");
    let text = String::from_utf8(come_back_later(429, 3)).expect("text");
    assert!(text.starts_with("HTTP/1.1 429 Too Many Requests\r\nRetry-After: 3\r\n"), "{text}");
}
