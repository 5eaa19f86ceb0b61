//! Floor 6: a running client or server. Everything below is wired to the kernel here; no decision about a packet
//! is made here.
//!
//! ```text
//!  main thread                                   data thread, one for each worker
//!  ───────────                                   ────────────────────────────────
//!  setup: TUN, addresses, sockets, rules ──────► Datapath (ring) + Endpoint ◄── mailbox ──► other workers
//!  control: signals, control socket,  Command ─► stop, reconfigure, snapshot
//!           statistics line, reload   ◄── Reply
//!  teardown: rules, addresses, socket file
//! ```
//!
//! The control thread runs on tokio-uring, or on plain tokio where the kernel refuses it a ring. No data thread waits
//! for it, or for another one.
#![forbid(unsafe_code)]

mod command;
mod control;
mod control_socket;
mod convert;
mod figures;
mod intake;
mod landing;
mod log_limit;
mod mailbox;
mod quota;
mod report;
mod role;
mod setup;
mod sockets;
mod start;
mod worker;

pub use setup::TUN_QUEUE_FRAMES;
pub use sockets::BUFFER_BYTES;

use std::path::PathBuf;

use crate::config::{Config, Role};
use crate::sys::netdev::NetdevError;
use crate::sys::{DatapathError, TunError, UdpError};

/// Why a daemon could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The TUN device.
    #[error(transparent)]
    Tun(#[from] TunError),
    /// An interface, an address, a route or a rule.
    #[error(transparent)]
    Netdev(#[from] NetdevError),
    /// A UDP socket.
    #[error(transparent)]
    Udp(#[from] UdpError),
    /// The ring or epoll.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    /// No WAN can be used.
    #[error("no WAN can be used: {0}")]
    NoWan(String),
    /// The control socket.
    #[error(
        "cannot listen on the control socket {path}: {source}; change [status] control_socket or remove what is in the way"
    )]
    ControlSocket {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Threads, runtimes, random numbers.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A data thread ended by itself.
    #[error("a data thread ended: {0}")]
    Worker(String),
}

impl RunError {
    /// Whether more privilege would help.
    pub fn is_permission(&self) -> bool {
        let mut source: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = source {
            if let Some(io) = error.downcast_ref::<std::io::Error>()
                && io.kind() == std::io::ErrorKind::PermissionDenied
            {
                return true;
            }
            source = error.source();
        }
        false
    }
}

/// Runs a daemon until it is told to stop (TERM or INT), then removes what it made.
///
/// # Errors
/// What could not be set up, or why the data thread ended.
pub fn run(role: Role, config: Config, path: PathBuf) -> Result<(), RunError> {
    let control = control::Control::open()?;
    let prepared = setup::prepare(role, &config)?;
    control.run(config, path, prepared)
}

/// An error with all its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
