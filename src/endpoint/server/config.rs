//! What a server needs to know, and who owns which inner address.

use std::net::IpAddr;

use crate::base::Prefix;
use crate::crypto::keys::{PresharedKey, PrivateKey, PublicKey};
use crate::endpoint::PeerId;
use crate::endpoint::mail::Workers;
use crate::endpoint::peer_table::PeerTable;
use crate::session::config::SessionConfig;

/// One client that may connect.
pub struct PeerConfig {
    /// Name for status and logs.
    pub name: String,
    /// Its key.
    pub public_key: PublicKey,
    /// Mixed into the handshake when there is one.
    pub preshared_key: Option<PresharedKey>,
    /// Inner addresses that are routed to it and accepted from it.
    pub addresses: AllowedAddresses,
}

/// Inner addresses of one peer.
#[derive(Clone, Debug, Default)]
pub struct AllowedAddresses {
    /// Prefixes, wide or not.
    pub allowed: Vec<Prefix>,
    /// Those of them that are single addresses.
    pub hosts: Vec<IpAddr>,
}

impl std::fmt::Debug for PeerConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PeerConfig")
            .field("name", &self.name)
            .finish_non_exhaustive() // no keys
    }
}

/// What a server needs to know.
pub struct ServerConfig {
    /// Our key.
    pub private_key: PrivateKey,
    /// Who may connect.
    pub peers: Vec<PeerConfig>,
    /// Ciphers we are willing to use.
    pub cipher_bits: u8,
    /// Largest datagram we take.
    pub datagram_bytes_max: u16,
    /// Handshakes a second before cookies are demanded.
    pub handshakes_per_s: u32,
    /// Behaviour of the sessions.
    pub session: SessionConfig,
    /// Random number of this start of the program.
    pub boot_id: [u8; 8],
    /// Secret of the cookies.
    pub cookie_secret: [u8; 32],
    /// Seed from the system's random source.
    pub seed: u64,
    /// Which of the server's workers this is. All have the same `boot_id` and `cookie_secret`, and their own `seed`.
    pub workers: Workers,
}

impl std::fmt::Debug for ServerConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerConfig")
            .field("datagram_bytes_max", &self.datagram_bytes_max)
            .finish_non_exhaustive() // no keys
    }
}

/// Who owns which inner address, in the order of the peers.
pub(super) fn route_table<'a>(peers: impl Iterator<Item = &'a AllowedAddresses>) -> PeerTable {
    let mut routes = PeerTable::default();
    for (number, addresses) in (0_u16..).zip(peers) {
        for &host in &addresses.hosts {
            routes.insert(Prefix::host(host), Some(host), PeerId(number));
        }
        for &prefix in &addresses.allowed {
            routes.insert(prefix, None, PeerId(number));
        }
    }
    routes
}
