//! Our sending direction of one link: what is in flight, what was lost, how late things arrive, and whether the
//! link may carry data.
//!
//! Never does: sending again (it says what was lost), choosing links, setting rates.
//!
//! ```text
//!  numbers:   ... resolved ... | oldest ...  unknown, acked in between ... | next
//!                              ▲ lost when 3 later ones are acked, or 9/8 RTT after a later one was
//! ```
//!
//! Invariants: an item given to [`Sender::on_transmit`] has exactly one outcome: `Acked`, `Lost`, or it was handed
//! out by [`Sender::take_unacked`]. `in_flight` is the sum of the bytes whose outcome is open. A report costs time
//! in proportion to the numbers it tells for the first time.
//!
//! References: RFC 9002 section 6 (loss detection), aggregation design 2.8 (failover).

use std::time::Duration;

use super::history::{History, Percentiles};
use super::loss::{Loss, LossPicture};
use super::owd::{Delay, Owd};
use super::rate_control::Delivery;
use super::report::{Report, SEEN_NUMBERS, SEEN_WORDS, set_bits, shift};
use super::rtt::{RTT_INITIAL, Rtt};
use super::sent::{Entry, Fate, SentLog};
use super::state::{Cause, Liveness, Silence, State};
use crate::base::Instant;

/// Parameters of a [`Sender`].
#[derive(Clone, Copy, Debug)]
pub struct SenderConfig {
    /// Longest time without a datagram on an idle link that is up.
    pub heartbeat_interval: Duration,
    /// How long the peer usually waits before it reports.
    pub report_interval: Duration,
    /// Datagrams remembered, rounded up to a power of two. At 1 Gbit/s of 1400-byte datagrams and an RTT of
    /// 100 ms 9000 are in flight.
    pub sent_log_entries: usize,
}

impl Default for SenderConfig {
    fn default() -> Self {
        Self {
            heartbeat_interval: Duration::from_millis(100),
            report_interval: Duration::from_millis(5),
            sent_log_entries: 16_384,
        }
    }
}

/// What became of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<T> {
    /// Received, as far as anyone can tell.
    Acked {
        /// What it carried.
        item: T,
        /// Its packet number.
        number: u64,
        /// Its length.
        bytes: u32,
        /// False: no report told about it in time, or it left the log; most such datagrams arrived.
        known: bool,
    },
    /// Lost.
    Lost {
        /// What it carried.
        item: T,
        /// Its packet number.
        number: u64,
        /// Its length.
        bytes: u32,
    },
}

/// Counters of one link and direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SenderCounters {
    /// Datagrams sent.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Datagrams declared lost.
    pub lost: u64,
    /// Of those, how many were acknowledged later.
    pub spurious: u64,
    /// Datagrams no report told about in time.
    pub unknown: u64,
    /// Datagrams that left the log before their fate was known.
    pub evicted: u64,
    /// Reports taken.
    pub reports: u64,
    /// Reports that acknowledge what was never sent, and were ignored.
    pub bad_reports: u64,
    /// Changes from Up to Suspect.
    pub suspicions: u64,
}

/// Later numbers that must be acknowledged before one is lost (RFC 9002 section 6.1.1).
const REORDER_MIN: u64 = 3;
/// A link that reorders raises the threshold up to this, well within what one report tells.
const REORDER_MAX: u64 = 128;
/// A raised threshold is halved after this long without a spurious loss.
const REORDER_KEEP: Duration = Duration::from_secs(5);
/// Least time threshold of a loss (RFC 9002 calls it kGranularity).
const LOSS_DELAY_MIN: Duration = Duration::from_millis(1);
/// Losses while the queue stands above this are congestion.
const CONGESTED: Duration = Duration::from_millis(15);
/// Data within this long makes heartbeats dense.
const TRAFFIC_WINDOW: Duration = Duration::from_secs(1);
/// Least and greatest time in flight that is suspicious. The least is what a scheduling hiccup of a small machine
/// at either end costs; the greatest keeps one awful sample from blinding the link.
const SUSPECT_TIMEOUT_MIN: Duration = Duration::from_millis(25);
const SUSPECT_TIMEOUT_MAX: Duration = Duration::from_secs(2);

/// Sending direction of one link. `T` is what a datagram carried.
#[derive(Debug)]
pub struct Sender<T> {
    config: SenderConfig,
    log: SentLog<T>,
    /// The smallest number whose fate is open; all below have one.
    oldest: u64,
    /// Bit i: `anchor - i` was reported as received by any report so far.
    known: [u64; SEEN_WORDS],
    /// Largest number reported; `None` before the first report.
    anchor: Option<u64>,
    /// Bytes in flight.
    in_flight: u64,
    reorder_threshold: u64,
    reorder_changed: Instant,
    rtt: Rtt,
    rtt_history: History,
    path_rtt: Rtt,
    path_history: History,
    owd: Owd,
    delay_history: History,
    loss: Loss,
    liveness: Liveness,
    counters: SenderCounters,
    transmitted_at: Instant,
    data_at: Option<Instant>,
}

impl<T: Copy> Sender<T> {
    /// A link in state Probing. This is the only place that allocates, but for the log's growth to its bound.
    pub fn new(config: SenderConfig, now: Instant) -> Self {
        Self {
            config,
            log: SentLog::new(config.sent_log_entries),
            oldest: 0,
            known: [0; SEEN_WORDS],
            anchor: None,
            in_flight: 0,
            reorder_threshold: REORDER_MIN,
            reorder_changed: now,
            rtt: Rtt::default(),
            rtt_history: History::new(now),
            path_rtt: Rtt::default(),
            path_history: History::new(now),
            owd: Owd::default(),
            delay_history: History::new(now),
            loss: Loss::new(now),
            liveness: Liveness::new(now),
            counters: SenderCounters::default(),
            // The first heartbeat is due at once.
            transmitted_at: Instant::ZERO,
            data_at: None,
        }
    }

    /// A datagram left. Numbers must grow; gaps are fine. `item`: `None` for what need not be sent again
    /// (heartbeats, reports). Datagrams that have to leave a full log have their outcome here.
    pub fn on_transmit(
        &mut self,
        number: u64,
        bytes: u32,
        now: Instant,
        item: Option<T>,
        on: &mut impl FnMut(Outcome<T>),
    ) {
        debug_assert!(number >= self.log.next(), "packet numbers must grow");
        if number < self.log.next() {
            return;
        }
        if self.log.next() == self.log.first() || number - self.log.next() >= SEEN_NUMBERS {
            // The first number, or a jump beyond what reports could tell about.
            for open in self.oldest..self.log.next() {
                self.evict(open, on);
            }
            self.log.restart(number);
            self.oldest = number;
        }
        while self.log.next() < number {
            self.push(
                Entry {
                    sent_at: now,
                    bytes: 0,
                    fate: Fate::Skipped,
                    item: None,
                },
                on,
            );
        }
        self.push(
            Entry {
                sent_at: now,
                bytes,
                fate: Fate::InFlight,
                item,
            },
            on,
        );
        self.in_flight += u64::from(bytes);
        self.counters.packets += 1;
        self.counters.bytes += u64::from(bytes);
        self.transmitted_at = now;
        if item.is_some() {
            self.data_at = Some(now);
        }
        self.liveness.on_transmit();
    }

    /// Takes a report about this link. Returns what it says about the WAN's capacity when it is newer than all
    /// before it.
    pub fn on_report(
        &mut self,
        report: &Report,
        now: Instant,
        on: &mut impl FnMut(Outcome<T>),
    ) -> Option<Delivery> {
        if report.largest >= self.log.next() {
            self.counters.bad_reports += 1;
            return None;
        }
        self.counters.reports += 1;
        let newest = self.anchor.is_none_or(|anchor| report.largest > anchor);
        let (acked, youngest) = self.take_acks(report, now, on);
        let mut delivery = None;
        if newest {
            self.sample_rtt(report, now);
            self.sample_owd(report, now);
            delivery = self.delivery(report);
        }
        if acked > 0 {
            self.liveness.on_ack(acked, youngest, now);
        }
        self.resolve(now, on);
        delivery
    }

    /// Declares overdue datagrams lost and moves the state. `other_links_progress`: another link of the session
    /// was acknowledged within the last two report intervals.
    pub fn handle_timeout(
        &mut self,
        now: Instant,
        other_links_progress: bool,
        on: &mut impl FnMut(Outcome<T>),
    ) {
        self.resolve(now, on);
        self.rtt_history.refresh(now);
        self.path_history.refresh(now);
        self.delay_history.refresh(now);
        let silence = self.silence(now, other_links_progress);
        self.liveness.handle_timeout(&silence, now);
        self.counters.suspicions = self.liveness.flap_count();
    }

    /// When [`Sender::handle_timeout`] has something to do or a heartbeat is due.
    pub fn poll_timeout(&self, now: Instant, other_links_progress: bool) -> Instant {
        let silence = self.silence(now, other_links_progress);
        self.loss_at()
            .unwrap_or(Instant::FAR)
            .min(self.liveness.poll_timeout(&silence))
            .min(self.heartbeat_at(now))
    }

    /// Hands out what is in flight, oldest first, to be sent on other links. No outcome follows for it; the
    /// link's own loss and delay figures still count what happens to it.
    pub fn take_unacked(&mut self, mut on: impl FnMut(T)) {
        for number in self.oldest..self.log.next() {
            let Some(entry) = self.log.get_mut(number) else {
                continue;
            };
            if entry.fate != Fate::InFlight {
                continue;
            }
            entry.fate = Fate::Taken;
            self.in_flight -= u64::from(entry.bytes);
            if let Some(item) = entry.item.take() {
                on(item);
            }
        }
    }

    /// The kernel refused a datagram in a way that will not pass by itself (no route, interface down).
    pub fn on_send_error(&mut self, now: Instant) {
        self.liveness.on_send_error(now);
        self.counters.suspicions = self.liveness.flap_count();
    }

    /// The path has changed (roaming, new route): the next delay sample is the new base.
    pub fn rebase(&mut self) {
        self.owd.rebase();
    }

    /// Changes the heartbeat of the idle link.
    pub const fn set_heartbeat(&mut self, interval: Duration) {
        self.config.heartbeat_interval = interval;
    }

    /// Whether a heartbeat should leave now.
    pub fn wants_heartbeat(&self, now: Instant) -> bool {
        now >= self.heartbeat_at(now)
    }

    /// When the next heartbeat is due if nothing else leaves before.
    pub fn heartbeat_at(&self, now: Instant) -> Instant {
        self.transmitted_at + self.heartbeat_interval(now)
    }

    /// Whether the link may carry data.
    pub const fn state(&self) -> State {
        self.liveness.state()
    }

    /// Why it is in that state.
    pub const fn cause(&self) -> Cause {
        self.liveness.cause()
    }

    /// Since when.
    pub const fn since(&self) -> Instant {
        self.liveness.since()
    }

    /// When a datagram of this link was last acknowledged for the first time.
    pub const fn acked_at(&self) -> Instant {
        self.liveness.acked_at()
    }

    /// Smoothed RTT: of this link if it was ever measured on it alone, else of this link out and any link back.
    pub fn srtt(&self) -> Duration {
        self.rtt
            .smoothed()
            .or(self.path_rtt.smoothed())
            .unwrap_or(RTT_INITIAL)
    }

    /// Least RTT of the last 5 to 10 s, as for [`Sender::srtt`].
    pub fn rtt_min(&self) -> Duration {
        self.rtt
            .least()
            .or(self.path_rtt.least())
            .unwrap_or(RTT_INITIAL)
    }

    /// RTT percentiles of this link alone, at most 100 ms old.
    pub const fn rtt(&self) -> &Percentiles {
        self.rtt_history.snapshot()
    }

    /// RTT percentiles of this link out and any link back, at most 100 ms old.
    pub const fn path_rtt(&self) -> &Percentiles {
        self.path_history.snapshot()
    }

    /// One-way delay above the base: percentiles at most 100 ms old.
    pub fn delay(&self) -> Delay {
        let Percentiles { p50, p95, p99, .. } = *self.delay_history.snapshot();
        Delay {
            p50,
            p95,
            p99,
            base_us: self.owd.base_us(),
        }
    }

    /// The one-way delays' histories, for export.
    pub const fn delay_history(&self) -> &History {
        &self.delay_history
    }

    /// The RTT's history, for export.
    pub const fn rtt_history(&self) -> &History {
        &self.rtt_history
    }

    /// Least queueing delay of the last 50 ms.
    pub fn queue_min(&self) -> Duration {
        self.owd.queue().0
    }

    /// Median queueing delay of the last 50 ms.
    pub fn queue_p50(&self) -> Duration {
        self.owd.queue().1
    }

    /// Loss of this link.
    pub const fn loss(&self) -> LossPicture {
        self.loss.estimate()
    }

    /// Bytes in flight.
    pub const fn in_flight(&self) -> u64 {
        self.in_flight
    }

    /// Counters since the link was made.
    pub const fn counters(&self) -> &SenderCounters {
        &self.counters
    }

    /// How long a datagram may be in flight before its silence is suspicious.
    pub fn suspect_timeout(&self) -> Duration {
        let path = self.path_history.snapshot();
        let spread = path
            .p99
            .saturating_sub(path.p50)
            .max(Duration::from_millis(10));
        let slowest = if path.count == 0 {
            RTT_INITIAL
        } else {
            path.p999
        };
        (slowest + self.config.report_interval + spread)
            .clamp(SUSPECT_TIMEOUT_MIN, SUSPECT_TIMEOUT_MAX)
    }

    /// Marks what the report tells for the first time; returns how many and the send time of the youngest.
    fn take_acks(
        &mut self,
        report: &Report,
        now: Instant,
        on: &mut impl FnMut(Outcome<T>),
    ) -> (u32, Instant) {
        let before = self.anchor.unwrap_or(report.largest);
        let anchor = before.max(report.largest);
        self.known = shift(&self.known, anchor - before);
        let seen = shift(&report.seen, anchor - report.largest);
        self.anchor = Some(anchor);
        let fresh: [u64; SEEN_WORDS] = std::array::from_fn(|i| seen[i] & !self.known[i]);
        for (known, fresh) in self.known.iter_mut().zip(fresh) {
            *known |= fresh;
        }
        let (mut count, mut youngest) = (0, Instant::ZERO);
        for back in set_bits(&fresh) {
            let Some(number) = anchor.checked_sub(back) else {
                break;
            };
            let Some(entry) = self.log.get_mut(number) else {
                continue;
            };
            count += 1;
            youngest = youngest.max(entry.sent_at);
            match entry.fate {
                Fate::InFlight => {
                    entry.fate = Fate::Acked;
                    self.in_flight -= u64::from(entry.bytes);
                    if let Some(item) = entry.item.take() {
                        on(Outcome::Acked {
                            item,
                            number,
                            bytes: entry.bytes,
                            known: true,
                        });
                    }
                }
                Fate::Taken => entry.fate = Fate::Acked,
                Fate::Lost => {
                    entry.fate = Fate::Acked;
                    self.on_spurious(before.saturating_sub(number), now);
                }
                Fate::Acked | Fate::Skipped => {}
            }
        }
        (count, youngest)
    }

    /// A datagram `extent` numbers behind the largest was declared lost too early.
    fn on_spurious(&mut self, extent: u64, now: Instant) {
        self.counters.spurious += 1;
        self.loss.on_spurious(1);
        self.reorder_threshold = self.reorder_threshold.max(extent + 2).min(REORDER_MAX);
        self.reorder_changed = now;
    }

    /// Gives every number up to the largest reported its fate, in order, as far as it can be known.
    fn resolve(&mut self, now: Instant, on: &mut impl FnMut(Outcome<T>)) {
        let Some(anchor) = self.anchor else { return };
        if self.reorder_threshold > REORDER_MIN && now.since(self.reorder_changed) > REORDER_KEEP {
            self.reorder_threshold = (self.reorder_threshold / 2).max(REORDER_MIN);
            self.reorder_changed = now;
        }
        let delay = self.loss_delay();
        let congested = self.owd.queue().0 > CONGESTED;
        while self.oldest <= anchor {
            let number = self.oldest;
            let Some(&entry) = self.log.get(number) else {
                break;
            };
            match entry.fate {
                Fate::Acked => self.loss.on_packet(false, congested, now),
                Fate::Lost | Fate::Skipped => {}
                Fate::InFlight | Fate::Taken => {
                    let unknown = number + SEEN_NUMBERS <= anchor;
                    let overdue = number + self.reorder_threshold <= anchor
                        || number < anchor && entry.sent_at + delay <= now;
                    if !unknown && !overdue {
                        break;
                    }
                    self.settle(number, unknown, on);
                    if !unknown {
                        self.loss.on_packet(true, congested, now);
                        self.liveness.on_loss(now);
                    }
                }
            }
            self.oldest += 1;
        }
    }

    /// Ends the wait for a number: lost, or not known and taken for received.
    fn settle(&mut self, number: u64, unknown: bool, on: &mut impl FnMut(Outcome<T>)) {
        let Some(entry) = self.log.get_mut(number) else {
            return;
        };
        if entry.fate == Fate::InFlight {
            self.in_flight -= u64::from(entry.bytes);
        }
        let (item, bytes) = (entry.item.take(), entry.bytes);
        if unknown {
            entry.fate = Fate::Acked;
            self.counters.unknown += 1;
        } else {
            entry.fate = Fate::Lost;
            self.counters.lost += 1;
        }
        match item {
            Some(item) if unknown => on(Outcome::Acked {
                item,
                number,
                bytes,
                known: false,
            }),
            Some(item) => on(Outcome::Lost {
                item,
                number,
                bytes,
            }),
            None => {}
        }
    }

    fn sample_rtt(&mut self, report: &Report, now: Instant) {
        let Some(entry) = self.log.get(report.largest) else {
            return;
        };
        let hold = Duration::from_micros(u64::from(report.hold_us));
        let sample = now.since(entry.sent_at).saturating_sub(hold);
        self.path_rtt.on_sample(sample, now);
        self.path_history.record(sample, now);
        self.path_history.refresh(now);
        if report.same_link {
            self.rtt.on_sample(sample, now);
            self.rtt_history.record(sample, now);
            self.rtt_history.refresh(now);
        }
    }

    fn sample_owd(&mut self, report: &Report, now: Instant) {
        let last = self.owd.expand(report.owd_last_us);
        let least = last - i64::from(report.owd_last_us.wrapping_sub(report.owd_min_us));
        let most = last + i64::from(report.owd_max_us.wrapping_sub(report.owd_last_us));
        self.owd.on_sample(least, last, now);
        for value in [least, last, most] {
            self.delay_history.record(self.owd.above_base(value), now);
        }
        self.delay_history.refresh(now);
    }

    fn delivery(&self, report: &Report) -> Option<Delivery> {
        let sent_at = self.log.get(report.largest)?.sent_at;
        let (queue_min, queue_p50) = self.owd.queue();
        let delay = self.delay_history.snapshot();
        Some(Delivery {
            sent_at,
            received_us: report.received_us,
            number: report.largest,
            packets: report.packets,
            bytes: report.bytes,
            owd_min_us: report.owd_min_us,
            owd_max_us: report.owd_max_us,
            queue_min,
            queue_p50,
            jitter: delay.p95.saturating_sub(delay.p50),
            rtt: self.srtt(),
        })
    }

    /// After this long in flight a datagram is lost if a later one was acknowledged.
    fn loss_delay(&self) -> Duration {
        let smoothed = self.path_rtt.smoothed().unwrap_or(RTT_INITIAL);
        let rtt = smoothed.max(self.path_rtt.latest());
        (rtt * 9 / 8).max(LOSS_DELAY_MIN) + self.config.report_interval
    }

    /// When the oldest datagram is lost by time.
    fn loss_at(&self) -> Option<Instant> {
        let anchor = self.anchor?;
        let entry = self.log.get(self.oldest)?;
        (self.oldest < anchor).then(|| entry.sent_at + self.loss_delay())
    }

    fn heartbeat_interval(&self, now: Instant) -> Duration {
        let traffic = self
            .data_at
            .is_some_and(|at| now.since(at) <= TRAFFIC_WINDOW);
        self.liveness
            .heartbeat_interval(traffic, self.config.heartbeat_interval)
    }

    fn silence(&self, now: Instant, other_links_progress: bool) -> Silence {
        Silence {
            oldest_sent: self.log.get(self.oldest).map(|entry| entry.sent_at),
            timeout: self.suspect_timeout(),
            report_interval: self.config.report_interval,
            heartbeat: self.heartbeat_interval(now),
            other_links_progress,
        }
    }

    /// Appends to the log; the oldest entry leaves a full one.
    fn push(&mut self, entry: Entry<T>, on: &mut impl FnMut(Outcome<T>)) {
        if self.log.is_full() && self.log.first() == self.oldest {
            self.evict(self.oldest, on);
            self.oldest += 1;
        }
        self.log.push(entry);
    }

    /// Ends the wait for a number that leaves the log.
    fn evict(&mut self, number: u64, on: &mut impl FnMut(Outcome<T>)) {
        let open = self
            .log
            .get(number)
            .is_some_and(|entry| entry.fate == Fate::InFlight);
        if open {
            self.settle(number, true, on);
            self.counters.unknown -= 1;
            self.counters.evicted += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Rng;
    use crate::link::receiver::{Receiver, ReceiverConfig, low_micros};

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    fn sender() -> Sender<u64> {
        Sender::new(SenderConfig::default(), Instant::ZERO)
    }

    /// A report in which exactly `numbers` (the largest last) were received.
    fn report(numbers: &[u64]) -> Report {
        let largest = *numbers.last().unwrap();
        let mut report = Report {
            largest,
            packets: numbers.len() as u64,
            ..Report::default()
        };
        for number in numbers {
            let back = usize::try_from(largest - number).unwrap();
            report.seen[back / 64] |= 1 << (back % 64);
        }
        report
    }

    fn send(sender: &mut Sender<u64>, numbers: std::ops::Range<u64>, now: Instant) {
        for number in numbers {
            sender.on_transmit(number, 100, now, Some(number), &mut |_| {
                panic!("log is large")
            });
        }
    }

    #[test]
    fn three_later_acks_or_time_make_a_loss() {
        let mut link = sender();
        send(&mut link, 0..6, at(0));
        let (mut acked, mut lost) = (Vec::new(), Vec::new());
        let mut on = |outcome| match outcome {
            Outcome::Acked { item, known, .. } => acked.push((item, known)),
            Outcome::Lost { item, .. } => lost.push(item),
        };
        link.on_report(&report(&[0, 2, 4, 5]), at(20), &mut on);
        // 1 has more than three later ones; 3 has not, until 9/8 of 20 ms and a report interval are over.
        link.handle_timeout(at(27), true, &mut on);
        assert_eq!(link.in_flight(), 100);
        assert_eq!(
            link.poll_timeout(at(27), false),
            at(20).min(Instant::from_nanos(27_500_000))
        );
        link.handle_timeout(at(28), true, &mut on);
        assert_eq!(link.in_flight(), 0);
        acked.sort_unstable();
        assert_eq!(acked, [(0, true), (2, true), (4, true), (5, true)]);
        assert_eq!(lost, [1, 3]);
    }

    #[test]
    fn an_old_report_that_comes_late_is_taken_and_never_samples_the_rtt() {
        let mut link = sender();
        send(&mut link, 0..1_100, at(0));
        let mut acked = 0;
        let mut on = |_| acked += 1;
        let old: Vec<u64> = (0..500).collect();
        let new: Vec<u64> = (500..700).collect();
        assert!(link.on_report(&report(&new), at(20), &mut on).is_some());
        let srtt = link.srtt();
        assert!(link.on_report(&report(&old), at(300), &mut on).is_none());
        assert_eq!(link.srtt(), srtt);
        // 0 to 187 lie beyond the newer bitmap: they counted as received when it came. The others were lost first.
        assert_eq!(link.counters().unknown, 189);
        assert_eq!(link.counters().spurious, 311);
        assert_eq!(link.counters().lost, 311);
        assert_eq!(link.in_flight(), 400 * 100);
        let _ = acked;
    }

    #[test]
    fn reordering_on_the_link_raises_the_threshold() {
        let mut link = sender();
        send(&mut link, 0..100, at(0));
        let mut lost = 0;
        let mut on = |outcome| lost += u32::from(matches!(outcome, Outcome::Lost { .. }));
        let with_hole = |hole: u64, to: u64| (0..=to).filter(|&n| n != hole).collect::<Vec<_>>();
        link.on_report(&report(&with_hole(5, 12)), at(20), &mut on);
        link.on_report(&report(&with_hole(99, 20)), at(21), &mut on);
        assert_eq!((link.counters().lost, link.counters().spurious), (1, 1));
        link.on_report(&report(&with_hole(30, 38)), at(22), &mut on);
        assert_eq!(link.counters().lost, 1);
        link.on_report(&report(&with_hole(30, 39)), at(23), &mut on);
        assert_eq!(lost, 2);
    }

    #[test]
    fn what_is_taken_has_no_outcome_but_ends_the_suspicion_of_loss() {
        let mut link = sender();
        send(&mut link, 0..10, at(0));
        let mut taken = Vec::new();
        link.on_report(&report(&[0, 1]), at(10), &mut |_| {});
        link.take_unacked(|item| taken.push(item));
        assert_eq!(taken, [2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(link.in_flight(), 0);
        link.on_report(&report(&[0, 1, 2, 9]), at(20), &mut |_| {
            panic!("no outcome")
        });
        assert_eq!(link.counters().lost, 4);
    }

    #[test]
    fn a_report_about_the_future_is_refused() {
        let mut link = sender();
        send(&mut link, 0..10, at(0));
        assert!(
            link.on_report(&report(&[10]), at(10), &mut |_| panic!("refused"))
                .is_none()
        );
        assert_eq!(link.counters().bad_reports, 1);
    }

    #[test]
    fn a_full_log_evicts_the_oldest_as_received() {
        let config = SenderConfig {
            sent_log_entries: 64,
            ..SenderConfig::default()
        };
        let mut link = Sender::new(config, Instant::ZERO);
        let mut out = Vec::new();
        for number in 7..107_u64 {
            link.on_transmit(number, 10, at(0), Some(number), &mut |outcome| {
                out.push(outcome)
            });
        }
        assert_eq!(out.len(), 36);
        assert_eq!(
            out[0],
            Outcome::Acked {
                item: 7,
                number: 7,
                bytes: 10,
                known: false
            }
        );
        assert_eq!((link.in_flight(), link.counters().evicted), (640, 36));
    }

    #[test]
    fn a_black_hole_under_traffic_is_suspected_within_60_ms_and_heartbeats_revive_it() {
        let mut link = sender();
        let mut peer = Receiver::new(ReceiverConfig::default(), Instant::ZERO);
        let mut number = 0;
        let (mut suspected, mut revived) = (0, 0);
        // 20 ms out, reports every 5 ms come back after 10 ms; silent from 1000 to 1200 ms.
        let mut back = std::collections::VecDeque::new();
        let mut out = std::collections::VecDeque::new();
        for ms in 0..1_500_u64 {
            let now = at(ms);
            let data = link.state() == State::Up || ms < 10;
            if data || link.wants_heartbeat(now) {
                link.on_transmit(number, 1_400, now, data.then_some(number), &mut |_| {});
                if !(1_000..1_200).contains(&ms) {
                    out.push_back((now + Duration::from_millis(20), number, low_micros(now)));
                }
                number += 1;
            }
            while let Some(&(due, number, sent_us)) = out.front()
                && due <= now
            {
                peer.on_datagram(number, 1_400, sent_us, now);
                out.pop_front();
            }
            if peer.report_due(now) {
                let due = now + Duration::from_millis(10);
                back.push_back((due, peer.build_report(now).unwrap()));
            }
            while let Some(&(due, report)) = back.front()
                && due <= now
            {
                link.on_report(&report, now, &mut |_| {});
                back.pop_front();
            }
            link.handle_timeout(now, true, &mut |_| {});
            if link.state() == State::Suspect && suspected == 0 {
                suspected = ms;
                let mut count = 0;
                link.take_unacked(|_| count += 1);
                assert!((30..=60).contains(&count), "{count}");
            }
            if suspected > 0 && revived == 0 && link.state() == State::Up {
                revived = ms;
            }
        }
        assert!((1_030..=1_060).contains(&suspected), "{suspected}");
        assert!((1_230..=1_250).contains(&revived), "{revived}");
    }

    #[test]
    fn under_random_loss_and_lost_reports_every_item_has_one_outcome() {
        let mut rng = Rng::new(11);
        let mut link = Sender::new(SenderConfig::default(), Instant::ZERO);
        let mut peer = Receiver::new(ReceiverConfig::default(), Instant::ZERO);
        let mut outcomes = vec![0_u32; 40_000];
        let (mut number, mut wrong) = (0_u64, 0_u32);
        let mut arrived = vec![false; 40_000];
        for step in 0..20_000_u64 {
            let now = Instant::from_nanos(step * 500_000);
            for _ in 0..2 {
                let item = usize::try_from(number).unwrap();
                link.on_transmit(number, 1_000, now, Some(item), &mut |_| {
                    panic!("log is large")
                });
                if !rng.chance(0.05) {
                    arrived[item] = true;
                    peer.on_datagram(number, 1_000, low_micros(now), now);
                }
                number += 1;
            }
            let mut on = |outcome| match outcome {
                Outcome::Acked { item, known, .. } => {
                    outcomes[item] += 1;
                    wrong += u32::from(known && !arrived[item]);
                }
                Outcome::Lost { item, .. } => {
                    outcomes[item] += 1;
                    wrong += u32::from(arrived[item]);
                }
            };
            if peer.report_due(now) {
                let report = peer.build_report(now).unwrap();
                if !rng.chance(0.3) {
                    link.on_report(&report, now, &mut on);
                }
            }
            link.handle_timeout(now, true, &mut on);
        }
        assert_eq!(wrong, 0);
        let open = outcomes.iter().rev().take_while(|&&n| n == 0).count();
        assert!(open < 200, "{open}");
        assert!(outcomes[..40_000 - open - 10].iter().all(|&n| n == 1));
        assert!((link.loss().ratio - 0.05).abs() < 0.02);
        assert_eq!(link.in_flight() % 1_000, 0);
    }
}
