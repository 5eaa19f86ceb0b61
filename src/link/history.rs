//! Delays of the recent past as HDR histograms: what happened in the last two seconds, and in the last minute.
//!
//! ```text
//!  record ──► slot 0 1 2 ... 9 (a ring)      sum of the ring                slow[0], slow[1]: 30-60 s each
//!                  │ a slot closes ─► slow     │ a slot expires ─► summed again
//! ```
//!
//! Recording is O(1): one counter in the slot and one in the sum. Percentiles are computed at most every 100 ms into a
//! snapshot. Under 50 samples the last two seconds are noise; the slow part answers. A slot keeps its first samples as
//! they are and makes itself a histogram beyond, once; the sum is made when the ring holds many, and until then percentiles
//! come from the sorted samples. Links that idle cost a few numbers and no walks over buckets.
//!
//! Reference: Gil Tene, HdrHistogram.

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
/// Those of the slow part, which change little from then on, when they have this many samples.
const SLOW_REFRESH: Duration = Duration::from_secs(1);
const SLOW_SAMPLES: u64 = 200;
/// Samples of a slot that are kept one by one: 64 in 200 ms are 320 a second.
const FEW: usize = 64;
/// Samples of the ring that are sorted rather than summed: an idle link's of two seconds, three for each report.
const FEW_IN_ALL: usize = 256;
/// Range and precision: 1 us to 10 s in 2 significant digits are 2304 counters.
const MICROS_MAX: u32 = 10_000_000;
/// Values of this many bits and fewer have a counter of their own; those of each bit more share theirs with twice as many.
const EXACT_BITS: u32 = 8;

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
    few: [u32; FEW],
    count: usize,
    /// All of them, when they are not few.
    many: Option<Box<Histogram<u32>>>,
}

impl Slot {
    const fn new() -> Self {
        Self {
            few: [0; FEW],
            count: 0,
            many: None,
        }
    }

    fn record(&mut self, micros: u32) {
        if self.count < FEW {
            self.few[self.count] = micros;
        } else {
            let many = self.many.get_or_insert_with(|| Box::new(empty()));
            if self.count == FEW {
                record_all(many, &self.few);
            }
            many.saturating_record(u64::from(micros));
        }
        self.count += 1;
    }

    fn add_to(&self, sum: &mut Histogram<u32>) {
        match &self.many {
            Some(many) if self.count > FEW => {
                let added = sum.add(many.as_ref());
                debug_assert!(added.is_ok(), "all histograms have one range");
            }
            _ => record_all(sum, &self.few[..self.count]),
        }
    }

    fn clear(&mut self) {
        if self.count > FEW
            && let Some(many) = &mut self.many
        {
            many.reset();
        }
        self.count = 0;
    }
}

/// Rotating histograms of one quantity.
#[derive(Clone, Debug)]
pub struct History {
    ring: [Slot; SLOTS],
    /// Samples in the ring.
    count: usize,
    /// Their sum, if `summed`; the room for it stays.
    sum: Option<Box<Histogram<u32>>>,
    summed: bool,
    slow: [Histogram<u32>; 2],
    open: usize,
    opened: Instant,
    slow_reset: Instant,
    slow_next: usize,
    snapshot: Percentiles,
    refreshed: Option<Instant>,
    slow_snapshot: Percentiles,
    slow_refreshed: Instant,
}

impl History {
    /// An empty history.
    pub fn new(now: Instant) -> Self {
        Self {
            ring: [const { Slot::new() }; SLOTS],
            count: 0,
            sum: None,
            summed: false,
            slow: [empty(), empty()],
            open: 0,
            opened: now,
            slow_reset: now,
            slow_next: 0,
            snapshot: Percentiles::default(),
            refreshed: None,
            slow_snapshot: Percentiles::default(),
            slow_refreshed: now,
        }
    }

    /// Records one delay. Allocates when a slot or the ring has more than a few samples for the first time, and never
    /// again.
    pub fn record(&mut self, value: Duration, now: Instant) {
        self.rotate(now);
        let micros = u32::try_from(value.as_micros()).unwrap_or(MICROS_MAX);
        let micros = micros.clamp(1, MICROS_MAX);
        let slot = &mut self.ring[self.open];
        slot.record(micros);
        self.count += 1;
        let many = slot.count > FEW || self.count > FEW_IN_ALL;
        match &mut self.sum {
            Some(sum) if self.summed => sum.saturating_record(u64::from(micros)),
            _ if many => self.sum_up(),
            _ => {}
        }
    }

    /// The percentiles of the last two seconds (of up to a minute under 50 samples), at most 100 ms old.
    pub fn refresh(&mut self, now: Instant) -> &Percentiles {
        let old = self.refreshed.is_none_or(|at| now.since(at) >= REFRESH);
        if old {
            self.rotate(now);
            self.refreshed = Some(now);
            let count = self.count as u64;
            let slow_count = self.slow_fuller().len();
            self.snapshot = if count >= SAMPLES_MIN || count >= slow_count {
                self.window()
            } else {
                self.slow_percentiles(now)
            };
        }
        &self.snapshot
    }

    /// The percentiles of the ring.
    fn window(&self) -> Percentiles {
        if let Some(sum) = self.sum.as_ref().filter(|_| self.summed) {
            return percentiles(sum);
        }
        let mut samples = [0; FEW_IN_ALL];
        let mut count = 0;
        for slot in &self.ring {
            samples[count..count + slot.count].copy_from_slice(&slot.few[..slot.count]);
            count += slot.count;
        }
        percentiles_of_few(&mut samples[..count])
    }

    /// Makes the sum of the ring.
    fn sum_up(&mut self) {
        let sum = self.sum.get_or_insert_with(|| Box::new(empty()));
        sum.reset();
        for slot in &self.ring {
            slot.add_to(sum);
        }
        self.summed = true;
    }

    fn slow_fuller(&self) -> &Histogram<u32> {
        let [a, b] = &self.slow;
        if a.len() > b.len() { a } else { b }
    }

    fn slow_percentiles(&mut self, now: Instant) -> Percentiles {
        let counted = self.slow_fuller().len();
        let known = self.slow_snapshot.count;
        let young = now.since(self.slow_refreshed) < SLOW_REFRESH;
        if known < SLOW_SAMPLES.min(counted) || (!young && known != counted) {
            self.slow_snapshot = percentiles(self.slow_fuller());
            self.slow_refreshed = now;
        }
        self.slow_snapshot
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
            self.slow[self.slow_next].reset();
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
        if oldest.count == 0 {
            return;
        }
        self.count -= oldest.count;
        oldest.clear();
        if !self.summed {
            return;
        }
        // Half of what makes it many, so that a link at the edge does not change over and over.
        if self.count > FEW_IN_ALL / 2 || self.ring.iter().any(|slot| slot.count > FEW) {
            self.sum_up();
        } else {
            self.summed = false;
        }
    }
}

fn empty() -> Histogram<u32> {
    #[allow(clippy::expect_used)] // constants
    Histogram::new_with_bounds(1, u64::from(MICROS_MAX), 2).expect("bounds are valid")
}

fn record_all(histogram: &mut Histogram<u32>, micros: &[u32]) {
    for &micros in micros {
        histogram.saturating_record(u64::from(micros));
    }
}

/// What a histogram of the samples would say, to the microsecond.
fn percentiles_of_few(samples: &mut [u32]) -> Percentiles {
    samples.sort_unstable();
    let (Some(&first), Some(&last)) = (samples.first(), samples.last()) else {
        return Percentiles::default();
    };
    let width = |micros: u32| 1 << (u32::BITS - micros.leading_zeros()).saturating_sub(EXACT_BITS);
    let least = |micros: u32| Duration::from_micros(u64::from(micros & !(width(micros) - 1)));
    let most = |micros: u32| Duration::from_micros(u64::from(micros | (width(micros) - 1)));
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss
    )] // a place in a short list
    let at = |quantile: f64| {
        let place = (quantile * samples.len() as f64).ceil() as usize;
        most(samples[place.clamp(1, samples.len()) - 1])
    };
    Percentiles {
        count: samples.len() as u64,
        min: least(first),
        p50: at(0.5),
        p90: at(0.9),
        p95: at(0.95),
        p99: at(0.99),
        p999: at(0.999),
        max: most(last),
    }
}

fn percentiles(of: &Histogram<u32>) -> Percentiles {
    if of.is_empty() {
        return Percentiles::default();
    }
    let at = |quantile| Duration::from_micros(of.value_at_quantile(quantile));
    Percentiles {
        count: of.len(),
        min: Duration::from_micros(of.min()),
        p50: at(0.5),
        p90: at(0.9),
        p95: at(0.95),
        p99: at(0.99),
        p999: at(0.999),
        max: Duration::from_micros(of.max()),
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
        percentiles(history.slow_fuller()).max
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
        assert_eq!(history.count, 0);
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

    #[test]
    fn few_samples_and_many_are_counted_alike() {
        for each in [1, 7, FEW as u64 - 1, FEW as u64, FEW as u64 + 1, 120, 500] {
            let mut history = History::new(Instant::ZERO);
            let mut oracle = empty();
            // Three slots, and two of them twelve slots later, when the first three are over.
            for slot in [0, 1, 2, 12, 13] {
                for n in 0..each {
                    let micros = 100 + 37 * n + 1_000 * slot;
                    let at = Instant::from_millis(slot * 200 + n % 200);
                    history.record(Duration::from_micros(micros), at);
                    if slot > 2 {
                        oracle.record(micros).unwrap();
                    }
                }
            }
            let _ = history.refresh(Instant::from_millis(13 * 200 + 199));
            assert_eq!(history.window(), percentiles(&oracle), "{each}");
        }
    }

    #[test]
    fn a_window_of_few_and_of_many_samples_says_what_one_histogram_would() {
        let mut rng = crate::base::Rng::new(3);
        let mut history = History::new(Instant::ZERO);
        let mut model: Vec<(Instant, u32)> = Vec::new();
        let (mut now, mut gap_us) = (Instant::ZERO, 20_000);
        let (mut sorted, mut summed) = (0, 0);
        for _ in 0..20_000 {
            if rng.chance(0.002) {
                gap_us = [300, 3_000, 10_000, 30_000][usize::try_from(rng.below(4)).unwrap()];
            }
            now += Duration::from_micros(gap_us);
            let bits = 1 + rng.below(22);
            let micros = 1 + u32::try_from(rng.below(1 << bits)).unwrap();
            history.record(Duration::from_micros(micros.into()), now);
            model.push((now, micros));
            if rng.chance(0.1) {
                let begin = history.opened - SLOT * 9;
                let mut oracle = empty();
                model.retain(|(at, _)| *at >= begin);
                model
                    .iter()
                    .for_each(|(_, micros)| oracle.record(u64::from(*micros)).unwrap());
                assert_eq!(history.window(), percentiles(&oracle));
                *(if history.summed {
                    &mut summed
                } else {
                    &mut sorted
                }) += 1;
            }
        }
        assert!(sorted > 100 && summed > 100, "{sorted}, {summed}");
    }
}
