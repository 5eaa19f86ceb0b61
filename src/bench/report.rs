//! What the benchmark measured, for people and for programs.

use serde::Serialize;

use super::contender::{Contender, Job};
use super::plan::{Direction, PAYLOAD_SHARE, Plan};

/// Version of the JSON document.
const SCHEMA: u32 = 1;

/// Round-trip times of ICMP echo.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct PingSummary {
    /// Requests.
    pub sent: usize,
    /// Requests without an answer.
    pub lost: usize,
    /// Median.
    pub p50_ms: f64,
    /// 99th percentile.
    pub p99_ms: f64,
}

/// Smoothed round-trip times of TCP in milliseconds, read from the sender every 100 ms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct RttSummary {
    /// How often it was read.
    pub samples: usize,
    /// Median.
    pub p50: f64,
    /// 95th percentile.
    pub p95: f64,
}

/// One path of a connection; TCP has one, multipath TCP one for each link.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PathReport {
    /// Number of its link, from 1; none inside of the tunnel.
    pub link: Option<usize>,
    /// Congestion control, as the kernel lists it; none when it cannot list.
    pub congestion: Option<String>,
    /// Round-trip times.
    pub rtt_ms: RttSummary,
    /// Segments sent again since the start.
    pub retransmits: u32,
}

/// What happened while the biggest link was away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct OutageReport {
    /// Longest time without a byte while it was away.
    pub gap_ms: f64,
    /// Goodput from 1 to 3 s after it went.
    pub survivors_mbps: f64,
    /// The same as a share of what the other links can deliver.
    pub survivors_efficiency: f64,
    /// Goodput from 3 to 6 s after its return.
    pub back_mbps: f64,
    /// The same as a share of what all links can deliver.
    pub back_efficiency: f64,
}

/// One connection. Everything but `outage` and `each_second_mbps` is about its steady time.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Measurement {
    /// Payload that the receiver got.
    pub goodput_mbps: f64,
    /// Share of the bound.
    pub efficiency: f64,
    /// Round-trip time under load; of several paths in use the slowest at each moment, because a stream in order waits
    /// for it.
    pub rtt_ms: RttSummary,
    /// Pings on the same way before the connection.
    pub ping_idle: PingSummary,
    /// Pings beside it.
    pub ping_beside: PingSummary,
    /// Longest time without a byte, in steps of 10 ms.
    pub gap_ms: f64,
    /// Segments that the sender sent again.
    pub retransmits: u32,
    /// Processor time of the tunnel's programs, both together; none without a tunnel.
    pub tunnel_cpu_s: Option<f64>,
    /// What each link's bottleneck delivered in the payload's direction, headers included.
    pub link_mbps: Vec<f64>,
    /// The connection's paths.
    pub paths: Vec<PathReport>,
    /// The case with an outage.
    pub outage: Option<OutageReport>,
    /// Goodput of every second from the first on.
    pub each_second_mbps: Vec<f64>,
    /// Share of a processor that the emulator took.
    pub emulator_cpu_share: f64,
    /// Frames that the emulator could not pass on: a benchmark of this machine, not of the links.
    pub emulator_drops: u64,
    /// Why these figures may tell something else than they should; empty when nothing speaks against them.
    pub doubts: Vec<String>,
    /// Why the connection ended early, if it did.
    pub error: Option<String>,
}

/// One contender in one row.
#[derive(Clone, Debug, Serialize)]
pub struct ContenderReport {
    /// `link`, `mptcp` or `tunnel`.
    pub name: &'static str,
    /// Why it was not measured, if it was not.
    pub missing: Option<String>,
    /// All runs.
    pub runs: Vec<Measurement>,
}

impl ContenderReport {
    /// The run with the median goodput.
    pub fn typical(&self) -> Option<&Measurement> {
        let mut runs: Vec<_> = self.runs.iter().collect();
        runs.sort_by(|a, b| a.goodput_mbps.total_cmp(&b.goodput_mbps));
        runs.get(runs.len().saturating_sub(1) / 2).copied()
    }
}

/// The tunnel's goodput against the others'.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Ratios {
    /// Against multipath TCP; none when it was not measured.
    pub to_mptcp: Option<f64>,
    /// Against the bound.
    pub to_bound: f64,
    /// Against the best link alone.
    pub to_link: Option<f64>,
}

/// One case, direction and congestion control.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Name of the case.
    pub case: &'static str,
    /// `up` or `down`.
    pub direction: &'static str,
    /// Congestion control of the sender.
    pub congestion: &'static str,
    /// Number of the best link, from 1.
    pub best_link: usize,
    /// What the links' rates add up to.
    pub sum_mbps: f64,
    /// What TCP through a tunnel can get of it at most.
    pub bound_mbps: f64,
    /// Who was measured.
    pub contenders: Vec<ContenderReport>,
    /// Of the runs with the median goodput; none when the tunnel was not measured.
    pub tunnel: Option<Ratios>,
}

/// One link as it was emulated.
#[derive(Clone, Debug, Serialize)]
pub struct LinkReport {
    /// From the client to the server, in the emulator's words.
    pub up: String,
    /// From the server to the client.
    pub down: String,
}

/// Where it was measured.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Machine {
    /// Release of the kernel.
    pub kernel: String,
    /// Model of the processor.
    pub cpu: String,
    /// How many of them.
    pub cpus: usize,
    /// Load averages before the first measurement and after the last.
    pub load_average: [String; 2],
    /// Socket buffers of TCP: `net.ipv4.tcp_rmem` and `tcp_wmem`.
    pub tcp_buffers: [String; 2],
}

/// The whole result.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Version of this document.
    pub schema: u32,
    /// Version of the program.
    pub version: &'static str,
    /// Where it was measured.
    pub machine: Machine,
    /// The links.
    pub links: Vec<LinkReport>,
    /// How long each connection ran.
    pub seconds: u64,
    /// What of it was not counted.
    pub warmup: u64,
    /// Runs of everything.
    pub runs: u64,
    /// Sockets of the tunnel over each link.
    pub links_per_wan: u8,
    /// Further settings of the tunnel.
    pub settings: Vec<String>,
    /// The comparison.
    pub rows: Vec<Row>,
    /// What did not work; empty when all is well.
    pub failures: Vec<String>,
}

impl Report {
    /// An empty report about a plan.
    pub(super) fn new(plan: &Plan, machine: Machine) -> Self {
        let link = |link: &super::plan::Link| LinkReport {
            up: link.spec(Direction::Up).to_string(),
            down: link.spec(Direction::Down).to_string(),
        };
        let mut rows = Vec::new();
        for &case in &plan.cases {
            for &direction in &plan.directions {
                for &congestion in &plan.congestions {
                    let sum_mbps = plan.sum_mbps(direction);
                    rows.push(Row {
                        case: case.name(),
                        direction: direction.name(),
                        congestion,
                        best_link: plan.best_link(direction) + 1,
                        sum_mbps,
                        bound_mbps: PAYLOAD_SHARE * sum_mbps,
                        contenders: Contender::ALL.map(ContenderReport::of).into(),
                        tunnel: None,
                    });
                }
            }
        }
        Self {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            machine,
            links: plan.links.iter().map(link).collect(),
            seconds: plan.seconds,
            warmup: plan.warmup,
            runs: plan.runs,
            links_per_wan: plan.links_per_wan,
            settings: plan.settings.clone(),
            rows,
            failures: Vec::new(),
        }
    }

    /// The contender's place in the row of a job.
    pub(super) fn contender(&mut self, job: Job<'_>) -> &mut ContenderReport {
        let row = self.rows.iter_mut().find(|row| {
            row.case == job.case.name()
                && row.direction == job.direction.name()
                && row.congestion == job.congestion
        });
        let row = row.expect("there is a row for every case, direction and congestion control");
        let place = Contender::ALL.iter().position(|&one| one == job.contender);
        &mut row.contenders[place.expect("ALL has all of them")]
    }

    /// Fills in what follows from the rest, last of all.
    pub(super) fn judge(&mut self) {
        for row in &mut self.rows {
            row.tunnel = ratios(row);
            let place = format!("{}, {}, {}", row.case, row.direction, row.congestion);
            for contender in &row.contenders {
                for (run, number) in contender.runs.iter().zip(1..) {
                    let what = match &run.error {
                        Some(error) => error.clone(),
                        None if run.goodput_mbps <= 0.0 => "nothing was delivered".into(),
                        None => continue,
                    };
                    let name = contender.name;
                    self.failures
                        .push(format!("{place}: {name}, run {number}: {what}"));
                }
            }
        }
    }

    /// One JSON document.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }
}

impl ContenderReport {
    fn of(contender: Contender) -> Self {
        Self {
            name: contender.name(),
            missing: None,
            runs: Vec::new(),
        }
    }
}

fn ratios(row: &Row) -> Option<Ratios> {
    let goodput = |contender: Contender| {
        let mut all = row.contenders.iter();
        let report = all.find(|report| report.name == contender.name())?;
        Some(report.typical()?.goodput_mbps)
    };
    let tunnel = goodput(Contender::Tunnel)?;
    let against = |contender| goodput(contender).filter(|&other| other > 0.0);
    Some(Ratios {
        to_mptcp: against(Contender::Mptcp).map(|other| tunnel / other),
        to_bound: tunnel / row.bound_mbps,
        to_link: against(Contender::Link).map(|other| tunnel / other),
    })
}

#[cfg(test)]
pub(super) fn example(plan: &Plan) -> Report {
    let mut report = Report::new(plan, Machine::default());
    for row in &mut report.rows {
        for (contender, goodput_mbps) in row.contenders.iter_mut().zip([95.2, 150.4, 148.3]) {
            contender.runs.push(Measurement {
                goodput_mbps,
                efficiency: goodput_mbps / row.bound_mbps,
                link_mbps: vec![97.1, 48.0, 18.9],
                ..Measurement::default()
            });
        }
    }
    report.judge();
    report
}

#[cfg(test)]
mod tests {
    use super::super::plan::{Case, example as plan};
    use super::*;

    #[test]
    fn the_tunnel_is_compared_with_the_others_and_with_the_bound() {
        let report = example(&plan());
        assert_eq!(report.rows.len(), 2);
        assert_eq!(report.failures, Vec::<String>::new());
        let ratios = report.rows[0].tunnel.unwrap();
        assert!((ratios.to_mptcp.unwrap() - 148.3 / 150.4).abs() < 1e-9);
        assert!((ratios.to_link.unwrap() - 148.3 / 95.2).abs() < 1e-9);
        assert!((ratios.to_bound - 148.3 / 158.1).abs() < 1e-9);
    }

    #[test]
    fn a_kernel_without_multipath_tcp_leaves_a_row_without_that_ratio() {
        let mut report = example(&plan());
        let mptcp = &mut report.rows[0].contenders[1];
        mptcp.runs.clear();
        mptcp.missing = Some("no multipath TCP in this kernel".into());
        report.judge();
        assert_eq!(report.rows[0].tunnel.unwrap().to_mptcp, None);
        assert!(report.failures.is_empty());
        let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
        assert_eq!(json["schema"], 1);
        assert_eq!(
            json["rows"][0]["contenders"][1]["missing"],
            "no multipath TCP in this kernel"
        );
        assert!(json["rows"][0]["tunnel"]["to_mptcp"].is_null());
        assert_eq!(
            json["rows"][1]["contenders"][2]["runs"][0]["goodput_mbps"],
            148.3
        );
    }

    #[test]
    fn the_median_run_stands_for_all() {
        let mut report = ContenderReport::of(Contender::Link);
        assert!(report.typical().is_none());
        for (goodput_mbps, gap_ms) in [(5.0, 1.0), (9.0, 2.0), (7.0, 3.0)] {
            report.runs.push(Measurement {
                goodput_mbps,
                gap_ms,
                ..Measurement::default()
            });
        }
        let typical = report.typical().unwrap();
        assert!((typical.gap_ms - 3.0).abs() < 1e-9);
    }

    #[test]
    fn a_connection_that_ends_early_or_delivers_nothing_is_a_failure() {
        let mut report = example(&plan());
        report.rows[1].contenders[2].runs[0].error = Some("reset".into());
        report.rows[0].contenders[0].runs[0].goodput_mbps = 0.0;
        report.judge();
        assert_eq!(
            report.failures,
            [
                "default, up, cubic: link, run 1: nothing was delivered",
                "default, down, cubic: tunnel, run 1: reset",
            ]
        );
    }

    #[test]
    fn every_job_has_its_place() {
        let plan = plan();
        let mut report = Report::new(&plan, Machine::default());
        let job = Job {
            plan: &plan,
            case: Case::Default,
            direction: Direction::Down,
            congestion: "cubic",
            contender: Contender::Mptcp,
        };
        report.contender(job).missing = Some("x".into());
        assert_eq!(report.rows[1].contenders[1].missing.as_deref(), Some("x"));
    }
}
