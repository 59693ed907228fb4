//! A checkpoint while the engine runs: everything that is durable is flushed, and the segments as they then are are shared with another
//! folder.
//!
//! No command waits for it: commits go on beside the flush, as beside any other. While files are shared the view of the segments is held,
//! so that a merge removes none of them. One at a time.

use antiphon_wire::ids::LanePosition;

use crate::{
    checkpoint::{self, Checkpointed},
    engine::{Engine, EngineError, Shared},
    runs::Run,
    seams::{Clock, Files, Random},
};

/// A checkpoint under way, until it goes, however the future ends.
struct UnderWay<'a, F: Files, C, R>(&'a Shared<F, C, R>);

impl<F: Files, C, R> Drop for UnderWay<'_, F, C, R> {
    fn drop(&mut self) {
        self.0.checkpointing.set(false);
        self.0.checkpointed.raise();
    }
}

impl<F: Files, C: Clock, R: Random> Engine<F, C, R> {
    /// Makes a checkpoint in `target`, an empty folder: all that was durable when this was called is in it. The engine's two futures must be
    /// running. A folder that this leaves without a manifest is no checkpoint.
    ///
    /// # Errors
    /// [`EngineError::CheckpointBusy`] while another is being made; [`EngineError::Fenced`] if the log has failed or is damaged, and
    /// damage of a segment, since what is not whole is no copy to rely on; [`EngineError::Closed`]; and whatever the files say.
    /// The store is as before then.
    pub async fn checkpoint(&self, target: &F) -> Result<Checkpointed, EngineError> {
        if self.shared.checkpointing.replace(true) {
            return Err(EngineError::CheckpointBusy);
        }
        let _under_way = UnderWay(&*self.shared);
        let position = self.position();
        self.flush_up_to(position).await?;
        // Both of the same moment: there is no await in between.
        let (manifest, runs) = (self.shared.sorted.manifest(), self.shared.sorted.runs());
        for run in runs.newest_first() {
            if let Run::Damaged { error, .. } = run {
                return Err(error.clone().into());
            }
        }
        // Of all that is in these segments, and perhaps of what came since.
        let keys = self.shared.vault.as_ref().map(|vault| (vault.header(), vault.entries()));
        let made = checkpoint::write(&self.shared.files, target, (*manifest).clone(), &[], keys).await;
        // What was replaced meanwhile was kept for this alone.
        drop(runs);
        self.shared.sorted.remove_unused().await;
        let made = made?;
        assert!(made.position >= position, "what was durable is in segments");
        Ok(made)
    }

    /// Waits until no checkpoint is under way.
    pub(super) async fn checkpoint_ended(&self) {
        while self.shared.checkpointing.get() {
            self.shared.checkpointed.wait().await;
        }
    }

    /// Waits until all records up to a durable position are in segments, and has that begin.
    async fn flush_up_to(&self, position: LanePosition) -> Result<(), EngineError> {
        let failures = self.shared.state.borrow().core.upkeep.flush_failures;
        loop {
            {
                let mut state = self.shared.state.borrow_mut();
                let state = &mut *state;
                if let Some(text) = &state.core.stage.fenced {
                    return Err(EngineError::Fenced(text.clone()));
                }
                if state.core.memory.flushed >= position {
                    return Ok(());
                }
                if state.core.closed {
                    return Err(EngineError::Closed);
                }
                if state.core.upkeep.flush_failures != failures {
                    let text = state.core.counters.maintenance_failure.clone();
                    return Err(EngineError::FlushFailed(text.unwrap_or_default()));
                }
                if state.core.memory.sealed.is_none() {
                    assert!(!state.core.memory.active.is_empty(), "what is durable is in segments or in a memtable");
                    self.seal(state);
                }
            }
            self.shared.flushed.wait().await;
        }
    }
}
