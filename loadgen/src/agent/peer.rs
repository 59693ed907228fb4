//! One connection between a run and an agent: lines of JSON, each with a limit of length and time, signed once both sides have
//! proved that they know the secret.
//!
//! ```text
//! run → agent    {"version": 2, "nonce": "…"}
//! agent → run    {"version": 2, "nonce": "…", "needs_secret": true}     or  {"failed": "…"}
//! run → agent    {"proof": "…"}                                         only if a secret is needed
//! agent → run    {"proof": "…"}                                         or  {"failed": "…"}
//! then, each way MAC (64 hexadecimal digits), a space, JSON
//! ```
//!
//! Without a secret, which only an agent on loopback does without, the proofs and the MACs are left out. Before the run has proved
//! itself an agent reads [`HELLO_BYTES_MAX`] a line, two lines, for [`Peer::HELLO_WAIT`] in all.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use aws_lc_rs::hmac::Key;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use socket2::{SockRef, TcpKeepalive};

use super::{
    AgentError,
    secret::{BYTES, Proofs, Secret, Side, from_hex, line_tag, nonce, to_hex, verify_line},
};

/// Of the protocol. Version 1 had neither proofs nor this greeting.
const VERSION: u32 = 2;

/// Longest line before the proofs: the longest that is sent has 130.
const HELLO_BYTES_MAX: usize = 512;

/// A peer whose machine is gone is noticed after two minutes or so, however long a phase of the run takes.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Whoever does not take what is sent for so long is gone.
const WRITE_WAIT: Duration = Duration::from_secs(60);

#[derive(Debug, Serialize, Deserialize)]
struct Hello {
    version: u32,
    nonce: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Challenge {
    version: u32,
    nonce: String,
    needs_secret: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Proof {
    proof: String,
}

/// What an agent says instead of anything else; version 1 understands it too.
#[derive(Debug, Serialize, Deserialize)]
struct Failed {
    failed: String,
}

/// The other side.
pub struct Peer {
    stream: TcpStream,
    input: Vec<u8>,
    side: Side,
    key: Option<Key>,
    sent: u64,
    received: u64,
}

/// How long to wait for a line.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wait {
    /// As long as the connection stands.
    Open,
    /// Until then.
    Until(Instant),
}

impl Peer {
    /// How long the greeting may take.
    pub const HELLO_WAIT: Duration = Duration::from_secs(5);

    fn new(stream: TcpStream, side: Side) -> Result<Self, AgentError> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(WRITE_WAIT))?;
        SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
        Ok(Self { stream, input: Vec::new(), side, key: None, sent: 0, received: 0 })
    }

    /// The run's side of the greeting.
    pub fn lead(stream: TcpStream, secret: Option<&Secret>, wait: Duration) -> Result<Self, AgentError> {
        let mut peer = Self::new(stream, Side::Run)?;
        let until = Wait::Until(Instant::now() + wait);
        let run_nonce = nonce()?;
        peer.send(&Hello { version: VERSION, nonce: to_hex(&run_nonce) })?;
        let challenge: Challenge = peer.answer(until)?;
        check_version(challenge.version)?;
        let agent_nonce = from_hex(challenge.nonce.as_bytes()).ok_or(AgentError::NotUnderstood)?;
        let Some(secret) = secret else {
            return if challenge.needs_secret { Err(AgentError::NeedsSecret) } else { Ok(peer) };
        };
        if !challenge.needs_secret {
            // Whoever needs none may be anybody.
            return Err(AgentError::KnowsNoSecret);
        }
        let proofs = Proofs { secret, run_nonce, agent_nonce };
        peer.send(&Proof { proof: to_hex(proofs.of(Side::Run).as_ref()) })?;
        let proof: Proof = peer.answer(until)?;
        peer.check_proof(&proofs, &proof)?;
        peer.key = Some(proofs.session_key());
        Ok(peer)
    }

    /// The agent's side of the greeting.
    pub fn follow(stream: TcpStream, secret: Option<&Secret>, wait: Duration) -> Result<Self, AgentError> {
        let mut peer = Self::new(stream, Side::Agent)?;
        match peer.greet(secret, wait) {
            Ok(()) => Ok(peer),
            Err(error) => {
                // It may be gone, and then it needs no reason.
                let _ = peer.send(&Failed { failed: error.to_string() });
                Err(error)
            }
        }
    }

    fn greet(&mut self, secret: Option<&Secret>, wait: Duration) -> Result<(), AgentError> {
        let until = Wait::Until(Instant::now() + wait);
        let hello: Hello = parse(&self.line(HELLO_BYTES_MAX, until)?)?;
        check_version(hello.version)?;
        let run_nonce = from_hex(hello.nonce.as_bytes()).ok_or(AgentError::NotUnderstood)?;
        let agent_nonce = nonce()?;
        self.send(&Challenge { version: VERSION, nonce: to_hex(&agent_nonce), needs_secret: secret.is_some() })?;
        let Some(secret) = secret else { return Ok(()) };
        let proofs = Proofs { secret, run_nonce, agent_nonce };
        let proof: Proof = parse(&self.line(HELLO_BYTES_MAX, until)?)?;
        // Only whoever knows the secret is shown a proof: it could be guessed at from one.
        let own = Proof { proof: to_hex(proofs.of(Side::Agent).as_ref()) };
        self.check_proof(&proofs, &proof)?;
        self.send(&own)?;
        self.key = Some(proofs.session_key());
        Ok(())
    }

    fn check_proof(&self, proofs: &Proofs<'_>, proof: &Proof) -> Result<(), AgentError> {
        let tag = from_hex(proof.proof.as_bytes()).ok_or(AgentError::NotUnderstood)?;
        proofs.verify(self.side.other(), &tag)
    }

    /// An agent's answer within the greeting.
    fn answer<T: DeserializeOwned>(&mut self, until: Wait) -> Result<T, AgentError> {
        let line = self.line(HELLO_BYTES_MAX, until)?;
        if let Ok(Failed { failed }) = serde_json::from_slice(&line) {
            return Err(AgentError::Refused(failed));
        }
        parse(&line)
    }

    /// Sends a message.
    pub(super) fn send(&mut self, message: &impl Serialize) -> Result<(), AgentError> {
        let json = serde_json::to_vec(message).map_err(|_| AgentError::NotUnderstood)?;
        let mut line = Vec::with_capacity(json.len() + 2 * BYTES + 2);
        if let Some(key) = &self.key {
            line.extend(to_hex(line_tag(key, self.side, self.sent, &json).as_ref()).as_bytes());
            line.push(b' ');
            self.sent += 1;
        }
        line.extend(json);
        line.push(b'\n');
        Ok(self.stream.write_all(&line)?)
    }

    /// Waits for a message.
    pub(super) fn receive<T: DeserializeOwned>(&mut self, bytes_max: usize, wait: Wait) -> Result<T, AgentError> {
        let line = self.line(bytes_max, wait)?;
        let Some(key) = &self.key else { return parse(&line) };
        let (tag, json) = line.split_at_checked(2 * BYTES).ok_or(AgentError::Forged)?;
        let json = json.strip_prefix(b" ").ok_or(AgentError::Forged)?;
        let tag = from_hex(tag).ok_or(AgentError::Forged)?;
        verify_line(key, self.side.other(), self.received, json, &tag)?;
        self.received += 1;
        parse(json)
    }

    /// The next line, without its end.
    fn line(&mut self, bytes_max: usize, wait: Wait) -> Result<Vec<u8>, AgentError> {
        let mut looked = 0;
        let mut buffer = [0; 16 * 1024];
        loop {
            if let Some(found) = self.input[looked..].iter().position(|&byte| byte == b'\n') {
                let rest = self.input.split_off(looked + found + 1);
                let mut line = std::mem::replace(&mut self.input, rest);
                line.pop();
                return if line.len() > bytes_max { Err(AgentError::TooLong(bytes_max)) } else { Ok(line) };
            }
            looked = self.input.len();
            if looked > bytes_max {
                return Err(AgentError::TooLong(bytes_max));
            }
            let timeout = match wait {
                Wait::Open => None,
                Wait::Until(end) => {
                    let left = end.saturating_duration_since(Instant::now());
                    Some(left).filter(|left| !left.is_zero()).ok_or(AgentError::Silent).map(Some)?
                }
            };
            self.stream.set_read_timeout(timeout)?;
            // No further than the limit: whoever sends more is not read.
            let room = buffer.len().min(bytes_max + 1 - looked);
            match self.stream.read(&mut buffer[..room]) {
                Ok(0) => return Err(AgentError::Ended),
                Ok(length) => self.input.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                    return Err(AgentError::Silent);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn check_version(version: u32) -> Result<(), AgentError> {
    if version == VERSION { Ok(()) } else { Err(AgentError::Version(version)) }
}

fn parse<T: DeserializeOwned>(line: &[u8]) -> Result<T, AgentError> {
    serde_json::from_slice(line).map_err(|_| AgentError::NotUnderstood)
}
