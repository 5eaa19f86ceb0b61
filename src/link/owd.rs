//! One-way delay: base, queue and the delay above the base.
//!
//! The two clocks have an unknown offset, so a delay means nothing and a difference of two delays of the same
//! pair of clocks means all. Values come as wrapping 32-bit microseconds and are made continuous here.
//!
//! Never does: clock synchronisation. A skew of 200 ppm moves the base by 2 ms in its 10 s window.

use std::time::Duration;

use super::minimum::WindowedMin;
use crate::base::Instant;

/// How far back the queue's least and median look.
const QUEUE_WINDOW: Duration = Duration::from_millis(50);
/// Samples kept for that window: a report each 2 ms for 50 ms, rounded up to a power of two.
const QUEUE_SAMPLES: usize = 32;

/// Delay of a link in one direction, relative to its own base.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delay {
    /// Median above the base.
    pub p50: Duration,
    /// 95th percentile above the base.
    pub p95: Duration,
    /// 99th percentile above the base.
    pub p99: Duration,
    /// Least delay of the last 10 s, receiver clock minus sender clock. Compare two links with [`base_difference`].
    pub base_us: i64,
}

/// `a - b` in microseconds for the bases of two links of the same pair of clocks. The clocks' offset wraps at 32
/// bits and each link was made continuous on its own, so a plain difference could be off by whole turns.
#[allow(clippy::cast_possible_truncation)] // the low 32 bits are what is comparable
pub const fn base_difference(a: i64, b: i64) -> i64 {
    a.wrapping_sub(b) as i32 as i64
}

/// Base, queue and continuity of one direction of one link.
#[derive(Clone, Debug, Default)]
pub struct Owd {
    /// The last value, continuous. `None` before the first sample.
    last: Option<i64>,
    base: WindowedMin,
    ring: [Sample; QUEUE_SAMPLES],
    next: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    at: Instant,
    least: i64,
    last: i64,
    used: bool,
}

impl Sample {
    /// Whether it belongs to the window before the newest one.
    fn is_lately(&self, newest: Instant) -> bool {
        self.used && newest.since(self.at) <= QUEUE_WINDOW
    }
}

impl Owd {
    /// Makes a raw value continuous with those before it.
    #[allow(clippy::cast_possible_truncation)] // the low 32 bits of the last value are what wraps
    pub fn expand(&mut self, raw: i32) -> i64 {
        let value = match self.last {
            None => i64::from(raw),
            Some(last) => last + i64::from(raw.wrapping_sub(last as i32)),
        };
        self.last = Some(value);
        value
    }

    /// Takes the least and the last delay of a reporting interval, continuous.
    pub fn on_sample(&mut self, least: i64, last: i64, now: Instant) {
        self.base.on_sample(least, now);
        self.ring[self.next] = Sample {
            at: now,
            least,
            last,
            used: true,
        };
        self.next = (self.next + 1) % QUEUE_SAMPLES;
    }

    /// Least delay of the last 5 to 10 s, continuous.
    pub fn base_us(&self) -> i64 {
        self.base.estimate().unwrap_or(0)
    }

    /// How far a continuous value stands above the base.
    pub fn above_base(&self, value: i64) -> Duration {
        Duration::from_micros(u64::try_from(value - self.base_us()).unwrap_or(0))
    }

    /// Least queue of the last 50 ms before the latest sample, which ignores jitter and single late bunches.
    pub fn queue_min(&self) -> Duration {
        let newest = self.ring[(self.next + QUEUE_SAMPLES - 1) % QUEUE_SAMPLES];
        if !newest.used {
            return Duration::ZERO;
        }
        let lately = self.ring.iter().filter(|s| s.is_lately(newest.at));
        let least = lately.fold(newest.least, |least, s| least.min(s.least));
        self.above_base(least)
    }

    /// Least and median queue of the last 50 ms before the latest sample.
    pub fn queue(&self) -> (Duration, Duration) {
        let newest = self.ring[(self.next + QUEUE_SAMPLES - 1) % QUEUE_SAMPLES];
        if !newest.used {
            return (Duration::ZERO, Duration::ZERO);
        }
        let mut lasts = [0_i64; QUEUE_SAMPLES];
        let mut count = 0;
        let mut least = newest.least;
        for sample in &self.ring {
            if sample.is_lately(newest.at) {
                least = least.min(sample.least);
                lasts[count] = sample.last;
                count += 1;
            }
        }
        let (_, median, _) = lasts[..count].select_nth_unstable(count / 2);
        (self.above_base(least), self.above_base(*median))
    }

    /// Queue of the latest sample.
    pub fn queue_last(&self) -> Duration {
        let newest = self.ring[(self.next + QUEUE_SAMPLES - 1) % QUEUE_SAMPLES];
        if newest.used {
            self.above_base(newest.least)
        } else {
            Duration::ZERO
        }
    }

    /// Forgets queue and base; the next sample is the new base. Continuity stays.
    pub fn rebase(&mut self) {
        self.base = WindowedMin::default();
        self.ring = [Sample::default(); QUEUE_SAMPLES];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_is_the_least_above_the_base() {
        let mut owd = Owd::default();
        owd.on_sample(1_000, 1_200, Instant::from_millis(0));
        for ms in 100..150 {
            owd.on_sample(9_000, 14_000, Instant::from_millis(ms));
        }
        assert_eq!(owd.base_us(), 1_000);
        assert_eq!(
            owd.queue(),
            (Duration::from_micros(8_000), Duration::from_micros(13_000))
        );
        owd.rebase();
        owd.on_sample(9_000, 9_000, Instant::from_millis(151));
        assert_eq!(owd.queue(), (Duration::ZERO, Duration::ZERO));
    }

    #[test]
    fn values_stay_continuous_where_32_bits_wrap() {
        let mut owd = Owd::default();
        let a = owd.expand(i32::MAX - 10);
        let b = owd.expand(i32::MIN + 10);
        assert_eq!(b - a, 21);
        assert_eq!(owd.expand(i32::MAX) - a, 10);
    }

    #[test]
    fn bases_of_two_links_compare_although_one_began_after_the_wrap() {
        let (mut a, mut b) = (Owd::default(), Owd::default());
        let (a, b) = (a.expand(i32::MAX - 10), b.expand(i32::MIN + 10));
        assert_eq!(base_difference(b, a), 21);
        assert_eq!(base_difference(a, b), -21);
    }
}
