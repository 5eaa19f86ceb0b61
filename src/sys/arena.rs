//! Page-aligned memory that the kernel reads and writes: send slots and receive buffers.
//!
//! Huge pages are asked for and not insisted on. The memory is kept out of core dumps (it holds inner packets)
//! and out of child processes (a copy on write would part us from the pages that io_uring has pinned).
//!
//! Invariant: the mapping neither moves nor shrinks while the arena lives.

use std::io;
use std::ptr::NonNull;

/// One anonymous mapping, zeroed.
#[derive(Debug)]
pub struct Arena {
    base: NonNull<u8>,
    bytes: usize,
    /// Stays mapped for ever; see [`Arena::leak`].
    leaked: bool,
}

/// Page size assumed for rounding: the smallest of the architectures we know, so never too coarse for the
/// kernel, which rounds up mappings by itself.
pub const PAGE_BYTES: usize = 4_096;

impl Arena {
    /// Maps at least `bytes`, rounded up to whole pages.
    ///
    /// # Errors
    /// Out of memory or address space.
    pub fn new(bytes: usize) -> io::Result<Self> {
        let bytes = bytes.max(1).next_multiple_of(PAGE_BYTES);
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches no existing memory.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(address.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        // Advice may be refused by old kernels or settings; the memory works without it.
        for advice in [
            libc::MADV_HUGEPAGE,
            libc::MADV_DONTDUMP,
            libc::MADV_DONTFORK,
        ] {
            // SAFETY: the range is exactly the mapping made above; none of these advices changes its content.
            let _ = unsafe { libc::madvise(address, bytes, advice) };
        }
        Ok(Self {
            base,
            bytes,
            leaked: false,
        })
    }

    /// Length in bytes, whole pages.
    pub const fn len(&self) -> usize {
        self.bytes
    }

    /// Never true; an arena has at least one page.
    pub const fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Address of byte `offset`.
    ///
    /// # Panics
    /// When `offset` is outside of the arena.
    pub fn address(&self, offset: usize) -> *mut u8 {
        assert!(
            offset < self.bytes,
            "offset {offset} outside of an arena of {}",
            self.bytes
        );
        // SAFETY: the offset is inside of the mapping, as just checked.
        unsafe { self.base.as_ptr().add(offset) }
    }

    /// The bytes of a range, to read and write.
    ///
    /// # Panics
    /// When the range is not inside of the arena.
    ///
    /// # Safety
    /// Until the returned slice is gone, the kernel must not read or write the range, and no other slice of an
    /// overlapping range may exist.
    #[allow(clippy::mut_from_ref)] // ranges are handed out to different owners; the contract is above
    pub unsafe fn bytes_mut(&self, offset: usize, bytes: usize) -> &mut [u8] {
        assert!(
            offset
                .checked_add(bytes)
                .is_some_and(|end| end <= self.bytes),
            "range {offset}+{bytes} outside of an arena of {}",
            self.bytes
        );
        // SAFETY: the start is inside of (or one past) the mapping, as checked above.
        let start = unsafe { self.base.as_ptr().add(offset) };
        // SAFETY: the range is inside of a live, initialised (zeroed) mapping; that nobody else uses it is
        // the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(start, bytes) }
    }

    /// Never unmaps this memory: the kernel may still write to it.
    pub const fn leak(&mut self) {
        self.leaked = true;
    }

    /// As the kernel wants it for registration.
    pub fn iovec(&self, bytes: usize) -> libc::iovec {
        libc::iovec {
            iov_base: self.base.as_ptr().cast(),
            iov_len: bytes.min(self.bytes),
        }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        if self.leaked {
            return;
        }
        // SAFETY: base and length are those of the mapping made in `new`, which nobody else unmaps.
        let _ = unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_zeroed_rounded_up_and_keeps_what_is_written() {
        let arena = Arena::new(5_000).unwrap();
        assert_eq!(arena.len(), 2 * PAGE_BYTES);
        // SAFETY: no kernel operation uses this arena, and the slices of the test follow one another.
        let bytes = unsafe { arena.bytes_mut(4_000, 1_000) };
        assert!(bytes.iter().all(|&b| b == 0));
        bytes.fill(7);
        // SAFETY: as above.
        assert_eq!(unsafe { arena.bytes_mut(3_999, 2) }, &[0, 7]);
    }

    #[test]
    #[should_panic(expected = "outside of an arena")]
    fn refuses_a_range_beyond_its_end() {
        let arena = Arena::new(1).unwrap();
        // SAFETY: no kernel operation uses this arena.
        let _ = unsafe { arena.bytes_mut(PAGE_BYTES - 1, 2) };
    }
}
