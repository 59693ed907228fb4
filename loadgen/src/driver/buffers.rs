//! The ring of provided receive buffers: idle connections own none, the kernel takes one when bytes come, and it is given back
//! as soon as the bytes were looked at. Part of the driver's one unsafe module.

use std::{
    alloc::{Layout, alloc_zeroed, handle_alloc_error},
    io,
    ptr::NonNull,
    sync::atomic::{AtomicU16, Ordering},
};

use io_uring::{Submitter, types::BufRingEntry};

/// Bytes of one buffer: several deliveries of usual size; a longer frame comes in pieces.
const BUFFER_BYTES: usize = 2048;

/// The group that receives name.
pub(super) const GROUP: u16 = 0;

const PAGE_BYTES: usize = 4096;

/// Buffers that the kernel fills.
pub(super) struct Buffers {
    entries: NonNull<BufRingEntry>,
    memory: NonNull<u8>,
    count: u16,
    tail: u16,
}

impl Buffers {
    /// Allocates `count` buffers (a power of two) and gives them all to the ring. The memory is never freed: a request that is
    /// still in flight when the ring goes may write to it, and a ring lives as long as its process here.
    pub(super) fn register(submitter: &Submitter<'_>, count: u16) -> io::Result<Self> {
        assert!(count.is_power_of_two());
        let entries = allocate(usize::from(count) * size_of::<BufRingEntry>()).cast();
        let memory = allocate(usize::from(count) * BUFFER_BYTES);
        // SAFETY: `entries` is page-aligned, zeroed, holds `count` entries and is never freed, so it outlives the ring.
        unsafe { submitter.register_buf_ring_with_flags(entries.as_ptr() as u64, count, GROUP, 0)? };
        let mut buffers = Self { entries, memory, count, tail: 0 };
        for index in 0..count {
            buffers.give_back(index);
        }
        Ok(buffers)
    }

    /// The first `length` bytes of a buffer that a completion handed to us.
    pub(super) fn bytes(&self, index: u16, length: usize) -> &[u8] {
        assert!(index < self.count && length <= BUFFER_BYTES);
        // SAFETY: the range lies inside `memory` by the assertion. The kernel does not write to a buffer between the completion
        // that names it and `give_back`, which needs `&mut self` and so can't happen while this slice lives.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr().add(usize::from(index) * BUFFER_BYTES), length) }
    }

    /// Lets the kernel fill the buffer again.
    pub(super) fn give_back(&mut self, index: u16) {
        assert!(index < self.count);
        let place = usize::from(self.tail & (self.count - 1));
        // SAFETY: `place` is below `count`, so the entry lies inside the allocation; the kernel reads an entry only after the
        // tail below has passed it, and at most `count` buffers exist, so it is not one that the kernel has yet to read.
        // The tail overlays the last field of entry 0, which the setters of an entry do not touch.
        unsafe {
            let entry = &mut *self.entries.as_ptr().add(place);
            entry.set_addr(self.memory.as_ptr().add(usize::from(index) * BUFFER_BYTES) as u64);
            entry.set_len(BUFFER_BYTES as u32);
            entry.set_bid(index);
        }
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail is a valid, aligned u16 in the first entry, shared with the kernel only; the release store makes the
        // entry visible before it.
        unsafe {
            let tail = BufRingEntry::tail(self.entries.as_ptr()).cast_mut().cast::<AtomicU16>();
            (*tail).store(self.tail, Ordering::Release);
        }
    }
}

fn allocate(bytes: usize) -> NonNull<u8> {
    let layout = Layout::from_size_align(bytes, PAGE_BYTES).expect("a few megabytes, aligned to a page");
    assert!(bytes > 0);
    // SAFETY: the layout's size is not zero.
    let memory = unsafe { alloc_zeroed(layout) };
    NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(layout))
}
