//! One WAN of a session: the capacity that its links share.

use std::time::Duration;

use super::config::WanConfig;
use crate::base::{Instant, Rate, Rng};
use crate::link::{Delivery, Pacer, RateConfig, RateControl};

/// Rate of a WAN nobody has measured or configured: slow enough for DSL uplinks, doubled each round trip.
const RATE_START: Rate = Rate::from_mbps(10);

/// One WAN.
#[derive(Debug)]
pub struct Wan {
    /// What the client said about it.
    pub config: WanConfig,
    /// Capacity of our sending direction.
    pub rate: RateControl,
    /// Enforces it.
    pub pacer: Pacer,
    /// Whether a round robin over its links goes on from here.
    pub next_link: usize,
    /// Whether the last attempt to commit found it without room: it limits us.
    pub backlogged: bool,
    /// Receiving direction: bytes so far and when the last of them came.
    pub received_bytes: u64,
    /// See `received_bytes`; receiver's clock.
    pub received_at: Instant,
    /// What the peer last reported of the same figures.
    reported: Option<(u64, u32)>,
}

impl Wan {
    /// A WAN with nothing known but its configuration.
    pub fn new(config: WanConfig, rng: &mut Rng, now: Instant) -> Self {
        let ceiling = config.rate_to_peer;
        let start = ceiling.map_or(RATE_START, |rate| rate.min(RATE_START));
        let rate = RateControl::new(RateConfig { ceiling, start }, Rng::new(rng.next_u64()), now);
        let pacer = Pacer::new(rate.pacing_rate(), now);
        Self {
            config,
            rate,
            pacer,
            next_link: 0,
            backlogged: false,
            received_bytes: 0,
            received_at: now,
            reported: None,
        }
    }

    /// The peer reported its cumulative count of bytes from this WAN and when (its clock, µs) the last came.
    /// Gives the bytes and the time since the previous report; `None` for an old or a first one.
    pub fn on_report(&mut self, bytes: u64, received_us: u32) -> Option<(u64, Duration)> {
        let Some((bytes_before, us_before)) = self.reported else {
            self.reported = Some((bytes, received_us));
            return None;
        };
        let span_us = received_us.wrapping_sub(us_before).cast_signed();
        if span_us <= 0 || bytes <= bytes_before {
            return None;
        }
        self.reported = Some((bytes, received_us));
        Some((bytes - bytes_before, Duration::from_micros(u64::from(span_us.unsigned_abs()))))
    }

    /// A delivery sample for the rate control.
    pub fn on_delivery(&mut self, delivery: Delivery, now: Instant) {
        self.rate.on_delivery(delivery, now);
        self.pacer.set_rate(self.rate.pacing_rate(), now);
    }
}
