//! How much repair a group gets, from what is known of the links it was spread over.
//!
//! Pure arithmetic plus one smoother ([`Protection`]); it never sees a symbol.
//!
//! For a group with n_i symbols on link i, of loss ratio p_i and mean burst B_i (Gilbert model):
//!
//! **What is missing cannot be sent again in time.** Enough to leave a residual loss of about 1e-5:
//!
//! ```text
//! mean      m  = sum n_i p_i
//! variance  s2 = sum n_i p_i (1 - p_i) v_i,   v_i = (1 + rho_i) / (1 - rho_i),
//!                rho_i = 1 - 1/B_i - p_i / (B_i (1 - p_i))
//! r = ceil(m + 4.3 s) + 1
//! ```
//!
//! Where bursts do not matter (B near 1) that is replaced by the exact binomial sum, because the normal tail is
//! too thin above 5 % loss. The repair symbols are themselves lost at the same ratios, which the exact sum counts
//! and the formula does not need at the small ratios it is used for.
//!
//! **It can.** Then a group with more losses than repair symbols is not lost but late: its lane waits for a round
//! trip. The number that costs least, with X losses of the group and a wait worth [`WAIT_SYMBOLS`]:
//!
//! ```text
//! cost(r) = r + E[max(0, X - r)] + WAIT_SYMBOLS P(X > r)
//! ```
//!
//! X is compound Poisson: bursts begin at rate n_i p_i / B_i and have geometric lengths of mean B_i (Panjer's
//! recursion). So independent losses get what lets about one group in a hundred wait, and long bursts, which no
//! sane number covers, get little and are sent again.

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

impl Loss {
    /// Expected losses.
    #[expect(clippy::cast_precision_loss, reason = "counts are below 256")]
    fn mean(&self) -> f64 {
        self.symbols as f64 * self.ratio.clamp(0.0, RATIO_MAX)
    }

    /// The mean burst; 1 for what is no number.
    fn burst_or_one(&self) -> f64 {
        if self.burst >= 1.0 { self.burst } else { 1.0 }
    }
}

/// Residual loss that adaptive protection aims at unless told otherwise.
pub const RESIDUAL: f64 = 1e-5;
/// Loss ratios are taken for at most this.
const RATIO_MAX: f64 = 0.99;
/// Below this loss ratio nothing is added where lost symbols can be sent again in time.
const RATIO_MIN: f64 = 0.000_2;
/// Bursts shorter than this are treated as independent losses.
const BURST_MIN: f64 = 1.2;
/// Standard deviations covered when nothing can be sent again.
const SIGMAS_ALONE: f64 = 4.3;
/// What a group that waits for symbols to be sent again costs, in symbols: part of what its lane could have
/// carried meanwhile. In the simulator goodput is the same from 20 to 1000, and the overhead at 2 % loss in bursts of
/// 8 is 5 % at 20, 8 % at 50, 14 % at 100 and 25 % at 1000.
const WAIT_SYMBOLS: f64 = 50.0;

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
                let most = ceiling_count(source_count, ceiling);
                if retransmit_feasible {
                    cheapest(losses, most.min(room))
                } else {
                    enough(source_count, losses, residual).min(most)
                }
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

/// Repair symbols, `most` or fewer, for the least sum of what is sent and what waiting costs.
#[expect(clippy::cast_precision_loss, reason = "counts are below 256")]
fn cheapest(losses: &[Loss], most: usize) -> usize {
    let (mut mean, mut symbols, mut bursts) = (0.0, 0.0, 0.0);
    for loss in losses {
        mean += loss.mean();
        symbols += loss.symbols as f64;
        bursts += loss.mean() / loss.burst_or_one();
    }
    if symbols <= 0.0 || mean / symbols < RATIO_MIN {
        return 0;
    }
    // lost[n]: probability of n losses; weights[j]: j times the rate of bursts of length j.
    let mut lost = [0.0; GROUP_SYMBOLS_MAX + 1];
    let mut weights = [0.0; GROUP_SYMBOLS_MAX + 1];
    lost[0] = (-bursts).exp();
    let (mut waiting, mut again) = (1.0 - lost[0], mean);
    let (mut least, mut best) = (again + WAIT_SYMBOLS * waiting, 0);
    for r in 1..=most.min(GROUP_SYMBOLS_MAX) {
        let length = i32::try_from(r).unwrap_or(i32::MAX);
        for loss in losses {
            let end = 1.0 / loss.burst_or_one();
            weights[r] += r as f64 * loss.mean() * end * end * (1.0 - end).powi(length - 1);
        }
        let sum: f64 = (1..=r).map(|j| weights[j] * lost[r - j]).sum();
        lost[r] = sum / r as f64;
        again -= waiting;
        waiting = (waiting - lost[r]).max(0.0);
        let cost = r as f64 + again.max(0.0) + WAIT_SYMBOLS * waiting;
        if cost < least {
            (least, best) = (cost, r);
        }
    }
    best
}

/// Repair symbols that leave about `residual` of the sources lost when none is sent again.
#[expect(clippy::cast_precision_loss, reason = "counts are below 256")]
fn enough(source_count: usize, losses: &[Loss], residual: f64) -> usize {
    let (mut mean, mut variance, mut symbols, mut burst) = (0.0, 0.0, 0.0, 1.0_f64);
    for loss in losses {
        let p = loss.ratio.clamp(0.0, RATIO_MAX);
        mean += loss.mean();
        variance += loss.mean() * (1.0 - p) * burst_factor(p, loss.burst);
        symbols += loss.symbols as f64;
        if p > 0.0 {
            burst = burst.max(loss.burst);
        }
    }
    if symbols <= 0.0 || mean <= 0.0 {
        return 0;
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

/// Sources of a full group where data flow fast enough: at 2 % loss 6 % of repair do for it what takes 8 % with half
/// as many, and at 0.1 % the one repair symbol is 1 %. Larger groups gain little and cost decoding time.
const SOURCES_GOOD: u64 = 96;
/// Shortest fill time worth having: groups span at least this much data on fast links.
const FILL_TIME_MIN: Duration = Duration::from_millis(4);
/// Longest fill time as a share of the hold time: repair must arrive before the receiver gives up waiting, and what
/// it does not repair still needs a round trip.
const FILL_SHARE_OF_HOLD: f64 = 0.25;

/// Size and fill time of groups when symbols of `symbol_bytes` flow at `rate` and a receiver waits `hold` for a
/// hole.
pub fn group_limits(rate: Rate, symbol_bytes: usize, hold: Duration) -> GroupLimits {
    let bytes = symbol_bytes.max(1) as u64;
    let wanted = rate.time_for(SOURCES_GOOD * bytes).max(FILL_TIME_MIN);
    let fill_time_max = wanted.min(hold.mul_f64(FILL_SHARE_OF_HOLD));
    let sources = (rate.bytes_in(fill_time_max) / bytes).clamp(1, SOURCES_GOOD);
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
    updated_at: Option<Instant>,
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
            updated_at: None,
        }
    }

    /// Follows another mode from now on; nothing happens when it is the same.
    pub fn set_mode(&mut self, mode: Mode) {
        if mode != self.mode {
            *self = Self::new(mode);
        }
    }

    /// When [`Protection::update`] is due.
    pub fn update_at(&self) -> Instant {
        self.updated_at
            .map_or(Instant::ZERO, |at| at + UPDATE_INTERVAL)
    }

    /// Looks at the losses again, for full groups of `source_count`. Call each [`UPDATE_INTERVAL`].
    pub fn update(
        &mut self,
        source_count: usize,
        losses: &[Loss],
        retransmit_feasible: bool,
        now: Instant,
    ) {
        self.updated_at = Some(now);
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
mod tests;
