//! One WAN of a session: the capacity that its links share.

use std::time::Duration;

use super::budget::Shared;
use super::config::{WanConfig, WanLimits};
use crate::base::{Instant, Rate, Rng};
use crate::link::{Delivery, Pacer, Phase, RateConfig, RateControl};
use crate::wire::message::LinkOpen;

/// Rate of a WAN nobody has measured or configured: a TCP's first window passes in 4 ms, so that its slow start is not
/// ended by a queue of ours, and what is too much for a DSL uplink is seen within a round trip.
const RATE_START: Rate = Rate::from_mbps(30);

/// A loss limit travels in hundredths of a percent.
pub const LOSS_UNIT: f64 = 10_000.0;

/// One WAN.
#[derive(Debug)]
pub struct Wan {
    /// What the client said about it.
    pub config: WanConfig,
    /// Capacity of our sending direction. Asleep while another session leads: ask [`Wan`] for figures.
    pub rate: RateControl,
    /// Our part, where several sessions share the WAN.
    pub shared: Shared,
    /// Enforces it.
    pub pacer: Pacer,
    /// Whether a round robin over its links goes on from here.
    pub next_link: usize,
    /// Whether the last attempt to commit found it without room: it limits us.
    pub backlogged: bool,
}

impl Wan {
    /// A WAN with nothing known but its configuration.
    pub fn new(config: WanConfig, links: usize, rng: &mut Rng, now: Instant) -> Self {
        let ceiling = config.rate_to_peer;
        let start = ceiling.map_or(RATE_START, |rate| rate.min(RATE_START));
        let rate = RateControl::new(
            RateConfig {
                ceiling,
                start,
                links,
            },
            Rng::new(rng.next_u64()),
            now,
        );
        let pacer = Pacer::new(rate.pacing_rate(), now);
        Self {
            config,
            rate,
            shared: Shared::default(),
            pacer,
            next_link: 0,
            backlogged: false,
        }
    }

    /// What LINK_OPEN says about the WAN (server).
    pub fn describe(&mut self, open: &LinkOpen<'_>, now: Instant) {
        let rate = |kbit: u32| (kbit > 0).then(|| Rate::from_bits_per_s(u64::from(kbit) * 1000));
        self.config.name = open.name.to_owned();
        self.config.role = open.role;
        self.config.direction = open.direction;
        self.config.limits = WanLimits {
            rtt_max: (open.rtt_max_ms > 0).then(|| Duration::from_millis(open.rtt_max_ms.into())),
            loss_max: (open.loss_max_bp > 0).then(|| f64::from(open.loss_max_bp) / LOSS_UNIT),
        };
        // What the client calls "to me" is our sending direction.
        self.config.rate_to_peer = rate(open.rate_to_sender_kbit);
        self.config.rate_to_us = rate(open.rate_to_peer_kbit);
        self.rate.set_ceiling(self.config.rate_to_peer);
        self.pacer.set_rate(self.pacing_rate(), now);
    }

    /// What we may send.
    pub fn pacing_rate(&self) -> Rate {
        let part = self.shared.part.as_ref();
        part.map_or_else(|| self.rate.pacing_rate(), |part| part.rate)
    }

    /// What of the WAN's capacity is ours.
    pub fn capacity(&self) -> Rate {
        let Some(part) = &self.shared.part else {
            return self.rate.capacity();
        };
        #[allow(clippy::cast_precision_loss)] // a ratio
        let ratio = part.rate.bits_per_s() as f64 / part.pacing.bits_per_s().max(1) as f64;
        part.capacity.mul_f64(ratio)
    }

    /// The WAN's capacity, for all sessions that share it.
    pub fn whole_capacity(&self) -> Rate {
        let part = self.shared.part.as_ref();
        part.map_or_else(|| self.rate.capacity(), |part| part.capacity)
    }

    /// What the rate control is doing.
    pub fn phase(&self) -> Phase {
        let part = self.shared.part.as_ref();
        part.map_or_else(|| self.rate.phase(), |part| part.phase)
    }

    /// A delivery sample of the WAN's link number `slot`.
    pub fn on_delivery(&mut self, slot: usize, delivery: &Delivery, now: Instant) {
        self.rate.on_delivery(slot, delivery, now);
        self.pacer.set_rate(self.pacing_rate(), now);
    }
}
