//! What the operator decides about the links' use: directions, limits, quotas, classes, modes.

use std::time::Duration;

use chainlightning::base::{DropReason, Rate, WanId};
use chainlightning::endpoint::Endpoint;
use chainlightning::fec::protection::Mode as FecMode;
use chainlightning::flow::class::Rule;
use chainlightning::session::config::{
    ClassConfig, Direction, Mode, Policy, WanConfig, WanLimits, WanRole,
};
use chainlightning::session::policy::{Parked, Standing};
use chainlightning::sim::packet::Side;
use chainlightning::sim::plan::Plan;
use chainlightning::sim::traffic::TcpConfig;
use chainlightning::sim::world::{FlowId, World};

use crate::common::*;

/// Bytes that a link of client 0 carried from `from`.
fn bytes(world: &World, link: usize, from: Side) -> u64 {
    world.carried(0, link)[from.index()].1
}

/// Bytes that each of three links carried from `from` during `time`.
fn carried(world: &mut World, from: Side, time: Duration) -> [u64; 3] {
    let before = [0, 1, 2].map(|link| bytes(world, link, from));
    world.run_for(time);
    [0, 1, 2].map(|link| bytes(world, link, from) - before[link])
}

fn standing(world: &mut World, side: Side, link: usize) -> Standing {
    let (near, far) = world.stats(0);
    let stats = if side == Side::Client { near } else { far };
    stats.unwrap().links[link].standing
}

/// A class of the flow that is added next.
fn class_of_next(world: &World, policy: Policy) -> ClassConfig {
    let port = 10_000 + world.next_address(0).flow;
    ClassConfig {
        name: "test".to_owned(),
        rule: Rule {
            ports: vec![port..=port],
            ..Rule::default()
        },
        policy,
    }
}

fn pin(wan: &str, fallback: bool) -> Policy {
    Policy::Pin {
        wan: wan.to_owned(),
        fallback,
    }
}

/// Gives both ends these classes, as a reload does.
fn set_classes(world: &mut World, plan: &Plan, classes: &[ClassConfig]) {
    let mut session = plan.session.clone();
    session.classes = classes.to_vec();
    let (wans, now) = (plan.wans(), world.now());
    world.client(0).reconfigure(session.clone(), &wans, now);
    world.server().reconfigure(&session, Vec::new());
}

#[test]
fn a_wan_carries_data_in_its_direction_only() {
    for (direction, way) in [
        (Direction::Up, Side::Client),
        (Direction::Down, Side::Server),
    ] {
        let mut plan = Plan::new(1, &LINKS_A);
        plan.links[0].direction = direction;
        let mut world = World::new(plan);
        settle(&mut world);
        for side in [Side::Client, Side::Server] {
            let _ = add_cbr(&mut world, side, 30, 1_400, 4);
        }
        world.run_for(ms(2_000));
        let used = carried(&mut world, way, ms(1_000))[0];
        let unused = carried(&mut world, way.other(), ms(1_000))[0];
        println!("{direction:?}: {used} and {unused} bytes in a second");
        assert!(used > 2_000_000, "{used}");
        assert!(unused < 100_000, "heartbeats and reports: {unused}");
        let quiet = way.other();
        assert_eq!(standing(&mut world, quiet, 0), Standing::OtherWay);
        assert_eq!(standing(&mut world, way, 0), Standing::InUse);
        finish(&mut world);
        assert_eq!(world.lost_inside(), [0, 0]);
    }
}

#[test]
fn a_link_above_its_round_trip_limit_is_parked_and_comes_back() {
    let mut plan = Plan::new(2, &LINKS_A);
    plan.links[1].limits.rtt_max = Some(ms(120));
    let mut world = World::new(plan);
    settle(&mut world);
    let _ = add_cbr(&mut world, Side::Client, 130, 1_400, 60);
    world.run_for(ms(4_000));
    let before = carried(&mut world, Side::Client, ms(1_000))[1];
    assert!(before > 1_000_000, "{before}");
    world.change(0, 1, &[Side::Client, Side::Server], "delay=90ms");
    world.run_for(ms(4_000));
    let parked = carried(&mut world, Side::Client, ms(1_000))[1];
    let why = Standing::Parked(Parked::Rtt);
    assert_eq!(standing(&mut world, Side::Client, 1), why);
    assert_eq!(
        standing(&mut world, Side::Server, 1),
        why,
        "LINK_OPEN told it"
    );
    assert!(parked < 50_000, "{parked}");
    // 110 ms are below the limit, but not below 80 % of it.
    world.change(0, 1, &[Side::Client, Side::Server], "delay=55ms");
    world.run_for(ms(10_000));
    assert_eq!(standing(&mut world, Side::Client, 1), why);
    world.change(0, 1, &[Side::Client, Side::Server], "delay=20ms");
    world.run_for(ms(8_000));
    assert_eq!(standing(&mut world, Side::Client, 1), Standing::InUse);
    let after = carried(&mut world, Side::Client, ms(1_000))[1];
    println!("{before} parked {parked} after {after}\n{}", states(&world));
    assert!(after > 1_000_000, "{after}");
}

#[test]
fn a_link_above_its_loss_limit_is_parked_and_comes_back() {
    let mut plan = Plan::new(3, &LINKS_A);
    plan.links[0].limits.loss_max = Some(0.05);
    let mut world = World::new(plan);
    settle(&mut world);
    let _ = add_cbr(&mut world, Side::Client, 30, 1_400, 60);
    world.run_for(ms(3_000));
    world.change(0, 0, &[Side::Client], "loss=15%");
    world.run_for(ms(4_000));
    assert_eq!(
        standing(&mut world, Side::Client, 0),
        Standing::Parked(Parked::Loss)
    );
    // The other direction loses nothing.
    assert_eq!(standing(&mut world, Side::Server, 0), Standing::InUse);
    let parked = carried(&mut world, Side::Client, ms(1_000))[0];
    assert!(parked < 50_000, "{parked}");
    world.change(0, 0, &[Side::Client], "loss=0%");
    world.run_for(ms(30_000));
    assert_eq!(standing(&mut world, Side::Client, 0), Standing::InUse);
    finish(&mut world);
    assert_eq!(world.lost_inside(), [0, 0]);
}

#[test]
fn parked_links_carry_what_nobody_else_can() {
    let mut plan = Plan::new(4, &LINKS_A[..2]);
    for link in &mut plan.links {
        link.limits = WanLimits {
            rtt_max: Some(ms(10)),
            loss_max: None,
        };
    }
    let mut world = World::new(plan);
    settle(&mut world);
    world.run_for(ms(3_000));
    let id = add_cbr(&mut world, Side::Client, 30, 1_400, 3);
    world.run_for(ms(4_000));
    let why = Standing::Parked(Parked::Rtt);
    assert_eq!(standing(&mut world, Side::Client, 0), why);
    assert_eq!(
        cbr(&world, id).arrivals().len() as u64,
        cbr(&world, id).sent()
    );
}

#[test]
fn a_wan_whose_quota_is_used_up_is_the_last_resort_at_both_ends() {
    let plan = Plan::new(5, &LINKS_A);
    let mut world = World::new(plan.clone());
    settle(&mut world);
    for side in [Side::Client, Side::Server] {
        let _ = add_cbr(&mut world, side, 20, 1_400, 12);
    }
    world.run_for(ms(1_000));
    let spend = |world: &mut World, links: &[usize]| {
        let mut wans: Vec<WanConfig> = plan.wans();
        for link in links {
            wans[*link].role = WanRole::Spent;
        }
        wans[1].role = WanRole::Backup;
        let now = world.now();
        world
            .client(0)
            .reconfigure(plan.session.clone(), &wans, now);
        world.run_for(ms(500));
    };
    spend(&mut world, &[0]);
    for side in [Side::Client, Side::Server] {
        assert_eq!(standing(&mut world, side, 0), Standing::Spent);
        let [spent, backup, active] = carried(&mut world, side, ms(1_000));
        assert!(active > 1_500_000 && spent < 100_000 && backup < 100_000);
    }
    world.change(0, 2, &[Side::Client, Side::Server], "outage=on");
    world.run_for(ms(1_000));
    let [spent, backup, _] = carried(&mut world, Side::Client, ms(1_000));
    assert!(backup > 1_500_000 && spent < 100_000, "{backup} {spent}");
    world.change(0, 1, &[Side::Client, Side::Server], "outage=on");
    world.run_for(ms(1_000));
    let [spent, ..] = carried(&mut world, Side::Client, ms(1_000));
    assert!(spent > 1_500_000, "{spent}");
}

#[test]
fn a_link_that_costs_more_than_it_gives_leaves_and_says_why() {
    let links = [
        "rate=100mbit delay=10ms queue=100ms",
        "rate=100mbit delay=12ms queue=100ms",
        "rate=3mbit delay=200ms queue=300ms",
    ];
    let mut plan = Plan::new(6, &links);
    plan.links[2].rates = [Some(Rate::from_mbps(3)); 2];
    let mut world = World::new(plan);
    settle(&mut world);
    let flow = add_tcp(&mut world, Side::Client, TcpConfig::default());
    world.run_for(ms(14_000));
    let end = millis(&world);
    println!("{}", describe(&mut world));
    let e = efficiency(&world, flow, end - 4_000, end, 200.0);
    assert_eq!(
        standing(&mut world, Side::Client, 2),
        Standing::Parked(Parked::Outlier)
    );
    assert!(e > 0.7, "{e}");
}

#[test]
fn a_pinned_class_uses_its_wan_and_the_others_only_as_a_fallback() {
    for fallback in [true, false] {
        let plan = Plan::new(7, &LINKS_A);
        let mut world = World::new(plan.clone());
        settle(&mut world);
        let class = class_of_next(&world, pin("wan1", fallback));
        set_classes(&mut world, &plan, &[class]);
        let id = add_cbr(&mut world, Side::Client, 10, 1_400, 8);
        world.run_for(ms(1_000));
        let [first, pinned, third] = carried(&mut world, Side::Client, ms(2_000));
        println!("fallback {fallback}: {first} {pinned} {third}");
        assert!(pinned > 2_400_000, "{pinned}");
        assert!(first < 200_000 && third < 200_000, "{first} {third}");
        world.change(0, 1, &[Side::Client, Side::Server], "outage=on");
        world.run_for(ms(1_000));
        let arrived = cbr(&world, id).arrivals().len();
        let [first, ..] = carried(&mut world, Side::Client, ms(1_000));
        let more = cbr(&world, id).arrivals().len() - arrived;
        let (near, _) = world.stats(0);
        let near = near.unwrap();
        let now = world.now();
        // At the door, and what waited already.
        let dropped = near.drops.get(DropReason::PinnedDown)
            + world.client(0).stats(now).drops.get(DropReason::PinnedDown);
        println!("down: {first} bytes on the first, {more} arrived, {dropped} dropped");
        if fallback {
            assert!(more > 800 && first > 1_000_000 && dropped == 0);
        } else {
            assert!(more == 0 && first < 100_000 && dropped > 800);
        }
        world.change(0, 1, &[Side::Client, Side::Server], "outage=off");
        world.run_for(ms(2_000));
        let [first, pinned, _] = carried(&mut world, Side::Client, ms(1_000));
        assert!(pinned > 1_000_000 && first < 200_000, "{pinned} {first}");
    }
}

#[test]
fn a_pinned_flow_and_bulk_share_its_wan_and_neither_starves() {
    let plan = Plan::new(8, &LINKS_A);
    let mut world = World::new(plan.clone());
    settle(&mut world);
    let class = class_of_next(&world, pin("wan1", true));
    set_classes(&mut world, &plan, &[class]);
    let pinned = add_tcp(&mut world, Side::Client, TcpConfig::default());
    let bulk = add_tcp(&mut world, Side::Client, TcpConfig::default());
    world.run_for(ms(15_000));
    let (from, to) = (millis(&world) - 8_000, millis(&world));
    let of = |id: FlowId| tcp(&world, id).goodput(at(from), at(to)).as_mbps();
    let (pinned, bulk) = (of(pinned), of(bulk));
    println!(
        "pinned {pinned:.1} bulk {bulk:.1}\n{}",
        describe(&mut world)
    );
    // 50 Mbit/s of 170 are shared.
    assert!(pinned > 12.0 && pinned < 50.0, "{pinned}");
    assert!(bulk > 70.0, "{bulk}");
    finish(&mut world);
    assert_eq!(world.lost_inside(), [0, 0]);
}

#[test]
fn a_duplicated_class_goes_out_twice_and_loses_nothing() {
    for (mbps, bytes) in [(10, 1_400), (0, 84)] {
        let mut plan = Plan::new(
            9,
            &[
                "rate=50mbit delay=10ms queue=100ms loss=5%",
                "rate=50mbit delay=15ms queue=100ms loss=5%",
                "rate=50mbit delay=40ms queue=100ms",
            ],
        );
        plan.session.fec = FecMode::Off;
        let mut world = World::new(plan.clone());
        settle(&mut world);
        let class = class_of_next(&world, Policy::Duplicate);
        set_classes(&mut world, &plan, &[class]);
        let before = world.stats(0).0.unwrap().symbols;
        let id = if mbps > 0 {
            add_cbr(&mut world, Side::Client, mbps, bytes, 4)
        } else {
            add_ping(&mut world, Side::Client, ms(20), 200)
        };
        world.run_for(ms(4_500));
        let after = world.stats(0).0.unwrap().symbols;
        let (copies, sources) = (
            after.duplicate - before.duplicate,
            after.source - before.source,
        );
        println!("{copies} copies of {sources}\n{}", describe(&mut world));
        assert!(copies * 20 >= sources * 19, "{copies} of {sources}");
        if mbps == 0 {
            let ping = ping(&world, id);
            // Both copies are lost once in 400 times, and sent again then.
            let p99 = ping.quantile(0.95, at(0), at(100_000)).unwrap();
            assert_eq!(ping.rtts().len(), 200);
            assert!(p99 < ms(35), "{p99:?}");
        }
        finish(&mut world);
        assert_eq!(world.lost_inside(), [0, 0]);
    }
}

#[test]
fn a_best_class_stays_on_one_link() {
    let plan = Plan::new(10, &LINKS_A);
    let mut world = World::new(plan.clone());
    settle(&mut world);
    let class = class_of_next(&world, Policy::Best);
    set_classes(&mut world, &plan, &[class]);
    // More than the mode would leave to the quickest link alone.
    let id = add_cbr(&mut world, Side::Server, 90, 1_400, 6);
    world.run_for(ms(3_000));
    let [best, second, third] = carried(&mut world, Side::Server, ms(2_000));
    println!("{best} {second} {third}");
    assert!(best > 18_000_000, "{best}");
    assert!(second < 200_000 && third < 200_000, "{second} {third}");
    // When it fails, others take over.
    world.change(0, 0, &[Side::Client, Side::Server], "outage=on");
    let [_, second, third] = carried(&mut world, Side::Server, ms(1_000));
    println!("then {second} {third}");
    assert!(second + third > 500_000, "{second} {third}");
    assert!(!cbr(&world, id).arrivals().is_empty());
}

#[test]
fn classes_change_by_a_reload_and_each_side_has_its_own() {
    let plan = Plan::new(11, &LINKS_A);
    let mut world = World::new(plan.clone());
    settle(&mut world);
    let class = class_of_next(&world, pin("wan2", true));
    let id = add_cbr(&mut world, Side::Server, 10, 1_400, 10);
    world.run_for(ms(1_000));
    assert!(carried(&mut world, Side::Server, ms(1_000))[2] < 200_000);
    // The client's classes are for what the client sends.
    let (wans, now) = (plan.wans(), world.now());
    let mut session = plan.session.clone();
    session.classes = vec![class];
    world.client(0).reconfigure(session.clone(), &wans, now);
    assert!(carried(&mut world, Side::Server, ms(1_000))[2] < 200_000);
    world.server().reconfigure(&session, Vec::new());
    world.run_for(ms(200));
    let [first, _, pinned] = carried(&mut world, Side::Server, ms(1_000));
    assert!(pinned > 1_000_000 && first < 200_000, "{pinned} {first}");
    world.server().reconfigure(&plan.session, Vec::new());
    world.run_for(ms(200));
    assert!(carried(&mut world, Side::Server, ms(1_000))[2] < 200_000);
    finish(&mut world);
    assert_eq!(world.lost_inside(), [0, 0]);
    assert!(!cbr(&world, id).arrivals().is_empty());
}

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

#[test]
fn a_class_is_pinned_by_a_name_that_the_client_tells() {
    // Numbers may differ from names in their order.
    let plan = Plan::new(14, &LINKS_A);
    let mut world = World::new(plan.clone());
    settle(&mut world);
    let mut wans = plan.wans();
    wans[0].name = "fiber".to_owned();
    wans[2].name = "lte".to_owned();
    assert_eq!(wans[2].id, WanId(2));
    let now = world.now();
    let session = plan.session.clone();
    world.client(0).reconfigure(session.clone(), &wans, now);
    world.run_for(ms(300));
    let mut with_class = session;
    with_class.classes = vec![class_of_next(&world, pin("lte", false))];
    world.server().reconfigure(&with_class, Vec::new());
    let _ = add_cbr(&mut world, Side::Server, 5, 1_400, 3);
    world.run_for(ms(1_000));
    let [first, _, pinned] = carried(&mut world, Side::Server, ms(1_000));
    assert!(pinned > 500_000 && first < 200_000, "{pinned} {first}");
}
