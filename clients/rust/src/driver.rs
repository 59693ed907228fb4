//! The task that a client is: it owns the session, its transport and its clock, and moves what each of them says to the others.

use std::{
    collections::{HashMap, VecDeque},
    future::{Future, pending},
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use antiphon_wire::{
    codes::ErrorCode,
    frame::{Ack, Content, EntryBytes, ErrorFrame, Expiring, Known, PositionBytes, Refresh, Request, Welcome},
    ids::{ClientMessageId, ConversationId, RequestId, UserId},
    session::{self, Output, Session, SessionConfig, StopReason},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use crate::{
    asking::{self, Asking},
    changes::{self, Changes},
    entry::Entry,
    error::Error,
    event::{Event, Stopped},
    options::{TokenError, TokenFuture, Tokens},
    progress::Progress,
    transport::{DialError, Dialler, Incoming, Transport},
};

/// Nothing is due: look again after so long, which is as good as any time.
const IDLE_MS: u64 = 3_600_000;

/// What a [`Client`](crate::Client) asks of its driver.
pub(crate) enum Command {
    Send { conversation: ConversationId, name: ClientMessageId, content: Content, answer: changes::Answer },
    Change { request: Request, answer: changes::Answer },
    Ask { request: Request, answer: asking::Answer },
    Follow(Known),
    View(ConversationId, bool),
    Forget(ConversationId),
    Resume,
    Stop,
}

/// What the handles of a client look at without asking.
#[derive(Default)]
pub(crate) struct Shared {
    /// The server's clock less this machine's.
    clock_offset_ms: AtomicI64,
    pub(crate) user: OnceLock<UserId>,
}

impl Shared {
    /// The time by the server's clock, as far as it is known.
    pub(crate) fn server_time_ms(&self) -> u64 {
        system_time_ms().saturating_add_signed(self.clock_offset_ms.load(Ordering::Relaxed))
    }
}

pub(crate) struct Driver {
    session: Session,
    dialler: Arc<Dialler>,
    tokens: Tokens,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<Event>,
    shared: Arc<Shared>,
    began: Instant,
    link: Link,
    /// Another token for the session that lives.
    renewal: Option<TokenFuture>,
    /// The last token was refused: the next attempt has another one, and is the last.
    is_token_refused: bool,
    /// Why there is no token, if that ended the session.
    no_token: Option<String>,
    sends: HashMap<ClientMessageId, changes::Answer>,
    changes: Changes,
    asking: Asking,
    waiting: VecDeque<Event>,
    waiting_max: usize,
    position: Option<Box<[u8]>>,
}

/// The connection, as far as it has come.
enum Link {
    None,
    Dialling(Pin<Box<dyn Future<Output = Dialled> + Send>>),
    Open(Transport),
}

enum Dialled {
    Open(String, Transport),
    Failed(DialError),
    NoToken(TokenError),
}

enum Heard {
    Dialled(Dialled),
    Incoming(Incoming),
}

impl Link {
    /// What happens next on it. May be dropped before it is ready: nothing is lost.
    async fn next(&mut self, is_read: bool) -> Heard {
        match self {
            Self::Dialling(dialling) => Heard::Dialled(dialling.await),
            Self::Open(transport) if is_read => Heard::Incoming(transport.next().await),
            Self::None | Self::Open(_) => pending().await,
        }
    }
}

async fn maybe<T>(future: &mut Option<Pin<Box<dyn Future<Output = T> + Send>>>) -> T {
    match future {
        Some(future) => future.await,
        None => pending().await,
    }
}

/// What a driver is made of.
pub(crate) struct Parts {
    pub(crate) config: SessionConfig,
    pub(crate) device: antiphon_wire::ids::DeviceId,
    pub(crate) progress: Progress,
    pub(crate) dialler: Dialler,
    pub(crate) tokens: Tokens,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) waiting_max: usize,
    pub(crate) shared: Arc<Shared>,
    pub(crate) seed: u64,
}

impl Driver {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { config, device, progress, dialler, tokens, commands, events, waiting_max, shared, seed } = parts;
        let mut session = Session::new(Arc::new(config), None, Some(device), seed);
        match progress.position {
            Some(position) => session.restore(position, progress.conversations),
            // Nothing to resume by: history is asked what came since.
            None => progress.conversations.iter().for_each(|of| session.open(of.conversation, of.epoch, of.sequence)),
        }
        Self {
            position: session.position_bytes().map(Into::into),
            session,
            dialler: Arc::new(dialler),
            tokens,
            commands,
            events,
            shared,
            began: Instant::now(),
            link: Link::None,
            renewal: None,
            is_token_refused: false,
            no_token: None,
            sends: HashMap::new(),
            changes: Changes::default(),
            asking: Asking::default(),
            waiting: VecDeque::new(),
            waiting_max,
        }
    }

    pub(crate) async fn run(mut self) {
        self.session.start(0);
        let events = self.events.clone();
        loop {
            self.work();
            let due = self.began + Duration::from_millis(self.next_due_ms());
            let is_read = self.waiting.len() < self.waiting_max;
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.command(command),
                    None => break,
                },
                heard = self.link.next(is_read) => self.heard(heard),
                token = maybe(&mut self.renewal) => self.renewed(token),
                room = events.reserve(), if !self.waiting.is_empty() => match room {
                    Ok(room) => {
                        if let Some(event) = self.waiting.pop_front() {
                            room.send(event);
                        }
                    }
                    // Nobody reads them any more, and nobody misses them.
                    Err(_) => self.waiting.clear(),
                },
                () = sleep_until(due) => self.session.tick(self.now_ms()),
            }
        }
        // The last handle is gone: what is under way ends with it.
        self.session.stop();
        self.work();
        for event in self.waiting {
            // Until all is read, or nobody reads any more.
            if self.events.send(event).await.is_err() {
                break;
            }
        }
    }

    fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    fn next_due_ms(&self) -> u64 {
        let now_ms = self.now_ms();
        let due = [self.session.next_wake_ms(), self.asking.next_due_ms(), self.changes.next_due_ms(now_ms)];
        due.into_iter().flatten().min().unwrap_or(now_ms + IDLE_MS)
    }

    /// Moves everything on as far as it goes without waiting.
    fn work(&mut self) {
        let now_ms = self.now_ms();
        self.outputs();
        self.changes.ask(now_ms, &mut self.session);
        self.asking.ask(now_ms, &mut self.session);
        self.outputs();
        self.note_progress();
        if self.waiting.len() >= self.waiting_max {
            self.events_unread();
        }
    }

    fn outputs(&mut self) {
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Connect => self.dial(),
                Output::Transmit(bytes) => {
                    if let Link::Open(transport) = &self.link {
                        transport.send(bytes);
                    }
                }
                Output::Close => self.link = Link::None,
                Output::Deliver(event) => self.session_event(event),
            }
        }
    }

    /// All that was told before is in it, so it comes after that.
    fn note_progress(&mut self) {
        if self.session.position_bytes() == self.position.as_deref() {
            return;
        }
        self.position = self.session.position_bytes().map(Into::into);
        let position = self.position.as_ref().map(|bytes| PositionBytes(bytes.to_vec()));
        let conversations = self.session.conversations().collect();
        self.waiting.push_back(Event::Progress(Progress { position, conversations }));
    }

    fn dial(&mut self) {
        let (token, dialler) = ((self.tokens)(self.is_token_refused), Arc::clone(&self.dialler));
        self.link = Link::Dialling(Box::pin(async move {
            let token = match token.await {
                Ok(token) => token,
                Err(error) => return Dialled::NoToken(error),
            };
            match dialler.dial().await {
                Ok(transport) => Dialled::Open(token, transport),
                Err(error) => Dialled::Failed(error),
            }
        }));
    }

    fn heard(&mut self, heard: Heard) {
        let now_ms = self.now_ms();
        match heard {
            Heard::Incoming(Incoming::Frame(bytes)) => self.session.frame(now_ms, &bytes),
            Heard::Incoming(Incoming::Closed(code)) => {
                self.link = Link::None;
                self.session.disconnected(now_ms, code);
            }
            Heard::Dialled(Dialled::Open(token, transport)) => {
                self.link = Link::Open(transport);
                self.session.set_token(token);
                self.session.connected(now_ms);
            }
            Heard::Dialled(Dialled::Failed(error)) => self.failed(now_ms, error.text, error.retry_after_ms),
            Heard::Dialled(Dialled::NoToken(TokenError { text, is_permanent: false })) => {
                self.failed(now_ms, text, None)
            }
            Heard::Dialled(Dialled::NoToken(TokenError { text, is_permanent: true })) => {
                self.link = Link::None;
                self.no_token = Some(text);
                self.session.stop();
            }
        }
    }

    fn failed(&mut self, now_ms: u64, text: String, retry_after_ms: Option<u32>) {
        self.link = Link::None;
        self.tell(Event::Trouble(text));
        if let Some(retry_after_ms) = retry_after_ms {
            self.session.retry_after(retry_after_ms);
        }
        self.session.disconnected(now_ms, None);
    }

    /// There is another token, or there is none: then the session ends with the one that it has.
    fn renewed(&mut self, token: Result<String, TokenError>) {
        self.renewal = None;
        match token {
            // Whatever is answered: a token that is not accepted changes nothing.
            Ok(token) => drop(self.session.request(self.now_ms(), Request::Refresh(Refresh { token }))),
            Err(error) => self.tell(Event::Trouble(error.text)),
        }
    }

    fn command(&mut self, command: Command) {
        let now_ms = self.now_ms();
        match command {
            Command::Send { conversation, name, content, answer } => {
                match self.session.send(now_ms, conversation, content, name) {
                    Ok(()) => drop(self.sends.insert(name, answer)),
                    Err(error) => drop(answer.send(Err(error.into()))),
                }
            }
            Command::Change { request, answer } => self.changes.add(request, answer),
            Command::Ask { request, answer } => self.asking.add(now_ms, request, answer),
            Command::Follow(Known { conversation, epoch, sequence }) => {
                self.session.open(conversation, epoch, sequence)
            }
            Command::View(conversation, open) => self.session.view(now_ms, conversation, open),
            Command::Forget(conversation) => self.session.forget(conversation),
            Command::Resume => {
                (self.is_token_refused, self.no_token) = (false, None);
                self.session.start(now_ms);
            }
            Command::Stop => self.session.stop(),
        }
    }

    fn tell(&mut self, event: Event) {
        self.waiting.push_back(event);
    }

    fn session_event(&mut self, event: session::Event) {
        use session::Event as Said;
        match event {
            Said::Connected(welcome) => self.connected(*welcome),
            Said::CaughtUp => self.tell(Event::CaughtUp),
            Said::Disconnected { retry_at_ms } => {
                self.renewal = None;
                let retry_in_ms = retry_at_ms.saturating_sub(self.now_ms());
                self.tell(Event::Disconnected { retry_in_ms });
            }
            Said::Stopped(reason) => self.stopped(reason),
            Said::Entry { entry, .. } => self.entry(&entry, Event::Entry),
            Said::Mentioned { entry, .. } => self.entry(&entry, Event::Mentioned),
            Said::Advanced(advanced) => self.tell(Event::Advanced(advanced)),
            Said::Acked { client_message_id, ack, .. } => self.durable(client_message_id, ack),
            Said::SendFailed { client_message_id, error, .. } => self.refused(client_message_id, error),
            Said::Answer { id, answer } => self.answer(id, answer),
            Said::Receipt(receipt) => self.tell(Event::Receipt(receipt)),
            Said::States(states) => self.tell(Event::States(states)),
            Said::Happened(happened) => self.tell(Event::Happened(happened)),
            Said::Expiring(Expiring { .. }) => {
                if self.renewal.is_none() {
                    self.renewal = Some((self.tokens)(true));
                }
            }
            Said::Present(present) => self.tell(Event::Present(present.users)),
            Said::Left(left) => self.tell(Event::Left(left)),
            Said::Skipped { conversation, from, to } => self.tell(Event::Skipped { conversation, from, to }),
            Said::ConversationReset { conversation, epoch } => {
                self.tell(Event::ConversationReset { conversation, epoch });
            }
            Said::Reset => self.tell(Event::Reset),
            Said::Trouble(error) => self.tell(Event::Trouble(format!("{}: {}", error.code.name(), error.text))),
            Said::Undecodable(error) => self.tell(Event::Trouble(format!("a frame can't be read: {}", error.text))),
        }
    }

    fn connected(&mut self, welcome: Welcome) {
        let Welcome { user, device, time_ms, .. } = welcome;
        let offset_ms = i64::try_from(time_ms.0).unwrap_or(0) - i64::try_from(system_time_ms()).unwrap_or(0);
        self.shared.clock_offset_ms.store(offset_ms, Ordering::Relaxed);
        let _ = self.shared.user.set(user.clone());
        self.is_token_refused = false;
        self.tell(Event::Connected { user, device });
    }

    fn stopped(&mut self, reason: StopReason) {
        self.renewal = None;
        let stopped = match (self.no_token.take(), reason) {
            (Some(text), _) => Stopped::Unauthenticated(text),
            (None, StopReason::Application) => Stopped::Asked,
            (None, StopReason::Closed(code)) => Stopped::of_close(code),
            (None, StopReason::Refused(error)) => match error.code {
                ErrorCode::Unauthenticated | ErrorCode::TokenExpired => Stopped::Unauthenticated(error.text),
                ErrorCode::Revoked => Stopped::LoggedOut,
                // Nothing else of which there may be so many is asked for by `connect`.
                ErrorCode::LimitReached => Stopped::TooManyDevices,
                _ => Stopped::Refused(error),
            },
        };
        // The token may be of another start of the server, or old. One new token is worth a try; two are not.
        let is_about_token = matches!(stopped, Stopped::Unauthenticated(_));
        if is_about_token && !std::mem::replace(&mut self.is_token_refused, true) {
            return self.session.start(self.now_ms());
        }
        self.tell(Event::Stopped(stopped));
        self.give_up(&Error::Stopped);
    }

    fn entry(&mut self, entry: &EntryBytes, event: fn(Box<Entry>) -> Event) {
        match Entry::read(entry) {
            Ok(entry) => self.tell(event(Box::new(entry))),
            Err(error) => self.tell(Event::Trouble(format!("an entry can't be read: {error}"))),
        }
    }

    fn durable(&mut self, client_message_id: ClientMessageId, ack: Ack) {
        if let Some(answer) = self.sends.remove(&client_message_id) {
            let _ = answer.send(Ok(ack.clone()));
        }
        self.tell(Event::Durable { client_message_id, ack });
    }

    fn refused(&mut self, client_message_id: ClientMessageId, error: ErrorFrame) {
        if let Some(answer) = self.sends.remove(&client_message_id) {
            let _ = answer.send(Err(Error::Refused(error.clone())));
        }
        self.tell(Event::Refused { client_message_id, error });
    }

    fn answer(&mut self, id: RequestId, answer: Result<Box<antiphon_wire::frame::ServerFrame>, session::RequestError>) {
        // One stream has the order of all that is told of users: whoever waits for an answer may hear of it after what came behind it.
        if let Ok(frame) = &answer
            && let antiphon_wire::frame::ServerFrame::PresenceAnswer(presence) = &**frame
            && !presence.users.is_empty()
        {
            self.tell(Event::Present(presence.users.clone()));
        }
        let Some(answer) = self.asking.answered(id, answer) else { return };
        let Some(outcome) = self.changes.answered(self.now_ms(), id, answer) else { return };
        match outcome.of {
            Ok(ack) => self.tell(Event::Durable { client_message_id: outcome.name, ack }),
            Err(error) => self.tell(Event::Refused { client_message_id: outcome.name, error }),
        }
    }

    /// Nothing more is read until the application reads its events, and so no answer either: whoever waits for one is told.
    fn events_unread(&mut self) {
        self.give_up(&Error::EventsUnread);
    }

    fn give_up(&mut self, error: &Error) {
        for (_, answer) in self.sends.drain() {
            let _ = answer.send(Err(error.clone()));
        }
        self.changes.detach(error);
        self.asking.give_up(error);
    }
}

fn system_time_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
