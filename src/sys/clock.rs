//! The only reader of the system's clocks. Everything else gets `now` as an argument.

use std::time::Duration;

use crate::base::Instant;

/// CLOCK_MONOTONIC, counted from the moment [`Clock::start`] was called. Copies share that moment, so that
/// threads of one process can compare their instants.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// CLOCK_MONOTONIC at the start, in nanoseconds.
    origin: u64,
}

impl Clock {
    /// Starts the clock at [`Instant::ZERO`].
    pub fn start() -> Self {
        Self {
            origin: read(libc::CLOCK_MONOTONIC),
        }
    }

    /// Time since the start. Never goes backwards; stands still while the machine is suspended.
    pub fn now(&self) -> Instant {
        Instant::from_nanos(read(libc::CLOCK_MONOTONIC).saturating_sub(self.origin))
    }

    /// Time since 1970-01-01 UTC, for stamps that a peer compares. May jump in both directions.
    pub fn unix_time(&self) -> Duration {
        Duration::from_nanos(read(libc::CLOCK_REALTIME))
    }
}

/// Processor time of the calling thread since it began: what other work on the machine does not lengthen. Costs a system
/// call, so it is for measuring and not for the packet path.
pub fn thread_time() -> Duration {
    Duration::from_nanos(read(libc::CLOCK_THREAD_CPUTIME_ID))
}

/// Reads a clock in nanoseconds; both clocks used here fit 64 bits until the year 2554.
fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid, writable timespec for the whole call, which keeps no pointer to it.
    let result = unsafe { libc::clock_gettime(clock, &raw mut time) };
    assert_eq!(
        result, 0,
        "clock_gettime cannot fail for a clock that every kernel has"
    );
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_near_zero_and_never_goes_backwards() {
        let clock = Clock::start();
        let mut last = clock.now();
        assert!(last < Instant::from_millis(1000));
        for _ in 0..1000 {
            let now = clock.now();
            assert!(now >= last);
            last = now;
        }
        assert!(last > Instant::ZERO);
    }

    #[test]
    fn unix_time_is_in_this_century() {
        let years = Clock::start().unix_time().as_secs() / (365 * 86_400);
        assert!((50..130).contains(&years));
    }
}
