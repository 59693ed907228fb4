//! The handle of a client, and the events that come of it.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use antiphon_wire::{
    frame::{
        Account, AccountAction, AccountAnswer, Ack, AskBans, AskSettings, BansAction, BansAnswer, Change,
        Conversations, ConversationsAnswer, Create, CreateGroup, Created, Delete, Delivered, Device, Devices,
        DevicesAction, DevicesAnswer, Edit, History, InviteCode, Invites, InvitesAction, InvitesAnswer, Join,
        JoinAnswer, JsonText, Known, ListDevices, Marked, Members, MembersAction, MembersAnswer, Pin as PinMessage,
        Pins, PresenceAnswer, React, Reactions, ReactionsAnswer, Read, Request, Retain, RevokeAll, Roles, RolesAction,
        RolesAnswer, SendEvent, ServerFrame, SettingsAnswer, SettingsChange, Title, WatchPresence,
    },
    ids::{ClientMessageId, ConversationId, DeviceId, Epoch, Sequence, TimestampMs, UserId},
};
use tokio::sync::{mpsc, oneshot};

use crate::{
    driver::{Command, Driver, Parts, Shared},
    entry::Page,
    error::Error,
    event::Event,
    message::Message,
    options::Options,
    transport::Dialler,
};

/// Calls that wait for the driver's turn.
const COMMANDS_MAX: usize = 64;

/// Events that are handed over at once; what waits beyond is the driver's.
const EVENTS_AT_HAND: usize = 64;

/// A client: cheap to clone, usable from everywhere. It lives until the last of its handles is dropped.
#[derive(Clone)]
pub struct Client {
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
}

/// What happens, in order. Read it: while too much of it waits nothing more is read from the server, and calls fail with
/// [`Error::EventsUnread`]. Drop it, and nothing is kept.
pub struct Events(mpsc::Receiver<Event>);

impl Events {
    /// The next event; `None` once the client is gone.
    pub async fn next(&mut self) -> Option<Event> {
        self.0.recv().await
    }
}

/// A message or a change on its way: ready when it is durable, or refused. Dropped, it goes its way all the same.
pub struct Pending(oneshot::Receiver<Result<Ack, Error>>);

impl Future for Pending {
    type Output = Result<Ack, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|answer| answer.unwrap_or(Err(Error::Stopped)))
    }
}

macro_rules! answer {
    ($frame:expr, $kind:ident) => {
        match $frame {
            ServerFrame::$kind(answer) => Ok(answer),
            _ => Err(Error::Answer),
        }
    };
}

impl Client {
    /// Starts a client on tokio's runtime. It connects by itself, and comes back by itself.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the address can't be dialled at all.
    pub fn start(options: Options) -> Result<(Self, Events), Error> {
        let encoding = options.session.encoding;
        #[cfg(feature = "tls")]
        let dialler = Dialler::new(options.url, encoding, options.tls);
        #[cfg(not(feature = "tls"))]
        let dialler = Dialler::new(options.url, encoding);
        dialler.check().map_err(Error::Invalid)?;
        let (commands, asked) = mpsc::channel(COMMANDS_MAX);
        let (tell, events) = mpsc::channel(EVENTS_AT_HAND);
        let shared = Arc::<Shared>::default();
        let driver = Driver::new(Parts {
            config: options.session,
            device: options.device,
            progress: options.progress,
            dialler,
            tokens: options.tokens,
            commands: asked,
            events: tell,
            waiting_max: options.events_waiting_max,
            shared: Arc::clone(&shared),
            seed: random() as u64,
        });
        tokio::spawn(driver.run());
        Ok((Self { commands, shared }, Events(events)))
    }

    /// Comes back after [`Event::Stopped`].
    ///
    /// # Errors
    /// [`Error::Stopped`] if its runtime is gone.
    pub async fn resume(&self) -> Result<(), Error> {
        self.command(Command::Resume).await
    }

    /// Ends the connection until [`Client::resume`]. What waits to be sent is kept.
    ///
    /// # Errors
    /// [`Error::Stopped`] if its runtime is gone.
    pub async fn stop(&self) -> Result<(), Error> {
        self.command(Command::Stop).await
    }

    /// Whom the server takes this client for, once it was connected.
    #[must_use]
    pub fn user(&self) -> Option<&UserId> {
        self.shared.user.get()
    }

    /// A new name for a message or a change, by the server's clock.
    #[must_use]
    pub fn new_id(&self) -> ClientMessageId {
        ClientMessageId::timed(TimestampMs(self.shared.server_time_ms()), random())
    }

    // ---- Messages -----------------------------------------------------------------------------------------------------

    /// Sends a message, now or when there is a connection again; ready when it is durable, or refused.
    ///
    /// # Errors
    /// What the server answers; [`Error::Invalid`], [`Error::Busy`], [`Error::Stopped`], [`Error::EventsUnread`].
    pub async fn send(&self, conversation: ConversationId, message: impl Into<Message>) -> Result<Ack, Error> {
        self.submit(conversation, message).await?.await
    }

    /// Gives a message its place among those that are sent; what that gives is ready when it is durable, or refused. One after
    /// the other is sent in this order, however many are under way.
    ///
    /// # Errors
    /// [`Error::Stopped`] if its runtime is gone.
    pub async fn submit(&self, conversation: ConversationId, message: impl Into<Message>) -> Result<Pending, Error> {
        self.submit_as(self.new_id(), conversation, message).await
    }

    /// The same under a name that one keeps. After a restart of the program the same message under the same name is stored once in all.
    ///
    /// # Errors
    /// See [`Client::submit`].
    pub async fn submit_as(
        &self,
        name: ClientMessageId,
        conversation: ConversationId,
        message: impl Into<Message>,
    ) -> Result<Pending, Error> {
        let content = message.into().to_content();
        let (answer, answered) = oneshot::channel();
        self.command(Command::Send { conversation, name, content, answer }).await?;
        Ok(Pending(answered))
    }

    /// Asks for a change of a message, as [`Client::send`] does for messages.
    ///
    /// # Errors
    /// See [`Client::send`].
    pub async fn change(&self, conversation: ConversationId, change: Change) -> Result<Ack, Error> {
        self.submit_change_as(self.new_id(), conversation, change).await?.await
    }

    /// The same as [`Client::submit_as`] does it.
    ///
    /// # Errors
    /// See [`Client::submit`].
    pub async fn submit_change_as(
        &self,
        client_message_id: ClientMessageId,
        conversation: ConversationId,
        change: Change,
    ) -> Result<Pending, Error> {
        let request = match change {
            Change::Edit { target, content } => {
                Request::Edit(Edit { conversation, client_message_id, target, content })
            }
            Change::Delete { target } => Request::Delete(Delete { conversation, client_message_id, target }),
            Change::React { target, text: reaction, on } => {
                Request::React(React { conversation, client_message_id, target, reaction, on })
            }
            Change::Pin { target, on } => Request::Pin(PinMessage { conversation, client_message_id, target, on }),
            Change::Retain { before } => Request::Retain(Retain { conversation, client_message_id, before }),
        };
        let (answer, answered) = oneshot::channel();
        self.command(Command::Change { request, answer }).await?;
        Ok(Pending(answered))
    }

    /// A message says something else from now on.
    ///
    /// # Errors
    /// See [`Client::send`].
    pub async fn edit(
        &self,
        conversation: ConversationId,
        target: Sequence,
        message: impl Into<Message>,
    ) -> Result<Ack, Error> {
        self.change(conversation, Change::Edit { target, content: message.into().to_content() }).await
    }

    /// Deletes a message for everybody.
    ///
    /// # Errors
    /// See [`Client::send`].
    pub async fn delete(&self, conversation: ConversationId, target: Sequence) -> Result<Ack, Error> {
        self.change(conversation, Change::Delete { target }).await
    }

    /// Adds one's reaction to a message, or takes it back.
    ///
    /// # Errors
    /// See [`Client::send`].
    pub async fn react(
        &self,
        conversation: ConversationId,
        target: Sequence,
        reaction: &str,
        on: bool,
    ) -> Result<Ack, Error> {
        self.change(conversation, Change::React { target, text: reaction.to_owned(), on }).await
    }

    /// Pins a message, or takes the pin off.
    ///
    /// # Errors
    /// See [`Client::send`].
    pub async fn pin(&self, conversation: ConversationId, target: Sequence, on: bool) -> Result<Ack, Error> {
        self.change(conversation, Change::Pin { target, on }).await
    }

    /// Everything up to a sequence was seen by the user.
    ///
    /// # Errors
    /// See [`Client::request`].
    pub async fn read(&self, conversation: ConversationId, sequence: Sequence) -> Result<Marked, Error> {
        answer!(self.request(Request::Read(Read { conversation, sequence })).await?, ReadAnswer)
    }

    /// Everything up to a sequence has arrived here.
    ///
    /// # Errors
    /// See [`Client::request`].
    pub async fn delivered(&self, conversation: ConversationId, sequence: Sequence) -> Result<Marked, Error> {
        answer!(self.request(Request::Delivered(Delivered { conversation, sequence })).await?, DeliveredAnswer)
    }

    /// Tells the others who are there of something for the moment. `data`: one JSON value.
    ///
    /// # Errors
    /// See [`Client::request`].
    pub async fn event(&self, conversation: ConversationId, event: &str, data: Option<String>) -> Result<(), Error> {
        let event = SendEvent { conversation, event: event.to_owned(), data: data.map(JsonText) };
        answer!(self.request(Request::Event(event)).await?, EventAnswer).map(|_| ())
    }

    /// A page of the latest entries, or of those before one.
    ///
    /// # Errors
    /// See [`Client::request`].
    pub async fn history(
        &self,
        conversation: ConversationId,
        before: Option<Sequence>,
        limit: u32,
    ) -> Result<Page, Error> {
        let history = History { conversation, before, after: None, around: None, limit: Some(limit) };
        let answer = answer!(self.request(Request::History(history)).await?, HistoryAnswer)?;
        Page::read(&answer).map_err(|_| Error::Answer)
    }

    /// Who reacted to a message how, in order of ids, `after` one.
    ///
    /// # Errors
    /// See [`Client::request`].
    pub async fn reactions(
        &self,
        conversation: ConversationId,
        target: Sequence,
        after: Option<UserId>,
    ) -> Result<ReactionsAnswer, Error> {
        let reactions = Reactions { conversation, target, after, limit: None };
        answer!(self.request(Request::Reactions(reactions)).await?, ReactionsAnswer)
    }

    /// The pinned messages.
    ///
    /// # Errors
    /// See [`Client::request`].
    pub async fn pins(&self, conversation: ConversationId) -> Result<Vec<Sequence>, Error> {
        answer!(self.request(Request::Pins(Pins { conversation })).await?, PinsAnswer).map(|answer| answer.pins)
    }

    // ---- Conversations ------------------------------------------------------------------------------------------------

    /// Finds or makes the conversation with another user.
    ///
    /// # Errors
    /// See [`Client::request`].
    pub async fn direct(&self, user: UserId) -> Result<Created, Error> {
        answer!(self.request(Request::Create(Create::Direct(user))).await?, Created)
    }

    /// Makes a group. Keep its `key` through retries, so that no second group comes of one.
    ///
    /// # Errors
    /// See [`Client::request`].
    pub async fn group(&self, group: CreateGroup) -> Result<Created, Error> {
        answer!(self.request(Request::Create(Create::Group(group))).await?, Created)
    }

    /// A page of the user's conversations, in order of ids, `after` one.
    ///
    /// # Errors
    /// See [`Client::request`].
    pub async fn conversations(&self, after: Option<ConversationId>) -> Result<ConversationsAnswer, Error> {
        let conversations = Conversations { after, limit: None };
        answer!(self.request(Request::Conversations(conversations)).await?, ConversationsAnswer)
    }

    /// Adds, removes or lists members.
    ///
    /// # Errors
    /// See [`Client::request`].
    pub async fn members(&self, conversation: ConversationId, action: MembersAction) -> Result<MembersAnswer, Error> {
        answer!(self.request(Request::Members(Members { conversation, action })).await?, MembersAnswer)
    }

    /// Gives a group a title.
    ///
    /// # Errors
    /// See [`Client::request`].
    pub async fn title(&self, conversation: ConversationId, title: &str) -> Result<Sequence, Error> {
        let title = Title { conversation, title: title.to_owned() };
        answer!(self.request(Request::Title(title)).await?, TitleAnswer).map(|answer| answer.sequence)
    }

    /// How a group is; `set` changes it.
    ///
    /// # Errors
    /// See [`Client::request`].
    pub async fn settings(
        &self,
        conversation: ConversationId,
        set: Option<SettingsChange>,
    ) -> Result<SettingsAnswer, Error> {
        answer!(self.request(Request::Settings(AskSettings { conversation, set })).await?, SettingsAnswer)
    }

    /// Gives members roles, or lists them.
    ///
    /// # Errors
    /// See [`Client::request`].
    pub async fn roles(&self, conversation: ConversationId, action: RolesAction) -> Result<RolesAnswer, Error> {
        answer!(self.request(Request::Roles(Roles { conversation, action })).await?, RolesAnswer)
    }

    /// Keeps users out of a group, lets them come again, or lists them.
    ///
    /// # Errors
    /// See [`Client::request`].
    pub async fn bans(&self, conversation: ConversationId, action: BansAction) -> Result<BansAnswer, Error> {
        answer!(self.request(Request::Bans(AskBans { conversation, action })).await?, BansAnswer)
    }

    /// Makes, revokes or lists invites to a group.
    ///
    /// # Errors
    /// See [`Client::request`].
    pub async fn invites(&self, conversation: ConversationId, action: InvitesAction) -> Result<InvitesAnswer, Error> {
        answer!(self.request(Request::Invites(Invites { conversation, action })).await?, InvitesAnswer)
    }

    /// Sets what is kept for the user under a key, on all devices, or lists it. What any of them sets comes as an
    /// [entry](crate::Event::Entry) of the conversation that the answer names, of the kind [`Body::AccountData`](crate::Body::AccountData).
    ///
    /// # Errors
    /// See [`Client::request`].
    pub async fn account(&self, action: AccountAction) -> Result<AccountAnswer, Error> {
        answer!(self.request(Request::Account(Account { action })).await?, AccountAnswer)
    }

    /// The user's devices: those that are connected, and those that have a name.
    ///
    /// # Errors
    /// See [`Client::request`].
    pub async fn devices(&self) -> Result<Vec<Device>, Error> {
        self.ask_devices(DevicesAction::List(ListDevices {})).await?.devices.ok_or(Error::Answer)
    }

    /// Calls this device something, or, with the empty name, nothing any more: one that has a name is listed while it is away.
    ///
    /// # Errors
    /// See [`Client::request`].
    pub async fn name_device(&self, name: &str) -> Result<Sequence, Error> {
        self.change_devices(DevicesAction::Name(name.to_owned())).await
    }

    /// Logs devices of the user out: their connections end, and what was issued for them before is refused. One that is among them itself has the
    /// answer, and then [stops](crate::Stopped::LoggedOut).
    ///
    /// # Errors
    /// See [`Client::request`].
    pub async fn revoke_devices(&self, devices: Vec<DeviceId>) -> Result<Sequence, Error> {
        self.change_devices(DevicesAction::Revoke(devices)).await
    }

    /// The same of all devices, or of all others.
    ///
    /// # Errors
    /// See [`Client::request`].
    pub async fn revoke_all_devices(&self, but_this: bool) -> Result<Sequence, Error> {
        self.change_devices(DevicesAction::RevokeAll(RevokeAll { but_this })).await
    }

    async fn change_devices(&self, action: DevicesAction) -> Result<Sequence, Error> {
        self.ask_devices(action).await?.sequence.ok_or(Error::Answer)
    }

    async fn ask_devices(&self, action: DevicesAction) -> Result<DevicesAnswer, Error> {
        answer!(self.request(Request::Devices(Devices { action })).await?, DevicesAnswer)
    }

    /// Asks whether the users in `watch` are there, and to be [told](crate::Event::Present) when they come and go; of those in `unwatch` no more.
    /// What it is answered comes as such an event, too: events are in order, and the last one counts. It holds for as long as the connection does: ask again at each [`Event::Connected`].
    ///
    /// # Errors
    /// See [`Client::request`].
    pub async fn presence(&self, watch: Vec<UserId>, unwatch: Vec<UserId>) -> Result<PresenceAnswer, Error> {
        answer!(self.request(Request::Presence(WatchPresence { watch, unwatch })).await?, PresenceAnswer)
    }

    /// What an invite is to, without joining.
    ///
    /// # Errors
    /// See [`Client::request`].
    pub async fn look(&self, code: InviteCode) -> Result<JoinAnswer, Error> {
        answer!(self.request(Request::Join(Join { code, look: true })).await?, JoinAnswer)
    }

    /// Becomes a member by an invite.
    ///
    /// # Errors
    /// See [`Client::request`].
    pub async fn join(&self, code: InviteCode) -> Result<JoinAnswer, Error> {
        answer!(self.request(Request::Join(Join { code, look: false })).await?, JoinAnswer)
    }

    /// What the application has of a conversation ends with `sequence`, for example after a page of history: what comes first is
    /// the entry after it. Without this the first entry that comes may be any.
    ///
    /// # Errors
    /// [`Error::Stopped`] if its runtime is gone.
    pub async fn follow(&self, conversation: ConversationId, epoch: Epoch, sequence: Sequence) -> Result<(), Error> {
        self.command(Command::Follow(Known { conversation, epoch, sequence })).await
    }

    /// The application shows a conversation from now on, over any number of connections, or does not any more. It matters for large ones,
    /// where whatever happens comes to those who look at it alone.
    ///
    /// # Errors
    /// [`Error::Stopped`] if its runtime is gone.
    pub async fn view(&self, conversation: ConversationId, open: bool) -> Result<(), Error> {
        self.command(Command::View(conversation, open)).await
    }

    /// The application keeps nothing of a conversation any more.
    ///
    /// # Errors
    /// [`Error::Stopped`] if its runtime is gone.
    pub async fn forget(&self, conversation: ConversationId) -> Result<(), Error> {
        self.command(Command::Forget(conversation)).await
    }

    /// Any other request: asked once, when there is a connection.
    ///
    /// # Errors
    /// What the server answers; [`Error::Offline`] if there was no connection in time, [`Error::Disconnected`] if it ended before the
    /// answer; [`Error::Invalid`], [`Error::Busy`], [`Error::Stopped`], [`Error::EventsUnread`].
    pub async fn request(&self, request: Request) -> Result<ServerFrame, Error> {
        let (answer, answered) = oneshot::channel();
        self.command(Command::Ask { request, answer }).await?;
        answered.await.map_err(|_| Error::Stopped)?
    }

    async fn command(&self, command: Command) -> Result<(), Error> {
        self.commands.send(command).await.map_err(|_| Error::Stopped)
    }
}

fn random() -> u128 {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the system has random bytes");
    u128::from_le_bytes(bytes)
}
