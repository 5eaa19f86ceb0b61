//! Trains are judged by taking them apart again with the module that knows superframes: what comes out must be
//! what went in.

use super::*;
use crate::stream::checksum::complete_checksum;
use crate::stream::segment;
use proptest::prelude::*;

/// A packet of a flow before it is bytes.
#[derive(Clone, Copy, Debug)]
struct Made {
    v6: bool,
    udp: bool,
    payload: usize,
    seq: u32,
    id: u16,
    fragmentable: bool,
    flags: u8,
    port: u8,
    /// Bytes of TCP options.
    options: usize,
    /// The checksum is left to the kernel.
    unfinished: bool,
}

const UDP: Made = Made {
    v6: false,
    udp: true,
    payload: 200,
    seq: 0,
    id: 7,
    fragmentable: false,
    flags: TCP_ACK,
    port: 9,
    options: 12,
    unfinished: true,
};

const TCP: Made = Made {
    udp: false,
    seq: 0xffff_ff00,
    ..UDP
};

impl Made {
    fn frame(&self) -> Vec<u8> {
        let ip = if self.v6 { IPV6_BYTES } else { IPV4_BYTES };
        let transport = if self.udp { 8 } else { 20 + self.options };
        let word = |value: usize| u16::try_from(value).unwrap().to_be_bytes();
        let mut p = vec![0_u8; ip];
        let protocol = if self.udp { PROTO_UDP } else { PROTO_TCP };
        if self.v6 {
            p[0] = 0x60;
            p[4..6].copy_from_slice(&word(transport + self.payload));
            p[6..8].copy_from_slice(&[protocol, 64]);
            (8..40).for_each(|i| p[i] = u8::try_from(i * 3).unwrap());
        } else {
            p[0] = 0x45;
            p[2..4].copy_from_slice(&word(ip + transport + self.payload));
            p[4..6].copy_from_slice(&self.id.to_be_bytes());
            p[6] = if self.fragmentable { 0 } else { DONT_FRAGMENT };
            p[8..10].copy_from_slice(&[64, protocol]);
            p[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
            let checksum = !fold(sum(&p));
            put16(&mut p, 10, checksum);
        }
        p.extend_from_slice(&[1, 2, 3, self.port]);
        if self.udp {
            p.extend_from_slice(&word(8 + self.payload));
            p.extend_from_slice(&[0, 0]);
        } else {
            p.extend_from_slice(&self.seq.to_be_bytes());
            p.extend_from_slice(&[0, 0, 0, 1]);
            p.push(u8::try_from(transport / 4 * 16).unwrap());
            p.push(self.flags);
            p.extend_from_slice(&[0x20, 0, 0, 0, 0, 0]);
            p.resize(ip + transport, 1);
        }
        let first = self.seq.wrapping_add(u32::from(self.id));
        p.extend((0..self.payload).map(|i| (first as usize + i * 7).to_le_bytes()[0]));
        let addresses = if self.v6 { 8..40 } else { 12..20 };
        let length = u16::try_from(p.len() - ip).unwrap();
        let partial = pseudo_header(&p, addresses, protocol, length);
        let field = ip + if self.udp { 6 } else { 16 };
        put16(&mut p, field, partial);
        let virtio = VirtioHeader::checksum_of(&p).unwrap();
        let mut frame = virtio.to_bytes().to_vec();
        frame.extend(p);
        if !self.unfinished {
            assert!(complete_checksum(&mut frame));
        }
        frame
    }

    /// The packet that follows.
    fn next(&self) -> Self {
        Self {
            seq: self.seq.wrapping_add(u32::try_from(self.payload).unwrap()),
            id: self.id.wrapping_add(1),
            ..*self
        }
    }
}

/// Merges `second` behind `first`.
fn merges(first: Made, second: Made) -> bool {
    let frame = first.frame();
    let mut held = vec![0; 70_000];
    held[..frame.len()].copy_from_slice(&frame);
    let Some(mut train) = Train::start(&frame) else {
        return false;
    };
    train.append(&mut held, &second.frame())
}

#[test]
fn packets_that_follow_each_other_merge_in_every_shape() {
    for base in [UDP, TCP] {
        for v6 in [false, true] {
            for unfinished in [false, true] {
                let first = Made {
                    v6,
                    unfinished,
                    ..base
                };
                assert!(merges(first, first.next()), "{first:?}");
            }
        }
    }
}

#[test]
fn whatever_differs_is_left_alone() {
    let next = TCP.next();
    let strangers = [
        Made {
            seq: next.seq + 1,
            ..next
        },
        Made {
            flags: TCP_ACK | 1,
            ..next
        },
        Made {
            flags: TCP_ACK | 0x40,
            ..next
        },
        Made { port: 10, ..next },
        Made { options: 8, ..next },
        Made {
            payload: 201,
            ..next
        },
        Made { payload: 0, ..next },
        Made { v6: true, ..next },
        UDP,
    ];
    for stranger in strangers {
        assert!(!merges(TCP, stranger), "{stranger:?}");
    }
    assert!(!merges(
        Made {
            flags: TCP_ACK | TCP_PSH,
            ..TCP
        },
        next
    ));
    // The identification of what may be fragmented has to count up.
    let loose = Made {
        fragmentable: true,
        ..UDP
    };
    assert!(merges(loose, loose.next()));
    assert!(!merges(loose, Made { id: 9, ..loose }));
    assert!(merges(UDP, Made { id: 9, ..UDP }));
}

#[test]
fn a_damaged_packet_is_never_given_a_right_checksum() {
    for base in [UDP, TCP] {
        let first = Made {
            unfinished: false,
            ..base
        };
        for damaged in [0, 1] {
            let mut frames = [first.frame(), first.next().frame()];
            *frames[damaged].last_mut().unwrap() ^= 1;
            let mut held = frames[0].clone();
            held.resize(70_000, 0);
            let mut train = Train::start(&frames[0]).unwrap();
            assert!(!train.append(&mut held, &frames[1]));
            assert!(train.is_closed());
            assert_eq!(train.finish(&mut held), frames[0].len());
            assert_eq!(held[..frames[0].len()], frames[0]);
        }
    }
    // Zero says that there is none.
    let (mut first, mut second) = (UDP, UDP.next());
    (first.unfinished, second.unfinished) = (false, false);
    let (first, mut second) = (first.frame(), second.frame());
    second[36..38].fill(0);
    let mut held = first.clone();
    held.resize(70_000, 0);
    assert!(!Train::start(&first).unwrap().append(&mut held, &second));
}

#[test]
fn a_flow_has_one_name_and_another_flow_another() {
    let name = |made: Made| Flow::of(&made.frame());
    assert_eq!(name(UDP), name(UDP.next()));
    assert_eq!(
        name(TCP),
        name(Made {
            flags: 1,
            payload: 0,
            ..TCP
        })
    );
    assert_ne!(name(UDP), name(TCP));
    assert_ne!(name(UDP), name(Made { port: 10, ..UDP }));
    assert_eq!(Flow::of(&[0; 30]), None);
}

#[test]
fn a_train_ends_when_it_is_full() {
    let mut made = Made {
        payload: 1_400,
        ..UDP
    };
    let mut held = made.frame();
    held.resize(70_000, 0);
    let mut train = Train::start(&made.frame()).unwrap();
    while {
        made = made.next();
        train.append(&mut held, &made.frame())
    } {}
    assert_eq!(train.count(), 46);
    assert!(train.finish(&mut held) <= 10 + 65_535);
}

proptest! {
    #[test]
    fn taking_a_train_apart_gives_the_packets_back(
        v6: bool, udp: bool, unfinished: bool, payload in 1..700_usize, count in 2..80_usize,
        tail in 1..700_usize, push: bool, seq: u32, id: u16,
    ) {
        let mut made = Made { v6, udp, unfinished, payload, seq, id, ..UDP };
        let first = made.frame();
        let mut held = first.clone();
        held.resize(70_000, 0);
        let mut train = Train::start(&first).unwrap();
        let mut merged = vec![first];
        for index in 1..count {
            made = made.next();
            if index + 1 == count {
                made.payload = tail;
                made.flags |= if push { TCP_PSH } else { 0 };
            }
            let frame = made.frame();
            if !train.append(&mut held, &frame) {
                break;
            }
            merged.push(frame);
        }
        prop_assert_eq!(train.count(), merged.len());
        let bytes = train.finish(&mut held);
        if merged.len() == 1 {
            prop_assert_eq!(&held[..bytes], &merged[0][..]);
            return Ok(());
        }
        let mut scratch = vec![0; 70_000];
        let mut parts = Vec::new();
        segment::split(&held[..bytes], &mut scratch, |part| parts.push(part.to_vec()));
        for frame in &mut merged {
            complete_checksum(frame);
        }
        prop_assert_eq!(parts, merged);
    }

    #[test]
    fn no_bytes_make_it_panic(
        a in prop::collection::vec(any::<u8>(), 0..120), b in prop::collection::vec(any::<u8>(), 0..120),
        version in prop::sample::select(vec![0x45_u8, 0x60]), protocol in prop::sample::select(vec![6_u8, 17]),
    ) {
        for mut frame in [a, b.clone()] {
            if frame.len() > 10 + 20 {
                frame[10] = version;
                frame[if version == 0x45 { 19 } else { 16 }] = protocol;
                let bytes = u16::try_from(frame.len() - 10).unwrap();
                let (at, length) = if version == 0x45 { (12, bytes) } else { (14, bytes.saturating_sub(40)) };
                frame[at..at + 2].copy_from_slice(&length.to_be_bytes());
            }
            let _ = Flow::of(&frame);
            if let Some(mut train) = Train::start(&frame) {
                let mut held = frame.clone();
                held.resize(400, 0);
                let _ = train.append(&mut held, &frame);
                let _ = train.append(&mut held, &b);
                train.finish(&mut held);
            }
        }
    }
}
