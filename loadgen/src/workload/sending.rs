//! Messages: sent when the plan says, repeated after a reconnect or a temporary refusal, measured when acknowledged.

use std::cmp::Reverse;

use antiphon_wire::{
    frame::{Ack, Content, ErrorFrame, Request, Send},
    ids::RequestId,
};

use super::{connections::State, content::Stamp, pending::Message, plan::Senders, worker::Worker};
use crate::{
    clock::{MILLISECOND_NS, Nanoseconds},
    driver::Links,
    measure::record,
};

/// Sends between two looks at what has come, so that neither starves the other.
const SENDS_PER_TICK_MAX: usize = 256;

/// Most messages of a thread that wait for their acknowledgement; what is due beyond is not sent, and makes the run invalid.
const PENDING_MAX: usize = 1 << 20;

/// Most answers of a thread that people think about.
const REPLIES_MAX: usize = 1 << 16;

/// How often an active sender is looked for.
const SENDER_DRAWS_MAX: u32 = 64;

/// Wait before a temporary refusal is tried again, if the server names none.
const RETRY_MS: u32 = 100;

impl Worker {
    /// Sends what the plan has due, and the answers that were thought about long enough.
    pub(super) fn sends_due(&mut self, links: &mut Links) {
        for _ in 0..SENDS_PER_TICK_MAX {
            // The clock is read anew each time: the lateness of the last of many is that of the last.
            let now_ns = self.clock.now_ns();
            if let Some(&Reverse((due_ns, sender, conversation))) = self.replies.peek()
                && due_ns <= now_ns
            {
                self.replies.pop();
                self.offer(links, due_ns, sender, conversation, now_ns);
                continue;
            }
            let Some(intended_ns) = self.arrivals.as_mut().and_then(|arrivals| arrivals.take_due(now_ns)) else {
                return;
            };
            let (sender, conversation) = self.choose();
            self.offer(links, intended_ns, sender, conversation, now_ns);
            self.think_of_reply(sender, conversation, now_ns);
        }
    }

    /// Who sends the next message, and where to.
    fn choose(&mut self) -> (u32, u32) {
        if self.plan.senders == Senders::First {
            let conversation = self.random.below(u64::from(self.layout.conversations())) as u32;
            return (self.layout.creator(conversation), conversation);
        }
        let mut sender = 0;
        for _ in 0..SENDER_DRAWS_MAX {
            sender = self.random.below(u64::from(self.share.count)) as u32;
            let number = self.share.first + sender;
            if self.plan.is_active(number) && !self.plan.is_slow(number) {
                break;
            }
        }
        let layer = self.choose_layer();
        (sender, self.layout.conversation(layer, sender))
    }

    fn choose_layer(&mut self) -> u32 {
        let layers = self.layout.layers();
        let groups = (0..layers).filter(|&layer| !self.layout.is_direct_layer(layer)).count() as u32;
        let direct = match (layers - groups, groups) {
            (_, 0) => true,
            (0, _) => false,
            _ => self.random.unit() <= self.plan.habits.direct_share,
        };
        let count = if direct { layers - groups } else { groups };
        let wanted = self.random.below(u64::from(count)) as usize;
        let mut candidates = (0..layers).filter(|&layer| self.layout.is_direct_layer(layer) == direct);
        candidates.nth(wanted).unwrap_or(0)
    }

    /// Somebody else in the conversation answers, after they have thought.
    fn think_of_reply(&mut self, sender: u32, conversation: u32, now_ns: Nanoseconds) {
        let habits = &self.plan.habits;
        if habits.reply_share <= 0.0 || self.random.unit() > habits.reply_share {
            return;
        }
        if self.replies.len() >= REPLIES_MAX {
            return self.counters.replies_skipped.add(1);
        }
        let members = self.layout.members_of(conversation);
        let member = members.start + self.random.below(members.len() as u64) as u32;
        let user = self.layout.user(member);
        if user != sender {
            let due_ns = now_ns + u64::from(habits.think_ms.draw(&mut self.random)) * MILLISECOND_NS;
            self.replies.push(Reverse((due_ns, user, conversation)));
        }
    }

    /// A message's time has come.
    fn offer(
        &mut self,
        links: &mut Links,
        intended_ns: Nanoseconds,
        sender: u32,
        conversation: u32,
        now_ns: Nanoseconds,
    ) {
        if self.pending.len() >= PENDING_MAX {
            return self.counters.skipped.add(1);
        }
        let number = self.next_number;
        self.next_number = number.wrapping_add(1);
        self.checker.sending(number);
        self.counters.offered.add(1);
        self.second.offered += 1;
        if self.measured.contains(&intended_ns) {
            self.counters.measured_offered.add(1);
            record(&mut self.latencies.late, intended_ns, now_ns);
        }
        if let Some(part) = self.part_of(intended_ns) {
            self.latencies.parts[part].offered += 1;
        }
        self.queue_and_send(links, Message { sender, conversation, number, intended_ns });
    }

    /// Sends a message, which waits for its acknowledgement from now on.
    pub(super) fn queue_and_send(&mut self, links: &mut Links, message: Message) {
        let head = &mut self.connections.list[message.sender as usize].pending;
        let place = self.pending.add(head, message);
        self.send(links, place, message);
    }

    /// The named part of the load that a time belongs to.
    pub(super) fn part_of(&self, at_ns: Nanoseconds) -> Option<usize> {
        self.control.part_of(self.latencies.parts.len(), at_ns)
    }

    fn send(&mut self, links: &mut Links, place: u32, message: Message) {
        if self.connections.list[message.sender as usize].state != State::Up {
            // It is sent when the connection is back; its latency counts all the same.
            return;
        }
        let Message { sender, conversation, number, intended_ns } = message;
        let stamp = Stamp { nonce: self.plan.nonce, sender, number, intended_ns };
        let send = Send {
            conversation: self.conversations[conversation as usize],
            client_message_id: self.plan.message_id(self.share.thread, number, self.clock.timestamp(intended_ns)),
            content: Content::text(&stamp.to_text(self.plan.text_bytes(self.share.thread, number))),
        };
        self.write(links, sender, RequestId(place + 1), &Request::Send(send));
    }

    /// Sends again what a connection had on its way when it was lost, or could not send meanwhile.
    pub(super) fn send_pending(&mut self, links: &mut Links, slot: u32) {
        for place in self.pending.list(self.connections.list[slot as usize].pending) {
            if let Some(message) = self.pending.get(place) {
                self.counters.retried.add(1);
                self.send(links, place, message);
            }
        }
    }

    /// Sends again what the server refused for a while.
    pub(super) fn resends_due(&mut self, links: &mut Links, now_ns: Nanoseconds) {
        if self.resends.is_empty() {
            return;
        }
        let (due, later): (Vec<_>, Vec<_>) = self.resends.drain(..).partition(|&(due_ns, ..)| due_ns <= now_ns);
        self.resends = later;
        for (_, place, number) in due {
            if let Some(message) = self.pending.get(place).filter(|message| message.number == number) {
                self.counters.retried.add(1);
                self.send(links, place, message);
            }
        }
    }

    /// A message was acknowledged.
    pub(super) fn acked(&mut self, slot: u32, id: RequestId, ack: &Ack, now_ns: Nanoseconds) {
        let Some(message) = self.take_pending(slot, id) else {
            self.counters.protocol_errors.add(1);
            return self.note_error("an ack that belongs to no send".to_owned());
        };
        if self.large.is_some() {
            return self.large_acked(&message, ack, now_ns);
        }
        let identity = crate::checker::Identity::Message { sender: message.sender, number: message.number };
        self.checker.acked(message.conversation, ack.sequence.0, identity);
        self.counters.acked.add(1);
        self.counters.acked_again.add(u64::from(ack.duplicate));
        self.second.acked += 1;
        record(&mut self.second.send_to_ack, message.intended_ns, now_ns);
        // Of connections that were away since, the latency is that of the outage: it counts in the whole, not in its part.
        if let Some(part) = self.part_of(message.intended_ns).filter(|_| self.stood_since(slot, message.intended_ns)) {
            record(&mut self.latencies.parts[part].send_to_ack, message.intended_ns, now_ns);
        }
        if self.measured.contains(&message.intended_ns) {
            record(&mut self.latencies.send_to_ack, message.intended_ns, now_ns);
        }
        if self.measured.contains(&now_ns) {
            self.counters.measured_acked.add(1);
        }
    }

    /// A message was refused.
    pub(super) fn send_failed(&mut self, slot: u32, id: RequestId, error: &ErrorFrame, now_ns: Nanoseconds) {
        let place = id.0 - 1;
        let Some(message) = self.pending.get(place).filter(|message| message.sender == slot) else {
            return;
        };
        if error.code.temporary() {
            let wait_ms = error.retry_after_ms.unwrap_or(RETRY_MS);
            self.resends.push((now_ns + u64::from(wait_ms) * MILLISECOND_NS, place, message.number));
        } else {
            self.take_pending(slot, id);
            self.counters.rejected.add(1);
        }
    }

    fn take_pending(&mut self, slot: u32, id: RequestId) -> Option<Message> {
        let place = id.0 - 1;
        self.pending.get(place).filter(|message| message.sender == slot)?;
        self.pending.remove(&mut self.connections.list[slot as usize].pending, place)
    }
}
