//! What the striper is told about the links, and how often.
//!
//! One candidate for each WAN with a link that is up; the WAN's links take turns. Delays, losses and capacities
//! are read once per turn of the commit loop, so that all decisions of a burst see the same picture.

use std::time::Duration;

use super::config::Mode;
use super::egress::{Class, GROUP_CLASSES, class_of, route_of};
use super::link::Link;
use super::policy::Tier;
use super::routes::Scope;
use super::{Session, overhead};
use crate::base::id::LINKS_MAX;
use crate::base::{Instant, Rate};
use crate::fec::GROUP_SYMBOLS_MAX;
use crate::fec::protection::{GroupLimits, Loss, Mode as FecMode};
use crate::link::owd::base_difference;
use crate::link::{Phase, State};
use crate::stripe::weight::BACKLOG_EXTRA;
use crate::stripe::{Candidate, Exponents, Figures, Strategy};

/// Part of the summed rate that copies of sparse symbols may take.
const COPIES_SHARE_MAX: f64 = 0.02;
/// Where links lose more than this, sparse symbols are copied up to this load: a lost acknowledgement of a bulk flow
/// holds up all behind it for a round trip, and the bulk flow with them.
const COPIES_LOSS_MIN: f64 = 0.000_2;
const COPIES_LOAD_MAX: f64 = 0.5;
/// Groups of small symbols are closed early, with one repair symbol more: it costs few bytes, and an acknowledgement
/// that waits holds up a whole flow.
const SMALL_FILL_TIME_MAX: Duration = Duration::from_millis(4);
/// With more than this waiting in the flow queue repair symbols are the first to go, ...
const BACKLOG_MAX: Duration = Duration::from_millis(50);
/// ... if no link loses more.
const BACKLOG_LOSS_MAX: f64 = 0.01;
/// Time constant of the load.
const LOAD_INTERVAL: Duration = Duration::from_millis(20);

/// What part of the summed capacity is in use, 0-1, smoothed over about 100 ms.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    value: f64,
    bytes: u64,
    since: Instant,
}

impl Load {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            value: 0.0,
            bytes: 0,
            since: now,
        }
    }

    pub(super) const fn on_transmit(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    fn refresh(&mut self, capacity: Rate, now: Instant) {
        let span = now.since(self.since);
        if span < LOAD_INTERVAL {
            return;
        }
        #[allow(clippy::cast_precision_loss)] // a ratio
        let used = self.bytes as f64 / capacity.bytes_in(span).max(1) as f64;
        self.value += 0.25 * (used.min(1.0) - self.value);
        (self.bytes, self.since) = (0, now);
    }

    /// The load, 0-1.
    pub const fn value(&self) -> f64 {
        self.value
    }
}

/// Least one-way delays of the links that are up, to compare others with.
#[derive(Debug)]
pub(super) struct Bases {
    values: [i64; LINKS_MAX],
    count: usize,
}

impl Bases {
    /// Median one-way delay of a link above the base of the fastest of these.
    pub(super) fn delay_of(&self, link: &Link) -> Duration {
        let delay = link.sender.delay();
        let others = self.values[..self.count].iter();
        let above = others.map(|&other| base_difference(delay.base_us, other));
        let above = above.max().unwrap_or(0).max(0);
        delay.p50 + Duration::from_micros(above.unsigned_abs())
    }
}

impl Mode {
    /// The striper's strategy for this mode.
    pub const fn strategy(self) -> Strategy {
        match self {
            Self::Balanced | Self::Throughput | Self::Latency => Strategy::EarliestDelivery,
            Self::Redundant => Strategy::Redundant,
            Self::Weighted => Strategy::Weighted,
            Self::SingleBest => Strategy::SingleBest,
            Self::RoundRobin => Strategy::RoundRobin,
        }
    }
}

impl Session {
    /// Reads what we believe about the links into `candidates`.
    pub(super) fn refresh_candidates(&mut self, now: Instant) {
        self.candidates.clear();
        self.apart.clear();
        self.held_back = 0;
        let mut figures = self.judgement.room();
        let rtt_min = self.rtt_min_of_links();
        let tier = self.usable_tier();
        let bases = self.bases();
        for wan in 0..self.wans.len() {
            let Some(index) = self.next_usable_link(wan, tier, now) else {
                continue;
            };
            let link = &self.links[index];
            let delay = bases.delay_of(link);
            figures.push(self.figures_of(link, delay, rtt_min));
            let candidate = self.candidate_of_link(index, delay, now);
            self.candidates.push(candidate);
        }
        let capacity = self
            .candidates
            .iter()
            .fold(Rate::ZERO, |sum, c| sum.saturating_add(c.rate));
        self.load.refresh(capacity, now);
        let exponents = Exponents {
            rtt: self.config.rtt_weight,
            loss: self.config.loss_weight,
        };
        let assessments = self.judgement.of(figures, exponents, self.load.value());
        for (candidate, a) in self.candidates.iter_mut().zip(assessments) {
            candidate.delay = a.delay;
            candidate.quality = a.quality;
            candidate.weight = a.weight;
            candidate.backlog_max = a.backlog_max;
        }
        if self.config.mode == Mode::Latency {
            self.hold_back_slow_links(rtt_min / 2);
        }
        self.refresh_apart(now);
        self.remember_best();
        self.refresh_equaliser(rtt_min, now);
    }

    /// Least round trip of the links that are up.
    pub(super) fn rtt_min_of_links(&self) -> Duration {
        let up = self.links.iter().filter(|l| l.is_up());
        up.map(|l| l.sender.rtt_min()).min().unwrap_or_default()
    }

    /// What the striper's weights follow from.
    pub(super) fn figures_of(&self, link: &Link, delay: Duration, rtt_min: Duration) -> Figures {
        let spread = link.sender.delay();
        Figures {
            capacity: self.wans[link.wan.index()].capacity(),
            delay_p50: delay,
            delay_p95: delay + spread.p95.saturating_sub(spread.p50),
            delay_base: rtt_min / 2,
            loss: link.sender.loss().ratio,
        }
    }

    /// A link of this delay as a candidate without an assessment.
    pub(super) fn candidate_of_link(
        &self,
        index: usize,
        delay: Duration,
        now: Instant,
    ) -> Candidate {
        let link = &self.links[index];
        let wan = &self.wans[link.wan.index()];
        let queued: u64 = self
            .links
            .iter()
            .filter(|l| l.wan == link.wan)
            .map(|l| l.queued_bytes)
            .sum();
        // While more is tried than the WAN is known to carry, its packets arrive no sooner than it is known to.
        let rate = wan.pacing_rate().min(wan.capacity());
        Candidate {
            link: link.id,
            free_at: wan.pacer.next_send_at(now) + rate.time_for(queued),
            rate,
            delay,
            quality: 1.0,
            weight: 0.0,
            backlog_max: BACKLOG_EXTRA,
            share_of_group: 0,
        }
    }

    /// A candidate by its place: the ordinary ones, then those that are apart.
    pub(super) fn candidate(&self, at: usize) -> &Candidate {
        let ordinary = self.candidates.len();
        self.candidates
            .get(at)
            .unwrap_or_else(|| &self.apart[at - ordinary])
    }

    pub(super) fn candidate_mut(&mut self, at: usize) -> &mut Candidate {
        let ordinary = self.candidates.len();
        self.candidates
            .get_mut(at)
            .unwrap_or_else(|| &mut self.apart[at - ordinary])
    }

    /// The next link of a WAN in turn that may carry data.
    fn next_usable_link(&self, wan: usize, tier: Tier, now: Instant) -> Option<usize> {
        let count = self.links.len();
        (0..count)
            .map(|step| (self.wans[wan].next_link + step) % count)
            .find(|&index| self.links[index].wan.index() == wan && self.is_usable(index, tier, now))
    }

    /// Median one-way delay of a link above the base of the fastest open link.
    pub(super) fn delay_of(&self, link: &Link) -> Duration {
        self.bases().delay_of(link)
    }

    /// The bases of the links that are up.
    pub(super) fn bases(&self) -> Bases {
        let mut bases = Bases {
            values: [0; LINKS_MAX],
            count: 0,
        };
        let up = |link: &&Link| link.is_open() && link.sender.state() == State::Up;
        for link in self.links.iter().filter(up) {
            bases.values[bases.count] = link.sender.base_us();
            bases.count += 1;
        }
        bases
    }

    pub(super) fn has_room(&self, now: Instant) -> bool {
        self.candidates
            .iter()
            .any(|candidate| candidate.is_eligible(now))
    }

    pub(super) fn pick(&mut self, bytes: usize, now: Instant) -> Option<usize> {
        let wire = overhead::wire_bytes(overhead::datagram_bytes(bytes));
        self.egress
            .scheduler
            .pick(wire, now, self.load.value(), &self.candidates)
    }

    /// A second link beside the candidate `first`.
    pub(super) fn pick_other(&self, first: usize, bytes: usize, now: Instant) -> Option<usize> {
        let wire = u64::from(overhead::wire_bytes(overhead::datagram_bytes(bytes)));
        let arrival = |c: &Candidate| c.free_at.max(now) + c.rate.time_for(wire) + c.delay;
        (0..self.candidates.len())
            .filter(|&at| at != first)
            .min_by_key(|&at| (self.share_wan(at, first), arrival(&self.candidates[at])))
    }

    /// Whether what happens to the WAN of one candidate happens to the other as well: a copy there is of less use.
    fn share_wan(&self, a: usize, b: usize) -> bool {
        let wan = |at| self.links[self.candidate(at).link.index()].wan;
        wan(a) == wan(b)
    }

    /// The link of least delay and one of another WAN, if there is one, as if nothing were committed: for symbols that go
    /// ahead of the queues.
    pub(super) fn pick_two_quick(&self, bytes: usize) -> (Option<usize>, Option<usize>) {
        let wire = u64::from(overhead::wire_bytes(overhead::datagram_bytes(bytes)));
        let arrival = |&at: &usize| {
            let candidate = self.candidate(at);
            candidate.delay + candidate.rate.time_for(wire)
        };
        let count = self.candidates.len() + self.held_back;
        let first = (0..count).min_by_key(arrival);
        let second = first.and_then(|first| {
            (0..count)
                .filter(|&at| at != first)
                .min_by_key(|&at| (self.share_wan(at, first), arrival(&at)))
        });
        (first, second)
    }

    pub(super) fn pick_for_repair(&mut self, bytes: usize, now: Instant) -> Option<usize> {
        let wire = overhead::wire_bytes(overhead::datagram_bytes(bytes));
        let load = self.load.value();
        self.egress
            .scheduler
            .pick_for_repair(wire, now, load, &self.candidates)
            .or_else(|| (0..self.candidates.len()).min_by_key(|&at| self.candidates[at].free_at))
    }

    /// Tells each WAN whether something waits for its pacer: then delivery shows capacity. A WAN is full long before
    /// all are: what is committed to it waits, while the frames behind find room elsewhere.
    pub(super) fn set_backlogged(&mut self, now: Instant) {
        for number in 0..self.wans.len() {
            let waits = |link: &Link| link.wan.index() == number && link.is_overdue(now);
            let backlogged = self.links.iter().any(waits) || self.waits_for(number);
            let wan = &mut self.wans[number];
            if wan.backlogged != backlogged {
                wan.backlogged = backlogged;
                wan.rate.set_backlogged(backlogged, now);
            }
        }
    }

    /// Whether a WAN in use still looks for its capacity: CoDel must not end the inner flow's own start.
    pub(super) fn in_startup(&self) -> bool {
        self.candidates.iter().any(|c| {
            let wan = self.links[c.link.index()].wan;
            self.wans[wan.index()].phase() == Phase::Startup
        })
    }

    /// Summed pacing rate of the links in use.
    pub(super) fn rate_sum(&self) -> Rate {
        self.candidates
            .iter()
            .fold(Rate::ZERO, |sum, c| sum.saturating_add(c.rate))
    }

    /// Most symbols and longest fill time of a group.
    pub(super) fn group_limits(&self, route: usize) -> GroupLimits {
        let symbol = overhead::symbol_bytes_max(self.size.datagram_bytes);
        let limits = self.limits.of(self.rate_on(route), symbol, self.peer_hold);
        match self.config.fec {
            FecMode::Fixed { source_count, .. } => GroupLimits {
                source_count_max: source_count,
                ..limits
            },
            FecMode::Adaptive { .. } | FecMode::Off => limits,
        }
    }

    /// Expected share and losses of the links for a group of `source_count` symbols.
    fn loss_of_links(&self, source_count: usize) -> ([Loss; LINKS_MAX], usize) {
        let mut losses = [Loss::default(); LINKS_MAX];
        let sum = self.rate_sum().as_mbps().max(f64::MIN_POSITIVE);
        for (out, candidate) in losses.iter_mut().zip(&self.candidates) {
            let picture = self.links[candidate.link.index()].sender.loss();
            #[allow(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss
            )] // below 256
            let symbols = (source_count as f64 * candidate.rate.as_mbps() / sum).ceil() as usize;
            *out = Loss {
                symbols,
                ratio: picture.ratio,
                burst: picture.burst,
            };
        }
        (losses, self.candidates.len())
    }

    /// The rate at which a route's symbols leave.
    fn rate_on(&self, route: usize) -> Rate {
        match self.scope(route) {
            Scope::One(at) => self.candidate(at).rate,
            Scope::All | Scope::Nowhere => self.rate_sum(),
        }
    }

    /// Looks from time to time whether the links lose more or less than before.
    pub(super) fn refresh_protection(&mut self, now: Instant) {
        if now < self.egress.protection.update_at() {
            return;
        }
        self.refresh_candidates(now);
        let source_count = self.group_limits(0).source_count_max;
        let (losses, count) = self.loss_of_links(source_count);
        let feasible = self.retransmit_is_feasible();
        let protection = &mut self.egress.protection;
        protection.update(source_count, &losses[..count], feasible, now);
    }

    /// Repair symbols for a closed group of a slot.
    pub(super) fn repairs_for(&self, slot: usize, source_count: usize) -> usize {
        if self.repair_yields() {
            return 0;
        }
        let count = match self.scope(route_of(slot)) {
            Scope::One(at) => self.repairs_on(at, source_count),
            Scope::All | Scope::Nowhere => self.egress.protection.repair_count(source_count),
        };
        let adaptive = matches!(self.config.fec, FecMode::Adaptive { .. });
        let more = class_of(slot) == Class::Small && adaptive;
        let room = GROUP_SYMBOLS_MAX.saturating_sub(source_count + count);
        count + usize::from(more && count > 0 && room > 0)
    }

    /// Repair symbols for a group that uses one link alone.
    fn repairs_on(&self, at: usize, source_count: usize) -> usize {
        let picture = self.links[self.candidate(at).link.index()].sender.loss();
        let losses = [Loss {
            symbols: source_count,
            ratio: picture.ratio,
            burst: picture.burst,
        }];
        let feasible = self.retransmit_is_feasible();
        let mode = self.config.protection();
        mode.repair_count(source_count, &losses, feasible)
    }

    /// Repair symbols that a group opened now will probably get.
    pub(super) fn planned_repairs(&self, slot: usize) -> usize {
        let route = route_of(slot);
        let bulk = route * GROUP_CLASSES + Class::Bulk as usize;
        self.repairs_for(bulk, self.group_limits(route).source_count_max)
    }

    /// Longest time a group of a slot stays open.
    pub(super) fn fill_time_max(&self, slot: usize) -> Duration {
        let usual = self.group_limits(route_of(slot)).fill_time_max;
        match class_of(slot) {
            Class::Bulk => usual,
            Class::Small => usual.min(SMALL_FILL_TIME_MAX),
        }
    }

    /// Whether repair symbols would only make a long queue longer: little is lost, and can be sent again.
    fn repair_yields(&self) -> bool {
        let mild =
            |c: &Candidate| self.links[c.link.index()].sender.loss().ratio < BACKLOG_LOSS_MAX;
        let waiting: u64 = self
            .egress
            .routes
            .iter()
            .map(|route| route.queue.bytes())
            .sum();
        matches!(self.config.fec, FecMode::Adaptive { .. })
            && waiting > self.rate_sum().bytes_in(BACKLOG_MAX)
            && self.candidates.iter().all(mild)
            && self.retransmit_is_feasible()
    }

    /// Whether a lost symbol sent again comes before the receiver stops waiting.
    fn retransmit_is_feasible(&self) -> bool {
        let rtt = self
            .candidates
            .iter()
            .map(|c| self.links[c.link.index()].sender.rtt_min())
            .min();
        rtt.is_some_and(|rtt| {
            rtt + self.reports.interval + Duration::from_millis(5) < crate::reorder::hold::HOLD_MAX
        })
    }

    /// Whether symbols of sparse flows get a copy on a second link.
    pub(super) fn wants_copies(&mut self) -> bool {
        if self.candidates.len() + self.held_back < 2 {
            return false;
        }
        match self.config.mode {
            Mode::Throughput => return false,
            Mode::Latency => return true,
            _ if !self.config.fec.may_repair() => return false,
            _ => {}
        }
        let copies = self.egress.counts.duplicate - self.copies_before.0;
        let all = self.egress.counts.source - self.copies_before.1;
        if all >= 4096 {
            self.copies_before = (self.egress.counts.duplicate, self.egress.counts.source);
        }
        // A trickle is always copied, and what has no repair symbols while there is room; beside bulk traffic the share
        // is bounded.
        #[allow(clippy::cast_precision_loss)] // counts of one window
        let share = copies as f64 / all.max(1) as f64;
        let loses =
            |c: &Candidate| self.links[c.link.index()].sender.loss().ratio > COPIES_LOSS_MIN;
        let load_max = if self.candidates.iter().any(loses) {
            COPIES_LOAD_MAX
        } else {
            COPIES_SHARE_MAX
        };
        self.load.value() < load_max || share < COPIES_SHARE_MAX
    }
}
