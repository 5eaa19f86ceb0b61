//! How a frame becomes symbol bodies: whole into a body with others, or cut into fragments.
//!
//! ```text
//! small frames:   body = | whole, length | whole, length | ... | whole |
//! a superframe:   body = | fragment | , body = | fragment | , ..., body = | shorter fragment |
//! ```
//!
//! All bodies of one large frame are equally long but the last, so that a run of them on one link has one
//! UDP segment size. A frame is never delayed here: whoever holds a [`BodyWriter`] decides when it is closed.
//!
//! Invariants: fragments cover the frame without gap or overlap; a body never exceeds its size.

use crate::base::{DropReason, Lane};
use crate::wire::piece::{
    self, FRAGMENT_HEADER_BYTES, LENGTH_BYTES, WHOLE_HEADER_BYTES, emit_whole,
};
use crate::wire::virtio::VirtioHeader;

/// Room below which nothing more is worth waiting for: the shortest IPv4 packet in a piece with length. A
/// body with less left is closed and its last piece saves its length.
const ROOM_MIN: usize = WHOLE_HEADER_BYTES + LENGTH_BYTES + 20;

/// Body bytes of `frame` (virtio header and packet) as one whole piece.
///
/// # Errors
/// [`DropReason::BadVirtio`] when the frame has no packet.
pub fn whole_len(frame: &[u8], has_length: bool) -> Result<usize, DropReason> {
    let (virtio, packet) = VirtioHeader::split(frame)?;
    Ok(piece::whole_bytes(&virtio, packet, has_length))
}

/// One fragment: which bytes of the frame it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// First byte in the frame.
    pub offset: usize,
    /// Bytes of the frame; the body is [`FRAGMENT_HEADER_BYTES`] longer.
    pub len: usize,
}

impl Cut {
    /// Writes the body that carries this part of `frame` and returns its length.
    ///
    /// # Panics
    /// If the cut was made for another frame or `out` is shorter than the body.
    pub fn emit(self, out: &mut [u8], lane: Lane, seq: u32, frame: &[u8]) -> usize {
        let bytes = &frame[self.offset..self.offset + self.len];
        piece::emit_fragment(out, lane, seq, frame.len(), self.offset, bytes, false)
    }
}

/// Cuts a frame of `frame_bytes` for bodies of at most `body_bytes_max`.
///
/// # Panics
/// If a body has no room for a byte behind the fragment's header; sizes are ours.
pub fn fragments(frame_bytes: usize, body_bytes_max: usize) -> Fragments {
    assert!(
        body_bytes_max > FRAGMENT_HEADER_BYTES,
        "a fragment must carry something"
    );
    Fragments {
        next: 0,
        end: frame_bytes,
        step: body_bytes_max - FRAGMENT_HEADER_BYTES,
    }
}

/// Iterator over the fragments of a frame.
#[derive(Clone, Debug)]
pub struct Fragments {
    next: usize,
    end: usize,
    step: usize,
}

impl Fragments {
    /// The fragments to come are for bodies of at most `body_bytes_max`.
    ///
    /// # Panics
    /// As [`fragments`].
    pub fn limit(&mut self, body_bytes_max: usize) {
        self.step = self.step.min(fragments(self.end, body_bytes_max).step);
    }
}

impl Iterator for Fragments {
    type Item = Cut;

    fn next(&mut self) -> Option<Cut> {
        let len = self.step.min(self.end - self.next);
        let cut = Cut {
            offset: self.next,
            len,
        };
        self.next += len;
        (len > 0).then_some(cut)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let count = (self.end - self.next).div_ceil(self.step);
        (count, Some(count))
    }
}

impl ExactSizeIterator for Fragments {}

/// Fills one body with whole frames.
///
/// Holds no bytes itself: the caller lends the body's room with each call, always the same room, so that a
/// writer can live beside the buffer it fills.
#[derive(Debug, Default)]
pub struct BodyWriter {
    used: usize,
    closed: bool,
}

impl BodyWriter {
    /// A writer for an empty body.
    pub const fn new() -> Self {
        Self {
            used: 0,
            closed: false,
        }
    }

    /// Appends `frame` as a whole piece when it fits into what is left of `body`; else leaves everything as it
    /// is and says `Ok(false)`.
    ///
    /// # Errors
    /// [`DropReason::BadVirtio`] when the frame has no packet.
    pub fn push(
        &mut self,
        body: &mut [u8],
        lane: Lane,
        seq: u32,
        frame: &[u8],
    ) -> Result<bool, DropReason> {
        let (virtio, packet) = VirtioHeader::split(frame)?;
        let room = body.len() - self.used;
        let shortest = piece::whole_bytes(&virtio, packet, false);
        if self.closed || shortest > room {
            return Ok(false);
        }
        let last = shortest + LENGTH_BYTES + ROOM_MIN > room;
        self.used += emit_whole(&mut body[self.used..], lane, seq, &virtio, packet, !last);
        self.closed = last;
        Ok(true)
    }

    /// Bytes written so far.
    pub const fn len(&self) -> usize {
        self.used
    }

    /// Whether nothing was written.
    pub const fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Whether nothing more can follow.
    pub const fn is_full(&self) -> bool {
        self.closed
    }

    /// Starts over and returns the length of the body that is done.
    pub const fn take(&mut self) -> usize {
        let used = self.used;
        *self = Self::new();
        used
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Rng;
    use crate::wire::piece::{Piece, pieces};

    fn frame_of(packet_bytes: usize) -> Vec<u8> {
        let mut frame = vec![0; 10 + packet_bytes];
        frame[10..].fill(0x45);
        frame
    }

    #[test]
    fn fragments_cover_a_frame_and_only_the_last_body_is_shorter() {
        for frame_bytes in [1, 11, 1394, 1395, 2788, 2789, 65_545] {
            let frame: Vec<u8> = (0..frame_bytes)
                .map(|i: usize| i.to_le_bytes()[0])
                .collect();
            let all = fragments(frame_bytes, 1405);
            assert_eq!(all.len(), frame_bytes.div_ceil(1394));
            let (mut rebuilt, count) = (Vec::new(), all.len());
            for (i, cut) in all.enumerate() {
                let mut body = [0; 1405];
                let written = cut.emit(&mut body, Lane(1), 7, &frame);
                assert!(i + 1 == count || written == 1405);
                match pieces(&body[..written]).next().unwrap() {
                    Ok(Piece::Fragment { offset, bytes, .. }) => {
                        assert_eq!(offset, rebuilt.len());
                        rebuilt.extend_from_slice(bytes);
                    }
                    // Frames of up to 10 bytes hold no packet and are refused where they are read.
                    other => assert!(frame_bytes <= 10, "{other:?}"),
                }
            }
            assert!(frame_bytes <= 10 || rebuilt == frame);
        }
    }

    #[test]
    fn fragments_that_become_shorter_still_cover_the_frame() {
        let mut rest = fragments(10_000, 1405);
        let mut end = rest
            .by_ref()
            .take(2)
            .last()
            .map(|cut| cut.offset + cut.len)
            .unwrap();
        rest.limit(1205);
        rest.limit(1405);
        for cut in rest {
            assert_eq!(cut.offset, end);
            assert!(cut.len <= 1194);
            end += cut.len;
        }
        assert_eq!(end, 10_000);
    }

    #[test]
    fn a_full_packet_fills_its_body_exactly() {
        let mut body = [0; 1405];
        let mut writer = BodyWriter::new();
        assert_eq!(
            writer.push(&mut body, Lane(1), 0, &frame_of(1401)),
            Ok(false)
        );
        assert_eq!(
            writer.push(&mut body, Lane(1), 0, &frame_of(1400)),
            Ok(true)
        );
        assert!(writer.is_full());
        assert_eq!(whole_len(&frame_of(1400), false), Ok(1405));
        assert_eq!(writer.push(&mut body, Lane(1), 1, &frame_of(20)), Ok(false));
        assert_eq!((writer.take(), writer.len()), (1405, 0));
    }

    #[test]
    fn frames_of_any_size_share_bodies_and_come_out_in_order() {
        let mut rng = Rng::new(1);
        let (mut body, mut writer, mut read, mut written) = ([0; 1405], BodyWriter::new(), 0, 0);
        let check = |body: &[u8], read: &mut u32| {
            for piece in pieces(body) {
                let Ok(Piece::Whole { seq, packet, .. }) = piece else {
                    panic!("{piece:?}")
                };
                assert_eq!((seq, packet[0]), (*read, 0x45));
                *read += 1;
            }
        };
        for seq in 0..5_000 {
            let frame = frame_of(usize::try_from(rng.below(1400)).unwrap() + 1);
            if !writer.push(&mut body, Lane(2), seq, &frame).unwrap() {
                let length = writer.take();
                check(&body[..length], &mut read);
                assert_eq!(writer.push(&mut body, Lane(2), seq, &frame), Ok(true));
            }
            written += 1;
        }
        let length = writer.take();
        check(&body[..length], &mut read);
        assert_eq!(read, written);
    }
}
