//! Attackers against sessions and endpoints: what they send changes nothing but counters.
//!
//! `HOSTILE_SEEDS=n` lets n hostile peers try instead of two.
#![allow(clippy::unwrap_used)]

#[path = "hostile/datagrams.rs"]
mod datagrams;
#[path = "hostile/handshakes.rs"]
mod handshakes;
mod pair;
#[path = "hostile/world.rs"]
mod world;

use std::time::Duration;

use chainlightning::base::{FRAME_BYTES_MAX, Instant};
use chainlightning::crypto::key_schedule::Role;
use chainlightning::session::RUN_BYTES_MAX;
use chainlightning::session::stats::SessionStats;
use pair::hostile::{Hostile, assault};
use pair::{Pair, handshake, keys, session};

const LINKS: u8 = 3;

fn at(ms: u64) -> Instant {
    Instant::from_millis(ms)
}

fn check_bounds(stats: &SessionStats) {
    let held = stats.held;
    assert!(held.frames_out <= 4096 + 512 + 160 && held.frames_in <= 4096 + 512 + 160);
    assert!(held.symbols_out <= 16_384 && held.symbols_in <= 16_384);
    assert!(held.reorder <= 8192);
}

#[test]
fn an_authenticated_peer_that_sends_anything_at_all_harms_nobody_else() {
    let seeds = std::env::var("HOSTILE_SEEDS").map_or(2, |n| n.parse().unwrap());
    for seed in 0..seeds {
        let initiator = seed % 2 == 1;
        let (near, far) = handshake();
        let now = Instant::ZERO;
        let mut victim = session(initiator, LINKS, now);
        let (own, peers) = if initiator {
            (
                keys(&near, Role::Initiator, LINKS, now),
                keys(&far, Role::Responder, LINKS, now),
            )
        } else {
            (
                keys(&far, Role::Responder, LINKS, now),
                keys(&near, Role::Initiator, LINKS, now),
            )
        };
        victim.install_epoch(own, now);
        let mut hostile = Hostile::new(seed, peers);
        let (mut out, mut frame) = (vec![0; RUN_BYTES_MAX + 1024], vec![0; FRAME_BYTES_MAX]);
        let mut now = now;
        for _ in 0..10 {
            now = assault(
                &mut hostile,
                &mut victim,
                now,
                4_000,
                (&mut out, &mut frame),
            );
            check_bounds(&victim.stats(now));
        }
        let stats = victim.stats(now);
        assert!(
            stats.decoder.groups > 100 && stats.delivered.0 > 100,
            "{stats:?}"
        );
        for link in &stats.links {
            assert!(link.capacity.as_mbps() < 100_000.0, "{link:?}");
        }
        // What is due gets done: time does not stand still.
        while victim.poll_transmit(now, &mut out).is_some() {}
        let later = now + Duration::from_millis(1);
        victim.handle_timeout(later);
        while victim.poll_transmit(later, &mut out).is_some() {}
        while victim.poll_frame(later, &mut frame).is_some() {}
        assert!(
            victim.poll_timeout(later).0 > later,
            "{:?}",
            victim.poll_timeout(later)
        );
    }
}

#[test]
fn keys_older_than_three_minutes_are_gone_on_both_sides() {
    let mut pair = Pair::new(2, Instant::ZERO);
    let mut buffer = vec![0; RUN_BYTES_MAX + 1024];
    for step in 0..3_599 {
        pair.turn(at(step * 50));
    }
    assert!(pair.client.has_keys() && pair.server.has_keys());
    let last = at(180_000);
    // Without a timeout in between: no datagram is sealed or opened with them.
    assert!(pair.client.poll_transmit(last, &mut buffer).is_none());
    assert!(pair.server.poll_transmit(last, &mut buffer).is_none());
    assert!(pair.client.poll_timeout(at(179_990)).0 <= last);
    pair.turn(last);
    assert!(!pair.client.has_keys() && !pair.server.has_keys());
}

#[test]
fn a_key_that_is_used_up_stops_its_link_only() {
    let (near, far) = handshake();
    let now = Instant::ZERO;
    let mut pair = Pair::new(2, now);
    let mut own = keys(&near, Role::Initiator, 2, now);
    own.links[0].seal.lower_limits(20, 40);
    (pair.client, pair.server) = (session(true, 2, now), session(false, 2, now));
    pair.client.install_epoch(own, now);
    pair.server
        .install_epoch(keys(&far, Role::Responder, 2, now), now);
    let mut before = 0;
    for ms in 0..3_000 {
        let _ = pair.client.handle_frame(&pair::frame(1, 1000), at(ms));
        pair.turn(at(ms));
        before = if ms == 2_000 {
            pair.delivered[1]
        } else {
            before
        };
        assert!(
            ms < 100 || pair.client.poll_timeout(at(ms)).0 > at(ms),
            "at {ms} ms"
        );
    }
    assert!(pair.client.wants_rotation());
    let stats = pair.client.stats(at(3_000));
    assert_eq!(stats.links[0].sent.1, 40);
    assert!(
        pair.delivered[1] > before + 950,
        "{} {before}",
        pair.delivered[1]
    );
}
