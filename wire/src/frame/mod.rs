//! Every frame of the protocol, once. [`crate::binary`] and [`crate::json`] are two encodings of these types.
//!
//! A client sends [`Request`]s, a server [`ServerFrame`]s. One frame is one WebSocket message. An answer has the request's id and,
//! in JSON, the request's key; a push has no id.

mod account;
mod change;
mod content;
mod conversations;
mod devices;
mod entry;
mod event;
mod groups;
mod invites;
mod messages;
mod presence;
mod session;
mod view;

pub use account::*;
pub use change::*;
pub use content::*;
pub use conversations::*;
pub use devices::*;
pub use entry::*;
pub use event::*;
pub use groups::*;
pub use invites::*;
pub use messages::*;
pub use presence::*;
pub use session::*;
pub use view::*;

/// How lists of ids, or of what holds ids, are read from archives: item by item. rkyv's own way for a `Vec` leaks the list when an item
/// is refused (0.8.18, `deserialize_unsized` for slices), which a stranger could repeat until memory is gone. The archive is the same.
pub(crate) type Each = rkyv::with::Map<rkyv::with::Identity>;

/// The same for a list that may be absent.
pub(crate) type EachIfAny = rkyv::with::Map<Each>;

/// What a client asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Says who is there; the first request of a connection.
    Connect(Connect),
    /// A heartbeat.
    Ping(Ping),
    /// Makes a conversation.
    Create(Create),
    /// Adds, removes or lists members.
    Members(Members),
    /// Lists the user's conversations.
    Conversations(Conversations),
    /// Gives a group a title.
    Title(Title),
    /// Sends a message.
    Send(Send),
    /// Reads a page of history.
    History(History),
    /// Moves the read pointer.
    Read(Read),
    /// Moves the delivered pointer.
    Delivered(Delivered),
    /// Gives a message another content.
    Edit(Edit),
    /// Takes a message's content away.
    Delete(Delete),
    /// Adds or removes a reaction.
    React(React),
    /// Pins a message, or takes the pin off.
    Pin(Pin),
    /// Lets entries before one go.
    Retain(Retain),
    /// Lists who reacted to a message.
    Reactions(Reactions),
    /// Lists the pinned messages.
    Pins(Pins),
    /// Gives members roles, or lists them.
    Roles(Roles),
    /// Tells how a group is, and changes it.
    Settings(AskSettings),
    /// Keeps users out of a group, or lists them.
    Bans(AskBans),
    /// Tells those who are there of something that is never stored.
    Event(SendEvent),
    /// Gives the session another token.
    Refresh(Refresh),
    /// Makes, revokes or lists invites to a group.
    Invites(Invites),
    /// Becomes a member by an invite.
    Join(Join),
    /// Sets or lists what the user's applications keep.
    Account(Account),
    /// Asks who is there, and to be told.
    Presence(WatchPresence),
    /// Says what is being looked at.
    View(View),
    /// Lists, names or logs out the user's devices.
    Devices(Devices),
}

/// What a server says: answers, then pushes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerFrame {
    /// Answers `connect`.
    Welcome(Welcome),
    /// Answers `ping`.
    Pong(Pong),
    /// Answers `create`.
    Created(Created),
    /// Answers `members`.
    MembersAnswer(MembersAnswer),
    /// Answers `conversations`.
    ConversationsAnswer(ConversationsAnswer),
    /// Answers `title`.
    TitleAnswer(TitleAnswer),
    /// Answers `send`: the message is durable.
    Ack(Ack),
    /// Answers `history`.
    HistoryAnswer(HistoryAnswer),
    /// Answers `read`.
    ReadAnswer(Marked),
    /// Answers `delivered`.
    DeliveredAnswer(Marked),
    /// Answers `edit`: the change is durable.
    EditAnswer(Ack),
    /// Answers `delete`.
    DeleteAnswer(Ack),
    /// Answers `react`.
    ReactAnswer(Ack),
    /// Answers `pin`.
    PinAnswer(Ack),
    /// Answers `retain`.
    RetainAnswer(Ack),
    /// Answers `reactions`.
    ReactionsAnswer(ReactionsAnswer),
    /// Answers `pins`.
    PinsAnswer(PinsAnswer),
    /// Answers `roles`.
    RolesAnswer(RolesAnswer),
    /// Answers `settings`.
    SettingsAnswer(SettingsAnswer),
    /// Answers `bans`.
    BansAnswer(BansAnswer),
    /// Answers `event`.
    EventAnswer(EventSent),
    /// Answers `refresh`.
    RefreshAnswer(Refreshed),
    /// Answers `invites`.
    InvitesAnswer(InvitesAnswer),
    /// Answers `join`.
    JoinAnswer(JoinAnswer),
    /// Answers `account`.
    AccountAnswer(AccountAnswer),
    /// Answers `presence`.
    PresenceAnswer(PresenceAnswer),
    /// Answers `view`.
    ViewAnswer(ViewAnswer),
    /// Answers `devices`.
    DevicesAnswer(DevicesAnswer),
    /// Answers any request that failed; without an id, the connection's own trouble.
    Error(ErrorFrame),
    /// A new entry of a conversation.
    Message(EntryBytes),
    /// Somebody's pointers moved.
    Receipt(Receipt),
    /// The user is no longer a member.
    Left(Left),
    /// Too much is missing of one conversation; page it by `history`.
    TooFar(TooFar),
    /// All that was missing has been sent; what follows is live.
    CaughtUp(CaughtUp),
    /// The server ends the connection.
    Goodbye(Goodbye),
    /// What became of messages that are given right before or after this frame.
    States(States),
    /// Something that another member tells, and that is never stored.
    Event(Event),
    /// The session's token is about to be over.
    Expiring(Expiring),
    /// Users have come or gone.
    Present(Present),
    /// A large conversation that is not open has new entries.
    Advanced(Advanced),
    /// An entry of a conversation that is not open, given because it means the user.
    Mentioned(EntryBytes),
}
