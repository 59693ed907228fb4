//! Reads from segments that commands wait for, each a small future; so many at once as the options allow.
//!
//! A read looks at segments as they were when it began and at the memtables when it ends. If a memtable became a segment in between,
//! it looks again: otherwise what moved could be in neither.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::Poll,
};

use antiphon_wire::{
    codes::ErrorCode,
    frame::view_entry,
    ids::{ClientMessageId, ConversationId, LanePosition, Ordinal, Sequence},
};
use futures_util::stream::{FuturesUnordered, StreamExt};

use crate::{
    compaction::Expiry,
    conversation::{Conversation, Loading},
    door::{Command, Refusal, Token},
    engine::{
        Engine,
        changes::same_change,
        commands::same_message,
        jobs::{HistoryJob, Job, Kind},
        refusal::{refuse, unreadable},
        state::{Answer, Memory, Resolved, State},
    },
    error::{DamagedKeys, StoreError},
    keys,
    row::{Direction, SharedBytes},
    rows,
    runs::{Row, Scan, Step},
    seams::{Clock, Files, Random},
};

/// Jobs that end in one turn: those that find all in the cache never wait, and commits are to have their turn between. A tenth of a millisecond of pages.
const JOBS_A_TURN: usize = 2;

/// A message that was found, and whether what it said first is not known any more.
type Known = (Arc<[u8]>, bool);

/// The error for rows that do not have their form though their block's checksum holds.
pub(super) fn malformed() -> StoreError {
    let what = "a row does not have its form";
    StoreError::Damaged { file: "segments".into(), offset: 0, what, keys: DamagedKeys::all() }
}

impl<F: Files, C: Clock, R: Random> Engine<F, C, R> {
    /// Does what is in the queues of jobs, several at once, until the engine is closed.
    pub(super) async fn read_loop(&self) {
        let mut running: FuturesUnordered<Pin<Box<dyn Future<Output = Kind> + '_>>> = FuturesUnordered::new();
        poll_fn(|context| {
            let mut done = 0;
            loop {
                let places = self.shared.options.reads_in_flight_max;
                loop {
                    let job = self.shared.state.borrow_mut().core.jobs.start(places);
                    let Some((kind, job)) = job else { break };
                    running.push(Box::pin(async move {
                        self.job(job).await;
                        kind
                    }));
                }
                if let Poll::Ready(Some(kind)) = running.poll_next_unpin(context) {
                    self.shared.state.borrow_mut().core.jobs.finish(kind);
                    done += 1;
                    if done == JOBS_A_TURN {
                        context.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    continue;
                }
                if self.shared.state.borrow().core.closed {
                    return Poll::Ready(());
                }
                if self.shared.reading.poll(context).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await;
    }

    async fn job(&self, job: Job) {
        match job {
            Job::Load(id) => {
                let loaded = self.load(id).await;
                self.finish_load(id, loaded);
            }
            Job::Message(id, message) => {
                let found = self.find_message(id, message).await;
                self.finish_message(id, message, found);
            }
            Job::Ordinal(id, sequence) => {
                let ordinal = self.entry_in_segments(id, sequence).await.and_then(|archive| {
                    let entry = view_entry(&archive).map_err(|_| refuse(ErrorCode::Damaged))?;
                    Ok(Ordinal(entry.ordinal.0.to_native()))
                });
                self.finish_ordinal(id, sequence, ordinal);
            }
            Job::Joined(id, users) => {
                let counted = self.count_users(&users).await;
                self.release_users(&users);
                self.finish_joined(id, counted);
            }
            Job::Target(id, user, sequence) => self.gather(id, user, sequence).await,
            Job::History(job) => self.read_history(*job).await,
            Job::Reactions { token, conversation, target, after, limit } => {
                let answer = self.list_reactions(conversation, target, after, limit).await;
                self.finish_job(token, answer);
            }
            Job::Conversations { token, user, after, limit } => {
                let answer = self.list_conversations(user, after, limit).await;
                self.finish_job(token, answer);
            }
            Job::CatchUp { token, request } => self.catch_up(token, *request).await,
        }
    }

    /// Answers a command that was not in a conversation's queue.
    pub(super) fn finish_job(&self, token: Token, answer: Answer) {
        let mut state = self.shared.state.borrow_mut();
        state.core.waiting -= 1;
        state.core.answer(token, answer);
        self.wake_after_job(state);
    }

    pub(super) fn wake_after_job(&self, state: std::cell::RefMut<'_, State<F::File>>) {
        let finished = state.core.closing && state.core.waiting == 0;
        self.wake(state);
        if finished {
            self.shared.commit.raise();
        }
    }

    async fn read_history(&self, job: HistoryJob) {
        let HistoryJob { token, conversation, user, range, limit, mut page } = job;
        let runs = self.shared.sorted.runs();
        page.read_segments(conversation, &user, &runs).await;
        let mut state = self.shared.state.borrow_mut();
        if !page.is_overtaken(conversation, &state.core.memory) {
            let answer = page.finish(conversation, &user, &state.core.memory);
            drop(state);
            return self.finish_job(token, answer);
        }
        // It is asked again, and judged anew.
        let command = Command::History { user, conversation, range, limit };
        state.slots.entry(conversation).or_default().queue.push_back((token, command));
        self.drain(&mut state, conversation);
        self.wake_after_job(state);
    }

    /// A conversation's durable state, if segments need not be read for it.
    pub(super) fn load_from_memory(&self, memory: &Memory, id: ConversationId) -> Option<Option<Conversation>> {
        let range = keys::state_range(id);
        let mut scan = self.shared.sorted.runs().scan(&range, Direction::Forward, Some(&keys::conversation(id)));
        let mut loading = Loading::default();
        loop {
            match scan.next_cached() {
                Ok(Step::Row(row)) => loading.row(row.key, row.value)?,
                Ok(Step::End) => break,
                Ok(Step::NotCached) | Err(_) => return None,
            }
        }
        for memtable in memory.oldest_first() {
            if let Some(tail) = memtable.tail(id) {
                loading.tail(tail);
            }
        }
        Some(loading.finish(id))
    }

    /// A conversation's durable state.
    pub(super) async fn load(&self, id: ConversationId) -> Result<Option<Conversation>, StoreError> {
        loop {
            let flushes = self.shared.state.borrow().core.memory.flushes;
            let range = keys::state_range(id);
            let mut scan = self.shared.sorted.runs().scan(&range, Direction::Forward, Some(&keys::conversation(id)));
            let mut loading = Loading::default();
            while let Some(row) = scan.next().await? {
                loading.row(row.key, row.value).ok_or_else(malformed)?;
            }
            let state = self.shared.state.borrow();
            if state.core.memory.flushes != flushes {
                continue;
            }
            for memtable in state.core.memory.oldest_first() {
                if let Some(tail) = memtable.tail(id) {
                    loading.tail(tail);
                }
            }
            return Ok(loading.finish(id));
        }
    }

    fn finish_load(&self, id: ConversationId, loaded: Result<Option<Conversation>, StoreError>) {
        let mut state = self.shared.state.borrow_mut();
        state.core.counters.loads += 1;
        match loaded {
            Ok(loaded) => {
                if let Some(slot) = state.slots.get_mut(&id) {
                    slot.load(loaded);
                    slot.blocked = None;
                }
            }
            Err(error) => self.answer_first(&mut state, id, Err(unreadable(&error))),
        }
        self.drain(&mut state, id);
        self.wake_after_job(state);
    }

    /// Answers the first command of a queue, which waited for a read.
    pub(super) fn answer_first(&self, state: &mut State<F::File>, id: ConversationId, answer: Answer) {
        let Some(slot) = state.slots.get_mut(&id) else { return };
        slot.blocked = None;
        if let Some((token, _)) = slot.queue.pop_front() {
            state.core.waiting -= 1;
            state.core.answer(token, answer);
        }
    }

    /// A message that segments may know.
    async fn find_message(&self, id: ConversationId, message: ClientMessageId) -> Result<Option<Known>, Refusal> {
        let runs = self.shared.sorted.runs();
        let horizon = self.shared.state.borrow().core.horizon;
        let key = keys::message_id(id, message);
        let row = runs.get_at_once(&key).await.map_err(|error| unreadable(&error))?;
        // One that is forgotten is absent, though no merge has dropped it yet.
        let kept = |key: &[u8], value: &SharedBytes| !horizon.is_expired(key, value);
        if let Some(value) = row.and_then(|change| change.value()).filter(|value| kept(&key, value)) {
            let found = rows::decode_message_id(message, &value);
            let (sequence, _) = found.ok_or_else(|| refuse(ErrorCode::Damaged))?;
            return self.known(id, sequence).await.map(Some);
        }
        if !horizon.has_old_rows() {
            return Ok(None);
        }
        let key = keys::old_message_id(id, message);
        let row = runs.get(&key).await.map_err(|error| unreadable(&error))?;
        let Some(value) = row.and_then(|change| change.value()).filter(|value| kept(&key, value)) else {
            return Ok(None);
        };
        let sequence = rows::decode_sequence(&value).ok_or_else(|| refuse(ErrorCode::Damaged))?;
        self.known(id, sequence).await.map(Some)
    }

    /// A message that is not in memory, by its entry as it is now: what a later change has taken away is not compared, wherever it is
    /// still stored.
    async fn known(&self, id: ConversationId, sequence: Sequence) -> Result<Known, Refusal> {
        let stored = self.stored_entry(id, sequence).await.map_err(|error| unreadable(&error))?;
        let is_changed = self.is_changed(id, sequence).await.map_err(|error| unreadable(&error))?;
        Ok((stored.archive, is_changed))
    }

    /// An entry that is not in memory.
    pub(super) async fn entry_in_segments(&self, id: ConversationId, sequence: Sequence) -> Result<Arc<[u8]>, Refusal> {
        let runs = self.shared.sorted.runs();
        let row = runs.get(&keys::entry(id, sequence)).await.map_err(|error| unreadable(&error))?;
        let archive = row.and_then(|change| change.value()).and_then(|value| archive_of(&value));
        archive.map(|(_, archive)| archive).ok_or_else(|| refuse(ErrorCode::Damaged))
    }

    fn finish_message(&self, id: ConversationId, message: ClientMessageId, found: Result<Option<Known>, Refusal>) {
        let mut state = self.shared.state.borrow_mut();
        match found {
            Ok(None) => {
                if let Some(slot) = state.slots.get_mut(&id) {
                    slot.blocked = None;
                    slot.resolved = Some(Resolved::Fresh(message));
                }
            }
            Ok(Some((archive, is_changed))) => {
                let head = state.slots.get(&id).and_then(|slot| slot.queue.front());
                let same = match head {
                    Some((_, Command::Send { user, body, .. })) => same_message(&archive, user, body, is_changed),
                    Some((_, Command::Change { user, change, .. })) => same_change(&archive, user, change),
                    _ => None,
                };
                let answer = same.unwrap_or_else(|| Err(refuse(ErrorCode::Damaged)));
                state.core.counters.duplicates += u64::from(answer.is_ok());
                self.answer_first(&mut state, id, answer);
            }
            Err(refusal) => self.answer_first(&mut state, id, Err(refusal)),
        }
        self.drain(&mut state, id);
        self.wake_after_job(state);
    }

    fn finish_joined(&self, id: ConversationId, counted: Result<(), StoreError>) {
        let mut state = self.shared.state.borrow_mut();
        match counted {
            Ok(()) => {
                if let Some(slot) = state.slots.get_mut(&id) {
                    slot.blocked = None;
                }
            }
            Err(error) => self.answer_first(&mut state, id, Err(unreadable(&error))),
        }
        self.drain(&mut state, id);
        self.wake_after_job(state);
    }

    fn finish_ordinal(&self, id: ConversationId, sequence: Sequence, ordinal: Result<Ordinal, Refusal>) {
        let mut state = self.shared.state.borrow_mut();
        match ordinal {
            Ok(ordinal) => {
                if let Some(slot) = state.slots.get_mut(&id) {
                    slot.blocked = None;
                    slot.resolved = Some(Resolved::Ordinal(sequence, ordinal));
                }
            }
            Err(refusal) => self.answer_first(&mut state, id, Err(refusal)),
        }
        self.drain(&mut state, id);
        self.wake_after_job(state);
    }
}

/// The position and the archive in an entry's row.
pub(super) fn archive_of(value: &SharedBytes) -> Option<(LanePosition, Arc<[u8]>)> {
    rows::decode_entry(value).map(|(position, archive)| (position, Arc::from(archive)))
}

/// All rows of a scan, one by one.
pub(super) async fn for_each_row<F: Files>(
    mut scan: Scan<'_, F>,
    mut take: impl FnMut(Row<'_>) -> Option<()>,
) -> Result<(), StoreError> {
    while let Some(row) = scan.next().await? {
        take(row).ok_or_else(malformed)?;
    }
    Ok(())
}
