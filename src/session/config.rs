//! What a session needs to know beforehand: validated values, no files.

use std::time::Duration;

use crate::base::{Rate, WanId};
use crate::fec::protection::Mode as FecMode;
pub use crate::stream::mss::MssMax;
pub use crate::wire::message::WanRole;

/// How traffic is spread over the links.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Mode {
    /// Earliest delivery over all links: the sum of the links at the delay of the best.
    #[default]
    Balanced,
    /// Every symbol on two links.
    Redundant,
    /// Shares by capacity, delay and loss, without looking at the queues.
    Weighted,
    /// Everything on the best link.
    SingleBest,
    /// Links in turn.
    RoundRobin,
}

impl Mode {
    /// The word in configuration and status.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Balanced => "balanced",
            Self::Redundant => "redundant",
            Self::Weighted => "weighted",
            Self::SingleBest => "single_best",
            Self::RoundRobin => "round_robin",
        }
    }
}

/// One WAN as its client describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WanConfig {
    /// Number in this session.
    pub id: WanId,
    /// Name for status.
    pub name: String,
    /// What it is used for.
    pub role: WanRole,
    /// Ceiling of our sending direction; `None` = learn.
    pub rate_to_peer: Option<Rate>,
    /// Ceiling of our receiving direction; `None` = learn.
    pub rate_to_us: Option<Rate>,
}

/// Behaviour of one end of a session. All of it may change while the session runs.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionConfig {
    /// Striping mode of our sending direction.
    pub mode: Mode,
    /// Protection of our sending direction.
    pub fec: FecMode,
    /// Exponent of the delay term of a link's quality.
    pub rtt_weight: f64,
    /// Exponent of the loss term of a link's quality.
    pub loss_weight: f64,
    /// Heartbeat of an idle link.
    pub heartbeat: Duration,
    /// Longest wait for a hole; `None` follows the measured delays.
    pub reorder_max: Option<Duration>,
    /// Greatest segment size that TCP may announce in frames from our TUN; `None` leaves it alone.
    pub mss_max: Option<MssMax>,
}

/// Bytes of IPv4 and UDP header around a datagram: what a rate on the wire counts besides our bytes. IPv6 has 20
/// more; the difference (1.4 % of a full datagram) disappears in the measured capacity.
pub const WIRE_OVERHEAD_BYTES: u32 = 28;
