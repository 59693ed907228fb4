//! One client thread: its loop, its phases and its result.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
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
    echo::EchoState,
    groups::Groups,
    large::LargeMembers,
    pending::Pending,
    plan::{OPEN_END_NS, Plan, Role, Share},
    presence::Seen,
    verify::Verify,
};
use crate::{
    arrivals::Arrivals,
    checker::{Checker, Violations},
    clock::{Clock, MILLISECOND_NS, Nanoseconds},
    driver::{Driver, DriverOptions, Links},
    layout::Layout,
    measure::{Latencies, Second, record},
    random::Random,
    transport::{Secure, TlsOutcome, Transport},
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
    pub(in super::super) const HISTORY: RequestId = RequestId(u32::MAX - 3);
    pub(in super::super) const VERIFY: RequestId = RequestId(u32::MAX - 4);
    pub(in super::super) const PRESENCE: RequestId = RequestId(u32::MAX - 5);
    pub(in super::super) const VIEW: RequestId = RequestId(u32::MAX - 6);
    pub(in super::super) const FILL: RequestId = RequestId(u32::MAX - 7);

    /// Above any place of a pending message; a thread has far fewer groups than there are numbers above.
    const GROUP_FIRST: u32 = 1 << 31;

    /// The making of a group.
    pub(in super::super) fn group(conversation: u32) -> RequestId {
        RequestId(GROUP_FIRST + conversation)
    }

    /// Which group's making it is, of `count`.
    pub(in super::super) fn group_of(id: RequestId, count: u32) -> Option<u32> {
        id.0.checked_sub(GROUP_FIRST).filter(|&conversation| conversation < count)
    }
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
    pub(super) layout: Arc<Layout>,
    pub(super) groups: Groups,
    /// Members of the large group, if the thread has such.
    pub(super) large: Option<Box<LargeMembers>>,
    pub(super) verify: Verify,
    /// The TLS sessions, with `wss://`.
    pub(super) secure: Option<Secure>,
    /// Where what they decrypt is put together.
    pub(super) plain: Vec<u8>,
    pub(super) echo: Vec<EchoState>,
    pub(super) echo_filled: bool,
    /// Where payloads are put together.
    pub(super) payload: Vec<u8>,
    pub(super) conversations: Vec<ConversationId>,
    pub(super) checker: Checker,
    /// What connections were told of those whom they watch.
    pub(super) seen: Seen,
    pub(super) pending: Pending,
    pub(super) resends: Vec<(Nanoseconds, u32, u32)>,
    /// Answers that people think about: when, who, in which conversation.
    pub(super) replies: BinaryHeap<Reverse<(Nanoseconds, u32, u32)>>,
    /// Pages that were refused for a while.
    pub(super) pages: Vec<(Nanoseconds, u32)>,
    pub(super) arrivals: Option<Arrivals>,
    pub(super) departures: Option<Arrivals>,
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
    /// What its handshakes came to.
    pub tls: TlsOutcome,
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
        first: options.plan.first_user + share.first,
        buffers: options.buffers,
        small_receive_bytes: options.plan.slow_receive_bytes,
    })?;
    let mut worker = Worker::new(options);
    let views = worker.large.as_ref().map_or(0, |large| large.given_all());
    worker.counters.conversations.set(u64::from(worker.layout.conversations() + views));
    worker.counters.ready.set(1);
    while worker.phase != Phase::Stop {
        let now_ns = worker.clock.now_ns();
        worker.tick(driver.links(), now_ns);
        let wake_ns = worker.next_wake_ns(now_ns);
        let wait_ns = wake_ns.saturating_sub(worker.clock.now_ns());
        driver.turn(&mut worker, Duration::from_nanos(wait_ns))?;
        let back_ns = worker.clock.now_ns();
        if wait_ns > 0 && back_ns >= wake_ns && worker.phase == Phase::Load {
            record(&mut worker.latencies.lag, wake_ns, back_ns);
        }
    }
    Ok(worker.finish())
}

impl Worker {
    fn new(options: WorkerOptions) -> Self {
        let WorkerOptions { plan, share, control, counters, clock, seconds, .. } = options;
        let mut random = Random::new(plan.seed, u64::from(share.thread));
        let layers = if share.role == Role::Chat { plan.layers.as_slice() } else { &[] };
        let layout = Arc::new(Layout::new(share.count, layers, &mut Random::new(random.next_u64(), 1)));
        let conversations = layout.conversations();
        let echo = if plan.echo.is_some() { share.count as usize } else { 0 };
        Self {
            random,
            phase: Phase::Hold,
            connections: Connections::new(&plan, share),
            groups: Groups::new(conversations),
            large: LargeMembers::of(&plan, share),
            verify: Verify::default(),
            echo: vec![EchoState::default(); echo],
            secure: match &plan.transport {
                Transport::Plain => None,
                Transport::Tls(client) => Some(Secure::new(client.clone(), share.count)),
            },
            plain: Vec::new(),
            echo_filled: false,
            payload: Vec::new(),
            conversations: match share.role {
                Role::Chat => (0..conversations)
                    .map(|group| super::groups::conversation_id(&plan, share, &layout, group))
                    .collect(),
                Role::Large => vec![super::large::conversation_id(&plan)],
            },
            checker: Checker::new(layout.clone()),
            seen: Seen::new(share.count, plan.habits.watch),
            layout,
            pending: Pending::default(),
            resends: Vec::new(),
            replies: BinaryHeap::new(),
            pages: Vec::new(),
            arrivals: None,
            departures: None,
            next_number: 0,
            measured: 0..0,
            latencies: match share.role {
                Role::Chat => Latencies::new(plan.parts.len()),
                Role::Large => Latencies::with_large(plan.parts.len()),
            },
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
        self.follow_phase(links, now_ns);
        if self.phase != Phase::Hold {
            self.connect_due(links, now_ns);
        }
        self.handshakes_due(links);
        self.heartbeat_due(links, now_ns);
        match self.phase {
            Phase::Groups => self.groups_due(links, now_ns),
            Phase::Load if self.plan.echo.is_some() => self.echoes_due(links),
            Phase::Load => {
                self.departures_due(links, now_ns);
                self.sends_due(links);
            }
            Phase::Verify => self.verify_due(links, now_ns),
            Phase::Hold | Phase::Fill | Phase::Connect | Phase::Drain | Phase::Stop => {}
        }
        if self.large.is_some() {
            self.large_due(links, now_ns);
        }
        if self.phase >= Phase::Load {
            self.resends_due(links, now_ns);
            self.pages_due(links, now_ns);
            self.second_due(now_ns);
        }
        self.counters.unacked.set(self.pending.len() as u64 + self.echoes_under_way());
        let (undelivered, violations) =
            self.large.as_ref().map_or((0, 0), |large| (large.undelivered(), large.violations()));
        self.counters.undelivered.set(self.checker.undelivered() + undelivered);
        if self.phase == Phase::Drain {
            let missing = self.presence_missing();
            self.counters.presence_missing.set(missing);
        }
        self.counters.violations.set(self.checker.violations().total() + violations);
    }

    fn follow_phase(&mut self, links: &mut Links, now_ns: Nanoseconds) {
        self.follow_slow(links);
        let phase = self.control.phase();
        if phase == self.phase {
            return;
        }
        self.phase = phase;
        let is_filling = phase == Phase::Fill;
        self.connections.limit(if is_filling { u32::from(self.has_creator()) } else { self.share.count });
        match phase {
            Phase::Groups if self.large.is_some() => self.large_start(),
            Phase::Load => self.plan_load(),
            Phase::Drain if self.departures.is_some() => self.call_back(now_ns),
            Phase::Verify => self.verify = Verify::all(self.layout.conversations()),
            _ => {}
        }
    }

    fn plan_load(&mut self) {
        let start_ns = self.control.load_start_ns();
        let measured_ns = start_ns + self.plan.warmup_ns;
        self.measured = measured_ns..measured_ns + self.plan.measured_ns.min(OPEN_END_NS);
        if self.layout.layers() == 0 && self.plan.echo.is_none() {
            return;
        }
        if self.plan.echo.is_some_and(|echo| echo.in_flight.is_some()) {
            return;
        }
        let mut random = || Random::new(self.random.next_u64(), u64::from(self.share.thread));
        let segments = self.plan.segments(start_ns, self.share.load_part);
        self.arrivals = Some(Arrivals::shaped(self.plan.spread, segments, random()));
        let departures = self.plan.habits.reconnects_per_second * self.share.part;
        self.departures = (departures > 0.0)
            .then(|| Arrivals::new(self.plan.spread, departures, start_ns, self.measured.end, random()));
    }

    fn next_wake_ns(&self, now_ns: Nanoseconds) -> Nanoseconds {
        let planned_ns =
            |arrivals: &Option<Arrivals>| arrivals.as_ref().and_then(Arrivals::peek_ns).unwrap_or(Nanoseconds::MAX);
        let mut wake_ns = (now_ns + SLEEP_NS_MAX).min(self.handshakes_wake_ns(now_ns));
        if self.phase == Phase::Load {
            let reply_ns = self.replies.peek().map_or(Nanoseconds::MAX, |Reverse((due_ns, ..))| *due_ns);
            wake_ns = wake_ns.min(planned_ns(&self.arrivals)).min(planned_ns(&self.departures)).min(reply_ns);
            wake_ns = wake_ns.min(self.large_wake_ns());
        }
        if self.phase != Phase::Hold {
            wake_ns = wake_ns.min(self.connections.next_wake_ns(now_ns));
        }
        wake_ns
    }

    /// Sends the samples of a second away when it is over.
    fn second_due(&mut self, now_ns: Nanoseconds) {
        let index = now_ns.saturating_sub(self.control.load_start_ns()) / self.plan.row_ns;
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
        self.write_message(links, slot, opcode, &bytes);
    }

    /// Writes one WebSocket message.
    pub(super) fn write_message(&mut self, links: &mut Links, slot: u32, opcode: Opcode, payload: &[u8]) {
        let mask = (self.random.next_u64() as u32).to_le_bytes();
        self.append(links, slot, |out| websocket::write_frame(out, opcode, payload, mask));
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
            let send_to_ack = match &mut self.latencies.large {
                Some(large) => &mut large.send_to_ack,
                None => &mut self.latencies.send_to_ack,
            };
            if self.measured.contains(&message.intended_ns) {
                record(send_to_ack, message.intended_ns, now_ns);
            }
        }
        let presence_missing = self.presence_missing();
        let _ = self.seconds.send(self.second);
        let mut violations = self.checker.finish();
        violations.presence += presence_missing;
        if let (Some(large), Some(board)) = (&self.large, &self.control.large) {
            violations.add(&large.finish(board.last()));
        }
        self.echo.iter().for_each(|echo| violations.add(&echo.finish()));
        let tls = self.secure.as_mut().map(Secure::take_outcome).unwrap_or_default();
        WorkerResult { latencies: self.latencies, violations, errors: self.errors, tls }
    }
}
