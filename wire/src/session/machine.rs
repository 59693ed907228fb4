//! The session itself: its inputs, its phases and its timers. What each frame does stands in [`super::receive`].
//!
//! Invariants: the phase changes only along [`Phase::CHANGES`]; every wait has an end that `next_wake_ms` tells; whatever an idle
//! session does not need is not allocated. Must not do: transmit outside of a connection that is greeting, resuming or open.

use std::{collections::BTreeSet, collections::VecDeque, sync::Arc};

use super::{
    Event, Output, PendingSend, Phase, RequestError, SessionConfig, SessionError, StopReason,
    backoff::{Backoff, Hint},
    outbox::Outbox,
    reorder::Reorder,
    resume::Progress,
    views::Views,
};
use crate::{
    frame::{Connect, Content, Delivered, History, Known, Ping, PositionBytes, Request, Resume, Send, View},
    ids::{ClientMessageId, ConversationId, DeviceId, Epoch, RequestId, Sequence, UserId},
    limits::HEARTBEAT_INTERVAL_MS,
    validate,
};

/// Shortest heartbeat that a server can ask for: it can't make a client spin.
const HEARTBEAT_INTERVAL_MS_MIN: u32 = 1_000;

/// Most delivered pointers that move at once; the rest follow after the same delay, so that a resume over many
/// conversations does not run into the server's rate limit.
const DELIVERED_AT_ONCE_MAX: usize = 16;

/// A client's session over any number of connections. The module's head has the contract of calls.
#[derive(Debug)]
pub struct Session {
    pub(super) config: Arc<SessionConfig>,
    pub(super) identity: Box<Identity>,
    pub(super) progress: Progress,
    pub(super) work: Option<Box<Work>>,
    pub(super) views: Option<Box<Views>>,
    outputs: VecDeque<Output>,
    backoff: Backoff,
    /// What the server said about coming back after this connection.
    pub(super) hint: Hint,
    /// The close code that `goodbye` told, or 0.
    pub(super) goodbye: u16,
    pub(super) phase: Phase,
    next_request: u32,
    heartbeat_interval_ms: u32,
    /// Waiting: when to connect. Connecting and greeting: when to give up. Resuming and open: since when.
    pub(super) clock_ms: u64,
    sent_ms: u64,
    pub(super) pinged_ms: u64,
    heard_ms: u64,
}

/// Who the session is; boxed, because it is looked at once a connection.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) token: Option<String>,
    pub(super) device: Option<DeviceId>,
    /// As the last `welcome` said.
    pub(super) user: Option<UserId>,
}

/// What is under way; an idle session has none of it.
#[derive(Debug, Default)]
pub(super) struct Work {
    pending: Vec<(RequestId, Pending)>,
    pub(super) outbox: Outbox,
    pub(super) reorder: Reorder,
    /// Conversations whose delivered pointer is to be moved, and when.
    delivered: BTreeSet<ConversationId>,
    delivered_at_ms: u64,
}

/// What a request was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pending {
    Connect,
    Ping,
    Send,
    History(ConversationId),
    View(ConversationId),
    Application,
}

impl Session {
    /// A session that has not started. `seed` is for the jitter of its waits: give every session another one.
    #[must_use]
    pub fn new(config: Arc<SessionConfig>, token: Option<String>, device: Option<DeviceId>, seed: u64) -> Self {
        Self {
            config,
            identity: Box::new(Identity { token, device, user: None }),
            progress: Progress::default(),
            work: None,
            views: None,
            outputs: VecDeque::new(),
            backoff: Backoff::new(seed),
            hint: Hint::None,
            goodbye: 0,
            phase: Phase::Idle,
            next_request: 0,
            heartbeat_interval_ms: HEARTBEAT_INTERVAL_MS,
            clock_ms: 0,
            sent_ms: 0,
            pinged_ms: 0,
            heard_ms: 0,
        }
    }

    /// Takes up what an application stored: a position, and what it has of each conversation. Before `start`.
    pub fn restore(&mut self, position: PositionBytes, conversations: impl IntoIterator<Item = Known>) {
        self.progress.adopt(position);
        for known in conversations {
            self.progress.set(known.conversation, known.epoch, known.sequence);
        }
    }

    /// Makes the first attempt, or one after `Stopped`.
    pub fn start(&mut self, now_ms: u64) {
        if matches!(self.phase, Phase::Idle | Phase::Stopped) {
            self.connect(now_ms);
        }
    }

    /// Ends the session; sends that wait are kept for another `start`.
    pub fn stop(&mut self) {
        if self.phase == Phase::Stopped {
            return;
        }
        if self.has_transport() {
            self.output(Output::Close);
        }
        self.halt(StopReason::Application);
    }

    /// The token of the next connection.
    pub fn set_token(&mut self, token: String) {
        self.identity.token = Some(token);
    }

    /// The transport is open.
    pub fn connected(&mut self, now_ms: u64) {
        if self.phase != Phase::Connecting {
            return;
        }
        self.enter(Phase::Greeting, now_ms + u64::from(self.config.connect_timeout_ms));
        self.heard_ms = now_ms;
        let connect = Connect {
            token: self.identity.token.clone(),
            device: self.identity.device.clone(),
            resume: self.progress.resume(),
            client: self.config.client.clone(),
        };
        self.ask(now_ms, Pending::Connect, &Request::Connect(connect));
    }

    /// A message came.
    pub fn frame(&mut self, now_ms: u64, bytes: &[u8]) {
        if matches!(self.phase, Phase::Greeting | Phase::Resuming | Phase::Open) {
            self.heard_ms = now_ms;
            self.receive(now_ms, bytes);
            self.run(now_ms);
        }
    }

    /// The transport is gone, or could not be opened. `close` is the code of its close frame, if one came: one of
    /// [`CloseCode`](crate::codes::CloseCode) or of a later version, which counts by its range.
    pub fn disconnected(&mut self, now_ms: u64, close: Option<u16>) {
        if self.has_transport() {
            self.lost(now_ms, close);
        }
    }

    /// The server named a time while it refused the transport; call it before [`Session::disconnected`].
    pub fn retry_after(&mut self, after_ms: u32) {
        if self.has_transport() {
            self.hint = Hint::Spread(after_ms);
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, now_ms: u64) {
        let late = now_ms >= self.clock_ms;
        match self.phase {
            Phase::Waiting if late => self.connect(now_ms),
            Phase::Connecting | Phase::Greeting if late => self.abandon(now_ms),
            Phase::Resuming | Phase::Open if now_ms >= self.silent_ms() => self.abandon(now_ms),
            Phase::Resuming | Phase::Open if now_ms >= self.ping_ms() => {
                self.pinged_ms = now_ms;
                self.ask(now_ms, Pending::Ping, &Request::Ping(Ping {}));
            }
            _ => {}
        }
        self.run(now_ms);
    }

    /// When `tick` is wanted at the latest, if at all.
    #[must_use]
    pub fn next_wake_ms(&self) -> Option<u64> {
        match self.phase {
            Phase::Idle | Phase::Stopped => return None,
            Phase::Waiting | Phase::Connecting | Phase::Greeting => return Some(self.clock_ms),
            Phase::Resuming | Phase::Open => {}
        }
        let beat = self.silent_ms().min(self.ping_ms());
        let views = self.views.as_ref().and_then(|views| views.next_due_ms());
        let beat = views.map_or(beat, |at_ms| beat.min(at_ms));
        let Some(work) = &self.work else { return Some(beat) };
        let sends = work.outbox.next_due_ms(self.config.sends_in_flight_max);
        let pages = work.reorder.next_due_ms(self.config.history_in_flight_max);
        let delivered = (!work.delivered.is_empty()).then_some(work.delivered_at_ms);
        [Some(beat), sends, pages, delivered].into_iter().flatten().min()
    }

    /// What is to be done, in order, until `None`. An empty queue holds no memory.
    pub fn poll_output(&mut self) -> Option<Output> {
        let output = self.outputs.pop_front();
        if output.is_none() {
            self.outputs = VecDeque::new();
        }
        output
    }

    /// Sends a message, now or as soon as there is a connection, and again until it is acknowledged or refused.
    pub fn send(
        &mut self,
        now_ms: u64,
        conversation: ConversationId,
        content: Content,
        client_message_id: ClientMessageId,
    ) -> Result<(), SessionError> {
        content.view()?;
        let (items_max, bytes_max) = (self.config.outbox_items_max, self.config.outbox_bytes_max);
        let outbox = &mut self.work().outbox;
        if outbox.contains(client_message_id) {
            return Err(SessionError::AlreadyQueued);
        }
        if !outbox.has_room(&content, items_max, bytes_max) {
            return Err(SessionError::OutboxFull(items_max));
        }
        outbox.push(Send { conversation, client_message_id, content });
        self.run(now_ms);
        Ok(())
    }

    /// Asks anything but what the session asks itself. The answer comes as [`Event::Answer`] with the id that this returns.
    pub fn request(&mut self, now_ms: u64, mut request: Request) -> Result<RequestId, SessionError> {
        if matches!(request, Request::Connect(_) | Request::Ping(_) | Request::Send(_)) {
            return Err(SessionError::NotForApplication);
        }
        if !self.is_live() {
            return Err(SessionError::NotConnected);
        }
        validate::request(&mut request).map_err(|problem| SessionError::Invalid(problem.of(None)))?;
        if let Request::Refresh(refresh) = &request {
            self.set_token(refresh.token.clone());
        }
        let requests_max = self.config.requests_in_flight_max;
        let own = |(_, pending): &&(RequestId, Pending)| *pending == Pending::Application;
        if self.work().pending.iter().filter(own).count() >= requests_max {
            return Err(SessionError::TooManyRequests(requests_max));
        }
        Ok(self.ask(now_ms, Pending::Application, &request))
    }

    /// The application has everything of a conversation up to `base`: what comes first is the entry after it. No change if
    /// the session follows that log already.
    pub fn open(&mut self, conversation: ConversationId, epoch: Epoch, base: Sequence) {
        if self.progress.get(conversation).is_none_or(|(known, _)| known != epoch) {
            self.forget(conversation);
            self.progress.set(conversation, epoch, base);
        }
    }

    /// The application shows a conversation from now on, over any number of connections, or does not any more. Of a large one the entries
    /// come only while it is shown; those from before come first.
    pub fn view(&mut self, now_ms: u64, conversation: ConversationId, open: bool) {
        if open {
            self.views.get_or_insert_default().open(conversation, now_ms);
        } else if self.views.as_mut().is_some_and(|views| views.close(conversation)) && self.is_live() {
            // Without an id: nobody waits for the answer.
            let request = Request::View(View { conversation, open });
            self.transmit(now_ms, self.config.encoding.encode_request(None, &request));
        }
        self.run(now_ms);
    }

    /// Forgets what is known of a conversation; it begins anew with the next entry that comes.
    pub fn forget(&mut self, conversation: ConversationId) {
        self.progress.remove(conversation);
        if let Some(work) = &mut self.work {
            work.reorder.remove(conversation);
            work.delivered.remove(&conversation);
        }
        if let Some(views) = &mut self.views {
            views.forget(conversation);
        }
    }

    /// Where the session stands.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The user that the server knows this session as.
    #[must_use]
    pub fn user(&self) -> Option<&UserId> {
        self.identity.user.as_ref()
    }

    /// What `connect` would say now: everything that it stands for was delivered as an event.
    #[must_use]
    pub fn position(&self) -> Option<Resume> {
        self.progress.resume()
    }

    /// The position of [`Session::position`] by itself: another one, whenever it has moved.
    #[must_use]
    pub fn position_bytes(&self) -> Option<&[u8]> {
        self.progress.position_bytes()
    }

    /// What was delivered of each conversation, for [`Session::restore`].
    pub fn conversations(&self) -> impl Iterator<Item = Known> {
        self.progress.all()
    }

    /// Sends that wait for their acknowledgement, in order.
    pub fn pending_sends(&self) -> impl Iterator<Item = PendingSend<'_>> {
        self.work.iter().flat_map(|work| work.outbox.pending())
    }

    #[cfg(test)]
    pub(super) fn last_request(&self) -> u32 {
        self.next_request
    }

    pub(super) fn work(&mut self) -> &mut Work {
        self.work.get_or_insert_default()
    }

    pub(super) fn output(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    pub(super) fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Deliver(event));
    }

    pub(super) fn enter(&mut self, phase: Phase, clock_ms: u64) {
        assert!(Phase::CHANGES.contains(&(self.phase, phase)), "from {:?} to {phase:?}", self.phase);
        (self.phase, self.clock_ms) = (phase, clock_ms);
    }

    /// Sends a request of which an answer is awaited.
    pub(super) fn ask(&mut self, now_ms: u64, pending: Pending, request: &Request) -> RequestId {
        let id = take_id(&mut self.next_request);
        self.work().pending.push((id, pending));
        self.transmit(now_ms, self.config.encoding.encode_request(Some(id), request));
        id
    }

    pub(super) fn take_pending(&mut self, id: RequestId) -> Option<Pending> {
        let pending = &mut self.work.as_mut()?.pending;
        let index = pending.iter().position(|(other, _)| *other == id)?;
        Some(pending.swap_remove(index).1)
    }

    /// The delivered pointer of a conversation is to be moved.
    pub(super) fn note_delivered(&mut self, now_ms: u64, conversation: ConversationId) {
        let Some(after_ms) = self.config.delivered_after_ms else { return };
        let work = self.work();
        if work.delivered.is_empty() {
            work.delivered_at_ms = now_ms + u64::from(after_ms);
        }
        work.delivered.insert(conversation);
    }

    /// Closes the transport and comes back later.
    pub(super) fn abandon(&mut self, now_ms: u64) {
        self.output(Output::Close);
        self.lost(now_ms, None);
    }

    /// Ends the session for good.
    pub(super) fn halt(&mut self, reason: StopReason) {
        self.drop_connection();
        self.enter(Phase::Stopped, 0);
        self.event(Event::Stopped(reason));
        self.trim();
    }

    pub(super) fn set_heartbeat(&mut self, interval_ms: u32) {
        self.heartbeat_interval_ms = interval_ms.max(HEARTBEAT_INTERVAL_MS_MIN);
    }

    pub(super) fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Resuming | Phase::Open)
    }

    fn has_transport(&self) -> bool {
        matches!(self.phase, Phase::Connecting | Phase::Greeting | Phase::Resuming | Phase::Open)
    }

    fn connect(&mut self, now_ms: u64) {
        self.enter(Phase::Connecting, now_ms + u64::from(self.config.connect_timeout_ms));
        self.output(Output::Connect);
    }

    /// The transport is gone: decides when to come back, if at all.
    fn lost(&mut self, now_ms: u64, close: Option<u16>) {
        let is_final = |code: &u16| (4500..5000).contains(code);
        if let Some(code) = [self.goodbye, close.unwrap_or(0)].into_iter().find(is_final) {
            return self.halt(StopReason::Closed(code));
        }
        if self.is_live() && now_ms >= self.clock_ms + u64::from(self.config.stable_after_ms) {
            self.backoff.reset();
        }
        let (base_ms, cap_ms) = (self.config.backoff_base_ms, self.config.backoff_cap_ms);
        let retry_at_ms = now_ms + self.backoff.next_wait_ms(base_ms, cap_ms, self.hint);
        self.drop_connection();
        self.enter(Phase::Waiting, retry_at_ms);
        self.event(Event::Disconnected { retry_at_ms });
        self.trim();
    }

    /// Nothing that belongs to the connection outlives it.
    fn drop_connection(&mut self) {
        (self.hint, self.goodbye) = (Hint::None, 0);
        self.outputs.retain(|output| !matches!(output, Output::Transmit(_)));
        let Some(work) = &mut self.work else { return };
        work.outbox.disconnected();
        // The position did not move while a gap was open, so the resume brings what waited there.
        work.reorder = Reorder::default();
        for (id, pending) in std::mem::take(&mut work.pending) {
            if pending == Pending::Application {
                self.outputs.push_back(Output::Deliver(Event::Answer { id, answer: Err(RequestError::Disconnected) }));
            }
        }
    }

    fn silent_ms(&self) -> u64 {
        self.heard_ms + 2 * u64::from(self.heartbeat_interval_ms)
    }

    /// A ping is due when nothing was sent or heard for an interval, and when a new position is wanted.
    fn ping_ms(&self) -> u64 {
        let quiet = self.sent_ms.min(self.heard_ms.max(self.pinged_ms));
        let since = if self.progress.is_touched() { self.pinged_ms } else { quiet };
        since + u64::from(self.heartbeat_interval_ms)
    }

    fn transmit(&mut self, now_ms: u64, bytes: Vec<u8>) {
        self.sent_ms = now_ms;
        self.output(Output::Transmit(bytes));
    }

    /// Sends all that may go now.
    fn run(&mut self, now_ms: u64) {
        if self.is_live() && self.views.is_some() {
            self.tell_views(now_ms);
        }
        if self.is_live() && self.work.is_some() {
            self.send_waiting(now_ms);
            self.fetch_due(now_ms);
            self.move_delivered(now_ms);
        }
        self.trim();
    }

    fn tell_views(&mut self, now_ms: u64) {
        while let Some(conversation) = self.views.as_mut().and_then(|views| views.take_due(now_ms)) {
            let view = View { conversation, open: true };
            self.ask(now_ms, Pending::View(conversation), &Request::View(view));
        }
    }

    fn send_waiting(&mut self, now_ms: u64) {
        let (in_flight_max, encoding) = (self.config.sends_in_flight_max, self.config.encoding);
        let Some(work) = &mut self.work else { return };
        while let Some((id, send)) = work.outbox.next_to_send(now_ms, in_flight_max, || take_id(&mut self.next_request))
        {
            work.pending.push((id, Pending::Send));
            self.sent_ms = now_ms;
            self.outputs.push_back(Output::Transmit(encoding.encode_send(Some(id), send)));
        }
    }

    fn fetch_due(&mut self, now_ms: u64) {
        let (in_flight_max, limit) = (self.config.history_in_flight_max, Some(self.config.history_page_items));
        while let Some(conversation) = self.work.as_mut().and_then(|work| work.reorder.take_due(now_ms, in_flight_max))
        {
            let (_, after) = self.progress.get(conversation).expect("a gap is of a conversation that is followed");
            let history = History { conversation, before: None, after: Some(after), around: None, limit };
            self.ask(now_ms, Pending::History(conversation), &Request::History(history));
        }
    }

    fn move_delivered(&mut self, now_ms: u64) {
        let Some(work) = &mut self.work else { return };
        if work.delivered.is_empty() || now_ms < work.delivered_at_ms {
            return;
        }
        work.delivered_at_ms = now_ms + u64::from(self.config.delivered_after_ms.unwrap_or(0));
        for _ in 0..DELIVERED_AT_ONCE_MAX {
            let Some(conversation) = self.work().delivered.pop_first() else { break };
            let Some((_, sequence)) = self.progress.get(conversation) else { continue };
            // Without an id: nobody waits for the answer.
            let request = Request::Delivered(Delivered { conversation, sequence });
            self.transmit(now_ms, self.config.encoding.encode_request(None, &request));
        }
    }

    fn trim(&mut self) {
        self.work.take_if(|work| {
            let sends = work.pending.is_empty() && work.outbox.is_empty() && work.delivered.is_empty();
            sends && work.reorder.is_idle()
        });
        self.views.take_if(|views| views.is_empty());
    }
}

fn take_id(next: &mut u32) -> RequestId {
    *next = next.checked_add(1).unwrap_or(1);
    RequestId(*next)
}
