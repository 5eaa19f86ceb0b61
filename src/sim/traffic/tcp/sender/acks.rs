//! What an acknowledgement tells the sender: a round trip, what arrived, a mark, and what was sent again in vain.
//!
//! Never does: send. It only makes room.

use super::{InFlight, Sender};
use crate::base::Instant;
use crate::sim::packet::Segment;
use crate::sim::traffic::tcp::bbr::AckSample;
use crate::sim::traffic::tcp::control::Control;
use crate::sim::traffic::tcp::index_of;

/// Recoveries for which a widened reordering window is kept.
const REORDER_KEEP: u32 = 16;

impl Sender {
    pub(in super::super) fn handle_ack(&mut self, segment: &Segment, now: Instant) {
        let ack = index_of(segment.ack, self.acked);
        self.sample_rtt(segment.echo, now);
        let (before, pipe_before, losses) = (self.acked, self.pipe, self.losses);
        let mut delivered = self.take_cumulative(ack);
        delivered += self.take_blocks(segment, ack);
        if let Some(end) = self.recovery_end
            && self.acked >= end
        {
            self.recovery_end = None;
            self.undo_left = None;
            self.control.on_recovered();
        }
        self.detect_losses(now);
        let sample = AckSample {
            acked: delivered,
            lost: self.losses - losses,
            rtt: self.rtt_last,
            pipe_before,
            pipe: self.pipe,
            ..self.deliveries.take(now)
        };
        match &mut self.control {
            Control::Bbr(bbr) => {
                bbr.on_ack(&sample, now);
                if bbr.is_probing_rtt() {
                    self.deliveries.limit(self.pipe.max(1));
                }
            }
            Control::Cubic(_) if self.recovery_end.is_some() => {
                self.reduce(delivered, self.acked > before);
            }
            Control::Cubic(cubic) if delivered > 0 && self.window_limited => {
                cubic.on_acked(delivered, self.rtt_min, now);
            }
            Control::Cubic(_) => {}
        }
        if segment.ece && self.acked >= self.ecn_end && self.recovery_end.is_none() {
            self.on_mark();
        }
        if delivered > 0 {
            self.backoff = 0;
            self.arm(now);
        }
    }

    /// The path marked a segment. BBR does not care.
    fn on_mark(&mut self) {
        let Control::Cubic(cubic) = &mut self.control else {
            return;
        };
        cubic.on_congestion();
        cubic.window = cubic.threshold;
        self.counters.marks += 1;
        self.ecn_end = self.next();
        self.send_cwr = true;
    }

    fn sample_rtt(&mut self, echo: u32, now: Instant) {
        let Some(&sent_at) = self.sent_times.get(echo as usize) else {
            return;
        };
        let rtt = now.since(sent_at);
        self.rtt_last = rtt;
        self.rtts.push((now, rtt));
        self.rtt_min = self.rtt_min.min(rtt);
        let (acked, next) = (self.acked, self.next());
        self.control.on_rtt(rtt, self.rtt_min, acked, next);
        match self.srtt {
            None => (self.srtt, self.rttvar) = (Some(rtt), rtt / 2),
            Some(srtt) => {
                self.rttvar = (self.rttvar * 3 + srtt.abs_diff(rtt)) / 4;
                self.srtt = Some((srtt * 7 + rtt) / 8);
            }
        }
    }

    /// Segments acknowledged in order; returns how many had not been acknowledged before.
    fn take_cumulative(&mut self, ack: u64) -> u64 {
        let mut delivered = 0;
        while self.acked < ack {
            let Some(entry) = self.window.pop_front() else {
                break;
            };
            let index = self.acked;
            self.acked += 1;
            if entry.sacked {
                self.sacked -= 1;
                continue;
            }
            delivered += 1;
            self.on_delivered(index, entry);
        }
        delivered
    }

    fn take_blocks(&mut self, segment: &Segment, ack: u64) -> u64 {
        let mut delivered = 0;
        for (number, &(from, to)) in segment.sack.iter().filter(|(a, b)| a != b).enumerate() {
            let (from, to) = (index_of(from, self.acked), index_of(to, self.acked));
            let inside_second = || {
                let (a, b) = segment.sack[1];
                a != b && index_of(a, self.acked) <= from && to <= index_of(b, self.acked)
            };
            if number == 0 && (to <= ack || inside_second()) {
                self.on_needless(to - from);
                continue;
            }
            for index in from.max(self.acked)..to.min(self.next()) {
                let at = usize::try_from(index - self.acked).unwrap_or(usize::MAX);
                let entry = self.window[at];
                if !entry.sacked {
                    self.window[at].sacked = true;
                    self.window[at].lost = false;
                    self.sacked += 1;
                    delivered += 1;
                    self.on_delivered(index, entry);
                }
            }
            self.highest_sacked = self.highest_sacked.max(to);
        }
        delivered
    }

    fn on_delivered(&mut self, index: u64, entry: InFlight) {
        if entry.lost {
            self.lost -= 1;
        } else {
            self.pipe -= 1;
        }
        if index < self.highest_sacked && !entry.retransmitted {
            self.reordering_seen = true;
        }
        self.newest = self.newest.max((entry.sent_at, index));
        self.deliveries.on_delivered(entry.sent_at, entry.stamp);
    }

    /// The receiver had `count` segments already: retransmissions were needless.
    fn on_needless(&mut self, count: u64) {
        self.reorder_steps = (self.reorder_steps + 1).min(255);
        self.reorder_kept = REORDER_KEEP;
        self.reordering_seen = true;
        if let Some(left) = &mut self.undo_left {
            *left = left.saturating_sub(count);
            if *left == 0 {
                self.undo();
            }
        }
    }
}
