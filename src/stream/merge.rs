//! Packets of one flow that follow each other exactly become one superframe, so that the kernel takes them in one
//! write and carries them through its stack as one.
//!
//! ```text
//!  | virtio | headers | payload 0 |              | virtio | headers' | payload 0 | payload 1 | ... | last |
//!  | virtio | headers | payload 1 |   ─────►
//!  | virtio | headers | payload 2 |
//! ```
//!
//! What receive offload of a network card does (`net/ipv4/tcp_offload.c`, `udp_offload.c`), by the same rules:
//! the segments that the kernel would cut the superframe into are the packets that were merged, bit for bit, but
//! for the identification of packets that may not be fragmented, which means nothing (RFC 6864).
//!
//! Never merges what differs in anything but length of the last, sequence, identification and PSH of the last;
//! never what has options of IP, is a fragment, or has a wrong checksum. Never holds a frame: the caller does.

use super::bytes::{be16, be32, put16};
use super::checksum::{fold, pseudo_header, sum};
use crate::wire::virtio::{
    GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM, TCP_CSUM_OFFSET, UDP_CSUM_OFFSET, VIRTIO_BYTES,
    VirtioHeader,
};

/// Most packets in one superframe: what all kernels with segmentation of UDP take (`UDP_MAX_SEGMENTS` before 6.9).
pub const SEGMENTS_MAX: usize = 64;
/// Longest packet that is built: an IP packet's length field, with room for headers of 40 + 60 bytes.
const PACKET_BYTES_MAX: usize = 65_400;

const IPV4_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;
const UDP_BYTES: usize = 8;
const TCP_BYTES_MIN: usize = 20;
const PROTO_TCP: u8 = 6;
const PROTO_UDP: u8 = 17;
const TCP_SEQ: usize = 4;
const TCP_DATA_OFFSET: usize = 12;
const TCP_FLAGS: usize = 13;
const TCP_PSH: u8 = 0x08;
const TCP_ACK: u8 = 0x10;
/// "Don't fragment" in the high byte of the fragment field of IPv4.
const DONT_FRAGMENT: u8 = 0x40;

/// Names a flow: equal for packets of one, and hardly ever for packets of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow(u64);

impl Flow {
    /// The flow of a frame; `None` when it is no unfragmented TCP or UDP right behind a plain IP header.
    pub fn of(frame: &[u8]) -> Option<Self> {
        let packet = frame.get(VIRTIO_BYTES..)?;
        let (transport_at, protocol, addresses) = network(packet)?;
        let ports: &[u8; 4] = packet.get(transport_at..)?.first_chunk()?;
        let mut name = u64::from(u32::from_be_bytes(*ports)) << 8 | u64::from(protocol);
        // The golden ratio, as hash tables use it; a wrong match only costs a look at the headers.
        for word in packet[addresses].as_chunks::<4>().0 {
            name = (name ^ u64::from(u32::from_be_bytes(*word)))
                .wrapping_mul(0x9E37_79B9_7F4A_7C15)
                .rotate_left(29);
        }
        Some(Self(name))
    }
}

/// Transport header's place, its protocol, and where the addresses lie.
fn network(packet: &[u8]) -> Option<(usize, u8, std::ops::Range<usize>)> {
    let (at, protocol, addresses, length) = match packet.first()? {
        0x45 => {
            let header: &[u8; IPV4_BYTES] = packet.first_chunk()?;
            (be16(header, 6) & 0x3fff == 0).then_some(())?;
            (IPV4_BYTES, header[9], 12..20, usize::from(be16(header, 2)))
        }
        first if first >> 4 == 6 => {
            let header: &[u8; IPV6_BYTES] = packet.first_chunk()?;
            let length = IPV6_BYTES + usize::from(be16(header, 4));
            (IPV6_BYTES, header[6], 8..40, length)
        }
        _ => return None,
    };
    (matches!(protocol, PROTO_TCP | PROTO_UDP) && length == packet.len())
        .then_some((at, protocol, addresses))
}

/// Packets of one flow that were merged so far; their bytes lie in a frame that the caller holds.
#[derive(Clone, Copy, Debug)]
pub struct Train {
    /// Length of IP and transport headers.
    headers: usize,
    transport_at: usize,
    protocol: u8,
    /// Payload of each packet but the last.
    segment: usize,
    /// Payload so far.
    payload: usize,
    count: usize,
    /// Nothing may follow: the last was shorter, asked for delivery, or is not in order itself.
    closed: bool,
    push: bool,
}

impl Train {
    /// A train of one packet; `None` when nothing could ever be merged with it.
    pub fn start(frame: &[u8]) -> Option<Self> {
        let (virtio, packet) = VirtioHeader::split(frame).ok()?;
        if virtio.is_superframe() {
            return None;
        }
        let (transport_at, protocol, _) = network(packet)?;
        let transport = &packet[transport_at..];
        let (bytes, push) = if protocol == PROTO_UDP {
            let header: &[u8; UDP_BYTES] = transport.first_chunk()?;
            (usize::from(be16(header, 4)) == transport.len()).then_some(())?;
            (UDP_BYTES, false)
        } else {
            let header: &[u8; TCP_BYTES_MIN] = transport.first_chunk()?;
            let flags = header[TCP_FLAGS];
            (flags & !TCP_PSH == TCP_ACK && be16(header, 18) == 0).then_some(())?;
            let bytes = usize::from(header[TCP_DATA_OFFSET] >> 4) * 4;
            (bytes >= TCP_BYTES_MIN).then_some(())?;
            (bytes, flags & TCP_PSH != 0)
        };
        let segment = transport
            .len()
            .checked_sub(bytes)
            .filter(|payload| *payload > 0)?;
        Some(Self {
            headers: transport_at + bytes,
            transport_at,
            protocol,
            segment,
            payload: segment,
            count: 1,
            closed: push,
            push,
        })
    }

    /// Whether no further packet can be merged.
    pub const fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether it is one of UDP datagrams.
    pub const fn is_udp(&self) -> bool {
        self.protocol == PROTO_UDP
    }

    /// Packets merged.
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Length of the frame so far.
    pub const fn frame_bytes(&self) -> usize {
        VIRTIO_BYTES + self.headers + self.payload
    }

    /// Puts the payload of `next` behind what `held` has, if it follows exactly. `held` is the whole room of the
    /// train's frame.
    pub fn append(&mut self, held: &mut [u8], next: &[u8]) -> bool {
        let Some(other) = Self::start(next) else {
            return false;
        };
        let end = self.frame_bytes();
        let fits = !self.closed
            && other.protocol == self.protocol
            && other.headers == self.headers
            && other.transport_at == self.transport_at
            && other.segment <= self.segment
            && self.count < SEGMENTS_MAX
            && self.headers + self.payload + other.segment <= PACKET_BYTES_MAX
            && end + other.segment <= held.len();
        if !fits || !self.follows(&held[VIRTIO_BYTES..end], &next[VIRTIO_BYTES..]) {
            return false;
        }
        // The first packet is looked at only when a second one makes it worth it.
        if (self.count == 1 && !is_intact(&held[..end])) || !is_intact(next) {
            self.closed = true;
            return false;
        }
        held[end..end + other.segment].copy_from_slice(&next[VIRTIO_BYTES + self.headers..]);
        self.payload += other.segment;
        self.count += 1;
        self.push = other.push;
        self.closed = other.segment < self.segment || other.push || self.count == SEGMENTS_MAX;
        true
    }

    /// Whether the headers of `next` are those that the kernel would give the next segment.
    fn follows(&self, held: &[u8], next: &[u8]) -> bool {
        let count = u16::try_from(self.count).unwrap_or(u16::MAX);
        let at = self.transport_at;
        let network = if at == IPV4_BYTES {
            let counted = be16(held, 4).wrapping_add(count) == be16(next, 4);
            held[..2] == next[..2]
                && held[6..10] == next[6..10]
                && held[12..20] == next[12..20]
                && (counted || held[6] & DONT_FRAGMENT != 0)
        } else {
            held[..4] == next[..4] && held[6..40] == next[6..40]
        };
        let (held, next) = (&held[at..self.headers], &next[at..self.headers]);
        if !network || held[..4] != next[..4] {
            return false;
        }
        if self.protocol == PROTO_UDP {
            return true;
        }
        let Ok(payload) = u32::try_from(self.payload) else {
            return false;
        };
        be32(held, TCP_SEQ).wrapping_add(payload) == be32(next, TCP_SEQ)
            && held[8..TCP_FLAGS] == next[8..TCP_FLAGS]
            && held[14..16] == next[14..16]
            && held[TCP_BYTES_MIN..] == next[TCP_BYTES_MIN..]
    }

    /// Makes the headers of `held` those of the whole train and returns the frame's length.
    pub fn finish(&self, held: &mut [u8]) -> usize {
        let bytes = self.frame_bytes();
        if self.count == 1 {
            return bytes;
        }
        let (header, packet) = held[..bytes].split_at_mut(VIRTIO_BYTES);
        let at = self.transport_at;
        // Both are below PACKET_BYTES_MAX.
        let word = |bytes: usize| u16::try_from(bytes).unwrap_or(u16::MAX);
        let transport = word(packet.len() - at);
        let addresses = if at == IPV4_BYTES {
            put16(packet, 2, word(packet.len()));
            put16(packet, 10, 0);
            let checksum = !fold(sum(&packet[..IPV4_BYTES]));
            put16(packet, 10, checksum);
            12..20
        } else {
            put16(packet, 4, transport);
            8..40
        };
        let (gso_type, csum_offset) = if self.protocol == PROTO_UDP {
            put16(packet, at + 4, transport);
            (GSO_UDP_L4, UDP_CSUM_OFFSET)
        } else {
            packet[at + TCP_FLAGS] |= if self.push { TCP_PSH } else { 0 };
            let kind = if at == IPV4_BYTES {
                GSO_TCPV4
            } else {
                GSO_TCPV6
            };
            (kind, TCP_CSUM_OFFSET)
        };
        let partial = pseudo_header(packet, addresses, self.protocol, transport);
        put16(packet, at + usize::from(csum_offset), partial);
        let virtio = VirtioHeader {
            flags: NEEDS_CSUM,
            gso_type,
            hdr_len: word(self.headers),
            gso_size: word(self.segment),
            csum_start: word(at),
            csum_offset,
        };
        virtio.emit(header);
        bytes
    }
}

/// Whether the kernel may compute the packet's checksums anew without hiding damage: they are right, or the
/// transport's is unfinished and so never left a host.
fn is_intact(frame: &[u8]) -> bool {
    let Ok((virtio, packet)) = VirtioHeader::split(frame) else {
        return false;
    };
    let Some((at, protocol, addresses)) = network(packet) else {
        return false;
    };
    if at == IPV4_BYTES && fold(sum(&packet[..IPV4_BYTES])) != 0xffff {
        return false;
    }
    let csum_offset = if protocol == PROTO_UDP {
        UDP_CSUM_OFFSET
    } else {
        TCP_CSUM_OFFSET
    };
    if virtio.needs_checksum() {
        return usize::from(virtio.csum_start) == at && virtio.csum_offset == csum_offset;
    }
    // Zero is "no checksum" in UDP, and a superframe has one.
    let field = be16(packet, at + usize::from(csum_offset));
    let length = u16::try_from(packet.len() - at).unwrap_or(0);
    let pseudo = pseudo_header(packet, addresses, protocol, length);
    (field != 0 || protocol == PROTO_TCP) && fold(sum(&packet[at..]) + u64::from(pseudo)) == 0xffff
}

#[cfg(test)]
#[path = "merge_tests.rs"]
mod tests;
