//! One BBR flow over links whose delays are far apart.

use chainlightning::session::config::Equalise;
use chainlightning::sim::packet::Side;
use chainlightning::sim::plan::Plan;
use chainlightning::sim::traffic::{CongestionControl, TcpConfig};
use chainlightning::sim::world::World;

use crate::common::*;

const LINKS: [&str; 2] = [
    "rate=100mbit delay=5ms queue=100ms",
    "rate=50mbit delay=30ms queue=100ms",
];

/// Part of the links' sum that a flow gets between two seconds of its life, and the 99th percentile of pings beside it
/// in the same time.
fn outcome(equalise: Equalise, control: CongestionControl, from: u64, to: u64) -> (f64, u64) {
    let mut plan = Plan::new(5, &LINKS);
    plan.session.equalise = equalise;
    let mut world = World::new(plan);
    world.run_for(ms(1_000));
    let config = TcpConfig {
        control,
        superframe_segments: 44,
        ..TcpConfig::default()
    };
    let begin = millis(&world);
    let flow = add_tcp(&mut world, Side::Client, config);
    let beside = add_ping(&mut world, Side::Client, ms(10), u64::MAX);
    world.run_for(ms(to * 1_000));
    let (from, to) = (begin + from * 1_000, begin + to * 1_000);
    let quantile = ping(&world, beside).quantile(0.99, at(from), at(to));
    let e = efficiency(&world, flow, from, to, 150.0);
    let rtt = u64::try_from(quantile.unwrap().as_millis()).unwrap();
    println!("{equalise:?} {control:?} {from}-{to}: E {e:.3}, ping p99 {rtt} ms");
    (e, rtt)
}

#[test]
fn a_bbr_flow_fills_unequal_links_when_their_delays_are_made_more_equal() {
    let (off, _) = outcome(Equalise::Off, CongestionControl::Bbr, 25, 32);
    let (auto, rtt) = outcome(Equalise::Auto, CongestionControl::Bbr, 25, 32);
    assert!(off < 0.75, "{off}: nothing is left to do");
    assert!(auto >= 0.88, "{auto}");
    assert!(rtt <= 20, "{rtt}: sparse flows wait for nobody");
}

#[test]
fn it_loses_nothing_while_it_still_believes_in_the_shorter_round_trip() {
    let (off, _) = outcome(Equalise::Off, CongestionControl::Bbr, 2, 10);
    let (auto, _) = outcome(Equalise::Auto, CongestionControl::Bbr, 2, 10);
    assert!(auto >= off - 0.03, "{auto} {off}");
}

#[test]
fn delays_that_are_equal_from_the_first_packet_fill_the_links_at_once() {
    let (on, rtt) = outcome(Equalise::On, CongestionControl::Bbr, 3, 9);
    assert!(on >= 0.88, "{on}");
    assert!(rtt <= 20, "{rtt}: only TCP is delayed");
}

#[test]
fn a_cubic_flow_gets_the_same_with_and_without() {
    let (off, _) = outcome(Equalise::Off, CongestionControl::Cubic, 4, 14);
    let (auto, _) = outcome(Equalise::Auto, CongestionControl::Cubic, 4, 14);
    assert!(auto >= 0.93 && auto >= off - 0.02, "{auto} {off}");
}
