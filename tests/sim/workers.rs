//! Several workers at one end or both: a session for each of the client's, over the same WANs.

use std::time::Duration;

use chainlightning::sim::packet::Side;
use chainlightning::sim::plan::Plan;
use chainlightning::sim::traffic::TcpConfig;
use chainlightning::sim::world::{FlowId, World};

use crate::common::*;

/// Mbit/s of the links below.
const SUM: f64 = 150.0;
const LINKS: [&str; 2] = [
    "rate=100mbit delay=10ms queue=100ms",
    "rate=50mbit delay=20ms queue=100ms",
];

fn world(seed: u64, workers: [u8; 2]) -> World {
    World::new(Plan {
        workers,
        ..Plan::new(seed, &LINKS)
    })
}

/// The `count` flows of a run, and the efficiency of each and of the sum in its last `steady` ms.
fn share(world: &mut World, flows: &[FlowId], seconds: u64, steady: u64) -> Vec<f64> {
    world.run_for(Duration::from_secs(seconds));
    let end = millis(world);
    let each = flows
        .iter()
        .map(|flow| efficiency(world, *flow, end - steady, end, SUM));
    let each: Vec<f64> = each.collect();
    println!("{:.3} {each:.3?}", each.iter().sum::<f64>());
    each
}

fn flows(world: &mut World, from: Side, count: usize) -> Vec<FlowId> {
    settle_all(world);
    let config = TcpConfig::default();
    (0..count).map(|_| add_tcp(world, from, config)).collect()
}

/// Waits for the sessions of all workers.
fn settle_all(world: &mut World) {
    settle(world);
    world.run_for(ms(500));
}

/// The 95th percentile of what datagrams from a side waited in the bottleneck of a link since `since`.
fn queue(world: &World, link: usize, from: Side, since: u64) -> Duration {
    let waits = world.waits(0, link, from).iter();
    let mut waits: Vec<_> = waits
        .filter(|(time, _)| *time >= at(since))
        .map(|(_, wait)| *wait)
        .collect();
    waits.sort_unstable();
    waits[waits.len() * 95 / 100]
}

#[test]
fn two_workers_share_the_wans_as_one_would_use_them() {
    for from in [Side::Client, Side::Server] {
        let mut queues = Vec::new();
        for workers in [[1, 1], [2, 2]] {
            let mut world = world(1, workers);
            let flows = flows(&mut world, from, 2);
            world.run_for(ms(4_000));
            world.record_waits();
            let since = millis(&world);
            let each = share(&mut world, &flows, 8, 8_000);
            let sum: f64 = each.iter().sum();
            assert!(sum > 0.85, "{workers:?} {from:?}: {sum}");
            let (least, most) = (each[0].min(each[1]), each[0].max(each[1]));
            assert!(most < 2.0 * least, "{workers:?} {from:?}: {each:?}");
            queues.push([0, 1].map(|link| queue(&world, link, from, since)));
            println!("{workers:?} {from:?} {:?}", queues.last());
        }
        for (one, two) in queues[0].iter().zip(queues[1]) {
            assert!(two < one.mul_f64(1.5).max(ms(8)), "{one:?} {two:?}");
        }
    }
}

#[test]
fn a_flow_alone_gets_all_wans_whatever_its_worker() {
    for workers in [[2, 1], [1, 2], [3, 2], [2, 4]] {
        for from in [Side::Client, Side::Server] {
            let mut world = world(2, workers);
            let flows = flows(&mut world, from, 1);
            let each = share(&mut world, &flows, 10, 6_000);
            println!("{workers:?} {from:?} handed {}", world.handed_over());
            assert!(each[0] > 0.8, "{workers:?} {from:?}: {each:?}");
            world.stop_all();
            world.run_for(ms(2_000));
            assert_eq!(world.lost_inside(), [0, 0], "{}", describe(&mut world));
        }
    }
}

#[test]
fn flows_share_by_their_number_and_not_by_their_workers() {
    let mut world = world(3, [2, 2]);
    settle_all(&mut world);
    // Even flows begin on worker 0, odd ones on worker 1: three against one.
    let ids: Vec<_> = (0..7)
        .map(|_| add_tcp(&mut world, Side::Client, TcpConfig::default()))
        .collect();
    for idle in [3, 5, 6] {
        world.stop(ids[idle]);
    }
    let active = [0, 2, 4, 1].map(|flow| ids[flow]);
    let each = share(&mut world, &active, 15, 8_000);
    assert!(each.iter().sum::<f64>() > 0.8, "{each:?}");
    let together = each[0] + each[1] + each[2];
    assert!(together > 1.6 * each[3], "{each:?}");
}

#[test]
fn what_ends_with_an_earlier_start_of_the_client_carries_nothing_any_more() {
    for workers in [[2, 1], [3, 2]] {
        let mut world = world(4, workers);
        let flows = flows(&mut world, Side::Server, 4);
        world.run_for(ms(2_000));
        // It comes back at once, and its old sessions are known to nobody but the server.
        world.restart_client(0);
        world.run_for(ms(3_000));
        let each = share(&mut world, &flows, 6, 5_000);
        assert!(each.iter().all(|e| *e > 0.05), "{each:?}");
        assert!(each.iter().sum::<f64>() > 0.7, "{each:?}");
    }
}

#[test]
fn a_server_that_starts_anew_is_found_by_all_workers() {
    let mut world = world(5, [2, 3]);
    let flows = flows(&mut world, Side::Client, 4);
    world.run_for(ms(2_000));
    world.restart_server();
    world.run_for(ms(5_000));
    let each = share(&mut world, &flows, 6, 5_000);
    assert!(each.iter().all(|e| *e > 0.05), "{each:?}");
    assert!(each.iter().sum::<f64>() > 0.7, "{each:?}");
}

#[test]
fn links_whose_addresses_change_are_found_by_whichever_worker_hears_them() {
    let mut world = world(6, [2, 3]);
    let flows = flows(&mut world, Side::Server, 2);
    world.run_for(ms(2_000));
    for link in [0, 1, 0, 1] {
        world.rebind(0, link);
        world.run_for(ms(1_000));
    }
    let each = share(&mut world, &flows, 5, 4_000);
    assert!(each.iter().sum::<f64>() > 0.75, "{each:?}");
    assert!(world.handed_over() > 100);
}

#[test]
fn a_wan_that_dies_and_returns_is_noticed_once_for_all_workers() {
    let mut world = world(7, [2, 2]);
    let flows = flows(&mut world, Side::Client, 2);
    world.run_for(ms(4_000));
    world.change(0, 0, &[Side::Client, Side::Server], "outage=on");
    let during = share(&mut world, &flows, 4, 2_000);
    let sum: f64 = during.iter().sum();
    assert!(sum > 0.25, "the other WAN has a third: {during:?}");
    world.change(0, 0, &[Side::Client, Side::Server], "outage=off");
    let after = share(&mut world, &flows, 6, 3_000);
    assert!(after.iter().sum::<f64>() > 0.8, "{after:?}");
}

#[test]
fn clients_with_one_session_spread_over_the_servers_workers() {
    let mut world = World::new(Plan {
        clients: 3,
        workers: [1, 2],
        ..Plan::new(8, &LINKS)
    });
    settle_all(&mut world);
    let now = world.now();
    let sessions = |stats: chainlightning::endpoint::EndpointStats| {
        let peers = stats.peers.iter();
        peers.filter(|peer| peer.session.is_some()).count()
    };
    use chainlightning::endpoint::Endpoint;
    let first = sessions(world.server().stats(now));
    assert!((1..=2).contains(&first), "{first}");
}
