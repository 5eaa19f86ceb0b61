//! What something costs: processor time of this thread for each unit of work, taken often, so that what else the
//! machine does hits some of the takes and not the median.

use std::time::Duration;

use serde::Serialize;

use crate::sys::clock::thread_time;

/// Fewest takes of a figure.
const TAKES_MIN: usize = 20;
/// Shortest take: reading the clock is a system call.
const TAKE_MIN: Duration = Duration::from_micros(500);
/// Part of the takes that were disturbed least.
const QUIET_PART: usize = 20;

/// Cost of a unit in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Cost {
    /// Median of the takes.
    pub median_ns: f64,
    /// The best twentieth of them: what it costs when nothing disturbs.
    pub best_ns: f64,
}

impl Cost {
    /// From the takes.
    pub fn of(mut takes: Vec<f64>) -> Self {
        takes.sort_by(f64::total_cmp);
        let at = |index: usize| takes.get(index).copied().unwrap_or_default();
        Self {
            median_ns: at(takes.len() / 2),
            best_ns: at(takes.len() / QUIET_PART),
        }
    }

    /// Units in a second of one core.
    pub fn per_s(&self) -> f64 {
        if self.median_ns > 0.0 {
            1e9 / self.median_ns
        } else {
            0.0
        }
    }
}

/// Measures an operation for about `span` of processor time; each call of `work` does `units` of it.
pub fn cost(span: Duration, units: u32, mut work: impl FnMut()) -> Cost {
    let end = thread_time() + span;
    let (mut takes, mut calls) = (Vec::new(), 1_u32);
    while takes.len() < TAKES_MIN || thread_time() < end {
        let before = thread_time();
        (0..calls).for_each(|_| work());
        let took = thread_time().saturating_sub(before);
        if took < TAKE_MIN {
            calls = calls.saturating_mul(2);
        } else {
            takes.push(nanos(took) / f64::from(calls) / f64::from(units));
        }
    }
    Cost::of(takes)
}

/// What reading the clock twice takes, where nothing is done between.
pub fn clock_cost() -> Duration {
    let empty = |_| {
        let before = thread_time();
        thread_time().saturating_sub(before)
    };
    let mut takes: Vec<Duration> = (0..101).map(empty).collect();
    takes.sort_unstable();
    takes[takes.len() / 2]
}

/// As a number.
pub fn nanos(span: Duration) -> f64 {
    span.as_secs_f64() * 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_and_the_quiet_part_are_taken() {
        let cost = Cost::of((0..100_u32).rev().map(f64::from).collect());
        assert!((cost.median_ns - 50.0).abs() < 1e-9 && (cost.best_ns - 5.0).abs() < 1e-9);
        assert!((cost.per_s() - 2e7).abs() < 1.0);
        assert!(Cost::of(Vec::new()).per_s().abs() < 1e-9);
    }

    #[test]
    fn work_costs_something() {
        let mut sum = 0_u64;
        let cost = cost(Duration::from_millis(1), 2, || {
            sum = std::hint::black_box(sum).wrapping_mul(3).wrapping_add(1);
        });
        assert!(cost.median_ns > 0.0 && cost.best_ns <= cost.median_ns);
    }
}
