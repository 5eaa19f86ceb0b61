//! The signals that a daemon listens to, as a descriptor for the event loop.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal as Number};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// What the operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM or SIGINT: tell the peer, put things back, end.
    Stop,
    /// SIGHUP: read the configuration again.
    Reload,
}

/// Receives TERM, INT and HUP instead of their default actions.
#[derive(Debug)]
pub struct Signals {
    fd: SignalFd,
}

impl Signals {
    /// Blocks the signals for the calling thread and all it starts later, and opens the descriptor. Must be
    /// called before other threads start, or they would still die of them.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn open() -> io::Result<Self> {
        let mut set = SigSet::empty();
        for number in [Number::SIGTERM, Number::SIGINT, Number::SIGHUP] {
            set.add(number);
        }
        set.thread_block()?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Self {
            fd: SignalFd::with_flags(&set, flags)?,
        })
    }

    /// The next signal that came; `None` when none is waiting.
    pub fn take(&self) -> Option<Signal> {
        let info = self.fd.read_signal().ok().flatten()?;
        let number = i32::try_from(info.ssi_signo).ok()?;
        Some(if number == libc::SIGHUP {
            Signal::Reload
        } else {
            Signal::Stop
        })
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing::wait_readable;

    #[test]
    fn signals_to_a_thread_that_listens_become_events() {
        // On a thread of its own: the mask must not stay with the test runner's.
        let thread = std::thread::spawn(|| {
            let signals = Signals::open().unwrap();
            assert_eq!(signals.take(), None);
            for (number, expected) in [
                (Number::SIGHUP, Signal::Reload),
                (Number::SIGTERM, Signal::Stop),
                (Number::SIGINT, Signal::Stop),
            ] {
                // raise(3) signals the calling thread only.
                nix::sys::signal::raise(number).unwrap();
                wait_readable(&signals);
                assert_eq!(signals.take(), Some(expected));
            }
        });
        thread.join().unwrap();
    }
}
