//! What is emulated and what happens when. Numbers only: nothing here touches the system.
//!
//! ```text
//!  0      settle            0.40              0.65      + settle            1
//!  ├── TCP ──┼─── all links ──┼─ without fiber ─┼── TCP ──┼─ fiber is back ─┤
//! ```

use std::time::Duration;

/// One emulated WAN; both directions are alike.
#[derive(Clone, Copy, Debug)]
pub(super) struct WanPlan {
    /// For people.
    pub(super) name: &'static str,
    /// What its bottleneck carries.
    pub(super) rate_mbps: f64,
    /// The emulator's words.
    pub(super) spec: &'static str,
    /// What else it does, for people.
    pub(super) character: &'static str,
}

/// Three WANs that nobody would bond without help: their round-trip times differ by five, their rates too.
pub(super) const WANS: [WanPlan; 3] = [
    WanPlan {
        name: "fiber",
        rate_mbps: 100.0,
        spec: "both rate=100mbit delay=5ms queue=100ms",
        character: "5 ms each way",
    },
    WanPlan {
        name: "starlink",
        rate_mbps: 60.0,
        spec: "both rate=60mbit delay=25ms jitter=3ms loss=0.5% handover=15s/100ms queue=100ms",
        character: "25 ms, jitter 3 ms, loss 0.5 %, 0.1 s of 15 s silent",
    },
    WanPlan {
        name: "dsl",
        rate_mbps: 20.0,
        spec: "both rate=20mbit delay=15ms queue=100ms",
        character: "15 ms each way",
    },
];
/// The link that dies, and whose rate is to be beaten: the best.
pub(super) const BEST: usize = 0;
/// When it dies and returns, as parts of the whole time.
const DIES_AT: f64 = 0.40;
const RETURNS_AT: f64 = 0.65;
/// Left out before a phase with all links: TCP's start, and its growth after a link's return.
const SETTLE: Duration = Duration::from_secs(2);
/// Shortest run: each phase keeps at least half a second.
pub(super) const SECONDS_MIN: u64 = 8;
/// Longest run: the live table is for people, and every 10 ms of the connection are kept.
pub(super) const SECONDS_MAX: u64 = 3600;

/// The times of one run, counted from the instant at which the connection stood.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// Whole seconds of it.
    pub(super) seconds: u64,
}

/// A stretch of time.
pub(super) type Window = (Duration, Duration);

impl Plan {
    /// The whole run.
    pub(super) fn end(self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    /// The best link dies.
    pub(super) fn dies(self) -> Duration {
        self.end().mul_f64(DIES_AT)
    }

    /// And works again.
    pub(super) fn returns(self) -> Duration {
        self.end().mul_f64(RETURNS_AT)
    }

    /// All links work and TCP has found its rate.
    pub(super) fn steady(self) -> Window {
        (SETTLE, self.dies())
    }

    /// The best link is dead; from the first moment, so that noticing it counts.
    pub(super) fn outage(self) -> Window {
        (self.dies(), self.returns())
    }

    /// All links work again.
    pub(super) fn back(self) -> Window {
        (self.returns() + SETTLE, self.end())
    }
}

/// Rates of all bottlenecks together.
pub(super) fn sum_mbps() -> f64 {
    WANS.iter().map(|wan| wan.rate_mbps).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::wanem::WanConfig;

    #[test]
    fn every_run_has_time_for_each_phase() {
        for seconds in [SECONDS_MIN, 9, 12, 20, 60, SECONDS_MAX] {
            let plan = Plan { seconds };
            let windows = [plan.steady(), plan.outage(), plan.back()];
            for (from, to) in windows {
                assert!(
                    to >= from + Duration::from_millis(500),
                    "{seconds} s: {from:?} to {to:?}"
                );
            }
            assert!(windows.is_sorted_by(|a, b| a.1 <= b.0), "{windows:?}");
            assert_eq!(plan.back().1, plan.end());
        }
    }

    #[test]
    fn the_emulator_understands_every_wan_and_the_words_say_its_rate() {
        for wan in WANS {
            let config: WanConfig = format!("a:b nat {}", wan.spec).parse().unwrap();
            let rate = format!("rate={}mbit", wan.rate_mbps);
            assert!(config.down.to_string().contains(&rate), "{}", config.down);
            assert_eq!(config.up, config.down);
            assert!(wan.rate_mbps <= WANS[BEST].rate_mbps);
        }
        assert!((sum_mbps() - 180.0).abs() < 1e-9);
    }
}
