//! The client's side of a session, sans-IO: reconnect, resume, order, deduplication, retries of sends, heartbeats.
//!
//! A driver owns a transport and a clock and moves bytes; everything else is [`Session`]:
//!
//! ```text
//!   start ─▶ Connect ─▶ connected ─▶ Transmit(connect) ─▶ frame(welcome) ─▶ … ─▶ disconnected ─▶ wait ─▶ Connect …
//! ```
//!
//! After every call of an input the driver takes all of [`Session::poll_output`], and calls [`Session::tick`] no later than
//! [`Session::next_wake_ms`]. After [`Output::Close`] or [`Session::disconnected`] it reports nothing more of that transport.
//!
//! What an application relies on: the entries of a conversation come once each and in the order of their sequences, over any number
//! of connections; a send is acknowledged or refused once; [`Session::position`] stands only for what was delivered.
//! Must not do: read a clock or a random source (both are arguments), or keep anything unbounded.

mod backoff;
mod machine;
mod outbox;
mod receive;
mod reorder;
mod resume;
mod views;

pub use backoff::{Backoff, Hint};
pub use machine::Session;

use crate::{
    codec::{DecodeError, Encoding},
    frame::{
        Ack, Advanced, ClientInfo, Content, EntryBytes, EntryError, ErrorFrame, Expiring, Left, Present, Receipt,
        ServerFrame, States, Welcome,
    },
    ids::{ClientMessageId, ConversationId, Epoch, RequestId, Sequence},
    limits::PAGE_ITEMS_MAX,
};

/// What all sessions of a program share.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// How frames are written and read.
    pub encoding: Encoding,
    /// The client's name and version.
    pub client: Option<ClientInfo>,
    /// Longest wait before the first attempt to come back; it doubles with each further one.
    pub backoff_base_ms: u32,
    /// Longest wait before any attempt.
    pub backoff_cap_ms: u32,
    /// How long a session must have lasted for the next wait to be a first one again.
    pub stable_after_ms: u32,
    /// How long a transport may take to open, and then `welcome` to come.
    pub connect_timeout_ms: u32,
    /// Most sends that wait for their acknowledgement.
    pub outbox_items_max: usize,
    /// Most bytes of their contents.
    pub outbox_bytes_max: usize,
    /// Most sends that are on their way at once.
    pub sends_in_flight_max: usize,
    /// Most requests of the application that are on their way at once.
    pub requests_in_flight_max: usize,
    /// Most entries that wait for an earlier one.
    pub reorder_items_max: usize,
    /// Most bytes of them.
    pub reorder_bytes_max: usize,
    /// How long an entry waits for an earlier one before history is asked.
    pub reorder_wait_ms: u32,
    /// Length of the pages by which gaps are filled.
    pub history_page_items: u32,
    /// Most of those pages that are on their way at once.
    pub history_in_flight_max: usize,
    /// How long after an entry of another user the delivered pointer is moved; `None`: never.
    pub delivered_after_ms: Option<u32>,
    /// Whether entries of a large conversation that is not [viewed](Session::view) may stay with the server: then the application hears
    /// [`Event::Advanced`] of them, and has them all once it views the conversation. Otherwise they are fetched at once.
    pub lazy: bool,
}

impl SessionConfig {
    /// The usual figures.
    #[must_use]
    pub fn new(encoding: Encoding) -> Self {
        Self {
            encoding,
            client: None,
            backoff_base_ms: 500,
            backoff_cap_ms: 30_000,
            stable_after_ms: 30_000,
            connect_timeout_ms: 10_000,
            outbox_items_max: 256,
            outbox_bytes_max: 1024 * 1024,
            sends_in_flight_max: 64,
            requests_in_flight_max: 64,
            reorder_items_max: 256,
            reorder_bytes_max: 1024 * 1024,
            reorder_wait_ms: 2_000,
            history_page_items: PAGE_ITEMS_MAX,
            history_in_flight_max: 4,
            delivered_after_ms: None,
            lazy: false,
        }
    }
}

/// What a driver is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Open a transport, with the subprotocol of the configuration's encoding; then call `connected` or `disconnected`.
    Connect,
    /// Send these bytes as one message.
    Transmit(Vec<u8>),
    /// Close the transport and forget it.
    Close,
    /// Tell the application.
    Deliver(Event),
}

/// What an application learns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The server took the session.
    Connected(Box<Welcome>),
    /// What was missing has been sent; pages that are still to be fetched follow.
    CaughtUp,
    /// The connection is gone; the next attempt is made then.
    Disconnected {
        /// On the clock of `now_ms`.
        retry_at_ms: u64,
    },
    /// The connection is gone and no attempt follows; [`Session::start`] makes one.
    Stopped(StopReason),
    /// The next entry of a conversation.
    Entry {
        /// Which conversation.
        conversation: ConversationId,
        /// The entry's place.
        sequence: Sequence,
        /// Its archive, validated.
        entry: EntryBytes,
    },
    /// A send is durable. Said once a send, whether the server's answer or the entry itself told.
    Acked {
        /// Which send.
        client_message_id: ClientMessageId,
        /// Where to.
        conversation: ConversationId,
        /// Its place.
        ack: Ack,
    },
    /// A send will never be.
    SendFailed {
        /// Which send.
        client_message_id: ClientMessageId,
        /// Where to.
        conversation: ConversationId,
        /// Why.
        error: ErrorFrame,
    },
    /// The answer to a request of the application's.
    Answer {
        /// Which request.
        id: RequestId,
        /// What it was answered.
        answer: Result<Box<ServerFrame>, RequestError>,
    },
    /// Somebody's pointers moved.
    Receipt(Receipt),
    /// What became of messages that come as entries right before or after this: see [`States::as_of`] for which entries are in it. To
    /// edit, delete, react, pin or retain is a [`Session::request`]; one whose answer did not come is asked again under the same id.
    States(States),
    /// Another member tells of something that is never stored, such as that it types.
    Happened(crate::frame::Event),
    /// The token is about to be over: get another one, and ask for a [`Request::Refresh`](crate::frame::Request::Refresh) with it.
    Expiring(Expiring),
    /// Users have come or gone whom this connection was [asked](crate::frame::Request::Presence) to tell of; the next one is to be asked anew.
    Present(Present),
    /// The user is no longer a member: it is as if the conversation did not exist.
    Left(Left),
    /// A large conversation has gone on. If the session is [lazy](SessionConfig::lazy) and does not view it, its entries do not come.
    Advanced(Advanced),
    /// An entry that means the user, of a large conversation that is not viewed. It comes beside the others: once as this, and once as
    /// [`Event::Entry`] in its turn, before or after it.
    Mentioned {
        /// Which conversation.
        conversation: ConversationId,
        /// The entry's place.
        sequence: Sequence,
        /// Its archive, validated.
        entry: EntryBytes,
    },
    /// Entries that can't be had any more, or never could; the next one comes after them.
    Skipped {
        /// Of which conversation.
        conversation: ConversationId,
        /// The first of them.
        from: Sequence,
        /// The last of them.
        to: Sequence,
    },
    /// A conversation's log was created anew: what the application has of it is void.
    ConversationReset {
        /// Which.
        conversation: ConversationId,
        /// The new log's incarnation.
        epoch: Epoch,
    },
    /// The server can't resume: what the application has of all conversations is void; list them again.
    Reset,
    /// The connection's own trouble.
    Trouble(ErrorFrame),
    /// A frame that makes no sense here, left out.
    Undecodable(DecodeError),
}

/// Why no attempt follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopReason {
    /// The application asked for it.
    Application,
    /// A close code that says not to come back: see [`crate::codes::CloseCode`].
    Closed(u16),
    /// `connect` was refused for good.
    Refused(ErrorFrame),
}

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestError {
    /// The server refused it.
    Refused(ErrorFrame),
    /// The connection went first: it may have been carried out or not.
    Disconnected,
}

/// Why a call was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// Wait for acknowledgements, then send again.
    #[error("{0} sends or their bytes' limit wait already")]
    OutboxFull(usize),
    /// Nothing to do: it is on its way.
    #[error("that client_message_id waits already")]
    AlreadyQueued,
    /// Send another content.
    #[error("the content: {0}")]
    Content(#[from] EntryError),
    /// Wait for answers, then ask again.
    #[error("{0} requests are on their way already")]
    TooManyRequests(usize),
    /// Wait for [`Event::Connected`], then ask again. (Sends wait by themselves.)
    #[error("not connected")]
    NotConnected,
    /// Ask something else.
    #[error("{0}")]
    Invalid(DecodeError),
    /// `connect`, `ping` and `send` are the session's own.
    #[error("the session itself makes that request")]
    NotForApplication,
}

/// Where a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Not started.
    Idle,
    /// Until the next attempt.
    Waiting,
    /// A transport is being opened.
    Connecting,
    /// `connect` is on its way.
    Greeting,
    /// The server sends what is missing.
    Resuming,
    /// Live.
    Open,
    /// No attempt follows.
    Stopped,
}

impl Phase {
    /// Every legal change.
    pub const CHANGES: &'static [(Self, Self)] = &[
        (Self::Idle, Self::Connecting),
        (Self::Idle, Self::Stopped),
        (Self::Waiting, Self::Connecting),
        (Self::Waiting, Self::Stopped),
        (Self::Connecting, Self::Greeting),
        (Self::Connecting, Self::Waiting),
        (Self::Connecting, Self::Stopped),
        (Self::Greeting, Self::Resuming),
        (Self::Greeting, Self::Waiting),
        (Self::Greeting, Self::Stopped),
        (Self::Resuming, Self::Open),
        (Self::Resuming, Self::Waiting),
        (Self::Resuming, Self::Stopped),
        (Self::Open, Self::Waiting),
        (Self::Open, Self::Stopped),
        (Self::Stopped, Self::Connecting),
    ];
}

/// A send that waits for its acknowledgement, as an application may store it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PendingSend<'a> {
    /// Where to.
    pub conversation: ConversationId,
    /// The message's name.
    pub client_message_id: ClientMessageId,
    /// What.
    pub content: &'a Content,
}

#[cfg(test)]
mod tests;
