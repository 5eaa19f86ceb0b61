//! What an endpoint tells about itself.

use super::SessionId;
use crate::base::DropCounters;
use crate::session::stats::SessionStats;

/// Snapshot of an endpoint.
#[derive(Clone, Debug)]
pub struct EndpointStats {
    /// In configuration order, then by the numbers of the sessions.
    pub peers: Vec<PeerStats>,
    /// Discards that belong to no session.
    pub drops: DropCounters,
    /// Handshakes made (server) or begun (client).
    pub handshakes: u64,
}

/// Snapshot of one session of a peer, or of the peer without one.
#[derive(Clone, Debug)]
pub struct PeerStats {
    /// Which session.
    pub id: SessionId,
    /// Its name.
    pub name: String,
    /// Its public key as text.
    pub public_key: String,
    /// Cipher of the newest epoch.
    pub cipher: Option<&'static str>,
    /// Handshakes so far.
    pub epoch: u32,
    /// The session, if there is one.
    pub session: Option<SessionStats>,
    /// A handshake is under way (client).
    pub dialing: bool,
}
