//! What the operator decides about the links' use: directions, limits, quotas, links that cost more than they give.

use chainlightning::base::Rate;
use chainlightning::session::config::{Direction, WanConfig, WanLimits, WanRole};
use chainlightning::session::policy::{Parked, Standing};
use chainlightning::sim::packet::Side;
use chainlightning::sim::plan::Plan;
use chainlightning::sim::traffic::TcpConfig;
use chainlightning::sim::world::World;

use crate::common::*;

fn standing(world: &mut World, side: Side, link: usize) -> Standing {
    let (near, far) = world.stats(0);
    let stats = if side == Side::Client { near } else { far };
    stats.unwrap().links[link].standing
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
fn a_wan_that_is_spent_or_off_carries_no_reports_on_the_others() {
    for role in [WanRole::Spent, WanRole::Off] {
        let plan = Plan::new(15, &LINKS_A);
        let mut world = World::new(plan.clone());
        settle(&mut world);
        for side in [Side::Client, Side::Server] {
            let _ = add_cbr(&mut world, side, 60, 1_400, 8);
        }
        let mut wans = plan.wans();
        wans[0].role = role;
        let now = world.now();
        world
            .client(0)
            .reconfigure(plan.session.clone(), &wans, now);
        world.run_for(ms(2_000));
        for side in [Side::Client, Side::Server] {
            // The quickest of the three: reports would take this way.
            let [spared, ..] = carried(&mut world, side, ms(2_000));
            println!("{role:?} {side:?}: {spared} bytes in two seconds");
            assert!(spared < 20_000, "heartbeats only: {spared}");
        }
        finish(&mut world);
        assert_eq!(world.lost_inside(), [0, 0]);
    }
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
