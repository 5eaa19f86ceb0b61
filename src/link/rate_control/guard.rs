//! The guard of the queue: sees one that stands, sends less until it is gone, and learns the capacity meanwhile.
//!
//! A drain is planned from the queue and the gain and not ended by what is seen, because what is seen is a round
//! trip old; then the guard looks away until the plan's effect can be seen.

use std::time::Duration;

use super::meter::Measured;
use super::{APP_LIMITED, CRUISE_GAIN, LEVEL, Phase, QUEUE_LAG, RateControl};
use crate::base::Instant;

/// A queue above this (and a part of the jitter) is drained; above `QUEUE_HIGH` the application's pace is no excuse.
const QUEUE_LOW: f64 = 0.004;
const QUEUE_HIGH: f64 = 0.020;
/// What of the jitter adds to [`QUEUE_LOW`].
const JITTER_SHARE: f64 = 0.3;
/// A queue that is gone.
const QUEUE_GONE: f64 = 0.001;
/// Gain of a gentle drain, least gain of a hard one, and the queue that makes the whole difference, in seconds.
const GAIN: f64 = 0.92;
const GAIN_MIN: f64 = 0.5;
const TAU: f64 = 0.2;
/// A drain is judged again after at most this long.
const DRAIN_MAX: Duration = Duration::from_secs(1);
/// Spans of packets the guard judges by: usually, and when the queue is high.
const WINDOW: Duration = Duration::from_millis(100);
const WINDOW_HIGH: Duration = Duration::from_millis(50);
/// Least span of packets that a standing queue is calibrated by, and the time between two calibrations.
const CALIBRATION: Duration = Duration::from_millis(60);
const CALIBRATION_PAUSE: Duration = Duration::from_millis(30);
/// One calibration moves the capacity within these factors, and by this share of the difference.
const STEP_DOWN: f64 = 0.75;
const STEP_UP: f64 = 1.05;
const SHARE: f64 = 0.4;
/// Growth so steep that the measured capacity is taken whole.
const STEEP: f64 = 0.2;
/// Share of the queue that must be left after a drain for it to be somebody else's.
const LEFT: f64 = 0.6;
/// Weight of 100 ms in the usual loss.
const LOSS_GAIN: f64 = 0.1;
/// No loss beyond this is usual.
const LOSS_MAX: f64 = 0.3;

/// A drain under way or just over: what its effect is compared with.
#[derive(Clone, Copy, Debug)]
pub(super) struct DrainTest {
    /// Packets sent from here on were sent in the drain.
    from: Instant,
    /// Queue when it began, seconds.
    queue: f64,
    /// The delay did not grow when it began, so the queue may not be ours.
    level: bool,
}

impl RateControl {
    /// A queue that the guard does something about.
    pub(super) fn queue_low(&self) -> f64 {
        QUEUE_LOW + JITTER_SHARE * self.sight.jitter
    }

    /// Looks for a standing queue while cruising.
    pub(super) fn guard(&mut self, now: Instant) {
        let queue = self.sight.queue_min;
        if queue <= self.queue_low() {
            self.drain = None;
            self.learn_loss(now);
            return;
        }
        if now < self.guard_from {
            return;
        }
        if self.drain.take().is_some_and(|test| self.is_foreign(&test)) {
            self.sight.take_as_zero();
            return;
        }
        let span = if queue > QUEUE_HIGH {
            WINDOW_HIGH
        } else {
            WINDOW
        };
        let Some(seen) = self.meter.measure(self.sight.sent_at - span, Instant::FAR) else {
            return;
        };
        self.lower(&seen);
        self.start_drain(queue, seen.slope < LEVEL, now);
    }

    /// Sends less for as long as `queue` seconds (and what is on its way to make it longer) need to pass.
    pub(super) fn start_drain(&mut self, queue: f64, level: bool, now: Instant) {
        let unseen = now.since(self.sight.sent_at).as_secs_f64();
        let excess = if self.backlogged {
            (self.sending / self.capacity - 1.0).max(0.0)
        } else {
            0.0
        };
        let queue = queue + excess.min(1.0) * unseen;
        let gain = (1.0 - (queue - QUEUE_LOW / 2.0) / TAU).clamp(GAIN_MIN, GAIN);
        let lasts = Duration::from_secs_f64(queue / (1.0 - gain)).min(DRAIN_MAX);
        self.drain = Some(DrainTest {
            from: now,
            queue,
            level,
        });
        self.enter(Phase::Drain, gain, now + lasts, now);
    }

    /// While draining: calibrates, and plans anew when the queue still grows.
    pub(super) fn watch_drain(&mut self, now: Instant) {
        if self.pending.is_some() {
            return;
        }
        let before = self.capacity;
        let grows = self.calibrate(now);
        if grows && self.capacity < before * 0.95 {
            self.start_drain(self.sight.queue_min, false, now);
        } else if self.sight.queue_last < QUEUE_GONE && self.sight.sent_at > self.phase_at {
            self.end_drain(now);
        }
    }

    /// Back to cruising. The guard waits until the drain's end can be seen.
    pub(super) fn end_drain(&mut self, now: Instant) {
        self.guard_from = now + self.sight.rtt + QUEUE_LAG;
        self.enter(Phase::Cruise, CRUISE_GAIN, Instant::FAR, now);
    }

    /// Takes the receiving rate under a standing queue for the capacity; true when the queue still grew.
    fn calibrate(&mut self, now: Instant) -> bool {
        let Some(since) = self.sight.standing_since else {
            return false;
        };
        if now.since(self.calibrated_at) < CALIBRATION_PAUSE {
            return false;
        }
        let from = since.max(self.sight.sent_at - WINDOW);
        let Some(seen) = self.meter.measure(from, Instant::FAR) else {
            return false;
        };
        // A level delay says only how much was sent, and a steep fall is a bunch after a pause.
        if seen.span < CALIBRATION || seen.slope.abs() < LEVEL || seen.slope < -0.4 {
            return false;
        }
        self.calibrated_at = now;
        if seen.slope > 0.0 {
            self.lower(&seen);
            return true;
        }
        let target = (seen.received() / (1.0 - self.usual_loss))
            .clamp(self.capacity * STEP_DOWN, self.capacity * STEP_UP);
        self.set_capacity(self.capacity + SHARE * (target - self.capacity));
        false
    }

    /// Lowers the capacity to what was received, if more was sent than that.
    fn lower(&mut self, seen: &Measured) {
        if seen.slope < LEVEL {
            return;
        }
        let limited = !self.backlogged && seen.sent() < APP_LIMITED * self.pacing();
        if limited && self.sight.queue_min < QUEUE_HIGH {
            return;
        }
        let received = seen.received() / (1.0 - self.usual_loss);
        let share = if seen.slope > STEEP { 1.0 } else { 0.5 };
        let target = self.capacity + share * (received - self.capacity).min(0.0);
        self.set_capacity(target.max(self.capacity * STEP_DOWN));
    }

    /// Whether the queue outlived a drain that should have ended it, with a level delay before and in it.
    fn is_foreign(&self, test: &DrainTest) -> bool {
        let Some(seen) = self.meter.measure(test.from, Instant::FAR) else {
            return false;
        };
        test.level
            && seen.span >= CALIBRATION
            && seen.slope.abs() < LEVEL
            && self.sight.queue_min > LEFT * test.queue
    }

    /// What is lost without a queue is usual.
    fn learn_loss(&mut self, now: Instant) {
        if now.since(self.loss_at) < WINDOW {
            return;
        }
        let Some(seen) = self
            .meter
            .measure(self.sight.sent_at - 2 * WINDOW, Instant::FAR)
        else {
            return;
        };
        self.loss_at = now;
        self.usual_loss += LOSS_GAIN * (seen.loss.min(LOSS_MAX) - self.usual_loss);
    }
}
