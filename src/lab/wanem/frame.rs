//! An Ethernet frame as the model's payload.

use crate::base::Rng;
use crate::sim::impairment::Payload;
use crate::sim::nat::{adjust_udp_checksum, udp_offset};

/// Bytes before the packet; they do not count as load of the emulated link.
pub(super) const ETHERNET_BYTES: usize = 14;

/// One frame on its way.
#[derive(Clone, Debug)]
pub(super) struct Frame(pub(super) Vec<u8>);

impl Frame {
    /// The packet behind the Ethernet header; empty when there is none or it is not IP.
    pub(super) fn ip_mut(&mut self) -> &mut [u8] {
        match self.0.get(12..ETHERNET_BYTES) {
            Some([0x08, 0x00] | [0x86, 0xDD]) => &mut self.0[ETHERNET_BYTES..],
            _ => &mut [],
        }
    }
}

impl Payload for Frame {
    fn wire_bytes(&self) -> u32 {
        u32::try_from(self.0.len().saturating_sub(ETHERNET_BYTES)).unwrap_or(u32::MAX)
    }

    /// Damages a UDP body and corrects the checksum, because damage that checksums find never reaches a program:
    /// the kernel drops it, which `loss` already covers. Packets without a UDP body stay as they are.
    fn corrupt(&mut self, rng: &mut Rng) {
        let ip = self.ip_mut();
        let Some(udp) = udp_offset(ip) else { return };
        let words = (ip.len() - udp - 8) / 2;
        if words == 0 {
            return;
        }
        let at = udp + 8 + 2 * usize::try_from(rng.below(words as u64)).unwrap_or(0);
        let old = u16::from_be_bytes([ip[at], ip[at + 1]]);
        let new = old ^ (1 << rng.below(16));
        ip[at..at + 2].copy_from_slice(&new.to_be_bytes());
        adjust_udp_checksum(ip, udp, old, new);
    }

    fn duplicate(&self) -> Option<Self> {
        Some(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_changes_one_bit_of_the_body_and_keeps_the_checksum_right() {
        let mut bytes = vec![0_u8; 12];
        bytes.extend([
            0x08, 0x00, 0x45, 0, 0, 36, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
        ]);
        bytes.extend([0x10, 0, 0x20, 0, 0, 16, 0x12, 0x34, 1, 2, 3, 4, 5, 6, 7, 8]);
        let sum = |bytes: &[u8]| {
            let words = bytes[14 + 20..]
                .chunks(2)
                .map(|w| u32::from(w[0]) << 8 | u32::from(w[1]));
            let mut sum: u32 = words.sum();
            while sum > 0xFFFF {
                sum = (sum & 0xFFFF) + (sum >> 16);
            }
            sum
        };
        let before = sum(&bytes);
        let mut frame = Frame(bytes.clone());
        frame.corrupt(&mut Rng::new(9));
        assert_eq!(sum(&frame.0), before);
        let changed = |range: std::ops::Range<usize>| -> u32 {
            range.map(|i| (bytes[i] ^ frame.0[i]).count_ones()).sum()
        };
        assert_eq!(changed(42..50), 1);
        assert_eq!(changed(0..40), 0);
        assert_eq!(frame.wire_bytes(), 36);
    }
}
