//! The engine itself: carries out the commands of [`crate::door`].
//!
//! Call order: [`Engine::open`]; spawn [`Engine::run_commits`] on the queue that must be fast and [`Engine::run_maintenance`] on the
//! one that may be slow; then [`Engine::submit`] and, after every turn, [`Engine::poll`] until it is empty; [`Engine::tick`] about once
//! a second; at the end [`Engine::close`]. Nothing but the two futures does I/O, and nothing is spawned.
//!
//! A command's way: [`commands`] judges it by the conversation's state and stages a record; [`commit`] writes the batch, applies the
//! records to the memtable and gives the outputs out; [`maintenance`] turns memtables into segments. [`reads`] are what commands
//! wait for.

mod account;
mod catch_up;
mod changes;
mod checkpoint;
mod commands;
mod commit;
mod error;
mod groups;
mod history;
mod invites;
mod jobs;
mod joined;
mod lists;
mod maintenance;
pub(crate) mod open;
mod reads;
mod refusal;
mod scrub;
mod state;
mod stored;
mod useless;

use std::{
    cell::{Cell, RefCell, RefMut},
    future::poll_fn,
    rc::Rc,
    sync::Arc,
    task::Poll,
};

use antiphon_wire::{
    codes::ErrorCode,
    ids::{ConversationId, LanePosition, UserId},
};
pub use error::EngineError;

use crate::{
    cache::Cache,
    door::{Command, Output, Refusal, Token},
    encryption::{Vault, file::KeysFile},
    engine::{
        catch_up::Request,
        commands::{Step, Turn, conversation_of},
        jobs::Job,
        refusal::refuse,
        state::{Block, Core, Drained, Slot, State},
    },
    manifest::SegmentEntry,
    options::EngineOptions,
    report::{OpenReport, Status},
    scrub::Scrub,
    seams::{Clock, Files, Random},
    signal::Signal,
    sorted::Sorted,
};

/// One log lane with its conversations. A clone is another handle of the same engine.
pub struct Engine<F: Files, C: Clock, R: Random> {
    shared: Rc<Shared<F, C, R>>,
}

/// What all handles share.
pub(crate) struct Shared<F: Files, C, R> {
    files: F,
    clock: C,
    options: EngineOptions,
    store: u64,
    read_only: bool,
    sorted: Sorted<F>,
    cache: Cache,
    /// Of message ids.
    filters: Cache,
    state: RefCell<State<F::File>>,
    /// There is a batch to write, or room to write it, or the end.
    commit: Signal,
    /// There are reads to do.
    reading: Signal,
    /// There is something to flush or prepare.
    upkeep: Signal,
    /// There may be something to compact, or a compaction need not give way any more.
    compaction: Signal,
    /// There are outputs.
    output: Signal,
    /// Something was closed.
    closing: Signal,
    /// A flush has ended, well or not, or none will come.
    flushed: Signal,
    /// What is read next for its checksums alone.
    scrub: RefCell<Scrub>,
    /// Time has passed for that.
    scrub_due: Signal,
    /// A checkpoint is being made.
    checkpointing: Cell<bool>,
    /// A checkpoint has ended.
    checkpointed: Signal,
    /// Shared by all entries that remove nobody.
    nobody: Rc<[UserId]>,
    /// Up to here positions are those of lanes that were before this one: for the manifest.
    others_until: LanePosition,
    /// The data keys, if the store is encrypted.
    vault: Option<Arc<Vault>>,
    /// Where new ones go; taken out while they are written.
    keys_file: Cell<Option<KeysFile<F::File>>>,
    random: R,
}

impl<F: Files, C: Clock, R: Random> Clone for Engine<F, C, R> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<F: Files, C: Clock, R: Random> Engine<F, C, R> {
    /// Opens the store in a folder, or makes one where the folder is empty, and replays what the log holds beyond the segments.
    ///
    /// A torn last write is cut off. Damage in the middle of the log is reported and opens the lane for reading only.
    ///
    /// # Errors
    /// If the folder cannot be used as it is: the error says which file and why. What was there is still there.
    pub async fn open(
        files: F,
        clock: C,
        random: R,
        options: EngineOptions,
    ) -> Result<(Self, OpenReport), EngineError> {
        let (shared, report) = open::open(files, clock, &random, options).await?;
        Ok((Self { shared: Rc::new(shared) }, report))
    }

    /// The store's identity: random, made once, for [`antiphon_wire::position::Position`].
    #[must_use]
    pub fn store_id(&self) -> u64 {
        self.shared.store
    }

    /// Takes a command. Its [`Output::Answer`] follows, perhaps at once; every command is answered exactly once as long as
    /// [`Engine::run_commits`] runs.
    pub fn submit(&self, token: Token, command: Command) {
        let mut state = self.shared.state.borrow_mut();
        state.core.counters.commands += 1;
        if state.core.closing {
            state.core.answer(token, Err(refuse(ErrorCode::ShuttingDown)));
        } else if let Some(refusal) = self.enqueue(&mut state, token, command) {
            state.core.answer(token, Err(refusal));
        }
        self.wake(state);
    }

    /// The next output, in the order that [`crate::door`] promises. The caller polls until `None` after every turn: what waits here is
    /// bounded by what it submitted.
    #[must_use]
    pub fn poll(&self) -> Option<Output> {
        self.shared.state.borrow_mut().core.outputs.pop_front()
    }

    /// Resolves when [`Engine::poll`] has something, for a caller that sleeps. One waiter at a time.
    pub async fn output_ready(&self) {
        poll_fn(|context| {
            // Registered first, so that an output between the look and the sleep is not missed.
            let raised = self.shared.output.poll(context).is_ready();
            if !self.shared.state.borrow().core.outputs.is_empty() {
                return Poll::Ready(());
            }
            if raised {
                context.waker().wake_by_ref();
            }
            Poll::Pending
        })
        .await;
    }

    /// The latency-critical future: writes batches, and does the reads that commands wait for. Ends after [`Engine::close`]; goes
    /// on after a failure of the log, because reads do.
    pub async fn run_commits(&self) {
        futures_util::future::join(self.commit_loop(), self.read_loop()).await;
    }

    /// The background future: flushes memtables, prepares and recycles log files, compacts, and reads what is stored for its checksums. Ends
    /// after [`Engine::close`], and after a checkpoint that is under way: then nothing touches the folder any more.
    pub async fn run_maintenance(&self) {
        self.maintenance_loop().await;
    }

    /// To be called about once a second: time passes for what depends on it (a memtable's age, the seal of an idle log's last batch,
    /// trying again after a full disk).
    pub fn tick(&self) {
        let mut state = self.shared.state.borrow_mut();
        state.core.pacer.look(self.shared.clock.now());
        self.seal_if_due(&mut state);
        self.seal_last_batch(&mut state);
        self.shared.upkeep.raise();
        self.shared.compaction.raise();
        self.shared.scrub_due.raise();
    }

    /// The lane's durable position: everything up to here was output or is in the queue of [`Engine::poll`].
    #[must_use]
    pub fn position(&self) -> LanePosition {
        self.shared.state.borrow().core.stage.position
    }

    /// Figures for metrics. Cheap. To time commits, time the log's `write_at`, which is the caller's own, or commands from `submit` to
    /// their answer.
    #[must_use]
    pub fn status(&self) -> Status {
        let state = self.shared.state.borrow();
        let cache = self.shared.cache.statistics();
        let manifest = self.shared.sorted.manifest();
        let flushed = state.core.memory.flushed;
        let scrub = self.shared.scrub.borrow().figures();
        let (segment_index_bytes, segment_filter_bytes) = self.shared.sorted.runs().resident_bytes();
        Status {
            position: state.core.stage.position,
            flushed_position: flushed,
            fenced: state.core.stage.fenced.clone(),
            storage_full: state.core.storage_full(),
            write_in_flight: state.core.stage.writing,
            batch_waiting_bytes: state.core.stage.filling.record_bytes(),
            commands_waiting: state.core.waiting,
            reads_in_flight: state.core.jobs.running(),
            outputs_waiting: state.core.outputs.len(),
            memtable_bytes: state.core.memory.active.bytes(),
            memtable_sealed_bytes: state.core.memory.sealed.as_ref().map_or(0, |sealed| sealed.bytes()),
            conversations_loaded: state.loaded_count(),
            log_files: state.core.log.files(),
            log_bytes_unflushed: state.core.log.unflushed_bytes(flushed.0),
            segments: manifest.segments.len(),
            segment_bytes: manifest.segments.iter().map(SegmentEntry::own_bytes).sum(),
            segment_index_bytes,
            segment_filter_bytes,
            cache_bytes: cache.bytes,
            cache_hits: cache.hits,
            cache_misses: cache.misses,
            blocks_damaged: self.shared.sorted.damaged_blocks(),
            scrub_rounds: scrub.rounds,
            scrub_bytes: scrub.bytes,
            scrub_damaged: scrub.damaged,
            scrub_damaged_last_round: scrub.damaged_last_round,
            ids_forgotten_until_ms: state.core.horizon.made.0,
            untimed_ids_forgotten_until_ms: state.core.horizon.stored.0,
            message_id_filter_bytes: self.shared.filters.statistics().bytes,
            ..state.core.counters.clone()
        }
    }

    /// Takes no more commands (`shutting_down`), waits until those taken are answered and durable, marks the log as closed in order, and
    /// ends the two futures. They must be running.
    ///
    /// # Errors
    /// [`EngineError::Fenced`] if the log failed, now or before; nothing acknowledged is at stake.
    pub async fn close(&self) -> Result<(), EngineError> {
        self.shared.state.borrow_mut().core.closing = true;
        self.shared.commit.raise();
        self.shared.reading.raise();
        self.shared.upkeep.raise();
        self.shared.scrub_due.raise();
        while !self.shared.state.borrow().core.closed {
            self.shared.closing.wait().await;
        }
        match &self.shared.state.borrow().core.stage.fenced {
            Some(text) if !self.shared.read_only => Err(EngineError::Fenced(text.clone())),
            _ => Ok(()),
        }
    }

    /// Puts a command in its place; a refusal if there is no room.
    fn enqueue(&self, state: &mut State<F::File>, token: Token, command: Command) -> Option<Refusal> {
        let options = &self.shared.options;
        let places = options.commands_waiting_max;
        // What is only read leaves room for what is to be stored, however much of it waits.
        let places = if command.only_reads() { places - places / 4 } else { places };
        if state.core.waiting >= places {
            return Some(refuse(ErrorCode::Overloaded));
        }
        let Some(id) = conversation_of(&command) else { return self.enqueue_list(state, token, command) };
        let State { slots, core } = state;
        let slot = slots.entry(id).or_default();
        if slot.queue.len() >= options.commands_waiting_per_conversation_max {
            return Some(refuse(ErrorCode::Overloaded));
        }
        core.waiting += 1;
        if slot.queue.is_empty() && slot.blocked.is_none() {
            self.carry_out(core, slot, id, token, command);
        } else {
            slot.queue.push_back((token, command));
        }
        let drained = self.drain_slot(core, slot, id);
        state.settle(id, drained, options);
        None
    }

    /// A command about all of a user's conversations.
    fn enqueue_list(&self, state: &mut State<F::File>, token: Token, command: Command) -> Option<Refusal> {
        let job = match command {
            Command::Conversations { user, after, limit } => Job::Conversations { token, user, after, limit },
            Command::CatchUp { user, since, known } => {
                match Request::new(user, since, known, state.core.stage.position) {
                    Ok(Ok(request)) => Job::CatchUp { token, request: Box::new(request) },
                    Ok(Err(nothing)) => {
                        state.core.answer(token, Ok(nothing));
                        return None;
                    }
                    Err(refusal) => return Some(refusal),
                }
            }
            _ => unreachable!("every other command is about one conversation"),
        };
        state.core.waiting += 1;
        state.core.jobs.push(job);
        None
    }

    /// Carries out the commands of a conversation until its queue is empty or one has to wait.
    fn drain(&self, state: &mut State<F::File>, id: ConversationId) {
        let State { slots, core } = state;
        let Some(slot) = slots.get_mut(&id) else { return };
        let drained = self.drain_slot(core, slot, id);
        state.settle(id, drained, &self.shared.options);
    }

    /// As [`Engine::drain`], but for what is left to do with the map that the slot is in.
    fn drain_slot(&self, core: &mut Core<F::File>, slot: &mut Slot, id: ConversationId) -> Drained {
        while slot.blocked.is_none()
            && let Some((token, command)) = slot.queue.pop_front()
        {
            self.carry_out(core, slot, id, token, command);
        }
        if slot.conversation.is_none() && slot.queue.is_empty() {
            Drained::Empty
        } else if core.loaded.weigh(id, slot) {
            Drained::Weighed
        } else {
            Drained::Same
        }
    }

    /// Carries a command out as far as it goes; one that has to wait stands at the head of its conversation's queue again.
    fn carry_out(&self, core: &mut Core<F::File>, slot: &mut Slot, id: ConversationId, token: Token, command: Command) {
        core.waiting -= 1;
        match (Turn { shared: &self.shared, core, slot, id, token }).run(command) {
            Step::Staged => {}
            Step::Done(answer) => core.answer(token, answer),
            Step::When(position, answer) => core.answer_when(token, position, answer),
            Step::Job(job) => {
                core.waiting += 1;
                core.jobs.push(job);
            }
            Step::Wait(block, command) => {
                core.waiting += 1;
                let asking = changes::asking_user(&command).cloned();
                slot.queue.push_front((token, command));
                self.wait(core, slot, id, block, asking);
            }
        }
    }

    /// Has the conversation wait for what the first command of its queue needs, unless that is there already.
    fn wait(
        &self,
        core: &mut Core<F::File>,
        slot: &mut Slot,
        id: ConversationId,
        block: Block,
        asking: Option<UserId>,
    ) {
        match block {
            Block::Load => {
                if let Some(loaded) = self.load_from_memory(&core.memory, id) {
                    slot.load(loaded);
                    core.counters.loads += 1;
                    return;
                }
                core.jobs.push(Job::Load(id));
            }
            Block::Settle(_) => core.settling.push(id),
            Block::Message(message) => core.jobs.push(Job::Message(id, message)),
            Block::Ordinal(sequence) => core.jobs.push(Job::Ordinal(id, sequence)),
            Block::Target(sequence) => {
                let user = asking.expect("a command that is about an entry has a user who asks");
                core.jobs.push(Job::Target(id, user, sequence));
            }
            // Its job has the users' names, and was queued with them.
            Block::Joined => {}
        }
        slot.blocked = Some(block);
    }

    /// Wakes whoever has something to do after the state has changed.
    fn wake(&self, state: RefMut<'_, State<F::File>>) {
        let commit = state.core.stage.filling.records() > 0 && !state.core.stage.writing;
        let reading = !state.core.jobs.is_empty();
        let output = !state.core.outputs.is_empty();
        let upkeep = state.core.storage_full();
        drop(state);
        let shared = &self.shared;
        for (needed, signal) in
            [(commit, &shared.commit), (reading, &shared.reading), (output, &shared.output), (upkeep, &shared.upkeep)]
        {
            if needed {
                signal.raise();
            }
        }
    }
}
