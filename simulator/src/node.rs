//! A simulated node: shards with their lanes, the mesh between them, and its life from opening to its end. It glues as the real driver
//! in `gateway::shard` does, with the world's time and order.

use std::{
    cell::RefCell,
    collections::VecDeque,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    rc::Rc,
};

use antiphon_engine::{
    Engine, EngineError, EngineOptions, OpenReport,
    memory_files::{MemoryClock, MemoryRandom},
    offline::Finding,
};
use antiphon_gateway::core::{
    admission, fanout, http,
    io::{Command, ConnectionKey, Origin},
    lane::Lane,
    mesh::{LaneId, MeshMessage, ShardId},
    placement::Placement,
    session::{Authenticate, Identity},
    shard::{MeshOut, ShardConfig, ShardCore},
    websocket,
};
use antiphon_wire::{codec::Encoding, codes::ErrorCode, ids::TimestampMs};

use crate::{
    copies::Made,
    coverage::{Count, Coverage},
    dice::Dice,
    disk::LaneDisk,
    files::SimFiles,
    logins::read_token,
    network::LinkId,
    plan::Plan,
    tasks::Tasks,
};

/// Requests taken from the mesh in one turn.
const REQUESTS_PER_TURN_MAX: usize = 64;

/// How often an engine is told that time passes.
const TICK_INTERVAL_MS: u64 = 1_000;

/// How soon frames that found a full queue are offered again.
const MESH_RETRY_US: u64 = 1_000;

/// Where all clients come from: admission by address is off in the simulator, and tested by itself.
const ORIGIN: Origin = Origin { listener: 0, peer: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1) };

/// Frames a second, beyond anything that a simulated client sends.
const FRAMES_PER_SECOND_MAX: u32 = 1_000_000;

type SimEngine = Engine<SimFiles, MemoryClock, MemoryRandom>;

/// How far a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Its lanes are being opened.
    Opening,
    /// It accepts.
    Serving,
    /// It says goodbye, until then.
    Draining(u64),
    /// Its engines are being closed, until then.
    Closing(u64),
    /// A lane could not be opened, or everything is closed.
    Over,
}

/// One node, from its start to its end.
pub struct Node {
    /// Which start it is.
    pub incarnation: u64,
    /// How far it is.
    pub phase: Phase,
    /// Its shards.
    pub shards: Vec<SimShard>,
    /// What opening its lanes found.
    pub opened: Vec<Result<(LaneId, OpenReport), EngineError>>,
    placement: Placement,
    lanes_open: usize,
    lanes_closed: usize,
    store: u64,
}

/// One shard with its futures and its end of the mesh.
pub struct SimShard {
    /// When it runs next.
    pub due_us: u64,
    core: ShardCore<SimFiles, MemoryClock, MemoryRandom>,
    tasks: Tasks,
    arrivals: Rc<RefCell<Arrivals>>,
    slots: Vec<Slot>,
    requests: Vec<VecDeque<(u64, MeshMessage)>>,
    deliveries: Vec<VecDeque<(u64, MeshMessage)>>,
    kept: VecDeque<MeshOut>,
    tick_at_ms: u64,
}

/// What futures have brought.
#[derive(Default)]
struct Arrivals {
    opened: Vec<Result<(LaneId, SimEngine, OpenReport), EngineError>>,
    closed: Vec<Result<(), EngineError>>,
}

#[derive(Clone, Copy, Default)]
struct Slot {
    generation: u32,
    link: Option<LinkId>,
}

/// What a node is made with.
pub struct NodeStart<'a> {
    /// The run's plan.
    pub plan: &'a Plan,
    /// What its engines are told, but for the lane.
    pub engine: &'a EngineOptions,
    /// Shards; as many as lanes, or more.
    pub shards: u16,
    /// Which start it is.
    pub incarnation: u64,
    /// The lanes' disks.
    pub disks: &'a [LaneDisk],
    /// The world's wall clock.
    pub clock: &'a MemoryClock,
    /// Now.
    pub now_us: u64,
}

/// What a shard's run did, for the world.
#[derive(Default)]
pub struct Ran {
    /// Commands for the network.
    pub commands: Vec<Command>,
    /// Shards that have frames, and from when on.
    pub mesh: Vec<(usize, u64)>,
    /// When it wants to run again.
    pub again_us: Option<u64>,
    /// It polled, took or made something.
    pub busy: bool,
}

struct Anyone;

impl Authenticate for Anyone {
    fn authenticate(&self, token: &str, _: TimestampMs) -> Result<Identity, (ErrorCode, String)> {
        let read = read_token(token).ok_or((ErrorCode::Unauthenticated, "not a token of this world".to_owned()));
        let (user, issued_ms) = read?;
        // Beyond any jump of the clock.
        Ok(Identity { user, device: None, expires: TimestampMs(u64::MAX / 4), issued: TimestampMs(issued_ms) })
    }
}

impl Node {
    /// Begins to open a node.
    #[must_use]
    pub fn start(start: &NodeStart<'_>) -> Self {
        let placement = Placement { shards: start.shards, lanes: start.plan.lanes };
        let shards = (0..start.shards).map(|index| SimShard::start(ShardId(index), placement, start)).collect();
        Self {
            incarnation: start.incarnation,
            phase: Phase::Opening,
            shards,
            opened: Vec::new(),
            placement,
            lanes_open: 0,
            lanes_closed: 0,
            store: 0,
        }
    }

    /// What a shard's lanes have found damaged in the background since this was last asked.
    #[must_use]
    pub fn scrub_findings(&self, shard: usize) -> Vec<Finding> {
        let lanes = self.shards.get(shard).map_or(&[][..], |shard| shard.core.lanes());
        lanes.iter().flat_map(|lane| lane.engine().take_scrub_findings()).collect()
    }

    /// Asks the engine of a lane for a checkpoint; the shard that works on it, if the lane is open.
    pub fn checkpoint(&mut self, lane: LaneId, target: SimFiles, made: Made) -> Option<usize> {
        let engine_of = |shard: &SimShard| {
            let lane = shard.core.lanes().iter().find(|of| of.id() == lane)?;
            Some(lane.engine().clone())
        };
        let (index, engine) = self.shards.iter().enumerate().find_map(|(at, shard)| Some((at, engine_of(shard)?)))?;
        self.shards[index].tasks.spawn(async move {
            let result = engine.checkpoint(&target).await;
            *made.borrow_mut() = Some(result);
        });
        Some(index)
    }

    /// A client connects; its connection's key, if the node accepts.
    pub fn accept(&mut self, shard: usize, link: LinkId, now_us: u64) -> Option<ConnectionKey> {
        if self.phase != Phase::Serving {
            return None;
        }
        let shard = self.shards.get_mut(shard)?;
        let free = shard.slots.iter().position(|slot| slot.link.is_none());
        let index = free.unwrap_or_else(|| {
            shard.slots.push(Slot::default());
            shard.slots.len() - 1
        });
        shard.slots[index].link = Some(link);
        let key = ConnectionKey { slot: index as u32, generation: shard.slots[index].generation };
        shard.core.set_now(now_us);
        shard.core.accepted(key, ORIGIN);
        Some(key)
    }

    /// The link of a connection, unless it is over.
    #[must_use]
    pub fn link(&self, shard: usize, key: ConnectionKey) -> Option<LinkId> {
        let slot = self.shards.get(shard)?.slots.get(key.slot as usize)?;
        slot.link.filter(|_| slot.generation == key.generation)
    }

    /// A connection's slot is free again.
    pub fn release(&mut self, shard: usize, key: ConnectionKey) {
        let slot = &mut self.shards[shard].slots[key.slot as usize];
        *slot = Slot { generation: slot.generation + 1, link: None };
    }

    /// Bytes came.
    pub fn received(&mut self, shard: usize, key: ConnectionKey, bytes: &mut [u8], now_us: u64) {
        let core = &mut self.shards[shard].core;
        core.set_now(now_us);
        core.received(key, bytes);
    }

    /// A send left.
    pub fn sent(&mut self, shard: usize, key: ConnectionKey) {
        self.shards[shard].core.sent(key);
    }

    /// The peer is gone.
    pub fn closed(&mut self, shard: usize, key: ConnectionKey) {
        self.shards[shard].core.closed(key);
        self.release(shard, key);
    }

    /// Begins to end in order.
    pub fn drain(&mut self, window_ms: u32, deadline_us: u64) {
        if self.phase == Phase::Serving {
            self.phase = Phase::Draining(deadline_us);
            self.shards.iter_mut().for_each(|shard| shard.core.drain(0..window_ms));
        }
    }

    /// One shard's turn: futures, mesh, logic, mesh.
    pub fn run(&mut self, index: usize, now_us: u64, plan: &Plan, dice: &Dice, coverage: &mut Coverage) -> Ran {
        let mut ran = Ran::default();
        self.shards[index].core.set_now(now_us);
        // Not always all of them: what is woken may have to wait.
        while self.shards[index].tasks.poll_one(dice) {
            ran.busy = true;
            if dice.chance(150) {
                break;
            }
        }
        self.take_arrivals(index, now_us, &mut ran);
        self.follow(index, now_us, &mut ran);
        let shard = &mut self.shards[index];
        shard.tick(now_us / 1_000);
        shard.take_mesh(now_us, dice, &mut ran);
        let turn = shard.core.turn();
        while let Some(command) = shard.core.poll_command() {
            ran.busy = true;
            ran.commands.push(command);
        }
        self.send_mesh(index, now_us, plan, dice, coverage, &mut ran);
        let shard = &self.shards[index];
        let soon = shard.tasks.woken() || turn.more;
        let wanted = [
            soon.then(|| now_us + dice.delay_us(plan.wake_us_max)),
            turn.wake_at_ms.map(|at_ms| (at_ms * 1_000).max(now_us + 1)),
            (!shard.kept.is_empty() || shard.has_mesh()).then_some(now_us + MESH_RETRY_US),
        ];
        ran.again_us = wanted.into_iter().flatten().min();
        ran
    }

    fn take_arrivals(&mut self, index: usize, now_us: u64, ran: &mut Ran) {
        let arrivals = std::mem::take(&mut *self.shards[index].arrivals.borrow_mut());
        for opened in arrivals.opened {
            ran.busy = true;
            match opened {
                Ok((id, engine, report)) => {
                    self.store ^= engine.store_id().rotate_left(u32::from(id.0));
                    self.lanes_open += 1;
                    self.shards[index].run_engine(&engine);
                    self.shards[index].core.add_lane(Lane::new(id, self.placement, engine));
                    self.opened.push(Ok((id, report)));
                }
                Err(error) => {
                    self.opened.push(Err(error));
                    self.phase = Phase::Over;
                }
            }
        }
        self.lanes_closed += arrivals.closed.len();
        if self.phase == Phase::Opening && self.lanes_open == usize::from(self.placement.lanes) {
            let store = self.store;
            self.shards.iter_mut().for_each(|shard| shard.core.set_store(store));
            self.phase = Phase::Serving;
            ran.mesh.extend((0..self.shards.len()).map(|shard| (shard, now_us)));
        }
    }

    /// Follows an orderly end through its phases.
    fn follow(&mut self, index: usize, now_us: u64, ran: &mut Ran) {
        match self.phase {
            Phase::Draining(deadline_us) => {
                if now_us >= deadline_us || self.shards.iter().all(|shard| shard.core.is_drained()) {
                    self.phase = Phase::Closing(deadline_us + 60_000_000);
                    for (shard, of) in self.shards.iter_mut().enumerate() {
                        of.close_lanes();
                        ran.mesh.push((shard, now_us));
                    }
                }
            }
            Phase::Closing(deadline_us) => {
                if now_us >= deadline_us || self.lanes_closed == usize::from(self.placement.lanes) {
                    self.phase = Phase::Over;
                }
            }
            Phase::Opening | Phase::Serving | Phase::Over => {}
        }
        if matches!(self.phase, Phase::Draining(_) | Phase::Closing(_)) {
            // Deadlines must be looked at though nothing happens.
            ran.mesh.push((index, now_us + 10_000));
        }
    }

    fn send_mesh(
        &mut self,
        index: usize,
        now_us: u64,
        plan: &Plan,
        dice: &Dice,
        coverage: &mut Coverage,
        ran: &mut Ran,
    ) {
        let mut blocked = vec![false; self.shards.len()];
        let mut waiting = std::mem::take(&mut self.shards[index].kept);
        while let Some(out) = self.shards[index].core.poll_mesh() {
            waiting.push_back(out);
        }
        for out in waiting {
            let (to, is_request) = match &out {
                MeshOut::Request(to, _) => (usize::from(to.0), true),
                MeshOut::Delivery(to, _) => (usize::from(to.0), false),
            };
            let shard = &mut self.shards[to];
            let queue = if is_request { &mut shard.requests[index] } else { &mut shard.deliveries[index] };
            if blocked[to] || queue.len() >= plan.mesh_frames_max {
                coverage.add(Count::MeshFull, u64::from(!blocked[to]));
                blocked[to] = true;
                self.shards[index].kept.push_back(out);
                continue;
            }
            let ready_us = (now_us + dice.delay_us(plan.mesh_us_max)).max(queue.back().map_or(0, |(at_us, _)| *at_us));
            let (MeshOut::Request(_, message) | MeshOut::Delivery(_, message)) = out;
            queue.push_back((ready_us, message));
            ran.busy = true;
            ran.mesh.push((to, ready_us));
        }
    }

    /// Adds what the node did to the report. Once, at its end.
    pub fn report(&self, coverage: &mut Coverage) {
        for shard in &self.shards {
            let counters = shard.core.counters();
            coverage.add(Count::SlowConsumers, counters.slow_consumers);
            coverage.add(Count::Silent, counters.silent);
            for lane in shard.core.lanes() {
                let status = lane.engine().status();
                coverage.add(Count::Flushes, status.flushes);
                coverage.add(Count::Compactions, status.compactions);
                coverage.add(Count::LogBytes, status.batch_bytes);
                coverage.add(Count::CacheMisses, status.cache_misses);
                coverage.add(Count::Fenced, u64::from(status.fenced.is_some()));
                coverage.add(Count::Loads, status.loads);
                coverage.add(Count::IdempotencyReads, status.idempotency_reads);
                coverage.add(Count::Overloaded, status.overloaded);
                coverage.add(Count::MaintenanceFailures, status.maintenance_failures);
                coverage.add(Count::BlocksDamaged, status.blocks_damaged);
                coverage.add(Count::ScrubRounds, status.scrub_rounds);
                coverage.add(Count::ScrubFindings, status.scrub_damaged);
            }
        }
    }

    /// Whether it came as far as to open all its lanes.
    #[must_use]
    pub fn has_opened(&self) -> bool {
        self.lanes_open == usize::from(self.placement.lanes)
    }

    /// Whether any lane stores nothing any more.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        self.shards.iter().flat_map(|shard| shard.core.lanes()).any(|lane| lane.fenced().is_some())
    }
}

impl SimShard {
    fn start(id: ShardId, placement: Placement, start: &NodeStart<'_>) -> Self {
        let arrivals = Rc::new(RefCell::new(Arrivals::default()));
        let mut tasks = Tasks::default();
        for lane in placement.lanes().filter(|lane| placement.shard_of(*lane) == id) {
            let options = EngineOptions { lane: u16::from(lane.0), ..start.engine.clone() };
            let (files, clock) = (start.disks[usize::from(lane.0)].files(), start.clock.clone());
            let random = MemoryRandom::new(start.plan.seed ^ (start.incarnation << 8) ^ u64::from(lane.0));
            let arrivals = Rc::clone(&arrivals);
            tasks.spawn(async move {
                let opened = Engine::open(files, clock, random, options).await;
                arrivals.borrow_mut().opened.push(opened.map(|(engine, report)| (lane, engine, report)));
            });
        }
        let queues = || (0..placement.shards).map(|_| VecDeque::new()).collect();
        Self {
            due_us: u64::MAX,
            core: ShardCore::new(config(id, placement, start.plan), start.clock.clone(), start.now_us),
            tasks,
            arrivals,
            slots: Vec::new(),
            requests: queues(),
            deliveries: queues(),
            kept: VecDeque::new(),
            tick_at_ms: 0,
        }
    }

    fn tick(&mut self, now_ms: u64) {
        if now_ms >= self.tick_at_ms {
            self.tick_at_ms = now_ms + TICK_INTERVAL_MS;
            self.core.lanes().iter().for_each(|lane| lane.engine().tick());
        }
    }

    /// A future of it wants to be polled.
    #[must_use]
    pub fn is_woken(&self) -> bool {
        self.tasks.woken()
    }

    fn close_lanes(&mut self) {
        for lane in self.core.lanes() {
            let (engine, arrivals) = (lane.engine().clone(), Rc::clone(&self.arrivals));
            self.tasks.spawn(async move {
                let closed = engine.close().await;
                arrivals.borrow_mut().closed.push(closed);
            });
        }
    }

    fn has_mesh(&self) -> bool {
        self.requests.iter().chain(&self.deliveries).any(|queue| !queue.is_empty())
    }

    /// Deliveries always, requests while the shard may take them; between shards in any order.
    fn take_mesh(&mut self, now_us: u64, dice: &Dice, ran: &mut Ran) {
        let shards = self.requests.len();
        let first = dice.index(shards);
        for from in (0..shards).map(|index| (first + index) % shards) {
            while self.deliveries[from].front().is_some_and(|(at_us, _)| *at_us <= now_us) {
                let Some((_, message)) = self.deliveries[from].pop_front() else { break };
                self.core.delivery(&message);
                ran.busy = true;
            }
        }
        let mut taken = 0;
        for from in (0..shards).map(|index| (first + index) % shards) {
            while taken < REQUESTS_PER_TURN_MAX
                && self.core.may_take_requests()
                && self.requests[from].front().is_some_and(|(at_us, _)| *at_us <= now_us)
            {
                let Some((_, message)) = self.requests[from].pop_front() else { break };
                self.core.request(&message);
                (taken, ran.busy) = (taken + 1, true);
            }
        }
    }

    /// Begins to run a lane's engine; to be called when it is open.
    fn run_engine(&mut self, engine: &SimEngine) {
        let (commits, maintenance) = (engine.clone(), engine.clone());
        self.tasks.spawn(async move { commits.run_commits().await });
        self.tasks.spawn(async move { maintenance.run_maintenance().await });
    }
}

fn config(id: ShardId, placement: Placement, plan: &Plan) -> ShardConfig {
    ShardConfig {
        id,
        placement,
        http: http::Rules {
            paths: vec!["/ws".to_owned()],
            subprotocols: Encoding::ALL.map(|encoding| encoding.subprotocol().to_owned()).to_vec(),
            subprotocol_default: None,
            origins: None,
            deflate: false,
        },
        websocket: websocket::Limits::default(),
        authenticate: Box::new(Anyone),
        requests_per_second_max: plan.requests_per_second_max,
        requests_burst_max: plan.requests_burst_max,
        admission: admission::Rules::default(),
        frames_per_second_max: FRAMES_PER_SECOND_MAX,
        frames_burst_max: FRAMES_PER_SECOND_MAX,
        head_timeout_ms: 5_000,
        connect_timeout_ms: 10_000,
        silence_ms_max: 60_000,
        outbound_bytes_max: plan.outbound_bytes_max,
        connections_max: 1_000,
        fanout: fanout::Rules {
            large_members: plan.large_members,
            bodies_members: plan.bodies_members,
            hint_ms: plan.hint_ms,
            at_a_time: plan.pushes_at_a_time,
        },
        devices_per_user: 10,
    }
}
