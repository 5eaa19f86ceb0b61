//! Links that lose, die, come back and change.

use chainlightning::sim::packet::Side;
use chainlightning::sim::scenario::{BOTH, Figure, Scenario, Span};

use super::{BULKS, Bulk, Case, LINKS_A, ms, with};
use crate::check::{least, most};

/// When links begin to change.
const BEFORE: u64 = 7_000;
/// When they do in a BBR flow's steady state.
const BEFORE_LATE: u64 = 26_000;

pub fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = BULKS.map(loss).into();
    cases.extend(BULKS.map(bursts));
    cases.extend(BULKS.map(little_loss));
    cases.extend(BULKS.map(no_loss));
    for bulk in BULKS {
        for link in 0..3 {
            cases.push(black_hole(bulk, link, &BOTH, BEFORE, "dead"));
        }
    }
    for bulk in &BULKS[2..] {
        for link in 0..3 {
            cases.push(black_hole(*bulk, link, &BOTH, BEFORE_LATE, "dead late"));
        }
    }
    // One direction alone: the sender's own and the one that the reports take.
    for bulk in &BULKS[..2] {
        for link in 0..3 {
            cases.push(black_hole(*bulk, link, &BOTH[..1], BEFORE, "up dead"));
            cases.push(black_hole(*bulk, link, &BOTH[1..], BEFORE, "down dead"));
        }
    }
    for bulk in BULKS {
        for link in 0..3 {
            cases.push(comes_back(bulk, link));
        }
    }
    for bulk in &BULKS[2..] {
        for link in 0..3 {
            cases.push(comes_back_for_a_cycle(*bulk, link));
        }
    }
    cases.extend(BULKS.map(steps));
    cases.extend(BULKS.map(jitter));
    cases.extend(BULKS[2..].iter().map(|bulk| jitter_late(*bulk)));
    cases.extend(BULKS.map(longer_way));
    cases
}

/// T7: independent loss everywhere.
fn loss(bulk: Bulk) -> Case {
    let scenario = bulk.over(&with(&LINKS_A, "loss=2%"), 16, 6);
    let checks = [
        least(Figure::Efficiency, 0.80),
        most(Figure::LossRatio, 1e-5),
        most(Figure::Overhead, 0.10),
    ];
    bulk.case("T7 A 2%", scenario, &checks)
}

/// T8: bursts of loss everywhere.
fn bursts(bulk: Bulk) -> Case {
    let scenario = bulk.over(&with(&LINKS_A, "gilbert=2%/8"), 16, 6);
    let checks = [
        least(Figure::Efficiency, 0.75),
        most(Figure::LossRatio, 1e-4),
        most(Figure::Overhead, 0.12),
    ];
    bulk.case("T8 A gilbert 2%/8", scenario, &checks)
}

/// T9: a little loss on the largest link costs next to nothing.
fn little_loss(bulk: Bulk) -> Case {
    let mut links = with(&LINKS_A, "");
    let clean = bulk.over(&links, 16, 6);
    links[0] += " loss=0.1%";
    let checks = [least(Figure::Gain, 0.98), most(Figure::Overhead, 0.02)];
    let mut case = bulk.case("T9 A 0.1% on one", bulk.over(&links, 16, 6), &checks);
    case.against = Some(clean);
    case
}

/// T9: without loss nothing is sent in vain.
fn no_loss(bulk: Bulk) -> Case {
    let scenario = bulk.over(&with(&LINKS_A, ""), 12, 6);
    let checks = [most(Figure::Overhead, 0.01), most(Figure::LossRatio, 0.0)];
    bulk.case("T9 A clean", scenario, &checks)
}

/// T10: a link dies under full load. Judged: what the others carry in the second and third second.
fn black_hole(bulk: Bulk, link: usize, sides: &[Side], before: u64, name: &str) -> Case {
    let end = before + 3_000;
    let scenario = bulk
        .over(&with(&LINKS_A, ""), end / 1_000, 0)
        .change(ms(before), link, sides, "outage=on")
        .judged(Span::millis(before + 1_000, end), Span::millis(before, end));
    let checks = [
        least(Figure::Efficiency, 0.90),
        most(Figure::Gap, 100.0),
        most(Figure::Lost, 0.0),
        most(Figure::Timeouts, 0.0),
    ];
    bulk.case(&format!("T10 link {link} {name}"), scenario, &checks)
}

/// T11: it comes back after 8 s. Judged: what all carry from the fourth to the sixth second.
fn comes_back(bulk: Bulk, link: usize) -> Case {
    returned(bulk, link, 3_000, "back")
}

/// T11: the same over the ten seconds from one of a BBR flow's probes for the round trip to the next. A probe takes 0.2 s and
/// a round trip or two, and whether it falls into three seconds is chance.
fn comes_back_for_a_cycle(bulk: Bulk, link: usize) -> Case {
    returned(bulk, link, 10_000, "back, a cycle")
}

/// What all carry from the fourth second after a link's return on, for some milliseconds.
fn returned(bulk: Bulk, link: usize, lasts: u64, name: &str) -> Case {
    let back = BEFORE + 8_000;
    let end = back + 3_000 + lasts;
    let scenario = bulk
        .over(&with(&LINKS_A, ""), end / 1_000, 0)
        .change(ms(BEFORE), link, &BOTH, "outage=on")
        .change(ms(back), link, &BOTH, "outage=off")
        .judged(Span::millis(back + 3_000, end), Span::millis(back, end));
    let checks = [
        least(Figure::Efficiency, 0.90),
        most(Figure::Lost, 0.0),
        most(Figure::Timeouts, 0.0),
    ];
    bulk.case(&format!("T11 link {link} {name}"), scenario, &checks)
}

/// T12: one of two links falls to 20 Mbit/s and rises again, every 5 s.
fn steps(bulk: Bulk) -> Case {
    let links = [
        "rate=50mbit delay=10ms queue=200ms",
        "rate=50mbit delay=20ms queue=200ms",
    ];
    let mut scenario = bulk.over(&with(&links, ""), 28, 8);
    for (number, rate) in [20, 50, 20, 50].into_iter().enumerate() {
        let at = ms(8_000 + 5_000 * number as u64);
        scenario = scenario.change(at, 0, &BOTH, &format!("rate={rate}mbit"));
    }
    let checks = [
        least(Figure::Efficiency, 0.85),
        most(Figure::QueueP99, 60.0),
    ];
    bulk.case("T12 50-20-50", scenario, &checks)
}

/// T15: delays that wander.
fn jitter(bulk: Bulk) -> Case {
    jittery(bulk, "", |bulk, links| bulk.over(links, 16, 8))
}

/// T15: the same in a BBR flow's steady state.
fn jitter_late(bulk: Bulk) -> Case {
    jittery(bulk, " late", |bulk, links| bulk.steady(links, 16, 8))
}

fn jittery(bulk: Bulk, late: &str, over: impl Fn(Bulk, &[String]) -> Scenario) -> Case {
    let links: Vec<String> = LINKS_A
        .iter()
        .zip([5, 15, 40])
        .map(|(link, jitter)| format!("{link} jitter={jitter}ms"))
        .collect();
    let checks = [
        least(Figure::Efficiency, 0.92),
        most(Figure::Disorder, 1e-4),
    ];
    let name = format!("T15 A jitter 5/15/40{late}");
    bulk.case(&name, over(bulk, &links), &checks)
}

/// T16: the way over one link becomes 80 ms longer for 5 s.
fn longer_way(bulk: Bulk) -> Case {
    let scenario = bulk
        .over(&with(&LINKS_A, ""), 17, 0)
        .change(ms(8_000), 1, &BOTH, "delay=100ms")
        .change(ms(13_000), 1, &BOTH, "delay=20ms")
        .judged(Span::millis(8_000, 13_000), Span::millis(8_000, 17_000));
    let checks = [least(Figure::Efficiency, 0.85), most(Figure::Resent, 1e-3)];
    bulk.case("T16 A +80 ms on one", scenario, &checks)
}
