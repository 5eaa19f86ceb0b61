//! Superframes built by hand, judged by a receiver that shares no code with the module.

use super::*;
use crate::base::Rng;
use crate::wire::virtio::{GSO_TCPV4, GSO_TCPV6};
use proptest::prelude::*;

/// A superframe before it is bytes.
#[derive(Clone, Copy)]
struct Made {
    v6: bool,
    udp: bool,
    /// Bytes of IPv4 options, of TCP options.
    options: (usize, usize),
    gso_size: u16,
    payload: usize,
    flags: u8,
    seq: u32,
    id: u16,
}

const TCP4: Made = Made {
    v6: false,
    udp: false,
    options: (0, 12),
    gso_size: 100,
    payload: 950,
    flags: 0x99, // CWR, ACK, PSH, FIN
    seq: 0xffff_ff00,
    id: 0xfffd,
};

impl Made {
    fn headers(&self) -> usize {
        let ip = if self.v6 { 40 } else { 20 + self.options.0 };
        ip + if self.udp { 8 } else { 20 + self.options.1 }
    }

    fn frame(&self) -> Vec<u8> {
        let ip = if self.v6 { 40 } else { 20 + self.options.0 };
        let transport = self.headers() - ip + self.payload;
        let word = |value: usize| u16::try_from(value).unwrap().to_be_bytes();
        let mut p = vec![0_u8; ip];
        let (protocol, version) = (if self.udp { 17 } else { 6 }, u8::from(self.v6) * 2 + 4);
        p[0] = version << 4;
        if self.v6 {
            p[4..6].copy_from_slice(&word(transport));
            p[6..8].copy_from_slice(&[protocol, 64]);
            (8..40).for_each(|i| p[i] = u8::try_from(i * 7).unwrap_or(0xfe));
        } else {
            p[0] |= u8::try_from(ip / 4).unwrap();
            p[2..4].copy_from_slice(&word(ip + transport));
            p[4..6].copy_from_slice(&self.id.to_be_bytes());
            p[6..10].copy_from_slice(&[0x40, 0, 64, protocol]);
            p[12..20].copy_from_slice(&[10, 0, 0, 1, 192, 168, 255, 2]);
            p[20..].fill(1);
            let checksum = !slow_sum(&p);
            p[10..12].copy_from_slice(&checksum.to_be_bytes());
        }
        p.extend_from_slice(&[0x12, 0x34, 0x56, 0x78]);
        if self.udp {
            p.extend_from_slice(&word(transport));
            p.extend_from_slice(&[0; 2]);
        } else {
            p.extend_from_slice(&self.seq.to_be_bytes());
            let offset = u8::try_from((20 + self.options.1) / 4).unwrap() << 4;
            p.extend_from_slice(&[9, 9, 9, 9, offset, self.flags, 0x10, 0, 0, 0, 0, 0]);
            p.resize(ip + 20 + self.options.1, 1);
        }
        p.extend((0..self.payload).map(payload_byte));
        let csum_offset = if self.udp { 6 } else { 16 };
        let pseudo = slow_sum(&pseudo(&p, ip)).to_be_bytes();
        p[ip + csum_offset..ip + csum_offset + 2].copy_from_slice(&pseudo);
        let ecn = if self.flags & 0x80 != 0 && !self.udp {
            GSO_ECN
        } else {
            0
        };
        let kind = [GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, GSO_UDP_L4];
        let virtio = VirtioHeader {
            flags: NEEDS_CSUM,
            gso_type: kind[usize::from(self.udp) * 2 + usize::from(self.v6)] | ecn,
            hdr_len: u16::try_from(self.headers()).unwrap(),
            gso_size: self.gso_size,
            csum_start: u16::try_from(ip).unwrap(),
            csum_offset: u16::try_from(csum_offset).unwrap(),
        };
        [virtio.to_bytes().to_vec(), p].concat()
    }
}

fn payload_byte(i: usize) -> u8 {
    (i * 31 % 251).to_le_bytes()[0]
}

fn slow_sum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) * 256 + u32::from(*pair.get(1).unwrap_or(&0));
        sum = sum % 65_536 + sum / 65_536;
    }
    u16::try_from(sum).unwrap()
}

/// The pseudo header of RFC 9293, 3.1 and RFC 8200, 8.1.
fn pseudo(packet: &[u8], ip: usize) -> Vec<u8> {
    let length = u32::try_from(packet.len() - ip).unwrap().to_be_bytes();
    let (addresses, protocol) = if packet[0] >> 4 == 6 {
        (&packet[8..40], packet[6])
    } else {
        (&packet[12..20], packet[9])
    };
    [addresses, &length, &[0, 0, 0, protocol]].concat()
}

/// What a receiver makes of one finished packet: (first payload byte, payload, TCP flags, IPv4 id).
fn receive(frame: &[u8], made: &Made) -> (usize, Vec<u8>, u8, u16) {
    assert_eq!(frame[..10], [0; 10], "a finished packet has no offload");
    let packet = &frame[10..];
    let ip = if made.v6 { 40 } else { 20 + made.options.0 };
    let length = usize::from(be16(packet, if made.v6 { 4 } else { 2 }));
    assert_eq!(length + if made.v6 { 40 } else { 0 }, packet.len());
    assert!(
        made.v6 || slow_sum(&packet[..ip]) == 0xffff,
        "IPv4 header checksum"
    );
    assert_eq!(
        slow_sum(&[pseudo(packet, ip), packet[ip..].to_vec()].concat()),
        0xffff
    );
    let payload = packet[made.headers()..].to_vec();
    let id = if made.v6 {
        0
    } else {
        be16(packet, 4).wrapping_sub(made.id)
    };
    if made.udp {
        assert_eq!(usize::from(be16(packet, ip + 4)), packet.len() - ip);
        // A UDP segment does not say where it belongs; the payload's pattern does.
        let at = (0..made.payload).step_by(made.gso_size.into());
        let mut found =
            at.filter(|at| (0..payload.len()).all(|i| payload_byte(at + i) == payload[i]));
        return (found.next().unwrap(), payload, 0, id);
    }
    let at = be32(packet, ip + 4).wrapping_sub(made.seq);
    (usize::try_from(at).unwrap(), payload, packet[ip + 13], id)
}

/// Splits or finishes `frame` and checks that exactly `segments` of the made superframe come out.
fn expect_segments(frame: &[u8], made: &Made, segments: Range<usize>) {
    let size = usize::from(made.gso_size);
    let total = made.payload.div_ceil(size);
    let mut packets = Vec::new();
    if segments.len() == 1 {
        let mut one = frame.to_vec();
        assert_eq!(segment_count(&one), 1);
        assert!(
            complete_checksum(&mut one),
            "one segment is an ordinary packet"
        );
        packets.push(one);
    } else {
        assert_eq!(segment_count(frame), segments.len());
        let virtio = VirtioHeader::split(frame).unwrap().0;
        let cwr = made.flags & 0x80 != 0 && segments.start == 0 && !made.udp;
        assert_eq!(virtio.gso_type & GSO_ECN != 0, cwr);
        assert_eq!(usize::from(virtio.hdr_len), made.headers());
        let mut scratch = [0; 70_000];
        assert_eq!(
            split(frame, &mut scratch, |p| packets.push(p.to_vec())),
            segments.len()
        );
    }
    for (segment, packet) in segments.zip(packets) {
        let (at, payload, flags, id) = receive(&packet, made);
        assert_eq!(at, segment * size);
        assert_eq!(payload.len(), size.min(made.payload - at));
        assert!(
            payload
                .iter()
                .enumerate()
                .all(|(i, byte)| *byte == payload_byte(at + i))
        );
        assert!(made.v6 || usize::from(id) == segment);
        if !made.udp {
            let last = if segment + 1 == total { 0xff } else { !0x09 };
            let first = if segment == 0 { 0xff } else { !0x80 };
            assert_eq!(
                flags,
                made.flags & last & first,
                "flags of segment {segment} of {total}"
            );
        }
    }
}

fn all_kinds() -> impl Iterator<Item = Made> + Clone {
    let kinds = [(false, false), (false, true), (true, false), (true, true)];
    kinds.into_iter().flat_map(|(v6, udp)| {
        let options = [(0, 0), (8, 12), (40, 40)];
        let payloads = [1, 99, 100, 101, 950, 1000];
        options.into_iter().flat_map(move |options| {
            payloads.into_iter().map(move |payload| Made {
                v6,
                udp,
                options,
                payload,
                ..TCP4
            })
        })
    })
}

#[test]
fn every_range_of_segments_is_a_valid_frame() {
    let mut out = [0; 2000];
    for made in all_kinds() {
        let frame = made.frame();
        let count = segment_count(&frame);
        assert_eq!(count, made.payload.div_ceil(100));
        for start in 0..count {
            for end in start + 1..=count {
                let bytes = extract(&frame, start..end, &mut out).unwrap();
                expect_segments(&out[..bytes], &made, start..end);
            }
        }
        assert_eq!(extract(&frame, 0..count + 1, &mut out), None);
        assert_eq!(extract(&frame, 1..1, &mut out), None);
        assert_eq!(extract(&frame, 0..1, &mut out[..10 + made.headers()]), None);
    }
}

#[test]
fn all_segments_are_the_frame_itself() {
    for made in all_kinds().filter(|made| made.payload > 100) {
        let (frame, mut out) = (made.frame(), [0; 2000]);
        let bytes = extract(&frame, 0..segment_count(&frame), &mut out).unwrap();
        assert_eq!(out[..bytes], frame);
    }
}

#[test]
fn the_largest_superframe_is_split() {
    let made = Made {
        gso_size: 1448,
        payload: 65_535 - 52,
        ..TCP4
    };
    let (frame, mut scratch) = (made.frame(), vec![0; 70_000]);
    assert_eq!(
        split(&frame, &mut scratch, |packet| drop(receive(packet, &made))),
        46
    );
    let tiny = Made {
        gso_size: 1,
        payload: 65_000,
        ..TCP4
    };
    assert_eq!(segment_count(&tiny.frame()), 65_000);
}

#[test]
fn rescue_saves_every_complete_segment_and_nothing_else() {
    let mut rng = Rng::new(6);
    let mut scratch = [0; 2000];
    for made in all_kinds()
        .filter(|made| made.payload > 100)
        .cycle()
        .take(2_000)
    {
        let frame = made.frame();
        // Fragments of 90 bytes, some lost. Where nothing arrived the slot still holds the headers of
        // another frame of the flow, and a payload that must not be seen.
        let (mut coverage, mut broken) = (Coverage::default(), frame.clone());
        broken[10 + made.headers()..]
            .iter_mut()
            .for_each(|byte| *byte = !*byte);
        let loss = rng.unit() * 0.5;
        let mut arrived = vec![false; frame.len()];
        for start in (0..frame.len()).step_by(90) {
            let range = start..frame.len().min(start + 90);
            if !rng.chance(loss) {
                coverage.insert(range.clone()).unwrap();
                broken[range.clone()].copy_from_slice(&frame[range.clone()]);
                arrived[range].fill(true);
            }
        }
        let headers = 10 + made.headers();
        let count = made.payload.div_ceil(100);
        let whole = |segment: usize| {
            let start = headers + segment * 100;
            let end = frame.len().min(start + 100);
            arrived[..headers]
                .iter()
                .chain(&arrived[start..end])
                .all(|b| *b)
        };
        let mut expected = Vec::new();
        let mut next = 0;
        while next < count {
            let end = (next..count).find(|s| !whole(*s)).unwrap_or(count);
            if end > next {
                expected.push(next..end);
            }
            next = end + 1;
        }
        let mut expected_runs = expected.iter();
        let all = 0..frame.len();
        let saved = rescue(&broken, &coverage, &all, &mut scratch, |run| {
            expect_segments(run, &made, expected_runs.next().unwrap().clone());
        });
        assert!(expected_runs.next().is_none());
        let expected = expected.iter().map(Range::len).sum::<usize>();
        let has_headers = arrived[..headers].iter().all(|b| *b);
        assert_eq!(saved, has_headers.then_some(expected));
    }
}

#[test]
fn each_segment_is_saved_once_however_late_its_bytes_come() {
    let mut rng = Rng::new(7);
    let mut scratch = [0; 2000];
    for made in all_kinds()
        .filter(|made| made.payload > 100)
        .cycle()
        .take(500)
    {
        let frame = made.frame();
        let mut parts: Vec<Range<usize>> = (0..frame.len())
            .step_by(90)
            .map(|start| start..frame.len().min(start + 90))
            .collect();
        for at in (1..parts.len()).rev() {
            parts.swap(at, usize::try_from(rng.below(at as u64 + 1)).unwrap());
        }
        let (mut coverage, mut broken, mut begun) = (Coverage::default(), frame.clone(), false);
        broken.fill(0xee);
        let mut saved = 0;
        for part in parts {
            coverage.insert(part.clone()).unwrap();
            broken[part.clone()].copy_from_slice(&frame[part.clone()]);
            let within = if begun { part } else { 0..frame.len() };
            let some = rescue(&broken, &coverage, &within, &mut scratch, |_| {});
            begun |= some.is_some();
            saved += some.unwrap_or(0);
        }
        assert_eq!(saved, made.payload.div_ceil(100));
    }
}

#[test]
fn what_is_no_superframe_has_one_segment_and_no_parts() {
    let frame = TCP4.frame();
    let spoil: [(usize, u8); 10] = [
        (0, 0),     // no NEEDS_CSUM
        (1, 0),     // no GSO
        (1, 4),     // IPv6 type on IPv4
        (6, 24),    // csum_start beside the TCP header
        (10, 0x44), // IP header too short
        (10, 0x4f), // IP header over the TCP header
        (13, 9),    // total length
        (16, 0x20), // more fragments
        (19, 17),   // UDP
        (42, 0x40), // TCP header too short
    ];
    for (at, value) in spoil {
        let mut frame = frame.clone();
        frame[at] = value;
        assert_eq!(
            (segment_count(&frame), extract(&frame, 0..1, &mut [0; 2000])),
            (1, None),
            "{at}"
        );
    }
    let headers_only = &frame[..10 + TCP4.headers()];
    assert_eq!(extract(headers_only, 0..1, &mut [0; 2000]), None);
}

proptest! {
    #[test]
    fn hostile_frames_never_panic(
        spoiled in proptest::collection::vec((0..80_usize, any::<u8>()), 0..6),
        cut in 0..1100_usize,
        v6 in any::<bool>(),
        udp in any::<bool>(),
        noise in proptest::collection::vec(any::<u8>(), 0..120),
    ) {
        let mut frame = Made { v6, udp, ..TCP4 }.frame();
        spoiled.iter().for_each(|(at, value)| frame[*at] = *value);
        frame.truncate(cut);
        for mut frame in [frame, noise] {
            let mut scratch = [0; 2000];
            let mut coverage = Coverage::default();
            let _ = coverage.insert(0..frame.len() * 2 / 3);
            let count = segment_count(&frame);
            let _ = extract(&frame, count - 1..count, &mut scratch);
            rescue(&frame, &coverage, &(0..cut), &mut scratch, |run| assert!(run.len() <= frame.len()));
            split(&frame, &mut scratch, |packet| assert!(packet.len() <= frame.len()));
            let _ = complete_checksum(&mut frame);
            let _ = crate::stream::ecn::mark_ce(frame.get_mut(10..).unwrap_or(&mut []));
        }
    }
}
