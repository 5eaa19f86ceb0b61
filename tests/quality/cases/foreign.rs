//! Links that somebody else in the house uses as well, without the tunnel.

use chainlightning::base::Rate;
use chainlightning::sim::scenario::{Figure, Foreign, ForeignKind, Span};
use chainlightning::sim::traffic::CongestionControl;

use super::{BULKS, Bulk, Case, LINKS_A, with};
use crate::check::least;

/// When others begin.
const BEGINS: u64 = 8_000;
/// The link that others use, the one of 100 Mbit/s.
const SHARED: usize = 0;

pub fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = BULKS.map(greedy).into();
    cases.extend(BULKS.map(steady));
    cases
}

fn on_shared(bulk: Bulk, kind: ForeignKind, during: Span) -> Foreign {
    Foreign {
        link: SHARED,
        from: bulk.0,
        kind,
        during,
    }
}

/// T20: a download beside the tunnel. Neither starves: each has at least half of what is its own of the link in fairness, which
/// is 120 Mbit/s for the bundle and 95 with a quarter of the link.
fn greedy(bulk: Bulk) -> Case {
    let (end, span) = (BEGINS + 20_000, Span::millis(14_000, 28_000));
    let kind = ForeignKind::Greedy(CongestionControl::Cubic);
    let scenario = bulk
        .over(&with(&LINKS_A, ""), end / 1_000, 0)
        .foreign(on_shared(bulk, kind, Span::millis(BEGINS, end)))
        .judged(span, Span::millis(BEGINS, end));
    let checks = [
        least(Figure::Efficiency, 0.79),
        least(Figure::ForeignShare, 0.5),
    ];
    bulk.case("T20 greedy foreign", scenario, &checks)
}

/// T20: 60 Mbit/s that do not yield, and what comes back after them.
fn steady(bulk: Bulk) -> Case {
    let over = BEGINS + 12_000;
    let kind = ForeignKind::Steady(Rate::from_mbps(60));
    let scenario = bulk
        .over(&with(&LINKS_A, ""), (over + 6_000) / 1_000, 0)
        .foreign(on_shared(bulk, kind, Span::millis(BEGINS, over)))
        .judged(
            Span::millis(BEGINS + 2_000, over),
            Span::millis(BEGINS, over),
        )
        .back(Span::millis(over + 2_000, over + 6_000));
    let checks = [least(Figure::Efficiency, 0.85), least(Figure::Back, 0.90)];
    bulk.case("T20 steady foreign", scenario, &checks)
}
