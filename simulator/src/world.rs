//! The world: one queue of events on a virtual clock, and everything that they happen to. Events at the same time happen in the order in
//! which they were planned; all that is left to chance is drawn from dice of the seed. So one seed is one run.

use std::{cell::Cell, cmp::Reverse, collections::BinaryHeap, rc::Rc};

use antiphon_engine::memory_files::{MemoryClock, Ticket};
use antiphon_wire::session::Phase as SessionPhase;

use crate::{
    clients::Client,
    copies::Copies,
    coverage::{Count, Coverage},
    dice::Dice,
    disk::{LaneDisk, duration_us},
    events::{Event, Planned},
    finish::Finish,
    lasting::Lasting,
    logins::{ISSUED_FIRST_MS, Login},
    model::Model,
    network::Link,
    node::{Node, NodeStart, Phase},
    plan::{Fault, Plan},
    plant::Plant,
    trace::{Detail, Trace},
    workload::Workload,
};

/// Where the wall clock starts: some day in 2026, in milliseconds.
const EPOCH_MS: u64 = 1_780_000_000_000;

/// How long a node that has ended by itself stays down: what a supervisor waits, doubled with each start in a row that failed, up to the
/// second figure. It is what systemd does with `RestartSteps`.
const START_PAUSE_US: u64 = 500_000;
const START_PAUSE_US_MAX: u64 = 30_000_000;

/// Events after which a run is said to go round in circles.
const EVENTS_MAX: u64 = 3_000_000;

/// Everything there is.
pub struct World {
    /// What the seed picked.
    pub plan: Plan,
    /// Virtual time.
    pub now_us: u64,
    /// What happened.
    pub trace: Trace,
    /// What was done and met.
    pub coverage: Coverage,
    /// The oracle.
    pub model: Model,
    /// Clients, by number.
    pub clients: Vec<Client>,
    /// Connections, by number.
    pub links: Vec<Link>,
    /// The running node.
    pub node: Option<Node>,
    /// The lanes' disks.
    pub disks: Vec<LaneDisk>,
    /// What clients do.
    pub workload: Workload,
    /// The end.
    pub finish: Finish,
    /// The network's dice.
    pub network_dice: Dice,
    /// The faults' dice.
    pub fault_dice: Dice,
    /// Faults that last.
    pub lasting: Lasting,
    /// The planted bug, if there is one.
    pub plant: Option<Plant>,
    /// Segments that lanes are writing.
    pub segments: Rc<Cell<usize>>,
    /// Checkpoints that are being made.
    pub copies: Copies,
    clock: MemoryClock,
    clock_offset_ms: i64,
    /// The latest time that the wall clock showed before it jumped.
    pub clock_max_ms: u64,
    schedule_dice: Dice,
    queue: BinaryHeap<Reverse<Planned>>,
    planned: u64,
    incarnations: u64,
    /// When the node starts next; at most one start is planned.
    start_due_us: Option<u64>,
    /// Starts in a row that did not come to serving.
    starts_failed: u32,
    /// A shard count for the next start.
    pub shards_next: u16,
    /// A crash waits for the disk to be at work.
    pub crash_waits: Option<CrashWaits>,
}

/// A crash that comes while a disk operation is under way: with the power or without, and after how many more operations.
#[derive(Debug, Clone, Copy)]
pub struct CrashWaits {
    /// The power fails.
    pub power: bool,
    /// Operations to let by.
    pub operations: u64,
}

impl World {
    /// The world of a plan, about to start.
    #[must_use]
    pub fn new(plan: Plan, detail: Detail, plant: Option<Plant>) -> Self {
        let seed = plan.seed;
        let segments = Rc::new(Cell::new(0));
        let disk = |lane| LaneDisk::new(seed ^ (u64::from(lane) << 32), &plan, plant, &segments);
        let disks = (0..plan.lanes).map(disk).collect();
        let clients: Vec<Client> =
            plan.clients.iter().enumerate().map(|(index, client)| Client::new(*client, index, seed)).collect();
        let login = |client: &Client| Login {
            user: client.user.clone(),
            device: client.device.clone(),
            issued_ms: ISSUED_FIRST_MS,
            issued_at: 0,
            is_asked: false,
            refused_since: None,
        };
        let logins = clients.iter().map(login).collect();
        let per_user_max = plan.engine.conversations_per_user_max;
        let model = Model {
            rot: plan.has_rot() || plan.has_misreads(),
            sound: !plan.has_rot() && !plan.has_disk_errors(),
            has_room: plan.rate(Fault::Full) == 0,
            per_user_max,
            lanes: plan.lanes,
            logins,
            ..Model::default()
        };
        let mut world = Self {
            now_us: 0,
            trace: Trace::new(detail),
            coverage: Coverage::default(),
            model,
            clients,
            links: Vec::new(),
            node: None,
            disks,
            workload: Workload::new(&plan),
            finish: Finish::new(&plan),
            network_dice: Dice::new(seed, "network"),
            fault_dice: Dice::new(seed, "faults"),
            lasting: Lasting::new(usize::from(plan.lanes)),
            plant,
            segments,
            copies: Copies::default(),
            clock: MemoryClock::new(EPOCH_MS),
            clock_offset_ms: 0,
            clock_max_ms: 0,
            schedule_dice: Dice::new(seed, "schedule"),
            queue: BinaryHeap::new(),
            planned: 0,
            incarnations: 0,
            start_due_us: None,
            starts_failed: 0,
            shards_next: plan.shards,
            crash_waits: None,
            plan,
        };
        world.coverage.add(Count::Encrypted, u64::from(world.plan.engine.encryption.is_some()));
        world.coverage.add(Count::UnequalDisks, u64::from(world.plan.disk_factors.iter().any(|factor| *factor > 1)));
        world.plan_start(0);
        for client in 0..world.clients.len() {
            let at_us = world.network_dice.delay_us(10_000);
            world.plan_at(at_us, Event::ClientStart(client));
        }
        let first_us = world.plan.step_us_max;
        world.plan_at(first_us, Event::Step);
        world
    }

    /// Runs to the end, or to the first violation.
    pub fn run(&mut self) {
        while self.model.violation.is_none() && !self.finish.is_over() {
            let Some(Reverse(Planned { at_us, event, .. })) = self.queue.pop() else {
                return self.model.fail(|| "nothing is planned, and it is not over".to_owned());
            };
            self.now_us = at_us;
            self.set_clock();
            self.happen(event);
            if self.trace.events() > EVENTS_MAX {
                self.model.fail(|| format!("{EVENTS_MAX} events and no end"));
            }
        }
        if self.model.violation.is_none() {
            self.judge_disks();
        }
        if let Some(node) = self.node.take() {
            node.report(&mut self.coverage);
        }
        self.disks.iter().for_each(|disk| disk.report(&mut self.coverage));
    }

    /// Monotonic time in milliseconds.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.now_us / 1_000
    }

    /// Plans an event.
    pub fn plan_at(&mut self, at_us: u64, event: Event) {
        let number = self.planned;
        self.planned += 1;
        self.queue.push(Reverse(Planned { at_us: at_us.max(self.now_us), number, event }));
    }

    /// What the wall clock shows while it goes.
    #[must_use]
    pub fn clock_ms(&self) -> u64 {
        (EPOCH_MS + self.now_us / 1_000).saturating_add_signed(self.clock_offset_ms)
    }

    /// What the node sees of it.
    #[must_use]
    pub fn wall_ms(&self) -> u64 {
        self.lasting.clock_stands_ms().unwrap_or_else(|| self.clock_ms())
    }

    /// What a clock shows that was never set.
    #[must_use]
    pub fn true_clock_ms(&self) -> u64 {
        EPOCH_MS + self.now_us / 1_000
    }

    /// The wall clock is so much further from now on.
    pub fn shift_clock(&mut self, by_ms: i64) {
        self.clock_max_ms = self.clock_max_ms.max(self.clock_ms());
        self.model.clock_jumps += 1;
        self.clock_offset_ms += by_ms;
    }

    /// Lets the node see the wall clock.
    pub fn set_clock(&self) {
        self.clock.set(self.wall_ms());
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Shard { incarnation, shard } => self.shard_turn(incarnation, shard),
            Event::Disk { incarnation, lane, ticket } => self.disk_completes(incarnation, lane, ticket),
            Event::CopyDisk { incarnation, lane, number, ticket } => {
                let event = Event::CopyDisk { incarnation, lane, number, ticket };
                if self.disk_answers(incarnation, lane, event) {
                    self.release_of_copy(number, ticket);
                    self.wake_whoever_waits();
                }
            }
            Event::Accept(link) => self.accept(link),
            Event::Up(link, bytes) => self.bytes_up(link, bytes),
            Event::UpEnd(link) => self.end_up(link),
            Event::Down(link, bytes) => self.bytes_down(link, bytes),
            Event::DownEnd(link) => self.end_down(link),
            Event::Sent { incarnation, shard, key, wakes } => {
                if let Some(node) = self.node.as_mut().filter(|node| node.incarnation == incarnation)
                    && node.link(shard, key).is_some()
                {
                    node.sent(shard, key);
                    if wakes {
                        self.wake_shard(shard);
                    }
                }
            }
            Event::Client(client) => self.client_timer(client),
            Event::ClientStart(client) => self.client_start(client),
            Event::Step => self.step(),
            Event::NodeStart => self.node_start(),
            Event::Crash { power } => self.crash_again(power),
            Event::Room(lane) => {
                self.trace.note(self.now_us, &[1, lane as u64], || format!("lane {lane}: room again"));
                // The lane may be no more.
                self.disks.get_mut(lane).into_iter().for_each(|disk| disk.set_room(None));
            }
            Event::Heal(lane, fault) => {
                self.trace
                    .note(self.now_us, &[2, lane as u64], || format!("lane {lane}: no {} any more", fault.name()));
                self.disks.get(lane).into_iter().for_each(|disk| disk.set_errors(fault, 0));
            }
            Event::ClockGoes { catches_up } => self.clock_goes(catches_up),
            Event::Finish => self.finish_look(),
        }
    }

    /// A shard has something to do.
    pub fn wake_shard(&mut self, shard: usize) {
        let at_us = self.now_us + self.schedule_dice.delay_us(self.plan.wake_us_max);
        self.wake_shard_at(shard, at_us);
    }

    fn wake_shard_at(&mut self, shard: usize, at_us: u64) {
        let Some(node) = &mut self.node else { return };
        let (incarnation, of) = (node.incarnation, &mut node.shards[shard]);
        if at_us < of.due_us {
            of.due_us = at_us;
            self.plan_at(at_us, Event::Shard { incarnation, shard });
        }
    }

    fn shard_turn(&mut self, incarnation: u64, shard: usize) {
        let Some(node) = self.node.as_mut().filter(|node| node.incarnation == incarnation) else { return };
        if node.shards[shard].due_us > self.now_us {
            return;
        }
        node.shards[shard].due_us = u64::MAX;
        let ran = node.run(shard, self.now_us, &self.plan, &self.schedule_dice, &mut self.coverage);
        if ran.busy {
            let commands = ran.commands.len();
            self.trace.note(self.now_us, &[3, shard as u64, commands as u64], || {
                format!("shard {shard} turns: {commands} commands, mesh to {:?}", ran.mesh)
            });
        }
        for command in ran.commands {
            self.command(shard, command);
        }
        for (to, at_us) in ran.mesh {
            self.wake_shard_at(to, at_us);
        }
        if let Some(at_us) = ran.again_us {
            self.wake_shard_at(shard, at_us);
        }
        self.look_at_copies();
        self.plan_disk();
        self.node_opened();
        self.scrub_found(shard);
        if self.node.as_ref().is_some_and(|node| node.phase == Phase::Over) {
            self.node_over();
        }
    }

    /// Gives every new disk operation its time.
    fn plan_disk(&mut self) {
        let incarnation = self.incarnations;
        for lane in 0..self.disks.len() {
            for (ticket, kind) in self.disks[lane].submitted() {
                let slowness = self.plan.disk_factors[lane].max(self.lasting.slowness(lane, self.now_us));
                let takes_us = slowness * duration_us(&self.plan, kind, &self.schedule_dice);
                self.plan_at(self.now_us + takes_us, Event::Disk { incarnation, lane, ticket });
                self.crash_within(takes_us);
            }
        }
        for (number, lane, ticket, kind) in self.submitted_by_copies() {
            let slowness = self.plan.disk_factors[lane].max(self.lasting.slowness(lane, self.now_us));
            let takes_us = slowness * duration_us(&self.plan, kind, &self.schedule_dice);
            self.plan_at(self.now_us + takes_us, Event::CopyDisk { incarnation, lane, number, ticket });
            self.crash_within(takes_us);
        }
    }

    /// The crash that waits comes while an operation is under way.
    fn crash_within(&mut self, takes_us: u64) {
        let Some(waits) = &mut self.crash_waits else { return };
        if waits.operations > 0 {
            waits.operations -= 1;
            return;
        }
        let power = waits.power;
        self.crash_waits = None;
        let at_us = self.now_us + self.fault_dice.below(takes_us + 1);
        self.plan_at(at_us, Event::Crash { power });
    }

    fn disk_completes(&mut self, incarnation: u64, lane: usize, ticket: Ticket) {
        if !self.disk_answers(incarnation, lane, Event::Disk { incarnation, lane, ticket }) {
            return;
        }
        self.trace
            .note(self.now_us, &[4, lane as u64, ticket.0], || format!("lane {lane}: disk operation {}", ticket.0));
        self.disks[lane].release(ticket);
        self.wake_whoever_waits();
    }

    /// Whether an operation completes now; on a hung disk it comes again later.
    fn disk_answers(&mut self, incarnation: u64, lane: usize, again: Event) -> bool {
        if self.incarnations != incarnation || self.node.is_none() {
            return false;
        }
        let Some(until_us) = self.lasting.hung_until_us(lane, self.now_us) else { return true };
        self.coverage.one(Count::OperationsHeld);
        if self.plant != Some(Plant::HeldOperationForgotten) {
            let at_us = until_us + self.schedule_dice.delay_us(self.plan.disk_us_max);
            self.plan_at(at_us, again);
        }
        false
    }

    fn wake_whoever_waits(&mut self) {
        let shards = self.node.as_ref().map_or(0, |node| node.shards.len());
        // Whoever waits for it is woken; which shard that is, the flags tell.
        for shard in 0..shards {
            if self.node.as_ref().is_some_and(|node| node.shards[shard].is_woken()) {
                self.wake_shard(shard);
            }
        }
    }

    /// Plans the node's next start, instead of one that was planned before: or else starts would add up, each failed one planning another.
    pub fn plan_start(&mut self, after_us: u64) {
        let at_us = self.now_us + after_us;
        self.start_due_us = Some(at_us);
        self.plan_at(at_us, Event::NodeStart);
    }

    fn node_start(&mut self) {
        if self.node.is_some() || self.start_due_us != Some(self.now_us) {
            return;
        }
        self.start_due_us = None;
        self.incarnations += 1;
        self.operate_encrypted(self.incarnations);
        self.relane(self.incarnations);
        let engine = self.plan.engine_at(self.incarnations);
        self.coverage.add(Count::Reconfigured, u64::from(engine != self.plan.engine));
        let start = NodeStart {
            plan: &self.plan,
            engine: &engine,
            shards: self.shards_next,
            incarnation: self.incarnations,
            disks: &self.disks,
            clock: &self.clock,
            now_us: self.now_us,
        };
        let node = Node::start(&start);
        let (incarnation, shards) = (self.incarnations, self.shards_next);
        self.trace.note(self.now_us, &[5, incarnation], || format!("node {incarnation} starts with {shards} shards"));
        self.node = Some(node);
        (0..usize::from(shards)).for_each(|shard| self.wake_shard(shard));
    }

    /// Looks at what opening lanes has found.
    fn node_opened(&mut self) {
        let Some(node) = &mut self.node else { return };
        for opened in std::mem::take(&mut node.opened) {
            let trusted = !self.plan.has_rot() && !self.plan.has_misreads();
            match opened {
                Ok((lane, report)) => {
                    self.trace.note(self.now_us, &[6, report.position.0, report.batches], || {
                        format!("lane {} is open: {report:?}", lane.0)
                    });
                    self.coverage.add(Count::Replayed, report.batches);
                    self.coverage.add(Count::TornTails, u64::from(report.torn_tail.is_some()));
                    self.coverage.add(Count::ReadOnly, u64::from(report.read_only));
                    self.coverage.add(Count::LogDamaged, report.damage.len() as u64);
                    self.coverage.add(Count::SegmentsDamaged, report.segments_damaged.len() as u64);
                    let sound = !report.read_only && report.damage.is_empty() && report.segments_damaged.is_empty();
                    self.model.check(sound || !trusted, || format!("a sound disk was called damaged: {report:?}"));
                }
                Err(error) => {
                    self.trace.note(self.now_us, &[7], || format!("a lane can't be opened: {error}"));
                    self.coverage.one(Count::OpenRefused);
                    let allowed = !trusted || self.plan.has_disk_errors() || self.plan.rate(Fault::Full) > 0;
                    self.model.check(allowed, || format!("a lane of a sound disk can't be opened: {error}"));
                }
            }
        }
    }

    /// Damage that a reading in the background tells is there: nothing is told of a disk that destroys nothing and reads what it holds.
    fn scrub_found(&mut self, shard: usize) {
        if self.plan.rate(Fault::Scrub) == 0 {
            return;
        }
        let found = self.node.as_ref().map_or_else(Vec::new, |node| node.scrub_findings(shard));
        for finding in found {
            self.trace.note(self.now_us, &[10, shard as u64], || format!("shard {shard} reads: {finding}"));
            let allowed = self.plan.has_rot() || self.plan.has_misreads() || self.plan.has_disk_errors();
            self.model.check(allowed, || format!("a sound segment was called damaged: {finding}"));
        }
    }

    /// The node has ended by itself: in order, or because it could not open.
    fn node_over(&mut self) {
        self.trace.note(self.now_us, &[8], || "the node is over".to_owned());
        let power = false;
        self.node_dies(power);
        // Where data was destroyed it may never open again.
        let pause_us = (START_PAUSE_US << self.starts_failed.min(16)).min(START_PAUSE_US_MAX);
        let after_us = pause_us / 2 + self.fault_dice.below(pause_us / 2);
        self.plan_start(after_us);
    }

    /// The node's process ends, whatever it is at; with the power or without.
    pub fn node_dies(&mut self, power: bool) {
        let Some(node) = self.node.take() else { return };
        node.report(&mut self.coverage);
        self.starts_failed = match node.phase {
            _ if node.has_opened() => 0,
            Phase::Over => self.starts_failed + 1,
            _ => self.starts_failed,
        };
        let incarnation = node.incarnation;
        let seed = self.fault_dice.number();
        for (lane, disk) in self.disks.iter_mut().enumerate() {
            disk.crash(power, seed.wrapping_add(lane as u64));
        }
        drop(node);
        self.copies_die(power, seed);
        for link in 0..self.links.len() {
            if self.links[link].incarnation == incarnation {
                self.server_gone(link);
            }
        }
        // The machine may come back with another layout.
        if self.fault_dice.chance(300) {
            let shards = self.fault_dice.between(u64::from(self.plan.lanes), 4) as u16;
            self.coverage.add(Count::ShardsChanged, u64::from(shards != self.shards_next));
            self.shards_next = shards;
        }
    }

    /// All clients that should be connected are, and live.
    #[must_use]
    pub fn all_live(&self) -> bool {
        // A client whose connection went silent believes that all is well until it misses its heartbeat.
        let reached = |client: &Client| client.link.is_some_and(|link| !self.links[link].silent);
        let live = |client: &Client| client.running && client.session.phase() == SessionPhase::Open && reached(client);
        self.clients.iter().filter(|client| client.wanted).all(live)
    }
}
