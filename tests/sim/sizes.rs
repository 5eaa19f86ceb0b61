//! Paths that carry less than their devices say, and less than before.

use std::time::Duration;

use chainlightning::base::FRAME_BYTES_MAX;
use chainlightning::endpoint::Event;
use chainlightning::session::RUN_BYTES_MAX;
use chainlightning::session::config::{MssMax, SessionConfig};
use chainlightning::session::stats::SessionStats;
use chainlightning::sim::packet::Side;
use chainlightning::sim::plan::Plan;
use chainlightning::sim::traffic::TcpConfig;
use chainlightning::sim::world::World;

use crate::common::*;
use crate::pair;

const BOTH: [Side; 2] = [Side::Client, Side::Server];
/// What a packet of 1500 bytes holds, and what each path must carry.
const FULL: usize = 1_472;
const BASE: usize = 1_232;

fn bulk() -> TcpConfig {
    TcpConfig {
        superframe_segments: 44,
        ..TcpConfig::default()
    }
}

/// Validated size of each link and size in use, at both ends.
fn sizes(world: &mut World) -> [(Vec<u32>, usize); 2] {
    let (near, far) = world.stats(0);
    [near, far].map(|stats: Option<SessionStats>| {
        let stats = stats.unwrap();
        let links = stats.links.iter().map(|link| link.datagram_bytes).collect();
        (links, stats.datagram_bytes)
    })
}

fn size_in_use(world: &mut World, side: Side) -> usize {
    sizes(world)[side.index()].1
}

/// When the size in use becomes `bytes` at both ends, after `from`.
fn reached(world: &mut World, bytes: usize, limit: u64) -> u64 {
    let began = millis(world);
    let done = world.run_until(at(began + limit), |world| {
        sizes(world).iter().all(|(_, used)| *used == bytes)
    });
    assert!(done, "{:?}\n{}", sizes(world), describe(world));
    millis(world) - began
}

#[test]
fn paths_that_carry_everything_are_used_at_full_length_after_a_round_trip() {
    let mut world = world_a(1, "");
    settle(&mut world);
    let took = reached(&mut world, FULL, 500);
    println!("{took} ms after the links were up");
    // The slowest link takes 60 ms there and back.
    assert!(millis(&world) <= 500, "{}", millis(&world));
    let lost: u64 = [0, 1, 2].map(|link| world.lost(0, link)[0]).iter().sum();
    assert_eq!(lost, 0);
}

/// A download that begins with the tunnel, over one link; its longest gap in the first three seconds and what it
/// carried until the end of the tenth.
fn first_download(words: &str, seed: u64) -> (World, Duration, f64) {
    let words = format!("rate=50mbit delay=20ms queue=100ms {words}");
    let mut world = World::new(Plan::new(seed, &[&words]));
    world.run_for(ms(100));
    let flow = add_tcp(&mut world, Side::Server, bulk());
    world.run_for(ms(10_000));
    let tcp = tcp(&world, flow);
    let gap = tcp.longest_gap(at(200), at(3_000));
    let goodput = tcp.goodput(at(100), at(10_100)).as_mbps();
    println!(
        "{words}: gap {gap:?} {goodput:.1} Mbit/s {:?}",
        tcp.counters()
    );
    (world, gap, goodput)
}

#[test]
fn a_path_that_swallows_long_packets_never_stops_the_first_data() {
    for seed in 0..4 {
        let (_, plain_gap, plain) = first_download("", seed);
        let (mut world, gap, goodput) = first_download("mtu=1400", seed);
        println!("{:?}", sizes(&mut world));
        assert!(
            gap <= plain_gap + ms(20),
            "{gap:?}\n{}",
            describe(&mut world)
        );
        assert!(
            goodput >= 0.9 * plain,
            "{goodput} of {plain}\n{}",
            describe(&mut world)
        );
        for (links, used) in sizes(&mut world) {
            assert_eq!((links, used), (vec![1_372], 1_372));
        }
        // Lost probes are no losses.
        let (near, far) = world.stats(0);
        for stats in [near, far].into_iter().flatten() {
            assert_eq!(stats.links[0].suspicions, 0, "{}", states(&world));
        }
    }
}

#[test]
fn the_shortest_link_in_use_decides_and_one_that_goes_frees_the_others() {
    let mut world = World::new(Plan::new(
        3,
        &["rate=50mbit delay=10ms", "rate=50mbit delay=15ms mtu=1492"],
    ));
    settle(&mut world);
    reached(&mut world, 1_464, 3_000);
    let flow = add_tcp(&mut world, Side::Client, TcpConfig::default());
    world.run_for(ms(3_000));
    world.change(0, 1, &BOTH, "outage=on");
    let freed = reached(&mut world, FULL, 3_000);
    world.change(0, 1, &BOTH, "outage=off");
    let back = reached(&mut world, 1_464, 10_000);
    println!("freed after {freed} ms, back after {back} ms");
    world.run_for(ms(3_000));
    let end = millis(&world);
    let gap = tcp(&world, flow).longest_gap(at(1_000), at(end));
    println!("gap {gap:?}\n{}", states(&world));
    assert!(gap <= ms(400), "{gap:?}");
    finish(&mut world);
    assert_eq!(world.lost_inside(), [0, 0]);
}

/// A path shrinks under load; returns the longest time without data.
fn shrink(links: &[&str], from: Side, config: TcpConfig) -> (World, Duration) {
    let mut world = World::new(Plan::new(4, links));
    settle(&mut world);
    reached(&mut world, FULL, 1_000);
    let flow = add_tcp(&mut world, from, config);
    world.run_for(ms(5_000));
    let fall = millis(&world);
    world.change(0, 0, &BOTH, "mtu=1400");
    world.run_for(ms(5_000));
    let gap = tcp(&world, flow).longest_gap(at(fall - 100), at(fall + 5_000));
    println!(
        "{links:?} from {from:?}: gap {gap:?} {:?} {:?}\n{}",
        tcp(&world, flow).counters(),
        sizes(&mut world),
        states(&world)
    );
    (world, gap)
}

#[test]
fn a_black_hole_under_load_is_left_within_some_hundred_milliseconds() {
    for from in BOTH {
        for links in [
            &["rate=50mbit delay=20ms"][..],
            &["rate=50mbit delay=20ms", "rate=50mbit delay=10ms"][..],
        ] {
            for config in [bulk(), TcpConfig::default()] {
                let (mut world, gap) = shrink(links, from, config);
                assert!(gap <= ms(300), "{gap:?}\n{}", describe(&mut world));
                assert_eq!(size_in_use(&mut world, from), 1_372);
                let (near, far) = world.stats(0);
                let sending = [near, far][from.index()].take().unwrap();
                assert_eq!(sending.links[0].black_holes, 1, "{}", describe(&mut world));
                finish(&mut world);
                // Of superframes what comes too late is lost; packets come out late.
                if config.superframe_segments == 1 {
                    let missing = world.lost_inside();
                    assert_eq!(missing[from.index()], 0, "{}", describe(&mut world));
                }
            }
        }
    }
}

#[test]
fn losses_and_full_queues_are_not_taken_for_black_holes() {
    for (seed, words) in [
        (1, "rate=20mbit delay=20ms queue=20ms loss=3%"),
        (2, "rate=20mbit delay=20ms queue=5ms"),
        (3, "rate=20mbit delay=20ms gilbert=4%/12"),
        (4, "rate=20mbit delay=20ms outage=3s+60ms,5s+150ms,7s+400ms"),
        (5, "rate=20mbit delay=20ms handover=3s/60ms-135ms@2s"),
    ] {
        let mut world = World::new(Plan::new(seed, &[words, words]));
        for from in BOTH {
            add_tcp(&mut world, from, bulk());
            add_cbr(&mut world, from, 1, 200, 10);
        }
        add_ping(&mut world, Side::Client, ms(10), u64::MAX);
        world.run_for(ms(12_000));
        let (near, far) = world.stats(0);
        for stats in [near, far].into_iter().flatten() {
            let holes: u64 = stats.links.iter().map(|link| link.black_holes).sum();
            assert_eq!(holes, 0, "{words}\n{}", describe(&mut world));
        }
        for (links, used) in sizes(&mut world) {
            println!("{words}: {links:?} {used}");
            assert_eq!(used, FULL, "{words}: {links:?}\n{}", describe(&mut world));
        }
    }
}

#[test]
fn what_the_kernel_refuses_shortens_at_once() {
    let mut plan = Plan::new(5, &["rate=50mbit delay=10ms", "rate=50mbit delay=15ms"]);
    plan.links[1].device_mtu = Some(1_400);
    let mut world = World::new(plan);
    settle(&mut world);
    let took = reached(&mut world, 1_372, 300);
    println!("{took} ms");
    // The socket of the short link is never told a segment that its device refuses.
    for (_, _, event) in world.events() {
        if let Event::SegmentChanged { link, bytes, .. } = event {
            assert!(link.0 == 0 || *bytes <= 1_372, "{event:?}");
        }
    }
    world.change(0, 1, &BOTH, "outage=on");
    reached(&mut world, FULL, 3_000);
    world.change(0, 1, &BOTH, "outage=off");
    reached(&mut world, 1_372, 10_000);
}

#[test]
fn a_link_that_carries_only_short_datagrams_carries_no_data() {
    let mut world = World::new(Plan::new(
        6,
        &["rate=50mbit delay=10ms", "rate=50mbit delay=15ms mtu=1000"],
    ));
    settle(&mut world);
    let flow = add_tcp(&mut world, Side::Client, bulk());
    world.run_for(ms(8_000));
    let [(links, used), _] = sizes(&mut world);
    assert_eq!((links[1], used), (0, FULL), "{}", describe(&mut world));
    let e = efficiency(&world, flow, 4_000, 8_000, 50.0);
    assert!(e >= 0.85, "{e}");
    // The link gets better.
    world.change(0, 1, &BOTH, "mtu=none");
    world.run_for(ms(15_000));
    let [(links, used), _] = sizes(&mut world);
    assert_eq!((links[1], used), (1_472, FULL), "{}", describe(&mut world));
    assert!(BASE < used);
}

/// A SYN in a frame, and the segment size that it announces.
fn syn() -> Vec<u8> {
    let mut frame = pair::frame(1, 44);
    frame[10 + 9] = 6;
    frame[10 + 20 + 12..10 + 20 + 14].copy_from_slice(&[0x60, 2]);
    frame[10 + 40..].copy_from_slice(&[2, 4, 5, 180]);
    frame
}

#[test]
fn a_syn_comes_out_with_the_segment_size_that_fits() {
    for (max, wanted) in [(Some(MssMax::of_mtu(1_400)), 1_360_u16), (None, 1_460)] {
        let mut tunnel = pair::Pair::new(1, at(0));
        tunnel.client.set_config(SessionConfig {
            mss_max: max,
            ..pair::config()
        });
        (0..500).for_each(|n| tunnel.turn(at(n)));
        tunnel.client.handle_frame(&syn(), at(500)).unwrap();
        let (mut run, mut out) = (vec![0; RUN_BYTES_MAX], vec![0; FRAME_BYTES_MAX]);
        let mut came = None;
        while let Some(transmit) = tunnel.client.poll_transmit(at(500), &mut run) {
            let datagram = &mut run[..transmit.bytes];
            let origin = Some(pair::origin(0));
            let _ = tunnel
                .server
                .handle_datagram(1, transmit.link, datagram, origin, at(500));
            came = came.or(tunnel.server.poll_frame(at(500), &mut out));
        }
        assert_eq!(came, Some(54));
        assert_eq!(out[52..54], wanted.to_be_bytes());
    }
}
