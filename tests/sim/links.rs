//! Links of all kinds: several on one WAN, backups, ladders of rates and delays, links that change under load.

use std::time::Duration;

use chainlightning::reorder::hold::HOLD_SILENT;
use chainlightning::sim::packet::Side;
use chainlightning::sim::plan::{LinkPlan, Plan};
use chainlightning::sim::traffic::TcpConfig;
use chainlightning::sim::world::World;

use crate::common::*;

/// Superframes, as a real sender's kernel makes them.
fn bulk() -> TcpConfig {
    TcpConfig {
        superframe_segments: 44,
        ..TcpConfig::default()
    }
}

/// Efficiency of one TCP from `from` in the last 8 of `seconds`, over links of `mbps` in all.
fn steady(world: &mut World, from: Side, seconds: u64, mbps: f64) -> f64 {
    settle(world);
    let flow = add_tcp(world, from, bulk());
    world.run_for(Duration::from_secs(seconds));
    let end = millis(world);
    let e = efficiency(world, flow, end - 8_000, end, mbps);
    println!("E {e:.3}\n{}{}", describe(world), states(world));
    e
}

#[test]
fn links_of_one_wan_share_its_capacity() {
    // The emulated WAN splits its capacity evenly: what matters is that both links are used and the pacer is one.
    let mut plan = Plan::new(1, &[]);
    for (wan, words) in [
        (0, "rate=40mbit delay=10ms queue=100ms"),
        (1, "rate=15mbit delay=25ms queue=100ms"),
    ] {
        plan.links.push(LinkPlan::new(wan, words));
        plan.links.push(LinkPlan::new(wan, words));
    }
    let mut world = World::new(plan);
    let e = steady(&mut world, Side::Client, 14, 110.0);
    let carried = [0, 1, 2, 3].map(|link| world.carried(0, link)[0].0);
    println!("{carried:?}");
    assert!(e >= 0.7, "{e}");
    for pair in [[0, 1], [2, 3]] {
        let (a, b) = (carried[pair[0]] as f64, carried[pair[1]] as f64);
        assert!(a / b < 1.3 && b / a < 1.3, "{carried:?}");
    }
}

#[test]
fn an_idle_tunnel_waits_for_no_link_that_is_quiet_by_habit() {
    let mut world = World::new(Plan::new(
        5,
        &["rate=50mbit delay=10ms", "rate=50mbit delay=20ms"],
    ));
    settle(&mut world);
    let _ = add_cbr(&mut world, Side::Client, 10, 1_400, 1);
    world.run_for(Duration::from_secs(2));
    // Heartbeats are dense for a second after the last data.
    world.run_for(Duration::from_millis(1_500));
    for _ in 0..20 {
        world.run_for(Duration::from_millis(37));
        let (near, far) = world.stats(0);
        for stats in [near, far].into_iter().flatten() {
            assert!(stats.hold < HOLD_SILENT, "{:?}", stats.hold);
        }
    }
}

#[test]
fn a_backup_carries_nothing_until_it_is_needed() {
    let mut plan = Plan::new(2, &["rate=50mbit delay=10ms", "rate=50mbit delay=10ms"]);
    plan.links[1].backup = true;
    let mut world = World::new(plan);
    settle(&mut world);
    let before = world.carried(0, 1)[0].1;
    let id = add_cbr(&mut world, Side::Client, 10, 1_400, 6);
    world.run_for(ms(3_000));
    let idle = world.carried(0, 1)[0].1 - before;
    assert!(
        idle < 60_000,
        "{idle} bytes of heartbeats and reports in 3 s"
    );
    world.change(0, 0, &[Side::Client, Side::Server], "outage=on");
    world.run_for(ms(3_000));
    let used = world.carried(0, 1)[0].1 - before - idle;
    println!("{idle} {used}\n{}", states(&world));
    assert!(used > 3_000_000, "{used}");
    finish(&mut world);
    assert_eq!(world.lost_inside(), [0, 0]);
    assert!(!cbr(&world, id).arrivals().is_empty());
}

#[test]
fn eight_links_of_many_kinds_add_up() {
    let links = [
        (50, 8),
        (50, 10),
        (30, 15),
        (30, 20),
        (20, 25),
        (20, 30),
        (10, 40),
        (5, 50),
    ]
    .map(|(rate, delay)| format!("rate={rate}mbit delay={delay}ms queue=100ms"));
    let mut world = World::new(Plan::new(3, &links.each_ref().map(String::as_str)));
    let e = steady(&mut world, Side::Server, 14, 215.0);
    assert!(e >= 0.7, "{e}");
}

#[test]
fn a_slow_link_does_not_make_a_fast_one_slower() {
    for (slow, delay) in [(50, 60), (10, 50), (5, 100), (2, 150)] {
        let words = format!("rate={slow}mbit delay={delay}ms queue=200ms");
        let mut world = World::new(Plan::new(
            4,
            &["rate=100mbit delay=10ms queue=100ms", &words],
        ));
        let e = steady(&mut world, Side::Server, 12, 100.0 + f64::from(slow));
        let of_best = e * (100.0 + f64::from(slow)) / 100.0;
        println!("beside {words}: E {e:.3}, {of_best:.3} of the fast link alone");
        assert!(of_best >= 0.8, "{words}: {of_best}");
    }
}

#[test]
fn a_fall_and_a_rise_of_capacity_are_followed() {
    let mut world = World::new(Plan::new(
        5,
        &[
            "rate=50mbit delay=10ms queue=200ms",
            "rate=50mbit delay=20ms queue=200ms",
        ],
    ));
    settle(&mut world);
    let flow = add_tcp(&mut world, Side::Client, bulk());
    let pings = add_ping(&mut world, Side::Client, ms(10), u64::MAX);
    world.run_for(ms(8_000));
    let fall = millis(&world);
    world.change(0, 0, &[Side::Client], "rate=20mbit");
    world.run_for(ms(5_000));
    let rise = millis(&world);
    world.change(0, 0, &[Side::Client], "rate=50mbit");
    world.run_for(ms(6_000));
    let low = efficiency(&world, flow, fall + 1_000, rise, 70.0);
    let high = efficiency(&world, flow, rise + 3_000, rise + 6_000, 100.0);
    let worst = ping(&world, pings).quantile(0.99, at(fall), at(fall + 1_000));
    let after = ping(&world, pings).quantile(0.99, at(fall + 1_000), at(rise));
    println!(
        "low {low:.3} high {high:.3} ping {worst:?} then {after:?}\n{}",
        states(&world)
    );
    assert!(low >= 0.7 && high >= 0.65, "{low} {high}");
    assert!(after.unwrap() <= ms(60), "{after:?}");
}

#[test]
fn a_longer_way_is_no_storm_of_retransmissions() {
    let mut world = world_a(6, "");
    settle(&mut world);
    let flow = add_tcp(&mut world, Side::Client, bulk());
    world.run_for(ms(8_000));
    let before = tcp(&world, flow).counters();
    let (step, sent) = (millis(&world), world.counts(Side::Client).sent_segments);
    world.change(0, 1, &[Side::Client, Side::Server], "delay=100ms");
    world.run_for(ms(5_000));
    world.change(0, 1, &[Side::Client, Side::Server], "delay=20ms");
    world.run_for(ms(5_000));
    let during = efficiency(&world, flow, step + 1_000, step + 5_000, 170.0);
    let again = tcp(&world, flow).counters().retransmitted - before.retransmitted;
    let sent = world.counts(Side::Client).sent_segments - sent;
    println!(
        "E during {during:.3}, {again} of {sent} sent again\n{}{}",
        describe(&mut world),
        states(&world)
    );
    assert!(during >= 0.5, "{during}");
    assert!(again * 100 < sent, "{again} of {sent}");
}

#[test]
fn satellite_handovers_are_hidden() {
    let mut world = World::new(Plan::new(
        7,
        &[
            "rate=50mbit delay=20ms queue=200ms handover=5s/60ms-135ms@3s",
            "rate=50mbit delay=20ms queue=100ms",
        ],
    ));
    settle(&mut world);
    let flow = add_tcp(&mut world, Side::Client, bulk());
    let pings = add_ping(&mut world, Side::Client, ms(10), u64::MAX);
    world.run_for(ms(20_000));
    let end = millis(&world);
    let e = efficiency(&world, flow, end - 12_000, end, 100.0);
    let gap = tcp(&world, flow).longest_gap(at(end - 12_000), at(end));
    let worst = ping(&world, pings).quantile(1.0, at(end - 12_000), at(end));
    println!(
        "E {e:.3} gap {gap:?} ping {worst:?} {:?}\n{}",
        tcp(&world, flow).counters(),
        states(&world)
    );
    assert!(e >= 0.7, "{e}");
    assert!(gap <= ms(200), "{gap:?}");
    finish(&mut world);
    assert_eq!(world.lost_inside(), [0, 0]);
}

#[test]
fn small_datagrams_carry_large_packets() {
    let mut plan = Plan::new(8, &LINKS_A);
    plan.datagram_bytes_max = 1_232;
    let mut world = World::new(plan);
    let e = steady(&mut world, Side::Client, 12, 170.0);
    assert!(e >= 0.7, "{e}");
}

#[test]
fn an_idle_tunnel_is_nearly_silent_and_its_links_stay_up() {
    let mut world = world_a(9, "");
    settle(&mut world);
    world.run_for(ms(1_000));
    let carried = |world: &World| [0, 1, 2].map(|link| world.carried(0, link));
    let before = carried(&world);
    world.run_for(ms(10_000));
    let after = carried(&world);
    for direction in [0, 1] {
        let count: u64 = (0..3)
            .map(|link| after[link][direction].0 - before[link][direction].0)
            .sum();
        let bytes: u64 = (0..3)
            .map(|link| after[link][direction].1 - before[link][direction].1)
            .sum();
        println!("{count} datagrams, {bytes} bytes");
        // Ten heartbeats a second and link, and a report by two links for each that came.
        assert!(count <= 910, "reports answer reports: {count}");
    }
    let suspect = states(&world).matches("suspect").count();
    assert_eq!(suspect, 0, "{}", states(&world));
}

#[test]
fn traffic_in_one_direction_suspects_no_link() {
    for from in [Side::Client, Side::Server] {
        let mut world = world_a(10, "");
        settle(&mut world);
        let id = add_cbr(&mut world, from, 80, 1_400, 6);
        world.run_for(ms(6_500));
        assert!(!cbr(&world, id).arrivals().is_empty());
        assert_eq!(
            states(&world).matches("suspect").count(),
            0,
            "{}",
            states(&world)
        );
    }
}
