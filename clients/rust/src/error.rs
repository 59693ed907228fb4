//! What goes wrong with a call, as one error.

use antiphon_wire::{
    codes::ErrorCode,
    frame::{EntryError, ErrorFrame},
    session::SessionError,
};

/// Why a call has no good answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The server refused it.
    #[error("{}: {}", .0.code.name(), .0.text)]
    Refused(ErrorFrame),
    /// There was no connection for as long as a request waits for one. Nothing was asked.
    #[error("there is no connection")]
    Offline,
    /// The connection ended before the answer: the request may have been carried out or not.
    #[error("the connection ended before the answer")]
    Disconnected,
    /// The client has stopped: see [`Event::Stopped`](crate::Event::Stopped). Sends and changes are kept for another start.
    #[error("the client has stopped")]
    Stopped,
    /// Its events are not read, so that no answer can be: it was taken, and what became of it comes as an event.
    #[error("the answer can't be read before the events that came first are")]
    EventsUnread,
    /// Too much waits already; ask again when something was answered.
    #[error("{0} wait already")]
    Busy(usize),
    /// One of that name waits already.
    #[error("that client_message_id waits already")]
    AlreadyWaits,
    /// It makes no sense, and was not sent.
    #[error("{0}")]
    Invalid(String),
    /// The server's answer makes no sense.
    #[error("the answer is not one to that request")]
    Answer,
}

impl Error {
    /// The server's code, where it was the server who refused.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused(error) => Some(error.code),
            _ => None,
        }
    }

    /// Whether the same may succeed later.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Refused(error) => error.code.temporary(),
            Self::Offline | Self::Disconnected | Self::Busy(_) => true,
            _ => false,
        }
    }
}

impl From<SessionError> for Error {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::OutboxFull(count) | SessionError::TooManyRequests(count) => Self::Busy(count),
            SessionError::AlreadyQueued => Self::AlreadyWaits,
            SessionError::NotConnected => Self::Offline,
            error @ (SessionError::Content(_) | SessionError::Invalid(_) | SessionError::NotForApplication) => {
                Self::Invalid(error.to_string())
            }
        }
    }
}

impl From<EntryError> for Error {
    fn from(error: EntryError) -> Self {
        Self::Invalid(error.to_string())
    }
}
