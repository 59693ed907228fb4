//! The slow work: memtables become segments, log files are prepared and freed, segments are merged.
//!
//! One thing at a time, the most urgent first; beside it compaction, which may take long. What both compute they compute elsewhere, if the
//! files have such a place ([`Files::elsewhere`]), where a flush goes before a merge: writers are refused when the memtable is full before
//! the one sealed is flushed. What fails is tried again a second later, on the next command or
//! tick after that; a full disk is remembered meanwhile, and commands that store something are refused before anything is changed.
//! Nothing is lost by waiting: what is not in segments is in the log.

use std::sync::Arc;

use antiphon_wire::ids::{ConversationId, LanePosition, TimestampMs};

use crate::{
    compaction::{Compacted, Pace, YieldNow},
    encryption::Vault,
    engine::{
        Engine,
        open::Blob,
        state::{ColdTail, State},
        useless::Useless,
    },
    error::StoreError,
    flush::FlushTimes,
    lane::{
        log::{LogFile, file_name},
        prepare::prepare,
    },
    memtable::{Memtable, Tail},
    row::Change,
    rows::TailRow,
    seams::{Clock, FileError, Files, Random, Urgency},
    sorted::FlushMark,
    window::{Horizon, MadeTimes},
};

/// How long a failed piece of work waits, in milliseconds: long enough to cost nothing, short enough to resume soon.
const RETRY_MS: u64 = 1_000;

/// A lane that writes no segment says in the manifest that ids are forgotten when the horizon is to move by so much: an hour, so that a
/// quiet lane writes one page an hour for it, and keeps ids for that much longer.
const HORIZON_STEP_MS: u64 = 60 * 60 * 1_000;

/// Conversations whose ends are remembered before commits have their turn: it takes a fraction of a millisecond.
const TAILS_AT_ONCE: usize = 1_024;

enum Work<D> {
    Prepare(String),
    Flush(Arc<Memtable>, FlushMark),
    /// The manifest is to name the log's newest file, so that a folder without it, or with a part of it, is not taken for a whole one.
    Name(FlushMark),
    Remove(LogFile<D>),
    Wait,
    End,
}

impl<F: Files, C: Clock, R: Random> Engine<F, C, R> {
    pub(super) async fn maintenance_loop(&self) {
        futures_util::future::join3(self.upkeep_loop(), self.compaction_loop(), self.scrub_loop()).await;
        self.checkpoint_ended().await;
    }

    async fn upkeep_loop(&self) {
        loop {
            match self.next_work() {
                Work::Prepare(name) => self.prepare(name).await,
                Work::Flush(memtable, mark) => self.flush(memtable, mark).await,
                Work::Name(mark) => self.name(mark).await,
                Work::Remove(log_file) => self.remove(log_file).await,
                Work::Wait => self.shared.upkeep.wait().await,
                Work::End => break,
            }
        }
    }

    fn next_work(&self) -> Work<F::File> {
        let mut state = self.shared.state.borrow_mut();
        let state = &mut *state;
        if state.core.closed {
            return Work::End;
        }
        if state.core.stage.fenced.is_some() || self.retry_waits(state) {
            return Work::Wait;
        }
        let unnamed = self.unnamed(state);
        // The least work, and first, but nothing that makes room waits for it.
        if let Some(mark) = unnamed.clone().filter(|_| !state.core.upkeep.naming_failed) {
            return Work::Name(mark);
        }
        let options = &self.shared.options;
        if state.core.log.ready.is_empty() && state.core.log.files() < options.log_files_max as usize {
            let name = file_name(state.core.log.next_name);
            state.core.log.next_name += 1;
            return Work::Prepare(name);
        }
        if let Some(memtable) = state.core.memory.sealed.clone() {
            let blob = self.blob(state, memtable.made());
            let FlushTimes { rows: times, erasing_since } = memtable.flush_times();
            let flushed_position = memtable.last().0;
            let mark = FlushMark { flushed_position, blob: Some(blob.encode()), times, erasing_since };
            return Work::Flush(memtable, mark);
        }
        if let Some(log_file) = state.core.log.unwanted.pop() {
            return Work::Remove(log_file);
        }
        unnamed.map_or(Work::Wait, Work::Name)
    }

    /// What the manifest is to say of the log, and of message ids that are forgotten.
    fn blob(&self, state: &State<F::File>, made: &MadeTimes) -> Blob {
        let (generation, file_bytes) = state.core.log.written();
        let (core, window_ms) = (&state.core, self.shared.options.message_ids_window_ms);
        let oldest = core.memory.oldest_first().filter_map(|memtable| memtable.times()).map(|(least, _)| least).min();
        let horizon = core.pacer.next(core.horizon, self.shared.clock.now(), window_ms, made, oldest.map(TimestampMs));
        let has_changes = core.has_changes || core.memory.sealed.as_deref().is_some_and(Memtable::has_changes);
        let others_until = self.shared.others_until;
        let keys = self.shared.vault.as_deref().map(Vault::anchor);
        let (salt, time) = (core.log.salt, core.stage.time);
        Blob { salt, time, generation, file_bytes, horizon, has_changes, keys, others_until }
    }

    /// What tells the manifest of a log file that it does not know of, or that the horizon has moved far, if so.
    fn unnamed(&self, state: &State<F::File>) -> Option<FlushMark> {
        let blob = self.blob(state, &MadeTimes::default());
        let named = Blob::decode(&self.shared.sorted.manifest().blob).ok()?;
        let flushed_position = state.core.memory.flushed.0;
        let is_unnamed = (named.generation, named.file_bytes) < (blob.generation, blob.file_bytes);
        // The first one comes with a flush: before that there are no ids to forget.
        let step = TimestampMs(named.horizon.stored.0.saturating_add(HORIZON_STEP_MS));
        let is_due = named.horizon.stored.0 > 0 && blob.horizon.stored >= step;
        (is_unnamed || is_due).then(|| FlushMark {
            flushed_position,
            blob: Some(blob.encode()),
            ..FlushMark::default()
        })
    }

    async fn compaction_loop(&self) {
        while !self.shared.state.borrow().core.closed {
            if self.compaction_is_due() {
                self.compact().await;
            } else {
                self.shared.compaction.wait().await;
            }
        }
    }

    fn compaction_is_due(&self) -> bool {
        let mut state = self.shared.state.borrow_mut();
        let state = &mut *state;
        !state.core.closing
            && state.core.stage.fenced.is_none()
            && !self.retry_waits(state)
            && !state.core.upkeep.compaction_failed
            && (self.shared.sorted.has_expired(state.core.horizon)
                || self.shared.sorted.choose().is_some()
                || self.shared.sorted.can_reclaim(self.erased_before()))
    }

    /// What was erased before this time is to go from the disk now: half of the time that there is for it is left for the work.
    fn erased_before(&self) -> u64 {
        self.shared.clock.now().0.saturating_sub(self.shared.options.reclaim_ms_max / 2)
    }

    /// Reclaims or merges: by turns, if both are to be done.
    async fn reclaim_or_merge(&self, horizon: Horizon) -> Result<Option<Compacted>, StoreError> {
        let sorted = &self.shared.sorted;
        let erased = self.shared.vault.as_deref().map(Vault::erased).unwrap_or_default();
        let useless = Useless { horizon, erased };
        let reclaims_first = {
            let upkeep = &mut self.shared.state.borrow_mut().core.upkeep;
            upkeep.reclaims_next = !upkeep.reclaims_next;
            !upkeep.reclaims_next
        };
        if !reclaims_first && let Some(merged) = sorted.compact(YieldNow, useless.clone()).await? {
            return Ok(Some(merged));
        }
        if let Some(reclaimed) = sorted.reclaim(self.erased_before(), YieldNow, useless.clone()).await? {
            self.shared.state.borrow_mut().core.counters.segments_reclaimed += 1;
            return Ok(Some(reclaimed));
        }
        if reclaims_first { sorted.compact(YieldNow, useless).await } else { Ok(None) }
    }

    /// Whether something failed less than a moment ago.
    fn retry_waits(&self, state: &mut State<F::File>) -> bool {
        let Some(failed_at) = state.core.upkeep.failed_at else {
            return false;
        };
        // The distance, not the order: the clock may have been set back.
        if self.shared.clock.now().0.abs_diff(failed_at.0) < RETRY_MS {
            return true;
        }
        state.core.upkeep.failed_at = None;
        state.core.upkeep.compaction_failed = false;
        false
    }

    /// Seals the active memtable if it is large, old, or covers much of the log, and none is sealed.
    pub(super) fn seal_if_due(&self, state: &mut State<F::File>) {
        let memory = &mut state.core.memory;
        if memory.sealed.is_some() || memory.active.is_empty() || state.core.stage.fenced.is_some() {
            return;
        }
        let options = &self.shared.options;
        let age = self.shared.clock.now().0.saturating_sub(memory.active_since.0);
        let due = memory.active.bytes() >= options.memtable_bytes
            || memory.active_log_bytes >= options.log_bytes_per_memtable()
            || age >= options.memtable_age_ms_max;
        if due {
            self.seal(state);
        }
    }

    /// Seals the active memtable; none is sealed.
    pub(super) fn seal(&self, state: &mut State<F::File>) {
        let memory = &mut state.core.memory;
        let mut next = Memtable::with_map(memory.hash, memory.spare_map.take());
        // Messages on their way to the disk will be in the next one, and must be found until that is flushed.
        for staged in &state.core.stage.staged {
            if let Some(message) = staged.message_id() {
                next.remember(staged.conversation, message, staged.position);
            }
        }
        let sealed = std::mem::replace(&mut memory.active, next);
        memory.sealed = Some(Arc::new(sealed));
        memory.active_log_bytes = 0;
        self.shared.upkeep.raise();
    }

    async fn prepare(&self, name: String) {
        let shared = &self.shared;
        let (lane, salt) = {
            let state = shared.state.borrow();
            (state.core.log.lane, state.core.log.salt)
        };
        let made = prepare(&shared.files, name, shared.options.log_file_bytes, lane, salt).await;
        let mut state = shared.state.borrow_mut();
        state.core.upkeep.prepare_full = matches!(made, Err(FileError::Full { .. }));
        match made {
            Ok(log_file) => {
                state.core.log.ready.push_back(log_file);
                shared.commit.raise();
            }
            Err(error) => self.failed(&mut state, error.to_string()),
        }
    }

    async fn flush(&self, memtable: Arc<Memtable>, mark: FlushMark) {
        let flushed = self.shared.sorted.flush_elsewhere(Arc::clone(&memtable), mark).await;
        self.shared.compaction.raise();
        if flushed.is_ok() {
            self.horizon_is_durable(&mut self.shared.state.borrow_mut());
            let mut tails = memtable.tails().peekable();
            while tails.peek().is_some() {
                self.remember_tails(tails.by_ref().take(TAILS_AT_ONCE));
                YieldNow.pause().await;
            }
        }
        if self.flushed(&memtable, flushed.err()) {
            // A hundred thousand entries are freed: not where commits wait.
            let freed = async move |_| Arc::into_inner(memtable).map(Memtable::into_map);
            let map = self.shared.files.elsewhere(Urgency::Soon, freed).await.flatten();
            self.shared.state.borrow_mut().core.memory.spare_map = map;
        }
    }

    fn remember_tails<'a>(&self, tails: impl Iterator<Item = (ConversationId, &'a Tail)>) {
        let mut state = self.shared.state.borrow_mut();
        for (id, tail) in tails {
            match tail.last {
                Some(TailRow { position, sequence, .. }) => {
                    state.core.tails.insert(id, ColdTail { position, sequence, record: tail.record() });
                }
                None => state.core.tails.marked(id, tail.record()),
            }
        }
    }

    /// Takes in how a flush has ended; whether the memtable is in a segment.
    fn flushed(&self, memtable: &Memtable, error: Option<StoreError>) -> bool {
        let mut state = self.shared.state.borrow_mut();
        // Whoever waits for it looks when all of this is done.
        self.shared.flushed.raise();
        state.core.upkeep.flush_full = matches!(error, Some(StoreError::File(FileError::Full { .. })));
        if let Some(error) = error {
            state.core.upkeep.flush_failures += 1;
            self.failed(&mut state, error.to_string());
            return false;
        }
        state.core.has_changes |= memtable.has_changes();
        state.core.newest_ids.absorb(memtable.newest_ids());
        state.core.memory.sealed = None;
        state.core.memory.flushes += 1;
        state.core.memory.flushed = LanePosition(memtable.last().0);
        state.core.counters.flushes += 1;
        if state.core.log.flushed(memtable.last().0, self.shared.options.log_file_bytes) {
            self.shared.commit.raise();
        }
        self.seal_if_due(&mut state);
        true
    }

    async fn name(&self, mark: FlushMark) {
        let nothing: [(&[u8], Change<&[u8]>); 0] = [];
        let named = self.shared.sorted.flush(nothing, mark).await;
        let mut state = self.shared.state.borrow_mut();
        state.core.upkeep.naming_failed = named.is_err();
        match named {
            Ok(_) => self.horizon_is_durable(&mut state),
            Err(error) => self.failed(&mut state, error.to_string()),
        }
    }

    /// From here on the ids that the manifest calls forgotten are.
    fn horizon_is_durable(&self, state: &mut State<F::File>) {
        let Ok(blob) = Blob::decode(&self.shared.sorted.manifest().blob) else { return };
        if blob.horizon != state.core.horizon {
            state.core.pacer.moved();
            self.shared.compaction.raise();
        }
        state.core.horizon = blob.horizon;
    }

    async fn remove(&self, log_file: LogFile<F::File>) {
        let removed = self.shared.files.remove(&log_file.name).await;
        if let Err(error) = removed {
            let mut state = self.shared.state.borrow_mut();
            state.core.log.unwanted.push(log_file);
            self.failed(&mut state, error.to_string());
        }
    }

    async fn compact(&self) {
        let horizon = self.shared.state.borrow().core.horizon;
        let dropped = self.shared.sorted.drop_expired(horizon).await;
        let compacted = match dropped {
            Ok(0) => self.reclaim_or_merge(horizon).await,
            Ok(segments) => {
                self.shared.state.borrow_mut().core.counters.segments_expired += segments as u64;
                return;
            }
            Err(error) => Err(error),
        };
        let mut state = self.shared.state.borrow_mut();
        match compacted {
            Ok(Some(_)) => state.core.counters.compactions += 1,
            Ok(None) => state.core.upkeep.compaction_failed = true, // nothing after all; it is looked at again later
            Err(error) => {
                state.core.upkeep.compaction_failed = true;
                self.failed(&mut state, error.to_string());
            }
        }
    }

    fn failed(&self, state: &mut State<F::File>, text: String) {
        state.core.counters.maintenance_failures += 1;
        state.core.counters.maintenance_failure = Some(text);
        state.core.upkeep.failed_at = Some(self.shared.clock.now());
    }
}
