//! The scenarios and their targets. Names begin with the number of the target they measure.

mod foreign;
mod links;
mod recorded;
mod trouble;

use std::time::Duration;

use chainlightning::sim::packet::Side;
use chainlightning::sim::plan::Plan;
use chainlightning::sim::scenario::{Inner, Scenario, Span};
use chainlightning::sim::traffic::{CongestionControl, TcpConfig};

use crate::check::Check;

/// A scenario with targets.
#[derive(Debug)]
pub struct Case {
    /// `T1 A up cubic`: number, links, direction, flow.
    pub name: String,
    /// `Err`: why it cannot run here.
    pub scenario: Result<Scenario, String>,
    pub checks: Vec<Check>,
    /// Is run as well; the gain is the ratio of both goodputs.
    pub against: Option<Scenario>,
}

/// All of them, in the order of the table.
pub fn all() -> Vec<Case> {
    let mut cases = links::cases();
    cases.extend(trouble::cases());
    cases.extend(foreign::cases());
    cases.extend(recorded::cases());
    cases
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

/// The bulk flow that is judged: who sends, and how it finds its rate.
#[derive(Clone, Copy, Debug)]
struct Bulk(Side, CongestionControl);

/// All four.
const BULKS: [Bulk; 4] = [
    Bulk(Side::Client, CongestionControl::Cubic),
    Bulk(Side::Server, CongestionControl::Cubic),
    Bulk(Side::Client, CongestionControl::Bbr),
    Bulk(Side::Server, CongestionControl::Bbr),
];

impl Bulk {
    fn flow(self) -> Inner {
        // Superframes, as a sender's kernel makes them.
        let config = TcpConfig {
            control: self.1,
            superframe_segments: 44,
            ..TcpConfig::default()
        };
        Inner::Tcp {
            from: self.0,
            config,
        }
    }

    /// Requests in its direction, a hundred a second.
    const fn ping(self) -> Inner {
        Inner::Ping {
            from: self.0,
            interval: ms(10),
        }
    }

    /// This flow over links for a time, judged from `steady` on.
    fn over(self, links: &[String], seconds: u64, steady: u64) -> Scenario {
        let words: Vec<&str> = links.iter().map(String::as_str).collect();
        self.on(Plan::new(ANY_SEED, &words), seconds, steady)
    }

    /// The same judged in a flow's steady state. A BBR flow believes in the round trip of its beginning, which was over
    /// the quickest link alone, until two or three probes for it have passed, ten seconds apart.
    fn steady(self, links: &[String], seconds: u64, steady: u64) -> Scenario {
        match self.1 {
            CongestionControl::Cubic => self.over(links, seconds, steady),
            CongestionControl::Bbr => self.over(links, 25 + seconds - steady, 25),
        }
    }

    fn on(self, plan: Plan, seconds: u64, steady: u64) -> Scenario {
        let span = Span::millis(steady * 1_000, seconds * 1_000);
        Scenario::new(plan, Duration::from_secs(seconds))
            .flow(self.flow())
            .judged(span, span)
    }

    /// A case of this flow; the name gets its direction and kind.
    fn case(self, name: &str, scenario: Scenario, checks: &[Check]) -> Case {
        let way = match self.0 {
            Side::Client => "up",
            Side::Server => "down",
        };
        let kind = match self.1 {
            CongestionControl::Cubic => "cubic",
            CongestionControl::Bbr => "bbr",
        };
        Case {
            name: format!("{name} {way} {kind}"),
            scenario: Ok(scenario),
            checks: checks.to_vec(),
            against: None,
        }
    }

    fn is_cubic(self) -> bool {
        self.1 == CongestionControl::Cubic
    }

    /// One of two values.
    fn either(self, cubic: f64, bbr: f64) -> f64 {
        if self.is_cubic() { cubic } else { bbr }
    }
}

/// Links with words added to each.
fn with(links: &[&str], words: &str) -> Vec<String> {
    links.iter().map(|link| format!("{link} {words}")).collect()
}
