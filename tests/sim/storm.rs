//! Everything random, from a seed: links, traffic, faults. What must hold always holds, and when the storm is over
//! the tunnel works.
//!
//! `STORM_SEEDS=n` runs n seeds, `STORM_SEED=s` the one that failed.

use chainlightning::base::{Rate, Rng};
use chainlightning::session::config::Mode;
use chainlightning::session::stats::SessionStats;
use chainlightning::sim::packet::Side;
use chainlightning::sim::plan::{LinkPlan, Plan};
use chainlightning::sim::traffic::{Cbr, Flow, Ping, Tcp, TcpConfig};
use chainlightning::sim::world::World;

use crate::common::*;

/// Seeds in an ordinary run.
const SEEDS: u64 = 12;
/// Seeds that showed a fault once: challenges given up, a path that could not be challenged, capacities that fell to
/// nothing, keys made again and again, sparse frames in a body of a bulk flow.
const SEEDS_TELLING: [u64; 8] = [18, 64, 82, 123, 133, 161, 185, 474];
/// How long it blows and how long the tunnel then has to recover, ms.
const STORM: u64 = 6_000;
const CALM: u64 = 8_000;
/// Sparse frames that wait in front of a slow link, neither late nor sent again, when their flow turns fast and overtakes them:
/// 4 in the worst of 150 storms.
const OUTRUN: u64 = 8;

const SIDES: [Side; 2] = [Side::Client, Side::Server];

/// A number with a bias to small ones.
fn low(rng: &mut Rng, max: u64) -> u64 {
    let first = rng.below(max + 1);
    first.min(rng.below(max + 1))
}

fn pick<T: Copy>(rng: &mut Rng, from: &[T]) -> T {
    from[usize::try_from(rng.below(from.len() as u64)).unwrap()]
}

fn link_words(rng: &mut Rng) -> String {
    let rate = pick(rng, &[2, 5, 20, 50, 100]);
    let queue = 20 + rng.below(200);
    let mut words = format!("rate={rate}mbit delay={}ms queue={queue}ms", low(rng, 120));
    if rng.chance(0.4) {
        words += &format!(" jitter={}ms", low(rng, 40));
    }
    if rng.chance(0.1) {
        words += " handover=2s/60ms-135ms@1s";
    }
    words + &trouble(rng)
}

/// What may change on the way.
fn trouble(rng: &mut Rng) -> String {
    let mut words = String::new();
    if rng.chance(0.4) {
        words += &format!(" loss={}%", low(rng, 20));
    }
    if rng.chance(0.2) {
        words += &format!(" gilbert={}%/{}", 1 + low(rng, 9), 1 + rng.below(12));
    }
    if rng.chance(0.3) {
        words += &format!(" dup={}%", low(rng, 5));
    }
    if rng.chance(0.3) {
        words += &format!(" reorder={}%/{}ms", low(rng, 5), 1 + low(rng, 30));
    }
    if rng.chance(0.3) {
        words += &format!(" corrupt={}%", low(rng, 3));
    }
    words
}

fn plan(seed: u64, rng: &mut Rng) -> Plan {
    let mut plan = Plan::new(seed, &[]);
    let links = 1 + low(rng, 4);
    for number in 0..links {
        // At times two links share a WAN; the number of a WAN never skips one.
        let before = plan.links.last().map_or(0, |link: &LinkPlan| link.wan);
        let wan = if number == 0 || rng.chance(0.2) {
            before
        } else {
            before + 1
        };
        let mut link = LinkPlan::new(wan, &link_words(rng));
        link.down = LinkPlan::new(wan, &link_words(rng)).down;
        link.backup = wan > 0 && rng.chance(0.1);
        plan.links.push(link);
    }
    plan.session.mode = pick(
        rng,
        &[
            Mode::Balanced,
            Mode::Balanced,
            Mode::Redundant,
            Mode::Weighted,
            Mode::SingleBest,
            Mode::RoundRobin,
        ],
    );
    if rng.chance(0.3) {
        plan.session.fec = pick(
            rng,
            &[
                chainlightning::fec::protection::Mode::Off,
                chainlightning::fec::protection::Mode::Fixed {
                    source_count: 10,
                    repair_count: 3,
                },
                chainlightning::fec::protection::Mode::Fixed {
                    source_count: 100,
                    repair_count: 20,
                },
            ],
        );
    }
    plan.rekey_interval = ms(1_000 + rng.below(20_000));
    plan.datagram_bytes_max = pick(rng, &[1232, 1400, 1452, 1472]);
    plan
}

fn add_traffic(world: &mut World, rng: &mut Rng) {
    for from in SIDES {
        let start = at(rng.below(1_000));
        let address = world.next_address(0);
        let ping = Ping::new(address, from, ms(10 + rng.below(100)), u64::MAX, start);
        world.add(0, Flow::Ping(ping));
        for _ in 0..rng.below(3) {
            let address = world.next_address(0);
            let bytes = 60 + usize::try_from(rng.below(1_440)).unwrap();
            let rate = Rate::from_bits_per_s(10_000 << rng.below(12));
            let cbr = Cbr::new(address, from, rate, bytes, u64::MAX, at(rng.below(2_000)));
            world.add(0, Flow::Cbr(cbr));
        }
        for _ in 0..rng.below(3) {
            let address = world.next_address(0);
            let config = TcpConfig {
                ecn: rng.chance(0.3),
                superframe_segments: pick(rng, &[1, 10, 44]),
                start: at(rng.below(2_000)),
                segments_max: if rng.chance(0.3) {
                    rng.below(1_000)
                } else {
                    u64::MAX
                },
                ..TcpConfig::default()
            };
            world.add(0, Flow::Tcp(Box::new(Tcp::new(address, from, config))));
        }
    }
}

/// One fault.
fn strike(world: &mut World, rng: &mut Rng, links: usize, restarts: bool) {
    let link = usize::try_from(rng.below(links as u64)).unwrap();
    let both = rng.chance(0.5);
    let side = pick(rng, &SIDES);
    let sides = if both {
        &SIDES[..]
    } else {
        std::slice::from_ref(&side)
    };
    match rng.below(10) {
        0..3 => world.change(0, link, sides, "outage=on"),
        3..6 => world.change(0, link, sides, "outage=off"),
        6 => world.change(0, link, sides, &format!("loss=0%{}", trouble(rng))),
        7 => world.change(0, link, sides, &format!("delay={}ms", low(rng, 200))),
        8 => world.rebind(0, link),
        _ if restarts && rng.chance(0.5) => world.restart_server(),
        _ if restarts => world.restart_client(0),
        _ => world.change(0, link, sides, &format!("rate={}mbit", 1 + low(rng, 99))),
    }
}

/// Runs one storm; what it returns is the same for the same seed.
fn storm(seed: u64) -> String {
    let mut rng = Rng::new(seed);
    let plan = plan(seed, &mut rng);
    let links = plan.links.len();
    let restarts = rng.chance(0.2);
    let mut world = World::new(plan);
    add_traffic(&mut world, &mut rng);
    while world.now() < at(STORM) {
        world.run_for(ms(20 + rng.below(600)));
        strike(&mut world, &mut rng, links, restarts);
    }
    for link in 0..links {
        let calm = "outage=off loss=0% dup=0% reorder=0% corrupt=0% delay=20ms jitter=0ms rate=20mbit handover=none";
        world.change(0, link, &SIDES, calm);
    }
    world.stop_all();
    let trace = std::env::var_os("STORM_TRACE").is_some();
    for _ in 0..(CALM - 3_000) / 100 {
        world.run_for(ms(100));
        if trace {
            println!("{:?}\n{}", world.now(), describe(&mut world));
        }
    }
    let last = SIDES.map(|side| add_ping(&mut world, side, ms(20), 100));
    world.run_for(ms(3_000));
    let counts = SIDES.map(|side| world.counts(side));
    let summary = format!("{counts:?} {}", states(&world));
    let report = format!(
        "restarts {restarts} {counts:?}\n{}{}",
        describe(&mut world),
        states(&world)
    );
    for id in last {
        assert_eq!(
            ping(&world, id).rtts().len(),
            100,
            "the tunnel works again\n{report}"
        );
    }
    // A TCP that was stopped still has to send what is in its window.
    world.run_until(world.now() + ms(5_000), |world| {
        let (near, far) = world.stats(0);
        [near, far]
            .into_iter()
            .flatten()
            .all(|stats| is_empty(&stats))
    });
    check_order_and_memory(&mut world, restarts, &report);
    summary
}

fn check_order_and_memory(world: &mut World, restarts: bool, report: &str) {
    let (near, far) = world.stats(0);
    let (near, far) = (near.unwrap(), far.unwrap());
    // What is saved of a late superframe may come out in several parts, and frames of sparse flows wait for no other.
    let late =
        |stats: &SessionStats| stats.reorder.late + stats.reorder.overtaken + stats.rescued_frames;
    for (from, sender, receiver) in [(Side::Client, &near, &far), (Side::Server, &far, &near)] {
        let counts = world.counts(from);
        // A flow that stops being sparse overtakes those of its sparse frames that are sent again.
        let again = sender.symbols.resent_sparse;
        if !restarts {
            assert!(
                counts.out_of_order <= late(receiver) + again + OUTRUN,
                "frames from {from:?} out of order {} although {} were late, {again} of sparse flows sent again\n{report}",
                counts.out_of_order,
                late(receiver)
            );
        }
    }
    for stats in [&near, &far] {
        assert!(
            is_empty(stats),
            "nothing is kept for ever {:?}\n{report}",
            stats.held
        );
    }
}

/// Whether every frame has left.
fn is_empty(stats: &SessionStats) -> bool {
    let held = &stats.held;
    (
        stats.queued_bytes,
        held.frames_out,
        held.frames_in,
        held.reorder,
    ) == (0, 0, 0, 0)
}

#[test]
fn the_same_seed_tells_the_same_story() {
    for seed in [1, 2, 5] {
        assert_eq!(storm(seed), storm(seed), "seed {seed}");
    }
}

#[test]
fn a_storm_breaks_no_promise_and_ends() {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    let seeds: Vec<u64> = match number("STORM_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("STORM_SEEDS").unwrap_or(SEEDS))
            .chain(SEEDS_TELLING)
            .collect(),
    };
    let mut failed = Vec::new();
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| storm(seed));
        if outcome.is_err() {
            println!("SEED={seed}");
            failed.push(seed);
        }
    }
    assert!(failed.is_empty(), "failed: STORM_SEED={failed:?}");
}
