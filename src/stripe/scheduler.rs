//! Which link takes the next packet or run.
//!
//! The caller fills one [`Candidate`] for each link that may carry data (suspected and dead links are simply not
//! there), asks for a pick, and calls [`Candidate::commit`] on the chosen one. Nothing here knows what a link is,
//! keeps time or queues packets: when no link is eligible the answer is `None` and the packet stays in the flow
//! queue, where AQM acts on it.
//!
//! Earliest delivery (the default) predicts when a packet of S bytes would arrive over each link:
//!
//! ```text
//! arrival_i = max(now, V_i) + 8 S / r_i + D_i + penalty_i
//! penalty_i = (1 - load) (1 - Q_i) (max D - min D + 5 ms)
//! eligible  : V_i - now <= B_i
//! ```
//!
//! At saturation the penalty is gone and every eligible link fills, so the split follows capacity; at low load
//! everything stays on the best link.
//!
//! Invariants: a pick is an index of `candidates`, eligible at `now`; the two of a pair differ; the same calls
//! give the same picks. O(N) for N links, no allocation.

use std::time::Duration;

use crate::base::id::LINKS_MAX;
use crate::base::{Instant, LinkId, Rate};

/// One link as the striper sees it.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// Which link.
    pub link: LinkId,
    /// V_i, the virtual clock: when the paced link has sent all that is committed to it.
    pub free_at: Instant,
    /// r_i, the pacing rate. Links of one WAN that share a pacer bring the WAN's rate and its common clock.
    pub rate: Rate,
    /// D_i, the relative one-way delay with half its spread ([`super::weight::delay`]).
    pub delay: Duration,
    /// Q_i in (0, 1] ([`super::weight::quality`]).
    pub quality: f64,
    /// W_i in bits per second ([`super::weight::weight`]).
    pub weight: f64,
    /// B_i, most committed backlog ([`super::weight::backlog_max`]).
    pub backlog_max: Duration,
    /// Symbols of the current group that the link carries already.
    pub share_of_group: u8,
}

impl Candidate {
    /// Whether the link may take more at `now`. Does not depend on the packet, so that the caller can ask before
    /// it takes one from the queue.
    pub fn is_eligible(&self, now: Instant) -> bool {
        self.rate > Rate::ZERO && self.free_at.since(now) <= self.backlog_max
    }

    /// Books `bytes` on the virtual clock.
    pub fn commit(&mut self, bytes: u32, now: Instant) {
        self.free_at = Instant::from_nanos(self.free_nanos(bytes, now));
    }

    /// When the last of `bytes` would arrive, in nanoseconds on a time base common to all links.
    fn arrival_nanos(&self, bytes: u32, now: Instant) -> u64 {
        self.free_nanos(bytes, now)
            .saturating_add(nanos(self.delay))
    }

    /// When the last of `bytes` would have left. [`Rate::time_for`] takes any number of bytes and divides 128 bits;
    /// the length of a run needs half of that.
    fn free_nanos(&self, bytes: u32, now: Instant) -> u64 {
        let bits = u64::from(bytes).saturating_mul(8_000_000_000);
        let sending = bits.checked_div(self.rate.bits_per_s()).unwrap_or(u64::MAX);
        self.free_at.max(now).as_nanos().saturating_add(sending)
    }
}

/// The ways to choose, as named in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Strategy {
    /// Earliest predicted arrival within a bounded committed backlog.
    #[default]
    EarliestDelivery,
    /// Bytes in proportion to the weights W_i.
    Weighted,
    /// All on the link of the largest weight; the others are spares.
    SingleBest,
    /// Each in turn.
    RoundRobin,
    /// Earliest delivery; the caller sends everything twice, over [`Scheduler::pick_two`].
    Redundant,
}

/// Chooses links by one [`Strategy`].
#[derive(Clone, Debug)]
pub struct Scheduler {
    strategy: Strategy,
    /// Bytes over weight that each link was given (stride scheduling), indexed by link. For `Weighted`.
    served: [f64; LINKS_MAX],
    /// The largest `served` at which a link was picked: where a link that was away joins again.
    served_front: f64,
    /// The link picked last. For `SingleBest` and `RoundRobin`.
    last: Option<LinkId>,
}

impl Scheduler {
    /// A scheduler that has picked nothing yet.
    pub const fn new(strategy: Strategy) -> Self {
        Self {
            strategy,
            served: [0.0; LINKS_MAX],
            served_front: 0.0,
            last: None,
        }
    }

    /// The strategy in use.
    pub const fn strategy(&self) -> Strategy {
        self.strategy
    }

    /// The link for the next `bytes` (of a packet, or of a run of equal datagrams); `load` is the part of the
    /// summed capacity in use, 0-1. `None` when no link is eligible.
    pub fn pick(
        &mut self,
        bytes: u32,
        now: Instant,
        load: f64,
        candidates: &[Candidate],
    ) -> Option<usize> {
        let index = match self.strategy {
            Strategy::EarliestDelivery | Strategy::Redundant => {
                earliest(bytes, now, load, candidates, |_| true)
            }
            Strategy::Weighted => self.least_served(bytes, now, candidates),
            Strategy::SingleBest => self.incumbent(now, candidates),
            Strategy::RoundRobin => self.next_in_turn(now, candidates),
        }?;
        self.last = Some(candidates[index].link);
        Some(index)
    }

    /// Two different links for the same `bytes`: the first as [`Self::pick`], the second the earliest of the
    /// others, if any is eligible.
    pub fn pick_two(
        &mut self,
        bytes: u32,
        now: Instant,
        load: f64,
        candidates: &[Candidate],
    ) -> Option<(usize, Option<usize>)> {
        let first = self.pick(bytes, now, load, candidates)?;
        let taken = candidates[first].link;
        Some((
            first,
            earliest(bytes, now, load, candidates, |c| c.link != taken),
        ))
    }

    /// The link for a repair symbol: where it arrives first, and of about equal ones the link that carries little of
    /// the group, measured against its quality. A link that carries more than half of the group is taken only when
    /// no other one has room: what kills the sources on a link kills the repair symbols on it as well.
    pub fn pick_for_repair(
        &mut self,
        bytes: u32,
        now: Instant,
        load: f64,
        candidates: &[Candidate],
    ) -> Option<usize> {
        if self.strategy == Strategy::SingleBest {
            return self.pick(bytes, now, load, candidates);
        }
        let total: u32 = candidates.iter().map(|c| u32::from(c.share_of_group)).sum();
        let mut best: Option<((bool, u64, f64), usize)> = None;
        // It belongs to bytes already sent: it may exceed the committed backlog a little.
        let may = |c: &Candidate| {
            c.rate > Rate::ZERO && c.free_at.since(now) <= c.backlog_max + REPAIR_BACKLOG
        };
        for (index, c) in candidates.iter().enumerate().filter(|(_, c)| may(c)) {
            let carries_most = u32::from(c.share_of_group) * 2 > total;
            let exposure = (f64::from(c.share_of_group) + 1.0) / c.quality.max(f64::MIN_POSITIVE);
            let step = c.arrival_nanos(bytes, now) / REPAIR_TIE_NS;
            let key = (carries_most, step, exposure);
            if best.is_none_or(|(other, _)| key < other) {
                best = Some((key, index));
            }
        }
        best.map(|(_, index)| index)
    }

    /// Stride scheduling: the eligible link with the fewest bytes for its weight.
    fn least_served(
        &mut self,
        bytes: u32,
        now: Instant,
        candidates: &[Candidate],
    ) -> Option<usize> {
        let mut best: Option<(f64, usize)> = None;
        for (index, c) in candidates
            .iter()
            .enumerate()
            .filter(|(_, c)| c.is_eligible(now))
        {
            // A link that could not take its turns may catch up on a little, not on its whole absence.
            let oldest = self.served_front - CATCH_UP_BYTES / positive(c.weight);
            let served = self.served[c.link.index()].max(oldest);
            if best.is_none_or(|(least, _)| served < least) {
                best = Some((served, index));
            }
        }
        let (served, index) = best?;
        let c = &candidates[index];
        self.served_front = self.served_front.max(served);
        self.served[c.link.index()] = served + f64::from(bytes) / positive(c.weight);
        Some(index)
    }

    /// The link of the largest weight, or the one used last while it is nearly as good.
    fn incumbent(&self, now: Instant, candidates: &[Candidate]) -> Option<usize> {
        let by_weight = |&a: &usize, &b: &usize| {
            // Of equal weights the first one wins, also in `max_by`, which prefers the last.
            candidates[a]
                .weight
                .total_cmp(&candidates[b].weight)
                .then(b.cmp(&a))
        };
        let best = (0..candidates.len()).max_by(by_weight)?;
        let kept = candidates
            .iter()
            .position(|c| Some(c.link) == self.last)
            .filter(|&i| candidates[i].weight * KEEP_FACTOR >= candidates[best].weight);
        let index = kept.unwrap_or(best);
        candidates[index].is_eligible(now).then_some(index)
    }

    /// The eligible link with the next higher number, or the lowest one.
    fn next_in_turn(&self, now: Instant, candidates: &[Candidate]) -> Option<usize> {
        let eligible = || {
            candidates
                .iter()
                .enumerate()
                .filter(|(_, c)| c.is_eligible(now))
        };
        let after = eligible()
            .filter(|(_, c)| Some(c.link) > self.last)
            .min_by_key(|(_, c)| c.link);
        after
            .or_else(|| eligible().min_by_key(|(_, c)| c.link))
            .map(|(index, _)| index)
    }
}

/// Arrivals closer than this count as equal and the larger weight decides: estimates are no better, and staying
/// on one link makes longer runs.
const TIE_NS: u64 = 200_000;
/// Arrivals of a repair symbol that count as equal: a group takes longer than that to go out.
const REPAIR_TIE_NS: u64 = 2_000_000;
/// How far repair symbols may exceed the committed backlog: several of a group's on a link of 20 Mbit/s.
const REPAIR_BACKLOG: Duration = Duration::from_millis(3);
/// Part of the penalty that does not depend on how far the links' delays are apart.
const PENALTY_MIN_NS: u64 = 5_000_000;
/// What a link may catch up on in `Weighted`: two of the largest superframes.
const CATCH_UP_BYTES: f64 = 131_072.0;
/// How much better another link must be before `SingleBest` moves: a move costs reordering.
const KEEP_FACTOR: f64 = 1.25;

/// Earliest predicted arrival among the eligible links that `allowed` lets through. In nanoseconds, and each
/// arrival once: this runs for every packet.
fn earliest(
    bytes: u32,
    now: Instant,
    load: f64,
    candidates: &[Candidate],
    allowed: impl Fn(&Candidate) -> bool,
) -> Option<usize> {
    let (mut delay_min, mut delay_max) = (u64::MAX, 0);
    for c in candidates {
        let delay = nanos(c.delay);
        (delay_min, delay_max) = (delay_min.min(delay), delay_max.max(delay));
    }
    let spread = delay_max
        .saturating_sub(delay_min)
        .saturating_add(PENALTY_MIN_NS);
    let penalty_max = float(spread) * (1.0 - load).clamp(0.0, 1.0);
    // Who cannot be picked stays at the maximum.
    let mut arrivals = [u64::MAX; LINKS_MAX];
    let mut earliest = u64::MAX;
    for (c, arrival) in candidates.iter().zip(&mut arrivals) {
        if c.is_eligible(now) && allowed(c) {
            let penalty = whole(penalty_max * (1.0 - c.quality).clamp(0.0, 1.0));
            *arrival = c
                .arrival_nanos(bytes, now)
                .saturating_add(penalty)
                .min(u64::MAX - 1);
            earliest = earliest.min(*arrival);
        }
    }
    let limit = earliest.saturating_add(TIE_NS).min(u64::MAX - 1);
    let mut best: Option<(usize, f64)> = None;
    for (index, (c, &arrival)) in candidates.iter().zip(&arrivals).enumerate() {
        if arrival <= limit && best.is_none_or(|(_, weight)| c.weight > weight) {
            best = Some((index, c.weight));
        }
    }
    best.map(|(index, _)| index)
}

/// Whole nanoseconds; 584 years saturate.
fn nanos(duration: Duration) -> u64 {
    let seconds = duration.as_secs().saturating_mul(1_000_000_000);
    seconds.saturating_add(u64::from(duration.subsec_nanos()))
}

#[expect(clippy::cast_precision_loss, reason = "2^53 ns are 104 days")]
const fn float(nanos: u64) -> f64 {
    nanos as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturates, >= 0"
)]
const fn whole(nanos: f64) -> u64 {
    nanos as u64
}

/// Weights are divisors here; nobody is served for free.
const fn positive(weight: f64) -> f64 {
    weight.max(1.0)
}

#[cfg(test)]
#[path = "scheduler_tests.rs"]
mod tests;
