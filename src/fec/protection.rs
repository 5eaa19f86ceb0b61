//! How much repair a group gets, from what is known of the links it was spread over.
//!
//! Pure arithmetic plus one smoother ([`Protection`]); it never sees a symbol.
//!
//! For a group with n_i symbols on link i, of loss ratio p_i and mean burst B_i (Gilbert model):
//!
//! ```text
//! mean      m  = sum n_i p_i
//! variance  s2 = sum n_i p_i (1 - p_i) v_i,   v_i = (1 + rho_i) / (1 - rho_i),
//!                rho_i = 1 - 1/B_i - p_i / (B_i (1 - p_i))
//! r = ceil(m + 2.3 s)        what is missing can be sent again in time: 1-2 % of the groups need that
//! r = ceil(m + 4.3 s) + 1    it cannot: residual loss about 1e-5
//! ```
//!
//! Where bursts do not matter (B near 1) the second line is replaced by the exact binomial sum, because the
//! normal tail is too thin above 5 % loss. The repair symbols are themselves lost at the same ratios, which the
//! exact sum counts and the formula does not need at the small ratios it is used for.

use std::time::Duration;

use super::GROUP_SYMBOLS_MAX;
use crate::base::{Instant, Rate};

/// Which amount of repair is wanted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mode {
    /// Always `repair_count` for each full group of `source_count`.
    Fixed {
        /// Sources of a full group.
        source_count: usize,
        /// Repair symbols of a full group.
        repair_count: usize,
    },
    /// As much as the losses ask for.
    Adaptive {
        /// Most repair for each source, 0 to 1 (0.25 is a good value: more loss than that buys cannot be
        /// repaired at a sane price and is sent again instead).
        ceiling: f64,
        /// Source symbols that may be lost beyond repair, as a ratio, where they cannot be sent again.
        residual: f64,
    },
    /// None.
    Off,
}

/// What one link does to the symbols on it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Loss {
    /// Source symbols of the group on this link.
    pub symbols: usize,
    /// Lost / sent, 0 to 1.
    pub ratio: f64,
    /// Mean number of losses in a row, at least 1.
    pub burst: f64,
}

/// Residual loss that adaptive protection aims at unless told otherwise.
pub const RESIDUAL: f64 = 1e-5;
/// Below this loss ratio nothing is added where lost symbols can be sent again in time.
const RATIO_MIN: f64 = 0.000_2;
/// Bursts shorter than this are treated as independent losses.
const BURST_MIN: f64 = 1.2;
/// Standard deviations covered when the rest can be sent again.
const SIGMAS_WITH_RETRANSMISSION: f64 = 2.3;
/// Standard deviations covered when it cannot.
const SIGMAS_ALONE: f64 = 4.3;

impl Mode {
    /// Repair symbols for a group of `source_count`, spread as `losses` says. `retransmit_feasible`: a lost
    /// symbol can be sent again before its frame's hold time ends. At most what fits into a group.
    pub fn repair_count(
        &self,
        source_count: usize,
        losses: &[Loss],
        retransmit_feasible: bool,
    ) -> usize {
        if source_count == 0 || source_count >= GROUP_SYMBOLS_MAX {
            return 0;
        }
        let room = GROUP_SYMBOLS_MAX - source_count;
        let count = match *self {
            Self::Off => 0,
            Self::Fixed {
                source_count: full,
                repair_count,
            } => scaled(repair_count, source_count, full),
            Self::Adaptive { ceiling, residual } => {
                let wanted = wanted(source_count, losses, retransmit_feasible, residual);
                wanted.min(ceiling_count(source_count, ceiling))
            }
        };
        count.min(room)
    }

    /// Whether repair symbols may follow the sources, so that a receiver has a use for copies of them.
    pub const fn may_repair(&self) -> bool {
        match self {
            Self::Fixed { repair_count, .. } => *repair_count > 0,
            Self::Adaptive { .. } => true,
            Self::Off => false,
        }
    }
}

/// Repair symbols of a group closed early: `ceil(r k' / k)`, at least 1 when a full group has any.
pub const fn scaled(repair_count: usize, source_count: usize, full: usize) -> usize {
    if full == 0 || source_count >= full {
        return repair_count;
    }
    (repair_count * source_count).div_ceil(full)
}

/// Most repair symbols under a ceiling; a group of any size may have one, or small groups had none.
#[expect(clippy::cast_precision_loss, reason = "counts are below 256")]
fn ceiling_count(source_count: usize, ceiling: f64) -> usize {
    if ceiling <= 0.0 {
        0
    } else {
        count(source_count as f64 * ceiling).max(1)
    }
}

/// A float of this module as a count; NaN and negative become 0.
#[expect(
    clippy::cast_possible_truncation,
    reason = "saturates; counts are below 256"
)]
#[expect(clippy::cast_sign_loss, reason = "saturates at 0")]
const fn count(value: f64) -> usize {
    value as usize
}

#[expect(clippy::cast_precision_loss, reason = "counts are below 256")]
fn wanted(source_count: usize, losses: &[Loss], again: bool, residual: f64) -> usize {
    let (mut mean, mut variance, mut symbols, mut burst) = (0.0, 0.0, 0.0, 1.0_f64);
    for loss in losses {
        let (n, p) = (loss.symbols as f64, loss.ratio.clamp(0.0, 0.99));
        mean += n * p;
        variance += n * p * (1.0 - p) * burst_factor(p, loss.burst);
        symbols += n;
        if p > 0.0 {
            burst = burst.max(loss.burst);
        }
    }
    if symbols <= 0.0 || mean <= 0.0 || again && mean / symbols < RATIO_MIN {
        return 0;
    }
    if again {
        return count((mean + SIGMAS_WITH_RETRANSMISSION * variance.sqrt()).ceil());
    }
    if burst < BURST_MIN {
        return binomial(source_count, mean / symbols, residual);
    }
    count((mean + SIGMAS_ALONE * variance.sqrt()).ceil()) + 1
}

/// Variance of a Gilbert channel's losses over that of independent ones. Never below 1: losses that avoid each
/// other are an accident of a short measurement.
fn burst_factor(p: f64, burst: f64) -> f64 {
    let burst = if burst >= 1.0 { burst } else { 1.0 };
    let correlation = 1.0 - 1.0 / burst - p / (burst * (1.0 - p));
    let correlation = correlation.clamp(0.0, 0.99);
    (1.0 + correlation) / (1.0 - correlation)
}

/// Fewest repair symbols so that at most `residual` of the sources stay lost, losses being independent.
fn binomial(source_count: usize, p: f64, residual: f64) -> usize {
    let most = GROUP_SYMBOLS_MAX - source_count;
    let enough = |r: &usize| residual_loss(source_count + r, *r, p) <= residual;
    (0..most).find(enough).unwrap_or(most)
}

/// Expected share of sources lost for good when up to `repair_count` of `symbols` may be lost: the sum of
/// P(x lost) x / n over x > r, since each loss hits a source or a repair symbol alike.
#[expect(clippy::cast_precision_loss, reason = "counts are below 256")]
fn residual_loss(symbols: usize, repair_count: usize, p: f64) -> f64 {
    let n = symbols as f64;
    let odds = p / (1.0 - p);
    let mut probability = (1.0 - p).powf(n);
    let mut sum = 0.0;
    for x in 1..=symbols {
        probability *= odds * (n - x as f64 + 1.0) / x as f64;
        if x > repair_count {
            let term = probability * x as f64 / n;
            sum += term;
            if term < sum * 1e-3 {
                break;
            }
        }
    }
    sum
}

/// When a group is closed at the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupLimits {
    /// Sources of a full group.
    pub source_count_max: usize,
    /// Age of an open group's first source.
    pub fill_time_max: Duration,
}

/// Sources that make a group efficient: 1e-5 at 2 % loss costs less than 15 % from 48 on.
const SOURCES_GOOD: u64 = 48;
/// Larger groups gain little and cost decoding time.
const SOURCES_MAX: u64 = 96;
/// Shortest fill time worth having: groups span at least this much data on fast links.
const FILL_TIME_MIN: Duration = Duration::from_millis(4);
/// Longest fill time as a share of the hold time: repair must arrive before the receiver gives up waiting.
const FILL_SHARE_OF_HOLD: f64 = 0.4;

/// Size and fill time of groups when symbols of `symbol_bytes` flow at `rate` and a receiver waits `hold` for a
/// hole.
pub fn group_limits(rate: Rate, symbol_bytes: usize, hold: Duration) -> GroupLimits {
    let bytes = symbol_bytes.max(1) as u64;
    let wanted = rate.time_for(SOURCES_GOOD * bytes).max(FILL_TIME_MIN);
    let fill_time_max = wanted.min(hold.mul_f64(FILL_SHARE_OF_HOLD));
    let sources = (rate.bytes_in(fill_time_max) / bytes).clamp(1, SOURCES_MAX);
    GroupLimits {
        source_count_max: usize::try_from(sources).unwrap_or(1),
        fill_time_max,
    }
}

/// Repair for each full group, following [`Mode`] without jumping: up at once, down by one a second.
#[derive(Clone, Debug)]
pub struct Protection {
    mode: Mode,
    /// Sources that `repair_count` is meant for.
    source_count: usize,
    repair_count: usize,
    /// When the count was last confirmed or lowered; `None` before the first update.
    settled_at: Option<Instant>,
}

/// How often the losses are looked at again.
pub const UPDATE_INTERVAL: Duration = Duration::from_millis(250);
/// Time between two steps down.
const STEP_DOWN_INTERVAL: Duration = Duration::from_secs(1);
/// Repair of a full group while nothing is known of the links.
const REPAIR_UNKNOWN: usize = 2;

impl Protection {
    /// Starts without knowledge of the links.
    pub fn new(mode: Mode) -> Self {
        let (source_count, repair_count) = match mode {
            Mode::Fixed {
                source_count,
                repair_count,
            } => (source_count, repair_count),
            Mode::Adaptive { .. } => (usize::try_from(SOURCES_GOOD).unwrap_or(1), REPAIR_UNKNOWN),
            Mode::Off => (1, 0),
        };
        Self {
            mode,
            source_count,
            repair_count,
            settled_at: None,
        }
    }

    /// Looks at the losses again, for full groups of `source_count`. Call each [`UPDATE_INTERVAL`].
    pub fn update(
        &mut self,
        source_count: usize,
        losses: &[Loss],
        retransmit_feasible: bool,
        now: Instant,
    ) {
        if !matches!(self.mode, Mode::Adaptive { .. }) {
            return;
        }
        let wanted = self
            .mode
            .repair_count(source_count, losses, retransmit_feasible);
        let last = *self.settled_at.get_or_insert(now);
        self.source_count = source_count.max(1);
        if wanted >= self.repair_count {
            self.repair_count = wanted;
            self.settled_at = Some(now);
        } else if now.since(last) >= STEP_DOWN_INTERVAL {
            self.repair_count -= 1;
            self.settled_at = Some(now);
        }
    }

    /// Repair symbols for a group closed with `source_count` sources.
    pub fn repair_count(&self, source_count: usize) -> usize {
        let room = GROUP_SYMBOLS_MAX.saturating_sub(source_count);
        if source_count == 0 {
            return 0;
        }
        scaled(self.repair_count, source_count, self.source_count).min(room)
    }

    /// The mode it follows.
    pub const fn mode(&self) -> Mode {
        self.mode
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Rng;

    const ADAPTIVE: Mode = Mode::Adaptive {
        ceiling: 1.0,
        residual: RESIDUAL,
    };

    fn repair(k: usize, ratio: f64, burst: f64, again: bool) -> usize {
        ADAPTIVE.repair_count(
            k,
            &[Loss {
                symbols: k,
                ratio,
                burst,
            }],
            again,
        )
    }

    #[test]
    fn independent_losses_get_the_table_of_residual_1e_5() {
        let table = [
            (0.001, [2, 2, 2, 2, 2, 2]),
            (0.005, [3, 3, 4, 4, 4, 5]),
            (0.01, [3, 4, 5, 5, 6, 7]),
            (0.02, [4, 6, 7, 8, 9, 10]),
            (0.05, [7, 9, 11, 13, 16, 19]),
            (0.1, [10, 14, 18, 21, 27, 32]),
        ];
        for (ratio, row) in table {
            for (k, expected) in [16, 32, 48, 64, 96, 128].into_iter().zip(row) {
                assert_eq!(repair(k, ratio, 1.0, false), expected, "{k} at {ratio}");
            }
        }
    }

    #[test]
    fn the_residual_is_what_a_simulation_loses() {
        let (mut rng, k, r, p) = (Rng::new(8), 16, 2, 0.05);
        let (mut lost, rounds) = (0, 40_000);
        for _ in 0..rounds {
            let sources = (0..k).filter(|_| rng.chance(p)).count();
            let repairs = (0..r).filter(|_| rng.chance(p)).count();
            lost += if sources + repairs > r { sources } else { 0 };
        }
        let simulated = f64::from(u32::try_from(lost).unwrap()) / f64::from(rounds * 16);
        let computed = residual_loss(k + r, r, p);
        assert!(
            (simulated / computed - 1.0).abs() < 0.1,
            "{simulated} {computed}"
        );
    }

    #[test]
    fn bursts_ask_for_more_and_retransmission_for_less() {
        assert_eq!(repair(64, 0.02, 2.0, false), 11);
        assert!(repair(64, 0.02, 4.0, false) > repair(64, 0.02, 2.0, false));
        assert_eq!(repair(64, 0.02, 1.0, true), 4);
        assert_eq!(repair(64, 0.000_1, 1.0, true), 0);
        assert_eq!(repair(64, 0.0, 1.0, false), 0);
    }

    #[test]
    fn ceiling_and_group_size_bound_everything() {
        let cheap = Mode::Adaptive {
            ceiling: 0.25,
            residual: RESIDUAL,
        };
        let loss = |k| {
            [Loss {
                symbols: k,
                ratio: 0.5,
                burst: f64::NAN,
            }]
        };
        assert_eq!(cheap.repair_count(48, &loss(48), false), 12);
        assert_eq!(cheap.repair_count(1, &loss(1), false), 1);
        for k in 0..300 {
            for mode in [
                cheap,
                ADAPTIVE,
                Mode::Fixed {
                    source_count: 10,
                    repair_count: 300,
                },
            ] {
                let r = mode.repair_count(k, &loss(k), false);
                assert!(r == 0 || k + r <= 255, "{k}+{r}");
            }
            assert_eq!(Mode::Off.repair_count(k, &loss(k), false), 0);
        }
    }

    #[test]
    fn a_group_closed_early_gets_its_share() {
        let mode = Mode::Fixed {
            source_count: 10,
            repair_count: 3,
        };
        let counts: Vec<_> = (0..=11).map(|k| mode.repair_count(k, &[], true)).collect();
        assert_eq!(counts, [0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3]);
        assert_eq!(
            Mode::Fixed {
                source_count: 10,
                repair_count: 0
            }
            .repair_count(3, &[], true),
            0
        );
    }

    #[test]
    fn groups_span_what_the_hold_time_allows() {
        let limits = |mbps, hold| {
            let limits = group_limits(Rate::from_mbps(mbps), 1400, Duration::from_millis(hold));
            (limits.source_count_max, limits.fill_time_max.as_millis())
        };
        assert_eq!(limits(140, 50), (50, 4));
        assert_eq!(limits(200, 50), (71, 4));
        assert_eq!(limits(2000, 50), (96, 4));
        assert_eq!(limits(20, 100), (48, 26));
        assert_eq!(limits(20, 20), (14, 8));
        assert_eq!(limits(0, 20), (1, 8));
        assert_eq!(limits(100, 0), (1, 0));
    }

    #[test]
    fn protection_rises_at_once_and_falls_by_one_a_second() {
        let mut protection = Protection::new(ADAPTIVE);
        assert_eq!(
            (protection.repair_count(48), protection.repair_count(1)),
            (2, 1)
        );
        let loss = |ratio| {
            [Loss {
                symbols: 48,
                ratio,
                burst: 1.0,
            }]
        };
        let at = |ms| Instant::from_millis(ms);
        protection.update(48, &loss(0.02), false, at(0));
        assert_eq!(
            (protection.repair_count(48), protection.repair_count(10)),
            (7, 2)
        );
        for (ms, expected) in [
            (250, 7),
            (999, 7),
            (1000, 6),
            (1250, 6),
            (2000, 5),
            (3000, 4),
        ] {
            protection.update(48, &loss(0.001), false, at(ms));
            assert_eq!(protection.repair_count(48), expected, "at {ms} ms");
        }
        for s in 4..20 {
            protection.update(48, &loss(0.0), true, at(s * 1000));
        }
        assert_eq!(protection.repair_count(48), 0);
    }
}
