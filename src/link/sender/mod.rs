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
//! Reference: RFC 9002 section 6 (loss detection).

mod parts;
mod size;
mod tail;
#[cfg(test)]
mod tests;
mod view;

use std::time::Duration;

use super::gso::{Carriage, Shape, Trust};
use super::history::History;
use super::loss::Loss;
use super::owd::Owd;
use super::pmtu::Search;
use super::rate_control::Delivery;
use super::receiver::low_micros;
use super::report::{Report, SEEN_NUMBERS, SEEN_WORDS, set_bits, shift};
use super::rtt::{RTT_INITIAL, Rtt};
use super::sent::{Entry, Fate, SentLog};
use super::state::{Liveness, Silence, State};
use crate::base::Instant;

pub use parts::{Outcome, SenderConfig, SenderCounters};

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
/// How far to look for three datagrams that the peer would have told about: reports alone are at most four times as
/// many as heartbeats.
const SILENCE_SCAN: u64 = 32;
/// Least allowance for acknowledgements that take longer than ever before.
const SPREAD_MIN: Duration = Duration::from_millis(10);

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
    /// How long datagrams waited for their acknowledgement, the peer's report interval included.
    ack_history: History,
    owd: Owd,
    delay_history: History,
    loss: Loss,
    liveness: Liveness,
    counters: SenderCounters,
    transmitted_at: Instant,
    data_at: Option<Instant>,
    /// Numbers left out so far.
    skipped: u64,
    /// The last gap in the numbers: keys were changed.
    jump: Option<Jump>,
    /// How long datagrams may be.
    search: Search,
    /// Long datagrams vanish, and nobody was told yet.
    black_hole: bool,
    /// Which runs may leave as one send.
    gso: Trust,
}

/// A gap in the numbers.
#[derive(Clone, Copy, Debug)]
struct Jump {
    /// The first number after it.
    to: u64,
    /// Numbers left out before it.
    skipped_before: u64,
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
            ack_history: History::new(now),
            owd: Owd::default(),
            delay_history: History::new(now),
            loss: Loss::new(now),
            liveness: Liveness::new(now),
            counters: SenderCounters::default(),
            // The first heartbeat is due at once.
            transmitted_at: Instant::ZERO,
            data_at: None,
            skipped: 0,
            jump: None,
            search: Search::new(config.size_base, config.size_max),
            black_hole: false,
            gso: Trust::new(config.gso),
        }
    }

    /// A datagram left that the peer reports about soon. Numbers must grow; gaps are fine. `item`: `None` for what
    /// need not be sent again (heartbeats). Datagrams that have to leave a full log have their outcome here.
    pub fn on_transmit(
        &mut self,
        number: u64,
        bytes: u32,
        now: Instant,
        item: Option<T>,
        on: &mut impl FnMut(Outcome<T>),
    ) {
        self.transmit(number, bytes, now, item, on);
        self.transmitted_at = now;
        if item.is_some() {
            self.data_at = Some(now);
        }
        self.liveness.on_transmit();
    }

    /// A datagram left that carries reports alone. The peer tells about it when it has other news, or the two of us
    /// would answer each other for ever; so its silence means nothing, and the link still wants its heartbeats.
    pub fn on_transmit_quiet(
        &mut self,
        number: u64,
        bytes: u32,
        now: Instant,
        on: &mut impl FnMut(Outcome<T>),
    ) {
        self.transmit(number, bytes, now, None, on);
        if let Some(entry) = self.log.get_mut(number) {
            entry.quiet = true;
        }
    }

    fn transmit(
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
        let gap = number - self.log.next();
        if self.log.next() == self.log.first() || gap >= self.config.sent_log_entries as u64 / 2 {
            // The first number, or a jump that would push out what is in flight.
            for open in self.oldest..self.log.next() {
                self.evict(open, on);
            }
            self.log.restart(number);
            self.oldest = number;
        } else if gap > 0 {
            self.jump = Some(Jump {
                to: number,
                skipped_before: self.skipped,
            });
            self.skipped += gap;
        }
        while self.log.next() < number {
            self.push(
                Entry {
                    sent_at: now,
                    bytes: 0,
                    fate: Fate::Skipped,
                    item: None,
                    quiet: true,
                    probe: false,
                    trial: true,
                    carriage: Carriage::Alone,
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
                quiet: false,
                probe: false,
                trial: self.liveness.state() != State::Up,
                carriage: Carriage::Alone,
            },
            on,
        );
        self.in_flight += u64::from(bytes);
        self.counters.packets += 1;
        self.counters.bytes += u64::from(bytes);
    }

    /// The last `count` datagrams left in one send; `even` when the last of them is as long as the others.
    pub fn on_run(&mut self, count: u64, even: bool) {
        let next = self.log.next();
        for number in next.saturating_sub(count)..next {
            if let Some(entry) = self.log.get_mut(number) {
                entry.carriage = match (number + 1 == next, even) {
                    (false, _) => Carriage::Within,
                    (true, true) => Carriage::EvenTail,
                    (true, false) => Carriage::UnevenTail,
                };
            }
        }
    }

    /// Which runs may leave as one send.
    pub const fn run_shape(&self) -> Shape {
        self.gso.shape()
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
        let (acked, oldest, youngest) = self.take_acks(report, now, on);
        let mut delivery = None;
        self.sample_rtt(report, newest, now);
        if newest {
            self.sample_owd(report, now);
            delivery = Some(self.delivery(report, now));
        }
        if acked > 0 {
            self.liveness.on_ack(acked, youngest, now);
            if oldest != Instant::FAR {
                // A peer that idles answers at once. What is expected of it is what it does under load: to wait for more.
                let early = if self.has_traffic(now) {
                    Duration::ZERO
                } else {
                    let hold = Duration::from_micros(u64::from(report.hold_us));
                    view::REPORT_INTERVAL_MIN.saturating_sub(hold)
                };
                self.ack_history.record(now.since(oldest) + early, now);
                self.ack_history.refresh(now);
            }
        }
        self.resolve(now, on);
        self.follow_state();
        delivery
    }

    /// Declares overdue datagrams lost and moves the state. `told_at`: when the peer last told of all links it
    /// had news of.
    pub fn handle_timeout(
        &mut self,
        now: Instant,
        told_at: Instant,
        on: &mut impl FnMut(Outcome<T>),
    ) {
        self.resolve(now, on);
        self.give_up_tail(now, on);
        self.rtt_history.refresh(now);
        self.ack_history.refresh(now);
        self.delay_history.refresh(now);
        let silence = self.silence(now, told_at);
        self.liveness.handle_timeout(&silence, now);
        self.counters.suspicions = self.liveness.flap_count();
        self.search.handle_timeout(now);
        self.follow_state();
    }

    /// When [`Sender::handle_timeout`] has something to do or a heartbeat is due.
    pub fn poll_timeout(&self, now: Instant, told_at: Instant) -> Instant {
        let silence = self.silence(now, told_at);
        self.loss_at()
            .unwrap_or(Instant::FAR)
            .min(self.liveness.poll_timeout(&silence))
            .min(self.heartbeat_at(now))
            .min(self.search.poll_timeout())
            .min(self.tail_at())
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
        self.follow_state();
    }

    /// There is a sign of life of the peer: a link that is down is probed at once and as often as at first.
    pub fn probe_soon(&mut self) {
        if self.liveness.probe_soon() {
            self.transmitted_at = Instant::ZERO;
        }
    }

    /// The path has changed (roaming, new route): the next delay sample is the new base.
    pub fn rebase(&mut self) {
        self.owd.rebase();
    }

    /// Marks what the report tells for the first time; returns how many and the send times of the oldest and the
    /// youngest.
    fn take_acks(
        &mut self,
        report: &Report,
        now: Instant,
        on: &mut impl FnMut(Outcome<T>),
    ) -> (u32, Instant, Instant) {
        let before = self.anchor.unwrap_or(report.largest);
        let anchor = before.max(report.largest);
        self.known = shift(&self.known, anchor - before);
        let seen = shift(&report.seen, anchor - report.largest);
        self.anchor = Some(anchor);
        let fresh: [u64; SEEN_WORDS] = std::array::from_fn(|i| seen[i] & !self.known[i]);
        for (known, fresh) in self.known.iter_mut().zip(fresh) {
            *known |= fresh;
        }
        let (mut count, mut oldest, mut youngest) = (0, Instant::FAR, Instant::ZERO);
        for back in set_bits(&fresh) {
            let Some(number) = anchor.checked_sub(back) else {
                break;
            };
            let Some(entry) = self.log.get_mut(number) else {
                continue;
            };
            count += 1;
            if !entry.quiet {
                oldest = oldest.min(entry.sent_at);
            }
            youngest = youngest.max(entry.sent_at);
            if entry.probe {
                self.search.on_probe_acked(number, entry.bytes, now);
            }
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
                    if !entry.probe {
                        self.on_spurious(before.saturating_sub(number), now);
                    }
                }
                Fate::Acked | Fate::Skipped => {}
            }
        }
        (count, oldest, youngest)
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
        let mut congested = None;
        while self.oldest <= anchor {
            let number = self.oldest;
            let Some(&entry) = self.log.get(number) else {
                break;
            };
            match entry.fate {
                Fate::Acked => {
                    if !entry.trial {
                        let congested = *congested.get_or_insert_with(|| self.is_congested());
                        self.loss.on_packet(false, congested, now);
                        self.gso.on_fate(entry.carriage, false);
                    }
                    self.note_size(&entry, true);
                }
                Fate::Lost | Fate::Skipped => {}
                Fate::InFlight | Fate::Taken => {
                    let jumped = self.jump.is_some_and(|j| number < j.to && j.to <= anchor);
                    // Reports tell nothing across a jump, and what was under way when it came must not be lost.
                    let unknown = number + SEEN_NUMBERS <= anchor && !jumped;
                    let overdue = number + self.reorder_threshold <= anchor
                        || number < anchor && entry.sent_at + delay <= now;
                    if !unknown && !overdue {
                        break;
                    }
                    if entry.probe {
                        self.settle_probe(number, unknown || jumped, now);
                        self.oldest += 1;
                        continue;
                    }
                    self.settle(number, unknown, on);
                    if !unknown && !jumped {
                        // What an outage swallowed says nothing about the link at other times.
                        if entry.fate != Fate::Taken && !entry.trial {
                            let congested = *congested.get_or_insert_with(|| self.is_congested());
                            self.loss.on_packet(true, congested, now);
                            self.gso.on_fate(entry.carriage, true);
                        }
                        self.liveness.on_loss(now);
                        self.note_size(&entry, false);
                    }
                }
            }
            self.oldest += 1;
        }
    }

    fn is_congested(&self) -> bool {
        self.owd.queue_min() > CONGESTED
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

    /// The link's own round trip is measured also by what another link told before.
    fn sample_rtt(&mut self, report: &Report, newest: bool, now: Instant) {
        let Some(entry) = self.log.get(report.largest) else {
            return;
        };
        let hold = Duration::from_micros(u64::from(report.hold_us));
        let sample = now.since(entry.sent_at).saturating_sub(hold);
        if newest {
            self.path_rtt.on_sample(sample, now);
        }
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

    /// When the largest number of a report was sent. The log knows best; the peer's echo serves when the queues
    /// on the way are so long that the entry is gone.
    fn sent_at(&self, report: &Report, now: Instant) -> Instant {
        let echoed = low_micros(now).wrapping_sub(report.largest_sent_us);
        self.log
            .get(report.largest)
            .map_or(now - Duration::from_micros(u64::from(echoed)), |entry| {
                entry.sent_at
            })
    }

    /// The number without what was left out before it: a jump is no loss.
    fn sent_up_to(&self, number: u64) -> u64 {
        let skipped = match self.jump {
            Some(jump) if number < jump.to => jump.skipped_before,
            _ => self.skipped,
        };
        number.saturating_sub(skipped)
    }

    fn delivery(&self, report: &Report, now: Instant) -> Delivery {
        let (queue_min, queue_p50) = self.owd.queue();
        Delivery {
            sent_at: self.sent_at(report, now),
            received_us: report.received_us,
            number: self.sent_up_to(report.largest),
            packets: report.packets,
            bytes: report.bytes,
            owd_min_us: report.owd_min_us,
            owd_max_us: report.owd_max_us,
            queue_last: self.owd.queue_last(),
            queue_min,
            queue_p50,
            // How long the loop takes: reports come back by the fastest link, whatever this one's way back is.
            rtt: self.path_rtt.smoothed().unwrap_or(RTT_INITIAL),
            in_flight: self.in_flight,
        }
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

    fn has_traffic(&self, now: Instant) -> bool {
        self.data_at
            .is_some_and(|at| now.since(at) <= TRAFFIC_WINDOW)
    }

    fn heartbeat_interval(&self, now: Instant) -> Duration {
        self.liveness
            .heartbeat_interval(self.has_traffic(now), self.config.heartbeat_interval)
    }

    fn silence(&self, now: Instant, told_at: Instant) -> Silence {
        // What is behind the largest number reported and unknown is lost or late; silence is what follows it.
        let first = self.anchor.map_or(self.oldest, |anchor| anchor + 1);
        let first = match self.jump {
            Some(jump) if first < jump.to && self.log.get(first).is_some_and(|e| e.quiet) => {
                jump.to
            }
            _ => first,
        };
        let mut telling = (first..first + SILENCE_SCAN)
            .map_while(|number| self.log.get(number))
            .filter(|entry| !entry.quiet && !entry.probe)
            .map(|entry| entry.sent_at);
        Silence {
            first_sent: telling.next(),
            third_sent: telling.nth(1),
            timeout: self.suspect_timeout(),
            report_interval: self.config.report_interval,
            heartbeat: self.heartbeat_interval(now),
            told_at,
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
            self.search.on_probe_unknown(number);
            self.settle(number, true, on);
            self.counters.unknown -= 1;
            self.counters.evicted += 1;
        }
    }
}
