//! One connection's TLS, without I/O: the server's bytes in, plaintext and bytes for the server out.
//!
//! Call order: [`Session::begin`], then [`Session::receive`] with whatever comes; from when [`Session::is_open`] is true,
//! [`Session::write`]; [`Session::close`] before the connection is ended. After an error, or once the server has ended the session
//! ([`Session::is_ended_by_server`]), whatever comes is thrown away.
//!
//! Nothing is buffered while a connection is idle: what does not make a whole record, or a whole handshake message, is kept, and
//! that alone.

use std::sync::Arc;

use rustls::{
    ClientConfig, HandshakeKind,
    client::{ClientConnectionData, UnbufferedClientConnection},
    pki_types::ServerName,
    unbuffered::{ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic},
};

use super::TlsError;

/// Most bytes that are kept for a whole record or handshake message. A message has 65,535 bytes at most in rustls, and the record
/// that ends it 18,437; a server that sends ahead of a client that is still to look is given twice as much.
const KEPT_BYTES_MAX: usize = 192 * 1024;

/// What a record adds at most: a header, an explicit nonce or a content type, and a tag; for each 16 KiB of plaintext.
const RECORD_OVERHEAD_BYTES: usize = 64;
const RECORD_PLAIN_BYTES: usize = 16 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Handshake,
    Open,
    /// The server said that nothing more follows.
    EndedByServer,
    /// We said so, or it failed.
    Over,
}

/// A TLS session.
pub struct Session {
    connection: UnbufferedClientConnection,
    kept: Vec<u8>,
    stage: Stage,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never the keys.
        formatter.debug_struct("Session").field("stage", &self.stage).field("kept", &self.kept.len()).finish()
    }
}

/// What a handshake agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreed {
    /// By a ticket.
    pub resumed: bool,
    /// The server wanted another key share first.
    pub retried: bool,
    /// Version, cipher suite and group of the key exchange.
    pub text: String,
}

impl Session {
    /// Begins the handshake; its first bytes are appended to `out`.
    pub fn begin(config: Arc<ClientConfig>, name: ServerName<'static>, out: &mut Vec<u8>) -> Result<Self, TlsError> {
        let connection = UnbufferedClientConnection::new(config, name)?;
        let mut session = Self { connection, kept: Vec::new(), stage: Stage::Handshake };
        session.receive(&[], &mut Vec::new(), &mut Vec::new(), out)?;
        Ok(session)
    }

    /// Whether the handshake is over and the session stands.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }

    /// Whether the handshake is under way.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        self.stage == Stage::Handshake
    }

    /// Whether the server said that nothing more follows.
    #[must_use]
    pub fn is_ended_by_server(&self) -> bool {
        self.stage == Stage::EndedByServer
    }

    /// What the handshake agreed on, once it is over.
    #[must_use]
    pub fn agreed(&self) -> Agreed {
        let connection = &self.connection;
        let version = connection.protocol_version();
        let suite = connection.negotiated_cipher_suite().map(|suite| suite.suite());
        let group = connection.negotiated_key_exchange_group().map(|group| group.name());
        let kind = connection.handshake_kind();
        Agreed {
            resumed: kind == Some(HandshakeKind::Resumed),
            retried: kind == Some(HandshakeKind::FullWithHelloRetryRequest),
            text: [
                version.map_or_else(|| "?".to_owned(), |version| format!("{version:?}")),
                suite.map_or_else(|| "?".to_owned(), |suite| format!("{suite:?}")),
                group.map_or_else(|| "no key exchange".to_owned(), |group| format!("{group:?}")),
            ]
            .join(" "),
        }
    }

    /// Keeps bytes for later: the next [`Session::receive`] looks at them first.
    pub fn keep(&mut self, bytes: &[u8]) -> Result<(), TlsError> {
        if self.kept.len() + bytes.len() > KEPT_BYTES_MAX {
            self.stage = Stage::Over;
            return Err(TlsError::TooLong);
        }
        self.kept.extend_from_slice(bytes);
        Ok(())
    }

    /// Takes the server's bytes. Plaintext is appended to `plain`, what must be sent to `out`, an alert after an error too;
    /// `scratch` is room that sessions share.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        scratch: &mut Vec<u8>,
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<(), TlsError> {
        if !matches!(self.stage, Stage::Handshake | Stage::Open) {
            return Ok(());
        }
        scratch.clear();
        scratch.append(&mut std::mem::take(&mut self.kept));
        scratch.extend_from_slice(bytes);
        let taken = self.process(scratch, plain, out).inspect_err(|_| self.stage = Stage::Over)?;
        if matches!(self.stage, Stage::Handshake | Stage::Open) && taken < scratch.len() {
            // rustls has decrypted in place what belongs to a handshake message that is not whole: these bytes must be kept as they
            // are now.
            self.keep(&scratch[taken..])?;
            self.kept.shrink_to_fit();
        }
        Ok(())
    }

    /// How many bytes are done with.
    fn process(&mut self, input: &mut [u8], plain: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<usize, TlsError> {
        let (mut taken, mut is_ended) = (0, false);
        loop {
            let UnbufferedStatus { mut discard, state } = self.connection.process_tls_records(&mut input[taken..]);
            let mut waits = false;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        discard += record.discard;
                        plain.extend_from_slice(record.payload);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(encode)) => append_handshake(encode, out)?,
                Ok(ConnectionState::TransmitTlsData(transmit)) => transmit.done(),
                Ok(ConnectionState::PeerClosed) => is_ended = true,
                // Traffic may be written, or more input is needed: both end a turn.
                Ok(_) => waits = true,
                Err(error) => {
                    taken += discard;
                    self.append_alert(&mut input[taken..], out);
                    return Err(error.into());
                }
            }
            taken += discard;
            if waits || is_ended {
                break;
            }
        }
        if self.stage == Stage::Handshake && !self.connection.is_handshaking() {
            self.stage = Stage::Open;
        }
        match (is_ended, self.stage) {
            (true, Stage::Open) => self.stage = Stage::EndedByServer,
            (true, _) => return Err(TlsError::EndedInHandshake),
            (false, _) => {}
        }
        Ok(taken)
    }

    /// The alert that says why, if rustls has one. It is handed out before any input is looked at.
    fn append_alert(&mut self, input: &mut [u8], out: &mut Vec<u8>) {
        if let Ok(ConnectionState::EncodeTlsData(encode)) = self.connection.process_tls_records(input).state {
            // The connection ends anyway: an alert that can't be told is not told.
            let _ = append_handshake(encode, out);
        }
    }

    /// Appends records with these bytes.
    pub fn write(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), TlsError> {
        let records = plain.len().div_ceil(RECORD_PLAIN_BYTES);
        let room_bytes = plain.len() + (records + 1) * RECORD_OVERHEAD_BYTES;
        self.with_traffic(out, room_bytes, |traffic, room| traffic.encrypt(plain, room))
    }

    /// Appends the notice that nothing more follows (RFC 8446 §6.1), if there is a session to end.
    pub fn close(&mut self, out: &mut Vec<u8>) {
        if matches!(self.stage, Stage::Open | Stage::EndedByServer) {
            // The connection ends anyway: what can't be told is not told.
            let _ = self.with_traffic(out, RECORD_OVERHEAD_BYTES, |traffic, room| traffic.queue_close_notify(room));
        }
        self.stage = Stage::Over;
    }

    fn with_traffic(
        &mut self,
        out: &mut Vec<u8>,
        room_bytes: usize,
        mut append: impl FnMut(&mut WriteTraffic<'_, ClientConnectionData>, &mut [u8]) -> Result<usize, EncryptError>,
    ) -> Result<(), TlsError> {
        if !matches!(self.stage, Stage::Open | Stage::EndedByServer) {
            return Err(TlsError::CannotSend);
        }
        loop {
            let UnbufferedStatus { discard, state } = self.connection.process_tls_records(&mut self.kept);
            let is_done = match state? {
                ConnectionState::EncodeTlsData(encode) => append_handshake(encode, out).map(|()| false)?,
                ConnectionState::TransmitTlsData(transmit) => {
                    transmit.done();
                    false
                }
                ConnectionState::WriteTraffic(mut traffic) => {
                    let start = out.len();
                    out.resize(start + room_bytes, 0);
                    let mut written = append(&mut traffic, &mut out[start..]);
                    if let Err(EncryptError::InsufficientSize(size)) = &written {
                        // An answer to a KeyUpdate, or a new key of ours, goes first.
                        out.resize(start + size.required_size, 0);
                        written = append(&mut traffic, &mut out[start..]);
                    }
                    out.truncate(start + written.as_ref().unwrap_or(&0));
                    written.map(|_| true).map_err(|_| TlsError::CannotSend)?
                }
                _ => return Err(TlsError::CannotSend),
            };
            self.kept.drain(..discard);
            if is_done {
                return Ok(());
            }
        }
    }
}

fn append_handshake(mut encode: EncodeTlsData<'_, ClientConnectionData>, out: &mut Vec<u8>) -> Result<(), TlsError> {
    let start = out.len();
    // Asked with no room, it tells how much it needs.
    if let Err(EncodeError::InsufficientSize(size)) = encode.encode(&mut []) {
        out.resize(start + size.required_size, 0);
        let written = encode.encode(&mut out[start..]).map_err(|_| TlsError::CannotSend)?;
        out.truncate(start + written);
    }
    Ok(())
}
