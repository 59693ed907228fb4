//! Every way in which a peer can break RFC 6455 or our limits, each with the close code that tells the peer so.
//!
//! Small and `Copy`: a decoder latches its error inside an idle connection's budget.

use super::close::CloseCode;

/// What a peer did wrong. The connection cannot be decoded any further: send a close frame with [`Self::close_code`], deliver
/// nothing more, and close the transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ProtocolError {
    /// A reserved bit is set and no extension gave it a meaning there.
    #[error("a reserved bit is set without an extension")]
    ReservedBit,
    /// An opcode that RFC 6455 does not define.
    #[error("opcode {0:#x} is reserved")]
    ReservedOpcode(u8),
    /// A control frame without FIN.
    #[error("a control frame is fragmented")]
    ControlFragmented,
    /// A control frame of more than 125 bytes.
    #[error("a control frame is longer than 125 bytes")]
    ControlTooLong,
    /// A client's frame without a mask.
    #[error("a client's frame is not masked")]
    MaskMissing,
    /// A server's frame with a mask.
    #[error("a server's frame is masked")]
    MaskUnexpected,
    /// A length in a longer form than it needs.
    #[error("a length is not in its shortest form")]
    LengthNotMinimal,
    /// A 64-bit length with its highest bit set.
    #[error("a length has its highest bit set")]
    LengthOutOfRange,
    /// A continuation frame while no message is open.
    #[error("a continuation without a message to continue")]
    ContinuationUnexpected,
    /// A text or binary frame while a fragmented message is open.
    #[error("a new message inside a fragmented one")]
    MessageInterrupted,
    /// A frame above [`Limits::frame_bytes_max`](super::Limits::frame_bytes_max).
    #[error("a frame is too long")]
    FrameTooLong,
    /// A message above [`Limits::message_bytes_max`](super::Limits::message_bytes_max).
    #[error("a message is too long")]
    MessageTooLong,
    /// A message in more than [`Limits::fragments_max`](super::Limits::fragments_max) frames.
    #[error("a message has too many fragments")]
    TooManyFragments,
    /// A kind of message that [`Limits::accepted`](super::Limits::accepted) excludes.
    #[error("this kind of message is not accepted here")]
    KindNotAccepted,
    /// A text message that is not UTF-8.
    #[error("a text message is not UTF-8")]
    TextNotUtf8,
    /// A compressed message that does not inflate, or ends within a block.
    #[error("a compressed message does not inflate")]
    DeflateInvalid,
    /// A close frame with one byte, which is half a code.
    #[error("a close frame has one byte")]
    CloseTruncated,
    /// A close code that must not stand on the wire.
    #[error("close code {0} is not allowed on the wire")]
    CloseCodeInvalid(u16),
    /// A close reason that is not UTF-8.
    #[error("a close reason is not UTF-8")]
    CloseReasonNotUtf8,
}

impl ProtocolError {
    /// The code to close with (RFC 6455 §7.4.1).
    #[must_use]
    pub const fn close_code(self) -> CloseCode {
        match self {
            // "1007 indicates that an endpoint is terminating the connection because it has received data within a message
            // that was not consistent with the type of the message (e.g., non-UTF-8 data within a text message)."
            Self::TextNotUtf8 | Self::CloseReasonNotUtf8 | Self::DeflateInvalid => CloseCode::INVALID_PAYLOAD,
            // "1009 indicates that an endpoint is terminating the connection because it has received a message that is too
            // big for it to process."
            Self::FrameTooLong | Self::MessageTooLong => CloseCode::MESSAGE_TOO_BIG,
            // "1008 indicates that an endpoint is terminating the connection because it has received a message that violates
            // its policy": the RFC sets no limit on fragments, we do.
            Self::TooManyFragments => CloseCode::POLICY_VIOLATION,
            // "1003 indicates that an endpoint is terminating the connection because it has received a type of data it
            // cannot accept (e.g., an endpoint that understands only text data MAY send this if it receives a binary
            // message)."
            Self::KindNotAccepted => CloseCode::UNSUPPORTED_DATA,
            // "1002 indicates that an endpoint is terminating the connection due to a protocol error."
            Self::ReservedBit
            | Self::ReservedOpcode(_)
            | Self::ControlFragmented
            | Self::ControlTooLong
            | Self::MaskMissing
            | Self::MaskUnexpected
            | Self::LengthNotMinimal
            | Self::LengthOutOfRange
            | Self::ContinuationUnexpected
            | Self::MessageInterrupted
            | Self::CloseTruncated
            | Self::CloseCodeInvalid(_) => CloseCode::PROTOCOL_ERROR,
        }
    }
}
