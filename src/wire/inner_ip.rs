//! The inner IP packet: what the tunnel needs to know of it, read once and bounded.
//!
//! Reads addresses, ports and a few header fields of IPv4 and IPv6. Never writes, never looks behind the
//! transport header's first 14 bytes, and follows at most [`EXTENSIONS_MAX`] IPv6 extension headers.
//!
//! Invariants of a parsed [`InnerIp`]: `header_len <= total_len <= packet.len()`; all parts of a fragmented
//! packet parse to the same addresses and protocol and to no ports, so that they stay one flow.
//!
//! References: RFC 791, RFC 8200 section 4, RFC 3168 (ECN), RFC 6864 (fragments).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::base::DropReason;

/// What an inner packet's headers say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InnerIp {
    /// 4 or 6.
    pub version: u8,
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Protocol number of the header at `header_len` (6 TCP, 17 UDP), or of the last header that was read.
    pub proto: u8,
    /// Source and destination port; `None` for fragments, other protocols and cut-off headers.
    pub ports: Option<(u16, u16)>,
    /// Bytes before the transport header, extension headers included.
    pub header_len: usize,
    /// Length of the packet by its own header, in bytes.
    pub total_len: usize,
    /// Differentiated services code point, 6 bits.
    pub dscp: u8,
    /// ECN field, 2 bits: 0 not capable, 1 and 2 capable, 3 congestion experienced.
    pub ecn: u8,
    /// TCP flags byte (bit 0 FIN, 1 SYN, 2 RST), 0 when it is not TCP or not visible.
    pub tcp_flags: u8,
    /// Part of a fragmented packet.
    pub fragment: bool,
}

impl InnerIp {
    /// Whether congestion may be signalled by a mark instead of a drop (RFC 3168).
    pub const fn is_ecn_capable(&self) -> bool {
        self.ecn != 0
    }
}

/// Reads the headers of one IP packet (without a virtio header). Bytes behind `total_len` are ignored.
///
/// # Errors
/// [`DropReason::NotIp`] when it is neither IPv4 nor IPv6, or its headers do not fit its bytes.
pub fn parse(packet: &[u8]) -> Result<InnerIp, DropReason> {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) => parse_v4(packet),
        Some(6) => parse_v6(packet),
        _ => Err(DropReason::NotIp),
    }
}

/// Protocol numbers (IANA).
pub mod proto {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
    /// UDP-Lite.
    pub const UDP_LITE: u8 = 136;
    /// DCCP.
    pub const DCCP: u8 = 33;
}

/// IPv6 extension headers followed before giving up on the ports. Real packets carry at most two or three;
/// the bound keeps a crafted chain from costing more than a few loads.
pub const EXTENSIONS_MAX: usize = 8;

/// Bytes of an IPv4 header without options.
const V4_HEADER_BYTES: usize = 20;
/// Bytes of the fixed IPv6 header.
const V6_HEADER_BYTES: usize = 40;

fn parse_v4(packet: &[u8]) -> Result<InnerIp, DropReason> {
    let Some(b) = packet.first_chunk::<V4_HEADER_BYTES>() else {
        return Err(DropReason::NotIp);
    };
    let header_len = usize::from(b[0] & 0xf) * 4;
    let total_len = usize::from(u16::from_be_bytes([b[2], b[3]]));
    if header_len < V4_HEADER_BYTES || total_len < header_len || total_len > packet.len() {
        return Err(DropReason::NotIp);
    }
    // More-fragments flag or a fragment offset; the don't-fragment bit (0x4000) does not matter here.
    let fragment = u16::from_be_bytes([b[6], b[7]]) & 0x3fff != 0;
    let mut ip = InnerIp {
        version: 4,
        src: IpAddr::V4(Ipv4Addr::new(b[12], b[13], b[14], b[15])),
        dst: IpAddr::V4(Ipv4Addr::new(b[16], b[17], b[18], b[19])),
        proto: b[9],
        ports: None,
        header_len,
        total_len,
        dscp: b[1] >> 2,
        ecn: b[1] & 3,
        tcp_flags: 0,
        fragment,
    };
    if !fragment {
        read_transport(&mut ip, &packet[header_len..total_len]);
    }
    Ok(ip)
}

fn parse_v6(packet: &[u8]) -> Result<InnerIp, DropReason> {
    let Some(b) = packet.first_chunk::<V6_HEADER_BYTES>() else {
        return Err(DropReason::NotIp);
    };
    let total_len = V6_HEADER_BYTES + usize::from(u16::from_be_bytes([b[4], b[5]]));
    if total_len > packet.len() {
        return Err(DropReason::NotIp);
    }
    let address = |from: usize| {
        let mut octets = [0; 16];
        octets.copy_from_slice(&b[from..from + 16]);
        IpAddr::V6(Ipv6Addr::from(octets))
    };
    let chain = follow_extensions(b[6], &packet[..total_len])?;
    let mut ip = InnerIp {
        version: 6,
        src: address(8),
        dst: address(24),
        proto: chain.proto,
        ports: None,
        header_len: chain.header_len,
        total_len,
        dscp: (b[0] & 0xf) << 2 | b[1] >> 6,
        ecn: b[1] >> 4 & 3,
        tcp_flags: 0,
        fragment: chain.fragment,
    };
    if !chain.fragment && chain.complete {
        read_transport(&mut ip, &packet[chain.header_len..total_len]);
    }
    Ok(ip)
}

/// Where the chain of IPv6 extension headers ended.
struct Chain {
    proto: u8,
    header_len: usize,
    fragment: bool,
    /// False when the chain was longer than we follow.
    complete: bool,
}

/// Extension headers that say their own length in units of 8 bytes (RFC 6564): hop-by-hop, routing,
/// destination options, mobility, HIP, shim6.
const fn is_plain_extension(proto: u8) -> bool {
    matches!(proto, 0 | 43 | 60 | 135 | 139 | 140)
}

fn follow_extensions(first: u8, packet: &[u8]) -> Result<Chain, DropReason> {
    const FRAGMENT: u8 = 44;
    const AUTHENTICATION: u8 = 51;
    let mut chain = Chain {
        proto: first,
        header_len: V6_HEADER_BYTES,
        fragment: false,
        complete: true,
    };
    for _ in 0..EXTENSIONS_MAX {
        if !(is_plain_extension(chain.proto) || matches!(chain.proto, FRAGMENT | AUTHENTICATION)) {
            return Ok(chain);
        }
        // The shortest extension header is 8 bytes.
        let Some(head) = packet[chain.header_len..].first_chunk::<8>() else {
            return Err(DropReason::NotIp);
        };
        let length = match chain.proto {
            FRAGMENT => 8,
            AUTHENTICATION => (usize::from(head[1]) + 2) * 4, // RFC 4302: units of 4, minus 2
            _ => (usize::from(head[1]) + 1) * 8,
        };
        if packet.len() - chain.header_len < length {
            return Err(DropReason::NotIp);
        }
        if chain.proto == FRAGMENT {
            // Offset or more-fragments. An atomic fragment (RFC 6946) has neither and is whole.
            chain.fragment = u16::from_be_bytes([head[2], head[3]]) & 0xfff9 != 0;
        }
        chain.proto = head[0];
        chain.header_len += length;
        if chain.fragment {
            // The first fragment's chain goes on and the others' does not: stop here in all of them.
            return Ok(chain);
        }
    }
    chain.complete =
        !(is_plain_extension(chain.proto) || matches!(chain.proto, FRAGMENT | AUTHENTICATION));
    Ok(chain)
}

fn read_transport(ip: &mut InnerIp, transport: &[u8]) {
    if !matches!(
        ip.proto,
        proto::TCP | proto::UDP | proto::SCTP | proto::UDP_LITE | proto::DCCP
    ) {
        return;
    }
    if let Some(b) = transport.first_chunk::<4>() {
        ip.ports = Some((
            u16::from_be_bytes([b[0], b[1]]),
            u16::from_be_bytes([b[2], b[3]]),
        ));
    }
    if ip.proto == proto::TCP {
        ip.tcp_flags = transport.get(13).copied().unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Rng;

    fn v4_tcp() -> Vec<u8> {
        let mut packet = vec![
            0x45, 0xb9, 0, 40, 0x12, 0x34, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
        ];
        packet.extend([
            0x1f, 0x90, 0x01, 0xbb, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x12, 0, 0, 0, 0, 0, 0,
        ]);
        packet
    }

    /// An IPv6 packet with the given extension headers (type, bytes) before a UDP header.
    fn v6_udp(extensions: &[(u8, Vec<u8>)]) -> Vec<u8> {
        let mut body = Vec::new();
        let mut next = extensions.iter().map(|e| e.0).skip(1).chain([17]);
        for (_, bytes) in extensions {
            let mut bytes = bytes.clone();
            bytes[0] = next.next().unwrap();
            body.extend(bytes);
        }
        body.extend([0x30, 0x39, 0x00, 0x35, 0, 8, 0, 0]);
        let mut packet = vec![0x6b, 0x9f, 0xff, 0xff];
        packet.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        packet.push(extensions.first().map_or(17, |e| e.0));
        packet.push(64);
        packet.extend([0xfd; 15]);
        packet.push(1);
        packet.extend([0xfd; 15]);
        packet.push(2);
        packet.extend(body);
        packet
    }

    #[test]
    fn golden_ipv4_tcp() {
        let ip = parse(&v4_tcp()).unwrap();
        assert_eq!(
            (ip.version, ip.proto, ip.header_len, ip.total_len),
            (4, 6, 20, 40)
        );
        assert_eq!(ip.src, "10.0.0.1".parse::<IpAddr>().unwrap());
        assert_eq!(ip.dst, "10.0.0.2".parse::<IpAddr>().unwrap());
        assert_eq!(ip.ports, Some((8080, 443)));
        assert_eq!((ip.dscp, ip.ecn, ip.tcp_flags), (46, 1, 0x12));
        assert!(ip.is_ecn_capable() && !ip.fragment);
    }

    #[test]
    fn golden_ipv6_udp_behind_extension_headers() {
        let ip = parse(&v6_udp(&[])).unwrap();
        assert_eq!(
            (ip.version, ip.proto, ip.header_len, ip.total_len),
            (6, 17, 40, 48)
        );
        assert_eq!(ip.ports, Some((12345, 53)));
        assert_eq!((ip.dscp, ip.ecn), (46, 1));
        let hop = (0, vec![0, 0, 1, 4, 0, 0, 0, 0]);
        let long = (60, {
            let mut bytes = vec![0; 24];
            bytes[1] = 2;
            bytes
        });
        let authentication = (51, {
            let mut bytes = vec![0; 16];
            bytes[1] = 2;
            bytes
        });
        let ip = parse(&v6_udp(&[hop, long, authentication])).unwrap();
        assert_eq!(
            (ip.proto, ip.header_len, ip.ports),
            (17, 88, Some((12345, 53)))
        );
    }

    #[test]
    fn all_fragments_of_a_packet_have_no_ports_and_one_protocol() {
        let mut first = v4_tcp();
        first[6] = 0x20;
        let mut last = v4_tcp();
        (last[6], last[7]) = (0, 5);
        for packet in [first, last] {
            let ip = parse(&packet).unwrap();
            assert!(ip.fragment);
            assert_eq!((ip.ports, ip.tcp_flags, ip.proto), (None, 0, 6));
        }
        let fragment = |offset: u16| (44, [&[0, 0][..], &offset.to_be_bytes(), &[0; 4]].concat());
        let (first, last) = (
            parse(&v6_udp(&[fragment(1)])),
            parse(&v6_udp(&[fragment(8)])),
        );
        assert_eq!(first, last);
        assert_eq!(first.unwrap().ports, None);
        let atomic = parse(&v6_udp(&[fragment(0)])).unwrap();
        assert_eq!(atomic.ports, Some((12345, 53)));
    }

    #[test]
    fn a_long_extension_chain_costs_its_ports() {
        let hop = (60, vec![0; 8]);
        assert!(
            parse(&v6_udp(&vec![hop.clone(); EXTENSIONS_MAX]))
                .unwrap()
                .ports
                .is_some()
        );
        let ip = parse(&v6_udp(&vec![hop; EXTENSIONS_MAX + 1])).unwrap();
        assert_eq!((ip.ports, ip.proto), (None, 60));
    }

    #[test]
    fn every_truncation_is_refused_or_loses_nothing_but_ports() {
        for packet in [v4_tcp(), v6_udp(&[(0, vec![0; 8])])] {
            assert!(parse(&packet).is_ok());
            for length in 0..packet.len() {
                assert_eq!(
                    parse(&packet[..length]),
                    Err(DropReason::NotIp),
                    "length {length}"
                );
            }
            let mut longer = packet.clone();
            longer.extend([1, 2, 3]);
            assert_eq!(parse(&longer), parse(&packet));
        }
        let mut short_tcp = v4_tcp();
        short_tcp.truncate(22);
        short_tcp[3] = 22;
        assert_eq!(parse(&short_tcp).unwrap().ports, None);
    }

    #[test]
    fn wrong_lengths_are_refused() {
        let set = |index: usize, value: u8| {
            let mut packet = v4_tcp();
            packet[index] = value;
            parse(&packet)
        };
        assert!(set(0, 0x44).is_err(), "header shorter than 20");
        assert!(set(0, 0x4f).is_err(), "header longer than the packet");
        assert!(set(3, 19).is_err(), "total shorter than the header");
        assert!(set(3, 41).is_err(), "total longer than the packet");
        assert!(set(0, 0x55).is_err(), "version 5");
    }

    #[test]
    fn noise_never_panics_and_keeps_the_invariants() {
        let mut rng = Rng::new(3);
        for round in 0..50_000_u32 {
            let length = usize::try_from(rng.below(120)).unwrap();
            let mut packet: Vec<u8> = (0..length)
                .map(|_| rng.next_u64().to_le_bytes()[0])
                .collect();
            if length > 6 {
                packet[0] = if round % 2 == 0 { 0x45 } else { 0x60 };
                (packet[2], packet[4]) = (0, 0);
                packet[6] =
                    [0, 43, 44, 51, 60, 17, 6, packet[6]][usize::try_from(rng.below(8)).unwrap()];
            }
            if let Ok(ip) = parse(&packet) {
                assert!(ip.header_len <= ip.total_len && ip.total_len <= packet.len());
                assert!(!(ip.fragment && ip.ports.is_some()));
            }
        }
    }
}
