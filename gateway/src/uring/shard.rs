//! The loop of one shard: completions in, handler turns, commands out, tasks between, and sleep.
//!
//! Owns the order of things and nothing else. A round: submit and run what the kernel deferred; hand completions to the handler;
//! poll woken tasks; one handler turn; its commands. The shard sleeps only after a round that left nothing: no completion, no
//! runnable task, no wake-up, no wish of the handler for more. Background tasks run between rounds.

use std::{
    cell::{Cell, RefCell},
    io,
    net::{SocketAddr, TcpListener},
    path::Path,
    rc::Rc,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use glommio::{LocalExecutorBuilder, Placement};
use io_uring::opcode;

use super::{
    clock,
    counters::ShardCounters,
    files::NodeFiles,
    lane::Lane,
    process,
    ring::{REAP_MAX, Ring},
    sleep::{self, Alarm, Slices},
    sockets::{Admission, Sockets},
    tasks::Spawner,
    token::{Kind, Token},
    wake::Waker,
    worker::Desk,
};
use crate::core::io::{Command, ConnectionKey, Handler, Origin, Turn};

/// Connections that wait to be accepted: a burst of reconnects; the system caps it at `net.core.somaxconn`.
pub(super) const BACKLOG: i32 = 16_384;
/// glommio registers so much memory for buffers, which we do not use: its minimum.
const GLOMMIO_MEMORY_BYTES: usize = 64 << 10;
/// Entries of each of glommio's three rings, which we do not use either.
const GLOMMIO_RING_DEPTH: usize = 32;
/// Batches of completions between two turns of the handler: a usual queue full.
const BATCHES_MAX: usize = 16;
/// How long a stopping shard waits for the kernel to give everything back.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// How long a stopping shard sleeps at a time while it waits.
const DRAIN_STEP: Duration = Duration::from_millis(100);

/// What a shard is made of.
#[derive(Debug)]
pub struct ShardConfig {
    /// Names the thread.
    pub name: String,
    /// Where connections come from, made by [`bind`]; at most 255, and none for a shard without sockets.
    pub listeners: Vec<TcpListener>,
    /// The core to run on. `None`: wherever the system likes, as it must be with more shards than cores.
    pub core: Option<usize>,
    /// At most so many connections. The table of direct descriptors is so large, or as large as RLIMIT_NOFILE permits.
    pub connections_max: u32,
    /// Receive buffers: a power of two, at most 32,768.
    pub receive_buffers: u16,
    /// Bytes of one. More than a usual message; larger ones come in pieces.
    pub receive_buffer_bytes: u32,
    /// Silence after which a connection's receive gives way to a poll, which takes less of the kernel's memory. More than the pauses of
    /// people who talk, less than a heartbeat's.
    pub quiet_after: Duration,
    /// Entries of the submission queue. More are submitted in several calls.
    pub submission_entries: u32,
    /// Entries of the completion queue. More are held back by the kernel, at a cost.
    pub completion_entries: u32,
    /// How long background tasks run at a time. They can keep a message waiting for so long, and for a poll of theirs.
    pub background_slice: Duration,
}

impl ShardConfig {
    /// A shard with its listeners and the usual sizes.
    #[must_use]
    pub fn new(name: impl Into<String>, listeners: impl IntoIterator<Item = TcpListener>) -> Self {
        Self {
            name: name.into(),
            listeners: listeners.into_iter().collect(),
            core: None,
            connections_max: 1 << 20,
            receive_buffers: 256,
            receive_buffer_bytes: 4096,
            quiet_after: Duration::from_secs(4),
            submission_entries: 512,
            completion_entries: 4096,
            background_slice: Duration::from_micros(300),
        }
    }
}

/// Why a shard could not run, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// No executor: too little locked memory, or a kernel that forbids io_uring. The text says which.
    #[error("cannot start a glommio executor: {0}")]
    Executor(String),
    /// The net ring could not be made or set up.
    #[error("cannot set up the net ring ({what}): {source}")]
    Setup {
        /// Which step.
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// The ring failed while running. The shard is lost.
    #[error("the net ring failed: {0}")]
    Ring(#[from] io::Error),
}

/// How long [`bind`] waits for an address. A killed process's ring is torn down after its end, and its accept holds the listener until
/// then; who restarts a node at once is not to be told that the address is taken.
const ADDRESS_WAIT: Duration = Duration::from_secs(5);

/// How often it looks.
const ADDRESS_LOOK: Duration = Duration::from_millis(20);

/// Listeners for so many [`ShardConfig::listeners`]. Every shard has one of its own on the same address (`SO_REUSEPORT`); with port 0
/// the first one chooses for all. Accepted connections inherit `TCP_NODELAY`. Waits up to [`ADDRESS_WAIT`] for an address that is taken.
///
/// # Errors
/// The address is taken, also by a process that would share it, or not ours.
pub fn bind(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    if address.port() != 0 {
        wait_until_free(address)?;
    }
    let mut listeners: Vec<TcpListener> = Vec::with_capacity(count);
    for _ in 0..count {
        let address = listeners.first().map_or(Ok(address), TcpListener::local_addr)?;
        let socket = socket(address, true)?;
        socket.listen(BACKLOG)?;
        listeners.push(socket.into());
    }
    Ok(listeners)
}

/// The kernel spreads clients over all processes that share a port, so those of another node would reach a stranger. A socket that
/// does not share finds out; nothing is accepted on it.
fn wait_until_free(address: SocketAddr) -> io::Result<()> {
    let end = Instant::now() + ADDRESS_WAIT;
    loop {
        match socket(address, false) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < end => {
                thread::sleep(ADDRESS_LOOK);
            }
            result => return result.map(drop),
        }
    }
}

pub(super) fn socket(address: SocketAddr, is_shared: bool) -> io::Result<socket2::Socket> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(is_shared)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// What a handler is given when it is made. Cheap to clone; stays on its shard.
#[derive(Clone)]
pub struct ShardContext {
    spawner: Spawner,
    waker: Waker,
    lane: Rc<Lane>,
    admission: Rc<Cell<Admission>>,
}

impl ShardContext {
    /// Starts tasks on this shard.
    #[must_use]
    pub fn spawner(&self) -> &Spawner {
        &self.spawner
    }

    /// Wakes or stops this shard, from anywhere.
    #[must_use]
    pub fn waker(&self) -> &Waker {
        &self.waker
    }

    /// The files of a folder that exists, on this shard's ring.
    ///
    /// # Errors
    /// The folder cannot be opened.
    pub fn files(&self, folder: &Path) -> io::Result<NodeFiles> {
        NodeFiles::new(Rc::clone(&self.lane), self.spawner.clone(), folder, None)
    }

    /// The same, whose long jobs are done at a desk.
    ///
    /// # Errors
    /// The folder cannot be opened.
    pub fn files_of_lane(&self, folder: &Path, desk: Desk) -> io::Result<NodeFiles> {
        NodeFiles::new(Rc::clone(&self.lane), self.spawner.clone(), folder, Some(desk))
    }

    /// Whether connections are accepted: yes at first. Takes effect after the turn. [`Admission::Last`] is for good.
    pub fn set_admission(&self, admission: Admission) {
        if !matches!(self.admission.get(), Admission::Last | Admission::Closed) || admission == Admission::Closed {
            self.admission.set(admission);
        }
    }

    /// What was set last; [`Admission::Closed`] once all listeners are closed after [`Admission::Last`].
    #[must_use]
    pub fn admission(&self) -> Admission {
        self.admission.get()
    }
}

/// Runs a shard on the calling thread until [`Waker::stop`]: then drops its tasks where they wait, its handler, closes its
/// connections, and returns when the kernel has given everything back. Whoever wants its engine to finish first does so before.
///
/// # Errors
/// See [`ShardError`].
pub fn run_shard<H, F>(
    config: ShardConfig,
    waker: Waker,
    counters: Arc<ShardCounters>,
    make_handler: F,
) -> Result<(), ShardError>
where
    H: Handler,
    F: FnOnce(&ShardContext) -> H,
{
    let placement = config.core.map_or(Placement::Unbound, Placement::Fixed);
    let executor = LocalExecutorBuilder::new(placement)
        .name(&config.name)
        .io_memory(GLOMMIO_MEMORY_BYTES)
        .ring_depth(GLOMMIO_RING_DEPTH)
        .preempt_timer(sleep::NEVER)
        .make()
        .map_err(|error| ShardError::Executor(error.to_string()))?;
    executor.run(async {
        let mut shard = Shard::new(config, waker, counters)?;
        let mut handler = make_handler(&shard.context);
        let result = shard.run(&mut handler).await;
        shard.context.spawner.tasks().drop_all();
        drop(handler);
        shard.drain()?;
        result
    })
}

/// [`run_shard`] on a thread of its own.
///
/// # Errors
/// The system has no thread left.
pub fn spawn_shard<H, F>(
    config: ShardConfig,
    waker: Waker,
    counters: Arc<ShardCounters>,
    make_handler: F,
) -> io::Result<thread::JoinHandle<Result<(), ShardError>>>
where
    H: Handler,
    F: FnOnce(&ShardContext) -> H + Send + 'static,
{
    thread::Builder::new().name(config.name.clone()).spawn(move || run_shard(config, waker, counters, make_handler))
}

struct Shard {
    ring: Rc<RefCell<Ring>>,
    sockets: Sockets,
    lane: Rc<Lane>,
    slices: Slices,
    context: ShardContext,
    counters: Arc<ShardCounters>,
    /// Completions on their way from the ring to their owners; kept for its memory.
    completions: Vec<super::ring::Completion>,
    /// Whether the poll on the waker's eventfd is with the kernel.
    wake_armed: bool,
    alarm: Alarm,
}

impl Shard {
    fn new(config: ShardConfig, waker: Waker, counters: Arc<ShardCounters>) -> Result<Self, ShardError> {
        let setup = |what| move |source| ShardError::Setup { what, source };
        let ring = Ring::new(config.submission_entries, config.completion_entries, Arc::clone(&counters));
        let ring = Rc::new(RefCell::new(ring.map_err(setup("io_uring_setup"))?));
        let slots = config.connections_max.min(process::open_files()).max(1);
        let buffers = (config.receive_buffers, config.receive_buffer_bytes);
        let sockets =
            Sockets::new(Rc::clone(&ring), slots, buffers, config.listeners, config.quiet_after, Arc::clone(&counters))
                .map_err(setup("descriptor table and buffers"))?;
        let lane = Lane::new(Rc::clone(&ring), Arc::clone(&counters));
        let spawner = Spawner::new(waker.clone(), Arc::clone(&counters));
        let slices = Slices::new(Rc::clone(spawner.tasks()), config.background_slice);
        let context =
            ShardContext { spawner, waker, lane: Rc::clone(&lane), admission: Rc::new(Cell::new(Admission::Open)) };
        let completions = Vec::with_capacity(REAP_MAX);
        Ok(Self {
            ring,
            sockets,
            lane,
            slices,
            context,
            counters,
            completions,
            wake_armed: false,
            alarm: Alarm::default(),
        })
    }

    async fn run<H: Handler>(&mut self, handler: &mut H) -> Result<(), ShardError> {
        let context = self.context.clone();
        let tasks = context.spawner.tasks();
        loop {
            // From here on a wake-up is for the next round. Whatever it announces is looked at below, the wish to stop first.
            context.waker.set_awake();
            if context.waker.is_stopping() {
                return Ok(());
            }
            self.counters.turns.add(1);
            self.arm_wake();
            self.ring.borrow_mut().enter()?;
            self.complete(handler);
            // Whoever could not be told that a send has left may have more to send by now.
            let unfinished = self.sockets.has_silent();
            tasks.run_round();
            let turn = handler.turn(clock::monotonic_ms());
            while let Some(command) = handler.poll_command() {
                self.sockets.command(command);
            }
            self.sockets.rearm(context.admission.get());
            let closed_doors = context.admission.get() == Admission::Last && self.sockets.are_doors_closed();
            if closed_doors {
                context.admission.set(Admission::Closed);
            }
            // The handler is to see that in a turn.
            let busy = turn.more
                || unfinished
                || closed_doors
                || self.sockets.is_starved()
                || self.sockets.is_closing_doors()
                || tasks.is_ready()
                || self.ring.borrow_mut().has_completions();
            match (busy, self.slices.is_wanted()) {
                (true, false) => {}
                (true, true) => self.slices.offer().await,
                (false, true) => {
                    // What the round has queued must not wait for the slice.
                    self.ring.borrow_mut().enter()?;
                    self.counters.background_slices.add(1);
                    self.slices.run().await;
                }
                (false, false) => self.sleep(turn)?,
            }
        }
    }

    /// Sleeps until something happens, or the handler or the sockets want a turn.
    fn sleep(&mut self, turn: Turn) -> Result<(), ShardError> {
        let wanted = turn.wake_at_ms.and_then(clock::instant_of);
        let deadline: Option<Instant> = [wanted, self.sockets.wake_at()].into_iter().flatten().min();
        if self.context.waker.set_asleep() {
            self.counters.sleeps.add(1);
            self.alarm.sleep(&mut self.ring.borrow_mut(), deadline)?;
            if self.context.waker.set_awake() {
                self.counters.wakes.add(1);
            }
        }
        Ok(())
    }

    /// Hands completions to their owners: all that are there, at most a queue full, so that the handler gets its turn.
    fn complete(&mut self, handler: &mut impl Handler) {
        let settled = self.ring.borrow_mut().is_settled();
        for _ in 0..BATCHES_MAX {
            let mut completions = std::mem::take(&mut self.completions);
            self.ring.borrow_mut().reap(&mut completions);
            let count = completions.len();
            let filled = completions.iter().filter(|completion| completion.buffer().is_some()).count();
            self.sockets.note_filled(filled as u64);
            for completion in completions.drain(..) {
                match completion.token.kind {
                    Kind::File => self.lane.complete(completion),
                    Kind::Wake => self.wake_armed &= completion.more(),
                    Kind::Alarm => self.alarm.rang(),
                    _ => self.sockets.complete(completion, handler),
                }
            }
            self.completions = completions;
            if count < REAP_MAX {
                if settled {
                    self.sockets.finish_silent(handler);
                }
                break;
            }
        }
    }

    /// Has the ring watch the waker's eventfd: one completion for every write.
    fn arm_wake(&mut self) {
        if self.wake_armed {
            return;
        }
        self.wake_armed = true;
        let descriptor = io_uring::types::Fd(self.context.waker.descriptor());
        let entry = opcode::PollAdd::new(descriptor, libc::POLLIN as u32).multi(true).build();
        // SAFETY: the operation names no memory; the eventfd is open as long as `context` holds the waker.
        unsafe { self.ring.borrow_mut().push(entry.user_data(Token::new(Kind::Wake, 0, 0).pack())) };
    }

    /// Closes all connections and waits until the kernel has given back what it holds.
    fn drain(&mut self) -> Result<(), ShardError> {
        let deadline = Instant::now() + DRAIN_MAX;
        let mut nobody = Nobody;
        loop {
            self.sockets.close_all();
            self.ring.borrow_mut().enter()?;
            self.complete(&mut nobody);
            if self.sockets.is_drained() && self.lane.running() == 0 {
                break;
            }
            if Instant::now() >= deadline {
                tracing::error!("the kernel holds operations of a stopped shard; their memory is lost");
                break;
            }
            self.ring.borrow_mut().wait(Some(DRAIN_STEP))?;
        }
        self.sockets.release_buffers();
        self.counters.connections.set(0);
        Ok(())
    }
}

/// The handler of a shard that has stopped.
struct Nobody;

impl Handler for Nobody {
    fn accepted(&mut self, _: ConnectionKey, _: Origin) {}
    fn received(&mut self, _: ConnectionKey, _: &mut [u8]) {}
    fn sent(&mut self, _: ConnectionKey) {}
    fn closed(&mut self, _: ConnectionKey) {}
    fn turn(&mut self, _: u64) -> Turn {
        Turn { more: false, wake_at_ms: None }
    }
    fn poll_command(&mut self) -> Option<Command> {
        None
    }
}
