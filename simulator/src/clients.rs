//! Clients: the session machine of `wire`, and an application on top that keeps what it was given and holds it to the promises.
//!
//! What an application may rely on is checked here, event by event: each entry of a conversation once and in order, a send answered once,
//! pointers that only move forward. What needs more than one client's view goes to the [`Model`].

use std::{collections::BTreeMap, sync::Arc};

use antiphon_wire::{
    codec::Encoding,
    codes::{CloseCode, ErrorCode},
    frame::{Change, Content, Known, MessageState, PositionBytes, Receipt, ServerFrame, UserPresence},
    ids::{ClientMessageId, ConversationId, DeviceId, Epoch, RequestId, Sequence, UserId},
    session::{Event, RequestError, Session, SessionConfig, StopReason},
};

use crate::{
    answers::{self, Asked},
    changes,
    coverage::{Count, Coverage},
    dice::Dice,
    logins::{ISSUED_FIRST_MS, token},
    model::{Certainty, Model},
    network::{LinkId, Transport},
    plan::ClientPlan,
    rights::Moment,
};

/// A client over all its restarts.
pub struct Client {
    /// What it is.
    pub plan: ClientPlan,
    /// Its user.
    pub user: UserId,
    /// Its device.
    pub device: DeviceId,
    /// Which of all it is.
    index: usize,
    /// Its token.
    pub token: String,
    /// Its device was logged out, and it has not another token yet.
    pub is_logged_out: bool,
    config: Arc<SessionConfig>,
    /// The session of the running process.
    pub session: Session,
    /// The process runs.
    pub running: bool,
    /// It should be connected; not while another connection of its device has replaced it.
    pub wanted: bool,
    /// Its connection.
    pub link: Option<LinkId>,
    /// Its end of it.
    pub transport: Option<Transport>,
    /// When the world looks at it next.
    pub due_us: u64,
    /// The oracle's time at which its connection was asked for: whatever comes by that was asked for later.
    pub connected_at: u64,
    /// What it holds.
    pub app: App,
    /// An older state on its disk.
    pub saved: Option<Saved>,
    dice: Dice,
}

/// What an application holds. All of it is on the client's own disk, written as it happens.
#[derive(Debug, Clone, Default)]
pub struct App {
    /// Conversations that it follows.
    pub views: BTreeMap<ConversationId, View>,
    /// Sends that wait for their answer, in order.
    pub outbox: Vec<Sent>,
    /// Sends that were answered, to be tried again.
    pub sent: Vec<Sent>,
    /// Conversations are to be listed, from there on.
    pub listing: Option<Option<ConversationId>>,
    /// The listing is on its way. Of the process, not of its disk.
    pub listing_under_way: bool,
    /// It was refused for now. Of the process, too.
    pub listing_refused: bool,
    /// It is asked for again then.
    pub listing_from_us: u64,
    /// Requests on their way. Of the process, not of its disk.
    pub asked: BTreeMap<RequestId, Asked>,
    /// Up to where a conversation is known to go on.
    pub ends: BTreeMap<ConversationId, u64>,
    /// Who is there, as the connection that stands has told.
    pub presence: BTreeMap<UserId, bool>,
    /// The highest pointers seen.
    receipts: BTreeMap<(ConversationId, UserId), (u64, u64)>,
    /// What was told of messages last.
    pub told: BTreeMap<(ConversationId, u64), MessageState>,
    /// Changes of messages that were asked for, to be tried again.
    pub changes: Vec<(ConversationId, ClientMessageId, Change)>,
    /// Read by the last reading.
    pub audit: Vec<(Asked, Result<ServerFrame, ErrorCode>)>,
}

/// One conversation as an application has it.
#[derive(Debug, Clone, Copy)]
pub struct View {
    /// The log's incarnation.
    pub epoch: Epoch,
    /// Everything up to here was given or skipped.
    pub last: u64,
    /// The user is a member, as far as the application knows.
    pub open: bool,
}

/// A send.
#[derive(Debug, Clone)]
pub struct Sent {
    /// Where to.
    pub conversation: ConversationId,
    /// Its name.
    pub name: ClientMessageId,
    /// What.
    pub content: Content,
    /// What was known of the sender's membership when it was sent.
    pub certainty: Certainty,
    /// How much was known of what its user may do.
    pub moment: Moment,
    /// How many entries of the conversation were durable.
    pub durable: u64,
}

/// A client's state at some moment.
#[derive(Debug, Clone)]
pub struct Saved {
    app: App,
    position: Option<PositionBytes>,
    known: Vec<Known>,
}

/// What an application's events are held against.
pub struct Judge<'a> {
    /// The oracle.
    pub model: &'a mut Model,
    /// What is counted.
    pub coverage: &'a mut Coverage,
}

impl App {
    /// Users are there, or are not.
    pub fn told_of(&mut self, users: &[UserPresence]) {
        self.presence.extend(users.iter().map(|seen| (seen.user.clone(), seen.online)));
    }
}

impl Client {
    /// A client that has not started.
    #[must_use]
    pub fn new(plan: ClientPlan, index: usize, seed: u64) -> Self {
        let encoding = if plan.json { Encoding::Json } else { Encoding::Rkyv };
        let mut config = SessionConfig::new(encoding);
        config.delivered_after_ms = plan.delivers.then_some(50);
        config.history_page_items = if plan.user == 0 { 7 } else { config.history_page_items };
        config.backoff_cap_ms = 5_000;
        config.lazy = Dice::new(seed, &format!("lazy {index}")).chance(500);
        let user = user(plan.user);
        let device = DeviceId::new(&format!("d{}", plan.device)).expect("a device id");
        let dice = Dice::new(seed, &format!("client {index}"));
        let config = Arc::new(config);
        let token = token(&user, ISSUED_FIRST_MS);
        let session = session(&config, &token, &device, dice.number());
        Self {
            plan,
            user,
            device,
            index,
            token,
            is_logged_out: false,
            config,
            session,
            running: true,
            wanted: true,
            link: None,
            transport: None,
            due_us: u64::MAX,
            connected_at: 0,
            app: App { listing: Some(None), ..App::default() },
            saved: None,
            dice,
        }
    }

    /// Its encoding.
    #[must_use]
    pub fn encoding(&self) -> Encoding {
        self.config.encoding
    }

    /// Entries of large conversations that it does not look at stay with the server.
    #[must_use]
    pub fn is_lazy(&self) -> bool {
        self.config.lazy
    }

    /// What is on its disk now.
    #[must_use]
    pub fn state(&self) -> Saved {
        let mut app = self.app.clone();
        app.asked.clear();
        app.presence.clear();
        app.listing_under_way = false;
        Saved {
            app,
            position: self.session.position().map(|resume| resume.position),
            known: self.session.conversations().collect(),
        }
    }

    /// The process ends and another one starts from a state, or from nothing.
    pub fn restart(&mut self, now_ms: u64, from: Option<Saved>) {
        self.session = session(&self.config, &self.token, &self.device, self.dice.number());
        (self.link, self.transport) = (None, None);
        match from {
            None => {
                let sent = std::mem::take(&mut self.app.sent);
                self.app = App { listing: Some(None), sent, ..App::default() };
                self.saved = None;
            }
            Some(saved) => {
                // What was answered since is only for trying it again.
                let sent = std::mem::take(&mut self.app.sent);
                self.app = App { sent, ..saved.app };
                match saved.position {
                    Some(position) => self.session.restore(position, saved.known),
                    None => saved.known.iter().for_each(|known| {
                        self.session.open(known.conversation, known.epoch, known.sequence);
                    }),
                }
                for sent in &self.app.outbox {
                    let put = self.session.send(now_ms, sent.conversation, sent.content.clone(), sent.name);
                    put.expect("what waited before fits again");
                }
            }
        }
    }

    /// Keeps an older state for a later restart.
    pub fn save(&mut self) {
        self.saved = Some(self.state());
    }

    /// Nothing is on its way or waits.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.app.outbox.is_empty() && self.app.asked.is_empty() && self.app.listing.is_none()
    }

    /// The application learns something.
    pub fn event(&mut self, event: Event, judge: &mut Judge<'_>) {
        let user = self.user.clone();
        match event {
            Event::Connected(welcome) => {
                use antiphon_wire::frame::ResumeOutcome;
                judge.model.check(welcome.user == user, || format!("{user} was welcomed as {}", welcome.user));
                judge.model.let_in(self.index, self.connected_at);
                let resumed = welcome.resume == ResumeOutcome::Resuming;
                judge.coverage.one(if resumed { Count::Resumed } else { Count::Fresh });
                judge.coverage.add(Count::ResumedMeanwhile, u64::from(resumed && judge.model.fault_lasts));
            }
            Event::CaughtUp => {}
            Event::Disconnected { .. } => self.app.presence.clear(),
            Event::Expiring(_) => judge.model.fail(|| format!("{user} hears of a token's end, and none ends here")),
            Event::Stopped(reason) => {
                self.app.presence.clear();
                self.stopped(&reason, judge);
            }
            Event::Entry { conversation, sequence, entry } => {
                judge.model.judged_at = self.connected_at;
                self.entry(conversation, sequence, &entry.0, judge);
                judge.model.judged_at = 0;
            }
            Event::Acked { client_message_id, conversation, ack } => {
                judge.coverage.one(Count::Acks);
                judge.coverage.add(Count::AcksMeanwhile, u64::from(judge.model.fault_lasts));
                judge.coverage.add(Count::Duplicates, u64::from(ack.duplicate));
                if let Some(sent) = self.answered(conversation, client_message_id, judge) {
                    judge.model.acked(&user, conversation, client_message_id, &sent.content, &ack);
                }
            }
            Event::SendFailed { client_message_id, conversation, error } => {
                if let Some(sent) = self.answered(conversation, client_message_id, judge) {
                    judge.model.send_failed(&user, &sent, error.code, judge.coverage);
                }
            }
            Event::Answer { id, answer } => self.answer(id, answer, judge),
            Event::Receipt(receipt) => {
                judge.model.check_not_erased(&user, receipt.conversation, "a receipt");
                self.receipt(&receipt, judge);
            }
            Event::Happened(event) => {
                judge.coverage.one(Count::EventsHeard);
                judge.model.heard(&user, &event);
            }
            Event::Present(present) => {
                judge.coverage.one(Count::PresencePushed);
                judge.model.seen(&user, &present.users, self.connected_at, judge.coverage);
                self.app.told_of(&present.users);
            }
            Event::States(states) => {
                judge.coverage.one(Count::States);
                judge.model.check_not_erased(&user, states.conversation, "states");
                judge.model.judged_at = self.connected_at;
                judge.model.states(&user, &states);
                judge.model.judged_at = 0;
                changes::tell(&mut self.app.told, states);
            }
            Event::Advanced(advanced) => {
                judge.model.hinted(&user, &advanced, judge.coverage);
                let end = self.app.ends.entry(advanced.conversation).or_default();
                *end = advanced.sequence.0.max(*end);
            }
            Event::Mentioned { entry, .. } => {
                judge.model.judged_at = self.connected_at;
                judge.model.mentioned(&user, &entry, judge.coverage);
                judge.model.judged_at = 0;
            }
            Event::Left(left) => {
                judge.coverage.one(Count::Left);
                if let Some(view) = self.app.views.get_mut(&left.conversation) {
                    view.open = false;
                    view.last = view.last.max(left.sequence.0);
                }
            }
            Event::Skipped { conversation, from, to } => self.skipped(conversation, from.0, to.0, judge),
            Event::ConversationReset { conversation, epoch } => {
                judge.model.check(judge.model.rot, || format!("{conversation} was reset to {epoch:?} for {user}"));
                self.app.views.remove(&conversation);
            }
            Event::Reset => {
                let allowed = judge.model.rot || judge.model.relaned;
                judge.model.check(allowed, || format!("{user} was told to forget everything"));
                self.app.views.clear();
                self.app.listing = Some(None);
            }
            Event::Trouble(error) => {
                // What was asked without an id and refused is told so, too: a pointer of a conversation just left.
                let allowed = error.code.temporary() || error.code == ErrorCode::NotFound || judge.model.rot;
                judge.model.check(allowed, || format!("{user} has trouble: {error:?}"));
            }
            Event::Undecodable(error) => judge.model.fail(|| format!("{user} can't read a frame: {error}")),
        }
    }

    fn stopped(&mut self, reason: &StopReason, judge: &mut Judge<'_>) {
        match reason {
            StopReason::Application => {}
            StopReason::Refused(error) if error.code == ErrorCode::Revoked => {
                judge.coverage.one(Count::LoginsRefused);
                judge.model.may_be_refused(self.index);
                self.is_logged_out = true;
            }
            StopReason::Closed(code) if *code == CloseCode::Revoked.number() => {
                judge.coverage.one(Count::SessionsRevoked);
                judge.model.may_be_refused(self.index);
                self.is_logged_out = true;
            }
            StopReason::Closed(code) if *code == CloseCode::Replaced.number() => {
                judge.coverage.one(Count::Replaced);
                self.wanted = false;
            }
            other => {
                let user = &self.user;
                judge.model.fail(|| format!("{user} was stopped: {other:?}"));
            }
        }
    }

    fn entry(&mut self, conversation: ConversationId, sequence: Sequence, bytes: &[u8], judge: &mut Judge<'_>) {
        let user = &self.user;
        judge.coverage.one(Count::Entries);
        let Some((id, place)) = judge.model.entry(user, bytes) else { return };
        let named = (id, place) == (conversation, sequence.0);
        judge.model.check(named, || format!("{user} was given {id} #{place} as {conversation} #{sequence}"));
        judge.model.pushes.insert((id, user.clone(), place));
        let epoch = judge.model.conversations[&id].epoch.map_or(Epoch(0), Epoch);
        match self.app.views.get_mut(&id) {
            Some(view) => {
                let (last, open) = (view.last, view.open);
                // After leaving the next one is that of coming back, wherever it stands.
                let fits = if open { place == last + 1 } else { place > last };
                let state = if open { "" } else { ", which it had left" };
                judge.model.check(fits, || format!("{user} was given {id} #{place} after #{last}{state}"));
                (view.last, view.open) = (place, true);
            }
            None => {
                self.app.views.insert(id, View { epoch, last: place, open: true });
            }
        }
    }

    fn skipped(&mut self, conversation: ConversationId, from: u64, to: u64, judge: &mut Judge<'_>) {
        let user = &self.user;
        judge.coverage.add(Count::Skipped, to + 1 - from);
        judge.model.skips.insert((conversation, user.clone(), from, to));
        if let Some(view) = self.app.views.get_mut(&conversation) {
            let last = view.last;
            judge.model.check(from == last + 1, || format!("{user} skips {conversation} #{from} after #{last}"));
            view.last = to;
        }
    }

    /// Takes a send out of the outbox: it was answered, and that only once.
    fn answered(&mut self, conversation: ConversationId, name: ClientMessageId, judge: &mut Judge<'_>) -> Option<Sent> {
        let same = |sent: &Sent| sent.name == name && sent.conversation == conversation;
        let Some(index) = self.app.outbox.iter().position(same) else {
            let user = &self.user;
            judge.model.fail(|| format!("{name} of {user} was answered, but does not wait"));
            return None;
        };
        let sent = self.app.outbox.remove(index);
        self.app.sent.push(sent.clone());
        Some(sent)
    }

    fn answer(&mut self, id: RequestId, answer: Result<Box<ServerFrame>, RequestError>, judge: &mut Judge<'_>) {
        let Some(asked) = self.app.asked.remove(&id) else {
            let user = &self.user;
            return judge.model.fail(|| format!("{user} has an answer to {id}, which it did not ask"));
        };
        let answer = match answer {
            Ok(frame) => Ok(*frame),
            Err(RequestError::Refused(error)) => Err(Some(error.code)),
            Err(RequestError::Disconnected) => Err(None),
        };
        answers::judge(self, asked, answer, judge);
    }

    fn receipt(&mut self, receipt: &Receipt, judge: &mut Judge<'_>) {
        judge.coverage.one(Count::Receipts);
        judge.model.told_receipt(&self.user, &receipt.user, self.connected_at, judge.coverage);
        let (read, delivered) = (receipt.read.0, receipt.delivered.0);
        let (id, of) = (receipt.conversation, receipt.user.clone());
        judge.model.check(read <= delivered, || format!("{id}: {of} has read #{read} but was delivered #{delivered}"));
        let before = self.app.receipts.entry((id, of.clone())).or_default();
        // A mark that was destroyed takes nothing from anybody: a resume tells the pointer of before.
        if (read < before.0 || delivered < before.1) && !judge.model.rot {
            judge.model.receipts_back.insert((id, of));
        }
        *before = (before.0.max(read), before.1.max(delivered));
    }
}

fn session(config: &Arc<SessionConfig>, token: &str, device: &DeviceId, seed: u64) -> Session {
    Session::new(Arc::clone(config), Some(token.to_owned()), Some(device.clone()), seed)
}

/// The user of a number.
#[must_use]
pub fn user(index: usize) -> UserId {
    UserId::new(&format!("u{index}")).expect("a user id")
}
