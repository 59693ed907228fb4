//! What a seed says: conversations, messages and titles that tell by themselves what they must hold, so that the
//! judge needs no copy of them and a torn one is told from a whole one.
//!
//! A message's id names its store, round, number and conversation; its sender and text follow from the id and the seed.

use antiphon_simulator::dice::Dice;
use antiphon_wire::{
    frame::Content,
    ids::{ClientMessageId, ConversationId, UserId},
};

/// Conversations of a store at most: enough that flushes hold many keys, few enough that each gets long.
pub(crate) const CONVERSATIONS_MAX: u16 = 24;

const SENDERS: usize = 3;

/// Every so-manieth round has long messages.
const LONG_ROUNDS: u32 = 4;

/// All that follows from a seed and the number of a store.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names {
    pub(crate) seed: u64,
    pub(crate) store: u32,
}

/// What an id says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) round: u32,
    pub(crate) number: u32,
    pub(crate) conversation: u16,
}

/// The member who makes conversations and reads, and sends nothing: only marks move its pointer.
pub(crate) fn reader() -> UserId {
    user("reader")
}

/// All others.
pub(crate) fn senders() -> Vec<UserId> {
    (0..SENDERS).map(|index| user(&format!("sender-{index}"))).collect()
}

fn user(name: &str) -> UserId {
    UserId::new(name).expect("a short name is one")
}

impl Names {
    /// The key under which a conversation is made.
    pub(crate) fn key(&self, conversation: u16) -> ClientMessageId {
        self.id(Place { round: u32::MAX, number: u32::MAX, conversation })
    }

    pub(crate) fn conversation(&self, conversation: u16) -> ConversationId {
        ConversationId::group(&reader(), self.key(conversation))
    }

    pub(crate) fn id(&self, place: Place) -> ClientMessageId {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&self.store.to_le_bytes());
        bytes[4..8].copy_from_slice(&place.round.to_le_bytes());
        bytes[8..12].copy_from_slice(&place.number.to_le_bytes());
        bytes[12..14].copy_from_slice(&place.conversation.to_le_bytes());
        ClientMessageId(bytes)
    }

    /// What an id of this store says; `None` for any other.
    pub(crate) fn place(&self, id: ClientMessageId) -> Option<Place> {
        let number = |at: usize| u32::from_le_bytes([id.0[at], id.0[at + 1], id.0[at + 2], id.0[at + 3]]);
        let conversation = u16::from_le_bytes([id.0[12], id.0[13]]);
        let place = Place { round: number(4), number: number(8), conversation };
        (self.id(place) == id && number(0) == self.store && conversation < CONVERSATIONS_MAX).then_some(place)
    }

    /// Who sends the message of an id, and what.
    pub(crate) fn message(&self, id: ClientMessageId) -> (UserId, Content) {
        let dice = self.dice(id, "message");
        let sender = senders().swap_remove(dice.index(SENDERS));
        // Mostly short, as people write; in some rounds long, so that log files go round.
        let is_long = self.place(id).is_some_and(|place| place.round.is_multiple_of(LONG_ROUNDS));
        let length = match dice.below(100) {
            _ if is_long => dice.between(2_000, 16_000),
            0 => dice.between(4_000, 16_000),
            1..=9 => dice.between(400, 2_000),
            _ => dice.between(20, 300),
        };
        (sender, Content::text(&letters(&dice, length as usize)))
    }

    /// A title with its own number in it.
    pub(crate) fn title(&self, place: Place) -> String {
        let dice = self.dice(self.id(place), "title");
        let Place { round, number, conversation } = place;
        format!("title {round} {number} {conversation} {}", letters(&dice, 60))
    }

    /// Whether a title is one of ours and whole, in its own conversation.
    pub(crate) fn is_title(&self, title: &str, of: u16) -> bool {
        let mut words = title.split(' ').skip(1);
        let mut number = || words.next()?.parse::<u32>().ok();
        let numbers = (number(), number(), number());
        let (Some(round), Some(number), Some(conversation)) = numbers else { return false };
        conversation == u32::from(of) && self.title(Place { round, number, conversation: of }) == title
    }

    fn dice(&self, id: ClientMessageId, purpose: &str) -> Dice {
        let mixed =
            id.0.iter().fold(self.seed, |mixed, byte| (mixed ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
        Dice::new(mixed, purpose)
    }
}

fn letters(dice: &Dice, length: usize) -> String {
    let mut text = String::with_capacity(length + 8);
    while text.len() < length {
        text.extend(dice.number().to_le_bytes().map(|byte| char::from(b'a' + byte % 26)));
    }
    text.truncate(length);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_what_they_hold() {
        let names = Names { seed: 7, store: 3 };
        let place = Place { round: 9, number: 1_000, conversation: 5 };
        let id = names.id(place);
        assert_eq!(names.place(id), Some(place));
        assert_eq!(Names { seed: 7, store: 4 }.place(id), None);
        assert_eq!(names.message(id), names.message(id));
        assert_ne!(names.message(id).1, names.message(names.id(Place { number: 1_001, ..place })).1);
        let title = names.title(place);
        assert!(names.is_title(&title, 5) && !names.is_title(&title, 6) && !names.is_title(&title[..70], 5));
    }
}
