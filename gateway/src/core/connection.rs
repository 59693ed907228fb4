//! One connection: an HTTP upgrade, then a WebSocket, with a session on top and an outbound queue beside it.
//!
//! It turns bytes into a session's frames and a session's frames into bytes. It owns the closing handshake: what is queued leaves,
//! `goodbye` and a close frame follow, and the transport closes when the peer has answered or a deadline has passed.

use std::rc::Rc;

use antiphon_wire::{
    binary,
    codec::Encoding,
    codes::CloseCode,
    frame::{Goodbye, ServerFrame},
    ids::RequestId,
};

use super::{
    admission::{Payer, Place},
    outbound::Outbound,
    session::Session,
    websocket::{self, Decoder, Deflater, MessageKind, extension::Agreed},
};

/// How far a connection is.
#[derive(Debug)]
pub enum Stage {
    /// The upgrade request is incomplete.
    Handshake {
        /// What there is of it.
        head: Vec<u8>,
        /// Who answers for it.
        payer: Payer,
    },
    /// A WebSocket with a session.
    Open {
        /// What takes its bytes apart.
        decoder: Decoder,
        /// Its session.
        session: Session,
        /// What is needed until `connect` only.
        opening: Option<Box<Opening>>,
    },
    /// A close frame or a last HTTP answer was queued: the transport closes once it has left and the peer has answered.
    Closing {
        /// What takes the peer's answer apart; `None` if no answer is waited for.
        decoder: Option<Decoder>,
    },
}

/// What a connection keeps from its upgrade to its `connect`.
#[derive(Debug)]
pub struct Opening {
    /// What the upgrade carried as a token.
    pub token: Option<Box<str>>,
    /// Who answers for it, should it come to nothing.
    pub payer: Payer,
}

/// One connection of a shard. At most 128 bytes, a size of the allocator's: every idle client has one.
#[derive(Debug)]
pub struct Connection {
    /// Which use of its slot it is.
    pub generation: u32,
    /// When its bucket of frames is full again, in the units of its rate.
    pub frames_full_at: u32,
    /// Where it is counted among its address's connections.
    pub place: Option<Place>,
    /// Whether it stands in the list of those that have something to send.
    pub dirty: bool,
    /// Whether it stands in the list of those that are closed when their time is up.
    pub has_deadline: bool,
    /// Whether it stands in the list of those that do not keep up.
    pub is_slow: bool,
    /// Whether an operator looks at what it sends and is sent.
    pub is_traced: bool,
    /// What permessage-deflate was agreed on with, if it was.
    pub deflate: Option<Agreed>,
    /// How far it is.
    pub stage: Stage,
    /// What waits to leave.
    pub outbound: Outbound,
    /// When it was accepted, while not connected; when something last came, afterwards. Monotonic.
    pub heard_at_ms: u64,
}

const _: () = assert!(size_of::<Connection>() <= 128);

impl Connection {
    /// A connection just accepted.
    #[must_use]
    pub fn new(generation: u32, now_ms: u64, payer: Payer, place: Option<Place>, frames_full_at: u32) -> Self {
        let stage = Stage::Handshake { head: Vec::new(), payer };
        Self {
            generation,
            frames_full_at,
            place,
            dirty: false,
            has_deadline: false,
            is_slow: false,
            is_traced: false,
            deflate: None,
            stage,
            outbound: Outbound::default(),
            heard_at_ms: now_ms,
        }
    }

    /// Its session, while it has one.
    pub fn session(&mut self) -> Option<&mut Session> {
        match &mut self.stage {
            Stage::Open { session, .. } => Some(session),
            Stage::Handshake { .. } | Stage::Closing { .. } => None,
        }
    }

    /// Queues a frame in the session's encoding.
    pub fn send_frame(&mut self, id: Option<RequestId>, frame: &ServerFrame, deflater: &mut Deflater) {
        let Some(encoding) = self.session().map(|session| session.encoding()) else { return };
        self.send_message(websocket_message(encoding, &encoding.encode_server(id, frame)), deflater);
    }

    /// Queues a frame that is in its binary form, in the session's encoding.
    pub fn send_binary(&mut self, frame: &[u8], deflater: &mut Deflater) {
        let Some(encoding) = self.session().map(|session| session.encoding()) else { return };
        self.send_message(render(encoding, frame), deflater);
    }

    fn send_message(&mut self, plain: Rc<[u8]>, deflater: &mut Deflater) {
        let compressed = self.deflate.and_then(|agreed| deflater.frame(agreed, &plain));
        self.outbound.push(compressed.unwrap_or(plain), 0);
    }

    /// Says goodbye and begins to close; what waits leaves first unless `drop_queue`.
    pub fn end(&mut self, code: CloseCode, reconnect_after_ms: Option<u32>, drop_queue: bool, deflater: &mut Deflater) {
        if drop_queue {
            self.outbound.clear();
        }
        let goodbye = Goodbye { code: code.number(), reason: code.name().into(), reconnect_after_ms };
        self.send_frame(None, &ServerFrame::Goodbye(goodbye), deflater);
        let number =
            websocket::CloseCode::new(code.number()).expect("the protocol's close codes are in the private range");
        self.close(Some(number), code.name());
    }

    /// Queues a close frame and waits for the peer's.
    pub fn close(&mut self, code: Option<websocket::CloseCode>, reason: &str) {
        let stage = std::mem::replace(&mut self.stage, Stage::Closing { decoder: None });
        let decoder = match stage {
            Stage::Open { decoder, .. } => decoder,
            other => {
                self.stage = other;
                return;
            }
        };
        self.outbound.push(Rc::from(websocket::encode_close(code, reason, None)), 0);
        self.stage = Stage::Closing { decoder: Some(decoder) };
    }
}

/// A WebSocket message of a session's encoding, ready to send.
#[must_use]
pub fn websocket_message(encoding: Encoding, payload: &[u8]) -> Rc<[u8]> {
    let kind = match encoding {
        Encoding::Json => MessageKind::Text,
        Encoding::Rkyv => MessageKind::Binary,
    };
    Rc::from(websocket::encode_message(kind, payload, None))
}

/// A frame in its binary form as a WebSocket message of a session's encoding, ready to send. Binary frames go as they are.
#[must_use]
pub fn render(encoding: Encoding, frame: &[u8]) -> Rc<[u8]> {
    match encoding {
        Encoding::Rkyv => websocket_message(encoding, frame),
        Encoding::Json => match binary::message_archive(frame) {
            Some(archive) => websocket_message(encoding, &encoding.encode_message(archive)),
            None => {
                let (id, frame) = binary::decode_server(frame).expect("a shard of this process made this frame");
                websocket_message(encoding, &encoding.encode_server(id, &frame))
            }
        },
    }
}

/// One frame in the forms that its recipients want, each made once: two encodings, each as it is or for a window of
/// permessage-deflate.
#[derive(Debug)]
pub struct Rendered<'f> {
    frame: &'f [u8],
    plain: [Option<Rc<[u8]>>; 2],
    compressed: Vec<(Encoding, Agreed, Rc<[u8]>)>,
}

impl<'f> Rendered<'f> {
    /// A frame in its binary form.
    #[must_use]
    pub const fn new(frame: &'f [u8]) -> Self {
        Self { frame, plain: [None, None], compressed: Vec::new() }
    }

    /// The frame in its binary form.
    pub(super) fn frame(&self) -> &'f [u8] {
        self.frame
    }

    /// The form that a connection wants.
    pub fn form(&mut self, encoding: Encoding, deflate: Option<Agreed>, deflater: &mut Deflater) -> Rc<[u8]> {
        let plain = self.plain[encoding as usize].get_or_insert_with(|| render(encoding, self.frame));
        let Some(agreed) = deflate else { return Rc::clone(plain) };
        if let Some((.., made)) = self.compressed.iter().find(|made| (made.0, made.1) == (encoding, agreed)) {
            return Rc::clone(made);
        }
        let made = deflater.frame(agreed, plain).unwrap_or_else(|| Rc::clone(plain));
        self.compressed.push((encoding, agreed, Rc::clone(&made)));
        made
    }
}
