//! What is lost (RACK, RFC 8985), and how much may leave while it is made good (proportional rate reduction, RFC 6937).
//!
//! Never does: take a loss back by itself. That a recovery was none is shown by acknowledgements (`acks`).

use std::time::Duration;

use super::Sender;
use crate::base::Instant;
use crate::sim::traffic::tcp::control::Control;

/// Selective acknowledgements beyond a hole that make it a loss until the path has been seen to reorder.
const DUPLICATES: u64 = 3;

impl Sender {
    pub(super) fn undo(&mut self) {
        self.counters.undone += 1;
        self.control.undo();
        self.recovery_end = None;
        self.undo_left = None;
    }

    fn reorder_window(&self) -> Duration {
        if !self.reordering_seen && (self.recovery_end.is_some() || self.sacked >= DUPLICATES) {
            return Duration::ZERO;
        }
        (self.rtt_min / 4 * self.reorder_steps).min(self.srtt.unwrap_or_default())
    }

    pub(super) fn detect_losses(&mut self, now: Instant) {
        self.loss_at = None;
        let window = self.reorder_window();
        let limit = self.rtt_last + window;
        let (mut found, mut seen_open) = (false, 0);
        for (index, entry) in (self.acked..).zip(&mut self.window) {
            if entry.sacked || entry.lost {
                continue;
            }
            if (entry.sent_at, index) >= self.newest {
                // Later ones are younger, but for retransmissions, of which there are few.
                seen_open += 1;
                if seen_open > 64 {
                    break;
                }
                continue;
            }
            if now >= entry.sent_at + limit {
                entry.lost = true;
                self.lost += 1;
                self.losses += 1;
                self.pipe -= 1;
                found = true;
            } else {
                let due = entry.sent_at + limit;
                self.loss_at = Some(self.loss_at.map_or(due, |at| at.min(due)));
            }
        }
        if found && self.recovery_end.is_none() {
            self.enter_recovery();
        }
    }

    pub(super) fn enter_recovery(&mut self) {
        self.counters.recoveries += 1;
        self.window_before = self.control.window();
        self.control.on_recovery(self.pipe, self.deliveries.count());
        self.recovery_end = Some(self.next());
        (self.prr_delivered, self.prr_out) = (0, 0);
        self.undo_left = Some(0);
        self.reorder_kept = self.reorder_kept.saturating_sub(1);
        if self.reorder_kept == 0 {
            self.reorder_steps = 1;
        }
    }

    /// Proportional rate reduction.
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss
    )]
    pub(super) fn reduce(&mut self, delivered: u64, advanced: bool) {
        let Control::Cubic(cubic) = &mut self.control else {
            return;
        };
        self.prr_delivered += delivered;
        let threshold = cubic.threshold;
        let allowed = if self.pipe as f64 > threshold {
            let share = self.prr_delivered as f64 * threshold / self.window_before.max(1.0);
            (share.ceil() as u64).saturating_sub(self.prr_out)
        } else {
            let behind = self
                .prr_delivered
                .saturating_sub(self.prr_out)
                .max(delivered);
            let room = (threshold as u64).saturating_sub(self.pipe);
            room.min(behind + u64::from(advanced))
        };
        // Something must leave when the recovery begins, or nothing ever comes back.
        let least = u64::from(self.prr_out == 0);
        cubic.window = (self.pipe + allowed.max(least)) as f64;
    }
}
