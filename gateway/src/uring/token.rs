//! What an operation is, packed into the 64 bits of `user_data` that its completions carry.
//!
//! ```text
//! 63      56 55               32 31                0
//! ┌─────────┬───────────────────┬───────────────────┐
//! │  kind   │ generation, low 24│       index       │
//! └─────────┴───────────────────┴───────────────────┘
//! ```
//! The index is a slot of the connection table or an entry of a slab; the generation tells a late completion of what was there
//! before from one of what is there now.

/// What was submitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// An accept; the index means nothing.
    Accept = 1,
    /// A receive on a connection's slot.
    Receive = 2,
    /// A send on a connection's slot.
    Send = 3,
    /// The close of a connection's slot.
    Close = 4,
    /// The cancellation of a slot's receive.
    CancelReceive = 5,
    /// The cancellation of a slot's send.
    CancelSend = 6,
    /// The cancellation of something without a slot: accept, wake-up poll.
    CancelOther = 7,
    /// The poll on the eventfd through which other threads wake the shard.
    Wake = 8,
    /// A file operation; the index is an entry of its slab.
    File = 9,
    /// A poll on a quiet connection's slot.
    Poll = 10,
    /// The cancellation of a slot's poll.
    CancelPoll = 11,
    /// One receive, without waiting, on a slot whose poll said that there is something.
    Read = 12,
    /// The timeout of a sleep.
    Alarm = 13,
}

/// Kind, index and generation of a submitted operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) index: u32,
    generation: u32,
}

/// How much of a generation a token holds. An operation of one generation has always completed before the next begins, so that
/// even one bit would do; 24 make a mistake visible.
const GENERATION_MASK: u32 = 0x00FF_FFFF;

impl Token {
    pub(super) const fn new(kind: Kind, index: u32, generation: u32) -> Self {
        Self { kind, index, generation: generation & GENERATION_MASK }
    }

    /// Whether the operation belongs to this generation of its slot.
    pub(super) const fn is_of(self, generation: u32) -> bool {
        self.generation == generation & GENERATION_MASK
    }

    pub(super) const fn pack(self) -> u64 {
        (self.kind as u64) << 56 | (self.generation as u64) << 32 | self.index as u64
    }

    /// `None` if no operation of ours is named so.
    pub(super) fn unpack(user_data: u64) -> Option<Self> {
        let kind = match (user_data >> 56) as u8 {
            1 => Kind::Accept,
            2 => Kind::Receive,
            3 => Kind::Send,
            4 => Kind::Close,
            5 => Kind::CancelReceive,
            6 => Kind::CancelSend,
            7 => Kind::CancelOther,
            8 => Kind::Wake,
            9 => Kind::File,
            10 => Kind::Poll,
            11 => Kind::CancelPoll,
            12 => Kind::Read,
            13 => Kind::Alarm,
            _ => return None,
        };
        Some(Self { kind, index: user_data as u32, generation: (user_data >> 32) as u32 & GENERATION_MASK })
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, Token};

    #[test]
    fn every_kind_survives_packing() {
        for kind in [
            Kind::Accept,
            Kind::Receive,
            Kind::Send,
            Kind::Close,
            Kind::CancelReceive,
            Kind::CancelSend,
            Kind::CancelOther,
            Kind::Wake,
            Kind::File,
            Kind::Poll,
            Kind::CancelPoll,
            Kind::Read,
        ] {
            for (index, generation) in [(0, 0), (u32::MAX, u32::MAX), (7, 1 << 24), (1 << 31, 0x00AB_CDEF)] {
                let token = Token::new(kind, index, generation);
                assert_eq!(Token::unpack(token.pack()), Some(token));
                assert!(token.is_of(generation));
                assert!(!token.is_of(generation.wrapping_add(1)));
            }
        }
    }

    #[test]
    fn foreign_user_data_is_no_token() {
        assert_eq!(Token::unpack(0), None);
        assert_eq!(Token::unpack(u64::MAX), None);
    }
}
