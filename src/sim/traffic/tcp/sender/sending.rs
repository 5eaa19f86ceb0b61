//! What leaves next: a segment that was lost, or new ones, as many as the window and the pacer allow.
//!
//! Never does: decide about the window.

use std::time::Duration;

use super::{InFlight, Sender};
use crate::base::Instant;
use crate::sim::packet::{MSS, Segment};
use crate::sim::traffic::tcp::control::Control;
use crate::sim::traffic::tcp::seq_of;

impl Sender {
    pub(super) fn has_data(&self) -> bool {
        self.next() < self.config.segments_max
    }

    #[allow(clippy::cast_precision_loss)]
    pub(super) fn may_send(&self) -> bool {
        (self.lost > 0 || self.has_data()) && (self.pipe as f64) + 1.0 <= self.control.window()
    }

    pub(in super::super) fn poll_segment(&mut self, now: Instant) -> Option<Segment> {
        if !self.may_send() {
            self.window_limited |= self.lost > 0 || self.has_data();
            return None;
        }
        if now < self.next_send_at {
            return None;
        }
        let number = u32::try_from(self.sent_times.len()).unwrap_or(u32::MAX);
        let (first, count) = if self.lost > 0 {
            (self.send_again(now)?, 1)
        } else {
            self.send_new(now)
        };
        self.sent_times.push(now);
        self.pace(count, now);
        self.prr_out += count;
        if self.rto_at.is_none() {
            self.arm(now);
        }
        Some(Segment {
            seq: seq_of(first),
            bytes: usize::try_from(count).unwrap_or(0) * MSS,
            number,
            ecn_capable: self.config.ecn,
            cwr: std::mem::take(&mut self.send_cwr),
            ..Segment::default()
        })
    }

    /// Half a frame's time may be caught up on, as Linux' own pacing has it.
    #[allow(clippy::cast_precision_loss)]
    fn pace(&mut self, count: u64, now: Instant) {
        if let Control::Bbr(bbr) = &self.control {
            let time = Duration::from_secs_f64(count as f64 / bbr.pace());
            let behind = now.since(self.next_send_at).min(time / 2);
            self.next_send_at = now + (time - behind);
        }
    }

    fn send_again(&mut self, now: Instant) -> Option<u64> {
        let at = self.window.iter().position(|entry| entry.lost)?;
        self.window[at] = InFlight {
            sent_at: now,
            sacked: false,
            lost: false,
            retransmitted: true,
            stamp: self.deliveries.on_sent(now, false),
        };
        self.lost -= 1;
        self.pipe += 1;
        self.counters.retransmitted += 1;
        if let Some(left) = &mut self.undo_left {
            *left += 1;
        }
        Some(self.acked + at as u64)
    }

    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss
    )]
    fn send_new(&mut self, now: Instant) -> (u64, u64) {
        let mut room = (self.control.window() - self.pipe as f64) as u64;
        if let Control::Bbr(bbr) = &self.control {
            room = room.min(bbr.frame_segments() as u64);
        }
        let left = self.config.segments_max - self.next();
        let count = room
            .min(left)
            .min(self.config.superframe_segments as u64)
            .max(1);
        let first = self.next();
        let stamp = self.deliveries.on_sent(now, self.window.is_empty());
        for _ in 0..count {
            self.window.push_back(InFlight {
                sent_at: now,
                sacked: false,
                lost: false,
                retransmitted: false,
                stamp,
            });
        }
        self.pipe += count;
        self.window_limited = self.pipe as f64 + 1.0 > self.control.window();
        (first, count)
    }
}
