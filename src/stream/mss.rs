//! Clamping of TCP's maximum segment size: what two hosts agree on fits the tunnel without being cut.
//!
//! A host behind a router announces what its own network carries. Where the tunnel carries less and the ICMP messages
//! that would say so are lost, the connection hangs; and packets that are cut in two cost two datagrams each. So the
//! option in SYN and SYN-ACK is lowered on the way in. Never raised, never added, and no other packet is touched.
//!
//! References: RFC 9293 section 3.7.1 (the option), RFC 1624 (checksum update).

use super::checksum::{fold, sum};
use crate::wire::inner_ip::{self, InnerIp, proto};
use crate::wire::virtio::{VIRTIO_BYTES, VirtioHeader};

/// Greatest segment sizes, by family of the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MssMax {
    /// Over IPv4.
    pub v4: u16,
    /// Over IPv6.
    pub v6: u16,
}

impl MssMax {
    /// What packets of `mtu` bytes hold, headers without options.
    pub const fn of_mtu(mtu: u16) -> Self {
        Self {
            v4: mtu.saturating_sub(40),
            v6: mtu.saturating_sub(60),
        }
    }
}

const SYN: u8 = 2;
/// Where TCP's data offset, checksum and options stand.
const DATA_OFFSET_AT: usize = 12;
const CHECKSUM_AT: usize = 16;
const OPTIONS_AT: usize = 20;
/// Kinds and length of options.
const END: u8 = 0;
const NOTHING: u8 = 1;
const MSS: u8 = 2;
const MSS_BYTES: u8 = 4;

/// Whether a packet opens a TCP connection; others need not be looked at.
pub fn is_syn(ip: &InnerIp) -> bool {
    ip.proto == proto::TCP && ip.tcp_flags & SYN != 0
}

/// Lowers the MSS that a SYN in `frame` (virtio header and packet) announces. Returns whether it did.
pub fn clamp(frame: &mut [u8], max: MssMax) -> bool {
    let Some(tcp_at) = syn_at(frame) else {
        return false;
    };
    let is_v4 = frame[VIRTIO_BYTES] >> 4 == 4;
    let max = if is_v4 { max.v4 } else { max.v6 };
    // An unfinished checksum holds the pseudo header alone, which knows nothing of options.
    let finished = VirtioHeader::split(frame).is_ok_and(|(virtio, _)| !virtio.needs_checksum());
    let tcp = &mut frame[tcp_at..];
    let Some(at) = mss_at(tcp) else {
        return false;
    };
    let announced = u16::from_be_bytes([tcp[at], tcp[at + 1]]);
    if announced <= max {
        return false;
    }
    // The words of the sum that hold the value: two when it stands at an odd place.
    let words = at & !1..(at + 3) & !1;
    let before = sum(&tcp[words.clone()]);
    tcp[at..at + 2].copy_from_slice(&max.to_be_bytes());
    if finished {
        let old = u16::from_be_bytes([tcp[CHECKSUM_AT], tcp[CHECKSUM_AT + 1]]);
        // RFC 1624: HC' = ~(~HC + ~m + m').
        let after = sum(&tcp[words]);
        let checksum = !fold(u64::from(!old) + u64::from(!fold(before)) + after);
        tcp[CHECKSUM_AT..CHECKSUM_AT + 2].copy_from_slice(&checksum.to_be_bytes());
    }
    true
}

/// Where the TCP header of a SYN begins in its frame.
fn syn_at(frame: &[u8]) -> Option<usize> {
    let packet = frame.get(VIRTIO_BYTES..)?;
    let ip = inner_ip::parse(packet).ok()?;
    (is_syn(&ip) && ip.header_len + OPTIONS_AT <= ip.total_len)
        .then_some(VIRTIO_BYTES + ip.header_len)
}

/// Where the value of the MSS option stands in a TCP header.
fn mss_at(tcp: &[u8]) -> Option<usize> {
    let end = (usize::from(*tcp.get(DATA_OFFSET_AT)? >> 4) * 4).min(tcp.len());
    let mut at = OPTIONS_AT;
    while at < end {
        match tcp[at] {
            END => return None,
            NOTHING => at += 1,
            kind => {
                let length = *tcp[..end].get(at + 1)?;
                if kind == MSS {
                    let fits = length == MSS_BYTES && at + usize::from(MSS_BYTES) <= end;
                    return fits.then_some(at + 2);
                }
                if length < 2 {
                    return None;
                }
                at += usize::from(length);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Rng;
    use crate::stream::checksum::{complete_checksum, pseudo_header};
    use proptest::prelude::*;

    const MAX: MssMax = MssMax { v4: 1360, v6: 1340 };

    /// A TCP segment with these flags and options; its checksum is finished or left to the device.
    fn frame(v6: bool, flags: u8, options: &[u8], payload: usize, finished: bool) -> Vec<u8> {
        let mut options = options.to_vec();
        options.resize(options.len().next_multiple_of(4), 0);
        let tcp_bytes = OPTIONS_AT + options.len() + payload;
        let (ip_bytes, addresses) = if v6 { (40, 8..40) } else { (20, 12..20) };
        let mut packet = vec![0; ip_bytes];
        let total = u16::try_from(ip_bytes + tcp_bytes).unwrap();
        let length = u16::try_from(tcp_bytes).unwrap();
        if v6 {
            packet[0] = 0x60;
            packet[4..6].copy_from_slice(&length.to_be_bytes());
            (packet[6], packet[7]) = (6, 64);
        } else {
            packet[0] = 0x45;
            packet[2..4].copy_from_slice(&total.to_be_bytes());
            (packet[8], packet[9]) = (64, 6);
        }
        let mut rng = Rng::new(u64::from(total) ^ u64::from(flags) << 20);
        for byte in &mut packet[addresses.clone()] {
            *byte = rng.next_u64().to_le_bytes()[0];
        }
        let pseudo = pseudo_header(&packet, addresses, 6, length);
        let mut tcp: Vec<u8> = (0..tcp_bytes)
            .map(|_| rng.next_u64().to_le_bytes()[0])
            .collect();
        tcp[12] = u8::try_from((OPTIONS_AT + options.len()) / 4).unwrap() << 4;
        tcp[13] = flags;
        tcp[16..18].copy_from_slice(&pseudo.to_be_bytes());
        tcp[20..20 + options.len()].copy_from_slice(&options);
        let virtio = VirtioHeader {
            flags: 1,
            csum_start: u16::try_from(ip_bytes).unwrap(),
            csum_offset: 16,
            ..VirtioHeader::NONE
        };
        let mut frame = vec![0; VIRTIO_BYTES];
        virtio.emit(&mut frame);
        frame.extend_from_slice(&packet);
        frame.extend_from_slice(&tcp);
        if finished {
            assert!(complete_checksum(&mut frame));
        }
        frame
    }

    /// The sum over pseudo header and segment of a finished frame; all ones when it is right.
    fn check(frame: &[u8]) -> u16 {
        let packet = &frame[VIRTIO_BYTES..];
        let (ip_bytes, addresses) = if packet[0] >> 4 == 6 {
            (40, 8..40)
        } else {
            (20, 12..20)
        };
        let length = u16::try_from(packet.len() - ip_bytes).unwrap();
        fold(u64::from(pseudo_header(packet, addresses, 6, length)) + sum(&packet[ip_bytes..]))
    }

    fn option(mss: u16) -> [u8; 4] {
        let [high, low] = mss.to_be_bytes();
        [MSS, MSS_BYTES, high, low]
    }

    #[test]
    fn a_syn_and_its_answer_announce_no_more_than_fits() {
        for flags in [SYN, SYN | 0x10] {
            for (v6, max) in [(false, MAX.v4), (true, MAX.v6)] {
                let mut syn = frame(v6, flags, &option(1460), 0, true);
                assert!(clamp(&mut syn, MAX));
                assert!(syn.ends_with(&max.to_be_bytes()));
                assert_eq!(check(&syn), 0xffff);
                assert!(!clamp(&mut syn, MAX), "once is enough");
            }
        }
    }

    #[test]
    fn an_unfinished_checksum_stays_as_it_is() {
        let mut syn = frame(false, SYN, &option(1460), 0, false);
        let before = syn.clone();
        assert!(clamp(&mut syn, MAX));
        assert_eq!(syn[..syn.len() - 2], before[..syn.len() - 2]);
        assert!(complete_checksum(&mut syn));
        assert_eq!(check(&syn), 0xffff);
    }

    #[test]
    fn everything_else_is_left_alone() {
        let others = [
            frame(false, 0x10, &option(1460), 100, true), // no SYN
            frame(false, SYN, &option(1360), 0, true),    // small enough
            frame(false, SYN, &[], 0, true),              // says nothing
            frame(false, SYN, &[2, 3, 5, 180], 0, true),  // wrong length
            frame(false, SYN, &[8, 0, 2, 4, 5, 180], 0, true), // an option without an end
            frame(false, SYN, &[0, 2, 4, 5, 180], 0, true), // behind the end
        ];
        for other in others {
            let mut same = other.clone();
            assert!(!clamp(&mut same, MAX));
            assert_eq!(same, other);
        }
        let mut part = frame(false, SYN, &option(1460), 0, true);
        part[VIRTIO_BYTES + 6] = 0x20; // more fragments
        assert!(!clamp(&mut part, MAX));
    }

    proptest! {
        #[test]
        fn the_checksum_equals_a_full_one(
            v6 in any::<bool>(), mss in any::<u16>(), max in any::<u16>(), before in 0_usize..5, payload in 0_usize..40,
        ) {
            // NOPs in front put the value at odd places as well.
            let mut options = vec![NOTHING; before];
            options.extend_from_slice(&option(mss));
            let mut syn = frame(v6, SYN, &options, payload, true);
            let at = mss_at(&syn[VIRTIO_BYTES + if v6 { 40 } else { 20 }..]).unwrap();
            prop_assert_eq!(at, OPTIONS_AT + before + 2);
            prop_assert_eq!(clamp(&mut syn, MssMax { v4: max, v6: max }), mss > max);
            prop_assert_eq!(check(&syn), 0xffff);
            let tcp = &syn[VIRTIO_BYTES + if v6 { 40 } else { 20 }..];
            prop_assert_eq!(u16::from_be_bytes([tcp[at], tcp[at + 1]]), mss.min(max));
        }

        #[test]
        fn no_bytes_make_it_fail(bytes in proptest::collection::vec(any::<u8>(), 0..120), options in proptest::collection::vec(any::<u8>(), 0..40)) {
            clamp(&mut bytes.clone(), MAX);
            clamp(&mut frame(false, SYN, &options, 0, true), MAX);
        }
    }
}
