//! CoDel (RFC 8289) for one queue: decides when a leaving item must carry a congestion signal.
//!
//! Never touches the item: the caller marks it, trims it or drops it, and asks again for the next one.
//!
//! ```text
//!            sojourn >= target for one interval
//!   quiet ───────────────────────────────────────► signalling: one signal each interval / sqrt(count)
//!     ▲        sojourn < target, or nothing stands behind            │
//!     └───────────────────────────────────────────────────────────────┘
//! ```

use std::time::Duration;

use crate::base::Instant;

/// Target and interval.
#[derive(Clone, Copy, Debug)]
pub struct Params {
    /// Standing delay that is tolerated.
    pub target: Duration,
    /// How long the delay must stand before the first signal; about a worst-case RTT.
    pub interval: Duration,
}

/// State of one queue.
#[derive(Clone, Copy, Debug, Default)]
pub struct CoDel {
    /// When the delay will have stood for one interval; `None` while it is below target.
    first_above: Option<Instant>,
    signal_next: Instant,
    count: u32,
    count_before: u32,
    signalling: bool,
}

impl CoDel {
    /// Called for each item that leaves: `sojourn` is its wait, `standing` says whether a queue remains behind it.
    /// True when the item should carry a signal.
    pub fn on_dequeue(
        &mut self,
        sojourn: Duration,
        standing: bool,
        now: Instant,
        params: &Params,
    ) -> bool {
        let above = standing && sojourn >= params.target;
        if !above {
            self.first_above = None;
            self.signalling = false;
            return false;
        }
        let due = *self.first_above.get_or_insert(now + params.interval);
        if self.signalling {
            if now < self.signal_next {
                return false;
            }
            self.count = self.count.saturating_add(1);
            self.signal_next = control_law(self.signal_next, params.interval, self.count);
            return true;
        }
        if now < due {
            return false;
        }
        // A queue that comes back soon resumes near the signal rate that controlled it last time.
        let grown = self.count.saturating_sub(self.count_before);
        let recent = now.since(self.signal_next) < params.interval * RECENT_INTERVALS;
        self.count = if grown > 1 && recent { grown } else { 1 };
        self.count_before = self.count;
        self.signalling = true;
        self.signal_next = control_law(now, params.interval, self.count);
        true
    }

    /// The queue lost an item by overflow: a signal as well, and the next ones come faster.
    pub const fn on_overflow(&mut self) {
        self.count = self.count.saturating_add(1);
    }

    /// Signals without a break that have not brought the delay down, 0 while quiet.
    pub const fn signals_unheeded(&self) -> u32 {
        if self.signalling { self.count } else { 0 }
    }
}

/// How long a signal rate stays worth resuming, in intervals (RFC 8289 section 5.5).
const RECENT_INTERVALS: u32 = 16;

fn control_law(from: Instant, interval: Duration, count: u32) -> Instant {
    from + interval.div_f64(f64::from(count.max(1)).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARAMS: Params = Params {
        target: Duration::from_millis(5),
        interval: Duration::from_millis(100),
    };

    fn signals(codel: &mut CoDel, from_ms: u64, to_ms: u64, sojourn_ms: u64) -> Vec<u64> {
        (from_ms..to_ms)
            .filter(|&ms| {
                let sojourn = Duration::from_millis(sojourn_ms);
                codel.on_dequeue(sojourn, true, Instant::from_millis(ms), &PARAMS)
            })
            .collect()
    }

    #[test]
    fn signals_after_an_interval_and_then_ever_faster() {
        let mut codel = CoDel::default();
        // 100, + 100/sqrt 1, + 100/sqrt 2, + 100/sqrt 3, + 100/sqrt 4 ..., each rounded up to a millisecond.
        assert_eq!(
            signals(&mut codel, 0, 450, 6),
            [100, 200, 271, 329, 379, 424]
        );
        assert_eq!(codel.signals_unheeded(), 6);
    }

    #[test]
    fn one_item_below_target_starts_the_interval_over() {
        let mut codel = CoDel::default();
        assert_eq!(signals(&mut codel, 0, 99, 6), [] as [u64; 0]);
        assert_eq!(signals(&mut codel, 99, 100, 4), [] as [u64; 0]);
        assert_eq!(signals(&mut codel, 100, 200, 6), [] as [u64; 0]);
        assert_eq!(signals(&mut codel, 200, 201, 6), [200]);
    }

    #[test]
    fn a_queue_without_anything_behind_never_signals() {
        let mut codel = CoDel::default();
        for ms in 0..1000 {
            let sojourn = Duration::from_millis(50);
            assert!(!codel.on_dequeue(sojourn, false, Instant::from_millis(ms), &PARAMS));
        }
    }

    #[test]
    fn a_queue_that_comes_back_soon_resumes_its_signal_rate() {
        let mut codel = CoDel::default();
        let first = signals(&mut codel, 0, 1000, 6).len();
        signals(&mut codel, 1000, 1010, 1);
        let again = signals(&mut codel, 1010, 2010, 6).len();
        assert!(again > first + 5, "{again} after {first}");
        signals(&mut codel, 2010, 2020, 1);
        let much_later = signals(&mut codel, 10_000, 11_000, 6).len();
        assert_eq!(much_later, first);
    }
}
