//! Commands on one conversation: who may do what, and which record it makes.
//!
//! A conversation's commands are carried out in the order of their submission. One that has to wait for a read or for the disk
//! stays at the head of the conversation's queue, and what follows waits behind it.
//!
//! Must not do: I/O. A command either ends here, is staged for the log, or says what it waits for.

use std::{rc::Rc, sync::Arc};

use antiphon_wire::{
    codes::ErrorCode,
    frame::{ArchivedEntryKind, ConversationStart, Entry, EntryKind, InviteCode, Who, view_entry},
    ids::{ClientMessageId, ConversationId, Epoch, LanePosition, Ordinal, Sequence, TimestampMs, UserId},
    limits::GROUP_MEMBERS_MAX,
};
use rkyv::rancor::Error as RancorError;

use crate::{
    changes::ChangedRow,
    conversation::{Conversation, MemberState},
    door::{Command, Done, Member, Output, Refusal, Token},
    encryption::{KeyFault, Vault},
    engine::{
        Shared,
        groups::may_send,
        history::Page,
        jobs::{HistoryJob, Job},
        refusal::{refuse, refuse_because},
        state::{Answer, Block, Core, Resolved, Slot, Staged},
    },
    keys,
    lane::{
        record::{Change, Mark, Record},
        witness::{Held, changes_who_sees},
    },
    options::RECORD_BYTES_MAX,
    rows::{PointerRow, StartRow},
    seams::{Clock, Files, Random},
};

/// The first incarnation of a conversation's log; a restore to an earlier point makes a higher one.
pub(super) const FIRST_EPOCH: Epoch = Epoch(1);

/// What becomes of a command for now.
pub(super) enum Step {
    /// It is answered.
    Done(Answer),
    /// It is answered when its record, or this one, is durable.
    When(LanePosition, Answer),
    /// Its record is staged, and answers it.
    Staged,
    /// A read that is to be done answers it.
    Job(Job),
    /// It waits at the head of the queue.
    Wait(Block, Command),
}

impl From<Refusal> for Step {
    fn from(refusal: Refusal) -> Self {
        Self::Done(Err(refusal))
    }
}

/// The conversation that a command is about; `None` for those about all of a user's.
pub(super) fn conversation_of(command: &Command) -> Option<ConversationId> {
    match command {
        Command::CreateDirect { user, peer } => Some(ConversationId::direct(user, peer)),
        Command::CreateGroup { user, key, .. } => Some(ConversationId::group(user, *key)),
        Command::SetAccount { user, .. } | Command::Account { user, .. } => Some(ConversationId::account(user)),
        Command::Send { conversation, .. }
        | Command::AddMembers { conversation, .. }
        | Command::RemoveMembers { conversation, .. }
        | Command::SetTitle { conversation, .. }
        | Command::SetRoles { conversation, .. }
        | Command::Settings { conversation, .. }
        | Command::Ban { conversation, .. }
        | Command::Roles { conversation, .. }
        | Command::Bans { conversation, .. }
        | Command::MakeInvite { conversation, .. }
        | Command::RevokeInvites { conversation, .. }
        | Command::Invites { conversation, .. }
        | Command::Join { code: InviteCode { conversation, .. }, .. }
        | Command::Mark { conversation, .. }
        | Command::Change { conversation, .. }
        | Command::Reactions { conversation, .. }
        | Command::Pins { conversation, .. }
        | Command::Tell { conversation, .. }
        | Command::History { conversation, .. }
        | Command::Members { conversation, .. } => Some(*conversation),
        Command::Conversations { .. } | Command::CatchUp { .. } => None,
    }
}

/// One command's turn at its conversation.
pub(super) struct Turn<'a, F: Files, C, R> {
    pub(super) shared: &'a Shared<F, C, R>,
    pub(super) core: &'a mut Core<F::File>,
    pub(super) slot: &'a mut Slot,
    pub(super) id: ConversationId,
    pub(super) token: Token,
}

impl<F: Files, C: Clock, R: Random> Turn<'_, F, C, R> {
    /// Carries the command out, as far as it goes.
    pub(super) fn run(mut self, command: Command) -> Step {
        if self.slot.conversation.is_none() && !self.slot.absent {
            return Step::Wait(Block::Load, command);
        }
        if let Some(vault) = &self.shared.vault
            && let Some(refusal) = self.lacks_key(vault, &command)
        {
            return refusal.into();
        }
        if let Some(refusal) = self.misuses_account(&command) {
            return refusal.into();
        }
        match self.lacks_room(&command) {
            None => {}
            Some(Ok(block)) => return Step::Wait(block, command),
            Some(Err(refusal)) => return refusal.into(),
        }
        match command {
            Command::CreateDirect { user, peer } => self.create_direct(user, peer),
            Command::CreateGroup { user, title, members, .. } => self.create_group(user, title, members),
            Command::Send { user, client_message_id, body, conversation } => {
                self.send(user, client_message_id, body, conversation)
            }
            Command::AddMembers { user, members, .. } => self.change_members(&user, members, true),
            Command::RemoveMembers { user, members, .. } => self.change_members(&user, members, false),
            Command::SetTitle { user, title, .. } => self.set_title(user, title),
            Command::SetRoles { user, roles, .. } => self.set_roles(user, roles),
            Command::Settings { user, set, .. } => self.settings(user, set),
            Command::Ban { user, users, on, .. } => self.ban(&user, users, on),
            Command::Roles { ref user, ref after, limit, .. } => match self.roles_page(user, after.as_ref(), limit) {
                Ok(done) => Step::Done(Ok(done)),
                Err(Ok(block)) => Step::Wait(block, command),
                Err(Err(refusal)) => refusal.into(),
            },
            Command::Bans { ref user, ref after, limit, .. } => match self.bans_page(user, after.as_ref(), limit) {
                Ok(done) => Step::Done(Ok(done)),
                Err(Ok(block)) => Step::Wait(block, command),
                Err(Err(refusal)) => refusal.into(),
            },
            Command::MakeInvite { user, make, .. } => self.make_invite(user, &make),
            Command::RevokeInvites { user, invites, .. } => self.revoke_invites(user, invites),
            Command::Invites { ref user, after, limit, .. } => match self.invites_page(user, after, limit) {
                Ok(done) => Step::Done(Ok(done)),
                Err(Ok(block)) => Step::Wait(block, command),
                Err(Err(refusal)) => refusal.into(),
            },
            Command::Join { user, code, look } => self.join(user, code, look),
            Command::SetAccount { user, set } => self.set_account(user, set),
            Command::Account { ref user, ref after, limit } => match self.account_page(user, after.as_deref(), limit) {
                Ok(done) => Step::Done(Ok(done)),
                Err(Ok(block)) => Step::Wait(block, command),
                Err(Err(refusal)) => refusal.into(),
            },
            Command::Mark { user, conversation, read, delivered } => self.mark(user, conversation, read, delivered),
            Command::Change { user, conversation, client_message_id, change } => {
                self.change_message(user, conversation, client_message_id, change)
            }
            Command::Reactions { user, conversation, target, after, limit } => {
                self.reactions(user, conversation, target, after, limit)
            }
            Command::Tell { ref user, .. } => match self.listeners(user) {
                Ok(recipients) => {
                    let Command::Tell { user, conversation, event, data } = command else { unreachable!("it is one") };
                    self.core.outputs.push_back(Output::Told { conversation, user, event, data, recipients });
                    Step::Done(Ok(Done::Told))
                }
                Err(Ok(block)) => Step::Wait(block, command),
                Err(Err(refusal)) => refusal.into(),
            },
            Command::Pins { ref user, .. } => match self.pins(user) {
                Ok(done) => Step::Done(Ok(done)),
                Err(Ok(block)) => Step::Wait(block, command),
                Err(Err(refusal)) => refusal.into(),
            },
            Command::History { ref user, range, limit, conversation: id } => {
                let page = match self.settled_member(user, false) {
                    Ok((conversation, member)) => {
                        let first = conversation.first_seen(member);
                        Page::new(conversation.epoch(), first, self.slot.durable.sequence, range, limit)
                    }
                    Err(Ok(block)) => return Step::Wait(block, command),
                    Err(Err(refusal)) => return refusal.into(),
                };
                let (token, user) = (self.token, user.clone());
                self.history(HistoryJob { token, conversation: id, user, range, limit, page })
            }
            Command::Members { ref user, ref after, limit, .. } => match self.settled_member(user, true) {
                Ok((conversation, _)) => Step::Done(Ok(members_page(conversation, after.as_ref(), limit))),
                Err(Ok(block)) => Step::Wait(block, command),
                Err(Err(refusal)) => refusal.into(),
            },
            Command::Conversations { .. } | Command::CatchUp { .. } => unreachable!("not about one conversation"),
        }
    }
}

impl<F: Files, C: Clock, R> Turn<'_, F, C, R> {
    /// The refusal of a command on a conversation whose key was destroyed or is not there; one that is begun gets a key.
    fn lacks_key(&self, vault: &Vault, command: &Command) -> Option<Refusal> {
        let begins =
            matches!(command, Command::CreateDirect { .. } | Command::CreateGroup { .. } | Command::SetAccount { .. });
        match vault.key(self.id) {
            Ok(_) => None,
            // Only who was in it can name it so.
            Err(KeyFault::Erased) if begins => {
                Some(refuse_because(ErrorCode::Forbidden, "the conversation was erased"))
            }
            Err(KeyFault::Erased) => Some(refuse(ErrorCode::NotFound)),
            Err(KeyFault::Missing) if self.slot.conversation.is_none() => None,
            Err(KeyFault::Missing | KeyFault::Damaged) => Some(refuse(ErrorCode::Damaged)),
        }
    }

    /// The conversation and the member that asks; a stranger learns nothing.
    pub(super) fn member(&self, user: &UserId) -> Result<(&Conversation, &MemberState), Refusal> {
        let conversation = self.slot.conversation.as_deref();
        let found = conversation.and_then(|conversation| Some((conversation, conversation.member(user)?)));
        match found {
            Some(_) if self.core.memory.hides(self.id) => Err(refuse(ErrorCode::Damaged)),
            Some(found) => Ok(found),
            None => Err(refuse(ErrorCode::NotFound)),
        }
    }

    /// As [`Turn::member`], once what is shown of it is durable: pointers too, if `pointers`.
    pub(super) fn settled_member(
        &self,
        user: &UserId,
        pointers: bool,
    ) -> Result<(&Conversation, &MemberState), Result<Block, Refusal>> {
        if let Some(conversation) = self.slot.conversation.as_deref() {
            let needed = if pointers { conversation.record } else { conversation.change };
            if !self.core.stage.durable(needed) {
                return Err(Ok(Block::Settle(needed)));
            }
        }
        self.member(user).map_err(Err)
    }

    /// The conversation of a command that changes more than pointers: of a group only.
    pub(super) fn group_of(&self, user: &UserId) -> Result<&Conversation, Refusal> {
        let (conversation, _) = self.member(user)?;
        if conversation.start.direct {
            return Err(refuse_because(ErrorCode::Forbidden, "a direct conversation does not change"));
        }
        Ok(conversation)
    }

    /// Whom a member tells of what is never stored, if it may.
    fn listeners(&self, user: &UserId) -> Result<Rc<[UserId]>, Result<Block, Refusal>> {
        let (conversation, _) = self.settled_member(user, false)?;
        if conversation.is_one_of(user, Who::Members) {
            return Ok(conversation.recipients());
        }
        Err(Err(refuse_because(ErrorCode::Forbidden, "one who only reads tells nothing")))
    }

    fn create_direct(&mut self, user: UserId, peer: UserId) -> Step {
        if user == peer {
            return refuse_because(ErrorCode::Invalid, "a direct conversation is between two users").into();
        }
        let members = vec![user.clone(), peer];
        self.create(user, ConversationStart { direct: true, title: String::new(), members })
    }

    fn create_group(&mut self, user: UserId, title: String, mut members: Vec<UserId>) -> Step {
        members.push(user.clone());
        members.sort_unstable();
        members.dedup();
        if members.len() > GROUP_MEMBERS_MAX {
            return refuse(ErrorCode::LimitReached).into();
        }
        self.create(user, ConversationStart { direct: false, title, members })
    }

    pub(super) fn create(&mut self, user: UserId, start: ConversationStart) -> Step {
        if self.slot.conversation.is_some() {
            return match self.member(&user) {
                Ok((conversation, _)) => {
                    let last = conversation.last;
                    let (id, epoch) = (conversation.id, conversation.epoch());
                    let done = Done::Created { conversation: id, epoch, sequence: last.sequence, existing: true };
                    // The answer names the last entry, so it waits until that one is durable, not only until the members are.
                    Step::When(conversation.record, Ok(done))
                }
                Err(refusal) => refusal.into(),
            };
        }
        if let Some(refusal) = self.core.cannot_store(&self.shared.options) {
            return refusal.into();
        }
        let time = self.core.stage.now(self.shared.clock.now());
        let row = StartRow { time, epoch: FIRST_EPOCH, direct: start.direct, creator: user.clone() };
        let mut conversation = Box::new(Conversation::new(self.id, row, start.title.as_str().into()));
        let entry = self.entry(&conversation, user, EntryKind::Created, start.to_body(), time);
        let record = match self.fitting(&entry) {
            Ok(record) => record,
            Err(refusal) => return refusal.into(),
        };
        if let Some(vault) = &self.shared.vault {
            vault.make(self.id);
        }
        conversation.advance(self.core.stage.next(), false, time);
        conversation.changed(&start.members, &[]);
        self.core.members_changed(&start.members, &[], conversation.record);
        let done = Done::Created {
            conversation: self.id,
            epoch: FIRST_EPOCH,
            sequence: conversation.last.sequence,
            existing: false,
        };
        let recipients = conversation.recipients();
        self.slot.conversation = Some(conversation);
        self.slot.absent = false;
        let held = self.held(&entry);
        self.stage(record, Some(held), None, done, recipients, self.shared.nobody.clone())
    }

    fn send(&mut self, user: UserId, message: ClientMessageId, body: Vec<u8>, conversation: ConversationId) -> Step {
        let loaded = self.slot.conversation.as_deref();
        let Some(index) = loaded.and_then(|loaded| loaded.index(&user)) else {
            return refuse(ErrorCode::NotFound).into();
        };
        if self.core.memory.hides(self.id) {
            return refuse(ErrorCode::Damaged).into();
        }
        if let Some(step) = self.sent_before(&user, message, &body) {
            return step;
        }
        let loaded = self.slot.conversation.as_deref().expect("its member was found");
        if let Err(refusal) = may_send(loaded, &user) {
            // One that was sent while it was allowed may be in a segment.
            let is_retry = self.slot.resolved != Some(Resolved::Fresh(message)) && self.may_be_stored(message);
            if !is_retry {
                return refusal.into();
            }
        }
        if let Some(refusal) = self.too_old(message) {
            return refusal.into();
        }
        let resolved = self.slot.resolved.take();
        let fresh = resolved == Some(Resolved::Fresh(message)) || !self.may_be_stored(message);
        #[cfg(feature = "planted")]
        let fresh = fresh || crate::planted::forgets();
        if !fresh {
            self.core.counters.idempotency_reads += 1;
            let command = Command::Send { user, conversation, client_message_id: message, body };
            return Step::Wait(Block::Message(message), command);
        }
        if let Some(refusal) = self.core.cannot_store(&self.shared.options) {
            return refusal.into();
        }
        let rows = match self.rows_of_thread(&user, &body) {
            Ok(rows) => rows,
            Err(Ok(block)) => {
                self.slot.resolved = resolved;
                return Step::Wait(block, Command::Send { user, conversation, client_message_id: message, body });
            }
            Err(Err(refusal)) => return refusal.into(),
        };
        let is_of_thread = !rows.is_empty();
        let time = self.core.stage.now(self.shared.clock.now());
        let position = self.core.stage.next();
        let loaded = self.slot.conversation.as_deref().expect("its member was found");
        let mut entry = self.entry(loaded, user, EntryKind::Message, body, time);
        entry.client_message_id = message;
        let record = match self.fitting_with(&entry, rows) {
            Ok(record) => record,
            Err(refusal) => return refusal.into(),
        };
        let loaded = self.slot.conversation.as_deref_mut().expect("its member was found");
        loaded.advance(position, true, time);
        loaded.sent(index);
        if is_of_thread {
            loaded.change = position;
        }
        let done = Done::Sent { sequence: entry.sequence, ordinal: entry.ordinal, time, duplicate: false };
        let recipients = loaded.recipients();
        self.core.memory.active.remember(self.id, message, position);
        let held = self.held(&entry);
        let of_message = Some((message, entry.sender));
        self.stage(record, Some(held), of_message, done, recipients, self.shared.nobody.clone())
    }

    /// Whether a segment may know the message.
    pub(super) fn may_be_stored(&self, message: ClientMessageId) -> bool {
        if !self.core.horizon.has_old_rows() && self.core.newest_ids.exclude(self.id, message) {
            return false;
        }
        let runs = self.shared.sorted.runs();
        runs.may_contain(&keys::message_id(self.id, message))
            || (self.core.horizon.has_old_rows() && runs.may_contain(&keys::old_message_id(self.id, message)))
    }

    /// The refusal of an id that cannot be told from one that was forgotten.
    pub(super) fn too_old(&mut self, message: ClientMessageId) -> Option<Refusal> {
        if !self.core.horizon.is_too_old(message) {
            return None;
        }
        self.core.counters.too_old += 1;
        let hours = self.shared.options.message_ids_window_ms / 3_600_000;
        let now = self.shared.clock.now();
        let text = format!("the client_message_id's own time is more than {hours} hours before the server's, {now} ms");
        Some(refuse_because(ErrorCode::TooOld, &text))
    }

    /// The answer to a message that is in memory or staged already.
    fn sent_before(&mut self, user: &UserId, message: ClientMessageId, body: &[u8]) -> Option<Step> {
        let (core, id) = (&mut *self.core, self.id);
        let position = core.memory.message(id, message)?;
        let step = if !core.stage.durable(position) {
            // None: the log failed before it was durable, and nobody was told that it was.
            let staged = core.stage.record(position)?;
            let archive = staged.record.archive().expect("a message is an entry");
            match same_message(archive, user, body, false) {
                Some(Ok(done)) => Step::When(position, Ok(done)),
                Some(Err(refusal)) => refusal.into(),
                None => refuse(ErrorCode::Damaged).into(),
            }
        } else {
            let entry = core.memory.entry_at(id, position);
            let same = entry.and_then(|archive| {
                let is_changed = core.memory.is_changed(id, archive);
                same_message(archive, user, body, is_changed)
            });
            Step::Done(same.unwrap_or_else(|| Err(refuse(ErrorCode::Damaged))))
        };
        core.counters.duplicates += u64::from(matches!(step, Step::Done(Ok(_)) | Step::When(..)));
        Some(step)
    }

    /// Stages an entry that changes the conversation, with the rows that follow from it; `apply` does the same to its state and says who went.
    pub(super) fn change(
        &mut self,
        user: UserId,
        kind: EntryKind,
        body: Vec<u8>,
        rows: Vec<ChangedRow>,
        apply: impl FnOnce(&mut Conversation) -> Rc<[UserId]>,
    ) -> Step {
        let time = self.core.stage.now(self.shared.clock.now());
        self.change_at(time, user, kind, body, rows, apply)
    }

    /// The same, at a time of the stage that rows tell of already.
    pub(super) fn change_at(
        &mut self,
        time: TimestampMs,
        user: UserId,
        kind: EntryKind,
        body: Vec<u8>,
        rows: Vec<ChangedRow>,
        apply: impl FnOnce(&mut Conversation) -> Rc<[UserId]>,
    ) -> Step {
        if let Some(refusal) = self.core.cannot_store(&self.shared.options) {
            return refusal.into();
        }
        let position = self.core.stage.next();
        let loaded = self.slot.conversation.as_deref().expect("its member was found");
        let entry = self.entry(loaded, user, kind, body, time);
        let record = match self.fitting_with(&entry, rows) {
            Ok(record) => record,
            Err(refusal) => return refusal.into(),
        };
        let loaded = self.slot.conversation.as_deref_mut().expect("its member was found");
        loaded.advance(position, false, time);
        let removed = apply(loaded);
        let recipients = loaded.recipients();
        let held = self.held(&entry);
        self.stage(record, Some(held), None, Done::Changed { sequence: entry.sequence }, recipients, removed)
    }

    fn mark(
        &mut self,
        user: UserId,
        conversation: ConversationId,
        read: Option<Sequence>,
        delivered: Option<Sequence>,
    ) -> Step {
        let (loaded, member) = match self.member(&user) {
            Ok(found) => found,
            Err(refusal) => return refusal.into(),
        };
        let old = member.pointer;
        let durable = self.slot.durable;
        if read.max(delivered).is_some_and(|most| most > durable.sequence) {
            return refuse_because(ErrorCode::Invalid, "a pointer beyond the conversation's end").into();
        }
        let read = read.filter(|read| *read > old.read);
        let ordinal = match read {
            None => Some(old.ordinal),
            Some(read) if read == durable.sequence => Some(durable.ordinal),
            Some(read) => match self.slot.resolved {
                Some(Resolved::Ordinal(sequence, ordinal)) if sequence == read => Some(ordinal),
                _ => self.ordinal_in_memory(read),
            },
        };
        let Some(ordinal) = ordinal else {
            let sequence = read.expect("only a moved pointer needs an ordinal");
            return Step::Wait(Block::Ordinal(sequence), Command::Mark { user, conversation, read, delivered });
        };
        let read = read.unwrap_or(old.read);
        let delivered = delivered.map_or(old.delivered, |delivered| delivered.max(old.delivered)).max(read);
        let pointer = PointerRow { read, ordinal, delivered };
        let unread = loaded.unread_after(ordinal);
        let done = Done::Marked { read, delivered, unread };
        if pointer == old {
            return Step::When(loaded.record, Ok(done));
        }
        self.stage_mark(Mark { conversation, user, pointer }, done)
    }

    fn stage_mark(&mut self, mark: Mark, done: Done) -> Step {
        if let Some(refusal) = self.core.cannot_store(&self.shared.options) {
            return refusal.into();
        }
        let record = Record::Mark(mark.clone());
        if !self.core.stage.filling.has_room(record.length()) {
            return refuse(ErrorCode::Overloaded).into();
        }
        let position = self.core.stage.next();
        self.slot.resolved = None;
        let loaded = self.slot.conversation.as_deref_mut().expect("its member was found");
        loaded.marked(position, &mark.user, mark.pointer);
        let recipients = loaded.recipients();
        self.stage(record, None, None, done, recipients, self.shared.nobody.clone())
    }

    fn ordinal_in_memory(&self, sequence: Sequence) -> Option<Ordinal> {
        let (_, archive) = self.core.memory.entry(self.id, sequence)?;
        view_entry(&archive).ok().map(|entry| Ordinal(entry.ordinal.0.to_native()))
    }

    /// The next entry.
    pub(super) fn entry(
        &self,
        conversation: &Conversation,
        sender: UserId,
        kind: EntryKind,
        body: Vec<u8>,
        time: TimestampMs,
    ) -> Entry {
        Entry {
            conversation: self.id,
            epoch: conversation.epoch(),
            sequence: conversation.last.sequence.next(),
            ordinal: Ordinal(conversation.last.ordinal.0 + u64::from(kind == EntryKind::Message)),
            time_ms: time,
            kind,
            client_message_id: ClientMessageId([0; 16]),
            sender,
            body,
        }
    }

    /// The entry's record, if the batch has room for it.
    fn fitting(&mut self, entry: &Entry) -> Result<Record, Refusal> {
        self.fitting_with(entry, Vec::new())
    }

    /// The same, with rows that it brings beside its own.
    fn fitting_with(&mut self, entry: &Entry, rows: Vec<ChangedRow>) -> Result<Record, Refusal> {
        let stage = &mut self.core.stage;
        let mut scratch = std::mem::take(&mut stage.scratch);
        scratch.clear();
        let scratch =
            rkyv::api::high::to_bytes_in::<_, RancorError>(entry, scratch).expect("an entry has no failing serializer");
        let archive = Arc::from(scratch.as_slice());
        stage.scratch = scratch;
        let record = if rows.is_empty() { Record::Entry(archive) } else { Record::Change(Change { archive, rows }) };
        match record.length() {
            length if length > RECORD_BYTES_MAX => Err(refuse(ErrorCode::TooLarge)),
            length if !stage.filling.has_room(length) => Err(refuse(ErrorCode::Overloaded)),
            _ => Ok(record),
        }
    }

    pub(super) fn held(&self, entry: &Entry) -> Held {
        let members_changed = changes_who_sees(entry.kind);
        Held { conversation: self.id, last: entry.sequence, members_changed }
    }

    /// Puts a record into the batch being filled.
    pub(super) fn stage(
        &mut self,
        record: Record,
        held: Option<Held>,
        message: Option<(ClientMessageId, UserId)>,
        done: Done,
        recipients: Rc<[UserId]>,
        removed: Rc<[UserId]>,
    ) -> Step {
        let (token, conversation) = (self.token, self.id);
        let core = &mut *self.core;
        let stage = &mut core.stage;
        let position = stage.next();
        match &self.shared.vault {
            None => stage.filling.push(&record, held),
            Some(vault) => stage.filling.push_sealed(&record, held, (vault, core.log.salt), position.0, conversation),
        }
        let partly = None;
        let token = Some(token);
        let staged = Staged { position, conversation, record, message, token, done, recipients, removed, partly };
        stage.staged.push_back(staged);
        Step::Staged
    }

    fn history(&mut self, mut job: HistoryJob) -> Step {
        let memory = &self.core.memory;
        job.page.collect_from_memory(self.id, memory);
        if job.page.needs_segments() {
            return Step::Job(Job::History(Box::new(job)));
        }
        Step::Done(job.page.finish(self.id, &job.user, memory))
    }
}

fn members_page(conversation: &Conversation, after: Option<&UserId>, limit: u32) -> Done {
    let members = conversation.members();
    let start = after.map_or(0, |after| members.partition_point(|member| member.user <= *after));
    let page = members[start..].iter().take(limit as usize).map(|member| Member {
        user: member.user.clone(),
        role: conversation.role(&member.user),
        visible_from: member.visible_from,
        read: member.pointer.read,
        delivered: member.pointer.delivered,
    });
    Done::Members { members: page.collect(), more: members.len() - start > limit as usize }
}

/// Whether a message stored before is the same: by the same sender, of the same content, unless that `is_changed` and what it was is not
/// known any more. `None` if it cannot be read.
pub(super) fn same_message(archive: &[u8], user: &UserId, body: &[u8], is_changed: bool) -> Option<Answer> {
    let entry = view_entry(archive).ok()?;
    let is_message = matches!(entry.kind, ArchivedEntryKind::Message);
    let is_same = entry.body.as_slice() == body || (is_changed && is_message);
    if entry.sender.as_str() != user.as_str() || !is_message || !is_same {
        return Some(Err(refuse(ErrorCode::Conflict)));
    }
    Some(Ok(Done::Sent {
        sequence: Sequence(entry.sequence.0.to_native()),
        ordinal: Ordinal(entry.ordinal.0.to_native()),
        time: TimestampMs(entry.time_ms.0.to_native()),
        duplicate: true,
    }))
}
