//! Bounds log lines that a peer or a link can cause again and again.

use std::time::Duration;

use crate::base::Instant;

/// Lines at once: a start with every link coming up is told in full.
const BURST: u32 = 64;
/// Then one line in this time.
const INTERVAL: Duration = Duration::from_secs(1);

/// One limit for one kind of line.
#[derive(Debug)]
pub struct LogLimit {
    /// When all tokens are back.
    full_at: Instant,
    suppressed: u64,
}

impl LogLimit {
    /// A limit that nothing has used.
    pub const fn new() -> Self {
        Self {
            full_at: Instant::ZERO,
            suppressed: 0,
        }
    }

    /// Whether a line may be written: then how many were not since the last one.
    pub fn allow(&mut self, now: Instant) -> Option<u64> {
        if self.full_at > now + INTERVAL * (BURST - 1) {
            self.suppressed += 1;
            return None;
        }
        self.full_at = self.full_at.max(now) + INTERVAL;
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_one_a_second_that_names_the_rest() {
        let mut limit = LogLimit::new();
        let written = (0..10_000).filter_map(|ms| limit.allow(Instant::from_millis(ms)));
        let told: Vec<u64> = written.collect();
        assert_eq!(told.len(), 64 + 9);
        assert_eq!(told[..64].iter().sum::<u64>(), 0);
        assert!(told[65..].iter().all(|&n| n == 999), "{told:?}");
    }
}
