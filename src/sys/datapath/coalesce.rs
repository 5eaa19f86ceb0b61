//! How long a wait goes on although something has come: not at all while little happens, a moment under load.
//!
//! ```text
//!   few reads ──► wait for the first thing          (delay 0, one wake-up for each)
//!   many, small ► collect for [`WINDOW`], then look (delay of up to the window, one wake-up for all)
//!   heartbeats ─► the first one ends the wait, the rest of its round is collected for [`ROUND`]
//! ```
//!
//! The kernel ends the collecting at the first thing that comes after the window (`min_wait_usec`, Linux 6.12),
//! so the first packet after a pause never waits. Never reads a clock, never waits itself.

use std::time::Duration;

use crate::base::Instant;

/// Longest time that something may lie in the ring under load. Round trips of links are tens of milliseconds, the
/// pacer's quantum is one; at a million packets a second the window holds a hundred, far below any buffer in front of us.
pub(super) const WINDOW: Duration = Duration::from_micros(100);
/// Heartbeats of an idle tunnel leave in one system call; this long after the first the others have come, if they came
/// by ways that are alike. It is what a packet may have to wait that ends a second of silence and comes within it.
const ROUND: Duration = Duration::from_micros(200);
/// Load is measured over spans of this length, so that a burst of one window's size is not yet load.
const SPAN: Duration = Duration::from_millis(1);
/// A pause this long ends the load, whatever the span before said.
const PAUSE: Duration = Duration::from_millis(4);
/// Reads in a span that are load. Below it wake-ups cost less than 2 % of a core. An exchange of single packets
/// to and fro, which a window would slow down, stays below it.
const READS_MIN: u64 = 10;
/// Reads longer than this on average are no load, however many: what a wake-up costs is little beside moving a
/// superframe, and a window would stand still what a single TCP keeps in flight.
const READ_BYTES_MAX: u64 = 4_096;
/// Once loaded, this part of the thresholds keeps it so.
const KEEP: u64 = 2;
/// Completions that end the collecting early: a turn's worth, half of what the buffer groups hold.
const MANY: u32 = 16;

/// What the next wait is to be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Patience {
    /// Completions that end it at once.
    pub(super) want: u32,
    /// After this any completion ends it.
    pub(super) min_wait: Duration,
}

/// Measures the load of one ring.
#[derive(Clone, Debug)]
pub(super) struct Coalesce {
    since: Instant,
    reads: u64,
    bytes: u64,
    loaded: bool,
    /// What comes is heartbeats.
    idle: bool,
    /// The last turn has read something.
    heard: bool,
}

impl Coalesce {
    pub(super) const fn new() -> Self {
        Self {
            since: Instant::ZERO,
            reads: 0,
            bytes: 0,
            loaded: false,
            idle: false,
            heard: false,
        }
    }

    /// Says whether what comes is heartbeats.
    pub(super) const fn set_idle(&mut self, idle: bool) {
        self.idle = idle;
    }

    /// A turn has read this much.
    pub(super) fn note(&mut self, reads: u64, bytes: u64, now: Instant) {
        self.reads += reads;
        self.bytes += bytes;
        self.heard = reads > 0;
        let span = now.since(self.since);
        if span < SPAN {
            return;
        }
        let share = if self.loaded { KEEP } else { 1 };
        // Spans are a little longer than asked for; the thresholds grow with them.
        let spans = u64::try_from(span.as_micros() / SPAN.as_micros()).unwrap_or(u64::MAX);
        let over = |count: u64, least: u64| count >= least.saturating_mul(spans) / share;
        let small = self.bytes <= self.reads.saturating_mul(READ_BYTES_MAX);
        self.loaded = span < PAUSE && small && over(self.reads, READS_MIN);
        (self.since, self.reads, self.bytes) = (now, 0, 0);
    }

    /// Whether the next wait collects.
    pub(super) const fn is_loaded(&self) -> bool {
        self.loaded
    }

    /// How to wait when `writes` operations of our own are about to complete.
    pub(super) const fn patience(&self, writes: u32) -> Patience {
        if self.loaded {
            Patience {
                want: writes + MANY,
                min_wait: WINDOW,
            }
        } else if self.idle && self.heard {
            Patience {
                want: writes + MANY,
                min_wait: ROUND,
            }
        } else {
            Patience {
                want: 1,
                min_wait: Duration::ZERO,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Turns of `reads` reads and `bytes` bytes each `gap_us`, for 20 ms.
    fn after(
        coalesce: &mut Coalesce,
        start: Instant,
        gap_us: u64,
        reads: u64,
        bytes: u64,
    ) -> Instant {
        let mut now = start;
        while now.since(start) < Duration::from_millis(20) {
            now += Duration::from_micros(gap_us);
            coalesce.note(reads, bytes, now);
        }
        now
    }

    #[test]
    fn sparse_packets_and_exchanges_of_single_packets_never_wait() {
        for (gap_us, bytes) in [(100_000, 1_400), (10_000, 60), (300, 100), (150, 100)] {
            let mut coalesce = Coalesce::new();
            after(&mut coalesce, Instant::ZERO, gap_us, 1, bytes);
            assert!(!coalesce.is_loaded(), "every {gap_us} us");
            assert_eq!(coalesce.patience(0).want, 1);
            assert_eq!(coalesce.patience(0).min_wait, Duration::ZERO);
        }
    }

    #[test]
    fn many_small_packets_are_load_until_they_stop() {
        for (gap_us, reads, bytes) in [(50, 1, 228), (90, 1, 1_472), (200, 10, 14_000)] {
            let mut coalesce = Coalesce::new();
            let now = after(&mut coalesce, Instant::ZERO, gap_us, reads, bytes);
            assert!(coalesce.is_loaded(), "every {gap_us} us");
            assert_eq!(coalesce.patience(3).want, 3 + MANY);
            // A heartbeat long after: no load.
            coalesce.note(1, 100, now + Duration::from_millis(50));
            assert!(!coalesce.is_loaded());
        }
    }

    #[test]
    fn heartbeats_are_collected_after_the_first_of_them() {
        let mut coalesce = Coalesce::new();
        coalesce.set_idle(true);
        let mut now = Instant::ZERO;
        for _ in 0..3 {
            now += Duration::from_millis(100);
            coalesce.note(0, 0, now);
            assert_eq!(coalesce.patience(0).want, 1, "the first of a round");
            coalesce.note(1, 100, now);
            assert_eq!(coalesce.patience(0).min_wait, ROUND);
        }
        coalesce.set_idle(false);
        assert_eq!(coalesce.patience(0).want, 1, "data never wait");
    }

    #[test]
    fn superframes_are_no_load() {
        let mut coalesce = Coalesce::new();
        after(&mut coalesce, Instant::ZERO, 50, 1, 60_000);
        assert!(!coalesce.is_loaded());
    }

    #[test]
    fn a_load_at_the_threshold_does_not_flap() {
        let mut coalesce = Coalesce::new();
        let now = after(&mut coalesce, Instant::ZERO, 90, 1, 200);
        assert!(coalesce.is_loaded());
        let now = after(&mut coalesce, now, 140, 1, 200);
        assert!(coalesce.is_loaded(), "seven a millisecond keep it");
        after(&mut coalesce, now, 500, 1, 200);
        assert!(!coalesce.is_loaded());
    }
}
