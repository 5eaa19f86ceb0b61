//! What is compared, over which links, and when what happens. Numbers and words only: nothing here touches the system,
//! except that trace files of links are read.
//!
//! ```text
//!  0      warm-up        steady                                        end
//!  ├── TCP ──┼────────────────────────────────────────────────────────┤
//!  ├── TCP ──┼── steady ──┤ biggest link away, 6 s ┤ it is back, 6 s  ┤      case `outage`
//! ```

use std::fs;
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;

use crate::base::Rate;
use crate::lab::wanem::WanConfig;
use crate::sim::impairment::Spec;

/// The links when none are named: a sum of 170 Mbit/s, rates and delays apart.
pub const LINKS_DEFAULT: [&str; 3] = [
    "rate=100mbit delay=10ms queue=100ms",
    "rate=50mbit delay=20ms queue=100ms",
    "rate=20mbit delay=30ms queue=100ms",
];
/// Most links: as many endpoints as the kernel's path manager of multipath TCP takes.
pub const LINKS_MAX: usize = 8;
/// Part of a wire's rate that TCP can deliver when 1400-byte packets travel in datagrams of 1450 bytes.
pub(super) const PAYLOAD_SHARE: f64 = 0.93;
/// Least time that is measured.
const STEADY_MIN: Duration = Duration::from_secs(2);
/// How long the biggest link is away, and how long the run goes on after its return.
const OUTAGE: Duration = Duration::from_secs(6);
const AFTERWARDS: Duration = Duration::from_secs(6);
/// What a measurement takes besides its connection: building, pings without load, starting the tunnel.
const SETUP_S: u64 = 4;

/// Which way the payload flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

impl Direction {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// What the links do besides carrying.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Case {
    /// The links as they were named
    Default,
    /// 2 % of the packets lost on every link, independently
    Loss,
    /// 2 % lost on every link, in bursts of 8 on average
    Bursts,
    /// The biggest link swallows everything for six seconds
    Outage,
}

impl Case {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Loss => "loss",
            Self::Bursts => "bursts",
            Self::Outage => "outage",
        }
    }

    /// What every link does in it besides what was named, in the emulator's words.
    fn words(self) -> &'static str {
        match self {
            Self::Default | Self::Outage => "",
            Self::Loss => "loss=2%",
            Self::Bursts => "gilbert=2%/8",
        }
    }
}

/// One link, as it was named.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    up: Spec,
    down: Spec,
}

impl FromStr for Link {
    type Err = String;

    /// `rate=100mbit delay=10ms` for both directions alike, or `up rate=20mbit down rate=100mbit both delay=10ms`.
    fn from_str(text: &str) -> Result<Self, String> {
        let first = text.split_ascii_whitespace().next().unwrap_or_default();
        let both = if first.contains('=') { "both" } else { "" };
        let config: WanConfig = format!("a:b {both} {text}")
            .parse()
            .map_err(|error| format!("{error}"))?;
        if config.nat {
            return Err("nat: every link of the benchmark has one".into());
        }
        let mut link = Self {
            up: config.up,
            down: config.down,
        };
        for spec in [&mut link.up, &mut link.down] {
            if spec.mean_rate().is_none_or(|rate| rate == Rate::ZERO) {
                return Err("needs a rate or a trace in both directions".into());
            }
            // The emulator runs in a directory of its own.
            for file in [&mut spec.trace_file, &mut spec.delay_trace_file] {
                if let Ok(whole) = fs::canonicalize(file.as_str()) {
                    *file = whole.to_string_lossy().into_owned();
                }
            }
        }
        Ok(link)
    }
}

impl Link {
    /// What one direction of it does.
    pub(super) fn spec(&self, direction: Direction) -> &Spec {
        match direction {
            Direction::Up => &self.up,
            Direction::Down => &self.down,
        }
    }

    /// What its bottleneck carries in Mbit/s.
    pub(super) fn mbps(&self, direction: Direction) -> f64 {
        let rate = self.spec(direction).mean_rate();
        rate.unwrap_or_default().as_mbps()
    }

    /// What the emulator is told about it.
    pub(super) fn words(&self, case: Case) -> String {
        let extra = case.words();
        format!("up {} {extra} down {} {extra}", self.up, self.down)
    }
}

/// A stretch of time since the connection stood.
pub(super) type Window = (Duration, Duration);

/// A whole benchmark.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The links.
    pub links: Vec<Link>,
    /// Which ways.
    pub directions: Vec<Direction>,
    /// With which congestion controls.
    pub congestions: Vec<&'static str>,
    /// In which cases.
    pub cases: Vec<Case>,
    /// How long each connection runs, in whole seconds.
    pub seconds: u64,
    /// What of it is not counted.
    pub warmup: u64,
    /// How often everything is repeated.
    pub runs: u64,
    /// Sockets of the tunnel over each link.
    pub links_per_wan: u8,
    /// Further lines of the tunnel's `[performance]`, on both sides.
    pub settings: Vec<String>,
}

impl Plan {
    /// Whether it can be carried out.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        if self.links.len() > LINKS_MAX {
            return Err(format!("at most {LINKS_MAX} links"));
        }
        for &case in &self.cases {
            let (from, to) = self.steady(case);
            if to < from + STEADY_MIN {
                let tail = if case == Case::Outage {
                    OUTAGE + AFTERWARDS
                } else {
                    Duration::ZERO
                };
                let least = self.warmup + (STEADY_MIN + tail).as_secs();
                return Err(format!(
                    "--seconds {}: with a warm-up of {} s the case {} needs {least} s",
                    self.seconds,
                    self.warmup,
                    case.name()
                ));
            }
        }
        Ok(())
    }

    /// How long each connection runs.
    pub(super) fn seconds(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    /// When everything works and TCP has found its rate.
    pub(super) fn steady(&self, case: Case) -> Window {
        let warmup = Duration::from_secs(self.warmup);
        (warmup, self.dies(case).unwrap_or(self.seconds()))
    }

    /// When the biggest link dies, in the case where it does.
    pub(super) fn dies(&self, case: Case) -> Option<Duration> {
        (case == Case::Outage).then(|| self.seconds().saturating_sub(OUTAGE + AFTERWARDS))
    }

    /// When it returns.
    pub(super) fn returns(&self, case: Case) -> Option<Duration> {
        Some(self.dies(case)? + OUTAGE)
    }

    /// The link with the highest rate, from 0; of equal ones the one with the least delay.
    pub(super) fn best_link(&self, direction: Direction) -> usize {
        let better = |a: &Link, b: &Link| {
            let delay = |link: &Link| link.up.delay + link.down.delay;
            let rates = a.mbps(direction).total_cmp(&b.mbps(direction));
            rates.then(delay(b).cmp(&delay(a)))
        };
        let all = self.links.iter().enumerate();
        // Of links that are equal in everything the first one counts.
        let best = all.rev().max_by(|(_, a), (_, b)| better(a, b));
        best.map_or(0, |(index, _)| index)
    }

    /// What the rates of all links add up to.
    pub(super) fn sum_mbps(&self, direction: Direction) -> f64 {
        self.links.iter().map(|link| link.mbps(direction)).sum()
    }

    /// How many connections are measured.
    pub(super) fn measurements(&self, contenders: usize) -> usize {
        let rows = self.cases.len() * self.directions.len() * self.congestions.len();
        rows * contenders * usize::try_from(self.runs).unwrap_or(usize::MAX)
    }

    /// About how long everything takes.
    pub(super) fn duration(&self, contenders: usize) -> Duration {
        let count = u64::try_from(self.measurements(contenders)).unwrap_or(u64::MAX);
        Duration::from_secs(count.saturating_mul(self.seconds + SETUP_S))
    }
}

#[cfg(test)]
pub(super) fn example() -> Plan {
    Plan {
        links: LINKS_DEFAULT.map(|text| text.parse().unwrap()).into(),
        directions: vec![Direction::Up, Direction::Down],
        congestions: vec!["cubic"],
        cases: vec![Case::Default],
        seconds: 30,
        warmup: 10,
        runs: 1,
        links_per_wan: 2,
        settings: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_the_same_both_ways_unless_it_says_otherwise() {
        let link: Link = "rate=20mbit delay=5ms".parse().unwrap();
        assert_eq!(link.up, link.down);
        let link: Link = "up rate=20mbit down rate=100mbit both delay=5ms"
            .parse()
            .unwrap();
        assert!((link.mbps(Direction::Up) - 20.0).abs() < 1e-9);
        assert!((link.mbps(Direction::Down) - 100.0).abs() < 1e-9);
        assert_eq!(link.up.delay, Duration::from_millis(5));
        for (bad, words) in [
            ("delay=5ms", "needs a rate"),
            ("up rate=5mbit", "needs a rate"),
            ("rate=fast", "expected a rate"),
            ("nat both rate=5mbit", "nat"),
            ("", "needs a rate"),
        ] {
            let error = bad.parse::<Link>().unwrap_err();
            assert!(error.contains(words), "{bad}: {error}");
        }
    }

    #[test]
    fn the_emulator_understands_every_link_in_every_case() {
        for link in example().links {
            for &case in Case::value_variants() {
                let words = link.words(case);
                let config: WanConfig = format!("a:b nat {words}").parse().unwrap();
                let lossy = config.up.loss != crate::sim::impairment::Loss::None;
                assert_eq!(lossy, matches!(case, Case::Loss | Case::Bursts), "{words}");
                assert_eq!(config.up.mean_rate(), link.up.mean_rate());
                assert_eq!(config.down.loss, config.up.loss);
            }
        }
    }

    #[test]
    fn the_best_link_has_the_highest_rate_then_the_least_delay() {
        let plan = |links: &[&str]| Plan {
            links: links.iter().map(|text| text.parse().unwrap()).collect(),
            ..example()
        };
        let best = |links: &[&str]| plan(links).best_link(Direction::Up);
        assert_eq!(best(&["rate=5mbit", "rate=50mbit", "rate=20mbit"]), 1);
        assert_eq!(best(&["rate=5mbit delay=9ms", "rate=5mbit delay=2ms"]), 1);
        assert_eq!(best(&["rate=5mbit", "rate=5mbit"]), 0);
        let uneven = plan(&["up rate=1mbit down rate=90mbit", "rate=50mbit"]);
        assert_eq!(uneven.best_link(Direction::Up), 1);
        assert_eq!(uneven.best_link(Direction::Down), 0);
        assert!((uneven.sum_mbps(Direction::Down) - 140.0).abs() < 1e-9);
    }

    #[test]
    fn a_plan_has_time_for_what_it_measures() {
        let mut plan = example();
        plan.cases = vec![Case::Default, Case::Outage];
        plan.check().unwrap();
        let s = Duration::from_secs;
        assert_eq!(plan.steady(Case::Default), (s(10), s(30)));
        assert_eq!(plan.steady(Case::Outage), (s(10), s(18)));
        assert_eq!(plan.returns(Case::Outage), Some(s(24)));
        assert_eq!(plan.dies(Case::Default), None);
        plan.seconds = 23;
        let error = plan.check().unwrap_err();
        assert!(error.contains("case outage needs 24 s"), "{error}");
        plan.seconds = 5;
        assert!(plan.check().unwrap_err().contains("needs 12 s"));
        plan.warmup = 0;
        assert!(plan.check().unwrap_err().contains("needs 14 s"));
        (plan.seconds, plan.warmup) = (24, 10);
        plan.check().unwrap();
        plan.cases = vec![Case::Default];
        plan.seconds = 11;
        assert!(plan.check().unwrap_err().contains("needs 12 s"));
        plan.links = vec![plan.links[0].clone(); LINKS_MAX + 1];
        assert!(plan.check().unwrap_err().contains("at most 8 links"));
        assert_eq!(plan.measurements(3), 6);
    }
}
