//! Copies and recordings of HELLOs, and sessions whose keys nobody renews.

use std::time::Duration;

use chainlightning::base::{DropReason, FRAME_BYTES_MAX, LinkId};
use chainlightning::crypto::mac::CookieSeal;
use chainlightning::endpoint::{Endpoint, Event, NoOthers};
use chainlightning::wire::handshake::{
    COOKIE_BYTES, CookieReply, HELLO_BYTES, Hello, WELCOME_BYTES, sign_hello_mac2,
};

use crate::pair::{self, origin};
use crate::world::{STRANGER, World};

fn hellos(world: &mut World) -> Vec<(LinkId, Vec<u8>)> {
    let mut all = world.client_sends();
    all.retain(|(_, datagram)| datagram.len() == HELLO_BYTES);
    all
}

#[test]
fn copies_of_a_hello_get_the_same_welcome_for_a_while_and_a_replay_gets_nothing() {
    let mut world = World::new();
    let (_, hello) = hellos(&mut world).remove(0);
    let mut welcomes = Vec::new();
    for link in 0..20 {
        world.deliver(origin(link), &hello);
        let answers = world.server_sends();
        assert_eq!(answers.len(), 1);
        assert_eq!(
            answers[0].0,
            origin(link),
            "the answer goes where its copy came from"
        );
        welcomes.push(answers[0].1.clone());
    }
    assert!(
        welcomes
            .iter()
            .all(|w| *w == welcomes[0] && w.len() == WELCOME_BYTES)
    );
    assert_eq!(world.server.stats(world.now).handshakes, 1);
    // A copy with another content is not a copy, whatever its first bytes are.
    for bit in 0..376 * 8 {
        let mut forged = hello.clone();
        forged[bit / 8] ^= 1 << (bit % 8);
        world.deliver(STRANGER, &forged);
        assert!(world.server_sends().is_empty(), "bit {bit}");
    }
    world.now += Duration::from_secs(11);
    world.server.handle_timeout(world.now);
    let before = world.state();
    world.expect_nothing(STRANGER, &hello, &before, "a replayed HELLO");
    assert_eq!(world.dropped(DropReason::HandshakeReplay), 1);
    assert_eq!(world.server.stats(world.now).handshakes, 1);
}

/// A recording with the proof of an address, which its sender can give.
fn proven(world: &World, recorded: &[u8], cookie: &[u8]) -> [u8; HELLO_BYTES] {
    let reply = CookieReply::parse(cookie).unwrap();
    let mac1 = *Hello::parse(recorded).unwrap().mac1();
    let cookie = CookieSeal::new(world.server_key)
        .open(&reply, &mac1)
        .unwrap();
    let mut proven: [u8; HELLO_BYTES] = recorded.try_into().unwrap();
    sign_hello_mac2(&mut proven, |covered| cookie.mac2(covered));
    proven
}

#[test]
fn a_recording_replaces_neither_the_next_keys_nor_those_that_wait() {
    let mut world = World::new();
    // Twice: a first contact whose WELCOME is under way, and new keys for what runs.
    for established in [false, true] {
        let (_, recorded) = loop {
            world.now += Duration::from_millis(100);
            if let Some(hello) = hellos(&mut world).into_iter().next() {
                break hello;
            }
        };
        world.now += Duration::from_secs(6);
        let (link, hello) = hellos(&mut world).remove(0);
        assert_ne!(recorded[..376], hello[..376]);
        world.deliver(origin(link.0), &hello);
        let mut answers = world.server_sends();
        answers.retain(|(_, answer)| answer.len() == WELCOME_BYTES);
        let (_, mut welcome) = answers.remove(0);
        world.deliver(STRANGER, &recorded);
        let answers = world.server_sends();
        let (_, cookie) = answers.iter().find(|(to, _)| *to == STRANGER).unwrap();
        let proven = proven(&world, &recorded, cookie);
        world.deliver(STRANGER, &proven);
        assert!(world.server_sends().iter().all(|(to, _)| *to != STRANGER));
        assert_eq!(
            world.dropped(DropReason::HandshakeReplay),
            1 + u64::from(established)
        );
        // The handshake ends as if nothing had been.
        let handshakes = world.client.stats(world.now).handshakes;
        world
            .client
            .handle_datagrams(None, &mut welcome, world.now, &mut NoOthers);
        world.run(3_000);
        assert_eq!(world.client.stats(world.now).handshakes, handshakes);
        assert!(world.server.stats(world.now).peers[0].session.is_some());
    }
}

#[test]
fn a_recorded_hello_that_never_arrived_cannot_disturb_what_runs() {
    let mut world = World::new();
    let (_, recorded) = hellos(&mut world).remove(0);
    // The next attempt succeeds.
    world.now += Duration::from_secs(6);
    world.run(1_000);
    let epoch = world.server.stats(world.now).peers[0].epoch;
    assert_eq!(epoch, 1);
    world.deliver(STRANGER, &recorded);
    let (_, cookie) = world.server_sends().remove(0);
    assert_eq!(cookie.len(), COOKIE_BYTES);
    let proven = proven(&world, &recorded, &cookie);
    world.deliver(STRANGER, &proven);
    let answers = world.server_sends();
    assert!(
        answers
            .iter()
            .any(|(to, a)| *to == STRANGER && a.len() == WELCOME_BYTES)
    );
    // The session goes on: no event, no new handshake, and frames pass.
    let dialed = world.client.stats(world.now).handshakes;
    world
        .client
        .handle_frame(&pair::frame(1, 500), world.now, &mut NoOthers);
    world.run(20_000);
    assert_eq!(world.client.stats(world.now).handshakes, dialed);
    let mut frame = vec![0; FRAME_BYTES_MAX];
    assert!(world.server.poll_frame(world.now, &mut frame).is_some());
    while let Some(event) = world.server.poll_event() {
        assert!(!matches!(
            event,
            Event::Lost { .. } | Event::Established { .. }
        ));
    }
    // And a third use of the recording is refused.
    world.deliver(STRANGER, &proven);
    assert!(world.server_sends().iter().all(|(to, _)| *to != STRANGER));
}

#[test]
fn a_session_without_keys_is_lost_on_both_sides() {
    let mut world = World::new();
    world.run(500);
    let until = world.now + Duration::from_secs(190);
    let mut lost = [0, 0];
    while world.now < until {
        world.now += Duration::from_millis(20);
        world.client.handle_timeout(world.now);
        world.server.handle_timeout(world.now);
        // Nothing arrives anywhere.
        while world
            .client
            .poll_transmit(world.now, &mut world.buffer)
            .is_some()
        {}
        while world
            .server
            .poll_transmit(world.now, &mut world.buffer)
            .is_some()
        {}
        while let Some(event) = world.client.poll_event() {
            lost[0] += u32::from(matches!(event, Event::Lost { .. }));
        }
        while let Some(event) = world.server.poll_event() {
            lost[1] += u32::from(matches!(event, Event::Lost { .. }));
        }
    }
    assert_eq!(lost, [1, 1]);
    assert!(world.server.stats(world.now).peers[0].session.is_none());
    // The way is free again.
    world.run(6_000);
    assert!(world.server.stats(world.now).peers[0].session.is_some());
}
