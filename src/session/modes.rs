//! What the modes differ in beyond the striper's strategy.
//!
//! | | balanced | throughput | latency |
//! | --- | --- | --- | --- |
//! | a link is used | when it delivers first, slower ones with a penalty at low load | the same | when the quicker ones are nearly full |
//! | committed ahead | what makes arrivals equal | the same | 2 ms |
//! | copies of sparse symbols | up to 2 % of the symbols | none | all |
//! | CoDel's target | RTT / 3, 5 to 20 ms | 25 ms at least | as balanced |
//! | adaptive repair | up to the ceiling | up to half of it | up to the ceiling |
//!
//! The penalty at low load stays in throughput mode: without it a flow that is growing back after a loss met the slow
//! links too early, and the efficiency of one CUBIC flow at 0.5 % loss fell from 0.91 to 0.88 (balanced: 0.84).

use std::time::Duration;

use super::Session;
use super::config::{Mode, SessionConfig};
use crate::base::Rate;
use crate::base::id::LINKS_MAX;
use crate::fec::protection::Mode as FecMode;
use crate::stripe::weight::BACKLOG_EXTRA;

/// CoDel's target in throughput mode: a loss-based flow keeps the links full through its own reductions.
const THROUGHPUT_TARGET: Duration = Duration::from_millis(25);
/// Part of the ceiling of repair that is left in throughput mode: what it does not cover is sent again.
const THROUGHPUT_CEILING: f64 = 0.5;
/// Latency mode: links that are slower than the quickest one by no more than this, or by this part of its delay, are as
/// good as it.
const NEAR: Duration = Duration::from_millis(5);
const NEAR_PART: u32 = 4;
/// Part of the quick links' rate from which on the next slower one helps, and below which it leaves again.
const FULL: f64 = 0.85;
const ROOMY: f64 = 0.65;

impl Mode {
    /// CoDel's target is not below this.
    pub(super) const fn queue_target_min(self) -> Duration {
        match self {
            Self::Throughput => THROUGHPUT_TARGET,
            _ => Duration::ZERO,
        }
    }
}

impl SessionConfig {
    /// How much repair groups get in this mode.
    pub(super) fn protection(&self) -> FecMode {
        match (self.mode, self.fec) {
            (Mode::Throughput, FecMode::Adaptive { ceiling, residual }) => FecMode::Adaptive {
                ceiling: ceiling * THROUGHPUT_CEILING,
                residual,
            },
            (_, fec) => fec,
        }
    }
}

impl Session {
    /// Latency mode: moves the candidates that the load does not need apart, and commits little ahead to the others.
    /// `base`: what is added to the relative delays to compare them as latencies.
    pub(super) fn hold_back_slow_links(&mut self, base: Duration) {
        let mut order = [(Duration::ZERO, Rate::ZERO); LINKS_MAX];
        let count = self.candidates.len();
        for (slot, candidate) in order.iter_mut().zip(&self.candidates) {
            *slot = (candidate.delay, candidate.rate);
        }
        let order = &mut order[..count];
        order.sort_unstable();
        let sum = self.rate_sum().mul_f64(self.load.value());
        self.quick_links = quick(order, base, sum, self.quick_links);
        let slowest = order
            .get(self.quick_links.saturating_sub(1))
            .map_or(Duration::MAX, |(delay, _)| *delay);
        let Self {
            candidates, apart, ..
        } = self;
        candidates.retain_mut(|candidate| {
            candidate.backlog_max = BACKLOG_EXTRA;
            let keeps = candidate.delay <= slowest;
            if !keeps {
                apart.push(*candidate);
            }
            keeps
        });
        self.held_back = self.apart.len();
    }
}

/// How many of the links, quickest first, carry the rate `used`; `before`: how many did until now.
fn quick(order: &[(Duration, Rate)], base: Duration, used: Rate, before: usize) -> usize {
    let Some(&(least, _)) = order.first() else {
        return 0;
    };
    let near_max = least + NEAR.max((base + least) / NEAR_PART);
    let near = order.iter().filter(|(delay, _)| *delay <= near_max).count();
    // The fewest links that are not filled beyond a part of their rate.
    let fewest = |part: f64| {
        let mut sum = Rate::ZERO;
        let enough = order.iter().position(|(_, rate)| {
            sum = sum.saturating_add(*rate);
            used <= sum.mul_f64(part)
        });
        enough.map_or(order.len(), |at| at + 1)
    };
    before.clamp(fewest(FULL), fewest(ROOMY)).max(near)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Duration = Duration::from_millis(10);

    fn links() -> Vec<(Duration, Rate)> {
        [(0, 100), (10, 50), (20, 20)]
            .map(|(ms, mbps)| (Duration::from_millis(ms), Rate::from_mbps(mbps)))
            .to_vec()
    }

    #[test]
    fn slower_links_help_when_the_quick_ones_are_nearly_full_and_leave_late() {
        let of = |mbps, before| quick(&links(), BASE, Rate::from_mbps(mbps), before);
        assert_eq!(of(0, 3), 1);
        assert_eq!(of(60, 1), 1);
        assert_eq!(of(80, 1), 1, "not yet");
        assert_eq!(of(90, 1), 2);
        assert_eq!(of(80, 2), 2, "stays for a while");
        assert_eq!(of(60, 2), 1);
        assert_eq!(of(140, 1), 3);
        assert_eq!(of(1_000, 1), 3);
        assert_eq!(quick(&[], BASE, Rate::ZERO, 3), 0);
    }

    #[test]
    fn links_of_about_the_same_delay_are_all_quick() {
        let mut near = links();
        near[1].0 = Duration::from_millis(4);
        assert_eq!(quick(&near, BASE, Rate::ZERO, 0), 2);
        // A long way out makes small differences smaller.
        assert_eq!(quick(&links(), BASE * 8, Rate::ZERO, 0), 3);
    }

    #[test]
    fn throughput_mode_repairs_less_and_leaves_fixed_protection_alone() {
        let ceiling = 0.25;
        let mut config = SessionConfig {
            mode: Mode::Throughput,
            fec: FecMode::Adaptive {
                ceiling,
                residual: 1e-5,
            },
            rtt_weight: 0.7,
            loss_weight: 0.3,
            heartbeat: BASE,
            reorder_max: None,
            equalise: crate::session::config::Equalise::Auto,
            gso: crate::link::gso::Wanted::Auto,
            mss_max: None,
            classes: Vec::new(),
        };
        let FecMode::Adaptive { ceiling: less, .. } = config.protection() else {
            panic!("adaptive")
        };
        assert!(less < ceiling);
        config.fec = FecMode::Fixed {
            source_count: 10,
            repair_count: 3,
        };
        assert_eq!(config.protection(), config.fec);
    }
}
