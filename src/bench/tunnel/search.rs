//! The greatest rate of packets that is carried with hardly a loss, found by trials.
//!
//! Rises by steps while trials pass and falls by steps while they fail, until one has passed and a higher one failed;
//! then halves the gap. A trial fails only when it fails twice: on a machine that is shared, one pause of the
//! scheduler loses more than the limit.

/// What a trial came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Verdict {
    /// Part of the packets that was lost, 0 to 1.
    pub(super) loss: f64,
    /// Packets per second that came.
    pub(super) delivered: f64,
}

/// From one rate to the next while only one side of the answer is known.
const STEP: f64 = 1.4;
/// Halvings of the last gap: the answer is exact to 3 %.
const HALVINGS: u32 = 3;
/// Most different rates that are tried.
const RATES_MAX: u32 = 16;
/// Rate below which nobody searches.
const RATE_MIN: f64 = 100.0;
/// Part of a trial's rate that must come, else the sender or the machine did not manage to offer it.
const OFFERED_MIN: f64 = 0.8;

/// A search.
#[derive(Debug)]
pub(super) struct Search {
    loss_max: f64,
    rate: f64,
    /// What the present rate has failed already.
    failed_once: bool,
    passed: Option<f64>,
    failed: Option<f64>,
    halvings: u32,
    rates: u32,
}

impl Search {
    /// Starts from what a flood delivers: a flood starves what it measures, or is what the sender can at most.
    pub(super) fn new(flooded: f64, loss_max: f64) -> Self {
        Self {
            loss_max,
            rate: (flooded / STEP).max(RATE_MIN),
            failed_once: false,
            passed: None,
            failed: None,
            halvings: 0,
            rates: 0,
        }
    }

    /// The rate to try, in packets per second; none when the search is over.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // positive, and far below 2^53
    pub(super) fn next(&self) -> Option<u64> {
        let over = self.rates >= RATES_MAX || self.halvings > HALVINGS || self.rate < RATE_MIN;
        (!over).then_some(self.rate as u64)
    }

    /// Takes the result of a trial at that rate.
    pub(super) fn on_trial(&mut self, verdict: Verdict) {
        let offered = verdict.delivered >= OFFERED_MIN * self.rate;
        let passed = verdict.loss <= self.loss_max && offered;
        if !passed && !self.failed_once {
            self.failed_once = true;
            return;
        }
        self.failed_once = false;
        self.rates += 1;
        if passed {
            self.passed = Some(self.rate);
        } else {
            self.failed = Some(self.rate);
        }
        self.rate = match (self.passed, self.failed) {
            (Some(low), Some(high)) => {
                self.halvings += 1;
                f64::midpoint(low, high)
            }
            (Some(low), None) => low * STEP,
            (None, Some(high)) => high / STEP,
            (None, None) => self.rate,
        };
    }

    /// The greatest rate that passed; when none did, the last that was tried.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // positive, and far below 2^53
    pub(super) fn best(&self) -> u64 {
        self.passed.unwrap_or(self.rate) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a path does that carries `limit` packets per second.
    fn trial(rate: u64, limit: f64) -> Verdict {
        #[allow(clippy::cast_precision_loss)]
        let rate = rate as f64;
        let delivered = rate.min(limit);
        Verdict {
            loss: 1.0 - delivered / rate,
            delivered,
        }
    }

    #[test]
    #[allow(clippy::cast_precision_loss)]
    fn the_limit_is_found_from_above_and_from_below() {
        for (flooded, limit) in [
            (10_000.0, 100_000.0),
            (100_000.0, 30_000.0),
            (50_000.0, 50_000.0),
        ] {
            let mut search = Search::new(flooded, 0.001);
            let mut trials = 0;
            while let Some(rate) = search.next() {
                search.on_trial(trial(rate, limit));
                trials += 1;
            }
            let best = search.best() as f64;
            assert!(
                best <= limit * 1.001 && best > limit * 0.96,
                "{flooded} {limit}: {best}"
            );
            assert!(trials < 30, "{trials}");
        }
    }

    #[test]
    fn one_failure_is_forgiven_and_the_second_is_not() {
        let mut search = Search::new(140.0 * 10.0, 0.001);
        let bad = Verdict {
            loss: 0.5,
            delivered: 1000.0,
        };
        search.on_trial(bad);
        assert_eq!(search.next(), Some(1000));
        search.on_trial(trial(1000, 1e9));
        assert_eq!(search.next(), Some(1400));
        search.on_trial(bad);
        search.on_trial(bad);
        assert_eq!(search.next(), Some(1200));
        assert_eq!(search.best(), 1000);
    }

    #[test]
    fn a_dead_path_ends_the_search() {
        let mut search = Search::new(0.0, 0.001);
        let mut trials = 0;
        while search.next().is_some() {
            search.on_trial(Verdict {
                loss: 1.0,
                delivered: 0.0,
            });
            trials += 1;
        }
        assert_eq!(trials, 2);
    }
}
