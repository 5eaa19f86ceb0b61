//! CUBIC (RFC 9438) with HyStart's delay criterion: how large the congestion window is.

use std::time::Duration;

use crate::base::Instant;

/// Window after a loss as part of the one before.
const BETA: f64 = 0.7;
/// Growth constant of the cubic function, segments per second cubed.
const C: f64 = 0.4;
/// Smallest window at which HyStart ends slow start.
const HYSTART_WINDOW_MIN: f64 = 16.0;
/// RTT samples of a round that HyStart looks at.
const HYSTART_SAMPLES: u32 = 8;
/// Bounds of the growth of the RTT that ends slow start.
const HYSTART_DELAY: (Duration, Duration) = (Duration::from_millis(4), Duration::from_millis(16));

/// The congestion window in segments.
#[derive(Debug)]
pub(super) struct Cubic {
    pub(super) window: f64,
    pub(super) threshold: f64,
    window_max: f64,
    epoch: Option<Instant>,
    /// Window at which the cubic function is flat, and when it is reached.
    origin: f64,
    flat_after: f64,
    /// What a Reno of the same losses would have.
    friendly: f64,
    round_end: u64,
    round_min: Duration,
    round_samples: u32,
    before: Option<(f64, f64, f64)>,
}

impl Cubic {
    pub(super) const fn new() -> Self {
        Self {
            window: 10.0,
            threshold: f64::MAX,
            window_max: 0.0,
            epoch: None,
            origin: 0.0,
            flat_after: 0.0,
            friendly: 0.0,
            round_end: 0,
            round_min: Duration::MAX,
            round_samples: 0,
            before: None,
        }
    }

    fn in_slow_start(&self) -> bool {
        self.window < self.threshold
    }

    /// `acked` segments were acknowledged outside of a recovery while the window was the limit.
    pub(super) fn on_acked(&mut self, acked: u64, rtt_min: Duration, now: Instant) {
        #[allow(clippy::cast_precision_loss)] // a window of segments
        let mut acked = acked as f64;
        if self.in_slow_start() {
            let room = (self.threshold - self.window).max(0.0);
            let used = acked.min(room);
            self.window += used;
            acked -= used;
        }
        if acked <= 0.0 {
            return;
        }
        let epoch = *self.epoch.get_or_insert_with(|| {
            self.origin = self.window_max.max(self.window);
            self.flat_after = ((self.origin - self.window) / C).cbrt();
            self.friendly = self.window;
            now
        });
        let elapsed = (now.since(epoch) + rtt_min).as_secs_f64() - self.flat_after;
        let target = (C * elapsed.powi(3) + self.origin).min(1.5 * self.window);
        self.friendly += 3.0 * (1.0 - BETA) / (1.0 + BETA) * acked / self.window;
        let target = target.max(self.friendly);
        if target > self.window {
            self.window += (target - self.window) / self.window * acked;
        } else {
            self.window += 0.01 * acked / self.window;
        }
    }

    /// An RTT sample; `acked` and `next` are the first segment not acknowledged and the next to be sent.
    pub(super) fn on_rtt(&mut self, rtt: Duration, rtt_min: Duration, acked: u64, next: u64) {
        if acked >= self.round_end {
            self.round_end = next;
            self.round_min = Duration::MAX;
            self.round_samples = 0;
        }
        if self.round_samples < HYSTART_SAMPLES {
            self.round_samples += 1;
            self.round_min = self.round_min.min(rtt);
        } else if self.in_slow_start() && self.window >= HYSTART_WINDOW_MIN {
            let growth = (rtt_min / 8).clamp(HYSTART_DELAY.0, HYSTART_DELAY.1);
            if self.round_min > rtt_min + growth {
                self.threshold = self.window;
            }
        }
    }

    /// Something was lost or marked: the window becomes smaller.
    pub(super) fn on_congestion(&mut self) {
        self.before = Some((self.window, self.threshold, self.window_max));
        self.window_max = if self.window < self.window_max {
            self.window * f64::midpoint(1.0, BETA) // fast convergence
        } else {
            self.window
        };
        self.threshold = (self.window * BETA).max(2.0);
        self.epoch = None;
    }

    /// The last congestion was none.
    pub(super) fn undo(&mut self) {
        if let Some((window, threshold, window_max)) = self.before.take() {
            self.window = self.window.max(window);
            self.threshold = self.threshold.max(threshold);
            self.window_max = window_max;
            self.epoch = None;
        }
    }
}
