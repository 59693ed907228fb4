//! Changes of messages on their way: edits, deletions, reactions, pins, retention.
//!
//! Invariants: one of a conversation at a time, in the order in which they were asked for, so that none overtakes another; each under one
//! name until the server has said what came of it, over any number of connections.

use antiphon_wire::{
    frame::{Ack, Delete, Edit, ErrorFrame, Pin, React, Request, Retain, ServerFrame},
    ids::{ClientMessageId, ConversationId, RequestId},
    session::{RequestError, Session, SessionError},
};
use tokio::sync::oneshot;

use crate::error::Error;

/// Most that wait.
const CHANGES_MAX: usize = 256;

/// Wait before the retry of a temporary failure that came without a time.
const RETRY_MS: u32 = 1_000;

pub(crate) type Answer = oneshot::Sender<Result<Ack, Error>>;

#[derive(Default)]
pub(crate) struct Changes {
    items: Vec<Item>,
}

struct Item {
    conversation: ConversationId,
    name: ClientMessageId,
    request: Request,
    asked: Option<RequestId>,
    not_before_ms: u64,
    answer: Option<Answer>,
}

/// What came of a change.
pub(crate) struct Outcome {
    pub(crate) name: ClientMessageId,
    pub(crate) of: Result<Ack, ErrorFrame>,
}

/// Which conversation a change is of, and what it is called.
fn subject(request: &Request) -> Option<(ConversationId, ClientMessageId)> {
    match request {
        Request::Edit(Edit { conversation, client_message_id, .. })
        | Request::Delete(Delete { conversation, client_message_id, .. })
        | Request::React(React { conversation, client_message_id, .. })
        | Request::Pin(Pin { conversation, client_message_id, .. })
        | Request::Retain(Retain { conversation, client_message_id, .. }) => Some((*conversation, *client_message_id)),
        _ => None,
    }
}

impl Changes {
    pub(crate) fn add(&mut self, request: Request, answer: Answer) {
        let (conversation, name) = subject(&request).expect("only changes are added");
        let refusal = if self.items.len() >= CHANGES_MAX {
            Some(Error::Busy(CHANGES_MAX))
        } else if self.items.iter().any(|item| item.name == name) {
            Some(Error::AlreadyWaits)
        } else {
            None
        };
        if let Some(error) = refusal {
            let _ = answer.send(Err(error));
            return;
        }
        let answer = Some(answer);
        self.items.push(Item { conversation, name, request, asked: None, not_before_ms: 0, answer });
    }

    /// Asks what can be asked now.
    pub(crate) fn ask(&mut self, now_ms: u64, session: &mut Session) {
        let mut index = 0;
        while index < self.items.len() {
            if self.is_ready(index, now_ms) {
                let item = &mut self.items[index];
                match session.request(now_ms, item.request.clone()) {
                    Ok(id) => item.asked = Some(id),
                    Err(SessionError::NotConnected | SessionError::TooManyRequests(_)) => return,
                    Err(error) => {
                        let Item { answer, .. } = self.items.remove(index);
                        answer.map(|answer| answer.send(Err(error.into())));
                        continue;
                    }
                }
            }
            index += 1;
        }
    }

    fn is_ready(&self, index: usize, now_ms: u64) -> bool {
        let Item { conversation, asked, not_before_ms, .. } = &self.items[index];
        let is_first = self.items[..index].iter().all(|earlier| earlier.conversation != *conversation);
        asked.is_none() && is_first && *not_before_ms <= now_ms
    }

    /// When one that was refused for now is asked again. (What is due and was not asked waits for something else.)
    pub(crate) fn next_due_ms(&self, now_ms: u64) -> Option<u64> {
        self.items.iter().map(|item| item.not_before_ms).filter(|due_ms| *due_ms > now_ms).min()
    }

    /// Takes an answer; `None` where it was for now only, or to nothing that is here.
    pub(crate) fn answered(
        &mut self,
        now_ms: u64,
        id: RequestId,
        answer: Result<Box<ServerFrame>, RequestError>,
    ) -> Option<Outcome> {
        let index = self.items.iter().position(|item| item.asked == Some(id))?;
        let item = &mut self.items[index];
        let of = match answer {
            Err(RequestError::Disconnected) => {
                (item.asked, item.not_before_ms) = (None, 0);
                return None;
            }
            Err(RequestError::Refused(error)) if error.code.temporary() => {
                let retry_after_ms = error.retry_after_ms.unwrap_or(RETRY_MS).max(1);
                (item.asked, item.not_before_ms) = (None, now_ms + u64::from(retry_after_ms));
                return None;
            }
            Err(RequestError::Refused(error)) => Err(error),
            Ok(frame) => Ok(ack(*frame)),
        };
        let Item { name, answer, .. } = self.items.remove(index);
        let of = match of {
            Ok(None) => {
                answer.map(|answer| answer.send(Err(Error::Answer)));
                return None;
            }
            Ok(Some(ack)) => Ok(ack),
            Err(error) => Err(error),
        };
        answer.map(|answer| answer.send(of.clone().map_err(Error::Refused)));
        Some(Outcome { name, of })
    }

    /// Nobody waits for an answer any longer; what is under way goes on.
    pub(crate) fn detach(&mut self, error: &Error) {
        for answer in self.items.iter_mut().filter_map(|item| item.answer.take()) {
            let _ = answer.send(Err(error.clone()));
        }
    }
}

fn ack(frame: ServerFrame) -> Option<Ack> {
    match frame {
        ServerFrame::EditAnswer(ack)
        | ServerFrame::DeleteAnswer(ack)
        | ServerFrame::ReactAnswer(ack)
        | ServerFrame::PinAnswer(ack)
        | ServerFrame::RetainAnswer(ack) => Some(ack),
        _ => None,
    }
}
