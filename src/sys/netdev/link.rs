//! Interfaces: looking them up, switching them on, MTU, queue length, virtual cables.

use std::os::fd::{AsRawFd, BorrowedFd};

use super::netlink::{self, Message, u32_at};
use super::{Netdev, NetdevError};

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The kernel's number for it; unique in the namespace and not reused soon.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Longest packet in bytes.
    pub mtu: u32,
    /// Packets it queues towards the wire.
    pub queue_length: u32,
    /// Longest superframe in bytes that the kernel gives it.
    pub superframe_bytes: u32,
    /// Switched on.
    pub up: bool,
    /// Switched on and connected.
    pub running: bool,
}

/// `struct ifinfomsg`: family u8, padding u8, type u16, index i32, flags u32, change u32.
const IFINFO_BYTES: usize = 16;

/// Attribute for the longest superframe (`if_link.h`), which libc does not name.
const IFLA_GSO_MAX_SIZE: u16 = 41;

const IFF_UP: u32 = 1;
const IFF_RUNNING: u32 = 0x40;

impl Netdev {
    /// All interfaces, in the kernel's order.
    ///
    /// # Errors
    /// Netlink fails.
    pub fn interfaces(&mut self) -> Result<Vec<Interface>, NetdevError> {
        let mut found = Vec::new();
        self.socket
            .dump(libc::RTM_GETLINK, &[0; IFINFO_BYTES], |kind, body| {
                if kind == libc::RTM_NEWLINK {
                    found.extend(parse(body));
                }
            })
            .map_err(|e| NetdevError::new("list", "interfaces", e))?;
        Ok(found)
    }

    /// One interface by name; `None` when there is none.
    ///
    /// # Errors
    /// Netlink fails.
    pub fn interface(&mut self, name: &str) -> Result<Option<Interface>, NetdevError> {
        Ok(self
            .interfaces()?
            .into_iter()
            .find(|interface| interface.name == name))
    }

    /// The MTU of an interface; `None` when there is none of that name.
    ///
    /// # Errors
    /// Netlink fails.
    pub fn mtu_of(&mut self, name: &str) -> Result<Option<u32>, NetdevError> {
        Ok(self.interface(name)?.map(|interface| interface.mtu))
    }

    /// Switches an interface on or off.
    ///
    /// # Errors
    /// No such interface, or not permitted.
    pub fn set_up(&mut self, name: &str, up: bool) -> Result<(), NetdevError> {
        let index = self.index_of(name)?;
        let mut header = ifinfo(index);
        header[8..12].copy_from_slice(&u32::from(up).to_ne_bytes()); // IFF_UP is bit 0
        header[12..16].copy_from_slice(&IFF_UP.to_ne_bytes());
        let message = Message::new(libc::RTM_NEWLINK, 0, &header);
        self.set(message, if up { "switch on" } else { "switch off" }, name)
    }

    /// Sets the MTU in bytes.
    ///
    /// # Errors
    /// No such interface, a size it cannot have, or not permitted.
    pub fn set_mtu(&mut self, name: &str, bytes: u32) -> Result<(), NetdevError> {
        let index = self.index_of(name)?;
        let mut message = Message::new(libc::RTM_NEWLINK, 0, &ifinfo(index));
        message.number(libc::IFLA_MTU, bytes);
        self.set(message, "set the MTU of", name)
    }

    /// Sets how many packets may queue; for a TUN that is the queue in front of our reads.
    ///
    /// # Errors
    /// No such interface, or not permitted.
    pub fn set_queue_length(&mut self, name: &str, packets: u32) -> Result<(), NetdevError> {
        let index = self.index_of(name)?;
        let mut message = Message::new(libc::RTM_NEWLINK, 0, &ifinfo(index));
        message.number(libc::IFLA_TXQLEN, packets);
        self.set(message, "set the queue length of", name)
    }

    /// Sets how long superframes may be that the kernel gives the interface, headers included.
    ///
    /// # Errors
    /// No such interface, longer than it can take, or not permitted.
    pub fn set_superframe_bytes(&mut self, name: &str, bytes: u32) -> Result<(), NetdevError> {
        let index = self.index_of(name)?;
        let mut message = Message::new(libc::RTM_NEWLINK, 0, &ifinfo(index));
        message.number(IFLA_GSO_MAX_SIZE, bytes);
        self.set(message, "set the longest superframe of", name)
    }

    /// Makes two interfaces joined by a virtual cable; `false` when one of the names exists.
    ///
    /// # Errors
    /// Not permitted, or the kernel has no veth.
    pub fn add_veth(&mut self, name: &str, peer: &str) -> Result<bool, NetdevError> {
        /// `linux/veth.h`.
        const VETH_INFO_PEER: u16 = 1;
        let create = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        let mut message = Message::new(libc::RTM_NEWLINK, create, &[0; IFINFO_BYTES]);
        message.text(libc::IFLA_IFNAME, name);
        message.nest(libc::IFLA_LINKINFO, |info| {
            info.text(libc::IFLA_INFO_KIND, "veth");
            info.nest(libc::IFLA_INFO_DATA, |data| {
                data.nest(VETH_INFO_PEER, |other| {
                    other.raw(&[0; IFINFO_BYTES]);
                    other.text(libc::IFLA_IFNAME, peer);
                });
            });
        });
        self.create(message, "make veth", &format_args!("{name}-{peer}"))
    }

    /// Deletes an interface (of a veth: both ends); `false` when there is none.
    ///
    /// # Errors
    /// It is not one that can be deleted, or not permitted.
    pub fn remove_interface(&mut self, name: &str) -> Result<bool, NetdevError> {
        let Some(interface) = self.interface(name)? else {
            return Ok(false);
        };
        let message = Message::new(libc::RTM_DELLINK, 0, &ifinfo(interface.index));
        self.delete(message, "delete interface", &name)
    }

    /// Moves an interface into another network namespace, where it is down and without addresses.
    ///
    /// # Errors
    /// No such interface, the name is taken there, or not permitted.
    pub fn move_to(&mut self, name: &str, namespace: BorrowedFd<'_>) -> Result<(), NetdevError> {
        let index = self.index_of(name)?;
        let mut message = Message::new(libc::RTM_NEWLINK, 0, &ifinfo(index));
        message.number(libc::IFLA_NET_NS_FD, namespace.as_raw_fd().cast_unsigned());
        self.set(message, "move to another namespace", name)
    }

    /// The index of an interface that must exist.
    pub(super) fn index_of(&mut self, name: &str) -> Result<u32, NetdevError> {
        let found = self.interface(name)?.map(|interface| interface.index);
        let missing = || std::io::Error::from_raw_os_error(libc::ENODEV);
        found.ok_or_else(|| NetdevError::new("find interface", name, missing()))
    }

    pub(super) fn set(
        &mut self,
        message: Message,
        operation: &'static str,
        name: &str,
    ) -> Result<(), NetdevError> {
        self.socket
            .change(message)
            .map_err(|e| NetdevError::new(operation, name, e))
    }
}

/// The fixed header with nothing but an index.
pub(super) fn ifinfo(index: u32) -> [u8; IFINFO_BYTES] {
    let mut header = [0; IFINFO_BYTES];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header
}

fn parse(body: &[u8]) -> Option<Interface> {
    let flags = u32_at(body, 8)?;
    let mut interface = Interface {
        index: u32_at(body, 4)?,
        name: String::new(),
        mtu: 0,
        queue_length: 0,
        superframe_bytes: 0,
        up: flags & IFF_UP != 0,
        running: flags & IFF_RUNNING != 0,
    };
    for (kind, value) in netlink::attributes(body, IFINFO_BYTES) {
        match kind {
            libc::IFLA_IFNAME => interface.name = netlink::text(value),
            libc::IFLA_MTU => interface.mtu = u32_at(value, 0)?,
            libc::IFLA_TXQLEN => interface.queue_length = u32_at(value, 0)?,
            IFLA_GSO_MAX_SIZE => interface.superframe_bytes = u32_at(value, 0)?,
            _ => {}
        }
    }
    Some(interface)
}
