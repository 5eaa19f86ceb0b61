//! The 10 bytes in front of every packet that crosses a TUN device opened with `IFF_VNET_HDR`.
//!
//! ```text
//! | flags u8 | gso_type u8 | hdr_len u16 | gso_size u16 | csum_start u16 | csum_offset u16 |
//! ```
//!
//! It says whether the packet is a superframe (one set of headers, many segments) and which checksum is
//! still unfinished. It never says anything about a single packet with a finished checksum: that is
//! [`VirtioHeader::NONE`], ten zero bytes. Layout and meaning: virtio 1.2, section 5.1.6, little-endian.
//!
//! A header that came from the peer is untrusted: [`VirtioHeader::validate`] before the kernel sees it.

use crate::base::DropReason;

/// Bytes of the header.
pub const VIRTIO_BYTES: usize = 10;

/// Flag: the checksum at `csum_start + csum_offset` holds only the pseudo-header sum.
pub const NEEDS_CSUM: u8 = 1;
/// Flag: the sender's device verified the checksum.
pub const DATA_VALID: u8 = 2;

/// Not a superframe.
pub const GSO_NONE: u8 = 0;
/// TCP over IPv4 superframe.
pub const GSO_TCPV4: u8 = 1;
/// TCP over IPv6 superframe.
pub const GSO_TCPV6: u8 = 4;
/// Train of UDP datagrams of equal size under one header (USO).
pub const GSO_UDP_L4: u8 = 5;
/// Added to a TCP type when the first segment carries CWR.
pub const GSO_ECN: u8 = 0x80;

/// Where the checksum lies in a TCP header.
pub const TCP_CSUM_OFFSET: u16 = 16;
/// Where the checksum lies in a UDP header.
pub const UDP_CSUM_OFFSET: u16 = 6;

const PROTO_TCP: u8 = 6;
const PROTO_UDP: u8 = 17;

/// A `struct virtio_net_hdr`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VirtioHeader {
    /// [`NEEDS_CSUM`], [`DATA_VALID`].
    pub flags: u8,
    /// [`GSO_NONE`] or the kind of superframe, with [`GSO_ECN`].
    pub gso_type: u8,
    /// Bytes of headers (a hint of the kernel; it may be more than the headers are).
    pub hdr_len: u16,
    /// Payload bytes of each segment but the last.
    pub gso_size: u16,
    /// From where the checksum counts, in bytes of the packet.
    pub csum_start: u16,
    /// Where the checksum lies, from `csum_start`.
    pub csum_offset: u16,
}

impl VirtioHeader {
    /// No offload: the packet is complete as it stands.
    pub const NONE: Self = Self {
        flags: 0,
        gso_type: GSO_NONE,
        hdr_len: 0,
        gso_size: 0,
        csum_start: 0,
        csum_offset: 0,
    };

    /// Reads the header.
    pub const fn parse(b: &[u8; VIRTIO_BYTES]) -> Self {
        Self {
            flags: b[0],
            gso_type: b[1],
            hdr_len: u16::from_le_bytes([b[2], b[3]]),
            gso_size: u16::from_le_bytes([b[4], b[5]]),
            csum_start: u16::from_le_bytes([b[6], b[7]]),
            csum_offset: u16::from_le_bytes([b[8], b[9]]),
        }
    }

    /// Takes a frame apart into its header and its packet.
    ///
    /// # Errors
    /// [`DropReason::BadVirtio`] when there is no packet behind the header.
    pub fn split(frame: &[u8]) -> Result<(Self, &[u8]), DropReason> {
        match frame.split_first_chunk::<VIRTIO_BYTES>() {
            Some((header, packet)) if !packet.is_empty() => Ok((Self::parse(header), packet)),
            _ => Err(DropReason::BadVirtio),
        }
    }

    /// The header as bytes.
    pub const fn to_bytes(self) -> [u8; VIRTIO_BYTES] {
        let hdr_len = self.hdr_len.to_le_bytes();
        let gso_size = self.gso_size.to_le_bytes();
        let start = self.csum_start.to_le_bytes();
        let offset = self.csum_offset.to_le_bytes();
        [
            self.flags,
            self.gso_type,
            hdr_len[0],
            hdr_len[1],
            gso_size[0],
            gso_size[1],
            start[0],
            start[1],
            offset[0],
            offset[1],
        ]
    }

    /// Writes the header over the first bytes of `out`.
    ///
    /// # Panics
    /// If `out` is shorter than [`VIRTIO_BYTES`]; sizes are ours.
    pub fn emit(&self, out: &mut [u8]) {
        out[..VIRTIO_BYTES].copy_from_slice(&self.to_bytes());
    }

    /// The header of a single TCP or UDP packet whose checksum is unfinished, as a kernel writes it. `None`
    /// when the packet is no unfragmented TCP or UDP directly behind its IP header.
    pub fn checksum_of(packet: &[u8]) -> Option<Self> {
        let (csum_start, protocol) = match packet.first()? >> 4 {
            4 => {
                let header: &[u8; 20] = packet.first_chunk()?;
                let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff;
                (fragment == 0).then_some(())?;
                (u16::from(header[0] & 0xf) * 4, header[9])
            }
            6 => (40, *packet.get(6)?),
            _ => return None,
        };
        let csum_offset = match protocol {
            PROTO_TCP => TCP_CSUM_OFFSET,
            PROTO_UDP => UDP_CSUM_OFFSET,
            _ => return None,
        };
        Some(Self {
            flags: NEEDS_CSUM,
            csum_start,
            csum_offset,
            ..Self::NONE
        })
    }

    /// The gso type without its ECN bit.
    pub const fn gso_kind(&self) -> u8 {
        self.gso_type & !GSO_ECN
    }

    /// Whether the packet is a superframe.
    pub const fn is_superframe(&self) -> bool {
        self.gso_kind() != GSO_NONE
    }

    /// Whether the checksum is unfinished.
    pub const fn needs_checksum(&self) -> bool {
        self.flags & NEEDS_CSUM != 0
    }

    /// Checks a header against its packet before it is given to a kernel: known types only, everything it
    /// points at inside the packet, and the version of the IP header as the type says.
    ///
    /// # Errors
    /// [`DropReason::BadVirtio`] for everything else.
    pub fn validate(&self, packet: &[u8]) -> Result<(), DropReason> {
        if self.flags & !(NEEDS_CSUM | DATA_VALID) != 0 || usize::from(self.hdr_len) > packet.len()
        {
            return Err(DropReason::BadVirtio);
        }
        if self.needs_checksum() {
            let end = usize::from(self.csum_start) + usize::from(self.csum_offset) + 2;
            if end > packet.len() {
                return Err(DropReason::BadVirtio);
            }
        }
        let version = packet.first().map_or(0, |byte| byte >> 4);
        let fits = match self.gso_type {
            GSO_NONE => self.gso_size == 0,
            kind => {
                let (versions, csum_offset): (&[u8], u16) = match kind & !GSO_ECN {
                    GSO_TCPV4 => (&[4], TCP_CSUM_OFFSET),
                    GSO_TCPV6 => (&[6], TCP_CSUM_OFFSET),
                    GSO_UDP_L4 if kind & GSO_ECN == 0 => (&[4, 6], UDP_CSUM_OFFSET),
                    _ => return Err(DropReason::BadVirtio),
                };
                self.gso_size > 0
                    && versions.contains(&version)
                    && (!self.needs_checksum() || self.csum_offset == csum_offset)
            }
        };
        fits.then_some(()).ok_or(DropReason::BadVirtio)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOLDEN: [u8; 10] = [1, 0x81, 54, 0, 0xb4, 0x05, 34, 0, 16, 0];

    fn golden() -> VirtioHeader {
        VirtioHeader {
            flags: NEEDS_CSUM,
            gso_type: GSO_TCPV4 | GSO_ECN,
            hdr_len: 54,
            gso_size: 1460,
            csum_start: 34,
            csum_offset: 16,
        }
    }

    #[test]
    fn golden_header_both_ways() {
        let mut out = [0; 12];
        golden().emit(&mut out);
        assert_eq!(out[..10], GOLDEN);
        assert_eq!(VirtioHeader::parse(&GOLDEN), golden());
        assert_eq!(VirtioHeader::NONE.to_bytes(), [0; 10]);
    }

    #[test]
    fn a_frame_without_a_packet_is_refused() {
        assert!(VirtioHeader::split(&[0; 10]).is_err());
        assert_eq!(
            VirtioHeader::split(&[0; 11]),
            Ok((VirtioHeader::NONE, &[0_u8][..]))
        );
    }

    #[test]
    fn each_field_is_checked() {
        let mut packet = vec![0; 3000];
        packet[0] = 0x45;
        assert_eq!(golden().validate(&packet), Ok(()));
        assert_eq!(VirtioHeader::NONE.validate(&packet), Ok(()));
        let bad = [
            VirtioHeader {
                flags: 4,
                ..golden()
            },
            VirtioHeader {
                gso_type: 3,
                ..golden()
            },
            VirtioHeader {
                gso_type: GSO_ECN,
                ..golden()
            },
            VirtioHeader {
                gso_type: GSO_UDP_L4 | GSO_ECN,
                csum_offset: 6,
                ..golden()
            },
            VirtioHeader {
                gso_type: GSO_TCPV6,
                ..golden()
            },
            VirtioHeader {
                gso_size: 0,
                ..golden()
            },
            VirtioHeader {
                gso_size: 9,
                ..VirtioHeader::NONE
            },
            VirtioHeader {
                hdr_len: 3001,
                ..golden()
            },
            VirtioHeader {
                csum_start: 2983,
                ..golden()
            },
            VirtioHeader {
                csum_offset: 6,
                ..golden()
            },
            VirtioHeader {
                csum_start: u16::MAX,
                csum_offset: u16::MAX,
                ..golden()
            },
        ];
        for header in bad {
            assert_eq!(
                header.validate(&packet),
                Err(DropReason::BadVirtio),
                "{header:?}"
            );
        }
    }

    #[test]
    fn the_checksum_place_follows_the_ip_header() {
        let mut packet = [0_u8; 80];
        packet[0] = 0x46;
        packet[9] = 6;
        let header = VirtioHeader::checksum_of(&packet).unwrap();
        assert_eq!((header.csum_start, header.csum_offset), (24, 16));
        packet[7] = 1; // a fragment has no checksum of its own
        assert_eq!(VirtioHeader::checksum_of(&packet), None);
        packet[0] = 0x60;
        packet[6] = 17;
        let header = VirtioHeader::checksum_of(&packet).unwrap();
        assert_eq!((header.csum_start, header.csum_offset), (40, 6));
        packet[6] = 58;
        assert_eq!(VirtioHeader::checksum_of(&packet), None);
    }

    proptest! {
        #[test]
        fn a_valid_header_points_inside_its_packet(
            bytes in any::<[u8; 10]>(),
            packet in proptest::collection::vec(any::<u8>(), 1..200),
        ) {
            let header = VirtioHeader::parse(&bytes);
            prop_assert_eq!(header.to_bytes(), bytes);
            if header.validate(&packet).is_ok() && header.needs_checksum() {
                let end = usize::from(header.csum_start) + usize::from(header.csum_offset);
                prop_assert!(end + 2 <= packet.len());
            }
            let _ = VirtioHeader::checksum_of(&packet);
        }
    }
}
