//! The provided-buffer ring: a fixed number of equal buffers from which the kernel picks one whenever bytes arrive, so that an
//! idle connection owns none.
//!
//! Invariants: a buffer is either the kernel's (offered, or picked and not yet reported) or ours (reported by a completion and not
//! yet offered again), never both. Must not grow: its size is the bound on received bytes that wait for the shard.

use std::{
    alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error},
    io,
    ptr::NonNull,
    sync::atomic::{AtomicU16, Ordering},
};

use io_uring::types::BufRingEntry;

use super::ring::Ring;

const PAGE: usize = 4096;

/// The only buffer group of a ring.
pub(super) const GROUP: u16 = 0;

/// Buffers that the kernel fills.
pub(super) struct BufferRing {
    /// `count` entries at a page's start, shared with the kernel.
    entries: NonNull<BufRingEntry>,
    /// `count * size` bytes.
    bytes: NonNull<u8>,
    count: u16,
    size: u32,
    tail: u16,
    /// Buffers that are ours just now.
    taken: u16,
    registered: bool,
}

impl BufferRing {
    /// Makes `count` buffers (a power of two, at most 32,768) of `size` bytes and offers them all.
    ///
    /// # Errors
    /// What the kernel says to the registration.
    pub(super) fn new(ring: &Ring, count: u16, size: u32) -> io::Result<Self> {
        assert!(
            count.is_power_of_two() && count <= 1 << 15 && size > 0,
            "a power of two of buffers that hold something"
        );
        let entries = allocate(entries_layout(count)).cast();
        let bytes = allocate(bytes_layout(count, size));
        let mut buffers = Self { entries, bytes, count, size, tail: 0, taken: count, registered: false };
        // SAFETY: `entries` has room for `count` entries at a page's start and lives until `Drop`, which unregisters it first.
        unsafe { ring.submitter().register_buf_ring_with_flags(entries.as_ptr() as u64, count, GROUP, 0) }?;
        buffers.registered = true;
        for id in 0..count {
            buffers.give_back(id);
        }
        Ok(buffers)
    }

    pub(super) fn count(&self) -> u16 {
        self.count
    }

    /// Bytes of one.
    pub(super) fn size(&self) -> u32 {
        self.size
    }

    /// Takes over a buffer that a completion reported with `length` bytes in it. It is ours until [`BufferRing::give_back`].
    ///
    /// # Safety
    /// `id` was reported by a completion of a receive with this group, and was not taken since.
    pub(super) unsafe fn take(&mut self, id: u16, length: usize) -> &mut [u8] {
        assert!(
            id < self.count && length <= self.size as usize && self.taken < self.count,
            "the kernel reports what was offered"
        );
        self.taken += 1;
        // SAFETY: `id` is below `count` and `length` within the buffer, so the range lies in the allocation, which was zeroed when
        // it was made. By the caller's promise the kernel has picked this buffer and reported it, so it writes no more to it
        // until it is offered again; the borrow of `self` keeps `give_back` from being called meanwhile.
        unsafe { std::slice::from_raw_parts_mut(self.bytes.as_ptr().add(usize::from(id) * self.size as usize), length) }
    }

    /// Offers a buffer again.
    pub(super) fn give_back(&mut self, id: u16) {
        assert!(id < self.count && self.taken > 0, "a buffer is given back once");
        self.taken -= 1;
        let position = usize::from(self.tail & (self.count - 1));
        // SAFETY: `position` is below `count`, so the entry lies in the allocation. The kernel reads entries from its head up to
        // the tail that was published; at most `count` buffers exist and this one is ours, so this position is beyond that tail
        // and the kernel does not look at it. Entry 0's last two bytes are the tail itself: the setters do not touch them.
        unsafe {
            let entry = &mut *self.entries.as_ptr().add(position);
            entry.set_addr(self.bytes.as_ptr().add(usize::from(id) * self.size as usize) as u64);
            entry.set_len(self.size);
            entry.set_bid(id);
        }
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: `BufRingEntry::tail` points into entry 0, two-aligned, alive as long as `self`; the kernel only reads it, and
        // atomically, so an atomic store is the one way to write it. Release: the entry is visible before the tail.
        unsafe { (*BufRingEntry::tail(self.entries.as_ptr()).cast::<AtomicU16>()).store(self.tail, Ordering::Release) };
    }

    /// Tells the kernel to forget the buffers. Call when no receive is in flight.
    pub(super) fn unregister(&mut self, ring: &Ring) {
        if self.registered && ring.submitter().unregister_buf_ring(GROUP).is_ok() {
            self.registered = false;
        }
    }
}

impl Drop for BufferRing {
    fn drop(&mut self) {
        if self.registered {
            // The kernel may still write into it: memory lost is better than memory overwritten.
            return;
        }
        // SAFETY: both were allocated with these layouts, and the kernel was told to forget them (or never knew them).
        unsafe {
            dealloc(self.entries.as_ptr().cast(), entries_layout(self.count));
            dealloc(self.bytes.as_ptr(), bytes_layout(self.count, self.size));
        }
    }
}

fn entries_layout(count: u16) -> Layout {
    layout(usize::from(count) * size_of::<BufRingEntry>())
}

fn bytes_layout(count: u16, size: u32) -> Layout {
    layout(usize::from(count) * size as usize)
}

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, PAGE).expect("a few MiB are a valid layout")
}

fn allocate(layout: Layout) -> NonNull<u8> {
    // SAFETY: the layout is not empty: `new` refuses empty buffers and zero counts are no power of two.
    NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout))
}
