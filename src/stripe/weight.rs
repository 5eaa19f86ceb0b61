//! The figures behind a pick: quality, weight, delay term and bound of committed backlog of each link.
//!
//! Pure arithmetic on numbers the caller brings; keeps no state and does not know where the numbers are from.
//!
//! ```text
//! D_i = p50 + 0.5 (p95 - p50)                       delay term, also the latency of the quality
//! Q_i = (min D / D_i)^rtt_weight * (1 - p/p_max)^loss_weight          in (0, 1]
//! W_i = C_i * Q_i^(1 - load)                        striping weight, bits per second
//! B_i = (D_max - D_i) + 2 ms                        most backlog committed to the link
//! ```
//!
//! The capacity factor in W is what keeps a slow link with good delay from getting more than it carries: without
//! it 38-45 % of the summed capacity were measured, with it 95 %.

use std::time::Duration;

use crate::base::Rate;
use crate::base::id::LINKS_MAX;

/// What the caller knows of one link.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    /// What the link may carry; links of one WAN share its capacity.
    pub capacity: Rate,
    /// Median of the one-way delay above the base of the fastest link, queue included.
    pub delay_p50: Duration,
    /// 95th percentile of the same.
    pub delay_p95: Duration,
    /// What is added to the relative delays to compare them as latencies, usually half the smallest RTT. The
    /// same for all links.
    pub delay_base: Duration,
    /// Loss ratio, 0-1.
    pub loss: f64,
}

impl Figures {
    /// Of no link: for tables.
    pub const NONE: Self = Self {
        capacity: Rate::ZERO,
        delay_p50: Duration::ZERO,
        delay_p95: Duration::ZERO,
        delay_base: Duration::ZERO,
        loss: 0.0,
    };
}

/// What follows for one link; the fields of a [`super::Candidate`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Assessment {
    /// D_i: relative one-way delay with half its spread.
    pub delay: Duration,
    /// Q_i in (0, 1].
    pub quality: f64,
    /// W_i: the striping weight in bits per second.
    pub weight: f64,
    /// B_i: most backlog that may be committed to the link.
    pub backlog_max: Duration,
    /// Carries so little at such a delay that it would slow everybody down: not for ordinary data.
    pub outlier: bool,
}

/// `rtt_weight` and `loss_weight` of the configuration: exponents of the quality's two factors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exponents {
    /// Exponent of the latency factor.
    pub rtt: f64,
    /// Exponent of the loss factor.
    pub loss: f64,
}

impl Default for Exponents {
    fn default() -> Self {
        Self {
            rtt: 0.7,
            loss: 0.3,
        }
    }
}

/// Fills `out[i]` for `links[i]`, for up to [`LINKS_MAX`] links that may carry data; `load` is the part of the
/// summed capacity in use, 0-1.
///
/// # Panics
/// If there are more than [`LINKS_MAX`] links or `out` is shorter than `links`.
pub fn assess(links: &[Figures], exponents: Exponents, load: f64, out: &mut [Assessment]) {
    assert!(
        links.len() <= LINKS_MAX && out.len() >= links.len(),
        "one assessment for each link"
    );
    for (link, a) in links.iter().zip(out.iter_mut()) {
        a.delay = delay(link.delay_p50, link.delay_p95);
    }
    let out = &mut out[..links.len()];
    mark_outliers(links, out);
    let used = || links.iter().zip(out.iter()).filter(|(_, a)| !a.outlier);
    let latency_min = used()
        .map(|(l, a)| l.delay_base + a.delay)
        .min()
        .unwrap_or_default();
    let delay_max = used().map(|(_, a)| a.delay).max().unwrap_or_default();
    for (link, a) in links.iter().zip(out.iter_mut()) {
        a.quality = quality(link.delay_base + a.delay, latency_min, link.loss, exponents);
        a.weight = weight(link.capacity, a.quality, load);
        a.backlog_max = backlog_max(a.delay, delay_max);
    }
}

/// D_i and L_i: the median and half the way to the 95th percentile (kappa = 0.5).
pub fn delay(p50: Duration, p95: Duration) -> Duration {
    p50 + p95.saturating_sub(p50) / 2
}

/// Q_i in [[`QUALITY_MIN`], 1].
pub fn quality(latency: Duration, latency_min: Duration, loss: f64, exponents: Exponents) -> f64 {
    // A microsecond keeps two links without any delay from dividing zero by zero.
    let micros = |d: Duration| d.as_secs_f64().mul_add(1e6, 1.0);
    let latency_factor = (micros(latency_min) / micros(latency)).min(1.0);
    let loss_factor = (1.0 - loss / LOSS_MAX).clamp(0.0, 1.0);
    let product = latency_factor.powf(exponents.rtt) * loss_factor.powf(exponents.loss);
    if product.is_nan() {
        QUALITY_MIN
    } else {
        product.clamp(QUALITY_MIN, 1.0)
    }
}

/// W_i in bits per second: at full load the capacity, at no load capacity times quality.
#[expect(
    clippy::cast_precision_loss,
    reason = "a weight needs no more than 53 bits"
)]
pub fn weight(capacity: Rate, quality: f64, load: f64) -> f64 {
    capacity.bits_per_s() as f64 * quality.powf(1.0 - load.clamp(0.0, 1.0))
}

/// B_i: a fast link may be committed ahead by as much as the slowest one is slower, so that what is given to both
/// at one moment arrives at one moment; 2 ms more keep every link busy between two decisions.
pub fn backlog_max(delay: Duration, delay_max: Duration) -> Duration {
    delay_max.saturating_sub(delay).min(BACKLOG_SPREAD_MAX) + BACKLOG_EXTRA
}

/// Loss ratio at which a link has no quality left. FEC at the usual ceiling repairs up to about this.
pub const LOSS_MAX: f64 = 0.05;
/// Smallest quality: a bad link stays better than none, and weights stay positive.
pub const QUALITY_MIN: f64 = 0.001;
/// Difference of delay that a fast link's backlog makes up for, at most. With less than the whole difference a far link
/// is used too early: the flow then waits for it, and with the window it has gets less than the fast links alone carry.
/// Beyond this the inner round trip would be all queue.
pub const BACKLOG_SPREAD_MAX: Duration = Duration::from_millis(150);
/// q0 of [`backlog_max`]: four pacing quanta of 0.5 ms.
pub const BACKLOG_EXTRA: Duration = Duration::from_millis(2);

/// A link below this part of the summed capacity can be left out without much loss...
const OUTLIER_SHARE: f64 = 0.05;
/// ...and is when its delay is more than this many times the weighted median: every ordered lane would wait for it.
const OUTLIER_DELAY_RATIO: u32 = 4;
/// Relative delays are tiny when all links are alike: below this difference nobody is an outlier.
const OUTLIER_DELAY_MIN: Duration = Duration::from_millis(20);

fn mark_outliers(links: &[Figures], out: &mut [Assessment]) {
    let total: u64 = links
        .iter()
        .map(|l| l.capacity.bits_per_s())
        .fold(0, u64::saturating_add);
    let median = weighted_median_latency(links, out, total);
    for (link, a) in links.iter().zip(out.iter_mut()) {
        let latency = link.delay_base + a.delay;
        a.outlier = link.capacity < Rate::from_bits_per_s(total).mul_f64(OUTLIER_SHARE)
            && latency > median * OUTLIER_DELAY_RATIO
            && latency > median + OUTLIER_DELAY_MIN;
    }
}

/// The latency below or at which half of the capacity lies. Quadratic in at most 32 links, ten times a second.
fn weighted_median_latency(links: &[Figures], out: &[Assessment], total: u64) -> Duration {
    let latency = |i: usize| links[i].delay_base + out[i].delay;
    (0..links.len())
        .filter(|&i| {
            let up_to = (0..links.len())
                .filter(|&j| latency(j) <= latency(i))
                .map(|j| links[j].capacity.bits_per_s())
                .fold(0, u64::saturating_add);
            up_to >= total / 2
        })
        .map(latency)
        .min()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn link(mbps: u64, p50: u64, p95: u64, loss: f64) -> Figures {
        Figures {
            capacity: Rate::from_mbps(mbps),
            delay_p50: ms(p50),
            delay_p95: ms(p95),
            delay_base: ms(10),
            loss,
        }
    }

    fn assessed(links: &[Figures], load: f64) -> Vec<Assessment> {
        let mut out = vec![Assessment::default(); links.len()];
        assess(links, Exponents::default(), load, &mut out);
        out
    }

    #[test]
    fn figures_follow_the_formulas() {
        let links = [
            link(100, 0, 0, 0.0),
            link(50, 10, 14, 0.0),
            link(20, 20, 20, 0.025),
        ];
        let out = assessed(&links, 0.0);
        assert_eq!(
            out.iter().map(|a| a.delay).collect::<Vec<_>>(),
            [ms(0), ms(12), ms(20)]
        );
        let backlogs: Vec<_> = out.iter().map(|a| a.backlog_max).collect();
        assert_eq!(backlogs, [ms(22), ms(10), ms(2)]);
        let qualities = [
            1.0,
            (10.0_f64 / 22.0).powf(0.7),
            (1.0_f64 / 3.0).powf(0.7) * 0.5_f64.powf(0.3),
        ];
        for (a, expected) in out.iter().zip(qualities) {
            assert!(
                (a.quality - expected).abs() < 1e-3,
                "{} {expected}",
                a.quality
            );
        }
        assert!((out[1].weight - 50e6 * out[1].quality).abs() < 1.0);
    }

    #[test]
    fn at_full_load_the_weight_is_the_capacity() {
        let out = assessed(&[link(100, 0, 0, 0.0), link(20, 30, 90, 0.04)], 1.0);
        assert!((out[0].weight - 100e6).abs() < 1.0 && (out[1].weight - 20e6).abs() < 1.0);
    }

    #[test]
    fn quality_stays_in_its_range_for_any_input() {
        for loss in [-1.0, 0.0, 0.05, 0.2, 1.0, f64::NAN, f64::INFINITY] {
            for latency in [
                Duration::ZERO,
                ms(1),
                Duration::from_secs(100),
                Duration::MAX,
            ] {
                let q = quality(latency, ms(5), loss, Exponents::default());
                assert!((QUALITY_MIN..=1.0).contains(&q), "{loss} {latency:?} {q}");
            }
        }
    }

    #[test]
    fn a_small_and_very_slow_link_does_not_set_the_pace_of_the_others() {
        let mut links = [
            link(100, 0, 0, 0.0),
            link(50, 5, 5, 0.0),
            link(3, 300, 300, 0.0),
        ];
        let out = assessed(&links, 0.5);
        assert_eq!(
            out.iter().map(|a| a.outlier).collect::<Vec<_>>(),
            [false, false, true]
        );
        assert_eq!(out[0].backlog_max, ms(7));
        // The same delay on a link worth having.
        links[2].capacity = Rate::from_mbps(20);
        let out = assessed(&links, 0.5);
        assert!(!out[2].outlier);
        assert_eq!(out[0].backlog_max, BACKLOG_SPREAD_MAX + BACKLOG_EXTRA);
    }

    #[test]
    fn no_links_and_dead_links_are_no_problem() {
        assess(&[], Exponents::default(), 0.5, &mut []);
        let out = assessed(&[link(0, 0, 0, 1.0), link(0, 0, 0, 1.0)], 0.5);
        assert!(out.iter().all(|a| a.quality > 0.0 && !a.outlier));
    }
}
