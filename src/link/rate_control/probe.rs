//! Probes: send more for a moment and see whether it comes.
//!
//! A probe is judged by the packets that were sent in it, when they are reported. Until then the WAN is sent a
//! little less, because most probes find nothing and leave a queue. An accepted one is followed at once by a
//! larger one. Also a refused one is worth something: while the delay grows, what is received is the capacity.

use std::time::Duration;

use super::{CRUISE_GAIN, LEVEL, Phase, QUEUE_HIGH, QUICK, RateControl};
use crate::base::Instant;

/// Length of a probe. Longer ones stand out better where delays vary, but take the turn from other WANs and keep a row
/// from reaching what there is before it moves on.
const SPAN: Duration = Duration::from_millis(150);
/// Packets in a probe: on a slow WAN they take their time, and its first step must be larger, because a probe is
/// seen by the queue that a few packets more than usual make.
const SPAN_PACKETS: f64 = 16.0;
const EXTRA_PACKETS: f64 = 6.0;
/// Gains of a row of accepted probes. The first is small: it happens every second on a WAN that has no more.
const GAINS: [f64; 4] = [1.06, 1.25, 1.5, 2.0];
/// With this jitter (seconds) the first step must be larger to stand out.
const JITTER_LOW: f64 = 0.001;
const GAIN_JITTER: f64 = 1.10;
/// And larger still where the capacity moves as well: what a small step finds is gone before the row is at its end.
const GAIN_MOVES: f64 = 1.25;
/// Gain between the end of a probe and its judgement.
const WAIT_GAIN: f64 = 0.92;
/// Pause between rows, varied by a fifth so that peers do not fall into step, and in the first seconds.
const PAUSE: Duration = Duration::from_millis(1_000);
const PAUSE_QUICK: Duration = Duration::from_millis(50);
/// Pause where the capacity moves: what rose is found within half a second; where delays vary as well, a fall is as often
/// a mistake, and radio links rise again within a few hundred milliseconds.
const PAUSE_MOVES: Duration = Duration::from_millis(400);
const PAUSE_VARIES: Duration = Duration::from_millis(200);
/// Pause after a refusal that ended a climb or that noise may have made.
const PAUSE_DOUBT: Duration = Duration::from_millis(400);
/// Share of the extra that may fail to come in an accepted probe.
const SHORTFALL: f64 = 0.4;
/// A probe that makes a queue (seconds) beyond this and the jitter ends early. What it makes until that is seen waits for the
/// sparse flows too: with 7 ms their 99th percentile rose by 11 ms, with 4 by 8, and the goodput was the same.
const QUEUE: f64 = 0.004;
/// A refused probe moves the capacity down by half the difference and at most this.
const STEP_DOWN: f64 = 0.9;
/// A judgement waits this much longer than an RTT for reports.
const PATIENCE: Duration = Duration::from_millis(200);

/// A finished probe whose reports are still to come.
#[derive(Clone, Copy, Debug)]
pub(super) struct PendingProbe {
    from: Instant,
    to: Instant,
    gain: f64,
    /// Sending rate it was meant to have, bits/s.
    pacing: f64,
    pub(super) until: Instant,
}

impl RateControl {
    /// Whether this WAN would like to probe. Several WANs of a session may share a bottleneck, so only one of
    /// them should: grant the turn only while no other one [`RateControl::holds_probe`].
    pub fn probe_wanted(&self, now: Instant) -> bool {
        self.phase == Phase::Cruise
            && self.backlogged
            && now >= self.next_probe_at
            && self.sight.queue_min <= self.queue_low()
            && self.capacity < self.ceiling
    }

    /// Lets a WAN probe that wants to.
    pub fn probe_grant(&mut self, now: Instant) {
        if self.probe_wanted(now) {
            self.probe_step = 0;
            self.start_probe(now);
        }
    }

    /// Whether a probe is under way or not yet judged.
    pub const fn holds_probe(&self) -> bool {
        matches!(self.phase, Phase::Probe) || self.pending.is_some()
    }

    /// The next row of probes.
    pub(super) fn schedule_probe(&mut self, now: Instant) {
        let pause = if now < self.quick_until {
            PAUSE_QUICK + self.sight.rtt
        } else if now < self.moves_until {
            if self.is_calm() {
                PAUSE_MOVES
            } else {
                PAUSE_VARIES
            }
        } else {
            PAUSE
        };
        self.next_probe_at = now + pause.mul_f64(0.8 + 0.4 * self.rng.unit());
    }

    /// Ends a probe that makes a queue.
    pub(super) fn watch_probe(&mut self, now: Instant) {
        let queue = self.sight.queue_last;
        if self.sight.sent_at > self.phase_at
            && queue > QUEUE + 2.0 * (self.sight.jitter + self.packet_time())
        {
            self.end_probe(now);
        }
    }

    /// The probe has been sent; its judgement waits for the reports.
    pub(super) fn end_probe(&mut self, now: Instant) {
        let until = now + self.sight.rtt + PATIENCE;
        self.pending = Some(PendingProbe {
            from: self.phase_at,
            to: now,
            gain: self.gain,
            pacing: self.pacing().min(self.ceiling),
            until,
        });
        self.enter(Phase::Drain, WAIT_GAIN, until, now);
    }

    /// Judges a finished probe once all of it is reported.
    pub(super) fn judge_probe(&mut self, now: Instant) {
        let Some(probe) = self.pending else { return };
        let alarm = self.sight.queue_min > QUEUE_HIGH + 2.0 * self.sight.jitter;
        if self.sight.sent_at < probe.to && now < probe.until && !alarm {
            return;
        }
        self.pending = None;
        self.schedule_probe(now);
        let Some(seen) = self.meter.measure(probe.from, probe.to) else {
            self.end_drain(now);
            return;
        };
        let received = seen.received() / (1.0 - self.usual_loss);
        let came = received.min(seen.sent());
        let allowed = SHORTFALL * (probe.gain - 1.0) / probe.gain;
        let accepted = seen.shortfall(self.usual_loss) < allowed;
        if accepted {
            if came > self.capacity {
                self.quick_until = now + QUICK;
            }
            self.set_capacity(self.capacity.max(came));
            let filled = seen.sent() > (1.0 - allowed) * probe.pacing;
            if filled && self.backlogged && self.capacity < self.ceiling {
                self.probe_step += 1;
                self.start_probe(now);
            } else {
                self.end_drain(now);
            }
            return;
        }
        let climbing = self.probe_step > 0;
        if !climbing && !self.is_calm() {
            // It stands still: what looked like a move was a delay.
            self.moves_until = now;
        }
        let doubtful = !seen.grows(allowed);
        if climbing || doubtful {
            self.next_probe_at = self.next_probe_at.min(now + self.sight.rtt + PAUSE_DOUBT);
        }
        if received > self.capacity {
            self.set_capacity(came);
        } else if seen.grows(LEVEL) && !self.shows_little(&seen, probe.pacing) {
            let half = f64::midpoint(self.capacity, received);
            self.set_capacity(half.max(self.capacity * STEP_DOWN));
        }
        self.start_drain(false, now);
    }

    fn start_probe(&mut self, now: Instant) {
        let mut gain = GAINS[self.probe_step.min(GAINS.len() - 1)];
        if !self.is_calm() && now < self.moves_until {
            gain = gain.max(GAIN_MOVES);
        } else if self.sight.jitter > JITTER_LOW {
            gain = gain.max(GAIN_JITTER);
        }
        let extra = EXTRA_PACKETS * self.packet_time() / SPAN.as_secs_f64();
        gain = gain.max(1.0 + extra.min(1.0));
        let packets = Duration::from_secs_f64(SPAN_PACKETS * self.packet_time() / gain);
        let span = SPAN.max(packets);
        debug_assert!(
            gain > CRUISE_GAIN,
            "a probe must send more than cruising does"
        );
        self.enter(Phase::Probe, gain, now + span, now);
    }
}
