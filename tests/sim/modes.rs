//! What each mode promises, compared with the others.

use std::time::Duration;

use chainlightning::session::config::Mode;
use chainlightning::sim::packet::Side;
use chainlightning::sim::plan::Plan;
use chainlightning::sim::traffic::TcpConfig;
use chainlightning::sim::world::World;

use crate::common::*;

/// What one mode does with a bulk flow, a call of 4 Mbit/s and pings beside it.
#[derive(Debug)]
struct Outcome {
    e: f64,
    call_p50: Duration,
    ping_p99: Duration,
    copied: f64,
    repair: f64,
}

/// Of two runs the mean, since one loss more or less at the wrong moment is worth some percent.
fn outcome(mode: Mode) -> Outcome {
    let [a, b] = [12, 14].map(|seed| run_mode(seed, mode));
    Outcome {
        e: (a.e + b.e) / 2.0,
        call_p50: (a.call_p50 + b.call_p50) / 2,
        ping_p99: (a.ping_p99 + b.ping_p99) / 2,
        copied: (a.copied + b.copied) / 2.0,
        repair: (a.repair + b.repair) / 2.0,
    }
}

fn run_mode(seed: u64, mode: Mode) -> Outcome {
    let mut plan = Plan::new(
        seed,
        &LINKS_A
            .map(|l| format!("{l} loss=0.5%"))
            .each_ref()
            .map(String::as_str),
    );
    plan.session.mode = mode;
    let mut world = World::new(plan);
    settle(&mut world);
    // Alone at first: whether sparse symbols are copied at all.
    let idle = add_ping(&mut world, Side::Client, ms(10), 100);
    world.run_for(ms(1_500));
    let symbols = world.stats(0).0.unwrap().symbols;
    let copied = symbols.duplicate as f64 / symbols.source as f64;
    assert_eq!(ping(&world, idle).rtts().len(), 100);
    let flow = add_tcp(&mut world, Side::Client, TcpConfig::default());
    let call = add_cbr(&mut world, Side::Client, 4, 1_000, 30);
    let pings = add_ping(&mut world, Side::Client, ms(10), u64::MAX);
    world.run_for(ms(25_000));
    let end = millis(&world);
    let mut delays: Vec<Duration> = cbr(&world, call)
        .arrivals()
        .iter()
        .filter(|(time, _)| *time >= at(end - 10_000))
        .map(|(_, delay)| *delay)
        .collect();
    delays.sort_unstable();
    let symbols = world.stats(0).0.unwrap().symbols;
    Outcome {
        e: efficiency(&world, flow, end - 10_000, end, 166.0),
        call_p50: delays[delays.len() / 2],
        ping_p99: ping(&world, pings)
            .quantile(0.99, at(end - 10_000), at(end))
            .unwrap(),
        copied,
        repair: symbols.repair as f64 / symbols.source as f64,
    }
}

#[test]
fn the_modes_differ_in_what_they_promise() {
    let [balanced, throughput, latency] =
        [Mode::Balanced, Mode::Throughput, Mode::Latency].map(outcome);
    println!("balanced {balanced:?}\nthroughput {throughput:?}\nlatency {latency:?}");
    assert!(
        balanced.copied > 0.5 && latency.copied > 0.95,
        "sparse symbols have copies"
    );
    assert!(throughput.copied < 1e-9, "nothing goes out twice");
    assert!(
        throughput.e >= balanced.e - 0.02,
        "at least as much: {throughput:?} {balanced:?}"
    );
    assert!(throughput.repair <= balanced.repair + 5e-3);
    assert!(
        latency.call_p50 + ms(3) < balanced.call_p50,
        "what is not bulk waits less"
    );
    assert!(latency.ping_p99 <= balanced.ping_p99 + ms(5));
    assert!(latency.e > 0.5, "and bulk still uses the links");
}

#[test]
fn latency_mode_leaves_slow_links_alone_until_they_are_needed() {
    let run = |mode, mbps| {
        let mut plan = Plan::new(13, &LINKS_A);
        plan.session.mode = mode;
        let mut world = World::new(plan);
        settle(&mut world);
        let _ = add_cbr(&mut world, Side::Client, mbps, 1_400, 12);
        world.run_for(ms(6_000));
        carried(&mut world, Side::Client, ms(3_000))
    };
    let light = run(Mode::Latency, 60);
    let heavy = run(Mode::Latency, 150);
    println!("60 Mbit/s {light:?}, 150 Mbit/s {heavy:?}");
    assert!(light[1] < 200_000 && light[2] < 200_000, "{light:?}");
    assert!(heavy[2] > 1_000_000, "{heavy:?}");
}
