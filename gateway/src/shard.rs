//! A shard put together: the logic of [`crate::core`] on the driver of [`crate::uring`], with its end of the mesh, the engines of its lanes
//! and its metrics. The only place that knows them all; it decides nothing.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    fs, io,
    ops::Range,
    path::{Path, PathBuf},
    rc::Rc,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
};

use antiphon_engine::{Engine, EngineOptions};
use antiphon_wire::codes::ErrorCode;

use crate::{
    core::{
        admission::Refusal,
        io::{Command, ConnectionKey, Handler, Origin, Turn},
        lane::Lane,
        mesh::{LaneId, ShardId},
        pressure::Pressure,
        proxy::ProxyCounters,
        shard::{ShardConfig, ShardCore},
    },
    enquiries::Enquiries,
    mesh::MeshEnd,
    metrics::Metrics,
    outside::backend::bell::Bell,
    tls::TlsCounters,
    uring::{self, Admission, Desk, NodeFiles, OsRandom, Queue, ShardContext, SystemClock, Waker},
};

/// How often metrics are brought up to date while anything happens.
const PUBLISH_INTERVAL_MS: u64 = 250;

/// How soon frames that found a full queue are offered again.
const MESH_RETRY_MS: u64 = 1;

/// How often an engine is told that time passes.
const TICK_INTERVAL_MS: u64 = 1_000;

/// How often a shard without connections looks whether a lane is to read all that is stored again: an hour lies between two readings.
const SCRUB_LOOK_INTERVAL_MS: u64 = 60_000;

/// Requests taken from the mesh in one turn: a turn stays within about a millisecond.
const REQUESTS_PER_TURN_MAX: usize = 1_024;

type NodeLane = Lane<NodeFiles, SystemClock, OsRandom>;

/// What the node tells its shards, and they it. One of a node.
#[derive(Debug)]
pub struct Control {
    /// Lanes that are open.
    lanes_open: AtomicUsize,
    /// All lanes' stores in one number, complete when all are open.
    store: AtomicU64,
    /// The data folder is ours: open the lanes.
    opening: AtomicBool,
    /// Everything is open: accept.
    serving: AtomicBool,
    /// Accept what has come by now, and nobody any more.
    refusing: AtomicBool,
    /// Say goodbye to everybody, with times to come back in this range of milliseconds.
    draining: OnceLock<Range<u32>>,
    /// Wait for no answers.
    hurrying: AtomicBool,
    /// Flush and close the engines.
    closing: AtomicBool,
    /// How near the node is to its memory limit.
    pressure: AtomicU8,
    /// Counts requests for a checkpoint; `checkpoint` has where the answers to the last one go. Locked once a request and shard.
    checkpoints: AtomicU64,
    checkpoint: Mutex<Option<mpsc::Sender<LaneCheckpoint>>>,
    events: mpsc::Sender<Event>,
}

/// What became of a lane's checkpoint.
pub type LaneCheckpoint = (LaneId, Result<(), String>);

/// The folder in a lane's own that a checkpoint of a running node is made in. Whoever asked for it takes it away.
pub const CHECKPOINT_FOLDER: &str = "checkpoint";

/// What the node's own thread is told, mostly by its shards.
#[derive(Debug)]
pub enum Event {
    /// A shard has its ring and could begin.
    Ready(ShardId),
    /// A lane's engine is open; what it found, for the log.
    LaneOpen(LaneId, antiphon_engine::OpenReport),
    /// A shard accepts connections.
    Accepting(ShardId),
    /// A lane can't be opened.
    LaneFailed(LaneId, String),
    /// All sessions of a shard have been sent away.
    Told(ShardId),
    /// A shard's last connection is gone.
    Drained(ShardId),
    /// A shard has no listener any more.
    Refusing(ShardId),
    /// A lane's engine is closed: everything is on disk, or this is what failed.
    LaneClosed(LaneId, Result<(), String>),
    /// A lane's engine touches its folder no more.
    LaneEnded(LaneId),
    /// A shard's thread has ended with an error.
    ShardFailed(ShardId, String),
    /// The system says to end, or says so again.
    Signal,
    /// Another process wants to take over, with so many listeners on the address.
    HandOver(u32),
}

impl Control {
    /// A node that starts, and where its shards' events arrive.
    #[must_use]
    pub fn new() -> (Arc<Self>, mpsc::Receiver<Event>) {
        let (events, receiver) = mpsc::channel();
        let control = Self {
            lanes_open: AtomicUsize::new(0),
            store: AtomicU64::new(0),
            opening: AtomicBool::new(false),
            serving: AtomicBool::new(false),
            refusing: AtomicBool::new(false),
            draining: OnceLock::new(),
            hurrying: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            pressure: AtomicU8::new(0),
            checkpoints: AtomicU64::new(0),
            checkpoint: Mutex::new(None),
            events,
        };
        (Arc::new(control), receiver)
    }

    /// Shards may open their lanes. To be followed by a wake of each, as all of these.
    pub fn open(&self) {
        self.opening.store(true, Ordering::Release);
    }

    /// All lanes' stores in one number, when all lanes are open.
    pub(crate) fn store(&self) -> u64 {
        self.store.load(Ordering::Acquire)
    }

    /// Shards may accept.
    pub fn serve(&self) {
        self.serving.store(true, Ordering::Release);
    }

    /// Shards accept what has come by now, and close their listeners.
    pub fn refuse(&self) {
        self.refusing.store(true, Ordering::Release);
    }

    /// Shards send their clients away, with times to come back in this range of milliseconds. Once.
    pub fn drain(&self, reconnect_after_ms: Range<u32>) {
        let first = self.draining.set(reconnect_after_ms).is_ok();
        assert!(first, "a node drains once");
    }

    /// Shards wait for no answers any more while they send clients away.
    pub fn hurry(&self) {
        self.hurrying.store(true, Ordering::Release);
    }

    /// Shards close their engines.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    /// How shards are to receive newcomers. To be followed by a wake of each.
    pub fn set_pressure(&self, pressure: Pressure) {
        self.pressure.store(pressure as u8, Ordering::Release);
    }

    /// Each lane makes a checkpoint in [`CHECKPOINT_FOLDER`] and says so here. To be followed by a wake of each shard.
    pub fn checkpoint(&self) -> mpsc::Receiver<LaneCheckpoint> {
        let (answers, receiver) = mpsc::channel();
        *self.checkpoint.lock().unwrap_or_else(PoisonError::into_inner) = Some(answers);
        self.checkpoints.fetch_add(1, Ordering::AcqRel);
        receiver
    }

    fn checkpoint_answers(&self) -> Option<mpsc::Sender<LaneCheckpoint>> {
        self.checkpoint.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn pressure(&self) -> Pressure {
        Pressure::from_number(self.pressure.load(Ordering::Acquire))
    }

    /// Tells the node something.
    pub fn tell(&self, event: Event) {
        // The node hangs up only when it has given up on its shards.
        let _ = self.events.send(event);
    }
}

/// What a lane is opened with.
pub struct LaneStart {
    /// Its number.
    pub id: LaneId,
    /// Where it is.
    pub folder: PathBuf,
    /// Its engine's options.
    pub options: EngineOptions,
    /// Where its flushes and merges are done.
    pub desk: Desk,
}

/// What a shard's thread is started with.
pub struct ShardStart {
    /// Its logic's configuration.
    pub config: ShardConfig,
    /// Its lanes.
    pub lanes: Vec<LaneStart>,
    /// Its end of the mesh.
    pub mesh: MeshEnd,
    /// All shards' wakers, by number.
    pub wakers: Arc<[Waker]>,
    /// What is rung for the outside thread, whose end of the mesh is the one after the last shard's.
    pub outside: Bell,
    /// The node's metrics.
    pub metrics: Arc<Metrics>,
    /// What operators ask, if there is a page for them.
    pub enquiries: Option<Arc<Enquiries>>,
    /// The ring's own counters.
    pub ring: Arc<uring::ShardCounters>,
    /// What the node wants.
    pub control: Arc<Control>,
}

/// How far a shard is in the node's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Waiting,
    Opening,
    Serving,
    Draining,
    Told,
    Drained,
}

/// One shard of a node, as its driver sees it.
pub struct NodeShard {
    core: ShardCore<NodeFiles, SystemClock, OsRandom>,
    id: ShardId,
    mesh: MeshEnd,
    wakers: Arc<[Waker]>,
    outside: Bell,
    /// Lanes that are not open yet: number, folder and options.
    lanes: Vec<LaneStart>,
    /// Where all of its lanes are.
    folders: BTreeMap<LaneId, PathBuf>,
    /// Requests for a checkpoint that were taken up.
    checkpoints: u64,
    opened: Rc<RefCell<Vec<NodeLane>>>,
    metrics: Arc<Metrics>,
    enquiries: Option<Arc<Enquiries>>,
    ring: Arc<uring::ShardCounters>,
    /// Of the adapters before this one.
    tls: Rc<TlsCounters>,
    proxy: Rc<ProxyCounters>,
    control: Arc<Control>,
    context: ShardContext,
    phase: Phase,
    hurried: bool,
    /// That it has no listener any more was told.
    refusing: bool,
    closing: bool,
    publish_at_ms: u64,
    tick_at_ms: u64,
}

impl NodeShard {
    /// Puts a shard together, behind the adapters that count in `tls` and `proxy`.
    #[must_use]
    pub fn start(start: ShardStart, tls: Rc<TlsCounters>, proxy: Rc<ProxyCounters>, context: &ShardContext) -> Self {
        // Until all lanes are open, clients wait in the listener's backlog.
        context.set_admission(Admission::Hold);
        let id = start.config.id;
        start.control.tell(Event::Ready(id));
        Self {
            core: ShardCore::new(start.config, SystemClock, uring::monotonic_us()),
            id,
            mesh: start.mesh,
            wakers: start.wakers,
            outside: start.outside,
            folders: start.lanes.iter().map(|lane| (lane.id, lane.folder.clone())).collect(),
            checkpoints: 0,
            lanes: start.lanes,
            opened: Rc::default(),
            metrics: start.metrics,
            enquiries: start.enquiries,
            ring: start.ring,
            tls,
            proxy,
            control: start.control,
            context: context.clone(),
            phase: Phase::Waiting,
            hurried: false,
            refusing: false,
            closing: false,
            publish_at_ms: 0,
            tick_at_ms: 0,
        }
    }

    fn open_lanes(&mut self) {
        let placement = self.core.placement();
        for start in self.lanes.drain(..) {
            let id = start.id;
            let (of_task, opened, control) = (self.context.clone(), Rc::clone(&self.opened), Arc::clone(&self.control));
            self.context.spawner().spawn(Queue::Latency, async move {
                let folder = start.folder.display().to_string();
                match open_lane(&of_task, start, &control).await {
                    Ok((engine, report)) => {
                        control.store.fetch_xor(engine.store_id().rotate_left(u32::from(id.0)), Ordering::AcqRel);
                        control.lanes_open.fetch_add(1, Ordering::AcqRel);
                        opened.borrow_mut().push(Lane::new(id, placement, engine));
                        control.tell(Event::LaneOpen(id, report));
                    }
                    Err(error) => {
                        let hint = error.downcast_ref().and_then(crate::store::hint);
                        let hint = hint.map_or_else(String::new, |hint| format!(". {hint}"));
                        control.tell(Event::LaneFailed(id, format!("{folder}: {error:#}{hint}")));
                    }
                }
            });
        }
    }
}

async fn open_lane(
    context: &ShardContext,
    LaneStart { id, folder, options, desk }: LaneStart,
    control: &Arc<Control>,
) -> anyhow::Result<(Engine<NodeFiles, SystemClock, OsRandom>, antiphon_engine::OpenReport)> {
    let files = context.files_of_lane(&folder, desk)?;
    let (engine, report) = Engine::open(files, SystemClock, OsRandom, options).await?;
    let (commits, maintenance) = (engine.clone(), engine.clone());
    // The folder is the next owner's only when both have ended: a merge may go on for a while after the log was closed.
    let running = Rc::new(Cell::new(2));
    let ended = |running: Rc<Cell<u32>>, control: Arc<Control>| {
        move || {
            running.set(running.get() - 1);
            if running.get() == 0 {
                control.tell(Event::LaneEnded(id));
            }
        }
    };
    let (commits_end, maintenance_end) =
        (ended(Rc::clone(&running), Arc::clone(control)), ended(running, Arc::clone(control)));
    context.spawner().spawn(Queue::Latency, async move {
        commits.run_commits().await;
        commits_end();
    });
    context.spawner().spawn(Queue::Background, async move {
        maintenance.run_maintenance().await;
        maintenance_end();
    });
    Ok((engine, report))
}

/// Makes a lane's checkpoint: in its own folder, which is of its own file system, so that segments get a second name there.
async fn checkpoint_lane(
    context: &ShardContext,
    folder: PathBuf,
    engine: Engine<NodeFiles, SystemClock, OsRandom>,
) -> Result<(), String> {
    let target = folder.join(CHECKPOINT_FOLDER);
    let made = target.clone();
    let make = context.spawner().blocking(move || make_checkpoint_folder(&made));
    let made = make.await.ok_or_else(|| "no thread to be had".to_owned())?;
    let files = made.and_then(|()| context.files(&target));
    let files = files.map_err(|error| format!("{}: {error}", target.display()))?;
    engine.checkpoint(&files).await.map(drop).map_err(|error| error.to_string())
}

/// One that is there already is of another request.
fn make_checkpoint_folder(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().mode(0o700).create(path)
}

impl NodeShard {
    /// Takes up a request for a checkpoint.
    fn make_checkpoints(&self) {
        let Some(answers) = self.control.checkpoint_answers() else { return };
        for lane in self.core.lanes() {
            let (id, engine, context) = (lane.id(), lane.engine().clone(), self.context.clone());
            let (answers, folder) = (answers.clone(), self.folders[&id].clone());
            self.context.spawner().spawn(Queue::Background, async move {
                let made = checkpoint_lane(&context, folder, engine).await;
                // Whoever asked may have given up.
                let _ = answers.send((id, made));
            });
        }
    }

    /// Follows the node through its life.
    fn follow(&mut self) {
        for lane in self.opened.borrow_mut().drain(..) {
            // Before the node says that it is ready.
            self.metrics.lane(usize::from(lane.id().0)).recovered.store(true, Ordering::Release);
            self.core.add_lane(lane);
        }
        let hold = self.core.holds_newcomers() || self.control.pressure() == Pressure::Hold;
        if self.control.refusing.load(Ordering::Acquire) {
            self.context.set_admission(Admission::Last);
        } else if self.phase == Phase::Serving {
            self.context.set_admission(if hold { Admission::Hold } else { Admission::Open });
        }
        match self.phase {
            Phase::Waiting if self.control.opening.load(Ordering::Acquire) => {
                self.open_lanes();
                self.phase = Phase::Opening;
            }
            Phase::Opening if self.control.serving.load(Ordering::Acquire) => {
                self.core.set_store(self.control.store.load(Ordering::Acquire));
                self.context.set_admission(Admission::Open);
                self.phase = Phase::Serving;
                self.control.tell(Event::Accepting(self.id));
            }
            Phase::Serving => {
                if let Some(reconnect_after_ms) = self.control.draining.get() {
                    self.core.drain(reconnect_after_ms.clone());
                    self.phase = Phase::Draining;
                }
            }
            Phase::Draining if self.core.is_told() => {
                self.phase = Phase::Told;
                self.control.tell(Event::Told(self.id));
            }
            Phase::Told if self.core.is_drained() => {
                self.phase = Phase::Drained;
                self.control.tell(Event::Drained(self.id));
            }
            _ => {}
        }
        if self.phase == Phase::Draining
            && self.control.hurrying.load(Ordering::Acquire)
            && !std::mem::replace(&mut self.hurried, true)
        {
            self.core.hurry();
        }
        if self.context.admission() == Admission::Closed && !std::mem::replace(&mut self.refusing, true) {
            self.control.tell(Event::Refusing(self.id));
        }
        let checkpoints = self.control.checkpoints.load(Ordering::Acquire);
        if std::mem::replace(&mut self.checkpoints, checkpoints) != checkpoints {
            self.make_checkpoints();
        }
        if self.control.closing.load(Ordering::Acquire) && !std::mem::replace(&mut self.closing, true) {
            for lane in self.core.lanes() {
                let (id, engine, control) = (lane.id(), lane.engine().clone(), Arc::clone(&self.control));
                self.context.spawner().spawn(Queue::Latency, async move {
                    let closed = engine.close().await.map_err(|error| error.to_string());
                    control.tell(Event::LaneClosed(id, closed));
                });
            }
        }
    }

    fn tick(&mut self, now_ms: u64) {
        if now_ms >= self.tick_at_ms {
            self.tick_at_ms = now_ms + TICK_INTERVAL_MS;
            self.core.lanes().iter().for_each(|lane| lane.engine().tick());
        }
    }

    /// When lanes must be told that time has passed though nobody is connected: they read what is stored for its checksums then, too.
    fn scrub_at_ms(&self, now_ms: u64) -> Option<u64> {
        let waits_ms = self.core.lanes().iter().filter_map(|lane| match lane.engine().scrubs() {
            Some(true) => Some(TICK_INTERVAL_MS),
            Some(false) => Some(SCRUB_LOOK_INTERVAL_MS),
            None => None,
        });
        waits_ms.min().map(|wait_ms| now_ms + wait_ms)
    }

    /// Brings the metrics up to date. Each has one writer: this shard.
    fn publish(&mut self, now_ms: u64) {
        if now_ms < self.publish_at_ms {
            return;
        }
        self.publish_at_ms = now_ms + PUBLISH_INTERVAL_MS;
        let counters = self.core.counters();
        let metrics = Arc::clone(&self.metrics);
        let shard = metrics.shard(usize::from(self.id.0));
        shard.connections_accepted.set(counters.accepted);
        shard.upgrades_refused.set(counters.http_refused);
        self.publish_admission();
        shard.slow_consumers.set(counters.slow_consumers);
        shard.frames_in.set(counters.frames_in);
        shard.frames_out.set(counters.frames_out);
        shard.bytes_in.set(counters.bytes_in);
        shard.bytes_out.set(counters.bytes_out);
        shard.deliveries.set(counters.deliveries);
        shard.connections.set(counters.connections);
        shard.sessions.set(counters.sessions);
        shard.sessions_attaching.set(counters.attaching);
        shard.protocol_errors.set(counters.protocol_errors);
        shard.sessions_silent.set(counters.silent);
        shard.sessions_replaced.set(counters.replaced);
        shard.sessions_revoked.set(counters.revoked);
        shard.sessions_beyond_devices.set(counters.too_many_devices);
        shard.mesh_queue_frames.set(counters.mesh_backlog + self.mesh.kept() as u64);
        shard.mesh_waits.set(self.mesh.waits());
        for code in ErrorCode::ALL {
            shard.set_errors(*code, counters.errors[*code as usize]);
        }
        shard.ring_enters.set(self.ring.enters.get());
        shard.ring_completions.set(self.ring.completions.get());
        shard.ring_buffers_exhausted.set(self.ring.buffers_exhausted.get());
        shard.ring_buffers_free.set(self.ring.buffers_free_min.get());
        shard.quiet_connections.set(self.ring.quiet.get());
        shard.tls_handshakes_full.set(self.tls.full.get());
        shard.tls_handshakes_resumed.set(self.tls.resumed.get());
        shard.tls_handshakes_failed.set(self.tls.failed.get());
        shard.tls_handshakes_abandoned.set(self.tls.abandoned.get());
        shard.tls_sessions_broken.set(self.tls.broken.get());
        shard.tls_handshakes_waiting.set(self.tls.waiting.get());
        self.publish_lanes();
    }

    fn publish_admission(&self) {
        let counters = self.core.counters();
        let shard = self.metrics.shard(usize::from(self.id.0));
        shard.connections_refused.set(counters.refused.iter().sum());
        for why in Refusal::ALL {
            let counter = match why {
                Refusal::Full => &shard.refused_full,
                Refusal::Draining => &shard.refused_draining,
                Refusal::Memory => &shard.refused_memory,
                Refusal::NodeRate => &shard.refused_node_rate,
                Refusal::AddressRate => &shard.refused_address_rate,
                Refusal::AddressConnections => &shard.refused_address_connections,
            };
            counter.set(counters.refused[why.index()]);
        }
        shard.refused_unanswered.set(counters.refused_unanswered);
        shard.addresses_untracked.set(counters.addresses_untracked);
        shard.forwarded_malformed.set(counters.forwarded_malformed);
        shard.proxy_headers.set(self.proxy.taken.get());
        shard.proxy_headers_refused.set(self.proxy.refused.get());
        shard.proxy_headers_timed_out.set(self.proxy.timed_out.get());
        shard.heads_timed_out.set(counters.heads_timed_out);
        shard.connects_timed_out.set(counters.connects_timed_out);
        shard.tokens_refused.set(counters.tokens_refused);
        shard.frames_limited.set(counters.frames_limited);
    }

    fn publish_lanes(&mut self) {
        let metrics = Arc::clone(&self.metrics);
        let shard = metrics.shard(usize::from(self.id.0));
        let mut sums = [0_u64; 23];
        for lane in self.core.lanes_mut() {
            lane.take_commit_latencies_us(|latency_us| shard.commit_latency_us.observe(u64::from(latency_us), 1));
            let (status, counters) = (lane.engine().status(), lane.counters());
            for finding in lane.engine().take_scrub_findings() {
                tracing::error!(lane = lane.id().0, "{finding}; see docs/store.md: verify, then restore or repair");
            }
            let state = metrics.lane(usize::from(lane.id().0));
            state.fenced.store(status.fenced.is_some(), Ordering::Relaxed);
            state.storage_full.store(status.storage_full, Ordering::Relaxed);
            let figures = [
                counters.acks,
                counters.duplicates,
                status.batches,
                status.records,
                status.batch_bytes,
                status.cache_hits,
                status.cache_misses,
                status.compactions,
                status.blocks_damaged,
                status.scrub_rounds,
                status.scrub_bytes,
                status.scrub_damaged,
                lane.pending() as u64,
                lane.presence_subscriptions(),
                (status.memtable_bytes + status.memtable_sealed_bytes) as u64,
                status.cache_bytes as u64,
                status.segments as u64,
                status.segment_bytes,
                status.segment_index_bytes as u64,
                status.segment_filter_bytes as u64,
                status.segments_damaged as u64,
                status.log_damaged as u64,
                status.scrub_damaged_last_round,
            ];
            sums.iter_mut().zip(figures).for_each(|(sum, figure)| *sum += figure);
            shard.log_bytes.set(status.log_bytes_unflushed);
        }
        let counters = [
            &shard.acks,
            &shard.duplicates,
            &shard.commits,
            &shard.commit_records,
            &shard.commit_bytes,
            &shard.cache_hits,
        ]
        .into_iter()
        .chain([&shard.cache_misses, &shard.compactions, &shard.blocks_damaged])
        .chain([&shard.scrub_rounds, &shard.scrub_bytes, &shard.scrub_damaged]);
        counters.zip(&sums[..12]).for_each(|(counter, sum)| counter.set(*sum));
        let gauges = [
            &shard.engine_pending,
            &shard.presence_subscriptions,
            &shard.memtable_bytes,
            &shard.cache_bytes,
            &shard.segments,
            &shard.segment_bytes,
            &shard.segment_index_bytes,
            &shard.segment_filter_bytes,
            &shard.segments_damaged,
            &shard.log_damaged,
            &shard.scrub_damaged_last_round,
        ];
        gauges.into_iter().zip(&sums[12..]).for_each(|(gauge, sum)| gauge.set(*sum));
    }
}

impl Handler for NodeShard {
    fn accepted(&mut self, connection: ConnectionKey, origin: Origin) {
        self.core.set_now(uring::monotonic_us());
        self.core.set_pressure(self.control.pressure());
        self.core.accepted(connection, origin);
    }

    fn received(&mut self, connection: ConnectionKey, bytes: &mut [u8]) {
        self.core.set_now(uring::monotonic_us());
        self.core.received(connection, bytes);
    }

    fn sent(&mut self, connection: ConnectionKey) {
        self.core.sent(connection);
    }

    fn closed(&mut self, connection: ConnectionKey) {
        self.core.closed(connection);
    }

    fn turn(&mut self, now_ms: u64) -> Turn {
        self.core.set_now(uring::monotonic_us());
        self.follow();
        self.tick(now_ms);
        while let Some(message) = self.mesh.pop_delivery() {
            self.core.delivery(&message);
        }
        let mut taken = 0;
        while taken < REQUESTS_PER_TURN_MAX && self.core.may_take_requests() {
            let Some(message) = self.mesh.pop_request() else { break };
            self.core.request(&message);
            taken += 1;
        }
        if let Some(enquiries) = &self.enquiries {
            enquiries.answer(self.id, |question| self.core.enquire(question));
        }
        let mut turn = self.core.turn();
        turn.more |= taken == REQUESTS_PER_TURN_MAX;
        // Each step of the node's life is taken in a turn of its own. What wakes for the next may have come before this turn, and nothing
        // else may happen until then.
        turn.more |= match self.phase {
            Phase::Waiting => self.control.opening.load(Ordering::Acquire),
            Phase::Opening => self.control.serving.load(Ordering::Acquire),
            Phase::Serving => self.control.draining.get().is_some(),
            Phase::Draining => self.core.is_told(),
            Phase::Told => self.core.is_drained(),
            Phase::Drained => false,
        };
        let (core, wakers, outside) = (&mut self.core, &self.wakers, &self.outside);
        let wake = |shard: ShardId| wakers.get(usize::from(shard.0)).map_or_else(|| outside.ring(), Waker::wake);
        let kept = self.mesh.send(|| core.poll_mesh(), wake);
        self.core.set_mesh_kept(self.mesh.kept());
        let retry_at_ms = kept.then_some(now_ms + MESH_RETRY_MS);
        self.publish(now_ms);
        // What happened since the last publishing shows within a second, though nothing more may happen.
        let publish_at_ms = Some(now_ms + TICK_INTERVAL_MS).filter(|_| self.core.counters().connections > 0);
        turn.wake_at_ms =
            [turn.wake_at_ms, retry_at_ms, publish_at_ms, self.scrub_at_ms(now_ms)].into_iter().flatten().min();
        turn
    }

    fn poll_command(&mut self) -> Option<Command> {
        self.core.poll_command()
    }
}
