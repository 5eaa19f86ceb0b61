//! Recorded links: when a packet could leave, and how long it travelled.
//!
//! Both kinds repeat when they end. Text in, numbers out; whoever has a file reads it.

use std::time::Duration;

use crate::base::{Instant, Rate};

/// Bytes that one delivery opportunity carries (mahimahi's packet size, so that its traces keep their meaning).
pub(super) const OPPORTUNITY_BYTES: u64 = 1504;

/// Longest trace that is read: a day of a 1 Gbit/s link would not fit, an hour of a 100 Mbit/s one does.
const TRACE_LINES_MAX: usize = 50_000_000;

/// Delivery opportunities of 1504 bytes, in whole milliseconds from the start (the format of mahimahi).
#[derive(Debug, PartialEq, Eq)]
pub struct Trace {
    millis: Vec<u64>,
}

/// Why a trace was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    /// A line that is not a number.
    #[error("line {line}: '{text}' is not a number of milliseconds")]
    NotANumber {
        /// Counted from 1.
        line: usize,
        /// What stands there.
        text: String,
    },
    /// Opportunities must not go back in time.
    #[error("line {line}: the times go backwards")]
    Backwards {
        /// Counted from 1.
        line: usize,
    },
    /// No line, or all at time zero: nothing could ever repeat.
    #[error("the trace is empty or lasts no time")]
    Empty,
    /// More lines than are read.
    #[error("more than {TRACE_LINES_MAX} lines")]
    TooLong,
}

impl Trace {
    /// Reads one opportunity a line.
    ///
    /// # Errors
    /// The first line that is not a time, goes back in time, or the whole when it has no length.
    pub fn parse(text: &str) -> Result<Self, TraceError> {
        let mut millis = Vec::new();
        for (line, text) in numbered_lines(text) {
            let value = text.parse().map_err(|_| TraceError::NotANumber {
                line,
                text: text.into(),
            })?;
            if millis.last().is_some_and(|&last| value < last) {
                return Err(TraceError::Backwards { line });
            }
            if millis.len() == TRACE_LINES_MAX {
                return Err(TraceError::TooLong);
            }
            millis.push(value);
        }
        if millis.last().copied().unwrap_or(0) == 0 {
            return Err(TraceError::Empty);
        }
        Ok(Self { millis })
    }

    /// Time until the trace repeats.
    pub fn period(&self) -> Duration {
        Duration::from_millis(self.period_millis())
    }

    /// Mean rate over one period.
    pub fn mean_rate(&self) -> Rate {
        Rate::from_bytes_over(self.millis.len() as u64 * OPPORTUNITY_BYTES, self.period())
    }

    /// Bytes of all opportunities in a span. The one that ends a period counts as before that instant.
    pub fn bytes_in(&self, from: Instant, to: Instant) -> u64 {
        let before = |time: Instant| {
            let millis = time.as_nanos().div_ceil(1_000_000);
            let (cycle, into) = (millis / self.period_millis(), millis % self.period_millis());
            let within = self.millis.partition_point(|&at| at < into) as u64;
            cycle * self.millis.len() as u64 + within
        };
        before(to).saturating_sub(before(from)) * OPPORTUNITY_BYTES
    }

    fn period_millis(&self) -> u64 {
        self.millis.last().copied().unwrap_or(1)
    }
}

/// One opportunity of an endlessly repeating trace. Default: before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    cycle: u64,
    /// Index of the opportunity after the current one.
    next: usize,
}

impl Position {
    /// Just before the first opportunity at or after `start`.
    pub(super) fn from(start: Instant, trace: &Trace) -> Self {
        let millis = start.as_nanos().div_ceil(1_000_000);
        let cycle = millis / trace.period_millis();
        let into = millis % trace.period_millis();
        Self {
            cycle,
            next: trace.millis.partition_point(|&at| at < into),
        }
    }

    /// When the current opportunity is (the one before `next`).
    pub(super) fn at(self, trace: &Trace) -> Instant {
        let period = trace.period_millis();
        match self.next.checked_sub(1) {
            Some(index) => Instant::from_millis(self.cycle * period + trace.millis[index]),
            None => Instant::from_millis(self.cycle * period),
        }
    }

    /// Moves to the next opportunity and says when it is.
    pub(super) fn step(&mut self, trace: &Trace) -> Instant {
        if self.next >= trace.millis.len() {
            self.cycle += 1;
            self.next = 0;
        }
        self.next += 1;
        self.at(trace)
    }
}

/// One-way delay over time: one value for each 10 ms.
#[derive(Debug, PartialEq, Eq)]
pub struct DelayTrace {
    delays: Vec<Duration>,
}

impl DelayTrace {
    /// Time between two values.
    pub const STEP: Duration = Duration::from_millis(10);

    /// Reads one delay in milliseconds (fractions allowed) a line.
    ///
    /// # Errors
    /// The first line that is not a time, or that there is none.
    pub fn parse(text: &str) -> Result<Self, TraceError> {
        let mut delays = Vec::new();
        for (line, text) in numbered_lines(text) {
            let millis = text
                .parse::<f64>()
                .ok()
                .filter(|value| (0.0..1e6).contains(value));
            let Some(millis) = millis else {
                return Err(TraceError::NotANumber {
                    line,
                    text: text.into(),
                });
            };
            if delays.len() == TRACE_LINES_MAX {
                return Err(TraceError::TooLong);
            }
            delays.push(Duration::from_secs_f64(millis / 1e3));
        }
        if delays.is_empty() {
            return Err(TraceError::Empty);
        }
        Ok(Self { delays })
    }

    /// The delay in force at `at`.
    pub fn delay_at(&self, at: Instant) -> Duration {
        let step = at.as_nanos() / u64::try_from(Self::STEP.as_nanos()).unwrap_or(u64::MAX);
        let index = usize::try_from(step % self.delays.len() as u64).unwrap_or(0);
        self.delays[index]
    }
}

/// The lines that say something, with their numbers from 1.
fn numbered_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(index, line)| (index + 1, line.trim()))
        .filter(|(_, line)| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_knows_its_period_and_mean() {
        let trace = Trace::parse("0\n5\n5\n10\n").unwrap();
        assert_eq!(trace.period(), Duration::from_millis(10));
        assert_eq!(trace.mean_rate(), Rate::from_bits_per_s(4 * 1504 * 8 * 100));
    }

    #[test]
    fn the_bytes_of_a_span_are_those_of_its_opportunities() {
        let trace = Trace::parse("3\n7\n7\n10\n").unwrap();
        let bytes = |from, to| trace.bytes_in(Instant::from_millis(from), Instant::from_millis(to));
        assert_eq!(bytes(0, 3), 0);
        assert_eq!(bytes(3, 8), 3 * OPPORTUNITY_BYTES);
        assert_eq!(bytes(8, 19), 4 * OPPORTUNITY_BYTES);
        assert_eq!(bytes(0, 100), 40 * OPPORTUNITY_BYTES);
    }

    #[test]
    fn bad_traces_name_the_line() {
        assert_eq!(Trace::parse(""), Err(TraceError::Empty));
        assert_eq!(Trace::parse("0\n0\n"), Err(TraceError::Empty));
        assert_eq!(
            Trace::parse("1\n\nx\n"),
            Err(TraceError::NotANumber {
                line: 3,
                text: "x".into()
            })
        );
        assert_eq!(
            Trace::parse("5\n4\n"),
            Err(TraceError::Backwards { line: 2 })
        );
        assert!(DelayTrace::parse("1\n-4\n").is_err());
    }

    #[test]
    fn positions_walk_over_the_end() {
        let trace = Trace::parse("3\n7\n10\n").unwrap();
        let mut position = Position::from(Instant::from_millis(6), &trace);
        let times: Vec<_> = (0..5)
            .map(|_| position.step(&trace).as_nanos() / 1_000_000)
            .collect();
        assert_eq!(times, [7, 10, 13, 17, 20]);
        let mut position = Position::from(Instant::from_nanos(13_000_001), &trace);
        assert_eq!(position.step(&trace), Instant::from_millis(17));
    }

    #[test]
    fn delays_hold_for_ten_milliseconds_and_repeat() {
        let trace = DelayTrace::parse("20\n30.5\n").unwrap();
        assert_eq!(
            trace.delay_at(Instant::from_millis(9)),
            Duration::from_millis(20)
        );
        assert_eq!(
            trace.delay_at(Instant::from_millis(10)),
            Duration::from_micros(30_500)
        );
        assert_eq!(
            trace.delay_at(Instant::from_millis(20)),
            Duration::from_millis(20)
        );
    }
}
