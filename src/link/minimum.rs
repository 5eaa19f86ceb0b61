//! Least value of the last 5 to 10 seconds, in two buckets and no memory of samples.
//!
//! Two buckets rather than an exact window: too short a window lets a standing queue become the base, too long a
//! one survives a change of route. A value is forgotten between one and two bucket lengths after it was seen.

use std::time::Duration;

use crate::base::Instant;

/// Length of one bucket. A steady rate below capacity empties the queue well within it.
pub const BUCKET: Duration = Duration::from_secs(5);

/// Windowed minimum.
#[derive(Clone, Copy, Debug, Default)]
pub struct WindowedMin {
    current: Option<i64>,
    previous: Option<i64>,
    started: Instant,
}

impl WindowedMin {
    /// Takes a sample.
    pub fn on_sample(&mut self, value: i64, now: Instant) {
        let age = now.since(self.started);
        if age >= BUCKET {
            self.previous = if age < 2 * BUCKET { self.current } else { None };
            self.current = None;
            self.started = now;
        }
        self.current = Some(self.current.map_or(value, |least| least.min(value)));
    }

    /// The least value; `None` before the first sample.
    pub fn estimate(&self) -> Option<i64> {
        match (self.current, self.previous) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Forgets everything but `value`: the path has changed.
    pub fn reset_to(&mut self, value: i64, now: Instant) {
        *self = Self {
            current: Some(value),
            previous: None,
            started: now,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_a_low_value_after_at_most_two_buckets() {
        let mut least = WindowedMin::default();
        least.on_sample(10, Instant::from_millis(0));
        for ms in (0..4_900).step_by(100) {
            least.on_sample(50, Instant::from_millis(ms));
        }
        assert_eq!(least.estimate(), Some(10));
        for ms in (4_900..10_100).step_by(100) {
            least.on_sample(50, Instant::from_millis(ms));
        }
        assert_eq!(least.estimate(), Some(50));
    }

    #[test]
    fn a_long_pause_forgets_at_once() {
        let mut least = WindowedMin::default();
        least.on_sample(10, Instant::from_millis(0));
        least.on_sample(70, Instant::from_millis(60_000));
        assert_eq!(least.estimate(), Some(70));
    }
}
