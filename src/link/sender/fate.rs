//! What becomes of datagrams: acknowledged, lost, unknown, or taken to other links.
//!
//! Never does: judge the link. It tells `state` about acknowledgements and losses, and `loss` what to count.
//!
//! Reference: RFC 9002 section 6 (loss detection).

use std::time::Duration;

use super::{Outcome, Sender};
use crate::base::Instant;
use crate::link::report::{Report, SEEN_NUMBERS, SEEN_WORDS, set_bits, shift};
use crate::link::rtt::RTT_INITIAL;
use crate::link::sent::{Entry, Fate};

/// Later numbers that must be acknowledged before one is lost (RFC 9002 section 6.1.1).
pub(super) const REORDER_MIN: u64 = 3;
/// A link that reorders raises the threshold up to this, well within what one report tells.
const REORDER_MAX: u64 = 128;
/// A raised threshold is halved after this long without a spurious loss.
const REORDER_KEEP: Duration = Duration::from_secs(5);
/// Least time threshold of a loss (RFC 9002 calls it kGranularity).
const LOSS_DELAY_MIN: Duration = Duration::from_millis(1);
/// Losses while the queue stands above this are congestion.
const CONGESTED: Duration = Duration::from_millis(15);

impl<T: Copy> Sender<T> {
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
            self.taken += u64::from(entry.bytes);
            if let Some(item) = entry.item.take() {
                on(item);
            }
        }
    }

    /// Marks what the report tells for the first time; returns how many and the send times of the oldest and the
    /// youngest.
    pub(super) fn take_acks(
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
                Fate::Taken => {
                    entry.fate = Fate::Acked;
                    self.taken -= u64::from(entry.bytes);
                }
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
    pub(super) fn resolve(&mut self, now: Instant, on: &mut impl FnMut(Outcome<T>)) {
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
        match entry.fate {
            Fate::InFlight => self.in_flight -= u64::from(entry.bytes),
            Fate::Taken => self.taken -= u64::from(entry.bytes),
            Fate::Acked | Fate::Lost | Fate::Skipped => {}
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

    /// After this long in flight a datagram is lost if a later one was acknowledged.
    fn loss_delay(&self) -> Duration {
        let smoothed = self.path_rtt.smoothed().unwrap_or(RTT_INITIAL);
        let rtt = smoothed.max(self.path_rtt.latest());
        (rtt * 9 / 8).max(LOSS_DELAY_MIN) + self.config.report_interval
    }

    /// When the oldest datagram is lost by time.
    pub(super) fn loss_at(&self) -> Option<Instant> {
        let anchor = self.anchor?;
        let entry = self.log.get(self.oldest)?;
        (self.oldest < anchor).then(|| entry.sent_at + self.loss_delay())
    }

    /// Appends to the log; the oldest entry leaves a full one.
    pub(super) fn push(&mut self, entry: Entry<T>, on: &mut impl FnMut(Outcome<T>)) {
        if self.log.is_full() && self.log.first() == self.oldest {
            self.evict(self.oldest, on);
            self.oldest += 1;
        }
        self.log.push(entry);
    }

    /// Ends the wait for a number that leaves the log.
    pub(super) fn evict(&mut self, number: u64, on: &mut impl FnMut(Outcome<T>)) {
        let fate = self.log.get(number).map(|entry| entry.fate);
        if fate == Some(Fate::Taken) {
            self.taken -= self
                .log
                .get(number)
                .map_or(0, |entry| u64::from(entry.bytes));
        }
        if fate == Some(Fate::InFlight) {
            self.search.on_probe_unknown(number);
            self.settle(number, true, on);
            self.counters.unknown -= 1;
            self.counters.evicted += 1;
        }
    }
}
