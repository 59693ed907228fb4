//! Group commit: one batch is written at a time while the next is filled, and what becomes durable is given out in order.
//!
//! An idle lane writes at once; while a write is in flight, records gather. A lane that stays idle seals its last batch with an empty
//! one: from then on rot of it is told from a write that was torn, and put down to its conversations. The first failure of a write fences the lane: nothing is
//! written or acknowledged after it, since what the disk then holds is unknown.

use antiphon_wire::{codes::ErrorCode, ids::LanePosition};
use futures_util::future::join;

use crate::{
    door::{Done, Output, Token},
    encryption::{Vault, file::Entry},
    engine::{
        Engine,
        refusal::refuse,
        state::{Staged, State},
    },
    lane::{
        format::Builder,
        log::{LogFile, Place},
        record::{Change, Record},
        witness::Witness,
    },
    memtable::Message,
    rows::TailRow,
    seams::{AlignedBuffer, Clock, File, FileError, Files, Random},
};

/// A batch on its way to the disk.
struct Batch<D> {
    place: Place<D>,
    buffer: AlignedBuffer,
    checksum: u32,
    /// Position of its last record.
    last: LanePosition,
    record_bytes: usize,
    /// Data keys of conversations that begin in it; none in a store that is not encrypted.
    fresh: Vec<Entry>,
}

enum Next<D> {
    Write(Batch<D>),
    Wait,
    End,
}

impl<F: Files, C: Clock, R: Random> Engine<F, C, R> {
    pub(super) async fn commit_loop(&self) {
        loop {
            match self.next_batch() {
                Next::Write(batch) => self.write(batch).await,
                Next::Wait => self.shared.commit.wait().await,
                Next::End => break,
            }
        }
        self.shared.state.borrow_mut().core.closed = true;
        self.shared.closing.raise();
        self.shared.reading.raise();
        self.shared.upkeep.raise();
        self.shared.compaction.raise();
        self.shared.flushed.raise();
    }

    fn next_batch(&self) -> Next<F::File> {
        let mut state = self.shared.state.borrow_mut();
        let state = &mut *state;
        let records = state.core.stage.filling.records();
        let fenced = state.core.stage.fenced.is_some();
        if records == 0 || fenced {
            let finished = state.core.closing && state.core.waiting == 0;
            let wanted = finished || std::mem::take(&mut state.core.stage.seal_due);
            let padded = state.core.stage.filling.padded() as u64;
            if fenced || state.core.stage.sealed || !wanted || !state.core.log.has_place(padded) {
                return if finished { Next::End } else { Next::Wait };
            }
        }
        let padded = state.core.stage.filling.padded();
        let first = state.core.stage.position.0 + 1;
        let Some(place) = state.core.log.place(padded as u64, first, records) else {
            if state.core.closing && state.core.storage_full() {
                self.fence(state, "no room for the last batch: the disk is full".into());
                return Next::End;
            }
            // What recovery left may fill all files: only a flush makes room, and no commit will ask for it.
            self.seal_if_due(state);
            self.shared.upkeep.raise();
            return Next::Wait;
        };
        let capacity = self.shared.options.batch_bytes_max;
        let spare = state.core.stage.spare.take();
        let witness = state.core.stage.filling.witness();
        let next = match spare {
            Some(buffer) => Builder::reuse(buffer, capacity, witness),
            None => Builder::new(capacity, witness),
        };
        let filled = std::mem::replace(&mut state.core.stage.filling, next);
        let record_bytes = filled.record_bytes();
        let (buffer, checksum) = filled.finish(&place.header);
        state.core.stage.writing = true;
        let last = LanePosition(state.core.stage.position.0 + u64::from(records));
        let fresh = self.shared.vault.as_deref().map(Vault::fresh).unwrap_or_default();
        Next::Write(Batch { place, buffer, checksum, last, record_bytes, fresh })
    }

    async fn write(&self, batch: Batch<F::File>) {
        let Batch { mut place, buffer, checksum, last, record_bytes, fresh } = batch;
        let limit = place.limit.take();
        // A record must not be there before its key is.
        let kept = if fresh.is_empty() { Ok(()) } else { self.keep_keys(&fresh).await };
        let (buffer, result) = match kept {
            Ok(()) => write_placed(&place, buffer, limit).await,
            Err(error) => (buffer, Err(error)),
        };
        let mut state = self.shared.state.borrow_mut();
        state.core.stage.writing = false;
        match result {
            Ok(()) => {
                let padded = buffer.len() as u64;
                if place.offset == 0 {
                    // A file has come into use: the manifest is to name it, and another is to be ready.
                    self.shared.upkeep.raise();
                }
                state.core.stage.sealed = last == state.core.stage.position;
                state.core.log.wrote(padded, last.0, checksum);
                state.core.memory.active_log_bytes += padded;
                state.core.counters.batches += u64::from(last > state.core.stage.position);
                state.core.counters.batch_bytes += padded;
                state.core.counters.record_bytes += record_bytes as u64;
                self.committed(&mut state, last);
            }
            Err(error) => self.fence(&mut state, error.to_string()),
        }
        state.core.stage.spare = Some(buffer);
        self.wake(state);
    }

    /// Makes data keys durable.
    async fn keep_keys(&self, fresh: &[Entry]) -> Result<(), FileError> {
        let mut keys_file = self.shared.keys_file.take().expect("one batch is written at a time");
        let kept = keys_file.append(fresh).await;
        self.shared.keys_file.set(Some(keys_file));
        if let (Ok(()), Some(vault)) = (&kept, &self.shared.vault) {
            vault.stored(fresh.len());
        }
        kept
    }

    /// Everything up to `last` is durable.
    fn committed(&self, state: &mut State<F::File>, last: LanePosition) {
        if last == state.core.stage.position {
            return;
        }
        if state.core.memory.active.is_empty() {
            state.core.memory.active_since = self.shared.clock.now();
        }
        while state.core.stage.staged.front().is_some_and(|staged| staged.position <= last) {
            let staged = state.core.stage.staged.pop_front().expect("it was looked at");
            // The position goes with each record, so that what a command sees in between is consistent.
            state.core.stage.position = staged.position;
            state.core.counters.records += 1;
            give_out(state, staged);
        }
        assert_eq!(state.core.stage.position, last, "a batch's records are what was staged");
        state.core.outputs.push_back(Output::Committed { position: last });
        self.resume_settled(state);
        self.seal_if_due(state);
    }

    /// Has the last batch sealed if the lane is idle.
    pub(super) fn seal_last_batch(&self, state: &mut State<F::File>) {
        let stage = &mut state.core.stage;
        if !stage.sealed && !stage.writing && stage.filling.records() == 0 && stage.fenced.is_none() {
            stage.seal_due = true;
            self.shared.commit.raise();
        }
    }

    /// Carries on with conversations whose next command waited for a commit.
    fn resume_settled(&self, state: &mut State<F::File>) {
        for id in std::mem::take(&mut state.core.settling) {
            if let Some(slot) = state.slots.get_mut(&id) {
                slot.blocked = None;
            }
            self.drain(state, id);
        }
    }

    /// The log has failed: what is staged is refused, and nothing is staged any more.
    fn fence(&self, state: &mut State<F::File>, text: String) {
        state.core.outputs.push_back(Output::Fenced { text: text.clone() });
        state.core.stage.fenced = Some(text);
        let waiting: Vec<Token> = state
            .core
            .stage
            .staged
            .drain(..)
            .filter_map(|staged| staged.token)
            .chain(std::mem::take(&mut state.core.stage.answers).into_values().flatten().map(|(token, _)| token))
            .collect();
        for token in waiting {
            state.core.answer(token, Err(refuse(ErrorCode::StorageFailed)));
        }
        state.core.stage.filling = Builder::new(self.shared.options.batch_bytes_max, Witness::default());
        state.forget_unsettled();
        self.resume_settled(state);
        self.shared.flushed.raise();
    }
}

/// Writes a batch, and beside it the file's last page if that is to say more: the batch is durable when both are.
async fn write_placed<D: File>(
    place: &Place<D>,
    buffer: AlignedBuffer,
    limit: Option<Box<AlignedBuffer>>,
) -> (AlignedBuffer, Result<(), FileError>) {
    let LogFile { file, .. } = &place.log_file;
    let batch = file.write_at(place.offset, buffer);
    let Some(limit) = limit else { return batch.await };
    let ((buffer, written), (_, told)) = join(batch, file.write_at(place.log_file.room(), *limit)).await;
    (buffer, written.and(told))
}

/// Applies a durable record and says what is to be said.
fn give_out<D>(state: &mut State<D>, staged: Staged) {
    let Staged { position, conversation, record, message, token, done, recipients, removed, partly } = staged;
    let active = &mut state.core.memory.active;
    let applied = match (&message, &record, &done) {
        (Some((id, sender)), Record::Entry(archive), Done::Sent { sequence, ordinal, time, .. }) => {
            let last = TailRow { position, sequence: *sequence, ordinal: *ordinal, time: *time };
            let message = Message { conversation, last, id: *id, sender: sender.as_str(), archive };
            active.apply_message(&message, || sender.clone())
        }
        _ => active.apply(position, &record),
    };
    assert!(applied.lost.is_none(), "entries are staged without a gap");
    if let Some(token) = token {
        state.core.outputs.push_back(Output::Answer { token, result: Ok(done) });
    }
    match record {
        Record::Entry(archive) | Record::Change(Change { archive, .. }) => {
            let last = applied.last.expect("an entry moves its conversation's end");
            let sequence = last.sequence;
            if let Some(slot) = state.slots.get_mut(&conversation) {
                slot.durable = last;
            }
            state.core.outputs.push_back(Output::Entry {
                conversation,
                sequence,
                archive,
                recipients,
                removed,
                partly,
            });
        }
        Record::Mark(mark) => {
            let (read, delivered) = (mark.pointer.read, mark.pointer.delivered);
            state.core.outputs.push_back(Output::Receipt {
                conversation,
                user: mark.user,
                read,
                delivered,
                recipients,
            });
        }
        Record::Closed(_) => unreachable!("what is staged is open"),
    }
    if let Some(answers) = state.core.stage.answers.remove(&position) {
        for (token, answer) in answers {
            state.core.answer(token, answer);
        }
    }
}
