//! The scenarios and their bounds. Names begin with the number of the target they measure.

mod links;
mod trouble;

use std::time::Duration;

use chainlightning::sim::packet::Side;
use chainlightning::sim::plan::Plan;
use chainlightning::sim::scenario::{Inner, Scenario, Span};
use chainlightning::sim::traffic::TcpConfig;

use crate::check::Check;

/// A scenario with bounds.
#[derive(Debug)]
pub struct Case {
    /// `T1 up cubic`: number, direction, flow.
    pub name: String,
    /// `Err`: why it cannot run here.
    pub scenario: Result<Scenario, String>,
    pub checks: Vec<Check>,
    /// The fastest link is run alone as well.
    pub against_alone: bool,
}

/// All of them, in the order of the table.
pub fn all() -> Vec<Case> {
    [links::cases(), trouble::cases()].concat_cases()
}

/// Lists joined.
trait Join {
    fn concat_cases(self) -> Vec<Case>;
}

impl<const N: usize> Join for [Vec<Case>; N] {
    fn concat_cases(self) -> Vec<Case> {
        self.into_iter().flatten().collect()
    }
}

/// The seed is put in when the case runs.
const ANY_SEED: u64 = 0;

/// Links "A": 100/50/20 Mbit/s with 10/20/30 ms each way, and queues as home routers have them.
const LINKS_A: [&str; 3] = [
    "rate=100mbit delay=10ms queue=100ms",
    "rate=50mbit delay=20ms queue=100ms",
    "rate=20mbit delay=30ms queue=100ms",
];

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// One bulk TCP from `from`.
fn bulk(from: Side) -> Inner {
    // Superframes, as a sender's kernel makes them.
    let config = TcpConfig {
        superframe_segments: 44,
        ..TcpConfig::default()
    };
    Inner::Tcp { from, config }
}

/// Requests from `from`, a hundred a second.
const fn ping(from: Side) -> Inner {
    Inner::Ping {
        from,
        interval: ms(10),
    }
}

/// Links with words added to each.
fn with(links: &[&str], words: &str) -> Vec<String> {
    links.iter().map(|link| format!("{link} {words}")).collect()
}

/// One bulk TCP over links for a time, judged from `steady` on.
fn over(links: &[String], from: Side, seconds: u64, steady: u64) -> Scenario {
    let words: Vec<&str> = links.iter().map(String::as_str).collect();
    let span = Span::millis(steady * 1_000, seconds * 1_000);
    Scenario::new(Plan::new(ANY_SEED, &words), Duration::from_secs(seconds))
        .flow(bulk(from))
        .judged(span, span)
}

fn case(name: String, scenario: Scenario, checks: &[Check]) -> Case {
    Case {
        name,
        scenario: Ok(scenario),
        checks: checks.to_vec(),
        against_alone: false,
    }
}

/// Where the data goes.
const fn way(from: Side) -> &'static str {
    match from {
        Side::Client => "up",
        Side::Server => "down",
    }
}
