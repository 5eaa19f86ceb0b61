//! What the demonstration measured, for people and for programs, and whether it is good enough.

use serde::Serialize;

use super::plan::WANS;
use crate::lab::traffic::PingReport;

/// Version of the JSON document.
const SCHEMA: u32 = 1;

/// One WAN as it was emulated.
#[derive(Clone, Debug, Serialize)]
pub struct WanReport {
    /// Its name.
    pub name: &'static str,
    /// What its bottleneck carries.
    pub rate_mbps: f64,
    /// What else it does.
    pub character: &'static str,
}

/// One WAN in one second.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LinkTick {
    /// State, in the daemon's words; empty when the daemon did not tell.
    pub state: String,
    /// Rate sent over it, all bytes of the datagrams.
    pub mbps: f64,
    /// Its part of all that was sent, 0 to 1.
    pub share: f64,
    /// Median round-trip time; zero while it is not known.
    pub rtt_p50_ms: f64,
    /// 99th percentile of the round-trip time.
    pub rtt_p99_ms: f64,
    /// Part of its datagrams that were lost, 0 to 1.
    pub loss_ratio: f64,
}

/// Lost symbols and what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Repairs {
    /// Recovered from repair symbols.
    pub recovered_by_fec: u64,
    /// Came by being sent again.
    pub sent_again: u64,
    /// Lost for good.
    pub unrecoverable: u64,
}

/// One second.
#[derive(Clone, Debug, Serialize)]
pub struct Tick {
    /// Seconds since the connection stood.
    pub second: u64,
    /// One for each WAN.
    pub links: Vec<LinkTick>,
    /// What the receiver of the TCP connection got in this second.
    pub goodput_mbps: f64,
    /// Repairs of this second.
    pub repairs: Repairs,
    /// What happened in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
}

/// A stretch of time with the same links alive.
#[derive(Clone, Debug, Serialize)]
pub struct Phase {
    /// Which links.
    pub name: String,
    /// From here, in seconds since the connection stood.
    pub from_s: f64,
    /// To here.
    pub to_s: f64,
    /// Mean TCP goodput.
    pub goodput_mbps: f64,
    /// Sum of the live bottlenecks' rates.
    pub links_mbps: f64,
}

/// Round-trip times measured by ICMP.
#[derive(Clone, Copy, Debug, Default, Serialize)]
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

impl From<&PingReport> for PingSummary {
    fn from(report: &PingReport) -> Self {
        Self {
            sent: report.sent,
            lost: report.lost(),
            p50_ms: report.quantile(0.5).as_secs_f64() * 1e3,
            p99_ms: report.quantile(0.99).as_secs_f64() * 1e3,
        }
    }
}

/// The whole result.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Version of this document.
    pub schema: u32,
    /// How long the connection ran.
    pub seconds: u64,
    /// The WANs.
    pub wans: Vec<WanReport>,
    /// Name of the best WAN.
    pub best_link: &'static str,
    /// TCP goodput over the best WAN, without the tunnel.
    pub best_link_mbps: f64,
    /// Time from the start of the programs until every link worked.
    pub up_after_ms: f64,
    /// Each second.
    pub ticks: Vec<Tick>,
    /// All links, the best one dead, all again.
    pub phases: Vec<Phase>,
    /// Goodput with all links over that of the best one alone.
    pub gain_over_best_link: f64,
    /// Longest time in which the connection delivered nothing, in steps of 10 ms.
    pub stall_ms: f64,
    /// When it began.
    pub stall_at_s: f64,
    /// What was lost on the links in the connection's direction.
    pub repairs: Repairs,
    /// The best WAN without the tunnel, idle.
    pub ping_direct: PingSummary,
    /// Through the tunnel, idle.
    pub ping_idle: PingSummary,
    /// Through the tunnel, beside the connection, the outage included.
    pub ping_loaded: PingSummary,
    /// Median of `ping_idle` less that of `ping_direct`.
    pub added_latency_ms: f64,
    /// Packets seen on the links.
    pub packets_captured: u64,
    /// Of these: with bytes of what went through the tunnel.
    pub packets_with_plaintext: u64,
    /// The same search over the connection without the tunnel, which shows that it can find: packets seen.
    pub control_packets: u64,
    /// Of these: with bytes of the connection.
    pub control_packets_with_plaintext: u64,
    /// Whether the connection was reset or gave up, as a count.
    pub tcp_resets: u32,
    /// Segments that the connection sent again.
    pub tcp_retransmits: u32,
    /// A byte arrived that was not sent.
    pub corrupted: bool,
    /// AEAD in use.
    pub cipher: String,
    /// Tier of the server's data path.
    pub engine: String,
    /// Why this tier.
    pub engine_reason: String,
    /// Promises that were not kept; empty when all is well.
    pub failures: Vec<String>,
}

impl Report {
    /// A report of the current version, to be filled in.
    pub(super) fn new(seconds: u64) -> Self {
        let wans = WANS.map(|wan| WanReport {
            name: wan.name,
            rate_mbps: wan.rate_mbps,
            character: wan.character,
        });
        Self {
            schema: SCHEMA,
            seconds,
            wans: wans.into(),
            best_link: WANS[super::plan::BEST].name,
            ..Self::default()
        }
    }

    /// Fills in what follows from the rest, last of all.
    pub(super) fn judge(&mut self) {
        let steady = self.phases.first().map_or(0.0, |phase| phase.goodput_mbps);
        if self.best_link_mbps > 0.0 {
            self.gain_over_best_link = steady / self.best_link_mbps;
        }
        self.added_latency_ms = self.ping_idle.p50_ms - self.ping_direct.p50_ms;
        self.failures = self.broken_promises(steady);
    }

    fn broken_promises(&self, steady: f64) -> Vec<String> {
        let mut broken = Vec::new();
        let mut promise = |kept: bool, text: String| {
            if !kept {
                broken.push(text);
            }
        };
        promise(
            steady > self.best_link_mbps && self.best_link_mbps > 0.0,
            format!(
                "goodput of {steady:.1} Mbit/s does not beat {} alone, {:.1} Mbit/s",
                self.best_link, self.best_link_mbps
            ),
        );
        promise(
            self.tcp_resets == 0,
            "the connection was reset or gave up".into(),
        );
        for phase in &self.phases {
            promise(
                phase.goodput_mbps > 0.0,
                format!("nothing was delivered {}", phase.name),
            );
        }
        promise(
            !self.corrupted,
            "bytes arrived that had not been sent".into(),
        );
        promise(
            self.packets_with_plaintext == 0,
            format!(
                "{} packets on the links were readable",
                self.packets_with_plaintext
            ),
        );
        promise(
            self.packets_captured > 0 && self.control_packets_with_plaintext > 0,
            "the search for plaintext saw nothing, so it proves nothing".into(),
        );
        broken
    }

    /// One JSON document.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Report {
        let mut report = Report::new(20);
        report.best_link_mbps = 94.0;
        for name in ["with all links", "without fiber", "with fiber back"] {
            report.phases.push(Phase {
                name: name.into(),
                from_s: 0.0,
                to_s: 1.0,
                goodput_mbps: 141.0,
                links_mbps: 180.0,
            });
        }
        (report.packets_captured, report.control_packets) = (100, 10);
        report.control_packets_with_plaintext = 9;
        report
    }

    #[test]
    fn a_good_run_has_no_failures_and_its_gain_is_against_what_was_measured() {
        let mut report = good();
        report.judge();
        assert_eq!(report.failures, Vec::<String>::new());
        assert!((report.gain_over_best_link - 1.5).abs() < 1e-9);
    }

    #[test]
    fn every_broken_promise_is_named_alone() {
        type Break = fn(&mut Report);
        let cases: [(&str, Break); 7] = [
            ("does not beat fiber alone, 150.0", |report| {
                report.best_link_mbps = 150.0;
            }),
            ("does not beat fiber alone, 0.0", |report| {
                report.best_link_mbps = 0.0;
            }),
            ("reset", |report| report.tcp_resets = 1),
            ("delivered without fiber", |report| {
                report.phases[1].goodput_mbps = 0.0;
            }),
            ("had not been sent", |report| report.corrupted = true),
            ("3 packets on the links were readable", |report| {
                report.packets_with_plaintext = 3;
            }),
            ("proves nothing", |report| {
                report.control_packets_with_plaintext = 0;
            }),
        ];
        for (words, breaks) in cases {
            let mut report = good();
            breaks(&mut report);
            report.judge();
            assert_eq!(report.failures.len(), 1, "{words}: {:?}", report.failures);
            assert!(report.failures[0].contains(words), "{:?}", report.failures);
            let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
            assert_eq!(json["failures"][0], report.failures[0].as_str());
        }
    }
}
