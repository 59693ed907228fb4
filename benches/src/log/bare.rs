//! The bare lane: what group commit costs when nothing is kept of a record but its bytes. On a shard with the node's
//! ring, as the engine's lane: records that are due are copied into a buffer, one buffer is written at a time
//! (`O_DIRECT | O_DSYNC`, into a file that was written before), and the next is filled meanwhile.

use std::{
    cell::RefCell,
    path::Path,
    rc::Rc,
    sync::{Arc, mpsc},
};

use antiphon_bench_store::{counters::Meter, job::Usage};
use antiphon_engine::seams::{AlignedBuffer, File as _, Files as _, OpenMode};
use antiphon_gateway::{
    core::io::{self, ConnectionKey, Handler, Origin, Turn},
    uring::{NodeFile, Queue, ShardConfig, ShardContext, ShardCounters, Spawner, Waker, spawn_shard},
};
use antiphon_loadgen::clock::{Clock, MILLISECOND_NS, Nanoseconds};
use anyhow::Context;

use super::{
    arriving::{Arriving, Metronome},
    record::{Recorder, Summary},
};
use crate::append::Prewritten;

/// Bytes of the file, which is written again and again: a log file's of the engine.
const FILE_BYTES: u64 = 64 << 20;

/// Bytes of a buffer: the engine's largest batch.
const BUFFER_BYTES: usize = 1 << 20;

const NAME: &str = "bare";

/// From the plan to the first arrival.
const AHEAD_NS: u64 = 20 * MILLISECOND_NS;

/// An open load on a bare lane.
pub(crate) fn run(
    folder: &Path,
    rate: f64,
    seconds: f64,
    seed: u64,
    record_bytes: usize,
) -> anyhow::Result<(Summary, Usage)> {
    if !folder.join(NAME).exists() {
        Prewritten::new(&folder.join(NAME), FILE_BYTES)?;
    }
    let (reply, replied) = mpsc::channel();
    let (waker, clock) = (Waker::new()?, Clock::start());
    let start_ns = clock.now_ns() + AHEAD_NS;
    let arriving = Arriving::new(clock, &[rate], start_ns, seconds, seed);
    let metronome = Metronome::start(arriving.clone(), waker.clone())?;
    let (meter, before) = (Meter::start(folder)?, metronome.times()?);
    let of_lane = folder.to_owned();
    let make = move |context: &ShardContext| {
        let state = Rc::new(RefCell::new(State::new(arriving.clone(), start_ns)));
        begin(context, &of_lane, &state, reply.clone());
        BareLane {
            state,
            spawner: context.spawner().clone(),
            arriving,
            record: vec![0x61; record_bytes],
            reply: Some(reply),
        }
    };
    let counters = Arc::new(ShardCounters::default());
    let thread = spawn_shard(ShardConfig::new("bare", None), waker.clone(), counters, make)?;
    let summary = replied.recv().context("the bare lane ended over its work")?;
    let mut usage = meter.usage()?;
    let theirs = metronome.times()?.since(before);
    usage.cpu_ns = usage.cpu_ns.saturating_sub(theirs.run_ns);
    usage.waited_ns = usage.waited_ns.saturating_sub(theirs.waited_ns);
    metronome.stop()?;
    waker.stop();
    thread.join().map_err(|_| anyhow::anyhow!("the bare lane panicked"))??;
    Ok((summary?, usage))
}

type Reply = mpsc::Sender<anyhow::Result<Summary>>;

/// Opens the file.
fn begin(context: &ShardContext, folder: &Path, state: &Rc<RefCell<State>>, reply: Reply) {
    let (files, state, waker) = (context.files(folder), Rc::clone(state), context.waker().clone());
    context.spawner().spawn(Queue::Latency, async move {
        let opened = match files {
            Ok(files) => files.open(NAME, OpenMode::Log).await.map_err(anyhow::Error::from),
            Err(error) => Err(error.into()),
        };
        match opened {
            Ok(file) => state.borrow_mut().file = Some(Rc::new(file)),
            // Who waits may be gone.
            Err(error) => drop(reply.send(Err(error))),
        }
        waker.wake();
    });
}

struct State {
    clock: Clock,
    file: Option<Rc<NodeFile>>,
    offset: u64,
    filling: AlignedBuffer,
    used: usize,
    /// When each record in it was due.
    dues: Vec<Nanoseconds>,
    spare: Option<AlignedBuffer>,
    writing: bool,
    recorder: Option<Recorder>,
    failure: Option<anyhow::Error>,
}

impl State {
    fn new(arriving: Arriving, begin_ns: Nanoseconds) -> Self {
        Self {
            clock: arriving.clock(),
            file: None,
            offset: 0,
            filling: AlignedBuffer::zeroed(BUFFER_BYTES),
            used: 0,
            dues: Vec::new(),
            spare: Some(AlignedBuffer::zeroed(BUFFER_BYTES)),
            writing: false,
            recorder: Some(Recorder::new("append", begin_ns)),
            failure: None,
        }
    }

    /// The buffer that is full enough, cut to what it holds, if one can be written.
    fn next(&mut self) -> Option<(AlignedBuffer, Vec<Nanoseconds>, u64)> {
        if self.used == 0 || self.failure.is_some() {
            return None;
        }
        let mut full = std::mem::replace(&mut self.filling, self.spare.take()?);
        full.resize(self.used);
        self.used = 0;
        if self.offset + full.len() as u64 > FILE_BYTES {
            self.offset = 0;
        }
        let offset = self.offset;
        self.offset += full.len() as u64;
        Some((full, std::mem::take(&mut self.dues), offset))
    }
}

/// Writes what is there, and what has come meanwhile, until there is nothing.
async fn write(state: Rc<RefCell<State>>, file: Rc<NodeFile>) {
    loop {
        let Some((full, dues, offset)) = state.borrow_mut().next() else { break };
        let (mut buffer, result) = file.write_at(offset, full).await;
        let mut state = state.borrow_mut();
        let now_ns = state.clock.now_ns();
        if let Some(recorder) = &mut state.recorder {
            dues.iter().for_each(|&due_ns| recorder.answered(due_ns, now_ns));
        }
        state.failure = result.err().map(Into::into);
        buffer.resize(BUFFER_BYTES);
        state.spare = Some(buffer);
    }
    state.borrow_mut().writing = false;
}

/// The shard's handler.
struct BareLane {
    state: Rc<RefCell<State>>,
    spawner: Spawner,
    arriving: Arriving,
    record: Vec<u8>,
    reply: Option<Reply>,
}

impl Handler for BareLane {
    fn accepted(&mut self, _: ConnectionKey, _: Origin) {}

    fn received(&mut self, _: ConnectionKey, _: &mut [u8]) {}

    fn sent(&mut self, _: ConnectionKey) {}

    fn closed(&mut self, _: ConnectionKey) {}

    fn turn(&mut self, _: u64) -> Turn {
        let quiet = Turn { more: false, wake_at_ms: None };
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let Some(file) = state.file.clone() else { return quiet };
        let now_ns = state.clock.now_ns();
        while state.used + self.record.len() <= BUFFER_BYTES
            && let Some((_, due_ns)) = self.arriving.take_due(now_ns)
        {
            state.filling[state.used..state.used + self.record.len()].copy_from_slice(&self.record);
            state.used += self.record.len();
            state.dues.push(due_ns);
        }
        if !state.writing && state.used > 0 {
            state.writing = true;
            self.spawner.spawn(Queue::Latency, write(Rc::clone(&self.state), file));
        }
        let over = self.arriving.is_over() && state.used == 0 && !state.writing;
        if (over || state.failure.is_some())
            && let (Some(reply), Some(recorder)) = (self.reply.take(), state.recorder.take())
        {
            let outcome = state.failure.take().map_or_else(|| Ok(recorder.summary()), Err);
            // Who asked may be gone.
            let _ = reply.send(outcome);
        }
        quiet
    }

    fn poll_command(&mut self) -> Option<io::Command> {
        None
    }
}
