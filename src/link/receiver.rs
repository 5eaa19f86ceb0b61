//! Our receiving direction of one link: what came, how late, and the report the peer gets about it.
//!
//! Never does: replay protection (each number comes here once; `crypto` sees to that), sending the report.

use std::time::Duration;

use super::history::{History, Percentiles};
use super::owd::Owd;
use super::report::{Report, SEEN_NUMBERS, SEEN_WORDS, shift};
use crate::base::Instant;

/// Parameters of a [`Receiver`].
#[derive(Clone, Copy, Debug)]
pub struct ReceiverConfig {
    /// Longest time between the arrival of a datagram and the report that tells about it.
    pub report_interval: Duration,
    /// A report is due after this many datagrams whatever the time: half of what a bitmap holds, so that one lost
    /// report costs nothing.
    pub report_packets: u32,
}

impl Default for ReceiverConfig {
    fn default() -> Self {
        Self {
            report_interval: Duration::from_millis(5),
            report_packets: 256,
        }
    }
}

/// A hole in the numbers makes a report due this soon after the previous one: repair waits for it.
const HOLE_INTERVAL: Duration = Duration::from_millis(2);

/// Receiving direction of one link.
#[derive(Debug)]
pub struct Receiver {
    config: ReceiverConfig,
    /// The largest number and what was received before it; `None` before the first datagram.
    largest: Option<u64>,
    first: u64,
    largest_sent_us: u32,
    largest_at: Instant,
    seen: [u64; SEEN_WORDS],
    packets: u64,
    bytes: u64,
    /// Numbers that were never used.
    jumped: u64,
    /// Delays since the previous report: least, last, greatest. Empty when `unreported` is 0.
    owd_range: (i32, i32, i32),
    /// Datagrams since the previous report, and when the report about them is due.
    unreported: u32,
    due_at: Instant,
    reported_at: Instant,
    owd: Owd,
    history: History,
}

impl Receiver {
    /// A link nothing came by yet. This is the only place that allocates.
    pub fn new(config: ReceiverConfig, now: Instant) -> Self {
        Self {
            config,
            largest: None,
            first: 0,
            largest_sent_us: 0,
            largest_at: now,
            seen: [0; SEEN_WORDS],
            packets: 0,
            bytes: 0,
            jumped: 0,
            owd_range: (0, 0, 0),
            unreported: 0,
            due_at: Instant::FAR,
            reported_at: now,
            owd: Owd::default(),
            history: History::new(now),
        }
    }

    /// A datagram came that the sender wants to hear about. `sent_us`: low 32 bits of the sender's clock in microseconds when it left.
    pub fn on_datagram(&mut self, number: u64, bytes: u32, sent_us: u32, now: Instant) {
        self.on_quiet_datagram(number, bytes, sent_us, now);
        self.due_at = self.due_at.min(now + self.config.report_interval);
    }

    /// A datagram came that holds reports alone: it is told about with other news.
    pub fn on_quiet_datagram(&mut self, number: u64, bytes: u32, sent_us: u32, now: Instant) {
        let hole = self.mark(number, sent_us, now);
        self.packets += 1;
        self.bytes += u64::from(bytes);
        let owd = low_micros(now).wrapping_sub(sent_us).cast_signed();
        if self.unreported == 0 {
            self.owd_range = (owd, owd, owd);
        } else {
            let (least, _, most) = self.owd_range;
            // Compared by wrapping difference: the offset of the clocks may stand at the edge of 32 bits.
            let least = if owd.wrapping_sub(least) < 0 {
                owd
            } else {
                least
            };
            let most = if owd.wrapping_sub(most) > 0 {
                owd
            } else {
                most
            };
            self.owd_range = (least, owd, most);
        }
        if hole {
            self.due_at = self.due_at.min(self.reported_at + HOLE_INTERVAL);
        }
        self.unreported = self.unreported.saturating_add(1);
        let value = self.owd.expand(owd);
        self.owd.on_sample(value, value, now);
        self.history.record(self.owd.above_base(value), now);
    }

    /// `count` numbers will not be used: the sender goes on behind them.
    pub const fn on_jump(&mut self, count: u64) {
        self.jumped += count;
    }

    /// When a report is due; `None` without news.
    pub fn report_at(&self) -> Option<Instant> {
        (self.unreported > 0).then_some(self.due_at)
    }

    /// Whether a report should leave now.
    pub fn report_due(&self, now: Instant) -> bool {
        self.unreported > 0 && (now >= self.due_at || self.is_full())
    }

    /// Whether so much came that a report should leave whatever the time.
    pub const fn is_full(&self) -> bool {
        self.unreported >= self.config.report_packets
    }

    /// When the next report is due if nothing more comes; [`Instant::FAR`] when there is nothing to tell.
    pub const fn poll_timeout(&self) -> Instant {
        if self.unreported > 0 {
            self.due_at
        } else {
            Instant::FAR
        }
    }

    /// The report about all that came so far. `None` before the first datagram.
    pub fn build_report(&mut self, now: Instant) -> Option<Report> {
        let report = self.peek_report(now);
        self.unreported = 0;
        self.due_at = Instant::FAR;
        self.reported_at = now;
        report
    }

    /// The same, and the news stay news: for a report that goes by a way that may be dead.
    pub fn peek_report(&self, now: Instant) -> Option<Report> {
        let largest = self.largest?;
        let (least, last, most) = self.owd_range;
        let hold = now.since(self.largest_at).as_micros();
        Some(Report {
            largest,
            largest_sent_us: self.largest_sent_us,
            hold_us: u32::try_from(hold).unwrap_or(u32::MAX),
            packets: self.packets,
            bytes: self.bytes,
            received_us: low_micros(self.largest_at),
            owd_min_us: least,
            owd_last_us: last,
            owd_max_us: most,
            seen: self.seen,
            same_link: false,
        })
    }

    /// Datagrams received.
    pub const fn packets(&self) -> u64 {
        self.packets
    }

    /// Bytes received.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Numbers up to the largest that did not come (yet).
    pub fn missing(&self) -> u64 {
        self.largest.map_or(0, |largest| {
            (largest + 1 - self.first).saturating_sub(self.packets + self.jumped)
        })
    }

    /// When the datagram with the largest number came.
    pub const fn last_at(&self) -> Instant {
        self.largest_at
    }

    /// Percentiles of the one-way delay above its base, at most 100 ms old.
    pub fn delay(&mut self, now: Instant) -> &Percentiles {
        self.history.refresh(now)
    }

    /// The one-way delays' history, for export.
    pub const fn delay_history(&self) -> &History {
        &self.history
    }

    /// Median of the one-way delays above the base of the last datagrams: what percentiles of seconds do not show yet
    /// while a queue builds up.
    pub fn delay_now(&self) -> Duration {
        self.owd.queue().1
    }

    /// Least one-way delay of the last 10 s, receiver clock minus sender clock, continuous microseconds. Compare
    /// two links with [`super::owd::base_difference`].
    pub fn base_us(&self) -> i64 {
        self.owd.base_us()
    }

    /// Marks a number as received; true when it leaves a hole before it.
    fn mark(&mut self, number: u64, sent_us: u32, now: Instant) -> bool {
        let Some(largest) = self.largest else {
            self.first = number;
            self.seen[0] = 1;
            (self.largest, self.largest_sent_us, self.largest_at) = (Some(number), sent_us, now);
            return false;
        };
        if number > largest {
            self.seen = shift(&self.seen, number - largest);
            self.seen[0] |= 1;
            (self.largest, self.largest_sent_us, self.largest_at) = (Some(number), sent_us, now);
            return number - largest > 1;
        }
        self.first = self.first.min(number);
        let back = largest - number;
        if back < SEEN_NUMBERS {
            #[allow(clippy::cast_possible_truncation)] // below 512
            let back = back as usize;
            self.seen[back / 64] |= 1 << (back % 64);
        }
        false
    }
}

/// The low 32 bits of a clock in microseconds: what travels in datagrams. Wraps after 71 minutes.
#[allow(clippy::cast_possible_truncation)] // the wrap is the point
pub const fn low_micros(at: Instant) -> u32 {
    at.as_micros() as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Rng;

    fn receiver() -> Receiver {
        Receiver::new(ReceiverConfig::default(), Instant::ZERO)
    }

    #[test]
    fn the_bitmap_agrees_with_a_set() {
        let mut rng = Rng::new(9);
        let mut receiver = receiver();
        let mut came = std::collections::BTreeSet::new();
        let mut next = 100;
        for step in 0..5_000_u64 {
            next += 1 + if rng.chance(0.01) {
                rng.below(700)
            } else {
                rng.below(2)
            };
            let late = next - rng.below(20.min(next));
            for number in [next, late] {
                if came.insert(number) {
                    receiver.on_datagram(number, 100, 0, Instant::from_millis(step));
                }
            }
            let report = receiver.build_report(Instant::from_millis(step)).unwrap();
            assert_eq!(report.largest, next);
            assert_eq!(report.packets, came.len() as u64);
            if step % 50 == 0 {
                for number in next.saturating_sub(511)..=next {
                    assert_eq!(report.is_seen(number), came.contains(&number), "{number}");
                }
            }
        }
    }

    #[test]
    fn reports_after_the_interval_or_enough_datagrams_or_a_hole() {
        let mut receiver = receiver();
        let at = Instant::from_millis;
        assert_eq!(receiver.poll_timeout(), Instant::FAR);
        receiver.on_datagram(0, 100, 0, at(100));
        assert!(!receiver.report_due(at(104)) && receiver.report_due(at(105)));
        receiver.build_report(at(105));
        assert!(!receiver.report_due(at(500)));
        for number in 1..=256 {
            assert!(!receiver.report_due(at(106)));
            receiver.on_datagram(number, 100, 0, at(106));
        }
        assert!(receiver.report_due(at(106)));
        receiver.build_report(at(106));
        receiver.on_datagram(258, 100, 0, at(107));
        assert_eq!(receiver.poll_timeout(), at(108));
        assert_eq!(receiver.missing(), 1);
    }

    #[test]
    fn tells_the_range_of_delays_over_the_wrap_of_the_offset() {
        let mut receiver = receiver();
        let now = Instant::from_millis(1);
        let edge = 1_000_u32.wrapping_sub(i32::MAX.cast_unsigned());
        for (number, earlier) in [(0, 0_u32), (1, 5), (2, 2)] {
            receiver.on_datagram(number, 100, edge.wrapping_sub(earlier), now);
        }
        let report = receiver.build_report(now).unwrap();
        assert_eq!(report.owd_min_us, i32::MAX);
        assert_eq!(report.owd_max_us.wrapping_sub(report.owd_min_us), 5);
        assert_eq!(report.owd_last_us.wrapping_sub(report.owd_min_us), 2);
        assert_eq!(report.hold_us, 0);
    }
}
