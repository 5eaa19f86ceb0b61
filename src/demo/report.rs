//! What the demonstration measured, for people and for programs.

use serde::Serialize;

/// Version of the JSON document.
const SCHEMA: u32 = 1;

/// One WAN as it was emulated, in the direction of the connection.
#[derive(Clone, Debug, Serialize)]
pub struct WanReport {
    /// Its name.
    pub name: &'static str,
    /// What its bottleneck carries.
    pub rate_mbps: f64,
    /// What else it does.
    pub character: &'static str,
}

/// One link's state in one second.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LinkTick {
    /// State, in the daemon's words; empty when the daemon did not tell.
    pub state: String,
    /// Rate sent over it.
    pub mbps: f64,
    /// Its part of all that was sent, 0 to 1.
    pub share: f64,
    /// Median round-trip time.
    pub rtt_p50_ms: f64,
    /// 99th percentile of the round-trip time.
    pub rtt_p99_ms: f64,
    /// Part of its datagrams that were lost, 0 to 1.
    pub loss_ratio: f64,
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
    /// Symbols repaired since the last second.
    pub repaired: u64,
    /// What happened at its start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
}

/// A stretch of time with the same links alive.
#[derive(Clone, Debug, Serialize)]
pub struct Phase {
    /// Which links.
    pub name: String,
    /// From here, in seconds since the connection stood; the first moments of adaptation are left out.
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

/// The whole result.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Version of this document.
    pub schema: u32,
    /// The WANs.
    pub wans: Vec<WanReport>,
    /// Each second.
    pub ticks: Vec<Tick>,
    /// All links, one dead, all again.
    pub phases: Vec<Phase>,
    /// Goodput with all links over the rate of the best one.
    pub gain_over_best_link: f64,
    /// Longest time in which the connection delivered nothing.
    pub stall_ms: f64,
    /// When it began.
    pub stall_at_s: f64,
    /// Symbols that FEC recovered.
    pub recovered_by_fec: u64,
    /// Symbols that were sent again.
    pub sent_again: u64,
    /// Symbols lost for good.
    pub unrecoverable: u64,
    /// The best WAN without the tunnel, idle.
    pub ping_direct: PingSummary,
    /// Through the tunnel, idle.
    pub ping_idle: PingSummary,
    /// Through the tunnel, under the connection's load, with the dead link.
    pub ping_loaded: PingSummary,
    /// Packets seen on the links.
    pub packets_captured: u64,
    /// Of these: with bytes of what went through the tunnel.
    pub packets_with_plaintext: u64,
    /// Whether the connection was reset or gave up, as a count.
    pub tcp_resets: u32,
    /// Segments that the connection sent again.
    pub tcp_retransmits: u32,
    /// Tier of the server's data path.
    pub engine: String,
    /// AEAD in use.
    pub cipher: String,
}

impl Report {
    /// A report of the current version, to be filled in.
    pub(super) fn new(wans: Vec<WanReport>) -> Self {
        Self {
            schema: SCHEMA,
            wans,
            ticks: Vec::new(),
            phases: Vec::new(),
            gain_over_best_link: 0.0,
            stall_ms: 0.0,
            stall_at_s: 0.0,
            recovered_by_fec: 0,
            sent_again: 0,
            unrecoverable: 0,
            ping_direct: PingSummary::default(),
            ping_idle: PingSummary::default(),
            ping_loaded: PingSummary::default(),
            packets_captured: 0,
            packets_with_plaintext: 0,
            tcp_resets: 0,
            tcp_retransmits: 0,
            engine: String::new(),
            cipher: String::new(),
        }
    }

    /// Whether the tunnel kept its promises: the connection lived, all the time, and nobody could read along.
    pub fn is_good(&self) -> bool {
        let flowed = self.phases.iter().all(|phase| phase.goodput_mbps > 0.0);
        flowed
            && self.tcp_resets == 0
            && self.packets_with_plaintext == 0
            && self.packets_captured > 0
    }

    /// One JSON document.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }
}
