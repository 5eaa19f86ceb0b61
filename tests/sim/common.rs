//! What scenarios share: links, flows and figures.

use std::time::Duration;

use chainlightning::base::{DropCounters, Instant};
use chainlightning::endpoint::{Endpoint, Event};
use chainlightning::link::State;
use chainlightning::session::stats::SessionStats;
use chainlightning::sim::packet::Side;
use chainlightning::sim::plan::Plan;
use chainlightning::sim::traffic::{Cbr, Flow, Ping, Tcp, TcpConfig};
use chainlightning::sim::world::{FlowId, World};

/// Links "A" of the design: 100/50/20 Mbit/s with 10/20/30 ms each way, and queues as home routers have them.
pub const LINKS_A: [&str; 3] = [
    "rate=100mbit delay=10ms queue=100ms",
    "rate=50mbit delay=20ms queue=100ms",
    "rate=20mbit delay=30ms queue=100ms",
];

/// Goodput of a full packet of 1400 bytes as part of what the links carry for it.
pub const GOODPUT_SHARE: f64 = 0.93;

pub const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub const fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

/// A world with these words added to each link of A.
pub fn world_a(seed: u64, words: &str) -> World {
    let links = LINKS_A.map(|link| format!("{link} {words}"));
    let links: Vec<&str> = links.iter().map(String::as_str).collect();
    World::new(Plan::new(seed, &links))
}

pub fn add_ping(world: &mut World, from: Side, interval: Duration, count: u64) -> FlowId {
    let (address, start) = (world.next_address(0), world.now());
    world.add(
        0,
        Flow::Ping(Ping::new(address, from, interval, count, start)),
    )
}

pub fn add_tcp(world: &mut World, from: Side, config: TcpConfig) -> FlowId {
    let address = world.next_address(0);
    let config = TcpConfig {
        start: world.now(),
        ..config
    };
    world.add(0, Flow::Tcp(Box::new(Tcp::new(address, from, config))))
}

pub fn add_cbr(world: &mut World, from: Side, mbps: u64, bytes: usize, seconds: u64) -> FlowId {
    let rate = chainlightning::base::Rate::from_mbps(mbps);
    let count = rate.bytes_in(Duration::from_secs(seconds)) / bytes as u64;
    let (address, start) = (world.next_address(0), world.now());
    world.add(
        0,
        Flow::Cbr(Cbr::new(address, from, rate, bytes, count, start)),
    )
}

pub fn ping(world: &World, id: FlowId) -> &Ping {
    match world.flow(id) {
        Flow::Ping(ping) => ping,
        other => panic!("not a ping: {other:?}"),
    }
}

pub fn tcp(world: &World, id: FlowId) -> &Tcp {
    match world.flow(id) {
        Flow::Tcp(tcp) => tcp,
        other => panic!("not a TCP: {other:?}"),
    }
}

pub fn cbr(world: &World, id: FlowId) -> &Cbr {
    match world.flow(id) {
        Flow::Cbr(cbr) => cbr,
        other => panic!("not a constant rate: {other:?}"),
    }
}

/// Runs until all links of client 0 are up at both ends.
pub fn settle(world: &mut World) {
    let up = world.run_until(world.now() + ms(5_000), |world| {
        let (near, far) = world.stats(0);
        let all_up = |stats: Option<SessionStats>| {
            stats.is_some_and(|stats| stats.links.iter().all(|link| link.state == State::Up))
        };
        all_up(near) && all_up(far)
    });
    assert!(up, "the links come up: {:#?}", world.events());
}

/// Bytes that a link of client 0 carried from `from`.
fn bytes(world: &World, link: usize, from: Side) -> u64 {
    world.carried(0, link)[from.index()].1
}

/// Bytes that each of three links carried from `from` during `time`.
pub fn carried(world: &mut World, from: Side, time: Duration) -> [u64; 3] {
    let before = [0, 1, 2].map(|link| bytes(world, link, from));
    world.run_for(time);
    [0, 1, 2].map(|link| bytes(world, link, from) - before[link])
}

/// Efficiency of a TCP in a span: goodput as part of what `rate` Mbit/s of links can carry.
pub fn efficiency(world: &World, id: FlowId, from: u64, to: u64, mbps: f64) -> f64 {
    let goodput = tcp(world, id).goodput(at(from), at(to)).as_mbps();
    goodput / (GOODPUT_SHARE * mbps)
}

/// The reasons of a set of counters that are not zero.
pub fn reasons(drops: &DropCounters) -> Vec<(&'static str, u64)> {
    let counted = drops.iter().filter(|(_, count)| *count > 0);
    counted
        .map(|(reason, count)| (reason.name(), count))
        .collect()
}

/// One line for each link and end, and the drops: for reading, and for failures.
pub fn describe(world: &mut World) -> String {
    let mut text = String::new();
    let now = world.now();
    let (near, far) = (world.client(0).stats(now), world.server().stats(now));
    for (name, stats) in [("client", near), ("server", far)] {
        text += &format!(
            "{name} handshakes {} dialing {} epoch {} drops {:?}\n",
            stats.handshakes,
            stats.peers[0].dialing,
            stats.peers[0].epoch,
            reasons(&stats.drops)
        );
    }
    let (near, far) = world.stats(0);
    for (name, stats) in [("client", near), ("server", far)] {
        let Some(stats) = stats else { continue };
        for link in &stats.links {
            text += &format!(
                "{name} {:?} {} C {:.1} {} sent {} lost {} rtt {:?} out {:?}/{:?} queue {:?} loss {:.4} suspicions {}\n",
                link.id,
                link.state.name(),
                link.capacity.as_mbps(),
                link.phase,
                link.sent.1,
                link.lost_symbols,
                link.rtt.p50,
                link.delay_out.p50,
                link.delay_out.p99,
                link.queue,
                link.loss_out,
                link.suspicions,
            );
        }
        text += &format!(
            "{name} held {:?} symbols {:?} decoder {:?}\n   reorder {:?} hold {:?} delivered {:?} queued {} load {:.2} drops {:?}\n",
            stats.held,
            stats.symbols,
            stats.decoder,
            stats.reorder,
            stats.hold,
            stats.delivered,
            stats.queued_bytes,
            stats.load,
            reasons(&stats.drops),
        );
    }
    text
}

/// Changes of link states, for failures.
pub fn states(world: &World) -> String {
    let mut text = String::new();
    for (time, side, event) in world.events() {
        if let Event::LinkState { link, state, .. } = event {
            text += &format!("{time:?} {side:?} {link:?} {}\n", state.name());
        }
    }
    text
}

/// The present in milliseconds.
pub fn millis(world: &World) -> u64 {
    world.now().as_micros() / 1_000
}

/// Stops all flows and lets everything under way arrive.
pub fn finish(world: &mut World) {
    world.stop_all();
    world.run_for(ms(2_500));
}
