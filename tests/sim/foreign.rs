//! Foreign traffic: others on a link, beside the tunnel.

use chainlightning::base::{Instant, Rate};
use chainlightning::sim::packet::{MSS, MTU, Side};
use chainlightning::sim::traffic::{Cbr, Flow, Tcp, TcpConfig};
use chainlightning::sim::world::{ForeignId, World};

use super::common::{add_ping, at, ms, ping, settle, world_a};

/// The 50 Mbit/s link of A.
const LINK: usize = 1;

fn add_greedy(world: &mut World, from: Side, until: Instant) -> ForeignId {
    let address = world.next_foreign_address(0);
    let config = TcpConfig {
        start: world.now(),
        ..TcpConfig::default()
    };
    let flow = Flow::Tcp(Box::new(Tcp::new(address, from, config)));
    world.add_foreign(0, LINK, flow, until)
}

fn add_steady(world: &mut World, from: Side, mbps: u64, until: Instant) -> ForeignId {
    let (address, start) = (world.next_foreign_address(0), world.now());
    let rate = Rate::from_mbps(mbps);
    let flow = Flow::Cbr(Cbr::new(address, from, rate, MTU, u64::MAX, start));
    world.add_foreign(0, LINK, flow, until)
}

fn cbr(world: &World, id: ForeignId) -> &Cbr {
    match world.foreign(id) {
        Flow::Cbr(cbr) => cbr,
        other => panic!("not a constant rate: {other:?}"),
    }
}

#[test]
fn a_greedy_foreign_flow_fills_an_idle_link_in_either_direction_and_ends_in_time() {
    for from in [Side::Client, Side::Server] {
        let mut world = world_a(1, "");
        settle(&mut world);
        let begin = world.now();
        let until = begin + ms(8_000);
        let id = add_greedy(&mut world, from, until);
        world.run_for(ms(12_000));
        let Flow::Tcp(tcp) = world.foreign(id) else {
            panic!("it is a TCP");
        };
        #[allow(clippy::cast_precision_loss)]
        let share = MSS as f64 / MTU as f64;
        let had = tcp.goodput(begin + ms(4_000), until).as_mbps() / (50.0 * share);
        // What was behind a hole when the span began counts in it.
        assert!((0.93..1.05).contains(&had), "{from:?}: {had}");
        let after = tcp.goodput(until + ms(1_000), until + ms(4_000));
        assert_eq!(after, Rate::ZERO, "{from:?}");
    }
}

#[test]
fn a_steady_foreign_flow_delays_what_the_tunnel_sends_on_its_link_and_never_enters_the_tunnel() {
    let mut world = world_a(1, "");
    settle(&mut world);
    world.record_waits();
    // Five more than the link carries: after a second the queue of 100 ms is full.
    let end = world.now() + ms(4_000);
    let id = add_steady(&mut world, Side::Client, 55, end);
    world.run_for(ms(6_000));
    let full = |from: Side| {
        let waits = world.waits(0, LINK, from).iter();
        let waits = waits.filter(|(time, _)| (end - ms(1_000)..end).contains(time));
        waits.map(|(_, wait)| *wait).max().unwrap()
    };
    assert!(full(Side::Client) > ms(90), "{:?}", full(Side::Client));
    assert!(full(Side::Server) < ms(5), "{:?}", full(Side::Server));
    let flow = cbr(&world, id);
    let (sent, came) = (flow.sent(), flow.arrivals().len() as u64);
    let lost = world.lost(0, LINK)[0];
    assert!(came < sent && sent - came <= lost, "{sent} {came} {lost}");
    let counts = world.counts(Side::Client);
    assert_eq!(counts.sent, 0, "no flow of the tunnel's is told of it");
}

#[test]
fn a_ping_through_the_tunnel_does_not_wait_behind_a_foreign_queue() {
    let mut world = world_a(1, "");
    settle(&mut world);
    let begin = world.now();
    add_greedy(&mut world, Side::Client, begin + ms(6_000));
    let id = add_ping(&mut world, Side::Client, ms(20), 300);
    world.run_for(ms(7_000));
    let ping = ping(&world, id);
    assert_eq!(ping.rtts().len(), 300);
    let worst = ping.quantile(0.99, begin + ms(2_000), begin + ms(6_000));
    assert!(worst.unwrap() < ms(30), "{worst:?}");
}

#[test]
fn damaged_foreign_packets_count_as_lost_and_copies_as_themselves() {
    let mut world = world_a(3, "corrupt=5% dup=5%");
    settle(&mut world);
    let begin = world.now();
    let id = add_steady(&mut world, Side::Server, 10, begin + ms(5_000));
    world.run_for(ms(6_000));
    let flow = cbr(&world, id);
    assert_eq!(flow.sent(), flow.sent_in(Instant::ZERO, at(60_000)));
    #[allow(clippy::cast_precision_loss)]
    let came = flow.arrivals().len() as f64 / flow.sent() as f64;
    assert!((0.98..1.02).contains(&came), "{came}");
}
