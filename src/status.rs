//! Floor 5: what a running tunnel tells about itself. Written by the driver, read by `chainlightning status`.
//!
//! Over the control socket goes one line of JSON each way:
//!
//! ```text
//! chainlightning ── {"schema":1,"command":"status"} ──►  client or server
//!                ◄── Status, or {"schema":1,"error":"..."} ──
//! ```
//!
//! Inside one schema number, fields are added and never renamed or removed; every field may be missing
//! in what an older program sends. Units are the last part of a field's name. No secret is in here.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Version of this format.
pub const SCHEMA: u32 = 1;

/// Longest request line; the longest command has a fraction of it.
pub const REQUEST_BYTES_MAX: usize = 4096;

/// Longest answer line: 256 peers of 32 links at 1 kB each, and room to grow.
pub const REPLY_BYTES_MAX: u64 = 16 << 20;

/// One line that a tool sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// [`SCHEMA`] of the sender.
    pub schema: u32,
    /// What it wants.
    pub command: Command,
}

/// What a tool can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// A [`Status`].
    Status,
}

impl Request {
    /// Asks for a [`Status`].
    pub const STATUS: Self = Self {
        schema: SCHEMA,
        command: Command::Status,
    };

    /// Reads a line from the control socket.
    ///
    /// # Errors
    /// A [`Refusal`] to send back.
    pub fn parse(line: &str) -> Result<Self, Refusal> {
        let refuse = |error: String| Refusal {
            schema: SCHEMA,
            error,
        };
        let request: Self =
            serde_json::from_str(line).map_err(|error| refuse(error.to_string()))?;
        if request.schema == SCHEMA {
            Ok(request)
        } else {
            Err(refuse(format!(
                "this program speaks schema {SCHEMA}, not {}",
                request.schema
            )))
        }
    }
}

/// The answer when a request cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// [`SCHEMA`] of the daemon.
    pub schema: u32,
    /// Why.
    pub error: String,
}

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Reply {
    /// It could not be served. First, because a status never has an `error`.
    Refusal(Refusal),
    /// The state of the tunnel.
    Status(Box<Status>),
}

/// One line for the control socket, with its line end.
pub fn to_line(value: &impl Serialize) -> String {
    let mut line =
        serde_json::to_string(value).expect("plain structs with text keys always serialize");
    line.push('\n');
    line
}

/// The whole tunnel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// [`SCHEMA`] of the daemon.
    pub schema: u32,
    /// `client` or `server`.
    pub role: String,
    /// Version of the program.
    pub version: String,
    /// Time since the daemon started.
    pub uptime_s: u64,
    /// The TUN device.
    pub tunnel: TunnelStatus,
    /// How the kernel is talked to, and what it costs.
    pub engine: EngineStatus,
    /// The server, or each client.
    pub peers: Vec<PeerStatus>,
    /// Everything discarded outside of a peer's session, by reason; reasons with zero are left out.
    pub drops: BTreeMap<String, u64>,
}

/// The TUN device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TunnelStatus {
    /// Interface name.
    pub name: String,
    /// Largest inner packet.
    pub mtu: u16,
    /// Own inner addresses.
    pub local: Vec<String>,
    /// The peer's inner addresses.
    pub remote: Vec<String>,
}

/// How the kernel is talked to, and what it costs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EngineStatus {
    /// Tier in use: `io_uring`, `io_uring_oneshot` or `epoll`.
    pub tier: String,
    /// Why this tier: what was configured or what the kernel refused.
    pub reason: String,
    /// Release of the running kernel.
    pub kernel: String,
    /// Workers of the data path.
    pub threads: u32,
    /// Offloads in force, such as `tso4`, `udp_segment`, `udp_gro`.
    pub offloads: Vec<String>,
    /// System calls that submitted or waited.
    pub submits: u64,
    /// Kernel operations done.
    pub operations: u64,
    /// Operations for each submit.
    pub operations_per_submit: f64,
    /// Operations on registered buffers.
    pub fixed_buffer_operations: u64,
    /// Sends on UDP sockets.
    pub udp_sends: u64,
    /// Those that carried more than one datagram.
    pub udp_segmented_sends: u64,
    /// Runs sent without a copy, as far as we are concerned.
    pub zero_copy_sends: u64,
    /// Those of them that the kernel has copied all the same.
    pub zero_copy_copied: u64,
    /// Frames read from the TUN.
    pub tun_reads: u64,
    /// Frames written to the TUN.
    pub tun_writes: u64,
    /// Packets that became part of a superframe on their way to the TUN.
    pub tun_merged: u64,
    /// Packets made of superframes that the kernel refused.
    pub tun_split: u64,
    /// Each worker; the counters above are the sums of theirs.
    pub workers: Vec<WorkerStatus>,
}

/// One worker of the data path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkerStatus {
    /// Its number, from 0; also of its queue of the TUN.
    pub number: u32,
    /// Sessions that it has.
    pub sessions: u64,
    /// System calls that submitted or waited.
    pub submits: u64,
    /// Kernel operations done.
    pub operations: u64,
    /// Sends on UDP sockets.
    pub udp_sends: u64,
    /// Frames read from its queue of the TUN.
    pub tun_reads: u64,
    /// Frames written to it.
    pub tun_writes: u64,
    /// Frames and datagrams that came to it and were for a session of another worker.
    pub handed_over: u64,
}

/// The sessions with a peer as one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PeerStatus {
    /// Name from the configuration.
    pub name: String,
    /// Start of its public key, enough to tell it from others.
    pub key: String,
    /// `up`, `handshake` or `down`.
    pub state: String,
    /// AEAD of the current epoch.
    pub cipher: String,
    /// Number of the current epoch.
    pub epoch: u32,
    /// Age of the current epoch's keys.
    pub key_age_s: f64,
    /// Inner bytes taken from the TUN for this peer.
    pub tx_bytes: u64,
    /// Inner bytes written to the TUN from this peer.
    pub rx_bytes: u64,
    /// Inner rate towards the peer in the last second.
    pub tx_mbps: f64,
    /// Inner rate from the peer in the last second.
    pub rx_mbps: f64,
    /// Its links, in the order of their sessions and ids.
    pub links: Vec<LinkStatus>,
    /// Forward error correction.
    pub fec: FecStatus,
    /// Reordering.
    pub reorder: ReorderStatus,
    /// How long inner packets are with us.
    pub residence: ResidenceStatus,
    /// Everything discarded in this session, by reason; reasons with zero are left out.
    pub drops: BTreeMap<String, u64>,
}

/// One link of a session.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinkStatus {
    /// Session that it belongs to: a client has one for each of its workers.
    pub session: u8,
    /// Worker of this side that has the session.
    pub worker: u32,
    /// Number of the link.
    pub id: u8,
    /// Number of its WAN.
    pub wan: u8,
    /// Name of its WAN.
    pub name: String,
    /// Own address and port.
    pub source: String,
    /// The peer's address and port.
    pub remote: String,
    /// `probing`, `up`, `suspect`, `down`, `backup`, `spent`, `parked`, `rx_only` or `off`.
    pub state: String,
    /// Why it is in this state, in words; empty when there is nothing to say.
    pub cause: String,
    /// Part of the bytes that this link sent in the last second, 0 to 1.
    pub share: f64,
    /// Rate sent in the last second, all bytes of the datagrams.
    pub tx_mbps: f64,
    /// Rate received in the last second, all bytes of the datagrams.
    pub rx_mbps: f64,
    /// What the WAN is believed to carry in our sending direction.
    pub capacity_mbps: f64,
    /// Round-trip time.
    pub rtt_ms: Percentiles,
    /// Queueing delay of our sending direction: one-way delay above its recent minimum.
    pub delay_ms: Percentiles,
    /// Part of the datagrams lost in our sending direction, 0 to 1.
    pub loss_ratio_tx: f64,
    /// Part of the datagrams lost in our receiving direction, 0 to 1.
    pub loss_ratio_rx: f64,
    /// Longest datagram that is known to arrive in our sending direction; 0: the path is too narrow for data.
    pub datagram_bytes: u32,
    /// Which runs leave as one segmented send: `on`, `uneven`, `off`.
    pub gso: String,
    /// Times that long datagrams began to vanish.
    pub black_holes: u64,
    /// Datagrams sent.
    pub tx_datagrams: u64,
    /// Datagrams received and authenticated.
    pub rx_datagrams: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Bytes received and authenticated.
    pub rx_bytes: u64,
    /// What its WAN may carry in a month; 0: no quota, or not known here (server).
    pub quota_bytes: u64,
    /// What its WAN carried in this month.
    pub quota_used_bytes: u64,
}

/// Percentiles over the recent past; zero while there are no samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Percentiles {
    /// Median.
    pub p50: f64,
    /// 95th.
    pub p95: f64,
    /// 99th.
    pub p99: f64,
}

/// Forward error correction of one session.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FecStatus {
    /// `adaptive`, `fixed` or `off`.
    pub mode: String,
    /// Source symbols of a full group.
    pub source_count: u32,
    /// Repair symbols that a full group gets at present.
    pub repair_count: u32,
    /// Groups sent.
    pub groups_sent: u64,
    /// Repair symbols sent.
    pub repair_sent: u64,
    /// Groups received.
    pub groups_received: u64,
    /// Source symbols recovered from repair symbols.
    pub recovered: u64,
    /// Source symbols that came by being sent again.
    pub retransmitted: u64,
    /// Source symbols lost for good.
    pub unrecoverable: u64,
    /// Part of the source symbols missing before FEC, in the last seconds, 0 to 1.
    pub loss_ratio_before: f64,
    /// Part of the source symbols missing after FEC, in the last seconds, 0 to 1.
    pub loss_ratio_after: f64,
}

/// How long inner packets were with us in the last two seconds, queues included.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResidenceStatus {
    /// From the read of the TUN to the datagram that carries the packet's first byte for the first time.
    pub out_ms: Percentiles,
    /// From the read of the socket that brought the packet's last byte to the write of the TUN.
    pub in_ms: Percentiles,
}

/// Reordering of one session's receiving direction.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReorderStatus {
    /// Longest wait for a hole at present.
    pub hold_ms: f64,
    /// Frames waiting at present.
    pub depth: u64,
    /// Most frames that ever waited.
    pub depth_max: u64,
    /// Holes given up.
    pub skipped: u64,
    /// Frames that came after their hole was given up.
    pub late: u64,
    /// How long frames waited.
    pub wait_ms: Percentiles,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_survives_its_line_and_unknown_fields_are_skipped() {
        let status = Status {
            schema: SCHEMA,
            peers: vec![PeerStatus {
                links: vec![LinkStatus::default()],
                ..PeerStatus::default()
            }],
            drops: BTreeMap::from([("malformed".into(), 3)]),
            ..Status::default()
        };
        let line = to_line(&status);
        assert_eq!(line.matches('\n').count(), 1);
        assert_eq!(
            serde_json::from_str::<Reply>(&line).unwrap(),
            Reply::Status(Box::new(status))
        );
        let newer = r#"{"schema":1,"role":"client","new":{"a":1}}"#;
        let Reply::Status(status) = serde_json::from_str(newer).unwrap() else {
            panic!("no status")
        };
        assert_eq!(status.role, "client");
    }

    #[test]
    fn the_request_is_the_documented_line_and_others_are_refused() {
        assert_eq!(
            to_line(&Request::STATUS),
            "{\"schema\":1,\"command\":\"status\"}\n"
        );
        assert_eq!(
            Request::parse(r#"{"schema":1,"command":"status"}"#),
            Ok(Request::STATUS)
        );
        for bad in [
            "",
            "status",
            "{}",
            r#"{"schema":2,"command":"status"}"#,
            r#"{"schema":1,"command":"halt"}"#,
        ] {
            let refusal = Request::parse(bad).unwrap_err();
            let reply: Reply = serde_json::from_str(&to_line(&refusal)).unwrap();
            assert_eq!(reply, Reply::Refusal(refusal), "{bad}");
        }
    }
}
