//! Sends in flight: the buffers, vectors and headers that the kernel reads from until a send's last completion.
//!
//! Invariants: an entry is boxed, so that the kernel's pointers into it stay true while the slab grows; it is released only
//! after its completion, or, if it is silent, once the kernel has taken it and has not complained. Entries are used again, so
//! that a send allocates nothing in the steady state.
//!
//! A silent send makes no completion when all of it has left, which nearly every send does at once. It must not wait for room: then, and
//! for whatever else is not a whole success, it completes like any other, and what is left is sent by one that is not silent.

use std::rc::Rc;

use io_uring::{opcode, squeue, types};

/// Vectors of one system call at most (`UIO_MAXIOV`). More buffers leave in several.
const VECTORS_MAX: usize = 1024;
/// Bytes of one system call: it takes at most 2 GiB.
const CALL_BYTES_MAX: usize = 1 << 30;
/// Entries kept for reuse: what one turn of a busy shard sends at once. A larger fan-out allocates, and gives back.
const SPARE_MAX: usize = 256;
/// Vectors that a spare entry keeps room for: a usual turn's frames for one connection.
const SPARE_VECTORS_MAX: usize = 16;

/// One vectored send.
pub(super) struct Outgoing {
    buffers: Vec<Rc<[u8]>>,
    /// The first buffer that has not left whole, and how much of it has.
    first: usize,
    offset: usize,
    /// Whether success makes no completion.
    silent: bool,
    vectors: Vec<libc::iovec>,
    header: libc::msghdr,
}

impl Outgoing {
    fn new() -> Box<Self> {
        // SAFETY: all-zero bytes are a valid `msghdr`: null pointers and zero lengths.
        let header = unsafe { std::mem::zeroed() };
        Box::new(Self { buffers: Vec::new(), first: 0, offset: 0, silent: false, vectors: Vec::new(), header })
    }

    /// The operation that sends the rest. Its pointers are true until `self` is changed or dropped.
    fn entry(&mut self, slot: u32) -> squeue::Entry {
        let rest = &self.buffers[self.first..];
        let (flags, entry_flags) = if self.silent {
            // All of it or an error, and at once or an error: what does not complete has left whole when the kernel returns.
            (libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT | libc::MSG_WAITALL, squeue::Flags::SKIP_SUCCESS)
        } else {
            (libc::MSG_NOSIGNAL, squeue::Flags::empty())
        };
        if let [last] = rest {
            let bytes = &last[self.offset..];
            let length = bytes.len().min(CALL_BYTES_MAX) as u32;
            let send = opcode::Send::new(types::Fixed(slot), bytes.as_ptr(), length);
            return send.flags(flags).build().flags(entry_flags);
        }
        self.vectors.clear();
        let mut offset = self.offset;
        for buffer in rest.iter().take(VECTORS_MAX) {
            let bytes = &buffer[offset..];
            offset = 0;
            self.vectors.push(libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() });
        }
        self.header.msg_iov = self.vectors.as_mut_ptr();
        self.header.msg_iovlen = self.vectors.len();
        let send = opcode::SendMsg::new(types::Fixed(slot), &raw const self.header);
        send.flags(flags as u32).build().flags(entry_flags)
    }

    /// Bytes that have not left.
    fn rest_bytes(&self) -> usize {
        self.buffers[self.first..].iter().map(|buffer| buffer.len()).sum::<usize>() - self.offset
    }

    /// `count` bytes left. Whether all have.
    fn advance(&mut self, mut count: usize) -> bool {
        while let Some(buffer) = self.buffers.get(self.first) {
            let rest = buffer.len() - self.offset;
            if count < rest {
                self.offset += count;
                return false;
            }
            count -= rest;
            self.first += 1;
            self.offset = 0;
        }
        assert!(count == 0, "the kernel sends what it was given");
        true
    }

    fn clear(&mut self) {
        self.buffers = Vec::new();
        self.vectors.clear();
        self.vectors.shrink_to(SPARE_VECTORS_MAX);
    }
}

/// The slab of sends.
#[derive(Default)]
pub(super) struct Sends {
    entries: Vec<Option<Box<Outgoing>>>,
    free: Vec<u32>,
    #[expect(clippy::vec_box, reason = "the box is what is kept: an entry needs one again as soon as it is used")]
    spare: Vec<Box<Outgoing>>,
}

impl Sends {
    /// Takes buffers in, at least one byte; the result is the entry's index. Unless it is `awaited`, its success is silent.
    pub(super) fn insert(&mut self, mut buffers: Vec<Rc<[u8]>>, awaited: bool) -> u32 {
        buffers.retain(|buffer| !buffer.is_empty());
        assert!(!buffers.is_empty(), "a send has something to send");
        let mut outgoing = self.spare.pop().unwrap_or_else(Outgoing::new);
        outgoing.buffers = buffers;
        outgoing.first = 0;
        outgoing.offset = 0;
        // What one call can't take whole is told piece by piece.
        let fits = outgoing.buffers.len() <= VECTORS_MAX && outgoing.rest_bytes() <= CALL_BYTES_MAX;
        outgoing.silent = fits && !awaited;
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            self.entries.len() as u32 - 1
        });
        self.entries[index as usize] = Some(outgoing);
        index
    }

    /// The operation that sends what is left of an entry. Its pointers are true until [`Sends::advance`] or [`Sends::release`]
    /// of the same entry.
    pub(super) fn entry(&mut self, index: u32, slot: u32) -> squeue::Entry {
        self.get(index).entry(slot)
    }

    /// Whether success makes no completion.
    pub(super) fn is_silent(&self, index: u32) -> bool {
        self.entries[index as usize].as_ref().is_some_and(|outgoing| outgoing.silent)
    }

    /// A silent send has completed all the same: what is left of it is sent by one that is not.
    pub(super) fn set_heard(&mut self, index: u32) {
        self.get(index).silent = false;
    }

    /// Bytes of an entry that have not left.
    pub(super) fn rest_bytes(&mut self, index: u32) -> usize {
        self.get(index).rest_bytes()
    }

    /// The kernel took `count` bytes. Whether that was the rest.
    pub(super) fn advance(&mut self, index: u32, count: usize) -> bool {
        self.get(index).advance(count)
    }

    /// Drops an entry's buffers. Its operation has completed.
    pub(super) fn release(&mut self, index: u32) {
        let mut outgoing = self.entries[index as usize].take().expect("a send is released once");
        self.free.push(index);
        if self.spare.len() < SPARE_MAX {
            outgoing.clear();
            self.spare.push(outgoing);
        }
    }

    /// How many are in flight.
    pub(super) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    fn get(&mut self, index: u32) -> &mut Outgoing {
        self.entries[index as usize].as_mut().expect("a send that is in flight")
    }
}

#[cfg(test)]
mod tests {
    use super::{SPARE_MAX, Sends, VECTORS_MAX};

    #[test]
    fn partial_sends_go_on_where_they_stopped() {
        let mut sends = Sends::default();
        let index =
            sends.insert(vec![b"abc".as_slice().into(), b"".as_slice().into(), b"defg".as_slice().into()], true);
        sends.entry(index, 0);
        assert!(!sends.advance(index, 2));
        assert_eq!((sends.get(index).first, sends.get(index).offset), (0, 2));
        sends.entry(index, 0);
        assert_eq!(sends.get(index).vectors.iter().map(|vector| vector.iov_len).collect::<Vec<_>>(), [1, 4]);
        assert!(!sends.advance(index, 1));
        assert!(!sends.advance(index, 3));
        assert_eq!((sends.get(index).first, sends.get(index).offset), (1, 3));
        assert!(sends.advance(index, 1));
        sends.release(index);
        assert_eq!(sends.len(), 0);
    }

    #[test]
    fn silent_is_what_one_call_can_take_and_nobody_waits_for() {
        let mut sends = Sends::default();
        let buffers = |count: usize| vec![b"ab".as_slice().into(); count];
        let awaited = sends.insert(buffers(1), true);
        let silent = sends.insert(buffers(VECTORS_MAX), false);
        let large = sends.insert(buffers(VECTORS_MAX + 1), false);
        assert!(!sends.is_silent(awaited) && sends.is_silent(silent) && !sends.is_silent(large));
        assert!(!sends.advance(silent, 3));
        assert_eq!(sends.rest_bytes(silent), 2 * VECTORS_MAX - 3);
        sends.set_heard(silent);
        assert!(!sends.is_silent(silent));
    }

    #[test]
    fn entries_are_used_again_and_spares_are_bounded() {
        let mut sends = Sends::default();
        let all: Vec<u32> = (0..1000).map(|_| sends.insert(vec![b"x".as_slice().into()], true)).collect();
        assert_eq!(sends.len(), 1000);
        for index in all {
            sends.release(index);
        }
        assert_eq!((sends.len(), sends.spare.len(), sends.entries.len()), (0, SPARE_MAX, 1000));
        sends.insert(vec![b"x".as_slice().into()], true);
        assert_eq!((sends.len(), sends.spare.len(), sends.entries.len()), (1, SPARE_MAX - 1, 1000));
    }
}
