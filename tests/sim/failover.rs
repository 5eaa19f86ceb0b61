//! Links that die, come back, or die in one direction only, under full load.

use std::time::Duration;

use chainlightning::sim::packet::Side;
use chainlightning::sim::plan::{LinkPlan, Plan};
use chainlightning::sim::traffic::TcpConfig;
use chainlightning::sim::world::World;

use crate::common::*;

const BOTH: [Side; 2] = [Side::Client, Side::Server];

/// A TCP and a ping at full load, a link that is switched off for 3 s, and what was noticed.
fn outage(link: usize, sides: &[Side], from: Side) {
    let mut world = world_a(3, "");
    settle(&mut world);
    let flow = add_tcp(&mut world, from, TcpConfig::default());
    let pings = add_ping(&mut world, from, ms(10), 1_000_000);
    world.run_for(ms(12_000));
    let before = describe(&mut world);
    let died = millis(&world);
    world.change(0, link, sides, "outage=on");
    world.run_for(ms(3_000));
    let without = describe(&mut world);
    world.change(0, link, sides, "outage=off");
    let back = millis(&world);
    world.run_for(ms(5_000));
    let rates = [100.0, 50.0, 20.0];
    let gap = tcp(&world, flow).longest_gap(at(died), at(back));
    let after_gap = tcp(&world, flow).longest_gap(at(back), at(back + 5_000));
    let left = 170.0 - rates[link];
    println!(
        "link {link} {sides:?} from {from:?}: E before {:.3}, first s {:.3}, second s {:.3}, then {:.3}; back {:.3} {:.3} {:.3}; gap {gap:?} {after_gap:?} ping max {:?} {:?}",
        efficiency(&world, flow, died - 2_000, died, 170.0),
        efficiency(&world, flow, died, died + 1_000, left),
        efficiency(&world, flow, died + 1_000, died + 2_000, left),
        efficiency(&world, flow, died + 2_000, back, left),
        efficiency(&world, flow, back, back + 1_000, 170.0),
        efficiency(&world, flow, back + 1_000, back + 3_000, 170.0),
        efficiency(&world, flow, back + 3_000, back + 5_000, 170.0),
        ping(&world, pings).quantile(1.0, at(died), at(back)),
        tcp(&world, flow).counters(),
    );
    finish(&mut world);
    let lost = world.lost_inside();
    println!(
        "lost inside {lost:?}\n{before}\n{without}\n{}{}",
        describe(&mut world),
        states(&world)
    );
    assert!(gap <= ms(300), "gap {gap:?}");
    assert_eq!(lost, [0, 0]);
}

/// The longest time that a reader gets nothing from half a second into an outage of five on.
fn late_wait(seed: u64) -> Duration {
    let mut world = world_a(seed, "");
    settle(&mut world);
    let flow = add_tcp(&mut world, Side::Server, TcpConfig::default());
    world.run_for(ms(12_000));
    let died = millis(&world);
    world.change(0, 0, &BOTH, "outage=on");
    world.run_for(ms(5_000));
    let wait = tcp(&world, flow).longest_wait(at(died + 500), at(died + 5_000));
    println!("seed {seed}: {wait:?}");
    wait
}

#[test]
fn the_window_of_a_flow_outlasts_an_outage_without_a_signal() {
    // A signal is a hole, and whoever reads waits for it a round trip and what stands in the queue: 120 ms and more.
    let mut waits = [3, 4, 5].map(late_wait);
    waits.sort_unstable();
    assert!(waits[1] <= ms(60), "{waits:?}");
}

#[test]
fn a_black_hole_in_link_0_is_a_short_gap() {
    outage(0, &BOTH, Side::Client);
}

#[test]
fn a_black_hole_in_link_1_is_a_short_gap() {
    outage(1, &BOTH, Side::Client);
}

#[test]
fn a_black_hole_in_link_2_is_a_short_gap() {
    outage(2, &BOTH, Side::Client);
}

#[test]
fn a_link_dead_towards_the_server_only_is_a_short_gap() {
    outage(0, &[Side::Client], Side::Client);
}

#[test]
fn a_link_dead_towards_the_client_only_is_a_short_gap() {
    outage(0, &[Side::Server], Side::Client);
}

/// The gap when a WAN goes whose sockets all die with it.
fn gap_of_a_wan(seed: u64) -> Duration {
    // What tells the peer of trouble, and every copy, has to go by another WAN, not by another link of the dead one.
    let mut plan = Plan::new(seed, &[]);
    for (wan, words) in [
        (0, "rate=50mbit delay=10ms queue=100ms"),
        (1, "rate=25mbit delay=20ms queue=100ms"),
        (2, "rate=10mbit delay=30ms queue=100ms"),
    ] {
        plan.links.push(LinkPlan::new(wan, words));
        plan.links.push(LinkPlan::new(wan, words));
    }
    let mut world = World::new(plan);
    settle(&mut world);
    let flow = add_tcp(&mut world, Side::Client, TcpConfig::default());
    world.run_for(ms(12_000));
    let died = millis(&world);
    for link in [0, 1] {
        world.change(0, link, &BOTH, "outage=on");
    }
    world.run_for(ms(3_000));
    let end = millis(&world);
    let gap = tcp(&world, flow).longest_gap(at(died), at(end));
    println!(
        "seed {seed}: gap {gap:?}\n{}{}",
        describe(&mut world),
        states(&world)
    );
    finish(&mut world);
    assert_eq!(world.lost_inside(), [0, 0]);
    gap
}

#[test]
fn a_wan_that_takes_all_its_links_with_it_is_a_short_gap() {
    // From 60 to 130 ms, by where a window stands when it happens.
    let mut gaps = [1, 2, 3, 4, 5].map(gap_of_a_wan);
    gaps.sort_unstable();
    assert!(gaps[2] <= ms(100) && gaps[4] <= ms(160), "{gaps:?}");
}
