//! The whole tunnel in virtual time: scenarios from plans and seeds.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::time::Duration;

use chainlightning::base::Instant;
use chainlightning::sim::packet::Side;
use chainlightning::sim::plan::Plan;
use chainlightning::sim::traffic::{Flow, Ping};
use chainlightning::sim::world::World;

#[test]
fn a_ping_crosses_three_links_both_ways() {
    let links = [
        "rate=100mbit delay=10ms",
        "rate=50mbit delay=20ms",
        "rate=20mbit delay=30ms",
    ];
    let mut world = World::new(Plan::new(1, &links));
    let ms = Duration::from_millis;
    let mut ids = Vec::new();
    for side in [Side::Client, Side::Server] {
        let address = world.next_address(0);
        let ping = Ping::new(address, side, ms(10), 100, Instant::from_millis(500));
        ids.push(world.add(0, Flow::Ping(ping)));
    }
    world.run_for(ms(2_000));
    for id in ids {
        let Flow::Ping(ping) = world.flow(id) else {
            panic!()
        };
        println!(
            "{} of {}: {:?}",
            ping.rtts().len(),
            ping.sent(),
            ping.quantile(0.99, Instant::ZERO, Instant::FAR)
        );
    }
    println!("{:#?}", world.events());
    println!("{:?}", world.stats(0));
}
