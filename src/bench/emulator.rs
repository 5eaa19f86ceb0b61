//! `chainlightning bench emulator`: the measuring instrument under test. How exact the emulated links' rates are when
//! all of them are full, what the emulator adds to their delay, and what it costs.
//!
//! Rates are counted by the receiver's program; the added delay twice: by echo requests over each idle link, which
//! include both kernels' own time, and by the emulator's own account of how late each frame left.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::plan::{Case, Direction, Link};
use super::table::ms;
use super::{complain, inside, load_average, show};
use crate::base::{Instant, Rate};
use crate::lab::traffic::ping::ping;
use crate::lab::traffic::{PingConfig, UdpConfig, UdpFlow};
use crate::lab::{LabError, Programs, Topology, Wan, pause};
use crate::sys::Clock;

/// Version of the JSON document.
const SCHEMA: u32 = 1;
/// How much more than a link carries is offered, so that it is full at every moment.
const OVERLOAD: f64 = 1.1;
/// Payload of a datagram whose IP packet has 1250 bytes: 10 000 bits.
const PAYLOAD_BYTES: usize = 1222;
const PACKET_BYTES: u64 = 1250;
/// IP packet of an echo request.
const ECHO_BYTES: u64 = 84;
/// How long queues take to fill at that overload, as a multiple of what is measured after it.
const FILL: Duration = Duration::from_secs(2);
const PING_EVERY: Duration = Duration::from_millis(10);

/// What is measured.
#[derive(Clone, Debug)]
pub struct EmulatorPlan {
    /// Over these links, all at once.
    pub links: Vec<Link>,
    /// How long each part lasts, in whole seconds.
    pub seconds: u64,
}

/// One link.
#[derive(Clone, Debug, Default, Serialize)]
struct LinkFigures {
    /// What it should carry.
    rate_mbps: f64,
    /// What arrived, as IP packets.
    measured_mbps: f64,
    /// The difference as a share.
    rate_error: f64,
    /// The round trip that it should take.
    rtt_ms: f64,
    /// What idle round trips took longer than that: median.
    added_p50_ms: f64,
    /// 99th percentile.
    added_p99_ms: f64,
    /// Most.
    added_max_ms: f64,
}

/// How late frames left, in microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct LateFigures {
    frames: u64,
    p50_us: u64,
    p99_us: u64,
    max_us: u64,
}

/// The result.
#[derive(Clone, Debug, Default, Serialize)]
struct Figures {
    schema: u32,
    links: Vec<LinkFigures>,
    late_idle: LateFigures,
    late_full: LateFigures,
    /// Share of a processor that the emulator took with all links full.
    cpu_share: f64,
    /// Frames that it could not pass on.
    drops: u64,
    load_average: String,
}

/// Measures and prints. `command_line` as for [`super::aggregation`].
pub fn emulator(plan: &EmulatorPlan, json: bool, command_line: &[OsString]) -> ExitCode {
    let directory = match inside(command_line, false) {
        Ok(directory) => directory,
        Err(code) => return code,
    };
    match measure(plan, directory) {
        Ok(figures) if json => {
            let text = serde_json::to_string_pretty(&figures).unwrap_or_default();
            show(&format!("{text}\n"));
            ExitCode::SUCCESS
        }
        Ok(figures) => {
            show(&table(&figures));
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

fn measure(plan: &EmulatorPlan, directory: PathBuf) -> Result<Figures, LabError> {
    let programs = Programs::this_program()?;
    let wan = |link: &Link| Wan {
        // Datagrams come from the server here, where a translator would know no client.
        nat: false,
        ..Wan::new("link", &link.words(Case::Default))
    };
    let wans = plan.links.iter().map(wan).collect();
    let mut figures = Figures {
        schema: SCHEMA,
        load_average: load_average(),
        ..Figures::default()
    };
    let mut lab = Topology::build(wans, &programs, directory)?;
    lab.emulator().stats()?;
    for (index, link) in plan.links.iter().enumerate() {
        figures.links.push(measure_idle(&lab, plan, link, index)?);
    }
    figures.late_idle = lateness(&lab.emulator().stats()?);
    measure_full(&mut lab, plan, &mut figures)?;
    Ok(figures)
}

fn measure_idle(
    lab: &Topology,
    plan: &EmulatorPlan,
    link: &Link,
    index: usize,
) -> Result<LinkFigures, LabError> {
    let count = usize::try_from(plan.seconds * 1000 / 10).unwrap_or(usize::MAX);
    let config = PingConfig {
        interval: PING_EVERY,
        ..PingConfig::new(lab.client(0), Topology::gateway_v4(index + 1), Some(count))
    };
    let report = ping(config)?;
    let one_way = |direction| {
        let spec = link.spec(direction);
        let serialised = spec.mean_rate().map(|rate| rate.time_for(ECHO_BYTES));
        spec.delay + serialised.unwrap_or_default()
    };
    let rtt = one_way(Direction::Up) + one_way(Direction::Down);
    let added = |share| (report.quantile(share).as_secs_f64() - rtt.as_secs_f64()) * 1e3;
    Ok(LinkFigures {
        rate_mbps: link.mbps(Direction::Down),
        rtt_ms: rtt.as_secs_f64() * 1e3,
        added_p50_ms: added(0.5),
        added_p99_ms: added(0.99),
        added_max_ms: added(1.0),
        ..LinkFigures::default()
    })
}

/// All links full from the server to the client.
fn measure_full(
    lab: &mut Topology,
    plan: &EmulatorPlan,
    figures: &mut Figures,
) -> Result<(), LabError> {
    let start = |(link, number): (&Link, usize)| {
        let rate = link.spec(Direction::Down).mean_rate().unwrap_or_default();
        UdpFlow::start(UdpConfig {
            from: lab.server().clone(),
            to: lab.client(0).clone(),
            target: (Topology::client_v4(number), 0).into(),
            rate: rate.mul_f64(OVERLOAD),
            bytes: PAYLOAD_BYTES,
        })
    };
    let flows = plan.links.iter().zip(1..).map(start);
    let flows: Vec<_> = flows.collect::<Result<_, _>>()?;
    pause(FILL);
    lab.emulator().stats()?;
    let (clock, cpu) = (Clock::start(), lab.emulator().cpu_time());
    let before: Vec<_> = flows.iter().map(UdpFlow::received).collect();
    pause(Duration::from_secs(plan.seconds));
    let after = flows.iter().map(UdpFlow::received);
    let counts: Vec<_> = after.zip(before).map(|(now, then)| now - then).collect();
    let time = clock.now().since(Instant::ZERO);
    let cpu = lab.emulator().cpu_time().saturating_sub(cpu);
    let stats = lab.emulator().stats()?;
    for flow in flows {
        flow.finish();
    }
    for (link, count) in figures.links.iter_mut().zip(counts) {
        link.measured_mbps = Rate::from_bytes_over(count * PACKET_BYTES, time).as_mbps();
        link.rate_error = link.measured_mbps / link.rate_mbps - 1.0;
    }
    figures.late_full = lateness(&stats);
    figures.cpu_share = cpu.as_secs_f64() / time.as_secs_f64();
    let wans = stats["wans"].as_array().map_or(&[][..], Vec::as_slice);
    let drops = wans.iter().filter_map(|wan| wan["send_drops"].as_u64());
    figures.drops = drops.sum::<u64>() + stats["oversize"].as_u64().unwrap_or(0);
    Ok(())
}

fn lateness(stats: &Value) -> LateFigures {
    let number = |key: &str| stats["late_us"][key].as_u64().unwrap_or(0);
    LateFigures {
        frames: number("frames"),
        p50_us: number("p50"),
        p99_us: number("p99"),
        max_us: number("max"),
    }
}

fn table(figures: &Figures) -> String {
    let mut text = String::from(
        "link  Mbit/s  measured    error  RTT ms  added when idle, ms: 50 % / 99 % / most\n",
    );
    for (link, number) in figures.links.iter().zip(1..) {
        let _ = writeln!(
            text,
            "{number:>4}  {:>6.1}  {:>8.3}  {:>+6.2}%  {:>6}  {:>20.3} / {:.3} / {:.3}",
            link.rate_mbps,
            link.measured_mbps,
            100.0 * link.rate_error,
            ms(link.rtt_ms),
            link.added_p50_ms,
            link.added_p99_ms,
            link.added_max_ms
        );
    }
    for (name, late) in [("idle", figures.late_idle), ("full", figures.late_full)] {
        let _ = writeln!(
            text,
            "{name}: {} frames left late by {} us (50 %), {} us (99 %), {} us (most)",
            late.frames, late.p50_us, late.p99_us, late.max_us
        );
    }
    let _ = writeln!(
        text,
        "full: {:.0} % of a processor, {} frames dropped; load average {} before",
        100.0 * figures.cpu_share,
        figures.drops,
        figures.load_average
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_every_link_and_fits() {
        let link = LinkFigures {
            rate_mbps: 100.0,
            measured_mbps: 99.87,
            rate_error: -0.0013,
            rtt_ms: 20.0,
            added_p50_ms: 0.212,
            added_p99_ms: 10.5,
            added_max_ms: 100.25,
        };
        let figures = Figures {
            links: vec![link; 3],
            late_full: lateness(
                &serde_json::json!({"late_us": {"frames": 85000, "p50": 110, "p99": 260, "max": 900}}),
            ),
            ..Figures::default()
        };
        let text = table(&figures);
        assert!(
            text.contains("   3   100.0    99.870   -0.13%    20.0"),
            "{text}"
        );
        assert!(text.contains("full: 85000 frames left late by 110 us (50 %), 260 us (99 %)"));
        assert!(
            text.lines().all(|line| line.chars().count() <= 90),
            "{text}"
        );
    }
}
