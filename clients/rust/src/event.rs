//! What an application is told.

use antiphon_wire::{
    codes::CloseCode,
    frame::{self, Ack, Advanced, ErrorFrame, Left, Receipt, States, UserPresence},
    ids::{ClientMessageId, ConversationId, DeviceId, Epoch, Sequence, UserId},
};

use crate::{entry::Entry, progress::Progress};

/// What happened. More kinds may come.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The server took the session; what was missed follows.
    Connected {
        /// Whom the server takes this for.
        user: UserId,
        /// Which of the user's devices.
        device: DeviceId,
    },
    /// What was missed is told; what follows happens now.
    CaughtUp,
    /// The connection is gone. The next attempt is made by itself.
    Disconnected {
        /// In so long.
        retry_in_ms: u64,
    },
    /// No further attempt is made: [`Client::resume`](crate::Client::resume) makes one.
    Stopped(Stopped),
    /// The next entry of a conversation. (Boxed: it is the largest by far.)
    Entry(Box<Entry>),
    /// What became of messages that come as entries right before or after this; `as_of` says which entries are in it.
    States(States),
    /// A message or a change is durable, whether the call that asked for it still waits or not.
    Durable {
        /// Its name.
        client_message_id: ClientMessageId,
        /// Its place; whether the server had it already.
        ack: Ack,
    },
    /// A message or a change never will be.
    Refused {
        /// Its name.
        client_message_id: ClientMessageId,
        /// Why.
        error: ErrorFrame,
    },
    /// Somebody's pointers moved.
    Receipt(Receipt),
    /// Another member tells of something for the moment, such as that it types.
    Happened(frame::Event),
    /// Users are there or have gone of whom [`Client::presence`](crate::Client::presence) asked to be told: first as they are then, and again as they
    /// come and go.
    Present(Vec<UserPresence>),
    /// A large conversation has gone on up to this entry. Its entries follow only if it is [viewed](crate::Client::view), or the client is not
    /// [lazy](crate::Options::lazy).
    Advanced(Advanced),
    /// A message that means the user, of a large conversation that is not viewed, beside the others: it also comes as [`Event::Entry`] in its
    /// turn, if that comes.
    Mentioned(Box<Entry>),
    /// One is no member of a conversation any more: it is as if it did not exist.
    Left(Left),
    /// Entries of a conversation that can't be had any more, or never could; the next one comes after them.
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
        /// The new incarnation.
        epoch: Epoch,
    },
    /// The server can't resume: what the application has of all conversations is void; list them again.
    Reset,
    /// All events before this one are in it: see [`Progress`].
    Progress(Progress),
    /// Something for the log of who operates this: a dial that failed, a frame that makes no sense.
    Trouble(String),
}

/// Why no further attempt is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stopped {
    /// The application asked for it.
    Asked,
    /// The same device connected elsewhere.
    Replaced,
    /// The device was logged out: it comes in again by a new token alone.
    LoggedOut,
    /// As many devices of the user are connected as may be: one of them has to go first.
    TooManyDevices,
    /// The token is not accepted, or is over, and another one did not help; or there is none.
    Unauthenticated(String),
    /// The server says not to come back.
    Closed(u16),
    /// The server refused the session for good.
    Refused(ErrorFrame),
}

impl Stopped {
    pub(crate) fn of_close(code: u16) -> Self {
        match CloseCode::from_number(code) {
            Some(CloseCode::Replaced) => Self::Replaced,
            Some(CloseCode::Revoked) => Self::LoggedOut,
            Some(CloseCode::TooManyDevices) => Self::TooManyDevices,
            Some(about @ (CloseCode::Unauthenticated | CloseCode::TokenExpired)) => {
                Self::Unauthenticated(about.text().to_owned())
            }
            _ => Self::Closed(code),
        }
    }
}
