//! Closing: which codes may stand on the wire, what a close frame carries, and how far the handshake has got.
//!
//! Invariant: a [`CloseCode`] is always one that may stand on the wire.

use simdutf8::basic;

use super::error::ProtocolError;
use super::frame::CONTROL_PAYLOAD_BYTES_MAX;

/// Longest reason: what a control frame holds beside the code.
pub const CLOSE_REASON_BYTES_MAX: usize = CONTROL_PAYLOAD_BYTES_MAX - 2;

/// A close code that may stand on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CloseCode(u16);

impl CloseCode {
    /// The purpose of the connection is fulfilled.
    pub const NORMAL: Self = Self(1000);
    /// The server goes down or the browser leaves the page.
    pub const GOING_AWAY: Self = Self(1001);
    /// The peer broke RFC 6455.
    pub const PROTOCOL_ERROR: Self = Self(1002);
    /// A kind of message that is not accepted here.
    pub const UNSUPPORTED_DATA: Self = Self(1003);
    /// Data that does not fit its kind, such as text that is not UTF-8.
    pub const INVALID_PAYLOAD: Self = Self(1007);
    /// A message that breaks a rule of ours.
    pub const POLICY_VIOLATION: Self = Self(1008);
    /// A message above our limits.
    pub const MESSAGE_TOO_BIG: Self = Self(1009);
    /// Something unexpected on our side.
    pub const INTERNAL_ERROR: Self = Self(1011);
    /// The server restarts (IANA registry).
    pub const SERVICE_RESTART: Self = Self(1012);
    /// The server is overloaded (IANA registry).
    pub const TRY_AGAIN_LATER: Self = Self(1013);

    /// The code, if it may stand on the wire.
    #[must_use]
    pub const fn new(code: u16) -> Option<Self> {
        match code {
            // Defined by RFC 6455 §7.4.1; 1012 to 1014 by the IANA registry that it opens. 1004 has no meaning yet; 1005, 1006
            // and 1015 "MUST NOT be set as a status code in a Close control frame by an endpoint".
            1000..=1003 | 1007..=1014
            // "Status codes in the range 3000-3999 are reserved for use by libraries, frameworks, and applications.
            // Status codes in the range 4000-4999 are reserved for private use" (RFC 6455 §7.4.2). 0-999 "are not used",
            // 1016-2999 are reserved for the protocol's own future, and nothing is defined above 4999.
            | 3000..=4999 => Some(Self(code)),
            _ => None,
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// The payload of a close frame, taken apart: code and reason.
pub fn parse_close_payload(payload: &[u8]) -> Result<(Option<u16>, &str), ProtocolError> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        // "If there is a body, the first two bytes of the body MUST be a 2-byte unsigned integer (in network byte order)
        // representing a status code" (RFC 6455 §5.5.1).
        return if payload.is_empty() { Ok((None, "")) } else { Err(ProtocolError::CloseTruncated) };
    };
    let code = u16::from_be_bytes(*code);
    if CloseCode::new(code).is_none() {
        return Err(ProtocolError::CloseCodeInvalid(code));
    }
    // "Following the 2-byte integer, the body MAY contain UTF-8-encoded data with value /reason/" (RFC 6455 §5.5.1).
    let reason = basic::from_utf8(reason).map_err(|_| ProtocolError::CloseReasonNotUtf8)?;
    Ok((Some(code), reason))
}

/// The payload of a close frame. A reason beyond [`CLOSE_REASON_BYTES_MAX`] is cut at a character's border.
#[must_use]
pub fn close_payload(code: Option<CloseCode>, reason: &str) -> Vec<u8> {
    let Some(code) = code else {
        // Without a code there is no place for a reason.
        return Vec::new();
    };
    let reason = &reason[..reason.floor_char_boundary(CLOSE_REASON_BYTES_MAX)];
    let mut payload = Vec::with_capacity(2 + reason.len());
    payload.extend_from_slice(&code.get().to_be_bytes());
    payload.extend_from_slice(reason.as_bytes());
    payload
}

/// How far the closing handshake of one connection has got.
///
/// "If an endpoint receives a Close frame and did not previously send a Close frame, the endpoint MUST send a Close frame in
/// response", and "after both sending and receiving a Close message, an endpoint considers the WebSocket connection closed
/// and MUST close the underlying TCP connection" (RFC 6455 §5.5.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CloseState {
    /// No close frame in either direction.
    #[default]
    Open,
    /// We sent ours and wait for the peer's.
    AwaitingReply,
    /// The peer sent one and we owe ours.
    ReplyOwed,
    /// Both are through: close the transport, the server first.
    Closed,
}

/// What moves a [`CloseState`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseStep {
    /// We put a close frame on the wire.
    Sent,
    /// A close frame arrived.
    Received,
}

impl CloseState {
    /// The state after `step`, or `None` when the step is not legal there: a second close frame in the same direction.
    #[must_use]
    pub const fn after(self, step: CloseStep) -> Option<Self> {
        match (self, step) {
            (Self::Open, CloseStep::Sent) => Some(Self::AwaitingReply),
            (Self::Open, CloseStep::Received) => Some(Self::ReplyOwed),
            (Self::AwaitingReply, CloseStep::Received) | (Self::ReplyOwed, CloseStep::Sent) => Some(Self::Closed),
            (Self::AwaitingReply | Self::Closed, CloseStep::Sent)
            | (Self::ReplyOwed | Self::Closed, CloseStep::Received) => None,
        }
    }

    /// Whether messages may still be sent: "The application MUST NOT send any more data frames after sending a Close frame"
    /// (RFC 6455 §5.5.1). While a reply is owed they may, which lets a message that is under way be finished.
    #[must_use]
    pub const fn may_send(self) -> bool {
        matches!(self, Self::Open | Self::ReplyOwed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_on_the_wire_are_exactly_these() {
        let valid: Vec<u16> = (0..=u16::MAX).filter(|code| CloseCode::new(*code).is_some()).collect();
        let expected: Vec<u16> = (1000..=1003).chain(1007..=1014).chain(3000..=4999).collect();
        assert_eq!(valid, expected);
    }

    #[test]
    fn every_code_survives_a_round_trip_or_is_refused() {
        for code in 0..=u16::MAX {
            let mut payload = code.to_be_bytes().to_vec();
            payload.extend_from_slice("bye ✓".as_bytes());
            match CloseCode::new(code) {
                Some(valid) => {
                    assert_eq!(parse_close_payload(&payload), Ok((Some(code), "bye ✓")));
                    assert_eq!(close_payload(Some(valid), "bye ✓"), payload);
                }
                None => assert_eq!(parse_close_payload(&payload), Err(ProtocolError::CloseCodeInvalid(code))),
            }
        }
    }

    #[test]
    fn payloads() {
        type Parsed = Result<(Option<u16>, &'static str), ProtocolError>;
        let table: &[(&[u8], Parsed)] = &[
            (b"", Ok((None, ""))),
            (b"\x03", Err(ProtocolError::CloseTruncated)),
            (b"\x03\xe8", Ok((Some(1000), ""))),
            (b"\x03\xe8ok", Ok((Some(1000), "ok"))),
            (b"\x03\xe8\xff", Err(ProtocolError::CloseReasonNotUtf8)),
            (b"\x03\xe8\xce", Err(ProtocolError::CloseReasonNotUtf8)),
            (b"\x03\xedok", Err(ProtocolError::CloseCodeInvalid(1005))),
        ];
        for (payload, expected) in table {
            assert_eq!(parse_close_payload(payload), *expected, "{payload:02x?}");
        }
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let payload = close_payload(Some(CloseCode::NORMAL), &"é".repeat(100));
        assert_eq!(payload.len(), 2 + 122);
        assert!(parse_close_payload(&payload).is_ok());
        assert!(close_payload(None, "no place for this").is_empty());
    }

    #[test]
    fn the_handshake_has_these_transitions_and_no_others() {
        use CloseState::{AwaitingReply, Closed, Open, ReplyOwed};
        let table = [
            (Open, Some(AwaitingReply), Some(ReplyOwed), true),
            (AwaitingReply, None, Some(Closed), false),
            (ReplyOwed, Some(Closed), None, true),
            (Closed, None, None, false),
        ];
        for (state, sent, received, may_send) in table {
            assert_eq!(state.after(CloseStep::Sent), sent, "{state:?} sent");
            assert_eq!(state.after(CloseStep::Received), received, "{state:?} received");
            assert_eq!(state.may_send(), may_send, "{state:?}");
        }
    }
}
