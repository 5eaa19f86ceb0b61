//! What an authenticated peer may cost us: token buckets in front of work that is out of proportion to its bytes.
//!
//! A datagram may carry dozens of control messages, and a sequence that jumps far ahead makes a table of thousands of
//! places be cleared. Both have honest uses (many links; the end of an outage), so they are limited and not forbidden.

use std::time::Duration;

use crate::base::Instant;

/// Control messages a link may send in a second, and at once: a report of each link each 2 ms is the most that
/// an honest peer sends.
const CONTROL_PER_LINK: u64 = 1000;
/// Steps over sequence numbers in a second, and at once: few milliseconds of work. After an outage each of the 64
/// lanes jumps once by its whole ring.
const STEPS: u64 = 1 << 20;

/// Tokens that come back at a steady rate.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    per_s: u64,
    tokens: u64,
    since: Instant,
}

impl Bucket {
    /// `per_s` tokens a second, and as many at once.
    pub const fn new(per_s: u64, now: Instant) -> Self {
        Self {
            per_s,
            tokens: per_s,
            since: now,
        }
    }

    /// For the control messages of a session.
    pub fn for_control(links: usize, now: Instant) -> Self {
        Self::new(CONTROL_PER_LINK * links.max(1) as u64, now)
    }

    /// For jumps of sequence numbers.
    pub const fn for_steps(now: Instant) -> Self {
        Self::new(STEPS, now)
    }

    /// Takes `count` tokens; `false` when there are not so many.
    pub fn take(&mut self, count: u64, now: Instant) -> bool {
        if self.tokens < count {
            self.refill(now);
        }
        match self.tokens.checked_sub(count) {
            Some(rest) => {
                self.tokens = rest;
                true
            }
            None => false,
        }
    }

    fn refill(&mut self, now: Instant) {
        const SECOND: Duration = Duration::from_secs(1);
        let span = now.since(self.since).min(SECOND);
        let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        let fresh = nanos.saturating_mul(self.per_s) / 1_000_000_000;
        if fresh > 0 {
            self.tokens = (self.tokens + fresh).min(self.per_s);
            self.since = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_a_seconds_worth_at_once_and_then_the_rate() {
        let mut bucket = Bucket::new(1000, Instant::ZERO);
        let mut taken = 0;
        for tenth_ms in 0..30_000 {
            let now = Instant::from_nanos(tenth_ms * 100_000);
            taken += u64::from(bucket.take(1, now)) + u64::from(bucket.take(1, now));
        }
        assert!((3_990..=4_000).contains(&taken), "{taken}");
        assert!(!bucket.take(1001, Instant::from_millis(60_000)));
        assert!(bucket.take(1000, Instant::from_millis(60_000)));
    }
}
