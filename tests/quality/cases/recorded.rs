//! Recorded links.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use chainlightning::sim::impairment::{Capacity, DelayTrace, Spec, Trace};
use chainlightning::sim::plan::{LinkPlan, Plan};
use chainlightning::sim::scenario::{Figure, Scenario};

use super::{ANY_SEED, BULKS, Bulk, Case};
use crate::check::{Check, least, most};

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let starlink = starlink();
    let lte = [
        lte("ATT-LTE-driving-2016.down.gz"),
        lte("TMobile-LTE-short.down.gz"),
    ];
    for bulk in BULKS {
        cases.push(satellite(bulk, &starlink));
        cases.push(driving(bulk, &lte));
    }
    cases
}

type Recorded = Result<LinkPlan, String>;

/// T13: a satellite with its silences, and a fixed line.
fn satellite(bulk: Bulk, starlink: &Recorded) -> Case {
    let checks = [
        least(Figure::Efficiency, 0.80),
        most(Figure::Gap, 110.0),
        most(Figure::Timeouts, 0.0),
    ];
    let scenario = starlink.clone().map(|starlink| {
        let mut plan = Plan::new(ANY_SEED, &["rate=50mbit delay=20ms queue=100ms"]);
        plan.links.insert(0, starlink);
        over(bulk, plan, 40)
    });
    case(bulk, "T13 starlink+50/20", scenario, &checks)
}

/// T14: two telephones in a car, and a slow line.
fn driving(bulk: Bulk, lte: &[Recorded; 2]) -> Case {
    let checks = [
        least(Figure::Efficiency, 0.75),
        most(Figure::QueueP95, 120.0),
        most(Figure::Gap, 300.0),
    ];
    let scenario = lte[0].clone().and_then(|first| {
        let mut plan = Plan::new(ANY_SEED, &["rate=20mbit delay=20ms queue=100ms"]);
        plan.links.insert(0, first);
        plan.links.insert(1, lte[1].clone()?);
        Ok(over(bulk, plan, 60))
    });
    case(bulk, "T14 2 LTE+20/20", scenario, &checks)
}

/// The same trace in both directions, so that both are judged by the same capacity.
fn over(bulk: Bulk, mut plan: Plan, seconds: u64) -> Scenario {
    for (wan, link) in (0..).zip(&mut plan.links) {
        link.wan = wan;
    }
    bulk.on(plan, seconds, 8)
}

fn case(bulk: Bulk, name: &str, scenario: Result<Scenario, String>, checks: &[Check]) -> Case {
    let nothing = Scenario::new(Plan::new(ANY_SEED, &[]), super::ms(0));
    let mut case = bulk.case(name, nothing, checks);
    case.scenario = scenario;
    case
}

fn starlink() -> Recorded {
    let mut link = LinkPlan::new(0, "queue=100ms loss=0.3%");
    let capacity = Arc::new(trace("starlink_bw.txt.gz")?);
    let delay = DelayTrace::parse(&read("starlink_delay.txt.gz")?);
    let delay = Arc::new(delay.map_err(|fault| fault.to_string())?);
    for spec in [&mut link.up, &mut link.down] {
        spec.capacity = Capacity::Trace(Arc::clone(&capacity));
        spec.delay_trace = Some(Arc::clone(&delay));
    }
    Ok(link)
}

fn lte(file: &str) -> Recorded {
    let mut link = LinkPlan::new(0, "delay=25ms queue=1s");
    let capacity = Arc::new(trace(file)?);
    let set = |spec: &mut Spec| spec.capacity = Capacity::Trace(Arc::clone(&capacity));
    set(&mut link.up);
    set(&mut link.down);
    Ok(link)
}

fn trace(file: &str) -> Result<Trace, String> {
    Trace::parse(&read(file)?).map_err(|fault| format!("{file}: {fault}"))
}

/// The text of a packed file of the folder of traces.
fn read(file: &str) -> Result<String, String> {
    let folder = std::env::var_os("CHAINLIGHTNING_TRACES").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/traces"),
        PathBuf::from,
    );
    let path = folder.join(file);
    if !path.is_file() {
        return Err(format!("{} is not there", path.display()));
    }
    let unpacked = Command::new("gzip").arg("-dc").arg(&path).output();
    let unpacked = unpacked.map_err(|fault| format!("gzip: {fault}"))?;
    if !unpacked.status.success() {
        return Err(format!("gzip cannot unpack {}", path.display()));
    }
    String::from_utf8(unpacked.stdout).map_err(|fault| format!("{file}: {fault}"))
}
