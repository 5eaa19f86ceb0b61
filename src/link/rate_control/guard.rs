//! The guard of the queue: sees one that stands, sends less until it is gone, and learns the capacity meanwhile.
//!
//! ```text
//!   queue now = queue of the newest report's packet + bits sent since / capacity - time since
//! ```
//!
//! What reports show is a round trip old. The guard acts on the prediction above, so that a drain ends when the
//! queue does and not a round trip later.

use std::time::Duration;

use super::meter::Measured;
use super::surge::MOVES;
use super::{APP_LIMITED, CRUISE_GAIN, LEVEL, PACKET_BITS, Phase, QUEUE_HIGH, QUICK, RateControl};
use crate::base::Instant;

/// A queue above this (and a part of the jitter) is drained.
const QUEUE_LOW: f64 = 0.004;
/// What of the jitter adds to [`QUEUE_LOW`].
const JITTER_SHARE: f64 = 0.3;
/// A queue that is gone.
const QUEUE_GONE: f64 = 0.001;
/// Gain of a gentle drain, least gain of a hard one, and the queue that makes the whole difference, in seconds.
const GAIN: f64 = 0.92;
const GAIN_MIN: f64 = 0.4;
const TAU: f64 = 0.1;
/// No drain is planned for longer than this.
const DRAIN_MAX: Duration = Duration::from_secs(1);
/// Spans of packets the guard judges by: usually, when the queue is high, and in units of the jitter.
const WINDOW: Duration = Duration::from_millis(100);
pub(super) const WINDOW_HIGH: Duration = Duration::from_millis(50);
const WINDOW_JITTER: f64 = 20.0;
/// Reports that a judgement needs, and one more because the window's edge falls between two.
const WINDOW_REPORTS: f64 = 4.0;
/// Packets that a judgement needs; on a slow WAN they take their time.
const WINDOW_PACKETS: f64 = 10.0;
const WINDOW_MAX: Duration = Duration::from_millis(300);
/// Time between two calibrations against a standing queue.
pub(super) const CALIBRATION_PAUSE: Duration = Duration::from_millis(30);
/// One calibration moves the capacity within these factors, and by this share of the difference.
pub(super) const STEP_DOWN: f64 = 0.75;
const STEP_UP: f64 = 1.05;
const SHARE: f64 = 0.4;
/// A fall to less than this share marks a WAN whose capacity moves: it is probed more often for a while.
pub(super) const VOLATILE: f64 = 0.95;
/// Loss beyond the usual that says, under a standing queue, that the queue is full.
const FULL_LOSS: f64 = 0.1;
/// Growth so steep that the measured capacity is taken whole.
pub(super) const STEEP: f64 = 0.2;
/// A queue that stays level is met with this much less before it is believed to be somebody else's.
const DOUBT_GAIN: f64 = 0.85;
/// A change of the capacity by more than this starts the test for a foreign queue again.
const CHANGED: f64 = 0.01;
/// Delays wander by so many times what is taken for the jitter: half of what they usually differ by.
const WANDER: f64 = 4.0;
/// Weight of 100 ms in the usual loss.
const LOSS_GAIN: f64 = 0.1;
/// No loss beyond this is usual.
const LOSS_MAX: f64 = 0.3;

/// A drain under way: what its effect is compared with.
#[derive(Clone, Copy, Debug)]
pub(super) struct DrainTest {
    /// Packets sent from here on were sent at the present gain or less.
    from: Instant,
    /// The delay did not grow before, so the queue may not be ours.
    level: bool,
    /// Factor on the gain while in doubt.
    doubt: f64,
}

impl RateControl {
    /// A queue that the guard does something about.
    pub(super) fn queue_low(&self) -> f64 {
        QUEUE_LOW + JITTER_SHARE * self.sight.jitter + self.packet_time()
    }

    /// How long one packet occupies the WAN, in seconds: no queue can be judged finer.
    pub(super) fn packet_time(&self) -> f64 {
        PACKET_BITS / self.capacity
    }

    /// The queue that a packet sent now will meet, in seconds.
    pub(super) fn predicted_queue(&self, now: Instant) -> f64 {
        let since = now.since(self.sight.sent_at).as_secs_f64();
        let sent = self.meter.in_flight_bits() / self.capacity;
        (self.sight.queue_last + sent - since).max(0.0)
    }

    /// Looks for a standing queue while cruising.
    pub(super) fn guard(&mut self, now: Instant) {
        let low = self.queue_low();
        if self.sight.queue_min <= low {
            self.learn_loss(now);
            return;
        }
        if self.predicted_queue(now) <= low / 2.0 {
            return;
        }
        let Some(seen) = self.look(self.window(), Instant::ZERO) else {
            return;
        };
        self.lower(&seen, now);
        self.start_drain(!self.overloads(&seen), now);
    }

    /// Sends less until the queue is gone. `level`: it did not grow, so it may not be ours.
    pub(super) fn start_drain(&mut self, level: bool, now: Instant) {
        self.drain = Some(DrainTest {
            from: now,
            level,
            doubt: 1.0,
        });
        self.plan_drain(now);
    }

    /// While draining: calibrates, plans anew, and finds out whether the queue is ours.
    pub(super) fn watch_drain(&mut self, now: Instant) {
        if self.pending.is_some() {
            return;
        }
        let before = self.capacity;
        self.calibrate(now);
        let Some(mut test) = self.drain else { return };
        if (self.capacity / before - 1.0).abs() > CHANGED {
            // What was sent before was sent at another rate and shows nothing about this one.
            test = DrainTest {
                from: now,
                level: false,
                ..test
            };
            self.drain = Some(test);
        }
        if self.predicted_queue(now) < QUEUE_GONE + self.packet_time() / 2.0 {
            self.end_drain(now);
            return;
        }
        if let Some(seen) = self.meter.measure(test.from, Instant::FAR)
            && seen.span >= self.window()
            && seen.slope.abs() < LEVEL
            && !self.overloads(&seen)
            && self.sight.queue_min > self.queue_low()
        {
            if test.level {
                self.sight.take_as_zero();
                self.end_drain(now);
                return;
            }
            let doubt = test.doubt * DOUBT_GAIN;
            self.drain = Some(DrainTest {
                from: now,
                level: true,
                doubt,
            });
        }
        self.plan_drain(now);
    }

    /// Back to cruising.
    pub(super) fn end_drain(&mut self, now: Instant) {
        self.drain = None;
        self.enter(Phase::Cruise, CRUISE_GAIN, Instant::FAR, now);
    }

    /// Gain and end of a drain by the queue that is predicted now.
    fn plan_drain(&mut self, now: Instant) {
        let queue = self.predicted_queue(now);
        let doubt = self.drain.map_or(1.0, |test| test.doubt);
        let gain = (1.0 - (queue - QUEUE_LOW / 2.0) / TAU).clamp(GAIN_MIN, GAIN) * doubt;
        let lasts = Duration::from_secs_f64(queue / (1.0 - gain)).min(DRAIN_MAX);
        self.enter(Phase::Drain, gain, now + lasts, now);
    }

    /// Span of packets that a judgement needs: more with jitter or rare reports, less when it is urgent.
    fn window(&self) -> Duration {
        let least = if self.sight.queue_min > QUEUE_HIGH {
            WINDOW_HIGH
        } else {
            WINDOW
        };
        let noise = (self.sight.jitter * WINDOW_JITTER).max(self.sight.spacing * WINDOW_REPORTS);
        let packets = Duration::from_secs_f64(WINDOW_PACKETS * self.packet_time());
        Duration::from_secs_f64(noise)
            .clamp(least, WINDOW_MAX)
            .max(packets)
    }

    /// What packets of the last `span` brought, not before `since`; of a longer span if too few were reported.
    fn look(&self, span: Duration, since: Instant) -> Option<Measured> {
        [1, 2, 4].into_iter().find_map(|times| {
            let from = since.max(self.sight.sent_at - span * times);
            self.meter.measure(from, Instant::FAR)
        })
    }

    /// Takes the receiving rate under a standing queue for the capacity.
    fn calibrate(&mut self, now: Instant) {
        let Some(since) = self.sight.standing_since else {
            return;
        };
        if now.since(self.calibrated_at) < CALIBRATION_PAUSE {
            return;
        }
        let window = self.window();
        let Some(seen) = self.look(window.max(WINDOW), since) else {
            return;
        };
        // A level delay says only how much was sent, and a steep fall is a bunch after a pause. The window's
        // edge falls between two reports, so the span is a little shorter.
        let overloaded = self.overloads(&seen);
        let level = seen.slope.abs() < LEVEL + seen.error && !overloaded;
        if seen.span < window.mul_f64(0.7) || level || seen.slope < -0.4 {
            return;
        }
        self.calibrated_at = now;
        if seen.slope > 0.0 || overloaded {
            self.lower(&seen, now);
            return;
        }
        let target = (seen.received() / (1.0 - self.usual_loss))
            .clamp(self.capacity * STEP_DOWN, self.capacity * STEP_UP);
        self.set_capacity(self.capacity + SHARE * (target - self.capacity));
    }

    /// Whether surely more was sent than the WAN carries: the delay grew, or the queue was full and dropped.
    fn overloads(&self, seen: &Measured) -> bool {
        let full = self.sight.queue_min > self.queue_low();
        seen.grows(LEVEL) || full && seen.loss > self.usual_loss + FULL_LOSS
    }

    /// Lowers the capacity to what was received, if surely more was sent than that.
    fn lower(&mut self, seen: &Measured, now: Instant) {
        if !self.overloads(seen) {
            return;
        }
        if self.shows_little(seen, self.pacing()) {
            return;
        }
        let received = seen.received_at_most() / (1.0 - self.usual_loss);
        let share = if seen.grows(STEEP) { 1.0 } else { 0.5 };
        let target = self.capacity + share * (received - self.capacity).min(0.0);
        let lowered = target.max(self.capacity * STEP_DOWN);
        if lowered < self.capacity * VOLATILE {
            self.quick_until = now + QUICK;
            if !self.is_calm() {
                self.moves_until = now + MOVES;
            }
        }
        self.set_capacity(lowered);
    }

    /// Whether so much less was sent than might have been that a delay grows by itself as likely as by ours. A queue beyond
    /// what delays vary by says more.
    pub(super) fn shows_little(&self, seen: &Measured, pacing: f64) -> bool {
        seen.sent() < APP_LIMITED * pacing
            && self.sight.queue_min < QUEUE_HIGH + WANDER * self.sight.jitter
    }

    /// What is lost without a queue and without a probe is usual.
    fn learn_loss(&mut self, now: Instant) {
        if now.since(self.loss_at) < WINDOW {
            return;
        }
        let from = self.phase_at.max(self.sight.sent_at - 2 * WINDOW);
        let Some(seen) = self.meter.measure(from, Instant::FAR) else {
            return;
        };
        if seen.span < WINDOW {
            return;
        }
        self.loss_at = now;
        self.usual_loss += LOSS_GAIN * (seen.loss.min(LOSS_MAX) - self.usual_loss);
    }
}
