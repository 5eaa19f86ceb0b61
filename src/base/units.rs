//! Rates with their unit in the type; the only place where bytes, bits and time are converted.

use std::fmt;
use std::time::Duration;

/// Bits per second on the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Rate(u64);

impl Rate {
    /// Nothing flows.
    pub const ZERO: Self = Self(0);

    /// From bits per second.
    pub const fn from_bits_per_s(bits_per_s: u64) -> Self {
        Self(bits_per_s)
    }

    /// From megabits (10^6 bits) per second.
    pub const fn from_mbps(mbps: u64) -> Self {
        Self(mbps.saturating_mul(1_000_000))
    }

    /// The rate that carries `bytes` in `span`; zero when the span is zero.
    #[allow(clippy::cast_possible_truncation)] // saturated by `min`
    pub fn from_bytes_over(bytes: u64, span: Duration) -> Self {
        let nanos = span.as_nanos();
        if nanos == 0 {
            return Self::ZERO;
        }
        Self((u128::from(bytes) * 8_000_000_000 / nanos).min(u128::from(u64::MAX)) as u64)
    }

    /// Bits per second.
    pub const fn bits_per_s(self) -> u64 {
        self.0
    }

    /// Megabits per second, for people and logs.
    #[allow(clippy::cast_precision_loss)]
    pub fn as_mbps(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// This rate times `factor`; a negative or NaN factor gives zero.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss
    )]
    pub fn mul_f64(self, factor: f64) -> Self {
        Self((self.0 as f64 * factor) as u64) // float-to-int casts saturate
    }

    /// How long `bytes` occupy a link of this rate. A zero rate takes one hour: long, but no overflow.
    #[allow(clippy::cast_possible_truncation)] // saturated by `min`
    pub fn time_for(self, bytes: u64) -> Duration {
        const FOREVER: u128 = 3_600_000_000_000;
        if self.0 == 0 {
            return Duration::from_nanos(FOREVER as u64);
        }
        // Divisions of 128 bits cost ten times as much, and packets never need them.
        if let Some(bit_nanos) = bytes.checked_mul(8_000_000_000) {
            return Duration::from_nanos((bit_nanos / self.0).min(FOREVER as u64));
        }
        let nanos = u128::from(bytes) * 8_000_000_000 / u128::from(self.0);
        Duration::from_nanos(nanos.min(FOREVER) as u64)
    }

    /// Bytes that pass in `span`.
    #[allow(clippy::cast_possible_truncation)] // saturated by `min`
    pub fn bytes_in(self, span: Duration) -> u64 {
        let narrow = u64::try_from(span.as_nanos()).ok();
        if let Some(bit_nanos) = narrow.and_then(|nanos| self.0.checked_mul(nanos)) {
            return bit_nanos / 8_000_000_000;
        }
        (u128::from(self.0) * span.as_nanos() / 8_000_000_000).min(u128::from(u64::MAX)) as u64
    }

    /// Sum that does not overflow.
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl fmt::Debug for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} Mbit/s", self.as_mbps())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrow_and_wide_arithmetic_agree() {
        for rate in [1, 999, 30_000_000, 10_000_000_000, u64::MAX] {
            for count in [0, 1, 1_400, 1 << 30, 1 << 40, u64::MAX / 2] {
                let wide = |value: u128| u64::try_from(value).unwrap_or(u64::MAX);
                let nanos = u128::from(count) * 8_000_000_000 / u128::from(rate);
                let bytes = u128::from(rate) * u128::from(count) / 8_000_000_000;
                let rate = Rate::from_bits_per_s(rate);
                let hour = Duration::from_secs(3_600);
                assert_eq!(
                    rate.time_for(count),
                    Duration::from_nanos(wide(nanos)).min(hour)
                );
                assert_eq!(rate.bytes_in(Duration::from_nanos(count)), wide(bytes));
            }
        }
    }

    #[test]
    fn a_megabyte_at_eight_megabits_takes_a_second() {
        let rate = Rate::from_mbps(8);
        assert_eq!(rate.time_for(1_000_000), Duration::from_secs(1));
        assert_eq!(rate.bytes_in(Duration::from_secs(1)), 1_000_000);
        assert_eq!(
            Rate::from_bytes_over(1_000_000, Duration::from_secs(1)),
            rate
        );
        assert_eq!(Rate::ZERO.time_for(1), Duration::from_secs(3600));
    }
}
