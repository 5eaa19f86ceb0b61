//! `chainlightning bench core`, `bench fec`, `bench crypto`: what the tunnel costs without the kernel.
//!
//! Single steps of the packet path, and whole sessions under load: real keys, real FEC, virtual time, memory between the
//! two ends. Times are processor time of the measuring thread, so that other work on the machine does not count; it still
//! takes cache and clock away. Medians of many takes.

pub mod cost;
pub mod frames;
pub mod pair;
pub mod road;
mod stages;
mod text;

use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use serde::Serialize;

use super::{complain, load_average, show};
use crate::crypto::Cipher;
use crate::fec::protection::Mode as FecMode;
use crate::sys::Clock;
use cost::{Cost, nanos};
use road::{Load, Road, Traffic};
use stages::{Code, Stage};

/// Version of the JSON documents.
const SCHEMA: u32 = 1;
/// Virtual time of one take of a load.
const TAKE: Duration = Duration::from_millis(10);
/// Ten sources and three repair symbols, whatever is lost.
const FIXED: FecMode = FecMode::Fixed {
    source_count: 10,
    repair_count: 3,
};
/// Packets a second: 3.4 Gbit/s of full ones.
const FAST: u64 = 300_000;

/// The loads of a session.
pub const LOADS: [Load; 9] = [
    load("1400", Traffic::Udp(1400), pair::ADAPTIVE),
    load("1400-off", Traffic::Udp(1400), FecMode::Off),
    load("1400-fixed", Traffic::Udp(1400), FIXED),
    load("tso", Traffic::Superframes, pair::ADAPTIVE),
    load("tso-fixed", Traffic::Superframes, FIXED),
    Load {
        lose_each: 50,
        ..load("tso-loss", Traffic::Superframes, pair::ADAPTIVE)
    },
    load("200", Traffic::Udp(200), pair::ADAPTIVE),
    load("ack", Traffic::Acks, pair::ADAPTIVE),
    Load {
        packets_per_s: 12_000,
        links: 6,
        lose_each: 50,
        ..load("slow-loss", Traffic::Superframes, pair::ADAPTIVE)
    },
];

/// Shapes of groups: sources, repair symbols, rows that the code could have.
const GROUPS: [(usize, usize, usize); 9] = [
    (4, 1, 1),
    (4, 1, 16),
    (10, 3, 3),
    (10, 3, 16),
    (20, 4, 4),
    (48, 7, 7),
    (48, 7, 16),
    (96, 4, 16),
    (96, 9, 32),
];

/// Lengths of datagrams: a heartbeat with its report, a full one, one of jumbo frames.
const DATAGRAMS: [usize; 3] = [140, 1472, 8972];

const fn load(name: &'static str, traffic: Traffic, fec: FecMode) -> Load {
    Load {
        name,
        links: 3,
        fec,
        traffic,
        packets_per_s: FAST,
        lose_each: 0,
    }
}

/// What is measured, and how.
#[derive(Clone, Debug)]
pub struct CorePlan {
    /// Names of loads; none = all.
    pub loads: Vec<String>,
    /// Processor time for each figure.
    pub seconds: f64,
    /// Threads that carry the same load at once, each with sessions of its own.
    pub threads: usize,
    /// One JSON document instead of tables.
    pub json: bool,
}

/// Figures of a session under load.
#[derive(Clone, Debug, Serialize)]
pub struct LoadFigures {
    /// Name of the load.
    pub name: &'static str,
    /// Links of the session.
    pub links: u8,
    /// Inner bytes of a packet.
    pub packet_bytes: u64,
    /// Of the sender, a packet.
    pub send: Cost,
    /// Of the receiver, a packet.
    pub receive: Cost,
    /// Datagrams for each packet.
    pub datagrams_per_packet: f64,
    /// Packets that arrived in the measured part, of those that were sent in it.
    pub arrived: f64,
    /// Packets that go through both ends in a second in which each thread has a core to itself, all threads together.
    pub packets_per_s: f64,
}

/// All figures of `bench core`.
#[derive(Clone, Debug, Serialize)]
pub struct CoreFigures {
    schema: u32,
    threads: usize,
    /// Load average before and after.
    load_average: [String; 2],
    stages: Vec<Stage>,
    loads: Vec<LoadFigures>,
}

/// Measures and prints `bench core`.
pub fn core(plan: &CorePlan) -> ExitCode {
    let span = Duration::from_secs_f64(plan.seconds);
    let before = load_average();
    let stages = if plan.loads.is_empty() {
        stages::of_a_packet(span / 5)
    } else {
        Vec::new()
    };
    let wanted = |load: &&Load| plan.loads.is_empty() || plan.loads.iter().any(|n| n == load.name);
    let mut loads = Vec::new();
    for load in LOADS.iter().filter(wanted) {
        match on_threads(*load, plan.threads, span) {
            Some(figures) => loads.push(figures),
            None => complain(&format!("{}: a thread failed", load.name)),
        }
    }
    let figures = CoreFigures {
        schema: SCHEMA,
        threads: plan.threads,
        load_average: [before, load_average()],
        stages,
        loads,
    };
    print(&figures, plan.json, text::core)
}

/// Measures and prints `bench fec`.
pub fn fec(seconds: f64, json: bool) -> ExitCode {
    let span = Duration::from_secs_f64(seconds);
    let codes = GROUPS.map(|(k, r, rows)| stages::code(k, r, rows, span));
    print(&codes.to_vec(), json, |codes: &Vec<Code>| text::fec(codes))
}

/// Measures and prints `bench crypto`.
pub fn crypto(seconds: f64, json: bool) -> ExitCode {
    let span = Duration::from_secs_f64(seconds);
    let ciphers = [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305];
    let of = |cipher| DATAGRAMS.map(|bytes| stages::seal_and_open(cipher, bytes, span));
    let stages: Vec<Stage> = ciphers.into_iter().flat_map(of).flatten().collect();
    print(&stages, json, |stages: &Vec<Stage>| text::stages(stages))
}

fn print<T: Serialize>(figures: &T, json: bool, text: impl Fn(&T) -> String) -> ExitCode {
    if !json {
        show(&text(figures));
        return ExitCode::SUCCESS;
    }
    match serde_json::to_string_pretty(figures) {
        Ok(document) => {
            show(&(document + "\n"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// The same load on several threads at once; costs are those of the first one.
fn on_threads(load: Load, threads: usize, span: Duration) -> Option<LoadFigures> {
    let spawn = |_| thread::spawn(move || under(load, span));
    let running: Vec<_> = (0..threads.max(1)).map(spawn).collect();
    let mut all = None::<LoadFigures>;
    for thread in running {
        let figures = thread.join().ok()?;
        all = Some(match all {
            Some(mut first) => {
                first.packets_per_s += figures.packets_per_s;
                first
            }
            None => figures,
        });
    }
    all
}

/// Measures a session under load, for about `span`.
pub fn under(load: Load, span: Duration) -> LoadFigures {
    let mut road = Road::new(load);
    let (mut sending, mut receiving) = (Vec::new(), Vec::new());
    let (mut packets, mut datagrams, mut both) = (0.0, 0, Duration::ZERO);
    road.warm_up();
    let (clock, offered) = (Clock::start(), road.offered_packets());
    while clock.now().since(crate::base::Instant::ZERO) < span || sending.len() < 50 {
        let spent = road.pass(TAKE);
        packets += spent.packets;
        datagrams += spent.datagrams;
        both += spent.sending + spent.receiving;
        if spent.packets > 0.0 {
            sending.push(nanos(spent.sending) / spent.packets);
            receiving.push(nanos(spent.receiving) / spent.packets);
        }
    }
    let offered = road.offered_packets() - offered;
    let none = f64::MIN_POSITIVE;
    LoadFigures {
        name: load.name,
        links: load.links,
        packet_bytes: road.packet_bytes(),
        send: Cost::of(sending),
        receive: Cost::of(receiving),
        datagrams_per_packet: ratio(datagrams) / packets.max(none),
        arrived: packets / ratio(offered).max(none),
        packets_per_s: packets / both.as_secs_f64().max(none),
    }
}

/// A count as a number.
#[allow(clippy::cast_precision_loss)] // counts of packets of a bench
const fn ratio(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_load_comes_through_and_is_measured() {
        for load in LOADS {
            let figures = under(
                Load {
                    packets_per_s: load.packets_per_s / 20,
                    ..load
                },
                Duration::ZERO,
            );
            assert!(
                figures.arrived > 0.9 && figures.arrived < 1.1,
                "{figures:?}"
            );
            assert!(figures.send.median_ns > 0.0 && figures.receive.median_ns > 0.0);
        }
    }

    #[test]
    fn tables_and_documents_have_a_line_for_each_figure() {
        let code = stages::code(4, 2, 16, Duration::ZERO);
        assert!(text::fec(&[code]).contains("4+2 of 16"));
        let stages = stages::of_a_packet(Duration::ZERO);
        let table = text::stages(&stages);
        assert!(stages.iter().all(|stage| table.contains(&stage.step)));
        assert!(
            table.lines().all(|line| line.chars().count() <= 80),
            "{table}"
        );
    }
}
