//! From the configuration to what the core wants to know.

use std::time::Duration;

use crate::base::{Prefix, WanId};
use crate::config::{
    self, Backend, CipherChoice, Class, ClassPolicy, Config, Equalise, FecMode, Gso, Mode,
    MssClamp, Peer, Wan, WanRole,
};
use crate::crypto::Cipher;
use crate::crypto::keys::{PresharedKey, PrivateKey};
use crate::driver::RunError;
use crate::driver::setup::ClientParts;
use crate::endpoint::{AllowedAddresses, ClientConfig, PeerConfig, ServerConfig, Workers};
use crate::fec::protection::{Mode as Protection, RESIDUAL};
use crate::link::gso::{Shape, Wanted};
use crate::session::config::{
    ClassConfig, Direction, Equalise as Equal, Mode as Striping, MssMax, Policy, SessionConfig,
    WanConfig, WanLimits, WanRole as SessionRole,
};
use crate::sys::datapath::{Config as DatapathConfig, ZeroCopy};
use crate::sys::{Clock, Tier};

/// Handshakes a second before clients must prove their address.
const HANDSHAKES_PER_S: u32 = 50;

/// How many data threads there are to be on this machine.
pub fn worker_count(config: &Config) -> u8 {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    config.worker_count(processors)
}

/// Behaviour of sessions.
pub fn session(config: &Config) -> SessionConfig {
    let performance = &config.performance;
    let (source_count, repair_count) = (
        usize::from(performance.fec_source_count),
        usize::from(performance.fec_repair_count),
    );
    #[allow(clippy::cast_precision_loss)] // below 256
    let ceiling = repair_count as f64 / source_count.max(1) as f64;
    SessionConfig {
        mode: match performance.mode {
            Mode::Balanced => Striping::Balanced,
            Mode::Throughput => Striping::Throughput,
            Mode::Latency => Striping::Latency,
            Mode::Redundant => Striping::Redundant,
            Mode::Weighted => Striping::Weighted,
            Mode::SingleBest => Striping::SingleBest,
            Mode::RoundRobin => Striping::RoundRobin,
        },
        fec: match performance.fec_mode {
            FecMode::Adaptive => Protection::Adaptive {
                ceiling,
                residual: RESIDUAL,
            },
            FecMode::Fixed => Protection::Fixed {
                source_count,
                repair_count,
            },
            FecMode::Off => Protection::Off,
        },
        rtt_weight: performance.rtt_weight,
        loss_weight: performance.loss_weight,
        heartbeat: performance.heartbeat_interval,
        reorder_max: performance.reorder_max,
        equalise: match performance.equalise {
            Equalise::Auto => Equal::Auto,
            Equalise::On => Equal::On,
            Equalise::Off => Equal::Off,
        },
        gso: match performance.gso {
            Gso::Auto => Wanted::Auto,
            Gso::On => Wanted::Exactly(Shape::On),
            Gso::Uneven => Wanted::Exactly(Shape::Uneven),
            Gso::Off => Wanted::Exactly(Shape::Off),
        },
        mss_max: match config.tunnel.mss_clamp {
            MssClamp::Off => None,
            MssClamp::Auto => Some(MssMax::of_mtu(config.tunnel.mtu)),
            MssClamp::Bytes(bytes) => Some(MssMax {
                v4: bytes,
                v6: bytes,
            }),
        },
        classes: config.classes.iter().map(class).collect(),
    }
}

/// How the kernel is talked to.
pub fn datapath(config: &Config) -> DatapathConfig {
    DatapathConfig {
        tier: tier(config.performance.backend),
        zero_copy: match config.performance.zero_copy {
            config::ZeroCopy::Auto => ZeroCopy::Auto,
            config::ZeroCopy::On => ZeroCopy::On,
            config::ZeroCopy::Off => ZeroCopy::Off,
        },
        ..DatapathConfig::default()
    }
}

const fn tier(backend: Backend) -> Option<Tier> {
    match backend {
        Backend::Auto => None,
        Backend::IoUring => Some(Tier::Multishot),
        Backend::IoUringOneshot => Some(Tier::OneShot),
        Backend::Epoll => Some(Tier::Epoll),
    }
}

fn class(class: &Class) -> ClassConfig {
    ClassConfig {
        name: class.name.clone(),
        rule: class.rule.clone(),
        policy: match class.policy {
            ClassPolicy::Stripe => Policy::Stripe,
            ClassPolicy::Duplicate => Policy::Duplicate,
            ClassPolicy::Best => Policy::Best,
            ClassPolicy::Pin => Policy::Pin {
                wan: class.wan.clone().unwrap_or_default(),
                fallback: class.fallback,
            },
        },
    }
}

fn wan_config(id: WanId, wan: &Wan) -> WanConfig {
    WanConfig {
        id,
        name: wan.name.clone(),
        role: role(wan.role),
        direction: match wan.direction {
            config::Direction::Both => Direction::Both,
            config::Direction::Up => Direction::Up,
            config::Direction::Down => Direction::Down,
        },
        limits: WanLimits {
            rtt_max: wan.rtt_max,
            loss_max: wan.loss_max,
        },
        rate_to_peer: wan.up,
        rate_to_us: wan.down,
    }
}

const fn role(role: WanRole) -> SessionRole {
    match role {
        WanRole::Active => SessionRole::Active,
        WanRole::Backup => SessionRole::Backup,
        WanRole::Off => SessionRole::Off,
    }
}

/// The client's WANs that are not off, renumbered from 0, with their old numbers.
pub fn wans(config: &Config) -> Vec<(WanId, WanConfig)> {
    config
        .links
        .wans
        .iter()
        .filter(|wan| wan.role != WanRole::Off)
        .zip(0_u8..)
        .map(|(wan, id)| (wan.id, wan_config(WanId(id), wan)))
        .collect()
}

/// What a reloaded configuration says about the WANs that are open, in the order of the session's numbers.
/// `spent`: whether the quota of a WAN, by its name, is used up.
pub fn opened_wans(
    config: &Config,
    opened: &[WanId],
    spent: impl Fn(&str) -> bool,
) -> Vec<WanConfig> {
    (0_u8..)
        .zip(opened)
        .filter_map(|(id, known_as)| {
            let wan = config.links.wans.get(known_as.index())?;
            let mut wan = wan_config(WanId(id), wan);
            if spent(&wan.name) {
                spend(&mut wan);
            }
            Some(wan)
        })
        .collect()
}

/// The quota of a WAN is used up: it is the last resort, unless it is switched off.
pub fn spend(wan: &mut WanConfig) {
    if wan.role != SessionRole::Off {
        wan.role = SessionRole::Spent;
    }
}

fn cipher_bits(config: &Config) -> u8 {
    match config.security.cipher {
        CipherChoice::Auto => Cipher::local_bits(),
        CipherChoice::Aes256Gcm => Cipher::Aes256Gcm.bits(),
        CipherChoice::ChaCha20Poly1305 => Cipher::ChaCha20Poly1305.bits(),
    }
}

/// A data thread's own copy of a secret; each is wiped when it is dropped. Keys cannot be cloned by accident,
/// only by way of their text.
fn own_private(key: &PrivateKey) -> Result<PrivateKey, RunError> {
    PrivateKey::from_base64(&key.to_base64()).map_err(|_| unreadable_key())
}

fn own_preshared(key: Option<&PresharedKey>) -> Result<Option<PresharedKey>, RunError> {
    key.map(|key| PresharedKey::from_base64(&key.to_base64()).map_err(|_| unreadable_key()))
        .transpose()
}

fn unreadable_key() -> RunError {
    RunError::System {
        what: "copying a key",
        source: std::io::ErrorKind::InvalidData.into(),
    }
}

/// Workers without a number: what all of them share.
pub fn workers(count: u8) -> Result<Workers, RunError> {
    Ok(Workers {
        own: 0,
        count,
        secret: random_bytes()?,
    })
}

/// For [`crate::endpoint::Client::new`], by worker.
pub fn clients(
    config: &Config,
    parts: &ClientParts,
    datagram_bytes_max: u16,
    clock: &Clock,
    workers: &Workers,
) -> Result<Vec<ClientConfig>, RunError> {
    let server = &config.peers[0];
    let boot_id = random_bytes()?;
    let preshared = config.keys.preshared.first().and_then(Option::as_ref);
    let client = |own| {
        Ok(ClientConfig {
            private_key: own_private(&config.keys.private)?,
            server_key: server.public_key,
            preshared_key: own_preshared(preshared)?,
            cipher_bits: cipher_bits(config),
            wans: parts.wans.clone(),
            wan_of_link: parts.wan_of_link.clone(),
            datagram_bytes_max,
            rekey_interval: config.security.rekey_interval,
            session: session(config),
            boot_id,
            unix_time_at_zero: clock
                .unix_time()
                .saturating_sub(Duration::from_nanos(clock.now().as_nanos())),
            seed: u64::from_le_bytes(random_bytes()?),
            workers: Workers { own, ..*workers },
        })
    };
    (0..workers.count).map(client).collect()
}

/// For [`crate::endpoint::Server::new`], by worker.
pub fn servers(
    config: &Config,
    datagram_bytes_max: u16,
    workers: &Workers,
) -> Result<Vec<ServerConfig>, RunError> {
    let (boot_id, cookie_secret) = (random_bytes()?, random_bytes()?);
    let server = |own| {
        let keys = config.keys.preshared.iter();
        let peers = config.peers.iter().zip(keys);
        let peers = peers.map(|(peer, key)| Ok(peer_config(peer, own_preshared(key.as_ref())?)));
        Ok(ServerConfig {
            private_key: own_private(&config.keys.private)?,
            peers: peers.collect::<Result<_, RunError>>()?,
            cipher_bits: cipher_bits(config),
            datagram_bytes_max,
            handshakes_per_s: HANDSHAKES_PER_S,
            session: session(config),
            boot_id,
            cookie_secret,
            seed: u64::from_le_bytes(random_bytes()?),
            workers: Workers { own, ..*workers },
        })
    };
    (0..workers.count).map(server).collect()
}

fn peer_config(peer: &Peer, preshared_key: Option<PresharedKey>) -> PeerConfig {
    PeerConfig {
        name: peer.name.clone(),
        public_key: peer.public_key,
        preshared_key,
        addresses: addresses(peer),
    }
}

/// Inner addresses of a peer.
pub fn addresses(peer: &Peer) -> AllowedAddresses {
    let prefixes = || peer.allowed_ips.iter();
    let is_host = |p: &&Prefix| **p == Prefix::host(p.network());
    let mut hosts: Vec<_> = prefixes().filter(is_host).map(|p| p.network()).collect();
    hosts.push(peer.tun_ip);
    let allowed = peer.allowed_ips.clone();
    AllowedAddresses { allowed, hosts }
}

/// Bytes from the system's random source.
fn random_bytes<const N: usize>() -> Result<[u8; N], RunError> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| RunError::System {
        what: "reading random bytes",
        source: std::io::Error::last_os_error(),
    })?;
    Ok(bytes)
}
