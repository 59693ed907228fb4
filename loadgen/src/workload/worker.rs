//! One client thread: its loop, its phases and its result.

use std::{
    collections::BTreeMap,
    sync::{Arc, mpsc::Sender},
    time::Duration,
};

use antiphon_wire::{
    codec::Encoding,
    frame::Request,
    ids::{ConversationId, RequestId},
};

use super::{
    connections::Connections,
    control::{Control, Counters, Phase},
    groups::Groups,
    pending::Pending,
    plan::{Plan, Share},
};
use crate::{
    arrivals::Arrivals,
    checker::{Checker, Violations},
    clock::{Clock, MILLISECOND_NS, Nanoseconds, SECOND_NS},
    driver::{Driver, DriverOptions, Links},
    measure::{Latencies, Second, record},
    random::Random,
    websocket::{self, Opcode},
};

/// Longest sleep: how late a thread notices a new phase.
const SLEEP_NS_MAX: Nanoseconds = 50 * MILLISECOND_NS;

/// Different errors that are kept for the report.
const ERROR_KINDS_MAX: usize = 32;

/// Request ids that are not places of pending messages.
pub(super) mod request {
    use super::RequestId;

    pub(in super::super) const CONNECT: RequestId = RequestId(u32::MAX);
    pub(in super::super) const PING: RequestId = RequestId(u32::MAX - 1);
    pub(in super::super) const GROUP: RequestId = RequestId(u32::MAX - 2);
    pub(in super::super) const HISTORY: RequestId = RequestId(u32::MAX - 3);
}

/// A client thread's state.
pub struct Worker {
    pub(super) plan: Arc<Plan>,
    pub(super) share: Share,
    pub(super) control: Arc<Control>,
    pub(super) counters: Arc<Counters>,
    pub(super) clock: Clock,
    pub(super) random: Random,
    pub(super) phase: Phase,
    pub(super) connections: Connections,
    pub(super) groups: Groups,
    pub(super) conversations: Vec<ConversationId>,
    pub(super) checker: Checker,
    pub(super) pending: Pending,
    pub(super) resends: Vec<(Nanoseconds, u32, u32)>,
    pub(super) arrivals: Option<Arrivals>,
    pub(super) next_number: u32,
    pub(super) measured: std::ops::Range<Nanoseconds>,
    pub(super) latencies: Latencies,
    pub(super) second: Second,
    pub(super) errors: BTreeMap<String, u64>,
    seconds: Sender<Second>,
}

/// What a client thread found.
#[derive(Debug)]
pub struct WorkerResult {
    /// Latencies of the measured part.
    pub latencies: Latencies,
    /// What broke.
    pub violations: Violations,
    /// Errors of the server and of the protocol, with how often they came.
    pub errors: BTreeMap<String, u64>,
}

/// What a thread is given.
pub struct WorkerOptions {
    /// What all threads know.
    pub plan: Arc<Plan>,
    /// This one's part.
    pub share: Share,
    /// The run's word.
    pub control: Arc<Control>,
    /// This thread's counts.
    pub counters: Arc<Counters>,
    /// The run's clock.
    pub clock: Clock,
    /// Where finished seconds go.
    pub seconds: Sender<Second>,
    /// Receive buffers of its ring.
    pub buffers: u16,
}

/// Runs a client thread to its end.
pub fn run(options: WorkerOptions) -> std::io::Result<WorkerResult> {
    let share = options.share;
    let mut driver = Driver::new(&DriverOptions {
        target: options.plan.target,
        slots: share.count,
        first: share.first,
        buffers: options.buffers,
    })?;
    let mut worker = Worker::new(options);
    worker.counters.ready.set(1);
    while worker.phase != Phase::Stop {
        let now_ns = worker.clock.now_ns();
        worker.tick(driver.links(), now_ns);
        let wait_ns = worker.next_wake_ns(now_ns).saturating_sub(worker.clock.now_ns());
        driver.turn(&mut worker, Duration::from_nanos(wait_ns))?;
    }
    Ok(worker.finish())
}

impl Worker {
    fn new(options: WorkerOptions) -> Self {
        let WorkerOptions { plan, share, control, counters, clock, seconds, .. } = options;
        // Without groups the checker only has to know that no entry may come at all.
        let group_size = if plan.group_size == 0 { share.count } else { plan.group_size };
        let groups = if plan.group_size == 0 { 0 } else { share.count.div_ceil(group_size) };
        Self {
            random: Random::new(plan.seed, u64::from(share.thread)),
            phase: Phase::Hold,
            connections: Connections::new(&plan, share),
            groups: Groups::new(groups),
            conversations: (0..groups).map(|group| super::groups::conversation_id(&plan, share, group)).collect(),
            checker: Checker::new(share.count, group_size),
            pending: Pending::default(),
            resends: Vec::new(),
            arrivals: None,
            next_number: 0,
            measured: 0..0,
            latencies: Latencies::default(),
            second: Second::new(0),
            errors: BTreeMap::new(),
            seconds,
            plan,
            share,
            control,
            counters,
            clock,
        }
    }

    fn tick(&mut self, links: &mut Links, now_ns: Nanoseconds) {
        self.follow_phase();
        if self.phase != Phase::Hold {
            self.connect_due(links, now_ns);
        }
        self.heartbeat_due(links, now_ns);
        match self.phase {
            Phase::Groups => self.groups_due(links, now_ns),
            Phase::Load | Phase::Drain => {
                self.sends_due(links);
                self.resends_due(links, now_ns);
                self.second_due(now_ns);
            }
            Phase::Hold | Phase::Connect | Phase::Stop => {}
        }
        self.counters.unacked.set(self.pending.len() as u64);
        self.counters.undelivered.set(self.checker.undelivered());
        self.counters.violations.set(self.checker.violations().total());
    }

    fn follow_phase(&mut self) {
        let phase = self.control.phase();
        if phase == self.phase {
            return;
        }
        self.phase = phase;
        if phase == Phase::Load && self.plan.group_size > 0 {
            let start_ns = self.control.load_start_ns();
            let measured_ns = start_ns + self.plan.warmup_ns;
            self.measured = measured_ns..measured_ns + self.plan.measured_ns;
            let rate = self.plan.rate_per_second * self.share.part;
            let random = Random::new(self.random.next_u64(), u64::from(self.share.thread));
            self.arrivals = Some(Arrivals::new(self.plan.spread, rate, start_ns, self.measured.end, random));
        }
    }

    fn next_wake_ns(&self, now_ns: Nanoseconds) -> Nanoseconds {
        let arrival_ns = self.arrivals.as_ref().and_then(Arrivals::peek_ns).unwrap_or(Nanoseconds::MAX);
        let connect_ns =
            if self.phase == Phase::Hold { Nanoseconds::MAX } else { self.connections.next_wake_ns(now_ns) };
        (now_ns + SLEEP_NS_MAX).min(arrival_ns).min(connect_ns)
    }

    /// Sends the samples of a second away when it is over.
    fn second_due(&mut self, now_ns: Nanoseconds) {
        let index = now_ns.saturating_sub(self.control.load_start_ns()) / SECOND_NS;
        if index != self.second.index {
            let finished = std::mem::replace(&mut self.second, Second::new(index));
            if !finished.is_empty() {
                // The run may have stopped listening: then nobody wants it.
                let _ = self.seconds.send(finished);
            }
        }
    }

    /// Writes a request as one WebSocket message.
    pub(super) fn write(&mut self, links: &mut Links, slot: u32, id: RequestId, request: &Request) {
        let bytes = self.plan.encoding.encode_request(Some(id), request);
        let opcode = match self.plan.encoding {
            Encoding::Json => Opcode::Text,
            Encoding::Rkyv => Opcode::Binary,
        };
        let mask = (self.random.next_u64() as u32).to_le_bytes();
        websocket::write_frame(links.write(slot), opcode, &bytes, mask);
    }

    /// Counts something that went wrong, by what it says.
    pub(super) fn note_error(&mut self, text: String) {
        if self.errors.len() < ERROR_KINDS_MAX || self.errors.contains_key(&text) {
            *self.errors.entry(text).or_insert(0) += 1;
        }
    }

    fn finish(mut self) -> WorkerResult {
        let now_ns = self.clock.now_ns();
        // What never was acknowledged took at least until now: leaving it out would make the percentiles look better.
        for message in self.pending.messages() {
            if self.measured.contains(&message.intended_ns) {
                record(&mut self.latencies.send_to_ack, message.intended_ns, now_ns);
            }
        }
        let _ = self.seconds.send(self.second);
        WorkerResult { latencies: self.latencies, violations: self.checker.finish(), errors: self.errors }
    }
}
