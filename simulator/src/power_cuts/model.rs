//! The judge: what was acknowledged and served, held against what an engine that was opened after a cut shows.
//!
//! Per conversation: entries without a gap from the first, each what its id says, no id twice; every acknowledged one
//! in its place; every one that was served with the same bytes, for ever; pointers and titles as acknowledged. What
//! was sent and not acknowledged may be there or not. What has been read once counts as served.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hasher},
};

use antiphon_wire::{
    frame::{ConversationStart, EntryKind, view_entry},
    ids::{ClientMessageId, ConversationId, UserId},
};

use super::{
    names::{CONVERSATIONS_MAX, Names, reader, senders},
    protocol::{Frame, Opened},
};

/// A conversation's title before anybody gives it another.
pub(crate) const FIRST_TITLE: &str = "first";

/// What is known of one conversation.
#[derive(Debug, Default)]
struct Known {
    index: u16,
    is_acknowledged: bool,
    /// By sequence, less one: hash of the archive that was served.
    served: Vec<Option<u64>>,
    /// Titles by the sequence that was acknowledged.
    titles: BTreeMap<u64, String>,
    /// Highest sequence that an answer told.
    acknowledged: u64,
    /// The read pointer that was acknowledged.
    read: u64,
}

/// What one reading has shown of one conversation.
#[derive(Debug)]
struct Seen {
    last: u64,
    read: u64,
    unread: u64,
    title: String,
    entries: u64,
    messages: u64,
    /// Messages after the read pointer.
    after_read: u64,
    last_title: String,
    /// Of each entry's archive.
    hashes: Vec<u64>,
}

/// All that is known of a store.
#[derive(Debug)]
pub(crate) struct Model {
    names: Names,
    conversations: BTreeMap<ConversationId, Known>,
    /// Where messages are that were acknowledged or seen.
    messages: HashMap<ClientMessageId, u64>,
    /// Acknowledged durable position.
    position: u64,
    /// The reading under way.
    seen: BTreeMap<ConversationId, Seen>,
    seen_messages: HashMap<ClientMessageId, u64>,
    bytes: usize,
    acknowledged: u64,
    violations: Vec<String>,
}

impl Model {
    pub(crate) fn new(names: Names) -> Self {
        let conversations = (0..CONVERSATIONS_MAX).map(|index| {
            let known = Known { index, ..Known::default() };
            (names.conversation(index), known)
        });
        Self {
            names,
            conversations: conversations.collect(),
            messages: HashMap::new(),
            position: 0,
            seen: BTreeMap::new(),
            seen_messages: HashMap::new(),
            bytes: 0,
            acknowledged: 0,
            violations: Vec::new(),
        }
    }

    /// Messages that the store holds, as far as it is known.
    pub(crate) fn messages(&self) -> usize {
        self.messages.len()
    }

    /// Bytes of entries that the last reading has shown.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Some messages that were acknowledged in a round.
    pub(crate) fn newest(&self, names: &Names, round: u32, count: usize) -> Vec<ClientMessageId> {
        let of_round = self.messages.keys().filter(|id| names.place(**id).is_some_and(|place| place.round == round));
        let mut newest: Vec<_> = of_round.copied().collect();
        newest.sort_unstable_by_key(|id| names.place(*id).map(|place| std::cmp::Reverse(place.number)));
        newest.truncate(count);
        newest
    }

    /// Messages that were acknowledged, each once.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// What was found wrong, at most a few of each reading.
    pub(crate) fn violations(&self) -> &[String] {
        &self.violations
    }

    fn violate(&mut self, what: String) {
        if self.violations.len() < 20 {
            self.violations.push(what);
        }
    }

    /// An engine was opened: a reading begins.
    pub(crate) fn opened(&mut self, opened: &Opened) {
        self.seen.clear();
        self.seen_messages.clear();
        self.bytes = 0;
        if opened.created && (self.position > 0 || !self.messages.is_empty()) {
            self.violate(format!("lost: the store was made anew; {} messages were acknowledged", self.acknowledged));
        }
        if opened.position < self.position {
            self.violate(format!("lost: the log ends at {}, acknowledged is {}", opened.position, self.position));
        }
        if !opened.trouble.is_empty() {
            self.violate(format!("damage: {}", opened.trouble));
        }
        self.position = self.position.max(opened.position);
    }

    /// What a reading shows.
    pub(crate) fn read(&mut self, frame: Frame) {
        match frame {
            Frame::Listed { conversation, last, read, unread, title } => {
                let seen = Seen {
                    last,
                    read,
                    unread,
                    title,
                    entries: 0,
                    messages: 0,
                    after_read: 0,
                    last_title: FIRST_TITLE.to_owned(),
                    hashes: Vec::new(),
                };
                if !self.conversations.contains_key(&conversation) {
                    self.violate(format!("torn: a conversation {conversation} that nobody made"));
                } else if self.seen.insert(conversation, seen).is_some() {
                    self.violate(format!("duplicate: {conversation} is listed twice"));
                }
            }
            Frame::Entry(archive) => {
                self.bytes += archive.len();
                if let Err(what) = self.entry(&archive) {
                    self.violate(what);
                }
            }
            Frame::Unreadable(what) => self.violate(format!("unreadable: {what}")),
            other => self.violate(format!("the writer says {other:?} while it reads")),
        }
    }

    fn entry(&mut self, archive: &[u8]) -> Result<(), String> {
        let view = view_entry(archive).map_err(|error| format!("torn: {error}"))?;
        let conversation = ConversationId(view.conversation.0);
        let (sequence, id) = (view.sequence.0.to_native(), ClientMessageId(view.client_message_id.0));
        let place = format!("{conversation} entry {sequence}");
        let known = self.conversations.get(&conversation).ok_or_else(|| format!("torn: {place} of no conversation"))?;
        let seen = self.seen.get_mut(&conversation).ok_or_else(|| format!("torn: {place} of one not listed"))?;
        if sequence != seen.entries + 1 {
            let what = if sequence > seen.entries { "gap" } else { "duplicate" };
            let expected = seen.entries + 1;
            seen.entries = sequence;
            return Err(format!("{what}: {place} where {expected} was expected"));
        }
        seen.entries = sequence;
        seen.hashes.push(hash(archive));
        let (kind, body) = (EntryKind::from(&view.kind), &view.body[..]);
        let sender: &str = view.sender.as_str();
        let is_whole = match kind {
            EntryKind::Created => sequence == 1 && sender == reader().as_str() && is_start(body),
            EntryKind::Title => {
                seen.last_title = String::from_utf8_lossy(body).into_owned();
                sender == reader().as_str() && self.names.is_title(&seen.last_title, known.index)
            }
            EntryKind::Message => {
                seen.messages += 1;
                seen.after_read += u64::from(sequence > seen.read);
                let (of, content) = self.names.message(id);
                let in_place = self.names.place(id).is_some_and(|place| place.conversation == known.index);
                in_place && sender == of.as_str() && body == content.0
            }
            _ => false,
        };
        if !is_whole {
            return Err(format!("torn: {place} is not what was sent"));
        }
        if view.ordinal.0.to_native() != seen.messages {
            return Err(format!("gap: {place} is message {}, not {}", view.ordinal.0.to_native(), seen.messages));
        }
        if known.titles.get(&sequence).is_some_and(|title| *title != seen.last_title) {
            return Err(format!("lost: {place} was acknowledged as another title"));
        }
        if known.served.get(sequence as usize - 1).copied().flatten().is_some_and(|served| served != hash(archive)) {
            return Err(format!("lost: {place} was served with other bytes"));
        }
        if kind != EntryKind::Message {
            return Ok(());
        }
        if let Some(first) = self.seen_messages.insert(id, sequence) {
            return Err(format!("duplicate: {place} is message {id} again, which is entry {first}"));
        }
        match self.messages.get(&id) {
            Some(acknowledged) if *acknowledged != sequence => {
                Err(format!("lost: {place} is message {id}, which was acknowledged as entry {acknowledged}"))
            }
            _ => Ok(()),
        }
    }

    /// The reading is over: looks for what is missing, and takes what was read as served.
    pub(crate) fn was_read(&mut self) {
        let mut found = Vec::new();
        for (conversation, known) in &self.conversations {
            let Some(seen) = self.seen.get(conversation) else {
                if known.is_acknowledged || known.acknowledged > 0 || !known.served.is_empty() {
                    found.push(format!("lost: {conversation} is not listed"));
                }
                continue;
            };
            let expected = known.acknowledged.max(known.served.len() as u64);
            if seen.entries < expected {
                found.push(format!("lost: {conversation} ends at {}, acknowledged is {expected}", seen.entries));
            }
            if seen.last != seen.entries {
                found.push(format!("gap: {conversation} tells of {}, shows {}", seen.last, seen.entries));
            }
            if seen.read < known.read || seen.read > seen.last {
                let (read, last) = (seen.read, seen.last);
                found.push(format!("lost: {conversation} is read up to {read} of {last}, acknowledged {}", known.read));
            }
            if seen.unread != seen.after_read {
                found.push(format!("torn: {conversation} has {} unread, told {}", seen.after_read, seen.unread));
            }
            if seen.title != seen.last_title {
                found.push(format!("torn: {conversation} is {:?}, last title {:?}", seen.title, seen.last_title));
            }
        }
        let missing: Vec<_> = self.messages.keys().filter(|id| !self.seen_messages.contains_key(id)).collect();
        if let Some(first) = missing.first() {
            found.push(format!("lost: {} messages that were acknowledged, {first} among them", missing.len()));
        }
        found.into_iter().for_each(|what| self.violate(what));
        std::mem::swap(&mut self.messages, &mut self.seen_messages);
        for (conversation, seen) in &self.seen {
            let Some(known) = self.conversations.get_mut(conversation) else { continue };
            known.acknowledged = known.acknowledged.max(seen.entries);
            known.read = known.read.max(seen.read);
            known.is_acknowledged = true;
            known.served = seen.hashes.iter().copied().map(Some).collect();
        }
    }

    /// What the engine answered or gave out while it was written to.
    pub(crate) fn told(&mut self, frame: &Frame) {
        let result = match frame {
            Frame::Created { conversation } => self.known(conversation).map(|known| {
                known.is_acknowledged = true;
                known.acknowledged = known.acknowledged.max(1);
            }),
            Frame::Sent { conversation, id, sequence, duplicate } => {
                self.sent(*conversation, *id, *sequence, *duplicate)
            }
            Frame::Titled { conversation, sequence, title } => self.known(conversation).map(|known| {
                known.acknowledged = known.acknowledged.max(*sequence);
                known.titles.insert(*sequence, title.clone());
            }),
            Frame::Marked { conversation, read } => self.known(conversation).map(|known| {
                known.read = known.read.max(*read);
            }),
            Frame::Served { conversation, sequence, hash } => self.served(*conversation, *sequence, *hash),
            Frame::Committed(position) if *position <= self.position => {
                Err(format!("the position goes from {} to {position}", self.position))
            }
            Frame::Committed(position) => {
                self.position = *position;
                Ok(())
            }
            _ => Ok(()),
        };
        if let Err(what) = result {
            self.violate(what);
        }
    }

    fn known(&mut self, conversation: &ConversationId) -> Result<&mut Known, String> {
        self.conversations.get_mut(conversation).ok_or_else(|| format!("torn: an answer about {conversation}"))
    }

    fn sent(
        &mut self,
        conversation: ConversationId,
        id: ClientMessageId,
        sequence: u64,
        duplicate: bool,
    ) -> Result<(), String> {
        let known = self.known(&conversation)?;
        known.acknowledged = known.acknowledged.max(sequence);
        match (self.messages.insert(id, sequence), duplicate) {
            (None, false) => {
                self.acknowledged += 1;
                Ok(())
            }
            (Some(before), true) if before == sequence => Ok(()),
            (None, true) => Err(format!("duplicate: {id} is said to be stored before, as entry {sequence}")),
            (Some(before), _) => Err(format!("duplicate: {id} is entry {before}, and was stored again as {sequence}")),
        }
    }

    fn served(&mut self, conversation: ConversationId, sequence: u64, hash: u64) -> Result<(), String> {
        let known = self.known(&conversation)?;
        let index = (sequence as usize).checked_sub(1).ok_or("an entry 0 was given out")?;
        if known.served.len() <= index {
            known.served.resize(index + 1, None);
        }
        match known.served[index].replace(hash) {
            None => Ok(()),
            Some(_) => Err(format!("duplicate: {conversation} entry {sequence} was given out twice")),
        }
    }
}

/// How an archive is compared over cuts.
pub(crate) fn hash(archive: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(archive);
    hasher.finish()
}

/// Whether a first entry's body is what every conversation of ours begins with.
fn is_start(body: &[u8]) -> bool {
    let mut members: Vec<UserId> = senders();
    members.push(reader());
    members.sort();
    ConversationStart::from_body(body).is_ok_and(|start| {
        let mut of = start.members;
        of.sort();
        !start.direct && start.title == FIRST_TITLE && of == members
    })
}

#[cfg(test)]
mod tests {
    use antiphon_wire::{
        frame::Entry,
        ids::{Epoch, Ordinal, Sequence, TimestampMs},
    };

    use super::*;
    use crate::names::Place;

    const NAMES: Names = Names { seed: 1, store: 2 };

    fn id(number: u32) -> ClientMessageId {
        NAMES.id(Place { round: 1, number, conversation: 0 })
    }

    /// Entry 1 begins the conversation, entry n is message n.
    fn entry(sequence: u64) -> Entry {
        let mut members = senders();
        members.push(reader());
        let start = ConversationStart { direct: false, title: FIRST_TITLE.into(), members };
        let (sender, content) = NAMES.message(id(sequence as u32));
        let first = sequence == 1;
        Entry {
            conversation: NAMES.conversation(0),
            epoch: Epoch(1),
            sequence: Sequence(sequence),
            ordinal: Ordinal(sequence - 1),
            time_ms: TimestampMs(5),
            kind: if first { EntryKind::Created } else { EntryKind::Message },
            client_message_id: if first { ClientMessageId([0; 16]) } else { id(sequence as u32) },
            sender: if first { reader() } else { sender },
            body: if first { start.to_body() } else { content.0 },
        }
    }

    /// Entries 1 to 4 were acknowledged; these are found.
    fn judge(found: &[Entry]) -> Vec<String> {
        let mut model = Model::new(NAMES);
        let conversation = NAMES.conversation(0);
        model.told(&Frame::Created { conversation });
        for sequence in 1..=4 {
            if sequence > 1 {
                let id = id(sequence as u32);
                model.told(&Frame::Sent { conversation, id, sequence, duplicate: false });
            }
            let hash = hash(&entry(sequence).to_archive());
            model.told(&Frame::Served { conversation, sequence, hash });
        }
        model.told(&Frame::Committed(4));
        model.opened(&Opened { created: false, torn: false, position: 4, trouble: String::new() });
        let last = found.len() as u64;
        let title = FIRST_TITLE.to_owned();
        model.read(Frame::Listed { conversation, last, read: 1, unread: last.saturating_sub(1), title });
        found.iter().for_each(|entry| model.read(Frame::Entry(entry.to_archive().to_vec())));
        model.was_read();
        assert_eq!(model.acknowledged(), 3);
        model.violations().to_vec()
    }

    fn finds(found: &[Entry], what: &str) {
        let violations = judge(found);
        assert!(violations.iter().any(|violation| violation.starts_with(what)), "{what}: {violations:?}");
    }

    #[test]
    fn what_was_acknowledged_and_more_is_in_order() {
        assert_eq!(judge(&[1, 2, 3, 4].map(entry)), Vec::<String>::new());
        assert_eq!(judge(&[1, 2, 3, 4, 5].map(entry)), Vec::<String>::new());
    }

    #[test]
    fn losses_gaps_duplicates_and_torn_entries_are_found() {
        finds(&[1, 2, 3].map(entry), "lost");
        finds(&[], "lost");
        finds(&[1, 2, 4].map(entry), "gap");
        finds(&[1, 2, 2, 3, 4].map(entry), "duplicate");
        let mut again = [1, 2, 3, 4, 5].map(entry);
        again[4].client_message_id = id(2);
        (again[4].sender, again[4].body) = (again[1].sender.clone(), again[1].body.clone());
        finds(&again, "duplicate");
        let mut torn = [1, 2, 3, 4].map(entry);
        torn[2].body[5] ^= 1;
        finds(&torn, "torn");
        let mut other = [1, 2, 3, 4].map(entry);
        other[3].time_ms = TimestampMs(6);
        finds(&other, "lost");
        let mut replaced = [1, 2, 3, 5].map(entry);
        replaced[3].sequence = Sequence(4);
        replaced[3].ordinal = Ordinal(3);
        finds(&replaced, "lost");
    }

    #[test]
    fn a_store_that_is_made_anew_or_ends_early_has_lost() {
        for opened in [(true, 9), (false, 3)] {
            let mut model = Model::new(NAMES);
            model.told(&Frame::Committed(4));
            let (created, position) = opened;
            model.opened(&Opened { created, torn: false, position, trouble: String::new() });
            assert!(model.violations()[0].starts_with("lost"));
        }
    }
}
