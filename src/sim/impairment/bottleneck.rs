//! How long the narrowest place of a link needs for each packet: a rate, a trace of delivery opportunities, or
//! nothing at all; interrupted by handover silences.
//!
//! Never holds packets: it is asked once per packet, in order, and answers with the instant of the last bit.

use std::time::Duration;

use super::noise;
use super::spec::{Capacity, Handover};
use super::trace::{OPPORTUNITY_BYTES, Position};
use crate::base::Instant;

/// The server behind the queue. Invariant: answers never go back in time.
#[derive(Debug)]
pub(super) struct Bottleneck {
    capacity: Capacity,
    handover: Option<Handover>,
    seed: u64,
    /// When the last bit of the last packet left.
    free_at: Instant,
    /// Bit-nanoseconds that the division of the last packet left over.
    remainder: u128,
    /// The trace's opportunity in use, and what it can still carry.
    position: Position,
    opportunity_left: u64,
}

impl Bottleneck {
    pub(super) fn new(capacity: Capacity, handover: Option<Handover>, seed: u64) -> Self {
        Self {
            capacity,
            handover,
            seed,
            free_at: Instant::ZERO,
            remainder: 0,
            position: Position::default(),
            opportunity_left: 0,
        }
    }

    pub(super) fn set(&mut self, capacity: Capacity, handover: Option<Handover>) {
        if capacity != self.capacity {
            self.remainder = 0;
            self.position = Position::default();
            self.opportunity_left = 0;
        }
        self.capacity = capacity;
        self.handover = handover;
    }

    /// When the last bit of a packet of `bytes` leaves that is first in line from `ready` on.
    pub(super) fn serve(&mut self, ready: Instant, bytes: u64) -> Instant {
        let start = ready.max(self.free_at);
        if start > self.free_at {
            self.remainder = 0;
        }
        self.free_at = match self.capacity.clone() {
            Capacity::Unlimited => self.after_silence(start),
            Capacity::Rate(rate) => {
                let work = u128::from(bytes) * 8_000_000_000 + self.remainder;
                let bits_per_s = u128::from(rate.bits_per_s().max(1));
                self.remainder = work % bits_per_s;
                let nanos = u64::try_from(work / bits_per_s).unwrap_or(u64::MAX);
                self.work_from(start, Duration::from_nanos(nanos))
            }
            Capacity::Trace(trace) => {
                let mut need = bytes;
                let mut at = self.position.at(&trace);
                if start > at || self.position == Position::default() {
                    self.opportunity_left = 0;
                    self.position = self.position.max(Position::from(start, &trace));
                }
                loop {
                    let take = need.min(self.opportunity_left);
                    need -= take;
                    self.opportunity_left -= take;
                    if need == 0 {
                        break;
                    }
                    at = self.next_opportunity(&trace);
                    self.opportunity_left = OPPORTUNITY_BYTES;
                }
                at.max(start)
            }
        };
        self.free_at
    }

    /// Steps to the next opportunity that no silence swallows.
    fn next_opportunity(&mut self, trace: &super::Trace) -> Instant {
        loop {
            let at = self.position.step(trace);
            if self.after_silence(at) == at {
                return at;
            }
        }
    }

    /// The end of `work` begun at `start`, with the silences on the way added.
    fn work_from(&self, start: Instant, mut work: Duration) -> Instant {
        let mut at = self.after_silence(start);
        let Some(handover) = &self.handover else {
            return at + work;
        };
        loop {
            let next = handover.next_after(at);
            let until = next.since(at);
            if work <= until {
                return at + work;
            }
            work -= until;
            at = self.after_silence(next);
        }
    }

    /// `at`, or the end of the silence that holds at `at`.
    fn after_silence(&self, at: Instant) -> Instant {
        let Some(handover) = &self.handover else {
            return at;
        };
        if at < handover.first_at() {
            return at;
        }
        let index = handover.index_at(at);
        let spread = handover.length_max.saturating_sub(handover.length_min);
        let length = handover.length_min + spread.mul_f64(noise(!self.seed, index));
        at.max(handover.start_of(index) + length)
    }
}
