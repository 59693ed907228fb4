//! What stands between a connection's WebSocket bytes and its socket: nothing, so far. The one seam for TLS: all bytes of the
//! clients pass through [`Transport::outgoing`] and [`Transport::incoming`], and a scheme of the target names what they do. A TLS
//! session is to live beside the slot here, and its handshake ends where `Handler::connected` is called.

use crate::driver::Links;

/// How bytes travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// As they are: `ws://`.
    Plain,
}

/// Schemes of a target.
const SCHEMES: &[(&str, Transport)] = &[("ws://", Transport::Plain)];

impl Transport {
    /// Takes the scheme off a target; `None` if it is not spoken.
    #[must_use]
    pub fn of(target: &str) -> Option<(Self, &str)> {
        SCHEMES.iter().find_map(|&(scheme, transport)| Some((transport, target.strip_prefix(scheme)?)))
    }

    /// Where to append WebSocket bytes for a slot.
    pub fn outgoing(self, links: &mut Links, slot: u32) -> &mut Vec<u8> {
        match self {
            Self::Plain => links.write(slot),
        }
    }

    /// The WebSocket bytes in what the socket gave.
    #[must_use]
    pub fn incoming(self, bytes: &[u8]) -> &[u8] {
        match self {
            Self::Plain => bytes,
        }
    }
}
