//! Bytes to frames and back, in the encoding that a connection negotiated.

use crate::{
    codes::ErrorCode,
    frame::{Request, Send, ServerFrame},
    ids::RequestId,
};

/// How a connection's frames are encoded: its WebSocket subprotocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// `antiphon.v1.json`: text messages.
    Json,
    /// `antiphon.v1.rkyv`: binary messages.
    Rkyv,
}

/// Why bytes are not a frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code:?}: {text}")]
pub struct DecodeError {
    /// The request's id, if that much could be read.
    pub id: Option<RequestId>,
    /// `malformed`, `unknown_frame`, `invalid` or `too_large`.
    pub code: ErrorCode,
    /// What exactly.
    pub text: String,
}

impl Encoding {
    /// All encodings, the preferred one for an unspecific client first.
    pub const ALL: [Self; 2] = [Self::Json, Self::Rkyv];

    /// The WebSocket subprotocol that stands for it.
    #[must_use]
    pub fn subprotocol(self) -> &'static str {
        match self {
            Self::Json => "antiphon.v1.json",
            Self::Rkyv => "antiphon.v1.rkyv",
        }
    }

    /// The encoding of a subprotocol.
    #[must_use]
    pub fn from_subprotocol(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|encoding| encoding.subprotocol() == name)
    }

    /// Reads a client's frame and checks every value that can be checked without knowing anything.
    pub fn decode_request(self, bytes: &[u8]) -> Result<(Option<RequestId>, Request), DecodeError> {
        match self {
            Self::Json => crate::json::decode_request(bytes),
            Self::Rkyv => crate::binary::decode_request(bytes),
        }
    }

    /// Writes a client's frame.
    #[must_use]
    pub fn encode_request(self, id: Option<RequestId>, request: &Request) -> Vec<u8> {
        match self {
            Self::Json => crate::json::encode_request(id, request),
            Self::Rkyv => crate::binary::encode_request(id, request),
        }
    }

    /// Writes a `send` that stays with its owner.
    pub(crate) fn encode_send(self, id: Option<RequestId>, send: &Send) -> Vec<u8> {
        match self {
            Self::Json => crate::json::encode_send(id, send),
            Self::Rkyv => crate::binary::encode_send(id, send),
        }
    }

    /// Reads a server's frame.
    pub fn decode_server(self, bytes: &[u8]) -> Result<(Option<RequestId>, ServerFrame), DecodeError> {
        match self {
            Self::Json => crate::json::decode_server(bytes),
            Self::Rkyv => crate::binary::decode_server(bytes),
        }
    }

    /// Writes a server's frame.
    #[must_use]
    pub fn encode_server(self, id: Option<RequestId>, frame: &ServerFrame) -> Vec<u8> {
        match self {
            Self::Json => crate::json::encode_server(id, frame),
            Self::Rkyv => crate::binary::encode_server(id, frame),
        }
    }

    /// Writes a `message` push from an entry's archive, which becomes part of it as it is.
    #[must_use]
    pub fn encode_message(self, archive: &[u8]) -> Vec<u8> {
        match self {
            Self::Json => crate::json::encode_message(archive),
            Self::Rkyv => crate::binary::encode_message(archive),
        }
    }
}
