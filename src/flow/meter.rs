//! How fast a flow arrives.

use std::time::Duration;

use crate::base::{Instant, Rate};

/// Arrival rate: bytes that fade away linearly over [`RATE_SPAN`] between two arrivals, the most of them lately, and the
/// most of that when packets lately left the queue.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Meter {
    bytes: f64,
    at: Instant,
    arrived: Peak,
    departed: Peak,
}

/// The greatest figure of the last [`PEAK_KEEP`].
#[derive(Clone, Copy, Debug, Default)]
struct Peak {
    bytes: f64,
    at: Instant,
}

impl Peak {
    fn note(&mut self, bytes: f64, now: Instant) {
        if bytes >= self.kept(now) {
            *self = Self { bytes, at: now };
        }
    }

    fn kept(&self, now: Instant) -> f64 {
        if now.since(self.at) < PEAK_KEEP {
            self.bytes
        } else {
            0.0
        }
    }
}

impl Meter {
    pub(super) fn on_arrival(&mut self, bytes: u32, now: Instant) {
        self.bytes = self.faded(now) + f64::from(bytes);
        self.at = now;
        self.arrived.note(self.bytes, now);
    }

    /// A packet leaves the queue; returns the rate that its flow counts with. What leaves late waits on further, in
    /// front of a link: its successors must not overtake it there either. The figure of earlier departures is not
    /// renewed by later ones, or a flow would never be slow again.
    pub(super) fn on_departure(&mut self, now: Instant) -> Rate {
        self.departed
            .note(self.faded(now).max(self.arrived.kept(now)), now);
        self.rate(now)
    }

    fn faded(&self, now: Instant) -> f64 {
        let age = now.since(self.at).as_secs_f64() / RATE_SPAN.as_secs_f64();
        self.bytes * (1.0 - age).max(0.0)
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturates, >= 0"
    )]
    fn rate(&self, now: Instant) -> Rate {
        let peak = self.arrived.kept(now).max(self.departed.kept(now));
        Rate::from_bytes_over(self.faded(now).max(peak) as u64, RATE_SPAN)
    }
}

/// How long a flow counts as what it was: one that pauses must not overtake its own packets that still wait.
pub const PEAK_KEEP: Duration = Duration::from_millis(500);

/// Span over which a flow's rate is averaged: long enough for a dozen packets of a 100 kbit/s call.
pub const RATE_SPAN: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_flow_reads_its_rate_and_silence_reads_zero() {
        let mut meter = Meter::default();
        for ms in 0..1000 {
            meter.on_arrival(1250, Instant::from_millis(ms));
        }
        let rate = meter.rate(Instant::from_millis(1000)).as_mbps();
        assert!((9.5..10.5).contains(&rate), "{rate}");
        assert!(
            meter.rate(Instant::from_millis(1250)).as_mbps() > 9.5,
            "kept"
        );
        assert_eq!(meter.rate(Instant::from_millis(1500)), Rate::ZERO);
    }

    #[test]
    fn what_leaves_late_counts_from_when_it_left_and_not_for_ever() {
        let mut meter = Meter::default();
        meter.on_arrival(64_000, Instant::ZERO);
        let fast = Rate::from_mbps(2);
        assert!(meter.on_departure(Instant::from_millis(490)) > fast);
        assert!(meter.on_departure(Instant::from_millis(900)) > fast);
        assert_eq!(meter.on_departure(Instant::from_millis(991)), Rate::ZERO);
    }

    #[test]
    fn a_single_superframe_is_no_trickle_and_a_ping_is() {
        let mut meter = Meter::default();
        meter.on_arrival(64_000, Instant::ZERO);
        assert!(meter.rate(Instant::ZERO) > Rate::from_mbps(2));
        let mut meter = Meter::default();
        meter.on_arrival(98, Instant::ZERO);
        assert!(meter.rate(Instant::ZERO) < Rate::from_bits_per_s(4_000));
    }
}
