//! The internet checksum (RFC 1071) and what devices with checksum offload leave undone.

use std::ops::Range;

use crate::wire::virtio::{UDP_CSUM_OFFSET, VIRTIO_BYTES, VirtioHeader};

/// Finishes the checksum of a frame for a receiver that cannot: the field holds the pseudo-header sum and gets
/// the checksum, the virtio header becomes all zero. `false`, and nothing is changed, for a superframe (it has
/// one checksum for each segment, see `segment::split`) or a header that does not fit its packet.
pub fn complete_checksum(frame: &mut [u8]) -> bool {
    let Ok((virtio, packet)) = VirtioHeader::split(frame) else {
        return false;
    };
    if virtio.validate(packet).is_err() || virtio.is_superframe() {
        return false;
    }
    let (header, packet) = frame.split_at_mut(VIRTIO_BYTES);
    if virtio.needs_checksum() {
        let start = usize::from(virtio.csum_start);
        let field = start + usize::from(virtio.csum_offset);
        let checksum = match !fold(sum(&packet[start..])) {
            // UDP says "no checksum" with zero, and minus zero is the same number (RFC 768).
            0 if virtio.csum_offset == UDP_CSUM_OFFSET => 0xffff,
            checksum => checksum,
        };
        packet[field..field + 2].copy_from_slice(&checksum.to_be_bytes());
    }
    VirtioHeader::NONE.emit(header);
    true
}

/// Sum of the big-endian 16-bit words of `bytes`, an odd last byte padded with zero. Sums of parts of even
/// length may be added.
pub(super) fn sum(bytes: &[u8]) -> u64 {
    let (chunks, rest) = bytes.as_chunks::<4>();
    // A u32 at a time: the high word is worth 2^16, which is 1 in this arithmetic.
    let mut total: u64 = chunks
        .iter()
        .map(|c| u64::from(u32::from_be_bytes(*c)))
        .sum();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    total += u64::from(u32::from_be_bytes(last));
    total
}

/// A sum brought down to 16 bits, the carries added again.
pub(super) const fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    #[expect(clippy::cast_possible_truncation, reason = "the loop ends at 16 bits")]
    let folded = sum as u16;
    folded
}

/// What a device with checksum offload expects in the checksum field: the sum of the pseudo header, not
/// complemented. `addresses` is where both addresses lie in the packet.
pub(super) fn pseudo_header(
    packet: &[u8],
    addresses: Range<usize>,
    protocol: u8,
    length: u16,
) -> u16 {
    fold(sum(&packet[addresses]) + u64::from(protocol) + u64::from(length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_example_of_rfc_1071() {
        assert_eq!(
            fold(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7])),
            0xddf2
        );
        assert_eq!(fold(sum(&[0xff])), 0xff00);
        assert_eq!(fold(sum(&[])), 0);
    }

    #[test]
    fn an_unfinished_udp_checksum_is_finished_and_zero_becomes_minus_zero() {
        let virtio = VirtioHeader {
            flags: 1,
            csum_start: 20,
            csum_offset: 6,
            ..VirtioHeader::NONE
        };
        let mut frame = [0_u8; 10 + 20 + 8 + 2];
        virtio.emit(&mut frame);
        frame[10] = 0x45;
        frame[38..40].copy_from_slice(&[0x12, 0x34]);
        let mut zero = frame;
        assert!(complete_checksum(&mut frame));
        assert_eq!(
            (&frame[..10], &frame[36..38]),
            (&[0; 10][..], &(!0x1234_u16).to_be_bytes()[..])
        );
        zero[38..40].copy_from_slice(&[0xff, 0xff]);
        assert!(complete_checksum(&mut zero));
        assert_eq!(zero[36..38], [0xff, 0xff]);
    }

    #[test]
    fn superframes_and_impossible_headers_are_left_alone() {
        for virtio in [
            VirtioHeader {
                flags: 1,
                gso_type: 1,
                gso_size: 5,
                csum_offset: 16,
                ..VirtioHeader::NONE
            },
            VirtioHeader {
                flags: 1,
                csum_start: 29,
                ..VirtioHeader::NONE
            },
        ] {
            let mut frame = [0x45_u8; 40];
            virtio.emit(&mut frame);
            let before = frame;
            assert!(!complete_checksum(&mut frame));
            assert_eq!(frame, before);
        }
    }

    proptest! {
        #[test]
        fn sums_equal_the_word_by_word_sum(bytes in proptest::collection::vec(any::<u8>(), 0..99)) {
            let mut slow = 0_u32;
            for pair in bytes.chunks(2) {
                slow += u32::from(pair[0]) * 256 + u32::from(*pair.get(1).unwrap_or(&0));
                slow = slow % 65_536 + slow / 65_536;
            }
            prop_assert_eq!(u32::from(fold(sum(&bytes))), slow);
        }
    }
}
