//! Attackers against sessions and endpoints: what they send changes nothing but counters.
//!
//! `HOSTILE_SEEDS=n` lets n hostile peers try instead of two.
#![allow(clippy::unwrap_used)]

mod pair;

use std::time::Duration;

use chainlightning::base::{DropReason, FRAME_BYTES_MAX, Instant, LinkId, Prefix, WanId};
use chainlightning::crypto::Cipher;
use chainlightning::crypto::key_schedule::Role;
use chainlightning::crypto::keys::PrivateKey;
use chainlightning::crypto::mac::CookieSeal;
use chainlightning::endpoint::{
    AllowedAddresses, Client, ClientConfig, Endpoint, Event, NoOthers, PeerConfig, Server,
    ServerConfig, Workers,
};
use chainlightning::session::RUN_BYTES_MAX;
use chainlightning::session::config::WanConfig;
use chainlightning::session::path::Origin;
use chainlightning::session::stats::SessionStats;
use chainlightning::wire::handshake::{
    COOKIE_BYTES, CookieReply, HELLO_BYTES, Hello, WELCOME_BYTES, sign_hello_mac2,
};
use pair::hostile::{Hostile, assault};
use pair::{Pair, handshake, keys, origin, session};

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

/// A server and its client, and who may speak to whom.
struct World {
    client: Client,
    server: Server,
    server_key: chainlightning::crypto::keys::PublicKey,
    now: Instant,
    buffer: Vec<u8>,
}

impl World {
    fn new() -> Self {
        let (client, server) = (
            PrivateKey::generate().unwrap(),
            PrivateKey::generate().unwrap(),
        );
        let server_key = server.public();
        let wans = (0..LINKS).map(|number| WanConfig::plain(WanId(number), format!("wan{number}")));
        let host = "10.99.0.2".parse().unwrap();
        let peer = PeerConfig {
            name: "client".to_owned(),
            public_key: client.public(),
            preshared_key: None,
            addresses: AllowedAddresses {
                allowed: vec![Prefix::host(host)],
                hosts: vec![host],
            },
        };
        let client = ClientConfig {
            private_key: client,
            server_key,
            preshared_key: None,
            cipher_bits: Cipher::local_bits(),
            wans: wans.collect(),
            wan_of_link: (0..LINKS).map(WanId).collect(),
            datagram_bytes_max: 1472,
            rekey_interval: Duration::from_secs(60),
            session: pair::config(),
            boot_id: [1; 8],
            unix_time_at_zero: Duration::from_secs(1_700_000_000),
            seed: 1,
            workers: Workers::ALONE,
        };
        let server = ServerConfig {
            private_key: server,
            peers: vec![peer],
            cipher_bits: Cipher::local_bits(),
            datagram_bytes_max: 1472,
            handshakes_per_s: 50,
            session: pair::config(),
            boot_id: [2; 8],
            cookie_secret: [3; 32],
            seed: 2,
            workers: Workers::ALONE,
        };
        let now = at(1000);
        Self {
            client: Client::new(client, now),
            server: Server::new(server, now),
            server_key,
            now,
            buffer: vec![0; RUN_BYTES_MAX + 1024],
        }
    }

    /// Datagrams that the client wants to send now.
    fn client_sends(&mut self) -> Vec<(LinkId, Vec<u8>)> {
        let mut all = Vec::new();
        self.client.handle_timeout(self.now);
        while self.client.poll_event().is_some() {}
        while let Some(transmit) = self.client.poll_transmit(self.now, &mut self.buffer) {
            let (_, link) = transmit.link.unwrap();
            let run = &self.buffer[..transmit.bytes];
            let each = run.chunks(usize::from(transmit.segment));
            all.extend(each.map(|datagram| (link, datagram.to_vec())));
        }
        all
    }

    /// Datagrams that the server wants to send now.
    fn server_sends(&mut self) -> Vec<(Origin, Vec<u8>)> {
        let mut all = Vec::new();
        while let Some(transmit) = self.server.poll_transmit(self.now, &mut self.buffer) {
            let run = &self.buffer[..transmit.bytes];
            let each = run.chunks(usize::from(transmit.segment));
            all.extend(each.map(|datagram| (transmit.origin.unwrap(), datagram.to_vec())));
        }
        all
    }

    fn deliver(&mut self, from: Origin, datagram: &[u8]) {
        self.server
            .handle_datagrams(Some(from), &mut datagram.to_vec(), self.now, &mut NoOthers);
    }

    fn turn(&mut self) {
        self.server.handle_timeout(self.now);
        while self.server.poll_event().is_some() {}
        for (link, datagram) in self.client_sends() {
            self.deliver(origin(link.0), &datagram);
        }
        for (_, mut datagram) in self.server_sends() {
            self.client
                .handle_datagrams(None, &mut datagram, self.now, &mut NoOthers);
        }
    }

    fn run(&mut self, millis: u64) {
        for _ in 0..millis {
            self.now += Duration::from_millis(1);
            self.turn();
        }
    }

    /// Everything the server says about itself, but for what it counts as discarded.
    fn state(&mut self) -> String {
        let mut peers = self.server.stats(self.now).peers;
        for peer in &mut peers {
            if let Some(session) = &mut peer.session {
                session.drops = chainlightning::base::DropCounters::default();
            }
        }
        format!("{peers:?} {:?}", self.server.poll_timeout(self.now))
    }

    fn dropped(&mut self, reason: DropReason) -> u64 {
        self.server.stats(self.now).drops.get(reason)
    }

    /// What an attacker sends must have no effect and no answer.
    fn expect_nothing(&mut self, from: Origin, datagram: &[u8], before: &str, what: &str) {
        self.deliver(from, datagram);
        assert!(self.server.poll_event().is_none(), "{what}");
        assert!(self.server_sends().is_empty(), "{what} was answered");
        assert_eq!(self.state(), before, "{what}");
    }

    /// An established tunnel, at rest, and a datagram of the client that has not reached the server.
    fn established() -> (Self, LinkId, Vec<u8>) {
        let mut world = Self::new();
        world.run(500);
        assert!(world.server.stats(world.now).peers[0].session.is_some());
        let (link, datagram) = loop {
            world.now += Duration::from_millis(1);
            world.server.handle_timeout(world.now);
            let _ = world.server_sends();
            if let Some(first) = world.client_sends().into_iter().next() {
                break first;
            }
        };
        let _ = world.server_sends();
        while world.server.poll_event().is_some() {}
        (world, link, datagram)
    }
}

const STRANGER: Origin = Origin {
    port: 0,
    address: std::net::SocketAddr::new(
        std::net::IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 9)),
        99,
    ),
    local: None,
};

#[test]
fn a_flipped_bit_anywhere_in_a_datagram_changes_nothing() {
    let (mut world, link, datagram) = World::established();
    let before = world.state();
    for from in [origin(link.0), STRANGER] {
        for bit in 0..datagram.len() * 8 {
            let mut forged = datagram.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            world.expect_nothing(from, &forged, &before, &format!("bit {bit}"));
        }
        for cut in 0..datagram.len() {
            world.expect_nothing(from, &datagram[..cut], &before, &format!("cut at {cut}"));
        }
    }
    // Proof that the datagram itself would have had an effect.
    world.deliver(origin(link.0), &datagram);
    assert_ne!(world.state(), before);
    let _ = world.server_sends();
    let (before, known) = (world.state(), world.dropped(DropReason::ReplayDuplicate));
    world.expect_nothing(STRANGER, &datagram, &before, "a copy");
    assert_eq!(world.dropped(DropReason::ReplayDuplicate), known + 1);
}

#[test]
fn a_datagram_under_another_links_index_or_an_unknown_one_is_silently_dropped() {
    let (mut world, link, datagram) = World::established();
    let mut indexes = vec![];
    for _ in 0..200 {
        world.now += Duration::from_millis(1);
        for (other, datagram) in world.client_sends() {
            if other != link {
                indexes.push(datagram[4..8].to_vec());
            }
        }
    }
    assert!(!indexes.is_empty());
    world.server.handle_timeout(world.now);
    while world.server.poll_event().is_some() {}
    let _ = world.server_sends();
    let before = world.state();
    for index in &indexes {
        let mut swapped = datagram.clone();
        swapped[4..8].copy_from_slice(index);
        world.expect_nothing(origin(link.0), &swapped, &before, "another link's index");
    }
    let refused = [DropReason::AuthFailed, DropReason::ReplayDuplicate].map(|r| world.dropped(r));
    assert!(refused[0] > 0);
    assert_eq!(refused[0] + refused[1], indexes.len() as u64);
    let mut unknown = datagram;
    unknown[4..8].copy_from_slice(&[0; 4]);
    world.expect_nothing(STRANGER, &unknown, &before, "an unknown index");
    assert_eq!(world.dropped(DropReason::UnknownIndex), 1);
}

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
