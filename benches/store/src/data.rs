//! The messages that every engine is given: who writes what where, from a seed alone. The same seed gives the same
//! messages in any process, so what an engine gives back is checked without keeping what it was given.
//!
//! Texts are words of small talk, the common ones more often, with the odd number, time and link, cut to one length.
//! 16 KiB of texts of 200 bytes become 2.3 times smaller by zstd's first level, 1.9 times with a name that is all chance
//! beside each. Conversations take turns by chance, all alike, so that the messages of one lie far apart in the order of
//! writing.

use crate::{Ask, Row};

/// Words of chats, common ones first.
const WORDS: &str = "the to you I a and it is that in of for on we not do have this are be can but with so what my just if at your me was \
    all there they will up no ok yes one now out about when like get see go time how then know good need want think make today from or \
    tomorrow thanks here going still back work let our us new has had been too really did after some right maybe please sure more take call \
    day because who them where him her later before over first only other next last home week come already would could should much very \
    looks great morning meeting tonight minutes nice sorry wait try send sent where check again works better problem question answer read \
    anyone someone everything nothing something sounds done start started finish finished look looking found number people idea point \
    office train ticket lunch dinner coffee kids school weekend friday monday photo picture video link file version release branch review \
    build deploy server database message customer invoice contract budget deadline project plan meeting room calendar birthday party \
    present weather rain traffic station airport flight hotel address street garden kitchen doctor appointment medicine football match \
    score ticket film music concert guitar book chapter teacher exam result holiday beach mountain bicycle engine garage insurance";

/// Golden ratio, 64 bits: what SplitMix64 adds at each step.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Which messages there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Data {
    /// Decides everything.
    pub seed: u64,
    /// How many conversations.
    pub conversations: u32,
    /// Bytes of each text.
    pub text_bytes: usize,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its place in the order of writing, from 0.
    pub number: u64,
    /// Where to, from 0.
    pub conversation: u32,
    /// Its place among the conversation's messages, from 1.
    pub ordinal: u64,
    /// Its sender's name for it, a UUID of version 7: it begins with the time, six bytes. An engine with a clock of its own has that there.
    pub id: [u8; 16],
    /// Which of the conversation's two members wrote it: 0 or 1.
    pub sender: u64,
    /// When, in milliseconds since 1970. An engine with a clock of its own uses that.
    pub time_ms: u64,
    /// What.
    pub text: String,
}

impl Data {
    /// A conversation's id for an engine that wants one: a UUID's bytes.
    #[must_use]
    pub fn conversation_id(&self, conversation: u32) -> [u8; 16] {
        let mut random = Random(self.seed ^ 0x0063_6f6e_7665_7273 ^ (u64::from(conversation) << 32));
        wide(&mut random)
    }

    /// All messages, in the order of writing, without end.
    #[must_use]
    pub fn stream(&self) -> Stream {
        Stream { data: self.clone(), next: 0, counts: vec![0; self.conversations as usize] }
    }

    fn random(&self, number: u64) -> Random {
        // Streams that begin next to each other would share their numbers, so each begins at a number that was mixed.
        Random(Random(self.seed.wrapping_add(number.wrapping_mul(STEP))).next())
    }

    fn conversation(&self, number: u64) -> u32 {
        (self.random(number).next() % u64::from(self.conversations)) as u32
    }

    /// A message whose ordinal is known.
    fn message(&self, number: u64, ordinal: u64) -> Message {
        let mut random = self.random(number);
        let conversation = (random.next() % u64::from(self.conversations)) as u32;
        let time_ms = 1_790_000_000_000 + number * 7;
        let id = named_at(time_ms, wide(&mut random));
        let sender = random.next() % 2;
        let text = text(&mut random, self.text_bytes);
        Message { number, conversation, ordinal, id, sender, time_ms, text }
    }
}

/// All messages in turn.
#[derive(Debug, Clone)]
pub struct Stream {
    data: Data,
    next: u64,
    counts: Vec<u64>,
}

impl Iterator for Stream {
    type Item = Message;

    fn next(&mut self) -> Option<Message> {
        let number = self.next;
        self.next += 1;
        let count = &mut self.counts[self.data.conversation(number) as usize];
        *count += 1;
        Some(self.data.message(number, *count))
    }
}

/// Which messages each conversation has.
#[derive(Debug, Clone)]
pub struct Contents {
    data: Data,
    numbers: Vec<Vec<u32>>,
}

impl Contents {
    /// Of the first so many.
    #[must_use]
    pub fn new(data: &Data, messages: u64) -> Self {
        let mut numbers = vec![Vec::new(); data.conversations as usize];
        for number in 0..messages {
            // A comparison never writes four thousand million.
            numbers[data.conversation(number) as usize].push(number as u32);
        }
        Self { data: data.clone(), numbers }
    }

    /// How many messages a conversation has.
    #[must_use]
    pub fn count(&self, conversation: u32) -> u64 {
        self.numbers[conversation as usize].len() as u64
    }

    /// How many conversations there may be.
    #[must_use]
    pub fn conversations(&self) -> u32 {
        self.data.conversations
    }

    /// How many messages there are.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.numbers.iter().map(|numbers| numbers.len() as u64).sum()
    }

    /// Why a page is not the right answer to a question; nothing if it is.
    #[must_use]
    pub fn fault(&self, ask: &Ask, rows: &[Row]) -> Option<String> {
        let end = ask.before.map_or(self.count(ask.conversation), |before| before - 1);
        let begin = end.saturating_sub(u64::from(ask.limit));
        if rows.len() as u64 != end - begin {
            return Some(format!("{ask:?}: {} rows instead of {}", rows.len(), end - begin));
        }
        for (row, ordinal) in rows.iter().zip(begin + 1..) {
            let number = self.numbers[ask.conversation as usize][ordinal as usize - 1];
            let message = self.data.message(number.into(), ordinal);
            if (row.ordinal, &row.id[6..], &row.text) != (ordinal, &message.id[6..], &message.text) {
                return Some(format!("{ask:?}: {row:?} instead of {message:?}"));
            }
        }
        None
    }

    /// Questions for pages of conversations that are drawn by chance, each once as long as there are enough: the
    /// latest, or one that ends anywhere.
    #[must_use]
    pub fn asks(&self, pages: u32, limit: u32, latest: bool) -> Vec<Ask> {
        let mut random = Random(self.data.seed ^ 0x7061_6765);
        let mut order: Vec<u32> =
            (0..self.data.conversations).filter(|&conversation| self.count(conversation) > 0).collect();
        // Fisher and Yates.
        for place in (1..order.len()).rev() {
            order.swap(place, (random.next() % (place as u64 + 1)) as usize);
        }
        let ask = |&conversation: &u32| {
            let before = (!latest).then(|| 2 + random.next() % self.count(conversation));
            Ask { conversation, before, limit }
        };
        order.iter().cycle().take(if order.is_empty() { 0 } else { pages as usize }).map(ask).collect()
    }
}

/// A name that says when it was made.
#[must_use]
pub fn named_at(time_ms: u64, mut name: [u8; 16]) -> [u8; 16] {
    name[..6].copy_from_slice(&time_ms.to_be_bytes()[2..]);
    name[6] = 0x70 | name[6] & 0xf;
    name[8] = 0x80 | name[8] & 0x3f;
    name
}

fn wide(random: &mut Random) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&random.next().to_le_bytes());
    bytes[8..].copy_from_slice(&random.next().to_le_bytes());
    bytes
}

fn text(random: &mut Random, bytes: usize) -> String {
    let mut text = String::with_capacity(bytes + 32);
    while text.len() < bytes {
        match random.next() % 64 {
            0 => text.push_str(&format!("{}", random.next() % 1_000)),
            1 => text.push_str(&format!("{}:{:02}", random.next() % 24, random.next() % 12 * 5)),
            2 if random.next().is_multiple_of(8) => {
                text.push_str(&format!("https://example.org/{:08x}", random.next() as u32))
            }
            _ => text.push_str(random.word()),
        }
        text.push_str(match random.next() % 16 {
            0 => ", ",
            1 => ". ",
            2 if random.next().is_multiple_of(2) => "? ",
            _ => " ",
        });
    }
    // All of it is ASCII.
    text.truncate(bytes);
    text
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    fn word(&mut self) -> &'static str {
        static LIST: std::sync::LazyLock<Vec<&str>> = std::sync::LazyLock::new(|| WORDS.split_whitespace().collect());
        let count = LIST.len() as u64;
        // The cube of an even distribution: the first tenth of the words makes up nearly half of the text.
        let even = |random: &mut Self| random.next() % count;
        let place = even(self) * even(self) / count * even(self) / count;
        LIST[place as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: Data = Data { seed: 7, conversations: 10, text_bytes: 200 };

    #[test]
    fn the_same_seed_gives_the_same_messages() {
        let messages: Vec<Message> = DATA.stream().take(500).collect();
        assert_eq!(messages, DATA.stream().take(500).collect::<Vec<_>>());
        let other = Data { seed: 8, ..DATA };
        assert_ne!(messages[0].text, other.stream().next().unwrap().text);
        assert!(messages.iter().all(|message| message.text.len() == 200));
        let mut ids: Vec<_> = messages.iter().map(|message| message.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 500);
    }

    #[test]
    fn contents_know_every_message_and_find_every_fault() {
        let contents = Contents::new(&DATA, 500);
        let messages: Vec<Message> = DATA.stream().take(500).collect();
        let rows: Vec<Row> = messages
            .iter()
            .filter(|message| message.conversation == 3)
            .map(|message| Row { ordinal: message.ordinal, id: message.id, text: message.text.clone() })
            .collect();
        let count = rows.len();
        assert_eq!(contents.count(3), count as u64);
        let all = Ask { conversation: 3, before: None, limit: 500 };
        assert_eq!(contents.fault(&all, &rows), None);
        assert!(contents.fault(&all, &rows[1..]).is_some(), "one is missing");
        let last = Ask { conversation: 3, before: None, limit: 5 };
        assert_eq!(contents.fault(&last, &rows[count - 5..]), None);
        assert!(contents.fault(&last, &rows[count - 6..count - 1]).is_some(), "other ones");
        let before = Ask { conversation: 3, before: Some(4), limit: 5 };
        assert_eq!(contents.fault(&before, &rows[..3]), None);
        let mut changed = rows.clone();
        changed[2].text.replace_range(..1, "#");
        assert!(contents.fault(&all, &changed).is_some(), "another text");
        let mut changed = rows;
        changed[2].id[0] ^= 1;
        assert_eq!(contents.fault(&all, &changed), None, "the same name at another time");
        changed[2].id[9] ^= 1;
        assert!(contents.fault(&all, &changed).is_some(), "another name");
    }

    #[test]
    fn questions_are_for_conversations_that_have_something() {
        let contents = Contents::new(&DATA, 500);
        let asks = contents.asks(10, 50, true);
        let mut conversations: Vec<u32> = asks.iter().map(|ask| ask.conversation).collect();
        conversations.sort_unstable();
        assert_eq!(conversations, (0..10).collect::<Vec<_>>(), "each once");
        for ask in contents.asks(100, 50, false) {
            let before = ask.before.unwrap();
            assert!((2..=contents.count(ask.conversation) + 1).contains(&before));
        }
        assert_eq!(Contents::new(&DATA, 0).asks(10, 50, true), []);
    }
}
