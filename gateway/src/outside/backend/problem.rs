//! What a caller of the HTTP API is told when something is not done: one body for all failures, and the HTTP status of each.
//!
//! The body has the form of RFC 9457 with members of our own: `{"status":404,"code":"not_found","text":"…","temporary":false}`, and
//! `retry_after_ms` where it is known. Codes are the protocol's, and those few of [`Own`] that only HTTP has.

use antiphon_wire::{codec::DecodeError, codes::ErrorCode, frame::ErrorFrame};
use axum::{
    body::Body,
    http::{HeaderValue, Response, StatusCode, header},
};
use serde_json::json;

use super::answers;

/// How long to wait before the next attempt where nothing better is known.
const RETRY_AFTER_MS: u32 = 1_000;

/// Failures that the protocol has no code for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::outside) enum Own {
    /// There is nothing at that path.
    NoSuchPath,
    /// There is something, but not for that method.
    MethodNotAllowed,
    /// The body is not JSON by its own word.
    UnsupportedMediaType,
    /// The key may not be used for that.
    MissingScope,
    /// No answer came in time; whether it was done nobody knows.
    TimedOut,
}

impl Own {
    #[cfg(test)]
    pub(super) const ALL: [Self; 5] =
        [Self::NoSuchPath, Self::MethodNotAllowed, Self::UnsupportedMediaType, Self::MissingScope, Self::TimedOut];

    /// Name and status.
    pub(super) fn name_and_status(self) -> (&'static str, StatusCode) {
        match self {
            Self::NoSuchPath => ("no_such_path", StatusCode::NOT_FOUND),
            Self::MethodNotAllowed => ("method_not_allowed", StatusCode::METHOD_NOT_ALLOWED),
            Self::UnsupportedMediaType => ("unsupported_media_type", StatusCode::UNSUPPORTED_MEDIA_TYPE),
            Self::MissingScope => ("missing_scope", StatusCode::FORBIDDEN),
            Self::TimedOut => ("timed_out", StatusCode::GATEWAY_TIMEOUT),
        }
    }
}

/// The status of each of the protocol's codes.
pub(super) fn status_of(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::Malformed | ErrorCode::UnknownFrame | ErrorCode::Invalid => StatusCode::BAD_REQUEST,
        ErrorCode::NotConnected | ErrorCode::AlreadyConnected => StatusCode::BAD_REQUEST,
        ErrorCode::Unauthenticated | ErrorCode::TokenExpired | ErrorCode::Revoked => StatusCode::UNAUTHORIZED,
        ErrorCode::Forbidden => StatusCode::FORBIDDEN,
        ErrorCode::NotFound | ErrorCode::NoMessage => StatusCode::NOT_FOUND,
        ErrorCode::Conflict | ErrorCode::LimitReached | ErrorCode::TooOld => StatusCode::CONFLICT,
        ErrorCode::Deleted => StatusCode::GONE,
        ErrorCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::Damaged => StatusCode::INTERNAL_SERVER_ERROR,
        ErrorCode::StorageFull | ErrorCode::StorageFailed | ErrorCode::Overloaded | ErrorCode::ShuttingDown => {
            StatusCode::SERVICE_UNAVAILABLE
        }
    }
}

/// Why a request was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::outside) struct Problem {
    status: StatusCode,
    code: &'static str,
    text: String,
    is_temporary: bool,
    retry_after_ms: Option<u32>,
    /// Methods that the path has, for one that it has not.
    allow: Option<String>,
}

impl Problem {
    /// One that the protocol knows.
    pub(in crate::outside) fn new(code: ErrorCode, text: impl Into<String>) -> Self {
        let retry_after_ms = code.temporary().then_some(RETRY_AFTER_MS);
        Self::from(ErrorFrame { code, text: text.into(), retry_after_ms })
    }

    /// One that only HTTP has.
    pub(in crate::outside) fn own(own: Own, text: impl Into<String>) -> Self {
        let (code, status) = own.name_and_status();
        let is_temporary = own == Own::TimedOut;
        let retry_after_ms = is_temporary.then_some(RETRY_AFTER_MS);
        Self { status, code, text: text.into(), is_temporary, retry_after_ms, allow: None }
    }

    /// The caller may try again then.
    pub(super) fn after_ms(mut self, retry_after_ms: u32) -> Self {
        self.retry_after_ms = Some(retry_after_ms);
        self
    }

    /// It is about something that the body names, not the path.
    pub(super) fn of_body(mut self) -> Self {
        if [ErrorCode::NoMessage, ErrorCode::Deleted].iter().any(|code| code.name() == self.code) {
            self.status = StatusCode::CONFLICT;
        }
        self
    }

    /// The path has these methods.
    pub(super) fn allowing(mut self, methods: String) -> Self {
        self.allow = Some(methods);
        self
    }

    #[cfg(test)]
    pub(super) fn code(&self) -> &'static str {
        self.code
    }

    #[cfg(test)]
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The answer that tells it.
    pub(in crate::outside) fn answer(self) -> Response<Body> {
        let mut body = json!({
            "status": self.status.as_u16(), "code": self.code, "text": self.text, "temporary": self.is_temporary
        });
        if let Some(retry_after_ms) = self.retry_after_ms {
            body["retry_after_ms"] = retry_after_ms.into();
        }
        let mut answer = answers::of_type(self.status, "application/problem+json", body.to_string());
        let headers = answer.headers_mut();
        if let Some(retry_after_ms) = self.retry_after_ms {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(retry_after_ms.div_ceil(1_000).max(1)));
        }
        if let Some(allow) = self.allow.and_then(|methods| HeaderValue::try_from(methods).ok()) {
            headers.insert(header::ALLOW, allow);
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        answer
    }
}

impl From<ErrorFrame> for Problem {
    fn from(error: ErrorFrame) -> Self {
        Self {
            status: status_of(error.code),
            code: error.code.name(),
            text: error.text,
            is_temporary: error.code.temporary(),
            retry_after_ms: error.retry_after_ms,
            allow: None,
        }
    }
}

impl From<DecodeError> for Problem {
    fn from(error: DecodeError) -> Self {
        // Where in the frame that was made of the request is of no use to the caller.
        let text = error.text.rsplit_once(" at line ").map_or(error.text.as_str(), |(text, _)| text);
        Self::new(error.code, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Statuses tell libraries what to do: those that say "later" are the temporary ones, and only they.
    #[test]
    fn statuses_agree_with_what_the_codes_say() {
        for code in ErrorCode::ALL {
            let status = status_of(*code);
            let says_later =
                [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT];
            assert_eq!(says_later.contains(&status), code.temporary(), "{code:?}: {status}");
            let answer = Problem::new(*code, code.text()).answer();
            assert_eq!(answer.headers().contains_key(header::RETRY_AFTER), code.temporary(), "{code:?}");
        }
        for own in Own::ALL {
            let (name, _) = own.name_and_status();
            assert_eq!(ErrorCode::from_name(name), None, "{name} is the protocol's already");
        }
    }

    #[test]
    fn an_answer_has_the_headers_that_its_status_asks_for() {
        let answer = Problem::new(ErrorCode::Unauthenticated, "no").answer();
        assert_eq!(answer.headers()[header::WWW_AUTHENTICATE], "Bearer");
        let answer = Problem::own(Own::MethodNotAllowed, "no").allowing("GET, POST".to_owned()).answer();
        assert_eq!(answer.headers()[header::ALLOW], "GET, POST");
        let answer = Problem::new(ErrorCode::RateLimited, "no").after_ms(1_001).answer();
        assert_eq!(answer.headers()[header::RETRY_AFTER], "2");
        assert_eq!(answer.headers()[header::CONTENT_TYPE], "application/problem+json");
    }
}
