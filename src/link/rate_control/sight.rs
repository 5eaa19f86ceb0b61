//! What the latest reports show: queue above the learned zero, jitter, and since when a queue stands.
//!
//! Never does: decide. With several links on one WAN the link that reported last speaks: they share the queue.

use std::time::Duration;

use super::Delivery;
use crate::base::Instant;

/// A queue above this stands: the WAN's last mile was busy all the time.
const STANDING: f64 = 0.003;
/// The least of 50 ms passes a level about this much after the queue did, as seen by the packets' send time.
const STANDING_LAG: Duration = Duration::from_millis(30);
/// Weight of one report in the jitter and the spacing.
const JITTER_GAIN: f64 = 1.0 / 16.0;
/// Weights of one calm report in the wander: four times as fast up as down, within a second or so.
const WANDER_UP: f64 = 0.02;
const WANDER_DOWN: f64 = 0.005;
/// Reports further apart than this (seconds) tell of a pause and not of the peer's habits.
const SPACING_MAX: f64 = 0.1;

/// The latest of what reports show. Times in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sight {
    /// Send time of the youngest packet reported.
    pub(super) sent_at: Instant,
    /// Least queue of the last 50 ms.
    pub(super) queue_min: f64,
    /// Least queue of the last two reports.
    pub(super) queue_last: f64,
    last: f64,
    /// What stays when less is sent: not our queue. Taken off all queues above.
    zero: f64,
    /// Half of what delays usually differ by without us: within a report, or from one to another.
    pub(super) jitter: f64,
    /// Half the usual range of delays within one report.
    range: f64,
    /// What four of five calm reports stay below: radio links wander for longer than a report.
    wander: f64,
    /// Usual distance of two reports, by the send times of their youngest packets.
    pub(super) spacing: f64,
    pub(super) rtt: Duration,
    /// A queue has stood for all packets sent since.
    pub(super) standing_since: Option<Instant>,
}

impl Sight {
    /// Takes a report. `calm`: less was sent than the capacity, so that the queue seen is hardly ours.
    pub(super) fn update(&mut self, sample: &Delivery, calm: bool) {
        let spacing = sample
            .sent_at
            .since(self.sent_at)
            .as_secs_f64()
            .min(SPACING_MAX);
        self.spacing += JITTER_GAIN * (spacing - self.spacing);
        self.sent_at = self.sent_at.max(sample.sent_at);
        self.rtt = sample.rtt;
        let range = sample.owd_max_us.wrapping_sub(sample.owd_min_us);
        if range > 0 {
            let sample = f64::from(range) * 0.5e-6;
            let gain = if self.range == 0.0 { 1.0 } else { JITTER_GAIN };
            self.range += gain * (sample - self.range);
        }
        self.jitter = self.range.max(self.wander / 2.0);
        self.zero = self.zero.min(sample.queue_min.as_secs_f64());
        let above = |queue: Duration| (queue.as_secs_f64() - self.zero).max(0.0);
        self.queue_min = above(sample.queue_min);
        self.queue_last = above(sample.queue_last).min(self.last);
        self.last = above(sample.queue_last);
        if calm {
            let gain = if self.last > self.wander {
                WANDER_UP
            } else {
                WANDER_DOWN
            };
            self.wander += gain * (self.last - self.wander);
        }
        if self.queue_min <= STANDING {
            self.standing_since = None;
        } else if self.standing_since.is_none() {
            self.standing_since = Some(sample.sent_at - STANDING_LAG);
        }
    }

    /// The queue that stands is not ours: it is the new zero.
    pub(super) fn take_as_zero(&mut self) {
        self.zero += self.queue_min;
        self.forget_queue();
    }

    /// What was seen of the queue is over.
    pub(super) fn forget_queue(&mut self) {
        self.queue_min = 0.0;
        self.queue_last = 0.0;
        self.last = 0.0;
        self.standing_since = None;
    }
}
