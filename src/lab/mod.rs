//! Floor 7: a network in a box. Namespaces, emulated WANs, real kernel traffic, captures; used by `chainlightning
//! demo`, by `tests/e2e` and by `tools/wanem`.
//!
//! Everything happens in namespaces of its own; the host's network is never touched, and all of it is gone when the
//! process ends. Calls no external program.
//!
//! ```text
//!  client namespace            wan namespace (ours)             server namespace
//!  eth1 10.1.1.2 ════════ w1c ── emulator ── w1s ════════ eth1 10.1.1.1 ┐
//!  eth2 10.1.2.2 ════════ w2c ── emulator ── w2s ════════ eth2 10.1.2.1 ├─ lo 10.200.0.1
//!  eth3 10.1.3.2 ════════ w3c ── emulator ── w3s ════════ eth3 10.1.3.1 ┘
//! ```
//!
//! Order of use: [`enter::enter`] first thing in `main`, then [`Topology::build`], then processes and traffic.
#![forbid(unsafe_code)]

pub mod enter;
pub mod mptcp;
pub mod netns;
pub mod process;
pub mod relay;
pub mod topology;
pub mod traffic;
pub mod tunnel;
pub mod wanem;

mod emulator;

use std::io;
use std::time::Duration;

use crate::sys::{Clock, NetdevError};

pub use emulator::Emulator;
pub use enter::{EnterError, Entry};
pub use netns::Netns;
pub use process::{Launch, Memory, Process};
pub use topology::{Nic, Programs, Topology, Wan};
pub use tunnel::{Tunnel, TunnelSpec};

/// Why the lab could not be built or used.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A system call or a file.
    #[error("{what}: {source}")]
    Io {
        /// What was tried, with the object's name.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// A change of interfaces, addresses or routes.
    #[error("{0}: {source}", source = .0.source)]
    Netdev(#[from] NetdevError),
    /// A program of the lab did not do what it should.
    #[error("{0}")]
    Program(String),
}

impl LabError {
    /// For `map_err`: names what was tried.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// Waits, and does nothing else. For samplers and for polling a condition; never a substitute for a condition.
pub fn pause(time: Duration) {
    let time = nix::sys::time::TimeSpec::from_duration(time);
    // Without descriptors ppoll is a precise sleep; a signal may end it early, which callers must bear.
    let _ = nix::poll::ppoll(&mut [], Some(time), None);
}

/// Looks every 5 ms whether `condition` holds; false when it does not within `limit`.
pub fn wait_until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    const LOOK_EVERY: Duration = Duration::from_millis(5);
    let clock = Clock::start();
    loop {
        if condition() {
            return true;
        }
        if clock.now().since(crate::base::Instant::ZERO) > limit {
            return false;
        }
        pause(LOOK_EVERY);
    }
}
