//! Links of all kinds that stay as they are: how much of their sum a flow gets.

use chainlightning::base::Rate;
use chainlightning::sim::packet::Side;
use chainlightning::sim::plan::Plan;
use chainlightning::sim::scenario::{BOTH, Figure, Inner, Scenario, Span};
use chainlightning::sim::traffic::CongestionControl;

use super::{ANY_SEED, BULKS, Bulk, Case, LINKS_A, ms, with};
use crate::check::{least, most};

pub fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = BULKS.map(three).into();
    cases.extend(BULKS.map(far_apart));
    cases.extend(BULKS.map(both_ways));
    cases.extend(BULKS.map(many_flows));
    cases.extend(BOTH.map(mixed));
    cases.extend(BOTH.map(estimates));
    for pair in BULKS.chunks_exact(2) {
        cases.extend(ladder(pair));
    }
    cases
}

/// T1, T4, T6: links A of unknown rate, and a ping beside.
fn three(bulk: Bulk) -> Case {
    let scenario = bulk.steady(&with(&LINKS_A, ""), 20, 10).flow(bulk.ping());
    let checks = [
        least(Figure::Efficiency, 0.93),
        most(Figure::RttP50, 55.0),
        most(Figure::RiseP50, 3.0),
        most(Figure::RiseP99, 10.0),
    ];
    bulk.case("T1+T4+T6 A", scenario, &checks)
}

/// T2: delays far apart.
fn far_apart(bulk: Bulk) -> Case {
    let links = [
        "rate=100mbit delay=5ms queue=100ms",
        "rate=50mbit delay=30ms queue=100ms",
    ];
    let scenario = bulk.steady(&with(&links, ""), 16, 8);
    let target = bulk.either(0.93, 0.88);
    bulk.case(
        "T2 100/5+50/30",
        scenario,
        &[least(Figure::Efficiency, target)],
    )
}

/// T1 with as much in the other direction; one direction is judged.
fn both_ways(bulk: Bulk) -> Case {
    let back = Bulk(bulk.0.other(), bulk.1);
    let scenario = bulk.over(&with(&LINKS_A, ""), 16, 8).flow(back.flow());
    bulk.case(
        "T1 A both ways",
        scenario,
        &[least(Figure::Efficiency, 0.90)],
    )
}

/// T17: three bulk flows and twenty sparse ones.
fn many_flows(bulk: Bulk) -> Case {
    let mut scenario = bulk.over(&with(&LINKS_A, ""), 16, 6);
    scenario = scenario.flow(bulk.flow()).flow(bulk.flow());
    for number in 0..20 {
        scenario = scenario.flow(Inner::Ping {
            from: bulk.0,
            interval: ms(40 + number),
        });
    }
    let checks = [
        least(Figure::Fairness, 0.95),
        least(Figure::Efficiency, 0.93),
        most(Figure::RiseP50, 3.0),
        most(Figure::RiseP99, 10.0),
    ];
    bulk.case("T17 3 bulk 20 sparse", scenario, &checks)
}

/// T17: two CUBIC flows and a BBR flow share the bundle: none starves.
fn mixed(from: Side) -> Case {
    let [cubic, bbr] =
        [CongestionControl::Cubic, CongestionControl::Bbr].map(|kind| Bulk(from, kind));
    let scenario = cubic
        .over(&with(&LINKS_A, ""), 30, 10)
        .flow(cubic.flow())
        .flow(bbr.flow());
    let checks = [
        least(Figure::Efficiency, 0.90),
        least(Figure::LeastShare, 0.20),
    ];
    let mut case = cubic.case("T17 mixed", scenario, &checks);
    case.name += " cubic bbr";
    case
}

/// T19: more than the links carry, from the first moment: what is believed of them after 2 s.
fn estimates(from: Side) -> Case {
    let plan = Plan::new(ANY_SEED, &LINKS_A);
    let span = Span::millis(2_000, 5_000);
    let scenario = Scenario::new(plan, ms(5_000))
        .flow(Inner::Cbr {
            from,
            rate: Rate::from_mbps(200),
            bytes: 1_400,
        })
        .judged(span, span);
    let checks = [
        most(Figure::CapacityError, 0.05),
        most(Figure::QueueP50, 5.0),
    ];
    let mut case = Bulk(from, Default::default()).case("T19 A overload", scenario, &checks);
    case.name = case.name.replace("cubic", "cbr");
    case
}

/// T3: two links with rates and delays far apart, and bundles of two to eight. Directions take turns, such that each
/// step of either ladder meets both.
fn ladder(pair: &[Bulk]) -> Vec<Case> {
    let mut cases = Vec::new();
    for (number, slow) in [100, 50, 20, 10, 5].into_iter().enumerate() {
        for (step, delay) in [10, 30, 100].into_iter().enumerate() {
            let links = [
                "rate=100mbit delay=10ms queue=100ms".to_owned(),
                format!("rate={slow}mbit delay={delay}ms queue=100ms"),
            ];
            let name = format!("T3 1:{} {}x", 100 / slow, delay / 10);
            let bulk = pair[(number + step) % 2];
            cases.push(cell(&name, &links, bulk));
            if delay == 100 && bulk.is_cubic() {
                cases.push(late_cell(&name, &links, bulk));
            }
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
    for (number, count) in [2, 3, 4, 8].into_iter().enumerate() {
        let links: Vec<String> = MIXED[..count]
            .iter()
            .map(|(rate, delay)| format!("rate={rate}mbit delay={delay}ms queue=100ms"))
            .collect();
        cases.push(cell(&format!("T3 {count} links"), &links, pair[number % 2]));
    }
    cases
}

fn cell(name: &str, links: &[String], bulk: Bulk) -> Case {
    against_the_best(name, bulk, bulk.steady(links, 14, 6))
}

/// The same later: over a round trip of 110 ms a CUBIC flow that left its slow start early needs twelve seconds to grow again.
fn late_cell(name: &str, links: &[String], bulk: Bulk) -> Case {
    against_the_best(&format!("{name} late"), bulk, bulk.over(links, 32, 16))
}

/// As much as the sum promises, and never less than the best link alone.
fn against_the_best(name: &str, bulk: Bulk, scenario: Scenario) -> Case {
    let alone = scenario.alone();
    let checks = [least(Figure::Efficiency, 0.88), least(Figure::Gain, 1.0)];
    let mut cell = bulk.case(name, scenario, &checks);
    cell.against = Some(alone);
    cell
}
