//! Requests that are asked once: they wait a while for a connection, and are lost with it.

use std::collections::{HashMap, VecDeque};

use antiphon_wire::{
    frame::{Request, ServerFrame},
    ids::RequestId,
    session::{RequestError, Session, SessionError},
};
use tokio::sync::oneshot;

use crate::error::Error;

/// A request waits so long for a connection.
const ONLINE_WAIT_MS: u64 = 10_000;

/// Most that wait for a connection.
const WAITING_MAX: usize = 256;

pub(crate) type Answer = oneshot::Sender<Result<ServerFrame, Error>>;

#[derive(Default)]
pub(crate) struct Asking {
    waiting: VecDeque<Waiting>,
    asked: HashMap<RequestId, Answer>,
}

struct Waiting {
    request: Request,
    until_ms: u64,
    answer: Answer,
}

impl Asking {
    pub(crate) fn add(&mut self, now_ms: u64, request: Request, answer: Answer) {
        if self.waiting.len() >= WAITING_MAX {
            let _ = answer.send(Err(Error::Busy(WAITING_MAX)));
            return;
        }
        self.waiting.push_back(Waiting { request, until_ms: now_ms + ONLINE_WAIT_MS, answer });
    }

    /// Asks what can be asked now, and gives up what has waited for too long.
    pub(crate) fn ask(&mut self, now_ms: u64, session: &mut Session) {
        while let Some(first) = self.waiting.front() {
            if first.answer.is_closed() {
                self.waiting.pop_front();
                continue;
            }
            let asked = match session.request(now_ms, first.request.clone()) {
                Err(SessionError::NotConnected | SessionError::TooManyRequests(_)) => break,
                asked => asked,
            };
            let Waiting { answer, .. } = self.waiting.pop_front().expect("there is a first one");
            match asked {
                Ok(id) => drop(self.asked.insert(id, answer)),
                Err(error) => drop(answer.send(Err(error.into()))),
            }
        }
        while self.waiting.front().is_some_and(|first| first.until_ms <= now_ms) {
            let Waiting { answer, .. } = self.waiting.pop_front().expect("there is a first one");
            let _ = answer.send(Err(Error::Offline));
        }
    }

    pub(crate) fn next_due_ms(&self) -> Option<u64> {
        self.waiting.front().map(|first| first.until_ms)
    }

    /// Gives an answer to whoever asked, and back if nobody here did.
    pub(crate) fn answered(
        &mut self,
        id: RequestId,
        answer: Result<Box<ServerFrame>, RequestError>,
    ) -> Option<Result<Box<ServerFrame>, RequestError>> {
        let Some(asker) = self.asked.remove(&id) else { return Some(answer) };
        let _ = asker.send(match answer {
            Ok(frame) => Ok(*frame),
            Err(RequestError::Refused(error)) => Err(Error::Refused(error)),
            Err(RequestError::Disconnected) => Err(Error::Disconnected),
        });
        None
    }

    /// Nobody waits any longer.
    pub(crate) fn give_up(&mut self, error: &Error) {
        let waiting = self.waiting.drain(..).map(|waiting| waiting.answer);
        for answer in waiting.chain(self.asked.drain().map(|(_, answer)| answer)) {
            let _ = answer.send(Err(error.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use antiphon_wire::{codec::Encoding, frame::Pins, ids::ConversationId, session::SessionConfig};

    use super::*;

    fn pins() -> Request {
        Request::Pins(Pins { conversation: ConversationId([1; 16]) })
    }

    #[test]
    fn a_request_waits_for_a_connection_and_not_for_ever() {
        let mut session = Session::new(Arc::new(SessionConfig::new(Encoding::Json)), None, None, 1);
        let mut asking = Asking::default();
        let mut waiting: Vec<_> = (0..WAITING_MAX)
            .map(|_| {
                let (answer, answered) = oneshot::channel();
                asking.add(5, pins(), answer);
                answered
            })
            .collect();
        let (answer, mut answered) = oneshot::channel();
        asking.add(5, pins(), answer);
        assert_eq!(answered.try_recv().unwrap(), Err(Error::Busy(WAITING_MAX)));
        assert_eq!(asking.next_due_ms(), Some(5 + ONLINE_WAIT_MS));
        asking.ask(4 + ONLINE_WAIT_MS, &mut session);
        assert!(waiting.iter_mut().all(|answered| answered.try_recv().is_err()));
        asking.ask(5 + ONLINE_WAIT_MS, &mut session);
        assert!(waiting.iter_mut().all(|answered| answered.try_recv() == Ok(Err(Error::Offline))));
        assert_eq!(asking.next_due_ms(), None);
    }
}
