//! What was measured without limits, for people and for programs.

use serde::Serialize;

use super::plan::{Contender, Load, Plan};
use crate::bench::report::{Machine, PingSummary};
use crate::lab::Nic;

/// Version of the JSON document.
const SCHEMA: u32 = 1;

/// One program of a contender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct ProgramFigures {
    /// Processor time in the counted time.
    pub cpu_s: f64,
    /// Memory in RAM at its end, in megabytes (10^6 bytes).
    pub resident_mb: f64,
    /// Part of it that is no page of a file.
    pub anonymous_mb: f64,
    /// Most that was ever in RAM.
    pub peak_mb: f64,
    /// Part of a processor that it took while nothing flowed.
    pub idle_cpu_share: f64,
}

/// What our own programs count, both together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct EngineFigures {
    /// Datagrams for each send on a UDP socket.
    pub datagrams_per_send: f64,
    /// Datagrams, all sorts and both ways, for each inner packet.
    pub datagrams_per_packet: f64,
    /// Kernel operations for each submit.
    pub operations_per_submit: f64,
    /// System calls that submitted or waited, for each inner packet.
    pub submits_per_packet: f64,
    /// Repair symbols, as a part of all datagrams.
    pub repair_share: f64,
    /// Source symbols sent again, as the receivers count them.
    pub symbols_again: u64,
    /// Frames and datagrams discarded, by whatever reason.
    pub drops: u64,
}

/// Small packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct PacketFigures {
    /// Packets per second that were offered at the rate that counts.
    pub offered_per_s: f64,
    /// Part of them that was lost.
    pub loss: f64,
    /// Packets per second that were delivered when more was offered than could be.
    pub flooded_per_s: f64,
}

/// One measurement.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Measurement {
    /// Payload that the receivers got.
    pub goodput_mbps: f64,
    /// Inner packets that carried it (TCP: full segments).
    pub packets_per_s: f64,
    /// Processor time of client and server together; zero without programs.
    pub cpu_s: f64,
    /// Payload in megabits for each second of it; none without programs.
    pub mbit_per_cpu_s: Option<f64>,
    /// Processor time for each gigabyte of payload.
    pub cpu_s_per_gb: Option<f64>,
    /// The client's program.
    pub client: Option<ProgramFigures>,
    /// The server's program.
    pub server: Option<ProgramFigures>,
    /// What our own programs count.
    pub engine: Option<EngineFigures>,
    /// TCP segments sent again.
    pub retransmits: u32,
    /// Small packets; none for TCP.
    pub packets: Option<PacketFigures>,
    /// Pings while nothing else flowed.
    pub ping_idle: PingSummary,
    /// Why a connection ended early, if one did.
    pub error: Option<String>,
}

impl Measurement {
    /// Fills in what follows from payload, time and processor time.
    pub(super) fn derive(&mut self, bytes: u64, seconds: f64) {
        #[allow(clippy::cast_precision_loss)] // far below 2^53
        let bytes = bytes as f64;
        let megabits = bytes * 8e-6;
        self.goodput_mbps = megabits / seconds;
        let programs = [self.client, self.server];
        self.cpu_s = programs.iter().flatten().map(|one| one.cpu_s).sum();
        if self.cpu_s > 0.0 && bytes > 0.0 {
            self.mbit_per_cpu_s = Some(megabits / self.cpu_s);
            self.cpu_s_per_gb = Some(self.cpu_s / (bytes * 1e-9));
        }
    }
}

/// One contender in one row.
#[derive(Clone, Debug, Serialize)]
pub struct ContenderReport {
    /// The variant's or the rival's name.
    pub name: String,
    /// `tunnel`, or the rival's name.
    pub kind: &'static str,
    /// Settings of the variant.
    pub settings: Vec<String>,
    /// Why it was not measured, if it was not.
    pub missing: Option<String>,
    /// All runs.
    pub runs: Vec<Measurement>,
}

impl ContenderReport {
    fn of(contender: &Contender<'_>) -> Self {
        let (kind, settings) = match contender {
            Contender::Tunnel(variant) => {
                let settings = variant.settings.iter().map(|one| format!("{one:?}"));
                ("tunnel", settings.collect())
            }
            Contender::Rival(rival) => (rival.name(), Vec::new()),
        };
        Self {
            name: contender.name().to_owned(),
            kind,
            settings,
            missing: None,
            runs: Vec::new(),
        }
    }

    /// The run with the median goodput.
    pub fn typical(&self) -> Option<&Measurement> {
        let mut runs: Vec<_> = self.runs.iter().collect();
        runs.sort_by(|a, b| a.goodput_mbps.total_cmp(&b.goodput_mbps));
        runs.get(runs.len().saturating_sub(1) / 2).copied()
    }

    /// Least and greatest of a figure over all runs.
    pub(super) fn range(&self, of: impl Fn(&Measurement) -> f64) -> Option<(f64, f64)> {
        let values: Vec<_> = self.runs.iter().map(of).collect();
        let least = values.iter().copied().reduce(f64::min)?;
        Some((least, values.into_iter().reduce(f64::max)?))
    }
}

/// One contender against another: medians over pairs of the same run, so that what else the machine did hits both.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ratio {
    /// Who.
    pub of: String,
    /// Against whom.
    pub to: String,
    /// Goodput.
    pub goodput: f64,
    /// Payload for each second of processor time; none when one of them has no programs.
    pub efficiency: Option<f64>,
}

/// One direction.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// `up` or `down`.
    pub direction: &'static str,
    /// Who was measured.
    pub contenders: Vec<ContenderReport>,
    /// Every variant against the first one and against every rival.
    pub ratios: Vec<Ratio>,
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
    /// Cables.
    pub links: usize,
    /// `offload` or `plain`.
    pub nic: &'static str,
    /// `tcp` or `udp`.
    pub load: &'static str,
    /// Bytes of each UDP payload; none for TCP.
    pub payload_bytes: Option<usize>,
    /// Flows.
    pub flows: usize,
    /// How long each measurement counted.
    pub seconds: u64,
    /// What ran before it.
    pub warmup: u64,
    /// Runs of everything.
    pub runs: u64,
    /// The directions.
    pub rows: Vec<Row>,
    /// What did not work; empty when all is well.
    pub failures: Vec<String>,
}

impl Report {
    /// An empty report about a plan.
    pub(super) fn new(plan: &Plan, machine: Machine) -> Self {
        let contenders = plan.contenders();
        let row = |direction: &crate::bench::plan::Direction| Row {
            direction: direction.name(),
            contenders: contenders.iter().map(ContenderReport::of).collect(),
            ratios: Vec::new(),
        };
        let (load, payload_bytes) = match plan.load {
            Load::Tcp => ("tcp", None),
            Load::Udp { bytes } => ("udp", Some(bytes)),
        };
        Self {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            machine,
            links: plan.links,
            nic: match plan.nic {
                Nic::Offload => "offload",
                Nic::Plain => "plain",
            },
            load,
            payload_bytes,
            flows: plan.flows,
            seconds: plan.seconds,
            warmup: plan.warmup,
            runs: plan.runs,
            rows: plan.directions.iter().map(row).collect(),
            failures: Vec::new(),
        }
    }

    /// Fills in what follows from the rest, last of all.
    pub(super) fn judge(&mut self) {
        for row in &mut self.rows {
            row.ratios = ratios(&row.contenders);
            for contender in &row.contenders {
                for (run, number) in contender.runs.iter().zip(1..) {
                    let what = match &run.error {
                        Some(error) => error.as_str(),
                        None if run.goodput_mbps <= 0.0 => "nothing was delivered",
                        None => continue,
                    };
                    let place = format!("{}, {}, run {number}", row.direction, contender.name);
                    self.failures.push(format!("{place}: {what}"));
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

/// Every variant against the first one and against every rival.
fn ratios(contenders: &[ContenderReport]) -> Vec<Ratio> {
    let is_tunnel = |one: &&ContenderReport| one.kind == "tunnel";
    let Some(first) = contenders.iter().find(is_tunnel) else {
        return Vec::new();
    };
    let rivals = contenders.iter().filter(|one| !is_tunnel(one));
    let others: Vec<_> = std::iter::once(first).chain(rivals).collect();
    let mut ratios = Vec::new();
    for one in contenders.iter().filter(is_tunnel) {
        for other in others.iter().filter(|other| other.name != one.name) {
            let pairs = || one.runs.iter().zip(&other.runs);
            let goodput = pairs().map(|(a, b)| a.goodput_mbps / b.goodput_mbps);
            let efficiency =
                pairs().filter_map(|(a, b)| Some(a.mbit_per_cpu_s? / b.mbit_per_cpu_s?));
            if let Some(goodput) = median(goodput.filter(|ratio| ratio.is_finite())) {
                ratios.push(Ratio {
                    of: one.name.clone(),
                    to: other.name.clone(),
                    goodput,
                    efficiency: median(efficiency),
                });
            }
        }
    }
    ratios
}

/// The middle value; of an even number the mean of the two middle ones.
pub(super) fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = values[(values.len() - 1) / 2];
    Some(f64::midpoint(lower, upper))
}

#[cfg(test)]
pub(super) fn example(plan: &Plan) -> Report {
    let mut report = Report::new(plan, Machine::default());
    for row in &mut report.rows {
        for (contender, mbps) in row
            .contenders
            .iter_mut()
            .zip([2000.0, 2500.0, 8000.0, 400.0])
        {
            for speed in [0.5, 1.0] {
                let mut run = Measurement::default();
                if contender.kind != "baseline" {
                    let program = ProgramFigures {
                        cpu_s: 2.0,
                        resident_mb: 21.5,
                        ..ProgramFigures::default()
                    };
                    (run.client, run.server) = (Some(program), Some(program));
                }
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
                run.derive((mbps * speed * 5.0 / 8e-6) as u64, 5.0);
                contender.runs.push(run);
            }
        }
    }
    report.judge();
    report
}

#[cfg(test)]
mod tests {
    use super::super::plan::example as plan;
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        let median = |values: &[f64]| median(values.iter().copied());
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 9.0]), Some(3.0));
    }

    #[test]
    fn payload_and_processor_time_give_the_cost() {
        let mut run = Measurement {
            client: Some(ProgramFigures {
                cpu_s: 1.5,
                ..ProgramFigures::default()
            }),
            server: Some(ProgramFigures {
                cpu_s: 0.5,
                ..ProgramFigures::default()
            }),
            ..Measurement::default()
        };
        run.derive(500_000_000, 4.0);
        assert!((run.goodput_mbps - 1000.0).abs() < 1e-9);
        assert!((run.cpu_s - 2.0).abs() < 1e-9);
        assert!((run.mbit_per_cpu_s.unwrap() - 2000.0).abs() < 1e-6);
        assert!((run.cpu_s_per_gb.unwrap() - 4.0).abs() < 1e-9);
        let mut bare = Measurement::default();
        bare.derive(500_000_000, 4.0);
        assert_eq!((bare.mbit_per_cpu_s, bare.cpu_s_per_gb), (None, None));
    }

    #[test]
    fn variants_are_compared_with_the_first_one_and_with_rivals_run_by_run() {
        let report = example(&plan());
        let ratios = &report.rows[0].ratios;
        let names: Vec<_> = ratios
            .iter()
            .map(|r| (r.of.as_str(), r.to.as_str()))
            .collect();
        assert_eq!(
            names,
            [
                ("tunnel", "baseline"),
                ("tunnel", "openvpn"),
                ("off", "tunnel"),
                ("off", "baseline"),
                ("off", "openvpn"),
            ]
        );
        assert!((ratios[1].goodput - 5.0).abs() < 1e-6);
        assert!((ratios[1].efficiency.unwrap() - 5.0).abs() < 1e-6);
        assert_eq!(ratios[0].efficiency, None);
        assert_eq!(report.failures, Vec::<String>::new());
    }

    #[test]
    fn a_rival_that_is_not_there_has_no_ratio_and_a_dead_connection_is_a_failure() {
        let mut report = example(&plan());
        let openvpn = &mut report.rows[0].contenders[3];
        openvpn.runs.clear();
        openvpn.missing = Some("no program openvpn".into());
        report.rows[1].contenders[0].runs[1].error = Some("reset".into());
        report.judge();
        assert!(
            report.rows[0]
                .ratios
                .iter()
                .all(|ratio| ratio.to != "openvpn")
        );
        assert_eq!(report.failures, ["down, tunnel, run 2: reset"]);
        let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
        assert_eq!(json["schema"], 1);
        assert_eq!(json["nic"], "offload");
        assert_eq!(
            json["rows"][0]["contenders"][1]["settings"][0],
            "Performance(\"fec_mode = \\\"off\\\"\")"
        );
    }
}
