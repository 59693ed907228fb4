//! The process that is cut: one shard as in a node, with its ring, its files and an engine, and no sockets. It reads
//! all that the store holds and tells it; then it writes as it is told, and says every answer before it submits the
//! next command.
//!
//! Must not do: judge anything, or wait for anything but the engine and its plan.

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    io,
    os::fd::AsFd,
    path::PathBuf,
    rc::Rc,
    sync::{Arc, mpsc},
    thread,
};

use antiphon_engine::{
    Engine, EngineOptions, OpenReport,
    door::{Command, Done, HistoryRange, Output, Refusal, Token},
};
use antiphon_gateway::{
    core::io::{Command as DriverCommand, ConnectionKey, Handler, Origin, Turn},
    uring::{Desk, OsRandom, Queue, ShardConfig, ShardContext, ShardCounters, SystemClock, Waker, Worker, run_shard},
};
use antiphon_simulator::dice::Dice;
use antiphon_wire::{
    codes::ErrorCode,
    ids::{ClientMessageId, ConversationId, Sequence},
    limits::PAGE_ITEMS_MAX,
};
use anyhow::Context as _;

use super::{
    Lie,
    model::{FIRST_TITLE, hash},
    names::{Names, Place, reader, senders},
    protocol::{Frame, Opened, Plan},
    watched::{Reporter, WatchedFiles},
};

/// How often the engine is told that time passes: often enough that last batches are sealed within a round.
const TICK_INTERVAL_MS: u64 = 10;

/// What a writer is told when it is started.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct WriterArguments {
    /// The engine's folder.
    #[arg(long)]
    pub(crate) data: PathBuf,
    /// What the messages follow from.
    #[arg(long)]
    pub(crate) seed: u64,
    /// Which store of the run it is.
    #[arg(long)]
    pub(crate) store: u32,
    /// Size of log files.
    #[arg(long)]
    pub(crate) log_file_bytes: u64,
    /// Size of the memtable.
    #[arg(long)]
    pub(crate) memtable_bytes: usize,
    /// A promise of the file layer to break.
    #[arg(long)]
    pub(crate) lie: Option<Lie>,
}

impl WriterArguments {
    /// Small, so that within a round log files go round, memtables are flushed and segments merged.
    fn options(&self) -> EngineOptions {
        EngineOptions {
            log_file_bytes: self.log_file_bytes,
            log_files_max: 3,
            memtable_bytes: self.memtable_bytes,
            batch_bytes_max: 256 << 10,
            cache_bytes: 1 << 20,
            conversations_bytes_max: 4 << 10,
            tails_max: 8,
            user_counts_max: 4,
            ..EngineOptions::new(0)
        }
    }
}

type NodeEngine = Engine<WatchedFiles, SystemClock, OsRandom>;

/// What comes from outside of the loop.
type Inbox = Rc<RefCell<VecDeque<Event>>>;

enum Event {
    Opened(Box<(NodeEngine, OpenReport)>),
    OpenFailed(String),
    Closed(Result<(), String>),
}

/// Runs until it is killed, or told to close.
pub(crate) fn run(arguments: &WriterArguments) -> anyhow::Result<()> {
    let to = io::stdout().as_fd().try_clone_to_owned().context("standard output")?;
    let reporter = Reporter::new(to.into());
    let waker = Waker::new().context("a waker")?;
    let (told, plans) = mpsc::channel();
    let awake = waker.clone();
    thread::spawn(move || {
        while let Some(frame) = Frame::read(&mut io::stdin().lock()) {
            if told.send(frame).is_err() {
                break;
            }
            awake.wake();
        }
        // Whoever started us is gone.
        std::process::exit(3);
    });
    let config = ShardConfig { connections_max: 1, receive_buffers: 1, ..ShardConfig::new("writer", []) };
    let arguments = arguments.clone();
    let worker = Worker::start("work", |error| eprintln!("{error}")).context("a worker")?;
    let desk = worker.desk();
    run_shard(config, waker, Arc::new(ShardCounters::default()), move |context| {
        arguments.lie.into_iter().for_each(Lie::tell);
        Writer::start(&arguments, context, desk, reporter, plans)
    })?;
    Ok(worker.stop()?)
}

/// What a command's answer is about.
enum Asked {
    List,
    Page(ConversationId),
    Create,
    Send(ConversationId, ClientMessageId),
    Title(ConversationId, String),
    Mark(ConversationId),
}

struct Writer {
    context: ShardContext,
    reporter: Reporter,
    plans: mpsc::Receiver<Frame>,
    inbox: Inbox,
    names: Names,
    engine: Option<NodeEngine>,
    asked: BTreeMap<Token, Asked>,
    next_token: u64,
    was_read: bool,
    writing: Option<Writing>,
    /// Last entry of each conversation that is there.
    last: BTreeMap<ConversationId, u64>,
    closing: bool,
    tick_at_ms: u64,
    /// Nothing new before this: the engine is behind.
    held_until_ms: u64,
}

/// The round's plan, and how far it is carried out.
struct Writing {
    plan: Plan,
    dice: Dice,
    number: u32,
}

impl Writer {
    fn start(
        arguments: &WriterArguments,
        context: &ShardContext,
        desk: Desk,
        reporter: Reporter,
        plans: mpsc::Receiver<Frame>,
    ) -> Self {
        let inbox = Inbox::default();
        let (of_task, to, options) = (context.clone(), Rc::clone(&inbox), arguments.options());
        let files = context.files_of_lane(&arguments.data, desk);
        let (reports, lie) = (reporter.clone(), arguments.lie);
        context.spawner().spawn(Queue::Latency, async move {
            let opened = match files {
                Ok(files) => open(WatchedFiles::new(files, reports, lie), &of_task, options).await,
                Err(error) => Err(error.into()),
            };
            let event = match opened {
                Ok(opened) => Event::Opened(Box::new(opened)),
                Err(error) => Event::OpenFailed(format!("{error:#}")),
            };
            to.borrow_mut().push_back(event);
        });
        Self {
            context: context.clone(),
            reporter,
            plans,
            inbox,
            names: Names { seed: arguments.seed, store: arguments.store },
            engine: None,
            asked: BTreeMap::new(),
            next_token: 0,
            was_read: false,
            writing: None,
            last: BTreeMap::new(),
            closing: false,
            tick_at_ms: 0,
            held_until_ms: 0,
        }
    }

    fn submit(&mut self, asked: Asked, command: Command) {
        let token = Token(self.next_token);
        self.next_token += 1;
        self.asked.insert(token, asked);
        self.engine.as_ref().expect("commands come after the opening").submit(token, command);
    }

    fn take_events(&mut self) {
        let events = std::mem::take(&mut *self.inbox.borrow_mut());
        for event in events {
            match event {
                Event::Opened(opened) => {
                    let (engine, report) = *opened;
                    self.reporter.say(&Frame::Opened(told(&report)));
                    self.engine = Some(engine);
                    self.submit(Asked::List, Command::Conversations { user: reader(), after: None, limit: 100 });
                }
                Event::OpenFailed(text) => self.reporter.say(&Frame::OpenFailed(text)),
                Event::Closed(result) => {
                    self.reporter.say(&result.map_or_else(Frame::Failed, |()| Frame::Closed));
                    self.context.waker().stop();
                }
            }
        }
        while let Ok(frame) = self.plans.try_recv() {
            match frame {
                Frame::Plan(plan) => {
                    let dice = Dice::new(self.names.seed ^ u64::from(self.names.store) << 32, &plan.round.to_string());
                    self.writing = Some(Writing { plan, dice, number: 0 });
                }
                _ => self.close(),
            }
        }
    }

    fn close(&mut self) {
        let Some(engine) = self.engine.clone() else { return };
        self.closing = true;
        let inbox = Rc::clone(&self.inbox);
        self.context.spawner().spawn(Queue::Latency, async move {
            let closed = engine.close().await.map_err(|error| error.to_string());
            inbox.borrow_mut().push_back(Event::Closed(closed));
        });
    }

    fn take_outputs(&mut self, now_ms: u64) {
        while let Some(output) = self.engine.as_ref().and_then(Engine::poll) {
            match output {
                Output::Answer { token, result } => {
                    let asked = self.asked.remove(&token).expect("every command is answered once");
                    self.answered(asked, result, now_ms);
                }
                Output::Entry { conversation, sequence, archive, .. } => {
                    self.last.insert(conversation, sequence.0);
                    let (sequence, hash) = (sequence.0, hash(&archive));
                    self.reporter.say(&Frame::Served { conversation, sequence, hash });
                }
                Output::Committed { position } => self.reporter.say(&Frame::Committed(position.0)),
                Output::Receipt { .. } | Output::Told { .. } => {}
                Output::Fenced { text } => self.reporter.say(&Frame::Failed(text)),
            }
        }
    }

    fn answered(&mut self, asked: Asked, result: Result<Done, Refusal>, now_ms: u64) {
        let frame = match (asked, result) {
            (Asked::List, Ok(Done::Conversations { conversations, .. })) => {
                for summary in conversations {
                    let (conversation, last) = (summary.conversation, summary.last_sequence.0);
                    let (read, unread, title) = (summary.read.0, summary.unread, summary.title);
                    self.reporter.say(&Frame::Listed { conversation, last, read, unread, title });
                    self.last.insert(conversation, last);
                    self.read_on(conversation, Sequence(0));
                }
                return;
            }
            (Asked::Page(conversation), Ok(Done::History(page))) => {
                let last = page.entries.last().map(|archive| sequence_of(archive));
                page.entries.iter().for_each(|archive| self.reporter.say(&Frame::Entry(archive.to_vec())));
                if let Some(last) = last.filter(|last| *last < page.last) {
                    self.read_on(conversation, last);
                }
                return;
            }
            (Asked::List, Err(refusal)) => Frame::Unreadable(format!("the list: {}", refusal.text)),
            (Asked::Page(conversation), Err(refusal)) => Frame::Unreadable(format!("{conversation}: {}", refusal.text)),
            (Asked::Create, Ok(Done::Created { conversation, sequence, .. })) => {
                self.last.insert(conversation, sequence.0);
                Frame::Created { conversation }
            }
            (Asked::Send(conversation, id), Ok(Done::Sent { sequence, duplicate, .. })) => {
                Frame::Sent { conversation, id, sequence: sequence.0, duplicate }
            }
            (Asked::Title(conversation, title), Ok(Done::Changed { sequence })) => {
                Frame::Titled { conversation, sequence: sequence.0, title }
            }
            (Asked::Mark(conversation), Ok(Done::Marked { read, .. })) => Frame::Marked { conversation, read: read.0 },
            (_, Err(refusal)) => {
                if refusal.code == ErrorCode::Overloaded {
                    self.held_until_ms = now_ms + 1;
                }
                Frame::Refused(refusal.code.name().to_owned())
            }
            (_, Ok(done)) => Frame::Unreadable(format!("an answer to another question: {done:?}")),
        };
        self.reporter.say(&frame);
    }

    fn read_on(&mut self, conversation: ConversationId, after: Sequence) {
        let range = HistoryRange::After(after);
        let command = Command::History { user: reader(), conversation, range, limit: PAGE_ITEMS_MAX };
        self.submit(Asked::Page(conversation), command);
    }

    /// Submits until as much is unanswered as the plan wants.
    fn write(&mut self) {
        let Some(mut writing) = self.writing.take() else { return };
        while self.asked.len() < writing.plan.window as usize {
            match writing.plan.again.pop() {
                Some(id) => self.send(id),
                None if self.write_next(&mut writing) => {}
                // A conversation is being made.
                None => break,
            }
        }
        self.writing = Some(writing);
    }

    /// Submits the next command of the plan; false if nothing can be submitted before an answer.
    fn write_next(&mut self, writing: &mut Writing) -> bool {
        if self.asked.values().any(|asked| matches!(asked, Asked::Create)) {
            return false;
        }
        let index = writing.dice.below(u64::from(writing.plan.conversations)) as u16;
        let place = Place { round: writing.plan.round, number: writing.number, conversation: index };
        writing.number += 1;
        let conversation = self.names.conversation(index);
        let choice = writing.dice.below(100);
        let Some(last) = self.last.get(&conversation).copied() else {
            let (key, title) = (self.names.key(index), FIRST_TITLE.to_owned());
            let command = Command::CreateGroup { user: reader(), key, title, members: senders() };
            self.submit(Asked::Create, command);
            return true;
        };
        match choice {
            0..=2 => {
                let title = self.names.title(place);
                let command = Command::SetTitle { user: reader(), conversation, title: title.clone() };
                self.submit(Asked::Title(conversation, title), command);
            }
            3..=7 => {
                let read = Some(Sequence(last));
                let command = Command::Mark { user: reader(), conversation, read, delivered: None };
                self.submit(Asked::Mark(conversation), command);
            }
            _ => self.send(self.names.id(place)),
        }
        true
    }

    fn send(&mut self, id: ClientMessageId) {
        let Some(place) = self.names.place(id) else { return };
        let conversation = self.names.conversation(place.conversation);
        if !self.last.contains_key(&conversation) {
            // Of the round before, whose conversation the cut has taken.
            return;
        }
        let (user, content) = self.names.message(id);
        let command = Command::Send { user, conversation, client_message_id: id, body: content.0 };
        self.submit(Asked::Send(conversation, id), command);
    }
}

async fn open(
    files: WatchedFiles,
    context: &ShardContext,
    options: EngineOptions,
) -> anyhow::Result<(NodeEngine, OpenReport)> {
    let (engine, report) = Engine::open(files, SystemClock, OsRandom, options).await?;
    let (commits, maintenance) = (engine.clone(), engine.clone());
    context.spawner().spawn(Queue::Latency, async move { commits.run_commits().await });
    context.spawner().spawn(Queue::Background, async move { maintenance.run_maintenance().await });
    Ok((engine, report))
}

fn told(report: &OpenReport) -> Opened {
    let damage = report.damage.iter().map(|damage| format!("{damage:?}"));
    let segments = report.segments_damaged.iter().map(ToString::to_string);
    let mut trouble = damage.chain(segments).collect::<Vec<_>>().join("; ");
    if report.read_only {
        trouble.push_str("; read only");
    }
    Opened { created: report.created, torn: report.torn_tail.is_some(), position: report.position.0, trouble }
}

fn sequence_of(archive: &[u8]) -> Sequence {
    // One that can't be read ends the pages; the judge finds it torn.
    antiphon_wire::frame::view_entry(archive).map_or(Sequence(u64::MAX), |view| Sequence(view.sequence.0.to_native()))
}

impl Handler for Writer {
    fn accepted(&mut self, _: ConnectionKey, _: Origin) {}
    fn received(&mut self, _: ConnectionKey, _: &mut [u8]) {}
    fn sent(&mut self, _: ConnectionKey) {}
    fn closed(&mut self, _: ConnectionKey) {}

    fn turn(&mut self, now_ms: u64) -> Turn {
        self.take_events();
        self.take_outputs(now_ms);
        if !self.was_read && self.engine.is_some() && self.asked.is_empty() {
            self.was_read = true;
            self.reporter.say(&Frame::WasRead);
        }
        self.reporter.flush();
        if !self.closing && now_ms >= self.held_until_ms {
            self.write();
        }
        if now_ms >= self.tick_at_ms {
            self.tick_at_ms = now_ms + TICK_INTERVAL_MS;
            self.engine.iter().for_each(Engine::tick);
        }
        // Refusals and duplicates are answered at once.
        let more = self.engine.as_ref().is_some_and(|engine| engine.status().outputs_waiting > 0);
        let held = (self.held_until_ms > now_ms).then_some(self.held_until_ms);
        Turn { more, wake_at_ms: Some(held.map_or(self.tick_at_ms, |until| until.min(self.tick_at_ms))) }
    }

    fn poll_command(&mut self) -> Option<DriverCommand> {
        None
    }
}
