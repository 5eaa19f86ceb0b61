//! The receiving end of a TCP: what is there, what is missing, and when to say so.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{index_of, seq_of};
use crate::base::Instant;
use crate::sim::packet::{MSS, SACK_BLOCKS_MAX, Segment};

/// Longest time a lone segment waits for its acknowledgement.
const DELAYED_ACK: Duration = Duration::from_millis(40);
/// Segments acknowledged at once at the beginning, so that slow start is not slowed.
const QUICK_SEGMENTS: u64 = 32;

#[derive(Debug, Default)]
pub(super) struct Receiver {
    next: u64,
    /// Stretches beyond a hole: start and end. Few at any time.
    beyond: BTreeMap<u64, u64>,
    /// Start of the stretch that changed last.
    latest: u64,
    duplicate: Option<(u64, u64)>,
    echo: u32,
    ece: bool,
    unacked: u64,
    ack_at: Option<Instant>,
    pending: u32,
    number: u32,
    /// Time and segments in order so far, for each arrival that moved them on.
    progress: Vec<(Instant, u64)>,
    /// When data came, in order or not.
    arrivals: Vec<Instant>,
}

impl Receiver {
    pub(super) fn handle_data(&mut self, segment: &Segment, now: Instant) {
        let first = index_of(segment.seq, self.next);
        let count = segment.bytes.div_ceil(MSS) as u64;
        let end = first + count;
        self.echo = segment.number;
        self.arrivals.push(now);
        if segment.cwr {
            self.ece = false;
        }
        self.ece |= segment.marked;
        let had_hole = !self.beyond.is_empty();
        let known = end <= self.next
            || self
                .beyond
                .range(..=first)
                .next_back()
                .is_some_and(|(_, &to)| to >= end);
        if known {
            self.duplicate = Some((first, end));
            self.pending += 1;
            return;
        }
        self.insert(first.max(self.next), end);
        if let Some(to) = self.beyond.remove(&self.next) {
            self.next = to;
            self.progress.push((now, self.next));
        }
        self.unacked += count;
        if had_hole || !self.beyond.is_empty() || self.unacked >= 2 || self.next < QUICK_SEGMENTS {
            self.pending += 1;
            self.ack_at = None;
        } else if self.ack_at.is_none() {
            self.ack_at = Some(now + DELAYED_ACK);
        }
    }

    /// Joins a stretch with those it touches.
    fn insert(&mut self, mut first: u64, mut end: u64) {
        let touching: Vec<u64> = self
            .beyond
            .range(..=end)
            .filter(|&(_, &to)| to >= first)
            .map(|(&from, _)| from)
            .collect();
        for from in touching {
            if let Some(to) = self.beyond.remove(&from) {
                first = first.min(from);
                end = end.max(to);
            }
        }
        self.beyond.insert(first, end);
        self.latest = first;
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.ack_at.take_if(|at| now >= *at).is_some() {
            self.pending += 1;
        }
    }

    pub(super) fn poll_timeout(&self) -> Instant {
        self.ack_at.unwrap_or(Instant::FAR)
    }

    pub(super) fn poll_ack(&mut self) -> Option<Segment> {
        if self.pending == 0 {
            return None;
        }
        // One acknowledgement says all; while something is missing each arrival is told by itself.
        self.pending = if self.beyond.is_empty() {
            0
        } else {
            self.pending - 1
        };
        self.unacked = 0;
        self.ack_at = None;
        let number = self.number;
        self.number += 1;
        Some(Segment {
            ack: seq_of(self.next),
            number,
            echo: self.echo,
            ece: self.ece,
            sack: self.blocks(),
            ..Segment::default()
        })
    }

    /// The duplicate first (RFC 2883), then the stretch that changed last, then others.
    fn blocks(&mut self) -> [(u32, u32); SACK_BLOCKS_MAX] {
        let mut blocks = [(0, 0); SACK_BLOCKS_MAX];
        let duplicate = self.duplicate.take();
        let latest = self
            .beyond
            .get_key_value(&self.latest)
            .map(|(&a, &b)| (a, b));
        let others = self
            .beyond
            .iter()
            .map(|(&a, &b)| (a, b))
            .filter(|block| Some(*block) != latest);
        let all = duplicate.into_iter().chain(latest).chain(others);
        for (place, (from, to)) in blocks.iter_mut().zip(all) {
            *place = (seq_of(from), seq_of(to));
        }
        blocks
    }

    pub(super) fn bytes_in(&self, from: Instant, to: Instant) -> u64 {
        let until = |time: Instant| {
            let after = self.progress.partition_point(|(at, _)| *at < time);
            after.checked_sub(1).map_or(0, |at| self.progress[at].1)
        };
        (until(to) - until(from)) * MSS as u64
    }

    pub(super) fn arrivals(&self) -> impl Iterator<Item = Instant> + '_ {
        self.arrivals.iter().copied()
    }

    /// When data came that a reader could have.
    pub(super) fn reads(&self) -> impl Iterator<Item = Instant> + '_ {
        self.progress.iter().map(|(at, _)| *at)
    }
}
