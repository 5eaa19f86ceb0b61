//! A network address translator's view of one link: UDP source ports of the inside are seen as others outside.
//!
//! Sans-IO; rewrites IPv4 and IPv6 packets in place with incremental checksums (RFC 1624). Only ports change, so
//! that routing stays as it is. `rebind` forgets all mappings, as a home router does when it restarts: the inside
//! gets new ports with its next packet, and what the far end still sends to old ports is lost.
//!
//! Invariant: two inside ports never share an outside port, and an outside port is not used again after a rebind
//! until all others were.

use std::collections::BTreeMap;

/// First port that mappings use; below stand well-known services.
const PORT_FIRST: u16 = 20_000;
/// Ports that mappings use.
const PORT_COUNT: u16 = 40_000;

/// The mappings of one link.
#[derive(Debug)]
pub struct Nat {
    outside_of: BTreeMap<u16, u16>,
    inside_of: BTreeMap<u16, u16>,
    next: u16,
}

impl Default for Nat {
    fn default() -> Self {
        Self {
            outside_of: BTreeMap::new(),
            inside_of: BTreeMap::new(),
            next: PORT_FIRST,
        }
    }
}

impl Nat {
    /// Forgets every mapping.
    pub fn rebind(&mut self) {
        self.outside_of.clear();
        self.inside_of.clear();
    }

    /// A packet leaves the inside: its UDP source port becomes the mapped one. Other protocols pass.
    pub fn translate_out(&mut self, ip: &mut [u8]) {
        let Some(udp) = udp_offset(ip) else { return };
        let inside = read_u16(ip, udp);
        let outside = match self.outside_of.get(&inside) {
            Some(&outside) => outside,
            None => self.map(inside),
        };
        replace_port(ip, udp, udp, outside);
    }

    /// A packet comes from outside: its UDP destination port becomes the inside one. `false`: there is no such
    /// mapping and the packet must be dropped.
    #[must_use]
    pub fn translate_in(&mut self, ip: &mut [u8]) -> bool {
        let Some(udp) = udp_offset(ip) else {
            return true;
        };
        let Some(&inside) = self.inside_of.get(&read_u16(ip, udp + 2)) else {
            return false;
        };
        replace_port(ip, udp, udp + 2, inside);
        true
    }

    fn map(&mut self, inside: u16) -> u16 {
        while self.inside_of.contains_key(&self.next) {
            self.next = Self::after(self.next);
        }
        let outside = self.next;
        self.next = Self::after(outside);
        self.outside_of.insert(inside, outside);
        self.inside_of.insert(outside, inside);
        outside
    }

    fn after(port: u16) -> u16 {
        if port == PORT_FIRST + (PORT_COUNT - 1) {
            PORT_FIRST
        } else {
            port + 1
        }
    }
}

/// Where the UDP header of an unfragmented IP packet starts; `None` for everything else.
pub fn udp_offset(ip: &[u8]) -> Option<usize> {
    const UDP: u8 = 17;
    let offset = match ip.first()? >> 4 {
        4 if *ip.get(9)? == UDP && read_u16(ip, 6) & 0x1FFF == 0 => usize::from(ip[0] & 0x0F) * 4,
        6 if *ip.get(6)? == UDP => 40,
        _ => return None,
    };
    (ip.len() >= offset + 8).then_some(offset)
}

/// Writes `port` at `at` inside the UDP header at `udp` and corrects its checksum.
fn replace_port(ip: &mut [u8], udp: usize, at: usize, port: u16) {
    let old = read_u16(ip, at);
    ip[at..at + 2].copy_from_slice(&port.to_be_bytes());
    adjust_udp_checksum(ip, udp, old, port);
}

/// Corrects a UDP checksum for one 16-bit word that changed (RFC 1624 equation 3). Zero means "none" and stays.
pub fn adjust_udp_checksum(ip: &mut [u8], udp: usize, old: u16, new: u16) {
    let checksum = read_u16(ip, udp + 6);
    if checksum == 0 {
        return;
    }
    let mut sum = u32::from(!checksum) + u32::from(!old) + u32::from(new);
    sum = (sum & 0xFFFF) + (sum >> 16);
    sum = (sum & 0xFFFF) + (sum >> 16);
    #[allow(clippy::cast_possible_truncation)] // folded to 16 bits twice
    let folded = !(sum as u16);
    // A computed zero is sent as all ones (RFC 768).
    let folded = if folded == 0 { 0xFFFF } else { folded };
    ip[udp + 6..udp + 8].copy_from_slice(&folded.to_be_bytes());
}

fn read_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Rng;

    /// An IPv4 UDP packet with a right checksum.
    fn packet(source: u16, destination: u16, body: &[u8]) -> Vec<u8> {
        let udp_len = u16::try_from(8 + body.len()).unwrap();
        let mut ip = vec![
            0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 2, 10, 0, 0, 1,
        ];
        ip[2..4].copy_from_slice(&(20 + udp_len).to_be_bytes());
        ip.extend_from_slice(&source.to_be_bytes());
        ip.extend_from_slice(&destination.to_be_bytes());
        ip.extend_from_slice(&udp_len.to_be_bytes());
        ip.extend_from_slice(&[0, 0]);
        ip.extend_from_slice(body);
        let sum = checksum_of(&ip);
        ip[26..28].copy_from_slice(&sum.to_be_bytes());
        ip
    }

    /// The UDP checksum over pseudo header, header and body with the field itself taken as zero.
    fn checksum_of(ip: &[u8]) -> u16 {
        let mut sum = 17 + u32::try_from(ip.len() - 20).unwrap();
        let words = ip[12..20]
            .chunks(2)
            .chain(ip[20..26].chunks(2))
            .chain(ip[28..].chunks(2));
        for word in words {
            sum += u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0));
        }
        while sum > 0xFFFF {
            sum = (sum & 0xFFFF) + (sum >> 16);
        }
        let sum = !u16::try_from(sum).unwrap();
        if sum == 0 { 0xFFFF } else { sum }
    }

    #[test]
    fn there_and_back_gives_the_inside_port_and_a_right_checksum() {
        let mut nat = Nat::default();
        let mut rng = Rng::new(3);
        for _ in 0..2_000 {
            let inside = u16::try_from(1024 + rng.below(50_000)).unwrap();
            let body: Vec<u8> = (0..rng.below(40))
                .map(|_| rng.next_u64().to_le_bytes()[0])
                .collect();
            let mut out = packet(inside, 9001, &body);
            nat.translate_out(&mut out);
            assert_eq!(read_u16(&out, 26), checksum_of(&out));
            let mut back = packet(9001, read_u16(&out, 20), &body);
            assert!(nat.translate_in(&mut back));
            assert_eq!(read_u16(&back, 22), inside);
            assert_eq!(read_u16(&back, 26), checksum_of(&back));
        }
    }

    #[test]
    fn a_rebind_changes_the_port_and_closes_the_old_one() {
        let mut nat = Nat::default();
        let mut first = packet(5000, 9001, b"a");
        nat.translate_out(&mut first);
        nat.rebind();
        let mut second = packet(5000, 9001, b"a");
        nat.translate_out(&mut second);
        assert_ne!(read_u16(&first, 20), read_u16(&second, 20));
        assert!(!nat.translate_in(&mut packet(9001, read_u16(&first, 20), b"b")));
        assert!(nat.translate_in(&mut packet(9001, read_u16(&second, 20), b"b")));
    }

    #[test]
    fn other_protocols_and_short_packets_pass_untouched() {
        let mut nat = Nat::default();
        let mut icmp = packet(1, 2, b"x");
        icmp[9] = 1;
        let before = icmp.clone();
        nat.translate_out(&mut icmp);
        assert!(nat.translate_in(&mut icmp));
        assert_eq!(icmp, before);
        for len in 0..28 {
            let mut short = packet(1, 2, b"")[..len].to_vec();
            nat.translate_out(&mut short);
            assert!(nat.translate_in(&mut short));
        }
    }
}
