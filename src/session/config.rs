//! What a session needs to know beforehand: validated values, no files.

use std::time::Duration;

use crate::base::{Rate, WanId};
use crate::fec::protection::Mode as FecMode;
use crate::flow::class::Rule;
pub use crate::stream::mss::MssMax;
pub use crate::wire::message::{Direction, WanRole};

/// How traffic is spread over the links.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Mode {
    /// Earliest delivery over all links: the sum of the links at the delay of the best.
    #[default]
    Balanced,
    /// The most goodput: nothing goes out twice, less repair, and queues may stand longer before a sender is told to
    /// slow down.
    Throughput,
    /// The least delay: the quickest links as long as they carry the load, short queues, copies of all sparse symbols.
    Latency,
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
            Self::Throughput => "throughput",
            Self::Latency => "latency",
            Self::Redundant => "redundant",
            Self::Weighted => "weighted",
            Self::SingleBest => "single_best",
            Self::RoundRobin => "round_robin",
        }
    }
}

/// Whether quick links wait for slow ones, so that a flow over both sees one delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Equalise {
    /// For flows that have been bulk for some seconds, up to the slowest link that the load needs.
    #[default]
    Auto,
    /// For all TCP, from the first packet, up to the slowest link.
    On,
    /// Never.
    Off,
}

/// Above which figures a link of a WAN carries no ordinary data while there are better ones.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct WanLimits {
    /// Round trip.
    pub rtt_max: Option<Duration>,
    /// Loss ratio, 0-1.
    pub loss_max: Option<f64>,
}

/// One WAN as its client describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct WanConfig {
    /// Number in this session.
    pub id: WanId,
    /// Name for status, and for classes that are pinned to it.
    pub name: String,
    /// What it is used for.
    pub role: WanRole,
    /// Which way it carries data.
    pub direction: Direction,
    /// When its links are parked.
    pub limits: WanLimits,
    /// Ceiling of our sending direction; `None` = learn.
    pub rate_to_peer: Option<Rate>,
    /// Ceiling of our receiving direction; `None` = learn.
    pub rate_to_us: Option<Rate>,
}

impl WanConfig {
    /// An active WAN without limits.
    pub const fn plain(id: WanId, name: String) -> Self {
        Self {
            id,
            name,
            role: WanRole::Active,
            direction: Direction::Both,
            limits: WanLimits {
                rtt_max: None,
                loss_max: None,
            },
            rate_to_peer: None,
            rate_to_us: None,
        }
    }
}

/// How the packets of a class use the links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Policy {
    /// As the mode says.
    Stripe,
    /// Every packet on two links.
    Duplicate,
    /// One WAN only.
    Pin {
        /// Its name.
        wan: String,
        /// Whether the other WANs take over while it is not up; else the packets are dropped.
        fallback: bool,
    },
    /// The best link of the moment.
    Best,
}

/// Which packets are treated in which way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassConfig {
    /// Name for people.
    pub name: String,
    /// Which packets.
    pub rule: Rule,
    /// How they use the links.
    pub policy: Policy,
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
    /// Equal delays in our sending direction.
    pub equalise: Equalise,
    /// Which runs of a link leave as one segmented send. Fixed for the life of a session.
    pub gso: crate::link::gso::Wanted,
    /// Classes of our sending direction; the first rule that matches a packet decides, without one it is striped.
    pub classes: Vec<ClassConfig>,
    /// Greatest segment size that TCP may announce in frames from our TUN; `None` leaves it alone.
    pub mss_max: Option<MssMax>,
}

/// Bytes of IPv4 and UDP header around a datagram: what a rate on the wire counts besides our bytes. IPv6 has 20
/// more; the difference (1.4 % of a full datagram) disappears in the measured capacity.
pub const WIRE_OVERHEAD_BYTES: u32 = 28;
