//! What a client is told when it starts.
//!
//! Never shows: keys, in debug texts.

use std::time::Duration;

use crate::base::WanId;
use crate::crypto::keys::{PresharedKey, PrivateKey, PublicKey};
use crate::endpoint::mail::Workers;
use crate::session::config::{SessionConfig, WanConfig};

/// What a client needs to know.
pub struct ClientConfig {
    /// Our key.
    pub private_key: PrivateKey,
    /// The server's.
    pub server_key: PublicKey,
    /// Mixed into the handshake when there is one.
    pub preshared_key: Option<PresharedKey>,
    /// Ciphers we are willing to use.
    pub cipher_bits: u8,
    /// Our WANs.
    pub wans: Vec<WanConfig>,
    /// WAN of each link.
    pub wan_of_link: Vec<WanId>,
    /// Largest datagram all links carry.
    pub datagram_bytes_max: u16,
    /// Time between two handshakes.
    pub rekey_interval: Duration,
    /// Behaviour of the session.
    pub session: SessionConfig,
    /// Random number of this start of the program.
    pub boot_id: [u8; 8],
    /// Wall clock at [`Instant::ZERO`], since 1970: only ordering between our own HELLOs matters.
    pub unix_time_at_zero: Duration,
    /// Seed from the system's random source.
    pub seed: u64,
    /// Which of the client's workers this is: the number of its session.
    pub workers: Workers,
}

impl std::fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientConfig")
            .field("datagram_bytes_max", &self.datagram_bytes_max)
            .finish_non_exhaustive() // no keys
    }
}
