//! Who has which Ethernet address, told to the kernel once and for all.
//!
//! For networks in a box, where an ARP packet that an emulator loses must not be the reason for what is measured.

use std::fmt;
use std::net::IpAddr;

use super::netlink::Message;
use super::{Netdev, NetdevError, family, octets};

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// `struct ndmsg`: family u8, three bytes of padding, index i32, state u16, flags u8, type u8.
const NDMSG_BYTES: usize = 12;
/// `linux/neighbour.h`: the entry never times out and is never asked about.
const NUD_PERMANENT: u16 = 0x80;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;

impl Netdev {
    /// Tells the Ethernet address of a neighbour; it holds until the interface goes down. `false` when an entry is
    /// there already.
    ///
    /// # Errors
    /// No such interface, or not permitted.
    pub fn add_neighbour(
        &mut self,
        device: &str,
        address: IpAddr,
        mac: Mac,
    ) -> Result<bool, NetdevError> {
        let index = self.index_of(device)?;
        let mut header = [0; NDMSG_BYTES];
        header[0] = family(address);
        header[4..8].copy_from_slice(&index.to_ne_bytes());
        header[8..10].copy_from_slice(&NUD_PERMANENT.to_ne_bytes());
        let flags = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
        let mut message = Message::new(libc::RTM_NEWNEIGH, flags, &header);
        message.attribute(NDA_DST, &octets(address));
        message.attribute(NDA_LLADDR, &mac.0);
        self.create(
            message,
            "add neighbour",
            &format_args!("{address} at {mac} on {device}"),
        )
    }

    /// Sets an interface's own Ethernet address.
    ///
    /// # Errors
    /// No such interface, or not permitted.
    pub fn set_mac(&mut self, device: &str, mac: Mac) -> Result<(), NetdevError> {
        let index = self.index_of(device)?;
        let mut message = Message::new(libc::RTM_NEWLINK, 0, &super::link::ifinfo(index));
        message.attribute(libc::IFLA_ADDRESS, &mac.0);
        self.set(message, "set the Ethernet address of", device)
    }
}
