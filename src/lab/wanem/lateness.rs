//! How late the emulator is: the time from the instant at which a frame should have arrived until it was handed to the
//! interface. It is the delay that the emulator adds to the link it emulates.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// Range and precision: 1 us to 1 s in 3 significant digits are 11 264 counters.
const MICROS_MAX: u64 = 1_000_000;

/// A histogram of lateness.
#[derive(Clone, Debug)]
pub(super) struct Lateness {
    micros: Histogram<u32>,
}

impl Lateness {
    pub(super) fn new() -> Self {
        let micros = Histogram::new_with_bounds(1, MICROS_MAX, 3);
        Self {
            micros: micros.expect("the bounds are valid"),
        }
    }

    /// One frame.
    pub(super) fn record(&mut self, late: Duration) {
        let micros = u64::try_from(late.as_micros()).unwrap_or(MICROS_MAX);
        self.micros.saturating_record(micros);
    }

    /// What was recorded since the last time, as JSON.
    pub(super) fn take(&mut self) -> Value {
        let at = |share| self.micros.value_at_quantile(share);
        let value = json!({
            "frames": self.micros.len(), "p50": at(0.5), "p99": at(0.99), "max": self.micros.max(),
        });
        self.micros.reset();
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_is_forgotten() {
        let mut late = Lateness::new();
        for micros in 1..=100 {
            late.record(Duration::from_micros(micros));
        }
        late.record(Duration::from_secs(5));
        let told = late.take();
        assert_eq!(
            (told["frames"].as_u64(), told["p50"].as_u64()),
            (Some(101), Some(51))
        );
        assert!(told["max"].as_u64() >= Some(1_000_000), "{told}");
        assert_eq!(late.take()["frames"], 0);
    }
}
