//! Foreign traffic of a scenario: what it is, what of a link it may have, and what it got.

use std::time::Duration;

use super::Span;
use crate::base::{Instant, Rate};
use crate::sim::impairment::Spec;
use crate::sim::packet::{FlowAddress, MSS, MTU, Side};
use crate::sim::traffic::{Cbr, CongestionControl, Flow, Tcp, TcpConfig};

/// What of a link's rate is a greedy foreign flow's in fairness, whatever number of flows is inside the tunnel: the house has
/// two users of the link.
const GREEDY_PART: u64 = 2;

/// Somebody else in the house who uses a link without the tunnel. One at a time in each direction of a link.
#[derive(Clone, Copy, Debug)]
pub struct Foreign {
    /// The link.
    pub link: usize,
    /// Who sends: the house, or the host that it talks to.
    pub from: Side,
    /// How it sends.
    pub kind: ForeignKind,
    /// From when to when.
    pub during: Span,
}

/// How foreign traffic sends.
#[derive(Clone, Copy, Debug)]
pub enum ForeignKind {
    /// One TCP that sends as much as it can.
    Greedy(CongestionControl),
    /// Full packets at a constant rate, which they have on the link.
    Steady(Rate),
}

impl Foreign {
    /// The flow for a scenario whose flows begin at `begin`.
    pub(super) fn flow(&self, address: FlowAddress, begin: Instant) -> Flow {
        let start = begin + self.during.from;
        match self.kind {
            ForeignKind::Greedy(control) => {
                let config = TcpConfig {
                    control,
                    start,
                    ..TcpConfig::default()
                };
                Flow::Tcp(Box::new(Tcp::new(address, self.from, config)))
            }
            ForeignKind::Steady(rate) => {
                let lasts = self.during.to.saturating_sub(self.during.from);
                let count = rate.bytes_in(lasts) / MTU as u64;
                Flow::Cbr(Cbr::new(address, self.from, rate, MTU, count, start))
            }
        }
    }

    /// The part of a span in which it sends.
    fn overlap(&self, begin: Instant, (from, to): (Instant, Instant)) -> (Instant, Instant) {
        let (start, end) = (begin + self.during.from, begin + self.during.to);
        let start = start.max(from);
        (start, end.min(to).max(start))
    }

    /// Bytes of a link as `spec` describes it that are its own in a span.
    pub(super) fn fair_bytes(&self, spec: &Spec, begin: Instant, span: (Instant, Instant)) -> u64 {
        let (from, to) = self.overlap(begin, span);
        let all = spec.bytes_in(from, to);
        match self.kind {
            ForeignKind::Greedy(_) => all.unwrap_or(0) / GREEDY_PART,
            ForeignKind::Steady(rate) => {
                let own = rate.bytes_in(to.since(from));
                all.map_or(own, |all| own.min(all))
            }
        }
    }
}

/// Bytes on the link that became of use at the receiver of a foreign flow in a span: packets that a TCP had in order, packets
/// of a constant rate that came.
pub(super) fn used_bytes(flow: &Flow, (from, to): (Instant, Instant)) -> u64 {
    match flow {
        Flow::Tcp(tcp) => {
            let payload = tcp.goodput(from, to).bytes_in(to.since(from));
            payload * MTU as u64 / MSS as u64
        }
        Flow::Cbr(cbr) => {
            let arrivals = cbr.arrivals().iter();
            let count = arrivals.filter(|(at, _)| (from..to).contains(at)).count();
            (count * MTU) as u64
        }
        Flow::Ping(_) => 0,
    }
}

/// Packets that a constant rate sent in a span, and how many of those never came.
pub(super) fn lost(flow: &Flow, (from, to): (Instant, Instant)) -> (u64, u64) {
    let Flow::Cbr(cbr) = flow else {
        return (0, 0);
    };
    let in_span = |(at, delay): &&(Instant, Duration)| (from..to).contains(&(*at - *delay));
    let came = cbr.arrivals().iter().filter(in_span).count() as u64;
    let sent = cbr.sent_in(from, to);
    (sent, sent.saturating_sub(came))
}
