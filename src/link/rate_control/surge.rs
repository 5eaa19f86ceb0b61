//! A steep fall of the capacity: believed at once, or what is sent within one round trip fills the queue.
//!
//! ```text
//!  capacity ──────┐                       ┌── steep: the growing delay shows the new capacity, whatever is sent
//!                 └──────────────         │
//!  delay    _______/‾‾‾‾ 1.5 ms a ms ─────┘
//! ```
//!
//! Never does: believe one in what delays vary by without us. Where they hardly vary, half the packets are enough, a
//! second look follows the first one at once, and a probe under way is no excuse.

use std::time::Duration;

use super::guard::{CALIBRATION_PAUSE, STEEP, VOLATILE, WINDOW_HIGH};
use super::meter::Measured;
use super::{Phase, QUICK, RateControl};
use crate::base::Instant;

/// A queue beyond this and twice the jitter (seconds), and arrivals over this long, show a steep fall.
const QUEUE: f64 = 0.012;
const STRETCH: Duration = Duration::from_millis(35);
/// One steep fall is believed down to this share; where delays vary, to less: half of it may be a delay's.
const DOWN: f64 = 0.4;
const DOWN_VARIES: f64 = 0.7;
/// Delays that vary by less than this (seconds) show a fall in few packets.
const CALM: f64 = 0.003;
/// What fell steeply, or at all where delays vary, may rise as steeply: it is probed more often for this long.
pub(super) const MOVES: Duration = Duration::from_secs(10);

impl RateControl {
    /// Whether a steep fall may be looked for: not in startup, which has its own brake.
    pub(super) fn may_surge(&self) -> bool {
        match self.phase {
            Phase::Drain | Phase::Cruise => self.pending.is_none() || self.is_calm(),
            Phase::Probe => self.is_calm(),
            Phase::Startup | Phase::Frozen => false,
        }
    }

    /// A queue that is high and surely growing arrives at the new capacity, however short the burst that made it. Says
    /// whether there was one.
    pub(super) fn surge(&mut self, now: Instant) -> bool {
        let high = QUEUE + 2.0 * self.sight.jitter + self.packet_time();
        let too_soon = if self.is_calm() {
            now.since(self.surged_at) < CALIBRATION_PAUSE
        } else {
            now.since(self.calibrated_at) < self.sight.rtt
        };
        if self.sight.queue_last < high || too_soon {
            return false;
        }
        let half = self.is_calm().then_some(WINDOW_HIGH / 2);
        let spans = [half, Some(WINDOW_HIGH)];
        let Some(seen) = spans.into_iter().flatten().find_map(|s| self.steep(s)) else {
            return false;
        };
        let received = seen.received_at_most() / (1.0 - self.usual_loss);
        if received > self.capacity * VOLATILE || self.shows_little(&seen, self.pacing()) {
            return false;
        }
        (self.calibrated_at, self.surged_at) = (now, now);
        self.pending = None;
        self.quick_until = now + QUICK;
        self.moves_until = now + MOVES;
        let down = if self.is_calm() { DOWN } else { DOWN_VARIES };
        self.set_capacity(received.max(self.capacity * down));
        self.start_drain(false, now);
        true
    }

    /// What the packets of the last `span` brought, if their delay grew steeply.
    fn steep(&self, span: Duration) -> Option<Measured> {
        self.meter
            .measure(self.sight.sent_at - span, Instant::FAR)
            .filter(|seen| seen.stretch() >= STRETCH && seen.grows(STEEP))
    }

    /// Whether delays hardly vary without us.
    pub(super) fn is_calm(&self) -> bool {
        self.sight.jitter < CALM
    }
}
