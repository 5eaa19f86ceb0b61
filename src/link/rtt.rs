//! Round-trip time: smoothed (RFC 6298), latest and least. The peer's hold time is already subtracted.

use std::time::Duration;

use super::minimum::WindowedMin;
use crate::base::Instant;

/// Before the first sample (RFC 9002 section 6.2.2).
pub const RTT_INITIAL: Duration = Duration::from_millis(333);

/// Smoothed round-trip time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rtt {
    smoothed: Option<Duration>,
    variation: Duration,
    latest: Duration,
    least: WindowedMin,
}

impl Rtt {
    /// Takes a sample.
    pub fn on_sample(&mut self, sample: Duration, now: Instant) {
        self.latest = sample;
        self.least
            .on_sample(i64::try_from(sample.as_micros()).unwrap_or(i64::MAX), now);
        match self.smoothed {
            None => {
                self.smoothed = Some(sample);
                self.variation = sample / 2;
            }
            Some(smoothed) => {
                self.variation = (self.variation * 3 + smoothed.abs_diff(sample)) / 4;
                self.smoothed = Some((smoothed * 7 + sample) / 8);
            }
        }
    }

    /// Smoothed RTT; `None` before the first sample.
    pub const fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }

    /// Mean deviation.
    pub const fn variation(&self) -> Duration {
        self.variation
    }

    /// The last sample; zero before the first.
    pub const fn latest(&self) -> Duration {
        self.latest
    }

    /// Least of the last 5 to 10 s.
    pub fn least(&self) -> Option<Duration> {
        self.least
            .estimate()
            .map(|us| Duration::from_micros(u64::try_from(us).unwrap_or(0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smooths_and_keeps_the_least() {
        let mut rtt = Rtt::default();
        assert_eq!(rtt.smoothed(), None);
        for (n, ms) in [40_u64, 20, 40, 40].into_iter().enumerate() {
            rtt.on_sample(
                Duration::from_millis(ms),
                Instant::from_millis(n as u64 * 10),
            );
        }
        let smoothed = rtt.smoothed().unwrap();
        assert!(smoothed > Duration::from_millis(37) && smoothed < Duration::from_millis(40));
        assert_eq!(rtt.least(), Some(Duration::from_millis(20)));
        assert_eq!(rtt.latest(), Duration::from_millis(40));
    }
}
