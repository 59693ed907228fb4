//! What comes out of a connection, the limits on it, and a message that arrives in pieces.
//!
//! Invariants of an [`Assembly`]: it never holds more than [`Limits::message_bytes_max`] bytes, never allocates ahead of what
//! has arrived by more than a factor of two (a header alone reserves nothing), and of a text all but the last three bytes are
//! known to be UTF-8. A compressed message is held compressed; both its forms are bounded by the limit.

use antiphon_wire::limits::CLIENT_FRAME_BYTES_MAX;

use super::error::ProtocolError;
use super::frame::Opcode;
use super::utf8;

/// What a connection delivers. It borrows from the received bytes, or from the decoder if it arrived in pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A whole message. Text is valid UTF-8.
    Message {
        /// Text or binary.
        kind: MessageKind,
        /// The message, unmasked and whole.
        payload: &'a [u8],
    },
    /// Answer with a pong of the same payload, unless closing.
    Ping(&'a [u8]),
    /// The answer to a ping, or an unasked sign of life.
    Pong(&'a [u8]),
    /// The peer closes: nothing follows. Answer with a close frame, unless one was sent.
    Close {
        /// The code, always one that may stand on the wire; none in an empty close frame.
        code: Option<u16>,
        /// The reason, often empty.
        reason: &'a str,
    },
}

/// The two kinds of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessageKind {
    /// UTF-8.
    Text,
    /// Any bytes.
    Binary,
}

impl MessageKind {
    /// The opcode of a frame that begins such a message.
    #[must_use]
    pub const fn opcode(self) -> Opcode {
        match self {
            Self::Text => Opcode::Text,
            Self::Binary => Opcode::Binary,
        }
    }
}

/// Which kinds of messages are accepted; the negotiated subprotocol decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Accepted {
    /// Both.
    #[default]
    Any,
    /// Text only.
    Text,
    /// Binary only.
    Binary,
}

impl Accepted {
    pub(super) const fn includes(self, kind: MessageKind) -> bool {
        match self {
            Self::Any => true,
            Self::Text => matches!(kind, MessageKind::Text),
            Self::Binary => matches!(kind, MessageKind::Binary),
        }
    }
}

/// What a peer may send. Shared by many connections and given to every call, so that an idle one does not pay for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest payload of one data frame.
    pub frame_bytes_max: usize,
    /// Longest message, over all its fragments; a compressed one before and after inflating.
    pub message_bytes_max: usize,
    /// Most frames of one message. Without it, empty fragments would keep a message open, and us busy, for ever.
    pub fragments_max: u32,
    /// Kinds of messages.
    pub accepted: Accepted,
}

impl Default for Limits {
    /// A chat client's: the longest frame of the protocol; enough fragments for a client that sends in pieces of 128 bytes.
    fn default() -> Self {
        Self {
            frame_bytes_max: CLIENT_FRAME_BYTES_MAX,
            message_bytes_max: CLIENT_FRAME_BYTES_MAX,
            fragments_max: 1_024,
            accepted: Accepted::Any,
        }
    }
}

/// A message of which not all has arrived.
#[derive(Debug)]
pub(super) struct Assembly {
    kind: MessageKind,
    is_compressed: bool,
    fragments: u32,
    payload: Vec<u8>,
    /// Text: up to where `payload` is known to be UTF-8.
    valid_bytes: usize,
}

impl Assembly {
    pub(super) const fn new(kind: MessageKind) -> Self {
        Self { kind, is_compressed: false, fragments: 0, payload: Vec::new(), valid_bytes: 0 }
    }

    pub(super) const fn compressed(kind: MessageKind) -> Self {
        let mut assembly = Self::new(kind);
        assembly.is_compressed = true;
        assembly
    }

    /// Another frame begins, of `frame_bytes`.
    pub(super) fn begin_fragment(&mut self, frame_bytes: usize, limits: &Limits) -> Result<(), ProtocolError> {
        if self.fragments >= limits.fragments_max {
            return Err(ProtocolError::TooManyFragments);
        }
        self.fragments += 1;
        if self.payload.len().saturating_add(frame_bytes) > limits.message_bytes_max {
            return Err(ProtocolError::MessageTooLong);
        }
        Ok(())
    }

    /// More payload, unmasked. `frame_bytes_left`: how much of the frame is still to come after it.
    pub(super) fn append(&mut self, bytes: &[u8], frame_bytes_left: usize) -> Result<(), ProtocolError> {
        let needed = self.payload.len() + bytes.len();
        if needed > self.payload.capacity() {
            // Twofold growth keeps the copying linear; what is announced caps it, what has arrived feeds it.
            let capacity = needed.max((needed * 2).min(needed + frame_bytes_left));
            self.payload.reserve_exact(capacity - self.payload.len());
        }
        self.payload.extend_from_slice(bytes);
        if self.kind == MessageKind::Text && !self.is_compressed {
            self.valid_bytes =
                utf8::extend_valid(&self.payload, self.valid_bytes).map_err(|_| ProtocolError::TextNotUtf8)?;
        }
        Ok(())
    }

    /// The last fragment is complete. "Note that a particular text frame might include a partial UTF-8 sequence; however, the
    /// whole message MUST contain valid UTF-8." (RFC 6455 §5.6)
    pub(super) fn finish(&self) -> Result<(), ProtocolError> {
        if self.kind == MessageKind::Text && self.valid_bytes != self.payload.len() {
            return Err(ProtocolError::TextNotUtf8);
        }
        Ok(())
    }

    pub(super) fn event(&self) -> Event<'_> {
        Event::Message { kind: self.kind, payload: &self.payload }
    }

    pub(super) const fn kind(&self) -> MessageKind {
        self.kind
    }

    pub(super) const fn is_compressed(&self) -> bool {
        self.is_compressed
    }

    /// What has arrived.
    pub(super) fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Bytes on the heap.
    pub(super) fn heap_bytes(&self) -> usize {
        self.payload.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_follows_what_arrived_and_never_exceeds_what_was_announced() {
        let mut assembly = Assembly::new(MessageKind::Binary);
        let total = 100_000;
        assert_eq!(assembly.begin_fragment(total, &Limits::default()), Ok(()));
        let mut arrived = 0;
        let mut growths = 0;
        while arrived < total {
            let before = assembly.heap_bytes();
            arrived += 10;
            assert_eq!(assembly.append(&[0; 10], total - arrived), Ok(()));
            growths += usize::from(before != assembly.heap_bytes());
            assert!(assembly.heap_bytes() <= (2 * arrived).min(total));
        }
        assert_eq!(assembly.heap_bytes(), total);
        assert!(growths < 20, "{growths} growths");
    }

    #[test]
    fn fragments_are_counted_and_added_up() {
        let limits = Limits { message_bytes_max: 10, fragments_max: 3, ..Limits::default() };
        let mut assembly = Assembly::new(MessageKind::Text);
        assert_eq!(assembly.begin_fragment(6, &limits), Ok(()));
        assert_eq!(assembly.append(b"abcdef", 0), Ok(()));
        assert_eq!(assembly.begin_fragment(5, &limits), Err(ProtocolError::MessageTooLong));
        assert_eq!(assembly.begin_fragment(4, &limits), Ok(()));
        assert_eq!(assembly.begin_fragment(0, &limits), Err(ProtocolError::TooManyFragments));
    }

    #[test]
    fn a_message_may_not_end_within_a_character() {
        let mut assembly = Assembly::new(MessageKind::Text);
        assert_eq!(assembly.append(&[b'a', 0xce], 0), Ok(()));
        assert_eq!(assembly.finish(), Err(ProtocolError::TextNotUtf8));
        assert_eq!(assembly.append(&[0xba], 0), Ok(()));
        assert_eq!(assembly.finish(), Ok(()));
    }
}
