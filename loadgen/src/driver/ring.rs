//! One io_uring and everything whose memory the kernel looks at: addresses, send buffers, receive buffers. Safe outside.
//!
//! Invariants: a send's bytes are owned here until its last completion; addresses live as long as the ring; a completion carries
//! the tag that its operation was given, so that what belongs to an earlier connection of the slot can be told.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use socket2::SockAddr;

use super::{
    DriverOptions,
    buffers::{Buffers, GROUP},
};

/// A direct descriptor and how often it was used before (24 bits count).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag {
    pub(super) slot: u32,
    pub(super) generation: u32,
}

/// What the kernel finished.
#[derive(Debug)]
pub(super) enum Completion {
    /// The connection stands, or the errno why not.
    Connected { tag: Tag, result: Result<(), i32> },
    /// Bytes came; `more` tells whether the receive stays armed. The buffer must be given back.
    Received { tag: Tag, buffer: u16, length: usize, more: bool },
    /// Out of buffers for a moment: arm again.
    NoBuffers { tag: Tag },
    /// The peer closed (0) or the receive failed (errno).
    Ended { tag: Tag, errno: i32 },
    /// A send left whole, or failed.
    Sent { tag: Tag, result: Result<(), i32> },
    /// The slot is free.
    Closed { tag: Tag },
}

const SUBMISSIONS: u32 = 1024;
const COMPLETIONS: u32 = 8192;
/// Operations of a connection's chain.
const CHAIN: usize = 6;

const CONNECT_STEP: u64 = 1;
const CONNECT: u64 = 2;
const RECEIVE: u64 = 3;
const SEND: u64 = 4;
const SHUTDOWN: u64 = 5;
const CLOSE: u64 = 6;
const CANCEL: u64 = 7;

/// The value of the boolean socket options; it lives for ever, as the kernel reads it when the operation runs.
static YES: libc::c_int = 1;

struct Outgoing {
    tag: Tag,
    bytes: Vec<u8>,
    sent: usize,
}

/// The ring of one client thread.
pub(super) struct Ring {
    ring: IoUring,
    buffers: Buffers,
    target: Box<SockAddr>,
    sources: Box<[SockAddr]>,
    small_receive_bytes: Option<Box<libc::c_int>>,
    outgoing: Vec<Option<Outgoing>>,
    free: Vec<u32>,
    last_step_errno: i32,
}

impl Ring {
    /// A ring with a table of `slots` direct descriptors for this thread alone.
    pub(super) fn new(options: &DriverOptions, sources: &[Ipv4Addr]) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_cqsize(COMPLETIONS)
            .setup_submit_all()
            .build(SUBMISSIONS)?;
        ring.submitter().register_files_sparse(options.slots)?;
        let buffers = Buffers::register(&ring.submitter(), options.buffers)?;
        let source = |&address: &Ipv4Addr| SockAddr::from(SocketAddr::from((address, 0)));
        Ok(Self {
            ring,
            buffers,
            target: Box::new(options.target.into()),
            sources: sources.iter().map(source).collect(),
            small_receive_bytes: options.small_receive_bytes.map(|bytes| Box::new(bytes as libc::c_int)),
            outgoing: Vec::new(),
            free: Vec::new(),
            last_step_errno: 0,
        })
    }

    /// Opens a connection in an empty slot, from one of the source addresses if there are any.
    pub(super) fn connect(&mut self, tag: Tag, source: usize, small_receive: bool) -> io::Result<()> {
        let fd = types::Fixed(tag.slot);
        let place = types::DestinationSlot::try_from_slot_target(tag.slot).expect("slots are far below 2^32 - 1");
        let family =
            if matches!(self.target.as_socket(), Some(SocketAddr::V6(_))) { libc::AF_INET6 } else { libc::AF_INET };
        let option = |level: i32, name: i32, value: *const libc::c_int| {
            opcode::SetSockOpt::new(fd, level as u32, name as u32, value.cast(), size_of::<libc::c_int>() as u32)
                .build()
        };
        let step = |entry: squeue::Entry| {
            entry.flags(squeue::Flags::IO_LINK | squeue::Flags::SKIP_SUCCESS).user_data(user_data(CONNECT_STEP, tag))
        };
        let mut chain = Vec::with_capacity(CHAIN);
        let kind = libc::SOCK_STREAM;
        chain.push(step(opcode::Socket::new(family, kind, libc::IPPROTO_TCP).file_index(Some(place)).build()));
        chain.push(step(option(libc::IPPROTO_TCP, libc::TCP_NODELAY, &raw const YES)));
        if let Some(bytes) = self.small_receive_bytes.as_deref().filter(|_| small_receive) {
            // Before `connect`: the window that the handshake offers follows from it.
            chain.push(step(option(libc::SOL_SOCKET, libc::SO_RCVBUF, bytes)));
        }
        if !self.sources.is_empty() {
            let source = &self.sources[source % self.sources.len()];
            // The port is then chosen by `connect`, which knows the whole four-tuple.
            chain.push(step(option(libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, &raw const YES)));
            chain.push(step(opcode::Bind::new(fd, source.as_ptr().cast(), source.len()).build()));
        }
        let connect = opcode::Connect::new(fd, self.target.as_ptr().cast(), self.target.len()).build();
        chain.push(connect.user_data(user_data(CONNECT, tag)));
        self.room_for(chain.len())?;
        for entry in &chain {
            self.push(entry)?;
        }
        Ok(())
    }

    /// Arms the slot's multishot receive.
    pub(super) fn receive(&mut self, tag: Tag) -> io::Result<()> {
        let entry = opcode::RecvMulti::new(types::Fixed(tag.slot), GROUP).build();
        self.push(&entry.user_data(user_data(RECEIVE, tag)))
    }

    /// Takes the slot's receive back; it ends with ECANCELED, unless it ends otherwise first.
    pub(super) fn cancel_receive(&mut self, tag: Tag) -> io::Result<()> {
        let entry = opcode::AsyncCancel::new(user_data(RECEIVE, tag)).build();
        self.push(&entry.flags(squeue::Flags::SKIP_SUCCESS).user_data(user_data(CANCEL, tag)))
    }

    /// Sends bytes, which are kept until the kernel has done with them.
    pub(super) fn send(&mut self, tag: Tag, bytes: Vec<u8>) -> io::Result<()> {
        let index = self.free.pop().unwrap_or_else(|| {
            self.outgoing.push(None);
            self.outgoing.len() as u32 - 1
        });
        self.outgoing[index as usize] = Some(Outgoing { tag, bytes, sent: 0 });
        self.submit_send(index)
    }

    /// Ends the connection both ways; the receive then ends too.
    pub(super) fn shutdown(&mut self, tag: Tag) -> io::Result<()> {
        let entry = opcode::Shutdown::new(types::Fixed(tag.slot), libc::SHUT_RDWR).build();
        self.push(&entry.flags(squeue::Flags::SKIP_SUCCESS).user_data(user_data(SHUTDOWN, tag)))
    }

    /// Frees the slot.
    pub(super) fn close(&mut self, tag: Tag) -> io::Result<()> {
        let entry = opcode::Close::new(types::Fixed(tag.slot)).build();
        self.push(&entry.user_data(user_data(CLOSE, tag)))
    }

    /// Hands everything over to the kernel and waits for a completion, at most `timeout`.
    pub(super) fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        let timeout = types::Timespec::from(timeout);
        let arguments = types::SubmitArgs::new().timespec(&timeout);
        match self.ring.submitter().submit_with_args(1, &arguments) {
            Err(error) if !matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR | libc::EBUSY)) => Err(error),
            _ => Ok(()),
        }
    }

    /// The next completion, without waiting.
    pub(super) fn next_completion(&mut self) -> io::Result<Option<Completion>> {
        loop {
            // Its own statement, so that the queue's head is given back before the entry is worked on.
            let entry = self.ring.completion().next();
            let Some(entry) = entry else { return Ok(None) };
            let (operation, low) = (entry.user_data() >> 56, entry.user_data());
            let tag = Tag { slot: low as u32, generation: (low >> 32) as u32 & GENERATION_MASK };
            let (result, errno) = (entry.result(), -entry.result());
            let completion = match operation {
                // Only failures of a step are told; the connect that follows is then cancelled, and tells the handler.
                CONNECT_STEP => {
                    if errno != libc::ECANCELED {
                        self.last_step_errno = errno;
                    }
                    continue;
                }
                CONNECT if errno == libc::ECANCELED => Completion::Connected { tag, result: Err(self.last_step_errno) },
                CONNECT => Completion::Connected { tag, result: if result < 0 { Err(errno) } else { Ok(()) } },
                RECEIVE => received(tag, result, entry.flags()),
                SEND => match self.sent(low as u32, result)? {
                    Some(completion) => completion,
                    None => continue,
                },
                CLOSE => Completion::Closed { tag },
                _ => continue,
            };
            return Ok(Some(completion));
        }
    }

    /// The bytes of a [`Completion::Received`].
    pub(super) fn bytes(&self, buffer: u16, length: usize) -> &[u8] {
        self.buffers.bytes(buffer, length)
    }

    /// Lets the kernel fill a buffer again.
    pub(super) fn give_back(&mut self, buffer: u16) {
        self.buffers.give_back(buffer);
    }

    fn sent(&mut self, index: u32, result: i32) -> io::Result<Option<Completion>> {
        let place = &mut self.outgoing[index as usize];
        let outgoing = place.as_mut().expect("a send completes once and its buffer is kept until then");
        let tag = outgoing.tag;
        let result = match result {
            sent if sent >= 0 => {
                outgoing.sent += sent as usize;
                if outgoing.sent < outgoing.bytes.len() {
                    self.submit_send(index)?;
                    return Ok(None);
                }
                Ok(())
            }
            error => Err(-error),
        };
        *place = None;
        self.free.push(index);
        Ok(Some(Completion::Sent { tag, result }))
    }

    fn submit_send(&mut self, index: u32) -> io::Result<()> {
        let outgoing = self.outgoing[index as usize].as_ref().expect("the caller has filled it");
        let rest = &outgoing.bytes[outgoing.sent..];
        let entry = opcode::Send::new(types::Fixed(outgoing.tag.slot), rest.as_ptr(), rest.len() as u32).build();
        self.push(&entry.user_data((SEND << 56) | u64::from(index)))
    }

    fn room_for(&mut self, entries: usize) -> io::Result<()> {
        let queue = self.ring.submission();
        let full = queue.capacity() - queue.len() < entries;
        drop(queue);
        if full {
            self.ring.submit()?;
        }
        Ok(())
    }

    fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        self.room_for(1)?;
        // SAFETY: what an entry points to outlives its operation: `YES` is static; `target`, `sources` and
        // `small_receive_bytes` are boxed, are never changed and live as long as the ring, and the kernel copies addresses on submission; a send's bytes lie in `outgoing`,
        // whose vectors are not touched until the completion, and are leaked with the ring if there is none (see `drop`).
        unsafe { self.ring.submission().push(entry) }.map_err(|_| io::Error::other("the submission queue stays full"))
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // Operations may still be in flight and end only some time after the ring's descriptor is closed: what they look at
        // must not be freed.
        std::mem::forget(std::mem::take(&mut self.outgoing));
        std::mem::forget(std::mem::take(&mut self.sources));
        std::mem::forget(self.small_receive_bytes.take());
        std::mem::forget(std::mem::replace(&mut self.target, Box::new(SocketAddr::from(([0, 0, 0, 0], 0)).into())));
    }
}

const GENERATION_MASK: u32 = 0x00FF_FFFF;

fn user_data(operation: u64, tag: Tag) -> u64 {
    (operation << 56) | (u64::from(tag.generation & GENERATION_MASK) << 32) | u64::from(tag.slot)
}

fn received(tag: Tag, result: i32, flags: u32) -> Completion {
    match (result, cqueue::buffer_select(flags)) {
        (length @ 1.., Some(buffer)) => {
            Completion::Received { tag, buffer, length: length as usize, more: cqueue::more(flags) }
        }
        (error, _) if -error == libc::ENOBUFS => Completion::NoBuffers { tag },
        (result, _) => Completion::Ended { tag, errno: -result },
    }
}
