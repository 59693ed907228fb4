//! Messages whose number tells everything about them: where to, from whom, what, under which name. So what a store
//! gives back is checked without keeping what it was given, and sending one costs the sender a copy of a text, as it
//! costs a node. Pure.
//!
//! Texts are those of [`antiphon_bench_store::data`], a few thousand of them in turn by chance: a block of a
//! conversation holds hardly any twice.

use std::sync::OnceLock;

use antiphon_bench_store::Data;
use antiphon_engine::door::Command;
use antiphon_loadgen::random::mix;
use antiphon_wire::{
    frame::{ArchivedEntry, Content, view_content},
    ids::{ClientMessageId, TimestampMs},
};
use anyhow::ensure;

use crate::lane::People;

/// Different texts: 80 of them fill a block, so that one block in a hundred has one twice.
const TEXTS: usize = if cfg!(debug_assertions) { 512 } else { 16_384 };

/// Numbers of one stream. A store that was killed goes on with another, so that what was in flight is told from what
/// was not sent.
pub(crate) const STREAM: u64 = 1 << 40;

/// Bits of a name that say the number.
const NUMBER_BITS: u32 = 62;

/// All messages there may be.
#[derive(Debug)]
pub(crate) struct Messages {
    seed: u64,
    conversations: u32,
    text_bytes: usize,
    texts: OnceLock<Vec<String>>,
    /// The text of one number, for who is to send that one before the texts are made.
    first: Option<(u64, String)>,
}

impl Messages {
    pub(crate) fn new(seed: u64, conversations: u32, text_bytes: usize) -> Self {
        let messages = Self { seed, conversations, text_bytes, texts: OnceLock::new(), first: None };
        messages.texts();
        messages
    }

    /// The same, without its texts as long as none but this one is asked for: making them takes longer than some measurements.
    pub(crate) fn with_first(seed: u64, conversations: u32, text_bytes: usize, first: (u64, String)) -> Self {
        Self { seed, conversations, text_bytes, texts: OnceLock::new(), first: Some(first) }
    }

    fn texts(&self) -> &[String] {
        self.texts.get_or_init(|| {
            let Self { seed, conversations, text_bytes, .. } = *self;
            let data = Data { seed, conversations, text_bytes };
            data.stream().take(TEXTS).map(|message| message.text).collect()
        })
    }

    pub(crate) fn conversations(&self) -> u32 {
        self.conversations
    }

    fn drawn(&self, number: u64, what: u64) -> u64 {
        mix(mix(self.seed ^ what).wrapping_add(number))
    }

    /// Where to.
    pub(crate) fn conversation(&self, number: u64) -> u32 {
        (self.drawn(number, 1) % u64::from(self.conversations)) as u32
    }

    /// Which of the two members.
    pub(crate) fn sender(&self, number: u64) -> usize {
        (self.drawn(number, 2) % 2) as usize
    }

    /// What.
    pub(crate) fn text(&self, number: u64) -> &str {
        match &self.first {
            Some((of, text)) if *of == number => text,
            _ => &self.texts()[(self.drawn(number, 3) % TEXTS as u64) as usize],
        }
    }

    /// The name that a client gives it at this time: it says the time, the number, and something drawn.
    fn id(&self, number: u64, made: TimestampMs) -> ClientMessageId {
        ClientMessageId::timed(made, u128::from(self.drawn(number, 4)) << NUMBER_BITS | u128::from(number))
    }

    /// The command that sends it at this time.
    pub(crate) fn send(&self, number: u64, made: TimestampMs, people: &mut People) -> Command {
        let target = people.of(self.conversation(number));
        let [from, to] = target.members;
        Command::Send {
            user: if self.sender(number) == 0 { from } else { to },
            conversation: target.conversation,
            client_message_id: self.id(number, made),
            body: Content::text(self.text(number)).0,
        }
    }

    /// The number of a message that came back from a conversation.
    ///
    /// # Errors
    /// It is not what was sent there.
    pub(crate) fn number_of(&self, conversation: u32, entry: &ArchivedEntry) -> anyhow::Result<u64> {
        let id = ClientMessageId(entry.client_message_id.0);
        let number = (u128::from_be_bytes(id.0) & ((1 << NUMBER_BITS) - 1)) as u64;
        let is_named = id.made().is_some_and(|made| self.id(number, made) == id);
        ensure!(is_named, "a message of conversation {conversation} has a name that none was given");
        ensure!(self.conversation(number) == conversation, "message {number} is in conversation {conversation}");
        let text = view_content(&entry.body)?.text;
        ensure!(text == Some(self.text(number)), "message {number} does not say what it said");
        Ok(number)
    }
}

#[cfg(test)]
mod tests {
    use antiphon_wire::{
        frame::{Entry, EntryKind, view_entry},
        ids::{ConversationId, Epoch, Ordinal, Sequence, UserId},
    };

    use super::*;

    #[test]
    fn a_message_that_comes_back_is_known_and_any_other_is_not() {
        let messages = Messages::new(3, 10, 40);
        let number = STREAM + 77;
        let conversation = messages.conversation(number);
        let entry = |id: ClientMessageId, text: &str| {
            let (one, other) = (UserId::new("a").unwrap(), UserId::new("b").unwrap());
            let entry = Entry {
                conversation: ConversationId::direct(&one, &other),
                epoch: Epoch(1),
                sequence: Sequence(2),
                ordinal: Ordinal(1),
                time_ms: TimestampMs(5),
                kind: EntryKind::Message,
                client_message_id: id,
                sender: one,
                body: Content::text(text).0,
            };
            entry.to_archive()
        };
        let check =
            |conversation, id, text: &str| messages.number_of(conversation, view_entry(&entry(id, text)).unwrap()).ok();
        let (id, text) = (messages.id(number, TimestampMs(1_790_000_000_000)), messages.text(number).to_owned());
        assert_eq!(check(conversation, id, &text), Some(number));
        assert_eq!(check(conversation ^ 1, id, &text), None, "another conversation");
        assert_eq!(check(conversation, ClientMessageId([7; 16]), &text), None, "another name");
        assert_eq!(check(conversation, id, "something else"), None, "another text");
    }

    #[test]
    fn a_first_text_is_sent_before_the_others_are_made() {
        let (all, number) = (Messages::new(3, 10, 40), STREAM + 5);
        let messages = Messages::with_first(3, 10, 40, (number, all.text(number).to_owned()));
        assert_eq!(messages.text(number), all.text(number));
        assert_eq!(messages.texts.get(), None);
        assert_eq!(messages.text(number + 1), all.text(number + 1));
    }

    #[test]
    fn conversations_and_senders_take_turns_by_chance() {
        let messages = Messages::new(1, 10, 40);
        let mut counts = [[0; 2]; 10];
        for number in 0..10_000 {
            counts[messages.conversation(number) as usize][messages.sender(number)] += 1;
        }
        assert!(counts.iter().flatten().all(|count| (400..600).contains(count)), "{counts:?}");
    }
}
