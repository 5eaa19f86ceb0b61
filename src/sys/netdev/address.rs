//! Addresses of interfaces.

use std::net::IpAddr;

use super::netlink::{attributes, u32_at};
use super::{Netdev, NetdevError, Prefix, address_from, family, netlink::Message, octets};

/// One address of one interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// Index of the interface.
    pub index: u32,
    /// Our address and the length of the prefix that is reached directly (on a point-to-point interface: the
    /// peer's).
    pub prefix: Prefix,
    /// The other end of a point-to-point interface.
    pub peer: Option<IpAddr>,
}

/// `struct ifaddrmsg`: family u8, prefix length u8, flags u8, scope u8, index u32.
const IFADDR_BYTES: usize = 8;
/// No duplicate address detection: nobody else is on a tunnel, and the address works at once.
const IFA_F_NODAD: u8 = 2;

impl Netdev {
    /// Gives an interface an address; with `peer` a point-to-point one. `false` when it has it already.
    ///
    /// # Errors
    /// No such interface, peer of the other family, or not permitted.
    pub fn add_address(
        &mut self,
        device: &str,
        prefix: Prefix,
        peer: Option<IpAddr>,
    ) -> Result<bool, NetdevError> {
        let index = self.index_of(device)?;
        let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        let message = message(libc::RTM_NEWADDR, flags, index, prefix, peer);
        self.create(
            message,
            "add address",
            &format_args!("{prefix} to {device}"),
        )
    }

    /// Takes an address away; `false` when the interface did not have it.
    ///
    /// # Errors
    /// Not permitted.
    pub fn remove_address(
        &mut self,
        device: &str,
        prefix: Prefix,
        peer: Option<IpAddr>,
    ) -> Result<bool, NetdevError> {
        let Some(interface) = self.interface(device)? else {
            return Ok(false);
        };
        let message = message(libc::RTM_DELADDR, 0, interface.index, prefix, peer);
        self.delete(
            message,
            "remove address",
            &format_args!("{prefix} from {device}"),
        )
    }

    /// All addresses of all interfaces.
    ///
    /// # Errors
    /// Netlink fails.
    pub fn addresses(&mut self) -> Result<Vec<Address>, NetdevError> {
        let mut found = Vec::new();
        self.socket
            .dump(libc::RTM_GETADDR, &[0; IFADDR_BYTES], |kind, body| {
                if kind == libc::RTM_NEWADDR {
                    found.extend(parse(body));
                }
            })
            .map_err(|e| NetdevError::new("list", "addresses", e))?;
        Ok(found)
    }

    /// The name of the interface that has `source` as its address; `None` when none has.
    ///
    /// # Errors
    /// Netlink fails.
    pub fn device_of(&mut self, source: IpAddr) -> Result<Option<String>, NetdevError> {
        let addresses = self.addresses()?;
        let Some(found) = addresses
            .iter()
            .find(|address| address.prefix.address == source)
        else {
            return Ok(None);
        };
        let interfaces = self.interfaces()?;
        Ok(interfaces
            .into_iter()
            .find(|i| i.index == found.index)
            .map(|i| i.name))
    }
}

fn message(kind: u16, flags: i32, index: u32, prefix: Prefix, peer: Option<IpAddr>) -> Message {
    let mut header = [family(prefix.address), prefix.bits, 0, 0, 0, 0, 0, 0];
    if prefix.address.is_ipv6() {
        header[2] = IFA_F_NODAD;
    }
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    let mut message = Message::new(kind, flags, &header);
    message.attribute(libc::IFA_LOCAL, &octets(prefix.address));
    message.attribute(libc::IFA_ADDRESS, &octets(peer.unwrap_or(prefix.address)));
    message
}

fn parse(body: &[u8]) -> Option<Address> {
    let bits = *body.get(1)?;
    let index = u32_at(body, 4)?;
    let (mut local, mut other) = (None, None);
    for (kind, value) in attributes(body, IFADDR_BYTES) {
        match kind {
            libc::IFA_LOCAL => local = address_from(value),
            libc::IFA_ADDRESS => other = address_from(value),
            _ => {}
        }
    }
    // IPv6 gives only IFA_ADDRESS unless there is a peer.
    let address = local.or(other)?;
    let peer = other.filter(|&other| other != address);
    Some(Address {
        index,
        prefix: Prefix { address, bits },
        peer,
    })
}
