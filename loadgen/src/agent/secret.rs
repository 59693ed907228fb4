//! What a run and its agents share, and how each proves to the other that it has it: HMAC-SHA256 over fresh numbers of both (a
//! challenge and its response), and a key of this one connection that every later line is signed with.
//!
//! A recorded proof or line is worth nothing on another connection, in the other direction or at another place: both nonces, the
//! direction and a count are under the MAC. Comparisons take the same time whatever differs. Nothing is encrypted.

use std::{io::Read as _, path::Path};

use aws_lc_rs::{
    hmac::{self, HMAC_SHA256, Key, Tag},
    rand,
};

use super::AgentError;

/// Shortest secret: 128 bits, if it is random.
pub const SECRET_BYTES_MIN: usize = 16;

/// Longest file that is read.
const SECRET_BYTES_MAX: u64 = 4_096;

/// Bytes of a nonce and of a MAC.
pub(super) const BYTES: usize = 32;

const RUN: &[u8] = b"antiphon-loadgen 2 run\0";
const AGENT: &[u8] = b"antiphon-loadgen 2 agent\0";
const SESSION: &[u8] = b"antiphon-loadgen 2 session\0";

/// What a run and its agents share.
#[derive(Clone)]
pub struct Secret(Key);

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Secret")
    }
}

impl Secret {
    /// From bytes; white space around them does not count, as editors and shells leave some.
    pub fn new(bytes: &[u8]) -> Result<Self, AgentError> {
        let bytes = bytes.trim_ascii();
        if bytes.len() < SECRET_BYTES_MIN {
            return Err(AgentError::SecretTooShort(bytes.len()));
        }
        Ok(Self(Key::new(HMAC_SHA256, bytes)))
    }

    /// From a file.
    pub fn from_file(file: &Path) -> Result<Self, AgentError> {
        let fail = |error| AgentError::SecretFile(file.display().to_string(), error);
        let mut bytes = Vec::new();
        let opened = std::fs::File::open(file).map_err(fail)?;
        opened.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(fail)?;
        if bytes.len() as u64 > SECRET_BYTES_MAX {
            return Err(AgentError::SecretTooLong(SECRET_BYTES_MAX));
        }
        Self::new(&bytes)
    }
}

/// A number that was never used before.
pub(super) fn nonce() -> Result<[u8; BYTES], AgentError> {
    let mut bytes = [0; BYTES];
    rand::fill(&mut bytes).map_err(|_| AgentError::NoRandomness)?;
    Ok(bytes)
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Run,
    Agent,
}

impl Side {
    pub(super) fn other(self) -> Self {
        match self {
            Self::Run => Self::Agent,
            Self::Agent => Self::Run,
        }
    }

    fn label(self) -> &'static [u8] {
        match self {
            Self::Run => RUN,
            Self::Agent => AGENT,
        }
    }
}

/// A secret, and the nonces of a connection.
pub(super) struct Proofs<'a> {
    pub(super) secret: &'a Secret,
    pub(super) run_nonce: [u8; BYTES],
    pub(super) agent_nonce: [u8; BYTES],
}

impl Proofs<'_> {
    fn message(&self, label: &[u8]) -> Vec<u8> {
        [label, &self.run_nonce, &self.agent_nonce].concat()
    }

    /// What shows that a side knows the secret.
    pub(super) fn of(&self, side: Side) -> Tag {
        hmac::sign(&self.secret.0, &self.message(side.label()))
    }

    /// Whether a side has shown it.
    pub(super) fn verify(&self, side: Side, proof: &[u8]) -> Result<(), AgentError> {
        hmac::verify(&self.secret.0, &self.message(side.label()), proof).map_err(|_| AgentError::WrongSecret)
    }

    /// The key of the connection.
    pub(super) fn session_key(&self) -> Key {
        Key::new(HMAC_SHA256, hmac::sign(&self.secret.0, &self.message(SESSION)).as_ref())
    }
}

/// The MAC of a line: the `number`th of a side, from 0.
pub(super) fn line_tag(key: &Key, side: Side, number: u64, line: &[u8]) -> Tag {
    let mut context = hmac::Context::with_key(key);
    context.update(side.label());
    context.update(&number.to_le_bytes());
    context.update(line);
    context.sign()
}

/// Whether a line's MAC fits.
pub(super) fn verify_line(key: &Key, side: Side, number: u64, line: &[u8], tag: &[u8]) -> Result<(), AgentError> {
    let message = [side.label(), &number.to_le_bytes(), line].concat();
    hmac::verify(key, &message, tag).map_err(|_| AgentError::Forged)
}

/// Lower-case hexadecimal.
pub(super) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Back from it.
pub(super) fn from_hex(text: &[u8]) -> Option<[u8; BYTES]> {
    let mut bytes = [0; BYTES];
    if text.len() != 2 * BYTES {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let digit = |digit: u8| char::from(digit).to_digit(16);
        *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_secret_has_a_least_length_without_its_white_space() {
        assert!(matches!(Secret::new(b"0123456789abcde\n\n\n"), Err(AgentError::SecretTooShort(15))));
        let (clean, edited) = (secret("0123456789abcdef"), secret("0123456789abcdef\n"));
        let proof = |secret: &Secret| {
            let proofs = Proofs { secret, run_nonce: [1; BYTES], agent_nonce: [2; BYTES] };
            to_hex(proofs.of(Side::Run).as_ref())
        };
        assert_eq!(proof(&clean), proof(&edited));
        assert_ne!(proof(&clean), proof(&secret("0123456789abcdeF")));
    }

    #[test]
    fn a_proof_is_of_one_side_and_two_nonces() {
        let secret = secret("0123456789abcdef");
        let proofs = |run, agent| Proofs { secret: &secret, run_nonce: [run; BYTES], agent_nonce: [agent; BYTES] };
        let proof = proofs(1, 2).of(Side::Run);
        assert!(proofs(1, 2).verify(Side::Run, proof.as_ref()).is_ok());
        for (proofs, side) in [(proofs(1, 2), Side::Agent), (proofs(1, 3), Side::Run), (proofs(2, 1), Side::Run)] {
            assert!(matches!(proofs.verify(side, proof.as_ref()), Err(AgentError::WrongSecret)));
        }
        assert!(proofs(1, 2).verify(Side::Run, &[]).is_err());
    }

    #[test]
    fn a_line_is_of_one_side_one_place_and_one_session() {
        let secret = secret("0123456789abcdef");
        let key = |run| Proofs { secret: &secret, run_nonce: [run; BYTES], agent_nonce: [2; BYTES] }.session_key();
        let tag = line_tag(&key(1), Side::Run, 3, b"go");
        assert!(verify_line(&key(1), Side::Run, 3, b"go", tag.as_ref()).is_ok());
        assert!(verify_line(&key(1), Side::Run, 4, b"go", tag.as_ref()).is_err());
        assert!(verify_line(&key(1), Side::Agent, 3, b"go", tag.as_ref()).is_err());
        assert!(verify_line(&key(9), Side::Run, 3, b"go", tag.as_ref()).is_err());
        assert!(verify_line(&key(1), Side::Run, 3, b"no", tag.as_ref()).is_err());
    }

    #[test]
    fn hexadecimal_goes_both_ways_and_nonsense_is_none() {
        let bytes: [u8; BYTES] = std::array::from_fn(|index| (index * 37) as u8);
        assert_eq!(from_hex(to_hex(&bytes).as_bytes()), Some(bytes));
        for wrong in ["", "0g", &"0".repeat(63), &"g".repeat(64), &"é".repeat(32)] {
            assert_eq!(from_hex(wrong.as_bytes()), None);
        }
    }
}
