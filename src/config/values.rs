//! The complete, typed, immutable configuration. Only this travels; the text behind it does not.
//!
//! Invariants, held by `resolve`:
//! - WAN ids are 0, 1, 2 ... in the order of `links.wans`; `wans * links_per_wan <= LINKS_MAX`;
//! - `start_port + ports - 1` is a port; group and repair symbols together are at most 255;
//! - a client has exactly one peer (its server), a server at least one; no two share a public key;
//! - `keys.preshared` has one entry for each peer.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use tracing::level_filters::LevelFilter;

use crate::base::{LinkId, Prefix, Rate, WanId};
use crate::crypto::keys::{PresharedKey, PrivateKey, PublicKey};
use crate::flow::class::Rule;

/// Declares an enum whose values have one spelling in the file, in documents and in status.
macro_rules! named_enum {
    ($(#[$enum_doc:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal),* $(,)? }) => {
        $(#[$enum_doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$doc])* $variant),* }

        impl $name {
            /// All values with their spelling in the file.
            pub const ALL: &'static [(&'static str, Self)] = &[$(($text, Self::$variant)),*];

            /// The spelling in the file and in status.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }

        impl super::context::Named for $name {
            const ALL: &'static [(&'static str, Self)] = Self::ALL;
        }
    };
}

named_enum! {
    /// Which side of the tunnel this is.
    Role {
        /// Opens the links, over one or more WANs.
        Client = "client",
        /// Listens on a range of ports.
        Server = "server",
    }
}

named_enum! {
    /// Which link takes the next run of symbols.
    Mode {
        /// The link that delivers first, by capacity, delay and loss.
        Balanced = "balanced",
        /// The most goodput: no copies, longer queues, less repair.
        Throughput = "throughput",
        /// The least delay: the quickest links first, short queues, copies.
        Latency = "latency",
        /// Every symbol on the two best links.
        Redundant = "redundant",
        /// Shares in the ratio of capacity and quality.
        Weighted = "weighted",
        /// The best link takes all until it fails.
        SingleBest = "single_best",
        /// One after the other.
        RoundRobin = "round_robin",
    }
}

named_enum! {
    /// Whether a flow over links of several delays sees one delay.
    Equalise {
        /// Flows that are bulk, up to the slowest link that the load needs.
        Auto = "auto",
        /// All TCP from the first packet, up to the slowest link.
        On = "on",
        /// None.
        Off = "off",
    }
}

named_enum! {
    /// How much repair a group gets.
    FecMode {
        /// As much as measured loss asks for, at most the configured count.
        Adaptive = "adaptive",
        /// Exactly the configured count.
        Fixed = "fixed",
        /// None.
        Off = "off",
    }
}

named_enum! {
    /// How the kernel is talked to.
    Backend {
        /// The best tier that works here.
        Auto = "auto",
        /// io_uring with multishot receives.
        IoUring = "io_uring",
        /// io_uring with one operation per read.
        IoUringOneshot = "io_uring_oneshot",
        /// epoll, for hosts that refuse io_uring.
        Epoll = "epoll",
    }
}

named_enum! {
    /// Whether runs leave without a copy.
    ZeroCopy {
        /// Where it spares a copy.
        Auto = "auto",
        /// Always.
        On = "on",
        /// Never.
        Off = "off",
    }
}

named_enum! {
    /// Which runs of a link leave as one segmented send.
    Gso {
        /// All, as long as they arrive.
        Auto = "auto",
        /// All.
        On = "on",
        /// Those that end with a shorter datagram.
        Uneven = "uneven",
        /// None.
        Off = "off",
    }
}

named_enum! {
    /// Which AEAD seals datagrams.
    CipherChoice {
        /// AES-256-GCM when both CPUs have AES instructions, else ChaCha20-Poly1305.
        Auto = "auto",
        /// AES-256-GCM.
        Aes256Gcm = "aes-256-gcm",
        /// ChaCha20-Poly1305.
        ChaCha20Poly1305 = "chacha20-poly1305",
    }
}

named_enum! {
    /// What a WAN is used for.
    WanRole {
        /// Carries traffic.
        Active = "active",
        /// Open and measured; carries traffic only while no active link is up.
        Backup = "backup",
        /// Not opened.
        Off = "off",
    }
}

named_enum! {
    /// Which way a WAN carries data.
    Direction {
        /// Both ways.
        Both = "both",
        /// From the client to the server.
        Up = "up",
        /// From the server to the client.
        Down = "down",
    }
}

named_enum! {
    /// How the packets of a class use the links.
    ClassPolicy {
        /// As the mode says.
        Stripe = "stripe",
        /// Every packet on two links.
        Duplicate = "duplicate",
        /// One WAN only.
        Pin = "pin",
        /// The best link of the moment.
        Best = "best",
    }
}

named_enum! {
    /// How much is logged.
    LogLevel {
        /// Nothing.
        Off = "off",
        /// What stops the program.
        Error = "error",
        /// What someone may have to act on.
        Warn = "warn",
        /// State changes an operator sees.
        Info = "info",
        /// Decisions.
        Debug = "debug",
        /// Single packets; costs throughput.
        Trace = "trace",
    }
}

impl LogLevel {
    /// As the log takes it.
    pub const fn filter(self) -> LevelFilter {
        match self {
            Self::Off => LevelFilter::OFF,
            Self::Error => LevelFilter::ERROR,
            Self::Warn => LevelFilter::WARN,
            Self::Info => LevelFilter::INFO,
            Self::Debug => LevelFilter::DEBUG,
            Self::Trace => LevelFilter::TRACE,
        }
    }
}

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

/// WANs, links and ports.
#[derive(Clone, Debug, PartialEq)]
pub struct Links {
    /// The client's WANs, in the order of their ids, those that are off included. Empty on the server.
    pub wans: Vec<Wan>,
    /// First UDP port of the server.
    pub start_port: u16,
    /// Links (sockets) over each WAN.
    pub links_per_wan: u8,
    /// How many ports the server listens on, from `start_port` upwards.
    pub ports: u16,
}

impl Links {
    /// The client's links: link `i` runs over WAN `i / links_per_wan` to port `start_port + i mod ports`.
    pub fn lanes(&self) -> impl Iterator<Item = LinkPlan> + '_ {
        (0_u8..)
            .zip(
                self.wans
                    .iter()
                    .flat_map(|wan| std::iter::repeat_n(wan.id, usize::from(self.links_per_wan))),
            )
            .map(|(index, wan)| LinkPlan {
                id: LinkId(index),
                wan,
                server_port: self.start_port + u16::from(index) % self.ports,
            })
    }

    /// All ports of the server.
    pub fn server_ports(&self) -> impl Iterator<Item = u16> + use<> {
        let first = self.start_port;
        (0..self.ports).map(move |offset| first + offset)
    }
}

/// Where one link of the client goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkPlan {
    /// The link.
    pub id: LinkId,
    /// The WAN it runs over.
    pub wan: WanId,
    /// The server's port.
    pub server_port: u16,
}

/// One uplink of the client.
#[derive(Clone, Debug, PartialEq)]
pub struct Wan {
    /// Position in the list.
    pub id: WanId,
    /// Name in status and logs.
    pub name: String,
    /// Source address; `None` = whatever the device or the routing table gives.
    pub source: Option<IpAddr>,
    /// Device to bind to; `None` = found by the source address.
    pub device: Option<String>,
    /// What it is used for.
    pub role: WanRole,
    /// Which way it carries data.
    pub direction: Direction,
    /// Round trip above which it is parked.
    pub rtt_max: Option<Duration>,
    /// Loss ratio above which it is parked, 0-1.
    pub loss_max: Option<f64>,
    /// What it may carry in a month; `None` = as much as it likes.
    pub quota: Option<Quota>,
    /// Ceiling towards the client; `None` = learned alone.
    pub down: Option<Rate>,
    /// Ceiling towards the server; `None` = learned alone.
    pub up: Option<Rate>,
}

/// What a WAN may carry in a month, both directions together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Bytes, with the headers of IP and UDP.
    pub bytes: u64,
    /// Day of the month (UTC) on which counting begins anew, 1 to 28.
    pub reset_day: u8,
}

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

#[cfg(test)]
mod tests {
    use super::*;

    fn wan(index: u8) -> Wan {
        Wan {
            id: WanId(index),
            name: format!("wan{index}"),
            source: None,
            device: None,
            role: WanRole::Active,
            direction: Direction::Both,
            rtt_max: None,
            loss_max: None,
            quota: None,
            down: None,
            up: None,
        }
    }

    #[test]
    fn links_wrap_inside_the_servers_ports() {
        let links = Links {
            wans: vec![wan(0), wan(1)],
            start_port: 9001,
            links_per_wan: 2,
            ports: 3,
        };
        let plans: Vec<_> = links
            .lanes()
            .map(|l| (l.id.0, l.wan.0, l.server_port))
            .collect();
        assert_eq!(
            plans,
            [(0, 0, 9001), (1, 0, 9002), (2, 1, 9003), (3, 1, 9001)]
        );
        assert_eq!(links.server_ports().collect::<Vec<_>>(), [9001, 9002, 9003]);
    }
}
