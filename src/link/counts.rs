//! Counters of values in buckets of at most 1/128 of their value: the layout of HdrHistogram with two digits.
//!
//! ```text
//!  value < 256: a bucket each | 256..512: steps of 2 | 512..1024: steps of 4 | ... | values are cut off at the end
//! ```
//!
//! Unlike the library's, counters can be taken away one by one, so that a window of time costs in proportion to what
//! was counted and not to the number of buckets. Never reads a clock; never allocates after it was made.
//!
//! Reference: Gil Tene, HdrHistogram; the tests compare with its port to Rust.

/// Values below this have a bucket each.
const EXACT: u64 = 2 * HALF as u64;
/// Buckets of each doubling above.
const HALF: usize = 128;
/// Doublings above `EXACT`.
const DOUBLINGS: usize = 16;
/// Number of buckets.
const BUCKETS: usize = (2 + DOUBLINGS) * HALF;
/// Largest value; greater ones count as this.
pub const VALUE_MAX: u64 = (EXACT << DOUBLINGS) - 1;

/// Names a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bucket(u16);

impl Bucket {
    /// The bucket of a value.
    pub const fn of(value: u64) -> Self {
        let value = if value > VALUE_MAX { VALUE_MAX } else { value };
        // Number of bits beyond the eight that a bucket tells apart.
        let shift = (EXACT.leading_zeros() + 1).saturating_sub((value | 1).leading_zeros());
        #[allow(clippy::cast_possible_truncation)] // below BUCKETS
        let index = (shift as usize * HALF + (value >> shift) as usize) as u16;
        Self(index)
    }

    /// The largest value of the bucket.
    const fn top(self) -> u64 {
        let index = self.0 as u64;
        if index < EXACT {
            return index;
        }
        let shift = index / HALF as u64 - 1;
        ((index - shift * HALF as u64 + 1) << shift) - 1
    }
}

/// How often each bucket was counted.
#[derive(Clone, Debug)]
pub struct Counts {
    buckets: Box<[u32]>,
    total: u64,
    /// Buckets outside of this range are empty; those at its ends may be.
    low: usize,
    high: usize,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            buckets: vec![0; BUCKETS].into_boxed_slice(),
            total: 0,
            low: BUCKETS,
            high: 0,
        }
    }
}

impl Counts {
    /// How many values are counted.
    pub const fn len(&self) -> u64 {
        self.total
    }

    /// Whether nothing is counted.
    pub const fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// Counts a value.
    pub fn add(&mut self, bucket: Bucket) {
        let index = usize::from(bucket.0);
        self.buckets[index] += 1;
        self.total += 1;
        self.low = self.low.min(index);
        self.high = self.high.max(index);
    }

    /// Takes a value away that was counted.
    pub fn take(&mut self, bucket: Bucket) {
        let count = &mut self.buckets[usize::from(bucket.0)];
        if *count > 0 {
            *count -= 1;
            self.total -= 1;
        }
    }

    /// Counts all that `other` has.
    pub fn add_all(&mut self, other: &Self) {
        for index in other.low..=other.high {
            self.buckets[index] += other.buckets[index];
        }
        self.total += other.total;
        self.low = self.low.min(other.low);
        self.high = self.high.max(other.high);
    }

    /// Takes all away that `other` has, which was counted here.
    pub fn take_all(&mut self, other: &Self) {
        for index in other.low..=other.high {
            self.buckets[index] = self.buckets[index].saturating_sub(other.buckets[index]);
        }
        self.total = self.total.saturating_sub(other.total);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        if self.low <= self.high {
            self.buckets[self.low..=self.high].fill(0);
        }
        (self.total, self.low, self.high) = (0, BUCKETS, 0);
    }

    /// The values at some quantiles, which must ascend, in one pass.
    pub fn at<const N: usize>(&self, quantiles: [f64; N]) -> [u64; N] {
        let mut values = [0; N];
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss
        )] // a count of samples, rounded up
        let ranks = quantiles.map(|q| ((q * self.total as f64).ceil() as u64).max(1));
        let (mut next, mut seen) = (0, 0);
        for index in self.low..=self.high.min(BUCKETS - 1) {
            seen += u64::from(self.buckets[index]);
            while next < N && seen >= ranks[next] {
                #[allow(clippy::cast_possible_truncation)] // below BUCKETS
                let bucket = Bucket(index as u16);
                values[next] = bucket.top();
                next += 1;
            }
            if next == N {
                break;
            }
        }
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Rng;
    use hdrhistogram::Histogram;

    fn value(rng: &mut Rng) -> u64 {
        let bits = rng.next_u64() % 24 + 1;
        rng.next_u64() % (1 << bits) + 1
    }

    #[test]
    fn agrees_with_the_library() {
        let mut rng = Rng::new(3);
        for samples in [1, 2, 10, 1_000] {
            let mut counts = Counts::default();
            let mut oracle = Histogram::<u32>::new_with_bounds(1, VALUE_MAX, 2).unwrap();
            for _ in 0..samples {
                let value = value(&mut rng);
                counts.add(Bucket::of(value));
                oracle.saturating_record(value);
            }
            let quantiles = [0.0, 0.5, 0.9, 0.99, 1.0];
            let want = quantiles.map(|q| oracle.value_at_quantile(q));
            let got = counts.at(quantiles);
            // The least of the library is the start of its bucket.
            assert_eq!(got[1..], want[1..], "{samples}");
            assert_eq!(counts.len(), samples);
        }
    }

    #[test]
    fn what_was_added_can_be_taken_away() {
        let mut rng = Rng::new(4);
        let (mut all, mut kept, mut gone) =
            (Counts::default(), Counts::default(), Counts::default());
        for n in 0..2_000 {
            let bucket = Bucket::of(value(&mut rng));
            all.add(bucket);
            if n % 3 == 0 { &mut kept } else { &mut gone }.add(bucket);
        }
        all.take_all(&gone);
        assert_eq!(all.at([0.1, 0.5, 1.0]), kept.at([0.1, 0.5, 1.0]));
        all.add_all(&gone);
        assert_eq!(all.len(), 2_000);
        all.clear();
        assert!(all.is_empty());
        assert_eq!(all.at([0.5]), [0]);
        all.add(Bucket::of(77));
        all.take(Bucket::of(77));
        all.take(Bucket::of(77));
        assert!(all.is_empty());
    }

    #[test]
    fn buckets_grow_with_their_values_and_have_an_end() {
        for value in [1, 255, 256, 257, 511, 512, 100_000, VALUE_MAX] {
            let top = Bucket::of(value).top();
            assert!(top >= value && top - value <= value / 128, "{value} {top}");
            assert!(Bucket::of(value) > Bucket::of(value - value / 64 - 1));
        }
        assert_eq!(Bucket::of(u64::MAX), Bucket::of(VALUE_MAX));
    }
}
