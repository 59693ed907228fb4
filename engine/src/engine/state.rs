//! What an engine remembers between calls, and the small operations on it that keep its parts in step.
//!
//! Invariants: everything durable is in the memtables or in segments; what is staged and not durable is in `stage` and in the state of
//! loaded conversations, and nowhere else. The state is never borrowed across an await.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    rc::Rc,
    sync::Arc,
};

use antiphon_wire::{
    codes::ErrorCode,
    frame::view_entry,
    ids::{ClientMessageId, ConversationId, LanePosition, Sequence, TimestampMs, UserId},
};

use crate::{
    conversation::Conversation,
    door::{Command, Done, Output, Partly, Refusal, Token},
    encryption::Vault,
    engine::{changes::Target, jobs::Jobs, joined::Joined, refusal::refuse},
    hash::IdHash,
    lane::{format::Builder, log::Log, record::Record},
    memtable::{Memtable, MessageIds},
    newest_ids::NewestIds,
    options::EngineOptions,
    report::Status,
    rows::{PointerRow, TailRow},
    seams::AlignedBuffer,
    window::{Horizon, Pacer},
};

/// A command's end.
pub(super) type Answer = Result<Done, Refusal>;

/// All of an engine's memory but its segments.
pub(super) struct State<D> {
    pub(super) slots: HashMap<ConversationId, Slot, IdHash>,
    pub(super) core: Core<D>,
}

/// What commands of all conversations share; apart from the slots, so that one of those can be held beside it.
pub(super) struct Core<D> {
    pub(super) outputs: VecDeque<Output>,
    pub(super) loaded: Loaded,
    pub(super) memory: Memory,
    pub(super) stage: Stage,
    pub(super) log: Log<D>,
    pub(super) tails: TailCache,
    pub(super) joined: Joined,
    /// Conversations whose next command waits for the next commit.
    pub(super) settling: Vec<ConversationId>,
    pub(super) jobs: Jobs,
    /// Which message ids are forgotten: as the manifest has it, so that it is durable.
    pub(super) horizon: Horizon,
    /// Of the ids in segments.
    pub(super) newest_ids: NewestIds,
    pub(super) pacer: Pacer,
    pub(super) upkeep: Upkeep,
    /// Segments hold rows of changes of messages.
    pub(super) has_changes: bool,
    /// Commands in the queues of conversations and in jobs.
    pub(super) waiting: usize,
    pub(super) closing: bool,
    pub(super) closed: bool,
    pub(super) counters: Status,
}

/// A conversation's place: its state if that is loaded, and the commands that wait for it.
#[derive(Default)]
pub(super) struct Slot {
    pub(super) conversation: Option<Box<Conversation>>,
    /// It was looked for and does not exist.
    pub(super) absent: bool,
    /// Its last durable entry.
    pub(super) durable: TailRow,
    pub(super) queue: VecDeque<(Token, Command)>,
    /// The first command of the queue waits for this.
    pub(super) blocked: Option<Block>,
    /// What a finished read found for the first command of the queue.
    pub(super) resolved: Option<Resolved>,
    /// What was gathered for it of the message that it changes or asks about.
    pub(super) target: Option<Box<Target>>,
    /// Used since the eviction's hand last passed.
    used: bool,
    weight: usize,
}

/// How a slot's queue was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) enum Drained {
    /// With a conversation that weighs what it did.
    Same,
    /// Nothing is in the slot.
    Empty,
    /// With a conversation that weighs something else now.
    Weighed,
}

/// What the first command of a queue waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Block {
    /// The conversation's state.
    Load,
    /// Records up to here, so that what is shown is durable.
    Settle(LanePosition),
    /// Whether a segment knows the message.
    Message(ClientMessageId),
    /// The ordinal of an entry in a segment.
    Ordinal(Sequence),
    /// How many conversations users have.
    Joined,
    /// An entry in a segment, and what became of it.
    Target(Sequence),
}

/// What a read found for the first command of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resolved {
    /// No segment knows the message.
    Fresh(ClientMessageId),
    /// The entry has this ordinal.
    Ordinal(Sequence, antiphon_wire::ids::Ordinal),
}

/// The order in which loaded conversations leave memory: a clock with one hand.
#[derive(Default)]
pub(super) struct Loaded {
    hand: VecDeque<ConversationId>,
    bytes: usize,
}

/// The memtables.
pub(super) struct Memory {
    pub(super) active: Memtable,
    pub(super) sealed: Option<Arc<Memtable>>,
    /// When the active one got its first record.
    pub(super) active_since: TimestampMs,
    /// Log bytes written for the active one.
    pub(super) active_log_bytes: u64,
    /// Up to here everything is in segments.
    pub(super) flushed: LanePosition,
    /// How often a sealed memtable became a segment: a reader that sees it change looks again.
    pub(super) flushes: u64,
    pub(super) hash: IdHash,
    /// The map of a memtable that became a segment, for the next one.
    pub(super) spare_map: Option<MessageIds>,
    /// Of an encrypted store: knows which conversations were erased.
    pub(super) vault: Option<Arc<Vault>>,
}

/// What was decided and is not durable yet.
pub(super) struct Stage {
    pub(super) filling: Builder,
    /// The buffer that is not being filled, unless it is being written.
    pub(super) spare: Option<AlignedBuffer>,
    /// In order of positions, without a gap; the batch being written comes first, then the one being filled.
    pub(super) staged: VecDeque<Staged>,
    /// Answers that wait for a record of another command.
    pub(super) answers: BTreeMap<LanePosition, Vec<(Token, Answer)>>,
    /// The lane's durable position.
    pub(super) position: LanePosition,
    /// Time of the last entry: it never goes back.
    pub(super) time: TimestampMs,
    pub(super) writing: bool,
    /// The last batch is an empty one, or there is none.
    pub(super) sealed: bool,
    /// The last batch is to be sealed unless another follows.
    pub(super) seal_due: bool,
    pub(super) fenced: Option<String>,
    pub(super) scratch: rkyv::util::AlignedVec,
}

/// A record that is not durable yet, with what is to be said when it is.
pub(super) struct Staged {
    pub(super) position: LanePosition,
    pub(super) conversation: ConversationId,
    pub(super) record: Record,
    /// Of a message: its id and sender.
    pub(super) message: Option<(ClientMessageId, UserId)>,
    /// The command that it answers; `None` for what another record completes.
    pub(super) token: Option<Token>,
    pub(super) done: Done,
    pub(super) recipients: Rc<[UserId]>,
    pub(super) removed: Rc<[UserId]>,
    /// Those of the recipients who see only a part, and that.
    pub(super) partly: Option<Box<Partly>>,
}

impl Staged {
    /// The id of a message or a change of one.
    pub(super) fn message_id(&self) -> Option<ClientMessageId> {
        if let Some((message, _)) = self.message {
            return Some(message);
        }
        let Record::Change(change) = &self.record else { return None };
        view_entry(&change.archive).ok().map(|entry| ClientMessageId(entry.client_message_id.0))
    }
}

/// How maintenance fares.
#[derive(Default)]
pub(super) struct Upkeep {
    /// Making a log file failed for want of room.
    pub(super) prepare_full: bool,
    /// Flushing failed for want of room.
    pub(super) flush_full: bool,
    /// How often flushing failed.
    pub(super) flush_failures: u64,
    /// Naming a log file in the manifest failed: it comes after everything else then.
    pub(super) naming_failed: bool,
    /// When something failed last; it is tried again a second later.
    pub(super) failed_at: Option<TimestampMs>,
    /// Reclaiming goes before the next merge: the two take turns.
    pub(super) reclaims_next: bool,
    /// Compaction failed, and waits as well.
    pub(super) compaction_failed: bool,
}

impl Stage {
    /// The position that the next record takes.
    pub(super) fn next(&self) -> LanePosition {
        LanePosition(self.position.0 + self.staged.len() as u64 + 1)
    }

    /// A record that is not durable yet.
    pub(super) fn record(&self, position: LanePosition) -> Option<&Staged> {
        let front = self.staged.front()?.position;
        self.staged.get(usize::try_from(position.0.checked_sub(front.0)?).ok()?)
    }

    pub(super) fn durable(&self, position: LanePosition) -> bool {
        position <= self.position
    }

    /// The server's time for the next entry, if there is one now.
    pub(super) fn time_at(&self, clock: TimestampMs) -> TimestampMs {
        self.time.max(clock)
    }

    /// The server's time for a new entry.
    pub(super) fn now(&mut self, clock: TimestampMs) -> TimestampMs {
        self.time = self.time.max(clock);
        #[cfg(feature = "planted")]
        if crate::planted::trusts_the_clock() {
            self.time = clock;
        }
        self.time
    }
}

impl Memory {
    pub(super) fn new(active: Memtable, flushed: LanePosition, hash: IdHash) -> Self {
        Self {
            active,
            sealed: None,
            active_since: TimestampMs(0),
            active_log_bytes: 0,
            flushed,
            flushes: 0,
            hash,
            spare_map: None,
            vault: None,
        }
    }

    /// The sealed memtable, then the active one.
    pub(super) fn oldest_first(&self) -> impl Iterator<Item = &Memtable> {
        self.sealed.as_deref().into_iter().chain([&self.active])
    }

    /// Whether a change of the conversation's members may be lost: then nobody is shown anything of it.
    pub(super) fn hides(&self, conversation: ConversationId) -> bool {
        self.oldest_first().any(|memtable| memtable.hides(conversation))
    }

    /// Whether the conversation is in nobody's list: as [`Memory::hides`], or erased.
    pub(super) fn unlists(&self, conversation: ConversationId) -> bool {
        self.hides(conversation) || self.vault.as_ref().is_some_and(|vault| vault.is_erased(conversation))
    }

    /// Whether a message is in memory, and where its record is; see [`Memtable::remember`].
    pub(super) fn message(&self, conversation: ConversationId, message: ClientMessageId) -> Option<LanePosition> {
        self.oldest_first().find_map(|memtable| memtable.message(conversation, message))
    }

    /// The entry whose record has this position, if it is in memory.
    pub(super) fn entry_at(&self, conversation: ConversationId, position: LanePosition) -> Option<&Arc<[u8]>> {
        self.oldest_first().find_map(|memtable| memtable.tail(conversation)?.entry_at(position))
    }

    /// An entry, if it is in memory. An empty archive is one that the log has lost.
    pub(super) fn entry(&self, conversation: ConversationId, sequence: Sequence) -> Option<(LanePosition, Arc<[u8]>)> {
        let found = |memtable: &Memtable| memtable.tail(conversation)?.entry(sequence).cloned();
        match self.sealed.as_deref().and_then(found) {
            // A sealed memtable does not change: what is left of its entry stands in the active one.
            Some(sealed) => Some(self.replaced(conversation, sequence).unwrap_or(sealed)),
            None => found(&self.active),
        }
    }

    /// First entry of the conversation in memory; all later ones are there too.
    pub(super) fn first(&self, conversation: ConversationId) -> Option<Sequence> {
        self.oldest_first().find_map(|memtable| memtable.tail(conversation)?.first())
    }

    /// A user's pointers in a conversation as memory knows them, and where the last record is that may have moved them.
    pub(super) fn pointer(&self, conversation: ConversationId, user: &UserId) -> Option<(LanePosition, PointerRow)> {
        let newest_first = [&self.active].into_iter().chain(self.sealed.as_deref());
        let tails = newest_first.filter_map(|memtable| memtable.tail(conversation));
        tails.into_iter().find_map(|tail| Some((tail.record(), tail.pointer(user)?)))
    }

    /// Last entry of the conversation, if it is in memory.
    pub(super) fn last(&self, conversation: ConversationId) -> Option<TailRow> {
        let active = self.active.tail(conversation).and_then(|tail| tail.last);
        active.or_else(|| self.sealed.as_ref()?.tail(conversation)?.last)
    }
}

impl Slot {
    /// Puts loaded state in.
    pub(super) fn load(&mut self, conversation: Option<Conversation>) {
        self.durable = conversation.as_ref().map(|conversation| conversation.last).unwrap_or_default();
        self.absent = conversation.is_none();
        self.conversation = conversation.map(Box::new);
    }
}

impl Loaded {
    /// Counts the memory of a conversation that was loaded, created or changed; whether that has changed.
    pub(super) fn weigh(&mut self, id: ConversationId, slot: &mut Slot) -> bool {
        let weight = slot.conversation.as_ref().map_or(0, |conversation| conversation.bytes());
        slot.used = true;
        if weight == slot.weight {
            return false;
        }
        if slot.weight == 0 && weight > 0 {
            self.hand.push_back(id);
        }
        self.bytes = self.bytes + weight - slot.weight;
        slot.weight = weight;
        true
    }
}

impl<D> State<D> {
    /// Does what a slot's queue has left to do: an empty slot goes, and if loaded conversations are too much, some of them.
    pub(super) fn settle(&mut self, id: ConversationId, drained: Drained, options: &EngineOptions) {
        match drained {
            Drained::Same => return,
            Drained::Empty => return drop(self.slots.remove(&id)),
            Drained::Weighed => {}
        }
        // Two steps of the hand for each conversation that came are enough to keep up with what comes.
        for _ in 0..4 {
            if self.core.loaded.bytes <= options.conversations_bytes_max {
                break;
            }
            self.evict_one();
        }
    }

    /// Moves the hand by one: the conversation there leaves memory unless it was used lately or is busy.
    fn evict_one(&mut self) {
        let Some(id) = self.core.loaded.hand.pop_front() else { return };
        let Some(slot) = self.slots.get_mut(&id).filter(|slot| slot.weight > 0) else { return };
        let settled = slot.conversation.as_ref().is_none_or(|loaded| self.core.stage.durable(loaded.record));
        let idle = slot.queue.is_empty() && slot.blocked.is_none() && settled;
        if slot.used || !idle {
            slot.used = false;
            self.core.loaded.hand.push_back(id);
            return;
        }
        self.core.loaded.bytes -= slot.weight;
        self.slots.remove(&id);
    }

    /// Forgets the state of conversations that ran ahead of a log that failed.
    pub(super) fn forget_unsettled(&mut self) {
        let position = self.core.stage.position;
        for slot in self.slots.values_mut() {
            let ahead = |conversation: &Conversation| conversation.record > position || conversation.change > position;
            if slot.conversation.as_deref().is_some_and(ahead) {
                // Its place in the hand stays and is skipped, or taken again when it is loaded anew.
                self.core.loaded.bytes -= slot.weight;
                slot.weight = 0;
                slot.conversation = None;
                slot.resolved = None;
                slot.target = None;
            }
        }
    }

    /// Conversations in memory.
    pub(super) fn loaded_count(&self) -> usize {
        self.core.loaded.hand.len()
    }
}

impl<D> Core<D> {
    /// Queues an answer.
    pub(super) fn answer(&mut self, token: Token, result: Answer) {
        if let Err(refusal) = &result {
            self.counters.overloaded += u64::from(refusal.code == ErrorCode::Overloaded);
        }
        self.outputs.push_back(Output::Answer { token, result });
    }

    /// Gives an answer when the record at `position` is durable.
    pub(super) fn answer_when(&mut self, token: Token, position: LanePosition, result: Answer) {
        if self.stage.durable(position) {
            self.answer(token, result);
        } else {
            self.stage.answers.entry(position).or_default().push((token, result));
        }
    }

    /// Why nothing can be stored now, if so.
    pub(super) fn cannot_store(&self, options: &EngineOptions) -> Option<Refusal> {
        let crowded = self.memory.sealed.is_some() && self.memory.active.bytes() >= options.memtable_bytes;
        match () {
            () if self.stage.fenced.is_some() => Some(refuse(ErrorCode::StorageFailed)),
            () if self.storage_full() => Some(refuse(ErrorCode::StorageFull)),
            () if crowded => Some(refuse(ErrorCode::Overloaded)),
            () => None,
        }
    }

    pub(super) fn storage_full(&self) -> bool {
        self.upkeep.prepare_full || self.upkeep.flush_full
    }
}

/// The end of a conversation in segments.
#[derive(Debug, Clone, Copy)]
pub(super) struct ColdTail {
    /// Where the last entry is.
    pub(super) position: LanePosition,
    pub(super) sequence: Sequence,
    /// No record of the conversation in segments is behind this one.
    pub(super) record: LanePosition,
}

/// Ends of conversations that are in segments only, for resumes; the oldest are forgotten.
pub(super) struct TailCache {
    tails: HashMap<ConversationId, ColdTail, IdHash>,
    order: VecDeque<ConversationId>,
    max: usize,
}

impl TailCache {
    pub(super) fn new(max: usize, hash: IdHash) -> Self {
        Self { tails: HashMap::with_hasher(hash), order: VecDeque::new(), max }
    }

    pub(super) fn get(&self, conversation: ConversationId) -> Option<ColdTail> {
        self.tails.get(&conversation).copied()
    }

    /// Remembers a tail. One that is older than what is known changes nothing.
    pub(super) fn insert(&mut self, conversation: ConversationId, tail: ColdTail) {
        if self.max == 0 {
            return;
        }
        let known = self.tails.entry(conversation).or_insert_with(|| {
            self.order.push_back(conversation);
            tail
        });
        let record = known.record.max(tail.record);
        if tail.position > known.position {
            *known = tail;
        }
        known.record = record;
        if self.order.len() > self.max
            && let Some(oldest) = self.order.pop_front()
        {
            self.tails.remove(&oldest);
        }
    }

    /// Takes in a record that is no entry: of a conversation that is not known it will be looked for.
    pub(super) fn marked(&mut self, conversation: ConversationId, record: LanePosition) {
        if let Some(known) = self.tails.get_mut(&conversation) {
            known.record = known.record.max(record);
        }
    }
}
