//! Received bytes in, [`Event`]s out: fragments put together, control frames let through between them.
//!
//! Invariants:
//! - An idle decoder owns no heap memory: [`Partial`] exists only while a frame or a message is incomplete.
//! - A frame that lies whole in the received bytes, and is a whole message or a control frame, is unmasked in place and
//!   delivered from there; only what is partial is copied.
//! - A compressed message is kept compressed until it is whole, then inflated into the shard's shared buffer and delivered from
//!   there: no connection owns a decompressor, not even one in the middle of a message.
//! - The same stream gives the same events and the same error, however it is cut into pieces.
//! - After a close frame or an error nothing is delivered any more.

use simdutf8::basic;

use super::close::parse_close_payload;
use super::deflate::Inflater;
use super::error::ProtocolError;
use super::frame::{FrameHeader, HEADER_BYTES_MAX, Opcode, Role, parse_header};
use super::mask::apply_mask;
use super::message::{Assembly, Event, Limits, MessageKind};

/// Decodes one direction of one connection.
///
/// Call order: for every piece of received bytes, [`Self::poll`] until it returns `Ok(None)`; after an error, or after
/// [`Event::Close`], drop it at leisure.
#[derive(Debug)]
pub struct Decoder {
    partial: Option<Box<Partial>>,
    state: State,
    role: Role,
    /// Frames begun since they were last asked for.
    frames: u16,
}

impl Decoder {
    /// A decoder for the end `role` of a fresh connection. It allocates nothing.
    #[must_use]
    pub const fn new(role: Role) -> Self {
        Self { partial: None, state: State::Open, role, frames: 0 }
    }

    /// The next event in `input`, which advances past what was used; a frame in it may be unmasked in place.
    ///
    /// `Ok(None)`: all of `input` is used up and what was partial is kept; come back with more bytes. An error is latched:
    /// every later call returns it again.
    pub fn poll<'a, 'b: 'a>(
        &'a mut self,
        input: &mut &'b mut [u8],
        limits: &Limits,
    ) -> Result<Option<Event<'a>>, ProtocolError> {
        self.poll_inflating(input, limits, None)
    }

    /// As [`Self::poll`], for a connection that may have agreed on permessage-deflate: then, and in each of its calls, with an
    /// `inflater`, which many connections share. An event may borrow from it.
    pub fn poll_inflating<'a, 'b: 'a>(
        &'a mut self,
        input: &mut &'b mut [u8],
        limits: &Limits,
        mut inflater: Option<&'a mut Inflater>,
    ) -> Result<Option<Event<'a>>, ProtocolError> {
        self.release();
        match self.state {
            State::Open => {}
            State::Closed => {
                self.partial = None;
                // "After receiving a control frame indicating the connection should be closed, a peer discards any further
                // data received." (RFC 6455 §1.4)
                *input = &mut [];
                return Ok(None);
            }
            State::Failed(error) => {
                *input = &mut [];
                return Err(error);
            }
        }
        loop {
            match self.step(input, limits, inflater.as_deref_mut()) {
                Ok(Step::Again) => {}
                Ok(Step::NeedMore) => return Ok(None),
                Ok(Step::Deliver(event)) => {
                    if matches!(event, Event::Close { .. }) {
                        self.finish(State::Closed, input);
                    }
                    return Ok(Some(event));
                }
                Ok(Step::DeliverMessage) => return Ok(self.held_message()),
                Ok(Step::DeliverInflated(kind)) => {
                    return Ok(inflater.map(|inflater| Event::Message { kind, payload: inflater.output() }));
                }
                Ok(Step::DeliverControl(opcode)) => {
                    if opcode == Opcode::Close {
                        self.state = State::Closed;
                        *input = &mut [];
                    }
                    return self.held_control(opcode).map(Some);
                }
                Err(error) => {
                    self.finish(State::Failed(error), input);
                    return Err(error);
                }
            }
        }
    }

    /// How many frames of any kind, fragments among them, have begun since the last call: for whoever limits them.
    pub const fn take_frames(&mut self) -> u16 {
        std::mem::replace(&mut self.frames, 0)
    }

    /// Nothing is partial: the connection is between two messages.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        self.partial.is_none()
    }

    /// Bytes on the heap, for accounting: at most [`Limits::message_bytes_max`] plus a small constant.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| {
            let message = partial.message.as_ref().map_or(0, Assembly::heap_bytes);
            size_of::<Partial>() + partial.control.capacity() + message
        })
    }

    /// Gives back what the last event borrowed, and the partial state once nothing is in it.
    fn release(&mut self) {
        let Some(partial) = &mut self.partial else { return };
        match std::mem::take(&mut partial.lent) {
            Lent::Nothing => {}
            Lent::Message => partial.message = None,
            Lent::Control => partial.control = Vec::new(),
        }
        if partial.is_empty() {
            self.partial = None;
        }
    }

    fn finish(&mut self, state: State, input: &mut &mut [u8]) {
        self.state = state;
        self.partial = None;
        *input = &mut [];
    }

    fn step<'b>(
        &mut self,
        input: &mut &'b mut [u8],
        limits: &Limits,
        inflater: Option<&mut Inflater>,
    ) -> Result<Step<'b>, ProtocolError> {
        if self.partial.as_ref().is_some_and(|partial| partial.frame.is_some()) {
            return self.continue_frame(input, limits, inflater);
        }
        let Some(header) = self.take_header(input, inflater.is_some())? else { return Ok(Step::NeedMore) };
        self.frames = self.frames.saturating_add(1);
        self.begin_frame(header, input, limits, inflater)
    }

    /// The next frame's header, once it is whole; until then its bytes are kept.
    fn take_header(&mut self, input: &mut &mut [u8], deflate: bool) -> Result<Option<FrameHeader>, ProtocolError> {
        if let Some(partial) = &mut self.partial
            && partial.header_length > 0
        {
            while let Some(byte) = take(input, 1).first() {
                let length = usize::from(partial.header_length);
                partial.header[length] = *byte;
                partial.header_length += 1;
                if let Some((header, _)) = parse_header(&partial.header[..=length], self.role, deflate)? {
                    partial.header_length = 0;
                    return Ok(Some(header));
                }
            }
            return Ok(None);
        }
        if let Some((header, header_bytes)) = parse_header(input, self.role, deflate)? {
            take(input, header_bytes);
            return Ok(Some(header));
        }
        let rest = take(input, usize::MAX);
        if !rest.is_empty() {
            // Shorter than HEADER_BYTES_MAX, or it would have been a whole header.
            let partial = self.partial.get_or_insert_default();
            partial.header[..rest.len()].copy_from_slice(rest);
            partial.header_length = rest.len() as u8;
        }
        Ok(None)
    }

    /// A header is whole: is it allowed here, and does all of its payload lie in `input`?
    fn begin_frame<'b>(
        &mut self,
        header: FrameHeader,
        input: &mut &'b mut [u8],
        limits: &Limits,
        inflater: Option<&mut Inflater>,
    ) -> Result<Step<'b>, ProtocolError> {
        let open = self.partial.as_mut().and_then(|partial| partial.message.as_mut());
        let kind = match (header.opcode, &open) {
            (Opcode::Close | Opcode::Ping | Opcode::Pong, _) => return self.begin_control(header, input),
            (Opcode::Continuation, Some(_)) => None,
            // "A fragmented message consists of a single frame with the FIN bit clear and an opcode other than 0, followed by
            // zero or more frames with the FIN bit clear and the opcode set to 0" (RFC 6455 §5.4): one to be continued must
            // exist ...
            (Opcode::Continuation, None) => return Err(ProtocolError::ContinuationUnexpected),
            // ... and "The fragments of one message MUST NOT be interleaved between the fragments of another message".
            (Opcode::Text | Opcode::Binary, Some(_)) => return Err(ProtocolError::MessageInterrupted),
            (Opcode::Text, None) => Some(MessageKind::Text),
            (Opcode::Binary, None) => Some(MessageKind::Binary),
        };
        if kind.is_some_and(|kind| !limits.accepted.includes(kind)) {
            return Err(ProtocolError::KindNotAccepted);
        }
        let payload_bytes = usize::try_from(header.payload_bytes)
            .ok()
            .filter(|bytes| *bytes <= limits.frame_bytes_max)
            .ok_or(ProtocolError::FrameTooLong)?;
        if let (Some(kind), true) = (kind, header.fin && payload_bytes <= input.len()) {
            if payload_bytes > limits.message_bytes_max {
                return Err(ProtocolError::MessageTooLong);
            }
            let payload = unmask(take(input, payload_bytes), &header, 0);
            if header.compressed {
                return inflate(kind, payload, limits, inflater);
            }
            if kind == MessageKind::Text && basic::from_utf8(payload).is_err() {
                return Err(ProtocolError::TextNotUtf8);
            }
            return Ok(Step::Deliver(Event::Message { kind, payload }));
        }
        let partial = self.partial.get_or_insert_default();
        let message = partial.message.get_or_insert_with(|| {
            let kind = kind.unwrap_or(MessageKind::Binary);
            if header.compressed { Assembly::compressed(kind) } else { Assembly::new(kind) }
        });
        message.begin_fragment(payload_bytes, limits)?;
        partial.frame = Some(Frame { header, received_bytes: 0 });
        Ok(Step::Again)
    }

    fn begin_control<'b>(&mut self, header: FrameHeader, input: &mut &'b mut [u8]) -> Result<Step<'b>, ProtocolError> {
        // At most CONTROL_PAYLOAD_BYTES_MAX: the header was checked.
        let payload_bytes = header.payload_bytes as usize;
        if payload_bytes <= input.len() {
            let payload = unmask(take(input, payload_bytes), &header, 0);
            return control_event(header.opcode, payload).map(Step::Deliver);
        }
        let partial = self.partial.get_or_insert_default();
        partial.frame = Some(Frame { header, received_bytes: 0 });
        Ok(Step::Again)
    }

    /// More payload of a frame that did not lie whole in one piece, or is a fragment.
    fn continue_frame<'b>(
        &mut self,
        input: &mut &'b mut [u8],
        limits: &Limits,
        inflater: Option<&mut Inflater>,
    ) -> Result<Step<'b>, ProtocolError> {
        let Some(partial) = &mut self.partial else { return Ok(Step::Again) };
        let Some(frame) = &mut partial.frame else { return Ok(Step::Again) };
        let header = frame.header;
        let left_bytes = (header.payload_bytes - frame.received_bytes) as usize;
        let piece = unmask(take(input, left_bytes), &header, frame.received_bytes);
        frame.received_bytes += piece.len() as u64;
        let left_bytes = left_bytes - piece.len();
        if header.opcode.is_control() {
            partial.control.extend_from_slice(piece);
        } else if let Some(message) = &mut partial.message {
            message.append(piece, left_bytes)?;
        }
        if left_bytes > 0 {
            return Ok(Step::NeedMore);
        }
        partial.frame = None;
        if header.opcode.is_control() {
            control_event(header.opcode, &partial.control)?;
            return Ok(Step::DeliverControl(header.opcode));
        }
        if !header.fin {
            return Ok(Step::Again);
        }
        if let Some(message) = partial.message.take_if(|message| message.is_compressed()) {
            return inflate(message.kind(), message.payload(), limits, inflater);
        }
        if let Some(message) = &partial.message {
            message.finish()?;
        }
        Ok(Step::DeliverMessage)
    }

    fn held_message(&mut self) -> Option<Event<'_>> {
        let partial = self.partial.as_mut()?;
        partial.lent = Lent::Message;
        partial.message.as_ref().map(Assembly::event)
    }

    fn held_control(&mut self, opcode: Opcode) -> Result<Event<'_>, ProtocolError> {
        let partial = self.partial.get_or_insert_default();
        partial.lent = Lent::Control;
        control_event(opcode, &partial.control)
    }
}

/// What one step over the input came to.
enum Step<'b> {
    /// Progress without an event.
    Again,
    /// All input is used up.
    NeedMore,
    /// An event that borrows from the input.
    Deliver(Event<'b>),
    /// The assembled message.
    DeliverMessage,
    /// A compressed message of this kind, which the inflater now has.
    DeliverInflated(MessageKind),
    /// The control frame that came in pieces; its payload was checked.
    DeliverControl(Opcode),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Closed,
    Failed(ProtocolError),
}

/// What is incomplete. A connection between two messages has none.
#[derive(Debug, Default)]
struct Partial {
    /// The beginning of a header; empty while `frame` is there.
    header: [u8; HEADER_BYTES_MAX],
    header_length: u8,
    lent: Lent,
    /// The frame whose payload is arriving.
    frame: Option<Frame>,
    /// The payload of a control frame that is arriving, which may be between the fragments of `message`.
    control: Vec<u8>,
    message: Option<Assembly>,
}

impl Partial {
    const fn is_empty(&self) -> bool {
        self.header_length == 0 && self.frame.is_none() && self.message.is_none()
    }
}

/// What the last event borrowed from the partial state; it is given back at the next call.
#[derive(Debug, Default)]
enum Lent {
    #[default]
    Nothing,
    Message,
    Control,
}

#[derive(Debug)]
struct Frame {
    header: FrameHeader,
    received_bytes: u64,
}

/// Takes up to `count` bytes off the front of `input`.
fn take<'b>(input: &mut &'b mut [u8], count: usize) -> &'b mut [u8] {
    let all = std::mem::take(input);
    let (front, rest) = all.split_at_mut(count.min(all.len()));
    *input = rest;
    front
}

fn unmask<'b>(payload: &'b mut [u8], header: &FrameHeader, offset: u64) -> &'b [u8] {
    if let Some(key) = header.mask {
        apply_mask(payload, key, offset);
    }
    payload
}

/// A whole compressed message. Its UTF-8 and its length are judged as if it had come uncompressed.
fn inflate<'b>(
    kind: MessageKind,
    payload: &[u8],
    limits: &Limits,
    inflater: Option<&mut Inflater>,
) -> Result<Step<'b>, ProtocolError> {
    let inflater = inflater.ok_or(ProtocolError::ReservedBit)?;
    inflater.inflate(payload, limits.message_bytes_max)?;
    if kind == MessageKind::Text && basic::from_utf8(inflater.output()).is_err() {
        return Err(ProtocolError::TextNotUtf8);
    }
    Ok(Step::DeliverInflated(kind))
}

fn control_event(opcode: Opcode, payload: &[u8]) -> Result<Event<'_>, ProtocolError> {
    match opcode {
        Opcode::Ping => Ok(Event::Ping(payload)),
        Opcode::Pong => Ok(Event::Pong(payload)),
        Opcode::Close => parse_close_payload(payload).map(|(code, reason)| Event::Close { code, reason }),
        Opcode::Continuation | Opcode::Text | Opcode::Binary => Err(ProtocolError::ReservedOpcode(opcode as u8)),
    }
}

#[cfg(test)]
mod tests;
