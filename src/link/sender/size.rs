//! The sender's part in the search for the longest datagram: probes in the log, apart from everything that is counted.
//!
//! A probe is no loss of the link, no sign of its death and no number of its rate; an acknowledged one is a sign of
//! life like any other datagram.

use super::Sender;
use crate::base::Instant;
use crate::link::sent::{Entry, Fate};
use crate::link::state::State;

impl<T: Copy> Sender<T> {
    /// Length of the probe to send now. A link in trouble sends none: what happens there says nothing of lengths.
    pub const fn probe_wanted(&self) -> Option<u32> {
        match self.liveness.state() {
            State::Up | State::Probing => self.search.wanted(),
            State::Suspect | State::Down => None,
        }
    }

    /// A probe left. A heartbeat is due behind it, so that its loss shows as soon as that one arrives.
    pub fn on_transmit_probe(
        &mut self,
        number: u64,
        bytes: u32,
        now: Instant,
        on: &mut impl FnMut(super::Outcome<T>),
    ) {
        self.transmit(number, bytes, now, None, on);
        if let Some(entry) = self.log.get_mut(number) {
            entry.probe = true;
            self.search.on_transmit(number, bytes);
        }
        self.transmitted_at = Instant::ZERO;
    }

    /// The longest datagram that is known to arrive.
    pub const fn size(&self) -> u32 {
        self.search.size()
    }

    /// Whether not even datagrams of the least size arrive: the link is of no use for data.
    pub const fn is_narrow(&self) -> bool {
        self.search.is_narrow()
    }

    /// Our own host sends nothing longer than `bytes`. True when that is less than what was used.
    pub fn limit_size(&mut self, bytes: u32, now: Instant) -> bool {
        self.search.limit(bytes, now)
    }

    /// The path may be another one.
    pub fn restart_size(&mut self) {
        self.search.restart();
    }

    /// Whether long datagrams have begun to vanish; says so once.
    pub const fn take_black_hole(&mut self) -> bool {
        std::mem::replace(&mut self.black_hole, false)
    }

    /// Black holes found so far.
    pub const fn black_holes(&self) -> u64 {
        self.search.black_holes()
    }

    /// Probes wait while the link is in trouble; after a long absence the path is measured anew.
    pub(super) fn follow_state(&mut self) {
        match self.liveness.state() {
            State::Up | State::Probing => {}
            State::Suspect => self.search.interrupt(),
            State::Down => self.search.restart(),
        }
    }

    /// The fate of a datagram that is no probe, in the order of the numbers.
    pub(super) fn note_size(&mut self, entry: &Entry<T>, arrived: bool) {
        let round_trip = self.path_rtt.smoothed().unwrap_or_default();
        self.black_hole |= self
            .search
            .on_fate(entry.bytes, entry.sent_at, arrived, round_trip);
    }

    /// Ends the wait for a probe: lost, or not known.
    pub(super) fn settle_probe(&mut self, number: u64, unknown: bool, now: Instant) {
        let Some(entry) = self.log.get_mut(number) else {
            return;
        };
        if entry.fate == Fate::InFlight {
            self.in_flight -= u64::from(entry.bytes);
        }
        entry.fate = Fate::Lost;
        let bytes = entry.bytes;
        if unknown {
            self.search.on_probe_unknown(number);
        } else {
            // The rate control takes numbers that did not come for losses.
            self.skipped += 1;
            self.search.on_probe_lost(number, bytes, now);
        }
    }
}
