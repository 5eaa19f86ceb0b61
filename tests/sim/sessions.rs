//! How sessions begin, change their keys, survive restarts and new addresses, and refuse strangers.

use std::time::Duration;

use chainlightning::base::Instant;
use chainlightning::endpoint::{Endpoint, Event};
use chainlightning::sim::packet::Side;
use chainlightning::sim::plan::Plan;
use chainlightning::sim::world::World;

use crate::common::*;

/// Share of the requests sent from a time on that were answered.
fn answered(world: &World, id: chainlightning::sim::world::FlowId, from: u64, to: u64) -> usize {
    let in_span = |sent: &Instant| *sent >= at(from) && *sent < at(to);
    ping(world, id)
        .rtts()
        .iter()
        .filter(|(sent, _)| in_span(sent))
        .count()
}

fn established(world: &World, side: Side) -> usize {
    let of_side = world.events().iter().filter(|(_, at, _)| *at == side);
    of_side
        .filter(|(_, _, event)| matches!(event, Event::Established { .. }))
        .count()
}

#[test]
fn handshakes_succeed_over_links_that_lose_a_third() {
    for seed in 0..5 {
        let links = [
            "rate=20mbit delay=20ms loss=33%",
            "rate=20mbit delay=40ms loss=33%",
        ];
        let mut world = World::new(Plan::new(seed, &links));
        let done = world.run_until(at(6_000), |world| established(world, Side::Server) > 0);
        println!("seed {seed}: {:?}", world.now());
        assert!(done, "seed {seed}: {:#?}", world.events());
    }
}

#[test]
fn a_handshake_takes_one_round_trip_and_a_half() {
    let mut world = World::new(Plan::new(1, &["delay=30ms", "delay=10ms"]));
    assert!(world.run_until(at(100), |world| established(world, Side::Server) > 0));
    assert!(world.now() <= at(95), "{:?}", world.now());
}

#[test]
fn a_client_whose_first_link_is_dead_connects_by_the_second() {
    let mut world = World::new(Plan::new(1, &["delay=10ms outage=on", "delay=10ms"]));
    let id = add_ping(&mut world, Side::Client, ms(20), 100);
    world.run_for(ms(3_000));
    let answered = answered(&world, id, 500, 2_000);
    println!("{answered} of 75\n{}", states(&world));
    assert_eq!(answered, 75);
}

#[test]
fn a_stranger_gets_no_answer_at_all() {
    let mut plan = Plan::new(1, &["delay=10ms"]);
    plan.wrong_server_key = true;
    let mut world = World::new(plan);
    world.run_for(ms(5_000));
    assert_eq!(world.carried(0, 0)[1], (0, 0));
    assert!(world.carried(0, 0)[0].0 > 3, "the client keeps trying");
    let now = world.now();
    println!("{:?}", reasons(&world.server().stats(now).drops));
}

#[test]
fn another_preshared_key_makes_no_session() {
    let mut plan = Plan::new(1, &["delay=10ms"]);
    plan.preshared_key = Some(false);
    let mut world = World::new(plan.clone());
    world.run_for(ms(5_000));
    assert_eq!(
        established(&world, Side::Client) + established(&world, Side::Server),
        0
    );
    plan.preshared_key = Some(true);
    let mut world = World::new(plan);
    assert!(world.run_until(at(100), |world| established(world, Side::Server) > 0));
}

#[test]
fn keys_change_under_traffic_and_nothing_is_lost() {
    for loss in ["", "loss=1%"] {
        let links = LINKS_A.map(|link| format!("{link} {loss}"));
        let mut plan = Plan::new(4, &links.each_ref().map(String::as_str));
        plan.rekey_interval = Duration::from_secs(2);
        let mut world = World::new(plan);
        settle(&mut world);
        let ids = [Side::Client, Side::Server].map(|side| add_cbr(&mut world, side, 40, 1_400, 12));
        let pings = add_ping(&mut world, Side::Client, ms(5), 2_400);
        world.run_for(ms(12_000));
        finish(&mut world);
        let epochs = established(&world, Side::Client);
        println!("{loss}: {epochs} epochs, {}", describe(&mut world));
        assert!(epochs >= 6, "{epochs} epochs");
        for id in ids {
            assert_eq!(
                cbr(&world, id).arrivals().len() as u64,
                cbr(&world, id).sent(),
                "{loss}"
            );
        }
        assert_eq!(ping(&world, pings).rtts().len(), 2_400, "{loss}");
    }
}

#[test]
fn a_new_address_of_a_link_is_learned_and_its_traffic_goes_on() {
    let mut world = world_a(5, "");
    settle(&mut world);
    let up = add_cbr(&mut world, Side::Client, 60, 1_400, 5);
    let down = add_cbr(&mut world, Side::Server, 60, 1_400, 5);
    world.run_for(ms(1_000));
    for link in 0..3 {
        world.rebind(0, link);
        world.run_for(ms(1_000));
    }
    finish(&mut world);
    println!("{}{}", describe(&mut world), states(&world));
    let changes = world.events().iter();
    let changes = changes.filter(|(_, _, event)| matches!(event, Event::PathChanged { .. }));
    assert_eq!(changes.count(), 6, "each link had two addresses");
    assert_eq!(world.lost_inside(), [0, 0]);
    for id in [up, down] {
        assert!(cbr(&world, id).arrivals().len() as u64 > cbr(&world, id).sent() * 9 / 10);
    }
    let (near, far) = world.stats(0);
    for link in near.unwrap().links.iter().chain(&far.unwrap().links) {
        assert_eq!(link.state.name(), "up");
    }
}

#[test]
fn a_server_that_starts_anew_is_found_again() {
    let mut world = world_a(6, "");
    settle(&mut world);
    let id = add_ping(&mut world, Side::Client, ms(20), 1_000_000);
    world.run_for(ms(3_000));
    world.restart_server();
    let restarted = millis(&world);
    world.run_for(ms(6_000));
    let first = ping(&world, id)
        .rtts()
        .iter()
        .find(|(sent, _)| *sent >= at(restarted + 20));
    println!(
        "restarted {restarted}, first answered {first:?}\n{}",
        states(&world)
    );
    assert!(first.unwrap().0 < at(restarted + 3_000));
    assert_eq!(
        answered(&world, id, restarted + 3_000, restarted + 5_000),
        100
    );
    world.run_for(ms(3_000));
    assert_eq!(
        answered(&world, id, restarted + 5_000, restarted + 8_000),
        150
    );
}

#[test]
fn a_client_that_starts_anew_replaces_its_old_session() {
    let mut world = world_a(7, "");
    settle(&mut world);
    let id = add_ping(&mut world, Side::Server, ms(20), 1_000_000);
    world.run_for(ms(3_000));
    world.restart_client(0);
    let restarted = millis(&world);
    world.run_for(ms(4_000));
    println!("{:#?}", world.events());
    assert_eq!(
        answered(&world, id, restarted + 500, restarted + 3_500),
        150
    );
}

#[test]
fn a_session_that_is_closed_is_gone_at_once() {
    let mut world = world_a(8, "");
    settle(&mut world);
    let now = world.now();
    world.client(0).close(now);
    world.run_for(ms(100));
    let lost = |(_, side, event): &(Instant, Side, Event)| {
        *side == Side::Server && matches!(event, Event::Lost { .. })
    };
    assert!(world.events().iter().any(lost), "{:#?}", world.events());
}

#[test]
fn two_clients_do_not_hear_each_other() {
    let mut plan = Plan::new(9, &["rate=50mbit delay=10ms", "rate=20mbit delay=20ms"]);
    plan.clients = 2;
    let mut world = World::new(plan);
    world.run_for(ms(1_000));
    let flows: Vec<_> = (0..2)
        .map(|client| {
            let address = world.next_address(client);
            let start = world.now();
            let ping =
                chainlightning::sim::traffic::Ping::new(address, Side::Server, ms(10), 100, start);
            world.add(client, chainlightning::sim::traffic::Flow::Ping(ping))
        })
        .collect();
    world.run_for(ms(2_000));
    for flow in flows {
        assert_eq!(ping(&world, flow).rtts().len(), 100);
    }
}
