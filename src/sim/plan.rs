//! What a simulated world consists of, with defaults for what a scenario does not care about.

use std::net::IpAddr;
use std::time::Duration;

use super::impairment::Spec;
use super::packet::FlowAddress;
use crate::base::{Prefix, Rate, WanId};
use crate::crypto::Cipher;
use crate::crypto::keys::{PresharedKey, PrivateKey};
use crate::endpoint::{AllowedAddresses, ClientConfig, PeerConfig, ServerConfig, Workers};
use crate::fec::protection::{Mode as FecMode, RESIDUAL};
use crate::session::config::{
    Direction, Equalise, Mode, SessionConfig, WanConfig, WanLimits, WanRole,
};

/// One link of each client: a WAN of its own unless told otherwise.
#[derive(Clone, Debug)]
pub struct LinkPlan {
    /// Towards the server.
    pub up: Spec,
    /// Towards the client.
    pub down: Spec,
    /// Its WAN.
    pub wan: u8,
    /// Its WAN is a backup.
    pub backup: bool,
    /// Which way its WAN carries data.
    pub direction: Direction,
    /// When its WAN's links are parked.
    pub limits: WanLimits,
    /// Configured ceilings of the WAN, up and down.
    pub rates: [Option<Rate>; 2],
    /// Longest packet that the devices of its ends take; `None` = any.
    pub device_mtu: Option<u32>,
}

impl LinkPlan {
    /// A link with the same words for both directions, on WAN `wan`, of unknown rate.
    ///
    /// # Panics
    /// If the words are not a specification.
    pub fn new(wan: u8, words: &str) -> Self {
        let spec = Spec::parse(words).expect("a test's words are right");
        Self {
            up: spec.clone(),
            down: spec,
            wan,
            backup: false,
            direction: Direction::Both,
            limits: WanLimits::default(),
            rates: [None; 2],
            device_mtu: None,
        }
    }
}

/// A world to be made.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Everything random follows from it, but for the bytes of the handshakes.
    pub seed: u64,
    /// Number of clients; each has all of `links`.
    pub clients: u8,
    /// Workers of each client and of the server.
    pub workers: [u8; 2],
    /// Links of a client's worker: all its workers share the cables.
    pub links: Vec<LinkPlan>,
    /// Behaviour of both ends.
    pub session: SessionConfig,
    /// Time between two handshakes.
    pub rekey_interval: Duration,
    /// Largest datagram of all links.
    pub datagram_bytes_max: u16,
    /// Clients know a key that is not the server's.
    pub wrong_server_key: bool,
    /// Both ends have a preshared key; `Some(false)`: not the same one.
    pub preshared_key: Option<bool>,
}

impl Plan {
    /// One client with a WAN for each of `links`, words as [`Spec::parse`] reads them.
    pub fn new(seed: u64, links: &[&str]) -> Self {
        Self {
            seed,
            clients: 1,
            workers: [1, 1],
            links: (0..)
                .zip(links)
                .map(|(wan, words)| LinkPlan::new(wan, words))
                .collect(),
            session: session_config(),
            rekey_interval: Duration::from_secs(120),
            datagram_bytes_max: 1472,
            wrong_server_key: false,
            preshared_key: None,
        }
    }

    /// The WANs as each client describes them at the start.
    pub fn wans(&self) -> Vec<WanConfig> {
        let count = self
            .links
            .iter()
            .map(|link| link.wan + 1)
            .max()
            .unwrap_or(0);
        (0..count)
            .map(|wan| {
                let link = self.links.iter().find(|link| link.wan == wan);
                WanConfig {
                    id: WanId(wan),
                    name: format!("wan{wan}"),
                    role: if link.is_some_and(|link| link.backup) {
                        WanRole::Backup
                    } else {
                        WanRole::Active
                    },
                    direction: link.map(|link| link.direction).unwrap_or_default(),
                    limits: link.map(|link| link.limits).unwrap_or_default(),
                    rate_to_peer: link.and_then(|link| link.rates[0]),
                    rate_to_us: link.and_then(|link| link.rates[1]),
                }
            })
            .collect()
    }

    /// The summed rate of all links towards the server.
    pub fn rate_sum(&self) -> Rate {
        let rates = self.links.iter().filter_map(|link| link.up.mean_rate());
        rates.fold(Rate::ZERO, Rate::saturating_add)
    }
}

/// What a configuration file without session keys means.
pub const fn session_config() -> SessionConfig {
    SessionConfig {
        mode: Mode::Balanced,
        fec: FecMode::Adaptive {
            ceiling: 0.25,
            residual: RESIDUAL,
        },
        rtt_weight: 0.7,
        loss_weight: 0.3,
        heartbeat: Duration::from_millis(100),
        reorder_max: None,
        equalise: Equalise::Auto,
        gso: crate::link::gso::Wanted::Auto,
        classes: Vec::new(),
        mss_max: None,
    }
}

/// Configuration of a worker of a client of the plan after some restarts of programs.
pub(super) fn client_config(plan: &Plan, number: u8, worker: u8, restarts: u64) -> ClientConfig {
    let server_key = if plan.wrong_server_key {
        private_key(255).public()
    } else {
        private_key(0).public()
    };
    let seed = plan.seed ^ (restarts + 1) << 32 ^ u64::from(number) << 48;
    ClientConfig {
        private_key: private_key(number + 1),
        server_key,
        preshared_key: preshared_key(plan, false),
        cipher_bits: Cipher::local_bits(),
        wans: plan.wans(),
        wan_of_link: plan.links.iter().map(|link| WanId(link.wan)).collect(),
        datagram_bytes_max: plan.datagram_bytes_max,
        rekey_interval: plan.rekey_interval,
        session: plan.session.clone(),
        boot_id: seed.to_le_bytes(),
        unix_time_at_zero: Duration::from_secs(1_700_000_000),
        seed: seed ^ u64::from(worker) << 56,
        workers: workers(worker, plan.workers[0], seed),
    }
}

/// Configuration of a worker of the plan's server after some restarts of programs.
pub(super) fn server_config(plan: &Plan, worker: u8, restarts: u64) -> ServerConfig {
    let peers = (0..plan.clients)
        .map(|number| {
            let host = IpAddr::V4(
                FlowAddress {
                    client: number,
                    flow: 0,
                }
                .client_host(),
            );
            PeerConfig {
                name: format!("client {number}"),
                public_key: private_key(number + 1).public(),
                preshared_key: preshared_key(plan, true),
                addresses: AllowedAddresses {
                    allowed: vec![Prefix::host(host)],
                    hosts: vec![host],
                },
            }
        })
        .collect();
    let seed = plan.seed ^ restarts << 32 ^ 0x5eed;
    ServerConfig {
        private_key: private_key(0),
        peers,
        cipher_bits: Cipher::local_bits(),
        datagram_bytes_max: plan.datagram_bytes_max,
        handshakes_per_s: 100,
        session: plan.session.clone(),
        boot_id: seed.to_le_bytes(),
        cookie_secret: [7; 32],
        seed: seed ^ u64::from(worker) << 56,
        workers: workers(worker, plan.workers[1], seed),
    }
}

fn workers(own: u8, count: u8, seed: u64) -> Workers {
    let mut secret = [0; 32];
    secret[..8].copy_from_slice(&seed.to_le_bytes());
    Workers { own, count, secret }
}

/// A key that is the same in every run.
fn private_key(number: u8) -> PrivateKey {
    PrivateKey::from_base64(&base64_of([number.wrapping_mul(7).wrapping_add(64); 32]))
        .expect("any 32 bytes are a key")
}

fn preshared_key(plan: &Plan, server: bool) -> Option<PresharedKey> {
    let same = plan.preshared_key?;
    let byte = if server && !same { 9 } else { 8 };
    Some(PresharedKey::from_base64(&base64_of([byte; 32])).expect("any 32 bytes are a key"))
}

fn base64_of(bytes: [u8; 32]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
