//! Waking a thread that waits in its datapath: an eventfd.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// One eventfd. Signals that come before the waiter looks are one signal.
#[derive(Debug)]
pub struct Wake {
    fd: OwnedFd,
}

impl Wake {
    /// Opens an eventfd, nonblocking.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn new() -> io::Result<Self> {
        // SAFETY: eventfd takes no pointers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        super::option::check(fd)?;
        // SAFETY: `fd` was just opened by us and nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { fd })
    }

    /// A second handle to the same eventfd, for another thread.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            fd: self.fd.try_clone()?,
        })
    }

    /// Wakes the waiter. Never blocks; a counter that is full already wakes.
    pub fn signal(&self) {
        let one = 1_u64.to_ne_bytes();
        // SAFETY: the pointer is to eight live bytes, which is what an eventfd takes.
        let _ = unsafe { libc::write(self.fd.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Takes all signals so far; `false` when there was none.
    pub fn take(&self) -> bool {
        take(self.fd.as_fd())
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Resets an eventfd; `false` when it was zero.
pub(super) fn take(fd: BorrowedFd<'_>) -> bool {
    let mut count = [0_u8; 8];
    // SAFETY: the pointer is to eight live, writable bytes, which is what an eventfd gives.
    let read = unsafe { libc::read(fd.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    read == 8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_merge_into_one() {
        let wake = Wake::new().unwrap();
        assert!(!wake.take());
        let other = wake.try_clone().unwrap();
        other.signal();
        wake.signal();
        assert!(wake.take());
        assert!(!wake.take());
    }
}
