//! Delays of the recent past as HDR histograms: what happened in the last two seconds, and in the last minute.
//!
//! ```text
//!  record ──► slot 0 1 2 ... 9 (a ring)      merged = sum of the ring       slow[0], slow[1]: 30-60 s each
//!                  │ a slot closes ─► slow     │ a slot expires ─► minus
//! ```
//!
//! Recording is O(1) and does not allocate: one counter in the slot and one in the sum. Percentiles are computed
//! at most every 100 ms into a snapshot. Under 50 samples the last two seconds are noise; the slow part answers.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::base::Instant;

/// Slots of the ring and the length of each: the merged window is two seconds.
const SLOTS: usize = 10;
const SLOT: Duration = Duration::from_millis(200);
/// Each of the two slow parts is emptied after this long, in turn; the fuller one answers.
const SLOW: Duration = Duration::from_secs(30);
/// Below this many samples in the window the slow part answers.
const SAMPLES_MIN: u64 = 50;
/// Percentiles are at most this old when asked for.
const REFRESH: Duration = Duration::from_millis(100);
/// Range and precision: 1 us to 10 s in 2 significant digits are 2304 counters.
const MICROS_MAX: u64 = 10_000_000;

/// A snapshot of a [`History`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Percentiles {
    /// Samples it was made of.
    pub count: u64,
    /// Least value.
    pub min: Duration,
    /// Median.
    pub p50: Duration,
    /// 90th percentile.
    pub p90: Duration,
    /// 95th percentile.
    pub p95: Duration,
    /// 99th percentile.
    pub p99: Duration,
    /// 99.9th percentile.
    pub p999: Duration,
    /// Greatest value.
    pub max: Duration,
}

/// Rotating histograms of one quantity.
#[derive(Clone, Debug)]
pub struct History {
    ring: [Histogram<u32>; SLOTS],
    merged: Histogram<u32>,
    slow: [Histogram<u32>; 2],
    open: usize,
    opened: Instant,
    slow_reset: Instant,
    slow_next: usize,
    snapshot: Percentiles,
    refreshed: Option<Instant>,
}

impl History {
    /// An empty history. This is the only place that allocates.
    pub fn new(now: Instant) -> Self {
        Self {
            ring: std::array::from_fn(|_| empty()),
            merged: empty(),
            slow: [empty(), empty()],
            open: 0,
            opened: now,
            slow_reset: now,
            slow_next: 0,
            snapshot: Percentiles::default(),
            refreshed: None,
        }
    }

    /// Records one delay.
    pub fn record(&mut self, value: Duration, now: Instant) {
        self.rotate(now);
        let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX).max(1);
        self.ring[self.open].saturating_record(micros);
        self.merged.saturating_record(micros);
    }

    /// The percentiles of the last two seconds (of up to a minute under 50 samples), at most 100 ms old.
    pub fn refresh(&mut self, now: Instant) -> &Percentiles {
        let old = self.refreshed.is_none_or(|at| now.since(at) >= REFRESH);
        if old {
            self.rotate(now);
            self.refreshed = Some(now);
            let [a, b] = &self.slow;
            let fuller = if a.len() > b.len() { a } else { b };
            self.snapshot = if self.merged.len() >= SAMPLES_MIN || self.merged.len() >= fuller.len()
            {
                percentiles(&self.merged)
            } else {
                percentiles(fuller)
            };
        }
        &self.snapshot
    }

    /// The percentiles as of the last [`History::refresh`].
    pub const fn snapshot(&self) -> &Percentiles {
        &self.snapshot
    }

    /// The histogram of the last two seconds, for export. Values are microseconds.
    pub const fn recent(&self) -> &Histogram<u32> {
        &self.merged
    }

    /// The histogram of the last 30 to 60 seconds, for export; the last 200 ms are not in it yet.
    pub fn slow(&self) -> &Histogram<u32> {
        let [a, b] = &self.slow;
        if a.len() > b.len() { a } else { b }
    }

    fn rotate(&mut self, now: Instant) {
        let mut steps = 0;
        while now.since(self.opened) >= SLOT {
            self.close_slot();
            self.opened += SLOT;
            steps += 1;
            if steps == SLOTS {
                // The ring is empty; the rest of a long pause has nothing to rotate.
                self.opened = now;
            }
        }
        if now.since(self.slow_reset) >= SLOW {
            self.slow[self.slow_next].reset();
            self.slow_next ^= 1;
            self.slow_reset = now;
        }
    }

    /// Adds the open slot to the slow parts and opens the oldest one, whose samples leave the window.
    fn close_slot(&mut self) {
        if !self.ring[self.open].is_empty() {
            for slow in &mut self.slow {
                // Cannot fail: all have the same bounds.
                let _ = slow.add(&self.ring[self.open]);
            }
        }
        self.open = (self.open + 1) % SLOTS;
        let oldest = &mut self.ring[self.open];
        if !oldest.is_empty() {
            // Cannot fail: the sum holds every sample of each slot.
            let _ = self.merged.subtract(&*oldest);
            oldest.reset();
        }
    }
}

#[expect(
    clippy::expect_used,
    reason = "the bounds are constants and valid; a test constructs one"
)]
fn empty() -> Histogram<u32> {
    Histogram::new_with_bounds(1, MICROS_MAX, 2).expect("constant bounds are valid")
}

fn percentiles(histogram: &Histogram<u32>) -> Percentiles {
    if histogram.is_empty() {
        return Percentiles::default();
    }
    let at = |quantile| Duration::from_micros(histogram.value_at_quantile(quantile));
    Percentiles {
        count: histogram.len(),
        min: Duration::from_micros(histogram.min()),
        p50: at(0.5),
        p90: at(0.9),
        p95: at(0.95),
        p99: at(0.99),
        p999: at(0.999),
        max: Duration::from_micros(histogram.max()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(value: Duration, ms: u64) -> bool {
        let want = Duration::from_millis(ms);
        value.abs_diff(want) <= want / 50
    }

    #[test]
    fn percentiles_are_those_of_a_sorted_list() {
        let mut history = History::new(Instant::ZERO);
        for n in 1..=1_000_u64 {
            history.record(Duration::from_millis(n), Instant::from_millis(n));
        }
        let got = *history.refresh(Instant::from_millis(1_000));
        assert_eq!(got.count, 1_000);
        assert!(
            near(got.p50, 500) && near(got.p95, 950) && near(got.p999, 999),
            "{got:?}"
        );
    }

    #[test]
    fn old_samples_leave_after_two_seconds_and_stay_in_the_slow_part() {
        let mut history = History::new(Instant::ZERO);
        for n in 0..1_000_u64 {
            history.record(Duration::from_millis(100), Instant::from_millis(n));
        }
        for n in 1_000..4_000_u64 {
            history.record(Duration::from_millis(10), Instant::from_millis(n));
        }
        let got = *history.refresh(Instant::from_millis(4_000));
        assert!(near(got.max, 10), "{got:?}");
        assert!(near(Duration::from_micros(history.slow().max()), 100));
        // A long pause empties the window, and the slow part answers.
        let got = *history.refresh(Instant::from_millis(20_000));
        assert_eq!(history.recent().len(), 0);
        assert!(near(got.max, 100), "{got:?}");
    }

    #[test]
    fn the_slow_part_forgets_within_a_minute() {
        let mut history = History::new(Instant::ZERO);
        history.record(Duration::from_millis(900), Instant::ZERO);
        for n in 0..6_200_u64 {
            history.record(Duration::from_millis(10), Instant::from_millis(n * 10));
        }
        assert!(near(Duration::from_micros(history.slow().max()), 10));
    }

    #[test]
    fn the_snapshot_is_made_at_most_every_100_ms() {
        let mut history = History::new(Instant::ZERO);
        history.record(Duration::from_millis(1), Instant::ZERO);
        assert_eq!(history.refresh(Instant::from_millis(1)).count, 1);
        history.record(Duration::from_millis(1), Instant::from_millis(2));
        assert_eq!(history.refresh(Instant::from_millis(50)).count, 1);
        assert_eq!(history.refresh(Instant::from_millis(101)).count, 2);
    }
}
