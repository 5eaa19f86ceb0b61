//! The kernel's path manager of multipath TCP: which addresses open further subflows, and how many there may be.
//!
//! What `ip mptcp endpoint add` and `ip mptcp limits set` do, through the generic netlink family `mptcp_pm`, in the
//! namespace of the thread that opens it. References: `linux/mptcp.h`, `linux/genetlink.h`, ip-mptcp(8).

use std::io;
use std::net::IpAddr;

use super::netlink::{Message, Socket, attributes, u16_at};
use super::{Netdev, NetdevError, family, octets};

/// Subflows that the kernel adds to the first one at most (`MPTCP_PM_ADDR_MAX`).
pub const MPTCP_SUBFLOWS_MAX: u32 = 8;

/// `struct genlmsghdr`: command u8, version u8, two reserved bytes.
const GENL_BYTES: usize = 4;
const FAMILY_NAME: &str = "mptcp_pm";
const FAMILY_VERSION: u8 = 1;
/// Marks an attribute that holds attributes; families with strict checks insist on it.
const NESTED: u16 = 1 << 15;

// Attributes and values of the family's enumerations, in their order.
const CMD_ADD_ADDR: u8 = 1;
const CMD_SET_LIMITS: u8 = 5;
const ATTR_ADDR: u16 = 1;
const ATTR_RCV_ADD_ADDRS: u16 = 2;
const ATTR_SUBFLOWS: u16 = 3;
const ADDR_FAMILY: u16 = 1;
const ADDR_ID: u16 = 2;
const ADDR_V4: u16 = 3;
const ADDR_V6: u16 = 4;
const ADDR_FLAGS: u16 = 6;
const ADDR_IF_IDX: u16 = 7;
const FLAG_SUBFLOW: u32 = 1 << 1;

/// The path manager of one namespace.
#[derive(Debug)]
pub struct Mptcp {
    socket: Socket,
    family: u16,
}

impl Mptcp {
    /// Finds the path manager of the calling thread's network namespace.
    ///
    /// # Errors
    /// ENOENT when the kernel has no multipath TCP.
    pub fn open() -> Result<Self, NetdevError> {
        let open = || -> io::Result<Self> {
            let mut socket = Socket::open_protocol(libc::NETLINK_GENERIC)?;
            let family = find_family(&mut socket)?;
            Ok(Self { socket, family })
        };
        open().map_err(|e| NetdevError::new("find the path manager", FAMILY_NAME, e))
    }

    /// Sets how many subflows a connection may add to its first, on this side; at most [`MPTCP_SUBFLOWS_MAX`].
    ///
    /// # Errors
    /// Too many, or not permitted.
    pub fn set_limit(&mut self, subflows: u32) -> Result<(), NetdevError> {
        let mut message = self.message(CMD_SET_LIMITS);
        message.number(ATTR_RCV_ADD_ADDRS, subflows);
        message.number(ATTR_SUBFLOWS, subflows);
        let result = self.socket.change(message);
        result.map_err(|e| NetdevError::new("limit", format_args!("{subflows} subflows"), e))
    }

    /// From now on, connections that this side opens add a subflow from `address`, over `device`. `id` names the
    /// endpoint and must be new, from 1.
    ///
    /// # Errors
    /// No such interface, too many endpoints, or not permitted.
    pub fn add_subflow_endpoint(
        &mut self,
        id: u8,
        address: IpAddr,
        device: &str,
    ) -> Result<(), NetdevError> {
        let index = Netdev::open()?.index_of(device)?;
        let mut message = self.message(CMD_ADD_ADDR);
        message.nest(ATTR_ADDR | NESTED, |endpoint| {
            let kind = if address.is_ipv4() { ADDR_V4 } else { ADDR_V6 };
            endpoint.attribute(ADDR_FAMILY, &u16::from(family(address)).to_ne_bytes());
            endpoint.attribute(ADDR_ID, &[id]);
            endpoint.attribute(kind, &octets(address));
            endpoint.number(ADDR_FLAGS, FLAG_SUBFLOW);
            endpoint.attribute(ADDR_IF_IDX, &index.to_ne_bytes());
        });
        let result = self.socket.change(message);
        result.map_err(|e| {
            let object = format_args!("{address} on {device}");
            NetdevError::new("add MPTCP endpoint", object, e)
        })
    }

    fn message(&self, command: u8) -> Message {
        Message::new(self.family, 0, &[command, FAMILY_VERSION, 0, 0])
    }
}

/// The number that the kernel gave the family.
fn find_family(socket: &mut Socket) -> io::Result<u16> {
    const CONTROLLER: u16 = 16; // GENL_ID_CTRL
    const CMD_GETFAMILY: u8 = 3;
    const ATTR_FAMILY_ID: u16 = 1;
    const ATTR_FAMILY_NAME: u16 = 2;
    let mut message = Message::new(CONTROLLER, 0, &[CMD_GETFAMILY, FAMILY_VERSION, 0, 0]);
    message.text(ATTR_FAMILY_NAME, FAMILY_NAME);
    let mut found = None;
    socket.ask(message, |_, body| {
        let mut all = attributes(body, GENL_BYTES);
        let id = all.find(|(kind, _)| *kind == ATTR_FAMILY_ID);
        found = id.and_then(|(_, value)| u16_at(value, 0));
    })?;
    found.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::Namespace;

    #[test]
    fn endpoints_and_limits_are_accepted_by_a_kernel_that_has_them() {
        let Ok(namespace) = Namespace::create() else {
            eprintln!("SKIPPED: cannot make a network namespace");
            return;
        };
        let result = namespace.run(|| {
            let mut manager = match Mptcp::open() {
                Ok(manager) => manager,
                Err(error) => {
                    eprintln!("SKIPPED: {error}: {}", error.source);
                    return Ok(());
                }
            };
            manager.set_limit(MPTCP_SUBFLOWS_MAX)?;
            assert!(manager.set_limit(MPTCP_SUBFLOWS_MAX + 1).is_err());
            let address = IpAddr::from([127, 0, 0, 7]);
            manager.add_subflow_endpoint(1, address, "lo")?;
            assert!(
                manager.add_subflow_endpoint(2, address, "lo").is_err(),
                "the address is taken"
            );
            manager
                .add_subflow_endpoint(3, address, "none")
                .expect_err("there is no such interface");
            Ok::<(), NetdevError>(())
        });
        result.unwrap().unwrap();
    }
}
