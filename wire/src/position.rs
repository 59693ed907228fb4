//! A session's position: one opaque, constant-size value that stands for all that a client has been given.
//!
//! It holds, for each log lane of one store, how far the server had delivered when it made the position. A client stores the
//! last one it was given and sends it back unread.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::{
    ids::{IdError, LanePosition},
    limits::LANES_MAX,
};

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 10;

/// What a client has been given, by lane. Its encoded form is `version u8 · lanes u8 · store u64 · position u64 × lanes`,
/// little endian, in base64url without padding where text is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The store that the numbers speak of; another store's position resumes nothing.
    pub store: u64,
    /// One position a lane, in lane order; at most [`LANES_MAX`].
    pub lanes: Vec<LanePosition>,
}

impl Position {
    /// The encoded form, at most 138 bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        assert!(self.lanes.len() <= LANES_MAX);
        let mut bytes = Vec::with_capacity(HEADER_BYTES + 8 * self.lanes.len());
        bytes.extend([VERSION, self.lanes.len() as u8]);
        bytes.extend(self.store.to_le_bytes());
        for lane in &self.lanes {
            bytes.extend(lane.0.to_le_bytes());
        }
        bytes
    }

    /// Reads the encoded form; anything else is [`IdError::Position`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, IdError> {
        let (header, lanes) = bytes.split_at_checked(HEADER_BYTES).ok_or(IdError::Position)?;
        let count = header[1] as usize;
        if header[0] != VERSION || count > LANES_MAX || lanes.len() != 8 * count {
            return Err(IdError::Position);
        }
        let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes were cut off"));
        Ok(Self {
            store: number(&header[2..]),
            lanes: lanes.chunks_exact(8).map(|chunk| LanePosition(number(chunk))).collect(),
        })
    }

    /// The encoded form as base64url text.
    #[must_use]
    pub fn to_text(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.to_bytes())
    }

    /// Reads [`Position::to_text`]'s form.
    pub fn from_text(text: &str) -> Result<Self, IdError> {
        Self::from_bytes(&URL_SAFE_NO_PAD.decode(text).map_err(|_| IdError::Position)?)
    }
}
