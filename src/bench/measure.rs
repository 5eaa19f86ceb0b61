//! One connection from its first packet to its figures.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

use super::contender::{Contender, Job, Stage};
use super::plan::{PAYLOAD_SHARE, Plan};
use super::report::{Measurement, OutageReport, PathReport, PingSummary, RttSummary};
use crate::base::Rate;
use crate::lab::traffic::ping::{Pinger, ping};
use crate::lab::traffic::{BulkFlow, BulkReport, quantile};
use crate::lab::{LabError, pause};
use crate::sys::mptcp::Subflow;
use crate::sys::netdev::tcp_connections;

/// Pings of the idle measurement: one second.
const IDLE_PINGS: usize = 50;
/// From one ping to the next: 400 in a steady phase of 8 s, enough for a 99th percentile, too few to matter.
const PING_EVERY: Duration = Duration::from_millis(20);
/// How often the sender's state is read.
const SAMPLE_EVERY: Duration = Duration::from_millis(100);
/// What counts of the time in which the biggest link is away, from its first moment.
const SURVIVORS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3));
/// What counts of the time after its return.
const BACK: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(6));

/// Share of a processor from which on the emulator itself may be what was measured.
const EMULATOR_SHARE_MAX: f64 = 0.7;
/// Share of its rate below which a link counts as unused.
const USED_SHARE_MIN: f64 = 0.01;

/// Runs the connection of `job` on its stage.
///
/// # Errors
/// It does not come up, or the lab fails.
pub(super) fn measure(job: Job<'_>, stage: &mut Stage) -> Result<Measurement, LabError> {
    let idle = ping(stage.pings(PING_EVERY, Some(IDLE_PINGS)))?;
    let connection = stage.dial().connect()?;
    let flow = BulkFlow::over(connection, stage.sender(), job.congestion, false)?;
    let mut watch = Watch {
        job,
        stage,
        flow: &flow,
        rtts: Vec::new(),
        paths: BTreeMap::new(),
    };
    let mut measurement = watch.run()?;
    measurement.ping_idle = (&idle).into();
    measurement.doubts = doubts(&measurement, job);
    conclude(&mut measurement, &flow.finish(), job);
    Ok(measurement)
}

/// What speaks against the figures of a measurement.
fn doubts(measurement: &Measurement, job: Job<'_>) -> Vec<String> {
    let mut doubts = Vec::new();
    if measurement.emulator_cpu_share > EMULATOR_SHARE_MAX {
        let percent = 100.0 * measurement.emulator_cpu_share;
        doubts.push(format!("the emulator took {percent:.0} % of a processor"));
    }
    if measurement.emulator_drops > 0 {
        let count = measurement.emulator_drops;
        doubts.push(format!("the emulator could not pass on {count} frames"));
    }
    if job.contender != Contender::Link {
        let links = job.plan.links.iter().zip(&measurement.link_mbps).zip(1..);
        let unused =
            links.filter(|((link, mbps), _)| **mbps < USED_SHARE_MIN * link.mbps(job.direction));
        doubts.extend(unused.map(|(_, number)| format!("link {number} carried hardly anything")));
    }
    doubts
}

/// Fills in what the finished connection tells.
fn conclude(measurement: &mut Measurement, flow: &BulkReport, job: Job<'_>) {
    let Job {
        plan,
        case,
        direction,
        ..
    } = job;
    let (from, to) = plan.steady(case);
    let sum = plan.sum_mbps(direction);
    let goodput = |from, to| flow.goodput(from, to).as_mbps();
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    measurement.goodput_mbps = goodput(from, to);
    measurement.efficiency = measurement.goodput_mbps / (PAYLOAD_SHARE * sum);
    measurement.gap_ms = ms(flow.longest_gap(from, to).1);
    let second = Duration::from_secs;
    measurement.each_second_mbps = (0..plan.seconds)
        .map(|at| goodput(second(at), second(at + 1)))
        .collect();
    measurement.error = flow.error.clone();
    if let (Some(dies), Some(returns)) = (plan.dies(case), plan.returns(case)) {
        let survivors = sum - plan.links[plan.best_link(direction)].mbps(direction);
        let survivors_mbps = goodput(dies + SURVIVORS.0, dies + SURVIVORS.1);
        let back_mbps = goodput(returns + BACK.0, returns + BACK.1);
        measurement.outage = Some(OutageReport {
            gap_ms: ms(flow.longest_gap(dies, returns).1),
            survivors_mbps,
            // Of one link alone nobody survives.
            survivors_efficiency: if survivors > 0.0 {
                survivors_mbps / (PAYLOAD_SHARE * survivors)
            } else {
                0.0
            },
            back_mbps,
            back_efficiency: back_mbps / (PAYLOAD_SHARE * sum),
        });
    }
}

/// A connection under observation.
struct Watch<'a> {
    job: Job<'a>,
    stage: &'a mut Stage,
    flow: &'a BulkFlow,
    /// Of each sample: the round-trip time of the slowest path in use.
    rtts: Vec<Duration>,
    /// Round-trip times of each path, by its ends.
    paths: BTreeMap<(SocketAddr, SocketAddr), Vec<Duration>>,
}

/// Counters at one moment.
struct Snapshot {
    at: Duration,
    link_bytes: Vec<u64>,
    /// Frames that the emulator could not pass on, which no link loses.
    emulator_drops: u64,
    emulator_cpu: Duration,
    tunnel_cpu: Duration,
    retransmits: u32,
}

impl Watch<'_> {
    /// Watches until the plan's end, takes the biggest link away and gives it back if that is the case.
    fn run(&mut self) -> Result<Measurement, LabError> {
        let Job { plan, case, .. } = self.job;
        let (from, to) = plan.steady(case);
        self.wait(from);
        let before = self.snapshot()?;
        let pinger = Pinger::start(self.stage.pings(PING_EVERY, None))?;
        while self.flow.elapsed() < to {
            self.sample();
            self.wait(to.min(self.flow.elapsed() + SAMPLE_EVERY));
        }
        pinger.stop();
        let last = self.flow.paths();
        let after = self.snapshot()?;
        let mut measurement = self.between(&before, &after);
        measurement.paths = self.path_reports(&last);
        self.sleep_through_outage()?;
        self.wait(plan.seconds());
        measurement.ping_beside = (&pinger.finish()).into();
        Ok(measurement)
    }

    fn sleep_through_outage(&mut self) -> Result<(), LabError> {
        let Job {
            plan,
            case,
            direction,
            ..
        } = self.job;
        let Some(returns) = plan.returns(case) else {
            return Ok(());
        };
        let number = plan.best_link(direction) + 1;
        let emulator = self.stage.lab.emulator();
        emulator.command(&format!("{number} both outage"))?;
        self.wait(returns);
        let emulator = self.stage.lab.emulator();
        emulator.command(&format!("{number} both outage=off"))
    }

    fn wait(&self, until: Duration) {
        // A signal, such as that of a stopped terminal, may end a pause early.
        while self.flow.elapsed() < until {
            pause(until.saturating_sub(self.flow.elapsed()));
        }
    }

    fn sample(&mut self) {
        let paths = self.flow.paths();
        let in_use = paths.iter().filter(|path| path.info.in_flight_segments > 0);
        self.rtts.extend(in_use.map(|path| path.info.rtt).max());
        for path in paths {
            let rtts = self.paths.entry((path.local, path.remote)).or_default();
            rtts.push(path.info.rtt);
        }
    }

    fn snapshot(&mut self) -> Result<Snapshot, LabError> {
        let direction = self.job.direction.name();
        let stats = self.stage.lab.emulator().stats()?;
        let wans = stats["wans"].as_array().map_or(&[][..], Vec::as_slice);
        let number = |value: &Value| value.as_u64().unwrap_or(0);
        let send_drops: u64 = wans.iter().map(|wan| number(&wan["send_drops"])).sum();
        let tunnel = self.stage.tunnel.as_ref();
        let paths = self.flow.paths();
        Ok(Snapshot {
            at: self.flow.elapsed(),
            link_bytes: wans
                .iter()
                .map(|wan| number(&wan[direction]["delivered_bytes"]))
                .collect(),
            emulator_drops: send_drops + number(&stats["oversize"]),
            emulator_cpu: self.stage.lab.emulator().cpu_time(),
            tunnel_cpu: tunnel.map(|tunnel| tunnel.cpu_time()).unwrap_or_default(),
            retransmits: paths.iter().map(|path| path.info.retransmits).sum(),
        })
    }

    fn between(&mut self, before: &Snapshot, after: &Snapshot) -> Measurement {
        let time = after.at - before.at;
        let rate = |(now, then): (&u64, &u64)| {
            Rate::from_bytes_over(now.saturating_sub(*then), time).as_mbps()
        };
        let cpu = after.tunnel_cpu.saturating_sub(before.tunnel_cpu);
        let emulator = after.emulator_cpu.saturating_sub(before.emulator_cpu);
        self.rtts.sort_unstable();
        Measurement {
            rtt_ms: RttSummary::of(&self.rtts),
            link_mbps: after
                .link_bytes
                .iter()
                .zip(&before.link_bytes)
                .map(rate)
                .collect(),
            retransmits: after.retransmits.saturating_sub(before.retransmits),
            tunnel_cpu_s: self.stage.tunnel.is_some().then_some(cpu.as_secs_f64()),
            emulator_cpu_share: emulator.as_secs_f64() / time.as_secs_f64(),
            emulator_drops: after.emulator_drops.saturating_sub(before.emulator_drops),
            ..Measurement::default()
        }
    }

    /// Each path at the end of the steady time, with the congestion control that the kernel lists for it.
    fn path_reports(&self, last: &[Subflow]) -> Vec<PathReport> {
        let listed = self.stage.sender_namespace().run(tcp_connections);
        // A kernel that cannot list sockets leaves the name empty.
        let listed = listed.ok().and_then(Result::ok).unwrap_or_default();
        let report = |path: &Subflow| {
            let ends = (path.local, path.remote);
            let congestion = listed.iter().find(|one| (one.local, one.remote) == ends);
            let mut rtts = self.paths.get(&ends).cloned().unwrap_or_default();
            rtts.sort_unstable();
            PathReport {
                link: link_of(self.job.plan, path),
                congestion: congestion.map(|one| one.congestion.clone()),
                rtt_ms: RttSummary::of(&rtts),
                retransmits: path.info.retransmits,
            }
        };
        let mut reports: Vec<_> = last.iter().map(report).collect();
        reports.sort_by_key(|path| path.link);
        reports
    }
}

impl RttSummary {
    /// Of sorted samples.
    fn of(sorted: &[Duration]) -> Self {
        let ms = |share| quantile(sorted, share).as_secs_f64() * 1e3;
        Self {
            samples: sorted.len(),
            p50: ms(0.5),
            p95: ms(0.95),
        }
    }
}

impl From<&crate::lab::traffic::PingReport> for PingSummary {
    fn from(report: &crate::lab::traffic::PingReport) -> Self {
        let ms = |share| report.quantile(share).as_secs_f64() * 1e3;
        Self {
            sent: report.sent,
            lost: report.lost(),
            p50_ms: ms(0.5),
            p99_ms: ms(0.99),
        }
    }
}

/// The number of the link that a path takes, from the client's address there; `None` inside of the tunnel.
fn link_of(plan: &Plan, path: &Subflow) -> Option<usize> {
    use crate::lab::Topology;
    let ends = [path.local.ip(), path.remote.ip()];
    (1..=plan.links.len()).find(|&number| ends.contains(&Topology::client_v4(number).into()))
}

#[cfg(test)]
mod tests {
    use super::super::plan::{Case, Direction, example};
    use super::*;

    fn job(plan: &Plan, case: Case) -> Job<'_> {
        Job {
            plan,
            case,
            direction: Direction::Up,
            congestion: "cubic",
            contender: Contender::Tunnel,
        }
    }

    #[test]
    fn only_the_steady_time_counts() {
        let plan = example();
        // 100 Mbit/s for 10 s of warm-up, then 125, with a pause of 70 ms.
        let mut samples = vec![125_000; 1000];
        samples.extend(vec![156_250; 2000]);
        samples[2500..2507].fill(0);
        let flow = BulkReport {
            samples,
            ..BulkReport::default()
        };
        let mut measurement = Measurement::default();
        conclude(&mut measurement, &flow, job(&plan, Case::Default));
        assert!((measurement.goodput_mbps - 125.0 * 1993.0 / 2000.0).abs() < 1e-6);
        let efficiency = measurement.goodput_mbps / (0.93 * 170.0);
        assert!((measurement.efficiency - efficiency).abs() < 1e-9);
        assert!((measurement.gap_ms - 70.0).abs() < 1e-9);
        assert_eq!(measurement.each_second_mbps.len(), 30);
        assert!(measurement.outage.is_none() && measurement.error.is_none());
    }

    #[test]
    fn an_outage_is_judged_by_its_gap_its_survivors_and_the_return() {
        let plan = example(); // dies at 18 s, returns at 24 s
        let mut samples = vec![200_000; 1800];
        samples.extend(vec![0; 14]);
        samples.extend(vec![75_000; 586]); // 60 Mbit/s
        samples.extend(vec![100_000; 300]);
        samples.extend(vec![150_000; 300]); // 120 Mbit/s
        let flow = BulkReport {
            samples,
            ..BulkReport::default()
        };
        let mut measurement = Measurement::default();
        conclude(&mut measurement, &flow, job(&plan, Case::Outage));
        assert!((measurement.goodput_mbps - 160.0).abs() < 1e-6);
        let outage = measurement.outage.unwrap();
        assert!((outage.gap_ms - 140.0).abs() < 1e-9);
        assert!((outage.survivors_mbps - 60.0).abs() < 1e-9);
        assert!((outage.survivors_efficiency - 60.0 / (0.93 * 70.0)).abs() < 1e-9);
        assert!((outage.back_mbps - 120.0).abs() < 1e-9);
        assert!((outage.back_efficiency - 120.0 / (0.93 * 170.0)).abs() < 1e-9);
        assert!(
            measurement.gap_ms < 1e-9,
            "the outage is not in the steady time"
        );
    }

    #[test]
    fn an_unused_link_and_an_emulator_out_of_breath_make_figures_doubtful() {
        let plan = example();
        let mut measurement = Measurement {
            link_mbps: vec![97.0, 0.4, 0.3],
            ..Measurement::default()
        };
        let mut job = job(&plan, Case::Default);
        assert_eq!(
            doubts(&measurement, job),
            ["link 2 carried hardly anything"]
        );
        job.contender = Contender::Link;
        assert_eq!(doubts(&measurement, job), Vec::<String>::new());
        (measurement.emulator_cpu_share, measurement.emulator_drops) = (0.81, 7);
        let all = doubts(&measurement, job);
        assert!(
            all[0].contains("81 %") && all[1].contains("7 frames"),
            "{all:?}"
        );
    }

    #[test]
    fn a_path_is_known_by_the_clients_address() {
        let plan = example();
        let path = |local: &str, remote: &str| Subflow {
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
            info: crate::sys::tcp::TcpInfo::default(),
        };
        let link = |local, remote| link_of(&plan, &path(local, remote));
        assert_eq!(link("10.1.2.2:5", "10.1.1.1:7"), Some(2));
        assert_eq!(link("10.1.1.1:7", "10.1.3.2:5"), Some(3));
        assert_eq!(link("10.99.0.2:5", "10.99.0.1:7"), None);
    }
}
