//! How much of the links' sum one TCP gets, and what a ping beside it notices.

use chainlightning::base::Instant;
use chainlightning::sim::packet::Side;
use chainlightning::sim::traffic::TcpConfig;

use crate::common::*;

#[test]
fn one_tcp_fills_three_unequal_links_and_a_ping_beside_it_hardly_notices() {
    let mut world = world_a(1, "");
    settle(&mut world);
    let idle = add_ping(&mut world, Side::Client, ms(10), 50);
    world.run_for(ms(1_000));
    let start = world.now();
    let flow = add_tcp(&mut world, Side::Client, TcpConfig::default());
    let beside = add_ping(&mut world, Side::Client, ms(10), 1_000_000);
    let begin = u64::try_from(start.as_micros() / 1000).unwrap();
    for second in 0..30 {
        world.run_for(ms(1_000));
        let from = begin + second * 1_000;
        println!(
            "{second} E {:.3} window {:?} ping p50 {:?} p99 {:?} {:?}",
            efficiency(&world, flow, from, from + 1_000, 170.0),
            tcp(&world, flow).window(),
            ping(&world, beside).quantile(0.5, at(from), at(from + 1_000)),
            ping(&world, beside).quantile(0.99, at(from), at(from + 1_000)),
            tcp(&world, flow).counters(),
        );
    }
    println!(
        "idle {:?}",
        ping(&world, idle).quantile(0.99, Instant::ZERO, Instant::FAR)
    );
    println!("{}\n{}", describe(&mut world), states(&world));
}
