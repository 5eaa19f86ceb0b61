//! The congestion mark of an IP packet (RFC 3168).

/// Marks a packet "congestion experienced" and keeps its header checksum right. `false`, and nothing is
/// changed, when its sender does not understand the mark or it is no whole IP header. On a superframe the mark
/// counts for each of its segments.
pub fn mark_ce(packet: &mut [u8]) -> bool {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) if packet.len() >= 20 => {
            if packet[1] & CE == NOT_ECT {
                return false;
            }
            let before = u16::from_be_bytes([packet[0], packet[1]]);
            packet[1] |= CE;
            let after = u16::from_be_bytes([packet[0], packet[1]]);
            // RFC 1624, equation 3: HC' = ~(~HC + ~m + m').
            let checksum = u16::from_be_bytes([packet[10], packet[11]]);
            let sum = u32::from(!checksum) + u32::from(!before) + u32::from(after);
            let checksum = !super::checksum::fold(u64::from(sum));
            packet[10..12].copy_from_slice(&checksum.to_be_bytes());
            true
        }
        // The traffic class lies across the first two bytes; its low two bits are bits 5-4 of the second.
        Some(6) if packet.len() >= 40 => {
            let markable = packet[1] >> 4 & CE != NOT_ECT;
            if markable {
                packet[1] |= CE << 4;
            }
            markable
        }
        _ => false,
    }
}

const NOT_ECT: u8 = 0;
/// Congestion experienced; also the mask of the ECN field.
const CE: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    /// The checksum as RFC 791 describes it, computed word by word.
    fn header_sum(header: &[u8]) -> u32 {
        let mut sum = 0_u32;
        for pair in header.chunks(2) {
            sum += u32::from(pair[0]) * 256 + u32::from(pair[1]);
            sum = sum % 65_536 + sum / 65_536;
        }
        sum
    }

    #[test]
    fn ipv4_is_marked_and_its_checksum_stays_right() {
        for tos in 0..=255_u8 {
            for id in [0_u16, 1, 0xfffe, 0xffff, 0x1234] {
                let mut packet = [0_u8; 28];
                packet[..2].copy_from_slice(&[0x45, tos]);
                packet[4..6].copy_from_slice(&id.to_be_bytes());
                packet[8..10].copy_from_slice(&[64, 6]);
                let checksum = u16::try_from(0xffff - header_sum(&packet[..20])).unwrap();
                packet[10..12].copy_from_slice(&checksum.to_be_bytes());
                let before = packet;
                let marked = mark_ce(&mut packet);
                assert_eq!(marked, tos & 3 != 0);
                assert_eq!(packet[1], if marked { tos | 3 } else { tos });
                assert_eq!(header_sum(&packet[..20]), 0xffff);
                assert!(marked || packet == before);
            }
        }
    }

    #[test]
    fn ipv6_is_marked_and_nothing_else_changes() {
        for class in 0..=255_u8 {
            let mut packet = [0x5a_u8; 48];
            packet[0] = 0x60 | class >> 4;
            packet[1] = class << 4 | 0xa;
            let mut expected = packet;
            expected[1] |= if class & 3 == 0 { 0 } else { 0x30 };
            assert_eq!(mark_ce(&mut packet), class & 3 != 0);
            assert_eq!(packet, expected);
        }
    }

    #[test]
    fn scraps_are_left_alone() {
        for len in 0..40 {
            for first in [0x45, 0x60, 0x00, 0xff] {
                let mut packet = vec![0xff; len];
                packet.iter_mut().take(1).for_each(|b| *b = first);
                let marked = mark_ce(&mut packet);
                assert_eq!(marked, first == 0x45 && len >= 20);
            }
        }
    }
}
