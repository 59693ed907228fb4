//! The oracle of what becomes of messages: edits, deletions, reactions, pins, and retention marks. What clients are shown of a message must be
//! what its changes say, one after the other; what was taken away, or is before a mark, is never shown again to who asks after that was
//! acknowledged, or after anybody was given its entry: both mean that it is durable.
//!
//! It knows changes as they were asked for and as entries that were seen. What a message says in the end, and what is told of it beside,
//! is judged when everything was read ([`judge`]).

use std::collections::BTreeMap;

use antiphon_wire::{
    codes::ErrorCode,
    frame::{Change, ChangeView, Content, EntryKind, MessageState, Reactor, States, view_change},
    ids::{ClientMessageId, ConversationId, UserId},
};

use crate::{
    contents::{refer_alike, words},
    finish::Reading,
    model::{Conversation, Known, Membership, Model},
};

/// A change that somebody asked for.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Who.
    pub user: UserId,
    /// Under which name.
    pub name: ClientMessageId,
    /// What.
    pub change: Change,
    /// Its sequence, once it is known to be durable, and the oracle's time of that.
    pub acked: Option<(u64, u64)>,
}

/// What became of messages, by entries that were seen.
#[derive(Debug, Default, PartialEq, Eq)]
struct Became {
    deleted: bool,
    /// The last edit's sequence.
    edited: Option<u64>,
    pinned: bool,
    /// Messages in its thread that were not deleted.
    replies: u32,
    /// Users by reaction, in the order in which each was first there.
    reactions: Vec<(String, Vec<UserId>)>,
}

impl Conversation {
    /// Changes that were asked for of one message.
    fn asked_of(&self, target: u64) -> impl Iterator<Item = &Asked> {
        self.changes.iter().filter(move |asked| asked.change.target().is_some_and(|of| of.0 == target))
    }

    /// The first entry that is not gone for somebody who asked at a time (0: not known).
    #[must_use]
    pub fn hidden_below(&self, at: u64) -> u64 {
        let marks = self.changes.iter().filter(|asked| asked.acked.is_some_and(|(_, acked)| acked < at));
        marks.filter_map(|asked| asked.mark()).max().unwrap_or_default()
    }

    /// Whether a message was deleted before a time, so that nothing that is read then has its text.
    #[must_use]
    pub fn was_deleted(&self, message: u64, at: u64) -> bool {
        let mut deletions = self.asked_of(message).filter(|asked| matches!(asked.change, Change::Delete { .. }));
        deletions.any(|asked| asked.acked.is_some_and(|(_, acked)| acked < at))
    }

    /// An entry was seen: what it does is durable.
    pub fn change_seen(&mut self, sequence: u64, known: &Known, now: u64) {
        let Ok(change) = view_change(known.kind, &known.body) else { return };
        let same = |asked: &Change| match (change, asked) {
            (ChangeView::Delete { target }, Change::Delete { target: of }) => target == *of,
            (ChangeView::Retain { before, .. }, Change::Retain { before: of }) => before == *of,
            _ => false,
        };
        let of_name = |asked: &&mut Asked| {
            asked.user == known.sender && asked.name == known.client_message_id && same(&asked.change)
        };
        if let Some(asked) = self.changes.iter_mut().find(of_name) {
            asked.acked = asked.acked.or(Some((sequence, now)));
        }
    }

    /// Whether the message may say something else than it was sent with.
    #[must_use]
    pub fn may_have_changed(&self, message: u64) -> bool {
        self.asked_of(message).any(|asked| matches!(asked.change, Change::Edit { .. } | Change::Delete { .. }))
    }

    /// What is wrong with what a message says, as it was shown to somebody who asked at a time (0: not known).
    pub fn wrong_body(&self, message: u64, body: &[u8], originals: &[Content], at: u64) -> Option<String> {
        let of = |asked: &&Asked| asked.acked.is_some_and(|(_, acked)| acked < at);
        let deletions = || self.asked_of(message).filter(|asked| matches!(asked.change, Change::Delete { .. }));
        if body.is_empty() {
            return (deletions().next().is_none()).then(|| "it says nothing, but nobody deleted it".to_owned());
        }
        if deletions().any(|asked| of(&asked)) {
            return Some("it was deleted before that was asked".to_owned());
        }
        let edits = self.asked_of(message).filter_map(|asked| match &asked.change {
            Change::Edit { content, .. } => Some((asked, content)),
            _ => None,
        });
        let edits: Vec<(&Asked, &Content)> = edits.collect();
        let newest = edits.iter().filter(|(asked, _)| of(asked)).filter_map(|(asked, _)| asked.acked).max();
        let keeps = originals.is_empty() || originals.iter().any(|content| refer_alike(&content.0, body));
        let shown = edits.iter().find(|(_, content)| keeps && *content == &words(body));
        match (shown, newest) {
            (Some((asked, _)), Some((least, _))) if asked.acked.is_some_and(|(sequence, _)| sequence < least) => {
                Some(format!("it says what an edit before that at #{least} said"))
            }
            (Some(_), _) => None,
            (None, _) if !originals.iter().any(|content| content.0 == body) => {
                Some("it says what nobody sent".to_owned())
            }
            (None, Some((least, _))) => Some(format!("it says what it was sent with, but was edited at #{least}")),
            (None, None) => None,
        }
    }

    /// What is wrong with a change's entry, as far as it can be told when it is first seen.
    pub fn wrong_change(&self, known: &Known) -> Option<String> {
        let change = view_change(known.kind, &known.body).ok()?;
        let of_name = |asked: &&Asked| asked.user == known.sender && asked.name == known.client_message_id;
        let said = |content: &[u8]| {
            let content = words(content);
            let is_it = |asked: &Asked| matches!(&asked.change, Change::Edit { content: of, .. } if *of == content);
            self.changes.iter().any(is_it)
        };
        let same = |asked: &&Asked| match (change, &asked.change) {
            (ChangeView::Edit { target, content }, Change::Edit { target: of, .. }) => {
                target == *of && content.is_none_or(said)
            }
            (ChangeView::Delete { target }, Change::Delete { target: of }) => target == *of,
            (ChangeView::React { target, text, on }, Change::React { target: of, text: asked, on: was }) => {
                (target, text, on) == (*of, asked.as_str(), *was)
            }
            (ChangeView::Pin { target, on }, Change::Pin { target: of, on: was }) => (target, on) == (*of, *was),
            (ChangeView::Retain { before, .. }, Change::Retain { before: of }) => before == *of,
            _ => false,
        };
        let Some(asked) = self.changes.iter().filter(of_name).find(same) else {
            return Some(format!("{} never asked for it", known.sender));
        };
        let message = self.entries.get(&asked.change.target().unwrap_or_default().0);
        match message {
            Some(message) if message.kind != EntryKind::Message => Some("it changes what is no message".to_owned()),
            Some(message) if known.kind == EntryKind::Edit && message.sender != known.sender => {
                Some(format!("{} changes a message of {}", known.sender, message.sender))
            }
            _ => None,
        }
    }

    /// What the entries that were seen make of messages.
    fn became(&self) -> BTreeMap<u64, Became> {
        let mut messages: BTreeMap<u64, Became> = BTreeMap::new();
        for (sequence, entry) in &self.entries {
            let Ok(change) = view_change(entry.kind, &entry.body) else { continue };
            let (ChangeView::Edit { target, .. }
            | ChangeView::Delete { target }
            | ChangeView::React { target, .. }
            | ChangeView::Pin { target, .. }) = change
            else {
                continue;
            };
            let message = messages.entry(target.0).or_default();
            match change {
                _ if message.deleted => {}
                ChangeView::Edit { .. } => message.edited = Some(*sequence),
                ChangeView::Delete { .. } => *message = Became { deleted: true, ..Became::default() },
                ChangeView::React { text, on, .. } => message.react(text, &entry.sender, on),
                ChangeView::Pin { on, .. } => message.pinned = on,
                ChangeView::Retain { .. } => {}
            }
        }
        let is_deleted =
            |messages: &BTreeMap<u64, Became>, place: u64| messages.get(&place).is_some_and(|of| of.deleted);
        for (sequence, entry) in &self.entries {
            if let Some(root) =
                entry.thread().filter(|root| ![*root, *sequence].iter().any(|of| is_deleted(&messages, *of)))
            {
                messages.entry(root).or_default().replies += 1;
            }
        }
        messages
    }
}

impl Asked {
    /// The first entry that a retention mark lets stay.
    fn mark(&self) -> Option<u64> {
        match self.change {
            Change::Retain { before } => Some(before.0),
            _ => None,
        }
    }
}

impl Became {
    fn react(&mut self, text: &str, user: &UserId, on: bool) {
        if !self.reactions.iter().any(|(of, _)| of == text) {
            self.reactions.push((text.to_owned(), Vec::new()));
        }
        for (_, users) in self.reactions.iter_mut().filter(|(of, _)| of == text) {
            users.retain(|of| of != user);
            if on {
                users.push(user.clone());
            }
        }
        self.reactions.retain(|(_, users)| !users.is_empty());
    }

    /// Whether a user is told this.
    fn is(&self, told: Option<&MessageState>, user: &UserId) -> bool {
        let Some(told) = told else { return *self == Self::default() };
        let reactions = told.reactions.iter().map(|of| (of.reaction.as_str(), of.count as usize, of.mine));
        told.deleted == self.deleted
            && told.pinned == self.pinned
            && told.replies == self.replies
            && told.edited.as_ref().map(|edited| edited.sequence.0) == self.edited
            && reactions
                .eq(self.reactions.iter().map(|(text, users)| (text.as_str(), users.len(), users.contains(user))))
    }
}

impl Model {
    /// Somebody asks for a change.
    pub fn message_change_asked(&mut self, id: ConversationId, user: &UserId, name: ClientMessageId, change: &Change) {
        let conversation = self.conversations.entry(id).or_default();
        let same = |asked: &Asked| asked.user == *user && asked.name == name && asked.change == *change;
        if !conversation.changes.iter().any(same) {
            conversation.changes.push(Asked { user: user.clone(), name, change: change.clone(), acked: None });
        }
    }

    /// It was acknowledged.
    pub fn message_changed(
        &mut self,
        id: ConversationId,
        user: &UserId,
        name: ClientMessageId,
        change: &Change,
        sequence: u64,
    ) {
        let now = self.asking();
        let conversation = self.conversations.entry(id).or_default();
        conversation.durable = conversation.durable.max(sequence);
        let of_name: Vec<&mut Asked> =
            conversation.changes.iter_mut().filter(|asked| asked.user == *user && asked.name == name).collect();
        let others = of_name.iter().filter_map(|asked| asked.acked.map(|(of, _)| of)).find(|of| *of != sequence);
        for asked in of_name.into_iter().filter(|asked| asked.change == *change) {
            asked.acked = asked.acked.or(Some((sequence, now)));
        }
        self.check(others.is_none(), || format!("{id} {name} of {user} was stored at #{others:?} and at #{sequence}"));
    }

    /// Whether a change may be refused so.
    #[must_use]
    pub fn may_refuse_change(
        &self,
        id: ConversationId,
        user: &UserId,
        name: ClientMessageId,
        change: &Change,
        code: ErrorCode,
        durable: u64,
    ) -> bool {
        let Some(conversation) = self.conversations.get(&id) else { return true };
        if let Change::Retain { before } = change
            && code != ErrorCode::Conflict
        {
            let others = conversation.changes.iter().filter(|asked| asked.name != name);
            return match code {
                ErrorCode::Invalid => before.0 > durable + 1 || others.filter_map(Asked::mark).any(|of| of >= before.0),
                _ => false,
            };
        }
        let target = change.target().unwrap_or_default().0;
        let message = conversation.entries.get(&target).filter(|entry| entry.kind == EntryKind::Message);
        let is_steady = conversation.membership.get(user).is_none_or(Membership::is_as_it_was_made);
        match code {
            ErrorCode::NoMessage => {
                let may_be_gone = conversation.changes.iter().filter_map(Asked::mark).any(|before| before > target);
                // It may not have been there yet when that was asked.
                message.is_none() || target > durable || !is_steady || may_be_gone
            }
            ErrorCode::Deleted => {
                let mut deletions = conversation.asked_of(target);
                deletions.any(|asked| matches!(asked.change, Change::Delete { .. }))
            }
            ErrorCode::Conflict => {
                let same = |asked: &&Asked| asked.user == *user && asked.name == name;
                conversation.changes.iter().filter(same).count() > 1
            }
            // There are fewer texts than a message can have; pins may come to as many as there can be.
            ErrorCode::LimitReached => matches!(change, Change::Pin { on: true, .. }),
            _ => false,
        }
    }
}

impl Model {
    /// The first entry of a conversation that is not gone for who is being judged.
    #[must_use]
    pub fn hidden_below(&self, id: ConversationId) -> u64 {
        self.conversations.get(&id).map_or(0, |conversation| conversation.hidden_below(self.judged_at))
    }

    /// Whether a message may be told as pinned to who is being judged.
    #[must_use]
    pub fn may_be_pinned(&self, id: ConversationId, target: u64) -> bool {
        let Some(conversation) = self.conversations.get(&id) else { return false };
        let asked = |asked: &Asked| matches!(asked.change, Change::Pin { on: true, .. });
        target >= self.hidden_below(id)
            && !conversation.was_deleted(target, self.judged_at)
            && conversation.asked_of(target).any(asked)
    }

    /// Whether a user may be told to have reacted so.
    #[must_use]
    pub fn may_have_reacted(&self, id: ConversationId, target: u64, reactor: &Reactor) -> bool {
        let Some(conversation) = self.conversations.get(&id) else { return false };
        let asked = |text: &String| {
            let by = |asked: &Asked| {
                asked.user == reactor.user
                    && matches!(&asked.change, Change::React { text: of, on: true, .. } if of == text)
            };
            conversation.asked_of(target).any(by)
        };
        !conversation.was_deleted(target, self.judged_at) && reactor.reactions.iter().all(asked)
    }

    /// Somebody is told what became of messages.
    pub fn states(&mut self, user: &UserId, states: &States) {
        let (id, hidden) = (states.conversation, self.hidden_below(states.conversation));
        for state in &states.states {
            let place = state.sequence.0;
            self.check(place >= hidden, || {
                format!("{user} is told of {id} #{place}, but all before #{hidden} is gone")
            });
            self.told.insert((id, user.clone(), place));
        }
    }
}

/// Takes down what a reader was told of messages.
pub fn tell(told: &mut BTreeMap<(ConversationId, u64), MessageState>, states: States) {
    for state in states.states {
        told.insert((states.conversation, state.sequence.0), state);
    }
}

/// Holds what everybody read in the end of a conversation's messages against its entries. Only of a log that is known whole.
pub fn judge(
    conversation: &Conversation,
    id: ConversationId,
    readings: &[(UserId, Reading)],
    problems: &mut Vec<String>,
) {
    let messages = conversation.became();
    marks(conversation, id, problems);
    for (user, reading) in readings {
        let Some(Ok(log)) = reading.logs.get(&id) else { continue };
        for place in &log.places {
            let Some(known) = conversation.entries.get(place).filter(|entry| entry.kind == EntryKind::Message) else {
                continue;
            };
            let (became, told) = (messages.get(place), reading.states.get(&(id, *place)));
            let is_so = became.map_or(told.is_none(), |became| became.is(told, user));
            if !is_so {
                problems.push(format!("{id} #{place}: {user} was told {told:?}, but it became {became:?}"));
            }
            let body = reading.bodies.get(&(id, *place));
            let says = body.is_some_and(|body| !body.is_empty());
            let deleted = became.is_some_and(|became| became.deleted);
            if says == deleted {
                problems.push(format!("{id} #{place} of {}: {user} read {body:?}, deleted: {deleted}", known.sender));
            }
            let edit = became.and_then(|became| conversation.entries.get(&became.edited?));
            let asked = edit.and_then(|edit| {
                let mut asked = conversation.changes.iter();
                asked.find(|asked| asked.user == edit.sender && asked.name == edit.client_message_id)
            });
            if let (Some(Asked { change: Change::Edit { content, .. }, .. }), Some(body)) = (asked, body)
                && *content != words(body)
                && conversation
                    .changes
                    .iter()
                    .filter(|other| asked.is_some_and(|asked| asked.name == other.name))
                    .count()
                    == 1
            {
                problems.push(format!("{id} #{place}: {user} read something else than the last edit says"));
            }
        }
    }
}

/// Marks hide what was there, and nothing is done any more to what they hide.
fn marks(conversation: &Conversation, id: ConversationId, problems: &mut Vec<String>) {
    let mut hidden = 0;
    for (sequence, entry) in &conversation.entries {
        match view_change(entry.kind, &entry.body) {
            Ok(ChangeView::Retain { before, messages }) => {
                let ordinal = conversation.entries.get(&(before.0.saturating_sub(1))).map_or(0, |last| last.ordinal);
                if before.0 <= hidden || before.0 > *sequence || messages.0 != ordinal {
                    let was = format!("it was #{hidden}, {ordinal}");
                    problems.push(format!("{id} #{sequence} hides {messages} messages before #{before}; {was}"));
                }
                hidden = hidden.max(before.0);
            }
            Ok(
                ChangeView::Edit { target, .. }
                | ChangeView::Delete { target }
                | ChangeView::React { target, .. }
                | ChangeView::Pin { target, .. },
            ) if target.0 < hidden => {
                problems.push(format!("{id} #{sequence} changes #{target}, which was gone: all before #{hidden} was"));
            }
            _ => {}
        }
    }
}
