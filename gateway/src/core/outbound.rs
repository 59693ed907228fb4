//! What waits to leave on one connection: bounded in bytes, at most one vectored send in flight, receipts conflated.
//!
//! An idle connection holds one empty pointer here: a queue that has run empty is given back at once, since a heartbeat's answer would
//! else keep 160 bytes for as long as the session lasts. Bytes count until their send has completed, so that a reader that stalls is seen.

use std::{collections::VecDeque, rc::Rc};

/// Buffers in one vectored send: far below the kernel's 1,024, enough that a burst leaves in few calls.
const BUFFERS_PER_SEND_MAX: usize = 64;

/// How far back a conflating push looks for the one that it replaces: a bounded scan, newest first.
const CONFLATION_SCAN_MAX: usize = 32;

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<(u64, Rc<[u8]>)>,
    bytes: usize,
    in_flight_bytes: usize,
}

/// The queue of one connection.
#[derive(Debug, Default)]
pub struct Outbound {
    queue: Option<Box<Queue>>,
}

impl Outbound {
    /// Appends bytes. A `conflation_key` other than 0 replaces what waits under the same key.
    pub fn push(&mut self, bytes: Rc<[u8]>, conflation_key: u64) {
        let queue = self.queue.get_or_insert_default();
        queue.bytes += bytes.len();
        if conflation_key != 0 {
            let waiting = queue.items.iter_mut().rev().take(CONFLATION_SCAN_MAX);
            if let Some((_, old)) = waiting.into_iter().find(|(key, _)| *key == conflation_key) {
                queue.bytes -= old.len();
                *old = bytes;
                return;
            }
        }
        queue.items.push_back((conflation_key, bytes));
    }

    /// What to send now, unless a send is in flight or nothing waits.
    pub fn take(&mut self) -> Option<Vec<Rc<[u8]>>> {
        let queue = self.queue.as_mut()?;
        if queue.in_flight_bytes > 0 || queue.items.is_empty() {
            return None;
        }
        let count = queue.items.len().min(BUFFERS_PER_SEND_MAX);
        let buffers: Vec<_> = queue.items.drain(..count).map(|(_, bytes)| bytes).collect();
        queue.in_flight_bytes = buffers.iter().map(|buffer| buffer.len()).sum();
        Some(buffers)
    }

    /// The send in flight has left.
    pub fn sent(&mut self) {
        if let Some(queue) = &mut self.queue {
            queue.bytes -= queue.in_flight_bytes;
            queue.in_flight_bytes = 0;
            if queue.bytes == 0 {
                self.queue = None;
            }
        }
    }

    /// Whether something waits for the send in flight.
    #[must_use]
    pub fn has_waiting(&self) -> bool {
        self.queue.as_ref().is_some_and(|queue| !queue.items.is_empty())
    }

    /// Bytes that wait or are in flight.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| queue.bytes)
    }

    /// Whether everything has left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes() == 0
    }

    /// Forgets what waits; what is in flight goes on.
    pub fn clear(&mut self) {
        if let Some(queue) = &mut self.queue {
            queue.items.clear();
            queue.bytes = queue.in_flight_bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Rc<[u8]> {
        Rc::from(text.as_bytes())
    }

    #[test]
    fn one_send_at_a_time_and_bytes_count_until_they_left() {
        let mut outbound = Outbound::default();
        assert!(outbound.take().is_none());
        outbound.push(bytes("one"), 0);
        outbound.push(bytes("two"), 0);
        assert_eq!(outbound.take(), Some(vec![bytes("one"), bytes("two")]));
        outbound.push(bytes("three"), 0);
        assert!(outbound.take().is_none());
        assert_eq!(outbound.bytes(), 11);
        outbound.sent();
        assert_eq!(outbound.bytes(), 5);
        outbound.clear();
        assert!(outbound.is_empty());
        outbound.push(bytes("four"), 0);
        assert_eq!(outbound.take(), Some(vec![bytes("four")]));
        outbound.sent();
        assert!(outbound.is_empty() && outbound.queue.is_none());
    }

    #[test]
    fn a_receipt_replaces_the_one_that_waits_and_messages_never() {
        let mut outbound = Outbound::default();
        outbound.push(bytes("receipt 1"), 7);
        outbound.push(bytes("message"), 0);
        outbound.push(bytes("receipt 22"), 7);
        assert_eq!(outbound.bytes(), 17);
        assert_eq!(outbound.take(), Some(vec![bytes("receipt 22"), bytes("message")]));
    }
}
