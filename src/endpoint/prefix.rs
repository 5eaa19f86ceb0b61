//! Address prefixes, and which peer owns an inner address.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::PeerId;
use crate::wire::inner_ip;
use crate::wire::virtio::VIRTIO_BYTES;

/// An address prefix, host bits zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix {
    bits: u128,
    length: u8,
    v6: bool,
}

impl Prefix {
    /// The prefix of `length` bits around `address`; `None` when the length is too long for the family.
    pub fn new(address: IpAddr, length: u8) -> Option<Self> {
        let (bits, max, v6) = key(address);
        (length <= max).then(|| Self {
            bits: bits & mask(length),
            length,
            v6,
        })
    }

    /// The prefix that holds one address only.
    pub fn host(address: IpAddr) -> Self {
        let (bits, length, v6) = key(address);
        Self { bits, length, v6 }
    }

    /// Whether the address lies inside.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (bits, _, v6) = key(address);
        v6 == self.v6 && bits & mask(self.length) == self.bits
    }

    /// Number of fixed bits.
    pub const fn length(&self) -> u8 {
        self.length
    }
}

/// The address at the top of 128 bits, so that one mask serves both families.
fn key(address: IpAddr) -> (u128, u8, bool) {
    match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, 32, false),
        IpAddr::V6(v6) => (v6.to_bits(), 128, true),
    }
}

const fn mask(length: u8) -> u128 {
    if length == 0 {
        0
    } else {
        u128::MAX << (128 - length)
    }
}

impl FromStr for Prefix {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.split_once('/') {
            Some((address, length)) => Self::new(
                address.parse().map_err(drop)?,
                length.parse().map_err(drop)?,
            )
            .ok_or(()),
            None => Ok(Self::host(text.parse().map_err(drop)?)),
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        #[allow(clippy::cast_possible_truncation)] // shifted down to 32 bits
        let address = if self.v6 {
            IpAddr::V6(self.bits.into())
        } else {
            IpAddr::V4(((self.bits >> 96) as u32).into())
        };
        write!(f, "{address}/{}", self.length)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Longest-prefix match from inner addresses to peers. Host routes, the usual case, are one look-up; wider
/// prefixes are tried longest first.
#[derive(Clone, Debug, Default)]
pub struct PeerTable {
    hosts: BTreeMap<IpAddr, PeerId>,
    wide: Vec<(Prefix, PeerId)>,
}

impl PeerTable {
    /// Adds the prefixes of one peer. The first peer to name a prefix keeps it.
    pub fn insert(&mut self, prefix: Prefix, address: Option<IpAddr>, peer: PeerId) {
        if let Some(address) = address {
            self.hosts.entry(address).or_insert(peer);
            return;
        }
        if self.wide.iter().any(|(known, _)| *known == prefix) {
            return;
        }
        self.wide.push((prefix, peer));
        self.wide
            .sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.length()));
    }

    /// Who owns the address.
    pub fn get(&self, address: IpAddr) -> Option<PeerId> {
        self.hosts.get(&address).copied().or_else(|| {
            self.wide
                .iter()
                .find(|(prefix, _)| prefix.contains(address))
                .map(|(_, peer)| *peer)
        })
    }
}

impl PeerTable {
    /// Number of the peer whose address the packet of a frame names as its source.
    pub fn owner_of_source(&self, frame: &[u8]) -> Option<usize> {
        let ip = inner_ip::parse(frame.get(VIRTIO_BYTES..)?).ok()?;
        Some(self.get(ip.src)?.index())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn the_longest_prefix_wins() {
        let mut table = PeerTable::default();
        table.insert(prefix("0.0.0.0/0"), None, PeerId(0));
        table.insert(prefix("192.168.50.0/24"), None, PeerId(1));
        table.insert(
            prefix("192.168.50.7/32"),
            Some("192.168.50.7".parse().unwrap()),
            PeerId(2),
        );
        let get = |a: &str| table.get(a.parse().unwrap()).map(|p| p.0);
        assert_eq!(get("192.168.50.7"), Some(2));
        assert_eq!(get("192.168.50.8"), Some(1));
        assert_eq!(get("8.8.8.8"), Some(0));
        assert_eq!(get("fd00::1"), None);
    }

    #[test]
    fn prefixes_are_read_and_shown() {
        for (text, shown) in [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("fd00::7", "fd00::7/128"),
            ("::/0", "::/0"),
        ] {
            assert_eq!(prefix(text).to_string(), shown);
        }
        for bad in ["10.0.0.0/33", "fd00::/129", "x/8", "10.0.0.0/"] {
            assert!(bad.parse::<Prefix>().is_err(), "{bad}");
        }
        assert!(!prefix("0.0.0.0/0").contains("::1".parse().unwrap()));
    }
}
