//! One TLS session of the server: ciphertext in, plaintext and ciphertext out, over rustls' unbuffered connection.
//!
//! It holds no buffer: what a caller hands in and could not be consumed yet stays with the caller, who hands it in again with whatever
//! is next. That holds for writing too: rustls remembers how far into these bytes it has looked, and panics if they are missing.
//! Order of calls: [`Session::process`] until it says [`State::Open`]; then [`Session::encrypt`] at any time, and
//! [`Session::close_notify`] last. Nothing follows [`State::Failed`].

use std::sync::Arc;

use rustls::{
    Error, HandshakeKind, ServerConfig,
    server::{ServerConnectionData, UnbufferedServerConnection},
    unbuffered::{ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus, WriteTraffic},
};

/// Room that a record takes beyond its content, at most: header, explicit nonce or content type, tag.
const RECORD_OVERHEAD_BYTES: usize = 64;

/// Content of one record, at most (RFC 8446 §5.1).
const RECORD_BYTES_MAX: usize = 16_384;

/// How far a session is.
#[derive(Debug)]
pub(super) enum State {
    /// The handshake wants more bytes.
    Handshaking,
    /// Application data may go both ways.
    Open,
    /// The peer has said that it sends no more.
    Ended,
    /// It is over; what was written last tells the peer why.
    Failed(Error),
}

/// What [`Session::process`] did.
#[derive(Debug)]
pub(super) struct Step {
    /// So many bytes of the input are done with.
    pub(super) consumed_bytes: usize,
    /// Where the session is now.
    pub(super) state: State,
}

/// See the module.
pub(super) struct Session {
    connection: UnbufferedServerConnection,
}

impl Session {
    pub(super) fn new(config: Arc<ServerConfig>) -> Result<Self, Error> {
        Ok(Self { connection: UnbufferedServerConnection::new(config)? })
    }

    /// Whether the handshake was a full or a resumed one; known when it is over.
    pub(super) fn is_resumed(&self) -> bool {
        self.connection.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Takes what came. Appends application data to `plain`, and what is to be sent to `out`.
    pub(super) fn process(&mut self, input: &mut [u8], plain: &mut Vec<u8>, out: &mut Vec<u8>) -> Step {
        let mut consumed_bytes = 0;
        let mut has_ended = false;
        loop {
            let rest = &mut input[consumed_bytes..];
            let UnbufferedStatus { discard, state } = self.connection.process_tls_records(rest);
            let state = match state {
                Ok(ConnectionState::BlockedHandshake) => Some(State::Handshaking),
                Ok(ConnectionState::WriteTraffic(_)) => Some(if has_ended { State::Ended } else { State::Open }),
                Ok(ConnectionState::Closed) => Some(State::Ended),
                Ok(ConnectionState::PeerClosed) => {
                    has_ended = true;
                    None
                }
                Ok(state) => advance(state, plain, out).err().map(State::Failed),
                Err(error) => {
                    self.hand_over(&mut input[consumed_bytes..], plain, out);
                    Some(State::Failed(error))
                }
            };
            consumed_bytes += discard;
            if let Some(state) = state {
                return Step { consumed_bytes, state };
            }
        }
    }

    /// After an error: what was said before it, and the alert. rustls must not look at the bytes behind it again, and does not while it
    /// has something to hand over.
    fn hand_over(&mut self, rest: &mut [u8], plain: &mut Vec<u8>, out: &mut Vec<u8>) {
        while self.connection.wants_write() {
            let handed = self.connection.process_tls_records(rest).state.and_then(|state| advance(state, plain, out));
            if handed.is_err() {
                return;
            }
        }
    }

    /// Appends `plain`, encrypted, to `out`; `received` is what was not consumed yet. Only when open. An error means that the keys are
    /// used up, or that the session is over.
    pub(super) fn encrypt(&mut self, received: &mut [u8], plain: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        let records = plain.len() / RECORD_BYTES_MAX + 1;
        let room_bytes = plain.len() + records * RECORD_OVERHEAD_BYTES;
        self.write(received, out, room_bytes, |traffic, room| traffic.encrypt(plain, room))
    }

    /// Appends the notice that nothing more will be sent.
    pub(super) fn close_notify(&mut self, received: &mut [u8], out: &mut Vec<u8>) -> Result<(), Error> {
        self.write(received, out, RECORD_OVERHEAD_BYTES, |traffic, room| traffic.queue_close_notify(room))
    }

    fn write(
        &mut self,
        received: &mut [u8],
        out: &mut Vec<u8>,
        room_bytes: usize,
        mut write: impl FnMut(&mut WriteTraffic<'_, ServerConnectionData>, &mut [u8]) -> Result<usize, EncryptError>,
    ) -> Result<(), Error> {
        loop {
            let UnbufferedStatus { discard, state } = self.connection.process_tls_records(received);
            assert!(discard == 0, "whole records do not stay");
            match state? {
                ConnectionState::WriteTraffic(mut traffic) => {
                    let written = append(out, room_bytes, |room| write(&mut traffic, room));
                    return if written { Ok(()) } else { Err(Error::EncryptError) };
                }
                ConnectionState::EncodeTlsData(mut encode) => {
                    append(out, RECORD_OVERHEAD_BYTES, |room| encode.encode(room));
                }
                ConnectionState::TransmitTlsData(transmit) => transmit.done(),
                ConnectionState::PeerClosed => {}
                _ => return Err(Error::HandshakeNotComplete),
            }
        }
    }
}

/// Does what a state in the middle asks for.
fn advance(
    state: ConnectionState<'_, '_, ServerConnectionData>,
    plain: &mut Vec<u8>,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    match state {
        ConnectionState::ReadTraffic(mut records) => {
            while let Some(record) = records.next_record() {
                let record = record?;
                assert!(record.discard == 0, "rustls copies records out");
                plain.extend_from_slice(record.payload);
            }
        }
        ConnectionState::EncodeTlsData(mut encode) => {
            append(out, RECORD_OVERHEAD_BYTES, |room| encode.encode(room));
        }
        ConnectionState::TransmitTlsData(transmit) => transmit.done(),
        // Early data is not accepted, so it does not arise, nor does a state that this version does not know.
        _ => return Err(Error::General("an unexpected state".to_owned())),
    }
    Ok(())
}

/// What rustls says when room is short, for both of its error types.
trait Room {
    fn required_bytes(&self) -> Option<usize>;
}

impl Room for EncodeError {
    fn required_bytes(&self) -> Option<usize> {
        match self {
            Self::InsufficientSize(InsufficientSizeError { required_size }) => Some(*required_size),
            Self::AlreadyEncoded => None,
        }
    }
}

impl Room for EncryptError {
    fn required_bytes(&self) -> Option<usize> {
        match self {
            Self::InsufficientSize(InsufficientSizeError { required_size }) => Some(*required_size),
            Self::EncryptExhausted => None,
        }
    }
}

/// Has `write` append to `out`, with the room that it asks for. Whether it did.
fn append<E: Room>(out: &mut Vec<u8>, room_bytes: usize, mut write: impl FnMut(&mut [u8]) -> Result<usize, E>) -> bool {
    let begin = out.len();
    let mut room_bytes = room_bytes;
    loop {
        out.resize(begin + room_bytes, 0);
        match write(&mut out[begin..]) {
            Ok(written) => {
                out.truncate(begin + written);
                return true;
            }
            Err(error) => match error.required_bytes() {
                Some(required_bytes) if required_bytes > room_bytes => room_bytes = required_bytes,
                _ => {
                    out.truncate(begin);
                    return false;
                }
            },
        }
    }
}
