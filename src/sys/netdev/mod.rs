//! Interfaces, addresses, routes and rules: everything that brings packets to our sockets and our TUN.
//!
//! A [`Netdev`] works in the network namespace in which it was opened. Each `add_...` says whether it changed
//! anything, and each `remove_...` takes exactly the thing that `add_...` with the same value made, so that a
//! caller can undo what it did and nothing else.
//!
//! Never decides which routes there should be, never runs another program.

mod address;
mod connections;
mod ethtool;
mod link;
mod mptcp;
mod neighbour;
mod netlink;
mod route;
mod rule;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

pub use address::Address;
pub use connections::{TcpConnection, tcp_connections};
pub use ethtool::Feature;
pub use link::Interface;
pub use mptcp::{MPTCP_SUBFLOWS_MAX, Mptcp};
pub use neighbour::Mac;
pub use route::{Route, TABLE_MAIN};
pub use rule::Rule;

use netlink::{Message, Socket};

/// The kernel's network configuration in one namespace.
#[derive(Debug)]
pub struct Netdev {
    socket: Socket,
}

/// What went wrong, with the operation and its object.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {object}")]
pub struct NetdevError {
    /// What was tried, as a verb.
    pub operation: &'static str,
    /// What it was tried on.
    pub object: String,
    /// What the kernel said.
    pub source: io::Error,
}

impl NetdevError {
    fn new(operation: &'static str, object: impl fmt::Display, source: io::Error) -> Self {
        Self {
            operation,
            object: object.to_string(),
            source,
        }
    }

    /// The caller lacks CAP_NET_ADMIN in this namespace.
    pub fn is_permission(&self) -> bool {
        self.source.kind() == io::ErrorKind::PermissionDenied
    }
}

impl Netdev {
    /// Opens the configuration of the calling thread's network namespace.
    ///
    /// # Errors
    /// Netlink is not available (a sandbox).
    pub fn open() -> Result<Self, NetdevError> {
        let socket = Socket::open().map_err(|e| NetdevError::new("open", "netlink", e))?;
        Ok(Self { socket })
    }

    /// Sends a change that creates something; `false` when it was there already.
    fn create(
        &mut self,
        message: Message,
        operation: &'static str,
        object: &dyn fmt::Display,
    ) -> Result<bool, NetdevError> {
        match self.socket.change(message) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
            Err(error) => Err(NetdevError::new(operation, object, error)),
        }
    }

    /// Sends a change that removes something; `false` when it was not there.
    fn delete(
        &mut self,
        message: Message,
        operation: &'static str,
        object: &dyn fmt::Display,
    ) -> Result<bool, NetdevError> {
        match self.socket.change(message) {
            Ok(()) => Ok(true),
            Err(error) if is_missing(&error) => Ok(false),
            Err(error) => Err(NetdevError::new(operation, object, error)),
        }
    }
}

/// The kernel's ways to say that there is no such link, address, route or rule.
fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENODEV | libc::EADDRNOTAVAIL | libc::ESRCH | libc::ENOENT)
    )
}

/// An address with the length of its network part, such as `10.1.2.3/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prefix {
    /// The address; host bits may be set.
    pub address: IpAddr,
    /// Leading bits that belong to the network.
    pub bits: u8,
}

impl Prefix {
    /// Everything of IPv4.
    pub const DEFAULT_V4: Self = Self {
        address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        bits: 0,
    };
    /// Everything of IPv6.
    pub const DEFAULT_V6: Self = Self {
        address: IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        bits: 0,
    };

    /// One address alone.
    pub const fn host(address: IpAddr) -> Self {
        Self {
            address,
            bits: bits_max(address),
        }
    }

    /// All of the address's family.
    pub const fn default_of(address: IpAddr) -> Self {
        if address.is_ipv4() {
            Self::DEFAULT_V4
        } else {
            Self::DEFAULT_V6
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl FromStr for Prefix {
    type Err = String;
    /// `10.0.0.1/24`, or an address alone for a host.
    fn from_str(text: &str) -> Result<Self, String> {
        let (address, bits) = text.split_once('/').unwrap_or((text, ""));
        let address: IpAddr = address
            .parse()
            .map_err(|_| format!("{text:?} is not an IP address or prefix"))?;
        let most = bits_max(address);
        let bits = if text.contains('/') {
            bits.parse().unwrap_or(u8::MAX)
        } else {
            most
        };
        if bits > most {
            return Err(format!("{text:?} has a prefix length outside of 0-{most}"));
        }
        Ok(Self { address, bits })
    }
}

const fn bits_max(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// AF_INET or AF_INET6 as the message headers hold it.
const fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { 2 } else { 10 }
}

/// The bytes of an address, in network order.
fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// An address from an attribute.
fn address_from(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(v4));
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

/// An ioctl request naming an interface; `None` when the name is impossible.
pub(super) fn interface_request(name: &str) -> Option<libc::ifreq> {
    let possible = !name.is_empty()
        && name.len() < libc::IFNAMSIZ
        && name
            .bytes()
            .all(|b| b != 0 && b != b'/' && !b.is_ascii_whitespace());
    if !possible {
        return None;
    }
    // SAFETY: an ifreq is plain integers and pointers, for all of which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    Some(request)
}
