//! What waits for a connection's bytes: an armed receive while it talks, a poll while it is quiet.
//!
//! An armed multishot receive takes about 600 bytes more of the kernel's memory than a multishot poll. So a connection from which nothing
//! came between two visits of the sweep has its receive taken back, and a poll armed in its place. Something that comes then is read by
//! one receive that does not wait; a second such event before the next visit means that the connection talks again, and arms the
//! receive. A heartbeat every half minute thus costs one operation, and a busy connection none.
//!
//! Invariants: a live connection always has a receive or a poll with the kernel, or waits for a buffer, or is between the two of them with
//! the completion of the first yet to come. Nothing that arrives is missed: a poll that is armed looks first whether there is
//! something, and a read goes on until it finds less than a buffer full.

use std::time::{Duration, Instant};

use io_uring::{opcode, squeue, types};

use super::{
    buffers,
    ring::Completion,
    sockets::Sockets,
    token::{Kind, Token},
};

/// The table is visited in so many parts, so that a sweep is short.
const PARTS: u32 = 8;

/// When to look which connections have fallen silent.
#[derive(Debug)]
pub(super) struct Sweep {
    /// Between two parts.
    interval: Duration,
    next: Instant,
    part: u32,
}

impl Sweep {
    pub(super) fn new(quiet_after: Duration, now: Instant) -> Self {
        let interval = quiet_after / PARTS;
        Self { interval, next: now + interval, part: 0 }
    }
}

impl Sockets {
    /// Visits a part of the table, if it is time.
    pub(super) fn sweep(&mut self, now: Instant) {
        if now < self.sweep.next {
            return;
        }
        self.sweep.next = now + self.sweep.interval;
        let part = self.sweep.part;
        self.sweep.part = (part + 1) % PARTS;
        let length = self.table.len().div_ceil(PARTS);
        let end = ((part + 1) * length).min(self.table.len());
        for index in part * length..end {
            let slot = self.table.get(index);
            if !slot.is_live() {
                continue;
            }
            let heard = slot.is_heard();
            slot.set_heard(false);
            if !heard && slot.is_receiving() && !slot.is_polling() && !slot.is_quieting() {
                slot.set_quieting(true);
                self.push_cancel(index, Kind::Receive, Kind::CancelReceive);
            }
        }
    }

    /// When the next part is due, unless all connections are quiet.
    pub(super) fn sweep_at(&self) -> Option<Instant> {
        let talking = u64::from(self.table.taken()) > self.counters.quiet.get();
        talking.then_some(self.sweep.next)
    }

    /// Waits for bytes again, after a buffer was missing.
    pub(super) fn listen(&mut self, index: u32) {
        if self.table.get(index).is_polling() { self.read_once(index) } else { self.arm_receive(index) }
    }

    /// A live connection's receive was cancelled.
    pub(super) fn taken_back(&mut self, index: u32) {
        let slot = self.table.get(index);
        if slot.is_quieting() && !slot.is_polling() {
            slot.set_quieting(false);
            self.arm_poll(index);
        } else {
            // A cancellation that came late met the receive after the one it was for.
            self.arm_receive(index);
        }
    }

    fn arm_poll(&mut self, index: u32) {
        let slot = self.table.get(index);
        slot.set_polling(true);
        let token = Token::new(Kind::Poll, index, slot.generation());
        let entry = opcode::PollAdd::new(types::Fixed(index), (libc::POLLIN | libc::POLLRDHUP) as u32);
        self.push(entry.multi(true).build(), token);
        self.counters.quiet.add(1);
    }

    /// A quiet connection has something, or its poll has ended.
    pub(super) fn polled(&mut self, completion: Completion) {
        let index = completion.token.index;
        let slot = self.table.get(index);
        assert!(completion.token.is_of(slot.generation()) && slot.is_polling(), "a poll outlives no connection");
        if !completion.more() {
            slot.set_polling(false);
            self.counters.quiet.set(self.counters.quiet.get() - 1);
        }
        let slot = *self.table.get(index);
        if slot.is_closing() {
            self.finish_close(index);
        } else if slot.is_live() && !slot.is_receiving() && !slot.is_starved() {
            match completion.more() {
                true if slot.is_heard() => {
                    self.push_cancel(index, Kind::Poll, Kind::CancelPoll);
                    self.arm_receive(index);
                }
                true => self.read_once(index),
                // The kernel ended it, whatever the reason: a receive finds out.
                false => self.arm_receive(index),
            }
        }
    }

    /// Reads what is there, and does not wait for more.
    fn read_once(&mut self, index: u32) {
        let slot = self.table.get(index);
        slot.set_receiving(true);
        let token = Token::new(Kind::Read, index, slot.generation());
        let entry = opcode::Recv::new(types::Fixed(index), std::ptr::null_mut(), 0)
            .buf_group(buffers::GROUP)
            .flags(libc::MSG_DONTWAIT)
            .build()
            .flags(squeue::Flags::BUFFER_SELECT);
        self.push(entry, token);
    }

    /// [`Sockets::read_once`] found so many bytes.
    pub(super) fn read(&mut self, index: u32, bytes: u32) {
        match self.table.get(index).is_polling() {
            false => self.arm_receive(index),
            true if bytes == self.buffers.size() => self.read_once(index),
            true => {}
        }
    }
}
