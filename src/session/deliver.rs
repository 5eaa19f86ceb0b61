//! From bodies of symbols to frames for the TUN.
//!
//! ```text
//! body ─► pieces ─► whole frame ───────────► reorder ─► poll_frame
//!            └► fragment ─► assembler ─(whole)─┘  │
//!   a hole's time is over: what is whole of a broken superframe ─┘  (`overdue`)
//! ```

use super::Session;
use super::ingress::{Ingress, STEPS_FREE};
use crate::base::id::LANES;
use crate::base::{DropReason, FRAME_BYTES_MAX, Frame, Instant, Lane};
use crate::reorder;
use crate::stream::assembler::{PartialId, Progress};
use crate::wire::piece::{Piece, pieces};
use crate::wire::virtio::{VIRTIO_BYTES, VirtioHeader};

/// What the reorder buffer holds.
#[derive(Debug)]
pub enum Item {
    /// A whole frame.
    Whole(Frame),
    /// Fragments; the assembler has them.
    Partial(PartialId),
}

impl Session {
    /// Delivers what the last symbol made computable.
    pub(super) fn deliver_recovered(&mut self, now: Instant) {
        while let Some(recovered) = self.ingress.decoder.poll_recovered() {
            let bytes = recovered.body.len();
            self.recovered_body[..bytes].copy_from_slice(recovered.body);
            let body = std::mem::take(&mut self.recovered_body);
            if let Err(reason) = self.deliver_body(&body[..bytes], now, now) {
                self.drops.count(reason);
            }
            self.recovered_body = body;
        }
    }

    /// Takes a body apart; `since`: when its frames begin to wait for those before them.
    pub(super) fn deliver_body(
        &mut self,
        body: &[u8],
        since: Instant,
        now: Instant,
    ) -> Result<(), DropReason> {
        for piece in pieces(body) {
            match piece? {
                Piece::Whole {
                    lane,
                    seq,
                    virtio,
                    packet,
                } => {
                    let Some(frame) = self.ingress.frames.take(VIRTIO_BYTES + packet.len()) else {
                        return Err(self.no_buffer());
                    };
                    let out = self.ingress.frames.bytes_mut(&frame);
                    virtio.emit(out);
                    out[VIRTIO_BYTES..].copy_from_slice(packet);
                    // Refused headers still take their place in the lane, or their hole would be waited for.
                    self.insert((lane, seq), Item::Whole(frame), since, now);
                }
                Piece::Fragment {
                    lane,
                    seq,
                    frame_bytes,
                    offset,
                    bytes,
                } => {
                    let place = (lane, seq);
                    let (whole, part) = (frame_bytes, (offset, bytes));
                    self.insert_fragment(place, whole, part, since, now)?;
                }
            }
        }
        Ok(())
    }

    fn insert_fragment(
        &mut self,
        (lane, seq): (Lane, u32),
        frame_bytes: usize,
        (offset, bytes): (usize, &[u8]),
        since: Instant,
        now: Instant,
    ) -> Result<(), DropReason> {
        if frame_bytes > FRAME_BYTES_MAX {
            return Err(DropReason::BadFrame);
        }
        let Ingress {
            assembler,
            frames,
            reorder,
            ..
        } = &mut self.ingress;
        let progress = match assembler.insert(frames, lane, seq, frame_bytes, offset, bytes) {
            Err(DropReason::NoBuffer) => return Err(self.no_buffer()),
            other => other?,
        };
        match progress {
            Progress::Started(id) => self.insert((lane, seq), Item::Partial(id), since, now),
            Progress::More(_) => {}
            Progress::Overdue(id) => self.deliver_overdue(id, offset..offset + bytes.len()),
            Progress::Complete(frame) => {
                let seq = reorder.expand(lane, seq);
                if let Some(item) = reorder.get_mut(lane, seq) {
                    *item = Item::Whole(frame);
                    let _ = reorder.mark_ready(lane, seq);
                } else {
                    // The lane gave its partial form up, or the frame has one fragment only.
                    self.insert((lane, seq), Item::Whole(frame), since, now);
                }
            }
        }
        Ok(())
    }

    /// A frame found no room: what is overdue is given up, or what was waited for longest is waited for no more. Else the
    /// frame's own place would be one hole more, behind which all that comes keeps its room until the hold time is over, and
    /// nothing got out of that.
    fn no_buffer(&mut self) -> DropReason {
        if !self.give_up_overdue(Instant::FAR) {
            self.ingress.reorder.give_up_oldest();
        }
        DropReason::NoBuffer
    }

    fn insert(&mut self, (lane, seq): (Lane, u32), item: Item, since: Instant, now: Instant) {
        let ready = matches!(item, Item::Whole(_));
        let seq = self.ingress.reorder.expand(lane, seq);
        if !self.check_sequence(lane, seq, now) {
            self.drops.count(DropReason::ControlLimited);
            return self.discard(item);
        }
        let Ingress { reorder, .. } = &mut self.ingress;
        if let Err((reason, item)) = reorder.insert_since(lane, seq, item, ready, since, now) {
            self.drops.count(reason);
            self.discard(item);
        }
    }

    fn discard(&mut self, item: Item) {
        match item {
            Item::Whole(frame) => self.ingress.frames.give(frame),
            Item::Partial(id) => {
                let _ = self.ingress.assembler.discard(&mut self.ingress.frames, id);
            }
        }
    }

    /// Copies the next frame for the TUN to `out` and returns its length. `None` = nothing is ready.
    pub fn poll_frame(&mut self, now: Instant, out: &mut [u8]) -> Option<usize> {
        loop {
            let frame = match self.ingress.rescued.pop_front() {
                Some(frame) => frame,
                None => {
                    let released = self.ingress.reorder.poll(now)?;
                    self.ingress.waits.record(released.held, now);
                    match released.item {
                        Item::Whole(frame) => frame,
                        Item::Partial(id) => {
                            self.become_overdue(id, now);
                            continue;
                        }
                    }
                }
            };
            if let Some(bytes) = self.hand_out(frame, out) {
                return Some(bytes);
            }
        }
    }

    /// Copies a frame out; `None` when its virtio header would deceive the kernel.
    fn hand_out(&mut self, frame: Frame, out: &mut [u8]) -> Option<usize> {
        let bytes = frame.len();
        out[..bytes].copy_from_slice(self.ingress.frames.bytes(&frame));
        self.ingress.frames.give(frame);
        let valid =
            VirtioHeader::split(&out[..bytes]).and_then(|(virtio, packet)| virtio.validate(packet));
        if let Err(reason) = valid {
            self.drops.count(reason);
            return None;
        }
        self.ingress.delivered.0 += 1;
        self.ingress.delivered.1 += bytes as u64 - VIRTIO_BYTES as u64;
        Some(bytes)
    }

    /// The same for sequences of a lane, whose ring has four windows.
    fn check_sequence(&mut self, lane: Lane, seq: u32, now: Instant) -> bool {
        let newest = &mut self.ingress.newest_seq[lane.index() % LANES];
        let ahead = seq.wrapping_sub(*newest);
        if ahead > u32::MAX / 2 {
            return true; // behind
        }
        let ring = u64::from(4 * reorder::WINDOW);
        let steps = if u64::from(ahead) <= STEPS_FREE {
            0
        } else {
            u64::from(ahead).min(ring)
        };
        let may = self.steps_limit.take(steps, now);
        if may {
            *newest = seq;
        }
        may
    }
}
