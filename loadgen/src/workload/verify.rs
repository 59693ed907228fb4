//! After the drain: the history of every conversation is read by one of its members, and compared with what was acknowledged. A
//! message that everybody got and that a node then forgot is found by nothing else, if nothing is sent after it.

use std::collections::HashMap;

use antiphon_wire::{
    frame::{ErrorFrame, History, HistoryAnswer, Request},
    ids::Sequence,
    limits::PAGE_ITEMS_MAX,
};

use super::{
    connections::State,
    worker::{Worker, request},
};
use crate::{
    checker::Tally,
    clock::{MILLISECOND_NS, Nanoseconds},
    driver::Links,
};

/// Histories of a thread that are read at once.
const IN_FLIGHT_MAX: usize = 64;

/// Wait before one is tried again, if the server names none.
const RETRY_MS: u32 = 200;

#[derive(Debug, Clone, Copy)]
struct Reading {
    slot: u32,
    /// What was acknowledged when it began. An answer that comes meanwhile makes it begin anew: a page that was read before may have held
    /// the message, which was passed over because its outcome was open.
    acked: Tally,
    found: Tally,
}

/// Where it stands.
#[derive(Debug, Default)]
pub(super) struct Verify {
    next: u32,
    count: u32,
    readings: HashMap<u32, Reading>,
    retries: Vec<(Nanoseconds, u32)>,
}

impl Verify {
    /// All of these conversations are still to be read.
    pub(super) fn all(count: u32) -> Self {
        Self { count, ..Self::default() }
    }
}

impl Worker {
    /// Begins with the next histories.
    pub(super) fn verify_due(&mut self, links: &mut Links, now_ns: Nanoseconds) {
        let (due, later): (Vec<_>, Vec<_>) = self.verify.retries.drain(..).partition(|&(due_ns, _)| due_ns <= now_ns);
        self.verify.retries = later;
        for (_, conversation) in due {
            self.verify_from_start(links, conversation, now_ns);
        }
        while self.verify.next < self.verify.count
            && self.verify.readings.len() + self.verify.retries.len() < IN_FLIGHT_MAX
        {
            let conversation = self.verify.next;
            self.verify.next += 1;
            self.verify_from_start(links, conversation, now_ns);
        }
    }

    fn verify_from_start(&mut self, links: &mut Links, conversation: u32, now_ns: Nanoseconds) {
        let Some(baseline) = self.checker.baseline(conversation) else {
            return self.counters.verified.add(1);
        };
        let layout = self.layout.clone();
        let mut users = layout.users_of(conversation);
        let Some(slot) = users.find(|&user| self.connections.list[user as usize].state == State::Up) else {
            return self.verify.retries.push((now_ns + u64::from(RETRY_MS) * MILLISECOND_NS, conversation));
        };
        self.verify
            .readings
            .insert(conversation, Reading { slot, acked: self.checker.stored(conversation), found: Tally::default() });
        self.ask_to_verify(links, slot, conversation, baseline);
    }

    fn ask_to_verify(&mut self, links: &mut Links, slot: u32, conversation: u32, after: u64) {
        let history = History {
            conversation: self.conversations[conversation as usize],
            before: None,
            after: Some(Sequence(after)),
            around: None,
            limit: Some(PAGE_ITEMS_MAX),
        };
        self.write(links, slot, request::VERIFY, &Request::History(history));
    }

    /// A page came.
    pub(super) fn verify_page(&mut self, links: &mut Links, slot: u32, page: &HistoryAnswer) {
        let Some(member) = self.membership(slot, page.conversation) else {
            return self.checker.foreign();
        };
        let conversation = self.layout.conversation_of(member);
        let Some(mut reading) = self.verify.readings.remove(&conversation) else { return };
        let mut last = None;
        for entry in page.entries.iter().filter_map(|entry| entry.view().ok()) {
            let sequence = u64::from(entry.sequence.0);
            last = Some(sequence);
            if let Some(stamp) = self.stamp(entry)
                && !self.is_pending(stamp.sender, stamp.number)
            {
                reading.found.add(sequence, stamp.sender, stamp.number);
            }
        }
        match last {
            Some(last) if last < page.last.0 => {
                self.verify.readings.insert(conversation, reading);
                self.ask_to_verify(links, slot, conversation, last);
            }
            _ if reading.acked != self.checker.stored(conversation) => {
                self.verify.retries.push((self.clock.now_ns() + u64::from(RETRY_MS) * MILLISECOND_NS, conversation));
            }
            _ => {
                let surplus_possible = self.counters.rejected.get() > 0;
                self.checker.compare_history(conversation, reading.found, surplus_possible);
                self.counters.found.add(reading.found.count);
                self.counters.verified.add(1);
            }
        }
    }

    /// Whether a message waits for its acknowledgement: it may be stored or not.
    fn is_pending(&self, sender: u32, number: u32) -> bool {
        let Some(connection) = self.connections.list.get(sender as usize) else { return false };
        let places = self.pending.list(connection.pending);
        places.into_iter().filter_map(|place| self.pending.get(place)).any(|message| message.number == number)
    }

    /// A page was refused: those that the connection reads begin anew a little later.
    pub(super) fn verify_failed(&mut self, slot: u32, error: &ErrorFrame, now_ns: Nanoseconds) {
        self.verify_again(slot, error.retry_after_ms.unwrap_or(RETRY_MS), now_ns);
    }

    /// A connection was lost: what it was reading begins anew.
    pub(super) fn verify_connection_lost(&mut self, slot: u32, now_ns: Nanoseconds) {
        self.verify_again(slot, RETRY_MS, now_ns);
    }

    fn verify_again(&mut self, slot: u32, wait_ms: u32, now_ns: Nanoseconds) {
        let reading = self.verify.readings.iter().filter(|(_, reading)| reading.slot == slot);
        let conversations: Vec<u32> = reading.map(|(&conversation, _)| conversation).collect();
        for conversation in conversations {
            self.verify.readings.remove(&conversation);
            self.verify.retries.push((now_ns + u64::from(wait_ms) * MILLISECOND_NS, conversation));
        }
    }
}
