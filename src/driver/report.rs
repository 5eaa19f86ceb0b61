//! From snapshots to what the operator sees: status and the statistics line.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::command::Snapshot;
use super::figures::{cause, drops, fill_fec, percentiles, reorder, residence, state};
use super::quota::Usage;
use super::setup::Prepared;
use super::sockets::Ends;
use crate::base::{DropCounters, Instant, LinkId};
use crate::config::Config;
use crate::endpoint::stats::PeerStats;
use crate::endpoint::{PeerId, SessionId};
use crate::link::State;
use crate::session::stats::{LinkStats, SessionStats};
use crate::status::{
    EngineStatus, FecStatus, LinkStatus, PeerStatus, SCHEMA, Status, TunnelStatus, WorkerStatus,
};

/// Bytes of the counters at the last sample, so that rates have a span.
#[derive(Clone, Debug, Default)]
struct Before {
    at: Instant,
    links: BTreeMap<(SessionId, u8), (u64, u64)>,
    /// Taken from the TUN and written to it.
    frames: BTreeMap<SessionId, (u64, u64)>,
}

/// Rates computed at the last sample, in Mbit/s.
#[derive(Clone, Debug, Default)]
struct Rates {
    links: BTreeMap<(SessionId, u8), (f64, f64)>,
    frames: BTreeMap<SessionId, (f64, f64)>,
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

    /// Takes the periodic snapshots from which rates follow, one of each worker.
    pub fn sample(&mut self, snapshots: &[Snapshot]) {
        let Some(at) = snapshots.iter().map(|snapshot| snapshot.at).max() else {
            return;
        };
        let span = at.since(self.before.at);
        let first = self.before.at == Instant::ZERO;
        let mut now = Before {
            at,
            ..Before::default()
        };
        let mut rates = Rates::default();
        let rate =
            |old: (u64, u64), new: (u64, u64)| (mbps(old.0, new.0, span), mbps(old.1, new.1, span));
        for (id, session) in sessions(snapshots) {
            for link in &session.links {
                let (key, bytes) = ((id, link.id.0), (link.sent.0, link.received.0));
                let old = self.before.links.get(&key).copied().unwrap_or(bytes);
                rates.links.insert(key, rate(old, bytes));
                now.links.insert(key, bytes);
            }
            let bytes = (session.accepted.1, session.delivered.1);
            let old = self.before.frames.get(&id).copied().unwrap_or(bytes);
            rates.frames.insert(id, rate(old, bytes));
            now.frames.insert(id, bytes);
        }
        self.before = now;
        if !first {
            self.rates = rates;
        }
        self.last = Some(self.status(snapshots));
    }

    /// Everything, as the control socket tells it.
    pub fn status(&self, snapshots: &[Snapshot]) -> Status {
        let uptime = snapshots.iter().map(|snapshot| snapshot.at).max();
        let mut peers: BTreeMap<PeerId, Vec<(usize, &PeerStats)>> = BTreeMap::new();
        let mut outside = DropCounters::default();
        for (worker, snapshot) in snapshots.iter().enumerate() {
            outside.merge(&snapshot.endpoint.drops);
            for peer in &snapshot.endpoint.peers {
                peers.entry(peer.id.peer).or_default().push((worker, peer));
            }
        }
        for sessions in peers.values_mut() {
            sessions.sort_by_key(|(_, session)| session.id);
        }
        Status {
            schema: SCHEMA,
            role: self.role.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: uptime.unwrap_or_default().as_nanos() / 1_000_000_000,
            tunnel: self.tunnel.clone(),
            engine: self.engine(snapshots),
            peers: peers
                .values()
                .map(|sessions| self.peer(sessions, snapshots))
                .collect(),
            drops: drops(&outside),
        }
    }

    fn engine(&self, snapshots: &[Snapshot]) -> EngineStatus {
        let workers: Vec<_> = (0..).zip(snapshots).map(worker).collect();
        let sum = |of: fn(&WorkerStatus) -> u64| workers.iter().map(of).sum::<u64>();
        let control = if self.on_ring { "tokio-uring" } else { "tokio" };
        let (operations, submits) = (sum(|w| w.operations), sum(|w| w.submits));
        #[allow(clippy::cast_precision_loss)] // a ratio
        let per_submit = operations as f64 / submits.max(1) as f64;
        let first = snapshots.first();
        EngineStatus {
            tier: first.map(|s| s.tier.to_owned()).unwrap_or_default(),
            reason: format!(
                "backend = {}; {}; control thread on {control}",
                self.backend,
                first.map(|s| s.description.as_str()).unwrap_or_default()
            ),
            kernel: self.kernel.clone(),
            threads: u32::try_from(workers.len()).unwrap_or(u32::MAX),
            offloads: self.offloads.clone(),
            submits,
            operations,
            operations_per_submit: per_submit,
            fixed_buffer_operations: snapshots.iter().map(|s| s.datapath.fixed_ops).sum(),
            udp_sends: sum(|w| w.udp_sends),
            udp_segmented_sends: snapshots.iter().map(|s| s.datapath.gso_sends).sum(),
            zero_copy_sends: snapshots.iter().map(|s| s.datapath.zero_copy_sends).sum(),
            zero_copy_copied: snapshots.iter().map(|s| s.datapath.zero_copy_copied).sum(),
            tun_reads: sum(|w| w.tun_reads),
            tun_writes: sum(|w| w.tun_writes),
            tun_merged: snapshots.iter().map(|s| s.landing.merged).sum(),
            tun_split: snapshots.iter().map(|s| s.landing.split).sum(),
            workers,
        }
    }

    /// One peer, all its sessions as one.
    fn peer(&self, entries: &[(usize, &PeerStats)], snapshots: &[Snapshot]) -> PeerStatus {
        let mut status = PeerStatus {
            fec: self.fec.clone(),
            state: "down".to_owned(),
            ..PeerStatus::default()
        };
        if let Some((_, first)) = entries.first() {
            status.name.clone_from(&first.name);
            status.key = first.public_key.chars().take(8).collect();
        }
        let newest = entries.iter().max_by_key(|(_, entry)| entry.epoch);
        if let Some((_, newest)) = newest {
            status.cipher = newest.cipher.unwrap_or_default().to_owned();
            status.epoch = newest.epoch;
        }
        let running = || {
            let running = entries.iter();
            running.filter_map(|(at, entry)| Some((*at, entry.id, entry.session.as_ref()?)))
        };
        let sessions: Vec<&SessionStats> = running().map(|(_, _, session)| session).collect();
        let links = || sessions.iter().flat_map(|session| &session.links);
        if links().any(|link| link.open && link.state == State::Up) {
            "up".clone_into(&mut status.state);
        } else if !sessions.is_empty() || entries.iter().any(|(_, entry)| entry.dialing) {
            "handshake".clone_into(&mut status.state);
        }
        let mut discarded = DropCounters::default();
        let mut sent = 0.0;
        for (_, id, session) in running() {
            let (up, down) = self.rates.frames.get(&id).copied().unwrap_or_default();
            status.key_age_s = status.key_age_s.max(session.key_age.as_secs_f64());
            status.rx_bytes += session.delivered.1;
            status.rx_mbps += down;
            status.tx_bytes += session.accepted.1;
            status.tx_mbps += up;
            discarded.merge(&session.drops);
            let links = session.links.iter();
            sent += links.map(|link| self.link_rates(id, link).0).sum::<f64>();
        }
        for (worker, id, session) in running() {
            let ends = snapshots.get(worker).map_or(&[][..], |s| &s.ends);
            let links = session.links.iter();
            let links = links.map(|link| LinkStatus {
                session: id.number,
                worker: u32::try_from(worker).unwrap_or(u32::MAX),
                ..self.link(id, link, sent, ends)
            });
            status.links.extend(links);
        }
        if !sessions.is_empty() {
            fill_fec(&mut status.fec, &sessions);
            status.reorder = reorder(&sessions);
            status.residence = residence(&sessions);
            status.drops = drops(&discarded);
        }
        status
    }

    fn link_rates(&self, session: SessionId, link: &LinkStats) -> (f64, f64) {
        let known = self.rates.links.get(&(session, link.id.0));
        known.copied().unwrap_or_default()
    }

    fn link(
        &self,
        session: SessionId,
        link: &LinkStats,
        sent_sum: f64,
        ends: &[((SessionId, LinkId), Ends)],
    ) -> LinkStatus {
        let (tx_mbps, rx_mbps) = self.link_rates(session, link);
        let of_link = ends.iter().find(|(key, _)| *key == (session, link.id));
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
            ..LinkStatus::default()
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
                    "stats: link {}.{} {} {} ({}) share {:.0} % tx {:.1} rx {:.1} Mbit/s capacity {:.1} \
                     rtt p50 {:.1} p99 {:.1} ms loss tx {:.2} rx {:.2} %",
                    link.session,
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

fn sessions(snapshots: &[Snapshot]) -> impl Iterator<Item = (SessionId, &SessionStats)> {
    let peers = snapshots.iter().flat_map(|worker| &worker.endpoint.peers);
    peers.filter_map(|peer| Some((peer.id, peer.session.as_ref()?)))
}

fn worker((number, snapshot): (u32, &Snapshot)) -> WorkerStatus {
    let stats = &snapshot.datapath;
    let sessions = snapshot.endpoint.peers.iter();
    WorkerStatus {
        number,
        sessions: sessions.filter(|peer| peer.session.is_some()).count() as u64,
        submits: stats.submits,
        operations: stats.sqes,
        udp_sends: stats.sends,
        tun_reads: stats.tun_reads,
        tun_writes: stats.tun_writes,
        handed_over: snapshot.handed_over,
    }
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
