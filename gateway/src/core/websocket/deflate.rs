//! The bytes of permessage-deflate (RFC 7692 §7.2): a message compressed, and inflated again.
//!
//! Invariants:
//! - No context takeover in either direction: nothing outlives a message, so one [`Deflater`] and one [`Inflater`] serve all
//!   connections of a shard, and a connection owns nothing but what was agreed. Both allocate when they are first used.
//! - Inflating stops with the first byte above the limit that it is given: a bomb costs what a message of that size costs.
//! - What a message becomes depends on the message and the agreed window alone, so one compression serves every recipient.

use std::{fmt, rc::Rc};

use zlib_rs::{Deflate, DeflateFlush, Inflate, InflateFlush, Status};

use super::error::ProtocolError;
use super::extension::{Agreed, WINDOW_BITS_MAX, WINDOW_BITS_MIN};
use super::frame::{Role, encode_header, parse_header};

/// Shorter payloads are not worth it: by itself, a message gives deflate too little to refer back to. Below this it saves less
/// than a fifth, at 300 bytes less than the headers of the packet that carries it, and costs 4 µs all the same
/// (docs/benchmarks.md).
pub const DEFLATE_BYTES_MIN: usize = 512;

/// zlib's fastest level. The next one takes two to three times as long to save another fifth (docs/benchmarks.md).
const LEVEL: i32 = 1;

/// What a shard keeps of a buffer that grew for a large message.
const BUFFER_BYTES_KEPT_MAX: usize = 256 * 1024;

/// "Remove 4 octets (that are 0x00 0x00 0xff 0xff) from the tail end" (RFC 7692 §7.2.1), and the receiver appends them again.
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// The same, and an empty last block: zlib then says whether the message ended where a block ends. It would take a message that
/// was cut short without a word.
const TAIL_AND_END: [u8; 6] = [0x00, 0x00, 0xff, 0xff, 0x03, 0x00];

/// Most streams in one message. "An endpoint can use DEFLATE blocks with the BFINAL bit set to 1" (RFC 7692 §7.2.3.4), each of
/// which ends a stream; as many as a message may have fragments, so that empty ones do not keep us busy.
const STREAMS_MAX: u32 = 1_024;

/// Compresses whole messages, each by itself.
///
/// It holds at most a compressor for each of the seven window sizes, of 251 to 380 KB, made when first needed.
pub struct Deflater {
    compressors: [Option<Box<Deflate>>; (WINDOW_BITS_MAX - WINDOW_BITS_MIN) as usize + 1],
    output: Vec<u8>,
    bytes_min: usize,
    level: i32,
}

impl Default for Deflater {
    fn default() -> Self {
        Self::new(DEFLATE_BYTES_MIN)
    }
}

impl Deflater {
    /// Leaves payloads below `bytes_min` as they are.
    #[must_use]
    pub fn new(bytes_min: usize) -> Self {
        Self { compressors: Default::default(), output: Vec::new(), bytes_min, level: LEVEL }
    }

    /// With another of zlib's levels, to measure what it costs.
    #[must_use]
    pub fn with_level(mut self, level: i32) -> Self {
        self.level = level;
        self
    }

    /// The payload, compressed; `None` if it is to be sent as it is: too short, or no shorter afterwards.
    pub fn payload(&mut self, agreed: Agreed, payload: &[u8]) -> Option<&[u8]> {
        if payload.len() < self.bytes_min {
            return None;
        }
        let index = usize::from(agreed.window_bits() - WINDOW_BITS_MIN);
        let place = self.compressors.get_mut(index)?;
        let compressor = place.get_or_insert_with(|| Box::new(Deflate::new(self.level, false, agreed.window_bits())));
        compressor.reset();
        // Room for the worst that DEFLATE makes of noise, nine bits a byte, and to spare: zlib-rs does not reset a stream
        // cleanly that stopped for want of room (0.6.8 panics on a later message).
        let room = payload.len() + payload.len() / 4 + 64;
        keep_little(&mut self.output, room);
        let output = self.output.get_mut(..room)?;
        let result = compressor.compress(payload, output, DeflateFlush::SyncFlush);
        let length = usize::try_from(compressor.total_out()).unwrap_or(room);
        if result.is_err() || length >= room || compressor.total_in() != payload.len() as u64 {
            // So such a stream would be used no more.
            *place = None;
            return None;
        }
        output.get(..length)?.strip_suffix(&TAIL).filter(|compressed| compressed.len() < payload.len())
    }

    /// A whole message's unmasked frame, compressed; `None` if it is to be sent as it is.
    pub fn frame(&mut self, agreed: Agreed, frame: &[u8]) -> Option<Rc<[u8]>> {
        let (header, header_bytes) = parse_header(frame, Role::Client, false).ok().flatten()?;
        let payload = self.payload(agreed, frame.get(header_bytes..)?)?;
        let header = encode_header(header.opcode, header.fin, true, payload.len() as u64, None);
        Some([header.as_slice(), payload].concat().into())
    }
}

impl fmt::Debug for Deflater {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let made = self.compressors.iter().flatten().count();
        write!(formatter, "Deflater({made} compressors, {} bytes)", self.output.capacity())
    }
}

/// Inflates whole messages, each by itself. 48 KB beside its output, made when first needed.
#[derive(Default)]
pub struct Inflater {
    state: Option<Box<Inflate>>,
    output: Vec<u8>,
    length: usize,
}

impl Inflater {
    /// Inflates a message's payload, taken together from all its fragments; [`Self::output`] has the result.
    pub(super) fn inflate(&mut self, payload: &[u8], bytes_max: usize) -> Result<(), ProtocolError> {
        self.length = 0;
        // Chat shrinks to a third; a buffer that was too short is doubled.
        keep_little(&mut self.output, payload.len().saturating_mul(4).clamp(1_024, bytes_max.max(1_024)));
        let state = self.state.get_or_insert_with(|| Box::new(Inflate::new(false, WINDOW_BITS_MAX)));
        state.reset(false);
        let mut streams = 1;
        let mut is_ended = false;
        for mut input in [payload, &TAIL_AND_END] {
            loop {
                if is_ended && !input.is_empty() {
                    streams += 1;
                    if streams > STREAMS_MAX {
                        return Err(ProtocolError::DeflateInvalid);
                    }
                    state.reset(false);
                }
                if self.length == self.output.len() {
                    self.output.resize(self.output.len() * 2, 0);
                }
                // One byte more than allowed shows that there is more.
                let end = self.output.len().min(bytes_max.saturating_add(1));
                let room = self.output.get_mut(self.length..end).unwrap_or_default();
                let (consumed, produced) = (state.total_in(), state.total_out());
                let status =
                    state.decompress(input, room, InflateFlush::NoFlush).map_err(|_| ProtocolError::DeflateInvalid)?;
                // Both are at most the lengths of the slices just given.
                let consumed = (state.total_in() - consumed) as usize;
                let produced = (state.total_out() - produced) as usize;
                let is_full = produced == room.len();
                self.length += produced;
                if self.length > bytes_max {
                    return Err(ProtocolError::MessageTooLong);
                }
                input = input.get(consumed..).unwrap_or_default();
                is_ended = status == Status::StreamEnd;
                if input.is_empty() && (is_ended || !is_full) {
                    break;
                }
                if consumed == 0 && produced == 0 {
                    return Err(ProtocolError::DeflateInvalid);
                }
            }
        }
        if is_ended { Ok(()) } else { Err(ProtocolError::DeflateInvalid) }
    }

    /// The last message that was inflated.
    pub(super) fn output(&self) -> &[u8] {
        self.output.get(..self.length).unwrap_or_default()
    }
}

impl fmt::Debug for Inflater {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Inflater({} bytes)", self.output.capacity())
    }
}

/// Makes `buffer` at least `bytes` long, and gives back what a larger message left behind. It keeps its length, so that
/// its bytes are set to zero once and not for every message.
fn keep_little(buffer: &mut Vec<u8>, bytes: usize) {
    if buffer.len() > BUFFER_BYTES_KEPT_MAX && bytes <= BUFFER_BYTES_KEPT_MAX {
        *buffer = Vec::new();
    }
    if buffer.len() < bytes {
        buffer.resize(bytes, 0);
    }
}

#[cfg(test)]
mod tests;
