//! What happens when: the lab, one TCP connection, the biggest link dead at 40 % of the time and back at 65 %.

use std::path::PathBuf;
use std::time::Duration;

use super::report::{LinkTick, Phase, PingSummary, Report, Tick, WanReport};
use super::screen;
use crate::base::Rate;
use crate::lab::traffic::capture::{Capture, PlaintextSearch};
use crate::lab::traffic::ping::{PingConfig, PingReport, Pinger};
use crate::lab::traffic::{BulkConfig, BulkFlow, BulkReport};
use crate::lab::tunnel::{INNER_SERVER_V4, inner_client_v4};
use crate::lab::{LabError, Launch, Programs, Topology, Tunnel, TunnelSpec, Wan, pause};
use crate::status::Status;

/// Name, rate towards the client, specification, and what people are told.
const WANS: [(&str, f64, &str, &str); 3] = [
    (
        "fiber",
        100.0,
        "both delay=5ms down rate=100mbit up rate=50mbit",
        "5 ms each way",
    ),
    (
        "starlink",
        60.0,
        "both delay=25ms jitter=8ms loss=0.5% handover=15s/60ms-135ms@7s down rate=60mbit up rate=10mbit",
        "25 ms each way, jitter 8 ms, loss 0.5 %, silences of 60 to 135 ms",
    ),
    (
        "dsl",
        20.0,
        "both delay=15ms down rate=20mbit up rate=5mbit",
        "15 ms each way",
    ),
];
/// The link that dies: the biggest.
const VICTIM: usize = 0;
/// When it dies and returns, as parts of the whole time.
const DIES_AT: f64 = 0.40;
const RETURNS_AT: f64 = 0.65;
/// Left out of each phase: TCP's start and its growth after a link's return, and the death itself, which the stall
/// tells about.
const SETTLE: Duration = Duration::from_secs(2);
const SETTLE_AFTER_DEATH: Duration = Duration::from_millis(500);
/// Pings of the idle measurements.
const IDLE_PINGS: usize = 50;

/// Plays the whole scenario; `live` gets what a spectator should see.
///
/// # Errors
/// The lab cannot be built, or a program does not do its part.
pub(super) fn play(
    seconds: u64,
    directory: PathBuf,
    live: impl Fn(String),
) -> Result<Report, LabError> {
    let reports = WANS.map(|(name, rate_mbps, _, character)| WanReport {
        name,
        rate_mbps,
        character,
    });
    let mut report = Report::new(reports.into());
    live(screen::introduction(seconds, &report.wans));
    let programs = programs()?;
    let wans = WANS
        .iter()
        .map(|(name, _, spec, _)| Wan::new(name, spec))
        .collect();
    let mut lab = Topology::build(wans, &programs, directory)?;
    let tunnel = Tunnel::start_and_wait(&lab, &programs, &TunnelSpec::default())?;
    measure_idle(&lab, &mut report)?;
    // From here on nothing but the tunnel's own datagrams may pass the links.
    let capture = Capture::start(
        lab.outside(),
        &lab.devices(),
        PlaintextSearch::default(),
        |search, _, frame| {
            search.look(frame);
        },
    )?;
    live(screen::head(&report.wans));
    let client = lab.client(0).clone();
    let loaded = PingConfig {
        interval: Duration::from_millis(50),
        ..PingConfig::new(&client, INNER_SERVER_V4, None)
    };
    let pinger = Pinger::start(loaded)?;
    let flow = BulkFlow::start(&BulkConfig {
        from: lab.server().clone(),
        to: client,
        target: (inner_client_v4(0), 0).into(),
        congestion: "cubic",
        verify: false,
    })?;
    let mut run = Run {
        tunnel: &tunnel,
        flow,
        delivered: 0,
        repaired: 0,
        report: &mut report,
    };
    let total = Duration::from_secs(seconds);
    let events = [
        (total.mul_f64(DIES_AT), true),
        (total.mul_f64(RETURNS_AT), false),
    ];
    run.watch(seconds, &mut lab, events, &live)?;
    let flow = run.flow.finish();
    let ended = [total.mul_f64(DIES_AT), total.mul_f64(RETURNS_AT), total];
    conclude(&mut report, &flow, ended);
    report.ping_loaded = summary(&pinger.finish());
    account(&tunnel, &mut report)?;
    drop(tunnel);
    let search = capture.finish()?;
    (report.packets_captured, report.packets_with_plaintext) = (search.frames, search.found);
    Ok(report)
}

/// The daemons and the emulator are this very program, under other names.
fn programs() -> Result<Programs, LabError> {
    Ok(Programs {
        wanem: Launch::this_program("__wanem")?,
        client: Launch::this_program("__client")?,
        server: Launch::this_program("__server")?,
    })
}

/// Fills in what the daemons tell at the end.
fn account(tunnel: &Tunnel, report: &mut Report) -> Result<(), LabError> {
    let client = tunnel.client_status(0)?;
    for fec in client.peers.iter().map(|peer| &peer.fec) {
        report.recovered_by_fec += fec.recovered;
        report.sent_again += fec.retransmitted;
        report.unrecoverable += fec.unrecoverable;
    }
    let server = tunnel.server_status()?;
    report.cipher = server
        .peers
        .first()
        .map(|peer| peer.cipher.clone())
        .unwrap_or_default();
    report.engine = server.engine.tier;
    Ok(())
}

/// Round-trip times with nothing else on the way: over the best WAN alone, and through the tunnel.
fn measure_idle(lab: &Topology, report: &mut Report) -> Result<(), LabError> {
    let client = lab.client(0);
    let start = |target| {
        let config = PingConfig::new(client, target, Some(IDLE_PINGS));
        Pinger::start(PingConfig {
            interval: Duration::from_millis(20),
            ..config
        })
    };
    let direct = start(Topology::gateway_v4(VICTIM + 1))?;
    let tunnel = start(INNER_SERVER_V4)?;
    report.ping_direct = summary(&direct.finish());
    report.ping_idle = summary(&tunnel.finish());
    Ok(())
}

/// The connection while it runs.
struct Run<'a> {
    tunnel: &'a Tunnel,
    flow: BulkFlow,
    /// Bytes at the last look.
    delivered: u64,
    /// Symbols repaired at the last look.
    repaired: u64,
    report: &'a mut Report,
}

impl Run<'_> {
    /// Looks once a second, and lets the events happen in between at their own instants.
    fn watch(
        &mut self,
        seconds: u64,
        lab: &mut Topology,
        events: [(Duration, bool); 2],
        live: &impl Fn(String),
    ) -> Result<(), LabError> {
        let mut events = events.into_iter().peekable();
        for second in 1..=seconds {
            let mut happened = None;
            let end = Duration::from_secs(second);
            while let Some((at, dies)) = events.next_if(|(at, _)| *at < end) {
                pause(at.saturating_sub(self.flow.elapsed()));
                let number = VICTIM + 1;
                let switch = if dies { "outage" } else { "outage=off" };
                lab.emulator().command(&format!("{number} both {switch}"))?;
                let what = if dies {
                    "swallows every packet from here on"
                } else {
                    "works again"
                };
                happened = Some(format!(
                    "{} {what} ({:.1} s)",
                    WANS[VICTIM].0,
                    at.as_secs_f64()
                ));
            }
            pause(end.saturating_sub(self.flow.elapsed()));
            let tick = self.look(second, happened);
            live(screen::row(&tick));
            self.report.ticks.push(tick);
        }
        Ok(())
    }

    fn look(&mut self, second: u64, event: Option<String>) -> Tick {
        let delivered = self.flow.delivered();
        let bytes = delivered - std::mem::replace(&mut self.delivered, delivered);
        let repaired = self
            .tunnel
            .client_status(0)
            .map_or(self.repaired, |status| {
                status
                    .peers
                    .iter()
                    .map(|peer| peer.fec.recovered + peer.fec.retransmitted)
                    .sum()
            });
        let new = repaired.saturating_sub(std::mem::replace(&mut self.repaired, repaired));
        let goodput_mbps = Rate::from_bytes_over(bytes, Duration::from_secs(1)).as_mbps();
        // A daemon that is too busy to answer in time leaves a gap in the table, not an end of the demonstration.
        let links = self
            .tunnel
            .server_status()
            .map(|status| links_of(&status))
            .unwrap_or_default();
        let links = if links.is_empty() {
            vec![LinkTick::default(); WANS.len()]
        } else {
            links
        };
        Tick {
            second,
            links,
            goodput_mbps,
            repaired: new,
            event,
        }
    }
}

/// The server's view of each WAN, its links taken together: the connection flows from the server to the client.
fn links_of(status: &Status) -> Vec<LinkTick> {
    let wan_tick = |wan: usize| {
        let links = status.peers.iter().flat_map(|peer| &peer.links);
        let mut tick = LinkTick::default();
        for link in links.filter(|link| usize::from(link.wan) == wan) {
            if tick.state != "up" {
                tick.state.clone_from(&link.state);
            }
            tick.mbps += link.tx_mbps;
            tick.share += link.share;
            tick.rtt_p50_ms = tick.rtt_p50_ms.max(link.rtt_ms.p50);
            tick.rtt_p99_ms = tick.rtt_p99_ms.max(link.rtt_ms.p99);
            tick.loss_ratio = tick.loss_ratio.max(link.loss_ratio_tx);
        }
        tick
    };
    (0..WANS.len()).map(wan_tick).collect()
}

/// Fills in what the finished connection tells.
fn conclude(report: &mut Report, flow: &BulkReport, [dies, returns, end]: [Duration; 3]) {
    let all: f64 = WANS.iter().map(|(_, rate, _, _)| rate).sum();
    let victim = WANS[VICTIM];
    let mut phase = |name: String, from: Duration, to: Duration, links_mbps| {
        report.phases.push(Phase {
            name,
            from_s: from.as_secs_f64(),
            to_s: to.as_secs_f64(),
            goodput_mbps: flow.goodput(from, to).as_mbps(),
            links_mbps,
        });
    };
    phase("all three links".into(), SETTLE, dies, all);
    phase(
        format!("without {}", victim.0),
        dies + SETTLE_AFTER_DEATH,
        returns,
        all - victim.1,
    );
    phase(format!("{} is back", victim.0), returns + SETTLE, end, all);
    let best = WANS.iter().map(|(_, rate, _, _)| *rate).fold(0.0, f64::max);
    report.gain_over_best_link = report.phases[0].goodput_mbps / best;
    report.stall_ms = flow.stall.as_secs_f64() * 1e3;
    report.stall_at_s = flow.stall_at.as_secs_f64();
    report.tcp_resets = u32::from(flow.reset || flow.error.is_some());
    report.tcp_retransmits = flow.info.retransmits;
}

fn summary(report: &PingReport) -> PingSummary {
    PingSummary {
        sent: report.sent,
        lost: report.lost(),
        p50_ms: report.quantile(0.5).as_secs_f64() * 1e3,
        p99_ms: report.quantile(0.99).as_secs_f64() * 1e3,
    }
}
