//! Inner packets of the simulated hosts: real IPv4 headers, so that flow queue, order lanes and congestion marks see
//! what they would see from a kernel, with a number inside that makes each of them known again at the far end.
//!
//! ```text
//! UDP  | virtio 0 | IPv4 20 | UDP 8  | number u64 | sent u64 ns | padding |
//! TCP  | virtio   | IPv4 20 | TCP 20 | timestamps 12 (value = number) | SACK | payload of zeros |
//! ```
//!
//! The flow's number is in the ports. A TCP superframe has one number for all of its segments; which of them arrived
//! follows from the TCP sequence.

use std::net::Ipv4Addr;

use crate::base::Instant;
use crate::wire::virtio::{GSO_TCPV4, NEEDS_CSUM, TCP_CSUM_OFFSET, VIRTIO_BYTES, VirtioHeader};

/// Largest inner IP packet that is not a superframe.
pub const MTU: usize = 1400;
/// IPv4, TCP and the timestamp option.
pub const TCP_HEADER_BYTES: usize = 20 + 20 + 12;
/// TCP payload of a full packet.
pub const MSS: usize = MTU - TCP_HEADER_BYTES;
/// Smallest UDP packet: headers, number and send time.
pub const UDP_BYTES_MIN: usize = 28 + 16;
/// SACK blocks that fit beside the timestamp option.
pub const SACK_BLOCKS_MAX: usize = 3;

/// Ports of flow 0; the flow's number is added.
const PORT_BASE: u16 = 10_000;

/// Which end of the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Behind the client.
    Client,
    /// Behind the server.
    Server,
}

impl Side {
    /// The far end.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }

    /// As an index into tables by side.
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// Addresses of a flow: which client, and the flow's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowAddress {
    /// Number of the client in the world.
    pub client: u8,
    /// Number of the flow in the world.
    pub flow: u16,
}

impl FlowAddress {
    /// The host behind the client.
    pub const fn client_host(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, self.client, 2)
    }

    /// The host behind the server.
    pub const fn server_host() -> Ipv4Addr {
        Ipv4Addr::new(192, 0, 2, 7)
    }

    const fn source_and_destination(self, from: Side) -> (Ipv4Addr, Ipv4Addr) {
        match from {
            Side::Client => (self.client_host(), Self::server_host()),
            Side::Server => (Self::server_host(), self.client_host()),
        }
    }
}

/// A TCP segment or superframe as the model of TCP speaks of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// First byte's sequence.
    pub seq: u32,
    /// Payload bytes.
    pub bytes: usize,
    /// Cumulative acknowledgement.
    pub ack: u32,
    /// Number of this frame among those its side sent; travels as the timestamp.
    pub number: u32,
    /// The number that the acknowledged frame had.
    pub echo: u32,
    /// SACK blocks, unused ones empty.
    pub sack: [(u32, u32); SACK_BLOCKS_MAX],
    /// ECN-Echo.
    pub ece: bool,
    /// Congestion Window Reduced.
    pub cwr: bool,
    /// The packet may be marked.
    pub ecn_capable: bool,
    /// The packet was marked.
    pub marked: bool,
}

/// What a delivered frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Number of its flow.
    pub flow: u16,
    /// What it carries.
    pub body: Body,
    /// Bytes of the IP packet.
    pub bytes: usize,
}

/// What a delivered frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// A datagram.
    Udp {
        /// Its number among those its side sent.
        number: u64,
        /// When it was sent.
        sent_at: Instant,
    },
    /// A segment or superframe.
    Tcp(Segment),
}

/// Writes a UDP frame of `ip_bytes` (at least [`UDP_BYTES_MIN`]).
pub fn write_udp(
    out: &mut Vec<u8>,
    address: FlowAddress,
    from: Side,
    number: u64,
    ip_bytes: usize,
    now: Instant,
) {
    let ip_bytes = ip_bytes.max(UDP_BYTES_MIN);
    start(out, ip_bytes);
    write_ipv4(out, address, from, 17, false);
    let udp = &mut out[VIRTIO_BYTES + 20..];
    write_ports(udp, address);
    udp[4..6].copy_from_slice(&low_u16(ip_bytes - 20).to_be_bytes());
    // A checksum of zero means "none" (RFC 768).
    udp[8..16].copy_from_slice(&number.to_be_bytes());
    udp[16..24].copy_from_slice(&now.as_nanos().to_be_bytes());
}

/// Writes a TCP frame; more than [`MSS`] bytes make it a superframe.
pub fn write_tcp(out: &mut Vec<u8>, address: FlowAddress, from: Side, segment: &Segment) {
    let blocks = segment.sack.iter().filter(|(a, b)| a != b).count();
    let options = 12 + if blocks > 0 { 4 + 8 * blocks } else { 0 };
    let header = 20 + options;
    start(out, 20 + header + segment.bytes);
    write_ipv4(out, address, from, 6, segment.ecn_capable);
    let superframe = segment.bytes > MSS;
    let virtio = VirtioHeader {
        flags: NEEDS_CSUM,
        gso_type: if superframe { GSO_TCPV4 } else { 0 },
        hdr_len: if superframe { low_u16(20 + header) } else { 0 },
        gso_size: if superframe { low_u16(MSS) } else { 0 },
        csum_start: 20,
        csum_offset: TCP_CSUM_OFFSET,
    };
    virtio.emit(&mut out[..VIRTIO_BYTES]);
    let tcp = &mut out[VIRTIO_BYTES + 20..];
    write_ports(tcp, address);
    tcp[4..8].copy_from_slice(&segment.seq.to_be_bytes());
    tcp[8..12].copy_from_slice(&segment.ack.to_be_bytes());
    tcp[12] = u8::try_from(header / 4).unwrap_or(u8::MAX) << 4;
    tcp[13] = 0x10 | u8::from(segment.ece) << 6 | u8::from(segment.cwr) << 7;
    tcp[14..16].copy_from_slice(&0xffff_u16.to_be_bytes());
    tcp[20..24].copy_from_slice(&[1, 1, 8, 10]);
    tcp[24..28].copy_from_slice(&segment.number.to_be_bytes());
    tcp[28..32].copy_from_slice(&segment.echo.to_be_bytes());
    if blocks > 0 {
        tcp[32..36].copy_from_slice(&[1, 1, 5, u8::try_from(2 + 8 * blocks).unwrap_or(0)]);
        let used = segment.sack.iter().filter(|(a, b)| a != b);
        for (place, (from, to)) in tcp[36..].as_chunks_mut::<8>().0.iter_mut().zip(used) {
            place[..4].copy_from_slice(&from.to_be_bytes());
            place[4..].copy_from_slice(&to.to_be_bytes());
        }
    }
}

/// Reads a delivered frame. `None` when it is none of ours, which a tunnel must never make of one.
pub fn read(frame: &[u8]) -> Option<Arrival> {
    let packet = frame.get(VIRTIO_BYTES..)?;
    let ip_bytes = usize::from(u16_at(packet, 2)?);
    if packet.first()? != &0x45 || ip_bytes != packet.len() {
        return None;
    }
    let flow = u16_at(packet, 20)?.checked_sub(PORT_BASE)?;
    let body = match packet.get(9)? {
        17 => Body::Udp {
            number: u64_at(packet, 28)?,
            sent_at: Instant::from_nanos(u64_at(packet, 36)?),
        },
        6 => Body::Tcp(read_tcp(packet)?),
        _ => return None,
    };
    Some(Arrival {
        flow,
        body,
        bytes: packet.len(),
    })
}

fn read_tcp(packet: &[u8]) -> Option<Segment> {
    let tcp = packet.get(20..)?;
    let header = usize::from(tcp.get(12)? >> 4) * 4;
    let flags = *tcp.get(13)?;
    let mut sack = [(0, 0); SACK_BLOCKS_MAX];
    if header > 32 {
        let blocks = tcp.get(36..header)?.as_chunks::<8>().0;
        for (block, place) in blocks.iter().zip(&mut sack) {
            *place = (u32_at(block, 0)?, u32_at(block, 4)?);
        }
    }
    Some(Segment {
        seq: u32_at(tcp, 4)?,
        bytes: tcp.len().checked_sub(header)?,
        ack: u32_at(tcp, 8)?,
        number: u32_at(tcp, 24)?,
        echo: u32_at(tcp, 28)?,
        sack,
        ece: flags & 0x40 != 0,
        cwr: flags & 0x80 != 0,
        ecn_capable: packet[1] & 3 != 0,
        marked: packet[1] & 3 == 3,
    })
}

fn start(out: &mut Vec<u8>, ip_bytes: usize) {
    out.clear();
    out.resize(VIRTIO_BYTES + ip_bytes, 0);
}

fn write_ipv4(out: &mut [u8], address: FlowAddress, from: Side, protocol: u8, ecn_capable: bool) {
    let ip = &mut out[VIRTIO_BYTES..];
    let length = low_u16(ip.len());
    let (source, destination) = address.source_and_destination(from);
    ip[0] = 0x45;
    ip[1] = if ecn_capable { 2 } else { 0 };
    ip[2..4].copy_from_slice(&length.to_be_bytes());
    ip[6] = 0x40; // do not fragment
    ip[8] = 64;
    ip[9] = protocol;
    ip[12..16].copy_from_slice(&source.octets());
    ip[16..20].copy_from_slice(&destination.octets());
    let sum = ip[..20]
        .as_chunks::<2>()
        .0
        .iter()
        .map(|word| u32::from(u16::from_be_bytes(*word)))
        .sum::<u32>();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    let checksum = !low_u16(folded as usize);
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
}

/// Both ports name the flow, so that either direction has one order lane of its own.
fn write_ports(transport: &mut [u8], address: FlowAddress) {
    let port = (PORT_BASE + address.flow).to_be_bytes();
    transport[..2].copy_from_slice(&port);
    transport[2..4].copy_from_slice(&port);
}

/// Lengths here are below 64 KiB by construction.
fn low_u16(value: usize) -> u16 {
    u16::try_from(value).unwrap_or(u16::MAX)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::segment;
    use crate::wire::inner_ip;

    const ADDRESS: FlowAddress = FlowAddress { client: 3, flow: 5 };

    #[test]
    fn a_datagram_is_read_as_it_was_written_and_the_tunnel_can_parse_it() {
        let mut out = Vec::new();
        let now = Instant::from_millis(77);
        write_udp(&mut out, ADDRESS, Side::Server, 9, 200, now);
        let arrival = read(&out).unwrap();
        assert_eq!((arrival.flow, arrival.bytes), (5, 200));
        assert_eq!(
            arrival.body,
            Body::Udp {
                number: 9,
                sent_at: now
            }
        );
        let ip = inner_ip::parse(&out[VIRTIO_BYTES..]).unwrap();
        assert_eq!(ip.dst, std::net::IpAddr::from(ADDRESS.client_host()));
    }

    #[test]
    fn a_superframe_is_read_as_it_was_written_and_can_be_taken_apart() {
        let mut out = Vec::new();
        let segment = Segment {
            seq: 1_000,
            bytes: 3 * MSS + 100,
            ack: 7,
            number: 44,
            echo: 55,
            sack: [(1, 2), (5, 9), (0, 0)],
            ece: true,
            ..Segment::default()
        };
        write_tcp(&mut out, ADDRESS, Side::Client, &segment);
        assert_eq!(read(&out).unwrap().body, Body::Tcp(segment));
        assert_eq!(segment::segment_count(&out), 4);
        let mut part = vec![0; out.len()];
        let bytes = segment::extract(&out, 1..2, &mut part).unwrap();
        let Body::Tcp(second) = read(&part[..bytes]).unwrap().body else {
            panic!("a segment stays TCP");
        };
        let seq = 1_000 + u32::try_from(MSS).unwrap();
        assert_eq!((second.seq, second.bytes, second.number), (seq, MSS, 44));
    }
}
