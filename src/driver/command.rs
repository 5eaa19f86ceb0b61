//! What the control thread asks of a data thread, and what it is told.
//!
//! Never does: wait. Commands are few, and a data thread takes them between two turns.

use tokio::sync::oneshot;

use super::landing::LandingStats;
use super::sockets::Ends;
use crate::base::{Instant, LinkId};
use crate::endpoint::{AllowedAddresses, EndpointStats, SessionId};
use crate::session::config::{SessionConfig, WanConfig};
use crate::sys::datapath::Stats;

/// What a reload may change.
#[derive(Clone, Debug)]
pub struct Behaviour {
    /// Of the sessions.
    pub session: SessionConfig,
    /// The client's WANs in use.
    pub wans: Vec<WanConfig>,
    /// The server's peers: inner addresses, in configuration order.
    pub allowed: Vec<AllowedAddresses>,
}

/// What the control thread asks of the data thread.
pub enum Command {
    /// Say farewell and end.
    Stop,
    /// Use this behaviour from now on.
    Reconfigure(Box<Behaviour>),
    /// Tell everything.
    Snapshot(oneshot::Sender<Snapshot>),
}

/// Everything the data thread knows about itself.
pub struct Snapshot {
    /// The endpoint.
    pub endpoint: EndpointStats,
    /// The datapath's counters.
    pub datapath: Stats,
    /// Tier in use.
    pub tier: &'static str,
    /// Why this tier.
    pub description: String,
    /// When it was taken.
    pub at: Instant,
    /// Frames merged and taken apart on their way to the TUN.
    pub landing: LandingStats,
    /// Both ends of the links, by session and link.
    pub ends: Vec<((SessionId, LinkId), Ends)>,
    /// Frames and datagrams handed over to other workers.
    pub handed_over: u64,
}
