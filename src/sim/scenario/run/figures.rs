//! The figures of a run that is over, and of the second that just ended.

use std::time::Duration;

use super::{GOODPUT_SHARE, Run, Sample, millis};
use crate::base::{Instant, Rate};
use crate::session::egress::SymbolCounts;
use crate::sim::impairment::Spec;
use crate::sim::packet::MSS;
use crate::sim::scenario::row::{Figure, Row};
use crate::sim::scenario::{Foreign, Span, foreign};
use crate::sim::traffic::{Flow, Tcp, longest_gap, quantile_in};
use crate::sim::world::{FlowId, ForeignId};

/// What is sent so long before the watched span may still be under way when it begins, nanoseconds.
const UNDER_WAY: u64 = 300_000_000;

/// Part of a span, and how each link's directions were in it.
type Piece<'a> = ((Instant, Instant), &'a [[Spec; 2]]);

impl Run<'_> {
    /// Goodput of each bulk flow in a span, Mbit/s.
    pub(super) fn goodputs(&self, from: Instant, to: Instant) -> Vec<f64> {
        let flows = self.bulk.iter().map(|&id| self.world.flow(id));
        flows
            .map(|flow| match flow {
                Flow::Tcp(tcp) => tcp.goodput(from, to).as_mbps(),
                Flow::Cbr(cbr) => {
                    let in_span = |at: Instant| at >= from && at < to;
                    let count = cbr.arrivals().iter().filter(|(at, _)| in_span(*at)).count();
                    Rate::from_bytes_over((count * MSS) as u64, to.since(from)).as_mbps()
                }
                Flow::Ping(_) => 0.0,
            })
            .collect()
    }

    /// Bytes that the links can carry in the judged direction in a span beside what is foreign traffic's in fairness; `None`
    /// without any bound.
    fn available(&self, from: Instant, to: Instant) -> Option<u64> {
        let mut sum = 0;
        for (span, links) in self.pieces((from, to)) {
            for specs in links {
                sum += specs[self.from.index()].bytes_in(span.0, span.1)?;
            }
        }
        let foreign = self.scenario.foreign.iter();
        let foreign = foreign.filter(|foreign| foreign.from == self.from);
        let taken: u64 = foreign
            .map(|foreign| self.fair_bytes(foreign, (from, to)))
            .sum();
        Some(sum.saturating_sub(taken))
    }

    /// Bytes of its link that are a foreign flow's own in a span.
    fn fair_bytes(&self, foreign: &Foreign, span: (Instant, Instant)) -> u64 {
        self.pieces(span)
            .map(|(piece, links)| {
                let spec = &links[foreign.link][foreign.from.index()];
                foreign.fair_bytes(spec, self.begin, piece)
            })
            .sum()
    }

    /// A span cut where links changed, with how they were in each piece.
    fn pieces(&self, (from, to): (Instant, Instant)) -> impl Iterator<Item = Piece<'_>> {
        self.specs
            .iter()
            .enumerate()
            .filter_map(move |(at, (start, links))| {
                let until = self.specs.get(at + 1).map_or(Instant::FAR, |next| next.0);
                let (start, end) = (from.max(*start), to.min(until));
                (start < end).then_some(((start, end), &links[..]))
            })
    }

    pub(super) fn efficiency(&self, goodput: f64, from: Instant, to: Instant) -> Option<f64> {
        let available = Rate::from_bytes_over(self.available(from, to)?, to.since(from)).as_mbps();
        (available > 0.0).then(|| goodput / (GOODPUT_SHARE * available))
    }

    fn span(&self, span: Span) -> (Instant, Instant) {
        let end = self.scenario.length;
        (
            self.begin + span.from.min(end),
            self.begin + span.to.min(end),
        )
    }

    /// The samples at the ends of a span.
    fn samples(&self, (from, to): (Instant, Instant)) -> [&Sample; 2] {
        [from, to].map(|time| {
            let after = self.samples.partition_point(|sample| sample.at <= time);
            &self.samples[after.saturating_sub(1)]
        })
    }

    pub(super) fn row(mut self) -> Row {
        let mut row = Row::default();
        row.story = std::mem::take(&mut self.story);
        self.set_speed(&mut row);
        self.set_pings(&mut row);
        self.set_faults(&mut row);
        self.set_links(&mut row);
        self.set_foreign(&mut row);
        row
    }

    fn set_speed(&self, row: &mut Row) {
        let (from, to) = self.span(self.scenario.steady);
        let goodputs = self.goodputs(from, to);
        let sum: f64 = goodputs.iter().sum();
        let squares: f64 = goodputs.iter().map(|goodput| goodput * goodput).sum();
        #[allow(clippy::cast_precision_loss)] // a few flows
        let fairness = sum * sum / (goodputs.len() as f64 * squares);
        row.set(Figure::Goodput, Some(sum));
        row.set(Figure::Efficiency, self.efficiency(sum, from, to));
        row.set(Figure::Fairness, fairness.is_finite().then_some(fairness));
        if goodputs.len() > 1 && sum > 0.0 {
            let least = goodputs.iter().copied().fold(f64::MAX, f64::min);
            #[allow(clippy::cast_precision_loss)] // a few flows
            let fair = sum / goodputs.len() as f64;
            row.set(Figure::LeastShare, Some(least / fair));
        }
        if let Some(span) = self.scenario.back {
            let (from, to) = self.span(span);
            let goodput = self.goodputs(from, to).iter().sum();
            row.set(Figure::Back, self.efficiency(goodput, from, to));
        }
        let tcps: Vec<&Tcp> = self.tcps().collect();
        for (figure, quantile) in [
            (Figure::RttP50, 0.5),
            (Figure::RttP95, 0.95),
            (Figure::RttP99, 0.99),
        ] {
            let worst = tcps
                .iter()
                .filter_map(|tcp| tcp.rtt_quantile(quantile, from, to))
                .max();
            row.set(figure, worst.map(millis));
        }
    }

    fn tcps(&self) -> impl Iterator<Item = &Tcp> {
        let flows = self.bulk.iter().map(|&id| self.world.flow(id));
        flows.filter_map(|flow| match flow {
            Flow::Tcp(tcp) => Some(&**tcp),
            Flow::Cbr(_) | Flow::Ping(_) => None,
        })
    }

    /// What a foreign flow had of its link in a span, headers included, Mbit/s.
    pub(super) fn foreign_mbps(&self, id: ForeignId, (from, to): (Instant, Instant)) -> f64 {
        let bytes = foreign::used_bytes(self.world.foreign(id), (from, to));
        Rate::from_bytes_over(bytes, to.since(from)).as_mbps()
    }

    fn set_foreign(&self, row: &mut Row) {
        if self.foreign.is_empty() {
            return;
        }
        let span = self.span(self.scenario.steady);
        let had: f64 = self
            .foreign
            .iter()
            .map(|&id| self.foreign_mbps(id, span))
            .sum();
        row.set(Figure::Foreign, Some(had));
        let own: u64 = self
            .scenario
            .foreign
            .iter()
            .map(|foreign| self.fair_bytes(foreign, span))
            .sum();
        let own = Rate::from_bytes_over(own, span.1.since(span.0)).as_mbps();
        row.set(Figure::ForeignShare, (own > 0.0).then(|| had / own));
        let watched = self.span(self.scenario.watched);
        let (mut sent, mut gone) = (0, 0);
        for &id in &self.foreign {
            let (all, lost) = foreign::lost(self.world.foreign(id), watched);
            sent += all;
            gone += lost;
        }
        row.set(Figure::ForeignLoss, share(gone, sent));
    }

    fn set_pings(&self, row: &mut Row) {
        let span = self.span(self.scenario.steady);
        let quantile =
            |id: FlowId, part: f64, (from, to): (Instant, Instant)| match self.world.flow(id) {
                Flow::Ping(ping) => ping.quantile(part, from, to).map(millis),
                _ => None,
            };
        for (part, idle, beside, rise) in [
            (0.5, Figure::IdleP50, Figure::PingP50, Figure::RiseP50),
            (0.99, Figure::IdleP99, Figure::PingP99, Figure::RiseP99),
        ] {
            let before = quantile(self.idle, part, (Instant::ZERO, self.begin));
            let during = self.pings.iter().filter_map(|&id| quantile(id, part, span));
            let during = during.max_by(f64::total_cmp);
            row.set(idle, before);
            row.set(beside, during);
            row.set(
                rise,
                during.zip(before).map(|(during, before)| during - before),
            );
        }
    }

    fn set_faults(&mut self, row: &mut Row) {
        let watched = self.span(self.scenario.watched);
        let gaps = self.bulk.iter().map(|&id| match self.world.flow(id) {
            Flow::Tcp(tcp) => tcp.longest_gap(watched.0, watched.1),
            Flow::Cbr(cbr) => longest_gap(cbr.arrivals().iter().map(|a| a.0), watched.0, watched.1),
            Flow::Ping(_) => Duration::ZERO,
        });
        row.set(Figure::Gap, gaps.max().map(millis));
        let [first, last] = self.samples(watched);
        let did = |at: usize| last.tcp[at] - first.tcp[at];
        if self.tcps().next().is_some() {
            row.set(Figure::Resent, share(did(1), did(0)));
            row.set(Figure::Timeouts, Some(number(did(2))));
        }
        let suspicions = last.suspicions - first.suspicions;
        row.set(Figure::Suspicions, Some(number(suspicions)));
        let arrived = |at: usize| last.arrived[at] - first.arrived[at];
        row.set(Figure::Disorder, share(arrived(1), arrived(0)));
        self.set_lost(row);
    }

    /// What was sent since a little before the watched span and did not come, but for known drops.
    fn set_lost(&mut self, row: &mut Row) {
        let (from, to) = self.span(self.scenario.watched);
        let before = Instant::from_nanos(from.as_nanos().saturating_sub(UNDER_WAY));
        let since = self.samples((before, to))[0];
        let (mut sent, mut missing) = (0, 0);
        for (id, first) in self.flows().zip(&since.sent) {
            let (all, gone) = self.world.ledger(id, self.from).since(*first);
            sent += all;
            missing += gone;
        }
        let before = since.dropped;
        let dropped = self.world.known_drops()[self.from.index()] - before;
        let lost = missing.saturating_sub(dropped);
        row.set(Figure::Lost, Some(number(lost)));
        row.set(Figure::LossRatio, share(lost, sent));
    }

    /// The flows of the scenario, the judged ones first.
    pub(super) fn flows(&self) -> impl Iterator<Item = FlowId> {
        self.bulk.iter().chain(&self.pings).copied()
    }

    fn set_links(&self, row: &mut Row) {
        let span = self.span(self.scenario.steady);
        for (figure, part) in [
            (Figure::QueueP50, 0.5),
            (Figure::QueueP95, 0.95),
            (Figure::QueueP99, 0.99),
        ] {
            let worst = (0..self.scenario.plan.links.len())
                .filter_map(|link| {
                    quantile_in(self.world.waits(0, link, self.from), part, span.0, span.1)
                })
                .max();
            row.set(figure, worst.map(millis));
        }
        row.set(Figure::CapacityError, self.capacity_error);
        let [first, last] = self.samples(span).map(|sample| sample.symbols);
        let extra = |counts: SymbolCounts| counts.repair + counts.duplicate + counts.resent;
        row.set(
            Figure::Overhead,
            share(extra(last) - extra(first), last.source - first.source),
        );
    }
}

#[allow(clippy::cast_precision_loss)] // counts of a short run
const fn number(count: u64) -> f64 {
    count as f64
}

fn share(part: u64, all: u64) -> Option<f64> {
    (all > 0).then(|| number(part) / number(all))
}
