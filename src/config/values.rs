//! The complete, typed, immutable configuration. Only this travels; the text behind it does not.
//!
//! Invariants, held by `resolve`:
//! - WAN ids are 0, 1, 2 ... in the order of `links.wans`; `wans * links_per_wan <= LINKS_MAX`;
//! - `start_port + ports - 1` is a port; group and repair symbols together are at most 255;
//! - a client has exactly one peer (its server), a server at least one; no two share a public key;
//! - `keys.preshared` has one entry for each peer.

mod choices;
mod wans;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use crate::base::{Prefix, WanId};
use crate::crypto::keys::{PresharedKey, PrivateKey, PublicKey};
use crate::flow::class::Rule;

pub use choices::{
    Backend, CipherChoice, ClassPolicy, Direction, Equalise, FecMode, Gso, LogLevel, Mode, Role,
    WanRole, ZeroCopy,
};
pub use wans::{LinkPlan, Links, Quota, Wan};

/// One program's configuration, complete and checked.
#[derive(Debug)]
pub struct Config {
    /// Which side this is.
    pub role: Role,
    /// Client: address of the server. Server: address to listen on.
    pub server_ip: IpAddr,
    /// The TUN device.
    pub tunnel: Tunnel,
    /// WANs, links and ports.
    pub links: Links,
    /// Striping, FEC, data path.
    pub performance: Performance,
    /// Classes of the packets that this side sends, in the order in which they are tried.
    pub classes: Vec<Class>,
    /// Cipher and keys' life.
    pub security: Security,
    /// Who is on the other side: the server, or the clients.
    pub peers: Vec<Peer>,
    /// The secrets.
    pub keys: Keys,
    /// Source routing of the WANs.
    pub routing: Routing,
    /// Unix socket that answers `chainlightning status`.
    pub control_socket: PathBuf,
    /// Folder of what outlives the program.
    pub state_folder: PathBuf,
    /// Logs.
    pub logging: Logging,
}

/// The TUN device and its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Interface name.
    pub name: String,
    /// Our inner IPv4 address.
    pub local: Ipv4Addr,
    /// The peer's inner IPv4 address.
    pub remote: Ipv4Addr,
    /// Length of the IPv4 netmask in bits.
    pub prefix_len: u8,
    /// Our and the peer's inner IPv6 address, both or none, in a /64.
    pub v6: Option<(Ipv6Addr, Ipv6Addr)>,
    /// Largest inner packet in bytes.
    pub mtu: u16,
    /// What TCP connections through the tunnel may announce.
    pub mss_clamp: MssClamp,
}

/// Greatest segment size of TCP connections through the tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MssClamp {
    /// What packets of the TUN's MTU hold.
    Auto,
    /// As the hosts say.
    Off,
    /// This many bytes.
    Bytes(u16),
}

/// Length of the inner IPv6 network, as every IPv6 subnet has it (RFC 4291, section 2.5.4).
pub const TUNNEL6_PREFIX_LEN: u8 = 64;

/// A class of packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// Name for people.
    pub name: String,
    /// Which packets.
    pub rule: Rule,
    /// How they use the links.
    pub policy: ClassPolicy,
    /// Name of the WAN that a pinned class uses.
    pub wan: Option<String>,
    /// Whether a pinned class uses the other WANs while its own is not up.
    pub fallback: bool,
}

/// Striping, FEC, reordering, data path.
#[derive(Clone, Debug, PartialEq)]
pub struct Performance {
    /// Source symbols in a full group.
    pub fec_source_count: u8,
    /// Repair symbols of a full group: exactly (fixed) or at most (adaptive).
    pub fec_repair_count: u8,
    /// How the repair count is chosen.
    pub fec_mode: FecMode,
    /// Time between heartbeats of an idle link.
    pub heartbeat_interval: Duration,
    /// Exponent of the delay term of a link's weight.
    pub rtt_weight: f64,
    /// Exponent of the loss term of a link's weight.
    pub loss_weight: f64,
    /// Which link takes the next run.
    pub mode: Mode,
    /// Which flows see one delay over links of several.
    pub equalise: Equalise,
    /// Longest wait for a hole; `None` = follows the links' delays.
    pub reorder_max: Option<Duration>,
    /// How the kernel is talked to.
    pub backend: Backend,
    /// Workers of the data path.
    pub threads: Threads,
    /// Processors that the workers are bound to, in turn; empty = none.
    pub cpu_affinity: Vec<u16>,
    /// TUN and UDP segmentation offload.
    pub offload: bool,
    /// Which runs leave as one segmented send.
    pub gso: Gso,
    /// Whether runs leave without a copy.
    pub zero_copy: ZeroCopy,
}

/// Workers of the data path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// As many as pay off on this machine.
    Auto,
    /// Exactly this many.
    Exactly(u8),
}

/// Cipher and keys' life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Security {
    /// File of our private key.
    pub private_key_file: PathBuf,
    /// Which AEAD.
    pub cipher: CipherChoice,
    /// Age at which a session's keys are replaced.
    pub rekey_interval: Duration,
}

/// The other side, or one of the other sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Name in status and logs.
    pub name: String,
    /// Who it is.
    pub public_key: PublicKey,
    /// File of the key shared with this peer beforehand; `None` = no such key.
    pub preshared_key_file: Option<PathBuf>,
    /// Its inner address.
    pub tun_ip: IpAddr,
    /// Inner addresses it may use as source, and that are routed to it.
    pub allowed_ips: Vec<Prefix>,
}

/// The secrets. Not printable, not cloneable; wiped when dropped.
pub struct Keys {
    /// Our identity.
    pub private: PrivateKey,
    /// Preshared keys, one entry for each of [`Config::peers`].
    pub preshared: Vec<Option<PresharedKey>>,
    /// Digests of the preshared keys, so that a reload sees a changed file. In-process use only.
    pub(super) preshared_digests: Vec<u64>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(hidden)")
    }
}

/// Source routing on the client: each WAN's packets leave by that WAN's gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Routing {
    /// Whether we add and remove the rules and tables.
    pub manage: bool,
    /// Table of WAN 0.
    pub table: u32,
    /// Priority of WAN 0's rule.
    pub rule_priority: u32,
}

impl Routing {
    /// Routing table of a WAN.
    pub const fn table_of(self, wan: WanId) -> u32 {
        self.table + wan.0 as u32
    }

    /// Priority of a WAN's rule.
    pub const fn priority_of(self, wan: WanId) -> u32 {
        self.rule_priority + wan.0 as u32
    }
}

/// Logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logging {
    /// How much is logged.
    pub level: LogLevel,
    /// Time between the lines with every link's figures; `None` = no such lines.
    pub stats_interval: Option<Duration>,
}
