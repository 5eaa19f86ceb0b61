//! The rows of the key table. `keys.rs` says what a row is and who reads it.

use super::keys::Default::{Is, PerSide, Unset};
use super::keys::Reload::{self, Live, Restart};
use super::keys::Side::{self, Both, Client, Server};
use super::keys::{Default, Key};
use super::values::{Class, Config, Peer, Threads, Wan};

/// Every key, in the order of `config.toml`.
#[rustfmt::skip] // rows as rows: a line for each argument would hide the table
pub const ALL: &[Key] = &[
    // [general]
    key("general.server_ip", Both, Restart, "an IPv4 or IPv6 address",
        PerSide { client: "\"\"", server: "\"0.0.0.0\"" },
        "Client: address of the server. Server: address to listen on.", "sockets",
        |c| c.server_ip.to_string()),
    key("general.tun_name", Both, Restart, "1 to 15 letters, digits, `-`, `_` or `.`",
        Is("\"tun-bond\""), "Name of the TUN device.", "TUN device", |c| c.tunnel.name.clone()),
    key("general.tun_local_ip", Both, Restart, "an IPv4 address",
        PerSide { client: "\"10.99.0.2\"", server: "\"10.99.0.1\"" },
        "Own IPv4 address inside the tunnel.", "TUN device", |c| c.tunnel.local.to_string()),
    key("general.tun_remote_ip", Both, Restart, "an IPv4 address, not tun_local_ip",
        PerSide { client: "\"10.99.0.1\"", server: "\"10.99.0.2\"" },
        "The peer's IPv4 address inside the tunnel.", "TUN device",
        |c| c.tunnel.remote.to_string()),
    key("general.tun_netmask", Both, Restart,
        "a netmask that holds both tunnel addresses, such as 255.255.255.0",
        Is("\"255.255.255.0\""), "Netmask of the tunnel's IPv4 network.", "TUN device",
        |c| c.tunnel.prefix_len.to_string()),
    key("general.tun_local_ip6", Both, Restart, "an IPv6 address, together with tun_remote_ip6",
        Is("\"\""), "Own IPv6 address inside the tunnel, in a /64; empty: no IPv6 address.",
        "TUN device",
        |c| c.tunnel.v6.map(|(local, _)| local.to_string()).unwrap_or_default()),
    key("general.tun_remote_ip6", Both, Restart,
        "an IPv6 address of the same /64, not tun_local_ip6", Is("\"\""),
        "The peer's IPv6 address inside the tunnel.", "TUN device",
        |c| c.tunnel.v6.map(|(_, remote)| remote.to_string()).unwrap_or_default()),
    key("general.tun_mtu", Both, Restart, "576 to 9000; 1280 at least with IPv6", Is("1400"),
        "Largest inner packet in bytes. Larger ones than a link carries travel in pieces.",
        "TUN device", |c| c.tunnel.mtu.to_string()),
    key("general.state_folder", Client, Restart, "an absolute path",
        Is("\"/var/lib/chainlightning\""),
        "Folder of what must outlive the program: the bytes counted for quotas.", "quotas",
        |c| c.state_folder.display().to_string()),
    key("general.mss_clamp", Both, Live, "\"auto\", \"off\" or 536 to 8960 bytes", Is("\"auto\""),
        "Greatest segment size that TCP connections from this side's TUN may announce; auto: what tun_mtu holds.",
        "TUN device", |c| format!("{:?}", c.tunnel.mss_clamp)),
    // [links]
    key("links.source_ips", Client, Restart,
        "a list of addresses of this host, one for each WAN, each once", Is("[]"),
        "The WANs, by own address. Empty and no [[links.wan]]: one WAN by the routing table.",
        "sockets",
        |c| each_wan(c, |wan| wan.source.map(|ip| ip.to_string()).unwrap_or_default())),
    key("links.start_port", Both, Restart, "1 to 65535", Is("9001"),
        "First UDP port of the server. Both sides must agree.", "sockets",
        |c| c.links.start_port.to_string()),
    key("links.links_per_wan", Client, Restart, "1 to 8; at most 32 links in all", Is("2"),
        "Links (sockets) over each WAN.", "sockets", |c| c.links.links_per_wan.to_string()),
    key("links.ports", Both, Restart, "1 to 64, and start_port + ports at most 65536", Is("10"),
        "Ports of the server from start_port upwards. Link i uses start_port + i mod ports. Both sides must agree.",
        "sockets", |c| c.links.ports.to_string()),
    // [[links.wan]]
    key("links.wan.name", Client, Restart,
        "1 to 24 letters, digits, `-`, `_` or `.`, each name once", Unset("wan0, wan1, ..."),
        "Name of the WAN in status and logs.", "status and logs",
        |c| each_wan(c, |_| String::new())),
    key("links.wan.source_ip", Client, Restart,
        "an address of this host; source_ip or device must be set", Is("\"\""),
        "Own address on this WAN. One of source_ips adds details to it, another adds a WAN.",
        "sockets",
        |c| each_wan(c, |wan| wan.source.map(|ip| ip.to_string()).unwrap_or_default())),
    key("links.wan.device", Client, Restart, "a network device of this host", Is("\"\""),
        "Device to bind to. Without source_ip the WAN has the address that the device has.",
        "sockets", |c| each_wan(c, |wan| wan.device.clone().unwrap_or_default())),
    key("links.wan.role", Client, Live, "active, backup, off", Is("\"active\""),
        "`backup` carries traffic only while no active link is up; `off` is not opened.",
        "link choice", |c| each_wan(c, |wan| wan.role.to_string())),
    key("links.wan.direction", Client, Live, "both, up, down", Is("\"both\""),
        "Which way it carries data: `up` is from the client to the server. Heartbeats and reports go both ways.",
        "link choice", |c| each_wan(c, |wan| wan.direction.to_string())),
    key("links.wan.max_rtt_ms", Client, Live, "0 to 60000 ms", Is("0"),
        "A link with a longer round trip is parked while there are others; 0: no limit.",
        "link choice", |c| each_wan(c, |wan| format!("{:?}", wan.rtt_max))),
    key("links.wan.max_loss_percent", Client, Live, "0 to 100 %", Is("0"),
        "A link that loses more is parked while there are others; 0: no limit.",
        "link choice", |c| each_wan(c, |wan| format!("{:?}", wan.loss_max))),
    key("links.wan.quota_gb", Client, Live, "0 to 1000000 GB (10^9 bytes)", Is("0"),
        "What it may carry in a month, both ways together; beyond, it is the last resort; 0: no quota.",
        "link choice", |c| each_wan(c, |wan| format!("{:?}", wan.quota.map(|q| q.bytes)))),
    key("links.wan.quota_reset_day", Client, Live, "1 to 28", Is("1"),
        "Day of the month (UTC) on which the quota begins anew.", "link choice",
        |c| each_wan(c, |wan| format!("{:?}", wan.quota.map(|q| q.reset_day)))),
    key("links.wan.down_mbps", Client, Live, "0 to 400000 Mbit/s", Is("0"),
        "Most that this WAN carries towards the client; 0: learned alone.", "rate control",
        |c| each_wan(c, |wan| format!("{:?}", wan.down))),
    key("links.wan.up_mbps", Client, Live, "0 to 400000 Mbit/s", Is("0"),
        "Most that this WAN carries towards the server; 0: learned alone.", "rate control",
        |c| each_wan(c, |wan| format!("{:?}", wan.up))),
    // [performance]
    key("performance.fec_group_size", Both, Live,
        "1 to 128, and with fec_repair_packets at most 255", Is("10"),
        "Source symbols of a full FEC group.", "FEC",
        |c| c.performance.fec_source_count.to_string()),
    key("performance.fec_repair_packets", Both, Live, "0 to fec_group_size", Is("3"),
        "Repair symbols of a full group: at most (adaptive) or exactly (fixed).", "FEC",
        |c| c.performance.fec_repair_count.to_string()),
    key("performance.fec_mode", Both, Live, "adaptive, fixed, off", Is("\"adaptive\""),
        "How the number of repair symbols is chosen.", "FEC",
        |c| c.performance.fec_mode.to_string()),
    key("performance.heartbeat_interval_ms", Both, Live, "10 to 5000 ms", Is("100"),
        "Time between heartbeats of an idle link.", "link model",
        |c| format!("{:?}", c.performance.heartbeat_interval)),
    key("performance.rtt_weight", Both, Live, "0.0 to 10.0", Is("0.7"),
        "How much a link's delay counts when a link is chosen; 0: not at all.", "link choice",
        |c| c.performance.rtt_weight.to_string()),
    key("performance.loss_weight", Both, Live, "0.0 to 10.0", Is("0.3"),
        "How much a link's loss counts when a link is chosen; 0: not at all.", "link choice",
        |c| c.performance.loss_weight.to_string()),
    key("performance.mode", Both, Live,
        "balanced, throughput, latency, redundant, weighted, single_best, round_robin",
        Is("\"balanced\""), "Which link takes the next packets.", "link choice",
        |c| c.performance.mode.to_string()),
    key("performance.equalise", Both, Live, "auto, on, off", Is("\"auto\""),
        "Quick links wait for slow ones, so that a flow over both sees one delay; auto: bulk flows, when the load needs the slow links; on: all TCP.",
        "link choice", |c| c.performance.equalise.to_string()),
    key("performance.reorder_max_ms", Both, Restart, "\"auto\" or 0 to 1000 ms", Is("\"auto\""),
        "Longest wait for a missing packet; auto: follows the links' delays.", "reordering",
        |c| format!("{:?}", c.performance.reorder_max)),
    key("performance.backend", Both, Restart, "auto, io_uring, io_uring_oneshot, epoll",
        Is("\"auto\""),
        "How the kernel is talked to; auto: the best that works. `status` names it and says why.",
        "data path", |c| c.performance.backend.to_string()),
    key("performance.threads", Both, Restart,
        "\"auto\" or 1 to 16", Is("\"auto\""),
        "Workers of the data path, each with links of its own over every WAN; auto: by processors, and on the client by the WANs' configured rates.",
        "data path", show_threads),
    key("performance.cpu_affinity", Both, Restart, "a list of processors from 0 to 8191, each once",
        Is("[]"), "Processors that the workers are bound to, in turn; empty: the kernel chooses.",
        "data path", |c| format!("{:?}", c.performance.cpu_affinity)),
    key("performance.offload", Both, Restart, "true, false", Is("true"),
        "Segmentation offload on TUN and UDP; false is for comparison and for broken drivers.",
        "data path", |c| c.performance.offload.to_string()),
    key("performance.gso", Both, Restart, "auto, on, uneven, off", Is("\"auto\""),
        "Which runs of a link leave as one segmented send: auto: all while they arrive; uneven: those that end with a shorter datagram.",
        "data path", |c| c.performance.gso.to_string()),
    key("performance.zero_copy", Both, Restart, "auto, on, off", Is("\"auto\""),
        "Runs of 16 KiB and more leave without a copy; auto: as long as the kernel says that it spares one.",
        "data path", |c| c.performance.zero_copy.to_string()),
    // [[classes]]
    key("classes.name", Both, Live, "1 to 24 letters, digits, `-`, `_` or `.`, each name once",
        Unset("class0, class1, ..."), "Name of the class in messages.", "link choice",
        |c| each_class(c, |_| String::new())),
    key("classes.dscp", Both, Live, "a list of code points from 0 to 63", Is("[]"),
        "Packets with one of these code points; empty: with any.", "link choice",
        |c| each_class(c, |class| format!("{:x}", class.rule.dscp))),
    key("classes.protocol", Both, Live, "\"tcp\", \"udp\", \"icmp\" (of both IP versions), or a number from 0 to 255",
        Is("\"\""), "Packets of this protocol; empty: of any.", "link choice",
        |c| each_class(c, |class| format!("{:?}", class.rule.protocol))),
    key("classes.ports", Both, Live, "a list of ports such as 53 and of ranges such as \"5000-5100\", at most 32",
        Is("[]"), "Packets from or to one of these ports; empty: any, also those without ports.",
        "link choice", |c| each_class(c, |class| format!("{:?}", class.rule.ports))),
    key("classes.prefixes", Both, Live, "a list of prefixes such as 192.168.50.0/24, at most 32", Is("[]"),
        "Packets from or to an address in one of these; empty: any.", "link choice",
        |c| each_class(c, |class| format!("{:?}", class.rule.prefixes))),
    key("classes.policy", Both, Live, "stripe, duplicate, pin, best", Is("\"stripe\""),
        "As the mode says, on two links, on one WAN, or on the best link of the moment.", "link choice",
        |c| each_class(c, |class| class.policy.to_string())),
    key("classes.wan", Both, Live, "the name of a WAN of the client; with policy = \"pin\", and only then",
        Is("\"\""), "The WAN that the class is pinned to.", "link choice",
        |c| each_class(c, |class| class.wan.clone().unwrap_or_default())),
    key("classes.fallback", Both, Live, "true, false", Is("true"),
        "Whether a pinned class uses the other WANs while its own is not up; else its packets are dropped.",
        "link choice", |c| each_class(c, |class| class.fallback.to_string())),
    // [security]
    key("security.private_key_file", Both, Restart,
        "a file with one base64 key that only its owner may read",
        Is("\"/etc/chainlightning/private.key\""),
        "Own private key (`chainlightning genkey`). A relative path starts at this file's folder.",
        "handshake", |c| c.security.private_key_file.display().to_string()),
    key("security.peer_public_key", Both, Restart, "a public key: 44 characters of base64",
        Is("\"\""),
        "Client: the server's key. Server: the only client's key, which may then use every inner address.",
        "handshake", |c| each_peer(c, |peer| peer.public_key.to_string())),
    key("security.preshared_key_file", Both, Restart,
        "a file with one base64 key that only its owner may read", Is("\"\""),
        "Key shared with that peer beforehand (`chainlightning genpsk`); empty: none.", "handshake",
        |c| each_peer(c, preshared_path)),
    key("security.cipher", Both, Restart, "auto, aes-256-gcm, chacha20-poly1305", Is("\"auto\""),
        "Cipher of the tunnel; auto: AES where both processors have it in hardware.", "handshake",
        |c| c.security.cipher.to_string()),
    key("security.rekey_interval_s", Both, Restart, "5 to 150 s", Is("120"),
        "Age at which the session's keys are replaced.", "handshake",
        |c| format!("{:?}", c.security.rekey_interval)),
    // [[peers]]
    key("peers.name", Server, Restart, "1 to 24 letters, digits, `-`, `_` or `.`, each name once",
        Unset("peer0, peer1, ..."), "Name of the client in status and logs.", "status and logs",
        |c| each_peer(c, |_| String::new())),
    key("peers.public_key", Server, Restart, "a public key: 44 characters of base64, each once",
        Unset("must be set"), "The client's key.", "handshake",
        |c| each_peer(c, |peer| peer.public_key.to_string())),
    key("peers.preshared_key_file", Server, Restart,
        "a file with one base64 key that only its owner may read", Is("\"\""),
        "Key shared with this client beforehand; empty: none.", "handshake",
        |c| each_peer(c, preshared_path)),
    key("peers.tun_ip", Server, Restart, "an address inside the tunnel, each once",
        Unset("tun_remote_ip if there is one peer"), "The client's address inside the tunnel.",
        "inner routing", |c| each_peer(c, |peer| peer.tun_ip.to_string())),
    key("peers.allowed_ips", Server, Live, "a list of prefixes such as 192.168.50.0/24, each once",
        Unset("tun_ip alone"),
        "Inner addresses that the client may send from and that are routed to it.", "inner routing",
        |c| each_peer(c, |peer| format!("{:?}", peer.allowed_ips))),
    // [routing]
    key("routing.manage", Client, Restart, "true, false", Is("true"),
        "Add a source rule and a routing table for each WAN, and remove them at the end.",
        "routing", |c| c.routing.manage.to_string()),
    key("routing.table", Client, Restart,
        "1 to 4000000000; the tables of all WANs must avoid 253 to 255", Is("51830"),
        "Routing table of the first WAN; the next WANs use the next tables.", "routing",
        |c| c.routing.table.to_string()),
    key("routing.rule_priority", Client, Restart, "1 to 32000", Is("15000"),
        "Priority of the first WAN's rule; the next WANs use the next numbers.", "routing",
        |c| c.routing.rule_priority.to_string()),
    // [status]
    key("status.control_socket", Both, Restart, "an absolute path of at most 107 bytes",
        PerSide { client: "\"/run/chainlightning/client.sock\"", server: "\"/run/chainlightning/server.sock\"" },
        "Unix socket that answers `chainlightning status`.", "status",
        |c| c.control_socket.display().to_string()),
    // [logging]
    key("logging.level", Both, Live, "off, error, warn, info, debug, trace", Is("\"info\""),
        "How much is logged.", "logs", |c| c.logging.level.to_string()),
    key("logging.stats_interval_s", Both, Live, "0 to 3600 s", Is("10"),
        "Time between the log lines with every link's figures; 0: none.", "logs",
        |c| format!("{:?}", c.logging.stats_interval)),
];

#[allow(clippy::too_many_arguments)] // one argument for each column
const fn key(
    name: &'static str,
    side: Side,
    reload: Reload,
    allowed: &'static str,
    default: Default,
    meaning: &'static str,
    effect: &'static str,
    show: fn(&Config) -> String,
) -> Key {
    Key {
        name,
        side,
        reload,
        allowed,
        default,
        meaning,
        effect,
        show,
    }
}

fn show_threads(config: &Config) -> String {
    match config.performance.threads {
        Threads::Auto => "auto".into(),
        Threads::Exactly(count) => count.to_string(),
    }
}

fn each_wan(config: &Config, show: impl Fn(&Wan) -> String) -> String {
    let pairs: Vec<_> = config
        .links
        .wans
        .iter()
        .map(|wan| pair(&wan.name, &show(wan)))
        .collect();
    pairs.join(", ")
}

fn each_class(config: &Config, show: impl Fn(&Class) -> String) -> String {
    let pairs: Vec<_> = config
        .classes
        .iter()
        .map(|class| pair(&class.name, &show(class)))
        .collect();
    pairs.join(", ")
}

fn each_peer(config: &Config, show: impl Fn(&Peer) -> String) -> String {
    let pairs: Vec<_> = config
        .peers
        .iter()
        .map(|peer| pair(&peer.name, &show(peer)))
        .collect();
    pairs.join(", ")
}

fn pair(name: &str, value: &str) -> String {
    if value.is_empty() {
        name.to_owned()
    } else {
        format!("{name}: {value}")
    }
}

fn preshared_path(peer: &Peer) -> String {
    peer.preshared_key_file
        .as_ref()
        .map(|path| path.display().to_string())
        .unwrap_or_default()
}
