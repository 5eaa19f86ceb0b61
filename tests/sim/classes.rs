//! Classes: which packets go where, whatever the mode says about the rest.

use chainlightning::base::{DropReason, WanId};
use chainlightning::endpoint::Endpoint;
use chainlightning::fec::protection::Mode as FecMode;
use chainlightning::flow::class::Rule;
use chainlightning::session::config::{ClassConfig, Policy};
use chainlightning::sim::packet::Side;
use chainlightning::sim::plan::Plan;
use chainlightning::sim::traffic::TcpConfig;
use chainlightning::sim::world::{FlowId, World};

use crate::common::*;

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
