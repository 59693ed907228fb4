//! What later entries make of messages, as rows: a message's state, who reacted to it, the pinned messages, the retention mark.
//!
//! ```text
//! state      flags u8 (1 deleted, 2 pinned, 4 edited, 8 answered) · last edit: sequence u64 · time u64 · if answered, replies u32 · then,
//!            for each reaction, count u32 · length u8 · UTF-8
//! reactor    for each reaction of the user, length u8 · UTF-8
//! pins       sequence u64 …, in the order in which they were pinned
//! retention  before u64 · messages u64
//! ```
//! [`Subject::apply`] is the one function that says what a change does: to the state that a command has gathered, and to a [`Fold`] of a
//! conversation's entries, by which stores are made and verified. What a message says now stands in the entry's own row, which an edit and a
//! deletion replace; so do they the row of the edit before, of which only the target is left.
//!
//! Invariant: a state is the fold of all changes of its message, in the order of their sequences. Must not do: judge who may do what.

use std::{collections::BTreeMap, sync::Arc};

use antiphon_wire::{
    frame::{ChangeView, Edited, Entry, MessageState, ReactionCount, view_entry},
    ids::{LanePosition, Ordinal, Sequence, TimestampMs, UserId},
    limits::{PINS_PER_CONVERSATION_MAX, REACTION_BYTES_MAX, REACTIONS_PER_MESSAGE_MAX},
};

use crate::{bytes::Reader, keys, rows::put_entry};

const DELETED: u8 = 1;
const PINNED: u8 = 2;
const EDITED: u8 = 4;
const ANSWERED: u8 = 8;

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct StateRow {
    pub(crate) deleted: bool,
    pub(crate) pinned: bool,
    /// The last edit.
    pub(crate) edited: Option<(Sequence, TimestampMs)>,
    /// Messages in the thread that it began, but for those that were deleted.
    pub(crate) replies: u32,
    /// Reactions and how many users have each, in the order in which each was first there.
    pub(crate) reactions: Vec<(String, u32)>,
}

/// Before which entry a conversation is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct RetentionRow {
    pub(crate) before: Sequence,
    /// Messages before it.
    pub(crate) messages: Ordinal,
}

/// A row that an entry brings beside its own: the key's suffix, and the value from now on, if it has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ChangedRow {
    pub(crate) suffix: Vec<u8>,
    pub(crate) value: Option<Arc<[u8]>>,
}

/// What a change is about, as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Subject {
    pub(crate) state: StateRow,
    /// The reactions of who makes the change.
    pub(crate) mine: Vec<String>,
    pub(crate) pins: Vec<Sequence>,
    pub(crate) retention: RetentionRow,
}

/// A limit of what a message or a conversation can have is reached; nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    Reactions,
    Pins,
}

/// The states of one conversation's messages, as its entries make them. Memory: that of the messages that something happened to.
#[derive(Debug, Default)]
pub(crate) struct Fold {
    pub(crate) states: BTreeMap<Sequence, StateRow>,
    pub(crate) reactors: BTreeMap<(Sequence, UserId), Vec<String>>,
    pub(crate) pins: Vec<Sequence>,
    pub(crate) retention: RetentionRow,
}

impl StateRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        let (sequence, time) = self.edited.unwrap_or_default();
        let flags = flag(self.deleted, DELETED) | flag(self.pinned, PINNED) | flag(self.edited.is_some(), EDITED);
        let mut bytes = vec![flags | flag(self.replies > 0, ANSWERED)];
        bytes.extend(sequence.0.to_le_bytes());
        bytes.extend(time.0.to_le_bytes());
        if self.replies > 0 {
            bytes.extend(self.replies.to_le_bytes());
        }
        for (text, count) in &self.reactions {
            bytes.extend(count.to_le_bytes());
            put_text(text, &mut bytes);
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let flags = reader.u8()?;
        let edited = (Sequence(reader.u64()?), TimestampMs(reader.u64()?));
        let replies = if flags & ANSWERED != 0 { reader.u32().filter(|count| *count > 0)? } else { 0 };
        let mut reactions = Vec::new();
        while !reader.rest().is_empty() {
            let count = reader.u32().filter(|count| *count > 0)?;
            reactions.push((text(&mut reader)?, count));
        }
        let state = Self {
            deleted: flags & DELETED != 0,
            pinned: flags & PINNED != 0,
            edited: (flags & EDITED != 0).then_some(edited),
            replies,
            reactions,
        };
        let is_plain = !state.pinned && state.edited.is_none() && state.replies == 0 && state.reactions.is_empty();
        let fits = flags & !(DELETED | PINNED | EDITED | ANSWERED) == 0
            && (state.edited.is_some() || edited == Default::default())
            && (!state.deleted || is_plain)
            && state.reactions.len() <= REACTIONS_PER_MESSAGE_MAX;
        fits.then_some(state)
    }

    /// Whether there is nothing to tell: all reactions are removed again.
    pub(crate) fn is_plain(&self) -> bool {
        *self == Self::default()
    }

    /// As users are told; `mine` are the asking user's reactions.
    pub(crate) fn told(&self, sequence: Sequence, mine: &[String]) -> MessageState {
        let reactions = self.reactions.iter().map(|(text, count)| ReactionCount {
            reaction: text.clone(),
            count: *count,
            mine: mine.contains(text),
        });
        MessageState {
            sequence,
            edited: self.edited.map(|(sequence, time_ms)| Edited { sequence, time_ms }),
            deleted: self.deleted,
            pinned: self.pinned,
            replies: self.replies,
            reactions: reactions.collect(),
        }
    }

    fn add(&mut self, text: &str) -> Result<(), Full> {
        let known = self.reactions.iter().position(|(other, _)| other == text);
        match known {
            Some(index) => self.reactions[index].1 += 1,
            None if self.reactions.len() >= REACTIONS_PER_MESSAGE_MAX => return Err(Full::Reactions),
            None => self.reactions.push((text.to_owned(), 1)),
        }
        Ok(())
    }

    fn remove(&mut self, text: &str) {
        if let Some(index) = self.reactions.iter().position(|(other, _)| other == text) {
            self.reactions[index].1 -= 1;
            if self.reactions[index].1 == 0 {
                self.reactions.remove(index);
            }
        }
    }
}

impl RetentionRow {
    pub(crate) fn encode(self) -> Vec<u8> {
        [self.before.0.to_le_bytes(), self.messages.0.to_le_bytes()].concat()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let row = Self { before: Sequence(reader.u64()?), messages: Ordinal(reader.u64()?) };
        (reader.rest().is_empty() && row.messages.0 < row.before.0).then_some(row)
    }
}

/// The value of a user's reactions to a message.
pub(crate) fn encode_reactor(texts: &[String]) -> Vec<u8> {
    let mut bytes = Vec::new();
    texts.iter().for_each(|text| put_text(text, &mut bytes));
    bytes
}

/// Reads a user's reactions to a message.
pub(crate) fn decode_reactor(bytes: &[u8]) -> Option<Vec<String>> {
    let mut reader = Reader::new(bytes);
    let mut texts = Vec::new();
    while !reader.rest().is_empty() {
        texts.push(text(&mut reader)?);
    }
    (1..=REACTIONS_PER_MESSAGE_MAX).contains(&texts.len()).then_some(texts)
}

/// The value of the row of pins.
pub(crate) fn encode_pins(pins: &[Sequence]) -> Vec<u8> {
    pins.iter().flat_map(|pin| pin.0.to_le_bytes()).collect()
}

/// Reads the row of pins.
pub(crate) fn decode_pins(bytes: &[u8]) -> Option<Vec<Sequence>> {
    let (pins, rest) = bytes.as_chunks::<8>();
    let pins: Vec<Sequence> = pins.iter().map(|pin| Sequence(u64::from_le_bytes(*pin))).collect();
    (rest.is_empty() && pins.len() <= PINS_PER_CONVERSATION_MAX).then_some(pins)
}

fn put_text(text: &str, bytes: &mut Vec<u8>) {
    bytes.push(u8::try_from(text.len()).expect("reactions are short"));
    bytes.extend(text.as_bytes());
}

fn text(reader: &mut Reader<'_>) -> Option<String> {
    let length = usize::from(reader.u8()?);
    let text = std::str::from_utf8(reader.take(length)?).ok()?;
    (1..=REACTION_BYTES_MAX).contains(&length).then(|| text.to_owned())
}

/// The same entry with another body: what an edit and a deletion leave of it. `None` if the archive is not valid.
pub(crate) fn with_body(archive: &[u8], body: Vec<u8>) -> Option<Arc<[u8]>> {
    let entry = rkyv::deserialize::<Entry, rkyv::rancor::Error>(view_entry(archive).ok()?).ok()?;
    Some(Arc::from(Entry { body, ..entry }.to_archive().as_slice()))
}

/// What is left of an edit that another replaces, or a deletion: its target.
pub(crate) fn without_content(archive: &[u8]) -> Option<Arc<[u8]>> {
    let target = view_entry(archive).ok()?.body.get(..8)?.to_vec();
    with_body(archive, target)
}

impl ChangedRow {
    pub(crate) fn new(suffix: impl Into<Vec<u8>>, value: Vec<u8>) -> Self {
        Self { suffix: suffix.into(), value: Some(Arc::from(value)) }
    }

    /// An entry's own row, from now on.
    pub(crate) fn entry(sequence: Sequence, position: LanePosition, archive: &[u8]) -> Self {
        let mut value = Vec::with_capacity(8 + archive.len());
        put_entry(position, archive, &mut value);
        Self::new(keys::entry_suffix(sequence), value)
    }
}

impl Subject {
    /// Does what a change does, and gives the rows that follow from it, but for those of entries. `at` and `time` are the change's own.
    pub(crate) fn apply(
        &mut self,
        change: &ChangeView<'_>,
        at: Sequence,
        time: TimestampMs,
        user: &UserId,
    ) -> Result<Vec<ChangedRow>, Full> {
        let mut rows = Vec::new();
        let pins_before = self.pins.len();
        let target = match *change {
            ChangeView::Edit { target, .. } => {
                if !self.state.deleted {
                    self.state.edited = Some((at, time));
                }
                target
            }
            ChangeView::Delete { target } => {
                self.state = StateRow { deleted: true, ..StateRow::default() };
                self.pins.retain(|pin| *pin != target);
                target
            }
            ChangeView::React { target, text, on } => {
                self.react(text, on)?;
                let value = (!self.mine.is_empty()).then(|| Arc::from(encode_reactor(&self.mine)));
                rows.push(ChangedRow { suffix: keys::reactor_suffix(target, user), value });
                target
            }
            ChangeView::Pin { target, on } => {
                self.pin(target, on)?;
                target
            }
            ChangeView::Retain { before, messages } => {
                if before > self.retention.before {
                    self.retention = RetentionRow { before, messages };
                    self.pins.retain(|pin| *pin >= before);
                }
                rows.push(ChangedRow::new(keys::RETENTION, self.retention.encode()));
                if self.pins.len() != pins_before {
                    rows.push(ChangedRow::new(keys::PINS, encode_pins(&self.pins)));
                }
                return Ok(rows);
            }
        };
        rows.push(ChangedRow::new(keys::state_suffix(target), self.state.encode()));
        if self.pins.len() != pins_before {
            rows.push(ChangedRow::new(keys::PINS, encode_pins(&self.pins)));
        }
        Ok(rows)
    }

    fn react(&mut self, text: &str, on: bool) -> Result<(), Full> {
        let mine = self.mine.iter().position(|other| other == text);
        match (mine, on) {
            (None, true) => {
                if !self.state.deleted {
                    self.state.add(text)?;
                }
                self.mine.push(text.to_owned());
            }
            (Some(index), false) => {
                if !self.state.deleted {
                    self.state.remove(text);
                }
                self.mine.remove(index);
            }
            _ => {}
        }
        Ok(())
    }

    fn pin(&mut self, target: Sequence, on: bool) -> Result<(), Full> {
        match on {
            true if self.state.deleted || self.state.pinned => {}
            true if self.pins.len() >= PINS_PER_CONVERSATION_MAX => return Err(Full::Pins),
            true => self.pins.push(target),
            false => self.pins.retain(|pin| *pin != target),
        }
        self.state.pinned = on && !self.state.deleted;
        Ok(())
    }
}

impl Fold {
    /// A message is there that is in the thread of another, unless that was deleted.
    pub(crate) fn replied(&mut self, root: Sequence) -> Option<ChangedRow> {
        let state = self.states.entry(root).or_default();
        if state.deleted {
            return None;
        }
        state.replies += 1;
        Some(ChangedRow::new(keys::state_suffix(root), state.encode()))
    }

    /// A message is there whose content was taken away: it is a deleted one, whether or not the entry that did it is among those folded.
    pub(crate) fn taken_away(&mut self, message: Sequence) -> ChangedRow {
        let deleted = StateRow { deleted: true, ..StateRow::default() };
        let row = ChangedRow::new(keys::state_suffix(message), deleted.encode());
        self.states.insert(message, deleted);
        row
    }

    /// Takes the next change, and gives the rows that follow from it.
    pub(crate) fn take(
        &mut self,
        change: &ChangeView<'_>,
        at: Sequence,
        time: TimestampMs,
        user: &UserId,
    ) -> Result<Vec<ChangedRow>, Full> {
        let target = match *change {
            ChangeView::Edit { target, .. }
            | ChangeView::Delete { target }
            | ChangeView::React { target, .. }
            | ChangeView::Pin { target, .. } => Some(target),
            ChangeView::Retain { .. } => None,
        };
        let reactor = target.map(|target| (target, user.clone()));
        let mut subject = Subject {
            state: target.and_then(|target| self.states.remove(&target)).unwrap_or_default(),
            mine: reactor.as_ref().and_then(|reactor| self.reactors.remove(reactor)).unwrap_or_default(),
            pins: std::mem::take(&mut self.pins),
            retention: self.retention,
        };
        let rows = subject.apply(change, at, time, user);
        let Subject { state, mine, pins, retention } = subject;
        if let Some(target) = target {
            self.states.insert(target, state);
        }
        if let Some(reactor) = reactor.filter(|_| !mine.is_empty()) {
            self.reactors.insert(reactor, mine);
        }
        (self.pins, self.retention) = (pins, retention);
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> UserId {
        UserId::new(text).unwrap()
    }

    fn take(fold: &mut Fold, at: u64, user: &str, change: ChangeView<'_>) -> Result<Vec<ChangedRow>, Full> {
        fold.take(&change, Sequence(at), TimestampMs(at), &name(user))
    }

    #[test]
    fn rows_have_these_bytes() {
        let state = StateRow {
            deleted: false,
            pinned: true,
            edited: Some((Sequence(5), TimestampMs(6))),
            replies: 0,
            reactions: vec![("ok".into(), 3), ("👍".into(), 1)],
        };
        let bytes = b"\x06\x05\0\0\0\0\0\0\0\x06\0\0\0\0\0\0\0\x03\0\0\0\x02ok\x01\0\0\0\x04\xf0\x9f\x91\x8d";
        assert_eq!(state.encode(), bytes);
        assert_eq!(StateRow::decode(bytes).as_ref(), Some(&state));
        let answered = StateRow { replies: 7, ..state };
        let bytes = [b"\x0e", &bytes[1..17], b"\x07\0\0\0", &bytes[17..]].concat();
        assert_eq!(answered.encode(), bytes);
        assert_eq!(StateRow::decode(&bytes), Some(answered));
        let texts = vec!["ok".to_owned(), "👍".to_owned()];
        assert_eq!(encode_reactor(&texts), *b"\x02ok\x04\xf0\x9f\x91\x8d");
        assert_eq!(decode_reactor(&encode_reactor(&texts)), Some(texts));
        let retention = RetentionRow { before: Sequence(9), messages: Ordinal(7) };
        assert_eq!(retention.encode(), *b"\x09\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0");
        assert_eq!(RetentionRow::decode(&retention.encode()), Some(retention));
        assert_eq!(encode_pins(&[Sequence(2), Sequence(1)]), *b"\x02\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0");
        assert_eq!(decode_pins(&encode_pins(&[Sequence(2)])), Some(vec![Sequence(2)]));
    }

    #[test]
    fn bytes_that_do_not_fit_are_refused() {
        let plain = StateRow::default().encode();
        let with = |at: usize, byte: u8| {
            let mut bytes = plain.clone();
            bytes[at] = byte;
            bytes
        };
        let long = [plain.as_slice(), b"\x01\0\0\0\x21", &[b'x'; 33]].concat();
        let many = [plain.clone(), b"\x01\0\0\0\x01x".repeat(65)].concat();
        for (what, bytes) in [
            ("empty", Vec::new()),
            ("cut", plain[..16].to_vec()),
            ("an unknown flag", with(0, 8)),
            ("an edit without its flag", with(1, 1)),
            ("deleted and pinned", with(0, 3)),
            ("a reaction of nobody", [plain.as_slice(), b"\0\0\0\0\x01x"].concat()),
            ("an empty reaction", [plain.as_slice(), b"\x01\0\0\0\0"].concat()),
            ("a long reaction", long),
            ("not UTF-8", [plain.as_slice(), b"\x01\0\0\0\x01\xff"].concat()),
            ("a cut reaction", [plain.as_slice(), b"\x01\0\0\0\x02x"].concat()),
            ("too many", many),
        ] {
            assert_eq!(StateRow::decode(&bytes), None, "{what}");
        }
        for bytes in [&b""[..], b"\0", b"\x02x"] {
            assert_eq!(decode_reactor(bytes), None);
        }
        assert_eq!(decode_pins(&[0; 7]), None);
        assert_eq!(decode_pins(&[0; 808]), None);
        assert_eq!(RetentionRow::decode(&[1; 15]), None);
        assert_eq!(RetentionRow::decode(&[1; 16]), None, "as many messages as entries before it, and more");
    }

    #[test]
    fn reactions_are_counted_and_end_with_the_message() {
        let mut fold = Fold::default();
        let target = Sequence(2);
        let react = |text, on| ChangeView::React { target, text, on };
        take(&mut fold, 3, "ann", react("a", true)).unwrap();
        take(&mut fold, 4, "bob", react("a", true)).unwrap();
        take(&mut fold, 5, "bob", react("a", true)).unwrap();
        take(&mut fold, 6, "bob", react("b", true)).unwrap();
        take(&mut fold, 7, "cid", react("b", false)).unwrap();
        assert_eq!(fold.states[&target].reactions, [("a".into(), 2), ("b".into(), 1)]);
        let rows = take(&mut fold, 8, "ann", react("a", false)).unwrap();
        let reactor = keys::reactor_suffix(target, &name("ann"));
        assert!(rows.contains(&ChangedRow { suffix: reactor, value: None }), "a reactor without reactions has no row");
        take(&mut fold, 9, "bob", react("a", false)).unwrap();
        assert_eq!(fold.states[&target].reactions, [("b".into(), 1)]);
        take(&mut fold, 10, "ann", ChangeView::Delete { target }).unwrap();
        assert_eq!(fold.states[&target], StateRow { deleted: true, ..StateRow::default() });
    }

    #[test]
    fn limits_are_kept_and_change_nothing() {
        let mut fold = Fold::default();
        let target = Sequence(2);
        for number in 0..REACTIONS_PER_MESSAGE_MAX {
            let text = format!("{number}");
            take(&mut fold, 3, "ann", ChangeView::React { target, text: &text, on: true }).unwrap();
        }
        let before = fold.states[&target].clone();
        assert_eq!(take(&mut fold, 3, "bob", ChangeView::React { target, text: "x", on: true }), Err(Full::Reactions));
        assert_eq!(fold.states[&target], before);
        take(&mut fold, 3, "bob", ChangeView::React { target, text: "7", on: true }).unwrap();
        for number in 0..PINS_PER_CONVERSATION_MAX as u64 {
            take(&mut fold, 3, "ann", ChangeView::Pin { target: Sequence(2 + number), on: true }).unwrap();
        }
        take(&mut fold, 3, "ann", ChangeView::Pin { target, on: true }).unwrap();
        assert_eq!(take(&mut fold, 3, "ann", ChangeView::Pin { target: Sequence(999), on: true }), Err(Full::Pins));
        take(&mut fold, 3, "ann", ChangeView::Delete { target }).unwrap();
        take(&mut fold, 3, "ann", ChangeView::Pin { target: Sequence(999), on: true }).unwrap();
        assert_eq!(fold.pins.len(), PINS_PER_CONVERSATION_MAX);
        let mark = ChangeView::Retain { before: Sequence(100), messages: Ordinal(9) };
        take(&mut fold, 1_000, "ann", mark).unwrap();
        assert_eq!(fold.pins, [Sequence(100), Sequence(101), Sequence(999)]);
    }
}
