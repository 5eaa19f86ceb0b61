//! Frames as a TUN gives them: what loads are made of.

use crate::wire::inner_ip::proto;
use crate::wire::virtio::{GSO_TCPV4, NEEDS_CSUM, TCP_CSUM_OFFSET, VIRTIO_BYTES, VirtioHeader};

/// Bytes of an IPv4 header without options.
const IP_BYTES: u16 = 20;
/// Bytes of a TCP header with time stamps.
const TCP_BYTES: u16 = 32;
/// Payload of the segments of a superframe: packets of 1400 bytes.
const SEGMENT_BYTES: u16 = 1400 - IP_BYTES - TCP_BYTES;
/// Packets that a superframe of TCP stands for.
pub const SUPERFRAME_PACKETS: u16 = (u16::MAX - IP_BYTES - TCP_BYTES) / SEGMENT_BYTES;

/// A frame with a UDP packet of this length, of one of several flows.
pub fn udp(flow: u16, packet_bytes: u16) -> Vec<u8> {
    frame(flow, packet_bytes, proto::UDP)
}

/// A frame with a TCP acknowledgement: 52 bytes.
pub fn ack(flow: u16) -> Vec<u8> {
    let mut frame = frame(flow, IP_BYTES + TCP_BYTES, proto::TCP);
    let tcp = &mut frame[VIRTIO_BYTES + usize::from(IP_BYTES)..];
    (tcp[12], tcp[13]) = (8 << 4, 0x10);
    frame
}

/// A superframe of TCP, as long as a TUN gives them, in whole segments.
pub fn superframe(flow: u16) -> Vec<u8> {
    let packet_bytes = IP_BYTES + TCP_BYTES + SUPERFRAME_PACKETS * SEGMENT_BYTES;
    let mut frame = frame(flow, packet_bytes, proto::TCP);
    let virtio = VirtioHeader {
        flags: NEEDS_CSUM,
        gso_type: GSO_TCPV4,
        hdr_len: IP_BYTES + TCP_BYTES,
        gso_size: SEGMENT_BYTES,
        csum_start: IP_BYTES,
        csum_offset: TCP_CSUM_OFFSET,
    };
    virtio.emit(&mut frame);
    let tcp = &mut frame[VIRTIO_BYTES + usize::from(IP_BYTES)..];
    (tcp[12], tcp[13]) = (8 << 4, 0x10);
    frame
}

fn frame(flow: u16, packet_bytes: u16, protocol: u8) -> Vec<u8> {
    let mut frame = vec![0; VIRTIO_BYTES + usize::from(packet_bytes)];
    let packet = &mut frame[VIRTIO_BYTES..];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&packet_bytes.to_be_bytes());
    packet[8] = 64;
    packet[9] = protocol;
    packet[12..16].copy_from_slice(&[10, 99, 0, 2]);
    packet[16..20].copy_from_slice(&[10, 99, 0, 1]);
    packet[20..22].copy_from_slice(&flow.to_be_bytes());
    packet[22..24].copy_from_slice(&5001_u16.to_be_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::segment::segment_count;
    use crate::wire::inner_ip;

    #[test]
    fn frames_are_what_a_kernel_would_take() {
        for (frame, segments) in [
            (udp(1, 1400), 1),
            (ack(1), 1),
            (superframe(1), usize::from(SUPERFRAME_PACKETS)),
        ] {
            let (virtio, packet) = VirtioHeader::split(&frame).unwrap();
            assert_eq!(virtio.validate(packet), Ok(()));
            assert!(inner_ip::parse(packet).is_ok());
            assert_eq!(segment_count(&frame), segments);
        }
    }
}
