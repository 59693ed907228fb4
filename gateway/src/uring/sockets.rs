//! Connections on the net ring: accept, receive, send, close.
//!
//! Turns completions into calls of the [`Handler`] and its commands into operations; decides nothing else. Invariants:
//!
//! - A slot is closed only after its receive, its poll and its send have completed, so no completion of an old connection can meet a new
//!   one in the same slot, and no buffer is freed under the kernel.
//! - At most one receive and one send are in flight a connection; [`accept`] bounds accepts. [`quiet`](super::quiet) says what
//!   waits for bytes: a receive, or a poll that costs less.
//! - The ring is not borrowed while the handler runs, so that the handler may use the shard's files.

use std::{
    cell::RefCell,
    collections::VecDeque,
    io,
    net::TcpListener,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use io_uring::{opcode, squeue, types};

use super::{
    accept::{self, Door},
    buffers::{self, BufferRing},
    counters::ShardCounters,
    descriptors::{NO_SEND, Table},
    quiet::Sweep,
    ring::{Completion, Ring},
    sends::Sends,
    token::{Kind, Token},
};
use crate::core::io::{Command, ConnectionKey, Handler, Origin};

/// Whether connections are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Not now: they wait in the listener's backlog.
    Hold,
    /// Yes.
    Open,
    /// Those that are in the listener's backlog by now, then never again: the listener is closed when it is empty.
    Last,
    /// Never again: the listener is closed.
    Closed,
}

/// All connections of a shard.
pub(super) struct Sockets {
    ring: Rc<RefCell<Ring>>,
    pub(super) table: Table,
    sends: Sends,
    /// Silent sends that were pushed and may not have left. Bounded by the table: one a connection.
    silent: Vec<ConnectionKey>,
    pub(super) buffers: BufferRing,
    doors: Vec<Door>,
    /// Connections whose receive found no free buffer. Bounded by the table: a slot waits at most
    /// once; a place that a closed connection left behind goes when its turn comes.
    starved: VecDeque<u32>,
    pub(super) sweep: Sweep,
    pub(super) counters: Arc<ShardCounters>,
}

impl Sockets {
    /// # Errors
    /// What the kernel says to the registration of table and buffers.
    pub(super) fn new(
        ring: Rc<RefCell<Ring>>,
        slots: u32,
        (buffer_count, buffer_bytes): (u16, u32),
        listeners: Vec<TcpListener>,
        quiet_after: Duration,
        counters: Arc<ShardCounters>,
    ) -> io::Result<Self> {
        ring.borrow().submitter().register_files_sparse(slots)?;
        let buffers = BufferRing::new(&ring.borrow(), buffer_count, buffer_bytes)?;
        counters.buffers_free_min.set(u64::from(buffer_count));
        Ok(Self {
            ring,
            table: Table::new(slots),
            sends: Sends::default(),
            silent: Vec::new(),
            buffers,
            doors: listeners.into_iter().map(Door::new).collect(),
            starved: VecDeque::new(),
            sweep: Sweep::new(quiet_after, Instant::now()),
            counters,
        })
    }

    /// Takes a completion of this module's operations.
    pub(super) fn complete(&mut self, completion: Completion, handler: &mut impl Handler) {
        let Token { kind, index, .. } = completion.token;
        match kind {
            Kind::Accept => self.accepted(completion, handler),
            Kind::Receive | Kind::Read => self.received(completion, handler),
            Kind::Poll => self.polled(completion),
            Kind::Send => self.sent(completion, handler),
            Kind::Close => self.closed(completion),
            Kind::CancelReceive | Kind::CancelSend | Kind::CancelPoll => self.cancel_failed(completion, index),
            Kind::CancelOther => {}
            Kind::Wake | Kind::File | Kind::Alarm => unreachable!("not a socket's operation"),
        }
    }

    /// Carries out a command; one for a connection that is gone is dropped.
    pub(super) fn command(&mut self, command: Command) {
        match command {
            Command::Send { connection, buffers, awaited } => {
                let Some(slot) = self.table.live(connection) else {
                    return;
                };
                assert!(slot.send == NO_SEND, "the handler sends again only after `sent`");
                slot.send = self.sends.insert(buffers, awaited);
                self.push_send(connection.slot);
            }
            Command::Close { connection } => {
                if self.table.live(connection).is_some() {
                    self.close(connection.slot);
                }
            }
        }
    }

    /// Arms what waits for something that may be there by now. Once a turn.
    pub(super) fn rearm(&mut self, admission: Admission) {
        for _ in 0..self.starved.len().min(usize::from(self.buffers.count())) {
            if let Some(index) = self.starved.pop_front() {
                let slot = self.table.get(index);
                // The slot may have been closed, and even taken again, since.
                if slot.is_starved() {
                    slot.set_starved(false);
                    self.listen(index);
                }
            }
        }
        self.admit(admission);
        self.sweep(Instant::now());
        self.counters.connections.set(u64::from(self.table.taken()));
        self.counters.sends_in_flight.set(self.sends.len() as u64);
    }

    /// A batch of completions brought so many filled buffers.
    pub(super) fn note_filled(&self, buffers: u64) {
        self.counters.buffers_free_min.lower(u64::from(self.buffers.count()).saturating_sub(buffers));
    }

    /// Whether [`Sockets::rearm`] has more to do at once.
    pub(super) fn is_starved(&self) -> bool {
        !self.starved.is_empty()
    }

    /// Whether a listener's backlog has to be looked at again.
    pub(super) fn is_closing_doors(&self) -> bool {
        self.doors.iter().any(Door::looks_again)
    }

    /// Whether every listener is closed.
    pub(super) fn are_doors_closed(&self) -> bool {
        self.doors.iter().all(Door::is_closed)
    }

    /// When accepting goes on after a pause, or connections are to be looked at.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.doors.iter().filter_map(Door::paused_until).chain(self.sweep_at()).min()
    }

    /// Closes everything; the handler is not told. Completions go on to be needed until [`Sockets::is_drained`].
    pub(super) fn close_all(&mut self) {
        self.admit(Admission::Closed);
        for index in self.table.live_indices() {
            self.close(index);
        }
    }

    /// Whether the kernel holds nothing of ours.
    pub(super) fn is_drained(&self) -> bool {
        self.table.taken() == 0 && self.sends.len() == 0 && self.doors.iter().all(Door::is_at_rest)
    }

    /// Gives the buffers' memory back. Call when drained; else it stays with the kernel for ever.
    pub(super) fn release_buffers(&mut self) {
        if self.is_drained() {
            self.buffers.unregister(&self.ring.borrow());
        } else {
            // The kernel may still read, or write, what these point to.
            std::mem::forget(std::mem::take(&mut self.sends));
            std::mem::forget(std::mem::take(&mut self.doors));
        }
    }

    fn admit(&mut self, admission: Admission) {
        let now = Instant::now();
        let mut free = self.table.free() - self.doors.iter().map(Door::armed).sum::<u32>();
        for (index, door) in (0_u8..).zip(&mut self.doors) {
            let mut push = |entry: squeue::Entry, token: Token| {
                // SAFETY: an accept names the address box of its door, and the listener; both stay until the door is at rest. A
                // cancellation names none.
                unsafe { self.ring.borrow_mut().push(entry.user_data(token.pack())) };
            };
            free -= door.admit(index, admission, free, now, &mut push);
            if free == 0 && door.wants_more() {
                self.counters.table_full.add(1);
            }
        }
    }

    fn accepted(&mut self, completion: Completion, handler: &mut impl Handler) {
        let (listener, accept) = accept::place(completion.token.index);
        let door = &mut self.doors[usize::from(listener)];
        let peer = door.completed(accept);
        match completion.result {
            index @ 0.. => {
                self.counters.accepts.add(1);
                let key = self.table.take(index as u32);
                self.arm_receive(key.slot);
                handler.accepted(key, Origin { listener, peer });
            }
            error if error == -libc::ECANCELED => {}
            error => {
                self.counters.accept_errors.add(1);
                // A peer that gave up before it was accepted is nothing; for anything else the system needs a moment.
                if error != -libc::ECONNABORTED {
                    tracing::debug!(error = %io::Error::from_raw_os_error(-error), "cannot accept; pausing");
                    door.pause(Instant::now());
                }
            }
        }
    }

    pub(super) fn arm_receive(&mut self, index: u32) {
        let slot = self.table.get(index);
        slot.set_receiving(true);
        slot.set_quieting(false);
        let token = Token::new(Kind::Receive, index, self.table.get(index).generation());
        self.push(opcode::RecvMulti::new(types::Fixed(index), buffers::GROUP).build(), token);
    }

    fn received(&mut self, completion: Completion, handler: &mut impl Handler) {
        let index = completion.token.index;
        let slot = self.table.get(index);
        assert!(completion.token.is_of(slot.generation()) && slot.is_receiving(), "a receive outlives no connection");
        if !completion.more() {
            slot.set_receiving(false);
        }
        if let Some(id) = completion.buffer() {
            self.deliver(index, id, completion.result, handler);
        }
        let slot = self.table.get(index);
        if slot.is_closing() {
            self.finish_close(index);
        } else if slot.is_live() && !completion.more() {
            match completion.result {
                bytes @ 1.. if completion.token.kind == Kind::Read => self.read(index, bytes as u32),
                1.. => self.arm_receive(index),
                error if error == -libc::ECANCELED => self.taken_back(index),
                error if error == -libc::EAGAIN && completion.token.kind == Kind::Read => self.read(index, 0),
                error if error == -libc::ENOBUFS => {
                    self.counters.buffers_exhausted.add(1);
                    slot.set_starved(true);
                    self.starved.push_back(index);
                }
                error if error == -libc::EINTR || error == -libc::EAGAIN => self.arm_receive(index),
                _ => self.lost(index, handler),
            }
        }
    }

    /// Hands a buffer's bytes to the handler, if it still knows the connection, and offers the buffer again.
    fn deliver(&mut self, index: u32, id: u16, result: i32, handler: &mut impl Handler) {
        let length = usize::try_from(result).unwrap_or(0);
        // SAFETY: the completion being handled is a receive's and reports this buffer; it is handled once, and this is the only
        // place that takes buffers.
        let bytes = unsafe { self.buffers.take(id, length) };
        if length > 0 && self.table.get(index).is_live() {
            self.table.get(index).set_heard(true);
            self.counters.bytes_in.add(length as u64);
            handler.received(self.table.key(index), bytes);
        }
        self.buffers.give_back(id);
    }

    fn push_send(&mut self, index: u32) {
        let slot = *self.table.get(index);
        let entry = self.sends.entry(slot.send, index);
        if self.sends.is_silent(slot.send) {
            self.silent.push(self.table.key(index));
        }
        self.push(entry, Token::new(Kind::Send, index, slot.generation()));
    }

    fn sent(&mut self, completion: Completion, handler: &mut impl Handler) {
        let index = completion.token.index;
        let slot = self.table.get(index);
        let send = slot.send;
        assert!(completion.token.is_of(slot.generation()) && send != NO_SEND, "a send outlives no connection");
        let live = slot.is_live();
        self.sends.set_heard(send);
        if let Ok(count @ 1..) = usize::try_from(completion.result) {
            self.counters.bytes_out.add(count as u64);
            if !self.sends.advance(send, count) {
                self.counters.short_sends.add(1);
                if live {
                    return self.push_send(index);
                }
            }
        } else if live && (completion.result == -libc::EINTR || completion.result == -libc::EAGAIN) {
            return self.push_send(index);
        }
        self.sends.release(send);
        self.table.get(index).send = NO_SEND;
        if !live {
            self.finish_close(index);
        } else if completion.result > 0 {
            handler.sent(self.table.key(index));
        } else {
            self.lost(index, handler);
        }
    }

    /// Ends the silent sends. Call when the kernel has taken all operations that were pushed, and the completions that it made of
    /// them at once were handled: what has not complained has left.
    pub(super) fn finish_silent(&mut self, handler: &mut impl Handler) {
        let mut silent = std::mem::take(&mut self.silent);
        for key in silent.drain(..) {
            let slot = *self.table.get(key.slot);
            let is_open = slot.generation() == key.generation && slot.send != NO_SEND;
            if !is_open || !self.sends.is_silent(slot.send) {
                continue;
            }
            self.counters.bytes_out.add(self.sends.rest_bytes(slot.send) as u64);
            self.sends.release(slot.send);
            self.table.get(key.slot).send = NO_SEND;
            if slot.is_live() {
                handler.sent(key);
            } else {
                self.finish_close(key.slot);
            }
        }
        self.silent = silent;
    }

    /// Whether there are sends to end by [`Sockets::finish_silent`].
    pub(super) fn has_silent(&self) -> bool {
        !self.silent.is_empty()
    }

    /// The peer or the network ended the connection.
    fn lost(&mut self, index: u32, handler: &mut impl Handler) {
        let key = self.table.key(index);
        self.close(index);
        handler.closed(key);
    }

    /// Takes a live connection from the handler, and its operations back from the kernel.
    fn close(&mut self, index: u32) {
        let slot = self.table.get(index);
        slot.close();
        let slot = *slot;
        if slot.is_receiving() {
            self.push_cancel(index, Kind::Receive, Kind::CancelReceive);
        }
        if slot.is_polling() {
            self.push_cancel(index, Kind::Poll, Kind::CancelPoll);
        }
        if slot.send != NO_SEND && !self.sends.is_silent(slot.send) {
            self.push_cancel(index, Kind::Send, Kind::CancelSend);
        }
        self.finish_close(index);
    }

    /// Closes the descriptor once nothing of the connection is in flight.
    pub(super) fn finish_close(&mut self, index: u32) {
        let slot = self.table.get(index);
        if slot.is_receiving() || slot.is_polling() || slot.send != NO_SEND {
            return;
        }
        slot.set_closed();
        let token = Token::new(Kind::Close, index, slot.generation());
        self.push(opcode::Close::new(types::Fixed(index)).build(), token);
    }

    fn closed(&mut self, completion: Completion) {
        let index = completion.token.index;
        let slot = self.table.get(index);
        // Another generation: the kernel has used the slot again, and said so first.
        if completion.token.is_of(slot.generation()) && slot.is_closed() {
            self.table.release(index);
        }
    }

    pub(super) fn push_cancel(&mut self, index: u32, target: Kind, kind: Kind) {
        let generation = self.table.get(index).generation();
        let target = Token::new(target, index, generation).pack();
        // Success is not reported: the cancelled operation's own completion says it.
        let entry = opcode::AsyncCancel::new(target).build().flags(squeue::Flags::SKIP_SUCCESS);
        self.push(entry, Token::new(kind, index, generation));
    }

    /// The operation to be cancelled was not found. If it has not completed either, it was between two states; try again.
    fn cancel_failed(&mut self, completion: Completion, index: u32) {
        let slot = self.table.get(index);
        if !completion.token.is_of(slot.generation()) || completion.result != -libc::ENOENT {
            return;
        }
        if !slot.is_closing() {
            // The next visit tries again.
            return slot.set_quieting(false);
        }
        let slot = *slot;
        match completion.token.kind {
            Kind::CancelReceive if slot.is_receiving() => self.push_cancel(index, Kind::Receive, Kind::CancelReceive),
            Kind::CancelPoll if slot.is_polling() => self.push_cancel(index, Kind::Poll, Kind::CancelPoll),
            Kind::CancelSend if slot.send != NO_SEND => self.push_cancel(index, Kind::Send, Kind::CancelSend),
            _ => {}
        }
    }

    pub(super) fn push(&self, entry: squeue::Entry, token: Token) {
        // SAFETY: the operations of this module and of `quiet` name these kinds of memory. A send's buffers, vectors and header live in
        // `sends`, boxed, until `sent` has seen its completion, or `finish_silent` that there will be none. A receive names the buffer
        // ring only, which lives until it was unregistered (or for ever). Poll, close and cancel name none.
        unsafe { self.ring.borrow_mut().push(entry.user_data(token.pack())) };
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        self.release_buffers();
    }
}
