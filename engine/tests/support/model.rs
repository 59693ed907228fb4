//! The engine as a list of records: slow, simple, and right by inspection. Tests compare answers with it.
//!
//! A command is judged at once, in the order of submission, and makes at most one record. Conversations overtake each other on their
//! way to the log, so a record's position is learnt when the engine gives it out ([`Model::commit`]). After a crash the model is made
//! anew from the records that survived.

use std::collections::{BTreeMap, VecDeque};

use antiphon_engine::door::{Command, Done, HistoryRange};
use antiphon_wire::{
    codes::ErrorCode,
    frame::{Change, Content, Edited, MessageState, ReactionCount},
    ids::{ClientMessageId, ConversationId, Ordinal, Sequence, TimestampMs, UserId},
    limits::{
        GROUP_MEMBERS_MAX, PINS_PER_CONVERSATION_MAX, REACTIONS_PER_MESSAGE_MAX, RESUME_ENTRIES_PER_CONVERSATION_MAX,
    },
};

#[derive(Debug, Clone)]
pub(crate) enum Record {
    Create {
        id: ConversationId,
        user: UserId,
        direct: bool,
        title: String,
        members: Vec<UserId>,
    },
    Message {
        id: ConversationId,
        user: UserId,
        key: ClientMessageId,
        body: Vec<u8>,
    },
    Members {
        id: ConversationId,
        added: Vec<UserId>,
        removed: Vec<UserId>,
    },
    Title {
        id: ConversationId,
        title: String,
    },
    /// A group's owner is another.
    Owner {
        id: ConversationId,
        owner: UserId,
    },
    Mark {
        id: ConversationId,
        user: UserId,
        read: u64,
        delivered: u64,
    },
    Change {
        id: ConversationId,
        user: UserId,
        key: ClientMessageId,
        change: Change,
    },
}

#[derive(Debug, Clone)]
pub(crate) struct ModelEntry {
    pub(crate) position: u64,
    pub(crate) ordinal: u64,
    /// Of a message: sender, key, body.
    pub(crate) message: Option<(UserId, ClientMessageId, Vec<u8>)>,
    /// Of a change of a message: sender, key, what.
    pub(crate) change: Option<(UserId, ClientMessageId, Change)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ModelMember {
    pub(crate) visible_from: u64,
    pub(crate) read: u64,
    pub(crate) delivered: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct ModelConversation {
    pub(crate) owner: Option<UserId>,
    pub(crate) direct: bool,
    pub(crate) title: String,
    /// How many of the entries are known to be durable.
    pub(crate) durable: usize,
    pub(crate) entries: Vec<ModelEntry>,
    pub(crate) members: BTreeMap<UserId, ModelMember>,
    /// Sequence and position of who left.
    pub(crate) left: BTreeMap<UserId, (u64, u64)>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    /// Records that are durable, with their positions, in an order in which they can be applied.
    pub(crate) committed: Vec<(Record, u64)>,
    /// Those that are not known to be, by conversation.
    pub(crate) pending: BTreeMap<ConversationId, VecDeque<Record>>,
    pub(crate) conversations: BTreeMap<ConversationId, ModelConversation>,
    /// Most conversations of a user, if there is a limit.
    pub(crate) per_user_max: Option<usize>,
}

impl Record {
    pub(crate) fn conversation(&self) -> ConversationId {
        match self {
            Self::Create { id, .. }
            | Self::Message { id, .. }
            | Self::Members { id, .. }
            | Self::Title { id, .. }
            | Self::Owner { id, .. }
            | Self::Change { id, .. }
            | Self::Mark { id, .. } => *id,
        }
    }

    pub(crate) fn is_mark(&self) -> bool {
        matches!(self, Self::Mark { .. })
    }
}

/// What a command answers, as far as the model says: everything but times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expected {
    Created { id: ConversationId, sequence: u64, existing: bool },
    Sent { sequence: u64, ordinal: u64, duplicate: bool },
    Changed { sequence: u64 },
    Marked { read: u64, delivered: u64, unread: u64 },
    Refused(ErrorCode),
}

impl Expected {
    pub(crate) fn of(result: &Result<Done, antiphon_engine::door::Refusal>) -> Self {
        match result {
            Ok(Done::Created { conversation, sequence, existing, .. }) => {
                Self::Created { id: *conversation, sequence: sequence.0, existing: *existing }
            }
            Ok(Done::Sent { sequence, ordinal, duplicate, .. }) => {
                Self::Sent { sequence: sequence.0, ordinal: ordinal.0, duplicate: *duplicate }
            }
            Ok(Done::Changed { sequence }) => Self::Changed { sequence: sequence.0 },
            Ok(Done::Marked { read, delivered, unread }) => {
                Self::Marked { read: read.0, delivered: delivered.0, unread: *unread }
            }
            Ok(other) => panic!("not a change: {other:?}"),
            Err(refusal) => Self::Refused(refusal.code),
        }
    }
}

impl ModelConversation {
    fn last(&self) -> u64 {
        self.entries.len() as u64
    }

    fn ordinal(&self, sequence: u64) -> u64 {
        sequence.checked_sub(1).map_or(0, |index| self.entries[index as usize].ordinal)
    }

    pub(crate) fn unread(&self, member: &ModelMember) -> u64 {
        self.ordinal(self.last()) - self.ordinal(member.read).max(self.ordinal(self.retained_from().saturating_sub(1)))
    }

    /// Changes with their sequences, in order.
    fn changes(&self) -> impl Iterator<Item = (u64, &UserId, &Change)> {
        let changes = self.entries.iter().zip(1..);
        changes.filter_map(|(entry, sequence)| entry.change.as_ref().map(|(user, _, change)| (sequence, user, change)))
    }

    /// Those of one message.
    fn changes_of(&self, target: u64) -> impl Iterator<Item = (u64, &UserId, &Change)> {
        self.changes().filter(move |(_, _, change)| change.target() == Some(Sequence(target)))
    }

    /// The first entry that stays.
    pub(crate) fn retained_from(&self) -> u64 {
        let before = |change: &Change| match change {
            Change::Retain { before } => before.0,
            _ => 0,
        };
        self.changes().map(|(_, _, change)| before(change)).max().unwrap_or(0)
    }

    /// The first entry that a member sees.
    pub(crate) fn first_seen(&self, member: &ModelMember) -> u64 {
        member.visible_from.max(self.retained_from())
    }

    pub(crate) fn is_deleted(&self, message: u64) -> bool {
        self.changes_of(message).any(|(_, _, change)| matches!(change, Change::Delete { .. }))
    }

    fn last_edit(&self, message: u64) -> Option<(u64, &Content)> {
        let edit = |(sequence, _, change): (u64, &UserId, &'_ Change)| match change {
            Change::Edit { .. } => Some(sequence),
            _ => None,
        };
        let sequence = self.changes_of(message).filter_map(edit).last()?;
        match &self.entries[sequence as usize - 1].change {
            Some((_, _, Change::Edit { content, .. })) => Some((sequence, content)),
            _ => None,
        }
    }

    fn is_pinned(&self, message: u64) -> bool {
        let pin = |(_, _, change): (u64, &UserId, &Change)| match change {
            Change::Pin { on, .. } => Some(*on),
            _ => None,
        };
        self.changes_of(message).filter_map(pin).last().unwrap_or(false) && !self.is_deleted(message)
    }

    /// Pinned messages in the order in which they were pinned, from one on.
    pub(crate) fn pins(&self, first: u64) -> Vec<Sequence> {
        let mut pins: Vec<u64> = Vec::new();
        for (_, _, change) in self.changes() {
            match change {
                Change::Pin { target, on: true } if !pins.contains(&target.0) => pins.push(target.0),
                Change::Pin { target, on: false } | Change::Delete { target } => pins.retain(|pin| *pin != target.0),
                Change::Retain { before } => pins.retain(|pin| *pin >= before.0),
                _ => {}
            }
        }
        pins.into_iter().filter(|pin| *pin >= first).map(Sequence).collect()
    }

    /// Who has which reactions to a message: users by reaction, in the order in which each was first there.
    fn reactions(&self, message: u64) -> Vec<(&str, Vec<&UserId>)> {
        let mut reactions: Vec<(&str, Vec<&UserId>)> = Vec::new();
        for (_, user, change) in self.changes_of(message) {
            let Change::React { text, on, .. } = change else { continue };
            if !reactions.iter().any(|(of, _)| of == text) {
                reactions.push((text, Vec::new()));
            }
            let (_, users) = reactions.iter_mut().find(|(of, _)| of == text).unwrap();
            users.retain(|of| *of != user);
            if *on {
                users.push(user);
            }
            reactions.retain(|(_, users)| !users.is_empty());
        }
        reactions
    }

    /// A user's reactions to a message, by user.
    pub(crate) fn reactors(&self, message: u64) -> Vec<(UserId, Vec<String>)> {
        let mut reactors: BTreeMap<UserId, Vec<String>> = BTreeMap::new();
        for (_, user, change) in self.changes_of(message) {
            let Change::React { text, on, .. } = change else { continue };
            let texts = reactors.entry(user.clone()).or_default();
            match on {
                true if !texts.contains(text) => texts.push(text.clone()),
                true => {}
                false => texts.retain(|of| of != text),
            }
        }
        reactors.into_iter().filter(|(_, texts)| !texts.is_empty()).collect()
    }

    /// What a user is told of a message beside its entry, but for times.
    pub(crate) fn told(&self, message: u64, user: &UserId) -> Option<MessageState> {
        self.entries[message as usize - 1].message.as_ref()?;
        let deleted = self.is_deleted(message);
        let reactions = if deleted { Vec::new() } else { self.reactions(message) };
        let state = MessageState {
            sequence: Sequence(message),
            edited: self
                .last_edit(message)
                .filter(|_| !deleted)
                .map(|(sequence, _)| Edited { sequence: Sequence(sequence), time_ms: TimestampMs(0) }),
            deleted,
            pinned: self.is_pinned(message),
            replies: 0,
            reactions: reactions
                .into_iter()
                .map(|(text, users)| ReactionCount {
                    reaction: text.to_owned(),
                    count: users.len() as u32,
                    mine: users.contains(&user),
                })
                .collect(),
        };
        let nothing = state.edited.is_none() && !state.deleted && !state.pinned && state.reactions.is_empty();
        (!nothing).then_some(state)
    }

    /// The body that a user who sees entries from `first` on is shown of a message or a change of one.
    pub(crate) fn shown(&self, sequence: u64, first: u64) -> Option<Vec<u8>> {
        let entry = &self.entries[sequence as usize - 1];
        if let Some((_, _, body)) = &entry.message {
            return Some(match self.last_edit(sequence) {
                _ if self.is_deleted(sequence) => Vec::new(),
                Some((_, content)) => content.0.clone(),
                None => body.clone(),
            });
        }
        let (_, _, change) = entry.change.as_ref()?;
        let messages = match change {
            Change::Retain { before } => self.ordinal(before.0 - 1),
            _ => 0,
        };
        let mut body = change.to_body(Ordinal(messages));
        if let Change::Edit { target, .. } = change {
            let is_last = self.last_edit(target.0).is_some_and(|(last, _)| last == sequence);
            if !is_last || self.is_deleted(target.0) || target.0 < first {
                body.truncate(8);
            }
        }
        Some(body)
    }
}

impl ModelConversation {
    /// Whether a change can be carried out.
    fn may_change(&self, user: &UserId, member: &ModelMember, change: &Change) -> Result<(), ErrorCode> {
        if let Change::Retain { before } = change {
            if self.owner.as_ref() != Some(user) {
                return Err(ErrorCode::Forbidden);
            }
            let fits = before.0 > self.retained_from() && before.0 <= self.last() + 1;
            return if fits { Ok(()) } else { Err(ErrorCode::Invalid) };
        }
        let target = change.target().unwrap().0;
        let is_seen = target >= self.first_seen(member) && target <= self.last();
        let message = self.entries.get(target.wrapping_sub(1) as usize).and_then(|entry| entry.message.as_ref());
        let Some((sender, ..)) = message.filter(|_| is_seen) else { return Err(ErrorCode::NoMessage) };
        let is_allowed = match change {
            Change::Edit { .. } => sender == user,
            Change::Delete { .. } => sender == user || self.owner.as_ref() == Some(user),
            _ => true,
        };
        if !is_allowed {
            return Err(ErrorCode::Forbidden);
        }
        if self.is_deleted(target) {
            return Err(ErrorCode::Deleted);
        }
        let reactions = self.reactions(target);
        let is_full = match change {
            Change::React { text, on: true, .. } => {
                !reactions.iter().any(|(of, _)| of == text) && reactions.len() >= REACTIONS_PER_MESSAGE_MAX
            }
            Change::Pin { on: true, .. } => !self.is_pinned(target) && self.pins(0).len() >= PINS_PER_CONVERSATION_MAX,
            _ => false,
        };
        if is_full { Err(ErrorCode::LimitReached) } else { Ok(()) }
    }
}

impl ModelEntry {
    fn has_key(&self, key: ClientMessageId) -> bool {
        let message = self.message.as_ref().map(|(_, key, _)| key);
        message.or(self.change.as_ref().map(|(_, key, _)| key)) == Some(&key)
    }
}

impl Model {
    /// The model of these durable records.
    pub(crate) fn replay(committed: Vec<(Record, u64)>) -> Self {
        let mut model = Self::default();
        for (record, position) in committed {
            let id = record.conversation();
            model.apply(record);
            model.commit(id, position);
        }
        model
    }

    /// The conversation's next pending record is durable.
    pub(crate) fn commit(&mut self, id: ConversationId, position: u64) -> Record {
        let record = self.pending.get_mut(&id).and_then(VecDeque::pop_front).expect("a record is pending");
        if !record.is_mark() {
            let conversation = self.conversations.get_mut(&id).unwrap();
            conversation.entries[conversation.durable].position = position;
            conversation.durable += 1;
            let sequence = conversation.durable as u64;
            for left in conversation.left.values_mut().filter(|left| left.0 == sequence) {
                left.1 = position;
            }
        }
        self.committed.push((record.clone(), position));
        record
    }

    pub(crate) fn pending(&self) -> usize {
        self.pending.values().map(VecDeque::len).sum()
    }

    fn apply(&mut self, record: Record) {
        let id = record.conversation();
        self.pending.entry(id).or_default().push_back(record.clone());
        let position = u64::MAX;
        if let Record::Create { direct, title, user, .. } = &record {
            let conversation = ModelConversation {
                owner: Some(user.clone()).filter(|_| !direct),
                direct: *direct,
                title: title.clone(),
                durable: 0,
                entries: Vec::new(),
                members: BTreeMap::new(),
                left: BTreeMap::new(),
            };
            self.conversations.insert(id, conversation);
        }
        let conversation = self.conversations.get_mut(&id).unwrap();
        let sequence = conversation.last() + 1;
        let ordinal = conversation.ordinal(conversation.last());
        let mut push = |message: Option<(UserId, ClientMessageId, Vec<u8>)>| {
            let ordinal = ordinal + u64::from(message.is_some());
            conversation.entries.push(ModelEntry { position, ordinal, message, change: None });
        };
        let member = ModelMember { visible_from: sequence, read: sequence - 1, delivered: sequence - 1 };
        match record {
            Record::Create { members, .. } => {
                push(None);
                conversation.members = members.into_iter().map(|user| (user, member.clone())).collect();
            }
            Record::Message { user, key, body, .. } => {
                push(Some((user.clone(), key, body)));
                let member = conversation.members.get_mut(&user).unwrap();
                (member.read, member.delivered) = (sequence, sequence);
            }
            Record::Members { added, removed, .. } => {
                push(None);
                for user in removed {
                    conversation.members.remove(&user);
                    conversation.owner.take_if(|owner| *owner == user);
                    conversation.left.insert(user, (sequence, position));
                }
                for user in added {
                    conversation.left.remove(&user);
                    conversation.members.insert(user, member.clone());
                }
            }
            Record::Title { title, .. } => {
                push(None);
                conversation.title = title;
            }
            Record::Owner { owner, .. } => {
                push(None);
                conversation.owner = Some(owner);
            }
            Record::Change { user, key, change, .. } => {
                push(None);
                conversation.entries.last_mut().unwrap().change = Some((user, key, change));
            }
            Record::Mark { user, read, delivered, .. } => {
                let member = conversation.members.get_mut(&user).unwrap();
                (member.read, member.delivered) = (read, delivered);
            }
        }
    }

    /// Carries out a command that changes something, and says how it is answered.
    pub(crate) fn change(&mut self, command: &Command) -> Expected {
        use Expected::Refused;
        let (user, id) = match command {
            Command::CreateDirect { user, peer } if user == peer => return Refused(ErrorCode::Invalid),
            Command::CreateDirect { user, peer } => {
                let mut members = vec![user.clone(), peer.clone()];
                members.sort();
                return self.create(ConversationId::direct(user, peer), user, true, "", members);
            }
            Command::CreateGroup { user, key, title, members } => {
                let mut members = members.clone();
                members.push(user.clone());
                members.sort();
                members.dedup();
                return self.create(ConversationId::group(user, *key), user, false, title, members);
            }
            Command::Send { user, conversation, .. }
            | Command::AddMembers { user, conversation, .. }
            | Command::RemoveMembers { user, conversation, .. }
            | Command::SetTitle { user, conversation, .. }
            | Command::Change { user, conversation, .. }
            | Command::Mark { user, conversation, .. } => (user.clone(), *conversation),
            _ => panic!("not a change"),
        };
        let Some(conversation) = self.conversations.get(&id) else { return Refused(ErrorCode::NotFound) };
        let Some(member) = conversation.members.get(&user) else { return Refused(ErrorCode::NotFound) };
        let last = conversation.last();
        let group_only = !matches!(command, Command::Send { .. } | Command::Mark { .. } | Command::Change { .. });
        if group_only && conversation.direct {
            return Refused(ErrorCode::Forbidden);
        }
        match command {
            Command::Send { client_message_id: key, body, .. } => {
                if let Some(index) = conversation.entries.iter().position(|entry| entry.has_key(*key)) {
                    let entry = &conversation.entries[index];
                    let sequence = index as u64 + 1;
                    let Some((sender, _, first)) = &entry.message else { return Refused(ErrorCode::Conflict) };
                    // What it said first is not known any more.
                    let is_changed = conversation.is_deleted(sequence) || conversation.last_edit(sequence).is_some();
                    if *sender != user || (first != body && !is_changed) {
                        return Refused(ErrorCode::Conflict);
                    }
                    return Expected::Sent { sequence, ordinal: entry.ordinal, duplicate: true };
                }
                let ordinal = conversation.ordinal(last) + 1;
                self.apply(Record::Message { id, user, key: *key, body: body.clone() });
                Expected::Sent { sequence: last + 1, ordinal, duplicate: false }
            }
            Command::Change { client_message_id: key, change, .. } => {
                if let Some(index) = conversation.entries.iter().position(|entry| entry.has_key(*key)) {
                    let (sequence, entry) = (index as u64 + 1, &conversation.entries[index]);
                    let Some((sender, _, first)) = &entry.change else { return Refused(ErrorCode::Conflict) };
                    let is_gone = |target: u64| {
                        conversation.is_deleted(target)
                            || conversation.last_edit(target).is_none_or(|(last, _)| last != sequence)
                    };
                    let is_same = match (first, change) {
                        (Change::Edit { target: of, .. }, Change::Edit { target, .. }) if is_gone(of.0) => of == target,
                        (first, change) => first == change,
                    };
                    if *sender != user || !is_same {
                        return Refused(ErrorCode::Conflict);
                    }
                    return Expected::Sent { sequence, ordinal: entry.ordinal, duplicate: true };
                }
                if let Err(code) = conversation.may_change(&user, member, change) {
                    return Refused(code);
                }
                let ordinal = conversation.ordinal(last);
                self.apply(Record::Change { id, user, key: *key, change: change.clone() });
                Expected::Sent { sequence: last + 1, ordinal, duplicate: false }
            }
            Command::AddMembers { members, .. } => {
                let mut added = members.clone();
                added.sort();
                added.dedup();
                added.retain(|user| !conversation.members.contains_key(user));
                if added.is_empty() {
                    return Expected::Changed { sequence: last };
                }
                if added.len() + conversation.members.len() > GROUP_MEMBERS_MAX {
                    return Refused(ErrorCode::LimitReached);
                }
                if self.is_full(&added) {
                    return Refused(ErrorCode::LimitReached);
                }
                self.apply(Record::Members { id, added, removed: Vec::new() });
                Expected::Changed { sequence: last + 1 }
            }
            Command::RemoveMembers { members, .. } => {
                let mut removed = members.clone();
                removed.sort();
                removed.dedup();
                removed.retain(|user| conversation.members.contains_key(user));
                if removed.is_empty() {
                    return Expected::Changed { sequence: last };
                }
                if removed != [user.clone()] && conversation.owner.as_ref() != Some(&user) {
                    return Refused(ErrorCode::Forbidden);
                }
                let stays = conversation.members.iter().filter(|(user, _)| !removed.contains(user));
                let heir = stays.min_by_key(|(user, member)| (member.visible_from, (*user).clone()));
                let owner_goes = conversation.owner.as_ref().is_some_and(|owner| removed.contains(owner));
                if let Some(owner) = heir.map(|(user, _)| user.clone()).filter(|_| owner_goes) {
                    self.apply(Record::Owner { id, owner });
                }
                self.apply(Record::Members { id, added: Vec::new(), removed });
                Expected::Changed { sequence: self.conversations[&id].last() }
            }
            Command::SetTitle { title, .. } => {
                if conversation.title == *title {
                    return Expected::Changed { sequence: last };
                }
                self.apply(Record::Title { id, title: title.clone() });
                Expected::Changed { sequence: last + 1 }
            }
            Command::Mark { read, delivered, .. } => {
                let (read, delivered) = (read.map_or(0, |read| read.0), delivered.map_or(0, |delivered| delivered.0));
                if read.max(delivered) > last {
                    return Refused(ErrorCode::Invalid);
                }
                let read = read.max(member.read);
                let delivered = delivered.max(member.delivered).max(read);
                let moved = ModelMember { visible_from: member.visible_from, read, delivered };
                let unread = conversation.unread(&moved);
                if moved != *member {
                    self.apply(Record::Mark { id, user, read, delivered });
                }
                Expected::Marked { read, delivered, unread }
            }
            _ => unreachable!(),
        }
    }

    fn create(
        &mut self,
        id: ConversationId,
        user: &UserId,
        direct: bool,
        title: &str,
        members: Vec<UserId>,
    ) -> Expected {
        if let Some(conversation) = self.conversations.get(&id) {
            if !conversation.members.contains_key(user) {
                return Expected::Refused(ErrorCode::NotFound);
            }
            return Expected::Created { id, sequence: conversation.last(), existing: true };
        }
        if self.is_full(&members) {
            return Expected::Refused(ErrorCode::LimitReached);
        }
        let (user, title) = (user.clone(), title.to_string());
        self.apply(Record::Create { id, user, direct, title, members });
        Expected::Created { id, sequence: 1, existing: false }
    }

    /// How many conversations a user is a member of.
    pub(crate) fn joined(&self, user: &UserId) -> usize {
        self.conversations.values().filter(|conversation| conversation.members.contains_key(user)).count()
    }

    fn is_full(&self, joining: &[UserId]) -> bool {
        self.per_user_max.is_some_and(|max| joining.iter().any(|user| self.joined(user) >= max))
    }

    /// Sequences of a page of history; `None` for a stranger.
    pub(crate) fn history(
        &self,
        user: &UserId,
        id: ConversationId,
        range: HistoryRange,
        limit: u64,
    ) -> Option<Vec<u64>> {
        let conversation = self.conversations.get(&id)?;
        let first = conversation.first_seen(conversation.members.get(user)?);
        let last = conversation.last();
        let seen = |from: u64, to: u64| (from.max(first)..=to.min(last)).collect::<Vec<u64>>();
        let tail = |mut sequences: Vec<u64>, count: u64| {
            let cut = sequences.len().saturating_sub(count as usize);
            sequences.split_off(cut)
        };
        let head = |mut sequences: Vec<u64>, count: u64| {
            sequences.truncate(count as usize);
            sequences
        };
        Some(match range {
            HistoryRange::Latest => tail(seen(1, last), limit),
            HistoryRange::Before(before) => tail(seen(1, before.0.saturating_sub(1)), limit),
            HistoryRange::After(after) => head(seen(after.0 + 1, last), limit),
            HistoryRange::Around(middle) => {
                let mut page = tail(seen(1, middle.0), limit - limit / 2);
                page.extend(head(seen(middle.0 + 1, last), limit / 2));
                page
            }
        })
    }

    /// What a user misses since a position: entries in order, conversations of which too much is missing, those that were left.
    pub(crate) fn missing(&self, user: &UserId, since: u64, known: &BTreeMap<ConversationId, u64>) -> Missing {
        let mut missing = Missing::default();
        for (id, conversation) in &self.conversations {
            let left = conversation.left.get(user).filter(|(_, position)| *position > since);
            missing.left.extend(left.map(|(sequence, _)| (*id, Sequence(*sequence))));
            let Some(member) = conversation.members.get(user) else { continue };
            let from = conversation.first_seen(member).max(known.get(id).map_or(0, |known| known + 1));
            let sequences: Vec<u64> = (from..=conversation.last())
                .filter(|sequence| conversation.entries[*sequence as usize - 1].position > since)
                .collect();
            if sequences.len() > RESUME_ENTRIES_PER_CONVERSATION_MAX {
                missing.too_far.push((*id, member.visible_from, conversation.last()));
            } else {
                missing.entries.extend(sequences.into_iter().map(|sequence| (*id, sequence)));
            }
        }
        missing
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Missing {
    pub(crate) entries: Vec<(ConversationId, u64)>,
    pub(crate) too_far: Vec<(ConversationId, u64, u64)>,
    pub(crate) left: Vec<(ConversationId, Sequence)>,
}
