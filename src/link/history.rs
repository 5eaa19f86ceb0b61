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

use super::counts::{Bucket, Counts};
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
/// Samples of a slot that are kept one by one, so that an idle link's slots cost what they hold and not a walk over
/// all buckets. 64 in 200 ms are 320 a second.
const FEW: usize = 64;

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

/// What was recorded in one span of [`SLOT`].
#[derive(Clone, Debug)]
struct Slot {
    few: [Bucket; FEW],
    count: usize,
    /// The rest, and the few when there is a rest.
    many: Counts,
}

impl Slot {
    fn new() -> Self {
        Self {
            few: [Bucket::of(0); FEW],
            count: 0,
            many: Counts::default(),
        }
    }

    fn record(&mut self, bucket: Bucket) {
        if self.count < FEW {
            self.few[self.count] = bucket;
        } else {
            if self.count == FEW {
                self.few.iter().for_each(|&few| self.many.add(few));
            }
            self.many.add(bucket);
        }
        self.count += 1;
    }

    fn add_to(&self, counts: &mut Counts) {
        if self.count > FEW {
            counts.add_all(&self.many);
        } else {
            self.few[..self.count]
                .iter()
                .for_each(|&few| counts.add(few));
        }
    }

    fn take_from(&self, counts: &mut Counts) {
        if self.count > FEW {
            counts.take_all(&self.many);
        } else {
            self.few[..self.count]
                .iter()
                .for_each(|&few| counts.take(few));
        }
    }

    fn clear(&mut self) {
        self.many.clear();
        self.count = 0;
    }
}

/// Rotating histograms of one quantity.
#[derive(Clone, Debug)]
pub struct History {
    ring: [Slot; SLOTS],
    merged: Counts,
    slow: [Counts; 2],
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
            ring: std::array::from_fn(|_| Slot::new()),
            merged: Counts::default(),
            slow: [Counts::default(), Counts::default()],
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
        let bucket = Bucket::of(micros);
        self.ring[self.open].record(bucket);
        self.merged.add(bucket);
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
            self.slow[self.slow_next].clear();
            self.slow_next ^= 1;
            self.slow_reset = now;
        }
    }

    /// Adds the open slot to the slow parts and opens the oldest one, whose samples leave the window.
    fn close_slot(&mut self) {
        for slow in &mut self.slow {
            self.ring[self.open].add_to(slow);
        }
        self.open = (self.open + 1) % SLOTS;
        let oldest = &mut self.ring[self.open];
        oldest.take_from(&mut self.merged);
        oldest.clear();
        if self.merged.is_empty() {
            // Forgets how far its values reached.
            self.merged.clear();
        }
    }
}

fn percentiles(counts: &Counts) -> Percentiles {
    if counts.is_empty() {
        return Percentiles::default();
    }
    let values = counts.at([0.0, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0]);
    let [min, p50, p90, p95, p99, p999, max] = values.map(Duration::from_micros);
    Percentiles {
        count: counts.len(),
        min,
        p50,
        p90,
        p95,
        p99,
        p999,
        max,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(value: Duration, ms: u64) -> bool {
        let want = Duration::from_millis(ms);
        value.abs_diff(want) <= want / 50
    }

    /// The greatest value of the fuller slow part.
    fn slow_max(history: &History) -> Duration {
        let [a, b] = &history.slow;
        percentiles(if a.len() > b.len() { a } else { b }).max
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
        assert!(near(slow_max(&history), 100));
        // A long pause empties the window, and the slow part answers.
        let got = *history.refresh(Instant::from_millis(20_000));
        assert!(history.merged.is_empty());
        assert!(near(got.max, 100), "{got:?}");
    }

    #[test]
    fn the_slow_part_forgets_within_a_minute() {
        let mut history = History::new(Instant::ZERO);
        history.record(Duration::from_millis(900), Instant::ZERO);
        for n in 0..6_200_u64 {
            history.record(Duration::from_millis(10), Instant::from_millis(n * 10));
        }
        assert!(near(slow_max(&history), 10));
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
