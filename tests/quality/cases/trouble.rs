//! Links that lose, die, come back and change.

use chainlightning::sim::packet::Side;
use chainlightning::sim::scenario::{BOTH, Figure, Span};

use super::{Case, LINKS_A, case, ms, over, way, with};
use crate::check::{least, most};

/// When links begin to change.
const BEFORE: u64 = 7_000;

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for from in BOTH {
        cases.push(loss(from));
        cases.push(bursts(from));
    }
    for from in BOTH {
        for link in 0..3 {
            for (sides, name) in [
                (&BOTH[..], "both"),
                (&BOTH[..1], "up dead"),
                (&BOTH[1..], "down dead"),
            ] {
                cases.push(black_hole(from, link, sides, name));
            }
        }
    }
    for from in BOTH {
        for link in 0..3 {
            cases.push(comes_back(from, link));
        }
    }
    for from in BOTH {
        cases.push(steps(from));
        cases.push(jitter(from));
    }
    cases
}

/// T7: independent loss everywhere.
fn loss(from: Side) -> Case {
    case(
        format!("T7 A 2% {} cubic", way(from)),
        over(&with(&LINKS_A, "loss=2%"), from, 16, 6),
        &[
            least(Figure::Efficiency, 0.80, 0.3),
            most(Figure::LossRatio, 1e-5, 1e-3),
            most(Figure::Overhead, 0.10, 0.25),
        ],
    )
}

/// T8: bursts of loss everywhere.
fn bursts(from: Side) -> Case {
    case(
        format!("T8 A gilbert 2%/8 {} cubic", way(from)),
        over(&with(&LINKS_A, "gilbert=2%/8"), from, 16, 6),
        &[
            least(Figure::Efficiency, 0.75, 0.2),
            most(Figure::LossRatio, 1e-4, 1e-3),
            most(Figure::Overhead, 0.12, 0.3),
        ],
    )
}

/// T10: a link dies under full load. Judged: what the others carry in the second and third second.
fn black_hole(from: Side, link: usize, sides: &[Side], name: &str) -> Case {
    let scenario = over(&with(&LINKS_A, ""), from, 10, 0)
        .change(ms(BEFORE), link, sides, "outage=on")
        .judged(
            Span::millis(BEFORE + 1_000, BEFORE + 3_000),
            Span::millis(BEFORE, BEFORE + 3_000),
        );
    case(
        format!("T10 link {link} {name} {} cubic", way(from)),
        scenario,
        &[
            least(Figure::Efficiency, 0.90, 0.3),
            most(Figure::Gap, 100.0, 400.0),
            most(Figure::Lost, 0.0, 10.0),
            most(Figure::Timeouts, 0.0, 2.0),
        ],
    )
}

/// T11: it comes back after 8 s. Judged: what all carry from the fourth to the sixth second.
fn comes_back(from: Side, link: usize) -> Case {
    let back = BEFORE + 8_000;
    let scenario = over(&with(&LINKS_A, ""), from, 21, 0)
        .change(ms(BEFORE), link, &BOTH, "outage=on")
        .change(ms(back), link, &BOTH, "outage=off")
        .judged(
            Span::millis(back + 3_000, back + 6_000),
            Span::millis(back, back + 6_000),
        );
    case(
        format!("T11 link {link} back {} cubic", way(from)),
        scenario,
        &[
            least(Figure::Efficiency, 0.90, 0.3),
            most(Figure::Lost, 0.0, 10.0),
            most(Figure::Timeouts, 0.0, 2.0),
        ],
    )
}

/// T12: one of two links falls to 20 Mbit/s and rises again, every 5 s.
fn steps(from: Side) -> Case {
    let links = [
        "rate=50mbit delay=10ms queue=200ms",
        "rate=50mbit delay=20ms queue=200ms",
    ];
    let mut scenario = over(&with(&links, ""), from, 28, 8);
    for (number, rate) in [20, 50, 20, 50].into_iter().enumerate() {
        let at = ms(8_000 + 5_000 * number as u64);
        scenario = scenario.change(at, 0, &BOTH, &format!("rate={rate}mbit"));
    }
    case(
        format!("T12 50-20-50 {} cubic", way(from)),
        scenario,
        &[
            least(Figure::Efficiency, 0.85, 0.3),
            most(Figure::QueueP99, 60.0, 250.0),
        ],
    )
}

/// T15: delays that wander.
fn jitter(from: Side) -> Case {
    let links: Vec<String> = LINKS_A
        .iter()
        .zip([5, 15, 40])
        .map(|(link, jitter)| format!("{link} jitter={jitter}ms"))
        .collect();
    case(
        format!("T15 A jitter 5/15/40 {} cubic", way(from)),
        over(&links, from, 16, 8),
        &[
            least(Figure::Efficiency, 0.92, 0.3),
            most(Figure::Disorder, 1e-4, 1e-2),
        ],
    )
}
