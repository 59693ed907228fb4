//! UTF-8 that arrives in pieces: fails at the earliest byte that no continuation can repair.
//!
//! "When an endpoint is to interpret a byte stream as UTF-8 but finds that the byte stream is not, in fact, a valid UTF-8
//! stream, that endpoint MUST _Fail the WebSocket Connection_" (RFC 6455 §8.1). How early is left open; early is cheap here,
//! and a peer that sends garbage does not get to fill a buffer with it.

use simdutf8::compat;

/// The bytes are not, and cannot become, UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InvalidUtf8;

/// Checks `bytes[from..]`, where `bytes[..from]` was found valid before, and returns up to where it is valid now. Fewer than
/// four bytes may be left over: the beginning of a character whose rest has not arrived.
pub(super) fn extend_valid(bytes: &[u8], from: usize) -> Result<usize, InvalidUtf8> {
    let unchecked = bytes.get(from..).ok_or(InvalidUtf8)?;
    match compat::from_utf8(unchecked) {
        Ok(_) => Ok(bytes.len()),
        Err(error) if error.error_len().is_none() => Ok(from + error.valid_up_to()),
        Err(_) => Err(InvalidUtf8),
    }
}

#[cfg(test)]
mod tests {
    use super::{InvalidUtf8, extend_valid};

    /// Feeds `bytes` one by one; the count of bytes after which it failed, or `None`.
    fn fails_after(bytes: &[u8]) -> Option<usize> {
        let mut valid = 0;
        for length in 1..=bytes.len() {
            match extend_valid(&bytes[..length], valid) {
                Ok(now) => valid = now,
                Err(InvalidUtf8) => return Some(length),
            }
            assert!(length - valid < 4, "more than a character's beginning is pending");
        }
        None
    }

    #[test]
    fn fails_at_the_earliest_invalid_byte() {
        let table: &[(&[u8], Option<usize>)] = &[
            (b"plain", None),
            ("κόσμε".as_bytes(), None),
            ("\u{10ffff}".as_bytes(), None),
            (&[0xf4, 0x90], Some(2)),             // beyond U+10FFFF, known at the second byte
            (&[0xed, 0xa0], Some(2)),             // a surrogate, known at the second byte
            (&[0xe0, 0x9f], Some(2)),             // overlong
            (&[0xf0, 0x8f], Some(2)),             // overlong
            (&[0xc0], Some(1)),                   // overlong whatever follows
            (&[0xf5], Some(1)),                   // beyond U+10FFFF whatever follows
            (&[0x80], Some(1)),                   // a continuation of nothing
            (&[b'a', 0xce, 0xba, 0xff], Some(4)), // invalid anywhere
            (&[0xce, b'a'], Some(2)),             // cut short by another character
            (&[0xf0, 0x9f, 0x98], None),          // may still become one
        ];
        for (bytes, expected) in table {
            assert_eq!(fails_after(bytes), *expected, "{bytes:02x?}");
        }
    }

    #[test]
    fn a_start_beyond_the_end_is_refused() {
        assert_eq!(extend_valid(b"abc", 4), Err(InvalidUtf8));
        assert_eq!(extend_valid(b"abc", 3), Ok(3));
    }
}
