//! Loss, jitter and what protection costs.

use std::time::Duration;

use chainlightning::fec::protection::Mode as FecMode;
use chainlightning::session::config::Mode;
use chainlightning::sim::packet::Side;
use chainlightning::sim::plan::Plan;
use chainlightning::sim::traffic::TcpConfig;
use chainlightning::sim::world::World;

use crate::common::*;

#[test]
fn no_ping_is_lost_at_two_percent() {
    let mut world = world_a(2, "loss=2%");
    settle(&mut world);
    let ids = [Side::Client, Side::Server].map(|side| add_ping(&mut world, side, ms(20), 500));
    world.run_for(ms(11_000));
    for id in ids {
        let ping = ping(&world, id);
        let quantile = |q| ping.quantile(q, at(0), at(100_000));
        println!(
            "{} p50 {:?} p99 {:?} max {:?}",
            ping.rtts().len(),
            quantile(0.5),
            quantile(0.99),
            quantile(1.0)
        );
        assert_eq!(ping.rtts().len(), 500);
    }
    println!("{}", describe(&mut world));
}

#[test]
fn a_trickle_loses_nothing_at_five_percent() {
    let mut world = world_a(3, "loss=5%");
    settle(&mut world);
    let id = add_cbr(&mut world, Side::Client, 5, 600, 8);
    world.run_for(ms(8_000));
    finish(&mut world);
    println!("{}", describe(&mut world));
    assert_eq!(world.lost_inside(), [0, 0]);
    assert!(!cbr(&world, id).arrivals().is_empty());
}

#[test]
fn jitter_is_hidden_from_a_tcp() {
    let links = [
        "rate=100mbit delay=10ms queue=100ms jitter=5ms",
        "rate=50mbit delay=20ms queue=100ms jitter=15ms",
        "rate=20mbit delay=30ms queue=100ms jitter=40ms",
    ];
    let mut world = World::new(Plan::new(4, &links));
    settle(&mut world);
    let flow = add_tcp(&mut world, Side::Client, TcpConfig::default());
    world.run_for(ms(15_000));
    let from = millis(&world);
    world.run_for(ms(10_000));
    let e = efficiency(&world, flow, from, from + 10_000, 170.0);
    println!(
        "E {e:.3} {:?}\n{}{}",
        tcp(&world, flow).counters(),
        describe(&mut world),
        states(&world)
    );
    let counts = world.counts(Side::Client);
    println!("{counts:?}");
    assert!(e >= 0.6, "{e}");
    assert!(counts.out_of_order * 1_000 < counts.delivered, "{counts:?}");
}

#[test]
fn fixed_protection_sends_what_is_configured() {
    let mut plan = Plan::new(5, &LINKS_A);
    plan.session.fec = FecMode::Fixed {
        source_count: 10,
        repair_count: 3,
    };
    let mut world = World::new(plan);
    settle(&mut world);
    let _ = add_cbr(&mut world, Side::Client, 50, 1_400, 5);
    world.run_for(ms(5_000));
    let symbols = world.stats(0).0.unwrap().symbols;
    let ratio = symbols.repair as f64 / symbols.source as f64;
    println!("{symbols:?} {ratio:.3}\n{}", describe(&mut world));
    assert!((0.29..0.33).contains(&ratio), "{ratio}");
}

/// What protection made of a link's losses beside one TCP.
#[derive(Debug)]
struct Protected {
    efficiency: f64,
    /// Repair symbols and symbols sent again, over source symbols.
    overhead: f64,
    /// Segments that never came out, over those sent.
    lost: f64,
}

/// One TCP from a side for 18 s; figures are those of the last 10.
fn protected(seed: u64, links: &[String], from: Side) -> Protected {
    let links: Vec<&str> = links.iter().map(String::as_str).collect();
    let mut world = World::new(Plan::new(seed, &links));
    settle(&mut world);
    let flow = add_tcp(&mut world, from, TcpConfig::default());
    world.run_for(ms(8_000));
    let symbols = |world: &mut World| {
        let (near, far) = world.stats(0);
        let stats = if from == Side::Client { near } else { far };
        stats.unwrap().symbols
    };
    let (start, before) = (millis(&world), symbols(&mut world));
    world.run_for(ms(10_000));
    let after = symbols(&mut world);
    let efficiency = efficiency(&world, flow, start, start + 10_000, 170.0);
    finish(&mut world);
    let missing = world.lost_inside()[from.index()];
    let more = (after.repair - before.repair) + (after.resent - before.resent);
    let figures = Protected {
        efficiency,
        overhead: more as f64 / (after.source - before.source) as f64,
        lost: missing as f64 / world.counts(from).sent_segments as f64,
    };
    println!("{seed} {from:?} {figures:?}\n{}", describe(&mut world));
    figures
}

fn all_with(words: &str) -> Vec<String> {
    LINKS_A.map(|link| format!("{link} {words}")).to_vec()
}

#[test]
fn independent_losses_cost_a_tenth_and_lose_nothing() {
    for (seed, from) in [(1, Side::Client), (2, Side::Server)] {
        let figures = protected(seed, &all_with("loss=2%"), from);
        assert!(figures.lost < 1e-5, "{figures:?}");
        assert!(figures.overhead <= 0.10, "{figures:?}");
        assert!(figures.efficiency >= 0.72, "{figures:?}");
    }
}

#[test]
fn bursts_are_left_to_what_is_sent_again() {
    let mut efficiencies = Vec::new();
    for seed in 3..8 {
        let from = if seed % 2 == 1 {
            Side::Client
        } else {
            Side::Server
        };
        let figures = protected(seed, &all_with("gilbert=2%/8"), from);
        assert!(figures.lost < 1e-4, "{figures:?}");
        assert!(figures.overhead <= 0.12, "{figures:?}");
        assert!(figures.efficiency >= 0.35, "{figures:?}");
        efficiencies.push(figures.efficiency);
    }
    // Where a burst meets the window decides about seconds of one run.
    efficiencies.sort_unstable_by(f64::total_cmp);
    assert!(efficiencies[2] >= 0.6, "{efficiencies:?}");
}

#[test]
fn clean_links_pay_nothing_and_rare_losses_little() {
    let clean = protected(5, &all_with(""), Side::Client);
    assert!(clean.overhead <= 0.01 && clean.lost == 0.0, "{clean:?}");
    let mut links = all_with("");
    links[0] += "loss=0.1%";
    let rare = protected(5, &links, Side::Client);
    assert!(rare.overhead <= 0.02 && rare.lost < 1e-5, "{rare:?}");
    assert!(
        rare.efficiency >= clean.efficiency - 0.06,
        "{rare:?} {clean:?}"
    );
}

#[test]
fn groups_that_lost_more_than_their_repair_are_mended() {
    let links = LINKS_A.map(|link| format!("{link} loss=8%"));
    let mut plan = Plan::new(9, &links.each_ref().map(String::as_str));
    plan.session.fec = FecMode::Fixed {
        source_count: 20,
        repair_count: 1,
    };
    let mut world = World::new(plan);
    settle(&mut world);
    let id = add_cbr(&mut world, Side::Client, 50, 1_400, 5);
    world.run_for(ms(5_000));
    finish(&mut world);
    let (near, far) = world.stats(0);
    let (symbols, decoder) = (near.unwrap().symbols, far.unwrap().decoder);
    println!("{symbols:?} {decoder:?}\n{}", describe(&mut world));
    assert_eq!(world.lost_inside(), [0, 0]);
    assert!(symbols.resent > symbols.source / 25, "{symbols:?}");
    assert!(decoder.recovered_symbols > 0 && decoder.inconsistent_groups == 0);
    let late = cbr(&world, id).arrivals().iter();
    let slowest = late.map(|(_, delay)| *delay).max().unwrap();
    assert!(slowest < ms(250), "{slowest:?}");
}

#[test]
fn without_protection_losses_are_sent_again() {
    let links = LINKS_A.map(|link| format!("{link} loss=2%"));
    let mut plan = Plan::new(6, &links.each_ref().map(String::as_str));
    plan.session.fec = FecMode::Off;
    let mut world = World::new(plan);
    settle(&mut world);
    let _ = add_cbr(&mut world, Side::Client, 50, 1_400, 5);
    world.run_for(ms(5_000));
    finish(&mut world);
    let symbols = world.stats(0).0.unwrap().symbols;
    println!("{}", describe(&mut world));
    assert_eq!(symbols.repair, 0);
    assert!(symbols.resent > 0);
    assert_eq!(world.lost_inside(), [0, 0]);
}

/// What part of the datagrams of 4 s at 10 Mbit/s each link carried.
fn shares(mode: Mode) -> ([f64; 3], f64) {
    let mut plan = Plan::new(7, &LINKS_A);
    plan.session.mode = mode;
    let mut world = World::new(plan);
    settle(&mut world);
    let before = [0, 1, 2].map(|link| world.carried(0, link)[0].1);
    let id = add_cbr(&mut world, Side::Client, 10, 1_400, 4);
    world.run_for(Duration::from_secs(5));
    let after = [0, 1, 2].map(|link| world.carried(0, link)[0].1);
    let bytes = [0, 1, 2].map(|link| (after[link] - before[link]) as f64);
    let sum: f64 = bytes.iter().sum();
    assert_eq!(
        cbr(&world, id).arrivals().len() as u64,
        cbr(&world, id).sent()
    );
    println!(
        "{mode:?} {:?} {:.2}\n{}",
        bytes.map(|b| b / sum),
        sum / 5e6,
        describe(&mut world)
    );
    (bytes.map(|b| b / sum), sum / 5e6)
}

#[test]
fn the_modes_spread_traffic_as_they_say() {
    let (balanced, total) = shares(Mode::Balanced);
    assert!(
        balanced[0] > 0.9,
        "the fastest link has room for all: {balanced:?}"
    );
    assert!(total < 1.3, "{total}");
    let (single, _) = shares(Mode::SingleBest);
    assert!(single[0] > 0.9, "{single:?}");
    let (turns, _) = shares(Mode::RoundRobin);
    assert!(
        turns.iter().all(|share| (0.2..0.5).contains(share)),
        "{turns:?}"
    );
    let (weighted, _) = shares(Mode::Weighted);
    assert!(
        weighted[0] < 0.9 && weighted[2] > 0.02 && weighted[0] > weighted[2],
        "{weighted:?}"
    );
    let (_, twice) = shares(Mode::Redundant);
    assert!((1.9..2.4).contains(&twice), "{twice}");
}
