//! Links of all kinds that stay as they are: how much of their sum a flow gets.

use chainlightning::sim::packet::Side;
use chainlightning::sim::scenario::{BOTH, Figure};

use super::{Case, LINKS_A, case, over, ping, way, with};
use crate::check::{least, most};

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for from in BOTH {
        cases.push(three(from));
        cases.push(far_apart(from));
    }
    cases.extend(ladder());
    cases
}

/// T1, T4, T6: links A of unknown rate, and a ping beside.
fn three(from: Side) -> Case {
    let scenario = over(&with(&LINKS_A, ""), from, 20, 10).flow(ping(from));
    case(
        format!("T1+T4 A {} cubic", way(from)),
        scenario,
        &[
            least(Figure::Efficiency, 0.93, 0.5),
            most(Figure::RttP50, 55.0, 200.0),
            most(Figure::RiseP50, 3.0, 50.0),
            most(Figure::RiseP99, 10.0, 100.0),
        ],
    )
}

/// T2: delays far apart.
fn far_apart(from: Side) -> Case {
    let links = [
        "rate=100mbit delay=5ms queue=100ms",
        "rate=50mbit delay=30ms queue=100ms",
    ];
    case(
        format!("T2 100/5+50/30 {} cubic", way(from)),
        over(&with(&links, ""), from, 16, 8),
        &[least(Figure::Efficiency, 0.93, 0.4)],
    )
}

/// T3: two links with rates and delays far apart, and bundles of two to eight.
fn ladder() -> Vec<Case> {
    let mut cases = Vec::new();
    for (number, slow) in [100, 50, 20, 10, 5].into_iter().enumerate() {
        for delay in [10, 30, 100] {
            // Directions take turns: each step of either ladder meets both.
            let from = BOTH[(number + delay / 10) % 2];
            let links = [
                "rate=100mbit delay=10ms queue=100ms".to_owned(),
                format!("rate={slow}mbit delay={delay}ms queue=100ms"),
            ];
            cases.push(cell(
                format!("T3 1:{} {}x", 100 / slow, delay / 10),
                &links,
                from,
            ));
        }
    }
    const MIXED: [(u32, u32); 8] = [
        (50, 8),
        (50, 10),
        (30, 15),
        (30, 20),
        (20, 25),
        (20, 30),
        (10, 40),
        (5, 50),
    ];
    for (count, from) in [2, 3, 4, 8].into_iter().zip(BOTH.into_iter().cycle()) {
        let links: Vec<String> = MIXED[..count]
            .iter()
            .map(|(rate, delay)| format!("rate={rate}mbit delay={delay}ms queue=100ms"))
            .collect();
        cases.push(cell(format!("T3 {count} links"), &links, from));
    }
    cases
}

fn cell(name: String, links: &[String], from: Side) -> Case {
    let mut cell = case(
        format!("{name} {} cubic", way(from)),
        over(links, from, 14, 6),
        &[
            least(Figure::Efficiency, 0.88, 0.3),
            least(Figure::Gain, 1.0, 0.5),
        ],
    );
    cell.against_alone = true;
    cell
}
