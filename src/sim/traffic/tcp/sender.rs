//! The sending end of a TCP: what is in flight, what is lost (RFC 8985), how much may leave (RFC 6937).

use std::collections::VecDeque;
use std::time::Duration;

use super::bbr::AckSample;
use super::control::{Control, Deliveries, Stamp};
use super::{TcpConfig, index_of, seq_of};
use crate::base::Instant;
use crate::sim::packet::{MSS, Segment};

/// Floor of the retransmission timeout over the smoothed RTT, as Linux has it.
const RTO_MIN: Duration = Duration::from_millis(200);
/// Before the first RTT sample.
const RTO_INITIAL: Duration = Duration::from_secs(1);
/// Selective acknowledgements beyond a hole that make it a loss until the path has been seen to reorder.
const DUPLICATES: u64 = 3;
/// Recoveries for which a widened reordering window is kept.
const REORDER_KEEP: u32 = 16;

/// What a sender did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpCounters {
    /// Segments sent again.
    pub retransmitted: u64,
    /// Recoveries begun by loss detection.
    pub recoveries: u64,
    /// Recoveries that turned out to be none.
    pub undone: u64,
    /// Retransmission timeouts.
    pub timeouts: u64,
    /// Window reductions asked for by ECN.
    pub marks: u64,
}

#[derive(Clone, Copy, Debug)]
struct InFlight {
    sent_at: Instant,
    sacked: bool,
    lost: bool,
    retransmitted: bool,
    stamp: Stamp,
}

#[derive(Debug)]
pub(super) struct Sender {
    config: TcpConfig,
    /// First segment not acknowledged; `window[i]` is segment `acked + i`.
    acked: u64,
    window: VecDeque<InFlight>,
    /// In flight: sent, and neither acknowledged nor taken for lost.
    pipe: u64,
    sacked: u64,
    lost: u64,
    /// Send time of each frame by number.
    sent_times: Vec<Instant>,
    control: Control,
    deliveries: Deliveries,
    /// When the pacer lets the next segment go.
    next_send_at: Instant,
    /// Segments taken for lost so far.
    losses: u64,
    srtt: Option<Duration>,
    rttvar: Duration,
    rtt_min: Duration,
    rtt_last: Duration,
    /// Time and length of each round trip.
    rtts: Vec<(Instant, Duration)>,
    /// Send time and segment of the newest delivery.
    newest: (Instant, u64),
    highest_sacked: u64,
    reordering_seen: bool,
    reorder_steps: u32,
    reorder_kept: u32,
    recovery_end: Option<u64>,
    prr_delivered: u64,
    prr_out: u64,
    window_before: f64,
    /// Retransmissions of this recovery not yet shown to be needless; `None` when it cannot be undone.
    undo_left: Option<u64>,
    ecn_end: u64,
    send_cwr: bool,
    window_limited: bool,
    loss_at: Option<Instant>,
    rto_at: Option<Instant>,
    probe_at: Option<Instant>,
    backoff: u32,
    counters: TcpCounters,
}

impl Sender {
    pub(super) fn new(config: TcpConfig) -> Self {
        Self {
            control: Control::new(config.control),
            deliveries: Deliveries::default(),
            next_send_at: Instant::ZERO,
            losses: 0,
            config,
            acked: 0,
            window: VecDeque::new(),
            pipe: 0,
            sacked: 0,
            lost: 0,
            sent_times: Vec::new(),
            srtt: None,
            rttvar: Duration::ZERO,
            rtt_min: Duration::MAX,
            rtt_last: Duration::ZERO,
            rtts: Vec::new(),
            newest: (Instant::ZERO, 0),
            highest_sacked: 0,
            reordering_seen: false,
            reorder_steps: 1,
            reorder_kept: 0,
            recovery_end: None,
            prr_delivered: 0,
            prr_out: 0,
            window_before: 0.0,
            undo_left: None,
            ecn_end: 0,
            send_cwr: false,
            window_limited: false,
            loss_at: None,
            rto_at: None,
            probe_at: None,
            backoff: 0,
            counters: TcpCounters::default(),
        }
    }

    pub(super) const fn counters(&self) -> &TcpCounters {
        &self.counters
    }

    pub(super) fn window(&self) -> (f64, Duration) {
        (self.control.window(), self.srtt.unwrap_or_default())
    }

    pub(super) fn rtts(&self) -> &[(Instant, Duration)] {
        &self.rtts
    }

    pub(super) const fn stop(&mut self) {
        self.config.segments_max = 0;
    }

    fn next(&self) -> u64 {
        self.acked + self.window.len() as u64
    }

    pub(super) fn handle_ack(&mut self, segment: &Segment, now: Instant) {
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
            Control::Bbr(bbr) => bbr.on_ack(&sample, now),
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

    fn undo(&mut self) {
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

    fn detect_losses(&mut self, now: Instant) {
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

    fn enter_recovery(&mut self) {
        self.counters.recoveries += 1;
        self.window_before = self.control.window();
        self.control.on_recovery(self.pipe);
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
    fn reduce(&mut self, delivered: u64, advanced: bool) {
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

    fn arm(&mut self, now: Instant) {
        if self.window.is_empty() {
            (self.rto_at, self.probe_at) = (None, None);
            return;
        }
        let rto = self
            .srtt
            .map_or(RTO_INITIAL, |srtt| srtt + (self.rttvar * 4).max(RTO_MIN));
        self.rto_at = Some(now + rto * 2_u32.pow(self.backoff.min(8)));
        self.probe_at = match self.srtt {
            Some(srtt) if self.recovery_end.is_none() && self.lost == 0 => {
                Some(now + srtt * 2 + Duration::from_millis(2))
            }
            _ => None,
        };
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.loss_at.is_some_and(|at| now >= at) {
            self.detect_losses(now);
        }
        if self.probe_at.take_if(|at| now >= *at).is_some() {
            // Tail loss probe: the last segment again.
            if let Some(last) = self
                .window
                .back_mut()
                .filter(|last| !last.sacked && !last.lost)
            {
                last.lost = true;
                self.lost += 1;
                self.pipe -= 1;
                self.control.widen((self.pipe + 1) as f64);
            }
        }
        if self.rto_at.is_some_and(|at| now >= at) {
            self.counters.timeouts += 1;
            self.backoff += 1;
            for entry in self
                .window
                .iter_mut()
                .filter(|entry| !entry.sacked && !entry.lost)
            {
                entry.lost = true;
                self.lost += 1;
                self.pipe -= 1;
            }
            if self.recovery_end.is_none() {
                self.enter_recovery();
            }
            self.recovery_end = None;
            self.control.on_timeout();
            self.arm(now);
        }
    }

    pub(super) fn poll_timeout(&self) -> Instant {
        let sending = if self.may_send() {
            self.next_send_at
        } else {
            Instant::FAR
        };
        [self.loss_at, self.rto_at, self.probe_at]
            .into_iter()
            .flatten()
            .fold(sending, Instant::min)
    }

    fn has_data(&self) -> bool {
        self.next() < self.config.segments_max
    }

    #[allow(clippy::cast_precision_loss)]
    fn may_send(&self) -> bool {
        (self.lost > 0 || self.has_data()) && (self.pipe as f64) + 1.0 <= self.control.window()
    }

    pub(super) fn poll_segment(&mut self, now: Instant) -> Option<Segment> {
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
