//! The answers to requests that do not become a WebSocket: short plain text that says how to do it right.
//!
//! Each closes the connection: a client that got one starts afresh.

use std::fmt::Write as _;

use super::{Outcome, Rules};

pub(super) struct Answer {
    status: u16,
    reason: &'static str,
    /// Lines beside the common ones, each with its line end.
    headers: String,
    connection: &'static str,
    body: String,
    body_sent: bool,
}

impl Answer {
    /// 200 to a plain GET of `/`: whoever looks learns how to connect.
    pub(super) fn hint(rules: &Rules) -> Self {
        Self::new(200, "OK", how_to_connect(rules))
    }

    pub(super) fn bad_request(text: &str) -> Self {
        Self::new(400, "Bad Request", format!("{text}\n"))
    }

    /// 400 with the list of subprotocols spoken, in a header too, for programs.
    pub(super) fn subprotocol_unknown(rules: &Rules) -> Self {
        let spoken = rules.subprotocols.join(", ");
        let body = format!("None of the subprotocols offered is spoken here. Spoken: {spoken}\n");
        Self::new(400, "Bad Request", body).with_header("Sec-WebSocket-Protocol", &spoken)
    }

    pub(super) fn origin_forbidden() -> Self {
        Self::new(403, "Forbidden", "Pages of this origin may not connect here.\n".to_owned())
    }

    pub(super) fn not_found(rules: &Rules) -> Self {
        Self::new(404, "Not Found", format!("There is nothing here. {}", how_to_connect(rules)))
    }

    pub(super) fn method_not_allowed() -> Self {
        Self::new(405, "Method Not Allowed", "A WebSocket begins with GET.\n".to_owned()).with_header("Allow", "GET")
    }

    pub(super) fn uri_too_long() -> Self {
        Self::new(414, "URI Too Long", "The request line is too long.\n".to_owned())
    }

    /// 426: "The server MUST send an Upgrade header field in a 426 response to indicate the required protocol(s)" (RFC 9110
    /// §15.5.22), and the version understood (RFC 6455 §4.4).
    pub(super) fn upgrade_required(rules: &Rules) -> Self {
        let mut answer = Self::new(426, "Upgrade Required", how_to_connect(rules))
            .with_header("Upgrade", "websocket")
            .with_header("Sec-WebSocket-Version", "13");
        // "A sender of Upgrade MUST also send an "Upgrade" connection option" (RFC 9110 §7.8).
        answer.connection = "upgrade, close";
        answer
    }

    pub(super) fn head_too_large() -> Self {
        Self::new(431, "Request Header Fields Too Large", "The request's headers are too large.\n".to_owned())
    }

    /// 429 (RFC 6585 §4) or 503 (RFC 9110 §15.6.4).
    pub(super) fn come_back_later(status: u16, retry_after_seconds: u32) -> Self {
        let answer = match status {
            429 => Self::new(429, "Too Many Requests", "Too many connections from your address.\n".to_owned()),
            _ => Self::new(503, "Service Unavailable", "No more connections for now. Come back later.\n".to_owned()),
        };
        answer.with_header("Retry-After", &retry_after_seconds.to_string())
    }

    pub(super) fn version_not_supported() -> Self {
        Self::new(505, "HTTP Version Not Supported", "Only HTTP/1.1 is spoken here.\n".to_owned())
    }

    /// For HEAD: the same answer, its body only announced.
    pub(super) fn without_body(mut self) -> Self {
        self.body_sent = false;
        self
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        let Self { status, reason, headers, connection, body, body_sent } = self;
        format!(
            "HTTP/1.1 {status} {reason}\r\n{headers}Content-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
             X-Content-Type-Options: nosniff\r\nConnection: {connection}\r\n\r\n{}",
            body.len(),
            if body_sent { body.as_str() } else { "" },
        )
        .into_bytes()
    }

    fn new(status: u16, reason: &'static str, body: String) -> Self {
        Self { status, reason, headers: String::new(), connection: "close", body, body_sent: true }
    }

    fn with_header(mut self, name: &str, value: &str) -> Self {
        // Writing to a string does not fail.
        let _ = write!(self.headers, "{name}: {value}\r\n");
        self
    }
}

impl From<Answer> for Outcome {
    fn from(answer: Answer) -> Self {
        Self::Respond { status: answer.status, bytes: answer.into_bytes() }
    }
}

fn how_to_connect(rules: &Rules) -> String {
    let mut text = format!("Connect with a WebSocket (RFC 6455, version 13) to {}", rules.paths.join(" or "));
    if !rules.subprotocols.is_empty() {
        // Writing to a string does not fail.
        let _ = write!(text, ", subprotocol {}", rules.subprotocols.join(" or "));
    }
    text.push_str(".\n");
    text
}
