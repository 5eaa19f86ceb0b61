//! How much of the links' sum one TCP gets, and what a ping beside it notices.

use chainlightning::sim::packet::Side;
use chainlightning::sim::traffic::TcpConfig;
use chainlightning::sim::world::{FlowId, World};

use crate::common::*;

/// A TCP over `world` with a ping beside it: prints what each second brought and gives E of the last `steady` ones.
fn run(
    mut world: World,
    from: Side,
    config: TcpConfig,
    seconds: u64,
    steady: u64,
) -> (f64, World, FlowId, FlowId) {
    let flow = add_tcp(&mut world, from, config);
    let beside = add_ping(&mut world, from, ms(10), u64::MAX);
    let begin = millis(&world);
    for second in 0..seconds {
        world.run_for(ms(1_000));
        let start = begin + second * 1_000;
        let of = |quantile| ping(&world, beside).quantile(quantile, at(start), at(start + 1_000));
        let line = format!(
            "{second:2} E {:.3} window {:.0?} ping {:.1?} {:.1?} {:?}",
            efficiency(&world, flow, start, start + 1_000, 170.0),
            tcp(&world, flow).window(),
            of(0.5).unwrap_or_default(),
            of(0.99).unwrap_or_default(),
            tcp(&world, flow).counters(),
        );
        let (near, far) = world.stats(0);
        let near = if from == Side::Client { near } else { far }.unwrap();
        let links: Vec<String> = near
            .links
            .iter()
            .map(|link| {
                format!(
                    "{:.1} {} {:.1?}",
                    link.capacity.as_mbps(),
                    link.phase,
                    link.queue
                )
            })
            .collect();
        println!(
            "{line} {links:?} queued {} hold {:.0?} load {:.2} aqm {:?}",
            near.queued_bytes,
            near.hold,
            near.load,
            reasons(&near.drops)
        );
    }
    let end = millis(&world);
    let e = efficiency(&world, flow, end - steady * 1_000, end, 170.0);
    println!("E {e:.3}\n{}", states(&world));
    (e, world, flow, beside)
}

#[test]
fn one_tcp_fills_three_unequal_links_and_a_ping_beside_it_hardly_notices() {
    let mut world = world_a(1, "");
    settle(&mut world);
    let idle = add_ping(&mut world, Side::Client, ms(10), 50);
    world.run_for(ms(1_000));
    let idle = ping(&world, idle)
        .quantile(0.99, at(0), at(100_000))
        .unwrap();
    let (e, world, _, beside) = run(world, Side::Client, TcpConfig::default(), 25, 10);
    // The first second holds the links' own search for their capacity.
    let begin = millis(&world) - 24_000;
    let loaded = ping(&world, beside)
        .quantile(0.99, at(begin), at(100_000))
        .unwrap();
    println!("idle {idle:?} loaded {loaded:?}");
    assert!(e >= 0.75, "{e}");
    assert!(loaded <= idle + ms(20), "{loaded:?} {idle:?}");
}

#[test]
fn superframes_fill_the_links_as_well() {
    let mut world = world_a(2, "");
    settle(&mut world);
    let config = TcpConfig {
        superframe_segments: 44,
        ..TcpConfig::default()
    };
    let (e, ..) = run(world, Side::Server, config, 25, 10);
    assert!(e >= 0.75, "{e}");
}

#[test]
fn congestion_is_told_by_marks_where_the_flow_understands_them() {
    let mut world = world_a(3, "");
    settle(&mut world);
    let config = TcpConfig {
        ecn: true,
        ..TcpConfig::default()
    };
    let (e, world, flow, _) = run(world, Side::Client, config, 25, 10);
    assert!(e >= 0.75, "{e}");
    let counters = tcp(&world, flow).counters();
    assert!(
        counters.marks > 0 && counters.retransmitted == 0,
        "{counters:?}"
    );
}

#[test]
fn two_percent_of_loss_costs_a_tcp_little() {
    let mut world = world_a(1, "loss=2%");
    settle(&mut world);
    let (e, mut world, ..) = run(world, Side::Client, TcpConfig::default(), 25, 10);
    finish(&mut world);
    println!("{} missing {:?}", describe(&mut world), world.lost_inside());
    assert!(e >= 0.55, "{e}");
}

#[test]
fn bursts_of_loss_cost_a_tcp_little() {
    let mut shares = [1, 2, 3, 4, 5].map(|seed| {
        let mut world = world_a(seed, "gilbert=2%/8");
        settle(&mut world);
        let (e, mut world, ..) = run(world, Side::Client, TcpConfig::default(), 25, 10);
        finish(&mut world);
        println!("{} missing {:?}", describe(&mut world), world.lost_inside());
        e
    });
    shares.sort_by(f64::total_cmp);
    // One signal of a queue that only a repair made costs a window for ten seconds: 0.72 with it.
    assert!(shares[2] >= 0.77, "{shares:.3?}");
}
