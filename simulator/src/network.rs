//! The network between clients and shards: each connection is two streams of bytes, delayed, split anywhere, cut anywhere. Nothing is
//! ordered between two connections, and within one only each direction for itself.

use antiphon_gateway::core::{
    http::client::{Outcome, Request, encode_request, parse_response},
    io::ConnectionKey,
    websocket::{self, Decoder, MessageKind, Role},
};
use antiphon_wire::{codec::Encoding, limits::SERVER_FRAME_BYTES_MAX};

use crate::dice::Dice;

/// A connection's number in the world; never used again.
pub type LinkId = usize;

/// One connection.
#[derive(Debug)]
pub struct Link {
    /// Whose.
    pub client: usize,
    /// The node's incarnation that it goes to.
    pub incarnation: u64,
    /// To which shard.
    pub shard: usize,
    /// How the shard knows it, while it does.
    pub key: Option<ConnectionKey>,
    /// The client still looks at it.
    pub client_open: bool,
    /// Bytes vanish in both directions and nobody is told.
    pub silent: bool,
    /// Until then the client reads nothing.
    pub stalled_until_us: u64,
    /// When the last bytes towards the server arrive.
    pub up_at_us: u64,
    /// When the last bytes towards the client arrive.
    pub down_at_us: u64,
}

impl Link {
    /// A connection that a client opens now.
    #[must_use]
    pub fn new(client: usize, incarnation: u64, shard: usize, now_us: u64) -> Self {
        Self {
            client,
            incarnation,
            shard,
            key: None,
            client_open: true,
            silent: false,
            stalled_until_us: 0,
            up_at_us: now_us,
            down_at_us: now_us,
        }
    }
}

/// Cuts bytes into pieces as a network may.
#[must_use]
pub fn split(bytes: Vec<u8>, per_thousand: u64, dice: &Dice) -> Vec<Vec<u8>> {
    if bytes.len() < 2 || !dice.chance(per_thousand) {
        return vec![bytes];
    }
    let mut pieces = Vec::new();
    let mut rest = bytes;
    while rest.len() > 1 && pieces.len() < 6 {
        let at = if dice.chance(500) { 1 + dice.index(rest.len().min(16) - 1) } else { 1 + dice.index(rest.len() - 1) };
        let tail = rest.split_off(at);
        pieces.push(std::mem::replace(&mut rest, tail));
    }
    pieces.push(rest);
    pieces
}

/// What a client's end of a connection makes of received bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// The upgrade is done.
    Connected,
    /// A message's payload.
    Message(Vec<u8>),
    /// The server closes, with a code of the protocol or another.
    Closed(Option<u16>),
    /// The upgrade was refused, in order.
    Refused,
    /// The server broke the rules of HTTP or WebSocket.
    Broken(String),
}

/// A client's end: the upgrade and the WebSocket codec in the client's role.
#[derive(Debug)]
pub struct Transport {
    encoding: Encoding,
    nonce: [u8; 16],
    stage: Stage,
    /// Messages are cut into frames now and then.
    fragments: bool,
}

#[derive(Debug)]
enum Stage {
    Handshake(Vec<u8>),
    Open(Decoder),
    Closed,
}

impl Transport {
    /// A connection that begins, and what it sends first.
    #[must_use]
    pub fn open(encoding: Encoding, fragments: bool, dice: &Dice) -> (Self, Vec<u8>) {
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&dice.number().to_le_bytes());
        nonce[8..].copy_from_slice(&dice.number().to_le_bytes());
        let transport = Self { encoding, nonce, stage: Stage::Handshake(Vec::new()), fragments };
        let bytes = transport.with_request(encode_request);
        (transport, bytes)
    }

    fn with_request<T>(&self, then: impl FnOnce(&Request<'_>) -> T) -> T {
        let subprotocols = [self.encoding.subprotocol()];
        then(&Request { host: "sim", path: "/ws", subprotocols: &subprotocols, token: None, nonce: self.nonce })
    }

    /// Takes bytes from the server.
    pub fn receive(&mut self, mut bytes: Vec<u8>) -> Vec<Received> {
        let mut received = Vec::new();
        if let Stage::Handshake(head) = &mut self.stage {
            head.extend_from_slice(&bytes);
            let head = std::mem::take(head);
            match self.with_request(|request| parse_response(&head, request)) {
                Outcome::NeedMore => {
                    self.stage = Stage::Handshake(head);
                    return received;
                }
                Outcome::Connected { subprotocol, consumed_bytes } => {
                    if subprotocol.as_deref() != Some(self.encoding.subprotocol()) {
                        return vec![Received::Broken(format!("the server chose {subprotocol:?}"))];
                    }
                    self.stage = Stage::Open(Decoder::new(Role::Client));
                    received.push(Received::Connected);
                    bytes = head[consumed_bytes..].to_vec();
                }
                Outcome::Refused { .. } => {
                    self.stage = Stage::Closed;
                    return vec![Received::Refused];
                }
                Outcome::Invalid(invalid) => return vec![Received::Broken(invalid.to_string())],
            }
        }
        self.frames(&mut bytes, &mut received);
        received
    }

    fn frames(&mut self, bytes: &mut [u8], received: &mut Vec<Received>) {
        let Stage::Open(decoder) = &mut self.stage else { return };
        let accepted = match self.encoding {
            Encoding::Json => websocket::Accepted::Text,
            Encoding::Rkyv => websocket::Accepted::Binary,
        };
        let most = 2 * SERVER_FRAME_BYTES_MAX;
        let limits = websocket::Limits { frame_bytes_max: most, message_bytes_max: most, fragments_max: 1, accepted };
        let mut input = bytes;
        loop {
            match decoder.poll(&mut input, &limits) {
                Ok(None) => return,
                Ok(Some(websocket::Event::Message { payload, .. })) => {
                    received.push(Received::Message(payload.to_vec()))
                }
                Ok(Some(websocket::Event::Ping(_) | websocket::Event::Pong(_))) => {}
                Ok(Some(websocket::Event::Close { code, .. })) => {
                    received.push(Received::Closed(code));
                    self.stage = Stage::Closed;
                    return;
                }
                Err(error) => {
                    received.push(Received::Broken(error.to_string()));
                    self.stage = Stage::Closed;
                    return;
                }
            }
        }
    }

    /// A message as bytes for the server.
    #[must_use]
    pub fn message(&self, payload: &[u8], dice: &Dice) -> Vec<u8> {
        let kind = match self.encoding {
            Encoding::Json => MessageKind::Text,
            Encoding::Rkyv => MessageKind::Binary,
        };
        let mask = || Some((dice.number() as u32).to_le_bytes());
        if !self.fragments || payload.len() < 2 || !dice.chance(300) {
            return websocket::encode_message(kind, payload, mask());
        }
        let (first, rest) = payload.split_at(1 + dice.index(payload.len() - 1));
        let mut bytes = websocket::encode_frame(kind.opcode(), false, first, mask());
        if dice.chance(300) {
            bytes.extend(websocket::encode_ping(b"between", mask()));
        }
        bytes.extend(websocket::encode_frame(websocket::Opcode::Continuation, true, rest, mask()));
        bytes
    }

    /// A close frame for the server.
    #[must_use]
    pub fn close(&self, dice: &Dice) -> Vec<u8> {
        match self.stage {
            Stage::Open(_) => {
                websocket::encode_close(websocket::CloseCode::new(1000), "", Some((dice.number() as u32).to_le_bytes()))
            }
            Stage::Handshake(_) | Stage::Closed => Vec::new(),
        }
    }
}
