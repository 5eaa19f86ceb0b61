//! Startup: double each round until what comes back says that it was too much.

use std::time::Duration;

use super::guard::STEP_DOWN;
use super::meter::Measured;
use super::{APP_LIMITED, LEVEL, Phase, QUEUE_HIGH, RateControl};
use crate::base::Instant;

/// Growth per round. An inner TCP doubles each RTT by itself and ends its own slow start for good when its packets wait
/// for our pacer, so the allowance grows faster than it.
const GAIN: f64 = 3.0;
/// Growth of the delay that says the round was too much, if a queue is seen too.
const SLOPE: f64 = 0.10;
/// Loss beyond this says the same where the WAN drops instead of queueing.
const SHORTFALL: f64 = 0.25;
/// Least and greatest span of packets a round is judged by, and the span in units of the jitter: at 15 the slope
/// of 20 reports is right within 0.03.
const ROUND: Duration = Duration::from_millis(25);
const ROUND_MAX: Duration = Duration::from_millis(200);
const ROUND_JITTER: f64 = 15.0;
/// A queue beyond this and the jitter is ours.
const QUEUE: f64 = 0.004;
/// A queue beyond this and twice the jitter ends the growth before the round can be judged: what a round sends too much
/// must not fill the queue and be lost.
const BRAKE: f64 = 0.006;
/// Bursts of an application make a queue that comes and goes. One seen this often in a row says enough.
const QUEUED_ROUNDS: u32 = 3;
/// What is more than heartbeats and reports (bits/s) and makes the delay grow measures a WAN that has shown nothing yet.
const MEASURABLE: f64 = 1e6;
/// An application that sends less than this share of the believed capacity does not show what the WAN carries.
const IDLE: f64 = 0.25;

impl RateControl {
    /// Judges the present round by the packets sent in it.
    pub(super) fn startup(&mut self, now: Instant) {
        let span =
            Duration::from_secs_f64(self.sight.jitter * ROUND_JITTER).clamp(ROUND, ROUND_MAX);
        // Traffic may come in bursts too short for a round; the queue that they leave is seen all the same.
        let high = self.sight.queue_min > QUEUE_HIGH + 2.0 * self.sight.jitter;
        let brake = BRAKE + 2.0 * self.sight.jitter + self.packet_time();
        if self.gain > 1.0 && self.sight.queue_last > brake && self.sight.sent_at > self.phase_at {
            self.gain = 1.0;
        }
        let Some(round) = self.meter.measure(self.phase_at, Instant::FAR) else {
            if high {
                self.schedule_probe(now);
                self.start_drain(false, now);
            }
            return;
        };
        if round.stretch() < span {
            return;
        }
        let queue = self.sight.queue_min > QUEUE + self.sight.jitter;
        let grows = round.grows(SLOPE);
        let idle = round.sent() < IDLE * self.capacity;
        if idle && (grows || queue) {
            self.judge_idle(&round, span, now);
            return;
        }
        let dropped = !idle && round.shortfall(self.usual_loss) > SHORTFALL && !grows;
        if dropped && !queue && !std::mem::replace(&mut self.doubt, true) {
            // A burst of losses looks the same in one round. What WANs without a queue drop they drop again.
            self.enter(Phase::Startup, self.gain, Instant::FAR, now);
            return;
        }
        self.doubt &= dropped;
        if grows && queue || dropped {
            self.set_capacity(round.received());
            self.quick_until = now + super::QUICK;
            self.schedule_probe(now);
            self.start_drain(false, now);
            return;
        }
        if grows && round.stretch() < span * 2 {
            return;
        }
        self.queued_rounds = if queue { self.queued_rounds + 1 } else { 0 };
        if high || queue && (round.slope > -LEVEL || self.queued_rounds >= QUEUED_ROUNDS) {
            // The application alone sends about what the WAN carries, so no round doubles anything and the delay
            // grows too slowly to see. Whose queue it is the guard finds out.
            self.set_capacity(self.shown.max(round.received().min(round.sent())));
            self.schedule_probe(now);
            self.start_drain(true, now);
            return;
        }
        let came = round.received().min(round.sent());
        let limited = !self.backlogged && round.sent() < APP_LIMITED * self.pacing();
        self.shown = self.shown.max(came);
        self.set_capacity(self.capacity.max(came));
        let gain = if limited { self.gain } else { GAIN };
        self.enter(Phase::Startup, gain, Instant::FAR, now);
    }

    /// A queue beside an application that sends much less than the WAN should carry: perhaps it carries no more, but a
    /// few heartbeats that come late or not at all are no measure of it.
    fn judge_idle(&mut self, round: &Measured, span: Duration, now: Instant) {
        if round.span < span * 2 && !round.grows(SLOPE)
            || self.sight.queue_min < QUEUE_HIGH + self.sight.jitter
        {
            return;
        }
        let received = round.received().min(round.sent());
        let sure = round.grows(SLOPE) && round.sent() > MEASURABLE && self.shown < received;
        let least = if sure { 0.0 } else { self.capacity * STEP_DOWN };
        self.set_capacity(received.max(least));
        self.schedule_probe(now);
        self.start_drain(true, now);
    }
}
