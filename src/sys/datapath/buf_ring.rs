//! A group of provided buffers: the kernel takes one for each completion of a multishot read, we give it back.
//!
//! ```text
//!   entries (shared page):  [addr len id | tail]  [addr len id]  ...     memory: buffer 0 | buffer 1 | ...
//!        the kernel takes at its head; we add at `tail` and then publish the tail
//! ```
//!
//! Invariants: a buffer is either in the ring (the kernel may write it) or in a completion that is being
//! dispatched (we may). Each is given back exactly once for each time it was taken.
//! Layout: `struct io_uring_buf_ring` in `linux/io_uring.h`, Linux 5.19.

use std::io;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use super::ring::Ring;
use crate::sys::arena::Arena;

/// One registered group. Must outlive the ring it is registered with.
#[derive(Debug)]
pub(super) struct BufRing {
    group: u16,
    entries: Arena,
    mask: u16,
    tail: u16,
    memory: Arena,
    buffer_bytes: usize,
}

impl BufRing {
    /// Maps `count` (a power of two) buffers and registers them as `group`.
    pub(super) fn register(
        ring: &Ring,
        group: u16,
        count: u16,
        buffer_bytes: usize,
    ) -> io::Result<Self> {
        assert!(count.is_power_of_two(), "the kernel masks with the count");
        let entries = Arena::new(usize::from(count) * size_of::<BufRingEntry>())?;
        let memory = Arena::new(usize::from(count) * buffer_bytes)?;
        let address = entries.address(0) as u64;
        // SAFETY: the entries are page-aligned, zeroed and mapped as long as this value lives, which its owner
        // keeps longer than the ring.
        unsafe {
            ring.submitter()
                .register_buf_ring_with_flags(address, count, group, 0)
        }?;
        let mut this = Self {
            group,
            entries,
            mask: count - 1,
            tail: 0,
            memory,
            buffer_bytes,
        };
        for id in 0..count {
            this.recycle(id);
        }
        Ok(this)
    }

    /// The number that reads name.
    pub(super) const fn group(&self) -> u16 {
        self.group
    }

    /// What the kernel wrote into a buffer that a completion named.
    ///
    /// # Panics
    /// When the kernel names a buffer or a length that does not exist.
    ///
    /// # Safety
    /// The buffer was named by a completion and not yet recycled, and no other slice of it exists.
    #[allow(clippy::mut_from_ref)] // as `Arena::bytes_mut`
    pub(super) unsafe fn filled(&self, id: u16, bytes: usize) -> &mut [u8] {
        assert!(
            id <= self.mask && bytes <= self.buffer_bytes,
            "buffer {id} with {bytes} bytes"
        );
        // SAFETY: the caller owns the buffer; buffers do not overlap.
        unsafe {
            self.memory
                .bytes_mut(usize::from(id) * self.buffer_bytes, bytes)
        }
    }

    /// See [`Arena::leak`].
    pub(super) const fn leak(&mut self) {
        self.entries.leak();
        self.memory.leak();
    }

    /// Gives a buffer back to the kernel.
    pub(super) fn recycle(&mut self, id: u16) {
        assert!(id <= self.mask, "no buffer {id}");
        let address = self.memory.address(usize::from(id) * self.buffer_bytes);
        let at = usize::from(self.tail & self.mask) * size_of::<BufRingEntry>();
        let entry = self.entries.address(at).cast::<BufRingEntry>();
        // SAFETY: the entry is inside of the mapping and aligned; behind the published tail the kernel does
        // not look at it, and the tail's own field (reserved, in entry 0) is not touched by the setters.
        let entry = unsafe { &mut *entry };
        entry.set_addr(address as u64);
        entry.set_len(u32::try_from(self.buffer_bytes).unwrap_or(u32::MAX));
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the base is the first entry of a registered, mapped ring; the result points into it.
        let tail = unsafe { BufRingEntry::tail(self.entries.address(0).cast()) };
        // SAFETY: the field is a mapped, aligned u16 that only we write and the kernel reads atomically.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        // Release: the kernel sees the entry before it sees the tail.
        tail.store(self.tail, Ordering::Release);
    }
}
