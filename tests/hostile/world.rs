//! A server and its client by themselves, and an attacker who sees and sends what it likes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use chainlightning::base::{DropCounters, DropReason, Instant, LinkId, Prefix, WanId};
use chainlightning::crypto::Cipher;
use chainlightning::crypto::keys::{PrivateKey, PublicKey};
use chainlightning::endpoint::{
    AllowedAddresses, Client, ClientConfig, Endpoint, NoOthers, PeerConfig, Server, ServerConfig,
    Workers,
};
use chainlightning::session::RUN_BYTES_MAX;
use chainlightning::session::config::WanConfig;
use chainlightning::session::path::Origin;

use crate::pair::{config, origin};
use crate::{LINKS, at};

/// A server and its client, and who may speak to whom.
pub struct World {
    pub client: Client,
    pub server: Server,
    pub server_key: PublicKey,
    pub now: Instant,
    pub buffer: Vec<u8>,
}

impl World {
    pub fn new() -> Self {
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
            session: config(),
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
            session: config(),
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
    pub fn client_sends(&mut self) -> Vec<(LinkId, Vec<u8>)> {
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
    pub fn server_sends(&mut self) -> Vec<(Origin, Vec<u8>)> {
        let mut all = Vec::new();
        while let Some(transmit) = self.server.poll_transmit(self.now, &mut self.buffer) {
            let run = &self.buffer[..transmit.bytes];
            let each = run.chunks(usize::from(transmit.segment));
            all.extend(each.map(|datagram| (transmit.origin.unwrap(), datagram.to_vec())));
        }
        all
    }

    pub fn deliver(&mut self, from: Origin, datagram: &[u8]) {
        self.server
            .handle_datagrams(Some(from), &mut datagram.to_vec(), self.now, &mut NoOthers);
    }

    pub fn turn(&mut self) {
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

    pub fn run(&mut self, millis: u64) {
        for _ in 0..millis {
            self.now += Duration::from_millis(1);
            self.turn();
        }
    }

    /// Everything the server says about itself, but for what it counts as discarded.
    pub fn state(&mut self) -> String {
        let mut peers = self.server.stats(self.now).peers;
        for peer in &mut peers {
            if let Some(session) = &mut peer.session {
                session.drops = DropCounters::default();
            }
        }
        format!("{peers:?} {:?}", self.server.poll_timeout(self.now))
    }

    pub fn dropped(&mut self, reason: DropReason) -> u64 {
        self.server.stats(self.now).drops.get(reason)
    }

    /// What an attacker sends must have no effect and no answer.
    pub fn expect_nothing(&mut self, from: Origin, datagram: &[u8], before: &str, what: &str) {
        self.deliver(from, datagram);
        assert!(self.server.poll_event().is_none(), "{what}");
        assert!(self.server_sends().is_empty(), "{what} was answered");
        assert_eq!(self.state(), before, "{what}");
    }

    /// An established tunnel, at rest, and a datagram of the client that has not reached the server.
    pub fn established() -> (Self, LinkId, Vec<u8>) {
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

/// Whom nobody knows.
pub const STRANGER: Origin = Origin {
    port: 0,
    address: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9)), 99),
    local: None,
};
