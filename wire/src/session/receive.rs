//! What each frame of a server does to a session.
//!
//! Invariants: an entry is delivered when and only when it is the next of its conversation; nothing that a server says makes the
//! session panic or stand still; a contradiction costs at most the stretch it is about, and the application is told.

use super::{
    Event, Phase, RequestError, Session, StopReason,
    backoff::Hint,
    machine::Pending,
    reorder::{Progressed, Room},
};
use crate::{
    codec::DecodeError,
    codes::ErrorCode,
    frame::{
        Ack, Advanced, ArchivedEntryKind, EntryBytes, ErrorFrame, Goodbye, HistoryAnswer, Left, PositionBytes,
        ResumeOutcome, ServerFrame, TooFar, Welcome,
    },
    ids::{ClientMessageId, ConversationId, Epoch, Ordinal, RequestId, Sequence, TimestampMs},
};

/// Wait before what a server refused for now is tried again, where it names none.
const RETRY_AFTER_MS: u32 = 1_000;

impl Session {
    pub(super) fn receive(&mut self, now_ms: u64, bytes: &[u8]) {
        let (id, frame) = match self.config.encoding.decode_server(bytes) {
            Ok(frame) => frame,
            Err(error) => return self.undecodable(now_ms, error),
        };
        if let Some(id) = id {
            // An answer that nobody waits for any more, such as to a send whose entry came first, says nothing new.
            if let Some(pending) = self.take_pending(id) {
                self.answered(now_ms, id, pending, frame);
            }
            return;
        }
        match frame {
            ServerFrame::Error(error) => self.trouble(error),
            ServerFrame::Goodbye(goodbye) => self.goodbye(now_ms, &goodbye),
            frame if self.is_live() => self.pushed(now_ms, frame),
            _ => self.nonsense(None, "a push before welcome"),
        }
    }

    fn answered(&mut self, now_ms: u64, id: RequestId, pending: Pending, frame: ServerFrame) {
        match (pending, frame) {
            (Pending::Application, ServerFrame::Error(error)) => {
                self.event(Event::Answer { id, answer: Err(RequestError::Refused(error)) });
            }
            (Pending::Application, frame) => self.event(Event::Answer { id, answer: Ok(Box::new(frame)) }),
            (Pending::Connect, ServerFrame::Welcome(welcome)) => self.welcomed(now_ms, welcome),
            (Pending::Ping, ServerFrame::Pong(pong)) => {
                if let Some(position) = pong.position {
                    self.positioned(position);
                }
            }
            (Pending::Send, ServerFrame::Ack(ack)) => {
                if let Some(send) = self.work().outbox.take_request(id) {
                    let (client_message_id, conversation) = (send.client_message_id, send.conversation);
                    self.event(Event::Acked { client_message_id, conversation, ack });
                }
            }
            (Pending::History(conversation), ServerFrame::HistoryAnswer(answer)) => {
                self.paged(now_ms, conversation, answer);
            }
            (Pending::View(conversation), ServerFrame::ViewAnswer(answer)) => {
                if let Some(sequence) = answer.sequence {
                    self.ends_at(now_ms, conversation, sequence);
                }
            }
            (pending, ServerFrame::Error(error)) => self.refused(now_ms, id, pending, error),
            (pending, _) => {
                self.nonsense(Some(id), "an answer that does not fit its request");
                self.refused(now_ms, id, pending, malformed("an answer that does not fit its request"));
            }
        }
    }

    fn pushed(&mut self, now_ms: u64, frame: ServerFrame) {
        match frame {
            ServerFrame::Message(entry) => self.entry(now_ms, entry),
            ServerFrame::Receipt(receipt) => self.event(Event::Receipt(receipt)),
            ServerFrame::States(states) => self.event(Event::States(states)),
            ServerFrame::Event(happened) => self.event(Event::Happened(happened)),
            ServerFrame::Expiring(expiring) => self.event(Event::Expiring(expiring)),
            ServerFrame::Present(present) => self.event(Event::Present(present)),
            ServerFrame::Advanced(advanced) => self.advanced(now_ms, advanced),
            ServerFrame::Mentioned(entry) => {
                let Head { conversation, sequence, .. } = Head::of(&entry);
                self.event(Event::Mentioned { conversation, sequence, entry });
            }
            ServerFrame::Left(left) => {
                self.forget(left.conversation);
                if let Some(views) = &mut self.views {
                    views.close(left.conversation);
                }
                self.event(Event::Left(left));
                self.gaps_closed();
            }
            ServerFrame::TooFar(too_far) => self.too_far(now_ms, &too_far),
            ServerFrame::CaughtUp(caught_up) => {
                if self.phase == Phase::Resuming {
                    self.enter(Phase::Open, self.clock_ms);
                    self.event(Event::CaughtUp);
                }
                self.positioned(caught_up.position);
            }
            _ => self.nonsense(None, "an answer without an id"),
        }
    }

    fn welcomed(&mut self, now_ms: u64, welcome: Welcome) {
        self.enter(Phase::Resuming, now_ms);
        self.pinged_ms = now_ms;
        if let Some(views) = &mut self.views {
            views.connected(now_ms);
        }
        self.set_heartbeat(welcome.heartbeat_interval_ms);
        let other_user = self.identity.user.as_ref().is_some_and(|user| *user != welcome.user);
        self.identity.user = Some(welcome.user.clone());
        let outcome = welcome.resume;
        self.event(Event::Connected(Box::new(welcome)));
        match outcome {
            _ if other_user => self.reset(),
            ResumeOutcome::Reset => self.reset(),
            ResumeOutcome::Resuming => {}
            // Without a position (the last connection broke before it gave one) the server streams nothing, so history is
            // asked what came meanwhile.
            ResumeOutcome::Fresh => {
                let known: Vec<_> = self.progress.all().collect();
                for known in known {
                    self.work().reorder.fetch_to_the_end(known.conversation, now_ms);
                }
            }
        }
    }

    fn reset(&mut self) {
        self.progress.forget();
        if let Some(views) = &mut self.views {
            views.forget_all();
        }
        self.event(Event::Reset);
    }

    /// Everything up to `position` was sent before. It counts once all of that was delivered too.
    fn positioned(&mut self, position: PositionBytes) {
        match &mut self.work {
            Some(work) if work.reorder.is_open() => work.reorder.keep_position(position),
            _ => self.progress.adopt(position),
        }
    }

    fn entry(&mut self, now_ms: u64, entry: EntryBytes) {
        let head = Head::of(&entry);
        self.acknowledge(&entry);
        let before = Sequence(head.sequence.0.saturating_sub(1));
        let last = match self.progress.get(head.conversation) {
            Some((epoch, last)) if epoch == head.epoch => last,
            known => {
                if known.is_some() {
                    self.conversation_reset(head.conversation, head.epoch);
                }
                // The first entry that a client sees may be any: its user may have joined late.
                self.progress.set(head.conversation, head.epoch, before);
                before
            }
        };
        if head.sequence == last.next() {
            self.deliver(now_ms, head, entry);
            self.drain(now_ms, head.conversation);
        } else if head.sequence > last && self.is_left_behind(head.conversation) {
            let view = entry.view().expect("a decoded entry was validated");
            let (ordinal, time_ms) = (Ordinal(view.ordinal.0.to_native()), TimestampMs(view.time_ms.0.to_native()));
            let Head { conversation, epoch, sequence } = head;
            self.advanced(now_ms, Advanced { conversation, epoch, sequence, ordinal, time_ms });
        } else if head.sequence > last {
            let room = Room { items_max: self.config.reorder_items_max, bytes_max: self.config.reorder_bytes_max };
            let fetch_at_ms = now_ms + u64::from(self.config.reorder_wait_ms);
            self.work().reorder.hold(room, fetch_at_ms, head.conversation, head.sequence, entry);
        }
    }

    /// A large conversation has gone on, and what is new in it does not come by itself.
    fn advanced(&mut self, now_ms: u64, advanced: Advanced) {
        let Advanced { conversation, epoch, sequence, .. } = advanced;
        let known = self.progress.get(conversation);
        if known.is_some_and(|(known, _)| known != epoch) {
            self.conversation_reset(conversation, epoch);
        }
        self.event(Event::Advanced(advanced));
        if self.config.lazy && !self.views.as_ref().is_some_and(|views| views.is_open(conversation)) {
            if self.progress.get(conversation).is_some_and(|(_, last)| last < sequence) {
                self.views.get_or_insert_default().advanced(conversation, sequence);
            }
            return;
        }
        if self.progress.get(conversation).is_none() {
            // The first entry that a client sees may be any.
            self.progress.set(conversation, epoch, Sequence(sequence.0.saturating_sub(1)));
        }
        self.ends_at(now_ms, conversation, sequence);
    }

    /// A conversation that is followed has entries up to here, which are to be fetched.
    fn ends_at(&mut self, now_ms: u64, conversation: ConversationId, sequence: Sequence) {
        let known = self.views.as_ref().and_then(|views| views.end(conversation));
        let end = known.map_or(sequence, |end| end.max(sequence));
        if self.progress.get(conversation).is_some_and(|(_, last)| last < end) {
            self.work().reorder.fetch(conversation, end, now_ms);
        }
    }

    fn is_left_behind(&self, conversation: ConversationId) -> bool {
        self.views.as_ref().is_some_and(|views| views.is_left_behind(conversation))
    }

    /// An own message that came back is as good as its acknowledgement, which may have been lost with a connection.
    fn acknowledge(&mut self, entry: &EntryBytes) {
        let (Some(work), Some(user)) = (&mut self.work, &self.identity.user) else { return };
        if work.outbox.is_empty() {
            return;
        }
        let view = entry.view().expect("a decoded entry was validated");
        if !matches!(view.kind, ArchivedEntryKind::Message) || view.sender.as_str() != user.as_str() {
            return;
        }
        let conversation = ConversationId(view.conversation.0);
        let client_message_id = ClientMessageId(view.client_message_id.0);
        if work.outbox.take_seen(conversation, client_message_id, &view.body).is_some() {
            let ack = Ack {
                sequence: Sequence(view.sequence.0.to_native()),
                ordinal: Ordinal(view.ordinal.0.to_native()),
                time_ms: TimestampMs(view.time_ms.0.to_native()),
                duplicate: false,
            };
            self.event(Event::Acked { client_message_id, conversation, ack });
        }
    }

    fn deliver(&mut self, now_ms: u64, head: Head, entry: EntryBytes) {
        let Head { conversation, epoch, sequence } = head;
        self.progress.set(conversation, epoch, sequence);
        if let Some(views) = &mut self.views {
            views.delivered(conversation, sequence);
        }
        if self.config.delivered_after_ms.is_some() {
            let sender = &entry.view().expect("a decoded entry was validated").sender;
            if self.identity.user.as_ref().is_none_or(|user| user.as_str() != sender.as_str()) {
                self.note_delivered(now_ms, conversation);
            }
        }
        self.event(Event::Entry { conversation, sequence, entry });
    }

    /// Delivers what waited for the entries delivered just now.
    fn drain(&mut self, now_ms: u64, conversation: ConversationId) {
        while let (Some(work), Some((_, last))) = (&mut self.work, self.progress.get(conversation)) {
            let Some(entry) = work.reorder.next_after(conversation, last) else {
                work.reorder.settle(conversation, last);
                break;
            };
            self.deliver(now_ms, Head::of(&entry), entry);
        }
        self.gaps_closed();
    }

    /// A position that came while a gap was open counts when none is open any more.
    fn gaps_closed(&mut self) {
        if let Some(position) = self.work.as_mut().and_then(|work| work.reorder.take_position()) {
            self.progress.adopt_late(position);
        }
    }

    fn too_far(&mut self, now_ms: u64, too_far: &TooFar) {
        let conversation = too_far.conversation;
        let before = Sequence(too_far.first.0.saturating_sub(1));
        match self.progress.get(conversation) {
            Some((epoch, _)) if epoch == too_far.epoch => self.skip_to(conversation, before),
            known => {
                if known.is_some() {
                    self.conversation_reset(conversation, too_far.epoch);
                }
                self.progress.set(conversation, too_far.epoch, before);
            }
        }
        self.work().reorder.fetch(conversation, too_far.last, now_ms);
        self.drain(now_ms, conversation);
    }

    fn paged(&mut self, now_ms: u64, conversation: ConversationId, answer: HistoryAnswer) {
        self.work().reorder.landed();
        let Some((epoch, asked_after)) = self.progress.get(conversation) else { return };
        if answer.epoch != epoch {
            self.conversation_reset(conversation, answer.epoch);
            return self.gaps_closed();
        }
        self.skip_to(conversation, Sequence(answer.first.0.saturating_sub(1)));
        for entry in answer.entries {
            let head = Head::of(&entry);
            let (_, last) = self.progress.get(conversation).expect("it is followed");
            if (head.conversation, head.epoch, head.sequence) == (conversation, epoch, last.next()) {
                self.acknowledge(&entry);
                self.deliver(now_ms, head, entry);
            }
        }
        self.drain(now_ms, conversation);
        let (_, last) = self.progress.get(conversation).expect("it is followed");
        let later_ms = now_ms + u64::from(self.config.reorder_wait_ms);
        let progressed =
            self.work().reorder.progressed(conversation, answer.last, last > asked_after, now_ms, later_ms);
        if let Progressed::GiveUp(to) = progressed {
            self.skip_to(conversation, to);
        }
        self.drain(now_ms, conversation);
    }

    fn refused(&mut self, now_ms: u64, id: RequestId, pending: Pending, error: ErrorFrame) {
        let retry_after_ms = error.retry_after_ms.unwrap_or(RETRY_AFTER_MS);
        let retry_at_ms = now_ms + u64::from(retry_after_ms);
        match pending {
            Pending::Connect if error.code.temporary() => {
                self.hint = error.retry_after_ms.map_or(self.hint, Hint::AtLeast);
                self.event(Event::Trouble(error));
                self.abandon(now_ms);
            }
            Pending::Connect => {
                self.output(super::Output::Close);
                self.halt(StopReason::Refused(error));
            }
            Pending::Send if error.code.temporary() => self.work().outbox.hold(id, retry_at_ms),
            Pending::Send => {
                if let Some(send) = self.work().outbox.take_request(id) {
                    let (client_message_id, conversation) = (send.client_message_id, send.conversation);
                    self.event(Event::SendFailed { client_message_id, conversation, error });
                }
            }
            Pending::History(conversation) => {
                self.work().reorder.landed();
                self.page_refused(now_ms, conversation, retry_at_ms, &error);
            }
            // The next one is sent in its time.
            Pending::Ping => {}
            Pending::View(conversation) => {
                if let Some(views) = &mut self.views {
                    if error.code.temporary() {
                        views.tell_again(conversation, retry_at_ms);
                    } else {
                        views.close(conversation);
                    }
                }
            }
            Pending::Application => self.event(Event::Answer { id, answer: Err(RequestError::Refused(error)) }),
        }
    }

    fn page_refused(&mut self, now_ms: u64, conversation: ConversationId, retry_at_ms: u64, error: &ErrorFrame) {
        let Some((_, sequence)) = self.progress.get(conversation) else { return };
        if error.code.temporary() {
            return self.work().reorder.retry(conversation, retry_at_ms);
        }
        if error.code == ErrorCode::NotFound {
            self.forget(conversation);
            self.event(Event::Left(Left { conversation, sequence }));
            return self.gaps_closed();
        }
        let end = self.work().reorder.end_of_gap(conversation);
        self.skip_to(conversation, end);
        // Beyond what waited there may be more to fetch.
        self.work().reorder.retry(conversation, retry_at_ms);
        self.drain(now_ms, conversation);
    }

    fn skip_to(&mut self, conversation: ConversationId, to: Sequence) {
        if let Some((epoch, last)) = self.progress.get(conversation)
            && to > last
        {
            self.progress.set(conversation, epoch, to);
            if let Some(views) = &mut self.views {
                views.delivered(conversation, to);
            }
            self.event(Event::Skipped { conversation, from: last.next(), to });
        }
    }

    fn conversation_reset(&mut self, conversation: ConversationId, epoch: Epoch) {
        self.forget(conversation);
        self.event(Event::ConversationReset { conversation, epoch });
    }

    fn trouble(&mut self, error: ErrorFrame) {
        self.hint = error.retry_after_ms.map_or(self.hint, Hint::AtLeast);
        self.event(Event::Trouble(error));
    }

    fn goodbye(&mut self, now_ms: u64, goodbye: &Goodbye) {
        self.goodbye = goodbye.code;
        self.hint = goodbye.reconnect_after_ms.map_or(self.hint, Hint::Spread);
        self.abandon(now_ms);
    }

    fn undecodable(&mut self, now_ms: u64, error: DecodeError) {
        let pending = error.id.and_then(|id| self.take_pending(id).map(|pending| (id, pending)));
        let refusal = malformed(&error.text);
        self.event(Event::Undecodable(error));
        if let Some((id, pending)) = pending {
            self.refused(now_ms, id, pending, refusal);
        }
    }

    fn nonsense(&mut self, id: Option<RequestId>, text: &str) {
        self.event(Event::Undecodable(DecodeError { id, code: ErrorCode::Malformed, text: text.to_owned() }));
    }
}

/// Where an entry belongs.
#[derive(Clone, Copy)]
struct Head {
    conversation: ConversationId,
    epoch: Epoch,
    sequence: Sequence,
}

impl Head {
    fn of(entry: &EntryBytes) -> Self {
        let view = entry.view().expect("a decoded entry was validated");
        Self {
            conversation: ConversationId(view.conversation.0),
            epoch: Epoch(view.epoch.0.to_native()),
            sequence: Sequence(view.sequence.0.to_native()),
        }
    }
}

fn malformed(text: &str) -> ErrorFrame {
    ErrorFrame { code: ErrorCode::Malformed, text: text.to_owned(), retry_after_ms: None }
}
