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

mod delivery;
mod fate;
mod parts;
mod size;
mod stall;
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
use super::report::{Report, SEEN_WORDS};
use super::rtt::Rtt;
use super::sent::{Entry, Fate, SentLog};

use super::state::{Liveness, Silence, State};
use crate::base::Instant;
use fate::REORDER_MIN;

pub use parts::{Outcome, SenderConfig, SenderCounters};
pub use stall::Condition;

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
    /// Bytes whose content went by other links and that may still be under way.
    taken: u64,
    /// Since when the link is stalled.
    stalled_at: Option<Instant>,
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
            taken: 0,
            stalled_at: None,
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
            self.end_stall(youngest);
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
        self.judge_stall(&silence, now);
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
            .min(
                Some(self.stall_at(&silence))
                    .filter(|at| *at <= told_at)
                    .unwrap_or(Instant::FAR),
            )
            .min(self.heartbeat_at(now))
            .min(self.search.poll_timeout())
            .min(self.tail_at())
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
}
