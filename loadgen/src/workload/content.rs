//! The text of a message: who sent it, which one it is and when it was meant to be sent, so that every recipient can check and
//! measure it without a table; then filler up to the wanted length.

use std::io::Write as _;

use crate::{checker::Identity, clock::Nanoseconds};

/// Longest form of what a text must hold.
pub const TEXT_BYTES_MIN: usize = 52;

/// What a text says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The run.
    pub nonce: u32,
    /// The sender among the thread's connections.
    pub sender: u32,
    /// Which of the thread's messages.
    pub number: u32,
    /// When it was meant to be sent, by the run's clock.
    pub intended_ns: Nanoseconds,
}

impl Stamp {
    /// The message's name for the checker.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity::Message { sender: self.sender, number: self.number }
    }

    /// The text, at least `bytes` long.
    #[must_use]
    pub fn to_text(&self, bytes: usize) -> String {
        let mut text = Vec::with_capacity(bytes.max(TEXT_BYTES_MIN));
        write!(text, "{:08x} {:x} {:x} {:x} ", self.nonce, self.sender, self.number, self.intended_ns)
            .expect("writing to memory does not fail");
        if text.len() < bytes {
            text.resize(bytes, b'~');
        }
        String::from_utf8(text).expect("all of it is ASCII")
    }

    /// Reads a text; `None` if it is not one of ours.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let mut parts = text.splitn(5, ' ');
        let mut number = || u64::from_str_radix(parts.next()?, 16).ok();
        Some(Self {
            nonce: number()?.try_into().ok()?,
            sender: number()?.try_into().ok()?,
            number: number()?.try_into().ok()?,
            intended_ns: number()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_reads_back_at_any_length() {
        let small = Stamp { nonce: 0, sender: 0, number: 0, intended_ns: 0 };
        let large = Stamp { nonce: u32::MAX, sender: u32::MAX, number: u32::MAX, intended_ns: u64::MAX };
        assert!(large.to_text(0).len() <= TEXT_BYTES_MIN);
        for stamp in [small, large] {
            for bytes in [0, 1, 60, 100, 5000] {
                let text = stamp.to_text(bytes);
                assert!(text.len() >= bytes);
                assert_eq!(Stamp::from_text(&text), Some(stamp));
            }
        }
    }

    #[test]
    fn other_texts_are_not_ours() {
        for text in ["", "hello", "1 2 3", "1 2 x 4 ", "fffffffff 1 1 1 "] {
            assert_eq!(Stamp::from_text(text), None, "{text}");
        }
    }
}
