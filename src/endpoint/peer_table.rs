//! Which peer owns an inner address.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::PeerId;
use crate::base::Prefix;
use crate::wire::inner_ip;
use crate::wire::virtio::VIRTIO_BYTES;

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
            .sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.bit_len()));
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
}
