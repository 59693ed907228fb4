//! What a user has missed since a position, exactly.
//!
//! A round reads from segments what may be needed, asynchronously; then one synchronous step puts it together with the memtables as
//! they are at that moment and queues the answer. Whatever was durable before that step was given out before it or is in the answer;
//! whatever becomes durable after it is given out after. If a memtable became a segment during the round, the round is
//! repeated, since what moved was in neither place.
//!
//! The cost is a look at each of the user's conversations in memory, and reads only where something changed before the last flush. A
//! conversation's last position comes from the memtables, then from a bounded cache that flushes and earlier resumes fill, then from
//! its tail row: no scan at opening, and after a restart most clients come back with a position that is past the last flush, where
//! the memtables alone decide.

use std::{
    collections::{BTreeMap, HashMap},
    ops::RangeInclusive,
};

use antiphon_wire::{
    codes::ErrorCode,
    frame::{ArchivedEntry, ChangeView, EntryKind, States, view_change, view_entry},
    ids::{ConversationId, Epoch, LanePosition, Sequence, UserId},
    limits::{RESUME_BYTES_MAX, RESUME_ENTRIES_PER_CONVERSATION_MAX},
};

use crate::{
    door::{CaughtUp, Done, Refusal, Token, TooFar},
    engine::{
        Engine,
        commands::FIRST_EPOCH,
        lists::{UserRows, overlay},
        reads::malformed,
        refusal::{refuse, refuse_because, unreadable},
        state::{Answer, ColdTail, Memory},
        stored::{Stored, StoredScan},
    },
    error::StoreError,
    keys::{self, Family},
    row::Direction,
    rows::{PointerRow, TailRow, UserRow},
    runs::Runs,
    seams::{Clock, Files, Random},
};

/// Rounds before the engine says that it has too much to do. A round is repeated only if a flush ended in it.
const ROUNDS_MAX: usize = 16;

/// A resume.
#[derive(Debug)]
pub(crate) struct Request {
    user: UserId,
    since: LanePosition,
    known: HashMap<ConversationId, (Epoch, Sequence)>,
}

/// What segments hold of one conversation, nearest to its end first; it begins right below what is in memory.
#[derive(Debug)]
struct Cold {
    entries: Vec<Stored>,
    /// The first sequence looked for.
    highest: u64,
    /// There may be more that is missing: it was too much, or cannot be read.
    more: bool,
}

/// What segments hold of all of them.
#[derive(Debug, Default)]
struct ColdPart {
    entries: BTreeMap<ConversationId, Cold>,
    /// The user's pointers where memory does not know them and they may have moved.
    pointers: BTreeMap<ConversationId, PointerRow>,
}

/// What one conversation is missing.
enum Missing {
    Nothing,
    Entries(Vec<Stored>, Visible),
    TooFar(TooFar),
}

/// What the member sees of a conversation of which something is missing.
#[derive(Debug, Clone, Copy)]
struct Visible {
    epoch: Epoch,
    /// The first entry.
    first: Sequence,
    /// The last entry there is.
    last: Sequence,
}

impl Request {
    /// The request; or the answer, if nothing can be missing; or a refusal, if the position was never reached.
    pub(super) fn new(
        user: UserId,
        since: Option<LanePosition>,
        known: Vec<(ConversationId, Epoch, Sequence)>,
        position: LanePosition,
    ) -> Result<Result<Self, Done>, Refusal> {
        match since {
            Some(since) if since > position => {
                Err(refuse_because(ErrorCode::Invalid, "the position is beyond the lane's end"))
            }
            Some(since) => {
                let known = known.into_iter().map(|(id, epoch, sequence)| (id, (epoch, sequence))).collect();
                Ok(Ok(Self { user, since, known }))
            }
            None => Ok(Err(Done::CaughtUp(Box::new(nothing(position))))),
        }
    }

    /// First sequence that may be missing.
    fn lowest(&self, id: ConversationId, row: UserRow, epoch: Epoch) -> u64 {
        let known = self.known.get(&id).filter(|(known, _)| epoch == *known);
        known.map_or(row.sequence.0, |(_, sequence)| row.sequence.0.max(sequence.0.saturating_add(1)))
    }
}

impl<F: Files, C: Clock, R: Random> Engine<F, C, R> {
    pub(super) async fn catch_up(&self, token: Token, request: Request) {
        for _ in 0..ROUNDS_MAX {
            let flushes = self.shared.state.borrow().core.memory.flushes;
            let cold = self.cold_part(&request, flushes).await;
            let state = self.shared.state.borrow();
            if state.core.memory.flushes != flushes {
                continue;
            }
            let position = state.core.stage.position;
            let answer = cold.map_err(|error| unreadable(&error)).map(|(rows, cold)| {
                Done::CaughtUp(Box::new(collect(&request, rows, &cold, &state.core.memory, position)))
            });
            drop(state);
            self.finish_job(token, answer);
            return;
        }
        let answer: Answer = Err(refuse(ErrorCode::Overloaded));
        self.finish_job(token, answer);
    }

    /// Reads what segments may have to give.
    async fn cold_part(&self, request: &Request, flushes: u64) -> Result<(UserRows, ColdPart), StoreError> {
        let runs = self.shared.sorted.runs();
        let rows = self.user_rows(&request.user).await?;
        let mut cold = ColdPart::default();
        if request.since >= self.shared.state.borrow().core.memory.flushed {
            return Ok((rows, cold));
        }
        let mut current = rows.clone();
        overlay(&mut current, &request.user, &self.shared.state.borrow().core.memory);
        let mut bytes = 0;
        for (id, row) in current.into_iter().filter(|(_, row)| row.joined) {
            let Some(tail) = self.cold_tail(id, &runs, flushes).await? else { continue };
            if tail.record > request.since
                && self.shared.state.borrow().core.memory.pointer(id, &request.user).is_none()
            {
                let key = keys::of_user(id, Family::Pointer, &request.user);
                let value = runs.get(&key).await?.and_then(|row| row.value());
                let pointer = value.map(|value| PointerRow::decode(&value).ok_or_else(malformed)).transpose()?;
                cold.pointers.extend(pointer.map(|pointer| (id, pointer)));
            }
            let highest = tail.sequence.0;
            if tail.position <= request.since || highest < row.sequence.0 {
                continue;
            }
            // Once the answer is full the rest is too far: one entry of each is enough to say so.
            let count = if bytes > RESUME_BYTES_MAX { 1 } else { RESUME_ENTRIES_PER_CONVERSATION_MAX + 1 };
            let part = read_cold(request, id, row.sequence.0..=highest, count, &runs).await;
            bytes += part.entries.iter().map(|stored| stored.archive.len()).sum::<usize>();
            cold.entries.insert(id, part);
        }
        Ok((rows, cold))
    }

    /// The end of a conversation in segments, as far as it may be behind a resume's position. `flushes` is how many there were when `runs`
    /// was looked up.
    async fn cold_tail(
        &self,
        id: ConversationId,
        runs: &Runs<F>,
        flushes: u64,
    ) -> Result<Option<ColdTail>, StoreError> {
        let (first, cached, flushed) = {
            let memory = &self.shared.state.borrow().core.memory;
            (memory.first(id), self.shared.state.borrow().core.tails.get(id), memory.flushed)
        };
        Ok(match (cached, first) {
            (Some(tail), _) => Some(tail),
            // Entries below those in memory end right before them; whether they are missing their positions tell.
            (None, Some(first)) => {
                let tail = ColdTail { position: flushed, sequence: Sequence(first.0 - 1), record: flushed };
                Some(tail).filter(|tail| tail.sequence.0 > 0)
            }
            (None, None) => {
                let Some(value) = runs.get(&keys::single(id, Family::Tail)).await?.and_then(|row| row.value()) else {
                    return Ok(None);
                };
                let TailRow { position, sequence, .. } = TailRow::decode(&value).ok_or_else(malformed)?;
                // Where pointers last moved no row tells.
                let tail = ColdTail { position, sequence, record: flushed };
                let core = &mut self.shared.state.borrow_mut().core;
                // A flush meanwhile may have told a later one, and the cache forgotten it again.
                if core.memory.flushes == flushes {
                    core.tails.insert(id, tail);
                }
                Some(tail)
            }
        })
    }
}

/// Reads up to `count` entries of one conversation from the end of `range` down, as far as they are missing.
async fn read_cold<F: Files>(
    request: &Request,
    id: ConversationId,
    range: RangeInclusive<u64>,
    count: usize,
    runs: &Runs<F>,
) -> Cold {
    let (lowest, highest) = range.into_inner();
    let mut cold = Cold { entries: Vec::new(), highest, more: false };
    let range = (Sequence(lowest), Sequence(highest));
    let mut scan = StoredScan::new(runs, id, &request.user, range, Direction::Backward, count);
    let mut expected = highest;
    while expected >= lowest {
        let read = scan.next().await.ok().flatten();
        let Some(stored) = read.filter(|stored| stored.sequence.0 == expected) else {
            cold.more = true;
            break;
        };
        if stored.position <= request.since {
            break;
        }
        cold.entries.push(stored);
        if cold.entries.len() >= count {
            cold.more = true;
            break;
        }
        expected -= 1;
    }
    cold
}

/// Nothing is missing up to a position.
fn nothing(position: LanePosition) -> CaughtUp {
    CaughtUp {
        position,
        entries: Vec::new(),
        states: Vec::new(),
        too_far: Vec::new(),
        pointers: Vec::new(),
        left: Vec::new(),
    }
}

/// Puts the answer together. Synchronous: nothing becomes durable in between.
fn collect(
    request: &Request,
    mut rows: UserRows,
    cold: &ColdPart,
    memory: &Memory,
    position: LanePosition,
) -> CaughtUp {
    overlay(&mut rows, &request.user, memory);
    let mut caught_up = nothing(position);
    let mut bytes_left = RESUME_BYTES_MAX;
    for (id, row) in rows {
        if !row.joined {
            if row.position > request.since {
                caught_up.left.push((id, row.sequence));
            }
            continue;
        }
        let moved = match memory.pointer(id, &request.user) {
            Some((record, pointer)) => Some(pointer).filter(|_| record > request.since),
            None => cold.pointers.get(&id).copied(),
        };
        caught_up.pointers.extend(moved.map(|pointer| (id, pointer.read, pointer.delivered)));
        match missing(request, id, row, cold.entries.get(&id), memory, &mut bytes_left) {
            Missing::Nothing => {}
            Missing::Entries(mut entries, Visible { epoch, first, last }) => {
                memory.overlay(id, &request.user, &mut entries);
                let states: Vec<_> = entries.iter().filter_map(Stored::told).collect();
                if !states.is_empty() {
                    caught_up.states.push(States { conversation: id, epoch, as_of: last, states });
                }
                caught_up.entries.extend(entries.iter().map(|stored| stored.archive_for(first)));
            }
            Missing::TooFar(too_far) => caught_up.too_far.push(too_far),
        }
    }
    caught_up
}

/// What a member is missing of one conversation.
fn missing(
    request: &Request,
    id: ConversationId,
    row: UserRow,
    cold: Option<&Cold>,
    memory: &Memory,
    bytes_left: &mut usize,
) -> Missing {
    // From the end down: first what is in memory, then what segments gave.
    let in_memory = memory.last(id).map_or(0, |last| last.sequence.0);
    let first = memory.first(id).map_or(u64::MAX, |first| first.0);
    let hot = (first..=in_memory).rev().map_while(|sequence| {
        let (position, archive) = memory.entry(id, Sequence(sequence))?;
        Some(Stored::new(Sequence(sequence), position, archive))
    });
    let below = cold.into_iter().flat_map(|cold| cold.entries.iter().cloned());
    let mut entries: Vec<Stored> = Vec::new();
    let mut seen_from = row.sequence;
    let mut lost = cold.is_some_and(|cold| cold.more);
    let (mut epoch, mut last, mut lowest, mut bytes) =
        (None, Sequence(cold.map_or(0, |cold| cold.highest)), row.sequence.0, 0);
    for stored in hot.chain(below) {
        if stored.position <= request.since {
            lost = false;
            break;
        }
        let Ok(entry) = view_entry(&stored.archive) else {
            lost = true;
            break;
        };
        let sequence = entry.sequence.0.to_native();
        if epoch.is_none() {
            let of_entry = Epoch(entry.epoch.0.to_native());
            (epoch, last) = (Some(of_entry), Sequence(sequence));
            lowest = request.lowest(id, row, of_entry);
        }
        if sequence < lowest {
            lost = false;
            break;
        }
        if let Some(before) = retained_from(entry) {
            // Whatever is missing of what it lets go came before it, so it is met first.
            seen_from = seen_from.max(before);
            lowest = lowest.max(before.0);
        }
        bytes += stored.archive.len();
        entries.push(stored);
        if entries.len() > RESUME_ENTRIES_PER_CONVERSATION_MAX || bytes > *bytes_left {
            lost = true;
            break;
        }
    }
    if lost {
        // Where nothing could be read, history tells the truth in time; another incarnation would have the client forget everything.
        let known = || request.known.get(&id).map_or(FIRST_EPOCH, |(epoch, _)| *epoch);
        let epoch = epoch.unwrap_or_else(known);
        return Missing::TooFar(TooFar { conversation: id, epoch, first: row.sequence, last });
    }
    if entries.is_empty() {
        return Missing::Nothing;
    }
    *bytes_left -= bytes;
    entries.reverse();
    Missing::Entries(entries, Visible { epoch: epoch.unwrap_or(FIRST_EPOCH), first: seen_from, last })
}

/// The first entry that a retention mark lets stay.
fn retained_from(mark: &ArchivedEntry) -> Option<Sequence> {
    let kind = EntryKind::from(&mark.kind);
    if kind != EntryKind::Retention {
        return None;
    }
    match view_change(kind, &mark.body) {
        Ok(ChangeView::Retain { before, .. }) => Some(before),
        _ => None,
    }
}
