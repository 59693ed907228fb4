//! The engine itself: carries out the commands of [`crate::door`].
//!
//! Call order: [`Engine::open`]; spawn [`Engine::run_commits`] on the queue that must be fast and [`Engine::run_maintenance`] on the
//! one that may be slow; then [`Engine::submit`] and, after every turn, [`Engine::poll`] until it is empty; [`Engine::tick`] about once
//! a second; at the end [`Engine::close`]. Nothing but the two futures does I/O, and nothing is spawned.

mod error;

use std::{cell::RefCell, collections::VecDeque, rc::Rc};

use antiphon_wire::ids::LanePosition;

use crate::{
    door::{Command, Output, Token},
    options::EngineOptions,
    report::{OpenReport, Status},
    seams::{Clock, Files, Random},
};

pub use error::EngineError;

/// One log lane with its conversations. A clone is another handle of the same engine.
pub struct Engine<F: Files, C: Clock, R: Random> {
    shared: Rc<Shared<F, C, R>>,
}

struct Shared<F, C, R> {
    _files: F,
    _clock: C,
    _random: R,
    outputs: RefCell<VecDeque<Output>>,
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
    #[expect(clippy::unused_async, reason = "the signature comes first")]
    pub async fn open(
        files: F,
        clock: C,
        random: R,
        options: EngineOptions,
    ) -> Result<(Self, OpenReport), EngineError> {
        options.check()?;
        let shared = Shared { _files: files, _clock: clock, _random: random, outputs: RefCell::default() };
        Ok((Self { shared: Rc::new(shared) }, OpenReport::default()))
    }

    /// The store's identity: random, made once, for [`antiphon_wire::position::Position`].
    #[must_use]
    pub fn store_id(&self) -> u64 {
        0
    }

    /// Takes a command. Its [`Output::Answer`] follows, perhaps at once; every command is answered exactly once as long as
    /// [`Engine::run_commits`] runs.
    pub fn submit(&self, token: Token, command: Command) {
        let refusal = crate::door::Refusal { code: antiphon_wire::codes::ErrorCode::Overloaded, text: format!("{command:?}") };
        self.shared.outputs.borrow_mut().push_back(Output::Answer { token, result: Err(refusal) });
    }

    /// The next output, in the order that [`crate::door`] promises. The caller polls until `None` after every turn: what waits here is
    /// bounded by what it submitted.
    #[must_use]
    pub fn poll(&self) -> Option<Output> {
        self.shared.outputs.borrow_mut().pop_front()
    }

    /// Resolves when [`Engine::poll`] has something, for a caller that sleeps. One waiter at a time.
    pub async fn output_ready(&self) {}

    /// The latency-critical future: writes batches, and does the reads that commands wait for. Ends after [`Engine::close`]; goes
    /// on after a failure of the log, because reads do.
    pub async fn run_commits(&self) {}

    /// The background future: flushes memtables, prepares and recycles log files, compacts. Ends after [`Engine::close`].
    pub async fn run_maintenance(&self) {}

    /// To be called about once a second: time passes for what depends on it (a memtable's age, trying again after a full disk).
    pub fn tick(&self) {}

    /// The lane's durable position: everything up to here was output or is in the queue of [`Engine::poll`].
    #[must_use]
    pub fn position(&self) -> LanePosition {
        LanePosition(0)
    }

    /// Figures for metrics. Cheap. To time commits, time the log's `write_at`, which is the caller's own, or commands from `submit` to
    /// their answer.
    #[must_use]
    pub fn status(&self) -> Status {
        Status::default()
    }

    /// Takes no more commands (`shutting_down`), waits until those taken are answered and durable, marks the log as closed in order, and
    /// ends the two futures. They must be running. Says what failed, if anything did; nothing acknowledged is at stake.
    #[expect(clippy::unused_async, reason = "the signature comes first")]
    pub async fn close(&self) -> Result<(), EngineError> {
        Ok(())
    }
}
