//! Floor 5: the kernel, and the only floor with `unsafe`.
//!
//! Clock, TUN, UDP sockets, registered memory, the event loop's [`datapath`], interfaces and routes
//! ([`netdev`]), namespaces and signals. Knows `base` and nothing else of this crate: no session, no
//! configuration, no decision about a packet.
//!
//! Rules of this floor: a wrapper owns its descriptor; one method for one system call; one error variant for
//! one operation, with the object's name; features are probed by using them, never by the kernel's version.
#![allow(unsafe_code)]

pub mod arena;
pub mod batch;
pub mod clock;
pub mod datapath;
pub mod listen;
pub mod mptcp;
pub mod namespace;
pub mod netdev;
pub mod packet;
pub mod priority;
pub mod signal;
pub mod tcp;
pub mod tun;
pub mod udp;
pub mod wake;

mod option;

#[cfg(test)]
pub(crate) mod testing;

pub use clock::Clock;
pub use datapath::{Datapath, DatapathError, Handler, SendSlot, Tier};
pub use namespace::Namespace;
pub use netdev::{Netdev, NetdevError};
pub use packet::{PacketError, PacketSocket, ReceiveBatch};
pub use signal::{Signal, Signals};
pub use tun::{BareTun, Offloads, Tun, TunConfig, TunError};
pub use udp::{UdpConfig, UdpError, UdpSocket};
pub use wake::Wake;
