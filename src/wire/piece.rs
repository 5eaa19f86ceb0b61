//! What a symbol's body holds: one piece or several, each a whole frame or a fragment of one.
//!
//! ```text
//! first byte: | 0000 | virtio coding (2 bits) | has length | fragment |      (bit 7 ... bit 0)
//!
//! whole:      | first | [length u16] | lane u8 | lane sequence u24 | [virtio 10] | packet ...
//! fragment:   | first | [length u16] | lane u8 | lane sequence u24 | frame bytes u24 | offset u24 | bytes ...
//! ```
//!
//! `length` counts the bytes that follow it; without it the piece reaches to the end of the body, so a lone
//! ordinary packet costs exactly five bytes. A fragment carries raw bytes of the frame, the virtio header being
//! the frame's first ten. The virtio coding of a whole frame leaves out what can be derived:
//!
//! | coding | header |
//! | --- | --- |
//! | 0 | all zero |
//! | 1 | unfinished TCP or UDP checksum, its place derived from the packet |
//! | 2 | ten bytes follow |
//! | 3 | "checksum verified", all else zero (what a forwarding host's kernel says of most packets) |
//!
//! This module never looks into a frame beyond that. Invariant: a parsed fragment lies inside its frame, a
//! parsed lane exists, and no piece is empty.

use super::virtio::{DATA_VALID, VIRTIO_BYTES, VirtioHeader};
use crate::base::id::LANES;
use crate::base::{DropReason, FRAME_BYTES_MAX, Lane};

/// Bytes before the packet of a whole frame without length and virtio header.
pub const WHOLE_HEADER_BYTES: usize = 5;
/// Bytes before the bytes of a fragment without length.
pub const FRAGMENT_HEADER_BYTES: usize = WHOLE_HEADER_BYTES + 6;
/// Bytes of the length, where a piece has one.
pub const LENGTH_BYTES: usize = 2;
/// Lane sequences travel in 24 bits.
pub const SEQUENCE_MASK: u32 = 0xff_ffff;

const FRAGMENT: u8 = 1;
const HAS_LENGTH: u8 = 2;
const CODING_SHIFT: u32 = 2;
const RESERVED: u8 = 0xf0;

/// How a virtio header is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Zero = 0,
    Derived = 1,
    Full = 2,
    Verified = 3,
}

/// "Checksum verified" and nothing else.
const VERIFIED: VirtioHeader = VirtioHeader {
    flags: DATA_VALID,
    ..VirtioHeader::NONE
};

/// One piece of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A whole frame.
    Whole {
        /// Order lane.
        lane: Lane,
        /// Low 24 bits of the lane sequence.
        seq: u32,
        /// As the frame's first ten bytes say; not validated yet.
        virtio: VirtioHeader,
        /// The IP packet.
        packet: &'a [u8],
    },
    /// A part of a frame.
    Fragment {
        /// Order lane.
        lane: Lane,
        /// Low 24 bits of the lane sequence.
        seq: u32,
        /// Length of the whole frame, virtio header included.
        frame_bytes: usize,
        /// Where `bytes` belong in the frame.
        offset: usize,
        /// Never empty, never beyond the frame's end.
        bytes: &'a [u8],
    },
}

/// Bytes of the piece that holds a whole frame.
pub fn whole_bytes(virtio: &VirtioHeader, packet: &[u8], has_length: bool) -> usize {
    let header = match coding_of(virtio, packet) {
        Coding::Full => VIRTIO_BYTES,
        Coding::Zero | Coding::Derived | Coding::Verified => 0,
    };
    WHOLE_HEADER_BYTES + if has_length { LENGTH_BYTES } else { 0 } + header + packet.len()
}

/// Writes a whole frame to the start of `out` and returns the bytes written, [`whole_bytes`] of them.
///
/// # Panics
/// If `out` is too short, or the piece with a length is longer than 64 KiB; sizes are ours.
pub fn emit_whole(
    out: &mut [u8],
    lane: Lane,
    seq: u32,
    virtio: &VirtioHeader,
    packet: &[u8],
    has_length: bool,
) -> usize {
    let coding = coding_of(virtio, packet);
    let total = whole_bytes(virtio, packet, has_length);
    let first = (coding as u8) << CODING_SHIFT;
    let mut at = emit_start(&mut out[..total], first, has_length, lane, seq);
    if coding == Coding::Full {
        virtio.emit(&mut out[at..]);
        at += VIRTIO_BYTES;
    }
    out[at..total].copy_from_slice(packet);
    total
}

/// Writes a fragment to the start of `out` and returns the bytes written.
///
/// # Panics
/// If `out` is too short or the frame longer than 24 bits can say; sizes are ours.
pub fn emit_fragment(
    out: &mut [u8],
    lane: Lane,
    seq: u32,
    frame_bytes: usize,
    offset: usize,
    bytes: &[u8],
    has_length: bool,
) -> usize {
    let total = FRAGMENT_HEADER_BYTES + if has_length { LENGTH_BYTES } else { 0 } + bytes.len();
    let at = emit_start(&mut out[..total], FRAGMENT, has_length, lane, seq);
    out[at..at + 3].copy_from_slice(&u24(frame_bytes));
    out[at + 3..at + 6].copy_from_slice(&u24(offset));
    out[at + 6..total].copy_from_slice(bytes);
    total
}

/// Takes a body apart. After an error nothing more comes.
pub const fn pieces(body: &[u8]) -> Pieces<'_> {
    Pieces { rest: body }
}

/// Iterator over the pieces of a body.
#[derive(Clone, Debug)]
pub struct Pieces<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Result<Piece<'a>, DropReason>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let Some((piece, rest)) = parse_first(self.rest) else {
            self.rest = &[];
            return Some(Err(DropReason::BadFrame));
        };
        self.rest = rest;
        Some(Ok(piece))
    }
}

fn parse_first(body: &[u8]) -> Option<(Piece<'_>, &[u8])> {
    let (&first, mut piece) = body.split_first()?;
    let mut rest: &[u8] = &[];
    if first & RESERVED != 0 {
        return None;
    }
    if first & HAS_LENGTH != 0 {
        let (length, after) = piece.split_first_chunk::<LENGTH_BYTES>()?;
        (piece, rest) = after.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    }
    let (&[lane, s0, s1, s2], content) = piece.split_first_chunk()?;
    let lane = Lane(lane);
    if lane.index() >= LANES {
        return None;
    }
    let seq = u32::from_le_bytes([s0, s1, s2, 0]);
    let coding = first >> CODING_SHIFT;
    if first & FRAGMENT == 0 {
        let (virtio, packet) = parse_virtio(coding, content)?;
        let fits = !packet.is_empty() && packet.len() <= FRAME_BYTES_MAX - VIRTIO_BYTES;
        return fits.then_some((
            Piece::Whole {
                lane,
                seq,
                virtio,
                packet,
            },
            rest,
        ));
    }
    let (&[f0, f1, f2, o0, o1, o2], bytes) = content.split_first_chunk()?;
    let (frame_bytes, offset) = (from_u24([f0, f1, f2]), from_u24([o0, o1, o2]));
    let fits = coding == 0
        && !bytes.is_empty()
        && (VIRTIO_BYTES + 1..=FRAME_BYTES_MAX).contains(&frame_bytes)
        && offset + bytes.len() <= frame_bytes;
    fits.then_some((
        Piece::Fragment {
            lane,
            seq,
            frame_bytes,
            offset,
            bytes,
        },
        rest,
    ))
}

fn parse_virtio(coding: u8, content: &[u8]) -> Option<(VirtioHeader, &[u8])> {
    match coding {
        0 => Some((VirtioHeader::NONE, content)),
        1 => Some((VirtioHeader::checksum_of(content)?, content)),
        2 => {
            let (header, packet) = content.split_first_chunk()?;
            Some((VirtioHeader::parse(header), packet))
        }
        _ => Some((VERIFIED, content)),
    }
}

/// The shortest way to write a header. Every header has exactly one, so that equal frames are equal bytes.
fn coding_of(virtio: &VirtioHeader, packet: &[u8]) -> Coding {
    if *virtio == VirtioHeader::NONE {
        Coding::Zero
    } else if *virtio == VERIFIED {
        Coding::Verified
    } else if VirtioHeader::checksum_of(packet).as_ref() == Some(virtio) {
        Coding::Derived
    } else {
        Coding::Full
    }
}

/// Writes what all pieces begin with; `out` is exactly the piece. Returns where its content begins.
fn emit_start(out: &mut [u8], first: u8, has_length: bool, lane: Lane, seq: u32) -> usize {
    let mut at = 1;
    out[0] = first;
    if has_length {
        out[0] |= HAS_LENGTH;
        let length = u16::try_from(out.len() - 1 - LENGTH_BYTES).expect("a body is below 64 KiB");
        out[1..3].copy_from_slice(&length.to_le_bytes());
        at += LENGTH_BYTES;
    }
    out[at] = lane.0;
    let [s0, s1, s2, _] = seq.to_le_bytes();
    out[at + 1..at + 4].copy_from_slice(&[s0, s1, s2]);
    at + 4
}

fn u24(value: usize) -> [u8; 3] {
    let value = u32::try_from(value).ok().filter(|v| *v <= SEQUENCE_MASK);
    let [b0, b1, b2, _] = value.expect("a frame is below 16 MiB").to_le_bytes();
    [b0, b1, b2]
}

const fn from_u24(b: [u8; 3]) -> usize {
    u32::from_le_bytes([b[0], b[1], b[2], 0]) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::virtio::{GSO_TCPV4, NEEDS_CSUM};
    use proptest::prelude::*;

    const LANE: Lane = Lane(9);

    fn only(body: &[u8]) -> Piece<'_> {
        let mut all = pieces(body);
        let piece = all.next().unwrap().unwrap();
        assert!(all.next().is_none());
        piece
    }

    #[test]
    fn golden_whole_frame_costs_five_bytes() {
        let packet = [0x45; 1400];
        let mut out = [0_u8; 1405];
        let written = emit_whole(
            &mut out,
            LANE,
            0xff03_0201,
            &VirtioHeader::NONE,
            &packet,
            false,
        );
        assert_eq!((written, &out[..6]), (1405, &[0, 9, 1, 2, 3, 0x45][..]));
        let whole = Piece::Whole {
            lane: LANE,
            seq: 0x03_0201,
            virtio: VirtioHeader::NONE,
            packet: &packet,
        };
        assert_eq!(only(&out), whole);
    }

    #[test]
    fn golden_fragment_with_length() {
        let mut out = [0_u8; 16];
        let written = emit_fragment(&mut out, LANE, 5, 0x01_0009, 0x1234, &[7, 8, 9], true);
        let golden = [3, 13, 0, 9, 5, 0, 0, 0x09, 0, 1, 0x34, 0x12, 0, 7, 8, 9];
        assert_eq!((written, out), (16, golden));
        let fragment = Piece::Fragment {
            lane: LANE,
            seq: 5,
            frame_bytes: 0x01_0009,
            offset: 0x1234,
            bytes: &[7, 8, 9],
        };
        assert_eq!(only(&out), fragment);
    }

    #[test]
    fn derivable_virtio_headers_cost_nothing() {
        let mut packet = [0_u8; 60];
        packet[0] = 0x45;
        packet[9] = 6;
        let derived = VirtioHeader {
            flags: NEEDS_CSUM,
            csum_start: 20,
            csum_offset: 16,
            ..VirtioHeader::NONE
        };
        let superframe = VirtioHeader {
            gso_type: GSO_TCPV4,
            gso_size: 10,
            ..derived
        };
        for (virtio, first, length) in [
            (derived, 4, 65),
            (VERIFIED, 12, 65),
            (superframe, 8, 75),
            (VirtioHeader::NONE, 0, 65),
        ] {
            let mut out = [0_u8; 75];
            let written = emit_whole(&mut out, LANE, 1, &virtio, &packet, false);
            assert_eq!((written, out[0]), (length, first));
            let whole = Piece::Whole {
                lane: LANE,
                seq: 1,
                virtio,
                packet: &packet,
            };
            assert_eq!(only(&out[..written]), whole);
        }
    }

    #[test]
    fn several_pieces_share_a_body_and_every_truncation_is_noticed() {
        let mut body = [0_u8; 64];
        let a = emit_whole(&mut body, LANE, 1, &VirtioHeader::NONE, &[0x45; 10], true);
        let b = a + emit_fragment(&mut body[a..], Lane(0), 2, 100, 90, &[1; 10], true);
        let c = b + emit_whole(
            &mut body[b..],
            Lane(63),
            3,
            &VirtioHeader::NONE,
            &[0x60; 4],
            false,
        );
        assert_eq!(pieces(&body[..c]).filter(Result::is_ok).count(), 3);
        for end in 1..c {
            let got: Vec<_> = pieces(&body[..end]).collect();
            // The last piece has no length, so its packet may only become shorter.
            let shorter = end > b + 5;
            let whole = [a, b].iter().filter(|edge| **edge <= end).count() + usize::from(shorter);
            assert_eq!(
                got.iter().filter(|p| p.is_ok()).count(),
                whole,
                "cut at {end}"
            );
            assert_eq!(
                got.iter().any(Result::is_err),
                !(end == a || end == b || shorter)
            );
        }
    }

    #[test]
    fn contradictions_are_refused() {
        let mut out = [0_u8; 14];
        let good = |out: &mut [u8; 14]| emit_fragment(out, LANE, 0, 100, 97, &[1; 3], false);
        for (at, value) in [
            (0, 0x11),
            (0, 5),
            (1, 64),
            (5, 10),
            (5, 99),
            (7, 0xff),
            (8, 98),
        ] {
            good(&mut out);
            assert!(pieces(&out).all(|p| p.is_ok()));
            out[at] = value;
            let got: Vec<_> = pieces(&out).collect();
            assert_eq!(got, [Err(DropReason::BadFrame)], "byte {at} as {value}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_apart_without_panic(body in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut errors = 0;
            for piece in pieces(&body) {
                match piece {
                    Ok(Piece::Whole { packet, lane, .. }) => prop_assert!(!packet.is_empty() && lane.index() < LANES),
                    Ok(Piece::Fragment { frame_bytes, offset, bytes, .. }) => {
                        prop_assert!(!bytes.is_empty() && offset + bytes.len() <= frame_bytes);
                    }
                    Err(_) => errors += 1,
                }
            }
            prop_assert!(errors <= 1);
        }

        #[test]
        fn what_is_written_is_read(
            header in any::<[u8; 10]>(),
            packet in proptest::collection::vec(any::<u8>(), 1..60),
            lane in 0..64_u8,
            seq in 0..=SEQUENCE_MASK,
            has_length in any::<bool>(),
        ) {
            let virtio = VirtioHeader::parse(&header);
            let mut out = [0_u8; 80];
            let written = emit_whole(&mut out, Lane(lane), seq, &virtio, &packet, has_length);
            prop_assert_eq!(written, whole_bytes(&virtio, &packet, has_length));
            let whole = Piece::Whole { lane: Lane(lane), seq, virtio, packet: &packet };
            prop_assert_eq!(only(&out[..written]), whole);
        }
    }
}
