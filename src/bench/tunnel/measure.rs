//! From traffic on a stage to figures.

use std::time::Duration;

use super::plan::{LOSS_MAX, Load, Plan};
use super::report::{EngineFigures, Measurement, PacketFigures, ProgramFigures};
use super::search::{Search, Verdict};
use super::stage::Stage;
use super::{IDLE_PINGS, TUN_MTU};
use crate::base::Instant;
use crate::bench::plan::Direction;
use crate::lab::traffic::flood::UNLIMITED;
use crate::lab::traffic::ping::ping;
use crate::lab::traffic::{BulkFlow, Flood, FloodTrial};
use crate::lab::{LabError, pause};
use crate::status::Status;
use crate::sys::Clock;

/// What a trial of small packets runs before it counts: rate control and queues settle.
const TRIAL_SETTLE: Duration = Duration::from_millis(400);
/// How long a trial of the search counts.
const TRIAL: Duration = Duration::from_millis(800);
/// A rate that passed a short trial may fail a long one. It then falls by this part of itself...
const CONFIRMATION_STEP: u64 = 6;
/// ... so often at most: to a tenth of it, because queues of thousands of packets make a short trial kind.
const CONFIRMATIONS_MAX: u32 = 13;
/// IPv4 and TCP headers with timestamps, for the number of segments when the kernel does not tell their size.
const HEADERS: u32 = 52;
const MEGABYTE: f64 = 1e6;

/// Measures one contender in one direction.
///
/// # Errors
/// A connection does not come up, or the lab fails.
pub(super) fn measure(
    plan: &Plan,
    direction: Direction,
    stage: &Stage,
) -> Result<Measurement, LabError> {
    let ping_idle = (&ping(stage.pings(IDLE_PINGS))?).into();
    let idle_shares = idle(stage, Duration::from_secs(plan.idle));
    let mut measurement = match plan.load {
        Load::Tcp => tcp(plan, direction, stage)?,
        Load::Udp { bytes } => udp(plan, direction, stage, bytes)?,
    };
    measurement.ping_idle = ping_idle;
    let programs = [&mut measurement.client, &mut measurement.server];
    for (program, share) in programs.into_iter().zip(idle_shares) {
        if let Some(program) = program {
            program.idle_cpu_share = share;
        }
    }
    Ok(measurement)
}

/// Parts of a processor that client and server take while nothing flows.
fn idle(stage: &Stage, time: Duration) -> [f64; 2] {
    let Some((client, server)) = stage.processes() else {
        return [0.0; 2];
    };
    let run = || [client.run_time(), server.run_time()];
    let (clock, before) = (Clock::start(), run());
    pause(time);
    let (elapsed, after) = (clock.now().since(Instant::ZERO), run());
    let share = |index: usize| {
        after[index].saturating_sub(before[index]).as_secs_f64() / elapsed.as_secs_f64().max(1e-9)
    };
    [share(0), share(1)]
}

/// Counters of the contender at one moment.
struct Snapshot {
    cpu: [Duration; 2],
    status: Option<[Status; 2]>,
}

impl Snapshot {
    fn take(stage: &Stage) -> Self {
        let cpu = stage
            .processes()
            .map(|(client, server)| [client.cpu_time(), server.cpu_time()]);
        Self {
            cpu: cpu.unwrap_or_default(),
            status: stage.status(),
        }
    }
}

fn tcp(plan: &Plan, direction: Direction, stage: &Stage) -> Result<Measurement, LabError> {
    let sender = Stage::sender(direction);
    let start = || BulkFlow::over(stage.dial().connect()?, sender, "cubic", false);
    let flows: Vec<_> = (0..plan.flows).map(|_| start()).collect::<Result<_, _>>()?;
    let delivered = || flows.iter().map(BulkFlow::delivered).sum::<u64>();
    let again = || {
        let paths = flows.iter().flat_map(BulkFlow::paths);
        paths.map(|path| path.info.retransmits).sum::<u32>()
    };
    pause(Duration::from_secs(plan.warmup));
    let (before, again_before) = (Snapshot::take(stage), again());
    let (clock, bytes_before) = (Clock::start(), delivered());
    pause(plan.seconds());
    let bytes = delivered() - bytes_before;
    let time = clock.now().since(Instant::ZERO);
    let (after, again_after) = (Snapshot::take(stage), again());
    let segment = flows
        .first()
        .and_then(|flow| Some(flow.paths().first()?.info.segment_bytes));
    let segment = segment
        .filter(|&bytes| bytes > 0)
        .unwrap_or(u32::from(TUN_MTU) - HEADERS);
    let packets = bytes / u64::from(segment);
    let mut measurement = figures(stage, &before, &after, bytes, packets, time);
    measurement.retransmits = again_after.saturating_sub(again_before);
    for flow in flows {
        measurement.error = measurement.error.or(flow.finish().error);
    }
    Ok(measurement)
}

fn udp(
    plan: &Plan,
    direction: Direction,
    stage: &Stage,
    bytes: usize,
) -> Result<Measurement, LabError> {
    let mut flood = Flood::start(&stage.flood(direction, bytes, plan.flows))?;
    let warmup = Duration::from_secs(plan.warmup);
    let flooded = flood
        .trial(UNLIMITED, warmup, TRIAL, || {})
        .delivered_rate();
    let mut search = Search::new(flooded, LOSS_MAX);
    while let Some(rate) = search.next() {
        let trial = flood.trial(rate, TRIAL_SETTLE, TRIAL, || {});
        search.on_trial(Verdict {
            loss: trial.loss(),
            delivered: trial.delivered_rate(),
        });
    }
    let mut rate = search.best();
    let (mut trial, mut snapshots) = (FloodTrial::default(), Vec::new());
    for _ in 0..CONFIRMATIONS_MAX {
        snapshots.clear();
        let take = || snapshots.push(Snapshot::take(stage));
        trial = flood.trial(rate, TRIAL_SETTLE, plan.seconds(), take);
        if trial.loss() <= LOSS_MAX {
            break;
        }
        rate -= rate / CONFIRMATION_STEP;
    }
    let FloodTrial { received, time, .. } = trial;
    let mut measurement = match &snapshots[..] {
        [before, after] => figures(
            stage,
            before,
            after,
            received * bytes as u64,
            received,
            time,
        ),
        _ => Measurement::default(),
    };
    #[allow(clippy::cast_precision_loss)] // counts stay far below 2^53
    let offered_per_s = trial.sent as f64 / time.as_secs_f64();
    measurement.packets = Some(PacketFigures {
        offered_per_s,
        loss: trial.loss(),
        flooded_per_s: flooded,
    });
    Ok(measurement)
}

/// What two snapshots tell about `bytes` of payload in `packets` inner packets.
#[allow(clippy::cast_precision_loss)] // counts stay far below 2^53
fn figures(
    stage: &Stage,
    before: &Snapshot,
    after: &Snapshot,
    bytes: u64,
    packets: u64,
    time: Duration,
) -> Measurement {
    let programs = stage.processes().map(|(client, server)| {
        [client, server].map(|process| {
            let memory = process.memory();
            ProgramFigures {
                resident_mb: memory.resident as f64 / MEGABYTE,
                anonymous_mb: memory.anonymous as f64 / MEGABYTE,
                peak_mb: memory.peak as f64 / MEGABYTE,
                ..ProgramFigures::default()
            }
        })
    });
    let mut programs = programs.map_or([None; 2], |both| both.map(Some));
    for (index, program) in programs.iter_mut().enumerate() {
        if let Some(program) = program {
            let cpu = after.cpu[index].saturating_sub(before.cpu[index]);
            program.cpu_s = cpu.as_secs_f64();
        }
    }
    let seconds = time.as_secs_f64();
    let mut measurement = Measurement {
        packets_per_s: packets as f64 / seconds,
        client: programs[0],
        server: programs[1],
        engine: match (&before.status, &after.status) {
            (Some(before), Some(after)) => Some(engine(before, after, packets)),
            _ => None,
        },
        ..Measurement::default()
    };
    measurement.derive(bytes, seconds);
    measurement
}

/// What both programs counted in between.
#[allow(clippy::cast_precision_loss)] // counts stay far below 2^53
fn engine(before: &[Status; 2], after: &[Status; 2], packets: u64) -> EngineFigures {
    let between = |of: &dyn Fn(&Status) -> u64| {
        let sum = |both: &[Status; 2]| both.iter().map(of).sum::<u64>();
        sum(after).saturating_sub(sum(before))
    };
    let ratio = |a: u64, b: u64| a as f64 / b.max(1) as f64;
    let links = |status: &Status, of: &dyn Fn(&crate::status::LinkStatus) -> u64| {
        let all = status.peers.iter().flat_map(|peer| &peer.links);
        all.map(of).sum::<u64>()
    };
    let datagrams = between(&|status| links(status, &|link| link.tx_datagrams));
    let submits = between(&|status| status.engine.submits);
    let drops = |status: &Status| {
        let peers = status.peers.iter().flat_map(|peer| peer.drops.values());
        peers.chain(status.drops.values()).sum::<u64>()
    };
    let again = |status: &Status| status.peers.iter().map(|peer| peer.fec.retransmitted).sum();
    let repair = |status: &Status| status.peers.iter().map(|peer| peer.fec.repair_sent).sum();
    EngineFigures {
        datagrams_per_send: ratio(datagrams, between(&|status| status.engine.udp_sends)),
        datagrams_per_packet: ratio(datagrams, packets),
        operations_per_submit: ratio(between(&|status| status.engine.operations), submits),
        submits_per_packet: ratio(submits, packets),
        repair_share: ratio(between(&repair), datagrams),
        symbols_again: between(&again),
        drops: between(&drops),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{EngineStatus, FecStatus, LinkStatus, PeerStatus};

    #[test]
    fn engine_figures_are_differences_of_both_programs() {
        let status = |times: u64| Status {
            engine: EngineStatus {
                submits: 10 * times,
                operations: 40 * times,
                udp_sends: 5 * times,
                ..EngineStatus::default()
            },
            peers: vec![PeerStatus {
                links: vec![
                    LinkStatus {
                        tx_datagrams: 100 * times,
                        ..LinkStatus::default()
                    };
                    2
                ],
                fec: FecStatus {
                    repair_sent: 2 * times,
                    ..FecStatus::default()
                },
                drops: [("late".to_owned(), times)].into(),
                ..PeerStatus::default()
            }],
            ..Status::default()
        };
        let figures = engine(&[status(1), status(2)], &[status(3), status(4)], 80);
        assert!((figures.datagrams_per_send - 40.0).abs() < 1e-9);
        assert!((figures.datagrams_per_packet - 10.0).abs() < 1e-9);
        assert!((figures.repair_share - 0.01).abs() < 1e-9);
        assert!((figures.operations_per_submit - 4.0).abs() < 1e-9);
        assert!((figures.submits_per_packet - 0.5).abs() < 1e-9);
        assert_eq!((figures.drops, figures.symbols_again), (4, 0));
    }
}
