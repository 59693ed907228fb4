//! Commands that change messages, and those that ask who reacted and what is pinned.
//!
//! A change is judged by its message as it is now: by the entry, its state, the user's own reactions, and the last edit, whose content goes
//! with the next. Where these are not in memory they are read first, at the head of the conversation's queue ([`Block::Target`]). A change
//! waits until those before it in its conversation are durable, so that what is gathered is all there is; messages do not wait for it, nor it
//! for them, unless it is about one of them, or they are in a thread: how many replies a message has is among what became of it.
//!
//! Must not do: I/O; the reading is in [`Engine::gather`].

use std::{rc::Rc, sync::Arc};

use antiphon_wire::{
    codes::ErrorCode,
    frame::{
        ArchivedEntry, Change, Content, ContentView, EntryKind, Reactor, Role, Who, is_plain_text, view_change,
        view_content, view_entry,
    },
    ids::{ClientMessageId, ConversationId, Ordinal, Sequence, TimestampMs, UserId},
};

use crate::{
    changes::{ChangedRow, Full, StateRow, Subject, decode_reactor, with_body, without_content},
    conversation::{Conversation, MemberState},
    door::{Command, Done, Partly, Refusal},
    engine::{
        Engine,
        commands::{Step, Turn},
        jobs::Job,
        reads::{archive_of, malformed},
        refusal::{refuse, refuse_because, unreadable},
        state::{Answer, Block, Memory, Resolved},
        stored::Stored,
    },
    error::StoreError,
    keys::{self, Key},
    lane::record::{self, Record},
    options::RECORD_BYTES_MAX,
    row::{Direction, SharedBytes},
    seams::{Clock, Files, Random},
};

/// An entry that a command is about, as it is now.
#[derive(Debug, Clone)]
pub(super) struct Target {
    entry: Stored,
    /// Of an edited message: the last edit's own entry.
    edit: Option<Stored>,
    /// Of one in a thread: the message that began it, and what became of that.
    root: Option<(Sequence, StateRow)>,
}

/// Who may do what to whose message: a message is its sender's, and its group's admins may take it away.
fn may(conversation: &Conversation, user: &UserId, change: &Change, sender: &str) -> Result<(), Refusal> {
    let settings = &conversation.group.settings;
    let is_own = sender == user.as_str();
    let is_allowed = match change {
        Change::Edit { content, .. } => {
            let means_all = content.view().is_ok_and(|view| view.everybody);
            let may_mean = !means_all || conversation.is_one_of(user, settings.everybody);
            is_own && conversation.is_one_of(user, settings.send) && may_mean
        }
        Change::Delete { .. } => is_own || (!conversation.start.direct && conversation.role(user).is_admin()),
        Change::React { .. } => conversation.is_one_of(user, Who::Members),
        Change::Pin { .. } => conversation.is_one_of(user, settings.pin),
        Change::Retain { .. } => !conversation.start.direct && conversation.role(user) == Role::Owner,
    };
    if is_allowed { Ok(()) } else { Err(refuse(ErrorCode::Forbidden)) }
}

impl<F: Files, C: Clock, R> Turn<'_, F, C, R> {
    /// Carries out a change as far as it goes.
    pub(super) fn change_message(
        &mut self,
        user: UserId,
        conversation: ConversationId,
        message: ClientMessageId,
        change: Change,
    ) -> Step {
        let command = |user, change| Command::Change { user, conversation, client_message_id: message, change };
        match self.settled_member(&user, false) {
            Ok(_) => {}
            Err(Ok(block)) => return Step::Wait(block, command(user, change)),
            Err(Err(refusal)) => return refusal.into(),
        }
        if let Some(step) = self.changed_before(&user, message, &change) {
            return step;
        }
        if let Some(refusal) = self.too_old(message) {
            return refusal.into();
        }
        let is_fresh = self.slot.resolved == Some(Resolved::Fresh(message)) || !self.may_be_stored(message);
        if !is_fresh {
            self.core.counters.idempotency_reads += 1;
            return Step::Wait(Block::Message(message), command(user, change));
        }
        if let Some(refusal) = self.core.cannot_store(&self.shared.options) {
            return refusal.into();
        }
        let target = match self.needed(&user, &change) {
            Ok(Some(sequence)) => match self.gathered(&user, sequence) {
                Ok(target) => Some(target),
                Err(block) => return Step::Wait(block, command(user, change)),
            },
            Ok(None) => None,
            Err(refusal) => return refusal.into(),
        };
        self.slot.resolved = None;
        self.judge(user, message, &change, target).unwrap_or_else(Step::from)
    }

    /// The entry that has to be known for a change; a refusal if there is none that the user sees.
    fn needed(&self, user: &UserId, change: &Change) -> Result<Option<Sequence>, Refusal> {
        let (conversation, member) = self.member(user)?;
        match change {
            Change::Retain { before } => {
                may(conversation, user, change, "")?;
                let next = conversation.last.sequence.next();
                if *before > next || *before <= conversation.retention.before {
                    return Err(refuse_because(ErrorCode::Invalid, "before is behind the end or before what is gone"));
                }
                // How many messages are gone the last entry that goes tells.
                Ok(Some(Sequence(before.0 - 1)).filter(|last| last.0 > 0))
            }
            _ => {
                let target = change.target().unwrap_or_default();
                let is_seen = target >= conversation.first_seen(member) && target <= conversation.last.sequence;
                if is_seen { Ok(Some(target)) } else { Err(refuse(ErrorCode::NoMessage)) }
            }
        }
    }

    /// What is known of an entry; otherwise what the command has to wait for.
    pub(super) fn gathered(&mut self, user: &UserId, sequence: Sequence) -> Result<Box<Target>, Block> {
        if sequence > self.slot.durable.sequence {
            let record = self.slot.conversation.as_deref().map(|conversation| conversation.record);
            return Err(Block::Settle(record.expect("its member was found")));
        }
        if let Some(target) = self.slot.target.take_if(|target| target.entry.sequence == sequence) {
            return Ok(target);
        }
        match Target::in_memory(self.id, user, sequence, &self.core.memory) {
            Some(target) => Ok(Box::new(target)),
            None => Err(Block::Target(sequence)),
        }
    }

    /// What a message means and refers to is held to what its sender may and sees; gives the rows of the thread that it is in.
    pub(super) fn rows_of_thread(
        &mut self,
        user: &UserId,
        body: &[u8],
    ) -> Result<Vec<ChangedRow>, Result<Block, Refusal>> {
        if is_plain_text(body) {
            return Ok(Vec::new());
        }
        let view = view_content(body).map_err(|_| Err(refuse(ErrorCode::Invalid)))?;
        let (conversation, member) = self.member(user).map_err(Err)?;
        if view.everybody && !conversation.is_one_of(user, conversation.group.settings.everybody) {
            return Err(Err(refuse_because(ErrorCode::Forbidden, "only some of the group may mean everybody")));
        }
        let seen = conversation.first_seen(member)..=conversation.last.sequence;
        if [view.reply_to, view.thread].into_iter().flatten().any(|of| !seen.contains(&of)) {
            return Err(Err(refuse(ErrorCode::NoMessage)));
        }
        let Some(root) = view.thread else { return Ok(Vec::new()) };
        self.settled_member(user, false)?;
        let target = self.gathered(user, root).map_err(Ok)?;
        target.answered().map_err(Err)
    }

    /// The answer to a change that is in memory or staged already.
    fn changed_before(&mut self, user: &UserId, message: ClientMessageId, change: &Change) -> Option<Step> {
        let position = self.core.memory.message(self.id, message)?;
        let damaged = || Err(refuse(ErrorCode::Damaged));
        let step = if self.core.stage.durable(position) {
            let memory = &self.core.memory;
            let sequence = memory.entry_at(self.id, position).and_then(|archive| sequence_of(archive));
            // As it is now, not as it was: what an edit said may be gone.
            let archive = sequence.and_then(|sequence| memory.entry(self.id, sequence));
            Step::Done(archive.and_then(|(_, archive)| same_change(&archive, user, change)).unwrap_or_else(damaged))
        } else {
            // None: the log failed before it was durable, and nobody was told that it was.
            let staged = self.core.stage.record(position)?;
            match staged.record.archive().and_then(|archive| same_change(archive, user, change)) {
                Some(Ok(done)) => Step::When(position, Ok(done)),
                Some(Err(refusal)) => refusal.into(),
                None => refuse(ErrorCode::Damaged).into(),
            }
        };
        self.core.counters.duplicates += u64::from(matches!(step, Step::Done(Ok(_)) | Step::When(..)));
        Some(step)
    }

    /// Judges a change by what was gathered, and stages it.
    fn judge(
        &mut self,
        user: UserId,
        message: ClientMessageId,
        change: &Change,
        target: Option<Box<Target>>,
    ) -> Result<Step, Refusal> {
        let time = self.core.stage.now(self.shared.clock.now());
        let (conversation, _) = self.member(&user)?;
        let at = conversation.last.sequence.next();
        let mut messages = Ordinal(0);
        let mut subject =
            Subject { pins: conversation.pins.clone(), retention: conversation.retention, ..Subject::default() };
        if let Some(target) = &target {
            let entry = target.view()?;
            messages = Ordinal(entry.ordinal.0.to_native());
            if change.target().is_some() {
                target.check(conversation, &user, change, entry)?;
                subject.state = target.entry.state.clone().unwrap_or_default();
                subject.mine = target.entry.mine.clone();
            }
        }
        let kept = match (change, &target) {
            (Change::Edit { target: of, content }, Some(target)) => Some(target.edited(*of, content)?),
            _ => None,
        };
        let change = kept.as_ref().unwrap_or(change);
        let body = change.to_body(messages);
        let view = view_change(change.kind(), &body).map_err(|_| refuse(ErrorCode::Invalid))?;
        let mut rows = subject.apply(&view, at, time, &user).map_err(full)?;
        if let Some(target) = &target {
            rows.extend(target.replaced(change).ok_or_else(|| refuse(ErrorCode::Damaged))?);
        }
        let outsiders = match change {
            Change::Edit { target, .. } => conversation.outsiders(*target),
            _ => Vec::new(),
        };
        let mut entry = self.entry(conversation, user, change.kind(), body, time);
        entry.client_message_id = message;
        let archive: Arc<[u8]> = Arc::from(entry.to_archive().as_slice());
        let partly = match outsiders.is_empty() {
            true => None,
            false => {
                without_content(&archive).map(|archive| Box::new(Partly { recipients: Rc::from(outsiders), archive }))
            }
        };
        let record = Record::Change(record::Change { archive, rows });
        match record.length() {
            length if length > RECORD_BYTES_MAX => return Err(refuse(ErrorCode::TooLarge)),
            length if !self.core.stage.filling.has_room(length) => return Err(refuse(ErrorCode::Overloaded)),
            _ => {}
        }
        let position = self.core.stage.next();
        let loaded = self.slot.conversation.as_deref_mut().expect("its member was found");
        loaded.advance(position, false, time);
        (loaded.pins, loaded.retention) = (subject.pins, subject.retention);
        let recipients = loaded.recipients();
        let done = Done::Sent { sequence: entry.sequence, ordinal: entry.ordinal, time, duplicate: false };
        self.core.memory.active.remember(self.id, message, position);
        let held = self.held(&entry);
        let step = self.stage(record, Some(held), None, done, recipients, self.shared.nobody.clone());
        if let Some(staged) = self.core.stage.staged.back_mut() {
            staged.partly = partly;
        }
        Ok(step)
    }

    /// Carries out a question who reacted, as far as it goes.
    pub(super) fn reactions(
        &mut self,
        user: UserId,
        conversation: ConversationId,
        target: Sequence,
        after: Option<UserId>,
        limit: u32,
    ) -> Step {
        let is_seen = match self.settled_member(&user, false) {
            Ok((conversation, member)) => {
                target >= conversation.first_seen(member) && target <= self.slot.durable.sequence
            }
            Err(Ok(block)) => {
                return Step::Wait(block, Command::Reactions { user, conversation, target, after, limit });
            }
            Err(Err(refusal)) => return refusal.into(),
        };
        if !is_seen {
            return refuse(ErrorCode::NoMessage).into();
        }
        let found = match self.gathered(&user, target) {
            Ok(found) => found,
            Err(block) => return Step::Wait(block, Command::Reactions { user, conversation, target, after, limit }),
        };
        match found.view() {
            Ok(entry) if EntryKind::from(&entry.kind) != EntryKind::Message => refuse(ErrorCode::NoMessage).into(),
            Ok(_) if found.is_deleted() => refuse(ErrorCode::Deleted).into(),
            Ok(_) => Step::Job(Job::Reactions { token: self.token, conversation, target, after, limit }),
            Err(refusal) => refusal.into(),
        }
    }

    /// The pinned messages that a user sees.
    pub(super) fn pins(&self, user: &UserId) -> Result<Done, Result<Block, Refusal>> {
        let (conversation, member) = self.settled_member(user, false)?;
        let first = conversation.first_seen(member);
        Ok(Done::Pins(conversation.pins.iter().copied().filter(|pin| *pin >= first).collect()))
    }
}

fn full(full: Full) -> Refusal {
    let text = match full {
        Full::Reactions => "the message has as many different reactions as may be",
        Full::Pins => "the conversation has as many pins as may be",
    };
    refuse_because(ErrorCode::LimitReached, text)
}

impl Conversation {
    /// Members who do not see an entry.
    fn outsiders(&self, entry: Sequence) -> Vec<UserId> {
        let outside = |member: &&MemberState| self.first_seen(member) > entry;
        self.members().iter().filter(outside).map(|member| member.user.clone()).collect()
    }
}

impl Target {
    /// An entry, if memory knows all there is to it.
    fn in_memory(id: ConversationId, user: &UserId, sequence: Sequence, memory: &Memory) -> Option<Self> {
        // All that became of an entry in memory is in memory.
        let (position, archive) = memory.entry(id, sequence)?;
        let mut entry = Stored::new(sequence, position, archive);
        entry.state = memory.state_row(id, sequence);
        entry.mine = memory.reactor_row(id, sequence, user).unwrap_or_default();
        let edit = match entry.edited() {
            Some(edited) => {
                let (position, archive) = memory.entry(id, edited)?;
                Some(Stored::new(edited, position, archive))
            }
            None => None,
        };
        let root = match entry.thread() {
            Some(root) => {
                let state = memory.state_row(id, root);
                Some((root, state.or_else(|| memory.entry(id, root).map(|_| StateRow::default()))?))
            }
            None => None,
        };
        Some(Self { entry, edit, root })
    }

    fn view(&self) -> Result<&ArchivedEntry, Refusal> {
        view_entry(&self.entry.archive).map_err(|_| refuse(ErrorCode::Damaged))
    }

    fn is_deleted(&self) -> bool {
        self.entry.state.as_ref().is_some_and(|state| state.deleted)
    }

    /// Whether the user may do this to the message, and it to this message.
    fn check(
        &self,
        conversation: &Conversation,
        user: &UserId,
        change: &Change,
        entry: &ArchivedEntry,
    ) -> Result<(), Refusal> {
        if EntryKind::from(&entry.kind) != EntryKind::Message {
            return Err(refuse(ErrorCode::NoMessage));
        }
        may(conversation, user, change, entry.sender.as_str())?;
        if self.is_deleted() { Err(refuse(ErrorCode::Deleted)) } else { Ok(()) }
    }

    /// The row of the message as that of one that has another reply in its thread.
    fn answered(&self) -> Result<Vec<ChangedRow>, Refusal> {
        let entry = self.view()?;
        if EntryKind::from(&entry.kind) != EntryKind::Message {
            return Err(refuse(ErrorCode::NoMessage));
        }
        if self.is_deleted() {
            return Err(refuse(ErrorCode::Deleted));
        }
        if self.root.is_some() {
            return Err(refuse_because(ErrorCode::Invalid, "a thread begins with a message that is in none"));
        }
        let mut state = self.entry.state.clone().unwrap_or_default();
        state.replies = state.replies.saturating_add(1);
        Ok(vec![ChangedRow::new(keys::state_suffix(self.entry.sequence), state.encode())])
    }

    /// The edit as it is stored: with what the message refers to.
    fn edited(&self, target: Sequence, content: &Content) -> Result<Change, Refusal> {
        let now = view_content(&self.view()?.body).map_err(|_| refuse(ErrorCode::Damaged))?;
        let view = content.view().map_err(|_| refuse(ErrorCode::Invalid))?;
        Ok(Change::Edit { target, content: view.in_place_of(&now).to_content() })
    }

    /// The rows of entries whose content goes, or is another, and of a thread that has one reply less. `None` if what is stored does not have
    /// its form.
    fn replaced(&self, change: &Change) -> Option<Vec<ChangedRow>> {
        let body = match change {
            Change::Edit { content, .. } => content.0.clone(),
            Change::Delete { .. } => Vec::new(),
            _ => return Some(Vec::new()),
        };
        let mut rows = Vec::new();
        let Stored { sequence, position, archive, .. } = &self.entry;
        rows.push(ChangedRow::entry(*sequence, *position, &with_body(archive, body)?));
        if let Some(Stored { sequence, position, archive, .. }) = &self.edit {
            rows.push(ChangedRow::entry(*sequence, *position, &without_content(archive)?));
        }
        if let (Change::Delete { .. }, Some((root, state))) = (change, &self.root)
            && !state.deleted
        {
            let state = StateRow { replies: state.replies.saturating_sub(1), ..state.clone() };
            rows.push(ChangedRow::new(keys::state_suffix(*root), state.encode()));
        }
        Some(rows)
    }
}

impl Stored {
    fn edited(&self) -> Option<Sequence> {
        self.state.as_ref()?.edited.map(|(sequence, _)| sequence)
    }

    /// The message that began the thread that it is in.
    fn thread(&self) -> Option<Sequence> {
        let entry =
            view_entry(&self.archive).ok().filter(|entry| EntryKind::from(&entry.kind) == EntryKind::Message)?;
        view_content(&entry.body).ok()?.thread
    }
}

fn sequence_of(archive: &[u8]) -> Option<Sequence> {
    view_entry(archive).ok().map(|entry| Sequence(entry.sequence.0.to_native()))
}

/// Whether a change stored before is the same: by the same sender, of the same kind and content. `None` if it cannot be read.
pub(super) fn same_change(archive: &[u8], user: &UserId, change: &Change) -> Option<Answer> {
    let entry = view_entry(archive).ok()?;
    let (kind, stored) = (EntryKind::from(&entry.kind), entry.body.as_slice());
    let body = change.to_body(Ordinal(0));
    // What an edit said may be gone, and how many messages a mark has counted is the server's.
    let is_same = match kind {
        EntryKind::Retention => stored.get(..8) == body.get(..8),
        EntryKind::Edit if stored.len() == 8 => stored == &body[..8],
        EntryKind::Edit => stored[..8] == body[..8] && says_the_same(&stored[8..], &body[8..]),
        _ => stored == body,
    };
    if kind != change.kind() || entry.sender.as_str() != user.as_str() || !is_same {
        return Some(Err(refuse(ErrorCode::Conflict)));
    }
    Some(Ok(Done::Sent {
        sequence: Sequence(entry.sequence.0.to_native()),
        ordinal: Ordinal(entry.ordinal.0.to_native()),
        time: TimestampMs(entry.time_ms.0.to_native()),
        duplicate: true,
    }))
}

/// Whether a stored edit's content says what a client's does, which does not refer to anything.
fn says_the_same(stored: &[u8], sent: &[u8]) -> bool {
    view_content(stored).is_ok_and(|view| view.in_place_of(&ContentView::default()).to_content().0 == sent)
}

impl<F: Files, C: Clock, R: Random> Engine<F, C, R> {
    /// Reads what there is of an entry that is not in memory.
    pub(super) async fn gather(&self, id: ConversationId, user: UserId, sequence: Sequence) {
        let gathered = self.gather_target(id, &user, sequence).await;
        let mut state = self.shared.state.borrow_mut();
        match gathered {
            Ok(target) => {
                if let Some(slot) = state.slots.get_mut(&id) {
                    slot.blocked = None;
                    slot.target = Some(Box::new(target));
                }
            }
            Err(error) => self.answer_first(&mut state, id, Err(unreadable(&error))),
        }
        self.drain(&mut state, id);
        self.wake_after_job(state);
    }

    async fn gather_target(&self, id: ConversationId, user: &UserId, sequence: Sequence) -> Result<Target, StoreError> {
        loop {
            let flushes = self.shared.state.borrow().core.memory.flushes;
            let mut entry = self.stored_entry(id, sequence).await?;
            let runs = self.shared.sorted.runs();
            let value = |row: Option<crate::row::Change<SharedBytes>>| row.and_then(crate::row::Change::value);
            let root = entry.thread();
            let stored_state = async |of: Sequence| -> Result<Option<StateRow>, StoreError> {
                let value = value(runs.get(&keys::within(id, &keys::state_suffix(of))).await?);
                value.map(|value| StateRow::decode(&value).ok_or_else(malformed)).transpose()
            };
            entry.state = stored_state(sequence).await?;
            let root = match root {
                Some(root) => {
                    let now = self.shared.state.borrow().core.memory.state_row(id, root);
                    let state = match now {
                        Some(state) => state,
                        None => stored_state(root).await?.unwrap_or_default(),
                    };
                    Some((root, state))
                }
                None => None,
            };
            if let Some(value) = value(runs.get(&keys::within(id, &keys::reactor_suffix(sequence, user))).await?) {
                entry.mine = decode_reactor(&value).ok_or_else(malformed)?;
            }
            self.shared.state.borrow().core.memory.overlay(id, user, std::slice::from_mut(&mut entry));
            let edit = match entry.edited() {
                Some(edited) => Some(self.stored_entry(id, edited).await?),
                None => None,
            };
            if self.shared.state.borrow().core.memory.flushes == flushes {
                return Ok(Target { entry, edit, root });
            }
        }
    }

    /// An entry as it is now, without what became of it.
    pub(super) async fn stored_entry(&self, id: ConversationId, sequence: Sequence) -> Result<Stored, StoreError> {
        let now = self.shared.state.borrow().core.memory.entry_now(id, sequence);
        let (position, archive) = match now {
            Some(found) => found,
            None => {
                let row = self.shared.sorted.runs().get(&keys::entry(id, sequence)).await?;
                let value = row.and_then(|row| row.value()).ok_or_else(malformed)?;
                archive_of(&value).ok_or_else(malformed)?
            }
        };
        Ok(Stored::new(sequence, position, archive))
    }

    /// A page of who reacted to a message.
    pub(super) async fn list_reactions(
        &self,
        id: ConversationId,
        target: Sequence,
        after: Option<UserId>,
        limit: u32,
    ) -> Answer {
        let range = keys::reactors_range(id, target, after.as_ref());
        loop {
            let runs = self.shared.sorted.runs();
            let (flushes, layers) = {
                let memory = &self.shared.state.borrow().core.memory;
                let layer = |memtable: &crate::memtable::Memtable| memtable.changes_in(id, &range);
                (memory.flushes, memory.oldest_first().map(layer).collect::<Vec<_>>())
            };
            let mut scan = runs.scan(&range, Direction::Forward, Some(&keys::conversation(id)));
            for layer in layers {
                scan = scan.with_newer(layer.into_iter());
            }
            let (mut reactions, mut more) = (Vec::new(), false);
            while let Some(row) = scan.next().await.map_err(|error| unreadable(&error))? {
                let (Some(Key::Reactor(_, user)), Some(texts)) = (keys::parse(row.key), decode_reactor(row.value))
                else {
                    return Err(refuse(ErrorCode::Damaged));
                };
                more = reactions.len() == limit as usize;
                if more {
                    break;
                }
                reactions.push(Reactor { user, reactions: texts });
            }
            let memory = &self.shared.state.borrow().core.memory;
            if memory.flushes != flushes {
                continue;
            }
            // It may have been deleted meanwhile.
            if memory.state_row(id, target).is_some_and(|state| state.deleted) {
                return Err(refuse(ErrorCode::Deleted));
            }
            return Ok(Done::Reactions { reactions, more });
        }
    }

    /// Whether a message was edited since it was stored, or deleted: what it said first is not known then.
    pub(super) async fn is_changed(&self, id: ConversationId, sequence: Sequence) -> Result<bool, StoreError> {
        let state = self.shared.state.borrow().core.memory.state_row(id, sequence);
        let state = match state {
            Some(state) => Some(state),
            None => {
                let row = self.shared.sorted.runs().get(&keys::within(id, &keys::state_suffix(sequence))).await?;
                row.and_then(|row| row.value()).and_then(|value| StateRow::decode(&value))
            }
        };
        Ok(state.is_some_and(|state| state.edited.is_some() || state.deleted))
    }
}

/// Who asks, by a command that may wait for an entry.
pub(super) fn asking_user(command: &Command) -> Option<&UserId> {
    match command {
        Command::Change { user, .. } | Command::Reactions { user, .. } | Command::Send { user, .. } => Some(user),
        _ => None,
    }
}
