//! A lane over files in memory, driven by hand: its futures are polled until nothing can go on, in the same order every time.

#![allow(dead_code, reason = "each test uses its part")]

pub(crate) mod model;

use std::{
    cell::RefCell,
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Wake, Waker},
};

use antiphon_engine::{
    Checkpointed, Engine, EngineError, EngineOptions, OpenReport,
    door::{CaughtUp, Command, Done, HistoryPage, HistoryRange, Output, Refusal, Token},
    memory_files::{MemoryClock, MemoryFiles, MemoryRandom, OperationKind},
    offline::{self, Loader},
    seams::Clock as _,
};
use antiphon_wire::{
    frame::{Change, Content, Entry, view_entry},
    ids::{ClientMessageId, ConversationId, Epoch, LanePosition, Sequence, UserId},
};

pub(crate) type TestEngine = Engine<MemoryFiles, MemoryClock, MemoryRandom>;

/// What became of a checkpoint.
pub(crate) type Made = Result<Checkpointed, EngineError>;

/// A lane with its world.
pub(crate) struct Lane {
    pub(crate) files: MemoryFiles,
    pub(crate) clock: MemoryClock,
    pub(crate) random: MemoryRandom,
    pub(crate) options: EngineOptions,
    pub(crate) report: OpenReport,
    pub(crate) engine: TestEngine,
    tasks: Vec<Pin<Box<dyn Future<Output = ()>>>>,
    flag: Arc<Flag>,
    next_token: u64,
    /// [`Lane::settle_queued`] carries out reads only when nothing else waits.
    pub(crate) reads_last: bool,
    /// Everything that was polled.
    pub(crate) outputs: Vec<Output>,
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Small sizes, so that files, batches and memtables change often.
pub(crate) fn small_options() -> EngineOptions {
    EngineOptions {
        log_file_bytes: 1024 * 1024,
        log_files_max: 4,
        memtable_bytes: 24 * 1024,
        memtable_age_ms_max: 1_000_000,
        cache_bytes: 64 * 1024,
        conversations_bytes_max: 8 * 1024,
        tails_max: 8,
        batch_bytes_max: 256 * 1024,
        reads_in_flight_max: 4,
        ..EngineOptions::new(0)
    }
}

pub(crate) fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

/// Runs a future over files that complete at once.
/// A text that does not compress, so that many make many blocks.
pub(crate) fn noise(seed: u64, length: usize) -> String {
    let random = MemoryRandom::new(seed);
    (0..length).map(|_| char::from(b' ' + random.below(95) as u8)).collect()
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    antiphon_engine::memory_files::block_on(future)
}

impl Lane {
    pub(crate) fn new(seed: u64) -> Self {
        Self::with_options(seed, small_options())
    }

    pub(crate) fn with_options(seed: u64, options: EngineOptions) -> Self {
        let (files, clock) = (MemoryFiles::new(seed), MemoryClock::new(1_000_000));
        Self::open(files, clock, MemoryRandom::new(seed), options).unwrap()
    }

    pub(crate) fn open(
        files: MemoryFiles,
        clock: MemoryClock,
        random: MemoryRandom,
        options: EngineOptions,
    ) -> Result<Self, EngineError> {
        files.set_queued(false);
        let open = Engine::open(files.clone(), clock.clone(), random.clone(), options.clone());
        let (engine, report) = block_on(open)?;
        let (commits, maintenance) = (engine.clone(), engine.clone());
        let tasks: Vec<Pin<Box<dyn Future<Output = ()>>>> = vec![
            Box::pin(async move { commits.run_commits().await }),
            Box::pin(async move { maintenance.run_maintenance().await }),
        ];
        let flag = Arc::new(Flag(AtomicBool::new(true)));
        Ok(Self {
            files,
            clock,
            random,
            options,
            report,
            engine,
            tasks,
            flag,
            next_token: 1,
            reads_last: false,
            outputs: Vec::new(),
        })
    }

    /// Polls the lane's futures until none can go on, and collects what came out.
    pub(crate) fn settle(&mut self) {
        let waker = Waker::from(self.flag.clone());
        let mut context = Context::from_waker(&waker);
        while self.flag.0.swap(false, Ordering::Relaxed) {
            self.tasks.retain_mut(|task| task.as_mut().poll(&mut context).is_pending());
        }
        self.drain();
    }

    /// Lets each of the futures go on once.
    pub(crate) fn turn(&mut self) {
        self.flag.0.store(true, Ordering::Relaxed);
        let waker = Waker::from(self.flag.clone());
        let mut context = Context::from_waker(&waker);
        self.tasks.retain_mut(|task| task.as_mut().poll(&mut context).is_pending());
        self.drain();
    }

    /// Collects what is to be polled, without letting the futures go on.
    pub(crate) fn drain(&mut self) {
        while let Some(output) = self.engine.poll() {
            self.outputs.push(output);
        }
    }

    /// Carries out operations on log files alone: a flush stays under way.
    pub(crate) fn settle_log(&mut self) {
        self.settle();
        while let Some(of_log) = self.files.pending().into_iter().find(|operation| operation.name.starts_with("log-")) {
            self.files.release(of_log.ticket);
            self.settle();
        }
    }

    /// As [`Lane::settle`] where files wait: carries out what waits in an order by the lane's random source.
    pub(crate) fn settle_queued(&mut self) {
        self.settle();
        loop {
            let mut pending = self.files.pending();
            if pending.is_empty() {
                return;
            }
            if self.reads_last && pending.iter().any(|operation| operation.kind != OperationKind::Read) {
                pending.retain(|operation| operation.kind != OperationKind::Read);
            }
            let chosen = self.random.below(pending.len() as u64) as usize;
            self.files.release(pending[chosen].ticket);
            self.settle();
        }
    }

    /// Submits a command and gives its token.
    pub(crate) fn submit(&mut self, command: Command) -> Token {
        let token = Token(self.next_token);
        self.next_token += 1;
        self.engine.submit(token, command);
        token
    }

    /// The answer to a command, if it has come.
    pub(crate) fn answer(&self, token: Token) -> Option<Result<Done, Refusal>> {
        let mut answers = self.outputs.iter().filter_map(|output| match output {
            Output::Answer { token: of, result } if *of == token => Some(result.clone()),
            _ => None,
        });
        let answer = answers.next();
        assert!(answers.next().is_none(), "{token:?} was answered twice");
        answer
    }

    /// Submits a command and lets everything go on until it is answered.
    pub(crate) fn ask(&mut self, command: Command) -> Result<Done, Refusal> {
        let text = format!("{command:?}");
        let token = self.submit(command);
        self.settle_queued();
        self.answer(token).unwrap_or_else(|| panic!("no answer to {text}"))
    }

    pub(crate) fn create_direct(&mut self, one: &str, other: &str) -> ConversationId {
        let command = Command::CreateDirect { user: user(one), peer: user(other) };
        self.created(command)
    }

    pub(crate) fn create_group(&mut self, creator: &str, key: u8, members: &[&str]) -> ConversationId {
        let members = members.iter().map(|name| user(name)).collect();
        let (user, key) = (user(creator), ClientMessageId([key; 16]));
        self.created(Command::CreateGroup { user, key, title: "group".into(), members })
    }

    fn created(&mut self, command: Command) -> ConversationId {
        match self.ask(command) {
            Ok(Done::Created { conversation, .. }) => conversation,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn send(
        &mut self,
        from: &str,
        conversation: ConversationId,
        key: u64,
        text: &str,
    ) -> Result<Done, Refusal> {
        self.ask(send(from, conversation, key, text))
    }

    /// Sends and expects the message to get a sequence.
    pub(crate) fn sent(&mut self, from: &str, conversation: ConversationId, key: u64, text: &str) -> Sequence {
        match self.send(from, conversation, key, text) {
            Ok(Done::Sent { sequence, .. }) => sequence,
            other => panic!("{other:?}"),
        }
    }

    /// Changes a message and expects the change to get a sequence.
    pub(crate) fn changed(&mut self, from: &str, conversation: ConversationId, key: u64, what: Change) -> Sequence {
        match self.ask(change(from, conversation, key, what)) {
            Ok(Done::Sent { sequence, .. }) => sequence,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn history(
        &mut self,
        name: &str,
        conversation: ConversationId,
        range: HistoryRange,
        limit: u32,
    ) -> Result<HistoryPage, Refusal> {
        match self.ask(Command::History { user: user(name), conversation, range, limit }) {
            Ok(Done::History(page)) => Ok(*page),
            Ok(other) => panic!("{other:?}"),
            Err(refusal) => Err(refusal),
        }
    }

    /// All entries that a user may see, by pages forward.
    pub(crate) fn whole_history(&mut self, name: &str, conversation: ConversationId) -> Vec<Entry> {
        let mut entries = Vec::new();
        let mut after = Sequence(0);
        loop {
            let page = self.history(name, conversation, HistoryRange::After(after), 7).unwrap();
            let Some(last) = page.entries.last() else { return entries };
            after = entry(last).sequence;
            entries.extend(page.entries.iter().map(|archive| entry(archive)));
        }
    }

    pub(crate) fn catch_up(
        &mut self,
        name: &str,
        since: u64,
        known: &[(ConversationId, u64)],
    ) -> Result<CaughtUp, Refusal> {
        let known = known.iter().map(|(id, sequence)| (*id, Epoch(1), Sequence(*sequence))).collect();
        match self.ask(Command::CatchUp { user: user(name), since: Some(LanePosition(since)), known }) {
            Ok(Done::CaughtUp(caught_up)) => Ok(*caught_up),
            Ok(other) => panic!("{other:?}"),
            Err(refusal) => Err(refusal),
        }
    }

    /// Ends in order and opens again.
    pub(crate) fn reopen(&mut self) {
        self.close().unwrap();
        *self = self.opened_again(self.files.clone()).unwrap();
    }

    pub(crate) fn close(&mut self) -> Result<(), EngineError> {
        let engine = self.engine.clone();
        let result = Rc::new(RefCell::new(None));
        let slot = result.clone();
        self.tasks.push(Box::pin(async move {
            let closed = engine.close().await;
            *slot.borrow_mut() = Some(closed);
        }));
        self.flag.0.store(true, Ordering::Relaxed);
        self.settle_queued();
        assert!(self.tasks.is_empty(), "the futures end");
        let closed = result.borrow_mut().take();
        closed.expect("close ends")
    }

    /// Begins a checkpoint; its end will be where it says.
    pub(crate) fn start_checkpoint(&mut self, target: &MemoryFiles) -> Rc<RefCell<Option<Made>>> {
        let (engine, target) = (self.engine.clone(), target.clone());
        let made = Rc::new(RefCell::new(None));
        let slot = Rc::clone(&made);
        self.tasks.push(Box::pin(async move {
            let result = engine.checkpoint(&target).await;
            *slot.borrow_mut() = Some(result);
        }));
        self.flag.0.store(true, Ordering::Relaxed);
        made
    }

    /// Makes a checkpoint while nothing else happens.
    pub(crate) fn checkpoint(&mut self, target: &MemoryFiles) -> Made {
        let made = self.start_checkpoint(target);
        self.settle_queued();
        made.take().expect("a checkpoint ends")
    }

    /// The power fails, and the lane starts again on what is left.
    pub(crate) fn crash(&mut self, seed: u64) {
        self.files.crash(seed);
        *self = self.opened_again(self.files.reopen()).unwrap();
    }

    /// Checks what was stored wherever it may be: in memory, in the log, in segments, and in stores that were loaded of it and repaired.
    pub(crate) fn check_wherever_it_is(&mut self, check: impl Fn(&mut Self, &str)) {
        check(self, "at once");
        self.reopen();
        check(self, "from the log");
        self.clock.advance(10_000_000);
        self.engine.tick();
        self.settle();
        check(self, "flushed");
        self.reopen();
        check(self, "from segments");
        self.close().unwrap();
        assert_sound(&self.files);
        let lines = dump(&self.files);
        let loaded = load(&lines);
        assert_eq!(dump(&loaded)[1..], lines[1..]);
        let repaired = MemoryFiles::new(0);
        block_on(offline::repair(self.files.clone(), repaired.clone(), 0_u16, &MemoryRandom::new(7), |_| ())).unwrap();
        for (files, what) in [(loaded, "loaded"), (repaired, "repaired")] {
            assert_sound(&files);
            check(&mut self.opened_again(files).unwrap(), what);
        }
    }

    /// What the clock shows.
    pub(crate) fn clock_ms(&self) -> u64 {
        self.clock.now().0
    }

    /// Another lane on files that this one left.
    pub(crate) fn opened_again(&self, files: MemoryFiles) -> Result<Self, EngineError> {
        let mut lane = Self::open(files, self.clock.clone(), self.random.clone(), self.options.clone())?;
        lane.next_token = self.next_token;
        lane.reads_last = self.reads_last;
        Ok(lane)
    }
}

/// The lines that a store of lane 0 is told by.
pub(crate) fn dump(files: &MemoryFiles) -> Vec<String> {
    let mut lines = Vec::new();
    let mut sink = |line: &str| {
        lines.push(line.to_owned());
        true
    };
    block_on(offline::dump(files.clone(), 0_u16, |_| (), &mut sink)).unwrap();
    lines
}

/// A store that such lines make.
pub(crate) fn load(lines: &[String]) -> MemoryFiles {
    let files = MemoryFiles::new(0);
    block_on(async {
        let mut loader = Loader::create(files.clone(), &MemoryRandom::new(5), &lines[0]).await.unwrap();
        for line in &lines[1..] {
            loader.push(line).await.unwrap();
        }
    });
    files
}

pub(crate) fn assert_sound(files: &MemoryFiles) {
    let report = block_on(offline::verify(files.clone(), 0_u16, |_| ())).unwrap();
    assert!(report.is_sound(), "{:?}", report.findings);
}

pub(crate) fn send(from: &str, conversation: ConversationId, key: u64, text: &str) -> Command {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&key.to_le_bytes());
    let client_message_id = ClientMessageId(id);
    Command::Send { user: user(from), conversation, client_message_id, body: Content::text(text).0 }
}

/// A command that changes a message.
pub(crate) fn change(from: &str, conversation: ConversationId, key: u64, change: Change) -> Command {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&key.to_le_bytes());
    let client_message_id = ClientMessageId(id);
    Command::Change { user: user(from), conversation, client_message_id, change }
}

/// Tells a manifest that the log file it names has so many bytes, for a test that cuts the file to what is used of it.
pub(crate) fn name_log_bytes(manifest: &mut [u8], bytes: u64) {
    let length = u32::from_le_bytes(manifest[12..16].try_into().unwrap()) as usize;
    let manifest = &mut manifest[..length];
    let blob = length - u32::from_le_bytes(manifest[68..72].try_into().unwrap()) as usize;
    manifest[blob + 25..blob + 33].copy_from_slice(&bytes.to_le_bytes());
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&manifest[..16]), &manifest[20..]);
    manifest[16..20].copy_from_slice(&checksum.to_le_bytes());
}

/// An archive's entry, in memory.
pub(crate) fn entry(archive: &[u8]) -> Entry {
    let view = view_entry(archive).unwrap();
    rkyv::deserialize::<Entry, rkyv::rancor::Error>(view).unwrap()
}
