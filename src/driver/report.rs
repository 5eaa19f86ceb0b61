//! From snapshots to what the operator sees: status and the statistics line.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::quota::Usage;
use super::setup::Prepared;
use super::worker::Snapshot;
use crate::base::{DropCounters, Instant};
use crate::config::Config;
use crate::endpoint::PeerId;
use crate::endpoint::stats::PeerStats;
use crate::link::{self, Cause, State};
use crate::session::policy::Standing;
use crate::session::stats::{LinkStats, SessionStats};
use crate::status::{
    EngineStatus, FecStatus, LinkStatus, PeerStatus, Percentiles, ReorderStatus, ResidenceStatus,
    SCHEMA, Status, TunnelStatus,
};

/// Bytes of the counters at the last sample, by peer and link, so that rates have a span.
#[derive(Clone, Debug, Default)]
struct Before {
    at: Instant,
    links: BTreeMap<(usize, u8), (u64, u64)>,
    delivered: BTreeMap<usize, u64>,
    accepted: BTreeMap<usize, u64>,
}

/// Rates computed at the last sample.
#[derive(Clone, Debug, Default)]
struct Rates {
    links: BTreeMap<(usize, u8), (f64, f64)>,
    delivered: BTreeMap<usize, f64>,
    accepted: BTreeMap<usize, f64>,
}

/// Remembers what the last sample said.
#[derive(Debug)]
pub struct Reporter {
    role: &'static str,
    tunnel: TunnelStatus,
    offloads: Vec<String>,
    backend: &'static str,
    fec: FecStatus,
    kernel: String,
    on_ring: bool,
    before: Before,
    rates: Rates,
    last: Option<Status>,
    quotas: BTreeMap<String, Usage>,
}

impl Reporter {
    /// A reporter that has seen nothing.
    pub fn new(config: &Config, prepared: &Prepared, on_ring: bool) -> Self {
        let offloads = prepared.tun.offloads();
        let mut words = Vec::new();
        for (on, word) in [
            (offloads.checksum(), "tun_checksum"),
            (offloads.tcp_segmentation(), "tun_tso"),
            (offloads.udp_segmentation(), "tun_uso"),
            (config.performance.offload, "udp_segment"),
            (config.performance.offload, "udp_gro"),
        ] {
            if on {
                words.push(word.to_owned());
            }
        }
        let kernel = nix::sys::utsname::uname().map_or_else(
            |_| String::new(),
            |name| name.release().to_string_lossy().into_owned(),
        );
        let mut reporter = Self {
            role: config.role.name(),
            tunnel: tunnel(config, prepared.tun.name()),
            offloads: words,
            backend: config.performance.backend.name(),
            fec: FecStatus::default(),
            kernel,
            on_ring,
            before: Before::default(),
            rates: Rates::default(),
            last: None,
            quotas: BTreeMap::new(),
        };
        reporter.reconfigure(config);
        reporter
    }

    /// Notes what a reload changed.
    pub fn reconfigure(&mut self, config: &Config) {
        config
            .performance
            .fec_mode
            .name()
            .clone_into(&mut self.fec.mode);
        self.fec.source_count = u32::from(config.performance.fec_source_count);
    }

    /// Notes what the quotas are and what is used of them.
    pub fn set_quotas(&mut self, quotas: BTreeMap<String, Usage>) {
        self.quotas = quotas;
    }

    /// Takes the periodic snapshot from which rates follow.
    pub fn sample(&mut self, snapshot: &Snapshot) {
        let span = snapshot.at.since(self.before.at);
        let first = self.before.at == Instant::ZERO;
        let mut now = Before {
            at: snapshot.at,
            ..Before::default()
        };
        let mut rates = Rates::default();
        for (at, session) in sessions(snapshot) {
            for link in &session.links {
                let key = (at, link.id.0);
                let bytes = (link.sent.0, link.received.0);
                let old = self.before.links.get(&key).copied().unwrap_or(bytes);
                rates.links.insert(
                    key,
                    (mbps(old.0, bytes.0, span), mbps(old.1, bytes.1, span)),
                );
                now.links.insert(key, bytes);
            }
            let delivered = session.delivered.1;
            let old = self.before.delivered.get(&at).copied().unwrap_or(delivered);
            rates.delivered.insert(at, mbps(old, delivered, span));
            now.delivered.insert(at, delivered);
            let accepted = session.accepted.1;
            let old = self.before.accepted.get(&at).copied().unwrap_or(accepted);
            rates.accepted.insert(at, mbps(old, accepted, span));
            now.accepted.insert(at, accepted);
        }
        self.before = now;
        if !first {
            self.rates = rates;
        }
        self.last = Some(self.status(snapshot));
    }

    /// Everything, as the control socket tells it.
    pub fn status(&self, snapshot: &Snapshot) -> Status {
        Status {
            schema: SCHEMA,
            role: self.role.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: snapshot.at.as_nanos() / 1_000_000_000,
            tunnel: self.tunnel.clone(),
            engine: self.engine(snapshot),
            peers: snapshot
                .endpoint
                .peers
                .iter()
                .enumerate()
                .map(|(at, peer)| self.peer(at, peer, snapshot))
                .collect(),
            drops: drops(&snapshot.endpoint.drops),
        }
    }

    fn engine(&self, snapshot: &Snapshot) -> EngineStatus {
        let stats = &snapshot.datapath;
        let control = if self.on_ring { "tokio-uring" } else { "tokio" };
        #[allow(clippy::cast_precision_loss)] // a ratio
        let per_submit = stats.sqes as f64 / stats.submits.max(1) as f64;
        EngineStatus {
            tier: snapshot.tier.to_owned(),
            reason: format!(
                "backend = {}; {}; control thread on {control}",
                self.backend, snapshot.description
            ),
            kernel: self.kernel.clone(),
            threads: 1,
            offloads: self.offloads.clone(),
            submits: stats.submits,
            operations: stats.sqes,
            operations_per_submit: per_submit,
            fixed_buffer_operations: stats.fixed_ops,
            udp_sends: stats.sends,
            udp_segmented_sends: stats.gso_sends,
            zero_copy_sends: stats.zero_copy_sends,
            zero_copy_copied: stats.zero_copy_copied,
            tun_reads: stats.tun_reads,
            tun_writes: stats.tun_writes,
            tun_merged: snapshot.landing.merged,
            tun_split: snapshot.landing.split,
        }
    }

    fn peer(&self, at: usize, peer: &PeerStats, snapshot: &Snapshot) -> PeerStatus {
        let mut status = PeerStatus {
            name: peer.name.clone(),
            key: peer.public_key.chars().take(8).collect(),
            cipher: peer.cipher.unwrap_or_default().to_owned(),
            epoch: peer.epoch,
            fec: self.fec.clone(),
            state: "down".to_owned(),
            ..PeerStatus::default()
        };
        let Some(session) = &peer.session else {
            if peer.dialing {
                "handshake".clone_into(&mut status.state);
            }
            return status;
        };
        let up = session
            .links
            .iter()
            .any(|link| link.open && link.state == State::Up);
        if up { "up" } else { "handshake" }.clone_into(&mut status.state);
        status.key_age_s = session.key_age.as_secs_f64();
        status.rx_bytes = session.delivered.1;
        status.rx_mbps = self.rates.delivered.get(&at).copied().unwrap_or(0.0);
        status.tx_bytes = session.accepted.1;
        status.tx_mbps = self.rates.accepted.get(&at).copied().unwrap_or(0.0);
        let sent: f64 = session
            .links
            .iter()
            .map(|link| self.link_rates(at, link).0)
            .sum();
        status.links = session
            .links
            .iter()
            .map(|link| self.link(at, link, sent, snapshot))
            .collect();
        fill_fec(&mut status.fec, session);
        status.reorder = reorder(session);
        status.residence = ResidenceStatus {
            out_ms: percentiles(&session.residence),
            in_ms: percentiles(&session.waits),
        };
        status.drops = drops(&session.drops);
        status
    }

    fn link_rates(&self, peer: usize, link: &LinkStats) -> (f64, f64) {
        self.rates
            .links
            .get(&(peer, link.id.0))
            .copied()
            .unwrap_or((0.0, 0.0))
    }

    fn link(
        &self,
        peer: usize,
        link: &LinkStats,
        sent_sum: f64,
        snapshot: &Snapshot,
    ) -> LinkStatus {
        let (tx_mbps, rx_mbps) = self.link_rates(peer, link);
        let id = PeerId(u16::try_from(peer).unwrap_or(u16::MAX));
        let of_link = snapshot.ends.iter().find(|(key, _)| *key == (id, link.id));
        let ends = of_link.map(|(_, ends)| *ends).unwrap_or_default();
        let text = |address: Option<SocketAddr>| {
            address
                .map(|address| address.to_string())
                .unwrap_or_default()
        };
        let usage = self.quotas.get(&link.wan).copied().unwrap_or_default();
        let (missing, received) = link.missing_in;
        #[allow(clippy::cast_precision_loss)] // a ratio
        let loss_ratio_rx = missing as f64 / (missing + received).max(1) as f64;
        LinkStatus {
            id: link.id.0,
            wan: link.wan_id.0,
            name: link.wan.clone(),
            source: text(ends.own),
            remote: text(link.remote.or(ends.peer)),
            state: state(link).to_owned(),
            cause: cause(link),
            share: if sent_sum > 0.0 {
                tx_mbps / sent_sum
            } else {
                0.0
            },
            tx_mbps,
            rx_mbps,
            capacity_mbps: link.capacity.as_mbps(),
            rtt_ms: percentiles(&link.rtt),
            delay_ms: percentiles(&link.delay_out),
            loss_ratio_tx: link.loss_out,
            loss_ratio_rx,
            datagram_bytes: link.datagram_bytes,
            gso: link.gso.to_owned(),
            black_holes: link.black_holes,
            tx_datagrams: link.sent.1,
            rx_datagrams: link.received.1,
            tx_bytes: link.sent.0,
            rx_bytes: link.received.0,
            quota_bytes: usage.quota,
            quota_used_bytes: usage.used,
        }
    }

    /// The periodic statistics: one line for each session, one for each link.
    pub fn log(&self) {
        let Some(status) = &self.last else { return };
        for peer in &status.peers {
            tracing::info!(
                "stats: {} {} up {:.1} down {:.1} Mbit/s, recovered {} resent {} unrecoverable {}",
                peer.name,
                peer.state,
                if self.role == "client" {
                    peer.tx_mbps
                } else {
                    peer.rx_mbps
                },
                if self.role == "client" {
                    peer.rx_mbps
                } else {
                    peer.tx_mbps
                },
                peer.fec.recovered,
                peer.fec.retransmitted,
                peer.fec.unrecoverable,
            );
            for link in &peer.links {
                tracing::info!(
                    "stats: link {} {} {} ({}) share {:.0} % tx {:.1} rx {:.1} Mbit/s capacity {:.1} \
                     rtt p50 {:.1} p99 {:.1} ms loss tx {:.2} rx {:.2} %",
                    link.id,
                    link.name,
                    link.state,
                    link.cause,
                    link.share * 100.0,
                    link.tx_mbps,
                    link.rx_mbps,
                    link.capacity_mbps,
                    link.rtt_ms.p50,
                    link.rtt_ms.p99,
                    link.loss_ratio_tx * 100.0,
                    link.loss_ratio_rx * 100.0,
                );
            }
        }
    }
}

fn sessions(snapshot: &Snapshot) -> impl Iterator<Item = (usize, &SessionStats)> {
    let peers = snapshot.endpoint.peers.iter().enumerate();
    peers.filter_map(|(at, peer)| Some((at, peer.session.as_ref()?)))
}

fn tunnel(config: &Config, name: &str) -> TunnelStatus {
    let tunnel = &config.tunnel;
    let mut local = vec![tunnel.local.to_string()];
    let mut remote = vec![tunnel.remote.to_string()];
    if let Some((own, peer)) = tunnel.v6 {
        local.push(own.to_string());
        remote.push(peer.to_string());
    }
    TunnelStatus {
        name: name.to_owned(),
        mtu: tunnel.mtu,
        local,
        remote,
    }
}

#[allow(clippy::cast_precision_loss)] // a rate for people
fn mbps(before: u64, after: u64, span: Duration) -> f64 {
    let seconds = span.as_secs_f64();
    if seconds > 0.0 {
        after.saturating_sub(before) as f64 * 8.0 / 1e6 / seconds
    } else {
        0.0
    }
}

fn percentiles(of: &link::Percentiles) -> Percentiles {
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    Percentiles {
        p50: ms(of.p50),
        p95: ms(of.p95),
        p99: ms(of.p99),
    }
}

fn drops(counters: &DropCounters) -> BTreeMap<String, u64> {
    counters
        .iter()
        .filter(|(_, n)| *n > 0)
        .map(|(reason, n)| (reason.name().to_owned(), n))
        .collect()
}

const fn state(link: &LinkStats) -> &'static str {
    match (link.open, link.standing, link.state) {
        (false, ..) => "probing",
        (true, Standing::Off, _) => "off",
        (true, Standing::Backup, State::Up) => "backup",
        (true, Standing::Spent, State::Up) => "spent",
        (true, Standing::Parked(_), State::Up) => "parked",
        (true, Standing::OtherWay, State::Up) => "rx_only",
        (true, _, state) => state.name(),
    }
}

fn cause(link: &LinkStats) -> String {
    if !link.open {
        return "waiting for the peer to open the link".to_owned();
    }
    let why = link.standing.cause();
    if !why.is_empty() && (link.state == State::Up || link.standing == Standing::Off) {
        return format!("{why}; rate control: {}", link.phase);
    }
    let words = match link.cause {
        _ if link.datagram_bytes == 0 => "takes short packets only, no data",
        Cause::Replied => "answers",
        other => other.name(),
    };
    format!(
        "{words}, for {:.0} s; rate control: {}",
        link.state_age.as_secs_f64(),
        link.phase
    )
}

fn fill_fec(fec: &mut FecStatus, session: &SessionStats) {
    fec.repair_sent = session.symbols.repair;
    fec.groups_sent = session.symbols.groups;
    fec.groups_received = session.decoder.groups;
    fec.recovered = session.decoder.recovered_symbols;
    fec.unrecoverable = session.decoder.unrecoverable_symbols;
    fec.retransmitted = session.symbols.resent;
    fec.repair_count = u32::try_from(session.repair_count).unwrap_or(u32::MAX);
    let (missing, received) = session.links.iter().fold((0, 0), |sum, link| {
        (sum.0 + link.missing_in.0, sum.1 + link.missing_in.1)
    });
    #[allow(clippy::cast_precision_loss)] // ratios
    {
        let all = (missing + received).max(1) as f64;
        fec.loss_ratio_before = missing as f64 / all;
        fec.loss_ratio_after =
            session.reorder.holes_skipped as f64 / session.delivered.0.max(1) as f64;
    }
}

fn reorder(session: &SessionStats) -> ReorderStatus {
    ReorderStatus {
        hold_ms: session.hold.as_secs_f64() * 1e3,
        depth: session.reorder_depth,
        depth_max: u64::from(session.reorder.depth_max),
        skipped: session.reorder.holes_skipped,
        late: session.reorder.late,
        wait_ms: percentiles(&session.waits),
    }
}
