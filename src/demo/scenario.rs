//! The demonstration from its first namespace to its last figure.

use std::path::PathBuf;
use std::time::Duration;

use super::plan::{BEST, Plan, WANS, sum_mbps};
use super::report::{Phase, PingSummary, Report};
use super::screen;
use super::watch::{Watch, repairs_of};
use crate::base::Instant;
use crate::lab::traffic::capture::{Capture, PlaintextSearch};
use crate::lab::traffic::ping::{PingConfig, Pinger, ping};
use crate::lab::traffic::{BulkConfig, BulkFlow, BulkReport};
use crate::lab::tunnel::{INNER_SERVER_V4, inner_client_v4};
use crate::lab::{LabError, Programs, Topology, Tunnel, TunnelSpec, Wan, pause};
use crate::sys::Clock;

/// How long TCP runs over the best WAN alone, and from when on it counts: it has found its rate by then.
const ALONE: Duration = Duration::from_secs(3);
const ALONE_SETTLED: Duration = Duration::from_secs(1);
/// Pings of each idle measurement: one second.
const IDLE_PINGS: usize = 50;
const IDLE_PING_EVERY: Duration = Duration::from_millis(20);
/// Pings beside the connection: enough for a 99th percentile, too few to matter.
const LOADED_PING_EVERY: Duration = Duration::from_millis(50);

/// Plays the whole scenario; `live` gets what a spectator should see.
///
/// # Errors
/// The lab cannot be built, or a program does not do its part.
pub(super) fn play(
    plan: Plan,
    directory: PathBuf,
    live: impl Fn(String),
) -> Result<Report, LabError> {
    let mut report = Report::new(plan.seconds);
    live(screen::introduction(&report));
    let programs = Programs::this_program()?;
    let wans = WANS
        .iter()
        .map(|wan| Wan::new(wan.name, wan.spec))
        .collect();
    let mut lab = Topology::build(wans, &programs, directory)?;
    measure_alone(&lab, &mut report)?;
    live(screen::alone(&report));
    let tunnel = start_tunnel(&lab, &programs, &mut report)?;
    measure_idle(&lab, &mut report)?;
    live(screen::up(&report));
    live(screen::head());
    run_connection(&mut lab, &tunnel, plan, &mut report, &live)?;
    report.judge();
    Ok(report)
}

fn search_links(lab: &Topology) -> Result<Capture<PlaintextSearch>, LabError> {
    let search = PlaintextSearch::default();
    Capture::start(lab.outside(), &lab.devices(), search, |search, _, frame| {
        search.look(frame);
    })
}

/// One connection from the server to the client at `target`.
fn start_flow(lab: &Topology, target: std::net::Ipv4Addr) -> Result<BulkFlow, LabError> {
    BulkFlow::start(&BulkConfig {
        from: lab.server().clone(),
        to: lab.client(0).clone(),
        target: (target, 0).into(),
        congestion: "cubic",
        verify: true,
    })
}

/// TCP over the best WAN before there is a tunnel. It is readable on the link, which shows that the search works.
fn measure_alone(lab: &Topology, report: &mut Report) -> Result<(), LabError> {
    let capture = search_links(lab)?;
    let flow = start_flow(lab, Topology::client_v4(BEST + 1))?;
    pause(ALONE.saturating_sub(flow.elapsed()));
    let flow = flow.finish();
    if let Some(error) = flow.error {
        let name = WANS[BEST].name;
        return Err(LabError::Program(format!("TCP over {name} alone: {error}")));
    }
    report.best_link_mbps = flow.goodput(ALONE_SETTLED, ALONE).as_mbps();
    let search = capture.finish()?;
    report.control_packets = search.frames;
    report.control_packets_with_plaintext = search.found;
    Ok(())
}

/// Starts both programs and waits until every link is up on both sides.
fn start_tunnel(
    lab: &Topology,
    programs: &Programs,
    report: &mut Report,
) -> Result<Tunnel, LabError> {
    let clock = Clock::start();
    let tunnel = Tunnel::start_and_wait(lab, programs, &TunnelSpec::default())?;
    tunnel.wait_links_up(WANS.len())?;
    report.up_after_ms = clock.now().since(Instant::ZERO).as_secs_f64() * 1e3;
    let mut status = tunnel.server_status()?;
    let peer = status.peers.drain(..).next();
    report.cipher = peer.map(|peer| peer.cipher).unwrap_or_default();
    report.engine = status.engine.tier;
    report.engine_reason = status.engine.reason;
    Ok(tunnel)
}

/// Round-trip times with nothing else on the way: over the best WAN alone, and through the tunnel, one after the
/// other, so that neither waits for the other's packets on the best WAN.
fn measure_idle(lab: &Topology, report: &mut Report) -> Result<(), LabError> {
    let measure = |target| {
        let config = PingConfig::new(lab.client(0), target, Some(IDLE_PINGS));
        let config = PingConfig {
            interval: IDLE_PING_EVERY,
            ..config
        };
        ping(config).map(|answers| PingSummary::from(&answers))
    };
    report.ping_direct = measure(Topology::gateway_v4(BEST + 1))?;
    report.ping_idle = measure(INNER_SERVER_V4)?;
    Ok(())
}

/// The connection itself, with pings beside it and an ear on every link.
fn run_connection(
    lab: &mut Topology,
    tunnel: &Tunnel,
    plan: Plan,
    report: &mut Report,
    live: &impl Fn(String),
) -> Result<(), LabError> {
    let before = repairs_of(&tunnel.client_status(0)?);
    // From here on nothing but the tunnel's own datagrams may pass the links.
    let capture = search_links(lab)?;
    let pings = PingConfig::new(lab.client(0), INNER_SERVER_V4, None);
    let pinger = Pinger::start(PingConfig {
        interval: LOADED_PING_EVERY,
        ..pings
    })?;
    let flow = start_flow(lab, inner_client_v4(0))?;
    report.ticks = Watch::new(tunnel, &flow).run(plan, lab, live)?;
    conclude(report, &flow.finish(), plan);
    report.ping_loaded = (&pinger.finish()).into();
    report.repairs = repairs_of(&tunnel.client_status(0)?).since(before);
    let search = capture.finish()?;
    report.packets_captured = search.frames;
    report.packets_with_plaintext = search.found;
    Ok(())
}

/// Fills in what the finished connection tells.
fn conclude(report: &mut Report, flow: &BulkReport, plan: Plan) {
    let (all, best) = (sum_mbps(), WANS[BEST]);
    let phases = [
        ("with all links".to_owned(), plan.steady(), all),
        (
            format!("without {}", best.name),
            plan.outage(),
            all - best.rate_mbps,
        ),
        (format!("with {} back", best.name), plan.back(), all),
    ];
    report.phases = phases
        .into_iter()
        .map(|(name, (from, to), links_mbps)| Phase {
            name,
            from_s: from.as_secs_f64(),
            to_s: to.as_secs_f64(),
            goodput_mbps: flow.goodput(from, to).as_mbps(),
            links_mbps,
        })
        .collect();
    let (at, stall) = flow.longest_gap(Duration::ZERO, plan.end());
    report.stall_ms = stall.as_secs_f64() * 1e3;
    report.stall_at_s = at.as_secs_f64();
    report.tcp_resets = u32::from(flow.reset || flow.error.is_some());
    report.tcp_retransmits = flow.info.retransmits;
    report.corrupted = flow.corrupted;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_finished_connection_fills_in_every_phase() {
        let plan = Plan { seconds: 20 };
        // 125 kB in each 10 ms are 100 Mbit/s; half of it while the link is dead, and nothing for 120 ms.
        let mut samples = vec![125_000; 2000];
        samples[800..1300].fill(62_500);
        samples[801..813].fill(0);
        let flow = BulkReport {
            samples,
            ..BulkReport::default()
        };
        let mut report = Report::new(20);
        conclude(&mut report, &flow, plan);
        let goodput: Vec<_> = report
            .phases
            .iter()
            .map(|phase| (phase.goodput_mbps.round(), phase.links_mbps))
            .collect();
        assert_eq!(goodput, [(100.0, 180.0), (49.0, 80.0), (100.0, 180.0)]);
        assert!((report.stall_ms - 120.0).abs() < 1e-6);
        assert!((report.stall_at_s - 8.01).abs() < 1e-6);
        assert_eq!(report.tcp_resets, 0);
    }
}
