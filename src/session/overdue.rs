//! Frames of which parts are missing when their time is over.
//!
//! ```text
//! time over ─► whole segments leave ─► a late fragment: what it made whole leaves ... ─► complete, or given up
//! ```
//!
//! A repair that comes after the hold time is late but not lost. Its fragment serves the segments that it completes; they
//! leave at once, because what was behind them has left before.
//!
//! Never does: wait in order (`reorder`), or look into packets (`stream::segment`).

use std::ops::Range;
use std::time::Duration;

use super::Session;
use super::ingress::Ingress;
use crate::base::{DropReason, Instant};
use crate::reorder::hold::HOLD_MAX;
use crate::stream::assembler::PartialId;
use crate::stream::segment;

/// Frames rescued from one broken superframe that may wait: at most one for each of its segments.
pub(super) const RESCUED_MAX: usize = 64;
/// Overdue frames at one time: a fifth of the room for the largest ones.
pub(super) const OVERDUE_MAX: usize = 32;
/// How long they stay. A peer mends what it sent for [`HOLD_MAX`] and its longest round trip, and half a second of
/// that is a satellite's.
const OVERDUE_KEEP: Duration = HOLD_MAX.saturating_add(Duration::from_millis(500));

impl Session {
    /// A frame's time is over: what is whole of it leaves, and the rest may still come.
    pub(super) fn become_overdue(&mut self, id: PartialId, now: Instant) {
        let Some(bytes) = self.ingress.assembler.partial(id).map(|p| p.frame.len()) else {
            return;
        };
        if self.ingress.overdue.len() >= OVERDUE_MAX {
            self.give_up_first_overdue();
        }
        self.ingress.assembler.set_overdue(id);
        self.ingress.overdue.push_back((id, now + OVERDUE_KEEP));
        self.rescue(id, 0..bytes);
    }

    /// A late fragment was put in its place: what it made whole leaves.
    pub(super) fn deliver_overdue(&mut self, id: PartialId, fragment: Range<usize>) {
        let Some(partial) = self.ingress.assembler.partial(id) else {
            return;
        };
        let within = if partial.begun {
            fragment
        } else {
            0..partial.frame.len()
        };
        let complete = partial.is_complete();
        let begun = self.rescue(id, within);
        if !complete {
            return;
        }
        let Ingress {
            assembler,
            frames,
            rescued,
            ..
        } = &mut self.ingress;
        let Some(frame) = assembler.take(id) else {
            return;
        };
        if begun {
            frames.give(frame);
        } else if rescued.len() < RESCUED_MAX {
            // No superframe: all of it or nothing.
            rescued.push_back(frame);
            self.rescued_frames += 1;
        } else {
            frames.give(frame);
            self.drops.count(DropReason::NoBuffer);
        }
    }

    /// Gives up what has been overdue until `now`; whether there was anything.
    pub(super) fn give_up_overdue(&mut self, now: Instant) -> bool {
        let before = self.ingress.overdue.len();
        while let Some(&(_, until)) = self.ingress.overdue.front()
            && until <= now
        {
            self.give_up_first_overdue();
        }
        self.ingress.overdue.len() < before
    }

    fn give_up_first_overdue(&mut self) {
        let Ingress {
            assembler,
            frames,
            overdue,
            ..
        } = &mut self.ingress;
        if let Some((id, _)) = overdue.pop_front()
            && assembler.discard(frames, id)
        {
            self.drops.count(DropReason::IncompleteFrame);
        }
    }

    /// Saves the complete segments of a superframe that have bytes `within`. Whether it is one whose headers are there, now
    /// or before.
    fn rescue(&mut self, id: PartialId, within: Range<usize>) -> bool {
        let Ingress {
            assembler,
            frames,
            rescued,
            ..
        } = &mut self.ingress;
        let Some(partial) = assembler.partial(id) else {
            return false;
        };
        let bytes = partial.frame.len();
        self.scratch[..bytes].copy_from_slice(frames.bytes(partial.frame));
        let (mut saved, mut dropped) = (0, 0);
        let segments = segment::rescue(
            &self.scratch[..bytes],
            partial.coverage,
            &within,
            &mut self.rescue_buffer,
            |segments| {
                if rescued.len() < RESCUED_MAX
                    && let Some(frame) = frames.store(segments)
                {
                    rescued.push_back(frame);
                    saved += 1;
                } else {
                    dropped += 1;
                }
            },
        );
        if segments.is_some() {
            assembler.set_begun(id);
        }
        self.rescued_frames += saved;
        self.drops.count_many(DropReason::NoBuffer, dropped);
        segments.is_some()
    }
}
