//! Plain echoes: what a connection sends must come back, byte for byte and in order. A payload says which of its connection's
//! messages it is and when it was meant to be sent, so nothing is kept but two numbers a connection.
//!
//! ```text
//!  0       4       8              16
//! +-------+-------+---------------+---------
//! | number| slot  | intended, ns  | filler …
//! +-------+-------+---------------+---------
//! ```

use super::{connections::State, control::Phase, worker::Worker};
use crate::{
    checker::Violations,
    clock::{MILLISECOND_NS, Nanoseconds},
    driver::Links,
    measure::record,
    websocket::Opcode,
};

/// Shortest payload: what it has to say.
pub const ECHO_BYTES_MIN: u32 = 16;

/// Sends between two looks at what has come.
const SENDS_PER_TICK_MAX: usize = 256;

/// The rest of a payload.
const FILLER: u8 = b'~';

/// A connection's messages.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct EchoState {
    sent: u32,
    received: u32,
    violations: EchoViolations,
}

#[derive(Debug, Clone, Copy, Default)]
struct EchoViolations {
    order: u16,
    gap: u16,
    mismatch: u16,
}

impl EchoState {
    /// A payload came back, which says that it is this message.
    fn take(&mut self, number: u32) {
        let ahead = number.wrapping_sub(self.received);
        if ahead >= self.sent.wrapping_sub(self.received) {
            // Not under way: it came before, or it was passed over, which counted as a gap.
            self.violations.order = self.violations.order.saturating_add(1);
            return;
        }
        self.violations.gap = self.violations.gap.saturating_add(ahead.min(u32::from(u16::MAX)) as u16);
        self.received = number.wrapping_add(1);
    }

    /// How many are under way.
    fn under_way(&self) -> u32 {
        self.sent.wrapping_sub(self.received)
    }

    /// What broke; what is still under way is lost.
    pub(super) fn finish(&self) -> Violations {
        let EchoViolations { order, gap, mismatch } = self.violations;
        Violations {
            order: order.into(),
            gap: gap.into(),
            mismatch: mismatch.into(),
            lost: self.under_way().into(),
            ..Violations::default()
        }
    }
}

impl Worker {
    /// The WebSocket stands; there is nothing to be said first.
    pub(super) fn echo_open(&mut self, links: &mut Links, slot: u32) {
        let now_ns = self.clock.now_ns();
        self.welcomed(slot, (ATTEMPTS_LOOKED_AT_NS / MILLISECOND_NS) as u32, now_ns);
        self.now_live(links, slot, now_ns);
        let state = &mut self.echo[slot as usize];
        // What was under way on an earlier connection ended with it, as it does with any echo server.
        self.counters.rejected.add(state.under_way().into());
        (state.sent, state.received) = (0, 0);
        if self.phase == Phase::Load {
            self.fill(links, slot);
        }
    }

    /// Sends what the plan has due; a closed loop is filled at its beginning, and then by what comes back.
    pub(super) fn echoes_due(&mut self, links: &mut Links) {
        if self.plan.echo.is_some_and(|echo| echo.in_flight.is_some()) {
            if !self.echo_filled && self.clock.now_ns() >= self.control.load_start_ns() {
                self.echo_filled = true;
                (0..self.share.count).for_each(|slot| self.fill(links, slot));
            }
            return;
        }
        for _ in 0..SENDS_PER_TICK_MAX {
            let now_ns = self.clock.now_ns();
            let Some(intended_ns) = self.arrivals.as_mut().and_then(|arrivals| arrivals.take_due(now_ns)) else {
                return;
            };
            if self.measured.contains(&intended_ns) {
                record(&mut self.latencies.late, intended_ns, now_ns);
            }
            let slot = self.random.below(u64::from(self.share.count)) as u32;
            if self.connections.list[slot as usize].state == State::Up {
                self.send_echo(links, slot, intended_ns);
            } else {
                self.counters.skipped.add(1);
            }
        }
    }

    /// Sends on a connection of a closed loop until so many are under way as should be.
    fn fill(&mut self, links: &mut Links, slot: u32) {
        let Some(in_flight) = self.plan.echo.and_then(|echo| echo.in_flight) else { return };
        if self.connections.list[slot as usize].state != State::Up {
            return;
        }
        while self.echo[slot as usize].under_way() < in_flight {
            let now_ns = self.clock.now_ns();
            if now_ns >= self.measured.end {
                return;
            }
            self.send_echo(links, slot, now_ns);
        }
    }

    fn send_echo(&mut self, links: &mut Links, slot: u32, intended_ns: Nanoseconds) {
        let state = &mut self.echo[slot as usize];
        let number = state.sent;
        state.sent = number.wrapping_add(1);
        let mut payload = std::mem::take(&mut self.payload);
        payload.clear();
        payload.extend(number.to_le_bytes());
        payload.extend(slot.to_le_bytes());
        payload.extend(intended_ns.to_le_bytes());
        payload.resize(self.echo_bytes(slot, number), FILLER);
        self.write_message(links, slot, Opcode::Binary, &payload);
        self.payload = payload;
        self.counters.offered.add(1);
        self.second.offered += 1;
        if self.measured.contains(&intended_ns) {
            self.counters.measured_offered.add(1);
        }
    }

    fn echo_bytes(&self, slot: u32, number: u32) -> usize {
        self.plan.text_bytes(slot, number).max(ECHO_BYTES_MIN as usize)
    }

    /// A payload came back.
    pub(super) fn echoed(&mut self, links: &mut Links, slot: u32, payload: &[u8]) {
        let now_ns = self.clock.now_ns();
        let number = payload.first_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes));
        let is_whole = number.is_some_and(|number| {
            let same_slot = payload.get(4..8).is_some_and(|bytes| bytes == slot.to_le_bytes());
            let filled = payload.get(16..).is_some_and(|filler| filler.iter().all(|&byte| byte == FILLER));
            same_slot && filled && payload.len() == self.echo_bytes(slot, number)
        });
        let (Some(number), true) = (number, is_whole) else {
            let mismatch = &mut self.echo[slot as usize].violations.mismatch;
            *mismatch = mismatch.saturating_add(1);
            return;
        };
        self.echo[slot as usize].take(number);
        let intended_ns =
            payload.get(8..).and_then(|rest| rest.first_chunk()).map_or(now_ns, |b| u64::from_le_bytes(*b));
        self.counters.acked.add(1);
        self.second.acked += 1;
        record(&mut self.second.send_to_ack, intended_ns, now_ns);
        if self.measured.contains(&intended_ns) {
            record(&mut self.latencies.send_to_ack, intended_ns, now_ns);
        }
        if self.measured.contains(&now_ns) {
            self.counters.measured_acked.add(1);
        }
        if self.phase == Phase::Load {
            self.fill(links, slot);
        }
    }

    /// Echoes of the thread that are still to come back.
    pub(super) fn echoes_under_way(&self) -> u64 {
        if self.plan.echo.is_none() {
            return 0;
        }
        let counters = &self.counters;
        counters.offered.get().saturating_sub(counters.acked.get() + counters.rejected.get())
    }
}

/// An echo server names no heartbeat: attempts that lead nowhere are given up at the usual pace.
const ATTEMPTS_LOOKED_AT_NS: Nanoseconds = 30_000 * MILLISECOND_NS;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sent: u32, numbers: &[u32], expect: Violations) {
        let mut state = EchoState { sent, ..EchoState::default() };
        numbers.iter().for_each(|&number| state.take(number));
        assert_eq!(state.finish(), expect, "{numbers:?}");
    }

    #[test]
    fn echoes_in_order_are_good_and_everything_else_is_named() {
        let none = Violations::default();
        check(3, &[0, 1, 2], none);
        check(3, &[0, 1], Violations { lost: 1, ..none });
        check(3, &[0, 2], Violations { gap: 1, ..none });
        check(3, &[0, 1, 1, 2], Violations { order: 1, ..none });
        check(3, &[0, 2, 1], Violations { gap: 1, order: 1, ..none });
        check(2, &[0, 1, 7], Violations { order: 1, ..none });
    }
}
