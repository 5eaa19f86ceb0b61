//! Frames leave the flow queue, and CoDel has its say: a mark, the loss of one segment, or of a frame.
//!
//! ```text
//!  flow queue ─► congested? ─► a mark, where the packet can carry one (ECN)
//!                    │ else the first segment of a superframe is taken off
//!                    └ else, and when several signals changed nothing, the frame is dropped
//! ```
//!
//! What a signal took comes again through the same queue, behind what its sender has sent meanwhile. It must not overtake
//! that: a sender takes everything for lost that was sent before a segment which has arrived (RACK, RFC 8985).

use super::Session;
use super::egress::Taken;
use crate::base::{DropReason, Frame, Instant, Rate};
use crate::flow::queue::Verdict;
use crate::stream::ecn::mark_ce;
use crate::stream::segment;
use crate::wire::virtio::VIRTIO_BYTES;

/// Rate up to which a flow is sparse: its packets go ahead of committed ones.
const SPARSE_RATE: Rate = Rate::from_mbps(1);

impl Session {
    /// Takes the next frame off the queue after CoDel had its say.
    pub(super) fn next_frame(&mut self, route: usize, now: Instant) -> Option<Taken> {
        if let Some(waiting) = self.egress.routes[route].waiting.take() {
            return Some(waiting);
        }
        loop {
            let item = self.egress.routes[route].queue.dequeue(now)?;
            let (hash, since) = (item.hash, now - item.sojourn);
            let fast = item.rate >= SPARSE_RATE;
            let sparse = !fast
                && !self.equalises_all(&item.item)
                && !self.egress.slowed.is_behind(hash, &self.egress.store);
            if item.verdict == Verdict::Pass || self.in_startup() {
                return Some(Taken {
                    frame: item.item,
                    hash,
                    sparse,
                    fast,
                    since,
                });
            }
            if let Some(frame) = self.signal(item.item, item.overdue) {
                return Some(Taken {
                    frame,
                    hash,
                    sparse,
                    fast,
                    since,
                });
            }
            self.egress.routes[route].queue.refund(hash, item.bytes);
        }
    }

    /// Drops a frame; each packet of a superframe counts.
    pub(super) fn drop_frame(&mut self, frame: Frame, reason: DropReason) {
        let packets = segment::segment_count(self.egress.frames.bytes(&frame));
        self.drops.count_many(reason, packets.max(1) as u64);
        self.egress.frames.give(frame);
    }

    /// CoDel wants the flow to slow down: its frame is marked, else one segment is taken off a superframe, else it is
    /// dropped (`None`), at once when the flow did not care for marks.
    fn signal(&mut self, frame: Frame, overdue: bool) -> Option<Frame> {
        if overdue {
            self.drop_frame(frame, DropReason::Aqm);
            return None;
        }
        let bytes = self.egress.frames.bytes_mut(&frame);
        if mark_ce(&mut bytes[VIRTIO_BYTES..]) {
            return Some(frame);
        }
        let segments = segment::segment_count(bytes);
        if segments > 1
            && let Some(trimmed) = self.without_first_segment(&frame, segments)
        {
            self.egress.frames.give(frame);
            return Some(trimmed);
        }
        self.drop_frame(frame, DropReason::Aqm);
        None
    }

    fn without_first_segment(&mut self, frame: &Frame, segments: usize) -> Option<Frame> {
        let room = self.egress.frames.take(frame.len())?;
        // Both frames lie in one store, so the copy goes by way of the scratch frame.
        let whole = &mut self.scratch[..frame.len()];
        whole.copy_from_slice(self.egress.frames.bytes(frame));
        let out = self.egress.frames.bytes_mut(&room);
        let Some(bytes) = segment::extract(whole, 1..segments, out) else {
            self.egress.frames.give(room);
            return None;
        };
        self.drops.count(DropReason::Aqm);
        Some(room.shortened(bytes))
    }
}
